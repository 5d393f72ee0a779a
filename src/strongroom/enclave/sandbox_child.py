"""A confined child process: starting it, watching its memory, and ending it for sure."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Final

from strongroom.errors import NoSandbox
from strongroom.wire import JSON

from . import sandbox_bubblewrap, sandbox_cgroup, sandbox_filter, sandbox_landlock
from .sandbox_cgroup import Cgroup
from .sandbox_view import DEVICES, HOSTNAME, NOBODY, SCRATCH_BYTES, View, view

BUBBLEWRAP, NAMESPACES, PROCESS = "bubblewrap", "namespaces", "process"
ISOLATED: Final = "isolated"
KINDS: Final = (BUBBLEWRAP, NAMESPACES, PROCESS)

NAMESPACES_WALL, SECCOMP_WALL = "namespaces", "seccomp"
WALLS: Final = (
    *sorted(sandbox_cgroup.WALLS.values()),
    sandbox_landlock.FILES_WALL,
    sandbox_landlock.NETWORK_WALL,
    sandbox_landlock.SCOPE_WALL,
    NAMESPACES_WALL,
    SECCOMP_WALL,
)
"""Everything that can stand between a program and its surroundings, sorted. Which do is found out for each child."""

HIDDEN: Final = (
    "buddyinfo", "cmdline", "config.gz", "diskstats", "interrupts", "kallsyms", "key-users", "keys", "loadavg", "locks",
    "modules", "pagetypeinfo", "partitions", "pressure", "schedstat", "slabinfo", "softirqs", "swaps", "timer_list",
    "uptime", "version", "vmallocinfo", "vmstat", "zoneinfo",
)  # fmt: skip
"""What of /proc is empty inside: it tells of the machine and of what else runs there, and no library needs it."""

unsafe_without: frozenset[str] = frozenset()
"""**For tests alone**: walls that are not built, to prove that an attack fails because of them. None of them is told."""

MAX_PROCESSES: Final = 64
_KERNEL_BYTES = 16 << 20  # page tables, stacks, buffers: what a child of any size takes beside its own memory
_KILLED_FIRST = 500  # beyond the enclave's own, which is nought on most machines; the most is 1000
_PROBE_SECONDS = 20
_KILL_SECONDS = 10

# A child asks the kernel to be killed when its parent dies, and the kernel takes for its parent the *thread* that started
# it. So all are started by one thread, which lives as long as this process.
_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="strongroom-sandbox")


def source(module: str) -> str:
    """The text of one of this package's files that a child gets as its command."""
    return resources.files("strongroom").joinpath(module).read_bytes().decode("utf-8")


def readable(descriptor: int, seconds: float) -> bool:
    """Whether something can be read (or the end is reached) within this time. Unlike ``select`` it takes any descriptor."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(int(seconds * 1000)))


def proc_masks() -> tuple[str, ...]:
    """The places of ``HIDDEN`` that this kernel has."""
    return tuple(place for place in (f"/proc/{name}" for name in HIDDEN) if Path(place).exists())


@dataclass(frozen=True, slots=True)
class Walls:
    """What is built around one child, control groups aside.

    Attributes:
        calls: the filter of system calls that it is started with; empty for none.
        told: what it is told to put up itself (``programs/runner.py``).
        names: how these walls are called.
    """

    calls: bytes
    told: dict[str, JSON]
    names: tuple[str, ...]


def walls(kind: str, seen: View, *, sockets: bool = False) -> Walls:
    """The walls for a child of this kind. In ``process`` there are none.

    Args:
        kind: of the sandbox.
        seen: what the child sees.
        sockets: whether it may have AF_UNIX sockets: an engine has its server behind one, in the child's own /tmp.

    Raises:
        NoSandbox: a machine whose calls are not known here.
    """
    if kind == PROCESS:
        return Walls(b"", {"calls": "", "landlock": None}, ())
    first = last = b""
    if SECCOMP_WALL not in unsafe_without:
        first, last = (sandbox_filter.program(os.uname().machine, last=one, sockets=sockets) for one in (False, True))
    known = 0 if sandbox_landlock.FILES_WALL in unsafe_without else sandbox_landlock.version()
    names = (*sandbox_landlock.walls(known), NAMESPACES_WALL, *([SECCOMP_WALL] if last else []))
    return Walls(first, {"calls": last.hex(), "landlock": sandbox_landlock.rules(seen, known, sockets=sockets)}, names)


def _command(kind: str, seen: View, info: int, inner: list[str], calls: bytes) -> tuple[list[str], list[int]]:
    """The command that confines ``inner``, and the descriptors that it needs beside those it is given."""
    if kind == PROCESS:
        return inner, []
    if kind == BUBBLEWRAP:
        if not calls:
            return sandbox_bubblewrap.command(seen, info, -1, inner, proc_masks()), [info]
        heard, told = os.pipe()
        os.write(told, calls)  # far less than a pipe holds
        os.close(told)
        return sandbox_bubblewrap.command(seen, info, heard, inner, proc_masks()), [info, heard]
    config = {
        "calls": calls.hex(),
        "command": inner,
        "devices": DEVICES,
        "hostname": HOSTNAME,
        "info": info,
        "hidden": proc_masks(),
        "links": seen.links,
        "nobody": NOBODY,
        "parent": os.getpid(),
        "read_only": seen.read_only,
        "scratch_bytes": SCRATCH_BYTES,
    }
    launcher = source("enclave/sandbox_namespaces.py")
    return [seen.python, "-I", "-S", "-B", "-X", "utf8=1", "-c", launcher, json.dumps(config)], [info]


def _start(
    kind: str, seen: View, inner: list[str], info: int, *, calls: bytes, keep: Iterable[int], says: int
) -> subprocess.Popen[bytes]:
    """Start ``inner``, confined, with an empty environment. Raises NoSandbox."""
    command, needs = _command(kind, seen, info, inner, calls)
    try:
        return _starter.submit(
            subprocess.Popen,
            command,
            stdin=subprocess.DEVNULL,
            stdout=says,
            stderr=says,
            env={},
            cwd="/",
            pass_fds=(*keep, *needs),
            start_new_session=True,
        ).result()
    except OSError as error:
        raise NoSandbox(f"{kind}: {error.strerror}") from error
    finally:
        for descriptor in needs:
            if descriptor != info:
                os.close(descriptor)


class Child:
    """A confined process.

    Args:
        kind: ``bubblewrap``, ``namespaces`` or ``process``.
        seen: what it sees.
        inner: the command.
        keep: descriptors that it inherits.
        says: descriptor for its standard output and standard error.
        calls: the filter of system calls that it is started with.
        tasks: processes and threads that it may be.

    Attributes:
        pid: its process id, seen from here.
        walls: which control groups hold it, by their names among ``WALLS``.
        handle: a descriptor that can be read from once it has ended (pidfd_open(2)); -1 where the system has none, and after
            ``end``.

    Raises:
        NoSandbox: the sandbox could not be made.
    """

    def __init__(
        self,
        kind: str,
        seen: View,
        inner: list[str],
        *,
        keep: Iterable[int],
        says: int,
        calls: bytes,
        tasks: int = MAX_PROCESSES,
    ) -> None:
        heard, told = os.pipe()
        with closing(os.fdopen(heard, "rb")) as info:
            try:
                self._process = _start(kind, seen, inner, told, calls=calls, keep=keep, says=says)
            finally:
                os.close(told)
            self._alone = kind != PROCESS
            self.pid = self._process.pid if kind == PROCESS else self._told(kind, info.fileno())
        self.handle = -1
        if hasattr(os, "pidfd_open"):
            # The number may be given away once the process is gone; this name for it may not.
            with suppress(ProcessLookupError):
                self.handle = os.pidfd_open(self.pid)
        self._cgroup: Cgroup | None = None
        self._killed_by_kernel: bool | None = None
        self.walls: tuple[str, ...] = ()
        # It waits for its first frame, which nobody has sent yet: all that it will execute is executed in the group.
        self._join(tasks)

    def _join(self, tasks: int) -> None:
        with suppress(OSError):  # where the whole machine is short of memory, the enclave is not what is killed
            own = int(Path("/proc/self/oom_score_adj").read_text())
            Path(f"/proc/{self.pid}/oom_score_adj").write_text(str(min(own + _KILLED_FIRST, 1000)))
        found = None if set(sandbox_cgroup.WALLS.values()) <= unsafe_without else sandbox_cgroup.make(tasks)
        if found is None:
            return
        try:
            found.join(self.pid)
        except OSError:  # it ended before it began, or a group that may be made and not entered
            found.end()
            return
        self._cgroup, self.walls = found, found.walls

    def _told(self, kind: str, info: int) -> int:
        """The process id, seen from here, of the first process inside."""
        data = b""
        while readable(info, _PROBE_SECONDS):
            piece = os.read(info, 4096)
            data += piece
            if not piece or data.rstrip().endswith(b"}"):
                break
        try:
            return int(json.loads(data)["child-pid"])
        except (ValueError, KeyError, TypeError) as error:
            self._process.kill()
            self._process.wait()
            raise NoSandbox(f"{kind} could not make a sandbox on this machine") from error

    def ends_within(self, seconds: float) -> bool:
        """Whether the child ends by itself within this time."""
        if self.handle >= 0:
            return readable(self.handle, seconds)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
            return True
        return False

    def end(self) -> int:
        """Kill it and everything that it started, and wait until all of it is gone. Can be called again.

        Returns:
            the number of the signal that it died of, or 0.
        """
        if self.handle >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.handle, signal.SIGKILL)
            # The first process of a process namespace is gone only when every other one in it is.
            readable(self.handle, _KILL_SECONDS)
            os.close(self.handle)
            self.handle = -1
        if not self._alone:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        try:
            status = self._process.wait(_KILL_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        if self._cgroup:
            self._killed_by_kernel = self._cgroup.starved()
            self._cgroup.end()
            self._cgroup = None
        return -status if status < 0 else max(0, status - 128)

    def starved(self) -> bool | None:
        """Whether the kernel killed it, or anything that it started, for want of memory; ``None`` where nobody can tell."""
        return self._cgroup.starved() if self._cgroup else self._killed_by_kernel

    def limit_memory(self, size: int) -> None:
        """From now on the kernel gives it and what it started so many bytes beside what they hold now: memory of every kind,
        its files in /tmp and the kernel's own for it included. Where it has no control group, nothing happens.

        Raises:
            NoSandbox: it has one, and the kernel does not take the limit.
        """
        if self._cgroup:
            try:
                self._cgroup.limit_memory(size + SCRATCH_BYTES + _KERNEL_BYTES, more=True)
            except OSError as error:
                raise NoSandbox(f"the control group: {error.strerror}") from error

    def address_space(self) -> int:
        """Bytes of address space in use, or 0 where the system does not tell."""
        with suppress(OSError):
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[0]) * resource.getpagesize()
        return 0

    def limit_address_space(self, size: int) -> None:
        """From now on the child's address space cannot grow beyond ``size`` bytes, where the system can do that from
        outside."""
        if hasattr(resource, "prlimit") and size:
            with suppress(ProcessLookupError):
                resource.prlimit(self.pid, resource.RLIMIT_AS, (size, size))

    def memory(self) -> tuple[int, int]:
        """Bytes of memory of its own that the child and everything it started hold, and how many processes they are."""
        total, found, todo = 0, 0, [self.pid]
        while todo and found <= MAX_PROCESSES:
            pid = todo.pop()
            found += 1
            with suppress(OSError):
                total += _own_memory(pid)
                for children in Path(f"/proc/{pid}/task").glob("*/children"):
                    todo.extend(int(word) for word in children.read_text().split())
        return total, found


def _own_memory(pid: int) -> int:
    """Bytes of anonymous, shared and swapped memory: what is not merely a mapped file."""
    total = 0
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in {"RssAnon", "RssShmem", "VmSwap"}:
            total += int(rest.split()[0]) << 10
    return total


@cache
def works(kind: str) -> bool:
    """Whether this kind of sandbox can be made here: tried once, by making one.

    Args:
        kind: ``bubblewrap`` or ``namespaces``.
    """
    if not sys.platform.startswith("linux") or (kind == BUBBLEWRAP and not sandbox_bubblewrap.find()):
        return False
    seen = view()
    heard, told = os.pipe()
    with Path(os.devnull).open("wb") as nowhere:
        try:
            inner, calls = [seen.python, "-I", "-S", "-B", "-c", ""], walls(kind, seen).calls
            tried = _start(kind, seen, inner, told, calls=calls, keep=(), says=nowhere.fileno())
            try:
                return tried.wait(_PROBE_SECONDS) == 0
            finally:
                tried.kill()
                tried.wait()
        except (NoSandbox, subprocess.TimeoutExpired):
            return False
        finally:
            os.close(heard)
            os.close(told)


def require(asked: Collection[str], walls: Collection[str]) -> None:
    """Let nothing run where a wall is missing.

    Args:
        asked: the walls that were agreed.
        walls: those that stand.

    Raises:
        NoSandbox: one of them does not stand here.
    """
    missing = sorted(set(asked) - set(walls))
    if missing:
        raise NoSandbox(
            f"the contract asks for walls that do not stand on this machine: {', '.join(missing)}",
            hint="docs/sandbox.md says what each of them needs.",
        )


def choose(asked: str) -> str:
    """The kind of sandbox that a contract's word means on this machine.

    Args:
        asked: ``isolated`` (the best that works here, never ``process``), or one of ``KINDS`` by name.

    Raises:
        NoSandbox: it cannot be had.
    """
    if asked == PROCESS:
        return PROCESS
    wanted = (BUBBLEWRAP, NAMESPACES) if asked == ISOLATED else (asked,)
    for kind in wanted:
        if kind in KINDS and works(kind):
            return kind
    raise NoSandbox(f"no sandbox can be made on this machine (tried: {', '.join(wanted)})")
