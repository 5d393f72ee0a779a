"""The nearest chunks of a source: a faiss ``IndexIVFFlat`` for each, on one quantizer that all share and none changes.

The file is faiss's own; it is written as a stream and searched where it lies on disk. A result depends on the query, the
source and the frozen parts alone, and not on what else is asked at once.
"""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import struct
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from strongroom.errors import BadManifest, MissingExtra, StoreTruncated

from .retriever import packed, unpacked

Lists: TypeAlias = tuple[NDArray[np.float32], NDArray[np.int64]]
"""The nearest centres of some vectors, best first: their scores and numbers, ``[n, probes]`` each."""
ENTRY: Final = np.dtype("<i8").itemsize
_DONT_NEED: Final = 4  # MADV_DONTNEED
_SPARE: Final = 16  # asked for more than wanted where some are to be left out
_WIDER: Final = 8  # times as many where equal ones are behind the last
_AT_ONCE: Final = 1 << 22  # results held at once
_NO_BLAS: Final = 1 << 30  # rows from which faiss multiplies matrices, whose sums depend on how many there are


def library() -> Any:
    """The ``faiss`` library, set so that a row's result depends on no other row. Raises MissingExtra."""
    try:
        import faiss  # noqa: PLC0415 - loaded when it is used
    except ImportError:
        raise MissingExtra("a datastore needs the library faiss", hint="pip install 'strongroom[lm]'") from None
    faiss.cvar.distance_compute_blas_threshold = _NO_BLAS
    return faiss


class Quantizer:
    """Centres of lists: which list a vector belongs to, and in which ones a query looks.

    Args:
        data: its file: safetensors with ``centres``, ``float32[lists, dimensions]``.

    Raises:
        BadManifest.
    """

    def __init__(self, data: bytes) -> None:
        found = unpacked(data)
        centres = found.get("centres")
        if set(found) != {"centres"} or centres is None or centres.dtype != np.float32 or centres.ndim != 2:
            raise BadManifest("the quantizer's file does not hold what it should")
        if not centres.size or not np.isfinite(centres).all():
            raise BadManifest("the quantizer's centres are no numbers")
        self.centres, self._data = np.ascontiguousarray(centres), data
        self.lists, self.dimensions = map(int, centres.shape)
        self.digest = f"sha256:{hashlib.sha256(data).hexdigest()}"

    @classmethod
    def train(cls, vectors: NDArray[np.float32], lists: int) -> Quantizer:
        """Cluster vectors of public text; ``lists`` of them are centres."""
        kmeans = library().Kmeans(
            vectors.shape[1], lists, niter=10, seed=1, spherical=True, min_points_per_centroid=1, verbose=False
        )
        kmeans.train(np.ascontiguousarray(vectors))
        return cls(packed({"centres": np.asarray(kmeans.centroids, np.float32)}))

    def encode(self) -> bytes:
        return self._data

    @cached_property
    def flat(self) -> Any:
        """The centres as faiss searches them."""
        found = library().IndexFlatIP(self.dimensions)
        found.add(self.centres)
        return found

    def lists_of(self, vectors: NDArray[np.float32], probes: int = 1) -> Lists:
        """The nearest centres of each vector, best first: their scores and numbers, ``[n, probes]`` each."""
        scores, numbers = self.flat.search(np.ascontiguousarray(vectors), probes)
        return scores, numbers

    def head(self, sizes: NDArray[np.int64]) -> bytes:
        """The first bytes of an index with lists of these sizes, up to the first list.

        Raises StoreTruncated: sizes that no index has.
        """
        faiss = library()
        if len(sizes) != self.lists or (len(sizes) and int(sizes.min()) < 0):
            raise StoreTruncated("an index has other lists than its quantizer")
        empty = faiss.IndexIVFFlat(self.flat, self.dimensions, self.lists, faiss.METRIC_INNER_PRODUCT)
        empty.is_trained = True
        found: bytes = faiss.serialize_index(empty).tobytes()
        # faiss: magic, dimensions, and then how many there are; at the end the lists: "ilar", lists, bytes of a vector,
        # "full", how many sizes, and the sizes.
        found = bytes(found[:8]) + struct.pack("<q", int(sizes.sum())) + found[16 : found.rindex(b"ilar")]
        lists = struct.pack("<QQ", self.lists, 4 * self.dimensions)
        return found + b"ilar" + lists + b"full" + struct.pack("<Q", self.lists) + sizes.astype("<i8").tobytes()


@dataclass(frozen=True)
class Hits:
    """What was found in one source.

    Attributes:
        scores: ``float32[n, k]``, best first; minus infinity where there is none.
        passages: ``int64[n, k]``, the chunks' numbers in their source; -1 where there is none.
    """

    scores: NDArray[np.float32]
    passages: NDArray[np.int64]


class Index:
    """The index of one source, searched where it lies.

    Args:
        path: of ``index.faiss``.
        quantizer: the store's.
        chunks: how many the source has.

    Raises:
        StoreTruncated: the file is not an index of so many chunks on this quantizer; faiss never sees it then.
    """

    def __init__(self, path: Path, quantizer: Quantizer, chunks: int) -> None:
        faiss = library()
        self.sizes = index_sizes(path, quantizer, chunks)
        self._faiss, self._quantizer, self.chunks = faiss, quantizer, chunks
        try:
            self._inner = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
        except RuntimeError:
            raise StoreTruncated("an index cannot be opened") from None
        self._lists = faiss.downcast_InvertedLists(self._inner.invlists)
        if hasattr(self._lists, "prefetch_nthread"):
            self._lists.prefetch_nthread = 0  # it would start threads for each question

    @property
    def size(self) -> int:
        """Bytes of all of its lists."""
        return self.chunks * (4 * self._quantizer.dimensions + ENTRY)

    def touched(self, lists: NDArray[np.int64]) -> int:
        """Bytes that a search in these lists reads at most."""
        return int(self.sizes[np.unique(lists)].sum()) * (4 * self._quantizer.dimensions + ENTRY)

    def release(self) -> None:
        """Have what was read of the file count no more as this process's memory; the system keeps it as long as it likes."""
        if sys.platform == "linux" and hasattr(self._lists, "ptr"):
            page = mmap.PAGESIZE
            begin = int(self._lists.ptr)
            size = int(self._lists.totsize)
            ctypes.CDLL(None).madvise(
                ctypes.c_void_p(begin - begin % page), ctypes.c_size_t(size + begin % page), _DONT_NEED
            )

    def search(
        self,
        vectors: NDArray[np.float32],
        lists: Lists,
        k: int,
        leave_out: NDArray[np.int64] | None = None,
        among: NDArray[np.bool_] | None = None,
    ) -> Hits:
        """The ``k`` best of each query, equal ones by number.

        Args:
            vectors: ``float32[n, dimensions]``.
            lists: of :meth:`Quantizer.lists_of`, which is the same for every source.
            leave_out: ``int64[n, 2]``, the first chunk that may not be found, and the first after it that may.
            among: ``bool[chunks]``, those that may be found at all; None for all.
        """
        chosen = None if among is None else self._faiss.IDSelectorBitmap(np.packbits(among, bitorder="little"))
        every = None if chosen is None else self._faiss.SearchParametersIVF(sel=chosen, nprobe=lists[1].shape[1])
        out = np.zeros((len(vectors), 2), np.int64) if leave_out is None else leave_out
        leaves = out[:, 1] > out[:, 0]
        scores, passages = np.full((len(vectors), k), -np.inf, np.float32), np.full((len(vectors), k), -1, np.int64)
        todo = [(np.flatnonzero(~leaves), k + 1, every), (np.flatnonzero(leaves), k + _SPARE, every)]
        while todo:  # each row by itself decides how far it is searched, so that no other row shows in what it finds
            rows, wide, params = todo.pop()
            step = max(1, _AT_ONCE // wide)
            if len(rows) > step:
                todo += [(rows[at : at + step], wide, params) for at in range(0, len(rows), step)]
                continue
            found, numbers = self._search(vectors[rows], (lists[0][rows], lists[1][rows]), wide, params)
            last, whole = found.min(axis=1, initial=np.inf), (numbers < 0).any(axis=1)
            left = (numbers >= out[rows, :1]) & (numbers < out[rows, 1:])
            best = _ordered(np.where(left, -np.inf, found).astype(np.float32), np.where(left, -1, numbers), k)
            scores[rows], passages[rows] = best.scores, best.passages
            # Of those that score like the last that was found, others may be behind it, with smaller numbers.
            more = rows[~whole & (best.scores[:, -1] <= last)]
            todo += [
                (more[(out[more] == pair).all(axis=1)], _WIDER * wide, self._but(pair, lists[1].shape[1], chosen))
                for pair in np.unique(out[more], axis=0)
            ]
        return Hits(scores, passages)

    def _but(self, pair: NDArray[np.int64], probes: int, chosen: Any) -> Any:
        """How faiss is told to pass over some chunks, and over all that are not ``chosen``."""
        selector = self._faiss.IDSelectorNot(self._faiss.IDSelectorRange(int(pair[0]), int(pair[1])))
        if chosen is not None:
            selector = self._faiss.IDSelectorAnd(selector, chosen)
        return self._faiss.SearchParametersIVF(sel=selector, nprobe=probes)

    def _search(
        self, vectors: NDArray[np.float32], lists: tuple[NDArray[np.float32], NDArray[np.int64]], k: int, params: Any = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        scores, numbers = map(np.ascontiguousarray, lists)
        vectors = np.ascontiguousarray(vectors)
        found, passages = np.empty((len(vectors), k), np.float32), np.empty((len(vectors), k), np.int64)
        self._inner.nprobe = numbers.shape[1]
        at = self._faiss.swig_ptr
        self._inner.search_preassigned_c(
            len(vectors), at(vectors), k, at(numbers), at(scores), at(found), at(passages), False, params
        )
        return found, passages


def _ordered(scores: NDArray[np.float32], passages: NDArray[np.int64], k: int) -> Hits:
    scores = np.where(passages < 0, -np.inf, scores).astype(np.float32)
    order = np.lexsort((passages, -scores), axis=1)[:, :k]
    return Hits(np.take_along_axis(scores, order, 1), np.take_along_axis(passages, order, 1))


# --- the file -------------------------------------------------------------------------------------------------------


def index_sizes(path: Path, quantizer: Quantizer, chunks: int) -> NDArray[np.int64]:
    """How many vectors each list of an index file has; the file is looked at as far as its first list.

    Raises StoreTruncated: its head is not the one that such a file has, or its length is another.
    """
    head = len(quantizer.head(np.zeros(quantizer.lists, np.int64)))
    with path.open("rb") as file:
        found = file.read(head)
        length = file.seek(0, 2)
    sizes = np.frombuffer(found[max(0, head - 8 * quantizer.lists) :], "<i8") if len(found) == head else np.empty(0, "<i8")
    if len(sizes) != quantizer.lists or int(sizes.min()) < 0 or int(sizes.max()) > chunks or int(sizes.sum()) != chunks:
        raise StoreTruncated("an index is not of as many chunks as its source")
    if quantizer.head(sizes) != found or length != head + chunks * (4 * quantizer.dimensions + ENTRY):
        raise StoreTruncated("an index is cut short, or was built on another quantizer")
    return sizes


def index_file(
    quantizer: Quantizer, sizes: NDArray[np.int64], lists: Iterable[tuple[NDArray[np.float32], NDArray[np.int64]]]
) -> Iterator[bytes]:
    """The bytes of an index, one list after the other: what faiss itself would write.

    Args:
        sizes: of each list.
        lists: of each list its vectors, ``float32[m, dimensions]``, and their numbers, ``int64[m]``, ascending.
    """
    yield quantizer.head(sizes)
    for (vectors, numbers), size in zip(lists, sizes, strict=True):
        if len(vectors) != size or len(numbers) != size:
            raise StoreTruncated("a list of an index is not whole")
        yield np.ascontiguousarray(vectors, "<f4").tobytes()
        yield np.ascontiguousarray(numbers, "<i8").tobytes()
