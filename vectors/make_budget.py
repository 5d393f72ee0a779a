"""Writes vectors/budget/: one file per case, the expected outcome in the file. Deterministic; run it from anywhere.

The world that the cases come from is that of the tests (tests/world.py), with its fixed keys and times. Sums are of pure
events at delta 0, so that any accountant comes to the same.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from strongroom import wire  # noqa: E402 - the world is found first
from strongroom.budget.charge import Charge, Event, Used  # noqa: E402
from strongroom.budget.document import BUDGET_TYPE, Budget, CountLimits, Privacy  # noqa: E402
from world import NOW, World, charge, keys_of  # noqa: E402

Case = dict[str, Any]
Cases = dict[str, Case]

DATA = World().assets["data"][0].digest
AGAIN, OTHER = sorted((wire.digest(b"sealed again"), wire.digest(b"another")))
HOSPITAL, LAB = keys_of("hospital").signing, keys_of("lab").signing
BUDGET = Budget("hospital", 2, NOW, (DATA,), Privacy("3", "0.000001"), CountLimits(50, None, 0, 1 << 30))
GAUSSIAN = {"count": 1, "event": "gaussian", "noise_multiplier": "12.5"}
LAPLACE = {"count": 4, "event": "laplace", "noise_multiplier": "8"}
PURE = {"count": 1, "delta": "0", "epsilon": "0.5", "event": "epsilon-delta"}


def changed(value: Any, **members: Any) -> Any:
    """A JSON object with members changed; ``...`` takes one away."""
    return {name: member for name, member in {**value, **members}.items() if member is not ...}


def budgets() -> Cases:
    cases: Cases = {}

    def add(
        name: str, description: str, expect: str, value: Any, *, signer: Any = HOSPITAL, kind: str = BUDGET_TYPE
    ) -> None:
        cases[f"budget-{name}"] = {
            "description": description,
            "envelope": signer.sign(kind, wire.encode(value)).to_json(),
            "expect": expect,
            "operation": "budget",
            "owner": "hospital",
            "signing_key": wire.b64(HOSPITAL.public.raw),
        }

    good, bad, field, spelled = BUDGET.to_json(), "budget.bad_budget", "wire.bad_field", "budget.bad_charge"

    def dp(epsilon: str, delta: str) -> Any:
        return changed(good, dp={"delta": delta, "epsilon": epsilon})

    add("ok", "epsilon, runs, rows and bytes", "ok", good)
    add("ok-counts", "plain counts alone", "ok", changed(good, dp=None))
    add("ok-shared", "an asset and what was sealed from the same data", "ok", changed(good, assets=sorted((DATA, AGAIN))))
    add("ok-unit", "whom epsilon protects", "ok", changed(good, dp=changed(good["dp"], unit="person")))
    add("unit-empty", "a unit that is none", bad, changed(good, dp=changed(good["dp"], unit="")))
    add("by-another", "signed by another party", "wire.bad_signature", good, signer=LAB)
    add("of-another", "signed by the owner, of another owner", field, changed(good, owner="lab"))
    add("another-type", "a budget under another type", "wire.bad_envelope", good, kind=wire.media_type("grant"))
    add("nothing-limited", "it limits nothing", bad, changed(good, dp=None, counts=CountLimits().to_json()))
    add("no-assets", "it names no asset", field, changed(good, assets=[]))
    add("asset-twice", "an asset twice", bad, changed(good, assets=[DATA, DATA]))
    add("unsorted", "its assets are out of order", bad, changed(good, assets=sorted((DATA, AGAIN))[::-1]))
    add("version-0", "versions begin at 1", field, changed(good, version=0))
    add("unknown-member", "a member of another version", field, changed(good, more=1))
    add("count-missing", "a count that is left out, which might mean nothing or everything", field,
        changed(good, counts={"bytes_out": None, "queries": None, "runs": 1}))  # fmt: skip
    add("count-negative", "less than nothing", field, changed(good, counts=changed(good["counts"], runs=-1)))
    add("epsilon-0", "an epsilon of 0", bad, dp("0", "0"))
    add("epsilon-large", "an epsilon above 50", bad, dp("50.1", "0"))
    add("delta-1", "a delta of 1", bad, dp("1", "1"))
    add("delta-tiny", "a delta that no accountant here can tell from 0", bad, dp("1", "0.0000000001"))
    for name, text in {"exponent": "1e-6", "zeros": "0.50", "plus": "+1", "point": "1.", "nan": "nan"}.items():
        add(f"spelling-{name}", "a number in another spelling", spelled, dp(text, "0"))
    return cases


def follow() -> Cases:
    old, both = BUDGET, tuple(sorted((DATA, AGAIN)))
    said = {
        "ok": ("the next version", "ok", old, replace(old, version=3)),
        "ok-shared": ("one asset more", "ok", old, replace(old, version=3, assets=both)),
        "same-version": ("the version does not rise", "budget.stale", old, old),
        "rolled-back": ("an earlier version", "budget.stale", old, replace(old, version=1)),
        "left-out": (
            "it leaves out an asset, whose charges would be forgotten",
            "budget.bad_budget",
            replace(old, assets=both),
            replace(old, version=3),
        ),
        "other-owner": ("another owner's", "budget.bad_budget", old, replace(old, version=3, owner="lab")),
    }
    return {
        f"follows-{name}": {
            "description": description,
            "expect": expect,
            "new": new.to_json(),
            "old": was.to_json(),
            "operation": "follows",
        }
        for name, (description, expect, was, new) in said.items()
    }


def charges() -> Cases:
    good = changed(charge().to_json(), events=[GAUSSIAN, LAPLACE, PURE])
    bad, field = "budget.bad_charge", "wire.bad_field"

    def event(**members: Any) -> Any:
        return changed(good, events=[members])

    said: dict[str, tuple[str, str, Any]] = {
        "ok": ("one of each event", "ok", good),
        "ok-plain": ("a run without differential privacy", "ok", changed(good, events=[])),
        "unknown-event": ("an event of an unknown kind", bad, event(count=1, event="subsampled", noise_multiplier="1")),
        "no-noise": ("an event without noise", bad, event(**changed(GAUSSIAN, noise_multiplier="0"))),
        "little-noise": ("noise of 10^-300", field, event(**changed(GAUSSIAN, noise_multiplier="0." + "0" * 299 + "1"))),
        "negative-noise": ("noise below 0", bad, event(**changed(GAUSSIAN, noise_multiplier="-1"))),
        "no-epsilon": ("an epsilon of 0", bad, event(**changed(PURE, epsilon="0"))),
        "delta-1": ("a delta of 1", bad, event(**changed(PURE, delta="1"))),
        "both": ("noise and an epsilon", field, event(**PURE, noise_multiplier="1")),
        "count-0": ("an event that did not happen", field, event(**changed(LAPLACE, count=0))),
        "count-large": ("more than 10^9 times", field, event(**changed(LAPLACE, count=10**9 + 1))),
        "spelling": ("a number in another spelling", bad, event(**changed(LAPLACE, noise_multiplier="8.0"))),
        "no-run": ("a charge of no run", bad, changed(good, counts=changed(good["counts"], runs=0))),
        "two-runs": ("a charge of two runs", bad, changed(good, counts=changed(good["counts"], runs=2))),
        "count-missing": ("a count is missing", field, changed(good, counts=changed(good["counts"], rows=...))),
        "unknown-member": ("a member of another version", field, changed(good, more=1)),
        "many-events": ("1,025 lines of events", field, changed(good, events=[PURE] * 1025)),
    }
    return {
        f"charge-{name}": {"charge": value, "description": description, "expect": expect, "operation": "charge"}
        for name, (description, expect, value) in said.items()
    }


def covers() -> Cases:
    cases: Cases = {}
    one = Budget("hospital", 1, NOW, (DATA,), Privacy("1", "0"), CountLimits(3, None, 10, None))

    def add(
        name: str, description: str, expect: str, before: list[Charge], further: Charge | None, *, b: Budget = one
    ) -> None:
        cases[f"covers-{name}"] = {
            "before": [c.to_json() for c in before],
            "budget": b.to_json(),
            "description": description,
            "expect": expect,
            "further": None if further is None else further.to_json(),
            "operation": "covers",
        }

    half, third = charge(), charge(Event("laplace", 1, noise_multiplier="3"))
    over, plain = "budget.exceeded", replace(charge(), events=())
    counted = replace(one, dp=None)
    asked = replace(counted, counts=CountLimits(None, 1, None, None))
    add("no-queries", "no query, where they are limited", "budget.not_charged", [], charge(queries=0), b=asked)
    add("first", "the first charge", "ok", [], half)
    add("exactly", "to the last of it", "ok", [half], half)
    add("thirds", "three thirds are one, exactly", "ok", [third, third], third)
    add(
        "over",
        "a billionth more than is left",
        over,
        [half],
        charge(Event("epsilon-delta", 1, epsilon="0.500000001", delta="0")),
    )
    add(
        "over-delta",
        "a delta, where the budget's is 0",
        over,
        [],
        charge(Event("epsilon-delta", 1, epsilon="0.1", delta="0.0000001")),
    )
    add(
        "over-gaussian",
        "a Gaussian event has no epsilon at delta 0",
        over,
        [],
        charge(Event("gaussian", 1, noise_multiplier="100")),
    )
    add(
        "over-often",
        "the same event 10^9 times",
        over,
        [],
        charge(Event("laplace", 10**9, noise_multiplier="100"), queries=10**9),
    )
    add("runs", "the last run", "ok", [plain, plain], plain, b=counted)
    add("over-runs", "a run more than is left", over, [plain, plain, plain], plain, b=counted)
    add("over-rows", "rows of others count too", over, [charge(rows=6)], charge(rows=5))
    add("no-charge", "the contract states no charge", "budget.not_charged", [], None)
    add("no-event", "a program without noise, under a budget that limits epsilon", "budget.not_charged", [], plain)
    return cases


def settle() -> Cases:
    stated = charge(queries=12, rows=100)
    said = {
        "no-word": ("the receipt says nothing: nothing is given back", None, stated),
        "all": (
            "everything was used",
            Used(True, 100, 1 << 20),
            stated,
        ),
        "less": (
            "fewer rows and bytes left than were charged",
            Used(True, 40, 512),
            replace(stated, counts=replace(stated.counts, rows=40, bytes_out=512)),
        ),
        "more": ("a receipt cannot raise a charge", Used(True, 1000, 1 << 30), stated),
        "not-begun": (
            "the run ended before the program was let at its inputs: its events are given back, the run is not",
            Used(False, 0, 0),
            replace(stated, counts=replace(stated.counts, queries=0, rows=0, bytes_out=0), events=()),
        ),
    }
    cases: Cases = {
        f"settle-{name}": {
            "charge": stated.to_json(),
            "description": description,
            "expect": "ok",
            "operation": "settle",
            "stands": stands.to_json(),
            "used": None if used is None else used.to_json(),
        }
        for name, (description, used, stands) in said.items()
    }
    impossible = {"began": False, "bytes_out": 1, "rows": 0}
    cases["settle-impossible"] = {
        **cases["settle-less"],
        "description": "bytes left a run that did not begin",
        "expect": "budget.bad_charge",
        "used": impossible,
    }
    return cases


def all_cases() -> Cases:
    return {**budgets(), **follow(), **charges(), **covers(), **settle()}


def main() -> None:
    folder = HERE / "budget"
    folder.mkdir(exist_ok=True)
    for stale in folder.glob("*.json"):
        stale.unlink()
    for name, case in all_cases().items():
        text = json.dumps(case, indent=2, sort_keys=True) + "\n"
        (folder / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
