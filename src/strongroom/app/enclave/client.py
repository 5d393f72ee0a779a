"""The way to an enclave: ask it to run a contract, or to open a room and serve it, and watch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from strongroom import wire
from strongroom.app.http import Client
from strongroom.errors import BadAnswer, BadReceipt, TooLarge, from_json
from strongroom.receipt import MAX_BUNDLE_BYTES, Bundle
from strongroom.wire import Envelope, Fields


def run_contract(client: Client, request: Envelope, on_step: Callable[[str, str], None]) -> Bundle:
    """Have a contract run.

    Args:
        client: the way to the enclave.
        request: a party's signed request.
        on_step: called with each step and a word of detail, as the enclave tells them.

    Returns:
        the receipt's bundle, unverified.

    Raises:
        Unreachable, TooLarge; whatever error the enclave answers with, as the same class; BadReceipt when it ends without
        an answer.
    """
    headers = {"content-type": "application/json"}
    with client.stream("POST", "/v1/runs", content=request.encode(), headers=headers) as answer:
        for line in _lines(answer.iter_bytes()):
            event = wire.decode(line, max_bytes=MAX_BUNDLE_BYTES)
            if not isinstance(event, dict):
                break
            if "bundle" in event:
                return Bundle.parse(wire.encode(event["bundle"]))
            if "error" in event:
                raise from_json(event["error"])
            on_step(str(event.get("step"))[:40], str(event.get("detail"))[:200])
    raise BadReceipt(
        "the enclave ended the run without a receipt", hint="The run counts as used; ask the enclave's operator."
    )


def going(client: Client, request: Envelope) -> list[tuple[str, str]]:
    """Where the runs of a contract are that go on there: step and detail of each, as whoever asked for it hears them.

    Args:
        client: the way to the enclave.
        request: a party's signed request (``GoingRequest``), made just now.

    Raises:
        Unreachable; NotAParty, BadSignature: it is for the contract's parties; BadField: no such answer.
    """
    answer = client.post("/v1/going", request.encode())
    f = Fields(wire.decode(answer), "answer")
    runs = f.items("runs", lambda value: Fields(value, "run"), high=64)
    f.end()
    return [(run.text("step", max_chars=40), run.text("detail", max_chars=200)) for run in runs]


@dataclass(frozen=True, slots=True)
class OpenRoom:
    """A room that answers requests, as the enclave says. **Untrusted**: whoever sends it requests verifies it.

    Attributes:
        contract: the digest.
        keyset: the digest of the keyset that it attests.
        until: until when its keys were released, Unix seconds; it renews them by itself.
    """

    contract: str
    keyset: str
    until: int


def open_room(client: Client, request: Envelope, on_step: Callable[[str, str], None]) -> OpenRoom:
    """Have a standing contract's room opened. It takes the place of the one that is open there.

    Args:
        client: the way to the enclave.
        request: a party's signed request.
        on_step: called with each step and a word of detail.

    Raises:
        Unreachable, TooLarge; whatever error the enclave answers with, as the same class; BadAnswer when it ends without
        an answer.
    """
    headers = {"content-type": "application/json"}
    with client.stream("POST", "/v1/rooms", content=request.encode(), headers=headers) as answer:
        for line in _lines(answer.iter_bytes()):
            event = wire.loads(line, max_bytes=64 << 10)
            if not isinstance(event, dict):
                break
            if "room" in event:
                f = Fields(event["room"], "room")
                return OpenRoom(f.digest("contract"), f.digest("keyset"), f.integer("until"))
            if "error" in event:
                raise from_json(event["error"])
            on_step(str(event.get("step"))[:40], str(event.get("detail"))[:200])
    raise BadAnswer("the enclave ended without saying whether the room is open", hint="Ask its operator what it printed.")


def leave_spare(client: Client, request: Envelope) -> None:
    """Leave a request with an enclave that serves, for when its keyset has had all the requests that it may."""
    client.post("/v1/rooms?spare", request.encode())


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    kept = b""
    for piece in pieces:
        kept += piece
        if len(kept) > MAX_BUNDLE_BYTES:
            raise TooLarge("the enclave's answer is too long")
        *whole, kept = kept.split(b"\n")
        yield from whole
