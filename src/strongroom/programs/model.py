"""Any ONNX classifier or regressor: loaded from bytes, asked batch by batch.

Inputs: one tensor [rows, features], or one tensor [rows, 1] (or [rows]) for each column, of floats, doubles or integers.
Outputs of a classifier: labels, and scores as a tensor [rows, classes] or [rows, 1] or as one map for each row (what
scikit-learn's converters write); of a regressor: one tensor [rows] or [rows, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from strongroom.errors import ModelShape, ModelUnreadable, TableNotNumeric

from .graph import scan

_NUMBERS = {
    "tensor(double)": np.float64,
    "tensor(float)": np.float32,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}
_FLOATS = ("tensor(float)", "tensor(double)")
_LABELS = ("tensor(int64)", "tensor(int32)", "tensor(string)")
_OUT_OF_MEMORY = ("bad_alloc", "bad allocation", "failed to allocate memory", "cannot allocate memory")

onnxruntime.disable_telemetry_events()
onnxruntime.set_default_logger_severity(4)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said of one batch.

    Attributes:
        labels: one text for each row, or ``None``.
        scores: float64 [rows, classes], or [rows, 1]; or ``None``.
    """

    labels: NDArray[np.str_] | None
    scores: NDArray[np.float64] | None


def _shape(why: str, step: str = "load model") -> NoReturn:
    raise ModelShape(why, step=step)


def _memory(error: Exception) -> None:
    """Raise MemoryError where a library's own error means that."""
    if any(words in str(error).lower() for words in _OUT_OF_MEMORY):
        raise MemoryError from None


class Model:
    """A loaded model.

    Args:
        data: the ONNX file.
        features: the names of the columns, in the order in which they are given.
        classifies: whether labels are wanted, rather than a number.

    Raises:
        ModelUnreadable: see ``graph.scan``, or onnxruntime cannot load it.
        ModelShape: inputs or outputs of other forms than those above, or for another number of columns.
    """

    def __init__(self, data: bytes, features: Sequence[str], *, classifies: bool) -> None:
        graph = scan(data)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False
        options.log_severity_level = 4
        options.add_session_config_entry("session.load_model_format", "ONNX")  # what was scanned is what is loaded
        try:
            self._session: Any = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001 - onnxruntime's errors have no common base
            _memory(error)
            raise ModelUnreadable("onnxruntime cannot load the model", step="load model") from None
        self._features = tuple(features)
        self._listed = graph.labels
        self._inputs = self._match_inputs()
        self._label, self._score, self._maps = self._match_outputs(classifies)

    def _match_inputs(self) -> list[tuple[str, Any, list[int], bool]]:
        """For each input: its name, its type, the columns it takes, and whether it has rows alone."""
        wanted = self._session.get_inputs()
        if any(i.type not in _NUMBERS for i in wanted):
            _shape("the model has an input that takes no numbers")
        if len(wanted) == 1:
            only, count = wanted[0], len(self._features)
            flat = len(only.shape) == 1 and count == 1
            if not flat and (len(only.shape) != 2 or (isinstance(only.shape[1], int) and only.shape[1] != count)):
                _shape("the model's input is not [rows, features] of that many features")
            return [(only.name, _NUMBERS[only.type], list(range(count)), flat)]
        if {i.name for i in wanted} != set(self._features) or len(wanted) != len(self._features):
            _shape("the model's inputs are not the columns")
        if any(len(i.shape) not in {1, 2} or i.shape[1:] not in ([], [1]) for i in wanted):
            _shape("the model has an input that takes more than one column")
        return [(i.name, _NUMBERS[i.type], [self._features.index(i.name)], len(i.shape) == 1) for i in wanted]

    def _match_outputs(self, classifies: bool) -> tuple[str, str, bool]:
        """The names of the labels' output and of the scores', each ``""`` where there is none, and whether scores are
        maps."""
        found = self._session.get_outputs()
        label = next((o.name for o in found if o.type in _LABELS), "") if classifies else ""
        maps = next((o.name for o in found if o.type.startswith("seq(map(")), "") if classifies else ""
        floats = next((o.name for o in found if o.type in _FLOATS), "")
        if not (label or maps or floats):
            _shape("the model has no output of labels or scores" if classifies else "the model has no output of numbers")
        return label, maps or floats, bool(maps)

    def classes(self, count: int) -> tuple[str, ...]:
        """The class of each of ``count`` scores, as far as the model says; else empty."""
        fitting = {labels for labels in self._listed if len(labels) == count and len(set(labels)) == count}
        return fitting.pop() if len(fitting) == 1 else ()

    def predict(self, features: NDArray[np.float64]) -> Answer:
        """Ask the model.

        Args:
            features: [rows, features], finite.

        Raises:
            TableNotNumeric: a value that the model's type of number cannot hold.
            ModelShape: the model refused the batch, or answered something of another form.
        """
        given = {name: self._cast(features[:, columns], kind, flat) for name, kind, columns, flat in self._inputs}
        asked = [name for name in (self._label, self._score) if name]
        try:
            answers = dict(zip(asked, self._session.run(asked, given), strict=True))
        except Exception as error:  # noqa: BLE001 - the same
            _memory(error)
            raise ModelShape("the model refused the rows", step="predict") from None
        labels = self._read_labels(answers[self._label], len(features)) if self._label else None
        scores = self._read_scores(answers[self._score], len(features)) if self._score else None
        return Answer(labels, scores)

    @staticmethod
    def _cast(columns: NDArray[np.float64], kind: Any, flat: bool) -> NDArray[Any]:
        with np.errstate(over="ignore", invalid="ignore"):
            cast = np.ascontiguousarray(columns.astype(kind))
        whole = np.issubdtype(kind, np.integer)
        if (whole and not np.array_equal(cast, columns)) or not np.isfinite(cast).all():
            raise TableNotNumeric("a feature holds a number that the model's type cannot hold", step="predict")
        return cast[:, 0] if flat else cast

    @staticmethod
    def _read_labels(found: Any, rows: int) -> NDArray[np.str_]:
        labels = np.asarray(found)
        if labels.size != rows:
            _shape("the model does not give one label for each row", "predict")
        return labels.reshape(rows).astype(str)

    def _read_scores(self, found: Any, rows: int) -> NDArray[np.float64]:
        scores = self._read_maps(found) if self._maps else np.asarray(found, dtype=np.float64)
        if scores.ndim == 1:
            scores = scores.reshape(-1, 1)
        if scores.ndim != 2 or len(scores) != rows or not scores.shape[1]:
            _shape("the model does not give one row of scores for each row", "predict")
        if not np.isfinite(scores).all():
            _shape("the model gives scores that are no finite numbers", "predict")
        return scores

    def _read_maps(self, found: Any) -> NDArray[np.float64]:
        """Scores from one map for each row. The first map's order is the order of the classes."""
        keys = list(found[0])
        self._listed = [tuple(str(key) for key in keys)]
        try:
            return np.array([[row[key] for key in keys] for row in found], dtype=np.float64)
        except KeyError:
            _shape("the model's maps do not all have the same classes", "predict")
