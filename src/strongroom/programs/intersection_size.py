"""``intersection-size``: how many keys several owners have in common, and nothing else.

Inputs: one for each owner (CSV, Parquet, Arrow or plain text), in roles that the parameters name. Output: ``report``, whose
one figure is exact, rounded, or differentially private. What is smaller than the rule's ``min_group`` does not leave,
nor what would tell an owner that fewer of its keys than that are not shared.
Parameters and output are written down in ``spec/programs.md``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from . import Input, OutputKind, OutputSpec, Step, Write
from .keys import Keyed, keyed
from .parameters import Checks

NAME: Final = "intersection-size"
ROLES: Final = frozenset[str]()  # as its parameters say
OUTPUTS: Final[Mapping[str, OutputKind]] = {"report": OutputKind("report", "application/json")}
DEFAULTS: Final[Mapping[str, Any]] = {"country": None, "epsilon": None, "round": 1}
LIBRARIES: Final = ("numpy", "opendp", "pyarrow")

FORMAT: Final = "strongroom.report.v1"
MAX_INPUTS: Final = 16
_EPSILON: Final = re.compile(r"(?:0|[1-9][0-9]?)(?:\.[0-9]{0,8}[1-9])?\Z")
_MAX_EPSILON: Final = 50
_CHECKS: Final = Checks(NAME)


def epsilon_of(value: object, checks: Checks) -> Fraction | None:
    """An epsilon above 0 and at most 50 in its one spelling, or ``None``. Raises BadParameters."""
    if value is None:
        return None
    if not isinstance(value, str) or not _EPSILON.match(value) or not 0 < Fraction(value) <= _MAX_EPSILON:
        checks.bad(f'epsilon is neither null nor a decimal number such as "0.5", above 0 and at most {_MAX_EPSILON}')
    return Fraction(value)


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a contract asks.

    Attributes:
        keyed: of what.
        epsilon: what the answer may spend of each input's budget; ``None`` for an answer without noise.
    """

    keyed: Keyed
    epsilon: Fraction | None


def read(parameters: Mapping[str, Any]) -> Parameters:
    """The parameters of a contract.

    Raises:
        BadParameters: see ``spec/programs.md`` for what they must be.
    """
    found = _CHECKS.members(parameters, {"country", "epsilon", "inputs", "round", "rules"}, "the parameters")
    said = Parameters(keyed(found, _CHECKS, MAX_INPUTS), epsilon_of(found["epsilon"], _CHECKS))
    if said.epsilon is not None and said.keyed.round != 1:
        _CHECKS.bad("what has noise is not rounded too")
    return said


def check(parameters: Mapping[str, Any]) -> None:
    """Raises BadParameters."""
    read(parameters)


def roles(parameters: Mapping[str, Any]) -> frozenset[str]:
    """A role for each input. Raises BadParameters."""
    return frozenset(read(parameters).keyed.inputs)


def charges(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a run spends of each input's budget: one key more or less in it changes the size by one. Raises BadParameters."""
    said = read(parameters)
    if said.epsilon is None:
        return {}
    event = {"count": 1, "delta": "0", "epsilon": parameters["epsilon"], "event": "epsilon-delta"}
    return {role: [dict(event)] for role in said.keyed.inputs}


def load(_outputs: Collection[str]) -> None:
    """Import what it takes to count, and to add noise."""
    from . import keyed as reading  # noqa: PLC0415 - heavy, and not for clients
    from . import private_answers  # noqa: PLC0415 - heavy, and not for clients

    reading.rehearse()
    private_answers.rehearse()


def report(metrics: Mapping[str, int]) -> bytes:
    """The report (``spec/output.md``) of a size: as many records as it says, and at least the one that a report is of."""
    found: dict[str, Any] = {
        "classes": [],
        "format": FORMAT,
        "matrices": {},
        "metrics": dict(metrics),
        "positive": None,
        "records": max(1, metrics["size"]),
        "tables": [],
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
    from . import private_answers  # noqa: PLC0415 - heavy, and not for clients

    said = read(parameters)

    def each() -> Iterator[Any]:
        for n, (role, columns) in enumerate(said.keyed.inputs.items()):
            step("read table", n * 900 // len(said.keyed.inputs))
            yield reading.scan(inputs[role], columns, said.keyed.keying)

    size, others = reading.shared(each())
    step("measure", 900)
    least = outputs["report"].min_group if "report" in outputs else 1
    if said.epsilon is None:
        metrics = {"size": size - size % said.keyed.round}
        if 1 < least > others:  # who brought that input knows how many keys it has
            metrics = {"size": 0}  # which its rule does not let through
    else:
        (noisy,), scale = private_answers.laplace([size], 1, said.epsilon)
        metrics = {"size": noisy, "within": private_answers.within(scale)}
    step("write", 980)
    if "report" in outputs:
        write("report", report(metrics))
    step("write", 1000)
