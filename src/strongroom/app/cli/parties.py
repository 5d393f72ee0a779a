"""party: make one, show its card, trust another's, trust an enclave's reference values."""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path

from strongroom import wire
from strongroom.app.client.home import Home, read, reading, reference
from strongroom.app.http import listen
from strongroom.errors import NotPinned, PinMismatch, Usage
from strongroom.party import Party
from strongroom.trust import Trust

from .fleet import free_port
from .place import example, home, party
from .screen import Screen


def declare(_verb: str, parser: ArgumentParser) -> None:
    example(
        parser,
        """
strongroom party new lab                      # keys for a party called lab, in ./room
strongroom party show --as lab                # its card's place and its fingerprint
strongroom party trust room/parties/hospital/party.json --as lab
strongroom party trust --reference room/reference.json --as lab       # an enclave's reference values and a log's key
strongroom party untrust hospital --as lab
""",
    )
    verbs = parser.add_subparsers(dest="what", required=True, metavar="new|show|list|trust|untrust")
    new = verbs.add_parser("new", help="make a party with fresh keys")
    new.add_argument("name")
    new.add_argument("--host", default="127.0.0.1", help="where its broker will listen (127.0.0.1)")
    new.add_argument("--port", type=int, default=0, help="0 chooses a free one")
    new.add_argument("--url", default="", help="where others reach its broker, if not at that host and port")
    verbs.add_parser("show", help="the card and its fingerprint")
    verbs.add_parser("list", help="parties here and those they trust")
    trust = verbs.add_parser("trust", help="pin a card, or accept reference values")
    trust.add_argument("file", type=Path)
    trust.add_argument(
        "--reference", action="store_true", help="the file holds roots, measurements and a log's key to accept"
    )
    trust.add_argument("--fingerprint", help="what the party told you; refused where it differs")
    untrust = verbs.add_parser("untrust", help="remove a pin, an accepted measurement, root or log")
    untrust.add_argument("name", help="a party's name, a measurement's digest, a root's key or a log's key")
    for sub in (new, *(verbs.choices[n] for n in ("show", "list", "trust", "untrust"))):
        for flag, dest in (("--home", "home"), ("--as", "party")):
            sub.add_argument(flag, dest=dest, default=SUPPRESS)
        sub.add_argument("--json", action="store_true", default=SUPPRESS)
    parser.set_defaults(run=run)


def run(args: Namespace, screen: Screen) -> int:
    {"new": new, "show": show, "list": listing, "trust": trust, "untrust": untrust}[args.what](args, screen)
    return 0


def make(place: Home, name: str, *, host: str = "127.0.0.1", port: int = 0, url: str = "") -> Party:
    """Make a party whose broker has an address of its own. Raises AlreadyExists, Conflict, BadField."""
    if port:
        with listen(host, port):  # better told now than when the broker starts
            pass
    return place.create(name, host=host, port=port or free_port(host), url=url).card


def new(args: Namespace, screen: Screen) -> None:
    card = make(home(args), args.name, host=args.host, port=args.port, url=args.url)
    _card(card, home(args).party(args.name).folder, screen)


def show(args: Namespace, screen: Screen) -> None:
    found = party(args)
    _card(found.card, found.folder, screen)


def _card(card: Party, folder: Path, screen: Screen) -> None:
    screen.said("party", card.name)
    screen.said("fingerprint", card.fingerprint)
    screen.said("card", f"{folder / 'party.json'}   give this to others")
    screen.said("secret keys", f"{folder / 'keys.json'}, {folder / 'broker'}   give these to nobody")
    screen.said("broker", card.broker_url)
    screen.result(
        {"card": str(folder / "party.json"), "fingerprint": card.fingerprint, "name": card.name, "broker": card.broker_url}
    )


def listing(args: Namespace, screen: Screen) -> None:
    rows = []
    for found in home(args).parties():
        trust = found.trust
        names = [p.name for p in trust.parties if p.name != found.name]
        rows.append(
            [
                found.name,
                found.card.fingerprint,
                ", ".join(names) or "nobody",
                str(len(trust.measurements)),
                str(len(trust.logs)),
            ]
        )
    screen.table(["party", "fingerprint", "trusts", "measurements", "logs"], rows)
    screen.result({"parties": [{"fingerprint": r[1], "name": r[0], "trusts": r[2]} for r in rows]})


def trust(args: Namespace, screen: Screen) -> None:
    found, data = party(args), read(args.file)
    with reading(args.file):
        loose = wire.loads(data)
        if args.reference:
            _trust_reference(args, reference(data), screen)
            return
        if isinstance(loose, dict) and "measurements" in loose:  # whoever sends it as a card must not become a root
            raise Usage(
                f"{args.file} holds reference values of an enclave and a log, and is no card",
                hint="If they come from whoever you trust to say what may run: strongroom party trust --reference FILE",
            )
        card = Party.parse(data)
    if args.fingerprint and card.fingerprint != args.fingerprint:
        raise PinMismatch(f"the card's fingerprint is {card.fingerprint}, not the one you gave")
    found.save_trust(found.trust.pin(card))
    screen.said("pinned", card.name)
    screen.said("fingerprint", card.fingerprint)
    if not args.fingerprint:
        screen.said("", "Compare it with the party itself, through another channel, before you approve anything.")
    screen.result({"fingerprint": card.fingerprint, "pinned": card.name})


def _trust_reference(args: Namespace, values: Trust, screen: Screen) -> None:
    if args.fingerprint:
        raise Usage("a fingerprint is a party's; reference values have none", hint="Compare the measurement instead.")
    if not (values.roots or values.measurements or values.logs):
        raise Usage(f"{args.file} holds no reference values")
    found = party(args)
    trusted = found.trust.with_enclaves(values.roots, values.measurements)
    for vkey in values.logs:
        trusted = trusted.with_log(vkey)
    found.save_trust(trusted)
    for root in values.roots:
        screen.said("root", f"{root.platform} {wire.b64(root.key.raw)}")
    for measurement in values.measurements:
        screen.said("measurement", f"{measurement.platform} {measurement.digest}")
    for vkey in values.logs:
        screen.said("log", vkey)
    screen.result(
        {"logs": list(values.logs), "measurements": [m.digest for m in values.measurements], "roots": len(values.roots)}
    )


def untrust(args: Namespace, screen: Screen) -> None:
    found = party(args)
    if args.name == found.name:
        raise NotPinned("a party cannot remove itself", hint="A party always trusts itself.")
    trusted = found.trust
    without = replace(
        trusted,
        measurements=tuple(m for m in trusted.measurements if m.digest != args.name),
        roots=tuple(r for r in trusted.roots if wire.b64(r.key.raw) != args.name),
        logs=tuple(vkey for vkey in trusted.logs if vkey != args.name),
    )
    found.save_trust(trusted.unpin(args.name) if without == trusted else without)
    screen.said("removed", args.name)
    screen.result({"removed": args.name})
