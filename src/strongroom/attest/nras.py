"""Tokens of NVIDIA's Remote Attestation Service: what NVIDIA says of a GPU that it looked at, in place of looking oneself.

An answer is two tokens: one over all, and one about the device, whose digest the first one holds. Each counts by its own
ES384 signature alone. NVIDIA's SDK wraps the answer into a token of its own making, signed by HS256 with a secret that
everybody knows: it proves nothing, and is taken off unread.

See ``spec/evidence-nvidia.md``; the checks R1 to R9 and RT1 to RT7 are numbered as there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from typing import Any

import jwt
from cryptography import x509 as library
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from strongroom import wire
from strongroom.errors import (
    AttestationError,
    BadCertificate,
    EndorsementMissing,
    EvidenceForged,
    NotFresh,
    TcbNotAccepted,
    TermsNotMet,
    UnknownRoot,
)
from strongroom.transcript import Steps, Transcript

from .binding import gpu_nonce
from .endorsements import certificates, digests
from .evidence import REPORT_DATA_BYTES, Endorsements, Evidence, Measurement, Roots
from .nras_token import PLATFORM, Claims, Key, Token, keys, parse
from .nvidia_terms import REQUIRED, TokenTerms
from .vector import AFFIRMED, APPROVED_AT_START, UNACCEPTABLE, TrustVector
from .x509 import MAX_PATH, Certificate, require_path

__all__ = ["LABEL", "PLATFORM", "STEPS", "TERMS_STEPS", "Claims", "NrasVerified", "Terms", "judge", "parse", "verify"]

Terms = TokenTerms

LABEL = "device: nras (a GPU, on the word of NVIDIA's attestation service)"
ISSUER = "https://nras.attestation.nvidia.com"
SUBJECT = "NVIDIA-PLATFORM-ATTESTATION"
LONGEST_S = 86_400  # a token that claims to count for longer is none of this service's
TOLERATED = 32
STEPS = Steps(
    "R",
    [
        "the evidence is a well-formed answer of the service about one GPU",
        "both tokens name ES384 and nothing else",
        "the key that they name is in a key set that came along",
        "the policy pins the key, or a certificate that leads to it",
        "both tokens are signed by that key",
        "both tokens are NVIDIA's attestation service's, as it is known",
        "both tokens count at the time in question",
        "the token over all holds the digest of the token about the device, and of no other",
        "both tokens are about the same nonce",
    ],
)
TERMS_STEPS = Steps(
    "RT",
    [
        "the service's result over all is good",
        "every measurement was the one that NVIDIA released",
        "secure boot is on, and debugging off",
        "every check that the service made passed, and it warned of nothing",
        "the service found every certificate valid and standing, or the policy does without",
        "the policy accepts the architecture, and the versions of driver and VBIOS",
        "the nonce was checked by the service",
    ],
)
# What the service must have checked, in every version of its tokens; what else it says of checks must be true too.
CHECKED = (
    "arch-check",
    "attestation-report-parsed",
    "attestation-report-signature-verified",
    "driver-rim-fetched",
    "driver-rim-measurements-available",
    "driver-rim-signature-verified",
    "vbios-index-no-conflict",
    "vbios-rim-fetched",
    "vbios-rim-measurements-available",
    "vbios-rim-signature-verified",
)
CHAINS = ("attestation-report-cert-chain", "driver-rim-cert-chain", "vbios-rim-cert-chain")

_STANDS = ["valid", "good"]
_ES384 = jwt.PyJWS(algorithms=["ES384"])
_MAKER = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class NrasVerified:
    """An answer that the service signed. Made by :func:`verify` alone.

    Attributes, beside those of ``evidence.Verified``:
        claims: what the service says; now it is known that it did.
    """

    claims: Claims
    valid_until: int
    collateral: tuple[str, ...]
    maker: InitVar[object]

    def __post_init__(self, maker: object) -> None:
        if maker is not _MAKER:
            raise TypeError("only verify() makes an NrasVerified")

    @property
    def nonce(self) -> bytes:
        """The 32 bytes that the device was asked with, as the service says."""
        return self.claims.device.nonce

    @property
    def report_data(self) -> bytes:
        return self.nonce

    @property
    def measurement(self) -> Measurement:
        """What the service says is there: a digest of the names and versions, because tokens hold no measurements."""
        said: dict[str, wire.JSON] = {
            "driver": self.claims.driver_version,
            "model": self.claims.hardware_model,
            "vbios": self.claims.vbios_version,
        }
        return Measurement(PLATFORM, {"software": wire.digest(wire.encode(said))})

    @property
    def debug(self) -> bool:
        """Whether the service says anything but that debugging is off."""
        return bool(self.claims.said("dbgstat") != "disabled")

    @property
    def produced_at(self) -> int:
        """When the service made the token, unix seconds by its clock."""
        return self.claims.device.issued_at

    @property
    def machine(self) -> str:
        """The device's UEID, as the service says it. It changes with the device's firmware."""
        number = self.claims.ueid
        return f"ueid:{number.to_bytes(max(1, (number.bit_length() + 7) // 8), 'big').hex()}"

    @property
    def vector(self) -> TrustVector:
        return TrustVector(instance_identity=AFFIRMED, hardware=AFFIRMED, executables=APPROVED_AT_START)

    def binds(self, report_data: bytes) -> bool:
        """Whether the device was asked with the nonce that follows from these 64 bytes of the processor's."""
        return len(report_data) == REPORT_DATA_BYTES and self.nonce == gpu_nonce(report_data)


class _Verification:
    """One verification under way: what is asked, and what is established so far."""

    def __init__(self, evidence: Evidence, endorsements: Endorsements, roots: Roots, at: int) -> None:
        self.evidence, self.endorsements, self.roots, self.at = evidence, endorsements, frozenset(roots.certificates), at
        self.path: tuple[Certificate, ...] = ()
        self.ends: list[int] = []

    def well_formed(self) -> str:
        self.claims = parse(self.evidence.data)
        self.tokens: tuple[Token, ...] = (self.claims.overall, self.claims.device)
        wrapped = "; the SDK's own token around it proves nothing and is not counted" if self.claims.wrapped else ""
        return f"{self.claims.name}, {self.claims.hardware_model}{wrapped}"

    def one_algorithm(self) -> str:
        for token in self.tokens:
            if token.header.get("alg") != "ES384" or not set(token.header) <= {"alg", "kid", "typ"}:
                raise EvidenceForged(f"a token names {str(token.header.get('alg'))[:20]!r} or more, where it must be ES384")
        return "ES384"

    def key_found(self) -> str:
        named = {token.header.get("kid") for token in self.tokens}
        kid = named.pop()
        if named or not isinstance(kid, str) or not kid or not (kid.isascii() and kid.isprintable()):
            raise EvidenceForged("the tokens do not name one key")
        found = {key.spki: key for key in keys(self.endorsements, kid)}
        if not found:
            raise EndorsementMissing(f"no key set that came along holds the key {kid[:80]!r}: it may have been replaced")
        if len(found) > 1:
            raise BadCertificate(f"two keys are called {kid[:80]!r}")
        (self.key,) = found.values()
        return kid

    def key_pinned(self) -> str:
        own = wire.digest(self.key.spki)
        if own in self.roots:
            return f"key {own}"
        path = _path(self.key, certificates(self.endorsements), self.roots)
        if not path or path[-1].key_digest not in self.roots:
            raise UnknownRoot(f"neither the key {own} nor a certificate above it is pinned")
        if path[0].public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != self.key.spki:
            raise BadCertificate("the key's certificate is for another key")
        try:
            usage = path[0].extensions().get_extension_for_class(library.KeyUsage).value
        except library.ExtensionNotFound:
            raise BadCertificate("the key's certificate does not say what it may be used for") from None
        if not usage.digital_signature:
            raise BadCertificate("the key's certificate is not for signatures")
        self.ends.append(require_path(path, roots=self.roots, at=self.at, self_signed=False))
        self.path = path
        return f"{path[0].subject}, by {path[-1].subject}"

    def signed(self) -> str:
        for token in self.tokens:
            try:
                _ES384.decode_complete(token.text, self.key.public, algorithms=["ES384"])
            except jwt.PyJWTError as error:
                raise EvidenceForged("a token is not signed by the key that it names") from error
        return "both"

    def issued(self) -> str:
        if any(token.issuer != ISSUER for token in self.tokens) or self.claims.overall.payload.get("sub") != SUBJECT:
            raise EvidenceForged(f"a token is not one of {ISSUER}")
        return ISSUER

    def current(self) -> str:
        for token in self.tokens:
            if self.at < max(token.not_before, token.issued_at):
                raise NotFresh(f"a token counts from {max(token.not_before, token.issued_at)}, after {self.at}")
            if self.at >= token.expires:
                raise NotFresh(f"a token counted until {token.expires}, before {self.at}")
            if token.expires - token.issued_at > LONGEST_S:
                raise NotFresh(f"a token claims to count for {token.expires - token.issued_at} s")
            self.ends.append(token.expires - 1)
        return f"until {min(self.ends)}"

    def digest_held(self) -> str:
        wanted = {self.claims.name: ["DIGEST", ["SHA-256", wire.digest(self.claims.device.text).removeprefix("sha256:")]]}
        if self.claims.overall.payload.get("submods") != wanted:
            raise EvidenceForged("the token over all is about another device's token, or about more")
        return self.claims.name

    def same_nonce(self) -> str:
        if self.claims.overall.nonce != self.claims.device.nonce:
            raise EvidenceForged("the tokens are about different nonces")
        return self.claims.device.nonce.hex()

    def verified(self) -> NrasVerified:
        return NrasVerified(
            claims=self.claims,
            valid_until=min(self.ends),
            collateral=digests(self.key.spki, *self.path),
            maker=_MAKER,
        )


def _path(key: Key, others: tuple[Certificate, ...], roots: frozenset[str]) -> tuple[Certificate, ...]:
    """The key's certificates up to the first whose key is pinned, with others put on top where they are missing."""
    path: list[Certificate] = []
    for certificate in key.path:
        path.append(certificate)
        if len(path) > 1 and certificate.key_digest in roots:
            return tuple(path)
    while path and len(path) < MAX_PATH and path[-1].key_digest not in roots:
        above = next((c for c in others if c.parsed.subject == path[-1].parsed.issuer and c not in path), None)
        if above is None:
            break
        path.append(above)
    return tuple(path)


def verify(evidence: Evidence, endorsements: Endorsements, *, roots: Roots, at: int, transcript: Transcript) -> NrasVerified:
    """The one maker of an ``NrasVerified``: R1 to R9, in order.

    Args:
        evidence: untrusted.
        endorsements: untrusted; key sets and certificates are read, and what else came along is left alone.
        roots: the verifier's own: the digest of a key of the service's, or of a certificate's that leads to them.
        at: the time in question, unix seconds.
        transcript: of ``STEPS``; every check is recorded in it.

    Raises:
        BadEvidence: R1. EvidenceForged: R2, R5, R6, R8, R9.
        EndorsementMissing, EvidenceForged, BadEndorsement, BadCertificate: R3.
        UnknownRoot, BadCertificate, BadEndorsement, EndorsementNotYetValid, EndorsementExpired: R4.
        NotFresh: R7.
    """
    found = _Verification(evidence, endorsements, roots, at)
    checks = (
        found.well_formed,
        found.one_algorithm,
        found.key_found,
        found.key_pinned,
        found.signed,
        found.issued,
        found.current,
        found.digest_held,
        found.same_nonce,
    )
    for (number, _), check in zip(STEPS, checks, strict=True):
        try:
            seen = check()
        except AttestationError as error:
            passed = None if isinstance(error, EndorsementMissing) else False
            transcript.record(number, passed, error.message, code=error.code)
            raise
        transcript.record(number, passed=True, detail=seen)
    return found.verified()


def judge(verified: NrasVerified, terms: TokenTerms, *, at: int, transcript: Transcript) -> TrustVector:  # noqa: ARG001
    """Record RT1 to RT7, and say what can be claimed. Arguments as :func:`verify`'s. Never raises."""
    claims = verified.claims
    result = claims.overall.payload.get("x-nvidia-overall-att-result")
    transcript.record("RT1", result is True, _shown(result), code=TermsNotMet.code)
    measured = claims.said("measres")
    transcript.record("RT2", measured == "success", _shown(measured), code=TermsNotMet.code)
    boot = claims.said("secboot")
    seen = f"secure boot {_shown(boot)}, debugging {_shown(claims.said('dbgstat'))}"
    transcript.record("RT3", boot is True and not verified.debug, seen, code=TermsNotMet.code)

    failed = _failed(claims)
    transcript.record("RT4", not failed, "; ".join(failed) or "all", code=TermsNotMet.code)
    wrong, unsaid = _chains(claims)
    missing = terms.revocation == REQUIRED and bool(unsaid)
    passed = False if wrong else None if missing else True
    seen = "; ".join((*wrong, *(f"nothing is said of {name}" for name in unsaid))) or "all"
    transcript.record("RT5", passed, seen, code=TermsNotMet.code if wrong else EndorsementMissing.code)

    software = terms.architectures.get(claims.architecture)
    driver = software is not None and software.driver is not None and software.driver.accept(claims.driver_version, 10)
    vbios = software is not None and software.vbios.accept(claims.vbios_version, 16)
    seen = f"{claims.architecture.value}, driver {claims.driver_version}, VBIOS {claims.vbios_version}"
    transcript.record("RT6", driver and vbios, seen, code=TcbNotAccepted.code)
    nonce = claims.said("x-nvidia-gpu-attestation-report-nonce-match")
    transcript.record("RT7", nonce is True, _shown(nonce), code=TermsNotMet.code)

    hardware = UNACCEPTABLE if not transcript.ok else TOLERATED if unsaid else AFFIRMED
    return TrustVector(instance_identity=AFFIRMED, hardware=hardware, executables=APPROVED_AT_START)


def _shown(value: object) -> str:
    return "not said" if value is None else _printable(str(value)[:40])


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def _failed(claims: Claims) -> tuple[str, ...]:
    """The service's checks that did not pass, were not made, or of which it warns."""
    prefix = "x-nvidia-gpu-"
    missing = [name for name in CHECKED if claims.said(prefix + name) is not True]
    untrue = [_printable(name.removeprefix(prefix)) for name, value in claims.device.payload.items() if value is False]
    warned = claims.said("x-nvidia-attestation-warning")
    return (*sorted({*missing, *untrue}), *([f"warning: {_shown(warned)}"] if warned is not None else []))


def _chains(claims: Claims) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The paths of certificates that the service did not find valid and standing, and those of which it does not say."""
    wrong, unsaid = [], []
    for name in CHAINS:
        found: Any = claims.said(f"x-nvidia-gpu-{name}")
        if not isinstance(found, Mapping):
            unsaid.append(name)
        elif False in found.values() or [found.get(f"x-nvidia-cert-{of}") for of in ("status", "ocsp-status")] != _STANDS:
            wrong.append(name)
    return tuple(wrong), tuple(unsaid)
