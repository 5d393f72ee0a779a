"""Writes vectors/party/: one file per case, the expected outcome in the file. Deterministic; run it from anywhere.

Encryption draws random numbers, so the one ciphertext here was made once and is kept.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from strongroom import wire
from strongroom.party import DecryptionKey, PartyKeys, SigningKey

FOLDER = Path(__file__).parent / "party"
P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
SIGN_BIT = 1 << 255
X25519_SMALL_ORDER = {  # RFC 7748's curve and its twist
    "0": 0,
    "1": 1,
    "minus-1": P - 1,
    "order-8": 325606250916557431795983626356110631294008115727848805560023387167927233504,
    "order-8-too": 39382357235489614581723060781553021112529911719440698176882885853963445705823,
}


def seed(name: str, size: int = 32) -> bytes:
    return hashlib.shake_256(name.encode()).digest(size)


SIGNING, BROKER = SigningKey(seed("signing")), SigningKey(seed("broker"))
DECRYPTION = DecryptionKey(seed("decryption", 96))
CARD = PartyKeys("hospital", SIGNING, DECRYPTION).card(BROKER.public, "https://broker.hospital.example")

DRAFT_SEED = "3ec47fa82dd5689d27c6190e724c74ec8f608df3331ce331929e37b829676630"
DRAFT_PUBLIC = "sha256:ad8aaf3f00d8a39bfeec2947a7d5dde68be08bba19bd301a348a45dc5fcc8341"
OPENING_SEED = hashlib.shake_256(bytes.fromhex(DRAFT_SEED)).digest(96)
PLAINTEXT, INFO = b"a key of 32 bytes, for one asset", b"one purpose"
CIPHERTEXT = """
FzBBvRpyEUOF8uTyGov5v78o7NU/2wNvYsp6aZqvwk97zaxxYjhD41ICScSUoxor2E/NyElG+HzHKgdOpw8NV0+LSFcMzM5OWKO7Lsm5L9zBfLiAS1vsakYl
VQi2iAp+W+lV/S/70lejJt1sppHUIJ0jyupFkHutNq8rSCQsS7itD/u5MSROzofld0Qfnc47mPAA9iwOBYqxxnB/cMil35i9qtC4ubHGQ81Ll0WS6nMGY/NK
8nSrXvUYD4/SE5yr1lsKz4LIDXBI0plILCN71ubaYT3LL4G3DyXAu58X8PyLIAOErz6CaWN3aRzwX6lCNbk876V27oAQrznbnaTowyH6WqxuJBeFPNE6VxDs
SsWaGTHby1T8AyxZ96tXOIt/fK+VOSBQdskDuJfoPmqDnwP/9JZXXsl0zoWs7qtrXb2/jzY+DAk21N3GjV1hwQFxNHJi0dC5u04ENhZNkFrdkEHsy1sR41jR
e8WtiPcCNnzUVyODzrjlNHm3VzRM9h5Lfb1VNan8yRdlWtQn4h4d9EXkwHjioBxY/PI5E7olGXML83TdFttZUJAm7tdMC7pu9x49vrSMQd8k3poNNtJ71mSy
JN0JCWzgf61OOH8J/i7vhUb16cVHM6OASyoaQnYFCGbBf1LOX49qULFd3Djm5rlGgVKe5sn7f9TTto20L8CZU4l5DBAKf2g67uIogT2okNdJ5QhzuoZRTAhL
OqkxUubJDs6b+YEW1NzkS69VJ+hIAf0ZpVzwIHmfB0LZBUHrEiEfkHLQNyElP3iJgkvs/dQu45u0e+XyW2tOh1V9vSw7ZsJezgvnATH+LFW9lbLJfmuT+lKD
YlxQJWtU17r082yVHGS39FW1w4Ljf0vTSBbeuMD06UQdOzt1fDZfOYs+zX7/QimeSAHTbwk4mAPLRvbTjiEtPMYQISt5IZbEoilYCBIPz/wqPfti1tqjRcig
PnzJGsm8GAHycpMRup16dfgECSCpQ1UD6tAxjw4jelP4bRO2aAgYUXgTaZRiAGYz47k3m6IuYgyffSOLE0xbfDFI/5QzhIFhpBI33pe/l2e4lci+19ZotHtu
0tta1rRDaMTbV+RUfF31eQJkeKwMsL2KXwbwmQsxniUl19Yah/dzsI6oax19eyTGLlbWyxjXskP5HSmFQsYCUrMm6Tvj0q4et2mDuoNFI1iOc8GJXKTS7em4
FbCLMFSu3lsyPcEA/y2GHCbkF4W9F7oU4c2PKqtbtYR0nZ+mITqOTVVtcAiXWcTO6yzwbmIB9ROaaChTo7i0zX16MiYVYbWlSECa5Ealmr0DSqh8WVMVW8H/
dHXQiZRQt2j2Fg4P0Q7Fgf+bz3dwxrDeVnGI8m4A1qWI44cFbUM+SPa7v30j1P9aAJeEWYlGtrqWbsZer+sjxIzHzU8xwLdwWnvLCVYTfaVaBctrSTSOxDQS
vTLXP1zE/kpRek6ldLPDlPnTlN9vS1kjWWr3RKtLUrJk9BnYnnsIae5AKylhuO8iAt2X1nQNo7Of10FdHwuzMz/OQw3afiVdISRpG0BLOgQ04tdknnIfBA==
"""

cases: dict[str, dict[str, Any]] = {}


def add(name: str, operation: str, description: str, expect: str = "ok", /, **inputs: Any) -> None:
    cases[name] = {"description": description, "expect": expect, "operation": operation, **inputs}


def point(y: int, sign: int) -> str:
    return (y | SIGN_BIT * sign).to_bytes(32, "little").hex()


def small_order_ordinates() -> dict[int, int]:
    """The y of every point of small order, and its order: y is 1, -1, 0, or one of the two whose double has y = 0."""
    d = -121665 * pow(121666, -1, P) % P
    # Doubling to y = 0 needs y^2 = -x^2; put into the curve's equation: d y^4 + 2 y^2 - 1 = 0.
    root = pow(1 + d, (P + 3) // 8, P)
    if root * root % P != (1 + d) % P:
        root = root * pow(2, (P - 1) // 4, P) % P
    for numerator in (root - 1, -root - 1):
        square = numerator * pow(d, -1, P) % P
        y = pow(square, (P + 3) // 8, P)
        if y * y % P != square:
            y = y * pow(2, (P - 1) // 4, P) % P
        if y * y % P == square:
            return {1: 1, P - 1: 2, 0: 4, y: 8, P - y: 8}
    raise AssertionError


def verify_keys() -> None:
    add("key-ours", "verify key", "a public key", key=SIGNING.public.raw.hex())
    for y, order in small_order_ordinates().items():
        for sign in (0, 1):
            for add_p in (0, 1):
                if y + P * add_p < SIGN_BIT:
                    spelled = "non-canonical " if add_p or (sign and y in (1, P - 1)) else ""
                    key = point(y + P * add_p, sign)
                    add(
                        f"key-order-{order}-{key[:6]}-{key[-4:]}",
                        "verify key",
                        f"the {spelled}encoding of a point of order {order}",
                        "party.bad_key",
                        key=key,
                    )
    on_curve = next(y for y in range(2, 19) if is_ordinate(y))
    off_curve = next(y for y in range(2, 19) if not is_ordinate(y))
    add("key-small-y", "verify key", "a point with a small y, which is no point of small order", key=point(on_curve, 0))
    add("key-not-canonical", "verify key", "the same point, its y raised by p", "party.bad_key", key=point(on_curve + P, 0))
    add("key-not-canonical-signed", "verify key", "the same with the other x", "party.bad_key", key=point(on_curve + P, 1))
    add("key-off-curve", "verify key", "a y that no point has", "party.bad_key", key=point(off_curve, 0))
    add("key-all-ones", "verify key", "32 bytes of ones", "party.bad_key", key="ff" * 32)
    add("key-short", "verify key", "31 bytes", "party.bad_key", key=SIGNING.public.raw.hex()[:-2])
    add("key-long", "verify key", "33 bytes", "party.bad_key", key=SIGNING.public.raw.hex() + "00")
    add("key-empty", "verify key", "no bytes", "party.bad_key", key="")


def is_ordinate(y: int) -> bool:
    d = -121665 * pow(121666, -1, P) % P
    return pow((y * y - 1) * pow(d * y * y + 1, -1, P), (P - 1) // 2, P) == 1


def signatures() -> None:
    message = b"what was signed"
    good = SIGNING.sign_bytes(message)
    s = int.from_bytes(good[32:], "little")

    def check(name: str, description: str, expect: str, signature: bytes, signed: bytes = message) -> None:
        add(
            f"signature-{name}",
            "signature",
            description,
            expect,
            key=SIGNING.public.raw.hex(),
            message=signed.hex(),
            signature=signature.hex(),
        )

    refused = "wire.bad_signature"
    check("ours", "a signature", "ok", good)
    check("other-message", "of another message", refused, good, b"what was not signed")
    check("other-key", "by another key", refused, BROKER.sign_bytes(message))
    for n in range(1, 8):
        raised = s + n * ORDER
        if raised < 2**256:
            check(
                f"plus-{n}-orders",
                f"S raised by {n} times the group order",
                refused,
                good[:32] + raised.to_bytes(32, "little"),
            )
    check("negated", "S negated", refused, good[:32] + (ORDER - s).to_bytes(32, "little"))
    check("zero-s", "S is zero", refused, good[:32] + bytes(32))
    check("small-order-r", "R is the neutral point", refused, b"\x01" + bytes(31) + good[32:])
    check("zeros", "64 zeros", refused, bytes(64))
    check("short", "63 bytes", refused, good[:-1])
    check("long", "65 bytes", refused, good + b"\x00")
    check("empty", "no bytes", refused, b"")
    for n, (key, text, signature) in enumerate(
        (
            (
                "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
                "",
                (
                    "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595b"
                    "be24655141438e7a100b"
                ),
            ),
            (
                "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
                "72",
                (
                    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb430"
                    "2aeeb00d291612bb0c00"
                ),
            ),
        ),
        1,
    ):
        add(
            f"signature-rfc8032-{n}",
            "signature",
            f"test {n} of RFC 8032 section 7.1",
            key=key,
            message=text,
            signature=signature,
        )


def encryption() -> None:
    add(
        "encryption-key-draft",
        "encryption key",
        "the public key of draft-ietf-hpke-pq's MLKEM768-X25519 example, from its private key's 96 expanded bytes",
        public=DRAFT_PUBLIC,
        seed=OPENING_SEED.hex(),
    )
    raw = DECRYPTION.public.raw

    def key(name: str, description: str, expect: str, value: bytes) -> None:
        add(f"encryption-key-{name}", "encryption public", description, expect, key=base64.b64encode(value).decode())

    key("ours", "a public key", "ok", raw)
    key("short", "a byte missing", "party.bad_key", raw[:-1])
    key("long", "a byte too many", "party.bad_key", raw + b"\x00")
    key("mlkem-unreduced", "an ML-KEM coefficient above the modulus", "party.bad_key", b"\xff\xff" + raw[2:])
    for spelled, u in {**X25519_SMALL_ORDER, "p": P, "p-plus-1": P + 1}.items():
        key(f"x25519-{spelled}", "an X25519 point of small order", "party.bad_key", raw[:-32] + u.to_bytes(32, "little"))

    ciphertext = base64.b64decode(CIPHERTEXT.replace("\n", ""))

    def check(
        name: str, description: str, expect: str, data: bytes, *, info: bytes = INFO, opening: bytes = OPENING_SEED
    ) -> None:
        add(
            f"decrypt-{name}",
            "decrypt",
            description,
            expect,
            ciphertext=base64.b64encode(data).decode(),
            info=info.hex(),
            plaintext=PLAINTEXT.hex(),
            seed=opening.hex(),
        )

    refused = "party.bad_key"
    check("ours", "a ciphertext for this key and this purpose", "ok", ciphertext)
    check("other-info", "for another purpose", refused, ciphertext, info=b"another purpose")
    check("no-info", "for no purpose", refused, ciphertext, info=b"")
    check("other-key", "for another key", refused, ciphertext, opening=seed("decryption", 96))
    check("mlkem-flipped", "a bit of the ML-KEM ciphertext flipped", refused, bytes([ciphertext[0] ^ 1]) + ciphertext[1:])
    check(
        "x25519-flipped",
        "a bit of the X25519 key flipped",
        refused,
        ciphertext[:1088] + bytes([ciphertext[1088] ^ 1]) + ciphertext[1089:],
    )
    check("tag-flipped", "a bit of the tag flipped", refused, ciphertext[:-1] + bytes([ciphertext[-1] ^ 1]))
    check("cut", "a byte short", refused, ciphertext[:-1])
    check("trailing", "a byte too long", refused, ciphertext + b"\x00")
    check("empty", "no bytes", refused, b"")


def cards() -> None:
    good = CARD.to_json()

    def check(name: str, description: str, expect: str, card: bytes) -> None:
        add(f"card-{name}", "card", description, expect, card=card.decode(), fingerprint=CARD.fingerprint)

    def changed(**members: Any) -> bytes:
        return wire.encode({**good, **members})

    check("ours", "a card", "ok", CARD.encode())
    check("no-address", "the address is no part of the fingerprint", "ok", changed(broker_url=""))
    check("spaced", "another spelling", "wire.not_canonical", json.dumps(good).encode())
    check("unknown-member", "a member that nobody knows", "wire.bad_field", changed(more=1))
    check("no-name", "a member missing", "wire.bad_field", wire.encode({k: v for k, v in good.items() if k != "name"}))
    check("upper-case-name", "a name in upper case", "wire.bad_field", changed(name="Hospital"))
    check("path-as-name", "a path for a name", "wire.bad_field", changed(name="../hospital"))
    check("long-address", "an address of 257 characters", "wire.bad_field", changed(broker_url="x" * 257))
    check(
        "weak-signing-key",
        "a signing key of small order",
        "party.bad_key",
        changed(signing_key=wire.b64(b"\x01" + bytes(31))),
    )
    check("weak-broker-key", "a broker key of small order", "party.bad_key", changed(broker_key=wire.b64(bytes(32))))
    check(
        "short-encryption-key", "an encryption key cut short", "party.bad_key", changed(encryption_key=wire.b64(bytes(32)))
    )
    check(
        "one-key-for-two-roles",
        "the broker signs with the party's key",
        "party.bad_key",
        changed(broker_key=good["signing_key"]),
    )


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for make in (verify_keys, signatures, encryption, cards):
        make()
    for name, case in cases.items():
        (FOLDER / f"{name}.json").write_text(json.dumps(case, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
