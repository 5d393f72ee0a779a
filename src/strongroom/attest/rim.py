"""Reference integrity manifests: what NVIDIA says a driver or a VBIOS measures (SWID tags, ISO/IEC 19770-2, signed as XML).

Of XML only what these manifests need is read: no document type, entity, comment or processing instruction, no attribute of
the ``xml`` namespace, one enveloped signature at the end over the whole document. Without ``xml:`` attributes Canonical XML
1.0 and 1.1 give the same bytes, so that the one that ``lxml`` brings serves for both.

See ``spec/evidence-nvidia.md``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509.oid import ExtensionOID
from lxml import etree

from strongroom import wire
from strongroom.errors import BadCertificate, BadEndorsement, BadField
from strongroom.wire import JSON

from .x509 import MAX_PATH, Certificate, require_path

if TYPE_CHECKING:
    from lxml.etree import _Element

MAX_MANIFEST_BYTES = 256 << 10
MAX_ELEMENTS = 512
MAX_ATTRIBUTES = 128  # of one element: canonical forms are put in order by comparing each with each
MAX_NAMESPACES = 32  # declared in a whole manifest, for the same reason
MAX_ALTERNATIVES = 64
MEASUREMENT_BYTES = 48
MAX_INDEX = 63  # manifests count from 0, reports from 1
SIGNATURE_BYTES = 96
ROOT_NAME = "NVIDIA CoRIM signing Root CA"

_SWID = "{http://standards.iso.org/iso/19770/-2/2015/schema.xsd}"
_DS = "{http://www.w3.org/2000/09/xmldsig#}"
_HASH = "{http://www.w3.org/2001/04/xmlenc#sha384}Hash"
_XML = "{http://www.w3.org/XML/1998/namespace}"
_ENVELOPED = "http://www.w3.org/2000/09/xmldsig#enveloped-signature"
_SHA384 = frozenset({"http://www.w3.org/2001/04/xmldsig-more#sha384"})
_ECDSA_SHA384 = frozenset({"http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"})
_INCLUSIVE = frozenset({"http://www.w3.org/2006/12/xml-c14n11", "http://www.w3.org/TR/2001/REC-xml-c14n-20010315"})
_EXCLUSIVE = "http://www.w3.org/2001/10/xml-exc-c14n#"
_DECLARATION = re.compile(rb'<\?xml version="1\.0"(?: encoding="(?:UTF|utf)-8")?\?>\s*')
_DIGITS = re.compile(r"(?:0|[1-9][0-9]?)\Z")
_HEX = re.compile(r"[0-9a-fA-F]{96}\Z")


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest, taken apart. **Untrusted** until :meth:`require_signed` and :func:`require_signers` have passed.

    Attributes:
        data: its bytes.
        product: the chip that it is for (``GH100``).
        version: of the driver or the firmware that it is for.
        measurements: index, from 0, to the digests of which a device must show one; only those that are active.
        path: the signer's certificates, signer first.
        said: the digest of the document that the signature covers, as it says.
        found: the digest of the document, without its signature.
        signed: the bytes that the signature is over (canonical ``SignedInfo``, which holds ``said``).
        signature: 96 bytes, r and s.
    """

    data: bytes
    product: str
    version: str
    measurements: Mapping[int, tuple[bytes, ...]]
    path: tuple[Certificate, ...]
    said: bytes
    found: bytes
    signed: bytes
    signature: bytes

    @property
    def digest(self) -> str:
        """``sha256:`` of what it defines; the same however often the vendor signs it anew."""
        defined: dict[str, JSON] = {
            str(index): [*sorted(value.hex() for value in values)] for index, values in self.measurements.items()
        }
        return wire.digest(wire.encode({"measurements": defined, "product": self.product, "version": self.version}))

    @property
    def asked_of(self) -> tuple[tuple[Certificate, Certificate], ...]:
        """The certificates whose standing their issuer can say, each with its issuer: all but the root."""
        return tuple(pairwise(self.path))

    def require_signed(self) -> None:
        """Require that its signer signed this document. Raises BadEndorsement."""
        if self.said != self.found:
            raise BadEndorsement(f"the manifest of {self.version} was altered: its digest is another")
        key = self.path[0].public_key
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
            raise BadEndorsement(f"the manifest of {self.version} is signed by a key that is not on P-384")
        r, s = self.signature[:48], self.signature[48:]
        der = encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
        try:
            key.verify(der, self.signed, ec.ECDSA(hashes.SHA384()))
        except InvalidSignature as error:
            raise BadEndorsement(f"the manifest of {self.version} is not signed by the key that it names") from error


@dataclass(frozen=True, slots=True)
class Signers:
    """When a manifest's signers were valid: from the first to the last second, unix, at which every one of them was."""

    since: int
    until: int


def require_signers(manifest: Manifest, *, roots: Iterable[str], at: int) -> Signers:
    """Require that the signer's certificates lead to the pinned root of manifests, and that they were valid together once.

    NVIDIA's signers are valid for two years, and devices live longer. So a signer that has expired is no failure here: when
    it did is in the answer, and a policy's terms say how long ago that may be. One not yet valid *is* a failure.

    Raises:
        BadCertificate: a link does not hold, the signer is for something else, or the root is not the one for manifests.
        UnknownRoot: the root is not pinned.
        EndorsementNotYetValid: they are not valid yet at that time, unix seconds, or never were together.
    """
    found = Signers(max(c.not_before for c in manifest.path), min(c.not_after for c in manifest.path))
    require_path(manifest.path, roots=roots, at=min(at, found.until))
    _require_signer(manifest.path[0])
    if manifest.path[-1].common_name != ROOT_NAME:
        raise BadCertificate(f"the signer of a manifest comes from {manifest.path[-1].subject}, which signs no manifests")
    return found


def _require_signer(certificate: Certificate) -> None:
    """Require that the certificate is for a key that signs, and for no other purpose. Raises BadCertificate."""
    extensions = certificate.extensions()
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        raise BadCertificate(f"{certificate.subject} does not say what its key is for") from None
    if (
        not usage.digital_signature
        or usage.key_cert_sign
        or any(e.oid == ExtensionOID.EXTENDED_KEY_USAGE for e in extensions)
    ):
        raise BadCertificate(f"{certificate.subject} is not for a key that signs manifests")


def _refuse(why: str) -> BadEndorsement:
    return BadEndorsement(f"not a reference manifest: {why}")


def _document(data: bytes) -> _Element:
    """The root element of a plain XML document: elements, attributes and text; nothing that stands for something else."""
    if len(data) > MAX_MANIFEST_BYTES:
        raise _refuse(f"longer than {MAX_MANIFEST_BYTES} bytes")
    declaration = _DECLARATION.match(data)
    body = data[declaration.end() :] if declaration else data
    if not body.isascii() or b"<!" in body or b"<?" in body or b"&" in body or not body.startswith(b"<"):
        raise _refuse("it holds a document type, an entity, a comment or an instruction, or is not plain ASCII")
    if body.count(b"xmlns") > MAX_NAMESPACES:
        raise _refuse(f"it declares more than {MAX_NAMESPACES} namespaces")
    parser = etree.XMLParser(
        encoding="utf-8", resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False, huge_tree=False
    )
    try:
        root = etree.fromstring(body, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise _refuse("it is not well-formed XML") from error
    count = 0
    for count, element in enumerate(root.iter(), 1):
        if count > MAX_ELEMENTS:
            raise _refuse(f"it has more than {MAX_ELEMENTS} elements")
        if len(element.attrib) > MAX_ATTRIBUTES:
            raise _refuse(f"an element has more than {MAX_ATTRIBUTES} attributes")
        if any(name.startswith(_XML) for name in element.attrib):
            raise _refuse("it has an attribute of the xml namespace")
    return root


def _children(parent: _Element, *tags: str) -> list[_Element]:
    """The children of an element, which must be exactly these, in order, with nothing but white space between them."""
    found = list(parent)
    if [child.tag for child in found] != list(tags):
        raise _refuse(f"the parts of {_name(parent)} are not those that it must have")
    if any((text or "").strip() for text in (parent.text, *(child.tail for child in found))):
        raise _refuse(f"there is text between the parts of {_name(parent)}")
    return found


def _name(element: _Element) -> str:
    return str(element.tag).rpartition("}")[2][:40]


def _only(element: _Element, **attributes: str) -> None:
    """Require that an element has these attributes and no other."""
    if dict(element.attrib) != attributes:
        raise _refuse(f"the attributes of {_name(element)} are not those that it must have")


def _algorithm(element: _Element, accepted: Iterable[str]) -> str:
    """The one algorithm that an element names, with nothing inside it that would change its meaning."""
    found = str(element.get("Algorithm", ""))
    _only(element, Algorithm=found)
    if found not in accepted or len(element) or (element.text or "").strip():
        raise _refuse(f"{_name(element)} names an algorithm that is not accepted: {found[:80]!r}")
    return found


def _base64(element: _Element) -> bytes:
    if len(element):
        raise _refuse(f"{_name(element)} is not text")
    try:
        return wire.unb64("".join((element.text or "").split()))
    except BadField as error:
        raise _refuse(f"{_name(element)} is not base64") from error


def _canonical(element: _Element, algorithm: str) -> bytes:
    try:
        return bytes(etree.tostring(element, method="c14n", exclusive=algorithm == _EXCLUSIVE, with_comments=False))
    except etree.LxmlError as error:  # a namespace by a relative address, which has no canonical form
        raise _refuse("it has no canonical form") from error


def _signature(root: _Element) -> tuple[bytes, bytes, bytes, bytes, tuple[Certificate, ...]]:
    """What the signature says of the document, what the document is, what is signed, the signature and the signer's path.

    Takes the signature out of the document, as the enveloped-signature transform says (XML Signature 1.1, section 6.6.4).
    """
    element = root[-1]
    info, value, key = _children(element, f"{_DS}SignedInfo", f"{_DS}SignatureValue", f"{_DS}KeyInfo")
    for plain in (element, info, value, key):
        _only(plain)
    how, algorithm, reference = _children(info, f"{_DS}CanonicalizationMethod", f"{_DS}SignatureMethod", f"{_DS}Reference")
    canonical = _algorithm(how, {*_INCLUSIVE, _EXCLUSIVE})
    _algorithm(algorithm, _ECDSA_SHA384)
    _only(reference, URI="")
    transforms, digest_method, digest_value = _children(
        reference, f"{_DS}Transforms", f"{_DS}DigestMethod", f"{_DS}DigestValue"
    )
    _only(transforms)
    _only(digest_value)
    enveloped, last = _children(transforms, f"{_DS}Transform", f"{_DS}Transform")
    _algorithm(enveloped, {_ENVELOPED})
    form = _algorithm(last, {*_INCLUSIVE, _EXCLUSIVE})
    _algorithm(digest_method, _SHA384)
    path = tuple(_path(key))
    said, signature, signed = _base64(digest_value), _base64(value), _canonical(info, canonical)
    if len(signature) != SIGNATURE_BYTES or len(said) != MEASUREMENT_BYTES:
        raise _refuse("its signature or digest is of another length")
    root[-2].tail = (root[-2].tail or "") + (element.tail or "")  # what follows the signature stays, and is signed
    root.remove(element)
    return said, hashlib.sha384(_canonical(root, form)).digest(), signed, signature, path


def _path(key: _Element) -> Iterator[Certificate]:
    (data,) = _children(key, f"{_DS}X509Data")
    _only(data)
    if not 1 <= len(data) <= MAX_PATH:
        raise _refuse(f"it does not have 1 to {MAX_PATH} certificates")
    for element in _children(data, *[f"{_DS}X509Certificate"] * len(data)):
        _only(element)
        try:
            yield Certificate(_base64(element))
        except BadCertificate as error:
            raise _refuse(f"a certificate in it: {error}") from error


def _number(element: _Element, name: str, high: int) -> int:
    text = str(element.get(name, ""))
    if not _DIGITS.match(text) or int(text) > high:
        raise _refuse(f"{name} of a measurement is not a number up to {high}")
    return int(text)


def _measurements(payload: _Element) -> dict[int, tuple[bytes, ...]]:
    """The active measurements: index to alternatives. Every resource must be a measurement, and each index stands once."""
    active: dict[int, tuple[bytes, ...]] = {}
    seen: set[int] = set()
    for resource in _children(payload, *[f"{_SWID}Resource"] * len(payload)):
        if resource.get("type") != "Measurement" or len(resource):
            raise _refuse(f"it has a resource of a kind that is not known here: {str(resource.get('type'))[:40]!r}")
        index, count = _number(resource, "index", MAX_INDEX), _number(resource, "alternatives", MAX_ALTERNATIVES)
        if index in seen:
            raise _refuse(f"measurement {index} is defined twice")
        seen.add(index)
        if resource.get("active") not in {"True", "False"}:
            raise _refuse(f"measurement {index} is neither active nor inactive")
        if resource.get("active") == "True":
            active[index] = _alternatives(resource, index, count)
    return active


def _alternatives(resource: _Element, index: int, count: int) -> tuple[bytes, ...]:
    given = {name: str(value) for name, value in resource.attrib.items() if str(name).startswith(_HASH)}
    wanted = [f"{_HASH}{place}" for place in range(count)]
    if not wanted or sorted(given) != sorted(wanted) or resource.get("size") != str(MEASUREMENT_BYTES):
        raise _refuse(f"measurement {index} does not have as many digests as it says, of {MEASUREMENT_BYTES} bytes")
    if not all(_HEX.match(value) for value in given.values()):
        raise _refuse(f"a digest of measurement {index} is not {MEASUREMENT_BYTES} bytes in hex")
    return tuple(bytes.fromhex(given[name]) for name in wanted)


def parse(data: bytes) -> Manifest:
    """Read a manifest.

    Args:
        data: at most 256 KiB.

    Raises:
        BadEndorsement: it is not exactly a manifest with its signature.
    """
    root = _document(data)
    if root.tag != f"{_SWID}SoftwareIdentity":
        raise _refuse("its root element is another")
    entity, meta, payload, _ = _children(root, f"{_SWID}Entity", f"{_SWID}Meta", f"{_SWID}Payload", f"{_DS}Signature")
    _children(entity)
    _children(meta)
    product, version = str(meta.get("product", "")), str(meta.get("colloquialVersion", ""))
    if not product or not version or root.get("name") != product:
        raise _refuse("it does not say what it is for")
    measurements = _measurements(payload)
    said, found, signed, signature, path = _signature(root)
    return Manifest(
        data=data,
        product=product,
        version=version,
        measurements=MappingProxyType(measurements),
        path=path,
        said=said,
        found=found,
        signed=signed,
        signature=signature,
    )
