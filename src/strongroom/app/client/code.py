"""A code bundle as a reviewer reads it: text files, and the lock of its environment. Nothing of it is executed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from strongroom import wire
from strongroom.errors import BadField, ManifestMismatch
from strongroom.wire import Fields

FORMAT = "strongroom.code.v1"
MAX_BUNDLE_BYTES = 4 << 20

_PIN = re.compile(r"^\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*==\s*([^\s;\\]+)", re.MULTILINE)
_HASH = re.compile(r"--hash=(sha256:[0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Package:
    """One package of a lock: its name as indexes write it, its version, and the hashes that its files may have."""

    name: str
    version: str
    hashes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Code:
    """What a bundle holds. The bytes are those of the digest; what they say is a stranger's.

    Attributes:
        digest: of the bundle's bytes.
        files: path to text.
        lock: the text of a pip lock, or ``None``.
    """

    digest: str
    files: Mapping[str, str]
    lock: str | None

    @property
    def packages(self) -> tuple[Package, ...]:
        """The packages that the lock names, sorted; a package without a hash is there without one."""
        if self.lock is None:
            return ()
        found = list(_PIN.finditer(self.lock))
        ends = [pin.start() for pin in found[1:]] + [len(self.lock)]
        return tuple(
            sorted(
                (
                    Package(normal(pin[1]), pin[2], tuple(sorted(_HASH.findall(self.lock, pin.end(), end))))
                    for pin, end in zip(found, ends, strict=True)
                ),
                key=lambda package: (package.name, package.version),
            )
        )


def normal(name: str) -> str:
    """A package's name as indexes compare it: lower case, one hyphen for each run of ``-``, ``_`` and ``.``."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_code(data: bytes, digest: str) -> Code:
    """The bundle with this digest.

    Args:
        data: untrusted bytes.
        digest: which bundle it should be.

    Raises:
        ManifestMismatch: the bytes are of another bundle. WireError and its leaves: they are none.
    """
    if wire.digest(data) != digest:
        raise ManifestMismatch("the bytes are not those of the bundle", hint="Do not approve it; fetch it again.")
    f = Fields(wire.decode(data, max_bytes=MAX_BUNDLE_BYTES, max_values=MAX_BUNDLE_BYTES), "code")
    f.literal("format", FORMAT)
    files, lock = f.any("files"), f.any("lock")
    f.end()
    if not isinstance(files, dict) or not files or not all(isinstance(text, str) for text in files.values()):
        raise BadField("code.files is not an object of texts")
    if lock is not None and not isinstance(lock, str):
        raise BadField("code.lock is not a text")
    return Code(digest, MappingProxyType(files), lock)
