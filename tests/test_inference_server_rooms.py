"""Rooms that answer: opened, renewed, refused, replaced without a request dropped, and erased."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from inference_world import MODEL, PROGRAM, SERVE, WEIGHTS, FakeEngine, InferenceWorld, MemoryObserver, until
from strongroom import wire
from strongroom.app.enclave.client import OpenRoom
from strongroom.app.inference import rooms as module
from strongroom.app.inference.lifecycle import Lifecycle
from strongroom.app.inference.ports import Started
from strongroom.attest.keyset import TlsKey
from strongroom.contract import Limits, ProgramRef, RunRequest, Withdrawal
from strongroom.errors import (
    BadParameters,
    ChunkAltered,
    EngineFailed,
    ProgramNotApproved,
    RoomClosed,
    Unauthorised,
    Unreachable,
    WeightsMismatch,
)
from test_inference_server import CHAT, HELLO, KEY, PLAIN, STREAM, running
from world import DAY, NOW, keys_of

LEASE = SERVE.lease_s


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[InferenceWorld]:
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.0)
    with InferenceWorld(serve=PLAIN) as found:
        yield found


def program(world: InferenceWorld, **changes: Any) -> ProgramRef:
    return ProgramRef("serve-llm", PROGRAM, "serve-llm", {**world.parameters, **changes})


async def post(world: InferenceWorld, body: bytes, query: str = "") -> Any:
    return await world.send("POST", f"/v1/rooms{query}", body)


def lines(reply: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in reply.body.splitlines()]


# --- opening ------------------------------------------------------------------------------------------------------------


@running
async def test_a_partys_signed_request_opens_a_room_and_hears_how(world):
    assert (await world.ask(CHAT, HELLO)).code == "enclave.room_closed"
    assert (await world.send("GET", "/readyz")).status == 503
    reply = await post(world, world.asked().encode())
    *told, last = lines(reply)
    steps = [event["step"] for event in told]
    assert [step for step in steps if step in ("attest", "release", "engine")] == ["attest", "release", "engine"]
    assert "guards" not in steps  # its policy has none
    found = OpenRoom(**last["room"])
    assert (found.contract, found.keyset, found.until) == (world.contract.digest, world.rooms.current.digest, NOW + LEASE)
    assert (await world.ask(CHAT, HELLO)).status == 200
    assert (await world.send("GET", "/readyz")).json == {"spares": 0, "status": "ready", "until": NOW + LEASE}
    world.rooms.current.engines[0].alive = False  # as an engine in a child says it, while nobody starts it again
    assert (await world.send("GET", "/readyz")).status == 503
    world.rooms.current.engines[0].alive = True
    assert (await world.send("GET", "/readyz")).status == 200


@running
async def test_a_copy_of_a_request_opens_nothing(world):
    request = world.asked().encode()
    await post(world, request)
    again = await post(world, request)
    assert (again.status, again.code) == (400, "app.conflict")


@pytest.mark.parametrize(
    ("changes", "signer", "code"),
    [
        ({"party": "mallory"}, "mallory", "contract.not_a_party"),
        ({"party": "hospital"}, "lab", "wire.bad_signature"),
        ({"at": NOW - 8 * DAY}, "lab", "wire.bad_field"),
        ({"contract": wire.digest(b"x")}, "lab", "app.not_found"),
    ],
)
@running
async def test_only_a_party_opens_a_room_and_only_in_time(world, changes, signer, code):
    request = replace(RunRequest(world.contract.digest, "lab", "ab" * 16, NOW), **changes)
    reply = await post(world, request.sign(keys_of(signer).signing).encode())
    assert reply.code == code
    assert world.rooms.current is None


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b"\xff"])
@running
async def test_a_body_that_is_no_request_opens_nothing(world, body):
    reply = await post(world, body)
    assert (reply.status, reply.code.split(".")[0]) == (400, "wire")


@running
async def test_a_request_that_is_too_large_is_not_read(world):
    assert (await post(world, b" " * (65 << 10))).status == 413


@running
async def test_a_contract_for_runs_opens_no_room(world):
    contract = world.world.agree()
    world.contracts[contract.digest] = contract
    assert (await post(world, world.asked(contract).encode())).code == "policy.not_permitted"


@running
async def test_a_contract_for_another_program_or_a_missing_role_opens_no_room(world):
    other = world.agree(program=ProgramRef("serve-llm", wire.digest(b"other"), "serve-llm", world.parameters))
    with pytest.raises(ProgramNotApproved):
        await world.open(other)
    models = [{"engine": "llama.cpp", "name": MODEL, "role": "nowhere"}]
    with pytest.raises(BadParameters):
        await world.open(world.agree(program=program(world, models=models)))
    assert world.rooms.current is None


@running
async def test_a_broker_that_refuses_is_told_and_nothing_is_left_behind(world):
    broker = world.world.brokers["lab"].book
    withdrawal = Withdrawal(world.contract.digest, "hospital", NOW, "no")
    broker.withdraw(withdrawal, withdrawal.sign(keys_of("hospital").signing))
    *_, last = lines(await post(world, world.asked().encode()))
    assert last["error"]["code"] == "broker.refused"
    assert world.engines == []
    assert world.rooms.current is None


@running
async def test_weights_that_are_not_the_contracts_are_never_served():
    closed: list[bool] = []

    class Doomed(FakeEngine):
        async def close(self) -> None:
            closed.append(True)

    async def lies(_wanted: Any) -> Started:
        return Started(Doomed(), b"\0" * 32)

    with InferenceWorld(serve=PLAIN, starter=lies) as world:
        with pytest.raises(WeightsMismatch):
            await world.open()
        assert closed == [True]
        assert (await world.ask(CHAT, HELLO)).code == "enclave.room_closed"


@running
async def test_weights_that_somebody_changed_where_they_lie_are_never_served(world):
    digest = world.asset[0].digest
    sealed = bytearray(world.asset[2])
    sealed[len(sealed) // 2] ^= 1
    world.world.exchange.put(world.asset[1], bytes(sealed))
    assert digest in world.world.exchange.files
    with pytest.raises(ChunkAltered):
        await world.open()
    assert world.rooms.current is None


@running
async def test_of_weights_whose_digest_nobody_published_the_enclave_tells_it():
    with InferenceWorld(serve=PLAIN, reveal=False) as world:
        await world.open()
        (model,) = (await world.send("GET", "/v1/models")).json["data"]
        assert model["strongroom"]["weights"] == wire.digest(WEIGHTS)


@running
async def test_an_engine_that_does_not_start_opens_no_room():
    async def fails(_wanted: Any) -> Started:
        raise EngineFailed("no memory")

    with InferenceWorld(serve=PLAIN, starter=fails) as world:
        *_, last = lines(await post(world, world.asked().encode()))
        assert last["error"]["code"] == "engine.failed"
        assert world.rooms.current is None


@running
async def test_a_fault_while_a_room_opens_is_told_without_a_word_of_it(caplog):
    async def fails(_wanted: Any) -> Started:
        raise ValueError("CANARY-3141592653")

    with InferenceWorld(serve=PLAIN, starter=fails) as world, caplog.at_level(logging.DEBUG):
        *_, last = lines(await post(world, world.asked().encode()))
        assert last["error"]["code"] == "app.internal"
        assert "CANARY" not in caplog.text


@running
async def test_while_nothing_is_told_the_listener_hears_that_it_goes_on(monkeypatch):
    monkeypatch.setattr("strongroom.app.inference.lifecycle.PATIENCE_SECONDS", 0.01)
    go = asyncio.Event()

    async def slow(wanted: Any) -> Started:
        wanted.progress(1)
        await go.wait()
        return await world.start(wanted)

    with InferenceWorld(serve=PLAIN, starter=slow) as world:

        def seen(message: dict[str, Any]) -> None:
            if b'"detail":""' in message.get("body", b""):
                go.set()

        reply = await world.send("POST", "/v1/rooms", world.asked().encode(), seen=seen)
        assert "room" in lines(reply)[-1]


@running
async def test_the_keyset_names_a_key_for_each_thing_and_the_key_of_tls(world):
    world.rooms.tls = (TlsKey(b"\1" * 32),)
    keeper = await world.open()
    algos = [entry.algo for entry in (*keeper.keyset.receipt_signing_keys, *keeper.keyset.e2ee_public_keys)]
    assert sorted(algos) == [
        "ed25519",
        "strongroom-chat-signature-ed25519",
        "strongroom-ehbp-x25519-hkdf-sha256-aes-256-gcm",
        "strongroom-release-mlkem768-x25519",
        "strongroom-run-receipt-ed25519",
    ]
    assert keeper.keyset.tls_public_keys == (TlsKey(b"\1" * 32),)
    assert "…" in repr(keeper.room.serving)


# --- whose contract -----------------------------------------------------------------------------------------------------


@running
async def test_another_contract_on_the_exchange_does_not_take_the_room_over(world):
    await post(world, world.asked().encode())
    first = world.rooms.current
    other = world.agree(title="What nobody here asked for")
    world.contracts[other.digest] = other
    for query in ("", "?spare"):
        reply = await post(world, world.asked(other).encode(), query)
        assert (reply.status, reply.code) == (403, "app.unauthorised")
    with pytest.raises(Unauthorised):
        await world.rooms.open(other, world.asked(other), lambda _step, _detail: None)
    assert (world.rooms.current, world.rooms.spares) == (first, 0)
    await world.rooms.close_room(first)  # nor once the first is gone
    assert (await post(world, world.asked(other).encode())).code == "app.unauthorised"
    assert "room" in lines(await post(world, world.asked().encode()))[-1]


@running
async def test_of_two_that_were_asked_for_at_once_the_first_alone_opens(world):
    other = world.agree(title="What nobody here asked for")
    world.contracts[other.digest] = other
    asked = [await world.rooms.verify(world.asked(contract).encode()) for contract in (world.contract, other)]
    keeper = await world.rooms.open(*asked[0], lambda _step, _detail: None)
    with pytest.raises(Unauthorised):
        await world.rooms.open(*asked[1], lambda _step, _detail: None)
    assert world.rooms.current is keeper


@running
async def test_a_contract_that_the_operator_did_not_name_opens_no_room(world):
    other = world.agree(title="The next one")
    world.contracts[other.digest] = other
    world.rooms.contracts = frozenset({other.digest})
    assert (await post(world, world.asked().encode())).code == "app.unauthorised"
    assert world.rooms.current is None
    assert "room" in lines(await post(world, world.asked(other).encode()))[-1]
    world.rooms.contracts |= {world.contract.digest}  # a swap, as the operator asks for it
    assert "room" in lines(await post(world, world.asked().encode()))[-1]
    assert world.rooms.current.contract.digest == world.contract.digest


# --- leases -------------------------------------------------------------------------------------------------------------


@running
async def test_leases_are_renewed_before_they_end(world):
    opened: list[str] = []
    world.rooms.opened = lambda room: opened.append(room.contract.digest)
    keeper = await world.open()
    await world.lifecycle.step()
    assert keeper.room.until == NOW + LEASE
    for n in range(1, 5):
        world.clock.now = NOW + n * (LEASE - 100)
        await world.lifecycle.step()
        assert keeper.room.until == world.clock.now + LEASE
        assert (await world.ask(CHAT, HELLO)).status == 200
    assert len(opened) == 5


@running
async def test_a_withdrawal_reaches_the_room_and_erases_it(world):
    keeper = await world.open()
    withdrawal = Withdrawal(world.contract.digest, "hospital", NOW, "no more")
    world.world.brokers["lab"].book.withdraw(withdrawal, withdrawal.sign(keys_of("hospital").signing))
    assert (await world.ask(CHAT, HELLO)).status == 200  # not before the lease is to be renewed
    world.clock.now = NOW + LEASE - 100
    await world.lifecycle.step()
    reply = await world.ask(CHAT, HELLO)
    assert (reply.status, reply.code, reply.headers["retry-after"]) == (503, "enclave.room_closed", "1")
    assert world.engine.closed
    with pytest.raises(RoomClosed):
        keeper.room.released()
    assert (await world.send("GET", "/v1/aci/attestation")).status == 503


@running
async def test_a_withdrawal_ends_a_stream_that_is_under_way(world):
    await world.open()
    world.engine.go = asyncio.Event()
    task = asyncio.create_task(world.ask(CHAT, STREAM))
    await until(lambda: world.engine.asked)
    world.engine.fails = EngineFailed("the engine was closed")
    await world.rooms.close_room(world.rooms.current)
    world.engine.go.set()
    reply = await task
    assert reply.events[-1]["error"]["code"] == "enclave.room_closed"
    assert world.receipts.last.refused.code == "enclave.room_closed"


@running
async def test_a_broker_that_does_not_answer_is_asked_again_until_the_lease_ends(world, caplog):
    await world.open()
    world.world.brokers["lab"].nonce = lambda: (_ for _ in ()).throw(Unreachable("gone"))
    asked: list[int] = []
    renew = world.rooms.current.room.renew
    world.rooms.current.room.renew = lambda roles: (asked.append(world.clock.now), renew(roles))[1]
    world.clock.now = NOW + LEASE - 100
    for _ in range(3):
        await world.lifecycle.step()  # not asked again at once
    assert len(asked) == 1
    for seconds in (1, 3, 8, 23):
        world.clock.now = NOW + LEASE - 100 + seconds
        await world.lifecycle.step()
    assert len(asked) == 5
    assert (await world.ask(CHAT, HELLO)).status == 200
    world.clock.now = NOW + LEASE + 1
    await world.lifecycle.step()
    assert (await world.ask(CHAT, HELLO)).code == "enclave.room_closed"
    assert world.engine.closed
    assert "app.unreachable" in caplog.text


@running
async def test_a_lease_that_ended_is_noticed_by_the_next_request_itself(world):
    await world.open()
    world.clock.now = NOW + LEASE + 1
    assert (await world.ask(CHAT, HELLO)).code == "enclave.room_closed"
    with pytest.raises(RoomClosed):
        world.rooms.current.room.released()


@running
async def test_a_room_that_cannot_be_looked_at_does_not_keep_others_from_it(world, caplog):
    keeper = await world.open()
    keeper.room.due = lambda _at: 1 // 0  # type: ignore[method-assign]
    await world.lifecycle.step()
    assert "app.internal" in caplog.text
    assert (await world.ask(CHAT, HELLO)).status == 200


# --- one room in another's place ----------------------------------------------------------------------------------------


@running
async def test_a_model_is_swapped_without_a_request_dropped(world):
    first = await world.open()
    engine = world.engine
    engine.go = asyncio.Event()
    under_way = asyncio.create_task(world.sealed(CHAT, STREAM))
    await until(lambda: engine.asked)
    second = await world.open(world.agree(program=program(world, threads=2)))
    assert first.digest != second.digest
    assert world.rooms.current is second
    assert world.engines[-1] is not engine
    reply = await world.ask(CHAT, HELLO)
    assert reply.headers["x-aci-keyset-digest"] == second.digest
    assert not engine.closed
    engine.go.set()
    sealed, restored = await under_way
    assert (restored.text, sealed.headers["x-aci-keyset-digest"]) == ("You said: hello you ", first.digest)
    assert world.receipts.all[-1][0].workload_keyset_digest == first.digest
    await until(lambda: engine.closed)
    with pytest.raises(RoomClosed):
        first.room.released()
    assert world.rooms.draining == []


@running
async def test_who_knows_the_old_keyset_alone_is_answered_for_a_while(world, monkeypatch):
    monkeypatch.setattr(module, "GRACE_SECONDS", 3600.0)
    first = await world.open()
    await world.open()
    exchange = world.exchange(CHAT, keeper=first)
    sealed, restored = await world.sealed(CHAT, HELLO, exchange=exchange)
    assert (restored.status, sealed.headers["x-aci-keyset-digest"]) == (200, first.digest)
    assert world.receipts.last.workload_keyset_digest == first.digest
    chat = f"/v1/signature/{restored.json['id']}?signing_algo=ed25519"
    headers = {"authorization": f"Bearer {KEY}"}
    assert (await world.send("GET", chat, headers=headers)).headers["x-aci-keyset-digest"] == first.digest
    await world.rooms.close_room(first)
    reply, _ = await world.sealed(CHAT, HELLO, exchange=world.exchange(CHAT, keeper=first, name="2"))
    assert reply.status == 422  # and its client attests the next one
    assert (await world.send("GET", chat, headers=headers)).code == "app.not_found"
    await world.rooms.close()


@running
async def test_a_prompt_for_a_room_that_shows_nothing_is_not_seen_by_the_one_that_shows_all(monkeypatch):
    monkeypatch.setattr(module, "GRACE_SECONDS", 3600.0)
    with InferenceWorld(serve=replace(PLAIN, observability="full")) as world:
        seen: dict[str, MemoryObserver] = {}

        def observer(contract: Any) -> MemoryObserver:
            found = seen.setdefault(contract.digest, MemoryObserver())
            found.keeps_texts = contract.proposal.policy.serve.observability == "full"
            return found

        world.rooms.observer = observer
        blind = world.agree(policy=replace(world.policy, serve=replace(PLAIN, observability="none")))
        first = await world.open(blind)
        exchange = world.exchange(CHAT, keeper=first)
        await world.open()
        none, full = seen[blind.digest], seen[world.contract.digest]
        headers = {**exchange.request.headers, "authorization": f"Bearer {KEY}"}
        body = exchange.request.last(json.dumps(HELLO).encode())
        for _ in range(2):  # the second is a replay, which is refused before it is known to be for that room
            await world.send("POST", CHAT, body, headers)
        assert (len(none.seen), full.seen) == (1, [])
        assert none.seen[0].texts == []
        first.models[MODEL].engine.fails = KeyError("CANARY-3141592653")
        await world.sealed(CHAT, STREAM, exchange=world.exchange(CHAT, keeper=first, name="fails"))
        cut = world.exchange(CHAT, keeper=first, name="cut")
        headers = {**cut.request.headers, "authorization": f"Bearer {KEY}"}
        body = cut.request.last(json.dumps(HELLO).encode())
        await world.send("POST", CHAT, body[:-20], headers)
        await world.send("POST", CHAT, body[:8], headers)
        await world.send("POST", CHAT, body, {**cut.request.headers, "authorization": "x"})
        assert [len(one.errors) for one in none.seen[:2]] == [0, 1]
        assert full.seen == []
        await world.sealed(CHAT, HELLO)
        await world.ask(CHAT, HELLO)
        assert len(full.seen) == 2
        assert all(one.texts for one in full.seen)
        await world.rooms.close()


@running
async def test_a_replay_to_the_old_keyset_is_refused_while_it_drains(world, monkeypatch):
    monkeypatch.setattr(module, "GRACE_SECONDS", 3600.0)
    first = await world.open()
    exchange = world.exchange(CHAT, keeper=first)
    body = exchange.request.last(json.dumps(HELLO).encode())
    headers = {**exchange.request.headers, "authorization": f"Bearer {KEY}"}
    assert (await world.send("POST", CHAT, body, headers)).status == 200
    await world.open()
    assert (await world.send("POST", CHAT, body, headers)).code == "ehbp.replayed"
    await world.rooms.close()


@running
async def test_rooms_of_one_contract_share_the_engine(world):
    first = await world.open()
    second = await world.open()
    assert len(world.engines) == 1
    await until(first.closed.is_set)
    assert not world.engine.closed
    assert (await world.ask(CHAT, HELLO)).status == 200
    await world.rooms.close_room(second)
    assert world.engine.closed


@running
async def test_a_room_whose_requests_do_not_end_is_closed_all_the_same(world, monkeypatch):
    monkeypatch.setattr(module, "DRAIN_SECONDS", 0.01)
    first = await world.open()
    world.engine.go = asyncio.Event()
    under_way = asyncio.create_task(world.ask(CHAT, STREAM))
    await until(lambda: world.engine.asked)
    await world.open(world.agree(program=program(world, threads=2)))
    await first.closed.wait()
    world.engine.fails = EngineFailed("closed")
    world.engine.go.set()
    assert (await under_way).events[-1]["error"]["code"] == "enclave.room_closed"


@running
async def test_a_full_keyset_is_replaced_by_a_spare_request(world):
    first = await world.open()
    reply = await post(world, world.asked().encode(), "?spare")
    assert reply.json == {"spares": 1}
    first.seen.capacity = 4
    await world.lifecycle.step()
    assert world.rooms.current is first
    for _ in range(3):
        await world.sealed(CHAT, HELLO)
    await world.lifecycle.step()
    assert await world.lifecycle.rotating
    second = world.rooms.current
    assert (second is first, world.rooms.spares) == (False, 0)
    assert (await world.sealed(CHAT, HELLO))[0].headers["x-aci-keyset-digest"] == second.digest
    assert len(world.engines) == 1


@running
async def test_a_keyset_whose_time_is_nearly_over_is_replaced_too(world):
    first = await world.open()
    await post(world, world.asked().encode(), "?spare")
    ends = first.keyset.not_after
    world.clock.now = NOW + (ends - NOW) * 3 // 4 - 10
    assert not first.spent(world.clock.now)
    assert first.spent(world.clock.now + 20)
    assert not await world.rooms.rotate()


@running
async def test_a_spare_that_no_broker_honours_changes_nothing(world, caplog):
    first = await world.open(world.agree(limits=Limits(1, 7 * DAY, 1 << 30)))
    await post(world, world.asked(first.contract).encode(), "?spare=1")
    first.seen.capacity = 1
    await world.sealed(CHAT, HELLO)
    await world.lifecycle.step()
    assert not await world.lifecycle.rotating
    assert world.rooms.current is first
    assert world.rooms.spares == 0  # an owner said no
    assert "broker.refused" in caplog.text


@running
async def test_a_spare_of_another_contract_is_not_what_is_served_next(world):
    second = world.agree(title="Another")
    await world.open(second)
    first = await world.open()
    await post(world, world.asked(second).encode(), "?spare")
    await post(world, world.asked().encode(), "?spare")
    first.seen.capacity = 1
    await world.sealed(CHAT, HELLO)
    assert await world.rooms.rotate()
    assert world.rooms.current.contract.digest == world.contract.digest
    world.rooms.current.seen.capacity = 1
    await world.sealed(CHAT, HELLO)
    assert not await world.rooms.rotate()
    assert world.rooms.spares == 1


@running
async def test_a_spare_waits_again_where_the_exchange_does_not_answer(world):
    first, find, tries = await world.open(), world.rooms.contract, list[str]()
    await post(world, world.asked().encode(), "?spare")
    first.seen.capacity = 1
    await world.sealed(CHAT, HELLO)

    def gone(digest: str) -> Any:
        tries.append(digest)
        raise Unreachable("gone")

    world.rooms.contract = gone
    for _ in range(3):
        assert not await world.rooms.rotate()
    assert (len(tries), world.rooms.spares) == (1, 1)
    world.rooms.contract = find
    world.clock.now += module.SPARE_SECONDS
    assert await world.rooms.rotate()
    assert (world.rooms.current is first, world.rooms.spares) == (False, 0)


@running
async def test_an_opening_that_hangs_keeps_no_lease_from_being_renewed(world):
    keeper, go = await world.open(), asyncio.Event()
    world.rooms.rotate = go.wait
    await world.lifecycle.step()
    rotating = world.lifecycle.rotating
    world.clock.now = NOW + LEASE - 100
    await world.lifecycle.step()
    assert keeper.room.until == NOW + LEASE - 100 + LEASE
    assert world.lifecycle.rotating is rotating  # one at a time
    go.set()
    assert await rotating


@running
async def test_a_fault_beside_the_rooms_ends_no_renewals(world, caplog):
    async def broken() -> bool:
        raise ValueError("CANARY-3141592653")

    keeper, steps, step = await world.open(), list[int](), world.lifecycle.step
    world.rooms.rotate = broken
    world.lifecycle._tick = 0.0

    async def counted() -> None:
        steps.append(1)
        if len(steps) == 1:
            raise ValueError("CANARY-3141592653")
        await step()

    world.lifecycle.step = counted
    world.clock.now = NOW + LEASE - 100
    watching = asyncio.create_task(world.lifecycle._watch())
    while keeper.room.until == NOW + LEASE:  # noqa: ASYNC110 - it is renewed in a thread
        await asyncio.sleep(0.001)
    watching.cancel()
    assert "app.internal" in caplog.text
    assert "CANARY" not in caplog.text


# --- whose keys are gone ------------------------------------------------------------------------------------------------


@running
async def test_keys_that_arrive_after_the_room_was_closed_are_not_held(world):
    keeper = await world.open()
    room, obtain = keeper.room, keeper.room._keyring.obtain

    def late(*asked: Any) -> Any:
        found = obtain(*asked)
        room.close()  # while the owners were asked
        return found

    room._keyring.obtain = late
    with pytest.raises(RoomClosed):
        room.renew()
    assert (room._held, room.until) == ({}, 0)
    with pytest.raises(RoomClosed):
        room.renew()


@running
async def test_a_closed_room_has_no_key_to_read_or_to_sign_with(world):
    keeper = await world.open()
    await world.rooms.close_room(keeper)
    for use in (
        lambda: keeper.signer,
        lambda: keeper.room.serving,
        lambda: keeper.room.keys.release,
        keeper.room.released,
        keeper.room.renew,
    ):
        with pytest.raises(RoomClosed):
            use()
    assert keeper.room.report(bytes(32)).keyset.digest == keeper.digest  # that it was here can be proven yet


@running
async def test_what_is_under_way_in_a_closed_room_is_signed_before_its_keys_go(world):
    keeper = await world.open()
    world.engine.go = asyncio.Event()
    under_way = asyncio.create_task(world.sealed(CHAT, STREAM))
    await until(lambda: world.engine.asked)
    world.engine.fails = EngineFailed("the engine was closed")
    await world.rooms.close_room(keeper)
    assert keeper.signer.key_id
    world.engine.go.set()
    _, restored = await under_way
    assert restored.events[-1]["error"]["code"] == "enclave.room_closed"
    assert world.receipts.last.refused.code == "enclave.room_closed"
    await until(lambda: keeper._signer is None)
    with pytest.raises(RoomClosed):
        keeper.room.serving.requests  # noqa: B018 - it is gone


@running
async def test_so_many_spares_and_no_more(world, monkeypatch):
    monkeypatch.setattr(module, "MAX_SPARES", 1)
    await world.open()
    assert (await post(world, world.asked().encode(), "?spare")).status == 200
    assert (await post(world, world.asked().encode(), "?spare")).code == "app.conflict"


@running
async def test_the_guard_model_may_not_be_asked_and_is_let_go_of_too():
    asked: list[str] = []

    def load(names: frozenset[str], stage: str, settings: object, ask: Any) -> list[Any]:
        asked.append(f"{stage}: {sorted(names)} {ask is not None}")
        return []

    models = [
        {"engine": "llama.cpp", "name": MODEL, "role": "weights"},
        {"engine": "llama.cpp", "name": "example/guard", "role": "guard"},
    ]
    serve = replace(PLAIN, input_guards=frozenset({"model"}))
    with InferenceWorld(serve=serve, guards=load, parameters={"models": models, "guard": "guard"}) as world:
        from inference_world import sealed_weights
        from strongroom.contract import AssetRef

        manifest, envelope, sealed, key = sealed_weights(world.policy, b"the guard's weights", name="guard")
        world.world.brokers["lab"].book.hold(envelope, key)
        world.world.exchange.put(envelope, sealed)
        assets = (AssetRef("guard", "lab", manifest.digest), *world.contract.proposal.assets)
        keeper = await world.open(world.agree(assets=assets))
        assert list(keeper.models) == [MODEL]
        assert asked == ["input: ['model'] True", "output: [] True"]
        assert (await world.ask(CHAT, {**HELLO, "model": "example/guard"})).code == "request.model_not_served"
        said = world.rooms._asker(keeper.engines[-1])
        body = b'{"messages":[{"content":"x","role":"user"}],"model":"example/guard"}'
        assert await asyncio.to_thread(said, body) == "You said: x "
        await world.rooms.close_room(keeper)
        assert all(engine.closed for engine in world.engines)
        assert len(world.engines) == 2


# --- the service's own life ---------------------------------------------------------------------------------------------


@running
async def test_the_service_looks_after_its_rooms_and_erases_them_when_it_ends(world):
    world.lifecycle._tick = 0.001
    told: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    said: list[str] = []

    async def send(message: dict[str, str]) -> None:
        said.append(message["type"])

    running_ = asyncio.create_task(world.service({"type": "lifespan"}, told.get, send))
    told.put_nowait({"type": "lifespan.startup"})
    keeper = await world.open()
    world.clock.now = NOW + LEASE - 100
    while keeper.room.until == NOW + LEASE:  # noqa: ASYNC110 - it is renewed in a thread
        await asyncio.sleep(0.001)
    told.put_nowait({"type": "lifespan.shutdown"})
    await running_
    assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert world.engine.closed
    assert (await world.send("GET", "/readyz")).status == 503
    with pytest.raises(RoomClosed):
        await world.open()


@running
async def test_readiness_ends_when_the_service_begins_to_end(world):
    await world.open()
    assert (await world.send("GET", "/readyz")).status == 200
    world.lifecycle.ending = True
    reply = await world.send("GET", "/readyz")
    assert (reply.status, reply.code) == (503, "request.service_ending")
    assert (await world.send("GET", "/healthz")).status == 200


@running
async def test_what_is_no_request_of_http_is_left_alone(world):
    await world.service({"type": "websocket"}, None, None)


def test_a_lifecycle_is_made_where_none_is_given(world):
    from strongroom.app.inference.server import Service

    assert isinstance(Service(world.around).lifecycle, Lifecycle)
