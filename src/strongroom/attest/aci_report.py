"""Reports of services on dstack, in the layouts that are found in the wild, as evidence in their own right.

Four layouts, told apart by their members: ACI's report (``aci/1``) of a dstack service; the report of a model behind a
signing address (NEAR AI, Phala); what dstack's guest agent answers (GetQuote); dstack's own container of an SEV-SNP report.
They are others' formats, unsigned as a whole and still growing: members that this version does not know are passed over, a
member twice is refused, and what is read is read strictly. Nothing in them is believed but what the hardware signed:
:func:`examine` says which keys that is.

See ``spec/evidence-dstack.md``; the checks C1 to C5 are numbered as there.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import InitVar, dataclass
from enum import StrEnum
from typing import Any

from strongroom import wire
from strongroom.errors import (
    AttestationError,
    BadEvidence,
    BadKeyset,
    EndorsementMissing,
    EvidenceForged,
    NotBound,
    WireError,
)
from strongroom.transcript import Steps, Transcript
from strongroom.wire import Fields

from . import dstack_kms, nvidia_device, scale
from .dstack import PLATFORM, DstackVerified
from .dstack_kms import Custody
from .endorsements import PEM_CHAIN
from .evidence import MAX_DEVICES, MAX_EVIDENCE_BYTES, Endorsement, Endorsements, Evidence
from .keyset import API_VERSION, NONCE_BYTES, Keyset, report_data

MAX_REPORT_BYTES = 1 << 20
MAX_COMPOSE_BYTES = 1 << 20
MAX_KEYS = 16
GPU = "nvidia_cc"
_GPU_NONCE = slice(4, 36)  # of a GPU's report, which begins with the request that it answers (DSP0274, GET_MEASUREMENTS)

STEPS = Steps(
    "C",
    [
        "the evidence that was verified is this report's",
        "the report data bind the report's keys and the asker's nonce, in the layout's way",
        "the composition that came along is the measured one",
        "every key of the service's was issued to the measured app by a pinned root of dstack's KMS",
        "every device's evidence answers the nonce in the report data",
    ],
)
_HEX = re.compile(r"(?:0x)?([0-9a-fA-F]*)\Z")
_MAKER = object()


class Layout(StrEnum):
    """How a report is laid out, and with that how its keys are bound."""

    ACI = "aci/1"
    SIGNING_ADDRESS = "signing address"
    GET_QUOTE = "dstack GetQuote"
    CONTAINER = "dstack attestation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A service's report. **Untrusted**, all of it.

    Attributes:
        layout: which.
        evidence: for ``appraise`` or :func:`strongroom.attest.dstack.verify`.
        endorsements: that came along: the hardware's, and certificate chains of the devices.
        devices: evidence of GPUs (``nvidia_cc``). Nothing of ours binds them; see C5.
        keyset: ACI's.
        signing_address: an Ethereum address (20 bytes) or an Ed25519 key (32).
        tls_key: SHA-256 of the service's TLS key, where the layout binds one beside the signing address.
        app_compose: the app's composition, as text was hashed.
        custody: where the service's keys come from.
    """

    layout: Layout
    evidence: Evidence
    endorsements: Endorsements = Endorsements()  # noqa: RUF009 - frozen
    devices: tuple[Evidence, ...] = ()
    keyset: Keyset | None = None
    signing_address: bytes | None = None
    tls_key: bytes | None = None
    app_compose: bytes | None = None
    custody: tuple[Custody, ...] = ()

    def report_data(self, nonce: bytes | None) -> bytes | None:
        """The 64 bytes that bind this report's keys to a nonce; ``None`` where the layout has no keys or needs a nonce.

        Args:
            nonce: 32 bytes, or ``None``.

        Raises:
            BadNonce: another length.
        """
        if self.keyset is not None:
            return report_data(self.keyset.digest, nonce)
        if self.signing_address is None or nonce is None or len(nonce) != NONCE_BYTES:
            return None
        if self.tls_key is not None:
            return hashlib.sha256(self.signing_address + self.tls_key).digest() + nonce
        return self.signing_address.ljust(32, b"\0") + nonce


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A service whose keys the hardware vouches for. Made by :func:`examine` alone.

    Attributes:
        keyset, signing_address, tls_key: as in the report; what is not ``None`` is bound.
        app_id: dstack's name for the app, in hex, as it was measured.
        composition: the app's composition, where it came along.
        kms_root: the root that issued the keys; ``None`` where that is not established.
    """

    keyset: Keyset | None
    signing_address: bytes | None
    tls_key: bytes | None
    app_id: str
    composition: bytes | None
    kms_root: bytes | None
    maker: InitVar[object]

    def __post_init__(self, maker: object) -> None:
        if maker is not _MAKER:
            raise TypeError("only examine() makes a Service")


def parse(data: bytes) -> Report:
    """Read a report of any of the layouts, believed by nobody yet.

    Args:
        data: its JSON, at most 1 MiB.

    Raises:
        BadEvidence: it is of none of them.
        BadKeyset: its keyset is not one of ACI's, or not the one that its digest names.
    """
    try:
        found = wire.loads(data, max_bytes=MAX_REPORT_BYTES)
        if not isinstance(found, dict):
            raise BadEvidence("not a service's report")
        if "gateway_attestation" in found:  # a router and its models, each with a report of its own: this is the router's
            found = found["gateway_attestation"]
            if not isinstance(found, dict):
                raise BadEvidence("a router's report is not an object")
        if "api_version" in found:
            return _aci(found)
        if "intel_quote" in found:
            return _signing_address(found)
        if "quote" in found and "event_log" in found:
            return Report(layout=Layout.GET_QUOTE, evidence=_evidence(found, "quote"))
        if "attestation" in found:
            return _container(found)
    except (WireError, UnicodeEncodeError) as error:  # the second: a lone surrogate, which JSON can spell and no text holds
        raise BadEvidence(f"not a service's report: {error}") from error
    raise BadEvidence("not a service's report in any layout that this version knows")


def _hex(value: object, what: str, most: int = MAX_EVIDENCE_BYTES) -> bytes:
    found = _HEX.match(value) if isinstance(value, str) and len(value) <= 2 * most + 2 else None
    if found is None or len(found[1]) % 2:
        raise BadEvidence(f"the report's {what} is not hex of at most {most} bytes")
    return bytes.fromhex(found[1])


def _evidence(found: Mapping[str, Any], name: str) -> Evidence:
    """The quote, and the log that came with it as text or as a list."""
    log = found.get("event_log", "")
    text = log if isinstance(log, str) else json.dumps(log, separators=(",", ":"))
    return Evidence(PLATFORM, _hex(found.get(name), name), event_log=text.encode())


def _text(value: object, what: str, most: int = MAX_COMPOSE_BYTES) -> bytes | None:
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > most:
        raise BadEvidence(f"the report's {what} is not text of at most {most} characters")
    return value.encode()


def _aci(found: Mapping[str, Any]) -> Report:
    f = Fields(found, "report")
    f.literal("api_version", API_VERSION)
    attestation = Fields(f.any("attestation"), "attestation")
    attestation.text("tee_type", choices=("tdx", "sev_snp", PLATFORM))
    keyset = Keyset.from_json(attestation.any("workload_keyset"))
    if f.digest("workload_keyset_digest") != keyset.digest:
        raise BadKeyset("the report's keyset digest is not its keyset's")
    evidence = attestation.any("evidence")
    if not isinstance(evidence, dict):
        raise BadEvidence("the report's evidence is not an object")
    return Report(
        layout=Layout.ACI,
        evidence=_evidence(evidence, "quote"),
        keyset=keyset,
        app_compose=_text(evidence.get("app_compose"), "app_compose"),
        custody=_custody(evidence.get("key_custody")),
    )


def _custody(value: object) -> tuple[Custody, ...]:
    if value is None:
        return ()
    f = Fields(value, "key_custody")
    f.literal("provider", "dstack-kms")
    return f.items("keys", _one_custody, high=MAX_KEYS)


def _one_custody(value: object) -> Custody:
    f = Fields(value, "key_custody.keys")
    chain = f.items("signature_chain", lambda item: _hex(item, "signature", dstack_kms.SIGNATURE_BYTES), low=2, high=2)
    published = f.text("public_key", max_chars=512)
    return Custody(
        role=f.text("role", max_chars=64),
        purpose=f.text("purpose", max_chars=128),
        public_key=_hex(published, "public_key", 256),
        kms_public_key=_hex(f.any("kms_public_key"), "kms_public_key", 65),
        signatures=(chain[0], chain[1]),
    )


def _signing_address(found: Mapping[str, Any]) -> Report:
    info = found.get("info")
    tcb = info.get("tcb_info") if isinstance(info, dict) else None
    if isinstance(tcb, str):
        tcb = wire.loads(tcb.encode(), max_bytes=MAX_REPORT_BYTES)
    said = tcb if isinstance(tcb, dict) else {}
    log = found.get("event_log", said.get("event_log", ""))
    address = _hex(found.get("signing_address"), "signing_address", 32)
    if len(address) not in {20, 32}:
        raise BadEvidence("the report's signing address is neither an Ethereum address nor an Ed25519 key")
    tls = found.get("tls_cert_fingerprint")
    tls_key = None if tls is None else _hex(tls, "tls_cert_fingerprint", 32)
    if tls_key is not None and len(tls_key) != 32:
        raise BadEvidence("the report's TLS key digest is not 32 bytes long")
    devices, chains = _gpus(found.get("nvidia_payload"))
    return Report(
        layout=Layout.SIGNING_ADDRESS,
        evidence=_evidence({"intel_quote": found["intel_quote"], "event_log": log}, "intel_quote"),
        endorsements=Endorsements(chains),
        devices=devices,
        signing_address=address,
        tls_key=tls_key,
        app_compose=_text(said.get("app_compose"), "app_compose"),
    )


def _gpus(value: object) -> tuple[tuple[Evidence, ...], tuple[Endorsement, ...]]:
    """Reports and certificate chains, as NVIDIA's remote service is asked with (``evidence_list``)."""
    if value is None or value == "":
        return (), ()
    f = Fields(wire.loads(value.encode(), max_bytes=MAX_REPORT_BYTES) if isinstance(value, str) else value, "nvidia_payload")
    pairs = f.items("evidence_list", _gpu, high=MAX_DEVICES)
    return tuple(report for report, _ in pairs), tuple(dict.fromkeys(chain for _, chain in pairs))


def _gpu(value: object) -> tuple[Evidence, Endorsement]:
    f = Fields(value, "nvidia_payload.evidence_list")
    report, chain = f.base64("evidence", max_bytes=MAX_EVIDENCE_BYTES), f.base64("certificate", max_bytes=64 << 10)
    try:
        device = nvidia_device.evidence(report, chain)
    except BadEvidence:
        device = Evidence(GPU, report)  # as it came: its own verifier says what is wrong with it
    return device, Endorsement(PEM_CHAIN, chain)


def _gpu_nonce(device: Evidence) -> bytes:
    """The nonce that a GPU's evidence answers, whole or as it came."""
    try:
        return nvidia_device.parse(device.data).report.nonce
    except BadEvidence:
        return device.data[_GPU_NONCE]


def _container(found: Mapping[str, Any]) -> Report:
    read = scale.parse(_hex(found["attestation"], "attestation"))
    return Report(
        layout=Layout.CONTAINER,
        evidence=Evidence(PLATFORM, read.report, event_log=read.configuration),
        endorsements=Endorsements((Endorsement(PEM_CHAIN, b"".join(reversed(read.certificates))),)),
    )


def examine(
    report: Report,
    verified: DstackVerified,
    *,
    nonce: bytes | None,
    kms_roots: Collection[bytes],
    transcript: Transcript,
) -> Service:
    """Which keys the hardware vouches for: C1 to C5. The one maker of a ``Service``.

    A check about something that did not come along is not established, and the others go on: whoever needs it looks at the
    transcript, whose ``ok`` is true only when all five passed.

    Args:
        report: untrusted.
        verified: what ``dstack.verify`` found of ``report.evidence``.
        nonce: 32 bytes that the asker chose; ``None`` where a report was not asked for with one, which proves no freshness.
        kms_roots: compressed secp256k1 keys of pinned KMS roots.
        transcript: of ``STEPS``.

    Raises:
        NotBound: C1, C2, C5.
        BadNonce: C2.
        EvidenceForged: C3, C4.
        UnknownRoot: C4.
    """
    number, root = "C1", None
    try:
        if verified.evidence != report.evidence:
            raise NotBound("what was verified is other evidence than this report's")
        transcript.record(number, passed=True, detail=report.layout.value)

        number = "C2"
        bound = report.report_data(nonce)
        if bound is None:
            transcript.record(number, None, "the layout names no keys, or no nonce was given", code=NotBound.code)
        elif not verified.binds(bound):
            raise NotBound("the report data are for other keys or another nonce")
        else:
            transcript.record(number, passed=True, detail=report.layout.value)

        number = "C3"
        _composition(report, verified, transcript)

        number = "C4"
        root = _issued(report, bytes.fromhex(verified.app.app_id), kms_roots, transcript)

        number = "C5"
        expected = verified.report_data[NONCE_BYTES:]
        if any(_gpu_nonce(device) != expected for device in report.devices):
            raise NotBound("a device's evidence answers another nonce")
        transcript.record(number, passed=True, detail=f"{len(report.devices)} devices")
    except AttestationError as error:
        transcript.record(number, passed=False, detail=error.message, code=error.code)
        raise
    keys = bound is not None
    return Service(
        keyset=report.keyset if keys else None,
        signing_address=report.signing_address if keys else None,
        tls_key=report.tls_key if keys else None,
        app_id=verified.app.app_id,
        composition=report.app_compose,
        kms_root=root,
        maker=_MAKER,
    )


def _composition(report: Report, verified: DstackVerified, transcript: Transcript) -> None:
    """C3. Raises EvidenceForged."""
    if report.app_compose is None:
        transcript.record("C3", None, "no composition came along", code=EvidenceForged.code)
        return
    found = hashlib.sha256(report.app_compose).digest()
    if found != verified.app.compose_hash:
        raise EvidenceForged(f"the composition hashes to {found.hex()}, and {verified.app.compose_hash.hex()} was measured")
    transcript.record("C3", passed=True, detail=f"sha256:{found.hex()}")


def _issued(report: Report, app_id: bytes, roots: Collection[bytes], transcript: Transcript) -> bytes | None:
    """C4: every key that signs receipts has a chain, and every chain is of a key of the keyset.

    Raises EvidenceForged, UnknownRoot.
    """
    keyset = report.keyset
    if keyset is None or not report.custody:
        transcript.record("C4", None, "no custody of keys came along", code=EndorsementMissing.code)
        return None
    signing = {entry.raw for entry in keyset.receipt_signing_keys}
    listed = signing | {entry.raw for entry in keyset.e2ee_public_keys}
    chained = {custody.public_key for custody in report.custody}
    algorithms = {entry.raw: entry.algo for entry in (*keyset.receipt_signing_keys, *keyset.e2ee_public_keys)}
    if not chained <= listed or not signing <= chained:
        raise EvidenceForged("the custody that came along is not of this keyset's keys")
    if any("secp256k1" in algorithms[c.public_key] and not c.is_the_issued_key for c in report.custody):
        raise EvidenceForged("a key of the keyset's has the custody of another key of the KMS's")
    try:
        found = {dstack_kms.root_of(custody, app_id, roots) for custody in report.custody}
    except EndorsementMissing as error:
        transcript.record("C4", None, error.message, code=error.code)
        return None
    if len(found) != 1:
        raise EvidenceForged("the keys were issued by more than one KMS")
    (root,) = found
    transcript.record("C4", passed=True, detail=f"root {root.hex()}")
    return root
