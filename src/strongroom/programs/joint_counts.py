"""What each person gives to a ``joint-histogram``, bounded before it is added up, and the report of all of it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from strongroom.errors import TableColumns, TableUnreadable

from . import Input
from .joint_histogram import ENTRIES, FEW, NAME, OTHER, Parameters
from .keyed import LINES, lines, texts
from .keys import LINE, normal
from .private_answers import laplace, within
from .private_answers import rehearse as rehearse_noise
from .rows import batches

FORMAT: Final = "strongroom.report.v1"
JSON: Final = ("application/json",)
JSON_LINES: Final = ("application/jsonl", "application/x-ndjson")
MAX_JSON_BYTES: Final = 64 << 20
"""A list in JSON is held whole; of every other form a batch is held."""

_LONGEST_LINE = 1 << 20

Counts = NDArray[np.int64]


def _member(value: object, column: str) -> str | None:
    found = value.get(column) if isinstance(value, dict) else None
    return found if isinstance(found, str) else None


def _parsed(data: bytes) -> Any:
    """What JSON says, or ``None``."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _json(source: Input, column: str) -> Iterator[list[str | None]]:
    if source.size > MAX_JSON_BYTES:
        raise TableUnreadable("a list in JSON is larger than can be held: write JSON lines", step="read table")
    with source.open() as file:
        found = _parsed(file.read())
    if not isinstance(found, list):
        raise TableUnreadable("the file is no list in JSON", step="read table")
    yield [_member(item, column) for item in found]


def _json_lines(source: Input, column: str) -> Iterator[list[str | None]]:
    with source.open() as file:
        long = False
        while line := file.readline(_LONGEST_LINE):
            if not long and (line.endswith(b"\n") or len(line) < _LONGEST_LINE):
                yield [_member(_parsed(line), column)]
            long = not line.endswith(b"\n")


def _entries(source: Input, column: str) -> Iterator[list[str | None]]:
    """A person's entries, in the order of the file. Raises TableColumns, TableUnreadable: by its form."""
    if source.media_type in LINES:
        if column != LINE:
            raise TableColumns("plain text has one column, which is called line", step="read table")
        return lines(source)
    if source.media_type in JSON:
        return _json(source, column)
    if source.media_type in JSON_LINES:
        return _json_lines(source, column)
    return (texts(batch.column(column)) for batch in batches(source, [column]))


def given(source: Input, said: Parameters) -> Counts:
    """What one person gives: whole numbers, a place for each category and one for all others, at most ``most`` together.

    Raises:
        TableColumns, TableUnreadable: by the form of the file.
    """
    found, places, left = np.zeros(len(said.categories) + 1, dtype=np.int64), said.places, said.most
    for entries in _entries(source, said.column):  # to its end: how long it takes does not tell what stands where
        for entry in entries:
            form = None if entry is None else normal("text", entry)
            if form is None or not left:
                continue
            place = places.get(form, len(said.categories))
            if said.counts == ENTRIES or not found[place]:
                found[place] += 1
                left -= 1
    return found


def report(everybody: Iterable[Counts], said: Parameters, least: int) -> bytes:
    """The report (``spec/output.md``).

    Args:
        everybody: what each gives.
        said: the parameters.
        least: where there is no noise, the fewest people of whom a figure is.
    """
    matrix = np.stack(list(everybody))
    names, metrics = [*said.categories, OTHER], {"most": said.most, "people": len(matrix)}
    totals = [int(n) for n in matrix.sum(axis=0)]
    if said.epsilon is None:
        groups = _of_enough(names, matrix, least)
    else:
        noisy, scale = laplace(totals, said.most, said.epsilon)
        metrics["within"] = off = within(scale)
        groups = [
            {"group": name, "records": max(0, value), "values": {"value": value, "within": off}}
            for name, value in zip(names, noisy, strict=True)
        ]
    total = sum(group["records"] for group in groups)
    table = {"by": said.column, "groups": groups, "name": said.counts, "public": True}
    found = {
        "classes": [],
        "format": FORMAT,
        "matrices": {},
        "metrics": metrics,
        "positive": None,
        "records": max(1, total),  # a report is of something
        "tables": [table] if total else [],
        "task": NAME,
    }
    return json.dumps(found, ensure_ascii=False, sort_keys=True).encode()


def _of_enough(names: list[str], matrix: Counts, least: int) -> list[dict[str, Any]]:
    """Groups to each of which enough people gave. The others are one group, and with them the next smallest, until that is
    of several categories and of enough people too: no subtraction gives away what fewer people did."""
    people, totals = (matrix > 0).sum(axis=0), matrix.sum(axis=0)
    few = {n for n in range(len(names)) if people[n] < least} if least > 1 else set()
    while few and len(few) < len(names):
        together = int((matrix[:, sorted(few)].sum(axis=1) > 0).sum())
        if len(few) > 1 and together >= least:
            break
        few.add(min(set(range(len(names))) - few, key=lambda n: (people[n], totals[n], n)))
    groups = [{"group": name, "records": int(totals[n]), "values": {}} for n, name in enumerate(names) if n not in few]
    if few:
        groups.append({"group": FEW, "records": int(sum(totals[n] for n in few)), "values": {}})
    return groups


def rehearse() -> None:
    """Count and add noise once, so that every library is loaded before there is anything to read."""
    rehearse_noise()
    small = b"a\n"
    said = Parameters(("a",), LINE, ENTRIES, 1, None, ("one", "two"))
    report([given(Input(LINES[0], len(small), lambda: io.BytesIO(small)), said)], said, 1)
