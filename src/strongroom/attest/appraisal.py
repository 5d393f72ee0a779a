"""``appraise()``: the one maker of an ``AttestationResult``. Evidence from an untrusted machine goes in, a verdict comes
out.

No I/O, no clock: the time in question is an argument, so that old evidence can be judged at its own time. Bytes never make
it raise; they make a result that is not affirming, in which the failed check is named and none after it is established.

See ``spec/appraisal.md``; the checks A1 to A10 are numbered as there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field, replace
from types import MappingProxyType

from strongroom import __version__, wire
from strongroom.errors import (
    AttestationError,
    BadAppraisalPolicy,
    BadEvidence,
    BadField,
    BadKeyset,
    BadNonce,
    DebugEnabled,
    KeysetExpired,
    MeasurementNotAccepted,
    NotAffirming,
    NotBound,
    NotFresh,
    PlatformNotAccepted,
    UnknownPlatform,
)
from strongroom.party import VerifyKey
from strongroom.transcript import Check, Steps, Transcript
from strongroom.wire import JSON, Fields

from . import simulated
from .evidence import PLATFORM_NAME, Endorsements, Evidence, Measurement, Verified, Verifier
from .keyset import NONCE_BYTES, Keyset, report_data
from .vector import (
    AFFIRMED,
    APPROVED_AT_START,
    CRYPTO_FAILED,
    UNACCEPTABLE,
    UNRECOGNIZED_EXECUTABLES,
    Tier,
    TrustVector,
)

MAX_CLOCK_SKEW_S = 300  # how far in the verifier's future evidence may say that it was made
DEFAULT_MAX_AGE_S = 300
MAX_KEYSET_S = 366 * 86_400  # an expiry further off is none (ACI section 3.1)
MAX_MEASUREMENTS = 1024

EAR_PROFILE = "tag:github.com,2023:veraison/ear"
STEPS = Steps(
    "A",
    [
        "the appraisal policy names the platform of the evidence",
        "this version can verify evidence of that platform",
        "the evidence passes every check of its platform",
        "the enclave cannot be debugged",
        "the verifier's nonce is 32 bytes",
        "the evidence binds this keyset to this nonce",
        "the evidence is no older than the policy allows",
        "the keyset has not expired, and expires within a year",
        "the keyset has exactly one usable key for each role",
        "the policy accepts the measurement",
    ],
)

_VERIFIERS: Mapping[str, Verifier] = MappingProxyType({simulated.PLATFORM: simulated})
_MAKER = object()


@dataclass(frozen=True, slots=True)
class AppraisalPolicy:
    """What a verifier asks of evidence. An empty set accepts nothing: the policy without arguments refuses everything.

    Args:
        platforms: names of accepted platforms.
        roots: platform to the root keys that may vouch for its keys.
        measurements: accepted reference values; equality of every register.
        max_age_s: how old evidence may be, in seconds, by its platform's clock; 1 second to a day.

    Raises:
        BadAppraisalPolicy: an age outside these bounds, too many reference values, or what is no platform's name.
    """

    platforms: frozenset[str] = frozenset()
    roots: Mapping[str, tuple[VerifyKey, ...]] = field(default_factory=dict)
    measurements: tuple[Measurement, ...] = ()
    max_age_s: int = DEFAULT_MAX_AGE_S

    def __post_init__(self) -> None:
        if not 1 <= self.max_age_s <= 86_400:
            raise BadAppraisalPolicy("the greatest age of evidence is not 1 second to a day")
        if not all(PLATFORM_NAME.match(name) for name in (*self.platforms, *self.roots)):
            raise BadAppraisalPolicy("the policy names something that is no platform's name")
        measurements = sorted(set(self.measurements), key=Measurement.encode)
        if len(measurements) > MAX_MEASUREMENTS:
            raise BadAppraisalPolicy(f"more than {MAX_MEASUREMENTS} measurements")
        roots = {p: tuple(sorted(set(keys), key=lambda key: key.raw)) for p, keys in sorted(self.roots.items())}
        object.__setattr__(self, "platforms", frozenset(self.platforms))
        object.__setattr__(self, "measurements", tuple(measurements))
        object.__setattr__(self, "roots", MappingProxyType(roots))

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def digest(self) -> str:
        """The digest of the canonical form, which results name."""
        return wire.digest(self.encode())

    def to_json(self) -> dict[str, JSON]:
        roots: dict[str, JSON] = {p: [wire.b64(key.raw) for key in keys] for p, keys in self.roots.items()}
        return {
            "max_age_s": self.max_age_s,
            "measurements": [m.to_json() for m in self.measurements],
            "platforms": [*sorted(self.platforms)],
            "roots": roots,
        }

    @classmethod
    def from_json(cls, value: object) -> AppraisalPolicy:
        """Raises BadField, BadKey, BadMeasurement, BadAppraisalPolicy."""
        f = Fields(value, "appraisal policy")
        platforms = f.names("platforms", high=32)
        measurements = f.items("measurements", Measurement.from_json, high=MAX_MEASUREMENTS)
        max_age_s = f.integer("max_age_s")
        roots = f.any("roots")
        f.end()
        if not isinstance(roots, dict):
            raise BadField("appraisal policy.roots is not an object")
        found = cls(platforms=frozenset(platforms), roots={}, measurements=measurements, max_age_s=max_age_s)
        read = Fields(roots, "appraisal policy.roots")
        keys = {p: read.items(p, _root, high=64) for p in roots}
        found = replace(found, roots=keys)
        if found.to_json() != value:
            raise BadAppraisalPolicy("measurements or roots are not sorted and distinct")
        return found

    def encode(self) -> bytes:
        return wire.encode(self.to_json())

    @classmethod
    def parse(cls, data: bytes) -> AppraisalPolicy:
        """Raises WireError and its leaves, BadKey, BadMeasurement, BadAppraisalPolicy."""
        return cls.from_json(wire.decode(data))


def _root(value: object) -> VerifyKey:
    return VerifyKey(Fields({"root": value}, "appraisal policy").base64("root", max_bytes=32))


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class AttestationResult:
    """What an appraisal found (RFC 9334; to be written down as an EAR). Made by :func:`appraise` alone.

    Attributes:
        status: ``AFFIRMING`` only when every check passed; else ``CONTRAINDICATED``.
        label: how to name the platform to people.
        platform: the platform's name.
        measurement: what runs, where a platform signed it; ``None`` where that is not established.
        keyset: the attested keyset; ``None`` unless the status is affirming.
        keyset_digest: the digest of the keyset that was asked about.
        nonce: the nonce that was asked about.
        policy_digest: the digest of the appraisal policy.
        vector: the AR4SI trust vector.
        collateral: digests of the endorsements used.
        at: the time in question, unix seconds.
        valid_until: the last second at which the keyset and every endorsement hold; ``None`` unless affirming.
        transcript: A1 to A10.
        platform_transcript: the platform's own checks, which A3 sums up; ``None`` where they were not reached.
    """

    status: Tier
    label: str
    platform: str
    measurement: Measurement | None
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
    maker: InitVar[object]

    def __post_init__(self, maker: object) -> None:
        if maker is not _MAKER:
            raise TypeError("only appraise() makes an AttestationResult")

    @property
    def affirming(self) -> bool:
        return self.status is Tier.AFFIRMING

    @property
    def checks(self) -> tuple[Check, ...]:
        """Every check in the order in which it is made: A1, A2, the platform's own, A3 and on."""
        own = self.platform_transcript.checks if self.platform_transcript else ()
        return (*self.transcript.checks[:2], *own, *self.transcript.checks[2:])

    def require(self) -> Keyset:
        """The attested keyset. Raises NotAffirming with the first failed check."""
        if self.keyset is None or not self.affirming:
            problem = next(c for c in self.checks if c.code)
            raise NotAffirming(f"{problem.number} failed: {problem.name}: {problem.detail}", reason=problem.code)
        return self.keyset

    def to_json(self) -> dict[str, JSON]:
        """The result in the shape of an EAR claims-set (draft-ietf-rats-ear); our own claims begin with ``strongroom.``."""
        submod: dict[str, JSON] = {
            "ear.appraisal-policy-id": self.policy_digest,
            "ear.status": self.status.value,
            "ear.trustworthiness-vector": self.vector.to_json(),
            "strongroom.collateral": list(self.collateral),
            "strongroom.label": self.label,
            "strongroom.measurement": self.measurement.to_json() if self.measurement else None,
        }
        return {
            "ear.verifier-id": {"build": f"strongroom {__version__}", "developer": "strongroom"},
            "eat_nonce": self.nonce.hex(),
            "eat_profile": EAR_PROFILE,
            "iat": self.at,
            "strongroom.checks": [check.to_json() for check in self.checks],
            "strongroom.keyset_digest": self.keyset_digest,
            "strongroom.valid_until": self.valid_until,
            "submods": {self.platform: submod},
        }


class _Appraisal:
    """One appraisal under way: what was asked, and what is established so far."""

    def __init__(self, evidence: Evidence, policy: AppraisalPolicy, keyset: Keyset, nonce: bytes, at: int) -> None:
        self.evidence, self.policy, self.keyset, self.nonce, self.at = evidence, policy, keyset, nonce, at
        self.keyset_digest = keyset.digest
        self.transcript = Transcript(STEPS)
        self.platform_transcript: Transcript | None = None
        self.verified: Verified | None = None
        self.label = f"platform: {evidence.platform}"
        self.vector = TrustVector()

    def check(
        self, number: str, passed: bool, problem: AttestationError, *, seen: str = "", claim: TrustVector | None = None
    ) -> None:
        """Record check ``number``, with what was seen; where it failed, claim what follows, and raise the problem."""
        if not self.transcript.record(number, passed, seen if passed else problem.message, code=problem.code):
            self.vector = claim or self.vector
            raise problem

    def platform(self, endorsements: Endorsements) -> Verified:
        """A1 to A3."""
        name = self.evidence.platform
        self.check("A1", name in self.policy.platforms, PlatformNotAccepted(f"the policy does not name {name!r}"), seen=name)
        known = name in _VERIFIERS
        self.check("A2", known, UnknownPlatform(f"this version cannot verify evidence of {name!r}"))
        verifier = _VERIFIERS[name]
        self.label = verifier.LABEL
        self.platform_transcript = Transcript(verifier.STEPS)
        roots = self.policy.roots.get(name, ())
        try:
            verified = verifier.verify(
                self.evidence, endorsements, roots=roots, at=self.at, transcript=self.platform_transcript
            )
        except AttestationError as error:
            self.transcript.record("A3", passed=False, detail=error.message, code=error.code)
            self.vector = TrustVector(instance_identity=CRYPTO_FAILED)
            raise
        # A platform module that forgets a check must not pass for one that made it.
        skipped = BadEvidence("a check of the platform was not made")
        self.check("A3", self.platform_transcript.ok, skipped, seen=verifier.LABEL)
        self.verified, self.vector = verified, verified.vector
        return verified

    def freshness(self, verified: Verified) -> None:
        """A4 to A7."""
        open_to_host = replace(self.vector, configuration=UNACCEPTABLE)
        debug = DebugEnabled("the enclave was started for debugging")
        self.check("A4", verified.debug is False, debug, claim=open_to_host)
        usable = isinstance(self.nonce, bytes) and len(self.nonce) == NONCE_BYTES
        self.check("A5", usable, BadNonce(f"the verifier's nonce is not {NONCE_BYTES} bytes long"))
        bound = verified.report_data == report_data(self.keyset_digest, self.nonce)
        other = NotBound("the evidence is for another nonce or another keyset")
        self.check("A6", bound, other, seen=f"keyset {self.keyset_digest}, nonce {self.nonce.hex()}")
        age = 0 if verified.produced_at is None else self.at - verified.produced_at
        stale = NotFresh(
            f"the evidence is {age} s old by its platform's clock; at most {self.policy.max_age_s} s are allowed"
        )
        self.check("A7", -MAX_CLOCK_SKEW_S <= age <= self.policy.max_age_s, stale, seen=f"{age} s old")

    def identity(self, verified: Verified) -> None:
        """A8 to A10."""
        until = self.keyset.not_after
        late = KeysetExpired(f"the keyset was valid until {until}, before {self.at}")
        for_ever = BadKeyset(f"the keyset claims to be valid until {until}, more than a year after {self.at}")
        self.check(
            "A8", self.at <= until <= self.at + MAX_KEYSET_S, late if until < self.at else for_ever, seen=f"until {until}"
        )
        try:
            _ = self.keyset.run_receipt_key, self.keyset.release_key
        except BadKeyset as error:
            self.check("A9", False, error)
        self.transcript.record("A9", passed=True)
        digest = verified.measurement.digest
        unknown = replace(self.vector, executables=UNRECOGNIZED_EXECUTABLES)
        refused = MeasurementNotAccepted(f"the policy does not accept {digest}")
        accepted = verified.measurement in self.policy.measurements
        self.check("A10", accepted, refused, seen=digest, claim=unknown)
        self.vector = replace(self.vector, configuration=AFFIRMED, executables=APPROVED_AT_START)

    def result(self) -> AttestationResult:
        verified = self.verified
        affirming = self.transcript.ok and verified is not None
        return AttestationResult(
            status=Tier.AFFIRMING if affirming else Tier.CONTRAINDICATED,
            label=self.label,
            platform=self.evidence.platform,
            measurement=verified.measurement if verified else None,
            keyset=self.keyset if affirming else None,
            keyset_digest=self.keyset_digest,
            nonce=self.nonce if isinstance(self.nonce, bytes) else b"",
            policy_digest=self.policy.digest,
            vector=self.vector,
            collateral=verified.collateral if verified else (),
            at=self.at,
            valid_until=min(verified.valid_until, self.keyset.not_after) if verified and affirming else None,
            transcript=self.transcript,
            platform_transcript=self.platform_transcript,
            maker=_MAKER,
        )


def appraise(
    evidence: Evidence, *, policy: AppraisalPolicy, endorsements: Endorsements, nonce: bytes, at: int, keyset: Keyset
) -> AttestationResult:
    """Appraise evidence under a policy: checks A1 to A10, in order, up to the first that fails.

    Args:
        evidence: untrusted.
        policy: the verifier's own.
        endorsements: untrusted; what came with the evidence.
        nonce: the 32 bytes that this verifier gave for this one question. There is no form without: a missing one fails A5.
        at: the time in question, unix seconds.
        keyset: untrusted; the keyset that the evidence must bind.

    Returns:
        an affirming result when every check passed, and a contraindicated one otherwise. Bytes never make it raise.
    """
    appraisal = _Appraisal(evidence, policy, keyset, nonce, at)
    try:
        verified = appraisal.platform(endorsements)
        appraisal.freshness(verified)
        appraisal.identity(verified)
    except AttestationError:
        pass  # recorded, with its code; nothing after it is established
    return appraisal.result()
