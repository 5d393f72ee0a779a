"""What a store is worth to a model, honestly: bits a byte of text that it never learned from, in several ways at once.

    off            the language model alone
    on             with every source
    without NAME   with every other source
    swapped        with every source but the one whose text is closest: other knowledge
    random         with passages drawn at random, at the scores of those that were found: a control

Each also on the part with low overlap alone: chunks of which no more than eight tokens in a row stand in any of the
neighbours that were found for them. The intervals are paired: windows are drawn again with replacement, and both ways
measured on them.

Every way is worked out of one reading of the same windows. The text that is measured must not be in the store; where it is,
name its source, and no document is its own neighbour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from strongroom.errors import BadTraining

from . import weights
from .influence import GRAIN, MOST
from .parts import CHUNK
from .thinned import Thinned

if TYPE_CHECKING:
    from .datastore import Datastore
    from .gates import Found, Reading, RetrievalModel, Shape
    from .readers import Reader

LOW: Final = 8
"""Tokens in a row that a chunk of low overlap has in common with its neighbours at most."""
_LOG2: Final = float(np.log(2))
_DRAWS: Final = 1000

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Measured:
    """Nats by token in each way, and what they are counted with.

    Attributes:
        ways: ``float64[windows, window]`` by way.
        lengths: bytes of each token, ``int64[windows, window]``.
        low: which tokens have low overlap, ``bool[windows, window]``.
        gates: the mean weight of each source, as a share of a token.
        agreement: of each source, how what it was credited with goes with what leaving it out costs: the correlation over
            windows (Pearson's); None where one of them does not vary.
    """

    ways: Mapping[str, Numbers]
    lengths: NDArray[np.int64]
    low: NDArray[np.bool_]
    gates: Mapping[str, float]
    agreement: Mapping[str, float | None] = field(default_factory=dict)

    def bits(self, way: str, *, low: bool = False) -> float:
        """Bits a byte."""
        part = self.low if low else np.ones_like(self.low)
        return float((self.ways[way] * part).sum() / max(1, int((self.lengths * part).sum())) / _LOG2)

    def gain(self, way: str, over: str, *, low: bool = False, seed: int = 0) -> tuple[float, float, float]:
        """By how many bits a byte ``way`` is better than ``over``, and the interval that 95 of 100 draws are in."""
        part = self.low if low else np.ones_like(self.low)
        better = ((self.ways[over] - self.ways[way]) * part).sum(1) / _LOG2
        length = (self.lengths * part).sum(1).astype(float)
        if length.sum() == 0:
            return float("nan"), float("nan"), float("nan")
        drawn = np.random.default_rng(seed).integers(0, len(better), (_DRAWS, len(better)))
        found = better[drawn].sum(1) / np.maximum(1.0, length[drawn].sum(1))
        below, above = np.quantile(found, [0.025, 0.975])
        return float(better.sum() / length.sum()), float(below), float(above)

    def to_json(self) -> dict[str, Any]:
        """Every figure, rounded to a ten-thousandth of a bit."""
        found: dict[str, Any] = {
            "tokens": int(self.low.size),
            "bytes": int(self.lengths.sum()),
            "low_overlap_share": round(float(self.low.mean()), 4),
            "gates": {name: round(share, 5) for name, share in self.gates.items()},
            "agreement": {name: None if one is None else round(one, 4) for name, one in self.agreement.items()},
            "ways": {},
        }
        for way in self.ways:
            found["ways"][way] = {
                "bits": round(self.bits(way), 4),
                "bits_low": round(self.bits(way, low=True), 4) if self.low.any() else None,
                "gain": [round(number, 4) for number in self.gain(way, "off")],
                "gain_low": [round(number, 4) for number in self.gain(way, "off", low=True)] if self.low.any() else None,
            }
        return found


def windows(tokens: NDArray[Any], window: int, most: int, seed: int = 0) -> NDArray[np.int64]:
    """Where windows begin, each with a chunk of text before it; at most so many, drawn where there are more.

    Raises BadTraining: there is too little text for one.
    """
    starts = np.arange(CHUNK, len(tokens) - window, window)
    if not len(starts):
        raise BadTraining(f"there is too little text to measure on: {len(tokens):,} tokens")
    if len(starts) > most:
        starts = np.sort(np.random.default_rng(seed).choice(starts, most, replace=False))
    return starts.astype(np.int64)


def measure(
    model: RetrievalModel,
    store: Datastore | Thinned,
    tokens: NDArray[Any],
    *,
    relevance: float = -1.0,
    floor: int = 0,
    most: int = 200,
    seed: int = 0,
    own: NDArray[np.int64] | None = None,
    said: Callable[[int, int], None] = lambda _done, _of: None,
) -> Measured:
    """Measure a model on text with a store.

    Args:
        model: the model.
        store: the store, or a part of it.
        tokens: the text, one document after the other.
        relevance: the score under which a source is not asked.
        floor: the grains under which a gate is shut.
        most: windows to measure on.
        seed: of which windows, and of the random neighbours.
        own: of each token the key of its document (``store.document_key``), where the text is in the store.
        said: told how many windows are done.

    Raises:
        BadTraining: too little text.
    """
    torch = weights.library()
    shape = model.shape
    starts = windows(tokens, shape.context, most, seed)
    random = np.random.default_rng((seed, 1))
    ways: dict[str, list[Numbers]] = {}
    lows, gates, credits_ = [], [], []
    names = store.names
    for done, batch in enumerate(_batches(starts, 4)):
        found, near = _look(store, tokens, batch, shape, relevance, own)
        text = torch.from_numpy(_rows(tokens, batch, shape.context).astype(np.int32))
        with torch.inference_mode():
            reading = _shut(model(text, found), floor)
            control = _shut(model(text, _random(store, found, random)), floor)
            for way, value in _ways(reading, control, names).items():
                ways.setdefault(way, []).append(-value.double().numpy())
            gates.append(np.stack([reading.gates[name].numpy() for name in names]) if names else np.zeros((0, 1, 1)))
            credits_.append(_credit(reading, names))
        lows.append(_low(text[:, 1:].numpy(), near, shape.every))
        said(min(4 * done + 4, len(starts)), len(starts))
    joined = {way: np.concatenate(parts) for way, parts in ways.items()}
    wanted = _rows(tokens, starts, shape.context)[:, 1:]
    shares = np.concatenate(gates, axis=1).mean(axis=(1, 2)) if names else []
    return Measured(
        joined,
        store.tokenizer.byte_lengths[wanted],
        np.concatenate(lows),
        dict(zip(names, map(float, shares), strict=True)),
        _agreement(joined, np.concatenate(credits_, axis=1), names),
    )


def compare(
    readers: Mapping[str, Reader],
    store: Datastore | Thinned,
    shape: Shape,
    tokens: NDArray[Any],
    *,
    relevance: float = -1.0,
    most: int = 200,
    seed: int = 0,
    said: Callable[[int, int], None] = lambda _done, _of: None,
) -> Measured:
    """Measure several readers on the same windows and the same neighbours.

    Args:
        readers: by name; that of the language model alone is called "off".
        store: the store, or a part of it.
        shape: of the models: how often neighbours are looked for, and how many.
        tokens, relevance, most, seed, said: as of :func:`measure`.

    Raises:
        BadTraining: too little text.
    """
    torch = weights.library()
    starts = windows(tokens, shape.context, most, seed)
    ways: dict[str, list[Numbers]] = {name: [] for name in readers}
    lows = []
    for done, batch in enumerate(_batches(starts, 4)):
        found, near = _look(store, tokens, batch, shape, relevance, None)
        text = torch.from_numpy(_rows(tokens, batch, shape.context).astype(np.int32))
        with torch.inference_mode():
            for name, reader in readers.items():
                ways[name].append(-reader.logp(text, found).double().numpy())
        lows.append(_low(text[:, 1:].numpy(), near, shape.every))
        said(min(4 * done + 4, len(starts)), len(starts))
    lengths = store.tokenizer.byte_lengths[_rows(tokens, starts, shape.context)[:, 1:]]
    return Measured({name: np.concatenate(parts) for name, parts in ways.items()}, lengths, np.concatenate(lows), {})


def _batches(starts: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    for at in range(0, len(starts), size):
        yield starts[at : at + size]


def _rows(tokens: NDArray[Any], starts: NDArray[np.int64], window: int) -> NDArray[Any]:
    return np.asarray(tokens[starts[:, None] + np.arange(window + 1)])


def _look(  # noqa: PLR0917
    store: Datastore | Thinned,
    tokens: NDArray[Any],
    starts: NDArray[np.int64],
    shape: Any,
    relevance: float,
    own: NDArray[np.int64] | None,
) -> tuple[dict[str, Found], NDArray[np.int32]]:
    """What is found for windows, and all of it side by side, ``int32[windows, stretches, sources * k, 128]``."""
    from .gates import FARTHEST, Found  # noqa: PLC0415 - needs torch

    torch = weights.library()
    at = (starts[:, None] + np.arange(0, shape.context, shape.every)).reshape(-1)
    queries = np.asarray(tokens[(at - CHUNK)[:, None] + np.arange(CHUNK)])
    found, near = {}, []
    for name, one in store.nearest(queries, shape.neighbours, None if own is None else own[at]).items():
        grid = (len(starts), shape.context // shape.every, shape.neighbours)
        scores, passages = one.scores.reshape(grid), one.tokens.reshape(*grid, -1).astype(np.int32)
        near.append(passages)
        off = scores.max(-1) < relevance
        passages = np.where(off[..., None, None], 0, passages).astype(np.int32)
        scores = np.where(off[..., None], FARTHEST, np.maximum(scores, FARTHEST)).astype(np.float32)
        found[name] = Found(torch.from_numpy(passages), torch.from_numpy(scores))
    empty = np.zeros((len(starts), shape.context // shape.every, 1, 128), np.int32)
    return found, np.concatenate([empty, *near], axis=2)


def _random(store: Datastore | Thinned, found: Mapping[str, Found], random: np.random.Generator) -> dict[str, Found]:
    """Passages drawn at random, at the scores of those that were found."""
    from .gates import Found  # noqa: PLC0415

    torch = weights.library()
    drawn = {}
    for name, one in found.items():
        source, shape = store.source(name), tuple(one.scores.shape)
        if isinstance(store, Thinned):
            near, _ = source.neighbours(store.drawn(name, random, shape))
        else:
            near, _ = source.neighbours(random.integers(0, source.manifest.chunks, shape))
        near = np.where((one.scores.numpy() > -1)[..., None], near.astype(np.int32), 0)
        drawn[name] = Found(torch.from_numpy(near.astype(np.int32)), one.scores)
    return drawn


def _shut(reading: Reading, floor: int) -> Reading:
    """The reading with the gates shut that are under a floor."""
    from .gates import Reading as Made  # noqa: PLC0415

    gates = {name: gate * (gate * GRAIN >= floor) for name, gate in reading.gates.items()}
    return Made(reading.own, reading.copies, gates)


def _closed(reading: Reading, names: Sequence[str]) -> Reading:
    """The reading with these sources alone, and weights as they are used: whole grains."""
    from .gates import Reading as Made  # noqa: PLC0415

    gates = {name: (reading.gates[name] * GRAIN).floor() / GRAIN for name in names}
    return Made(reading.own, {name: reading.copies[name] for name in names}, gates)


def _ways(reading: Reading, control: Reading, names: Sequence[str]) -> dict[str, Any]:
    most = MOST / GRAIN
    found = {"off": reading.own, "on": _closed(reading, names).mixed(most), "random": _closed(control, names).mixed(most)}
    for name in names:
        found[f"without {name}"] = _closed(reading, [other for other in names if other != name]).mixed(most)
        found[f"only {name}"] = _closed(reading, [name]).mixed(most)
    if names:
        best = max(names, key=lambda name: float(reading.gates[name].mean()))
        found["swapped"] = found[f"without {best}"]
    return found


def _credit(reading: Reading, names: Sequence[str]) -> Numbers:
    """Of each source and window, in nats, what its copies added by their share of each token's probability."""
    if not names:
        return np.zeros((0, len(reading.own)))
    mixed = _closed(reading, names).mixed(MOST / GRAIN)
    gain = (mixed - reading.own).double()
    shares = [reading.gates[name] * (reading.copies[name] - reading.own.exp()) for name in names]
    total = sum(shares[1:], shares[0])
    each = [(share * (gain / total.where(total.abs() > 1e-9, 1.0))).double().sum(-1).numpy() for share in shares]
    return np.stack(each)


def _agreement(ways: Mapping[str, Numbers], credit: Numbers, names: Sequence[str]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for number, name in enumerate(names):
        left_out = (ways[f"without {name}"] - ways["on"]).sum(1)
        varies = len(left_out) > 2 and left_out.std() > 1e-9 and credit[number].std() > 1e-9
        found[name] = float(np.corrcoef(left_out, credit[number])[0, 1]) if varies else None
    return found


def _low(wanted: NDArray[Any], near: NDArray[np.int32], every: int) -> NDArray[np.bool_]:
    """Which tokens stand in a chunk of low overlap.

    Args:
        wanted: ``int[windows, window]``.
        near: ``int32[windows, stretches, places, 128]``, what was found for each stretch.
        every: tokens of a stretch.
    """
    count, window = wanted.shape
    per = max(1, CHUNK // every)
    longest = np.zeros((count, window // every), np.int64)
    for stretch in range(window // every):
        first = stretch // per * per
        run = np.zeros((count, near.shape[2], near.shape[3] + 1), np.int64)
        for at in range(first * every, (stretch + 1) * every):
            same = (wanted[:, at, None, None] == near[:, stretch]) & (near[:, stretch] > 0)
            run[..., 1:] = np.where(same, run[..., :-1] + 1, 0)
            if at >= stretch * every:
                longest[:, stretch] = np.maximum(longest[:, stretch], run.max(axis=(1, 2)))
    chunks = longest.reshape(count, -1, per).max(-1) if longest.shape[1] % per == 0 else longest
    return np.repeat(chunks <= LOW, window // chunks.shape[1], axis=1)
