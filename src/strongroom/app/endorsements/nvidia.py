"""NVIDIA: what a device's report needs: manifests, whether certificates stand, and the keys of the attestation service.

Addresses as in NVIDIA's documentation of its RIM, OCSP and remote attestation (NRAS) services. Which manifests is read from
the report, which nobody has verified: a wrong one gets manifests that do not match.
"""

from __future__ import annotations

import re

from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from strongroom import wire
from strongroom.attest import nvidia_device
from strongroom.attest.endorsements import JWK_SET, NVIDIA_RIM, OCSP_RESPONSE
from strongroom.attest.evidence import MAX_ENDORSEMENT_BYTES, Endorsement
from strongroom.attest.ocsp import MAX_OCSP_BYTES, Response
from strongroom.attest.x509 import Certificate
from strongroom.errors import BadAnswer, BadEndorsement, BadEvidence, BadField

from .description import describe
from .request import HOUR, Answer, Ask, Request, parsed

_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")


def plan(data: bytes, ask: Ask) -> None:
    """Ask for everything that a device's evidence needs.

    Args:
        data: the evidence. Untrusted.
        ask: where answers come from.

    Raises:
        BadEvidence: it does not say what it needs.
    """
    from strongroom.attest import rim

    claims = nvidia_device.parse(data)
    pairs = list(claims.asked_of)
    for name in claims.manifest_names:
        for found in ask(manifest(name)):
            try:
                pairs += rim.parse(found.data).asked_of
            except BadEndorsement:  # somebody's bundle or cache holds another thing under that name
                continue
    for certificate, issuer in dict.fromkeys(pairs):
        ask(standing(certificate, issuer))


def plan_tokens(_data: bytes, ask: Ask) -> None:
    """Ask for the keys that tokens of NVIDIA's own attestation service are signed with."""
    ask(key_set())


def manifest(name: str) -> Request:
    """A reference integrity manifest, by the name that the service has for it. Raises BadEvidence: no name."""
    from strongroom.attest import rim

    if not _NAME.match(name):
        raise BadEvidence("the report does not say which manifests it needs")

    def read(answer: Answer) -> tuple[Endorsement, ...]:
        said = parsed(answer, most=2 * MAX_ENDORSEMENT_BYTES)
        text = said.get("rim")
        if said.get("id", name) != name or not isinstance(text, str):
            raise BadAnswer(f"the answer is not the manifest {name}")
        try:
            data = wire.unb64(text)
            rim.parse(data)
        except (BadField, BadEndorsement) as error:
            raise BadAnswer(f"the answer holds no reference manifest: {error.message}") from error
        return (Endorsement(NVIDIA_RIM, data),)

    return Request("nvidia-rim", NVIDIA_RIM, f"/v1/rim/{name}", read, keep_s=None, most=2 * MAX_ENDORSEMENT_BYTES)


def standing(certificate: Certificate, issuer: Certificate) -> Request:
    """Whether a certificate stands, by its issuer's OCSP responder (RFC 6960)."""
    asked = ocsp.OCSPRequestBuilder().add_certificate(certificate.parsed, issuer.parsed, SHA384()).build()

    def read(answer: Answer) -> tuple[Endorsement, ...]:
        try:
            found = Response(answer.body)
        except BadEndorsement as error:
            raise BadAnswer(f"the answer is {error.message}") from error
        if not found.names(certificate, issuer):
            raise BadAnswer("the answer is about another certificate")
        return (Endorsement(OCSP_RESPONSE, found.der),)

    return Request(
        "nvidia-ocsp",
        OCSP_RESPONSE,
        "",
        read,
        keep_s=HOUR,
        most=MAX_OCSP_BYTES,
        body=asked.public_bytes(Encoding.DER),
        content_type="application/ocsp-request",
        name=f"{issuer.key_digest.removeprefix('sha256:')}/{certificate.serial:x}",
    )


def key_set() -> Request:
    """The keys of the remote attestation service, each of which lasts two days."""

    def read(answer: Answer) -> tuple[Endorsement, ...]:
        found = Endorsement(JWK_SET, answer.body)
        try:
            describe(found)
        except BadEndorsement as error:
            raise BadAnswer("the answer is no key set") from error
        return (found,)

    return Request("nvidia-nras", JWK_SET, "/.well-known/jwks.json", read, keep_s=HOUR)
