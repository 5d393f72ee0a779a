"""lm train, eval and generate, as somebody types them, and what they say to what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'strongroom[lm]'")
pytest.importorskip("faiss", reason="needs faiss: pip install 'strongroom[store]'")
pytest.importorskip("matplotlib", reason="needs matplotlib: pip install matplotlib")

import lm_case  # noqa: E402
from stage import Said, call  # noqa: E402
from strongroom.lm import weights  # noqa: E402
from strongroom.lm.datastore import BUILDING, Datastore  # noqa: E402

SMALL = (
    "--width",
    "64",
    "--layers",
    "1",
    "--window",
    "64",
    "--windows",
    "2",
    "--neighbours",
    "2",
    "--read",
    "2",
    "--workers",
    "0",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store, text that is in none of its sources, and a model that was trained a little."""
    folder = tmp_path_factory.mktemp("verbs")
    store = lm_case.store(folder / "store")
    for name in ("law", "cells", "public"):
        lm_case.source(store, name)
    lm_case.lines(folder / "held-out.jsonl", lm_case.texts("law", 6, seed=9))
    assert train(folder, "run").status == 0
    return folder


def train(folder: Path, out: str, *more: str, steps: int = 3) -> Said:
    words = ("public", "--store", folder / "store", "--out", folder / out, "--steps", steps, *SMALL, "--full", *more)
    return call("lm", "train", *words)


def generate(folder: Path, *words: object, model: str = "run/model.safetensors", prompt: str = "the Council") -> Said:
    said = ("--model", folder / model, "--store", folder / "store", "--tokens", 6)
    return call("lm", "generate", prompt, *said, *words)


def evaluate(folder: Path, *words: object, text: str = "held-out.jsonl") -> Said:
    said = ("--model", folder / "run" / "model.safetensors", "--store", folder / "store", "--windows", 4)
    return call("lm", "eval", folder / text, *said, *words)


def test_a_training_says_how_it_goes_and_draws_its_curve(place: Path) -> None:
    said = train(place, "told")
    assert "step 3 of 3" in said.err
    assert "tokens a second" in said.err
    shown = train(place, "as-json", "--json").json
    assert (shown["steps"], shown["last"]["step"]) == (3, 3)
    assert Path(shown["curve"]).read_bytes().startswith(b"\x89PNG")


def test_a_training_begins_with_a_models_weights_and_other_neighbours(place: Path) -> None:
    first = str(place / "run" / "model.safetensors")
    said = train(place, "more", "--begin", first, "--neighbours", "3", "--read", "5", steps=1)
    assert said.status == 0, said.err
    model, about = weights.load(place / "more" / "model.safetensors")
    assert about.shape["neighbours"] == 5
    before, _ = weights.load(Path(first))
    near = [torch.allclose(a, b, atol=0.1) for a, b in zip(model.parameters(), before.parameters(), strict=True)]
    assert all(near)
    assert train(place, "more", "--neighbours", "3", steps=1).code == "retrieval.other_training"
    assert train(place, "wide", "--begin", first, "--width", "128").code == "retrieval.bad_training"


def test_an_evaluation_shows_every_way(place: Path) -> None:
    said = evaluate(place, "--shares", "10")
    for words in ("off", "on", "random", "swapped", "without law", "only law", "10 % of the store", "low overlap"):
        assert words in said.out
    shown = evaluate(place, "--shares", "", "--json").json
    assert shown["ways"]["off"]["gain"] == [0, 0, 0]
    assert set(shown["agreement"]) == {"law", "cells", "public"}
    assert shown["shares"] == {}


def test_an_answer_shows_its_sources(place: Path) -> None:
    said = generate(place, "--show-sources", "--budget", "law=1")
    assert said.status == 0, said.err
    assert "drawn from" in said.out
    assert "tokens drawn" in said.out
    shown = generate(place, "--json", "--without", "cells").json
    assert set(shown["drawn"]) == {"law", "public"}
    for name, grains in shown["drawn"].items():
        assert grains == sum(d["weight"] for one in shown["tokens"] for d in one["draws"] if d["source"] == name)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--budget", "law=0"), "retrieval.bad_budget"),
        (("--budget", "law"), "app.usage"),
        (("--budget", "lwa=1"), "datastore.no_source"),
        (("--without", "lwa"), "datastore.no_source"),
        (("--tokens", "0"), "app.usage"),
        (("--temperature", "-1"), "app.usage"),
        (("--temperature", "nan"), "app.usage"),
    ],
)
def test_a_question_that_cannot_be_answered_is_one_line(place: Path, words: tuple[str, ...], code: str) -> None:
    said = generate(place, *words)
    assert (said.status != 0, said.code) == (True, code)
    assert said.err.count("\n") == 2, "a line and a hint"


def test_a_prompt_longer_than_the_context_is_one_line(place: Path) -> None:
    assert generate(place, prompt="Council " * 100).code == "retrieval.prompt_too_long"


def test_models_that_are_none_are_named_as_such(place: Path) -> None:
    assert generate(place, model="nothing").code == "app.not_found"
    (place / "damaged").write_bytes((place / "run" / "model.safetensors").read_bytes()[:-9])
    assert generate(place, model="damaged").code == "retrieval.bad_model"
    ships = call("lm", "generate", "a", "--store", place / "store")
    assert ships.code == "retrieval.other_tokenizer"


def test_text_that_cannot_be_measured_on_is_one_line(place: Path) -> None:
    assert evaluate(place, text="nothing.jsonl").code == "app.not_found"
    for name, line, code in (
        ("empty.jsonl", b'{"text": ""}', "datastore.empty_document"),
        ("latin.jsonl", b'{"text": "caf\xe9"}', "datastore.not_utf8"),
        ("short.jsonl", b'{"text": "the Council"}', "retrieval.bad_training"),
    ):
        (place / name).write_bytes(line + b"\n")
        assert evaluate(place, text=name).code == code
    for shares in ("0", "101", "x", "nan"):
        assert evaluate(place, "--shares", shares).code == "app.usage"


def test_trainings_that_cannot_be_are_one_line(place: Path) -> None:
    assert train(place, "no", steps=0).code == "retrieval.bad_training"
    assert train(place, "no", "--window", "40").code == "retrieval.bad_training"
    assert train(place, "no", "--width", "100").code == "app.usage"
    assert train(place, "no", "--begin", str(place / "nothing")).code == "app.not_found"
    words = ("--store", place / "store", "--out", place / "no", "--steps", 1, *SMALL)
    assert call("lm", "train", "lwa", *words).code == "datastore.no_source"
    assert call("lm", "train", "law", "law", *words).code == "retrieval.bad_training"
    assert not (place / "no" / "model.safetensors").exists()


def test_stores_that_are_damaged_are_named_as_such(place: Path, tmp_path: Path) -> None:
    (tmp_path / "half" / BUILDING).mkdir(parents=True)
    store = lm_case.store(tmp_path / "cut")
    lm_case.source(store, "law")
    folder = Datastore.open(store).source("law").folder
    (folder / "tokens.u16").write_bytes((folder / "tokens.u16").read_bytes()[:-2])
    model = ("--model", place / "run" / "model.safetensors")
    for name, code in (("half", "datastore.half_built"), ("cut", "datastore.truncated"), ("none", "datastore.not_a_store")):
        store = tmp_path / name
        assert call("lm", "generate", "a", "--store", store, *model).code == code
        assert call("lm", "eval", place / "held-out.jsonl", "--store", store, *model).code == code
        assert call("lm", "train", "law", "--store", store, "--out", tmp_path / "run", "--steps", 1).code == code
    head = tmp_path / "cut" / "store.json"
    head.write_bytes(head.read_bytes().replace(b"strongroom.datastore.v1", b"strongroom.datastore.v9"))
    assert call("lm", "sources", tmp_path / "cut").code == "datastore.other_version"


def test_a_store_of_the_parts_that_ship_is_read_by_the_model_that_ships(tmp_path: Path) -> None:
    text = lm_case.lines(tmp_path / "law.jsonl", lm_case.texts("law", 4))
    words = ("--out", tmp_path / "store", "--shipped", "--owner", "City council", "--licence", "CC0-1.0")
    assert call("lm", "build", text, *words).status == 0
    said = call("lm", "generate", "the Council shall", "--store", tmp_path / "store", "--tokens", 8, "--json")
    assert said.status == 0, said.err
    assert said.json["drawn"].keys() == {"law"}
