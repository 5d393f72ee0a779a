"""``intersection-size``: one figure, as exact as agreed, and none of few."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pyarrow")
pytest.importorskip("opendp.prelude")

from owners import people, run, source
from strongroom.budget.charge import events_of
from strongroom.budget.composition import spent
from strongroom.errors import BadParameters, OutputRefused
from strongroom.programs import OutputSpec, charges, intersection_size, private_answers

THREE = {"inputs": {"a": ["email"], "b": ["line"], "c": ["email"]}, "rules": ["email"]}
INPUTS = {
    "a": source("csv", email=people(range(100))),
    "b": source("text", line=people(range(40, 200))),
    "c": source("parquet", email=[*people(range(30, 77)), *people(range(30, 77))]),
}


def size(min_group: int = 1, **more: Any) -> dict[str, Any]:
    return run("intersection-size", INPUTS, {**THREE, **more}, min_group)


def test_owners_with_files_of_different_kinds_learn_one_figure() -> None:
    found = size(10)
    assert (found["records"], found["metrics"], found["tables"]) == (37, {"size": 37}, [])


def test_a_figure_is_rounded_as_agreed() -> None:
    assert size(10, round=10)["metrics"] == {"size": 30}


def test_what_is_smaller_than_agreed_does_not_leave() -> None:
    for more in ({"min_group": 38}, {"min_group": 31, "round": 10}, {"min_group": 10_000, "epsilon": "1"}):
        with pytest.raises(OutputRefused) as refused:
            size(**more)
        assert "37" not in str(refused.value)


def test_owners_with_nothing_in_common_learn_that() -> None:
    nothing = {**INPUTS, "b": source("text", line=["x@example.org"])}
    found = run("intersection-size", nothing, THREE)
    assert (found["metrics"], found["records"]) == ({"size": 0}, 1)
    with pytest.raises(OutputRefused):
        run("intersection-size", nothing, THREE, 2)


def test_an_owner_does_not_learn_that_nearly_all_of_its_keys_are_anothers() -> None:
    """It knows how many it has: a size near that says how few of its people the other does not know."""
    inputs = {"a": source(k=people(range(40))), "b": source(k=people(range(3, 400)))}
    said = {"inputs": {"a": ["k"], "b": ["k"]}, "rules": ["email"]}
    assert run("intersection-size", inputs, said)["metrics"] == {"size": 37}
    assert run("intersection-size", inputs, said, 3)["metrics"] == {"size": 37}
    with pytest.raises(OutputRefused):
        run("intersection-size", inputs, said, 4)


# --- noise ----------------------------------------------------------------------------------------------------------------


def test_each_owner_is_charged_what_the_noise_costs() -> None:
    said = charges("intersection-size", {**intersection_size.DEFAULTS, **THREE, "epsilon": "0.5"})
    assert said is not None
    assert set(said) == {"a", "b", "c"}
    for events in said.values():
        assert float(spent(events_of(events), "0")) == pytest.approx(0.5)
    assert charges("intersection-size", {**intersection_size.DEFAULTS, **THREE}) == {}


def test_an_answer_with_noise_says_how_far_it_is_off() -> None:
    found = size(epsilon="20")["metrics"]  # off by two has a chance of 4e-18
    assert abs(found["size"] - 37) <= 2
    assert found["within"] == private_answers.within(1 / 20) == 0
    loose = {size(epsilon="0.01")["metrics"]["size"] for _ in range(6)}
    assert len(loose) > 1  # all alike has a chance below 10^-11
    assert size(epsilon="0.01")["metrics"]["within"] == private_answers.within(100.00000000000001)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 8), max_size=12), st.lists(st.integers(0, 8), max_size=12), st.integers(0, 8))
def test_one_key_more_or_less_changes_the_size_by_one_at_most(one: list[int], other: list[int], gone: int) -> None:
    """The law on which the charge stands: however often the key is in the file."""

    def exact(numbers: list[int]) -> int:
        inputs = {"a": source(k=[f"p{n}" for n in numbers]), "b": source(k=[f"p{n}" for n in other])}
        said = {"inputs": {"a": ["k"], "b": ["k"]}, "rules": ["id"]}
        found: int = run("intersection-size", inputs, said)["metrics"]["size"]
        return found

    if one and other:
        less = [n for n in one if n != gone] or [99]
        assert 0 <= exact(one) - exact(less) <= 1


def test_noise_costs_no_more_than_is_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def laplace(counts: list[int], distance: int, epsilon: Fraction) -> tuple[list[int], float]:
        asked.append((counts, distance, epsilon))
        return counts, 1.0

    monkeypatch.setattr(private_answers, "laplace", laplace)
    size(epsilon="0.25")
    assert asked == [([37], 1, Fraction(1, 4))]


@pytest.mark.parametrize(
    "more",
    [
        {"epsilon": "0"},
        {"epsilon": "-1"},
        {"epsilon": "51"},
        {"epsilon": "1e3"},
        {"epsilon": "0.50"},
        {"epsilon": ".5"},
        {"epsilon": "0.0000000001"},
        {"epsilon": 1},
        {"epsilon": "1", "round": 10},
    ],
)
def test_noise_that_could_not_be_charged_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(BadParameters):
        intersection_size.check({**intersection_size.DEFAULTS, **THREE, **more})


def test_it_counts_inside_a_sandbox() -> None:
    import json

    from strongroom.enclave.run import OpenInput
    from strongroom.enclave.sandbox import prepare
    from strongroom.enclave.sandbox_job import Limits

    with prepare("intersection-size", "process", outputs=("report",)) as room:
        opened = {role: OpenInput(i.media_type, i.size, i.open()) for role, i in INPUTS.items()}
        said = {**intersection_size.DEFAULTS, **THREE, "epsilon": "20"}
        written = room.run(said, opened, {"report": OutputSpec("report", 1 << 20, 1, 15)}, Limits(60, 1 << 30, 1 << 20))
    assert abs(json.loads(written["report"])["metrics"]["size"] - 37) <= 2
