"""What is the same on every page of an inbox's session, and where on a page somebody is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlencode


@dataclass(frozen=True, slots=True)
class Frame:
    """What is the same on every page of a session.

    Attributes:
        base: the path that all pages are under, which ends in ``/``.
        party: whose inbox it is, with the fingerprint of its keys.
        secret: what every form carries.
    """

    base: str
    party: str
    fingerprint: str
    secret: str

    def path(self, *parts: str, **query: object) -> str:
        said = urlencode({name: value for name, value in query.items() if value not in (None, "")})
        return self.base + "/".join(parts) + (f"?{said}" if said else "")


@dataclass(frozen=True, slots=True)
class Place:
    """Where on a page somebody is: the file and line to comment on, a file shown whole, and from which line."""

    file: str | None = None
    line: int | None = None
    whole: str | None = None
    start: int = 1


def day(at: int) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")
    except (OverflowError, ValueError, OSError):
        return f"second {at}"


__all__ = ["Frame", "Place", "day"]
