"""The sandbox of a served program: a confined child that stays, and its channel. Whoever answers requests talks over it.

It differs from a run's sandbox (``sandbox.py``) in this: its inputs are memory files that it maps, handed over with the
first frame after ``READY``; it is told how much memory it may take beside them; and nothing that it says on standard output
is kept, since it may hold anything of a prompt. Frames are read by ``app``, which waits for many children at once.

See ``spec/sandbox.md``.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

from strongroom.errors import BadParameters
from strongroom.programs import frames, load

from . import sandbox_child
from .sandbox import digest_of, hello, read_sources, require_libraries
from .sandbox_child import Child
from .sandbox_view import view

_BOOT = "programs/boot.py"
_ARENAS = 8
_SAID_BYTES = 1 << 16
_MAKER = object()


class Serving:
    """A child that serves. ``prepare`` makes it; it loads its libraries at once, and then says ``READY``.

    Attributes:
        kind: ``bubblewrap``, ``namespaces``, or ``process``, which confines nothing.
        walls: as of ``Sandbox``.
        program_digest: the digest of the very bytes that the child was given to execute.
        channel: connected to the child; nothing was written to it yet. Not blocking.
        hello: what is to be written to it first.
        said: the child's standard output and standard error. Not blocking; to be emptied by :meth:`drain`.
    """

    def __init__(
        self, maker: object, name: str, files: Mapping[str, str], *, kind: str, parts: Collection[str], tasks: int
    ) -> None:
        if maker is not _MAKER:
            raise TypeError("a serving child is made by prepare()")
        seen = view()
        self.kind, self.program_digest = kind, digest_of(files)
        walls = sandbox_child.walls(kind, seen, sockets=True)
        told = hello(name, files, kind, seen, parts, tasks=tasks, arenas=_ARENAS) | walls.told
        self.hello = frames.frame(frames.HELLO, json.dumps(told).encode())
        self.channel, theirs = socket.socketpair()
        self.said, says = os.pipe()
        os.set_blocking(self.said, False)
        self.channel.setblocking(False)
        try:
            with theirs:
                command = seen.command(files[_BOOT], theirs.fileno())
                most = sandbox_child.MAX_PROCESSES + tasks
                channel = (theirs.fileno(),)
                self._child = Child(kind, seen, command, keep=channel, says=says, calls=walls.calls, tasks=most)
            self.walls = tuple(sorted((*walls.names, *self._child.walls)))
        except BaseException:
            self.channel.close()
            os.close(self.said)
            raise
        finally:
            os.close(says)
        self._ceiling = 0

    @property
    def pid(self) -> int:
        return self._child.pid

    def give(self, model: bytes, weights: int, weights_bytes: int, memory_bytes: int, also: Sequence[int] = ()) -> None:
        """Hand over the weights, once the child said that it is ready.

        Args:
            model: the payload of ``MODEL``.
            weights: a descriptor; the child gets one of its own.
            also: further descriptors, at most 127; ``weights_bytes`` counts what is in them too.
            weights_bytes: how much of it there is, which the child maps, for each use that it makes of it.
            memory_bytes: how much memory the child may take beside it.
        """
        # A second lock behind the look: libraries reserve address space that they never use, so there is room for that.
        space = self._child.address_space()
        self._child.limit_address_space(space + 2 * weights_bytes + 2 * memory_bytes + (4 << 30))
        self._child.limit_memory(weights_bytes + memory_bytes)
        self._ceiling = self._child.memory()[0] + weights_bytes + memory_bytes
        socket.send_fds(self.channel, [frames.frame(frames.MODEL, model)], [weights, *also])

    def within_memory(self) -> bool:
        """Whether the child holds no more memory than it may, and is no more processes."""
        memory, processes = self._child.memory()
        return processes <= sandbox_child.MAX_PROCESSES and (not self._ceiling or memory <= self._ceiling)

    def memory(self) -> int:
        """Bytes of memory that the child holds, the weights that it looked at included."""
        return self._child.memory()[0]

    def drain(self) -> bool:
        """Forget what the child said. Returns whether there may come more."""
        with suppress(BlockingIOError):
            return bool(os.read(self.said, _SAID_BYTES))
        return True

    def close(self) -> None:
        """Kill it and everything that it started, and wait until all of it is gone. Can be called again."""
        self._child.end()
        if self.said >= 0:
            os.close(self.said)
            self.said = -1
            self.channel.close()


def prepare(
    program: str, asked: str = sandbox_child.ISOLATED, *, parts: Collection[str], libraries: Collection[str], tasks: int
) -> Serving:
    """Start a child that loads a served program's libraries, and return while it does.

    Args:
        program: a standard program's name.
        asked: as of :func:`strongroom.enclave.sandbox.prepare`.
        parts: what the program is to load: the names of engines.
        libraries: that these need.
        tasks: threads that it may have beside the 64 of every child.

    Raises:
        BadParameters: there is no standard program of this name, or it is not served.
        NoSandbox: that kind of sandbox cannot be had here.
        MissingExtra: the libraries that it needs are not installed.
    """
    if not hasattr(load(program), "serve"):
        raise BadParameters(f"program {program!r} is run, and not served", step="start")
    require_libraries(program, libraries)
    return _start(program, read_sources(program), sandbox_child.choose(asked), parts, tasks)


def _start(name: str, files: Mapping[str, str], kind: str, parts: Collection[str], tasks: int) -> Serving:
    """As ``prepare``, for sources from anywhere: tests give hostile ones."""
    return Serving(_MAKER, name, files, kind=kind, parts=parts, tasks=tasks)
