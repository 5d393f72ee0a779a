"""Write ``vectors/job/``: cancels, and requests to see one's jobs. Deterministic; run it from anywhere."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "tests"), str(HERE.parent / "src")]

from strongroom import wire  # noqa: E402
from strongroom.job import CANCEL_SECONDS, CANCEL_TYPE, LIST_SECONDS, LIST_TYPE, Cancel, JobsRequest  # noqa: E402
from strongroom.wire import Envelope  # noqa: E402
from world import NOW, RUN, World, broker_key, keys_of  # noqa: E402

PROPOSAL = World().proposal()
OTHER = replace(PROPOSAL, title="Another")
HOSPITAL, LAB, STRANGER = keys_of("hospital"), keys_of("lab"), keys_of("stranger")
CANCEL = Cancel(PROPOSAL.digest, "hospital", RUN, NOW)
LIST = JobsRequest(LAB.signing.public, NOW)


def cancels() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}

    def add(name: str, description: str, expect: str, envelope: Envelope, *, at: int = NOW, of: Any = PROPOSAL) -> None:
        found[f"cancel-{name}"] = {
            "at": at,
            "description": description,
            "envelope": envelope.to_json(),
            "expect": expect,
            "operation": "cancel",
            "proposal": of.to_json(),
        }

    good = CANCEL.sign(HOSPITAL.signing)
    unsigned = "wire.bad_signature"
    add("good", "a party's word that a run shall not be", "ok", good)
    add("of-another", "of another contract", "wire.bad_field", good, of=OTHER)
    add("by-another-party", "signed by another party", unsigned, CANCEL.sign(LAB.signing))
    add("by-its-broker", "signed by the party's broker", unsigned, CANCEL.sign(broker_key("hospital")))
    add("by-a-stranger", "a stranger's", "contract.not_a_party", replace(CANCEL, party="stranger").sign(STRANGER.signing))
    add("unsigned", "not signed", unsigned, replace(good, signatures=()))
    add(
        "as-a-run-request",
        "a run request's bytes: what asks for a run does not end it",
        "wire.bad_envelope",
        HOSPITAL.signing.sign(wire.media_type("run"), CANCEL.encode()),
    )
    more = wire.encode({**json.loads(CANCEL.encode()), "more": 1})
    add("unknown-member", "a member of another version", "wire.bad_field", HOSPITAL.signing.sign(CANCEL_TYPE, more))
    short = replace(CANCEL, run_id=RUN[:-2]).sign(HOSPITAL.signing)
    add("short-run-id", "of no run's id", "wire.bad_field", short)
    for name, at, expect in (
        ("just-now", NOW + CANCEL_SECONDS, "ok"),
        ("replayed-later", NOW + CANCEL_SECONDS + 1, "wire.bad_field"),
        ("in-the-future", NOW - CANCEL_SECONDS - 1, "wire.bad_field"),
    ):
        add(name, f"said at {NOW}, heard at {at}", expect, good, at=at)
    return found


def lists() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}

    def add(name: str, description: str, expect: str, envelope: Envelope, *, at: int = NOW) -> None:
        found[f"list-{name}"] = {
            "at": at,
            "description": description,
            "envelope": envelope.to_json(),
            "expect": expect,
            "operation": "list",
        }

    good = LIST.sign(LAB.signing)
    add("good", "signed by the key that it names", "ok", good)
    add("of-anothers-key", "signed by another key than it names", "wire.bad_signature", LIST.sign(HOSPITAL.signing))
    add("unsigned", "not signed", "wire.bad_signature", replace(good, signatures=()))
    add(
        "as-a-cancel",
        "under the type of another document",
        "wire.bad_envelope",
        LAB.signing.sign(CANCEL_TYPE, LIST.encode()),
    )
    more = wire.encode({**json.loads(LIST.encode()), "more": 1})
    add("unknown-member", "a member of another version", "wire.bad_field", LAB.signing.sign(LIST_TYPE, more))
    for name, at, expect in (
        ("just-now", NOW + LIST_SECONDS, "ok"),
        ("replayed-later", NOW + LIST_SECONDS + 1, "wire.bad_field"),
        ("in-the-future", NOW - LIST_SECONDS - 1, "wire.bad_field"),
    ):
        add(name, f"said at {NOW}, heard at {at}", expect, good, at=at)
    return found


def all_cases() -> dict[str, dict[str, Any]]:
    """Every case, by name."""
    return {**cancels(), **lists()}


def main() -> None:
    folder = HERE / "job"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.json"):
        old.unlink()
    for name, case in all_cases().items():
        text = json.dumps(case, indent=2, sort_keys=True, ensure_ascii=False)
        (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
