"""``private-query``: bounded contributions, noise as large as agreed, accuracies that hold, and no row that ends a run."""

from __future__ import annotations

import io
import json
import math
from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.budget.charge import events_of
from strongroom.budget.composition import spent
from strongroom.errors import (
    BadParameters,
    OutOfMemory,
    OutputRefused,
    StrongroomError,
    TableColumns,
    TableNotNumeric,
    TableUnreadable,
)
from strongroom.output import enforce
from strongroom.policy import ANY_PARTY, OutputRule
from strongroom.programs import Input, OutputSpec, charges, private_query
from strongroom.programs.private_query import LN_20, read, sensitivity
from strongroom.schema import from_json as schema_of

dp = pytest.importorskip("opendp.prelude")
pa = pytest.importorskip("pyarrow")


from strongroom.programs import lines, private_answers, units  # noqa: E402
from strongroom.programs import rows as tables  # noqa: E402

PEOPLE = {
    "person": [f"p{n % 40}" for n in range(120)],
    "age": [20 + n % 60 for n in range(120)],
    "region": [("north", "south", "east")[n % 3] for n in range(120)],
}
COUNT = {"ask": "count", "name": "people", "share": 1}
SUM = {"ask": "sum", "column": "age", "lower": "0", "name": "years", "share": 1, "upper": "100"}
MEAN = {**SUM, "ask": "mean", "name": "mean_age"}
MEDIAN = {**SUM, "ask": "quantile", "at": "0.5", "name": "median"}
BANDS = {"ask": "histogram", "column": "age", "edges": ["30", "50"], "name": "bands", "share": 1}
BY = {"categories": ["north", "south"], "column": "region"}
ALL = [COUNT, SUM, MEAN, MEDIAN, BANDS, {**COUNT, "by": BY, "name": "regions"}]


def asked(*queries: Any, epsilon: str | None = "1", unit: Any = None) -> dict[str, Any]:
    return {"epsilon": epsilon, "queries": list(queries), "unit": unit}


def table(kind: str = "parquet", **columns: Any) -> Input:
    made = pa.table({**(columns or PEOPLE)})
    sink = io.BytesIO()
    if kind == "parquet":
        pa.parquet.write_table(made, sink, row_group_size=50)
    elif kind == "arrow":
        with pa.ipc.new_file(sink, made.schema) as writer:
            writer.write_table(made, max_chunksize=50)
    else:
        pa.csv.write_csv(made, sink)
    media = {"parquet": tables.PARQUET, "arrow": tables.ARROW, "csv": tables.CSV}[kind][0]
    data = sink.getvalue()
    return Input(media, len(data), lambda: io.BytesIO(data))


def text(data: bytes) -> Input:
    return Input("text/csv", len(data), lambda: io.BytesIO(data))


def run(source: Input, parameters: dict[str, Any]) -> dict[str, Any]:
    written: dict[str, bytes] = {}
    outputs = {"answers": OutputSpec("values", 1 << 20, 1, 15)}
    private_query.run({"data": source}, parameters, outputs, written.__setitem__, lambda _step, _done: None)
    said = schema_of(private_query.schemas(parameters)["answers"])
    left = enforce("values", OutputRule(ANY_PARTY, 1 << 20, 1, 15, schema=said), written["answers"])  # as an enclave does
    found: dict[str, Any] = json.loads(left)
    found["answers"] = [found["answers"][query["name"]] for query in parameters["queries"]]
    return found


def exact(source: Input, query: dict[str, Any], unit: Any = None) -> private_answers.Tally:
    """What a query adds up, before there is any noise."""
    parameters = read(asked(query, unit=unit))
    tally = private_answers.Tally(parameters.queries[0])
    seen = units.Units(parameters.rows, source.size) if parameters.unit else None
    wanted = sorted({n for n in (query.get("column"), parameters.unit, query.get("by", {}).get("column")) if n})
    for batch in tables.batches(source, wanted or ["age"]):
        kept = (
            np.ones(batch.num_rows, dtype=bool) if seen is None else seen.keep(tables.texts(batch.column(parameters.unit)))
        )
        tally.add(batch, kept)
    return tally


# --- what is exact ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["parquet", "arrow", "csv"])
def test_every_kind_of_table_adds_up_alike(kind: str) -> None:
    source = table(kind)
    assert exact(source, COUNT).counts == [120]
    tally = exact(source, SUM)
    step = read(asked(SUM)).queries[0].step
    assert tally.sums[0] * step == sum(PEOPLE["age"])
    assert exact(source, BANDS).counts == [20, 40, 60]
    assert exact(source, {**COUNT, "by": BY}).counts == [40, 40]  # the east is no category of those that were given
    assert sum(exact(source, MEDIAN).counts) == 120


def test_values_outside_their_bounds_are_taken_for_the_nearer_one() -> None:
    source = table(age=[-1e300, 5.0, 1e300, float("inf"), float("nan"), None])
    tally = exact(source, {**SUM, "lower": "0", "upper": "10"})
    assert tally.counts == [4]
    assert tally.sums[0] * read(asked({**SUM, "upper": "10"})).queries[0].step == 0 + 5 + 10 + 10


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_of_one_unit_no_more_rows_are_taken_than_agreed(kind: str) -> None:
    source = table(kind)
    for rows in (1, 2, 3, 7):
        unit = {"column": "person", "rows": rows}
        assert exact(source, COUNT, unit).counts == [40 * min(rows, 3)]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c", None]), st.integers(-50, 50)), max_size=40), st.integers(1, 4))
def test_one_unit_more_or_less_changes_no_sum_by_more_than_the_sensitivity(rows: Any, most: int) -> None:
    """The law on which all of it stands, over every unit of the table."""
    unit = {"column": "person", "rows": most}
    queries = [
        {**SUM, "lower": "-7", "upper": "13"},
        COUNT,
        {**MEAN, "lower": "-7", "upper": "13"},
        {**BANDS, "edges": ["0", "9"]},
    ]

    def sealed(found: Any) -> Input:
        names, ages = [p for p, _ in found], [a for _, a in found]
        return table(person=pa.array(names, pa.string()), age=pa.array(ages, pa.int64()))

    for query in queries:
        parameters = read(asked(query, unit=unit))
        whole = exact(sealed(rows), query, unit)
        for gone in ("a", "b", "c"):
            less = exact(sealed([r for r in rows if r[0] != gone]), query, unit)
            moved = sum(abs(one - other) for one, other in zip(whole.counts, less.counts, strict=True))
            assert moved <= most
            apart = sum(abs(one - other) for one, other in zip(whole.sums, less.sums, strict=True))
            bound = most * whole.reach if query["ask"] == "mean" else sensitivity(parameters.queries[0], most)
            assert apart <= bound


@pytest.mark.parametrize(
    "cells",
    [b"1e999", b"-", b"\xff\xfe", b"9" * 400, b"nan", b"=1+1", b"0x10", b"1,2,3,4", b'"broken', b"", b"\x00", b"1e-999"],
)
def test_nothing_that_stands_in_a_row_ends_a_run(cells: bytes) -> None:
    """Whether a run fails would tell of the row without any noise."""
    source = text(b"age,region,person\n41,north,a\n" + cells + b",south,b\n17,north,c\n")
    found = run(source, asked(*ALL, unit={"column": "person", "rows": 2}))
    assert len(found["answers"]) == len(ALL)


LINES = [b"%d,north,p%d\n" % (20 + n % 60, n) for n in range(1000)]
BAD_LINES = {
    "an open quote at the end": b'41,south,"y',
    "an open quote at the beginning": b'"41,south,y',
    "two quotes, and one of them opens": b'4"1,"south,y',
    "three quotes": b'"41"","south",y',
    "a quote after a quoted cell": b'"41"",south,y',
    "ends of lines in a quoted cell": b'41,south,"a\nb\nc"',
    "a carriage return": b"41,south,a\r",
    "three mebibytes": b"41,south," + b"z" * (3 << 20),
    "a mebibyte and a little": b"41,south," + b"z" * (1 << 20),
    "a mark of the byte order": b"\xef\xbb\xbf41,south,a",
    "nothing": b"",
    "no text": b"\xff\xfe,\x00,\x80",
}


@pytest.mark.parametrize("at", [0, 500, 1000])
@pytest.mark.parametrize("line", [pytest.param(line, id=name) for name, line in BAD_LINES.items()])
def test_one_line_with_a_stray_quote_takes_nobody_elses_line_away(line: bytes, at: int) -> None:
    """The sensitivity of a count is 1: one line more or less may not change it by more."""
    head, lines = b"age,region,person\n", b"".join(LINES[:at]) + line + b"\n" + b"".join(LINES[at:])
    for query in (COUNT, {**COUNT, "by": {"categories": ["north", "south"], "column": "region"}}):
        without, found = exact(text(head + b"".join(LINES)), query).counts, exact(text(head + lines), query).counts
        assert sum(abs(one - other) for one, other in zip(without, found, strict=True)) <= 1
    step = read(asked(SUM)).queries[0].step
    assert 0 <= (exact(text(head + lines), SUM).sums[0] - exact(text(head + b"".join(LINES)), SUM).sums[0]) * step <= 100


def test_lines_end_as_they_are_written_and_quotes_that_are_closed_hold_commas() -> None:
    for end in (b"\n", b"\r\n", b"\r"):
        rows = [b'\xef\xbb\xbf"age",region,person', b'"4""1",north,a', b'17,"no,rth",b', b'18,"",c', b"19,north,d"]
        source = text(end.join(rows))
        assert exact(source, SUM).counts == [3]
        assert exact(source, {**COUNT, "by": {"categories": ["no,rth", "north"], "column": "region"}}).counts == [1, 2]
        assert exact(source, COUNT, {"column": "region", "rows": 9}).counts == [3]  # an empty cell is no id


def test_lines_are_read_alike_wherever_pieces_of_the_file_end(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"age,region,person\n" + b'41,"so""uth",a\n17,north,b\n' * 40 + b"1,long," + b"z" * 64 + b"\n5,north,c"
    for size in range(40, 60):
        monkeypatch.setattr(lines, "LONGEST", size)
        assert exact(text(data), COUNT).counts == [81]
        assert exact(text(data), {**COUNT, "by": {"categories": ['so"uth'], "column": "region"}}).counts == [40]


def test_a_header_with_an_open_quote_is_no_table() -> None:
    with pytest.raises(TableUnreadable):
        run(text(b'age,"region,person\n1,north,a\n'), asked(COUNT))


ODD = [b"a\xff", b"ab", b"ab", b"\x00\x80"]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary(2), pa.binary_view()])
@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_an_id_that_is_no_text_does_not_end_a_run(kind: Any, form: str) -> None:
    ids = pa.array(ODD, type=pa.binary()).cast(kind)
    for unit, query in (({"column": "id", "rows": 1}, COUNT), (None, {**COUNT, "by": {**BY, "column": "id"}})):
        found = exact(table(form, id=ids, age=pa.array([1, 2, 3, 4])), query, unit)
        assert sum(found.counts) == (3 if unit else 0)


@pytest.mark.parametrize("kind", [pa.list_(pa.int8()), pa.timestamp("s", "Nowhere/At_all")])
def test_ids_of_a_type_without_text_are_refused_whatever_stands_there(kind: Any) -> None:
    for cells in ([], [None]):
        with pytest.raises(TableColumns):
            tables.texts(pa.array(cells, type=kind))


@pytest.mark.parametrize("kind", [pa.bool_(), pa.int8(), pa.float64(), pa.decimal128(19, 2), pa.date32(), pa.timestamp("s")])
def test_ids_of_other_types_are_compared_by_their_text(kind: Any) -> None:
    cells = pa.array([0, 1, None], pa.int32()).cast(pa.int64() if kind == pa.timestamp("s") else pa.int32()).cast(kind)
    first, second, third = tables.texts(cells).to_pylist()
    assert first != second
    assert third is None


def test_a_sum_of_millions_of_rows_does_not_wrap_and_tell_of_one_of_them() -> None:
    """At the bound where 64 bits would turn negative: its sign would be an answer without noise."""
    rows = 2**23 + 8
    low = 2**63 // rows + 1
    query = {**SUM, "lower": f"{low // 10}.{low % 10}", "upper": f"{(low + 10_000) // 10}.{(low + 10_000) % 10}"}
    source = io.BytesIO()
    made = pa.table({"age": pa.array(np.zeros(rows, dtype=np.int8))})
    with pa.ipc.new_file(source, made.schema) as writer:
        writer.write_table(made)  # in one batch
    found = Input(tables.ARROW[0], len(source.getvalue()), lambda: io.BytesIO(source.getvalue()))
    assert max(batch.num_rows for batch in tables.batches(found, ["age"])) <= 8192
    assert exact(found, query).sums == [rows * low]
    tally = private_answers.Tally(read(asked(query)).queries[0])
    tally.add(made.to_batches()[0], np.ones(rows, dtype=bool))
    assert tally.sums == [rows * low]


# --- memory -------------------------------------------------------------------------------------------------------------


def test_a_contracts_memory_is_no_threshold_on_how_many_people_there_are() -> None:
    from strongroom.enclave.run import OpenInput
    from strongroom.enclave.sandbox import prepare
    from strongroom.enclave.sandbox_job import Limits

    parameters = asked(COUNT, epsilon="0.01", unit={"column": "id", "rows": 1})
    few, many = (text(b"id\n" + b"".join(b"%07d\n" % (n % of) for n in range(300_000))) for of in (10, 300_000))
    need = private_answers.memory(few, read(parameters))
    assert need == private_answers.memory(many, read(parameters))

    def ends(source: Input, memory: int) -> str:
        with prepare("private-query", "process", outputs=("answers",)) as room:
            opened = OpenInput(source.media_type, source.size, source.open())
            try:
                room.run(
                    parameters,
                    {"data": opened},
                    {"answers": OutputSpec("values", 1 << 20, 1, 15)},
                    Limits(60, memory, 1 << 20),
                )
            except StrongroomError as error:
                return error.code
        return "completed"

    assert [ends(source, need // 2) for source in (few, many)] == [OutOfMemory.code] * 2
    assert [ends(source, need + (8 << 20)) for source in (few, many)] == ["completed"] * 2


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from([None, *(b"%d" % n for n in range(12))]), max_size=30), max_size=6),
    st.integers(1, 300),
)
def test_units_are_counted_as_by_a_plain_dictionary(pieces: list[list[bytes | None]], rows: int) -> None:
    found, seen = units.Units(rows, 0), Counter[bytes]()
    for piece in pieces:
        expected = []
        for name in piece:
            expected.append(name is not None and seen[name] < rows)
            seen.update([] if name is None else [name])
        assert found.keep(pa.array(piece, pa.binary())).tolist() == expected


def test_units_for_which_there_is_no_room_are_left_out_and_the_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "FEWEST", 10)
    found = units.Units(2, 0)
    names = pa.array([b"%d" % n for n in range(50)], pa.binary())
    first = found.keep(names)
    assert sum(first) == 10
    assert found.keep(names).tolist() == first.tolist()
    assert sum(found.keep(names)) == 0


# --- noise --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("query", "rows", "distance"), [(COUNT, 1, 1), (COUNT, 5, 5), (BANDS, 3, 3), (SUM, 1, 10_000)])
def test_noise_has_the_scale_that_the_sensitivity_and_epsilon_ask_for(query: Any, rows: int, distance: int) -> None:
    found = read(asked(query, epsilon="0.5", unit={"column": "person", "rows": rows})).queries[0]
    assert sensitivity(found, rows) == distance
    _, scale = private_answers.laplace([0], distance, found.epsilon)
    assert scale == pytest.approx(distance / 0.5, rel=1e-9)
    assert scale >= distance / 0.5


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 10**9), st.integers(1, 10**10))
def test_a_mechanism_never_costs_more_than_is_charged(distance: int, billionths: int) -> None:
    epsilon = Fraction(billionths, 10**9)
    domain, metric = dp.vector_domain(dp.atom_domain(T="i64")), dp.l1_distance(T="i64")
    made, _ = private_answers.scale_for(distance, epsilon, lambda s: dp.m.make_laplace(domain, metric, scale=s))
    assert Fraction(made.map(distance)) <= epsilon


def test_noise_is_there_and_is_as_large_as_it_must_be() -> None:
    """Of 4,000 draws the share beyond one scale is near 1/e; that it is 0.1 off has a chance of e^-80 (Hoeffding)."""
    noisy, scale = private_answers.laplace([1000] * 4000, 1, Fraction(1, 50))
    assert scale == pytest.approx(50)
    beyond = sum(abs(n - 1000) > scale for n in noisy) / 4000
    assert abs(beyond - math.exp(-1)) < 0.1
    off = private_answers.within(scale)
    assert off == pytest.approx(50 * math.log(20), abs=2)
    assert sum(abs(n - 1000) > off for n in noisy) / 4000 < 0.15  # 0.05, and a chance of e^-80 of being 0.1 more
    assert 450 < abs(sum(noisy)) / 4000 < 1550


def test_two_answers_to_one_question_differ() -> None:
    source = table()
    found = {run(source, asked(COUNT, epsilon="0.001"))["answers"][0]["value"] for _ in range(8)}
    assert len(found) > 1  # all alike has a chance below 10^-20


@pytest.mark.parametrize("scale", [0.01, 0.5, 1.0, 3.7, 1000.0])
def test_an_accuracy_is_the_exact_tail_of_the_noise(scale: float) -> None:
    off, ratio = private_answers.within(scale), math.exp(-1 / scale)

    def beyond(k: int) -> float:
        return 2 * ratio ** (k + 1) / (1 + ratio)

    assert beyond(off) <= 0.05 * (1 + 1e-9)
    assert off == 0 or beyond(off - 1) > 0.05 * (1 - 1e-9)


def test_who_asks_for_an_accuracy_gets_it() -> None:
    wanted = {"ask": "count", "name": "people", "within": "30"}
    query = read(asked(wanted, epsilon=None)).queries[0]
    assert query.epsilon == pytest.approx(float(LN_20) / 30, rel=1e-6)
    (found,) = run(table(), asked(wanted, epsilon=None))["answers"]
    assert found["within"] <= 30


def test_answers_with_much_budget_are_near_the_truth() -> None:
    """Epsilon 50 for each: the noise is far below what is compared; a miss has a chance below 10^-15."""
    queries = [COUNT, SUM, MEAN, MEDIAN, BANDS, {**SUM, "by": BY, "name": "by_region"}]
    people, years, mean, median, bands, regions = run(table(), asked(*queries, epsilon="300"))["answers"]
    assert abs(people["value"] - 120) <= 1
    assert abs(years["value"] - sum(PEOPLE["age"])) < 100
    assert abs(mean["value"] - np.mean(PEOPLE["age"])) < 2
    assert abs(median["value"] - np.median(PEOPLE["age"])) < 3
    assert [band["band"] for band in bands["bands"]] == ["below 30", "30 to 50", "50 and above"]
    assert all(abs(b["value"] - n) <= 1 for b, n in zip(bands["bands"], [20, 40, 60], strict=True))
    assert [group["group"] for group in regions["groups"]] == ["north", "south"]


def test_a_mean_of_few_says_that_it_knows_nothing() -> None:
    found = [run(table(age=[41]), asked(MEAN, epsilon="0.01"))["answers"][0] for _ in range(10)]
    assert all(0 <= answer["value"] <= 100 for answer in found)
    assert max(answer["within"] for answer in found) == 100  # each says so but for a chance of 0.0125


# --- charges ------------------------------------------------------------------------------------------------------------


def test_what_is_charged_is_what_is_spent() -> None:
    parameters = asked(*ALL, epsilon="2")
    said = charges("private-query", parameters)
    assert said is not None
    events = events_of(said["data"])
    assert len(events) == len(ALL)
    assert sum(Fraction(e.epsilon) for e in events) <= 2
    assert float(spent(events, "0")) == pytest.approx(2, abs=1e-6)
    answers = run(table(), parameters)
    assert [a["epsilon"] for a in answers["answers"]] == [e.epsilon for e in events]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 1000), min_size=1, max_size=20), st.integers(1, 40))
def test_shares_are_never_more_than_the_whole(shares: list[int], epsilon: int) -> None:
    queries = [{**COUNT, "name": f"q{n}", "share": share} for n, share in enumerate(shares)]
    try:
        found = read(asked(*queries, epsilon=str(epsilon)))
    except BadParameters:
        return
    assert found.epsilon <= epsilon


# --- what leaves ----------------------------------------------------------------------------------------------------------


def test_answers_of_every_kind_leave_through_one_schema() -> None:
    """What no schema can say could be agreed to, charged, and never delivered."""
    unit = {"column": "person", "rows": 3}
    found = run(table(), asked(*ALL, {**MEAN, "by": BY, "name": "ages"}, unit=unit))
    assert found["unit"] == unit
    assert [a["ask"] for a in found["answers"]] == [q["ask"] for q in [*ALL, MEAN]]
    assert all("within" in str(answer) for answer in found["answers"])


def test_a_figure_that_no_number_in_json_can_be_is_put_within_what_can() -> None:
    big = {**SUM, "lower": "0", "upper": "999999999999"}
    (found,) = run(table(age=[1e12] * 3), asked(big, epsilon="0.000000001"))["answers"]
    assert abs(found["value"]) <= private_query.MAX_FIGURE
    assert found["within"] == private_query.MAX_FIGURE


def test_an_answer_of_other_words_than_were_agreed_does_not_leave() -> None:
    said = schema_of(private_query.schemas(asked({**COUNT, "by": BY}))["answers"])
    other = run(table(), asked({**COUNT, "by": {**BY, "categories": ["north", "west"]}}))
    other["answers"] = {"people": other["answers"][0]}
    with pytest.raises(OutputRefused):
        enforce("values", OutputRule(ANY_PARTY, 1 << 20, 1, 15, schema=said), json.dumps(other).encode())


# --- refusals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parameters",
    [
        asked(),
        asked({**COUNT, "share": 0}),
        asked({**COUNT, "share": True}),
        asked({**COUNT, "within": "5"}),
        asked({"ask": "count", "name": "x"}),
        asked({**COUNT, "ask": "median"}),
        asked({**COUNT, "name": "X"}),
        asked(COUNT, COUNT),
        asked({**COUNT, "noise": "0.1"}),
        asked(COUNT, epsilon=None),
        asked(COUNT, epsilon="0"),
        asked(COUNT, epsilon="51"),
        asked(COUNT, epsilon="0.0000000001"),
        asked(COUNT, epsilon="1e3"),
        asked({"ask": "count", "name": "x", "within": "5"}, epsilon="1"),
        asked({"ask": "count", "name": "x", "within": "0.5"}, epsilon=None),
        asked({**MEAN, "share": ..., "within": "1"}, epsilon=None),
        asked({**SUM, "lower": "100"}),
        asked({**SUM, "lower": "999999999999.1", "upper": "999999999999.2"}),
        asked({**SUM, "lower": 0}),
        asked({**SUM, "column": ""}),
        asked({**BANDS, "edges": ["5", "5"]}),
        asked({**BANDS, "edges": []}),
        asked({**BANDS, "by": BY}),
        asked({**MEDIAN, "at": "1.1"}),
        asked({**MEDIAN, "at": "0.0001"}),
        asked({**COUNT, "by": {**BY, "categories": ["north", "north"]}}),
        asked({**COUNT, "by": {**BY, "categories": []}}),
        asked(COUNT, unit={"column": "person", "rows": 0}),
        asked(COUNT, unit={"column": "person"}),
        asked("count"),
        {"queries": [COUNT]},
        {"epsilon": "1", "queries": COUNT, "unit": None},
    ],
)
def test_parameters_that_no_run_could_use_are_refused(parameters: Any) -> None:
    for query in parameters.get("queries", []):
        if isinstance(query, dict) and query.get("share") is ...:
            del query["share"]
    with pytest.raises(BadParameters, match="private-query"):
        private_query.check(parameters)


def test_there_is_no_log_beside_the_answers() -> None:
    assert set(private_query.OUTPUTS) == {"answers"}


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (table(name=["x"]), TableColumns),
        (text(b"age,age\n1,2\n"), TableColumns),
        (text(b""), TableUnreadable),
        (Input("text/plain", 3, lambda: io.BytesIO(b"abc")), TableUnreadable),
        (Input(tables.PARQUET[0], 3, lambda: io.BytesIO(b"abc")), TableUnreadable),
        (table(age=[[1], [2]]), TableNotNumeric),
    ],
)
def test_a_table_of_another_form_is_refused(source: Input, error: type[StrongroomError]) -> None:
    with pytest.raises(error):
        run(source, asked(SUM))


def test_only_the_columns_that_are_asked_about_are_read() -> None:
    big = {**PEOPLE, "secret": [f"{n}" * 2000 for n in range(120)]}
    data = io.BytesIO()
    pa.parquet.write_table(pa.table(big), data, compression="none", use_dictionary=False)
    read_bytes = 0

    class Counting(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            nonlocal read_bytes
            found = super().read(size)
            read_bytes += len(found)
            return found

    source = Input(tables.PARQUET[0], len(data.getvalue()), lambda: Counting(data.getvalue()))
    run(source, asked(SUM))
    assert 0 < read_bytes < len(data.getvalue()) / 4


def test_a_count_alone_needs_no_column() -> None:
    for kind in ("parquet", "arrow", "csv"):
        (found,) = run(table(kind), asked(COUNT, epsilon="50"))["answers"]
        assert abs(found["value"] - 120) <= 1


def test_it_answers_from_inside_a_sandbox() -> None:
    from strongroom.enclave.run import OpenInput
    from strongroom.enclave.sandbox import prepare
    from strongroom.enclave.sandbox_job import Limits

    source = table()
    with prepare("private-query", "process", outputs=("answers",)) as room:
        opened = OpenInput(source.media_type, source.size, source.open())
        outputs = {"answers": OutputSpec("values", 1 << 20, 1, 15)}
        written = room.run(asked(COUNT, epsilon="50"), {"data": opened}, outputs, Limits(60, 1 << 30, 1 << 20))
    (found,) = json.loads(written["answers"])["answers"].values()
    assert abs(found["value"] - 120) <= 1
