"""The enclave as a process: it runs contracts that a party asks for, and answers with receipts.

One sandbox stands ready ahead of each run, so that libraries are loaded before keys are there. A run goes on when the one
who asked goes away: its receipt is logged all the same.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, TypeVar, cast

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from strongroom import wire
from strongroom.airlock import Box
from strongroom.app.exchange.client import ExchangeClient
from strongroom.app.http import Client, application, blocking, body, json_answer, listen, serve
from strongroom.attest.evidence import REPORT_DATA_BYTES, Endorsements, Evidence, Platform
from strongroom.code import PROGRAM as CODE
from strongroom.contract import Contract, RunRequest
from strongroom.contract import Limits as Agreed
from strongroom.delivery import Delivery
from strongroom.enclave import sandbox
from strongroom.enclave.obtain import BrokerLine
from strongroom.enclave.run import OpenInput, Surroundings, run
from strongroom.enclave.shares import Holders, Memory
from strongroom.errors import (
    BadRelease,
    BookRestored,
    Conflict,
    Internal,
    JobOver,
    MissingExtra,
    NotFound,
    ReleaseRefused,
    RunBegun,
    RunEnded,
    StrongroomError,
    Unreachable,
)
from strongroom.job import Cancel, require_may_cancel
from strongroom.party import Party
from strongroom.programs import NAMES, OutputSpec, charges, load
from strongroom.receipt import Bundle
from strongroom.release import ReleaseRequest
from strongroom.threshold import Holder
from strongroom.wire import JSON, Envelope, Fields

from . import platforms
from .environments import Environments
from .going import GoingRequest
from .hardware import Gather, Hardware
from .stop import Stop
from .submitted import Submitted
from .told import counted, hear
from .wheels import Place

if TYPE_CHECKING:
    import socket

    from strongroom.app.inference.hosting import Hosting

_LOG = logging.getLogger("strongroom.enclave")
MAX_RUNS = 4
MAX_BEGUN = 10_000  # run ids that are remembered
MAX_KNOWN = 64  # contracts that are remembered for those who ask how far their runs are
MAX_ANSWER = 64 << 10  # bytes that a broker answers
ANSWER_SECONDS = 20.0  # in which it answers all of them
HEARTBEAT_SECONDS = 2.0
RETRIES = (0.5, 2.0, 5.0)  # seconds to wait before an exchange or a broker is asked again
READY = "evaluate"  # what a fresh sandbox is prepared for

_T = TypeVar("_T")


class HttpBroker:
    """The way to a broker over HTTP (``enclave.run.BrokerLine``).

    Args:
        party: whose broker; its address is the contract's.
    """

    def __init__(self, party: Party) -> None:
        self._client = Client(party.broker_url, timeout=15)
        self._name = party.name

    def close(self) -> None:
        self._client.close()

    def _post(self, path: str, content: bytes) -> bytes:
        """A broker's answer. What else may listen at that address is told to nobody: the contract's writer chose it."""
        try:
            return self._client.post(path, content, allow=(403,), max_bytes=MAX_ANSWER, seconds=ANSWER_SECONDS)
        except BookRestored as error:
            raise BookRestored(f"the broker of {self._name} was put back, and its owner did not confirm it") from error
        except StrongroomError as error:
            raise Unreachable(f"the broker of {self._name} does not answer as a broker does") from error

    def nonce(self) -> bytes:
        f = Fields(wire.decode(self._post("/v1/nonce", b"{}")), "answer")
        nonce = f.hex("nonce", size=32)
        f.end()
        return nonce

    def release(self, request: bytes) -> bytes:
        """Raises ReleaseRefused with the code that the broker gives."""
        answer = self._post("/v1/release", request)
        decoded = wire.decode(answer)
        if isinstance(decoded, dict) and "refusal" in decoded:
            self._refused(decoded["refusal"], request)
        return answer

    def receipt(self, bundle: Bundle) -> None:
        """Raises Unreachable when the broker does not take it, asked again and again."""

        def ask() -> None:
            if self._post("/v1/receipts", bundle.encode()) != b"{}":
                raise Unreachable(f"the broker of {self._name} did not take its receipt")

        _insist(ask)

    def _refused(self, value: object, request: bytes) -> None:
        asked = ReleaseRequest.parse(request)
        statement = wire.decode(Envelope.from_json(value).payload)
        if not isinstance(statement, dict) or statement.get("nonce") != asked.nonce.hex():
            raise BadRelease("the broker's refusal is of another request")
        number, code = str(statement.get("number"))[:8], str(statement.get("code"))[:64]
        raise ReleaseRefused(f"the broker of {self._name} refused at check {number}: {code}", reason=code)


class HttpHolder(HttpBroker):
    """The way to a broker that holds a share (``enclave.shares.HolderLine``).

    Args:
        holder: its address is the enrolment's.
    """

    def __init__(self, holder: Holder) -> None:
        self._client = Client(holder.address, timeout=15)
        self._name = holder.name


def _insist(ask: Callable[[], _T]) -> _T:
    """Ask again where an answer that is missed would cost the parties a run."""
    for pause in RETRIES:
        try:
            return ask()
        except (Unreachable, Internal) as error:
            _LOG.warning("asking again: %s", error.code)
            time.sleep(pause)
    return ask()


class PatientExchange(ExchangeClient):
    """An exchange that may restart while a run is made."""

    def put_output(self, sealed: bytes) -> None:
        return _insist(lambda: super(PatientExchange, self).put_output(sealed))

    def deliver(self, delivery: Delivery) -> None:
        return _insist(lambda: super(PatientExchange, self).deliver(delivery))

    def put_box(self, box: Box) -> None:
        return _insist(lambda: super(PatientExchange, self).put_box(box))

    def record(self, bundle: Bundle) -> Bundle:
        return _insist(lambda: super(PatientExchange, self).record(bundle))


def _whole_reads(file: BinaryIO) -> BinaryIO:
    """A file whose ``read(n)`` gives n bytes unless it ends, as a raw reader need not."""
    return io.BufferedReader(cast("io.RawIOBase", file), 1 << 16)


def _told_nobody(_count: str) -> None:
    pass


class Confined:
    """A prepared sandbox for one contract (``enclave.run.Confinement``).

    Args:
        prepared: the sandbox.
        told: called with how far the program is, where the contract agreed that this leaves.
    """

    def __init__(self, prepared: sandbox.Sandbox, told: Callable[[str], None] = _told_nobody) -> None:
        self._sandbox, self._told = prepared, told

    @property
    def kind(self) -> str:
        return self._sandbox.kind

    @property
    def walls(self) -> tuple[str, ...]:
        return self._sandbox.walls

    @property
    def program_digest(self) -> str:
        return self._sandbox.program_digest

    @property
    def code_digest(self) -> str | None:
        return self._sandbox.code_digest

    @property
    def environment(self) -> str | None:
        return self._sandbox.environment

    def run(self, contract: Contract, inputs: Mapping[str, OpenInput], limits: Agreed) -> Mapping[str, bytes]:
        outputs = {
            o.name: OutputSpec(o.kind, o.rule.max_bytes, o.rule.min_group, o.rule.decimals)
            for o in contract.proposal.outputs
            if o.kind != "success"
        }
        most = sandbox.Limits(limits.seconds, limits.memory_bytes, sum(o.max_bytes for o in outputs.values()))
        whole = {role: OpenInput(i.media_type, i.size, _whole_reads(i.file)) for role, i in inputs.items()}
        on_progress = counted(contract, self._told)
        return self._sandbox.run(contract.proposal.program.parameters, whole, outputs, most, on_progress)

    def cancel(self) -> None:
        """Have a run end; from any thread."""
        self._sandbox.cancel()

    def close(self) -> None:
        self._sandbox.close()


class Standby:
    """Keeps one sandbox ready. A contract that needs another kind or program gets one made for it.

    Args:
        submitted: confines contracts that run submitted code; ``None`` where none is run.
    """

    def __init__(self, submitted: Submitted | None = None) -> None:
        self._submitted = submitted
        self._ready: sandbox.Sandbox | None = None
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Start one, if there is none. What cannot be started is said when a contract needs it."""
        with self._lock:
            if self._ready is None:
                try:
                    self._ready = sandbox.prepare(READY, outputs=tuple(load(READY).OUTPUTS))
                except StrongroomError as error:
                    _LOG.warning("no sandbox stands ready: %s: %s", error.code, error)
        if self._submitted is not None:
            self._submitted.prepare()

    def take(self, contract: Contract, told: Callable[[str], None] = _told_nobody) -> Confined:
        """Raises NoSandbox, BadParameters, MissingExtra; of submitted code also as :meth:`Submitted.take`."""
        p = contract.proposal
        if p.program.name == CODE and self._submitted is not None:
            return Confined(self._submitted.take(contract), told)
        if p.program.name == READY and p.enclave.sandbox == "isolated":
            with self._lock:
                found, self._ready = self._ready, None
            if found is not None:
                return Confined(found, told)
        outputs = tuple(o.name for o in p.outputs if o.kind != "log")
        return Confined(sandbox.prepare(p.program.name, p.enclave.sandbox, outputs=outputs), told)

    def close(self) -> None:
        with self._lock:
            if self._ready is not None:
                self._ready.close()
                self._ready = None
        if self._submitted is not None:
            self._submitted.close()


_RunKey: TypeAlias = tuple[str, str]
"""A contract's digest and a run's id."""


@dataclass(frozen=True, slots=True)
class Going:
    """Where a run is: its step, a word of detail, and how far the program is, for those who hear that."""

    step: str
    said: str
    count: str = ""

    def detail(self, hears: bool) -> str:
        return self.count if hears and self.count else self.said


class Runner:
    """Runs contracts, each in a thread of its own.

    Args:
        platform: signs evidence.
        exchange: where contracts, sealed files and receipts are.
        devices: evidence of the devices beside the processor; ``None`` where there are none.
        environments: the packages that submitted code is locked to; ``None`` where no code is taken.
    """

    def __init__(
        self,
        platform: Platform,
        exchange: Client,
        devices: Callable[[bytes], tuple[Evidence, ...]] | None = None,
        environments: Environments | None = None,
    ) -> None:
        self._platform, self._exchange, self._devices = platform, PatientExchange(exchange), devices
        self.standby = Standby(None if environments is None else Submitted(self._exchange.code, environments))
        self._silent = Memory()
        self._places = threading.BoundedSemaphore(MAX_RUNS)
        self._lock = threading.Lock()
        self._begun: dict[_RunKey, int] = {}  # when the request that began it was signed
        self._going: dict[_RunKey, Going] = {}
        self._stops: dict[_RunKey, Stop] = {}
        self._contracts: dict[str, Contract] = {}  # by digest

    def going(self, data: bytes) -> list[JSON]:
        """Where the runs of a contract are now: what whoever asked for one hears, for its other parties.

        Args:
            data: a party's signed request.

        Raises:
            WireError, NotFound, ContractError, PartyError: nobody else hears it.
        """
        envelope = Envelope.parse(data, max_bytes=64 << 10)
        contract = self._known(GoingRequest.peek(envelope).contract)
        party, hears = GoingRequest.verify(envelope, contract.proposal, int(time.time())).party, hear(contract)
        with self._lock:
            found = [(run_id, run) for (digest, run_id), run in self._going.items() if digest == contract.digest]
        return [
            {"contract": contract.digest, "detail": run.detail(party in hears), "run_id": run_id, "step": run.step}
            for run_id, run in found
        ]

    def cancel(self, data: bytes) -> str:
        """Cancel a run that goes on here: its program is killed, and nothing leaves.

        Args:
            data: a party's signed word.

        Returns:
            the run's id.

        Raises:
            WireError, NotFound, ContractError, PartyError: not by somebody who may. JobOver: it is being delivered.
        """
        envelope = Envelope.parse(data, max_bytes=64 << 10)
        contract = self._known(Cancel.peek(envelope).contract)
        said = Cancel.verify(envelope, contract.proposal, int(time.time()))
        with self._lock:
            stop = self._stops.get((contract.digest, said.run_id))
        if stop is None:
            raise NotFound("no such run goes on here")
        require_may_cancel(contract.proposal, said.party, stop.asked_by)
        if not stop.cancel():
            raise JobOver("the run is being delivered")
        return said.run_id

    def _known(self, digest: str) -> Contract:
        """A contract, which those who listen ask for again and again."""
        with self._lock:
            found = self._contracts.get(digest)
        if found is None:
            found = Contract.verify(self._exchange.proposal(digest).envelope)
            with self._lock:
                self._contracts = {digest: found, **dict(islice(self._contracts.items(), MAX_KNOWN))}
        return found

    def start(self, data: bytes) -> Iterator[bytes]:
        """Begin the run that a party asks for; lines of JSON, the last with ``bundle`` or ``error``.

        Raises:
            WireError, NotFound, ContractError: before anything begins. Conflict when too many runs are going on. RunBegun:
            this one does. RunEnded: it did, and this is the request that began it, or an older one.
        """
        envelope = Envelope.parse(data, max_bytes=64 << 10)
        asked = RunRequest.peek(envelope)
        contract = Contract.verify(self._exchange.proposal(asked.contract).envelope)
        asked = RunRequest.verify(envelope, contract.proposal, int(time.time()))
        key = contract.digest, asked.run_id
        with self._lock:
            if key in self._stops:
                raise RunBegun("this run goes on here")
            # A copy of the request begins nothing. Its party may sign another for the same run: whether a key was released
            # for the first, so that this is another keyset's, the brokers know.
            if self._begun.get(key, -1) >= asked.at:
                raise RunEnded("this run was begun already")
            if not self._places.acquire(blocking=False):
                raise Conflict(f"{MAX_RUNS} runs are going on here", hint="Ask again when one has ended.")
            self._begun = {key: asked.at, **dict(islice(self._begun.items(), MAX_BEGUN))}
            self._stops[key] = stop = Stop(asked.party)
        events: queue.Queue[dict[str, Any]] = queue.Queue()
        threading.Thread(target=self._work, args=(contract, envelope, stop, events), daemon=True).start()
        return self._lines(events)

    @staticmethod
    def _lines(events: queue.Queue[dict[str, Any]]) -> Iterator[bytes]:
        began, last = time.monotonic(), ""
        while True:
            try:
                event = events.get(timeout=HEARTBEAT_SECONDS)
            except queue.Empty:  # by the clock and not by the program, which could tell of the data by how far it is
                event = {"detail": f"{time.monotonic() - began:.0f} s", "step": last}
            yield wire.encode(event) + b"\n"
            if "step" not in event:
                return
            last = event["step"]

    def _work(self, contract: Contract, asked: Envelope, stop: Stop, events: queue.Queue[dict[str, Any]]) -> None:
        key, hears = (contract.digest, RunRequest.peek(asked).run_id), stop.asked_by in hear(contract)

        def progress(step: str, detail: str, count: str = "") -> None:
            with self._lock:
                self._going[key] = run = Going(step, detail, count)
            if hears or not count:
                events.put({"detail": run.detail(hears), "step": step})

        try:
            bundle = self._run(contract, asked, stop, progress)
            events.put({"bundle": bundle.to_json()})
        except StrongroomError as error:
            events.put({"error": error.to_json()})
        except Exception as error:  # noqa: BLE001 - a thread's last line of defence
            # neither message nor traceback is logged: they may hold data
            _LOG.error("internal error in a run: %s", error.__class__.__name__)
            events.put({"error": Internal("the enclave failed").to_json()})
        finally:
            with self._lock:
                self._going.pop(key, None)
                self._stops.pop(key, None)
            self._places.release()
            self.standby.prepare()

    def _run(self, contract: Contract, asked: Envelope, stop: Stop, progress: Callable[..., None]) -> Bundle:
        def confine(contract: Contract) -> Confined:
            name = contract.proposal.program.name
            found = self.standby.take(contract, lambda count: progress("program", name, count))
            stop.at(found.cancel)
            return found

        with ExitStack() as lines:

            def broker(party: Party) -> BrokerLine:
                line = HttpBroker(party)
                lines.callback(line.close)
                return line

            def holder(found: Holder) -> HttpHolder:
                line = HttpHolder(found)
                lines.callback(line.close)
                return line

            around = Surroundings(
                platform=self._platform,
                exchange=self._exchange,
                broker=broker,
                confine=confine,
                cancelled=stop.cancelled,
                leaves=stop.leaves,
                now=lambda: int(time.time()),
                entropy=secrets.token_bytes,
                progress=progress,
                devices=self._devices,
                holders=Holders(self._exchange.enrolment, holder, self._silent),
                spends=lambda program: charges(program.name, program.parameters),
                wait=time.sleep,
            )
            return run(contract, asked, around)


def enclave(runner: Runner) -> Any:
    """The application."""

    async def post_run(request: Request) -> Response:
        lines = await blocking(runner.start)(await body(request, 64 << 10))
        return StreamingResponse(lines, media_type="application/x-ndjson")

    async def post_going(request: Request) -> Response:
        return json_answer({"runs": await blocking(runner.going)(await body(request, 64 << 10))})

    async def post_cancel(request: Request) -> Response:
        return json_answer({"run_id": await blocking(runner.cancel)(await body(request, 64 << 10))})

    async def health(_request: Request) -> Response:
        return json_answer({"programs": list(NAMES), "role": "enclave"})

    return application(
        [
            Route("/v1/health", health),
            Route("/v1/runs", post_run, methods=["POST"]),
            Route("/v1/going", post_going, methods=["POST"]),
            Route("/v1/cancels", post_cancel, methods=["POST"]),
        ]
    )


def _announce(url: str) -> None:
    print(json.dumps({"role": "enclave", "url": url}), flush=True)  # noqa: T201 - for the process that started the platform


def _hardware(args: argparse.Namespace) -> Hardware:
    """The platform by name, once it has shown that it works: better now than when a party waits.

    Raises:
        PlatformFailed: it gives no evidence.
    """
    machine = platforms.Machine()
    processor = platforms.open_platform(machine, args.platform, privlevel=args.vmpl)
    gpus, seen = platforms.devices(machine)
    _LOG.info("%s; %s", args.platform, seen)
    found = Hardware(processor, gpus, gather=_gatherer(args))
    bound = secrets.token_bytes(REPORT_DATA_BYTES)
    found.produce(bound)
    if found.devices is not None:
        found.devices(bound)
    found.endorsements()  # so that what must be fetched is kept already when a broker asks
    return found


def _gatherer(args: argparse.Namespace) -> Gather:
    """Finds what the vendors say of some evidence: carried here, kept, or fetched."""
    from strongroom.app.endorsements.bundle import open_bundle
    from strongroom.app.endorsements.cache import Cache
    from strongroom.app.endorsements.provider import EndorsementProvider
    from strongroom.app.endorsements.web import Web

    provider = EndorsementProvider(
        bundle=open_bundle(args.endorsements).documents if args.endorsements else (),
        cache=Cache(args.cache),
        web=None if args.offline else Web(),
    )

    def gather(evidence: Evidence, at: int, own: Endorsements) -> Endorsements:
        found = provider.collect(evidence, at, beside=own)
        for problem in found.problems:
            _LOG.warning("endorsements: %s: %s", problem.about, problem.error.message)
        return found.endorsements

    return gather


def main() -> None:
    """What the simulated platform starts, and what an enclave on hardware becomes."""
    from strongroom.app.inference import arguments

    from .line import PlatformClient

    parser = argparse.ArgumentParser()
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--platform-fd", type=int)
    how.add_argument("--platform", choices=platforms.NAMES)
    parser.add_argument("--vmpl", type=int)
    parser.add_argument("--endorsements", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--offline", action="store_true")
    parser.add_argument("--until-eof", action="store_true")
    parser.add_argument("--environments", type=Path)
    parser.add_argument("--wheels", type=Path)
    parser.add_argument("--index")
    parser.add_argument("--exchange", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments.declare(parser)
    args = parser.parse_args()
    exchange, devices = Client(args.exchange, timeout=30), None
    platform: Platform
    if args.platform is None:
        platform = PlatformClient(args.platform_fd)
    else:
        try:
            platform = hardware = _hardware(args)
        except StrongroomError as error:
            raise SystemExit(f"{error.code}: {error}\n{error.hint}") from error
        devices = hardware.devices
    place = Place(args.wheels, args.index)
    environments = None if args.environments is None else Environments(args.environments, place)
    runner = Runner(platform, exchange, devices, environments)
    try:
        _serve(runner, args, platform, exchange, devices)
    except StrongroomError as error:  # a discreet process would end without a word
        raise SystemExit(f"{error.code}: {error}\n{error.hint}") from error
    except ImportError as error:
        raise SystemExit(f"{MissingExtra.code}: {error.name} is not part of this enclave\n{MissingExtra.hint}") from error


def _serve(
    runner: Runner,
    args: argparse.Namespace,
    platform: Platform,
    exchange: Client,
    devices: Callable[[bytes], tuple[Evidence, ...]] | None,
) -> None:
    from strongroom.app.inference import arguments

    chosen = arguments.read(args)
    sock = listen(args.host, args.port)
    runner.standby.prepare()
    try:
        if chosen is None:
            serve(enclave(runner), sock, announce=_announce, until_eof=args.until_eof)
        else:
            from strongroom.app.inference.hosting import Hosting

            _answer(runner, Hosting(chosen, platform, exchange, devices), sock, until_eof=args.until_eof)
    finally:
        runner.standby.close()


def _answer(runner: Runner, hosting: Hosting, sock: socket.socket, *, until_eof: bool) -> None:
    """Runs contracts, and opens rooms that answer requests."""
    from strongroom.app.inference import listening

    try:
        app = hosting.service(behind=enclave(runner))
        listening.serve(app, sock, announce=_announce, tls=hosting.tls, until_eof=until_eof)
    finally:
        hosting.close()


if __name__ == "__main__":
    main()
