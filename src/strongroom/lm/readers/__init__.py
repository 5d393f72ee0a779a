"""Ways to read neighbours, behind one interface, to be compared: what each makes of the same windows and the same
neighbours.

gates        lm.gates: a pointer and a gate for each source; the one that sources can be metered and taken out with
cross        readers.cross: chunked cross-attention (RETRO)
nearest      readers.nearest: the language model's own states, compared (kNN-LM); nothing to train
in-context   readers.context: the best passage put before the text; nothing to train
none         the language model alone
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from strongroom.lm.influence import GRAIN, MOST

if TYPE_CHECKING:
    from torch import Tensor

    from strongroom.lm.gates import Found, RetrievalModel


class Reader(Protocol):
    """Reads windows with what was found for them."""

    def logp(self, tokens: Tensor, found: Mapping[str, Found]) -> Tensor:
        """The logarithm of the probability of each token asked for.

        Args:
            tokens: ``int32[batch, time + 1]``, each but the first is asked for.
            found: by source, for each stretch of ``every`` tokens.

        Returns:
            ``float32[batch, time]``.
        """


class Gates:
    """``lm.gates``, as a reader."""

    def __init__(self, model: RetrievalModel) -> None:
        self._model = model

    def logp(self, tokens: Tensor, found: Mapping[str, Found]) -> Tensor:
        return self._model(tokens, found).mixed(MOST / GRAIN)  # type: ignore[no-any-return]


class Alone:
    """No neighbours at all."""

    def __init__(self, model: RetrievalModel) -> None:
        self._model = model

    def logp(self, tokens: Tensor, found: Mapping[str, Found]) -> Tensor:  # noqa: ARG002 - the interface
        return self._model(tokens, {}).own  # type: ignore[no-any-return]
