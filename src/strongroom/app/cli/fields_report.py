"""What reports say beside a platform's evidence: a service's keys, what binds the devices, documents that came along.

Nothing is believed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from strongroom import wire
from strongroom.attest import endorsements
from strongroom.attest.x509 import MAX_SHOWN_NAME, Certificate, RevocationList, from_pem

from .fields import Moment, Record, Spoken, certificate, of_parse, text

if TYPE_CHECKING:
    from strongroom.attest.aci_report import Report
    from strongroom.attest.detect import Found
    from strongroom.attest.evidence import Endorsement
    from strongroom.attest.keyset import AttestationReport

_ADDRESS_BYTES = 20


def sections(found: Found) -> Iterator[tuple[str, Any]]:
    """What a file holds, section by section: the report, what its parsers read, then what came along."""
    if found.report is not None:
        yield "report", _own(found.report)
    if found.service is not None:
        yield "service", _service(found.service)
    yield from found.claims
    binding = found.evidence.device_binding if found.evidence is not None else b""
    if binding:
        yield "what binds the devices", of_parse(lambda: _envelope(binding))
    if found.endorsements.documents:
        yield "what came along with it", [_document(one) for one in found.endorsements.documents]


def _own(report: AttestationReport) -> Record:
    return Record(
        keyset_digest=report.keyset.digest,
        report_data=report.report_data,
        provenance=report.provenance,
        e2ee_versions=list(report.e2ee_versions),
        serving=report.serving,
        devices=len(report.evidence.devices),
    )


def _service(report: Report) -> Record:
    found = Record(layout=report.layout.value, devices=len(report.devices))
    if report.keyset is not None:
        found["keyset"] = report.keyset
    if report.signing_address is not None:
        kind = "Ethereum address" if len(report.signing_address) == _ADDRESS_BYTES else "Ed25519 key"
        found["signing_address"] = Spoken(
            {"hex": report.signing_address.hex(), "kind": kind}, report.signing_address.hex(), kind
        )
    if report.tls_key is not None:
        found["tls_key_digest"] = report.tls_key
    if report.custody:
        found["custody"] = list(report.custody)
    if report.app_compose is not None:
        composition = report.app_compose
        read = of_parse(lambda: wire.loads(composition))
        found["app_compose"] = text(composition) if isinstance(read, Spoken) else read
    return found


def _envelope(raw: bytes) -> Record:
    """A signed document. Raises StrongroomError."""
    envelope = wire.Envelope.parse(raw)
    return Record(
        payload_type=envelope.payload_type,
        payload=of_parse(lambda: wire.loads(envelope.payload)),
        signatures=[Record(key_id=one.keyid, signature=one.sig) for one in envelope.signatures],
    )


def _document(one: Endorsement) -> Record:
    record = Record(media_type=one.media_type, bytes=len(one.data), digest=wire.digest(one.data))
    if one.media_type in {endorsements.CERTIFICATE, endorsements.PEM_CHAIN}:
        alone = one.media_type == endorsements.CERTIFICATE
        read = of_parse(lambda: (Certificate(one.data),) if alone else from_pem(one.data))
        record["certificates"] = [_with_extensions(c) for c in read] if isinstance(read, tuple) else read
    if one.media_type == endorsements.CRL:
        record["revocation_list"] = of_parse(lambda: _revocation_list(RevocationList(one.data)))
    return record


def _revocation_list(found: RevocationList) -> Record:
    return Record(
        issuer=found.issuer_name.rfc4514_string()[:MAX_SHOWN_NAME],
        this_update=Moment(found.this_update),
        next_update=Moment(found.next_update),
        entries=len(found.parsed),
    )


def _with_extensions(found: Certificate) -> Any:
    """A certificate, and what its vendor's extensions say of a processor."""
    from .fields_amd import key_of
    from .fields_intel import pck

    said = certificate(found)
    for name, read in (("amd_extensions", key_of), ("pck_extension", pck)):
        more = of_parse(lambda read=read: read(found))  # type: ignore[misc]
        if more is not None:
            return Record({"certificate": said, name: more})
    return said
