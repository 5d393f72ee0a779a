"""How long it takes to verify one receipt with everything at hand: as a command, and as a call."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from story import Stage

from strongroom.receipt import Bundle, verify

COMMANDS, CALLS = 20, 200


def seconds(run: Callable[[], object], times: int) -> list[float]:
    found = []
    for _ in range(times + 1):  # the first warms up and is dropped
        began = time.perf_counter()
        run()
        found.append(time.perf_counter() - began)
    return found[1:]


def figures() -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as name:
        stage = Stage(Path(name))
        try:
            receipt = stage.tell()[1]
        finally:
            stage.close()
        strongroom = Path(sys.executable).with_name("strongroom")
        command = [str(strongroom), "verify", str(receipt), "--home", name, "--as", "lab"]

        def run(command: list[str]) -> None:
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

        as_command = statistics.median(seconds(lambda: run(command), COMMANDS)) * 1000
        bare = statistics.median(seconds(lambda: run([sys.executable, "-c", "pass"]), COMMANDS)) * 1000
        trust, data = stage.lab.trust, receipt.read_bytes()
        as_call = statistics.median(seconds(lambda: verify(Bundle.parse(data), trust=trust), CALLS)) * 1000
    return [
        row("strongroom verify, as a command", as_command, 150, f"whole process, median of {COMMANDS}"),
        row("python -c pass, in the same run", bare, None, f"median of {COMMANDS}"),
        row("parse and verify, as a call", as_call, 5, f"{len(data):,} bytes of bundle, median of {CALLS}"),
    ]


def row(name: str, value: float, goal: float | None, beside: str) -> dict[str, Any]:
    return {"name": name, "value": round(value, 2), "unit": "ms", "goal": goal, "better": "lower", "compared_with": beside}


def main() -> None:
    for found in figures():
        goal = "" if found["goal"] is None else f"goal {found['goal']}"
        print(f"{found['name']:<40}{found['value']:>8} {found['unit']:<4}{goal:<10}{found['compared_with']}")


if __name__ == "__main__":
    main()
