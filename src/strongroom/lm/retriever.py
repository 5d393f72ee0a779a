"""What makes a passage findable: a vector for a chunk of tokens, from public text alone, and frozen.

The default weighs tokens and pairs of tokens by how rare they are in public text, and projects that on its main directions
(TF-IDF and a truncated singular value decomposition, "latent semantic analysis"). A vector depends on its own chunk and on
the frozen numbers, on nothing beside it: the same chunk has the same vector, bit for bit, in whatever batch it is worked
out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from strongroom.errors import BadManifest, MissingExtra, OtherParts

from .tokenizer import END, PAD

DIMENSIONS: Final = 128
FEATURES: Final = 16384  # tokens, and the pairs of tokens that the most chunks of public text hold
_BLOCK: Final = 4096  # chunks worked on at once
_SAMPLE: Final = 100_000  # chunks of public text that are learned from, at most


class Retriever(Protocol):
    """Gives a chunk of tokens its vector."""

    @property
    def kind(self) -> str:
        """Its name in ``parts.json``."""

    @property
    def digest(self) -> str:
        """Of all that its vectors depend on: ``sha256:…``."""

    @property
    def dimensions(self) -> int:
        """Numbers in a vector."""

    def embed(self, tokens: NDArray[Any]) -> NDArray[np.float32]:
        """Vectors of length 1, or 0 where nothing of a chunk is known.

        Args:
            tokens: ``int[n, w]``, each row a chunk, filled up with ``PAD``.

        Returns:
            ``float32[n, dimensions]``. A row depends on its own tokens alone.
        """

    def encode(self) -> bytes:
        """Its file."""


class TfIdf:
    """TF-IDF of tokens and pairs of tokens, projected.

    Args:
        data: its file, as :meth:`encode` wrote it: safetensors with ``pairs`` (``uint32[p]``, first token times 65,536 plus
            the second, ascending) and ``rows`` (``float16[tokens + p, dimensions]``: rarity times direction).

    Raises:
        BadManifest: it is none. MissingExtra.
    """

    kind: Final = "tfidf-svd"

    def __init__(self, data: bytes) -> None:
        found = unpacked(data)
        pairs, rows = found.get("pairs"), found.get("rows")
        if set(found) != {"pairs", "rows"} or pairs is None or rows is None:
            raise BadManifest("the retriever's file does not hold what it should")
        if pairs.dtype != np.uint32 or rows.dtype != np.float16 or pairs.ndim != 1 or rows.ndim != 2:
            raise BadManifest("the retriever's file does not hold what it should")
        if len(rows) <= len(pairs) or not np.all(pairs[1:] > pairs[:-1]) or not np.isfinite(rows).all():
            raise BadManifest("the retriever's numbers are not in their order, or are none")
        self._pairs, self._rows = pairs, np.ascontiguousarray(rows, np.float32)
        self._tokens = len(rows) - len(pairs)
        self._data = data
        self.digest = f"sha256:{hashlib.sha256(data).hexdigest()}"

    @property
    def dimensions(self) -> int:
        return int(self._rows.shape[1])

    def encode(self) -> bytes:
        return self._data

    @classmethod
    def train(
        cls, chunks: NDArray[Any], tokens: int, *, features: int = FEATURES, dimensions: int = DIMENSIONS, seed: int = 0
    ) -> TfIdf:
        """Learn what is rare, and the main directions.

        Args:
            chunks: ``int[n, w]`` of public text alone, filled up with ``PAD``.
            tokens: the vocabulary's size.
            features: tokens and pairs together, at most; in ties the smaller pair.
            dimensions: of a vector; fewer where there are fewer chunks or features.
            seed: of the decomposition's random start.
        """
        from sklearn.utils.extmath import randomized_svd  # noqa: PLC0415 - heavy

        if len(chunks) > _SAMPLE:
            chunks = chunks[np.linspace(0, len(chunks) - 1, _SAMPLE).astype(np.int64)]
        pairs = _frequent_pairs(chunks, max(0, features - tokens))
        counts = _counts(_features(chunks, pairs, tokens), len(chunks), tokens + len(pairs))
        present = np.bincount(counts.indices, minlength=tokens + len(pairs))
        rarity = np.log((1 + len(chunks)) / (1 + present)).astype(np.float32) + 1
        weighed = counts.multiply(rarity).tocsr().astype(np.float32)
        weighed = weighed.multiply(1 / np.maximum(_lengths(weighed), 1e-9)[:, None]).tocsr()
        rank = max(1, min(dimensions, *(side - 1 for side in weighed.shape)))
        _, _, directions = randomized_svd(weighed, rank, n_iter=4, random_state=seed)
        rows = np.zeros((tokens + len(pairs), dimensions), np.float32)
        rows[:, :rank] = directions.T * rarity[:, None]
        rows[[PAD, END]] = 0
        return cls(packed({"pairs": pairs, "rows": rows.astype(np.float16)}))

    def embed(self, tokens: NDArray[Any]) -> NDArray[np.float32]:
        out = np.empty((len(tokens), self.dimensions), np.float32)
        for at in range(0, len(tokens), _BLOCK):
            block = tokens[at : at + _BLOCK]
            found = _counts(_features(block, self._pairs, self._tokens), len(block), len(self._rows)) @ self._rows
            out[at : at + _BLOCK] = unit(found)
        return out


def unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of length 1; 0 stays 0."""
    lengths = np.sqrt(np.square(rows).sum(axis=1, keepdims=True))
    return np.asarray(rows / np.maximum(lengths, np.float32(1e-12)), np.float32)


def _features(chunks: NDArray[Any], pairs: NDArray[np.uint32], tokens: int) -> NDArray[np.int32]:
    """The features of each chunk, with repetitions; ``int32[n, 2w - 1]``, ``PAD`` where there is none.

    Raises OtherParts: a token is not of this vocabulary.
    """
    chunks = np.ascontiguousarray(chunks, np.int64)
    if chunks.size and not 0 <= int(chunks.min()) <= int(chunks.max()) < tokens:
        raise OtherParts("tokens are of another vocabulary than the retriever's")
    out = np.full((len(chunks), max(0, 2 * chunks.shape[1] - 1)), PAD, np.int32)
    out[:, : chunks.shape[1]] = chunks
    if len(pairs) and chunks.shape[1] > 1:
        codes = (chunks[:, :-1] << 16 | chunks[:, 1:]).astype(np.uint32)
        at = np.searchsorted(pairs, codes)
        at[at == len(pairs)] = 0
        out[:, chunks.shape[1] :] = np.where(pairs[at] == codes, tokens + at, PAD)
    return out


def _counts(features: NDArray[np.int32], rows: int, columns: int) -> Any:
    """How often each chunk has each feature, dampened to one plus the logarithm: a sparse matrix, ``PAD`` left out."""
    from scipy.sparse import csr_matrix  # noqa: PLC0415 - heavy

    features = np.sort(features, axis=1)
    first = np.ones(features.shape, bool)
    first[:, 1:] = features[:, 1:] != features[:, :-1]
    starts = np.flatnonzero(first)
    counts = np.diff(np.append(starts, features.size))
    columns_of = features.reshape(-1)[starts]
    known = columns_of > END
    heads = np.concatenate([[0], np.cumsum((first & (features > END)).sum(axis=1))])
    values = _DAMPED[np.minimum(counts[known], len(_DAMPED) - 1)]
    return csr_matrix((values, columns_of[known], heads), shape=(rows, columns))


_DAMPED: Final = np.concatenate([[0], 1 + np.log(np.arange(1, 1024))]).astype(np.float32)


def _lengths(matrix: Any) -> NDArray[np.float32]:
    return np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1), np.float32)).reshape(-1)


def _frequent_pairs(chunks: NDArray[Any], most: int) -> NDArray[np.uint32]:
    """The pairs of neighbouring tokens that the most chunks hold, ascending."""
    if not most:
        return np.empty(0, np.uint32)
    found: NDArray[np.uint32] = np.empty(0, np.uint32)
    counts: NDArray[np.int64] = np.empty(0, np.int64)
    for at in range(0, len(chunks), _BLOCK * 4):
        block = np.ascontiguousarray(chunks[at : at + _BLOCK * 4], np.int64)
        codes = np.where((block[:, :-1] > END) & (block[:, 1:] > END), block[:, :-1] << 16 | block[:, 1:], 0)
        codes.sort(axis=1)
        codes[:, 1:][codes[:, 1:] == codes[:, :-1]] = 0
        new, often = np.unique(codes[codes > 0], return_counts=True)
        found, where = np.unique(np.concatenate([found, new.astype(np.uint32)]), return_inverse=True)
        counts = np.bincount(where, np.concatenate([counts, often]), minlength=len(found)).astype(np.int64)
    order = np.lexsort((found, -counts))[:most]
    return np.sort(found[order])


def unpacked(data: bytes) -> dict[str, NDArray[Any]]:
    try:
        from safetensors.numpy import load  # noqa: PLC0415
    except ImportError:
        raise MissingExtra("a datastore needs the library safetensors", hint="pip install 'strongroom[lm]'") from None
    try:
        found: dict[str, NDArray[Any]] = load(data)
    except Exception as error:  # the library raises nothing more precise
        raise BadManifest("a frozen part of the store cannot be read") from error
    return found


def packed(tensors: dict[str, NDArray[Any]]) -> bytes:
    from safetensors.numpy import save  # noqa: PLC0415

    return bytes(save(tensors))


def chunked(documents: Iterable[NDArray[Any]], width: int) -> NDArray[np.uint16]:
    """Documents cut into chunks, the last of each filled up with ``PAD``; ``uint16[n, width]``."""
    found = []
    for tokens in documents:
        rows = -(-len(tokens) // width)
        padded = np.full(rows * width, PAD, np.uint16)
        padded[: len(tokens)] = tokens
        found.append(padded.reshape(rows, width))
    return np.concatenate(found) if found else np.empty((0, width), np.uint16)
