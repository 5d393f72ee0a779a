"""Stand-ins for device files that are asked by ``ioctl`` (AMD's, Amazon's), and for NVIDIA's library."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import cbor2

import pki_amd
import pki_nitro
import pki_nvidia
from strongroom.app.enclave.platforms import nitro, nscq, sev_guest

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
        mode: of several GPUs together; ``None`` of a library that does not know of modes.
        result: what asking for the mode comes to.
    """

    class NVMLError(Exception):
        pass

    class c_nvmlSystemConfComputeSettings_v1_t(ctypes.Structure):
        _fields_ = tuple(
            (name, ctypes.c_uint) for name in ("version", "environment", "ccFeature", "devToolsMode", "multiGpuMode")
        )

    def __init__(
        self,
        *gpus: Callable[[bytes], tuple[bytes, bytes]],
        confidential: bool = True,
        refuse: str = "",
        mode: int | None = None,
        result: int = 0,
    ) -> None:
        self.gpus, self.confidential, self.refuse, self.mode, self.result = gpus, confidential, refuse, mode, result
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

    def nvmlSystemGetConfComputeSettings(self, settings: Any) -> int:
        if self.mode is None:
            raise FakeNvml.NVMLError("Function Not Found")
        settings._obj.ccFeature, settings._obj.multiGpuMode = int(self.confidential), self.mode
        return self.result

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


def _function(answer: Callable[..., Any]) -> Callable[..., Any]:
    """A function that takes attributes, as those of a library do."""

    def function(*arguments: Any) -> Any:
        return answer(*arguments)

    return function


class FakeNscq:
    """NVIDIA's library for switches, with some switches; it calls back through C, as the library does.

    Args:
        switches: answer a nonce with a report, and the certificates in PEM.
        results: what a function comes to, and what it says of a path's end (``uuid``), where that is not 0.
        sizes: what it says the size of an answer is.
        times: how often it calls back about each thing.
        session: what a session is.
    """

    def __init__(
        self,
        *switches: Callable[[bytes], tuple[bytes, bytes]],
        results: dict[str, int] | None = None,
        sizes: dict[str, int] | None = None,
        times: int = 1,
        session: int | None = 7,
    ) -> None:
        self.switches, self.times, self.session = switches, times, session
        self.results, self.sizes = results or {}, sizes or {}
        self.open, self.nonces = 0, [bytes(32)]
        for name in ("session_create", "session_destroy", "session_path_observe", "session_set_input", "uuid_to_label"):
            setattr(self, f"nscq_{name}", _function(getattr(self, f"_{name}")))

    def _session_create(self, flags: int) -> Any:
        assert flags == 1
        rc = self.results.get("create", 0)
        self.open += not rc and self.session is not None
        return nscq._Session(rc, self.session)

    def _session_destroy(self, session: int) -> None:
        assert session == self.session
        self.open -= 1

    def _session_set_input(self, _session: int, flags: int, nonce: bytes, size: int) -> int:
        assert (flags, size) == (0, 32)
        self.nonces.append(nonce[:size])
        return self.results.get("set_input", 0)

    def _uuid_to_label(self, uuid: Any, label: Any, flags: int) -> int:
        assert flags == 0
        label._obj.data = b"SWX-%d" % uuid.contents[0]
        return self.results.get("label", 0)

    def _session_path_observe(self, _session: int, path: bytes, callback: Any, data: object, flags: int) -> int:
        assert (data, flags) == (None, 0)
        end = path.rsplit(b"/", 1)[1].decode()
        rc, uuids = self.results.get(end, 0), [nscq._Uuid(n) for n in range(len(self.switches))]
        if end == "uuid":
            for uuid in reversed(uuids):
                given = ctypes.pointer(uuid) if rc != -2 else None
                nscq._ON_UUID(callback.value)(ctypes.pointer(uuid), rc, given, None)
            return self.results.get("observe", 0)
        number = int(path.split(b"/")[1].removeprefix(b"SWX-"))
        report, chain = self.switches[number](self.nonces[-1])
        data = report if end == "attestation_report" else chain
        size = self.sizes.get(end, len(data))
        for _ in range(self.times):
            if end == "attestation_report":
                answer = nscq._Report(size, array(report, nscq.MAX_REPORT_BYTES))
                nscq._ON_REPORT(callback.value)(ctypes.pointer(uuids[number]), rc, answer, None)
            else:
                nscq._ON_CHAIN(callback.value)(
                    ctypes.pointer(uuids[number]), rc, nscq._Chain(array(chain, nscq.MAX_CHAIN_BYTES), size), None
                )
        return 0


def machine_of(gpus: int = 2, switches: int = 2) -> tuple[list[Any], list[Any]]:
    """GPUs in protected PCIe mode and their switches, each as it answers its library."""

    def asked(device: pki_nvidia.Device) -> Callable[[bytes], tuple[bytes, bytes]]:
        def answer(nonce: bytes) -> tuple[bytes, bytes]:
            return replace(device, nonce=nonce).report, device.pem

        return answer

    found = [asked(device) for device in pki_nvidia.protected(gpus, switches)]
    return found[:gpus], found[gpus:]


def gpu(name: str = "a", **changes: Any) -> Callable[[bytes], tuple[bytes, bytes]]:
    """A GPU under the test's own root."""

    def answer(nonce: bytes) -> tuple[bytes, bytes]:
        device = pki_nvidia.Device(name=name, **{"nonce": nonce, **changes})
        return device.report, device.pem

    return answer
