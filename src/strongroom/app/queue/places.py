"""Where a queue has jobs run: an enclave at an address, or several that a cluster starts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Protocol

from strongroom.app.enclave.client import run_contract
from strongroom.app.http import Client
from strongroom.receipt import Bundle
from strongroom.wire import Envelope

RUN_TIMEOUT = 60.0  # seconds between two words of an enclave, which says something every two seconds
ASK_TIMEOUT = 15.0


class Place(Protocol):
    """Somewhere to run jobs. Safe to use from several threads."""

    def run(self, job: str, request: Envelope, began: Callable[[], None]) -> Bundle:
        """Have a run made.

        Args:
            job: what it is called here.
            request: the party's, as it came.
            began: called when an enclave has begun it: from then on a key may have been released.

        Raises:
            StrongroomError: what the enclave answers with. Unreachable, BadReceipt: it ended.
        """

    def post(self, job: str, path: str, content: bytes) -> bytes:
        """Bring a party's signed word to the enclave that runs a job. Raises what the enclave answers with, NotFound."""

    def close(self) -> None: ...


class AtAddress:
    """One enclave, which somebody started.

    Args:
        url: its address.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    def run(self, job: str, request: Envelope, began: Callable[[], None]) -> Bundle:
        del job
        with closing(Client(self._url, timeout=RUN_TIMEOUT)) as client:
            return run_contract(client, request, lambda _step, _detail: began())

    def post(self, job: str, path: str, content: bytes) -> bytes:
        del job
        with closing(Client(self._url, timeout=ASK_TIMEOUT)) as client:
            return client.post(path, content, max_bytes=1 << 20)

    def close(self) -> None:
        """There is nothing to close: the enclave is somebody else's."""
