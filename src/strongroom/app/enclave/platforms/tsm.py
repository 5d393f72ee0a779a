"""Evidence through Linux's configfs-tsm: one folder a question, filled by the kernel from Intel's or AMD's processor.

The kernel makes a report anew when a file in its folder was written since the last one. Who else may write there could swap
the question between our write and our read; ``generation`` counts every write, so a count that is not ours means that the
answer is not either. What the kernel cannot take of a binary file it drops when that is closed, and tells nobody: the same
count shows that as well.

See Linux, ``Documentation/ABI/testing/configfs-tsm-report``.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from strongroom.attest.evidence import REPORT_DATA_BYTES, Endorsements, Evidence
from strongroom.errors import BadEndorsement, PlatformFailed

_LOG = logging.getLogger("strongroom.enclave")
ROOT = Path("/sys/kernel/config/tsm/report")
TRIES = 8
PAUSES_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)  # between them; an Intel quote is made outside the guest, and takes its time
MAX_LINE_BYTES = 64
MAX_AUXBLOB_BYTES = 64 << 10
MAX_PRIVLEVEL = 3  # AMD's VMPL

# The request before ours is still under way, or a signal came in between: the same question may succeed.
_AGAIN = frozenset({errno.EBUSY, errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT})


@dataclass(frozen=True, slots=True)
class Kind:
    """What one of the kernel's providers makes.

    Attributes:
        platform: whose evidence ``outblob`` is.
        least, most: its size, bytes.
    """

    platform: str
    least: int
    most: int


PROVIDERS: Mapping[str, Kind] = MappingProxyType(
    {"sev_guest": Kind("sev_snp", 1184, 1184), "tdx_guest": Kind("tdx", 1024, 32 << 10)}
)


class Files(Protocol):
    """What configfs is asked to do. Raises OSError, as the kernel says it."""

    def mkdir(self, path: Path) -> None: ...
    def rmdir(self, path: Path) -> None: ...
    def write(self, path: Path, data: bytes) -> None:
        """All of it, in one call: the kernel takes a value whole."""
        ...

    def read(self, path: Path, most: int) -> bytes:
        """Up to ``most`` bytes and one more, which shows that there are too many."""
        ...


class Kernel:
    """The kernel's own files (``Files``)."""

    def mkdir(self, path: Path) -> None:
        path.mkdir(mode=0o700)

    def rmdir(self, path: Path) -> None:
        path.rmdir()

    def write(self, path: Path, data: bytes) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            if os.write(descriptor, data) != len(data):
                raise OSError(errno.EIO, "the kernel took only a part of what was written")
        finally:
            os.close(descriptor)

    def read(self, path: Path, most: int) -> bytes:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        found = b""
        try:
            while len(found) <= most and (piece := os.read(descriptor, most + 1 - len(found))):
                found += piece
        finally:
            os.close(descriptor)
        return found


@dataclass(frozen=True, slots=True)
class Report:
    """What the kernel answered.

    Attributes:
        platform: whose evidence it is.
        outblob: what the processor signed.
        auxblob: AMD's table of certificates; empty where there is none.
    """

    platform: str
    outblob: bytes
    auxblob: bytes


class _AskAgain(Exception):
    """The same question may succeed."""


class Tsm:
    """A processor asked through configfs-tsm. Implements ``attest.evidence.Platform``; several threads may ask at once.

    Args:
        platform: what is expected, ``tdx`` or ``sev_snp``; another provider's report is refused.
        root: the kernel's folder of reports.
        files: how to reach it.
        privlevel: AMD's VMPL to ask for, 0 to 3; the kernel's own choice by default.
        entropy: fresh random bytes.
        pause: waits for seconds.

    Raises:
        PlatformFailed: from every method, when the kernel gives no usable answer.
    """

    def __init__(
        self,
        platform: str,
        *,
        root: Path = ROOT,
        files: Files | None = None,
        privlevel: int | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        if privlevel is not None and not 0 <= privlevel <= MAX_PRIVLEVEL:
            raise PlatformFailed(f"a privilege level is 0 to {MAX_PRIVLEVEL}, not {privlevel}")
        self._platform, self._root, self._files, self._privlevel = platform, root, files or Kernel(), privlevel
        self._entropy, self._pause = entropy, pause
        self._auxblob = b""

    def produce(self, report_data: bytes) -> Evidence:
        """Have the processor sign 64 bytes."""
        report = self.report(report_data)
        self._auxblob = report.auxblob
        return Evidence(report.platform, report.outblob)

    def endorsements(self) -> Endorsements:
        """AMD's certificates, where the host handed them to its guest with the last report."""
        return endorsements_of(self._auxblob)

    def report(self, report_data: bytes) -> Report:
        """One report, in a folder of its own that is removed again."""
        if len(report_data) != REPORT_DATA_BYTES:
            raise PlatformFailed(f"report data is not {REPORT_DATA_BYTES} bytes long")
        why = ""
        for attempt in range(TRIES):
            if attempt:
                self._pause(PAUSES_S[min(attempt, len(PAUSES_S)) - 1])
            try:
                return self._once(report_data)
            except _AskAgain as again:
                why = str(again)
        raise PlatformFailed(f"the kernel gave no report in {TRIES} tries: {why}")

    def _once(self, report_data: bytes) -> Report:
        folder = self._root / f"strongroom-{self._entropy(16).hex()}"
        try:
            self._files.mkdir(folder)
        except FileExistsError as error:
            raise _AskAgain("the folder was there already") from error
        except OSError as error:
            raise _failed(f"a report cannot be begun in {self._root}", error) from error
        try:
            return self._fill(folder, report_data)
        except OSError as error:
            raise _failed("the kernel gives no report", error) from error
        finally:
            self._remove(folder)

    def _fill(self, folder: Path, report_data: bytes) -> Report:
        files = self._files
        kind = _kind(_line(files, folder / "provider"), self._platform)
        before, writes = _number(files, folder / "generation"), 1
        if self._privlevel is not None:
            files.write(folder / "privlevel", b"%d\n" % self._privlevel)
            writes += 1
        files.write(folder / "inblob", report_data)
        outblob = files.read(folder / "outblob", kind.most)
        auxblob = _optional(files, folder / "auxblob")
        after = _number(files, folder / "generation")
        if after != before + writes:
            raise _AskAgain(f"{after - before} writes were counted where {writes} were made")
        if not kind.least <= len(outblob) <= kind.most:
            raise PlatformFailed(f"a report of {kind.platform} is not {kind.least} to {kind.most} bytes long")
        if report_data not in outblob:
            raise PlatformFailed("the report is not of the bytes that were to be signed")
        return Report(kind.platform, outblob, auxblob)

    def _remove(self, folder: Path) -> None:
        for attempt in range(TRIES):
            try:
                self._files.rmdir(folder)
            except OSError as error:  # it holds no secret, and the answer is none the worse for it
                if error.errno not in _AGAIN or attempt + 1 == TRIES:
                    _LOG.warning("%s could not be removed: %s", folder, error.strerror)
                    return
                self._pause(PAUSES_S[0])
            else:
                return


def endorsements_of(auxblob: bytes) -> Endorsements:
    """The certificates in AMD's table; none where it cannot be read: it is the host's, and no evidence is worse for it."""
    from strongroom.attest.snp_key import certificates_of_auxblob

    try:
        return certificates_of_auxblob(auxblob)
    except BadEndorsement as error:
        _LOG.warning("the host's table of certificates is left out: %s", error)
        return Endorsements()


def provider_of(root: Path = ROOT, files: Files | None = None, entropy: Callable[[int], bytes] = os.urandom) -> str:
    """The name of the kernel's provider, whatever it is. Raises OSError, PlatformFailed."""
    files, folder = files or Kernel(), root / f"strongroom-{entropy(16).hex()}"
    files.mkdir(folder)
    try:
        return _line(files, folder / "provider")
    finally:
        with contextlib.suppress(OSError):
            files.rmdir(folder)


def _failed(what: str, error: OSError) -> Exception:
    if error.errno in _AGAIN:
        return _AskAgain(error.strerror or "busy")
    denied = error.errno in (errno.EACCES, errno.EPERM)
    hint = "Only root may ask the kernel for a report: start the enclave as root of its guest." if denied else None
    return PlatformFailed(f"{what}: {error.strerror}", hint=hint)


def _line(files: Files, path: Path) -> str:
    """A file of one line of text."""
    data = files.read(path, MAX_LINE_BYTES)
    text = data.decode("ascii", "replace").removesuffix("\n")
    if not text or not text.isprintable() or len(data) > MAX_LINE_BYTES:
        raise PlatformFailed(f"the kernel's {path.name} is not a line of text")
    return text


def _number(files: Files, path: Path) -> int:
    text = _line(files, path)
    if not (text.isascii() and text.isdecimal()):
        raise PlatformFailed(f"the kernel's {path.name} is not a number")
    return int(text)


def _kind(provider: str, expected: str) -> Kind:
    kind = PROVIDERS.get(provider)
    if kind is None or kind.platform != expected:
        raise PlatformFailed(f"the kernel's provider is {provider!r}, which is not that of {expected}")
    return kind


def _optional(files: Files, path: Path) -> bytes:
    """What only some providers have. What is too long is nothing that we know."""
    try:
        found = files.read(path, MAX_AUXBLOB_BYTES)
    except FileNotFoundError:
        return b""
    return found if len(found) <= MAX_AUXBLOB_BYTES else b""
