"""The child's side of a run: load the program ahead of time, say ready, take one job, serve it, stop.

The parent trusts nothing that comes from here; what this module does for safety (limits, an empty environment, no stray file
descriptors) is a second lock behind the sandbox's. See ``spec/sandbox.md``.
"""

from __future__ import annotations

import ctypes
import io
import json
import os
import resource
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any, BinaryIO, NoReturn, cast

from strongroom.errors import BadParameters, OutOfMemory, ProgramCrashed, ProgramError

from . import CLAIMS, STEPS, Input, OutputSpec, Program, frames
from .frames import frame
from .window import LEAST, Range, Window

# Read by numeric libraries once, when they are imported. One thread each: runs are then deterministic, and two threads
# beside another busy process are slower than one.
_ONE_THREAD = {
    "JOBLIB_MULTIPROCESSING": "0",
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
_M_ARENA_MAX = -8  # mallopt(3)
_SET_DUMPABLE, _SET_SECCOMP, _SET_NO_NEW_PRIVS, _FILTER = 4, 22, 38, 2  # prctl(2)
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF, _PATH_BENEATH = 444, 445, 446, 1  # landlock(7)
_MAX_DESCRIPTORS = 16


class Channel:
    """The way to the parent. Libraries read ahead in threads of their own, so every exchange is under one lock.

    Args:
        channel: the connected socket.
    """

    def __init__(self, channel: socket.socket) -> None:
        self._socket = channel
        self._lock = threading.Lock()
        self.descriptors: list[int] = []  # that came with the job, or with the code ahead of it
        self.window: Window | None = None

    def send(self, kind: bytes, *parts: bytes | memoryview) -> None:
        with self._lock:
            self._socket.sendall(frame(kind, *parts))

    def receive(self, kind: bytes) -> bytes:
        """The payload of the next frame, which must be of this type, and the descriptors that come with its first byte.
        Raises EOFError when the parent is gone."""
        first, passed, _, _ = socket.recv_fds(self._socket, frames.HEADER.size, _MAX_DESCRIPTORS)
        self.descriptors += passed
        if not first:
            raise EOFError("the parent is gone")
        data = bytearray(self._awaited(kind, first))
        self._fill(memoryview(data))
        return bytes(data)

    def read(self, role: int, ranges: Sequence[Range], into: memoryview) -> None:
        """Fill ``into`` with some ranges of an input, one after the other. They are as long together as it is.

        Of what is long the next piece is asked for before the one before has come: who serves it need not wait.
        """
        if self.window is not None and len(into) >= LEAST:
            self._watch(self.window, role, ranges, into)
            return
        at = 0
        for offset, size in ranges:
            self._read(role, offset, into[at : at + size])
            at += size

    def _watch(self, window: Window, role: int, ranges: Sequence[Range], into: memoryview) -> None:
        """As ``read``, through the window."""
        portions = [*window.portions(ranges)]
        with self._lock:
            for n, portion in enumerate(portions[:2]):
                self._show(window, role, portion, n)
            at = 0
            for n, portion in enumerate(portions):
                if self._awaited(frames.SHOWN):
                    raise frames.BrokenFrame("an answer that says something")
                size = sum(length for _, length in portion)
                window.take(n % 2 * window.half, into[at : at + size])
                at += size
                if n + 2 < len(portions):
                    self._show(window, role, portions[n + 2], n)

    def _show(self, window: Window, role: int, portion: Sequence[Range], n: int) -> None:
        bodies = (frames.READ_BODY.pack(role, offset, length) for offset, length in portion)
        self._socket.sendall(frame(frames.SHOW, frames.PLACE_BODY.pack(n % 2 * window.half), *bodies))

    def _read(self, role: int, offset: int, into: memoryview) -> None:
        pieces = [into[at : at + frames.READ_BYTES] for at in range(0, len(into), frames.READ_BYTES)]
        with self._lock:
            asked = 0
            for place, piece in enumerate(pieces):
                while asked < min(len(pieces), place + 2):
                    begins = offset + asked * frames.READ_BYTES
                    self._socket.sendall(frame(frames.READ, frames.READ_BODY.pack(role, begins, len(pieces[asked]))))
                    asked += 1
                if self._awaited(frames.DATA) != len(piece):
                    raise frames.BrokenFrame("another number of bytes than asked for")
                self._fill(piece)

    def _awaited(self, kind: bytes, first: bytes = b"") -> int:
        """The length of the next frame's payload, which must be of this type; of its header the first bytes are here."""
        head = bytearray(first.ljust(frames.HEADER.size))
        self._fill(memoryview(head)[len(first) :])
        found, length = frames.header(bytes(head), frames.TO_CHILD)
        if found != kind:
            raise frames.BrokenFrame("a frame of another type than the one awaited")
        return length

    def _fill(self, into: memoryview) -> None:
        while into:
            count = self._socket.recv_into(into)
            if not count:
                raise EOFError("the parent is gone")
            into = into[count:]


class RangeFile(io.RawIOBase):
    """An input as a file: each read asks the parent for that range.

    Args:
        channel: the way to the parent.
        role: the index of the input's role.
        size: in bytes.
    """

    def __init__(self, channel: Channel, role: int, size: int) -> None:
        self._channel, self._role, self._size, self._at = channel, role, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if at < 0:
            raise ValueError("a position before the file's beginning")
        self._at = at
        return at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        length = max(0, min(len(view), self._size - self._at))
        if length:
            self._channel.read(self._role, [(self._at, length)], view[:length])
            self._at += length
        return length

    def gather(self, ranges: Sequence[Range], into: memoryview) -> None:
        """Fill ``into`` with some ranges, one after the other, in as few questions as can be; the position stays."""
        if any(not 0 <= start <= start + size <= self._size for start, size in ranges):
            raise EOFError("the input is shorter than it is said to be")
        self._channel.read(self._role, ranges, into)

    def readall(self) -> bytes:
        data = bytearray(max(0, self._size - self._at))
        view, have = memoryview(data), 0
        while have < len(data):
            have += self.readinto(view[have:])
        return bytes(data)


class Job:
    """One job: its inputs, its outputs, and where it stands.

    Args:
        channel: the way to the parent.
        said: the decoded ``JOB``.
    """

    def __init__(self, channel: Channel, said: Mapping[str, Any]) -> None:
        self._channel = channel
        self._step, self._permille, self._steps = "start", 0, 0
        self.parameters: Mapping[str, Any] = said["parameters"]
        self.outputs = {name: OutputSpec(**spec) for name, spec in sorted(said["outputs"].items())}
        if "window" in said:
            with suppress(OSError):  # no room for it: every range comes through the channel then
                channel.window = Window(channel.descriptors.pop(), said["window"])
        passed = zip(said.get("in_memory", []), channel.descriptors, strict=True)
        paths = {role: f"/proc/self/fd/{descriptor}" for role, descriptor in passed}
        self.inputs = {
            role: self._input(index, about["media_type"], about["size"], paths.get(role))
            for index, (role, about) in enumerate(sorted(said["inputs"].items()))
        }

    def _input(self, role: int, media_type: str, size: int, path: str | None) -> Input:
        def opener() -> BinaryIO:
            return cast("BinaryIO", io.BufferedReader(RangeFile(self._channel, role, size), frames.READ_BYTES))

        return Input(media_type, size, opener, path)

    def step(self, name: str, permille: int) -> None:
        """Tell the parent, where it is news. Thousandths never fall."""
        permille = min(1000, max(self._permille, permille))
        if (name, permille) != (self._step, self._permille) and self._steps < frames.MAX_STEPS:
            body = frames.STEP_BODY.pack(STEPS.index(name), permille)
            self._step, self._permille, self._steps = name, permille, self._steps + 1
            self._channel.send(frames.STEP, body)

    def write(self, name: str, data: bytes) -> None:
        """Send an output whole, in pieces."""
        index = sorted(self.outputs).index(name)
        view = memoryview(data)
        for start in range(0, max(1, len(view)), frames.PIECE_BYTES):
            end = start + frames.PIECE_BYTES
            self._channel.send(frames.OUTPUT, frames.OUTPUT_BODY.pack(index, end >= len(view)), view[start:end])

    def execute(self, program: Program) -> None:
        """Run the program. Raises whatever it raises."""
        self.step("check parameters", 0)
        roles, outputs = getattr(program, "roles", None), getattr(program, "outputs", None)
        offered = {name: what.kind for name, what in (outputs(self.parameters) if outputs else program.OUTPUTS).items()}
        wanted = {name: spec.kind for name, spec in self.outputs.items()}
        if (
            self.inputs.keys() != (roles(self.parameters) if roles else program.ROLES)
            or not wanted.items() <= offered.items()
        ):
            raise BadParameters("the program has other roles, or other outputs", step="check parameters")
        program.check(self.parameters)
        program.run(self.inputs, self.parameters, self.outputs, self.write, self.step)

    def failure(self, error: BaseException) -> bytes:
        """What may be said of an error: a code and a step, each from its closed list."""
        code = error.code if isinstance(error, ProgramError) and error.code in CLAIMS else ProgramCrashed.code
        if isinstance(error, MemoryError):
            code = OutOfMemory.code
        step = error.step if isinstance(error, ProgramError) and error.step in STEPS[:-1] else self._step
        return json.dumps({"code": code, "step": step}, separators=(",", ":"), sort_keys=True).encode()


def serve(channel: socket.socket, program: Program) -> None:
    """Take one job, do it, say how it ended.

    Args:
        channel: connected to the parent, ``READY`` said.
        program: loaded.

    Raises:
        EOFError, OSError: the parent is gone.
    """
    way = Channel(channel)
    take = getattr(program, "take", None)
    if take is not None:  # it runs code that comes ahead of the job
        take(way.receive(frames.CODE))
    job = Job(way, json.loads(way.receive(frames.JOB)))
    try:
        job.execute(program)
    except (EOFError, BrokenPipeError):
        raise
    except BaseException as error:  # noqa: BLE001 - whatever a program raises, SystemExit too, ends as a code and a step
        traceback.print_exc()  # to standard error, which stays inside unless the contract names a log
        _flush()
        way.send(frames.FAILED, job.failure(error))
    else:
        _flush()
        way.send(frames.DONE)


def _flush() -> None:
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()


def confine(keep: int, limits: Mapping[str, int], arenas: int = 1) -> None:
    """Lock what this process can lock by itself: descriptors, environment, resource limits, allocation arenas.

    Args:
        keep: the channel's descriptor; every other above standard error is closed.
        limits: values by the names of the module ``resource``.
        arenas: how many allocation arenas its threads share.
    """
    os.closerange(3, keep)
    os.closerange(keep + 1, 4096)
    os.environ.clear()
    for name, value in sorted(limits.items()):
        which = getattr(resource, name)
        hard = resource.getrlimit(which)[1]
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (most, most))
    # Each arena reserves 64 MiB of address space for every thread, which would be counted against the program's memory.
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, arenas)


def enclose(calls: bytes, landlock: Mapping[str, Any] | None) -> None:
    """Put up the walls that only this process can put up around itself, while it has one thread. They cannot be taken down.

    Its memory is never dumped, not even to a program that collects what crashed. That is so in every kind of sandbox.

    Args:
        calls: a filter of system calls, as the kernel takes it; empty for none.
        landlock: ``attributes`` (hex) and ``rules`` ([path, access], …), or ``None``.

    Raises:
        OSError: one of them does not stand. Nothing of the program may be executed then.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    _stands(libc.prctl(_SET_DUMPABLE, 0, 0, 0, 0))
    if not calls and not landlock:
        return
    _stands(libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    if landlock:
        attributes = bytes.fromhex(landlock["attributes"])
        ruleset = _stands(libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0))
        for path, access in landlock["rules"]:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
            rule = struct.pack("=Qi", access, place)
            _stands(libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0))
            os.close(place)
        _stands(libc.syscall(_RESTRICT_SELF, ruleset, 0))
        os.close(ruleset)
    if calls:
        lines = ctypes.create_string_buffer(calls, len(calls))
        program = struct.pack("@HP", len(calls) // 8, ctypes.addressof(lines))
        _stands(libc.prctl(_SET_SECCOMP, _FILTER, program, 0, 0))


def _stands(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


class _Unseen:
    """Finds nothing, and keeps others from finding these libraries."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """The protocol of ``sys.meta_path``. Raises ModuleNotFoundError."""
        del path, target
        if name.partition(".")[0] in self._names:
            raise ModuleNotFoundError(f"{name} is not for this program", name=name)


def hide(program: object) -> None:
    """From now on nothing in this process finds the libraries in the program's ``UNSEEN``, as if they were not installed."""
    sys.meta_path.insert(0, _Unseen(frozenset(getattr(program, "UNSEEN", ()))))


def main(channel: socket.socket, said: Mapping[str, Any]) -> NoReturn:
    """The child's main, once ``boot`` has put the sources in place. It never returns.

    Args:
        channel: connected to the parent.
        said: the decoded ``HELLO``.
    """
    try:
        confine(channel.fileno(), said["limits"], said.get("arenas", 1))
        enclose(bytes.fromhex(said["calls"]), said["landlock"])
        os.environ.update(_ONE_THREAD)
        program = cast("Program", import_module(f"strongroom.programs.{said['program']}"))
        environment: Mapping[str, str] = getattr(program, "ENVIRONMENT", {})
        os.environ.update(environment)
        hide(program)
        program.load(said["outputs"])
        os.environ.clear()
        os.environ.update(environment)
        channel.sendall(frame(frames.READY))
        getattr(program, "serve", partial(serve, program=program))(channel)
    except BaseException:  # noqa: BLE001 - the parent sees that the channel closed, and that is all it needs to know
        traceback.print_exc()
        _flush()
        os._exit(1)
    os._exit(0)  # no destructors of heavy libraries, no threads to wait for
