"""Two nodes of a real Ray cluster on this machine, for the tests that need one."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stage import until
from strongroom.app.cli.fleet import free_port

START_SECONDS = 120
OBJECTS = 80_000_000  # bytes; Ray's least, nearly
# A token of this cluster's own: whoever reaches an open one executes code on it.
OURS = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}


@contextmanager
def node(folder: Path, name: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A node of a cluster, a process with children of its own; all of them end with it."""
    log = (folder / f"{name}.log").open("wb")
    command = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", "--block", "--num-cpus=1"]
    options = ["--node-ip-address=127.0.0.1", f"--object-store-memory={OBJECTS}", "--disable-usage-stats"]
    env = {**os.environ, **OURS}
    with log:
        process = subprocess.Popen(
            [*command, *options, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, start_new_session=True
        )
    try:
        said = folder / f"{name}.log"
        until(lambda: process.poll() is not None or b"Ray runtime started" in said.read_bytes(), START_SECONDS)
        assert process.poll() is None, said.read_text()
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the session that this test began, and nothing else
        process.wait()


@contextmanager
def two_nodes(folder: Path) -> Iterator[tuple[str, str]]:
    """Two nodes with one processor each; the address for processes on a node, and that for clients."""
    short = Path("/tmp") / f"sr{os.getpid()}"  # the sockets' paths may have 107 characters
    port, clients = free_port(), free_port()
    head = ["--head", f"--port={port}", f"--ray-client-server-port={clients}", "--include-dashboard=false"]
    try:
        with node(folder, "head", *head, f"--temp-dir={short}"):
            # Ray may listen on another address than it was told; on the one asked for may be somebody else's cluster.
            (at,) = set(re.findall(rf"ray start --address='([0-9a-f.:\[\]]+:{port})'", (folder / "head.log").read_text()))
            with node(folder, "worker", f"--address={at}"):
                yield at, f"ray://{at.rpartition(':')[0]}:{clients}"
    finally:
        shutil.rmtree(short, ignore_errors=True)
