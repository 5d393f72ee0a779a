"""Jobs as documents: a cancel, a request to see one's jobs, who may cancel."""

from __future__ import annotations

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom import wire
from strongroom.contract import Proposal
from strongroom.errors import NotAParty, StrongroomError
from strongroom.job import (
    CANCEL_TYPE,
    LIST_TYPE,
    Cancel,
    JobsRequest,
    JobState,
    cancelled,
    may_cancel,
    require_may_cancel,
)
from strongroom.wire import Envelope
from world import NOW, RUN, World, keys_of

HOME = Path(__file__).parents[1]
VECTORS = sorted((HOME / "vectors" / "job").glob("*.json"))
PROPOSAL = World().proposal()
EVERYBODY = [party.name for party in PROPOSAL.parties]


def test_there_are_vectors_of_both_outcomes() -> None:
    assert {json.loads(path.read_bytes())["expect"] == "ok" for path in VECTORS} == {True, False}


def happen(case: dict[str, Any]) -> object:
    envelope = Envelope.from_json(case["envelope"])
    if case["operation"] == "list":
        return JobsRequest.verify(envelope, case["at"])
    return Cancel.verify(envelope, Proposal.from_json(case["proposal"]), case["at"])


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_vector(path: Path) -> None:
    case = json.loads(path.read_bytes())
    if case["expect"] == "ok":
        happen(case)
        return
    with pytest.raises(StrongroomError) as caught:
        happen(case)
    assert caught.value.code == case["expect"]


def script() -> ModuleType:
    found = spec_from_file_location("make_job", HOME / "vectors" / "make_job.py")
    assert found
    assert found.loader
    module = sys.modules[found.name] = module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_the_vectors_are_those_that_their_script_writes() -> None:
    assert {path.stem: json.loads(path.read_bytes()) for path in VECTORS} == script().all_cases()


def test_the_page_shows_documents_that_are_ones() -> None:
    page = (HOME / "spec" / "job.md").read_text(encoding="utf-8")
    shown = [block.split("```")[0].strip().encode() for block in page.split("```json\n")[1:]]
    cancel = json.loads((HOME / "vectors/job/cancel-good.json").read_bytes())["envelope"]
    request = json.loads((HOME / "vectors/job/list-good.json").read_bytes())["envelope"]
    assert shown == [wire.unb64(cancel["payload"]), wire.unb64(request["payload"])]
    assert all(state.value in page for state in JobState)


@given(st.binary(max_size=200) | st.sampled_from([b"{}", b"[]", b"null", b'{"at":1}']))
def test_nonsense_is_no_cancel_and_no_request(payload: bytes) -> None:
    lab = keys_of("lab").signing
    with pytest.raises(StrongroomError):
        Cancel.verify(lab.sign(CANCEL_TYPE, payload), PROPOSAL, NOW)
    with pytest.raises(StrongroomError):
        JobsRequest.verify(lab.sign(LIST_TYPE, payload), NOW)


def test_what_is_read_is_written_again() -> None:
    cancel = Cancel(PROPOSAL.digest, "lab", RUN, NOW)
    assert Cancel.peek(cancel.sign(keys_of("lab").signing)).encode() == cancel.encode()


def test_who_asked_and_the_owners_may_cancel_and_nobody_else() -> None:
    assert may_cancel(PROPOSAL, "lab") == {"lab", "hospital"}  # both own something that it reads
    one = PROPOSAL.assets[:1]
    owner = one[0].owner
    (other,) = [name for name in EVERYBODY if name != owner]
    alone = Proposal.from_json({**PROPOSAL.to_json(), "assets": [one[0].to_json()]})
    assert may_cancel(alone, owner) == {owner}
    assert may_cancel(alone, other) == {owner, other}
    require_may_cancel(alone, owner, owner)
    with pytest.raises(NotAParty):
        require_may_cancel(alone, other, owner)


def test_the_word_of_who_may_not_cancels_nothing() -> None:
    alone = Proposal.from_json({**PROPOSAL.to_json(), "assets": [PROPOSAL.assets[0].to_json()]})
    owner = alone.assets[0].owner
    (other,) = [name for name in EVERYBODY if name != owner]
    assert not cancelled(alone, owner, RUN, {})
    assert not cancelled(alone, owner, RUN, {RUN: {other}})
    assert not cancelled(alone, owner, RUN, {"0" * 32: {owner}})
    assert cancelled(alone, owner, RUN, {RUN: {owner}})
    assert cancelled(alone, other, RUN, {RUN: {other}})
    assert cancelled(alone, other, RUN, {RUN: {owner}})


def test_what_is_over() -> None:
    assert {state for state in JobState if not state.over} == {JobState.WAITING, JobState.RUNNING}
