"""``joint-histogram``: how often what occurs in the files of many people, where each gives a file of their own.

Inputs: a file for each person, in roles that the parameters name: CSV, Parquet, Arrow, JSON, JSON lines or plain text.
Output: ``report``. Nobody's file changes more than agreed, and the answer has noise, or is of as many people as the rule
says. Parameters and output are written down in ``spec/programs.md``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from strongroom.errors import BadParameters

from . import Input, OutputKind, OutputSpec, Step, Write
from .intersection_size import epsilon_of
from .keys import normal
from .parameters import STEP, Checks

NAME: Final = "joint-histogram"
ROLES: Final = frozenset[str]()  # as its parameters say
OUTPUTS: Final[Mapping[str, OutputKind]] = {"report": OutputKind("report", "application/json")}
DEFAULTS: Final[Mapping[str, Any]] = {"counts": "entries", "epsilon": None}
LIBRARIES: Final = ("numpy", "opendp", "pyarrow")

ENTRIES, PEOPLE = "entries", "people"
OTHER: Final = "(other)"
FEW: Final = "(of few people)"
MAX_PEOPLE: Final = 60  # a contract has 64 inputs and parties
MAX_CATEGORIES: Final = 256
MAX_MOST: Final = 1_000_000
_ROLE: Final = re.compile(r"[a-z][a-z0-9_]{0,31}\Z")
_CHECKS: Final = Checks(NAME)


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a contract asks.

    Attributes:
        categories: what is counted, as people know it from elsewhere; none of them is read from a file.
        column: which of a row's members says the category.
        counts: entries, or people in whose file a category occurs.
        most: how many entries, or categories, of one person count: the first that come.
        epsilon: what the answer may spend of each person's budget; ``None`` for an answer without noise.
        people: the roles, sorted.
    """

    categories: tuple[str, ...]
    column: str
    counts: str
    most: int
    epsilon: Fraction | None
    people: tuple[str, ...]

    @property
    def places(self) -> dict[str, int]:
        """Where each category is counted, by its normal form."""
        return {_form(name): place for place, name in enumerate(self.categories)}


def _form(name: str) -> str:
    found = normal("text", name)
    if found is None:
        _CHECKS.bad("a category is no text")
    return found


def read(parameters: Mapping[str, Any]) -> Parameters:
    """The parameters of a contract.

    Raises:
        BadParameters: see ``spec/programs.md`` for what they must be.
    """
    wanted = {"categories", "column", "counts", "epsilon", "most", "people"}
    f = _CHECKS.members(parameters, wanted, "the parameters")
    names = _CHECKS.items(f["categories"], "categories", 1, MAX_CATEGORIES)
    categories = [_CHECKS.text(name, "a category") for name in names]
    _CHECKS.distinct([*(_form(name) for name in categories), OTHER, FEW], "categories")
    if f["counts"] not in (ENTRIES, PEOPLE):
        _CHECKS.bad(f"counts is neither {ENTRIES} nor {PEOPLE}")
    people = [_CHECKS.matching(role, _ROLE, "a person") for role in _CHECKS.items(f["people"], "people", 2, MAX_PEOPLE)]
    _CHECKS.distinct(people, "people")
    return Parameters(
        tuple(categories),
        _CHECKS.text(f["column"], "a column"),
        f["counts"],
        _CHECKS.whole(f["most"], "most", 1, MAX_MOST),
        epsilon_of(f["epsilon"], _CHECKS),
        tuple(sorted(people)),
    )


def check(parameters: Mapping[str, Any]) -> None:
    """Raises BadParameters."""
    read(parameters)


def roles(parameters: Mapping[str, Any]) -> frozenset[str]:
    """A role for each person. Raises BadParameters."""
    return frozenset(read(parameters).people)


def charges(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a run spends of each person's budget; what is protected is the whole file. Raises BadParameters."""
    said = read(parameters)
    if said.epsilon is None:
        return {}
    event = {"count": 1, "delta": "0", "epsilon": parameters["epsilon"], "event": "epsilon-delta"}
    return {role: [dict(event)] for role in said.people}


def load(_outputs: Collection[str]) -> None:
    """Import what it takes to count, and to add noise."""
    from . import joint_counts  # noqa: PLC0415 - heavy, and not for clients

    joint_counts.rehearse()


def run(
    inputs: Mapping[str, Input],
    parameters: Mapping[str, Any],
    outputs: Mapping[str, OutputSpec],
    write: Write,
    step: Step,
) -> None:
    """Count.

    Raises:
        BadParameters: as ``check``; or groups must be of more people than there are. TableColumns, TableUnreadable: a file
            has not the form that was agreed.
    """
    from . import joint_counts  # noqa: PLC0415 - heavy, and not for clients

    said = read(parameters)
    least = outputs["report"].min_group if "report" in outputs else 1
    if said.epsilon is None and least > len(said.people):
        raise BadParameters("groups must be of more people than there are", step=STEP)
    given = []
    for n, role in enumerate(said.people):
        step("read table", n * 900 // len(said.people))
        given.append(joint_counts.given(inputs[role], said))
    step("measure", 900)
    found = joint_counts.report(given, said, least)
    step("write", 980)
    if "report" in outputs:
        write("report", found)
    step("write", 1000)
