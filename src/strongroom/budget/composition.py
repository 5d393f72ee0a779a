"""What events cost together: epsilon at a delta, by privacy loss distributions (the ``dp_accounting`` library).

Every step rounds towards more privacy spent. Identical events are composed at once; Gaussian ones of any noise are one
Gaussian, exactly (their precisions add). Where a composition would take too long, a coarser bound that is valid stands in
its place, and where there is none, the events are refused. The accountant is loaded when it is used.

See ``spec/budget.md``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from decimal import ROUND_CEILING, ROUND_DOWN, Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any

from strongroom.errors import MissingExtra, NotComposable

from .charge import EPSILON_DELTA, GAUSSIAN, LAPLACE, Event, decimal, grouped

INTERVAL = 1e-3  # of privacy loss; the library connects the dots upwards, so that it costs little
MAX_LOSS = 200.0  # 200,000 steps: about a second, and an epsilon far above what a budget may be
MAX_DISTINCT = 256  # of events that are composed one by one; more are rounded to fewer first
MAX_TIMES = 100_000  # of one event in a transform: what rounding errors of its floats leave of small deltas
TAIL = 0.99  # of delta: what the transform's own errors may use up
PLACES = Decimal("0.000001")

Grouped = tuple[tuple[Event, int], ...]


def down(value: Fraction) -> float:
    """The largest float that is not above a number."""
    found = float(value)
    return math.nextafter(found, -math.inf) if Fraction(found) > value else found


def up(value: Fraction) -> float:
    """The smallest float that is not below a number."""
    return -down(-value)


def spent(events: Iterable[Event], delta: str) -> Decimal:
    """What events cost together.

    Args:
        events: all of them, in any order.
        delta: a canonical decimal string, 0 or at least 10^-9.

    Returns:
        an epsilon, rounded up at the sixth place, or infinity: at this delta nothing can be said.

    Raises:
        NotComposable: they would come to more than any budget, or would take too long to compose.
        MissingExtra: the accountant is not installed.
        BadCharge: delta is no such string.
    """
    counts = grouped(events)
    if not counts:
        return Decimal(0)
    decimal(delta, "delta")
    return _spent(tuple(sorted(counts.items(), key=lambda pair: _order(pair[0]))), delta)


def _order(event: Event) -> tuple[str, str, str, str]:
    """An order of events, so that equal histories are found again."""
    return event.kind, event.noise_multiplier, event.epsilon, event.delta


@lru_cache(maxsize=256)
def _spent(counts: Grouped, delta: str) -> Decimal:
    """Found again for an equal history: who waits for the book's one writer does not wait for this."""
    gaussian = _precision(counts)
    rest = {event: count for event, count in counts if event.kind != GAUSSIAN}
    simple = _simply(gaussian, rest, Fraction(delta))
    if Fraction(delta) == 0 or not rest:  # of Gaussians alone, or without a delta, that is all there is to say
        return _upwards(simple)
    try:
        return _upwards(min(simple, _together(gaussian, rest, down(Fraction(delta)))))
    except NotComposable:
        return _upwards(simple)


def _upwards(value: float) -> Decimal:
    if math.isinf(value):
        raise NotComposable("the events come to more than any budget allows, or cannot be composed in time")
    return Decimal(value).quantize(PLACES, rounding=ROUND_CEILING)


def _precision(counts: Grouped) -> Fraction:
    """The sum of 1/noise^2: Gaussians compose to the Gaussian of that precision (Dong, Roth and Su, Corollary 3.3)."""
    return sum((count / event.noise**2 for event, count in counts if event.kind == GAUSSIAN), Fraction(0))


def _simply(gaussian: Fraction, rest: Mapping[Event, int], delta: Fraction) -> float:
    """Gaussians as one, and to it the plain sum of the others: epsilons and deltas add up (basic composition)."""
    left = delta - sum((event.lost * count for event, count in rest.items()), Fraction(0))
    added = sum((event.pure * count for event, count in rest.items()), Fraction(0))
    if left < 0:
        return math.inf
    if not gaussian:
        return up(added)
    if left == 0 or added > 10**6:
        return math.inf
    try:
        epsilon = _epsilon(_gaussian(gaussian), down(left))
    except NotComposable:
        return math.inf
    return up(Fraction(epsilon) + added) if math.isfinite(epsilon) else math.inf


def _together(gaussian: Fraction, rest: Mapping[Event, int], delta: float) -> float:
    """All of them by privacy loss distributions. Raises NotComposable: it would take too long."""
    rest = _fewer(rest)
    _affordable(gaussian, rest)
    parts = [_several(event, count) for event, count in rest.items()]
    if gaussian:
        parts.append(_gaussian(gaussian))
    while len(parts) > 1:  # in pairs, so that few of them are long
        pairs = zip(parts[::2], parts[1::2], strict=False)
        parts = [one.compose(other) for one, other in pairs] + (parts[-1:] if len(parts) % 2 else [])
    return _epsilon(parts[0], delta)


def _fewer(rest: Mapping[Event, int]) -> dict[Event, int]:
    """Fewer distinct events, each rounded towards less noise, so that a history of any length is composed in time."""
    for digits in (None, 3, 2, 1):
        found: dict[Event, int] = {}
        for event, count in rest.items():
            rounded, times = _plainly(event, count)
            rounded = rounded if digits is None else _rounded(rounded, digits)
            found[rounded] = found.get(rounded, 0) + times
        if len(found) <= MAX_DISTINCT:
            return found
    raise NotComposable("too many different events")


def _plainly(event: Event, count: int) -> tuple[Event, int]:
    """Of one event very many times the plain sum, as one event."""
    if count <= MAX_TIMES:
        return event, count
    epsilon, lost = event.pure * count, event.lost * count
    if epsilon > MAX_LOSS or lost >= 1:
        raise NotComposable("one event happened too often to be composed")
    return Event(EPSILON_DELTA, 1, epsilon=_above(epsilon), delta=_above(lost)), 1


def _above(value: Fraction) -> str:
    """A number's first eighteen decimal places, rounded up."""
    return canonical(Decimal(-(-value.numerator * 10**18 // value.denominator)).scaleb(-18))


def _rounded(event: Event, digits: int) -> Event:
    if event.kind == LAPLACE:
        return Event(LAPLACE, 1, noise_multiplier=_digits(event.noise_multiplier, digits, ROUND_DOWN))
    delta = _digits(event.delta, digits, ROUND_CEILING) if event.delta != "0" else "0"
    return Event(EPSILON_DELTA, 1, epsilon=_digits(event.epsilon, digits, ROUND_CEILING), delta=delta)


def _digits(text: str, digits: int, rounding: str) -> str:
    """A number's first digits, rounded one way."""
    value = Decimal(text)
    rounded = value.quantize(Decimal(1).scaleb(value.adjusted() - digits + 1), rounding=rounding)
    return canonical(rounded)


def canonical(value: Decimal) -> str:
    """A finite decimal number in its one spelling."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _affordable(gaussian: Fraction, rest: Mapping[Event, int]) -> None:
    """Refuse what would need too long an array: its length follows from the mean and the spread of the privacy loss."""
    mu = math.sqrt(up(gaussian)) if gaussian < 10**6 else math.inf
    sums = [(float(min(event.pure, Fraction(10**9))), count) for event, count in rest.items()]
    total = sum(epsilon * count for epsilon, count in sums)
    mean = sum(min(epsilon, epsilon * epsilon / 2) * count for epsilon, count in sums)
    spread = math.sqrt(sum(epsilon * max(epsilon, INTERVAL) * count for epsilon, count in sums))
    if mu * mu / 2 + 24 * mu + min(total, mean + 24 * spread) > MAX_LOSS:
        raise NotComposable("the events come to more than any budget allows, or cannot be composed in time")


def _library() -> tuple[Any, Any]:
    try:
        from dp_accounting.pld import common, privacy_loss_distribution  # noqa: PLC0415 - heavy, and seldom needed
    except ImportError as error:
        raise MissingExtra("the accountant is not installed", hint="pip install 'strongroom[review]'") from error
    return privacy_loss_distribution, common


def _gaussian(precision: Fraction) -> Any:
    _affordable(precision, {})
    deviation = math.nextafter(1 / math.sqrt(up(precision)), 0)
    pld, _ = _library()
    return pld.from_gaussian_mechanism(deviation, value_discretization_interval=INTERVAL)


def _several(event: Event, count: int) -> Any:
    """One event, several times."""
    pld, common = _library()
    if event.kind == LAPLACE:
        found = pld.from_laplace_mechanism(down(event.noise), value_discretization_interval=INTERVAL)
    else:
        one = common.DifferentialPrivacyParameters(up(event.pure), up(event.lost))
        found = pld.from_privacy_parameters(one, value_discretization_interval=INTERVAL)
    return found.self_compose(count) if count > 1 else found


def _epsilon(distribution: Any, delta: float) -> float:
    return float(distribution.get_epsilon_for_delta(delta * TAIL))
