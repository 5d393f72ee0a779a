"""What a document is, who issued it and when it counts, read from the document itself: for lists, and to see what is stale.

**Nothing here is verified.** A date that somebody made up costs a fetch, or a failed verification, and no more.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cryptography.x509.oid import NameOID

from strongroom import wire
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
from strongroom.attest.ocsp import Response
from strongroom.attest.x509 import Certificate, RevocationList, from_pem
from strongroom.errors import AttestationError, BadEndorsement, StrongroomError
from strongroom.wire import JSON

_ATTRIBUTE = re.compile(rb'\b(?:name|colloquialVersion)="([ -~]{1,128}?)"')
_MANIFEST = re.compile(rb"\s*(?:<\?xml[^>]{0,128}>\s*)?<(?:[A-Za-z0-9_]{1,32}:)?SoftwareIdentity\s")
_MAX_KEYS = 256
_INTEL_SIGNER = "Intel SGX TCB Signing"


@dataclass(frozen=True, slots=True)
class Description:
    """What a document says of itself.

    Attributes:
        what: for people.
        issuer: by its own word; empty where it does not say.
        not_before, not_after: first and last second at which it counts, unix; ``None`` where it does not say.
    """

    what: str
    issuer: str = ""
    not_before: int | None = None
    not_after: int | None = None

    def current(self, at: int) -> bool:
        """Whether it counts at ``at``, unix seconds, as far as it says."""
        return (self.not_before is None or self.not_before <= at) and (self.not_after is None or at <= self.not_after)

    def to_json(self) -> dict[str, JSON]:
        return {"issuer": self.issuer, "not_after": self.not_after, "not_before": self.not_before, "what": self.what}


def describe(endorsement: Endorsement) -> Description:
    """What a document says of itself. Raises BadEndorsement: it is not what its media type says."""
    read = _READERS.get(endorsement.media_type)
    if read is None:
        return Description(endorsement.media_type)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of names longer than X.520 has them: roots of Google's
            return read(endorsement.data)
    except BadEndorsement:
        raise
    except (AttestationError, StrongroomError) as error:
        raise BadEndorsement(f"not a document of type {endorsement.media_type}: {error.message}") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise BadEndorsement(f"not a document of type {endorsement.media_type}") from error


def _certificate(data: bytes) -> Description:
    found = Certificate(data)
    return Description(f"certificate {found.common_name or found.subject}", _name(found), found.not_before, found.not_after)


def _name(certificate: Certificate) -> str:
    """The issuer's common name, else all of its name."""
    text = certificate.parsed.issuer.rfc4514_string()
    found = re.search(r"(?:^|,)CN=((?:[^,\\]|\\.)*)", text)
    return found[1] if found else text


def _chain(data: bytes) -> Description:
    found = from_pem(data)
    names = ", ".join(c.common_name or c.subject for c in found)
    return Description(
        f"certificates {names}", _name(found[-1]), max(c.not_before for c in found), min(c.not_after for c in found)
    )


def _revocation_list(data: bytes) -> Description:
    found = RevocationList(data)
    issuer = found.parsed.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
    name = str(issuer[0].value) if len(issuer) == 1 else found.parsed.issuer.rfc4514_string()
    return Description(f"revocation list, {len(found.parsed)} revoked", name, found.this_update, found.next_update)


def _ocsp(data: bytes) -> Description:
    found = Response(data)
    signer = _name(Certificate(found.responders[0])) if found.responders else ""  # else the certificate's own issuer
    what = f"OCSP response, serial number {found.named[0]:#x}: {found.status.name.lower()}"
    return Description(what, signer, found.this_update, found.next_update)


def _tcb_info(data: bytes) -> Description:
    found = TcbInfo.parse(data)
    what = f"{found.id or 'SGX'} TCB info of FMSPC {found.fmspc.hex()}, evaluation {found.evaluation}"
    return Description(what, _INTEL_SIGNER, found.issued, found.next_update)


def _identity(data: bytes) -> Description:
    found = QeIdentity.parse(data)
    return Description(
        f"enclave identity {found.id}, evaluation {found.evaluation}", _INTEL_SIGNER, found.issued, found.next_update
    )


def _manifest(data: bytes) -> Description:
    head = data[:4096]
    if not _MANIFEST.match(head):
        raise BadEndorsement("no software identity")
    said = [m.decode() for m in _ATTRIBUTE.findall(head)[:3]]
    return Description(f"reference manifest {' '.join(said)}", "NVIDIA")


def _keys(data: bytes) -> Description:
    keys = wire.loads(data, max_bytes=MAX_ENDORSEMENT_BYTES)["keys"]
    if not isinstance(keys, list) or not 1 <= len(keys) <= _MAX_KEYS:
        raise BadEndorsement(f"not 1 to {_MAX_KEYS} keys")
    leaves = [Certificate(wire.unb64(key["x5c"][0])) for key in keys if "x5c" in key]
    return Description(
        f"key set of {len(keys)} keys",
        _name(leaves[0]) if leaves else "",
        min((c.not_before for c in leaves), default=None),
        max((c.not_after for c in leaves), default=None),
    )


_READERS: Mapping[str, Callable[[bytes], Description]] = {
    CERTIFICATE: _certificate,
    CRL: _revocation_list,
    INTEL_QE_IDENTITY: _identity,
    INTEL_TCB_INFO: _tcb_info,
    JWK_SET: _keys,
    NVIDIA_RIM: _manifest,
    OCSP_RESPONSE: _ocsp,
    PEM_CHAIN: _chain,
}
