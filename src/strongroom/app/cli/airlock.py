"""airlock: what waits for you to read it, and to pass or refuse it."""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from strongroom.app.client import airlock
from strongroom.app.client.airlock import Held
from strongroom.errors import StrongroomError, Usage

from .place import example, room
from .screen import Screen


def declare(_verb: str, parser: ArgumentParser) -> None:
    example(
        parser,
        """
strongroom airlock list --as hospital                   # what waits for you
strongroom airlock read sha256:3f2a --as hospital       # the very output that its recipients would get
strongroom airlock pass sha256:3f2a --as hospital
strongroom airlock refuse sha256:3f2a --as hospital --reason "a group of four in one village"
""",
    )
    verbs = parser.add_subparsers(dest="what", required=True, metavar="list|read|pass|refuse")
    verbs.add_parser("list", help="what waits for you")
    for name, line in (("read", "open your copy"), ("pass", "let it go to its recipients"), ("refuse", "keep it from them")):
        sub = verbs.add_parser(name, help=line)
        sub.add_argument("box", help="the box's digest or the beginning of it")
        if name == "read":
            sub.add_argument("--out", type=Path, metavar="FOLDER", help="where to write it (the party's own folder)")
        if name == "refuse":
            sub.add_argument("--reason", default="", help="one line; kept with you, and told where the contract says so")
    for sub in verbs.choices.values():
        for flag, dest in (("--home", "home"), ("--as", "party"), ("--exchange-url", "exchange_url")):
            sub.add_argument(flag, dest=dest, default=SUPPRESS)
        sub.add_argument("--json", action="store_true", default=SUPPRESS)
    parser.set_defaults(run=run)


def run(args: Namespace, screen: Screen) -> int:
    if args.what == "refuse" and not args.reason:
        raise Usage("say why: --reason", hint="It stays with you unless the contract says that recipients are told.")
    here = room(args)
    if args.what == "list":
        unseen: list[dict[str, str]] = []

        def trouble(digest: str, error: StrongroomError) -> None:
            screen.said("not shown", f"{digest}: {error}")
            unseen.append({"code": error.code, "contract": digest, "message": error.message})

        found = airlock.waiting(here, trouble)
        for held in found:
            _tell(held, screen)
        if not found:
            screen.said("airlock", "nothing waits for you" if not unseen else "nothing else waits for you")
        screen.result({"unseen": unseen, "waiting": [_as_json(held) for held in found]})
        return 0
    held = airlock.find(here, args.box)
    if args.what == "read":
        path = airlock.read(here, held, args.out)
        screen.said(held.output.name, str(path))
        screen.said("", held.receipt.label)
        screen.result({**_as_json(held), "path": str(path)})
        return 0
    verdict = airlock.let_pass(here, held) if args.what == "pass" else airlock.refuse(here, held, args.reason)
    left = [name for name in held.waits_for if name != here.name]
    screen.said("passed" if verdict.passed else "refused", f"output {held.output.name!r} of run {held.box.run_id}")
    if verdict.passed:
        screen.said("next", f"it still waits for {', '.join(left)}" if left else "its recipients can open it")
    screen.result({**_as_json(held), "passed": verdict.passed, "waits_for": left})
    return 0


def _tell(held: Held, screen: Screen) -> None:
    screen.said(f"output {held.output.name}", held.box.digest)
    screen.said("", f"of run {held.box.run_id}, {held.output.kind} to {', '.join(held.output.recipients)}; {held.state}")


def _as_json(held: Held) -> dict[str, Any]:
    return {
        "box": held.box.digest,
        "contract": held.box.contract,
        "kind": held.output.kind,
        "output": held.output.name,
        "recipients": [*held.output.recipients],
        "run_id": held.box.run_id,
        "waits_for": [*held.waits_for],
    }
