"""Metrics from scikit-learn, over all records and for each group. What is not defined for some records is left out."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn import metrics

from strongroom.errors import BadParameters, ModelShape, TableLabels

Values: TypeAlias = dict[str, Any]

_SUM_TOLERANCE = 1e-3
sklearn.set_config(assume_finite=True, skip_parameter_validation=True)


@dataclass(frozen=True, slots=True)
class Classified:
    """Records with their true class and what the model said.

    Attributes:
        classes: the labels, in the order of the scores.
        truth, predicted: int [records], indices of classes.
        chances: float64 [records, classes], each row summing to one; or ``None`` where the model gives labels alone.
        positive: the index of the class that binary metrics are about, or -1.
    """

    classes: tuple[str, ...]
    truth: NDArray[np.intp]
    predicted: NDArray[np.intp]
    chances: NDArray[np.float64] | None
    positive: int

    def confusion(self, chosen: NDArray[np.bool_] | slice = slice(None)) -> list[list[int]]:
        """Counts, a row for each true class, a column for each predicted one."""
        labels = np.arange(len(self.classes))
        found: list[list[int]] = metrics.confusion_matrix(self.truth[chosen], self.predicted[chosen], labels=labels).tolist()
        return found

    def roc_auc(self, chosen: NDArray[np.bool_] | slice = slice(None)) -> float:
        """Of the positive class; with more than two classes the mean over one against the rest. NaN where undefined."""
        if self.chances is None or len(np.unique(self.truth[chosen])) != len(self.classes):
            return math.nan
        truth, chances = self.truth[chosen], self.chances[chosen]
        if self.positive >= 0:
            return float(metrics.roc_auc_score(truth == self.positive, chances[:, self.positive]))
        return float(metrics.roc_auc_score(truth, chances, multi_class="ovr", average="macro"))

    def accuracy(self, chosen: NDArray[np.bool_] | slice = slice(None)) -> float:
        return float(metrics.accuracy_score(self.truth[chosen], self.predicted[chosen]))

    def overall(self) -> Values:
        """Every metric over all records."""
        found = {"accuracy": self.accuracy(), "roc_auc": self.roc_auc()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of classes that are predicted and never true: they have no recall to average
            found["balanced_accuracy"] = float(metrics.balanced_accuracy_score(self.truth, self.predicted))
        if self.chances is not None:
            found["log_loss"] = float(metrics.log_loss(self.truth, self.chances, labels=np.arange(len(self.classes))))
            if self.positive >= 0:
                chances = self.chances[:, self.positive]
                found["brier_score"] = float(
                    metrics.brier_score_loss(self.truth == self.positive, chances, labels=[False, True])
                )
        return _finite(found)

    def group(self, chosen: NDArray[np.bool_]) -> Values:
        """What is said of one group. It may be empty."""
        if not chosen.any():
            return {}
        values: Values = _finite({"accuracy": self.accuracy(chosen), "roc_auc": self.roc_auc(chosen)})
        return {**values, "confusion": self.confusion(chosen)}


@dataclass(frozen=True, slots=True)
class Estimated:
    """Records with their true number and the model's.

    Attributes:
        truth, predicted: float64 [records].
    """

    truth: NDArray[np.float64]
    predicted: NDArray[np.float64]

    def group(self, chosen: NDArray[np.bool_] | slice) -> Values:
        """What is said of one group. It may be empty."""
        truth, predicted = self.truth[chosen], self.predicted[chosen]
        if not len(truth):
            return {}
        return _finite(
            {
                "mean_absolute_error": float(metrics.mean_absolute_error(truth, predicted)),
                "root_mean_squared_error": float(metrics.root_mean_squared_error(truth, predicted)),
                "r2": float(metrics.r2_score(truth, predicted)) if len(truth) > 1 and np.ptp(truth) > 0 else math.nan,
            }
        )

    def overall(self) -> Values:
        """Every metric over all records."""
        return self.group(slice(None))


def _finite(values: Mapping[str, float]) -> Values:
    return {name: value for name, value in values.items() if math.isfinite(value)}


def chances(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores as chances, a row summing to one.

    Args:
        scores: [records, classes], or [records, 1] of the second of two classes. If every row sums to one, or every single
            score lies from nought to one, they are chances as they are; else they are taken for logits.
    """
    if scores.shape[1] == 1:
        one = scores[:, 0] if ((scores >= 0) & (scores <= 1)).all() else _logistic(scores[:, 0])
        return np.column_stack([1 - one, one])
    if (scores >= 0).all() and (abs(scores.sum(axis=1) - 1) <= _SUM_TOLERANCE).all():
        return np.asarray(scores / scores.sum(axis=1, keepdims=True), dtype=np.float64)
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float64)


def _logistic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    e = np.exp(-abs(x))
    return np.asarray(np.where(x >= 0, 1 / (1 + e), e / (1 + e)), dtype=np.float64)


def integer_labels(labels: Sequence[str]) -> list[str]:
    """Labels of a model that counts its classes, as a table may spell them: ``1.0`` and ``true`` are ``1``.

    Raises:
        TableLabels: one is no integer.
    """
    found = {}
    for label in set(labels):
        try:
            number = {"true": 1.0, "false": 0.0}[label.lower()] if label.isalpha() else float(label)
            found[label] = str(int(number))
        except (KeyError, ValueError, OverflowError):
            raise TableLabels("the target column holds a label that is no integer", step="measure") from None
        if number != int(number):
            raise TableLabels("the target column holds a label that is no integer", step="measure")
    return [found[label] for label in labels]


def name_classes(listed: tuple[str, ...], seen: set[str], count: int, *, integers: bool) -> tuple[str, ...]:
    """Which class each score is of.

    Args:
        listed: as the model says; empty where it does not.
        seen: the labels in the table and those predicted.
        count: how many scores there are; 0 where the model gives labels alone.
        integers: whether the model counts its classes.

    Raises:
        TableLabels: the table has a label that the model does not know.
        ModelShape: the model does not say, and it cannot be told.
    """
    ordered = tuple(sorted(seen, key=int) if integers else sorted(seen))
    if not listed:
        counted = tuple(str(n) for n in range(count))
        if count in {0, len(ordered)}:
            listed = ordered
        elif integers and seen <= set(counted):
            listed = counted
        else:
            raise ModelShape("the model does not say which class each of its scores is of", step="measure")
    if not seen <= set(listed):
        raise TableLabels("the target column holds a label that the model does not know", step="measure")
    return listed


def positive_class(classes: tuple[str, ...], wanted: str | None) -> int:
    """The index of the class that binary metrics are about: the one wanted, else the second of two; -1 for more than two.

    Raises:
        BadParameters: ``positive`` is none of the classes, or there are more than two.
    """
    if wanted is not None and (wanted not in classes or len(classes) != 2):
        raise BadParameters("`positive` is not one of two classes", step="measure")
    if len(classes) != 2:
        return -1
    return 1 if wanted is None else classes.index(wanted)
