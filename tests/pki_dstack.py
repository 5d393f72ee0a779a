"""A stand-in for dstack on Intel's stand-in (pki_intel.py): logs, configurations, services' reports and a KMS of our own.

Everything is deterministic: keys are derived from their names, secp256k1 signatures are RFC 6979, times are fixed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from coincurve import PrivateKey
from Crypto.Hash import keccak

import pki_amd
import pki_intel
from strongroom.attest import dstack_log, tcg_log
from strongroom.attest.dstack_log import RUNTIME, Entry
from strongroom.attest.evidence import Endorsements, Evidence, Roots
from strongroom.attest.keyset import KeyEntry, Keyset, report_data
from strongroom.attest.tcg_log import Event, Log
from strongroom.attest.x509 import Certificate

AT = pki_intel.AT
NONCE = bytes(range(32))
COMPOSE = b'{"manifest_version":2,"name":"an app","runner":"docker-compose"}'
COMPOSE_HASH = hashlib.sha256(COMPOSE).digest()
APP_ID = COMPOSE_HASH[:20]
INSTANCE_ID = bytes([0x1D]) * 20
OS_IMAGE = hashlib.sha256(b"an image").digest()
PROVIDER = {"name": "kms", "id": "5e" * 33}
SHA384 = ((tcg_log.BY_NAME["sha384"], 48),)
EVERY_BANK = tuple((number, size) for number, (_, size) in tcg_log.ALGORITHMS.items() if number in {0x04, 0x0B, 0x0C})


def secret(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


# --- logs of firmware ---------------------------------------------------------------------------------------------------


def uefi_variable(name: str, value: bytes) -> bytes:
    text = name.encode("utf-16-le")
    return bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c") + struct.pack("<QQ", len(name), len(value)) + text + value


def event(
    register: int,
    kind: int,
    data: bytes,
    *,
    of: bytes | None = None,
    digest: bytes | None = None,
    banks: Sequence[tuple[int, int]] = SHA384,
) -> Event:
    """An event whose digests are of ``of``, or of its data; or all zeros but for ``digest`` at their front."""
    digests = []
    for number, size in banks:
        made = hashlib.new(tcg_log.ALGORITHMS[number][0], data if of is None else of).digest()
        digests.append((number, made if digest is None else digest[:size].ljust(size, b"\0")))
    return Event(register, kind, tuple(digests), data)


def boot_events(registers: Sequence[int], banks: Sequence[tuple[int, int]] = SHA384) -> tuple[Event, ...]:
    """What firmware, a boot loader and a kernel measure: every kind that can be computed again, and some that cannot.

    ``registers``: for firmware, for the boot loader, for what it loads.
    """
    firmware, loader, loaded = registers
    boot_order = uefi_variable("BootOrder", b"\0\0")
    command = b"linux /vmlinuz root=/dev/vda"
    return tuple(
        event(register, kind, data, of=of, banks=banks)
        for register, kind, data, of in (
            (firmware, 0x8000000B, b"\x09TdxTable", b"the hand-off block"),
            (firmware, 0x8000000A, b"\x29Fv(volume)", b"the firmware volume"),
            (firmware, 0x08, "firmware v1".encode("utf-16-le"), None),
            (firmware, 0x80000001, uefi_variable("SecureBoot", b"\1"), None),
            (firmware, 0x80000002, boot_order, b"\0\0"),
            (firmware, 0x0A, b"ACPI DATA", b"ACPI tables"),
            (firmware, 0x04, bytes(4), None),
            (loader, 0x80000007, b"Calling EFI Application from Boot Option", None),
            (loader, 0x04, bytes(4), None),
            (loader, 0x80000006, b"EFI PART, and what follows it", None),
            (loader, 0x80000003, bytes(32), b"a program image"),
            (loaded, 0x0D, b"grub_cmd: " + command + b"\0", command),
            (loaded, 0x0D, b"kernel_cmdline: " + command + b"\0", command),
            (loaded, 0x0D, b"grub_cmd set pager=1\0\x66", b"set pager=1\0"),
            (loaded, 0x0D, b"/vmlinuz\0", b"a kernel"),
            (loaded, 0x06, b"\xec\x22\x3b\x8f\x0d\0\0\0Linux initrd\0", b"an initial ramdisk"),
            (loader, 0x80000007, b"Exit Boot Services Returned with Success", None),
        )
    )


def guest_log(events: Sequence[Event] | None = None, *, padding: tuple[int, int] = (0xFF, 64)) -> Log:
    """A confidential guest's log (CCEL)."""
    found = boot_events((1, 2, 3)) if events is None else tuple(events)
    return Log(1, (0, 0, 2, 0, 2), SHA384, b"", tuple(found), padding)


def tpm_log(events: Sequence[Event] | None = None) -> Log:
    """A TPM's log, with three banks."""
    found = boot_events((0, 4, 8), EVERY_BANK) if events is None else tuple(events)
    return Log(0, (0, 0, 2, 0, 2), EVERY_BANK, b"", tuple(found))


# --- dstack's log -------------------------------------------------------------------------------------------------------


def runtime(name: str, payload: bytes = b"", version: int = 1) -> Entry:
    return Entry(3, RUNTIME, dstack_log.runtime_digest(name, payload, version), name, payload, version)


BOOT: tuple[Entry, ...] = tuple(Entry(e.register - 1, e.type, e.digests[0][1], "", e.data) for e in boot_events((1, 2, 3)))
APP: tuple[Entry, ...] = (
    runtime("system-preparing"),
    runtime("app-id", APP_ID),
    runtime("compose-hash", COMPOSE_HASH),
    runtime("instance-id", INSTANCE_ID),
    runtime("boot-mr-done"),
    runtime("mr-kms", hashlib.sha256(b"a KMS").digest()),
    runtime("os-image-hash", OS_IMAGE),
    runtime("key-provider", json.dumps(PROVIDER, separators=(",", ":")).encode()),
    runtime("storage-fs", b"zfs"),
    runtime("system-ready"),
)


def changed(entries: Sequence[Entry], name: str, **changes: Any) -> tuple[Entry, ...]:
    """The entries with one of dstack's own changed, its digest computed anew unless that is what changes."""
    found = []
    for entry in entries:
        if entry.name != name:
            found.append(entry)
            continue
        other = replace(entry, **changes)
        found.append(other if "digest" in changes else replace(other, digest=other.measured))
    return tuple(found)


def without(entries: Sequence[Entry], name: str) -> tuple[Entry, ...]:
    return tuple(entry for entry in entries if entry.name != name)


# --- a guest ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Guest:
    """A dstack guest on TDX, with a knob for everything that can be wrong. ``replace`` turns them.

    ``told``: the log that it hands out, where that is another than what was measured. ``td``, ``intel``: fields of the TD's
    report, and knobs of Intel's world.
    """

    entries: tuple[Entry, ...] = (*BOOT, *APP)
    told: tuple[Entry, ...] | None = None
    report_data: bytes = pki_intel.REPORT_DATA
    mrconfigid: bytes = bytes(48)
    td: Mapping[str, bytes] = field(default_factory=dict)
    intel: Mapping[str, Any] = field(default_factory=dict)
    log_bytes: bytes | None = None

    @cached_property
    def world(self) -> pki_intel.World:
        registers = {f"rtmr{number}": value for number, value in dstack_log.replay(self.entries).items()}
        fields = {"mrconfigid": self.mrconfigid, "report_data": self.report_data, **registers, **self.td}
        return pki_intel.World(td=fields, **self.intel)

    @property
    def log(self) -> bytes:
        if self.log_bytes is not None:
            return self.log_bytes
        return dstack_log.encode(self.entries if self.told is None else self.told)

    def evidence(self) -> Evidence:
        return Evidence("dstack", self.world.quote(), event_log=self.log)

    def endorsements(self) -> Endorsements:
        return self.world.endorsements()

    def roots(self) -> Roots:
        return self.world.roots()


# --- services' reports --------------------------------------------------------------------------------------------------


KMS_ROOT = PrivateKey(secret("the KMS's root"))
APP_KEY = PrivateKey(secret("the app's key"))
RECEIPT_SECRET = secret("the receipt key")
PURPOSE = "aci.receipt.ed25519.v1"
ADDRESS = bytes([0xAD]) * 20
TLS_KEY = hashlib.sha256(b"a TLS key").digest()


def keccak256(data: bytes) -> bytes:
    return keccak.new(digest_bits=256, data=data).digest()


def sign(key: PrivateKey, message: bytes) -> bytes:
    return key.sign_recoverable(keccak256(message), hasher=None)


def receipt_key() -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(RECEIPT_SECRET).public_key().public_bytes_raw()


KEYSET = Keyset(
    AT + 3600, receipt_signing_keys=(KeyEntry("receipt-1", "ed25519", receipt_key().hex()),), subject="dstack-app"
)


def key_custody(app_id: bytes = APP_ID, *, app: PrivateKey = APP_KEY, root: PrivateKey = KMS_ROOT) -> dict[str, Any]:
    """Where the receipt key comes from, as a service on dstack says it."""
    issued = PrivateKey(RECEIPT_SECRET).public_key.format()
    chain = [
        sign(app, f"{PURPOSE}:{issued.hex()}".encode()),
        sign(root, b"dstack-kms-issued:" + app_id + app.public_key.format()),
    ]
    one = {
        "role": "receipt",
        "purpose": PURPOSE,
        "public_key": receipt_key().hex(),
        "kms_public_key": issued.hex(),
        "signature_chain": [signature.hex() for signature in chain],
    }
    return {"provider": "dstack-kms", "keys": [one]}


def aci_guest(nonce: bytes | None = NONCE) -> Guest:
    return Guest(report_data=report_data(KEYSET.digest, nonce))


def aci_report(guest: Guest | None = None, **changes: Any) -> dict[str, Any]:
    """ACI's report of a dstack service; ``changes`` are of its ``evidence``."""
    guest = guest or aci_guest()
    evidence = {
        "quote": guest.evidence().data.hex(),
        "quote_report_data": guest.report_data.hex(),
        "event_log": guest.log.decode(),
        "app_compose": COMPOSE.decode(),
        "vm_config": "{}",
        "key_custody": key_custody(),
        **changes,
    }
    return {
        "api_version": "aci/1",
        "workload_keyset_digest": KEYSET.digest,
        "attestation": {
            "tee_type": "tdx",
            "workload_keyset": KEYSET.to_json(),
            "report_data": guest.report_data[:32].hex(),
            "source_provenance": {"repo_url": None, "repo_commit": None, "image_digest": None, "image_provenance": None},
            "evidence": {name: value for name, value in evidence.items() if value is not None},
        },
        "service_capabilities": {"supported_e2ee_versions": ["2"], "serving": "direct"},
    }


def address_guest(*, tls: bytes | None = None, nonce: bytes = NONCE, address: bytes = ADDRESS) -> Guest:
    first = address.ljust(32, b"\0") if tls is None else hashlib.sha256(address + tls).digest()
    return Guest(report_data=first + nonce)


def gpu(nonce: bytes = NONCE) -> dict[str, str]:
    """Something with a nonce where a GPU's report has it, and something in a certificate chain's place."""
    report = b"\x11\xe0\x01\xff" + nonce + b"\0" + b"what a GPU measures"
    return {"evidence": base64.b64encode(report).decode(), "certificate": base64.b64encode(b"a chain in PEM").decode()}


def address_report(guest: Guest | None = None, **changes: Any) -> dict[str, Any]:
    """The report of a model behind a signing address."""
    guest = guest or address_guest()
    found = {
        "signing_address": "0x" + ADDRESS.hex(),
        "signing_algo": "ecdsa",
        "request_nonce": NONCE.hex(),
        "intel_quote": guest.evidence().data.hex(),
        "nvidia_payload": json.dumps({"nonce": NONCE.hex(), "arch": "HOPPER", "evidence_list": [gpu(), gpu()]}),
        "event_log": json.loads(guest.log),
        "info": {"app_id": APP_ID.hex(), "tcb_info": {"app_compose": COMPOSE.decode()}},
        **changes,
    }
    return {name: value for name, value in found.items() if value is not None}


CONFIGURATION = json.dumps(
    {
        "app_id": APP_ID.hex(),
        "compose_hash": COMPOSE_HASH.hex(),
        "instance_id": INSTANCE_ID.hex(),
        "key_provider": "kms",
        "key_provider_id": PROVIDER["id"],
        "version": 3,
    },
    separators=(",", ":"),
).encode()


def snp_case(configuration: bytes = CONFIGURATION, **changes: Any) -> pki_amd.Case:
    """A report of AMD's stand-in whose HOST_DATA commits to a configuration."""
    return pki_amd.good("milan", **{"host_data": dstack_log.host_data(configuration), **changes})


def snp_roots() -> Roots:
    return Roots(certificates=(Certificate(pki_amd.ark("milan")).key_digest,))
