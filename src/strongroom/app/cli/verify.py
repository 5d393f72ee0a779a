"""verify: check a receipt from the verifier's own trust file, offline. Loads no network code."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from strongroom.app.client.home import PartyHome, read, reading, trust_file
from strongroom.checkpoint import Checkpoint
from strongroom.contract import WALLS
from strongroom.errors import Inconsistent, NotVerified
from strongroom.receipt import MAX_BUNDLE_BYTES, Bundle, Verification, examine

from . import appraised
from .place import example, party
from .screen import Screen

MAX_FILE_BYTES = max(MAX_BUNDLE_BYTES, 256 << 20)  # an answer that was kept holds its bodies


def declare(_verb: str, parser: ArgumentParser) -> None:
    example(
        parser,
        """
strongroom verify room/parties/lab/receipts/3f2a….json --as lab
strongroom verify receipt.json --trust trust.json --json
strongroom verify receipt.json --as lab --evidence       # every check of every release's evidence, too
strongroom verify answers/1790000000-verified-rcpt-3f2a….json --trust trust.json   # an answer that a proxy kept
""",
    )
    parser.add_argument("file", type=Path, help="a receipt's bundle, or an answer with its receipt and report")
    parser.add_argument("--trust", type=Path, metavar="FILE", help="your trust file (the party's own)")
    parser.add_argument("--evidence", action="store_true", help="show how each piece of evidence was appraised")
    parser.add_argument("--contract", metavar="DIGEST", help="of an answer: the contract that it should be under")
    parser.add_argument(
        "--weights", action="append", default=[], metavar="MODEL=DIGEST", help="of an answer: a model's weights"
    )
    parser.set_defaults(run=run)


def run(args: Namespace, screen: Screen) -> int:
    trust = trust_file(args.trust) if args.trust else party(args).trust
    data = read(args.file, max_bytes=MAX_FILE_BYTES)
    if b'"strongroom.answer.v1"' in data:
        from .answered import answered

        return answered(args, data, trust, screen)
    with reading(args.file):
        bundle = Bundle.parse(data)
    found = examine(bundle, trust=trust)
    if args.evidence:
        _evidence(found, screen)
    show(found, screen)
    if found.receipt is not None and bundle.proof is not None and not args.trust:
        _hold_against_last_seen(party(args), bundle.proof.checkpoint)
    return conclude(found, screen)


def _evidence(found: Verification, screen: Screen) -> None:
    for number, result in enumerate(found.evidence, 1):
        screen.heading(f"evidence of release {number} of {len(found.evidence)}, at {result.at}")
        appraised.show(result, screen)
    screen.heading("receipt")


def _hold_against_last_seen(mine: PartyHome, checkpoint: Checkpoint) -> None:
    """What can be told offline of a log that showed two histories: two heads of one size. Raises Inconsistent."""
    last = mine.last_seen(checkpoint.origin)
    if last is not None and last.size == checkpoint.size and last.root != checkpoint.root:
        raise Inconsistent(f"the log showed two different trees of {last.size} entries")


def conclude(found: Verification, screen: Screen, **more: str) -> int:
    """The verification for machines, with ``error`` where it failed, and that error for people; the exit status."""
    value: dict[str, Any] = {**to_json(found), **more}
    if found.receipt is not None:
        screen.result(value)
        return 0
    problem = found.transcript.first_problem
    assert problem is not None
    screen.error(NotVerified(f"{problem.number} {problem.name}: {problem.status.value}"), **value)
    return 1


def show(found: Verification, screen: Screen) -> None:
    """The numbered transcript, and what the receipt says where it holds."""
    screen.transcript(found.transcript)
    screen.line()
    if found.statement is not None:
        s = found.statement
        outcome = f"failed at {s.failure.step}: {s.failure.code}" if s.failure else "completed"
        screen.said("run", s.run_id)
        screen.said("outcome", outcome)
        screen.said("sandbox", s.sandbox if s.sandbox != "process" else "process (the program was not isolated)")
        if s.walls:
            missing = [name for name in WALLS if name not in s.walls]
            screen.said(
                "walls", f"{len(WALLS) - len(missing)} of {len(WALLS)}" + f"; not {', '.join(missing)}" * bool(missing)
            )
    screen.said("", found.label)
    passed = sum(c.status.value == "passed" for c in found.transcript.checks)
    verdict = "verified" if found.receipt else "NOT VERIFIED"
    screen.said("receipt", f"{verdict}: {passed} of {len(found.transcript.checks)} checks passed")


def to_json(found: Verification) -> dict[str, object]:
    """The verification for machines."""
    return {
        "checks": found.transcript.to_json(),
        "evidence": [result.to_json() for result in found.evidence],
        "label": found.label,
        "statement": found.statement.to_json() if found.statement else None,
        "verified": found.receipt is not None,
    }
