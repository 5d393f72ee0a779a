"""What was found before: for some queries the nearest chunks of each source, kept by source.

A list depends on the queries, one source and the frozen parts. So when a source is added only its own list is made, and
when one is dropped its list goes with it: the others are merged, and nothing is asked again.

    lists/NAME-…/DIGEST.npy    records of a score and a number, ``[n, k]``; DIGEST names queries, k and what is left out
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from strongroom.errors import HalfBuilt

from .datastore import LISTS, Datastore
from .kept import keeping
from .nearest import Hits

BLOCK: Final = 4096
"""Queries asked at once."""
_RECORD: Final = np.dtype([("score", "<f4"), ("passage", "<i8")])


@dataclass(frozen=True)
class Queries:
    """Queries that are asked more than once.

    Attributes:
        tokens: ``int[n, <=64]``; may be mapped from a file.
        k: how many of each source.
        without: ``int64[n]`` as of ``Datastore.nearest``, or ``None``.
    """

    tokens: NDArray[Any]
    k: int
    without: NDArray[np.int64] | None = None

    @property
    def digest(self) -> str:
        """64 hex digits."""
        sha = hashlib.sha256(f"{self.tokens.shape} {self.k} {self.without is not None}".encode())
        for at in range(0, len(self.tokens), BLOCK):
            sha.update(np.ascontiguousarray(self.tokens[at : at + BLOCK], "<u2").tobytes())
            if self.without is not None:
                sha.update(np.ascontiguousarray(self.without[at : at + BLOCK], "<i8").tobytes())
        return sha.hexdigest()


def listed(
    store: Datastore,
    queries: Queries,
    folder: Path | str,
    *,
    names: Sequence[str] | None = None,
    said: Callable[[str, int], None] = lambda _name, _done: None,
    made: Path | None = None,
) -> dict[str, Hits]:
    """The nearest chunks of each source, from what is kept where it is there.

    Args:
        store: a snapshot.
        queries: what is asked.
        folder: where lists are kept, such as the store's own ``lists``: there they go when their source is dropped.
        names: of these sources alone.
        said: told of which source how many queries were asked; of what was kept nothing.
        made: a folder with pieces of lists that others have made: ``SOURCE/FIRST.part``, of :func:`table`.

    Returns:
        by source, mapped from files.

    Raises:
        NoSource, DiskFull. HalfBuilt: pieces are not of all queries.
    """
    name = queries.digest
    found = {}
    for source in store.names if names is None else sorted(names):
        one = store.source(source)
        path = Path(folder) / one.manifest.folder / f"{name}.npy"
        kept = _read(path, len(queries.tokens), queries.k)
        if kept is None:
            with keeping(path, one) as file:
                kept = _written(file, queries, _tables(store, source, queries, said, made))
        found[source] = kept
    return found


def folder_of(store: Path | str) -> Path:
    """Where a store's own lists are."""
    return Path(store) / LISTS


def _read(path: Path, rows: int, k: int) -> Hits | None:
    """``None`` where there is none, or something else: then it is made again."""
    with suppress(OSError, ValueError, EOFError):
        table = np.lib.format.open_memmap(path, mode="r")
        if table.dtype == _RECORD and table.shape == (rows, k):
            return Hits(table["score"], table["passage"])
    return None


def table(store: Datastore, name: str, tokens: NDArray[Any], k: int, without: NDArray[np.int64] | None) -> bytes:
    """The records of some queries of one source."""
    hits = store.search(tokens, k, without, names=[name])[name]
    found = np.empty(hits.scores.shape, _RECORD)
    found["score"], found["passage"] = hits.scores, hits.passages
    return found.tobytes()


def _tables(
    store: Datastore, name: str, queries: Queries, said: Callable[[str, int], None], made: Path | None
) -> Iterator[bytes]:
    if made is not None:
        for piece in sorted((made / name).glob("*.part")):
            yield piece.read_bytes()
        return
    for at in range(0, len(queries.tokens), BLOCK):
        rows = slice(at, at + BLOCK)
        yield table(store, name, queries.tokens[rows], queries.k, None if queries.without is None else queries.without[rows])
        said(name, min(at + BLOCK, len(queries.tokens)))


def _written(file: IO[bytes], queries: Queries, pieces: Iterator[bytes]) -> Hits:
    """Raises HalfBuilt: they are not of as many queries."""
    shape = (len(queries.tokens), queries.k)
    np.lib.format.write_array_header_2_0(
        file, {"descr": np.lib.format.dtype_to_descr(_RECORD), "fortran_order": False, "shape": shape}
    )
    begin = file.tell()
    for piece in pieces:
        file.write(piece)
    if file.tell() - begin != shape[0] * shape[1] * _RECORD.itemsize:
        raise HalfBuilt("what was found is not of as many queries as were asked", hint="Ask again.")
    file.flush()
    table: Any = np.memmap(file, _RECORD, "r", begin, shape)
    return Hits(table["score"], table["passage"])


@dataclass(frozen=True)
class Merged:
    """The best of all sources.

    Attributes:
        names: the sources, in order.
        scores: ``float32[n, k]``.
        sources: ``int64[n, k]``, the place of the source in ``names``; -1 where there is none.
        passages: ``int64[n, k]``; -1 where there is none.
    """

    names: list[str]
    scores: NDArray[np.float32]
    sources: NDArray[np.int64]
    passages: NDArray[np.int64]


def merged(hits: Mapping[str, Hits], k: int) -> Merged:
    """The ``k`` best of all sources; equal ones in the order of the sources' names, and then by number.

    The same as if all of them were one source, as long as each list has ``k`` or all that there are.
    """
    names = sorted(hits)
    if not names:
        return Merged([], np.empty((0, k), np.float32), np.empty((0, k), np.int64), np.empty((0, k), np.int64))
    scores = np.concatenate([hits[name].scores for name in names], axis=1)
    passages = np.concatenate([hits[name].passages for name in names], axis=1)
    sources = np.concatenate([np.full(hits[name].scores.shape, i, np.int64) for i, name in enumerate(names)], axis=1)
    order = np.lexsort((passages, sources, -scores), axis=1)[:, :k]
    scores, sources, passages = (np.take_along_axis(one, order, 1) for one in (scores, sources, passages))
    return Merged(names, scores, np.where(passages < 0, -1, sources), passages)
