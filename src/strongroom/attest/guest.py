"""``appraise_guest()``: the appraisal of a guest that has no keyset, but one key of its own, bound with a nonce.

The checks are those of ``appraise``, A1 to A15 under the same numbers; A5, A6, A8 and A9 say of a guest's runtime data what
they say of a keyset elsewhere. See ``spec/rcar.md``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

from strongroom import wire
from strongroom.errors import (
    AttestationError,
    BadField,
    BadKeyset,
    BadNonce,
    DevicesNotAccepted,
    KeysetExpired,
    NotBound,
)
from strongroom.transcript import Steps, Transcript

from .appraisal import MAX_CLOCK_SKEW_S, Appraisal
from .appraisal import STEPS as EVERY_STEP
from .appraisal_policy import AppraisalPolicy
from .evidence import REPORT_DATA_BYTES, Endorsements, Evidence, Verified
from .keyset import NONCE_BYTES
from .result import AttestationResult
from .tee_key import TeeKey

GUEST_STEPS = Steps(
    "A",
    [
        {
            "A5": "the nonce in the guest's runtime data is 32 bytes",
            "A6": "the evidence binds the hash of the guest's runtime data: this key and this nonce",
            "A8": "the guest's session has begun, and has not ended",
            "A9": "the guest has one usable key, and it is for encryption",
            "A14": "there are no devices: a guest's are not appraised",
        }.get(number, name)
        for number, name in EVERY_STEP
    ],
)


@dataclass(frozen=True, slots=True)
class RuntimeData:
    """What a guest's evidence must be made over. **Untrusted**: what is hashed is what the guest sent.

    Attributes:
        nonce: from the broker, as the challenge spelled it: standard base64.
        key: the guest's own.
        additional: what came as evidence of devices, as the guest spelled it; ``None`` in the versions of the protocol that
            hash nothing of the kind.
    """

    nonce: str
    key: TeeKey
    additional: str | None = None

    def encode(self) -> bytes:
        """The canonical bytes that are hashed (RFC 8785)."""
        beside = {} if self.additional is None else {"additional-evidence": self.additional}
        return wire.encode({**beside, "nonce": self.nonce, "tee-pubkey": self.key.to_json()})

    @property
    def hash(self) -> bytes:
        """SHA-384 of them, 48 bytes: what a guest puts into the platform's slot."""
        return hashlib.sha384(self.encode()).digest()

    @property
    def report_data(self) -> bytes:
        """The slot's 64 bytes: the hash and zeros."""
        return self.hash.ljust(REPORT_DATA_BYTES, b"\0")

    @property
    def raw_nonce(self) -> bytes:
        """The nonce's bytes; empty where it is not base64."""
        try:
            return base64.b64decode(self.nonce, validate=True)
        except (binascii.Error, ValueError):
            return b""


class _GuestAppraisal(Appraisal):
    """One guest's appraisal under way."""

    def __init__(
        self, evidence: Evidence, policy: AppraisalPolicy, endorsements: Endorsements, at: int, runtime: RuntimeData
    ) -> None:
        super().__init__(evidence, policy, endorsements, at)
        self.runtime = runtime
        self.transcript = Transcript(GUEST_STEPS)

    def bound_to(self, verified: Verified, nonce: bytes) -> None:
        """A5 and A6."""
        usable = len(nonce) == NONCE_BYTES and self.runtime.raw_nonce == nonce
        self.check("A5", usable, BadNonce("the runtime data holds another nonce than the session's"))
        other = NotBound("the evidence is for another nonce or another key")
        seen = f"sha384:{self.runtime.hash.hex()}, of key {self.runtime.key.digest} and nonce {nonce.hex()}"
        self.check("A6", verified.binds(self.runtime.report_data), other, seen=seen)

    def session(self, began: int, until: int) -> None:
        """A8 and A9."""
        over = KeysetExpired(f"the session was from {began} until {until}, and it is {self.at}")
        self.check("A8", began - MAX_CLOCK_SKEW_S <= self.at < until, over, seen=f"until {until}")
        try:
            TeeKey.from_json(self.runtime.key.to_json())
        except (AttestationError, BadField) as error:
            self.check("A9", False, BadKeyset(str(error)))
        self.transcript.record("A9", passed=True, detail=self.runtime.key.alg)

    def alone(self) -> None:
        """A14 and A15: a policy that asks for devices gets none from a guest."""
        none = not (self.evidence.devices or self.policy.devices) and self.runtime.additional in (None, "", "{}")
        self.check("A14", none, DevicesNotAccepted("devices beside a guest are not appraised here"), seen="none")
        self.transcript.record("A15", passed=True, detail="there are none")


def appraise_guest(
    evidence: Evidence,
    *,
    policy: AppraisalPolicy,
    endorsements: Endorsements,
    nonce: bytes,
    runtime: RuntimeData,
    began: int,
    until: int,
    at: int,
) -> AttestationResult:
    """Appraise a guest's evidence under a policy: checks A1 to A15, in order, up to the first that does not pass.

    Args:
        evidence, endorsements: untrusted.
        policy: the verifier's own.
        nonce: the 32 bytes that this verifier gave for this one session.
        runtime: untrusted; what the evidence must bind.
        began, until: the session: its first second, and the first at which it is over, Unix.
        at: the time in question, Unix seconds.

    Returns:
        an affirming result when every check passed, and one that is not otherwise. It has no keyset; its ``keyset_digest``
        is the guest's identity. Bytes never make it raise.
    """
    appraisal = _GuestAppraisal(evidence, policy, endorsements, at, runtime)
    try:
        by, verified = appraisal.platform()
        appraisal.no_debug(verified)
        appraisal.bound_to(verified, nonce)
        appraisal.fresh(verified)
        appraisal.session(began, until)
        appraisal.measured(verified)
        appraisal.terms(by, verified)
        appraisal.machine(verified)
        appraisal.event_log(verified)
        appraisal.alone()
    except AttestationError:
        pass  # recorded, with its code; nothing after it is established
    return appraisal.found(runtime.key.digest, until - 1, nonce)
