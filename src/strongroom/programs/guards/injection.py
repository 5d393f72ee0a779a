"""``injection``: markers of prompt injection: what is said to make a model forget what it was told, or take data for orders.

Rules, not understanding. They find what is copied, and what is dressed up; they do not find what is new, said politely, told
as a story, or in a language that is not among them. ``docs/guards.md`` gives the figures. Each marker has points, and a text
with ``refuse_at`` of them or more is refused: 100 alone are enough by default, 50 need another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from . import Mark, Verdict, judged
from .markers import MARKERS, Words
from .plain import views

HOLD_CHARS: Final = 240


class Injection:
    """The guard.

    Args:
        program: its digest.
        settings: ``refuse_at``.
    """

    name = "injection"
    hold_chars = HOLD_CHARS
    whole = False

    def __init__(self, program: str, settings: Mapping[str, Any]) -> None:
        self.program = program
        self._refuse_at = settings["refuse_at"]

    def look(self, texts: Sequence[str]) -> Verdict:
        return judged(self, texts)

    def mark(self, text: str) -> tuple[Mark, ...] | None:
        return None if any(points(view) >= self._refuse_at for view in views(text)) else ()

    def settled(self, text: str) -> int:
        return max(0, len(text) - self.hold_chars)


def points(view: str) -> int:
    """What the markers in a plain view of a text come to. One that is there twice counts once, and so do two of one name."""
    best: dict[str, int] = {}
    for name, worth, words, pattern in MARKERS:
        if worth > best.get(name, 0) and _may_be(view, words) and pattern.search(view):
            best[name] = worth
    return sum(best.values())


def _may_be(view: str, words: Words) -> bool:
    return all(any(word in view for word in some) for some in words)


def reasons(text: str) -> tuple[str, ...]:
    """The names of the markers in a text, for who writes rules: they never leave an enclave."""
    return tuple(sorted({name for view in views(text) for name, _, _, pattern in MARKERS if pattern.search(view)}))
