"""lm build, add, drop, sources and copy: stores of text that models retrieve from (docs/datastores.md)."""

from __future__ import annotations

import re
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strongroom.errors import HalfBuilt, MissingExtra, NotAStore, SourceTwice, Usage

from .place import example
from .screen import QUIET_SECONDS, Screen

if TYPE_CHECKING:
    from strongroom.lm.part import Progress
    from strongroom.lm.parts import Parts
    from strongroom.lm.source import Manifest
    from strongroom.lm.texts import Texts

_SAMPLE = 48 << 20  # characters of public text that frozen parts are learned from


def declare(verb: str, parser: ArgumentParser) -> None:
    {"lm build": _build, "lm add": _add, "lm drop": _drop, "lm sources": _sources, "lm copy": _copy}[verb](parser)


def _build(parser: ArgumentParser) -> None:
    example(
        parser,
        """
strongroom lm build books.jsonl.xz encyclopedia.jsonl --public --out store --owner "Public domain" --licence CC0-1.0
strongroom lm build law=statutes/ --out store --owner "City council" --licence LicenseRef-council --price 25 --unit EUR-micro
strongroom lm build law=statutes/ --out mine --like store --owner "City council" --licence LicenseRef-council
""",
    )
    parser.add_argument("source", nargs="+", help="a file (.jsonl, .txt, .parquet) or a folder of them, or NAME=FILE")
    parser.add_argument("--out", type=Path, required=True, metavar="STORE", help="the store; made where it is not there")
    parser.add_argument("--owner", required=True, help="whose text it is")
    parser.add_argument("--licence", required=True, help="under which it may be used, such as CC-BY-4.0")
    parser.add_argument("--price", type=int, default=0, metavar="UNITS", help="for a thousand tokens drawn (0)")
    parser.add_argument("--unit", default="credit", help="what prices are counted in (credit)")
    parser.add_argument("--version", type=int, default=1, metavar="N", help="the owner's own count (1)")
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--public",
        action="store_true",
        help="the text is public: a new store learns its tokenizer, retriever and quantizer of it",
    )
    how.add_argument(
        "--shipped", action="store_true", help="a new store takes those of the model that ships, as sources in a room must"
    )
    how.add_argument("--like", type=Path, metavar="STORE", help="a new store takes those of another store")
    parser.add_argument(
        "--lists",
        type=int,
        default=1024,
        metavar="N",
        help="of a new quantizer: 4 times the root of its passages is usual (1024)",
    )
    parser.add_argument("--skip-bad", action="store_true", help="pass over what is no document, and count it")
    parser.add_argument("--replace", action="store_true", help="in the place of a source of that name")
    parser.add_argument("--restart", action="store_true", help="throw away what was built before it was interrupted")
    parser.set_defaults(run=build)


def _add(parser: ArgumentParser) -> None:
    example(
        parser,
        """
strongroom lm add store mine/sources/law-5c0e…
strongroom lm add store mine --source law
""",
    )
    parser.add_argument("store", type=Path)
    parser.add_argument("origin", type=Path, metavar="FROM", help="a source's folder, or a store that has it")
    parser.add_argument("--source", metavar="NAME", help="which one, of a store with several")
    parser.add_argument("--replace", action="store_true", help="in the place of a source of that name")
    parser.set_defaults(run=add)


def _drop(parser: ArgumentParser) -> None:
    example(parser, "strongroom lm drop store law")
    parser.add_argument("store", type=Path)
    parser.add_argument("name", nargs="+", help="sources")
    parser.set_defaults(run=drop)


def _sources(parser: ArgumentParser) -> None:
    example(parser, "strongroom lm sources store --check")
    parser.add_argument("store", type=Path)
    parser.add_argument("--check", action="store_true", help="read all of it, and compare it with its digests")
    parser.set_defaults(run=sources)


def _copy(parser: ArgumentParser) -> None:
    example(
        parser,
        """
strongroom lm copy store s3://bucket/stores/one
strongroom lm copy s3://bucket/stores/one here
""",
    )
    parser.add_argument("origin", metavar="FROM", help="a store's folder, or s3://BUCKET/PREFIX")
    parser.add_argument("target", metavar="TO", help="the other of the two; what is there already is not copied again")
    parser.add_argument("--endpoint", metavar="URL", help="of an S3 that is not Amazon's")
    parser.set_defaults(run=copy)


# --- build ----------------------------------------------------------------------------------------------------------


def build(args: Namespace, screen: Screen) -> int:
    from strongroom.lm import build as building
    from strongroom.lm.datastore import Datastore, Head
    from strongroom.lm.source import About, Price

    _extra()
    wanted = [_named(word) for word in args.source]
    if len({name for name, _ in wanted}) != len(wanted):
        raise SourceTwice("two of the sources have one name", hint="Name them: strongroom lm build one=a.jsonl two=b.jsonl")
    price = Price(args.price, args.unit)
    abouts = [About(name, args.owner, args.licence, price, args.version) for name, _ in wanted]
    texts = [_texts(path) for _, path in wanted]
    try:
        Head.read(args.out)
    except (NotAStore, HalfBuilt):
        Datastore.create(args.out, _parts(args, texts, screen))
    found = []
    for about, text in zip(abouts, texts, strict=True):
        began = time.monotonic()
        said = _Told(about.name, text, screen)
        manifest = building.build(
            args.out, about, text, skip=args.skip_bad, replace=args.replace, restart=args.restart, said=said
        )
        found.append({**_shown(manifest), "seconds": round(time.monotonic() - began, 3)})
        screen.said(about.name, _line(manifest, time.monotonic() - began))
    screen.result({"store": str(args.out), "version": building.head_of(args.out).digest, "sources": found})
    return 0


def _extra() -> None:
    try:
        import faiss  # noqa: F401
        import tokenizers  # noqa: F401
    except ImportError:
        raise MissingExtra("stores need faiss and tokenizers", hint="pip install 'strongroom[lm]'") from None


def _named(word: str) -> tuple[str, Path]:
    name, sign, rest = word.partition("=")
    path = Path(rest if sign else word)
    if not sign:
        name = re.sub(r"[^a-z0-9._-]+", "-", path.name.partition(".")[0].lower()).strip("-._")
    from strongroom.lm.document import named

    return named(name), path


def _texts(path: Path) -> Texts:
    from strongroom.lm.texts import Texts

    return Texts.of([path])


def _parts(args: Namespace, texts: Sequence[Texts], screen: Screen) -> Parts:
    from strongroom.lm.datastore import PARTS
    from strongroom.lm.parts import Parts

    if args.shipped:
        from strongroom import lm

        return Parts.load(Path(lm.__file__).parent / "model" / PARTS)
    if args.like is not None:
        return Parts.load(args.like / PARTS)
    if not args.public:
        raise Usage(
            "a new store needs frozen parts",
            hint="They can be learned of public text: --public. Else take those that ship, --shipped, or --like STORE",
        )
    screen.note("learning tokenizer, retriever and quantizer of public text: a minute or two")
    return Parts.train(_sample(texts), lists=args.lists)


def _sample(texts: Sequence[Texts]) -> Iterator[str]:
    """Documents of every source, as many characters of each."""
    from strongroom.lm.texts import Document

    for one in texts:
        left = _SAMPLE // len(texts)
        for found in one.read():
            if isinstance(found, Document):
                yield found.text[:left]
                left -= len(found.text)
            if left <= 0:
                break


class _Told:
    """Says every two seconds how far a build is."""

    def __init__(self, name: str, texts: Texts, screen: Screen) -> None:
        self._name, self._screen, self._files = name, screen, texts.files
        self._sizes = [path.stat().st_size for path in texts.files]
        self._began = self._last = time.monotonic()
        self._first: int | None = None

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if self._first is None:  # what was built before it was interrupted took no time now
            self._first, self._began = progress.tokens, now
        if now - self._last < QUIET_SECONDS:
            return
        self._last = now
        speed = (progress.tokens - self._first) / max(now - self._began, 1e-9)
        self._screen.note(f"{self._name}: {progress.tokens:,} tokens, {speed:,.0f} a second{self._share(progress)}")

    def _share(self, progress: Progress) -> str:
        place = progress.place
        done = sum(self._sizes[: place.file])
        if self._files[place.file].suffix not in (".gz", ".xz"):
            done += place.offset
        total = sum(self._sizes)
        return f", {100 * done // total} %" if done and total else ""


# --- the others -----------------------------------------------------------------------------------------------------


def add(args: Namespace, screen: Screen) -> int:
    from strongroom.lm import moving
    from strongroom.lm.datastore import add as put
    from strongroom.lm.datastore import reclaimed
    from strongroom.lm.source import read_manifest

    _extra()
    folder = moving.found(args.origin, args.source)
    with (
        screen.progress("copying and checking", 2 * read_manifest(folder).size) as said,
        moving.brought(args.store, folder, said) as checked,
    ):
        began = time.monotonic()
        head = put(args.store, checked, replace=args.replace, reclaim=False)
        took = time.monotonic() - began
    reclaimed(args.store)
    screen.said(checked.manifest.about.name, f"{_line(checked.manifest, None)}; added in {1000 * took:,.1f} ms")
    screen.result({"source": _shown(checked.manifest), "version": head.digest, "milliseconds": round(1000 * took, 3)})
    return 0


def drop(args: Namespace, screen: Screen) -> int:
    from strongroom.lm import datastore

    _extra()
    names = list(dict.fromkeys(args.name))
    try:
        began = time.monotonic()
        head = datastore.drop(args.store, *names, reclaim=False)
        took = 1000 * (time.monotonic() - began)
        for name in names:
            screen.said(name, f"dropped in {took:,.1f} ms; readers that have the store open keep it until they open it anew")
    finally:  # also what a drop or a build left that was interrupted
        datastore.reclaimed(args.store, names)
    dropped = [{"name": name, "milliseconds": round(took, 3)} for name in names]
    screen.result({"dropped": dropped, "version": head.digest})
    return 0


def sources(args: Namespace, screen: Screen) -> int:
    from strongroom.lm.datastore import PARTS, SOURCES, listing
    from strongroom.lm.parts import Parts
    from strongroom.lm.source import check

    head, found = listing(args.store)
    version = head.digest
    if args.check:
        _extra()
        parts = Parts.load(args.store / PARTS)
        for name, manifest in found.items():
            with screen.progress(f"checking {name}", manifest.size) as said:
                check(args.store / SOURCES / manifest.folder, parts, said)
    rows = [
        [
            name,
            m.about.owner,
            m.about.licence,
            f"{m.about.price.amount:,} {m.about.price.unit}",
            f"{m.documents:,}",
            f"{m.tokens:,}",
            f"{m.size / 1e6:,.1f} MB",
        ]
        for name, m in found.items()
    ]
    if rows:
        screen.table(["source", "owner", "licence", "per 1,000 tokens", "documents", "tokens", "on disk"], rows)
    else:
        screen.line("  no source is in it")
    screen.said("version", version)
    if args.check:
        screen.said("checked", "every file is what its manifest promises")
    screen.result({"version": version, "checked": args.check, "sources": [_shown(m) for m in found.values()]})
    return 0


def copy(args: Namespace, screen: Screen) -> int:
    from strongroom.app.stores.bucket import Bucket

    _extra()
    up, down = args.target.startswith("s3://"), args.origin.startswith("s3://")
    if up == down:
        raise Usage("one of the two is a folder, and the other an address s3://BUCKET/PREFIX")
    bucket = Bucket.at(args.target if up else args.origin, endpoint=args.endpoint)
    with screen.progress("copying", None) as said:
        version = bucket.push(Path(args.origin), said) if up else bucket.fetch(Path(args.target), said)
    screen.said("copied", version)
    screen.result({"version": version})
    return 0


def _shown(manifest: Manifest) -> dict[str, Any]:
    import json

    found: dict[str, Any] = json.loads(manifest.encode())
    return {**found, "digest": manifest.digest, "bytes": manifest.size}


def _line(manifest: Manifest, seconds: float | None) -> str:
    said = f"{manifest.documents:,} documents, {manifest.tokens:,} tokens, {manifest.chunks:,} passages"
    if manifest.passed_over:
        said += f"; {manifest.passed_over:,} passed over"
    return said if seconds is None else f"{said}; {manifest.tokens / max(seconds, 1e-9):,.0f} tokens a second"
