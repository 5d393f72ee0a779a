"""The head of a GGUF file: what a model says of itself, without its tokens and its weights.

Read inside the sandbox alone: a model file is an untrusted input. Source: the GGUF specification, version 3.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, BinaryIO, Final

from strongroom.errors import ModelUnreadable

MAGIC: Final = b"GGUF"
VERSIONS: Final = (2, 3)

_SCALARS: Final[Mapping[int, str]] = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_MAX_KEYS, _MAX_KEY, _MAX_TEXT, _MAX_ITEMS = 4096, 1024, 1 << 24, 1 << 24


class _Reader:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def take(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) != size:
            raise ModelUnreadable("the model file ends within its head", step="load model")
        return data

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def size(self, most: int) -> int:
        found: int = self.number("<Q")
        if found > most:
            raise ModelUnreadable("a length in the model file's head is beyond all measure", step="load model")
        return found

    def value(self, kind: int) -> Any:
        """A value; ``None`` for an array, which is passed over."""
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _STRING:
            return self.take(self.size(_MAX_TEXT)).decode("utf-8", "replace")
        if kind != _ARRAY:
            raise ModelUnreadable("a value in the model file's head is of no known type", step="load model")
        inner, count = self.number("<I"), self.size(_MAX_ITEMS)
        if inner in _SCALARS:
            self._file.seek(count * struct.calcsize(_SCALARS[inner]), 1)
        elif inner == _STRING:
            for _ in range(count):
                self._file.seek(self.size(_MAX_TEXT), 1)
        else:
            raise ModelUnreadable("an array in the model file's head is of no known type", step="load model")
        return None


def head(file: BinaryIO) -> dict[str, Any]:
    """What a model says of itself, arrays left out.

    Args:
        file: at its beginning; buffered, since it is read in small pieces.

    Raises:
        ModelUnreadable: no GGUF file of a known version, or a damaged one.
    """
    reader = _Reader(file)
    if file.read(4) != MAGIC or reader.number("<I") not in VERSIONS:
        raise ModelUnreadable("the model is no GGUF file of version 2 or 3", step="load model")
    reader.size(1 << 32)  # tensors
    found: dict[str, Any] = {}
    for _ in range(reader.size(_MAX_KEYS)):
        key = reader.take(reader.size(_MAX_KEY)).decode("utf-8", "replace")
        value = reader.value(reader.number("<I"))
        if value is not None:
            found[key] = value
    return found
