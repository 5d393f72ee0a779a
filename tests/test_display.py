"""What a notebook shows: tables, figures and pictures, and nothing that somebody else wrote as HTML or script."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbox_case import Desk
from strongroom.app.client import display
from strongroom.app.client.analysis import Tried
from strongroom.app.client.figures import MAX_COLUMNS, MAX_ROWS, MAX_TEXT, Figure, look
from strongroom.app.client.room import Opened
from strongroom.contract import Proposal
from strongroom.receipt import verify

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&\u202e"
QUIET = {"b", "details", "p", "pre", "summary", "table", "tbody", "td", "th", "thead", "tr"}


class Seen(HTMLParser):
    """Which elements a page has, and which attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.said = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.said += data


def harmless(page: str | None) -> str:
    """That nothing in it is an element but ours; what it says."""
    assert page is not None
    seen = Seen(page)
    assert seen.tags <= QUIET
    assert seen.attributes == []
    assert "\u202e" not in page
    return seen.said


# --- figures ----------------------------------------------------------------------------------------------------------


def test_figures_by_name_are_a_table_and_by_two_names_too() -> None:
    assert look("values", b'{"mean":41.5,"none":null,"word":"a"}').rows == (
        ("mean", "41.5"),
        ("none", "null"),
        ("word", "a"),
    )
    found = look("report", b'{"count":{"f":1,"m":2},"mean":{"f":3}}')
    assert found == Figure(("", "count", "mean"), (("f", "1", "3"), ("m", "2", "")))
    for other in ([1, 2], {}, {"a": [1]}, {"a": {"b": {"c": 1}}}, {str(n): {"a": 1} for n in range(MAX_COLUMNS + 1)}):
        assert look("values", json.dumps(other).encode()).text == json.dumps(other)


def test_a_table_shows_its_first_rows_and_says_how_many_there_are() -> None:
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    table = pa.table({f"c{n}": list(range(50)) for n in range(MAX_COLUMNS + 2)})
    for new in (pa.ipc.new_file, pa.ipc.new_stream):
        sink = io.BytesIO()
        with new(sink, table.schema) as writer:
            writer.write_table(table)
        found = look("table", sink.getvalue())
        assert (len(found.header), len(found.rows)) == (MAX_COLUMNS, MAX_ROWS)
        assert found.more == f"50 rows, of which {MAX_ROWS}; {MAX_COLUMNS} of {MAX_COLUMNS + 2} columns"
    assert "cannot be shown" in look("table", b"ARROW1 and then nothing").more


@given(
    st.sampled_from(["values", "report", "log", "records", "tensors", "success", "table", "other"]), st.binary(max_size=300)
)
def test_whatever_an_output_holds_it_can_be_looked_at(kind: str, data: bytes) -> None:
    harmless(display.figure_html(look(kind, data)))


def test_long_texts_and_bytes_are_cut_and_said() -> None:
    assert look("log", b"x" * 5000).text == "x" * MAX_TEXT
    assert "5,000 characters" in look("log", b"x" * 5000).more
    assert look("tensors", b"\xff\xfe").more == "2 bytes that are no text"
    assert look("values", b"[" * 100_000).text.startswith("[[")


def test_a_picture_is_a_picture_and_carries_nothing_else() -> None:
    seen = Seen(display.figure_html(look("picture", b"\x89PNG not really")))
    assert seen.tags == {"img"}
    ((_, said), (_, source)) = seen.attributes
    assert said == "a picture"
    assert source is not None
    assert source.startswith("data:image/png;base64,")


# --- objects ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    found = Desk(tmp_path)
    yield found
    found.close()


def test_a_try_shows_its_outputs_and_escapes_what_code_wrote() -> None:
    outputs = {"figures": json.dumps({HOSTILE: {HOSTILE: HOSTILE}}).encode(), "log": HOSTILE.encode()}
    refused = {HOSTILE: HOSTILE}
    tried = Tried(outputs, refused, None, HOSTILE * 3, 0.5, "bubblewrap", kinds={"figures": "values", "log": "log"})
    said = harmless(display.html_of(tried))
    assert "alert(1)" in said  # as text
    assert "did not pass" in said
    failed = Tried({}, {}, "program.crashed", HOSTILE)
    assert "program.crashed" in harmless(display.html_of(failed))
    assert "everything that was asked for would leave" in harmless(
        display.html_of(Tried({"a": b"{}"}, kinds={"a": "values"}))
    )


def test_a_proposal_and_where_it_stands_are_tables(desk: Desk) -> None:
    made = desk.propose(title="<b>Mean</b> & 'spread'")
    view = desk.hospital.view(made.digest)
    for value in (made, view):
        said = harmless(display.html_of(value))
        assert "<b>Mean</b> & 'spread'" in said
        assert made.digest in said
    assert "waits for" in harmless(display.html_of(view))
    assert made.digest in display.text_of(made)
    assert "object at 0x" not in display.text_of(made)


def test_a_room_shows_who_is_at_work_and_asks_nobody(desk: Desk) -> None:
    desk.store.close()
    said = harmless(display.html_of(desk.lab))
    assert "hospital" in said
    assert desk.lab.home.card.fingerprint in repr(desk.lab)


def test_a_run_shows_what_is_verified_and_what_is_not(desk: Desk) -> None:
    digest = desk.agree()
    bundle = desk.run(digest)
    assert "not here" in harmless(display.html_of(bundle))
    receipt = verify(bundle, trust=desk.lab.trust)
    said = harmless(display.html_of(receipt))
    assert said.count("passed: ") == len(receipt.transcript.checks)
    assert "no hardware protection" in said


def test_outputs_are_shown_and_a_file_that_is_gone_is_said(tmp_path: Path) -> None:
    path = tmp_path / "mean.json"
    path.write_text(json.dumps({HOSTILE: 1}))
    receipt: Any = None
    opened = display.Outputs([Opened("mean", "values", path, receipt)])
    assert "alert(1)" in harmless(display.html_of(opened))
    path.unlink()
    assert "not there any more" in harmless(display.html_of(opened[0]))
    assert str(path) in repr(opened)
    assert str(path) in display.text_of(opened[0])
    assert "Nothing was delivered" in harmless(display.html_of(display.Outputs()))
    assert "Nothing was delivered" in repr(display.Outputs())


def test_a_mock_whose_columns_are_html_is_text_in_pandas_too() -> None:
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    page = pd.DataFrame({"<script>alert(1)</script>": ["<img src=x onerror=alert(1)>"]})._repr_html_()
    assert Seen(page).tags.isdisjoint({"script", "img"})


# --- IPython ----------------------------------------------------------------------------------------------------------


def test_a_running_ipython_is_told_how_to_show_the_cores_objects(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[str, dict[type, Any]] = {"text/html": {}, "text/plain": {}}
    formats = {
        name: SimpleNamespace(for_type=lambda kind, show, to=to: to.update({kind: show})) for name, to in kept.items()
    }
    shell = SimpleNamespace(display_formatter=SimpleNamespace(formatters=formats))
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))  # type: ignore[arg-type]
    assert display.register()
    made, said = desk.propose(), []
    assert made.digest in harmless(kept["text/html"][Proposal](made))
    kept["text/plain"][Proposal](made, SimpleNamespace(text=said.append), False)
    assert made.digest in said[0]


def test_without_one_nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert not display.register()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))  # type: ignore[arg-type]
    assert not display.register()
    assert display.html_of(3) is None


def test_steps_of_something_slow_are_a_line_that_obeys_nobody(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    said: list[str] = []
    with display.steps(lambda name, detail: said.append(name + detail)) as step:
        step("attest", "")
    assert said == ["attest"]
    monkeypatch.setattr(display, "QUIET_SECONDS", 0)
    with display.steps(None) as step:
        step("release", "\x1b[2J of records")
    err = capsys.readouterr().err
    assert "of records" in err
    assert "\x1b[2J" not in err
    monkeypatch.undo()
    with display.steps(None) as step:
        step("release", "quick")
    assert capsys.readouterr().err == ""
