"""Wheels: found by the hashes of a lock, in a folder or an index, and unpacked by the enclave itself.

No installer runs. One is not part of what is measured, and what it wrote would have to be believed; a wheel is a zip archive
whose SHA-256 stands in the lock, so the enclave reads it itself. Nothing is built, so no code of a package runs.

Sources: the binary distribution format (PEP 427), tags (PEP 425), the simple index in JSON (PEP 691).
"""

from __future__ import annotations

import hashlib
import lzma
import stat
import sys
import zipfile
import zlib
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import urljoin, urlsplit, urlunsplit

from strongroom import wire
from strongroom.app.http import Client
from strongroom.code import LIBRARIES
from strongroom.errors import NoWheel, StrongroomError, WheelRefused
from strongroom.lock import Pin

MAX_UNPACKED = 16 << 30  # bytes, of one environment
MAX_ENTRIES = 200_000
MAX_WHEEL = 8 << 30
MAX_PAGE = 64 << 20  # of an index, about one package
_PIECE = 1 << 20
_INDEX_TYPE = "application/vnd.pypi.simple.v1+json"
_UNREADABLE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError, ValueError)
_OURS = frozenset({"sitecustomize", "strongroom", "usercustomize"})


@dataclass(frozen=True, slots=True)
class Place:
    """Where an operator lets wheels come from; nowhere, where it says nothing.

    Attributes:
        folder: of wheels, looked at first.
        index: address of a simple index that answers in JSON.
    """

    folder: Path | None = None
    index: str | None = None

    def __bool__(self) -> bool:
        return self.folder is not None or self.index is not None

    def fetch(self, pin: Pin, into: Path) -> Path:
        """A wheel of this package that this interpreter can use and whose hash the lock names: a checked copy.

        Args:
            pin: of a lock.
            into: a folder for copies.

        Raises:
            NoWheel: there is none, or none with such a hash.
        """
        other = False
        if self.folder is not None and self.folder.is_dir():
            for name in best(pin, [p.name for p in self.folder.glob("*.whl")]):
                path = self.folder / name
                copy = into / path.name
                with path.open("rb") as source:
                    if _copied(iter(lambda: source.read(_PIECE), b""), copy) in pin.hashes:
                        return copy
                copy.unlink()
                other = True
        if self.index is not None:
            found = _from_index(self.index, pin, into)
            if found is not None:
                return found
        why = "none of the wheels has a hash that the lock names" if other else "there is no wheel for this interpreter"
        raise NoWheel(f"{pin}: {why}")


def best(pin: Pin, names: Iterable[str]) -> list[str]:
    """Of files those that are wheels of this version for this interpreter, the best fitting first."""
    from packaging.tags import sys_tags
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    order = {tag: place for place, tag in enumerate(sys_tags())}
    found: list[tuple[int, str]] = []
    for name in names:
        try:
            project, version, _, tags = parse_wheel_filename(name)
        except InvalidWheelFilename:
            continue
        fits = [order[tag] for tag in tags if tag in order]
        if project == pin.name and str(version) == pin.version and fits:
            found.append((min(fits), name))
    return [name for _, name in sorted(found)]


def _copied(pieces: Iterable[bytes], to: Path) -> str:
    """Write a file; its SHA-256 in hex. Raises NoWheel: it is longer than any wheel may be."""
    running, size = hashlib.sha256(), 0
    with to.open("wb") as sink:
        for piece in pieces:
            size += len(piece)
            if size > MAX_WHEEL:
                raise NoWheel(f"{to.name} has more than {MAX_WHEEL} bytes")
            running.update(piece)
            sink.write(piece)
    return running.hexdigest()


def _from_index(index: str, pin: Pin, into: Path) -> Path | None:
    """A checked copy of a wheel that an index lists with one of the lock's hashes; ``None`` where it lists none."""
    page = f"{index.rstrip('/')}/{pin.name}/"
    try:
        with closing(Client(page, timeout=60)) as client:
            listed = wire.loads(client.get("", headers={"accept": _INDEX_TYPE}, max_bytes=MAX_PAGE), max_bytes=MAX_PAGE)
        named = [f for f in listed["files"] if f["hashes"].get("sha256") in pin.hashes]
        files = {PurePosixPath(str(f["filename"])).name: str(f["url"]) for f in named}
    except StrongroomError as error:
        raise NoWheel(f"{pin}: the index does not answer with a list in JSON ({error.code})") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise NoWheel(f"{pin}: the index answers with something else than a list") from error
    for name in best(pin, files):
        copy, address = into / name, urlsplit(urljoin(page, files[name]))
        way = urlunsplit(("", "", address.path, address.query, ""))
        with (
            closing(Client(f"{address.scheme}://{address.netloc}", timeout=60)) as client,
            client.stream("GET", way) as answer,
        ):
            if _copied(answer.iter_bytes(_PIECE), copy) in pin.hashes:
                return copy
        raise NoWheel(f"{pin}: the index served other bytes than the lock's hash is of")
    return None


@dataclass
class Unpacked:
    """What wheels wrote into one folder.

    Attributes:
        folder: an empty one.
        digests: SHA-256 in hex by relative path.
    """

    folder: Path
    digests: dict[str, str] = field(default_factory=dict)
    _left: int = MAX_UNPACKED

    def add(self, wheel: Path, pin: Pin) -> None:
        """Unpack a wheel whose hash was checked.

        Raises:
            WheelRefused: it is no archive, holds what nobody may write there, or more than an environment may hold.
        """
        try:
            with zipfile.ZipFile(wheel) as archive:
                for entry in archive.infolist():
                    path = _place(entry, pin)
                    if path:
                        with archive.open(entry) as source:
                            self._write(path, source, pin)
        except _UNREADABLE as error:
            raise WheelRefused(f"{pin}: the wheel is no archive that can be read") from error
        except OSError as error:  # a disk that is full is no fault of the wheel
            raise WheelRefused(f"{pin}: the wheel cannot be unpacked: {error.strerror or 'it is no archive'}") from error

    def _write(self, path: str, source: IO[bytes], pin: Pin) -> None:
        if len(self.digests) >= MAX_ENTRIES:
            raise WheelRefused(f"{pin}: an environment has at most {MAX_ENTRIES} files")
        target, running = self.folder / path, hashlib.sha256()
        target.parent.mkdir(parents=True, exist_ok=True)
        known = self.digests.get(path)
        partial = target.with_name(target.name + ".partial")
        with partial.open("xb") as sink:
            while piece := source.read(_PIECE):
                self._left -= len(piece)  # counted as it comes: what an archive says of its sizes is not believed
                if self._left < 0:
                    raise WheelRefused(f"{pin}: an environment holds at most {MAX_UNPACKED} bytes")
                running.update(piece)
                sink.write(piece)
        if known is not None and known != running.hexdigest():
            raise WheelRefused(f"{pin}: another package of the lock has a file {path[:200]!r} too, and a different one")
        partial.rename(target)
        self.digests[path] = running.hexdigest()


def _place(entry: zipfile.ZipInfo, pin: Pin) -> str:
    """Where an entry of a wheel goes, relative; ``""`` for what is left out: folders, scripts, bytecode.

    Raises:
        WheelRefused: outside the folder, a link, a ``.pth`` file, or a module in the place of one that is not theirs.
    """
    name = entry.filename
    path = PurePosixPath(name)
    if name.startswith("/") or "\\" in name or "\0" in name or ".." in path.parts or ":" in name.split("/")[0]:
        raise WheelRefused(f"{pin}: the wheel holds a file outside of its folder")
    mode = entry.external_attr >> 16
    if mode and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or not stat.S_IFMT(mode)):
        raise WheelRefused(f"{pin}: the wheel holds a link or a device")
    parts = list(path.parts)
    if entry.is_dir() or not parts:
        return ""
    if parts[0].endswith(".data"):
        if len(parts) < 3 or parts[1] not in ("purelib", "platlib"):
            return ""  # scripts, headers and data of a machine: a run has no use for them
        parts = parts[2:]
    if "__pycache__" in parts:
        return ""
    top = parts[0].partition(".")[0]
    if len(parts) == 1 and parts[0].endswith(".pth"):
        raise WheelRefused(f"{pin}: the wheel holds a .pth file ({parts[0][:100]!r}), which would run when Python starts")
    module = len(parts) > 1 or parts[0].endswith((".py", ".pyc", ".so"))
    theirs = top in LIBRARIES and pin.name != top  # who reads the lock would not look for it under another name
    if module and (top in sys.stdlib_module_names or top in _OURS or theirs):
        raise WheelRefused(f"{pin}: the wheel holds a module {top!r}, which would take the place of another")
    return "/".join(parts)
