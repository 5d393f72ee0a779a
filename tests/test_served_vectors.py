"""What was served, by its vectors: who may ask, what an asker opens, and what a line is (``spec/usage.md``)."""

from __future__ import annotations

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from strongroom import errors, wire
from strongroom.contract import Contract
from strongroom.party import DecryptionKey
from strongroom.served import Head, Kept, ServedRequest, opened
from strongroom.wire import Envelope

HOME = Path(__file__).parents[1]
VECTORS = sorted((HOME / "vectors" / "served").glob("*.json"))


def _maker() -> ModuleType:
    found = spec_from_file_location("make_served", HOME / "vectors" / "make_served.py")
    assert found
    assert found.loader
    module = sys.modules[found.name] = module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_the_vectors_are_those_that_their_script_writes() -> None:
    assert {path.stem: json.loads(path.read_bytes()) for path in VECTORS} == _maker().all_cases()


def test_every_operation_has_cases_of_both_outcomes() -> None:
    cases = [json.loads(path.read_bytes()) for path in VECTORS]
    for operation in ("request", "open", "head", "line"):
        assert {case["expect"] == "ok" for case in cases if case["operation"] == operation} == {True, False}


def request(case: dict[str, Any]) -> None:
    contract = Contract.verify(Envelope.from_json(case["contract"]))
    envelope = Envelope.parse(case["request"].encode(), max_bytes=64 << 10)
    found = ServedRequest.verify(envelope, contract.proposal, case["at"])
    assert found.encode() == envelope.payload


def open_(case: dict[str, Any]) -> None:
    said, body = case["request"], wire.unb64(case["body"])
    asked = ServedRequest(said["contract"], said["party"], said["nonce"], said["at"])
    key = DecryptionKey.from_seed(bytes.fromhex(case["key"]))
    for size in (len(body) or 1, 100, 1):  # however its bytes arrive
        pieces = (body[at : at + size] for at in range(0, len(body), size))
        assert [line.decode() for line in opened(asked, key, pieces)] == case["lines"]


def head(case: dict[str, Any]) -> None:
    assert Head.parse(case["line"].encode()).encode() == case["line"].encode()


def line(case: dict[str, Any]) -> None:
    assert Kept.parse(case["line"].encode()).encode() == case["line"].encode()


OPERATIONS = {"head": head, "line": line, "open": open_, "request": request}


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_served_vector(path: Path) -> None:
    case: dict[str, Any] = json.loads(path.read_bytes())
    if case["expect"] == "ok":
        OPERATIONS[case["operation"]](case)
        return
    with pytest.raises(errors.StrongroomError) as found:
        OPERATIONS[case["operation"]](case)
    assert found.value.code == case["expect"]
