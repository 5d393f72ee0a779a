"""The system calls that a child may make, and no others, as seccomp filters.

The list holds what an interpreter with numeric libraries needs: files, memory, threads, processes of its own, and the
channel that it inherits. What is not on it does not exist for the child: the answer is ENOSYS, as of an older kernel, so
that libraries that merely try a call fall back. What is on it and could do harm with some argument is answered by that
argument.
Whatever calls in another machine's convention can only be an attack, and is killed.

There are two filters, one upon the other. The first stands when the interpreter is started, and so allows ``execve`` and
what the child's own walls are made by; the second (``last``) is put up by the child before it executes anything of the
program's, and takes these away. Source: seccomp(2), bpf in linux/filter.h, and the pages of the calls.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

from strongroom.errors import NoSandbox

AF_UNIX: Final = 1
EPERM, EINVAL, ENOTTY, ENOSYS, EAFNOSUPPORT = 1, 22, 25, 38, 97
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16  # struct seccomp_data, little-endian
_X32_BIT = 0x40000000

MACHINES: Final[Mapping[str, int]] = {"aarch64": 0xC00000B7, "riscv64": 0xC00000F3, "x86_64": 0xC000003E}
"""AUDIT_ARCH by machine. All but x86_64 number their calls alike."""

# Numbers: on x86_64, and everywhere else.
# fmt: off
ALLOWED: Final[Mapping[str, tuple[int, int | None]]] = {
    # files
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67), "pwrite64": (18, 68),
    "preadv": (295, 69), "pwritev": (296, 70), "lseek": (8, 62),
    "open": (2, None), "creat": (85, None), "openat": (257, 56), "close": (3, 57), "close_range": (436, 436),
    "stat": (4, None), "fstat": (5, 80), "lstat": (6, None), "newfstatat": (262, 79), "statx": (332, 291),
    "access": (21, None), "faccessat": (269, 48), "faccessat2": (439, 439), "getdents": (78, None), "getdents64": (217, 61),
    "getcwd": (79, 17), "chdir": (80, 49), "fchdir": (81, 50), "rename": (82, None), "renameat": (264, 38),
    "renameat2": (316, 276), "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None), "unlink": (87, None),
    "unlinkat": (263, 35), "link": (86, None), "linkat": (265, 37), "symlink": (88, None), "symlinkat": (266, 36),
    "readlink": (89, None), "readlinkat": (267, 78), "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53),
    "utime": (132, None), "utimes": (235, None), "utimensat": (280, 88), "futimesat": (261, None), "truncate": (76, 45),
    "ftruncate": (77, 46), "fallocate": (285, 47), "fsync": (74, 82), "fdatasync": (75, 83),
    "umask": (95, 166), "copy_file_range": (326, 285), "sendfile": (40, 71), "statfs": (137, 43),
    "fstatfs": (138, 44), "dup": (32, 23), "dup2": (33, None),
    "dup3": (292, 24), "pipe": (22, None), "pipe2": (293, 59), "getxattr": (191, 8), "lgetxattr": (192, 9),
    "fgetxattr": (193, 10), "listxattr": (194, 11), "llistxattr": (195, 12), "flistxattr": (196, 13),
    # waiting and time
    "poll": (7, None), "ppoll": (271, 73), "select": (23, None), "pselect6": (270, 72), "epoll_create": (213, None),
    "epoll_create1": (291, 20), "epoll_ctl": (233, 21), "epoll_wait": (232, None), "epoll_pwait": (281, 22),
    "epoll_pwait2": (441, 441), "eventfd": (284, None), "eventfd2": (290, 19), "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115), "clock_gettime": (228, 113), "clock_getres": (229, 114), "gettimeofday": (96, 169),
    "time": (201, None), "times": (100, 153), "pause": (34, None), "restart_syscall": (219, 128), "alarm": (37, None),
    "getitimer": (36, 102), "setitimer": (38, 103),
    # memory
    "mmap": (9, 222), "munmap": (11, 215), "mremap": (25, 216), "mprotect": (10, 226),
    "brk": (12, 214), "msync": (26, 227), "membarrier": (324, 283),
    # threads and signals
    "futex": (202, 98), "set_robust_list": (273, 99), "get_robust_list": (274, 100), "set_tid_address": (218, 96),
    "rseq": (334, 293), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139),
    "rt_sigpending": (127, 136), "rt_sigsuspend": (130, 133), "rt_sigtimedwait": (128, 137), "sigaltstack": (131, 132),
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123), "sched_setaffinity": (203, 122), "sched_getparam": (143, 121),
    "sched_getscheduler": (145, 120), "sched_get_priority_max": (146, 125), "sched_get_priority_min": (147, 126),
    "getcpu": (309, 168), "arch_prctl": (158, None),
    # processes
    "fork": (57, None), "vfork": (58, None), "exit": (60, 93), "exit_group": (231, 94), "wait4": (61, 260),
    "waitid": (247, 95), "getpid": (39, 172), "getppid": (110, 173), "gettid": (186, 178), "getuid": (102, 174),
    "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177), "getresuid": (118, 148), "getresgid": (120, 150),
    "getgroups": (115, 158), "getpgid": (121, 155), "getpgrp": (111, None), "getsid": (124, 156), "setsid": (112, 157),
    "setpgid": (109, 154), "getpriority": (140, 141), "getrusage": (98, 165), "getrlimit": (97, 163), "uname": (63, 160),
    "sysinfo": (99, 179), "getrandom": (318, 278), "capget": (125, 90),
    # the channel
    "sendto": (44, 206), "recvfrom": (45, 207), "sendmsg": (46, 211), "recvmsg": (47, 212), "getsockname": (51, 204),
    "getpeername": (52, 205), "getsockopt": (55, 209), "shutdown": (48, 210),
}
STARTING: Final[Mapping[str, tuple[int, int | None]]] = {
    "execve": (59, 221), "setrlimit": (160, 164), "seccomp": (317, 277), "landlock_create_ruleset": (444, 444),
    "landlock_add_rule": (445, 445), "landlock_restrict_self": (446, 446),
}
"""What is needed until the child's own walls stand, and never after."""

SOCKETS: Final[Mapping[str, tuple[int, int | None]]] = {
    "accept": (43, 202), "accept4": (288, 242), "bind": (49, 200), "connect": (42, 203), "listen": (50, 201),
    "setsockopt": (54, 208),
}
"""For a program that has a server behind an AF_UNIX socket of its own; any other can make no socket but a connected pair."""
IDLE: Final[Mapping[str, tuple[int, int]]] = {"fadvise64": (221, 223), "flock": (73, 32), "readahead": (187, 213)}
"""What is answered with nought and does nothing. Locks and the memory that files are kept in belong to the file and not to
the sandbox: two that are shown the same library could write to each other by them. In its own ``/tmp`` a child is alone."""
# fmt: on


@dataclass(frozen=True, slots=True)
class Choice:
    """A call that is answered by one of its arguments.

    Attributes:
        numbers: of the call, on x86_64 and everywhere else.
        argument: which argument; its lower 32 bits are looked at, and that is all that the kernel looks at here.
        allowed: its values with which the call is allowed.
        starting: and until the child's own walls stand.
        idle: its values with which the answer is nought, and nothing is done (``IDLE``).
        error: the answer otherwise.
    """

    numbers: tuple[int, int]
    argument: int
    allowed: tuple[int, ...]
    error: int
    starting: tuple[int, ...] = ()
    idle: tuple[int, ...] = ()


# Values by their names in the kernel's headers.
CHOICES: Final[Mapping[str, Choice]] = {
    # F_DUPFD, GETFD, SETFD, GETFL, SETFL, DUPFD_CLOEXEC, GETPIPE_SZ, GET_SEALS: none that sends signals or makes pipes
    # larger; SETLK, SETLKW, OFD_SETLK and OFD_SETLKW lock nothing, and GETLK and OFD_GETLK are not there
    "fcntl": Choice((72, 25), 1, (0, 1, 2, 3, 4, 1030, 1032, 1034), EINVAL, idle=(6, 7, 37, 38)),
    "ioctl": Choice((16, 29), 1, (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451), ENOTTY),
    # TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX: none that types into a terminal
    #
    # PR_GET_PDEATHSIG, GET_DUMPABLE, SET_NAME, GET_NAME, GET_SECCOMP, CAPBSET_READ, GET_NO_NEW_PRIVS, SET_VMA; at first also
    # SET_PDEATHSIG, SET_DUMPABLE, SET_SECCOMP, SET_NO_NEW_PRIVS
    "prctl": Choice((157, 167), 0, (2, 3, 15, 16, 21, 23, 39, 0x53564D41), EPERM, starting=(1, 4, 22, 38)),
    "socket": Choice((41, 198), 0, (), EAFNOSUPPORT),
    # NORMAL, RANDOM, SEQUENTIAL, WILLNEED, DONTNEED, FREE, DONTFORK, DOFORK, HUGEPAGE, NOHUGEPAGE, DONTDUMP, DODUMP,
    # WIPEONFORK, KEEPONFORK: none that moves what others share out of memory, or joins pages that are alike
    "madvise": Choice((28, 233), 2, (0, 1, 2, 3, 4, 8, 10, 11, 14, 15, 16, 17, 18, 19), EINVAL),
    "socketpair": Choice((53, 199), 0, (AF_UNIX,), EAFNOSUPPORT),
}
CLONE, PRLIMIT = (56, 220), (302, 261)
NEW_NAMESPACES: Final = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. (clone3, whose flags no filter can see, is answered with
ENOSYS, and the C library then uses clone.)"""


def _instruction(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    """One ``struct sock_filter``: a jump passes over ``yes`` or ``no`` instructions."""
    return struct.pack("<HBBI", code, yes, no, value)


def _when(number: int, body: Sequence[bytes]) -> list[bytes]:
    """What is done for one call. ``body`` ends with an answer, whichever way it goes."""
    return [_instruction(_EQUAL, number, no=len(body)), *body]


def _argument(index: int, *, upper: bool = False) -> bytes:
    return _instruction(_LOAD, _ARGUMENTS_AT + 8 * index + 4 * upper)


def _choice(choice: Choice, *, last: bool) -> list[bytes]:
    values = choice.allowed if last else (*choice.allowed, *choice.starting)
    idle = [line for value in choice.idle for line in _when(value, [_instruction(_RETURN, ERRNO)])]
    tests = [_instruction(_EQUAL, value, yes=len(values) - n) for n, value in enumerate(values)]
    refused = _instruction(_RETURN, ERRNO | choice.error)
    return [_argument(choice.argument), *idle, *tests, refused, *([_instruction(_RETURN, ALLOW)] if values else [])]


def _clone() -> list[bytes]:
    """Threads and processes; none in another namespace."""
    return [
        _argument(0),
        _instruction(_ANY_BIT, NEW_NAMESPACES, no=1),
        _instruction(_RETURN, ERRNO | EPERM),
        _instruction(_RETURN, ALLOW),
    ]


def _prlimit() -> list[bytes]:
    """Limits are read, and not set: the pointer to a new one is null in both its halves."""
    return [
        _argument(2),
        _instruction(_EQUAL, 0, no=2),
        _argument(2, upper=True),
        _instruction(_EQUAL, 0, yes=1),
        _instruction(_RETURN, ERRNO | EPERM),
        _instruction(_RETURN, ALLOW),
    ]


@cache
def program(name: str, *, last: bool = False, sockets: bool = False) -> bytes:
    """A filter, as the kernel takes it.

    Args:
        name: the machine, as ``uname`` says.
        last: the one that the child puts up itself, before it executes anything of the program's.
        sockets: whether it may have sockets of the family AF_UNIX.

    Raises:
        NoSandbox: a machine whose calls are not known here.
    """
    if name not in MACHINES:
        raise NoSandbox(f"no filter of system calls is written for the machine {name[:32]!r}")
    column = 0 if name == "x86_64" else 1
    calls = {**ALLOWED, **({} if last else STARTING), **(SOCKETS if sockets else {})}
    plain = [numbers[column] for numbers in calls.values()]
    lines = [
        _instruction(_LOAD, _ARCHITECTURE_AT),
        _instruction(_EQUAL, MACHINES[name], yes=1),
        _instruction(_RETURN, KILL),
        _instruction(_LOAD, _NUMBER_AT),
        _instruction(_AT_LEAST, _X32_BIT, no=1),
        _instruction(_RETURN, ERRNO | ENOSYS),
    ]
    allow = _instruction(_RETURN, ALLOW)
    for number in plain:
        if number is not None:
            lines += _when(number, [allow])
    for called, choice in CHOICES.items():
        with_sockets = replace(choice, allowed=(AF_UNIX,)) if sockets and called == "socket" else choice
        lines += _when(choice.numbers[column], _choice(with_sockets, last=last))
    for numbers in IDLE.values():
        lines += _when(numbers[column], [_instruction(_RETURN, ERRNO)])
    lines += _when(CLONE[column], _clone())
    lines += _when(PRLIMIT[column], _prlimit() if last else [allow])
    return b"".join([*lines, _instruction(_RETURN, ERRNO | ENOSYS)])
