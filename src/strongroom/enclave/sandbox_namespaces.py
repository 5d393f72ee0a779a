"""The sandbox by Linux namespaces alone, where bubblewrap is not installed: the same policy by system calls.

The parent passes this file's text as ``python -c``: it runs as a process of its own, single-threaded, makes the namespaces
and the child's root, and stays as the child's parent until that ends. It imports nothing of Strongroom. Needs Linux 5.12 and
unprivileged user namespaces. Source: user_namespaces(7), pid_namespaces(7), mount_setattr(2), pivot_root(2).
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

NEW_MOUNTS, NEW_CGROUP, NEW_UTS, NEW_IPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
NEW_USER, NEW_PID, NEW_NET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_SLAVE = 1, 2, 4, 8, 4096, 16384, 1 << 19
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV = 1, 2, 4
MNT_DETACH, AT_FDCWD, AT_RECURSIVE = 2, -100, 0x8000
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 1, 22, 24, 38, 47
PR_CAP_AMBIENT_CLEAR_ALL, SECCOMP_MODE_FILTER = 4, 2
CAPABILITY_VERSION_3 = 0x20080522
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41}
SYS_MOUNT_SETATTR = 442  # the same everywhere

_libc = ctypes.CDLL(None, use_errno=True)


def _must(result: int, what: str) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    words = (source.encode(), target.encode(), kind.encode() or None)
    _must(_libc.mount(*words, ctypes.c_ulong(flags), options.encode() or None), f"mount {target}")


def _pivot(root: str, old: str) -> None:
    _must(_libc.syscall(SYS_PIVOT_ROOT[os.uname().machine], root.encode(), old.encode()), "pivot_root")


def _harden(target: str, attributes: int, flags: int = 0) -> None:
    attr = struct.pack("=QQQQ", attributes, 0, 0, 0)
    _must(_libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, target.encode(), flags, attr, len(attr)), f"mount_setattr {target}")


def _prctl(*words: int) -> int:
    found: int = _libc.prctl(*(ctypes.c_ulong(word) for word in (*words, *([0] * (5 - len(words))))))
    return found


def _die_with(parent: int) -> None:
    _must(_prctl(PR_SET_PDEATHSIG, signal.SIGKILL), "prctl")
    if os.getppid() != parent:
        raise SystemExit(1)


def _unshare(nobody: int) -> None:
    """New namespaces of every kind, in which this user is ``nobody``, with every capability until the child starts."""
    uid, gid = os.geteuid(), os.getegid()
    flags = NEW_USER | NEW_MOUNTS | NEW_PID | NEW_NET | NEW_IPC | NEW_UTS | NEW_CGROUP
    _must(_libc.unshare(flags), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{nobody} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{nobody} {gid} 1")


def _show(path: str, attributes: int) -> None:
    """Show what lies at /old/path at /new/path."""
    target = Path("/new" + path)
    if Path("/old" + path).is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    _mount("/old" + path, str(target), "", MS_BIND | MS_REC)
    _harden(str(target), attributes, AT_RECURSIVE)


def _root(config: dict[str, Any]) -> None:
    """The child's root at /new, what is outside at /old."""
    _mount("none", "/", "", MS_REC | MS_SLAVE)
    _mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=1m")  # noqa: S108 - a place that always exists
    for name in ("new", "old"):
        Path("/tmp", name).mkdir()  # noqa: S108 - in the tmpfs just mounted
    _pivot("/tmp", "/tmp/old")  # noqa: S108 - so that what lies in the real /tmp can still be shown
    os.chdir("/")
    _mount("tmpfs", "/new", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=1m")
    for name in ("tmp", "proc"):
        Path("/new", name).mkdir()
    _mount("tmpfs", "/new/tmp", "tmpfs", MS_NOSUID | MS_NODEV, f"mode=0755,size={config['scratch_bytes']}")
    for path in config["read_only"]:
        _show(path, ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV)
    for path in config["devices"]:
        _show(path, ATTR_RDONLY | ATTR_NOSUID)
    for target, place in config["links"]:
        Path("/new" + place).symlink_to(target)


def _hide(place: str) -> None:
    if Path(place).is_dir():
        _mount("tmpfs", place, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0555,size=4k")
    else:
        _mount("/old/dev/null", place, "", MS_BIND)
        _harden(place, ATTR_RDONLY | ATTR_NOSUID)


def _enter(hidden: list[str]) -> None:
    """From inside the new process namespace: its /proc, then the new root for good."""
    _mount("proc", "/new/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for place in hidden:
        _hide("/new" + place)
    # Who is root outside could write the whole machine's settings here, without any capability.
    _harden("/new/proc", ATTR_RDONLY)
    _harden("/new", ATTR_RDONLY)
    os.chdir("/new")
    _pivot(".", ".")
    _must(_libc.umount2(b".", MNT_DETACH), "umount")
    os.chdir("/")


def _drop(calls: bytes) -> None:
    """No capability, now or by any later program, and none of the system calls that the filter refuses."""
    for capability in range(64):
        _prctl(PR_CAPBSET_DROP, capability)  # those that this kernel does not know are not there to drop
    _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    _must(_prctl(PR_SET_NO_NEW_PRIVS, 1), "no_new_privs")
    _must(_libc.capset(struct.pack("=Ii", CAPABILITY_VERSION_3, 0), bytes(24)), "capset")
    if not calls:
        return
    lines = ctypes.create_string_buffer(calls, len(calls))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(calls) // 8, ctypes.addressof(lines)))
    _must(_prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(program)), "seccomp")


def _child(config: dict[str, Any], lifeline: int) -> NoReturn:
    """The first process of the new process namespace becomes the command.

    Args:
        config: as ``main`` takes it.
        lifeline: the reading end of a pipe that the parent holds open.
    """
    _enter(config["hidden"])
    name = config["hostname"].encode()
    _must(_libc.sethostname(name, len(name)), "sethostname")
    os.close(config["info"])
    os.setsid()
    _drop(bytes.fromhex(config["calls"]))
    _must(_prctl(PR_SET_PDEATHSIG, signal.SIGKILL), "prctl")
    with suppress(
        BlockingIOError
    ):  # nothing to read: the parent lives; an end of file: it died before it could matter to us
        os.read(lifeline, 1)
        raise SystemExit(1)
    os.execve(config["command"][0], config["command"], {})  # noqa: S606 - there is no shell to start it with


def main(config: dict[str, Any]) -> NoReturn:
    """Make the sandbox, run the command in it, end with its status.

    Args:
        config: ``parent`` (process id), ``info`` (descriptor to tell the child's process id on), ``command``, ``read_only``,
            ``devices``, ``links``, ``scratch_bytes``, ``hostname``, ``nobody``, ``calls`` (the filter of system calls, in
            hex; empty for none), ``hidden`` (places of /proc where nothing is to be read).
    """
    _die_with(config["parent"])
    _unshare(config["nobody"])
    # Further user namespaces would hand out capabilities over new namespaces: there can be none.
    Path("/proc/sys/user/max_user_namespaces").write_text("0")
    _root(config)
    lifeline, held = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    child = os.fork()
    if child == 0:
        os.close(held)
        _child(config, lifeline)
    os.write(config["info"], json.dumps({"child-pid": child}).encode())
    os.close(config["info"])
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os._exit(status if status >= 0 else 128 - status)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
