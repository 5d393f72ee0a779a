"""A machine of its own: a network namespace with loopback alone, in which the other side's folder cannot be seen either.

Run as a program inside a new network and mount namespace, it brings loopback up, covers what is not to be seen, and becomes
the command that it is given.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from stage import Said

_UP, _SET_FLAGS = 0x1 | 0x40, 0x8914  # IFF_UP and IFF_RUNNING; SIOCSIFFLAGS


def _root() -> tuple[str, ...]:
    return () if os.geteuid() == 0 else ("--user", "--map-root-user")


@cache
def unavailable() -> str:
    """Why no such machine can be had here; empty where one can."""
    if not all(map(shutil.which, ("unshare", "nsenter", "mount"))):
        return "unshare, nsenter and mount are not installed"
    tried = subprocess.run(
        ["unshare", *_root(), "--net", "--mount", sys.executable, __file__, "/mnt", "true"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return "" if tried.returncode == 0 else f"no network namespace can be made here: {tried.stderr.strip()[-200:]}"


class Side:
    """One side of an air gap, where `strongroom up` is running.

    Args:
        home: the folder of its parties.
        party: who is there.
        process: what keeps the namespaces.
    """

    def __init__(self, home: Path, party: str, process: subprocess.Popen[str]) -> None:
        self.home, self.party, self._process = home, party, process

    def do(self, *command: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command there."""
        user = ("--user", "--preserve-credentials") if _root() else ()
        words = ["nsenter", "--target", str(self._process.pid), *user, "--net", "--mount", *map(str, command)]
        return subprocess.run(
            words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=300, cwd=cwd or self.home
        )

    def says(self, *words: object) -> Said:
        """Run a verb there, as a process of its own."""
        done = self.do(sys.executable, "-m", "strongroom", *words, "--home", self.home, "--as", self.party)
        return Said(done.returncode, done.stdout, done.stderr)


@contextmanager
def side(home: Path, hidden: Path, party: str) -> Iterator[Side]:
    """Start a side.

    Args:
        home: the folder of its parties; made.
        hidden: the other side's folder, which is not there for it.
        party: made, with a broker of its own.
    """
    home.mkdir(exist_ok=True)
    hidden.mkdir(exist_ok=True)
    up = [sys.executable, "-m", "strongroom", "up", "--home", str(home), "--party", party]
    words = ["unshare", *_root(), "--net", "--mount", sys.executable, __file__, str(hidden), *up]
    process = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=home
    )
    assert process.stdout
    try:
        screen = ""
        while "Ctrl-C ends all" not in screen:
            line = process.stdout.readline()
            assert line, screen
            screen += line
        yield Side(home, party, process)
    finally:
        process.terminate()
        process.communicate(timeout=60)


def main(hidden: str, *command: str) -> None:
    request = struct.pack("16sh14x", b"lo", _UP)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SET_FLAGS, request)
    subprocess.run(["mount", "-t", "tmpfs", "nothing", hidden], check=True)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
