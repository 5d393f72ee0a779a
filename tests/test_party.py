"""Keys and cards: what is weak, ambiguous or for another purpose is refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom import wire
from strongroom.errors import BadEnvelope, BadField, BadKey, BadSignature, StrongroomError
from strongroom.party import (
    ENCRYPTION_KEY_BYTES,
    ENCRYPTION_OVERHEAD,
    DecryptionKey,
    EncryptionKey,
    Party,
    PartyKeys,
    SigningKey,
    VerifyKey,
)

VECTORS = sorted((Path(__file__).parents[1] / "vectors" / "party").glob("*.json"))
P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
ORDER = 2**252 + 27742317777372353535851937790883648493

seeds = st.binary(min_size=32, max_size=32)
SIGNING, BROKER = SigningKey(bytes([1] * 32)), SigningKey(bytes([2] * 32))
DECRYPTION = DecryptionKey(bytes([3] * 96))
KEYS = PartyKeys("hospital", SIGNING, DECRYPTION)
CARD = KEYS.card(BROKER.public, "https://broker.example")

# --- Ed25519 public keys, against a curve written out here ------------------------------------------------------------

Point = tuple[int, int]


def add(p: Point, q: Point) -> Point:
    """RFC 8032's group law on edwards25519, in affine coordinates."""
    (x1, y1), (x2, y2) = p, q
    k = D * x1 * x2 * y1 * y2 % P
    return ((x1 * y2 + x2 * y1) * pow(1 + k, -1, P) % P, (y1 * y2 + x1 * x2) * pow(1 - k, -1, P) % P)


def multiply(n: int, p: Point) -> Point:
    found, doubled = (0, 1), p
    while n:
        if n & 1:
            found = add(found, doubled)
        n, doubled = n >> 1, add(doubled, doubled)
    return found


def root(square: int) -> int | None:
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    return x if x * x % P == square % P else None


def at(y: int) -> Point | None:
    x = root((y * y - 1) * pow(D * y * y + 1, -1, P) % P)
    return None if x is None else (x, y)


def encode(point: Point, *, raised: int = 0, sign: int | None = None) -> bytes:
    x, y = point
    return (y + raised * P | (x & 1 if sign is None else sign) << 255).to_bytes(32, "little")


def torsion() -> set[Point]:
    """The eight points of small order: the multiples of a point's prime part taken away, until one has all eight."""
    for y in range(2, 100):
        point = at(y)
        if point is not None:
            small = multiply(ORDER, point)
            found = {multiply(n, small) for n in range(8)}
            if len(found) == 8:
                return found
    raise AssertionError


SMALL = torsion()


def is_accepted(raw: bytes) -> bool:
    try:
        VerifyKey(raw)
    except BadKey:
        return False
    return True


def test_every_encoding_of_every_point_of_small_order_is_refused() -> None:
    tried = set()
    for point in SMALL:
        for raised in (0, 1):
            for sign in (0, 1):
                if point[1] + raised * P < 2**255:
                    tried.add(encode(point, raised=raised, sign=sign))
    assert len(tried) == 14
    assert not any(is_accepted(raw) for raw in tried)


def test_the_points_of_small_order_have_small_order() -> None:
    assert all(multiply(8, point) == (0, 1) for point in SMALL)


@pytest.mark.parametrize("y", range(19))
@pytest.mark.parametrize("sign", [0, 1])
def test_every_non_canonical_encoding_is_refused(y: int, sign: int) -> None:
    raw = (y + P | sign << 255).to_bytes(32, "little")
    assert not is_accepted(raw)


@given(st.integers(0, P - 1), st.integers(0, 1))
def test_a_key_is_a_point_on_the_curve(y: int, sign: int) -> None:
    raw = (y | sign << 255).to_bytes(32, "little")
    on_curve = at(y) is not None
    assert is_accepted(raw) == (on_curve and y not in {point[1] for point in SMALL})


@given(seeds)
def test_every_honest_key_is_accepted(seed: bytes) -> None:
    key = SigningKey.from_seed(seed)
    assert VerifyKey(key.public.raw) == key.public
    assert key.public.keyid == wire.digest(key.public.raw)


@given(st.binary(max_size=40).filter(lambda raw: len(raw) != 32))
def test_a_key_of_another_length_is_refused(raw: bytes) -> None:
    for make in (VerifyKey, SigningKey.from_seed, EncryptionKey, DecryptionKey.from_seed):
        with pytest.raises(BadKey):
            make(raw)


# --- signatures -----------------------------------------------------------------------------------------------------


@given(seeds, st.binary(max_size=40))
def test_a_signature_verifies(seed: bytes, message: bytes) -> None:
    key = SigningKey(seed)
    key.public.verify_bytes(key.sign_bytes(message), message)


@given(st.binary(max_size=40), st.integers(0, 511))
def test_no_bit_of_a_signature_can_be_flipped(message: bytes, bit: int) -> None:
    signature = int.from_bytes(SIGNING.sign_bytes(message), "little") ^ 1 << bit
    with pytest.raises(BadSignature):
        SIGNING.public.verify_bytes(signature.to_bytes(64, "little"), message)


@given(st.binary(max_size=40), st.integers(1, 15))
def test_a_signature_has_one_s(message: bytes, times: int) -> None:
    signature = SIGNING.sign_bytes(message)
    raised = int.from_bytes(signature[32:], "little") + times * ORDER
    if raised < 2**256:
        with pytest.raises(BadSignature):
            SIGNING.public.verify_bytes(signature[:32] + raised.to_bytes(32, "little"), message)


@given(st.binary(max_size=80))
def test_other_bytes_are_no_signature(signature: bytes) -> None:
    with pytest.raises(BadSignature):
        SIGNING.public.verify_bytes(signature, b"message")


def test_an_envelope_is_by_exactly_the_expected_key() -> None:
    kind = wire.media_type("release")
    ours, theirs = SIGNING.sign(kind, b"{}"), BROKER.signature(kind, b"{}")
    assert SIGNING.public.verify(ours, kind) == b"{}"
    for signatures in ((), (theirs,), (*ours.signatures, theirs), ours.signatures * 2):
        with pytest.raises(BadSignature):
            SIGNING.public.verify(replace(ours, signatures=signatures), kind)
    with pytest.raises(BadEnvelope):
        SIGNING.public.verify(ours, wire.media_type("refusal"))


# --- encryption -----------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(st.binary(max_size=64), st.binary(max_size=32))
def test_encryption_round_trip(plaintext: bytes, info: bytes) -> None:
    ciphertext = DECRYPTION.public.encrypt(plaintext, info=info)
    assert len(ciphertext) == len(plaintext) + ENCRYPTION_OVERHEAD
    assert DECRYPTION.decrypt(ciphertext, info=info) == plaintext
    assert DECRYPTION.public.encrypt(plaintext, info=info) != ciphertext


@settings(max_examples=25)
@given(st.binary(max_size=16), st.binary(max_size=16))
def test_a_ciphertext_for_another_purpose_does_not_open(info: bytes, other: bytes) -> None:
    ciphertext = DECRYPTION.public.encrypt(b"key", info=info)
    if info != other:
        with pytest.raises(BadKey):
            DECRYPTION.decrypt(ciphertext, info=other)


def test_no_byte_of_a_ciphertext_can_be_changed() -> None:
    ciphertext = DECRYPTION.public.encrypt(b"key", info=b"")
    for n in range(len(ciphertext)):
        changed = ciphertext[:n] + bytes([ciphertext[n] ^ 1 << n % 8]) + ciphertext[n + 1 :]
        with pytest.raises(BadKey):
            DECRYPTION.decrypt(changed, info=b"")


@given(st.binary(max_size=ENCRYPTION_OVERHEAD + 8))
def test_decrypting_is_total(ciphertext: bytes) -> None:
    with pytest.raises(BadKey):
        DECRYPTION.decrypt(ciphertext, info=b"")


def test_another_key_does_not_open() -> None:
    with pytest.raises(BadKey):
        DecryptionKey(bytes(96)).decrypt(DECRYPTION.public.encrypt(b"key", info=b""), info=b"")


@given(st.binary(min_size=ENCRYPTION_KEY_BYTES, max_size=ENCRYPTION_KEY_BYTES))
@settings(max_examples=25)
def test_an_encryption_key_that_is_accepted_can_be_encrypted_to(raw: bytes) -> None:
    try:
        key = EncryptionKey(raw)
    except BadKey:
        return
    key.encrypt(b"key", info=b"")


# --- cards ----------------------------------------------------------------------------------------------------------


@given(
    st.from_regex(r"[a-z0-9]([a-z0-9._-]{0,10}[a-z0-9])?", fullmatch=True),
    seeds,
    seeds,
    st.from_regex(r"(https?://[a-z0-9]{1,20}(\.example)?(:[1-9][0-9]{0,4})?)?", fullmatch=True),
)
def test_card_round_trip(name: str, signing: bytes, broker: bytes, url: str) -> None:
    if signing == broker:
        return
    card = PartyKeys(name, SigningKey(signing), DECRYPTION).card(SigningKey(broker).public, url)
    assert Party.parse(card.encode()) == card
    assert card.fingerprint == replace(card, broker_url="https://elsewhere.example").fingerprint


@given(st.integers(min_value=0), st.integers(1, 255))
def test_card_malleability(at: int, flip: int) -> None:
    encoded = bytearray(CARD.encode())
    encoded[at % len(encoded)] ^= flip
    try:
        found = Party.parse(bytes(encoded))
    except StrongroomError:
        return
    assert found.encode() == bytes(encoded)
    assert found != CARD


@pytest.mark.parametrize(
    "change",
    [
        lambda: replace(CARD, name="clinic"),
        lambda: replace(CARD, signing_key=SigningKey(bytes(32)).public),
        lambda: replace(CARD, broker_key=SigningKey(bytes(32)).public),
        lambda: replace(CARD, encryption_key=DecryptionKey(bytes(96)).public),
    ],
)
def test_the_fingerprint_binds_the_name_and_every_key(change: Callable[[], Party]) -> None:
    assert change().fingerprint != CARD.fingerprint


def test_one_key_cannot_have_two_roles() -> None:
    with pytest.raises(BadKey, match="one key per role"):
        KEYS.card(SIGNING.public)


def test_a_card_is_small() -> None:
    with pytest.raises(StrongroomError):
        Party.parse(replace(CARD, broker_url="x" * (16 << 10)).encode())


def test_secrets_are_not_shown() -> None:
    assert DecryptionKey.from_seed(DECRYPTION.seed) == DECRYPTION
    for secret in (SIGNING, DECRYPTION, KEYS):
        assert "\\x01" not in repr(secret)
        assert "\\x03" not in repr(secret)
        assert "…" in repr(secret)


def test_the_example_of_the_specification() -> None:
    page = (Path(__file__).parents[1] / "spec" / "party.md").read_text(encoding="utf-8").split("## Example")[1]
    card = Party.from_json(json.loads(page.split("```json\n")[1].split("```")[0]))
    assert f"`{card.fingerprint}`" in page


# --- vectors --------------------------------------------------------------------------------------------------------


def run(case: dict[str, Any]) -> None:
    match case["operation"]:
        case "verify key":
            VerifyKey(bytes.fromhex(case["key"]))
        case "signature":
            key = VerifyKey(bytes.fromhex(case["key"]))
            key.verify_bytes(bytes.fromhex(case["signature"]), bytes.fromhex(case["message"]))
        case "encryption key":
            assert wire.digest(DecryptionKey(bytes.fromhex(case["seed"])).public.raw) == case["public"]
        case "encryption public":
            EncryptionKey(base64.b64decode(case["key"]))
        case "decrypt":
            key = DecryptionKey(bytes.fromhex(case["seed"]))
            opened = key.decrypt(base64.b64decode(case["ciphertext"]), info=bytes.fromhex(case["info"]))
            assert opened.hex() == case["plaintext"]
        case "card":
            card = Party.parse(case["card"].encode())
            assert (card.encode().decode(), card.fingerprint) == (case["card"], case["fingerprint"])
        case _:
            pytest.fail("an operation that this test does not know")


def test_there_are_vectors() -> None:
    assert len(VECTORS) > 60


@pytest.mark.parametrize("path", VECTORS, ids=lambda p: p.stem)
def test_vector(path: Path) -> None:
    case = json.loads(path.read_bytes())
    if case["expect"] == "ok":
        run(case)
        return
    with pytest.raises(StrongroomError) as caught:
        run(case)
    assert caught.value.code == case["expect"]


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1/admin?x=",
        "https://broker.example/",
        "https://user@broker.example",
        "ftp://broker.example",
        "https://broker.example#x",
        "https://Broker.example",
        "https://broker.example:0",
        "https://broker .example",
        "broker.example",
        "http://[::1",
    ],
)
def test_a_broker_address_that_could_lead_anywhere_is_refused(url: str) -> None:
    with pytest.raises(BadField):
        Party.parse(replace(CARD, broker_url=url).encode())
