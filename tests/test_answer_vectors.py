"""Kept answers, by their vectors: what any reader must make of each (``spec/answer.md``)."""

from __future__ import annotations

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from strongroom import errors
from strongroom.app.cli.answered import _agreed
from strongroom.app.client.answer import Answer
from strongroom.app.client.session import Terms
from strongroom.inference.verification import Reader
from strongroom.trust import Trust

HOME = Path(__file__).parents[1]
VECTORS = sorted((HOME / "vectors" / "answer").glob("*.json"))


def _maker() -> ModuleType:
    found = spec_from_file_location("make_answer", HOME / "vectors" / "make_answer.py")
    assert found
    assert found.loader
    module = sys.modules[found.name] = module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_the_answers_are_those_that_their_script_writes() -> None:
    assert {path.stem: json.loads(path.read_bytes()) for path in VECTORS} == _maker().all_cases()


def read(case: dict[str, Any]) -> None:
    """As a reader with this trust file, who expects this contract. Raises StrongroomError."""
    answer, trust = Answer.parse(case["answer"].encode()), Trust.from_json(case["trust"])
    terms = Terms(trust=trust, contract=case["contract"] or _agreed(answer, trust), weights=case["weights"])
    answer.examine(answer.session(terms)).require(Reader.CLIENT)


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_answer_vector(path: Path) -> None:
    case: dict[str, Any] = json.loads(path.read_bytes())
    if case["expect"] == "ok":
        read(case)
        return
    with pytest.raises(errors.StrongroomError) as found:
        read(case)
    assert found.value.code == case["expect"]
    if "fails" in case:
        assert found.value.message.split()[0] == case["fails"]
