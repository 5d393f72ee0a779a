"""A share of a store finds what a store of these documents alone finds."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("faiss", reason="faiss is not installed: pip install 'strongroom[lm]', or make lm")
pytest.importorskip("tokenizers", reason="tokenizers is not installed: pip install 'strongroom[lm]', or make lm")

import lm_case
from strongroom.errors import BadTraining
from strongroom.lm.build import build
from strongroom.lm.datastore import Datastore
from strongroom.lm.texts import Texts
from strongroom.lm.thinned import Thinned


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Datastore:
    place = lm_case.store(tmp_path_factory.mktemp("thinned") / "store")
    for name in ("law", "cells"):
        lm_case.source(place, name, documents=20)
    return Datastore.open(place)


def documents(store: Datastore, part: Thinned, name: str) -> list[int]:
    source = store.source(name)
    return [n for n in range(source.manifest.documents) if part.among[name][int(source.passages[n])]]


def queries(store: Datastore) -> np.ndarray:
    return np.asarray(store.source("law").tokens[: 64 * 12]).reshape(12, 64)


def test_what_is_found_is_what_a_store_of_these_documents_finds(store: Datastore, tmp_path: Path) -> None:
    part = Thinned.of(store, 300, 3)
    kept = documents(store, part, "law")
    assert 0 < len(kept) < 20
    texts = lm_case.texts("law", 20)
    few = lm_case.store(tmp_path / "few")
    build(few, lm_case.about("law"), Texts.of([lm_case.lines(tmp_path / "few.jsonl", [texts[n] for n in kept])]))
    expected = Datastore.open(few).nearest(queries(store), 4)["law"]
    found = part.nearest(queries(store), 4)["law"]
    assert np.array_equal(found.tokens, expected.tokens)
    assert np.array_equal(found.scores, expected.scores)


def test_no_document_is_its_own_neighbour_in_a_share_either(store: Datastore) -> None:
    part = Thinned.of(store, 500)
    for number in documents(store, part, "law"):
        found = part.nearest(queries(store), 4, np.full(12, store.document_key("law", number)))["law"].passages
        of = store.source("law").document_of(found)
        assert not (of[found >= 0] == number).any()
        assert part.among["law"][found[found >= 0]].all()


def test_a_smaller_share_is_part_of_a_larger_one_and_none_is_empty(store: Datastore) -> None:
    shares = [Thinned.of(store, share) for share in (1, 100, 500, 1000)]
    for less, more in itertools.pairwise(shares):
        for name in store.names:
            assert less.among[name].any()
            assert not (less.among[name] & ~more.among[name]).any()
    assert all(kept.all() for kept in shares[-1].among.values())
    random = shares[1].drawn("law", np.random.default_rng(0), (3, 4))
    assert shares[1].among["law"][random].all()


@pytest.mark.parametrize("share", [0, -1, 1001])
def test_a_share_that_is_none_is_refused(store: Datastore, share: int) -> None:
    with pytest.raises(BadTraining):
        Thinned.of(store, share)
