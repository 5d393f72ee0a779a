"""The keyset: an enclave's identity under ACI (``aci/1``), the statement that binds it to a nonce, and the report of both.

One key a role; an entry's ``algo`` is its role. Everything here is **untrusted** until ``appraise`` has found it bound into
evidence: parsing says that a keyset is well formed, not that it is anybody's.

See ``spec/attestation.md``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from strongroom import wire
from strongroom.errors import BadField, BadKey, BadKeyset, BadNonce
from strongroom.party import ENCRYPTION_KEY_BYTES, EncryptionKey, VerifyKey
from strongroom.wire import JSON, Fields

from .evidence import MAX_EVIDENCE_BYTES, REPORT_DATA_BYTES, Endorsements, Evidence

API_VERSION = "aci/1"
PURPOSE = "aci.report_data.v1"
RUN_RECEIPT_ALGO = "strongroom-run-receipt-ed25519"
DEVICE_BINDING_ALGO = "strongroom-device-binding-ed25519"
RELEASE_ALGO = "strongroom-release-mlkem768-x25519"
INFERENCE_RECEIPT_ALGO = "ed25519"  # ACI's own name for it
CHAT_SIGNATURE_ALGO = "strongroom-chat-signature-ed25519"

NONCE_BYTES = 32
MAX_ENTRIES = 16
MAX_KEY_BYTES = 4096

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_KEY = re.compile(r"(?:[0-9a-f]{2})+\Z")
_LABEL = re.compile(r"[!-~]{1,128}\Z")  # printable ASCII without spaces
_X25519_BYTES = 32
_ED25519_SPKI = bytes.fromhex("302a300506032b6570032100")  # RFC 8410 section 4, up to the key
_X25519_SPKI = bytes.fromhex("302a300506032b656e032100")


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """One public key of a keyset.

    Args:
        key_id: printable ASCII, 1 to 128 characters.
        algo: the key's role.
        public_key: lowercase hex of the raw key, 1 to 4096 bytes of it.

    Raises:
        BadKeyset: outside these bounds.
    """

    key_id: str
    algo: str
    public_key: str

    def __post_init__(self) -> None:
        if not _LABEL.match(self.key_id) or not _LABEL.match(self.algo):
            raise BadKeyset("a key's id or algo is not 1 to 128 printable ASCII characters")
        if not _KEY.match(self.public_key) or len(self.public_key) > 2 * MAX_KEY_BYTES:
            raise BadKeyset(f"the key {self.key_id!r} is not lowercase hex of 1 to {MAX_KEY_BYTES} bytes")

    @property
    def raw(self) -> bytes:
        return bytes.fromhex(self.public_key)

    def role_keys(self) -> Iterator[bytes]:
        """The entry's key, and the keys that a hybrid one is made of: none of them may have another role."""
        yield self.raw
        if self.algo == RELEASE_ALGO and len(self.raw) == ENCRYPTION_KEY_BYTES:
            yield self.raw[:-_X25519_BYTES]
            yield self.raw[-_X25519_BYTES:]

    def to_json(self) -> dict[str, JSON]:
        return {"algo": self.algo, "key_id": self.key_id, "public_key": self.public_key}

    @classmethod
    def from_json(cls, value: object) -> KeyEntry:
        """Raises BadField, BadKeyset."""
        f = Fields(value, "key entry")
        found = cls(f.text("key_id"), f.text("algo"), f.text("public_key", max_chars=2 * MAX_KEY_BYTES))
        f.end()
        return found


@dataclass(frozen=True, slots=True)
class TlsKey:
    """The digest of a TLS key that ends inside the enclave.

    Args:
        spki_sha256: SHA-256 of the certificate's SubjectPublicKeyInfo, 32 bytes.
        domain: the one host name it is for, or ``None`` for any.

    Raises:
        BadKeyset: another length, or an empty or overlong domain.
    """

    spki_sha256: bytes
    domain: str | None = None

    def __post_init__(self) -> None:
        if len(self.spki_sha256) != 32:
            raise BadKeyset("a TLS key's digest is not 32 bytes long")
        if self.domain is not None and not 1 <= len(self.domain) <= 253:
            raise BadKeyset("a TLS key's domain is not 1 to 253 characters long")

    def to_json(self) -> dict[str, JSON]:
        found: dict[str, JSON] = {"spki_sha256": self.spki_sha256.hex()}
        return found if self.domain is None else {"domain": self.domain, **found}

    @classmethod
    def from_json(cls, value: object) -> TlsKey:
        """Raises BadField, BadKeyset."""
        f = Fields(value, "TLS key")
        spki = f.hex("spki_sha256", size=32)
        domain = f.text("domain", max_chars=253) if f.has("domain") else None
        f.end()
        return cls(spki, domain)


@dataclass(frozen=True, slots=True)
class Keyset:
    """An enclave's public keys with their expiry (ACI section 3.1).

    Args:
        not_after: unix seconds after which nothing signed by or encrypted to it counts.
        receipt_signing_keys: at most 16.
        e2ee_public_keys: at most 16.
        tls_public_keys: at most 16.
        subject: a name that means nothing without a policy; ``None`` for none.

    Raises:
        BadKeyset: a key that stands twice or in two roles, a ``key_id`` that stands twice, a role of ours in the wrong list.
    """

    not_after: int
    receipt_signing_keys: tuple[KeyEntry, ...] = ()
    e2ee_public_keys: tuple[KeyEntry, ...] = ()
    tls_public_keys: tuple[TlsKey, ...] = ()
    subject: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.not_after <= wire.MAX_INT:
            raise BadKeyset("a keyset's expiry is not a unix time")
        entries = (*self.receipt_signing_keys, *self.e2ee_public_keys)
        if len({entry.key_id for entry in entries}) != len(entries):
            raise BadKeyset("a keyset has the same key_id twice")
        keys = [key for entry in entries for key in entry.role_keys()]
        if len(set(keys)) != len(keys):
            raise BadKeyset("a keyset has the same public key twice: one key per role")
        if len(set(self.tls_public_keys)) != len(self.tls_public_keys):
            raise BadKeyset("a keyset has the same TLS key twice")
        tls = {tls_key.spki_sha256 for tls_key in self.tls_public_keys}
        if any(hashlib.sha256(head + key).digest() in tls for key in keys for head in (_ED25519_SPKI, _X25519_SPKI)):
            raise BadKeyset("a keyset's TLS key has another role too")
        if any(e.algo == RELEASE_ALGO for e in self.receipt_signing_keys) or any(
            e.algo in (RUN_RECEIPT_ALGO, DEVICE_BINDING_ALGO, CHAT_SIGNATURE_ALGO) for e in self.e2ee_public_keys
        ):
            raise BadKeyset("a keyset lists a key under a role that is not the key's own")

    @staticmethod
    def _one(entries: tuple[KeyEntry, ...], algo: str) -> KeyEntry:
        found = [entry for entry in entries if entry.algo == algo]
        if len(found) != 1:
            raise BadKeyset(f"a keyset has {len(found)} keys for {algo}, not one")
        return found[0]

    @property
    def run_receipt_key(self) -> VerifyKey:
        """The key that signs what the log is given of a run, and nothing else: its receipt, or a room's batches of receipts.

        Raises BadKeyset when there is not exactly one.
        """
        try:
            return VerifyKey(self._one(self.receipt_signing_keys, RUN_RECEIPT_ALGO).raw)
        except BadKey as error:
            raise BadKeyset(f"the run-receipt key is unusable: {error}") from error

    @property
    def device_binding_key(self) -> VerifyKey:
        """The key that signs what the devices said, and nothing else; only an enclave with devices has one.

        Raises BadKeyset when there is not exactly one.
        """
        try:
            return VerifyKey(self._one(self.receipt_signing_keys, DEVICE_BINDING_ALGO).raw)
        except BadKey as error:
            raise BadKeyset(f"the device-binding key is unusable: {error}") from error

    def inference_receipt_key(self, key_id: str) -> VerifyKey:
        """The key of this id, if it signs ACI receipts, and nothing else (ACI section 7.2).

        Raises BadKeyset when no key for receipts has the id, or the one that has it is for another role.
        """
        found = [entry for entry in self.receipt_signing_keys if entry.key_id == key_id]
        if len(found) != 1 or found[0].algo != INFERENCE_RECEIPT_ALGO:
            raise BadKeyset(f"the keyset has no key {key_id!r} for ACI receipts")
        try:
            return VerifyKey(found[0].raw)
        except BadKey as error:
            raise BadKeyset(f"the key {key_id!r} is unusable: {error}") from error

    @property
    def chat_signature_key(self) -> VerifyKey:
        """The key that signs the hashes of chats as NEAR AI's clients ask for them, and nothing else.

        Raises BadKeyset when there is not exactly one.
        """
        try:
            return VerifyKey(self._one(self.receipt_signing_keys, CHAT_SIGNATURE_ALGO).raw)
        except BadKey as error:
            raise BadKeyset(f"the chat-signature key is unusable: {error}") from error

    @property
    def release_key(self) -> EncryptionKey:
        """The key to which brokers encrypt asset keys. Raises BadKeyset when there is not exactly one."""
        try:
            return EncryptionKey(self._one(self.e2ee_public_keys, RELEASE_ALGO).raw)
        except BadKey as error:
            raise BadKeyset(f"the release key is unusable: {error}") from error

    @property
    def digest(self) -> str:
        """``workload_keyset_digest``: the digest of the canonical form."""
        return _digest(self)

    def to_json(self) -> dict[str, JSON]:
        return {
            "e2ee_public_keys": [entry.to_json() for entry in self.e2ee_public_keys],
            "not_after": self.not_after,
            "receipt_signing_keys": [entry.to_json() for entry in self.receipt_signing_keys],
            "subject": self.subject,
            "tls_public_keys": [key.to_json() for key in self.tls_public_keys],
        }

    @classmethod
    def from_json(cls, value: object) -> Keyset:
        """Raises BadField, BadKeyset."""
        f = Fields(value, "keyset")
        found = cls(
            not_after=f.integer("not_after"),
            receipt_signing_keys=f.items("receipt_signing_keys", KeyEntry.from_json, high=MAX_ENTRIES),
            e2ee_public_keys=f.items("e2ee_public_keys", KeyEntry.from_json, high=MAX_ENTRIES),
            tls_public_keys=f.items("tls_public_keys", TlsKey.from_json, high=MAX_ENTRIES),
            subject=f.optional("subject", lambda item: Fields({"subject": item}, "keyset").text("subject", max_chars=256)),
        )
        f.end()
        return found

    def encode(self) -> bytes:
        return wire.encode(self.to_json())

    @classmethod
    def parse(cls, data: bytes) -> Keyset:
        """Raises WireError and its leaves, BadKeyset."""
        return cls.from_json(wire.decode(data, max_bytes=MAX_EVIDENCE_BYTES))


@lru_cache(maxsize=64)
def _digest(keyset: Keyset) -> str:
    """Asked for at every check of every document that names the keyset; equal keysets have equal forms."""
    return wire.digest(keyset.encode())


def parse_nonce(text: str) -> bytes:
    """A nonce as ACI spells it in an address: exactly 64 lowercase hex digits. Raises BadNonce."""
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise BadNonce("a nonce is not 64 lowercase hex digits")
    return bytes.fromhex(text)


def statement(keyset_digest: str, nonce: bytes | None) -> bytes:
    """The bytes that bind a keyset to a nonce (ACI section 3.2).

    Args:
        keyset_digest: ``sha256:`` and 64 lowercase hex digits.
        nonce: 32 bytes from the verifier, or ``None`` for the cacheable form that proves no freshness.

    Raises:
        BadKeyset: not such a digest.
        BadNonce: another length.
    """
    if not _DIGEST.match(keyset_digest):
        raise BadKeyset("a keyset digest is not sha256: and 64 lowercase hex digits")
    if nonce is not None and len(nonce) != NONCE_BYTES:
        raise BadNonce(f"a nonce is not {NONCE_BYTES} bytes long")
    return wire.encode({"keyset_digest": keyset_digest, "nonce": None if nonce is None else nonce.hex(), "purpose": PURPOSE})


def report_data(keyset_digest: str, nonce: bytes | None) -> bytes:
    """The 64 bytes for the platform's slot: SHA-256 of the statement, then 32 zeros. Raises BadKeyset, BadNonce."""
    return hashlib.sha256(statement(keyset_digest, nonce)).digest().ljust(REPORT_DATA_BYTES, b"\0")


def _text_or_null(f: Fields, name: str) -> str | None:
    found: str | None = f.optional(name, lambda item: Fields({name: item}, "source_provenance").text(name, max_chars=512))
    return found


@dataclass(frozen=True, slots=True)
class SourceProvenance:
    """Where the enclave's code is said to come from. Not bound into the evidence: a hint for people, used by no check."""

    repo_url: str | None = None
    repo_commit: str | None = None
    image_digest: str | None = None

    def to_json(self) -> dict[str, JSON]:
        return {
            "image_digest": self.image_digest,
            "image_provenance": None,
            "repo_commit": self.repo_commit,
            "repo_url": self.repo_url,
        }

    @classmethod
    def from_json(cls, value: object) -> SourceProvenance:
        """Raises BadField."""
        f = Fields(value, "source_provenance")
        found = cls(_text_or_null(f, "repo_url"), _text_or_null(f, "repo_commit"), _text_or_null(f, "image_digest"))
        if f.any("image_provenance") is not None:
            raise BadField("source_provenance.image_provenance is not null")
        f.end()
        return found


@dataclass(frozen=True, slots=True)
class AttestationReport:
    """The body of ``GET /v1/aci/attestation`` (ACI section 4.1). **Untrusted**: only ``appraise`` makes anything of it.

    Attributes:
        keyset: the enclave's keyset, as it claims.
        report_data: the statement's SHA-256, 32 bytes; a copy, never what is compared.
        evidence: from the enclave's platform.
        endorsements: handed out by the platform.
        provenance: where the code is said to come from.
        e2ee_versions: ``service_capabilities.supported_e2ee_versions``.
        serving: ``direct`` or ``aggregator``.
    """

    keyset: Keyset
    report_data: bytes
    evidence: Evidence
    endorsements: Endorsements
    provenance: SourceProvenance = field(default_factory=SourceProvenance)
    e2ee_versions: tuple[str, ...] = ()
    serving: str = "direct"

    def to_json(self) -> dict[str, JSON]:
        return {
            "api_version": API_VERSION,
            "attestation": {
                "evidence": {**self.evidence.members(), "endorsements": self.endorsements.to_json()},
                "report_data": self.report_data.hex(),
                "source_provenance": self.provenance.to_json(),
                "tee_type": self.evidence.platform,
                "workload_keyset": self.keyset.to_json(),
            },
            "service_capabilities": {"serving": self.serving, "supported_e2ee_versions": list(self.e2ee_versions)},
            "workload_keyset_digest": self.keyset.digest,
        }

    @classmethod
    def from_json(cls, value: object) -> AttestationReport:
        """Raises BadField, BadKeyset, BadEvidence."""
        f = Fields(value, "report")
        f.literal("api_version", API_VERSION)
        attestation = Fields(f.any("attestation"), "attestation")
        evidence = Fields(attestation.any("evidence"), "evidence")
        capabilities = Fields(f.any("service_capabilities"), "service_capabilities")
        found = cls(
            keyset=Keyset.from_json(attestation.any("workload_keyset")),
            report_data=attestation.hex("report_data", size=32),
            evidence=Evidence.from_fields(attestation.text("tee_type", max_chars=64), evidence),
            endorsements=Endorsements.from_json(evidence.any("endorsements")),
            provenance=SourceProvenance.from_json(attestation.any("source_provenance")),
            e2ee_versions=capabilities.items(
                "supported_e2ee_versions",
                lambda item: Fields({"version": item}, "service_capabilities").text("version"),
                high=8,
            ),
            serving=capabilities.text("serving", choices=("direct", "aggregator")),
        )
        if f.digest("workload_keyset_digest") != found.keyset.digest:
            raise BadKeyset("the report's keyset digest is not its keyset's")
        for read in (evidence, attestation, capabilities, f):
            read.end()
        return found

    def encode(self) -> bytes:
        return wire.encode(self.to_json())

    @classmethod
    def parse(cls, data: bytes) -> AttestationReport:
        """Raises WireError and AttestationError leaves."""
        return cls.from_json(wire.decode(data))
