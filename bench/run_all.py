"""Every published figure again: runs each script here that has ``figures()``, prints a table, writes ``figures.json``.

A script is a process of its own, with a time limit (``LIMIT_SECONDS`` in it, else ten minutes); one with ``SLOW = True`` is
left out by ``--quick``. What was not measured is not in the file: the figures of a script that fails are taken out of it.
With ``--only`` or ``--quick`` the figures of scripts that were not asked for stay, each under its own date.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
FIGURES = HERE / "figures.json"
LIMIT_SECONDS = 600
MEMBERS = {"name", "value", "unit", "goal", "better", "compared_with"}
CHILD = """
import json, runpy, sys
sys.path[0] = sys.argv[1]
found = runpy.run_path(sys.argv[2])["figures"]()
with open(sys.argv[3], "w") as sink:
    json.dump(found, sink)
"""

Figure = dict[str, Any]


class NotMeasured(Exception):
    """A script that gave no figures, and why."""


@dataclass(frozen=True)
class Script:
    """A script with figures.

    Attributes:
        name: the file's, without its suffix; every figure's name begins with it.
        slow: left out by ``--quick``.
        limit: seconds that it may take.
    """

    name: str
    slow: bool
    limit: int

    @classmethod
    def read(cls, path: Path) -> Script | None:
        """What a file declares, without running it; ``None`` where it has no figures."""
        constants: dict[str, Any] = {}
        functions = set()
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef):
                functions.add(node.name)
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
                constants.update((target.id, node.value.value) for target in node.targets if isinstance(target, ast.Name))
        if "figures" not in functions:
            return None
        return cls(path.stem, bool(constants.get("SLOW", False)), int(constants.get("LIMIT_SECONDS", LIMIT_SECONDS)))

    def label(self, name: str) -> str:
        """A figure's name among those of all scripts."""
        return f"{self.name}: {name.removeprefix(f'{self.name}: ')}"

    def measure(self) -> list[Figure]:
        """Raises NotMeasured."""
        # Interpreters here compile what they import, as on any machine; some build machines turn that off.
        environment = {k: v for k, v in os.environ.items() if k not in {"PYTHONDONTWRITEBYTECODE", "PYTHONPATH"}}
        with tempfile.TemporaryDirectory() as folder:
            answer = Path(folder) / "figures.json"
            command = [sys.executable, "-c", CHILD, str(HERE), str(HERE / f"{self.name}.py"), str(answer)]
            try:
                ran = subprocess.run(command, env=environment, timeout=self.limit, check=False)
            except subprocess.TimeoutExpired as error:
                raise NotMeasured(f"took longer than {self.limit} s") from error
            if ran.returncode != 0:
                raise NotMeasured(f"ended with status {ran.returncode}")
            found: list[Figure] = json.loads(answer.read_bytes())
        if not found or any(set(figure) != MEMBERS for figure in found):
            raise NotMeasured(f"a figure must have exactly {', '.join(sorted(MEMBERS))}")
        return found


def machine() -> str:
    """What it was measured on: processor, cores, memory, interpreter. No host name."""
    cpu = platform.processor() or platform.machine()
    about = Path("/proc/cpuinfo")
    if about.exists():
        models = [line.partition(":")[2].strip() for line in about.read_text().splitlines() if line.startswith("model name")]
        cpu = models[0] if models else cpu
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{cpu}, {cores} cores, {memory:.0f} GiB, {python}, {platform.system()}"


def met(figure: Figure) -> str:
    """``met``, ``MISSED``, or nothing where there is no goal."""
    value, goal = figure["value"], figure["goal"]
    if goal is None:
        return ""
    return "met" if (value <= goal if figure["better"] == "lower" else value >= goal) else "MISSED"


def table(figures: list[Figure]) -> str:
    lines = []
    widest = max(len(figure["name"]) for figure in figures)
    for figure in figures:
        sign = "<=" if figure["better"] == "lower" else ">="
        goal = "" if figure["goal"] is None else f"{sign} {figure['goal']:g}"
        value = f"{figure['value']:>10g} {figure['unit']:<5}"
        lines.append(f"{figure['name']:<{widest}} {value} {goal:<9} {met(figure):<7} {figure['compared_with']}".rstrip())
    return "\n".join(lines)


def kept() -> list[Figure]:
    return json.loads(FIGURES.read_bytes()) if FIGURES.exists() else []


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure every published figure again.")
    parser.add_argument("--only", action="append", metavar="NAME", help="only this script; may be said again")
    parser.add_argument("--quick", action="store_true", help="leave out what takes minutes")
    args = parser.parse_args()
    scripts = {s.name: s for path in sorted(HERE.glob("*.py")) if (s := Script.read(path))}
    unknown = set(args.only or ()) - set(scripts)
    if unknown:
        parser.error(f"no figures in {', '.join(sorted(unknown))}; there are {', '.join(scripts)}")
    asked = [s for s in scripts.values() if (s.name in args.only if args.only else not (args.quick and s.slow))]
    stays = set() if len(asked) == len(scripts) else set(scripts) - {s.name for s in asked}
    figures = [figure for figure in kept() if figure["name"].partition(": ")[0] in stays]
    failed, stamp = [], {"machine": machine(), "date": datetime.now(UTC).strftime("%Y-%m-%d")}
    for script in asked:
        print(f"{script.name} ...", flush=True)
        began = time.monotonic()
        try:
            found = [{**figure, "name": script.label(figure["name"]), **stamp} for figure in script.measure()]
        except NotMeasured as error:
            failed.append(script.name)
            print(f"{script.name}: not measured: {error}", file=sys.stderr, flush=True)
            continue
        print(f"{table(found)}\n{script.name} took {time.monotonic() - began:.0f} s\n", flush=True)
        figures += found
    figures.sort(key=lambda figure: list(scripts).index(figure["name"].partition(": ")[0]))
    FIGURES.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    missed = [figure["name"] for figure in figures if met(figure) == "MISSED"]
    with_goal = sum(figure["goal"] is not None for figure in figures)
    print(f"{len(figures)} figures in bench/{FIGURES.name}; {with_goal - len(missed)} of {with_goal} goals met")
    for name in missed:
        print(f"  missed: {name}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
