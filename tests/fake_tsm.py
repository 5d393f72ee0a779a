"""A stand-in for Linux's configfs-tsm: in memory, with the kernel's own rules and faults on demand; and as files on disk,
where a thread plays the kernel."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pki_amd
import pki_intel
from strongroom.app.enclave.platforms.tsm import Kernel

Sign = Callable[[bytes, int], bytes]  # the question and the privilege level; the report


def tdx(report_data: bytes, _level: int) -> bytes:
    """A quote under the test's own root."""
    return pki_intel.World(td={"report_data": report_data}).quote()


def snp(report_data: bytes, level: int) -> bytes:
    """A report under the test's own root."""
    return pki_amd.signed(pki_amd.claims(report_data=report_data, vmpl=level))


@dataclass
class Item:
    """One folder: what was written into it, and what came of that."""

    inblob: bytes = b""
    privlevel: int = 0
    written: int = 0
    read: int = -1
    outblob: bytes = b""


def fault(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@dataclass
class FakeTsm:
    """The kernel (``tsm.Files``). A report is made when it is first read after a write; each write counts.

    Args:
        provider: its name, or ``None`` where none is registered.
        sign: what the processor answers.
        auxblob: AMD's table, or ``None`` where the file is not there.
        before: called before every operation with its name and the file's; it may raise what the kernel would, or write.
    """

    provider: str | None = "tdx_guest"
    sign: Sign = tdx
    auxblob: bytes | None = None
    before: Callable[[str, str, FakeTsm, Path], None] = lambda *_: None
    items: dict[Path, Item] = field(default_factory=dict)
    made: list[Path] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def mkdir(self, path: Path) -> None:
        with self.lock:
            self.before("mkdir", path.name, self, path)
            if self.provider is None:
                raise fault(errno.ENXIO)
            if path in self.items:
                raise fault(errno.EEXIST)
            self.items[path] = Item()
            self.made.append(path)

    def rmdir(self, path: Path) -> None:
        with self.lock:
            self.before("rmdir", path.name, self, path)
            del self.items[path]

    def write(self, path: Path, data: bytes) -> None:
        with self.lock:
            self.before("write", path.name, self, path.parent)
            self.take(path.parent, path.name, data)

    def take(self, folder: Path, name: str, data: bytes) -> None:
        """A write, whoever made it."""
        item = self._item(folder)
        if name == "privlevel":
            item.privlevel = int(data)
        elif name == "inblob":
            if not 1 <= len(data) <= 64:
                return  # what does not fit is dropped when the file is closed, and nobody is told
            item.inblob = data
        else:
            raise fault(errno.EACCES)
        item.written += 1

    def read(self, path: Path, most: int) -> bytes:
        with self.lock:
            self.before("read", path.name, self, path.parent)
            item = self._item(path.parent)
            if path.name == "generation":
                return b"%d\n" % item.written
            if path.name == "provider":
                return f"{self.provider}\n".encode()
            if path.name == "auxblob" and self.auxblob is None:
                raise fault(errno.ENOENT)
            if not item.inblob:
                raise fault(errno.EINVAL)
            if item.read != item.written:
                item.outblob, item.read = self.sign(item.inblob, item.privlevel), item.written
            found = {"outblob": item.outblob, "auxblob": self.auxblob or b""}[path.name]
            return found[: most + 1]

    def _item(self, folder: Path) -> Item:
        if folder not in self.items:
            raise fault(errno.ENOENT)
        return self.items[folder]


class Faults:
    """The kernel's errors, each once, at an operation on a file."""

    def __init__(self, *wanted: tuple[str, str, int]) -> None:
        self.left = list(wanted)

    def __call__(self, operation: str, name: str, _kernel: FakeTsm, _folder: Path) -> None:
        for n, (on, of, number) in enumerate(self.left):
            if on == operation and of in ("", name):
                del self.left[n]
                raise fault(number)


class DiskTsm(Kernel):
    """The real way to the kernel's files, to a folder on disk. ``inblob``, ``outblob`` and ``auxblob`` are pipes, so that a
    read waits for the thread that answers a write; the other files are plain. Making and removing folders is all that is
    done otherwise than on configfs, which fills and empties them itself.

    Args:
        provider, sign, auxblob: as of ``FakeTsm``.
    """

    def __init__(self, provider: str, sign: Sign, auxblob: bytes = b"") -> None:
        self.provider, self.sign, self.auxblob = provider, sign, auxblob
        self.kernels: list[threading.Thread] = []

    def mkdir(self, path: Path) -> None:
        super().mkdir(path)
        (path / "provider").write_text(f"{self.provider}\n")
        (path / "generation").write_text("0\n")
        for name in ("inblob", "outblob", "auxblob"):
            os.mkfifo(path / name)
        thread = threading.Thread(target=self._answer, args=(path,))
        thread.start()
        self.kernels.append(thread)

    def _answer(self, folder: Path) -> None:
        question = (folder / "inblob").read_bytes()
        (folder / "generation").write_text("1\n")
        (folder / "outblob").write_bytes(self.sign(question, 0))
        (folder / "auxblob").write_bytes(self.auxblob)

    def rmdir(self, path: Path) -> None:
        shutil.rmtree(path)

    def end(self) -> None:
        for thread in self.kernels:
            thread.join(10)
            assert not thread.is_alive()
