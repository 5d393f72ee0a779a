"""How long the whole story takes: from a proposal to a verified receipt, with the roles as processes on this machine.

A lab and a hospital, an exchange, a broker for each and an enclave, as ``strongroom demo`` starts them, with the demo's
model and records. The lab proposes, the hospital counters, the lab approves, the enclave runs, and the lab verifies the
receipt from its own trust file. The steps' own figures say where the time goes.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from strongroom.app.cli.fleet import Fleet
from strongroom.app.cli.parties import make
from strongroom.app.client.draft import MAX_BYTES, Change, Draft, Wanted
from strongroom.app.client.home import Home, read, reference
from strongroom.app.client.room import Room
from strongroom.policy import ANY_PARTY, OutputRule, Policy
from strongroom.receipt import Statement

REPEATS = 5
PAUSE_S = 3.0  # between repeats, so that each finds the roles as they are when nobody has used them for a while
USES, BAND, EDGES = frozenset({"evaluate"}), "mean radius", ["9", "12", "15", "18", "22"]
PROCESSES = "an exchange, two brokers, a platform with its enclave; 285 records, median of "

Times = dict[str, float]  # step -> seconds, in the order of the story


class Stage:
    """Two parties who trust each other's keys, with sealed assets on a running exchange.

    Args:
        folder: an empty one, or one that a stage was set in before.

    Attributes:
        start_s: seconds until every role answered.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, home = folder, Home(folder)
        fresh = not home.parties()
        if fresh:
            make(home, "lab")
            make(home, "hospital")
        self.fleet = Fleet(home)
        began = time.perf_counter()
        self.fleet.start()
        self.start_s = time.perf_counter() - began
        config = self.fleet.config
        self.lab, self.hospital = (
            Room(home.party(name), exchange=config.exchange, enclave=config.enclave) for name in ("lab", "hospital")
        )
        if fresh:
            self._trust()
            self._seal()

    def _trust(self) -> None:
        values = reference(read(self.fleet.reference()))
        for me, other in ((self.lab, self.hospital), (self.hospital, self.lab)):
            trust = me.trust.pin(other.home.card).with_enclaves(values.roots, values.measurements)
            for log in values.logs:
                trust = trust.with_log(log)
            me.home.save_trust(trust)

    def _seal(self) -> None:
        def terms(group: int, decimals: int) -> Policy:
            kinds = ("picture", "records", "report")
            return Policy(USES, {kind: OutputRule(ANY_PARTY, MAX_BYTES[kind], group, decimals) for kind in kinds})

        from records import prepare  # noqa: PLC0415 - loads scikit-learn, which is no part of what is timed

        model, records = prepare(self.folder)
        self.lab.seal(model, terms=terms(1, 15), name="classifier", reveal_digest=True)
        self.hospital.seal(records, terms=terms(10, 4), name="held-out")

    def tell(self) -> tuple[Times, Path]:
        """The story once: seconds of each step, and where the verified receipt's bundle lies."""

        times: Times = {}
        with timed(times, "propose"):
            assets = {"data": self.lab.asset("hospital/held-out"), "model": self.lab.asset("lab/classifier")}
            outputs = {"calibration": Wanted(("hospital",)), "report": Wanted(("hospital", "lab"))}
            parameters = {
                "features": self._features(),
                "groups": [{"column": BAND, "edges": [*EDGES], "name": "tumour size"}],
                "positive": None,
                "target": "benign",
                "classes": ["0", "1"],
                "task": "classification",
            }
            first = self.lab.propose(Draft("Accuracy by tumour size", "evaluate", assets, outputs, parameters))
        with timed(times, "counter"):
            agreed = self.hospital.counter(first.digest, Change(min_group=10, decimals=4)).digest
        with timed(times, "approve"):
            self.lab.approve(agreed)
        marks = [("ask", time.perf_counter())]
        bundle = self.lab.run(agreed, lambda step, _detail: marks.append((step, time.perf_counter())))
        marks.append(("", time.perf_counter()))
        failure = Statement.parse(bundle.receipt.payload).failure
        if failure is not None:  # a run that failed is quick, and no figure
            raise RuntimeError(f"the run failed at {failure.step}: {failure.code}")
        for (step, began), (_, ended) in pairwise(marks):
            times[f"run: {step}"] = times.get(f"run: {step}", 0.0) + ended - began
        return times, self.lab.home.place("receipts") / f"{bundle.receipt.digest.removeprefix('sha256:')}.json"

    def _features(self) -> list[str]:
        """The model's inputs in its order: every column but the target."""
        header = (self.folder / "records.csv").read_text().splitlines()[0]
        return header.split(",")[:-1]

    def close(self) -> None:
        self.fleet.stop()


@contextmanager
def timed(times: Times, step: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    times[step] = time.perf_counter() - began


def child(folder: Path) -> None:
    """Start the processes, tell the story once, say how long each took; the parent's clock holds the whole."""
    stage = Stage(folder)
    times: Times = {"start": stage.start_s}
    try:
        times.update(stage.tell()[0])
        print(json.dumps(times), flush=True)
    finally:
        stage.close()


def from_nothing(folder: Path) -> Times:
    """Everything from the start of a Python process on: imports, starting the roles, the story.

    Returns:
        seconds of each step, and ``whole``: until the receipt is verified, before the processes end.
    """
    began = time.perf_counter()
    command = [sys.executable, str(Path(__file__).resolve()), "--child", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        whole = time.perf_counter() - began
        process.stdout.read()
    if process.returncode != 0:
        raise RuntimeError("the story did not come to its end")
    return {**json.loads(line), "whole": whole}


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
        up: with the processes up and idle.
        at_once: once more, right after the last.
        started: with starting the processes.
        first: seconds to start them where this installation never ran.
    """

    up: list[Times]
    at_once: Times
    started: list[Times]
    first: float


def measure() -> Measured:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(
            folder / "cache"
        )  # so that the first start is a first one, and leaves nothing behind
        stage = Stage(folder)
        up: list[Times] = []
        try:
            for _ in range(REPEATS):
                time.sleep(PAUSE_S)
                up.append(stage.tell()[0])
            at_once = stage.tell()[0]
        finally:
            stage.close()
        return Measured(up, at_once, [from_nothing(folder) for _ in range(REPEATS)], stage.start_s)


def medians(found: list[Times]) -> Times:
    return {step: statistics.median(times.get(step, 0.0) for times in found) for step in found[-1]}


def figures() -> list[dict[str, Any]]:
    found = measure()
    wholes = [sum(times.values()) for times in found.up]
    from_start = medians(found.started)
    rows = [
        row("propose to verified receipt, processes up", statistics.median(wholes), 1.5, f"{PROCESSES}{REPEATS}"),
        row("the same, slowest repeat", max(wholes), None, f"of {REPEATS}"),
        row("the same, right after another", sum(found.at_once.values()), None, "the next sandbox is still loading"),
        row("propose to verified receipt, starting the processes", from_start["whole"], 4, f"{PROCESSES}{REPEATS}"),
        row("the processes' start in it", from_start["start"], None, "where they ran before"),
        row("the processes' very first start", found.first, None, "compiles the enclave's bytecode, once an installation"),
    ]
    rows += [row(f"step, processes up: {step}", seconds, None, "median") for step, seconds in medians(found.up).items()]
    return rows + [
        row(f"step, starting them: {step}", seconds, None, "median")
        for step, seconds in from_start.items()
        if step != "whole"
    ]


def row(name: str, seconds: float, goal: float | None, beside: str) -> dict[str, Any]:
    return {
        "name": name,
        "value": round(seconds, 3),
        "unit": "s",
        "goal": goal,
        "better": "lower",
        "compared_with": beside,
    }


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(Path(sys.argv[2]))
        return
    for found in figures():
        goal = "" if found["goal"] is None else f"goal {found['goal']}"
        print(f"{found['name']:<55}{found['value']:>8} {found['unit']:<3}{goal:<10}{found['compared_with']}")


if __name__ == "__main__":
    main()
