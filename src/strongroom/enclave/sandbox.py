"""The sandbox: a child process in which a program runs once, with its inputs served by range and its outputs counted.

The child is started ahead of the run, so that the program's libraries are loaded by the time the keys are there. It gets no
key, no environment, no network and no file of this machine but the interpreter and its libraries. Whatever it says is
untrusted: anything but the protocol kills it, and of a failure only a code and a step remain.

See ``spec/sandbox.md``, which also says what this does not cover.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import socket
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from importlib.machinery import PathFinder
from typing import Self

from strongroom import wire
from strongroom.errors import (
    BadParameters,
    Cancelled,
    MissingExtra,
    ModelShape,
    ModelUnreadable,
    OutOfMemory,
    OutOfTime,
    OutputMissing,
    ProgramCrashed,
    ProgramError,
    ProtocolBroken,
    QuestionsUnreadable,
    StrongroomError,
    TableColumns,
    TableEmpty,
    TableLabels,
    TableNotNumeric,
    TableUnreadable,
    TooMuchOutput,
)
from strongroom.programs import CLAIMS, STEPS, OutputSpec, frames, load, sources
from strongroom.wire import JSON, Fields

from . import sandbox_child
from .sandbox_child import Child
from .sandbox_job import Inputs, Limits, Opened, Outputs, encode, hold, memory_file
from .sandbox_view import SCRATCH_BYTES, Mounted, View, view
from .sandbox_window import made

__all__ = ["MAX_LOG_BYTES", "START_SECONDS", "Limits", "Mounted", "Opened", "Sandbox", "prepare", "program_digest"]

START_SECONDS = 120
"""How long a child may take to load its libraries."""

MAX_LOG_BYTES = 1 << 20
"""How much of the child's standard output and standard error is kept, inside."""

_TICK_SECONDS = 0.05
_DYING_SECONDS = 2.0
_RECEIVE_BYTES = 1 << 18
_SAID_BYTES, _PIPE_BYTES = 1 << 16, 1 << 20
_SIGKILL = 9
_ABORTS = frozenset({4, 5, 6, 11})  # the first process of a namespace is deaf to SIGABRT, and aborts by a fault
_BOOT = "programs/boot.py"

_SAYINGS: Mapping[type[ProgramError], str] = {
    BadParameters: "it cannot use its parameters",
    Cancelled: "it was cancelled",
    ModelShape: "the model's inputs or outputs do not fit",
    ModelUnreadable: "the model cannot be loaded",
    OutOfMemory: "it asked for more memory than agreed",
    OutOfTime: "it ran longer than agreed",
    OutputMissing: "it ended without an output that was agreed",
    ProgramCrashed: "it crashed",
    ProtocolBroken: "it broke the protocol",
    QuestionsUnreadable: "the questions cannot be read",
    TableColumns: "a column is missing from the table, or is there twice",
    TableEmpty: "the table has no rows",
    TableLabels: "a label in the table is none of the contract's classes",
    TableNotNumeric: "the table holds something else where numbers must be",
    TableUnreadable: "the table cannot be read",
    TooMuchOutput: "it wrote more than agreed",
}
_MAKER = object()


def read_sources(name: str) -> dict[str, str]:
    return {file: sandbox_child.source(file) for file in sources(name)}


def digest_of(files: Mapping[str, str]) -> str:
    hashes: JSON = {file: "sha256:" + hashlib.sha256(text.encode()).hexdigest() for file, text in files.items()}
    return wire.digest(wire.encode(hashes))


def program_digest(name: str) -> str:
    """The digest of a standard program as it is installed here.

    Args:
        name: the program's name.

    Returns:
        ``sha256:…`` over the canonical JSON object {file relative to the package: ``sha256:…`` of its bytes}.

    Raises:
        BadParameters: there is no standard program of this name.
    """
    return digest_of(read_sources(name))


def _stopped(what: type[ProgramError], step: str) -> ProgramError:
    return what(f"the program stopped at step {step!r}: {_SAYINGS[what]}", step=step)


class Sandbox:
    """A child that is ready for one run. ``prepare`` makes it. One thread uses it, and closes it.

    Attributes:
        kind: ``bubblewrap``, ``namespaces``, or ``process``, which confines nothing.
        walls: what stands between the program and its surroundings, by names of ``sandbox_child.WALLS``, sorted.
        program_digest: the digest of the very bytes that the child was given to execute.
        code_digest: the digest of the very bytes of submitted code that it will be given, or ``None``.
        environment: the digest of the lock whose packages it sees, or ``None``.
        step: where the program said it was last.
    """

    def __init__(
        self,
        maker: object,
        name: str,
        files: Mapping[str, str],
        kind: str,
        outputs: Collection[str],
        *,
        in_memory: Collection[str] = (),
        sockets: bool = False,
        mounted: Mounted | None = None,
    ) -> None:
        if maker is not _MAKER:
            raise TypeError("a sandbox is made by prepare()")
        self._holds = hold(mounted)
        seen = view(mounted)
        self.kind = kind
        self.environment = mounted.digest if mounted else None
        self.code_digest: str | None = None
        self._code = b""
        self.program_digest = digest_of(files)
        self.step = STEPS[0]
        self._log = bytearray()
        self._steps, self._permille = 0, 0
        self._watched = 0.0
        self._most, self._half = 0, 0  # bytes of address space: the most that was seen in use, and half of what was agreed
        self._spent, self._ready, self._talks = False, False, True
        self._cancelled = False
        self._in_memory = frozenset(in_memory)
        self._passed: list[int] = []  # descriptors that go with what is unsent
        self._frames = frames.Frames(frames.FROM_CHILD)
        walls = sandbox_child.walls(kind, seen, sockets=sockets)
        told = hello(name, files, kind, seen, outputs) | walls.told
        self._unsent = memoryview(frames.frame(frames.HELLO, json.dumps(told).encode()))
        self._channel, theirs = socket.socketpair()
        self._said, says = os.pipe()
        os.set_blocking(self._said, False)
        self._channel.setblocking(False)
        try:
            with theirs:
                command = seen.command(files[_BOOT], theirs.fileno())
                self._child = Child(kind, seen, command, keep=(theirs.fileno(),), says=says, calls=walls.calls)
            self.walls = tuple(sorted((*walls.names, *self._child.walls)))
        except BaseException:
            self._channel.close()
            os.close(self._said)
            self._let_go()
            raise
        finally:
            os.close(says)
        self._send()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def log(self) -> bytes:
        """What the child wrote to standard output and standard error, up to ``MAX_LOG_BYTES``. It may hold anything of the
        inputs: it leaves only where the contract names an output of kind ``log``."""
        return bytes(self._log)

    def close(self) -> None:
        """Kill whatever runs in it, and wait until it is gone. Can be called again."""
        if self._said >= 0:
            self._child.end()
            self._drain()
            os.close(self._said)
            self._said = -1
            self._channel.close()
            self._close_passed()
            self._let_go()

    def _let_go(self) -> None:
        if self._holds >= 0:
            os.close(self._holds)
            self._holds = -1

    def cancel(self) -> None:
        """Have a run end, from any thread: the one that uses it kills the child, within a tick, and raises Cancelled."""
        self._cancelled = True

    def wait(self, seconds: float = START_SECONDS) -> None:
        """Wait until the child has loaded its libraries. ``run`` does this too.

        Raises:
            OutOfTime: not within ``seconds``.
            ProgramCrashed: it ended while it loaded them.
        """
        if self._ready or self._said < 0:
            return
        deadline = time.monotonic() + seconds
        kind, _ = self._next(deadline, None)
        if kind != frames.READY:
            raise self._end(ProtocolBroken)
        self._ready = True

    def give(self, code: bytes) -> None:
        """Keep submitted code for the run; the child gets it ahead of the job. Raises ValueError: it has some."""
        if self._code or self._spent:
            raise ValueError("a sandbox runs one bundle once")
        self._code, self.code_digest = code, wire.digest(code)

    def run(
        self,
        parameters: Mapping[str, JSON],
        inputs: Mapping[str, Opened],
        outputs: Mapping[str, OutputSpec],
        limits: Limits,
        on_progress: Callable[[str, int], None] | None = None,
    ) -> dict[str, bytes]:
        """Run the program once. Whatever happens, the child is gone afterwards.

        Args:
            parameters: the program's parameters, as agreed.
            inputs: the opened inputs by role. They are read by range, in this process, while the program runs.
            outputs: the outputs wanted, by name. One of kind ``log`` is what the child wrote to its standard output and
                standard error, cut to its size.
            limits: what the run may use.
            on_progress: called with the step and the thousandths done whenever the program says something new.

        Returns:
            every output by name, as the program wrote it: **untrusted**; its rule is still to be applied.

        Raises:
            ProgramError: its leaf and its ``step`` say how the program failed.
            StrongroomError: an input could not be read.
            ValueError: the sandbox had its one run.
        """
        if self._spent or self._said < 0:
            raise ValueError("a sandbox runs one program once")
        self._spent = True
        with ExitStack() as stack:
            stack.callback(self.close)
            self.wait()
            asked = {name: spec for name, spec in outputs.items() if spec.kind != "log"}
            whole = sorted(self._in_memory & inputs.keys())
            if sum(inputs[role].size for role in whole) > limits.memory_bytes:
                raise self._end(OutOfMemory)
            for role in whole:
                self._passed.append(memory_file(inputs[role]))
            ranged = sum(found.size for role, found in inputs.items() if role not in whole)
            window = made(ranged, limits.memory_bytes)
            if window is not None:
                self._passed.append(stack.enter_context(window).pass_on())
            served = Inputs(inputs, window)
            job = encode(parameters, inputs, asked, whole, served.shown_bytes)
            written = self._serve(job, served, Outputs(asked, limits.output_bytes), limits, on_progress)
        return written | {name: self.log[: spec.max_bytes] for name, spec in outputs.items() if spec.kind == "log"}

    def _serve(
        self, job: bytes, inputs: Inputs, outputs: Outputs, limits: Limits, on_progress: Callable[[str, int], None] | None
    ) -> dict[str, bytes]:
        """Give the job, and answer until the program says that it is done. Raises as ``run``."""
        space = self._child.address_space()
        self._child.limit_address_space(space + limits.memory_bytes)
        self._child.limit_memory(limits.memory_bytes - inputs.shown_bytes)
        self._half = space + limits.memory_bytes // 2
        ceiling = self._child.memory()[0] + limits.memory_bytes - inputs.shown_bytes
        deadline = time.monotonic() + limits.seconds
        look = partial(self._look, deadline, ceiling)
        code = frames.frame(frames.CODE, self._code) if self._code else b""
        self._unsent = memoryview(code + frames.frame(frames.JOB, job))
        while True:
            kind, body = self._next(deadline, ceiling)
            if kind in {frames.READ, frames.SHOW}:
                answer = inputs.answer(kind, body, look)
                if answer is None:
                    raise self._end(ProtocolBroken)
                self._unsent = answer
            elif kind == frames.OUTPUT:
                wrong = outputs.take(body)
                if wrong:
                    raise self._end(wrong)
            elif kind == frames.STEP:
                step, permille = self._stepped(body)
                if on_progress:
                    on_progress(step, permille)
            elif kind == frames.DONE:
                found = outputs.collect()
                if found is None:
                    raise self._end(OutputMissing)
                return found
            else:
                raise self._failed(kind, body)

    def _stepped(self, body: bytes) -> tuple[str, int]:
        """Where the program says it is: the step, and the thousandths done, which never fall. Raises ProtocolBroken."""
        self._steps += 1
        if len(body) == frames.STEP_BODY.size and self._steps <= frames.MAX_STEPS:
            index, permille = frames.STEP_BODY.unpack(body)
            if index < len(STEPS) and self._permille <= permille <= 1000:
                self.step, self._permille = STEPS[index], permille
                return self.step, permille
        raise self._end(ProtocolBroken)

    def _failed(self, kind: bytes, body: bytes) -> ProgramError:
        """The error that the child claims, if it may claim that one."""
        if kind == frames.FAILED:
            with suppress(StrongroomError):
                f = Fields(wire.decode(body), "failure")
                code, step = f.text("code", choices=CLAIMS), f.text("step", choices=STEPS)
                f.end()
                if self._code:  # a code and a step of its own choice would be an output that nobody agreed to
                    code, step = OutOfMemory.code if code == OutOfMemory.code else ProgramCrashed.code, STEPS[-1]
                self.step = step
                return self._end(CLAIMS[code])
        return self._end(ProtocolBroken)

    def _end(self, what: type[ProgramError]) -> ProgramError:
        """Kill the child; the error to raise."""
        self.close()
        if self._code:
            self.step = STEPS[-1]  # where it said it was is of its own choice too
        return _stopped(what, self.step)

    def _next(self, deadline: float, ceiling: int | None) -> tuple[bytes, bytes]:
        """The child's next frame. Sends what is to be sent, keeps what is said on standard output, watches time and memory.

        Args:
            deadline: on the monotonic clock, in seconds.
            ceiling: the most bytes of memory, or ``None`` before the job is given.

        Raises:
            Cancelled, OutOfTime, OutOfMemory, ProgramCrashed, ProtocolBroken: and the child is gone.
        """
        while True:
            # The child waits for an answer: it has nothing to say before it has all of it.
            if not self._unsent:
                try:
                    found = self._frames.next()
                except frames.BrokenFrame:
                    raise self._end(ProtocolBroken) from None
                if found:
                    return found
            self._look(deadline, ceiling)
            self._exchange(min(_TICK_SECONDS, deadline - time.monotonic()))

    def _look(self, deadline: float, ceiling: int | None) -> None:
        """Whether it may go on. Raises Cancelled, OutOfTime, OutOfMemory: and the child is gone."""
        now = time.monotonic()
        if self._cancelled:
            raise self._end(Cancelled)
        if now >= deadline:
            raise self._end(OutOfTime)
        if ceiling is not None and now - self._watched >= _TICK_SECONDS:
            self._watched = now
            self._watch(ceiling)

    def _exchange(self, seconds: float) -> None:
        """Move whatever can be moved, waiting for it no longer than this."""
        poll = select.poll()
        if self._talks:
            poll.register(self._said, select.POLLIN)
        poll.register(self._channel, select.POLLOUT if self._unsent else select.POLLIN)
        if self._child.handle >= 0:
            poll.register(self._child.handle, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll(max(1, int(seconds * 1000)))}
        if self._said in ready:
            self._drain()
        if self._channel.fileno() in ready:
            if self._unsent:
                self._send()
            else:
                self._receive()
        elif self._child.handle in ready:  # it is gone, though something that it started may hold the channel open
            raise self._died()

    def _watch(self, ceiling: int) -> None:
        memory, processes = self._child.memory()
        self._most = max(self._most, self._child.address_space())
        if memory > ceiling or processes > sandbox_child.MAX_PROCESSES or self._child.starved():
            raise self._end(OutOfMemory)

    def _send(self) -> None:
        try:
            if self._passed:
                sent = socket.send_fds(self._channel, [self._unsent], self._passed)
                self._close_passed()
            else:
                sent = self._channel.send(self._unsent)
            self._unsent = self._unsent[sent:]
        except BlockingIOError:
            return
        except (BrokenPipeError, ConnectionResetError):
            raise self._died() from None

    def _close_passed(self) -> None:
        while self._passed:
            os.close(self._passed.pop())

    def _receive(self) -> None:
        try:
            data = self._channel.recv(_RECEIVE_BYTES)
        except ConnectionResetError:
            data = b""
        if not data:
            raise self._died()
        self._frames.feed(data)

    def _died(self) -> ProgramError:
        """The child closed the channel, or is gone.

        A control group tells whether the kernel killed it because memory was short; without one, whatever kills it behind
        our back is taken for that. Libraries in C++ abort when they get none: an abort with more than half of the agreed
        address space in use is taken for that too.
        """
        by_itself = self._child.ends_within(_DYING_SECONDS)
        signal = self._child.end() if by_itself else 0
        killed = self._child.starved()
        starved = killed or (killed is None and signal == _SIGKILL) or (signal in _ABORTS and self._most > self._half)
        return self._end(OutOfMemory if starved else ProgramCrashed)

    def _drain(self) -> None:
        """Take what the child said on its standard output, as much as a pipe holds; keep the beginning."""
        with suppress(BlockingIOError):
            for _ in range(_PIPE_BYTES // _SAID_BYTES):
                data = os.read(self._said, _SAID_BYTES)
                self._talks = bool(data)  # an end that nobody will write to again would be readable for ever
                self._log += data[: MAX_LOG_BYTES - len(self._log)]


def hello(
    name: str, files: Mapping[str, str], kind: str, seen: View, outputs: Collection[str], *, tasks: int = 0, arenas: int = 1
) -> dict[str, JSON]:
    """What a child is told first, its walls aside.

    Args:
        name: the program's.
        files: its sources.
        kind: of the sandbox.
        seen: what the child sees.
        outputs: what it will be asked for.
        tasks: threads that it may have beside the 64 of every child.
        arenas: how many allocation arenas they share.
    """
    limits: dict[str, JSON] = {"RLIMIT_CORE": 0, "RLIMIT_FSIZE": SCRATCH_BYTES, "RLIMIT_NOFILE": 256}
    if kind != sandbox_child.PROCESS:
        # In its own user namespace the child counts from nought; outside, with everything else that its user runs.
        limits["RLIMIT_NPROC"] = sandbox_child.MAX_PROCESSES + tasks
    return {
        "arenas": arenas,
        "limits": limits,
        "outputs": [*sorted(outputs)],
        "paths": [*seen.paths],
        "program": name.replace("-", "_"),
        "sources": dict(files),
    }


def prepare(
    program: str,
    asked: str = sandbox_child.ISOLATED,
    *,
    outputs: Collection[str] = (),
    mounted: Mounted | None = None,
) -> Sandbox:
    """Start a child that loads a standard program's libraries, and return while it does.

    Args:
        program: a standard program's name.
        asked: ``isolated`` (bubblewrap, else namespaces, else nothing), or a kind by its name. ``process`` confines nothing
        and is never chosen unless it is asked for.
        outputs: the names of the outputs that will be wanted, so that what they need is loaded too; of a program that runs
            submitted code, the parts (``programs.code.parts``).
        mounted: packages that the code is locked to.

    Raises:
        BadParameters: there is no standard program of this name.
        NoSandbox: that kind of sandbox cannot be had here.
        MissingExtra: the libraries that the program needs are not installed.
    """
    libraries = getattr(load(program), "libraries", None)
    if mounted is not None:
        os.close(hold(mounted))  # it is there
    require_libraries(program, libraries(outputs) if libraries else load(program).LIBRARIES, mounted)
    in_memory: Collection[str] = getattr(load(program), "IN_MEMORY", ())
    sockets: bool = getattr(load(program), "SOCKETS", False)
    kind, files = sandbox_child.choose(asked), read_sources(program)
    return _start(program, files, kind, outputs, in_memory=in_memory, sockets=sockets, mounted=mounted)


def require_libraries(program: str, libraries: Collection[str], mounted: Mounted | None = None) -> None:
    """Raises MissingExtra: a child of this process would not find one of these libraries."""
    paths = list(view(mounted).paths)
    missing = [name for name in libraries if PathFinder.find_spec(name, paths) is None]
    if missing:
        hint = getattr(load(program), "MISSING", None)
        raise MissingExtra(f"program {program!r} needs libraries that are not installed: {', '.join(missing)}", hint=hint)


def _start(
    name: str,
    files: Mapping[str, str],
    kind: str,
    outputs: Collection[str],
    *,
    in_memory: Collection[str] = (),
    sockets: bool = False,
    mounted: Mounted | None = None,
) -> Sandbox:
    """As ``prepare``, for sources from anywhere: tests give hostile ones."""
    return Sandbox(_MAKER, name, files, kind, outputs, in_memory=in_memory, sockets=sockets, mounted=mounted)
