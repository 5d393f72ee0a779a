"""The machine's own witness of a broker's book: the newest mark, kept in memory and on no disk.

No backup of a disk has it, and neither has a disk that is put back whole: it is gone when the machine starts again, as a
container's is with the container. Until then it shows that a book is the newest, also while the exchange is away.

See ``spec/mark.md``.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom.errors import StrongroomError, Unreachable, Usage
from strongroom.mark import Mark, require_known
from strongroom.wire import Envelope

if TYPE_CHECKING:
    from strongroom.party import SigningKey, VerifyKey

MOUNTS = Path("/proc/self/mountinfo")
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own in it, whose owner and mode are looked at
MAX_BYTES = 8192
_STAYS = "this machine keeps an older mark of this broker's book, and can neither replace it nor take it away"
_LOG = logging.getLogger("strongroom.broker")


def in_memory(folder: Path, mounts: Path = MOUNTS) -> bool:
    """Whether a folder lies on no disk: by what Linux says of where it is mounted; ``False`` where that is not known."""
    try:
        device = folder.stat().st_dev
        lines = mounts.read_text(errors="replace").splitlines()
    except OSError:
        return False
    numbers = f"{os.major(device)}:{os.minor(device)}"
    return any(" - tmpfs " in line and line.split(" ")[2] == numbers for line in lines)


class Machine:
    """Keeps one mark of each broker on this machine that this user runs.

    Where nothing can be kept, or somebody else made the folder, it has no mark: then it is as if there were no such witness.

    Args:
        folder: in memory; made where there is none; for this user alone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def here(cls, environment: Mapping[str, str] = os.environ, shared_memory: Path = SHARED_MEMORY) -> Machine | None:
        """In shared memory, or where ``$STRONGROOM_MEMORY`` says; ``None`` where nothing was said, and there is none.

        Raises:
            Usage: what was said is a folder on a disk, or is not there: who said so counts on it.

        One place alone, and none that comes and goes with a login: an older mark in a second one would speak for the book.
        """
        named = environment.get("STRONGROOM_MEMORY")
        if named and not in_memory(Path(named)):
            raise Usage(f"STRONGROOM_MEMORY={named} is no folder in memory", hint="Name a tmpfs, or unset it for /dev/shm.")
        if named:
            return cls(Path(named) / "strongroom")
        return cls(shared_memory / f"strongroom-{os.geteuid()}") if in_memory(shared_memory) else None

    @property
    def usable(self) -> bool:
        """Whether a mark could be kept here: not where somebody else made the folder first."""
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            self._own()
        except OSError:
            return False
        return True

    def mark(self, broker: VerifyKey) -> Mark | None:
        """What was left here; ``None`` where nothing is, or nothing that this broker signed."""
        try:
            self._own()
            return self._read(self._path(broker), broker)
        except (OSError, StrongroomError):
            return None

    def put(self, mark: Mark, key: SigningKey, head_at: Callable[[int], str | None]) -> bool:
        """Leave a mark, if what is here is in the book.

        Args:
            mark: the book's.
            key: the broker's own, which signs it.
            head_at: as of :func:`mark.require_known`.

        Returns:
            Whether it is here now; ``False`` where nothing can be kept. Then no older one is here either: it would speak for
            a book that was put back.

        Raises:
            BookRestored: what is here is not in the book. Nothing is changed then.
            Unreachable: an older one is here, and can be neither replaced nor removed.
        """
        path = self._path(mark.broker)
        try:
            with self._alone(path):
                found = self._read(path, mark.broker)
                require_known(found, head_at)
                if found is None or found.number < mark.number:
                    try:
                        _replace(path, mark.sign(key).encode())
                    except OSError:
                        path.unlink(missing_ok=True)  # which is in the book: nobody else's
                        raise
        except OSError as error:
            _LOG.debug("this machine keeps no mark: %s", error.__class__.__name__)
            self._require_none(path)
            return False
        return True

    def _require_none(self, path: Path) -> None:
        """Raises Unreachable: a mark of ours is here, and may be older than what is given next."""
        try:
            if self.folder.lstat().st_uid != os.geteuid():  # nor will it ever be ours
                return
            try:
                self._own()
            except OSError:  # open to others: it is not looked at now, and would be when it is closed to them again
                path.unlink(missing_ok=True)
            path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise Unreachable(_STAYS) from error
        raise Unreachable(_STAYS)

    def replace(self, mark: Mark, key: SigningKey) -> bool:
        """Leave a mark in the place of whatever is here: the broker's owner confirmed it. Whether it is here now."""
        path = self._path(mark.broker)
        try:
            with self._alone(path):
                _replace(path, mark.sign(key).encode())
        except OSError:
            return False
        return True

    def _path(self, broker: VerifyKey) -> Path:
        return self.folder / broker.keyid.removeprefix("sha256:")

    def _own(self) -> None:
        """Raises OSError: the folder is not there, or is somebody else's."""
        found = self.folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise PermissionError(f"{self.folder} is not this user's alone")

    @contextmanager
    def _alone(self, path: Path) -> Iterator[None]:
        """One process at a time."""
        import fcntl  # brokers run on Linux; who looks at them need not

        self.folder.mkdir(mode=0o700, exist_ok=True)
        self._own()
        lock = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _read(self, path: Path, broker: VerifyKey) -> Mark | None:
        try:
            with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as source:
                data = source.read(MAX_BYTES)
            return Mark.verify(Envelope.parse(data), broker)
        except (FileNotFoundError, StrongroomError):
            return None


def _replace(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as sink:
            sink.write(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
