"""The system calls that no namespace confines, refused by a seccomp filter.

A network namespace has no interfaces, but it does not hold sockets of every family: a virtual machine's AF_VSOCK leads
straight to its host. So a child gets sockets of the family AF_UNIX alone. ``io_uring`` would make sockets past any filter;
keyrings and the kernel's log are those of the whole machine. Files without a name, shared segments and message queues are
memory that is in no process, where no limit on processes finds it. Whatever calls in another machine's convention is killed.

This is a short list of what would break a promise that is made now. A list of the calls that are needed, and nothing else,
is a later step. Source: seccomp(2), bpf in linux/filter.h, vsock(7), io_uring_setup(2),
memfd_create(2), sysvipc(7), mq_overview(7).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from strongroom.errors import NoSandbox

AF_UNIX: Final = 1
ENOSYS, EAFNOSUPPORT = 38, 97
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000

_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16  # struct seccomp_data, little-endian
_X32_BIT = 0x40000000
_EVERYWHERE = (425, 426, 427, 447)  # io_uring_setup, io_uring_enter, io_uring_register, memfd_secret


@dataclass(frozen=True, slots=True)
class Machine:
    """The numbers of one machine's calls.

    Attributes:
        architecture: its AUDIT_ARCH.
        sockets: socket, socketpair.
        others: add_key, request_key, keyctl, syslog; memfd_create, shmget, msgget, mq_open.
    """

    architecture: int
    sockets: tuple[int, int]
    others: tuple[int, ...]


MACHINES: Final[Mapping[str, Machine]] = {
    "aarch64": Machine(0xC00000B7, (198, 199), (217, 218, 219, 116, 279, 194, 186, 180)),
    "riscv64": Machine(0xC00000F3, (198, 199), (217, 218, 219, 116, 279, 194, 186, 180)),
    "x86_64": Machine(0xC000003E, (41, 53), (248, 249, 250, 103, 319, 29, 68, 240)),
}


def _instruction(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    """One ``struct sock_filter``: a jump passes over ``yes`` or ``no`` instructions."""
    return struct.pack("<HBBI", code, yes, no, value)


def program(name: str) -> bytes:
    """The filter, as the kernel takes it.

    Args:
        name: the machine, as ``uname`` says.

    Raises:
        NoSandbox: a machine whose calls are not known here.
    """
    if name not in MACHINES:
        raise NoSandbox(f"no filter of system calls is written for the machine {name[:32]!r}")
    machine = MACHINES[name]
    refused = (*_EVERYWHERE, *machine.others)
    head = [
        _instruction(_LOAD, _ARCHITECTURE_AT),
        _instruction(_EQUAL, machine.architecture, yes=1),
        _instruction(_RETURN, KILL),
        _instruction(_LOAD, _NUMBER_AT),
        _instruction(_AT_LEAST, _X32_BIT, no=1),
        _instruction(_RETURN, ERRNO | ENOSYS),
    ]
    # A line that matches jumps over the lines that are left, and to the end that is its own: the second, or the third.
    wanted = [*((number, 1) for number in refused), *((number, 2) for number in machine.sockets)]
    lines = [_instruction(_EQUAL, number, yes=len(wanted) - n - 1 + end) for n, (number, end) in enumerate(wanted)]
    ends = [
        _instruction(_RETURN, ALLOW),
        _instruction(_RETURN, ERRNO | ENOSYS),
        _instruction(_LOAD, _FIRST_ARGUMENT_AT),
        _instruction(_EQUAL, AF_UNIX, no=1),
        _instruction(_RETURN, ALLOW),
        _instruction(_RETURN, ERRNO | EAFNOSUPPORT),
    ]
    return b"".join([*head, *lines, *ends])
