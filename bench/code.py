"""A researcher's own code: from submitting it to a verified receipt, what a second run waits for, what the sandbox costs.

A lab and a hospital with the roles as processes. The lab submits a small analysis over the hospital's table, the hospital
approves, the enclave runs it, the lab verifies and opens the result. Every figure is a median.
"""

from __future__ import annotations

import hashlib
import io
import statistics
import tempfile
import time
import zipfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from strongroom.app.cli.fleet import Fleet
from strongroom.app.cli.parties import make
from strongroom.app.client.analysis import gather
from strongroom.app.client.home import Home, read, reference
from strongroom.app.client.room import Room
from strongroom.app.enclave.environments import Environments
from strongroom.app.enclave.wheels import Place
from strongroom.enclave import sandbox
from strongroom.lock import Lock
from strongroom.policy import ANY_PARTY, OutputRule, Policy
from strongroom.programs import OutputSpec, code
from strongroom.schema import ANY_SCHEMA

REPEATS, PAUSE_S = 7, 4.0
ROWS = 10_000
ANALYSIS = "def mean(census):\n    return {'mean': {'age': float(census['age'].mean()), 'n': len(census)}}\n"
LOCKED = "import small_package\n\n\n" + ANALYSIS
_NUMBER = {"maximum": ROWS, "minimum": 0, "type": "number"}
SCHEMA = {"properties": {"age": _NUMBER, "n": _NUMBER}, "type": "object"}
NOTHING = "def f(census):\n    return {'out': 1}\n"
PROCESSES = f"an exchange, two brokers, an enclave with pandas; {ROWS} rows, median of {REPEATS}"


@dataclass
class Opened:
    media_type: str
    size: int
    file: BinaryIO


def median(action: Callable[[], object], repeats: int = REPEATS) -> float:
    """Seconds; one time more than said, for the caches."""
    times = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def wheel(folder: Path) -> str:
    """A wheel of one module; its line of a lock."""
    folder.mkdir(parents=True, exist_ok=True)
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr(zipfile.ZipInfo("small_package.py"), "ANSWER = 42\n")
        about = "Metadata-Version: 2.1\nName: small-package\nVersion: 1.0\n"
        archive.writestr(zipfile.ZipInfo("small_package-1.0.dist-info/METADATA"), about)
    (folder / "small_package-1.0-py3-none-any.whl").write_bytes(sink.getvalue())
    return f"small-package==1.0 --hash=sha256:{hashlib.sha256(sink.getvalue()).hexdigest()}\n"


class Stage:
    """Two parties who trust each other, the hospital with a table, and an enclave that has a wheel."""

    def __init__(self, folder: Path) -> None:
        home = Home(folder)
        for name in ("lab", "hospital"):
            make(home, name)
        self.folder, self.fleet = folder, Fleet(home, ["data"])
        (folder / "requirements.lock").write_text(wheel(folder / "enclave" / "wheels"))
        self.fleet.start()
        where = {"exchange": self.fleet.config.exchange, "enclave": self.fleet.config.enclave}
        self.lab, self.hospital = (Room(home.party(name), **where) for name in ("lab", "hospital"))
        values = reference(read(self.fleet.reference()))
        for me, other in ((self.lab, self.hospital), (self.hospital, self.lab)):
            trust = me.trust.pin(other.home.card).with_enclaves(values.roots, values.measurements)
            me.home.save_trust(trust.with_log(values.logs[0]))
        table = folder / "census.csv"
        table.write_text("age,group\n" + "".join(f"{n % 90},{'ab'[n % 2]}\n" for n in range(ROWS)))
        terms = Policy(frozenset({"analyse"}), {"values": OutputRule(ANY_PARTY, 1 << 20, 1, 15, schema=ANY_SCHEMA)})
        self.hospital.seal(table, terms=terms, name="census")

    def tell(self, text: str, lock: Path | None) -> float:
        """The story once; seconds from submitting to the opened result."""
        path = self.folder / "analysis.py"
        path.write_text(text)
        began = time.perf_counter()
        inputs, outputs = {"census": "hospital/census"}, {"mean": "values:lab"}
        digest = self.lab.submit(
            path, entry="analysis:mean", inputs=inputs, outputs=outputs, lock=lock, schemas={"mean": SCHEMA}
        ).digest
        self.hospital.approve(digest)
        self.lab.run(digest)
        if not self.lab.outputs(digest):  # a run that failed is quick, and no figure
            raise RuntimeError("the run failed")
        return time.perf_counter() - began

    def times(self, text: str, lock: Path | None = None) -> list[float]:
        found = []
        for _ in range(REPEATS + 1):
            found.append(self.tell(text, lock))
            time.sleep(PAUSE_S)
        return found

    def close(self) -> None:
        self.lab.close()
        self.hospital.close()
        self.fleet.stop()


def story(folder: Path) -> list[dict[str, Any]]:
    with closing(Stage(folder)) as stage:
        plain, locked = stage.times(ANALYSIS), stage.times(LOCKED, folder / "requirements.lock")
    middle = statistics.median
    return [
        row("submit to result", middle(plain[1:]), "s", 1.5, PROCESSES),
        row("submit to result, the first", plain[0], "s", None, "nothing stands ready for code"),
        row("submit to result with packages of a lock", middle(locked[1:]), "s", 1.5, PROCESSES),
        row("submit to result with packages, the first", locked[0], "s", None, "the environment is built"),
    ]


def alone(folder: Path) -> list[dict[str, Any]]:
    """What runs without roles: starting with a lock, and what confining costs."""
    folder.mkdir()
    lock = Lock.parse(wheel(folder / "wheels"))
    environments = Environments(folder / "environments", Place(folder / "wheels"))
    mounted = environments.get(lock)

    def second(form: str) -> None:
        known = Environments(folder / "environments", Place(folder / "wheels")).get(lock)  # checked as by a new process
        with sandbox.prepare("code", outputs=(form, "values"), mounted=known) as room:
            room.wait()

    path = folder / "analysis.py"
    path.write_text(NOTHING)
    bundle = gather(path, entry="analysis:f").bundle
    said = {
        "arguments": {},
        "bundle": bundle.digest,
        "entry": "analysis:f",
        "environment": None,
        "inputs": {"census": "file"},
        "outputs": {"out": "values"},
    }

    def run(kind: str) -> None:
        with sandbox.prepare("code", kind, outputs=code.parts(said)) as room:
            room.give(bundle.encode())
            spec = {"out": OutputSpec("values", 64, 1, 15)}
            room.run(said, {"census": Opened("text/csv", 1, io.BytesIO(b"x"))}, spec, sandbox.Limits(60, 1 << 28, 64))

    inside, outside = median(lambda: run("isolated")), median(lambda: run("process"))
    again = median(lambda: environments.get(lock))
    starts, pandas = median(lambda: second("file")), median(lambda: second("pandas"))
    assert mounted == environments.get(lock)
    return [
        row("a run with a known lock starts, nothing ready", starts * 1e3, "ms", 300.0, "checked, shown, libraries loaded"),
        row("the same with pandas", pandas * 1e3, "ms", None, "an enclave has a child ready where it ran lately"),
        row("a known environment is found again", again * 1e3, "ms", None, "by the process that checked it"),
        row("the sandbox around a run", (inside - outside) * 1e3, "ms", 60.0, "over the same run as a bare process"),
    ]


def figures() -> list[dict[str, Any]]:
    """Rows of ``figures.json``."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        return [*alone(Path(place, "alone")), *story(Path(place, "story"))]


def row(name: str, value: float, unit: str, goal: float | None, compared_with: str) -> dict[str, Any]:
    return {
        "name": f"code: {name}", "value": round(value, 3), "unit": unit, "goal": goal, "better": "lower",
        "compared_with": compared_with,
    }  # fmt: skip


if __name__ == "__main__":
    for figure in figures():
        print(figure)
