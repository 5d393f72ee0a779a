"""A simulated platform's keys, in a folder of its own.

See ``spec/attestation.md``.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from strongroom import wire
from strongroom.errors import PlatformFailed, StrongroomError
from strongroom.party import SigningKey, VerifyKey
from strongroom.wire import Fields

KEY_FORMAT = "strongroom-platform-key-v1"


def _read_key(path: Path, role: str) -> SigningKey:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor has no path
            status, data = os.fstat(descriptor), file.read(1024)
    except OSError as error:
        raise PlatformFailed(f"{path} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077 or status.st_uid != os.getuid():
        raise PlatformFailed(f"{path} is not a file of this user's alone", hint=f"chmod 600 {path}")
    try:
        f = Fields(wire.decode(data), "platform key")
        f.literal("format", KEY_FORMAT)
        f.literal("role", role)
        seed = f.hex("seed", size=32)
        f.end()
    except StrongroomError as error:
        raise PlatformFailed(f"{path} is not the {role} key of a platform: {error}") from error
    return SigningKey.from_seed(seed)


def _make_key(path: Path, role: str, entropy: Callable[[int], bytes]) -> None:
    """Write a fresh key, never over another; two platforms that start at once end with the same one."""
    document = {"format": KEY_FORMAT, "role": role, "seed": entropy(32).hex()}
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=".")  # 0600 from the start
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor has no path
            file.write(wire.encode(document))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        Path(draft).unlink()


@dataclass(frozen=True, slots=True, repr=False)
class PlatformKeys:
    """A simulated platform's keys.

    Attributes:
        root: vouches for the platform key; parties pin its public half.
        platform: signs evidence.
    """

    root: SigningKey
    platform: SigningKey

    @classmethod
    def open(cls, state: Path, entropy: Callable[[int], bytes] = os.urandom) -> PlatformKeys:
        """The keys in a folder, made on the first call.

        Args:
            state: the platform's own folder.
            entropy: fresh random bytes.

        Raises:
            PlatformFailed: the folder or a key in it cannot be used, or is readable by others.
        """
        found = []
        for role in ("root", "platform"):
            path = state / f"{role}.key"
            try:
                state.mkdir(mode=0o700, parents=True, exist_ok=True)
                if not os.path.lexists(path):
                    _make_key(path, role, entropy)
            except OSError as error:
                raise PlatformFailed(f"{path} cannot be written: {error.strerror}") from error
            found.append(_read_key(path, role))
        return cls(*found)


def root_public_key(state: Path) -> VerifyKey:
    """The key that parties pin if they accept this platform; made on the first call. Raises PlatformFailed."""
    return PlatformKeys.open(state).root.public
