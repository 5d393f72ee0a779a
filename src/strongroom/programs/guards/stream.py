"""An answer that is still being written, on its way past its guards: what may leave now, and what is held back."""

from __future__ import annotations

from collections.abc import Iterable

from . import Decision, Guard, Mark, applied

_CONTEXT_CHARS = 256  # of what has left already: words that make what comes next mean something
_BURST_CHARS = 16  # nothing is looked at again for less than this


class _Held:
    """One guard's part of the answer.

    Attributes:
        decision: so far.
    """

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self.decision: Decision = "allowed"
        self._before, self._text = "", ""

    def add(self, text: str, *, last: bool) -> str:
        """Take a piece; what may go on."""
        self._text += text
        if self.decision == "refused":
            return ""
        if last:
            return self._release(len(self._text))
        if self.guard.whole:
            return ""
        settled = self.guard.settled(self._text)
        return self._release(settled) if settled >= _BURST_CHARS else ""

    def _release(self, upto: int) -> str:
        """Look at all that is here, and let the first characters go, less what must not."""
        known = len(self._before)
        try:
            marks = self.guard.mark(self._before + self._text)
        except Exception:  # noqa: BLE001 - as in ``judged``
            marks = None
        if marks is None:
            self.decision = "refused"
            self._before = self._text = ""
            return ""
        cut, found = known + upto, []
        for mark in marks:
            if mark.end <= known:
                continue
            if mark.start < cut < mark.end:  # it may yet be longer
                cut = max(known, mark.start)
            elif mark.end <= cut:
                # What began before has left; not the rest of it.
                found.append(Mark(max(0, mark.start - known), mark.end - known, mark.instead))
        upto = cut - known
        out = applied(self._text[:upto], found)
        if found:
            self.decision = "changed"
        self._before = (self._before + self._text[:upto])[-_CONTEXT_CHARS:]
        self._text = self._text[upto:]
        return out


class Stream:
    """An answer past all its guards, one after the other.

    Args:
        guards: of the output, in their order.

    Attributes:
        refused: the name of the guard that refused, or ``None``. From then on nothing leaves.
    """

    def __init__(self, guards: Iterable[Guard]) -> None:
        self._held = [_Held(guard) for guard in guards]
        self.refused: str | None = None

    def add(self, text: str) -> str:
        """Take a piece of the answer; what of it and of earlier pieces may leave now."""
        return self._pass(text, last=False)

    def end(self) -> str:
        """The answer is whole: what is left of it."""
        return self._pass("", last=True)

    @property
    def decisions(self) -> tuple[tuple[Guard, Decision], ...]:
        """What each guard decided so far, up to the one that refused."""
        found = []
        for held in self._held:
            found.append((held.guard, held.decision))
            if held.decision == "refused":
                break
        return tuple(found)

    def _pass(self, text: str, *, last: bool) -> str:
        for held in self._held:
            if self.refused is None:
                text = held.add(text, last=last)
                if held.decision == "refused":
                    self.refused = held.guard.name
        return "" if self.refused else text
