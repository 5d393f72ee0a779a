"""How much each source may say about a token: weights as whole numbers, and the limits on them.

A weight is a whole number of grains, of which there are ``GRAIN`` in the whole distribution of a token. The number that was
used is the number that is metered: what a source drew is a sum of integers, and anybody who has them gets the same sum.

What is proved of this, and what is not, stands in ``docs/influence.md``. No torch, no numbers with a point.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from strongroom.errors import BadInfluence

GRAIN: Final = 1 << 20
"""Parts of a token's whole distribution."""
MOST: Final = GRAIN - GRAIN // 64
"""What all sources together get of one token at most; the rest is the language model's own."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What one source may have of an answer.

    Attributes:
        token: grains of one token at most, 1 to ``GRAIN``.
        total: grains of all tokens together at most, 1 or more; None for no limit. ``GRAIN`` are one whole token.

    Raises:
        BadInfluence: a limit is out of its range. To leave a source out, leave it out: ``store.without(name)``.
    """

    token: int = GRAIN
    total: int | None = None

    def __post_init__(self) -> None:
        for limit in (self.token, *(() if self.total is None else (self.total,))):
            if type(limit) is not int or limit < 1:
                raise BadInfluence("a budget is a whole number of grains, 1 or more")
        if self.token > GRAIN:
            raise BadInfluence(f"a source gets at most {GRAIN:,} grains of a token")


class Allowance:
    """What is left of the budgets in one answer.

    Args:
        budgets: by source; a source that is not named has no limit of its own.
    """

    def __init__(self, budgets: Mapping[str, Budget] | None = None) -> None:
        self._budgets = dict(budgets or {})
        self.used: dict[str, int] = {}

    def weigh(self, wanted: Mapping[str, int]) -> dict[str, int]:
        """The weights of one token, and take them from what is left.

        Each source is first held to its own budget; where the rest is more than ``MOST`` together, all are made smaller in
        the same measure, and rounded down. So leaving out a source makes no other weight smaller.

        Args:
            wanted: grains by source, 0 to ``GRAIN``.

        Returns:
            grains by source, in the order of their names; those that get nothing are not in it.
        """
        held = {}
        for name in sorted(wanted):
            budget = self._budgets.get(name, Budget())
            left = GRAIN if budget.total is None else budget.total - self.used.get(name, 0)
            held[name] = max(0, min(wanted[name], budget.token, left))
        total = sum(held.values())
        if total > MOST:
            held = {name: grains * MOST // total for name, grains in held.items()}
        found = {name: grains for name, grains in held.items() if grains}
        for name, grains in found.items():
            self.used[name] = self.used.get(name, 0) + grains
        return found
