"""``joint-histogram``: what one person can change is bounded, and no figure is of few people."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

np = pytest.importorskip("numpy")
pytest.importorskip("pyarrow")
pytest.importorskip("opendp.prelude")

from owners import groups, raw, run, source  # noqa: E402
from strongroom.budget.charge import events_of  # noqa: E402
from strongroom.budget.composition import spent  # noqa: E402
from strongroom.errors import (  # noqa: E402
    BadParameters,
    ProgramError,
    StrongroomError,
    TableColumns,
    TableUnreadable,
)
from strongroom.programs import Input, OutputSpec, charges, joint_counts, joint_histogram  # noqa: E402

SHOWS = ["Drama", "News", "Sport", "Quiz"]


def asked(people: Any, **more: Any) -> dict[str, Any]:
    said = {"categories": SHOWS, "column": "show", "counts": "entries", "epsilon": None, "most": 10, "people": [*people]}
    return {**said, **more}


def histogram(watched: dict[str, list[str]], min_group: int = 1, kind: str = "json", **more: Any) -> dict[str, Any]:
    inputs = {person: source(kind, show=shows) for person, shows in watched.items()}
    return run("joint-histogram", inputs, asked(watched, **more), min_group)


def of(*people: list[str]) -> dict[str, list[str]]:
    return {f"p{n}": shows for n, shows in enumerate(people)}


FOUR = of(["Drama"] * 3 + ["News"], ["drama ", "NEWS", "Cooking"], ["News", "Sport"], ["News", "Drama", "Quiz"])


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "parquet", "arrow"])
def test_files_of_every_kind_add_up_alike(kind: str) -> None:
    found = histogram(FOUR, kind=kind)
    assert groups(found) == {"Drama": 5, "News": 4, "Sport": 1, "Quiz": 1, "(other)": 1}
    assert (found["records"], found["metrics"]) == (12, {"most": 10, "people": 4})


def test_people_may_have_files_of_different_kinds() -> None:
    kinds = ["json", "csv", "parquet", "jsonl"]
    inputs = {p: source(kind, show=shows) for kind, (p, shows) in zip(kinds, FOUR.items(), strict=True)}
    assert groups(run("joint-histogram", inputs, asked(FOUR)))["News"] == 4


def test_a_file_of_lines_is_a_list() -> None:
    assert groups(histogram(FOUR, kind="text", column="line"))["Drama"] == 5
    with pytest.raises(TableColumns):
        histogram(FOUR, kind="text")


def test_people_are_counted_where_that_is_asked() -> None:
    assert groups(histogram(FOUR, counts="people")) == {"Drama": 3, "News": 4, "Sport": 1, "Quiz": 1, "(other)": 1}


# --- what one person can change -------------------------------------------------------------------------------------------

ENTRIES = st.lists(st.sampled_from([*SHOWS, "Cooking", "", "drama"]), max_size=12)


@settings(max_examples=60, deadline=None)
@given(ENTRIES, st.integers(1, 5), st.sampled_from(["entries", "people"]))
def test_nobodys_file_changes_the_counts_by_more_than_is_charged(shows: list[str], most: int, counts: str) -> None:
    """The law on which the noise stands: a whole file more or less."""
    said = joint_histogram.read(asked(["a", "b"], most=most, counts=counts))
    found = joint_counts.given(source("json", show=shows), said)
    assert found.sum() <= most
    assert (found >= 0).all()
    if counts == "people":
        assert found.max(initial=0) <= 1


def test_a_person_who_floods_the_histogram_counts_as_much_as_agreed() -> None:
    found = histogram({**FOUR, "flood": ["Quiz"] * 5000})
    assert groups(found)["Quiz"] == 1 + 10


def test_each_person_is_charged_and_noise_covers_a_whole_file(monkeypatch: pytest.MonkeyPatch) -> None:
    said = asked(FOUR, epsilon="0.5", most=7)
    told = charges("joint-histogram", said)
    assert told is not None
    assert set(told) == set(FOUR)
    assert all(float(spent(events_of(events), "0")) == pytest.approx(0.5) for events in told.values())
    assert charges("joint-histogram", asked(FOUR)) == {}
    drawn = []

    def laplace(counts: list[int], distance: int, epsilon: Fraction) -> tuple[list[int], float]:
        drawn.append((counts, distance, epsilon))
        return [n - 3 for n in counts], 2.0

    monkeypatch.setattr(joint_counts, "laplace", laplace)
    found = histogram(FOUR, epsilon="0.5", most=7)
    assert drawn == [([5, 4, 1, 1, 1], 7, Fraction(1, 2))]
    shown = {g["group"]: (g["records"], g["values"]) for g in found["tables"][0]["groups"]}
    assert shown["Drama"] == (2, {"value": 2, "within": found["metrics"]["within"]})
    assert shown["Quiz"] == (0, {"value": -2, "within": found["metrics"]["within"]})


def test_the_answer_with_noise_is_near_the_truth_where_there_is_little() -> None:
    found = histogram(FOUR, epsilon="50", most=5)  # off by 4 has a chance below 10^-15
    assert abs(groups(found)["News"] - 4) <= 4
    assert found["metrics"]["within"] <= 1


# --- few people -----------------------------------------------------------------------------------------------------------


def test_what_few_people_gave_is_told_together() -> None:
    """Sport, Quiz and Cooking are of one person each; three of them together."""
    assert groups(histogram(FOUR, 3)) == {"Drama": 5, "News": 4, "(of few people)": 3}


def test_many_entries_of_one_person_are_no_group() -> None:
    """Somebody floods a category so that its count passes the minimum: it is people that are counted."""
    watched = of(["Quiz"] * 10, ["News", "Drama"], ["News", "Drama"], ["News", "Drama"])
    found = groups(histogram(watched, 3))
    assert "Quiz" not in found
    assert found == {"News": 3, "(of few people)": 13}  # with the smallest of the others, so that it is of enough people


def test_a_group_of_more_people_than_there_are_is_refused() -> None:
    with pytest.raises(BadParameters):
        histogram(FOUR, 5)


@settings(max_examples=60, deadline=None)
@given(st.lists(ENTRIES, min_size=3, max_size=6), st.integers(2, 3))
def test_no_figure_is_of_fewer_people_than_agreed(files: list[list[str]], least: int) -> None:
    said = joint_histogram.read(asked(of(*files), most=100))
    matrix = [joint_counts.given(source("json", show=shows), said) for shows in files]
    report = json.loads(joint_counts.report(matrix, said, least))
    names = [*SHOWS, "(other)"]
    told = groups(report)
    kept = {n for n, name in enumerate(names) if name in told}
    by_category = np.stack(matrix) > 0
    assert all(by_category[:, n].sum() >= least for n in kept)
    rest = [n for n in range(len(names)) if n not in kept]
    assert len(rest) != 1
    if rest and kept:
        assert by_category[:, rest].any(axis=1).sum() >= least
        assert sum(count for count in told.values() if count) == report["records"]


# --- forms ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[1]",
        b"7",
        b'{"show": 7}',
        b'{"other": "News"}',
        b"\xff",
        b"[" * 100_000,
        b'{"show": "' + b"x" * 3_000_000,
    ],
)
def test_no_line_of_a_persons_file_ends_a_run(line: bytes) -> None:
    mine = raw(b'{"show": "News"}\n' + line + b'\n{"show": "Quiz"}\n', "jsonl")
    found = run("joint-histogram", {"a": mine, "b": source("json", show=["News"])}, asked(["a", "b"]))
    assert (groups(found)["News"], groups(found)["Quiz"]) == (2, 1)


@pytest.mark.parametrize(
    ("file", "error"),
    [
        (raw(b"{}", "json"), TableUnreadable),
        (raw(b"[", "json"), TableUnreadable),
        (raw(b"[" * 100_000, "json"), TableUnreadable),
        (raw(b"", "json"), TableUnreadable),
        (Input("application/json", 1 << 40, lambda: pytest.fail("it was read")), TableUnreadable),
        (raw(b"x", "parquet"), TableUnreadable),
        (source("csv", other=["a"]), TableColumns),
        (Input("video/mp4", 3, raw(b"abc", "csv").opener), TableUnreadable),
    ],
)
def test_a_file_of_another_form_is_refused(file: Input, error: type[StrongroomError]) -> None:
    with pytest.raises(error):
        run("joint-histogram", {"a": file, "b": source("json", show=["News"])}, asked(["a", "b"]))


@pytest.mark.parametrize(
    "more",
    [
        {"categories": []},
        {"categories": ["News", "news "]},
        {"categories": ["(other)"]},
        {"categories": ["(of few people)"]},
        {"categories": ["\u200b"]},
        {"categories": "News"},
        {"column": ""},
        {"counts": "hours"},
        {"most": 0},
        {"most": True},
        {"epsilon": "0"},
        {"people": ["a"]},
        {"people": ["a", "a"]},
        {"people": ["A", "b"]},
        {"people": [f"p{n}" for n in range(61)]},
        {"more": 1},
    ],
)
def test_parameters_that_no_run_could_use_are_refused(more: dict[str, Any]) -> None:
    with pytest.raises(BadParameters, match="joint-histogram"):
        joint_histogram.check({**asked(["a", "b"]), **more})


# --- many people ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [5, 50])
def test_as_many_people_as_a_contract_takes_count_inside_a_sandbox(count: int) -> None:
    from strongroom.enclave.run import OpenInput
    from strongroom.enclave.sandbox import prepare
    from strongroom.enclave.sandbox_job import Limits

    watched = {f"p{n}": ["News", SHOWS[n % 4]] for n in range(count)}
    said = asked(watched, most=2)
    with prepare("joint-histogram", "process", outputs=("report",)) as room:
        files = {person: source("json", show=shows) for person, shows in watched.items()}
        opened = {role: OpenInput(i.media_type, i.size, i.open()) for role, i in files.items()}
        written = room.run(said, opened, {"report": OutputSpec("report", 1 << 20, 1, 15)}, Limits(60, 1 << 30, 1 << 20))
    found = groups(json.loads(written["report"]))
    assert found["News"] == count + sum(shows[1] == "News" for shows in watched.values())
    assert joint_histogram.roles(said) == set(watched)


def test_its_errors_are_of_the_program() -> None:
    with pytest.raises(ProgramError):
        histogram(FOUR, column="nothing", kind="csv")
