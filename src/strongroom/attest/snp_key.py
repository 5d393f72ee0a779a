"""What AMD's certificates say of the key that signs reports: which chip or cloud provider, which product line, which TCB.

Names and object identifiers are those of AMD's "Versioned Chip Endorsement Key (VCEK) Certificate and KDS Interface
Specification" (document 57230). A VCEK is one chip's, under the ASK; a VLEK is lent to a cloud provider, under the ASVK;
both under the ARK. The table of certificates that a host hands to its guest is that of the GHCB specification (56421).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384

from strongroom.errors import BadCertificate, BadEndorsement, EndorsementMissing, EvidenceForged

from .endorsements import CERTIFICATE, CRL, documents
from .evidence import MAX_ENDORSEMENTS, Endorsements
from .snp_report import Tcb
from .x509 import Certificate, RevocationList, from_pem

MAX_AUXBLOB_BYTES = 64 << 10
MAX_ALIKE = 8  # certificates of one name in one list of endorsements
P384_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973

_AMD = "1.3.6.1.4.1.3704.1."
_STRUCT_VERSION, _PRODUCT, _CHIP, _PROVIDER = "1", "2", "4", "5"
_PARTS: Mapping[str, str] = MappingProxyType(
    {"bootloader": "3.1", "tee": "3.2", "snp": "3.3", "microcode": "3.8", "fmc": "3.9"}
)
_SPARE = frozenset({"3.4", "3.5", "3.6", "3.7"})  # components that no processor has; zero where they are named
_KNOWN = frozenset({_STRUCT_VERSION, _PRODUCT, _CHIP, _PROVIDER, *_PARTS.values()}) | _SPARE
_PRODUCT_NAME = re.compile(r"(Milan|Genoa|Bergamo|Siena|Turin)(-[A-Z][0-9]{1,2})?\Z")
_LINE_OF: Mapping[str, str] = MappingProxyType(
    {"Milan": "milan", "Genoa": "genoa", "Bergamo": "genoa", "Siena": "genoa", "Turin": "turin"}
)
_LEAF_NAME: Mapping[str, str] = MappingProxyType({"vcek": "SEV-VCEK", "vlek": "SEV-VLEK"})
_ISSUER_NAME: Mapping[str, str] = MappingProxyType({"vcek": "SEV-", "vlek": "SEV-VLEK-"})
_LINE_NAME: Mapping[str, str] = MappingProxyType({"milan": "Milan", "genoa": "Genoa", "turin": "Turin"})
_CHIP_BYTES: Mapping[str, int] = MappingProxyType({"milan": 64, "genoa": 64, "turin": 8})
_INTEGER, _OCTETS, _IA5 = 0x02, 0x04, 0x16


@dataclass(frozen=True, slots=True)
class KeyClaims:
    """What a VCEK's or VLEK's certificate says of its key. **Untrusted** until a path has led it to a pinned root.

    Attributes:
        kind: ``vcek`` or ``vlek``.
        line: the product line, ``milan``, ``genoa`` or ``turin``.
        tcb: the TCB for which the key was derived.
        chip: of a VCEK, the chip: 64 bytes, on Turin 8.
        provider: of a VLEK, the cloud provider (``CN=…``).
    """

    kind: str
    line: str
    tcb: Tcb
    chip: bytes | None
    provider: str | None


def _tagged(raw: bytes, tag: int) -> bytes:
    """The contents of one short DER element. Raises BadCertificate."""
    if len(raw) < 2 or raw[0] != tag or raw[1] != len(raw) - 2 or raw[1] >= 0x80:
        raise BadCertificate("an extension of AMD's is not of its type")
    return raw[2:]


def _number(raw: bytes) -> int:
    contents = _tagged(raw, _INTEGER)
    value = int.from_bytes(contents, "big")
    if value > 255 or contents != value.to_bytes(1 + (value >= 0x80), "big"):
        raise BadCertificate("an extension of AMD's is not a number from 0 to 255")
    return value


def _text(raw: bytes) -> str:
    contents = _tagged(raw, _IA5)
    if not contents or not all(0x20 <= byte < 0x7F for byte in contents):
        raise BadCertificate("an extension of AMD's is not a text")
    return contents.decode("ascii")


def _extensions(certificate: Certificate) -> dict[str, bytes]:
    """AMD's own extensions by the end of their names. Raises BadCertificate: one is missing, or not known here."""
    found = {
        e.oid.dotted_string[len(_AMD) :]: e.value.value
        for e in certificate.extensions()
        if e.oid.dotted_string.startswith(_AMD) and isinstance(e.value, x509.UnrecognizedExtension)
    }
    if not _KNOWN.issuperset(found):
        raise BadCertificate("a certificate has an extension of AMD's that is not known here")
    missing = {_STRUCT_VERSION, _PRODUCT, *_PARTS.values()} - {_PARTS["fmc"]} - found.keys()
    if missing:
        raise BadCertificate(f"a certificate lacks AMD's extension {_AMD}{min(missing)}")
    return found


def read_key(certificate: Certificate, kind: str) -> KeyClaims:
    """What a certificate of this kind says, by AMD's extensions. Raises BadCertificate: anything out of place."""
    found = _extensions(certificate)
    product = _PRODUCT_NAME.match(_text(found[_PRODUCT]))
    if product is None:
        raise BadCertificate("a certificate is for a product that is not known here")
    line = _LINE_OF[product[1]]
    turin = line == "turin"
    if _number(found[_STRUCT_VERSION]) != int(turin) or (_PARTS["fmc"] in found) != turin:
        raise BadCertificate("a certificate's TCB is of another product line's form")
    if any(_number(found[name]) for name in _SPARE & found.keys()):
        raise BadCertificate("a certificate is for a TCB with components that are not known here")
    parts = {part: _number(found[name]) for part, name in _PARTS.items() if name in found}
    if (_CHIP in found) != (kind == "vcek") or (_PROVIDER in found) != (kind == "vlek"):
        raise BadCertificate(
            f"a {kind.upper()} is {'one chip' if kind == 'vcek' else 'one cloud provider'}'s, and nothing else's"
        )
    chip = _chip(found[_CHIP], _CHIP_BYTES[line]) if kind == "vcek" else None
    return KeyClaims(kind, line, Tcb(**parts), chip, _text(found[_PROVIDER]) if kind == "vlek" else None)


def _chip(raw: bytes, size: int) -> bytes:
    """A chip's identity, which stands there bare, or as an octet string. Raises BadCertificate."""
    chip = raw if len(raw) == size else _tagged(raw, _OCTETS)
    if len(chip) != size or not any(chip):
        raise BadCertificate("a certificate does not name a chip")
    return chip


def require_signed_report(certificate: Certificate, signed: bytes, r: int, s: int) -> None:
    """Require an ECDSA signature (P-384, SHA-384) over ``signed`` by the certificate's key.

    Raises:
        BadCertificate: the key is not on P-384.
        EvidenceForged: a number out of range, or no signature of these bytes.
    """
    key = certificate.public_key
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise BadCertificate("the key that signs reports is not on the curve P-384")
    if not (0 < r < P384_ORDER and 0 < s < P384_ORDER):
        raise EvidenceForged("a number of the report's signature is out of range")
    try:
        key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(SHA384()))
    except InvalidSignature as error:
        raise EvidenceForged("the report is not signed by the key that was certified") from error


def pick_leaf(certificates: Sequence[Certificate], kind: str, signed: bytes, r: int, s: int) -> Certificate:
    """The certificate of the report's key, out of what came along: of several, the one whose key signed it, else the first.

    Raises:
        EndorsementMissing: none is of this kind.
        BadEndorsement: more than 8 are.
    """
    name = _LEAF_NAME[kind]
    found = [c for c in certificates if name.encode() in c.subject_der and c.common_name == name]  # reading names is slow
    if not found:
        raise EndorsementMissing(f"no {kind.upper()} certificate came along")
    if len(found) > MAX_ALIKE:
        raise BadEndorsement(f"{len(found)} {kind.upper()} certificates, where at most {MAX_ALIKE} are read")
    for certificate in found if len(found) > 1 else ():
        try:
            require_signed_report(certificate, signed, r, s)
        except (BadCertificate, EvidenceForged):
            continue
        return certificate
    return found[0]


def pick_path(certificates: Sequence[Certificate], leaf: Certificate) -> tuple[Certificate, Certificate, Certificate]:
    """Leaf, issuer and root, each the one that signed the one before; of several of that name that did not, the first.

    Raises:
        EndorsementMissing: one did not come along.
        BadEndorsement: more than 8 of one name did.
    """
    issuer = _issuer_of(leaf, certificates)
    return leaf, issuer, _issuer_of(issuer, certificates)


def _issuer_of(certificate: Certificate, certificates: Sequence[Certificate]) -> Certificate:
    others = [c for c in certificates if c != certificate]
    alike = [c for c in others if c.subject_der == certificate.issuer_der]
    found = alike or [c for c in others if certificate.names(c)]  # another spelling of the same name
    if not found:
        raise EndorsementMissing(f"the certificate of {certificate.issuer} did not come along")
    if len(found) > MAX_ALIKE:
        raise BadEndorsement(f"{len(found)} certificates of {certificate.issuer}, where at most {MAX_ALIKE} are read")
    for issuer in found if len(found) > 1 else ():
        try:
            certificate.require_issued_by(issuer)
        except BadCertificate:
            continue
        return issuer
    return found[0]


def require_names(path: Sequence[Certificate], claims: KeyClaims) -> None:
    """Require AMD's names for the keys of this kind and line: an ASVK vouches for no chip, an ASK for no cloud provider.

    Raises:
        BadCertificate: another name.
    """
    _, issuer, root = path
    line = _LINE_NAME[claims.line]
    if issuer.common_name != _ISSUER_NAME[claims.kind] + line or root.common_name != f"ARK-{line}":
        raise BadCertificate(
            f"a {claims.kind.upper()} for {line} is under {issuer.common_name[:64]!r} and {root.common_name[:64]!r}"
        )


_ENTRY = struct.Struct("<16sII")
_NO_ENTRY = bytes(_ENTRY.size)
_CERTIFICATES = frozenset(
    bytes.fromhex(guid.replace("-", ""))
    for guid in (
        "63da758d-e664-4564-adc5-f4b93be8accd",  # VCEK
        "a8074bc2-a25a-483e-aae6-39c045a0b8a1",  # VLEK
        "4ab7b379-bbac-4fe4-a02f-05aef327c782",  # ASK, or ASVK
        "c0b406a4-a803-4952-9743-3fb6014cd0ae",  # ARK
    )
)
_REVOCATION_LIST = bytes.fromhex("92f81bc358114d3d97ffd19f88dc67ea")


def certificates_of_auxblob(data: bytes) -> Endorsements:
    """The endorsements in the table of certificates that the host gave its guest (configfs-tsm's ``auxblob``).

    The table is entries of a GUID, an offset and a length, little-endian, ended by one of zeros; what they name lies after
    it. A GUID that is not AMD's (a cloud provider's own) is left alone.

    Args:
        data: at most 64 KiB; empty, there are no endorsements.

    Raises:
        BadEndorsement: no such table, entries that lie outside it, overlap or come twice, bytes that no entry names, or what
            is no certificate or revocation list.
    """
    if len(data) > MAX_AUXBLOB_BYTES:
        raise BadEndorsement(f"a table of certificates is longer than {MAX_AUXBLOB_BYTES} bytes")
    if not data:
        return Endorsements()
    entries: dict[bytes, tuple[int, int]] = {}
    at = 0
    while (raw := data[at : at + _ENTRY.size]) != _NO_ENTRY:
        if len(raw) < _ENTRY.size or len(entries) == MAX_ENDORSEMENTS:
            raise BadEndorsement("a table of certificates has no end")
        guid, offset, length = _ENTRY.unpack(raw)
        if guid in entries:
            raise BadEndorsement("a table of certificates names something twice")
        entries[guid] = offset, offset + length
        at += _ENTRY.size
    _require_apart(data, at + _ENTRY.size, sorted(entries.values()))
    found: list[tuple[str, bytes]] = []
    try:
        for guid, (start, end) in entries.items():
            if guid in _CERTIFICATES:
                found.append((CERTIFICATE, _certificate(data[start:end]).der))
            elif guid == _REVOCATION_LIST:
                found.append((CRL, _revocation_list(data[start:end]).der))
    except BadCertificate as error:
        raise BadEndorsement(f"an entry of a table of certificates: {error}") from error
    return documents(found)


def _require_apart(data: bytes, begin: int, places: Sequence[tuple[int, int]]) -> None:
    """Require that entries lie after the table, in the data and apart, with nothing but zeros around them."""
    after = begin
    for start, end in places:
        if start < after or end > len(data) or start == end:
            raise BadEndorsement("entries of a table of certificates lie outside it or on one another")
        if any(data[after:start]):
            raise BadEndorsement("a table of certificates holds bytes that no entry names")
        after = end
    if any(data[after:]):
        raise BadEndorsement("a table of certificates holds bytes that no entry names")


def _certificate(data: bytes) -> Certificate:
    """One certificate, in DER or PEM: hosts give both. Raises BadCertificate."""
    return from_pem(data, most=1)[0] if data.startswith(b"-----BEGIN") else Certificate(data)


def _revocation_list(data: bytes) -> RevocationList:
    return RevocationList.from_pem(data) if data.startswith(b"-----BEGIN") else RevocationList(data)
