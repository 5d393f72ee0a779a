"""Events of a log, and the certificates and digests in UEFI's variables of secure boot (UEFI 2.10, section 32.4.1).

Nothing is believed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any

from strongroom.attest import tcg_log
from strongroom.attest.eventlog import Shown
from strongroom.attest.x509 import Certificate
from strongroom.errors import BadCertificate

from .fields import Spoken, certificate

_LISTS = frozenset({"PK", "KEK", "db", "dbx", "dbt", "dbr", "MokList", "MokListX"})
_AUTHORITY = "EV_EFI_VARIABLE_AUTHORITY"
_X509 = bytes.fromhex("a159c0a5e494a74a87b5ab155c2bf072")
_DIGESTS: Mapping[bytes, str] = MappingProxyType(
    {
        bytes.fromhex("2616c4c14c509240aca941f936934328"): "SHA-256",
        bytes.fromhex("07533effd09fc948a6f1a6d3fdf9ab80"): "SHA-384 (of a certificate's contents)",
        bytes.fromhex("92a4d23bc0967940b420fcf98ef103ed"): "SHA-256 (of a certificate's contents)",
    }
)
_LIST_HEADER, _OWNER = 28, 16  # EFI_SIGNATURE_LIST; the owner before each entry
MAX_ENTRIES = 4096


def entries(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The type and the bytes of each entry of signature lists; nothing more of one that contradicts itself."""
    count = 0
    while len(data) >= _LIST_HEADER:
        size, header, each = struct.unpack_from("<III", data, 16)
        if not _LIST_HEADER + header <= size <= len(data) or each <= _OWNER:
            return
        for at in range(_LIST_HEADER + header, size - each + 1, each):
            yield data[:16], data[at + _OWNER : at + each]
            count += 1
            if count == MAX_ENTRIES:
                return
        data = data[size:]


def _said(name: str, kinds: list[tuple[bytes, bytes]]) -> tuple[dict[str, Any], list[str]]:
    found: list[Spoken] = []
    for kind, data in kinds:
        with suppress(BadCertificate):
            if kind == _X509:
                found.append(certificate(Certificate(data)))
    digests = sum(kind in _DIGESTS for kind, _ in kinds)
    other = len(kinds) - digests - len(found)
    counted = {"certificates": len(found), "digests": digests, "not read here": other}
    head = f"{name}: {', '.join(f'{what}: {n}' for what, n in counted.items() if n) or 'no entry'}"
    said = [f"{one['subject']}, {one.said[2]}" for one in found]
    return {"certificates": found, "digests": digests, "other_entries": other}, [head, *said]


def of_event(event: Shown) -> Spoken:
    """One event, with what is in a variable of secure boot."""
    head = f"{event.register} {event.type}, {event.found}: {event.of}"
    members: dict[str, Any] = {
        "register": event.register,
        "type": event.type,
        "found": event.found.value,
        "of": event.of,
        "digest": event.digest,
        "digests": dict(event.digests),
        "data": event.data.hex(),
        "text": event.text,
    }
    variable = tcg_log.variable(event.data)
    name, value = variable if variable is not None and event.type.startswith("EV_EFI_VARIABLE") else ("", b"")
    if name not in _LISTS:
        empty = " (empty)" if variable is not None and name and not value else ""
        return Spoken(members, head, event.digest, event.text + empty)
    authority = event.type == _AUTHORITY  # one entry, without the list around it
    kinds = [(_X509, value[_OWNER:])] if authority else list(entries(value))
    members["variable"], lines = _said(name, kinds)
    return Spoken(members, head, event.digest, *lines)


DESCRIBED: Mapping[type, Callable[[Any], Spoken]] = MappingProxyType({Shown: of_event})
