"""kNN-LM on what was found: places in neighbours whose states are most like that of the text, and what follows there.

Khandelwal and others 2020 (arXiv:1911.00172), with the decoder's last states as keys, and searched among the neighbours
instead of in an index of every token. Nothing is trained.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from strongroom.lm.gates import NEIGHBOUR, Found, RetrievalModel, hits
from strongroom.lm.tokenizer import END


class Nearest:
    """A reader.

    Args:
        model: whose decoder is used.
        share: of the mixture that comes from neighbours.
        temperature: by which likenesses are divided.
    """

    def __init__(self, model: RetrievalModel, share: float = 0.25, temperature: float = 0.05) -> None:
        self._model, self._share, self._temperature = model, share, temperature

    def logp(self, tokens: Tensor, found: Mapping[str, Found]) -> Tensor:
        every, decoder = self._model.shape.every, self._model.decoder
        own = self._model(tokens, {}).own
        if not found:
            return own  # type: ignore[no-any-return]
        batch, time = own.shape
        hidden, _ = decoder(tokens[:, :-1].long())
        query = torch.nn.functional.normalize(hidden, dim=-1).reshape(batch * time // every, every, -1)
        near = torch.cat([one.neighbours for one in found.values()], 2).flatten(0, 1)
        keys, _ = decoder(near.flatten(0, 1)[:, : NEIGHBOUR - 1].long())
        keys = torch.nn.functional.normalize(keys, dim=-1).reshape(len(near), -1, keys.shape[-1])
        scores = torch.bmm(query, keys.mT) / self._temperature
        scores = scores.masked_fill((near[..., 1:] <= END).flatten(-2)[:, None], -1e4)
        hit = hits(tokens[:, 1:].reshape(-1, every), near)
        copied = (scores.softmax(-1) * hit).sum(-1).view(batch, time)
        some = (near > END).flatten(1).any(1).repeat_interleave(every).view(batch, time)
        share = self._share * some
        return ((1 - share) * own.exp() + share * copied + 1e-9).log()  # type: ignore[no-any-return]
