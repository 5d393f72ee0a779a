"""dstack's container of an SEV-SNP report: SCALE-encoded, version 0, as its guest agent hands it out.

SCALE is Substrate's encoding: integers that say how long they are, and vectors with their length before them. Only what the
one container needs is read here. The run-time events in it are bound by nothing that the hardware signed: nobody uses them.

See ``spec/evidence-dstack.md``.
"""

from __future__ import annotations

from dataclasses import dataclass

from strongroom.errors import BadEvidence

from .evidence import MAX_EVIDENCE_BYTES, REPORT_DATA_BYTES

MAX_ITEMS = 1024
_VERSION_0, _SEV_SNP = 0, 3


@dataclass(frozen=True, slots=True)
class Container:
    """What the container holds. **Untrusted.**

    Attributes:
        report: the SEV-SNP report.
        certificates: in PEM, in the container's order: the issuer's, then the chip's.
        configuration: the document that HOST_DATA commits to.
        events: name and payload of what ran, which nothing binds.
        report_data: a copy of the report's, 64 bytes.
        machine: dstack's description of the machine, JSON.
    """

    report: bytes
    certificates: tuple[bytes, ...]
    configuration: bytes
    events: tuple[tuple[bytes, bytes], ...]
    report_data: bytes
    machine: bytes

    def encode(self) -> bytes:
        """The container, byte for byte as it was parsed."""
        events = b"".join(_vector(name) + _vector(payload) for name, payload in self.events)
        certificates = b"".join(map(_vector, self.certificates))
        body = _vector(self.report) + _compact(len(self.certificates)) + certificates + _vector(self.configuration)
        tail = self.report_data + _vector(self.machine)
        return bytes([_VERSION_0, _SEV_SNP]) + body + _compact(len(self.events)) + events + tail


def _compact(number: int) -> bytes:
    """The one shortest spelling of a number below 2^30."""
    if number < 1 << 6:
        return bytes([number << 2])
    if number < 1 << 14:
        return (number << 2 | 1).to_bytes(2, "little")
    return (number << 2 | 2).to_bytes(4, "little")


def _vector(data: bytes) -> bytes:
    return _compact(len(data)) + data


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        found = self.data[self.at : self.at + size]
        if len(found) != size:
            raise BadEvidence("dstack's container ends early")
        self.at += size
        return found

    def compact(self) -> int:
        first = self.take(1)[0]
        width = (1, 2, 4, 0)[first & 3]
        if not width:
            raise BadEvidence("dstack's container has a number that is too large")
        self.at -= 1
        spelled = self.take(width)
        number = int.from_bytes(spelled, "little") >> 2
        if _compact(number) != spelled:
            raise BadEvidence("dstack's container has a number that is not in its shortest form")
        return number

    def vector(self) -> bytes:
        return self.take(self.compact())

    def count(self) -> int:
        found = self.compact()
        if found > MAX_ITEMS:
            raise BadEvidence(f"dstack's container has more than {MAX_ITEMS} items")
        return found


def parse(data: bytes) -> Container:
    """Read a container, believed by nobody yet. ``parse(data).encode() == data``.

    Args:
        data: at most 256 KiB.

    Raises:
        BadEvidence: anything else, a container of other hardware among it.
    """
    if len(data) > MAX_EVIDENCE_BYTES:
        raise BadEvidence(f"dstack's container is longer than {MAX_EVIDENCE_BYTES} bytes")
    reader = _Reader(data)
    if reader.take(1)[0] != _VERSION_0:
        raise BadEvidence("dstack's container is not of version 0")
    if reader.take(1)[0] != _SEV_SNP:
        raise BadEvidence("dstack's container does not hold an SEV-SNP report; hand in a TDX quote with its event log")
    found = Container(
        report=reader.vector(),
        certificates=tuple(reader.vector() for _ in range(reader.count())),
        configuration=reader.vector(),
        events=tuple((reader.vector(), reader.vector()) for _ in range(reader.count())),
        report_data=reader.take(REPORT_DATA_BYTES),
        machine=reader.vector(),
    )
    if reader.at != len(data):
        raise BadEvidence("bytes follow dstack's container")
    return found
