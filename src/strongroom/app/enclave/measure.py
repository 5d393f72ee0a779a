"""What ``strongroom measure`` prints: everything that an enclave can execute, as digests that anyone can make again.

Registers of the simulated platform's measurement:

``package``       every file of the installed ``strongroom`` package, standard programs included
``dependencies``  every file of every distribution that ``strongroom[room]`` needs, and of the further extras that the
                  enclave was started with, with their names and versions
``interpreter``   the interpreter, its version, its shared library and its standard library
``launch``        how the enclave is started (``launch.py``)

The first three are the SHA-256 of lines such as ``sha256sum`` prints (``<hex>  <path>``), sorted by the bytes of the path.
What differs between two installations of the same lock, and is never executed, is left out: ``__pycache__``, installers'
notes, console scripts. Shared libraries of the operating system are not measured.

See ``spec/attestation.md``.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.metadata
import os
import platform
import stat
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import strongroom
from strongroom.attest.evidence import Measurement
from strongroom.attest.simulated import PLATFORM
from strongroom.errors import NotMeasurable

from . import launch

EXTRAS = ("chat", "data", "evals", "guards", "lm")
"""What an enclave can be started with beside ``room``. Each is more code that is measured, and that inputs meet."""

_BYTECODE = "__pycache__"
# Written by installers: where a distribution came from. They differ between machines, and are never executed.
_INSTALLERS_NOTES = frozenset({"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", "uv_build.json"})
# Not on the enclave's import path (``-S``), or the standard library's own tests and build leftovers.
_NOT_LIBRARY = ("site-packages", "dist-packages", "test", "config-")
_MAX_DEPTH = 64
_BIG = 64 << 10  # bytes; from here on hashing outweighs opening, so threads help
_SETTLED_NS = 2_000_000_000  # a file changed this recently may change again without its times showing it

# size, mtime_ns, ctime_ns, inode, device: an unprivileged writer cannot set ctime
_Stat: TypeAlias = tuple[int, int, int, int, int]
_Found: TypeAlias = tuple[str, str, os.stat_result]  # label, path, status


def _key(found: os.stat_result) -> _Stat:
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev


def _walk(label: str, folder: str, skip: Callable[[str, str], bool], depth: int = 0) -> Iterator[_Found]:
    """Every file under a folder: its label, its path, its status. ``skip(label of the folder, name)`` leaves entries out."""
    if depth > _MAX_DEPTH:
        raise NotMeasurable(f"{folder} is nested deeper than {_MAX_DEPTH} folders")
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name == _BYTECODE or skip(label, name):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(f"{label}{name}/", entry.path, skip, depth + 1)
            else:
                yield f"{label}{name}", entry.path, _status(entry)


def _status(entry: os.DirEntry[str]) -> os.stat_result:
    """The status of the file that an entry leads to. A link to a file counts as the file; a link to a folder is refused."""
    try:
        found = entry.stat()
    except OSError as error:
        raise NotMeasurable(f"{entry.path} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode):
        raise NotMeasurable(f"{entry.path} is no regular file, or a link to a folder")
    return found


def _skip_nothing(_label: str, _name: str) -> bool:
    return False


def _skip_notes(label: str, name: str) -> bool:
    return name in _INSTALLERS_NOTES and label.endswith(".dist-info/") and label.count("/") == 1


def _skip_not_library(label: str, name: str) -> bool:
    return label == "lib/" and (name in _NOT_LIBRARY or name.startswith(_NOT_LIBRARY[-1]))


def _hash(path: str) -> tuple[_Stat, str]:
    """A file's status and hex SHA-256. Raises NotMeasurable when it changes meanwhile."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - ten thousand paths: no objects made of them
            before = _key(os.fstat(file.fileno()))
            if before[0] < _BIG:
                found = hashlib.sha256(file.read()).hexdigest()
            else:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            after = _key(os.fstat(file.fileno()))
    except OSError as error:
        raise NotMeasurable(f"{path} cannot be read: {error.strerror}") from error
    if before != after:
        raise NotMeasurable(f"{path} changes while it is measured")
    return before, found


class FileDigests:
    """SHA-256 of files, remembered for as long as their status stays as it was. One per process; nothing is written down.

    Args:
        clock_ns: the machine's clock, nanoseconds; a file that changed within the last two seconds is not remembered.
        threads: how many threads hash; the machine's processors by default.
    """

    def __init__(self, clock_ns: Callable[[], int] = time.time_ns, threads: int | None = None) -> None:
        self._clock_ns = clock_ns
        self._threads = threads or min(os.cpu_count() or 1, 8)
        self._known: dict[str, tuple[_Stat, str]] = {}

    def lines(self, files: Iterable[_Found]) -> list[bytes]:
        """One line a file, sorted by the bytes of its label: ``<hex>  <label>\\n``.

        Args:
            files: label, path and status of each.

        Raises:
            NotMeasurable: a file cannot be read or changes meanwhile, a label that stands twice or holds a line break.
        """
        digests: dict[str, str] = {}
        small: list[tuple[str, str]] = []
        big: list[tuple[int, str, str]] = []
        for label, path, found in files:
            if label in digests:
                raise NotMeasurable(f"{label!r} is there twice")
            known = self._known.get(path)
            digests[label] = ""
            if known is not None and known[0] == _key(found):
                digests[label] = known[1]
            elif found.st_size < _BIG:
                small.append((label, path))
            else:
                big.append((found.st_size, label, path))
        big.sort(reverse=True)
        with ThreadPoolExecutor(self._threads) as pool:
            waiting = [(label, pool.submit(self._learn, path)) for _, label, path in big]
            digests.update((label, self._learn(path)) for label, path in small)
            digests.update((label, future.result()) for label, future in waiting)
        named = sorted((os.fsencode(label), digest) for label, digest in digests.items())
        if any(b"\n" in label for label, _ in named):
            raise NotMeasurable("a file's name holds a line break")
        return [b"%s  %s\n" % (digest.encode(), label) for label, digest in named]

    def _learn(self, path: str) -> str:
        status, digest = _hash(path)
        if max(status[1], status[2]) + _SETTLED_NS < self._clock_ns():
            self._known[path] = status, digest
        return digest


@dataclass(frozen=True, slots=True)
class Distribution:
    """An installed distribution.

    Attributes:
        name, version: as its metadata says.
        site: the folder that it is installed in.
        entries: what it put there: its top-level files and folders, sorted.
    """

    name: str
    version: str
    site: Path
    entries: tuple[str, ...]

    @classmethod
    def find(cls, name: str) -> Distribution:
        """Raises NotMeasurable when it is not installed, or has no listing of its files."""
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError as error:
            raise NotMeasurable(f"{name} is not installed") from error
        record = found.read_text("RECORD")
        if record is None:
            raise NotMeasurable(f"{name} was installed without a listing of its files")
        paths = (row[0] for row in csv.reader(record.splitlines()) if row)
        # Console scripts and shared files lie outside (``../../../bin/…``); the enclave's import path does not reach them.
        entries = {path.split("/", 1)[0] for path in paths if not path.startswith(("/", "../"))}
        site = Path(str(found.locate_file(""))).resolve()
        return cls(name, found.version, site, tuple(sorted(entries - {_BYTECODE, ""})))


def closure(name: str, *extras: str) -> tuple[Distribution, ...]:
    """Every installed distribution that ``name`` with these extras needs on this machine, itself left out, by name.

    Raises:
        NotMeasurable: one is missing.
    """
    try:
        from packaging.requirements import Requirement
        from packaging.utils import canonicalize_name
    except ImportError as error:
        raise NotMeasurable("packaging is not installed") from error
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(name, ""), *((name, extra) for extra in extras)]
    while waiting:
        wanted = waiting.pop()
        if wanted in seen:
            continue
        seen.add(wanted)
        try:
            found.setdefault(wanted[0], Distribution.find(wanted[0]))
        except NotMeasurable as error:
            if extras:
                error.hint = f"Install what it was to be measured with: pip install '{name}[{','.join(sorted(extras))}]'"
            raise
        for line in importlib.metadata.requires(wanted[0]) or ():
            need = Requirement(line)
            if need.marker is None or need.marker.evaluate({"extra": wanted[1]}):
                key = canonicalize_name(need.name)
                waiting += [(key, ""), *((key, e) for e in need.extras)]
    del found[name]
    return tuple(found[key] for key in sorted(found))


def _shared_library(maps: Path = Path("/proc/self/maps")) -> Path | None:
    """The ``libpython`` that this process has loaded, or ``None`` where the interpreter is linked statically."""
    if maps.exists():
        paths = {line.split(maxsplit=5)[-1].strip() for line in maps.read_text().splitlines() if "/libpython" in line}
        return Path(min(paths)).resolve() if paths else None
    named = Path(str(sysconfig.get_config_var("LIBDIR")), str(sysconfig.get_config_var("LDLIBRARY")))
    return named.resolve() if sysconfig.get_config_var("Py_ENABLE_SHARED") and named.exists() else None


@dataclass(frozen=True, slots=True)
class Installation:
    """Where everything that an enclave can execute lies on this machine.

    Attributes:
        package: the folder of the ``strongroom`` package.
        distributions: what it needs, by name.
        interpreter: the real interpreter.
        library: its standard library.
        shared_library: its ``libpython``, where it has one.
        version: the interpreter's kind and version (``cpython-3.11.7``).
        module: what the enclave runs.
    """

    package: Path
    distributions: tuple[Distribution, ...]
    interpreter: Path
    library: Path
    shared_library: Path | None
    version: str
    module: str = launch.ENCLAVE_MODULE

    @classmethod
    def here(cls, extras: Iterable[str] = ()) -> Installation:
        """The installation that this process runs from.

        Args:
            extras: of ``EXTRAS``, what the enclave can import beside what ``strongroom[room]`` needs.

        Raises:
            NotMeasurable: ``strongroom`` with these extras is not complete, or has no such extra.
        """
        wanted = sorted(set(extras))
        if not set(wanted) <= set(EXTRAS):
            raise NotMeasurable(f"an enclave has no other extras than {', '.join(EXTRAS)}")
        return cls(
            package=Path(strongroom.__file__).resolve().parent,
            distributions=closure("strongroom", "room", *wanted),
            interpreter=Path(getattr(sys, "_base_executable", sys.executable)).resolve(),
            library=Path(sysconfig.get_path("stdlib")).resolve(),
            shared_library=_shared_library(),
            version=f"{sys.implementation.name}-{platform.python_version()}",
        )

    @property
    def links(self) -> dict[str, Path]:
        """Top-level name to the file or folder it stands for: what the enclave can import beside the standard library.

        Raises:
            NotMeasurable: two distributions in different folders put something under the same name.
        """
        found = {"strongroom": self.package}
        for distribution in self.distributions:
            for entry in distribution.entries:
                target = distribution.site / entry
                if found.setdefault(entry, target) != target:
                    raise NotMeasurable(f"{entry!r} is installed twice, in different folders")
        return found

    def measure(self, digests: FileDigests) -> Measurement:
        """Hash everything. A warm ``digests`` rereads only what changed.

        Raises:
            NotMeasurable: something cannot be read, or changes meanwhile.
        """
        names = "".join(f"{d.name}=={d.version}\n" for d in self.distributions).encode()
        try:
            found = {
                "package": digests.lines(_walk("strongroom/", str(self.package), _skip_nothing)),
                "dependencies": [names, *digests.lines(self._dependencies())],
                "interpreter": [f"{self.version}\n".encode(), *digests.lines(self._interpreter())],
            }
        except OSError as error:
            raise NotMeasurable(f"{error.filename} cannot be read: {error.strerror}") from error
        registers = {name: "sha256:" + hashlib.sha256(b"".join(lines)).hexdigest() for name, lines in found.items()}
        return Measurement(PLATFORM, {**registers, "launch": launch.register(self.module)})

    def _dependencies(self) -> Iterator[_Found]:
        for top, target in self.links.items():
            if target == self.package:
                continue
            if target.is_dir():
                yield from _walk(f"{top}/", str(target), _skip_notes)
            else:
                yield top, str(target), _file(target)

    def _interpreter(self) -> Iterator[_Found]:
        yield "python", str(self.interpreter), _file(self.interpreter)
        if self.shared_library is not None:
            yield "libpython", str(self.shared_library), _file(self.shared_library)
        self._refuse_steering()
        yield from _walk("lib/", str(self.library), _skip_not_library)

    def _refuse_steering(self) -> None:
        """Refuse what makes the interpreter take its first imports from elsewhere (CPython's ``Modules/getpath.py``)."""
        home, digits = self.interpreter.parent, "".join(platform.python_version_tuple()[:2])
        files = [home / "pyvenv.cfg", home.parent / "pyvenv.cfg", home / "pybuilddir.txt"]
        files += [self.library.parent / f"python{digits}.zip", Path(f"{self.interpreter}._pth")]
        if self.shared_library is not None:
            files.append(Path(f"{self.shared_library}._pth"))
        # The library is looked for beside the interpreter and in every folder above it; the first that is found is taken.
        for folder in (home, *home.parents):
            library = folder / self.library.parent.name / self.library.name
            if library.resolve() == self.library:
                break
            files += [library / "os.py", library / "os.pyc", library / "lib-dynload"]
        for path in files:
            if os.path.lexists(path):
                raise NotMeasurable(f"{path} steers the interpreter away from its own library", hint="Remove that file.")


def _file(path: Path) -> os.stat_result:
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise NotMeasurable(f"{path} is no regular file")
    return found
