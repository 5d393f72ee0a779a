"""What members of a program's parameters must be. Read by clients, and by the child: nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from strongroom.errors import BadParameters

STEP: Final = "check parameters"
MAX_TEXT: Final = 128  # characters

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True)
class Checks:
    """Each raises BadParameters where a value is not so, and says in a few words what is wrong, never the value.

    Attributes:
        program: the program's name, which the errors begin with.
    """

    program: str

    def bad(self, why: str) -> NoReturn:
        """Raises BadParameters."""
        raise BadParameters(f"{self.program}: {why}", step=STEP)

    def members(self, value: object, names: set[str], what: str) -> Mapping[str, Any]:
        """An object of exactly these members."""
        if not isinstance(value, Mapping) or set(value) != names:
            self.bad(f"{what} does not have exactly the members {', '.join(sorted(names))}")
        return value

    def items(self, value: object, what: str, low: int, high: int) -> list[Any]:
        """A list of so many items."""
        if not isinstance(value, list | tuple) or not low <= len(value) <= high:
            self.bad(f"{what} is not a list of {low} to {high} items")
        return list(value)

    def text(self, value: object, what: str, most: int = MAX_TEXT) -> str:
        """A text of 1 to ``most`` printable characters."""
        if not isinstance(value, str) or not 0 < len(value) <= most or not value.isprintable():
            self.bad(f"{what} is not a text of 1 to {most} printable characters")
        return value

    def matching(self, value: object, pattern: re.Pattern[str], what: str) -> str:
        """A text that a pattern matches."""
        if not isinstance(value, str) or not pattern.match(value):
            self.bad(f"{what} is not one")
        return value

    def digest(self, value: object, what: str) -> str | None:
        """A digest, or ``None``."""
        if value is not None and (not isinstance(value, str) or not _DIGEST.match(value)):
            self.bad(f"{what} is neither null nor a digest")
        return value

    def whole(self, value: object, what: str, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``; true is none."""
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.bad(f"{what} is not a whole number from {low:,} to {high:,}")
        return value

    def flag(self, value: object, what: str) -> bool:
        """True or false."""
        if not isinstance(value, bool):
            self.bad(f"{what} is neither true nor false")
        return value

    def distinct(self, values: Collection[str], what: str) -> None:
        """No two are the same."""
        if len(set(values)) != len(values):
            self.bad(f"{what} name something twice")
