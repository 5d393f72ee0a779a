"""A control group for each child: what the kernel itself holds it to, in memory, in processes and in processor time.

The groups are made below the one that this process is in: in version 2 of control groups, in version 1, or some in one and
some in the other, as they are mounted. Who may not make them has none, and the other limits go on. In version 2 a group that
holds processes can divide nothing; so this process goes into a group of its own (``enclave``) where it is alone in a group
that it may change, and divides that one.

A child is put into its group by its parent, before it is sent anything to execute; what it starts is in it from then on. A
group that its parent left behind when it was killed is found by its lock, which the dead do not hold, and removed. Source:
cgroups(7), the kernel's cgroup-v2 and cgroup-v1 documents.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

MEMORY, PROCESSES, CPU = "memory", "pids", "cpu"
WALLS: Final[Mapping[str, str]] = {CPU: "cgroup-cpu", MEMORY: "cgroup-memory", PROCESSES: "cgroup-processes"}
"""What a wall is called, by the controller that makes it."""

LOADING_BYTES: Final = 4 << 30
"""How much memory a child may take before the job's own limit is known: libraries are loaded then."""

_ENCLAVE = "enclave"
_PREFIX = "strongroom-"
_PERIOD_MICROSECONDS = 100_000
_EMPTY_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where groups are made for some controllers.

    Attributes:
        version: 1 or 2.
        folder: of the group that this process is in.
    """

    version: int
    folder: Path


def places(proc: Path = Path("/proc/self")) -> dict[str, Place]:
    """The groups that a process is in, by controller.

    Args:
        proc: its folder.
    """
    groups: dict[str, str] = {}
    for line in _lines(proc / "cgroup"):
        _, _, rest = line.partition(":")
        controllers, said, path = rest.partition(":")
        if said:
            groups.update(dict.fromkeys(controllers.split(","), path))
    found: dict[str, Place] = {}
    for line in _lines(proc / "mountinfo"):
        before, _, after = line.partition(" - ")
        if len(before.split()) < 5 or len(after.split()) < 3:
            continue
        root, mounted = (_unescaped(word) for word in before.split()[3:5])
        kind, _, options = after.split()[:3]
        if kind == "cgroup2" and "" in groups:
            place = _below(mounted, root, groups[""])
            if place:
                there = _words(place / "cgroup.controllers")
                found |= {name: Place(2, place) for name in WALLS if name in there}
        elif kind == "cgroup":
            for name in WALLS.keys() & set(options.split(",")) & groups.keys():
                place = _below(mounted, root, groups[name])
                if place:
                    found[name] = Place(1, place)
    return found


def _lines(path: Path) -> list[str]:
    with suppress(OSError, ValueError):
        return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    return []


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()


def _unescaped(word: str) -> str:
    """A path of mountinfo: blanks and the like are told as three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), word)


def _below(mounted: str, root: str, group: str) -> Path | None:
    """Where a group lies, if the mount shows it: of a hierarchy it shows what is below ``root``."""
    if ".." in group.split("/") or not (group + "/").startswith(root.rstrip("/") + "/"):
        return None
    return Path(mounted, group[len(root.rstrip("/")) :].lstrip("/"))


@cache
def parents() -> dict[str, Path]:
    """The folders below which this process can make groups, by controller; prepared once."""
    found: dict[str, Path] = {}
    for name, place in places().items():
        with suppress(OSError):
            folder = place.folder if place.version == 1 else _divided(place.folder, name)
            _sweep(folder)
            if os.access(folder, os.W_OK):
                found[name] = folder
    return found


def _divided(own: Path, controller: str) -> Path:
    """The group of version 2 whose groups have this controller: this process's own, or that above it. Raises OSError."""
    if own.name == _ENCLAVE:  # a service's manager put us there, or we did
        own = own.parent
    with suppress(OSError):
        return _enabled(own, controller)
    if _words(own / "cgroup.procs") != [str(os.getpid())]:
        raise PermissionError("others are in this process's group")
    leaf = own / _ENCLAVE
    leaf.mkdir(exist_ok=True)
    _write(leaf / "cgroup.procs", "0")
    return _enabled(own, controller)


def _enabled(folder: Path, controller: str) -> Path:
    if controller not in _words(folder / "cgroup.subtree_control"):
        _write(folder / "cgroup.subtree_control", f"+{controller}")
    return folder


def _sweep(folder: Path) -> None:
    """Remove the groups of those that were killed."""
    for left in folder.glob(_PREFIX + "*"):
        with suppress(OSError):
            lock = _locked(left)
            if lock >= 0:
                try:
                    left.rmdir()  # refused while anything lives in it
                finally:
                    os.close(lock)


def _locked(folder: Path) -> int:
    """A descriptor that holds the folder's lock, or -1 where somebody else does. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return -1
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


class Cgroup:
    """The group of one child, empty. What of it cannot be had is not there; see ``walls``.

    Args:
        below: where to make it, by controller.
        tasks: the most processes and threads.
        cpus: the most processors' worth of time; 0 for as many as there are.

    Attributes:
        walls: what it holds the child to, by names of ``WALLS``, sorted.
    """

    def __init__(self, below: Mapping[str, Path], tasks: int, cpus: float = 0) -> None:
        self._name = _PREFIX + secrets.token_hex(8)
        self._folders: dict[Path, int] = {}  # with the descriptor that holds the lock
        self._memory: Path | None = None
        self._joined = False
        made: list[str] = []
        cpus = cpus or len(os.sched_getaffinity(0))
        for controller, folder in sorted(below.items()):
            with suppress(OSError):
                own = self._make(folder)
                if controller == MEMORY:
                    self._memory = own
                    self.limit_memory(LOADING_BYTES)
                elif controller == PROCESSES:
                    _write(own / "pids.max", str(tasks))
                else:
                    _limit_cpu(own, cpus)
                made.append(WALLS[controller])
        self.walls = tuple(sorted(made))

    def _make(self, below: Path) -> Path:
        own = below / self._name
        if own not in self._folders:
            own.mkdir()
            self._folders[own] = -1
            self._folders[own] = _locked(own)
        return own

    def join(self, pid: int) -> None:
        """Put a process into the group, and with it what it will start. Raises OSError."""
        for folder in self._folders:
            _write(folder / "cgroup.procs", str(pid))
        self._joined = True

    def limit_memory(self, size: int, *, more: bool = False) -> None:
        """From now on there is room for so many bytes of every kind that the kernel counts, and none of them is swapped out.

        Args:
            size: in bytes.
            more: beside what the child holds now.

        Raises:
            OSError: the kernel does not take it.
        """
        if self._memory is None:
            return
        own = self._memory
        if (own / "memory.limit_in_bytes").exists():
            size += int((own / "memory.usage_in_bytes").read_text()) if more else 0
            both = [own / "memory.limit_in_bytes", own / "memory.memsw.limit_in_bytes"]
            both = [path for path in both if path.exists()]
            # memory alone may never exceed memory with swap: which is first depends on whether it grows
            grows = size > int(both[0].read_text())
            for path in reversed(both) if grows else both:
                _write(path, str(size))
            return
        size += int((own / "memory.current").read_text()) if more else 0
        for name, value in (("memory.swap.max", "0"), ("memory.zswap.max", "0"), ("memory.oom.group", "1")):
            with suppress(FileNotFoundError):  # a kernel without swap, or an older one
                _write(own / name, value)
        _write(own / "memory.max", str(size))

    def starved(self) -> bool:
        """Whether the kernel killed anything in the group because memory was short."""
        if self._memory is None:
            return False
        lines = [*_lines(self._memory / "memory.events"), *_lines(self._memory / "memory.oom_control")]
        return any(line.startswith("oom_kill ") and line != "oom_kill 0" for line in lines)

    def end(self) -> None:
        """Kill whatever is in it, and remove it. Can be called again."""
        deadline = time.monotonic() + _EMPTY_SECONDS
        while self._joined and time.monotonic() < deadline:
            if not self._kill():
                break
            time.sleep(0.001)
        while self._folders and time.monotonic() < deadline:
            for folder, lock in list(self._folders.items()):
                with suppress(OSError):  # the last of its processes is still on its way out
                    folder.rmdir()
                    self._forget(folder, lock)
            if self._folders:
                time.sleep(0.001)
        for folder, lock in list(self._folders.items()):  # whoever sweeps finds it
            self._forget(folder, lock)

    def _forget(self, folder: Path, lock: int) -> None:
        if lock >= 0:
            os.close(lock)
        del self._folders[folder]

    def _kill(self) -> bool:
        """Kill what is in it, once. Returns whether there was anything."""
        alive = False
        for folder in self._folders:
            with suppress(OSError):
                _write(folder / "pids.max", "0")  # who is killed one by one must not multiply
            with suppress(OSError):
                _write(folder / "cgroup.kill", "1")
        for pid in self._inside():
            alive = True
            with suppress(OSError):
                self._kill_one(pid)
        return alive

    def _kill_one(self, pid: int) -> None:
        """A number may be given away between reading it and using it: only a handle of what is in the group is used."""
        handle = os.pidfd_open(pid)
        try:
            if pid in self._inside():
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)

    def _inside(self) -> Iterator[int]:
        for folder in self._folders:
            for word in _words(folder / "cgroup.procs"):
                if int(word) > 0:  # 0: a process that this namespace does not show
                    yield int(word)


def _write(path: Path, text: str) -> None:
    """Into a file that is there. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _limit_cpu(own: Path, cpus: float) -> None:
    """No more than this; and where others want the processor too, a group of many threads has the share of one process."""
    quota = max(1000, int(cpus * _PERIOD_MICROSECONDS))
    if (own / "cpu.shares").exists():
        _write(own / "cpu.cfs_period_us", str(_PERIOD_MICROSECONDS))
        _write(own / "cpu.cfs_quota_us", str(quota))
    else:
        _write(own / "cpu.max", f"{quota} {_PERIOD_MICROSECONDS}")


def make(tasks: int, cpus: float = 0) -> Cgroup | None:
    """A group for one child below this process's own, or ``None`` where none can be had."""
    found = Cgroup(parents(), tasks, cpus)
    if found.walls:
        return found
    found.end()
    return None
