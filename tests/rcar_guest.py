"""A guest of the confidential-containers project, written from its protocol and from nothing of ours.

It does what the guest components do, with their quirks: cookies as their HTTP client keeps them, the runtime data hashed in
canonical JSON with SHA-384, and a header of the encrypted answer that is authenticated as the guest itself spells it
(members sorted, nothing between them), not as it came.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap

PREFIX = "/kbs/v0"
CURVES = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def canonical(value: Any) -> bytes:
    """RFC 8785, of text and objects alone."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


class EcKey:
    def __init__(self, crv: str = "P-256") -> None:
        self.crv, self.private = crv, ec.generate_private_key(CURVES[crv])

    def public(self) -> dict[str, str]:
        numbers, size = self.private.public_key().public_numbers(), (self.private.key_size + 7) // 8
        x, y = (b64url(n.to_bytes(size, "big")) for n in (numbers.x, numbers.y))
        return {"alg": "ECDH-ES+A256KW", "crv": self.crv, "kty": "EC", "x": x, "y": y}

    def unwrap(self, header: dict[str, Any], wrapped: bytes) -> bytes:
        assert header["alg"] == "ECDH-ES+A256KW"
        epk = header["epk"]
        assert epk["crv"] == self.crv
        point = b"\x04" + unb64url(epk["x"]) + unb64url(epk["y"])
        z = self.private.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(CURVES[self.crv], point))
        alg = b"ECDH-ES+A256KW"  # RFC 7518, section 4.6.2: one round, no party information
        about = struct.pack(">I", len(alg)) + alg + bytes(8) + struct.pack(">I", 256)
        return aes_key_unwrap(hashlib.sha256(b"\0\0\0\1" + z + about).digest(), wrapped)


class RsaKey:
    def __init__(self, bits: int = 2048) -> None:
        self.private = rsa.generate_private_key(65537, bits)

    def public(self) -> dict[str, str]:
        n = self.private.public_key().public_numbers().n
        return {"alg": "RSA-OAEP-256", "e": "AQAB", "kty": "RSA", "n": b64url(n.to_bytes((n.bit_length() + 7) // 8, "big"))}

    def unwrap(self, header: dict[str, Any], wrapped: bytes) -> bytes:
        assert header["alg"] == "RSA-OAEP-256"
        return self.private.decrypt(wrapped, padding.OAEP(padding.MGF1(SHA256()), SHA256(), None))


def sample(report_data: bytes) -> dict[str, Any]:
    """The guest components' sample attester."""
    return {"svn": "1", "report_data": base64.b64encode(report_data).decode()}


class Denied(Exception):
    """What a guest reads of a refusal: the status, and its ``ErrorInformation``."""

    def __init__(self, status: int, info: dict[str, Any]) -> None:
        super().__init__(f"{status} {info}")
        self.status, self.kind, self.detail = status, info["type"].rpartition("/")[2], info["detail"]
        assert info["type"].startswith("https://github.com/confidential-containers/kbs/errors/")


@dataclass
class Guest:
    """One guest with one key.

    Args:
        web: the way to the broker; it keeps cookies.
        version: of the protocol.
        tee, attester: which kind of enclave, and what makes evidence for up to 64 bytes.
        key: its own.
    """

    web: httpx.Client
    version: str = "0.4.0"
    tee: str = "sample"
    attester: Callable[[bytes], Any] = sample
    key: Any = field(default_factory=EcKey)
    token: str = ""

    def challenge(self) -> str:
        hashes = {"supported-hash-algorithms": ["sha256", "sha384", "sha512"]}
        extra: Any = "" if self.version.startswith("0.1") else hashes
        answer = self.web.post(f"{PREFIX}/auth", json={"version": self.version, "tee": self.tee, "extra-params": extra})
        found = _json(answer)
        assert set(found) == {"nonce", "extra-params"}
        assert "kbs-session-id" in answer.headers["set-cookie"]
        return found["nonce"]

    def attestation(self, nonce: str) -> dict[str, Any]:
        jwk = self.key.public()
        if self.version.startswith(("0.1", "0.2")):
            evidence = self.attester(hashlib.sha384(canonical({"tee-pubkey": jwk, "nonce": nonce})).digest())
            return {"tee-pubkey": jwk, "tee-evidence": json.dumps(evidence) if self.version == "0.1.0" else evidence}
        runtime = {"nonce": nonce, "tee-pubkey": jwk}
        if self.version.startswith("0.3"):
            return {"runtime-data": runtime, "tee-evidence": self.attester(hashlib.sha384(canonical(runtime)).digest())}
        hashed = hashlib.sha384(canonical({**runtime, "additional-evidence": ""})).digest()
        evidence = {"primary_evidence": self.attester(hashed), "additional_evidence": ""}
        init_data = {"format": "toml", "body": 'version = "0.1.0"\nalgorithm = "sha384"\n'}
        return {"init-data": init_data, "runtime-data": runtime, "tee-evidence": evidence}

    def send(self, attestation: dict[str, Any]) -> str:
        self.token = _json(self.web.post(f"{PREFIX}/attest", json=attestation))["token"]
        return self.token

    def attest(self) -> str:
        return self.send(self.attestation(self.challenge()))

    def get(self, uri: str, **kwargs: Any) -> bytes:
        """A resource by its address, ``kbs:///REPOSITORY/TYPE/TAG``."""
        path = uri.removeprefix("kbs://")
        return self.open(_json(self.web.get(f"{PREFIX}/resource{path}", **kwargs)))

    def get_by_token(self, uri: str) -> bytes:
        """As a client does that has the token alone, and no cookie."""
        self.web.cookies.clear()
        return self.get(uri, headers={"authorization": f"Bearer {self.token}"})

    def open(self, jwe: dict[str, str]) -> bytes:
        header = json.loads(unb64url(jwe["protected"]))
        assert header["enc"] == "A256GCM"
        assert set(jwe) == {"protected", "encrypted_key", "iv", "ciphertext", "tag"}
        key = self.key.unwrap(header, unb64url(jwe["encrypted_key"]))
        named = {"alg": header.pop("alg"), "enc": header.pop("enc")}  # a struct of the two, and a sorted map of the others
        spelled = json.dumps(named, separators=(",", ":"))[:-1].encode()
        spelled += b"," + canonical(header)[1:] if header else b"}"
        body = unb64url(jwe["ciphertext"]) + unb64url(jwe["tag"])
        return AESGCM(key).decrypt(unb64url(jwe["iv"]), body, b64url(spelled).encode())


def _json(answer: httpx.Response) -> dict[str, Any]:
    if answer.status_code != 200:
        raise Denied(answer.status_code, answer.json())
    return answer.json()
