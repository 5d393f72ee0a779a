"""Guards: programs that see a request before the engine does, or an answer before the client does; and what they decided.

See ``spec/inference-receipt.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from strongroom.errors import BadInferenceReceipt
from strongroom.wire import JSON, Fields

MAX_GUARDS = 32


class Stage(StrEnum):
    """Where a guard stands."""

    INPUT = "input"
    OUTPUT = "output"


class Decision(StrEnum):
    """What a guard decided. ``CHANGED``: what goes on is not what it was given."""

    ALLOWED = "allowed"
    CHANGED = "changed"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Guard:
    """A guard as a policy names it.

    Args:
        name: what it is called, once at each stage.
        program: the digest of what runs.
        stage: whether it sees requests or answers.

    Raises:
        BadField: not a name, or not a digest.
    """

    name: str
    program: str
    stage: Stage

    def __post_init__(self) -> None:
        f = Fields({"name": self.name, "program": self.program}, "guard")
        f.name("name")
        f.digest("program")

    def to_json(self) -> dict[str, JSON]:
        return {"name": self.name, "program": self.program, "stage": self.stage.value}


@dataclass(frozen=True, slots=True)
class GuardRun:
    """That a guard ran, and what it decided; never the text that it decided about."""

    guard: Guard
    decision: Decision

    def to_json(self) -> dict[str, JSON]:
        return {**self.guard.to_json(), "decision": self.decision.value}

    @classmethod
    def from_json(cls, value: object) -> GuardRun:
        """Raises BadField."""
        f = Fields(value, "guard")
        stage, decision = Stage(f.text("stage", choices=list(Stage))), Decision(f.text("decision", choices=list(Decision)))
        found = cls(Guard(f.name("name"), f.digest("program"), stage), decision)
        f.end()
        return found


def require_in_order(guards: tuple[Guard, ...]) -> None:
    """Raises BadInferenceReceipt: too many guards, one twice, or one of the input after one of the output."""
    if len(guards) > MAX_GUARDS or len({(guard.stage, guard.name) for guard in guards}) != len(guards):
        raise BadInferenceReceipt(f"more than {MAX_GUARDS} guards, or one twice at a stage")
    stages = [guard.stage for guard in guards]
    if stages != sorted(stages):  # "input" comes before "output" in the alphabet too
        raise BadInferenceReceipt("a guard of the input stands after one of the output")
