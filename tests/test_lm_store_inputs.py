"""Texts and sources of an odd form: one clear error of ours for each, or what can be read of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("faiss", reason="faiss is not installed: pip install 'strongroom[lm]', or make lm")
pytest.importorskip("tokenizers", reason="tokenizers is not installed: pip install 'strongroom[lm]', or make lm")

import pyarrow as pa
from pyarrow import parquet

import lm_case
from strongroom.errors import BadManifest, EmptySource, NotATextFile, NotUtf8
from strongroom.lm import document
from strongroom.lm.datastore import Datastore
from strongroom.lm.moving import found
from strongroom.lm.parts import Parts
from strongroom.lm.source import check
from strongroom.lm.texts import Document, Passed, Texts


@pytest.mark.parametrize("texts", [[], [""]])
def test_frozen_parts_of_no_text(texts: list[str]) -> None:
    with pytest.raises(EmptySource):
        Parts.train(texts)


def test_a_file_whose_name_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with open(os.fsencode(tmp_path / "folder") + b"/caf\xe9\n.txt", "w") as file:
        file.write("a text")
    (one,) = Texts.of([tmp_path / "folder"]).read()
    assert isinstance(one, Document)
    assert one.id == "caf\\xe9\\n.txt"


def test_a_row_that_is_not_utf8_is_passed_over_alone(tmp_path: Path) -> None:
    column = pa.array([b"one", b"caf\xe9", b"three"], pa.binary()).view(pa.string())
    parquet.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    read = list(Texts.of([tmp_path / "a.parquet"]).read())
    assert [one.text if isinstance(one, Document) else type(one.error) for one in read] == ["one", NotUtf8, "three"]
    assert isinstance(read[1], Passed)


def test_a_table_with_two_texts(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(NotATextFile):
        list(Texts.of([tmp_path / "a.parquet"]).read())


def test_a_table_with_a_damaged_page(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"text": lm_case.texts("law", 50)}), file, compression="snappy")
    data = bytearray(file.read_bytes())
    data[4:200] = b"\xff" * 196
    file.write_bytes(data)
    with pytest.raises(NotATextFile):
        list(Texts.of([file]).read())


def test_an_id_that_is_no_line_of_text(tmp_path: Path) -> None:
    import json

    place = lm_case.store(tmp_path / "store")
    lm_case.source(place, "law")
    folder = found(place)
    assert Datastore.open(place).names == ["law"]
    for bad in (b"\xff", b"\n"):
        data = bad + (folder / "ids.utf8").read_bytes()[1:]
        (folder / "ids.utf8").write_bytes(data)
        said = json.loads((folder / "manifest.json").read_bytes())
        said["files"]["ids.utf8"]["digest"] = document.digest(data)
        (folder / "manifest.json").write_bytes(document.encode(said))
        with pytest.raises(BadManifest):
            check(folder, lm_case.parts())


def test_another_file_of_the_same_length_and_time_is_another_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        lm_case.lines(tmp_path / f"{name}.jsonl", ["a text"])
        os.utime(tmp_path / f"{name}.jsonl", ns=(1, 1))
    one, other = (Texts.of([tmp_path / f"{name}.jsonl"]).state() for name in ("a", "b"))
    assert one != other
