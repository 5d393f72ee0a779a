"""AWS Nitro Enclaves: a document that the Nitro hypervisor signs over an enclave's registers (COSE_Sign1, RFC 9052).

The document's key is certified for three hours by a path that travels inside it; the path is judged at the document's own
time, and the appraisal judges how old the document is. The format is AWS's, "Verifying the root of trust" in the user guide.

See ``spec/evidence-nitro.md``; the checks N1 to N4 and the terms NT1 to NT3 are numbered as there.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from strongroom.errors import AttestationError, BadCertificate, BadField, EvidenceForged, TermsNotMet
from strongroom.transcript import Steps, Transcript
from strongroom.wire import JSON, Fields

from .endorsements import digests
from .evidence import Endorsements, Evidence, Measurement, Roots
from .nitro_document import MAX_NITRO_BYTES, MEASURED, PCR_BYTES, Claims, parse
from .vector import AFFIRMED, UNACCEPTABLE, UNRECOGNIZED, TrustVector
from .x509 import Certificate, require_path

__all__ = [
    "LABEL",
    "MAX_NITRO_BYTES",
    "PLATFORM",
    "STEPS",
    "TERMS_STEPS",
    "Claims",
    "NitroVerified",
    "Terms",
    "judge",
    "parse",
    "verify",
]

PLATFORM = "nitro"
LABEL = "platform: nitro (AWS Nitro Enclaves)"
STEPS = Steps(
    "N",
    [
        "the evidence is a well-formed attestation document, signed by ES384",
        "its certificates lead to a root that the policy pins, at the document's own time",
        "its certificate is for a P-384 key that signs",
        "the document is signed by that key",
    ],
)
TERMS_STEPS = Steps(
    "NT",
    [
        "the parent instance's role (PCR3) is one that the policy accepts",
        "the parent instance (PCR4) is one that the policy accepts",
        "the module is one that the policy accepts",
    ],
)

ANY = "any"
_MAKER = object()


@dataclass(frozen=True, slots=True)
class Terms:
    """What a policy asks of an enclave beyond its measurement.

    Args:
        pcr3: accepted digests of the parent instance's IAM role, 96 hex digits each; ``None`` for the word ``any``.
        pcr4: accepted digests of the parent instance's name, likewise.
        modules: accepted ``module_id``; ``None`` for the word ``any``.

    Raises:
        BadField: a list that is not sorted and distinct, or holds what is no digest.
    """

    pcr3: tuple[str, ...] | None = None
    pcr4: tuple[str, ...] | None = None
    modules: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("pcr3", "pcr4"):
            for value in getattr(self, name) or ():
                Fields({name: value}, "terms of nitro").hex(name, size=PCR_BYTES)
        for accepted in (self.pcr3, self.pcr4, self.modules):
            if accepted is not None and list(accepted) != sorted(set(accepted)):
                raise BadField("a list in the terms of nitro is not sorted and distinct")

    def to_json(self) -> dict[str, JSON]:
        named = {"modules": self.modules, "pcr3": self.pcr3, "pcr4": self.pcr4}
        return {name: ANY if accepted is None else list(accepted) for name, accepted in named.items()}

    @classmethod
    def from_json(cls, value: object) -> Terms:
        """Raises BadField."""
        f = Fields(value, "terms of nitro")
        found = cls(_accepted(f, "pcr3"), _accepted(f, "pcr4"), _accepted(f, "modules"))
        f.end()
        return found


def _accepted(f: Fields, name: str) -> tuple[str, ...] | None:
    """``None`` where a member is the word ``any``; else its list of at most 1024 texts. Raises BadField."""
    value = f.any(name)
    if value == ANY:
        return None
    return Fields({name: value}, "terms of nitro").items(
        name, lambda v: Fields({"item": v}, name).text("item", max_chars=128)
    )


@dataclass(frozen=True, slots=True)
class NitroVerified:
    """An attestation document whose signature and certificates hold. Made by :func:`verify` alone.

    Attributes:
        claims: the document.
        others: as in ``evidence.Verified``.
    """

    claims: Claims
    valid_until: int
    collateral: tuple[str, ...]
    maker: InitVar[object]

    def __post_init__(self, maker: object) -> None:
        if maker is not _MAKER:
            raise TypeError("only verify() makes a NitroVerified")

    @property
    def report_data(self) -> bytes:
        """The document's ``user_data``."""
        return self.claims.user_data or b""

    @property
    def nonce(self) -> bytes:
        """The document's ``nonce``, a slot of its own: it binds nothing, and is compared with a bare nonce (A6)."""
        return self.claims.nonce or b""

    @property
    def measurement(self) -> Measurement:
        """The registers of the image, its kernel, its programs, and who signed the image."""
        return Measurement(PLATFORM, {f"pcr{n}": f"sha384:{self.claims.pcrs[n].hex()}" for n in MEASURED})

    @property
    def debug(self) -> bool:
        return self.claims.debug

    @property
    def produced_at(self) -> int:
        return self.claims.timestamp_ms // 1000

    @property
    def vector(self) -> TrustVector:
        """Nitro hardware signed it. Its memory is the hypervisor's to keep from the parent instance: nothing is claimed of
        encryption, and the worst of an enclave that can be debugged."""
        opaque = TrustVector().runtime_opaque if not self.debug else UNACCEPTABLE
        return TrustVector(instance_identity=AFFIRMED, hardware=AFFIRMED, runtime_opaque=opaque)

    @property
    def machine(self) -> None:
        """The document names an instance (PCR4, a matter of the terms), and no machine."""
        return

    def binds(self, report_data: bytes) -> bool:
        """Whether these 64 bytes are the document's ``user_data``."""
        return self.claims.user_data == report_data


def _path(claims: Claims) -> tuple[Certificate, ...]:
    """Leaf first, root last. Raises BadCertificate."""
    return tuple(Certificate(der) for der in (claims.certificate, *reversed(claims.cabundle)))


def _signing_key(certificate: Certificate) -> ec.EllipticCurvePublicKey:
    """Raises BadCertificate: not a P-384 key, or not one for signing."""
    key = certificate.public_key
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise BadCertificate("the document's certificate is not for a P-384 key")
    try:
        usage = certificate.extensions().get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        raise BadCertificate("the document's certificate does not say what its key is for") from None
    if not usage.digital_signature or usage.key_cert_sign:
        raise BadCertificate("the document's certificate is not for a key that signs documents")
    return key


def _require_signed(claims: Claims, key: ec.EllipticCurvePublicKey) -> None:
    """Raises EvidenceForged."""
    r, s = (int.from_bytes(half, "big") for half in (claims.signature[:48], claims.signature[48:]))
    try:
        key.verify(encode_dss_signature(r, s), claims.signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature as error:
        raise EvidenceForged("the document is not signed by the key of its certificate") from error


def verify(
    evidence: Evidence,
    endorsements: Endorsements,  # noqa: ARG001 - the document carries its own certificates
    *,
    roots: Roots,
    at: int,  # noqa: ARG001 - the certificates are judged at the document's time, and its age by the appraisal
    transcript: Transcript,
) -> NitroVerified:
    """The one maker of a ``NitroVerified``: N1 to N4, in order.

    Args:
        evidence: untrusted.
        endorsements: not looked at.
        roots: the verifier's own; no certificate means that nothing verifies.
        at: the time in question, unix seconds.
        transcript: of ``STEPS``; every check is recorded in it.

    Raises:
        BadEvidence: N1.
        BadCertificate, UnknownRoot, EndorsementNotYetValid, EndorsementExpired: N2.
        BadCertificate: N3.
        EvidenceForged: N4.
    """
    number = "N1"
    try:
        claims = parse(evidence.data)
        made_at = claims.timestamp_ms // 1000
        transcript.record(number, passed=True, detail=claims.module_id)

        number = "N2"
        path = _path(claims)
        until = require_path(path, roots=roots.certificates, at=made_at)
        transcript.record(number, passed=True, detail=f"root {path[-1].key_digest}, at {made_at}")

        number = "N3"
        key = _signing_key(path[0])
        transcript.record(number, passed=True, detail=path[0].subject)

        number = "N4"
        _require_signed(claims, key)
        transcript.record(number, passed=True)
    except AttestationError as error:
        transcript.record(number, passed=False, detail=error.message, code=error.code)
        raise
    return NitroVerified(claims=claims, valid_until=until, collateral=digests(*path), maker=_MAKER)


def judge(verified: NitroVerified, terms: Terms, *, at: int, transcript: Transcript) -> TrustVector:  # noqa: ARG001
    """NT1 to NT3: what the policy asks, held against what was verified. Never raises.

    Returns:
        the vector; an enclave of another parent instance is none that the policy knows.
    """
    claims = verified.claims
    seen = ((claims.pcrs[3].hex(), terms.pcr3), (claims.pcrs[4].hex(), terms.pcr4), (claims.module_id, terms.modules))
    for (number, _), (found, accepted) in zip(TERMS_STEPS, seen, strict=True):
        transcript.record(number, accepted is None or found in accepted, found, code=TermsNotMet.code)
    if transcript.ok:
        return verified.vector
    return TrustVector(instance_identity=UNRECOGNIZED, hardware=AFFIRMED, runtime_opaque=verified.vector.runtime_opaque)
