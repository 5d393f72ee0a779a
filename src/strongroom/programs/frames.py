"""What parent and child say to each other over their one channel: frames of a type, a length and a payload.

A frame is one byte of type, four bytes of length (big-endian) and the payload. Each type has a largest payload; a frame of
another type, or a longer one, ends the conversation. Everything that a child sends is untrusted. See ``spec/sandbox.md``.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

HELLO, CODE, JOB, DATA, SHOWN = b"H", b"C", b"J", b"A", b"Z"  # parent to child
READY, READ, SHOW, OUTPUT, STEP, DONE, FAILED = b"Y", b"R", b"W", b"O", b"S", b"D", b"F"  # child to parent

HEADER: Final = struct.Struct(">cI")
READ_BODY: Final = struct.Struct(">BQI")  # index of the role among the job's sorted roles, offset, length
PLACE_BODY: Final = struct.Struct(">I")  # of a SHOW: where in the window; then a READ_BODY for each range
OUTPUT_BODY: Final = struct.Struct(
    ">B?"
)  # index of the output among the job's sorted outputs, whether this piece is the last
STEP_BODY: Final = struct.Struct(">BH")  # index in STEPS, thousandths done

READ_BYTES: Final = 1 << 20
"""The most bytes that one ``READ`` may ask for."""

WINDOW_BYTES: Final = 16 << 20
"""The size of the memory that parent and child share, where they share some."""

MAX_RANGES: Final = 64
"""The most ranges in one ``SHOW``."""

PIECE_BYTES: Final = 1 << 18
"""The most bytes of an output in one ``OUTPUT``."""

MAX_STEPS: Final = 4096
"""The most ``STEP`` frames in a run."""

TO_CHILD: Final[Mapping[bytes, int]] = {HELLO: 4 << 20, CODE: 4 << 20, JOB: 4 << 20, DATA: READ_BYTES, SHOWN: 0}
FROM_CHILD: Final[Mapping[bytes, int]] = {
    READY: 0,
    READ: READ_BODY.size,
    SHOW: PLACE_BODY.size + MAX_RANGES * READ_BODY.size,
    OUTPUT: OUTPUT_BODY.size + PIECE_BYTES,
    STEP: STEP_BODY.size,
    DONE: 0,
    FAILED: 256,
}


# A program that is served: its child stays, and these come in place of all of the above but HELLO and READY.

MODEL, QUESTION, CANCEL, SOURCES = b"M", b"Q", b"X", b"G"  # parent to child
ABOUT, ANSWERS, VECTORS = b"B", b"P", b"V"  # child to parent

ROUTES: Final = ("chat", "completions", "embeddings")
"""What can be asked, in the order of ``QUESTION``'s byte."""

QUESTION_BODY: Final = struct.Struct(">IBB")  # number of the question, index in ROUTES, seats; then SEATs, then the request
SEAT_BODY: Final = struct.Struct(">H?")  # the seat, and whether what was worked out there before may be used
CANCEL_BODY: Final = struct.Struct(">I")  # number of the question
VECTORS_BODY: Final = struct.Struct(">IIH")  # number of the question, numbers in a vector, how many vectors follow

MAX_DESCRIPTORS: Final = 128
"""The most descriptors that come with a ``MODEL``: the weights, and what else the engine needs."""

MAX_QUESTION: Final = 8 << 20
MAX_ANSWERS: Final = 4 << 20
MAX_VECTORS: Final = 4 << 20

TO_SERVING: Final[Mapping[bytes, int]] = {
    HELLO: 4 << 20,
    MODEL: 1 << 16,
    QUESTION: MAX_QUESTION,
    CANCEL: CANCEL_BODY.size,
    SOURCES: 1 << 16,
}
FROM_SERVING: Final[Mapping[bytes, int]] = {
    READY: 0,
    ABOUT: 4096,
    ANSWERS: MAX_ANSWERS,
    VECTORS: VECTORS_BODY.size + MAX_VECTORS,
    FAILED: 256,
}


class BrokenFrame(Exception):
    """Bytes that are no frame of this direction."""


def frame(kind: bytes, *parts: bytes | memoryview) -> bytes:
    """One frame.

    Args:
        kind: one of the types above.
        parts: the payload, in pieces.
    """
    payload = b"".join(parts)
    return HEADER.pack(kind, len(payload)) + payload


def header(data: bytes, allowed: Mapping[bytes, int]) -> tuple[bytes, int]:
    """Read a frame's first five bytes.

    Args:
        data: exactly ``HEADER.size`` bytes.
        allowed: ``TO_CHILD`` or ``FROM_CHILD``.

    Returns:
        the type, and the payload's length in bytes.

    Raises:
        BrokenFrame: a type of the other direction or of none, or too long for its type.
    """
    kind, length = HEADER.unpack(data)
    if kind not in allowed:
        raise BrokenFrame("a frame of unknown type")
    if length > allowed[kind]:
        raise BrokenFrame("a frame longer than its type allows")
    return kind, length


class Frames:
    """Cuts a stream of bytes into frames. Holds at most one frame and what came with it.

    Args:
        allowed: ``TO_CHILD`` or ``FROM_CHILD``.
    """

    def __init__(self, allowed: Mapping[bytes, int]) -> None:
        self._allowed = allowed
        self._held = bytearray()

    def feed(self, data: bytes) -> None:
        self._held += data

    def next(self) -> tuple[bytes, bytes] | None:
        """The next whole frame's type and payload, or ``None``. Raises BrokenFrame as soon as a header is wrong."""
        if len(self._held) < HEADER.size:
            return None
        kind, length = header(bytes(self._held[: HEADER.size]), self._allowed)
        end = HEADER.size + length
        if len(self._held) < end:
            return None
        payload = bytes(self._held[HEADER.size : end])
        del self._held[:end]
        return kind, payload
