"""Units: whose rows they are, and how many of each were taken, in memory that is held before the first row is read.

A table that grew with the units would end a run at a number of them that whoever asks chooses with the contract's memory:
an answer about people without any noise. So its size follows from the length of the file, which everybody knows.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

FEWEST: Final = 1 << 17
"""Units for which there is room whatever the file's length."""

_BYTES_OF_A_UNIT: Final = (
    4  # CSV, and Arrow that is not compressed, hold no more distinct ids of three bytes or more in as many
)
_MARK_BYTES: Final = 8

Marks = NDArray[np.uint64]


def room(size: int) -> int:
    """For how many units there is room.

    Args:
        size: of the file, in bytes.
    """
    return FEWEST + size // _BYTES_OF_A_UNIT


def _slots(size: int) -> int:
    return room(size) * 5 // 4


def _count_type(rows: int) -> Any:
    return np.min_scalar_type(rows)


def needed(size: int, rows: int) -> int:
    """Bytes of memory that the table takes.

    Args:
        size: of the file, in bytes.
        rows: of a unit that are taken.
    """
    return _slots(size) * int(_MARK_BYTES + _count_type(rows).itemsize)


class Units:
    """Lets the first rows of each unit pass, and no more.

    A unit is known by a digest of 64 bits of its id. Where there is no room for a further one, its rows are left out.

    Args:
        rows: how many.
        size: of the file, in bytes.

    Raises:
        MemoryError: there is not as much memory as ``needed`` says.
    """

    def __init__(self, rows: int, size: int) -> None:
        self._rows, self._left = rows, room(size)
        self._marks: Marks = np.full(_slots(size), 0, dtype=np.uint64)  # 0 where there is none; written, not only promised
        self._counts = np.full(_slots(size), 0, dtype=_count_type(rows))

    def keep(self, ids: Any) -> NDArray[np.bool_]:
        """For each row whether it is taken; one without an id is not.

        Args:
            ids: a column of bytes.
        """
        encoded = ids.dictionary_encode()
        there = ~np.asarray(encoded.indices.is_null().to_numpy(zero_copy_only=False), dtype=bool)
        codes = np.asarray(encoded.indices.fill_null(0).to_numpy(zero_copy_only=False), dtype=np.int64)[there]
        found = np.zeros(len(there), dtype=bool)
        if not len(codes):
            return found
        marks, which = np.unique(_marks(encoded.dictionary.to_pylist()), return_inverse=True)
        codes = which[codes]
        places = self._places(marks)
        before = np.where(places < 0, self._rows, self._counts[places].astype(np.int64))
        counts = np.bincount(codes, minlength=len(marks))
        order = np.argsort(codes, kind="stable")
        starts = np.cumsum(counts) - counts
        rank = np.empty(len(codes), dtype=np.int64)
        rank[order] = np.arange(len(codes)) - starts[codes[order]]
        known = places >= 0
        self._counts[places[known]] = np.minimum(before + counts, self._rows)[known]
        found[np.flatnonzero(there)] = rank + before[codes] < self._rows
        return found

    def _places(self, marks: Marks) -> NDArray[np.int64]:
        """Where each of some distinct marks stands, from now on if not before; -1 where there is no room."""
        slots = len(self._marks)
        found, at = np.full(len(marks), -1, dtype=np.int64), (marks % np.uint64(slots)).astype(np.int64)
        left = np.arange(len(marks))
        while len(left):
            free = left[self._marks[at[left]] == 0]
            takers = free[np.unique(at[free], return_index=True)[1]][: self._left]
            self._marks[at[takers]] = marks[takers]
            self._left -= len(takers)
            here = self._marks[at[left]]
            mine = here == marks[left]
            found[left[mine]] = at[left[mine]]
            left = left[~mine & (here != 0)]
            at[left] = (at[left] + 1) % slots
        return found


def _marks(ids: list[bytes]) -> Marks:
    digests = b"".join(blake2b(name, digest_size=_MARK_BYTES).digest() for name in ids)
    found: Marks = np.frombuffer(digests, dtype="<u8").astype(np.uint64)
    found[found == 0] = 1
    return found
