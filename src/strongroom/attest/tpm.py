"""A TPM 2.0 of its own: measured boot, signed by an attestation key that the TPM's maker or the cloud's vouches for.

It says what a machine booted. It does not protect the machine's memory from who owns the machine, and the label says so.

See ``spec/evidence-tpm.md``; the checks M1 to M9 and the terms MT1 to MT7 are numbered as there.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field

from strongroom import wire
from strongroom.errors import AttestationError, BadEvidence, EndorsementMissing, TermsNotMet, WireError
from strongroom.transcript import Steps, Transcript
from strongroom.wire import JSON, Fields

from . import endorsements as documents
from . import tpm_quote
from .evidence import Endorsements, Evidence, Measurement, Roots
from .tpm2 import Public, PublicKey
from .tpm_key import (
    ALTERNATIVE_NAME,
    PURPOSES,
    certificate_of,
    key_info,
    path_of,
    read_key,
    require_attestation_key,
    require_scheme,
    require_unrevoked,
)
from .tpm_quote import Quote, QuoteTerms
from .vector import AFFIRMED, UNACCEPTABLE, TrustVector
from .x509 import require_path

PLATFORM = "tpm"
LABEL = "platform: tpm (TPM 2.0: measured boot; memory is not protected from the machine's owner)"
FORMAT = "strongroom.tpm.v1"
MAX_TPM_BYTES = 16 << 10
STEPS = Steps(
    "M",
    [
        "the evidence is a well-formed TPM quote",
        *tpm_quote.STEPS,
        "a certificate of the attestation key came along",
        "the certificate leads to a root that the policy pins, at the time in question",
        "no revocation list that came along names a certificate of that path",
        "the key was made in its TPM and signs only what that TPM makes",
    ],
)
TERMS_STEPS = Steps("MT", [*tpm_quote.TERMS_STEPS, "every certificate that names a revocation list was held against it"])

_MAKER = object()


@dataclass(frozen=True, slots=True)
class Terms:
    """What a policy asks of a TPM.

    Args:
        quote: what it asks of the quote.
        revocation: whether every certificate that names a revocation list must have been held against a current one.
    """

    quote: QuoteTerms = field(default_factory=QuoteTerms)
    revocation: bool = True

    def to_json(self) -> dict[str, JSON]:
        return {**self.quote.to_json(), "revocation": self.revocation}

    @classmethod
    def from_json(cls, value: object) -> Terms:
        """Raises BadField."""
        f = Fields(value, "terms of tpm")
        found = cls(QuoteTerms.from_fields(f), f.boolean("revocation"))
        f.end()
        return found


@dataclass(frozen=True, slots=True)
class Claims:
    """A quote and the key that is said to have signed it. **Untrusted**: :func:`verify` says whether a TPM did.

    Args:
        quote: with its registers.
        public: the key as its TPM describes it (TPMT_PUBLIC); empty where only ``key_info`` is at hand.
        parent: the qualified name, or the handle, of what the key was made under; with ``public``, else empty.
        key_info: the key as a SubjectPublicKeyInfo, where nobody kept ``public``; its certificate must then call it an
            attestation key.

    Attributes:
        described: ``public``, read, or ``None``.
        key: the key.

    Raises:
        BadEvidence: it cannot be read.
    """

    quote: Quote
    public: bytes = b""
    parent: bytes = b""
    key_info: bytes = b""
    described: Public | None = field(init=False, repr=False, compare=False)
    key: PublicKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if bool(self.public) == bool(self.key_info) or (self.public and len(self.parent) not in {4, 34, 50, 66}):
            raise BadEvidence("a key is described by the TPM, under a parent, or by nobody")
        if self.key_info and self.parent:
            raise BadEvidence("a key that no TPM describes has no parent")
        described = Public.parse(self.public) if self.public else None
        object.__setattr__(self, "described", described)
        object.__setattr__(self, "key", described.key if described else read_key(self.key_info))

    def encode(self) -> bytes:
        """The canonical form."""
        key: dict[str, JSON] = {"spki": wire.b64(self.key_info)}
        if self.public:
            key = {"parent": self.parent.hex(), "public": wire.b64(self.public)}
        return wire.encode({"format": FORMAT, "key": key, **self.quote.members()})

    def evidence(self) -> Evidence:
        return Evidence(PLATFORM, self.encode())


def _parent(text: str) -> bytes:
    return Fields({"parent": text}, "TPM evidence.key").hex("parent", size=len(text) // 2)


def parse(data: bytes) -> Claims:
    """What TPM evidence says, believed by nobody yet. Raises BadEvidence."""
    try:
        f = Fields(wire.decode(data, max_bytes=MAX_TPM_BYTES), "TPM evidence")
        f.literal("format", FORMAT)
        g = Fields(f.any("key"), "TPM evidence.key")
        public = parent = spki = b""
        if g.has("spki"):
            spki = g.base64("spki", max_bytes=1024)
        else:
            public = g.base64("public", max_bytes=1024)
            parent = _parent(g.text("parent", max_chars=132))
        g.end()
        found = Claims(Quote.from_fields(f), public, parent, spki)
        f.end()
    except WireError as error:
        raise BadEvidence(f"not TPM evidence: {error}") from error
    return found


@dataclass(frozen=True, slots=True)
class TpmVerified:
    """A quote whose signature and whose key's certificates hold. Made by :func:`verify` alone.

    Attributes:
        quote: the quote and its registers.
        unlisted: certificates that name a revocation list which did not come along, by their subjects.
        others: as in ``evidence.Verified``.
    """

    quote: Quote
    machine: str
    valid_until: int
    collateral: tuple[str, ...]
    unlisted: tuple[str, ...]
    maker: InitVar[object]

    def __post_init__(self, maker: object) -> None:
        if maker is not _MAKER:
            raise TypeError("only verify() makes a TpmVerified")

    @property
    def report_data(self) -> bytes:
        """The quote's ``extraData``: SHA-256 of what the enclave chose."""
        return self.quote.attest.extra_data

    @property
    def measurement(self) -> Measurement:
        """Every register that is quoted."""
        return Measurement(PLATFORM, self.quote.registers())

    @property
    def debug(self) -> bool:
        """A TPM has no such mode; that the machine's owner reads its memory is what the label says."""
        return False

    @property
    def produced_at(self) -> None:
        """A TPM knows how long it has been on, and not what time it is: the nonce alone makes a quote fresh."""
        return

    @property
    def vector(self) -> TrustVector:
        """The TPM is genuine. Nothing is claimed of the memory."""
        return TrustVector(instance_identity=AFFIRMED, hardware=AFFIRMED)

    def binds(self, report_data: bytes) -> bool:
        """Whether the TPM was asked with the SHA-256 of these 64 bytes."""
        return self.quote.binds(report_data)


def verify(evidence: Evidence, endorsements: Endorsements, *, roots: Roots, at: int, transcript: Transcript) -> TpmVerified:
    """The one maker of a ``TpmVerified``: M1 to M9, in order.

    Args:
        evidence: untrusted.
        endorsements: untrusted; certificates of the attestation key and of its issuers up to the root, and revocation lists.
        roots: the verifier's own; no certificate means that nothing verifies.
        at: the time in question, unix seconds.
        transcript: of ``STEPS``; every check is recorded in it.

    Raises:
        BadEvidence: M1, M2.
        EvidenceForged: M2 to M5, M9.
        EndorsementMissing: M6, not established; M7, an issuer is missing.
        BadEndorsement: M6 to M8.
        BadCertificate, UnknownRoot, EndorsementNotYetValid, EndorsementExpired: M7.
        BadCertificate, Revoked, EndorsementNotYetValid, EndorsementExpired: M8.
        BadCertificate: M9.
    """
    number = "M1"
    try:
        claims = parse(evidence.data)
        quote = claims.quote
        transcript.record(number, passed=True, detail=quote.seen)

        number = "M2"
        quote.require_made_by_tpm()
        transcript.record(number, passed=True)

        number = "M3"
        require_scheme(claims.described, quote.signed)
        quote.require_signed_by(claims.key)
        spki = wire.digest(key_info(claims.key))
        transcript.record(number, passed=True, detail=f"attestation key {spki}")

        number = "M4"
        quote.require_selected()
        transcript.record(number, passed=True, detail=quote.seen)

        number = "M5"
        quote.require_digest()
        transcript.record(number, passed=True)

        number = "M6"
        pool = documents.certificates(endorsements)
        leaf = certificate_of(claims.key, pool, at)
        transcript.record(number, passed=True, detail=leaf.subject)

        number = "M7"
        path = path_of(leaf, pool)
        # The purposes are looked at in M9; the alternative name says which TPM it is, and nothing is decided by it.
        require_path(path, roots=roots.certificates, at=at, critical=(ALTERNATIVE_NAME, PURPOSES))
        transcript.record(number, passed=True, detail=f"root {path[-1].key_digest}")

        number = "M8"
        used, unlisted, until = require_unrevoked(path, documents.revocation_lists(endorsements), at)
        transcript.record(number, passed=True, detail=f"{len(used)} lists; held against none: {len(unlisted)}")

        number = "M9"
        seen = require_attestation_key(claims.described, claims.parent, quote.attest.qualified_signer, path)
        transcript.record(number, passed=True, detail=seen)
    except AttestationError as error:
        missing = isinstance(error, EndorsementMissing)
        transcript.record(number, passed=None if missing else False, detail=error.message, code=error.code)
        raise
    return TpmVerified(
        quote=quote,
        machine="ak:" + spki.removeprefix("sha256:"),
        valid_until=until,
        collateral=documents.digests(*path, *used),
        unlisted=tuple(unlisted),
        maker=_MAKER,
    )


def judge(verified: TpmVerified, terms: Terms, *, at: int, transcript: Transcript) -> TrustVector:  # noqa: ARG001
    """MT1 to MT7: what the policy asks, held against what was verified. Never raises.

    Returns:
        the vector: contraindicated for the hardware where the quote falls short, for the instance where a list does.
    """
    outcomes = terms.quote.judge(verified.quote)
    listed = not verified.unlisted or not terms.revocation
    outcomes.append((listed, f"held against no list: {'; '.join(verified.unlisted) or 'none'}"))
    for (number, _), (holds, seen) in zip(TERMS_STEPS, outcomes, strict=True):
        transcript.record(number, holds, seen, code=TermsNotMet.code)
    if transcript.ok:
        return verified.vector
    return TrustVector(
        instance_identity=AFFIRMED if listed else UNACCEPTABLE,
        hardware=AFFIRMED if all(holds for holds, _ in outcomes[:-1]) else UNACCEPTABLE,
    )
