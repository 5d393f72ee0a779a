"""What a run may spend of budgets: compared before a key is asked for, metered while it runs, said in its receipt.

See ``spec/budget.md`` and ``spec/run.md``.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from strongroom.budget.charge import Used, events_of
from strongroom.contract import ProgramRef, Proposal
from strongroom.errors import BadCharge, BadField, OutputRefused, UnderCharged
from strongroom.output import table_rows

Spends: TypeAlias = Callable[[ProgramRef], Mapping[str, Any] | None]
"""What a program says it would spend, as events in JSON by role; ``None`` where it says nothing."""

_NO_ROWS = frozenset(
    {"log", "picture", "report", "success", "values"}
)  # kinds of outputs in which no record has a row of its own


def says_nothing(_program: ProgramRef) -> None:
    """No program is known to say what it spends: a contract that charges events is refused."""


def require_charged(proposal: Proposal, spends: Spends) -> None:
    """Require that a contract charges what its program says it would spend, before any key is asked for.

    Raises:
        UnderCharged: it charges less, or charges events for a program that says nothing: it may add no noise at all.
    """
    try:
        said = spends(proposal.program)
        needed = None if said is None else {role: events_of(events) for role, events in said.items()}
    except (BadField, BadCharge, TypeError, AttributeError) as error:
        raise UnderCharged("the program does not say in events what it would spend") from error
    if needed is None:
        if any(c.events for c in proposal.charges):
            raise UnderCharged("the contract charges events, and its program does not say that it adds any noise")
        return
    for charge in proposal.charges:
        if charge.events and not needed.get(charge.role):
            raise UnderCharged(f"the contract charges events in role {charge.role!r}, and its program names none there")
    for role, events in needed.items():
        if not events:
            continue
        stated = proposal.charge(role)
        if stated is None:
            raise UnderCharged(f"the program would spend of the asset in role {role!r}, and the contract charges nothing")
        short = stated.short_of(events)
        if short:
            raise UnderCharged(f"the contract charges too little in role {role!r}: {short}")


class Meter:
    """What a run uses, counted where it happens."""

    def __init__(self) -> None:
        self._began, self._rows, self._bytes = False, 0, 0

    def begin(self) -> None:
        """The program is let at its inputs from here on."""
        self._began = True

    def leaves(self, proposal: Proposal, outputs: Mapping[str, bytes]) -> None:
        """Outputs, their rules applied, that are about to leave.

        Raises:
            OutputRefused: more rows than are charged, or rows of a kind that cannot be counted.
        """
        if not proposal.charges:
            return
        rows = sum(_rows(o.kind, outputs[o.name]) for o in proposal.outputs)
        if any(rows > c.counts.rows for c in proposal.charges):
            raise OutputRefused("more rows than the contract charges")
        # many read a receipt: how many rows there were stands in it no better than their bytes, sealed, tell; and nothing
        # of what waits for its reviewers
        self._rows, self._bytes = (1 << (rows - 1).bit_length() if rows else 0), 0
        for output in proposal.outputs:
            waits = output.rule.release is not None
            self._bytes += output.rule.max_bytes if waits else len(outputs[output.name])
            if waits and output.kind not in _NO_ROWS:
                self._rows = max(c.counts.rows for c in proposal.charges)

    def used(self, proposal: Proposal, *, left: bool, told: bool) -> Used | None:
        """For the receipt; ``None`` where the contract charges nothing.

        Args:
            left: whether the outputs leave: those of a run that failed do not.
            told: whether the receipt tells how a run failed. Where it does not, nor does this: it counts as begun.
        """
        if not proposal.charges:
            return None
        return Used(self._began or not told, self._rows if left else 0, self._bytes if left else 0)


def _rows(kind: str, data: bytes) -> int:
    if kind in _NO_ROWS:
        return 0
    if kind == "table":
        return table_rows(data)
    if kind != "records":
        raise OutputRefused("rows of this kind of output cannot be counted, and the contract charges them")
    with io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", newline="") as text:
        return sum(1 for _ in csv.reader(text))  # the header is one: the program writes it, and may write anything there
