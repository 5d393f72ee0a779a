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
from .vector import Tier, TrustVector, worst_tier

EAR_PROFILE = "tag:github.com,2023:veraison/ear"
BESIDE = frozenset({"A14", "A15"})  # what is said of the devices: no part of the processor's own tier
MAKER = object()  # appraise()'s; a short test sees that nothing else takes it


def tier_of(transcripts: Iterable[Transcript | None]) -> Tier:
    """Affirming when every list was made and every check in it passed; contraindicated when one failed; else none."""
    lists = list(transcripts)
    found = _tier(check.status for transcript in lists if transcript for check in transcript.checks)
    return Tier.NONE if None in lists and found is Tier.AFFIRMING else found


def _tier(statuses: Iterable[Status]) -> Tier:
    found = set(statuses)
    if Status.FAILED in found:
        return Tier.CONTRAINDICATED
    return Tier.AFFIRMING if found == {Status.PASSED} else Tier.NONE


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
        policy_digest: the digest of the appraisal policy.
        transcript: the device's own checks.
        terms_transcript: the policy's terms for it; ``None`` where they were not reached.
        verified: what its module found signed; ``None`` where that is not established.
        tolerated_until: the last second at which the terms tolerate what it is, unix; ``None`` where they were not met, or
            say no end.
    """

    platform: str
    label: str
    vector: TrustVector
    policy_digest: str
    transcript: Transcript
    terms_transcript: Transcript | None
    verified: Verified | None
    tolerated_until: int | None
    maker: InitVar[object]

    def __post_init__(self, maker: object) -> None:
        if maker is not MAKER:
            raise TypeError("only appraise() makes a DeviceResult")

    @property
    def checks(self) -> tuple[Check, ...]:
        return (*self.transcript.checks, *(self.terms_transcript.checks if self.terms_transcript else ()))

    @property
    def status(self) -> Tier:
        """By its checks alone: what the appraisal decides by."""
        return tier_of((self.transcript, self.terms_transcript))

    @property
    def ear_status(self) -> Tier:
        """What an EAR says of it: the worse of its checks and its worst claim. Nothing here decides by it."""
        return worst_tier(self.status, self.vector.worst)

    def to_json(self) -> dict[str, JSON]:
        """As a submodule of an EAR claims-set."""
        return {
            "ear.appraisal-policy-id": self.policy_digest,
            "ear.status": self.ear_status.value,
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
        status: by the checks alone, and what everything decides by: ``AFFIRMING`` only when every one passed, those of the
            devices too; ``CONTRAINDICATED`` when one failed; ``NONE`` when none failed and something is not established.
            An EAR's own status, ``ear_status``, is no better than the worst claim.
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
        tolerated_until: the last second at which the terms tolerate what the processor is, unix; ``None`` where they were
            not met, or say no end.
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
    tolerated_until: int | None
    maker: InitVar[object]

    def __post_init__(self, maker: object) -> None:
        if maker is not MAKER:
            raise TypeError("only appraise() makes an AttestationResult")

    @property
    def affirming(self) -> bool:
        """Whether every check passed: what a release is decided by. What the terms tolerate has passed."""
        return self.status is Tier.AFFIRMING

    @property
    def processor_status(self) -> Tier:
        """What an EAR says of the processor: the worse of its own checks and its worst claim, whatever its devices are."""
        own = _tier(check.status for check in self.transcript.checks if check.number not in BESIDE)
        return worst_tier(own, self.vector.worst)

    @property
    def ear_status(self) -> Tier:
        """What an EAR says of the whole: the worst of the checks and of every submodule. Nothing here decides by it."""
        return worst_tier(self.status, self.processor_status, *(device.ear_status for device in self.devices))

    @property
    def tolerated(self) -> tuple[tuple[str, str, int | None], ...]:
        """What the terms were met with a warning by: of which member, which claim, and until when (``None``: no end)."""
        members = (
            (self.platform, self.vector, self.terms_transcript, self.tolerated_until),
            *((f"{d.platform}-{n}", d.vector, d.terms_transcript, d.tolerated_until) for n, d in enumerate(self.devices)),
        )
        return tuple(
            (name, claim, until)
            for name, vector, terms, until in members
            if terms is not None and terms.ok
            for claim in vector.warnings
            if claim != "executables"  # of an image that A10 did not accept; terms do not tolerate any
        )

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
            "ear.status": self.processor_status.value,
            "ear.trustworthiness-vector": self.vector.to_json(),
            "strongroom.build": self.build,
            "strongroom.collateral": list(self.collateral),
            "strongroom.label": self.label,
            "strongroom.machine": self.verified.machine if self.verified else None,
            "strongroom.measurement": self.measurement.to_json() if self.measurement else None,
        }
        devices: dict[str, JSON] = {f"{device.platform}-{n}": device.to_json() for n, device in enumerate(self.devices)}
        return {
            "ear.status": self.ear_status.value,
            "ear.verifier-id": {"build": f"strongroom {__version__}", "developer": "strongroom"},
            "eat_nonce": self.nonce.hex(),
            "eat_profile": EAR_PROFILE,
            "iat": self.at,
            "strongroom.affirming": self.affirming,
            "strongroom.checks": [check.to_json() for check in self.checks],
            "strongroom.keyset_digest": self.keyset_digest,
            "strongroom.valid_until": self.valid_until,
            "submods": {self.platform: submod, **devices},
        }
