"""Decisions about shares, as files: any implementation of a broker that holds shares comes to the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from strongroom import wire
from strongroom.attest.appraisal_policy import AppraisalPolicy
from strongroom.broker import HeldShare, Owner, Refusal, Release, decide
from strongroom.contract import PROPOSAL_TYPE, Proposal, Withdrawal
from strongroom.holding import Deal, Says
from strongroom.party import DecryptionKey, SigningKey
from strongroom.release import ReleaseRequest, Slot, open_share
from strongroom.threshold import Enrolment
from strongroom.trust import Trust
from strongroom.wire import Envelope
from world import Entropy, MemoryBook

VECTORS = sorted((Path(__file__).parents[1] / "vectors" / "share_release").glob("*.json"))


def test_there_are_vectors_and_each_check_that_differs_has_some() -> None:
    numbers = {json.loads(path.read_bytes())["number"] for path in VECTORS}
    assert {"", "D3", "D4", "D6", "D9", "D12", "D13", "D14", "D15", "D16", "D17"} <= numbers


def remembered(case: dict[str, Any], request: ReleaseRequest) -> MemoryBook:
    """A broker's book as the file says."""
    said, found = case["book"], MemoryBook(Entropy("a book"))
    state, contract = found._state, request.contract.digest
    state.nonces = {bytes.fromhex(nonce): until for nonce, until in said["nonces"].items()}
    if said["share"] is not None:
        deal = Deal.parse(wire.encode(said["share"]["deal"]))
        state.shares[request.manifest] = HeldShare(said["share"]["owner"], deal, said["share"]["recalled"])
    state.words = {(contract, owner, Says.APPROVED) for owner in said["approved_by"]}
    state.words |= {(contract, owner, Says.ENDED) for owner in said["ended_by"]}
    if said["granted"]:
        state.granted_by[contract, "hospital", "ab" * 16] = said["granted"]
    state.runs = {(contract, run_id): keyset for run_id, keyset in said["runs"].items()}
    state.slots = {(contract, request.manifest, int(slot)): keyset for slot, keyset in said["slots"].items()}
    state.cancelled = {(contract, run_id, party) for run_id, party in said["cancelled"]}
    if said["budget"] is not None:
        state.budgets[request.manifest] = Envelope.from_json(said["budget"])
    proposal = Proposal.parse(request.contract.expect(PROPOSAL_TYPE))
    for value in said["withdrawn_by"]:
        envelope = Envelope.from_json(value)
        found.withdraw(Withdrawal.verify(envelope, proposal), envelope)
    return found


@pytest.mark.parametrize("path", VECTORS, ids=lambda p: p.stem)
def test_vector(path: Path) -> None:
    case = json.loads(path.read_bytes())
    request = ReleaseRequest.parse(wire.encode(case["request"]))
    owner = case["owner"]
    opener = owner["share_seed"] and DecryptionKey.from_seed(bytes.fromhex(owner["share_seed"]))
    here = Owner(
        owner["name"],
        SigningKey.from_seed(bytes.fromhex(owner["broker_seed"])),
        Trust.from_json(owner["trust"]),
        AppraisalPolicy.from_json(owner["policy"]),
        opener or None,
    )
    found = decide(request, owner=here, book=remembered(case, request), at=case["at"])
    if case["expect"] != "ok":
        assert isinstance(found, Refusal)
        assert (found.number, found.code) == (case["number"], case["expect"])
        return
    assert isinstance(found, Release), found
    assert request.share is not None
    opened = open_share(
        found.answer(),
        slot=Slot(request.contract.digest, request.run_id, case["keyset"], request.manifest),
        enrolment=Enrolment.parse(wire.encode(case["enrolment"])),
        index=1,
        asked=request.share,
        nonces=frozenset({request.nonce.hex()}),
        key=DecryptionKey.from_seed(bytes.fromhex(case["release_seed"])),
        latest=case["at"] + 600 if b'"serve":{' in request.contract.payload else None,
    )
    assert opened.share.encode().decode() == case["share"]
    assert opened.statement.part is not None
    assert opened.statement.part.slot == case["slot"]
