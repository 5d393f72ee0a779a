"""The vectors of stores: heads and manifests, good and bad. They need neither faiss nor a tokenizer."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("numpy", reason="numpy is not installed")

from strongroom.errors import DatastoreError, StrongroomError
from strongroom.lm.datastore import Head
from strongroom.lm.source import Manifest

FOLDER = Path(__file__).parents[1] / "vectors" / "datastore"
KINDS = {"head": Head, "manifest": Manifest}
CASES = sorted(FOLDER.glob("*.json"))


def test_there_are_cases() -> None:
    assert len(CASES) > 20


@pytest.mark.parametrize("path", CASES, ids=lambda p: p.stem)
def test_each_case_has_its_outcome(path: Path) -> None:
    case = json.loads(path.read_bytes())
    data = case["document"].encode()
    if case["expect"] == "ok":
        assert KINDS[case["kind"]].parse(data).encode() == data
        return
    with pytest.raises(StrongroomError) as caught:
        KINDS[case["kind"]].parse(data)
    assert caught.value.code == case["expect"]


@pytest.mark.parametrize("kind", sorted(KINDS))
@given(st.data())
def test_whatever_is_changed_is_read_as_it_stands_or_refused(kind: str, data: st.DataObject) -> None:
    good = next(json.loads(p.read_bytes())["document"] for p in CASES if p.stem == f"{kind}-ok").encode()
    at = data.draw(st.integers(0, len(good) - 1))
    changed = good[:at] + data.draw(st.binary(max_size=3)) + good[at + data.draw(st.integers(0, 3)) :]
    with contextlib.suppress(DatastoreError):
        assert KINDS[kind].parse(changed).encode() == changed
