"""Near-duplicates: passages that are almost the same, found by MinHash (the ``datasketch`` library).

A model that is trained with a near-duplicate of its own target among the neighbours learns to copy, and not when to. So in
training such neighbours are left out.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from strongroom.errors import MissingExtra

from .tokenizer import END

SHINGLE: Final = 5
"""Tokens that follow each other and count as one."""
HASHES: Final = 64
THRESHOLD: Final = 0.3
"""Share of shingles in common, of those in either, from which two passages are near-duplicates."""

_MIX: Final = np.uint64(0x9E3779B97F4A7C15)
_NONE: Final = np.uint64(0xFFFFFFFF)


def shingles(tokens: NDArray[Any]) -> NDArray[np.uint64]:
    """A number of 32 bits for each shingle of each row; ``uint64[n, w - 4]``, and the largest where padding is in it."""
    rows = np.ascontiguousarray(tokens, np.uint64)
    width = max(0, rows.shape[1] - SHINGLE + 1)
    found = np.zeros((len(rows), width), np.uint64)
    whole = np.ones((len(rows), width), bool)
    for at in range(SHINGLE):
        part = rows[:, at : at + width]
        whole &= part > END
        found = (found ^ part) * _MIX
        found ^= found >> np.uint64(29)
    return np.where(whole, found >> np.uint64(32), _NONE)


def sketches(tokens: NDArray[Any]) -> NDArray[np.uint64]:
    """The MinHash of each row's shingles; ``uint64[n, 64]``. Raises MissingExtra.

    Args:
        tokens: ``int[n, w]``, filled up with ``PAD``.
    """
    try:
        from datasketch import MinHash  # noqa: PLC0415 - loaded when it is used
    except ImportError:
        raise MissingExtra("near-duplicates need datasketch", hint="pip install 'strongroom[store]'") from None
    found = np.empty((len(tokens), HASHES), np.uint64)
    rows = shingles(tokens)
    blank = MinHash(num_perm=HASHES, seed=1, hashfunc=int)
    for number, row in enumerate(rows):
        sketch = blank.copy()
        if (known := row[row != _NONE]).size:
            sketch.update_batch(known.tolist())
        found[number] = sketch.hashvalues
    return found


def near(targets: NDArray[Any], neighbours: NDArray[Any], *, threshold: float = THRESHOLD) -> NDArray[np.bool_]:
    """Which neighbours are near-duplicates of what is to be foretold, or of any part of it.

    Args:
        targets: ``int[n, w]``, the tokens to be foretold.
        neighbours: ``int[n, k, 128]``: each half is compared by itself.
        threshold: see ``THRESHOLD``.

    Returns:
        ``bool[n, k]``.
    """
    count, k, width = neighbours.shape
    halves = neighbours.reshape(count * k * 2, width // 2)
    alike = sketches(targets)[:, None, None] == sketches(halves).reshape(count, k, 2, HASHES)
    something = (shingles(halves) != _NONE).any(axis=1).reshape(count, k, 2)
    return np.asarray(((alike.mean(axis=-1) >= threshold) & something).any(axis=-1))
