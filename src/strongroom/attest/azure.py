"""Azure's confidential machines: a virtual TPM in the guest, kept by a paravisor that the processor's report vouches for.

The paravisor (Azure calls it HCL) runs before the guest and above it, on SEV-SNP at VMPL 0. It gives the guest a TPM, and
puts the digest of its *runtime data*, which name the TPM's attestation key, where a guest's own report would have report
data. So: hardware report, runtime data, attestation key, quote, nonce.

See ``spec/evidence-azure-vtpm.md``; the checks Z1 to Z7 and the terms ZT1 to ZT9 are numbered as there.
"""

from __future__ import annotations

import hashlib
from dataclasses import InitVar, dataclass, field, replace
from typing import Any, ClassVar, Self

from strongroom import wire
from strongroom.errors import (
    AttestationError,
    BadEvidence,
    BadField,
    EndorsementMissing,
    EvidenceForged,
    TermsNotMet,
)
from strongroom.transcript import Check, Status, Steps, Transcript
from strongroom.wire import JSON, Fields

from . import tpm_quote
from .azure_claims import FORMAT, HASHES, MAX_AZURE_BYTES, MAX_HARDWARE_BYTES, Claims, RuntimeData, parse, unb64url
from .evidence import Endorsements, Evidence, Measurement, Roots, Verified, Verifier, tolerated
from .registry import verifier
from .tpm_key import key_info
from .tpm_quote import QuoteTerms
from .vector import UNACCEPTABLE, TrustVector

__all__ = [
    "AZURE_SNP",
    "AZURE_TDX",
    "FORMAT",
    "HASHES",
    "MAX_AZURE_BYTES",
    "MAX_HARDWARE_BYTES",
    "AzurePlatform",
    "AzureTerms",
    "AzureVerified",
    "Claims",
    "RuntimeData",
    "SnpTerms",
    "TdxTerms",
    "parse",
    "unb64url",
]

PARAVISOR_VMPL = 0
STATIC_PCRS = 16  # registers 0 to 15 are reset by a start of the machine alone; the others by whoever is in it
STEPS = Steps(
    "Z",
    [
        "the evidence is a well-formed quote with the paravisor's runtime data",
        "the hardware's report passes every check of its platform",
        "the hardware's report holds the digest of the runtime data",
        *tpm_quote.STEPS,
    ],
)
TERMS_STEPS = Steps(
    "ZT",
    [
        "the hardware meets the policy's terms for it",
        *tpm_quote.TERMS_STEPS,
        "the machine starts with secure boot, if the policy asks for it",
        "the machine has no console, if the policy asks for none",
    ],
)
_MAKER = object()


def _hardware(name: str) -> Verifier:
    found = verifier(name)
    assert found is not None  # both names are the registry's own
    return found


@dataclass(frozen=True, slots=True)
class AzureTerms:
    """What a policy asks of an Azure machine.

    Args:
        hardware: the terms of the platform beneath; its own strict ones where nothing is said.
        quote: what it asks of the quote.
        secure_boot: whether the machine must start only what is signed.
        console: whether a console is tolerated; Azure's machines come with one, which shows a log-in and no memory.
    """

    HARDWARE: ClassVar[str]
    hardware: Any = None
    quote: QuoteTerms = field(default_factory=QuoteTerms)
    secure_boot: bool = True
    console: bool = True

    def __post_init__(self) -> None:
        if self.hardware is None:
            object.__setattr__(self, "hardware", _hardware(self.HARDWARE).Terms())

    def to_json(self) -> dict[str, JSON]:
        return {
            "console": self.console,
            "hardware": self.hardware.to_json(),
            "quote": self.quote.to_json(),
            "secure_boot": self.secure_boot,
        }

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Raises BadField."""
        f = Fields(value, "terms of an Azure machine")
        found = cls(
            hardware=_hardware(cls.HARDWARE).Terms.from_json(f.any("hardware")),
            quote=QuoteTerms.from_json(f.any("quote")),
            secure_boot=f.boolean("secure_boot"),
            console=f.boolean("console"),
        )
        f.end()
        return found


class SnpTerms(AzureTerms):
    """Raises BadField: privilege levels other than the paravisor's. Above it the guest chooses what a report holds."""

    __slots__ = ()
    HARDWARE = "sev_snp"

    def __post_init__(self) -> None:
        AzureTerms.__post_init__(self)
        if not self.hardware.vmpls <= {PARAVISOR_VMPL}:
            raise BadField("terms of an Azure machine: a paravisor's report is from VMPL 0, and from no other")


class TdxTerms(AzureTerms):
    __slots__ = ()
    HARDWARE = "tdx"


@dataclass(frozen=True, slots=True)
class AzureVerified:
    """A quote that leads to genuine hardware. Made by :meth:`AzurePlatform.verify` alone.

    Attributes:
        platform: ``azure_snp`` or ``azure_tdx``.
        claims: the quote, its registers and the runtime data.
        hardware: what the platform beneath found signed.
        checks: that platform's own checks, each passed.
        others: as in ``evidence.Verified``.
    """

    platform: str
    claims: Claims
    hardware: Verified
    checks: tuple[Check, ...]
    maker: InitVar[object]

    def __post_init__(self, maker: object) -> None:
        if maker is not _MAKER:
            raise TypeError("only verify() makes an AzureVerified")

    @property
    def report_data(self) -> bytes:
        """The quote's ``extraData``: SHA-256 of what the enclave chose."""
        return self.claims.quote.attest.extra_data

    @property
    def measurement(self) -> Measurement:
        """The hardware's registers (the paravisor), and of the virtual TPM's those that only a start resets (the guest)."""
        registers = self.claims.quote.registers(below=STATIC_PCRS)
        return Measurement(self.platform, {**self.hardware.measurement.registers, **registers})

    @property
    def debug(self) -> bool:
        return self.hardware.debug

    @property
    def produced_at(self) -> None:
        """Neither the hardware nor the TPM says what time it is: the nonce alone makes a quote fresh."""
        return

    @property
    def valid_until(self) -> int:
        return self.hardware.valid_until

    @property
    def collateral(self) -> tuple[str, ...]:
        return self.hardware.collateral

    @property
    def vector(self) -> TrustVector:
        return self.hardware.vector

    @property
    def machine(self) -> str | None:
        """The hardware's."""
        return self.hardware.machine

    def binds(self, report_data: bytes) -> bool:
        """Whether the virtual TPM was asked with the SHA-256 of these 64 bytes."""
        return self.claims.quote.binds(report_data)


@dataclass(frozen=True, slots=True)
class AzurePlatform:
    """What verifies one of the two (a ``Verifier``).

    Args:
        PLATFORM: its name.
        LABEL: how to name it to people.
        HARDWARE: the platform beneath.
        Terms: its class of terms.
    """

    PLATFORM: str
    LABEL: str
    HARDWARE: str
    Terms: type[AzureTerms]

    @property
    def STEPS(self) -> Steps:  # noqa: N802 - as of every platform
        return STEPS

    @property
    def TERMS_STEPS(self) -> Steps:  # noqa: N802 - as of every platform
        return TERMS_STEPS

    def parse(self, data: bytes) -> Claims:
        """What Azure's evidence says, believed by nobody yet. Raises BadEvidence."""
        return parse(data)

    def verify(
        self, evidence: Evidence, endorsements: Endorsements, *, roots: Roots, at: int, transcript: Transcript
    ) -> AzureVerified:
        """The one maker of an ``AzureVerified``: Z1 to Z7, in order.

        Args:
            evidence: untrusted.
            endorsements: untrusted; those of the platform beneath.
            roots: the verifier's own, of the hardware's vendor.
            at: the time in question, unix seconds.
            transcript: of ``STEPS``; every check is recorded in it.

        Raises:
            BadEvidence: Z1, Z4.
            AttestationError: Z2, a leaf, as the platform beneath raises it; not established where an endorsement is missing.
            EvidenceForged: Z3 to Z7.
        """
        number = "Z1"
        try:
            claims = parse(evidence.data)
            quote = claims.quote
            transcript.record(number, passed=True, detail=f"{quote.seen}; machine {claims.runtime.machine_id}")

            number = "Z2"
            hardware, checks = self._hardware(claims, endorsements, roots, at)
            transcript.record(number, passed=True, detail=f"{checks[0].number} to {checks[-1].number}")

            number = "Z3"
            if not hardware.binds(claims.slot):
                raise EvidenceForged("the hardware's report is for other runtime data")
            digest = hashlib.new(claims.digest, claims.runtime_data).hexdigest()
            transcript.record(number, passed=True, detail=f"{claims.digest}:{digest}")

            number = "Z4"
            quote.require_made_by_tpm()
            transcript.record(number, passed=True)

            number = "Z5"
            quote.require_signed_by(claims.runtime.key)
            transcript.record(number, passed=True, detail=f"attestation key {wire.digest(key_info(claims.runtime.key))}")

            number = "Z6"
            quote.require_selected()
            transcript.record(number, passed=True, detail=quote.seen)

            number = "Z7"
            quote.require_digest()
            transcript.record(number, passed=True)
        except AttestationError as error:
            missing = isinstance(error, EndorsementMissing)
            transcript.record(number, passed=None if missing else False, detail=error.message, code=error.code)
            raise
        return AzureVerified(self.PLATFORM, claims, hardware, checks, maker=_MAKER)

    def _hardware(
        self, claims: Claims, endorsements: Endorsements, roots: Roots, at: int
    ) -> tuple[Verified, tuple[Check, ...]]:
        """What the platform beneath finds, and its checks. Raises AttestationError, naming the check in its message."""
        beneath = _hardware(self.HARDWARE)
        transcript = Transcript(beneath.STEPS)
        try:
            found: Verified = beneath.verify(
                Evidence(self.HARDWARE, claims.hardware), endorsements, roots=roots, at=at, transcript=transcript
            )
        except AttestationError as error:
            check = next((c for c in transcript.checks if c.code), None)
            raise type(error)(f"{check.number if check else self.HARDWARE}: {error.message}") from error
        if not transcript.ok:  # a module that forgets a check must not pass for one that made it
            raise BadEvidence(f"a check of {self.HARDWARE} was not made")
        return found, transcript.checks

    def tolerated_until(self, verified: AzureVerified, terms: AzureTerms) -> int:
        """The last second at which the terms tolerate what they were judged to accept, unix."""
        return tolerated(_hardware(self.HARDWARE), verified.hardware, terms.hardware)

    def judge(self, verified: AzureVerified, terms: AzureTerms, *, at: int, transcript: Transcript) -> TrustVector:
        """ZT1 to ZT9: what the policy asks, held against what was verified. Never raises.

        Returns:
            what the platform beneath claims; contraindicated for the hardware where quote or runtime data fall short.
        """
        beneath = _hardware(self.HARDWARE)
        numbers = [number for number, _ in TERMS_STEPS]
        vector = verified.vector
        if beneath.TERMS_STEPS is not None:
            own = Transcript(beneath.TERMS_STEPS)
            vector = beneath.judge(verified.hardware, terms.hardware, at=at, transcript=own)
            problems = [check for check in own.checks if check.status is not Status.PASSED]
            said = "; ".join(f"{check.number}: {check.detail}" for check in problems) or f"{len(own.checks)} terms are met"
            transcript.record(numbers[0], not problems, said, code=problems[0].code or TermsNotMet.code if problems else "")
        else:
            transcript.record(numbers[0], passed=True, detail="the hardware has no terms")
        runtime = verified.claims.runtime
        outcomes = [
            *terms.quote.judge(verified.claims.quote),
            (runtime.secure_boot or not terms.secure_boot, "on" if runtime.secure_boot else "off"),
            (terms.console or not runtime.console, "there is one" if runtime.console else "there is none"),
        ]
        for number, (holds, seen) in zip(numbers[1:], outcomes, strict=True):
            transcript.record(number, holds, seen, code=TermsNotMet.code)
        if all(holds for holds, _ in outcomes):
            return vector
        return replace(vector, hardware=UNACCEPTABLE)


AZURE_SNP = AzurePlatform("azure_snp", "platform: azure_snp (Azure, AMD SEV-SNP under a paravisor)", "sev_snp", SnpTerms)
AZURE_TDX = AzurePlatform("azure_tdx", "platform: azure_tdx (Azure, Intel TDX under a paravisor)", "tdx", TdxTerms)
