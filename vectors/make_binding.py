"""Writes ``vectors/binding``. Deterministic: fixed seeds.

    python vectors/make_binding.py

One file a case: a keyset (or ``null``), the processor's report data, the devices' evidence, what is said to bind them, and
``expect``: ``ok``, or the stable code of the error.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from strongroom import wire
from strongroom.attest import binding
from strongroom.attest.evidence import Evidence
from strongroom.attest.keyset import DEVICE_BINDING_ALGO, RELEASE_ALGO, RUN_RECEIPT_ALGO, KeyEntry, Keyset, report_data
from strongroom.party import DecryptionKey, SigningKey
from strongroom.wire import Envelope, Signature

HERE = Path(__file__).parent
KEY, RECEIPT_KEY, OTHER = (SigningKey.from_seed(bytes([n]) * 32) for n in (0x21, 0x22, 0x23))
RECEIPT = KeyEntry("run-receipt", RUN_RECEIPT_ALGO, RECEIPT_KEY.public.raw.hex())
BINDING = KeyEntry("device-binding", DEVICE_BINDING_ALGO, KEY.public.raw.hex())
RELEASE = KeyEntry("release", RELEASE_ALGO, DecryptionKey.from_seed(b"\x24" * 96).public.raw.hex())
KEYSET = Keyset(1_790_003_600, (RECEIPT, BINDING), (RELEASE,), subject="strongroom-run://example")
REPORT_DATA = report_data(KEYSET.digest, bytes(range(32)))
STALE = report_data(KEYSET.digest, bytes(32))
FIRST, SECOND, ELSEWHERE = (Evidence("nvidia_cc", b"what the GPU signed, " + name) for name in (b"1", b"2", b"elsewhere"))
BOTH = (FIRST, SECOND)
PAYLOAD = {"cpu": wire.digest(REPORT_DATA), "devices": [FIRST.digest, SECOND.digest]}


@dataclass(frozen=True)
class Case:
    """Where everything is right; each case changes one thing."""

    description: str
    expect: str
    keyset: Keyset | None = KEYSET
    report_data: bytes = REPORT_DATA
    devices: tuple[Evidence, ...] = BOTH
    device_binding: bytes = b""

    def to_json(self) -> dict[str, Any]:
        return {
            "description": self.description,
            "device_binding": wire.b64(self.device_binding),
            "devices": [device.to_json() for device in self.devices],
            "expect": self.expect,
            "gpu_nonce": binding.gpu_nonce(self.report_data).hex() if len(self.report_data) == 64 else None,
            "keyset": None if self.keyset is None else self.keyset.to_json(),
            "report_data": self.report_data.hex(),
        }


def _signed(payload: bytes, key: SigningKey = KEY, payload_type: str = binding.BINDING_TYPE) -> bytes:
    return key.sign(payload_type, payload).encode()


def cases() -> dict[str, Case]:
    """Every case, by the name of its file."""
    good = binding.make(KEY, REPORT_DATA, BOTH)
    envelope = Envelope.parse(good)
    (signature,) = envelope.signatures
    flipped = replace(signature, sig=bytes([signature.sig[0] ^ 1]) + signature.sig[1:])
    beside = replace(envelope, signatures=(signature, OTHER.signature(binding.BINDING_TYPE, envelope.payload)))
    renamed = replace(envelope, signatures=(Signature(KEY.public.keyid, OTHER.sign_bytes(b"")),))
    no = "attest.device_not_bound"
    keyset = "attest.bad_keyset"

    def case(description: str, expect: str = no, **changes: Any) -> Case:
        return Case(description, expect, **{"device_binding": good, **changes})

    return {
        "two-devices": case("two devices, bound in their order", "ok"),
        "one-device": case("one device", "ok", devices=(FIRST,), device_binding=binding.make(KEY, REPORT_DATA, (FIRST,))),
        "no-devices": case("no device, and nothing that binds one", "ok", devices=(), device_binding=b""),
        "no-devices-and-no-keyset": case("the same without a keyset", "ok", keyset=None, devices=(), device_binding=b""),
        "no-binding": case("a GPU elsewhere answered the public nonce, and nobody signed for it", device_binding=b""),
        "no-device-for-a-binding": case("the devices were taken away", devices=()),
        "one-device-taken-away": case("one of two devices was taken away", devices=(FIRST,)),
        "one-device-added": case("a device elsewhere was added", devices=(*BOTH, ELSEWHERE)),
        "another-device": case("a device elsewhere stands in for the enclave's", devices=(FIRST, ELSEWHERE)),
        "another-order": case("the devices were put in another order", devices=(SECOND, FIRST)),
        "one-device-twice": case(
            "one device counted as two",
            devices=(FIRST, FIRST),
            device_binding=_signed(wire.encode({**PAYLOAD, "devices": [FIRST.digest, FIRST.digest]})),
        ),
        "seventeen-devices": case(
            "more devices than evidence may have", devices=tuple(Evidence("nvidia_cc", bytes([n])) for n in range(17))
        ),
        "stale": case("a binding of an earlier nonce's report data", device_binding=binding.make(KEY, STALE, BOTH)),
        "short-report-data": case("report data of 32 bytes", report_data=REPORT_DATA[:32]),
        "signed-by-another-key": case("another enclave's key signed", device_binding=binding.make(OTHER, REPORT_DATA, BOTH)),
        "signed-by-the-receipt-key": case(
            "the keyset's key for receipts signed: one key per role",
            device_binding=binding.make(RECEIPT_KEY, REPORT_DATA, BOTH),
        ),
        "named-for-the-key-and-signed-by-another": case(
            "the key's id on another's signature", device_binding=renamed.encode()
        ),
        "signature-altered": case(
            "one bit of the signature", device_binding=replace(envelope, signatures=(flipped,)).encode()
        ),
        "two-signatures": case("a second signature beside the right one", device_binding=beside.encode()),
        "no-signature": case("no signature", device_binding=replace(envelope, signatures=()).encode()),
        "another-document": case(
            "the key signed a document of another type",
            device_binding=_signed(wire.encode(PAYLOAD), payload_type=wire.media_type("receipt")),
        ),
        "not-canonical": case(
            "the right members in another spelling", device_binding=_signed(json.dumps(PAYLOAD, indent=1).encode())
        ),
        "one-more-member": case("one more member", device_binding=_signed(wire.encode({**PAYLOAD, "more": None}))),
        "trailing-bytes": case("a byte after the envelope", device_binding=good + b"\n"),
        "not-an-envelope": case("no envelope", device_binding=b"{}"),
        "no-keyset": case("nothing says whose key must have signed", keyset=None),
        "keyset-without-the-key": case(
            "the keyset has no such key", keyset, keyset=replace(KEYSET, receipt_signing_keys=(RECEIPT,))
        ),
        "keyset-with-two-such-keys": case(
            "the keyset has two such keys",
            keyset,
            keyset=replace(
                KEYSET,
                receipt_signing_keys=(
                    RECEIPT,
                    BINDING,
                    KeyEntry("second", DEVICE_BINDING_ALGO, OTHER.public.raw.hex()),
                ),
            ),
        ),
        "keyset-with-a-weak-key": case(
            "the keyset's key verifies almost any signature",
            keyset,
            keyset=replace(
                KEYSET,
                receipt_signing_keys=(RECEIPT, replace(BINDING, public_key=(b"\x01" + bytes(31)).hex())),
            ),
        ),
    }


def written() -> dict[str, str]:
    """Every file's text, by its name."""
    return {f"{name}.json": json.dumps(case.to_json(), indent=1, sort_keys=True) + "\n" for name, case in cases().items()}


if __name__ == "__main__":
    folder = HERE / "binding"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.json"):
        old.unlink()
    for name, text in written().items():
        (folder / name).write_text(text, encoding="utf-8")
