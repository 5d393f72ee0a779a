"""Chunked cross-attention: the text looks into encoded neighbours, and what it sees is added to its states.

Borgeaud and others 2022 (RETRO, arXiv:2112.04426), as one layer above the decoder, which begins as doing nothing. Its
sources cannot be told apart, so that nothing is metered with it: it is here to be compared with.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from strongroom.lm.gates import Found, Norm, RetrievalModel
from strongroom.lm.tokenizer import END


class Cross(nn.Module):
    """A reader with weights of its own.

    Args:
        model: whose decoder is used, and trained along where its weights ask for gradients.
        seed: of the weights that it begins with.
    """

    def __init__(self, model: RetrievalModel, seed: int = 0) -> None:
        super().__init__()
        width = model.shape.width
        self.model = model
        self.norm, self.seen = Norm(width), Norm(width)
        self.mix = nn.Conv1d(width, width, 3, padding=1)
        self.attention = nn.MultiheadAttention(width, model.shape.heads, batch_first=True)
        with torch.no_grad():
            generator = torch.Generator().manual_seed(seed)
            for weight in (self.mix.weight, self.attention.in_proj_weight):
                weight.normal_(std=width**-0.5 / 2, generator=generator)
            self.attention.out_proj.weight.zero_()

    def logp(self, tokens: Tensor, found: Mapping[str, Found]) -> Tensor:
        shape, decoder = self.model.shape, self.model.decoder
        hidden, _ = decoder(tokens[:, :-1].long())
        batch, time, width = hidden.shape
        if found:
            near = torch.cat([one.neighbours for one in found.values()], 2).flatten(0, 1).flatten(1)
            read = decoder.embedding(near.long())
            keys = self.seen(read + self.mix(read.mT).mT)
            query = self.norm(hidden).reshape(-1, shape.every, width)
            closed = (near <= END).index_fill(1, torch.tensor([0], device=near.device), False)
            looked, _ = self.attention(query, keys, keys, key_padding_mask=closed, need_weights=False)
            hidden = hidden + looked.reshape(batch, time, width)
        logits = hidden @ decoder.embedding.weight.T
        return logits.log_softmax(-1).gather(-1, tokens[:, 1:, None].long()).squeeze(-1)  # type: ignore[no-any-return]
