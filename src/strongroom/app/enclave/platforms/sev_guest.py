"""Evidence through ``/dev/sev-guest``: AMD's processor asked directly, on guests whose kernel has no configfs-tsm.

See Linux, ``include/uapi/linux/sev-guest.h``, and AMD's firmware ABI (document 56860), MSG_REPORT_REQ and MSG_REPORT_RSP.
"""

from __future__ import annotations

import ctypes
import logging
import time
from collections.abc import Callable
from pathlib import Path

from strongroom.attest.evidence import REPORT_DATA_BYTES, Endorsements, Evidence
from strongroom.errors import PlatformFailed

from . import device
from .tsm import MAX_PRIVLEVEL, endorsements_of

_LOG = logging.getLogger("strongroom.enclave")
PATH = Path("/dev/sev-guest")
PLATFORM = "sev_snp"
REPORT_BYTES = 1184
CERTS_BYTES = 16 << 10  # the most that the kernel takes, in whole pages
_MESSAGE_VERSION = 1
_UNSIGNED_BY = 32  # bytes before the report in an answer: status, size and 24 that mean nothing


class Message(ctypes.Structure):
    """``struct snp_guest_request_ioctl``: where the request and the answer lie, and what went wrong."""

    _fields_ = (
        ("msg_version", ctypes.c_uint8),
        ("req_data", ctypes.c_uint64),
        ("resp_data", ctypes.c_uint64),
        ("exitinfo2", ctypes.c_uint64),
    )


class ReportRequest(ctypes.Structure):
    """``struct snp_report_req``."""

    _fields_ = (
        ("user_data", ctypes.c_uint8 * REPORT_DATA_BYTES),
        ("vmpl", ctypes.c_uint32),
        ("rsvd", ctypes.c_uint8 * 28),
    )


class ExtendedRequest(ctypes.Structure):
    """``struct snp_ext_report_req``: the same, and where the host's certificates go."""

    _fields_ = (("data", ReportRequest), ("certs_address", ctypes.c_uint64), ("certs_len", ctypes.c_uint32))


class ReportAnswer(ctypes.Structure):
    """``struct snp_report_resp``."""

    _fields_ = (("data", ctypes.c_uint8 * 4000),)


GET_REPORT = device.number(ord("S"), 0, ctypes.sizeof(Message))
GET_EXT_REPORT = device.number(ord("S"), 2, ctypes.sizeof(Message))


class SevGuest:
    """AMD's processor asked through its device. Implements ``attest.evidence.Platform``.

    Args:
        path: the device.
        privlevel: the VMPL to ask for, 0 to 3.
        ioctl: how to ask.
        pause: waits for seconds.

    Raises:
        PlatformFailed: from every method, when the device gives no usable answer.
    """

    def __init__(
        self,
        path: Path = PATH,
        *,
        privlevel: int = 0,
        ioctl: device.Ioctl = device.ioctl,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        if not 0 <= privlevel <= MAX_PRIVLEVEL:
            raise PlatformFailed(f"a privilege level is 0 to {MAX_PRIVLEVEL}, not {privlevel}")
        self._path, self._privlevel, self._ioctl, self._pause = path, privlevel, ioctl, pause
        self._auxblob = b""

    def produce(self, report_data: bytes) -> Evidence:
        """Have the processor sign 64 bytes."""
        if len(report_data) != REPORT_DATA_BYTES:
            raise PlatformFailed(f"report data is not {REPORT_DATA_BYTES} bytes long")
        wanted = ReportRequest((ctypes.c_uint8 * REPORT_DATA_BYTES)(*report_data), self._privlevel)
        certs = (ctypes.c_uint8 * CERTS_BYTES)()
        try:
            answer = self._ask(GET_EXT_REPORT, ExtendedRequest(wanted, ctypes.addressof(certs), CERTS_BYTES))
        except PlatformFailed as error:  # a host with no certificates to hand out, or more than fit
            _LOG.warning("asking again without certificates: %s", error)
            certs = (ctypes.c_uint8 * CERTS_BYTES)()
            answer = self._ask(GET_REPORT, wanted)
        report = _report(answer)
        if report_data not in report:
            raise PlatformFailed("the report is not of the bytes that were to be signed")
        self._auxblob = bytes(certs) if any(certs) else b""
        return Evidence(PLATFORM, report)

    def endorsements(self) -> Endorsements:
        """AMD's certificates, where the host handed them to its guest with the last report."""
        return endorsements_of(self._auxblob)

    def _ask(self, request: int, wanted: ctypes.Structure) -> bytes:
        answer = ReportAnswer()

        def message() -> Message:
            return Message(_MESSAGE_VERSION, ctypes.addressof(wanted), ctypes.addressof(answer), 0)

        device.ask(self._path, request, message, self._ioctl, self._pause)
        return bytes(answer)


def _report(answer: bytes) -> bytes:
    """The report in an answer. Raises PlatformFailed when the processor's firmware refused."""
    status, size = (int.from_bytes(answer[at : at + 4], "little") for at in (0, 4))
    if status:
        raise PlatformFailed(f"the processor's firmware refused the report with status {status:#x}")
    if size != REPORT_BYTES:
        raise PlatformFailed(f"the processor's firmware gave a report of {size} bytes, not {REPORT_BYTES}")
    return answer[_UNSIGNED_BY : _UNSIGNED_BY + size]
