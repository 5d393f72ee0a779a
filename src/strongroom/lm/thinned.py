"""A store with a share of its documents alone, to measure what more text is worth.

What is found in it is what would be found in a store that was built of these documents and on the same frozen parts, with
other numbers of passages. It has no version, and nothing that is found in it is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from strongroom.errors import BadTraining

from .datastore import Datastore, Neighbours

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .source import Source
    from .tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Thinned:
    """A part of a store.

    Attributes:
        store: the whole.
        among: of each source which passages are in the part, ``bool[chunks]``.
    """

    store: Datastore
    among: Mapping[str, NDArray[np.bool_]]

    @classmethod
    def of(cls, store: Datastore, thousandths: int, seed: int = 0) -> Thinned:
        """Draw documents of each source, at least one; those of a smaller share are among those of a larger one.

        Raises BadTraining: a share is 1 to 1000 parts in a thousand.
        """
        if not 1 <= thousandths <= 1000:
            raise BadTraining("a share of a store is 1 to 1000 parts in a thousand")
        among = {}
        for name in store.names:
            source = store.source(name)
            drawn = np.random.default_rng((seed, source.key)).random(source.manifest.documents)
            kept = drawn <= max(thousandths / 1000, float(drawn.min()))
            among[name] = np.repeat(kept, np.diff(source.passages).astype(np.int64))
        return cls(store, among)

    @property
    def names(self) -> list[str]:
        return self.store.names

    @property
    def tokenizer(self) -> Tokenizer:
        return self.store.tokenizer

    def source(self, name: str) -> Source:
        """The whole source. Raises NoSource."""
        return self.store.source(name)

    def drawn(self, name: str, random: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.int64]:
        """Passages of the part, drawn at random."""
        return random.choice(np.flatnonzero(self.among[name]), shape).astype(np.int64)

    def nearest(self, queries: NDArray[Any], k: int, without: NDArray[np.int64] | None = None) -> dict[str, Neighbours]:
        """As ``Datastore.nearest``, of the part."""
        return self.store.neighbours(self.store.search(queries, k, without, among=self.among))
