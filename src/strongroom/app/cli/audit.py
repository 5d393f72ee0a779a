"""audit: who decided what, when and why."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from strongroom.app.client.audit import Line as Decision
from strongroom.app.client.audit import audit

from .place import example, room
from .reviewed import short, time_said, visible
from .screen import Screen


def declare(_verb: str, parser: ArgumentParser) -> None:
    example(parser, "strongroom audit --as hospital\nstrongroom audit sha256:3f2a --as hospital --json")
    parser.add_argument("proposal", nargs="?", help="its digest or the beginning of it; all of them where not given")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write it as JSON Lines")
    parser.set_defaults(run=audited)


def audited(args: Namespace, screen: Screen) -> int:
    here = room(args)
    head, lines = audit(here, here.find(args.proposal) if args.proposal else None)
    for line in lines:
        _tell_decision(line, screen)
    doubtful = sum(not line.established for line in lines)
    screen.line()
    screen.said("head", f"{head.origin}, {head.size} entries")
    screen.said("established", f"{len(lines) - doubtful} of {len(lines)}")
    if args.out:
        import json

        from strongroom.app.client.home import write

        write(args.out, "".join(json.dumps(line.to_json(), sort_keys=True) + "\n" for line in lines).encode())
    screen.result({"lines": [line.to_json() for line in lines], "origin": head.origin, "size": head.size})
    return 0


def _tell_decision(line: Decision, screen: Screen) -> None:
    place = "not logged" if line.index is None else str(line.index)
    doubt = "" if line.established else f" (not established: {line.note})"
    more = f" [{line.note}]" if line.established and line.note else ""
    why = f": {visible(line.why)}" if line.why else ""
    screen.said(
        f"{place} {line.what}", f"{time_said(line.at)} {line.who or 'somebody'} on {short(line.contract)}{why}{more}{doubt}"
    )
