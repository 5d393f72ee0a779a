"""The room on a real engine: llama.cpp in its sandboxed child, on sealed weights, behind the whole server."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator

import pytest

pytest.importorskip("xllamacpp", reason="engines need strongroom[chat]")
pytest.importorskip("gguf", reason="the tests' models are written by gguf, which is not installed")
if shutil.which("bwrap") is None:
    pytest.skip("the sandbox needs bubblewrap", allow_module_level=True)

from inference_world import MODEL, InferenceWorld
from llama_files import write
from strongroom.app.inference import starting
from strongroom.contract import ProgramRef
from strongroom.enclave import sandbox
from strongroom.errors import ProgramNotApproved
from strongroom.inference.verification import Reader
from strongroom.wire import digest
from test_inference_server import CHAT, PLAIN, running, verified

ASK = {"model": MODEL, "messages": [{"role": "user", "content": "the of and"}], "max_tokens": 8, "temperature": 0, "seed": 1}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write(tmp_path_factory.mktemp("model") / "tiny.gguf").read_bytes()


@pytest.fixture(params=[True, False], ids=["digest shown", "digest kept"])
def world(request: pytest.FixtureRequest, weights: bytes) -> Iterator[InferenceWorld]:
    few = {"context_tokens": 256, "max_tokens": 16, "parallel": 2}
    with InferenceWorld(
        serve=PLAIN, weights=weights, reveal=request.param, starter=starting.start, parameters=few, body_seconds=60.0
    ) as found:
        yield found


def program(world: InferenceWorld) -> ProgramRef:
    world.rooms.program_digest = lambda: sandbox.program_digest("serve-llm")
    return ProgramRef("serve-llm", sandbox.program_digest("serve-llm"), "serve-llm", world.parameters)


@running
async def test_real_weights_answer_and_the_receipt_names_them(world, weights, monkeypatch):
    monkeypatch.setattr("test_inference_server.WEIGHTS", weights)
    world.contract = world.agree(program=program(world))
    keeper = await world.open(world.contract)
    assert keeper.models[MODEL].weights.weights == digest(weights)
    body = json.dumps(ASK).encode()
    sealed, restored = await world.sealed(CHAT, body)
    (await verified(world, body, sealed, restored)).require(Reader.CLIENT)
    whole = restored.json
    assert whole["usage"]["completion_tokens"] == 8
    both = await asyncio.gather(*(world.ask(CHAT, {**ASK, "stream": True, "user": str(n)}) for n in range(2)))
    words = whole["choices"][0]["message"]["content"]
    assert [reply.text for reply in both] == [words, words]
    two = json.dumps({**ASK, "n": 2}).replace('"n":', '"\\u006e" :').encode()  # however it is spelled
    assert len((await world.ask(CHAT, two)).json["choices"]) == 2
    long = {**ASK, "messages": [{"role": "user", "content": "the of and " * 400}]}
    assert (await world.ask(CHAT, long)).code == "engine.prompt_too_long"
    await world.rooms.close()


@running
async def test_another_program_than_the_approved_one_is_not_started(world):
    ref = ProgramRef("serve-llm", digest(b"another"), "serve-llm", world.parameters)
    world.rooms.program_digest = lambda: ref.digest
    with pytest.raises(ProgramNotApproved):
        await world.open(world.agree(program=ref))
    assert world.rooms.current is None
