"""An engine in a child, seen from the half that asks: many questions at once, giving up, crashes, and children that lie."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("xllamacpp", reason="needs strongroom[chat]")
pytest.importorskip("gguf", reason="needs the package gguf, which writes the models")

import llama_files
from strongroom.app.inference import weights as weights_module
from strongroom.app.inference import worker
from strongroom.app.inference.sources import Held
from strongroom.app.inference.weights import Weights
from strongroom.app.inference.worker import Limits, Worker
from strongroom.enclave import sandbox_cgroup, sandbox_child, sandbox_serving
from strongroom.enclave.sandbox_child import BUBBLEWRAP, NAMESPACES, PROCESS, works
from strongroom.errors import (
    BadParameters,
    EngineBusy,
    EngineFailed,
    EngineRefused,
    ModelUnreadable,
    NoSandbox,
    ProgramNotApproved,
    PromptTooLong,
    StrongroomError,
)
from strongroom.lm.engine import Answer, Counted, Piece, Vectors
from strongroom.programs import serve_llm
from strongroom.programs.serve_llm import Source

LIMITS = Limits(memory_bytes=2 << 30)
GIVEN = {
    **serve_llm.DEFAULTS,
    "context_tokens": 512,
    "max_tokens": 512,
    "models": [{"engine": "llama.cpp", "name": "m", "role": "model"}],
    "parallel": 4,
}
PARAMETERS = serve_llm.read(GIVEN)
MANY = 30_000  # tokens: more than can be said before a process here that is slow takes note of the first
TALKING = serve_llm.read(GIVEN | {"context_tokens": 32_768, "max_tokens": MANY})
HELLO = {"model": "m", "messages": [{"role": "user", "content": "hello the world"}]}
NO_END = {"logit_bias": {"0": -100, "2": -100}}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    return Weights.of_file(llama_files.write(tmp_path_factory.mktemp("model") / "tiny.gguf"))


@asynccontextmanager
async def engine(
    weights: Weights,
    kind: str = PROCESS,
    limits: Limits = LIMITS,
    parameters: serve_llm.Parameters = PARAMETERS,
    **more: Any,
) -> AsyncIterator[Worker]:
    found = await worker.start(parameters, parameters.models[0], weights, limits, sandbox=kind, **more)
    try:
        yield found
    finally:
        await found.close()


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    shape = replace(llama_files.TINY, context=TALKING.context_tokens)
    return Weights.of_file(llama_files.write(tmp_path_factory.mktemp("model") / "talker.gguf", shape))


@contextmanager
def held_up(found: Worker) -> Iterator[None]:
    """Meanwhile the child does nothing: what is asked stays open, however slow this process is."""
    assert found._life is not None
    pid = found._life.child.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def encoded(body: dict[str, Any]) -> bytes:
    return json.dumps(body).encode()


async def answers(of: Worker, body: dict[str, Any], route: Any = "chat", **more: Any) -> list[Answer]:
    async with aclosing(of.ask(route, encoded(body), **more)) as found:
        return [answer async for answer in found]


def words(said: list[Answer]) -> str:
    return "".join(part.delta.get("content", "") for part in said if isinstance(part, Piece))


def run(doing: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(120):
            await doing

    asyncio.run(bounded())


async def until(what: Callable[[], bool]) -> None:
    while not what():  # noqa: ASYNC110 - what is waited for tells nobody
        await asyncio.sleep(0.01)


# --- questions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [BUBBLEWRAP, NAMESPACES, PROCESS])
def test_it_answers_in_every_sandbox(weights: Weights, kind: str) -> None:
    if kind != PROCESS and not works(kind):
        pytest.skip(f"{kind} cannot be had on this machine")

    async def doing() -> None:
        async with engine(weights, kind, embeds=True) as found:
            assert found.kind == kind
            assert found.about.routes == {"chat", "completions", "embeddings"}
            said = await answers(found, HELLO | NO_END | {"max_tokens": 9})
            assert said[-1] == Counted(30, 9, 0)
            assert isinstance(said[-2], Piece)
            assert said[-2].finish == "length"
            text = await answers(found, {"model": "m", "prompt": "the"} | NO_END | {"max_tokens": 3}, "completions")
            assert text[-1] == Counted(3, 3, 0)
            vectors, counted = await answers(found, {"model": "m", "input": ["a", "b"] * 40}, "embeddings")
            assert isinstance(vectors, Vectors)
            assert [len(v) for v in vectors.vectors] == [64] * 80
            assert counted == Counted(80)

    run(doing())


def test_many_questions_at_once_each_get_their_own_answer(weights: Weights) -> None:
    async def doing() -> None:
        async with engine(weights) as found:
            bodies = [HELLO | NO_END | {"max_tokens": 30, "seed": n} for n in range(12)]
            alone = [words(await answers(found, body)) for body in bodies]
            together = await asyncio.gather(*(answers(found, body) for body in bodies))
            assert [words(said) for said in together] == alone
            assert all(said[-1] == Counted(30, 30, 0) for said in together)
            assert found.busy == (0, 0)

    run(doing())


def test_several_choices_of_one_question(weights: Weights) -> None:
    async def doing() -> None:
        async with engine(weights) as found:
            said = await answers(found, HELLO | NO_END | {"max_tokens": 8, "n": 3, "seed": 5})
            pieces = [part for part in said if isinstance(part, Piece)]
            assert {part.index for part in pieces} == {0, 1, 2}
            assert sorted(part.index for part in pieces if part.finish) == [0, 1, 2]
            assert said[-1] == Counted(30, 24, 0)
            with pytest.raises(EngineRefused, match="at once"):
                await answers(found, HELLO | {"n": 5})

    run(doing())


def test_what_one_asker_said_speeds_up_no_other(weights: Weights) -> None:
    """Whether a prompt is answered sooner would tell who asked something like it before."""

    async def doing() -> None:
        async with engine(weights) as found:
            for asker, cached in ((b"a", 0), (b"b", 0), (None, 0), (b"a", 29), (b"b", 29), (None, 0), (b"c", 0)):
                said = await answers(found, HELLO | {"max_tokens": 1}, scope=asker)
                assert said[-1].cached_tokens == cached  # type: ignore[union-attr]

    run(doing())


def test_a_prompt_that_is_too_long_is_refused_and_its_seat_is_free_again(weights: Weights) -> None:
    async def doing() -> None:
        async with engine(weights) as found:
            for _ in range(6):
                with pytest.raises(PromptTooLong, match="room for 512"):
                    await answers(found, HELLO | {"messages": [{"role": "user", "content": "hello " * 900}]})
            with pytest.raises(PromptTooLong):
                await answers(found, HELLO | {"messages": [{"role": "user", "content": "x" * (8 << 20)}]})
            assert found.busy == (0, 0)

    run(doing())


def test_a_route_that_was_not_agreed_is_refused(weights: Weights) -> None:
    async def doing() -> None:
        async with engine(weights) as found:
            with pytest.raises(EngineRefused, match="kind of request"):
                await answers(found, {"model": "m", "input": ["a"]}, "embeddings")

    run(doing())


def test_too_many_questions_are_refused_and_not_kept(weights: Weights) -> None:
    async def doing() -> None:
        async with engine(weights, limits=Limits(memory_bytes=2 << 30, waiting=2)) as found:
            long = HELLO | NO_END | {"max_tokens": 480}
            with held_up(found):
                tasks = [asyncio.create_task(answers(found, long)) for _ in range(6)]
                await until(lambda: found.busy == (4, 2))
                with pytest.raises(EngineBusy):
                    await answers(found, long)
            for said in await asyncio.gather(*tasks):
                assert said[-1] == Counted(30, 480, 0)

    run(doing())


# --- giving up ------------------------------------------------------------------------------------------------------


def test_a_question_that_is_given_up_leaves_its_seat_and_is_counted(talker: Weights) -> None:
    async def doing() -> None:
        async with engine(talker, parameters=TALKING) as found:
            for _ in range(5):
                given_up = found.ask("chat", encoded(HELLO | NO_END | {"max_tokens": MANY}))
                async for _ in given_up:
                    break
                await given_up.aclose()
                assert found.busy == (0, 0)
                assert given_up.counted.prompt_tokens == 30
                assert 1 <= given_up.counted.completion_tokens < MANY
                assert [part async for part in given_up] == []
                await given_up.aclose()

    run(doing())


def test_a_client_that_goes_away_frees_the_seat(weights: Weights) -> None:
    async def doing() -> None:
        async with engine(weights) as found:
            with held_up(found):
                tasks = [asyncio.create_task(answers(found, HELLO | NO_END | {"max_tokens": 480})) for _ in range(8)]
                await until(lambda: found.busy == (4, 4))
                for task in tasks:
                    task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await until(lambda: found.busy == (0, 0))
            assert (await answers(found, HELLO | NO_END | {"max_tokens": 2}))[-1] == Counted(30, 2, 0)

    run(doing())


def test_a_question_that_was_never_asked_can_be_closed(weights: Weights) -> None:
    async def doing() -> None:
        async with engine(weights) as found:
            question = found.ask("chat", encoded(HELLO))
            await question.aclose()
            assert question.counted == Counted(0)

    run(doing())


def test_a_client_that_stops_reading_holds_up_nobody(weights: Weights) -> None:
    async def doing() -> None:
        async with engine(weights) as found:
            slow = found.ask("chat", encoded(HELLO | NO_END | {"max_tokens": 400}))
            await anext(slow)
            for _ in range(3):
                await answers(found, HELLO | NO_END | {"max_tokens": 100})
            await until(lambda: found.busy == (0, 0))
            rest = [part async for part in slow]
            assert rest[-1] == Counted(30, 400, 0)
            assert len(rest) < 20  # what came meanwhile is one piece

    run(doing())


def test_a_question_that_takes_too_long_fails(weights: Weights) -> None:
    async def doing() -> None:
        async with engine(weights, limits=Limits(memory_bytes=2 << 30, question_seconds=0.0)) as found:
            question = found.ask("chat", encoded(HELLO | NO_END | {"max_tokens": 480}))
            await anext(question)
            number = question.number
            question.deadline = 0.0  # as the look finds it
            found.give_up(question)
            with pytest.raises(EngineFailed, match="longer than"):
                async for _ in question:
                    pass
            assert number not in found._open

    run(doing())


# --- crashes --------------------------------------------------------------------------------------------------------


def test_a_crash_in_mid_stream_fails_what_is_open_and_it_is_started_again(talker: Weights) -> None:
    async def doing() -> None:
        async with engine(talker, parameters=TALKING) as found:
            long = HELLO | NO_END | {"max_tokens": MANY}
            cut = [found.ask("chat", encoded(long)) for _ in range(4)]
            for question in cut:
                await anext(question)
            with held_up(found):  # so that nothing is answered before it dies
                waiting = asyncio.create_task(answers(found, long | {"max_tokens": 5}))
                await until(lambda: found.busy == (4, 1))
                assert found._life is not None
                os.kill(found._life.child.pid, signal.SIGKILL)
            for question in cut:
                with pytest.raises(EngineFailed):
                    async for _ in question:
                        pass
            assert (await waiting)[-1] == Counted(30, 5, 0)  # what only waited is asked of the next child
            assert found.restarts == 1

    run(doing())


def test_a_model_that_cannot_be_loaded_is_said_at_once(tmp_path: Path) -> None:
    path = tmp_path / "none.gguf"
    path.write_bytes(b"GGUF" + bytes(100))

    async def doing() -> None:
        with pytest.raises(ModelUnreadable):
            async with engine(Weights.of_file(path)):
                pass

    run(doing())


def test_another_program_than_the_contract_names_gets_no_weights(weights: Weights) -> None:
    async def doing() -> None:
        with pytest.raises(ProgramNotApproved):
            async with engine(weights, program="sha256:" + "0" * 64):
                pass

    run(doing())


def test_a_wall_that_was_agreed_and_does_not_stand_gets_no_weights(
    weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox_cgroup, "make", lambda _: None)

    async def doing() -> None:
        with pytest.raises(NoSandbox, match="cgroup-memory"):
            async with engine(weights, PROCESS, walls=("cgroup-memory",)):
                pass

    run(doing())


def test_a_sidecar_is_attached_and_not_started(weights: Weights) -> None:
    async def doing() -> None:
        model = serve_llm.Model("m", "model", "vllm")
        with pytest.raises(BadParameters, match="attached"):
            await worker.start(PARAMETERS, model, weights, LIMITS, sandbox=PROCESS)

    run(doing())


def test_once_closed_it_answers_nothing(weights: Weights) -> None:
    async def doing() -> None:
        async with engine(weights) as found:
            assert found._life is not None
            os.kill(found._life.child.pid, signal.SIGSTOP)  # so that it is still open then
            task = asyncio.create_task(answers(found, HELLO | NO_END | {"max_tokens": 480}))
            await until(lambda: found.busy == (1, 0))
            await found.close()
            with pytest.raises(EngineFailed):
                await task
            with pytest.raises(EngineFailed, match="does not run"):
                await answers(found, HELLO)
            await found.close()

    run(doing())


# --- children that lie ----------------------------------------------------------------------------------------------

HOSTILE = """
import json, os, socket, struct, sys, time
from strongroom.programs import frames

def load(outputs):
    pass

def frame(kind, body=b""):
    return struct.pack(">cI", kind, len(body)) + body

def receive(channel):
    head = b""
    while len(head) < 5:
        piece = channel.recv(5 - len(head))
        if not piece:
            os._exit(0)
        head += piece
    size = int.from_bytes(head[1:], "big")
    body = b""
    while len(body) < size:
        body += channel.recv(size - len(body))
    return head[:1], body

ABOUT = {"context_tokens": 512, "embedding_size": 2, "engine": "hostile", "parallel": 2,
         "routes": ["chat", "completions", "embeddings"]}

def serve(channel):
    RECEIVES
    say = lambda *entries: channel.sendall(frame(b"P", json.dumps(entries).encode()))
    about = dict(ABOUT)
    BEFORE
    channel.sendall(frame(b"B", json.dumps(about).encode()))
    while True:
        kind, body = receive(channel)
        if kind == b"Q":
            number = int.from_bytes(body[:4], "big")
            BODY
"""


WITH_WEIGHTS = "WEIGHTS = socket.recv_fds(channel, 5, 1)[1][0]; channel.recv(1 << 16)"


def hostile(
    body: str = "pass", before: str = "pass", receives: str = "receive(channel)"
) -> Callable[[], sandbox_serving.Serving]:
    text = HOSTILE.replace("RECEIVES", receives).replace("BEFORE", textwrap.indent(textwrap.dedent(before), "    ").strip())
    text = text.replace("BODY", textwrap.indent(textwrap.dedent(body), " " * 12).strip())
    names = ("__init__", "boot", "frames", "runner", "window")
    frame = ("errors.py", *(f"programs/{name}.py" for name in names))
    files = {file: sandbox_child.source(file) for file in frame} | {"programs/hostile.py": text}
    return lambda: sandbox_serving._start("hostile", files, PROCESS, (), 0)


@asynccontextmanager
async def lying(weights: Weights, limits: Limits = LIMITS, held: Held | None = None, **more: str) -> AsyncIterator[Worker]:
    found = Worker(hostile(**more), {"max_tokens": 4}, weights, limits, (512, 2), held=held)
    try:
        await found.start()
        yield found
    finally:
        await found.close()


LIES = {
    "no JSON": 'channel.sendall(frame(b"P", b"{"))',
    "no list": 'channel.sendall(frame(b"P", b"7"))',
    "no entry": "say(7)",
    "an empty entry": "say([])",
    "an entry of no kind": 'say(["z", number])',
    "another's question": 'say(["t", number + 1, 0, "x"])',
    "a choice that was not asked for": 'say(["t", number, 1, "x"])',
    "a choice that is true": 'say(["t", number, True, "x"])',
    "text that is a number": 'say(["t", number, 0, 7])',
    "half a character": 'say(["t", number, 0, "\\ud800"])',
    "half a character deep inside": 'say(["p", number, 0, {"tool_calls": [{"id": "\\ud800"}]}, None, None])',
    "a member that no chunk has": 'say(["p", number, 0, {"role": "system"}, None, None])',
    "a finish that there is not": 'say(["p", number, 0, {}, "victory", None])',
    "content that is a list": 'say(["p", number, 0, {"content": ["x"]}, None, None])',
    "logprobs that are text": 'say(["p", number, 0, {}, None, "x"])',
    "logprobs that are no number": 'say(["p", number, 0, {}, None, {"content": [float("nan")]}])',
    "nested beyond measure": 'say(["p", number, 0, {"tool_calls": json.loads("[" * 90 + "]" * 90)}, None, None])',
    "a count below nought": 'say(["e", number, -1, 0, 0])',
    "a count that is a fraction": 'say(["e", number, 1.5, 0, 0])',
    "too few counts": 'say(["e", number, 1])',
    "ended twice": 'say(["e", number, 1, 1, 0], ["e", number, 1, 1, 0])',
    "an error of another family": 'say(["f", number, "broker.refused", [], 0, 0, 0])',
    "a reason of its own": 'say(["f", number, "engine.refused", ["SECRET"], 0, 0, 0])',
    "a frame of no type": 'channel.sendall(frame(b"Z"))',
    "a frame of the parent's": 'channel.sendall(frame(b"Q", b"x" * 20))',
    "a frame that is too long": 'channel.sendall(struct.pack(">cI", b"P", 1 << 30))',
    "ready twice": 'channel.sendall(frame(b"Y"))',
    "about twice": 'channel.sendall(frame(b"B", json.dumps(ABOUT).encode()))',
    "failed after all": 'channel.sendall(frame(b"F", b"{}"))',
    "vectors of a chat": 'channel.sendall(frame(b"V", struct.pack(">IIH2f", number, 2, 1, 1, 1)))',
    "vectors that are cut": 'channel.sendall(frame(b"V", b"1"))',
    "an end without a word": "os._exit(0)",
    "an end by a fault": "os.abort()",
}


@pytest.mark.parametrize("lie", LIES, ids=lambda name: name.replace(" ", "-"))
def test_a_child_that_lies_is_ended_and_its_questions_fail(weights: Weights, lie: str) -> None:
    async def doing() -> None:
        async with lying(weights, body=LIES[lie]) as found:
            with pytest.raises(EngineFailed) as caught:
                said = await answers(found, HELLO)
                if lie == "ended twice":  # the first end was good
                    assert said == [Counted(1, 1, 0)]
                    await until(lambda: found.restarts == 1)
                    raise EngineFailed("as it must")
            assert "SECRET" not in str(caught.value)

    run(doing())


DRAWS_LIES = {
    "text, and no row": 'say(["t", number, 0, "x"], ["e", number, 1, 1, 0])',
    "text before its row": 'say(["t", number, 0, "x"], ["d", number, [1]], ["e", number, 1, 1, 0])',
    "content, and no row": 'say(["p", number, 0, {"content": "x"}, None, None], ["e", number, 1, 1, 0])',
    "fewer rows than tokens": 'say(["d", number, [1]], ["t", number, 0, "xy"], ["e", number, 1, 2, 0])',
    "more rows than tokens": 'say(["d", number, [1]], ["d", number, [1]], ["t", number, 0, "x"], ["e", number, 1, 1, 0])',
    "tokens, and no row": 'say(["p", number, 0, {}, "stop", None], ["e", number, 1, 1, 0])',
}


def law() -> Held:
    said = Source("law", "law", "sha256:" + "0" * 64, 1, "credit", 1024, 4096)
    return Held([], {"law": said}, {"law": []}, frozenset({"law"}))


@pytest.mark.parametrize("lie", DRAWS_LIES, ids=lambda name: name.replace(" ", "-"))
def test_a_child_that_does_not_say_what_each_token_drew_gets_no_receipt_without_a_source(weights: Weights, lie: str) -> None:
    async def doing() -> None:
        async with lying(weights, held=law(), body=DRAWS_LIES[lie]) as found:
            with pytest.raises(EngineFailed):
                await answers(found, HELLO)
            await until(lambda: found.restarts == 1)

    run(doing())


def test_a_child_that_says_what_each_token_drew_is_believed(weights: Weights) -> None:
    rows = (
        'say(["d", number, [1]], ["t", number, 0, "x"], ["d", number, [0]], ["t", number, 0, "y"], ["e", number, 1, 2, 0])'
    )

    async def doing() -> None:
        async with lying(weights, held=law(), body=rows) as found:
            question = found.ask("chat", encoded(HELLO))
            assert [piece async for piece in question][-1] == Counted(1, 2, 0)
            assert question.draws is not None
            assert question.draws.rows == [[1, 0]]

    run(doing())


def test_vectors_of_another_length_than_said_end_the_child(weights: Weights) -> None:
    async def doing() -> None:
        body = 'channel.sendall(frame(b"V", struct.pack(">IIH3f", number, 3, 1, 1, 1, 1)))'
        async with lying(weights, body=body) as found:
            with pytest.raises(EngineFailed):
                await answers(found, {"model": "m", "input": ["a"]}, "embeddings")

    run(doing())


def test_a_child_that_floods_is_ended(weights: Weights) -> None:
    async def doing() -> None:
        body = 'while True: say(["t", number, 0, "x" * 1000000])'
        async with lying(weights, body=body) as found:
            question = found.ask("chat", encoded(HELLO))
            await anext(question)  # and never again
            await until(lambda: found.restarts >= 1)
            with pytest.raises(EngineFailed):
                async for _ in question:
                    pass

    run(doing())


def test_who_does_not_read_loses_an_answer_and_nobody_another(weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_MAX_UNREAD", 1000)
    body = """
    say(*[["t", number, 0, "x" * 10]] * 10)
    if b"slow" in body:
        say(*[["t", number, 0, "x" * 100]] * 20)
        receive(channel)
    say(["e", number, 7, 9, 0])
    """

    async def doing() -> None:
        async with lying(weights, body=body) as found:
            slow = found.ask("chat", encoded({"model": "slow", "messages": []}))

            async def reading() -> None:
                await anext(slow)  # where all of it came at once, it is too late already
                await until(lambda: found.busy == (0, 0))
                await anext(slow)

            with pytest.raises(EngineFailed, match="not read"):
                await reading()
            assert [part async for part in slow] == []
            assert slow.counted == Counted(7, 9, 0)
            assert words(await answers(found, HELLO)) == "x" * 100
            assert found.restarts == 0

    run(doing())


def test_a_long_answer_that_is_read_as_it_comes_is_not_too_much(weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_MAX_UNREAD", 1000)

    async def doing() -> None:
        async with lying(weights) as found:
            question = worker.Question(found, "chat", b"", None)
            question._asked = True
            for _ in range(50):  # there is always something that nobody took yet
                question.text(0, "x" * 400)
                question.piece(Piece({"content": "y"}, 1), 1)
                question.text(0, "z" * 400)
                assert [await anext(question) for _ in range(2)]
                assert await anext(question)
            assert question._unread == 0

    run(doing())


def test_an_answer_that_a_crash_cuts_is_counted_as_far_as_it_came(weights: Weights) -> None:
    async def doing() -> None:
        async with lying(weights, body='say(*[["t", number, 0, "x"]] * 3); os._exit(1)') as found:
            question = found.ask("chat", encoded(HELLO))
            with pytest.raises(EngineFailed):
                async for _ in question:
                    pass
            assert question.counted == Counted(0, 3, 0)

    run(doing())


@pytest.mark.parametrize(
    "before",
    [
        "about['parallel'] = 3",
        "about['parallel'] = 1",
        "about['parallel'] = 2**40",
        "about['context_tokens'] = 513",
        "about['embedding_size'] = 2**17",
        "about['engine'] = 'x' * 200",
        "about['engine'] = 'a\\nb'",
        "about['routes'] = ['anything']",
        "about['routes'] = []",
        "about['parallel'] = -1",
        "about['parallel'] = '2'",
        "about['more'] = 1",
        "del about['engine']",
        "say(['t', 1, 0, 'x'])",
        "channel.sendall(frame(b'F', b'x'))",
        "channel.sendall(frame(b'Y'))",
        "os._exit(3)",
    ],
)
def test_a_child_that_lies_of_itself_is_not_used(weights: Weights, before: str) -> None:
    async def doing() -> None:
        with pytest.raises(StrongroomError):
            async with lying(weights, before=before):
                pass

    run(doing())


def test_a_child_that_says_nothing_for_too_long_is_ended(weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_LOOK_SECONDS", 0.01)

    async def doing() -> None:
        limits = Limits(memory_bytes=2 << 30, stall_seconds=0.05)
        async with lying(weights, limits, body="pass") as found:
            with pytest.raises(EngineFailed):
                await answers(found, HELLO)

    run(doing())


def test_a_child_that_takes_too_much_memory_is_ended(weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_LOOK_SECONDS", 0.01)

    async def doing() -> None:
        limits = Limits(memory_bytes=32 << 20)
        async with lying(weights, limits, body="x = bytearray(b'x') * (128 << 20); time.sleep(60)") as found:
            with pytest.raises(EngineFailed):
                await answers(found, HELLO)

    run(doing())


def test_a_child_that_never_gets_ready_is_ended(weights: Weights) -> None:
    async def doing() -> None:
        with pytest.raises(EngineFailed, match="too long"):
            async with lying(weights, Limits(memory_bytes=1 << 30, start_seconds=0.3), before="time.sleep(60)"):
                pass

    run(doing())


def test_a_child_that_always_ends_is_started_again_only_so_often(weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "MAX_RESTARTS", 1)

    async def doing() -> None:
        async with lying(weights, body="os._exit(0)") as found:
            for _ in range(2):
                with pytest.raises(EngineFailed):
                    await answers(found, HELLO)
            await until(lambda: not found.alive)
            with pytest.raises(EngineFailed, match="does not run"):
                await answers(found, HELLO)

    run(doing())


def test_an_engine_that_was_left_alone_is_started_again_later(weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [worker._rest(n) for n in (1, 2, 5, 6, 7, 40)] == [0.0, 1.0, 8.0, 60.0, 120.0, 1800.0]
    monkeypatch.setattr(worker, "MAX_RESTARTS", 0)
    monkeypatch.setattr(worker, "REST_SECONDS", 0.01)

    async def doing() -> None:
        async with lying(weights, body="os._exit(0) if b'bad' in body else say(['e', number, 1, 1, 0])") as found:
            for _ in range(3):
                with pytest.raises(EngineFailed):
                    await answers(found, {"model": "bad", "messages": []})
                await until(lambda: found.alive)
            assert await answers(found, HELLO) == [Counted(1, 1, 0)]
            assert found._failures == 0

    run(doing())


# --- weights --------------------------------------------------------------------------------------------------------


def test_a_child_cannot_change_the_weights(weights: Weights) -> None:
    before = os.pread(weights.descriptor, weights.size, 0)
    body = """
    said = "none"
    try:
        import mmap
        mmap.mmap(WEIGHTS, 4096)[0:1] = b"x"
    except (OSError, ValueError) as error:
        said = type(error).__name__
    try:
        os.pwrite(WEIGHTS, b"x", 0)
        said += " written"
    except OSError as error:
        said += " " + type(error).__name__
    say(["t", number, 0, said], ["e", number, 1, 1, 0])
    """

    async def doing() -> None:
        found = Worker(hostile(body, receives=WITH_WEIGHTS), {}, weights, LIMITS, (512, 2))
        try:
            await found.start()
            assert words(await answers(found, HELLO)) == "PermissionError PermissionError"
        finally:
            await found.close()

    run(doing())
    assert os.pread(weights.descriptor, weights.size, 0) == before


def test_weights_lie_on_no_disk_and_nobody_writes_to_them(weights: Weights) -> None:
    assert os.readlink(f"/proc/self/fd/{weights.descriptor}").startswith("/memfd:")
    with pytest.raises(PermissionError):
        os.pwrite(weights.descriptor, b"x", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(weights.descriptor, 0)


def test_weights_are_locked_into_memory_where_that_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"x" * 65536)
    script = """
import resource, sys
from strongroom.app.inference.sources import Held
from strongroom.app.inference.weights import Weights
def locked():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmLck")).split()[1])
most = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
found = Weights.of_file(sys.argv[1])
assert found.locked == (locked() == 64), (found.locked, locked())
assert found.locked or 0 <= most < 65536
found.close()
assert locked() == 0 and not found.locked
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "w")], check=True)


def test_weights_that_may_not_be_locked_are_there_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "w").write_bytes(b"x" * 65536)
    monkeypatch.setattr(
        weights_module, "_libc", SimpleNamespace(mmap=lambda *_: 4096, mlock=lambda *_: -1, munmap=lambda *_: 0)
    )
    found = Weights.of_file(tmp_path / "w")
    assert not found.locked
    assert os.pread(found.descriptor, 3, 0) == b"xxx"
    found.close()
    monkeypatch.setattr(weights_module, "_libc", SimpleNamespace(mmap=lambda *_: ctypes.c_void_p(-1).value))
    assert not Weights.of_file(tmp_path / "w").locked


def test_weights_have_two_makers_and_can_be_let_go_of(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        Weights(object(), 0, 0)
    (tmp_path / "empty").write_bytes(b"")
    found = Weights.of_file(tmp_path / "empty")
    found.close()
    found.close()
    with pytest.raises(ValueError, match="let go"):
        _ = found.descriptor
