"""What is left of a budget: everything that was charged against it, composed, and whether one charge more fits.

See ``spec/budget.md``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from strongroom.errors import BudgetExceeded, NotCharged, NotComposable

from .charge import COUNTED, Charge, Counts, Event
from .composition import spent
from .document import Budget

WORDS = {"runs": "runs", "queries": "queries", "rows": "rows", "bytes_out": "bytes out"}


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that a budget limits.

    Attributes:
        name: ``epsilon`` or the name of a plain count.
        used: so far.
        limit: at most.
        would: what it would come to with the further charge; ``None``: it cannot be said, for it would be too much.
    """

    name: str
    used: Decimal | None
    limit: Decimal
    would: Decimal | None

    @property
    def left(self) -> Decimal:
        """Never below 0."""
        return Decimal(0) if self.used is None else max(Decimal(0), self.limit - self.used)

    @property
    def fits(self) -> bool:
        return self.would is not None and self.would <= self.limit

    def __str__(self) -> str:
        what = WORDS.get(self.name, self.name)
        used = "more than can be said" if self.used is None else f"{self.used:,f}"
        return f"{what}: {used} of {self.limit:,f} used"


def account(budget: Budget, before: Iterable[Charge], further: Charge | None = None) -> list[Line]:
    """What was used of each thing that a budget limits, and what a further charge would make of it.

    Args:
        budget: the owner's.
        before: every charge against its assets, as it stands charged now.
        further: the charge that is asked about, if any.

    Raises:
        MissingExtra: the accountant is not installed, and there are events to compose.
    """
    charges = list(before)
    total = sum((c.counts for c in charges), Counts())
    would = total + further.counts if further else total
    lines = []
    if budget.dp is not None:
        events = [e for c in charges for e in c.events]
        used = _composed(events, budget.dp.delta)
        then = used if further is None else _composed([*events, *further.events], budget.dp.delta)
        lines.append(Line("epsilon", used, Decimal(budget.dp.epsilon), then))
    for name, limit in zip(COUNTED, budget.counts.values(), strict=True):
        if limit is not None:
            lines.append(Line(name, Decimal(getattr(total, name)), Decimal(limit), Decimal(getattr(would, name))))
    return lines


def _composed(events: Sequence[Event], delta: str) -> Decimal | None:
    try:
        return spent(events, delta)
    except NotComposable:
        return None


def unit_of(parameters: Mapping[str, Any]) -> str:
    """The column whose values a program's noise protects, by its parameters; ``""`` where they name none: then it is a row.

    Args:
        parameters: of a contract's program.
    """
    unit = parameters.get("unit")
    column = unit.get("column") if isinstance(unit, Mapping) else None
    return column if isinstance(column, str) else ""


def require_left(budget: Budget, before: Iterable[Charge], further: Charge | None, unit: str = "") -> str:
    """Require that a budget covers one charge more.

    Args:
        budget: the owner's.
        before: every charge against its assets, as it stands charged now.
        further: what the contract states for the asset's role; ``None`` where it states nothing.
        unit: whom the contract's program protects, as :func:`unit_of` says.

    Returns:
        one line for the owner: what it comes to.

    Raises:
        NotCharged: there is no charge, or one without events where the budget limits differential privacy: a program that
            adds no noise spends more than any epsilon; or one of no queries where it limits those: a run asks at least one;
            or the program protects another unit than the budget names.
        BudgetExceeded: it would come to more than the budget allows, or to what cannot be composed.
        MissingExtra: as :func:`account`.
    """
    if further is None:
        raise NotCharged("the asset has a budget, and the contract states no charge for it")
    if budget.dp is not None and not further.events:
        raise NotCharged("the asset's budget limits epsilon, and the contract's charge names no event")
    if budget.dp is not None and budget.dp.unit and budget.dp.unit != unit:
        raise NotCharged("the asset's budget names whom its epsilon protects, and the contract's program protects others")
    if budget.counts.queries is not None and further.counts.queries < max(1, sum(e.count for e in further.events)):
        raise NotCharged("the asset's budget limits queries, and the contract charges fewer than a run asks at least")
    lines = account(budget, before, further)
    over = [line for line in lines if not line.fits]
    if over:
        raise BudgetExceeded("; ".join(f"{line}, and {_would(line)} with this run" for line in over))
    return "; ".join(f"{WORDS.get(line.name, line.name)} {line.would:,f} of {line.limit:,f}" for line in lines)


def _would(line: Line) -> str:
    return "more than any budget allows" if line.would is None else f"{line.would:,f}"
