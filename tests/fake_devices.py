"""Stand-ins for device files that are asked by ``ioctl`` (AMD's, Amazon's), and for NVIDIA's library."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cbor2

import pki_amd
import pki_nitro
import pki_nvidia
from strongroom.app.enclave.platforms import nitro, sev_guest

# --- /dev/sev-guest ---------------------------------------------------------------------------------------------------


def sev_report(report_data: bytes, vmpl: int) -> bytes:
    return pki_amd.signed(pki_amd.claims(report_data=report_data, vmpl=vmpl))


@dataclass
class FakeSevGuest:
    """The device's ``ioctl``, which reads and writes the caller's memory as the kernel does.

    Args:
        certs: the host's table of certificates.
        sign: what the processor answers.
        errors: the kernel's errors, by request, each once.
        status, size: in the answer's header.
    """

    certs: bytes = b""
    sign: Callable[[bytes, int], bytes] = sev_report
    errors: list[tuple[int, int]] = field(default_factory=list)
    status: int = 0
    size: int = 1184
    asked: list[int] = field(default_factory=list)

    def __call__(self, _descriptor: int, request: int, message: Any) -> int:
        self.asked.append(request)
        for n, (of, number) in enumerate(self.errors):
            if of == request:
                del self.errors[n]
                raise OSError(number, os.strerror(number))
        assert message.msg_version == 1
        if request == sev_guest.GET_EXT_REPORT:
            asked = sev_guest.ExtendedRequest.from_address(message.req_data)
            assert asked.certs_len % 4096 == 0
            if len(self.certs) > asked.certs_len:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            ctypes.memmove(asked.certs_address, self.certs, len(self.certs))
            wanted = asked.data
        else:
            assert request == sev_guest.GET_REPORT
            wanted = sev_guest.ReportRequest.from_address(message.req_data)
        assert not any(wanted.rsvd)
        report = self.sign(bytes(wanted.user_data), wanted.vmpl)
        answer = self.status.to_bytes(4, "little") + self.size.to_bytes(4, "little") + bytes(24) + report
        ctypes.memmove(message.resp_data, answer, len(answer))
        return 0


# --- /dev/nsm ---------------------------------------------------------------------------------------------------------


@dataclass
class FakeNsm:
    """The Nitro Secure Module's ``ioctl``.

    Args:
        answer: bytes in place of what it would answer.
        errors: the kernel's errors, each once.
        length: what it says of the answer's length, otherwise.
    """

    answer: bytes | None = None
    errors: list[int] = field(default_factory=list)
    length: int | None = None
    asked: list[Any] = field(default_factory=list)

    def __call__(self, _descriptor: int, request: int, message: Any) -> int:
        assert request == nitro.REQUEST
        if self.errors:
            number = self.errors.pop(0)
            raise OSError(number, os.strerror(number))
        wanted = cbor2.loads(ctypes.string_at(message.request, message.request_len))
        self.asked.append(wanted)
        document = pki_nitro.World(members={"user_data": wanted["Attestation"]["user_data"]}).data
        answer = cbor2.dumps({"Attestation": {"document": document}}) if self.answer is None else self.answer
        assert len(answer) <= message.response_len
        ctypes.memmove(message.response, answer, len(answer))
        message.response_len = len(answer) if self.length is None else self.length
        return 0


# --- NVIDIA -----------------------------------------------------------------------------------------------------------


def array(data: bytes, room: int) -> Any:
    """Bytes in an array of C, as the library hands them out: zeros after them."""
    return (ctypes.c_uint8 * room)(*data)


class Struct:
    def __init__(self, **members: Any) -> None:
        self.__dict__.update(members)


class FakeNvml:
    """NVIDIA's library with some GPUs.

    Args:
        gpus: answer a nonce with a report, and the certificates in PEM.
        confidential: whether confidential mode is on.
        refuse: the function that fails.
    """

    class NVMLError(Exception):
        pass

    def __init__(self, *gpus: Callable[[bytes], tuple[bytes, bytes]], confidential: bool = True, refuse: str = "") -> None:
        self.gpus, self.confidential, self.refuse = gpus, confidential, refuse
        self.nonces: list[bytes] = []
        self.report_size: int | None = None
        self.chain_size: int | None = None

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("nvml") and name == object.__getattribute__(self, "refuse"):

            def refuse(*_: object) -> None:
                raise FakeNvml.NVMLError("Not Supported")

            return refuse
        return object.__getattribute__(self, name)

    def nvmlInit(self) -> None:
        pass

    def nvmlSystemGetConfComputeState(self) -> Struct:
        return Struct(environment=2, ccFeature=int(self.confidential), devToolsMode=0)

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetConfComputeGpuAttestationReport(self, gpu: int, nonce: bytes) -> Struct:
        self.nonces.append(bytes(nonce))
        report = self.gpus[gpu](nonce)[0]
        size = len(report) if self.report_size is None else self.report_size
        return Struct(attestationReportSize=size, attestationReport=array(report, 0x2000))

    def nvmlDeviceGetConfComputeGpuCertificate(self, gpu: int) -> Struct:
        chain = self.gpus[gpu](bytes(32))[1]
        size = len(chain) if self.chain_size is None else self.chain_size
        return Struct(attestationCertChainSize=size, attestationCertChain=array(chain, 0x1400))


def gpu(name: str = "a", **changes: Any) -> Callable[[bytes], tuple[bytes, bytes]]:
    """A GPU under the test's own root."""

    def answer(nonce: bytes) -> tuple[bytes, bytes]:
        device = pki_nvidia.Device(name=name, **{"nonce": nonce, **changes})
        return device.report, device.pem

    return answer
