"""How far a program is: what leaves of it, to whom, and that nothing else can."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.app.enclave.told import counted, hear
from strongroom.contract import Contract, Proposal
from strongroom.errors import BadParameters
from strongroom.observation import Observed
from strongroom.programs import code
from world import World

PARAMETERS: dict[str, Any] = {
    "arguments": {},
    "bundle": f"sha256:{'1' * 64}",
    "entry": "analysis:mean",
    "environment": None,
    "inputs": {"data": "arrow"},
    "outputs": {"summary": "values"},
}
OBSERVED = Observed(1, "withheld")


class Agreed:
    """A contract, as far as it matters here."""

    def __init__(self, progress: Any = None, observed: Observed | None = OBSERVED) -> None:
        base = World().proposal()
        parameters = {**PARAMETERS, **({} if progress is None else {"progress": progress})}
        program = replace(base.program, name="code", use="analyse", parameters=parameters)
        self.proposal: Proposal = replace(
            base, program=program, policy=replace(base.policy, observed=observed, uses=frozenset({"analyse"}))
        )


def contract(*args: Any) -> Contract:
    return Agreed(*args)  # type: ignore[return-value]


def told(agreed: Contract, *permille: int, step: str = "program") -> list[str]:
    found: list[str] = []
    on_progress = counted(agreed, found.append)
    if on_progress is not None:
        for one in permille:
            on_progress(step, one)
    return found


def test_by_default_nobody_hears_anything() -> None:
    assert counted(contract(), lambda _said: None) is None
    assert hear(contract()) == frozenset()


def test_parts_are_told_and_nothing_between() -> None:
    agreed = contract({"parties": ["lab"], "steps": 4})
    assert told(agreed, 50, 60, 274, 275, 276, 300, 499, 500, 725, 949, 950) == [f"{n} of 4 parts" for n in (1, 2, 3)]
    assert hear(agreed) == {"lab"}


def test_a_jump_is_told_as_one() -> None:
    assert told(contract({"parties": ["lab"], "steps": 4}), 800) == ["3 of 4 parts"]


@pytest.mark.parametrize("step", ["start", "read table", "write", "ask"])
def test_no_other_step_tells_a_part(step: str) -> None:
    assert told(contract({"parties": ["lab"], "steps": 4}), 500, step=step) == []


def test_where_times_are_told_less_finely_nothing_is_told() -> None:
    """When a part is reached is a time."""
    for observed in (Observed(60, "withheld"), Observed(None, "withheld"), Observed(2, "step")):
        assert told(contract({"parties": ["lab"], "steps": 4}, observed), 500) == []


def test_a_party_that_is_none_of_the_contracts_hears_nothing() -> None:
    assert hear(contract({"parties": ["stranger"], "steps": 4})) == frozenset()


@given(st.integers(2, code.MAX_PROGRESS), st.lists(st.integers(0, 1000), max_size=200))
def test_whatever_the_child_says_at_most_so_many_words_leave_and_they_only_rise(steps: int, said: list[int]) -> None:
    found = told(contract({"parties": ["lab"], "steps": steps}), *said)
    parts = [int(word.split()[0]) for word in found]
    assert parts == sorted(set(parts))
    assert set(parts) <= set(range(1, steps))


@pytest.mark.parametrize(
    "progress",
    [
        {},
        [],
        "all",
        {"parties": ["lab"]},
        {"parties": [], "steps": 4},
        {"parties": ["lab", "hospital"], "steps": 4},
        {"parties": ["lab", "lab"], "steps": 4},
        {"parties": "lab", "steps": 4},
        {"parties": [7], "steps": 4},
        {"parties": ["../lab"], "steps": 4},
        {"parties": ["lab"], "steps": 1},
        {"parties": ["lab"], "steps": 101},
        {"parties": ["lab"], "steps": True},
        {"parties": ["lab"], "steps": "4"},
        {"more": 1, "parties": ["lab"], "steps": 4},
    ],
)
def test_parameters_that_are_none(progress: Any) -> None:
    with pytest.raises(BadParameters):
        code.check({**PARAMETERS, "progress": progress})


def test_parameters_without_progress_are_as_they_were() -> None:
    assert code.read(PARAMETERS).progress is None
    assert code.read({**PARAMETERS, "progress": {"parties": ["lab"], "steps": 100}}).progress == code.Progress(("lab",), 100)
