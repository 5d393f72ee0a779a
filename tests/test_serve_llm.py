"""The program ``serve-llm``: what a contract may say of it, and what its digest covers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from strongroom import programs
from strongroom.enclave import sandbox, sandbox_serving
from strongroom.errors import BadParameters, MissingExtra
from strongroom.programs import frames, serve_llm

MODEL = {"name": "example/small", "role": "model", "engine": "llama.cpp"}
PARAMETERS: dict[str, Any] = {**serve_llm.DEFAULTS, "models": [MODEL]}


def test_parameters_are_read() -> None:
    found = serve_llm.read(PARAMETERS | {"guard": "watch", "models": [MODEL, MODEL | {"name": "w", "role": "watch"}]})
    assert [model.name for model in found.models] == ["example/small", "w"]
    assert found.guard == "watch"
    assert (found.context_tokens, found.parallel, found.threads, found.max_tokens) == (4096, 8, 1, 1024)


@pytest.mark.parametrize(
    "change",
    [
        {"models": []},
        {"models": [MODEL] * 17},
        {"models": "model"},
        {"models": [MODEL, MODEL | {"role": "other"}]},  # one name twice: which one answers?
        {"models": [MODEL, MODEL | {"name": "other"}]},
        {"models": [MODEL | {"engine": "eval"}]},
        {"models": [MODEL | {"role": "a/b"}]},
        {"models": [MODEL | {"engine": ["llama.cpp"]}]},
        {"models": [MODEL | {"name": ""}]},
        {"models": [MODEL | {"name": "a b"}]},
        {"models": [MODEL | {"name": "a\n"}]},
        {"models": [MODEL | {"name": 3}]},
        {"models": [MODEL | {"role": "../model"}]},
        {"models": [MODEL | {"path": "/etc/passwd"}]},
        {"models": [{"name": "a", "role": "model"}]},
        {"context_tokens": 0},
        {"context_tokens": True},
        {"context_tokens": 1 << 21},
        {"context_tokens": "4096"},
        {"parallel": 0},
        {"parallel": 65},
        {"threads": 0},
        {"threads": 1.5},
        {"max_tokens": 4097},
        {"max_tokens": 0},
        {"guard": "nobody"},
        {"more": 1},
    ],
)
def test_parameters_that_no_room_could_use_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadParameters):
        serve_llm.check(PARAMETERS | change)


@pytest.mark.parametrize("missing", sorted(PARAMETERS))
def test_every_parameter_must_be_there(missing: str) -> None:
    with pytest.raises(BadParameters):
        serve_llm.check({name: value for name, value in PARAMETERS.items() if name != missing})


def test_each_model_has_a_role_of_its_own() -> None:
    two = PARAMETERS | {"models": [MODEL, MODEL | {"name": "b", "role": "second"}]}
    assert programs.roles("serve-llm", two) == {"model", "second"}
    assert programs.roles("serve-llm", PARAMETERS) == serve_llm.ROLES
    with pytest.raises(BadParameters):
        programs.roles("serve-llm", {})


def test_the_digest_covers_the_engine_and_the_reader_of_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    files = sandbox.read_sources("serve-llm")
    assert {"lm/llama.py", "lm/request.py", "programs/serving.py", "programs/boot.py", "errors.py"} <= set(files)
    digests = {sandbox.digest_of(files)}
    for changed in files:
        digests.add(sandbox.digest_of(files | {changed: files[changed] + "#"}))
    assert len(digests) == len(files) + 1


def test_it_is_served_and_not_run() -> None:
    with pytest.raises(BadParameters, match="served"):
        serve_llm.run({}, PARAMETERS, {}, lambda *_: None, lambda *_: None)


def test_a_program_that_is_run_is_not_served() -> None:
    with pytest.raises(BadParameters, match="run, and not served"):
        sandbox_serving.prepare("evaluate", "process", parts=(), libraries=(), tasks=0)


def test_an_engine_that_is_not_installed_is_named() -> None:
    with pytest.raises(MissingExtra, match="no_such_library"):
        sandbox_serving.prepare("serve-llm", "process", parts=(), libraries=("no_such_library",), tasks=0)


def test_a_serving_child_has_one_maker() -> None:
    with pytest.raises(TypeError):
        sandbox_serving.Serving(object(), "serve-llm", {}, kind="process", parts=(), tasks=0)


def test_a_proposer_loads_no_engine() -> None:
    code = "import sys; from strongroom.programs import load; load('serve-llm'); print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(ran.stdout.split()) & {"xllamacpp", "torch", "numpy", "strongroom.lm.llama"}


def test_the_frames_in_the_specification_are_frames() -> None:
    page = (Path(__file__).parents[1] / "spec" / "sandbox.md").read_text(encoding="utf-8")
    lines = [line.split()[1:] for line in page.splitlines() if line.startswith(("parent  51", "child   50 00"))]
    asked, said = (bytes.fromhex("".join(words)) for words in lines)
    seat = frames.SEAT_BODY.pack(0, False)
    assert asked == frames.frame(frames.QUESTION, frames.QUESTION_BODY.pack(1, 0, 1), seat, b"{}")
    assert said == frames.frame(frames.ANSWERS, b'[["t",1,0,"hi"],["e",1,3,1,0]]')


def test_the_parameters_in_the_specification_are_read() -> None:
    page = (Path(__file__).parents[1] / "spec" / "programs.md").read_text(encoding="utf-8")
    (line,) = (line for line in page.splitlines() if line.startswith('{"context_tokens"') and "llama.cpp" in line)
    assert serve_llm.read(json.loads(line)) == serve_llm.read(PARAMETERS)
