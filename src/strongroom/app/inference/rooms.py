"""Rooms that answer requests: opened by a party's signed request, renewed while their owners allow it, drained and erased.

One room is current. A second one for the same contract or another takes its place once its engines answer: what the first
was asked goes on there until it is answered, and then its keys and weights are gone. A keyset counts each sealed request
once, and so many of them, and has an end; before either a *spare*, another signed request that was left here, opens the
next room.

See ``spec/inference.md``.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias, cast

from strongroom import wire
from strongroom.asset import Scheme
from strongroom.attest.keyset import AttestationReport, TlsKey
from strongroom.contract import Contract, RunRequest
from strongroom.ehbp import MEDIA_TYPE, Padding, SeenKeys
from strongroom.enclave.obtain import Around
from strongroom.enclave.room import Room
from strongroom.errors import (
    BadParameters,
    Conflict,
    ContractError,
    NotPermitted,
    ReleaseRefused,
    RoomClosed,
    Unauthorised,
    WeightsMismatch,
    WireError,
)
from strongroom.inference.events import ModelWeights, Observability
from strongroom.inference.guard import Guard as Named
from strongroom.inference.guard import Stage
from strongroom.inference.receipt import ReceiptSigner
from strongroom.lm.engine import Engine, Piece
from strongroom.lm.seated import Drawing
from strongroom.programs import serve_llm
from strongroom.programs.guards import Ask, Guard
from strongroom.programs.serve_llm import Model, Parameters
from strongroom.serving import Serving
from strongroom.wire import JSON, Envelope

from . import openai
from .few import Few
from .ports import Observer, Started, Starter, Wanted
from .sources import Revisions, Sealed

_LOG = logging.getLogger("strongroom.inference")

Progress: TypeAlias = Callable[[str, str], None]

E2EE_VERSION: Final = MEDIA_TYPE
MAX_SPARES: Final = 64
SPARE_SECONDS: Final = 60  # between two tries to open a room with one
MAX_BEGUN: Final = 10_000
DRAIN_SECONDS: Final = 120.0  # that a room which was replaced may take to answer what it was asked
END_SECONDS: Final = 2.0  # that receipts may take to be signed for what an ending enclave cut off
GRACE_SECONDS: Final = 30.0  # in which it takes new requests from clients that know its keyset and not yet the next


class Guards(Protocol):
    """Loads guards (``programs.guards.load``)."""

    def __call__(
        self, names: frozenset[str], stage: str, settings: Mapping[str, Mapping[str, Any]], ask: Ask | None
    ) -> list[Guard]: ...


@dataclass(frozen=True, slots=True)
class Served:
    """A model at work.

    Attributes:
        model: as the contract has it.
        engine: what answers.
        weights: what receipts say of it.
        created: when it was opened, Unix seconds.
    """

    model: Model
    engine: Engine
    weights: ModelWeights
    created: int


@dataclass(eq=False)
class _Shared:
    """An engine that rooms share: the next room of the same contract does not open the same weights again.

    Attributes:
        drawn: names of the sources that it was started with.
        told: from which it draws, and which are gone, as it was told last.
    """

    started: Started
    drawn: frozenset[str]
    users: int = 0
    told: tuple[frozenset[str], frozenset[str]] | None = None


class Engines:
    """The engines of this enclave, by the contract and what was opened under it. One without a room is closed, and its
    weights are gone.

    Another contract's room opens the same weights for itself: its parties may be others, who prove by that alone that they
    have the keys.
    """

    def __init__(self, start: Starter) -> None:
        self._start = start
        self._shared: dict[tuple[str, str, str], _Shared] = {}  # by contract, manifest, role and sources
        self._lesser: list[_Shared] = []  # that let go of a source: no other room gets them
        self._lock = asyncio.Lock()

    async def take(self, room: Room, model: Model, parameters: Parameters, progress: Progress) -> tuple[Engine, bytes]:
        """An engine, and the SHA-256 of the weights that it was given.

        Raises:
            WeightsMismatch: the opened file is not the one that the manifest names.
            RoomClosed, AssetError, EngineError, EnclaveError: as the starter.
        """
        source, released = await asyncio.to_thread(room.sealed, model.role)
        manifest = released.manifest
        sources = await asyncio.to_thread(_sources, room, model, parameters)
        drawn: JSON = [sealed.released.manifest.digest for sealed in sources]
        key = (room.contract.digest, manifest.digest, wire.digest(wire.encode([model.role, drawn])))
        async with self._lock:
            shared = self._shared.get(key)
            if shared is None:
                told = _percent(progress, model, manifest.plaintext_bytes)
                started = await self._start(Wanted(room.contract, parameters, model, source, released, told, sources))
                if manifest.content.scheme is Scheme.SHA256 and started.weights != manifest.content.value:
                    await _end(started)
                    raise WeightsMismatch(f"the weights of {model.name!r} are not those that its manifest names")
                shared = self._shared[key] = _Shared(started, frozenset(sealed.said.name for sealed in sources))
            shared.users += 1
        return shared.started.engine, shared.started.weights

    async def give_back(self, engine: Engine) -> None:
        """A room no longer uses it."""
        for shared in self._at_work(engine):
            shared.users -= 1
            if not shared.users:
                self._forget(shared)
                await _end(shared.started)

    def draw(self, engine: Engine, let: frozenset[str], gone: frozenset[str]) -> None:
        """Have an engine draw from these sources, and let go of those that are gone.

        That is for good: a room that has their keys again gets another engine.
        """
        for shared in self._at_work(engine):
            if shared.told != (let, gone):
                shared.told = let, gone
                cast("Drawing", engine).draw(let, gone)
            if gone & shared.drawn and shared not in self._lesser:
                self._forget(shared)
                self._lesser.append(shared)

    def _at_work(self, engine: Engine) -> list[_Shared]:
        return [shared for shared in [*self._shared.values(), *self._lesser] if shared.started.engine is engine]

    def _forget(self, shared: _Shared) -> None:
        self._shared = {key: one for key, one in self._shared.items() if one is not shared}
        self._lesser = [one for one in self._lesser if one is not shared]


def _sources(room: Room, model: Model, parameters: Parameters) -> tuple[Sealed, ...]:
    """The sources that a model draws from, and that their owners released. Raises RoomClosed."""
    if model.engine != serve_llm.RETRIEVAL:
        return ()
    held = room.released()
    return tuple(Sealed(said, *room.sealed(said.role)) for said in parameters.sources if said.role in held)


def _has(engines: list[Engine], engine: Engine) -> bool:
    return any(one is engine for one in engines)


async def _end(started: Started) -> None:
    try:
        await started.engine.close()
    finally:
        started.release()


def _percent(progress: Progress, model: Model, size: int) -> Callable[[int], None]:
    last = -1

    def told(done: int) -> None:
        nonlocal last
        percent = 100 * done // max(1, size)
        if percent != last:
            last = percent
            progress("weights", f"{model.name} {percent} %")

    return told


@dataclass(eq=False)
class _Coming:
    """A room that is being opened.

    Attributes:
        contract: its own.
        room: once there is one.
        engines: that it took so far.
    """

    contract: Contract
    room: Room | None = None
    engines: list[Engine] = field(default_factory=list)


class Keeper:
    """What a room that answers requests is: its keys, engines, guards, and everything about it that stays the same.

    Args:
        room: open.
        parameters: of its contract.
        models: by name.
        guards: those of the input, then those of the output.
        engines: every one that it holds, the guard model's too.
        observer: who counts.
        capacity: how many requests may be under way at once.
    """

    def __init__(
        self,
        room: Room,
        parameters: Parameters,
        models: Mapping[str, Served],
        guards: tuple[list[Guard], list[Guard]],
        *,
        engines: list[Engine],
        observer: Observer,
        capacity: int,
    ) -> None:
        serve = room.contract.proposal.policy.serve
        assert serve is not None  # a standing contract
        self.room, self.parameters, self.models, self.observer = room, parameters, models, observer
        self.engines = engines
        self.serve: Serving = serve
        self.keyset, self.opened_at = room.keys.keyset, room.around.now()
        self.digest = self.keyset.digest
        self._signer: ReceiptSigner | None = ReceiptSigner(self.keyset, room.serving.receipt)
        self.seen = SeenKeys(self.digest)
        self.input_guards, self.output_guards = guards
        self.named_input = [(guard, Named(guard.name, guard.program, Stage.INPUT)) for guard in guards[0]]
        self.named_output = [(guard, Named(guard.name, guard.program, Stage.OUTPUT)) for guard in guards[1]]
        self.sizes = serve.padding_sizes
        self.padding = Padding(self.sizes) if self.sizes else None
        self.policy = wire.digest(wire.encode(room.contract.proposal.policy.to_json()))
        self.assets = {ref.role: ref.manifest for ref in room.contract.proposal.assets}
        self.observability = Observability(serve.observability)
        self.capacity = capacity
        self.guarding = {guard: asyncio.Lock() for side in guards for guard in side}
        self.threads = ThreadPoolExecutor(max(1, len(self.guarding)), "strongroom-guard")
        self.active = 0
        self.shares: Counter[str] = Counter()  # of the places, by whose use they count as
        self.draining = False
        self.closed = asyncio.Event()
        self.idle = asyncio.Event()
        self.idle.set()
        self.headers = [(b"x-aci-version", b"aci/1"), (b"x-aci-keyset-digest", self.digest.encode())]
        self._report: AttestationReport | None = None

    @property
    def contract(self) -> Contract:
        return self.room.contract

    @property
    def signer(self) -> ReceiptSigner:
        """Signs receipts. Raises RoomClosed: its key was erased."""
        if self._signer is None:
            raise RoomClosed("the room is closed")
        return self._signer

    def erase(self) -> None:
        """Let go of every key, once nothing is under way here."""
        self._signer = None
        self.room.erase()

    def begin(self) -> None:
        """A request is under way here."""
        self.active += 1
        self.idle.clear()

    def end(self) -> None:
        """It no longer is."""
        self.active -= 1
        if not self.active:
            self.idle.set()

    def require_open(self, at: int) -> None:
        """Raises RoomClosed."""
        if self.closed.is_set():
            raise RoomClosed("the room is closed")
        self.room.require_open(at)

    def report(self, nonce: bytes | None) -> AttestationReport:
        """Evidence for the asker's nonce; without one, the same for everybody. It asks the platform, and blocks."""
        if nonce is not None:
            return self.room.report(nonce, e2ee_versions=(E2EE_VERSION,))
        if self._report is None:
            self._report = self.room.report(None, e2ee_versions=(E2EE_VERSION,))
        return self._report

    def spent(self, at: int) -> bool:
        """Whether three quarters of the keyset's requests or of its time are used up."""
        lives, lived = self.keyset.not_after - self.opened_at, at - self.opened_at
        return self.seen.count * 4 >= self.seen.capacity * 3 or lived * 4 >= lives * 3


@dataclass
class Rooms:
    """Every room of this enclave. Used from one event loop.

    Args:
        around: what an enclave is given, for what tells of its progress.
        contract: finds a contract by its digest, and checks its signatures.
        program_digest: of the program that stands ready to serve.
        start: starts engines.
        guards: loads guards.
        observer: who counts, for a contract.
        tls: the keys of TLS that ends here.
        opened: called after each opening and renewal of leases (receipts are logged on their authority).
        queue: how many requests may wait for each that is worked on.
        contracts: the digests of those that the operator lets open here. Without any it is the one that was opened first:
            anybody can put a contract on the exchange, and a room of another is what users here did not agree to.
    """

    around: Callable[[Progress], Around]
    contract: Callable[[str], Contract]
    program_digest: Callable[[], str]
    start: Starter
    guards: Guards
    observer: Callable[[Contract], Observer]
    tls: tuple[TlsKey, ...] = ()
    opened: Callable[[Room], None] = lambda _room: None
    queue: int = 4
    contracts: frozenset[str] = frozenset()
    current: Keeper | None = None
    draining: list[Keeper] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.engines = Engines(self.start)
        self._finding = Few(2)
        self._opening = asyncio.Lock()
        self._begun: dict[str, None] = {}
        self._first: str | None = None  # the contract that was opened first
        self._revisions = Revisions()
        self._coming: list[_Coming] = []
        self._rotate_at = 0
        self._spares: list[Envelope] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.ending = False

    # --- opening ---

    async def verify(self, data: bytes) -> tuple[Contract, Envelope]:
        """Read a party's signed request, before anything begins.

        Raises:
            WireError, NotFound, ContractError: it is none, or of no contract.
            Unauthorised: the operator does not let this contract open here.
            NotPermitted: the contract is for runs.
            Conflict: it was here before.
            TooManyRequests: too many ask at once.
        """
        envelope = Envelope.parse(data, max_bytes=64 << 10)
        asked = RunRequest.peek(envelope)
        self._require_let(asked.contract)
        contract = await self._finding.run(lambda: self.contract(asked.contract))
        at = self.now
        contract.require_in_force(at)
        asked = RunRequest.verify(envelope, contract.proposal, at)
        if not contract.proposal.standing:
            raise NotPermitted("the contract is for runs, and opens no room")
        if asked.run_id in self._begun:
            raise Conflict("this room was asked for already", hint="Ask for a new one.")
        self._begun = {asked.run_id: None, **dict(list(self._begun.items())[:MAX_BEGUN])}
        return contract, envelope

    def _require_let(self, contract: str) -> None:
        if contract in self.contracts or (not self.contracts and self._first in (None, contract)):
            return
        hint = "Its operator says which contracts may: strongroom enclave --contract DIGEST, once for each."
        raise Unauthorised("the operator does not let this contract open here", hint=hint)

    def spare(self, envelope: Envelope) -> None:
        """Keep a request for when the keyset is full. Raises Conflict: there are too many."""
        if len(self._spares) >= MAX_SPARES:
            raise Conflict(f"{MAX_SPARES} requests wait to be used here")
        self._spares.append(envelope)

    @property
    def spares(self) -> int:
        """How many are kept."""
        return len(self._spares)

    async def open(self, contract: Contract, envelope: Envelope, progress: Progress) -> Keeper:
        """Open a room and make it the current one; the one before is drained.

        Raises:
            Unauthorised: the operator does not let this contract open here.
            ContractError, BrokerError, AttestationError, AssetError, EnclaveError, EngineError, AppError: nothing changed.
        """
        coming = _Coming(contract)
        self._coming.append(coming)
        try:
            async with self._opening:
                if self.ending:
                    raise RoomClosed("the enclave ends")
                self._require_let(contract.digest)  # again: another may have been the first by now
                self._loop = asyncio.get_running_loop()
                keeper = await self._open(coming, envelope, progress)
                self._first = self._first or contract.digest
                self._take_over(keeper)
                return keeper
        finally:
            self._coming.remove(coming)

    async def _open(self, coming: _Coming, envelope: Envelope, progress: Progress) -> Keeper:
        contract, taken = coming.contract, coming.engines
        parameters = serve_llm.read(contract.proposal.program.parameters)
        missing = serve_llm.roles(contract.proposal.program.parameters) - {ref.role for ref in contract.proposal.assets}
        if missing:
            raise BadParameters(f"the contract has no asset in the role {min(missing)!r}", step="check parameters")
        tls, digest, around = self.tls, await asyncio.to_thread(self.program_digest), self.around(progress)
        droppable = {source.role for source in parameters.sources}
        room = await asyncio.to_thread(lambda: Room(contract, envelope, digest, around, tls=tls, droppable=droppable))
        coming.room = room
        try:
            await asyncio.to_thread(room.open)
            models = {}
            for model in _served(parameters):
                progress("engine", model.name)
                engine, weights = await self.engines.take(room, model, parameters, progress)
                taken.append(engine)
                models[model.name] = Served(model, engine, self._named(room, model, weights), self.now)
            serve = contract.proposal.policy.serve
            if serve is not None and (guarding := sorted(serve.input_guards | serve.output_guards)):
                progress("guards", ", ".join(guarding))
            guards = await self._guards(room, parameters, progress, taken)
            await asyncio.to_thread(self.opened, room)
            parallel = sum(served.engine.about.parallel for served in models.values())
            capacity = parallel * (1 + self.queue)
            observer = self.observer(contract)
            keeper = Keeper(room, parameters, models, guards, engines=taken, observer=observer, capacity=capacity)
            self.draw(keeper)
            return keeper  # noqa: TRY300 - what fails here lets go of everything
        except BaseException:
            room.erase()
            for engine in taken:
                await self.engines.give_back(engine)
            raise

    # --- sources ---

    def revise(self, data: bytes) -> dict[str, JSON]:
        """Take what an owner says now of a source, and keep to it from the next question on, in rooms being opened too.

        Raises:
            WireError, BadDrawing, BadSignature, StaleRevision, NotFound: as ``sources.Revisions.take``.
        """
        rooms = [*([self.current] if self.current else []), *self.draining]
        contracts = [keeper.contract for keeper in rooms] + [one.contract for one in self._coming]
        revision = self._revisions.take(data, [contract.proposal for contract in contracts])
        for keeper in rooms:
            self.draw(keeper)
        return {"number": revision.number, "source": revision.asset}

    def draw(self, keeper: Keeper) -> None:
        """Have a room's model draw from exactly the sources whose owners let it now: they released the key, and the newest
        word of theirs permits what was agreed. Of the rooms that share its engine the newest says so; memory is let go of
        where none of them holds a key."""
        if not keeper.parameters.sources or keeper.closed.is_set():
            return
        for served in keeper.models.values():
            if served.model.engine == serve_llm.RETRIEVAL:
                self._draw(served.engine, keeper)

    def _draw(self, engine: Engine, asked: Keeper) -> None:
        rooms = [*self.draining, *([self.current] if self.current else [])]
        rooms += [asked] if asked not in rooms else []
        sharing = [keeper for keeper in rooms if not keeper.closed.is_set() and _has(keeper.engines, engine)]
        opening = [one.room for one in self._coming if one.room is not None and _has(one.engines, engine)]
        newest, held = sharing[-1], frozenset[str]()
        let: frozenset[str] | None = None
        for room in [*opening, *(keeper.room for keeper in sharing)]:
            try:
                here = frozenset(room.released())
            except RoomClosed:  # which it is about to be
                continue
            held |= here
            let = here if room is newest.room else let
        if let is None:
            return
        sources, proposal = newest.parameters.sources, newest.contract.proposal
        drawn = {s.name for s in sources if s.role in let and self._revisions.permits(proposal, s.role)}
        gone = {s.name for s in sources if s.role not in held}
        self.engines.draw(engine, frozenset(drawn), frozenset(gone))

    @staticmethod
    def _named(room: Room, model: Model, weights: bytes) -> ModelWeights:
        asset = room.released()[model.role].manifest.digest
        return ModelWeights(model.name, f"sha256:{weights.hex()}", asset, room.contract.digest)

    async def _guards(
        self, room: Room, parameters: Parameters, progress: Progress, taken: list[Engine]
    ) -> tuple[list[Guard], list[Guard]]:
        serve = room.contract.proposal.policy.serve
        assert serve is not None
        ask: Ask | None = None
        if parameters.guard is not None and "model" in serve.input_guards | serve.output_guards:
            model = next(model for model in parameters.models if model.role == parameters.guard)
            engine, _ = await self.engines.take(room, model, parameters, progress)
            taken.append(engine)
            ask = self._asker(engine)
        settings: Mapping[str, Any] = getattr(parameters, "guards", {})

        def load() -> tuple[list[Guard], list[Guard]]:
            return (
                self.guards(serve.input_guards, "input", settings, ask),
                self.guards(serve.output_guards, "output", settings, ask),
            )

        return await asyncio.to_thread(load)

    def _asker(self, engine: Engine) -> Ask:
        """Puts a question to the guard model, from a guard's thread."""

        async def answer(body: bytes) -> str:
            async with aclosing(engine.ask("chat", body)) as answers:
                said = [piece async for piece in answers]
            return "".join(p.delta.get("content", "") for p in said if isinstance(p, Piece))

        def ask(body: bytes) -> str:
            assert self._loop is not None
            return asyncio.run_coroutine_threadsafe(answer(body), self._loop).result(timeout=120)

        return ask

    # --- current, draining, closed ---

    @property
    def now(self) -> int:
        return self.around(_silent).now()

    def require(self) -> Keeper:
        """The current room. Raises RoomClosed."""
        if self.current is None:
            raise RoomClosed("no room is open here")
        self.current.require_open(self.now)
        return self.current

    def candidates(self) -> list[Keeper]:
        """The rooms whose keys a sealed request may be for: the current one first. Raises RoomClosed."""
        current = self.require()
        return [current, *(keeper for keeper in self.draining if keeper.capacity and not keeper.closed.is_set())]

    def find(self, keyset: str) -> Keeper | None:
        """A room that is not closed yet, by its keyset's digest."""
        known = [*([self.current] if self.current else []), *self.draining]
        return next((keeper for keeper in known if keeper.digest == keyset and not keeper.closed.is_set()), None)

    def _take_over(self, keeper: Keeper) -> None:
        before, self.current = self.current, keeper
        if before is not None:
            before.draining = True
            self.draining.append(before)
            self._spawn(self._drain(before))

    async def _drain(self, keeper: Keeper) -> None:
        await asyncio.sleep(GRACE_SECONDS)
        keeper.capacity = 0
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await keeper.idle.wait()
        except TimeoutError:
            _busy(keeper, "a room was closed with requests under way")
        await self.close_room(keeper)

    async def close_room(self, keeper: Keeper) -> None:
        """Erase its keys, and let go of its engines. What is under way there ends."""
        if keeper.closed.is_set():
            return
        keeper.closed.set()
        keeper.room.close()
        if keeper in self.draining:
            self.draining.remove(keeper)
        if self.current is keeper:
            self.current = None
        try:
            for engine in keeper.engines:
                await self.engines.give_back(engine)
        finally:
            keeper.threads.shutdown(wait=False)
            if keeper.active:  # what ends there is signed yet, and sealed
                self._spawn(self._erase(keeper))
            else:
                keeper.erase()

    @staticmethod
    async def _erase(keeper: Keeper) -> None:
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await keeper.idle.wait()
        except TimeoutError:
            _busy(keeper, "a room's keys are erased with requests under way")
        finally:
            keeper.erase()

    async def rotate(self) -> bool:
        """Open the next room with a spare request, where the keyset is three quarters used up; whether it did.

        Only one of the current contract's: which contract is served is not decided by what waits here. Where it fails, the
        spare waits again, behind the others, and no other is tried for a while; one that can open nothing more is dropped.
        """
        current = self.current
        if current is None or self.now < self._rotate_at or not current.spent(self.now):
            return False
        digest = current.contract.digest
        envelope = next((spare for spare in self._spares if RunRequest.peek(spare).contract == digest), None)
        if envelope is None:
            return False
        self._spares.remove(envelope)
        try:
            contract = await asyncio.to_thread(self.contract, digest)
            await self.open(contract, envelope, _silent)
        except Exception as error:  # noqa: BLE001 - whatever it is; neither message nor traceback is logged
            _LOG.warning("the keyset could not be rotated: %s", openai.expected(error).code)
            self._rotate_at = self.now + SPARE_SECONDS
            if not isinstance(error, (ContractError, ReleaseRefused, WireError)):
                self._spares.append(envelope)
            return False
        return True

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Close every room. Can be called again."""
        self.ending = True
        for task in list(self._tasks):
            task.cancel()
        keepers = [*self.draining, *([self.current] if self.current else [])]
        for keeper in keepers:
            await self.close_room(keeper)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=END_SECONDS)
        for keeper in keepers:
            keeper.erase()


def _served(parameters: Parameters) -> list[Model]:
    """The models that may be asked: the guard model may not."""
    return [model for model in parameters.models if model.role != parameters.guard]


def _busy(keeper: Keeper, what: str) -> None:
    """Say it where the contract lets the operator know that there are requests. How many is said nowhere."""
    if keeper.observability is not Observability.NONE:
        _LOG.warning("%s", what)


def _silent(_step: str, _detail: str) -> None:
    return
