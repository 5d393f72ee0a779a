"""How the fields of evidence are kept for showing them: as JSON for machines, with words beside it for people.

What describes a platform's evidence (``fields_*.py``) builds a ``Record`` of these; ``shown`` prints it. Everything is
**untrusted**: nothing here says that a field is true, and nothing raises for one that is strange.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from strongroom import wire
from strongroom.attest.x509 import Certificate
from strongroom.errors import BadCertificate, StrongroomError

from .appraised import when

YEAR_10000 = 253_402_300_800
_MIN_TEXT = 4  # fewer characters read as text by chance


class Record(dict[str, Any]):
    """Fields whose names are ours, which people read as words. What is JSON in evidence stays a plain ``dict``."""

    def __or__(self, more: Mapping[str, Any]) -> Record:  # type: ignore[override]
        return Record({**self, **more})


class Digests(dict[str, Any]):
    """Names that end in a number, to bytes: those that are all zero stand together for people."""


class Spoken(dict[str, Any]):
    """JSON, and the lines that people read instead.

    Args:
        members: JSON.
        said: at least one line.
    """

    def __init__(self, members: Mapping[str, Any], *said: str) -> None:
        super().__init__(members)
        self.said = said


class Moment(int):
    """Unix seconds: a number for machines, a date for people."""

    @property
    def said(self) -> str:
        return when(self) if 0 <= self < YEAR_10000 else f"{int(self)}, which is no date"


class Text(str):
    """Bytes that somebody chose, in hex; where they read as text, people see that too."""

    __slots__ = ("said",)
    said: tuple[str, ...]


def number(value: int) -> int | str:
    """A number; in hex, as text, where few readers of JSON would keep it."""
    return value if abs(value) <= wire.MAX_INT else f"{value:#x}"


def text(data: bytes) -> Text:
    """Bytes that may be text with zero bytes behind it."""
    found = Text(data.hex())
    try:
        read = data.rstrip(b"\0").decode("utf-8")
    except UnicodeDecodeError:
        read = ""
    legible = len(read) >= _MIN_TEXT and read.isprintable()
    found.said = (found, f"which reads as {read!r}") if legible else (found or "empty",)
    return found


def bits(value: int, names: Mapping[str, int], *, ones: Mapping[int, str] | None = None) -> Spoken:
    """Flags: which are set, by name; a bit without one by its number.

    Args:
        value: the bits, not negative.
        names: name to number of the bit.
        ones: further bits, which are no flags, and what to call them.
    """
    name_of = {bit: name for name, bit in names.items()} | dict(ones or {})
    found = [bit for bit in range(value.bit_length()) if value >> bit & 1]
    known, unknown = [name_of[bit] for bit in found if bit in name_of], [bit for bit in found if bit not in name_of]
    said = [*known, *(f"bit {bit} (not known here)" for bit in unknown)]
    members = {"value": number(value), "set": known, "unknown_bits": unknown}
    return Spoken(members, f"{', '.join(said) or 'none is set'} ({value:#x})")


def named(value: int, names: Mapping[int, str]) -> Spoken:
    """A number that stands for something."""
    name = names.get(value)
    return Spoken({"value": number(value), "name": name}, f"{name or 'not known here'} ({value:#x})")


def reserved(data: bytes) -> Spoken:
    """Bytes that have no meaning yet."""
    return Spoken({"hex": data.hex()}, data.hex() if any(data) else f"{len(data)} bytes, all zero")


def of_parse(parse: Callable[[], Any]) -> Any:
    """What a parser reads, or one line of why it reads nothing."""
    try:
        return parse()
    except (StrongroomError, ValueError) as error:
        why = error.message if isinstance(error, StrongroomError) else "malformed"
        return Spoken({"cannot_be_read": why}, f"cannot be read: {why}")


def key(public: object) -> str:
    """What kind of key it is."""
    if isinstance(public, rsa.RSAPublicKey):
        return f"RSA-{public.key_size}"
    return f"elliptic curve {public.curve.name}" if isinstance(public, ec.EllipticCurvePublicKey) else "of another kind"


def certificate(found: Certificate) -> Spoken:
    """Whose it is, who issued it, from when to when. Its signature is not looked at."""
    try:
        kind = key(found.public_key)
    except BadCertificate:
        kind = "of a kind that is not read here"
    start, end = Moment(found.not_before), Moment(found.not_after)
    members = {
        "subject": found.subject,
        "issuer": found.issuer,
        "serial_number": f"{found.serial:#x}",
        "not_before": start,
        "not_after": end,
        "key": kind,
        "digest": found.digest,
    }
    return Spoken(
        members,
        found.subject or "a subject without a name",
        f"issued by {found.issuer or 'somebody without a name'}",
        f"valid from {start.said} to {end.said}",
        f"serial number {found.serial:#x}; key: {kind}",
        found.digest,
    )
