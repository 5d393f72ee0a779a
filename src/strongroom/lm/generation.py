"""Writing with a store: one token after the other, and of each which source and passage it was drawn from, and by how much.

    model = RetrievalLM.load("model.safetensors")
    answer = model.generate("The Mayor shall", store=Datastore.open("store"), budgets={"law": Budget(total=20 * GRAIN)})
    answer.text, answer.drawn["law"], answer.tokens[0].draws

The weights in an answer are the very integers that the tokens were drawn with (``lm.influence``). Neither a source's weight
nor what it says depends on another source, so that a source that is left out leaves everything of the others as it was, bit
for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from strongroom.errors import NoSource, PromptBeyondContext

from . import weights
from .influence import GRAIN, Allowance, Budget
from .parts import CHUNK
from .tokenizer import END

if TYPE_CHECKING:
    from .datastore import Datastore, Neighbours
    from .gates import RetrievalModel

_RUN: Final = 16
_KEPT: Final = 2  # of the context a half is kept where it is full


@dataclass(frozen=True, slots=True)
class Draw:
    """What one token got from one source.

    Attributes:
        source: its name.
        weight: grains, of which a token's whole distribution has ``GRAIN``.
        passage: the chunk in which the pointer looked most, by its number in the source.
        share: grains of the source's own distribution that lay on the token that was written.
    """

    source: str
    weight: int
    passage: int
    share: int


@dataclass(frozen=True, slots=True)
class Written:
    """One token of an answer.

    Attributes:
        token: its number.
        own: grains of the language model's own distribution that lay on it.
        draws: what each source had to do with it, in the order of their names; none with nothing.
        logits: logarithms of the whole distribution, ``float32[vocabulary]``, where they were asked for.
    """

    token: int
    own: int
    draws: tuple[Draw, ...]
    logits: NDArray[np.float32] | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """What was written.

    Attributes:
        text: of the tokens.
        tokens: each of them.
        drawn: grains by source, all tokens together: what is metered.
        version: of the store.
    """

    text: str
    tokens: tuple[Written, ...]
    drawn: Mapping[str, int]
    version: str


class _Beside:
    """One source while a text is read or written: its neighbours, and how well it did so far."""

    def __init__(self, model: RetrievalModel) -> None:
        self._torch, self._model = weights.library(), model
        from . import gates  # noqa: PLC0415 - needs torch

        self._gates = gates
        self._worth: Any = self._torch.zeros(2 * len(gates.DECAYS))
        self._found: Any = None
        self._last: Any = None
        reached = [sum(run >= level for level in gates.LEVELS) for run in range(_RUN + 2)]
        self._levels = self._torch.tensor(reached, dtype=self._torch.uint8)

    def look(self, tokens: NDArray[Any], scores: NDArray[Any], passages: NDArray[Any], before: Sequence[int]) -> None:
        """New neighbours: ``[k, 128]``, ``[k]`` and ``[k]``; and the tokens that are behind."""
        torch = self._torch
        near = torch.from_numpy(tokens.astype(np.int64))[None]
        self._found = near
        self._passages = passages
        self._scores = torch.from_numpy(np.maximum(scores, self._gates.FARTHEST).astype(np.float32))[None]
        self._keys = self._model.gates.keys(near, torch.float32)
        self._open = (near[..., 1:] > END).flatten(-2)
        self._at = near[0, :, 1:].reshape(-1)
        self._runs = torch.zeros(near.shape[1:], dtype=torch.int64)
        for token in before[-_RUN - 1 :]:
            self._step(token)

    def leave(self) -> None:
        """No neighbours: nothing is relevant."""
        self._found = None

    def _step(self, token: int) -> None:
        earlier = self._torch.nn.functional.pad(self._runs[:, :-1], (1, 0))
        same = (self._found[0] == token) & (self._found[0] > END)
        self._runs = self._torch.where(same, (earlier + 1).clamp(max=_RUN + 1), 0)

    def read(self, token: int) -> None:
        """Go on by a token."""
        if self._found is not None:
            self._step(token)

    def says(self, hidden: Any, logp: Any) -> tuple[int, Any] | None:
        """The wanted weight in grains, and the pointer over places; None where there is nothing relevant."""
        if self._found is None:
            self._last = None
            return None
        gates = self._model.gates
        level = self._levels[self._runs[:, :-1].reshape(-1)][None, None]
        likely = logp[self._at][None, None]
        a, seen = gates.point(hidden, self._keys, self._scores, likely, level, self._open)
        gate = gates.let(hidden, seen, self._scores[:, None], logp.max()[None, None], self._worth[None, None])
        self._last = a[0, 0]
        return int(float(gate) * GRAIN), self._last

    def learn(self, token: int, own: Any) -> None:
        """How well it did on a token: ``own`` is the logarithm of the language model's probability of it."""
        torch = self._torch
        copied = torch.zeros(()) if self._last is None else self._last[self._at == token].sum()
        worth = self._gates.stakes(copied, own)
        keep = torch.tensor(self._gates.DECAYS)[:, None]
        self._worth = (self._worth.view(-1, 2) * keep + (1 - keep) * worth).flatten()

    def spread(self, size: int) -> Any:
        """What it says, by token."""
        return self._torch.zeros(size).index_add_(0, self._at, self._last)

    def where(self, token: int) -> int:
        """The passage in which the pointer looked most for a token; where it looked for none, the nearest."""
        k = self._found.shape[1]
        by = self._torch.where(self._at == token, self._last, 0.0).view(k, -1).sum(-1)
        best = int(by.argmax()) if float(by.max()) > 0 else int(self._last.view(k, -1).sum(-1).argmax())
        return int(self._passages[best])


class Writer:
    """A text that goes on: what is read or written moves it by a token.

    Args:
        model: the model.
        store: where to look; None for none.
        allowance: what sources may have.
        relevance: the score under which a source is not asked.
        floor: the grains under which a source gets nothing.
    """

    def __init__(
        self, model: RetrievalModel, store: Datastore | None, allowance: Allowance, relevance: float, floor: int = 0
    ) -> None:
        self._torch, self.model, self.store = weights.library(), model, store
        self._allowance, self._relevance, self._floor = allowance, relevance, floor
        self._beside = {name: _Beside(model) for name in (store.names if store else [])}
        self._tokens: list[int] = []
        self._cache: Any = None
        self._since = 0
        self._said: dict[str, tuple[int, Any]] = {}
        self._logp: Any = None

    def read(self, tokens: Sequence[int]) -> None:
        """Read tokens; neighbours are looked for every ``every`` of them, and at their end."""
        for at in range(0, len(tokens), self.model.shape.every):
            if at:
                self.look()
            self._forward(tokens[at : at + self.model.shape.every])
        self.look()
        self._say()

    def _forward(self, tokens: Sequence[int]) -> None:
        """Tokens that are known: what sources would have said of each is kept in their records."""
        hidden = self._decode(tokens)
        for number, token in enumerate(tokens):
            if self._logp is not None:
                self._settle(token)
            self._now(hidden[:, number : number + 1], token)
            if number + 1 < len(tokens):
                self._say()

    def _decode(self, tokens: Sequence[int]) -> Any:
        context = self.model.shape.context
        if len(self._tokens) and self._cache is not None and self._cache[0][0].shape[2] + len(tokens) > context:
            kept = self._tokens[-context // _KEPT :]
            _, self._cache = self.model.decoder(self._torch.tensor([kept]))
        hidden, self._cache = self.model.decoder(self._torch.tensor([list(tokens)]), past=self._cache)
        return hidden

    def _now(self, hidden: Any, token: int) -> None:
        self._tokens.append(token)
        self._since += 1
        self._hidden = hidden
        scores = self._torch.nn.functional.linear(hidden[0, 0], self.model.decoder.embedding.weight)
        self._logp = self._torch.log_softmax(scores, -1)
        for one in self._beside.values():
            one.read(token)

    def _say(self) -> None:
        found = {name: one.says(self._hidden, self._logp) for name, one in self._beside.items()}
        self._said = {name: said for name, said in found.items() if said is not None}

    def _settle(self, token: int) -> None:
        own = self._logp[token]
        for one in self._beside.values():
            one.learn(token, own)

    def look(self) -> None:
        """Look for neighbours of the last tokens."""
        self._since = 0
        if self.store is None or not self._tokens:
            return
        query = np.asarray(self._tokens[-CHUNK:], np.int64)[None]
        for name, near in self.store.nearest(query, self.model.shape.neighbours).items():
            self._take(self._beside[name], near)
        if self._logp is not None:
            self._say()

    def _take(self, beside: _Beside, near: Neighbours) -> None:
        if float(near.scores[0].max()) < self._relevance:
            beside.leave()
        else:
            beside.look(near.tokens[0], near.scores[0], near.passages[0], self._tokens)

    def distribution(self) -> tuple[Any, dict[str, int]]:
        """The probabilities of the next token, ``float64[vocabulary]``, and the weights by source."""
        given = self._allowance.weigh({name: grains for name, (grains, _) in self._said.items() if grains >= self._floor})
        own = self._logp.exp().double()
        mixed = own * ((GRAIN - sum(given.values())) / GRAIN)
        for name, grains in given.items():
            mixed = mixed + self._beside[name].spread(len(own)).double() * (grains / GRAIN)
        return mixed, given

    def write(self, token: int, given: Mapping[str, int], logits: NDArray[np.float32] | None) -> Written:
        """Go on by a token that was drawn."""
        draws = []
        for name, grains in given.items():
            one = self._beside[name]
            share = float(self._said[name][1][one._at == token].sum())  # noqa: SLF001 - this module's own
            draws.append(Draw(name, grains, one.where(token), int(share * GRAIN)))
        written = Written(token, int(float(self._logp[token].exp()) * GRAIN), tuple(draws), logits)
        self._settle(token)
        self._now(self._decode([token]), token)
        if self._since >= self.model.shape.every:
            self.look()
        else:
            self._say()
        return written


class RetrievalLM:
    """A model to write with.

    Args:
        model: the network.
        about: what its file says of it.
    """

    def __init__(self, model: RetrievalModel, about: weights.About) -> None:
        self.model, self.about = model, about

    @classmethod
    def load(cls, path: Path | str) -> RetrievalLM:
        """Raises BadModel, MissingExtra."""
        return cls(*weights.load(Path(path)))

    def generate(
        self,
        prompt: str,
        *,
        store: Datastore,
        budgets: Mapping[str, Budget] | None = None,
        tokens: int = 64,
        temperature: float = 0.0,
        seed: int = 0,
        logits: bool = False,
    ) -> Answer:
        """Write on from a prompt. Raises as :meth:`stream`."""
        allowance = Allowance(budgets)
        stream = self._stream(
            prompt, store, allowance, budgets, tokens=tokens, temperature=temperature, seed=seed, logits=logits
        )
        written = tuple(stream)
        drawn = {name: allowance.used.get(name, 0) for name in store.names}
        return Answer(store.tokenizer.decode([one.token for one in written]), written, drawn, store.version)

    def stream(
        self,
        prompt: str,
        *,
        store: Datastore,
        budgets: Mapping[str, Budget] | None = None,
        tokens: int = 64,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Iterator[Written]:
        """Write on from a prompt, token by token.

        Args:
            prompt: what to go on from.
            store: where to look, and whose tokenizer is used; one without sources is the language model alone.
            budgets: what sources may have; one that is not named has no limit of its own.
            tokens: how many to write.
            temperature: 0 takes the likeliest token each time.
            seed: of what is drawn where the temperature is not 0.

        Raises:
            OtherTokenizer: the store's is not the model's. PromptBeyondContext. NoSource: a budget is of no source of the
                store.
        """
        return self._stream(
            prompt, store, Allowance(budgets), budgets, tokens=tokens, temperature=temperature, seed=seed, logits=False
        )

    def _stream(
        self,
        prompt: str,
        store: Datastore,
        allowance: Allowance,
        budgets: Mapping[str, Budget] | None,
        *,
        tokens: int,
        temperature: float,
        seed: int,
        logits: bool,
    ) -> Iterator[Written]:
        self.about.fits(store.tokenizer.digest)
        for name in budgets or {}:
            if name not in store.names:
                raise NoSource("a budget is of a source that the store does not have")
        begun = [int(token) for token in store.tokenizer.encode(prompt)] or [END]
        if len(begun) > self.model.shape.context:
            raise PromptBeyondContext(f"the prompt has {len(begun):,} tokens; the model sees {self.model.shape.context:,}")
        return self._written(begun, store, allowance, tokens, temperature, seed, logits=logits)

    def _written(  # noqa: PLR0917
        self,
        begun: list[int],
        store: Datastore,
        allowance: Allowance,
        tokens: int,
        temperature: float,
        seed: int,
        *,
        logits: bool,
    ) -> Iterator[Written]:
        torch = weights.library()
        random = np.random.default_rng(seed)
        with torch.inference_mode():
            writer = Writer(self.model, store, allowance, self.about.relevance / 1e6, self.about.floor)
            writer.read(begun)
        for _ in range(tokens):
            with torch.inference_mode():
                mixed, given = writer.distribution()
                mixed[: END + 1] = 0.0
                token = _drawn(mixed.numpy(), temperature, random)
                kept = mixed.log().float().numpy() if logits else None
                written = writer.write(token, given, kept)
            yield written


def _drawn(p: NDArray[np.float64], temperature: float, random: np.random.Generator) -> int:
    if temperature <= 0:
        return int(p.argmax())
    p = np.power(p, 1 / temperature)
    return int(np.searchsorted(np.cumsum(p), random.random() * p.sum(), side="right").clip(0, len(p) - 1))
