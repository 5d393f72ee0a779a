"""Devices beside a processor, bound to it: the nonce that a device is asked with, and the signature over what devices said.

A device's evidence answers a nonce. Here the nonce follows from the report data that the processor signs, so that it is as
fresh as that; but a nonce is public, and a device elsewhere could answer it. So a key of the attested keyset signs the
digests of all device evidence together with the report data: what is accepted as a device of this enclave is what the
measured guest says it used. That the guest says the truth rests on its measurement.

See ``spec/device-binding.md``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from strongroom import wire
from strongroom.errors import DeviceNotBound, WireError
from strongroom.party import SigningKey
from strongroom.wire import JSON, Envelope

from .evidence import MAX_BINDING_BYTES, MAX_DEVICES, REPORT_DATA_BYTES, Evidence
from .keyset import Keyset

BINDING_TYPE = wire.media_type("device-binding")
GPU_LABEL = b"strongroom.gpu.v1"


def gpu_nonce(report_data: bytes) -> bytes:
    """The nonce that each GPU beside a processor is asked with: SHA-256 of the label and the report data.

    Args:
        report_data: the 64 bytes that the processor is asked to sign.

    Returns:
        32 bytes.

    Raises:
        DeviceNotBound: not 64 bytes.
    """
    return hashlib.sha256(GPU_LABEL + _report_data(report_data)).digest()


def _report_data(report_data: bytes) -> bytes:
    if len(report_data) != REPORT_DATA_BYTES:
        raise DeviceNotBound(f"report data is not {REPORT_DATA_BYTES} bytes long")
    return report_data


def _payload(report_data: bytes, devices: Sequence[Evidence]) -> bytes:
    """What is signed. Raises DeviceNotBound."""
    if not 1 <= len(devices) <= MAX_DEVICES:
        raise DeviceNotBound(f"{len(devices)} devices, where 1 to {MAX_DEVICES} can be bound")
    digests = [device.digest for device in devices]
    if len(set(digests)) != len(digests):
        raise DeviceNotBound("the evidence of one device stands twice")
    found: dict[str, JSON] = {"cpu": wire.digest(_report_data(report_data)), "devices": list[JSON](digests)}
    return wire.encode(found)


def make(key: SigningKey, report_data: bytes, devices: Sequence[Evidence]) -> bytes:
    """Bind devices: what goes into ``Evidence.device_binding``.

    Args:
        key: the private half of the keyset's device-binding key.
        report_data: the 64 bytes that the processor signs.
        devices: their evidence, 1 to 16, in the order in which it is handed out.

    Raises:
        DeviceNotBound: no device, too many, the same evidence twice, or report data that is not 64 bytes.
    """
    return key.sign(BINDING_TYPE, _payload(report_data, devices)).encode()


def check(keyset: Keyset | None, report_data: bytes, devices: tuple[Evidence, ...], device_binding: bytes) -> None:
    """Whether exactly these devices are the enclave's own. Where there is neither device nor binding, nothing is to check.

    Args:
        keyset: the keyset that the processor's evidence binds; ``None`` where the verifier has none.
        report_data: the 64 bytes that the processor's evidence was found to bind.
        devices: untrusted; the devices' evidence, in its order.
        device_binding: untrusted; from the same ``Evidence``.

    Raises:
        DeviceNotBound: no keyset to check with, no binding, or one that is not of these devices and this report data by the
            keyset's own key.
        BadKeyset: the keyset does not have exactly one usable device-binding key.
    """
    if not devices and not device_binding:
        return
    if not device_binding or len(device_binding) > MAX_BINDING_BYTES:
        raise DeviceNotBound("there are devices, and nothing of a usable size that binds them")
    expected = _payload(report_data, devices)
    if keyset is None:
        raise DeviceNotBound("there is no keyset with whose key the devices could be bound")
    try:
        signed = keyset.device_binding_key.verify(Envelope.parse(device_binding, max_bytes=MAX_BINDING_BYTES), BINDING_TYPE)
    except WireError as error:
        raise DeviceNotBound(f"the devices are not bound by the keyset's own key: {error}") from error
    if signed != expected:
        raise DeviceNotBound("the enclave bound other devices, in another order, or for other report data")
