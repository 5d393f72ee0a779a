"""Every role as a process of its own on this machine: how ``up``, ``demo``, the tests and the benchmarks start and end them.

A role says on its standard output, in one JSON line, where it answers. It ends when its standard input does, so that no role
outlives whoever started it.
"""

from __future__ import annotations

import json
import os
import random
import select
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from strongroom.app.client.home import Config, Home, pretty, write
from strongroom.app.http import listen
from strongroom.errors import Conflict, EnclaveError, Unreachable

START_SECONDS = 240.0  # the first start of an enclave compiles all that it measured
STOP_SECONDS = 10.0
PORTS = range(20_000, 32_000)  # below those that Linux gives to connections going out (ip_local_port_range)
QUIET_SECONDS = 2.0


def _silent(_what: object) -> None:
    pass


def free_port(host: str = "127.0.0.1") -> int:
    """A port that is free, and of those that no connection going out takes by chance. Raises Conflict: there is none."""
    for port in random.SystemRandom().sample(PORTS, 64):
        with suppress(Conflict), listen(host, port):
            return port
    raise Conflict(f"no port of {host} from {PORTS[0]} to {PORTS[-1]} is free")


@dataclass
class Role:
    """A running role.

    Attributes:
        name: ``exchange``, ``broker of NAME``, ``enclave``.
        url: where it answers.
        seconds: how long it took to answer.
    """

    name: str
    process: subprocess.Popen[bytes]
    began: float
    url: str = ""
    seconds: float = 0.0

    def wait(self) -> None:
        """Until it answers. Raises Unreachable when it ends or takes too long."""
        stdout = self.stdout
        line = b""
        while not line.endswith(b"\n"):
            left = self.began + START_SECONDS - time.monotonic()
            ready, _, _ = select.select([stdout], [], [], max(left, 0))
            piece = os.read(stdout.fileno(), 4096) if ready else b""
            if not piece:
                self.stop()
                raise Unreachable(f"the {self.name} did not start", hint="Its own message is above.")
            line += piece
        self.url = json.loads(line.splitlines()[0])["url"]
        self.seconds = time.monotonic() - self.began

    @property
    def stdout(self) -> IO[bytes]:
        """Where it says its address."""
        assert self.process.stdout is not None
        return self.process.stdout

    @property
    def overdue(self) -> bool:
        """Whether it has taken longer to answer than it may."""
        return time.monotonic() > self.began + START_SECONDS

    def end(self) -> None:
        """Tell it to end."""
        if self.process.stdin and not self.process.stdin.closed:
            self.process.stdin.close()

    def stop(self) -> None:
        """Tell it to end, and wait until it has."""
        self.end()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self.process.kill()
        self.stop()


class Fleet:
    """An exchange, a broker for each party and an enclave, as processes.

    Args:
        home: the machine's folder.
        extras: what the enclave can import beside what ``strongroom[room]`` needs (``measure.EXTRAS``).
    """

    def __init__(self, home: Home, extras: Sequence[str] = ()) -> None:
        self.home = home
        self.extras = tuple(extras)
        self.roles: dict[str, Role] = {}
        self.config = self._addresses()

    def _addresses(self) -> Config:
        """The addresses used before, or free ones."""
        if (self.home.folder / "config.json").exists():
            return self.home.config
        config = Config(f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}")
        self.home.save_config(config)
        return config

    def _spawn(self, name: str, arguments: Sequence[str]) -> Role:
        command = [sys.executable, "-m", "strongroom", *arguments, "--home", str(self.home.folder), "--announce"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603 - our own verbs
        role = self.roles[name] = Role(name, process, time.monotonic())
        return role

    def start_exchange(self) -> Role:
        return self._spawn("exchange", ["exchange", "--port", self.config.exchange.rpartition(":")[2]])

    def start_broker(self, party: str) -> Role:
        arguments = ["broker", "--as", party, "--exchange-url", self.config.exchange]
        return self._spawn(f"broker of {party}", arguments)

    def start_enclave(self, contract: str | None = None) -> Role:
        """``contract``: the only one that may be opened there, where that is known."""
        port = self.config.enclave.rpartition(":")[2]
        arguments = ["enclave", "--platform", "simulated", "--port", port, "--exchange-url", self.config.exchange]
        arguments += [] if contract is None else ["--contract", contract]
        for extra in self.extras:
            arguments += ["--with", extra]
        return self._spawn("enclave", arguments)

    def start_queue(self, *words: str) -> Role:
        """Keep a queue of runs for the enclave, at the address used before or at a free one. ``words``: further ones."""
        if self.config.queue is None:
            self.config = Config(self.config.exchange, self.config.enclave, f"http://127.0.0.1:{free_port()}")
            self.home.save_config(self.config)
        assert self.config.queue is not None
        arguments = ["jobs", "serve", "--port", self.config.queue.rpartition(":")[2], "--enclave-url", self.config.enclave]
        return self._spawn("queue", [*arguments, "--exchange-url", self.config.exchange, *words])

    def start_proxy(self, party: str, contract: str, port: int) -> Role:
        """A local server for clients of the room that is open here. ``port``: a free one instead, where it is taken."""
        try:
            with listen("127.0.0.1", port):
                pass
        except Conflict:
            port = 0
        arguments = ["proxy", self.config.enclave, "--as", party, "--contract", contract, "--port", str(port)]
        role = self._spawn("proxy", arguments)
        role.wait()
        return role

    def start(
        self, *, enclave: bool = True, on_ready: Callable[[Role], None] = _silent, on_wait: Callable[[str], None] = _silent
    ) -> None:
        """Start everything side by side, and wait until all answer.

        Args:
            enclave: start one too.
            on_ready: called with each role once it answers.
            on_wait: called every two seconds with the names of those that do not answer yet.

        Raises:
            Unreachable: one ended, or took too long.
        """
        if enclave:  # the slowest first
            self.start_enclave()
        self.start_exchange()
        for party in self.home.parties():
            self.start_broker(party.name)
        waiting = [role for role in self.roles.values() if not role.url]
        while waiting:
            ready, _, _ = select.select([r.stdout for r in waiting], [], [], QUIET_SECONDS)
            if not ready:
                on_wait(", ".join(r.name for r in waiting))
            for role in [r for r in waiting if r.stdout in ready or r.overdue]:
                role.wait()
                waiting.remove(role)
                on_ready(role)

    def reference(self) -> Path:
        """Write what others need in order to trust this machine's enclave and log: roots, measurement, log key.

        Raises:
            EnclaveError: the installation cannot be measured.
        """
        from strongroom.app.enclave.keys import root_public_key
        from strongroom.app.enclave.measure import FileDigests, Installation
        from strongroom.app.exchange.key import log_key
        from strongroom.trust import Root, Trust

        values = Trust(
            roots=(Root("simulated", root_public_key(self.home.folder / "enclave")),),
            measurements=(Installation.here(self.extras).measure(FileDigests()),),
            logs=(log_key(self.home.folder / "exchange").verifier.vkey,),
        )
        path = self.home.folder / "reference.json"
        write(path, pretty(values.to_json()))
        return path

    def check(self) -> None:
        """Raises EnclaveError when a role has ended."""
        for name, role in self.roles.items():
            if role.process.poll() is not None:
                raise EnclaveError(
                    f"the {name} ended with status {role.process.returncode}", hint="Its own message is above."
                )

    def stop(self) -> None:
        """End what has a last word for the log (receipts, decisions), all at once; then the exchange, which takes it."""
        takes = [role for name, role in self.roles.items() if name == "exchange"]
        for roles in ([role for role in self.roles.values() if role not in takes], takes):
            for role in roles:
                role.end()
            for role in roles:
                role.stop()
        self.roles.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.stop()
