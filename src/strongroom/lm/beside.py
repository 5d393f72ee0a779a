"""One source while a text is read or written: its neighbours, what its pointer and its gate say, and how well it did so far.

The same as ``lm.gates``, a token at a time. That is too little work for torch to be worth its calls: the pointer's
arithmetic is numpy's here. Of what was read word for word only the places where it stands are kept, which are few.

Nothing here knows of another source.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .gates import (
    DECAYS,
    EPSILON,
    FARTHEST,
    LEVELS,
    NEIGHBOUR,
    NOTHING,
    PLACES,
    STAKES,
    RetrievalModel,
    keyed,
    table,
)
from .influence import GRAIN
from .tokenizer import END

_RUN: Final = 16
Floats = NDArray[np.float32]


def _array(tensor: Tensor) -> Floats:
    found: Floats = tensor.detach().float().numpy()
    return found


class Fixed:
    """What of a model's gates is the same for every source and token.

    Args:
        model: the model.
    """

    def __init__(self, model: RetrievalModel) -> None:
        gates = self.gates = model.gates
        self.level = np.array([sum(run >= level for level in LEVELS) for run in range(_RUN + 2)], np.int64)
        self.step = np.concatenate([[0], np.cumsum(_array(gates.lifts))]).astype(np.float32)[self.level]
        self.own, self.near = np.float32(gates.own.item()), np.float32(gates.near.item())
        self.seen, self.bias = np.ascontiguousarray(_array(gates.seen.weight)), _array(gates.seen.bias)
        self.gate, self.shut = _array(gates.gate.weight)[0], float(gates.gate.bias.item())
        self.keep = [(keep, 1 - keep) for keep in DECAYS]
        self.table = table(gates.embedding, gates.around)
        self.query, self.state = _array(gates.query.weight), _array(gates.state.weight)


class Now:
    """What the language model says where the text ends; of no source.

    Args:
        fixed: of the model.
        hidden: [width].
        logp: logarithms of the probabilities of all tokens.
    """

    def __init__(self, fixed: Fixed, hidden: Floats, logp: Floats) -> None:
        q = fixed.query @ hidden
        self.asked = q * np.float32(4 / math.sqrt(float(q @ q) + len(q) * EPSILON))
        self.state = fixed.bias + fixed.state @ hidden
        self.logp, self.top = logp, float(logp.max()) / 4


class Beside:
    """One source beside a text.

    Args:
        fixed: of the model.
        text: the tokens so far; whoever owns the list adds to it.
    """

    def __init__(self, fixed: Fixed, text: list[int]) -> None:
        self._fixed, self._text = fixed, text
        self._worth = [0.0] * (len(DECAYS) * len(STAKES))
        self._asked = False
        self._relevant = False
        self.last: Floats | None = None
        """What the pointer said when it was last asked, by place; None where there was nothing relevant."""

    def leave(self) -> None:
        """Nothing that was found is relevant."""
        self._asked, self._relevant = True, False

    def look(self, tokens: NDArray[Any], scores: NDArray[Any], passages: NDArray[Any]) -> None:
        """New neighbours: ``[k, 128]``, ``[k]`` and ``[k]``. Where none has a second token there is nothing to point at."""
        if not (tokens[:, 1:] > END).any():
            self.leave()
            return
        self._asked = True
        self._passages = passages
        self._scores = np.maximum(scores, FARTHEST).astype(np.float32)
        self._known = (-1, np.zeros(0, np.int64))
        self._said = [float(self._scores.max()) * 2 - 1, float(self._scores.mean()) * 2 - 1]
        near = torch.from_numpy(tokens.astype(np.int64))[None]
        self._rows = keyed(self._fixed.table, near, torch.float32)[0][0].numpy()
        self._relevant = True
        self.at = tokens[:, 1:].reshape(-1).astype(np.int64)
        self._closed = np.flatnonzero(self.at <= END)
        self._base = np.repeat(self._scores * self._fixed.near, PLACES)
        self._flat = np.ascontiguousarray(tokens).reshape(-1)
        self._begin()

    # --- what stands word for word ----------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._runs = np.zeros(len(self._flat), np.int64)
        self._stand: NDArray[np.int64] = np.zeros(0, np.int64)
        self._counted = max(0, len(self._text) - _RUN - 1)

    def _standing(self, token: int) -> NDArray[np.int64]:
        """Where a token stands in the neighbours."""
        if self._known[0] != token:
            self._known = (token, np.flatnonzero(self._flat == token) if token > END else np.zeros(0, np.int64))
        return self._known[1]

    def _places(self, token: int) -> NDArray[np.int64]:
        """The places of a token: where it stands, but as the first of a neighbour."""
        stand = self._standing(token)
        return (stand - stand // NEIGHBOUR - 1)[stand % NEIGHBOUR > 0]

    def _catch_up(self) -> None:
        """How many of the text's last tokens stand before each place, for all that was added to the text."""
        if len(self._text) - self._counted > _RUN + 1:
            self._begin()
        for token in self._text[self._counted :]:
            stand = self._standing(token)
            found = np.where(stand % NEIGHBOUR > 0, self._runs[stand - 1], 0) + 1
            self._runs[self._stand] = 0
            self._runs[stand] = np.minimum(found, _RUN + 1)
            self._stand = stand
        self._counted = len(self._text)

    # --- pointer and gate -------------------------------------------------------------------------------------------

    def says(self, now: Now) -> int | None:
        """The weight that is wanted for the next token, in grains; None where there is nothing relevant. ``last`` is the
        pointer then."""
        if not self._relevant:
            self.last = None
            return None
        fixed = self._fixed
        self._catch_up()
        stand = self._stand[self._stand % NEIGHBOUR < PLACES]
        runs, places = self._runs[stand], stand - stand // NEIGHBOUR
        likely = now.logp[self.at]
        score = self._rows @ now.asked
        score += likely * fixed.own
        score += self._base
        score[places] += fixed.step[runs]
        score[self._closed] = NOTHING
        top = score.max()
        score -= top
        np.exp(score, out=score)
        total = float(score.sum())
        score /= np.float32(total)
        level = fixed.level[runs]
        longest = float(level.max()) / len(LEVELS) if len(level) else 0.0
        followed = float(score[places] @ level) / len(LEVELS) if len(level) else 0.0
        seen = [*self._said, longest, longest > 0.2, longest > 0.45, longest > 0.6]
        seen += [followed, 1 / total, float(score @ likely) / 8, now.top, (float(top) + math.log(total)) / 10]
        x = fixed.seen @ np.array([*seen, *self._worth], np.float32) + now.state
        gate = max(-60.0, float(fixed.gate @ (x / (1 + np.exp(-x)))) + fixed.shut)
        self.last = score
        return int(GRAIN / (1 + math.exp(-gate)))

    def lay(self, token: int) -> float:
        """How much of the pointer lay on a token."""
        return 0.0 if self.last is None else float(self.last[self._places(token)].sum())

    def spread(self, size: int) -> NDArray[np.float64]:
        """The pointer, by token."""
        return np.bincount(self.at, weights=self.last, minlength=size).astype(np.float64, copy=False)

    def where(self, token: int) -> int:
        """The passage in which the pointer looked most for a token; where it looked for none, the nearest."""
        places, k = self._places(token), len(self._passages)
        if self.last is None or not len(places) or not self.last[places].any():
            return int(self._passages[0 if self.last is None else int(self.last.reshape(k, -1).sum(-1).argmax())])
        return int(self._passages[int(np.bincount(places // PLACES, self.last[places], k).argmax())])

    # --- how well it did --------------------------------------------------------------------------------------------

    def learn(self, token: int, own: float) -> None:
        """How well it did on a token: ``own`` is the logarithm of the language model's probability of it."""
        if self._asked:
            ratio = min(1000.0, self.lay(token) / (math.exp(own) + 1e-4))
            worth = [math.log((1 - share) + share * ratio) for share in STAKES]
            for number, (keep, rest) in enumerate(self._fixed.keep):
                for stake, one in enumerate(worth):
                    at = number * len(STAKES) + stake
                    self._worth[at] = self._worth[at] * keep + rest * one
