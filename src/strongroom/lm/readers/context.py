"""In-context retrieval: the nearest passage of all sources, put before the text, for each stretch anew. Nothing is trained.

Ram and others 2023 (arXiv:2302.00083).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from strongroom.lm.gates import NEIGHBOUR, Found, RetrievalModel
from strongroom.lm.tokenizer import END


class Context:
    """A reader.

    Args:
        model: whose decoder is used.
    """

    def __init__(self, model: RetrievalModel) -> None:
        self._model = model

    def logp(self, tokens: Tensor, found: Mapping[str, Found]) -> Tensor:
        if not found:
            return self._model(tokens, {}).own  # type: ignore[no-any-return]
        shape, decoder = self._model.shape, self._model.decoder
        scores = torch.cat([one.scores for one in found.values()], -1)
        near = torch.cat([one.neighbours for one in found.values()], 2)
        best = near.gather(2, scores.argmax(-1)[..., None, None].expand(-1, -1, 1, NEIGHBOUR)).squeeze(2)
        out = []
        for stretch in range(scores.shape[1]):
            begin = stretch * shape.every
            first = max(0, begin - (shape.context - NEIGHBOUR - shape.every))
            passage = best[:, stretch].long()
            passage = torch.where(passage > END, passage, END)
            text = torch.cat([passage, tokens[:, first : begin + shape.every].long()], 1)
            hidden, _ = decoder(text)
            logits = hidden[:, -shape.every :] @ decoder.embedding.weight.T
            wanted = tokens[:, begin + 1 : begin + 1 + shape.every].long()
            out.append(logits.log_softmax(-1).gather(-1, wanted[..., None]).squeeze(-1))
        return torch.cat(out, 1)
