"""What an owner gets to recompute a bill: its receipts and nobody else's, whole, proven, and counted as they are."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("prometheus_client", reason="a serving process needs strongroom[chat]")

from inference_case import M
from inference_world import MODEL, SERVE, InferenceWorld
from stage import call
from strongroom import wire
from strongroom.app.client.home import PartyHome
from strongroom.app.client.served import PRICES, fetch, lines_of, prices_of, recount
from strongroom.app.inference.asking import Around
from strongroom.app.inference.credentials import NO_LIMITS
from strongroom.app.inference.discreet import Discreet
from strongroom.app.inference.metering import Metering
from strongroom.app.inference.server import Service
from strongroom.batch import Submission, admissible
from strongroom.errors import (
    BadField,
    BadInferenceReceipt,
    BadKey,
    BadSignature,
    BadUsage,
    EnclaveNotNamed,
    KeysetOfAnotherRun,
    NotAffirming,
    NotAParty,
    NotFound,
    NotPinned,
    ReceiptDoubled,
    StrongroomError,
    TooLarge,
)
from strongroom.ledger import Entry, LoggedProof, MemoryNodes, Tree
from strongroom.party import DecryptionKey
from strongroom.served import REQUEST_SECONDS, Head, Kept, ServedRequest, opened, pages
from strongroom.usage import price, total
from strongroom.wire import Envelope
from world import LOG, NOW, keys_of, seed

NONCE = seed("an owner's nonce").hex()


class Tales:
    """A room that answered some questions, its log, and what its owner fetched."""

    def __init__(self, folder: Path, made: InferenceWorld | None = None, **world: Any) -> None:
        self.world = made or InferenceWorld(serve=replace(SERVE, plain_bodies=True), folder=folder / "world", **world)
        self.contract = self.world.contract
        self.tree, self.entries = Tree(MemoryNodes()), list[Entry]()
        self.metering = Metering(folder, self, anonymous=NO_LIMITS, every=3600, now=self.world.now)
        rooms = self.world.rooms
        rooms.observer, rooms.opened = self.metering.observer, self.metering.opened
        around = Around(
            rooms=rooms,
            gate=self.metering.gate,
            receipts=self.metering.receipts,
            strangers={},
            now=self.world.now,
            plain=True,
        )
        self.world.service = Service(around, anonymous=True, served=self.metering.served)

    def log_receipts(self, submission: Submission) -> int:
        found = admissible(submission, self.contract, self.world.clock()).entries
        for entry in found:
            self.tree.append(entry)
        self.entries += found
        return len(found)

    def close(self) -> None:
        self.metering.close()
        self.world.close()

    async def answer(self, *questions: str) -> None:
        await self.world.open()
        for question in questions:
            answer = await self.world.ask(
                "/v1/chat/completions", {"messages": [{"content": question, "role": "user"}], "model": MODEL}
            )
            assert answer.status == 200, answer.body
        refused = await self.world.ask("/v1/chat/completions", {"messages": [], "model": "unknown"})
        assert refused.status >= 400

    def asked(self, party: str = "lab", **changes: Any) -> tuple[ServedRequest, Envelope]:
        found = ServedRequest(self.contract.digest, party, NONCE, self.world.clock())
        found = replace(found, **changes)
        return found, found.sign(keys_of(party).signing)

    async def fetched(self, party: str = "lab") -> list[bytes]:
        request, envelope = self.asked(party)
        answer = await self.world.send("POST", "/v1/served", envelope.encode())
        assert answer.status == 200, answer.body
        return list(opened(request, keys_of(party).decryption, answer.pieces))

    def written(self, lines: list[bytes], path: Path, *, proven: bool = True) -> Path:
        """As ``served.fetch`` writes them."""
        head, *rest = lines
        out = [head]
        for line in rest:
            kept = Kept.parse(line)
            index = self.entries.index(Entry("receipt", self.contract.digest, kept.receipt.digest))
            proof = LoggedProof(self.tree.checkpoint(LOG), self.tree.prove_inclusion(index, self.tree.size))
            out.append(Kept(kept.receipt, proof if proven else None).encode())
        path.write_bytes(b"".join(line + b"\n" for line in out))
        return path


@pytest.fixture
def tales(tmp_path: Path) -> Iterator[Tales]:
    found = Tales(tmp_path)
    yield found
    found.close()


@pytest.fixture
def told(tales: Tales, tmp_path: Path) -> Path:
    """The file of an owner: three answers and a refusal."""

    async def tell() -> list[bytes]:
        await tales.answer("one", "one two", "one two three")
        tales.metering.receipts.flush()
        tales.metering._logger.step()
        return await tales.fetched()

    return tales.written(asyncio.run(tell()), tmp_path / "receipts.jsonl")


def counted(tales: Tales, *paths: Path, **changes: Any) -> Any:
    given_ = {"trust": tales.world.trust(), "weights": {}, "at": NOW, "room": None, **changes}
    return recount(paths, **given_)


# --- counting ---------------------------------------------------------------------------------------------------------


def test_an_owner_counts_what_the_enclave_counted(tales, told):
    found = counted(tales, told)
    assert found.refused == ()
    assert found.counted == 4  # the refusal too, which meters nothing
    assert found.totals == tales.metering.receipts.totals()
    (line,) = found.totals.lines
    assert (line.model, line.requests, line.usage.prompt) == (MODEL, 3, 6)
    assert found.label == "platform: simulated (no hardware protection)"
    assert found.missing is None


def test_the_same_receipt_in_two_files_counts_once(tales, told, tmp_path):
    again = tmp_path / "again.jsonl"
    again.write_bytes(told.read_bytes())
    assert counted(tales, told, again) == counted(tales, told)


def test_what_is_logged_and_not_handed_over_is_missing(tales, told, tmp_path):
    class Reader:
        def ledger(self) -> tuple[None, list[Entry]]:
            return None, tales.entries

    lines = told.read_bytes().splitlines(keepends=True)
    told.write_bytes(b"".join(lines[:-1]))  # whoever serves keeps one back
    found = counted(tales, told, room=Reader())
    assert found.missing == (Kept.parse(lines[-1][:-1]).receipt.digest,)


def test_what_no_log_holds_is_not_counted(tales, told, tmp_path):
    bare = tales.written([*told.read_bytes().splitlines()], tmp_path / "bare.jsonl", proven=False)
    found = counted(tales, bare)
    assert found.counted == 0
    assert len(found.refused) == 4
    assert "I20" in found.refused[0].why.message
    assert found.totals.lines == ()


def test_tokens_that_were_written_in_afterwards_are_not_counted(tales, told):
    data = told.read_bytes()
    assert b'"prompt_tokens":3' in data
    told.write_bytes(data.replace(b'"prompt_tokens":3', b'"prompt_tokens":9'))
    found = counted(tales, told)
    assert [r.why.message[:2] for r in found.refused] == ["I4"]
    assert found.totals.lines[0].usage.prompt == 3


def test_receipts_of_a_keyset_that_nobody_proved_are_not_counted(tales, told):
    head, *rest = told.read_bytes().splitlines()
    bare = replace(Head.parse(head), proven=())
    told.write_bytes(b"".join(line + b"\n" for line in (bare.encode(), *rest)))
    found = counted(tales, told)
    assert found.counted == 0
    assert all("I2" in r.why.message for r in found.refused)
    assert found.label == "platform: not established"


def test_evidence_that_is_not_affirmed_counts_nothing(tales, told):
    with pytest.raises(NotAffirming):
        counted(tales, told, trust=replace(tales.world.trust(), roots=()))
    with pytest.raises(NotAffirming):
        counted(tales, told, trust=replace(tales.world.trust(), measurements=()))


def test_an_enclave_that_the_contract_does_not_name_counts_nothing(tales, told, monkeypatch):
    from world import EDITED

    trust = replace(tales.world.trust(), measurements=(*tales.world.trust().measurements, EDITED))
    tales.world.world.platform.measurement = EDITED
    lines = asyncio.run(tales.fetched())
    with pytest.raises(EnclaveNotNamed):
        counted(tales, tales.written(lines, told), trust=trust)


def test_a_nonce_that_was_written_in_afterwards_proves_nothing(tales, told):
    data = told.read_bytes()
    told.write_bytes(data.replace(NONCE.encode(), seed("another nonce").hex().encode()))
    with pytest.raises(NotAffirming):
        counted(tales, told)


def test_parties_that_are_not_pinned_are_nobody(tales, told):
    with pytest.raises(NotPinned):
        counted(tales, told, trust=replace(tales.world.trust(), parties=()))


def test_one_id_for_two_receipts_is_counted_by_nobody(tales, told, monkeypatch):
    from strongroom.app.client import served

    real = served.total

    def doubled(verified: list[Any]) -> Any:
        first, second = verified[:2]
        object.__setattr__(second.receipt, "receipt_id", first.receipt.receipt_id)
        return real(verified)

    monkeypatch.setattr(served, "total", doubled)
    with pytest.raises(ReceiptDoubled):
        counted(tales, told)
    assert real is total


@pytest.mark.parametrize("cut", [1, 10, 200])
def test_a_file_that_was_cut_off_is_refused(tales, told, cut):
    told.write_bytes(told.read_bytes()[:-cut])
    with pytest.raises(BadInferenceReceipt, match="cut off"):
        counted(tales, told)


@pytest.mark.parametrize("data", [b"", b"\n", b"{}\n", b'{"format":"strongroom.served.v2"}\n', b"\xff\n"])
def test_a_file_that_is_none_is_refused(tales, told, data):
    told.write_bytes(data)
    with pytest.raises(StrongroomError):
        counted(tales, told)


def test_a_place_without_a_file_is_not_found(tales, tmp_path):
    with pytest.raises(NotFound):
        counted(tales, tmp_path)
    with pytest.raises(NotFound):
        list(lines_of(tmp_path / "nothing"))


def test_files_of_two_contracts_are_counted_apart(tales, told, tmp_path):
    other = tales.world.agree(title="Another")
    head = told.read_bytes().splitlines()[0]
    foreign = tmp_path / "foreign.jsonl"
    foreign.write_bytes(replace(Head.parse(head), contract=other.envelope).encode() + b"\n")
    with pytest.raises(BadUsage):
        counted(tales, told, foreign)


def test_a_room_that_was_replaced_is_still_proven(tales, told, tmp_path):
    async def tell() -> list[bytes]:
        first = tales.world.rooms.current
        await tales.answer("another room")
        await tales.world.rooms.close_room(first)
        tales.metering.receipts.flush()
        tales.metering._logger.step()
        return await tales.fetched()

    lines = asyncio.run(tell())
    assert len(Head.parse(lines[0]).proven) == 2
    assert counted(tales, tales.written(lines, tmp_path / "both.jsonl")).counted == 6


# --- who gets them ----------------------------------------------------------------------------------------------------


def test_every_party_of_the_contract_may_ask(tales, told):
    assert asyncio.run(tales.fetched("hospital"))[1:] == asyncio.run(tales.fetched("lab"))[1:]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"party": "mallory"}, NotAParty),
        ({"at": NOW - REQUEST_SECONDS - 1}, BadField),
        ({"at": NOW + REQUEST_SECONDS + 1}, BadField),
        ({"contract": wire.digest(b"another")}, NotFound),
    ],
)
def test_who_is_no_party_gets_nothing(tales, told, changes, error):
    request = replace(tales.asked()[0], **changes)
    signer = keys_of("mallory" if "party" in changes else "lab").signing
    with pytest.raises(error):
        tales.metering.served(request.sign(signer).encode())


def test_a_request_in_anothers_name_gets_nothing(tales, told):
    request, _ = tales.asked("lab")
    for signer in ("hospital", "mallory"):
        with pytest.raises(BadSignature):
            tales.metering.served(request.sign(keys_of(signer).signing).encode())


def test_who_sends_a_partys_request_again_reads_nothing(tales, told):
    request, envelope = tales.asked("lab")
    pieces = list(tales.metering.served(envelope.encode()))
    assert b"receipt_id" not in b"".join(pieces)
    with pytest.raises(BadKey):
        list(opened(request, keys_of("hospital").decryption, pieces))


def test_an_answer_to_another_request_is_refused(tales, told):
    request, envelope = tales.asked("lab")
    pieces = list(tales.metering.served(envelope.encode()))
    for changes in ({"nonce": seed("x").hex()}, {"contract": wire.digest(b"x")}):
        with pytest.raises(BadKey):
            list(opened(replace(request, **changes), keys_of("lab").decryption, pieces))


def _answer(tales: Tales, monkeypatch) -> tuple[ServedRequest, list[bytes]]:
    monkeypatch.setattr("strongroom.served.PAGE_BYTES", 10)  # a page a line
    request, envelope = tales.asked("lab")
    return request, list(tales.metering.served(envelope.encode()))


def test_an_answer_whose_pages_were_left_out_moved_or_added_is_refused(tales, told, monkeypatch):
    request, found = _answer(tales, monkeypatch)
    key = keys_of("lab").decryption
    assert len(found) == 5
    assert len(list(opened(request, key, [b"".join(found)]))) == 5
    assert len(list(opened(request, key, [bytes([b]) for b in b"".join(found)]))) == 5
    cut = [found[:-1], found[:1], [], [*found[:-1], found[-1][:-1]]]
    for pieces in cut:
        with pytest.raises(BadInferenceReceipt, match="cut off"):
            list(opened(request, key, pieces))
    for pieces in ([found[1], found[0], *found[2:]], [found[0], *found[2:]], [found[0], found[0], *found[1:]]):
        with pytest.raises(BadKey):
            list(opened(request, key, pieces))
    with pytest.raises(BadInferenceReceipt, match="more follows"):
        list(opened(request, key, [*found, found[0]]))
    altered = bytearray(found[2])
    altered[-1] ^= 1
    with pytest.raises(BadKey):
        list(opened(request, key, [*found[:2], bytes(altered), *found[3:]]))


def test_a_page_that_never_ends_is_refused():
    request = ServedRequest(wire.digest(b"c"), "lab", NONCE, NOW)
    with pytest.raises(TooLarge):
        list(opened(request, DecryptionKey(bytes(96)), [b"\xff\xff\xff\xff" + bytes(10)]))


@pytest.mark.parametrize("body", [b"", b"{}", b"\xff", b"[]", b" " * (65 << 10)])
def test_what_is_no_request_is_refused(tales, told, body):
    answer = asyncio.run(tales.world.send("POST", "/v1/served", body))
    assert answer.status in (400, 413)
    assert answer.code.startswith("wire.")


def test_where_nobody_counts_there_is_nothing_to_ask():
    async def ask() -> int:
        world = InferenceWorld()
        try:
            return (await world.send("POST", "/v1/served", b"{}")).status
        finally:
            world.close()

    assert asyncio.run(ask()) == 404


@settings(deadline=None)
@given(st.binary(min_size=32, max_size=32), st.integers(0, 2**53 - 1))
def test_a_request_is_read_as_it_is_written(nonce, at):
    request = ServedRequest(wire.digest(b"c"), "lab", nonce.hex(), at)
    assert ServedRequest.peek(request.sign(keys_of("lab").signing)) == request


def test_lines_are_read_as_they_are_written(told):
    head, *rest = told.read_bytes().splitlines()
    assert Head.parse(head).encode() == head
    assert [Kept.parse(line).encode() for line in rest] == rest


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=50).filter(lambda b: b"\n" not in b), min_size=1, max_size=20))
def test_pages_hold_what_was_put_in(lines):
    request = ServedRequest(wire.digest(b"c"), "lab", NONCE, NOW)
    proposal = _PROPOSAL
    assert list(opened(request, keys_of("lab").decryption, pages(request, proposal, lines))) == lines


_PROPOSAL = __import__("world").World().proposal()


# --- prices -----------------------------------------------------------------------------------------------------------


def prices(**changes: Any) -> dict[str, Any]:
    one = {"contract": M.CONTRACT, "model": MODEL, "prompt": 50, "completion": 150, "embedding": 0, "currency": "EUR"}
    return {"format": PRICES, "prices": [{**one, **changes}]}


def test_what_is_owed_is_worked_out_from_the_receipts(tales, told, tmp_path):
    path = tmp_path / "prices.json"
    path.write_text(json.dumps(prices(contract=tales.contract.digest, prompt=10**6, completion=0)))
    (line,) = price(counted(tales, told).totals, prices_of(path))
    assert (line.amount, line.currency) == (6, "EUR")


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        prices(currency="euro"),
        prices(prompt=-1),
        prices(extra=1),
        {**prices(), "prices": prices()["prices"] * 2},
        {**prices(), "format": "strongroom.prices.v2"},
    ],
)
def test_prices_that_are_none_are_refused(tmp_path, value):
    path = tmp_path / "prices.json"
    path.write_text(json.dumps(value))
    with pytest.raises((BadField, BadUsage)):
        prices_of(path)


# --- from end to end --------------------------------------------------------------------------------------------------


class AtWork:
    """The lab at work, as far as it is asked for here (``client.room.Room``)."""

    name = "lab"

    def __init__(self, tales: Tales) -> None:
        self._tales = tales
        self.home = SimpleNamespace(keys=keys_of("lab"))
        self.trust = tales.world.trust()

    def ledger(self) -> tuple[Any, list[Entry]]:
        return LOG.verifier.verify(self._tales.tree.checkpoint(LOG)), self._tales.entries


def test_an_owner_fetches_over_a_socket_and_counts_on_the_command_line(tales, tmp_path, monkeypatch):
    monkeypatch.setattr("strongroom.app.client.served.time.time", lambda: NOW)
    with tales.world.listening() as url:
        for n in range(3):
            asked = {"messages": [{"content": "word " * (n + 1), "role": "user"}], "model": MODEL}
            headers = {"authorization": "Bearer anon-" + "0" * 32}
            assert httpx.post(f"{url}/v1/chat/completions", json=asked, headers=headers).status_code == 200
        tales.metering.receipts.flush()
        tales.metering._logger.step()
        room = AtWork(tales)
        path = tmp_path / "receipts.jsonl"
        assert fetch(room, tales.contract.digest, url, path) == 3
        with pytest.raises(FileExistsError):
            fetch(room, tales.contract.digest, url, path)
    assert recount([path], room.trust, weights={}, at=NOW, room=room).missing == ()
    home = PartyHome.create(tmp_path / "room" / "parties" / "lab", host="127.0.0.1", port=1)
    home.save_trust(room.trust)
    (tmp_path / "prices.json").write_text(json.dumps(prices(contract=tales.contract.digest, prompt=10**6, completion=0)))
    monkeypatch.chdir(tmp_path)
    words = ["usage", "receipts.jsonl", "--offline", "--home", "room", "--as", "lab", "--prices", "prices.json"]
    said = call(*words)
    assert said.status == 0, said.err
    assert "3 verified, 0 not" in said.out
    assert "0.06 EUR" in said.out
    value = json.loads(call(*words, "--json").out)
    assert value["owed"] == {"EUR": 6}
    assert value["totals"]["lines"][0]["requests"] == 3
    path.write_bytes(path.read_bytes().replace(b'"prompt_tokens":3', b'"prompt_tokens":1'))  # somebody makes it cheaper
    short = call(*words)
    assert short.status == 1
    assert "2 verified, 1 not" in short.out
    assert "inference.bad_usage" in short.err


def test_a_stranger_fetches_nothing(tales, tmp_path, monkeypatch):
    monkeypatch.setattr("strongroom.app.client.served.time.time", lambda: NOW)
    room = AtWork(tales)
    room.home = SimpleNamespace(keys=keys_of("mallory"))
    with tales.world.listening() as url, pytest.raises(BadSignature):
        fetch(room, tales.contract.digest, url, tmp_path / "receipts.jsonl")


def test_a_receipt_that_the_log_does_not_hold_yet_comes_without_a_proof(tales, tmp_path, monkeypatch):
    monkeypatch.setattr("strongroom.app.client.served.time.time", lambda: NOW)
    with tales.world.listening() as url:
        asked = {"messages": [{"content": "early", "role": "user"}], "model": MODEL}
        headers = {"authorization": "Bearer anon-" + "0" * 32}
        assert httpx.post(f"{url}/v1/chat/completions", json=asked, headers=headers).status_code == 200
        path = tmp_path / "receipts.jsonl"
        assert fetch(AtWork(tales), tales.contract.digest, url, path) == 1
    assert Kept.parse([*lines_of(path)][1]).proof is None
    (refused,) = counted(tales, path).refused
    assert "I20" in refused.why.message


def test_a_keyset_that_was_made_for_another_contract_counts_nothing(tales, told):
    other = tales.world.agree(title="Another")

    async def tell() -> Head:
        await tales.world.open(other)
        request = ServedRequest(other.digest, "lab", NONCE, NOW)
        pieces = tales.metering.served(request.sign(keys_of("lab").signing).encode())
        return Head.parse(next(iter(opened(request, keys_of("lab").decryption, pieces))))

    foreign = asyncio.run(tell())
    head, *rest = told.read_bytes().splitlines()
    mixed = replace(Head.parse(head), proven=foreign.proven)
    told.write_bytes(b"".join(line + b"\n" for line in (mixed.encode(), *rest)))
    with pytest.raises(KeysetOfAnotherRun):
        counted(tales, told)


def test_a_request_under_one_contract_opens_no_other(tales, told):
    request, envelope = tales.asked()
    assert ServedRequest.verify(envelope, tales.contract.proposal, NOW) == request
    with pytest.raises(BadField, match="another contract"):
        ServedRequest.verify(envelope, tales.world.agree(title="Another").proposal, NOW)


def test_refusals_alone_are_counted_as_nothing(tmp_path):
    tales = Tales(tmp_path)

    async def tell() -> list[bytes]:
        await tales.answer()
        tales.metering.receipts.flush()
        tales.metering._logger.step()
        return await tales.fetched()

    found = counted(tales, tales.written(asyncio.run(tell()), tmp_path / "refusals.jsonl"))
    tales.close()
    assert (found.counted, found.refused, found.totals.lines) == (1, (), ())


# --- what the process shows -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("levels", "days", "failures"),
    [
        (("none",), False, False),
        (("aggregate",), True, False),
        (("failures",), True, True),
        (("failures", "full"), True, True),
        (("full", "none"), False, False),
        (("full", "aggregate"), True, False),
    ],
)
def test_a_process_shows_no_more_than_the_narrowest_of_its_contracts(tmp_path, levels, days, failures):
    discreet = Discreet(io.StringIO())
    with Metering(tmp_path, None, discreet=discreet) as metering, closing(InferenceWorld()) as world:
        assert not metering.gate.on_disk
        assert not discreet.failures
        for level in levels:
            policy = replace(world.policy, serve=replace(SERVE, observability=level))
            metering.observer(world.agree(policy=policy, title=level))
        assert metering.gate.on_disk == days
        assert discreet.failures == failures
        if levels == ("none",):
            with pytest.raises(NotFound):
                metering.metrics()
        else:
            assert b"strongroom_receipts_unlogged 0.0" in metering.metrics()
