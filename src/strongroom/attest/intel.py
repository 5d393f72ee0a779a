"""Is a quote of Intel's genuine, and how current is the processor: Q1 to Q20, alike for TDX and SGX.

The quote itself brings the certificates of the PCK; TCB information, the QE identity, the certificate that signs both and
the two revocation lists are endorsements. Nothing is kept between two verifications: what was current a moment ago is looked
at again. See ``spec/evidence-intel.md``; the checks are numbered as there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric import ec

from strongroom.errors import (
    AttestationError,
    BadCertificate,
    BadEndorsement,
    BadEvidence,
    EndorsementExpired,
    EndorsementMissing,
    EndorsementNotYetValid,
    EvidenceForged,
    Revoked,
)
from strongroom.transcript import Steps, Transcript

from . import dcap, second_opinion
from .dcap import INTEL_QE_VENDOR, PCK_CHAIN, Quote, Tee
from .endorsements import INTEL_QE_IDENTITY, INTEL_TCB_INFO, certificates, digests, of_type, revocation_lists
from .evidence import Endorsements, Evidence, Roots
from .intel_collateral import Advisory, Level, QeIdentity, Tcb, TcbInfo, TcbStatus
from .intel_pck import PCK_EXTENSION, PckExtension
from .second_opinion import Collateral
from .vector import AFFIRMED, UNACCEPTABLE, TrustVector
from .x509 import Certificate, RevocationList, from_pem, require_path

STEPS = Steps(
    "Q",
    [
        "the evidence is one well-formed quote of this platform, and only zero bytes follow it",
        "the quote names Intel as its quoting enclave's vendor",
        "the quote is signed by its attestation key",
        "the quoting enclave's report is of that attestation key",
        "the quote brings the certificates of the PCK",
        "they lead from a PCK of Intel's to a pinned root, all valid at the time in question",
        "the quoting enclave's report is signed by the PCK",
        "the root's revocation list is current and names no issuer of the PCK",
        "the PCK issuer's revocation list is current and does not name the PCK",
        "a TCB signing certificate of Intel's leads to the same root, valid and not revoked",
        "TCB information came along for this kind of processor and platform",
        "the TCB information is signed by Intel",
        "the TCB information is current",
        "an identity came along for the quoting enclave of this platform",
        "the identity of the quoting enclave is signed by Intel",
        "the identity of the quoting enclave is current",
        "the quoting enclave is the one that Intel describes",
        "the processor, and the TDX module where there is one, reach a level that Intel lists",
        "no level that they reach is revoked",
        "no second verifier that is installed comes to another end",
    ],
)

PCK_NAME = "Intel SGX PCK Certificate"
PCK_ISSUERS = frozenset({"Intel SGX PCK Platform CA", "Intel SGX PCK Processor CA"})
TCB_SIGNER_NAME = "Intel SGX TCB Signing"
TCB_INFO_VERSION = 3
QE_IDENTITY_VERSION = 2
QE_IDS: Mapping[Tee, str] = MappingProxyType({Tee.SGX: "QE", Tee.TDX: "TD_QE"})
MAX_CANDIDATES = 8  # of one kind of Intel's endorsements: several processors of several vintages

_REPORTS = {1: "an enclave's report", 2: "a TD's report 1.0", 3: "a TD's report 1.5"}

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Processor:
    """What Intel vouches for, of a processor that signed a quote.

    Attributes:
        pck: which processor it is, and its security versions.
        tcb: how current it, its TDX module and its quoting enclave are.
        issued, next_update: of the TCB information, unix seconds.
        evaluation: the lower ``tcbEvaluationDataNumber`` of the TCB information and the QE identity.
        valid_until: the last second at which everything used is valid, unix.
        collateral: digests of the endorsements used.
        second_opinion: which other verifier said what; ``""`` when none was asked.
    """

    pck: PckExtension
    tcb: Tcb
    issued: int
    next_update: int
    evaluation: int
    valid_until: int
    collateral: tuple[str, ...]
    second_opinion: str

    @property
    def machine(self) -> str:
        """The processor's permanent identity."""
        return f"ppid:{self.pck.ppid.hex()}"

    def vector(self, *, debug: bool) -> TrustVector:
        """A genuine processor, whose memory nobody reads unless debugging is on; terms say what its TCB is worth."""
        return TrustVector(instance_identity=AFFIRMED, runtime_opaque=UNACCEPTABLE if debug else AFFIRMED)


def verify(
    tee: Tee,
    evidence: Evidence,
    endorsements: Endorsements,
    *,
    roots: Roots,
    at: int,
    transcript: Transcript,
    ask_second: bool,
) -> tuple[Quote, Processor]:
    """Q1 to Q20, in order.

    Args:
        tee: which platform's quote it must be.
        evidence: untrusted; a quote, and nothing after it but at most 4 KiB of zero bytes.
        endorsements: untrusted; TCB information, QE identity, the TCB signing certificate and two revocation lists.
        roots: the pinned roots; no digest means that nothing verifies.
        at: the time in question, unix seconds.
        transcript: of ``STEPS``; every check is recorded in it.
        ask_second: whether to ask a second verifier where one is installed.

    Raises:
        AttestationError: a leaf, as the spec page lists them by check.
    """
    found = _Verification(tee, evidence.data, endorsements, roots, at, ask_second=ask_second)
    for (number, _), step in zip(STEPS, found.steps(), strict=True):
        try:
            detail = step()
        except AttestationError as error:
            passed = None if isinstance(error, EndorsementMissing) else False
            transcript.record(number, passed=passed, detail=error.message, code=error.code)
            raise
        transcript.record(number, passed=True, detail=detail)
    return found.quote, found.processor()


class _Verification:
    """One verification under way. Each method makes one check and says what was seen; what it found, the later ones use."""

    quote: Quote
    pck: Certificate
    issuer: Certificate
    root: Certificate
    extension: PckExtension
    lists: tuple[RevocationList, ...]
    root_list: RevocationList
    issuer_list: RevocationList
    signers: list[tuple[Certificate, int]]
    info_signer: Certificate
    identity_signer: Certificate
    info: TcbInfo
    identity: QeIdentity
    qe_level: Level
    tcb: Tcb

    def __init__(
        self, tee: Tee, data: bytes, endorsements: Endorsements, roots: Roots, at: int, *, ask_second: bool
    ) -> None:
        self.tee, self.data, self.endorsements, self.roots, self.at = tee, data, endorsements, roots, at
        self.until: list[int] = []
        self.used: list[Certificate | RevocationList | bytes] = []
        self.ask_second, self.opinion = ask_second, ""

    def steps(self) -> tuple[Callable[[], str], ...]:
        """Q1 to Q20."""
        return (
            self.well_formed,
            self.vendor,
            self.signed,
            self.bound,
            self.brings_certificates,
            self.leads_to_root,
            self.qe_signed,
            self.issuer_not_revoked,
            self.pck_not_revoked,
            self.tcb_signer,
            self.tcb_info_came,
            self.tcb_info_signed,
            self.tcb_info_current,
            self.identity_came,
            self.identity_signed,
            self.identity_current,
            self.qe_described,
            self.level_reached,
            self.level_not_revoked,
            self.second_agrees,
        )

    def well_formed(self) -> str:
        self.quote = dcap.parse(self.data)
        if self.quote.tee is not self.tee:
            raise BadEvidence(f"a quote of {self.quote.tee.name}, where one of {self.tee.name} is expected")
        said = f"version {self.quote.version}, {_REPORTS[self.quote.body_type]}"
        return f"{said}, {self.quote.padding} zero bytes after it" if self.quote.padding else said

    def vendor(self) -> str:
        if self.quote.qe_vendor != INTEL_QE_VENDOR:
            raise BadEvidence(f"the quoting enclave's vendor is {self.quote.qe_vendor.hex()}, which is not Intel")
        return self.quote.qe_vendor.hex()

    def signed(self) -> str:
        self.quote.require_signed()
        return ""

    def bound(self) -> str:
        self.quote.require_bound()
        return ""

    def brings_certificates(self) -> str:
        kind = self.quote.certification_type
        if kind != PCK_CHAIN:
            raise BadEvidence(f"certification data of type {kind}, where only 5 (the certificates of the PCK) is supported")
        path = from_pem(self.quote.certification_data)
        if len(path) != 3:
            raise BadCertificate(f"{len(path)} certificates, where a PCK, its issuer and a root are expected")
        self.pck, self.issuer, self.root = path
        return f"PCK certificate {self.pck.digest}"

    def leads_to_root(self) -> str:
        path = (self.pck, self.issuer, self.root)
        self.until.append(require_path(path, roots=self.roots.certificates, at=self.at))
        if self.pck.common_name != PCK_NAME or self.issuer.common_name not in PCK_ISSUERS:
            raise BadCertificate(f"{self.pck.subject}, issued by {self.issuer.subject}, is no PCK of Intel's")
        extension = self.pck.extension(PCK_EXTENSION)
        if extension is None:
            raise BadCertificate("the PCK certificate does not say which processor's it is")
        self.extension = PckExtension.parse(extension)
        return f"root {self.root.key_digest}, until {self.until[-1]}"

    def qe_signed(self) -> str:
        otherwise = "the quoting enclave's report is not signed by the PCK"
        dcap.require_signature(_p256(self.pck), self.quote.qe_signature, self.quote.qe_report, otherwise)
        return ""

    def issuer_not_revoked(self) -> str:
        self.lists = revocation_lists(self.endorsements)
        self.root_list = self._list_of(self.root)
        self.root_list.require_not_revoked(self.root)
        self.root_list.require_not_revoked(self.issuer)
        return f"until {self.until[-1]}"

    def pck_not_revoked(self) -> str:
        self.issuer_list = self._list_of(self.issuer)
        self.issuer_list.require_not_revoked(self.pck)
        return f"until {self.until[-1]}"

    def _list_of(self, issuer: Certificate) -> RevocationList:
        own = [one for one in self.lists if one.issued_by(issuer)]
        found = self._newest(own, lambda one: one.this_update, f"revocation list of {issuer.common_name}")
        self.until.append(found.require_current(issuer, self.at))
        self.used.append(found)
        return found

    def tcb_signer(self) -> str:
        """Intel has had two such certificates at a time: whichever passes may sign. Where none does, the newest one's
        problem is said."""
        named = [one for one in certificates(self.endorsements) if one.common_name == TCB_SIGNER_NAME]
        problem: AttestationError | None = None
        self.signers = []
        for one in sorted(named, key=lambda one: one.not_before, reverse=True)[:MAX_CANDIDATES]:
            try:
                # The root's own signature is good since Q6, and it is the same certificate.
                until = require_path((one, self.root), roots=self.roots.certificates, at=self.at, self_signed=False)
                self.root_list.require_not_revoked(one)
                _p256(one)
                self.signers.append((one, until))
            except AttestationError as error:
                problem = problem or error
        if not self.signers:
            raise problem or EndorsementMissing("no TCB signing certificate of Intel's came along")
        return ", ".join(one.digest for one, _ in self.signers)

    def tcb_info_came(self) -> str:
        read = [TcbInfo.parse(data) for data in self._answers(INTEL_TCB_INFO)]
        wanted = (self.tee.name, TCB_INFO_VERSION, self.extension.fmspc, self.extension.pce_id)
        own = [one for one in read if (one.id, one.version, one.fmspc, one.pce_id) == wanted]
        about = f"{self.tee.name} processors of FMSPC {self.extension.fmspc.hex()} and PCE {self.extension.pce_id.hex()}"
        if read and not own:
            seen = (
                f"{read[0].id or 'SGX'} version {read[0].version}, FMSPC {read[0].fmspc.hex()}, PCE {read[0].pce_id.hex()}"
            )
            raise BadEndorsement(f"no TCB information of version {TCB_INFO_VERSION} for {about}, but for {seen}")
        self.info = self._newest(own, lambda one: one.issued, f"TCB information for {about}")
        return f"FMSPC {self.info.fmspc.hex()}, evaluation {self.info.evaluation}"

    def tcb_info_signed(self) -> str:
        self.info_signer = self._signed(self.info, "TCB information")
        return f"by {self.info_signer.digest}"

    def tcb_info_current(self) -> str:
        return self._current(self.info, "TCB information")

    def identity_came(self) -> str:
        read = [QeIdentity.parse(data) for data in self._answers(INTEL_QE_IDENTITY)]
        own = [one for one in read if (one.id, one.version) == (QE_IDS[self.tee], QE_IDENTITY_VERSION)]
        if read and not own:
            raise BadEndorsement(f"no identity of {QE_IDS[self.tee]}, but of {read[0].id} in version {read[0].version}")
        self.identity = self._newest(own, lambda one: one.issued, f"identity of {QE_IDS[self.tee]}")
        return f"{self.identity.id}, evaluation {self.identity.evaluation}"

    def identity_signed(self) -> str:
        self.identity_signer = self._signed(self.identity, "identity of the quoting enclave")
        return f"by {self.identity_signer.digest}"

    def identity_current(self) -> str:
        return self._current(self.identity, "identity of the quoting enclave")

    def _answers(self, media_type: str) -> list[bytes]:
        """The answers of Intel's PCS of one type, distinct. Raises BadEndorsement: more than anybody needs."""
        found = list(dict.fromkeys(one.data for one in of_type(self.endorsements, media_type)))
        if len(found) > MAX_CANDIDATES:
            raise BadEndorsement(f"{len(found)} endorsements of type {media_type}, where at most {MAX_CANDIDATES} are read")
        return found

    def _newest(self, found: Iterable[_T], issued: Callable[[_T], int], what: str) -> _T:
        """What was issued last, but not after the time in question where there is such a one."""
        newest = max(found, key=lambda one: (issued(one) <= self.at, issued(one)), default=None)
        if newest is None:
            raise EndorsementMissing(f"no {what} came along")
        return newest

    def _signed(self, document: TcbInfo | QeIdentity, what: str) -> Certificate:
        for one, until in self.signers:
            try:
                require_document_signed(one, document.signature, document.signed)
            except EvidenceForged:
                continue
            self.until.append(until)
            self.used += [one, document.document]
            return one
        raise BadEndorsement(f"the {what} is not signed by Intel's TCB signing certificate")

    def _current(self, document: TcbInfo | QeIdentity, what: str) -> str:
        if self.at < document.issued:
            raise EndorsementNotYetValid(f"the {what} is from {document.issued}, after {self.at}")
        if self.at > document.next_update:
            raise EndorsementExpired(f"the {what} counted until {document.next_update}, before {self.at}")
        self.until.append(document.next_update)
        return f"from {document.issued} until {document.next_update}"

    def qe_described(self) -> str:
        qe = self.quote.qe
        self.qe_level = self.identity.level_of(qe)
        return f"product {qe.isv_prod_id}, version {qe.isv_svn}: {self.qe_level.status}"

    def level_reached(self) -> str:
        td = self.quote.td if self.tee is Tee.TDX else None
        self.tcb = self.info.tcb_of(self.extension, td, self.qe_level)
        return f"{self.tcb.status}, {named(self.tcb.advisories)}"

    def level_not_revoked(self) -> str:
        if self.tcb.status is TcbStatus.REVOKED:
            raise Revoked(f"Intel has revoked the TCB that this machine has, {named(self.tcb.advisories)}")
        return ""

    def second_agrees(self) -> str:
        if not self.ask_second:
            return "none was asked"
        collateral = Collateral(
            root=self.root,
            root_list=self.root_list,
            issuer=self.issuer,
            issuer_list=self.issuer_list,
            info_signer=self.info_signer,
            info=self.info,
            identity_signer=self.identity_signer,
            identity=self.identity,
        )
        self.opinion = second_opinion.require_same(self.data, self.quote, collateral, self.tcb, self.at)
        return self.opinion or "none is installed"

    def processor(self) -> Processor:
        return Processor(
            pck=self.extension,
            tcb=self.tcb,
            issued=self.info.issued,
            next_update=self.info.next_update,
            evaluation=min(self.info.evaluation, self.identity.evaluation),
            valid_until=min(self.until),
            collateral=digests(*self.used),
            second_opinion=self.opinion,
        )


def _p256(certificate: Certificate) -> ec.EllipticCurvePublicKey:
    key = certificate.public_key
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise BadCertificate(f"the key of {certificate.subject} is not on P-256")
    return key


@lru_cache(maxsize=MAX_CANDIDATES)
def require_document_signed(signer: Certificate, signature: bytes, signed: bytes) -> None:
    """Require Intel's signature under one of its documents; as with certificates, one that was good stays so."""
    dcap.require_signature(_p256(signer), signature, signed, "")


def named(advisories: Iterable[Advisory]) -> str:
    """The advisories' numbers, for people."""
    ids = sorted({one.id for one in advisories})
    return ", ".join(ids) if ids else "no advisories"
