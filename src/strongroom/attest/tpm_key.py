"""The key that signs a TPM's quotes, and what its maker's certificates say of it.

See ``spec/evidence-tpm.md``, checks M6 to M9.
"""

from __future__ import annotations

from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from strongroom.errors import (
    AttestationError,
    BadCertificate,
    BadEvidence,
    EndorsementExpired,
    EndorsementMissing,
    EndorsementNotYetValid,
    EvidenceForged,
)

from .tpm2 import ALG_NULL, Public, PublicKey, Signature, rsa_key
from .x509 import MAX_PATH, Certificate, RevocationList

# TCG EK Credential Profile, section 3.5: what a TPM's certificates may be for.
_ATTESTATION_PURPOSE, _ENDORSEMENT_PURPOSE = "2.23.133.8.3", "2.23.133.8.1"
_GOOGLE_INSTANCE = "1.3.6.1.4.1.11129.2.1.21"  # names the machine; Google puts it into its certificates of TPMs' keys alone
ALTERNATIVE_NAME, PURPOSES, _CRL_POINTS = "2.5.29.17", "2.5.29.37", "2.5.29.31"
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)


def read_key(spki: bytes) -> PublicKey:
    """Raises BadEvidence."""
    try:
        key = load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadEvidence("the attestation key cannot be read") from error
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        key = rsa_key(numbers.n, numbers.e, key.key_size)
    elif not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, _CURVES):
        raise BadEvidence("the attestation key is neither RSA nor on a known curve")
    if key_info(key) != spki:
        raise BadEvidence("the attestation key is not in its canonical form")
    return key


def key_info(key: PublicKey) -> bytes:
    """The key's SubjectPublicKeyInfo, DER."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def certificate_of(key: PublicKey, pool: tuple[Certificate, ...], at: int) -> Certificate:
    """The certificate of a key, one that is valid at the time where there are several. Raises EndorsementMissing."""
    mine = [c for c in pool if _is_of(c, key)]
    if not mine:
        raise EndorsementMissing("no certificate of the attestation key came along: anybody could have made it")
    return next((c for c in mine if c.not_before <= at <= c.not_after), mine[0])


def _is_of(certificate: Certificate, key: PublicKey) -> bool:
    try:
        return key_info(certificate.public_key) == key_info(key)
    except BadCertificate:
        return False  # another kind of key


def path_of(leaf: Certificate, pool: tuple[Certificate, ...]) -> tuple[Certificate, ...]:
    """The certificates from one to a self-issued one, as the names lead. Raises EndorsementMissing, BadCertificate."""
    path = [leaf]
    while path[-1].parsed.issuer != path[-1].parsed.subject:
        named = [c for c in pool if c.parsed.subject == path[-1].parsed.issuer and c not in path]
        if not named or len(path) == MAX_PATH:
            raise EndorsementMissing(f"the issuer of {path[-1].subject} did not come along")
        if len(named) > MAX_PATH:
            raise BadCertificate(
                f"{len(named)} issuers of {path[-1].subject} came along, where at most {MAX_PATH} are tried"
            )
        path.append(next((c for c in named if _signed(path[-1], c)), named[0]))
    return tuple(path)


def _signed(certificate: Certificate, issuer: Certificate) -> bool:
    try:
        certificate.require_issued_by(issuer)
    except BadCertificate:
        return False
    return True


def require_unrevoked(
    path: tuple[Certificate, ...], lists: tuple[RevocationList, ...], at: int
) -> tuple[list[RevocationList], list[str], int]:
    """Hold each certificate against every list of its issuer's.

    Returns:
        the lists used; who names a list but was held against none; the last second at which path and lists count, unix.

    Raises:
        BadCertificate, EndorsementNotYetValid, EndorsementExpired, Revoked.
    """
    used: list[RevocationList] = []
    unlisted: list[str] = []
    until = min(certificate.not_after for certificate in path)
    for certificate, issuer in pairwise(path):
        mine = [one for one in lists if one.issued_by(issuer)]
        if mine:
            until = min(until, _require_not_named(certificate, issuer, mine, at))
        elif certificate.extension(_CRL_POINTS) is not None:
            unlisted.append(certificate.subject or f"serial number {certificate.serial:#x}")
        used += mine
    return used, unlisted, until


def _require_not_named(certificate: Certificate, issuer: Certificate, lists: list[RevocationList], at: int) -> int:
    """Require that every list is the issuer's, one is current, and none names the certificate: an old one counts for that.

    Returns:
        the last second at which a current one counts, unix.

    Raises:
        BadCertificate, EndorsementNotYetValid, EndorsementExpired, Revoked.
    """
    until: list[int] = []
    late: AttestationError | None = None
    for one in lists:
        try:
            until.append(one.require_current(issuer, at))
        except (EndorsementNotYetValid, EndorsementExpired) as error:  # after its signature was found good
            late = error
        one.require_not_revoked(certificate)
    if late is not None and not until:
        raise late
    return max(until)


def _purposes(certificate: Certificate) -> set[str] | None:
    """The purposes that a certificate names, or ``None``: it names none. Raises BadCertificate."""
    try:
        found = certificate.extensions().get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return None
    return {oid.dotted_string for oid in found}


def require_attestation_key(
    described: Public | None, parent: bytes, qualified_signer: bytes, path: tuple[Certificate, ...]
) -> str:
    """Require that the key was made in its TPM and signs only what that TPM makes.

    The quote binds the key's attributes; but a key without restriction could sign a quote that names any. That it has them
    rests on the authority, which certifies keys of TPMs after it has looked at them.

    Args:
        described: the key as its TPM describes it, or ``None``; the certificate must then call it an attestation key.
        parent: the qualified name, or the handle, of what it was made under.
        qualified_signer: the key that the quote names.
        path: its certificates, leaf first, led to a pinned root.

    Returns:
        what was seen.

    Raises:
        BadCertificate: the certificates are for something else.
        EvidenceForged: the key is no attestation key, or is not the key that the quote names.
    """
    for certificate in path[:-1]:
        purposes = _purposes(certificate)
        # Google's certificates of attestation keys bear the purpose of endorsement keys, or none and the machine's name.
        if purposes is not None and not purposes & {_ATTESTATION_PURPOSE, _ENDORSEMENT_PURPOSE}:
            raise BadCertificate(f"{certificate.subject} is not for the keys of TPMs")
    if _purposes(path[0]) is None and path[0].extension(_GOOGLE_INSTANCE) is None:
        raise BadCertificate(f"{path[0].subject} does not say that it is for the key of a TPM")
    try:
        usage = path[0].extensions().get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        raise BadCertificate(f"{path[0].subject} does not say what its key is for") from None
    if not usage.digital_signature or usage.key_cert_sign:
        raise BadCertificate(f"{path[0].subject} is not for a key that signs quotes")
    if described is None:
        if _ATTESTATION_PURPOSE not in (_purposes(path[0]) or set()):
            raise BadCertificate(f"neither the TPM nor {path[0].subject} says that the key is an attestation key")
        return "by its certificate"
    if not described.is_attestation_key:
        raise EvidenceForged(f"the key's attributes {described.attributes:#010x} are not an attestation key's")
    if not described.is_named(qualified_signer, parent):
        raise EvidenceForged("the quote names another key than this one, or one with other attributes")
    return f"attributes {described.attributes:#010x}, named in the quote"


def require_scheme(described: Public | None, signature: Signature) -> None:
    """Raises EvidenceForged: the key is restricted to another scheme than it is said to have signed by."""
    if described is None or described.scheme == ALG_NULL:
        return
    if (described.scheme, described.scheme_digest) != (signature.scheme, signature.digest):
        raise EvidenceForged("the signature is of another scheme than the key is restricted to")
