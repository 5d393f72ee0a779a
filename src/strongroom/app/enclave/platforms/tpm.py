"""A TPM 2.0, asked through tpm2-tools.

The tools are programs of the measured guest; what they print is checked by who verifies the quote. See the manual pages
``tpm2_nvread(1)``, ``tpm2_nvwrite(1)``, ``tpm2_quote(1)``.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from strongroom.attest.tpm_quote import Quote
from strongroom.errors import AttestationError, PlatformFailed

SECONDS = 30.0
MAX_OUTPUT_BYTES = 64 << 10
ALL_PCRS = tuple(range(24))
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PCR_BYTES = 32

# A command, what it reads on its standard input, and what it prints. Raises PlatformFailed.
Run: TypeAlias = Callable[[Sequence[str], bytes], bytes]


def tools(tcti: str = "", seconds: float = SECONDS) -> Run:
    """Run the machine's own tools.

    Args:
        tcti: which TPM (``tpm2-tools``, common options, ``--tcti``); the machine's own by default.
        seconds: how long one tool may take.
    """
    environment = {"LANG": "C.UTF-8", "PATH": _PATH, **({"TPM2TOOLS_TCTI": tcti} if tcti else {})}

    def run(command: Sequence[str], data: bytes) -> bytes:
        try:
            ended = subprocess.run(  # noqa: S603 - the commands are written below, and nothing in them is anybody's
                list(command), input=data, capture_output=True, env=environment, timeout=seconds, check=False
            )
        except FileNotFoundError as error:
            raise PlatformFailed(
                f"{command[0]} is not installed", hint="Install tpm2-tools in the guest's image."
            ) from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise PlatformFailed(f"{command[0]} failed: {error.__class__.__name__}") from error
        if ended.returncode != 0:
            said = ended.stderr.decode("utf-8", "replace").strip().splitlines()
            raise PlatformFailed(f"{command[0]} failed: {said[-1][:200] if said else ended.returncode}")
        if len(ended.stdout) > MAX_OUTPUT_BYTES:
            raise PlatformFailed(f"{command[0]} printed more than {MAX_OUTPUT_BYTES} bytes")
        return ended.stdout

    return run


class Tpm:
    """A TPM.

    Args:
        run: runs a tool.

    Raises:
        PlatformFailed: from every method, when the TPM or its tools give no usable answer.
    """

    def __init__(self, run: Run | None = None) -> None:
        self._run = run or tools()

    def nv_sizes(self) -> Mapping[int, int]:
        """The indices of non-volatile memory that are defined, each with its size in bytes."""
        found: dict[int, int] = {}
        index = 0
        for line in self._run(["tpm2_nvreadpublic"], b"").decode("ascii", "replace").splitlines():
            name, _, value = line.partition(":")
            with contextlib.suppress(ValueError):
                if name.startswith("0x"):
                    index = int(name, 16)
                elif name.strip() == "size":
                    found[index] = int(value)
        return found

    def nv_read(self, index: int) -> bytes:
        """What stands at an index of non-volatile memory, whole."""
        return self._run(["tpm2_nvread", "-C", "o", f"{index:#x}"], b"")

    def nv_write(self, index: int, data: bytes) -> None:
        self._run(["tpm2_nvwrite", "-C", "o", "-i", "-", f"{index:#x}"], data)

    def nv_define(self, index: int, size: int) -> None:
        """Define an index that the owner reads and writes without a password, as Azure's own tools do."""
        attributes = "ownerread|ownerwrite|authread|authwrite"
        self._run(["tpm2_nvdefine", "-C", "o", "-s", str(size), "-a", attributes, f"{index:#x}"], b"")

    def quote(self, key: int, qualifying: bytes, pcrs: Sequence[int] = ALL_PCRS) -> Quote:
        """Have a key sign the platform configuration registers of the SHA-256 bank.

        Args:
            key: the handle of an attestation key.
            qualifying: what the quote is for (``extraData``), at most 32 bytes.
            pcrs: which registers.

        Raises:
            PlatformFailed: also when what the tools wrote is no quote of these registers.
        """
        selection = "sha256:" + ",".join(map(str, pcrs))
        with tempfile.TemporaryDirectory(prefix="strongroom-") as folder:
            message, signature, values = (Path(folder) / name for name in ("message", "signature", "pcrs"))
            outputs = ["-m", str(message), "-s", str(signature), "-o", str(values), "-F", "values"]
            self._run(
                ["tpm2_quote", "-c", f"{key:#x}", "-l", selection, "-q", qualifying.hex(), "-g", "sha256", *outputs], b""
            )
            try:
                written = [_read(path) for path in (message, signature, values)]
            except OSError as error:
                raise PlatformFailed(f"tpm2_quote wrote nothing: {error.strerror}") from error
        digests = [written[2][at : at + _PCR_BYTES] for at in range(0, len(written[2]), _PCR_BYTES)]
        if len(digests) != len(pcrs):
            raise PlatformFailed(f"tpm2_quote wrote {len(digests)} registers, not {len(pcrs)}")
        try:
            found = Quote(written[0], written[1], "sha256", dict(zip(pcrs, digests, strict=True)))
        except AttestationError as error:
            raise PlatformFailed(f"tpm2_quote wrote what is no quote: {error}") from error
        if found.attest.extra_data != qualifying:
            raise PlatformFailed("the quote is not for what it was asked for")
        return found


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size > MAX_OUTPUT_BYTES:
            raise PlatformFailed(f"{path.name} of a quote is longer than {MAX_OUTPUT_BYTES} bytes")
        return file.read()
