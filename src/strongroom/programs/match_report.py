"""``match-report``: before tables of several owners are joined, how well they fit together, in counts alone.

Inputs: one for each owner (CSV, Parquet, Arrow or plain text), in roles that the parameters name. Output: ``report``. The
keys are those of ``strongroom.programs.joined``, which code in a room joins with: what is counted here is what will be
joined. Parameters and output are written down in ``spec/programs.md``.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any, Final

from . import Input, OutputKind, OutputSpec, Step, Write
from .keys import Keyed, keyed
from .parameters import Checks

NAME: Final = "match-report"
ROLES: Final = frozenset[str]()  # as its parameters say
OUTPUTS: Final[Mapping[str, OutputKind]] = {"report": OutputKind("report", "application/json")}
DEFAULTS: Final[Mapping[str, Any]] = {"country": None, "round": 1}
LIBRARIES: Final = ("numpy", "pyarrow")

FORMAT: Final = "strongroom.report.v1"
MAX_INPUTS: Final = 5  # thirty-one sets of them
_CHECKS: Final = Checks(NAME)


def read(parameters: Mapping[str, Any]) -> Keyed:
    """The parameters of a contract.

    Raises:
        BadParameters: see ``spec/programs.md`` for what they must be.
    """
    found = _CHECKS.members(parameters, {"country", "inputs", "round", "rules"}, "the parameters")
    return keyed(found, _CHECKS, MAX_INPUTS)


def check(parameters: Mapping[str, Any]) -> None:
    """Raises BadParameters."""
    read(parameters)


def roles(parameters: Mapping[str, Any]) -> frozenset[str]:
    """A role for each input. Raises BadParameters."""
    return frozenset(read(parameters).inputs)


def load(_outputs: Collection[str]) -> None:
    """Import what it takes to count."""
    from . import keyed as reading  # noqa: PLC0415 - heavy, and not for clients

    reading.rehearse()


def _named(roles_of_cell: tuple[str, ...], every: int) -> str:
    if len(roles_of_cell) == every:
        return "in all"
    return f"{roles_of_cell[0]} alone" if len(roles_of_cell) == 1 else " and ".join(roles_of_cell)


def _told(figures: Mapping[str, int], least: int) -> bool:
    """Whether an input's figures may be told: none of its rows that are set apart are fewer than agreed, but for none."""
    return all(figures[name] == 0 or figures[name] >= least for name in ("repeated", "respelled", "unusable"))


def report(cells: Mapping[tuple[str, ...], int], inputs: Mapping[str, Mapping[str, int]], least: int, step: int) -> bytes:
    """The report (``spec/output.md``): every set, or none where one of them is small.

    Args:
        cells: keys by the inputs in which they are.
        inputs: of each its figures.
        least: sets of fewer keys than this must not be told apart.
        step: figures are whole multiples of it, rounded down.
    """
    rounded = {found: count - count % step for found, count in cells.items()}
    hidden = least > 1 and any(count < least for count in rounded.values())
    metrics = {
        f"{name}_{role}": count - count % step
        for role, figures in inputs.items()
        if not hidden and (least == 1 or _told(figures, least))
        for name, count in figures.items()
    }
    groups = [{"group": _named(found, len(inputs)), "records": count, "values": {}} for found, count in rounded.items()]
    table = {"by": "where a key is", "groups": groups, "name": "keys", "public": True}
    # Whoever brought an input knows how many keys it has, and would find a hidden set from any other, or from their sum.
    total = 0 if hidden else sum(rounded.values())
    found = {
        "classes": [],
        "format": FORMAT,
        "matrices": {},
        "metrics": {**metrics, "told": int(not hidden)},
        "positive": None,
        "records": total or least,  # a report is of something
        "tables": [table] if total else [],
        "task": NAME,
    }
    return json.dumps(found, sort_keys=True).encode()


def run(
    inputs: Mapping[str, Input],
    parameters: Mapping[str, Any],
    outputs: Mapping[str, OutputSpec],
    write: Write,
    step: Step,
) -> None:
    """Count.

    Raises:
        BadParameters: as ``check``. TableColumns, TableUnreadable: an input has not the form that was agreed. What stands in
            its rows ends no run.
    """
    from . import keyed as reading  # noqa: PLC0415 - heavy, and not for clients

    said = read(parameters)
    found = {}
    for n, (role, columns) in enumerate(said.inputs.items()):
        step("read table", n * 900 // len(said.inputs))
        found[role] = reading.scan(inputs[role], columns, said.keying, spelled=True)
    step("measure", 900)
    figures = {
        role: {
            "distinct": keys.distinct,
            "repeated": keys.repeated,
            "respelled": keys.respelled,
            "rows": keys.rows,
            "unusable": keys.unusable,
        }
        for role, keys in found.items()
    }
    cells = reading.cells(found)
    step("write", 980)
    if "report" in outputs:
        write("report", report(cells, figures, outputs["report"].min_group, said.round))
    step("write", 1000)
