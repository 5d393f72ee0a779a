"""A code bundle as a reviewer reads it: text files, and the packages of its lock. Nothing of it is executed.

It is read even where no enclave would take it, such as for a character that no screen shows: a reviewer is to see that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from strongroom import wire
from strongroom.code import texts
from strongroom.errors import ManifestMismatch
from strongroom.lock import Lock, Pin


@dataclass(frozen=True, slots=True)
class Package:
    """One package of a lock: its normal name, its version (and for which machines), and the hashes of its files."""

    name: str
    version: str
    hashes: tuple[str, ...]

    @classmethod
    def of(cls, pin: Pin) -> Package:
        version = pin.version if pin.marker is None else f"{pin.version} ({pin.marker})"
        return cls(pin.name, version, tuple(f"sha256:{digits}" for digits in pin.hashes))


@dataclass(frozen=True, slots=True)
class Code:
    """What a bundle holds. The bytes are those of the digest; what they say is a stranger's.

    Attributes:
        digest: of the bundle's bytes.
        files: path to text.
        lock: its packages, or ``None``.
    """

    digest: str
    files: Mapping[str, str]
    lock: Lock | None

    @property
    def packages(self) -> tuple[Package, ...]:
        """The packages that the lock names, sorted."""
        found = map(Package.of, self.lock.pins if self.lock else ())
        return tuple(sorted(found, key=lambda package: (package.name, package.version)))


def read_code(data: bytes, digest: str) -> Code:
    """The bundle with this digest.

    Args:
        data: untrusted bytes.
        digest: which bundle it should be.

    Raises:
        ManifestMismatch: the bytes are of another bundle. WireError and its leaves, BadBundle, BadLock: they are none.
    """
    if wire.digest(data) != digest:
        raise ManifestMismatch("the bytes are not those of the bundle", hint="Do not approve it; fetch it again.")
    files, lock = texts(data)
    return Code(digest, MappingProxyType(files), lock)
