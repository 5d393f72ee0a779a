"""transformers inside its child, asked directly. Skipped where torch is not installed."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs strongroom[lm]")
transformers = pytest.importorskip("transformers", reason="needs strongroom[lm]")
pytest.importorskip("safetensors", reason="needs strongroom[lm]")
pytest.importorskip("jinja2", reason="needs strongroom[lm]")

from strongroom.errors import EngineRefused, ModelUnreadable, PromptTooLong  # noqa: E402 - skipped first
from strongroom.lm.engine import Counted  # noqa: E402 - skipped first
from strongroom.lm.request import read  # noqa: E402 - skipped first
from strongroom.lm.seated import Seat  # noqa: E402 - skipped first
from strongroom.lm.transformers import Transformers  # noqa: E402 - skipped first

SEAT = Seat(0, kept=False)
TEMPLATE = "{% for m in messages %}{{ m.content }} {% endfor %}"
HELLO = {"messages": [{"role": "user", "content": "hello"}]}
END = 256


class Said:
    def __init__(self, most: int = 1 << 30) -> None:
        self.texts: list[str] = []
        self.finish: str | None = None
        self._most = most

    def text(self, text: str) -> bool:
        self.texts.append(text)
        return len(self.texts) >= self._most

    def piece(self, delta: dict[str, Any], finish: str | None, logprobs: dict[str, Any] | None) -> bool:
        del delta, logprobs
        self.finish = finish
        return False

    def working(self) -> bool:
        return False


def made(folder: Path, **change: Any) -> Path:
    """A model folder as one file: a llama of random weights that knows bytes."""
    from safetensors.torch import save
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({letter: n for n, letter in enumerate([*letters, "<end>"])}, []))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    config = transformers.LlamaConfig(
        vocab_size=257, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=128, bos_token_id=None, eos_token_id=END, tie_word_embeddings=change.pop("tied", False),
    )  # fmt: skip
    torch.manual_seed(1)
    model = transformers.LlamaForCausalLM(config)
    parameters = {name: value.clone() for name, value in model.state_dict().items()}
    if config.tie_word_embeddings:
        del parameters["lm_head.weight"]
    files = {
        "config.json": json.dumps(config.to_dict() | change.pop("config", {})).encode(),
        "model.safetensors": save(parameters),
        "tokenizer.json": inner.to_str().encode(),
        "tokenizer_config.json": json.dumps({"eos_token": "<end>", "chat_template": TEMPLATE}).encode(),
    } | change
    path = folder / "model.tar"
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            if data is not None:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return path


def opened(path: Path, **more: Any) -> Transformers:
    given = {"context_tokens": 64, "parallel": 2, "threads": 1, "max_tokens": 32, "embeds": True} | more
    return Transformers(str(path), path, **given)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Transformers:
    return opened(made(tmp_path_factory.mktemp("model")))


def ask(
    of: Transformers, route: Any, body: dict[str, Any], said: Said | None = None, choice: int = 0
) -> tuple[Said, Counted]:
    said = said or Said()
    return said, of.answer(route, read(route, json.dumps({"model": "m"} | body).encode()).normal, choice, SEAT, said)


NO_END = {"logit_bias": {str(END): -100}}


def test_it_answers_and_counts(model: Transformers) -> None:
    said, counted = ask(model, "chat", HELLO | NO_END | {"max_tokens": 12})
    assert counted == Counted(6, 12)
    assert said.finish == "length"
    said, counted = ask(model, "completions", {"prompt": "abc", "max_tokens": 3} | NO_END)
    assert counted == Counted(3, 3)
    assert model.about["routes"] == ["chat", "completions", "embeddings"]


def test_greedy_answers_are_those_of_the_library(model: Transformers) -> None:
    said, _ = ask(model, "completions", {"prompt": "abc", "max_tokens": 16, "temperature": 0} | NO_END)
    inner, tokens = model._model, model._tokenizer("abc", return_tensors="pt").input_ids
    out = inner.generate(tokens, max_new_tokens=16, do_sample=False, suppress_tokens=[END], pad_token_id=END)
    assert "".join(said.texts) == model._tokenizer.decode(out[0, 3:])


def test_the_same_seed_gives_the_same_words(model: Transformers) -> None:
    body = HELLO | NO_END | {"seed": -3, "top_p": 0.9, "top_k": 50, "min_p": 0.001, "presence_penalty": 1}
    first, again = ask(model, "chat", body)[0].texts, ask(model, "chat", body)[0].texts
    assert first == again != ask(model, "chat", body, choice=1)[0].texts


def test_a_character_of_several_tokens_is_said_whole(model: Transformers) -> None:
    from strongroom.lm.transformers import _Words

    said = Said()
    words = _Words(model._tokenizer, [], said)
    for token in model._tokenizer.encode("aé漢🜂b"):
        words.add(token)
    words.end("length")
    assert "".join(said.texts) == "aé漢🜂b"
    assert not any("�" in text for text in said.texts)


def _stopped(words: Any, said: Said, token: int) -> bool:
    said.finish = "stop" if words.add(token) else None
    return said.finish is not None


def test_nothing_of_a_stop_word_is_said(model: Transformers) -> None:
    from strongroom.lm.transformers import _Words

    said = Said()
    words = _Words(model._tokenizer, ["STOP"], said)
    taken = [
        token for token in model._tokenizer.encode("a SToSTOP b") if not said.finish and not _stopped(words, said, token)
    ]
    words.end("stop")
    assert "".join(said.texts) == "a STo"
    assert len(taken) == 8


def test_the_end_ends(model: Transformers) -> None:
    said, counted = ask(model, "chat", HELLO | {"logit_bias": {str(END): 100}})
    assert (said.texts, said.finish, counted.completion_tokens) == ([], "stop", 1)


def test_giving_up_is_soon(model: Transformers) -> None:
    said, counted = ask(model, "chat", HELLO | {"logit_bias": {str(END): -100, "70": 100}}, Said(most=2))
    assert counted.completion_tokens == 2
    assert said.finish is None


def test_a_prompt_that_is_too_long_is_refused(model: Transformers) -> None:
    with pytest.raises(PromptTooLong, match="room for 64"):
        ask(model, "completions", {"prompt": "x" * 70})
    with pytest.raises(PromptTooLong):
        model.embed(["x" * 70], SEAT)


@pytest.mark.parametrize("more", [{"logprobs": True}, {"response_format": {"type": "json_object"}}])
def test_what_it_cannot_do_it_refuses(model: Transformers, more: dict[str, Any]) -> None:
    with pytest.raises(EngineRefused):
        ask(model, "chat", HELLO | more)


def test_vectors(model: Transformers) -> None:
    vectors, tokens = model.embed(["ab", "c"], SEAT)
    assert (len(vectors), len(vectors[0]), tokens) == (2, 32, 3)
    assert sum(float(x) ** 2 for x in vectors[0]) == pytest.approx(1, abs=1e-3)


def test_tied_weights_are_loaded_once(tmp_path: Path) -> None:
    found = opened(made(tmp_path, tied=True))
    assert ask(found, "chat", HELLO | NO_END | {"max_tokens": 2})[1].completion_tokens == 2


@pytest.mark.parametrize(
    "change",
    [
        {"config": {"auto_map": {"AutoModelForCausalLM": "evil.Model"}}},
        {"config": {"model_type": "no-such-model"}},
        {"config": {"model_type": None}},
        {"config": {"hidden_size": 48}},
        {"config": {"num_hidden_layers": 3}},
        {"tokenizer.json": None},
        {"tokenizer.json": b"{}"},
        {"model.safetensors": None},
        {"tokenizer_config.json": b'{"auto_map": {"AutoTokenizer": ["evil.T", null]}}'},
    ],
)
def test_a_folder_that_does_not_fit_or_brings_code_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(ModelUnreadable):
        opened(made(tmp_path, **change))
