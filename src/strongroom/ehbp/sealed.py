"""Sealed requests and responses: EHBP with its gaps closed inside its own plaintext.

The head binds a request to its method, path, keyset and contract, and a response to its request; the last record says that a
body is whole; an encapsulated key counts once in a keyset's life. To whoever stands between, it is EHBP.

See ``spec/ehbp.md``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

from strongroom import wire
from strongroom.errors import (
    BadField,
    NoBody,
    NotEnded,
    Replayed,
    SeenKeysFull,
    WrongContract,
    WrongKeyset,
    WrongRequest,
    WrongStatus,
    WrongTarget,
)
from strongroom.wire import JSON, Fields

from .exchange import Opens, Recipient, Seals, Sender
from .keys import (
    ENCAPSULATED_KEY_HEADER,
    RESPONSE_NONCE_HEADER,
    PrivateKey,
    PublicKey,
    encapsulated_key,
    response_nonce,
)
from .records import MAX_HEAD_BYTES, Padding, RecordReader, Writer

MEDIA_TYPE = "application/vnd.strongroom.ehbp.v1"
REQUEST_FORMAT = "strongroom.ehbp.request.v1"
RESPONSE_FORMAT = "strongroom.ehbp.response.v1"

REQUEST_ID_BYTES = 16
MAX_PATH_CHARS = 8192
SEEN_KEYS = 1 << 20

_METHOD = re.compile(r"[A-Z]{1,16}\Z")
_PATH = re.compile(r"/[!-~]*\Z")
_HEADER = re.compile(r"[!-~](?:[ -~]{0,254}[!-~])?\Z")
_ID = re.compile(r"[!-~]{1,128}\Z")


def _matching(f: Fields, name: str, pattern: re.Pattern[str], what: str, max_chars: int = 256) -> str:
    value = f.text(name, max_chars=max_chars)
    if not pattern.match(value):
        raise BadField(f"head.{name} is not {what}")
    return value


def _header(f: Fields, name: str) -> str | None:
    found: str | None = f.optional(
        name, lambda item: _matching(Fields({name: item}, "head"), name, _HEADER, "1 to 256 printable ASCII characters")
    )
    return found


@dataclass(frozen=True, slots=True)
class RequestHead:
    """What a sealed request is for.

    Attributes:
        method: as in the HTTP request line, upper case.
        path: as in the HTTP request line, with the query; at most 8192 printable ASCII characters.
        content_type, accept: the headers of the request that is sealed, or ``None``.
        request_id: 16 random bytes of the client's.
        keyset: the digest of the keyset that the client verified, and whose key it encrypts to.
        contract: the digest of the contract that the client means, or ``None`` where it means none.
    """

    method: str
    path: str
    content_type: str | None
    accept: str | None
    request_id: bytes
    keyset: str
    contract: str | None

    def encode(self) -> bytes:
        found: dict[str, JSON] = {
            "accept": self.accept,
            "content_type": self.content_type,
            "contract": self.contract,
            "format": REQUEST_FORMAT,
            "keyset": self.keyset,
            "method": self.method,
            "path": self.path,
            "request_id": self.request_id.hex(),
        }
        return wire.encode(found)

    @classmethod
    def parse(cls, data: bytes) -> RequestHead:
        """Raises WireError and its leaves."""
        f = Fields(wire.decode(data, max_bytes=MAX_HEAD_BYTES), "head")
        f.literal("format", REQUEST_FORMAT)
        found = cls(
            method=_matching(f, "method", _METHOD, "an upper-case method"),
            path=_matching(f, "path", _PATH, "a path of printable ASCII", MAX_PATH_CHARS),
            content_type=_header(f, "content_type"),
            accept=_header(f, "accept"),
            request_id=f.hex("request_id", size=REQUEST_ID_BYTES),
            keyset=f.digest("keyset"),
            contract=f.optional("contract", lambda item: Fields({"contract": item}, "head").digest("contract")),
        )
        f.end()
        return found


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """What a sealed response answers.

    Attributes:
        status: the HTTP status, 200 to 599.
        content_type: the header of the response that is sealed, or ``None``.
        request_id: the request's, 16 bytes.
        receipt_id: of the receipt that will name this response, or ``None`` where there is none.
        keyset: the digest of the enclave's keyset.
    """

    status: int
    content_type: str | None
    request_id: bytes
    receipt_id: str | None
    keyset: str

    def encode(self) -> bytes:
        found: dict[str, JSON] = {
            "content_type": self.content_type,
            "format": RESPONSE_FORMAT,
            "keyset": self.keyset,
            "receipt_id": self.receipt_id,
            "request_id": self.request_id.hex(),
            "status": self.status,
        }
        return wire.encode(found)

    @classmethod
    def parse(cls, data: bytes) -> ResponseHead:
        """Raises WireError and its leaves."""
        f = Fields(wire.decode(data, max_bytes=MAX_HEAD_BYTES), "head")
        f.literal("format", RESPONSE_FORMAT)
        found = cls(
            status=f.integer("status", low=200, high=599),
            content_type=_header(f, "content_type"),
            request_id=f.hex("request_id", size=REQUEST_ID_BYTES),
            receipt_id=f.optional(
                "receipt_id", lambda item: _matching(Fields({"receipt_id": item}, "head"), "receipt_id", _ID, "an id")
            ),
            keyset=f.digest("keyset"),
        )
        f.end()
        return found


class SeenKeys:
    """The encapsulated keys that a keyset has had: no request counts twice, and no clock is needed to say so.

    It lives as long as the keyset and its key for requests, and no longer. When it is full everything is refused: an enclave
    rotates its keyset before. Full, it takes about 120 MB. Usable from several threads.

    Args:
        keyset: the digest of the keyset.
        capacity: how many keys it holds.
    """

    def __init__(self, keyset: str, *, capacity: int = SEEN_KEYS) -> None:
        self.keyset = keyset
        self.capacity = capacity
        self._keys: tuple[set[bytes], ...] = tuple(set() for _ in range(256))  # one would now and then grow for 40 ms
        self._count = 0
        self._lock = Lock()

    @property
    def count(self) -> int:
        """How many keys it holds."""
        return self._count

    def add(self, key: bytes) -> None:
        """Count a key, once.

        Args:
            key: 32 bytes, of a request of which something was authenticated.

        Raises:
            SeenKeysFull: no more can be counted; nothing was.
            Replayed: it was counted before.
        """
        with self._lock:
            if self._count >= self.capacity:
                raise SeenKeysFull(f"the keyset has had {self.capacity} requests and takes no more")
            keys = self._keys[key[0]]
            if key in keys:
                raise Replayed("the request's encapsulated key was used before")
            keys.add(key)
            self._count += 1


class ClientExchange:
    """One sealed request and its response, as a client makes and reads them.

    Args:
        to: the key for requests of the keyset that ``head`` names, verified.
        head: what the request is for.
        seed: 32 secret random bytes for this exchange alone.
        padding: of the request's records.

    Raises:
        WireError: the leaves for a head that no enclave would read.
    """

    def __init__(self, to: PublicKey, head: RequestHead, *, seed: bytes, padding: Padding | None = None) -> None:
        encoded = head.encode()
        RequestHead.parse(encoded)
        self.head = head
        self._sender = Sender(to, seed=seed)
        headers = {"Content-Type": MEDIA_TYPE, ENCAPSULATED_KEY_HEADER: self._sender.encapsulated_key.hex()}
        self.request = Writer(self._sender, encoded, padding, headers)

    def response(self, nonces: Sequence[str], *, status: int, max_body: int, max_wire: int | None = None) -> SealedResponse:
        """What reads the response.

        Args:
            nonces: every value of ``Ehbp-Response-Nonce`` that the answer has.
            status: the answer's HTTP status.
            max_body, max_wire: as of :class:`RecordReader`.

        Raises:
            BadResponseNonce: the answer is not encrypted.
        """
        opener = self._sender.response(response_nonce(nonces))
        return SealedResponse(self.head, opener, status=status, max_body=max_body, max_wire=max_wire)


class SealedResponse(RecordReader):
    """The response to one request; made by :meth:`ClientExchange.response`.

    Attributes:
        head: the response's head, once it was accepted.
    """

    def __init__(self, request: RequestHead, opener: Opens, *, status: int, max_body: int, max_wire: int | None) -> None:
        super().__init__(opener, self._take, max_body=max_body, max_wire=max_wire)
        self.head: ResponseHead | None = None
        self._request = request
        self._status = status

    def _take(self, data: bytes) -> None:
        head = ResponseHead.parse(data)
        if head.request_id != self._request.request_id:
            raise WrongRequest("the answer is to another request")
        if head.keyset != self._request.keyset:
            raise WrongKeyset("the answer comes from another keyset than the request was for")
        if head.status != self._status:
            raise WrongStatus(f"the answer's status was {head.status} and arrived as {self._status}")
        self.head = head


@dataclass(frozen=True, slots=True, repr=False)
class _Prepared:
    """What a response needs before its first byte.

    Attributes:
        asked: the status, content type and receipt id in its head.
        head: encoded.
        nonce, sealer: the response's.
    """

    asked: tuple[int, str | None, str | None]
    head: bytes
    nonce: bytes
    sealer: Seals


class EnclaveExchange(RecordReader):
    """One sealed request and its response, as an enclave reads and makes them.

    Args:
        key: the enclave's key for requests, of the keyset that ``seen`` is for.
        encapsulated: every value of ``Ehbp-Encapsulated-Key`` that the request has.
        method, path: of the HTTP request line, the path as it stands there, with the query.
        seen: of the keyset.
        contract: the digest of the contract that is served, or ``None``.
        max_body, max_wire: as of :class:`RecordReader`.

    Attributes:
        head: the request's head, once it was accepted.

    Raises:
        BadEncapsulatedKey: no such header, several, or a key that nobody should use.
    """

    def __init__(
        self,
        key: PrivateKey,
        encapsulated: Sequence[str],
        *,
        method: str,
        path: str,
        seen: SeenKeys,
        contract: str | None,
        max_body: int,
        max_wire: int | None = None,
    ) -> None:
        self._recipient = Recipient(key, encapsulated_key(encapsulated))
        super().__init__(self._recipient, self._take, max_body=max_body, max_wire=max_wire)
        self.head: RequestHead | None = None
        self._target = (method, path)
        self._seen = seen
        self._contract = contract
        self._prepared: _Prepared | None = None

    def _take(self, data: bytes) -> None:
        head = RequestHead.parse(data)
        if (head.method, head.path) != self._target:
            raise WrongTarget("the request was made for another method or path than it came by")
        if head.keyset != self._seen.keyset:
            raise WrongKeyset("the request was made for another keyset")
        if head.contract is not None and head.contract != self._contract:
            raise WrongContract("the request was made under another contract")
        self._seen.add(self._recipient.encapsulated_key)  # last: what is refused takes no place
        self.head = head

    def prepare(self, *, status: int, content_type: str | None, receipt_id: str | None, nonce: bytes) -> None:
        """Derive the response's keys, and make the head that it will likely have, while whoever answers is still at work.

        Args:
            status, content_type, receipt_id: as of :meth:`respond`, which may still be told others.
            nonce: 32 fresh random bytes: the response's.

        Raises:
            NoBody, BadResponseNonce, WireError, ValueError: as of :meth:`respond`.
        """
        asked = (status, content_type, receipt_id)
        self._prepared = _Prepared(asked, self._head(*asked), nonce, self._recipient.respond(nonce))

    def _head(self, status: int, content_type: str | None, receipt_id: str | None) -> bytes:
        if self.head is None:
            raise NoBody("no request was accepted that could be answered")
        encoded = ResponseHead(status, content_type, self.head.request_id, receipt_id, self.head.keyset).encode()
        ResponseHead.parse(encoded)
        return encoded

    def respond(
        self,
        *,
        status: int,
        content_type: str | None,
        receipt_id: str | None,
        nonce: bytes | None,
        padding: Padding | None = None,
    ) -> Writer:
        """What writes the response.

        Args:
            status: 200 to 599; below 400 only to a request that is whole.
            content_type: of what is sealed.
            receipt_id: of the receipt that will name this response.
            nonce: 32 fresh random bytes; ``None`` where the response was prepared, with its own.
            padding: of the response's records.

        Raises:
            NoBody: the request's head was not accepted: the refusal cannot be sealed.
            NotEnded: the request is not whole, and ``status`` says success.
            BadResponseNonce: a nonce of another length.
            WireError: the leaves for a head that no client would read.
            ValueError: asked for a second time, or without a nonce where nothing was prepared.
        """
        if self.head is None:
            raise NoBody("no request was accepted that could be answered")
        if status < 400 and not self.whole:
            raise NotEnded("the request is not whole, and only a refusal can answer it")
        asked = (status, content_type, receipt_id)
        if nonce is not None:
            ready = _Prepared(asked, self._head(*asked), nonce, self._recipient.respond(nonce))
        elif self._prepared is not None:
            ready, self._prepared = self._prepared, None
        else:
            raise ValueError("nothing was prepared, or it was asked for before")
        head = ready.head if ready.asked == asked else self._head(*asked)
        headers = {"Content-Type": MEDIA_TYPE, RESPONSE_NONCE_HEADER: ready.nonce.hex()}
        return Writer(ready.sealer, head, padding, headers)
