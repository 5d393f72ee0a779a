"""The line between an enclave and its platform: frames, and the enclave's end.

A frame is a 4-byte big-endian length and a body. A request's body is empty (the endorsements) or 64 bytes (a quote of them).
An answer's body is canonical JSON with exactly one of ``evidence``, ``endorsements`` and ``error``. Strict both ways.

See ``spec/attestation.md``.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from strongroom import wire
from strongroom.attest.evidence import REPORT_DATA_BYTES, Endorsements, Evidence
from strongroom.errors import PlatformFailed, StrongroomError
from strongroom.wire import Fields

MAX_FRAME_BYTES = 1 << 20

_T = TypeVar("_T")


def _read(line: socket.socket, size: int, deadline: float) -> bytes:
    data = b""
    while len(data) < size:
        line.settimeout(max(deadline - time.monotonic(), 0.001))
        piece = line.recv(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def read_frame(line: socket.socket, seconds: float, most: int) -> bytes:
    """One frame's body.

    Args:
        line: a stream socket.
        seconds: how long the whole frame may take.
        most: the largest body accepted, in bytes.

    Raises:
        EOFError: the other end closed.
        TimeoutError: it took longer.
        PlatformFailed: a longer body was announced.
    """
    deadline = time.monotonic() + seconds
    size = int.from_bytes(_read(line, 4, deadline), "big")
    if size > most:
        raise PlatformFailed(f"a frame of {size} bytes, where at most {most} are allowed")
    return _read(line, size, deadline)


def write_frame(line: socket.socket, seconds: float, body: bytes) -> None:
    """Send a body as one frame, within ``seconds``. Raises OSError."""
    line.settimeout(seconds)
    line.sendall(len(body).to_bytes(4, "big") + body)


def _parse_error(value: object) -> str:
    f = Fields(value, "error")
    _, message = f.text("code"), f.text("message")
    f.end()
    return message


class PlatformClient:
    """The enclave's end of the line. Implements ``attest.evidence.Platform``; safe to use from several threads.

    Args:
        descriptor: the inherited socket; it is taken over, and not inherited any further.
        seconds: how long one answer may take. After a failure the line is closed for good: an answer that comes late must
            not be taken for the answer to the next question.

    Raises:
        PlatformFailed: the descriptor is no socket.
    """

    def __init__(self, descriptor: int, seconds: float = 30.0) -> None:
        try:
            os.set_inheritable(descriptor, False)
            self._line = socket.socket(fileno=descriptor)
        except OSError as error:
            raise PlatformFailed(f"descriptor {descriptor} is not a platform's socket") from error
        self._seconds = seconds
        self._lock = threading.Lock()

    def _ask(self, request: bytes, member: str, parse: Callable[[Any], _T]) -> _T:
        with self._lock:
            try:
                write_frame(self._line, self._seconds, request)
                f = Fields(wire.decode(read_frame(self._line, self._seconds, MAX_FRAME_BYTES)), "answer")
                refused = _parse_error(f.any("error")) if f.has("error") else None
                found = parse(f.any(member)) if refused is None else None
                f.end()
            except (OSError, EOFError, StrongroomError) as error:
                self._line.close()
                raise PlatformFailed(f"the platform gave no usable answer: {str(error) or 'it ended'}") from error
        if found is None:
            raise PlatformFailed(f"the platform gives no evidence: {refused}")
        return found

    def produce(self, report_data: bytes) -> Evidence:
        """Evidence for 64 bytes. Raises PlatformFailed."""
        if len(report_data) != REPORT_DATA_BYTES:
            raise PlatformFailed(f"report data is not {REPORT_DATA_BYTES} bytes long")
        return self._ask(report_data, "evidence", Evidence.from_json)

    def endorsements(self) -> Endorsements:
        """The endorsements of the platform's key. Raises PlatformFailed."""
        return self._ask(b"", "endorsements", Endorsements.from_json)

    def close(self) -> None:
        self._line.close()
