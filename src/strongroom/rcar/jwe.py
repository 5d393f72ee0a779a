"""A key for a guest: JSON Web Encryption (RFC 7516) in flattened form, to the key that the guest's evidence bound.

The library is jwcrypto because of one thing: a guest does not authenticate the header's bytes as they came, but its own
spelling of it (members sorted, nothing between them), and that is how jwcrypto spells it. See ``docs/dependencies.md``.
"""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

from strongroom import wire
from strongroom.attest.tee_key import TeeKey, unb64url
from strongroom.errors import BadKey, MissingExtra

ENC = "A256GCM"
MEMBERS = ("protected", "encrypted_key", "iv", "ciphertext", "tag")


def load() -> tuple[Any, Any]:
    """The library's modules for keys and for encryption. Raises MissingExtra."""
    try:
        return import_module("jwcrypto.jwk"), import_module("jwcrypto.jwe")
    except ImportError as error:
        raise MissingExtra("guests get keys as JWE", hint="Install it: pip install 'strongroom[rcar]'") from error


def encrypt(key: TeeKey, secret: bytes) -> bytes:
    """The flattened JWE, as JSON.

    Args:
        key: attested.
        secret: what is to be sent.

    Raises:
        MissingExtra; BadKey: nothing can be encrypted to this key.
    """
    jwk, jwe = load()
    try:
        header = wire.encode({"alg": key.alg, "enc": ENC}).decode()
        found = jwe.JWE(secret, protected=header, recipient=jwk.JWK(**dict(key.members)), algs=[key.alg, ENC])
        compact: str = found.serialize(compact=True)
    except Exception as error:  # the library's own, by many names
        raise BadKey(f"nothing can be encrypted to this key: {error.__class__.__name__}") from error
    parts = compact.split(".")
    protected = unb64url(parts[0])
    if wire.encode(json.loads(protected)) != protected:
        raise BadKey("the header is spelled otherwise than a guest will spell it")
    return wire.encode(dict(zip(MEMBERS, parts, strict=True)))
