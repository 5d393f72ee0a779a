"""The calibration picture: what the model said against what was so, by bin, as a PNG.

Bins with fewer records than the agreed smallest group are joined with their neighbours, so that every point stands for at
least that many, and points are rounded as the rule says before they are drawn. The same records give the same bytes.
"""

from __future__ import annotations

import io
import logging

import numpy as np
from numpy.typing import NDArray

logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it would tell of the home folder that there is not

from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402 - see above
from matplotlib.figure import Figure  # noqa: E402

BINS = 10


def bins(predicted: NDArray[np.float64], edges: NDArray[np.float64], smallest: int) -> list[NDArray[np.intp]]:
    """The records of each bin, by index.

    Args:
        predicted: [records].
        edges: inner edges, rising.
        smallest: the fewest records in a bin. Fewer records than that in all have no bin.
    """
    place = np.searchsorted(edges, predicted, side="right")
    found: list[NDArray[np.intp]] = []
    for n in range(len(edges) + 1):
        records = np.flatnonzero(place == n)
        if found and len(found[-1]) < smallest:
            found[-1] = np.concatenate([found[-1], records])
        elif len(records):
            found.append(records)
    if len(found) > 1 and len(found[-1]) < smallest:
        found[-2:] = [np.concatenate(found[-2:])]
    return found if found and len(found[0]) >= smallest else []


def calibration(
    predicted: NDArray[np.float64], truth: NDArray[np.float64], *, chance: bool, what: str, smallest: int, decimals: int
) -> bytes:
    """The picture.

    Args:
        predicted: [records], chances or numbers.
        truth: [records], nought or one, or numbers.
        chance: whether ``predicted`` are chances: ten bins from nought to one; else bins of as many records each.
        what: of what, for the axes.
        smallest: the fewest records in a bin.
        decimals: decimal places that a point keeps.

    Returns:
        a PNG without metadata.
    """
    inner = np.linspace(0, 1, BINS + 1)[1:-1]
    found = bins(predicted, inner if chance else np.unique(np.quantile(predicted, inner)), smallest)
    x = [round(float(predicted[records].mean()), decimals) for records in found]
    y = [round(float(truth[records].mean()), decimals) for records in found]
    figure = Figure(figsize=(5, 4.2), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.14, 0.12, 0.82, 0.8))
    ends = (0.0, 1.0) if chance else (min([*x, *y], default=0.0), max([*x, *y], default=1.0))
    axes.plot(ends, ends, color="#999999", linewidth=1, linestyle="--", label="perfect")
    axes.plot(x, y, color="#1f5fa8", marker="o", label=f"model ({len(found)} bins of at least {smallest})")
    axes.set_xlabel(f"predicted {what}")
    axes.set_ylabel(f"observed {what}")
    axes.set_title("Calibration")
    axes.grid(color="#eeeeee")
    axes.legend(loc="upper left")
    out = io.BytesIO()
    canvas.print_png(out, metadata={"Software": None})  # type: ignore[no-untyped-call]
    return out.getvalue()


def rehearse() -> None:
    """Draw once, of nothing, so that fonts and layout are in memory before there is anything to draw."""
    nothing = np.zeros(1)
    calibration(nothing, nothing, chance=True, what="share", smallest=1, decimals=1)
