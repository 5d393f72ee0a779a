"""Texts of one shape, such as ids: a small part of regular expressions, of which every text can be made and matched.

A pattern is a row of characters, ``\\d`` and classes such as ``[A-Z0-9]``, each once, or as often as ``{n}``, ``{n,m}`` or
``?`` says. There are no groups, alternatives or endless repeats, so that matching ends soon and every text is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from strongroom.errors import BadField

MAX_PATTERN = 256  # characters of a pattern
MAX_TEXT = 1000  # characters of a text that fits it; RE2 repeats no more often

_SPECIAL = set("()|*+.^$[]{}?\\")
_REPEAT = re.compile(r"\{(\d{1,4})(?:,(\d{1,4}))?\}")
_DIGITS = "0123456789"


@dataclass(frozen=True, slots=True)
class Part:
    """One place in a pattern: which characters may stand there, and how often at least and at most."""

    characters: str
    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Pattern:
    """A shape of texts.

    Attributes:
        text: as it was written; RE2 reads it to the same meaning.
        parts: in order.
    """

    text: str
    parts: tuple[Part, ...]

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Raises BadField: not a pattern, too long, or of texts that are too long."""
        if not text or len(text) > MAX_PATTERN or not text.isprintable():
            raise BadField(f"a pattern is not of 1 to {MAX_PATTERN} printable characters")
        parts, at = [], 0
        while at < len(text):
            characters, at = _characters(text, at)
            least, most, at = _often(text, at)
            parts.append(Part(characters, least, most))
        if sum(part.most for part in parts) > MAX_TEXT:
            raise BadField(f"texts of the pattern may be longer than {MAX_TEXT} characters")
        return cls(text, tuple(parts))

    def make(self, below: Callable[[int], int]) -> str:
        """One text.

        Args:
            below: a number from 0 to below its argument.
        """
        return "".join(
            part.characters[below(len(part.characters))]
            for part in self.parts
            for _ in range(part.least + below(part.most - part.least + 1))
        )

    @property
    def shortest(self) -> str:
        """The shortest text, of each class's first character."""
        return "".join(part.characters[0] * part.least for part in self.parts)

    @property
    def longest(self) -> str:
        """The longest text, of each class's last character."""
        return "".join(part.characters[-1] * part.most for part in self.parts)


def _characters(text: str, at: int) -> tuple[str, int]:
    """What may stand at one place, and where to read on."""
    if text[at] == "\\":
        return _escaped(text, at)
    if text[at] == "[":
        return _class(text, at + 1)
    if text[at] in _SPECIAL:
        raise BadField(f"{text[at]!r} has no place in a pattern", hint="Write it as [A-Z]{2}[0-9]{6} or \\d{4}-x?")
    return text[at], at + 1


def _escaped(text: str, at: int) -> tuple[str, int]:
    following = text[at + 1 : at + 2]
    if following == "d":
        return _DIGITS, at + 2
    if not following or (following not in _SPECIAL and following != "-"):
        raise BadField("a pattern escapes what needs no escape")
    return following, at + 2


def _class(text: str, at: int) -> tuple[str, int]:
    end = text.find("]", at)
    inside = text[at:end]
    if end <= at or any(c in "[\\^&~|" for c in inside) or "--" in inside:
        raise BadField("a pattern's class is not of the form [A-Z0-9_-]")
    found, place = [], 0
    while place < len(inside):
        if inside[place + 1 : place + 2] == "-" and place + 2 < len(inside):
            low, high = ord(inside[place]), ord(inside[place + 2])
            if not low < high <= 0x7E:
                raise BadField("a pattern's class has a range that is not upwards in ASCII")
            found += [chr(code) for code in range(low, high + 1)]
            place += 3
        else:
            found.append(inside[place])
            place += 1
    return "".join(sorted(set(found))), end + 1


def _often(text: str, at: int) -> tuple[int, int, int]:
    """How often at least and at most, and where to read on."""
    if text[at : at + 1] == "?":
        return 0, 1, at + 1
    if text[at : at + 1] != "{":
        return 1, 1, at
    found = _REPEAT.match(text, at)
    if found is None or int(found[2] or found[1]) < int(found[1]):
        raise BadField("a pattern's repeat is neither {n} nor {n,m}")
    return int(found[1]), int(found[2] or found[1]), found.end()
