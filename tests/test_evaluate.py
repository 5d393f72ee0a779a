"""``evaluate``: any ONNX classifier or regressor on any table, and one clear failure for everything that does not fit."""

from __future__ import annotations

import csv
import io
import json
import struct
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from strongroom import errors, programs
from strongroom.errors import (
    BadParameters,
    ModelShape,
    ModelUnreadable,
    ProgramError,
    TableColumns,
    TableEmpty,
    TableLabels,
    TableNotNumeric,
    TableUnreadable,
)
from strongroom.output import enforce
from strongroom.output.report import REPORT_FORMAT
from strongroom.policy import OUTPUT_KINDS, OutputRule
from strongroom.programs import CLAIMS, STEPS, Input, OutputSpec, evaluate, evaluation, graph, measure, model, picture
from strongroom.programs.table import Batch, Table

FEATURES = ["x", "y"]
PARAMETERS: dict[str, Any] = {
    "task": "classification",
    "target": "t",
    "classes": ["0", "1"],
    "features": FEATURES,
    "positive": None,
    "groups": [],
}
REGRESSION: dict[str, Any] = {"task": "regression", "classes": None}
SPEC = {name: OutputSpec(kind.kind, 1 << 20, 1, 4) for name, kind in evaluate.OUTPUTS.items() if name != "log"}
ML = helper.make_opsetid("ai.onnx.ml", 3)


# --- models made by hand ----------------------------------------------------------------------------------------------


def serial(nodes: list[Any], inputs: list[Any], outputs: list[Any], initializers: Iterable[Any] = (), **more: Any) -> bytes:
    made = helper.make_graph(nodes, "g", inputs, outputs, list(initializers))
    found = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17), ML], ir_version=8, **more)
    return found.SerializeToString()


def tensor(name: str, kind: int = TensorProto.FLOAT, shape: Any = (None, 2)) -> Any:
    return helper.make_tensor_value_info(name, kind, list(shape))


def linear(
    labels: list[Any], rows: int = 2, zipmap: bool = False, post: str = "SOFTMAX", kind: int = TensorProto.FLOAT
) -> bytes:
    """A linear classifier whose k-th score is k times x."""
    which = "classlabels_strings" if isinstance(labels[0], str) else "classlabels_ints"
    weights = [float(k * (c == 0)) for k in range(len(labels)) for c in range(rows)]
    nodes = [
        helper.make_node(
            "LinearClassifier",
            ["in"],
            ["label", "scores"],
            domain="ai.onnx.ml",
            coefficients=weights,
            intercepts=[0.0] * len(labels),
            post_transform=post,
            **{which: labels},
        )
    ]
    label_type = TensorProto.STRING if isinstance(labels[0], str) else TensorProto.INT64
    outputs = [tensor("label", label_type, [None]), tensor("scores", TensorProto.FLOAT, [None, len(labels)])]
    if zipmap:
        key = "classlabels_strings" if isinstance(labels[0], str) else "classlabels_int64s"
        nodes.append(helper.make_node("ZipMap", ["scores"], ["maps"], domain="ai.onnx.ml", **{key: labels}))
        value = helper.make_tensor_type_proto(TensorProto.FLOAT, [])
        maps = helper.make_sequence_type_proto(helper.make_map_type_proto(label_type, value))
        outputs[1] = helper.make_value_info("maps", maps)
    return serial(nodes, [tensor("in", kind, [None, rows])], outputs)


def matmul(
    columns: int, shape: Any = (None, 2), kind: int = TensorProto.FLOAT, scale: float = 1.0, flat: bool = False
) -> bytes:
    """Scores [rows, columns]: the k-th is (k + 1) times the sum of the features."""
    typed = {TensorProto.FLOAT: np.float32, TensorProto.DOUBLE: np.float64, TensorProto.INT64: np.int64}[kind]
    weights = numpy_helper.from_array(
        np.full((2, columns), scale, dtype=typed) * np.arange(1, columns + 1, dtype=typed), "w"
    )
    nodes = [helper.make_node("MatMul", ["in", "w"], ["m"])]
    if kind == TensorProto.INT64:
        nodes.append(helper.make_node("Cast", ["m"], ["out"], to=TensorProto.FLOAT))
        kind_out = TensorProto.FLOAT
    else:
        nodes.append(helper.make_node("Identity", ["m"], ["out"]))
        kind_out = kind
    out_shape: list[Any] = [None, columns]
    if flat:
        nodes[-1:] = [
            helper.make_node("Squeeze", ["m", "axis"], ["out"]),
        ]
        axis = [numpy_helper.from_array(np.array([1]), "axis")]
        return serial(nodes, [tensor("in", kind, shape)], [tensor("out", kind_out, [None])], [weights, *axis])
    return serial(nodes, [tensor("in", kind, shape)], [tensor("out", kind_out, out_shape)], [weights])


def per_column(shape: Any = (None, 1)) -> bytes:
    """One input per column; one number: x minus y."""
    nodes = [helper.make_node("Sub", ["x", "y"], ["out"])]
    return serial(nodes, [tensor("y", shape=shape), tensor("x", shape=shape)], [tensor("out", shape=shape)])


def labels_only(count: int = 2) -> bytes:
    """Labels alone: the index of the largest feature."""
    nodes = [helper.make_node("ArgMax", ["in"], ["label"], axis=1, keepdims=0)]
    return serial(nodes, [tensor("in", shape=(None, count))], [tensor("label", TensorProto.INT64, [None])])


# --- tables -----------------------------------------------------------------------------------------------------------


def table(columns: Mapping[str, list[Any]]) -> bytes:
    out = io.StringIO()
    rows = csv.writer(out)
    rows.writerow(columns)
    rows.writerows(zip(*columns.values(), strict=True))
    return out.getvalue().encode()


def parquet(columns: Mapping[str, Any], **more: Any) -> bytes:
    out = io.BytesIO()
    pa.parquet.write_table(pa.table(dict(columns)), out, **more)
    return out.getvalue()


TABLE = {
    "x": [1.0, -1.0, 2.0, -2.0, 0.5, -3.0],
    "y": [0.0] * 6,
    "t": [1, 0, 1, 0, 0, 0],
    "g": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
}
CSV, PARQUET = "text/csv", "application/vnd.apache.parquet"


def given_(data: bytes, media_type: str = CSV) -> Input:
    return Input(media_type, len(data), lambda: io.BytesIO(data))


def run(
    model_: bytes,
    data: bytes,
    media_type: str = CSV,
    outputs: Iterable[str] = ("report",),
    spec: Any = SPEC,
    **parameters: Any,
) -> dict[str, bytes]:
    written: dict[str, bytes] = {}
    steps: list[tuple[str, int]] = []
    if parameters.get("task") == "regression":
        parameters = {**REGRESSION, **parameters}
    inputs = {"model": given_(model_, "application/onnx"), "data": given_(data, media_type)}
    wanted = {name: spec[name] for name in outputs}
    evaluate.run(
        inputs, {**PARAMETERS, **parameters}, wanted, written.__setitem__, lambda name, done: steps.append((name, done))
    )
    assert {name for name, _ in steps} <= set(STEPS)
    assert [done for _, done in steps] == sorted(done for _, done in steps)
    assert steps[-1] == ("write", 1000)
    return written


def report(model_: bytes, data: bytes, media_type: str = CSV, **parameters: Any) -> dict[str, Any]:
    return json.loads(run(model_, data, media_type, **parameters)["report"])


def fails(error: type[ProgramError], step: str, model_: bytes, data: bytes, media_type: str = CSV, **more: Any) -> None:
    with pytest.raises(error) as caught:
        run(model_, data, media_type, **more)
    assert type(caught.value) is error
    assert caught.value.step == step
    assert error.code in CLAIMS


# --- classification -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipmap", [False, True])
@pytest.mark.parametrize(
    ("labels", "target"), [([0, 1], [1, 0, 1, 0, 0, 0]), (["b", "m"], list("mbmbbb")), ([0, 1], ["true", "false"] * 3)]
)
@pytest.mark.parametrize("media_type", [CSV, PARQUET])
def test_a_binary_classifier(zipmap: bool, labels: list[Any], target: list[Any], media_type: str) -> None:
    columns = {**TABLE, "t": target}
    classes = [str(label) for label in labels]
    data = (table if media_type == CSV else parquet)(columns)
    found = report(linear(labels, zipmap=zipmap), data, media_type, classes=classes)
    assert found["format"] == REPORT_FORMAT
    assert found["classes"] == classes
    assert found["positive"] == str(labels[1])
    assert found["records"] == 6
    truth = [t in (1, "m", "true") for t in target]
    said = [x > 0 for x in TABLE["x"]]
    right = sum(a == b for a, b in zip(truth, said, strict=True))
    assert found["metrics"]["accuracy"] == right / 6
    assert found["metrics"].keys() == {"accuracy", "roc_auc", "balanced_accuracy", "log_loss", "brier_score"}
    matrix = found["matrices"]["confusion"]
    assert [sum(row) for row in matrix] == [truth.count(False), truth.count(True)]
    assert matrix[0][0] + matrix[1][1] == right


def test_metrics_are_those_of_the_book() -> None:
    found = report(linear([0, 1]), table(TABLE))
    chances = 1 / (1 + np.exp(-np.array(TABLE["x"], dtype=np.float32).astype(float)))
    truth = np.array(TABLE["t"])
    assert found["metrics"]["brier_score"] == pytest.approx(np.mean((chances - truth) ** 2), rel=1e-5)
    losses = -(truth * np.log(chances) + (1 - truth) * np.log(1 - chances))
    assert found["metrics"]["log_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert found["metrics"]["roc_auc"] == 1.0
    assert found["metrics"]["balanced_accuracy"] == (1 + 3 / 4) / 2


def test_the_positive_class_can_be_chosen() -> None:
    data = table({**TABLE, "t": list("bmbmmm")})
    assert report(linear(["m", "b"]), data, classes=["b", "m"], positive="m")["positive"] == "m"
    found = report(linear([0, 1]), table(TABLE), positive=0)
    assert found["positive"] == "0"
    assert found["metrics"]["roc_auc"] == 1.0


def test_a_classifier_of_three() -> None:
    found = report(linear(["a", "b", "c"], zipmap=True), table({**TABLE, "t": list("caaabc")}), classes=["a", "b", "c"])
    assert found["classes"] == ["a", "b", "c"]
    assert found["positive"] is None
    assert found["metrics"].keys() == {"accuracy", "roc_auc", "balanced_accuracy", "log_loss"}
    assert len(found["matrices"]["confusion"]) == 3


def test_a_class_that_never_is_leaves_the_area_undefined() -> None:
    found = report(linear(["a", "b", "c"]), table({**TABLE, "t": list("caaaaa")}), classes=["a", "b", "c"])
    assert "roc_auc" not in found["metrics"]
    assert found["metrics"]["balanced_accuracy"] > 0


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.DOUBLE])
def test_a_plain_tensor_of_logits(kind: int) -> None:
    found = report(matmul(2, kind=kind), table(TABLE))
    assert found["classes"] == ["0", "1"]
    assert found["metrics"]["roc_auc"] == 1.0
    assert found["metrics"]["accuracy"] == 5 / 6


def test_a_plain_tensor_of_one_logit() -> None:
    found = report(matmul(1), table(TABLE))
    assert found["classes"] == ["0", "1"]
    assert found["metrics"]["accuracy"] == 5 / 6


def test_a_plain_tensor_of_one_chance() -> None:
    chances = np.array([[0.25], [0.5]])
    assert np.array_equal(measure.chances(chances), [[0.75, 0.25], [0.5, 0.5]])


def test_chances_that_almost_sum_to_one_are_made_to() -> None:
    found = measure.chances(np.array([[0.2501, 0.75], [0.5, 0.5]]))
    assert np.allclose(found.sum(axis=1), 1)
    assert found[0, 0] == pytest.approx(0.25, abs=1e-3)


@given(st.lists(st.lists(st.floats(-1e4, 1e4), min_size=3, max_size=3), min_size=1, max_size=5))
def test_any_scores_are_chances(rows: list[list[float]]) -> None:
    found = measure.chances(np.array(rows))
    assert np.allclose(found.sum(axis=1), 1)
    assert ((found >= 0) & (found <= 1)).all()


def test_labels_alone() -> None:
    found = report(labels_only(), table({"x": [1, 0, 1], "y": [0, 1, 0], "t": [0, 1, 1]}))
    assert found["classes"] == ["0", "1"]
    assert found["metrics"].keys() == {"accuracy", "balanced_accuracy"}
    fails(ModelShape, "draw", labels_only(), table(TABLE), outputs=["calibration"])
    written = run(labels_only(), table(TABLE), outputs=["predictions"])["predictions"].decode().splitlines()
    assert written[:2] == ["row,predicted", "0,0"]


def test_scores_that_nobody_names_are_in_the_order_of_the_contract() -> None:
    found = report(matmul(3), table({**TABLE, "t": [7, 8, 7, 8, 7, 8]}), classes=["9", "8", "7"])
    assert found["classes"] == ["9", "8", "7"]
    assert found["matrices"]["confusion"] == [[0, 0, 0], [3, 0, 0], [0, 0, 3]]
    fails(ModelShape, "measure", matmul(3), table(TABLE))


def test_a_model_that_names_its_scores_in_another_order() -> None:
    one, two = (
        report(linear(["b", "m"]), table({**TABLE, "t": list("mbmbbb")}), classes=c) for c in (["b", "m"], ["m", "b"])
    )
    assert one["metrics"]["accuracy"] == two["metrics"]["accuracy"] == 5 / 6
    assert one["metrics"]["log_loss"] == pytest.approx(two["metrics"]["log_loss"])
    assert (one["positive"], two["positive"]) == ("m", "b")
    assert two["matrices"]["confusion"] == [row[::-1] for row in one["matrices"]["confusion"][::-1]]


def test_a_model_that_does_not_know_a_class_of_the_contract() -> None:
    fails(ModelShape, "measure", linear(["b", "m"]), table({**TABLE, "t": list("xbxbbb")}), classes=["b", "x"])


def labels_of_the_features() -> bytes:
    """The attack: labels alone, each of them the feature x of its record, as text."""
    nodes = [
        helper.make_node("Gather", ["in", "zero"], ["x"], axis=1),
        helper.make_node("Cast", ["x"], ["label"], to=TensorProto.STRING),
    ]
    zero = numpy_helper.from_array(np.array(0), "zero")
    return serial(nodes, [tensor("in")], [tensor("label", TensorProto.STRING, [None])], [zero])


def test_labels_of_the_model_do_not_carry_records_out() -> None:
    data = table({**TABLE, "x": [4711.25, 4712.25, 1.0, 0.0, 4715.25, 4716.25]})
    written = run(labels_of_the_features(), data, outputs=["report", "predictions"])
    assert not any(b"471" in text for text in written.values())
    found = json.loads(written["report"])
    assert found["classes"] == ["0", "1"]
    assert found["matrices"]["confusion"] == [[1, 0, 3], [0, 1, 1], [0, 0, 0]]
    assert written["predictions"].splitlines()[1] == b"0,(other)"


def test_names_of_scores_do_not_leave() -> None:
    made, data = linear(["b", "m", "Ada Lovelace"], zipmap=True), table({**TABLE, "t": list("bbbbbb"), "x": [1.0] * 6})
    written = run(made, data, outputs=["report", "predictions"], classes=["b", "m"], groups=[grouping(["2"])])
    assert not any(b"Ada" in text for text in written.values())
    found = json.loads(written["report"])
    assert found["matrices"]["confusion"] == [[0, 0, 6], [0, 0, 0], [0, 0, 0]]
    # every matrix is of one size
    assert [g["values"]["confusion"] for g in found["tables"][0]["groups"]] == [
        [[0, 0, 1], [0, 0, 0], [0, 0, 0]],
        [[0, 0, 5], [0, 0, 0], [0, 0, 0]],
    ]
    assert found["metrics"]["accuracy"] == 0
    assert written["predictions"].splitlines()[0] == b"row,predicted,p_b,p_m,p_(other)"
    full = report(linear(["a", "b", "c", "d"]), table({**TABLE, "t": list("abcabc")}), classes=["a", "b", "c"])
    assert "roc_auc" not in full["metrics"]  # of chances that do not sum to one


@given(st.text(max_size=6) | st.floats(allow_nan=True).map(str) | st.integers().map(str))
def test_any_label_has_a_place(label: str) -> None:
    assert measure.places(["0", "1"], [label])[0] in {0, 1, 2}
    assert measure.places(["0", "x"], [label])[0] == {"0": 0, "x": 1}.get(label, 2)


def test_large_integers_are_not_taken_for_each_other() -> None:
    assert measure.places([str(2**53)], [str(2**53 + 1), str(2**53)]).tolist() == [1, 0]


def rare(third: int = 3, rows: int = 60) -> dict[str, list[Any]]:
    """Records of which ``third`` are of the class 2."""
    truth = [2] * third + [n % 2 for n in range(rows - third)]
    return {"x": [t - 0.5 for t in truth], "y": [0.0] * rows, "t": truth, "g": [n % 2 for n in range(rows)]}


def test_a_class_of_few_records_does_not_leave() -> None:
    spec = {"report": OutputSpec("report", 1 << 20, 10, 4)}
    parameters = {"classes": ["0", "1", "2"], "groups": [grouping(["1"])], "spec": spec}
    wrote = run(linear([0, 1, 2]), table(rare()), **parameters)["report"]
    assert "balanced_accuracy" not in wrote.decode()
    assert "roc_auc" not in wrote.decode()
    found = json.loads(enforce("report", OutputRule(frozenset({"a"}), 1 << 20, 10, 2), wrote))
    assert found["classes"] == ["0"]  # 29 are of the class 0; 28 of the class 1, merged with the 3
    assert [sum(row) for row in found["matrices"]["confusion"]] == [29, 31]
    assert {len(g["values"]["confusion"]) for g in found["tables"][0]["groups"]} == {2}
    wrote = run(linear([0, 1, 2]), table(rare(20)), **parameters)["report"]
    assert "balanced_accuracy" in json.loads(wrote)["metrics"]
    found = json.loads(enforce("report", OutputRule(frozenset({"a"}), 1 << 20, 10, 2), wrote))
    assert found["classes"] == ["0", "1", "2"]


@pytest.mark.parametrize("label", ["2", "malignant", "0.5", "inf", ""])
def test_a_label_that_is_none_of_the_classes(label: str) -> None:
    data = table({**TABLE, "t": [label, 1, 0, 1, 0, 1]})
    fails(TableLabels, "measure" if label else "read table", linear([0, 1]), data)


def test_a_label_that_the_model_knows_and_the_contract_does_not() -> None:
    fails(TableLabels, "measure", linear(["b", "m", "x"]), table({**TABLE, "t": list("mbxbbb")}), classes=["b", "m"])


def test_a_refused_label_does_not_stand_in_the_refusal() -> None:
    with pytest.raises(TableLabels) as caught:
        run(linear([0, 1]), table({**TABLE, "t": ["Ada Lovelace", 1, 0, 1, 0, 1]}))
    assert "Ada" not in str(caught.value)


@pytest.mark.parametrize("spelling", [["1.0", "0.0"], ["1", "0"], ["TRUE", "False"], ["1.", "-0"]])
def test_labels_as_tables_spell_them(spelling: list[str]) -> None:
    data = table({**TABLE, "t": [spelling[1 - t] for t in TABLE["t"]]})
    assert report(linear([0, 1]), data)["metrics"]["roc_auc"] == 1.0


# --- groups -------------------------------------------------------------------------------------------------------------


def grouping(edges: list[str] | None = None, name: str = "size", column: str = "g") -> dict[str, Any]:
    return {"name": name, "column": column, "edges": edges}


@pytest.mark.parametrize("media_type", [CSV, PARQUET])
def test_bands(media_type: str) -> None:
    data = (table if media_type == CSV else parquet)(TABLE)
    (found,) = report(linear([0, 1]), data, media_type, groups=[grouping(["2", "4.5", "100"])])["tables"]
    assert (found["name"], found["by"], found["public"]) == ("size", "g", True)
    assert [(g["group"], g["records"]) for g in found["groups"]] == [
        ("below 2", 1),
        ("2 to 4.5", 3),
        ("4.5 to 100", 2),
        ("100 and above", 0),
    ]
    assert found["groups"][1]["values"] == {"accuracy": 1.0, "roc_auc": 1.0, "confusion": [[2, 0], [0, 1]]}
    assert found["groups"][0]["values"].keys() == {"accuracy", "confusion"}
    assert found["groups"][3]["values"] == {}


def test_distinct_values() -> None:
    data = table({**TABLE, "g": ["b", "a", "", "b", "a", "b"]})
    named = report(linear([0, 1]), table({**TABLE, "g": ["b", "(missing)", "", "b", "a", "b"]}), groups=[grouping()])[
        "tables"
    ]
    assert [(g["group"], g["records"]) for g in named[0]["groups"]] == [("(missing)", 2), ("a", 1), ("b", 3)]
    (found,) = report(linear([0, 1]), data, groups=[grouping()])["tables"]
    assert not found["public"]
    assert [(g["group"], g["records"]) for g in found["groups"]] == [("(missing)", 1), ("a", 2), ("b", 3)]


@pytest.mark.parametrize("media_type", [CSV, PARQUET])
def test_what_is_missing_is_a_group(media_type: str) -> None:
    columns = {**TABLE, "g": [1.0, None, 3.0, None, 5.0, 6.0]}
    data = (table if media_type == CSV else parquet)(columns)
    (found,) = report(linear([0, 1]), data, media_type, groups=[grouping(["2"])])["tables"]
    assert [(g["group"], g["records"]) for g in found["groups"]] == [("below 2", 1), ("2 and above", 3), ("(missing)", 2)]


def test_a_feature_can_group_as_a_number_and_as_text() -> None:
    for edges in (["0"], None):
        (found,) = report(linear([0, 1]), table(TABLE), groups=[grouping(edges, column="x")])["tables"]
        assert sum(g["records"] for g in found["groups"]) == 6


def test_long_values_are_cut_and_cannot_carry_more() -> None:
    data = table({**TABLE, "g": ["a" * 64 + "secret", "a" * 64 + "other", "b", "b", "b", "b"]})
    (found,) = report(linear([0, 1]), data, groups=[grouping()])["tables"]
    assert [(g["group"], g["records"]) for g in found["groups"]] == [("a" * 64, 2), ("b", 4)]


def test_too_many_distinct_values() -> None:
    count = evaluation.MAX_DISTINCT + 1
    data = table({"x": [0.0] * count, "y": [0.0] * count, "t": [0] * count, "g": list(range(count))})
    fails(BadParameters, "measure", linear([0, 1]), data, groups=[grouping()])


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=40), st.lists(st.integers(1, 29), min_size=1, max_size=4, unique=True)
)
@settings(max_examples=25, deadline=None)
def test_every_record_is_in_exactly_one_group_and_the_rule_takes_it(values: list[int], cuts: list[int]) -> None:
    rows = len(values)
    data = table({"x": values, "y": [0.0] * rows, "t": [v % 2 for v in values], "g": values, "h": values})
    edges = [str(cut) for cut in sorted(cuts)]
    both = [grouping(edges), grouping(None, "each", "h")]
    wrote = run(linear([0, 1]), data, groups=both)["report"]
    found = json.loads(wrote)
    assert [sum(g["records"] for g in t["groups"]) for t in found["tables"]] == [rows, rows]
    enforce("report", OutputRule(frozenset({"a"}), 1 << 20, 1, 2), wrote)
    for one in both:
        wrote = run(linear([0, 1]), data, groups=[one])["report"]
        enforce("report", OutputRule(frozenset({"a"}), 1 << 20, min(rows, 3), 2), wrote)


def test_two_tables_that_divide_almost_alike_do_not_leave() -> None:
    # By each column no group is small; the difference of their first groups is one record.
    columns = {"x": [1.0] * 40, "y": [0.0] * 40, "t": [0, 1] * 20, "g": [*range(40)], "h": [*range(40)]}
    groups = [grouping(["20"]), grouping(["21"], "again", "h")]
    wrote = run(linear([0, 1]), table(columns), groups=groups)["report"]
    with pytest.raises(errors.OutputRefused, match="one table at most"):
        enforce("report", OutputRule(frozenset({"a"}), 1 << 20, 10, 2), wrote)


# --- regression -----------------------------------------------------------------------------------------------------------

NUMBERS = {"x": [1.0, 2.0, 3.0, 4.0], "y": [0.0, 1.0, 0.0, 1.0], "t": [1.5, 1.0, 2.5, 3.5], "g": [1, 1, 2, 3]}


@pytest.mark.parametrize(
    "made", [per_column(), per_column((None,)), matmul(1), matmul(1, flat=True), matmul(1, kind=TensorProto.DOUBLE)]
)
def test_a_regressor(made: bytes) -> None:
    found = report(made, table(NUMBERS), task="regression", groups=[grouping()])
    x, y, t = (np.array(NUMBERS[name]) for name in "xyt")
    said = x - y if b"Sub" in made else x + y
    assert found["metrics"]["mean_absolute_error"] == pytest.approx(np.abs(said - t).mean())
    assert found["metrics"]["root_mean_squared_error"] == pytest.approx(np.sqrt(((said - t) ** 2).mean()))
    assert found["metrics"]["r2"] == pytest.approx(1 - ((said - t) ** 2).sum() / ((t - t.mean()) ** 2).sum())
    assert (found["classes"], found["positive"], found["matrices"]) == ([], None, {})
    groups = found["tables"][0]["groups"]
    assert [g["records"] for g in groups] == [2, 1, 1]
    assert "r2" in groups[0]["values"]
    assert "r2" not in groups[1]["values"]


def test_a_regressor_of_integers() -> None:
    data = table({"x": [1, 2], "y": [3, 4], "t": [4, 6]})
    made = matmul(1, kind=TensorProto.INT64)
    assert report(made, data, task="regression")["metrics"]["mean_absolute_error"] == 0
    fails(TableNotNumeric, "predict", made, table({"x": [1.5], "y": [1], "t": [2]}), task="regression")


def test_an_empty_band_of_a_regression_has_no_figures() -> None:
    found = report(per_column(), table(NUMBERS), task="regression", groups=[grouping(["100"])])
    assert found["tables"][0]["groups"][1] == {"group": "100 and above", "records": 0, "values": {}}


def test_one_feature_in_one_row_of_numbers() -> None:
    nodes = [helper.make_node("Identity", ["in"], ["out"])]
    made = serial(nodes, [tensor("in", shape=[None])], [tensor("out", shape=[None])])
    found = report(made, table({"x": [1, 2], "t": [1, 3]}), task="regression", features=["x"])
    assert found["metrics"]["mean_absolute_error"] == 0.5


def test_a_target_that_is_missing_is_refused() -> None:
    fails(TableNotNumeric, "read table", per_column(), table({**NUMBERS, "t": [1, "", 2, 3]}), task="regression")


def test_two_numbers_for_each_row_are_no_regression() -> None:
    fails(ModelShape, "predict", matmul(2), table(NUMBERS), task="regression")


def test_a_classifier_of_labels_is_no_regressor() -> None:
    fails(ModelShape, "load model", labels_only(), table(NUMBERS), task="regression")


def test_a_model_of_texts_alone_is_nothing() -> None:
    nodes = [helper.make_node("Cast", ["in"], ["out"], to=TensorProto.BOOL)]
    made = serial(nodes, [tensor("in")], [tensor("out", TensorProto.BOOL)])
    fails(ModelShape, "load model", made, table(TABLE))


def test_scores_that_overflow_are_refused() -> None:
    fails(ModelShape, "predict", matmul(1, scale=3e38), table({**NUMBERS, "x": [9.0] * 4}), task="regression")


# --- models that do not fit ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "junk", [b"", b"\x00", b"not a model", b"\x08\x08", b"PAR1" * 9, bytes(100), b"\x3a\xff\xff\xff\xff\x7f"]
)
def test_a_model_that_is_none(junk: bytes) -> None:
    fails(ModelUnreadable, "load model", junk, table(TABLE))


@given(st.integers(0, 10**6), st.integers(1, 255))
@settings(max_examples=150)
def test_a_damaged_model_never_gets_past_the_scan_as_anything_else(place: int, change: int) -> None:
    data = bytearray(linear(["b", "m"], zipmap=True))
    data[place % len(data)] ^= change
    with suppress(ModelUnreadable):
        graph.scan(bytes(data))


@given(st.binary(max_size=60))
def test_any_bytes_are_scanned_or_refused(data: bytes) -> None:
    with suppress(ModelUnreadable):
        graph.scan(data)


def test_an_operator_that_there_is_not() -> None:
    nodes = [helper.make_node("Exfiltrate", ["in"], ["out"])]
    fails(ModelUnreadable, "load model", serial(nodes, [tensor("in")], [tensor("out")]), table(TABLE))


def test_a_truncated_model() -> None:
    whole = linear([0, 1])
    for size in range(0, len(whole) - 30, 7):  # without its last fields it is a model still
        fails(ModelUnreadable, "load model", whole[:size], table(TABLE))


def external(where: str) -> bytes:
    """A model with a tensor whose data lie in another file."""
    outside = numpy_helper.from_array(np.zeros((2, 2), dtype=np.float32), "w")
    outside.ClearField("raw_data")
    outside.data_location = TensorProto.EXTERNAL
    entry = outside.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"
    inner = helper.make_graph([], "inner", [], [], [outside] if where == "subgraph" else [])
    then = helper.make_node("If", ["c"], ["m"], then_branch=inner, else_branch=inner)
    constant = helper.make_node("Constant", [], ["w"], value=outside)
    many = helper.make_node("Strange", [], ["w"], domain="ai.onnx.ml", values=[outside])
    sparse = onnx.SparseTensorProto(values=outside, indices=numpy_helper.from_array(np.zeros(1, dtype=np.int64)), dims=[4])
    nodes = {"subgraph": [then], "attribute": [constant], "attributes": [many]}.get(where, [])
    made = helper.make_graph(
        nodes, "g", [tensor("in")], [tensor("out")], [outside] if where == "initializer" else [],
        sparse_initializer=[sparse] if where == "sparse" else [],
    )  # fmt: skip
    functions = []
    if where == "function":
        functions = [helper.make_function("own", "F", [], ["w"], [constant], [helper.make_opsetid("", 17)])]
    if where == "sparse attribute":
        made.node.append(helper.make_node("Constant", [], ["w"], sparse_value=sparse))
    model_ = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], functions=functions)
    return model_.SerializeToString()


@pytest.mark.parametrize(
    "where", ["initializer", "subgraph", "attribute", "attributes", "sparse", "sparse attribute", "function"]
)
def test_weights_in_another_file_are_refused(where: str) -> None:
    with pytest.raises(ModelUnreadable, match="another file"):
        graph.scan(external(where))


def test_operators_of_a_library_are_refused() -> None:
    nodes = [helper.make_node("Leak", ["in"], ["out"], domain="com.example")]
    with pytest.raises(ModelUnreadable, match="not built in"):
        graph.scan(serial(nodes, [tensor("in")], [tensor("out")]))
    model_ = onnx.ModelProto.FromString(linear([0, 1]))
    model_.opset_import.append(helper.make_opsetid("com.example", 1))
    with pytest.raises(ModelUnreadable, match="not built in"):
        graph.scan(model_.SerializeToString())


def test_a_function_of_the_model_s_own_is_let_through() -> None:
    own = helper.make_function(
        "own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 17)],
        attribute_protos=[helper.make_attribute("note", "x")],
    )  # fmt: skip
    made = helper.make_graph(
        [helper.make_node("Twice", ["in"], ["out"], domain="own")], "g", [tensor("in")], [tensor("out")]
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    data = helper.make_model(made, opset_imports=imports, functions=[own], ir_version=8).SerializeToString()
    assert graph.scan(data).labels == []


def test_a_graph_for_training_is_refused() -> None:
    model_ = onnx.ModelProto.FromString(linear([0, 1]))
    model_.training_info.add()
    with pytest.raises(ModelUnreadable, match="training"):
        graph.scan(model_.SerializeToString())


def test_two_graphs_are_refused() -> None:
    # Protocol buffers merge them; whoever scans one of them has not scanned the model.
    with pytest.raises(ModelUnreadable, match="no ONNX model"):
        graph.scan(linear([0, 1]) + linear([0, 1]))


def test_graphs_nested_without_end_are_refused() -> None:
    inner = helper.make_graph([], "g", [], [])
    for _ in range(graph.MAX_DEPTH + 1):
        inner = helper.make_graph([helper.make_node("If", ["c"], ["m"], then_branch=inner, else_branch=inner)], "g", [], [])
    with pytest.raises(ModelUnreadable, match="nested"):
        graph.scan(helper.make_model(inner).SerializeToString())


@pytest.mark.parametrize(
    "data",
    [
        b"\x02\x00",  # field nought
        b"\xba\x80\x80\x80\x10\x00",  # a graph, to who keeps 32 bits of the key
        b"\x3a\x02\x08",  # a graph that is longer than the file
        b"\x3b",  # a field of a form that is no more
        b"\x38\x01",  # a number where the graph must be
        b"\x38" + b"\xff" * 11,  # a number without end
        b"\x3a\x04\x0a\x02\x3a\x05",  # a node whose domain is longer than the node
        b"\x3a\x05\x0a\x03\x3a\x01\xff",  # a domain that is not UTF-8
        b"\x39" + bytes(7),  # half a double
    ],
)
def test_malformed_fields(data: bytes) -> None:
    with pytest.raises(ModelUnreadable):
        graph.scan(data)


def test_fields_of_fixed_width_are_passed_over() -> None:
    extra = b"\x35" + struct.pack("<f", 1) + b"\x31" + struct.pack("<d", 1)
    assert graph.scan(linear([0, 1]) + extra).labels == [("0", "1")]


def test_labels_below_nought_and_one_by_one() -> None:
    found = graph.scan(linear([-1, 1]))
    assert found.labels == [("-1", "1")]
    packed = onnx.AttributeProto(name="classlabels_ints", ints=[-1, 3], type=onnx.AttributeProto.INTS).SerializeToString()
    scanner = graph._Scan()
    scanner.attribute(memoryview(packed), 0)
    scanner.attribute(memoryview(b"\x0a\x10classlabels_ints\x42\x02\x04\x05"), 0)
    assert scanner.found.labels == [("-1", "3"), ("4", "5")]


def test_lists_of_labels_that_differ_name_nothing() -> None:
    found = model.Model(linear([0, 1]), FEATURES, classifies=True)
    found._listed = [("0", "1"), ("1", "0")]
    assert found.classes(2) == ()


@pytest.mark.parametrize(
    ("made", "features"),
    [
        (linear([0, 1], rows=3), FEATURES),
        (linear([0, 1], rows=1), FEATURES),
        (matmul(2, shape=(None, 2, 2)), FEATURES),
        (per_column(), ["x"]),
        (per_column(), ["x", "g"]),
        (per_column((None, 2)), FEATURES),
        (per_column((None, 1, 1)), FEATURES),
    ],
)
def test_a_model_for_other_columns(made: bytes, features: list[str]) -> None:
    fails(
        ModelShape,
        "load model",
        made,
        table(TABLE),
        features=features,
        task="regression" if b"Sub" in made else "classification",
    )


def test_a_model_that_takes_texts() -> None:
    nodes = [helper.make_node("StringNormalizer", ["in"], ["out"])]
    made = serial(nodes, [tensor("in", TensorProto.STRING, [None])], [tensor("out", TensorProto.STRING, [None])])
    fails(ModelShape, "load model", made, table(TABLE), features=["x"])


def test_a_model_that_refuses_the_rows() -> None:
    fails(ModelShape, "predict", matmul(2, shape=(None, None)), table(TABLE), features=["x", "y", "g"])


def test_a_model_that_answers_once_for_all() -> None:
    nodes = [helper.make_node("ReduceSum", ["in"], ["out"], keepdims=0)]
    made = serial(nodes, [tensor("in")], [tensor("out", shape=())])
    fails(ModelShape, "predict", made, table(NUMBERS), task="regression")
    nodes = [
        helper.make_node("ReduceSum", ["in"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["out"], to=TensorProto.INT64),
    ]
    made = serial(nodes, [tensor("in")], [tensor("out", TensorProto.INT64, ())])
    fails(ModelShape, "predict", made, table(TABLE))


def test_maps_that_differ_from_row_to_row() -> None:
    found = model.Model(linear([0, 1], zipmap=True), FEATURES, classifies=True)
    with pytest.raises(ModelShape, match="same classes"):
        found._read_scores([{0: 1.0, 1: 0.0}, {0: 1.0}], 2)


@pytest.mark.parametrize("words", ["std::bad_alloc", "Failed to allocate memory for requested buffer"])
def test_a_model_that_asks_for_too_much_is_out_of_memory(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError(words)

    monkeypatch.setattr(model.onnxruntime, "InferenceSession", refuse)
    with pytest.raises(MemoryError):
        run(linear([0, 1]), table(TABLE))


# --- tables that do not fit ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "data"),
    [
        (TableEmpty, b""),
        (TableEmpty, b"x,y,t\n"),
        (TableUnreadable, b"\n"),
        (TableColumns, b"x,t\n1,1\n"),
        (TableColumns, b"x,y\n1,1\n"),
        (TableColumns, b"x,y,t,x\n1,1,1,1\n"),
        (TableUnreadable, b"x,y,t\n1,1,1\n1,1\n"),
        (TableNotNumeric, b"x,y,t\n1,abc,1\n"),
        (TableNotNumeric, b"x,y,t\n1,,1\n"),
        (TableNotNumeric, b"x,y,t\n1,NaN,1\n"),
        (TableNotNumeric, b"x,y,t\n1,inf,1\n"),
        (TableUnreadable, b"x,y,t\n1,1,\xff\n"),
    ],
)
def test_a_csv_that_does_not_fit(error: type[ProgramError], data: bytes) -> None:
    fails(error, "read table", linear([0, 1]), data)


def test_text_far_down_in_a_column_of_numbers() -> None:
    data = b"x,y,t\n" + b"1,1,1\n" * 400_000 + b"1,oops,1\n"
    fails(TableNotNumeric, "read table", linear([0, 1]), data)


def test_fractions_far_down_in_a_column_of_integers_are_numbers() -> None:
    data = b"x,y,t\n" + b"1,1,1\n" * 400_000 + b"1.5,1,0\n"
    assert report(linear([0, 1]), data)["records"] == 400_001


def test_a_number_beyond_the_model_s_own_type() -> None:
    fails(TableNotNumeric, "predict", linear([0, 1]), table({**TABLE, "x": [1e39] * 6}))


@pytest.mark.parametrize(
    ("error", "data"),
    [
        (TableEmpty, b""),
        (TableUnreadable, b"PAR1" + bytes(20) + b"PAR1"),
        (TableUnreadable, b"x,y,t\n1,1,1\n"),
        (TableUnreadable, parquet(TABLE)[:-9]),
        (TableEmpty, parquet({name: pa.array([], pa.float64()) for name in TABLE})),
        (TableEmpty, parquet({})),
        (TableColumns, parquet({"x": [1.0], "t": [1]})),
        (TableNotNumeric, parquet({**TABLE, "x": list("abcdef")})),
        (TableNotNumeric, parquet({**TABLE, "x": [1.0, None] * 3})),
        (TableNotNumeric, parquet({**TABLE, "x": [[1.0]] * 6})),
        (TableUnreadable, parquet({**TABLE, "t": [[1.0]] * 6})),
    ],
)
def test_a_parquet_that_does_not_fit(error: type[ProgramError], data: bytes) -> None:
    fails(error, "read table", linear([0, 1]), data, PARQUET)


def test_a_column_that_is_not_in_the_table() -> None:
    with pytest.raises(TableColumns):
        next(Table(given_(table(TABLE))).batches(["x"], ["z"]))


def test_a_batch_without_rows_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    read = Table.batches

    def batches(self: Table, numbers: Any, texts: Any) -> Any:
        nothing = np.zeros(0)
        yield Batch(0, dict.fromkeys(numbers, nothing), {name: ([], nothing.astype(np.int32)) for name in texts}, 0)
        yield from read(self, numbers, texts)

    monkeypatch.setattr(Table, "batches", batches)
    assert report(linear([0, 1], zipmap=True), table(TABLE))["records"] == 6


def test_another_media_type() -> None:
    fails(TableUnreadable, "read table", linear([0, 1]), table(TABLE), "application/x-python-pickle")


def test_memory_of_the_table_reader_is_not_taken_for_a_bad_table(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise pa.ArrowMemoryError("malloc")

    monkeypatch.setattr(pa.csv, "open_csv", refuse)
    with pytest.raises(MemoryError):
        run(linear([0, 1]), table(TABLE))


@pytest.mark.parametrize(
    "types",
    [
        {"x": pa.float32()},
        {"x": pa.int8()},
        {"x": pa.uint64()},
        {"t": pa.int8()},
        {"t": pa.dictionary(pa.int8(), pa.string())},
        {"t": pa.bool_()},
        {"t": pa.large_string()},
    ],
)
def test_parquet_of_any_numeric_type(types: dict[str, Any]) -> None:
    columns = {
        "x": pa.array([1, 2, 3, 4], types.get("x", pa.float64())),
        "y": pa.array([0.0] * 4),
        "t": pa.array([0, 1, 1, 1]).cast(pa.bool_() if types.get("t") == pa.bool_() else pa.string()),
    }
    if "t" in types:
        columns["t"] = (
            columns["t"].dictionary_encode() if pa.types.is_dictionary(types["t"]) else columns["t"].cast(types["t"])
        )
    assert report(linear([0, 1]), parquet(columns), PARQUET)["records"] == 4


def test_parquet_is_read_in_batches() -> None:
    rows = 20_000
    columns = {"x": np.arange(rows) - rows / 2, "y": np.zeros(rows), "t": (np.arange(rows) > rows / 2).astype(int)}
    found = report(linear([0, 1]), parquet(columns, row_group_size=5000), PARQUET)
    assert found["records"] == rows
    assert found["metrics"]["accuracy"] > 0.99


def test_all_other_columns_are_features_unless_named() -> None:
    data = table({name: TABLE[name] for name in ("x", "t", "g", "y")})
    assert report(linear([0, 1]), data, features=None, groups=[grouping(["2"])])["records"] == 6
    fails(ModelShape, "load model", linear([0, 1]), data, features=None)
    fails(TableColumns, "read table", linear([0, 1]), table({"t": [1]}), features=None)


# --- the other outputs --------------------------------------------------------------------------------------------------


def test_a_calibration_picture_leaves_as_it_is_and_again_the_same() -> None:
    one, two = (run(linear([0, 1]), table(TABLE), outputs=["calibration"])["calibration"] for _ in range(2))
    assert one == two
    rule = OutputRule(frozenset({"a"}), 1 << 20, 10, 4)
    left = enforce("picture", rule, one)
    assert b"pHYs" in one
    assert b"pHYs" not in left
    assert not any(word in left for word in (b"tEXt", b"Software", b"matplotlib"))


@pytest.mark.parametrize(
    ("made", "columns", "parameters"),
    [
        (linear(["a", "b", "c"]), {**TABLE, "t": list("caaabc")}, {"classes": ["a", "b", "c"]}),
        (per_column(), NUMBERS, {"task": "regression"}),
    ],
)
def test_calibration_of_other_models(made: bytes, columns: Mapping[str, list[Any]], parameters: dict[str, Any]) -> None:
    found = run(made, table(columns), outputs=["calibration"], **parameters)["calibration"]
    assert enforce("picture", OutputRule(frozenset({"a"}), 1 << 20, 1, 4), found)


@given(st.lists(st.floats(0, 1), max_size=60), st.integers(1, 20))
def test_no_bin_of_the_picture_is_smaller_than_agreed(predicted: list[float], smallest: int) -> None:
    found = picture.bins(np.array(predicted), np.linspace(0, 1, 11)[1:-1], smallest)
    assert all(len(records) >= smallest for records in found)
    # all records, or none: what is in no bin cannot be had by subtraction
    assert sorted(n for records in found for n in records) == (list(range(len(predicted))) if found else [])
    assert bool(found) == (len(predicted) >= smallest)


def test_a_picture_of_fewer_records_than_a_group_shows_no_point() -> None:
    few = picture.calibration(np.array([0.1]), np.array([1.0]), chance=True, what="x", smallest=10, decimals=2)
    none = picture.calibration(np.zeros(0), np.zeros(0), chance=True, what="x", smallest=10, decimals=2)
    assert few == none


def test_predictions_have_a_row_for_each_record() -> None:
    spec = {"predictions": OutputSpec("records", 1 << 20, 1, 3)}
    data = table({**TABLE, "t": list("mbmbbb")})
    found = run(linear(["b", "m"]), data, outputs=["predictions"], spec=spec, classes=["b", "m"])["predictions"]
    rows = list(csv.reader(io.StringIO(found.decode())))
    assert rows[:2] == [["row", "predicted", "p_b", "p_m"], ["0", "m", "0.269", "0.731"]]
    assert len(rows) == 7
    rule = OutputRule(frozenset({"a"}), 1 << 20, 1, 3)
    assert enforce("records", rule, found) == found


def test_predictions_of_a_regressor() -> None:
    found = run(per_column(), table(NUMBERS), outputs=["predictions"], task="regression")["predictions"]
    assert found == b"row,predicted\n0,1.0\n1,1.0\n2,3.0\n3,3.0\n"


def test_what_is_needed_is_loaded_ahead() -> None:
    programs.load("evaluate").load(evaluate.OUTPUTS)


def test_only_what_is_wanted_is_written() -> None:
    assert run(linear([0, 1]), table(TABLE), outputs=[]) == {}


# --- parameters ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"task": "clustering"},
        {"task": None},
        {"target": ""},
        {"target": 1},
        {"target": "a\nb"},
        {"target": "x" * 129},
        {"target": "x"},
        {"features": []},
        {"features": ["x", "x"]},
        {"features": "xy"},
        {"features": [1]},
        {"positive": True},
        {"positive": []},
        {"positive": "2"},
        {"positive": 2},
        {"positive": "1", **REGRESSION},
        {"positive": "1", "classes": ["0", "1", "2"]},
        {"task": "regression"},
        {"classes": None},
        {"classes": []},
        {"classes": "01"},
        {"classes": ["1"]},
        {"classes": [0, 1]},
        {"classes": ["0", "0"]},
        {"classes": ["0", ""]},
        {"classes": ["0", "a\nb"]},
        {"classes": ["0", "x" * 65]},
        {"classes": ["0", "(other)"]},
        {"classes": [str(n) for n in range(65)]},
        {"groups": [grouping(column="t")]},
        {"groups": [grouping(["1"], column="t")], **REGRESSION},
        {"groups": None},
        {"groups": [{}]},
        {"groups": [grouping([])]},
        {"groups": [grouping(["2", "1"])]},
        {"groups": [grouping(["1", "1.0"])]},
        {"groups": [grouping(["1e3"])]},
        {"groups": [grouping(["01"])]},
        {"groups": [grouping(["nan"])]},
        {"groups": [grouping([12])]},
        {"groups": [grouping(), grouping(column="h")]},
        {"groups": [grouping(name="a"), grouping(name="b", edges=["1"])]},
        {"groups": [grouping(name=str(n), column=str(n)) for n in range(17)]},
        {"unknown": 1},
    ],
)
def test_parameters_that_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(BadParameters) as caught:
        evaluate.check({**PARAMETERS, **changes})
    assert caught.value.step == "check parameters"


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_parameter_must_be_there(name: str) -> None:
    with pytest.raises(BadParameters):
        evaluate.check({key: value for key, value in PARAMETERS.items() if key != name})


def test_parameters_that_are_no_object() -> None:
    with pytest.raises(BadParameters):
        evaluate.check([])  # type: ignore[arg-type]


def test_parameters_that_are_taken() -> None:
    evaluate.check({**PARAMETERS, **REGRESSION})
    evaluate.check({**PARAMETERS, "classes": [f"{n:064}" for n in range(64)]})
    evaluate.check({"target": "t", **evaluate.DEFAULTS, "task": "regression"})
    with pytest.raises(BadParameters):
        evaluate.check({"target": "t", **evaluate.DEFAULTS, "task": "classification"})
    evaluate.check({**PARAMETERS, "features": None, "positive": 1, "groups": [grouping(["-1.5", "0", "12.25"])]})


# --- the protocol of programs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", programs.NAMES)
def test_every_standard_program_keeps_to_the_protocol(name: str) -> None:
    found = programs.load(name)
    assert name == found.NAME
    assert found.ROLES or hasattr(found, "roles")
    assert {kind.kind for kind in found.OUTPUTS.values()} <= set(OUTPUT_KINDS)
    if name == evaluate.NAME:
        assert set(found.DEFAULTS) < set(PARAMETERS)
    file = name.replace("-", "_")
    assert programs.modules(name)[0] == f"strongroom.programs.{file}"
    files = programs.sources(name)
    assert list(files) == sorted(set(files))
    assert {"errors.py", "programs/__init__.py", "programs/boot.py", "programs/runner.py", f"programs/{file}.py"} <= set(
        files
    )


@pytest.mark.parametrize("ask", [programs.load, programs.sources])
def test_a_program_that_there_is_not(ask: Any) -> None:
    with pytest.raises(BadParameters, match="no standard program"):
        ask("exfiltrate")


@cache
def loaded_by(code: str) -> set[str]:
    import subprocess

    code += "\nimport sys; print(*{name.split('.')[0] for name in sys.modules})"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_a_client_that_checks_parameters_loads_nothing_heavy() -> None:
    code = f"from strongroom.programs import load; load('evaluate').check({PARAMETERS!r})"
    assert not loaded_by(code) & {"numpy", "onnxruntime", "pyarrow", "sklearn", "matplotlib", "scipy"}


def test_what_draws_is_loaded_only_where_something_is_drawn() -> None:
    assert "matplotlib" not in loaded_by("from strongroom.programs import load; load('evaluate').load(('report',))")


def test_no_pandas_anywhere() -> None:
    assert "pandas" not in loaded_by(
        "from strongroom.programs import load, runner; program = load('evaluate'); runner.hide(program);"
        "program.load(('report', 'calibration'))"
    )


def test_the_claims_are_failures_of_programs() -> None:
    assert set(CLAIMS) < {code for code, leaf in errors.leaves().items() if issubclass(leaf, ProgramError)}
    assert all(CLAIMS[code].code == code for code in CLAIMS)


def test_the_example_of_the_specification() -> None:
    page = (Path(__file__).parents[1] / "spec" / "programs.md").read_text(encoding="utf-8")
    example = page.split("```json\n")[1].split("\n```")[0]
    assert json.dumps(json.loads(example), sort_keys=True, separators=(",", ":")) == example
    found = evaluate.read(json.loads(example))
    assert found.groups[0].bands == ("below 12", "12 to 15", "15 to 20", "20 and above")
    assert all(f"`{band}`" in page for band in found.groups[0].bands)
    for name in (*evaluate.OUTPUTS, "accuracy", "r2", "brier_score", measure.__name__.rsplit(".", 1)[1]):
        assert f"`{name}`" in page
