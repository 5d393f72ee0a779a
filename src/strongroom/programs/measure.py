"""Metrics from scikit-learn, over all records and for each group. What is not defined for some records is left out."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn import metrics

from strongroom.errors import ModelShape

Values: TypeAlias = dict[str, Any]

_SUM_TOLERANCE = 1e-3
_INTEGER = re.compile(r"(?:0|-?[1-9][0-9]*)\Z")
sklearn.set_config(assume_finite=True, skip_parameter_validation=True)


@dataclass(frozen=True, slots=True)
class Classified:
    """Records with their true class and what the model said.

    Attributes:
        classes: their names, in the contract's order.
        truth: int [records], indices of classes.
        predicted: int [records], indices of classes, or their number where the model said something else.
        chances: float64 [records, classes], each row summing to one; or ``None`` where the model gives labels alone. One
            column more than classes where the model has others: the chance of these together.
        positive: the index of the class that binary metrics are about, or -1.
    """

    classes: tuple[str, ...]
    truth: NDArray[np.intp]
    predicted: NDArray[np.intp]
    chances: NDArray[np.float64] | None
    positive: int

    def confusion(self, chosen: NDArray[np.bool_] | slice = slice(None)) -> list[list[int]]:
        """Counts, a row for each true class, a column for each predicted one. Where the model ever predicts something else
        there is one more of each, also for records where it does not: all matrices of a report are of one size."""
        labels = np.arange(len(self.classes) + bool((self.predicted == len(self.classes)).any()))
        found: list[list[int]] = metrics.confusion_matrix(self.truth[chosen], self.predicted[chosen], labels=labels).tolist()
        return found

    def roc_auc(self, chosen: NDArray[np.bool_] | slice = slice(None)) -> float:
        """Of the positive class; with more than two classes the mean over one against the rest. NaN where undefined."""
        if self.chances is None or len(np.unique(self.truth[chosen])) != len(self.classes):
            return math.nan
        truth, chances = self.truth[chosen], self.chances[chosen]
        if self.positive >= 0:
            return float(metrics.roc_auc_score(truth == self.positive, chances[:, self.positive]))
        if chances.shape[1] != len(self.classes):
            return math.nan
        return float(metrics.roc_auc_score(truth, chances, multi_class="ovr", average="macro"))

    def unsaid(self, smallest: int) -> frozenset[str]:
        """The metrics that give each class the same weight, where one has too few true records for that.

        Args:
            smallest: the fewest records of a class; 1 leaves nothing unsaid.
        """
        fewest = int(np.bincount(self.truth, minlength=len(self.classes)).min())
        return frozenset({"balanced_accuracy", "roc_auc"}) if smallest > 1 and fewest < smallest else frozenset()

    def accuracy(self, chosen: NDArray[np.bool_] | slice = slice(None)) -> float:
        return float(metrics.accuracy_score(self.truth[chosen], self.predicted[chosen]))

    def overall(self) -> Values:
        """Every metric over all records."""
        found = {"accuracy": self.accuracy(), "roc_auc": self.roc_auc()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of classes that are predicted and never true: they have no recall to average
            found["balanced_accuracy"] = float(metrics.balanced_accuracy_score(self.truth, self.predicted))
        if self.chances is not None:
            found["log_loss"] = float(metrics.log_loss(self.truth, self.chances, labels=np.arange(self.chances.shape[1])))
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

    def unsaid(self, smallest: int) -> frozenset[str]:
        """Nothing: there are no classes."""
        del smallest
        return frozenset()

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


def places(classes: Sequence[str], labels: Sequence[str]) -> NDArray[np.intp]:
    """For each label the place of its class, and ``len(classes)`` for one that is none of them.

    Where all classes are integers, a label may be spelt as tables and models spell them: ``1.0`` and ``true`` are ``1``.
    """
    index = {name: n for n, name in enumerate(classes)}
    spell = _integer if all(_INTEGER.match(name) for name in classes) else str
    return np.array([index.get(spell(label), len(classes)) for label in labels], dtype=np.intp)


def _integer(label: str) -> str:
    """The integer that a label means, in its one spelling; another label as it is."""
    if _INTEGER.match(label):
        return label
    try:
        number = {"true": 1.0, "false": 0.0}[label.lower()] if label.isalpha() else float(label)
    except (KeyError, ValueError):
        return label
    return str(int(number)) if number.is_integer() else label


def by_class(chances: NDArray[np.float64], listed: Sequence[str], classes: Sequence[str]) -> NDArray[np.float64]:
    """Chances in the order of the contract's classes.

    Args:
        chances: [records, scores].
        listed: which class each is of, as the model says; empty where it does not: then it is the contract's order.
        classes: the contract's.

    Returns:
        [records, classes], or one column more: the chance of all that is none of the classes.

    Raises:
        ModelShape: the model does not know every class, or does not say what it knows and gives another number of scores.
    """
    if not listed:
        if chances.shape[1] != len(classes):
            raise ModelShape("the model does not say which class each of its scores is of", step="measure")
        return chances
    place = places(classes, listed)
    if not set(range(len(classes))) <= set(place.tolist()):
        raise ModelShape("the model does not know every class that the contract names", step="measure")
    found = np.zeros((len(chances), int(place.max()) + 1))
    for column, n in enumerate(place):
        found[:, n] += chances[:, column]
    return found
