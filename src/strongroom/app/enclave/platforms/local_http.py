"""Asking what answers HTTP inside a machine: dstack's guest agent, a cloud's metadata service. Bounded in size and time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from strongroom import wire
from strongroom.errors import PlatformFailed, WireError

if TYPE_CHECKING:
    import httpx

MAX_ANSWER_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class LocalHttp:
    """One such service.

    Attributes:
        who: what it is, for messages.
        url: its address; a name without meaning where ``transport`` leads to a socket.
        seconds: how long one answer may take, in all.
        transport: makes what carries a request; none of the environment's proxies is used.
        clock: seconds that only go forward.
    """

    who: str
    url: str
    seconds: float
    transport: Callable[[], httpx.BaseTransport] | None = None
    clock: Callable[[], float] = time.monotonic

    def ask(
        self, method: str, path: str, body: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> Mapping[str, Any]:
        """The members of the answer, a JSON object. Unknown ones are left alone: the format is the service's own, and grows.

        Raises:
            PlatformFailed: no usable answer.
        """
        data = self._fetch(method, path, None if body is None else dict(body), dict(headers or {}))
        try:
            said = wire.loads(data, max_bytes=MAX_ANSWER_BYTES)
        except WireError as error:
            raise PlatformFailed(f"the answer of {self.who} to {path} is not JSON") from error
        if not isinstance(said, dict):
            raise PlatformFailed(f"the answer of {self.who} to {path} is not an object")
        return said

    def _fetch(self, method: str, path: str, body: dict[str, str] | None, headers: dict[str, str]) -> bytes:
        import httpx

        began, data = self.clock(), b""
        transport = self.transport() if self.transport else httpx.HTTPTransport()
        try:
            with (
                httpx.Client(transport=transport, base_url=self.url, timeout=self.seconds, trust_env=False) as client,
                client.stream(method, path, json=body, headers={**headers, "accept-encoding": "identity"}) as answer,
            ):
                if answer.status_code != httpx.codes.OK:
                    raise PlatformFailed(f"{self.who} answered {path} with HTTP {answer.status_code}")
                if "content-encoding" in answer.headers:  # not asked for, and a few bytes could become very many
                    raise PlatformFailed(f"{self.who} answered {path} in an encoding that it was not asked for")
                for piece in answer.iter_bytes():
                    data += piece
                    if len(data) > MAX_ANSWER_BYTES:
                        raise PlatformFailed(f"{self.who} answered {path} with more than {MAX_ANSWER_BYTES} bytes")
                    if self.clock() - began > self.seconds:
                        raise PlatformFailed(f"{self.who} takes longer than {self.seconds:.0f} s for {path}")
        except (httpx.HTTPError, OSError) as error:
            raise PlatformFailed(f"{self.who} does not answer at {self.url}{path}: {error.__class__.__name__}") from error
        return data
