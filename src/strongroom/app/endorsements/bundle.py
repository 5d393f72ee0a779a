"""A bundle: documents in one file, made where there is a network and carried to where there is none.

Foreign collections are read too: the collateral of ``dcap-qvl`` in JSON, and any file or folder of documents in the vendors'
own formats, told apart by what is in them. None of it is believed. See ``spec/endorsements.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strongroom import wire
from strongroom.app.client.home import read, reading
from strongroom.attest.endorsements import (
    CERTIFICATE,
    CRL,
    INTEL_QE_IDENTITY,
    INTEL_TCB_INFO,
    JWK_SET,
    NVIDIA_RIM,
    OCSP_RESPONSE,
    PEM_CHAIN,
)
from strongroom.attest.evidence import MAX_ENDORSEMENT_BYTES, Endorsement
from strongroom.attest.intel_collateral import QeIdentity, TcbInfo
from strongroom.attest.snp_key import certificates_of_auxblob, read_key
from strongroom.attest.x509 import Certificate, from_pem
from strongroom.errors import BadCertificate, BadEndorsement, BadField, NotFound, StrongroomError, TooLarge
from strongroom.wire import Fields

from . import amd, intel
from .description import describe
from .request import Document

FORMAT = "strongroom.endorsements.v1"
MAX_BUNDLE_BYTES = 6 << 20  # what eight GPUs, their processor and its neighbours need has a tenth of it
MAX_DOCUMENTS = 1024
_MAX_VALUES = 1 << 14  # of a bundle's JSON: sixteen a document, where it has five
_KNOWN = (
    "Known are TCB information, enclave identities, certificates, revocation lists, OCSP responses, reference manifests and "
    "key sets as the vendors give them, a host's table of certificates (auxblob), and dcap-qvl's collateral."
)
_DCAP_QVL = {
    "pck_crl",
    "pck_crl_issuer_chain",
    "qe_identity",
    "qe_identity_issuer_chain",
    "qe_identity_signature",
    "root_ca_crl",
    "tcb_info",
    "tcb_info_issuer_chain",
    "tcb_info_signature",
}


@dataclass(frozen=True, slots=True)
class Bundle:
    """Documents to carry. **Untrusted.**

    Args:
        documents: kept sorted and distinct: of what is the same but for the time, the one fetched last.

    Raises:
        TooLarge: more than 1024.
    """

    documents: tuple[Document, ...] = ()

    def __post_init__(self) -> None:
        last = {d.order: d for d in sorted(self.documents, key=lambda d: d.fetched_at)}
        if len(last) > MAX_DOCUMENTS:
            raise TooLarge(f"more than {MAX_DOCUMENTS} documents for one bundle", hint="Make several bundles.")
        object.__setattr__(self, "documents", tuple(last[order] for order in sorted(last)))

    def encode(self) -> bytes:
        """The canonical bytes. Raises TooLarge."""
        data = wire.encode({"documents": [d.to_json() for d in self.documents], "format": FORMAT})
        if len(data) > MAX_BUNDLE_BYTES:
            raise TooLarge(f"the bundle would have more than {MAX_BUNDLE_BYTES} bytes", hint="Make several bundles.")
        return data

    @classmethod
    def parse(cls, data: bytes) -> Bundle:
        """Raises WireError and its leaves; ``parse(data).encode() == data``."""
        f = Fields(wire.decode(data, max_bytes=MAX_BUNDLE_BYTES, max_values=_MAX_VALUES), "bundle")
        f.literal("format", FORMAT)
        documents: tuple[Document, ...] = f.items("documents", Document.from_json, high=MAX_DOCUMENTS)
        f.end()
        found = cls(documents)
        if found.documents != documents:
            raise BadField("bundle.documents is not sorted and distinct")
        return found


def open_bundle(path: Path) -> Bundle:
    """A bundle of ours, or a foreign file or folder of documents.

    Raises:
        NotFound, EmptyFile, TooLarge, WireError, BadEndorsement: with the file's name.
    """
    if path.is_dir():
        return Bundle(_folder(path))
    with reading(path):
        data = read(path, max_bytes=MAX_BUNDLE_BYTES)
        if data.startswith(b'{"documents":'):
            return Bundle.parse(data)
        return Bundle(foreign(data))


def _folder(path: Path) -> tuple[Document, ...]:
    """The documents in a folder's own files, not those of folders within. What is no document is refused, not left out."""
    found: list[Document] = []
    left = MAX_BUNDLE_BYTES
    for file in sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith(".")):
        with reading(file):
            data = read(file, max_bytes=min(left, 2 * MAX_ENDORSEMENT_BYTES))
            left -= len(data)
            found += foreign(data)
    if not found:
        raise NotFound(f"{path} holds no files")
    return tuple(found)


def foreign(data: bytes) -> tuple[Document, ...]:
    """The documents in a file that is not ours, whatever it is called.

    Raises:
        BadEndorsement: it is none that is known here.
    """
    bare = data.strip()
    if bare.startswith(b"{"):
        return _from_json(data)
    if b"\0" in data[:64] and (table := _of_table(data)):
        return table
    if b"-----BEGIN X509 CRL" in data or bare[:2] == b"30":
        return (_labelled(CRL, _crl(data)),)
    if b"-----BEGIN CERTIFICATE" in data:
        try:
            chain = from_pem(data, most=16)
        except BadCertificate as error:
            raise BadEndorsement(f"not certificates: {error.message}") from error
        return tuple(_labelled(CERTIFICATE, certificate.der) for certificate in chain)
    if bare.startswith(b"<"):
        return (_labelled(NVIDIA_RIM, data),)
    for media_type in (CERTIFICATE, CRL, OCSP_RESPONSE):
        try:
            return (_labelled(media_type, data),)
        except BadEndorsement:
            continue
    raise BadEndorsement("no endorsement of a kind that is known here", hint=_KNOWN)


def _of_table(data: bytes) -> tuple[Document, ...]:
    """The documents in the table of certificates that a host gives its SEV-SNP guest; none where it is no such table."""
    try:
        found = certificates_of_auxblob(data).documents
    except BadEndorsement:
        return ()
    return tuple(_labelled(one.media_type, one.data) for one in found)


def _crl(data: bytes) -> bytes:
    try:
        return intel.read_revocation_list(data).der
    except BadCertificate as error:
        raise BadEndorsement(error.message) from error


def _from_json(data: bytes) -> tuple[Document, ...]:
    try:
        members = wire.loads(data, max_bytes=MAX_ENDORSEMENT_BYTES)
    except StrongroomError as error:
        raise BadEndorsement(f"no endorsement: {error.message}") from error
    if members.keys() >= _DCAP_QVL:
        return _from_dcap_qvl(members)
    for name, media_type in (
        ("tcbInfo", INTEL_TCB_INFO),
        ("enclaveIdentity", INTEL_QE_IDENTITY),
        ("keys", JWK_SET),
    ):
        if name in members:
            return (_labelled(media_type, data),)
    raise BadEndorsement("JSON, but no endorsement of a kind that is known here", hint=_KNOWN)


def _from_dcap_qvl(members: dict[str, Any]) -> tuple[Document, ...]:
    """Collateral as ``dcap-qvl`` keeps it: the PCS's answers taken apart, lists and signatures in hex.

    Raises BadEndorsement.
    """
    text = {name: members[name] for name in _DCAP_QVL}
    if not all(isinstance(value, str) and value.isascii() for value in text.values()):
        raise BadEndorsement("a member of the collateral is not text")
    found = [
        _labelled(media_type, f'{{"{name}":{text[member]},"signature":"{text[member + "_signature"]}"}}'.encode())
        for name, member, media_type in (
            ("tcbInfo", "tcb_info", INTEL_TCB_INFO),
            ("enclaveIdentity", "qe_identity", INTEL_QE_IDENTITY),
        )
    ]
    found += [_labelled(CRL, _crl(text[name].encode())) for name in ("pck_crl", "root_ca_crl")]
    chains = ("tcb_info_issuer_chain", "qe_identity_issuer_chain", "pck_crl_issuer_chain")
    return (*found, *(_labelled(PEM_CHAIN, text[name].encode(), d.about) for name, d in zip(chains, found, strict=False)))


def _labelled(media_type: str, data: bytes, about: str | None = None) -> Document:
    """A document with the question that it answers, as far as it says. Raises BadEndorsement: it is not of that type."""
    endorsement = Endorsement(media_type, data)
    describe(endorsement)
    return Document(endorsement, about_of(endorsement) if about is None else about)


def about_of(endorsement: Endorsement) -> str:
    """The question that a document answers, by what is in it; empty where that does not say. Raises BadEndorsement."""
    if endorsement.media_type == INTEL_TCB_INFO:
        info = TcbInfo.parse(endorsement.data)
        return intel.tcb_info("tdx" if info.id == "TDX" else "sgx", info.fmspc).about
    if endorsement.media_type == INTEL_QE_IDENTITY:
        return intel.qe_identity("tdx" if QeIdentity.parse(endorsement.data).id == "TD_QE" else "sgx").about
    if endorsement.media_type == CRL:
        issuer = describe(endorsement).issuer
        return next((about for name, about in _CRLS.items() if name == issuer), "")
    if endorsement.media_type == CERTIFICATE:
        return _about_certificate(Certificate(endorsement.data))
    return ""


_CRLS = {
    "Intel SGX PCK Platform CA": intel.pck_crl("platform").about,
    "Intel SGX PCK Processor CA": intel.pck_crl("processor").about,
    "Intel SGX Root CA": intel.root_crl().about,
    **{f"ARK-{line.capitalize()}": amd.crl("vcek", line).about for line in ("milan", "genoa", "turin")},
}


def _about_certificate(certificate: Certificate) -> str:
    if certificate.common_name != "SEV-VCEK":
        return ""
    try:
        key = read_key(certificate, "vcek")
    except BadCertificate:
        return ""
    return f"amd-kds:{amd.vcek_path(key.line, key.chip or b'', key.tcb)}"
