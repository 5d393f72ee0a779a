"""The facts of a keyset and a receipt in the form that NEAR AI's clients ask for: a report, and a signature for each chat.

``GET /v1/attestation/report?model&nonce&signing_algo`` binds a signing key, not a keyset, into a quote. It is another quote
than ACI's, because one slot holds one thing. ``GET /v1/signature/{chat_id}`` is a signature over a model's name and two
hashes, by a key of its own in the keyset. Both are for clients that know nothing else: what a receipt says of weights, of
policy and of usage is not in them.

What is served is true. So there is no ECDSA: no key of the keyset is of that kind, and the "address" that stands for one
would be a hash that nothing here computes. And no hardware but Intel's: the form has a place for its quote alone.

See ``spec/inference-receipt.md``.
"""

from __future__ import annotations

import hashlib
import json
import textwrap
from dataclasses import dataclass

from strongroom import wire
from strongroom.attest import dstack, dstack_log, nvidia_device, tdx
from strongroom.attest.evidence import Evidence
from strongroom.attest.keyset import NONCE_BYTES, Keyset
from strongroom.errors import BadEvidence, BadInferenceReceipt, BadKeyset, BadNonce, NoIntelQuote, NotBound, SigningAlgorithm
from strongroom.party import SigningKey, VerifyKey
from strongroom.wire import JSON

from .events import RequestReceived, ResponseRestored, ResponseReturned
from .receipt import InferenceReceipt

ED25519 = "ed25519"
PROVIDER_TEE = "provider_tee"  # NEAR's word: the key is of the enclave that runs the model
INTEL = (dstack.PLATFORM, tdx.PLATFORM)


def require_algorithm(name: str | None) -> None:
    """Require that a client asks for the algorithm that is served.

    Args:
        name: ``signing_algo`` of the request; NEAR takes a missing one for ``ecdsa``.

    Raises:
        SigningAlgorithm: another, or none.
    """
    if name != ED25519:
        raise SigningAlgorithm("only signing_algo=ed25519 is served, and where none is given ecdsa is meant")


def report_data(key: VerifyKey, nonce: bytes, tls_key: bytes | None = None) -> bytes:
    """What the quote behind a report must bind.

    Args:
        key: the chat-signature key.
        nonce: 32 bytes from the asker; there is no form without.
        tls_key: SHA-256 of the TLS key's SubjectPublicKeyInfo, 32 bytes, where the asker wants it bound too.

    Returns:
        64 bytes for the platform's slot. No statement of ACI's leads to the same ones: those end in 32 zero bytes after a
        hash, and an enclave has no key that is the hash of a statement.

    Raises:
        BadNonce: the nonce is not 32 bytes.
        BadKeyset: the TLS key's digest is not.
    """
    if len(nonce) != NONCE_BYTES:
        raise BadNonce(f"a nonce is not {NONCE_BYTES} bytes long")
    if tls_key is None:
        return key.raw + nonce
    if len(tls_key) != hashlib.sha256().digest_size:
        raise BadKeyset("a TLS key's digest is not 32 bytes long")
    return hashlib.sha256(key.raw + tls_key).digest() + nonce


def chat_text(receipt: InferenceReceipt) -> str:
    """What is signed about a chat: the model's name and two hashes, ``model:request:response``.

    The hashes are of the bytes that an ordinary client sees: of an encrypted chat those of the plaintexts, on both sides.

    Raises:
        BadInferenceReceipt: there is no such chat: the request was refused, named no model or one with a colon, or the
            answer has no id.
    """
    request = receipt.one(RequestReceived)
    response = receipt.one(ResponseRestored) or receipt.one(ResponseReturned)
    model = receipt.model
    if receipt.refused or receipt.chat_id is None or model is None or ":" in model or request is None or response is None:
        raise BadInferenceReceipt(
            "a request that was refused, or whose model or chat cannot be named, has no chat signature"
        )
    return ":".join((model, *(body.body_hash.removeprefix("sha256:") for body in (request, response))))


def chat_signature(receipt: InferenceReceipt, *, keyset: Keyset, key: SigningKey) -> dict[str, JSON]:
    """The answer of ``GET /v1/signature/{chat_id}``.

    Args:
        receipt: the enclave's own, of that chat.
        keyset: the enclave's own.
        key: the private half of its chat-signature key, which signs such texts and nothing else.

    Raises:
        BadInferenceReceipt: as :func:`chat_text`, or the receipt is of another keyset.
        BadKeyset: the keyset has not exactly one chat-signature key, or another one.
    """
    if receipt.workload_keyset_digest != keyset.digest:
        raise BadInferenceReceipt("the receipt is of another keyset")
    if keyset.chat_signature_key != key.public:
        raise BadKeyset("the keyset's chat-signature key is another one")
    text = chat_text(receipt)
    return {
        "signature": key.sign_bytes(text.encode()).hex(),
        "signature_kind": PROVIDER_TEE,
        "signing_address": key.public.raw.hex(),
        "signing_algo": ED25519,
        "text": text,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Quoted:
    """What the enclave had its hardware say for one such report.

    Attributes:
        evidence: of the processor, for :func:`report_data`.
        devices: of its GPUs, each asked with the asker's nonce itself.
        composition: dstack's composition of the app, the text that was measured; ``None`` where there is none.
    """

    evidence: Evidence
    devices: tuple[Evidence, ...] = ()
    composition: str | None = None


def attestation_report(quoted: Quoted, *, keyset: Keyset, nonce: bytes, tls_key: bytes | None = None) -> dict[str, JSON]:
    """The answer of ``GET /v1/attestation/report``. Handed out only where the quote binds what the report says.

    Args:
        quoted: from the enclave's own platform.
        keyset: the enclave's own.
        nonce: 32 bytes from the asker.
        tls_key: as in :func:`report_data`.

    Raises:
        BadNonce, BadKeyset: as :func:`report_data`; the keyset has not exactly one chat-signature key.
        NoIntelQuote: the platform has no Intel quote.
        NotBound: the quote binds something else, or a device answers another nonce.
        BadEvidence, BadEventLog: the quote, a device's evidence or the event log cannot be read.
    """
    key = keyset.chat_signature_key
    bound = report_data(key, nonce, tls_key)
    evidence = quoted.evidence
    if evidence.platform not in INTEL or len(evidence.data) == dstack.SNP_REPORT_BYTES:
        raise NoIntelQuote(f"there is no Intel quote on the platform {evidence.platform}")
    if tdx.parse(evidence.data).td.report_data != bound:
        raise NotBound("the quote is for another key or nonce than the report names")
    address = key.raw.hex()
    report: dict[str, JSON] = {
        "event_log": _event_log(evidence),
        "info": _info(quoted.composition),
        "intel_quote": evidence.data.hex(),
        "nvidia_payload": _nvidia_payload(quoted.devices, nonce),
        "report_data": bound.hex(),
        "request_nonce": nonce.hex(),
        "signing_address": address,
        "signing_algo": ED25519,
        "signing_public_key": address,
    }
    if tls_key is not None:
        report["tls_cert_fingerprint"] = tls_key.hex()
    return {**report, "all_attestations": [dict(report)], "model_attestations": [dict(report)]}


def _event_log(evidence: Evidence) -> list[JSON]:
    """dstack's log, as it is; the form knows no other."""
    if evidence.platform != dstack.PLATFORM:
        return []
    dstack_log.parse(evidence.event_log)
    found: list[JSON] = json.loads(evidence.event_log)
    return found


def _info(composition: str | None) -> dict[str, JSON]:
    return {} if composition is None else {"tcb_info": {"app_compose": composition}}


def _nvidia_payload(devices: tuple[Evidence, ...], nonce: bytes) -> str | None:
    """As NVIDIA's service is asked: text. ``None`` where there are no GPUs."""
    if not devices:
        return None
    claims = [nvidia_device.parse(device.data) for device in devices]
    if any(claim.report.nonce != nonce for claim in claims):
        raise NotBound("a GPU answers another nonce than the asker's")
    architectures = {claim.architecture for claim in claims}
    if len(architectures) != 1:
        raise BadEvidence("the devices are of two generations, and the form has a place for one")
    evidence: list[JSON] = [
        {"certificate": wire.b64(_pem(claim)), "evidence": wire.b64(claim.report.data)} for claim in claims
    ]
    return json.dumps({"arch": architectures.pop().value, "evidence_list": evidence, "nonce": nonce.hex()})


def _pem(claim: nvidia_device.Claims) -> bytes:
    blocks = (textwrap.fill(wire.b64(certificate.der), 64) for certificate in claim.certificates)
    return "".join(f"-----BEGIN CERTIFICATE-----\n{b}\n-----END CERTIFICATE-----\n" for b in blocks).encode()
