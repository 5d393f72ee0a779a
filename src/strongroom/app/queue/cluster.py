"""Enclaves that a Ray cluster starts, one an actor, spread over its nodes.

The cluster decides where an enclave runs and sees every request and every receipt. It is as untrusted as any host: the
enclave on a node proves itself to the owners' brokers, and a process that is none gets no key.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from strongroom import wire
from strongroom.app.cli.fleet import START_SECONDS
from strongroom.errors import BadAnswer, MissingExtra, NoCluster, NotFound, StrongroomError, Unreachable, from_json
from strongroom.receipt import MAX_BUNDLE_BYTES, Bundle
from strongroom.wire import Envelope

from .node import Node

_LOG = logging.getLogger("strongroom.queue")
POLL_SECONDS = 0.5
ASK_SECONDS = 20.0
CLOSE_SECONDS = 10.0
CONNECT_SECONDS = 5.0


def _ray() -> Any:
    """Raises MissingExtra."""
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("a cluster needs Ray", hint="pip install 'strongroom[ray]'") from error
    return ray


def _read(data: bytes) -> dict[str, Any]:
    """An enclave's answer. Raises what stands in its place, BadField."""
    value = wire.decode(data, max_bytes=MAX_BUNDLE_BYTES)
    if isinstance(value, dict) and "error" in value:
        raise from_json(value["error"])
    if not isinstance(value, dict):
        raise BadAnswer("the enclave's answer is no object")
    return value


class Cluster:
    """A Ray cluster (``places.Place``).

    Args:
        address: ``ray://HOST:PORT``, of its port for clients.
        words: the command that starts an enclave on a node, after ``strongroom``.
        enclaves: how many at most, each for one job at a time.

    Raises:
        MissingExtra. NoCluster: it does not answer.
    """

    def __init__(self, address: str, words: Sequence[str], *, enclaves: int) -> None:
        self._ray, self._address, self._words = _ray(), address, list(words)
        self._places = threading.BoundedSemaphore(enclaves)
        self._lock = threading.Lock()
        self._idle: list[Any] = []
        self._busy: dict[str, Any] = {}  # by job
        self._connect()

    def _connect(self) -> None:
        where = urlsplit(self._address)
        try:  # Ray itself says so only after half a minute
            socket.create_connection((where.hostname or "", where.port or 0), timeout=CONNECT_SECONDS).close()
        except (OSError, ValueError) as error:
            raise NoCluster(f"nothing answers at {self._address}") from error
        try:
            self._ray.init(self._address, namespace="strongroom", ignore_reinit_error=True, logging_level=logging.WARNING)
        except Exception as error:  # whatever a library of that size raises
            raise NoCluster(f"no Ray cluster answers at {self._address}: {error.__class__.__name__}") from error

    def _started(self) -> Any:
        """An enclave that has nothing to do, or a new one. Raises Unreachable."""
        with self._lock:
            while self._idle:
                found = self._idle.pop()
                with suppress(Exception):
                    if self._get(found.alive.remote()):
                        return found
                self._end(found)
        made = self._ray.remote(num_cpus=1, max_restarts=0, max_concurrency=4, scheduling_strategy="SPREAD")(Node)
        node = made.remote(self._words)
        if not self._get(node.alive.remote(), START_SECONDS):
            raise Unreachable("the enclave that the cluster started has ended")
        return node

    def _get(self, waited: Any, seconds: float = ASK_SECONDS) -> Any:
        return self._ray.get(waited, timeout=seconds)

    def _end(self, node: Any) -> None:
        with suppress(Exception):
            self._ray.kill(node)

    def run(self, job: str, request: Envelope, began: Callable[[], None]) -> Bundle:
        """As ``places.Place.run``. An actor that is lost, or a cluster, is an enclave that ended: Unreachable."""
        with self._places:
            node: Any = None
            try:
                if not self._ray.is_initialized():
                    self._connect()
                node = self._started()
                with self._lock:
                    self._busy[job] = node
                data = self._followed(node, job, request.encode(), began)
            except StrongroomError:
                self._done(job, node, well=False)
                raise
            except Exception as error:
                self._done(job, node, well=False)
                _LOG.warning("the cluster lost a job's enclave: %s", error.__class__.__name__)
                raise Unreachable(f"the cluster lost the enclave: {error.__class__.__name__}") from error
            self._done(job, node, well=True)
        return Bundle.parse(wire.encode(_read(data).get("bundle")))

    def _followed(self, node: Any, job: str, request: bytes, began: Callable[[], None]) -> bytes:
        began()  # from here on a key may have been released
        waited = node.run.remote(job, request)
        while True:
            ready, _ = self._ray.wait([waited], timeout=POLL_SECONDS)
            if ready:
                found = self._ray.get(waited)
                if not isinstance(found, bytes):
                    raise Unreachable("the cluster answered with something else than bytes")
                return found

    def _done(self, job: str, node: Any, *, well: bool) -> None:
        with self._lock:
            self._busy.pop(job, None)
            if well and node is not None:
                self._idle.append(node)
                return
        if node is not None:
            self._end(node)

    def post(self, job: str, path: str, content: bytes) -> bytes:
        with self._lock:
            node = self._busy.get(job)
        if node is None:
            raise NotFound("no enclave runs this job now")
        try:
            found = self._get(node.post.remote(job, path, content))
        except Exception as error:
            raise Unreachable(f"the cluster lost the enclave: {error.__class__.__name__}") from error
        if not isinstance(found, bytes):
            raise Unreachable("the cluster answered with something else than bytes")
        _read(found)
        return found

    def close(self) -> None:
        """End every enclave that this queue had started."""
        with self._lock:
            nodes, self._idle, self._busy = [*self._idle, *self._busy.values()], [], {}
        for node in nodes:
            with suppress(Exception):
                self._get(node.close.remote(), CLOSE_SECONDS)
            self._end(node)
        with suppress(Exception):
            self._ray.shutdown()
