"""offer, assets: what an owner publishes for researchers, and how they see it."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from strongroom.app.client import approvers
from strongroom.app.client.home import pretty, read, reading, write
from strongroom.app.client.room import TABLES, manifest_path, name_of, sealed_path
from strongroom.asset import MANIFEST_TYPE, Manifest
from strongroom.errors import Conflict, Usage

from .assets import declare_terms, manifest_in, terms, upload
from .place import example, room
from .screen import Screen

if TYPE_CHECKING:
    from strongroom.app.client.assets import Asset
    from strongroom.app.client.mock.report import Report
    from strongroom.app.client.offer import Offered, Offering

MAX_REVEAL_BYTES = 1 << 20


def declare(verb: str, parser: ArgumentParser) -> None:
    {"offer": _declare_offer, "assets": _declare_assets}[verb](parser)


def _declare_offer(parser: ArgumentParser) -> None:
    example(
        parser,
        """
strongroom offer census.parquet --check                        # what a mock would reveal; publishes nothing
strongroom offer census.parquet --suggest reveal.json          # a draft of what to reveal: read it, edit it
strongroom offer census.parquet --mock auto --reveal reveal.json --as office \\
    --use evaluate --allow report --min-group 10
strongroom offer census.csv --mock made-by-hand.csv --withhold surname --as office --use evaluate --allow report
""",
    )
    parser.add_argument("table", type=Path, help=f"one of {', '.join(TABLES)}")
    parser.add_argument("--mock", default="auto", metavar="auto|FILE", help="make one (auto), or take your own")
    parser.add_argument("--reveal", type=Path, metavar="FILE", help="what the mock may reveal; without it, names and types")
    parser.add_argument("--rows", type=int, metavar="N", help="rows of the mock (100)")
    parser.add_argument(
        "--withhold", action="append", default=[], metavar="NAME", help="a column that is not offered at all"
    )
    parser.add_argument(
        "--rename",
        action="append",
        default=[],
        metavar="NAME=OTHER",
        help="a column's name in the mock and in what is sealed",
    )
    parser.add_argument("--seed", type=int, default=0, help="another one makes another mock of the same description (0)")
    parser.add_argument("--coincide", action="store_true", help="rows of your own mock may be alike to rows of the table")
    parser.add_argument("--mock-out", type=Path, metavar="FILE", help="where to keep a made mock (TABLE.mock.…)")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--check", action="store_true", help="say whether the mock fits and what it reveals, and stop")
    instead.add_argument("--suggest", type=Path, metavar="FILE", help="write a draft of --reveal, and stop")
    parser.add_argument("--few", type=int, metavar="N", help="with --suggest: categories under N records are risky (10)")
    parser.add_argument("--name", help="the asset's name (the file's, without its ending)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write the sealed file (TABLE.sealed)")
    parser.add_argument("--no-upload", action="store_true", help="do not put it on the exchange")
    declare_terms(parser)
    parser.set_defaults(run=offer)


class _Steps:
    """Progress of one thing after another."""

    def __init__(self, screen: Screen) -> None:
        self._screen, self._open = screen, ExitStack()

    def __call__(self, label: str, total: int | None) -> Callable[[int], None]:
        self._open.close()
        return self._open.enter_context(self._screen.progress(label, total))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()


def _offering(args: Namespace) -> Offering:
    from strongroom.app.client.offer import Offering, need_tables

    need_tables()
    from strongroom.app.client.mock.reveal import MAX_ROWS, Reveal

    if args.rows is not None and not 1 <= args.rows <= MAX_ROWS:
        raise Usage(f"a mock has 1 to {MAX_ROWS:,} rows")
    reveal = None
    if args.reveal:
        with reading(args.reveal):
            reveal = Reveal.parse(read(args.reveal, max_bytes=MAX_REVEAL_BYTES))
    renamed = {}
    for words in args.rename:
        old, equals, new = words.partition("=")
        if not equals or not new:
            raise Usage(f"{words!r} is not of the form NAME=OTHER")
        renamed[old] = new
    mock = None if args.mock == "auto" else Path(args.mock)
    return Offering(
        args.table,
        reveal=reveal,
        mock=mock,
        rows=args.rows,
        withhold=tuple(args.withhold),
        rename=renamed,
        seed=args.seed,
        coincide=args.coincide,
    )


def offer(args: Namespace, screen: Screen) -> int:
    if args.suggest:
        return _suggest(args, screen)
    from strongroom.app.client.offer import keep_mock, mock_path, prepared, seal_offer

    offering = _offering(args)
    out = args.out or sealed_path(args.table)
    if args.check:
        with _Steps(screen) as steps, prepared(offering, steps=steps) as offered:
            _said(offered.report, screen)
            screen.said(
                "fits", f"the mock has the table's {len(offered.schema)} columns and their types; nothing was published"
            )
            screen.result({"fits": True, "mock": _mock_said(offered), **offered.report.to_json()})
        return 0
    wanted, here = terms(args), room(args, offline=args.no_upload)
    named = approvers.read(here, args.must_approve)
    if out.exists():
        raise Conflict(f"{out} is already there", hint="Move it away, or choose another place with --out.")
    with _Steps(screen) as steps, prepared(offering, beside=out.parent, steps=steps) as offered:
        _said(offered.report, screen)  # before anything leaves
        kept = keep_mock(offered, args.mock_out or mock_path(args.table)) if offering.mock is None else offering.mock
        progress = steps(f"sealing {args.table.name}", args.table.stat().st_size)
        name = args.name or name_of(args.table.stem)
        manifest = seal_offer(here, offered, terms=wanted, name=name, out=out, approvers=named, progress=progress)
        envelope = manifest_in(manifest_path(out))
        if not args.no_upload:
            upload(here, out, envelope, offered.mock, screen)
    screen.line()
    assert Manifest.parse(envelope.expect(MANIFEST_TYPE)) == manifest
    asset = f"{manifest.owner}/{manifest.name}"
    screen.said("mock", f"{kept} ({offered.rows:,} rows)")
    screen.said("sealed", f"{out} ({manifest.sealed.size:,} bytes)")
    screen.said("manifest", f"{manifest_path(out)}   {manifest.digest}")
    screen.said("asset", asset)
    for quorum in manifest.approvers:
        screen.said("must approve", f"{quorum}, beside you")
    screen.said("key", "with your broker, and nowhere else")
    screen.said("exchange", "not uploaded" if args.no_upload else "holds the sealed file, the manifest and the mock")
    value = {
        "asset": asset,
        "manifest": manifest.digest,
        "sealed": str(out),
        "mock": {**_mock_said(offered), "file": str(kept)},
    }
    screen.result({**value, **offered.report.to_json()})
    return 0


def _mock_said(offered: Offered) -> dict[str, object]:
    return {"media_type": offered.media_type, "rows": offered.rows}


def _said(report: Report, screen: Screen) -> None:
    screen.heading("Whoever gets the mock knows")
    for item in report.items:
        screen.said(item.column or "(the table)", item.text)
    screen.heading("And does not learn")
    for text in report.kept:
        screen.said("", text)
    screen.line()
    for text in report.asks:
        screen.said("ask yourself", text)


def _suggest(args: Namespace, screen: Screen) -> int:
    from strongroom.app.client.offer import suggested

    if args.suggest.exists():
        raise Conflict(f"{args.suggest} is already there", hint="Move it away: what you edited is not overwritten.")
    if args.few is not None and args.few < 1:
        raise Usage("--few is a number of records, at least 1")
    with _Steps(screen) as steps:
        found = suggested(args.table, args.few, steps)
    write(args.suggest, pretty(found.reveal.to_json()), secret=True)
    screen.heading("What each item would show of the people in the table (for your eyes alone)")
    for finding in found.findings:
        screen.said(finding.column or "(the table)", f"{finding.item}: {'RISKY: ' if finding.risky else ''}{finding.text}")
    screen.line()
    screen.said("draft", f"{args.suggest}: read it, take out what you do not want to reveal, then --reveal {args.suggest}")
    screen.result({"findings": [f.to_json() for f in found.findings], "reveal": str(args.suggest)})
    return 0


# --- assets -----------------------------------------------------------------------------------------------------------


def _declare_assets(parser: ArgumentParser) -> None:
    example(
        parser,
        """
strongroom assets --as researcher                      # what pinned owners offer
strongroom assets office/census --as researcher        # its terms and its columns
strongroom assets office/census --mock census.parquet  # write code against it
""",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="one asset: NAME, OWNER/NAME or a digest")
    parser.add_argument("--mock", type=Path, metavar="FILE", help="write its mock, checked, to a file")
    parser.add_argument("--forget", metavar="OWNER/NAME", help="take whichever offer of it the exchange shows next")
    parser.set_defaults(run=assets)


def assets(args: Namespace, screen: Screen) -> int:
    from strongroom.app.client.assets import HEADER, forget

    here = room(args)
    if args.mock and not args.name:
        raise Usage("say of which asset: strongroom assets OWNER/NAME --mock FILE")
    if args.forget:
        forget(here, args.forget)
    found = here.assets
    if args.name:
        return _one(found[args.name], args, screen)
    rows = found.rows()
    screen.table(list(HEADER), rows)
    if not rows:
        screen.line("  no pinned party offers anything here")
    screen.result({"assets": [{"asset": name, "manifest": asset.manifest.digest} for name, asset in found.listed().items()]})
    return 0


def _one(asset: Asset, args: Namespace, screen: Screen) -> int:
    for about, text in asset.card.items():
        screen.said(about, text)
    value: dict[str, object] = {"asset": asset.name, "manifest": asset.manifest.to_json(), "terms": asset.terms.clauses}
    if args.mock:
        if args.mock.exists():
            raise Conflict(f"{args.mock} is already there", hint="Move it away, or choose another place.")
        write(args.mock, read(asset.mock_path, max_bytes=None))
        screen.said("written", f"{args.mock}: to the last byte the mock that {asset.manifest.owner} signed")
        value["written"] = str(args.mock)
    if asset.manifest.mock is not None and asset.is_table:
        screen.heading("Columns")
        for name, kind in asset.schema.rows:
            screen.said(name, kind)
        value["columns"] = [{"name": name, "type": kind} for name, kind in asset.schema.rows]
    screen.result(value)
    return 0
