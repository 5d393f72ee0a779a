"""The TCG crypto-agile event log: what firmware and boot loaders write down of what they measure, byte for byte.

Two kinds of machine keep one. A TPM's log names PCRs 0 to 23. A confidential guest's (CCEL) names measurement registers: 0
is MRTD, which nothing extends, 1 to 4 are RTMR0 to RTMR3; its area is padded to a fixed size.

A log is **untrusted** until it replays to registers that hardware signed, and then only its digests are known: the text
beside a digest is what somebody wrote there. So wherever the specification says that the text is what was hashed, the digest
is computed again from it (:func:`judge`).

Sources: TCG PC Client Platform Firmware Profile 1.06, sections 10.2 (structures) and 10.4 (event types); UEFI 2.10, section
38 (confidential computing). See ``spec/event-log.md``.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from strongroom.errors import BadEventLog

from .evidence import MAX_EVENT_LOG_BYTES

MAX_EVENTS = 4096
MAX_PCR = 23
MAX_REGISTER = 4  # of a confidential guest: RTMR3

ALGORITHMS: Mapping[int, tuple[str, int]] = MappingProxyType(  # TPM_ALG_ID: name, digest size in bytes
    {0x04: ("sha1", 20), 0x0B: ("sha256", 32), 0x0C: ("sha384", 48), 0x0D: ("sha512", 64), 0x12: ("sm3_256", 32)}
)
BY_NAME: Mapping[str, int] = MappingProxyType({name: number for number, (name, _) in ALGORITHMS.items()})

_SIGNATURE = b"Spec ID Event03\0"
_LOCALITY = b"StartupLocality\0"
_AAEL = b"LEAA"  # the magic number of an application's own entry (0x4141454C), as it lies in memory
NO_ACTION = 0x03
_IPL, _TAG, _VARIABLE_BOOT = 0x0D, 0x06, 0x80000002

TYPES: Mapping[int, str] = MappingProxyType(
    {
        0x00: "EV_PREBOOT_CERT",
        0x01: "EV_POST_CODE",
        0x02: "EV_UNUSED",
        0x03: "EV_NO_ACTION",
        0x04: "EV_SEPARATOR",
        0x05: "EV_ACTION",
        0x06: "EV_EVENT_TAG",
        0x07: "EV_S_CRTM_CONTENTS",
        0x08: "EV_S_CRTM_VERSION",
        0x09: "EV_CPU_MICROCODE",
        0x0A: "EV_PLATFORM_CONFIG_FLAGS",
        0x0B: "EV_TABLE_OF_DEVICES",
        0x0C: "EV_COMPACT_HASH",
        0x0D: "EV_IPL",
        0x0E: "EV_IPL_PARTITION_DATA",
        0x0F: "EV_NONHOST_CODE",
        0x10: "EV_NONHOST_CONFIG",
        0x11: "EV_NONHOST_INFO",
        0x12: "EV_OMIT_BOOT_DEVICE_EVENTS",
        0x13: "EV_POST_CODE2",
        0x80000001: "EV_EFI_VARIABLE_DRIVER_CONFIG",
        0x80000002: "EV_EFI_VARIABLE_BOOT",
        0x80000003: "EV_EFI_BOOT_SERVICES_APPLICATION",
        0x80000004: "EV_EFI_BOOT_SERVICES_DRIVER",
        0x80000005: "EV_EFI_RUNTIME_SERVICES_DRIVER",
        0x80000006: "EV_EFI_GPT_EVENT",
        0x80000007: "EV_EFI_ACTION",
        0x80000008: "EV_EFI_PLATFORM_FIRMWARE_BLOB",
        0x80000009: "EV_EFI_HANDOFF_TABLES",
        0x8000000A: "EV_EFI_PLATFORM_FIRMWARE_BLOB2",
        0x8000000B: "EV_EFI_HANDOFF_TABLES2",
        0x8000000C: "EV_EFI_VARIABLE_BOOT2",
        0x80000010: "EV_EFI_HCRTM_EVENT",
        0x800000E0: "EV_EFI_VARIABLE_AUTHORITY",
        0x800000E1: "EV_EFI_SPDM_FIRMWARE_BLOB",
        0x800000E2: "EV_EFI_SPDM_FIRMWARE_CONFIG",
    }
)

# The event's data are what was hashed, all of them: section 10.4.1 of the profile, per type.
_WHOLE = frozenset({0x04, 0x05, 0x08, 0x12, 0x80000001, 0x80000006, 0x80000007, 0x8000000C, 0x800000E0})
# What was hashed stands after one of these labels, up to the first NUL (GRUB's tpm module and its relatives).
LABELS = (b"grub_cmd: ", b"kernel_cmdline: ", b"module_cmdline: ", b"grub_cmd ", b"grub_kernel_cmdline ")
# What was hashed is elsewhere, and why nobody can compute it from the log.
_ELSEWHERE: Mapping[int, str] = MappingProxyType(
    {
        0x01: "firmware code",
        0x06: "what the tag describes: load options, an initial ramdisk",
        0x07: "firmware code",
        0x09: "a microcode update",
        0x0A: "configuration data such as ACPI tables",
        0x0D: "a file or a list of keys that the text only names",
        0x11: "data of a part beside the processor",
        0x80000003: "a program image (Authenticode hash)",
        0x80000004: "a driver image (Authenticode hash)",
        0x80000005: "a driver image (Authenticode hash)",
        0x80000008: "a firmware volume",
        0x80000009: "firmware tables",
        0x8000000A: "a firmware volume",
        0x8000000B: "firmware tables such as the TD's hand-off block",
    }
)


class Found(StrEnum):
    """What computing an event's digest again came to."""

    RECOMPUTED = "recomputed"
    OPAQUE = "opaque"
    NOT_MEASURED = "not measured"
    CONTRADICTED = "contradicted"


@dataclass(frozen=True, slots=True)
class Event:
    """One entry (TCG_PCR_EVENT2).

    Attributes:
        register: the PCR, or the measurement register of a confidential guest.
        type: the event type.
        digests: pairs of TPM_ALG_ID and digest, in the log's order.
        data: what stands beside them.
    """

    register: int
    type: int
    digests: tuple[tuple[int, bytes], ...]
    data: bytes

    @property
    def name(self) -> str:
        """The type's name in the profile, or its number."""
        return TYPES.get(self.type, f"{self.type:#010x}")

    def digest(self, algorithm: str) -> bytes:
        """The digest in one bank (``"sha384"``). Raises BadEventLog when there is none."""
        wanted = BY_NAME[algorithm]
        for number, digest in self.digests:
            if number == wanted:
                return digest
        raise BadEventLog(f"an event has no {algorithm} digest")

    def encode(self) -> bytes:
        digests = b"".join(struct.pack("<H", number) + digest for number, digest in self.digests)
        head = struct.pack("<III", self.register, self.type, len(self.digests))
        return head + digests + struct.pack("<I", len(self.data)) + self.data


@dataclass(frozen=True, slots=True)
class Log:
    """A whole log. **Untrusted**: :func:`replay` says what registers it leads to.

    Attributes:
        register: the register that the header event names: 0, or 1 in a confidential guest's.
        version: platform class, minor, major, errata, size of a UINTN.
        algorithms: the banks that every event has a digest in, as pairs of TPM_ALG_ID and size.
        vendor: the vendor's own bytes in the header.
        events: in order.
        padding: the byte that fills the area after the last event, 0xFF or 0x00, and how often it stands.
    """

    register: int
    version: tuple[int, int, int, int, int]
    algorithms: tuple[tuple[int, int], ...]
    vendor: bytes
    events: tuple[Event, ...]
    padding: tuple[int, int] = (0xFF, 0)

    def encode(self) -> bytes:
        """The log, byte for byte as it was parsed."""
        body = _SIGNATURE + struct.pack("<IBBBBI", *self.version, len(self.algorithms))
        body += b"".join(struct.pack("<HH", *algorithm) for algorithm in self.algorithms)
        body += bytes([len(self.vendor)]) + self.vendor
        head = struct.pack("<II20sI", self.register, NO_ACTION, bytes(20), len(body))
        return head + body + b"".join(e.encode() for e in self.events) + bytes([self.padding[0]]) * self.padding[1]


class _Reader:
    """Takes bytes off the front; what is not there is a BadEventLog."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        found = self.data[self.at : self.at + size]
        if len(found) != size:
            raise BadEventLog("the event log ends in the middle of an event")
        self.at += size
        return found

    def numbers(self, layout: str) -> tuple[int, ...]:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))


def _header(reader: _Reader) -> tuple[int, tuple[int, int, int, int, int], tuple[tuple[int, int], ...], bytes]:
    """The first event, in the old layout: which banks follow (TCG_EfiSpecIDEvent). Raises BadEventLog."""
    register, kind, digest, size = struct.unpack("<II20sI", reader.take(32))
    if register > 1 or kind != NO_ACTION or digest != bytes(20):
        raise BadEventLog("the event log does not begin with an event that measures nothing")
    inner = _Reader(reader.take(min(size, 1024)))
    if size > 1024 or inner.take(16) != _SIGNATURE:
        raise BadEventLog("not a crypto-agile event log (Spec ID Event03)")
    platform, minor, major, errata, width, count = inner.numbers("<IBBBBI")
    if not 1 <= count <= len(ALGORITHMS):
        raise BadEventLog("the event log does not name 1 to 5 hash algorithms")
    banks = tuple((number, size) for number, size in (inner.numbers("<HH") for _ in range(count)))
    if len({number for number, _ in banks}) != count or any(ALGORITHMS.get(n, ("", 0))[1] != s for n, s in banks):
        raise BadEventLog("the event log names a hash algorithm twice, unknown or with another size")
    vendor = inner.take(inner.numbers("<B")[0])
    if inner.at != len(inner.data):
        raise BadEventLog("the event log's header is longer than what it holds")
    return register, (platform, minor, major, errata, width), banks, vendor


def _event(reader: _Reader, banks: Mapping[int, int], most: int) -> Event:
    register, kind, count = reader.numbers("<III")
    if register > most:
        raise BadEventLog(f"an event is for register {register}; there are 0 to {most}")
    if count != len(banks):
        raise BadEventLog("an event does not have one digest for each bank of the header")
    digests: dict[int, bytes] = {}
    for _ in range(count):
        (number,) = reader.numbers("<H")
        if number not in banks or number in digests:
            raise BadEventLog("an event does not have one digest for each bank of the header")
        digests[number] = reader.take(banks[number])
    event = Event(register, kind, tuple(digests.items()), reader.take(*reader.numbers("<I")))
    if kind == NO_ACTION and any(any(digest) for digest in digests.values()):
        raise BadEventLog("an event that measures nothing has a digest")
    return event


def parse(data: bytes, *, guest: bool) -> Log:
    """Read a log, believed by nobody yet. ``parse(data, guest=…).encode() == data``.

    Args:
        data: the log, at most 1 MiB.
        guest: whether it is a confidential guest's (CCEL): registers are 0 to 4, and padding may follow the last event,
            0xFF or 0x00 throughout. A TPM's names PCRs 0 to 23, and nothing may follow.

    Raises:
        BadEventLog: anything else.
    """
    if len(data) > MAX_EVENT_LOG_BYTES:
        raise BadEventLog(f"the event log is longer than {MAX_EVENT_LOG_BYTES} bytes")
    reader = _Reader(data)
    register, version, banks, vendor = _header(reader)
    sizes, most = dict(banks), MAX_REGISTER if guest else MAX_PCR
    events: list[Event] = []
    padding = (0xFF, 0)
    while reader.at < len(data):
        if guest and (rest := _padding(data, reader.at)):
            padding = rest
            break
        if len(events) == MAX_EVENTS:
            raise BadEventLog(f"more than {MAX_EVENTS} events")
        events.append(_event(reader, sizes, most))
    if guest and any(event.register == 0 and event.type != NO_ACTION for event in events):
        raise BadEventLog("an event is for MRTD, which nothing can extend once the guest runs")
    return Log(register, version, banks, vendor, tuple(events), padding)


def _padding(data: bytes, at: int) -> tuple[int, int] | None:
    """The padding, where nothing else is left. No event looks like it: no register is 0xFFFFFFFF, none has 0 digests."""
    for byte in (0xFF, 0x00):
        if data[at : at + 12] == bytes([byte]) * min(12, len(data) - at):
            if data.count(byte, at) != len(data) - at:
                raise BadEventLog("bytes other than padding follow the last event")
            return byte, len(data) - at
    return None


def _initial(events: Iterable[Event], size: int, register: int, *, guest: bool) -> bytes:
    """What a register holds before the first event: zeros, but for the locality that started the TPM (profile, 10.4.5.3)."""
    if guest or register != 0:
        return bytes(size)
    locality = 0
    for event in events:
        if event.register == 0 and event.type == NO_ACTION and event.data.startswith(_LOCALITY):
            if len(event.data) != 17 or event.data[16] not in {0, 3, 4}:
                raise BadEventLog("the log says that the TPM was started from a locality that cannot start it")
            locality = event.data[16]
        elif event.register == 0 and event.type != NO_ACTION:
            break
    return bytes(size - 1) + bytes([locality])


def extend(value: bytes, digest: bytes, algorithm: str) -> bytes:
    """A register's next value."""
    return hashlib.new(algorithm, value + digest).digest()


def replay(events: Iterable[Event], algorithm: str, *, guest: bool) -> dict[int, bytes]:
    """The registers that a log leads to: register to value, for those that an event extends.

    Args:
        events: in order.
        algorithm: the bank, ``"sha256"`` or ``"sha384"``.
        guest: whether they are a confidential guest's.

    Raises:
        BadEventLog: an event has no digest in that bank, or the log names an impossible locality.
    """
    events = tuple(events)
    found: dict[int, bytes] = {}
    for event in events:
        if event.type != NO_ACTION:
            digest = event.digest(algorithm)
            register = event.register
            before = found[register] if register in found else _initial(events, len(digest), register, guest=guest)
            found[register] = extend(before, digest, algorithm)
    return found


def variable(data: bytes) -> tuple[str, bytes] | None:
    """Name and value of a UEFI_VARIABLE_DATA; ``None`` where the data are none."""
    if len(data) < 32:
        return None
    name, size = struct.unpack_from("<QQ", data, 16)
    if 32 + 2 * name + size != len(data):
        return None
    return data[32 : 32 + 2 * name].decode("utf-16-le", "replace"), data[32 + 2 * name :]


def _hashed(event: Event) -> tuple[str, tuple[bytes, ...]] | None:
    """What a type promises that the digest is of, beside the data as a whole; ``None`` where it promises nothing."""
    if event.type in _WHOLE or (event.type == _TAG and event.data.startswith(_AAEL)):
        return "its data", ()
    if event.type == _VARIABLE_BOOT:
        found = variable(event.data)
        return "its variable", (found[1],) if found else ()
    for label in LABELS if event.type == _IPL else ():
        if event.data.startswith(label):
            text = event.data[len(label) :].split(b"\0", 1)[0]
            return "the command that it names", (text, text + b"\0")
    return None


def judge(event: Event, algorithm: str, *, stripped: bool = False) -> tuple[Found, str]:
    """Compute an event's digest again from its data, where the profile says that they are what was hashed.

    Args:
        event: untrusted.
        algorithm: the bank to compare in.
        stripped: whether whoever kept the log may have dropped data to save room (dstack does). A digest alone is opaque.

    Returns:
        what was found, and one line that says of what the digest is.

    Raises:
        BadEventLog: the event has no digest in that bank.
    """
    if event.type == NO_ACTION:
        return Found.NOT_MEASURED, "extends nothing"
    digest = event.digest(algorithm)
    if hashlib.new(algorithm, event.data).digest() == digest:
        return Found.RECOMPUTED, "of the event's data"
    if stripped and not event.data:
        return Found.OPAQUE, "of data that the log leaves out"
    promised = _hashed(event)
    if promised is None:
        return Found.OPAQUE, f"of {_ELSEWHERE.get(event.type, 'something that the log does not hold')}"
    what, texts = promised
    if any(hashlib.new(algorithm, text).digest() == digest for text in texts):
        return Found.RECOMPUTED, f"of {what}"
    return Found.CONTRADICTED, f"the digest of {event.name} is not of {what}"
