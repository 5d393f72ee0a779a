"""Numbered checks: what was looked at, in order, and how each ended.

A list of checks is declared once, as ``Steps``; the numbers are the same in ``spec/``, in the code, in the tests and on
every screen. A check that was never reached is *not established*, and that is not a pass: ``Transcript.ok`` is true only
when every declared check passed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from .wire import JSON

MAX_DETAIL = 2000  # characters


class Status(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_ESTABLISHED = "not established"


@dataclass(frozen=True, slots=True)
class Check:
    """One numbered check.

    Attributes:
        number: a letter for the list and the check's place in it (``"A3"``).
        name: what must be true, in a few words.
        status: how it ended.
        detail: what was seen; one line, no secrets.
        code: the stable error code of a failure, else ``""``.
    """

    number: str
    name: str
    status: Status
    detail: str = ""
    code: str = ""

    def to_json(self) -> dict[str, JSON]:
        return {
            "number": self.number,
            "name": self.name,
            "status": self.status.value,
            "detail": self.detail,
            "code": self.code,
        }


class Steps:
    """The declaration of a list of checks.

    Args:
        letter: the list's letter (``"A"`` appraisal, ``"D"`` decision, ``"V"`` receipt verification).
        names: what must be true, in order; check n is ``letter`` and n, from 1.
    """

    def __init__(self, letter: str, names: list[str]) -> None:
        if not names:
            raise ValueError("a list of checks cannot be empty")
        self.letter = letter
        self.names: Mapping[str, str] = {f"{letter}{n}": name for n, name in enumerate(names, 1)}

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self.names.items())


def _one_line(text: str) -> str:
    """What can stand on one line and in a signed document: no line ends, no escape sequences, no lone surrogates."""
    if len(text) > MAX_DETAIL:
        text = text[: MAX_DETAIL - 1] + "…"
    return text if text.isprintable() else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


class Transcript:
    """Collects the outcome of every declared check.

    Args:
        steps: the declared checks.
    """

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._found: dict[str, Check] = {}

    def record(self, number: str, passed: bool | None, detail: str = "", *, code: str = "") -> bool:
        """Set check ``number``: ``True`` passed, ``False`` failed, ``None`` not established. Each is set once.

        The detail is cut to one line of 2,000 characters that a terminal prints as they are: others chose some of it.

        Returns:
            whether it passed.
        """
        if number in self._found:
            raise ValueError(f"check {number} was set twice")
        # Only ``True`` passes: a list or a match object that happens to be true is no answer.
        status = Status.NOT_ESTABLISHED if passed is None else Status.PASSED if passed is True else Status.FAILED
        said = _one_line(detail)
        self._found[number] = Check(number, self._steps.names[number], status, said, "" if passed is True else code)
        return passed is True

    @property
    def checks(self) -> tuple[Check, ...]:
        """Every declared check in order; those never reached are not established."""
        return tuple(
            self._found.get(number, Check(number, name, Status.NOT_ESTABLISHED, "not reached"))
            for number, name in self._steps
        )

    @property
    def ok(self) -> bool:
        """Whether every declared check passed."""
        return all(check.status is Status.PASSED for check in self.checks)

    @property
    def first_problem(self) -> Check | None:
        """The first failed check, else the first not established one, else ``None``."""
        for status in (Status.FAILED, Status.NOT_ESTABLISHED):
            for check in self.checks:
                if check.status is status:
                    return check
        return None

    def to_json(self) -> list[JSON]:
        return [check.to_json() for check in self.checks]
