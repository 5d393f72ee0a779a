"""How long installing takes and how much it puts on the disk, from a warm package cache; and ``make demo`` in a fresh clone.

Each install is done twice, into an environment of its own; the first fills the cache and is dropped. Sizes are what the
install adds to a bare environment, bytecode included.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SLOW = True
HERE = Path(__file__).resolve().parents[1]
UV = Path(sys.executable).with_name("uv")


def run(command: Sequence[str | Path], folder: Path = HERE, environment: dict[str, str] | None = None) -> str:
    ran = subprocess.run(
        [str(part) for part in command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if ran.returncode != 0:
        raise RuntimeError(f"{command[0]} ended with {ran.returncode}: {(ran.stderr or ran.stdout)[-400:]}")
    return ran.stdout


def size(folder: Path) -> int:
    """Bytes of every file in a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())


def install(folder: Path, lock: str, wheel: Path, installer: str) -> tuple[float, float]:
    """A fresh environment with what a lock names and the package itself: seconds, MB added."""
    shutil.rmtree(folder, ignore_errors=True)
    began = time.perf_counter()
    run([sys.executable, "-m", "venv", folder])
    created = time.perf_counter()
    bare = size(folder)
    python = folder / "bin" / "python"
    if installer == "uv":
        start: list[str | Path] = [UV, "pip", "install", "--python", python, "--compile-bytecode"]
    else:
        start = [python, "-m", "pip", "install"]
    continued = time.perf_counter()
    run([*start, "--no-deps", "--require-hashes", "-r", HERE / "locks" / f"{lock}.txt"])
    run([*start, "--no-deps", wheel])
    spent = time.perf_counter() - continued + created - began
    run([folder / "bin" / "strongroom", "--help"])
    return spent, (size(folder) - bare) / 1e6


def clone(folder: Path) -> None:
    """What git holds or would hold of this tree, as a fresh clone has it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=HERE, capture_output=True, check=True
    )
    for name in listed.stdout.decode().split("\0"):
        source, target = HERE / name, folder / name
        if name and source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def figures() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder])
        wheel = next(folder.glob("*.whl"))
        for lock, label, most_s, most_mb in (("core", "strongroom", 20, 100), ("room", "strongroom[room]", 60, 650)):
            for installer in ("pip", "uv"):
                print(f"  {label} with {installer} ...", file=sys.stderr, flush=True)
                install(folder / "venv", lock, wheel, installer)
                seconds, mb = install(folder / "venv", lock, wheel, installer)
                beside = "locked, with python -m venv, warm cache"
                rows.append(row(f"installing {label} with {installer}", seconds, "s", most_s, beside))
                rows.append(row(f"{label} on the disk, by {installer}", mb, "MB", most_mb, "bytecode included"))
        print("  make demo in a fresh clone ...", file=sys.stderr, flush=True)
        clone(folder / "clone")
        caches = {
            "PIP_CACHE_DIR": run([sys.executable, "-m", "pip", "cache", "dir"]).strip(),
            "UV_CACHE_DIR": run([UV, "cache", "dir"]).strip(),
            "XDG_CACHE_HOME": str(folder / "cache"),  # packages are at hand, the enclave's bytecode is not
        }
        began = time.perf_counter()
        run(["make", "demo"], folder / "clone", {**os.environ, **caches})
        rows.append(row("make demo in a fresh clone", time.perf_counter() - began, "s", 120, "set-up included, warm cache"))
    return rows


def row(name: str, value: float, unit: str, goal: float, beside: str) -> dict[str, Any]:
    return {"name": name, "value": round(value, 1), "unit": unit, "goal": goal, "better": "lower", "compared_with": beside}


def main() -> None:
    for found in figures():
        print(f"{found['name']:<45}{found['value']:>7} {found['unit']:<3} goal {found['goal']:<5} {found['compared_with']}")


if __name__ == "__main__":
    main()
