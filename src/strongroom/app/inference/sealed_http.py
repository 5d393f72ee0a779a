"""How a request's body comes and an answer's goes: in the open, or sealed (``spec/ehbp.md``).

A sealed request says inside for which keyset it is, and that shows only once it opens: while a room is drained its key is
tried too, so that a client which knows the old keyset alone is answered all the same.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final

from strongroom.ehbp import ENCAPSULATED_KEY_HEADER, MEDIA_TYPE, EnclaveExchange, Writer
from strongroom.errors import BadRecord, KeyConfigMismatch, PlainBody, WrongMediaType
from strongroom.lm.request import MAX_BODY

from .rooms import Keeper

Headers = Sequence[tuple[bytes, bytes]]

_ENCAPSULATED: Final = ENCAPSULATED_KEY_HEADER.lower().encode()
_JSON: Final = "application/json"
_PASSED_ON: Final = frozenset({b"forwarded", b"via", b"x-real-ip"})
_SLACK: Final = 1 << 20  # frames, heads and records


def values(headers: Headers, name: bytes) -> list[str]:
    """Every value of a header."""
    return [value.decode("latin-1") for key, value in headers if key == name]


def one(headers: Headers, name: bytes) -> str | None:
    """A header's value; of several, none."""
    found = values(headers, name)
    return found[0] if len(found) == 1 else None


def passed_on(headers: Headers) -> bool:
    """Whether a header says that another machine passed the request on: then who asks is not who connects."""
    return any(name in _PASSED_ON or name.startswith(b"x-forwarded") for name, _ in headers)


def media_type(value: str | None) -> str:
    """A media type without its parameters."""
    return (value or "").split(";", 1)[0].strip().lower()


def is_sealed(headers: Headers) -> bool:
    """Whether a request comes sealed.

    Raises:
        WrongMediaType: neither sealed nor JSON, or compressed.
        BadRecord: encrypted by EHBP, and not sealed.
    """
    if any(value.strip().lower() != "identity" for value in values(headers, b"content-encoding")):
        raise WrongMediaType("compressed bodies are not taken")
    kind = media_type(one(headers, b"content-type"))
    if kind == MEDIA_TYPE:
        return True
    if values(headers, _ENCAPSULATED):
        raise BadRecord("the body is encrypted, and no sealed request: where it ends and for what it is stands nowhere")
    if kind != _JSON:
        raise WrongMediaType("the body is neither application/json nor a sealed request")
    return False


def require_plain(keeper: Keeper, *, carried: bool) -> None:
    """Require that a body may come in the open.

    Args:
        keeper: the room.
        carried: whether nobody between can read it: TLS ends here, or it does not leave the machine.

    Raises:
        PlainBody.
    """
    if not keeper.serve.plain_bodies:
        raise PlainBody("the contract takes encrypted requests alone")
    if not carried:
        raise PlainBody("bodies in the open are taken where TLS ends inside the enclave, and it does not here")


class Opening:
    """A sealed request as it arrives.

    Args:
        candidates: rooms whose key it may be for; the current one first.
        headers: of the request.
        method, target: of the request line.

    Attributes:
        keeper: the room that it is for, once that shows.
        exchange: the exchange with it, once its head was accepted.

    Raises:
        BadEncapsulatedKey.
    """

    def __init__(self, candidates: Sequence[Keeper], headers: Headers, *, method: str, target: str) -> None:
        self._encapsulated = values(headers, _ENCAPSULATED)
        self._method, self._target = method, target
        self._candidates = list(candidates)
        self._came: list[bytes] = []
        self.keeper = self._candidates.pop(0)
        self._reading = self._exchange(self.keeper)

    def _exchange(self, keeper: Keeper) -> EnclaveExchange:
        return EnclaveExchange(
            keeper.room.serving.requests,
            self._encapsulated,
            method=self._method,
            path=self._target,
            seen=keeper.seen,
            contract=keeper.contract.digest,
            max_body=MAX_BODY,
            max_wire=max_wire(keeper),
        )

    @property
    def exchange(self) -> EnclaveExchange | None:
        """The exchange, where its head was accepted: what is refused from then on is refused sealed."""
        return self._reading if self._reading.head is not None else None

    def feed(self, data: bytes) -> bytes:
        """Take what arrived; what of the body it holds. Raises EhbpError, WireError."""
        if self._reading.head is None:
            self._came.append(data)
        try:
            found = self._reading.feed(data)
        except KeyConfigMismatch:
            if not self._candidates:
                raise
            self.keeper = self._candidates.pop(0)
            self._reading = self._exchange(self.keeper)
            came, self._came = b"".join(self._came), []
            return self.feed(came)
        if self._reading.head is not None:
            self._came = []
        return found

    def end(self) -> None:
        """The body has no more bytes. Raises EhbpError."""
        self._reading.end()


def max_wire(keeper: Keeper) -> int:
    """The most bytes of a sealed request, padding included."""
    return 2 * MAX_BODY + keeper.serve.padding + _SLACK


def prepare(exchange: EnclaveExchange, *, content_type: str, receipt_id: str) -> None:
    """Make ready for a sealed answer that succeeds, while the engine works."""
    exchange.prepare(status=200, content_type=content_type, receipt_id=receipt_id, nonce=secrets.token_bytes(32))


def answering(
    exchange: EnclaveExchange, keeper: Keeper, *, status: int, content_type: str, receipt_id: str, prepared: bool = False
) -> Writer:
    """What writes the sealed answer. ``prepared``: whether :func:`prepare` was called, for this answer or another."""
    return exchange.respond(
        status=status,
        content_type=content_type,
        receipt_id=receipt_id,
        nonce=None if prepared else secrets.token_bytes(32),
        padding=keeper.padding,
    )
