"""llama.cpp inside its child, asked directly: what it says of a model, and what it makes of requests."""

from __future__ import annotations

import io
import json
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("xllamacpp", reason="needs strongroom[chat]")
pytest.importorskip("gguf", reason="needs the package gguf, which writes the models")

import llama_files
from strongroom.errors import EngineFailed, EngineRefused, ModelUnreadable, PromptTooLong
from strongroom.lm import gguf, llama
from strongroom.lm.engine import Counted
from strongroom.lm.llama import Llama
from strongroom.lm.request import read
from strongroom.lm.seated import REASONS, WORDS, Seat, refused, too_long

HELLO = {"model": "m", "messages": [{"role": "user", "content": "hello the world"}]}
NO_END = {"logit_bias": {"0": -100, "2": -100}}
# Tokens of letters alone: chance may otherwise say three that are each a part of a character.
ONLY_WORDS = {"logit_bias": {str(n): 100 for n in range(len(llama_files.SPECIALS) + 256, len(llama_files.SPECIALS) + 272)}}
FRESH = Seat(0, kept=False)
BAD_FORM = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "SECRET"}}}


class Said:
    """Takes an answer; gives it up after so many words."""

    def __init__(self, most: int = 1 << 30) -> None:
        self.texts: list[str] = []
        self.pieces: list[tuple[dict[str, Any], str | None, Any]] = []
        self._most = most

    def text(self, text: str) -> bool:
        self.texts.append(text)
        return len(self.texts) >= self._most

    def piece(self, delta: dict[str, Any], finish: str | None, logprobs: dict[str, Any] | None) -> bool:
        self.pieces.append((delta, finish, logprobs))
        return False

    def working(self) -> bool:
        return False

    @property
    def finish(self) -> str | None:
        return self.pieces[-1][1]


def opened(path: Path, folder: Path, **more: Any) -> Llama:
    given = {"context_tokens": 256, "parallel": 2, "threads": 1, "max_tokens": 64, "embeds": False} | more
    model = Llama(str(path), folder / "engine.sock", **given)
    # The library hangs if a server is let go of before its loop runs. A child never lets go of one: it ends.
    if "embeddings" in model.about["routes"]:
        model.embed(["a"], FRESH)
    if "completions" in model.about["routes"]:
        ask(model, "completions", {"prompt": "a", "max_tokens": 1})
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def tiny(folder: Path) -> Iterator[Llama]:
    found = opened(llama_files.write(folder / "tiny.gguf"), folder, embeds=True)
    yield found
    del found


def ask(model: Llama, route: Any, body: dict[str, Any], seat: Seat = FRESH, choice: int = 0) -> tuple[Said, Counted]:
    said = Said()
    return said, model.answer(route, read(route, json.dumps({"model": "m"} | body).encode()).normal, choice, seat, said)


# --- what is asked and answered -------------------------------------------------------------------------------------


def test_a_chat_is_answered_and_counted(tiny: Llama) -> None:
    said, counted = ask(tiny, "chat", HELLO | NO_END | {"max_tokens": 12})
    assert counted == Counted(30, 12, 0)
    assert said.texts
    assert said.finish == "length"


def test_the_same_seed_gives_the_same_words_and_another_choice_others(tiny: Llama) -> None:
    body = HELLO | NO_END | {"max_tokens": 24, "seed": 7}
    first, again = ask(tiny, "chat", body)[0], ask(tiny, "chat", body, Seat(1, kept=False))[0]
    other = ask(tiny, "chat", body, choice=1)[0]
    assert "".join(first.texts) == "".join(again.texts) != "".join(other.texts)


@pytest.mark.parametrize("seed", [-(2**63), -1, 0, 2**32 - 1, 2**63 - 1])
def test_every_seed_is_a_seed(tiny: Llama, seed: int) -> None:
    body = HELLO | NO_END | {"max_tokens": 8, "seed": seed}
    assert ask(tiny, "chat", body)[0].texts == ask(tiny, "chat", body)[0].texts


def test_an_answer_is_never_longer_than_the_contract_allows(tiny: Llama) -> None:
    assert ask(tiny, "chat", HELLO | NO_END | {"max_tokens": 9999})[1].completion_tokens == 64
    assert ask(tiny, "chat", HELLO | NO_END)[1].completion_tokens == 64


def test_what_was_worked_out_is_used_again_only_where_that_is_said(tiny: Llama) -> None:
    body = HELLO | {"max_tokens": 1}
    ask(tiny, "chat", body)
    assert ask(tiny, "chat", body, Seat(0, kept=True))[1].cached_tokens == 29
    assert ask(tiny, "chat", body, FRESH)[1].cached_tokens == 0
    assert ask(tiny, "chat", body, Seat(1, kept=False))[1].cached_tokens == 0


def test_text_is_utf8_however_tokens_cut_it(tiny: Llama) -> None:
    # The answer is held to one word of which every letter is several tokens.
    word = "naïve 漢字 🜂🜃"
    schema = {"type": "string", "const": word}
    form = {"type": "json_schema", "json_schema": {"name": "w", "schema": schema}}
    said, _ = ask(tiny, "chat", HELLO | {"response_format": form, "max_tokens": 64})
    assert json.loads("".join(said.texts)) == word
    assert all("�" not in text for text in said.texts)


def test_an_answer_follows_its_schema(tiny: Llama) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    said, _ = ask(tiny, "chat", HELLO | {"response_format": form, "max_tokens": 64, "seed": 3})
    assert json.loads("".join(said.texts))["a"] in (1, 2)
    assert said.finish == "stop"


def test_a_stop_word_stops(tiny: Llama) -> None:
    schema = {"type": "string", "const": "one two three"}
    form = {"type": "json_schema", "json_schema": {"name": "w", "schema": schema}}
    said, _ = ask(tiny, "chat", HELLO | {"response_format": form, "stop": ["two"], "max_tokens": 64})
    assert "".join(said.texts).strip() == '"one'
    assert said.finish == "stop"


def test_logprobs_of_a_chat(tiny: Llama) -> None:
    said, _ = ask(tiny, "chat", HELLO | ONLY_WORDS | {"logprobs": True, "top_logprobs": 2, "max_tokens": 3})
    found = [one for _, _, logprobs in said.pieces if logprobs for one in logprobs["content"]]
    assert len(found) == 3
    for one in found:
        assert set(one) == {"token", "logprob", "bytes", "top_logprobs"}
        assert len(one["top_logprobs"]) == 2


def test_logprobs_of_a_completion(tiny: Llama) -> None:
    said, counted = ask(tiny, "completions", {"prompt": "the one", "logprobs": 1, "max_tokens": 3} | NO_END)
    assert counted.completion_tokens == 3
    found = [logprobs for _, _, logprobs in said.pieces if logprobs]
    assert 1 <= sum(len(one["tokens"]) for one in found) <= 3
    for one in found:
        assert set(one) == {"text_offset", "token_logprobs", "tokens", "top_logprobs"}


def test_no_likely_tokens_where_none_are_asked_for(tiny: Llama) -> None:
    said, _ = ask(tiny, "completions", {"prompt": "the one", "logprobs": 0, "max_tokens": 2} | NO_END)
    assert all(likely == {} for _, _, found in said.pieces if found for likely in found["top_logprobs"])


def test_a_completion_is_answered(tiny: Llama) -> None:
    said, counted = ask(tiny, "completions", {"prompt": "the one", "max_tokens": 5} | NO_END)
    assert counted.completion_tokens == 5
    assert said.pieces[-1][:2] == ({"text": ""}, "length")


def test_vectors_are_in_the_order_of_the_texts_and_of_length_one(tiny: Llama) -> None:
    vectors, tokens = tiny.embed(["the one", "had", "the one"], FRESH)
    assert list(vectors[0]) == pytest.approx(list(vectors[2]), abs=1e-5)
    assert list(vectors[0]) != pytest.approx(list(vectors[1]), abs=1e-2)
    assert all(len(v) == 64 == tiny.about["embedding_size"] for v in vectors)
    assert sum(x * x for x in vectors[1]) == pytest.approx(1, abs=1e-3)
    assert tokens > 0


def test_a_text_has_one_vector_whatever_is_embedded_beside_it(tiny: Llama) -> None:
    texts = ["the one", "had " * 50, "a", "of the " * 9] * 3
    alone = [list(tiny.embed([text], FRESH)[0][0]) for text in texts]
    together = [list(vector) for vector in tiny.embed(texts, FRESH)[0]]
    for one, other in zip(alone, together, strict=True):
        assert one == pytest.approx(other, abs=1e-3)


# --- what is refused ------------------------------------------------------------------------------------------------


def test_a_prompt_that_is_too_long_is_refused_before_work(tiny: Llama) -> None:
    with pytest.raises(PromptTooLong, match="room for 256") as caught:
        ask(tiny, "chat", {"messages": [{"role": "user", "content": "hello the world" * 100}]})
    assert caught.value.tokens > 256
    assert caught.value.most == 256
    with pytest.raises(PromptTooLong):
        tiny.embed(["x " * 400], FRESH)


def test_a_schema_that_is_none_is_refused(tiny: Llama) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "nonsense"}}}
    with pytest.raises(EngineRefused) as caught:
        ask(tiny, "chat", HELLO | {"response_format": form})
    assert caught.value.reason == "grammar"


def test_no_error_quotes_the_prompt(tiny: Llama) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "SECRET-MARKER"}}}
    with pytest.raises(EngineRefused) as caught:
        ask(tiny, "chat", {"messages": [{"role": "user", "content": "SECRET-MARKER"}], "response_format": form})
    assert "SECRET-MARKER" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_model_without_a_template_does_not_chat(folder: Path) -> None:
    model = opened(llama_files.write(folder / "plain.gguf", template=None), folder)
    assert model.about["routes"] == ["completions"]
    with pytest.raises(EngineRefused, match="kind of request"):
        ask(model, "chat", HELLO)


def test_a_model_made_for_embeddings_writes_nothing(folder: Path) -> None:
    model = opened(llama_files.write(folder / "pooling.gguf", pooling=True), folder)
    assert model.about["routes"] == ["embeddings"]
    assert model.about["embedding_size"] == 64


def test_a_context_is_never_longer_than_the_model_was_made_for(tiny: Llama, folder: Path) -> None:
    model = opened(folder / "tiny.gguf", folder, context_tokens=4096)
    assert model.about["context_tokens"] == llama_files.TINY.context


@pytest.mark.parametrize("cut", [0, 3, 20, 5_000, 100_000])
def test_a_model_that_was_cut_short_is_refused(folder: Path, tiny: Llama, cut: int) -> None:
    path = folder / f"cut-{cut}.gguf"
    path.write_bytes((folder / "tiny.gguf").read_bytes()[:cut])
    with pytest.raises(ModelUnreadable):
        opened(path, folder)


def test_what_is_no_model_is_refused(folder: Path) -> None:
    path = folder / "pickle.gguf"
    path.write_bytes(b"\x80\x04" + bytes(100))
    with pytest.raises(ModelUnreadable, match="no GGUF"):
        opened(path, folder)


def test_nothing_of_a_prompt_or_an_answer_is_logged(folder: Path, tiny: Llama, capfd: pytest.CaptureFixture[str]) -> None:
    marker = "MARKER-IN-A-PROMPT"
    model = opened(folder / "tiny.gguf", folder, embeds=True)
    form = {"type": "json_schema", "json_schema": {"name": "w", "schema": {"type": "string", "const": marker}}}
    ask(model, "chat", {"messages": [{"role": "user", "content": marker}], "response_format": form, "max_tokens": 64})
    model.embed([marker], FRESH)
    for body in ({"messages": [{"role": "user", "content": marker * 100}]}, HELLO | {"response_format": BAD_FORM}):
        with pytest.raises((PromptTooLong, EngineRefused)):
            ask(model, "chat", body)
    said = capfd.readouterr()
    assert marker not in said.out + said.err
    assert "SECRET" not in said.out + said.err


# --- giving up ------------------------------------------------------------------------------------------------------


def test_a_question_that_is_given_up_ends_soon_and_is_counted(tiny: Llama) -> None:
    said = Said(most=3)
    normal = read("chat", json.dumps(HELLO | NO_END | {"max_tokens": 64}).encode()).normal
    counted = tiny.answer("chat", normal, 0, FRESH, said)
    assert len(said.texts) == 3
    assert counted.prompt_tokens == 30
    assert 3 <= counted.completion_tokens < 64


def test_what_is_raised_while_it_listens_is_raised_and_not_lost(tiny: Llama) -> None:
    class Deaf(Said):
        def text(self, text: str) -> bool:
            raise KeyError(text)

    normal = read("chat", json.dumps(HELLO | NO_END).encode()).normal
    with pytest.raises(KeyError):
        tiny.answer("chat", normal, 0, FRESH, Deaf())


def test_seats_work_at_once(tiny: Llama) -> None:
    found: dict[int, Counted] = {}

    def one(n: int) -> None:
        found[n] = ask(tiny, "chat", HELLO | NO_END | {"max_tokens": 40}, Seat(n, kept=False))[1]

    threads = [threading.Thread(target=one, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {counted.completion_tokens for counted in found.values()} == {40}


def test_nobody_can_reach_its_http_face(tiny: Llama, folder: Path) -> None:
    assert not list(folder.glob("*.sock"))
    inodes = Path("/proc/self/net/tcp").read_text() + Path("/proc/self/net/tcp6").read_text()
    mine = {link for fd in Path("/proc/self/fd").iterdir() if (link := _link(fd)).startswith("socket:")}
    listening = {f"socket:[{line.split()[9]}]" for line in inodes.splitlines()[1:] if line.split()[3:4] == ["0A"]}
    assert not mine & listening


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


# --- what llama.cpp says, read with mistrust ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ({"type": "exceed_context_size_error", "n_prompt_tokens": 9, "n_ctx": 5}, PromptTooLong),
        ({"type": "server_error", "message": "input (7 tokens) is too large to process"}, PromptTooLong),
        ({"type": "invalid_request_error", "message": "bad"}, EngineRefused),
        ({"type": "server_error", "message": "SECRET"}, EngineFailed),
        ({}, EngineFailed),
    ],
)
def test_errors_of_the_library_are_ours(said: dict[str, Any], error: type[Exception]) -> None:
    found = llama._error(said, 5)
    assert type(found) is error
    assert "SECRET" not in str(found)


def test_every_reason_has_words() -> None:
    assert set(REASONS) == set(WORDS)
    assert [refused(reason).reason for reason in REASONS] == list(REASONS)
    assert "more tokens" in str(too_long(0, 5))


# --- the head of a model file ---------------------------------------------------------------------------------------


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def made(entries: list[tuple[str, int, bytes]], version: int = 3) -> bytes:
    body = b"".join(text(key) + struct.pack("<I", kind) + value for key, kind, value in entries)
    return b"GGUF" + struct.pack("<IQQ", version, 0, len(entries)) + body


def test_a_head_is_read_and_arrays_are_passed_over() -> None:
    numbers = struct.pack("<IQ", 4, 3) + struct.pack("<3I", 1, 2, 3)
    words = struct.pack("<IQ", 8, 2) + text("a") + text("bc")
    entries = [("a", 9, numbers), ("b", 9, words), ("c", 8, text("x")), ("d", 4, struct.pack("<I", 7)), ("e", 7, b"\1")]
    assert gguf.head(io.BytesIO(made(entries))) == {"c": "x", "d": 7, "e": True}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GGUX" + bytes(20),
        made([], version=9),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 40),
        made([("a", 99, b"")]),
        made([("a", 9, struct.pack("<IQ", 9, 1))]),  # arrays of arrays
        made([("a", 8, struct.pack("<Q", 1 << 60))]),
        made([("a", 9, struct.pack("<IQ", 4, 1 << 60))]),
        made([("a", 4, b"\1")]),
    ],
)
def test_a_hostile_head_is_refused(data: bytes) -> None:
    with pytest.raises(ModelUnreadable):
        gguf.head(io.BytesIO(data))


@given(st.binary(max_size=200))
@settings(max_examples=200)
def test_no_bytes_are_too_much_for_the_reader_of_heads(data: bytes) -> None:
    with suppress(ModelUnreadable):
        assert isinstance(gguf.head(io.BytesIO(b"GGUF\3\0\0\0" + data)), dict)
