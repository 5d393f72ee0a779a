"""Landlock: what a child may do with files, sockets and signals, said a second time and by another part of the kernel.

The mounts leave nothing in sight that the child should not read; Landlock refuses it even if it were in sight. The rules are
worked out here, by the parent; the child puts them up itself, before it executes anything of the program's
(``programs/runner.py``), and can never take them down.

Where the kernel knows less of Landlock, less is refused; ``walls`` says what is. Source: landlock(7), linux/landlock.h.
"""

from __future__ import annotations

import ctypes
import struct
import sys
from functools import cache
from pathlib import Path
from typing import Final

from strongroom.wire import JSON

from .sandbox_view import DEVICES, View

CREATE_RULESET: Final = 444  # landlock_create_ruleset, the same number everywhere
_VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION

WRITE_FILE, READ_FILE, READ_DIR = 1 << 1, 1 << 2, 1 << 3
REMOVE_DIR, REMOVE_FILE, MAKE_DIR, MAKE_REG, MAKE_SOCK, MAKE_SYM = 1 << 4, 1 << 5, 1 << 7, 1 << 8, 1 << 9, 1 << 12
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_FILES: Final = {1: (1 << 13) - 1, 2: REFER, 3: TRUNCATE, 5: IOCTL_DEV}
"""What of files can be refused from which version on: of the first, everything from executing to making links."""
_SCRATCH = WRITE_FILE | READ_FILE | READ_DIR | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | MAKE_SYM | REFER | TRUNCATE
_TCP: Final = 0b11  # BIND_TCP, CONNECT_TCP
_SCOPES: Final = 0b11  # ABSTRACT_UNIX_SOCKET, SIGNAL
_COMPLETE, _NETWORK, _SCOPED = 3, 4, 6  # versions

FILES_WALL, NETWORK_WALL, SCOPE_WALL = "landlock", "landlock-network", "landlock-scope"


@cache
def version() -> int:
    """The version of Landlock that this kernel enforces; 0 where it does not, or is no Linux."""
    if not sys.platform.startswith("linux"):
        return 0
    found: int = ctypes.CDLL(None).syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(_VERSION))
    return max(0, found)


def walls(known: int) -> tuple[str, ...]:
    """What stands with this version of Landlock. Before version 3 a file could be cut short that cannot be written: the
    rules are put up all the same, and not called a wall."""
    named = ((_COMPLETE, FILES_WALL), (_NETWORK, NETWORK_WALL), (_SCOPED, SCOPE_WALL))
    return tuple(name for since, name in named if known >= since)


def rules(view: View, known: int, *, sockets: bool = False) -> dict[str, JSON] | None:
    """What a child is told to put up.

    Args:
        view: what it sees.
        known: the version of Landlock.
        sockets: whether it may have sockets in its /tmp.

    Returns:
        ``{"attributes": hex of struct landlock_ruleset_attr, "rules": [[path, access], …]}``, or ``None`` without Landlock.
    """
    if known < 1:
        return None
    handled = sum(bits for since, bits in _FILES.items() if known >= since)
    attributes = struct.pack("=Q", handled)
    attributes += struct.pack("=Q", _TCP) if known >= _NETWORK else b""
    attributes += struct.pack("=Q", _SCOPES) if known >= _SCOPED else b""
    found: list[JSON] = [[path, READ_FILE | READ_DIR if Path(path).is_dir() else READ_FILE] for path in view.read_only]
    found += [[path, READ_FILE | WRITE_FILE] for path in DEVICES]
    scratch = (_SCRATCH | (MAKE_SOCK if sockets else 0)) & handled
    found += [["/proc", READ_FILE | READ_DIR], ["/tmp", scratch]]  # noqa: S108 - the child's own
    return {"attributes": attributes.hex(), "rules": found}
