"""Sidecars: an OpenAI server on the same machine, measured before it is asked, and read with mistrust."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from argparse import ArgumentParser
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn

from strongroom.app.inference import arguments, sidecar, starting
from strongroom.app.inference.ports import Wanted
from strongroom.app.inference.sidecar import Address, Description, Sidecar
from strongroom.asset import About, AssetKey, BytesSource, seal
from strongroom.errors import (
    EngineBusy,
    EngineError,
    EngineFailed,
    EngineRefused,
    ProgramNotApproved,
    PromptTooLong,
    Unreachable,
    Usage,
    WireError,
)
from strongroom.lm.engine import Answer, Counted, Piece, Vectors
from strongroom.policy import ANY_PARTY, OutputRule, Policy
from strongroom.programs import serve_llm

HELLO = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
EXECUTABLE, COMMAND = sidecar.measured(os.getpid())
DESCRIBED = Description(EXECUTABLE, COMMAND, "theirs", frozenset({"chat", "completions", "embeddings"}), 512, 2, 3)


def chunk(**choice: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {}, "finish_reason": None} | choice]}


GOOD = [
    chunk(delta={"role": "assistant", "content": ""}),
    chunk(delta={"content": "he"}),
    chunk(delta={"content": "llo"}, logprobs={"content": []}),
    chunk(finish_reason="stop"),
    {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}}},
]


def events(*said: Any, end: bytes = b"data: [DONE]\n\n") -> list[bytes]:
    return [*(b": a comment\ndata: " + json.dumps(one).encode() + b"\r\n\r\n" for one in said), end]


class Fake:
    """An OpenAI server that says what it is told to."""

    def __init__(self) -> None:
        self.status, self.parts, self.pause = 200, events(*GOOD), 0.0
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self.left = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.heard.append((scope["path"], json.loads(body)))
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        for part in self.parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
            if self.pause:
                waiting = asyncio.create_task(receive())
                done, _ = await asyncio.wait([waiting], timeout=self.pause)
                if done:
                    self.left.set()
                    return
                waiting.cancel()
        await send({"type": "http.response.body", "body": b""})


@contextmanager
def serving(app: Fake, sock: socket.socket) -> Iterator[None]:
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()
        sock.close()


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
def place(fake: Fake, tmp_path: Path) -> Iterator[str]:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(tmp_path / "s"))
    sock.listen()
    with serving(fake, sock):
        yield f"unix:{tmp_path / 's'}"


@asynccontextmanager
async def attached(place: str, described: Description = DESCRIBED, **more: Any) -> AsyncIterator[Sidecar]:
    found = await sidecar.start(described.encode(), place, **({"max_tokens": 64} | more))
    try:
        yield found
    finally:
        await found.close()


async def answers(of: Sidecar, body: dict[str, Any], route: Any = "chat") -> list[Answer]:
    async with aclosing(of.ask(route, json.dumps(body).encode())) as found:
        return [answer async for answer in found]


def run(doing: Coroutine[Any, Any, Any]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(60):
            return await doing

    return asyncio.run(bounded())


def asked(place: str, body: dict[str, Any] = HELLO, route: Any = "chat", **more: Any) -> list[Answer]:
    async def doing() -> list[Answer]:
        async with attached(place, **more) as found:
            return await answers(found, body, route)

    found: list[Answer] = run(doing())
    return found


# --- questions ------------------------------------------------------------------------------------------------------


def test_a_chat_is_passed_on_and_read(fake: Fake, place: str) -> None:
    said = asked(place, HELLO | {"max_tokens": 9999, "temperature": 0})
    assert said == [
        Piece({"content": "he"}),
        Piece({"content": "llo"}, logprobs={"content": []}),
        Piece({}, finish="stop"),
        Counted(5, 2, 1),
    ]
    path, heard = fake.heard[0]
    assert path == "/v1/chat/completions"
    assert heard["model"] == "theirs"
    assert (heard["max_tokens"], heard["temperature"], heard["stream"]) == (64, 0, True)


def test_a_completion_is_passed_on_and_read(fake: Fake, place: str) -> None:
    fake.parts = events(
        {"choices": [{"index": 0, "text": "x", "finish_reason": None}]}, chunk(text="", finish_reason="length")
    )
    assert asked(place, {"model": "m", "prompt": "a"}, "completions") == [
        Piece({"text": "x"}),
        Piece({"text": ""}, finish="length"),
        Counted(0, 2),
    ]


def test_texts_are_embedded_in_their_order(fake: Fake, place: str) -> None:
    data = [{"index": 1, "embedding": [4, 5, 6]}, {"index": 0, "embedding": [1, 2, 3.5]}]
    fake.parts = [json.dumps({"data": data, "usage": {"prompt_tokens": 2}}).encode()]
    assert asked(place, {"model": "m", "input": ["a", "b"]}, "embeddings") == [
        Vectors([[1.0, 2.0, 3.5], [4.0, 5.0, 6.0]]),
        Counted(2),
    ]


CHAT_SPELLINGS: list[tuple[str, dict[str, Any], int]] = [
    ("chat", {"max_completion_tokens": 9999}, 64),
    ("chat", {"max_completion_tokens": 9999, "max_tokens": None}, 64),
    ("chat", {"max_completion_tokens": 7}, 7),
    ("chat", {"max_tokens": None}, 64),
    ("chat", {"max_tokens": 12.0}, 12),
    ("chat", {"n": None, "max_tokens": 3}, 3),
    ("completions", {"max_tokens": None, "n": None}, 64),
    ("completions", {"best_of": 1, "echo": False, "max_tokens": 9999}, 64),
]


@pytest.mark.parametrize(("route", "more", "most"), CHAT_SPELLINGS)
def test_no_spelling_gets_a_longer_answer_than_agreed(
    fake: Fake, place: str, route: str, more: dict[str, Any], most: int
) -> None:
    base = HELLO if route == "chat" else {"model": "m", "prompt": ["a"]}
    if route == "completions":
        fake.parts = events({"choices": [{"index": 0, "text": "x", "finish_reason": "stop"}]})
    asked(place, base | {"user": "ann", "store": True, "stream": False} | more, route)
    heard = fake.heard[0][1]
    assert heard["max_tokens"] == most
    assert not {"max_completion_tokens", "n", "best_of", "user", "store", "echo"} & set(heard)
    assert heard["stream"] is True


def test_one_text_is_embedded_too(fake: Fake, place: str) -> None:
    fake.parts = [json.dumps({"data": [{"index": 0, "embedding": [1, 2, 3]}], "usage": {"prompt_tokens": 1}}).encode()]
    said = asked(place, {"model": "m", "input": "abc", "encoding_format": "base64"}, "embeddings")
    assert said == [Vectors([[1.0, 2.0, 3.0]]), Counted(1)]
    assert (fake.heard[0][1]["input"], fake.heard[0][1]["encoding_format"]) == (["abc"], "float")


def test_what_came_before_a_sidecar_broke_is_counted(fake: Fake, place: str) -> None:
    fake.parts = events(*GOOD[:3], end=b"")

    async def doing() -> None:
        async with attached(place) as found:
            question = found.ask("chat", json.dumps(HELLO).encode())
            with pytest.raises(EngineFailed):
                async for _ in question:
                    pass
            assert question.counted == Counted(0, 2)

    run(doing())


def test_a_client_that_goes_away_is_a_sidecar_s_client_that_goes_away(fake: Fake, place: str) -> None:
    fake.pause = 30.0

    async def doing() -> None:
        async with attached(place) as found:
            question = found.ask("chat", json.dumps(HELLO).encode())
            fake.parts = events(chunk(delta={"content": "x"}), *[chunk(delta={"content": "y"})] * 50)
            assert await anext(question) == Piece({"content": "x"})
            await question.aclose()
            assert question.counted.prompt_tokens == 0
            await asyncio.to_thread(fake.left.wait, 20)
            assert fake.left.is_set()

    run(doing())


def test_too_many_questions_are_refused(fake: Fake, place: str) -> None:
    fake.pause = 30.0

    async def doing() -> None:
        async with attached(place, waiting=1) as found:
            tasks = [asyncio.create_task(answers(found, HELLO)) for _ in range(3)]
            while found._queue < 1:  # noqa: ASYNC110 - what is waited for tells nobody
                await asyncio.sleep(0.01)
            with pytest.raises(EngineBusy):
                await answers(found, HELLO)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    run(doing())


def test_a_route_that_is_not_described_is_refused(place: str) -> None:
    with pytest.raises(EngineRefused, match="kind of request"):
        asked(place, described=replace(DESCRIBED, routes=frozenset({"completions"})))


# --- what it says is untrusted --------------------------------------------------------------------------------------

LIES: dict[str, list[bytes]] = {
    "no end": events(*GOOD, end=b""),
    "nothing": [b""],
    "no JSON": [b"data: {\n\n"],
    "no object": [b"data: 7\n\n"],
    "another choice": events(chunk(index=1, delta={"content": "x"})),
    "a choice below nought": events(chunk(index=-1, delta={"content": "x"})),
    "content that is a number": events(chunk(delta={"content": 7})),
    "half a character": [b'data: {"choices":[{"index":0,"delta":{"content":"\\ud800"}}]}\n\n'],
    "a finish that there is not": events(chunk(finish_reason="victory")),
    "a delta that is a list": events(chunk(delta=["x"])),
    "a count that is text": events({"choices": [], "usage": {"prompt_tokens": "SECRET"}}),
    "a line without end": [b"data: " + b"x" * (2 << 20)],
    "an error in mid-stream": events(GOOD[1], {"error": {"message": "SECRET"}}),
}


@pytest.mark.parametrize("lie", LIES, ids=lambda name: name.replace(" ", "-"))
def test_nonsense_fails_the_question(fake: Fake, place: str, lie: str) -> None:
    fake.parts = LIES[lie]
    with pytest.raises(EngineFailed) as caught:
        asked(place)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        {"data": [], "usage": {"prompt_tokens": 1}},
        {"data": [{"index": 0, "embedding": [1, 2]}], "usage": {"prompt_tokens": 1}},
        {"data": [{"index": 5, "embedding": [1, 2, 3]}], "usage": {"prompt_tokens": 1}},
        {"data": [{"index": 0, "embedding": ["x", 2, 3]}], "usage": {"prompt_tokens": 1}},
        {"data": [{"index": 0, "embedding": [1, 2, 3]}]},
        [],
    ],
)
def test_vectors_that_are_none_fail_the_question(fake: Fake, place: str, answer: Any) -> None:
    fake.parts = [json.dumps(answer).encode()]
    with pytest.raises(EngineFailed):
        asked(place, {"model": "m", "input": ["a"]}, "embeddings")


@pytest.mark.parametrize(
    ("status", "text", "error"),
    [
        (400, "maximum context length exceeded", PromptTooLong),
        (400, "bad json_schema", EngineRefused),
        (422, "SECRET", EngineRefused),
        (429, "", EngineBusy),
        (503, "", EngineBusy),
        (500, "SECRET", EngineFailed),
        (302, "", EngineFailed),
    ],
)
def test_its_errors_are_ours(fake: Fake, place: str, status: int, text: str, error: type[EngineError]) -> None:
    fake.status, fake.parts = status, [text.encode()]
    with pytest.raises(error) as caught:
        asked(place)
    assert type(caught.value) is error
    assert "SECRET" not in str(caught.value)


# --- who it is ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"executable": "sha256:" + "0" * 64},
        {"command": (*COMMAND, "--trust-me")},
        {"command": COMMAND[:-1] or ("x",)},
    ],
)
def test_another_server_than_the_contract_describes_is_never_asked(fake: Fake, place: str, change: dict[str, Any]) -> None:
    with pytest.raises(ProgramNotApproved):
        asked(place, described=replace(DESCRIBED, **change))
    assert fake.heard == []


IMPOSTOR = """
import socket, sys, time
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); print("up", flush=True); time.sleep(600)
"""


def test_a_server_that_takes_the_place_of_another_is_measured_again(tmp_path: Path) -> None:
    place = str(tmp_path / "s")

    def started(*more: str) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", IMPOSTOR, place, *more]
        found = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert found.stdout
        found.stdout.readline()
        return found

    def stopped(process: subprocess.Popen[str]) -> None:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        os.unlink(place)

    async def doing() -> None:
        first = started()
        executable, command = sidecar.measured(first.pid)
        described = replace(DESCRIBED, executable=executable, command=command)
        async with attached(f"unix:{place}", described) as found:
            found.require()
            stopped(first)
            second = started("--and-tell-me-everything")
            try:
                with pytest.raises(ProgramNotApproved):
                    await answers(found, HELLO)
            finally:
                stopped(second)
            with pytest.raises(EngineFailed):
                await answers(found, HELLO)

    run(doing())


def test_a_socket_that_is_put_in_the_place_of_another_while_its_process_runs_is_told_nothing(
    fake: Fake, place: str, tmp_path: Path
) -> None:
    async def doing() -> None:
        async with attached(place) as found:
            assert (await answers(found, HELLO))[-1] == Counted(5, 2, 1)
            os.rename(tmp_path / "s", tmp_path / "aside")
            words = [sys.executable, "-c", IMPOSTOR, str(tmp_path / "s")]
            with await asyncio.to_thread(subprocess.Popen, words, stdout=subprocess.PIPE, text=True) as impostor:
                assert impostor.stdout
                await asyncio.to_thread(impostor.stdout.readline)
                try:
                    found.require()  # who was measured still runs
                    for route, body in (("chat", HELLO), ("embeddings", {"model": "m", "input": "a"})):
                        with pytest.raises(ProgramNotApproved, match="not what was measured"):
                            await answers(found, body, route)
                finally:
                    impostor.kill()
            os.replace(tmp_path / "aside", tmp_path / "s")
            assert (await answers(found, HELLO))[-1] == Counted(5, 2, 1)

    run(doing())


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(Unreachable):
        asked(f"unix:{tmp_path}/none")


@pytest.mark.parametrize(
    "text", ["", "unix:relative", "example.org:80", "0.0.0.0:80", "127.0.0.1:8000", "[::1]:8000", "unix:/a\0b", "http://x"]
)
def test_no_address_but_of_a_socket_whose_listener_the_kernel_names(text: str) -> None:
    with pytest.raises(Usage):
        Address.parse(text)
    assert Address.parse("unix:/a=b") == Address("/a=b")


def mutated(change: Callable[[dict[str, Any]], Any]) -> bytes:
    said = json.loads(DESCRIBED.encode())
    change(said)
    return json.dumps(said, separators=(",", ":"), sort_keys=True).encode()


def test_a_description_is_read_as_it_was_written() -> None:
    assert Description.parse(DESCRIBED.encode()) == DESCRIBED


@pytest.mark.parametrize(
    "data",
    [
        b"",
        DESCRIBED.encode() + b" ",
        mutated(lambda d: d.update(more=1)),
        mutated(lambda d: d.pop("command")),
        mutated(lambda d: d.update(command=[])),
        mutated(lambda d: d.update(command=[7])),
        mutated(lambda d: d.update(routes=["anything"])),
        mutated(lambda d: d.update(routes=["anything", "chat"])),
        mutated(lambda d: d.update(executable="md5:0")),
        mutated(lambda d: d.update(parallel=0)),
    ],
)
def test_no_other_bytes_are_a_description(data: bytes) -> None:
    with pytest.raises(WireError):
        Description.parse(data)


# --- as an enclave attaches it ---------------------------------------------------------------------------------------


def wanted(description: bytes, engine: str = "vllm") -> Wanted:
    key, sink = AssetKey(bytes(range(32))), io.BytesIO()
    terms = Policy(uses=frozenset({"serve-llm"}), outputs={"report": OutputRule(ANY_PARTY, 1, 1, 1)})
    about = About("small", "model", "application/json", "lab", 1767225600, terms, reveal_digest=True)
    manifest = seal(io.BytesIO(description), sink, key=key, salt=bytes(32), about=about)
    model = {"engine": engine, "name": "lab/small", "role": "model"}
    parameters = serve_llm.read({**serve_llm.DEFAULTS, "models": [model]})
    released = SimpleNamespace(manifest=manifest, key=key)
    source = BytesSource(sink.getvalue())
    return Wanted(None, parameters, parameters.models[0], source, released, lambda _done: None)  # type: ignore[arg-type]


def test_an_enclave_attaches_what_the_contract_describes(fake: Fake, place: str) -> None:
    async def doing() -> None:
        started = await starting.starter({"lab/small": place})(wanted(DESCRIBED.encode()))
        assert started.weights == hashlib.sha256(DESCRIBED.encode()).digest()
        assert (await answers(started.engine, HELLO))[-1] == Counted(5, 2, 1)  # type: ignore[arg-type]
        await started.engine.close()

    run(doing())


def test_an_enclave_attaches_nothing_else(fake: Fake, place: str) -> None:
    other = replace(DESCRIBED, executable="sha256:" + "0" * 64).encode()
    for description, sidecars, error in (
        (DESCRIBED.encode(), {}, Unreachable),
        (other, {"lab/small": place}, ProgramNotApproved),
        (b"GGUF", {"lab/small": place}, WireError),
        (bytes(1 << 17), {"lab/small": place}, WireError),
    ):
        with pytest.raises(error):
            run(starting.starter(sidecars)(wanted(description)))
    assert fake.heard == []


def test_the_operator_says_where_it_listens() -> None:
    parser = ArgumentParser()
    arguments.declare(parser)
    parser.add_argument("--host", default="127.0.0.1")
    found = arguments.read(parser.parse_args(["--serve", "home", "--sidecar", "lab/small=unix:/a=b"]))
    assert found is not None
    assert found.sidecars == {"lab/small": "unix:/a=b"}
    with pytest.raises(Usage):
        arguments.read(parser.parse_args(["--serve", "home", "--sidecar", "unix:/a"]))
