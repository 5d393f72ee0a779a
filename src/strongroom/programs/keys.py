"""Keys: what tells whether a row of one owner and a row of another are about the same.

A key is made of one or more columns, each brought to a normal form by a rule. Two values are the same key where their normal
forms are the same text, and nowhere else: there is no likeness, no locale, and no list of anybody's. What has no normal form
under its rule is no key, and matches nothing, not even itself. Read by clients too: nothing heavy. See ``spec/programs.md``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .parameters import Checks

LINE: Final = "line"
"""The one column of a file of plain text."""

MAX_CHARS: Final = 256  # of a value, before and after: what is longer is no key
MAX_COLUMNS: Final = 8  # of one key
MAX_ROUND: Final = 1_000_000
_ROLE: Final = re.compile(r"[a-z][a-z0-9_]{0,31}\Z")
_COUNTRY: Final = re.compile(r"[1-9][0-9]{0,2}\Z")
_DIGITS: Final = (5, 15)  # of a telephone number with its country (E.164 has at most fifteen)
_BETWEEN: Final = frozenset(" ()-./")  # what people write between digits
_TURNS: Final = 8  # until a text stays as it is


def _ignored(c: str) -> bool:
    """Whether nothing of a character is seen: joiners, marks of direction, soft hyphens, variation selectors."""
    return unicodedata.category(c) == "Cf" or "\ufe00" <= c <= "\ufe0f" or "\U000e0100" <= c <= "\U000e01ef"


def _once(text: str, *, fold: bool) -> str:
    found = unicodedata.normalize("NFKC", text)
    found = unicodedata.normalize("NFKC", found.casefold()) if fold else found
    return " ".join("".join(c for c in found if not _ignored(c)).split())


def _plain(text: str, *, fold: bool) -> str | None:
    """NFKC, without what is not seen, white space as single spaces and none at the ends; folded where case says nothing."""
    if text.isascii():
        found = " ".join(text.split())
        found = found.lower() if fold else found
    else:
        found = _once(text, fold=fold)
        for _ in range(_TURNS):
            again = _once(found, fold=fold)
            if again == found:
                break
            found = again
        else:
            return None
    return found if found and found.isprintable() else None


def _email(text: str) -> str | None:
    found = _plain(text, fold=True)
    if found is None or found.count("@") != 1 or " " in found:
        return None
    local, _, domain = found.partition("@")
    domain = domain.rstrip(".")
    return f"{local}@{domain}" if local and domain else None


def _phone(text: str, country: str | None) -> str | None:
    found = _plain(text, fold=False)
    if found is None:
        return None
    plus, rest = found.startswith("+"), found.removeprefix("+")
    digits = "".join(c if c in _BETWEEN else str(unicodedata.decimal(c, "x")) for c in rest)
    digits = "".join(c for c in digits if c not in _BETWEEN)
    if not digits.isdecimal():
        return None
    if not plus and digits.startswith("00"):
        plus, digits = True, digits[2:]
    if not plus:
        if country is None:
            return None  # of which country it is nobody said
        digits = country + digits.removeprefix("0")
    least, most = _DIGITS
    return f"+{digits}" if least <= len(digits) <= most and not digits.startswith("0") else None


_RULES: Final[Mapping[str, Callable[[str, str | None], str | None]]] = {
    "email": lambda text, _country: _email(text),
    "exact": lambda text, _country: text or None,
    "id": lambda text, _country: _plain(text, fold=False),
    "phone": _phone,
    "text": lambda text, _country: _plain(text, fold=True),
}
RULES: Final = tuple(sorted(_RULES))


def normal(rule: str, value: str, country: str | None = None) -> str | None:
    """The normal form of a value.

    Args:
        rule: one of ``RULES``.
        value: as it stands in the table.
        country: the digits of the country whose telephone numbers are written without it.

    Returns:
        ``None`` where it has none: empty, too long, or not of the form that the rule is about.
    """
    if len(value) > MAX_CHARS:
        return None
    found = _RULES[rule](value, country)
    return found if found is not None and len(found) <= MAX_CHARS else None


@dataclass(frozen=True, slots=True)
class Keying:
    """How keys are made, alike for every input.

    Attributes:
        rules: one for each column of a key.
        country: for telephone numbers; ``None`` where none is supposed.
    """

    rules: tuple[str, ...]
    country: str | None = None

    def key(self, values: Sequence[str | None]) -> bytes | None:
        """The key that values make, a value for each rule; ``None`` where one of them has no normal form.

        Each part stands behind its length, so that no two lists of parts run together to one key.
        """
        parts = []
        for rule, value in zip(self.rules, values, strict=True):
            found = None if value is None else normal(rule, value, self.country)
            if found is None:
                return None
            try:
                part = found.encode()
            except UnicodeEncodeError:  # half of a surrogate pair is no text
                return None
            parts.append(len(part).to_bytes(4, "big") + part)
        return b"".join(parts)


def keying(rules: object, country: object, checks: Checks) -> Keying:
    """How keys are made, as parameters say it. Raises BadParameters."""
    found = checks.items(rules, "rules", 1, MAX_COLUMNS)
    if not all(isinstance(rule, str) and rule in _RULES for rule in found):
        checks.bad(f"a rule of a key is none of {', '.join(RULES)}")
    if country is not None and (not isinstance(country, str) or not _COUNTRY.match(country)):
        checks.bad("country is neither null nor one to three digits")
    return Keying(tuple(found), country)


@dataclass(frozen=True, slots=True)
class Keyed:
    """Inputs whose keys are compared.

    Attributes:
        inputs: role -> the columns that make its key.
        keying: how.
        round: figures are told in whole multiples of it, rounded down.
    """

    inputs: Mapping[str, tuple[str, ...]]
    keying: Keying
    round: int


def keyed(parameters: Mapping[str, Any], checks: Checks, most: int) -> Keyed:
    """The members ``country``, ``inputs``, ``round`` and ``rules`` of parameters, of 2 to ``most`` inputs.

    Raises:
        BadParameters: they are not as ``spec/programs.md`` says.
    """
    how = keying(parameters["rules"], parameters["country"], checks)
    inputs = parameters["inputs"]
    if not isinstance(inputs, Mapping) or not 2 <= len(inputs) <= most:
        checks.bad(f"inputs is not an object of 2 to {most} members")
    found = {}
    for role, columns in inputs.items():
        checks.matching(role, _ROLE, "the name of an input")
        names = checks.items(columns, "the columns of an input", len(how.rules), len(how.rules))
        found[role] = tuple(checks.text(name, "a column") for name in names)
        checks.distinct(found[role], "the columns of an input")
    return Keyed(dict(sorted(found.items())), how, checks.whole(parameters["round"], "round", 1, MAX_ROUND))
