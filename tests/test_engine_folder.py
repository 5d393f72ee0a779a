"""Model folders: what is read of one, and what has no place in it."""

from __future__ import annotations

import io
import json
import struct
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.errors import ModelUnreadable
from strongroom.lm.folder import Folder

NUMBERS = struct.pack("<4f", 1, 2, 3, 4)
ABOUT = {"w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}


def weights(about: Any = ABOUT, data: bytes = NUMBERS) -> bytes:
    head = json.dumps(about).encode()
    return struct.pack("<Q", len(head)) + head + data


def packed(folder: Path, files: dict[str, bytes], *more: tarfile.TarInfo, mode: Any = "w") -> str:
    path = folder / "model.tar"
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in more:
            archive.addfile(info)
    return str(path)


GOOD = {"config.json": b'{"model_type":"llama"}', "model.safetensors": weights()}


def test_text_and_tensors_are_found_where_they_lie(tmp_path: Path) -> None:
    folder = Folder(packed(tmp_path, GOOD | {"./README.md": b"hello"}))
    assert folder.json("config.json") == {"model_type": "llama"}
    assert folder.text("README.md") == "hello"
    (found,) = folder.tensors()
    assert (found.name, found.shape, found.count) == ("w", (2, 2), 4)
    assert folder.memory[found.offset : found.offset + 16] == NUMBERS
    assert "tokenizer.json" not in folder


@pytest.mark.parametrize(
    "files",
    [
        {"config.json": b"{}", "pytorch_model.bin": b"\x80\x04"},  # a pickle runs what it likes
        {"config.json": b"{}", "modeling.py": b"import os"},
        {"config.json": b"{}", "weights.pt": b""},
        {"config.json": b"{}", "sub/config.json": b"{}"},
        {"config.json": b"{}", "../config.json": b"{}"},
        {"config.json": b"{}", "./config.json": b"{}"},
        {"tokenizer.json": b"{}"},
    ],
)
def test_what_has_no_place_in_a_model_folder_is_refused(tmp_path: Path, files: dict[str, bytes]) -> None:
    with pytest.raises(ModelUnreadable):
        Folder(packed(tmp_path, files))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("link.json")
    info.type, info.linkname = kind, "/etc/passwd"
    with pytest.raises(ModelUnreadable):
        Folder(packed(tmp_path, GOOD, info))


def test_a_compressed_folder_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelUnreadable):
        Folder(packed(tmp_path, GOOD, mode="w:gz"))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"short",
        struct.pack("<Q", 1 << 60) + b"{}",
        weights([]),
        weights({"w": 7}),
        weights({"w": {}}),
        weights({"w": ABOUT["w"] | {"dtype": "OBJECT"}}),
        weights({"w": ABOUT["w"] | {"dtype": ["F32"]}}),
        weights({"w": ABOUT["w"] | {"shape": [2, 3]}}),
        weights({"w": ABOUT["w"] | {"shape": [-2, -2]}}),
        weights({"w": ABOUT["w"] | {"shape": [1] * 9}}),
        weights({"w": ABOUT["w"] | {"shape": [True, 4]}}),
        weights({"w": ABOUT["w"] | {"data_offsets": [8, 24]}}),  # beyond the file
        weights({"w": ABOUT["w"] | {"data_offsets": [-16, 0]}}),
        weights({"w": ABOUT["w"] | {"data_offsets": [0]}}),
    ],
)
def test_tensors_that_lie_elsewhere_than_they_can_are_refused(tmp_path: Path, data: bytes) -> None:
    folder = Folder(packed(tmp_path, GOOD | {"model.safetensors": data}))
    with pytest.raises(ModelUnreadable):
        list(folder.tensors())


@pytest.mark.parametrize("data", [b"[]", b"{", b"\xff", b"[" * 5000])
def test_text_that_is_not_what_it_should_be_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ModelUnreadable):
        Folder(packed(tmp_path, GOOD | {"config.json": data})).json("config.json")


@given(data=st.binary(min_size=1, max_size=2000))
def test_no_bytes_are_too_much_for_the_reader_of_folders(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "model.tar"
    path.write_bytes(data)
    with pytest.raises(ModelUnreadable):
        Folder(str(path))
