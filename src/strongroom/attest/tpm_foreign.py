"""Evidence of TPMs as others write it down, read into our own form: one named reader a format, none of them guesses.

Nothing is believed here, and nothing added: what a format does not hold (how the TPM describes the key) stays unsaid.
"""

from __future__ import annotations

from collections.abc import Iterator

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from strongroom import wire
from strongroom.errors import BadCertificate, BadEvidence, WireError
from strongroom.wire import Fields

from .tpm import Claims
from .tpm2 import ALG_RSASSA, ALG_SHA256, PCR_COUNT, Attest
from .tpm_quote import BANKS, Quote
from .x509 import Certificate

MAX_FOREIGN_BYTES = 256 << 10
MAX_DUMP_BYTES = 136 + 3 * 532  # of registers, three lists of eight
MAX_KEY_CHARS = 2048  # of a key in PEM
MAX_NV_BYTES = 16 << 10
ENDORSEMENT_HIERARCHY = bytes.fromhex("4000000b")  # TPM_RH_ENDORSEMENT: the parent of keys made straight under it


def rsassa_sha256(raw: bytes) -> bytes:
    """A TPMT_SIGNATURE of a bare RSASSA signature over SHA-256, which some keep without saying by what it was made."""
    return ALG_RSASSA.to_bytes(2, "big") + ALG_SHA256.to_bytes(2, "big") + len(raw).to_bytes(2, "big") + raw


def from_trustee(data: bytes) -> Claims:
    """What the confidential-containers verifier takes: JSON of ``ak_public`` and ``tpm_quote``. Raises BadEvidence."""
    try:
        f = Fields(wire.loads(data, max_bytes=MAX_FOREIGN_BYTES), "evidence")
        key = f.base64("ak_public", max_bytes=1024)
        g = Fields(f.any("tpm_quote"), "evidence.tpm_quote")
        quote = Quote(
            g.base64("message", max_bytes=1024), g.base64("signature", max_bytes=1024), "sha256", hex_registers(g, "pcrs")
        )
        g.end()
        f.end()
    except WireError as error:
        raise BadEvidence(f"not TPM evidence of that verifier: {error}") from error
    return Claims(quote, key_info=key)


def hex_registers(f: Fields, name: str) -> dict[int, bytes]:
    """All 24 registers of the SHA-256 bank, in order, in hex. Raises BadField."""
    values = f.items(name, lambda v: Fields({"pcr": v}, name).hex("pcr", size=32), low=PCR_COUNT, high=PCR_COUNT)
    return dict(enumerate(values))


def from_tpm2_tools(
    *, message: bytes, signature: bytes, registers: bytes, key_pem: bytes = b"", public: bytes = b"", parent: bytes = b""
) -> Claims:
    """What ``tpm2_quote -m -s -o`` writes (keylime keeps the same), with the key as PEM or as the TPM describes it.

    Args:
        message, signature: TPMS_ATTEST and TPMT_SIGNATURE.
        registers: the structures in memory as the tool dumps them, of a little-endian machine: the selection (16 places of 8
            bytes), how many lists follow, and each list of at most eight values (66 bytes each).
        key_pem: the key alone (``tpm2_readpublic -f pem``); or else
        public, parent: TPM2B_PUBLIC (``tpm2_createak -u``), and the qualified name or handle of what it was made under.

    Raises:
        BadEvidence: not of that form.
    """
    bank, pcrs = _dumped(registers)
    spki = b""
    if key_pem:
        try:
            key = load_pem_public_key(key_pem)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise BadEvidence("the attestation key is not PEM") from error
        spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if int.from_bytes(public[:2], "big") != len(public[2:]):
        raise BadEvidence("the attestation key does not have the length that it says")
    return Claims(Quote(message, signature, bank, pcrs), public[2:], parent, spki)


def from_tpm2_json(data: bytes) -> Claims:
    """What ``tpm2_quote`` writes, its files put together in one of JSON: ``{"tpm2_quote": {...}}``.

    Its members are ``message``, ``signature`` and ``pcrs`` (``-m``, ``-s`` and ``-o``) in base64, and the key: either
    ``key_pem``, or ``public`` in base64 and ``parent`` in hex. See :func:`from_tpm2_tools`.

    Raises:
        BadEvidence: not of that form.
    """
    try:
        f = Fields(wire.loads(data, max_bytes=MAX_FOREIGN_BYTES), "evidence")
        g = Fields(f.any("tpm2_quote"), "evidence.tpm2_quote")
        f.end()
        found = {name: g.base64(name, max_bytes=1024) for name in ("message", "signature")}
        found["registers"] = g.base64("pcrs", max_bytes=MAX_DUMP_BYTES)
        if g.has("key_pem"):
            found["key_pem"] = g.text("key_pem", max_chars=MAX_KEY_CHARS).encode("utf-8", "replace")
        else:
            found["public"] = g.base64("public", max_bytes=1024)
            parent = g.text("parent", max_chars=2 * 66)
            found["parent"] = Fields({"parent": parent}, "evidence.tpm2_quote").hex("parent", size=len(parent) // 2)
        g.end()
    except WireError as error:
        raise BadEvidence(f"not the files of tpm2_quote: {error}") from error
    return from_tpm2_tools(**found)


def _dumped(data: bytes) -> tuple[str, dict[int, bytes]]:
    """Raises BadEvidence."""

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], "little")

    lists = number(132, 4)
    banks = {algorithm: name for name, algorithm in BANKS.items()}
    if not 1 <= lists <= 3 or len(data) != 136 + lists * 532 or number(0, 4) != 1 or number(4, 2) not in banks:
        raise BadEvidence("not one bank of registers as tpm2_quote dumps them")
    selected = [n for n in range(PCR_COUNT) if number(7, 3) >> n & 1]
    values: list[bytes] = []
    for start in range(136, len(data), 532):
        places = range(start + 4, start + 4 + min(number(start, 4), 8) * 66, 66)
        values += [data[at + 2 : at + 2 + min(number(at, 2), 64)] for at in places]
    if len(values) != len(selected):
        raise BadEvidence(f"{len(values)} registers are dumped where {len(selected)} are selected")
    return banks[number(4, 2)], dict(zip(selected, values, strict=True))


def from_google(data: bytes) -> tuple[Claims, tuple[Certificate, ...]]:
    """The ``attest.Attestation`` message of go-tpm-tools (protocol buffers): its SHA-256 quote, and its key's certificates.

    Of the message are read ``ak_pub`` (1, a TPMT_PUBLIC, under the endorsement hierarchy), ``quotes`` (2), ``ak_cert`` (6)
    and ``intermediate_certs`` (7); event logs (3, 4 and 9 on) are others' to read.

    Raises:
        BadEvidence: not of that form, or without a quote of the SHA-256 bank.
        BadCertificate: a certificate cannot be read.
    """
    if len(data) > MAX_FOREIGN_BYTES:
        raise BadEvidence("a message is too long")
    keys, quotes, certificates = [], [], []
    for number, value in _message(data, most=64):
        if number == 1:
            keys.append(_bytes(value))
        elif number == 2:
            quotes.append(_google_quote(_bytes(value)))
        elif number in {6, 7}:
            certificates.append(Certificate(_bytes(value)))
    wanted = [quote for quote in quotes if quote is not None]
    if len(keys) != 1 or len(wanted) != 1:
        raise BadEvidence("not exactly one key and one quote of the sha256 bank")
    return Claims(wanted[0], keys[0], ENDORSEMENT_HIERARCHY), tuple(certificates)


def _google_quote(data: bytes) -> Quote | None:
    """A ``tpm.Quote`` message: quote (1), raw_sig (2), pcrs (3); ``None`` where it is not of the SHA-256 bank."""
    found = {number: _bytes(value) for number, value in _message(data, most=3)}
    if set(found) != {1, 2, 3}:
        raise BadEvidence("not a quote, a signature and registers")
    bank, pcrs = 0, {}
    for number, value in _message(found[3], most=64):
        if number == 1:
            bank = _integer(value)
        elif number == 2:
            entry = dict(_message(_bytes(value), most=2))
            pcrs[_integer(entry.get(1, 0))] = _bytes(entry.get(2, b""))
    selected = [selection.algorithm for selection in Attest.parse(found[1]).selections]
    if bank != BANKS["sha256"] or selected != [bank]:
        return None
    return Quote(found[1], found[2], "sha256", pcrs)


def _integer(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise BadEvidence("bytes where a message has a number")
    return value


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise BadEvidence("a number where a message has bytes")
    return value


def _message(data: bytes, *, most: int) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of a protocol buffers message: numbers and bytes, no other wire type, and so many fields.

    Raises BadEvidence.
    """
    at = fields = 0

    def varint() -> int:
        nonlocal at
        value = 0
        for shift in range(0, 70, 7):
            if at >= len(data):
                raise BadEvidence("a message ends early")
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise BadEvidence("a number of a message does not end")

    while at < len(data):
        fields += 1
        if fields > most:
            raise BadEvidence(f"a message has more than {most} fields")
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
        elif key & 7 == 2:
            size = varint()
            if size > len(data) - at:
                raise BadEvidence("a message ends early")
            at += size
            yield key >> 3, data[at - size : at]
        else:
            raise BadEvidence("a message has a field of a type that is not used here")


def certificate_of_nv_index(data: bytes) -> Certificate:
    """The certificate at the front of a TPM's NV index, whose unused rest follows it (Azure's are 4096 bytes, zero or not).

    The rest is dropped unread: nothing signs it. Nowhere else are trailing bytes accepted.

    Raises:
        BadCertificate: no certificate is at the front, or the index is longer than 16 KiB.
    """
    if len(data) > MAX_NV_BYTES or len(data) < 4 or data[:2] != b"\x30\x82":
        raise BadCertificate("an NV index does not begin with a certificate")
    return Certificate(data[: 4 + int.from_bytes(data[2:4], "big")])
