"""Evidence of NVIDIA GPUs in confidential mode, through NVIDIA's own library where it is installed (``pynvml``), and of the
switches between them where they are needed (``nscq.py``).

Each device signs a report over a nonce that follows from the processor's report data (``attest/binding.py``).
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any

from strongroom.attest.binding import gpu_nonce
from strongroom.attest.evidence import MAX_DEVICES, Evidence
from strongroom.errors import BadEvidence, MissingExtra, PlatformFailed

from . import nscq

PLATFORM = "nvidia_cc"
DISTRIBUTION = "nvidia-ml-py"
MAX_REPORT_BYTES = 0x2000  # the library's own bounds
MAX_CHAIN_BYTES = 0x1400
_FEATURE_ENABLED = 1  # NVML_CC_SYSTEM_FEATURE_ENABLED
_PROTECTED_PCIE, _PROTECTED_LINKS = 1, 2  # NVML_CC_SYSTEM_MULTIGPU_PROTECTED_PCIE and _NVLE


def library() -> Any:
    """NVIDIA's module. Raises MissingExtra."""
    try:
        import pynvml  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError as error:
        raise MissingExtra(
            f"evidence of a GPU needs {DISTRIBUTION}", hint="Install it: pip install 'strongroom[nvidia]'"
        ) from error
    return pynvml


class Gpus:
    """Every NVIDIA GPU of this machine; in protected PCIe mode with every switch, without which they are not accepted.

    Args:
        load: finds NVIDIA's module.
        load_switches: finds NVIDIA's library for switches; it is looked for in that mode alone.

    Raises:
        MissingExtra: the module is not installed; or the library for switches, where it is needed.
        PlatformFailed: from every method, when a library or a device gives no usable answer.
    """

    def __init__(self, load: Callable[[], Any] = library, load_switches: Callable[[], Any] = nscq.library) -> None:
        self._nvml = load()
        self._lock = threading.Lock()
        self._call("nvmlInit")
        self._feature, self._together = self._settings()
        self._switches = nscq.Switches(load_switches) if self.protected_pcie else None

    def _call(self, name: str, *arguments: Any) -> Any:
        try:
            return getattr(self._nvml, name)(*arguments)
        except (self._nvml.NVMLError, AttributeError, OSError) as error:
            raise PlatformFailed(f"NVIDIA's library refused {name}: {str(error)[:120]}") from error

    def _settings(self) -> tuple[int, int]:
        """Whether confidential mode is on, and the mode of several GPUs; drivers before R550 know the first alone."""
        try:
            settings = self._nvml.c_nvmlSystemConfComputeSettings_v1_t()
            result = self._nvml.nvmlSystemGetConfComputeSettings(ctypes.byref(settings))  # the one that is not checked there
        except (self._nvml.NVMLError, AttributeError):
            result = -1
        if result == 0:
            return int(settings.ccFeature), int(settings.multiGpuMode)
        return int(self._call("nvmlSystemGetConfComputeState").ccFeature), 0

    @property
    def confidential(self) -> bool:
        """Whether the GPUs are in confidential mode: each alone, or all together."""
        return self._feature == _FEATURE_ENABLED or self._together in {_PROTECTED_PCIE, _PROTECTED_LINKS}

    @property
    def protected_pcie(self) -> bool:
        """Whether they are in the mode that leaves the links between them in the clear."""
        return self._together == _PROTECTED_PCIE

    @property
    def seen(self) -> str:
        """How many there are, and in which mode, for people."""
        if self._switches is None:
            return f"{len(self)} NVIDIA GPU(s) in confidential mode"
        return f"{len(self)} NVIDIA GPU(s) and {len(self._switches)} switch(es) in protected PCIe mode"

    def __len__(self) -> int:
        return int(self._call("nvmlDeviceGetCount"))

    def produce(self, report_data: bytes) -> tuple[Evidence, ...]:
        """Have every GPU, and in protected PCIe mode every switch, sign the nonce that follows from 64 bytes.

        Returns:
            evidence of each GPU, in the library's order, and then of each switch; 1 to 16 in all.
        """
        from strongroom.attest.nvidia import evidence

        nonce = gpu_nonce(report_data)
        found: list[Evidence] = []
        with self._lock:  # one SPDM session a GPU
            count = len(self)
            if not 1 <= count <= MAX_DEVICES:
                raise PlatformFailed(f"there are {count} GPUs, where evidence can be of 1 to {MAX_DEVICES}")
            for index in range(count):
                report, chain = self._ask(index, nonce)
                try:
                    found.append(evidence(report, chain, nonce))
                except BadEvidence as error:
                    raise PlatformFailed(f"GPU {index} gave no usable evidence: {error}") from error
            if self._switches is not None:
                found += self._switches.produce(nonce)
        if len(found) > MAX_DEVICES:
            raise PlatformFailed(f"there are {len(found)} GPUs and switches, where evidence can be of {MAX_DEVICES}")
        return tuple(found)

    def _ask(self, index: int, nonce: bytes) -> tuple[bytes, bytes]:
        """A GPU's report and its chain of certificates, PEM."""
        gpu = self._call("nvmlDeviceGetHandleByIndex", index)
        signed = self._call("nvmlDeviceGetConfComputeGpuAttestationReport", gpu, nonce)
        certificate = self._call("nvmlDeviceGetConfComputeGpuCertificate", gpu)
        report = _sized(signed.attestationReport, signed.attestationReportSize, MAX_REPORT_BYTES, f"report of GPU {index}")
        chain = _sized(
            certificate.attestationCertChain,
            certificate.attestationCertChainSize,
            MAX_CHAIN_BYTES,
            f"certificate chain of GPU {index}",
        )
        return report, chain


def _sized(array: Any, size: int, most: int, what: str) -> bytes:
    if not 0 < size <= min(most, len(array)):
        raise PlatformFailed(f"the {what} is {size} bytes long, where it may have 1 to {most}")
    return bytes(array[:size])
