"""``appraise()``: the one maker of an ``AttestationResult``. Evidence from an untrusted machine goes in, a verdict comes
out.

No I/O, no clock: the time in question is an argument, so that old evidence can be judged at its own time. Bytes never make
it raise; they make a result that is not affirming, in which the failed check is named.

See ``spec/appraisal.md``; the checks A1 to A15 are numbered as there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from strongroom.errors import (
    AttestationError,
    BadEvidence,
    BadKeyset,
    BadNonce,
    DebugEnabled,
    DeviceNotBound,
    DevicesNotAccepted,
    KeysetExpired,
    MachineNotAccepted,
    MeasurementNotAccepted,
    NotBound,
    NotFresh,
    PlatformNotAccepted,
    TermsNotMet,
    UnknownPlatform,
)
from strongroom.transcript import Status, Steps, Transcript

from . import binding
from .appraisal_policy import AppraisalPolicy
from .evidence import FOREVER, REPORT_DATA_BYTES, Endorsements, Evidence, Roots, Verified, Verifier, tolerated
from .keyset import NONCE_BYTES, Keyset, report_data
from .registry import DEVICES, require_together, verifier
from .result import MAKER, AttestationResult, DeviceResult, first_problem, tier_of
from .vector import (
    AFFIRMED,
    APPROVED_AT_START,
    CRYPTO_FAILED,
    UNACCEPTABLE,
    UNRECOGNIZED_EXECUTABLES,
    Tier,
    TrustVector,
    worse,
)

MAX_CLOCK_SKEW_S = 300  # how far in the verifier's future evidence may say that it was made
MAX_KEYSET_S = 366 * 86_400  # an expiry further off is none (ACI section 3.1)

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
        "the evidence meets the policy's terms for its platform",
        "the policy accepts the machine",
        "the event log, where there is one, leads to the measured registers",
        "the devices are genuine, and those that the policy asks for",
        "every device's evidence is bound to the processor's",
    ],
)


@dataclass(frozen=True, slots=True)
class Bare:
    """In place of a keyset and a nonce, when evidence is looked at without one of them (``strongroom attest verify``).

    Without a keyset A5, A8 and A9 are *not established*: nothing says which keys the evidence vouches for. With one and no
    nonce A5 and A6 are not: nothing says that the evidence vouches for *these* keys, and that it is new. In either case no
    secret can be sent anywhere on the strength of it: a result about a ``Bare`` is never affirming, and every check that can
    be made is made.

    Args:
        nonce: what the asker sent, as the evidence must repeat it; ``None`` where nobody knows.
        keyset: what came with the evidence and, as nobody knows the nonce, cannot be held against it.

    Raises:
        ValueError: both; they are for :func:`appraise`.
    """

    nonce: bytes | None = None
    keyset: Keyset | None = None

    def __post_init__(self) -> None:
        if self.nonce is not None and self.keyset is not None:
            raise ValueError("with a keyset and a nonce evidence is appraised")

    @property
    def lacks(self) -> str:
        """What to say of the checks that cannot be made."""
        return "no keyset was given" if self.keyset is None else "no nonce was given"


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "none"


def _repeated(verified: Verified, nonce: bytes) -> str:
    """Where the evidence repeats a bare nonce, or ``""``. Zeros stand in every slot that nobody filled: they are none."""
    slot = verified.report_data
    own: object = getattr(verified, "nonce", None)  # a platform with a slot for nonces alone (Nitro, a GPU)
    if not any(nonce):
        return ""
    if len(nonce) == REPORT_DATA_BYTES and verified.binds(nonce):
        return "in the platform's slot"
    if own == nonce:
        return "in the platform's slot for nonces"
    if len(nonce) <= len(slot) and slot == nonce.ljust(len(slot), b"\0"):
        return "in the platform's slot"
    if len(slot) == REPORT_DATA_BYTES and len(nonce) == NONCE_BYTES and slot[NONCE_BYTES:] == nonce:
        return "in the second half of the platform's slot"
    return ""


class Appraisal:
    """One appraisal under way: what was asked, and what is established so far. ``appraise`` and ``guest`` lead it."""

    def __init__(self, evidence: Evidence, policy: AppraisalPolicy, endorsements: Endorsements, at: int) -> None:
        self.evidence, self.policy, self.endorsements, self.at = evidence, policy, endorsements, at
        self.beside_it = evidence.devices
        self.transcript = Transcript(STEPS)
        self.platform_transcript: Transcript | None = None
        self.terms_transcript: Transcript | None = None
        self.devices: tuple[DeviceResult, ...] = ()
        self.verified: Verified | None = None
        self.tolerated_until: int | None = None
        self.build = ""
        self.label = f"platform: {evidence.platform}"
        self.vector = TrustVector()

    def check(
        self, number: str, passed: bool, problem: AttestationError, *, seen: str = "", claim: TrustVector | None = None
    ) -> None:
        """Record check ``number``, with what was seen; where it failed, claim what follows, and raise the problem."""
        if not self.transcript.record(number, passed, seen if passed else problem.message, code=problem.code):
            self.vector = claim or self.vector
            raise problem

    def platform(self) -> tuple[Verifier, Verified]:
        """A1 to A3."""
        name = self.evidence.platform
        self.check("A1", name in self.policy.platforms, PlatformNotAccepted(f"the policy does not name {name!r}"), seen=name)
        found = None if name in DEVICES else verifier(name)
        unknown = UnknownPlatform(f"this version cannot verify evidence of {name!r}")
        self.check("A2", found is not None, unknown)
        assert found is not None
        self.label = found.LABEL
        self.platform_transcript = Transcript(found.STEPS)
        try:
            verified = self.genuine(found, self.evidence, self.platform_transcript)
        except AttestationError as error:
            missing = not _failed(self.platform_transcript)
            self.transcript.record("A3", None if missing else False, error.message, code=error.code)
            self.vector = TrustVector() if missing else TrustVector(instance_identity=CRYPTO_FAILED)
            raise
        self.transcript.record("A3", passed=True, detail=found.LABEL)
        self.verified, self.vector = verified, verified.vector
        return found, verified

    def genuine(self, by: Verifier, evidence: Evidence, transcript: Transcript) -> Verified:
        roots = self.policy.roots.get(evidence.platform, Roots())
        try:
            found: Verified = by.verify(evidence, self.endorsements, roots=roots, at=self.at, transcript=transcript)
        except AttestationError:
            raise
        except Exception as error:  # a fault of the module's: whoever knows bytes that find one must gain nothing by it
            raise BadEvidence(f"the platform's verifier failed on it: {type(error).__name__}") from error
        if not transcript.ok:  # a platform module that forgets a check must not pass for one that made it
            raise BadEvidence("a check of the platform was not made")
        return found

    def no_debug(self, verified: Verified) -> None:
        """A4."""
        open_to_host = replace(self.vector, configuration=UNACCEPTABLE)
        debug = DebugEnabled("the enclave was started for debugging")
        self.check("A4", verified.debug is False, debug, claim=open_to_host)

    def bound(self, verified: Verified, keyset: Keyset, nonce: bytes) -> None:
        """A5 and A6."""
        usable = isinstance(nonce, bytes) and len(nonce) == NONCE_BYTES
        self.check("A5", usable, BadNonce(f"the verifier's nonce is not {NONCE_BYTES} bytes long"))
        other = NotBound("the evidence is for another nonce or another keyset")
        binds = verified.binds(report_data(keyset.digest, nonce))
        self.check("A6", binds, other, seen=f"keyset {keyset.digest}, nonce {nonce.hex()}")

    def repeats(self, verified: Verified, nonce: bytes | None) -> None:
        """A6, where there is no keyset."""
        if nonce is None:
            self.transcript.record("A6", None, "no nonce was given", code=NotBound.code)
            return
        where = _repeated(verified, nonce)
        self.check("A6", bool(where), NotBound("the evidence does not repeat the nonce"), seen=f"the nonce stands {where}")

    def fresh(self, verified: Verified) -> None:
        """A7."""
        if self.at > verified.valid_until:  # of a platform that is verified at its document's own time
            over = NotFresh(f"what vouches for the evidence held until {verified.valid_until}, before {self.at}")
            self.check("A7", False, over)
        if verified.produced_at is None:
            self.transcript.record("A7", passed=True, detail="the platform has no clock: fresh by the nonce alone")
            return
        age = self.at - verified.produced_at
        stale = NotFresh(
            f"the evidence is {age} s old by its platform's clock; at most {self.policy.max_age_s} s are allowed"
        )
        self.check("A7", -MAX_CLOCK_SKEW_S <= age <= self.policy.max_age_s, stale, seen=f"{age} s old")

    def keys(self, keyset: Keyset) -> None:
        """A8 and A9."""
        until = keyset.not_after
        late = KeysetExpired(f"the keyset was valid until {until}, before {self.at}")
        for_ever = BadKeyset(f"the keyset claims to be valid until {until}, more than a year after {self.at}")
        self.check(
            "A8", self.at <= until <= self.at + MAX_KEYSET_S, late if until < self.at else for_ever, seen=f"until {until}"
        )
        try:
            _ = keyset.run_receipt_key, keyset.release_key
        except BadKeyset as error:
            self.check("A9", False, error)
        self.transcript.record("A9", passed=True)

    def measured(self, verified: Verified) -> None:
        """A10."""
        digest = verified.measurement.digest
        unknown = replace(self.vector, executables=UNRECOGNIZED_EXECUTABLES)
        reference = self.policy.accepts(verified.measurement)
        if reference is not None:
            self.build = " ".join(part for part in (reference.name, reference.build) if part)
        refused = MeasurementNotAccepted(f"the policy does not accept {digest}")
        self.check("A10", reference is not None, refused, seen=f"{digest} {self.build}".rstrip(), claim=unknown)
        self.vector = replace(self.vector, executables=APPROVED_AT_START)

    def measured_as_nothing(self, verified: Verified) -> None:
        """A10, where people look at evidence under a policy that names nothing for this platform."""
        if any(r.measurement.platform == self.evidence.platform for r in self.policy.references):
            self.measured(verified)
            return
        seen = f"the policy has no reference value for this platform; {verified.measurement.digest} runs"
        self.transcript.record("A10", None, seen, code=MeasurementNotAccepted.code)

    def terms(self, by: Verifier, verified: Verified) -> None:
        """A11: every term is judged, whatever became of the others."""
        if by.TERMS_STEPS is None:
            self.transcript.record("A11", passed=True, detail="the platform has no terms")
            self.vector = replace(self.vector, configuration=worse(self.vector.configuration, AFFIRMED))
            return
        try:
            self.terms_transcript, judged, self.tolerated_until = self.judged(by, self.evidence.platform, verified)
        except TermsNotMet as error:
            self.transcript.record("A11", False, error.message, code=error.code)
            raise
        problem = first_problem(self.terms_transcript.checks)
        configuration = worse(self.vector.configuration, UNACCEPTABLE if problem else AFFIRMED)  # A4 may have failed
        self.vector = replace(judged, executables=self.vector.executables, configuration=configuration)
        if problem is not None:
            self.transcript.record(
                "A11", False, f"{problem.number}: {problem.detail}", code=problem.code or TermsNotMet.code
            )
            raise TermsNotMet(f"{problem.number}: {problem.detail}")
        self.transcript.record("A11", passed=True, detail=f"policy {self.policy.digest}")

    def judged(self, by: Verifier, name: str, verified: Verified) -> tuple[Transcript, TrustVector, int | None]:
        """The terms' transcript, what can be claimed, and, where they are met, until when: ``None`` for ever."""
        assert by.TERMS_STEPS is not None
        transcript, terms = Transcript(by.TERMS_STEPS), self.policy.terms_of(name)
        try:
            vector = by.judge(verified, terms, at=self.at, transcript=transcript)
            until = tolerated(by, verified, terms) if transcript.ok else FOREVER
        except Exception as error:  # likewise: terms that were not judged to the end are not met
            raise TermsNotMet(f"the platform's terms could not be judged: {type(error).__name__}") from error
        return transcript, vector, None if until == FOREVER else until

    def machine(self, verified: Verified) -> None:
        """A12."""
        allowed, found = self.policy.machines, verified.machine
        seen = found or "the platform does not say which"
        accepted = allowed is None or (found is not None and found in allowed)
        self.check("A12", accepted, MachineNotAccepted(f"the policy does not name this machine: {seen}"), seen=seen)

    def event_log(self, verified: Verified) -> None:
        """A13."""
        seen = "there is none"
        if self.evidence.event_log:
            from . import eventlog  # noqa: PLC0415 - only who is handed a log reads one

            try:
                seen = eventlog.check(self.evidence.platform, self.evidence.event_log, verified.measurement)
            except AttestationError as error:
                self.check("A13", False, error)
        self.transcript.record("A13", passed=True, detail=seen)

    def beside(self) -> None:
        """A14: each device by its own module, under the policy's roots and terms for its kind."""
        self.devices = tuple(self.device(evidence) for evidence in self.beside_it)
        expected, counts = dict(self.policy.devices), dict.fromkeys(self.policy.devices, 0)
        for device in self.devices:
            counts[device.platform] = counts.get(device.platform, 0) + 1
        bad = next((device for device in self.devices if device.status is not Tier.AFFIRMING), None)
        machines = [device.verified.machine for device in self.devices if device.verified]
        allowed = self.policy.machines
        if bad is not None:
            check = first_problem(bad.checks)
            said = f"{bad.platform}: " + (f"{check.number} {check.name}: {check.detail}" if check else "terms not judged")
            code = check.code if check and check.code else DevicesNotAccepted.code
            self.transcript.record("A14", False if bad.status is Tier.CONTRAINDICATED else None, said, code=code)
            raise DevicesNotAccepted(said)
        if counts != expected:
            why = f"the policy asks for {_counted(expected)}, and there is {_counted(counts)}"
        elif None in machines or len(set(machines)) != len(machines):
            why = "a device stands there twice, or does not say which it is"
        elif allowed is not None and not allowed.issuperset(machines):
            why = f"the policy does not name the machine {next(m for m in machines if m not in allowed)}"
        elif any(device.verified is None or device.verified.debug is not False for device in self.devices):
            why = "a device can be debugged"
        else:
            why = self.apart()
        self.check("A14", not why, DevicesNotAccepted(why), seen=_counted(counts))

    def apart(self) -> str:
        """Why the devices are not accepted together, or ``""``: what each is linked to is no matter of one device alone."""
        try:
            require_together([(device.platform, device.verified) for device in self.devices if device.verified])
        except DevicesNotAccepted as error:
            return error.message
        return ""

    def device(self, evidence: Evidence) -> DeviceResult:
        asked_for = evidence.platform in DEVICES and evidence.platform in self.policy.devices
        found = verifier(evidence.platform) if asked_for else None
        if found is None:
            raise self.refused_device(evidence.platform)
        transcript, terms, verified, vector, until = Transcript(found.STEPS), None, None, TrustVector(), None
        try:
            verified = self.genuine(found, evidence, transcript)
            terms, vector, until = self.judged(found, evidence.platform, verified)
        except AttestationError:
            vector = TrustVector(instance_identity=CRYPTO_FAILED if _failed(transcript) else 0)
        return DeviceResult(
            platform=evidence.platform,
            label=found.LABEL,
            vector=vector,
            policy_digest=self.policy.digest,
            transcript=transcript,
            terms_transcript=terms,
            verified=verified,
            tolerated_until=until,
            maker=MAKER,
        )

    def refused_device(self, name: str) -> AttestationError:
        problem = DevicesNotAccepted(f"the policy does not ask for a device of kind {name!r}")
        self.transcript.record("A14", passed=False, detail=problem.message, code=problem.code)
        return problem

    def devices_bound(self, keyset: Keyset, nonce: bytes) -> None:
        """A15: the device's nonce follows from the processor's report data, and an attested key signs what all devices said.

        A nonce alone is public, and a device elsewhere could answer it. That *these* devices are used rests on what runs,
        which A10 names.
        """
        if not self.evidence.devices:
            self.transcript.record("A15", passed=True, detail="there are none")
            return
        expected = report_data(keyset.digest, nonce)
        try:
            if not all(device.verified is not None and device.verified.binds(expected) for device in self.devices):
                raise DeviceNotBound("a device's nonce does not follow from the processor's report data")
            binding.check(keyset, expected, self.evidence.devices, self.evidence.device_binding)
        except AttestationError as error:
            self.check("A15", False, error)
        seen = "by the nonce and by an attested key; that these devices are used rests on what was measured"
        self.transcript.record("A15", passed=True, detail=seen)

    def devices_seen(self, verified: Verified, lacks: str) -> None:
        """A15, where nothing is bound: by what, if anything, the devices' evidence hangs together with the processor's."""
        seen = "there are none"
        if self.beside_it:
            found = [device.verified for device in self.devices]
            slot = verified.report_data
            if found and all(v is not None and v.binds(slot) for v in found):
                seen = f"by the nonce alone, which is public: {lacks}"
            elif found and all(_repeated(v, slot[NONCE_BYTES:]) if v is not None else False for v in found):
                seen = f"by the second half of the report data alone, which is public: {lacks}"
            else:
                seen = "by nothing"
        self.transcript.record("A15", None if self.beside_it else True, seen, code=DeviceNotBound.code)

    def ends(self) -> Iterator[int]:
        """Until when each member's endorsements hold, and until when its terms tolerate what they do."""
        for verified, until in (
            (self.verified, self.tolerated_until),
            *((device.verified, device.tolerated_until) for device in self.devices),
        ):
            if verified is not None:
                yield verified.valid_until
            if until is not None:
                yield until

    def result(self, keyset: Keyset | None, nonce: bytes) -> AttestationResult:
        """What was found of an enclave with this keyset."""
        found = self.found(keyset.digest if keyset else "", keyset.not_after if keyset else None, nonce)
        return replace(found, keyset=keyset if found.valid_until is not None else None, maker=MAKER)

    def found(self, identity: str, ends: int | None, nonce: bytes) -> AttestationResult:
        """What was found. ``identity``: a digest of the key or keys in question; ``ends``: their last second, Unix."""
        verified = self.verified
        status = tier_of((self.transcript,))
        affirming = status is Tier.AFFIRMING and verified is not None
        return AttestationResult(
            status=status,
            label=self.label,
            platform=self.evidence.platform,
            measurement=verified.measurement if verified else None,
            build=self.build,
            keyset=None,
            keyset_digest=identity,
            nonce=nonce,
            policy_digest=self.policy.digest,
            vector=self.vector,
            collateral=verified.collateral if verified else (),
            at=self.at,
            valid_until=min(ends, *self.ends()) if affirming and ends is not None else None,
            transcript=self.transcript,
            platform_transcript=self.platform_transcript,
            terms_transcript=self.terms_transcript,
            devices=self.devices,
            verified=verified,
            tolerated_until=self.tolerated_until,
            maker=MAKER,
        )


def _failed(transcript: Transcript) -> bool:
    return any(check.status is Status.FAILED for check in transcript.checks)


def appraise(
    evidence: Evidence, *, policy: AppraisalPolicy, endorsements: Endorsements, nonce: bytes, at: int, keyset: Keyset
) -> AttestationResult:
    """Appraise evidence under a policy: checks A1 to A15, in order, up to the first that does not pass.

    Args:
        evidence: untrusted.
        policy: the verifier's own.
        endorsements: untrusted; what came with the evidence.
        nonce: the 32 bytes that this verifier gave for this one question. There is no form without: a missing one fails A5.
        at: the time in question, unix seconds.
        keyset: untrusted; the keyset that the evidence must bind.

    Returns:
        an affirming result when every check passed, and one that is not otherwise. Bytes never make it raise.
    """
    appraisal = Appraisal(evidence, policy, endorsements, at)
    try:
        by, verified = appraisal.platform()
        appraisal.no_debug(verified)
        appraisal.bound(verified, keyset, nonce)
        appraisal.fresh(verified)
        appraisal.keys(keyset)
        appraisal.measured(verified)
        appraisal.terms(by, verified)
        appraisal.machine(verified)
        appraisal.event_log(verified)
        appraisal.beside()
        appraisal.devices_bound(keyset, nonce)
    except AttestationError:
        pass  # recorded, with its code; nothing after it is established
    return appraisal.result(keyset, nonce if isinstance(nonce, bytes) else b"")


def look(
    evidence: Evidence,
    *,
    policy: AppraisalPolicy,
    endorsements: Endorsements,
    bare: Bare,
    at: int,
    devices: tuple[Evidence, ...] = (),
) -> AttestationResult:
    """What can be said of evidence without a keyset or a nonce, for people to see: every check that can be made is made.

    Args:
        evidence, policy, endorsements, at: as for :func:`appraise`.
        bare: what is known in their place.
        devices: what came beside evidence that has none of its own, bound by no key of the enclave's.

    Returns:
        a result that is never affirming: without a keyset A5, A8 and A9 are not established, without a nonce A5 and A6, and
        with devices A15.
    """
    appraisal = Appraisal(evidence, policy, endorsements, at)
    appraisal.beside_it = evidence.devices or devices

    def each(*steps: Callable[[], None]) -> None:
        for step in steps:
            try:
                step()
            except AttestationError:
                continue  # recorded, with its code

    try:
        by, verified = appraisal.platform()
    except AttestationError:
        return appraisal.result(bare.keyset, bare.nonce or b"")
    keyset = bare.keyset
    if keyset is None:
        for number in ("A5", "A8", "A9"):
            appraisal.transcript.record(number, None, bare.lacks, code=BadKeyset.code)
    else:
        appraisal.transcript.record("A5", None, bare.lacks, code=BadNonce.code)
        each(lambda: appraisal.keys(keyset))
    each(
        lambda: appraisal.no_debug(verified),
        lambda: appraisal.repeats(verified, bare.nonce),
        lambda: appraisal.fresh(verified),
        lambda: appraisal.measured_as_nothing(verified),
        lambda: appraisal.terms(by, verified),
        lambda: appraisal.machine(verified),
        lambda: appraisal.event_log(verified),
        appraisal.beside,
        lambda: appraisal.devices_seen(verified, bare.lacks),
    )
    return appraisal.result(bare.keyset, bare.nonce or b"")


def look_at_devices(
    devices: tuple[Evidence, ...], *, policy: AppraisalPolicy, endorsements: Endorsements, at: int
) -> tuple[DeviceResult, ...]:
    """What can be said of devices whose processor's evidence is not there, for people to see: nothing binds them.

    Args:
        devices: untrusted. Of a kind that the policy does not ask for, they are left out.
        policy, endorsements, at: as for :func:`appraise`.
    """
    asked_for = [device for device in devices if device.platform in policy.devices]
    appraisal = Appraisal(Evidence("none", b""), policy, endorsements, at)
    return tuple(appraisal.device(device) for device in asked_for)
