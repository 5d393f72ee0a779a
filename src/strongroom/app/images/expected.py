"""The registers that an image should have, and how its files are read: as streams, with a cap."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path

from strongroom.attest.evidence import Measurement
from strongroom.errors import NotMeasurable
from strongroom.wire import JSON

MAX_PART_BYTES = 16 << 30  # of a kernel, an initial disk, an image
CHUNK_BYTES = 1 << 20
LOOK = "Look at the file: it is not what this platform starts."


def unfit(message: str, hint: str = LOOK) -> NotMeasurable:
    """The error for a file from which nothing can be computed."""
    return NotMeasurable(message, hint=hint)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What an image should measure.

    Attributes:
        platform: the platform's name.
        registers: register to digest, of those that follow from the files.
        missing: register to where it comes from, of those that do not.
        build: what the registers were computed from: digests of the files, and how the machine is laid out.
    """

    platform: str
    registers: Mapping[str, str]
    missing: Mapping[str, str] = field(default_factory=dict)
    build: str

    def to_json(self) -> dict[str, JSON]:
        """What ``attest policy --reference`` reads; where a register is missing, what it refuses. Raises BadMeasurement."""
        found = Measurement(self.platform, self.registers)
        if self.missing:
            computed: dict[str, JSON] = dict(found.registers)
            return {"build": self.build, "computed": computed, "missing": dict(self.missing), "platform": self.platform}
        return {"build": self.build, **found.to_json()}


@contextmanager
def opened(path: Path, *, max_bytes: int = MAX_PART_BYTES) -> Iterator[tuple[BufferedReader, int]]:
    """A regular file and its size in bytes.

    Raises:
        NotMeasurable: it cannot be read, is no regular file, is empty, or larger than that.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise unfit(f"{path} is no regular file")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if not 0 < size <= max_bytes:
                raise unfit(f"{path} has more than {max_bytes} bytes" if size else f"{path} is empty")
            yield file, size
    except OSError as error:
        raise unfit(f"cannot read {path}: {error.strerror or error.__class__.__name__}", "Name an existing file.") from error


def sha256_of(path: Path) -> bytes:
    """The SHA-256 of a file, read as a stream. Raises NotMeasurable."""
    with opened(path) as (file, _):
        return hashlib.file_digest(file, "sha256").digest()
