"""Writing with a store: one token after the other, and of each which source and passage it was drawn from, and by how much.

    model = RetrievalLM.load("model.safetensors")
    answer = model.generate("The Mayor shall", store=Datastore.open("store"), budgets={"law": Budget(total=20 * GRAIN)})
    answer.text, answer.drawn["law"], answer.tokens[0].draws

The weights in an answer are the very integers that the tokens were drawn with (``lm.influence``). Neither a source's weight
nor what it says depends on another source, so that a source that is left out leaves everything of the others as it was, bit
for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    from .datastore import Datastore
    from .gates import RetrievalModel

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
        from .beside import Beside, Fixed, Now  # noqa: PLC0415 - needs torch

        self._allowance, self._relevance, self._floor = allowance, relevance, floor
        self._tokens: list[int] = []
        self._fixed = Fixed(model)
        names = store.names if store else []
        self._beside: dict[str, Beside] = {name: Beside(self._fixed, self._tokens) for name in names}
        self._cache: Any = None
        self._since = 0
        self._wanted: dict[str, int] = {}
        self._now: Now | None = None
        self._made = Now

    def read(self, tokens: Sequence[int]) -> None:
        """Read tokens; neighbours are looked for every ``every`` of them, and at their end."""
        for at in range(0, len(tokens), self.model.shape.every):
            self._forward(tokens[at : at + self.model.shape.every])
            self.look()

    def _forward(self, tokens: Sequence[int]) -> None:
        """Read tokens; what sources would have said of each but the first is kept in their records. What they say of the
        next is asked for afterwards."""
        hidden, logp = (one.numpy() for one in self._decode(tokens))
        for number, token in enumerate(tokens):
            if number:
                self._ask()
            self._settle(token)
            self._tokens.append(token)
            self._now = self._made(self._fixed, hidden[number], logp[number])
        self._since += len(tokens)

    def _decode(self, tokens: Sequence[int]) -> tuple[Any, Any]:
        """What the language model has of each token, [n, width], and the logarithms of what comes next, [n, vocabulary]."""
        context = self.model.shape.context
        if self._cache is not None and self._cache[0][0].shape[2] + len(tokens) > context:
            kept = self._tokens[-context // _KEPT :]
            _, self._cache = self.model.decoder(self._torch.tensor([kept]))
        hidden, self._cache = self.model.decoder(self._torch.tensor([list(tokens)]), past=self._cache)
        scores = self._torch.nn.functional.linear(hidden[0], self.model.decoder.embedding.weight)
        return hidden[0], self._torch.log_softmax(scores, -1)

    def _ask(self) -> None:
        if self._now is not None:
            found = {name: one.says(self._now) for name, one in self._beside.items()}
            self._wanted = {name: grains for name, grains in found.items() if grains is not None}

    def _settle(self, token: int) -> None:
        if self._now is not None:
            own = float(self._now.logp[token])
            for one in self._beside.values():
                one.learn(token, own)

    def look(self) -> None:
        """Look for neighbours of the last tokens."""
        self._since = 0
        if not self._beside or not self._tokens or self.store is None:
            return
        query = np.asarray(self._tokens[-CHUNK:], np.int64)[None]
        for name, near in self.store.nearest(query, self.model.shape.neighbours).items():
            if float(near.scores[0].max()) < self._relevance:
                self._beside[name].leave()
            else:
                self._beside[name].look(near.tokens[0], near.scores[0], near.passages[0])
        self._ask()

    def distribution(self, temperature: float = 1.0) -> tuple[NDArray[np.float64], dict[str, int]]:
        """The probabilities of the next token, ``float64[vocabulary]``, and the weights by source. Something was read.

        What is never written (``PAD``, ``END``) is taken out of each part, and the temperature is each part's, before they
        are mixed: so a part has its weight and no more, whatever the temperature is.

        Args:
            temperature: above 0.
        """
        if self._now is None:
            raise AssertionError("nothing was read yet")
        given = self._allowance.weigh({name: grains for name, grains in self._wanted.items() if grains >= self._floor})
        own = _warmed(self._now.logp.astype(np.float64), temperature)
        mixed = own * ((GRAIN - sum(given.values())) / GRAIN)
        for name, grains in given.items():
            spread = self._beside[name].spread(len(own))
            if temperature == 1:
                spread[: END + 1] = 0.0
                spread /= spread.sum()
            else:
                with np.errstate(divide="ignore"):  # where it does not point
                    spread = _warmed(np.log(spread), temperature)
            mixed += spread * (grains / GRAIN)
        return mixed, given

    def write(self, token: int, given: Mapping[str, int], logits: NDArray[np.float32] | None) -> Written:
        """Go on by a token that was drawn."""
        if self._now is None:
            raise AssertionError("nothing was read yet")
        draws = []
        for name, grains in given.items():
            one = self._beside[name]
            draws.append(Draw(name, grains, one.where(token), int(one.lay(token) * GRAIN)))
        written = Written(token, int(math.exp(float(self._now.logp[token])) * GRAIN), tuple(draws), logits)
        self._forward([token])
        if self._since >= self.model.shape.every:
            self.look()
        else:
            self._ask()
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
        said: Callable[[int, int], None] = lambda _done, _of: None,
    ) -> Answer:
        """Write on from a prompt; ``said`` is told how many tokens are written, of how many. Raises as :meth:`stream`."""
        allowance = Allowance(budgets)
        stream = self._stream(
            prompt, store, allowance, budgets, tokens=tokens, temperature=temperature, seed=seed, logits=logits
        )
        written: list[Written] = []
        for one in stream:
            written.append(one)
            said(len(written), tokens)
        drawn = {name: allowance.used.get(name, 0) for name in store.names}
        return Answer(store.tokenizer.decode([one.token for one in written]), tuple(written), drawn, store.version)

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
            temperature: of each part of the mixture, before they are mixed; 0 takes the likeliest token of the mixture each
                time, of which ``docs/influence.md`` promises nothing.
            seed: of what is drawn where the temperature is not 0.

        Raises:
            OtherTokenizer: the store's is not the model's. PromptBeyondContext. NoSource: a budget is of no source of the
                store. ValueError: a temperature below 0, or none.
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
        if not 0 <= temperature < math.inf:
            raise ValueError("a temperature is a number that is not below 0")
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
                mixed, given = writer.distribution(temperature or 1.0)
                token = _drawn(mixed, random) if temperature else int(mixed.argmax())
                with np.errstate(divide="ignore"):  # what is never written
                    kept = np.log(mixed).astype(np.float32) if logits else None
                written = writer.write(token, given, kept)
            yield written


def _warmed(logp: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """One part's probabilities at a temperature, of tokens that can be written."""
    scores = logp / temperature
    scores[: END + 1] = -np.inf
    p: NDArray[np.float64] = np.exp(scores - scores.max())
    p /= p.sum()
    return p


def _drawn(p: NDArray[np.float64], random: np.random.Generator) -> int:
    sums = np.cumsum(p)
    return int(np.searchsorted(sums, random.random() * sums[-1], side="right").clip(0, len(p) - 1))
