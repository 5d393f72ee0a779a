"""A model folder as one file: a plain tar, read where it lies. Text and tensors, and nothing that runs.

Read inside the sandbox alone. Weights are safetensors; pickles, Python files, links and folders are refused, whatever they
are called. Source: the safetensors format; POSIX.1-2001 (pax) archives.
"""

from __future__ import annotations

import json
import mmap
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from strongroom.errors import ModelUnreadable

TEXTS: Final = (".json", ".jinja", ".txt", ".md")
WEIGHTS: Final = ".safetensors"
DTYPES: Final[Mapping[str, tuple[str, int]]] = {
    "BF16": ("bfloat16", 2),
    "F16": ("float16", 2),
    "F32": ("float32", 4),
    "F64": ("float64", 8),
    "I64": ("int64", 8),
}
"""Kinds of numbers by their name in a safetensors file: their name in torch, and bytes of each."""

_MAX_FILES, _MAX_TEXT, _MAX_HEAD, _MAX_AXES = 1024, 64 << 20, 64 << 20, 8


def unreadable(why: str) -> ModelUnreadable:
    return ModelUnreadable(f"the model folder cannot be used: {why}", step="load model")


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where a tensor lies.

    Attributes:
        name: of the parameter.
        dtype: of ``DTYPES``.
        shape: its axes.
        offset: in the folder's file, bytes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def count(self) -> int:
        found = 1
        for axis in self.shape:
            found *= axis
        return found


class Folder:
    """A model folder, mapped. What is written to the mapping stays in this process.

    Args:
        path: of the tar.

    Raises:
        ModelUnreadable: no tar, or one with something in it that has no place in a model folder.
    """

    def __init__(self, path: str) -> None:
        with Path(path).open("rb") as file:
            self.memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            self._places = dict(_members(file))
        if "config.json" not in self._places:
            raise unreadable("it has no config.json")

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def text(self, name: str) -> str:
        """A file's text. Raises ModelUnreadable."""
        offset, size = self._places[name]
        if size > _MAX_TEXT:
            raise unreadable("a text in it is beyond all measure")
        try:
            return self.memory[offset : offset + size].decode("utf-8")
        except UnicodeDecodeError:
            raise unreadable("a text in it is no UTF-8") from None

    def json(self, name: str) -> dict[str, Any]:
        """A file's JSON object. Raises ModelUnreadable."""
        try:
            found = json.loads(self.text(name))
        except (ValueError, RecursionError):
            raise unreadable(f"{name} is no JSON") from None
        if not isinstance(found, dict):
            raise unreadable(f"{name} is no object")
        return found

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor of every file of weights. Raises ModelUnreadable."""
        for name in sorted(self._places):
            if name.endswith(WEIGHTS):
                yield from self._tensors(*self._places[name])

    def _tensors(self, start: int, size: int) -> Iterator[Tensor]:
        length = int.from_bytes(self.memory[start : start + 8], "little") if size >= 8 else size
        if length > min(_MAX_HEAD, size - 8):
            raise unreadable("a file of weights ends within its head")
        try:
            head = json.loads(self.memory[start + 8 : start + 8 + length])
            head.pop("__metadata__", None)
            for name, about in head.items():
                yield self._tensor(name, about, start + 8 + length, size - 8 - length)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise unreadable("the head of a file of weights is damaged") from None

    @staticmethod
    def _tensor(name: str, about: Mapping[str, Any], base: int, room: int) -> Tensor:
        shape, (begin, end) = about["shape"], about["data_offsets"]
        numbers = [*shape, begin, end]
        if about["dtype"] not in DTYPES or len(shape) > _MAX_AXES:
            raise unreadable("a tensor is of no known kind")
        if any(type(number) is not int or not 0 <= number <= room for number in numbers):
            raise ValueError(name)
        found = Tensor(name, about["dtype"], tuple(shape), base + begin)
        if end - begin != found.count * DTYPES[found.dtype][1]:
            raise ValueError(name)
        return found


def _members(file: Any) -> Iterator[tuple[str, tuple[int, int]]]:
    """The files of a tar: name, and offset and size in bytes."""
    seen: set[str] = set()
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                if member.isdir() and name in ("", "."):
                    continue
                if not member.isreg() or member.issparse() or "/" in name or name in seen:
                    raise unreadable("it holds a folder, a link, or one name twice")
                if not name.endswith((*TEXTS, WEIGHTS)):
                    raise unreadable("it holds a file that is neither text nor safetensors")
                if len(seen) >= _MAX_FILES:
                    raise unreadable("it holds too many files")
                seen.add(name)
                yield name, (member.offset_data, member.size)
    except (tarfile.TarError, EOFError, ValueError):
        raise unreadable("it is no tar") from None
