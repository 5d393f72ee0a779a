"""Attestation results as tokens: EAR (draft-ietf-rats-ear) in a JSON Web Token, signed by the broker, for whoever wants the
result and not the key.

One algorithm, Ed25519 under the name ``EdDSA``, in what is written and in what is read. See ``spec/rcar.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from strongroom import wire
from strongroom.attest.result import EAR_PROFILE, AttestationResult
from strongroom.attest.tee_key import TeeKey, unb64url
from strongroom.attest.vector import Tier, TrustVector
from strongroom.errors import BadEar, BadField, BadTeeKey, NotAffirming, WireError
from strongroom.party import SigningKey, VerifyKey
from strongroom.wire import JSON

ALGORITHM = "EdDSA"
MAX_TOKEN_BYTES = 16 << 10
SUBMOD = (
    "ear.appraisal-policy-id",
    "ear.status",
    "ear.trustworthiness-vector",
    "strongroom.label",
    "strongroom.measurement",
)
_VECTOR = frozenset(TrustVector().to_json())
_TIERS = frozenset(tier.value for tier in Tier)


def claims(result: AttestationResult, *, key: TeeKey, nonce: str, jti: str, issuer: str, until: int) -> dict[str, JSON]:
    """The claims-set: the result of one appraisal, and the guest's key.

    Args:
        result: affirming.
        key: what the evidence bound.
        nonce: as the challenge spelled it.
        jti: the token's own name.
        issuer: the broker's key id.
        until: the first second at which it no longer counts, Unix.

    Raises:
        NotAffirming: there is nothing to say.
    """
    if not result.affirming or result.keyset_digest != key.digest:
        raise NotAffirming("only an affirming result of this guest's is signed", reason=NotAffirming.code)
    said: Any = result.to_json()
    submod = said["submods"][result.platform]
    return {
        "cnf": {"jkt": key.thumbprint},
        "ear.verifier-id": said["ear.verifier-id"],
        "eat_nonce": nonce,
        "eat_profile": EAR_PROFILE,
        "exp": until,
        "iat": result.at,
        "iss": issuer,
        "jti": jti,
        "submods": {result.platform: {name: submod[name] for name in SUBMOD}},
        "tee-pubkey": key.to_json(),
    }


def sign(found: Mapping[str, JSON], key: SigningKey) -> str:
    """The token. Its signing input is base64url text with a dot, and never what a DSSE envelope's signature is over."""
    header = {"alg": ALGORITHM, "kid": key.public.keyid, "typ": "JWT"}
    private = Ed25519PrivateKey.from_private_bytes(key.seed)
    return jwt.encode(dict(found), private, algorithm=ALGORITHM, headers=header)


@dataclass(frozen=True, slots=True)
class Ear:
    """A token whose signature and form hold. Made by :func:`verify`.

    Attributes:
        status: the worst of its submodules.
        submods: by platform, each with its EAR claims.
        key: the guest's identity, ``sha256:`` and hex.
        nonce, jti: as they stand there.
        at, until: when it was made, and the first second at which it is over, Unix.
    """

    status: Tier
    submods: Mapping[str, Mapping[str, Any]]
    key: str
    nonce: str
    jti: str
    at: int
    until: int


def verify(token: str, key: VerifyKey, at: int) -> Ear:
    """Check a token by EAR's own rules.

    Args:
        token: untrusted.
        key: of the broker that is believed, from a card that was pinned: never from the token.
        at: Unix seconds.

    Raises:
        BadEar: another algorithm, key, profile or form, or not of now.
    """
    if len(token) > MAX_TOKEN_BYTES or not token.isascii():
        raise BadEar(f"not a token of at most {MAX_TOKEN_BYTES} bytes")
    try:
        header = wire.loads(unb64url(token.split(".", maxsplit=1)[0]))
        if header != {"alg": ALGORITHM, "kid": key.keyid, "typ": "JWT"}:
            raise BadEar("the token is not signed with Ed25519 by this broker")
        options: Any = {"verify_exp": False, "verify_iat": False, "verify_aud": False, "verify_iss": False}
        public = Ed25519PublicKey.from_public_bytes(key.raw)
        jwt.decode(token, public, algorithms=[ALGORITHM], options=options)
        found = wire.loads(unb64url(token.split(".")[1]))  # the same bytes, and no member twice
        return _read(found, key, at)
    except (jwt.PyJWTError, WireError, BadTeeKey, IndexError) as error:
        raise BadEar(f"not a token of this broker's: {error.__class__.__name__}") from error


def _read(found: Any, key: VerifyKey, at: int) -> Ear:
    f = wire.Fields(found, "EAR")
    if f.text("eat_profile") != EAR_PROFILE:
        raise BadEar("the token has another profile than EAR's")
    if f.text("iss") != key.keyid:
        raise BadEar("the token says that another broker signed it")
    began, until = f.integer("iat"), f.integer("exp")
    if not began <= at < until:
        raise BadEar(f"the token holds from {began} until {until}, and it is {at}")
    verifier = wire.Fields(f.any("ear.verifier-id"), "ear.verifier-id")
    verifier.text("developer"), verifier.text("build")
    submods = f.any("submods")
    if not isinstance(submods, dict) or not submods:
        raise BadEar("the token is about nothing")
    tiers = [_tier(one) for one in submods.values()]
    confirmed = unb64url(wire.Fields(f.any("cnf"), "cnf").text("jkt"))
    tee = TeeKey.from_json(f.any("tee-pubkey"))
    if tee.digest != f"sha256:{confirmed.hex()}":
        raise BadEar("the token names two keys")
    status = max(tiers, key=list(Tier).index)
    return Ear(status, submods, tee.digest, f.text("eat_nonce", max_chars=88), f.text("jti"), began, until)


def _tier(submod: object) -> Tier:
    f = wire.Fields(submod, "submod")
    status = f.text("ear.status", choices=sorted(_TIERS))
    vector = f.any("ear.trustworthiness-vector")
    if not isinstance(vector, dict) or not vector.keys() <= _VECTOR:
        raise BadField("a trustworthiness vector has other claims than AR4SI's")
    if not all(type(value) is int and -128 <= value <= 127 for value in vector.values()):
        raise BadField("a claim of a trustworthiness vector is not -128 to 127")
    return Tier(status)
