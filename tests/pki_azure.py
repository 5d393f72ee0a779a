"""A machine of Azure's, of our own: a paravisor on the stand-ins for AMD's and Intel's processors, and its virtual TPM."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pki_amd
import pki_intel
from pki_tpm import Quoting, register, rsa_key
from strongroom import wire
from strongroom.attest import azure
from strongroom.attest.azure import SnpTerms, TdxTerms
from strongroom.attest.evidence import Endorsements, Evidence, Roots

MACHINE = "0123ABCD-0000-4000-8000-0123456789AB"  # what Azure calls the machine


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def jwk(name: str = "HCLAkPub", **changes: Any) -> dict[str, Any]:
    numbers = rsa_key().public_key().public_numbers()
    found = {"e": "AQAB", "key_ops": ["sign"], "kid": name, "kty": "RSA", "n": b64url(numbers.n.to_bytes(256, "big"))}
    return {k: v for k, v in {**found, **changes}.items() if v is not None}


def runtime_data(*, keys: Any = "usual", configuration: Mapping[str, Any] | None = None, **changes: Any) -> bytes:
    """As a paravisor writes them."""
    usual = {"console-enabled": True, "secure-boot": True, "tpm-enabled": True, "vmUniqueId": MACHINE}
    configured = {**usual, **(configuration or {})}
    found = {
        "keys": [jwk(), jwk("HCLEkPub", key_ops=["encrypt"])] if keys == "usual" else keys,
        "vm-configuration": {k: v for k, v in configured.items() if v is not None},
        "user-data": "00" * 64,
        **changes,
    }
    return json.dumps({k: v for k, v in found.items() if v is not None}, separators=(",", ":")).encode()


@dataclass(frozen=True, kw_only=True)
class World(Quoting):
    """A machine and a verifier between whom everything is right; each case changes one thing.

    Args:
        hardware: what is otherwise in the processor's report.
        slot: the report data of the hardware's report, otherwise.
    """

    key: Any = field(default_factory=rsa_key)
    pcrs: Mapping[int, bytes] | None = field(default_factory=lambda: {n: register(n) for n in range(24)})
    platform: str = "azure_snp"
    hash: str = "sha256"
    runtime: bytes = field(default_factory=runtime_data)
    slot: bytes | None = None
    hardware: Mapping[str, Any] = field(default_factory=dict)
    documents: Mapping[str, bytes | None] = field(default_factory=dict)
    changes: Mapping[str, Any] = field(default_factory=dict)
    data: bytes | None = None
    terms: Any = None
    roots_of: str = ""

    @property
    def verifier(self) -> azure.AzurePlatform:
        return {"azure_snp": azure.AZURE_SNP, "azure_tdx": azure.AZURE_TDX}[self.platform]

    @property
    def report(self) -> bytes:
        digest = hashlib.new(self.hash, self.runtime).digest().ljust(64, b"\0")
        report_data = digest if self.slot is None else self.slot
        if self.platform == "azure_tdx":
            return self.intel(report_data).quote()
        return pki_amd.signed(pki_amd.claims(**{"report_data": report_data, **self.hardware}))

    def intel(self, report_data: bytes = bytes(64)) -> pki_intel.World:
        return pki_intel.World(td={"report_data": report_data, **self.hardware})

    @property
    def evidence(self) -> Evidence:
        if self.data is not None:
            return Evidence(self.platform, self.data)
        found = {
            "digest": self.hash,
            "format": azure.FORMAT,
            "hardware": wire.b64(self.report),
            "runtime_data": wire.b64(self.runtime),
            **self.members(),
            **self.changes,
        }
        return Evidence(self.platform, wire.encode({k: v for k, v in found.items() if v is not None}))

    @property
    def endorsements(self) -> Endorsements:
        if self.platform == "azure_tdx":
            return replace(self.intel(), without=frozenset(self.documents)).endorsements()
        return Endorsements(pki_amd.documents(**self.documents))

    @property
    def roots(self) -> Roots:
        intel = (self.roots_of or self.platform) == "azure_tdx"
        return self.intel().roots() if intel else pki_amd.ROOTS

    @property
    def at(self) -> int:
        return pki_intel.AT if self.platform == "azure_tdx" else pki_amd.AT

    @property
    def accepted(self) -> azure.AzureTerms:
        if self.terms is not None:
            return self.terms
        return TdxTerms(tdx_terms()) if self.platform == "azure_tdx" else SnpTerms(pki_amd.TERMS)


def tdx_terms() -> Any:
    """Terms that the stand-in for Intel's machine meets."""
    from strongroom.attest import tdx

    return tdx.Terms(mrseam=None)


def hcl(kind: int, hardware: bytes, runtime: bytes, *, digest: int = 1, size: int = 2600, **changes: bytes) -> bytes:
    """A paravisor's own report."""

    def numbers(*values: int) -> bytes:
        return b"".join(value.to_bytes(4, "little") for value in values)

    front = b"HCLA" + numbers(2, 1184 + 32 + 20 + len(runtime), 2) + bytes(16)
    body = numbers(20 + len(runtime), 1, kind, digest, len(runtime)) + runtime
    return (changes.get("front", front) + hardware.ljust(1184, b"\0") + changes.get("body", body)).ljust(size, b"\0")
