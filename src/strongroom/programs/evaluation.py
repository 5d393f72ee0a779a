"""One evaluation: the table read and the model asked batch by batch, then everything that can be said of it.

What is kept for each record is its truth, its scores and its groups, a few numbers however wide the table.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from strongroom.errors import BadParameters, ModelShape, TableEmpty, TableLabels, TableNotNumeric

from . import Input, OutputSpec, Step, measure
from .evaluate import OTHER
from .measure import Classified, Estimated
from .model import Model
from .table import Batch, Table, Texts

if TYPE_CHECKING:
    from .evaluate import Grouping, Parameters

REPORT_FORMAT: Final = "strongroom.report.v1"
MISSING: Final = "(missing)"
MAX_DISTINCT, MAX_NAME = 256, 64
_PREDICTED = 900  # thousandths of the work that are done when every row was predicted


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was read and answered.

    Attributes:
        numbers: those of the target and of the columns that group that are wanted as numbers, by name.
        texts: those that are wanted as text.
        predicted: int [records], the place of the label that the model gave among the contract's classes, or beyond them; or
            ``None``.
        scores: float64 [records, classes], or ``None``.
        classes: which class each score is of, as far as the model says; else empty.
    """

    numbers: Mapping[str, NDArray[np.float64]]
    texts: Mapping[str, Texts]
    predicted: NDArray[np.intp] | None
    scores: NDArray[np.float64] | None
    classes: tuple[str, ...]


def _features(batch: Batch, names: tuple[str, ...]) -> NDArray[np.float64]:
    """The features of some rows, [rows, features]. Raises TableNotNumeric."""
    found = np.column_stack([batch.numbers[name] for name in names])
    if not np.isfinite(found).all():
        raise TableNotNumeric("a feature is missing, or no finite number", step="read table")
    return found


def _ask(inputs: Mapping[str, Input], p: Parameters, step: Step) -> _Seen:
    """Read the table and ask the model. Raises ModelUnreadable, ModelShape, and the errors of tables."""
    step("read table", 0)
    data = Table(inputs["data"])
    features = p.columns(data.columns)
    step("load model", 0)
    with inputs["model"].open() as file:
        model = Model(file.read(), features, classifies=p.classifies)
    numbers = [*(g.column for g in p.groups if g.edges), *([] if p.classifies else [p.target])]
    kept: dict[str, list[NDArray[np.float64]]] = {name: [] for name in numbers}
    texts = {name: Texts() for name in (*(g.column for g in p.groups if not g.edges), *([p.target] if p.classifies else []))}
    predicted, scores, rows = list[NDArray[np.intp]](), list[NDArray[np.float64]](), 0
    step("predict", 0)
    for batch in data.batches(list(dict.fromkeys([*features, *numbers])), list(texts)):
        if not batch.rows:
            continue
        answer = model.predict(_features(batch, features))
        if answer.labels is not None:
            labels, which = np.unique(answer.labels, return_inverse=True)
            predicted.append(measure.places(p.classes, labels.tolist())[which])  # no text of the model's goes further
        if answer.scores is not None:
            scores.append(answer.scores)
        for name, parts in kept.items():
            parts.append(batch.numbers[name])
        for name, column in texts.items():
            column.add(*batch.texts[name])
        rows += batch.rows
        step("predict", batch.done * _PREDICTED // 1000)
    if not rows:
        raise TableEmpty("the table has no rows", step="read table")
    return _Seen(
        numbers={name: np.concatenate(parts) for name, parts in kept.items()},
        texts=texts,
        predicted=np.concatenate(predicted) if predicted else None,
        scores=np.concatenate(scores) if scores else None,
        classes=model.classes(max(2, scores[0].shape[1])) if scores else (),
    )


def _classified(p: Parameters, seen: _Seen) -> Classified:
    """Truth and prediction in the contract's classes. Raises TableLabels, ModelShape."""
    target = seen.texts[p.target]
    if "" in target.names:
        raise TableLabels("the target column has an empty cell", step="read table")
    truth = measure.places(p.classes, target.names)[target.codes]
    if (truth == len(p.classes)).any():
        raise TableLabels("the target column holds a label that is none of the contract's classes", step="measure")
    chances = None if seen.scores is None else measure.by_class(measure.chances(seen.scores), seen.classes, p.classes)
    predicted = seen.predicted
    if predicted is None:
        predicted = np.argmax(np.empty((0, 2)) if chances is None else chances, axis=1)
    two = len(p.classes) == 2
    return Classified(
        classes=p.classes,
        truth=truth,
        predicted=predicted,
        chances=chances,
        positive=-1 if not two else 1 if p.positive is None else p.classes.index(p.positive),
    )


def _estimated(p: Parameters, seen: _Seen) -> Estimated:
    """Truth and prediction as numbers. Raises TableNotNumeric, ModelShape."""
    truth = seen.numbers[p.target]
    if not np.isfinite(truth).all():
        raise TableNotNumeric("the target is missing, or no finite number", step="read table")
    if seen.scores is None or seen.scores.shape[1] != 1:
        raise ModelShape("the model does not give one number for each row", step="predict")
    return Estimated(truth, seen.scores[:, 0])


def _members(grouping: Grouping, seen: _Seen) -> dict[str, NDArray[np.bool_]]:
    """Which records are in each group, by the group's name. Every record is in exactly one.

    Raises:
        BadParameters: more distinct values than a report can hold.
    """
    if grouping.edges:
        column = seen.numbers[grouping.column]
        missing = np.isnan(column)
        place = np.where(missing, -1, np.searchsorted([float(edge) for edge in grouping.edges], column, side="right"))
        found = {name: place == n for n, name in enumerate(grouping.bands)}
        return {**found, MISSING: missing} if missing.any() else found
    texts = seen.texts[grouping.column]
    if len(texts.names) > MAX_DISTINCT:
        raise BadParameters("a column that groups has too many distinct values; give it edges", step="measure")
    codes, members = texts.codes, dict[str, NDArray[np.bool_]]()
    for n, text in enumerate(texts.names):
        name = text[:MAX_NAME] or MISSING  # whoever calls a group so means the same
        members[name] = members.get(name, False) | (codes == n)
    return dict(sorted(members.items()))


class Evaluation:
    """What a model said of a table, and what was so.

    Args:
        inputs: ``model`` and ``data``.
        parameters: the contract's, read.
        step: told as the work goes on.

    Raises:
        ProgramError: its leaves, for models and tables that do not fit.
    """

    def __init__(self, inputs: Mapping[str, Input], parameters: Parameters, step: Step) -> None:
        self._parameters = parameters
        seen = _ask(inputs, parameters, step)
        step("measure", _PREDICTED)
        self._measured = _classified(parameters, seen) if parameters.classifies else _estimated(parameters, seen)
        self._groups = {g.name: (g, _members(g, seen)) for g in parameters.groups}

    def report(self, spec: OutputSpec) -> bytes:
        """The report (``spec/output.md``), as JSON with every group and every decimal place: its rule is applied later.

        What the rule cannot see to is done here: a metric that is a mean over classes, some of which are too small, is left
        out.
        """
        measured, p = self._measured, self._parameters
        unsaid = measured.unsaid(spec.min_group)
        classes = measured.classes if isinstance(measured, Classified) else ()
        report = {
            "classes": list(classes),
            "format": REPORT_FORMAT,
            "matrices": {"confusion": measured.confusion()} if isinstance(measured, Classified) else {},
            "metrics": _without(measured.overall(), unsaid),
            "positive": classes[measured.positive] if isinstance(measured, Classified) and measured.positive >= 0 else None,
            "records": len(measured.truth),
            "tables": [
                {
                    "by": grouping.column,
                    "groups": [
                        {"group": name, "records": int(chosen.sum()), "values": _without(measured.group(chosen), unsaid)}
                        for name, chosen in members.items()
                    ],
                    "name": grouping.name,
                    "public": grouping.edges is not None,
                }
                for grouping, members in self._groups.values()
            ],
            "task": p.task,
        }
        return json.dumps(report, allow_nan=False, ensure_ascii=False).encode()

    def calibration(self, spec: OutputSpec) -> bytes:
        """The picture, a PNG. Raises ModelShape where the model gives labels alone."""
        from . import picture  # noqa: PLC0415 - heavy, and not always wanted

        measured = self._measured
        if isinstance(measured, Estimated):
            said, so, what = measured.predicted, measured.truth, self._parameters.target
        elif measured.chances is None:
            raise ModelShape("a model that gives labels alone cannot be calibrated", step="draw")
        elif measured.positive >= 0:
            said, so = measured.chances[:, measured.positive], (measured.truth == measured.positive).astype(float)
            what = f"share of {measured.classes[measured.positive]!r}"
        else:
            said, so = measured.chances.max(axis=1), (measured.truth == measured.predicted).astype(float)
            what = "share of right answers"
        chance = isinstance(measured, Classified)
        return picture.calibration(said, so, chance=chance, what=what, smallest=spec.min_group, decimals=spec.decimals)

    def predictions(self, spec: OutputSpec) -> bytes:
        """A CSV with a row for each record, in the table's order: its number from nought, the prediction, each class's
        chance."""
        measured, out = self._measured, io.StringIO()
        rows = csv.writer(out, lineterminator="\n")
        if isinstance(measured, Estimated):
            rows.writerow(["row", "predicted"])
            rows.writerows((n, _rounded(value, spec)) for n, value in enumerate(measured.predicted))
        else:
            chances = np.empty((len(measured.truth), 0)) if measured.chances is None else measured.chances
            names = (*measured.classes, OTHER)
            rows.writerow(["row", "predicted", *(f"p_{label}" for label in names[: chances.shape[1]])])
            for n, (which, row) in enumerate(zip(measured.predicted, chances, strict=True)):
                rows.writerow([n, names[which], *(_rounded(value, spec) for value in row)])
        return out.getvalue().encode()


def _without(values: measure.Values, unsaid: frozenset[str]) -> measure.Values:
    return {name: value for name, value in values.items() if name not in unsaid}


def _rounded(value: float, spec: OutputSpec) -> float:
    return round(float(value), spec.decimals) + 0.0  # no negative nought
