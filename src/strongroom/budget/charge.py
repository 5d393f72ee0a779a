"""Events, counts and charges: what a run spends of an asset's budget, as a proposal states it.

An *event* describes what a differentially private mechanism did, and nothing of what it costs: that is for
:mod:`.composition` to say. What is not one of the known events is refused, and never guessed.

See ``spec/budget.md``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from strongroom.errors import BadCharge, BadField
from strongroom.wire import JSON, Fields

if TYPE_CHECKING:
    from fractions import Fraction

MAX_COUNT = 10**9  # of one event
MAX_EVENTS = 1024  # lines of one charge
MAX_PLAIN = 2**50  # of a plain count: sums of many stay exact integers of the wire
GAUSSIAN, LAPLACE, EPSILON_DELTA = "gaussian", "laplace", "epsilon-delta"

_DECIMAL = re.compile(r"(?:0|[1-9][0-9]{0,11})(?:\.[0-9]{0,17}[1-9])?\Z")


def decimal(text: object, what: str) -> Fraction:
    """A canonical decimal string, exactly: no exponent, no leading or trailing zero, at most 12 and 18 digits.

    Raises:
        BadCharge: it is another spelling, or no number.
    """
    if not isinstance(text, str) or not _DECIMAL.match(text):
        raise BadCharge(f"{what} is not a decimal number in its one spelling")
    from fractions import Fraction  # noqa: PLC0415 - milliseconds that a receipt without charges does not pay

    return Fraction(text)


@dataclass(frozen=True, slots=True)
class Event:
    """What a mechanism did, ``count`` times over, for one privacy unit of an asset (added or removed).

    Attributes:
        kind: ``gaussian``, ``laplace`` or ``epsilon-delta``.
        count: how often, 1 to 10^9.
        noise_multiplier: of ``gaussian`` the standard deviation, of ``laplace`` the scale, each over the sensitivity.
        epsilon, delta: of ``epsilon-delta``.

    All numbers are canonical decimal strings; what does not belong to the kind is ``""``.

    Raises:
        BadCharge: an unknown kind, no noise, a delta of 1 or more, or a number that is none.
    """

    kind: str
    count: int
    noise_multiplier: str = ""
    epsilon: str = ""
    delta: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.count, bool) or not 1 <= self.count <= MAX_COUNT:
            raise BadCharge(f"event.count is not an integer from 1 to {MAX_COUNT}")
        if self.kind in (GAUSSIAN, LAPLACE):
            if (self.epsilon, self.delta) != ("", "") or self.noise <= 0:
                raise BadCharge(f"a {self.kind} event has a noise multiplier above 0, and nothing else")
        elif self.kind == EPSILON_DELTA:
            if self.noise_multiplier or decimal(self.epsilon, "event.epsilon") <= 0 or self.lost >= 1:
                raise BadCharge("an epsilon-delta event has an epsilon above 0 and a delta below 1, and nothing else")
        else:
            raise BadCharge("an event of a kind that is not known cannot be accounted for")

    @property
    def noise(self) -> Fraction:
        """The noise multiplier."""
        return decimal(self.noise_multiplier, "event.noise_multiplier")

    @property
    def pure(self) -> Fraction:
        """The epsilon of one of them, where its delta is :attr:`lost`. Not of ``gaussian``, which has none."""
        return 1 / self.noise if self.kind == LAPLACE else decimal(self.epsilon, "event.epsilon")

    @property
    def lost(self) -> Fraction:
        """The delta of one of them."""
        return decimal(self.delta, "event.delta") if self.kind == EPSILON_DELTA else decimal("0", "event.delta")

    def to_json(self) -> dict[str, JSON]:
        found: dict[str, JSON] = {"count": self.count, "event": self.kind}
        if self.kind == EPSILON_DELTA:
            return {**found, "delta": self.delta, "epsilon": self.epsilon}
        return {**found, "noise_multiplier": self.noise_multiplier}

    @classmethod
    def from_json(cls, value: object) -> Event:
        """Raises BadField, BadCharge."""
        f = Fields(value, "event")
        kind, count = f.text("event", max_chars=64), f.integer("count", low=1, high=MAX_COUNT)
        if kind == EPSILON_DELTA:
            found = cls(kind, count, epsilon=f.text("epsilon", max_chars=40), delta=f.text("delta", max_chars=40))
        else:
            found = cls(kind, count, noise_multiplier=f.text("noise_multiplier", max_chars=40) if _noisy(kind) else "")
        f.end()
        return found


def _noisy(kind: str) -> bool:
    return kind in (GAUSSIAN, LAPLACE)


@dataclass(frozen=True, slots=True)
class Counts:
    """Plain counts. All of them always stand there: what is not counted is 0.

    Attributes:
        runs: runs.
        queries: answers to questions.
        rows: rows that leave as rows, each of one record.
        bytes_out: bytes of outputs, in plaintext.
    """

    runs: int = 0
    queries: int = 0
    rows: int = 0
    bytes_out: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(a + b for a, b in zip(self.values(), other.values(), strict=True)))

    def values(self) -> tuple[int, int, int, int]:
        return self.runs, self.queries, self.rows, self.bytes_out

    def least(self, other: Counts) -> Counts:
        """The smaller of each."""
        return Counts(*map(min, self.values(), other.values()))

    def to_json(self) -> dict[str, JSON]:
        return {"bytes_out": self.bytes_out, "queries": self.queries, "rows": self.rows, "runs": self.runs}

    @classmethod
    def from_json(cls, value: object) -> Counts:
        f = Fields(value, "counts")
        found = cls(**{name: f.integer(name, high=MAX_PLAIN) for name in COUNTED})
        f.end()
        return found


COUNTED = ("runs", "queries", "rows", "bytes_out")


@dataclass(frozen=True, slots=True)
class Charge:
    """What one run spends of the budget of the asset in a role.

    Attributes:
        role: the asset's.
        counts: ``runs`` is 1.
        events: in the proposer's order; none where the run is not differentially private.

    Raises:
        BadCharge: it is of no run or of several, or has too many events.
    """

    role: str
    counts: Counts
    events: tuple[Event, ...] = ()

    def __post_init__(self) -> None:
        if self.counts.runs != 1:
            raise BadCharge("a charge is of one run")
        if len(self.events) > MAX_EVENTS:
            raise BadCharge(f"a charge has at most {MAX_EVENTS} lines of events")

    def to_json(self) -> dict[str, JSON]:
        return {"counts": self.counts.to_json(), "events": [e.to_json() for e in self.events], "role": self.role}

    @classmethod
    def from_json(cls, value: object) -> Charge:
        """Raises BadField, BadCharge."""
        f = Fields(value, "charge")
        counts, role = Counts.from_json(f.any("counts")), f.name("role")
        found = cls(role, counts, f.items("events", Event.from_json, high=MAX_EVENTS))
        f.end()
        return found

    def short_of(self, said: Iterable[Event]) -> str:
        """What a program says it would spend and this charge does not cover, in words; ``""`` where it covers all.

        An event is covered by the same event as many times: nothing is compared by what it costs, so that there is no
        second opinion of that.
        """
        charged, needed = grouped(self.events), grouped(said)
        short = [f"{count - charged[event]} more {event.kind}" for event, count in needed.items() if count > charged[event]]
        queries = sum(needed.values())
        if self.counts.queries < queries:
            short.append(f"{queries - self.counts.queries} more queries")
        return ", ".join(short)


def grouped(events: Iterable[Event]) -> Counter[Event]:
    """How often each event happened, whatever its lines: the keys have count 1."""
    found: Counter[Event] = Counter()
    for event in events:
        found[event if event.count == 1 else replace(event, count=1)] += event.count
    return found


def events_of(said: Iterable[Any]) -> tuple[Event, ...]:
    """What a program says it would spend, in events. Raises BadField, BadCharge."""
    if isinstance(said, str | bytes | dict):
        raise BadField("events are no list")
    return tuple(Event.from_json(item) for item in said)


@dataclass(frozen=True, slots=True)
class Used:
    """What a run really used, as its enclave signs it in the receipt.

    Attributes:
        began: whether the program was let at its inputs.
        rows, bytes_out: as of :class:`Counts`; rows rounded up to a power of two, since many read a receipt.

    Raises:
        BadCharge: something left of a run that did not begin.
    """

    began: bool
    rows: int
    bytes_out: int

    def __post_init__(self) -> None:
        if not self.began and (self.rows or self.bytes_out):
            raise BadCharge("a run that did not begin used nothing")

    def to_json(self) -> dict[str, JSON]:
        return {"began": self.began, "bytes_out": self.bytes_out, "rows": self.rows}

    @classmethod
    def from_json(cls, value: object) -> Used:
        f = Fields(value, "used")
        found = cls(f.boolean("began"), f.integer("rows", high=MAX_PLAIN), f.integer("bytes_out", high=MAX_PLAIN))
        f.end()
        return found


def settled(charge: Charge, used: Used | None) -> Charge:
    """What stays charged once the receipt is here. Nothing ever rises, and without the enclave's word nothing falls.

    A run stays a run. Rows and bytes fall to what left. Queries and events are given back only of a run that did not begin:
    what a program was let at may have been learned from, whatever came of it.

    Args:
        charge: as the contract states it.
        used: of the verified receipt.
    """
    if used is None:
        return charge
    left = Counts(1, charge.counts.queries if used.began else 0, used.rows, used.bytes_out)
    return replace(charge, counts=charge.counts.least(left), events=charge.events if used.began else ())
