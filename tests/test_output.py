"""Output rules: what leaves, what does not, and that nothing small can be had by subtraction."""

from __future__ import annotations

import base64
import csv
import importlib.util
import io
import json
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from strongroom import output
from strongroom.errors import OutputRefused, StrongroomError
from strongroom.output import enforce
from strongroom.output.picture import MAX_SIDE
from strongroom.output.records import _formula
from strongroom.output.report import SEVERAL
from strongroom.policy import OUTPUT_KINDS, OutputRule

HOME = Path(__file__).parents[1]
VECTORS = sorted((HOME / "vectors" / "output").glob("*.json"))
_spec = importlib.util.spec_from_file_location("make_output", HOME / "vectors" / "make_output.py")
assert _spec
assert _spec.loader
make = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make)


def rule(**changes: Any) -> OutputRule:
    return OutputRule.from_json(make.rule(**changes))


def leaves(report: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return json.loads(enforce("report", rule(max_bytes=1 << 20, **changes), json.dumps(report).encode()))


# --- reports --------------------------------------------------------------------------------------------------------

counts = st.lists(st.integers(0, 40), min_size=1, max_size=12)
smallest = st.integers(1, 30)
numbers = st.floats(-1e12, 1e12) | st.integers(-(10**15), 10**15)
names = st.text("abcdefghij", min_size=1, max_size=4)


def matrix(draw: st.DrawFn, count: int, records: int) -> list[list[int]]:
    """Counts of that many classes that add up to that many records."""
    cuts = sorted(draw(st.lists(st.integers(0, records), min_size=count - 1, max_size=count - 1)))
    rows = [b - a for a, b in zip([0, *cuts], [*cuts, records], strict=True)]
    right = [draw(st.integers(0, row)) for row in rows]
    return [
        [right[i] if i == j else rows[i] - right[i] if j == (i + 1) % count else 0 for j in range(count)]
        for i in range(count)
    ]


@st.composite
def reports(draw: st.DrawFn) -> tuple[dict[str, Any], int]:
    """A report whose groups are a division of its records, and the smallest group that was agreed."""
    tables = []
    records, count = draw(st.integers(1, 120)), draw(st.integers(2, 5))
    at_least = draw(st.integers(1, records))
    for n in range(draw(st.integers(0, 3 if at_least == 1 else 1))):
        cuts = sorted(draw(st.lists(st.integers(0, records), max_size=8)))
        sizes = [b - a for a, b in zip([0, *cuts], [*cuts, records], strict=True)]
        groups = [
            make.group(f"g{i}", size, **draw(st.dictionaries(names, numbers, max_size=3))) for i, size in enumerate(sizes)
        ]
        groups = [{**g, "values": {**g["values"], "confusion": matrix(draw, count, g["records"])}} for g in groups]
        tables.append(make.table(*groups, by=f"column {n}", name=f"table {n}", public=draw(st.booleans())))
    metrics = draw(st.dictionaries(names, numbers, max_size=4))
    classes, matrices = [f"class {n}" for n in range(count)], {"confusion": matrix(draw, count, records)}
    found = make.report(*tables, records=records, metrics=metrics, classes=classes, matrices=matrices, positive=classes[0])
    return found, at_least


@given(reports(), st.integers(0, 15))
def test_a_rule_applied_twice_is_applied_once(drawn: tuple[dict[str, Any], int], decimals: int) -> None:
    report, at_least = drawn
    r = rule(min_group=at_least, decimals=decimals, max_bytes=1 << 20)
    once = enforce("report", r, json.dumps(report).encode())
    assert enforce("report", r, once) == once


@given(reports(), st.randoms(use_true_random=False), st.integers(0, 3))
def test_a_covert_channel_in_the_order_of_a_report_is_closed(
    drawn: tuple[dict[str, Any], int], shuffle: Random, decimals: int
) -> None:
    report, at_least = drawn
    order = shuffle.sample(range(len(report["classes"])), len(report["classes"]))

    def turned(matrix: list[list[int]]) -> list[list[int]]:
        return [[matrix[i][j] for j in order] for i in order]

    other = json.loads(json.dumps(report))
    other["classes"] = [report["classes"][n] for n in order]
    other["matrices"] = {"confusion": turned(report["matrices"]["confusion"])}
    for table in other["tables"]:
        for group in table["groups"]:
            group["values"]["confusion"] = turned(group["values"]["confusion"])
        shuffle.shuffle(table["groups"])
    shuffle.shuffle(other["tables"])
    other["suppressed"] = shuffle.choice([True, False])
    r = rule(min_group=at_least, decimals=decimals, max_bytes=1 << 20)
    assert enforce("report", r, json.dumps(other).encode()) == enforce("report", r, json.dumps(report).encode())


def test_bands_and_classes_stand_by_their_numbers() -> None:
    bands = ["below 5", "5 to 20", "20 to 100.5", "100.5 and above"]
    found = leaves(make.report(make.table(*(make.group(b, 25) for b in reversed(bands)))), min_group=1)
    assert [group["group"] for group in found["tables"][0]["groups"]] == bands


@given(reports())
def test_no_group_below_the_agreed_size_is_shown(drawn: tuple[dict[str, Any], int]) -> None:
    report, at_least = drawn
    for table in leaves(report, min_group=at_least)["tables"]:
        for group in table["groups"]:
            assert group.keys() in ({"group", "suppressed"}, {"group", "records", "values"})
            assert "suppressed" in group or at_least == 1 or group["records"] >= at_least


@given(reports())
def test_what_is_hidden_cannot_be_had_by_subtraction(drawn: tuple[dict[str, Any], int]) -> None:
    report, at_least = drawn
    for before, after in zip(report["tables"], leaves(report, min_group=at_least)["tables"], strict=True):
        shown = {group["group"]: group["records"] for group in after["groups"] if "suppressed" not in group}
        hidden = {group["group"]: group["records"] for group in before["groups"] if group["group"] not in shown}
        if hidden:
            assert sum(hidden.values()) == report["records"] - sum(shown.values()) >= at_least
            assert len(hidden) > 1 or not shown


@given(reports())
def test_no_class_below_the_agreed_size_is_shown_nor_can_be_had_by_subtraction(drawn: tuple[dict[str, Any], int]) -> None:
    report, at_least = drawn
    found = leaves(report, min_group=at_least)
    kept, before = found["classes"], [sum(row) for row in report["matrices"]["confusion"]]
    matrices = [
        m for g in found["tables"] for g in g["groups"] if "values" in g for m in [g["values"].get("confusion")] if m
    ]
    if not found["matrices"]:
        assert not matrices
        return
    after = [sum(row) for row in found["matrices"]["confusion"]]
    assert {len(m) for m in matrices} <= {len(after)}
    assert sum(after) == report["records"]
    assert after[: len(kept)] == [before[report["classes"].index(name)] for name in kept]
    if at_least > 1:
        assert min(after) >= at_least
    if len(kept) < len(before):
        assert len(before) - len(kept) > 1
        assert found["positive"] == (report["positive"] if report["positive"] in kept else None)


@given(reports())
def test_names_from_the_data_are_hidden_with_their_groups(drawn: tuple[dict[str, Any], int]) -> None:
    report, at_least = drawn
    for before, after in zip(report["tables"], leaves(report, min_group=at_least)["tables"], strict=True):
        hidden = [group["group"] for group in after["groups"] if "suppressed" in group]
        if before["public"]:
            assert [g["group"] for g in before["groups"]] == [g["group"] for g in after["groups"]]
        else:
            assert hidden in ([], [SEVERAL])


@given(reports())
def test_the_report_says_whether_something_was_suppressed(drawn: tuple[dict[str, Any], int]) -> None:
    report, at_least = drawn
    found = leaves(report, min_group=at_least)
    hidden = "suppressed" in json.dumps(found["tables"])
    assert found["suppressed"] == (hidden or found["matrices"] != report["matrices"])
    assert (found["min_group"], found["decimals"]) == (at_least, 2)


@given(reports(), st.integers(0, 15))
def test_no_number_keeps_more_decimals_than_agreed(drawn: tuple[dict[str, Any], int], decimals: int) -> None:
    for value in leaves(drawn[0], min_group=1, decimals=decimals)["metrics"].values():
        assert round(value, decimals) == value


@given(reports())
def test_a_report_on_fewer_records_than_a_group_is_refused(drawn: tuple[dict[str, Any], int]) -> None:
    with pytest.raises(OutputRefused, match="fewer than"):
        leaves(drawn[0], min_group=drawn[0]["records"] + 1)


@given(reports(), st.data())
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_a_mutated_report_is_refused_or_keeps_the_rule(drawn: tuple[dict[str, Any], int], data: st.DataObject) -> None:
    report, at_least = drawn
    wrote = bytearray(json.dumps(report).encode())
    wrote[data.draw(st.integers(0, len(wrote) - 1))] = data.draw(st.integers(0, 255))
    r = rule(min_group=at_least, max_bytes=1 << 20)
    try:
        found = enforce("report", r, bytes(wrote))
    except OutputRefused:
        return
    assert enforce("report", r, found) == found
    for table in json.loads(found)["tables"]:
        assert all(at_least == 1 or group.get("records", at_least) >= at_least for group in table["groups"])


def test_a_report_that_hides_too_little_itself_is_hidden_further() -> None:
    table = make.table(make.hidden("a"), make.group("b", 97), make.group("c", 0))
    found = leaves(make.report(table))
    assert found["suppressed"]
    assert [g["group"] for g in found["tables"][0]["groups"] if "suppressed" in g] == ["a", "b", "c"]


def test_a_report_that_merges_too_little_itself_is_merged_further() -> None:
    confusion = [[40, 0, 0, 0], [0, 30, 0, 0], [0, 0, 26, 0], [0, 0, 0, 4]]
    found = leaves(make.report(classes=["a", "b", "c"], matrices={"confusion": confusion}, positive=None))
    assert found["classes"] == ["a", "b"]
    assert found["matrices"]["confusion"] == [[40, 0, 0], [0, 30, 0], [0, 0, 30]]


def test_a_positive_class_that_is_merged_is_not_named() -> None:
    confusion = [[50, 0, 0, 0], [0, 40, 0, 0], [0, 0, 6, 0], [0, 0, 0, 4]]
    found = leaves(make.report(classes=list("abcd"), matrices={"confusion": confusion}, positive="d"))
    assert (found["classes"], found["positive"]) == (["a", "b"], None)


def test_an_agreed_size_of_one_leaves_hidden_groups_hidden() -> None:
    table = make.table(make.hidden("a"), make.group("b", 97))
    assert leaves(make.report(table), min_group=1)["tables"] == [table]


def test_bytes_that_were_written_do_not_stand_in_the_refusal() -> None:
    with pytest.raises(OutputRefused) as caught:
        leaves(make.report(**{"Ada Lovelace": 1}))
    assert "Ada" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": [f"x{n}" for n in range(65)]},
        {"classes": [], "positive": None},
        {"matrices": {"confusion": [[0] * 66] * 66}},
        {"matrices": {"confusion": [[100, 0], 1]}},
        {"matrices": {"m": [1]}},
        {"matrices": {"m": []}},
        {"metrics": [1]},
        {"metrics": {f"m{n}": 1 for n in range(65)}},
        {"metrics": {"m": True}},
        {"positive": ""},
        {"records": True},
        {"records": 1.5},
        {"tables": [[]]},
        {"tables": [{}]},
        {"tables": [make.table()]},
        {"tables": [make.table(make.group("x", 100), name="y" * 129)]},
        {"tables": [make.table(make.group("", 100))]},
        {"tables": [make.table(make.group("a", 100), public=1)]},
        {"task": 1},
    ],
)
def test_a_report_of_another_form_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(OutputRefused):
        leaves(make.report(**changes))


def test_a_report_larger_than_agreed_once_its_rule_is_applied_is_refused() -> None:
    wrote = json.dumps(make.report()).encode()
    with pytest.raises(OutputRefused, match="once its rule is applied"):
        enforce("report", rule(max_bytes=len(wrote)), wrote)


# --- pictures -------------------------------------------------------------------------------------------------------


def picture(colour: int, depth: int, width: int, height: int, *before: bytes) -> bytes:
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    lines = (b"\x00" + bytes((width * samples * depth + 7) // 8)) * height
    return (
        make.PNG
        + make.header(width, height, depth, colour)
        + b"".join(before)
        + make.chunk(b"IDAT", zlib.compress(lines))
        + make.END
    )


def pixels(data: bytes) -> list[list[int]]:
    """The pixels of a picture in the one form that leaves."""
    width, height = struct.unpack(">II", data[16:24])
    size = struct.unpack(">I", data[33:37])[0]
    assert data[24:29] == bytes([8, 2, 0, 0, 0])
    assert data[-12:] == make.END
    lines = zlib.decompress(data[41 : 41 + size])
    assert len(data) == 8 + 25 + 12 + size + 12
    assert set(lines[:: 3 * width + 1]) == {0}
    seen = b"".join(lines[n * (3 * width + 1) + 1 : (n + 1) * (3 * width + 1)] for n in range(height))
    return [list(seen[n : n + 3]) for n in range(0, len(seen), 3)]


def unchanged(found: bytes) -> None:
    left = enforce("picture", rule(), found)
    assert enforce("picture", rule(), left) == left
    pixels(left)


@pytest.mark.parametrize(("colour", "depth"), [(0, 1), (0, 2), (0, 4), (0, 8), (2, 8), (4, 8), (6, 8)])
def test_every_form_without_a_palette_is_let_through(colour: int, depth: int) -> None:
    unchanged(picture(colour, depth, 5, 3))


@pytest.mark.parametrize(
    ("colour", "before", "through"),
    [
        (0, [make.chunk(b"tRNS", bytes(2))], False),
        (0, [make.chunk(b"tRNS", bytes(3))], False),
        (2, [make.chunk(b"tRNS", bytes(6))], False),
        (2, [make.chunk(b"PLTE", bytes(9))], True),
        (2, [make.chunk(b"PLTE", bytes(9)), make.chunk(b"tRNS", bytes(6))], False),
        (2, [make.chunk(b"tRNS", bytes(5))], False),
        (3, [make.chunk(b"PLTE", bytes(768))], True),
        (3, [make.chunk(b"PLTE", bytes(771))], False),
        (3, [make.chunk(b"PLTE", bytes(4))], False),
        (3, [make.chunk(b"PLTE", b"")], False),
        (3, [make.chunk(b"PLTE", bytes(3)), make.chunk(b"tRNS", bytes(2))], False),
        (3, [make.chunk(b"PLTE", bytes(3)), make.chunk(b"tRNS", b"")], False),
        (3, [make.chunk(b"tRNS", bytes(1)), make.chunk(b"PLTE", bytes(3))], False),
        (4, [make.chunk(b"PLTE", bytes(3))], False),
        (6, [make.chunk(b"tRNS", bytes(1))], False),
        (6, [make.chunk(b"tRNS", b"")], False),
    ],
)
def test_palette_and_transparency(colour: int, before: list[bytes], through: bool) -> None:
    found = picture(colour, 8, 4, 4, *before)
    if through:
        unchanged(found)
    else:
        with pytest.raises(OutputRefused):
            enforce("picture", rule(), found)


@st.composite
def drawn_twice(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """One picture, written in two ways: filters, compression, chunks, metadata, and a channel that says nothing."""
    width, height = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    rgb = draw(
        st.lists(st.lists(st.integers(0, 255), min_size=3 * width, max_size=3 * width), min_size=height, max_size=height)
    )
    found = []
    for _ in range(2):
        clear = draw(st.booleans())
        lines = [bytes(b for n in range(width) for b in (*row[3 * n : 3 * n + 3], *([255] if clear else []))) for row in rgb]
        above, step, wrote = bytes(len(lines[0])), 4 if clear else 3, b""
        for line in lines:
            match draw(st.integers(0, 2)):
                case 0:
                    wrote += b"\x00" + line
                case 1:
                    wrote += b"\x01" + bytes((b - (line[n - step] if n >= step else 0)) % 256 for n, b in enumerate(line))
                case 2:
                    wrote += b"\x02" + bytes((b - above[n]) % 256 for n, b in enumerate(line))
            above = line
        data = zlib.compress(wrote, draw(st.integers(0, 9)))
        cut = draw(st.integers(0, len(data)))
        text = make.chunk(b"tEXt", draw(st.binary(max_size=8)))
        parts = make.chunk(b"IDAT", data[:cut]) + make.chunk(b"IDAT", data[cut:])
        found.append(make.PNG + make.header(width, height, 8, 6 if clear else 2) + text + parts + make.END)
    return found[0], found[1]


@given(drawn_twice())
def test_a_covert_channel_in_how_a_picture_is_written_is_closed(wrote: tuple[bytes, bytes]) -> None:
    one, other = (enforce("picture", rule(), data) for data in wrote)
    assert one == other
    assert enforce("picture", rule(), one) == one


@given(st.binary(max_size=40))
def test_a_picture_that_is_only_a_beginning_is_refused(rest: bytes) -> None:
    with pytest.raises(OutputRefused):
        enforce("picture", rule(), make.PNG + rest)


@given(st.integers(0, len(make.PALETTE) - 1), st.integers(1, 255))
def test_a_picture_with_a_changed_byte_is_refused(place: int, change: int) -> None:
    wrote = bytearray(make.PALETTE)
    wrote[place] ^= change
    with pytest.raises(OutputRefused):
        enforce("picture", rule(), bytes(wrote))


def test_a_picture_cut_short_is_refused() -> None:
    for size in range(len(make.PLAIN)):
        with pytest.raises(OutputRefused):
            enforce("picture", rule(), make.PLAIN[:size])


def test_a_picture_that_inflates_without_end_is_refused_early() -> None:
    bomb = make.PNG + make.header() + make.chunk(b"IDAT", zlib.compress(bytes(1 << 26))) + make.END
    with pytest.raises(OutputRefused, match="not the lines"):
        enforce("picture", rule(max_bytes=1 << 20), bomb)


def test_a_picture_that_takes_too_much_memory_is_refused() -> None:
    big = make.PNG + make.header(MAX_SIDE, MAX_SIDE, 8, 6) + make.DATA + make.END
    with pytest.raises(OutputRefused, match="takes more than"):
        enforce("picture", rule(), big)


def test_a_picture_whose_stream_is_broken_is_refused() -> None:
    for stream in (b"\x00\x01", make.stored(make.LINES)[:-1], make.stored(make.LINES[:-1])):
        with pytest.raises(OutputRefused):
            enforce("picture", rule(), make.PNG + make.header() + make.chunk(b"IDAT", stream) + make.END)


def test_a_header_of_another_length_is_refused() -> None:
    short = make.PNG + make.chunk(b"IHDR", bytes(12)) + make.DATA + make.END
    with pytest.raises(OutputRefused, match="header"):
        enforce("picture", rule(), short)


# --- records and logs -----------------------------------------------------------------------------------------------

cells = st.text("abc ,\"'é01.-+eE", max_size=6) | st.floats(-1e9, 1e9).map(repr)


@given(st.integers(1, 4).flatmap(lambda n: st.lists(st.lists(cells, min_size=n, max_size=n), min_size=1, max_size=6)))
def test_records_are_rounded_once_and_for_all(rows: list[list[str]]) -> None:
    assume(all(rows[0]))
    assume(not any(_formula(text) for row in rows for text in row))
    wrote = io.StringIO()
    csv.writer(wrote).writerows(rows)
    r = rule(min_group=1)
    once = enforce("records", r, wrote.getvalue().encode())
    assert enforce("records", r, once) == once
    found = list(csv.reader(io.StringIO(once.decode())))
    assert found[0] == [text.strip(" ") for text in rows[0]]
    assert [len(row) for row in found] == [len(row) for row in rows]


@pytest.mark.parametrize("cell", [" 3.14159", "3.14159 ", "  +3.14159e0  ", '" 3.14159"'])
def test_a_blank_beside_a_number_does_not_keep_it_from_being_rounded(cell: str) -> None:
    found = enforce("records", rule(min_group=1, decimals=0), f"row,score\n1,{cell}\n".encode())
    assert found == b"row,score\n1,3.0\n"


@given(st.binary(max_size=200))
def test_any_bytes_as_records_are_refused_or_stay(data: bytes) -> None:
    r = rule(min_group=1)
    try:
        once = enforce("records", r, data)
    except OutputRefused:
        return
    assert enforce("records", r, once) == once


@given(st.binary(max_size=200))
def test_a_log_is_printable_text(data: bytes) -> None:
    r = rule(min_group=1, max_bytes=200)
    once = enforce("log", r, data)
    assert all(c.isprintable() or c in "\n\t" for c in once.decode())
    assert len(once) <= 200
    assert enforce("log", r, once) == once


@pytest.mark.parametrize("cell", ["=1", "@x", "+x", "-x", "-", " =1", "\u3000=1", "\uff1d1", "-1e", "+1 a"])
def test_a_cell_that_is_a_formula_is_refused(cell: str) -> None:
    with pytest.raises(OutputRefused):
        enforce("records", rule(min_group=1), f'row\n"{cell}"\n'.encode())


@pytest.mark.parametrize("cell", ["-1", "+1", "-1.5", "-.5", "-1.", "-1e-5", "(other)", "a=b", "1-2"])
def test_a_cell_that_is_no_formula_leaves(cell: str) -> None:
    assert enforce("records", rule(min_group=1, decimals=15), f"row\n{cell}\n".encode())


def test_a_cell_that_is_long_is_refused() -> None:
    with pytest.raises(OutputRefused):
        enforce("records", rule(min_group=1), b"row\n" + b"x" * 257)


# --- all kinds ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", OUTPUT_KINDS)
def test_every_kind_of_the_policy_has_its_rule(kind: str) -> None:
    assert output._applied(kind).__name__ == kind


@pytest.mark.parametrize("kind", OUTPUT_KINDS)
def test_more_bytes_than_agreed_are_refused_unread(kind: str) -> None:
    with pytest.raises(OutputRefused, match="larger than 10 bytes"):
        enforce(kind, rule(max_bytes=10, min_group=1), b"x" * 11)


@given(st.sampled_from(OUTPUT_KINDS), st.binary(max_size=300))
def test_any_bytes_are_refused_or_within_the_rule(kind: str, data: bytes) -> None:
    r = rule(min_group=1, max_bytes=300)
    with suppress(OutputRefused):
        assert len(enforce(kind, r, data)) <= 300


def test_the_example_of_the_specification() -> None:
    page = (HOME / "spec" / "output.md").read_text(encoding="utf-8")
    wrote, left = (part.split("```")[0] for part in page.split("## Example")[1].split("```json\n")[1:3])
    assert leaves(json.loads(wrote), min_group=10, decimals=2) == json.loads(left)


# --- vectors --------------------------------------------------------------------------------------------------------


def test_there_are_vectors() -> None:
    assert len(VECTORS) > 80


def test_the_vectors_are_those_that_the_script_makes() -> None:
    assert {path.stem: json.loads(path.read_bytes()) for path in VECTORS} == make.cases()


@pytest.mark.parametrize("path", VECTORS, ids=lambda p: p.stem)
def test_vector(path: Path) -> None:
    case = json.loads(path.read_bytes())
    data, r = base64.b64decode(case["data"]), OutputRule.from_json(case["rule"])
    if case["expect"] != "ok":
        with pytest.raises(StrongroomError) as caught:
            enforce(case["kind"], r, data)
        assert caught.value.code == case["expect"]
        return
    found = enforce(case["kind"], r, data)
    if "leaves_json" in case:
        assert json.loads(found) == case["leaves_json"]
    elif "leaves_pixels" in case:
        assert pixels(found) == case["leaves_pixels"]
    else:
        assert found == base64.b64decode(case["leaves"])
    assert enforce(case["kind"], r, found) == found


def test_a_chunk_is_made_as_the_format_says() -> None:
    assert make.chunk(b"IEND") == struct.pack(">I", 0) + b"IEND" + bytes.fromhex("ae426082")
