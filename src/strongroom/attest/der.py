"""Where the parts of a certificate or revocation list lie in its bytes (X.690, RFC 5280 sections 4.1 and 5.1).

The library hands out what it has read, and is content with more than one spelling of it. What was signed, and the names
and the serial number as they stand there, are taken from the bytes; what the signature does not cover has one spelling.
"""

from __future__ import annotations

from dataclasses import dataclass

from strongroom.errors import BadCertificate

MAX_NAME_BYTES = 4096  # the library takes a hundred times the room, and as long, for a name of many parts

_INTEGER, _BIT_STRING, _SEQUENCE, _VERSION = 0x02, 0x03, 0x30, 0xA0


def element(der: bytes, at: int) -> tuple[int, int, int]:
    """The tag, the start of the contents and the end of the DER element at ``at`` (X.690 section 8.1)."""
    try:
        tag, length, start = der[at], der[at + 1], at + 2
        if length & 0x80:
            size = length & 0x7F
            if not 1 <= size <= 4:
                raise BadCertificate("an element of it has no definite length")
            length, start = int.from_bytes(der[start : start + size], "big"), start + size
    except IndexError:
        raise BadCertificate("it ends early") from None
    if start + length > len(der):
        raise BadCertificate("it ends early")
    return tag, start, start + length


@dataclass(frozen=True, slots=True)
class Outline:
    """Where a certificate's parts lie in its bytes (RFC 5280 section 4.1): each a start and an end, headers included."""

    tbs: slice
    serial: slice  # the contents alone
    issuer: slice
    subject: slice


def signed_part(der: bytes) -> tuple[slice, int, slice]:
    """What was signed in a certificate or revocation list, where its contents begin, and the algorithm named beside it.

    Raises:
        BadCertificate: not one sequence of what was signed, an algorithm and a signature of whole bytes, and nothing else.
    """
    tag, start, end = element(der, 0)
    if tag != _SEQUENCE or end != len(der):
        raise BadCertificate("it is not exactly one DER sequence")
    tag, inner, after = element(der, start)
    if tag != _SEQUENCE:
        raise BadCertificate("it does not begin with what was signed")
    algorithm = slice(after, element(der, after)[2])
    tag, signature, last = element(der, algorithm.stop)
    if tag != _BIT_STRING or last != end or der[signature : signature + 1] != b"\0":
        raise BadCertificate("it does not end with a signature of whole bytes")
    return slice(start, after), inner, algorithm


def require_alike(der: bytes, inside: slice, outside: slice) -> None:
    """The algorithm is named twice, and only once under the signature (RFC 5280 sections 4.1.1.2 and 5.1.1.2)."""
    if der[inside] != der[outside]:
        raise BadCertificate("it names two algorithms for its one signature")


def require_short(name: slice) -> slice:
    """Raises BadCertificate: longer than 4 KiB."""
    if name.stop - name.start > MAX_NAME_BYTES:
        raise BadCertificate(f"a name in it is longer than {MAX_NAME_BYTES} bytes")
    return name


def outline(der: bytes) -> Outline:
    """Raises BadCertificate: not exactly one certificate, with no trailing bytes."""
    tbs, inner, algorithm = signed_part(der)
    tag, number, after = element(der, inner)
    if tag == _VERSION:
        tag, number, after = element(der, after)
    if tag != _INTEGER or number == after:
        raise BadCertificate("it has no serial number")
    issuer = element(der, after)[2]
    require_alike(der, slice(after, issuer), algorithm)
    validity = element(der, issuer)[2]
    subject = element(der, validity)[2]
    return Outline(
        tbs=tbs,
        serial=slice(number, after),
        issuer=require_short(slice(issuer, validity)),
        subject=require_short(slice(subject, element(der, subject)[2])),
    )


def require_list_alike(der: bytes) -> None:
    """Require of a revocation list what :func:`outline` requires of a certificate. Raises BadCertificate."""
    _, inner, algorithm = signed_part(der)
    tag, _, after = element(der, inner)
    begin = after if tag == _INTEGER else inner  # the version may be left out
    issuer = element(der, begin)[2]
    require_alike(der, slice(begin, issuer), algorithm)
    require_short(slice(issuer, element(der, issuer)[2]))
