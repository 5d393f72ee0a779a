"""How long hostile bytes hold a reader, and how much room they take: of every parser, up to its cap.

The bytes are those of ``tests/hostile.py``. A figure is of the worst of them: the shortest of five readings each, in the
processor's time, because it is the reader that is measured and not the machine's other work.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import hostile
from hostile import MOST_MEMORY, PARSERS, SECONDS

CANDIDATES = 6  # of one parser: those that took longest once are read again
ROUNDS = 5
LIMIT_SECONDS = 1200
Row = dict[str, Any]


def worst(name: str) -> tuple[float, str, int, int]:
    """Of one parser: seconds, on what, and the bytes that Python held and by which the process grew at most."""
    parser = PARSERS[name]
    once = [(hostile.seconds(parser, data), what, data) for what, data in hostile.attacks(parser)]
    slow = sorted(once, key=lambda one: -one[0])[:CANDIDATES]
    again = [(hostile.seconds(parser, data, ROUNDS, clock=time.process_time), what, data) for _, what, data in slow]
    took, what, data = max(again, key=lambda one: one[0])
    held = max(hostile.allocated(parser, data) for _, _, data in once)
    return took, what, held, hostile.resident(parser, data) or 0


def figures() -> list[Row]:
    rows, held = [], {}
    for name in PARSERS:
        took, what, bytes_held, grown = worst(name)
        held[name] = max(bytes_held, grown)
        rows.append(
            row(f"{name}: the slowest to read", took * 1e3, "ms", SECONDS * 1e3, f"{what[:60]}, at most {size(name)}")
        )
    most = max(held, key=lambda name: held[name])
    rows.append(row("the most memory that any takes", held[most] / 1e6, "MB", MOST_MEMORY / 1e6, most))
    return rows


def size(name: str) -> str:
    most = PARSERS[name].most
    return f"{most >> 10} KiB" if most >> 10 else f"{most} bytes"


def row(name: str, value: float, unit: str, goal: float, beside: str) -> Row:
    return {"name": name, "value": round(value, 3), "unit": unit, "goal": goal, "better": "lower", "compared_with": beside}


def main() -> None:
    for found in figures():
        print(f"{found['name']:<64}{found['value']:>9} {found['unit']:<4}goal {found['goal']:<7} {found['compared_with']}")


if __name__ == "__main__":
    main()
