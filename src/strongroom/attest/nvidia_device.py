"""What an NVIDIA GPU or switch says of itself: its evidence as we carry it, and what its report and certificates mean.

All of it is untrusted here; ``nvidia.verify`` says what is genuine. See ``spec/evidence-nvidia.md``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from types import MappingProxyType

from strongroom import wire
from strongroom.errors import BadCertificate, BadEvidence, WireError
from strongroom.wire import JSON, Fields

from . import spdm
from .evidence import Evidence
from .spdm import Report
from .x509 import MAX_CERTIFICATE_BYTES, Certificate, from_pem

PLATFORM, SWITCH_PLATFORM = "nvidia_cc", "nvidia_switch"
MAX_EVIDENCE_BYTES = 64 << 10
MAX_SDK_BYTES = 4 << 20
PATH = 5  # leaf, device, two issuers, root
GPU_MEASUREMENTS = 64
NVDEC_INDEX = 35  # of the manifests: left out where the decoder is switched off, as the vendor's own verifiers do
ENABLED, DISABLED = 0xAA, 0x55
PROTECTED_PCIE_FEATURE = 2
FEATURES = frozenset({None, 0, 1, PROTECTED_PCIE_FEATURE})  # one device, several with protected links, protected PCIe

_FWID = "2.23.133.5.4.1"  # TCG DICE: a composite device id, which ends in the firmware's digest
_TCB_INFO = "2.23.133.5.4.1.1"  # TCG DICE: a list of firmware digests, of which the first is the device's own
_SHA384 = bytes.fromhex("303d0609608648016503040202" + "0430")  # SEQUENCE { OID id-sha384, OCTET STRING of 48 bytes }
_FWID_LIST = b"\xa6"  # the tag of the list, with a length of one byte after it
_NAME_PART = re.compile(r"[A-Za-z0-9]{1,16}\Z")
_DRIVER = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,6}){1,3}\Z")
_VBIOS = re.compile(r"[0-9A-F]{2}(?:\.[0-9A-F]{2}){4}\Z")
_SWITCH_GPUS = 8  # of which a switch keeps a table
_SWITCH_BOARD = "5612_0002_890"  # the one board that LS10 switches are on; their reports do not say


class Architecture(StrEnum):
    """The generations of devices that can be verified; the last one is a switch."""

    BLACKWELL = "BLACKWELL"
    HOPPER = "HOPPER"
    LS10 = "LS10"

    @property
    def is_switch(self) -> bool:
        return self is Architecture.LS10

    @property
    def platform(self) -> str:
        """The kind of device that evidence of this generation is: a policy counts GPUs and switches apart."""
        return SWITCH_PLATFORM if self.is_switch else PLATFORM


# What the name of a chip begins with.
_CHIPS: Mapping[str, Architecture] = MappingProxyType(
    {
        "GH1": Architecture.HOPPER,
        "GB1": Architecture.BLACKWELL,
        "GB2": Architecture.BLACKWELL,
        "LS_10": Architecture.LS10,
    }
)


def architecture_of(chip: str) -> Architecture:
    """The generation of a chip. Raises BadEvidence: not known here."""
    found = next((architecture for start, architecture in _CHIPS.items() if chip.startswith(start)), None)
    if found is None:
        raise BadEvidence(f"a device with chip {chip[:20]!r} is not known here")
    return found


@dataclass(frozen=True, slots=True)
class Claims:
    """A device's report and certificates. **Untrusted**: ``nvidia.verify`` says whether a device signed it.

    Args:
        architecture: as the evidence says; the certificates must agree.
        certificates: five, leaf first, root last.
        report: what the device reported.

    Raises:
        BadEvidence: the parts do not fit together.
    """

    architecture: Architecture
    certificates: tuple[Certificate, ...]
    report: Report

    def __post_init__(self) -> None:
        if len(self.certificates) != PATH:
            raise BadEvidence(f"a device has {len(self.certificates)} certificates, where there must be {PATH}")
        if not self.architecture.is_switch and len(self.report.measurements) != GPU_MEASUREMENTS:
            raise BadEvidence(
                f"a GPU reports {len(self.report.measurements)} measurements, where there must be {GPU_MEASUREMENTS}"
            )
        if not all(c.common_name.isascii() and c.common_name.isprintable() for c in self.certificates[:2]):
            raise BadEvidence("a device's name is not printable text")
        leaf, device = self.certificates[0].common_name.split(" "), self.certificates[1].common_name.split(" ")
        if leaf[:1] != device[:1] or architecture_of(leaf[0]) is not self.architecture:
            raise BadEvidence("a device's certificates are for another chip than its evidence says")
        if self.certificates[1].serial <= 0:
            raise BadEvidence("a device has no number")
        _ = self.driver_version, self.vbios_version, self.left_out, self.protected_pcie, self.linked, self.pdi

    @property
    def chip(self) -> str:
        """The chip that the leaf certificate is for (``GH100``, ``GB100``, ``LS_10``)."""
        return self.certificates[0].common_name.split(" ")[0]

    @property
    def hardware_model(self) -> str:
        """The name in the device's certificate (``GH100 A01 GSP BROM``): the token claim ``hwmodel``."""
        return self.certificates[1].common_name

    @property
    def serial(self) -> bytes:
        """The device's own number, from the certificate that its maker gave it. Other firmware does not change it."""
        number = self.certificates[1].serial
        return number.to_bytes((number.bit_length() + 7) // 8, "big")

    @property
    def ueid(self) -> str:
        """What NVIDIA's tokens call ``ueid``: the leaf's serial number in decimal. It changes with the firmware."""
        return str(self.certificates[0].serial)

    @property
    def driver_version(self) -> str:
        """The version of the driver; ``""`` for a switch, which has none. Raises BadEvidence."""
        found = self.report.text(spdm.DRIVER_VERSION)
        if found if self.architecture.is_switch else not _DRIVER.match(found):
            raise BadEvidence(f"the report's driver version is none: {found[:40]!r}")
        return found

    @property
    def vbios_version(self) -> str:
        """The version of the VBIOS (``96.00.5E.00.01``). Raises BadEvidence."""
        if self.architecture.is_switch:
            found = self.report.text(spdm.VBIOS_VERSION)
        else:
            number = self.report.number(spdm.VBIOS_VERSION, size=8)
            if number is None or number >> 40:
                raise BadEvidence("the report does not say the version of the VBIOS")
            low = f"{number & 0xFFFFFFFF:08X}"
            found = ".".join((*(low[i : i + 2] for i in range(0, 8, 2)), f"{number >> 32:02X}"))
        if not _VBIOS.match(found):
            raise BadEvidence(f"the report's VBIOS version is none: {found[:40]!r}")
        return found

    @property
    def left_out(self) -> frozenset[int]:
        """What manifests define and a device does not measure: that of a GPU's video decoder where that is off.

        Raises:
            BadEvidence: the report does not say whether it is.
        """
        if self.architecture.is_switch:
            return frozenset()
        found = self.report.number(spdm.NVDEC0_STATUS, size=1)
        if found not in {ENABLED, DISABLED}:
            raise BadEvidence("the report does not say whether the decoder is enabled")
        return frozenset({NVDEC_INDEX} if found == DISABLED else ())

    @property
    def protected_pcie(self) -> bool:
        """Whether the device is in the mode that protects its bus alone, and leaves the links between devices in the clear.

        Raises:
            BadEvidence: the report contradicts itself, or names a mode that is not known here.
        """
        status = self.report.number(spdm.PROTECTED_PCIE_STATUS, size=1)
        feature = self.report.number(spdm.FEATURE_FLAG, size=2)
        if status not in {None, ENABLED, DISABLED}:
            raise BadEvidence("the report's protected PCIe status is none")
        if feature not in FEATURES:
            raise BadEvidence(f"the device is in mode {feature}, which is not known here")
        if status is not None and feature is not None and (status == ENABLED) is not (feature == PROTECTED_PCIE_FEATURE):
            raise BadEvidence("the report contradicts itself on its mode")
        return status == ENABLED or feature == PROTECTED_PCIE_FEATURE

    @property
    def linked(self) -> frozenset[str]:
        """What stands at the other end of a device's links, as hex of 8 bytes each: a GPU names switches, a switch GPUs.

        An unused link names nothing, which is zeros. A GPU writes a switch's bytes in reverse of how the switch itself
        does. No GPU names itself.

        Raises:
            BadEvidence: that cannot be read.
        """
        if self.architecture.is_switch:
            data, way, table = self.report.opaque.get(spdm.GPU_PDIS, b""), 1, _SWITCH_GPUS * spdm.PDI_BYTES
            if data and len(data) < table:
                raise BadEvidence(f"a switch names fewer than {_SWITCH_GPUS} GPUs")
            data = data[:table]  # which of its ports leads to which of them follows
        else:
            data, way = self.report.opaque.get(spdm.SWITCH_PDIS, b""), -1
            if len(data) % spdm.PDI_BYTES:
                raise BadEvidence("what a GPU is linked to cannot be read")
        found = (data[at : at + spdm.PDI_BYTES] for at in range(0, len(data), spdm.PDI_BYTES))
        return frozenset(name[::way].hex() for name in found if any(name))

    @property
    def pdi(self) -> str | None:
        """What GPUs call a switch, hex of 8 bytes; ``None`` of a GPU, or where a switch does not say. Raises BadEvidence."""
        found = self.report.opaque.get(spdm.SWITCH_PDIS) if self.architecture.is_switch else None
        if found is None:
            return None
        if len(found) != spdm.PDI_BYTES or not any(found):
            raise BadEvidence("what a switch is called cannot be read")
        return found.hex()

    @property
    def firmware_id(self) -> bytes | None:
        """The digest of the firmware that the report names, 48 bytes; ``None`` where it names none."""
        return self.report.opaque.get(spdm.FWID)

    @property
    def certified_firmware_id(self) -> bytes | None:
        """The digest of the firmware that the leaf was made for; ``None`` where it does not say. Raises BadCertificate."""
        size = spdm.MEASUREMENT_BYTES
        composite, info = (self.certificates[0].extension(oid) for oid in (_FWID, _TCB_INFO))
        if composite is not None:
            if info is not None or composite[-size - len(_SHA384) : -size] != _SHA384:
                raise BadCertificate("the leaf's firmware id cannot be read")
            return composite[-size:]
        if info is None:
            return None
        before, found, after = info.partition(_SHA384)
        if not found or before[-2:-1] != _FWID_LIST or len(after) < size:
            raise BadCertificate("the leaf's firmware id cannot be read")
        return after[:size]

    @property
    def manifest_names(self) -> tuple[str, ...]:
        """What NVIDIA's service calls the manifests of this driver and this firmware, as far as there are any.

        Raises:
            BadEvidence: the report does not say what board it is.
        """
        plain = self.vbios_version.replace(".", "")
        if self.architecture.is_switch:
            return (f"NV_SWITCH_BIOS_{_SWITCH_BOARD}_{plain.lower()}",)
        hopper = self.architecture is Architecture.HOPPER
        chip = "GH100" if hopper else self.report.text(spdm.CHIP_INFO) or "GB100"
        board = [self.report.text(field) for field in (spdm.PROJECT, spdm.PROJECT_SKU, spdm.CHIP_SKU)]
        if not all(_NAME_PART.match(part) for part in (chip, *board)):
            raise BadEvidence("the report does not say what board it is")
        kind = "DRIVER" if hopper else "CC_DRIVER"
        return f"NV_GPU_{kind}_{chip}_{self.driver_version}", f"NV_GPU_VBIOS_{'_'.join(board)}_{plain}"

    @property
    def asked_of(self) -> tuple[tuple[Certificate, Certificate], ...]:
        """The certificates whose standing their issuer can say, each with its issuer: all but the leaf, which the device
        itself made, and the root."""
        return tuple(pairwise(self.certificates[1:]))

    def encode(self) -> bytes:
        """The canonical form."""
        found: dict[str, JSON] = {
            "arch": self.architecture.value,
            "certificates": [wire.b64(certificate.der) for certificate in self.certificates],
            "report": wire.b64(self.report.data),
        }
        return wire.encode(found)

    def evidence(self) -> Evidence:
        """Evidence of a GPU or of a switch, as the architecture is."""
        return Evidence(self.architecture.platform, self.encode())


def _certificate(value: object) -> Certificate:
    return Certificate(Fields({"certificate": value}, "evidence").base64("certificate", max_bytes=MAX_CERTIFICATE_BYTES))


def parse(data: bytes) -> Claims:
    """What a device says, believed by nobody yet. Raises BadEvidence."""
    try:
        f = Fields(wire.decode(data, max_bytes=MAX_EVIDENCE_BYTES), "evidence")
        architecture = Architecture(f.text("arch", choices=list(Architecture)))
        certificates = f.items("certificates", _certificate, low=PATH, high=PATH)
        report = f.base64("report", max_bytes=spdm.MAX_REPORT_BYTES)
        f.end()
    except (WireError, BadCertificate) as error:
        raise BadEvidence(f"not the evidence of an NVIDIA device: {error}") from error
    return Claims(architecture, certificates, spdm.parse(report))


def evidence(report: bytes, certificates: bytes, nonce: bytes | None = None) -> Evidence:
    """Evidence from what a device answered.

    Args:
        report: request and response.
        certificates: PEM, leaf first; zero bytes after it are left out.
        nonce: what the device was asked with, 32 bytes, where that is known.

    Raises:
        BadEvidence: they are not that, or the report answers another nonce.
    """
    found = spdm.parse(report)
    if nonce is not None and nonce != found.nonce:
        raise BadEvidence("a device's report answers another nonce than it was asked with")
    try:
        path = from_pem(certificates)
        return Claims(architecture_of(path[0].common_name.split(" ")[0]), path, found).evidence()
    except BadCertificate as error:
        raise BadEvidence(f"not the certificates of an NVIDIA device: {error}") from error


def from_sdk(data: bytes) -> tuple[Evidence, ...]:
    """The devices in a list that NVIDIA's attestation SDK wrote.

    Args:
        data: JSON, at most 4 MiB: a list of ``arch``, ``nonce`` (hex), ``evidence`` (base64) and ``certificate`` (base64 of
            PEM); other members are left alone.

    Raises:
        BadEvidence: it is not that, or a device's nonce is not the one that its entry names.
    """
    try:
        entries = wire.loads(data, max_bytes=MAX_SDK_BYTES)
        if not isinstance(entries, list) or not entries:
            raise BadEvidence("not a list of devices")
        return tuple(_from_entry(entry) for entry in entries)
    except (WireError, BadCertificate) as error:
        raise BadEvidence(f"not a list of devices: {error}") from error


def _from_entry(entry: object) -> Evidence:
    f = Fields(entry, "device")
    architecture = Architecture(f.text("arch", choices=list(Architecture)))
    path: Sequence[Certificate] = from_pem(f.base64("certificate", max_bytes=MAX_EVIDENCE_BYTES))
    report = spdm.parse(f.base64("evidence", max_bytes=spdm.MAX_REPORT_BYTES))
    if f.text("nonce", max_chars=64).lower() != report.nonce.hex():
        raise BadEvidence("a device's report answers another nonce than its entry names")
    return Claims(architecture, tuple(path), report).evidence()
