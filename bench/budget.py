"""What a budget costs a decision: composing a history of charges anew, and finding one again."""

from __future__ import annotations

import statistics
import time
from typing import Any

from strongroom.budget import composition
from strongroom.budget.charge import Event
from strongroom.budget.composition import spent

DELTA = "0.000001"
ROUNDS = 5
USUAL = [
    Event("gaussian", 40, noise_multiplier="12.5"),
    *(Event("laplace", 10, noise_multiplier=f"{50 + n}") for n in range(10)),
]
LONG = [Event("laplace", 1, noise_multiplier=f"{500 + n}.5") for n in range(5000)]
OFTEN = [Event("laplace", 100_000, noise_multiplier="1000"), Event("gaussian", 10**9, noise_multiplier="100000")]


def seconds(events: list[Event]) -> tuple[float, float]:
    """Composed anew, and found again: medians over rounds."""
    anew, again = [], []
    for _ in range(ROUNDS):
        composition._spent.cache_clear()  # noqa: SLF001 - what is measured is its absence
        for times in (anew, again):
            began = time.perf_counter()
            spent(events, DELTA)
            times.append(time.perf_counter() - began)
    return statistics.median(anew), statistics.median(again)


def figures() -> list[dict[str, Any]]:
    spent(USUAL, DELTA)  # loads the accountant
    found = []
    for name, events, goal in (
        ("500 charges of 11 kinds", USUAL, 0.5),
        ("one event 100,000 times, another 10^9 times", OFTEN, 0.5),
        ("5,000 events, each another", LONG, 10.0),
    ):
        anew, again = seconds(events)
        compared = f"found again in {again * 1000:.1f} ms; epsilon {spent(events, DELTA)} at delta {DELTA}"
        figure = {"name": f"budget: composing {name}", "value": round(anew, 3), "unit": "s", "goal": goal}
        found.append({**figure, "better": "lower", "compared_with": compared})
    return found


if __name__ == "__main__":
    for figure in figures():
        print(figure)
