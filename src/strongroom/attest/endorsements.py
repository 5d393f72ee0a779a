"""The kinds of endorsements, by media type, and how a verifier picks its own out of what came along.

A list of endorsements may serve several devices, so that a document which a platform does not read is left alone; one that
it reads must be what its type says. Nothing here is believed: each platform checks what it picks against a pinned root.
"""

from __future__ import annotations

from collections.abc import Iterable

from strongroom import wire
from strongroom.errors import BadCertificate, BadEndorsement

from .evidence import Endorsement, Endorsements
from .x509 import Certificate, RevocationList, certificate, from_pem

CERTIFICATE = "application/pkix-cert"  # one certificate, DER (RFC 2585)
PEM_CHAIN = "application/pem-certificate-chain"  # certificates in PEM, leaf first (RFC 8555 section 9.1)
CRL = "application/pkix-crl"  # one revocation list, DER (RFC 2585)
OCSP_RESPONSE = "application/ocsp-response"  # one OCSP response, DER (RFC 6960)
INTEL_TCB_INFO = "application/vnd.intel.tcb-info+json"  # the body that Intel's PCS answers, byte for byte
INTEL_QE_IDENTITY = "application/vnd.intel.enclave-identity+json"  # likewise
NVIDIA_RIM = "application/swid+xml"  # a reference integrity manifest, byte for byte
JWK_SET = "application/jwk-set+json"  # RFC 7517

MAX_CERTIFICATES = 64  # single and in chains, together


def of_type(endorsements: Endorsements, media_type: str) -> tuple[Endorsement, ...]:
    """The documents of one type, in their order."""
    return tuple(document for document in endorsements.documents if document.media_type == media_type)


def certificates(endorsements: Endorsements) -> tuple[Certificate, ...]:
    """Every certificate that came along, single or in chains, distinct, in order. Raises BadEndorsement."""
    found: dict[bytes, Certificate] = {}
    try:
        for document in endorsements.documents:
            if document.media_type == CERTIFICATE:
                found.setdefault(document.data, certificate(document.data))
            elif document.media_type == PEM_CHAIN:
                found.update({c.der: c for c in from_pem(document.data)})
            if len(found) > MAX_CERTIFICATES:
                raise BadEndorsement(f"more than {MAX_CERTIFICATES} certificates came along")
    except BadCertificate as error:
        raise BadEndorsement(f"an endorsement is not the certificate that it should be: {error}") from error
    return tuple(found.values())


def revocation_lists(endorsements: Endorsements) -> tuple[RevocationList, ...]:
    """Every revocation list that came along, in order. Raises BadEndorsement."""
    try:
        return tuple(RevocationList(document.data) for document in of_type(endorsements, CRL))
    except BadCertificate as error:
        raise BadEndorsement(f"an endorsement is not the revocation list that it should be: {error}") from error


def digests(*used: Endorsement | Certificate | RevocationList | bytes) -> tuple[str, ...]:
    """The digests of what was used, sorted and distinct, for a result's ``collateral``."""

    def digest(of: Endorsement | Certificate | RevocationList | bytes) -> str:
        if isinstance(of, Certificate | RevocationList):
            return of.digest
        return wire.digest(of.data if isinstance(of, Endorsement) else of)

    return tuple(sorted({digest(one) for one in used}))


def documents(kinds: Iterable[tuple[str, bytes]]) -> Endorsements:
    """Endorsements from pairs of a media type and bytes. Raises BadEndorsement."""
    return Endorsements(tuple(Endorsement(media_type, data) for media_type, data in kinds))
