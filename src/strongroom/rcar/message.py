"""What a guest sends: ``Request`` and ``Attestation``, in every shape of versions 0.1 to 0.4. **Untrusted**, all of it.

The format is others' (kbs_attestation_protocol.md of the trustee project): members that we do not know are left alone,
except in what the guest's evidence is made over.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from typing import Any

from strongroom import wire
from strongroom.attest.guest import RuntimeData
from strongroom.attest.tee_key import TeeKey, b64url, unb64url
from strongroom.errors import BadField, NoSession, RcarVersion, UnknownPlatform
from strongroom.wire import JSON, Fields

TEES = ("sample", "snp", "tdx")  # never in another order: a session says which by its place
SAMPLE, SNP, TDX = TEES
MINORS = range(1, 5)
NONCE_BYTES = 32
MAX_AUTH_BYTES = 64 << 10
MAX_ATTEST_BYTES = 4 << 20
MAC_BYTES = 16

_VERSION = re.compile(r"0\.([0-9]{1,3})\.[0-9]{1,3}\Z")
_SESSION_BYTES = 8 + 1 + 1 + NONCE_BYTES


@dataclass(frozen=True, slots=True)
class Request:
    """The first message: which version a guest speaks, and in which kind of enclave it says that it is.

    Attributes:
        minor: the version's second number.
        tee: one of ``TEES``.
    """

    minor: int
    tee: str

    @classmethod
    def parse(cls, data: bytes) -> Request:
        """Raises WireError leaves, RcarVersion, UnknownPlatform."""
        f = Fields(wire.loads(data, max_bytes=MAX_AUTH_BYTES), "Request")
        version, tee = f.text("version", max_chars=16), f.text("tee", max_chars=64)
        found = _VERSION.match(version)
        if found is None or int(found[1]) not in MINORS:
            raise RcarVersion("the guest speaks another version of the protocol")
        if tee not in TEES:
            raise UnknownPlatform(f"guests in {', '.join(TEES)} are served, and in no other kind of enclave")
        return cls(int(found[1]), tee)


def challenge(nonce: bytes) -> bytes:
    """The answer to it. ``extra-params`` is a string, as the oldest guests read it, and selects no hash: all use SHA-384."""
    return wire.encode({"extra-params": "", "nonce": wire.b64(nonce)})


@dataclass(frozen=True, slots=True)
class Session:
    """What a session's cookie says: nothing is kept of a guest until it has attested.

    Attributes:
        request: the guest's first message.
        nonce: 32 bytes, given with the cookie.
        until: the first second at which it is over, Unix.
    """

    request: Request
    nonce: bytes
    until: int

    def seal(self, key: bytes) -> str:
        """The cookie's value. ``key``: 32 bytes that nobody else knows."""
        head = bytes((self.request.minor, TEES.index(self.request.tee)))
        body = self.until.to_bytes(8, "big") + head + self.nonce
        return b64url(body + _mac(key, body))

    @classmethod
    def open(cls, text: str, key: bytes, at: int) -> Session:
        """Raises NoSession: not one that this key made, or over. ``at``: Unix seconds."""
        try:
            raw = unb64url(text) if len(text) <= 128 else b""
        except BadField:
            raw = b""
        body = raw[:_SESSION_BYTES]
        if len(raw) != _SESSION_BYTES + MAC_BYTES or not hmac.compare_digest(_mac(key, body), raw[_SESSION_BYTES:]):
            raise NoSession("the cookie is none of this broker's")
        found = cls(Request(body[8], TEES[body[9]]), body[10:], int.from_bytes(body[:8], "big"))
        if at >= found.until:
            raise NoSession("the session is over")
        return found


def _mac(key: bytes, body: bytes) -> bytes:
    return hmac.digest(key, b"strongroom.rcar.session.v1" + body, "sha256")[:MAC_BYTES]


@dataclass(frozen=True, slots=True)
class Attestation:
    """The second message.

    Attributes:
        runtime: what the evidence must be made over.
        evidence: the primary evidence, decoded JSON in the form of its kind of enclave.
    """

    runtime: RuntimeData
    evidence: Any

    @classmethod
    def parse(cls, data: bytes, session: Session) -> Attestation:
        """Read it in the shape of the session's version.

        ==========  ===================================  =============================================================
        version     where key and nonce stand            ``tee-evidence``
        ==========  ===================================  =============================================================
        0.1, 0.2    ``tee-pubkey``; the session's nonce  the evidence, or (0.1.0) its JSON in a string
        0.3         ``runtime-data``                     the evidence, or as in 0.4
        0.4         ``runtime-data``                     ``primary_evidence`` and, in a string, ``additional_evidence``
        ==========  ===================================  =============================================================

        Raises:
            WireError leaves, BadTeeKey. NoSession: its nonce is another session's.
        """
        f = Fields(wire.loads(data, max_bytes=MAX_ATTEST_BYTES), "Attestation")
        if f.has("init-data"):
            _init_data(f.any("init-data"))
        found, nonce = f.any("tee-evidence"), wire.b64(session.nonce)
        if session.request.minor <= 2:
            return cls(RuntimeData(nonce, TeeKey.from_json(f.any("tee-pubkey"))), _decoded(found))
        runtime = Fields(f.any("runtime-data"), "runtime-data")
        said, key = runtime.text("nonce", max_chars=128), TeeKey.from_json(runtime.any("tee-pubkey"))
        runtime.end()
        if not hmac.compare_digest(said.encode(), nonce.encode()):
            raise NoSession("the runtime data holds another nonce than the session's")
        composite = isinstance(found, dict) and set(found) == {"primary_evidence", "additional_evidence"}
        if not composite and session.request.minor >= 4:
            raise BadField("tee-evidence is not primary_evidence and additional_evidence")
        if not composite:
            return cls(RuntimeData(nonce, key), found)
        e = Fields(found, "tee-evidence")
        additional = e.text("additional_evidence", max_chars=MAX_ATTEST_BYTES)
        return cls(RuntimeData(nonce, key, additional), e.any("primary_evidence"))


def _decoded(found: object) -> Any:
    """Version 0.1.0 has JSON in a string."""
    if not isinstance(found, str):
        return found
    try:
        return wire.loads(found.encode(), max_bytes=MAX_ATTEST_BYTES)
    except UnicodeEncodeError as error:
        raise BadField("tee-evidence is not text") from error


def _init_data(found: object) -> None:
    """Its form alone: nothing of it is used. What configures a guest is measured, and measurements are compared whole."""
    if found is None:
        return
    f = Fields(found, "init-data")
    f.text("format", max_chars=16)
    f.text("body", max_chars=MAX_ATTEST_BYTES)


def token_answer(token: str) -> bytes:
    """The answer to an attestation."""
    return wire.encode({"token": token})


def problem(kind: str, detail: str, **more: JSON) -> bytes:
    """What a guest gets instead of an answer, as it expects it (RFC 7807). ``kind``: one of the project's own names."""
    return wire.encode({**more, "detail": detail, "type": f"https://github.com/confidential-containers/kbs/errors/{kind}"})


__all__ = [
    "MAX_ATTEST_BYTES",
    "MAX_AUTH_BYTES",
    "SAMPLE",
    "SNP",
    "TDX",
    "TEES",
    "Attestation",
    "Request",
    "Session",
    "challenge",
    "problem",
    "token_answer",
]
