"""NVIDIA's confidential GPUs and switches, verified here and not by a service: is the report genuine, is what it measures
what NVIDIA released, and is it what a policy accepts.

A device stands beside a processor, never alone: who owns the processor's evidence asked the device, and only the measured
guest knows that it is *this* device which is used. This module is the verifier of GPUs, and with other terms that of
switches (``nvidia_switch.py``).

See ``spec/evidence-nvidia.md``; the checks G1 to G11 and GT1 to GT7 are numbered as there.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from strongroom.errors import (
    AttestationError,
    BadCertificate,
    BadEndorsement,
    BadEvidence,
    EndorsementExpired,
    EndorsementMissing,
    EvidenceForged,
    MeasurementNotAccepted,
    TcbNotAccepted,
    TermsNotMet,
)
from strongroom.transcript import Steps, Transcript

from . import ocsp, rim
from .binding import gpu_nonce as bind_nonce
from .endorsements import NVIDIA_RIM, digests, of_type
from .evidence import REPORT_DATA_BYTES, Endorsements, Evidence, Measurement, Roots
from .nvidia_device import (
    PLATFORM,
    Architecture,
    Claims,
    evidence,
    from_sdk,
    parse,
)
from .nvidia_links import require_together
from .nvidia_terms import REQUIRED, Software, SwitchTerms, Terms, Versions
from .ocsp import Response, Standing
from .rim import Manifest
from .vector import AFFIRMED, APPROVED_AT_START, UNACCEPTABLE, TrustVector
from .x509 import Certificate, require_path

__all__ = [
    "LABEL",
    "PLATFORM",
    "STEPS",
    "TERMS_STEPS",
    "Architecture",
    "Claims",
    "NvidiaVerified",
    "Software",
    "Terms",
    "Versions",
    "bind_nonce",
    "evidence",
    "from_sdk",
    "judge",
    "parse",
    "require_together",
    "verify",
]

LABEL = "device: nvidia_cc (NVIDIA confidential GPU)"
DEVICE_ROOT_NAME = "NVIDIA Device Identity CA"
TOLERATED = 32  # AR4SI: hardware that is genuine, and not as well kept as it should be
DAY = 86_400
STEPS = Steps(
    "G",
    [
        "the evidence is a well-formed report of one NVIDIA device",
        "its certificates lead to the root of devices that the policy pins",
        "the report, with the nonce that was asked, is signed by the leaf's key",
        "the leaf was made for the firmware that the report names",
        "no certificate of the device is revoked, where its issuer says so",
        "reference manifests for exactly this chip, driver and VBIOS came along",
        "each manifest is signed as a whole by its signer",
        "each manifest's signer leads to the root of manifests that the policy pins",
        "no certificate of a manifest's signer is revoked, where its issuer says so",
        "no measurement is defined by both manifests, and all that are defined are in the report",
        "every measurement that is defined is the device's: secure boot is on and debugging off",
    ],
)
TERMS_STEPS = Steps(
    "GT",
    [
        "the policy accepts the architecture",
        "the policy accepts the driver's version",
        "the policy accepts the VBIOS's version",
        "the device protects the links between devices, or the policy does without",
        "every issuer says that the device's certificates stand, or the policy does without",
        "every issuer says that the signers' certificates stand, or the policy does without",
        "the manifests' signers are valid, or expired no longer ago than the policy allows",
    ],
)

_MAKER = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class NvidiaVerified:
    """A device's report that is genuine and whose measurements are those that NVIDIA released. Made by :func:`verify` alone.

    Attributes, beside those of ``evidence.Verified``:
        claims: what the device said; now it is known that it did.
        signers_until: the last second at which every signer of its manifests was valid, unix.
        unsaid_devices, unsaid_signers: certificates of which nobody said that they stand.
    """

    claims: Claims
    measurement: Measurement
    valid_until: int
    collateral: tuple[str, ...]
    signers_until: int
    unsaid_devices: tuple[str, ...]
    unsaid_signers: tuple[str, ...]
    maker: InitVar[object]

    def __post_init__(self, maker: object) -> None:
        if maker is not _MAKER:
            raise TypeError("only verify() makes an NvidiaVerified")

    @property
    def nonce(self) -> bytes:
        """The 32 bytes that somebody asked the device with."""
        return self.claims.report.nonce

    @property
    def report_data(self) -> bytes:
        """The nonce: a device has no other slot."""
        return self.nonce

    @property
    def debug(self) -> bool:
        """Never: a device that can be debugged does not measure what a manifest defines."""
        return False

    @property
    def produced_at(self) -> None:
        """A device has no clock; the nonce says how old its report can be."""
        return

    @property
    def machine(self) -> str:
        """The device's own number, which its firmware does not change. (``ueid`` is what NVIDIA's tokens say; it does.)"""
        return f"serial:{self.claims.serial.hex()}"

    @property
    def ueid(self) -> str:
        return self.claims.ueid

    @property
    def architecture(self) -> Architecture:
        return self.claims.architecture

    @property
    def driver_version(self) -> str:
        return self.claims.driver_version

    @property
    def vbios_version(self) -> str:
        return self.claims.vbios_version

    @property
    def vector(self) -> TrustVector:
        """A known maker's device that started what its maker approved. Of its memory nothing is claimed: it is kept apart,
        not encrypted, and the report does not say how."""
        return TrustVector(instance_identity=AFFIRMED, hardware=AFFIRMED, executables=APPROVED_AT_START)

    def binds(self, report_data: bytes) -> bool:
        """Whether the device was asked with the nonce that follows from these 64 bytes of the processor's."""
        return len(report_data) == REPORT_DATA_BYTES and self.nonce == bind_nonce(report_data)


class _Verification:
    """One verification under way: what is asked, and what is established so far."""

    def __init__(self, evidence: Evidence, endorsements: Endorsements, roots: Roots, at: int) -> None:
        self.evidence, self.endorsements, self.roots, self.at = evidence, endorsements, roots.certificates, at
        self.answers: tuple[Response, ...] = ()
        self.manifests: dict[str, Manifest] = {}
        self.signers_until = 0
        self.ends: list[int] = []

    def well_formed(self) -> str:
        self.claims = parse(self.evidence.data)
        c = self.claims
        if c.architecture.platform != self.evidence.platform:
            raise BadEvidence(f"a {c.architecture.platform} stands where a {self.evidence.platform} should")
        return f"{c.hardware_model}, driver {c.driver_version or 'none'}, VBIOS {c.vbios_version}"

    def certified(self) -> str:
        path = self.claims.certificates
        self.ends.append(require_path(path, roots=self.roots, at=self.at))
        if path[-1].common_name != DEVICE_ROOT_NAME:
            raise BadCertificate(f"the device comes from {path[-1].subject}, which makes no devices")
        return f"root {path[-1].key_digest}"

    def signed(self) -> str:
        report, key = self.claims.report, self.claims.certificates[0].public_key
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
            raise EvidenceForged("the leaf's key is not on P-384")
        r, s = report.signature[:48], report.signature[48:]
        der = encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
        try:
            key.verify(der, report.signed, ec.ECDSA(hashes.SHA384()))
        except InvalidSignature as error:
            raise EvidenceForged("the report is not signed by the leaf's key") from error
        return f"nonce {report.nonce.hex()}"

    def same_firmware(self) -> str:
        named, certified = self.claims.firmware_id, self.claims.certified_firmware_id
        if named is None:
            return "the report names none"
        if named != certified:
            raise EvidenceForged("the report names other firmware than the leaf was made for")
        return named.hex()

    def device_stands(self) -> str:
        self.answers = ocsp.responses(self.endorsements)
        self.device_standing = self._standing(self.claims.asked_of)
        return _said(self.device_standing)

    def _standing(self, pairs: tuple[tuple[Certificate, Certificate], ...]) -> Standing:
        found = ocsp.require_standing(pairs, self.answers, self.at)
        if found.until is not None:
            self.ends.append(found.until)
        return found

    def manifests_found(self) -> str:
        wanted = {"vbios": self.claims.vbios_version}
        if not self.claims.architecture.is_switch:
            wanted["driver"] = self.claims.driver_version
        chip = self.claims.chip.replace("_", "")
        documents = tuple(dict.fromkeys(document.data for document in of_type(self.endorsements, NVIDIA_RIM)))
        for kind, version in wanted.items():
            parsed = (rim.parse(data) for data in documents if version.encode() in data)
            found = [m for m in parsed if m.version == version and m.product.replace("_", "") == chip]
            if not found:
                raise EndorsementMissing(f"no manifest for {kind} {version} of {self.claims.chip} came along")
            if len(found) > 1:
                raise BadEndorsement(f"{len(found)} manifests for {kind} {version} of {self.claims.chip} came along")
            self.manifests[kind] = found[0]
        return ", ".join(f"{kind} {manifest.digest}" for kind, manifest in sorted(self.manifests.items()))

    def manifests_signed(self) -> str:
        for manifest in self.manifests.values():
            manifest.require_signed()
        return ""

    def signers_certified(self) -> str:
        found = [rim.require_signers(manifest, roots=self.roots, at=self.at) for manifest in self.manifests.values()]
        self.signers_until = min(signers.until for signers in found)
        self.ends.extend(signers.until for signers in found if signers.until >= self.at)  # GT7 is about the others
        return f"until {self.signers_until}"

    def signers_stand(self) -> str:
        self.signer_standing = self._standing(
            tuple(dict.fromkeys(pair for manifest in self.manifests.values() for pair in manifest.asked_of))
        )
        return _said(self.signer_standing)

    def measurements_defined(self) -> str:
        defined = [index for manifest in self.manifests.values() for index in manifest.measurements]
        twice = sorted({index for index in defined if defined.count(index) > 1})
        if twice:
            raise BadEndorsement(f"measurements are defined by both manifests: {twice}")
        if not all(manifest.measurements for manifest in self.manifests.values()):
            raise BadEndorsement("a manifest defines no measurement")
        absent = sorted(index for index in defined if index + 1 not in self.claims.report.measurements)
        if absent:
            raise MeasurementNotAccepted(f"measurements are defined that the report does not have: {absent}")
        return f"{len(defined)} of {len(self.claims.report.measurements)}"

    def measurements_equal(self) -> str:
        left_out = self.claims.left_out
        other = sorted(
            index
            for manifest in self.manifests.values()
            for index, values in manifest.measurements.items()
            if index not in left_out and self.claims.report.measurements[index + 1] not in values
        )
        if other:
            raise MeasurementNotAccepted(f"the device measured something else than its manifests define, at {other}")
        return f"all, where {sorted(left_out)} is left out: that decoder is off" if left_out else "all"

    def verified(self) -> NvidiaVerified:
        path = self.claims.certificates
        used = {a.der: a for a in (*self.device_standing.used, *self.signer_standing.used)}
        registers = {f"{kind}_manifest": manifest.digest for kind, manifest in self.manifests.items()}
        return NvidiaVerified(
            claims=self.claims,
            measurement=Measurement(self.evidence.platform, registers),
            valid_until=min(self.ends),
            collateral=digests(*path[1:], *(m.data for m in self.manifests.values()), *used),
            signers_until=self.signers_until,
            unsaid_devices=self.device_standing.unknown,
            unsaid_signers=self.signer_standing.unknown,
            maker=_MAKER,
        )


def _said(standing: Standing) -> str:
    if not standing.unknown:
        return f"until {standing.until}"
    return f"{len(standing.used)} stand; of {len(standing.unknown)} nothing is said"


def verify(
    evidence: Evidence, endorsements: Endorsements, *, roots: Roots, at: int, transcript: Transcript
) -> NvidiaVerified:
    """The one maker of an ``NvidiaVerified``: G1 to G11, in order.

    Args:
        evidence: untrusted; of a GPU or of a switch, as its platform says: the report must be of that.
        endorsements: untrusted; reference manifests and OCSP responses are read, and what else came along is left alone.
        roots: the verifier's own: the digests of the roots of devices and of manifests.
        at: the time in question, unix seconds.
        transcript: of ``STEPS``; every check is recorded in it.

    Raises:
        BadEvidence: G1.
        UnknownRoot, BadCertificate, EndorsementNotYetValid, EndorsementExpired: G2, G8 (where only the first three).
        EvidenceForged: G3, G4.
        Revoked, BadEndorsement, EndorsementNotYetValid, EndorsementExpired: G5, G9.
        EndorsementMissing, BadEndorsement: G6; BadEndorsement: G7.
        BadEndorsement, MeasurementNotAccepted: G10; MeasurementNotAccepted: G11.
    """
    found = _Verification(evidence, endorsements, roots, at)
    checks = (
        found.well_formed,
        found.certified,
        found.signed,
        found.same_firmware,
        found.device_stands,
        found.manifests_found,
        found.manifests_signed,
        found.signers_certified,
        found.signers_stand,
        found.measurements_defined,
        found.measurements_equal,
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


def tolerated_until(verified: NvidiaVerified, terms: Terms | SwitchTerms) -> int:
    """The last second at which the terms tolerate what they were judged to accept, unix."""
    return verified.signers_until + terms.signers_expired_days * DAY


def judge(verified: NvidiaVerified, terms: Terms | SwitchTerms, *, at: int, transcript: Transcript) -> TrustVector:
    """Record GT1 to GT7, and say what can be claimed. Arguments as :func:`verify`'s. Never raises."""
    software = terms.architectures.get(verified.architecture)
    transcript.record("GT1", software is not None, verified.architecture.value, code=TermsNotMet.code)

    driver, version = software.driver if software else None, verified.driver_version
    passed = driver is not None and driver.accept(version, 10) if version else software is not None
    seen = f"{version}, and {driver or 'none'} accepted" if version else "a switch has none"
    transcript.record("GT2", passed, seen, code=TcbNotAccepted.code)

    vbios = software.vbios if software else None
    passed = vbios is not None and vbios.accept(verified.vbios_version, 16)
    transcript.record("GT3", passed, f"{verified.vbios_version}, and {vbios or 'none'} accepted", code=TcbNotAccepted.code)

    open_links = verified.claims.protected_pcie
    seen = "protected PCIe: links between devices are in the clear" if open_links else "every link"
    if verified.architecture.is_switch:
        open_links, seen = False, "a switch has no say in it: GPUs encrypt what it carries, or do not"
    passed = not open_links or (isinstance(terms, Terms) and terms.protected_pcie)
    transcript.record("GT4", passed, seen, code=TermsNotMet.code)

    for number, asked, unsaid in (
        ("GT5", terms.device_revocation, verified.unsaid_devices),
        ("GT6", terms.signer_revocation, verified.unsaid_signers),
    ):
        missing = None if unsaid and asked == REQUIRED else True
        seen = f"nothing is said of {'; '.join(unsaid)}" if unsaid else "of every one"
        transcript.record(number, missing, seen, code=EndorsementMissing.code)

    late = at - verified.signers_until
    seen = f"valid until {verified.signers_until}" if late <= 0 else f"expired at {verified.signers_until}, {late} s ago"
    transcript.record("GT7", late <= terms.signers_expired_days * DAY, seen, code=EndorsementExpired.code)

    if not transcript.ok:
        return _with_hardware(UNACCEPTABLE)
    tolerated = open_links or late > 0 or verified.unsaid_devices or verified.unsaid_signers
    return _with_hardware(TOLERATED) if tolerated else verified.vector


def _with_hardware(value: int) -> TrustVector:
    return TrustVector(instance_identity=AFFIRMED, hardware=value, executables=APPROVED_AT_START)
