"""The way to an enclave: ask it to run a contract, and watch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from strongroom import wire
from strongroom.app.http import Client
from strongroom.errors import BadReceipt, TooLarge, from_json
from strongroom.receipt import MAX_BUNDLE_BYTES, Bundle
from strongroom.wire import Envelope


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


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    kept = b""
    for piece in pieces:
        kept += piece
        if len(kept) > MAX_BUNDLE_BYTES:
            raise TooLarge("the enclave's answer is too long")
        *whole, kept = kept.split(b"\n")
        yield from whole
