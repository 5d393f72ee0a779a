"""BM25 over tokens (``bm25s``): an option to search chunks that are in memory, and what the default is compared with
(``bench/retrievers.py``). Its weights are counted over all of its chunks, so each source has one of its own: else what one
source holds would change what is found in another."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from strongroom.errors import MissingExtra

from .nearest import Hits
from .tokenizer import END


class Bm25:
    """Chunks that can be searched by BM25.

    Args:
        chunks: ``int[n, w]``, filled up with ``PAD``.
        tokens: the vocabulary's size.

    Raises:
        MissingExtra.
    """

    def __init__(self, chunks: NDArray[Any], tokens: int) -> None:
        try:
            import bm25s  # noqa: PLC0415 - loaded when it is used
        except ImportError:
            raise MissingExtra("BM25 needs bm25s", hint="pip install 'strongroom[retrievers]'") from None
        self._inner = bm25s.BM25()
        self._inner.index((_words(chunks), {str(token): token for token in range(tokens)}), show_progress=False)

    def nearest(self, queries: NDArray[Any], k: int) -> Hits:
        """The ``k`` best chunks of each query.

        Args:
            queries: ``int[n, w]``, filled up with ``PAD``.
            k: at most as many as there are chunks.
        """
        scores = np.stack([self._inner.get_scores_from_ids(words) for words in _words(queries)])
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return Hits(np.take_along_axis(scores, best, 1).astype(np.float32), best.astype(np.int64))


def _words(chunks: NDArray[Any]) -> list[list[int]]:
    return [row[row > END].tolist() for row in np.asarray(chunks)]
