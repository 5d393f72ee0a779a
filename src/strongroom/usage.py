"""Tokens by contract and model, counted from verified receipts and nothing else, and what they cost at a price.

Whoever holds the same receipts comes to the same figures: owners and clients recompute a bill, they do not believe one.

See ``spec/usage.md``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from . import wire
from .errors import BadUsage, ReceiptDoubled
from .inference.events import MAX_MODEL, ModelWeights, SourceUsed, Usage, UsageMetered, label
from .inference.verification import VerifiedReceipt
from .ledger import Entry
from .wire import JSON, Fields

FORMAT = "strongroom.usage.v1"
MAX_LINES = 4096
PRICED_TOKENS = 1_000_000  # a price is for so many

_CURRENCY = re.compile(r"[A-Z]{3}\Z")  # ISO 4217


@dataclass(frozen=True, slots=True)
class Line:
    """What one model used under one contract.

    Args:
        contract: the contract's digest.
        model: the model's name in it.
        requests: how many requests were metered, at least 1; one that was refused counts where it was.
        usage: their tokens.

    Raises:
        BadField: not a digest, not such a name, or no request.
    """

    contract: str
    model: str
    requests: int
    usage: Usage

    def __post_init__(self) -> None:
        f = Fields(self.to_json(), "line")
        f.digest("contract")
        label(f, "model", max_chars=MAX_MODEL)
        f.integer("requests", low=1)

    @property
    def key(self) -> tuple[str, str]:
        """What no two lines share."""
        return self.contract, self.model

    def to_json(self) -> dict[str, JSON]:
        return {**self.usage.to_json(), "contract": self.contract, "model": self.model, "requests": self.requests}

    @classmethod
    def from_json(cls, value: object) -> Line:
        """Raises BadField."""
        f = Fields(value, "line")
        found = cls(f.digest("contract"), f.text("model", max_chars=MAX_MODEL), f.integer("requests"), Usage.from_fields(f))
        f.end()
        return found


@dataclass(frozen=True, slots=True)
class Totals:
    """Lines by contract and model. Anybody can write such a document: what makes it true is :func:`total` of the receipts.

    Args:
        lines: at most 4096, sorted by contract and model, no two of the same.

    Raises:
        BadUsage: not so.
    """

    lines: tuple[Line, ...]

    def __post_init__(self) -> None:
        keys = [line.key for line in self.lines]
        if len(keys) > MAX_LINES or keys != sorted(set(keys)):
            raise BadUsage(f"the lines are over {MAX_LINES}, or not sorted and distinct")

    def to_json(self) -> dict[str, JSON]:
        return {"format": FORMAT, "lines": [line.to_json() for line in self.lines]}

    def encode(self) -> bytes:
        return wire.encode(self.to_json())

    @classmethod
    def parse(cls, data: bytes) -> Totals:
        """Raises WireError and its leaves, BadUsage."""
        f = Fields(wire.decode(data), "usage")
        f.literal("format", FORMAT)
        found = cls(f.items("lines", Line.from_json, high=MAX_LINES))
        f.end()
        return found


def _once(receipts: Iterable[VerifiedReceipt]) -> dict[str, VerifiedReceipt]:
    """By id, each once. Raises ReceiptDoubled: two that differ have one id."""
    found: dict[str, VerifiedReceipt] = {}
    for verified in receipts:
        same = found.setdefault(verified.receipt.receipt_id, verified)
        if same.receipt.digest != verified.receipt.digest:
            raise ReceiptDoubled(f"two receipts that differ have the id {verified.receipt.receipt_id!r}")
    return found


def total(receipts: Iterable[VerifiedReceipt]) -> Totals:
    """Count tokens: each receipt once, however often it comes; what it does not meter is not counted.

    Args:
        receipts: in any order.

    Raises:
        ReceiptDoubled: two that differ have one id.
        BadField: there are more tokens than fit a document (2^53-1).
        BadUsage: over 4096 lines.
    """
    counted: dict[tuple[str, str], tuple[int, Usage]] = {}
    for verified in _once(receipts).values():
        weights, metered = verified.receipt.one(ModelWeights), verified.receipt.one(UsageMetered)
        if metered is None:
            continue
        assert weights is not None  # I16
        requests, usage = counted.get((weights.contract, weights.name), (0, Usage()))
        counted[weights.contract, weights.name] = requests + 1, usage + metered.usage
    return Totals(tuple(Line(*key, requests, usage) for key, (requests, usage) in sorted(counted.items())))


@dataclass(frozen=True, slots=True)
class Drawn:
    """What was drawn from one sealed source under one contract.

    Attributes:
        contract: the contract's digest.
        source: the digest of the sealed source's manifest.
        requests: how many answers drew from it.
        tokens: of those answers.
        weight: grains, of which a token has 2^20.
        unit: what prices are counted in.
    """

    contract: str
    source: str
    requests: int
    tokens: int
    weight: int
    unit: str

    def to_json(self) -> dict[str, JSON]:
        return {
            "contract": self.contract,
            "requests": self.requests,
            "source": self.source,
            "tokens": self.tokens,
            "unit": self.unit,
            "weight": self.weight,
        }


def drawn(receipts: Iterable[VerifiedReceipt]) -> tuple[Drawn, ...]:
    """Count what was drawn from sources, each receipt once, sorted by contract and source.

    What is owed is ``Drawing.price.of(weight)``: grains are added up exactly, and rounded down once (``spec/drawing.md``).

    Args:
        receipts: in any order.

    Raises:
        ReceiptDoubled: two that differ have one id.
    """
    found: dict[tuple[str, str, str], tuple[int, int, int]] = {}
    for verified in _once(receipts).values():
        weights = verified.receipt.one(ModelWeights)
        for used in verified.receipt.every(SourceUsed):
            assert weights is not None  # I16
            key = weights.contract, used.source, used.unit
            requests, tokens, weight = found.get(key, (0, 0, 0))
            found[key] = requests + 1, tokens + used.tokens, weight + used.weight
    return tuple(Drawn(*key[:2], *sums, key[2]) for key, sums in sorted(found.items()))


def missing(entries: Iterable[Entry], receipts: Iterable[VerifiedReceipt], *, contract: str) -> tuple[str, ...]:
    """Receipts that the log holds under a contract, and nobody handed over: what was served and is not in a total.

    Args:
        entries: of the log; that they are, is for the caller to have checked.
        receipts: those that were handed over.
        contract: the contract's digest. One that is served holds receipts of requests alone.

    Returns:
        the digests, sorted.
    """
    given = {verified.receipt.digest for verified in receipts}
    logged = {entry.digest for entry in entries if (entry.kind, entry.contract) == ("receipt", contract)}
    return tuple(sorted(logged - given))


@dataclass(frozen=True, slots=True)
class Price:
    """What a million tokens of each kind cost, in hundredths of the currency's unit, whichever it is.

    Raises:
        BadField: a negative price, or one that fits no document.
        BadUsage: not a currency's code.
    """

    prompt: int
    completion: int
    embedding: int
    currency: str

    def __post_init__(self) -> None:
        f = Fields({"completion": self.completion, "embedding": self.embedding, "prompt": self.prompt}, "price")
        for name in ("completion", "embedding", "prompt"):
            f.integer(name)
        if not _CURRENCY.match(self.currency):
            raise BadUsage("a price's currency is not an ISO 4217 code")

    def of(self, usage: Usage) -> int:
        """What this many tokens cost: hundredths, rounded down once, after all of them were added up exactly."""
        exact = usage.prompt * self.prompt + usage.completion * self.completion + usage.embedding * self.embedding
        return exact // PRICED_TOKENS


@dataclass(frozen=True, slots=True)
class Priced:
    """A line and what it costs: ``amount`` hundredths of the currency's unit."""

    line: Line
    amount: int
    currency: str


def price(totals: Totals, prices: Mapping[tuple[str, str], Price]) -> tuple[Priced, ...]:
    """What each line costs. Lines are rounded by themselves; amounts of one currency are added up as they are.

    Args:
        totals: what was used.
        prices: by contract and model.

    Raises:
        BadUsage: a line has no price. Nothing is free by being left out.
    """
    found: list[Priced] = []
    for line in totals.lines:
        if line.key not in prices:
            raise BadUsage(f"there is no price for {line.model!r} under {line.contract}")
        known = prices[line.key]
        found.append(Priced(line, known.of(line.usage), known.currency))
    return tuple(found)


__all__ = [
    "FORMAT",
    "MAX_LINES",
    "PRICED_TOKENS",
    "Drawn",
    "Line",
    "Price",
    "Priced",
    "Totals",
    "drawn",
    "missing",
    "price",
    "total",
]
