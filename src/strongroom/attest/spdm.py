"""SPDM 1.1 measurements as NVIDIA's GPUs and switches report them: the request, the response and what the device adds to it.

A report is the request (37 bytes) followed by the response, whose last 96 bytes are a signature over everything before them
(DMTF DSP0274 version 1.1, ``GET_MEASUREMENTS`` and ``MEASUREMENTS``). The nonce of the *request* is the asker's; the
response's own is the device's and says nothing to anybody. Integers are little-endian. Nothing here is believed:
``nvidia.verify`` checks the signature.

See ``spec/evidence-nvidia.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from strongroom.errors import BadEvidence

MAX_REPORT_BYTES = 8 << 10
REQUEST_BYTES = 37
SIGNATURE_BYTES = 96  # ECDSA on P-384, r and s
MEASUREMENT_BYTES = 48  # SHA-384
NONCE_BYTES = 32
PDI_BYTES = 8  # what devices call each other on their links
MAX_MEASUREMENTS = 64

_VERSION, _GET_MEASUREMENTS, _MEASUREMENTS = 0x11, 0xE0, 0x60
_SIGNED, _ALL = 0x01, 0xFF  # the request's two parameters: a signature is asked for, over every measurement
_SLOTS = 8
_HEADER_BYTES = 8  # of the response: version, code, two parameters, number of blocks, length of their record
_BLOCK_BYTES = 4 + 3 + MEASUREMENT_BYTES
_DMTF = 0x01  # the one measurement specification
_RAW = 0x80  # of a value's type: the value is no digest
_LATEST_TYPE = 0x05

# Types of the device's own fields.
DRIVER_VERSION = 3
VBIOS_VERSION = 6
NVDEC0_STATUS = 11
CHIP_SKU = 15
PROJECT = 17
PROJECT_SKU = 18
FWID = 20
PROTECTED_PCIE_STATUS = 21
SWITCH_PDIS = 22  # of a GPU, what each of its links leads to; of a switch, its own name
GPU_PDIS = 26
CHIP_INFO = 35
FEATURE_FLAG = 36
FIELD_NAMES: Mapping[int, str] = MappingProxyType(
    {
        DRIVER_VERSION: "driver version",
        4: "gpu info",
        VBIOS_VERSION: "vbios version",
        NVDEC0_STATUS: "nvdec0 status",
        12: "measurement counts",
        13: "protected region info",
        14: "board id",
        CHIP_SKU: "chip sku",
        16: "chip sku modifier",
        PROJECT: "project",
        PROJECT_SKU: "project sku",
        19: "project sku modifier",
        FWID: "firmware id",
        PROTECTED_PCIE_STATUS: "protected pcie status",
        SWITCH_PDIS: "switch pdis",
        23: "floorswept ports",
        24: "position id",
        25: "lock switch status",
        GPU_PDIS: "gpu pdis",
        32: "gpu link connections",
        33: "system enable status",
        34: "opaque data version",
        CHIP_INFO: "chip info",
        FEATURE_FLAG: "feature flag",
    }
)


@dataclass(frozen=True, slots=True)
class Report:
    """A device's report, taken apart. **Untrusted**; the bytes are what it was read from, exactly.

    Attributes:
        data: the whole report.
        nonce: 32 bytes, from the request.
        slot: which of the device's certificate chains signed, 0 to 7.
        measurements: index, from 1 and without gaps, to a SHA-384 digest.
        opaque: type of field to its bytes.
        signature: 96 bytes, r and s.
    """

    data: bytes
    nonce: bytes
    slot: int
    measurements: Mapping[int, bytes]
    opaque: Mapping[int, bytes]
    signature: bytes

    @property
    def signed(self) -> bytes:
        """What the signature covers: request and response without it."""
        return self.data[:-SIGNATURE_BYTES]

    def text(self, field: int) -> str:
        """A field's text up to its zero bytes; ``""`` where there is none. Raises BadEvidence: it is not printable ASCII."""
        data = self.opaque.get(field, b"").rstrip(b"\0")
        if not all(0x20 < byte < 0x7F for byte in data):
            raise BadEvidence(f"the report's {FIELD_NAMES[field]} is not text")
        return data.decode("ascii")

    def number(self, field: int, *, size: int) -> int | None:
        """A field's number; ``None`` where there is none. Raises BadEvidence: it is not ``size`` bytes long."""
        data = self.opaque.get(field)
        if data is None:
            return None
        if len(data) != size:
            raise BadEvidence(f"the report's {FIELD_NAMES[field]} is not {size} bytes long")
        return int.from_bytes(data, "little")


def _request(data: bytes) -> tuple[bytes, int]:
    """The nonce and the slot that the request asks for."""
    version, code, attributes, which = data[:4]
    if (version, code) != (_VERSION, _GET_MEASUREMENTS):
        raise BadEvidence("a report does not begin with an SPDM 1.1 request for measurements")
    if (attributes, which) != (_SIGNED, _ALL):
        raise BadEvidence("a report does not answer a request for all measurements, signed")
    slot = data[REQUEST_BYTES - 1]
    if slot >= _SLOTS:
        raise BadEvidence("a report's request names no slot")
    return data[4:36], slot


def _measurements(record: bytes, count: int) -> dict[int, bytes]:
    """The digests of a measurement record, by index."""
    if not 1 <= count <= MAX_MEASUREMENTS or len(record) != count * _BLOCK_BYTES:
        raise BadEvidence(f"a report does not hold 1 to {MAX_MEASUREMENTS} measurements of one size")
    found: dict[int, bytes] = {}
    for place in range(count):
        block = record[place * _BLOCK_BYTES : (place + 1) * _BLOCK_BYTES]
        index, specification, kind = block[0], block[1], block[4]
        sizes = int.from_bytes(block[2:4], "little"), int.from_bytes(block[5:7], "little")
        if specification != _DMTF or sizes != (3 + MEASUREMENT_BYTES, MEASUREMENT_BYTES):
            raise BadEvidence(f"measurement {index} of a report is no SHA-384 digest")
        if kind & _RAW or kind > _LATEST_TYPE:
            raise BadEvidence(f"measurement {index} of a report is of an unknown kind")
        if index != place + 1:
            raise BadEvidence("a report's measurements do not stand in order, each once")
        found[index] = block[7:]
    return found


def _opaque(data: bytes) -> dict[int, bytes]:
    """The device's own fields: type (2 bytes), length (2 bytes), value; each type once."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        kind, length = int.from_bytes(data[at : at + 2], "little"), int.from_bytes(data[at + 2 : at + 4], "little")
        value = data[at + 4 : at + 4 + length]
        at += 4 + length
        if at > len(data):
            raise BadEvidence("a field of a report ends early")
        if kind in found:
            raise BadEvidence(f"a report has field {kind} twice")
        found[kind] = value
    return found


def parse(data: bytes) -> Report:
    """Read a report, every byte of it.

    Args:
        data: request and response, at most 8 KiB.

    Raises:
        BadEvidence: it is not exactly that.
    """
    if len(data) > MAX_REPORT_BYTES:
        raise BadEvidence(f"a report is longer than {MAX_REPORT_BYTES} bytes")
    start = REQUEST_BYTES + _HEADER_BYTES
    if len(data) < start + NONCE_BYTES + 2 + SIGNATURE_BYTES:
        raise BadEvidence("a report ends early")
    nonce, slot = _request(data)
    version, code, reserved, answered, count = data[REQUEST_BYTES : REQUEST_BYTES + 5]
    if (version, code, reserved, answered) != (_VERSION, _MEASUREMENTS, 0, slot):
        raise BadEvidence("a report's response does not answer its request")
    end = start + int.from_bytes(data[start - 3 : start], "little")
    opaque = end + NONCE_BYTES + 2
    after = opaque + int.from_bytes(data[opaque - 2 : opaque], "little")
    if after + SIGNATURE_BYTES != len(data):
        raise BadEvidence("a report's lengths do not add up to its size")
    return Report(
        data=data,
        nonce=nonce,
        slot=slot,
        measurements=MappingProxyType(_measurements(data[start:end], count)),
        opaque=MappingProxyType(_opaque(data[opaque:after])),
        signature=data[-SIGNATURE_BYTES:],
    )
