"""What may be learned or spent of an asset: events, charges, composition, and the budget that an owner signs.

Events describe what differentially private mechanisms did; :func:`spent` says what they come to. A proposal states a
:class:`Charge` for an asset's role; the owner's broker composes it with everything that was charged before, and charges it
before a key is released. A crash can over-charge, and never under-charge.

See ``spec/budget.md``.
"""

from __future__ import annotations

from .account import Line, account, require_left
from .charge import Charge, Counts, Event, Used, decimal, events_of, grouped, settled
from .composition import canonical, spent
from .document import BUDGET_TYPE, Budget, CountLimits, Privacy, follows

__all__ = [
    "BUDGET_TYPE",
    "Budget",
    "Charge",
    "CountLimits",
    "Counts",
    "Event",
    "Line",
    "Privacy",
    "Used",
    "account",
    "canonical",
    "decimal",
    "events_of",
    "follows",
    "grouped",
    "require_left",
    "settled",
    "spent",
]
