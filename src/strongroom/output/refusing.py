"""What every kind of output shares: a refusal that quotes nothing, and rounding.

See ``spec/output.md``.
"""

from __future__ import annotations

from typing import NoReturn

from strongroom.errors import OutputRefused


def refuse(why: str) -> NoReturn:
    """Refuse an output. ``why`` never quotes what was written. Raises OutputRefused."""
    raise OutputRefused(why)


def rounded(value: float, decimals: int) -> float:
    """Rounded to so many decimal places, without a negative nought."""
    return round(value, decimals) + 0.0
