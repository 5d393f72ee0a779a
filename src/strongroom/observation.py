"""The dimension of a policy that says what anybody outside may see of a run beside its outputs: how long it took, and how it
failed. Both are chosen by the program, and so are outputs too.

Ordered from the coarsest upwards, as everything in a policy is; ``meet`` is the greatest lower bound of two. See
``spec/policy.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import lcm
from typing import Final

from .errors import BadField, UnknownDimension
from .wire import JSON, Fields

MAX_DURATION_S: Final = 86_400
WITHHELD: Final = "withheld"
FAILURES: Final = (WITHHELD, "step")
"""What is told of a failure, from the narrowest: that there was one; the step and the code."""


def _seconds(value: object) -> int:
    return Fields({"duration_s": value}, "observed").integer("duration_s", low=1, high=MAX_DURATION_S)


@dataclass(frozen=True, slots=True)
class Observed:
    """How coarsely time and failure are told.

    Attributes:
        duration_s: a run ends for everybody outside after a multiple of so many seconds, 1 to 86,400; ``None``: after the
            longest time that the contract allows it, always.
        failure: a word in ``FAILURES``.

    Raises:
        BadField: a value out of its range or of another type.
        UnknownDimension: a word that this version does not know.
    """

    duration_s: int | None
    failure: str

    def __post_init__(self) -> None:
        if self.duration_s is not None:
            _seconds(self.duration_s)
        if self.failure not in FAILURES:
            raise UnknownDimension(f"observed: failure is not one of {', '.join(FAILURES)}")

    @property
    def everything(self) -> bool:
        """Whether it is the top: time in seconds, step and code. A policy leaves it out."""
        return self.duration_s == 1 and self.failure == FAILURES[-1]

    def ends_at(self, started_at: int, program_at: int, now: int, longest: int) -> int:
        """When a run that is over now is over for everybody outside, Unix seconds.

        Args:
            started_at: when the run began.
            program_at: when its program began.
            now: when everything that depends on the data was done.
            longest: how long a program may run.
        """
        if self.duration_s is not None:
            return started_at + -(-max(now - started_at, 1) // self.duration_s) * self.duration_s
        # What comes after the program (its outputs' rules, sealing) is given a minute, and where that is not enough
        # the same time again.
        whole = longest + 60
        return program_at + -(-max(now - program_at, 1) // whole) * whole

    def meet(self, other: Observed) -> Observed:
        """The finest that both permit: multiples of both."""
        duration = None
        if self.duration_s is not None and other.duration_s is not None:
            duration = lcm(self.duration_s, other.duration_s)
            duration = duration if duration <= MAX_DURATION_S else None
        return Observed(duration, min(self.failure, other.failure, key=FAILURES.index))

    def to_json(self) -> dict[str, JSON]:
        return {"duration_s": WITHHELD if self.duration_s is None else self.duration_s, "failure": self.failure}

    @classmethod
    def from_json(cls, value: object) -> Observed:
        """Read the one normal form. Raises BadField, UnknownDimension."""
        if isinstance(value, dict):
            for member in sorted(map(str, set(value) - {"duration_s", "failure"})):
                raise UnknownDimension(f"observed: the member {member[:40]!r} is not known")
        f = Fields(value, "observed")
        duration = f.any("duration_s")
        found = cls(
            None if duration == WITHHELD else _seconds(duration),
            f.text("failure", max_chars=16),
        )
        if found.everything:
            raise BadField("observed tells everything; it is left out then")
        return found


EVERYTHING: Final = Observed(1, FAILURES[-1])


def explain(terms: Observed, asked: Observed) -> list[str]:
    """Where ``asked`` goes beyond ``terms``, in words for people, in a fixed order."""
    found = []
    if asked.duration_s is not None and (terms.duration_s is None or asked.duration_s % terms.duration_s):
        coarser = "it is to be withheld" if terms.duration_s is None else f"to {terms.duration_s:,} s is permitted"
        found.append(f"observed: the time of a run is told to {asked.duration_s:,} s; {coarser}")
    if FAILURES.index(asked.failure) > FAILURES.index(terms.failure):
        found.append("observed: the step and code of a failure are told; they are to be withheld")
    return found
