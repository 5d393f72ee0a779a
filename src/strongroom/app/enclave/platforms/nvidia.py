"""Evidence of NVIDIA GPUs in confidential mode, through NVIDIA's own library where it is installed (``pynvml``).

Each GPU signs a report over a nonce that follows from the processor's report data (``attest/binding.py``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from strongroom.attest.binding import gpu_nonce
from strongroom.attest.evidence import MAX_DEVICES, Evidence
from strongroom.errors import BadEvidence, MissingExtra, PlatformFailed

PLATFORM = "nvidia_cc"
DISTRIBUTION = "nvidia-ml-py"
MAX_REPORT_BYTES = 0x2000  # the library's own bounds
MAX_CHAIN_BYTES = 0x1400
_FEATURE_ENABLED = 1  # NVML_CC_SYSTEM_FEATURE_ENABLED


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
    """Every NVIDIA GPU of this machine.

    Args:
        load: finds NVIDIA's module.

    Raises:
        MissingExtra: the module is not installed.
        PlatformFailed: from every method, when the library or a GPU gives no usable answer.
    """

    def __init__(self, load: Callable[[], Any] = library) -> None:
        self._nvml = load()
        self._lock = threading.Lock()
        self._call("nvmlInit")

    def _call(self, name: str, *arguments: Any) -> Any:
        try:
            return getattr(self._nvml, name)(*arguments)
        except (self._nvml.NVMLError, AttributeError, OSError) as error:
            raise PlatformFailed(f"NVIDIA's library refused {name}: {str(error)[:120]}") from error

    @property
    def confidential(self) -> bool:
        """Whether the GPUs are in confidential mode."""
        return bool(self._call("nvmlSystemGetConfComputeState").ccFeature == _FEATURE_ENABLED)

    def __len__(self) -> int:
        return int(self._call("nvmlDeviceGetCount"))

    def produce(self, report_data: bytes) -> tuple[Evidence, ...]:
        """Have every GPU sign the nonce that follows from 64 bytes.

        Returns:
            evidence of each, in the library's order, 1 to 16.
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
