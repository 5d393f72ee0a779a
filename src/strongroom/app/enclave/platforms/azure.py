"""Evidence of Azure's confidential machines: the paravisor's report and the virtual TPM's quote, put together in the guest.

The paravisor keeps its report at one index of the TPM's non-volatile memory. What is written to another is taken up as
``user-data`` of its runtime data, and the report is made anew, which takes it a moment. On TDX the processor's report in it
counts on this machine alone; the metadata service has Intel's quote made of it.

The quote's ``extraData`` is what binds evidence to report data. The user data only show that the hardware's report is fresh
as well; a paravisor too old to know them leaves them out.
"""

from __future__ import annotations

import base64
import binascii
import logging
import threading
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

from strongroom import wire
from strongroom.attest.endorsements import PEM_CHAIN
from strongroom.attest.evidence import MAX_ENDORSEMENT_BYTES, REPORT_DATA_BYTES, Endorsement, Endorsements, Evidence
from strongroom.errors import AttestationError, PlatformFailed, WireError

from .local_http import LocalHttp
from .tpm import ALL_PCRS, Tpm

_LOG = logging.getLogger("strongroom.enclave")
REPORT_INDEX = 0x01400001
USER_DATA_INDEX = 0x01400002
ATTESTATION_KEY = 0x81000003
IMDS = "http://169.254.169.254"
IMDS_SECONDS = 30.0
PAUSE_S, TRIES = 0.5, 20  # for the paravisor to take the user data up
_TDREPORT_BYTES = 1024
_NAMES = {2: "azure_snp", 4: "azure_tdx"}


class Azure:
    """A virtual TPM of Azure's. Implements ``attest.evidence.Platform``; questions are asked one after the other.

    Args:
        platform: what is expected, ``azure_snp`` or ``azure_tdx``.
        tpm: the virtual TPM.
        imds: the metadata service.
        pcrs: the registers to quote.
        pause: waits for seconds.

    Raises:
        PlatformFailed: from every method, when the machine gives no usable answer.
    """

    def __init__(
        self,
        platform: str,
        *,
        tpm: Tpm | None = None,
        imds: LocalHttp | None = None,
        pcrs: Sequence[int] = ALL_PCRS,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._platform, self._tpm, self._pcrs, self._pause = platform, tpm or Tpm(), tuple(pcrs), pause
        self._imds = imds or LocalHttp("Azure's metadata service", IMDS, IMDS_SECONDS)
        self._lock = threading.Lock()  # there is one index for everybody's user data

    def produce(self, report_data: bytes) -> Evidence:
        """Have the paravisor and the virtual TPM answer for 64 bytes."""
        from strongroom.attest.azure import Claims

        if len(report_data) != REPORT_DATA_BYTES:
            raise PlatformFailed(f"report data is not {REPORT_DATA_BYTES} bytes long")
        with self._lock:
            report = self._report(report_data)
            quote = self._tpm.quote(ATTESTATION_KEY, sha256(report_data).digest(), self._pcrs)
        hardware = report.hardware if self._platform == "azure_snp" else self._td_quote(report.hardware[:_TDREPORT_BYTES])
        try:
            return Claims(quote, hardware, report.runtime_data, report.digest).evidence(self._platform)
        except AttestationError as error:
            raise PlatformFailed(f"the parts of the evidence do not fit: {error}") from error

    def endorsements(self) -> Endorsements:
        """On SEV-SNP, AMD's certificates from the metadata service; on TDX none. None where the service has none."""
        if self._platform != "azure_snp":
            return Endorsements()
        try:
            said = self._imds.ask("GET", "/metadata/THIM/amd/certification", headers={"Metadata": "true"})
            chains = [_text(said, name) for name in ("vcekCert", "certificateChain")]
        except PlatformFailed as error:
            _LOG.warning("AMD's certificates are left out: %s", error)
            return Endorsements()
        return Endorsements(tuple(Endorsement(PEM_CHAIN, chain.encode()) for chain in chains))

    def _report(self, report_data: bytes) -> Any:
        """The paravisor's report once it holds these user data."""
        if USER_DATA_INDEX not in self._tpm.nv_sizes():
            self._tpm.nv_define(USER_DATA_INDEX, REPORT_DATA_BYTES)
        self._tpm.nv_write(USER_DATA_INDEX, report_data)
        for attempt in range(TRIES):
            if attempt:
                self._pause(PAUSE_S)
            report = self._read()
            seen = _user_data(report.runtime_data)
            if seen in (None, report_data):
                return report
        raise PlatformFailed(f"the paravisor did not take the user data up in {TRIES * PAUSE_S:.0f} s")

    def _read(self) -> Any:
        from strongroom.attest.azure_foreign import HclReport

        try:
            report = HclReport.parse(self._tpm.nv_read(REPORT_INDEX))
        except AttestationError as error:
            raise PlatformFailed(f"what the virtual TPM keeps is unusable: {error}") from error
        if _NAMES[report.kind] != self._platform:
            raise PlatformFailed(f"the paravisor's report is of {_NAMES[report.kind]}, not of {self._platform}")
        return report

    def _td_quote(self, td_report: bytes) -> bytes:
        """Intel's quote of a TDREPORT."""
        text = base64.urlsafe_b64encode(td_report).decode("ascii").rstrip("=")
        quote = _text(self._imds.ask("POST", "/acc/tdquote", {"report": text}), "quote").rstrip("=")
        try:
            return base64.b64decode(quote + "=" * (-len(quote) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as error:
            raise PlatformFailed("the metadata service's quote is not base64url") from error


def platform_of(tpm: Tpm) -> str | None:
    """Which of Azure's platforms a virtual TPM is of; ``None`` where it has no paravisor's report. Raises PlatformFailed."""
    from strongroom.attest.azure_foreign import HclReport

    if REPORT_INDEX not in tpm.nv_sizes():
        return None
    try:
        return _NAMES[HclReport.parse(tpm.nv_read(REPORT_INDEX)).kind]
    except AttestationError as error:
        raise PlatformFailed(f"what the virtual TPM keeps is unusable: {error}") from error


def _user_data(runtime_data: bytes) -> bytes | None:
    """``user-data`` of the runtime data; ``None`` where they have none, empty where it is not hex."""
    try:
        said = wire.loads(runtime_data, max_bytes=MAX_ENDORSEMENT_BYTES)
    except WireError as error:
        raise PlatformFailed("the paravisor's runtime data are not JSON") from error
    found = said.get("user-data") if isinstance(said, dict) else None
    try:
        return None if found is None else bytes.fromhex(str(found))
    except ValueError:
        return b""


def _text(said: Any, name: str) -> str:
    found = said.get(name)
    if not isinstance(found, str) or not found or len(found) > MAX_ENDORSEMENT_BYTES or not found.isascii():
        raise PlatformFailed(f"the metadata service's {name} is not text")
    return found
