"""What goes into a run and what comes out of it, on the parent's side: limits, ranges of inputs, pieces of outputs.

Whoever asks for a range or sends a piece is untrusted.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from typing import BinaryIO, Final, Protocol

from strongroom import wire
from strongroom.asset import SealedReader
from strongroom.errors import NoSandbox, ProgramError, ProtocolBroken, TooMuchOutput, Truncated
from strongroom.programs import OutputSpec, frames
from strongroom.wire import JSON

from .sandbox_pages import enlarge
from .sandbox_view import Mounted
from .sandbox_window import Window

MOST_THREADS: Final = 4
"""That hash and decrypt for one run."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may use.

    Attributes:
        seconds: wall-clock time, from when the job is given.
        memory_bytes: memory above what the child holds when it is ready.
        output_bytes: all outputs together.
    """

    seconds: float
    memory_bytes: int
    output_bytes: int


class Opened(Protocol):
    """An input as the enclave has it: opened, and read by range."""

    @property
    def media_type(self) -> str: ...

    @property
    def size(self) -> int:
        """In bytes."""

    @property
    def file(self) -> BinaryIO:
        """Seekable, and read into memory that is there (``readinto``)."""


class Inputs:
    """Serves ranges of a job's inputs, and nothing outside them.

    Args:
        inputs: by role.
        window: the memory that the child sees, if there is any.
    """

    def __init__(self, inputs: Mapping[str, Opened], window: Window | None = None) -> None:
        self._inputs = [inputs[role] for role in sorted(inputs)]
        self._window = window
        self._answer = memoryview(bytearray(frames.HEADER.size + frames.READ_BYTES))  # made once: fresh memory is slow

    @property
    def shown_bytes(self) -> int:
        """The size of the window, 0 where there is none."""
        return 0 if self._window is None else self._window.size

    def answer(self, kind: bytes, body: bytes, look: Callable[[], None]) -> memoryview | None:
        """What is to be said to a ``READ`` or a ``SHOW``, good until the next one; ``None`` where nobody may ask for that.

        Args:
            kind: of the frame.
            body: its payload.
            look: called between pieces of what is long; what it raises ends the work.

        Raises:
            as ``read`` and ``show``.
        """
        if kind == frames.READ:
            return self.read(body)
        return memoryview(frames.frame(frames.SHOWN)) if self.show(body, look) else None

    def read(self, body: bytes) -> memoryview | None:
        """The frame with the bytes asked for, good until the next one; ``None`` where nobody may ask for that.

        Raises:
            Truncated: the input is shorter than its manifest says. StrongroomError: whatever the file raises.
        """
        if len(body) != frames.READ_BODY.size:
            return None
        role, offset, length = frames.READ_BODY.unpack(body)
        if role >= len(self._inputs) or not 1 <= length <= frames.READ_BYTES:
            return None
        found = self._inputs[role]
        if offset + length > found.size:
            return None
        frames.HEADER.pack_into(self._answer, 0, frames.DATA, length)
        end = frames.HEADER.size + length
        _fill(found.file, offset, self._answer[frames.HEADER.size : end])
        return self._answer[:end]

    def show(self, body: bytes, look: Callable[[], None]) -> bool:
        """Put ranges into the window, one after the other. ``False`` where nobody may ask for that, and nothing is done.

        Args:
            body: of a ``SHOW``.
            look: called between pieces; what it raises ends the work.

        Raises:
            Truncated: the input is shorter than its manifest says. StrongroomError: whatever the file raises.
        """
        ranges = self._ranges(body)
        if not ranges:
            return False
        for role, wanted in ranges.items():
            file = self._inputs[role].file
            if isinstance(file, SealedReader):
                file.read_ranges(wanted, threads=_threads(), look=look)
                continue
            for offset, view in wanted:
                for at in range(0, len(view), frames.READ_BYTES):
                    look()
                    _fill(file, offset + at, view[at : at + frames.READ_BYTES])
        return True

    def _ranges(self, body: bytes) -> dict[int, list[tuple[int, memoryview]]]:
        """What a ``SHOW`` asks for, by role: offsets, and the part of the window for each. Empty where it may not."""
        count, rest = divmod(len(body) - frames.PLACE_BODY.size, frames.READ_BODY.size)
        if self._window is None or rest or not 1 <= count <= frames.MAX_RANGES:
            return {}
        (place,) = frames.PLACE_BODY.unpack_from(body)
        found: dict[int, list[tuple[int, memoryview]]] = {}
        for role, offset, length in frames.READ_BODY.iter_unpack(body[frames.PLACE_BODY.size :]):
            if role >= len(self._inputs) or not 1 <= length <= self._window.size - place:
                return {}
            if offset + length > self._inputs[role].size:
                return {}
            found.setdefault(role, []).append((offset, self._window.view[place : place + length]))
            place += length
        return found


def _fill(file: BinaryIO, offset: int, view: memoryview) -> None:
    file.seek(offset)
    while view:
        count = file.readinto(view)  # type: ignore[attr-defined]
        if not count:
            raise Truncated("an input is shorter than its manifest says")
        view = view[count:]


def _threads() -> int:
    return min(MOST_THREADS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


class Outputs:
    """Collects a job's outputs, in memory, within their limits."""

    def __init__(self, outputs: Mapping[str, OutputSpec], total_bytes: int) -> None:
        self._names = sorted(outputs)
        self._limits = {name: spec.max_bytes for name, spec in outputs.items()}
        self._written: dict[str, bytearray] = {}
        self._whole: set[str] = set()
        self._left = total_bytes

    def take(self, body: bytes) -> type[ProgramError] | None:
        """Take a piece of an output. Returns what is wrong with it."""
        if len(body) < frames.OUTPUT_BODY.size or body[1] > 1:
            return ProtocolBroken
        index, last = frames.OUTPUT_BODY.unpack_from(body)
        if index >= len(self._names) or self._names[index] in self._whole:
            return ProtocolBroken
        name, piece = self._names[index], memoryview(body)[frames.OUTPUT_BODY.size :]
        held = self._written.setdefault(name, bytearray())
        self._left -= len(piece)
        if self._left < 0 or len(held) + len(piece) > self._limits[name]:
            return TooMuchOutput
        held += piece
        if last:
            self._whole.add(name)
        return None

    def collect(self) -> dict[str, bytes] | None:
        """All outputs, or ``None`` where one is missing or has no end."""
        if self._whole != set(self._names):
            return None
        return {name: bytes(self._written[name]) for name in self._names}


def hold(mounted: Mounted | None) -> int:
    """A descriptor that marks packages as in use for as long as it is open; -1 for none. Raises NoSandbox: they are gone."""
    if mounted is None:
        return -1
    try:
        found = os.open(mounted.path, os.O_RDONLY)
    except OSError as error:
        raise NoSandbox("the packages of the code's lock are not there any more") from error
    fcntl.flock(found, fcntl.LOCK_SH)
    return found


def memory_file(opened: Opened) -> int:
    """A descriptor of an anonymous memory file that holds the whole of an input, and that nobody can write to any more.

    Raises:
        NoSandbox: this system has no memory files.
        Truncated: the input is shorter than its manifest says.
        StrongroomError: whatever the input raises.
    """
    if not hasattr(os, "memfd_create"):
        raise NoSandbox("a program that wants an input in memory needs Linux")
    found = os.memfd_create("input", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(found, opened.size)
        enlarge(found, opened.size)
        _copy(opened, found)
        every = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        fcntl.fcntl(found, fcntl.F_ADD_SEALS, every)
    except BaseException:
        os.close(found)
        raise
    return found


def _copy(opened: Opened, to: int) -> None:
    opened.file.seek(0)
    left = opened.size
    while left:
        piece = memoryview(opened.file.read(min(left, frames.READ_BYTES)))
        if not piece:
            raise Truncated("an input is shorter than its manifest says")
        left -= len(piece)
        while piece:
            piece = piece[os.write(to, piece) :]


def encode(
    parameters: Mapping[str, JSON],
    inputs: Mapping[str, Opened],
    outputs: Mapping[str, OutputSpec],
    in_memory: Collection[str] = (),
    shown_bytes: int = 0,
) -> bytes:
    """The job. ``in_memory``: the roles whose descriptors come with it, in their order. ``shown_bytes``: the size of
    the window, whose descriptor comes last."""
    job: dict[str, JSON] = {
        "inputs": {role: {"media_type": about.media_type, "size": about.size} for role, about in inputs.items()},
        "outputs": {name: asdict(spec) for name, spec in outputs.items()},
        "parameters": dict(parameters),
    }
    if in_memory:
        job["in_memory"] = [*in_memory]
    if shown_bytes:
        job["window"] = shown_bytes
    return wire.encode(job)
