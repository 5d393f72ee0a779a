"""Evidence of a dstack service: its guest agent hands out quotes on a socket, with the log of what was started.

See the agent's API (``dstack_guest.DstackGuest``: GetQuote, Info): HTTP over a Unix socket, JSON, bytes as hex.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strongroom.attest.evidence import MAX_EVENT_LOG_BYTES, REPORT_DATA_BYTES, Endorsements, Evidence
from strongroom.errors import PlatformFailed

from .local_http import MAX_ANSWER_BYTES, LocalHttp

if TYPE_CHECKING:
    import httpx

PATH = Path("/var/run/dstack.sock")
PLATFORM = "dstack"
SECONDS = 30.0  # a quote is made outside the guest
MAX_QUOTE_BYTES = 64 << 10
_HEX = re.compile(r"(?:[0-9a-f]{2})*\Z")


@dataclass(frozen=True, slots=True)
class Quote:
    """The agent's answer to GetQuote.

    Attributes:
        quote: Intel's quote.
        event_log: JSON, as the agent spells it.
        vm_config: JSON, as the agent spells it; empty where an old agent has none.
    """

    quote: bytes
    event_log: bytes
    vm_config: bytes


@dataclass(frozen=True, slots=True)
class Info:
    """What the agent says of its own service. Nothing that anybody signed: for people.

    Attributes:
        app_id, instance_id, compose_hash: lowercase hex; empty where it is not said.
        app_name: as its owner named it.
    """

    app_id: str
    instance_id: str
    compose_hash: str
    app_name: str


class Dstack:
    """A dstack guest agent. Implements ``attest.evidence.Platform``; several threads may ask at once.

    Args:
        path: its socket.
        seconds: how long one answer may take, in all.
        clock: seconds that only go forward.

    Raises:
        PlatformFailed: from every method, when the agent gives no usable answer.
    """

    def __init__(self, path: Path = PATH, *, seconds: float = SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        def transport() -> httpx.BaseTransport:
            import httpx

            if not path.is_socket():
                raise PlatformFailed(f"there is no dstack agent at {path}")
            return httpx.HTTPTransport(uds=str(path))

        self._agent = LocalHttp(f"the dstack agent at {path}", "http://dstack", seconds, transport, clock)

    def produce(self, report_data: bytes) -> Evidence:
        """Have the processor sign 64 bytes, through the agent."""
        found = self.quote(report_data)
        return Evidence(PLATFORM, found.quote, event_log=found.event_log)

    def endorsements(self) -> Endorsements:
        """None: the agent has none to hand out."""
        return Endorsements()

    def quote(self, report_data: bytes) -> Quote:
        """GetQuote."""
        if len(report_data) != REPORT_DATA_BYTES:
            raise PlatformFailed(f"report data is not {REPORT_DATA_BYTES} bytes long")
        said = self._agent.ask("POST", "/GetQuote", {"report_data": report_data.hex()})
        if _bytes(said, "report_data", REPORT_DATA_BYTES) != report_data:
            raise PlatformFailed("the dstack agent answered for other report data")
        quote = _bytes(said, "quote", MAX_QUOTE_BYTES)
        if report_data not in quote:
            raise PlatformFailed("the quote is not of the bytes that were to be signed")
        log = _text(said, "event_log", MAX_EVENT_LOG_BYTES).encode()
        return Quote(quote, log, _text(said, "vm_config", MAX_ANSWER_BYTES, needed=False).encode())

    def info(self) -> Info:
        """Info."""
        said = self._agent.ask("POST", "/Info", {})
        app, instance, compose = (
            _bytes(said, name, 64, needed=False).hex() for name in ("app_id", "instance_id", "compose_hash")
        )
        return Info(app, instance, compose, _text(said, "app_name", 256, needed=False))


def _text(said: Mapping[str, Any], name: str, most: int, *, needed: bool = True) -> str:
    found = said.get(name, None if needed else "")
    if not isinstance(found, str) or len(found.encode("utf-8", "replace")) > most:
        raise PlatformFailed(f"the dstack agent's {name} is not a string of at most {most} bytes")
    return found


def _bytes(said: Mapping[str, Any], name: str, most: int, *, needed: bool = True) -> bytes:
    found = _text(said, name, 2 * most, needed=needed)
    if not _HEX.match(found):
        raise PlatformFailed(f"the dstack agent's {name} is not lowercase hex")
    return bytes.fromhex(found)
