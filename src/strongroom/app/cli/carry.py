"""carry: out of this site into one file, in from one, and what this site lets cross."""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser, Namespace
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strongroom.app.client.home import PartyHome, trust_file
from strongroom.errors import CarriedElsewhere, CarriedFromStranger, NoKeys, NotFound, Usage

from .place import NOWHERE, example, home, party, room
from .screen import Screen

if TYPE_CHECKING:
    from strongroom.app.client.carry import Desk
    from strongroom.app.client.carry.coming import Arrived
    from strongroom.app.client.room import Room
    from strongroom.carry import Carriage, Carried, Contents, Lets, Peer, Signed

DEFAULT_BYTES = 1 << 30


def declare(_verb: str, parser: ArgumentParser) -> None:
    example(
        parser,
        """
strongroom carry allow high --here low --party hospital --lets-out all --lets-in all
strongroom carry out --to high --out /media/drive/0001.carry --as lab
strongroom carry show /media/drive/0001.carry           # for whoever guards the border; needs no key
strongroom carry in /media/drive/0001.carry --as hospital
strongroom carry log
""",
    )
    verbs = parser.add_subparsers(dest="what", required=True, metavar="allow|out|in|show|log")
    _declare_allow(verbs.add_parser("allow", help="say what may cross between this site and another"))
    _declare_out(verbs.add_parser("out", help="write what another site has not got yet into one file"))
    coming = verbs.add_parser("in", help="check a file, and hand what is in it to this site's exchange")
    coming.add_argument("file", type=Path)
    shown = verbs.add_parser("show", help="say what a file holds; nothing is taken in")
    shown.add_argument("file", type=Path)
    shown.add_argument("--trust", type=Path, metavar="FILE", help="whose signatures count (the party's own trust file)")
    verbs.add_parser("log", help="what was carried out and taken in")
    for sub in verbs.choices.values():
        flags = (("--home", "home"), ("--as", "party"), ("--exchange-url", "exchange_url"))
        for flag, dest in flags:
            sub.add_argument(flag, dest=dest, default=SUPPRESS)
        sub.add_argument("--json", action="store_true", default=SUPPRESS)
    parser.set_defaults(run=run)


def _declare_allow(sub: ArgumentParser) -> None:
    sub.add_argument("site", help="the other site")
    sub.add_argument("--here", metavar="SITE", help="this site's name, said once")
    sub.add_argument("--party", dest="parties", action="append", default=[], metavar="NAME", help="who is there; repeatable")
    sub.add_argument(
        "--carrier",
        dest="carriers",
        action="append",
        default=[],
        metavar="NAME",
        help="who alone signs and opens there (they)",
    )
    words = "all, none, or kinds with commas between them (none)"
    sub.add_argument("--lets-in", default="none", metavar="KINDS", help=f"what may come from there: {words}")
    sub.add_argument("--lets-out", default="none", metavar="KINDS", help=f"what may go there: {words}")
    sub.add_argument("--max-bytes", type=int, default=DEFAULT_BYTES, metavar="N", help=f"of a file ({DEFAULT_BYTES})")


def _declare_out(sub: ArgumentParser) -> None:
    sub.add_argument("--to", required=True, metavar="SITE", help="the other site")
    sub.add_argument("--for", dest="recipient", metavar="NAME", help="who opens it there, where there are several")
    sub.add_argument("--out", required=True, type=Path, metavar="FILE", help="where to write it; nothing may be there")
    sub.add_argument("--contract", action="append", default=[], metavar="DIGEST", help="only what belongs to this proposal")
    sub.add_argument("--offer", action="append", default=[], metavar="OWNER/NAME", help="an asset's manifest and its mock")
    sub.add_argument("--card", action="append", default=[], type=Path, metavar="FILE", help="a party's card")
    sub.add_argument("--reference", action="append", default=[], type=Path, metavar="FILE", help="reference values")
    sub.add_argument("--lost", type=int, metavar="NUMBER", help="this bundle and all after it never arrived: carry it again")
    sub.add_argument("--above", type=int, default=0, metavar="NUMBER", help="count on from here, where the record was lost")


def run(args: Namespace, screen: Screen) -> int:
    verbs: dict[str, Callable[[Namespace, Screen], None]] = {
        "allow": allow, "in": coming, "log": log, "out": going, "show": show
    }  # fmt: skip
    verbs[args.what](args, screen)
    return 0


def _desk(args: Namespace) -> Desk:
    from strongroom.app.client.carry import Desk

    found = Desk(home(args))
    args.opened.callback(found.close)
    return found


def _room(args: Namespace) -> Room:
    args.enclave_url = args.enclave_url or NOWHERE  # a carrying desk asks none
    return room(args)


def _progress(args: Namespace, screen: Screen) -> Callable[[str, int], Callable[[int], None]]:
    def begun(label: str, total: int) -> Callable[[int], None]:
        advance: Callable[[int], None] = args.opened.enter_context(screen.progress(label, total))
        return advance

    return begun


# --- allow ---


def _lets(words: str, max_bytes: int) -> Lets | None:
    from strongroom.carry import Kind, Lets

    if words == "none":
        return None
    named = [*Kind] if words == "all" else [Kind(word) for word in words.split(",") if word in [*Kind]]
    unknown = set() if words == "all" else set(words.split(",")) - set(named)
    if unknown:
        raise Usage(f"{min(unknown)!r} is no kind of item", hint=f"Kinds: {', '.join(Kind)}; or all, or none")
    return Lets(tuple(sorted(set(named))), max_bytes)


def allow(args: Namespace, screen: Screen) -> None:
    from strongroom.carry import Peer

    if not args.parties:
        raise Usage("say who is there: --party NAME", hint="Only what concerns one of them crosses.")
    lets_in, lets_out = _lets(args.lets_in, args.max_bytes), _lets(args.lets_out, args.max_bytes)
    parties, carriers = sorted(set(args.parties)), sorted(set(args.carriers or args.parties))
    site = _desk(args).allow(Peer(args.site, tuple(parties), tuple(carriers), lets_in, lets_out), args.here)
    screen.said("this site", site.name)
    for peer in site.peers:
        _tell_peer(peer, screen)
    screen.result(site.to_json())


def _tell_peer(peer: Peer, screen: Screen) -> None:
    screen.said(peer.site, f"with the parties {', '.join(peer.parties)}; {', '.join(peer.carriers)} carries for them")
    for way, lets in (("in", peer.lets_in), ("out", peer.lets_out)):
        said = "nothing" if lets is None else f"{', '.join(lets.kinds)}; at most {lets.max_bytes:,} bytes a file"
        screen.said(f"  {way}", said)


# --- out, in ---


def going(args: Namespace, screen: Screen) -> None:
    from strongroom.app.client.carry import Wish, carry_out

    here = _room(args)
    wish = Wish(
        contracts=tuple(here.find(reference) for reference in args.contract),
        offers=tuple(args.offer),
        cards=tuple(args.card),
        references=tuple(args.reference),
        lost=args.lost,
        above=args.above,
    )
    written = carry_out(
        here, _desk(args), site=args.to, to=args.recipient, path=args.out, wish=wish, progress=_progress(args, screen)
    )
    _tell(written.carriage, written.size, screen)
    if written.kept_back:
        screen.said("kept back", f"{', '.join(written.kept_back)}: this site's policy lets none of it out")
    screen.said("written", f"{written.path}; read it with: strongroom carry show {written.path}")
    value = {"kept_back": list(written.kept_back), "path": str(written.path)}
    screen.result({**_as_json(written.carriage, written.size), **value})


def coming(args: Namespace, screen: Screen) -> None:
    from strongroom.app.client.carry import carry_in

    arrived = carry_in(_room(args), _desk(args), args.file, progress=_progress(args, screen))
    carriage = arrived.carriage
    screen.said("taken in", f"number {carriage.number} from {carriage.sender}")
    counted = Counter(item.kind for item in arrived.landed)
    screen.said("", ", ".join(f"{count} {kind}" for kind, count in counted.items()) or "nothing")
    for path in arrived.files:
        screen.said("file", str(path))
    for origin, size, how in arrived.heads:
        screen.said("ledger", f"{origin}, {size} entries: {how}")
    for refused in arrived.refused:
        screen.said("not taken", f"{refused.item.kind} {refused.item.digest}: {refused.error.code}: {refused.error}")
    screen.said("", "Nothing is approved or pinned by this. See what waits: strongroom inbox, strongroom status")
    screen.result(_arrived_json(arrived))


def _arrived_json(arrived: Arrived) -> dict[str, Any]:
    return {
        "digest": arrived.carriage.digest,
        "files": [str(path) for path in arrived.files],
        "from": arrived.carriage.sender.to_json(),
        "landed": [item.to_json() for item in arrived.landed],
        "ledger": [{"log": origin, "size": size, "stands": how} for origin, size, how in arrived.heads],
        "number": arrived.carriage.number,
        "refused": [{"error": r.error.to_json(), "item": r.item.to_json()} for r in arrived.refused],
    }


# --- show ---


def show(args: Namespace, screen: Screen) -> None:
    from strongroom.asset import FileSource
    from strongroom.carry import read

    with ExitStack() as stack:
        try:
            source = stack.enter_context(FileSource(args.file))
            found = read(source)
            signed, why = _signed(args, found)
            contents, closed = _contents(args, signed, screen)
        except OSError as error:
            raise NotFound(f"cannot read {args.file}: {error.strerror}") from error
    carriage = found.carriage
    _tell(carriage, found.size, screen)
    abouts = [f.said.about if f.said else "" for f in contents.found] if contents else [""] * len(carriage.items)
    header = ["kind", "bytes", "digest"] + (["what it says of itself"] if contents else [])
    rows = [
        [item.kind, f"{item.size:,}", item.digest] + ([about] if contents else [])
        for item, about in zip(carriage.items, abouts, strict=True)
    ]
    screen.table(header, rows)
    screen.said("signature", f"by {carriage.sender}, whose card is pinned" if signed else f"NOT CHECKED: {why}")
    whole = "" if found.size == found.said_size else f"; the manifest says {found.said_size:,}: it is not whole"
    screen.said("length", f"{found.size:,} bytes{whole}")
    screen.said("contents", "opened, and each item is what it says" if contents else f"not opened: {closed}")
    value: dict[str, Any] = {"opened": contents is not None, "signature": "verified" if signed else "not established"}
    if contents:
        value["about"] = abouts
    screen.result({**_as_json(carriage, found.size), **value, "whole": found.size == found.said_size})


def _who(args: Namespace) -> PartyHome | None:
    try:
        return party(args)
    except NoKeys:
        if args.party is not None:
            raise
        return None


def _signed(args: Namespace, found: Carried) -> tuple[Signed | None, str]:
    """The file, if its signature can be told; else why not. Raises CarriedAltered where it is wrong."""
    from strongroom.carry import verify

    if args.trust is not None:
        return verify(found, trust_file(args.trust)), ""
    who = _who(args)
    if who is None:
        return None, "no trust file at hand (--trust FILE), so that anybody could have written this"
    try:
        return verify(found, who.trust), ""
    except CarriedFromStranger as error:
        return None, str(error)


def _contents(args: Namespace, signed: Signed | None, screen: Screen) -> tuple[Contents | None, str]:
    """What lies in it, for its recipient; else why it stays closed. Raises CarryError leaves where it is not as it says."""
    from strongroom.carry import open_body

    who = _who(args) if signed else None
    if signed is None or who is None:
        return None, "no key at hand that opens it" if signed else "its signature comes first"
    total = signed.carriage.layout.plaintext_bytes
    try:
        with screen.progress(f"checking {args.file.name}", total) as advance:
            return open_body(signed, who.name, who.keys.decryption, progress=advance), ""
    except CarriedElsewhere as error:
        return None, str(error)


def _tell(carriage: Carriage, size: int, screen: Screen) -> None:
    screen.said("from", str(carriage.sender))
    screen.said("to", str(carriage.recipient))
    screen.said("number", f"{carriage.number}, after {carriage.follows or 'none'}")
    made = datetime.fromtimestamp(min(carriage.created_at, 1 << 37), UTC)
    screen.said("written", f"{made:%Y-%m-%d %H:%M:%S} UTC, by the sender's clock")
    counted = Counter(item.kind for item in carriage.items)
    screen.said("holds", ", ".join(f"{count} {kind}" for kind, count in counted.items()) + f"; {size:,} bytes in all")
    screen.said("digest", carriage.digest)


def _as_json(carriage: Carriage, size: int) -> dict[str, Any]:
    members = {name: value for name, value in carriage.to_json().items() if name not in ("body", "key")}
    return {**members, "bytes": size, "digest": carriage.digest}


# --- log ---


def log(args: Namespace, screen: Screen) -> None:
    crossed = _desk(args).record.crossed()
    rows = [
        [f"{datetime.fromtimestamp(c.at, UTC):%Y-%m-%d %H:%M:%S}", c.way, c.site, str(c.number), c.digest or "given up"]
        for c in crossed
    ]
    screen.table(["when (UTC)", "way", "site", "number", "bundle"], rows)
    shown = [{"at": c.at, "digest": c.digest, "number": c.number, "site": c.site, "way": c.way} for c in crossed]
    screen.result({"carried": shown})
