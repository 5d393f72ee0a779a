"""Environments: the packages of a lock, unpacked outside of any run, once, and shown read-only to every run that names it.

One folder for each lock and kind of interpreter: ``packages/``, and ``manifest.json`` with the SHA-256 of every file. It is
made under another name and renamed when it is whole, so that a build that was killed leaves nothing that looks like one; of
two that build at once one waits for the other. The first use by a process checks every file against the manifest.

Who can write in this folder can write the manifest too: it is the enclave's own, as its bytecode is, and on hardware it lies
inside (in memory, or on a disk that is encrypted with the machine's own key).

See ``spec/code.md``.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import py_compile
import secrets
import shutil
import sys
import sysconfig
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import cache_from_source
from pathlib import Path

from strongroom import wire
from strongroom.enclave.sandbox import Mounted
from strongroom.errors import EnvironmentAltered, StrongroomError
from strongroom.lock import Lock
from strongroom.wire import JSON

from .wheels import Place, Unpacked

FORMAT = "strongroom.environment.v1"
KEPT, KEPT_BYTES = 24, 48 << 30
"""How many environments are kept, and of how many bytes together."""

REST_SECONDS = 600
"""One that was asked for so lately stays: a sandbox may be about to see it."""

_MANIFEST, _PACKAGES = "manifest.json", "packages"
_MAX_MANIFEST = 64 << 20


class Environments:
    """Builds, checks and keeps environments.

    Args:
        folder: this user's alone; made when it is not there.
        place: where wheels come from.
    """

    def __init__(self, folder: Path, place: Place) -> None:
        self._folder, self._place = folder.absolute(), place
        self._known: dict[
            str, tuple[Mounted, tuple[int, int]]
        ] = {}  # that this process has checked, and which folder it was
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}  # one for each lock's digest: a long build holds up no other

    def get(self, lock: Lock) -> Mounted:
        """The environment of a lock: built where it is not there, checked where this process has not seen it.

        Raises:
            BadLock: it says two things for this interpreter.
            NoWheel, WheelRefused: it cannot be built.
            EnvironmentAltered: it is not what was built.
        """
        digest = lock.digest
        with self._lock:
            alone = self._locks.setdefault(digest, threading.Lock())
        with alone:
            mounted, seen = self._known.get(digest, (None, None))
            if mounted is None or _which(mounted.path) != seen:  # another process may have removed it, and built it again
                mounted = self._opened(lock, digest)
                self._known[digest] = mounted, _which(mounted.path)
            with suppress(FileNotFoundError):
                os.utime(Path(mounted.path).parent)
            return mounted

    def _opened(self, lock: Lock, digest: str) -> Mounted:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = self._folder.stat()
        if status.st_uid != os.getuid() or status.st_mode & 0o022:
            raise EnvironmentAltered(f"others may write in {self._folder}", hint=f"chmod 700 {self._folder}")
        final = self._folder / f"{digest.removeprefix('sha256:')}-{_interpreter()}"
        with _alone(final.with_name(final.name + ".lock")):
            for left in self._folder.glob(f".{final.name}.*.partial"):  # of a build that was killed
                _remove(left)
            fresh = not final.exists()
            if fresh:
                self._build(lock, final)
            _check(final, digest)
            _compile(final)
            os.utime(final)
        if fresh:
            self._clean()
        return Mounted(digest, os.path.realpath(final / _PACKAGES))

    def _build(self, lock: Lock, final: Path) -> None:
        from packaging.markers import default_environment

        pins = lock.required({name: str(value) for name, value in default_environment().items()})
        draft = final.with_name(f".{final.name}.{secrets.token_hex(8)}.partial")
        (draft / _PACKAGES).mkdir(parents=True)
        (draft / "wheels").mkdir()
        try:
            unpacked = Unpacked(draft / _PACKAGES)
            for pin in pins:
                wheel = self._place.fetch(pin, draft / "wheels")
                unpacked.add(wheel, pin)
                wheel.unlink()
            (draft / "wheels").rmdir()
            manifest: JSON = {"files": {**unpacked.digests}, "format": FORMAT, "lock": lock.digest}
            (draft / _MANIFEST).write_bytes(wire.encode(manifest))
            _seal(draft)
            draft.rename(final)
        finally:
            if draft.exists():
                _remove(draft)

    def _clean(self) -> None:
        """Remove what is beyond the bounds."""
        folders = [f for f in self._folder.iterdir() if not f.name.startswith(".") and (f / _MANIFEST).is_file()]
        total = 0
        for place, folder in enumerate(sorted(folders, key=lambda f: f.stat().st_mtime, reverse=True)):
            total += _size(folder)
            if place >= KEPT or total > KEPT_BYTES:
                _remove_unused(folder)


def _which(path: str) -> tuple[int, int]:
    """Tells a folder from another that was made later in its place; noughts for one that is gone."""
    try:
        status = Path(path).stat()
    except FileNotFoundError:
        return 0, 0
    return status.st_ino, status.st_ctime_ns


def _size(folder: Path) -> int:
    return sum(Path(place, name).lstat().st_size for place, _, names in os.walk(folder) for name in names)


def _remove_unused(folder: Path) -> None:
    """Remove an environment, unless it is in use, being built, or was asked for lately."""
    with suppress(OSError), _alone(folder.with_name(folder.name + ".lock"), wait=False):
        held = os.open(folder / _PACKAGES, os.O_RDONLY)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if time.time() - folder.stat().st_mtime < REST_SECONDS:
                return
            gone = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}.partial")  # whoever builds it next removes it
            folder.rename(gone)  # nobody can find it any more
        finally:
            os.close(held)
        _remove(gone)


def _interpreter() -> str:
    """The kind of interpreter, as file names have it: wheels differ by it."""
    return f"{sys.implementation.cache_tag}-{sysconfig.get_platform()}".replace("/", "-")


@contextmanager
def _alone(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock among processes. Raises BlockingIOError: another holds it, and nobody waits."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _seal(folder: Path) -> None:
    """Take away every right to write, so that nothing is changed by mistake. The folder itself can still be renamed."""
    for place, folders, files in os.walk(folder):
        for name in files:
            Path(place, name).chmod(0o444)
        for name in folders:
            Path(place, name).chmod(0o555)  # what is in it was made before


def _remove(folder: Path) -> None:
    for place, _, _ in os.walk(folder):
        Path(place).chmod(0o700)
    shutil.rmtree(folder)


def _check(folder: Path, digest: str) -> None:
    """Hold every file against the manifest. Raises EnvironmentAltered."""
    path = folder / _MANIFEST
    try:
        if path.stat().st_size > _MAX_MANIFEST:
            raise EnvironmentAltered(f"{path} is too long")
        said = wire.decode(path.read_bytes(), max_bytes=_MAX_MANIFEST, max_values=_MAX_MANIFEST)
    except (OSError, StrongroomError) as error:
        raise EnvironmentAltered(f"{folder} has no manifest that can be read") from error
    if not isinstance(said, dict) or said.get("format") != FORMAT or said.get("lock") != digest:
        raise EnvironmentAltered(f"{folder} is the environment of another lock")
    if dict(_files(folder / _PACKAGES)) != said.get("files"):
        raise EnvironmentAltered(f"{folder} holds other files than were built")


def _files(folder: Path, inside: str = "") -> Iterator[tuple[str, str]]:
    """Every file's path and SHA-256, bytecode left out: that is made from them. Links are told by a digest of none."""
    with os.scandir(folder / inside) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            name = f"{inside}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                if entry.name != "__pycache__":
                    yield from _files(folder, f"{name}/")
            elif entry.is_file(follow_symlinks=False):
                with open(entry.path, "rb") as file:  # noqa: PTH123 - ten thousand paths: no objects made of them
                    yield name, hashlib.file_digest(file, "sha256").hexdigest()
            else:
                yield name, ""


def _compile(folder: Path) -> None:
    """Compile every module for this interpreter, where it will look: beside the sources, or where bytecode is kept.

    What is there already is believed only where it is what was compiled last, by its SHA-256.
    """
    packages = folder / _PACKAGES
    place = hashlib.sha256(os.path.realpath(cache_from_source(str(packages / "module.py"))).encode()).hexdigest()
    record = folder / f"bytecode-{place[:16]}.json"
    sources = [path for path in packages.rglob("*.py") if path.parent.name != "__pycache__"]
    try:
        known = wire.decode(record.read_bytes(), max_bytes=_MAX_MANIFEST, max_values=_MAX_MANIFEST)
    except (OSError, StrongroomError):
        known = None
    if known is not None and known == {str(p.relative_to(packages)): _compiled(p) for p in sources}:
        return
    found: dict[str, JSON] = {}
    for path in sources:
        with suppress(py_compile.PyCompileError, OSError, ValueError, RecursionError), warnings.catch_warnings():
            # What does not compile is for another version of Python, or not meant to be imported.
            warnings.simplefilter("ignore")
            _compile_one(path)
        found[str(path.relative_to(packages))] = _compiled(path)
    partial = record.with_suffix(f".{secrets.token_hex(8)}")
    partial.write_bytes(wire.encode(found))
    partial.rename(record)


def _compiled(path: Path) -> str:
    """The SHA-256 of a module's bytecode; ``""`` where there is none."""
    try:
        return hashlib.sha256(Path(cache_from_source(str(path))).read_bytes()).hexdigest()
    except OSError:
        return ""


def _compile_one(path: Path) -> None:
    target = Path(cache_from_source(str(path)))
    beside = target.parent.parent == path.parent
    if beside:  # a folder that is sealed is opened for as long as it takes
        path.parent.chmod(0o755)
        target.parent.mkdir(exist_ok=True)
        target.parent.chmod(0o755)
    try:
        how = py_compile.PycInvalidationMode.UNCHECKED_HASH  # its source was checked, and nobody writes there
        py_compile.compile(str(path), str(target), doraise=True, invalidation_mode=how)
        target.chmod(0o444)
    finally:
        if beside:
            target.parent.chmod(0o555)
            path.parent.chmod(0o555)
