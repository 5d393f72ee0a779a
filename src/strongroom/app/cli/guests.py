"""guest: contracts for confidential containers, and which of them may run. ``broker --guests`` answers them."""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom.errors import Usage

from .place import example, home, party, room
from .screen import Screen

if TYPE_CHECKING:
    from strongroom.app.broker.rcar import Guests
    from strongroom.app.broker.witness import Witness
    from strongroom.app.client.home import PartyHome
    from strongroom.attest.evidence import Endorsements, Evidence


def declare(_verb: str, parser: ArgumentParser) -> None:
    example(
        parser,
        """
strongroom seal records.csv --use guest --as hospital                 # what guests may have is sealed for it
strongroom broker --guests --as hospital                              # needs strongroom[rcar]
strongroom guest propose hospital/records.csv --reference guest.json --runs 3 --as lab
strongroom approve CONTRACT --as hospital
strongroom guest expect CONTRACT --runs 3 --hours 24 --as lab         # says where the guests ask
strongroom guest reference --out own.json --as hospital               # of sample guests, which prove nothing
strongroom guest reference --for-others --out sample.json --as hospital
""",
    )
    verbs = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    new = verbs.add_parser("propose", help="propose that guests of a measurement get the keys of assets")
    new.add_argument("assets", nargs="+", metavar="[ROLE=]ASSET", help="OWNER/NAME or digest; a role for each of several")
    new.add_argument(
        "--reference", type=Path, required=True, metavar="FILE", help="reference values that hold the guests' measurements"
    )
    new.add_argument("--runs", type=int, default=1, help="how many guests may have the keys (1)")
    new.add_argument("--days", type=int, default=7, help="how long it stands (7)")
    new.add_argument("--title", default="Keys for measured guests", help="one line for the others")
    new.set_defaults(act=_propose)
    ask = verbs.add_parser("expect", help="ask the owners' brokers to let guests have runs of a contract")
    ask.add_argument("contract", metavar="CONTRACT")
    ask.add_argument("--runs", type=int, default=1, help="how many (1)")
    ask.add_argument("--hours", type=int, default=24, help="for how long they may begin, at most 168 (24)")
    ask.set_defaults(act=_expect)
    ref = verbs.add_parser("reference", help="write what an owner trusts to have sample guests, which prove nothing")
    ref.add_argument("--out", type=Path, default=Path("sample.json"), metavar="FILE", help="(sample.json)")
    ref.add_argument(
        "--for-others", action="store_true", help="the measurement alone: nobody else need believe your broker's key"
    )
    ref.set_defaults(act=_reference)
    for verb in (new, ask, ref):
        for flag, dest in (("--home", "home"), ("--as", "party"), ("--exchange-url", "exchange_url")):
            verb.add_argument(flag, dest=dest, default=SUPPRESS)
        verb.add_argument("--json", action="store_true", default=SUPPRESS)
    parser.set_defaults(run=_run)


def _run(args: Namespace, screen: Screen) -> int:
    found: int = args.act(args, screen)
    return found


def _propose(args: Namespace, screen: Screen) -> int:
    from strongroom.app.client import guests
    from strongroom.app.client.home import read, reading, reference

    here, assets = room(args), {}
    for number, word in enumerate(args.assets, 1):
        role, said, asset = word.rpartition("=")
        assets[role if said else f"asset{number}" if len(args.assets) > 1 else "asset"] = here.asset(asset)
    if len(assets) != len(args.assets):
        raise Usage("two assets have one role", hint="Say a role for each: ROLE=ASSET")
    with reading(args.reference):
        values = reference(read(args.reference))
    new = guests.propose(here, args.title, assets, values.measurements, runs=args.runs, days=args.days)
    screen.said("proposed", new.digest)
    screen.said("note", "what such a guest lets out is what its image lets out: no rule on outputs is kept there")
    screen.result({"digest": new.digest})
    return 0


def _expect(args: Namespace, screen: Screen) -> int:
    from strongroom.app.client import guests

    here = room(args)
    found = guests.expect(here, here.find(args.contract), runs=args.runs, seconds=args.hours * 3600)
    for role, broker, address in found.addresses:
        screen.said(role, f"{address}   from {broker}")
    for owner, why in found.missed.items():
        screen.said("not told", f"the broker of {owner}: {why}")
    screen.result(
        {
            "addresses": [{"address": a, "broker": b, "role": r} for r, b, a in found.addresses],
            "missed": dict(found.missed),
            "until": found.until,
        }
    )
    return 1 if found.missed else 0


def _sample(here: PartyHome) -> Path:
    """Where the key of sample guests lies: beside the broker's book, as secret as that."""
    folder = here.folder / "broker" / "sample"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _reference(args: Namespace, screen: Screen) -> int:
    from strongroom.app.broker.sample import reference
    from strongroom.app.client.home import pretty, write

    found = reference(_sample(party(args)))
    write(args.out, pretty((replace(found, roots=()) if args.for_others else found).to_json()))
    screen.said("reference values", f"{args.out}: of guests that prove nothing (platform: simulated)")
    screen.result({"reference": str(args.out)})
    return 0


def served(args: Namespace, here: PartyHome, wake: Callable[[], None], witness: Witness) -> Guests:
    """What ``broker --guests`` answers guests with. Raises MissingExtra, NotFound."""
    from strongroom.app.broker.rcar import Around, Guests
    from strongroom.app.endorsements.bundle import open_bundle
    from strongroom.app.endorsements.cache import Cache
    from strongroom.app.endorsements.provider import EndorsementProvider
    from strongroom.app.endorsements.web import Web

    provider = EndorsementProvider(
        bundle=open_bundle(args.endorsements).documents if args.endorsements else (),
        cache=Cache(home(args).folder / "endorsements"),
        web=None if args.offline else Web(),
    )

    def endorse(evidence: Evidence, at: int, came: Endorsements) -> Endorsements:
        found = provider.collect(evidence, at, beside=came).endorsements
        return type(found)(tuple(dict.fromkeys((*came.documents, *found.documents))))

    vouch = None
    if args.sample_guests:
        from strongroom.app.broker.sample import voucher

        vouch = voucher(_sample(here))
    return Guests(here.book, here.owner, Around(endorse, vouch), wake=wake, witness=witness)
