"""Chunks that score alike: they stand by their numbers, whatever else is asked at once and however many there are."""

from __future__ import annotations

import pytest

pytest.importorskip("faiss", reason="faiss is not installed: pip install 'strongroom[lm]', or make lm")
pytest.importorskip("tokenizers", reason="tokenizers is not installed: pip install 'strongroom[lm]', or make lm")

import numpy as np

import lm_case
from strongroom.lm.build import build
from strongroom.lm.datastore import Datastore
from strongroom.lm.texts import Texts

SAME = "the council shall hold a hearing within days of the notice"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Datastore:
    """A source with 300 documents of one text among others, and at the end two that are somewhat like it."""
    folder = tmp_path_factory.mktemp("ties")
    others = lm_case.texts("law", 40, words=9)
    texts = [SAME if i % 17 else others[i // 17 % 40] for i in range(320)] + [f"{SAME} and a permit", f"{SAME} and a permit"]
    place = lm_case.store(folder / "store")
    build(place, lm_case.about("law"), Texts.of([lm_case.lines(folder / "a.jsonl", texts)]))
    return Datastore.open(place)


def asked(store: Datastore) -> np.ndarray:
    tokens = store.source("law").document(321)[:64]
    return np.asarray(tokens)[None, :]


def expected(store: Datastore, k: int, without: int = -1) -> list[int]:
    """Both that are asked for, and the first documents of the text that many have."""
    return ([320, 321] + [i for i in range(320) if i % 17 and i != without])[:k]


@pytest.mark.parametrize("k", [1, 2, 7, 16, 40])
def test_equal_ones_stand_by_their_numbers(store: Datastore, k: int) -> None:
    hits = store.search(asked(store), k)["law"]
    assert hits.passages[0].tolist() == expected(store, k)


@pytest.mark.parametrize("k", [2, 7, 40])
def test_a_query_that_leaves_a_document_out_does_not_show_in_what_another_finds(store: Datastore, k: int) -> None:
    queries = np.concatenate([asked(store), asked(store), asked(store)])
    keys = np.asarray([-1, store.document_key("law", 2), store.document_key("law", 5)])
    hits = store.search(queries, k, keys)["law"]
    assert [row.tolist() for row in hits.passages] == [expected(store, k, without) for without in (-1, 2, 5)]


def test_all_that_are_there_are_found_where_more_are_asked_for(store: Datastore) -> None:
    hits = store.search(np.concatenate([asked(store), asked(store)]), 400, np.asarray([-1, store.document_key("law", 1)]))
    for row, without in zip(hits["law"].passages, (-1, 1), strict=True):
        found = row[row >= 0].tolist()
        assert found[: len(expected(store, 400, without))] == expected(store, 400, without)
        assert len(set(found)) == len(found)
    assert (hits["law"].passages[1] != 1).all()


def test_a_query_of_nothing_finds_by_number_alone(store: Datastore) -> None:
    nothing = np.zeros((1, 8), np.int64)
    one, many = store.search(nothing, 2)["law"], store.search(nothing, 60)["law"]
    assert one.passages[0].tolist() == many.passages[0, :2].tolist()
    assert (np.diff(many.passages[0][many.passages[0] >= 0]) > 0).all()
