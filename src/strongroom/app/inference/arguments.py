"""What the operator of an enclave that answers requests decides, as arguments; everything else is in the contract.

Read by every enclave process, so that nothing here imports what serving alone needs.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace, _ArgumentGroup
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from re import fullmatch

from strongroom.errors import Usage

from .credentials import Limits

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

ANYBODY = Limits(requests_per_minute=60, tokens_per_minute=60_000)
"""What all without a key may use together where they can come from anywhere, unless the operator says otherwise."""
OWN_MACHINE = Limits(requests_per_minute=6_000, tokens_per_minute=10_000_000)
"""The same where only this machine's own requests are let in without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the operator decides; everything else is in the contract.

    Attributes:
        home: the operator's folder, in which API keys and receipts lie.
        anonymous: what all without a key of the operator's may use together; ``None`` where a key is needed.
        outside: whether that holds also for a request that another machine passed on, as its headers say.
        bare: whether a request without any credential is let in too.
        tls: the host name or address that TLS inside the enclave is for; ``None`` where it does not end there.
        loopback: whether only this machine can connect, so that bodies in the open do not leave it.
        origins: of web pages that may ask from a browser.
        log: where texts are written under contracts that let the operator see everything.
        page: whether the chat page is served too.
        sidecars: where those listen that serve a model beside the enclave, by the model's name.
        contracts: the digests of those that may be opened here; of none, the first that is opened, and no other after it.
    """

    home: Path
    anonymous: Limits | None = None
    outside: bool = True
    bare: bool = False
    tls: str | None = None
    loopback: bool = False
    origins: frozenset[str] = frozenset()
    log: Path | None = None
    page: bool = False
    sidecars: Mapping[str, str] = field(default_factory=dict)
    contracts: frozenset[str] = frozenset()


def declare(parser: ArgumentParser) -> None:
    """The arguments of an enclave process that answers requests."""
    parser.add_argument("--serve", type=Path, metavar="HOME")
    parser.add_argument("--anonymous", action="store_true")
    parser.add_argument("--anonymous-here", action="store_true")
    _shared(parser)


def flags(parser: ArgumentParser) -> None:
    """Those of the operator's own command. Who has no key is let in where only this machine connects, or as said."""
    group = _shared(parser)
    who = group.add_mutually_exclusive_group()
    who.add_argument("--anonymous", action="store_true", default=None, help="let in who has no key of yours")
    who.add_argument("--keyed", action="store_false", dest="anonymous", help="let in nobody else (strongroom keys)")


def _shared(parser: ArgumentParser) -> _ArgumentGroup:
    group = parser.add_argument_group("answering requests")
    group.add_argument("--requests-per-minute", type=int, metavar="N", help="for all without a key together")
    group.add_argument("--tokens-per-minute", type=int, metavar="N", help="for all without a key together")
    group.add_argument("--bare", action="store_true", help="let in also who brings no credential at all")
    group.add_argument("--tls", metavar="HOST", help="end TLS inside the enclave; HOST is what clients connect to")
    group.add_argument("--origin", action="append", default=[], metavar="URL", help="a web page that may ask")
    group.add_argument("--log-texts", type=Path, metavar="FILE", help="for contracts that let you see everything")
    group.add_argument(
        "--sidecar",
        action="append",
        default=[],
        metavar="MODEL=ADDRESS",
        help="where a model's sidecar listens",
    )
    group.add_argument(
        "--contract",
        action="append",
        default=[],
        dest="contracts",
        metavar="DIGEST",
        help="a contract that may be opened here, the whole digest; once for each (without any: the first that is opened)",
    )
    group.add_argument(
        "--first-comer",
        action="store_true",
        help="where others can reach it: the first contract that is opened may be anybody's",
    )
    group.add_argument("--page", action="store_true", help="serve the chat page too")
    return group


def words(args: Namespace, home: Path) -> list[str]:
    """The same for an enclave process, whose home is given."""
    _require_chosen(args)
    found = ["--serve", str(home.absolute())]
    if args.anonymous is None:  # nobody said: this machine itself, and nobody whose request it passes on
        found += ["--anonymous-here"] if args.host in LOOPBACK else []
    else:
        found += ["--anonymous"] if args.anonymous else []
    found += [f"--{name.replace('_', '-')}" for name in ("bare", "page", "first_comer") if getattr(args, name)]
    for name in ("requests_per_minute", "tokens_per_minute", "tls"):
        value = getattr(args, name)
        found += [] if value is None else [f"--{name.replace('_', '-')}", str(value)]
    for origin in args.origin:
        found += ["--origin", origin]
    for contract in args.contracts:
        found += ["--contract", contract]
    for sidecar in args.sidecar:
        found += ["--sidecar", sidecar]
    return found + ([] if args.log_texts is None else ["--log-texts", str(args.log_texts.absolute())])


def read(args: Namespace) -> Options | None:
    """What these arguments say; ``None`` where no room is to be opened. Raises Usage."""
    if args.serve is None:
        return None
    _require_chosen(args)
    usual = ANYBODY if args.anonymous else OWN_MACHINE
    limits = Limits(
        requests_per_minute=usual.requests_per_minute if args.requests_per_minute is None else args.requests_per_minute,
        tokens_per_minute=usual.tokens_per_minute if args.tokens_per_minute is None else args.tokens_per_minute,
    )
    return Options(
        home=args.serve,
        anonymous=limits if args.anonymous or args.anonymous_here else None,
        outside=not args.anonymous_here,
        bare=args.bare,
        tls=args.tls,
        loopback=args.host in LOOPBACK,
        origins=frozenset(args.origin),
        log=args.log_texts,
        page=args.page,
        sidecars=dict(_sidecar(text) for text in args.sidecar),
        contracts=frozenset(_contract(text) for text in args.contracts),
    )


def _require_chosen(args: Namespace) -> None:
    """Require that somebody chose what may be opened where others can ask for it. Raises Usage."""
    if args.contracts and args.first_comer:
        raise Usage(
            "--first-comer says that any contract may be opened, and --contract that few may", hint="Say one of them."
        )
    if args.host not in LOOPBACK and not args.contracts and not args.first_comer:
        raise Usage(
            f"others can reach {args.host}, and whoever opens a room there first would have it",
            hint="Name what may be opened with --contract DIGEST, or say --first-comer.",
        )


def _contract(text: str) -> str:
    if not fullmatch(r"sha256:[0-9a-f]{64}", text):
        raise Usage("a contract is said by its whole digest", hint="For example: --contract sha256:3f2a… (64 hex digits)")
    return text


def _sidecar(text: str) -> tuple[str, str]:
    model, found, address = text.partition("=")
    if not found:
        raise Usage("a sidecar is said as MODEL=ADDRESS", hint="For example: --sidecar lab/small=unix:/run/vllm.sock")
    return model, address
