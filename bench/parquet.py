"""A researcher's query over 2 GB of Parquet: in the room, over the sealed file, beside the same query on the plain file.

The plain side is a process of its own with Polars loaded, which scans the file by its path; the room's side is ``code`` with
an input of form ``polars``, from when the job is given to its outputs, with the child ready as in an enclave. Every round
times both, one after the other, and a ratio is taken within its round; ratios are medians over rounds. Bytes are counted
where the process that holds the key serves them. Memory is each process's peak, libraries included.

A query of nearly every column has no goal: it takes as long as it takes to authenticate and decrypt what it reads.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from strongroom.app.client.analysis import gather
from strongroom.asset import About, AssetKey, FileSource, Manifest, SealedReader, seal
from strongroom.enclave import sandbox, sandbox_job
from strongroom.policy import Policy
from strongroom.programs import OutputSpec, code, frames

SLOW = True
LIMIT_SECONDS = 1200
ROWS, GROUP_ROWS, ROUNDS = 22_000_000, 1 << 20, 5
KEY, MEDIA_TYPE = AssetKey(bytes(range(32))), "application/vnd.apache.parquet"
LIMITS = sandbox.Limits(seconds=300, memory_bytes=12 << 30, output_bytes=1 << 16)
SPEC = {"out": OutputSpec("values", 1 << 16, 1, 15)}

ANALYSIS = """
import datetime as dt
import time

import polars as pl


def columns(table):
    return table.group_by("region").agg(pl.col("income").mean(), pl.col("hours").sum(), pl.len()).sort("region")


def rows(table):
    late = table.filter(pl.col("day") >= dt.date(2006, 1, 1))
    return late.group_by("occupation").agg(pl.col("weight").mean(), pl.col("score_3").max()).sort("occupation")


def every(table):
    return table.select(pl.col(pl.Float64).mean())


def run(table, query):
    began = time.perf_counter()
    found = globals()[query](table).collect()
    seconds = time.perf_counter() - began
    with open("/proc/self/status") as status:
        peak = int(status.read().partition("VmHWM:")[2].split()[0]) << 10
    return {"out": {"peak": peak, "seconds": seconds, "sum": float(found.select(pl.col(pl.Float64)).to_numpy().sum())}}
"""
PLAIN = """
import json, sys
import polars as pl
import analysis

pl.LazyFrame({"a": [1]}).sum().collect()
print(json.dumps(analysis.run(pl.scan_parquet(sys.argv[1]), sys.argv[2])["out"]))
"""
QUERIES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "columns": ("3 columns of 16, grouped", ("region", "income", "hours")),
    "rows": ("the last of ten years, 4 columns of 16, grouped", ("day", "occupation", "weight", "score_3")),
    "every": ("the means of 11 columns of 16, 1.8 GB", ("income", "hours", "weight", *(f"score_{n}" for n in range(8)))),
}
PRIVATE = {
    "epsilon": "1",
    "queries": [
        {"ask": "mean", "column": "income", "lower": "0", "name": "income", "share": 1, "upper": "200000"},
        {"ask": "sum", "column": "hours", "lower": "0", "name": "hours", "share": 1, "upper": "100"},
    ],
    "unit": None,
}
PRIVATE_PLAIN = """
import io, json, sys, time
from strongroom.programs import Input, private_answers, private_query

path, size = sys.argv[1], int(sys.argv[2])
private_answers.rehearse()
began = time.perf_counter()
said = private_query.read(json.loads(sys.argv[3]))
private_answers.answer(Input("application/vnd.apache.parquet", size, lambda: open(path, "rb")), said, lambda *_: None)
seconds = time.perf_counter() - began
with open("/proc/self/status") as status:
    peak = int(status.read().partition("VmHWM:")[2].split()[0]) << 10
print(json.dumps({"peak": peak, "seconds": seconds}))
"""


@dataclass
class Opened:
    media_type: str
    size: int
    file: BinaryIO


def make(path: Path) -> None:
    """Such a table as a register of persons: ids, days in order, few texts, small numbers, money, measurements."""
    dice = np.random.default_rng(7)
    regions, occupations = ([f"{what} {n:03}" for n in range(k)] for what, k in (("region", 40), ("occupation", 400)))
    with ExitStack() as stack:
        writer = None
        for begin in range(0, ROWS, GROUP_ROWS):
            n = min(GROUP_ROWS, ROWS - begin)
            days = np.arange(begin, begin + n) // (ROWS // 3650) + 10_000
            texts = [pa.array(names).take(pa.array(dice.integers(0, len(names), n))) for names in (regions, occupations)]
            columns = {
                "person": dice.integers(0, 1 << 48, n), "day": days.astype("datetime64[D]"), "region": texts[0],
                "occupation": texts[1], "age": dice.integers(0, 100, n).astype("int8"),
                "income": np.round(dice.lognormal(10, 0.6, n), 2), "hours": np.round(dice.normal(36, 8, n), 1),
                "weight": dice.gamma(2.0, 0.5, n), **{f"score_{k}": dice.normal(size=n) for k in range(8)},
            }  # fmt: skip
            table = pa.table(columns)
            writer = writer or stack.enter_context(pyarrow.parquet.ParquetWriter(path, table.schema))
            writer.write_table(table, row_group_size=GROUP_ROWS)


class Counted(sandbox_job.Inputs):
    """Counts what is served."""

    served = 0

    def read(self, body: bytes) -> memoryview | None:
        answer = super().read(body)
        Counted.served += 0 if answer is None else len(answer) - frames.HEADER.size
        return answer

    def _ranges(self, body: bytes) -> dict[int, list[tuple[int, memoryview]]]:
        found = super()._ranges(body)
        Counted.served += sum(len(view) for wanted in found.values() for _, view in wanted)
        return found


class Stage:
    """The table, plain and sealed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.plain, self.sealed = folder, folder / "plain.parquet", folder / "sealed"
        make(self.plain)
        (folder / "analysis.py").write_text(ANALYSIS)
        about = About("register", "dataset", MEDIA_TYPE, "lab", 0, Policy())
        with self.plain.open("rb", buffering=0) as source, self.sealed.open("wb", buffering=0) as sink:
            self.manifest: Manifest = seal(
                source, sink, key=KEY, salt=bytes(32), about=about, chunk_bytes=1 << 20, threads=2
            )

    def outside(self, script: str, *arguments: str) -> dict[str, float]:
        command = [sys.executable, "-c", script, str(self.plain), *arguments]
        environment = {**os.environ, "PYTHONPATH": str(self.folder)}
        done = subprocess.run(command, cwd=self.folder, env=environment, check=True, capture_output=True)
        found: dict[str, float] = json.loads(done.stdout)
        return found

    def inside(self, query: str) -> dict[str, float]:
        bundle = gather(self.folder / "analysis.py", entry="analysis:run").bundle
        said = {
            "arguments": {"query": query}, "bundle": bundle.digest, "entry": "analysis:run", "environment": None,
            "inputs": {"table": "polars"}, "outputs": {"out": "values"},
        }  # fmt: skip
        with sandbox.prepare("code", outputs=code.parts(said)) as room:
            room.give(bundle.encode())
            seconds, found = self.run(room, said, "table", SPEC)
        told: dict[str, float] = json.loads(found["out"])
        return {**told, "seconds": seconds, "served": Counted.served}

    def private(self) -> dict[str, float]:
        with sandbox.prepare("private-query", outputs=("answers",)) as room:
            seconds, _ = self.run(room, PRIVATE, "data", {"answers": OutputSpec("values", 1 << 16, 1, 15)})
        return {"seconds": seconds, "served": Counted.served}

    def run(
        self, room: sandbox.Sandbox, said: Mapping[str, Any], role: str, spec: Mapping[str, OutputSpec]
    ) -> tuple[float, dict[str, bytes]]:
        room.wait()
        Counted.served = 0
        with FileSource(self.sealed) as source, SealedReader(source, self.manifest, KEY) as file:
            began = time.perf_counter()
            found = room.run(said, {role: Opened(MEDIA_TYPE, file.size, file)}, spec, LIMITS)  # type: ignore[arg-type]
            return time.perf_counter() - began, found

    def needed(self, columns: tuple[str, ...], query: str) -> int:
        """Bytes of the column chunks without which the query cannot be answered."""
        with pyarrow.parquet.ParquetFile(self.plain) as parquet:
            about, total = parquet.metadata, 0
            names = [about.schema.column(n).name for n in range(about.num_columns)]
            for n in range(about.num_row_groups):
                group = about.row_group(n)
                latest = group.column(names.index("day")).statistics.max
                if query != "rows" or latest.year >= 2006:
                    total += sum(group.column(names.index(name)).total_compressed_size for name in columns)
            return total


def figures() -> list[dict[str, Any]]:
    """Rows of ``figures.json``."""
    sandbox.Inputs = Counted  # type: ignore[attr-defined]
    rows = []
    with tempfile.TemporaryDirectory() as name:
        stage = Stage(Path(name))
        size = stage.plain.stat().st_size
        for query, (what, columns) in QUERIES.items():
            pairs = [(stage.outside(PLAIN, query), stage.inside(query)) for _ in range(ROUNDS + 1)][1:]
            if any(abs(a["sum"] - b["sum"]) > 1e-9 * abs(a["sum"]) for a, b in pairs):
                raise RuntimeError("the room gives another answer")
            rows += compared(what, pairs, None if query == "every" else 1.5)
            memory = statistics.median(b["peak"] / a["peak"] for a, b in pairs)
            rows.append(row(f"{what}: memory", memory, "x", 1.3, "peak of the child, over the plain process's"))
            read = pairs[0][1]["served"] / stage.needed(columns, query)
            rows.append(row(f"{what}: bytes read", read, "x", 1.05, f"over its column chunks, of {size / 1e9:.1f} GB"))
        arguments = (str(size), json.dumps(PRIVATE))
        private = [(stage.outside(PRIVATE_PLAIN, *arguments), stage.private()) for _ in range(ROUNDS)]
        rows += compared("private-query, 2 columns", private, 1.5)
    return rows


def compared(what: str, pairs: list[tuple[dict[str, float], dict[str, float]]], goal: float | None) -> list[dict[str, Any]]:
    ratio = statistics.median(b["seconds"] / a["seconds"] for a, b in pairs)
    plain, room = (statistics.median(pair[n]["seconds"] for pair in pairs) for n in (0, 1))
    beside = f"the same on the plain file, {plain:.2f} s; median of {len(pairs)} rounds, load {os.getloadavg()[0]:.1f}"
    return [row(f"{what}: time", ratio, "x", goal, beside), row(what, room, "s", None, "in the room")]


def row(name: str, value: float, unit: str, goal: float | None, beside: str) -> dict[str, Any]:
    return {
        "name": f"parquet: {name}", "value": round(value, 3), "unit": unit, "goal": goal, "better": "lower",
        "compared_with": beside,
    }  # fmt: skip


if __name__ == "__main__":
    for figure in figures():
        print(figure)
