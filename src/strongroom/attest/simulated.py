"""The simulated platform: evidence signed by a key on disk. It protects nothing from the machine's owner, and says so.

A *root key* signs an endorsement of a *platform key*; the platform key signs the evidence. A verifier pins the root. The
chain has the links of a hardware platform's, so that a laptop walks the same path.

See ``spec/attestation.md``; the checks P1 to P5 are numbered as there.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass

from strongroom import wire
from strongroom.errors import (
    AttestationError,
    BadEndorsement,
    BadEvidence,
    BadSignature,
    EndorsementExpired,
    EndorsementMissing,
    EndorsementNotYetValid,
    EvidenceForged,
    PartyError,
    UnknownRoot,
    WireError,
)
from strongroom.party import SigningKey, VerifyKey
from strongroom.transcript import Steps, Transcript
from strongroom.wire import JSON, Envelope, Fields

from .evidence import REPORT_DATA_BYTES, Endorsement, Endorsements, Evidence, Measurement, Roots
from .vector import AFFIRMED, TrustVector

PLATFORM = "simulated"
LABEL = "platform: simulated (no hardware protection)"
EVIDENCE_TYPE = wire.media_type("simulated-evidence")
ENDORSEMENT_TYPE = wire.media_type("platform-endorsement")
STEPS = Steps(
    "P",
    [
        "the evidence is a well-formed simulated quote",
        "exactly one endorsement names the key that signed it",
        "the endorsement is signed by a root that the policy pins",
        "the endorsement is valid at the time in question",
        "the evidence is signed by the endorsed platform key",
    ],
)

TERMS_STEPS = None

_MAKER = object()


@dataclass(frozen=True, slots=True)
class Terms:
    """Nothing can be asked of a platform that protects nothing."""

    def to_json(self) -> dict[str, JSON]:
        return {}

    @classmethod
    def from_json(cls, value: object) -> Terms:
        """Raises BadField."""
        Fields(value, "terms of simulated").end()
        return cls()


@dataclass(frozen=True, slots=True)
class Claims:
    """What a simulated quote says. **Untrusted**: :func:`verify` says whether a platform signed it.

    Attributes:
        report_data: 64 bytes chosen by the enclave.
        measurement: what runs, as the platform measured it.
        debug: whether the enclave was started for debugging.
        produced_at: unix seconds by the platform's clock.
    """

    report_data: bytes
    measurement: Measurement
    debug: bool
    produced_at: int

    def encode(self) -> bytes:
        """The canonical payload that the platform key signs."""
        return wire.encode(
            {
                "debug": self.debug,
                "measurement": self.measurement.to_json(),
                "produced_at": self.produced_at,
                "report_data": self.report_data.hex(),
            }
        )

    def sign(self, platform_key: SigningKey) -> Evidence:
        """The evidence that a platform with this key gives out."""
        return Evidence(PLATFORM, platform_key.sign(EVIDENCE_TYPE, self.encode()).encode())


def _read(data: bytes) -> tuple[Envelope, Claims]:
    try:
        envelope = Envelope.parse(data)
        f = Fields(wire.decode(envelope.expect(EVIDENCE_TYPE)), "quote")
        claims = Claims(
            report_data=f.hex("report_data", size=REPORT_DATA_BYTES),
            measurement=Measurement.from_json(f.any("measurement")),
            debug=f.boolean("debug"),
            produced_at=f.integer("produced_at"),
        )
        f.end()
    except (WireError, AttestationError) as error:
        raise BadEvidence(f"not a simulated quote: {error}") from error
    if claims.measurement.platform != PLATFORM:
        raise BadEvidence("not a simulated quote: the measurement is another platform's")
    if len(envelope.signatures) != 1:
        raise BadEvidence("not a simulated quote: not exactly one signature")
    return envelope, claims


def parse(data: bytes) -> Claims:
    """What a simulated quote says, believed by nobody yet. Raises BadEvidence."""
    return _read(data)[1]


@dataclass(frozen=True, slots=True)
class PlatformEndorsement:
    """What a root says of a platform key. **Untrusted** until the root's signature is checked.

    Attributes:
        platform_key: the key that signs evidence.
        not_before, not_after: first and last second of validity, unix.
        serial: 16 bytes, to tell endorsements apart.
    """

    platform_key: VerifyKey
    not_before: int
    not_after: int
    serial: bytes

    def encode(self) -> bytes:
        """The canonical payload that the root signs."""
        found: dict[str, JSON] = {
            "not_after": self.not_after,
            "not_before": self.not_before,
            "platform": PLATFORM,
            "platform_key": wire.b64(self.platform_key.raw),
            "serial": self.serial.hex(),
        }
        return wire.encode(found)

    @classmethod
    def parse(cls, payload: bytes) -> PlatformEndorsement:
        """Raises BadEndorsement."""
        try:
            f = Fields(wire.decode(payload, max_bytes=4096), "endorsement")
            f.literal("platform", PLATFORM)
            found = cls(
                platform_key=VerifyKey(f.base64("platform_key")),
                not_before=f.integer("not_before"),
                not_after=f.integer("not_after"),
                serial=f.hex("serial", size=16),
            )
            f.end()
        except (WireError, PartyError) as error:
            raise BadEndorsement(f"not an endorsement of a simulated platform's key: {error}") from error
        return found

    def sign(self, root: SigningKey) -> Endorsement:
        """The endorsement that a root with this key gives out."""
        return Endorsement(ENDORSEMENT_TYPE, root.sign(ENDORSEMENT_TYPE, self.encode()).encode())


@dataclass(frozen=True, slots=True)
class SimulatedVerified:
    """A simulated quote whose signatures hold. Made by :func:`verify` alone; attributes as in ``evidence.Verified``."""

    report_data: bytes
    measurement: Measurement
    debug: bool
    produced_at: int
    valid_until: int
    collateral: tuple[str, ...]
    maker: InitVar[object]

    def __post_init__(self, maker: object) -> None:
        if maker is not _MAKER:
            raise TypeError("only verify() makes a SimulatedVerified")

    @property
    def machine(self) -> None:
        """A simulated platform is on no machine in particular."""
        return

    def binds(self, report_data: bytes) -> bool:
        """Whether these 64 bytes are what the enclave had signed."""
        return self.report_data == report_data

    @property
    def vector(self) -> TrustVector:
        """The platform's key is recognised. Of hardware, memory and storage nothing is claimed: there is no protection."""
        return TrustVector(instance_identity=AFFIRMED)


def _endorsement_of(keyid: str, endorsements: Endorsements) -> tuple[Envelope, PlatformEndorsement]:
    """The one endorsement that names this key. Every document must be an endorsement: junk beside a good one is refused."""
    found: list[tuple[Envelope, PlatformEndorsement]] = []
    for document in endorsements.documents:
        if document.media_type != ENDORSEMENT_TYPE:
            raise BadEndorsement(f"a simulated platform has no endorsements of type {document.media_type[:80]!r}")
        try:
            envelope = Envelope.parse(document.data)
            payload = envelope.expect(ENDORSEMENT_TYPE)
        except WireError as error:
            raise BadEndorsement(f"not an endorsement: {error}") from error
        endorsement = PlatformEndorsement.parse(payload)
        if endorsement.platform_key.keyid == keyid:
            found.append((envelope, endorsement))
    if len(found) != 1 or len(endorsements.documents) != 1:  # what else came along could be changed by anybody
        raise EndorsementMissing(f"{len(found)} endorsements, where exactly one must name the key that signed the evidence")
    return found[0]


def _by_pinned_root(envelope: Envelope, endorsed: VerifyKey, roots: tuple[VerifyKey, ...]) -> None:
    root = next((root for root in roots if [root.keyid] == [s.keyid for s in envelope.signatures]), None)
    if root is None:
        raise UnknownRoot("the endorsement is not signed by exactly one root, and that one pinned")
    if endorsed in roots:
        raise BadEndorsement("a root endorses a root as a platform key: one key per role")
    try:
        root.verify(envelope, ENDORSEMENT_TYPE)
    except WireError as error:
        raise BadEndorsement("the endorsement is not signed by the root that it names") from error


def _require_valid(endorsement: PlatformEndorsement, at: int) -> None:
    if at < endorsement.not_before:
        raise EndorsementNotYetValid(f"the endorsement is valid from {endorsement.not_before}, after {at}")
    if at > endorsement.not_after:
        raise EndorsementExpired(f"the endorsement was valid until {endorsement.not_after}, before {at}")


def verify(
    evidence: Evidence, endorsements: Endorsements, *, roots: Roots, at: int, transcript: Transcript
) -> SimulatedVerified:
    """The one maker of a ``SimulatedVerified``: P1 to P5, in order.

    Args:
        evidence: untrusted.
        endorsements: untrusted.
        roots: the verifier's own; no key means that nothing verifies.
        at: the time in question, unix seconds.
        transcript: of ``STEPS``; every check is recorded in it.

    Raises:
        BadEvidence: P1.
        EndorsementMissing, BadEndorsement: P2.
        UnknownRoot, BadEndorsement: P3.
        EndorsementNotYetValid, EndorsementExpired: P4.
        EvidenceForged: P5.
    """
    number = "P1"
    try:
        envelope, claims = _read(evidence.data)
        transcript.record(number, passed=True)

        number = "P2"
        endorsed_by, endorsement = _endorsement_of(envelope.signatures[0].keyid, endorsements)
        transcript.record(number, passed=True, detail=f"platform key {endorsement.platform_key.keyid}")

        number = "P3"
        _by_pinned_root(endorsed_by, endorsement.platform_key, roots.keys)
        transcript.record(number, passed=True, detail=f"root {endorsed_by.signatures[0].keyid}")

        number = "P4"
        _require_valid(endorsement, at)
        transcript.record(number, passed=True, detail=f"until {endorsement.not_after}")

        number = "P5"
        try:
            endorsement.platform_key.verify(envelope, EVIDENCE_TYPE)
        except BadSignature as error:
            raise EvidenceForged("the evidence is not signed by the key that it names") from error
        transcript.record(number, passed=True)
    except AttestationError as error:
        transcript.record(number, passed=False, detail=error.message, code=error.code)
        raise
    return SimulatedVerified(
        report_data=claims.report_data,
        measurement=claims.measurement,
        debug=claims.debug,
        produced_at=claims.produced_at,
        valid_until=endorsement.not_after,
        collateral=(endorsed_by.digest,),
        maker=_MAKER,
    )


def judge(verified: SimulatedVerified, terms: Terms, *, at: int, transcript: Transcript) -> TrustVector:  # noqa: ARG001
    """There are no terms, and so nothing to record."""
    return verified.vector
