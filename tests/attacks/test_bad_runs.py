"""Runs that fail: on the model, the table, the limits. One clear line, a stable code, a receipt that says no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stage import RECORD_CANARY, Stage
from strongroom.app.client.draft import Wanted
from strongroom.asset import Manifest
from strongroom.receipt import Bundle, Statement


def table(edit: Callable[[list[str]], list[str]]) -> Callable[[Stage], dict[str, Manifest]]:
    """The hospital's records, edited."""

    def make(stage: Stage) -> dict[str, Manifest]:
        lines = (stage.held / "records.csv").read_text().splitlines()
        data = "\n".join(edit(lines)) + "\n"
        return {"model": stage.model, "data": stage.seal(stage.hospital, data.encode(), "records.csv")}

    return make


def model(data: Callable[[Stage], bytes]) -> Callable[[Stage], dict[str, Manifest]]:
    def make(stage: Stage) -> dict[str, Manifest]:
        return {"model": stage.seal(stage.lab, data(stage), "model.onnx"), "data": stage.records}

    return make


def looping(_stage: Stage) -> bytes:
    """A model that counts to a number that nobody reaches."""
    return _onnx(trip=2**62, grow=False)


def swelling(_stage: Stage) -> bytes:
    """A model that doubles a tensor until there is no more room."""
    return _onnx(trip=40, grow=True)


def _onnx(*, trip: int, grow: bool) -> bytes:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx import TensorProto, helper

        step = (
            helper.make_node("Concat", ["held", "held"], ["next"], axis=0)
            if grow
            else helper.make_node("Add", ["held", "held"], ["next"])
        )
        body = helper.make_graph(
            [helper.make_node("Identity", ["go_on"], ["on"]), step],
            "body",
            [
                helper.make_tensor_value_info("turn", TensorProto.INT64, []),
                helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
                helper.make_tensor_value_info("held", TensorProto.FLOAT, None),
            ],
            [
                helper.make_tensor_value_info("on", TensorProto.BOOL, []),
                helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
            ],
        )
        graph = helper.make_graph(
            [
                helper.make_node("Constant", [], ["trip"], value=helper.make_tensor("t", TensorProto.INT64, [], [trip])),
                helper.make_node("Constant", [], ["true"], value=helper.make_tensor("b", TensorProto.BOOL, [], [True])),
                helper.make_node("ReduceSum", ["X"], ["seed"], keepdims=1),
                helper.make_node("Loop", ["trip", "true", "seed"], ["end"], body=body),
                helper.make_node("ReduceSum", ["end"], ["whole"], keepdims=1),
                helper.make_node("Gemm", ["X", "weights"], ["scores"]),
                helper.make_node("Add", ["scores", "whole"], ["probabilities"]),
            ],
            "graph",
            [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, 30])],
            [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2])],
            [helper.make_tensor("weights", TensorProto.FLOAT, [30, 2], [0.0] * 60)],
        )
        opsets = [helper.make_opsetid("", 17)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


WHOLE: dict[str, Any] = {}
CASES: dict[str, tuple[Callable[[Stage], dict[str, Manifest]], dict[str, Any], str]] = {
    "a model of another shape": (
        lambda stage: {"model": stage.model, "data": stage.records},
        {"features": slice(0, 29)},
        "program.model_shape",
    ),
    "a model that is none": (model(lambda _: b"not an onnx file at all"), WHOLE, "program.model_unreadable"),
    "a model cut short": (
        model(lambda stage: (stage.held / "model.onnx").read_bytes()[:-300]),
        WHOLE,
        "program.model_unreadable",
    ),
    "missing columns": (
        table(lambda lines: [",".join(line.split(",")[1:]) for line in lines]),
        WHOLE,
        "program.table_columns",
    ),
    "text where numbers should be": (
        table(lambda lines: [*lines[:5], "many," + lines[5].split(",", 1)[1], *lines[6:]]),
        WHOLE,
        "program.table_not_numeric",
    ),
    "no rows": (table(lambda lines: lines[:1]), WHOLE, "program.table_empty"),
    "a table that is none": (table(lambda _: ['"unclosed']), WHOLE, "program.table_"),
    "a label that the model does not know": (
        table(lambda lines: [lines[0], *(line.rsplit(",", 2)[0] + ",7," for line in lines[1:])]),
        WHOLE,
        "program.table_labels",
    ),
    "out of time": (model(looping), {"seconds": 2}, "program.out_of_time"),
    "out of memory": (model(swelling), {"memory_bytes": 64 << 20}, "program.out_of_memory"),
    "too much written": (
        lambda stage: {"model": stage.model, "data": stage.records},
        {"outputs": {"predictions": Wanted(("lab",))}, "max_bytes": 200},
        "program.too_much_output",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_that_fails_says_where_and_why_and_nothing_else(stage: Stage, case):
    assets, limits, code = CASES[case]
    changes = dict(limits)
    draft = stage.draft()
    if "features" in changes:
        changes["parameters"] = {**draft.parameters, "features": stage.features[changes.pop("features")]}
    digest = stage.agree(title=case, assets=assets(stage), **changes)
    said = stage.cli("run", digest)
    assert (said.status, said.code) == (1, "enclave.run_failed"), said
    assert code in said.err.splitlines()[0]
    assert "Run the command again" not in said.err  # a hint for this very failure
    bundle = stage.lab.receipts(digest)[-1]
    statement = Statement.parse(bundle.receipt.payload)
    assert statement.failure is not None
    assert statement.failure.code.startswith(code)
    assert (statement.outputs, statement.owed) == ((), ())
    assert RECORD_CANARY not in bundle.encode() + said.out.encode() + said.err.encode()
    verified = stage.cli("verify", stage.bundle(digest))
    assert verified.status == 0
    assert f"failed at {statement.failure.step}: {statement.failure.code}" in verified.out
    assert "spent" in stage.cli("show", digest, party="hospital").out
    assert stage.cli("outputs", digest).status == 0
    assert stage.hospital.unreceipted() == []


def test_a_failed_run_is_one_json_object_with_its_receipt(stage: Stage):
    assets = {"model": stage.model, "data": stage.records}
    digest = stage.agree(assets=assets, outputs={"predictions": Wanted(("lab",))}, max_bytes=200)
    said = stage.cli("run", digest, "--json")
    assert (said.status, said.err) == (1, "")
    found = said.json
    assert found["error"]["code"] == "enclave.run_failed"
    assert found["error"]["hint"].endswith("--max-bytes")
    assert found["statement"]["predicate"]["failure"]["code"] == "program.too_much_output"
    with open(found["receipt"], "rb") as file:
        assert Bundle.parse(file.read())


def test_what_a_program_says_stays_inside_unless_the_contract_lists_it(stage: Stage):
    """A log is free text: it leaves only as an output that both signed, to whom they said."""
    digest = stage.agree(outputs={"log": Wanted(("hospital",)), "report": Wanted(("lab",))})
    assert stage.cli("run", digest).status == 0
    assert [o.name for o in stage.lab.outputs(digest)] == ["report"]
    assert [o.name for o in stage.hospital.outputs(digest)] == ["log"]


def test_a_process_that_is_not_isolated_says_so_with_every_result(stage: Stage):
    digest = stage.agree(sandbox="process")
    assert "as an ordinary process (not isolated)" in stage.cli("show", digest).out
    said = stage.cli("run", digest)
    assert said.status == 0, said.err
    assert "not isolated" in stage.cli("verify", stage.bundle(digest)).out
