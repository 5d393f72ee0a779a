"""A stand-in for Azure's virtual TPM, seen through tpm2-tools, and for its metadata service."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

import pki_amd
import pki_azure
import pki_intel
from strongroom.app.enclave.platforms.local_http import LocalHttp
from strongroom.errors import PlatformFailed

REPORT, USER_DATA = 0x01400001, 0x01400002
KINDS = {"azure_snp": 2, "azure_tdx": 4}


def padded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass
class FakeAzure:
    """A machine of Azure's.

    Args:
        platform: ``azure_snp`` or ``azure_tdx``.
        late: how many reads of the report still show the user data of before.
        knows_user_data: whether the paravisor is new enough.
        indices: what the virtual TPM keeps.
        refuse: tools that fail.
        metadata: what the metadata service answers, by path; ``None`` with HTTP 404.
    """

    platform: str = "azure_snp"
    late: int = 0
    knows_user_data: bool = True
    indices: dict[int, bytes] = field(default_factory=dict)
    refuse: frozenset[str] = frozenset()
    metadata: dict[str, Any] = field(default_factory=dict)
    commands: list[list[str]] = field(default_factory=list)
    quotes: list[bytes] = field(default_factory=list)
    pcrs_written: int = 24

    def __post_init__(self) -> None:
        self.indices.setdefault(REPORT, self.report(bytes(64)))

    def runtime(self, user_data: bytes) -> bytes:
        more = {"user-data": user_data.hex().upper()} if self.knows_user_data else {}
        said = {k: v for k, v in json.loads(pki_azure.runtime_data()).items() if k != "user-data"}
        return json.dumps({**said, **more}).encode()

    def world(self, user_data: bytes) -> pki_azure.World:
        return pki_azure.World(platform=self.platform, runtime=self.runtime(user_data))

    def report(self, user_data: bytes) -> bytes:
        """The paravisor's report. On TDX the TDREPORT in it is a stand-in: its report data, and zeros."""
        world = self.world(user_data)
        hardware = world.report if self.platform == "azure_snp" else user_data.ljust(1024, b"\x01")
        return pki_azure.hcl(KINDS[self.platform], hardware, world.runtime)

    def run(self, command: Sequence[str], data: bytes) -> bytes:
        """tpm2-tools (``tpm.Run``)."""
        self.commands.append(list(command))
        if command[0] in self.refuse:
            raise PlatformFailed(f"{command[0]} failed: the TPM says no")
        name, index = command[0], command[-1]
        if name == "tpm2_nvreadpublic":
            return b"".join(b"%#x:\n  name: 00\n  size: %d\n\n" % (n, len(v)) for n, v in self.indices.items())
        if name == "tpm2_nvread":
            at = int(index, 16)
            if at == REPORT and self.late:
                self.late -= 1
                return self.report(bytes(64))
            return self.indices[at]
        if name == "tpm2_nvdefine":
            self.indices[int(index, 16)] = bytes(int(command[command.index("-s") + 1]))
            return b""
        if name == "tpm2_nvwrite":
            assert int(index, 16) in self.indices
            self.indices[int(index, 16)] = data
            self.indices[REPORT] = self.report(data)
            return b""
        assert name == "tpm2_quote", name
        return self._quote(command)

    def _quote(self, command: Sequence[str]) -> bytes:
        def after(flag: str) -> str:
            return command[command.index(flag) + 1]

        assert after("-c") == "0x81000003"
        extra = bytes.fromhex(after("-q"))
        self.quotes.append(extra)
        world = pki_azure.World(platform=self.platform, extra_data=extra)
        values = [world.presented[n] for n in map(int, after("-l").partition(":")[2].split(","))]
        Path(after("-m")).write_bytes(world.message)
        Path(after("-s")).write_bytes(world.signed)
        Path(after("-o")).write_bytes(b"".join(values[: self.pcrs_written]))
        return b""

    def imds(self) -> LocalHttp:
        return LocalHttp("Azure's metadata service", "http://imds", 5, lambda: httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path in self.metadata:
            said = self.metadata[path]
            return httpx.Response(404) if said is None else httpx.Response(200, json=said)
        if path == "/acc/tdquote":
            td_report = padded(json.loads(request.content)["report"])
            assert len(td_report) == 1024
            quote = self.world(td_report[:64]).report
            return httpx.Response(200, json={"quote": base64.urlsafe_b64encode(quote).decode().rstrip("=")})
        assert path == "/metadata/THIM/amd/certification"
        assert request.headers["metadata"] == "true"
        pem = [ssl.DER_cert_to_PEM_cert(der) for der in CERTIFICATES]
        return httpx.Response(200, json={"certificateChain": pem[1] + pem[2], "tcbm": "00", "vcekCert": pem[0]})


CERTIFICATES = (pki_amd.leaf("genoa"), pki_amd.issuer("genoa"), pki_amd.ark("genoa"))
AT = {"azure_snp": pki_amd.AT, "azure_tdx": pki_intel.AT}
