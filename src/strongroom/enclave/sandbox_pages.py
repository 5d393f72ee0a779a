"""Memory files in large pages. A model reads all of its weights for each token, and where they lie in pages of 4 KiB all
over the memory, a tenth of its time goes into finding them.

The kernel is asked, and may say no: then pages are small, and everything else is the same. Source: madvise(2),
``MADV_COLLAPSE``, which since Linux 6.1 makes large pages of memory files too, whatever ``shmem_enabled`` says but ``deny``.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from contextlib import suppress
from typing import Final

LARGE: Final = 2 << 20  # bytes
_COLLAPSE: Final = 25
_FIXED: Final = 0x10
_NONE: Final = 0  # PROT_NONE


def enlarge(descriptor: int, size: int) -> bool:
    """Have the kernel lay out an empty memory file in large pages, as far as whole ones fit into it.

    Args:
        descriptor: of a memory file of this size that nothing was written to.
        size: in bytes.

    Returns:
        whether it did. What was done of it stays done in any case.
    """
    whole = size - size % LARGE
    if not whole or sys.platform != "linux" or mmap.PAGESIZE != 4096:
        return False
    with suppress(OSError):
        for start in range(0, whole, LARGE):  # an extent without any page is passed over
            os.pwrite(descriptor, b"\0", start)
        return _collapsed(descriptor, whole)
    return False


def _collapsed(descriptor: int, size: int) -> bool:
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    failed = ctypes.c_void_p(-1).value
    space: int | None = libc.mmap(None, size + LARGE, _NONE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    if space is None or space == failed:
        return False
    try:
        start = space + -space % LARGE  # a large page lies at a multiple of its size
        access = mmap.PROT_READ | mmap.PROT_WRITE
        if libc.mmap(start, size, access, mmap.MAP_SHARED | _FIXED, descriptor, 0) == failed:
            return False
        return bool(libc.madvise(start, size, _COLLAPSE) == 0)
    finally:
        libc.munmap(space, size + LARGE)
