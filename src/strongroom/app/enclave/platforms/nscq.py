"""Evidence of NVIDIA's switches, through NVIDIA's own library where it is installed (``libnvidia-nscq``).

The library answers a question about a path by calling back, once for every switch that the path names. Functions and
structures are those of NVIDIA's header for attestation (nvtrust, ``nscq_attestation.h``, version 2.0.0). Tested against a
library of our own that is built as the header says: not yet on a switch.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from strongroom.attest.evidence import MAX_DEVICES, Evidence
from strongroom.errors import BadEvidence, MissingExtra, PlatformFailed

LIBRARY = "libnvidia-nscq.so.2"
MAX_REPORT_BYTES = 0x2000
MAX_CHAIN_BYTES = 0x1400
_MOUNT_DEVICES = 1
_UUIDS = b"/drv/nvswitch/{device}/uuid"

_Uuid = ctypes.c_uint8 * 16


class _Label(ctypes.Structure):
    _fields_ = (("data", ctypes.c_char * 64),)


class _Report(ctypes.Structure):
    _fields_ = (("size", ctypes.c_uint32), ("data", ctypes.c_uint8 * MAX_REPORT_BYTES))


class _Chain(ctypes.Structure):
    _fields_ = (("data", ctypes.c_uint8 * MAX_CHAIN_BYTES), ("size", ctypes.c_uint32))


class _Session(ctypes.Structure):
    _fields_ = (("rc", ctypes.c_int8), ("session", ctypes.c_void_p))


# What calls back: which switch, how it went, the answer by value, and what the caller gave (nothing here).
_ON_UUID = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Uuid), ctypes.c_int8, ctypes.POINTER(_Uuid), ctypes.c_void_p)
_ON_REPORT = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Uuid), ctypes.c_int8, _Report, ctypes.c_void_p)
_ON_CHAIN = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Uuid), ctypes.c_int8, _Chain, ctypes.c_void_p)

_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "nscq_session_create": (_Session, (ctypes.c_uint32,)),
    "nscq_session_destroy": (None, (ctypes.c_void_p,)),
    "nscq_session_path_observe": (
        ctypes.c_int8,
        (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32),
    ),
    "nscq_session_set_input": (ctypes.c_int8, (ctypes.c_void_p, ctypes.c_uint32, ctypes.c_char_p, ctypes.c_uint32)),
    "nscq_uuid_to_label": (ctypes.c_int8, (ctypes.POINTER(_Uuid), ctypes.POINTER(_Label), ctypes.c_uint32)),
}


def library() -> Any:
    """NVIDIA's library. Raises MissingExtra."""
    try:
        return ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise MissingExtra(
            f"evidence of the switches needs {LIBRARY}", hint="Install NVIDIA's package libnvidia-nscq for this driver"
        ) from error


class Switches:
    """Every NVIDIA switch of this machine.

    Args:
        load: finds NVIDIA's library.

    Raises:
        MissingExtra: it is not installed.
        PlatformFailed: from every method, when the library or a switch gives no usable answer.
    """

    def __init__(self, load: Callable[[], Any] = library) -> None:
        self._library = load()
        try:
            for name, (result, arguments) in _FUNCTIONS.items():
                function = getattr(self._library, name)
                function.restype, function.argtypes = result, arguments
        except AttributeError as error:
            raise PlatformFailed(f"{LIBRARY} is not as it is known here: {str(error)[:120]}") from error

    def __len__(self) -> int:
        with self._session() as session:
            return len(self._labels(session))

    def produce(self, nonce: bytes) -> tuple[Evidence, ...]:
        """Have every switch sign a nonce.

        Args:
            nonce: 32 bytes.

        Returns:
            evidence of each, in the order of their labels, 1 to 16.
        """
        from strongroom.attest.nvidia import evidence

        found: list[Evidence] = []
        with self._session() as session:
            labels = self._labels(session)
            if not 1 <= len(labels) <= MAX_DEVICES:
                raise PlatformFailed(f"there are {len(labels)} switches, where evidence can be of 1 to {MAX_DEVICES}")
            for label in labels:
                self._call("nscq_session_set_input", session, 0, nonce, len(nonce))
                report = self._ask(session, label + b"/config/attestation_report", _ON_REPORT, MAX_REPORT_BYTES)
                chain = self._ask(session, label + b"/config/certificate", _ON_CHAIN, MAX_CHAIN_BYTES)
                try:
                    found.append(evidence(report, chain, nonce))
                except BadEvidence as error:
                    raise PlatformFailed(f"switch {_text(label)} gave no usable evidence: {error}") from error
        return tuple(found)

    @contextmanager
    def _session(self) -> Iterator[int]:
        opened = self._library.nscq_session_create(_MOUNT_DEVICES)
        if opened.rc or not opened.session:
            raise PlatformFailed(f"NVIDIA's library refused nscq_session_create: {opened.rc}")
        try:
            yield opened.session
        finally:
            self._library.nscq_session_destroy(opened.session)

    def _call(self, name: str, *arguments: Any) -> None:
        """Warnings, which are above zero, count as refusals: nobody knows what they leave out."""
        result = getattr(self._library, name)(*arguments)
        if result:
            raise PlatformFailed(f"NVIDIA's library refused {name}: {result}")

    def _labels(self, session: int) -> list[bytes]:
        """The switches' labels, which paths begin with."""
        found: list[tuple[int, bytes]] = []

        def on(_device: object, result: int, uuid: Any, _data: object) -> None:
            label = _Label()
            result = result or (self._library.nscq_uuid_to_label(uuid, ctypes.byref(label), 0) if uuid else -1)
            found.append((result, label.data))

        self._observe(session, _UUIDS, _ON_UUID(on))
        if not all(result == 0 and label for result, label in found):
            raise PlatformFailed("NVIDIA's library did not say which switches there are")
        return sorted(b"/" + label for _, label in found)

    def _ask(self, session: int, path: bytes, kind: Any, most: int) -> bytes:
        """The one answer that there must be."""
        found: list[tuple[int, int, bytes]] = []

        def on(_device: object, result: int, answer: Any, _data: object) -> None:
            found.append((result, answer.size, bytes(answer.data)))

        self._observe(session, path, kind(on))
        if len(found) != 1 or found[0][0] or not 0 < found[0][1] <= most:
            said = [(result, size) for result, size, _ in found]
            raise PlatformFailed(f"a switch did not answer once about {_text(path)}: {said[:4]}")
        _, size, data = found[0]
        return data[:size]

    def _observe(self, session: int, path: bytes, callback: Any) -> None:
        self._call("nscq_session_path_observe", session, path, ctypes.cast(callback, ctypes.c_void_p), None, 0)


def _text(path: bytes) -> str:
    return path.decode("ascii", errors="replace")
