"""A room that answers: what goes in and out of it, what is signed about it, and everything that is refused.

The server is the real one, on real keys and receipts (``inference_world``); only the engine's words are made up.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from base64 import b64decode
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from functools import wraps
from struct import unpack
from typing import Any

import pytest

from inference_world import DONE, MODEL, SERVE, WEIGHTS, FakeEngine, InferenceWorld, Reply, opened, said, until
from strongroom import wire
from strongroom.app.inference import asking
from strongroom.app.inference.credentials import Limits
from strongroom.app.inference.guarding import CHARS_PER_TOKEN
from strongroom.attest.appraisal import appraise
from strongroom.attest.keyset import AttestationReport
from strongroom.ehbp import KEYS_MEDIA_TYPE, PROBLEM_TYPE, PublicKey
from strongroom.errors import EngineBusy, EngineFailed, EngineRefused, PromptTooLong
from strongroom.inference.events import Usage, UsageMetered
from strongroom.inference.expected import Agreed, Answered, Asked, Expected
from strongroom.inference.recorder import BodyHash
from strongroom.inference.verification import Reader, Verification, examine
from strongroom.lm.engine import About, Counted, Piece
from strongroom.lm.request import MAX_BODY
from strongroom.programs.guards import Mark
from world import NOW, seed

CHAT = "/v1/chat/completions"
HELLO = {"model": MODEL, "messages": [{"role": "user", "content": "hello you"}]}
STREAM = {**HELLO, "stream": True}
PLAIN = replace(SERVE, plain_bodies=True)
KEY = "anon-" + "0" * 32
SECRET = "CANARY-3141592653"


def running(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A test that runs in an event loop of its own."""

    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


@pytest.fixture
def world() -> Iterator[InferenceWorld]:
    with InferenceWorld() as found:
        yield found


@pytest.fixture
def plain() -> Iterator[InferenceWorld]:
    """One whose contract takes bodies in the open."""
    with InferenceWorld(serve=PLAIN) as found:
        yield found


def scope(extensions: dict[str, Any] | None = None) -> dict[str, Any]:
    """A question's, for who answers for its client by hand."""
    headers = [(b"content-type", b"application/json"), (b"authorization", f"Bearer {KEY}".encode())]
    target = {"path": CHAT, "raw_path": CHAT.encode(), "query_string": b""}
    return {"type": "http", "method": "POST", "headers": headers, "extensions": extensions or {}, **target}


# --- a client that looks closely ----------------------------------------------------------------------------------------


def hashed(data: bytes) -> str:
    found = BodyHash()
    found.update(data)
    return found.digest


async def attested(world: InferenceWorld) -> Any:
    nonce = seed("my nonce")
    reply = await world.send("GET", f"/v1/aci/attestation?nonce={nonce.hex()}")
    report = AttestationReport.parse(reply.body)
    return appraise(
        report.evidence,
        policy=world.trust().appraisal_policy(),
        endorsements=report.endorsements,
        nonce=nonce,
        at=world.clock(),
        keyset=report.keyset,
    )


async def verified(
    world: InferenceWorld,
    body: bytes,
    wire_reply: Reply,
    reply: Reply,
    *,
    path: str = CHAT,
    model: str | None = MODEL,
    guards: tuple[Any, ...] = (),
) -> Verification:
    """As a client verifies a receipt: over what it sent and received, and what it knows of the contract."""
    receipt = await world.receipt(wire_reply)
    chat_id, usage, refused = None, None, None
    if reply.headers["content-type"] == "text/event-stream":
        events = [event for event in reply.events if isinstance(event, dict)]
        chat_id = next((event["id"] for event in events if "id" in event), None)
        refused = next((event["error"]["code"] for event in events if "error" in event), None)
        told = next((event["usage"] for event in events if event.get("usage")), None)
    else:
        value = reply.json
        chat_id, told = value.get("id"), value.get("usage")
        refused = value["error"]["code"] if "error" in value else None
    if told is not None:
        embeds = "embeddings" in path
        usage = Usage(
            0 if embeds else told["prompt_tokens"], told.get("completion_tokens", 0), told["prompt_tokens"] if embeds else 0
        )
    serve, sealed = world.serve, wire_reply is not reply
    keeper = world.rooms.current
    return examine(
        receipt.encode(),
        appraisal=await attested(world),
        expected=Expected(
            asked=Asked(method="POST", endpoint=path, model=model, body=hashed(body), sent_at=world.clock()),
            answered=Answered(
                body=hashed(wire_reply.body),
                restored=hashed(reply.body) if sealed else None,
                chat_id=chat_id,
                refused=refused,
                usage=usage,
            ),
            agreed=Agreed(
                contract=world.contract.digest,
                model=MODEL,
                weights=wire.digest(WEIGHTS),
                asset=world.asset[0].digest,
                policy=wire.digest(wire.encode(world.policy.to_json())),
                guards=guards or tuple(named for _, named in (*keeper.named_input, *keeper.named_output)),
                padding=serve.padding_sizes,
                observability=keeper.observability,
            ),
            receipt_id=wire_reply.headers["x-receipt-id"],
        ),
        at=world.clock(),
    )


# --- answers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [0, 256, 1024])
@running
async def test_a_sealed_chat_is_answered_and_its_receipt_passes_every_check_of_a_client(padding):
    with InferenceWorld(serve=replace(SERVE, padding=padding)) as world:
        await world.open()
        for value in (HELLO, {**STREAM, "stream_options": {"include_usage": True}}, STREAM):
            body = json.dumps(value).encode()
            reply, restored = await world.sealed(CHAT, body)
            assert (reply.status, reply.headers["content-type"]) == (200, "application/vnd.strongroom.ehbp.v1")
            words = restored.text if "stream" in value else restored.json["choices"][0]["message"]["content"]
            assert words == "You said: hello you "
            assert restored.whole
            (await verified(world, body, reply, restored)).require(Reader.CLIENT)
            assert await asked_with(world) == body


async def asked_with(world: InferenceWorld) -> bytes:
    return world.engine.asked[-1][1]


@running
async def test_a_chat_in_the_open_is_answered_where_the_contract_lets_it(plain):
    await plain.open()
    for value in (HELLO, STREAM, {**HELLO, "n": 3}, {**HELLO, "user": "me", "temperature": 0.5}):
        body = json.dumps(value).encode()
        reply = await plain.ask(CHAT, body)
        assert reply.status == 200
        (await verified(plain, body, reply, reply)).require(Reader.CLIENT)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("/v1/completions", {"model": MODEL, "prompt": "once"}),
        ("/v1/completions", {"model": MODEL, "prompt": "once", "stream": True}),
        ("/v1/embeddings", {"model": MODEL, "input": ["a b", "c"]}),
    ],
)
@running
async def test_other_routes_are_answered_and_verified_too(plain, path, value):
    await plain.open()
    body = json.dumps(value).encode()
    reply = await plain.ask(path, body)
    (await verified(plain, body, reply, reply, path=path)).require(Reader.CLIENT)
    sealed, restored = await plain.sealed(path, body)
    (await verified(plain, body, sealed, restored, path=path)).require(Reader.CLIENT)


@running
async def test_vectors_come_as_numbers_or_in_base64_and_are_the_same(plain):
    await plain.open()
    found = await plain.ask("/v1/embeddings", {"model": MODEL, "input": ["a", "b"]})
    packed = await plain.ask("/v1/embeddings", {"model": MODEL, "input": ["a", "b"], "encoding_format": "base64"})
    for one, two in zip(found.json["data"], packed.json["data"], strict=True):
        assert tuple(one["embedding"]) == unpack("<8f", b64decode(two["embedding"]))
    assert found.json["usage"] == {"prompt_tokens": 2, "total_tokens": 2}


@running
async def test_every_choice_is_its_own(plain):
    await plain.open()
    whole = (await plain.ask(CHAT, {**HELLO, "n": 3})).json
    assert [choice["message"]["content"] for choice in whole["choices"]] == ["You said: hello you "] * 3
    events = (await plain.ask(CHAT, {**STREAM, "n": 3})).events[:-1]
    for index in range(3):
        mine = [event["choices"][0] for event in events if event["choices"][0]["index"] == index]
        assert "".join(choice["delta"].get("content", "") for choice in mine) == "You said: hello you "
        assert [("role" in choice["delta"]) for choice in mine].count(True) == 1
        assert mine[-1]["finish_reason"] == "stop"


@running
async def test_a_streams_events_are_as_openais_clients_read_them(plain):
    await plain.open()
    reply = await plain.ask(CHAT, {**STREAM, "stream_options": {"include_usage": True}})
    *events, usage, done = reply.events
    assert done == DONE
    assert len({event["id"] for event in events}) == 1
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": "You "}
    assert usage["choices"] == []
    assert usage["usage"]["total_tokens"] == usage["usage"]["prompt_tokens"] + usage["usage"]["completion_tokens"] == 6
    assert said(events) == "You said: hello you "
    assert len(reply.pieces) == len(events) + 1  # each event as it comes; the last with what ends the stream


@pytest.mark.parametrize("text", ['"\\\n\t\x00\x7f', "Ünïcödé 漢字 🦜", "</script>", "\u2028", "\ud83e", "data: [DONE]\n\n"])
@running
async def test_words_of_any_kind_arrive_as_they_were_said(text):
    engine = FakeEngine(words=["a", text, "b"])
    with InferenceWorld(serve=PLAIN, engine=engine) as world:
        await world.open()
        whole = (await world.ask(CHAT, HELLO)).json["choices"][0]["message"]["content"]
        stream = (await world.ask(CHAT, STREAM)).text
        expected = f"a{text}b".encode("utf-8", "replace").decode() if text != "\ud83e" else None
        assert whole == (expected or "a?b")
        assert stream == f"a{text}b"


@running
async def test_calls_of_tools_are_put_together():
    class Calling(FakeEngine):
        async def answer(self, route, body, answers):
            yield Piece({"reasoning_content": "hm"})
            yield Piece(
                {"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": {"name": "w", "arguments": "{"}}]}
            )
            yield Piece({"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]})
            yield Piece({}, 0, "tool_calls")
            answers.counted = Counted(3, 4)
            yield answers.counted

    with InferenceWorld(serve=PLAIN, engine=Calling()) as world:
        await world.open()
        choice = (await world.ask(CHAT, HELLO)).json["choices"][0]
        call = {"id": "c1", "type": "function", "function": {"name": "w", "arguments": "{}"}}
        assert choice["message"] == {
            "role": "assistant", "content": None, "refusal": None, "reasoning_content": "hm", "tool_calls": [call],
        }  # fmt: skip
        assert choice["finish_reason"] == "tool_calls"


@running
async def test_whose_question_it_is_the_engine_knows_by_a_hash_alone(plain):
    await plain.open()
    await plain.ask(CHAT, HELLO, "anon-" + "1" * 32)
    await plain.ask(CHAT, HELLO, "anon-" + "2" * 32)
    scopes = [scope for _, _, scope in plain.engine.asked]
    assert len(set(scopes)) == 2
    assert all(len(scope) == 32 for scope in scopes)


# --- who may ask, and how much ------------------------------------------------------------------------------------------


@running
async def test_without_a_credential_nothing_is_answered_and_the_refusal_has_a_receipt(plain):
    await plain.open()
    for key in (None, "sr-" + "x" * 43, "not a token"):
        reply = await plain.ask(CHAT, HELLO, key)
        assert (reply.status, reply.code) == (401, "app.no_credential")
        receipt = await plain.receipt(reply, None)
        assert receipt.refused.code == "app.no_credential"
        assert receipt.refused.step == "admission"
    assert plain.engine.asked == []
    assert plain.receipts.all == []  # strangers cannot push out anybody's receipts


@running
async def test_a_flood_of_strangers_is_remembered_only_so_far(plain, monkeypatch):
    monkeypatch.setattr(asking, "MAX_STRANGERS", 3)
    await plain.open()
    replies = [await plain.ask(CHAT, HELLO, None) for _ in range(5)]
    assert len(plain.around.strangers) == 3
    first = await plain.send("GET", f"/v1/aci/receipts/{replies[0].headers['x-receipt-id']}")
    assert (first.status, first.code) == (404, "app.not_found")


@running
async def test_a_bare_request_is_let_in_where_the_operator_says_so():
    with InferenceWorld(serve=PLAIN, bare=True) as world:
        await world.open()
        reply = await world.ask(CHAT, HELLO, None)
        assert reply.status == 200
        assert (await world.receipt(reply, None)).refused is None


@running
async def test_a_keys_limits_hold_and_say_when_to_ask_again(plain):
    plain.gate._anonymous = Limits(requests_per_minute=1)
    await plain.open()
    assert (await plain.ask(CHAT, HELLO)).status == 200
    reply = await plain.ask(CHAT, HELLO)
    assert (reply.status, reply.code, reply.headers["retry-after"]) == (429, "app.limit_reached", "60")
    assert reply.json["error"]["type"] == "rate_limit_error"


@running
async def test_a_key_for_another_model_is_refused(plain):
    await plain.open()
    key = plain.keys.add("narrow", Limits(models=frozenset({"another"})), at=NOW)
    reply = await plain.ask(CHAT, HELLO, key)
    assert (reply.status, reply.code) == (403, "app.unauthorised")


@running
async def test_what_an_answer_may_come_to_is_set_aside_before_it_is_begun():
    with InferenceWorld(serve=PLAIN, limits=Limits(tokens_per_minute=200), parameters={"max_tokens": 150}) as world:
        await world.open()
        world.engine.go = asyncio.Event()
        first = asyncio.create_task(world.ask(CHAT, STREAM))
        await until(lambda: world.engine.asked)
        assert (await world.ask(CHAT, STREAM)).code == "app.limit_reached"
        world.engine.go.set()
        assert (await first).status == 200
        assert (await world.ask(CHAT, STREAM)).status == 200  # what was not used was given back


@running
async def test_a_receipt_is_handed_to_the_credential_of_its_request_alone(plain):
    await plain.open()
    reply = await plain.ask(CHAT, HELLO)
    path, chat = f"/v1/aci/receipts/{reply.headers['x-receipt-id']}", reply.json["id"]
    for key in (None, "anon-" + "9" * 32, "sr-" + "x" * 43):
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        for target in (path, f"/v1/signature/{chat}?signing_algo=ed25519"):
            found = await plain.send("GET", target, headers=headers)
            assert (found.status, found.code) == (404, "app.not_found")
    assert (await plain.send("GET", path, headers={"authorization": f"Bearer {KEY}"})).status == 200


# --- bodies -------------------------------------------------------------------------------------------------------------


@running
async def test_a_body_in_the_open_is_refused_unread_where_the_contract_asks_for_encryption(world):
    await world.open()
    reply = await world.ask(CHAT, {**HELLO, "messages": [{"role": "user", "content": SECRET}]})
    assert (reply.status, reply.code) == (400, "request.plain_body")
    receipt = await world.receipt(reply)
    assert receipt.event_log[0].body_hash == hashed(b"")
    assert receipt.refused.step == "body"


@running
async def test_a_body_in_the_open_is_refused_where_somebody_between_could_read_it():
    with InferenceWorld(serve=PLAIN, plain=False) as world:
        await world.open()
        assert (await world.ask(CHAT, HELLO)).code == "request.plain_body"
        assert (await world.sealed(CHAT, HELLO))[1].status == 200


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"content-type": "text/plain"}, 415, "request.media_type"),
        ({"content-type": "multipart/form-data; boundary=x"}, 415, "request.media_type"),
        ({"content-encoding": "gzip"}, 415, "request.media_type"),
        ({"ehbp-encapsulated-key": "00" * 32}, 400, "ehbp.bad_record"),
    ],
)
@running
async def test_a_body_of_another_kind_is_refused(plain, headers, status, code):
    await plain.open()
    reply = await plain.ask(CHAT, HELLO, headers=headers)
    assert (reply.status, reply.code) == (status, code)


@running
async def test_a_body_of_200_megabytes_is_refused_having_read_no_more_than_the_limit(plain):
    await plain.open()
    announced = await plain.ask(CHAT, b"{}", headers={"content-length": str(200 << 20)})
    assert (announced.status, announced.code) == (413, "request.too_large")
    read = 0

    def pieces() -> Iterator[bytes]:
        nonlocal read
        for _ in range(200 << 4):
            read += 1 << 16
            yield b"x" * (1 << 16)

    reply = await plain.send("POST", CHAT, pieces(), {"content-type": "application/json", "authorization": f"Bearer {KEY}"})
    assert (reply.status, reply.code, reply.headers["connection"]) == (413, "request.too_large", "close")
    assert read <= MAX_BODY + (3 << 16)
    assert plain.engine.asked == []


@running
async def test_a_sealed_body_of_200_megabytes_is_refused_too(world):
    await world.open()
    exchange = world.exchange(CHAT)
    read = 0

    def pieces() -> Iterator[bytes]:
        nonlocal read
        for _ in range(200):
            read += 1 << 20
            yield exchange.request.write(b"x" * (1 << 20))

    headers = {**exchange.request.headers, "authorization": f"Bearer {KEY}"}
    reply = await world.send("POST", CHAT, pieces(), headers)
    assert (reply.status, opened(exchange, reply).code) == (413, "ehbp.body_too_large")
    assert read <= 2 * MAX_BODY


@running
async def test_a_body_that_never_ends_is_not_waited_for(monkeypatch):
    with InferenceWorld(serve=PLAIN, body_seconds=0.01) as world:
        await world.open()
        never = asyncio.Event()

        async def receive() -> dict[str, Any]:
            await never.wait()
            return {}

        sent: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await world.service(scope(), receive, send)
        assert sent[0]["status"] == 408
        assert world.receipts.last.refused.code == "request.too_slow"


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"", "request.not_json", None),
        (b"{", "request.not_json", None),
        (b"[]", "request.not_json", None),
        (b'{"model":"example/small","messages":[{"role":"user","content":"x"}],"logit_biass":{}}', "request.unknown_member",
         "logit_biass"),
        (b'{"model":"example/small"}', "request.bad_member", "messages"),
        (b'{"model":"example/small","messages":[{"role":"user","content":"x"}],"audio":{}}', "request.not_supported",
         "audio"),
    ],
)  # fmt: skip
@running
async def test_a_bad_request_is_refused_by_name_with_a_receipt_sealed_or_not(plain, body, code, param):
    await plain.open()
    reply = await plain.ask(CHAT, body)
    assert (reply.status, reply.code, reply.json["error"]["param"]) == (400, code, param)
    assert reply.json["error"]["type"] == "invalid_request_error"
    named = MODEL if b"model" in body else None
    (await verified(plain, body, reply, reply, model=named)).require(Reader.CLIENT)
    sealed, restored = await plain.sealed(CHAT, body)
    assert (sealed.status, restored.code) == (400, code)
    (await verified(plain, body, sealed, restored, model=named)).require(Reader.CLIENT)
    assert plain.engine.asked == []


@running
async def test_a_model_that_is_not_in_the_contract_is_not_found(plain):
    await plain.open()
    body = json.dumps({**HELLO, "model": "example/large"}).encode()
    reply = await plain.ask(CHAT, body)
    assert (reply.status, reply.code, reply.json["error"]["param"]) == (404, "request.model_not_served", "model")
    (await verified(plain, body, reply, reply, model="example/large")).require(Reader.CLIENT)


@running
async def test_a_route_that_the_contract_or_the_model_has_not_is_refused():
    with InferenceWorld(serve=replace(PLAIN, routes=frozenset({"chat"}))) as world:
        await world.open()
        reply = await world.ask("/v1/embeddings", {"model": MODEL, "input": "a"})
        assert (reply.status, reply.code) == (404, "request.route_not_served")
        assert (await world.receipt(reply)).model == MODEL
    with InferenceWorld(serve=PLAIN, engine=FakeEngine(about=About(64, 1, frozenset({"chat"})))) as world:
        await world.open()
        assert (await world.ask("/v1/embeddings", {"model": MODEL, "input": "a"})).code == "request.route_not_served"


# --- sealed requests that somebody changed ------------------------------------------------------------------------------


@running
async def test_a_replayed_sealed_request_is_refused(world):
    await world.open()
    exchange = world.exchange(CHAT)
    body = exchange.request.last(json.dumps(HELLO).encode())
    headers = {**exchange.request.headers, "authorization": f"Bearer {KEY}"}
    assert (await world.send("POST", CHAT, body, headers)).status == 200
    again = await world.send("POST", CHAT, body, headers)
    assert (again.status, again.code) == (400, "ehbp.replayed")
    assert (await world.receipt(again)).event_log[0].body_hash == hashed(body)
    assert len(world.engine.asked) == 1


@running
async def test_a_request_for_another_key_is_answered_as_ehbp_says(world):
    await world.open()
    with InferenceWorld(serve=PLAIN) as elsewhere:
        elsewhere.world.entropy(1)  # so that its keys are others
        other = await elsewhere.open()
    exchange = world.exchange(CHAT, keeper=other)
    headers = {**exchange.request.headers, "authorization": f"Bearer {KEY}"}
    reply = await world.send("POST", CHAT, exchange.request.last(b"{}"), headers)
    assert (reply.status, reply.json["type"]) == (422, PROBLEM_TYPE)
    assert reply.headers["content-type"] == "application/problem+json"
    assert (await world.receipt(reply)).refused.code == "ehbp.key_config_mismatch"


@pytest.mark.parametrize(
    ("head", "code"),
    [
        ({"path": "/v1/completions"}, "ehbp.wrong_target"),
        ({"path": CHAT + "?a=b"}, "ehbp.wrong_target"),
        ({"method": "PUT"}, "ehbp.wrong_target"),
        ({"keyset": wire.digest(b"another")}, "ehbp.wrong_keyset"),
        ({"contract": wire.digest(b"another")}, "ehbp.wrong_contract"),
    ],
)
@running
async def test_a_sealed_request_that_was_moved_is_refused(world, head, code):
    await world.open()
    exchange = world.exchange(CHAT, **head)
    reply, same = await world.sealed(CHAT, HELLO, exchange=exchange)
    assert reply is same
    assert (reply.status, reply.code) == (400, code)
    assert world.engine.asked == []


@running
async def test_the_query_is_part_of_what_is_sealed(world):
    await world.open()
    exchange = world.exchange(CHAT + "?trace=1")
    assert (await world.sealed(CHAT + "?trace=1", HELLO, exchange=exchange))[1].status == 200


@pytest.mark.parametrize(
    ("cut", "code"),
    [
        (lambda frames: frames[:-1], "ehbp.truncated"),
        (lambda frames: frames + b"\0\0\0\1x", "ehbp.after_end"),
        (lambda frames: b"", None),
    ],
)
@running
async def test_a_sealed_request_that_is_not_whole_is_not_acted_on(world, cut, code):
    await world.open()
    exchange = world.exchange(CHAT)
    frames = exchange.request.write(json.dumps(HELLO).encode()[:10]) + exchange.request.last(json.dumps(HELLO).encode()[10:])
    headers = {**exchange.request.headers, "authorization": f"Bearer {KEY}"}
    reply = await world.send("POST", CHAT, cut(frames), headers)
    assert reply.status == 400
    if code is not None:
        assert opened(exchange, reply).code == code
    assert world.engine.asked == []


@running
async def test_an_altered_frame_is_refused(world):
    await world.open()
    exchange = world.exchange(CHAT)
    first, second = exchange.request.write(b'{"model":'), exchange.request.last(b'"x"}')
    altered = first + second[:-1] + bytes([second[-1] ^ 1])
    headers = {**exchange.request.headers, "authorization": f"Bearer {KEY}"}
    reply = await world.send("POST", CHAT, altered, headers)
    assert opened(exchange, reply).code == "ehbp.frame_altered"


@pytest.mark.parametrize("values", ["", "zz" * 32, "00" * 31, "00" * 32])
@running
async def test_a_bad_encapsulated_key_is_refused(world, values):
    await world.open()
    exchange = world.exchange(CHAT)
    headers = {**exchange.request.headers, "Ehbp-Encapsulated-Key": values, "authorization": f"Bearer {KEY}"}
    reply = await world.send("POST", CHAT, exchange.request.last(b"{}"), headers)
    assert (reply.status, reply.code) == (400, "ehbp.bad_encapsulated_key")


@running
async def test_a_keyset_that_counted_all_its_requests_takes_no_more(world):
    keeper = await world.open()
    keeper.seen.capacity = 1
    assert (await world.sealed(CHAT, HELLO))[1].status == 200
    reply, _ = await world.sealed(CHAT, HELLO)
    assert (reply.status, reply.code, reply.headers["retry-after"]) == (503, "ehbp.seen_keys_full", "1")


# --- the engine ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status"),
    [(PromptTooLong("too long"), 400), (EngineBusy("busy"), 429), (EngineRefused("no"), 400), (EngineFailed("gone"), 503)],
)
@running
async def test_what_an_engine_refuses_is_refused_by_its_code_with_a_receipt(error, status):
    with InferenceWorld(serve=PLAIN, engine=FakeEngine(fails=error, after=0)) as world:
        await world.open()
        for value in (HELLO, STREAM):
            body = json.dumps(value).encode()
            reply = await world.ask(CHAT, body)
            assert (reply.status, reply.code) == (status, error.code)
            found = await verified(world, body, reply, reply)
            found.require(Reader.CLIENT)
            assert found.receipt.refused.step == "engine"


@running
async def test_an_engine_that_crashes_mid_stream_ends_it_with_an_error_that_the_receipt_repeats():
    with InferenceWorld(serve=PLAIN, engine=FakeEngine(fails=EngineFailed("it crashed"))) as world:
        await world.open()
        body = json.dumps(STREAM).encode()
        for reply, restored in ((r := await world.ask(CHAT, body), r), await world.sealed(CHAT, body)):
            assert reply.status == 200
            assert restored.events[-1]["error"]["code"] == "engine.failed"
            assert restored.text == "You said: "
            assert restored.whole
            found = await verified(world, body, reply, restored)
            found.require(Reader.CLIENT)
            assert found.receipt.one(UsageMetered).usage == Usage(2, 2)


@running
async def test_a_fault_that_nobody_expected_is_told_without_a_word_of_it(caplog):
    with InferenceWorld(serve=PLAIN, engine=FakeEngine(fails=KeyError(SECRET))) as world, caplog.at_level(logging.DEBUG):
        await world.open()
        whole, stream = await world.ask(CHAT, HELLO), await world.ask(CHAT, STREAM)
        assert (whole.status, whole.code) == (500, "app.internal")
        assert stream.events[-1]["error"]["code"] == "app.internal"
        assert SECRET not in caplog.text
        assert SECRET.encode() not in whole.body + stream.body
        assert [seen.errors for seen in world.observer.seen] == [["KeyError"], ["KeyError"]]
        assert world.receipts.last.refused.code == "app.internal"


@running
async def test_an_engine_that_ends_without_a_count_is_a_failed_one():
    class Short(FakeEngine):
        async def answer(self, route, body, answers):
            yield Piece({"content": "x"})

    with InferenceWorld(serve=PLAIN, engine=Short()) as world:
        await world.open()
        assert (await world.ask(CHAT, HELLO)).code == "engine.failed"
        assert (await world.ask(CHAT, STREAM)).events[-1]["error"]["code"] == "engine.failed"


@running
async def test_an_answer_without_a_word_is_an_answer():
    class Silent(FakeEngine):
        async def answer(self, route, body, answers):
            yield answers.counted

    with InferenceWorld(serve=PLAIN, engine=Silent()) as world:
        await world.open()
        body = json.dumps(STREAM).encode()
        reply = await world.ask(CHAT, body)
        assert reply.events == [DONE]
        assert (await world.ask(CHAT, HELLO)).json["choices"][0]["message"]["content"] == ""


# --- clients that go, or do not read ------------------------------------------------------------------------------------


@running
async def test_a_client_that_goes_frees_its_seat_and_leaves_a_receipt_of_what_was_sent():
    with InferenceWorld(serve=PLAIN) as world:
        await world.open()
        world.engine.go, gone = asyncio.Event(), asyncio.Event()

        def seen(message: dict[str, Any]) -> None:
            if message.get("body"):
                gone.set()

        reply = await world.ask(CHAT, STREAM, seen=seen, gone=gone)
        assert world.engine.given_up == 1
        receipt = world.receipts.last
        assert (receipt.refused.code, receipt.refused.step) == ("request.client_gone", "answer")
        assert receipt.event_log[-1].body_hash == hashed(reply.body)
        assert receipt.one(UsageMetered).usage == Usage(2, 1)  # what was worked out is metered
        assert world.rooms.current.active == 0


@running
async def test_a_client_that_goes_while_it_waits_for_a_whole_answer_frees_its_seat_too():
    with InferenceWorld(serve=PLAIN) as world:
        await world.open()
        world.engine.go, gone = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(world.ask(CHAT, HELLO, gone=gone))
        await until(lambda: world.engine.asked)
        gone.set()
        reply = await task
        assert (reply.status, world.engine.given_up) == (0, 1)
        assert world.receipts.last.refused.code == "request.client_gone"


@running
async def test_a_client_that_goes_before_its_body_is_whole_leaves_a_receipt():
    with InferenceWorld(serve=PLAIN) as world:
        await world.open()
        messages = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])

        async def receive() -> dict[str, Any]:
            return next(messages)

        async def send(message: dict[str, Any]) -> None:
            raise AssertionError("nobody is there")

        await world.service(scope(), receive, send)
        assert world.receipts.last.refused.code == "request.client_gone"
        assert world.receipts.last.event_log[0].body_hash == hashed(b"{")


@running
async def test_a_client_that_stops_reading_is_cut_off():
    with InferenceWorld(serve=PLAIN, stall_seconds=0.02) as world:
        await world.open()
        cut: list[bool] = []
        never = asyncio.Event()
        sent: list[dict[str, Any]] = []
        body = json.dumps(STREAM).encode()
        first = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> dict[str, Any]:
            found = next(first, None)
            if found is None:
                await never.wait()
            return found

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)
            if message.get("body"):
                await never.wait()  # the buffer is full, and stays so

        await world.service(scope({asking.ABORT: {"call": lambda: cut.append(True)}}), receive, send)
        assert cut == [True]
        assert world.receipts.last.refused.code == "request.client_too_slow"
        assert len(sent) == 2
        assert world.rooms.current.active == 0


@running
async def test_when_too_many_are_under_way_the_next_is_told_to_wait():
    with InferenceWorld(serve=PLAIN) as world:
        keeper = await world.open()
        keeper.capacity = 2
        world.engine.go = asyncio.Event()
        another = world.keys.add("ada", at=NOW)
        waiting = [asyncio.create_task(world.ask(CHAT, STREAM, key)) for key in (KEY, another)]
        await until(lambda: len(world.engine.asked) == 2)
        reply = await world.ask(CHAT, STREAM)
        assert (reply.status, reply.code, reply.headers["retry-after"]) == (429, "request.too_many", "1")
        world.engine.go.set()
        assert [r.status for r in await asyncio.gather(*waiting)] == [200, 200]
        assert (await world.ask(CHAT, STREAM)).status == 200


@running
async def test_a_request_that_is_cancelled_by_the_servers_end_leaves_a_receipt():
    with InferenceWorld(serve=PLAIN) as world:
        await world.open()
        world.engine.go = asyncio.Event()
        task = asyncio.create_task(world.ask(CHAT, STREAM))
        await until(lambda: world.engine.asked)
        task.cancel()
        await asyncio.wait([task])
        assert world.receipts.last.refused.code == "request.service_ending"


@running
async def test_where_a_receipt_cannot_be_kept_the_answer_does_not_end():
    with InferenceWorld(serve=PLAIN) as world:
        await world.open()
        cut: list[bool] = []

        def full(*_: object, **__: object) -> None:
            from strongroom.errors import NoSpace

            raise NoSpace("the disk is full")

        world.receipts.put = full  # type: ignore[method-assign]
        extension = {asking.ABORT: {"call": lambda: cut.append(True)}}
        reply = await world.ask(CHAT, STREAM, extensions=extension)
        assert cut == [True]
        assert not reply.whole
        assert DONE not in reply.events


# --- guards -------------------------------------------------------------------------------------------------------------


class Rule:
    """A guard that hides one word and refuses another."""

    def __init__(self, name: str, hides: str = "hidden", refuses: str = "forbidden") -> None:
        self.name, self.program = name, wire.digest(name.encode())
        self.hides, self.refuses, self.hold_chars, self.whole = hides, refuses, 16, False

    def mark(self, text: str) -> tuple[Mark, ...] | None:
        if self.refuses in text:
            return None
        at = text.find(self.hides)
        return () if at < 0 else (Mark(at, at + len(self.hides), "[…]"),)

    def look(self, texts: Any) -> Any:
        from strongroom.programs.guards import judged

        return judged(self, texts)

    def settled(self, text: str) -> int:
        return max(0, len(text) - self.hold_chars)


def guarded(**changes: Any) -> InferenceWorld:
    serve = replace(PLAIN, input_guards=frozenset({"pii"}), output_guards=frozenset({"pii"}))

    def load(names: frozenset[str], stage: str, settings: object, ask: object) -> list[Rule]:
        return [Rule(name) for name in sorted(names)]

    return InferenceWorld(serve=serve, guards=load, **changes)


def chat(text: str, **more: Any) -> bytes:
    return json.dumps({"model": MODEL, "messages": [{"role": "user", "content": text}], **more}).encode()


@running
async def test_a_guard_that_changes_nothing_is_named_and_the_request_goes_on_as_it_came():
    with guarded() as world:
        await world.open()
        for body in (chat("a clean word"), chat("a clean word", stream=True)):
            reply = await world.ask(CHAT, body)
            found = await verified(world, body, reply, reply)
            found.require(Reader.CLIENT)
            assert [run.decision.value for run in found.receipt.event_log[3].guards] == ["allowed", "allowed"]
            assert world.engine.asked[-1][1] == body


@running
async def test_a_guard_changes_what_the_engine_gets_and_what_the_client_gets():
    with guarded(engine=FakeEngine(words=["so ", "hid", "den ", "is ", "the ", "word", " and more of it"])) as world:
        await world.open()
        for more in ({}, {"stream": True}):
            body = chat("tell the hidden word", **more)
            reply = await world.ask(CHAT, body)
            words = reply.text if more else reply.json["choices"][0]["message"]["content"]
            assert words == "so […] is the word and more of it"
            assert b"hidden" not in world.engine.asked[-1][1]
            assert "[…]".encode() in world.engine.asked[-1][1]
            found = await verified(world, body, reply, reply)
            found.require(Reader.CLIENT)
            assert [run.decision.value for run in found.receipt.event_log[3].guards] == ["changed", "changed"]


@running
async def test_a_guard_of_the_input_refuses_before_the_engine_is_asked():
    with guarded() as world:
        await world.open()
        body = chat("a forbidden word")
        for reply, restored in ((r := await world.ask(CHAT, body), r), await world.sealed(CHAT, body)):
            assert (reply.status, restored.code) == (400, "request.guard_refused")
            found = await verified(world, body, reply, restored)
            found.require(Reader.CLIENT)
            assert [run.decision.value for run in found.receipt.event_log[2].guards] == ["refused"]
        assert world.engine.asked == []


@running
async def test_a_guard_of_the_output_ends_the_answer_before_the_word_leaves():
    with guarded(engine=FakeEngine(words=["something long before it: ", "forbid", "den ", "more"])) as world:
        await world.open()
        for more in ({}, {"stream": True}):
            body = chat("say it", **more)
            reply = await world.ask(CHAT, body)
            assert b"forbid" not in reply.body
            assert b"request.guard_refused" in reply.body
            found = await verified(world, body, reply, reply)
            found.require(Reader.CLIENT)
            runs = found.receipt.event_log[3].guards
            assert [run.decision.value for run in runs] == ["allowed", "refused"]


@running
async def test_all_of_a_call_and_reasoning_pass_the_guards_too():
    class Calling(FakeEngine):
        async def answer(self, route, body, answers):
            yield Piece({"reasoning_content": "the hidden thought"})
            function = {"name": "w_hidden", "arguments": '{"a":"hid', "beside": "hidden"}
            yield Piece({"tool_calls": [{"index": 0, "id": "c_hidden", "type": "function", "function": function}]})
            yield Piece({"tool_calls": [{"index": 0, "function": {"arguments": 'den"}'}}]})
            yield Piece({}, 0, "tool_calls")
            yield answers.counted

    with guarded(engine=Calling()) as world:
        await world.open()
        body = chat("call")
        reply = await world.ask(CHAT, body)
        message = reply.json["choices"][0]["message"]
        assert message["reasoning_content"] == "the […] thought"
        assert b"hidden" not in reply.body
        assert message["tool_calls"][0]["id"] == "c_[…]"
        assert message["tool_calls"][0]["function"] == {"arguments": '{"a":"[…]"}', "name": "w_[…]"}
        assert (await verified(world, body, reply, reply)).problem(Reader.CLIENT) is None


class Slow(Rule):
    """A guard that is asked in a thread, and waits there."""

    def __init__(self, name: str, asked: list[str], go: threading.Event) -> None:
        super().__init__(name)
        self.asked, self.go = asked, go

    def look(self, texts: Any) -> Any:
        self.asked.append(threading.current_thread().name)
        assert self.go.wait(30)
        return super().look(texts)


def slow(**changes: Any) -> tuple[InferenceWorld, list[str], threading.Event]:
    asked, go = list[str](), threading.Event()
    serve = replace(PLAIN, input_guards=frozenset({"pii"}))

    def load(names: frozenset[str], stage: str, settings: object, ask: object) -> list[Slow]:
        return [Slow(name, asked, go) for name in sorted(names)]

    return InferenceWorld(serve=serve, guards=load, **changes), asked, go


@running
async def test_a_text_that_no_context_holds_does_not_keep_a_guard_busy():
    world, asked, go = slow()
    go.set()
    with world:
        await world.open()
        most = world.rooms.current.parameters.context_tokens * CHARS_PER_TOKEN
        body = chat("x" * (most + 1))
        reply = await world.ask(CHAT, body)
        assert (reply.status, reply.code, asked) == (400, "engine.prompt_too_long", [])
        (await verified(world, body, reply, reply)).require(Reader.CLIENT)
        many = {"model": MODEL, "input": ["x" * most, "x" * most]}  # each is a prompt of its own
        assert (await world.ask("/v1/embeddings", many)).status == 200
        (name,) = asked
        assert name.startswith("strongroom-guard")


@running
async def test_a_key_without_tokens_does_not_keep_a_guard_busy():
    world, asked, go = slow(limits=Limits(tokens_per_minute=10))
    go.set()
    with world:
        await world.open()
        first, second = [await world.ask(CHAT, chat("hello", max_tokens=9)) for _ in range(2)]
        assert (first.status, second.status, second.code) == (200, 429, "app.limit_reached")
        assert len(asked) == 1


@running
async def test_a_client_that_goes_frees_no_guard_whose_thread_goes_on():
    world, asked, go = slow()
    with world:
        keeper, gone = await world.open(), asyncio.Event()
        (lock,) = keeper.guarding.values()
        first = asyncio.create_task(world.ask(CHAT, chat("hello"), gone=gone))
        while not asked:  # noqa: ASYNC110 - it is asked in a thread
            await asyncio.sleep(0.001)
        gone.set()
        await first
        assert world.receipts.last.refused.code == "request.client_gone"
        assert lock.locked()
        second = asyncio.create_task(world.ask(CHAT, chat("hello")))
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(asked) == 1
        go.set()
        assert (await second).status == 200
        assert not lock.locked()


@running
async def test_a_guard_is_not_asked_for_a_room_that_was_closed():
    world, asked, go = slow()
    with world:
        keeper = await world.open()
        first, second = (asyncio.create_task(world.ask(CHAT, chat("hello"))) for _ in range(2))
        while not asked:  # noqa: ASYNC110 - it is asked in a thread
            await asyncio.sleep(0.001)
        await world.rooms.close_room(keeper)
        go.set()
        assert {(await first).code, (await second).code} == {"enclave.room_closed"}
        assert len(asked) == 1


@running
async def test_logprobs_would_show_what_a_guard_takes_away():
    with guarded() as world:
        await world.open()
        reply = await world.ask(CHAT, chat("x", logprobs=True))
        assert (reply.code, reply.json["error"]["param"]) == ("request.not_supported", "logprobs")


@running
async def test_the_installed_guards_stand_in_the_same_place(world):
    pytest.importorskip("presidio_analyzer", reason="the guard pii needs strongroom[guards]")
    serve = replace(PLAIN, input_guards=frozenset({"pii"}), output_guards=frozenset({"pii"}))
    with InferenceWorld(serve=serve) as guarding:
        await guarding.open()
        body = chat("write to ada.lovelace@example.org please")
        reply = await guarding.ask(CHAT, body)
        assert b"ada.lovelace" not in guarding.engine.asked[-1][1]
        assert b"ada.lovelace" not in reply.body
        (await verified(guarding, body, reply, reply)).require(Reader.CLIENT)


# --- evidence and what is told of the room ------------------------------------------------------------------------------


@running
async def test_the_keyset_is_attested_for_the_askers_nonce(world):
    await world.open()
    found = await attested(world)
    assert found.require().digest == world.rooms.current.digest


@running
async def test_without_a_nonce_the_report_is_the_same_for_everybody(world):
    await world.open()
    one, two = [await world.send("GET", "/v1/aci/attestation") for _ in range(2)]
    assert one.body == two.body
    assert AttestationReport.parse(one.body).keyset == world.rooms.current.keyset


@pytest.mark.parametrize(
    "query", ["nonce=", "nonce=null", "nonce=" + "A" * 64, "nonce=" + "a" * 63, "nonce=" + "a" * 65, "nonce=0x" + "a" * 62,
              "nonce=" + "a" * 64 + "&nonce=" + "a" * 64, "nonce=%0a" + "a" * 64, "nonce", "nonce=" + "a" * 64 + "%20"],
)  # fmt: skip
@running
async def test_a_nonce_of_another_shape_is_an_invalid_request(world, query):
    await world.open()
    reply = await world.send("GET", f"/v1/aci/attestation?{query}")
    assert (reply.status, reply.json["error"]["type"]) == (400, "invalid_request_error")


@running
async def test_evidence_is_asked_for_a_few_at_a_time(world, monkeypatch):
    await world.open()
    world.service._attesting.few.taken = 32
    reply = await world.send("GET", f"/v1/aci/attestation?nonce={'a' * 64}")
    assert (reply.status, reply.code) == (429, "request.too_many")


@running
async def test_the_well_known_address_names_the_attested_key(world):
    keeper = await world.open()
    reply = await world.send("GET", "/.well-known/hpke-keys")
    assert reply.headers["content-type"] == KEYS_MEDIA_TYPE
    assert PublicKey.from_config(reply.body) == keeper.room.serving.requests.public
    entries = {entry.algo: entry.raw for entry in keeper.keyset.e2ee_public_keys}
    assert keeper.room.serving.requests.public.raw in entries.values()


@running
async def test_every_answer_names_the_version_and_the_keyset(plain):
    keeper = await plain.open()
    for reply in (
        await plain.ask(CHAT, HELLO),
        await plain.ask(CHAT, b"{"),
        (await plain.sealed(CHAT, HELLO))[0],
        await plain.send("GET", "/v1/models"),
        await plain.send("GET", "/nothing"),
        await plain.send("DELETE", "/v1/models"),
        await plain.send("GET", "/v1/aci/receipts/none"),
    ):
        assert (reply.headers["x-aci-version"], reply.headers["x-aci-keyset-digest"]) == ("aci/1", keeper.digest)


@running
async def test_what_is_served_is_told_with_its_weights(world):
    await world.open()
    (model,) = (await world.send("GET", "/v1/models")).json["data"]
    assert (model["id"], model["object"], model["owned_by"]) == (MODEL, "model", "lab")
    assert model["strongroom"]["weights"] == wire.digest(WEIGHTS)
    assert (await world.send("GET", f"/v1/models/{MODEL}")).json == model
    assert (await world.send("GET", "/v1/models/none")).status == 404
    room = (await world.send("GET", "/v1/room")).json
    assert room["contract_digest"] == world.contract.digest
    assert room["contract"] == world.contract.envelope.to_json()
    assert room["models"] == [model]
    assert (room["observability"], room["retention_s"], room["plain_bodies"]) == ("none", SERVE.retention_s, False)
    assert room["limits"]["body_bytes"] == MAX_BODY


@running
async def test_a_head_is_an_answer_without_its_body(world):
    await world.open()
    reply = await world.send("HEAD", "/v1/models")
    assert (reply.status, reply.body) == (200, b"")
    assert int(reply.headers["content-length"]) > 100


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", CHAT, 405),
        ("POST", "/v1/models", 405),
        ("GET", "/", 404),
        ("PUT", "/v1/room", 405),
        ("POST", "/v1/runs", 404),
    ],
)
@running
async def test_another_method_or_address_is_refused(world, method, path, status):
    await world.open()
    reply = await world.send(method, path)
    assert reply.status == status
    if status == 405:
        assert "OPTIONS" in reply.headers["allow"]


@running
async def test_near_ais_routes_say_the_same_facts(plain):
    keeper = await plain.open()
    reply = await plain.ask(CHAT, HELLO)
    headers = {"authorization": f"Bearer {KEY}"}
    path = f"/v1/signature/{reply.json['id']}"
    found = (await plain.send("GET", f"{path}?signing_algo=ed25519&model={MODEL}", headers=headers)).json
    model, asked, answered = found["text"].split(":")
    assert (model, f"sha256:{asked}") == (MODEL, hashed(json.dumps(HELLO).encode()))
    assert f"sha256:{answered}" == hashed(reply.body)
    keeper.keyset.chat_signature_key.verify_bytes(bytes.fromhex(found["signature"]), found["text"].encode())
    assert (await plain.send("GET", path, headers=headers)).code == "inference.signing_algorithm"
    assert (await plain.send("GET", f"{path}?signing_algo=ed25519&model=x", headers=headers)).status == 404
    base = f"/v1/attestation/report?signing_algo=ed25519&model={MODEL}"
    assert (await plain.send("GET", base)).code == "attest.bad_nonce"
    assert (await plain.send("GET", f"{base}&nonce={'a' * 64}")).code == "inference.no_intel_quote"
    assert (await plain.send("GET", f"{base}&nonce={'a' * 64}&include_tls_fingerprint=true")).code == "app.not_found"
    assert (await plain.send("GET", "/v1/attestation/report?nonce=" + "a" * 64)).code == "inference.signing_algorithm"
    assert (await plain.send("GET", base.replace(MODEL, "x") + f"&nonce={'a' * 64}")).code == "request.model_not_served"


# --- pages from elsewhere -----------------------------------------------------------------------------------------------


@running
async def test_a_page_of_another_origin_may_ask_only_where_the_operator_named_it():
    origin = "https://chat.example"
    with InferenceWorld(serve=PLAIN, origins=frozenset({origin})) as world:
        await world.open()
        for path in (CHAT, "/v1/room"):
            found = await world.send("OPTIONS", path, headers={"origin": origin})
            assert (found.status, found.headers["access-control-allow-origin"]) == (204, origin)
            strange = await world.send("OPTIONS", path, headers={"origin": "https://evil.example"})
            assert "access-control-allow-origin" not in strange.headers
        reply = await world.ask(CHAT, HELLO, headers={"origin": origin})
        assert reply.headers["access-control-allow-origin"] == origin
        assert "x-receipt-id" in reply.headers["access-control-expose-headers"]
        assert "access-control-allow-origin" not in (await world.ask(CHAT, HELLO)).headers


# --- the operator -------------------------------------------------------------------------------------------------------


@running
async def test_what_an_operator_is_told_of_a_request(plain):
    await plain.open()
    await plain.ask(CHAT, STREAM)
    await plain.ask(CHAT, b"{")
    answered, refused = plain.observer.seen
    assert (answered.outcome, answered.firsts, answered.tokens, answered.name) == ("ok", 1, (2, 4, 0), MODEL)
    assert (refused.outcome, refused.tokens) == ("request.not_json", (0, 0, 0))
    assert answered.texts == refused.texts == []


@running
async def test_texts_are_told_only_where_the_contract_lets_everything_be_seen(plain):
    plain.observer.keeps_texts = True
    await plain.open()
    reply = await plain.ask(CHAT, STREAM)
    assert b"".join(plain.observer.seen[0].texts) == json.dumps(STREAM).encode() + reply.body


@running
async def test_nothing_of_a_request_is_logged_whatever_becomes_of_it(caplog):
    caplog.set_level(logging.DEBUG)
    value = {**STREAM, "messages": [{"role": "user", "content": SECRET}]}
    for fails in (None, EngineFailed("it crashed"), ValueError(SECRET)):
        with InferenceWorld(serve=PLAIN, engine=FakeEngine(fails=fails)) as world:
            await world.open()
            await world.ask(CHAT, value)
            await world.ask(CHAT, json.dumps(value).encode()[:-1])
            await world.ask(CHAT, {**value, SECRET: 1})
            await world.sealed(CHAT, value)
            for receipt, *_ in world.receipts.all:
                assert SECRET.encode() not in receipt.encode()
    assert SECRET not in caplog.text
