"""Memory files in large pages: whatever the kernel says, they hold what was written to them, and nothing else."""

from __future__ import annotations

import ctypes
import fcntl
import os
import sys
from types import SimpleNamespace

import pytest

from strongroom.enclave import sandbox_pages
from strongroom.enclave.sandbox_pages import LARGE, enlarge

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory files are of Linux")
SIZES = (0, 1, LARGE - 1, LARGE, LARGE + 1, 2 * LARGE + 4097)


def made(size: int) -> int:
    descriptor = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    return descriptor


@pytest.mark.parametrize("size", SIZES)
def test_a_file_in_large_pages_is_empty_and_can_be_filled_and_sealed(size: int) -> None:
    descriptor = made(size)
    try:
        enlarge(descriptor, size)
        assert os.fstat(descriptor).st_size == size
        assert os.pread(descriptor, size + 1, 0) == bytes(size)
        data = os.urandom(size)
        os.pwrite(descriptor, data, 0)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)  # refused while a mapping could write
        assert os.pread(descriptor, size + 1, 0) == data
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("fails", ["mmap", "fixed", "madvise"])
def test_a_kernel_that_says_no_changes_nothing(fails: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = ctypes.CDLL(None), list[str]()

    def mmap(*given: int) -> int | None:
        calls.append("mmap")
        if fails == "mmap" or (fails == "fixed" and len(calls) == 2):
            return ctypes.c_void_p(-1).value
        found: int | None = real.mmap(*given)
        return found

    def load(_: None) -> SimpleNamespace:
        real.mmap.restype = ctypes.c_void_p
        return SimpleNamespace(mmap=_Open(mmap), madvise=_Open(lambda *_: -1), munmap=real.munmap)

    class _Open:
        """A function that can be given types, as those of a library can."""

        def __init__(self, call: object) -> None:
            self._call = call

        def __call__(self, *given: object) -> object:
            return self._call(*given)  # type: ignore[operator]

    monkeypatch.setattr(sandbox_pages.ctypes, "CDLL", load)
    descriptor = made(LARGE)
    try:
        assert not enlarge(descriptor, LARGE)
        assert os.pread(descriptor, LARGE, 0) == bytes(LARGE)
    finally:
        os.close(descriptor)


def test_a_file_that_cannot_be_written_is_left_as_it_is() -> None:
    descriptor = made(LARGE)
    try:
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
        assert not enlarge(descriptor, LARGE)
    finally:
        os.close(descriptor)
