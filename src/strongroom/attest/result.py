"""What an appraisal found: RFC 9334's attestation result, to be written down as an EAR claims-set (draft-ietf-rats-ear).

See ``spec/appraisal.md``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import InitVar, dataclass

from strongroom import __version__
from strongroom.errors import NotAffirming
from strongroom.transcript import Check, Status, Transcript
from strongroom.wire import JSON

from .evidence import Measurement, Verified
from .keyset import Keyset
from .vector import Tier, TrustVector

EAR_PROFILE = "tag:github.com,2023:veraison/ear"
MAKER = object()  # appraise()'s; a short test sees that nothing else takes it


def tier_of(transcripts: Iterable[Transcript | None]) -> Tier:
    """Affirming when every list was made and every check in it passed; contraindicated when one failed; else none."""
    lists = list(transcripts)
    found = {check.status for transcript in lists if transcript for check in transcript.checks}
    if Status.FAILED in found:
        return Tier.CONTRAINDICATED
    return Tier.AFFIRMING if None not in lists and found == {Status.PASSED} else Tier.NONE


def first_problem(checks: Iterable[Check]) -> Check | None:
    """The first failed check, else the first that is not established, else ``None``."""
    checks = tuple(checks)
    for status in (Status.FAILED, Status.NOT_ESTABLISHED):
        for check in checks:
            if check.status is status:
                return check
    return None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class DeviceResult:
    """What an appraisal found of one device beside the processor: a part of an ``AttestationResult``.

    Attributes:
        platform: the kind of device.
        label: how to name it to people.
        vector: its AR4SI trust vector.
        transcript: the device's own checks.
        terms_transcript: the policy's terms for it; ``None`` where they were not reached.
        verified: what its module found signed; ``None`` where that is not established.
    """

    platform: str
    label: str
    vector: TrustVector
    transcript: Transcript
    terms_transcript: Transcript | None
    verified: Verified | None
    maker: InitVar[object]

    def __post_init__(self, maker: object) -> None:
        if maker is not MAKER:
            raise TypeError("only appraise() makes a DeviceResult")

    @property
    def checks(self) -> tuple[Check, ...]:
        return (*self.transcript.checks, *(self.terms_transcript.checks if self.terms_transcript else ()))

    @property
    def status(self) -> Tier:
        return tier_of((self.transcript, self.terms_transcript))

    def to_json(self) -> dict[str, JSON]:
        """As a submodule of an EAR claims-set."""
        return {
            "ear.status": self.status.value,
            "ear.trustworthiness-vector": self.vector.to_json(),
            "strongroom.checks": [check.to_json() for check in self.checks],
            "strongroom.collateral": list(self.verified.collateral) if self.verified else [],
            "strongroom.label": self.label,
            "strongroom.machine": self.verified.machine if self.verified else None,
            "strongroom.measurement": self.verified.measurement.to_json() if self.verified else None,
        }


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class AttestationResult:
    """What an appraisal found. Made by ``appraise`` alone.

    Attributes:
        status: ``AFFIRMING`` only when every check passed, those of the devices too; ``CONTRAINDICATED`` when one failed;
            ``NONE`` when none failed and something is not established.
        label: how to name the platform to people.
        platform: the platform's name.
        measurement: what runs, where a platform signed it; ``None`` where that is not established.
        build: the name and build of the reference value that the measurement equals, or ``""``.
        keyset: the attested keyset; ``None`` unless the status is affirming.
        keyset_digest: the digest of the keyset that was asked about; ``""`` where none was.
        nonce: the nonce that was asked about; empty where none was.
        policy_digest: the digest of the appraisal policy.
        vector: the processor's AR4SI trust vector.
        collateral: digests of the endorsements used for the processor.
        at: the time in question, unix seconds.
        valid_until: the last second at which the keyset and every endorsement hold; ``None`` unless affirming.
        transcript: A1 to A15.
        platform_transcript: the platform's own checks, which A3 sums up; ``None`` where they were not reached.
        terms_transcript: the policy's terms, which A11 sums up; ``None`` where there are none or they were not reached.
        devices: the devices beside the processor.
        verified: what the platform's module found signed, for people to see; ``None`` where that is not established.
    """

    status: Tier
    label: str
    platform: str
    measurement: Measurement | None
    build: str
    keyset: Keyset | None
    keyset_digest: str
    nonce: bytes
    policy_digest: str
    vector: TrustVector
    collateral: tuple[str, ...]
    at: int
    valid_until: int | None
    transcript: Transcript
    platform_transcript: Transcript | None
    terms_transcript: Transcript | None
    devices: tuple[DeviceResult, ...]
    verified: Verified | None
    maker: InitVar[object]

    def __post_init__(self, maker: object) -> None:
        if maker is not MAKER:
            raise TypeError("only appraise() makes an AttestationResult")

    @property
    def affirming(self) -> bool:
        return self.status is Tier.AFFIRMING

    @property
    def checks(self) -> tuple[Check, ...]:
        """Every check about the processor, each list before the check that sums it up: A1, A2, the platform's own, A3 to
        A10, the terms, A11 and on. Devices have their own."""
        a = self.transcript.checks
        own = self.platform_transcript.checks if self.platform_transcript else ()
        terms = self.terms_transcript.checks if self.terms_transcript else ()
        return (*a[:2], *own, *a[2:10], *terms, *a[10:])

    @property
    def problem(self) -> Check | None:
        """The first failed check, else the first that is not established, else ``None``."""
        return first_problem(self.checks)

    def require(self) -> Keyset:
        """The attested keyset. Raises NotAffirming with the first check that did not pass."""
        if self.keyset is None or not self.affirming:
            problem = self.problem
            assert problem is not None
            said = f"{problem.number} {problem.status.value}: {problem.name}: {problem.detail}"
            raise NotAffirming(said, reason=problem.code)
        return self.keyset

    def to_json(self) -> dict[str, JSON]:
        """The result in the shape of an EAR claims-set; our own claims begin with ``strongroom.``."""
        submod: dict[str, JSON] = {
            "ear.appraisal-policy-id": self.policy_digest,
            "ear.status": tier_of((self.transcript,)).value,
            "ear.trustworthiness-vector": self.vector.to_json(),
            "strongroom.build": self.build,
            "strongroom.collateral": list(self.collateral),
            "strongroom.label": self.label,
            "strongroom.machine": self.verified.machine if self.verified else None,
            "strongroom.measurement": self.measurement.to_json() if self.measurement else None,
        }
        devices: dict[str, JSON] = {f"{device.platform}-{n}": device.to_json() for n, device in enumerate(self.devices)}
        return {
            "ear.status": self.status.value,
            "ear.verifier-id": {"build": f"strongroom {__version__}", "developer": "strongroom"},
            "eat_nonce": self.nonce.hex(),
            "eat_profile": EAR_PROFILE,
            "iat": self.at,
            "strongroom.checks": [check.to_json() for check in self.checks],
            "strongroom.keyset_digest": self.keyset_digest,
            "strongroom.valid_until": self.valid_until,
            "submods": {self.platform: submod, **devices},
        }
