"""Reports of NVIDIA's devices and tokens of its service, field by field. Nothing is believed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from strongroom.attest import nras_token, nvidia_device, spdm
from strongroom.attest.nvidia_device import DISABLED, ENABLED
from strongroom.attest.spdm import Report

from .fields import Digests, Record, Spoken, certificate, named, of_parse, text

_STATUS = {ENABLED: "enabled", DISABLED: "disabled"}
_MODES = {0: "one device", 1: "several with protected links", nvidia_device.PROTECTED_PCIE_FEATURE: "protected PCIe"}
_STATUSES = {spdm.NVDEC0_STATUS, spdm.PROTECTED_PCIE_STATUS, 33}
_COUNTS, _PDI_BYTES = 12, 8
_PDIS = {22: 1 << 16, 26: 64}  # fields of names of switches and of GPUs, and in how many bytes they stand
_BOARD, _VERSION = 14, 34
_MAX_VBIOS = 1 << 40


def _vbios(data: bytes) -> Any:
    """A GPU's is a number, a switch's is text."""
    value = int.from_bytes(data, "little")
    if len(data) != 8 or value >= _MAX_VBIOS:
        return text(data)
    low = f"{value & 0xFFFFFFFF:08X}"
    version = ".".join((*(low[i : i + 2] for i in range(0, 8, 2)), f"{value >> 32:02X}"))
    return Spoken({"hex": data.hex(), "version": version}, f"{version} ({data.hex()})")


def _opaque(kind: int, data: bytes) -> Any:  # noqa: PLR0911 - one return per kind of field
    value = int.from_bytes(data, "little")
    if kind == spdm.VBIOS_VERSION:
        return _vbios(data)
    if kind in _STATUSES and len(data) == 1:
        return named(value, _STATUS)
    if kind == spdm.FEATURE_FLAG and len(data) == 2:
        return named(value, _MODES)
    if kind in {_BOARD, _VERSION} and len(data) <= 4:
        return Spoken({"hex": data.hex(), "value": value}, f"{value} ({value:#x})")
    if kind == _COUNTS and len(data) % 4 == 0:
        counts = [int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4)]
        return Spoken({"counts": counts}, ", ".join(map(str, counts)) or "none")
    if kind in _PDIS and data and len(data) % _PDI_BYTES == 0:
        names, rest = data[: _PDIS[kind]], data[_PDIS[kind] :]
        pdis = [names[at : at + _PDI_BYTES].hex() for at in range(0, len(names), _PDI_BYTES)]
        return Spoken({"pdis": pdis, "ports": rest.hex()}, ", ".join(pdis), f"ports: {rest.hex()}" if rest else "")
    read = data.rstrip(b"\0")
    if read and all(0x20 <= byte < 0x7F for byte in read):
        return Spoken({"hex": data.hex(), "text": read.decode("ascii")}, f"{read.decode('ascii')} ({data.hex()})")
    return Spoken({"hex": data.hex()}, data.hex() or "empty")


def of_report(report: Report) -> Record:
    fields = {
        spdm.FIELD_NAMES.get(kind, f"field {kind} (not known here)").replace(" ", "_"): _opaque(kind, data)
        for kind, data in sorted(report.opaque.items())
    }
    return Record(
        nonce=report.nonce,
        slot=report.slot,
        fields=Record(fields),
        measurements=Digests({f"measurement{n}": value for n, value in report.measurements.items()}),
        signature=report.signature,
        bytes=len(report.data),
    )


def of_device(claims: nvidia_device.Claims) -> Record:
    return Record(
        architecture=claims.architecture.value,
        hardware_model=claims.hardware_model,
        driver_version=claims.driver_version or "none",
        vbios_version=claims.vbios_version,
        serial_number=claims.serial,
        ueid=claims.ueid,
        protected_pcie=claims.protected_pcie,
        firmware_id=claims.firmware_id,
        certified_firmware_id=of_parse(lambda: claims.certified_firmware_id),
        report=of_report(claims.report),
        certificates=[certificate(one) for one in claims.certificates],
    )


def _token(token: nras_token.Token) -> Record:
    parts = token.text.decode("ascii").split(".")
    signature = of_parse(lambda: nras_token.unb64url(parts[2])) if parts[2] else b""
    return Record(
        header=dict(token.header),
        claims=dict(token.payload),
        signature=signature or Spoken({"absent": True}, "none: the token is not signed"),
    )


def of_tokens(claims: nras_token.Claims) -> Record:
    return Record(
        device=claims.name,
        wrapped_by_the_sdk=claims.wrapped,
        overall_token=_token(claims.overall),
        device_token=_token(claims.device),
    )


DESCRIBED: Mapping[type, Callable[[Any], Record]] = MappingProxyType(
    {Report: of_report, nvidia_device.Claims: of_device, nras_token.Claims: of_tokens}
)
