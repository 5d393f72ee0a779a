"""Batches of receipts: who may have digests logged under a contract, and nobody else."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stage import in_process
from strongroom import wire
from strongroom.app.exchange.client import ExchangeClient
from strongroom.app.exchange.server import exchange
from strongroom.app.http import Client
from strongroom.app.stores.exchange import DAY, ExchangeStore
from strongroom.batch import MAX_RECEIPTS, Batch, Submission, admissible, batches
from strongroom.checkpoint import LogKey
from strongroom.contract import Contract
from strongroom.errors import (
    BadBatch,
    BadField,
    BadProof,
    BadSignature,
    LimitReached,
    NoSpace,
    NotFound,
    NotLogged,
    SignatureMissing,
    StrongroomError,
)
from strongroom.ledger import Entry
from strongroom.party import SigningKey
from strongroom.wire import Envelope
from world import LOG, NOW, RUN, keys_of, seed

HERE = Path(__file__).parents[1] / "vectors"
CASES = sorted((HERE / "receipt_batch").glob("*.json"))


def _maker():
    spec = importlib.util.spec_from_file_location("make_batch", HERE / "make_batch.py")
    found = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


M = _maker()


def test_there_are_vectors():
    assert len(CASES) > 25


@pytest.mark.parametrize("path", CASES, ids=lambda p: p.stem)
def test_a_vector_comes_to_what_it_says(path):
    case = json.loads(path.read_bytes())
    contract = Contract.verify(Envelope.from_json(case["contract"]))

    def look() -> Batch:
        submission = Submission.parse(case["submission"].encode())
        assert submission.encode() == case["submission"].encode()
        return admissible(submission, contract, case["at"])

    if case["expect"] == "ok":
        batch = look()
        assert batch.entries == tuple(Entry("receipt", contract.digest, r) for r in batch.receipts)
    else:
        with pytest.raises(StrongroomError) as refused:
            look()
        assert refused.value.code == case["expect"]


def test_the_vectors_are_what_their_script_writes():
    written = {path.stem: json.loads(path.read_bytes()) for path in CASES}
    assert written == json.loads(json.dumps(M.cases()))


digests = st.binary(max_size=4).map(wire.digest)


@settings(deadline=None)
@given(st.sets(digests, min_size=1, max_size=20))
def test_a_batch_is_read_as_it_is_written(receipts):
    batch = Batch(M.CONTRACT.digest, wire.digest(b"k"), RUN, tuple(sorted(receipts)))
    assert Batch.parse(batch.encode()) == batch


@settings(deadline=None)
@given(st.integers(min_value=0), st.integers(1, 255))
def test_a_mutated_batch_is_refused_or_says_what_it_says(place, change):
    data = bytearray(Batch(M.CONTRACT.digest, wire.digest(b"k"), RUN, M.RECEIPTS).encode())
    data[place % len(data)] ^= change
    try:
        found = Batch.parse(bytes(data))
    except StrongroomError:
        return
    assert found.encode() == data


def test_many_receipts_make_many_batches():
    pieces = M.Pieces()
    due = [wire.digest(str(n).encode()) for n in range(2 * MAX_RECEIPTS + 1)]
    found = list(batches(M.CONTRACT.digest, pieces.keyset, RUN, [*due, *due], pieces.enclave.receipt_key))
    read = [admissible(replace(pieces.sent(), batch=batch), M.CONTRACT, NOW).receipts for batch in found]
    assert [len(receipts) for receipts in read] == [MAX_RECEIPTS, MAX_RECEIPTS, 1]
    assert {digest for receipts in read for digest in receipts} == set(due)


# --- at the exchange --------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ExchangeStore]:
    found = ExchangeStore(tmp_path / "exchange", LOG, batched=5)
    yield found
    found.close()


@pytest.fixture
def web(store: ExchangeStore, monkeypatch) -> Iterator[httpx.Client]:
    monkeypatch.setattr("strongroom.app.exchange.server.time.time", lambda: NOW + 60.5)
    with in_process(exchange(store)) as found:
        yield found


@pytest.fixture
def there(web: httpx.Client) -> ExchangeClient:
    found = ExchangeClient(Client("http://role", transport=web._transport))
    proposal = M.CONTRACT.proposal
    lab, hospital = (proposal.sign(keys_of(n)) for n in ("lab", "hospital"))
    found.propose(proposal.envelope([lab]))
    found.approve(proposal, (hospital,))
    return found


def entry(digest: str) -> Entry:
    return Entry("receipt", M.CONTRACT.digest, digest)


def test_receipts_are_logged_once_and_proven_to_be(there, store):
    before = store.checkpoint().size
    assert there.log_receipts(M.Pieces().sent()) == 3
    assert there.log_receipts(M.Pieces().sent()) == 0
    assert store.checkpoint().size == before + 3
    for digest in M.RECEIPTS:
        assert there.proof(entry(digest)).verify(entry(digest), [LOG.verifier]).size == before + 3


def test_what_is_not_logged_is_not_proven(there, web):
    with pytest.raises(NotLogged):
        there.proof(entry(wire.digest(b"never served")))
    for query in ({}, {"kind": "receipt"}, {"contract": "x", "digest": "y", "kind": "receipt"}):
        assert web.get("/v1/log/proof", params=query).status_code == 400


def test_a_proof_of_one_receipt_is_none_of_another(there):
    there.log_receipts(M.Pieces().sent())
    with pytest.raises(BadProof):
        there.proof(entry(M.RECEIPTS[0])).verify(entry(M.RECEIPTS[1]), [LOG.verifier])
    forged = LogKey(LOG.name, SigningKey(seed("another log")))
    with pytest.raises(StrongroomError):
        there.proof(entry(M.RECEIPTS[0])).verify(entry(M.RECEIPTS[0]), [forged.verifier])


def test_a_stranger_fills_no_log(there, store):
    before = store.checkpoint().size
    for twist in (M.another_keyset, M.another_role, M.say(signer=SigningKey(seed("stranger"))), M.say(order=("data",))):
        pieces = M.Pieces()
        twist(pieces)
        with pytest.raises((BadBatch, BadSignature)):
            there.log_receipts(pieces.sent())
    assert store.checkpoint().size == before


def test_under_a_contract_that_is_not_here_nothing_is_logged(there):
    with pytest.raises(NotFound):
        there.log_receipts(M.Pieces(contract=M.OTHER_CONTRACT).sent())


def test_under_a_proposal_that_not_everybody_signed_nothing_is_logged(there):
    proposal = M.OTHER_CONTRACT.proposal
    there.propose(proposal.envelope([proposal.sign(keys_of("lab"))]))
    with pytest.raises(SignatureMissing):
        there.log_receipts(M.Pieces(contract=M.OTHER_CONTRACT).sent())


def test_an_enclave_that_was_let_in_cannot_fill_the_log_either(there, store, monkeypatch):
    there.log_receipts(M.Pieces().sent())
    before = store.checkpoint().size
    more = tuple(sorted(wire.digest(bytes([n])) for n in range(3)))
    with pytest.raises(LimitReached):
        there.log_receipts(M.Pieces(receipts=more).sent())
    assert store.checkpoint().size == before  # whole, or not at all
    assert there.log_receipts(M.Pieces(receipts=more[:2]).sent()) == 2
    monkeypatch.setattr("strongroom.app.exchange.server.time.time", lambda: NOW + DAY)
    assert there.log_receipts(M.Pieces(receipts=more).sent()) == 1  # another day


def test_where_the_disk_is_full_no_batch_is_taken(there, store, monkeypatch):
    monkeypatch.setattr(store, "_reserve", 1 << 60)
    with pytest.raises(NoSpace):
        there.log_receipts(M.Pieces().sent())


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"null", b"\xff", b'{"batch":{},"keyset":{},"leases":[]}'])
def test_what_is_no_submission_is_refused(there, web, body):
    answer = web.post("/v1/log/receipts", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"].startswith("wire.")


def test_a_submission_that_is_too_large_is_refused(web):
    assert web.post("/v1/log/receipts", content=b" " * ((1 << 20) + 1)).status_code == 413


def test_a_single_entry_is_still_no_way_around(there, web):
    """The route by which brokers log takes no receipts."""
    from strongroom.app.exchange.entry import ENTRY_TYPE
    from world import broker_key

    signed = broker_key("lab").sign(ENTRY_TYPE, entry(M.RECEIPTS[0]).encode())
    assert web.post("/v1/log/entries", content=signed.encode()).json()["error"]["code"] == BadField.code


def test_the_places_of_a_log_have_no_gaps_after_a_batch_was_refused(there, store):
    there.log_receipts(M.Pieces().sent())
    with pytest.raises(LimitReached):
        there.log_receipts(M.Pieces(receipts=tuple(sorted(wire.digest(bytes([n])) for n in range(9)))).sent())
    there.log_receipts(M.Pieces(receipts=(wire.digest(b"one more"),)).sent())
    assert len(store.entries(0, 100)) == store.checkpoint().size
    assert there.proof(entry(wire.digest(b"one more"))).verify(entry(wire.digest(b"one more")), [LOG.verifier])
