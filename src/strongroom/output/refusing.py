"""What every kind of output shares: a refusal that quotes nothing, and rounding.

See ``spec/output.md``.
"""

from __future__ import annotations

from typing import Final, NoReturn

from strongroom.errors import OutputRefused

RULES: Final = ("form", "max_bytes", "min_group", "schema")
"""The closed set of what an output can break."""


def refuse(why: str, rule: str = "form") -> NoReturn:
    """Refuse an output.

    Args:
        why: for people; never quotes what was written.
        rule: of ``RULES``.

    Raises:
        OutputRefused: always.
    """
    raise OutputRefused(why, rule=rule)


def rounded(value: float, decimals: int) -> float:
    """Rounded to so many decimal places, without a negative nought."""
    return round(value, decimals) + 0.0


def refuse_groups(what: str, min_group: int) -> None:
    """Refuse a rule that asks for groups where there are none. ``what``: with an article. Raises OutputRefused."""
    if min_group > 1:
        refuse(f"{what} cannot be grouped by {min_group}; its rule has min_group 1", "min_group")
