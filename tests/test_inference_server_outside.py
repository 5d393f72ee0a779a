"""Who stands before a room: requests that were passed on, slow bodies, cheap refusals; and what nobody may count."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from inference_case import M
from inference_world import SERVE, InferenceWorld, until
from strongroom.app.inference import rooms
from strongroom.app.inference.credentials import NO_LIMITS, Credential
from strongroom.app.inference.metering import Metering
from strongroom.app.inference.sealed_http import passed_on
from test_inference_server import CHAT, HELLO, KEY, PLAIN, STREAM, running
from world import NOW

OUTSIDE = ["forwarded", "via", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-real-ip"]


@pytest.fixture
def here() -> Iterator[InferenceWorld]:
    """One that only its own machine reaches, and whose operator said nothing of who may ask."""
    with InferenceWorld(serve=PLAIN, bare=True, here=True) as found:
        found.gate._outside = False
        yield found


# --- loopback is not private --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", OUTSIDE)
@running
async def test_behind_a_load_balancer_on_the_same_machine_nobody_is_let_in_without_a_key(here, header):
    await here.open()
    for key in (KEY, None):
        assert (await here.ask(CHAT, HELLO, key)).status == 200
        reply = await here.ask(CHAT, HELLO, key, headers={header: "203.0.113.7"})
        assert (reply.status, reply.code) == (401, "app.no_credential")
    assert len(here.engine.asked) == 2


@pytest.mark.parametrize("header", OUTSIDE)
@running
async def test_a_plain_body_that_another_machine_passed_on_is_refused(here, header):
    await here.open()
    key = here.keys.add("ada", at=NOW)
    assert (await here.ask(CHAT, HELLO, key)).status == 200
    reply = await here.ask(CHAT, HELLO, key, headers={header: "203.0.113.7"})
    assert (reply.status, reply.code) == (400, "request.plain_body")
    assert len(here.engine.asked) == 1


@running
async def test_where_tls_ends_inside_a_header_changes_nothing():
    with InferenceWorld(serve=PLAIN) as world:
        await world.open()
        assert (await world.ask(CHAT, HELLO, headers={"x-forwarded-for": "203.0.113.7"})).status == 200


@running
async def test_the_room_tells_who_comes_from_outside_that_a_key_is_needed(here):
    await here.open()
    assert (await here.send("GET", "/v1/room")).json["credential"] == "any"
    assert (await here.send("GET", "/v1/room", headers={"via": "1.1 lb"})).json["credential"] == "key"


def test_headers_that_say_nothing_of_another_machine_do_not():
    assert not passed_on([(b"host", b"x"), (b"user-agent", b"via forwarded"), (b"forward", b"1"), (b"x-for", b"1")])


# --- slow bodies, cheap refusals ----------------------------------------------------------------------------------------


@running
async def test_slow_bodies_of_one_key_do_not_take_every_place():
    with InferenceWorld(serve=PLAIN) as world:
        keeper = await world.open()
        keeper.capacity = 4
        ada, bob = (world.keys.add(name, at=NOW) for name in ("ada", "bob"))
        slow = [asyncio.create_task(asking(world, ada)) for _ in range(2)]
        await until(lambda: keeper.active == 2)
        reply = await world.ask(CHAT, STREAM, ada)
        assert (reply.status, reply.code, reply.headers["retry-after"]) == (429, "request.too_many", "1")
        assert (await world.ask(CHAT, STREAM, bob)).status == 200
        for task in slow:
            task.cancel()
        await asyncio.wait(slow)
        assert (await world.ask(CHAT, STREAM, ada)).status == 200
        assert keeper.shares == {}


@running
async def test_made_up_credentials_share_one_half_of_the_places():
    with InferenceWorld(serve=PLAIN) as world:
        keeper = await world.open()
        keeper.capacity = 4
        slow = [asyncio.create_task(asking(world, f"anon-{n:032x}")) for n in range(2)]
        await until(lambda: keeper.active == 2)
        assert (await world.ask(CHAT, STREAM, "anon-" + "f" * 32)).code == "request.too_many"
        assert (await world.ask(CHAT, STREAM, world.keys.add("ada", at=NOW))).status == 200
        for task in slow:
            task.cancel()
        await asyncio.wait(slow)


async def asking(world: InferenceWorld, key: str) -> None:
    """A question whose body never ends."""
    never = asyncio.Event()
    headers = [(b"content-type", b"application/json"), (b"authorization", f"Bearer {key}".encode())]
    target: dict[str, Any] = {"path": CHAT, "raw_path": CHAT.encode(), "query_string": b"", "extensions": {}}

    async def receive() -> dict[str, Any]:
        await never.wait()
        raise AssertionError

    async def send(_message: dict[str, Any]) -> None:
        return

    await world.service({"type": "http", "method": "POST", "headers": headers, **target}, receive, send)


@running
async def test_a_refusal_before_the_body_was_read_goes_to_no_disk_and_no_log():
    with InferenceWorld(serve=PLAIN) as world:
        await world.open()
        for headers in ({"content-type": "text/plain"}, {"content-length": "99999999"}, {"content-encoding": "gzip"}):
            reply = await world.ask(CHAT, HELLO, headers=headers)
            assert reply.status >= 400
            assert reply.headers["x-receipt-id"] in world.receipts.held
            assert (await world.receipt(reply)).refused.code == reply.code  # its own client has it all the same
        held = len(world.receipts.held)
        assert (await world.ask(CHAT, b"no JSON")).code == "request.not_json"  # a body that was read
        assert (await world.ask(CHAT, HELLO)).status == 200
        assert len(world.receipts.held) == held


# --- what nobody may count ----------------------------------------------------------------------------------------------


@running
async def test_counts_are_nowhere_while_any_open_or_draining_room_is_of_the_level_none():
    with InferenceWorld(serve=replace(SERVE, observability="aggregate")) as world:
        world.service._metrics = lambda: b"counts"
        first = await world.open()
        assert (await world.send("GET", "/metrics")).body == b"counts"
        policy = replace(world.policy, serve=replace(world.serve, observability="none"))
        second = await world.open(world.agree(policy=policy, title="Of which nothing is seen"))
        assert (await world.send("GET", "/metrics")).code == "app.not_found"
        third = await world.open()
        assert second in world.rooms.draining
        assert (await world.send("GET", "/metrics")).code == "app.not_found"
        await world.rooms.close_room(second)
        assert (await world.send("GET", "/metrics")).body == b"counts"
        assert {first, third} <= {*world.rooms.draining, world.rooms.current}


@pytest.mark.parametrize("level", ["none", "aggregate"])
@running
async def test_no_line_says_how_many_were_under_way(level, caplog, monkeypatch):
    monkeypatch.setattr(rooms, "GRACE_SECONDS", 0)
    monkeypatch.setattr(rooms, "DRAIN_SECONDS", 0)
    with InferenceWorld(serve=replace(PLAIN, observability=level)) as world:
        keeper = await world.open()
        for _ in range(7):
            keeper.begin()
        with caplog.at_level(logging.DEBUG, "strongroom"):
            await world.rooms._drain(keeper)
        assert ("under way" in caplog.text) == (level != "none")
        assert "7" not in "".join(record.getMessage() for record in caplog.records)
        assert "requests" not in (await world.send("GET", "/readyz")).json


@running
async def test_a_refusal_tells_no_stranger_how_many_are_under_way():
    with InferenceWorld(serve=PLAIN) as world:
        keeper = await world.open()
        for _ in range(keeper.capacity):
            keeper.begin()
        reply = await world.ask(CHAT, HELLO)
        assert reply.code == "request.too_many"
        assert not any(character.isdigit() for character in reply.json["error"]["message"])


def test_receipts_that_wait_are_counted_of_contracts_alone_that_allow_it(tmp_path):
    pytest.importorskip("prometheus_client", reason="counts need strongroom[serve]")
    anybody = Credential(None, None, NO_LIMITS)
    with Metering(tmp_path, None) as metering, closing(InferenceWorld()) as world:
        metering.observers._refresh = 0.0
        for level, receipts in (("aggregate", 2), ("none", 5)):
            policy = replace(world.policy, serve=replace(SERVE, observability=level))
            contract = world.agree(policy=policy, title=level)
            metering.observer(contract)
            for n in range(receipts):
                refused = M.sign(receipt_id=f"rcpt-{receipts}{n:031x}", log=M.REFUSED, chat_id=None)
                metering.receipts.put(refused, anybody, NOW, contract=contract.digest)
        assert b"strongroom_receipts_unlogged 2.0" in metering.metrics()
        assert metering.receipts.waiting == 7
