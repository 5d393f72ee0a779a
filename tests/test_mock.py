"""Mocks: made from what is revealed and from nothing else, of every type, and held against the table that they stand for."""

from __future__ import annotations

import ast
import csv
import inspect
import io
import json
import math
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.app.client.mock import making
from strongroom.app.client.mock.fitting import (
    claims,
    require_agreed,
    require_described,
    require_form,
    require_likeness,
    require_told_early,
    require_true,
    shared_rows,
)
from strongroom.app.client.mock.making import Dice, make
from strongroom.app.client.mock.notation import kind_of, spelled
from strongroom.app.client.mock.pattern import MAX_TEXT, Pattern
from strongroom.app.client.mock.report import report
from strongroom.app.client.mock.reveal import FORMAT, ROWS, Column, Reveal
from strongroom.app.client.mock.rewriting import offered_schema, rewrite
from strongroom.app.client.mock.suggesting import outward, suggest
from strongroom.app.client.mock.survey import survey
from strongroom.app.client.mock.tabular import ARROW, CSV, JSON_LINES, PARQUET, SUFFIXES, Tabular, written
from strongroom.errors import BadField, EmptyFile, MockMisfit, MockReveals, NotATable, NotFound, StrongroomError, TooLarge

PLAIN = [
    pa.null(), pa.bool_(), pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64(),
    pa.float16(), pa.float32(), pa.float64(), pa.string(), pa.large_string(), pa.binary(), pa.large_binary(), pa.binary(4),
    pa.date32(), pa.date64(), pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns"),
    pa.timestamp("s"), pa.timestamp("ms"), pa.timestamp("us"), pa.timestamp("ns"), pa.timestamp("us", "Europe/Amsterdam"),
    pa.timestamp("ns", "+01:30"), pa.duration("s"), pa.duration("ns"), pa.month_day_nano_interval(),
    pa.decimal32(5, 2), pa.decimal64(1, 0), pa.decimal128(10, 2), pa.decimal128(38, 38), pa.decimal256(40, -2),
]  # fmt: skip
NESTED = [
    pa.list_(pa.string()), pa.large_list(pa.int8()), pa.list_(pa.float32(), 3), pa.map_(pa.string(), pa.int64()),
    pa.dictionary(pa.int32(), pa.string()), pa.dictionary(pa.int8(), pa.int64()), pa.struct([]),
    pa.struct([pa.field("a", pa.int64(), nullable=False), pa.field("b", pa.list_(pa.struct([("c", pa.date32())])))]),
]  # fmt: skip
CSV_KINDS = [
    pa.null(), pa.bool_(), pa.int64(), pa.float64(), pa.string(), pa.date32(), pa.time32("s"), pa.timestamp("s"),
    pa.timestamp("ns", "UTC"),
]  # fmt: skip
JSON_KINDS = [
    pa.bool_(), pa.int64(), pa.float64(), pa.string(), pa.timestamp("s"), pa.list_(pa.int64()),
    pa.struct([("a", pa.int64()), ("b", pa.list_(pa.string()))]),
]  # fmt: skip
BAD_PARQUET = {pa.month_day_nano_interval(), pa.decimal256(40, -2), pa.struct([])}


def one(kind: pa.DataType, **said: object) -> Reveal:
    return Reveal((Column("x", kind, **said),))  # type: ignore[arg-type]


def values(kind: pa.DataType, rows: int = ROWS, **said: object) -> list[object]:
    return make(Reveal((Column("x", kind, **said),), rows=rows), 0)["x"].to_pylist()  # type: ignore[arg-type]


def table_at(path: Path, table: pa.Table) -> Tabular:
    path.write_bytes(written(table, SUFFIXES[path.suffix]))
    return Tabular(path)


PEOPLE = pa.table(
    {
        "age": pa.array([31, 45, 52, None] * 10, pa.int16()),
        "region": (["north"] * 18 + ["south"] * 20 + ["atoll"] * 2),
        "person": [f"NL{number:06d}" for number in range(40)],
        "born": pa.array([date(1970 + number, 3, 4) for number in range(40)]),
        "income": [1234.5 + number for number in range(40)],
    }
)


# --- types ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*PLAIN, *NESTED], ids=str)
def test_a_type_is_spelled_and_read_again(kind):
    said = spelled(kind)
    assert json.loads(json.dumps(said)) == said
    assert kind_of(said) == kind


@pytest.mark.parametrize(
    "value",
    [
        "int65", "timestamp[us, tz=]", "timestamp[us, tz=a b]", "decimal128(99, 2)", "decimal128(0, 0)", "", 7, None, [], {},
        {"list": "int64", "more": 1}, {"map": ["string"]}, {"struct": [{"name": "a", "type": "int64"}]},
        {"struct": [{"name": "a", "null": True, "type": "int64"}] * 2}, {"fixed_size_list": "int8", "size": -1},
        {"dictionary": "string", "index": "string", "ordered": False},
        {"dictionary": {"list": "string"}, "index": "int8", "ordered": False},
    ],
)  # fmt: skip
def test_what_is_no_type_is_refused(value):
    with pytest.raises(BadField):
        kind_of(value)


def test_a_type_nested_without_end_is_refused():
    value: object = "int8"
    for _ in range(20):
        value = {"list": value}
    with pytest.raises(BadField, match="deeper"):
        kind_of(value)


@pytest.mark.parametrize("kind", [pa.sparse_union([pa.field("a", pa.int8())]), pa.string_view()], ids=str)
def test_types_of_which_no_mock_can_be_made_are_named(kind):
    with pytest.raises(BadField, match="no mock"):
        spelled(kind)


# --- patterns ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shortest", "longest"),
    [
        ("[A-Z]{2}[0-9]{6}", "AA000000", "ZZ999999"),
        (r"\d{4}-x?", "0000-", "9999-x"),
        (r"a{0,3}\.[_.-]", ".-", "aaa._"),
    ],
)
def test_a_pattern_makes_texts_that_it_matches(text, shortest, longest):
    import re

    pattern = Pattern.parse(text)
    assert (pattern.shortest, pattern.longest) == (shortest, longest)
    dice = Dice(1)
    for _ in range(50):
        assert re.fullmatch(text, pattern.make(dice.below), re.ASCII)


@pytest.mark.parametrize(
    "text",
    ["", "(a|b)", "a*", "a+", ".", "^a$", "[z-a]", "[", "[]", "[^a]", "a{3", "a{3,1}", "{2}", "?", "\\", "\\w", "a{1001}",
     "a\n", "x" * 257, "[a-z]{500}[a-z]{501}", "[é-ü]", "a{,3}"],
)  # fmt: skip
def test_what_is_no_pattern_is_refused(text):
    with pytest.raises(BadField):
        Pattern.parse(text)


@given(st.text(alphabet="ab[]{}-\\d?01,x^", max_size=12))
def test_any_text_is_a_pattern_with_matching_bounded_texts_or_is_refused(text):
    import pyarrow.compute as pc

    try:
        pattern = Pattern.parse(text)
    except BadField:
        return
    made = [pattern.make(Dice(0).below), pattern.shortest, pattern.longest]
    assert all(len(found) <= MAX_TEXT for found in made)
    assert pc.all(pc.match_substring_regex(pa.array(made), pattern=f"\\A(?:{text})\\z")).as_py()


# --- what is revealed -------------------------------------------------------------------------------------------------


def test_names_and_types_are_all_that_is_revealed_by_default():
    schema = PEOPLE.schema.with_metadata({"pandas": '{"columns": ["secret"]}'})
    found = Reveal.of_schema(schema)
    assert found.to_json() == {
        "columns": [{"name": f.name, "type": str(f.type)} for f in PEOPLE.schema],
        "format": FORMAT,
    }
    assert not make(found, 0).schema.metadata


kinds = st.sampled_from([k for k in [*PLAIN, *NESTED] if not pa.types.is_null(k)])
columns = st.builds(Column, st.text(min_size=1, max_size=8), kinds, null=st.none() | st.booleans())
reveals = st.builds(
    Reveal,
    st.lists(columns, min_size=1, max_size=5, unique_by=lambda c: c.name).map(tuple),
    rows=st.none() | st.integers(1, 20),
)


@given(reveals)
def test_a_description_is_read_as_it_was_written(reveal):
    assert Reveal.parse(json.dumps(reveal.to_json(), indent=1).encode()) == reveal


@given(reveals, st.integers())
def test_a_mock_has_the_schema_and_the_rows_that_are_said(reveal, seed):
    found = make(reveal, seed)
    found.validate(full=True)
    assert found.schema == reveal.schema
    assert found.num_rows == (reveal.rows or ROWS)
    require_form(found.schema, reveal.schema)
    for column in reveal.columns:
        assert column.null is not False or found[column.name].null_count == 0


LITTLE = {"columns": [{"name": "x", "type": "int64"}], "format": FORMAT}


@pytest.mark.parametrize(
    "change",
    [
        {"format": "strongroom.reveal.v2"}, {"more": 1}, {"rows": 0}, {"rows": 100_001}, {"rows": "5"}, {"columns": []},
        {"withhold": ["x"]}, {"withhold": ["y", "y"]}, {"columns": [{"name": "x", "type": "int64"}] * 2},
        *({"columns": [{"name": "x", "type": "int64", **said}]} for said in (
            {"range": ["1"]}, {"range": ["2", "1"]}, {"range": ["a", "b"]}, {"range": [1, 2]}, {"range": ["1", "1.5"]},
            {"categories": []}, {"categories": ["1", "1"]}, {"categories": ["1", "01"]}, {"categories": ["x"]},
            {"others": True},
            {"range": ["1", "2"], "categories": ["1"]}, {"pattern": "[0-9]"}, {"null": "no"}, {"minimum": 1},
        )),
        {"columns": [{"name": "x", "type": "string", "range": ["a", "b"]}]},
        {"columns": [{"name": "x", "type": "string", "pattern": "(a)"}]},
        {"columns": [{"name": "x", "type": "null", "null": False}]},
        {"columns": [{"name": "x", "type": {"list": "int64"}, "range": ["1", "2"]}]},
        {"columns": [{"name": "x", "type": "int8", "range": ["0", "300"]}]},
        {"columns": [{"name": "x", "type": "int64", "of": "y"}, {"name": "y", "type": "int64"}]},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_description_is_refused(change):
    assert Reveal.from_json(LITTLE)
    with pytest.raises(BadField):
        Reveal.from_json({**LITTLE, **change})


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)
    )
)
def test_any_json_is_a_description_or_one_of_our_errors(value):
    for given_ in (value, {**LITTLE, "columns": value}, {**LITTLE, "columns": [{"name": "x", "type": value}]}):
        try:
            Reveal.parse(json.dumps(given_).encode())
        except StrongroomError:
            continue


# --- the mock is blind ------------------------------------------------------------------------------------------------


def test_two_tables_of_one_description_have_one_mock_to_the_last_byte(tmp_path):
    other = pa.table(
        {
            "age": pa.array([1, 2], pa.int16()),
            "region": ["a", "b"],
            "person": ["XX000001", None],
            "born": pa.array([date(2020, 1, 1)] * 2),
            "income": [math.pi, 0.0],
        }
    )
    mocks = []
    for place, table in enumerate((PEOPLE, other)):
        found = table_at(tmp_path / f"{place}.parquet", table)
        mocks.append(written(make(Reveal.of_schema(found.schema), 7), PARQUET))
    assert mocks[0] == mocks[1]


def test_the_maker_takes_a_description_and_a_seed_and_can_open_nothing():
    hints = inspect.signature(make).parameters
    assert {name: p.annotation for name, p in hints.items()} == {"reveal": "Reveal", "seed": "int"}
    tree = ast.parse(Path(making.__file__).read_text(encoding="utf-8"))
    imported = {
        f"{node.module}.{alias.name}" if isinstance(node, ast.ImportFrom) else alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    allowed = {"reveal.ROWS", "reveal.Column", "reveal.Reveal", "reveal.is_text", "reveal.value_kind", "hashlib", "pyarrow"}
    assert not {
        n for n in imported if n.split(".")[0] in ("survey", "tabular", "suggesting", "fitting", "pathlib", "io", "os")
    }
    assert {n for n in imported if n.startswith("reveal")} <= allowed
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert "open" not in called


def test_names_in_the_owners_table_and_what_is_withheld_do_not_reach_the_mock():
    plain = Reveal((Column("id", pa.string()),))
    renamed = Reveal((Column("id", pa.string(), of="bsn"),), withhold=("surname",))
    assert written(make(plain, 0), PARQUET) == written(make(renamed, 0), PARQUET)
    table = pa.schema([("bsn", pa.string()), ("surname", pa.string())])
    assert renamed.changes(table)
    assert not plain.changes(plain.schema)
    assert plain.changes(table)


def test_a_seed_makes_a_mock_and_another_seed_another():
    reveal = Reveal.of_schema(PEOPLE.schema)
    assert make(reveal, 1).equals(make(reveal, 1))
    assert not make(reveal, 1).equals(make(reveal, 2))


def test_the_made_up_values_stay_what_they_are():
    """The same description and seed are the same mock in years to come."""
    found = make(Reveal((Column("a", pa.int64()), Column("b", pa.string())), rows=5), 0).to_pylist()
    assert found == [
        {"a": 1000000, "b": ""},
        {"a": None, "b": "é"},
        {"a": 0, "b": None},
        {"a": 82, "b": "fipolame"},
        {"a": -1, "b": 'a, "b"'},
    ]


# --- values at which programs break -----------------------------------------------------------------------------------


def test_edges_are_there_on_purpose():
    assert {0, -1, 10**6, None} <= set(values(pa.int64()))
    assert {0, 127, -1} <= set(values(pa.int8()))
    assert {0, 255} <= set(values(pa.uint8()))
    assert {"", "é", 'a, "b"', None} <= set(values(pa.string()))
    assert {0.0, -1.5, None} <= set(values(pa.float64()))
    assert {date(1970, 1, 1), date(2000, 2, 29)} <= set(values(pa.date32()))
    assert datetime(2000, 2, 29, tzinfo=UTC) in values(pa.timestamp("us", "UTC"))
    assert {True, False, None} == set(values(pa.bool_()))
    assert {Decimal("0.00"), Decimal("-0.01")} <= set(values(pa.decimal128(10, 2)))
    assert [] in values(pa.list_(pa.int8()))
    assert None in values(pa.struct([("a", pa.int8())]))


def test_what_may_not_be_null_never_is():
    for kind in (
        pa.int64(),
        pa.string(),
        pa.list_(pa.int8()),
        pa.struct([("a", pa.int8())]),
        pa.dictionary(pa.int8(), pa.string()),
    ):
        assert None not in values(kind, null=False)


def test_a_range_is_met_at_its_ends_and_never_left():
    found = values(pa.int16(), range=("-5", "90"), null=False)
    assert (min(found), max(found)) == (-5, 90)
    assert 0 in found
    found = values(pa.float32(), range=("0.1", "0.7"), null=False)
    assert min(found) == pytest.approx(0.1)
    assert max(found) == pytest.approx(0.7)
    found = values(pa.date32(), range=("2020-02-01", "2020-02-29"), null=False)
    assert (min(found), max(found)) == (date(2020, 2, 1), date(2020, 2, 29))
    found = values(pa.decimal128(5, 2), range=("-1.50", "9.99"), null=False)
    assert (min(found), max(found)) == (Decimal("-1.50"), Decimal("9.99"))
    assert set(values(pa.bool_(), range=("false", "true"), null=False)) == {True, False}
    assert values(pa.int64(), range=("7", "7"), null=False) == [7] * ROWS
    low, high = values(pa.float64(), rows=2, range=("-1e308", "1e308"), null=False)
    assert math.isfinite(low - high / 2)


def test_each_category_is_there_and_the_last_only_once():
    found = values(pa.string(), categories=("a", "b", "c"), null=False)
    assert set(found) == {"a", "b", "c"}
    assert found.count("c") == 1


@pytest.mark.parametrize(
    ("kind", "known"),
    [
        (pa.string(), ("another value", "b")),
        (pa.int8(), ("0", "1")),
        (pa.date32(), ("1970-01-01",)),
        (pa.bool_(), ("true",)),
        (pa.decimal128(5, 1), ("1.5",)),
        (pa.float64(), ("0.5",)),
        (pa.dictionary(pa.int8(), pa.string()), ("a",)),
    ],
    ids=str,
)
def test_where_there_are_others_one_is_made_up(kind, known):
    column = Column("x", kind, categories=known, others=True)
    found = set(values(kind, categories=known, others=True, null=False))
    assert len(found) == len(known) + 1
    assert set(column.values().to_pylist()) < found


def test_a_pattern_is_kept_to():
    import re

    found = values(pa.string(), pattern=Pattern.parse(r"[A-Z]{2}\d{0,3}"), null=False)
    assert {"AA", "ZZ999"} <= set(found)
    assert all(re.fullmatch(r"[A-Z]{2}\d{0,3}", text) for text in found)


def test_a_dictionary_without_room_is_refused():
    with pytest.raises(BadField, match="room"):
        values(pa.dictionary(pa.int8(), pa.string()), rows=1000, categories=tuple(map(str, range(200))))


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*PLAIN, *NESTED], ids=str)
@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".arrows", ".feather"])
def test_a_mock_is_read_back_with_its_types(kind, suffix, tmp_path):
    reveal = one(kind)
    if suffix == ".parquet" and kind in BAD_PARQUET:
        with pytest.raises(NotATable, match="cannot be written"):
            written(make(reveal, 0), PARQUET)
        return
    path = tmp_path / f"x{suffix}"
    path.write_bytes(written(make(reveal, 0), SUFFIXES[suffix]))
    schema = Tabular(path).schema
    again = tmp_path / f"y{suffix}"  # a format may widen a type once, and not a second time
    again.write_bytes(written(make(Reveal.of_schema(schema), 0), SUFFIXES[suffix]))
    require_form(Tabular(again).schema, schema)


@pytest.mark.parametrize(
    ("kind", "suffix"), [*((k, ".csv") for k in CSV_KINDS), *((k, ".jsonl") for k in JSON_KINDS)], ids=str
)
def test_types_that_a_format_does_not_say_are_found_in_the_mock_again(kind, suffix, tmp_path):
    reveal = Reveal((Column("x", kind), Column("y", pa.int64(), null=False)))
    path = tmp_path / f"x{suffix}"
    path.write_bytes(written(make(reveal, 0), SUFFIXES[suffix]))
    require_form(Tabular(path).schema, reveal.schema)
    require_told_early(Tabular(path))
    assert Tabular(path).read().num_rows == ROWS


def test_a_type_of_csv_is_found_in_every_row_and_not_in_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr("strongroom.app.client.mock.tabular.BLOCK_BYTES", 256)
    path = tmp_path / "x.csv"
    path.write_text("a,b,c,d,e\n" + "1,1,true,2020-01-01,\n" * 200 + "2.5,x,false,2020-01-01 10:00:00,\n")
    table = Tabular(path)
    assert [str(f.type) for f in table.schema] == ["double", "string", "bool", "timestamp[s]", "null"]
    assert sum(batch.num_rows for batch in table.batches()) == 201


def test_csv_whose_types_change_after_its_beginning_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("strongroom.app.client.mock.tabular.FIRST_BYTES", 256)
    path = tmp_path / "x.csv"
    path.write_text("a,b,secret\n" + "1,1,0\n" * 200 + "2.5,1,CANARY\n")
    with pytest.raises(MockMisfit, match="columns 'a', 'secret' of") as caught:
        require_told_early(Tabular(path))
    assert "CANARY" not in caught.value.message
    assert "Parquet" in caught.value.hint


def test_a_type_of_json_lines_is_found_in_every_row(tmp_path, monkeypatch):
    monkeypatch.setattr("strongroom.app.client.mock.tabular.BLOCK_BYTES", 256)
    path = tmp_path / "x.jsonl"
    rows = [{"a": 1, "b": "2020-01-01", "c": None}] * 60 + [{"a": 2.5, "b": "no date", "c": [1], "d": True}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = Tabular(path)
    assert [str(f.type) for f in table.schema] == ["double", "string", "list<item: int64>", "bool"]
    assert table.read()["b"].to_pylist()[-1] == "no date"


@pytest.mark.parametrize(
    ("name", "data", "error"),
    [
        ("x.parquet", b"", EmptyFile),
        ("x.parquet", b"PAR1 and no more", NotATable),
        ("x.arrow", b"ARROW1", NotATable),
        ("x.arrows", b"\xff\xff\xff\xff", NotATable),
        ("x.csv", b"a,a\n1,2\n", NotATable),
        ("x.csv", b"a,b\n1,2,3\n", NotATable),
        ("x.csv", b"a\n\xff\xfe\n", NotATable),
        ("x.jsonl", b"[1, 2]\n", NotATable),
        ("x.jsonl", b'{"a": 1}\n{"a": "x"\n', NotATable),
        ("x.jsonl", b'{"a": 1}\n{"a": {"b": 2}}\n', NotATable),
        ("x.jsonl", b'{"a": 1, "a": 2}\n', NotATable),
        ("x.jsonl", b"\n\n", NotATable),
        ("x.xlsx", b"PK", NotATable),
        ("x.pickle", b"\x80\x04", NotATable),
    ],
)
def test_what_is_no_table_is_one_line_without_its_contents(name, data, error, tmp_path):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(error) as caught:
        Tabular(path)
    assert "\n" not in caught.value.message


def test_a_table_that_is_not_there(tmp_path):
    with pytest.raises(NotFound):
        Tabular(tmp_path / "x.csv")


def test_a_mock_that_swells_is_not_read_whole(tmp_path):
    table = table_at(tmp_path / "x.parquet", pa.table({"x": pa.array(["a" * 1000] * 20_000)}))
    assert (tmp_path / "x.parquet").stat().st_size < 100_000
    with pytest.raises(TooLarge):
        table.read(max_bytes=1 << 20)


# --- what is sealed without what is withheld --------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".arrows", ".csv", ".jsonl"])
def test_what_is_withheld_is_not_in_what_is_sealed(suffix, tmp_path):
    table = table_at(tmp_path / f"x{suffix}", PEOPLE.replace_schema_metadata({"pandas": "born"}))
    reveal = Reveal.of_schema(table.schema).but(withhold=["born", "region"], rename={"person": "id"})
    target = tmp_path / f"y{suffix}"
    with target.open("wb") as sink:
        rewrite(table, reveal, sink)
    found = Tabular(target)
    require_form(found.schema, offered_schema(table.schema, reveal))
    assert found.schema.names == ["age", "id", "income"]
    kept = table.read().select(["age", "person", "income"]).rename_columns(["age", "id", "income"])
    assert found.read().to_pylist() == kept.to_pylist()
    assert b"born" not in target.read_bytes()
    assert b"north" not in target.read_bytes()


def test_cells_of_csv_pass_as_they_stand(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text('\ufeffa,b,c\n1.50,"x, ""y""",\n,NA,007\n', encoding="utf-8")
    sink = io.BytesIO()
    rewrite(Tabular(path), Reveal.of_schema(Tabular(path).schema).but(rename={"c": "d"}), sink)
    assert sink.getvalue().decode() == 'a,b,d\n1.50,"x, ""y""",\n,NA,007\n'


def test_a_column_that_is_not_there_is_not_withheld_in_silence():
    with pytest.raises(BadField, match="surnam"):
        Reveal.of_schema(PEOPLE.schema).but(withhold=["surnam"])
    with pytest.raises(BadField, match="withheld"):
        Reveal.of_schema(PEOPLE.schema).but(withhold=PEOPLE.schema.names)


# --- suggestions ------------------------------------------------------------------------------------------------------


@pytest.fixture
def people(tmp_path) -> Tabular:
    return table_at(tmp_path / "people.parquet", PEOPLE)


def test_a_suggestion_is_true_of_the_table_and_can_be_offered(people):
    found = suggest(people.schema, survey(people)).reveal
    require_described(found, people.schema)
    require_true(found, survey(people, found))
    said = {c.name: c for c in found.columns}
    assert (said["age"].null, said["age"].categories) == (True, ("31", "45", "52"))
    assert (said["region"].categories, said["region"].others) == (("north", "south"), True)
    assert said["person"].pattern.text == "[A-Z]{2}[0-9]{6}"
    assert said["born"].range == ("1969-12-31", "2010-01-01")
    assert found.rows is None


def test_rare_categories_are_named_as_risky_and_left_out(people):
    found = suggest(people.schema, survey(people))
    (risky,) = [f for f in found.findings if f.column == "region" and f.risky]
    assert "'atoll' (2 records)" in risky.text
    assert b"atoll" not in json.dumps(found.reveal.to_json()).encode()
    few = suggest(people.schema, survey(people), few=2)
    assert not [f for f in few.findings if f.column == "region" and f.risky]


def test_extremes_are_marked_as_single_records_values_and_rounded_outward(people):
    found = suggest(people.schema, survey(people))
    (risky,) = [f for f in found.findings if f.column == "income" and f.risky]
    assert risky.item == "range"
    assert "single records' values" in risky.text
    low, high = next(c.range for c in found.reveal.columns if c.name == "income")
    assert float(low) < 1234.5
    assert float(high) > 1273.5


@given(st.integers(-(10**12), 10**12), st.integers(-(10**12), 10**12))
def test_a_rounded_range_holds_the_table_and_its_ends_are_no_records_values(one_, other):
    low, high = sorted((one_, other))
    below, above = outward(low, high)
    assert below <= low <= high <= above
    assert below < low or low == 0
    assert above > high or high == 0


@given(st.floats(-1e300, 1e300), st.floats(-1e300, 1e300))
def test_a_rounded_range_of_floats_holds_the_table(one_, other):
    low, high = sorted((one_, other))
    below, above = outward(low, high)
    assert below <= low <= high <= above


def test_names_get_neither_categories_nor_a_pattern(tmp_path):
    names = ["Ann", "Bob", "Carlota", "Dé"] * 2 + [f"Eve{'x' * n}" for n in range(30)]
    table = table_at(tmp_path / "x.parquet", pa.table({"name": names, "one": ["é1"] * 38}))
    found = suggest(table.schema, survey(table)).reveal
    assert (found.columns[0].categories, found.columns[0].pattern) == (None, None)


@pytest.mark.parametrize("kind", [*PLAIN, *NESTED], ids=str)
def test_every_type_can_be_looked_at(kind, tmp_path):
    table = table_at(tmp_path / "x.arrow", make(one(kind), 0))
    found = suggest(table.schema, survey(table)).reveal
    require_true(found, survey(table, found))
    assert make(found, 0).num_rows == ROWS


def test_an_empty_table_can_be_looked_at(tmp_path):
    table = table_at(tmp_path / "x.parquet", PEOPLE.slice(0, 0))
    found = suggest(table.schema, survey(table)).reveal
    require_true(found, survey(table, found))


# --- does it fit ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ([("a", pa.int64())], "lacks column 'b'"),
        ([("a", pa.int64()), ("b", pa.string()), ("c", pa.int8())], "has column 'c'"),
        ([("b", pa.string()), ("a", pa.int64())], "another order"),
        ([("a", pa.int32()), ("b", pa.string())], "'a' is int32 where the table has int64"),
        ([("a", pa.int64()), ("b", pa.list_(pa.string()))], "'b' is list"),
    ],
)
def test_a_mock_that_does_not_fit_is_one_clear_line(schema, why):
    with pytest.raises(MockMisfit, match=why) as caught:
        require_form(pa.schema(schema), pa.schema([("a", pa.int64()), ("b", pa.string())]))
    assert "\n" not in caught.value.message


def test_a_great_misfit_is_still_one_line():
    names = [f"column{n}" for n in range(500)]
    with pytest.raises(MockMisfit) as caught:
        require_form(pa.schema([(n, pa.int8()) for n in names]), pa.schema([(n, pa.int64()) for n in names]))
    assert len(caught.value.message) < 600
    assert "495 more" in caught.value.message


@pytest.mark.parametrize(
    ("name", "said", "why"),
    [
        ("age", {"null": False}, "never to be null"),
        ("age", {"range": ("0", "50")}, "outside of its range"),
        ("region", {"categories": ("north", "south")}, "beside its categories"),
        ("income", {"categories": ("1234.5",)}, "beside its categories"),
        ("person", {"pattern": Pattern.parse("NL[0-9]{5}")}, "another shape"),
        ("person", {"pattern": Pattern.parse("[A-Z]{2}[0-9]{5}[1-9]")}, "another shape"),
    ],
)
def test_what_is_said_and_is_not_so_is_refused_without_a_value(people, name, said, why):
    kind = people.schema.field(name).type
    found = Reveal(tuple(Column(f.name, f.type, **(said if f.name == name else {})) for f in people.schema))
    assert claims(found, people.schema)
    with pytest.raises(MockMisfit, match=why) as caught:
        require_true(found, survey(people, found))
    assert kind is not None
    for value in ("atoll", "NL0000", "1234", "52"):
        assert value not in caught.value.message


def test_a_description_of_another_table_is_refused(people):
    reveal = Reveal.of_schema(people.schema)
    with pytest.raises(MockMisfit, match="says nothing of column 'income'"):
        require_described(Reveal(reveal.columns[:-1]), people.schema)
    with pytest.raises(MockMisfit, match="no column 'gone'"):
        require_described(Reveal((*reveal.columns, Column("gone", pa.int8()))), people.schema)
    with pytest.raises(MockMisfit, match="is int16 and is said to be int64"):
        require_described(Reveal((Column("age", pa.int64()), *reveal.columns[1:])), people.schema)
    require_described(Reveal(reveal.columns[:-1], withhold=("income",)), people.schema)


# --- an owner's own mock ----------------------------------------------------------------------------------------------


def test_an_own_mock_that_shows_more_than_was_agreed_is_refused():
    reveal = Reveal((Column("age", pa.int64(), range=("0", "100")), Column("region", pa.string(), categories=("north",))))
    require_agreed(pa.table({"age": [1, None], "region": ["north", None]}), reveal)
    for row, why in (({"age": [101], "region": ["north"]}, "outside"), ({"age": [1], "region": ["atoll"]}, "beside")):
        with pytest.raises(MockReveals, match=why) as caught:
            require_agreed(pa.table(row), reveal)
        assert "atoll" not in caught.value.message


def test_an_own_mock_that_leads_astray_is_refused(tmp_path):
    schema = pa.schema([pa.field("a", pa.int8(), nullable=False), pa.field("b", pa.dictionary(pa.int8(), pa.string()))])
    data = pa.table({"a": pa.array([1, 2], pa.int8()), "b": pa.array(["x", "y"]).dictionary_encode()}).cast(schema)
    table = table_at(tmp_path / "x.parquet", data)
    reveal, seen = Reveal.of_schema(table.schema), survey(table)
    require_likeness(data, table.schema, seen, reveal)
    odd = pa.table({"a": pa.array([1, None], pa.int8()), "b": pa.array(["x", "CANARY"]).dictionary_encode()})
    with pytest.raises(MockMisfit, match=r"'a' holds nulls.*'b' holds categories") as caught:
        require_likeness(odd, table.schema, seen, reveal)
    assert "CANARY" not in caught.value.message


def test_values_that_python_cannot_hold_are_one_line(tmp_path):
    table = table_at(tmp_path / "x.parquet", pa.table({"day": pa.array([10**7], pa.int32()).cast(pa.date32())}))
    reveal = Reveal.of_schema(table.schema)
    for ask in (lambda: survey(table), lambda: shared_rows(table.read(), table, reveal)):
        with pytest.raises(NotATable, match="9999"):
            ask()


def test_a_table_without_a_row_can_be_read(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("a,b\n")
    require_told_early(Tabular(path))
    assert Tabular(path).read().num_rows == 0
    assert [str(f.type) for f in Tabular(path).schema] == ["null", "null"]


def test_rows_of_the_table_are_found_in_an_own_mock(people):
    reveal = Reveal.of_schema(people.schema)
    made = make(reveal, 0)
    assert shared_rows(made, people, reveal) == 0
    copied = pa.concat_tables([made, PEOPLE.slice(3, 2).cast(made.schema)])
    assert shared_rows(copied, people, reveal) == 2


def test_rows_are_found_under_other_names_and_in_dictionaries_and_lists(tmp_path):
    table = pa.table({"a": pa.array(["x", None, "y"]).dictionary_encode(), "b": [[1], [2, 3], None]})
    source = table_at(tmp_path / "x.parquet", table)
    reveal = Reveal.of_schema(source.schema).but(rename={"a": "c"})
    assert shared_rows(table.rename_columns(["c", "b"]).slice(1), source, reveal) == 2
    floats = table_at(tmp_path / "y.parquet", pa.table({"a": [0.5, math.nan]}))
    assert shared_rows(pa.table({"a": [math.nan]}), floats, Reveal.of_schema(floats.schema)) == 1


# --- the report -------------------------------------------------------------------------------------------------------


def test_the_report_says_what_is_revealed_and_asks_about_names_once(people):
    found = report(suggest(people.schema, survey(people)).reveal.but(withhold=["income"]), CSV)
    said = {item.column: item.text for item in found.items}
    assert "north, south" in said["region"]
    assert "atoll" not in json.dumps(found.to_json())
    assert "1969-12-31 to 2010-01-01" in said["born"]
    assert "[A-Z]{2}[0-9]{6}" in said["person"]
    assert "100 rows, as every mock has" in json.dumps(found.to_json())
    assert "its size in bytes" in json.dumps(found.to_json())
    assert "types that were found in the values" in json.dumps(found.to_json())
    assert "income" not in json.dumps(found.to_json())
    assert len(found.asks) == 1


def test_the_report_of_an_own_mock_says_that_it_stands_as_it_is(people):
    found = report(Reveal.of_schema(people.schema), ARROW, PEOPLE)
    assert "every value as it stands: 40 rows" in json.dumps(found.to_json())
    assert "every value and every row of the table" not in found.kept
    assert (
        report(Reveal.of_schema(people.schema).but(rows=7), JSON_LINES).to_json()["reveals"][-3]["text"]
        == "7 rows, as you said"
    )


@pytest.mark.parametrize("kind", CSV_KINDS)
def test_a_mock_of_one_column_of_csv_keeps_its_rows_that_are_null(kind: pa.DataType, tmp_path: Path) -> None:
    whole = make(one(kind, null=True), 0)
    assert whole["x"].null_count
    assert table_at(tmp_path / "mock.csv", whole).read().num_rows == whole.num_rows


def test_lines_within_a_cell_stay_when_rows_are_kept(tmp_path: Path) -> None:
    texts = ["a\n\nb", None, 'c"\n\n"d', "", "\n", None]
    path = tmp_path / "mock.csv"
    path.write_bytes(written(pa.table({"x": texts}), CSV))
    found = pa.csv.read_csv(path, parse_options=pa.csv.ParseOptions(newlines_in_values=True))
    assert found["x"].to_pylist() == [text or "" for text in texts]
    assert len(list(csv.reader(io.StringIO(path.read_text(), newline="")))) == len(texts) + 1
