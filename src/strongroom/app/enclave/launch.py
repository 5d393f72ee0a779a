"""How an enclave is started, so that it can import what was measured and nothing else.

An installed Python runs code that nobody looks at: ``.pth`` files, ``sitecustomize``, a package that some tool left behind,
bytecode beside its source written by another hand. So the enclave starts with none of it: the bare interpreter, isolated
(``-I``) and without ``site`` (``-S``), a fixed environment, bytecode only from a folder of the platform's own
(``-X pycache_prefix``), and an import path of two things: the standard library, and an *image*, a folder of links to the
measured packages. The flags, the environment and the lines of ``BOOTSTRAP`` are part of the measurement (register
``launch``).
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from strongroom import wire
from strongroom.errors import NotMeasurable, PlatformFailed

ENCLAVE_MODULE = "strongroom.app.enclave.server"
FLAGS = ("-I", "-S", "-X", "utf8")
ENVIRONMENT = {"LANG": "C.UTF-8", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
KEPT_IMAGES = 4  # about 40 MB each
UNTIED = "0"  # in place of a parent's process id: do not end with the parent

# Arguments: the standard library, the image, the parent's process id or UNTIED, the module, and the module's own arguments.
# PR_SET_PDEATHSIG (1) with SIGKILL (9): an enclave whose platform is gone must not go on; the kernel sees to it.
BOOTSTRAP = """\
import sys
library, image, parent, module = sys.argv[1:5]
sys.path[:] = [library, library + "/lib-dynload", image]
sys.argv[:] = [module, *sys.argv[5:]]
import os, runpy
if parent != "0":
    if sys.platform == "linux":
        import ctypes
        ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
    if os.getppid() != int(parent):
        raise SystemExit("the platform is gone")
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def register(module: str) -> str:
    """The ``launch`` register: the digest of how a module is started.

    Args:
        module: what runs; the platform signs another measurement for another module.
    """
    how = {"bootstrap": BOOTSTRAP, "environment": ENVIRONMENT, "flags": list(FLAGS), "module": module}
    return wire.digest(wire.encode(how))


@dataclass(frozen=True, slots=True)
class Image:
    """A folder of links to the measured packages, and a folder for the bytecode compiled from them.

    Attributes:
        interpreter: the real interpreter, not a virtual environment's link to it.
        library: the standard library.
        packages: the folder of links; the second and last entry of the import path.
        pycache: where bytecode is read and written. It lies in the platform's own folder and is named for the measurement:
            bytecode planted beside the sources is never run, and bytecode of other sources is never found.
    """

    interpreter: Path
    library: Path
    packages: Path
    pycache: Path

    def command(self, module: str, *arguments: str, parent: int | None = None) -> list[str]:
        """The command that starts a module from this image.

        Args:
            module: its name.
            arguments: its arguments.
            parent: the process with which it must end, or ``None``.
        """
        prefix = (str(self.interpreter), *FLAGS, "-X", f"pycache_prefix={self.pycache}", "-c", BOOTSTRAP)
        tie = UNTIED if parent is None else str(parent)
        return [*prefix, str(self.library), str(self.packages), tie, module, *arguments]


def build(images: Path, name: str, links: dict[str, Path], interpreter: Path, library: Path) -> Image:
    """Make an image, or find the one that was made earlier.

    Args:
        images: a folder of this user's alone.
        name: the measurement's digest.
        links: top-level name to the measured file or folder.
        interpreter, library: the interpreter and its standard library.

    Raises:
        NotMeasurable: an image of this name is there whose links were altered, or others may write where images are kept.
    """
    wanted = {top: str(target) for top, target in links.items()}
    # Two installations of the same bytes lie in different folders: they share a measurement, never an image.
    where = {"interpreter": str(interpreter), "library": str(library), "links": dict(wanted), "measurement": name}
    folder = images / wire.digest(wire.encode(where)).removeprefix("sha256:")
    image = Image(interpreter, library, folder / "packages", folder / "pycache")
    images.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = images.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise NotMeasurable(f"others may write in {images}", hint=f"chmod 700 {images}")
    if not folder.exists():
        draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix="."))
        (draft / "packages").mkdir()
        (draft / "pycache").mkdir(mode=0o700)
        for top, target in wanted.items():
            (draft / "packages" / top).symlink_to(target)
        try:
            draft.rename(folder)
        except OSError:  # another platform on this folder made it first; it is looked at below like any other
            if not folder.exists():
                raise
    found = {entry.name: str(entry.readlink()) if entry.is_symlink() else "" for entry in image.packages.iterdir()}
    if found != wanted:
        raise NotMeasurable(f"the image {folder} was altered", hint=f"Remove {folder} and start the platform again.")
    return image


def _hold(image: Image) -> int:
    """Mark an image as in use for as long as the descriptor is open, and remove old ones that nobody uses."""
    folder = image.packages.parent
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        os.utime(folder)
        _remove_old(folder.parent)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def held(image: Image) -> Iterator[None]:
    """Mark an image as in use while the block runs, and remove old ones that nobody uses."""
    descriptor = _hold(image)
    try:
        yield
    finally:
        os.close(descriptor)


def become(image: Image, module: str, *arguments: str) -> NoReturn:
    """Put a module of an image in this process's place. What it keeps are the standard streams, and the mark of ``held``."""
    os.set_inheritable(_hold(image), True)
    command = image.command(module, *arguments)
    os.execve(command[0], command, ENVIRONMENT)  # noqa: S606 - the command is the image's own


def warm(image: Image, modules: Sequence[str]) -> None:
    """Compile modules' bytecode into an image, once.

    Raises:
        PlatformFailed: one cannot be imported from it.
    """
    done = image.pycache.parent / "warm"
    if not modules or done.exists():
        return
    command = image.command("strongroom.app.enclave.warm", *modules, parent=os.getpid())
    ended = subprocess.run(command, env=ENVIRONMENT, stdin=subprocess.DEVNULL, check=False)  # noqa: S603 - our own
    if ended.returncode != 0:
        raise PlatformFailed(
            "what an enclave needs cannot be imported", hint="Install it again: pip install 'strongroom[room]'"
        )
    done.touch()


def _remove_old(place: Path) -> None:
    images = [entry for entry in place.iterdir() if entry.is_dir() and not entry.is_symlink()]
    images.sort(key=lambda entry: entry.stat().st_mtime, reverse=True)
    for old in images[KEPT_IMAGES:]:
        _remove_unused(old)


def _remove_unused(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return  # an enclave runs from it
    else:
        shutil.rmtree(folder, ignore_errors=True)  # links are removed, never what they lead to
    finally:
        os.close(descriptor)
