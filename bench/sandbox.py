"""Starting and running the sandboxed child: what a run costs beside a bare process, and what loading ahead of it saves.

Every figure is a median. The program that does nothing shows the sandbox's own cost; ``evaluate`` shows what is loaded.
"""

from __future__ import annotations

import io
import resource
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

from strongroom.enclave import sandbox, sandbox_child, sandbox_view
from strongroom.errors import NoSandbox
from strongroom.programs import OutputSpec, load

REPEATS, HEAVY_REPEATS = 21, 5
SPEC = {"report": OutputSpec("report", 1 << 20, 1, 4)}
LIMITS = sandbox.Limits(seconds=60, memory_bytes=256 << 20, output_bytes=1 << 20)
READ_BYTES = 256 << 20

# A program for each figure: it does nothing, or reads all that it is given.
SOURCE = """
class Kind:
    kind, media_type = "report", "application/json"

NAME, ROLES, OUTPUTS, LIBRARIES = "bare", frozenset({"data"}), {"report": Kind}, ()

def check(parameters):
    pass

def load(outputs):
    pass

def run(inputs, parameters, outputs, write, step):
    file = inputs["data"].open()
    while file.read(1 << 20):
        pass
    write("report", b"{}")
"""
FRAME = ("__init__.py", "boot.py", "frames.py", "runner.py", "window.py")


@dataclass
class Opened:
    media_type: str
    size: int
    file: BinaryIO


def median(action: Callable[[], object], repeats: int) -> float:
    """Seconds; one time more than said, for the caches."""
    times = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def bare_sources() -> dict[str, str]:
    files = {f"programs/{file}": sandbox_child.source(f"programs/{file}") for file in FRAME}
    return {**files, "errors.py": sandbox_child.source("errors.py"), "programs/bare.py": SOURCE}


def run_bare(files: dict[str, str], kind: str, data: bytes = b"") -> None:
    with sandbox._start("bare", files, kind, ()) as room:  # noqa: SLF001 - the standard programs do more than nothing
        room.run({}, {"data": Opened("application/octet-stream", len(data), io.BytesIO(data))}, SPEC, LIMITS)


def cold(outputs: tuple[str, ...], kind: str) -> None:
    with sandbox.prepare("evaluate", kind, outputs=outputs) as room:
        room.wait()


def processor_seconds() -> float:
    """Of this process and of those that it started and that are gone."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, who))


def walls_within(files: dict[str, str], kind: str) -> float:
    """Processor seconds that a run takes more for its walls beside the namespaces: filter, Landlock, control groups."""
    taken: dict[frozenset[str], list[float]] = {frozenset(): [], frozenset(sandbox_child.WALLS): []}
    for _ in range(REPEATS):
        for without, times in taken.items():  # in turn, so that both meet the same machine
            sandbox_child.unsafe_without = without
            began = processor_seconds()
            run_bare(files, kind)
            times.append(processor_seconds() - began)
    sandbox_child.unsafe_without = frozenset()
    every, none = (statistics.median(times) for times in taken.values())
    return every - none


def figures() -> list[dict[str, Any]]:
    """Rows of ``figures.json``."""
    seen = sandbox_view.view()
    bare = median(lambda: subprocess.run([seen.python, "-I", "-S", "-c", ""], check=True), REPEATS)
    rows = [row("bare process", bare * 1e3, "ms", None, "python -I -S -c ''")]
    files = bare_sources()
    for kind in sandbox_child.KINDS:
        try:
            sandbox_child.choose(kind)
        except NoSandbox:
            continue
        whole = median(lambda kind=kind: run_bare(files, kind), REPEATS)
        goal = 60.0 if kind == sandbox_child.BUBBLEWRAP else None
        rows.append(row(f"a run that does nothing, {kind}", (whole - bare) * 1e3, "ms", goal, "over the bare process"))
        within = walls_within(files, kind) * 1e3
        rows.append(row(f"walls within, {kind}", within, "ms", None, "processor time; the same run without them"))
    kind = sandbox_child.choose(sandbox_child.ISOLATED)
    rows += heavy(kind, files)
    return rows


def heavy(kind: str, files: dict[str, str]) -> list[dict[str, Any]]:
    data = bytes(READ_BYTES)
    nothing, read = (
        median(lambda: run_bare(files, kind), REPEATS),
        median(lambda: run_bare(files, kind, data), HEAVY_REPEATS),
    )
    rows = [row("input served", READ_BYTES / (read - nothing) / 1e9, "GB/s", None, f"in pieces of 1 MiB, {kind}", "higher")]
    every = tuple(load("evaluate").OUTPUTS)
    rows.append(
        row(
            "evaluate ready, report alone",
            median(lambda: cold(("report",), kind), HEAVY_REPEATS),
            "s",
            None,
            "libraries loaded",
        )
    )
    rows.append(
        row("evaluate ready, every output", median(lambda: cold(every, kind), HEAVY_REPEATS), "s", None, "libraries loaded")
    )
    return rows


def row(name: str, value: float, unit: str, goal: float | None, compared_with: str, better: str = "lower") -> dict[str, Any]:
    return {
        "name": f"sandbox: {name}", "value": round(value, 3), "unit": unit, "goal": goal, "better": better,
        "compared_with": compared_with,
    }  # fmt: skip


if __name__ == "__main__":
    for figure in figures():
        print(figure)
