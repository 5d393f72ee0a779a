"""How an enclave gets keys: it proves to each owner's broker what runs here, and takes the key out of the answer.

Everything outside comes in as an argument: the platform, the brokers, the exchange, the clock and the source of randomness.

See ``spec/run.md`` and ``spec/release.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from strongroom.airlock import Box
from strongroom.asset import AssetKey, Manifest, RangeSource, verify_manifest
from strongroom.attest import binding
from strongroom.attest.evidence import Evidence, Platform
from strongroom.attest.keyset import (
    CHAT_SIGNATURE_ALGO,
    DEVICE_BINDING_ALGO,
    INFERENCE_RECEIPT_ALGO,
    RELEASE_ALGO,
    RUN_RECEIPT_ALGO,
    AttestationReport,
    KeyEntry,
    Keyset,
    TlsKey,
    report_data,
)
from strongroom.code import PROGRAM as CODE
from strongroom.contract import AssetRef, Contract, RunRequest
from strongroom.delivery import Delivery
from strongroom.drawing import lacking
from strongroom.ehbp import KEYSET_ALGO, PrivateKey
from strongroom.errors import (
    ApproverMissing,
    CodeMismatch,
    EnvironmentMismatch,
    ManifestMismatch,
    NotPermitted,
    ProgramNotApproved,
    RoomClosed,
    Unreachable,
)
from strongroom.party import DecryptionKey, Party, SigningKey
from strongroom.policy import explain
from strongroom.receipt import Bundle
from strongroom.release import PartAsked, ReleaseRequest, Slot, open_release, open_share
from strongroom.threshold import Enrolment
from strongroom.wire import Envelope

from .shares import Gathering, Got, HolderLine, Holders, Proof

CLOCKS_DIFFER_S = 300
USES: Mapping[str, str] = {CODE: "analyse"}
"""The use that a standard program makes, where it is not its name."""


class BrokerLine(Protocol):
    """The way to one broker."""

    def nonce(self) -> bytes:
        """A fresh nonce, 32 bytes."""

    def release(self, request: bytes) -> bytes:
        """The broker's answer. Raises ReleaseRefused."""

    def receipt(self, bundle: Bundle) -> None:
        """Hand the owner its receipt; returns when the broker has kept it."""


class ExchangeLine(Protocol):
    """The way to the exchange."""

    def manifest(self, digest: str, by: str) -> Envelope:
        """A manifest that the key with this id is said to have signed, untrusted."""

    def sealed(self, digest: str) -> RangeSource:
        """The sealed file of a manifest, untrusted, by range."""

    def put_output(self, sealed: bytes) -> None:
        """Store a sealed output: ciphertext that nobody has a key of yet."""

    def record(self, bundle: Bundle) -> Bundle:
        """Have a receipt logged; the bundle with its proof."""

    def deliver(self, delivery: Delivery) -> None:
        """Store who may open a sealed output whose receipt was logged."""

    def put_box(self, box: Box) -> None:
        """Store an output that waits for its reviewers, and whose receipt was logged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What an enclave is given to prove itself and get keys.

    Attributes:
        platform: signs evidence.
        exchange: the way to the exchange.
        broker: the way to a party's broker.
        now: Unix seconds; the host's clock.
        entropy: n fresh random bytes.
        progress: called with each step as it begins, and a word of detail.
        devices: evidence of every device beside the processor, for the 64 bytes that the processor signs; ``None`` where
            there are none.
        holders: the way to brokers that hold shares; without it, keys come from their owners' brokers alone.
    """

    platform: Platform
    exchange: ExchangeLine
    broker: Callable[[Party], BrokerLine]
    now: Callable[[], int]
    entropy: Callable[[int], bytes]
    progress: Callable[[str, str], None]
    devices: Callable[[bytes], tuple[Evidence, ...]] | None = None
    holders: Holders | None = None


@dataclass(frozen=True, slots=True, repr=False)
class ServingKeys:
    """What an enclave that answers requests has beside the keys of a run, each for one thing.

    Attributes:
        receipt: signs the receipts of requests (ACI's own ``ed25519``).
        chat: signs chats as NEAR AI's clients ask for them.
        requests: what requests are encrypted to.
    """

    receipt: SigningKey
    chat: SigningKey
    requests: PrivateKey

    def __repr__(self) -> str:
        return "ServingKeys(…)"

    @classmethod
    def make(cls, entropy: Callable[[int], bytes]) -> ServingKeys:
        return cls(SigningKey.from_seed(entropy(32)), SigningKey.from_seed(entropy(32)), PrivateKey(entropy(32)))

    def signing(self) -> tuple[KeyEntry, ...]:
        return (
            KeyEntry("inference", INFERENCE_RECEIPT_ALGO, self.receipt.public.raw.hex()),
            KeyEntry("chat", CHAT_SIGNATURE_ALGO, self.chat.public.raw.hex()),
        )

    def encryption(self) -> tuple[KeyEntry, ...]:
        return (KeyEntry("requests", KEYSET_ALGO, self.requests.public.raw.hex()),)


class Keys:
    """The run's own keys: one for each role; one that binds devices only where there are devices.

    Args:
        entropy: n fresh random bytes.
        subject: of the keyset.
        not_after: Unix seconds.
        devices: whether there are devices beside the processor.
        serving: the keys of a room that answers requests, or ``None`` for a run.
        tls: the keys of TLS that ends inside.
    """

    def __init__(
        self,
        entropy: Callable[[int], bytes],
        subject: str,
        not_after: int,
        *,
        devices: bool,
        serving: ServingKeys | None = None,
        tls: tuple[TlsKey, ...] = (),
    ) -> None:
        self.receipt = SigningKey.from_seed(entropy(32))
        self._release: DecryptionKey | None = DecryptionKey.from_seed(entropy(96))
        self.binding = SigningKey.from_seed(entropy(32)) if devices else None
        signing = [KeyEntry("run-receipt", RUN_RECEIPT_ALGO, self.receipt.public.raw.hex())]
        if self.binding is not None:
            signing.append(KeyEntry("device-binding", DEVICE_BINDING_ALGO, self.binding.public.raw.hex()))
        release = KeyEntry("release", RELEASE_ALGO, self._release.public.raw.hex())
        self.keyset = Keyset(
            subject=subject,
            not_after=not_after,
            receipt_signing_keys=(*signing, *(serving.signing() if serving else ())),
            e2ee_public_keys=(release, *(serving.encryption() if serving else ())),
            tls_public_keys=tls,
        )

    @property
    def release(self) -> DecryptionKey:
        """What brokers encrypt asset keys to. Raises RoomClosed: it was erased."""
        if self._release is None:
            raise RoomClosed("the key for releases was erased")
        return self._release

    def erase(self) -> None:
        """Take no more keys. What signs receipts of runs stays: receipts of requests are logged on its word."""
        self._release = None


@dataclass(frozen=True, slots=True)
class Shared:
    """How a key that was shared came together: the enrolment, as its owner signed it, and ``t`` shares by index."""

    enrolment: Envelope
    got: tuple[Got, ...]


@dataclass(frozen=True, slots=True)
class Released:
    """An asset whose key an owner's broker released, or brokers that hold shares of it.

    Attributes:
        manifest, envelope: the manifest, and its owner's signature.
        report: what was shown to the broker.
        release: the broker's signed statement.
        key: the asset's key.
        until: of a lease the last second at which the key may be held, Unix; ``None`` for the length of a run.
        shared: where the key was shared; ``report`` and ``release`` are then those of the first share.
    """

    manifest: Manifest
    envelope: Envelope
    report: AttestationReport
    release: Envelope
    key: AssetKey
    until: int | None = None
    shared: Shared | None = None

    @property
    def releases(self) -> tuple[Envelope, ...]:
        """Every signed statement that it took."""
        return (self.release,) if self.shared is None else tuple(got.opened.envelope for got in self.shared.got)

    @property
    def reports(self) -> tuple[AttestationReport, ...]:
        """What was shown for each."""
        return (self.report,) if self.shared is None else tuple(got.report for got in self.shared.got)


class Obtainer:
    """Gets the keys of one contract's assets for one keyset.

    Args:
        contract: completely signed.
        request: a party's signed request for this run.
        keys: the run's own.
        around: what the enclave is given.
    """

    def __init__(self, contract: Contract, request: Envelope, keys: Keys, around: Around) -> None:
        self.contract, self.request, self.keys, self.around = contract, request, keys, around
        self.run_id = RunRequest.peek(request).run_id
        self._slots: dict[str, int] = {}  # of assets whose keys are shared, by role: a lease is renewed for the same

    def manifests(self) -> dict[str, tuple[Envelope, Manifest]]:
        """Each asset's manifest, signed by its owner, with terms that permit the policy."""
        proposal, found = self.contract.proposal, {}
        for ref in proposal.assets:
            owner_key = proposal.party(ref.owner).signing_key
            envelope = self.around.exchange.manifest(ref.manifest, owner_key.keyid)
            manifest = verify_manifest(envelope, owner_key).manifest
            if manifest.digest != ref.manifest or manifest.owner != ref.owner:
                raise ManifestMismatch(f"the exchange served another manifest for {ref.role!r}")
            wider = explain(manifest.terms, proposal.policy)
            if wider:
                raise NotPermitted(f"the terms of {ref.role!r} do not permit the contract's policy: {wider[0]}")
            lacks = manifest.lacking(self.contract.approvals)
            if lacks:
                raise ApproverMissing(f"the terms of {ref.role!r} name others who must approve: {lacks[0]}")
            undrawn = lacking(manifest.drawing, ref.role, proposal.program.parameters)
            if undrawn:
                raise NotPermitted(f"the terms of drawing do not permit what was agreed: {undrawn[0]}")
            found[ref.role] = (envelope, manifest)
        return found

    def obtain(self, ref: AssetRef, envelope: Envelope, manifest: Manifest) -> Released:
        """Prove to the owner's broker, or to those that hold shares, what runs here, and get the asset's key.

        Whoever opens the asset with it holds it against the manifest's commitment.

        Raises:
            ReleaseRefused, BadRelease, BadSignature, BadEnrolment, TooFewShares, Unreachable, WireError.
        """
        if self.around.holders is not None:
            by = self.contract.proposal.party(ref.owner).signing_key.keyid
            enrolment = self.around.holders.enrolment(ref.manifest, by)
            if enrolment is not None:
                return self.gather(ref, envelope, manifest, enrolment, self.around.holders)
        party, asked = self.contract.proposal.party(ref.owner), dict[str, AttestationReport]()
        try:
            answer = self.ask(party, ref, asked)
        except Unreachable:  # it may have decided, and counted the run, before its answer was lost
            answer = self.ask(party, ref, asked)
        opened = open_release(
            answer,
            slot=Slot(self.contract.digest, self.run_id, self.keys.keyset.digest, ref.manifest),
            broker=party.broker_key,
            nonces=frozenset(asked),
            key=self.keys.release,
            latest=self.latest(),
        )
        report = asked[opened.statement.nonce]
        return Released(manifest, envelope, report, opened.envelope, opened.key, opened.statement.until)

    def gather(self, ref: AssetRef, envelope: Envelope, manifest: Manifest, signed: Envelope, holders: Holders) -> Released:
        """Get a key whose owner shared it over brokers. A lease is renewed for the slot that the room has."""
        owner = self.contract.proposal.party(ref.owner).signing_key
        enrolment = Enrolment.verify(signed, manifest=ref.manifest, owner=ref.owner, key=owner)
        place = Slot(self.contract.digest, self.run_id, self.keys.keyset.digest, ref.manifest)
        count = f"{enrolment.threshold} of {len(enrolment.holders)}"
        self.around.progress("attest", f"to the brokers that hold shares of {ref.role}, {count}")
        shown: dict[str, AttestationReport] = {}
        latest = self.latest()

        def ask(line: HolderLine, index: int, asked: PartAsked, proof: Proof) -> Got:
            nonce, shown[proof.nonce.hex()] = proof
            request = ReleaseRequest(
                self.contract.envelope, ref.manifest, self.run_id, self.request, nonce, proof.report, asked
            )
            opened = open_share(
                line.release(request.encode()),
                slot=place,
                enrolment=enrolment,
                index=index,
                asked=asked,
                nonces=frozenset(shown.copy()),
                key=self.keys.release,
                latest=latest,
            )
            return Got(opened, shown[opened.statement.nonce])

        key, got = Gathering(enrolment, manifest, holders, self.shown, ask).gather(self._slots.get(ref.role))
        parts = [g.opened.statement for g in got]
        self._slots[ref.role] = parts[0].part.slot if parts[0].part else 0
        ends = [statement.until for statement in parts if statement.until is not None]
        self.around.progress("release", f"the key of {ref.role}, {count} shares")
        return Released(
            manifest, envelope, got[0].report, got[0].opened.envelope, key, min(ends, default=None), Shared(signed, got)
        )

    def shown(self, nonce: bytes) -> AttestationReport:
        """A report of what runs here for a broker's nonce."""
        bound = report_data(self.keys.keyset.digest, nonce)
        return AttestationReport(self.keys.keyset, bound[:32], self.prove(bound), self.around.platform.endorsements())

    def latest(self) -> int | None:
        """The latest end of a lease that is asked for now; clocks differ."""
        serve = self.contract.proposal.policy.serve
        return None if serve is None else self.around.now() + serve.lease_s + CLOCKS_DIFFER_S

    def ask(self, party: Party, ref: AssetRef, asked: dict[str, AttestationReport]) -> bytes:
        """One question to a broker; its nonce and the report for it are kept in ``asked``. Raises Unreachable."""
        line = self.around.broker(party)
        self.around.progress("attest", f"to the broker of {party.name}")
        nonce = line.nonce()
        asked[nonce.hex()] = report = self.shown(nonce)
        self.around.progress("release", f"the key of {ref.role}")
        request = ReleaseRequest(self.contract.envelope, ref.manifest, self.run_id, self.request, nonce, report)
        return line.release(request.encode())

    def prove(self, bound: bytes) -> Evidence:
        """Evidence for 64 bytes, that of the devices beside the processor bound to it (``spec/device-binding.md``)."""
        evidence = self.around.platform.produce(bound)
        if self.around.devices is None or self.keys.binding is None:
            return evidence
        devices = self.around.devices(bound)
        return replace(evidence, devices=devices, device_binding=binding.make(self.keys.binding, bound, devices))


def require_use(contract: Contract) -> None:
    """A standard program makes the one use that it is named for, or that is said here. Raises NotPermitted."""
    program = contract.proposal.program
    if program.use != USES.get(program.name, program.name):
        raise NotPermitted(f"program {program.name!r} makes another use than {program.use!r}")


def require_program(contract: Contract, digest: str) -> None:
    """What stands ready is what was approved. Raises ProgramNotApproved."""
    program = contract.proposal.program
    if digest != program.digest:
        raise ProgramNotApproved(f"program {program.name!r} here is {digest}")


def require_code(contract: Contract, code: str | None, environment: str | None) -> None:
    """The submitted code that will run, and the packages that it will see, are what was approved.

    Args:
        contract: completely signed.
        code: the digest of the bytes that the sandbox will be given, or ``None``.
        environment: the digest of the lock of the packages that it sees, or ``None``.

    Raises:
        CodeMismatch: another bundle, none where there must be one, or one where there must be none.
        EnvironmentMismatch: the packages of another lock.
    """
    program = contract.proposal.program
    wanted = program.parameters if program.name == CODE else {"bundle": None, "environment": None}
    if (code is None) != (program.name != CODE) or code != wanted.get("bundle"):
        raise CodeMismatch(f"the contract names the code {wanted.get('bundle')}, and here is {code}")
    if environment != wanted.get("environment", ""):
        raise EnvironmentMismatch(f"the contract names the packages {wanted.get('environment')}, and here are {environment}")
