"""Weights in memory: an anonymous memory file that this process fills, and that nobody can write to afterwards.

It has no name and lies on no disk. Children get a descriptor of it and map it, so that however many there are, and however
often one is started again, the weights stand in memory once. Where this process may lock so much memory, they are never
written to swap. See ``docs/engines.md``.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
from collections.abc import Callable, Sequence
from typing import Final, Self

from strongroom.asset import AssetKey, Manifest, RangeSource, open_whole
from strongroom.enclave.sandbox_pages import enlarge

_PIECE_BYTES: Final = 1 << 20
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_MAKER = object()


class Weights:
    """Sealed against change. :meth:`opened` and :meth:`of_file` make it.

    Attributes:
        size: in bytes.
        digest: of the manifest that they were opened by; empty where they were not.
        locked: whether they can never be written to swap (``RLIMIT_MEMLOCK``).
    """

    def __init__(self, maker: object, descriptor: int, size: int, digest: str = "") -> None:
        if maker is not _MAKER:
            raise TypeError("weights are made by Weights.opened() or Weights.of_file()")
        self._descriptor, self.size, self.digest = descriptor, size, digest
        self._mapping = _locked(descriptor, size)
        self.locked = self._mapping is not None

    @property
    def descriptor(self) -> int:
        if self._descriptor < 0:
            raise ValueError("the weights were let go of")
        return self._descriptor

    @classmethod
    def opened(
        cls,
        source: RangeSource,
        manifest: Manifest,
        key: AssetKey,
        *,
        threads: int = 2,
        progress: Callable[[int], None] | None = None,
    ) -> Self:
        """Open a sealed file into memory, every chunk and the content as a whole checked.

        Args:
            source: the sealed file. Untrusted.
            manifest: its manifest, from somebody trusted for it.
            key: the asset's key.
            threads: that work on it.
            progress: called with the bytes done.

        Raises:
            AssetError: its leaves, as of ``asset.open_whole``.
            OSError: from the source, or no memory.
        """

        size = manifest.plaintext_bytes

        def fill(descriptor: int) -> None:
            def write_at(offset: int, data: memoryview) -> None:
                _write(descriptor, offset, data)

            open_whole(source, manifest, key, write_at, threads=threads, paths=False, progress=progress)

        return cls(_MAKER, _made(size, fill), size, manifest.digest)

    @classmethod
    def parted(
        cls,
        source: RangeSource,
        manifest: Manifest,
        key: AssetKey,
        places: Sequence[tuple[int, int]],
        *,
        threads: int = 2,
        progress: Callable[[int], None] | None = None,
    ) -> list[Self]:
        """Open a sealed file as :meth:`opened` does, with each of some ranges of it in a memory file of its own.

        Args:
            source, manifest, key, threads, progress: as of :meth:`opened`.
            places: offset and length in bytes of each, ascending; none lies within another. What is in none is dropped.

        Raises:
            AssetError, OSError: as :meth:`opened`.
        """
        descriptors: list[int] = []
        try:
            for _, size in places:
                descriptors.append(_empty(size))

            def write_at(offset: int, data: memoryview) -> None:
                for (begin, size), descriptor in zip(places, descriptors, strict=True):
                    first, end = max(begin, offset), min(begin + size, offset + len(data))
                    if first < end:
                        _write(descriptor, first - begin, data[first - offset : end - offset])

            open_whole(source, manifest, key, write_at, threads=threads, paths=False, progress=progress)
            for descriptor in descriptors:
                fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
        except BaseException:
            for descriptor in descriptors:
                os.close(descriptor)
            raise
        sizes = [size for _, size in places]
        return [cls(_MAKER, fd, size, manifest.digest) for fd, size in zip(descriptors, sizes, strict=True)]

    @classmethod
    def of_file(cls, path: str | os.PathLike[str]) -> Self:
        """Read a plain file into memory. Raises OSError."""
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - a path of any kind
            size = os.fstat(file.fileno()).st_size

            def fill(descriptor: int) -> None:
                buffer, done = memoryview(bytearray(_PIECE_BYTES)), 0
                while got := file.readinto(buffer):
                    _write(descriptor, done, buffer[:got])
                    done += got
                if done != size:
                    raise OSError("the file changed while it was read")

            return cls(_MAKER, _made(size, fill), size)

    def close(self) -> None:
        """Let go of the memory, once no child maps it any more. Can be called again."""
        if self._mapping is not None:
            _libc.munmap(self._mapping, self.size)
            self._mapping, self.locked = None, False
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64)
_libc.mlock.argtypes = _libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


def _locked(descriptor: int, size: int) -> int | None:
    """Map a memory file and lock what is mapped: its pages, whoever else maps them, stay in memory. Where it is mapped, or
    ``None``: nothing is there, or so much may not be locked. (``mmap`` of the standard library does not tell the address
    of what cannot be written to.)"""
    if not size:
        return None
    found: int | None = _libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_PRIVATE, descriptor, 0)
    if found is None or found == ctypes.c_void_p(-1).value:
        return None
    if _libc.mlock(found, size):
        _libc.munmap(found, size)
        return None
    return found


def _write(descriptor: int, offset: int, data: memoryview) -> None:
    while data:
        done = os.pwrite(descriptor, data, offset)
        offset, data = offset + done, data[done:]


def _empty(size: int) -> int:
    """A memory file of this size, with nothing in it."""
    descriptor = os.memfd_create("weights", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, size)
        enlarge(descriptor, size)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _made(size: int, fill: Callable[[int], None]) -> int:
    """A memory file of this size, filled and sealed."""
    descriptor = _empty(size)
    try:
        # Written and not mapped: the kernel makes pages faster than a fault for each of them would.
        fill(descriptor)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
