"""Offering a table, and looking at what is offered: the whole way over an exchange, honest or not."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attacks.test_lying_exchange import lied_to, member
from stage import Rehearsal, Said, call, leaks, terms
from strongroom import wire
from strongroom.app.client.assets import Asset, Assets, Columns, Terms, forget
from strongroom.app.client.mock.making import make
from strongroom.app.client.mock.reveal import Column, Reveal
from strongroom.app.client.mock.tabular import SUFFIXES, Tabular, written
from strongroom.app.client.offer import Offering, prepared, suggested
from strongroom.app.client.room import MEDIA_TYPES, manifest_path
from strongroom.asset import sign_manifest
from strongroom.errors import (
    BadField,
    Conflict,
    EmptyPolicy,
    ManifestMismatch,
    MissingExtra,
    MockMisfit,
    MockReveals,
    NotATable,
    NotFound,
    OlderOffer,
    TooLarge,
    Usage,
)
from strongroom.policy import Policy
from strongroom.wire import Envelope
from world import keys_of

CANARY = "CANARY-SURNAME-1414213562"
PEOPLE = pa.table(
    {
        "age": pa.array([31, 45, 52, None] * 10, pa.int16()),
        "region": ["north"] * 18 + ["south"] * 20 + ["atoll"] * 2,
        "surname": [f"{CANARY}-{number}" for number in range(40)],
        "born": pa.array([date(1970 + number, 3, 4) for number in range(40)]),
    }
)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    found = tmp_path / "census.parquet"
    pq.write_table(PEOPLE, found)
    return found


@pytest.fixture
def offered(rehearsal: Rehearsal, table: Path):
    return rehearsal.hospital.offer(Offering(table), terms=terms(min_group=10))


def typed(rehearsal: Rehearsal, *words: object, party: str = "hospital") -> Said:
    return call(*words, "--home", rehearsal.home, "--as", party)


TERMS = ("--use", "evaluate", "--allow", "report", "--min-group", 10)


# --- the whole way ----------------------------------------------------------------------------------------------------


def test_an_owner_offers_and_a_researcher_sees_a_mock_of_the_same_schema(rehearsal, table, offered):
    census = rehearsal.lab.assets["census"]
    assert census.manifest == offered
    assert census.mock_arrow.schema == Tabular(table).schema
    assert list(census.mock.columns) == PEOPLE.column_names
    assert len(census.mock) == 100
    assert type(census.mock).__module__.startswith("pandas")
    assert [name for name, _ in census.schema.rows] == PEOPLE.column_names
    assert census.terms.clauses["uses of the data"] == "evaluate"
    assert census.terms.policy == offered.terms


def test_nothing_of_the_table_reaches_the_exchange_or_the_researcher(rehearsal, offered):
    assert rehearsal.lab.assets["census"].mock_path.is_file()
    secret = {"a surname": CANARY.encode()}
    assert leaks(secret, rehearsal.folder / "exchange", rehearsal.lab.home.folder) == []


def test_what_is_sealed_is_the_table_to_the_last_byte(rehearsal, table, offered):
    sealed = table.with_name("census.parquet.sealed")
    with rehearsal.hospital.open(sealed, Envelope.parse(manifest_path(sealed).read_bytes())) as reader:
        assert reader.read() == table.read_bytes()
    assert not list(table.parent.glob(".offer-*"))


def test_what_is_withheld_is_neither_in_the_mock_nor_in_what_is_sealed(rehearsal, table):
    rehearsal.hospital.offer(Offering(table, withhold=("surname",), rename={"born": "birth"}), terms=terms(), name="people")
    sealed = table.with_name("census.parquet.sealed")
    with rehearsal.hospital.open(sealed, Envelope.parse(manifest_path(sealed).read_bytes())) as reader:
        data = reader.read()
    found = pq.read_table(pa.BufferReader(data))
    assert found.column_names == ["age", "region", "birth"] == rehearsal.lab.assets["people"].mock_arrow.column_names
    assert found["age"].to_pylist() == PEOPLE["age"].to_pylist()
    assert b"surname" not in data
    assert CANARY.encode() not in data
    assert not list(table.parent.glob(".offer-*"))


def test_columns_that_are_moved_in_the_description_are_moved_in_what_is_sealed(rehearsal, table):
    reveal = Reveal(Reveal.of_schema(PEOPLE.schema).columns[::-1])
    rehearsal.hospital.offer(Offering(table, reveal=reveal), terms=terms())
    sealed = table.with_name("census.parquet.sealed")
    with rehearsal.hospital.open(sealed, Envelope.parse(manifest_path(sealed).read_bytes())) as reader:
        found = pq.read_table(pa.BufferReader(reader.read()))
    assert found.column_names == PEOPLE.column_names[::-1] == rehearsal.lab.assets["census"].mock_arrow.column_names


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_every_kind_of_table_can_be_offered(rehearsal, tmp_path, suffix):
    path = tmp_path / f"census{suffix}"
    path.write_bytes(written(PEOPLE, SUFFIXES[suffix]))
    manifest = rehearsal.hospital.offer(Offering(path), terms=terms())
    assert manifest.media_type == manifest.mock.media_type == MEDIA_TYPES[suffix] == SUFFIXES[suffix]
    census = rehearsal.lab.assets["hospital/census"]
    assert census.mock_arrow.schema.equals(Tabular(path).schema)
    assert len(census.mock) == 100


def test_two_tables_of_one_schema_are_offered_with_one_mock(rehearsal, table, tmp_path, offered):
    other = tmp_path / "other.parquet"
    pq.write_table(PEOPLE.slice(7, 1), other)
    assert rehearsal.hospital.offer(Offering(other), terms=terms()).mock == offered.mock


def test_terms_that_allow_nothing_are_refused_before_anything_is_sealed(rehearsal, table):
    with pytest.raises(EmptyPolicy):
        rehearsal.hospital.offer(Offering(table), terms=Policy())
    assert not table.with_name("census.parquet.sealed").exists()


# --- what does not fit ------------------------------------------------------------------------------------------------


def refused(rehearsal: Rehearsal, offering: Offering, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match) as caught:
        rehearsal.hospital.offer(offering, terms=terms())
    assert "\n" not in str(caught.value)
    assert CANARY not in str(caught.value)
    assert not offering.table.with_name(f"{offering.table.name}.sealed").exists()
    assert len(rehearsal.lab.assets) == 0
    assert not list(offering.table.parent.glob(".offer-*"))


def own(tmp_path: Path, mock: pa.Table, name: str = "mine.parquet") -> Path:
    path = tmp_path / name
    path.write_bytes(written(mock, SUFFIXES[path.suffix]))
    return path


def test_every_cell_of_an_own_mock_is_published_as_it_stands(rehearsal, table, tmp_path):
    mock = make(Reveal.of_schema(Tabular(table).schema), 5)
    rehearsal.hospital.offer(Offering(table, mock=own(tmp_path, mock)), terms=terms())
    assert rehearsal.lab.assets["census"].mock_arrow.equals(mock)


WORDS = ["bob", CANARY, "carol"]


def worded(rows: list[str | None], words: list[str], kind: pa.DataType) -> pa.Array:
    codes = [None if row is None else words.index(row) for row in rows]
    return pa.DictionaryArray.from_arrays(
        pa.array(codes, kind.index_type), pa.array(words, kind.value_type), ordered=kind.ordered
    )


@pytest.mark.parametrize("suffix", [".arrow", ".arrows", ".parquet"])
@pytest.mark.parametrize("ordered", [False, True])
def test_names_that_stand_in_no_cell_of_an_own_mock_are_not_published(rehearsal, tmp_path, suffix, ordered):
    """As a data frame leaves them that was filtered: in a dictionary, under a null, and in metadata."""
    kind = pa.dictionary(pa.int32(), pa.string(), ordered=ordered)
    path = tmp_path / f"people{suffix}"
    path.write_bytes(written(pa.table({"who": worded(WORDS * 9, WORDS, kind), "code": range(27)}), SUFFIXES[suffix]))
    hidden = pa.array([int.from_bytes(CANARY[:8].encode(), "little"), 77, 78])
    under = pa.Array.from_buffers(pa.int64(), 3, [pa.py_buffer(b"\x06"), hidden.buffers()[1]])
    schema = pa.schema(
        [pa.field("who", kind, metadata={"b": CANARY}), pa.field("code", pa.int64())], metadata={"pandas": CANARY}
    )
    cells = worded(["carol", "bob", None], WORDS, kind)
    mock = own(tmp_path, pa.table([cells, under], schema=schema), f"mine{suffix}")
    assert CANARY.encode() in mock.read_bytes()
    rehearsal.hospital.offer(Offering(path, mock=mock), terms=terms())
    found = rehearsal.lab.assets["people"]
    assert CANARY[:8].encode() not in found.mock_path.read_bytes()
    assert found.mock_arrow["who"].to_pylist() == ["carol", "bob", None]
    assert found.mock_arrow["who"].chunk(0).dictionary.to_pylist() == ["bob", "carol"]
    assert found.mock_arrow["code"].to_pylist() == [None, 77, 78]
    assert found.mock_arrow.schema.equals(Tabular(path).schema)


@pytest.mark.parametrize("kind", [pa.string(), pa.dictionary(pa.int8(), pa.string())])
def test_an_own_mock_with_a_value_of_the_table_that_was_not_agreed_is_refused(rehearsal, tmp_path, kind):
    path = tmp_path / "people.parquet"
    pq.write_table(pa.table({"who": pa.array(WORDS * 9).cast(kind), "code": range(27)}), path)
    reveal = Reveal(
        tuple(
            replace(c, categories=("bob",), others=True) if c.name == "who" else c
            for c in Reveal.of_schema(Tabular(path).schema).columns
        )
    )
    bad = own(tmp_path, pa.table({"who": pa.array(["bob", CANARY]).cast(kind), "code": [77, 78]}))
    refused(
        rehearsal, Offering(path, reveal=reveal, mock=bad, coincide=True), MockReveals, "'who' holds a value of the table"
    )
    if kind == pa.string():
        good = own(tmp_path, pa.table({"who": ["bob", "dave"], "code": [77, 78]}))
        rehearsal.hospital.offer(Offering(path, reveal=reveal, mock=good), terms=terms())


def test_nested_cells_of_an_own_mock_are_written_anew(rehearsal, tmp_path):
    kind = pa.struct([pa.field("tags", pa.list_(pa.string()), metadata={"note": CANARY}), pa.field("n", pa.int8())])
    path = tmp_path / "nested.parquet"
    pq.write_table(pa.table({"x": pa.array([{"tags": ["a"], "n": 1}], kind)}), path)
    rows = [{"tags": ["b", None], "n": 2}, None, {"tags": None, "n": None}]
    rehearsal.hospital.offer(Offering(path, mock=own(tmp_path, pa.table({"x": pa.array(rows, kind)}))), terms=terms())
    found = rehearsal.lab.assets["nested"]
    assert found.mock_arrow["x"].to_pylist() == rows
    assert CANARY.encode() not in found.mock_path.read_bytes()


def test_an_own_mock_that_does_not_fit_is_refused(rehearsal, table, tmp_path):
    made = make(Reveal.of_schema(PEOPLE.schema), 0)
    refused(rehearsal, Offering(table, mock=own(tmp_path, made.drop(["born"]))), MockMisfit, "lacks column 'born'")
    other = make(Reveal.of_schema(PEOPLE.schema.set(0, pa.field("age", pa.int64()))), 0)
    refused(rehearsal, Offering(table, mock=own(tmp_path, other)), MockMisfit, "'age' is int64 where the table has int16")
    refused(rehearsal, Offering(table, mock=own(tmp_path, made, "mine.csv")), MockMisfit, "text/csv")
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1")
    refused(rehearsal, Offering(table, mock=broken), NotATable, "broken.parquet|mock.parquet")
    refused(rehearsal, Offering(table, mock=tmp_path / "none.parquet"), NotFound, "none.parquet")


def test_the_first_rows_of_the_table_are_no_mock(rehearsal, table, tmp_path):
    head = own(tmp_path, PEOPLE.slice(0, 5))
    refused(rehearsal, Offering(table, mock=head), MockReveals, "5 rows of the mock are rows of the table")
    rehearsal.hospital.offer(Offering(table, mock=head, coincide=True), terms=terms())


def test_an_own_mock_with_a_category_that_was_not_agreed_is_refused(rehearsal, table, tmp_path):
    reveal = Reveal(
        tuple(
            replace(c, categories=("north", "south"), others=False) if c.name == "region" else c
            for c in Reveal.of_schema(PEOPLE.schema).columns
        )
    )
    refused(rehearsal, Offering(table, reveal=reveal), MockMisfit, "'region' holds values beside its categories")
    others = Reveal(tuple(replace(c, others=True) if c.name == "region" else c for c in reveal.columns))
    rehearsal.hospital.offer(Offering(table, reveal=others), terms=terms())
    assert "another value" in set(rehearsal.lab.assets["census"].mock["region"])


def test_a_description_that_is_not_true_of_the_table_is_one_line_at_offer_time(rehearsal, table):
    columns = Reveal.of_schema(PEOPLE.schema).columns
    narrow = Reveal((replace(columns[0], range=("0", "50")), *columns[1:]))
    refused(rehearsal, Offering(table, reveal=narrow), MockMisfit, "'age' holds values outside of its range")
    refused(rehearsal, Offering(table, reveal=Reveal(columns[1:])), MockMisfit, "says nothing of column 'age'")
    refused(rehearsal, Offering(table, withhold=("nobody",)), BadField, "no column 'nobody'")


def test_a_table_that_changes_while_it_is_offered_is_refused(rehearsal, table, monkeypatch):
    import strongroom.app.client.offer as module

    def prepared_late(*args, **named):
        found = real(*args, **named)
        pq.write_table(PEOPLE.drop(["born"]), table)
        return found

    real = module._prepared
    monkeypatch.setattr(module, "_prepared", prepared_late)
    refused(rehearsal, Offering(table), Conflict, "changed while it was offered")
    assert not manifest_path(table.with_name("census.parquet.sealed")).exists()


def test_a_mock_larger_than_an_exchange_takes_is_refused(rehearsal, table, monkeypatch):
    monkeypatch.setattr("strongroom.app.client.offer.MAX_MOCK_BYTES", 1000)
    refused(rehearsal, Offering(table, rows=1000), TooLarge, "mock has")


def test_a_table_of_a_type_without_a_mock_is_refused(rehearsal, tmp_path):
    path = tmp_path / "views.arrow"
    path.write_bytes(written(pa.table({"x": pa.array(["a"], pa.string_view())}), SUFFIXES[".arrow"]))
    refused(rehearsal, Offering(path), BadField, "no mock can be made of the type string_view")


def test_where_no_tables_can_be_read_the_extra_is_named(table, monkeypatch):
    import builtins

    real = builtins.__import__

    def missing(name, *args, **named):
        if name == "pyarrow":
            raise ImportError(name)
        return real(name, *args, **named)

    monkeypatch.setattr(builtins, "__import__", missing)
    for ask in (lambda: suggested(table), lambda: prepared(Offering(table)).__enter__()):
        with pytest.raises(MissingExtra) as caught:
            ask()
        assert "strongroom[data]" in caught.value.hint


# --- an exchange that lies --------------------------------------------------------------------------------------------


def test_another_mock_than_the_owner_signed_is_refused_and_not_read(rehearsal, offered):
    other = written(make(Reveal.of_schema(PEOPLE.schema), 99), SUFFIXES[".parquet"])
    for lie in (other, other[: offered.mock.size].ljust(offered.mock.size, b"\0"), b"", lambda data: data[:-1] + b"x"):
        census = lied_to(rehearsal, mocks__=lie).assets["census"]
        with pytest.raises(ManifestMismatch, match="another mock"):
            census.mock_path  # noqa: B018 - asked for is enough
    assert not list((rehearsal.lab.home.folder / "mocks").iterdir())


def test_a_mock_that_was_altered_on_the_disk_is_fetched_again(rehearsal, offered):
    census = rehearsal.lab.assets["census"]
    path = census.mock_path
    honest = path.read_bytes()
    path.write_bytes(honest[:-1] + b"x")
    assert census.mock_path.read_bytes() == honest


def test_a_mock_is_fetched_once(rehearsal, offered):
    assert rehearsal.lab.assets["census"].mock_path.is_file()
    gone = lied_to(rehearsal, mocks__=b"")
    assert len(gone.assets["census"].mock) == 100


def test_an_offer_by_a_stranger_is_shown_to_nobody(rehearsal, offered):
    def forge(found):
        envelope = wire.Envelope.from_json(found)
        return keys_of("mallory").signing.sign(envelope.payload_type, envelope.payload).to_json()

    room = lied_to(rehearsal, manifests=member("manifests", lambda found: [forge(f) for f in found]))
    assert len(room.assets) == 0
    assert "census" not in room.assets


def test_an_offer_under_anothers_name_is_shown_to_nobody(rehearsal, offered):
    stolen = sign_manifest(offered, rehearsal.lab.home.keys.signing)
    room = lied_to(rehearsal, manifests=member("manifests", lambda found: [stolen.to_json()]))
    assert len(room.assets) == 0


def later(rehearsal: Rehearsal, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner offers the same table again, a minute later."""
    import time

    now = time.time()
    with monkeypatch.context() as patch:
        patch.setattr("strongroom.app.client.room.time.time", lambda: now + 60)
        out = table.with_name("again.sealed")
        rehearsal.hospital.offer(Offering(table, rows=7), terms=terms(), out=out)


def test_an_older_offer_than_was_seen_before_is_refused(rehearsal, table, offered, monkeypatch):
    later(rehearsal, table, monkeypatch)
    assert len(rehearsal.lab.assets["census"].mock) == 7
    back = lied_to(rehearsal, manifests=member("manifests", lambda found: found[:1]))
    with pytest.raises(OlderOffer):
        back.assets["census"]
    with pytest.raises(OlderOffer):
        back.asset("hospital/census")
    assert "older than before" in repr(back.assets)
    assert len(back.assets[offered.digest].mock) == 100  # who names it by its digest means it
    forget(back, "hospital/census")
    assert back.assets["census"].manifest == offered
    with pytest.raises(NotFound):
        forget(back, "hospital/other")


def test_the_newest_offer_is_the_one_signed_last_and_not_the_one_shown_last(rehearsal, table, offered, monkeypatch):
    later(rehearsal, table, monkeypatch)
    room = lied_to(rehearsal, manifests=member("manifests", lambda found: found[::-1]))
    assert len(room.assets["census"].mock) == 7
    assert room.asset("hospital/census") == room.assets["census"].manifest


def test_an_offer_that_is_hidden_later_is_said_to_be(rehearsal, offered):
    assert "census" in rehearsal.lab.assets
    room = lied_to(rehearsal, manifests=member("manifests", lambda found: []))
    with pytest.raises(NotFound, match="offered before"):
        room.assets["census"]


def test_a_manifest_that_names_a_huge_mock_is_not_fetched(rehearsal, offered):
    huge = replace(offered, mock=replace(offered.mock, size=1 << 40))
    with pytest.raises(TooLarge):
        Asset(rehearsal.lab, huge).mock_path  # noqa: B018


# --- how it looks -----------------------------------------------------------------------------------------------------


def test_a_mapping_by_name_and_owner_and_digest(rehearsal, table, offered):
    assets = rehearsal.lab.assets
    assert isinstance(assets, Assets)
    assert list(assets) == ["hospital/census"]
    assert {assets[n].manifest.digest for n in ("census", "hospital/census", offered.digest)} == {offered.digest}
    assert assets.get("nothing") is None
    assert assets.get("census").name == "hospital/census"
    assert 7 not in assets
    rehearsal.lab.offer(Offering(table), terms=terms(), out=table.with_name("lab.sealed"))
    with pytest.raises(Usage, match="hospital/census and lab/census"):
        rehearsal.lab.assets["census"]
    assert rehearsal.lab.assets["lab/census"].manifest.owner == "lab"


def test_a_notebook_shows_tables_and_cards(rehearsal, offered):
    assets = rehearsal.lab.assets
    assert "<td>hospital/census</td>" in assets._repr_html_()
    page = assets["census"]._repr_html_()
    assert "<th>surname</th>" in page
    assert "100 rows, of which 5" in page
    assert "<td>evaluate</td>" in page
    assert "<Asset" not in page + repr(assets["census"])
    assert "uses of the data" in repr(assets["census"].terms)
    assert "<td>evaluate</td>" in assets["census"].terms._repr_html_()
    assert "<th>age</th><td>int16</td>" in assets["census"].schema._repr_html_()
    assert "hospital/census" in repr(assets)
    assert all(not hasattr(shown, "_repr_png_") for shown in (assets, assets["census"]))


def test_a_notebook_says_what_is_wrong_in_a_line(rehearsal, offered):
    page = lied_to(rehearsal, mocks__=b"other").assets["census"]._repr_html_()
    assert "<b>asset.manifest_mismatch</b>" in page
    assert "hospital/census" in page


def test_nothing_offered_is_said_so(rehearsal):
    assert repr(rehearsal.lab.assets) == "No pinned party offers anything here."
    assert "No pinned party" in rehearsal.lab.assets._repr_html_()


def test_names_that_an_owner_chose_run_nothing_in_a_notebook_or_a_terminal(rehearsal, tmp_path):
    evil = "<script>alert(1)</script>\x1b[2J\u202e"
    path = tmp_path / "evil.parquet"
    pq.write_table(pa.table({evil: [evil]}), path)
    mock = own(tmp_path, pa.table({evil: [evil + "x"]}))
    rehearsal.hospital.offer(Offering(path, mock=mock), terms=terms())
    found = rehearsal.lab.assets["evil"]
    for shown in (found._repr_html_(), found.schema._repr_html_(), repr(found.schema), repr(found)):
        assert "\x1b" not in shown
        assert "\u202e" not in shown
    for page in (found._repr_html_(), found.schema._repr_html_()):
        assert "<script" not in page
        assert "&lt;script&gt;" in page


def test_a_broad_table_is_cut_in_a_notebook(rehearsal, tmp_path):
    path = tmp_path / "broad.parquet"
    pq.write_table(pa.table({f"column{n}": ["x" * 500] for n in range(30)}), path)
    rehearsal.hospital.offer(Offering(path), terms=terms())
    page = rehearsal.lab.assets["broad"]._repr_html_()
    assert "20 of 30 columns" in page
    assert "column20" not in page


def test_a_mock_with_dates_that_python_cannot_hold_is_shown_all_the_same(rehearsal, tmp_path):
    path = tmp_path / "late.parquet"
    pq.write_table(pa.table({"day": pa.array([1], pa.int32()).cast(pa.date32())}), path)
    mock = own(tmp_path, pa.table({"day": pa.array([10**7], pa.int32()).cast(pa.date32())}))
    with pytest.raises(NotATable, match="9999"):
        rehearsal.hospital.offer(Offering(path, mock=mock), terms=terms())
    rehearsal.hospital.offer(Offering(path, mock=mock, coincide=True), terms=terms())
    found = rehearsal.lab.assets["late"]
    assert "<td>(cannot be shown)</td>" in found._repr_html_()
    with pytest.raises(NotATable, match="pandas"):
        found.mock  # noqa: B018


def test_what_has_no_mock_or_a_mock_that_is_no_table(rehearsal, tmp_path):
    plain = rehearsal.seal(rehearsal.hospital, "model.onnx")
    with pytest.raises(NotFound, match="has no mock"):
        rehearsal.lab.assets[plain.digest].mock_path  # noqa: B018
    assert "<table>" in rehearsal.lab.assets[plain.digest]._repr_html_()
    text = tmp_path / "mock.txt"
    text.write_text("made up")
    rehearsal.seal(rehearsal.hospital, "notes.txt", mock=text)
    found = rehearsal.lab.assets["notes.txt"]
    assert found.mock_path.read_text() == "made up"
    with pytest.raises(BadField, match="no table"):
        found.mock  # noqa: B018
    assert "made up" not in found._repr_html_()


def test_pieces_can_be_shown_alone():
    assert repr(Columns(pa.schema([pa.field("a", pa.int8(), nullable=False)]))) == "a  int8, never null"
    assert repr(Terms(terms())).startswith("uses of the data")


# --- the command line -------------------------------------------------------------------------------------------------


def test_a_check_publishes_nothing_and_writes_nothing(rehearsal, table):
    before = sorted(p.name for p in table.parent.iterdir())
    said = typed(rehearsal, "offer", table, "--check")
    assert (said.status, said.err) == (0, "")
    assert "Whoever gets the mock knows" in said.out
    assert "ask yourself" in said.out
    assert sorted(p.name for p in table.parent.iterdir()) == before
    found = typed(rehearsal, "offer", table, "--check", "--json").json
    assert found["fits"] is True
    assert [item["column"] for item in found["reveals"]] == [*PEOPLE.column_names, "", ""]


def test_a_suggestion_is_written_once_for_its_owner_alone_and_can_be_offered(rehearsal, table, tmp_path):
    draft = tmp_path / "reveal.json"
    said = typed(rehearsal, "offer", table, "--suggest", draft)
    assert said.status == 0
    assert "'atoll' (2 records)" in said.out
    assert oct(draft.stat().st_mode)[-3:] == "600"
    assert typed(rehearsal, "offer", table, "--suggest", draft).code == "app.conflict"
    checked = typed(rehearsal, "offer", table, "--reveal", draft, "--check", "--json").json
    assert "north, south" in json.dumps(checked)
    assert "atoll" not in json.dumps(checked)
    few = typed(rehearsal, "offer", table, "--suggest", tmp_path / "few.json", "--few", 2, "--json").json
    assert not [f for f in few["findings"] if f["column"] == "region" and f["risky"]]


def test_what_a_mock_reveals_is_said_before_anything_leaves(rehearsal, table, monkeypatch):
    def gone(*_args, **_named):
        raise KeyboardInterrupt

    monkeypatch.setattr("strongroom.app.cli.offer.upload", gone)
    said = call("offer", table, *TERMS, "--home", rehearsal.home, "--as", "hospital", "--exchange-url", "http://x", *ENCLAVE)
    assert said.status == 130
    assert "Whoever gets the mock knows" in said.out


ENCLAVE = ("--enclave-url", "http://x")


def test_an_offer_from_the_command_line(rehearsal, table, tmp_path):
    words = ("offer", table, "--withhold", "surname", "--rename", "born=birth", "--rows", 12, *TERMS, "--no-upload")
    said = typed(rehearsal, *words)
    assert (said.status, said.err) == (0, "")
    assert "hospital/census" in said.out
    mock = table.with_name("census.mock.parquet")
    assert pq.read_table(mock).column_names == ["age", "region", "birth"]
    assert pq.read_table(mock).num_rows == 12
    sealed = table.with_name("census.parquet.sealed")
    assert sealed.is_file()
    assert typed(rehearsal, *words).code == "app.conflict"
    sealed.unlink()
    assert typed(rehearsal, *words, "--seed", 1).code == "app.conflict"  # another mock lies there
    assert typed(rehearsal, *words, "--json").json["mock"]["rows"] == 12


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ((), "app.usage"),
        ((*TERMS, "--rename", "born"), "app.usage"),
        ((*TERMS, "--rows", "0"), "app.usage"),
        ((*TERMS, "--suggest", "none.json", "--few", "0"), "app.usage"),
        ((*TERMS, "--check", "--suggest", "x.json"), "app.usage"),
        ((*TERMS, "--withhold", "nobody"), "wire.bad_field"),
        ((*TERMS, "--reveal", "nowhere.json"), "app.not_found"),
        ((*TERMS, "--mock", "nowhere.parquet"), "app.not_found"),
        ((*TERMS, "--mock", "nowhere.xlsx"), "app.not_a_table"),
    ],
    ids=str,
)
def test_what_is_typed_wrong_is_one_line(rehearsal, table, words, code):
    said = typed(rehearsal, "offer", table, "--no-upload", *words)
    assert said.status
    assert said.code == code


def test_a_reveal_file_that_is_none_is_named(rehearsal, table, tmp_path):
    wrong = tmp_path / "reveal.json"
    wrong.write_text('{"format": "strongroom.reveal.v1", "columns": [{"name": "age", "typ": "int64"}]}')
    said = typed(rehearsal, "offer", table, "--check", "--reveal", wrong)
    assert said.code == "wire.bad_field"
    assert "reveal.json" in said.err


def test_offered_and_listed_over_real_processes(stage, tmp_path):
    table = tmp_path / f"people-{os.getpid()}.csv"
    table.write_bytes(written(PEOPLE, SUFFIXES[".csv"]))
    name = f"hospital/{table.stem}"
    said = stage.cli("offer", table, *TERMS, party="hospital")
    assert (said.status, said.err) == (0, "")
    listed = stage.cli("assets")
    assert name in listed.out
    assert name in [asset["asset"] for asset in stage.cli("assets", "--json").json["assets"]]
    target = tmp_path / "mock.csv"
    one = stage.cli("assets", name, "--mock", target)
    assert one.status == 0
    assert "surname" in one.out
    assert target.read_bytes() == table.with_name(f"{table.stem}.mock.csv").read_bytes()
    assert stage.cli("assets", name, "--mock", target).code == "app.conflict"
    assert stage.cli("assets", "--mock", target).code == "app.usage"
    assert stage.cli("assets", "nobody/nothing").code == "app.not_found"
    assert stage.cli("assets", "--forget", "nobody/nothing").code == "app.not_found"
    assert stage.cli("assets", "--forget", name).status == 0
    assert stage.cli("assets", name, "--json").json["columns"][0] == {"name": "age", "type": "int64"}
    assert stage.cli("propose", "--help").status == 0
    assert stage.lab.asset(name).mock is not None


def test_the_columns_of_a_description_can_be_read_in_a_program(table):
    found = suggested(table).reveal
    assert isinstance(found.columns[0], Column)
    with prepared(Offering(table, reveal=found)) as ready:
        assert ready.rows == 100
