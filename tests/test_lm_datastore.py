"""Stores: what is found, that dropping is exact and at once, that readers hold a snapshot, and what damaged ones get."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("faiss", reason="faiss is not installed: pip install 'strongroom[lm]', or make lm")
pytest.importorskip("tokenizers", reason="tokenizers is not installed: pip install 'strongroom[lm]', or make lm")

import numpy as np

import lm_case
from strongroom.errors import (
    BadManifest,
    BadSourceName,
    DigestMismatch,
    HalfBuilt,
    NoSource,
    NotAStore,
    OtherParts,
    SourceTwice,
    StoreTruncated,
    StoreVersion,
)
from strongroom.lm import document
from strongroom.lm.datastore import Datastore, Head, add, drop, manifests
from strongroom.lm.moving import brought, found
from strongroom.lm.parts import Parts
from strongroom.lm.source import Checked, Manifest, check
from strongroom.lm.tokenizer import PAD


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two sources, which no test changes."""
    place = lm_case.store(tmp_path_factory.mktemp("two") / "store")
    lm_case.source(place, "law")
    lm_case.source(place, "cells")
    return place


@pytest.fixture
def one(tmp_path: Path) -> Path:
    place = lm_case.store(tmp_path / "store")
    lm_case.source(place, "law")
    return place


def queries(store: Datastore, name: str = "law", count: int = 9) -> np.ndarray:
    source = store.source(name)
    return np.stack([source.document(i % source.manifest.documents)[64:128] for i in range(count)])


def same(a: dict, b: dict) -> bool:
    return list(a) == list(b) and all(
        getattr(a[name], what).tobytes() == getattr(b[name], what).tobytes()
        for name in a
        for what in ("tokens", "lengths", "scores", "passages")
    )


# --- what is found --------------------------------------------------------------------------------------------------


def test_a_chunk_is_its_own_nearest_neighbour_and_its_document_can_be_left_out(two: Path) -> None:
    store = Datastore.open(two)
    asked = queries(store)
    hits = store.nearest(asked, 3)["law"]
    source = store.source("law")
    own = np.arange(len(asked)) % source.manifest.documents
    assert (source.document_of(hits.passages[:, 0]) == own).all()
    assert np.allclose(hits.scores[:, 0], 1)
    assert (hits.tokens[:, 0, :64] == asked).all()
    keys = np.asarray([store.document_key("law", int(i)) for i in own])
    others = store.nearest(asked, 3, without=keys)
    assert (source.document_of(others["law"].passages) != own[:, None]).all()
    assert (others["law"].passages >= 0).all()
    assert same({"cells": others["cells"]}, {"cells": store.nearest(asked, 3)["cells"]})


def test_a_whole_source_of_one_document_can_be_left_out(tmp_path: Path) -> None:
    place = lm_case.store(tmp_path / "store")
    lm_case.source(place, "law", documents=1)
    store = Datastore.open(place)
    hits = store.nearest(queries(store), 2, without=np.full(9, store.document_key("law", 0)))["law"]
    assert (hits.passages == -1).all()
    assert (hits.tokens == PAD).all()
    assert (hits.lengths == 0).all()
    assert np.isneginf(hits.scores).all()


def test_what_is_left_out_does_not_crowd_out_what_is_further_behind(tmp_path: Path) -> None:
    place = lm_case.store(tmp_path / "store")
    long = " ".join(["the council shall hold a hearing"] * 600)
    file = lm_case.lines(tmp_path / "f.jsonl", [long, *lm_case.texts("law", 5)])
    from strongroom.lm.build import build
    from strongroom.lm.texts import Texts

    build(place, lm_case.about("law"), Texts.of([file]))
    store = Datastore.open(place)
    asked = store.source("law").document(0)[None, 64:128]
    hits = store.nearest(asked, 2, without=np.asarray([store.document_key("law", 0)]))["law"]
    assert (store.source("law").document_of(hits.passages) > 0).all()
    assert (hits.passages >= 0).any()


def test_a_result_depends_on_no_other_query(two: Path) -> None:
    store = Datastore.open(two)
    asked = np.concatenate([queries(store), queries(store, "cells", 40)])
    together = store.nearest(asked, 4)
    for row in range(0, len(asked), 7):
        alone = store.nearest(asked[row : row + 1], 4)
        for name in store.names:
            assert alone[name].scores.tobytes() == together[name].scores[row : row + 1].tobytes()
            assert alone[name].passages.tobytes() == together[name].passages[row : row + 1].tobytes()


def test_neighbours_end_with_their_document_and_are_filled_up(two: Path) -> None:
    source = Datastore.open(two).source("law")
    for number in range(source.manifest.documents):
        first, end = int(source.passages[number]), int(source.passages[number + 1])
        tokens, lengths = source.neighbours(np.arange(first, end))
        text = source.document(number)
        for i in range(end - first):
            rest = text[64 * i : 64 * i + 128]
            assert lengths[i] == len(rest)
            assert (tokens[i, : len(rest)] == rest).all()
            assert (tokens[i, len(rest) :] == PAD).all()


def test_a_passage_says_its_document(two: Path) -> None:
    store = Datastore.open(two)
    tokens, of = store.passage("law", int(store.source("law").passages[3]))
    assert of == "law3"
    assert (tokens == store.source("law").document(3)[:64]).all()
    with pytest.raises(NoSource):
        store.passage("law", store.source("law").manifest.chunks)
    with pytest.raises(NoSource):
        store.passage("music", 0)


def test_queries_of_other_tokens_or_another_form_are_refused(two: Path) -> None:
    store = Datastore.open(two)
    for bad in (np.full((1, 64), 60_000), np.zeros((1, 65), int), np.zeros(64, int), np.full((1, 4), -1)):
        with pytest.raises(OtherParts):
            store.nearest(bad, 2)


# --- deletion is exact ----------------------------------------------------------------------------------------------


def test_a_store_that_dropped_a_source_is_the_store_that_never_had_it(tmp_path: Path) -> None:
    had, never = lm_case.store(tmp_path / "had"), lm_case.store(tmp_path / "never")
    for name in ("law", "cells", "public"):
        lm_case.source(had, name)
    for name in ("public", "cells"):  # in another order
        lm_case.source(never, name)
    before = Datastore.open(had)
    asked = queries(before, count=20)
    drop(had, "law")
    assert (had / "store.json").read_bytes() == (never / "store.json").read_bytes()
    assert lm_case.tree(had) == lm_case.tree(never)
    after, other = Datastore.open(had), Datastore.open(never)
    assert after.version == other.version == before.without("law").version
    assert same(after.nearest(asked, 5), other.nearest(asked, 5))
    assert same(before.without("law").nearest(asked, 5), other.nearest(asked, 5))


def test_frozen_parts_do_not_change_with_sources(one: Path) -> None:
    before = lm_case.tree(one / "parts")
    lm_case.source(one, "cells")
    drop(one, "law")
    assert lm_case.tree(one / "parts") == before


def test_an_open_store_keeps_what_is_dropped_meanwhile(one: Path) -> None:
    store = Datastore.open(one)
    asked = queries(store)
    before = store.nearest(asked, 4)
    drop(one, "law")
    assert not list((one / "sources").iterdir())
    assert same(store.nearest(asked, 4), before)
    assert Datastore.open(one).names == []


def test_dropping_what_is_not_there(one: Path) -> None:
    with pytest.raises(NoSource):
        drop(one, "cells")
    assert Datastore.open(one).names == ["law"]


READER = """
import sys
from pathlib import Path
import numpy as np
from strongroom.lm.datastore import Datastore
seen = {}
print("ready", flush=True)
while not Path(sys.argv[2]).exists():
    store = Datastore.open(sys.argv[1])
    for source in store.sources.values():
        source.passage(source.manifest.chunks - 1)
    hits = store.search(np.full((1, 8), 9), 3)
    what = store.version, {name: (one.passages.tolist(), one.scores.tobytes()) for name, one in hits.items()}
    if len(seen) < len({**seen, tuple(store.names): what}):
        print("one", flush=True)
    assert seen.setdefault(tuple(store.names), what) == what
    assert list(hits) == store.names
print(sorted(seen))
"""


def test_a_reader_never_sees_a_mixture_while_another_process_drops_and_adds(tmp_path: Path) -> None:
    place, other = lm_case.store(tmp_path / "store"), lm_case.store(tmp_path / "other")
    lm_case.source(place, "law")
    lm_case.source(other, "cells")
    for name, origin in (("law", place), ("cells", other)):
        os.rename(origin, tmp_path / f"kept-{name}")
    lm_case.store(place)
    with brought(place, found(tmp_path / "kept-law")) as checked:
        add(place, checked)
    end = tmp_path / "end"
    command = [sys.executable, "-c", READER, str(place), str(end)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
        assert reader.stdout.readline() == "one\n"
        for _ in range(15):
            # Both are there for a moment, and never none or half of one.
            with brought(place, found(tmp_path / "kept-cells")) as checked:
                add(place, checked)
            drop(place, "law")
            with brought(place, found(tmp_path / "kept-law")) as checked:
                add(place, checked)
            drop(place, "cells")
        with brought(place, found(tmp_path / "kept-cells")) as checked:
            add(place, checked)
        states = 1
        while states < 2:  # it has seen another than at first
            line = reader.stdout.readline()
            assert line, "the reader ended"
            states += line == "one\n"
        end.touch()
        said = reader.stdout.read().splitlines()[-1]
    assert reader.returncode == 0
    assert set(map(tuple, json.loads(said.replace("(", "[").replace(",)", "]").replace(")", "]").replace("'", '"')))) <= {
        ("law",),
        ("cells", "law"),
        ("cells",),
    }


# --- adding ---------------------------------------------------------------------------------------------------------


def test_a_source_built_elsewhere_is_added_as_it_is(one: Path, tmp_path: Path) -> None:
    other = lm_case.store(tmp_path / "other")
    lm_case.source(other, "cells")
    with brought(one, found(other)) as checked:
        add(one, checked)
    whole = lm_case.store(tmp_path / "whole")
    for name in ("cells", "law"):
        lm_case.source(whole, name)
    assert lm_case.tree(one) == lm_case.tree(whole)
    assert lm_case.tree(other / "sources")  # still with its owner


def test_a_source_twice(one: Path) -> None:
    before = lm_case.tree(one)
    with pytest.raises(SourceTwice), brought(one, found(one)) as checked:
        add(one, checked)
    with pytest.raises(SourceTwice):
        lm_case.source(one, "law")
    assert lm_case.tree(one) == before


def test_a_source_is_replaced_as_a_whole(one: Path, tmp_path: Path) -> None:
    other = lm_case.store(tmp_path / "other")
    lm_case.source(other, "law", seed=1)
    with brought(one, found(other)) as checked:
        add(one, checked, replace=True)
    assert (one / "store.json").read_bytes() == (other / "store.json").read_bytes()
    assert len(list((one / "sources").iterdir())) == 1
    assert not list((one / "building").iterdir())


def test_only_what_was_read_whole_can_be_added(one: Path) -> None:
    folder = found(one)
    manifest = check(folder, lm_case.parts()).manifest
    with pytest.raises(TypeError):
        Checked(folder, manifest, {}, None)


def test_a_source_that_is_changed_after_it_was_checked(one: Path, tmp_path: Path) -> None:
    other = lm_case.store(tmp_path / "other")
    lm_case.source(other, "cells")
    before = lm_case.tree(one)
    with pytest.raises(DigestMismatch), brought(one, found(other)) as checked:
        with (checked.folder / "tokens.u16").open("r+b") as file:
            file.write(b"\x09\x00")
        os.utime(checked.folder / "tokens.u16", ns=(1, 1))
        add(one, checked)
    assert lm_case.tree(one) == before


def test_a_source_of_other_frozen_parts(one: Path, tmp_path: Path) -> None:
    parts = Parts.train(lm_case.texts("cells", 40), size=300, lists=4, probes=2)
    Datastore.create(tmp_path / "other", parts)
    lm_case.source(tmp_path / "other", "cells")
    with pytest.raises(OtherParts), brought(one, found(tmp_path / "other")):
        pass


@pytest.mark.parametrize("name", ["", "..", "Law", "a/b", "-a", "a" * 65, "é"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(BadSourceName):
        lm_case.about(name)


# --- damaged stores -------------------------------------------------------------------------------------------------


def test_folders_that_are_no_store(tmp_path: Path) -> None:
    with pytest.raises(NotAStore):
        Datastore.open(tmp_path)
    with pytest.raises(NotAStore):
        Datastore.open(tmp_path / "nothing")
    (tmp_path / "half" / "building").mkdir(parents=True)
    with pytest.raises(HalfBuilt):
        Datastore.open(tmp_path / "half")


def test_a_store_is_not_made_where_one_is(one: Path) -> None:
    with pytest.raises(SourceTwice):
        Datastore.create(one, lm_case.parts())


@pytest.mark.parametrize("name", ["tokens.u16", "documents.u64", "passages.u64", "ids.u64", "ids.utf8", "index.faiss"])
@pytest.mark.parametrize("how", ["shorter", "longer", "gone"])
def test_a_truncated_source(one: Path, name: str, how: str) -> None:
    file = found(one) / name
    data = file.read_bytes()
    file.write_bytes(data[:-1] if how == "shorter" else data + b"\0")
    if how == "gone":
        file.unlink()
    with pytest.raises(StoreTruncated):
        Datastore.open(one)


@pytest.mark.parametrize("name", ["tokens.u16", "documents.u64", "passages.u64", "ids.u64", "ids.utf8", "index.faiss"])
def test_a_manifest_that_lies_about_a_digest(one: Path, name: str) -> None:
    file = found(one) / name
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(DigestMismatch):
        check(found(one), lm_case.parts())


def lying(folder: Path, name: str, data: bytes) -> None:
    """Change a file and its digest in the manifest, as who makes a source can."""
    (folder / name).write_bytes(data)
    said = json.loads((folder / "manifest.json").read_bytes())
    said["files"][name] = {"bytes": len(data), "digest": document.digest(data)}
    (folder / "manifest.json").write_bytes(document.encode(said))


def numbers(data: bytes, at: int, value: int) -> bytes:
    found = np.frombuffer(data, "<u8").copy()
    found[at] = value
    return found.tobytes()


@pytest.mark.parametrize(
    ("name", "change", "error"),
    [
        ("tokens.u16", lambda d: b"\xff\xff" + d[2:], OtherParts),
        ("tokens.u16", lambda d: b"\x00\x00" + d[2:], OtherParts),
        ("documents.u64", lambda d: numbers(d, 0, 5), BadManifest),
        ("documents.u64", lambda d: numbers(d, -1, 1 << 60), BadManifest),
        ("documents.u64", lambda d: numbers(d, 2, 1 << 63), BadManifest),
        ("passages.u64", lambda d: numbers(d, 1, 1 << 40), BadManifest),
        ("ids.u64", lambda d: numbers(d, 1, 1 << 40), BadManifest),
        ("index.faiss", lambda d: d[:-8] + (1 << 50).to_bytes(8, "little"), BadManifest),
        ("index.faiss", lambda d: d[:40] + b"\xff" + d[41:], StoreTruncated),
        ("index.faiss", lambda d: d[:-8] + d[-16:-8], BadManifest),
    ],
)
def test_a_source_whose_files_say_what_cannot_be(one: Path, name: str, change, error) -> None:
    folder = found(one)
    lying(folder, name, change((folder / name).read_bytes()))
    with pytest.raises(error):
        check(folder, lm_case.parts())


def test_a_vector_that_is_longer_than_others_is_refused(one: Path) -> None:
    folder = found(one)
    data = (folder / "index.faiss").read_bytes()
    source = Datastore.open(one).source("law")
    at = len(lm_case.parts().quantizer.head(source.index.sizes))
    vector = np.frombuffer(data[at : at + 4 * 128], "<f4") * 9
    lying(folder, "index.faiss", data[:at] + vector.tobytes() + data[at + 4 * 128 :])
    with pytest.raises(BadManifest, match="length"):
        check(folder, lm_case.parts())


def test_a_manifest_that_the_head_does_not_name(one: Path) -> None:
    folder = found(one)
    said = json.loads((folder / "manifest.json").read_bytes())
    said["price"]["amount"] = 1_000_000
    (folder / "manifest.json").write_bytes(document.encode(said))
    for read in (Datastore.open, manifests):
        with pytest.raises(DigestMismatch):
            read(one)


def test_a_source_without_its_manifest(one: Path) -> None:
    (found(one) / "manifest.json").unlink()
    with pytest.raises(HalfBuilt):
        Datastore.open(one)


def test_a_source_that_is_a_link_to_something_else(one: Path, tmp_path: Path) -> None:
    file = found(one) / "tokens.u16"
    os.rename(file, tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", file)
    with pytest.raises(StoreTruncated):
        Datastore.open(one)


@pytest.mark.parametrize("name", ["tokenizer.json", "retriever.safetensors", "quantizer.safetensors"])
def test_damaged_frozen_parts(one: Path, name: str) -> None:
    file = one / "parts" / name
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(DigestMismatch):
        Datastore.open(one)
    file.unlink()
    with pytest.raises(StoreTruncated):
        Datastore.open(one)


def test_other_versions_are_named_as_such(one: Path) -> None:
    for file in (one / "store.json", found(one) / "manifest.json", one / "parts" / "parts.json"):
        before = file.read_bytes()
        file.write_bytes(before.replace(b".v1", b".v2"))
        with pytest.raises(StoreVersion):
            Datastore.open(one)
        file.write_bytes(before)


def test_what_is_encoded_is_read_again(two: Path) -> None:
    head = Head.read(two)
    assert Head.parse(head.encode()) == head
    for manifest in manifests(two).values():
        assert Manifest.parse(manifest.encode()) == manifest
    assert Parts.load(two / "parts").encoded == lm_case.parts().encoded
