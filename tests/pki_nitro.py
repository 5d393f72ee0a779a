"""A Nitro hypervisor of our own: documents of the same layout under a root of our own. Deterministic."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from pki_certificates import Wanted, authority, ec_key
from strongroom.attest import nitro
from strongroom.attest.evidence import Evidence, Roots
from strongroom.attest.x509 import Certificate

AT = 1_790_000_000
REPORT_DATA = hashlib.sha256(b"a keyset and a nonce").digest() + bytes(32)
MODULE = "i-0123456789abcdef0-enc0123456789abcdef"
ROOT, REGION, ZONE, INSTANCE = "aws.nitro-enclaves of a test", "region of a test", "zone of a test", "instance of a test"
DAY = 86_400


def register(text: str) -> bytes:
    return hashlib.sha384(text.encode()).digest()


PCRS: Mapping[int, bytes] = {
    **dict.fromkeys(range(16), bytes(48)),
    0: register("image"), 1: register("kernel"), 2: register("programs"), 3: register("role"),
    4: register("instance"), 8: register("signer"),
}  # fmt: skip


def root(name: str = ROOT) -> Certificate:
    return authority(name, name, AT - 1000 * DAY, AT + 1000 * DAY, usages=("digital_signature", "key_cert_sign"))


def bundle() -> tuple[Certificate, ...]:
    """Root first, as in a document."""
    return (
        root(),
        authority(REGION, ROOT, AT - 5 * DAY, AT + 15 * DAY, path_length=2),
        authority(ZONE, REGION, AT - 3 * DAY, AT + 3 * DAY, path_length=1),
        authority(INSTANCE, ZONE, AT - DAY, AT + DAY, path_length=0),
    )


@dataclass(frozen=True)
class World:
    """A hypervisor and an enclave between whom everything is right; each case changes one thing."""

    leaf: Mapping[str, Any] = field(default_factory=dict)  # what is otherwise in the document's certificate
    certificates: tuple[Certificate, ...] = field(default_factory=bundle)
    members: Mapping[str, Any] = field(
        default_factory=dict
    )  # what is otherwise in the document; ``None`` of a name leaves it
    without: tuple[str, ...] = ()
    protected: bytes = bytes.fromhex("a1013822")
    unprotected: Any = field(default_factory=dict)
    signer: Any = None
    digest: hashes.HashAlgorithm = field(default_factory=hashes.SHA384)
    context: str = "Signature1"
    front: bytes = b""
    after: bytes = b""
    pinned: str = ROOT
    at: int = AT + 2
    terms: nitro.Terms = field(default_factory=nitro.Terms)

    @property
    def certificate(self) -> Certificate:
        wanted: dict[str, Any] = {
            "subject": f"{MODULE}.test.aws", "issuer": INSTANCE, "not_before": AT - 3, "not_after": AT + 3 * 3600,
        }  # fmt: skip
        return Wanted(**{**wanted, **self.leaf}).make()

    @property
    def key(self) -> Any:
        return self.signer or self.leaf.get("key") or ec_key(f"{MODULE}.test.aws")

    @property
    def payload(self) -> bytes:
        document: dict[Any, Any] = {
            "module_id": MODULE,
            "digest": "SHA384",
            "timestamp": AT * 1000 + 5,
            "pcrs": dict(PCRS),
            "certificate": self.certificate.der,
            "cabundle": [certificate.der for certificate in self.certificates],
            "public_key": None,
            "user_data": REPORT_DATA,
            "nonce": None,
        }
        document = {**document, **self.members}
        return cbor2.dumps({name: value for name, value in document.items() if name not in self.without})

    @property
    def data(self) -> bytes:
        payload = self.payload
        signed = cbor2.dumps([self.context, self.protected, b"", payload])
        der = self.key.sign(signed, ec.ECDSA(self.digest, deterministic_signing=True))
        signature = b"".join(n.to_bytes(48, "big") for n in decode_dss_signature(der))
        return self.front + cbor2.dumps([self.protected, self.unprotected, payload, signature]) + self.after

    @property
    def evidence(self) -> Evidence:
        return Evidence(nitro.PLATFORM, self.data)

    @property
    def roots(self) -> Roots:
        return Roots(certificates=(root(self.pinned).key_digest,))
