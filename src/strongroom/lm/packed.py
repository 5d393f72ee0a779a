"""A source in one file, which is how it is sealed: its manifest, and then its files, one after the other.

    8 bytes                     the manifest's length, little-endian
    manifest.json
    documents.u64 … tokens.u16  the files in the order of their names, each as long as the manifest says

There is no other table, and nothing in between or behind. Where it is opened, each file lies in a memory file of its own,
and :class:`Folder` shows those to whoever reads a folder. See ``spec/drawing.md``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PosixPath
from typing import Final, Protocol

from strongroom.errors import StoreTruncated

from .document import MAX_BYTES
from .source import FILES, Manifest

MANIFEST: Final = "manifest.json"
NAMES: Final = (MANIFEST, *FILES)
"""The files of an opened source, in their order."""
MEDIA_TYPE: Final = "application/vnd.strongroom.source.v1"
_HEAD: Final = 8
_PIECE: Final = 1 << 20

ReadAt = Callable[[int, int], bytes]


class Sink(Protocol):
    def write(self, data: bytes, /) -> object: ...


@dataclass(frozen=True, slots=True)
class Table:
    """What lies where in a packed source. **Untrusted**, as the manifest in it is.

    Attributes:
        manifest: of the source.
        places: offset and length in bytes of each of ``NAMES``, in that order.
    """

    manifest: Manifest
    places: tuple[tuple[int, int], ...]

    @classmethod
    def read(cls, read_at: ReadAt, size: int) -> Table:
        """Read the head.

        Args:
            read_at: bytes from an offset on, as many as are there.
            size: of the whole, in bytes.

        Raises:
            StoreTruncated: it is not as long as its manifest says. And as of ``Manifest.parse``.
        """
        head = read_at(0, _HEAD)
        length = int.from_bytes(head, "little")
        if len(head) != _HEAD or not 0 < length <= min(MAX_BYTES, size - _HEAD):
            raise StoreTruncated("it is no packed source, or ends within its manifest")
        manifest = Manifest.parse(read_at(_HEAD, length))
        places, at = [(_HEAD, length)], _HEAD + length
        for name in FILES:
            places.append((at, manifest.files[name].size))
            at += manifest.files[name].size
        if at != size:
            raise StoreTruncated("a packed source is not as long as its manifest says")
        return cls(manifest, tuple(places))


def pack(folder: Path, manifest: Manifest, sink: Sink, said: Callable[[int], None] = lambda _done: None) -> None:
    """Write a source into one file.

    Args:
        folder: the source's, looked at before (``source.check``).
        manifest: of that folder.
        sink: takes the bytes in order.
        said: told how many bytes were written.

    Raises:
        StoreTruncated: a file is no longer as long as the manifest says.
    """
    encoded = manifest.encode()
    sink.write(len(encoded).to_bytes(_HEAD, "little") + encoded)
    done = 0
    for name in FILES:
        left = manifest.files[name].size
        with (folder / name).open("rb") as file:
            while piece := file.read(min(_PIECE, left) if left else 1):
                left -= len(piece)
                if left < 0:
                    break
                sink.write(piece)
                said(done := done + len(piece))
        if left:
            raise StoreTruncated(f"{name} is not as long as its manifest says")


class _File(PosixPath):
    """A file that is reached over a link to an open descriptor: what is asked of it is asked of the file."""

    def lstat(self) -> os.stat_result:
        return self.stat()


class Folder:
    """Files that are shown as a folder of theirs.

    Args:
        paths: of each name.
    """

    def __init__(self, paths: Mapping[str, str]) -> None:
        self._paths = dict(paths)
        self.name = "the opened source"

    @classmethod
    def of(cls, names: Sequence[str], paths: Iterator[str]) -> Folder:
        """The next of some paths, one for each name."""
        return cls({name: next(paths) for name in names})

    def __truediv__(self, name: str) -> Path:
        found = self._paths.get(name)
        if found is None:
            raise FileNotFoundError(f"there is no {name}")
        return _File(found)

    def is_dir(self) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths.values())
