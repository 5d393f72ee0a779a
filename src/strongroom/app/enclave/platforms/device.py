"""Asking a device file with one ``ioctl``: what AMD's and Amazon's older ways to evidence have in common."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from strongroom.errors import PlatformFailed

TRIES = 8
PAUSE_S = 0.25

# A descriptor, the request's number, and the structure that is read and written; the kernel's number of an error is raised.
Ioctl: TypeAlias = Callable[[int, int, ctypes.Structure], object]
_AGAIN = frozenset({errno.EBUSY, errno.EAGAIN, errno.EINTR})


def number(kind: int, index: int, size: int) -> int:
    """The number of a request that is read and written (Linux, ``include/uapi/asm-generic/ioctl.h``, ``_IOWR``)."""
    return 3 << 30 | size << 16 | kind << 8 | index


def ioctl(descriptor: int, request: int, message: ctypes.Structure) -> object:
    """The kernel's."""
    return fcntl.ioctl(descriptor, request, message)


def ask(
    path: Path, request: int, make: Callable[[], ctypes.Structure], call: Ioctl, pause: Callable[[float], None]
) -> ctypes.Structure:
    """Ask once, and again while the device is busy with another's question.

    Args:
        path: the device file.
        request: the request's number.
        make: a fresh message for each try; the kernel may have written into the last one.
        call: how to ask.
        pause: waits for seconds.

    Returns:
        the message, as the kernel left it.

    Raises:
        PlatformFailed: the device cannot be opened, or refuses.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise PlatformFailed(f"{path} cannot be opened: {error.strerror}") from error
    try:
        left = TRIES
        while True:
            message = make()
            try:
                call(descriptor, request, message)
            except OSError as error:
                left -= 1
                if error.errno not in _AGAIN or not left:
                    raise PlatformFailed(f"{path} gives no evidence: {error.strerror}") from error
                pause(PAUSE_S)
            else:
                return message
    finally:
        os.close(descriptor)
