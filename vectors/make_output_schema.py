"""Writes vectors/output_schema/: outputs whose rule holds a schema, one file per case, the expected outcome in the file.

Run it from anywhere, with pyarrow installed. Deterministic for one version of pyarrow.
"""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa

FOLDER = Path(__file__).parent / "output_schema"

UNIT = {"maximum": 1, "minimum": 0, "type": "number"}
COUNT = {"maximum": 1000, "minimum": 0, "type": "integer"}
AREA = {"enum": ["north", "south", "west"], "type": "string"}
FIGURES = {
    "properties": {
        "area": AREA,
        "curve": {"items": UNIT, "maxItems": 3, "type": "array"},
        "mean": {**UNIT, "nullable": True},
        "n": COUNT,
        "tested": {"type": "boolean"},
    },
    "type": "object",
}
BY_AREA = {
    "columns": {"area": AREA, "mean": {**UNIT, "nullable": True}, "n": COUNT},
    "count": "n",
    "key": ["area"],
    "maxRows": 3,
    "type": "table",
}
WEIGHTS = {
    "tensors": {
        "b": {"dtype": "F64", "shape": []},
        "m": {"dtype": "BOOL", "shape": [3]},
        "w": {"dtype": "F32", "shape": [2]},
    },
    "type": "tensors",
}


def rule(schema: Any = None, **changes: Any) -> dict[str, Any]:
    found = {"decimals": 2, "max_bytes": 4096, "min_group": 1, "recipients": ["lab"], **changes}
    return found if schema is None else {**found, "schema": schema}


def written(**changes: Any) -> bytes:
    """Figures as a program may write them: members in another order, white space, more digits."""
    found = {"tested": True, "n": 120.0, "mean": 0.123456, "curve": [0.5, 1, -0.0], "area": "south", **changes}
    return json.dumps({name: value for name, value in found.items() if value is not ...}, indent=1).encode()


FIT = {"area": "south", "curve": [0.5, 1, 0], "mean": 0.12, "n": 120, "tested": True}

VALUES: dict[str, tuple[str, str, bytes, dict[str, Any], Any]] = {
    "plain": ("numbers are rounded, the rest stands", "ok", written(), rule(FIGURES), FIT),
    "null": ("nothing, where nothing is allowed", "ok", written(mean=None), rule(FIGURES), {**FIT, "mean": None}),
    "text-of-nobody": ("a text that is not on the list", "output.refused", written(area="Ada"), rule(FIGURES), None),
    "text-as-number": ("a text that looks like a number", "output.refused", written(n="120"), rule(FIGURES), None),
    "number-out-of-bounds": ("a number over its bound", "output.refused", written(mean=1.01), rule(FIGURES), None),
    "number-rounded-into-bounds": (
        "what is rounded is held against the bounds",
        "ok",
        written(mean=1.004),
        rule(FIGURES),
        {**FIT, "mean": 1},
    ),
    "not-whole": ("a fraction, where numbers are whole", "output.refused", written(n=119.5), rule(FIGURES), None),
    "true-as-number": ("yes is no number", "output.refused", written(n=True), rule(FIGURES), None),
    "one-as-true": ("one is not yes", "output.refused", written(tested=1), rule(FIGURES), None),
    "list-too-long": ("one item more", "output.refused", written(curve=[0, 0, 0, 0]), rule(FIGURES), None),
    "null-where-none-may-be": ("nothing, where something must be", "output.refused", written(n=None), rule(FIGURES), None),
    "member-more": ("a member that carries a name", "output.refused", written(Ada=1), rule(FIGURES), None),
    "member-missing": (
        "a member that is not there says something too",
        "output.refused",
        written(n=...),
        rule(FIGURES),
        None,
    ),
    "member-twice": (
        "two values for one name: readers differ",
        "output.refused",
        b'{"a": 1, "a": 0}',
        rule({"properties": {"a": COUNT}, "type": "object"}),
        None,
    ),
    "not-a-number": ("NaN has many bit patterns", "output.refused", b"NaN", rule(UNIT), None),
    "infinite": ("a number without end", "output.refused", b"1e999", rule(UNIT), None),
    "many-digits": ("a number of a million digits", "output.refused", b"0." + b"1" * 3000, rule(UNIT), None),
    "deep": ("brackets within brackets", "output.refused", b"[" * 2000 + b"]" * 2000, rule(UNIT), None),
    "not-json": ("not JSON", "output.refused", b"{", rule(FIGURES), None),
    "two-documents": ("something after the end", "output.refused", b"1 0", rule(UNIT), None),
    "not-utf-8": ("not UTF-8", "output.refused", b'"\xff"', rule(AREA), None),
    "larger-than-agreed": ("white space without end", "output.refused", b" " * 4096 + b"1", rule(UNIT), None),
    "grouped": ("values cannot be grouped", "output.refused", b"1", rule(UNIT, min_group=2), None),
    "no-schema": ("a missing schema lets nothing out", "output.refused", b"1", rule(), None),
    "any-schema": ("nor does one that is still to be named", "output.refused", b"1", rule("any-schema"), None),
    "schema-of-a-table": ("nor does another kind's", "output.refused", b"1", rule(BY_AREA), None),
}


def arrow(columns: dict[str, Any], *, magic: bytes = b"", compression: str | None = None, metadata: Any = None) -> bytes:
    """An Arrow file of these columns, in two batches where there are more rows than one."""
    made = {name: v if isinstance(v, pa.Array) else pa.array(v) for name, v in columns.items()}
    whole = pa.table(made).replace_schema_metadata(metadata)
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, whole.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        for batch in whole.to_batches(max_chunksize=max(1, len(whole) - 1)):
            writer.write_batch(batch)
    return magic + sink.getvalue()[len(magic) :]


AREAS: dict[str, Any] = {"n": [50, 70, 30], "area": ["west", "north", "south"], "mean": [0.123, None, 0.5]}
ROWS = [{"area": a, "mean": m, "n": n} for a, m, n in (("north", None, 70), ("south", 0.5, 30), ("west", 0.12, 50))]
GROUPED = rule(BY_AREA, min_group=40)
TYPED = {
    "n": pa.array([50, 70, 30], pa.uint16()),
    "area": pa.array(["west", "north", "south"]).dictionary_encode(),
    "mean": pa.array([0.125, None, 0.5], pa.float16()),
}

TABLES: dict[str, tuple[str, str, bytes, dict[str, Any], Any]] = {
    "plain": ("columns by name, rows by key, numbers rounded", "ok", arrow(AREAS), rule(BY_AREA), ROWS),
    "types": ("other types of the same values leave alike", "ok", arrow(TYPED), rule(BY_AREA), ROWS),
    "metadata": (
        "metadata of the file is dropped",
        "ok",
        arrow(AREAS, metadata={"who": "Ada"}),
        rule(BY_AREA),
        ROWS,
    ),
    "dictionary-with-more": (
        "texts of a dictionary that no row has are dropped",
        "ok",
        arrow({**AREAS, "area": pa.DictionaryArray.from_arrays([1, 0, 2], ["north", "west", "south", "Ada"])}),
        rule(BY_AREA),
        ROWS,
    ),
    "small-row": (
        "a row on few records is left out, and with it the smallest of the others",
        "ok",
        arrow(AREAS),
        GROUPED,
        ROWS[:1],
    ),
    "small-rows-together-too-small": (
        "two small rows on fewer records together than one may have take a third with them: all are gone",
        "ok",
        arrow({**AREAS, "n": [10, 70, 20]}),
        GROUPED,
        [],
    ),
    "no-rows": ("a table without rows", "ok", arrow({n: v[:0] for n, v in TYPED.items()}), rule(BY_AREA), []),
    "no-count": (
        "rows that do not say on how many records they are",
        "output.refused",
        arrow(AREAS),
        rule({name: v for name, v in BY_AREA.items() if name != "count"}, min_group=2),
        None,
    ),
    "key-twice": ("two rows of one key", "output.refused", arrow({**AREAS, "area": ["west"] * 3}), rule(BY_AREA), None),
    "too-long": ("more rows than agreed", "output.refused", arrow(AREAS), rule({**BY_AREA, "maxRows": 2}), None),
    "text-of-nobody": (
        "a text off the list",
        "output.refused",
        arrow({**AREAS, "area": ["Ada", "a", "b"]}),
        rule(BY_AREA),
        None,
    ),
    "column-more": ("another column", "output.refused", arrow({**AREAS, "x": [1, 2, 3]}), rule(BY_AREA), None),
    "column-missing": (
        "a column that is not there",
        "output.refused",
        arrow({"n": [1], "area": ["west"]}),
        rule(BY_AREA),
        None,
    ),
    "number-out-of-bounds": (
        "a count under its bound",
        "output.refused",
        arrow({**AREAS, "n": [-1, 1, 2]}),
        rule(BY_AREA),
        None,
    ),
    "not-a-number": ("NaN", "output.refused", arrow({**AREAS, "mean": [float("nan")] * 3}), rule(BY_AREA), None),
    "nested": ("a column of lists", "output.refused", arrow({**AREAS, "mean": [[0.1], [], []]}), rule(BY_AREA), None),
    "binary": ("a column of bytes", "output.refused", arrow({**AREAS, "area": [b"west"] * 3}), rule(BY_AREA), None),
    "times": (
        "a column of times",
        "output.refused",
        arrow({**AREAS, "n": pa.array([1, 2, 3], pa.timestamp("s"))}),
        rule(BY_AREA),
        None,
    ),
    "compressed": (
        "a compressed table may be a bomb",
        "output.refused",
        arrow(AREAS, compression="zstd"),
        rule(BY_AREA),
        None,
    ),
    "other-magic": ("another format", "output.refused", arrow(AREAS, magic=b"PAR1"), rule(BY_AREA), None),
    "cut": ("a file cut short", "output.refused", arrow(AREAS)[:700], rule(BY_AREA), None),
    "empty": ("no bytes", "output.refused", b"", rule(BY_AREA), None),
    "no-schema": ("a missing schema lets nothing out", "output.refused", arrow(AREAS), rule(), None),
    "any-schema": ("nor does one that is still to be named", "output.refused", arrow(AREAS), rule("any-schema"), None),
}


def tensors(entries: dict[str, Any], body: bytes, *, pad: bytes = b"", size: int | None = None) -> bytes:
    header = json.dumps(entries).encode() + pad
    return (len(header) if size is None else size).to_bytes(8, "little") + header + body


def entry(dtype: str, shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"data_offsets": [start, end], "dtype": dtype, "shape": shape}


# 0.123 and -0.0; true, false, true; 2.0649
W, M, B = bytes.fromhex("6de7fb3d00000080"), b"\x01\x00\x01", bytes.fromhex("4d158c4aea840040")
ENTRIES = {"w": entry("F32", [2], 0, 8), "b": entry("F64", [], 8, 16), "m": entry("BOOL", [3], 16, 19)}
LEFT = {"b": "7b14ae47e17a0040", "m": "010001", "w": "8fc2f53d00000000"}  # 2.06; as it was; 0.12 and 0.0

TENSORS: dict[str, tuple[str, str, bytes, dict[str, Any], Any]] = {
    "plain": ("names in order, numbers rounded, no negative nought", "ok", tensors(ENTRIES, W + B + M), rule(WEIGHTS), LEFT),
    "metadata": (
        "metadata and white space are dropped",
        "ok",
        tensors({"__metadata__": {"who": "Ada"}, **ENTRIES}, W + B + M, pad=b"  \n\t"),
        rule(WEIGHTS),
        LEFT,
    ),
    "order": (
        "the same tensors, their bytes in another order",
        "ok",
        tensors(
            {"m": entry("BOOL", [3], 0, 3), "w": entry("F32", [2], 3, 11), "b": entry("F64", [], 11, 19)},
            M + W + B,
        ),
        rule(WEIGHTS),
        LEFT,
    ),
    "gap": (
        "bytes between two tensors",
        "output.refused",
        tensors({**ENTRIES, "m": entry("BOOL", [3], 17, 20)}, W + B + b"A" + M),
        rule(WEIGHTS),
        None,
    ),
    "after-the-end": (
        "bytes after the last tensor",
        "output.refused",
        tensors(ENTRIES, W + B + M + b"Ada"),
        rule(WEIGHTS),
        None,
    ),
    "overlap": (
        "one tensor over another",
        "output.refused",
        tensors({**ENTRIES, "m": entry("BOOL", [3], 13, 16)}, W + B),
        rule(WEIGHTS),
        None,
    ),
    "beyond": ("offsets beyond the end", "output.refused", tensors(ENTRIES, W + B), rule(WEIGHTS), None),
    "name-more": (
        "another name",
        "output.refused",
        tensors({**ENTRIES, "Ada": entry("U8", [1], 19, 20)}, W + B + M + b"A"),
        rule(WEIGHTS),
        None,
    ),
    "name-missing": ("a name that is not there", "output.refused", tensors({"w": ENTRIES["w"]}, W), rule(WEIGHTS), None),
    "name-twice": (
        "two entries of one name: readers differ",
        "output.refused",
        tensors(ENTRIES, W + B + M).replace(b'"b"', b'"w"'),
        rule(WEIGHTS),
        None,
    ),
    "other-shape": (
        "another shape of as many bytes",
        "output.refused",
        tensors({**ENTRIES, "w": entry("F32", [1, 2], 0, 8)}, W + B + M),
        rule(WEIGHTS),
        None,
    ),
    "other-type": (
        "another type of as many bytes",
        "output.refused",
        tensors({**ENTRIES, "w": entry("I32", [2], 0, 8)}, W + B + M),
        rule(WEIGHTS),
        None,
    ),
    "other-size": (
        "fewer bytes than the shape has",
        "output.refused",
        tensors({**ENTRIES, "m": entry("BOOL", [3], 16, 18)}, W + B + M[:2]),
        rule(WEIGHTS),
        None,
    ),
    "not-a-number": (
        "NaN has many bit patterns",
        "output.refused",
        tensors(ENTRIES, bytes.fromhex("0000c07f00000000") + B + M),
        rule(WEIGHTS),
        None,
    ),
    "infinite": (
        "a number without end",
        "output.refused",
        tensors(ENTRIES, W + bytes.fromhex("000000000000f07f") + M),
        rule(WEIGHTS),
        None,
    ),
    "yes-in-two-forms": (
        "two is yes as well",
        "output.refused",
        tensors(ENTRIES, W + B + b"\x02\x00\x01"),
        rule(WEIGHTS),
        None,
    ),
    "unknown-member": (
        "a member of an entry that there is not",
        "output.refused",
        tensors({**ENTRIES, "m": {**ENTRIES["m"], "who": "Ada"}}, W + B + M),
        rule(WEIGHTS),
        None,
    ),
    "header-too-long": (
        "a header beyond the end",
        "output.refused",
        tensors(ENTRIES, b"", size=1 << 40),
        rule(WEIGHTS),
        None,
    ),
    "no-header": ("no header", "output.refused", b"\x02\x00\x00", rule(WEIGHTS), None),
    "header-a-list": ("a list for a header", "output.refused", b"\x02" + bytes(7) + b"[]", rule(WEIGHTS), None),
    "grouped": (
        "tensors cannot be grouped",
        "output.refused",
        tensors(ENTRIES, W + B + M),
        rule(WEIGHTS, min_group=2),
        None,
    ),
    "no-schema": ("a missing schema lets nothing out", "output.refused", tensors(ENTRIES, W + B + M), rule(), None),
}

SUCCESS: dict[str, tuple[str, str, bytes, dict[str, Any], Any]] = {
    "plain": ("that the run completed", "ok", b"", rule(), "completed\n"),
    "whatever-was-written": ("and nothing of what was written", "ok", b"Ada", rule(), "completed\n"),
    "too-small": ("a rule that does not let as much out", "output.refused", b"", rule(max_bytes=9), None),
}

KINDS = {"success": SUCCESS, "table": TABLES, "tensors": TENSORS, "values": VALUES}


def cases() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for kind, these in KINDS.items():
        for name, (what, expect, data, rule_, leaves) in these.items():
            case = {
                "data": base64.b64encode(data).decode(),
                "description": what,
                "expect": expect,
                "kind": kind,
                "rule": rule_,
            }
            found[f"{kind}-{name}"] = case | ({"leaves": leaves} if leaves is not None else {})
    return found


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.json"):
        old.unlink()
    for name, case in cases().items():
        text = json.dumps(case, ensure_ascii=False, indent=2, sort_keys=True) + "\n"
        (FOLDER / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
