"""Answers of ``private-query``: one pass over the columns that are asked about, exact whole numbers, and noise on those.

What one row can change is bounded before it is added: rows of a unit beyond the agreed number are left out, values are put
within their bounds and on a grid of whole steps. So sensitivities are integers, and OpenDP's mechanisms on integers hold for
them exactly. Nothing that stands in a row can end a run: what is no number is taken for missing.

The memory that a run needs follows from the file's length and the parameters. It is held before the first row is read, so
that no limit on it can tell how many rows or people there are.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import opendp.prelude as dp
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from strongroom.errors import TableNotNumeric

from . import Input, Step
from .private_query import (
    CONFIDENCE,
    FORMAT,
    GRID,
    MAX_FIGURE,
    Parameters,
    Query,
    bands,
    decimal,
    sensitivity,
)
from .rows import ARROW, CSV, batches, rows, texts
from .units import Units, needed

_SLACK_BYTES = 64 << 20  # what reading takes, of any file
_SUMMED_ROWS = 1 << 20  # at a time: of at most 2**41 steps each, they stay within 64 bits
_MOST = 2**62  # sums are put within it: noise is added in 64 bits
_IS_NUMBER = r"^\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?\s*$"

dp.enable_features("contrib")


# --- reading ------------------------------------------------------------------------------------------------------------


def numbers(column: Any) -> NDArray[np.float64]:
    """A column as float64, NaN for what is missing or no number. Raises TableNotNumeric: by its type it holds none."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
        plain = column.cast(pa.binary())
        column = pc.if_else(pc.match_substring_regex(plain, _IS_NUMBER), plain, None).cast(pa.string())
        column = pc.utf8_trim_whitespace(column)
    try:
        return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), dtype=np.float64)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise TableNotNumeric("a column holds something else where numbers must be", step="read table") from None


# --- adding up ----------------------------------------------------------------------------------------------------------


class Tally:
    """What one query needs of the rows, in exact whole numbers.

    Attributes:
        counts: rows, by cell.
        sums: whole steps, by cell; of a mean from the middle of the bounds.
    """

    def __init__(self, query: Query) -> None:
        self._query = query
        cells = {"histogram": len(query.edges) + 1, "quantile": GRID}.get(query.ask, max(1, len(query.categories)))
        self.counts = [0] * cells
        self.sums = [0] * cells
        low, high = query.span
        self.middle = (low + high) // 2 if query.ask == "mean" else 0
        self._categories = [name.encode() for name in query.categories]

    @property
    def reach(self) -> int:
        """How far a value of a mean can be from the middle, in whole steps."""
        low, high = self._query.span
        return max(high - self.middle, self.middle - low)

    def add(self, batch: Any, kept: NDArray[np.bool_]) -> None:
        """Some rows more. Raises TableNotNumeric."""
        query, cells = self._query, np.zeros(len(kept), dtype=np.int64)
        if query.by:
            cells = np.full(len(kept), -1, dtype=np.int64)
            column = texts(batch.column(query.by))
            for place, name in enumerate(self._categories):
                cells[np.asarray(pc.fill_null(pc.equal(column, pa.scalar(name, pa.binary())), False))] = place
        kept = kept & (cells >= 0)
        if query.column:
            values = numbers(batch.column(query.column))
            kept &= ~np.isnan(values)
            values = values[kept]
            cells = cells[kept] if query.ask in ("mean", "sum") else self._cells(values)
        else:
            values, cells = np.zeros(0), cells[kept]
        for cell, count in enumerate(np.bincount(cells, minlength=len(self.counts)).tolist()):
            self.counts[cell] += count
        if query.ask in ("mean", "sum"):
            self._sum(values, cells)

    def _cells(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """In which band of a histogram, or cell of a quantile's grid, each value is."""
        query = self._query
        if query.ask == "histogram":
            return np.searchsorted(np.array([float(edge) for edge in query.edges]), values, side="right").astype(np.int64)
        low, high = float(query.lower), float(query.upper)
        place = (np.clip(values, low, high) - low) / (high - low) * GRID
        return np.clip(np.floor(place), 0, GRID - 1).astype(np.int64)

    def _sum(self, values: NDArray[np.float64], cells: NDArray[np.int64]) -> None:
        query, (low, high) = self._query, self._query.span
        inside = np.clip(values, float(query.lower), float(query.upper)) / float(query.step)
        steps = np.clip(np.rint(inside).astype(np.int64), low, high) - self.middle
        for cell in np.unique(cells).tolist():
            own = steps[cells == cell]
            self.sums[cell] += sum(int(own[at : at + _SUMMED_ROWS].sum()) for at in range(0, len(own), _SUMMED_ROWS))


def slack(source: Input) -> int:
    """Bytes of memory that reading may take beside the units: an Arrow file may be one batch."""
    return _SLACK_BYTES + (2 * source.size if source.media_type in ARROW else 0)


def memory(source: Input, parameters: Parameters) -> int:
    """Bytes of memory that a run takes at most, of what is public: the file's media type and length, and the parameters."""
    return slack(source) + (needed(source.size, parameters.rows) if parameters.unit else 0)


def answer(source: Input, parameters: Parameters, step: Step) -> bytes:
    """Every answer, as JSON.

    Raises:
        TableColumns, TableNotNumeric, TableUnreadable: by the form of the table, and not by what stands in its rows.
        MemoryError: there is less than what such a file may need, whatever stands in it.
    """
    step("read table", 0)
    tallies = [Tally(query) for query in parameters.queries]
    units = Units(parameters.rows, source.size) if parameters.unit else None
    np.full(slack(source), 1, dtype=np.uint8)  # it is there, or the run ends here
    wanted = {name for q in parameters.queries for name in (q.column, q.by) if name}
    wanted |= {parameters.unit} if parameters.unit else set()
    for batch in batches(source, sorted(wanted)) if wanted else rows(source):
        kept = np.ones(batch.num_rows, dtype=bool) if units is None else units.keep(texts(batch.column(parameters.unit)))
        for tally in tallies:
            tally.add(batch, kept)
    step("measure", 900)
    pairs = zip(parameters.queries, tallies, strict=True)
    answers = {query.name: told(query, tally, parameters.rows) for query, tally in pairs}
    unit = {"column": parameters.unit, "rows": parameters.rows} if parameters.unit else None
    found = {"answers": answers, "confidence": CONFIDENCE, "epsilon": decimal(parameters.epsilon), "format": FORMAT}
    return json.dumps({**found, "unit": unit}, sort_keys=True).encode()


# --- noise --------------------------------------------------------------------------------------------------------------


def scale_for(distance: int, epsilon: Fraction, made: Callable[[float], Any]) -> Any:
    """A mechanism whose own map says that it costs no more than an epsilon.

    Args:
        distance: how far two inputs can be apart.
        epsilon: at most.
        made: a mechanism of a scale.
    """
    scale, most = math.nextafter(distance / float(epsilon), math.inf), float(epsilon)
    while True:
        found = made(scale)
        if Fraction(found.map(distance)) <= epsilon:
            return found, scale
        scale *= 1 + 1e-12 + max(0.0, found.map(distance) / most - 1)


def laplace(counts: list[int], distance: int, epsilon: Fraction) -> tuple[list[int], float]:
    """Whole numbers with discrete Laplace noise, and its scale.

    Args:
        counts: exact.
        distance: how much one unit changes all of them together.
        epsilon: what it may cost.
    """
    domain, metric = dp.vector_domain(dp.atom_domain(T="i64")), dp.l1_distance(T="i64")
    mechanism, scale = scale_for(distance, epsilon, lambda s: dp.m.make_laplace(domain, metric, scale=s))
    return [int(n) for n in mechanism([max(-_MOST, min(_MOST, c)) for c in counts])], scale


def within(scale: float, miss: float = 0.05) -> int:
    """How far discrete Laplace noise of a scale is off at most, but for this share of times."""
    tail = math.log(2 / (miss * (1 + math.exp(-1 / scale))))
    return max(0, math.ceil(scale * tail - 1))


def told(query: Query, tally: Tally, rows: int) -> dict[str, Any]:
    """The answer to one query, with noise."""
    found: dict[str, Any] = {"ask": query.ask, "epsilon": decimal(query.epsilon)}
    if query.ask == "quantile":
        return {**found, **_quantile(query, tally.counts, rows)}
    if query.ask == "mean":
        cells = _means(query, tally, rows)
    else:
        exact = tally.sums if query.ask == "sum" else tally.counts
        noisy, scale = laplace(exact, sensitivity(query, rows), query.epsilon)
        step = float(query.step) if query.ask == "sum" else 1
        cells = [{"value": _figure(value * step), "within": _figure(within(scale) * step)} for value in noisy]
    if query.ask == "histogram":
        return {**found, "bands": [{**cell, "band": name} for cell, name in zip(cells, bands(query), strict=True)]}
    if query.by:
        return {**found, "groups": [{**cell, "group": name} for cell, name in zip(cells, query.categories, strict=True)]}
    return {**found, **cells[0]}


def _figure(value: float) -> float:
    """A figure that a number in JSON can be."""
    return max(-MAX_FIGURE, min(MAX_FIGURE, value))


def _means(query: Query, tally: Tally, rows: int) -> list[dict[str, Any]]:
    """Noisy sums over noisy counts, half of the epsilon for each."""
    half, reach, (low, high) = query.epsilon / 2, tally.reach, query.span
    sums, sum_scale = laplace(tally.sums, rows * reach, half)
    counts, count_scale = laplace(tally.counts, rows, half)
    off_sum, off_count, step = within(sum_scale, 0.025), within(count_scale, 0.025), float(query.step)
    cells = []
    for total, count in zip(sums, counts, strict=True):
        mean = min(high, max(low, tally.middle + total / max(1, count)))
        # |S/N - s/n| <= (|S|/N |n - N| + |s - S|) / n, and no value is further from the middle than the reach
        off = (reach * off_count + off_sum) / count + 1 if count > off_count else high - low
        cells.append({"value": mean * step, "within": min(off, high - low) * step})
    return cells


def _quantile(query: Query, counts: list[int], rows: int) -> dict[str, Any]:
    """The point of the grid whose rank is nearest, by a noisy choice."""
    num, den = query.at.numerator, query.at.denominator
    below = np.concatenate([[0], np.cumsum(np.array(counts, dtype=np.int64))])
    scores = np.abs(den * below - num * below[-1])
    distance = rows * max(num, den - num)
    domain, metric = dp.vector_domain(dp.atom_domain(T="i64")), dp.linf_distance(T="i64")

    def made(scale: float) -> Any:
        return dp.m.make_noisy_max(domain, metric, dp.max_divergence(), scale=scale, negate=True)

    mechanism, scale = scale_for(distance, query.epsilon, made)
    place = int(mechanism(scores.tolist()))
    grid = (query.upper - query.lower) / GRID
    off = math.ceil(scale * math.log((GRID + 1) / 0.05) / den)
    return {"grid": float(grid), "value": float(query.lower + place * grid), "within_rows": _figure(off)}


def rehearse() -> None:
    """Answer something, so that every library is loaded, with its threads, before there is anything to read."""
    small = b"a,b\n1,x\n"
    for _ in batches(Input(CSV[0], len(small), lambda: io.BytesIO(small)), ["a"]):
        laplace([1], 1, Fraction(1))
