"""Evidence of an AWS Nitro Enclave: a document that the Nitro Secure Module signs, asked through ``/dev/nsm``.

See the NSM API of aws-nitro-enclaves-nsm-api (docs/attestation_process.md): requests and answers are CBOR.
"""

from __future__ import annotations

import ctypes
import io
import time
from collections.abc import Callable
from pathlib import Path

import cbor2

from strongroom.attest.evidence import REPORT_DATA_BYTES, Endorsements, Evidence
from strongroom.errors import PlatformFailed

from . import device

PATH = Path("/dev/nsm")
PLATFORM = "nitro"
MAX_ANSWER_BYTES = 0x3000  # the driver's own
MAX_NAME = 64


class Message(ctypes.Structure):
    """``struct nsm_message``: where the request and the answer lie, and how long they are (two ``struct iovec``)."""

    _fields_ = (
        ("request", ctypes.c_void_p),
        ("request_len", ctypes.c_size_t),
        ("response", ctypes.c_void_p),
        ("response_len", ctypes.c_size_t),
    )


REQUEST = device.number(0x0A, 0, ctypes.sizeof(Message))


class Nsm:
    """The Nitro Secure Module. Implements ``attest.evidence.Platform``.

    The report data goes into the document's ``user_data``, whole; ``nonce`` and ``public_key`` stay null.

    Args:
        path: the device.
        ioctl: how to ask.
        pause: waits for seconds.

    Raises:
        PlatformFailed: from every method, when the module gives no usable answer.
    """

    def __init__(
        self,
        path: Path = PATH,
        *,
        ioctl: device.Ioctl = device.ioctl,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._path, self._ioctl, self._pause = path, ioctl, pause

    def produce(self, report_data: bytes) -> Evidence:
        """Have the module sign 64 bytes."""
        if len(report_data) != REPORT_DATA_BYTES:
            raise PlatformFailed(f"report data is not {REPORT_DATA_BYTES} bytes long")
        wanted = {"Attestation": {"nonce": None, "public_key": None, "user_data": report_data}}
        document = _document(self._ask(cbor2.dumps(wanted)))
        if report_data not in document:
            raise PlatformFailed("the document is not of the bytes that were to be signed")
        return Evidence(PLATFORM, document)

    def endorsements(self) -> Endorsements:
        """None: the document brings its certificates with it."""
        return Endorsements()

    def _ask(self, request: bytes) -> bytes:
        sent = ctypes.create_string_buffer(request, len(request))
        answer = ctypes.create_string_buffer(MAX_ANSWER_BYTES)

        def message() -> Message:
            return Message(ctypes.addressof(sent), len(request), ctypes.addressof(answer), MAX_ANSWER_BYTES)

        found = device.ask(self._path, REQUEST, message, self._ioctl, self._pause)
        assert isinstance(found, Message)
        if not 0 < found.response_len <= MAX_ANSWER_BYTES:
            raise PlatformFailed(f"the Nitro Secure Module answered {found.response_len} bytes")
        return answer.raw[: found.response_len]


def _document(answer: bytes) -> bytes:
    """The signed document in an answer. Raises PlatformFailed."""
    stream = io.BytesIO(answer)
    try:
        said = cbor2.CBORDecoder(stream).decode()
    except (cbor2.CBORError, ValueError, TypeError, RecursionError) as error:
        raise PlatformFailed("the Nitro Secure Module's answer is not CBOR") from error
    if isinstance(said, dict) and isinstance(said.get("Error"), str):
        raise PlatformFailed(f"the Nitro Secure Module refused: {said['Error'][:MAX_NAME]!r}")
    attestation = said.get("Attestation") if isinstance(said, dict) and len(said) == 1 else None
    document = attestation.get("document") if isinstance(attestation, dict) else None
    if stream.read(1) or not isinstance(document, bytes) or not document:
        raise PlatformFailed("the Nitro Secure Module answered with something that is no attestation")
    return document
