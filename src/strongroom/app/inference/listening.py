"""The socket: HTTP and TLS as an enclave ends them itself.

The key of TLS is made here, lives in memory and is named by the keyset; its certificate is the enclave's own word, and says
nothing that the keyset does not.

See ``spec/inference.md``.
"""

from __future__ import annotations

import datetime as dt
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from strongroom.app.http import end_with_stdin, url_of
from strongroom.attest.keyset import TlsKey
from strongroom.errors import MissingExtra

if TYPE_CHECKING:
    import uvicorn

KEEP_SECONDS: Final = 75
MAX_CONNECTIONS: Final = 4096
SWITCH_SECONDS: Final = 0.001  # for which a thread that writes to the disk may hold up a token
GRACE_SECONDS: Final = 30  # for what is under way when the service ends
_CERTIFICATE_DAYS: Final = 400


@dataclass(frozen=True, slots=True, repr=False)
class Tls:
    """TLS that ends inside the enclave.

    Attributes:
        context: for the server.
        key: what the keyset says of it.
    """

    context: ssl.SSLContext
    key: TlsKey

    def __repr__(self) -> str:
        return f"Tls({self.key.spki_sha256.hex()}, …)"

    @classmethod
    def make(cls, host: str, now: float) -> Tls:
        """A fresh key and its certificate.

        Args:
            host: the name or address that clients connect to.
            now: Unix seconds.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "strongroom enclave")])
        begin = dt.datetime.fromtimestamp(now, dt.UTC) - dt.timedelta(hours=1)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + dt.timedelta(days=_CERTIFICATE_DAYS))
            .add_extension(x509.SubjectAlternativeName([_general(host)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .sign(key, SHA256())
        )
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.set_alpn_protocols(["http/1.1"])
        descriptor = os.memfd_create("tls")  # OpenSSL reads files alone; this one is memory, and nowhere to be found
        try:
            os.write(descriptor, secret + certificate.public_bytes(Encoding.PEM))
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
        digest = Hash(SHA256())
        digest.update(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
        return cls(context, TlsKey(digest.finalize()))


def _general(host: str) -> x509.GeneralName:
    import ipaddress

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def server(
    app: Any, sock: socket.socket, *, announce: Callable[[str], None], tls: Tls | None = None, grace: int = GRACE_SECONDS
) -> uvicorn.Server:
    """What serves, ready to run; it ends when ``should_exit`` is set, and in a main thread at SIGINT and SIGTERM.

    Args:
        app: what to serve.
        sock: a bound socket.
        announce: called with the address once it answers.
        tls: ends TLS here; ``None`` for plain HTTP.
        grace: seconds for what is under way when it ends.

    Raises:
        MissingExtra: httptools is not installed.
    """
    try:
        import uvicorn

        from .bounded import Bounded
    except ImportError as error:
        raise MissingExtra("what serves requests is not installed") from error

    class Announcing(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            url = url_of(sock)
            announce(url if tls is None else url.replace("http:", "https:", 1))

        def handle_exit(self, sig: int, frame: Any) -> None:
            lifecycle = getattr(app, "lifecycle", None)
            if lifecycle is not None:
                lifecycle.ending = True
            super().handle_exit(sig, frame)

    return Announcing(
        uvicorn.Config(
            app,
            http=Bounded,
            loop="asyncio",  # uvloop was measured: a token cost the server as much
            ws="none",
            lifespan="on",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_keep_alive=KEEP_SECONDS,
            timeout_graceful_shutdown=grace,
            ssl_context_factory=None if tls is None else lambda _config, _default: tls.context,
        )
    )


def serve(
    app: Any,
    sock: socket.socket,
    *,
    announce: Callable[[str], None],
    tls: Tls | None = None,
    until_eof: bool = False,
    grace: int = GRACE_SECONDS,
) -> None:
    """Serve until SIGINT or SIGTERM, or until standard input ends; what is under way then has a while to end.

    Args:
        app, sock, announce, tls, grace: as of :func:`server`.
        until_eof: also stop when standard input ends.

    Raises:
        MissingExtra: httptools is not installed.
    """
    serving = server(app, sock, announce=announce, tls=tls, grace=grace)
    sys.setswitchinterval(SWITCH_SECONDS)
    # uvicorn raises the signal that ended it once more when it is done: what the caller does then must still be done
    signal.signal(signal.SIGTERM, lambda *_: None)
    if until_eof:
        end_with_stdin()
    serving.run(sockets=[sock])
