"""`strongroom up --chat` and `strongroom serve`, whole: processes, a sealed model in its sandbox, a proxy before it.

The model has random weights: what it says means nothing, and how it is said, sealed and receipted is what counts.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from stage import call
from strongroom import errors
from strongroom.app.cli import serving, standing
from strongroom.app.client.answer import Answer
from strongroom.app.client.draft import models_of
from strongroom.serving import ROUTES, Serving

pytest.importorskip("xllamacpp", reason="strongroom[chat] is not installed")
pytest.importorskip("gguf", reason="the extra `dev` is not installed")

CHAT = "/v1/chat/completions"


# --- what is said of serving ------------------------------------------------------------------------------------------


def flags(*words: str) -> Any:
    from argparse import ArgumentParser

    parser = ArgumentParser()
    standing.declare(parser)
    return parser.parse_args(words)


def test_what_is_not_said_is_not_served() -> None:
    assert standing.said(flags()) is None
    with pytest.raises(errors.Usage):
        standing.said(flags("--lease", "600"))


def test_what_is_said_stands_beside_what_is_usual() -> None:
    assert standing.said(flags("--serve", ",".join(ROUTES))) == standing.USUAL
    found = standing.said(
        flags("--serve", "chat", "--lease", "600", "--padding", "0", "--input-guard", "pii", "--plain-bodies")
    )
    assert found == Serving(
        frozenset({"chat"}),
        lease_s=600,
        padding=0,
        retention_s=standing.DAY,
        input_guards=frozenset({"pii"}),
        plain_bodies=True,
    )
    assert standing.said(flags("--retention", "0"), found).retention_s == 0
    assert standing.said(flags("--retention", "0"), found).lease_s == 600


@pytest.mark.parametrize(
    "words", [("--serve", "poetry"), ("--serve", "chat", "--lease", "1"), ("--serve", "chat", "--padding", "3")]
)
def test_what_no_policy_can_hold(words: tuple[str, ...]) -> None:
    with pytest.raises(errors.Usage):
        standing.said(flags(*words))


def test_models_are_called_by_owner_and_name_with_the_engine_of_their_kind() -> None:
    class Manifest:
        def __init__(self, name: str, media_type: str) -> None:
            self.owner, self.name, self.media_type, self.drawing = "lab", name, media_type, None

    assets: Any = {"two": Manifest("b", "application/x-tar"), "one": Manifest("a.gguf", "application/vnd.gguf")}
    assert models_of(assets) == [
        {"engine": "llama.cpp", "name": "lab/a.gguf", "role": "one"},
        {"engine": "transformers", "name": "lab/b", "role": "two"},
    ]


def test_without_an_embedded_model_a_file_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "EMBEDDED", tmp_path)
    with pytest.raises(errors.Usage, match="no model is part"):
        serving.model_file(None)
    (tmp_path / "small.gguf").write_bytes(b"GGUF")
    assert serving.model_file(None) == tmp_path / "small.gguf"
    with pytest.raises(errors.NotFound):
        serving.model_file(tmp_path / "none.gguf")


# --- everything on one machine ----------------------------------------------------------------------------------------


@dataclass
class Up:
    """Somebody in a folder who typed `strongroom up --chat --model …`."""

    cwd: Path
    process: subprocess.Popen[str]
    said: dict[str, str]

    @property
    def base(self) -> str:
        return self.said["OpenAI base_url"].removesuffix("/v1")

    @property
    def contract(self) -> str:
        return self.said["contract"]


def _up(cwd: Path) -> Up:
    with (cwd / "up.err").open("w") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "strongroom", "up", "--chat", "--model", "model.gguf"],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
        )
    assert process.stdout
    said: dict[str, str] = {}
    for line in process.stdout:
        about, text = line[2:25].strip(), line[26:].strip()
        said[about] = text
        if about == "OpenAI base_url":
            return Up(cwd, process, said)
    process.communicate(timeout=60)
    raise AssertionError((cwd / "up.err").read_text())


def _down(up: Up) -> None:
    up.process.terminate()
    up.process.communicate(timeout=60)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    from llama_files import write

    cwd = tmp_path_factory.mktemp("chat")
    write(cwd / "model.gguf")
    found = _up(cwd)
    yield found
    _down(found)


@pytest.mark.slow
def test_the_official_client_talks_to_a_sealed_model(up: Up) -> None:
    openai = pytest.importorskip("openai", reason="the extra `dev` is not installed")
    assert up.said["the operator sees"] == "nothing"
    with openai.OpenAI(base_url=f"{up.base}/v1", api_key="unused", max_retries=0) as client:
        (model,) = [one.id for one in client.models.list()]
        assert model == "owner/model"
        said = [{"role": "user", "content": "How do cells divide?"}]
        chat = client.chat.completions.create(model=model, messages=said, max_tokens=8)
        assert chat.usage.completion_tokens <= 8
        stream = client.chat.completions.create(model=model, messages=said, max_tokens=8, stream=True)
        assert [chunk.choices[0].finish_reason for chunk in stream if chunk.choices][-1] in ("length", "stop")
        assert len(client.embeddings.create(model=model, input=["Cells", "divide"]).data) == 2
    line, ends = f"simulated   {CHAT} owner/model, ", time.monotonic() + 30
    while (up.cwd / "up.err").read_text().count(line) < 2:  # it is written once the answer has gone
        assert time.monotonic() < ends
        time.sleep(0.05)


@pytest.mark.slow
def test_the_chat_page_is_told_whom_to_verify(up: Up) -> None:
    with httpx.Client(base_url=up.base) as client:
        config = client.get("/config.json").json()
        assert (config["base"], config["served_by"], config["contract"]) == ("/raw", "proxy", up.contract)
        assert client.get("/raw/v1/room").json()["contract_digest"] == up.contract
        assert client.get("/raw/v1/models").json()["data"][0]["id"] == "owner/model"


@pytest.mark.slow
def test_a_party_opens_the_room_anew_and_nobody_has_to_begin_again(up: Up, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(up.cwd)
    asked = {"model": "owner/model", "messages": [{"role": "user", "content": "Again?"}], "max_tokens": 4}
    with httpx.Client(base_url=up.base, timeout=60) as client:
        assert client.post(CHAT, json=asked).status_code == 200
        sealed = next((up.cwd / "room" / "served").glob("*.sealed"))
        said = call("serve", sealed, "--contract", up.contract[:19], "--as", "owner", "--spares", 1, "--json")
        assert said.status == 0, said.err
        assert said.json["contract"] == up.contract
        assert client.post(CHAT, json=asked).status_code == 200  # the proxy verified the new keys by itself
    status = call("status", "--as", "owner", "--json").json
    assert status["unreceipted"] == []  # a room that stays open is no run without a receipt


@pytest.mark.slow
def test_another_proxy_keeps_answers_that_are_verified_offline(up: Up, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(up.cwd)
    enclave = json.loads((up.cwd / "room" / "config.json").read_bytes())["enclave"]
    command = ["proxy", enclave, "--contract", up.contract, "--as", "user", "--keep", "kept", "--port", "0", "--announce"]
    process = subprocess.Popen(
        [sys.executable, "-m", "strongroom", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin
    assert process.stdout
    url = json.loads(process.stdout.readline())["url"]
    asked = {"model": "owner/model", "messages": [{"role": "user", "content": "Kept?"}], "max_tokens": 4}
    httpx.post(f"{url}{CHAT}", json=asked, timeout=60).raise_for_status()
    process.stdin.close()
    process.wait(30)
    process.stdout.close()
    (kept,) = (up.cwd / "kept").iterdir()
    assert b"Kept?" in Answer.parse(kept.read_bytes()).request
    said = call("verify", kept, "--as", "user")
    assert said.status == 0, said.err
    assert "verified: 19 of 20 checks passed" in said.out


@pytest.mark.slow
def test_a_second_start_takes_up_what_was_sealed_and_agreed(up: Up) -> None:
    _down(up)
    again = _up(up.cwd)
    up.process = again.process
    up.said.update(again.said)
    assert "sealed" not in again.said
    assert again.contract == up.contract
    assert len(list((up.cwd / "room" / "served").glob("*.sealed"))) == 1
