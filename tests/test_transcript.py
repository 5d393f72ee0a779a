"""Numbered checks: nothing passes that was not looked at."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom import wire
from strongroom.transcript import Check, Status, Steps, Transcript

STEPS = Steps("T", ["first", "second", "third"])
outcomes = st.lists(st.sampled_from([True, False, None, "unreached"]), min_size=1, max_size=6)


def transcript(found: list[Any]) -> Transcript:
    made = Transcript(Steps("T", [f"step {n}" for n in range(len(found))]))
    for n, outcome in enumerate(found, 1):
        if outcome != "unreached":
            made.record(f"T{n}", outcome, "seen", code="some.code")
    return made


def test_a_list_of_checks_is_numbered_from_one() -> None:
    assert list(STEPS) == [("T1", "first"), ("T2", "second"), ("T3", "third")]


def test_an_empty_list_of_checks_cannot_be_declared() -> None:
    with pytest.raises(ValueError, match="empty"):
        Steps("T", [])


def test_a_transcript_that_nobody_wrote_in_is_not_ok() -> None:
    made = Transcript(STEPS)
    assert not made.ok
    assert made.first_problem == Check("T1", "first", Status.NOT_ESTABLISHED, "not reached")


@given(outcomes)
def test_ok_means_that_every_check_passed(found: list[Any]) -> None:
    assert transcript(found).ok == all(outcome is True for outcome in found)


@given(outcomes)
def test_every_declared_check_is_shown_in_order(found: list[Any]) -> None:
    made = transcript(found)
    expected = {True: Status.PASSED, False: Status.FAILED}
    assert [c.status for c in made.checks] == [expected.get(outcome, Status.NOT_ESTABLISHED) for outcome in found]
    assert [c.number for c in made.checks] == [f"T{n}" for n in range(1, len(found) + 1)]


@given(outcomes)
def test_the_first_problem_is_a_failure_before_what_was_not_established(found: list[Any]) -> None:
    problem = transcript(found).first_problem
    if problem is None:
        assert all(outcome is True for outcome in found)
    elif False in found:
        assert problem.number == f"T{found.index(False) + 1}"
        assert problem.status is Status.FAILED
    else:
        assert problem.number == f"T{next(n for n, outcome in enumerate(found, 1) if outcome is not True)}"
        assert problem.status is Status.NOT_ESTABLISHED


@pytest.mark.parametrize(("passed", "returned"), [(True, True), (False, False), (None, False)])
def test_record_says_whether_it_passed(passed: bool | None, returned: bool) -> None:
    assert Transcript(STEPS).record("T1", passed) is returned


@pytest.mark.parametrize("truthy", [1, "yes", [0], object()])
def test_only_true_passes(truthy: Any) -> None:
    made = Transcript(STEPS)
    assert made.record("T1", truthy, code="some.code") is False
    assert made.checks[0].status is Status.FAILED
    assert made.checks[0].code == "some.code"


def test_a_check_cannot_be_set_twice() -> None:
    made = Transcript(STEPS)
    made.record("T1", passed=False)
    with pytest.raises(ValueError, match="twice"):
        made.record("T1", passed=True)
    assert made.checks[0].status is Status.FAILED


def test_a_check_that_was_not_declared_cannot_be_set() -> None:
    with pytest.raises(KeyError):
        Transcript(STEPS).record("T4", passed=True)


def test_a_passed_check_has_no_error_code() -> None:
    made = Transcript(STEPS)
    made.record("T1", passed=True, detail="seen", code="some.code")
    made.record("T2", passed=None, code="other.code")
    assert [c.code for c in made.checks] == ["", "other.code", ""]


@given(outcomes)
def test_json(found: list[Any]) -> None:
    made = transcript(found).to_json()
    assert wire.decode(wire.encode(made)) == made
    assert all(set(c) == {"number", "name", "status", "detail", "code"} for c in made)  # type: ignore[arg-type]
