"""The connections of a verified client: whose they must be before a credential or a body goes over one.

What a session is established by holds no secret, and goes to whoever answers. Everything else goes where TLS ends at a key
that the attested keyset names; where it names none, to a certificate that is valid for the host by the machine's own
authorities. It is looked at when a connection's handshake ends, so that nothing is sent over another one.

See ``docs/private-inference.md``.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeAlias, TypeVar

import httpx
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_der_x509_certificate

from strongroom.app.http import anybody, tls
from strongroom.attest.keyset import TlsKey
from strongroom.errors import Internal, OtherTlsKey

KEYS: Final = "strongroom.tls"  # extension of a request: the TLS keys of the keyset that was established
TlsKeys: TypeAlias = tuple[TlsKey, ...]

_Inner = TypeVar("_Inner")


def spki_sha256(certificate: bytes) -> bytes:
    """SHA-256 of the SubjectPublicKeyInfo of a certificate in DER. Raises OtherTlsKey: it is none that is known."""
    try:
        key = load_der_x509_certificate(certificate).public_key()
        return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise OtherTlsKey("the connection's certificate cannot be read") from error


def pinned(keys: TlsKeys, host: str) -> ssl.SSLContext:
    """TLS that ends at one of these keys, and nowhere else: no authority is asked. A handshake raises OtherTlsKey.

    That the peer has the certificate's key is shown by the handshake itself, which is verified in any mode.
    """
    known = {key.spki_sha256 for key in keys if key.domain is None or key.domain.lower() == host.lower()}

    def look(peer: ssl.SSLObject | ssl.SSLSocket) -> None:
        if spki_sha256(peer.getpeercert(binary_form=True) or b"") not in known:
            raise OtherTlsKey(f"TLS with {host} ends at a key that the attested keyset does not name, so nothing was sent")

    class Blocking(ssl.SSLSocket):
        def do_handshake(self, block: bool = False) -> None:
            super().do_handshake(block)
            try:
                look(self)
            except OtherTlsKey:
                self.close()
                raise

    class Stepwise(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            look(self)

    found = ssl.create_default_context()
    found.check_hostname, found.verify_mode = False, ssl.CERT_NONE
    found.sslsocket_class, found.sslobject_class = Blocking, Stepwise
    return found


class _Ways(Generic[_Inner]):
    """A pool of connections for each set of keys, and one for questions."""

    def __init__(self, origin: httpx.URL, make: Callable[..., _Inner]) -> None:
        self._origin, self._make = origin, make
        # Each question has a connection of its own, that nothing else goes over.
        once = httpx.Limits(max_keepalive_connections=0)
        self._asking = make(verify=anybody(), trust_env=False, limits=once) if self._has_tls else self._plain()
        self._pools: dict[TlsKeys, _Inner] = {}

    @property
    def _has_tls(self) -> bool:
        return self._origin.scheme == "https"

    def _plain(self) -> _Inner:
        return self._make(verify=False, trust_env=False)

    def of(self, request: httpx.Request) -> _Inner:
        """What may carry a request. Raises Internal: it is no mere question, and nobody said whom it is for."""
        if not self._has_tls:
            return self._asking
        if request.url.scheme != "https" or request.url.host != self._origin.host:
            raise Internal("a request to another host than the one that was established")
        keys: TlsKeys | None = request.extensions.get(KEYS)
        if keys is not None:
            if keys not in self._pools:
                context = context_for(keys, self._origin.host)
                self._pools[keys] = self._make(verify=context, trust_env=False)
            return self._pools[keys]
        if is_question(request):
            return self._asking
        raise Internal("a request with a credential or a body, and no session that it is for")

    def all(self) -> list[_Inner]:
        return [self._asking, *self._pools.values()]


def is_question(request: httpx.Request) -> bool:
    """Whether a request brings nothing that is anybody's."""
    names = {"authorization", "content-length", "cookie", "proxy-authorization", "transfer-encoding"}
    return request.method == "GET" and not names & {name.lower() for name in request.headers}


def context_for(keys: TlsKeys, host: str) -> ssl.SSLContext:
    """TLS with the service whose attested keyset lists these keys; by the machine's authorities where it lists none."""
    return pinned(keys, host) if keys else tls()


def bound(extensions: Mapping[str, Any], keys: TlsKeys) -> dict[str, Any]:
    """A request's extensions, and the keys at which its connection must end."""
    return {**extensions, KEYS: keys}


class Carrier(httpx.BaseTransport):
    """Carries requests to one origin. Raises OtherTlsKey, beside httpx's own errors.

    Args:
        origin: the service's.
    """

    def __init__(self, origin: httpx.URL) -> None:
        self._ways = _Ways(origin, httpx.HTTPTransport)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._ways.of(request).handle_request(request)

    def close(self) -> None:
        for way in self._ways.all():
            way.close()


class AsyncCarrier(httpx.AsyncBaseTransport):
    """As :class:`Carrier`, under asyncio."""

    def __init__(self, origin: httpx.URL) -> None:
        self._ways = _Ways(origin, httpx.AsyncHTTPTransport)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._ways.of(request).handle_async_request(request)

    async def aclose(self) -> None:
        for way in self._ways.all():
            await way.aclose()


__all__ = ["KEYS", "AsyncCarrier", "Carrier", "TlsKeys", "bound", "context_for", "is_question", "pinned", "spki_sha256"]
