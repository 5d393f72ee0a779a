"""What was found before: lists of each source, kept, merged, and thrown away with their source; near-duplicates; traces."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("faiss", reason="faiss is not installed: pip install 'strongroom[lm]', or make lm")
pytest.importorskip("tokenizers", reason="tokenizers is not installed: pip install 'strongroom[lm]', or make lm")

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import lm_case
from strongroom.lm.build import build
from strongroom.lm.datastore import Datastore, drop
from strongroom.lm.lists import Queries, folder_of, listed, merged
from strongroom.lm.nearest import Hits
from strongroom.lm.similar import near, shingles, sketches
from strongroom.lm.texts import Texts
from strongroom.lm.traces import traces


@pytest.fixture
def place(tmp_path: Path) -> Path:
    place = lm_case.store(tmp_path / "store")
    for name in ("law", "cells"):
        lm_case.source(place, name)
    return place


def asked(store: Datastore, k: int = 3) -> Queries:
    source = store.source("law")
    tokens = np.stack([source.document(i % source.manifest.documents)[:64] for i in range(30)])
    keys = np.asarray([store.document_key("law", i % source.manifest.documents) for i in range(30)])
    return Queries(tokens, k, keys)


def test_lists_are_what_is_found_and_are_not_asked_for_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strongroom.lm.lists.BLOCK", 7)
    store = Datastore.open(place)
    queries = asked(store)
    told: list[str] = []
    lists = listed(store, queries, folder_of(place), said=lambda name, _done: told.append(name))
    assert set(told) == {"law", "cells"}
    direct = store.search(queries.tokens, 3, queries.without)
    for name in store.names:
        assert lists[name].scores.tobytes() == direct[name].scores.tobytes()
        assert lists[name].passages.tobytes() == direct[name].passages.tobytes()
    assert (store.neighbours(lists)["law"].tokens == store.nearest(queries.tokens, 3, queries.without)["law"].tokens).all()
    told.clear()
    listed(store, queries, folder_of(place), said=lambda name, _done: told.append(name))
    assert told == []


def test_adding_a_source_asks_that_source_alone_and_dropping_one_asks_nothing(place: Path) -> None:
    store = Datastore.open(place)
    queries = asked(store)
    before = listed(store, queries, folder_of(place))
    lm_case.source(place, "public")
    told: list[str] = []
    after = listed(Datastore.open(place), queries, folder_of(place), said=lambda name, _done: told.append(name))
    assert told == ["public"]
    assert list(after) == ["cells", "law", "public"]
    folder = Datastore.open(place).source("law").manifest.folder
    assert (folder_of(place) / folder).is_dir()
    drop(place, "law")
    assert not (folder_of(place) / folder).exists()
    told.clear()
    left = listed(Datastore.open(place), queries, folder_of(place), said=lambda name, _done: told.append(name))
    assert told == []
    assert left["cells"].passages.tobytes() == before["cells"].passages.tobytes()


def test_other_questions_have_other_lists(place: Path) -> None:
    store = Datastore.open(place)
    queries = asked(store)
    other = queries.tokens.copy()
    other[-1, -1] ^= 1
    digests = {
        queries.digest,
        Queries(other, 3, queries.without).digest,
        Queries(queries.tokens, 4, queries.without).digest,
        Queries(queries.tokens, 3, queries.without + 1).digest,
        Queries(queries.tokens, 3).digest,
        Queries(queries.tokens[:-1], 3, queries.without[:-1]).digest,
    }
    assert len(digests) == 6


def test_a_list_that_is_damaged_is_made_again(place: Path) -> None:
    store = Datastore.open(place)
    queries = asked(store)
    expected = listed(store, queries, folder_of(place))["law"].passages.tobytes()
    for file in folder_of(place).rglob("*.npy"):
        file.write_bytes(file.read_bytes()[:100])
    assert listed(store, queries, folder_of(place))["law"].passages.tobytes() == expected


hits = st.integers(0, 4).map(lambda n: n / 4)


@settings(max_examples=60)
@given(st.lists(st.lists(hits, min_size=3, max_size=3), min_size=1, max_size=4))
def test_merging_is_what_one_list_of_all_would_be(columns: list[list[float]]) -> None:
    lists = {
        f"s{i}": Hits(np.sort(np.asarray([scores], np.float32))[:, ::-1], np.asarray([[2, 5, 9]]))
        for i, scores in enumerate(columns)
    }
    found = merged(lists, 4)
    everything = sorted(
        (-float(one.scores[0, j]), name, int(one.passages[0, j])) for name, one in lists.items() for j in range(3)
    )[:4]
    assert [
        (-float(s), found.names[int(i)], int(p))
        for s, i, p in zip(found.scores[0], found.sources[0], found.passages[0], strict=True)
    ] == everything


def test_merging_leaves_out_what_was_not_found_and_nothing_of_nothing() -> None:
    none = Hits(np.asarray([[1, -np.inf]], np.float32), np.asarray([[3, -1]]))
    found = merged({"a": none, "b": none}, 4)
    assert found.passages.tolist() == [[3, 3, -1, -1]]
    assert found.sources.tolist() == [[0, 1, -1, -1]]
    assert merged({}, 2).names == []


# --- near-duplicates ------------------------------------------------------------------------------------------------


def test_near_duplicates_are_found_and_others_are_not() -> None:
    draw = np.random.default_rng(0)
    targets = draw.integers(2, 400, (6, 64))
    neighbours = draw.integers(2, 400, (6, 3, 128))
    neighbours[:, 0, 64:] = targets  # what follows the neighbour is the target itself
    neighbours[:, 1, :64] = targets
    neighbours[:, 1, [3, 40]] = 2  # two tokens changed
    neighbours[0, 2] = 0
    found = near(targets, neighbours)
    assert found[:, :2].all()
    assert not found[:, 2].any()


def test_a_sketch_depends_on_the_shingles_alone() -> None:
    draw = np.random.default_rng(0)
    row = draw.integers(2, 400, (1, 64))
    assert (sketches(np.concatenate([row, row])) == sketches(row)).all()
    assert (sketches(np.concatenate([row[:, 8:], row[:, :8]], axis=1)) == sketches(row)).mean() > 0.6
    assert shingles(row[:, :3]).shape == (1, 0)


# --- traces ---------------------------------------------------------------------------------------------------------


def test_the_longest_passages_that_stand_in_a_source(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Datastore.open(place)
    law, cells = store.source("law").document(3), store.source("cells").document(5)
    noise = np.asarray([2, 3] * 10, np.uint16)
    text = np.concatenate([noise, law[40:90], noise, cells[10:31], law[-9:]])
    expected = [("law", 20, 50, "law3", 40), ("cells", 90, 21, "cells5", 10), ("law", 111, 9, "law3", len(law) - 9)]
    for piece in (1 << 24, 1000):
        monkeypatch.setattr("strongroom.lm.traces.PIECE", piece)
        found = traces(store, text, folder_of(place) / str(piece), least=9)
        assert [(t.source, t.start, t.length, t.document, t.at) for t in found] == expected


def test_no_trace_goes_from_one_document_into_the_next(tmp_path: Path) -> None:
    place = lm_case.store(tmp_path / "store")
    file = lm_case.lines(
        tmp_path / "a.jsonl", ["the council shall hold a hearing", "within days of the notice and a permit"]
    )
    build(place, lm_case.about("law"), Texts.of([file]))
    store = Datastore.open(place)
    source = store.source("law")
    whole = np.array(source.tokens)
    found = traces(store, whole, folder_of(place), least=3)
    assert [(t.start, t.length) for t in found] == [
        (0, len(source.document(0))),
        (len(source.document(0)), len(source.document(1))),
    ]
    assert traces(store, whole[:2], folder_of(place), least=3) == []
