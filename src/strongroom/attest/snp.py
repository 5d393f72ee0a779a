"""AMD SEV-SNP: is a report genuine (S1 to S9), and does it meet a policy's terms (SP1 to SP15)?

A report is signed by a key of the chip (VCEK) or of the cloud provider (VLEK), derived for one TCB; AMD's certificate says
for which. Its path ends at the ARK of the product line, which the verifier pins. See ``spec/evidence-sev-snp.md``.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass

from strongroom.errors import (
    AttestationError,
    BadCertificate,
    BadEvidence,
    EndorsementExpired,
    EndorsementMissing,
    EndorsementNotYetValid,
    EvidenceForged,
)
from strongroom.transcript import Steps, Transcript

from .endorsements import certificates, digests, revocation_lists
from .evidence import Endorsements, Evidence, Measurement, Roots
from .snp_judge import TERMS_STEPS, judge
from .snp_key import (
    KeyClaims,
    certificates_of_auxblob,
    pick_leaf,
    pick_path,
    read_key,
    require_names,
    require_signed_report,
)
from .snp_report import (
    ECDSA_P384_SHA384,
    PROCESSORS,
    REPORT_BYTES,
    SIGNED_BYTES,
    Claims,
    Processor,
    Tcb,
    parse,
)
from .snp_terms import Terms
from .vector import AFFIRMED, UNACCEPTABLE, TrustVector
from .x509 import Certificate, RevocationList, require_path

__all__ = [
    "LABEL",
    "PLATFORM",
    "REPORT_BYTES",
    "STEPS",
    "TERMS_STEPS",
    "Claims",
    "SnpVerified",
    "Terms",
    "certificates_of_auxblob",
    "judge",
    "parse",
    "verify",
]

PLATFORM = "sev_snp"
LABEL = "platform: sev_snp (AMD SEV-SNP)"
STEPS = Steps(
    "S",
    [
        "the evidence is a well-formed SEV-SNP report",
        "the report says that a VCEK or VLEK signed it, with ECDSA on P-384",
        "a certificate of such a key came along, with those above it",
        "they lead to a pinned AMD root, by AMD's names for keys of that kind",
        "the root's revocation list is current and names none of them",
        "the certificate is for the processor's product line",
        "the certificate is for the TCB that the report states",
        "the certificate is for the report's chip, or for a cloud provider",
        "the report is signed by the certified key",
    ],
)
_MAKER = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpVerified:
    """A report that AMD's hardware signed. Made by :func:`verify` alone; attributes as in ``evidence.Verified``, and:

    Attributes:
        claims: the report.
        key: what AMD's certificate says of the key that signed it.
        processor: which; in version 2 of the report, the plain one of the certificate's product line.
        current_tcb, reported_tcb, committed_tcb, launch_tcb: the TCB that runs, that the host lets the firmware state,
            below which it cannot be taken back, and that ran when the guest was launched.
    """

    claims: Claims
    key: KeyClaims
    processor: Processor
    current_tcb: Tcb
    reported_tcb: Tcb
    committed_tcb: Tcb
    launch_tcb: Tcb
    measurement: Measurement
    valid_until: int
    collateral: tuple[str, ...]
    maker: InitVar[object]

    def __post_init__(self, maker: object) -> None:
        if maker is not _MAKER:
            raise TypeError("only verify() makes an SnpVerified")

    @property
    def report_data(self) -> bytes:
        return self.claims.report_data

    @property
    def debug(self) -> bool:
        return self.claims.debug

    @property
    def produced_at(self) -> None:
        """A report says nothing of when it was made."""
        return

    @property
    def machine(self) -> str | None:
        """The chip, as AMD's certificate names it; ``None`` where the report masks it, and of a VLEK."""
        if self.key.chip is None or not any(self.claims.chip_id):
            return None
        return f"chip:{self.key.chip.hex()}"

    def binds(self, report_data: bytes) -> bool:
        """Whether these 64 bytes are what the guest had signed."""
        return self.claims.report_data == report_data

    @property
    def vector(self) -> TrustVector:
        """A genuine processor, whose memory nobody reads unless debugging is on; :func:`judge` claims the rest."""
        return TrustVector(instance_identity=AFFIRMED, runtime_opaque=UNACCEPTABLE if self.debug else AFFIRMED)


def verify(evidence: Evidence, endorsements: Endorsements, *, roots: Roots, at: int, transcript: Transcript) -> SnpVerified:
    """The one maker of an ``SnpVerified``: S1 to S9, in order.

    Args:
        evidence: untrusted; a report of 1184 bytes, nothing before or after it.
        endorsements: untrusted; the certificates of the key, its issuer and the root, and a revocation list of the root's.
        roots: the pinned ARKs; no digest means that nothing verifies.
        at: the time in question, unix seconds.
        transcript: of ``STEPS``; every check is recorded in it.

    Raises:
        BadEvidence: S1, S6, S8.
        EvidenceForged: S2, S7, S8, S9.
        EndorsementMissing: S3, S5; the check is then not established.
        BadEndorsement: S3, S5.
        BadCertificate: S4, S5, S6, S9.
        UnknownRoot: S4.
        EndorsementNotYetValid, EndorsementExpired: S4, S5.
        Revoked: S5.
    """
    number = "S1"
    try:
        claims = parse(evidence.data)
        transcript.record(number, passed=True, detail=f"version {claims.version}")

        number = "S2"
        _require_signature_named(claims)
        transcript.record(number, passed=True, detail=claims.signing_key.upper())

        number = "S3"
        path = _came_along(claims, evidence.data[:SIGNED_BYTES], endorsements)
        transcript.record(number, passed=True, detail=f"certificate {path[0].digest}")

        number = "S4"
        until = require_path(path, roots=roots.certificates, at=at)
        key = read_key(path[0], claims.signing_key)
        require_names(path, key)
        transcript.record(number, passed=True, detail=f"root {path[2].key_digest}, until {until}")

        number = "S5"
        lists, current = _require_not_revoked(path, endorsements, at)
        until = min(until, current)
        transcript.record(number, passed=True, detail=f"until {current}")

        number = "S6"
        processor = _processor(claims, key)
        raw = (claims.current_tcb, claims.reported_tcb, claims.committed_tcb, claims.launch_tcb)
        running, reported, committed, launch = (Tcb.decode(one, turin=key.line == "turin") for one in raw)
        transcript.record(number, passed=True, detail=processor.name)

        number = "S7"
        if key.tcb != reported:
            raise EvidenceForged(f"the certificate is for the TCB {key.tcb}; the report states {reported}")
        transcript.record(number, passed=True, detail=str(reported))

        number = "S8"
        _require_chip(claims, key)
        transcript.record(number, passed=True, detail=key.provider or (key.chip or b"").hex())

        number = "S9"
        require_signed_report(path[0], evidence.data[:SIGNED_BYTES], claims.r, claims.s)
        transcript.record(number, passed=True)
    except AttestationError as error:
        passed = None if isinstance(error, EndorsementMissing) else False
        transcript.record(number, passed=passed, detail=error.message, code=error.code)
        raise
    return SnpVerified(
        claims=claims,
        key=key,
        processor=processor,
        current_tcb=running,
        reported_tcb=reported,
        committed_tcb=committed,
        launch_tcb=launch,
        measurement=_measurement(claims),
        valid_until=until,
        collateral=digests(*path, *lists),
        maker=_MAKER,
    )


def _require_signature_named(claims: Claims) -> None:
    """Raises EvidenceForged: the report itself says that nothing signed it, or what is no signature of AMD's."""
    if claims.unsigned or claims.signing_key == "none":
        raise EvidenceForged("the host had the firmware sign nothing")
    if claims.signature_algorithm != ECDSA_P384_SHA384:
        raise EvidenceForged(
            f"the report's signature is of algorithm {claims.signature_algorithm}, which is not ECDSA P-384"
        )


def _came_along(claims: Claims, signed: bytes, endorsements: Endorsements) -> tuple[Certificate, Certificate, Certificate]:
    """Leaf, issuer and root. Raises EndorsementMissing, BadEndorsement."""
    found = certificates(endorsements)
    return pick_path(found, pick_leaf(found, claims.signing_key, signed, claims.r, claims.s))


def _require_not_revoked(
    path: tuple[Certificate, Certificate, Certificate], endorsements: Endorsements, at: int
) -> tuple[list[RevocationList], int]:
    """Every list that names the root is the root's own, and none of them names one of the path; one must be current.

    AMD gives all VCEKs the serial number 0, so that a list can revoke an ASK and not one chip's key; what is wrong with
    a chip shows in its TCB. A list that named 0 would be believed, and revoke every chip of the line.

    Returns:
        the lists, and the last second at which a current one counts.

    Raises:
        EndorsementMissing: no list.
        BadEndorsement, BadCertificate: one is not what it says.
        EndorsementNotYetValid, EndorsementExpired: none is current.
        Revoked: one names the leaf, the issuer or the root.
    """
    root = path[-1]
    lists = [one for one in revocation_lists(endorsements) if one.issued_by(root)]
    if not lists:
        raise EndorsementMissing(f"no revocation list of {root.common_name} came along")
    counted: list[int] = []
    late: AttestationError | None = None
    for one in lists:
        try:
            counted.append(one.require_current(root, at))
        except (EndorsementNotYetValid, EndorsementExpired) as error:  # after its signature was found good
            late = error
        for certificate in path:
            one.require_not_revoked(certificate)
    if late is not None and not counted:
        raise late
    return lists, max(counted)


def _processor(claims: Claims, key: KeyClaims) -> Processor:
    """Raises BadCertificate: the certificate is another product line's. BadEvidence: a processor that is not known here."""
    if claims.version < 3:
        return PROCESSORS[key.line]
    found = claims.processor
    if found is None:
        raise BadEvidence(f"the processor with CPUID {claims.cpuid.hex()} is not known here")
    if found.line != key.line:
        raise BadCertificate(f"the certificate is for {key.line}; the report is of {found.name}")
    return found


def _require_chip(claims: Claims, key: KeyClaims) -> None:
    """Raises EvidenceForged: the certificate is another chip's."""
    if key.chip is not None and any(claims.chip_id) and claims.chip_id != key.chip.ljust(len(claims.chip_id), b"\0"):
        raise EvidenceForged("the certificate is another chip's than the report names")


def _measurement(claims: Claims) -> Measurement:
    return Measurement(
        PLATFORM,
        {
            "author_key_digest": f"sha384:{claims.author_key_digest.hex()}",
            "host_data": f"sha256:{claims.host_data.hex()}",
            "id_key_digest": f"sha384:{claims.id_key_digest.hex()}",
            "measurement": f"sha384:{claims.measurement.hex()}",
        },
    )
