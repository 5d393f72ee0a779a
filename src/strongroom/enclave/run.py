"""One run of a contract inside an enclave: prove, obtain keys, open, run in the sandbox, deliver, sign the receipt.

Everything outside comes in as an argument: the platform, the brokers, the exchange, the sandbox, the clock and the source of
randomness. The keyset is made for this run and forgotten with it, so that a key stolen later opens nothing of an earlier
run.

See ``spec/run.md``.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from strongroom import wire
from strongroom.airlock import Box, padded
from strongroom.asset import (
    About,
    AssetKey,
    Scheme,
    SealedReader,
    check_content,
    seal,
)
from strongroom.contract import Contract, Limits, Output, RunRequest
from strongroom.delivery import Delivery
from strongroom.errors import (
    Cancelled,
    Internal,
    JobCancelled,
    NoSandbox,
    NotPermitted,
    OutputMissing,
    OutputRefused,
    ProgramError,
    StrongroomError,
    Unreachable,
)
from strongroom.failure import NOT_TOLD, Failure, Note
from strongroom.observation import EVERYTHING, WITHHELD
from strongroom.output import GROUPED, enforce
from strongroom.receipt import STATEMENT_TYPE, Bundle, Delivered, Statement
from strongroom.release import run_subject
from strongroom.wire import Envelope

from .charged import Meter, Spends, require_charged, says_nothing
from .obtain import Around, Keys, Obtainer, Released, require_code, require_program, require_use
from .sandbox_child import require as require_walls

KEYSET_SECONDS = 3600
STEPS = ("contract", "attest", "release", "open", "program", "deliver", "record")


@dataclass(frozen=True, slots=True)
class OpenInput:
    """An opened asset, read by range: what a program gets in one of its roles."""

    media_type: str
    size: int
    file: BinaryIO


class Confinement(Protocol):
    """A sandbox that runs one program once."""

    @property
    def kind(self) -> str:
        """``bubblewrap``, ``namespaces`` or ``process``."""

    @property
    def walls(self) -> tuple[str, ...]:
        """What stands between the program and its surroundings, by names of ``contract.WALLS``, sorted."""

    @property
    def program_digest(self) -> str:
        """The digest of the program that stands ready inside."""

    @property
    def code_digest(self) -> str | None:
        """The digest of the submitted code that it will run, of the very bytes; ``None`` where it has none."""

    @property
    def environment(self) -> str | None:
        """The digest of the lock whose packages that code will see, or ``None``."""

    def run(self, contract: Contract, inputs: Mapping[str, OpenInput], limits: Limits) -> Mapping[str, bytes]:
        """The program's outputs, by name, as it wrote them. How far it is stays inside: it could tell of the data by that.

        Raises:
            ProgramError: it failed.
        """

    def close(self) -> None:
        """End it for sure, whatever runs in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings(Around):
    """What an enclave is given for a run.

    Attributes:
        confine: starts a sandbox of the contract's kind with the program ready in it.
        spends: what a program says it would spend of budgets, in events; by default none says anything.
        wait: returns after so many seconds. Without it no contract is run that says how finely its time is told.
        cancelled: whether somebody who may has cancelled the run by now.
        leaves: asked once, when nothing but the delivery is left: whether what the run wrote may leave. From then on nobody
            cancels it.
    """

    confine: Callable[[Contract], Confinement]
    spends: Spends = says_nothing
    wait: Callable[[float], None] | None = None
    cancelled: Callable[[], bool] = lambda: False
    leaves: Callable[[], bool] = lambda: True


class _Run:
    def __init__(self, contract: Contract, request: Envelope, around: Surroundings) -> None:
        self.contract, self.around = contract, around
        self.run_id = RunRequest.peek(request).run_id
        self.started_at = self.program_at = around.now()
        self.told = contract.proposal.policy.observation
        until = self.started_at + contract.proposal.limits.seconds + KEYSET_SECONDS
        subject, devices = run_subject(contract.digest, self.run_id), around.devices is not None
        self.keys = Keys(around.entropy, subject, until, devices=devices)
        self.keyring = Obtainer(contract, request, self.keys, around)
        self.meter = Meter()
        self._ended: int | None = None

    def deliver(self, output: Output, data: bytes) -> tuple[Delivery | Box, bytes]:
        """Seal an output under a fresh key and encrypt that to the recipients; in a box, where people must pass it."""
        if output.rule.release is not None:
            data = padded(data, output.rule.max_bytes)
        proposal, key = self.contract.proposal, AssetKey(self.around.entropy(32))
        sink = io.BytesIO()
        about = About(
            name=output.name,
            kind=output.kind,
            media_type=MEDIA_TYPES[output.kind],
            owner="enclave",
            created_at=self.started_at,
            terms=proposal.policy,
            mock=None,
            reveal_digest=False,
        )
        manifest = seal(io.BytesIO(data), sink, key=key, salt=self.around.entropy(32), about=about, chunk_bytes=1 << 16)
        sealed = sink.getvalue()
        delivery = Delivery.make(
            contract=self.contract.digest,
            run_id=self.run_id,
            output=output.name,
            sealed=wire.digest(sealed),
            manifest=manifest,
            key=key,
            recipients={name: proposal.party(name).encryption_key for name in output.recipients},
        )
        if output.rule.release is None:
            return delivery, sealed
        reviewers = {name: proposal.party(name).encryption_key for name in sorted(output.rule.reviewers)}
        return Box.make(delivery, key=key, reviewers=reviewers, entropy=self.around.entropy), sealed

    def execute(self, released: Mapping[str, Released], confinement: Confinement) -> Mapping[str, bytes]:
        """Open the inputs, run the program, and apply each output's rule to what it wrote."""
        proposal = self.contract.proposal
        with ExitStack() as stack:
            inputs = {}
            self.around.progress("open", ", ".join(released))
            for role, r in released.items():
                source = self.around.exchange.sealed(r.manifest.digest)
                if r.manifest.content.scheme is Scheme.SHA256:  # a digest by which others know it: so it must be true
                    check_content(source, r.manifest, r.key)
                file = SealedReader(source, r.manifest, r.key)
                inputs[role] = OpenInput(r.manifest.media_type, r.manifest.plaintext_bytes, stack.enter_context(file))  # type: ignore[arg-type]
            self.around.progress("program", proposal.program.name)
            self.meter.begin()
            self.program_at = self.around.now()
            written = confinement.run(self.contract, inputs, proposal.limits)
            written = {**written, **{o.name: b"" for o in proposal.outputs if o.kind == "success"}}  # nobody writes it
            if any(o.name not in written for o in proposal.outputs):
                raise OutputMissing("the program did not write every output that the contract names")
            outputs = {o.name: _enforced(o, written[o.name]) for o in proposal.outputs}
            self.meter.leaves(proposal, outputs)
            return outputs

    def hold(self) -> None:
        """Wait until the run is over for everybody outside: from here on nothing depends on when it was."""
        if self.told.duration_s == 1 or self.around.wait is None:
            return
        while (left := self.ends_at() - self.around.now()) > 0:
            self.around.wait(left)

    def ends_at(self) -> int:
        """When it is over for everybody outside, Unix seconds."""
        if self.told == EVERYTHING:
            return self.around.now()
        ended, proposal = self._ended or self.around.now(), self.contract.proposal
        self._ended = ended
        return self.told.ends_at(self.started_at, self.program_at, ended, proposal.limits.seconds)

    def notes(self, note: Note) -> dict[str, bytes]:
        """What each owner alone is told: where not everybody is told as much."""
        if self.told.failure != WITHHELD and not note.rule:
            return {}
        proposal = self.contract.proposal
        owners = {name: proposal.party(name).encryption_key for name in sorted({ref.owner for ref in proposal.assets})}
        return note.seal(owners, contract=self.contract.digest, run_id=self.run_id)

    def record(
        self,
        released: Mapping[str, Released],
        delivered: tuple[Delivered, ...],
        note: Note | None,
        confinement: Confinement,
    ) -> Bundle:
        proposal = self.contract.proposal
        failure = None if note is None else NOT_TOLD if self.told.failure == WITHHELD else note.failure
        statement = Statement(
            contract=self.contract.digest,
            program=proposal.program.digest,
            run_id=self.run_id,
            keyset_digest=self.keys.keyset.digest,
            started_at=self.started_at,
            ended_at=self.ends_at(),
            sandbox=confinement.kind,
            walls=confinement.walls,
            inputs=proposal.assets,
            releases=tuple(e.digest for r in released.values() for e in r.releases),
            outputs=delivered,
            failure=failure,
            owed=() if failure else proposal.payments,
            used=self.meter.used(proposal, left=failure is None, told=failure is not NOT_TOLD),
            notes={} if note is None else self.notes(note),
        )
        return Bundle(
            receipt=self.keys.receipt.sign(STATEMENT_TYPE, statement.encode()),
            contract=self.contract.envelope,
            manifests=tuple(r.envelope for r in released.values()),
            reports=tuple(report for r in released.values() for report in r.reports),
            releases=tuple(e for r in released.values() for e in r.releases),
            proof=None,
            enrolments=tuple(r.shared.enrolment for r in released.values() if r.shared is not None),
        )

    def attempt(self, released: Mapping[str, Released], confinement: Confinement) -> tuple[Mapping[str, bytes], Note | None]:
        """What may leave, or how the run failed. Whatever happened, what is told, when, and the receipt are made alike."""
        try:
            return self.execute(released, confinement), None
        except ProgramError as error:
            return {}, Note(Failure(error.step, error.code))
        except OutputRefused as error:
            return {}, Note(Failure("output", error.code), error.output, error.rule)
        except StrongroomError as error:  # a sealed file that was altered, or an exchange that stopped answering
            return {}, Note(Failure("open", error.code))
        except Exception:  # noqa: BLE001 - a program may have brought it about, at a moment of its choice
            return {}, Note(Failure("output", Internal.code))

    def go_on(self) -> None:
        """No key is asked for a run that was cancelled. Raises JobCancelled."""
        if self.around.cancelled():
            raise JobCancelled("the run was cancelled before it had every key")

    def outcome(self, released: Mapping[str, Released], confinement: Confinement) -> tuple[Mapping[str, bytes], Note | None]:
        """The same, when everybody outside is to see it; of a run that was cancelled that alone."""
        written, note = self.attempt(released, confinement)
        self.hold()
        # Only now, and whatever came of it: when the program ended is nothing that a cancel may tell.
        if not self.around.leaves():
            return {}, Note(Failure("program", Cancelled.code))
        return written, note

    def complete(self, confinement: Confinement) -> Bundle:
        """Every step after the contract was accepted."""
        proposal = self.contract.proposal
        manifests = self.keyring.manifests()
        released = {}
        for ref in proposal.assets:
            self.go_on()
            released[ref.role] = self.keyring.obtain(ref, *manifests[ref.role])
        deliveries: list[Delivery | Box] = []
        delivered: list[Delivered] = []
        written, note = self.outcome(released, confinement)
        if note is None:
            self.around.progress("deliver", ", ".join(written))
            for output in proposal.outputs:
                delivery, sealed = self.deliver(output, written[output.name])
                self.around.exchange.put_output(sealed)
                deliveries.append(delivery)
                box = delivery.digest if isinstance(delivery, Box) else None
                delivered.append(Delivered(output, delivery.sealed, delivery.manifest.digest, box))
        self.around.progress("record", "the receipt")
        bundle = self.around.exchange.record(self.record(released, tuple(delivered), note, confinement))
        # no result without a receipt: the log and every owner have it before anybody can open an output
        for name in sorted({ref.owner for ref in proposal.assets}):
            line = self.around.broker(proposal.party(name))
            try:
                line.receipt(bundle)
            except Unreachable:  # else one lost answer would cost the parties a run; kept twice is kept once
                line.receipt(bundle)
        for delivery in deliveries:
            if isinstance(delivery, Box):
                self.around.exchange.put_box(delivery)
            else:
                self.around.exchange.deliver(delivery)
        return bundle


MEDIA_TYPES: Mapping[str, str] = {
    "log": "text/plain",
    "picture": "image/png",
    "records": "text/csv",
    "report": "application/json",
    "success": "text/plain",
    "table": "application/vnd.apache.arrow.file",
    "tensors": "application/vnd.safetensors",
    "values": "application/json",
}


def _enforced(output: Output, data: bytes) -> bytes:
    """What may leave of an output. Raises OutputRefused, which names it."""
    try:
        return enforce(output.kind, output.rule, data)
    except OutputRefused as error:
        error.output = output.name
        raise


def require_enforceable(contract: Contract, *, waits: bool) -> None:
    """Refuse a contract whose rules could not be kept together, before any key is asked for.

    Args:
        contract: to be run.
        waits: whether this enclave can hold back what it says.

    Raises:
        NotPermitted: two outputs to one reader divide the records, or times are to be told more coarsely than can be done.
    """
    proposal = contract.proposal
    readers = [
        name
        for o in proposal.outputs
        if o.kind in GROUPED and o.rule.min_group > 1
        for name in {*o.recipients, *o.rule.reviewers}
    ]
    if len(set(readers)) != len(readers):
        raise NotPermitted(
            "two outputs whose small groups are suppressed go to one reader: their difference is a small group"
        )
    if proposal.policy.observation.duration_s != 1 and not waits:
        raise NotPermitted("this enclave cannot hold back when a run ends, as the contract's policy asks")


def run(contract: Contract, request: Envelope, around: Surroundings) -> Bundle:
    """Execute one run of a contract.

    Args:
        contract: completely signed.
        request: a party's signed request for this run; the brokers check it too.
        around: the enclave's surroundings.

    Returns:
        the logged receipt with everything that it takes to check it. A run that failed after its keys were released
        (a sealed file that was altered, a program that stopped, an output that broke its rule) gets a receipt too: it says
        at which step and with which code, and nothing of the data.

    Raises:
        ContractError, ProgramNotApproved, CodeMismatch, EnvironmentMismatch, NoSandbox, ManifestMismatch, NotPermitted,
        UnderCharged: before any key was asked for.
        ReleaseRefused, BadRelease: a broker refused, or answered something else.
        JobCancelled: before it had every key.
        Unreachable: a broker did not answer, or the exchange did not take an output.
    """
    around.progress("contract", contract.digest)
    contract.require_in_force(around.now())
    RunRequest.verify(request, contract.proposal, around.now())
    if contract.proposal.standing:
        raise NotPermitted("a standing contract is served, and not run")
    require_use(contract)
    require_charged(contract.proposal, around.spends)
    require_enforceable(contract, waits=around.wait is not None)
    with closing(around.confine(contract)) as confinement:
        if confinement.kind == "process" and contract.proposal.enclave.sandbox != "process":
            raise NoSandbox("the contract asks for a sandbox, and this one confines nothing")
        require_walls(contract.proposal.enclave.walls, confinement.walls)
        # compared at the moment it runs: what stands ready in the sandbox, not what a registry says
        require_program(contract, confinement.program_digest)
        require_code(contract, confinement.code_digest, confinement.environment)
        return _Run(contract, request, around).complete(confinement)
