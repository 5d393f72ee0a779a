"""``evaluate``: a model's metrics on a table, over all records and by group.

Inputs: ``model`` (ONNX) and ``data`` (CSV or Parquet). Outputs: ``report`` (aggregates), ``calibration`` (a picture) and
``predictions`` (a row per record). Parameters, inputs and outputs are written down in ``spec/programs.md``.

This module is read by clients too: what is heavy is imported by ``load``, and by ``run``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final

from strongroom.errors import TableColumns

from . import Input, OutputKind, OutputSpec, Step, Write
from .parameters import Checks

NAME: Final = "evaluate"
ROLES: Final = frozenset({"model", "data"})
OUTPUTS: Final[Mapping[str, OutputKind]] = {
    "report": OutputKind("report", "application/json"),
    "calibration": OutputKind("picture", "image/png"),
    "predictions": OutputKind("records", "text/csv"),
    "log": OutputKind("log", "text/plain"),
}
# The default of `classes` is a regression's: whoever proposes a classification says them, and the table's owner reads them.
DEFAULTS: Final[Mapping[str, Any]] = {"classes": None, "features": None, "groups": [], "positive": None}
LIBRARIES: Final = ("numpy", "onnxruntime", "pyarrow", "sklearn", "matplotlib")
UNSEEN: Final = ("pandas",)
"""What other libraries load wherever it is installed, at a cost of half a second, and nothing here is in need of."""

CLASSIFICATION, REGRESSION = "classification", "regression"

OTHER: Final = "(other)"  # what a model predicts that is none of the classes

_MAX_FEATURES, _MAX_GROUPS, _MAX_EDGES, _MAX_CLASSES, _MAX_CLASS = 65536, 16, 64, 64, 64
_EDGE = re.compile(r"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,14})?\Z")
_CHECK: Final = Checks(NAME)


@dataclass(frozen=True, slots=True)
class Grouping:
    """How records are divided for one table of the report.

    Attributes:
        name: of the table.
        column: that it is about.
        edges: of numeric bands, rising, as they are to be read; or ``None`` for a group per distinct value.
    """

    name: str
    column: str
    edges: tuple[str, ...] | None

    @property
    def bands(self) -> tuple[str, ...]:
        """The names of the bands, lowest first. A band holds its lower edge and not its upper one."""
        edges = self.edges or ()
        between = (f"{low} to {high}" for low, high in pairwise(edges))
        return (f"below {edges[0]}", *between, f"{edges[-1]} and above") if edges else ()


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a contract says of one evaluation.

    Attributes:
        task: ``classification`` or ``regression``.
        target: the column with the truth.
        classes: their names, in the order of the report; none for a regression.
        features: the model's columns in its order; ``None`` for all but the target and those that group.
        positive: the class that binary metrics are about, or ``None``.
        groups: how records are divided.
    """

    task: str
    target: str
    classes: tuple[str, ...]
    features: tuple[str, ...] | None
    positive: str | None
    groups: tuple[Grouping, ...]

    @property
    def classifies(self) -> bool:
        return self.task == CLASSIFICATION

    def columns(self, table: tuple[str, ...]) -> tuple[str, ...]:
        """The features, of a table with these columns. Raises TableColumns."""
        others = {self.target, *(group.column for group in self.groups)}
        found = self.features or tuple(name for name in table if name not in others)
        if not found or not {*found, *others} <= set(table):
            raise TableColumns("a column that the parameters name is missing", step="read table")
        return found


def _grouping(value: object) -> Grouping:
    given = _CHECK.members(value, {"name", "column", "edges"}, "a group")
    edges = None
    if given["edges"] is not None:
        edges = tuple(_CHECK.text(edge, "an edge") for edge in _CHECK.items(given["edges"], "edges", 1, _MAX_EDGES))
        if not all(_EDGE.match(edge) for edge in edges):
            _CHECK.bad('an edge is not a decimal number such as "12.5"')
        if any(Decimal(low) >= Decimal(high) for low, high in pairwise(edges)):
            _CHECK.bad("edges do not rise")
    return Grouping(_CHECK.text(given["name"], "a group's name"), _CHECK.text(given["column"], "a group's column"), edges)


def _classes(value: object, task: str) -> tuple[str, ...]:
    if task == REGRESSION:
        if value is not None:
            _CHECK.bad("classes are for classification")
        return ()
    found = tuple(_CHECK.text(name, "a class", _MAX_CLASS) for name in _CHECK.items(value, "classes", 2, _MAX_CLASSES))
    _CHECK.distinct(found, "classes")
    if OTHER in found:
        _CHECK.bad(f"no class can be called {OTHER}")
    return found


def _positive(value: object, classes: tuple[str, ...]) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if value is None:
        return None
    if len(classes) != 2 or value not in classes:
        _CHECK.bad("positive is not one of two classes")
    return _CHECK.text(value, "positive")


def read(parameters: Mapping[str, Any]) -> Parameters:
    """The parameters of a contract.

    Raises:
        BadParameters: see ``spec/programs.md`` for what they must be.
    """
    given = _CHECK.members(parameters, {"task", "target", "classes", "features", "positive", "groups"}, "the parameters")
    if given["task"] not in (CLASSIFICATION, REGRESSION):
        _CHECK.bad(f"task is neither {CLASSIFICATION} nor {REGRESSION}")
    features = given["features"]
    if features is not None:
        features = tuple(_CHECK.text(name, "a feature") for name in _CHECK.items(features, "features", 1, _MAX_FEATURES))
        _CHECK.distinct(features, "features")
    classes = _classes(given["classes"], given["task"])
    groups = tuple(_grouping(group) for group in _CHECK.items(given["groups"], "groups", 0, _MAX_GROUPS))
    _CHECK.distinct([group.name for group in groups], "groups")
    # Bands of one column with different edges would tell, by their difference, of what lies between the edges.
    _CHECK.distinct([group.column for group in groups], "the groups' columns")
    found = Parameters(
        task=given["task"],
        target=_CHECK.text(given["target"], "target"),
        classes=classes,
        features=features,
        positive=_positive(given["positive"], classes),
        groups=groups,
    )
    if found.target in (found.features or ()):
        _CHECK.bad("the target is one of the features")
    if found.target in {group.column for group in groups}:
        # A group that is a class would show how many there are of it.
        _CHECK.bad("the target is one of the groups' columns")
    return found


def check(parameters: Mapping[str, Any]) -> None:
    """Raises BadParameters."""
    read(parameters)


def load(outputs: Collection[str]) -> None:
    """Import what it takes to write these outputs."""
    from . import evaluation, table  # noqa: F401, PLC0415 - heavy, and not for clients

    table.rehearse()

    if "calibration" in outputs:
        from . import picture  # noqa: PLC0415 - heavy, and not always wanted

        picture.rehearse()


def run(
    inputs: Mapping[str, Input],
    parameters: Mapping[str, Any],
    outputs: Mapping[str, OutputSpec],
    write: Write,
    step: Step,
) -> None:
    """Evaluate, and write the outputs that are wanted.

    Raises:
        BadParameters: as ``check``, or parameters that do not fit the table.
        ProgramError: its leaves for models and tables.
    """
    from .evaluation import Evaluation  # noqa: PLC0415 - heavy, and not for clients

    evaluation = Evaluation(inputs, read(parameters), step)
    written = {}
    if "report" in outputs:
        written["report"] = evaluation.report(outputs["report"])
    if "calibration" in outputs:
        step("draw", 950)
        written["calibration"] = evaluation.calibration(outputs["calibration"])
    step("write", 980)
    if "predictions" in outputs:
        written["predictions"] = evaluation.predictions(outputs["predictions"])
    for name, data in written.items():
        write(name, data)
    step("write", 1000)
