"""TLS for tests: certificates of an authority of our own, and somebody between, who ends TLS and passes everything on."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from strongroom.app.http import anybody


class Authority:
    """A certificate authority, which those who rely on it trust for any name."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an authority")])
        self._certificate = self._sign(self._name, self._key.public_key(), None)

    def _sign(self, name: x509.Name, key: ec.EllipticCurvePublicKey, host: str | None) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=host is None, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if host is None:
            usage = dict.fromkeys(
                ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False
            )
            made = made.add_extension(
                x509.KeyUsage(**usage, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False),
                critical=True,
            )
        else:
            names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))])
            made = made.add_extension(names, critical=False)
        return made.sign(self._key, SHA256())

    def trusted(self) -> ssl.SSLContext:
        """A client's, that relies on this authority."""
        return ssl.create_default_context(cadata=self._certificate.public_bytes(Encoding.PEM).decode())

    def server(self, host: str = "127.0.0.1") -> ssl.SSLContext:
        """A server's, with a certificate for this host."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a service")])
        certificate = self._sign(name, key.public_key(), host)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        descriptor = os.memfd_create("tls")
        try:
            secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            os.write(descriptor, secret + certificate.public_bytes(Encoding.PEM))
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
        return context


class Between:
    """Ends TLS with a key of its own, speaks to the service behind in plain HTTP or TLS, and reads everything.

    Attributes:
        read: all that clients sent.
    """

    def __init__(self, port: int, *, tls: bool) -> None:
        self._port, self._tls = port, anybody() if tls else None
        self.read = bytearray()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind, out = await asyncio.open_connection("127.0.0.1", self._port, ssl=self._tls)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, kept: bytearray | None) -> None:
            with suppress(OSError):
                while data := await source.read(1 << 16):
                    if kept is not None:
                        kept += data
                    sink.write(data)
                    await sink.drain()
            with suppress(OSError):
                sink.write_eof() if sink.can_write_eof() else sink.close()

        try:
            await asyncio.gather(pump(reader, out, self.read), pump(behind, writer, None))
        finally:
            out.transport.abort()
            writer.transport.abort()


@contextmanager
def between(own: ssl.SSLContext, url: str) -> Iterator[tuple[Between, str]]:
    """Somebody between, and the address where they answer in the service's place."""
    found = Between(int(url.rpartition(":")[2]), tls=url.startswith("https:"))
    door = socket.create_server(("127.0.0.1", 0))
    loop, ready, stopping = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def serve() -> None:
        server = await asyncio.start_server(found.serve, sock=door, ssl=own)
        ready.set()
        await stopping.wait()
        server.close()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        for _ in range(10):  # what was aborted is closed by the loop
            await asyncio.sleep(0)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        yield found, f"https://127.0.0.1:{door.getsockname()[1]}"
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join(30)
        loop.close()
