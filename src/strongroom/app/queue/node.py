"""One enclave on a node of a cluster.

What runs jobs is that process, which proves itself to the owners' brokers. The cluster's own process beside it, this one,
starts it and carries signed requests to it and signed receipts back.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence

from strongroom import wire
from strongroom.app.cli.fleet import Role
from strongroom.errors import NotFound, StrongroomError
from strongroom.wire import Envelope

from .places import AtAddress


class Node:
    """Starts an enclave, and speaks to it on this node's own loopback. An actor of Ray.

    Only bytes and words go in and out: a request, a receipt's bundle or an error, each in canonical JSON.

    Args:
        words: the command, after ``strongroom``.
    """

    def __init__(self, words: Sequence[str]) -> None:
        command = [sys.executable, "-m", "strongroom", *words, "--host", "127.0.0.1", "--port", "0", "--announce"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603 - our own verb
        # It ends when its standard input does: with this process, however that ends.
        self._role = Role("enclave", process, time.monotonic())
        self._role.wait()
        self._place = AtAddress(self._role.url)

    def process(self) -> int:
        """The process id of the enclave's platform on this node."""
        return self._role.process.pid

    def alive(self) -> bool:
        return self._role.process.poll() is None

    def run(self, job: str, request: bytes) -> bytes:
        """Have a run made; ``{"bundle": …}`` or ``{"error": …}``."""
        try:
            bundle = self._place.run(job, Envelope.parse(request), lambda: None)
        except StrongroomError as error:
            return wire.encode({"error": error.to_json()})
        return wire.encode({"bundle": bundle.to_json()})

    def post(self, job: str, path: str, content: bytes) -> bytes:
        """Bring a party's word to the enclave; its answer, or ``{"error": …}``."""
        if path not in ("/v1/cancels", "/v1/going"):
            return wire.encode({"error": NotFound("there is nothing like it").to_json()})
        try:
            return self._place.post(job, path, content)
        except StrongroomError as error:
            return wire.encode({"error": error.to_json()})

    def close(self) -> None:
        self._role.stop()
