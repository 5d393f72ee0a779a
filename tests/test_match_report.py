"""``match-report`` and the join that it announces: the same keys, counts alone, and no small set in any of them."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pa = pytest.importorskip("pyarrow")

from owners import groups, people, raw, run, source  # noqa: E402
from strongroom.errors import BadParameters, StrongroomError, TableColumns, TableUnreadable  # noqa: E402
from strongroom.programs import Input, OutputSpec, joined, keyed, match_report  # noqa: E402
from strongroom.programs.keys import Keying  # noqa: E402

EMAIL = {"inputs": {"census": ["email"], "logs": ["user"]}, "rules": ["email"]}


def compared(census: Any, logs: Any, min_group: int = 1, **more: Any) -> dict[str, Any]:
    return run("match-report", {"census": census, "logs": logs}, {**EMAIL, **more}, min_group)


@pytest.mark.parametrize("kind", ["parquet", "arrow", "csv"])
def test_every_figure_is_right(kind: str) -> None:
    census = source(kind, email=[*people(range(20)), " PERSON0@example.org", "nobody", ""])
    logs = source(kind, user=[*people(range(5, 40)), *people(range(5, 10))], item=["x"] * 40)
    found = compared(census, logs)
    assert groups(found) == {"in all": 15, "census alone": 5, "logs alone": 20}
    assert found["records"] == 40
    told = found["metrics"]
    assert {n: told[f"{n}_census"] for n in ("rows", "distinct", "repeated", "respelled", "unusable")} == {
        "rows": 23,
        "distinct": 20,
        "repeated": 1,
        "respelled": 1,
        "unusable": 2,
    }
    assert (told["rows_logs"], told["repeated_logs"], told["respelled_logs"], told["unusable_logs"]) == (40, 5, 0, 0)


def test_a_file_of_lines_is_a_table_of_one_column() -> None:
    lines = source("text", line=[*people(range(30)), "x" * 10_000, ""])
    inputs = {"census": ["line"], "logs": ["user"]}
    found = compared(lines, source(user=people(range(10))), inputs=inputs)
    assert groups(found) == {"in all": 10, "census alone": 20, "logs alone": 0}
    assert found["metrics"]["unusable_census"] == 2
    with pytest.raises(TableColumns):
        compared(lines, source(user=["a"]))


def test_numbers_match_however_a_library_holds_them() -> None:
    same = [source("csv", id=[7, 8]), source(id=[7, 8]), source(id=[7.0, 8.0, None, 8.5, float("nan"), 1e300])]
    same += [source("text", line=["7", " 8 "]), source(id=pa.array([7, 8], pa.int64()).dictionary_encode())]
    for one in same:
        column = "line" if one.media_type == "text/plain" else "id"
        found = run("match-report", {"a": one, "b": same[0]}, {"inputs": {"a": [column], "b": ["id"]}, "rules": ["id"]})
        assert groups(found) == {"in all": 2, "a alone": 0, "b alone": 0}


def test_keys_of_several_columns_and_more_than_two_owners() -> None:
    def people_of(numbers: range) -> Input:
        return source(name=[f"Ann {n}" for n in numbers], born=[f"19{n:02}-01-01" for n in numbers])

    roles = {"a": range(30), "b": range(10, 50), "c": range(20, 60)}
    said = {"inputs": {role: ["name", "born"] for role in roles}, "rules": ["text", "id"]}
    found = run("match-report", {role: people_of(numbers) for role, numbers in roles.items()}, said)
    assert groups(found) == {
        "in all": 10,
        "b and c": 20,
        "a and c": 0,
        "a and b": 10,
        "a alone": 10,
        "b alone": 0,
        "c alone": 10,
    }


def test_figures_are_told_in_multiples() -> None:
    found = compared(source(email=people(range(27))), source(user=people(range(4, 40))), round=10)
    assert groups(found) == {"in all": 20, "census alone": 0, "logs alone": 10}
    assert found["metrics"]["rows_census"] == 20


def test_inputs_without_any_key_make_a_report_of_nothing() -> None:
    found = compared(source(email=["-"]), source(user=["-"]))
    assert (found["records"], found["tables"], found["metrics"]["distinct_logs"]) == (1, [], 0)
    hidden = compared(source(email=["-"]), source(user=["-"]), 2)
    assert (hidden["records"], hidden["tables"], hidden["metrics"]) == (2, [], {"told": 0})


# --- small sets -----------------------------------------------------------------------------------------------------------


NOTHING = {"told": 0}


@pytest.mark.parametrize("least_known", [0, 3, 9])
def test_where_a_set_is_small_nothing_is_told(least_known: int) -> None:
    """Some few people of the census are not in the logs. Who brought either knows how many keys it has: from any other set,
    or from their sum, it would know how few."""
    found = compared(source(email=people(range(100))), source(user=people(range(least_known, 300))), 10)
    assert (found["records"], found["tables"], found["metrics"]) == (10, [], NOTHING)


def test_figures_of_an_input_are_told_where_no_set_is_small() -> None:
    logs = source(user=[*people(range(20, 100)), *people(range(20, 32))])
    found = compared(source(email=[*people(range(50)), "nobody"]), logs, 10)
    assert groups(found) == {"in all": 30, "census alone": 20, "logs alone": 50}
    assert found["metrics"]["told"] == 1
    assert set(found["metrics"]) - {"told"} == {
        f"{n}_logs" for n in ("rows", "distinct", "repeated", "respelled", "unusable")
    }
    assert found["metrics"]["repeated_logs"] == 12  # of the census one row is unusable: nothing of it is told


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.integers(2, 12), st.sampled_from([1, 2, 5]))
def test_no_figure_tells_of_fewer_than_agreed(both: int, census: int, logs: int, least: int, step: int) -> None:
    mine, theirs = people(range(both + census)), people([*range(both), *range(100, 100 + logs)])
    found = compared(source(email=[*mine, "-"]), source(user=[*theirs, "-"]), least, round=step)
    told = groups(found)
    if min(n - n % step for n in (both, census, logs)) < least:
        assert (found["records"], told, found["metrics"]) == (least, {}, NOTHING)
    else:
        assert told == {
            "in all": both - both % step,
            "census alone": census - census % step,
            "logs alone": logs - logs % step,
        }
        assert found["metrics"] == NOTHING | {"told": 1} or least == 1  # one row of each has no key


# --- attacks --------------------------------------------------------------------------------------------------------------


def test_an_owner_that_floods_with_spellings_of_one_key_makes_no_group() -> None:
    """One real person, written in a thousand ways, so that a thousand rows match."""
    spelled = [
        "".join(c.upper() if n >> i & 1 else c for i, c in enumerate("person0@ex")) + "ample.org" for n in range(1024)
    ]
    assert compared(source(email=spelled), source(user=people(range(1))), 10)["metrics"] == NOTHING
    found = compared(source(email=spelled), source(user=people(range(1))))
    assert groups(found)["in all"] == 1
    assert found["metrics"]["respelled_census"] == len({s.lower() for s in spelled}) * len(set(spelled)) - 1


def test_an_owner_that_floods_with_keys_of_nobody_makes_no_match() -> None:
    found = compared(source(email=people(range(5000), "flood.example")), source(user=people(range(3))), 10)
    assert found["metrics"] == NOTHING


@pytest.mark.parametrize(
    "cells",
    [
        b"\xff\xfe",
        b'"broken',
        b"a,b,c,d",
        b"",
        b"\x00",
        b"\xed\xa0\x80@x",
        b"=cmd()",
        "\u202e@x.org".encode(),
        b"9" * 100_000,
    ],
)
def test_nothing_that_stands_in_a_row_ends_a_run(cells: bytes) -> None:
    """Whether a run fails would tell of the row."""
    census = raw(b"email,other\nperson1@example.org,x\n" + cells + b",x\nperson2@example.org,x\n", "csv")
    assert groups(compared(census, source(user=people([1, 2]))))["in all"] is not None


@pytest.mark.parametrize(
    ("census", "error"),
    [
        (source(other=["a"]), TableColumns),
        (raw(b"email,email\na,b\n", "csv"), TableColumns),
        (raw(b"", "csv"), TableUnreadable),
        (raw(b"", "parquet"), TableUnreadable),
        (raw(b"not parquet", "parquet"), TableUnreadable),
        (raw(b"[]", "json"), TableUnreadable),
        (source(email=[["a"], ["b"]]), TableColumns),
        (source(email=[True, False]), TableColumns),
    ],
)
def test_a_table_of_another_form_is_refused(census: Input, error: type[StrongroomError]) -> None:
    with pytest.raises(error):
        compared(census, source(user=["a"]))


# --- what is joined is what was counted ----------------------------------------------------------------------------------

ODD = ["Ann@x.org", "ann@x.org ", "ａnn@x.org", "bob@x.org", "ßob@x.org", "nobody", "", None, "eve@x.org"]


def in_library(library: str, table: Any) -> Any:
    if library == "polars":
        return pytest.importorskip("polars").from_arrow(table)
    if library == "lazy":
        return pytest.importorskip("polars").from_arrow(table).lazy()
    return table.to_pandas() if library == "pandas" else table


def rows_of(table: Any) -> list[dict[str, Any]]:
    if hasattr(table, "collect"):
        table = table.collect()
    if hasattr(table, "to_dicts"):
        return table.to_dicts()  # type: ignore[no-any-return]
    return table.to_pylist() if hasattr(table, "to_pylist") else table.to_dict("records")  # type: ignore[no-any-return]


@pytest.mark.parametrize("library", ["arrow", "pandas", "polars", "lazy"])
def test_rows_are_joined_in_every_library(library: str) -> None:
    if library == "pandas":
        pytest.importorskip("pandas")
    left = pa.table({"user": ["ANN@x.org", "bob@x.org", "zoe@x.org", "ann@x.org", "?"], "n": [1, 2, 3, 4, 5]})
    right = pa.table({"email": ["ann@x.org", "Bob@x.org", "bob@X.org", "eve@x.org"], "n": [10, 20, 30, 40]})
    given = [in_library(library, table) for table in (left, right)]
    found = joined.join(*given, on="user", right_on="email", rules=["email"])
    assert type(found) is type(given[0])
    # bob is there twice, in two spellings: neither row stands in for the other
    assert rows_of(found) == [
        {"user": "ANN@x.org", "n": 1, "n_right": 10, "key": 0},
        {"user": "ann@x.org", "n": 4, "n_right": 10, "key": 0},
    ]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(ODD), max_size=12), st.lists(st.sampled_from(ODD), max_size=12))
def test_the_report_and_the_join_agree(census: list[str | None], logs: list[str | None]) -> None:
    one, other = pa.table({"email": pa.array(census, pa.string())}), pa.table({"user": pa.array(logs, pa.string())})
    report = compared(source(email=pa.array(census, pa.string())), source(user=pa.array(logs, pa.string())))
    matched = groups(report).get("in all", 0)
    counted = joined.count({"census": one, "logs": other}, {"census": ["email"], "logs": ["user"]}, ["email"])
    assert counted["census", "logs"] == matched
    distinct = {key for key in joined.keys(other, "user", ["email"]) if key is not None}
    assert len(distinct & {*joined.keys(one, "email", ["email"])}) == matched
    whole = report["metrics"]
    if whole["repeated_census"] == 0:  # no key of the census is left out
        found = joined.join(other, one, on="user", right_on="email", rules=["email"])
        assert len(set(found.column("key").to_pylist())) == matched


def test_a_key_crafted_to_take_anothers_place_is_left_out() -> None:
    """An owner adds a second row for somebody, spelled otherwise, so that its value is taken for theirs."""
    logs = pa.table({"user": people(range(3))})
    census = pa.table({"email": [*people(range(3)), "Ｐerson1@example.org"], "age": [40, 41, 42, 99]})
    found = joined.join(logs, census, on="user", right_on="email", rules=["email"])
    assert found.column("age").to_pylist() == [40, 42]


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"on": "x"}, TableColumns),
        ({"on": ["user", "n"]}, BadParameters),
        ({"rules": ["soundex"]}, BadParameters),
        ({"rules": ["phone"], "country": "0"}, BadParameters),
    ],
)
def test_a_join_that_cannot_be_is_refused(more: dict[str, Any], error: type[StrongroomError]) -> None:
    table = pa.table({"user": ["a"], "n": [1]})
    with pytest.raises(error):
        joined.join(table, table, **{"on": "user", "rules": ["id"], **more})


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ({"user": ["a"], "key": [1]}, {"user": ["a"]}),
        ({"user": ["a"], "n": [1], "n_right": [1]}, {"user": ["a"], "n": [1]}),
    ],
)
def test_a_join_whose_columns_have_one_name_is_refused(left: Any, right: Any) -> None:
    with pytest.raises(TableColumns):
        joined.join(pa.table(left), pa.table(right), on="user", rules=["id"])


# --- memory, and the sandbox --------------------------------------------------------------------------------------------


def test_many_keys_are_held_in_sixteen_bytes_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyed, "_FEW", 16)  # so that they are put in order often
    found, again = keyed.Keys(), keyed.Keys()
    for start in range(0, 2000, 100):
        found.add([[str(n) for n in range(start, start + 150)]], Keying(("id",)))
        again.add([[str(n) for n in reversed(range(start, start + 150))]], Keying(("id",)))
    assert found.distinct == again.distinct == 2050
    assert found.repeated == 20 * 150 - 2050
    assert found.keys.ordered.nbytes == 16 * 2050
    assert keyed.shared(iter([found, again])) == (2050, 0)
    assert keyed.cells({"a": found, "b": again})[("a", "b")] == 2050


def test_it_counts_inside_a_sandbox() -> None:
    import json

    from strongroom.enclave.run import OpenInput
    from strongroom.enclave.sandbox import prepare
    from strongroom.enclave.sandbox_job import Limits

    inputs = {"census": source(email=people(range(30))), "logs": source("csv", user=people(range(10, 50)))}
    with prepare("match-report", "process", outputs=("report",)) as room:
        opened = {role: OpenInput(i.media_type, i.size, i.open()) for role, i in inputs.items()}
        said = {**match_report.DEFAULTS, **EMAIL}
        written = room.run(said, opened, {"report": OutputSpec("report", 1 << 20, 1, 15)}, Limits(60, 1 << 30, 1 << 20))
    assert groups(json.loads(written["report"])) == {"in all": 20, "census alone": 10, "logs alone": 20}


def test_clients_check_without_anything_heavy() -> None:
    import subprocess
    import sys

    code = (
        "from strongroom.programs import charges, roles\n"
        f"p = {{'country': None, 'round': 1, **{EMAIL!r}}}\n"
        "roles('match-report', p); charges('intersection-size', {**p, 'epsilon': '1'})\n"
        "charges('joint-histogram', {'categories': ['a'], 'column': 'c', 'counts': 'people', 'epsilon': '1', 'most': 3,"
        " 'people': ['a', 'b']})\n"
        "import sys; print(*{name.split('.')[0] for name in sys.modules})"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "opendp", "pyarrow"} & {*loaded}


def test_lines_are_read_without_holding_a_long_one() -> None:
    data = b"a\n" + b"x" * (1 << 20) + b"\nb\r\nc"
    found = [value for part in keyed.lines(Input("text/plain", len(data), lambda: io.BytesIO(data))) for value in part]
    assert found == ["a", None, "b", "c"]


def test_columns_of_every_type_that_can_hold_a_key_are_texts() -> None:
    import datetime as dt

    day = dt.date(1989, 2, 28)
    for column, found in (
        (pa.nulls(2), [None, None]),
        (pa.array([day, None]), ["1989-02-28", None]),
        (pa.array([b"a", b"\xff"], pa.large_binary()), ["a", None]),
        (pa.array(["a", None], pa.string_view()), ["a", None]),
        (pa.array([2**62, -1]), [str(2**62), "-1"]),
        (pa.array([float("inf"), -0.0]), [None, "0"]),
    ):
        assert keyed.texts(column) == found


def test_more_lines_than_are_held_at_once() -> None:
    data = b"".join(b"%d\n" % n for n in range(20_000))
    found = keyed.scan(Input("text/plain", len(data), lambda: io.BytesIO(data)), ["line"], Keying(("id",)))
    assert (found.rows, found.distinct, found.unusable) == (20_000, 20_000, 0)
