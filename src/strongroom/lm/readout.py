"""Reading the vocabulary: how likely each token asked for is, and each token that stands in a neighbour.

By blocks of positions, whose scores stay in the processor's cache and are never kept: the backward pass works them out anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

_BLOCK: Final = 512


def _scores(hidden: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    scores = (hidden @ table.T).float()
    return scores, torch.logsumexp(scores, -1, keepdim=True)


class _Read(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917
        ctx: Any, hidden: Tensor, weight: Tensor, wanted: Tensor, places: Sequence[Tensor], every: int
    ) -> tuple[Tensor, ...]:
        table = weight.to(hidden.dtype)
        block = max(every, _BLOCK // every * every)
        own, top, sums = (torch.empty(len(hidden), device=hidden.device) for _ in range(3))
        likely = [torch.empty(len(hidden), one.shape[1], dtype=hidden.dtype, device=hidden.device) for one in places]
        for at in range(0, len(hidden), block):
            part = slice(at, min(at + block, len(hidden)))
            scores, total = _scores(hidden[part], table)
            own[part] = (scores.gather(-1, wanted[part, None]) - total).squeeze(-1)
            top[part] = scores.amax(-1) - total.squeeze(-1)
            sums[part] = total.squeeze(-1)
            for out, one in zip(likely, places, strict=True):
                of = one[at // every : part.stop // every].repeat_interleave(every, 0)
                out[part] = (scores.gather(-1, of) - total).to(hidden.dtype)
        ctx.save_for_backward(hidden, table, wanted, sums)
        ctx.mark_non_differentiable(top, *likely)
        return own, top, *likely

    @staticmethod
    def backward(ctx: Any, by: Tensor, *_rest: Tensor) -> tuple[Tensor | None, ...]:
        hidden, table, wanted, sums = ctx.saved_tensors
        by_hidden, by_table = torch.empty_like(hidden), torch.zeros(table.shape, device=hidden.device)
        for at in range(0, len(hidden), _BLOCK):
            part = slice(at, at + _BLOCK)
            share = ((hidden[part] @ table.T).float() - sums[part, None]).exp_().neg_()
            share.scatter_add_(-1, wanted[part, None], torch.ones_like(sums[part, None]))
            back = share.mul_(by[part, None]).to(hidden.dtype)
            by_hidden[part] = back @ table
            by_table += back.T @ hidden[part]
        return by_hidden, by_table, None, None, None


def read(
    hidden: Tensor, weight: Tensor, wanted: Tensor, places: Sequence[Tensor], every: int
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Read the vocabulary.

    Args:
        hidden: [batch, time, width]; ``time`` is a multiple of ``every``.
        weight: of the vocabulary, [tokens, width].
        wanted: ``int64[batch, time]``.
        places: of each source the token at each place, ``int64[batch * time / every, places]``.
        every: positions that share a list of places.

    Returns:
        The logarithm of each wanted token's probability, and of the likeliest one's, [batch, time] each; and of each source
        those of the tokens at its places, [batch * time / every, every, places], through which nothing is learned.
    """
    found = _Read.apply(hidden.flatten(0, 1), weight, wanted.flatten(), list(places), every)  # type: ignore[no-untyped-call]
    own, top, *likely = found
    return own.view(wanted.shape), top.view(wanted.shape), [one.view(-1, every, one.shape[-1]) for one in likely]
