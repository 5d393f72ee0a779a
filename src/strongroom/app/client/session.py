"""What a client establishes about a service before it sends a byte of a prompt: checks E1 to E8.

Nothing here opens a socket: :func:`questions` says what to ask, :func:`establish` what the answers amount to. A ``Session``
is what passed; only ``establish`` makes one.

See ``docs/private-inference.md``; the numbers of the checks are the same there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import InitVar, dataclass, field
from types import MappingProxyType
from typing import TypeVar

from strongroom import drawing, wire
from strongroom.asset import Manifest, Scheme, verify_manifest
from strongroom.attest.appraisal import appraise
from strongroom.attest.keyset import AttestationReport, Keyset, parse_nonce
from strongroom.attest.result import AttestationResult
from strongroom.contract import Contract, Proposal
from strongroom.ehbp import KEYS_PATH, KEYSET_ALGO, Padding, PublicKey
from strongroom.errors import (
    BadEvidence,
    BadKeyConfig,
    BadKeyset,
    EnclaveNotNamed,
    Internal,
    KeysetOfAnotherRun,
    NotFound,
    NotJson,
    NotPermitted,
    OtherContract,
    OtherPolicy,
    OtherWeights,
    StrongroomError,
    WrongKeyset,
    from_json,
)
from strongroom.inference.events import Observability
from strongroom.inference.expected import Agreed
from strongroom.inference.guard import Guard, Stage
from strongroom.transcript import Steps, Transcript
from strongroom.trust import Trust
from strongroom.wire import Envelope, Fields

ATTESTATION_PATH, ROOM_PATH, RECEIPTS_PATH = "/v1/aci/attestation", "/v1/room", "/v1/aci/receipts/"
KEYSET_HEADER = "X-ACI-Keyset-Digest"
PROGRAM = "serve-llm"
MAX_REPLY_BYTES = 4 << 20
MARGIN_S = 300  # a session is renewed when it has less than this to live: answers take time

STEPS = Steps(
    "E",
    [
        "the service answers with an attestation report",
        "its evidence affirms its keyset, for this client's nonce (A1 to A15)",
        "the contract that it shows is the expected one, signed by all its parties, and in force",
        "it is a standing contract, and its program serves models",
        "the keyset was made for this contract",
        "what runs there is what the contract names",
        "the keyset has one key for requests, and the well-known address names no other",
        "the contract settles each model's weights, the policy and its guards",
    ],
)

T = TypeVar("T")
_MAKER = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a client relies on: its own, from another channel than the service.

    Attributes:
        trust: platform roots and expected measurements.
        contract: the digest of the contract under which it wants to be served.
        weights: name of a model -> the SHA-256 of its weights; needed of those alone whose owner does not show it.
    """

    trust: Trust
    contract: str
    weights: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        Fields({"contract": self.contract}, "terms").digest("contract")
        for digest in self.weights.values():
            Fields({"weights": digest}, "terms").digest("weights")


@dataclass(frozen=True, slots=True)
class Reply:
    """What a service answered to a question of a session's. **Untrusted.**"""

    status: int
    body: bytes
    keyset: str | None = None

    def require(self, what: str) -> bytes:
        """The body of a success. Raises what a service of ours says in refusal, NotFound, Internal."""
        if self.status == 200:
            return self.body
        try:
            said: StrongroomError = from_json(wire.loads(self.body, max_bytes=64 << 10)["error"])
        except (StrongroomError, KeyError, TypeError):
            said = (NotFound if self.status == 404 else Internal)(f"HTTP {self.status}")
        said.message = f"the service does not show {what}: {said.message}"
        raise said


def questions(nonce: bytes) -> tuple[str, str, str]:
    """The paths to ask for, side by side: the report, the key configuration, the room."""
    return f"{ATTESTATION_PATH}?nonce={nonce.hex()}", KEYS_PATH, ROOM_PATH


@dataclass(frozen=True, slots=True)
class Shown:
    """What a service shows of its room. **Untrusted**: a contract is recognised by its digest, a manifest by its owner.

    Attributes:
        contract: the envelope.
        manifests: envelopes of the assets' manifests.
        guards: those that run, with the digest of each program.
    """

    contract: Envelope
    manifests: tuple[Envelope, ...]
    guards: tuple[Guard, ...]

    @classmethod
    def from_json(cls, value: object) -> Shown:
        """Raises BadField, BadEnvelope. Members that are for people to read are not looked at."""
        f = Fields(value, "room")
        return cls(
            contract=Envelope.from_json(f.any("contract")),
            manifests=f.items("manifests", Envelope.from_json, high=64),
            guards=f.items("guards", _guard, high=32),
        )

    def to_json(self) -> dict[str, wire.JSON]:
        return {
            "contract": self.contract.to_json(),
            "guards": [guard.to_json() for guard in self.guards],
            "manifests": [manifest.to_json() for manifest in self.manifests],
        }


def _guard(value: object) -> Guard:
    f = Fields(value, "guard")
    found = Guard(f.name("name"), f.digest("program"), Stage(f.text("stage", choices=list(Stage))))
    f.end()
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A service as this client established it. Made by :func:`establish` alone.

    Attributes:
        nonce: what this client asked with, 32 bytes.
        at: when it asked, Unix seconds.
        report: the service's answer, as it came.
        keys: the key configuration of the well-known address, as it came.
        shown: what it shows of its room; the contract in it is the expected one.
        contract: completely signed, of the expected digest.
        appraisal: affirming; its own checks are A1 to A15.
        keyset: the attested one.
        key: to which requests are encrypted.
        padding: of bodies, both ways; ``None`` for none.
        models: name -> what a receipt of an answer by it must say.
        transcript: E1 to E8.
        until: the last second at which all of it holds, Unix.
    """

    nonce: bytes
    at: int
    report: bytes
    keys: bytes
    shown: Shown
    contract: Contract
    appraisal: AttestationResult
    keyset: Keyset
    key: PublicKey
    padding: Padding | None
    models: Mapping[str, Agreed]
    transcript: Transcript
    until: int
    maker: InitVar[object]

    def __post_init__(self, maker: object) -> None:
        if maker is not _MAKER:
            raise TypeError("only establish() makes a Session")

    @property
    def label(self) -> str:
        """How to name the platform to people."""
        return self.appraisal.label

    @property
    def keyset_digest(self) -> str:
        """Of the attested keyset."""
        return self.appraisal.keyset_digest

    @property
    def simulated(self) -> bool:
        """Whether nothing protects it from who owns the machine."""
        return self.appraisal.platform == "simulated"

    @property
    def agreed(self) -> Agreed:
        """What holds of every model: for a request that names none of them, which is refused before one is chosen."""
        return next(iter(self.models.values()))

    def lasts(self, at: int) -> bool:
        """Whether it holds long enough for another request."""
        return at + MARGIN_S <= self.until


class _Establishing:
    """The checks in their order; the first that does not pass ends it."""

    def __init__(self) -> None:
        self.transcript = Transcript(STEPS)

    def check(self, number: str, work: Callable[[], tuple[T, str]]) -> T:
        try:
            found, said = work()
        except StrongroomError as error:
            self.transcript.record(number, passed=False, detail=error.message, code=error.code)
            error.message = f"{number}: {error.message}"
            raise
        self.transcript.record(number, passed=True, detail=said)
        return found


def establish(terms: Terms, *, nonce: bytes, replies: tuple[Reply, Reply, Reply], at: int) -> Session:
    """Make a session of what a service answered.

    Args:
        terms: the client's own.
        nonce: 32 fresh random bytes, which the report was asked for with.
        replies: to :func:`questions`, in that order; untrusted.
        at: now, Unix seconds.

    Raises:
        StrongroomError: the leaf of the first check that does not pass; its number stands before the message.
    """
    reported, keys, room = replies
    made = _Establishing()
    report = made.check("E1", lambda: _report(reported, nonce))
    appraisal = made.check("E2", lambda: _affirmed(report, terms, nonce, at))
    keyset = appraisal.require()
    shown, contract = made.check("E3", lambda: _contract(room, terms, at))
    proposal = contract.proposal
    made.check("E4", lambda: _served(proposal))
    made.check("E5", lambda: _made_for(keyset, contract))
    made.check("E6", lambda: _named(appraisal, proposal))
    key = made.check("E7", lambda: _key(keyset, keys))
    models, padding = made.check("E8", lambda: _settled(shown, contract, terms))
    assert appraisal.valid_until is not None
    return Session(
        nonce=nonce,
        at=at,
        report=reported.body,
        keys=keys.body,
        shown=shown,
        contract=contract,
        appraisal=appraisal,
        keyset=keyset,
        key=key,
        padding=padding,
        models=MappingProxyType(models),
        transcript=made.transcript,
        until=min(appraisal.valid_until, keyset.not_after, proposal.not_after - 1),
        maker=_MAKER,
    )


def attested(contract: Contract, trust: Trust, *, nonce: bytes, reply: Reply, at: int) -> Keyset:
    """The keyset of a contract's room, for a party of it that sends no prompt there: E1, E2, E5 and E6.

    Args:
        contract: the party's own.
        trust: the party's own.
        nonce: 32 fresh random bytes, which the report was asked for with.
        reply: to the first of :func:`questions`; untrusted.
        at: now, Unix seconds.

    Raises:
        StrongroomError: the leaf of the first of these checks that does not pass.
    """
    report, _ = _report(reply, nonce)
    appraisal, _ = _affirmed(report, Terms(trust=trust, contract=contract.digest), nonce, at)
    keyset = appraisal.require()
    _made_for(keyset, contract)
    _named(appraisal, contract.proposal)
    return keyset


def _report(reply: Reply, nonce: bytes) -> tuple[AttestationReport, str]:
    parse_nonce(nonce.hex())
    body = reply.require("its attestation report")
    try:
        found = AttestationReport.parse(body)
    except NotJson as error:
        raise BadEvidence("what it answers is no attestation report") from error
    if reply.keyset is not None and reply.keyset != found.keyset.digest:
        raise WrongKeyset("the report is of another keyset than the one that its own header names")
    return found, f"{found.evidence.platform}, {found.keyset.digest}"


def _affirmed(report: AttestationReport, terms: Terms, nonce: bytes, at: int) -> tuple[AttestationResult, str]:
    found = appraise(
        report.evidence,
        policy=terms.trust.appraisal_policy(),
        endorsements=report.endorsements,
        nonce=nonce,
        at=at,
        keyset=report.keyset,
    )
    found.require()
    return found, found.label


def _contract(reply: Reply, terms: Terms, at: int) -> tuple[tuple[Shown, Contract], str]:
    shown = Shown.from_json(wire.loads(reply.require("its room"), max_bytes=MAX_REPLY_BYTES))
    if shown.contract.digest != terms.contract:
        raise OtherContract(f"it serves under {shown.contract.digest}, and {terms.contract} is expected")
    found = Contract.verify(shown.contract)
    found.require_in_force(at)
    return (shown, found), found.digest


def _served(proposal: Proposal) -> tuple[None, str]:
    if proposal.policy.serve is None or proposal.program.name != PROGRAM:
        raise NotPermitted("the contract is not one under which models are served")
    return None, ", ".join(sorted(proposal.policy.serve.routes))


def _made_for(keyset: Keyset, contract: Contract) -> tuple[None, str]:
    subject = f"strongroom-run://{contract.digest.removeprefix('sha256:')}/"
    if not (keyset.subject or "").startswith(subject):
        raise KeysetOfAnotherRun("the keyset is attested, and was made for something else than this contract")
    return None, keyset.subject or ""


def _named(appraisal: AttestationResult, proposal: Proposal) -> tuple[None, str]:
    if appraisal.measurement not in proposal.enclave.measurements:
        raise EnclaveNotNamed("what runs there is trusted here, but is not what the contract's parties agreed to")
    assert appraisal.measurement is not None
    return None, appraisal.measurement.digest


def _key(keyset: Keyset, reply: Reply) -> tuple[PublicKey, str]:
    entries = [entry for entry in keyset.e2ee_public_keys if entry.algo == KEYSET_ALGO]
    if len(entries) != 1:
        raise BadKeyset(f"the keyset has {len(entries)} keys for requests, not one")
    found = PublicKey(entries[0].raw)
    try:
        shown = PublicKey.from_config(reply.require("its key for requests"))
    except BadKeyConfig as error:
        raise BadKeyConfig(f"the well-known address names no key: {error.message}") from error
    if shown != found:
        raise WrongKeyset("the well-known address names another key than the attested keyset")
    return found, found.raw.hex()


def _settled(shown: Shown, contract: Contract, terms: Terms) -> tuple[tuple[dict[str, Agreed], Padding | None], str]:
    proposal = contract.proposal
    serve = proposal.policy.serve
    assert serve is not None  # E4
    padding = Padding(serve.padding_sizes) if serve.padding_sizes else None
    guards = _guards(shown, serve.input_guards, serve.output_guards)
    manifests = {envelope.digest: envelope for envelope in shown.manifests}
    drawn = drawing.agreed(proposal.program.parameters)
    sources = {ref.manifest: drawn[ref.role] for ref in proposal.assets if ref.role in drawn}
    models = {}
    for name, role in _models(proposal):
        ref = next((ref for ref in proposal.assets if ref.role == role), None)
        if ref is None or ref.manifest not in manifests:
            raise OtherWeights(f"the manifest of {name!r} is not shown")
        owner = proposal.party(ref.owner)
        manifest = verify_manifest(manifests[ref.manifest], owner.signing_key).manifest
        if manifest.owner != ref.owner:
            raise OtherWeights(f"the manifest of {name!r} is of another owner's asset")
        models[name] = Agreed(
            contract=contract.digest,
            model=name,
            weights=_weights(name, manifest, terms),
            asset=ref.manifest,
            policy=wire.digest(wire.encode(proposal.policy.to_json())),
            guards=guards,
            padding=serve.padding_sizes,
            observability=Observability(serve.observability),
            sources=sources,
        )
    if not models:
        raise OtherWeights("the contract names no model")
    return (models, padding), ", ".join(f"{name} {agreed.weights}" for name, agreed in models.items())


def _models(proposal: Proposal) -> list[tuple[str, str]]:
    """The models of a contract: name and role. Raises BadField."""
    f = Fields(proposal.program.parameters, "parameters")

    def one(value: object) -> tuple[str, str]:
        g = Fields(value, "model")
        return g.text("name", max_chars=256), g.name("role")

    return list(f.items("models", one, low=1, high=64))


def _weights(name: str, manifest: Manifest, terms: Terms) -> str:
    shown = "sha256:" + manifest.content.value.hex() if manifest.content.scheme is Scheme.SHA256 else None
    told = terms.weights.get(name)
    if shown is None and told is None:
        hint = f"Ask its owner for the SHA-256 of the weights, and say it: --weights {name}=sha256:…"
        raise OtherWeights(f"the owner of {name!r} does not show the digest of its weights", hint=hint)
    if shown is not None and told is not None and shown != told:
        raise OtherWeights(f"the contract's {name!r} has other weights than are expected")
    return told or shown or ""


def _guards(shown: Shown, inputs: frozenset[str], outputs: frozenset[str]) -> tuple[Guard, ...]:
    """The guards as the service says that they run: exactly those that the policy names."""
    for stage, named in ((Stage.INPUT, inputs), (Stage.OUTPUT, outputs)):
        found = [guard.name for guard in shown.guards if guard.stage is stage]
        if sorted(found) != sorted(named):
            raise OtherPolicy(f"the guards of the {stage.value} that run are not those of the policy")
    return shown.guards


def agreed(shown: Shown, contract: Contract, terms: Terms) -> Mapping[str, Agreed]:
    """What receipts under a contract must say, by the model's name: for who has receipts and no service (E8 alone).

    Raises:
        OtherWeights, OtherPolicy, ManifestMismatch, BadSignature, BadField.
    """
    return MappingProxyType(_settled(shown, contract, terms)[0][0])


def look(reply: Reply) -> Contract:
    """The contract that a service shows, for people to read before they rely on it. **Nothing of the service is verified.**

    Raises:
        NotFound, Internal, BadField, ContractError and its leaves.
    """
    found = Shown.from_json(wire.loads(reply.require("its room"), max_bytes=MAX_REPLY_BYTES))
    return Contract.verify(found.contract)
