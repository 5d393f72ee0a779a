"""lm seal and lm revise: sources that others' models draw from in a room, under their owners' terms."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom.app.client.prose import drawn
from strongroom.drawing import GRAIN, MAX_TOTAL, Drawing, Price
from strongroom.errors import Usage

from . import standing
from .place import example, home, room
from .screen import Screen

if TYPE_CHECKING:
    from strongroom.app.client.room import Room
    from strongroom.asset import Manifest
    from strongroom.serving import Serving


def declare(verb: str, parser: ArgumentParser) -> None:
    {"lm seal": _seal, "lm revise": _revise}[verb](parser)


def _seal(parser: ArgumentParser) -> None:
    example(
        parser,
        """
strongroom lm build law=statutes/ --shipped --out mine --owner "City council" --licence LicenseRef-council
strongroom lm seal mine --model lab/retrieval --price 25000000 --unit EUR-nano --answer-tokens 64 --as council
""",
    )
    parser.add_argument("origin", type=Path, metavar="FROM", help="a source's folder, or a store that has it")
    parser.add_argument("--source", metavar="NAME", help="which one, of a store with several")
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        required=True,
        metavar="SHA256|ASSET",
        help="which model may draw: the digest of its weights, or a sealed model that shows it; said again for others",
    )
    _terms(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write the sealed file")
    standing.declare(parser)
    parser.set_defaults(run=seal)


def _terms(parser: ArgumentParser) -> None:
    parser.add_argument("--price", type=int, metavar="UNITS", help="whole units for a thousand tokens drawn")
    parser.add_argument("--unit", help="what prices are counted in, such as EUR-nano; small ones lose less to rounding")
    parser.add_argument("--token-share", type=int, metavar="PERCENT", help="of one token at most (100)")
    parser.add_argument("--answer-tokens", type=int, metavar="N", help="of one answer at most, in whole tokens (no limit)")


def _revise(parser: ArgumentParser) -> None:
    example(
        parser,
        """
strongroom lm revise council/law --out-now --as council      # the next answer draws nothing from it
strongroom lm revise council/law --in-again --as council
strongroom lm revise council/law --price 30000000 --as council  # a contract that agreed to pay less draws no more
""",
    )
    parser.add_argument("asset", help="your sealed source: OWNER/NAME, or the digest of its manifest")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--out-now", action="store_true", help="nobody may draw from it")
    how.add_argument(
        "--in-again",
        action="store_true",
        help="after --out-now: under the terms that it was sealed with, and what else is said",
    )
    _terms(parser)
    parser.set_defaults(run=revise)


def _changed(args: Namespace, base: Drawing) -> Drawing:
    """Terms, and what the flags say otherwise. Raises Usage."""
    price = Price(base.price.amount if args.price is None else args.price, args.unit or base.price.unit)
    token, total = base.token, base.total
    if args.token_share is not None:
        if not 1 <= args.token_share <= 100:
            raise Usage("--token-share is 1 to 100 percent")
        token = GRAIN * args.token_share // 100
    if args.answer_tokens is not None:
        if not 1 <= args.answer_tokens <= MAX_TOTAL // GRAIN:
            raise Usage(f"--answer-tokens is 1 to {MAX_TOTAL // GRAIN:,}")
        total = args.answer_tokens * GRAIN
    return replace(base, price=price, token=token, total=total)


def seal(args: Namespace, screen: Screen) -> int:
    from strongroom.app.client.sources import seal_source

    if args.price is None or args.unit is None:
        raise Usage("say at what price: --price and --unit", hint="For nothing: --price 0 --unit credit")
    here = room(args)
    models = frozenset(said if said.startswith("sha256:") else _weights(here.asset(said)) for said in args.model)
    drawing = _changed(args, Drawing(models, Price(args.price, args.unit)))
    serve = standing.said(args, ROUTES) or ROUTES
    with screen.progress("sealing", None) as progress:
        found = seal_source(
            here, args.origin, drawing=drawing, serve=serve, source=args.source, out=args.out, progress=progress
        )
    screen.said("sealed", f"{found.owner}/{found.name}, {found.sealed.size:,} bytes")
    screen.said("manifest", found.digest)
    _say(drawing, screen)
    screen.result({"asset": f"{found.owner}/{found.name}", "drawing": drawing.to_json(), "manifest": found.digest})
    return 0


def _usual() -> Serving:
    return replace(standing.USUAL, routes=frozenset({"chat", "completions"}))


ROUTES = _usual()


def _weights(manifest: Manifest) -> str:
    if manifest.content.scheme.value != "sha256":
        raise Usage(
            f"{manifest.owner}/{manifest.name} does not show the digest of its weights",
            hint="Ask its owner for it, and say it: --model sha256:…",
        )
    return f"sha256:{manifest.content.value.hex()}"


def _say(drawing: Drawing, screen: Screen) -> None:
    screen.said("may draw", ", ".join(sorted(drawing.models)))
    screen.said("", drawn(drawing.price, drawing.token, drawing.total))


def _from_now(args: Namespace, here: Room, manifest: Manifest) -> Drawing | None:
    """What holds from now on: what was said last, and what is said otherwise. Raises Usage."""
    from strongroom.app.client.sources import own_terms, terms_now

    other = any(said is not None for said in (args.price, args.unit, args.token_share, args.answer_tokens))
    if args.out_now and other:
        raise Usage("nobody draws from it: there are no terms to say")
    if args.out_now:
        return None
    base = terms_now(here, manifest)
    if base is None and not args.in_again:
        raise Usage("nobody draws from it now", hint="For that to change, say --in-again, and other terms with it.")
    if not (args.in_again or other):
        raise Usage("say what changes", hint="--out-now, --in-again, or other terms")
    return _changed(args, base or own_terms(here, manifest))


def revise(args: Namespace, screen: Screen) -> int:
    from strongroom.app.client.sources import revise as bring

    here = room(args)
    manifest = here.asset(args.asset)
    terms = _from_now(args, here, manifest)
    url = args.enclave_url or home(args).config.enclave
    found, heard = bring(here, manifest, terms, url=url)
    screen.said("revised", f"{manifest.owner}/{manifest.name}, number {found.number}")
    if found.terms is None:
        screen.said("from now on", "nobody draws from it; an answer that is under way ends with what it began with")
    else:
        _say(found.terms, screen)
    screen.said("told", "your broker, which gives no key under other terms")
    screen.said("", f"what is at {url} says that it {'keeps to it from now on' if heard else 'does not draw from it'}")
    screen.result(
        {"asset": manifest.digest, "drawing": found.terms and found.terms.to_json(), "heard": heard, "number": found.number}
    )
    return 0
