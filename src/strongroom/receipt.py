"""Receipts: what a run used, made and owes, signed by the attested enclave; and the bundle in which anyone can check it.

A receipt is an in-toto Statement v1 in a DSSE envelope. Its subjects are digests of the *encrypted* outputs. It travels in a
bundle with the contract, the manifests, the keyset, the evidence for each broker's nonce, the brokers' signed releases, and
its proof of inclusion in the log. :func:`verify` starts from the verifier's own trust file and never from the bundle.

See ``spec/receipt.md``; the numbers of the checks are the same there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field

from . import parts, wire
from .asset import Manifest, verify_manifest
from .attest.appraisal import appraise
from .attest.appraisal_policy import AppraisalPolicy
from .attest.keyset import AttestationReport, Keyset, report_data
from .attest.result import AttestationResult
from .budget.charge import Used
from .contract import AssetRef, Contract, Output, Payment
from .errors import (
    ApproverMissing,
    BadProof,
    BadReceipt,
    EnclaveNotNamed,
    NotAffirming,
    NotPermitted,
    NotVerified,
    StrongroomError,
)
from .failure import NOT_TOLD, Failure
from .ledger import Entry, LoggedProof
from .observation import WITHHELD
from .policy import explain
from .release import ReleaseStatement, run_subject
from .transcript import Steps, Transcript
from .trust import Trust
from .wire import JSON, Envelope, Fields

STATEMENT_TYPE = "application/vnd.in-toto+json"
IN_TOTO = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:strongroom:run-receipt:v1"
BUNDLE_FORMAT = "strongroom.receipt-bundle.v1"
MAX_BUNDLE_BYTES = 16 << 20

_MAKER = object()

STEPS = Steps(
    "V",
    [
        "the contract has exactly one valid signature of every party",
        "every party's keys are pinned in the verifier's trust file",
        "the receipt is signed by the run-receipt key of the attested keyset",
        "the receipt is of this contract and its program, by a keyset made for this run",
        "the inputs are the contract's assets, each manifest signed by its owner",
        "every asset's terms permit the contract's policy, and whom they name approved it",
        "every input was released for this run and keyset by its owner's broker",
        "the contract was in force at every release",
        "the evidence for every release is affirmed under the verifier's trust",
        "platform and measurement are among those that the contract names",
        "the outputs, their rules and their recipients are those of the contract",
        "what is owed is what the contract says",
        "the receipt is in a log that the verifier trusts",
    ],
)


@dataclass(frozen=True, slots=True)
class Delivered:
    """An output as it left the enclave.

    Attributes:
        output: the contract's output: name, kind, rule.
        sealed: SHA-256 of the sealed file.
        manifest: digest of the output's manifest, which holds the salted commitment to the plaintext.
        box: digest of the box in which it waits for its reviewers; ``None`` where it has none.
    """

    output: Output
    sealed: str
    manifest: str
    box: str | None = None

    def to_json(self) -> dict[str, JSON]:
        found: dict[str, JSON] = {"manifest": self.manifest, "output": self.output.to_json(), "sealed": self.sealed}
        return found if self.box is None else {"box": self.box, **found}

    @classmethod
    def from_json(cls, value: object) -> Delivered:
        f = Fields(value, "delivered")
        box = f.digest("box") if f.has("box") else None
        found = cls(Output.from_json(f.any("output")), f.digest("sealed"), f.digest("manifest"), box)
        f.end()
        return found


@dataclass(frozen=True, slots=True)
class Statement:
    """What an enclave says of a run. Times are the enclave's clock, which is the host's.

    Attributes:
        contract, program: digests of what was agreed and of what ran.
        run_id: 16 bytes in hex.
        keyset_digest: the attested keyset that signs.
        started_at, ended_at: Unix seconds.
        sandbox: how the program was confined: ``bubblewrap``, ``namespaces`` or ``process``.
        inputs: the assets as the contract names them.
        releases: digests of the brokers' release statements.
        outputs: what was delivered; empty when the run failed.
        failure: ``None`` when the run completed.
        owed: what each payer owes for it; empty when the run failed.
        walls: what stood between the program and its surroundings, by names of ``contract.WALLS``, sorted; empty where the
            enclave does not say.
        used: what it used of budgets, where its contract states charges; else ``None``.
        notes: owner's name -> what it alone is told of the failure, encrypted; empty where all is told, or nothing failed.
    """

    contract: str
    program: str
    run_id: str
    keyset_digest: str
    started_at: int
    ended_at: int
    sandbox: str
    inputs: tuple[AssetRef, ...]
    releases: tuple[str, ...]
    outputs: tuple[Delivered, ...]
    failure: Failure | None
    owed: tuple[Payment, ...]
    walls: tuple[str, ...] = ()
    used: Used | None = None
    notes: Mapping[str, bytes] = field(default_factory=dict)

    def to_json(self) -> dict[str, JSON]:
        used: dict[str, JSON] = {"used": self.used.to_json()} if self.used else {}
        subjects: list[JSON] = [
            {"digest": {"sha256": d.sealed.removeprefix("sha256:")}, "name": d.output.name} for d in self.outputs
        ]
        # in-toto wants at least one subject; a run that failed is about its contract
        subjects = subjects or [{"digest": {"sha256": self.contract.removeprefix("sha256:")}, "name": "contract"}]
        return {
            "_type": IN_TOTO,
            "predicate": {
                **used,
                "contract": self.contract,
                "ended_at": self.ended_at,
                "failure": self.failure.to_json() if self.failure else None,
                "inputs": [a.to_json() for a in self.inputs],
                "keyset_digest": self.keyset_digest,
                **({"notes": {name: wire.b64(note) for name, note in self.notes.items()}} if self.notes else {}),
                "outputs": [d.to_json() for d in self.outputs],
                "owed": [p.to_json() for p in self.owed],
                "program": self.program,
                "releases": list(self.releases),
                "run_id": self.run_id,
                "sandbox": self.sandbox,
                "started_at": self.started_at,
                **({"walls": list(self.walls)} if self.walls else {}),
            },
            "predicateType": PREDICATE,
            "subject": subjects,
        }

    def encode(self) -> bytes:
        return wire.encode(self.to_json())

    @classmethod
    def parse(cls, data: bytes) -> Statement:
        """Raises WireError and its leaves, BadReceipt."""
        value = wire.decode(data)
        f = Fields(value, "statement")
        f.literal("_type", IN_TOTO)
        f.literal("predicateType", PREDICATE)
        f.any("subject")  # compared below: it follows from the outputs
        p = Fields(f.any("predicate"), "receipt")
        f.end()

        def digest(item: object) -> str:
            return Fields({"item": item}, "receipt.releases").digest("item")

        found = cls(
            contract=p.digest("contract"),
            program=p.digest("program"),
            run_id=p.hex("run_id", size=16).hex(),
            keyset_digest=p.digest("keyset_digest"),
            started_at=p.integer("started_at"),
            ended_at=p.integer("ended_at"),
            sandbox=p.text("sandbox", choices=("bubblewrap", "namespaces", "process")),
            inputs=p.items("inputs", AssetRef.from_json, low=1, high=64),
            releases=p.items("releases", digest, high=64),
            outputs=p.items("outputs", Delivered.from_json, high=64),
            failure=p.optional("failure", Failure.from_json),
            owed=p.items("owed", Payment.from_json, high=64),
            walls=p.names("walls", low=1, high=64) if p.has("walls") else (),
            used=Used.from_json(p.any("used")) if p.has("used") else None,
            notes=_read_notes(p.any("notes")) if p.has("notes") else {},
        )
        p.end()
        if found.used is not None and not found.used.began and (found.failure is None or found.failure.step != "open"):
            raise BadReceipt("a run that its receipt says did not begin ended at another step than that of opening")
        if found.to_json() != value:
            raise BadReceipt("the receipt's subjects are not its outputs")
        return found


def _read_notes(value: object) -> dict[str, bytes]:
    notes = Fields(value, "receipt.notes")
    if not isinstance(value, dict) or not 0 < len(value) <= 64:
        raise BadReceipt("the receipt's notes are not of 1 to 64 owners")
    names = [Fields({"name": name}, "receipt.notes").name("name") for name in sorted(value)]
    return {name: notes.base64(name, max_bytes=4096) for name in names}


@dataclass(frozen=True, slots=True)
class Bundle:
    """A receipt with everything that it takes to check it. **Untrusted.**

    Attributes:
        receipt: the signed statement.
        contract: the signed proposal.
        manifests: the signed manifests of the inputs, in the order of the contract's assets.
        reports: the attestation report for each release, in the order of ``releases``.
        releases: the brokers' signed release statements; of an asset whose key was shared one for each share that it took.
        proof: where the log holds the receipt; ``None`` before it was logged.
        enrolments: the signed enrolments of the assets whose keys were shared, in the order of the contract's assets.
    """

    receipt: Envelope
    contract: Envelope
    manifests: tuple[Envelope, ...]
    reports: tuple[AttestationReport, ...]
    releases: tuple[Envelope, ...]
    proof: LoggedProof | None
    enrolments: tuple[Envelope, ...] = ()

    def to_json(self) -> dict[str, JSON]:
        enrolments: dict[str, JSON] = {"enrolments": [e.to_json() for e in self.enrolments]} if self.enrolments else {}
        return enrolments | {
            "contract": self.contract.to_json(),
            "format": BUNDLE_FORMAT,
            "manifests": [e.to_json() for e in self.manifests],
            "proof": self.proof.to_json() if self.proof else None,
            "receipt": self.receipt.to_json(),
            "releases": [e.to_json() for e in self.releases],
            "reports": [r.to_json() for r in self.reports],
        }

    def encode(self) -> bytes:
        return wire.encode(self.to_json())

    @classmethod
    def parse(cls, data: bytes) -> Bundle:
        """Raises WireError and AttestationError leaves, BadProof, BadCheckpoint."""
        f = Fields(wire.decode(data, max_bytes=MAX_BUNDLE_BYTES), "bundle")
        f.literal("format", BUNDLE_FORMAT)
        found = cls(
            receipt=Envelope.from_json(f.any("receipt")),
            contract=Envelope.from_json(f.any("contract")),
            manifests=f.items("manifests", Envelope.from_json, high=64),
            reports=f.items("reports", AttestationReport.from_json, high=64),
            releases=f.items("releases", Envelope.from_json, high=64),
            proof=f.optional("proof", LoggedProof.from_json),
            # absent where no key was shared, so that bundles without them stay as they were
            enrolments=f.items("enrolments", Envelope.from_json, low=1, high=64) if f.has("enrolments") else (),
        )
        f.end()
        return found

    @property
    def entry(self) -> Entry:
        """What the log holds of the receipt."""
        return Entry(kind="receipt", contract=self.contract.digest, digest=self.receipt.digest)


@dataclass(frozen=True, slots=True)
class Receipt:
    """A receipt that passed every check. Made by :func:`verify` alone.

    Attributes:
        statement: what the enclave signed.
        contract: what was agreed.
        platform: the platform's name.
        label: how to name it to people (``platform: simulated (no hardware protection)``).
        transcript: the numbered checks, all passed.
        evidence: the appraisal of each release's evidence.
    """

    statement: Statement
    contract: Contract
    platform: str
    label: str
    transcript: Transcript
    evidence: tuple[AttestationResult, ...]
    maker: InitVar[object]  # not a field, so that dataclasses.replace() cannot carry it over

    def __post_init__(self, maker: object) -> None:
        if maker is not _MAKER:
            raise TypeError("only verify() makes a Receipt")


class _Stop(Exception):
    pass


class _Check:
    """One bundle on its way through the checks. What cannot be looked at any more stays not established."""

    def __init__(self, bundle: Bundle, trust: Trust, policy: AppraisalPolicy) -> None:
        self.bundle, self.trust, self.policy = bundle, trust, policy
        self.transcript = Transcript(STEPS)
        self.appraised: tuple[AttestationResult, ...] = ()

    def check(self, number: str, passed: bool, detail: str = "", *, code: str = BadReceipt.code) -> None:
        if not self.transcript.record(number, passed, detail, code=code):
            raise _Stop

    def stop(self, number: str, error: StrongroomError) -> _Stop:
        self.transcript.record(number, False, str(error), code=error.code)
        return _Stop()

    def signed_by_all(self) -> Contract:
        """V1."""
        try:
            contract = Contract.verify(self.bundle.contract)
        except StrongroomError as error:
            raise self.stop("V1", error) from error
        self.check("V1", True, contract.digest)
        return contract

    def agreement(self) -> Contract:
        """V1 and V2."""
        contract = self.signed_by_all()
        try:
            self.trust.check(contract.proposal.parties)
        except StrongroomError as error:
            raise self.stop("V2", error) from error
        self.check("V2", True, ", ".join(p.name for p in contract.proposal.parties))
        return contract

    def signature(self) -> tuple[Statement, Keyset]:
        """V3."""
        reports = self.bundle.reports
        if not reports:
            self.check("V3", False, "the bundle holds no attestation report")
        keyset = reports[0].keyset
        try:
            payload = keyset.run_receipt_key.verify(self.bundle.receipt, STATEMENT_TYPE)
            statement = Statement.parse(payload)
        except StrongroomError as error:
            raise self.stop("V3", error) from error
        same = statement.keyset_digest == keyset.digest and all(r.keyset == keyset for r in reports)
        self.check("V3", same, f"keyset {keyset.digest}")
        return statement, keyset

    def inputs(self, contract: Contract, statement: Statement, keyset: Keyset) -> None:
        """V4 to V6."""
        p = contract.proposal
        same = statement.contract == contract.digest and statement.program == p.program.digest
        made_for_it = keyset.subject == run_subject(contract.digest, statement.run_id)
        confined = p.enclave.sandbox == "process" or statement.sandbox != "process"
        confined = confined and not p.enclave.missing(statement.walls)
        self.check(
            "V4",
            same and made_for_it and confined,
            f"program {p.program.name} {p.program.digest}, sandbox {statement.sandbox}",
        )
        self.check_manifests(contract, statement)

    def check_manifests(self, contract: Contract, statement: Statement) -> None:
        p = contract.proposal
        manifests: list[Manifest] = []
        try:
            if statement.inputs != p.assets or len(self.bundle.manifests) != len(p.assets):
                raise BadReceipt("the receipt's inputs are not the contract's assets")
            for ref, envelope in zip(p.assets, self.bundle.manifests, strict=True):
                manifest = verify_manifest(envelope, p.party(ref.owner).signing_key).manifest
                if manifest.digest != ref.manifest or manifest.owner != ref.owner:
                    raise BadReceipt(f"the manifest of {ref.role!r} is not the one that the contract names")
                manifests.append(manifest)
        except StrongroomError as error:
            raise self.stop("V5", error) from error
        self.check("V5", True, ", ".join(f"{a.role}: {m.name}" for a, m in zip(p.assets, manifests, strict=True)))
        wider = [line for m in manifests for line in explain(m.terms, p.policy)]
        lacks = [line for m in manifests for line in m.lacking(contract.approvals)]
        code = NotPermitted.code if wider else ApproverMissing.code
        self.check("V6", not (wider or lacks), "; ".join(wider or lacks), code=code)

    def releases(self, contract: Contract, statement: Statement, keyset: Keyset) -> list[ReleaseStatement]:
        """V7 and V8."""
        p = contract.proposal
        found: list[ReleaseStatement] = []
        try:
            if tuple(e.digest for e in self.bundle.releases) != statement.releases:
                raise BadReceipt("the bundle's releases are not those of the receipt")
            shared = parts.enrolled(self.bundle.enrolments, contract, BadReceipt)
            wanted = parts.wanted(contract, shared)
            if len(self.bundle.releases) != len(wanted) or len(self.bundle.reports) != len(wanted):
                raise BadReceipt("there is not exactly one release and report for each input, or for each share of it")
            for ref, envelope in zip(wanted, self.bundle.releases, strict=True):
                release = parts.released(envelope, shared.get(ref.role), p.party(ref.owner).broker_key, BadReceipt)
                bound = (release.contract, release.manifest, release.keyset_digest, release.run_id)
                if bound != (contract.digest, ref.manifest, keyset.digest, statement.run_id):
                    raise BadReceipt(f"the release of {ref.role!r} is for another run, enclave or asset")
                found.append(release)
            if len({r.nonce for r in found}) != len(found):
                raise BadReceipt("two releases share a nonce")
            parts.require_one_slot(shared, found, BadReceipt)
        except StrongroomError as error:
            raise self.stop("V7", error) from error
        self.check("V7", True, f"{len(found)} releases")
        try:
            for release in found:
                contract.require_in_force(release.at)
        except StrongroomError as error:
            raise self.stop("V8", error) from error
        self.check("V8", True, "by the brokers' clocks")
        return found

    def evidence(self, contract: Contract, releases: list[ReleaseStatement]) -> list[AttestationResult]:
        """V9 and V10."""
        for report, release in zip(self.bundle.reports, releases, strict=True):
            bound = report_data(report.keyset.digest, bytes.fromhex(release.nonce))[:32]
            if report != AttestationReport(report.keyset, bound, report.evidence, report.endorsements):
                # else a bundle could be altered and still verify, in members that no signature holds
                self.check("V9", False, "a report says something that its evidence does not bind")
        results = [
            appraise(
                report.evidence,
                policy=self.policy,
                endorsements=report.endorsements,
                nonce=bytes.fromhex(release.nonce),
                at=release.at,
                keyset=report.keyset,
            )
            for report, release in zip(self.bundle.reports, releases, strict=True)
        ]
        self.appraised = tuple(results)
        for result in results:
            problem = result.problem
            if problem is not None or not result.affirming:
                detail = f"{problem.number} {problem.name}: {problem.detail}" if problem else "not affirming"
                self.check("V9", False, detail, code=(problem.code if problem else "") or NotAffirming.code)
        self.check("V9", bool(results), f"{len(results)} appraisals, each for its own nonce; {results[0].label}")
        terms = contract.proposal.enclave
        named = all(r.platform in terms.platforms and r.measurement in terms.measurements for r in results)
        self.check("V10", named, results[0].platform, code=EnclaveNotNamed.code)
        return results

    def results(self, contract: Contract, statement: Statement) -> None:
        """V11 and V12."""
        p = contract.proposal
        completed = statement.failure is None
        expected = p.outputs if completed else ()
        self.check_told(contract, statement)
        self.check(
            "V11",
            tuple(d.output for d in statement.outputs) == expected,
            ", ".join(f"{o.name} to {' and '.join(o.recipients)}" for o in expected)
            if completed
            else "none: the run failed",
        )
        owed = p.payments if completed else ()
        self.check("V12", statement.owed == owed, f"{len(owed)} payments")

    def check_told(self, contract: Contract, statement: Statement) -> None:
        """V11: times and failures are outputs too, told no more finely than was agreed, and to owners alone."""
        p, told, failure = contract.proposal, contract.proposal.policy.observation, statement.failure
        if failure is not None and told.failure == WITHHELD and failure != NOT_TOLD:
            self.check("V11", False, "it says how the run failed, which the contract's policy withholds")
        if told.duration_s is not None and (statement.ended_at - statement.started_at) % told.duration_s:
            self.check("V11", False, f"its time is not told to {told.duration_s} s, as the contract's policy asks")
        if told.duration_s is None and statement.ended_at - statement.started_at < p.limits.seconds:
            self.check("V11", False, "its time is told, which the contract's policy withholds")
        if any((d.box is None) != (d.output.rule.release is None) for d in statement.outputs):
            self.check("V11", False, "an output that must be passed first has no box, or another has one")
        if (failure is None and statement.notes) or not statement.notes.keys() <= {a.owner for a in p.assets}:
            self.check("V11", False, "it holds a note that is of no failure, or to somebody who owns no asset of the run")

    def log(self) -> None:
        """V13."""
        proof, verifiers = self.bundle.proof, self.trust.log_verifiers()
        if proof is None or not verifiers:
            self.transcript.record(
                "V13",
                None,
                "the bundle has no proof" if proof is None else "the trust file has no log",
                code=BadProof.code,
            )
            return
        try:
            checkpoint = proof.verify(self.bundle.entry, verifiers)
        except StrongroomError as error:
            raise self.stop("V13", error) from error
        self.check("V13", True, f"{checkpoint.origin}, {checkpoint.size} entries")


@dataclass(frozen=True, slots=True)
class Verification:
    """What :func:`examine` saw: the transcript, the appraisals of the evidence as far as it came to them, and a
    :class:`Receipt` only where every check passed."""

    transcript: Transcript
    receipt: Receipt | None
    statement: Statement | None
    label: str
    evidence: tuple[AttestationResult, ...] = ()


def examine(bundle: Bundle, *, trust: Trust) -> Verification:
    """Look at a bundle and write down every check, whatever it shows; :func:`verify` is the one that decides.

    Args:
        bundle: untrusted.
        trust: the verifier's own trust file.
    """
    c = _Check(bundle, trust, trust.appraisal_policy())
    statement: Statement | None = None
    label = "platform: not established"
    try:
        contract = c.agreement()
        statement, keyset = c.signature()
        c.inputs(contract, statement, keyset)
        releases = c.releases(contract, statement, keyset)
        evidence = c.evidence(contract, releases)
        label = evidence[0].label
        c.results(contract, statement)
        c.log()
    except _Stop:
        return Verification(c.transcript, None, statement, label, c.appraised)
    if not c.transcript.ok:
        return Verification(c.transcript, None, statement, label, c.appraised)
    receipt = Receipt(statement, contract, evidence[0].platform, label, c.transcript, tuple(evidence), _MAKER)
    return Verification(c.transcript, receipt, statement, label, c.appraised)


def verify(bundle: Bundle, *, trust: Trust) -> Receipt:
    """Verify a receipt from the verifier's own trust file.

    Args:
        bundle: untrusted.
        trust: the verifier's own trust file.

    Raises:
        NotVerified: a check failed or could not be established; its number and reason are in the message.
    """
    found = examine(bundle, trust=trust)
    if found.receipt is None:
        raise _not_verified(found.transcript)
    return found.receipt


def _not_verified(transcript: Transcript) -> NotVerified:
    problem = transcript.first_problem
    assert problem is not None
    return NotVerified(f"{problem.number} {problem.name}: {problem.status.value}; {problem.detail}")


def admissible(bundle: Bundle) -> Statement:
    """Make the checks that need no trust file (V1, V3 to V8, V11 and V12): whether a log may take the receipt in.

    It passes only with the releases of the very brokers that the contract names, so that nobody else can make up runs of it.
    It says nothing about the parties, the platform or the enclave: whoever relies on a receipt calls :func:`verify`.

    Args:
        bundle: untrusted.

    Returns:
        what the receipt says, still not to be relied on.

    Raises:
        NotVerified: a check failed; its number and reason are in the message.
    """
    nobody = Trust()
    c = _Check(bundle, nobody, nobody.appraisal_policy())
    try:
        contract = c.signed_by_all()
        statement, keyset = c.signature()
        c.inputs(contract, statement, keyset)
        c.releases(contract, statement, keyset)
        c.results(contract, statement)
    except _Stop:
        raise _not_verified(c.transcript) from None
    return statement


__all__ = [
    "PREDICATE",
    "STATEMENT_TYPE",
    "STEPS",
    "Bundle",
    "Delivered",
    "Failure",
    "Receipt",
    "Statement",
    "Verification",
    "admissible",
    "examine",
    "verify",
]
