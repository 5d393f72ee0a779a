"""up, exchange, broker, enclave: the roles as processes."""

from __future__ import annotations

import json
import os
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from strongroom.app.inference import arguments
from strongroom.errors import Usage

from .fleet import Fleet
from .parties import make
from .place import example, home
from .screen import Screen

if TYPE_CHECKING:
    from strongroom.app.client.home import PartyHome
    from strongroom.app.enclave.measure import Installation
    from strongroom.app.enclave.platforms import Sight


def declare(verb: str, parser: ArgumentParser) -> None:
    {"up": _declare_up, "exchange": _declare_exchange, "broker": _declare_broker, "enclave": _declare_enclave}[verb](parser)


def serving(parser: ArgumentParser) -> None:
    """What every role that answers is told."""
    parser.add_argument("--host", default="127.0.0.1", help="(127.0.0.1)")
    parser.add_argument("--port", type=int, default=0, help="0 chooses a free one")
    parser.add_argument(
        "--announce", action="store_true", help="say the address in one JSON line, and end with standard input"
    )


def announced(args: Namespace, screen: Screen, role: str) -> Callable[[str], None]:
    """How a role says where it answers."""

    def said(url: str) -> None:
        if args.announce:
            print(json.dumps({"role": role, "url": url}), flush=True)  # noqa: T201 - for the parent process
        else:
            screen.result({"role": role, "url": url})
            screen.said(role, url)
            screen.note("Stop it with Ctrl-C.")

    return said


# --- up ---


def _declare_up(parser: ArgumentParser) -> None:
    example(
        parser,
        """
strongroom up                              # then, in another terminal: strongroom party new lab
strongroom up --party lab --party hospital
strongroom up --chat --model model.gguf    # a model behind a chat page and an OpenAI endpoint; needs strongroom[chat]
""",
    )
    parser.add_argument(
        "--party", dest="names", action="append", default=[], metavar="NAME", help="make this party if it is not there"
    )
    parser.add_argument("--chat", action="store_true", help="serve a model to this machine's own user, with a chat page")
    parser.add_argument("--model", type=Path, metavar="FILE", help="the GGUF file to serve (the embedded one)")
    parser.add_argument("--queue", action="store_true", help="also keep a queue of runs: strongroom jobs")
    extras(parser)
    parser.set_defaults(run=up)


def up(args: Namespace, screen: Screen) -> int:
    from . import serving as models

    place = home(args)
    if args.model and not args.chat:
        raise Usage("--model is served with --chat")
    served = models.model_file(args.model) if args.chat else None
    for name in [*args.names, *([models.OWNER, models.USER] if served else [])]:
        if name not in [p.name for p in place.parties()]:
            make(place, name)
    began = time.monotonic()
    with Fleet(place, sorted({*args.extras, *(["chat"] if args.chat else [])})) as fleet:
        screen.note("starting an exchange, an enclave and a broker for each party …")
        if args.queue:
            fleet.start_queue()
        fleet.start(
            on_ready=lambda role: screen.said(role.name, f"{role.url}   ({role.seconds:.1f} s)"),
            on_wait=lambda names: screen.note(f"waiting for the {names} (the first start compiles what it measured) …"),
        )
        path = fleet.reference()
        screen.said("", "platform: simulated (no hardware protection)")
        screen.said("reference values", f"{path}   each party: strongroom party trust --reference {path} --as NAME")
        screen.said(
            "started in",
            f"{time.monotonic() - began:.1f} s; parties made from now on get a broker at once. Ctrl-C ends all.",
        )
        if served is not None:
            page = models.chat(place, fleet, served, screen)
            screen.said("chat page", f"{page.url}/")
            screen.said("OpenAI base_url", f"{page.url}/v1")
        screen.result({"reference": str(path), "roles": {n: r.url for n, r in fleet.roles.items()}})
        _watch(fleet, screen)
    return 0


def _watch(fleet: Fleet, screen: Screen) -> None:
    from .serving import watch

    def brokers() -> None:
        for party in fleet.home.parties():
            if f"broker of {party.name}" not in fleet.roles:
                role = fleet.start_broker(party.name)
                role.wait()
                screen.said(role.name, role.url)

    watch(fleet, brokers)


# --- one role ---


def _declare_exchange(parser: ArgumentParser) -> None:
    example(parser, "strongroom exchange --home /srv/strongroom --host 0.0.0.0 --port 8470")
    serving(parser)
    parser.add_argument(
        "--receipts-a-day",
        type=int,
        default=2_000_000,
        metavar="N",
        help="how many receipts of requests enclaves may log under one contract in a day (2000000)",
    )
    parser.set_defaults(run=serve_exchange)


def serve_exchange(args: Namespace, screen: Screen) -> int:
    from strongroom.app.exchange.key import log_key
    from strongroom.app.exchange.server import exchange
    from strongroom.app.http import listen, serve
    from strongroom.app.stores.exchange import ExchangeStore

    folder = home(args).folder / "exchange"
    store = ExchangeStore(folder, log_key(folder), batched=args.receipts_a_day)
    sock = listen(args.host, args.port)
    store.sweep()  # only now: an exchange that has this address is not running already
    serve(exchange(store), sock, announce=announced(args, screen, "exchange"), until_eof=args.announce)
    store.close()
    return 0


def _declare_broker(parser: ArgumentParser) -> None:
    from .shares import declare as of_shares

    example(
        parser,
        """
strongroom broker --as hospital --exchange-url http://127.0.0.1:8470
strongroom broker enrol --out clinic.holder --as clinic
strongroom broker share data.csv 2 clinic.holder notary.holder union.holder --as hospital
strongroom broker tell CONTRACT --as hospital
strongroom broker refresh data.csv --as hospital
strongroom broker replace data.csv union court.holder --as hospital
strongroom broker status --as hospital
strongroom broker check CONTRACT --as hospital     # did a broker give one slot to two enclaves?
strongroom broker backup hospital.backup --as hospital
strongroom broker restore hospital.backup --as hospital   # the broker is stopped; then start it, and:
strongroom broker confirm --as hospital
""",
    )
    serving(parser)
    of_shares(parser)
    group = parser.add_argument_group("confidential containers, which are no enclaves of ours (needs strongroom[rcar])")
    group.add_argument("--guests", action="store_true", help="answer them too, under contracts that are for guests alone")
    group.add_argument(
        "--sample-guests",
        action="store_true",
        help="vouch for guests of the sample kind, whose evidence nobody signed, as a simulated platform: for trying out",
    )
    group.add_argument(
        "--endorsements", type=Path, metavar="FILE", help="documents of hardware vendors (endorsements bundle)"
    )
    group.add_argument("--offline", action="store_true", help="fetch no endorsements of guests' hardware")
    parser.set_defaults(run=serve_broker, port=None, host=None)


def serve_broker(args: Namespace, screen: Screen) -> int:
    if args.action is not None:
        from .shares import act

        return act(args, screen)
    from strongroom.app.stores.claim import claimed

    party = home(args).party(args.party)
    with claimed(party.folder / "broker" / "book.db", alone=False):
        return _serve_broker(args, screen, party)


def _serve_broker(args: Namespace, screen: Screen, party: PartyHome) -> int:
    from strongroom.app.broker.server import Outbox, broker
    from strongroom.app.client.sharing import forget_shared
    from strongroom.app.http import Client, listen, serve

    from .backups import witness_of

    exchange = args.exchange_url or home(args).config.exchange
    party.book.record_lost()
    forget_shared(party)  # a book that was put back may have them
    witness = witness_of(args, party, exchange)
    outbox = Outbox(party.book, party.owner, Client(exchange), witness)
    outbox.start()
    guests = None
    if args.guests:
        from .guests import served

        guests = served(args, party, outbox.wake, witness)
    elif args.sample_guests:
        raise Usage("--sample-guests goes with --guests")
    sock = listen(args.host or party.broker.host, party.broker.port if args.port is None else args.port)
    app = broker(party.book, party.owner, outbox, witness=witness, guests=guests)
    serve(app, sock, announce=announced(args, screen, f"broker of {party.name}"), until_eof=args.announce)
    outbox.stop()
    party.book.close()
    return 0


SIMULATED = "simulated"


def _declare_enclave(parser: ArgumentParser) -> None:
    example(
        parser,
        """
strongroom enclave --exchange-url http://127.0.0.1:8470   # on confidential hardware; needs strongroom[room]
strongroom enclave --platform simulated                   # anywhere; protects nothing from this machine's owner
""",
    )
    serving(parser)
    parser.add_argument(
        "--platform",
        metavar="NAME",
        help=f"what proves what runs here: {SIMULATED}, azure_snp, azure_tdx, dstack, nitro, sev_snp or tdx (what is found; "
        f"{SIMULATED} only by name)",
    )
    parser.add_argument("--vmpl", type=int, choices=range(4), metavar="N", help="on sev_snp: the level to ask a report for")
    parser.add_argument(
        "--endorsements",
        type=Path,
        metavar="FILE",
        help="documents of the hardware's vendor to hand out (endorsements bundle)",
    )
    parser.add_argument("--offline", action="store_true", help="fetch no endorsements")
    arguments.flags(parser)
    group = parser.add_argument_group("packages that submitted code is locked to")
    group.add_argument("--wheels", type=Path, metavar="FOLDER", help="of wheels (wheels, in the enclave's own folder)")
    group.add_argument("--index", metavar="URL", help="a package index, asked for what is not in that folder (none)")
    extras(parser)
    parser.set_defaults(run=serve_enclave)


def extras(parser: ArgumentParser) -> None:
    """``--with``: what else an enclave can import, and so what else is measured."""
    parser.add_argument(
        "--with",
        dest="extras",
        action="append",
        default=[],
        metavar="EXTRA",
        help="what an enclave can do beside evaluations of tables, and is measured with: chat, data, evals, guards, lm",
    )


def serve_enclave(args: Namespace, screen: Screen) -> int:
    """The simulated platform, which starts the enclave as its child; or, on hardware, the enclave itself.

    Raises:
        NoPlatform: nothing was found on which it could prove itself, or more than one. Usage: no such platform.
    """
    from strongroom.app.enclave.measure import Installation
    from strongroom.programs import NAMES, load, modules

    found = None if args.platform == SIMULATED else _choose(args.platform)
    place = home(args)
    exchange = args.exchange_url or place.config.exchange
    words = ["--exchange", exchange, "--host", args.host, "--port", str(args.port)]
    words += arguments.words(args, place.folder)
    words += _packages(args, place.folder.absolute() / "enclave")
    installation = Installation.here(args.extras)
    there = installation.links.keys()
    warm = [module for name in NAMES if there >= set(load(name).LIBRARIES) for module in modules(name)]
    warm = [module for module in warm if "torch" in there or module not in load("serve-llm").HEAVY]  # type: ignore[attr-defined]
    warm += [module for module in getattr(load("code"), "WARM", ()) if module.partition(".")[0] in there]
    if found is not None:
        _become_enclave(args, screen, found, words, warm, installation=installation)
    if args.vmpl is not None or args.endorsements or args.offline:
        raise Usage("--vmpl, --endorsements and --offline are for hardware; the simulated platform has no use for them")
    from strongroom.app.enclave import platform
    from strongroom.app.http import end_with_stdin

    if args.announce:
        end_with_stdin()
    else:
        screen.note("platform: simulated (no hardware protection). Stop it with Ctrl-C.")
    return platform.serve(place.folder / "enclave", words, warm=warm, images=_images(), installation=installation)


def _packages(args: Namespace, folder: Path) -> list[str]:
    """Where packages of submitted code come from, and where they are kept, for an enclave process."""
    wheels = folder / "wheels" if args.wheels is None else args.wheels.absolute()
    found = ["--environments", str(folder / "environments"), "--wheels", str(wheels)]
    return found + ([] if args.index is None else ["--index", args.index])


def _choose(named: str | None) -> Sight:
    from strongroom.app.enclave import platforms

    if named is not None and named not in platforms.NAMES:
        raise Usage(f"no platform is called {named[:32]!r}", hint=f"There are {', '.join((SIMULATED, *platforms.NAMES))}.")
    return platforms.choose(platforms.Machine(), named)


def _become_enclave(
    args: Namespace, screen: Screen, found: Sight, words: list[str], warm: list[str], *, installation: Installation
) -> NoReturn:
    """On hardware nobody stands beside the enclave: this process ends here, and goes on as it."""
    from strongroom.app.enclave import hardware, platforms
    from strongroom.app.enclave.platforms.nvidia import DISTRIBUTION

    gpus, seen = platforms.devices(platforms.Machine())
    screen.note(f"platform: {found.name} ({found.seen}); {seen}. Stop it with Ctrl-C.")
    words += ["--platform", found.name, "--cache", str(home(args).folder.absolute() / "enclave" / "endorsements")]
    words += ["--offline"] if args.offline else []
    words += ["--endorsements", str(args.endorsements.absolute())] if args.endorsements else []
    words += ["--vmpl", str(args.vmpl)] if args.vmpl is not None else []
    words += ["--until-eof"] if args.announce else []
    beside = [DISTRIBUTION] if gpus is not None else []
    hardware.serve(words, images=_images(), warm=warm, beside=beside, installation=installation)


def _images() -> Path:
    """Where bytecode is kept, by measurement: compiled once an installation, not once a --home (XDG base directories)."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if cache.startswith("/") else Path.home() / ".cache") / "strongroom" / "images"
