"""What a sandboxed child can see of this machine: the running interpreter, its libraries, and nothing else.

The view is made from the interpreter that the parent itself runs on, so that a virtual environment works wherever it lies.
Of Strongroom's own files the child sees none: its sources come over the channel (``programs/boot.py``).
"""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

SCRATCH_BYTES = 64 << 20
"""Room in the child's /tmp, which is memory. It is also the largest file that the child can write."""

HOSTNAME = "strongroom"
NOBODY = 65534
"""The user and group that the child believes to be."""

DEVICES = ("/dev/null", "/dev/random", "/dev/urandom", "/dev/zero")
_SYSTEM_LIBRARIES = (
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/nix/store",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/libx32",
)
_LOADER_CACHE = "/etc/ld.so.cache"  # where the loader finds libraries outside its own folders, libpython among them


@dataclass(frozen=True, slots=True)
class Mounted:
    """An environment: packages that a contract's code is locked to, in a folder that is shown read-only.

    Attributes:
        digest: of its lock.
        path: absolute, without links.
    """

    digest: str
    path: str


@dataclass(frozen=True, slots=True)
class View:
    """A child's view of the machine.

    Attributes:
        python: the interpreter itself, no virtual environment's link to it.
        paths: what is added to the child's ``sys.path``: where installed libraries lie.
        read_only: files and folders shown at their own place; none lies within another.
        links: symbolic links, as (target, place).
        bytecode: where compiled files of libraries are looked for, or ``""`` for beside their sources. It is only read.
    """

    python: str
    paths: tuple[str, ...]
    read_only: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    bytecode: str

    def command(self, boot: str, descriptor: int) -> list[str]:
        """How the child is started: isolated from environment, user site and working directory, and without ``site``, so
        that no ``.pth`` file runs either.

        Args:
            boot: source text.
            descriptor: the inherited end of the channel.
        """
        bytecode = ["-X", f"pycache_prefix={self.bytecode}"] if self.bytecode else []
        return [self.python, "-I", "-S", "-B", "-u", "-X", "utf8=1", *bytecode, "-c", boot, str(descriptor)]


def view(mounted: Mounted | None = None) -> View:
    """The view for a child of this process.

    Args:
        mounted: comes before the libraries that are installed here: what was locked is what is imported, and not what
            happens to be there. Nothing comes before the standard library.
    """
    python = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    prefix = os.path.realpath(sys.base_prefix)
    paths = (*([mounted.path] if mounted else []), *_libraries())
    bytecode = os.path.realpath(sys.pycache_prefix) if sys.pycache_prefix and Path(sys.pycache_prefix).is_dir() else ""
    wanted = [
        *(p for p in _SYSTEM_LIBRARIES if not Path(p).is_symlink()),
        _LOADER_CACHE,
        python,
        *(os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")),
        f"{prefix}/lib",
        f"{prefix}/lib64",
        *paths,
        *_links_within(paths),
        bytecode,
    ]
    links = tuple((str(Path(p).readlink()), p) for p in _SYSTEM_LIBRARIES if Path(p).is_symlink())
    return View(python, paths, _outermost(p for p in wanted if p and Path(p).exists()), links, bytecode)


def _libraries() -> tuple[str, ...]:
    """The folders in which libraries are installed for this process.

    An enclave that its platform started, without ``site``, has a folder of links on its import path, and the standard
    library. Elsewhere they are the interpreter's and the virtual environment's own folders, and not the import path, on
    which there is also the folder of whatever script was started.
    """
    if sys.flags.no_site:
        standard = {os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")}
        standard |= {f"{path}/lib-dynload" for path in standard}
        installed = [p for p in sys.path if p and os.path.realpath(p) not in standard]
    else:
        installed = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]
    return tuple(dict.fromkeys(os.path.realpath(p) for p in installed if Path(p).is_dir()))


def _links_within(folders: Iterable[str]) -> Iterator[str]:
    """Where links in these folders lead, Strongroom's own excepted."""
    for folder in folders:
        for entry in os.scandir(folder):
            if entry.is_symlink() and entry.name != "strongroom":
                yield os.path.realpath(entry.path)


def _within(path: str, folders: Iterable[str]) -> bool:
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in folders)


def _outermost(paths: Iterable[str]) -> tuple[str, ...]:
    """The paths that lie within no other."""
    found: list[str] = []
    for path in sorted(set(paths)):
        if not _within(path, found):
            found.append(path)
    return tuple(found)
