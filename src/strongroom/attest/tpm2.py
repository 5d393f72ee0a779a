"""The TPM 2.0 structures that a quote is made of, read strictly: every length, every reserved bit, no trailing bytes.

Numbers are those of the TPM 2.0 Library, Part 2 (Structures): section 6.3 (algorithms), 6.4 (curves), 8.3 (TPMA_OBJECT),
10.6 (TPML_PCR_SELECTION), 10.12 (TPMS_ATTEST), 11.3 (TPMT_SIGNATURE), 12.2 (TPMT_PUBLIC). All integers are big-endian.
What is read is **untrusted**. Nothing here says whether a TPM made it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from strongroom.errors import BadEvidence, EvidenceForged

TPM_GENERATED = 0xFF544347
ATTEST_QUOTE = 0x8018

ALG_RSA, ALG_NULL, ALG_RSASSA, ALG_RSAPSS, ALG_ECDSA, ALG_ECC = 0x0001, 0x0010, 0x0014, 0x0016, 0x0018, 0x0023
ALG_SHA256, ALG_SHA384, ALG_SHA512 = 0x000B, 0x000C, 0x000D
DIGESTS: Mapping[int, str] = MappingProxyType({ALG_SHA256: "sha256", ALG_SHA384: "sha384", ALG_SHA512: "sha512"})
_HASHES: Mapping[int, hashes.HashAlgorithm] = MappingProxyType(
    {ALG_SHA256: hashes.SHA256(), ALG_SHA384: hashes.SHA384(), ALG_SHA512: hashes.SHA512()}
)
_CURVES: Mapping[int, type[ec.EllipticCurve]] = MappingProxyType(
    {0x0003: ec.SECP256R1, 0x0004: ec.SECP384R1, 0x0005: ec.SECP521R1}
)
MIN_RSA_BITS, MAX_RSA_BITS = 2048, 4096
PCR_COUNT = 24

FIXED_TPM, FIXED_PARENT, SENSITIVE_DATA_ORIGIN = 1 << 1, 1 << 4, 1 << 5
RESTRICTED, DECRYPT, SIGN = 1 << 16, 1 << 17, 1 << 18
_ATTESTATION_KEY = FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN | RESTRICTED | SIGN
# Every attribute that the specification knows (revision 1.83, which added the firmware- and SVN-limited keys).
_KNOWN_ATTRIBUTES = 0x000F_0FF6
ATTRIBUTE_BITS: Mapping[str, int] = MappingProxyType(
    {
        "fixedTPM": 1,
        "stClear": 2,
        "fixedParent": 4,
        "sensitiveDataOrigin": 5,
        "userWithAuth": 6,
        "adminWithPolicy": 7,
        "firmwareLimited": 8,
        "svnLimited": 9,
        "noDA": 10,
        "encryptedDuplication": 11,
        "restricted": 16,
        "decrypt": 17,
        "sign": 18,
        "x509sign": 19,
    }
)
# For people: algorithms that a quote, a signature or a key may name (section 6.3), and kinds of TPMS_ATTEST (section 6.9).
ALGORITHMS: Mapping[int, str] = MappingProxyType(
    {
        ALG_RSA: "rsa",
        0x0004: "sha1",
        ALG_SHA256: "sha256",
        ALG_SHA384: "sha384",
        ALG_SHA512: "sha512",
        ALG_NULL: "null",
        0x0012: "sm3_256",
        ALG_RSASSA: "rsassa",
        ALG_RSAPSS: "rsapss",
        ALG_ECDSA: "ecdsa",
        ALG_ECC: "ecc",
        0x0027: "sha3_256",
        0x0028: "sha3_384",
        0x0029: "sha3_512",
    }
)
ATTEST_KINDS: Mapping[int, str] = MappingProxyType(
    {
        0x8014: "NV",
        0x8015: "command audit",
        0x8016: "session audit",
        0x8017: "certify",
        ATTEST_QUOTE: "quote",
        0x8019: "time",
        0x801A: "creation",
        0x801C: "NV digest",
    }
)

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


class _Reader:
    """Reads integers and sized buffers off the front of some bytes. Raises BadEvidence where they end early."""

    def __init__(self, data: bytes, what: str) -> None:
        self._data, self._at, self._what = data, 0, what

    def take(self, size: int) -> bytes:
        found = self._data[self._at : self._at + size]
        if len(found) != size:
            raise BadEvidence(f"a {self._what} ends early")
        self._at += size
        return found

    def integer(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def sized(self, most: int) -> bytes:
        """A TPM2B: a length of two bytes, and as many bytes."""
        size = self.integer(2)
        if size > most:
            raise BadEvidence(f"a part of a {self._what} is longer than {most} bytes")
        return self.take(size)

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._at)

    def end(self) -> None:
        if self._at != len(self._data):
            raise BadEvidence(f"{len(self._data) - self._at} bytes after the end of a {self._what}")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which registers of one bank a quote covers (TPMS_PCR_SELECTION).

    Attributes:
        algorithm: the bank, as a TPM_ALG_ID.
        pcrs: the indices, ascending.
    """

    algorithm: int
    pcrs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Attest:
    """What a TPM signs (TPMS_ATTEST). **Untrusted.**

    Attributes:
        magic: ``TPM_GENERATED`` where the TPM itself made the structure.
        kind: ``ATTEST_QUOTE`` for a quote; of another kind nothing further is read.
        qualified_signer: the qualified name of the key that signed: a digest algorithm (2 bytes) and a digest.
        extra_data: what the asker had it sign.
        clock_ms: milliseconds for which the TPM has had power; no wall clock.
        reset_count: how often the machine was started.
        restart_count: how often it woke since.
        clock_safe: whether the clock has never gone back.
        firmware_version: the TPM's own. It and the counts are obscured for keys outside the endorsement hierarchy.
        selections: what is quoted.
        pcr_digest: the digest of the quoted registers, by the signature's digest algorithm.
    """

    magic: int
    kind: int
    qualified_signer: bytes
    extra_data: bytes
    clock_ms: int
    reset_count: int
    restart_count: int
    clock_safe: bool
    firmware_version: int
    selections: tuple[Selection, ...]
    pcr_digest: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises BadEvidence."""
        r = _Reader(data, "quote")
        magic, kind = r.integer(4), r.integer(2)
        signer, extra = r.sized(66), r.sized(66)
        clock, resets, restarts, safe, firmware = (r.integer(size) for size in (8, 4, 4, 1, 8))
        if safe > 1:
            raise BadEvidence("a quote's clock is neither safe nor unsafe")
        selections: tuple[Selection, ...] = ()
        digest = b""
        if kind == ATTEST_QUOTE:
            count = r.integer(4)
            if count > 16:
                raise BadEvidence("a quote selects from more than 16 banks")
            selections = tuple(_selection(r) for _ in range(count))
            digest = r.sized(64)
            r.end()
        else:
            r.rest()
        return cls(
            magic=magic,
            kind=kind,
            qualified_signer=signer,
            extra_data=extra,
            clock_ms=clock,
            reset_count=resets,
            restart_count=restarts,
            clock_safe=safe == 1,
            firmware_version=firmware,
            selections=selections,
            pcr_digest=digest,
        )


def _selection(r: _Reader) -> Selection:
    algorithm, size = r.integer(2), r.integer(1)
    if size != PCR_COUNT // 8:  # the PC Client profile has exactly 24 registers
        raise BadEvidence(f"a quote's selection has {size} bytes, where 3 are for 24 registers")
    bits = int.from_bytes(r.take(size), "little")
    return Selection(algorithm, tuple(n for n in range(PCR_COUNT) if bits >> n & 1))


@dataclass(frozen=True, slots=True)
class Public:
    """The public part of a TPM's key (TPMT_PUBLIC), RSA or elliptic curve. **Untrusted.**

    Attributes:
        name: what a TPM calls it: the digest algorithm (2 bytes) and the digest of the structure (Part 1, section 16).
        attributes: TPMA_OBJECT.
        scheme, scheme_digest: the scheme and digest that it is restricted to; ``ALG_NULL`` and 0 where to none.
        key: the key itself.
    """

    name: bytes
    attributes: int
    scheme: int
    scheme_digest: int
    key: PublicKey

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises BadEvidence."""
        r = _Reader(data, "TPM public key")
        kind, name_algorithm, attributes = r.integer(2), r.integer(2), r.integer(4)
        if kind not in {ALG_RSA, ALG_ECC}:
            raise BadEvidence("a TPM public key is neither RSA nor on an elliptic curve")
        if name_algorithm not in DIGESTS:
            raise BadEvidence("a TPM public key is named by a weak or unknown digest")
        if attributes & ~_KNOWN_ATTRIBUTES:
            raise BadEvidence("a TPM public key has attributes that are not known here")
        r.sized(64)  # the policy that authorises its use: no matter to who verifies
        symmetric = r.integer(2)
        if symmetric != ALG_NULL:  # of storage keys
            r.take(4)
        scheme = r.integer(2)
        scheme_digest = r.integer(2) if scheme != ALG_NULL else 0
        key = _rsa(r) if kind == ALG_RSA else _ecc(r)
        r.end()
        name = name_algorithm.to_bytes(2, "big") + hashlib.new(DIGESTS[name_algorithm], data).digest()
        return cls(name, attributes, scheme, scheme_digest, key)

    def is_named(self, qualified_signer: bytes, parent: bytes) -> bool:
        """Whether a qualified name is this key's, under a parent's qualified name or handle (Part 1, section 16.6).

        The parent is whatever is claimed: the digest binds this key's name, and with it its attributes, all the same.
        """
        algorithm = self.name[:2]
        digest = hashlib.new(DIGESTS[int.from_bytes(algorithm, "big")], parent + self.name).digest()
        return qualified_signer == algorithm + digest

    @property
    def is_attestation_key(self) -> bool:
        """Whether it was made in its TPM, cannot leave it, and signs only what the TPM itself makes."""
        return self.attributes & (_ATTESTATION_KEY | DECRYPT) == _ATTESTATION_KEY


def _rsa(r: _Reader) -> rsa.RSAPublicKey:
    bits, exponent, modulus = r.integer(2), r.integer(4), r.sized(MAX_RSA_BITS // 8)
    return rsa_key(int.from_bytes(modulus, "big"), exponent or 65537, bits)


def rsa_key(modulus: int, exponent: int, bits: int) -> rsa.RSAPublicKey:
    """An RSA key of exactly so many bits, 2048 to 4096. Raises BadEvidence."""
    if not MIN_RSA_BITS <= bits <= MAX_RSA_BITS or modulus.bit_length() != bits or exponent != 65537:
        raise BadEvidence(f"an RSA key is not of {MIN_RSA_BITS} to {MAX_RSA_BITS} bits with exponent 65537")
    try:
        return rsa.RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError as error:
        raise BadEvidence("an RSA key cannot be read") from error


def _ecc(r: _Reader) -> ec.EllipticCurvePublicKey:
    curve, derivation = _CURVES.get(r.integer(2)), r.integer(2)
    if derivation != ALG_NULL:
        r.take(2)
    x, y = r.sized(66), r.sized(66)
    if curve is None:
        raise BadEvidence("a TPM public key is on a curve that is not known here")
    instance = curve()
    size = (instance.key_size + 7) // 8
    if len(x) != size or len(y) != size:
        raise BadEvidence("a TPM public key's point is not of its curve's size")
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(instance, b"\4" + x + y)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadEvidence("a TPM public key is not a point of its curve") from error


@dataclass(frozen=True, slots=True)
class Signature:
    """A TPM's signature (TPMT_SIGNATURE).

    Attributes:
        scheme: RSASSA, RSAPSS or ECDSA.
        digest: the digest algorithm: SHA-256, SHA-384 or SHA-512.
        value: the signature, as ``cryptography`` takes it: RSA's number, or ECDSA's two in DER.
    """

    scheme: int
    digest: int
    value: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises BadEvidence; for SHA-1 too."""
        r = _Reader(data, "TPM signature")
        scheme, digest = r.integer(2), r.integer(2)
        if digest not in DIGESTS:
            raise BadEvidence("a TPM signature is over a weak or unknown digest")
        if scheme in {ALG_RSASSA, ALG_RSAPSS}:
            value = r.sized(MAX_RSA_BITS // 8)
        elif scheme == ALG_ECDSA:
            # Some TPMs leave leading zeros out, some do not: what counts are the numbers.
            value = encode_dss_signature(int.from_bytes(r.sized(66), "big"), int.from_bytes(r.sized(66), "big"))
        else:
            raise BadEvidence("a TPM signature is neither RSASSA, RSAPSS nor ECDSA")
        r.end()
        return cls(scheme, digest, value)

    def require(self, key: PublicKey, data: bytes) -> None:
        """Require that the key made this signature over the data. Raises EvidenceForged."""
        digest = _HASHES[self.digest]
        try:
            if isinstance(key, ec.EllipticCurvePublicKey) and self.scheme == ALG_ECDSA:
                key.verify(self.value, data, ec.ECDSA(digest))
            elif isinstance(key, rsa.RSAPublicKey) and self.scheme == ALG_RSASSA:
                key.verify(self.value, data, padding.PKCS1v15(), digest)
            elif isinstance(key, rsa.RSAPublicKey) and self.scheme == ALG_RSAPSS:
                # A TPM's salt is as long as the digest or as long as fits (Part 1, annex B.7).
                key.verify(self.value, data, padding.PSS(padding.MGF1(digest), padding.PSS.AUTO), digest)
            else:
                raise EvidenceForged("the signature is of another scheme than the attestation key")
        except (InvalidSignature, UnsupportedAlgorithm, ValueError) as error:
            raise EvidenceForged("the quote is not signed by the attestation key") from error
