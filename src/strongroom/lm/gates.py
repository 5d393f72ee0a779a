"""The retrieval model: a language model that may copy, from each source as much as its gate lets through.

    p(next) = (1 - g_1 - ... - g_n) * p_lm(next) + g_1 * copy_1(next) + ... + g_n * copy_n(next)

A decoder gives ``p_lm``; it sees no source. For each source there is, of each stretch of ``every`` tokens, a list of
``neighbours`` passages that its index found. A shallow encoder reads them; a pointer looks at every place in them, and
gives ``copy_s``: how likely each place is to be the one that the text goes on like. A gate ``g_s`` says how much of that
counts.

The pointer's score of a place is the sum of: what decoder and encoder agree on; how many tokens before the place are those
before the token that is asked for, word for word; how likely the decoder itself finds the token that stands there; and how
near the passage is. The gate knows the same, and how well the source did on the tokens just before: a source that is of no
use is noticed within a few tokens, and gets next to nothing.

What a source's copy and gate are depends on the decoder, the text so far and that source: on no other source. Nothing is
worked out for two sources at once, so that leaving one out leaves every number of the others as it was, bit for bit.

Sources: pointers, See and others 2017 (arXiv:1704.04368); lists that are asked for again every few tokens, Borgeaud and
others 2022 (RETRO, arXiv:2112.04426); copying after equal tokens, Olsson and others 2022 (arXiv:2209.11895).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - as everyone writes it

from strongroom.errors import BadModel

from .readout import read
from .tokenizer import END

NEIGHBOUR: Final = 128
PLACES: Final = NEIGHBOUR - 1
"""Places of a neighbour that can be copied: each of its tokens but the first."""
LEVELS: Final = (1, 2, 3, 5, 8, 16)
"""Equal tokens before a place, word for word, at which its score rises."""
DECAYS: Final = (0.8, 0.97)
"""What a token leaves of what was known of a source before it."""
STAKES: Final = (0.05, 0.5)
_FEATURES: Final = 11 + len(DECAYS) * len(STAKES)
_GATE: Final = 32
_AT_ONCE: Final = 1 << 18
EPSILON: Final = torch.finfo(torch.float32).eps
NOTHING: Final = -30.0
FARTHEST: Final = -1.0
"""The score of a neighbour that is not there."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a model.

    Attributes:
        vocabulary: tokens that the tokenizer knows.
        width, heads, feed_forward, layers: of the decoder.
        context: tokens that it sees at once at most.
        key: numbers that a place in a neighbour is known by.
        every: tokens after which neighbours are looked for again; divides ``context``.
        neighbours: of each source.
    """

    vocabulary: int = 4096
    width: int = 192
    heads: int = 3
    feed_forward: int = 512
    layers: int = 3
    context: int = 512
    key: int = 64
    every: int = 32
    neighbours: int = 4

    def __post_init__(self) -> None:
        """Raises BadModel."""
        sizes = asdict(self).values()
        if any(type(size) is not int or not 0 < size <= 1 << 20 for size in sizes):
            raise BadModel("a size of the model is out of its range")
        if self.width % (2 * self.heads) or self.context % self.every:
            raise BadModel("the model's sizes do not go together")

    def as_dict(self) -> dict[str, int]:
        return asdict(self)

    @classmethod
    def of(cls, said: object) -> Self:
        """Raises BadModel: not the members of a shape."""
        if not isinstance(said, dict) or set(said) != {field.name for field in fields(cls)}:
            raise BadModel("the model's file does not say its sizes")
        return cls(**said)


# --- the decoder ----------------------------------------------------------------------------------------------------


class Norm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        y = x.float()
        return (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + 1e-5) * self.weight).to(x.dtype)


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Rotary positions by halves. ``x`` [..., time, head], ``angles`` [2, time, head / 2]."""
    a, b = x.float().chunk(2, -1)
    cos, sin = angles
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1).to(x.dtype)


Cache = list[tuple[Tensor, Tensor]]
"""Keys and values of each layer, [batch, heads, time, head]."""


class Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self.heads = shape.heads
        self.norm1, self.norm2 = Norm(width), Norm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.gate_up = nn.Linear(width, 2 * shape.feed_forward, bias=False)
        self.down = nn.Linear(shape.feed_forward, width, bias=False)

    def forward(self, x: Tensor, angles: Tensor, past: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        batch, time, width = x.shape
        qkv = F.linear(self.norm1(x), self.qkv.weight.to(x.dtype))
        q, k, v = qkv.view(batch, time, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        q, k = rotate(q, angles), rotate(k, angles)
        mask = None
        if past is not None:
            k, v = torch.cat((past[0], k), 2), torch.cat((past[1], v), 2)
            mask = torch.ones(time, k.shape[2], dtype=torch.bool, device=x.device).tril(k.shape[2] - time)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        x = x + F.linear(y.transpose(1, 2).reshape(batch, time, width), self.out.weight.to(x.dtype))
        gate, up = F.linear(self.norm2(x), self.gate_up.weight.to(x.dtype)).chunk(2, -1)
        return x + F.linear(F.silu(gate) * up, self.down.weight.to(x.dtype)), (k, v)


class Decoder(nn.Module):
    """A decoder of its own; the table of embeddings is read from at both ends."""

    angles: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = Norm(shape.width)
        half = shape.width // shape.heads
        turns = torch.arange(shape.context)[:, None] * 10_000.0 ** (-torch.arange(0, half, 2) / half)
        self.register_buffer("angles", torch.stack((turns.cos(), turns.sin())), persistent=False)

    def forward(self, tokens: Tensor, dtype: torch.dtype = torch.float32, past: Cache | None = None) -> tuple[Tensor, Cache]:
        """Tokens [batch, time] to what the vocabulary is read from [batch, time, width], and the cache that comes of it."""
        begin = past[0][0].shape[2] if past else 0
        angles = self.angles[:, begin : begin + tokens.shape[1]]
        x, cache = self.embedding(tokens).to(dtype), []
        for number, layer in enumerate(self.layers):
            x, kept = layer(x, angles, past[number] if past else None)
            cache.append(kept)
        return self.norm(x), cache


# --- what stands word for word --------------------------------------------------------------------------------------


def levels(before: Tensor, neighbours: Tensor) -> Tensor:
    """How far what stands before each place is what stands before each token asked for, as a count of ``LEVELS`` reached.

    Args:
        before: ``int[n, 16 + time]``, the tokens that end with the one before each that is asked for, and 16 before them.
        neighbours: ``int[n, k, NEIGHBOUR]``.

    Returns:
        ``uint8[n, time, k * PLACES]``.
    """
    one = (before[:, :, None, None] == neighbours[:, None]) & (neighbours > END)[:, None]

    def earlier(equal: Tensor, by: int) -> Tensor:
        out = torch.zeros_like(equal)
        out[:, by:, :, by:] = equal[:, :-by, :, :-by]
        return out

    two = one & earlier(one, 1)
    three = two & earlier(one, 2)
    five = three & earlier(two, 3)
    eight = five & earlier(three, 5)
    runs = (one, two, three, five, eight, eight & earlier(eight, 8))
    found = one.new_zeros(len(one), one.shape[1] - 16, one.shape[2], PLACES, dtype=torch.uint8)
    for run in runs:
        found += run.view(torch.uint8)[:, 16:, :, :-1]
    return found.flatten(-2)


def hits(wanted: Tensor, neighbours: Tensor) -> Tensor:
    """At which places the token asked for stands: ``bool[n, time, k * PLACES]`` of ``int[n, time]`` and ``int[n, k,
    NEIGHBOUR]``."""
    after = neighbours[:, None, :, 1:]
    return ((wanted[:, :, None, None] == after) & (after > END)).flatten(-2)


# --- pointer and gate -----------------------------------------------------------------------------------------------


def _attend(  # noqa: PLR0917
    raw: Tensor, lifts: Tensor, near: Tensor, own: Tensor, scores: Tensor, likely: Tensor, level: Tensor, open_: Tensor
) -> tuple[Tensor, Tensor]:
    """The pointer [n, time, places], and what the gate learns of it [n, time, 5]."""
    places = raw.shape[-1]
    k = scores.shape[-1]
    step = torch.cat([lifts.new_zeros(1), lifts.cumsum(0)])
    s = raw.float() + step[level.int()] + likely.float() * own
    s = s + (scores * near)[:, None, :, None].expand(-1, 1, k, places // k).reshape(-1, 1, places)
    s = torch.where(open_[:, None], s, NOTHING)
    top = s.amax(-1, keepdim=True)
    e = (s - top).exp()
    z = e.sum(-1, keepdim=True)
    a = e / z
    seen = (
        level.amax(-1).float() / len(LEVELS),
        (a * level).sum(-1) / len(LEVELS),
        1 / z.squeeze(-1),
        (a * likely.float()).sum(-1) / 8,
        (top + z.log()).squeeze(-1) / 10,
    )
    return a, torch.stack(seen, -1)


class _Pointer(torch.autograd.Function):
    """What the pointer gives to the token asked for, [n, time]; its gradient in closed form, which is far less to
    compute."""

    @staticmethod
    def forward(ctx: Any, *given: Tensor) -> tuple[Tensor, Tensor]:
        raw, lifts, near, own, *rest, hit = given
        scores, likely, level, _open = rest
        kept, copied = torch.empty_like(raw), torch.empty(raw.shape[:2], device=raw.device)
        seen = torch.empty((*raw.shape[:2], 5), device=raw.device)
        for part in _rows(raw):
            a, seen[part] = _attend(raw[part], lifts, near, own, *(one[part] for one in rest))
            copied[part] = (a * hit[part]).sum(-1)
            kept[part] = a
        ctx.save_for_backward(kept, copied, scores, likely, level, hit)
        ctx.mark_non_differentiable(seen)
        return copied, seen

    @staticmethod
    def backward(ctx: Any, *by: Tensor) -> tuple[Tensor | None, ...]:
        kept, copied, scores, likely, level, hit = ctx.saved_tensors
        back, k = torch.empty_like(kept), scores.shape[-1]
        at_level = torch.zeros(len(LEVELS) + 1, dtype=torch.float64, device=kept.device)
        near, own = at_level[0].clone(), at_level[0].clone()
        for part in _rows(kept):
            ds = kept[part].float() * (hit[part].float() - copied[part][..., None]) * by[0][part][..., None]
            at_level += torch.bincount(level[part].flatten(), ds.flatten(), len(at_level))
            near += (ds.sum(1).view(-1, k, ds.shape[-1] // k).sum(-1) * scores[part]).sum()
            own += (ds * likely[part]).sum()
            back[part] = ds
        lifts = at_level.flip(0).cumsum(0).flip(0)[1:]
        return back, lifts.float(), near.float(), own.float(), None, None, None, None, None


class _Keys(torch.autograd.Function):
    """What places are known by: the sum of what each of four tokens has in a table of its own, made as long as others.

    As ``rms_norm(concatenated embeddings @ around)``, without ever having them side by side.
    """

    @staticmethod
    def forward(ctx: Any, neighbours: Tensor, embedding: Tensor, around: Tensor, dtype: torch.dtype) -> Tensor:
        keys, scale = keyed(table(embedding, around), neighbours, dtype)
        padded = F.pad(neighbours, (2, 0), value=len(embedding))
        ctx.save_for_backward(padded, embedding, around, keys, scale)
        return keys

    @staticmethod
    def backward(ctx: Any, by: Tensor) -> tuple[Tensor | None, ...]:
        padded, embedding, around, keys, scale = ctx.saved_tensors
        back = torch.empty(keys.shape, device=keys.device)
        for part in _rows(keys):
            d, x = by[part].float(), keys[part].float()
            back[part] = (d - x * (d * x).mean(-1, keepdim=True)).mul_(scale[part])
        flat, width = back.view(-1, embedding.shape[1]), embedding.shape[1]
        by_embedding, by_around = torch.zeros_like(embedding), torch.empty_like(around)
        for at in range(4):
            tokens = padded[:, :, at : at + PLACES].reshape(-1)
            summed = torch.ops.aten.embedding_dense_backward(flat, tokens, len(embedding) + 1, -1, False)[:-1]
            by_embedding += summed @ around[at * width : (at + 1) * width].T
            by_around[at * width : (at + 1) * width] = embedding.T @ summed
        return None, by_embedding, by_around, None


def table(embedding: Tensor, around: Tensor) -> Tensor:
    """What a token gives to a place, by where it stands, one after the other; the last row of each is of no token."""
    return torch.cat([F.pad(embedding @ part, (0, 0, 0, 1)) for part in around.chunk(4)])


def keyed(given: Tensor, neighbours: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Keys [n, k * PLACES, key] of neighbours by a :func:`table`, and what each was made shorter by."""
    size, width = len(given) // 4, given.shape[1]
    padded = F.pad(neighbours, (2, 0), value=size - 1).unfold(-1, 4, 1)[:, :, :PLACES]
    keys = torch.empty(len(neighbours), neighbours.shape[1] * PLACES, width, dtype=dtype, device=given.device)
    scale = torch.empty(*keys.shape[:2], 1, device=given.device)
    where = torch.arange(0, len(given), size, device=given.device)
    for part in _rows(keys):
        x = F.embedding_bag((padded[part] + where).view(-1, 4), given, mode="sum").view(keys[part].shape)
        scale[part] = torch.rsqrt(torch.linalg.vector_norm(x, dim=-1, keepdim=True).square() / width + EPSILON)
        keys[part] = x.mul_(scale[part])
    return keys, scale


def _rows(scores: Tensor) -> Iterator[slice]:
    """Rows at a time whose scores stay in the processor's cache."""
    some = max(1, _AT_ONCE // (scores.shape[1] * scores.shape[2]))
    for at in range(0, len(scores), some):
        yield slice(at, at + some)


class Gates(nn.Module):
    """The encoder of neighbours, the pointer into them, and the gate: the same for every source."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Parameter(torch.empty(shape.vocabulary, shape.key))
        self.around = nn.Parameter(torch.empty(4 * shape.key, shape.key))
        self.query = nn.Linear(shape.width, shape.key, bias=False)
        self.lifts = nn.Parameter(torch.full((len(LEVELS),), 1.2))
        self.own = nn.Parameter(torch.tensor(0.5))
        self.near = nn.Parameter(torch.tensor(1.0))
        self.seen = nn.Linear(_FEATURES, _GATE)
        self.state = nn.Linear(shape.width, _GATE, bias=False)
        self.gate = nn.Linear(_GATE, 1)

    def keys(self, neighbours: Tensor, dtype: torch.dtype) -> Tensor:
        """Neighbours ``int[n, k, NEIGHBOUR]`` to what each place is known by, [n, k * PLACES, key]: three tokens before the
        place, and the one at it."""
        found: Tensor = _Keys.apply(neighbours, self.embedding, self.around, dtype)  # type: ignore[no-untyped-call]
        return found

    def asked(self, hidden: Tensor) -> Tensor:
        """Hidden [..., width] to what places are compared with, [..., key]."""
        q = F.rms_norm(F.linear(hidden.float(), self.query.weight), (self.shape.key,))
        return torch.mul(q, 4 * self.shape.key**-0.5)

    def raw(self, hidden: Tensor, keys: Tensor) -> Tensor:
        """Hidden [n, time, width] and keys [n, places, key] to scores [n, time, places]."""
        return torch.bmm(self.asked(hidden).to(keys.dtype), keys.mT)

    def point(  # noqa: PLR0917
        self, hidden: Tensor, keys: Tensor, scores: Tensor, likely: Tensor, level: Tensor, open_: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The pointer at every place, and what the gate learns of it; to generate with."""
        return _attend(self.raw(hidden, keys), self.lifts, self.near, self.own, scores, likely, level, open_)

    def copied(  # noqa: PLR0917
        self, hidden: Tensor, keys: Tensor, scores: Tensor, likely: Tensor, level: Tensor, open_: Tensor, hit: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What the pointer gives to the tokens asked for, and what the gate learns; to train and to measure with."""
        given = (scores, likely, level, open_, hit)
        return _Pointer.apply(self.raw(hidden, keys), self.lifts, self.near, self.own, *given)  # type: ignore[no-untyped-call,no-any-return]

    def let(self, hidden: Tensor, seen: Tensor, scores: Tensor, top: Tensor, record: Tensor) -> Tensor:
        """The gate, 0 to 1, [...]. Nothing is learned through what it sees.

        Args:
            hidden: [..., width].
            seen: [..., 5], of the pointer.
            scores: [..., k], how near the neighbours are.
            top: [...], how likely the decoder finds the token that it finds likeliest, as a logarithm.
            record: [..., 4], of :func:`stakes`, so far.
        """
        level = seen[..., 0]
        f = [scores.amax(-1) * 2 - 1, scores.mean(-1) * 2 - 1, level]
        f += [(level > limit).float() for limit in (0.2, 0.45, 0.6)]
        f += [seen[..., 1], seen[..., 2], seen[..., 3], top / 4, seen[..., 4]]
        features = torch.cat([torch.stack(f, -1), record], -1).detach()
        return torch.sigmoid(self.gate(F.silu(self.seen(features) + self.state(hidden.float())))).squeeze(-1)


def stakes(copied: Tensor, logp: Tensor) -> Tensor:
    """What it would have been worth to have trusted a source a little, and by half: [..., 2], in nats."""
    ratio = (copied / (logp.exp() + 1e-4)).clamp(max=1000)
    return torch.stack([((1 - share) + share * ratio).log() for share in STAKES], -1).detach()


def record(worth: Tensor) -> Tensor:
    """The running means of :func:`stakes` before each token, from nothing: [n, time, 2] to [n, time, 4]."""
    steps = torch.arange(worth.shape[1], device=worth.device)
    back = steps[:, None] - 1 - steps[None, :]
    means = [torch.where(back >= 0, (1 - d) * d ** back.clamp(min=0).float(), 0.0) @ worth for d in DECAYS]
    return torch.cat(means, -1)


# --- all of it ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """What an index found for a batch of windows in one source.

    Attributes:
        neighbours: ``int32[batch, stretches, k, NEIGHBOUR]``, filled up with ``PAD``.
        scores: ``float32[batch, stretches, k]``, ``FARTHEST`` where there is none.
    """

    neighbours: Tensor
    scores: Tensor


@dataclass(frozen=True, slots=True)
class Reading:
    """What the model makes of the tokens asked for, each [batch, time].

    Attributes:
        own: the language model's own logarithm of each token's probability.
        copies: of each source, what its pointer gives to the token.
        gates: of each source, how much of that is let through.
    """

    own: Tensor
    copies: Mapping[str, Tensor]
    gates: Mapping[str, Tensor]

    def mixed(self, most: float) -> Tensor:
        """The logarithm of each token's probability, all together; ``most`` is what sources get at most."""
        if not self.copies:
            return self.own
        gates, copies = torch.stack(list(self.gates.values())), torch.stack(list(self.copies.values()))
        gates = gates * (most / gates.sum(0).clamp(min=1e-9)).clamp(max=1)
        return ((1 - gates.sum(0)) * self.own.exp() + (gates * copies).sum(0) + 1e-9).log()


class RetrievalModel(nn.Module):
    """Decoder, encoder and gates.

    Args:
        shape: its sizes.
        seed: of the weights that it begins with.
    """

    def __init__(self, shape: Shape, seed: int = 0) -> None:
        super().__init__()
        self.shape = shape
        self.decoder, self.gates = Decoder(shape), Gates(shape)
        generator = torch.Generator().manual_seed(seed)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                nn.init.normal_(weight, std=_spread(name, weight), generator=generator)
        nn.init.zeros_(self.gates.seen.bias)
        nn.init.constant_(self.gates.gate.bias, -2.5)

    def forward(self, tokens: Tensor, found: Mapping[str, Found], dtype: torch.dtype = torch.float32) -> Reading:
        """Read windows.

        Args:
            tokens: ``int32[batch, time + 1]``: each token but the first is asked for; ``time`` is a multiple of ``every``.
            found: by source, for each stretch of ``every`` tokens.
            dtype: of the products; ``bfloat16`` where the machine is faster at it.
        """
        batch, time = tokens.shape[0], tokens.shape[1] - 1
        hidden, _ = self.decoder(tokens[:, :-1].long(), dtype)
        stretches = time // self.shape.every
        places = [self._places(one) for one in found.values()]
        own, top, likely = read(hidden, self.decoder.embedding.weight, tokens[:, 1:].long(), places, self.shape.every)
        rows = (
            F.pad(tokens, (16, 0), value=-1).unfold(1, self.shape.every + 17, self.shape.every)[:, :stretches].flatten(0, 1)
        )
        copies, gates = {}, {}
        for (name, one), seems in zip(found.items(), likely, strict=True):
            near = one.neighbours.flatten(0, 1)
            level, hit = levels(rows[:, :-1], near), hits(rows[:, 17:], near)
            stretch = hidden.view(batch * stretches, self.shape.every, -1)
            scores, open_ = one.scores.flatten(0, 1), (near[..., 1:] > END).flatten(-2)
            keys = self.gates.keys(near.long(), dtype)
            copied, seen = self.gates.copied(stretch, keys, scores, seems, level, open_, hit)
            copied = copied.view(batch, time)
            past = record(stakes(copied, own))
            wide = scores.view(batch, stretches, 1, -1).expand(-1, -1, self.shape.every, -1).reshape(batch, time, -1)
            copies[name] = copied
            gates[name] = self.gates.let(hidden, seen.view(batch, time, -1), wide, top, past)
        return Reading(own, copies, gates)

    def _places(self, one: Found) -> Tensor:
        """The token at each place, ``int64[batch * stretches, k * PLACES]``."""
        return one.neighbours[..., 1:].flatten(0, 1).flatten(-2).long()


def _spread(name: str, weight: Tensor) -> float:
    if name.endswith(("out.weight", "down.weight")):
        return 0.0
    if name == "gates.embedding":
        return 0.5
    if name.startswith("decoder.embedding") or name in ("gates.query.weight", "gates.state.weight"):
        return 0.02
    return 1 / math.sqrt(weight.shape[0] if name == "gates.around" else weight.shape[1])
