"""Verbatim traces: the longest passages of a text that stand word for word in a source.

A suffix array of the source's tokens (``pydivsufsort``) is made once, in pieces that bound the memory, and searched where it
lies. Words are compared as tokens: a trace can end up to a token before the letters do.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from strongroom.errors import MissingExtra

from .datastore import Datastore
from .kept import keeping
from .source import Source
from .tokenizer import Tokens

LEAST: Final = 8
"""Tokens of a trace, at least."""
PIECE: Final = 1 << 24
"""Tokens of which one suffix array is made."""
_BESIDE: Final = 1 << 12  # tokens that two pieces have in common: the longest trace across their border


@dataclass(frozen=True, slots=True)
class Trace:
    """A passage of a text that stands in a source.

    Attributes:
        start, length: in the text, tokens.
        source: its name.
        document: its id.
        at: where in the document, tokens.
    """

    start: int
    length: int
    source: str
    document: str
    at: int


def traces(store: Datastore, text: Tokens, folder: Path | str, *, least: int = LEAST) -> list[Trace]:
    """The longest passages of a text in each source, none of them within another of the same source.

    Args:
        store: a snapshot.
        text: its tokens.
        folder: where suffix arrays are kept, such as the store's ``lists``.
        least: tokens that a passage has.

    Raises:
        MissingExtra, DiskFull.
    """
    found: list[Trace] = []
    for name in store.names:
        source = store.source(name)
        best: dict[int, tuple[int, int]] = {}
        for first, end in _pieces(len(source.tokens)):
            array = _array(source, first, end, Path(folder))
            for start in range(len(text) - least + 1):
                length, at = _longest(source, array, first, end, text[start:])
                if length > best.get(start, (least - 1, 0))[0]:
                    best[start] = (length, at)
        reached = 0
        for start, (length, at) in sorted(best.items()):
            if start + length > reached:
                of = int(np.searchsorted(source.documents, np.uint64(at), side="right")) - 1
                found.append(Trace(start, length, name, source.document_id(of), at - int(source.documents[of])))
                reached = start + length
    return sorted(found, key=lambda trace: (trace.start, -trace.length, trace.source))


def _pieces(tokens: int) -> list[tuple[int, int]]:
    return [(at, min(at + PIECE + _BESIDE, tokens)) for at in range(0, max(1, tokens), PIECE)]


def _array(source: Source, first: int, end: int, folder: Path) -> NDArray[np.int32]:
    path = folder / source.manifest.folder / f"suffixes-{first}.i32"
    if not path.exists() or path.stat().st_size != 4 * (end - first):
        try:
            from pydivsufsort import divsufsort  # noqa: PLC0415 - loaded when it is used
        except ImportError:
            raise MissingExtra("traces need pydivsufsort", hint="pip install 'strongroom[store]'") from None
        made: Any = divsufsort(np.ascontiguousarray(source.tokens[first:end]))
        with keeping(path, source) as file:
            file.write(np.asarray(made, "<i4").tobytes())
            file.flush()
            return np.memmap(file, "<i4", "r").view(np.ndarray)
    return np.memmap(path, "<i4", "r").view(np.ndarray)


def _longest(source: Source, array: NDArray[np.int32], first: int, end: int, text: Tokens) -> tuple[int, int]:
    """How many tokens of the text's beginning stand in this piece within one document, and where."""
    low, high = 0, len(array)
    while low < high:
        middle = (low + high) // 2
        if _before(source.tokens[first + int(array[middle]) : end], text):
            low = middle + 1
        else:
            high = middle
    best = (0, 0)
    # Suffixes stand beside the text in the order of how much they have in common with it, uncut by the ends of documents: so
    # from where that is no more than the best within a document, there is none that is longer.
    for places in (range(low, len(array)), range(low - 1, -1, -1)):
        for place in places:
            at = first + int(array[place])
            uncut = _common(source.tokens[at:end], text)
            if uncut <= best[0]:
                break
            of = int(np.searchsorted(source.documents, np.uint64(at), side="right"))
            best = max(best, (min(uncut, int(source.documents[of]) - at), at), key=lambda found: found[0])
    return best


def _common(a: Tokens, b: Tokens) -> int:
    width = min(len(a), len(b))
    differ = np.flatnonzero(a[:width] != b[:width])
    return int(differ[0]) if len(differ) else width


def _before(suffix: Tokens, text: Tokens) -> bool:
    same = _common(suffix, text)
    if same == len(text):
        return False
    return same == len(suffix) or bool(suffix[same] < text[same])
