"""The extension of a PCK certificate, in which Intel says which processor a key belongs to.

Format as in Intel's "SGX PCK Certificate and Certificate Revocation List Profile Specification", section 1.3.5.
"""

from __future__ import annotations

from dataclasses import dataclass

from strongroom.errors import BadCertificate

PCK_EXTENSION = "1.2.840.113741.1.13.1"
COMPONENTS = 16  # of a processor, each with a security version

_OID = bytes.fromhex("2a864886f84d010d01")  # PCK_EXTENSION's name, as DER writes it
_INTEGER, _OCTETS, _ENUMERATED, _BOOLEAN, _SEQUENCE = 0x02, 0x04, 0x0A, 0x01, 0x30
_BAD = "the SGX extension of the PCK certificate is not DER, or has a member that is not known here, or one twice"


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """The tag, and where the contents of the element at ``at`` begin and end (X.690, 10.1). Raises BadCertificate."""
    head = der[at : at + 4]
    size = max(head[1] - 0x80, 0) if len(head) > 1 else 3
    if size > 2 or head[1] == 0x80:
        raise BadCertificate(_BAD)
    length = int.from_bytes(head[2 : 2 + size], "big") if size else head[1]
    start = at + 2 + size
    if start + length > len(der) or (size and length < (0x80, 0x100)[size - 1]):
        raise BadCertificate(_BAD)
    return head[0], start, start + length


def _named(der: bytes, prefix: bytes = b"") -> dict[int, tuple[int, bytes]]:
    """A sequence's members, each a pair of an object identifier and a value, by the last part of the identifier."""
    name = bytes([0x06, 10 + len(prefix)]) + _OID + prefix
    found: dict[int, tuple[int, bytes]] = {}
    end = 0
    while end < len(der):
        tag, start, end = _element(der, end)
        value = start + len(name) + 1
        if tag != _SEQUENCE or der[start : value - 1] != name or value >= end:
            raise BadCertificate(_BAD)
        kind, first, last = _element(der, value)
        if last != end or der[value - 1] in found:
            raise BadCertificate(_BAD)
        found[der[value - 1]] = kind, der[first:last]
    return found


def _value(members: dict[int, tuple[int, bytes]], number: int, tag: int, size: int | None) -> bytes:
    found = members.get(number)
    if found is None or found[0] != tag or (size is not None and len(found[1]) != size):
        raise BadCertificate(
            f"the SGX extension of the PCK certificate lacks its member {number}, or has it in another form"
        )
    return found[1]


def _number(members: dict[int, tuple[int, bytes]], number: int, most: int) -> int:
    found = int.from_bytes(_value(members, number, _INTEGER, None), "big", signed=True)
    if not 0 <= found <= most:
        raise BadCertificate("a number in the SGX extension of the PCK certificate is out of range")
    return found


@dataclass(frozen=True, slots=True)
class PckExtension:
    """Which processor a PCK belongs to, and its security versions.

    Attributes:
        ppid: the processor's permanent identity, 16 bytes.
        svns: the versions of its 16 components.
        pce_svn: the version of its provisioning certification enclave (PCE).
        pce_id: which PCE that is, 2 bytes.
        fmspc: the kind of processor and platform, 6 bytes.
        sgx_type: 0 standard, 1 scalable, 2 scalable with integrity.
        smt: whether hyper-threading is on; ``None`` where it is not said (as for one-package platforms).
    """

    ppid: bytes
    svns: tuple[int, ...]
    pce_svn: int
    pce_id: bytes
    fmspc: bytes
    sgx_type: int
    smt: bool | None

    @classmethod
    def parse(cls, der: bytes) -> PckExtension:
        """Raises BadCertificate."""
        tag, start, end = _element(der, 0)
        if tag != _SEQUENCE or end != len(der):
            raise BadCertificate("the SGX extension of the PCK certificate is not one sequence")
        members = _named(der[start:])
        tcb = _named(_value(members, 2, _SEQUENCE, None), b"\x02")
        configuration = _named(_value(members, 7, _SEQUENCE, None), b"\x07") if 7 in members else {}
        return cls(
            ppid=_value(members, 1, _OCTETS, 16),
            svns=tuple(_number(tcb, n, 0xFF) for n in range(1, COMPONENTS + 1)),
            pce_svn=_number(tcb, 17, 0xFFFF),
            pce_id=_value(members, 3, _OCTETS, 2),
            fmspc=_value(members, 4, _OCTETS, 6),
            sgx_type=_value(members, 5, _ENUMERATED, 1)[0],
            smt=_value(configuration, 3, _BOOLEAN, 1) != b"\0" if 3 in configuration else None,
        )


@dataclass(frozen=True, slots=True)
class Platform:
    """What else the extension says, which no check reads: for people.

    Attributes:
        cpu_svn: the versions of its components as the processor itself writes them, 16 bytes.
        instance: the platform of several packages that it belongs to, 16 bytes.
        dynamic: whether packages can be added to that platform.
        cached_keys: whether Intel keeps the platform's root keys.
    """

    cpu_svn: bytes | None
    instance: bytes | None
    dynamic: bool | None
    cached_keys: bool | None

    @classmethod
    def parse(cls, der: bytes) -> Platform:
        """What is not there, or has another form, is ``None``. Raises BadCertificate: no sequence of Intel's."""
        _, start, end = _element(der, 0)
        members = _named(der[start:end])
        tcb = _named(_value(members, 2, _SEQUENCE, None), b"\x02")
        configuration = _named(_value(members, 7, _SEQUENCE, None), b"\x07") if 7 in members else {}

        def octets(of: dict[int, tuple[int, bytes]], number: int) -> bytes | None:
            tag, value = of.get(number, (0, b""))
            return value if tag == _OCTETS and len(value) == 16 else None

        def flag(number: int) -> bool | None:
            tag, value = configuration.get(number, (0, b""))
            return value != b"\0" if tag == _BOOLEAN and len(value) == 1 else None

        return cls(octets(tcb, 18), octets(members, 6), flag(1), flag(2))
