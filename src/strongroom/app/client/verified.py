"""A client of one verified service: it seals each request to an attested key, opens the answer, and examines the receipt.

It is a transport of httpx's, so that any client built on httpx speaks through it unchanged::

    client = openai.OpenAI(base_url="https://host/v1", http_client=strongroom.verified_client("https://host", ...))

An answer is handed on as it streams; each record of it is authentic, and in its place, before it is. That it is whole is
known at its end, that the promised weights made it when the receipt is there: until then the last of it is withheld.
Whatever fails raises a ``StrongroomError``.

See ``docs/private-inference.md``.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import httpx

from strongroom.errors import NoInferenceReceipt, OtherTlsKey, StrongroomError, TooLarge, Unreachable, WrongKeyset
from strongroom.inference.receipt import MAX_RECEIPT_BYTES
from strongroom.trust import Trust

from .asking import Exchange, Outcome, Receipts, Verifier, Word, cut
from .carrier import AsyncCarrier, Carrier
from .home import trust_file
from .session import KEYSET_HEADER, MAX_REPLY_BYTES, Reply, Session, Terms, questions

RECEIPT_PAUSES: Final = (0.01, 0.03, 0.1, 0.3, 1.0, 2.0)  # seconds before a receipt that is not there yet is asked for again
TIMEOUT: Final = httpx.Timeout(600.0, connect=10.0)


# --- synchronous ------------------------------------------------------------------------------------------------------


class VerifiedTransport(httpx.BaseTransport):
    """Carries requests to a verified service. Safe to use from several threads.

    Args:
        verifier: whom to believe.
        inner: what carries the bytes.
    """

    def __init__(self, verifier: Verifier, inner: httpx.BaseTransport) -> None:
        self.verifier, self._inner = verifier, inner
        self._establishing = threading.Lock()
        self._pending: set[threading.Thread] = set()

    def establish(self, extensions: Mapping[str, Any] | None = None) -> Session:
        """The session in force; verified now where there is none. Raises Unreachable, and the leaves of ``establish``."""
        with self._establishing:
            found = self.verifier.session()
            if found is not None:
                return found
            try:
                return self._establish(extensions or {})
            except WrongKeyset:  # it may have taken new keys between two of the answers
                return self._establish(extensions or {})

    def _establish(self, extensions: Mapping[str, Any]) -> Session:
        nonce, at = secrets.token_bytes(32), int(self.verifier.now())

        def ask(path: str) -> Reply:
            return self._reply(self.verifier.ask(path, extensions))

        with ThreadPoolExecutor(3) as together:
            one, two, three = together.map(ask, questions(nonce))
        return self.verifier.take(nonce, (one, two, three), at)

    def _reply(self, request: httpx.Request, most: int = MAX_REPLY_BYTES) -> Reply:
        try:
            answer = self._inner.handle_request(request)
            try:
                assert isinstance(answer.stream, httpx.SyncByteStream)
                body = b""
                for piece in answer.stream:
                    body += piece
                    if len(body) > most:
                        raise TooLarge(f"{request.url.host} answers more than {most} bytes")
            finally:
                answer.close()
        except httpx.TransportError as error:
            raise Unreachable(f"{request.url.host} does not answer: {error.__class__.__name__}") from error
        return Reply(answer.status_code, body, answer.headers.get(KEYSET_HEADER))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Raises StrongroomError, and httpx's own errors where the service does not answer."""
        refused = self.verifier.admit(request)
        if refused is not None:
            return refused
        if request.method == "GET":
            return self.verifier.models(request, self.establish(request.extensions))
        request.read()
        exchange, answer = self._send(request, again=True)
        if exchange is None:
            return answer
        stream = _Body(self, exchange, answer)
        stream.begin()
        return exchange.response(stream)

    def _send(self, request: httpx.Request, *, again: bool) -> tuple[Exchange | None, httpx.Response]:
        exchange = Exchange(self.verifier, self.establish(request.extensions), request)
        try:
            answer = self._inner.handle_request(exchange.request)
        except OtherTlsKey as error:
            exchange.elsewhere(error, again=again)
            return self._send(request, again=False)
        if exchange.is_sealed(answer):
            return exchange, answer
        assert isinstance(answer.stream, httpx.SyncByteStream)
        body = b""
        try:
            for piece in answer.stream:
                body += piece
                if len(body) > MAX_RECEIPT_BYTES:
                    break
        finally:
            answer.close()
        refused = exchange.in_the_open(answer, body, again=again)
        return (None, refused) if refused is not None else self._send(request, again=False)

    def fetch(self, exchange: Exchange) -> None:
        """Fetch the receipt and examine it. Raises NoInferenceReceipt, InferenceNotVerified."""
        path = exchange.receipt_path()
        if path is None:
            return
        asked = self.verifier.ask(path, exchange.request.extensions, exchange.credential, exchange.session)
        for pause in (*RECEIPT_PAUSES, None):
            try:
                reply = self._reply(asked, MAX_RECEIPT_BYTES)
            except (Unreachable, TooLarge) as error:
                raise NoInferenceReceipt(f"the receipt could not be fetched: {error.message}") from error
            if reply.status != 404 or pause is None:
                break
            time.sleep(pause)
        exchange.judge(reply)

    def later(self, exchange: Exchange) -> None:
        """The same, while its reader goes on."""

        def work() -> None:
            try:
                self.fetch(exchange)
                exchange.succeeded()
            except StrongroomError as error:
                self.verifier.postpone(exchange.failed(error))
            finally:
                self._pending.discard(threading.current_thread())

        thread = threading.Thread(target=work, name="strongroom-receipt", daemon=True)
        self._pending.add(thread)
        thread.start()

    def close(self) -> None:
        """Wait for the receipts that are still due, and close the connections."""
        for thread in tuple(self._pending):
            thread.join()
        self._inner.close()


class _Body(httpx.SyncByteStream):
    """An answer on its way: opened, and its end withheld."""

    def __init__(self, transport: VerifiedTransport, exchange: Exchange, answer: httpx.Response) -> None:
        self._transport, self._exchange, self._answer = transport, exchange, answer
        assert isinstance(answer.stream, httpx.SyncByteStream)
        self._pieces = iter(answer.stream)
        self._first, self._over = b"", False

    def begin(self) -> None:
        """Read as far as the sealed head, which says what the answer is."""
        exchange = self._exchange
        try:
            exchange.begin(self._answer)
            while not exchange.begun:
                data = next(self._pieces, None)
                if data is None:
                    exchange.end()
                self._first += exchange.feed(data or b"")
        except StrongroomError as error:
            self._answer.close()
            raise exchange.failed(error) from None
        except httpx.TransportError as error:
            self._answer.close()
            raise exchange.failed(cut(error)) from error

    def __iter__(self) -> Iterator[bytes]:
        exchange = self._exchange
        try:
            if self._first:
                yield self._first
            for data in self._pieces:
                if piece := exchange.feed(data):
                    yield piece
            exchange.end()
            self._over = True
            self._answer.close()  # the receipt comes by the same connection
            if self._transport.verifier.required:
                self._transport.fetch(exchange)
                exchange.succeeded()
            else:
                self._transport.later(exchange)
        except StrongroomError as error:
            raise exchange.failed(error) from error.__cause__
        except httpx.TransportError as error:
            raise exchange.failed(cut(error)) from error
        if exchange.rest:
            yield exchange.rest

    def close(self) -> None:
        self._answer.close()
        if not self._over:
            self._exchange.left()


# --- asynchronous -----------------------------------------------------------------------------------------------------


class AsyncVerifiedTransport(httpx.AsyncBaseTransport):
    """As :class:`VerifiedTransport`, under asyncio.

    Args:
        verifier: whom to believe.
        inner: what carries the bytes.
    """

    def __init__(self, verifier: Verifier, inner: httpx.AsyncBaseTransport) -> None:
        self.verifier, self._inner = verifier, inner
        self._establishing = asyncio.Lock()
        self._pending: set[asyncio.Task[None]] = set()

    async def establish(self, extensions: Mapping[str, Any] | None = None) -> Session:
        """As of :class:`VerifiedTransport`."""
        async with self._establishing:
            found = self.verifier.session()
            if found is not None:
                return found
            try:
                return await self._establish(extensions or {})
            except WrongKeyset:
                return await self._establish(extensions or {})

    async def _establish(self, extensions: Mapping[str, Any]) -> Session:
        nonce, at = secrets.token_bytes(32), int(self.verifier.now())
        asked = [self._reply(self.verifier.ask(path, extensions)) for path in questions(nonce)]
        one, two, three = await asyncio.gather(*asked)
        return self.verifier.take(nonce, (one, two, three), at)

    async def _reply(self, request: httpx.Request, most: int = MAX_REPLY_BYTES) -> Reply:
        try:
            answer = await self._inner.handle_async_request(request)
            try:
                assert isinstance(answer.stream, httpx.AsyncByteStream)
                body = b""
                async for piece in answer.stream:
                    body += piece
                    if len(body) > most:
                        raise TooLarge(f"{request.url.host} answers more than {most} bytes")
            finally:
                await answer.aclose()
        except httpx.TransportError as error:
            raise Unreachable(f"{request.url.host} does not answer: {error.__class__.__name__}") from error
        return Reply(answer.status_code, body, answer.headers.get(KEYSET_HEADER))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """As of :class:`VerifiedTransport`."""
        refused = self.verifier.admit(request)
        if refused is not None:
            return refused
        if request.method == "GET":
            return self.verifier.models(request, await self.establish(request.extensions))
        await request.aread()
        exchange, answer = await self._send(request, again=True)
        if exchange is None:
            return answer
        stream = _AsyncBody(self, exchange, answer)
        await stream.begin()
        return exchange.response(stream)

    async def _send(self, request: httpx.Request, *, again: bool) -> tuple[Exchange | None, httpx.Response]:
        exchange = Exchange(self.verifier, await self.establish(request.extensions), request)
        try:
            answer = await self._inner.handle_async_request(exchange.request)
        except OtherTlsKey as error:
            exchange.elsewhere(error, again=again)
            return await self._send(request, again=False)
        if exchange.is_sealed(answer):
            return exchange, answer
        assert isinstance(answer.stream, httpx.AsyncByteStream)
        body = b""
        try:
            async for piece in answer.stream:
                body += piece
                if len(body) > MAX_RECEIPT_BYTES:
                    break
        finally:
            await answer.aclose()
        refused = exchange.in_the_open(answer, body, again=again)
        return (None, refused) if refused is not None else await self._send(request, again=False)

    async def fetch(self, exchange: Exchange) -> None:
        """As of :class:`VerifiedTransport`."""
        path = exchange.receipt_path()
        if path is None:
            return
        for pause in (*RECEIPT_PAUSES, None):
            asked = self.verifier.ask(path, exchange.request.extensions, exchange.credential, exchange.session)
            try:
                reply = await self._reply(asked, MAX_RECEIPT_BYTES)
            except (Unreachable, TooLarge) as error:
                raise NoInferenceReceipt(f"the receipt could not be fetched: {error.message}") from error
            if reply.status != 404 or pause is None:
                break
            await asyncio.sleep(pause)
        exchange.judge(reply)

    def later(self, exchange: Exchange) -> None:
        """As of :class:`VerifiedTransport`."""

        async def work() -> None:
            try:
                await self.fetch(exchange)
                exchange.succeeded()
            except StrongroomError as error:
                self.verifier.postpone(exchange.failed(error))

        task = asyncio.get_running_loop().create_task(work())
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def aclose(self) -> None:
        """As ``close`` of :class:`VerifiedTransport`."""
        await asyncio.gather(*self._pending)
        await self._inner.aclose()


class _AsyncBody(httpx.AsyncByteStream):
    """As :class:`_Body`."""

    def __init__(self, transport: AsyncVerifiedTransport, exchange: Exchange, answer: httpx.Response) -> None:
        self._transport, self._exchange, self._answer = transport, exchange, answer
        assert isinstance(answer.stream, httpx.AsyncByteStream)
        self._pieces = aiter(answer.stream)
        self._first, self._over = b"", False

    async def begin(self) -> None:
        exchange = self._exchange
        try:
            exchange.begin(self._answer)
            while not exchange.begun:
                data = await anext(self._pieces, None)
                if data is None:
                    exchange.end()
                self._first += exchange.feed(data or b"")
        except StrongroomError as error:
            await self._answer.aclose()
            raise exchange.failed(error) from None
        except httpx.TransportError as error:
            await self._answer.aclose()
            raise exchange.failed(cut(error)) from error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        exchange = self._exchange
        try:
            if self._first:
                yield self._first
            async for data in self._pieces:
                if piece := exchange.feed(data):
                    yield piece
            exchange.end()
            self._over = True
            await self._answer.aclose()
            if self._transport.verifier.required:
                await self._transport.fetch(exchange)
                exchange.succeeded()
            else:
                self._transport.later(exchange)
        except StrongroomError as error:
            raise exchange.failed(error) from error.__cause__
        except httpx.TransportError as error:
            raise exchange.failed(cut(error)) from error
        if exchange.rest:
            yield exchange.rest

    async def aclose(self) -> None:
        await self._answer.aclose()
        if not self._over:
            self._exchange.left()


# --- clients ----------------------------------------------------------------------------------------------------------


class VerifiedClient(httpx.Client):
    """A client of one verified service. Made by :func:`verified_client`."""

    def __init__(self, transport: VerifiedTransport, **kwargs: Any) -> None:
        super().__init__(transport=transport, trust_env=False, base_url=transport.verifier.origin, **kwargs)
        self._verified = transport

    @property
    def last(self) -> Outcome | None:
        """What became of the request that ended last."""
        return self._verified.verifier.last

    def establish(self) -> Session:
        """Verify the service now, rather than with the first request. Raises StrongroomError: a leaf."""
        return self._verified.establish({"timeout": self.timeout.as_dict()})


class AsyncVerifiedClient(httpx.AsyncClient):
    """As :class:`VerifiedClient`, under asyncio. Made by :func:`verified_async_client`."""

    def __init__(self, transport: AsyncVerifiedTransport, **kwargs: Any) -> None:
        super().__init__(transport=transport, trust_env=False, base_url=transport.verifier.origin, **kwargs)
        self._verified = transport

    @property
    def last(self) -> Outcome | None:
        """What became of the request that ended last."""
        return self._verified.verifier.last

    async def establish(self) -> Session:
        """As of :class:`VerifiedClient`."""
        return await self._verified.establish({"timeout": self.timeout.as_dict()})


def _terms(trust: Trust | Path | str, contract: str, weights: Mapping[str, str] | None) -> Terms:
    found = trust if isinstance(trust, Trust) else trust_file(Path(trust))
    return Terms(trust=found, contract=contract, weights=dict(weights or {}))


def verified_client(
    url: str,
    *,
    trust: Trust | Path | str,
    contract: str,
    weights: Mapping[str, str] | None = None,
    receipts: Receipts = "required",
    api_key: str | None = None,
    on_answer: Callable[[Outcome], None] | None = None,
    keep: bool = False,
    timeout: httpx.Timeout | float | None = TIMEOUT,
    transport: httpx.BaseTransport | None = None,
) -> VerifiedClient:
    """An HTTP client for ``openai.OpenAI(http_client=...)``, or for itself, that speaks to one verified service.

    Args:
        url: the service's address.
        trust: a trust file, or what is in one: platform roots and expected measurements.
        contract: the digest of the contract under which to be served.
        weights: name of a model -> the digest of its weights, where its owner does not show it.
        receipts: ``required``: the end of an answer is withheld until its receipt is verified. ``background``: it is
            verified afterwards, and the first request after one that fails raises what was found.
        api_key: sent in place of what requests bring.
        on_answer: called once for each request, when its outcome is known; in the background from another thread.
        keep: have outcomes hold what it takes to examine them again.
        timeout: as of httpx.
        transport: what carries the bytes; tests put something here.

    Raises:
        Usage, BadField: an address or a digest that is none. NotFound …: the trust file.
    """
    options: dict[str, Any] = {"receipts": receipts, "api_key": api_key, "on_answer": on_answer, "keep": keep}
    verifier = Verifier(url, _terms(trust, contract, weights), **options)
    inner = transport or Carrier(verifier.origin)
    return VerifiedClient(VerifiedTransport(verifier, inner), timeout=timeout)


def verified_async_client(
    url: str,
    *,
    trust: Trust | Path | str,
    contract: str,
    weights: Mapping[str, str] | None = None,
    receipts: Receipts = "required",
    api_key: str | None = None,
    on_answer: Callable[[Outcome], None] | None = None,
    keep: bool = False,
    timeout: httpx.Timeout | float | None = TIMEOUT,
    transport: httpx.AsyncBaseTransport | None = None,
) -> AsyncVerifiedClient:
    """As :func:`verified_client`, for ``openai.AsyncOpenAI(http_client=...)`` under asyncio."""
    options: dict[str, Any] = {"receipts": receipts, "api_key": api_key, "on_answer": on_answer, "keep": keep}
    verifier = Verifier(url, _terms(trust, contract, weights), **options)
    inner = transport or AsyncCarrier(verifier.origin)
    return AsyncVerifiedClient(AsyncVerifiedTransport(verifier, inner), timeout=timeout)


__all__ = [
    "AsyncVerifiedClient",
    "AsyncVerifiedTransport",
    "Outcome",
    "VerifiedClient",
    "VerifiedTransport",
    "Verifier",
    "Word",
    "verified_async_client",
    "verified_client",
]
