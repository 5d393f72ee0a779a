"""Attestation documents of AWS Nitro, field by field. Nothing is believed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_public_key

from strongroom.attest.nitro_document import Claims
from strongroom.attest.x509 import Certificate

from .fields import Digests, Moment, Record, Spoken, Text, certificate, key, of_parse, text

_MEANING = "0 the image, 1 its kernel and start, 2 its programs, 3 the role, 4 the instance, 8 who signed the image"


def _chosen(data: bytes | None) -> Text | None:
    """What the enclave chose to say."""
    return None if data is None else text(data)


def _public_key(data: bytes | None) -> Text | None:
    """The same, with what kind of key it is, where it is one."""
    found = _chosen(data)
    if found is not None:
        with suppress(ValueError, UnsupportedAlgorithm):
            found.said = (found, f"which is a key, {key(load_der_public_key(bytes.fromhex(found)))}")
    return found


def of_document(claims: Claims) -> Record:
    moment = Moment(claims.timestamp_ms // 1000)
    said = f"{moment.said}, {claims.timestamp_ms % 1000} ms"
    return Record(
        module_id=claims.module_id,
        timestamp=Spoken({"unix": moment, "milliseconds": claims.timestamp_ms}, said),
        started_for_debugging=Spoken(
            {"value": claims.debug}, "yes: a register of the image is zero" if claims.debug else "no"
        ),
        registers=Record(digest="SHA-384", of=_MEANING, pcrs=Digests({f"pcr{n}": v for n, v in claims.pcrs.items()})),
        nonce=_chosen(claims.nonce),
        user_data=_chosen(claims.user_data),
        public_key=_public_key(claims.public_key),
        certificates=[
            of_parse(lambda der=der: certificate(Certificate(der)))  # type: ignore[misc]
            for der in (claims.certificate, *reversed(claims.cabundle))
        ],
        signature=Record(algorithm="ES384", signature=claims.signature, cose_tag=claims.tagged),
    )


DESCRIBED: Mapping[type, Callable[[Any], Record]] = MappingProxyType({Claims: of_document})
