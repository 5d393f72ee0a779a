"""The command line of stores, as owners and operators type it."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("faiss", reason="faiss is not installed: pip install 'strongroom[lm]', or make lm")
pytest.importorskip("tokenizers", reason="tokenizers is not installed: pip install 'strongroom[lm]', or make lm")

import lm_case
from stage import call

OWN = ("--owner", "City council", "--licence", "CC-BY-4.0")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    for name in ("public", "law", "cells"):
        lm_case.lines(tmp_path / f"{name}.jsonl", lm_case.texts(name, 30))
    return tmp_path


def build(folder: Path, *words: object) -> object:
    return call("lm", "build", *words, "--out", folder / "store", *OWN)


def test_the_life_of_a_store(texts: Path) -> None:
    assert build(texts, texts / "public.jsonl", "--public").status == 0
    empty = call("lm", "sources", texts / "store", "--json").json["version"]
    said = build(texts, f"law={texts / 'law.jsonl'}", "--price", "25", "--unit", "EUR-micro", "--json")
    assert (said.status, said.json["sources"][0]["price"]) == (0, {"amount": 25, "per_tokens": 1000, "unit": "EUR-micro"})
    shown = call("lm", "sources", texts / "store", "--check")
    assert shown.status == 0
    for words in ("law", "City council", "CC-BY-4.0", "25 EUR-micro", "every file is what its manifest promises"):
        assert words in shown.out
    dropped = call("lm", "drop", texts / "store", "law", "--json")
    assert dropped.status == 0
    assert dropped.json["version"] == empty == call("lm", "sources", texts / "store", "--json").json["version"]


def test_an_owner_builds_at_home_and_somebody_adds_it(texts: Path) -> None:
    build(texts, texts / "public.jsonl", "--public")
    home = texts / "home"
    said = call("lm", "build", texts / "law.jsonl", "--out", home, "--like", texts / "store", *OWN)
    assert said.status == 0
    added = call("lm", "add", texts / "store", home)
    assert added.status == 0
    assert "added in" in added.out
    assert call("lm", "add", texts / "store", home, "--json").json["error"]["code"] == "datastore.source_twice"
    assert call("lm", "add", texts / "store", home, "--replace").status == 0
    names = [one["name"] for one in call("lm", "sources", texts / "store", "--json").json["sources"]]
    assert names == ["law", "public"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("lm", "build", "law.jsonl", "--out", "new", *OWN), "app.usage"),
        (("lm", "build", "nothing.jsonl", "--out", "new", "--public", *OWN), "app.not_found"),
        (("lm", "build", "law.jsonl", "x/law.jsonl", "--out", "new", "--public", *OWN), "datastore.source_twice"),
        (("lm", "build", "law.docx", "--out", "new", "--public", *OWN), "datastore.not_a_text_file"),
        (("lm", "build", "Law=law.jsonl", "--out", "new", "--public", *OWN), "datastore.bad_name"),
        (
            ("lm", "build", "law.jsonl", "--out", "new", "--public", "--owner", "a\nb", "--licence", "x"),
            "datastore.bad_manifest",
        ),
        (("lm", "sources", "x"), "datastore.not_a_store"),
        (("lm", "drop", "x", "law"), "datastore.not_a_store"),
        (("lm", "add", "x", "nothing"), "datastore.not_a_store"),
        (("lm", "copy", "x", "y"), "app.usage"),
    ],
)
def test_what_cannot_be_done_is_said(
    texts: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], code: str
) -> None:
    monkeypatch.chdir(texts)
    (texts / "law.docx").write_bytes(b"PK")
    (texts / "x").mkdir()
    lm_case.lines(texts / "x" / "law.jsonl", ["a"])
    said = call(*words)
    assert (said.status != 0, said.code) == (True, code)
    assert not (texts / "new" / "store.json").exists()


def test_the_verbs_of_stores_are_listed() -> None:
    for words in (("lm",), ("lm", "--help")):
        said = call(*words)
        assert said.status == (0 if len(words) > 1 else 2)
        assert "lm build" in said.out
        assert "  up " not in said.out
    assert call("lm", "burn").code == "app.usage"
