"""Writes ``vectors/nvidia_cc``, ``vectors/nvidia_switch`` and ``vectors/nras``. Deterministic: fixed keys and times,
signatures as of RFC 6979.

    python vectors/make_nvidia.py

One file a case. Every case holds ``expect``: ``ok``, or the stable code of the check that does not pass first, which
``fails`` names. Documents that several cases share lie in ``nvidia_parts.json`` by their digest; a case then holds ``part``
in place of ``data``, and ``evidence_part`` in place of ``evidence``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from cryptography import x509  # noqa: E402
from cryptography.hazmat.primitives import hashes  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402

from pki_certificates import ec_key  # noqa: E402
from pki_nvidia import (  # noqa: E402
    AT,
    C14N,
    DAY,
    DEVICE_ROOT,
    DISABLED,
    DRIVER_INDICES,
    ECDSA_SHA384,
    ENABLED,
    ENVELOPED,
    EXCLUSIVE,
    ISSUER,
    KID,
    RIM_L3,
    RIM_ROOT,
    SERVICE_CA,
    SIGNER,
    TOKEN_KEY,
    VBIOS_INDICES,
    Answer,
    Device,
    Manifest,
    TokenWorld,
    World,
    answers,
    authority,
    composite_device_id,
    driver_manifest,
    jwk,
    key_path,
    pem_chain,
    responder,
    signers,
    tcb_info,
    token,
    vbios_manifest,
)
from strongroom import wire  # noqa: E402
from strongroom.attest.endorsements import OCSP_RESPONSE  # noqa: E402
from strongroom.attest.evidence import Endorsement  # noqa: E402
from strongroom.attest.nvidia_device import Architecture  # noqa: E402
from strongroom.attest.nvidia_terms import ANY, WHERE_GIVEN, Software, SwitchTerms, Terms, TokenTerms, Versions  # noqa: E402

BAD, FORGED, CERTIFICATE, JUNK = "attest.bad_evidence", "attest.forged", "attest.bad_certificate", "attest.bad_endorsement"
MISSING, UNKNOWN, REVOKED = "attest.endorsement_missing", "attest.unknown_root", "attest.revoked"
EXPIRED, EARLY, TERMS = "attest.endorsement_expired", "attest.endorsement_not_yet_valid", "attest.terms_not_met"
TCB, OTHER, STALE = "attest.tcb_not_accepted", "attest.measurement_not_accepted", "attest.not_fresh"
Case = Callable[..., None]
WORLD = World()
GPU = WORLD.device
BLACKWELL = Device(chip="GB100", vbios="97.00.88.00.0F")
SWITCH = Device(chip="LS_10", count=31, firmware=None, vbios="96.10.55.00.01")
FORGER = ec_key("forger")
P256 = ec_key("on another curve", ec.SECP256R1)
CRITICAL = ((x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True),)


def _device(**changes: Any) -> dict[str, Any]:
    return {"device": replace(GPU, **changes)}


def _patched(at: int, data: bytes) -> Callable[[bytes], bytes]:
    """Other bytes in a report, before it is signed."""
    return lambda report: report[:at] + data + report[at + len(data) :]


def _container(**changes: Any) -> bytes:
    return wire.encode({**GPU.container, **changes})


def _asked(**changes: Any) -> Terms:
    return replace(Terms(), **changes)


def _running(architecture: Architecture, vbios: Versions = ANY, driver: Versions | None = ANY) -> Terms:
    return Terms({architecture: Software(vbios, driver)})


def _good(case: Case) -> None:
    case("good", "a Hopper GPU with both manifests and every standing", "ok", "")
    case("good-blackwell", "a Blackwell GPU", "ok", "", device=BLACKWELL)
    case("good-decoder", "a GPU whose decoder is measured", "ok", "", **_device(opaque={11: ENABLED}))
    case(
        "good-decoder-off",
        "a GPU whose decoder is off, and measures something else there",
        "ok",
        "",
        **_device(measured={35: bytes(48)}),
    )
    case("good-no-firmware-id", "an old report that names no firmware", "ok", "", **_device(opaque={20: None, 21: None}))
    case("good-alternative", "the second of a measurement's alternatives", "ok", "", **_device(measured={21: b"\1" * 48}))
    case(
        "good-exclusive",
        "manifests in exclusive canonical form",
        "ok",
        "",
        manifests=_both(canonical=EXCLUSIVE, form=EXCLUSIVE),
    )
    case("good-c14n", "manifests in the first canonical form", "ok", "", manifests=_both(canonical=C14N, form=C14N))
    case(
        "good-signers-expired",
        "manifests whose signer expired a week ago, where the policy allows a month",
        "ok",
        "",
        manifests=_both(path=signers(until=AT - 7 * DAY)),
        terms=_asked(signers_expired_days=30),
    )
    case(
        "good-nothing-said",
        "no OCSP response, where the policy does without",
        "ok",
        "",
        answers=(),
        terms=_asked(device_revocation=WHERE_GIVEN, signer_revocation=WHERE_GIVEN),
    )
    case("good-responder", "OCSP responses by a responder of the issuer's own", "ok", "", answers=_by_responder())
    case(
        "good-no-end", "OCSP responses that do not say until when they count", "ok", "", answers=_said(until=None, sha1=True)
    )
    case(
        "good-protected-pcie",
        "a GPU in protected PCIe mode, where the policy allows it",
        "ok",
        "",
        **_device(opaque={21: ENABLED, 36: b"\2\0"}),
        terms=_asked(protected_pcie=True),
    )
    case(
        "good-one-of",
        "versions that the policy names",
        "ok",
        "",
        terms=_running(Architecture.HOPPER, _one("96.00.A5.00.01"), _one("580.95.05")),
    )
    stranger = Manifest("1.2.3", (0,), after=lambda data: data[:100])
    case("good-others", "endorsements of other devices beside it", "ok", "", manifests=(*_both(), stranger))


def _one(*versions: str) -> Versions:
    return Versions(one_of=frozenset(versions))


def _both(**changes: Any) -> tuple[Manifest, ...]:
    return driver_manifest(**changes), vbios_manifest(**changes)


def _said(**changes: Any) -> tuple[Answer, ...]:
    """Every answer, changed alike."""
    return tuple(replace(answer, **changes) for answer in answers(GPU, _both()))


def _spoiled(place: int, **changes: Any) -> tuple[Answer, ...]:
    """Every answer, the one at ``place`` changed: 0 to 2 are about the device, 3 to 5 about the signers."""
    return tuple(replace(a, **changes) if n == place else a for n, a in enumerate(answers(GPU, _both())))


def _by_responder(**changes: Any) -> tuple[Answer, ...]:
    return tuple(
        replace(
            a,
            signer=ec_key("responder"),
            responders=(responder(a.issuer.common_name, ec_key(a.issuer.common_name), **changes),),
        )
        for a in answers(GPU, _both())
    )


def _malformed(case: Case) -> None:
    for name, description, data in (
        ("nothing", "no bytes", b""),
        ("not-canonical", "white space between members", _container() + b"\n"),
        ("member-more", "a member that nobody knows", _container(more=1)),
        ("architecture-unknown", "an architecture that is not known", _container(arch="RUBIN")),
        ("architecture-other", "a Hopper GPU that is called a Blackwell", _container(arch="BLACKWELL")),
        ("architecture-switch", "a GPU that is called a switch", _container(arch="LS10")),
        ("certificate-less", "four certificates", _container(certificates=GPU.container["certificates"][1:])),
        ("certificate-junk", "a certificate that cannot be read", _container(certificates=["AAAA"] * 5)),
        ("report-base64", "a report in loose base64", _container(report=GPU.container["report"].rstrip("="))),
        ("report-short", "a report cut short", _container(report=wire.b64(GPU.report[:100]))),
        ("report-long", "bytes after the report", _container(report=wire.b64(GPU.report + b"\0"))),
    ):
        case(name, description, BAD, "G1", data=data)
    for name, description, change in (
        ("request-version", "another version of SPDM", _patched(0, b"\x12")),
        ("request-code", "another request than for measurements", _patched(1, b"\x81")),
        ("request-unsigned", "a request that asks for no signature", _patched(2, b"\0")),
        ("request-some", "a request for one measurement alone", _patched(3, b"\1")),
        ("request-slot", "a slot that there is not", _patched(36, b"\x08")),
        ("response-code", "another response than measurements", _patched(38, b"\x7f")),
        ("response-slot", "a response from another slot than was asked", _patched(40, b"\1")),
        ("response-reserved", "a reserved byte that is set", _patched(39, b"\1")),
        ("block-count", "another count than there are blocks", _patched(41, b"\x3f")),
        ("record-length", "a record that ends elsewhere", _patched(42, b"\xc1")),
        ("block-twice", "a measurement twice", _patched(45 + 55, b"\1")),
        ("block-kind", "a measurement that is no digest", _patched(45 + 4, b"\x81")),
        ("block-type", "a measurement of an unknown type", _patched(45 + 4, b"\x06")),
        ("block-size", "a measurement of another size", _patched(45 + 5, b"\x2f")),
        ("block-specification", "a measurement of another specification", _patched(45 + 1, b"\2")),
    ):
        case(name, description, BAD, "G1", **_device(change=change))
    for name, description, changes in (
        ("measurements-fewer", "a GPU with 63 measurements", {"count": 63}),
        ("driver-not-said", "a GPU that does not say its driver's version", {"opaque": {3: None}}),
        ("driver-malformed", "a driver version that is none", {"opaque": {3: b"latest\0"}}),
        ("driver-binary", "a driver version that is no text", {"opaque": {3: b"580.\xff\0"}}),
        ("vbios-not-said", "a GPU that does not say its VBIOS's version", {"opaque": {6: None}}),
        ("vbios-malformed", "a VBIOS version with more than five parts", {"opaque": {6: b"\0\x8a\0\x96\1\1\0\0"}}),
        ("vbios-size", "a VBIOS version of another size", {"opaque": {6: b"\0"}}),
        ("decoder-not-said", "a GPU that does not say whether its decoder is on", {"opaque": {11: None}}),
        ("decoder-malformed", "a decoder that is neither on nor off", {"opaque": {11: b"\0"}}),
        ("mode-malformed", "a protected PCIe status that is none", {"opaque": {21: b"\0"}}),
        ("mode-contradiction", "a report that contradicts itself on its mode", {"opaque": {36: b"\2\0"}}),
        ("mode-unknown", "a mode that is not known", {"opaque": {36: b"\3\0"}}),
        (
            "name-two-lines",
            "a device whose name goes on on another line",
            {"certificates": {0: {"issuer": "GH100 A01\nG2"}, 1: {"subject": "GH100 A01\nG2"}}},
        ),
        ("chip-unknown", "a chip that is not known", {"chip": "GR100"}),
        ("chip-differs", "a leaf of another chip than the device's", {"certificates": {0: {"subject": "GB100 A01"}}}),
    ):
        case(name, description, BAD, "G1", **_device(**changes), answers=())
    fields = b"\x03\0\x02\0\0\0" * 2
    case(
        "field-twice",
        "one of the device's fields twice",
        BAD,
        "G1",
        **_device(change=lambda d: _opaque(d, fields)),
    )
    case("field-short", "a field that ends outside", BAD, "G1", **_device(change=lambda d: _opaque(d, b"\x03\0\xff\0")))
    links = {21: ENABLED, 22: bytes(12), 36: b"\2\0"}
    case("links-malformed", "a GPU that names half a switch", BAD, "G1", **_device(opaque=links))
    switch = SWITCH.evidence.data
    case("switch-for-a-gpu", "a switch where a GPU should stand", BAD, "G1", data=switch, manifests=(), answers=())


def _opaque(unsigned: bytes, fields: bytes) -> bytes:
    """A report before its signature, with other fields of the device's own."""
    end = 45 + 64 * 55 + 32
    return unsigned[:end] + len(fields).to_bytes(2, "little") + fields


def _path(case: Case) -> None:
    case("root-not-pinned", "a device of another maker", UNKNOWN, "G2", pinned=(RIM_ROOT,))
    case("no-root", "a verifier that pins nothing", UNKNOWN, "G2", pinned=())
    for name, description, expect, changes in (
        ("leaf-forged", "a leaf that another key signed", CERTIFICATE, {0: {"signer": FORGER}}),
        ("device-forged", "a device's certificate that another key signed", CERTIFICATE, {1: {"signer": FORGER}}),
        ("issuer-forged", "an issuer that another key signed", CERTIFICATE, {2: {"signer": FORGER}}),
        ("device-no-issuer", "a device's certificate that may not issue", CERTIFICATE, {1: {"ca": False}}),
        ("path-too-long", "an issuer that may not have issuers below it", CERTIFICATE, {3: {"path_length": 0}}),
        ("leaf-critical", "a critical extension that nobody looked at", CERTIFICATE, {0: {"others": CRITICAL}}),
        ("device-expired", "a certificate that has expired", EXPIRED, {2: {"not_after": AT - 1}}),
        ("device-early", "a certificate that is not valid yet", EARLY, {2: {"not_before": AT + 1}}),
        ("issuer-renamed", "an issuer of another name", CERTIFICATE, {2: {"subject": "GB100 Provisioner ICA of a test"}}),
    ):
        case(name, description, expect, "G2", **_device(certificates=changes), answers=())
    manifests_root = {3: {"issuer": RIM_ROOT, "signer": ec_key(RIM_ROOT)}, 4: _root_of_manifests()}
    case(
        "root-of-manifests",
        "a device that leads to the root of manifests, which is pinned too",
        CERTIFICATE,
        "G2",
        **_device(certificates=manifests_root),
        answers=(),
    )


def _root_of_manifests() -> dict[str, Any]:
    return {"subject": RIM_ROOT, "issuer": RIM_ROOT, "key": ec_key(RIM_ROOT), "signer": ec_key(RIM_ROOT)}


def _signed(case: Case) -> None:
    case("report-forged", "a report that another key signed", FORGED, "G3", **_device(signer=FORGER))
    case("report-other-digest", "a report signed over another digest", FORGED, "G3", **_device(digest=hashes.SHA256()))
    case("report-zero", "a signature of zeros", FORGED, "G3", **_device(change_after=lambda r: r[:-96] + bytes(96)))
    case(
        "report-order",
        "a signature outside of the curve's order",
        FORGED,
        "G3",
        **_device(change_after=lambda r: r[:-96] + b"\xff" * 96),
    )
    asked = lambda r: r[:4] + bytes(32) + r[36:]  # noqa: E731
    case("nonce-swapped", "another nonce in the request than was signed", FORGED, "G3", **_device(change_after=asked))
    measured = lambda r: r[:52] + bytes(48) + r[100:]  # noqa: E731
    case("measurement-swapped", "another measurement than was signed", FORGED, "G3", **_device(change_after=measured))
    curve = {0: {"key": P256}}
    case(
        "leaf-other-curve",
        "a leaf on another curve",
        FORGED,
        "G3",
        **_device(certificates=curve, signer=P256, change_after=lambda r: r + bytes(32)),
        answers=(),
    )

    case("firmware-other", "a leaf that was made for other firmware", FORGED, "G4", **_device(opaque={20: bytes(48)}))
    case(
        "firmware-uncertified",
        "a leaf that does not say for which firmware",
        FORGED,
        "G4",
        **_device(firmware=None, opaque={20: bytes(48)}),
    )
    second = replace(BLACKWELL, opaque={20: bytes(48)})
    case("firmware-second", "the second digest in a leaf of Blackwell's: not the device's own", FORGED, "G4", device=second)
    twice = {0: {"others": (composite_device_id(bytes(48)), tcb_info(bytes(48)))}}
    case("firmware-twice", "a leaf that says it in two ways", CERTIFICATE, "G4", **_device(certificates=twice))
    for name, description, extension in (
        ("firmware-short", "a firmware id that is cut short", composite_device_id(bytes(47))),
        ("firmware-unreadable", "a list of firmware ids that holds none", tcb_info(bytes(47))),
    ):
        case(name, description, CERTIFICATE, "G4", **_device(certificates={0: {"others": (extension,)}}))


def _revocation(case: Case) -> None:
    for place, number, what in ((0, "G5", "device"), (5, "G9", "signer")):
        by = ec_key(answers(GPU, _both())[place].issuer.common_name)
        name = answers(GPU, _both())[place].issuer.common_name
        for suffix, description, expect, changes in (
            ("revoked", "is revoked", REVOKED, {"status": "revoked", "reason": 1}),
            ("held", "is on hold", REVOKED, {"status": "revoked", "reason": 6}),
            ("revoked-no-reason", "is revoked for no reason", REVOKED, {"status": "revoked"}),
            ("unknown", "is unknown to its issuer", JUNK, {"status": "unknown"}),
            ("answer-forged", "has an answer that another key signed", JUNK, {"signer": FORGER}),
            ("answer-old", "has an answer that counts no longer", EXPIRED, {"made": AT - 3 * DAY, "until": AT - DAY}),
            (
                "answer-old-no-end",
                "has an answer of two days ago without an end",
                EXPIRED,
                {"made": AT - 2 * DAY, "until": None},
            ),
            ("answer-early", "has an answer of tomorrow", EARLY, {"made": AT + DAY, "until": AT + 2 * DAY}),
            (
                "responder-forged",
                "has an answer by a responder that the issuer did not make",
                JUNK,
                _responding(name, FORGER),
            ),
            (
                "responder-purpose",
                "has an answer by a responder made for something else",
                JUNK,
                _responding(name, by, purposes=("1.3.6.1.5.5.7.3.1",)),
            ),
            (
                "responder-no-purpose",
                "has an answer by a certificate made for nothing",
                JUNK,
                _responding(name, by, purposes=()),
            ),
            (
                "responder-expired",
                "has an answer by a responder that has expired",
                JUNK,
                _responding(name, by, not_after=AT - 1),
            ),
            ("responder-other", "has an answer by another issuer's responder", JUNK, _responding("somebody", by)),
        ):
            case(
                f"{what}-{suffix}",
                f"a certificate of the {what} {description}",
                expect,
                number,
                answers=_spoiled(place, **changes),
            )
    good = answers(GPU, _both())
    newer = replace(good[0], status="revoked", reason=6, made=AT - 60)
    case("device-revoked-since", "a good answer beside a newer one that is none", REVOKED, "G5", answers=(*good, newer))
    later = replace(good[0], status="revoked", made=AT + 60, until=AT + DAY)
    case("good-revoked-later", "an answer from after the time in question counts then", "ok", "", answers=(*good, later))
    for suffix, description, changes in (
        ("twice", "an OCSP response with two answers", {"twice": True}),
        ("critical", "an OCSP response with a critical extension", {"critical": True}),
        ("refused", "an OCSP response that is a refusal", {"response_status": 6}),
    ):
        case(f"answer-{suffix}", description, JUNK, "G5", answers=_spoiled(0, **changes))
    crowd = tuple(responder(GPU.names[2], ec_key(GPU.names[2]), subject=f"responder {n}") for n in range(5))
    crowded = _spoiled(0, responders=crowd)
    case("answer-crowded", "an OCSP response with a crowd of responders beside it", JUNK, "G5", answers=crowded)
    junk = Endorsement(OCSP_RESPONSE, b"\x30\x03\x0a\x01")
    case("answer-junk", "an OCSP response that cannot be read", JUNK, "G5", others=(junk,))
    case("answer-long", "an OCSP response over its limit", JUNK, "G5", others=(Endorsement(OCSP_RESPONSE, bytes(20_000)),))
    on_p256 = {"signer": P256, "responders": (responder(GPU.names[2], ec_key(GPU.names[2]), key=P256),)}
    case("good-responder-curve", "a responder on another curve", "ok", "", answers=_spoiled(0, **on_p256))


def _responding(name: str, by: Any, **changes: Any) -> dict[str, Any]:
    return {"signer": ec_key("responder"), "responders": (responder(name, by, **changes),)}


def _replaced(old: str, new: str) -> Callable[[str], str]:
    def replace_it(text: str) -> str:
        assert old in text, old
        return text.replace(old, new, 1)

    return replace_it


def _manifests_missing(case: Case) -> None:
    driver, vbios = _both()
    case("no-manifests", "no manifest", MISSING, "G6", manifests=())
    case("no-driver-manifest", "no manifest of the driver", MISSING, "G6", manifests=(vbios,))
    case("no-vbios-manifest", "no manifest of the VBIOS", MISSING, "G6", manifests=(driver,))
    case(
        "driver-manifest-other",
        "a manifest of another driver version",
        MISSING,
        "G6",
        manifests=(driver_manifest(version="580.82.07"), vbios),
    )
    case(
        "vbios-manifest-other",
        "a manifest of another board's VBIOS",
        MISSING,
        "G6",
        manifests=(driver, vbios_manifest(version="96.00.A5.00.02")),
    )
    case("manifest-other-chip", "manifests of another chip", MISSING, "G6", manifests=_both(product="GB100"))
    case("manifest-twice", "two manifests of one driver", JUNK, "G6", manifests=(driver, vbios, driver_manifest(values={})))
    for name, description, text in (
        ("doctype", "a manifest with a document type", lambda t: "<!DOCTYPE a [<!ENTITY b 'c'>]>" + t),
        ("comment", "a manifest with a comment", _replaced("<ns0:Payload>", "<ns0:Payload><!-- -->")),
        ("instruction", "a manifest with a processing instruction", _replaced("<ns0:Payload>", "<ns0:Payload><?a?>")),
        ("entity", "a manifest with an entity", _replaced("of a test", "of &#97; test")),
        ("not-ascii", "a manifest that is not ASCII", _replaced("of a test", "of \u00e4 test")),
        (
            "xml-attribute",
            "a manifest with an attribute of the xml namespace",
            _replaced("<ns0:Payload>", '<ns0:Payload xml:space="preserve">'),
        ),
        ("text", "a manifest with text between its parts", _replaced("<ns0:Payload>", "text<ns0:Payload>")),
        ("part-more", "a manifest with another part", _replaced("    <ns0:Payload>", "    <ns0:Link/>\n    <ns0:Payload>")),
        ("resource-kind", "a resource of another kind", _replaced('type="Measurement"', 'type="Opaque"')),
        (
            "resource-child",
            "a resource with something inside",
            _replaced('size="48"/>', 'size="48"><ns0:a/></ns0:Resource>'),
        ),
        ("index-twice", "an index that is defined twice", _replaced('index="1"', 'index="0"')),
        ("index-high", "an index that no report has", _replaced('index="1"', 'index="64"')),
        ("index-malformed", "an index that is no number", _replaced('index="1"', 'index="01"')),
        ("active-malformed", "a measurement that is neither active nor not", _replaced('active="True"', 'active="true"')),
        ("alternatives-more", "fewer digests than it says", _replaced('alternatives="1"', 'alternatives="2"')),
        ("alternatives-none", "a measurement without a digest", _replaced('alternatives="1"', 'alternatives="0"')),
        ("size", "a digest of another size", _replaced('size="48"', 'size="32"')),
        ("digest-malformed", "a digest that is not hex", _replaced('Hash0="', 'Hash0="zz')),
        ("name", "a manifest whose two names differ", _replaced('name="GH100"', 'name="GB100"')),
    ):
        case(f"manifest-{name}", description, JUNK, "G6", manifests=(vbios_manifest(text=text), driver))
    for name, description, after in (
        ("cut-short", "a manifest that is cut short", lambda d: d[:-20]),
        ("namespace", "a namespace by a relative address", lambda d: d.replace(b'xmlns:ns1="https:', b'xmlns:ns1="')),
        ("root-element", "a manifest with another root", lambda d: d.replace(b"SoftwareIdentity", b"HardwareIdentity")),
        ("trailing", "something after the manifest", lambda d: d + b"<a/>"),
        ("declared", "a manifest that declares another encoding", lambda d: b'<?xml version="1.0" encoding="UTF-16"?>' + d),
    ):
        case(f"manifest-{name}", description, JUNK, "G6", manifests=(vbios_manifest(after=after), driver))
    case(
        "good-declared",
        "a manifest with a declaration",
        "ok",
        "",
        manifests=(vbios_manifest(after=lambda d: b'<?xml version="1.0" encoding="UTF-8"?>\n' + d), driver),
    )


def _manifest_signatures(case: Case) -> None:
    driver = driver_manifest()
    for name, description, signature in (
        ("algorithm", "a signature by another algorithm", _replaced(ECDSA_SHA384, ECDSA_SHA384.replace("384", "256"))),
        ("hmac", "a signature by a shared secret", _replaced(ECDSA_SHA384, "http://www.w3.org/2000/09/xmldsig#hmac-sha1")),
        (
            "canonical",
            "another canonical form",
            _replaced('Method Algorithm="http://www.w3.org/2006/12/xml-c14n11"', 'Method Algorithm="urn:a"'),
        ),
        (
            "transform",
            "a transform that chooses what is signed",
            _replaced(ENVELOPED, "http://www.w3.org/TR/1999/REC-xslt-19991116"),
        ),
        (
            "transform-more",
            "a further transform",
            _replaced("</ds:Transforms>", f'<ds:Transform Algorithm="{C14N}"/></ds:Transforms>'),
        ),
        (
            "transform-inside",
            "a transform with something inside",
            _replaced(f'"{ENVELOPED}"/>', f'"{ENVELOPED}">a</ds:Transform>'),
        ),
        ("reference-part", "a signature over a part of the document", _replaced('URI=""', 'URI="#part"')),
        ("reference-none", "a signature over nothing that is named", _replaced(' URI=""', "")),
        ("reference-twice", "a signature over two things", _twice),
        (
            "signed-elsewhere",
            "a signature that holds an object of its own",
            _replaced("</ds:Signature>", "<ds:Object/></ds:Signature>"),
        ),
        ("identified", "a signature with a name", _replaced("<ds:Signature ", '<ds:Signature Id="a" ')),
        ("key-value", "a key in place of certificates", _replaced("<ds:X509Data>", "<ds:KeyValue/><ds:X509Data>")),
        (
            "certificate-junk",
            "a certificate that cannot be read",
            _replaced("<ds:X509Certificate>", "<ds:X509Certificate>AAAA</ds:X509Certificate><ds:X509Certificate>"),
        ),
        (
            "certificate-base64",
            "a certificate that is not base64",
            _replaced("<ds:X509Certificate>", "<ds:X509Certificate>*"),
        ),
        (
            "certificate-element",
            "a certificate with an element inside",
            _replaced("<ds:X509Certificate>", "<ds:X509Certificate><ds:a/>"),
        ),
        ("certificates-many", "more certificates than a path has", _many),
        ("value-short", "a signature that is too short", _replaced("SIGNED", "AAAA")),
        ("digest-short", "a digest that is too short", _shortened),
        ("none", "no signature", lambda _: ""),
    ):
        case(f"signature-{name}", description, JUNK, "G6", manifests=(vbios_manifest(signature=signature), driver))
    case("signature-twice", "two signatures", JUNK, "G6", manifests=(vbios_manifest(signature=lambda t: t + t), driver))

    other = _replaced('Hash0="' + VALUE_1, 'Hash0="' + "00" * 48)
    case(
        "manifest-altered",
        "a manifest that was altered after it was signed",
        JUNK,
        "G7",
        manifests=(vbios_manifest(after=lambda d: other(d.decode()).encode()), driver),
    )
    case(
        "manifest-forged",
        "a manifest that another key signed",
        JUNK,
        "G7",
        manifests=(vbios_manifest(signer=FORGER), driver),
    )
    curve = signers(key=P256)
    case(
        "manifest-other-curve",
        "a signer on another curve",
        JUNK,
        "G7",
        manifests=(vbios_manifest(path=curve), driver),
        answers=(),
    )
    wrapped = lambda d: d.replace(b"</ns0:Payload>", b"</ns0:Payload>\n", 1)  # noqa: E731
    behind = lambda d: d.replace(b"</ds:Signature>", b"</ds:Signature>\n")  # noqa: E731
    case("manifest-spaced-behind", "the same behind it", JUNK, "G7", manifests=(vbios_manifest(after=behind), driver))
    case("manifest-spaced", "white space that was not signed", JUNK, "G7", manifests=(vbios_manifest(after=wrapped), driver))


VALUE_1 = vbios_manifest().document.split('index="1"')[1].split('Hash0="')[1][:96]


def _twice(text: str) -> str:
    found = text[text.index("<ds:Reference") : text.index("</ds:SignedInfo>")]
    return text.replace(found, found + found)


def _many(text: str) -> str:
    found = text[text.index("<ds:X509Certificate>") : text.index("</ds:X509Data>")]
    return text.replace(found, found * 3)


def _shortened(text: str) -> str:
    before, _, rest = text.partition("<ds:DigestValue>")
    return before + "<ds:DigestValue>AAAA" + rest[rest.index("</ds:DigestValue>") :]


def _slow(case: Case) -> None:
    """What a canonical form puts in order by comparing each with each."""
    for name, description, before, more in (
        ("manifest-namespaces", "a manifest that declares a crowd of namespaces", "xmlns:ns0", 'xmlns:a{0}="urn:{0}" '),
        ("manifest-attributes", "a manifest with an element of a crowd of attributes", "role=", 'a{0}="" '),
    ):
        crowd = "".join(more.format(n) for n in range(200))
        manifest = driver_manifest(text=lambda text, b=before, c=crowd: text.replace(b, c + b, 1))
        case(name, description, JUNK, "G6", manifests=(manifest, vbios_manifest()), answers=())


def _signer_paths(case: Case) -> None:
    driver = driver_manifest()

    def spoiled(name: str, description: str, expect: str, path: tuple[Any, ...], **changes: Any) -> None:
        case(name, description, expect, "G8", manifests=(vbios_manifest(path=path), driver), answers=(), **changes)

    good = signers()
    case("manifest-root-not-pinned", "manifests of another maker", UNKNOWN, "G8", pinned=(DEVICE_ROOT,))
    spoiled("signer-forged", "a signer that another key certified", CERTIFICATE, signers(signer=FORGER))
    answering = signers(purposes=("1.3.6.1.5.5.7.3.9",))
    spoiled("signer-for-answers", "a signer that is certified to answer OCSP requests", CERTIFICATE, answering)
    spoiled("signer-no-usage", "a signer whose certificate does not say what it is for", CERTIFICATE, signers(usages=None))
    spoiled("signer-alone", "a signer without a path", CERTIFICATE, good[:1])
    spoiled("signer-order", "certificates in another order", CERTIFICATE, (good[0], good[2], good[1], good[3]))
    spoiled("signer-early", "a signer that is not valid yet", EARLY, signers(since=AT + 1))
    never = (signers(until=AT - 900 * DAY, since=AT - 950 * DAY)[0], *good[1:])
    spoiled("signer-never", "a signer that expired before its issuer was there", EARLY, never)
    spoiled(
        "signer-debug",
        "a signer of the maker's own tests",
        UNKNOWN,
        (good[0], authority(RIM_L3, RIM_L3, AT - DAY, AT + DAY)),
    )
    device = GPU.path
    leaf = {"subject": SIGNER, "issuer": device[1].common_name, "not_before": AT - DAY, "not_after": AT + DAY}
    from_device = signers(**leaf, signer=ec_key(f"device {GPU.chip} {GPU.name}"))
    spoiled(
        "signer-is-a-device",
        "a device that signs manifests: its path leads to a pinned root, and not to the one of manifests",
        CERTIFICATE,
        (from_device[0], *device[1:]),
    )


def _measurements(case: Case) -> None:
    driver, vbios = _both()
    both = vbios_manifest(indices=(*VBIOS_INDICES, 40))
    case("measurement-in-both", "a measurement that both manifests define", JUNK, "G10", manifests=(driver, both))
    case("manifest-empty", "a manifest that defines nothing", JUNK, "G10", manifests=(driver_manifest(indices=()), vbios))
    case(
        "measurement-other-driver",
        "a driver that measures something else",
        OTHER,
        "G11",
        **_device(measured={40: bytes(48)}),
    )
    case("measurement-other-vbios", "a VBIOS that measures something else", OTHER, "G11", **_device(measured={9: bytes(48)}))
    case(
        "measurement-inactive",
        "a value that an inactive measurement would take",
        OTHER,
        "G11",
        **_device(measured={7: bytes(48)}),
    )
    on = {"opaque": {11: ENABLED}, "measured": {35: bytes(48)}}
    case("measurement-decoder", "a decoder that is on and measures something else", OTHER, "G11", **_device(**on))
    swapped = driver_manifest(indices=tuple(n for n in DRIVER_INDICES if n != 21), values={22: (bytes(48),)})
    case("measurement-shifted", "a value that stands at another index", OTHER, "G11", manifests=(swapped, vbios))
    assert DISABLED != ENABLED


def _terms(case: Case) -> None:
    case(
        "architecture-not-accepted",
        "an architecture that the policy does not name",
        TERMS,
        "GT1",
        device=BLACKWELL,
        terms=_running(Architecture.HOPPER),
    )
    case("no-architecture-accepted", "an empty list of architectures accepts none", TERMS, "GT1", terms=Terms({}))
    case(
        "driver-old",
        "a driver older than the floor",
        TCB,
        "GT2",
        terms=_running(Architecture.HOPPER, driver=Versions(at_least="580.95.06")),
    )
    case(
        "driver-not-named",
        "a driver that the policy does not name",
        TCB,
        "GT2",
        terms=_running(Architecture.HOPPER, driver=_one("580.95.06")),
    )
    case(
        "no-driver-accepted",
        "an empty list of drivers accepts none",
        TCB,
        "GT2",
        terms=_running(Architecture.HOPPER, driver=Versions()),
    )
    case("driver-text-order", "versions are numbers: 99 is below 580", TCB, "GT2", **_device(driver="99.1"))
    case(
        "vbios-old",
        "a VBIOS older than the floor",
        TCB,
        "GT3",
        terms=_running(Architecture.HOPPER, Versions(at_least="96.00.B0")),
    )
    case(
        "no-vbios-accepted",
        "an empty list of VBIOSes accepts none",
        TCB,
        "GT3",
        terms=_running(Architecture.HOPPER, Versions()),
    )
    case("protected-pcie", "a GPU whose links are in the clear", TERMS, "GT4", **_device(opaque={21: ENABLED, 36: b"\2\0"}))
    case(
        "protected-pcie-flag", "likewise, by its feature flag alone", TERMS, "GT4", **_device(opaque={21: None, 36: b"\2\0"})
    )
    good = answers(GPU, _both())
    case("device-nothing-said", "nothing is said of a device's certificate", MISSING, "GT5", answers=good[1:])
    case("device-another-said", "an answer about another serial number", MISSING, "GT5", answers=_spoiled(1, serial=1))
    case("signer-nothing-said", "nothing is said of a signer's certificate", MISSING, "GT6", answers=good[:5])
    expired = _both(path=signers(until=AT - 1))
    case("signers-expired", "manifests whose signer has expired", EXPIRED, "GT7", manifests=expired)
    long_ago = _both(path=signers(until=AT - 31 * DAY))
    case(
        "signers-long-expired",
        "a signer that expired longer ago than the policy allows",
        EXPIRED,
        "GT7",
        manifests=long_ago,
        terms=_asked(signers_expired_days=30),
    )


def device_cases() -> dict[str, tuple[str, str, str, World]]:
    """Name to description, expected code, the check that does not pass, and world."""
    found: dict[str, tuple[str, str, str, World]] = {}

    def case(name: str, description: str, expect: str, fails: str, /, **changes: Any) -> None:
        assert name not in found, name
        found[name] = (description, expect, fails, World(**changes))

    groups = (_good, _malformed, _path, _signed, _revocation, _manifests_missing, _slow, _manifest_signatures, _signer_paths)
    for group in (*groups, _measurements, _terms):
        group(case)
    return found


# --- switches ---


NO_LINKS = {22: None, 23: None, 26: None}


def switch_cases() -> dict[str, tuple[str, str, str, World]]:
    """Likewise, of what is otherwise with switches."""
    found: dict[str, tuple[str, str, str, World]] = {}

    def case(name: str, description: str, expect: str, fails: str, /, **changes: Any) -> None:
        found[name] = (description, expect, fails, World(**{"device": SWITCH, **changes}))

    def otherwise(name: str, description: str, opaque: dict[int, bytes | None]) -> None:
        case(name, description, BAD, "G1", device=replace(SWITCH, opaque=opaque), answers=())

    case("good", "a switch, which has no driver", "ok", "")
    case("good-not-linked", "an old report that says nothing of links", "ok", "", device=replace(SWITCH, opaque=NO_LINKS))
    case("good-one-of", "a version that the policy names", "ok", "", terms=_switches(_one("96.10.55.00.01")))
    case(
        "gpu-for-a-switch", "a GPU where a switch should stand", BAD, "G1", data=GPU.evidence.data, manifests=(), answers=()
    )
    otherwise("driver", "a switch with a driver", {3: b"580.95.05"})
    otherwise("vbios-malformed", "a switch whose VBIOS version is none", {6: b"new"})
    otherwise("name-malformed", "a switch whose name is too short", {22: bytes(range(7))})
    otherwise("name-zero", "a switch whose name is that of an unused link", {22: bytes(8)})
    otherwise("links-malformed", "a switch whose table of GPUs ends early", {26: bytes(63)})
    case("report-forged", "a report that another key signed", FORGED, "G3", device=replace(SWITCH, signer=FORGER))
    far = (vbios_manifest(SWITCH, indices=(0, 31)),)
    case("measurement-absent", "a measurement that the report does not have", OTHER, "G10", manifests=far)
    case("no-vbios-manifest", "no manifest for its VBIOS", MISSING, "G6", manifests=())
    case("no-architecture-accepted", "an empty list of architectures accepts none", TERMS, "GT1", terms=SwitchTerms({}))
    case("vbios-old", "a VBIOS older than the floor", TCB, "GT3", terms=_switches(Versions(at_least="96.10.60")))
    case("device-nothing-said", "nothing is said of its certificates", MISSING, "GT5", answers=answers(SWITCH, _rim())[1:])
    old = (vbios_manifest(SWITCH, path=signers(until=AT - 1)),)
    case("signers-expired", "a manifest whose signer has expired", EXPIRED, "GT7", manifests=old)
    return found


def _switches(vbios: Versions) -> SwitchTerms:
    return SwitchTerms({Architecture.LS10: Software(vbios, None)})


def _rim() -> tuple[Manifest, ...]:
    return (vbios_manifest(SWITCH),)


# --- tokens ---

TWO = [["JWT", "a.b.c"], {"GPU-0": "a.b.c", "GPU-1": "a.b.c"}]
HEADER = {"kid": KID, "alg": "ES384"}


def _good_tokens(case: Case) -> None:
    case("good", "an answer about a GPU", "ok", "")
    case("good-wrapped", "the same as NVIDIA's SDK wraps it: its own token is not looked at", "ok", "", wrapped=True)
    case("good-key-pinned", "a key that is pinned itself, without a certificate", "ok", "", path=(), pinned=(TOKEN_KEY,))
    above = authority(SERVICE_CA, SERVICE_CA, AT - DAY, AT + DAY)
    case(
        "good-authority-pinned",
        "an authority that came along beside the key set",
        "ok",
        "",
        pinned=(SERVICE_CA,),
        others=(pem_chain(above),),
    )
    two = {
        f"x-nvidia-gpu-{name}": ...
        for name in ("attestation-report-cert-chain", "driver-rim-cert-chain", "vbios-rim-cert-chain")
    }
    case(
        "good-version-2",
        "a token that says nothing of certificates, where the policy does without",
        "ok",
        "",
        device=two,
        terms=TokenTerms(revocation=WHERE_GIVEN),
    )
    case("version-2", "a token that says nothing of certificates", MISSING, "RT5", device=two)


def _malformed_tokens(case: Case) -> None:
    for name, description, data in (
        ("nothing", "no bytes", b""),
        ("two-devices", "an answer about two GPUs", json.dumps(TWO).encode()),
        ("no-device", "an answer about none", json.dumps([["JWT", "a.b.c"], {}]).encode()),
        ("one-token", "one token alone", json.dumps(["JWT", "a.b.c"]).encode()),
        ("no-token", "something else than a token in front", json.dumps([["CWT", "a.b.c"], {"GPU-0": "a.b.c"}]).encode()),
        ("token-parts", "a token of two parts", json.dumps([["JWT", "e30.e30"], {"GPU-0": "e30.e30"}]).encode()),
        ("token-number", "a token that is no text", json.dumps([["JWT", 1], {"GPU-0": 1}]).encode()),
        (
            "token-list",
            "a token whose payload is no object",
            json.dumps([["JWT", "e30.W10.AA"], {"GPU-0": "e30.W10.AA"}]).encode(),
        ),
        ("token-loose", "a token in loose base64", json.dumps([["JWT", "e31.e30.AA"], {"GPU-0": "e31.e30.AA"}]).encode()),
        (
            "token-twice",
            "an answer with a member twice",
            b'[["JWT","e30.e30.AA"],{"GPU-0":"e30.e30.AA","GPU-0":"e30.e30.AA"}]',
        ),
        (
            "wrapped-twice",
            "a wrapped answer inside a wrapped answer",
            json.dumps([["JWT", "a.b.c"], {"REMOTE_GPU_CLAIMS": [["JWT", "a.b.c"], {"REMOTE_GPU_CLAIMS": []}]}]).encode(),
        ),
    ):
        case(name, description, BAD, "R1", data=data)
    case("device-name", "an answer about something that is no GPU", BAD, "R1", name="CPU-0")
    for name, description, device in (
        ("no-expiry", "a token without an expiry", {"exp": ...}),
        ("expiry-true", "an expiry that is no number", {"exp": True}),
        ("expiry-fraction", "an expiry that is a fraction", {"exp": 1.5}),
        ("no-issuer", "a token without an issuer", {"iss": ...}),
        ("no-nonce", "a token without a nonce", {"eat_nonce": ...}),
        ("nonce-short", "a nonce that is too short", {"eat_nonce": "00"}),
        ("no-ueid", "a token without a device's number", {"ueid": ...}),
        ("ueid-hex", "a device's number that is none", {"ueid": "0x1"}),
        ("model-unknown", "a model that is not known", {"hwmodel": "GR100"}),
        ("model-unspeakable", "a model whose name no text can hold", {"hwmodel": "GH100 \ud800"}),
        ("no-driver", "a token without the driver's version", {"x-nvidia-gpu-driver-version": ...}),
        ("driver-malformed", "a driver version that is none", {"x-nvidia-gpu-driver-version": "new"}),
        ("vbios-malformed", "a VBIOS version that is none", {"x-nvidia-gpu-vbios-version": "new"}),
    ):
        case(name, description, BAD, "R1", device=device)


def _signed_tokens(case: Case) -> None:
    for name, description, header in (
        ("hs256", "a token that names a shared secret", {**HEADER, "alg": "HS256"}),
        ("none", "a token that names no algorithm", {**HEADER, "alg": "none"}),
        ("es256", "a token that names another curve", {**HEADER, "alg": "ES256"}),
        ("algorithm-missing", "a token without an algorithm", {"kid": KID}),
        ("algorithm-list", "an algorithm that is no text", {**HEADER, "alg": ["ES384"]}),
        ("header-key", "a token that brings its own key", {**HEADER, "jwk": {}}),
        ("header-critical", "a header that must be understood", {**HEADER, "crit": ["x"], "x": 1}),
    ):
        case(f"overall-{name}", f"{description}, over all", FORGED, "R2", overall_header=header)
        case(f"device-{name}", f"{description}, about the device", FORGED, "R2", device_header=header)
    case(
        "unsigned-none",
        "tokens without a signature that say so",
        FORGED,
        "R2",
        unsigned=True,
        overall_header={"alg": "none"},
        device_header={"alg": "none"},
    )

    case("no-key-set", "no key set came along", MISSING, "R3", key_sets=())
    case(
        "key-replaced", "a key set that no longer holds the key", MISSING, "R3", keys=(jwk(ec_key("new"), (), kid="kid-2"),)
    )
    case("no-kid", "tokens that name no key", FORGED, "R3", overall_header={"alg": "ES384"}, device_header={"alg": "ES384"})
    case("two-kids", "tokens that name two keys", FORGED, "R3", device_header={**HEADER, "kid": "kid-2"})
    own = jwk(ec_key(TOKEN_KEY), key_path())
    case("key-twice", "two keys of one name", CERTIFICATE, "R3", keys=(own, jwk(FORGER, ())))
    for name, description, key in (
        ("curve", "a key on another curve", {**own, "crv": "P-256"}),
        ("private", "a key set that gives a private key away", {**own, "d": "AA"}),
        ("purpose", "a key for encryption", {**own, "use": "enc"}),
        ("algorithm", "a key for another algorithm", {**own, "alg": "HS256"}),
        ("secret", "a shared secret in place of a key", {"kty": "oct", "kid": KID, "k": "AAAA"}),
        ("point", "a point that is not on the curve", {**own, "x": own["y"], "y": own["x"]}),
        ("number", "a number that cannot be read", {**own, "x": ""}),
        ("certificate", "a certificate that cannot be read", {**own, "x5c": ["AAAA"]}),
        ("path", "a path that is no list", {**own, "x5c": "AAAA"}),
    ):
        case(f"key-{name}", description, JUNK, "R3", keys=(key,))
    for name, data in (("junk", b"{"), ("list", b"[]"), ("keys", b'{"keys":{}}'), ("entries", b'{"keys":[1]}')):
        case(f"key-set-{name}", "a key set that is none", JUNK, "R3", key_sets=(data,))

    case("key-not-pinned", "a key that nobody pinned", UNKNOWN, "R4", pinned=(SERVICE_CA,))
    case("no-root", "a verifier that pins nothing", UNKNOWN, "R4", pinned=())
    case("key-bare", "a key without a certificate", UNKNOWN, "R4", path=())
    for name, description, expect, changes in (
        ("forged", "a key that another authority certified", CERTIFICATE, {"signer": FORGER}),
        ("other-key", "a certificate of another key", CERTIFICATE, {"key": FORGER}),
        ("usage", "a certificate that is not for signatures", CERTIFICATE, {"usages": ("key_agreement",)}),
        ("no-usage", "a certificate that does not say what for", CERTIFICATE, {"usages": None}),
        ("expired", "a key whose certificate has expired", EXPIRED, {"not_after": AT - 1}),
        ("early", "a key whose certificate is not valid yet", EARLY, {"not_before": AT + 1}),
    ):
        case(f"certificate-{name}", description, expect, "R4", path=key_path(**changes))

    case("forged", "tokens that another key signed", FORGED, "R5", signer=FORGER)
    case("device-forged", "a device's token that another key signed", FORGED, "R5", device_signer=FORGER)
    case("unsigned", "tokens whose signatures are empty", FORGED, "R5", unsigned=True)


def _said_by_tokens(case: Case) -> None:
    case("issuer-other", "a token of another service", FORGED, "R6", overall={"iss": "https://nras.example"})
    case("device-issuer-other", "a device's token of another service", FORGED, "R6", device={"iss": f"{ISSUER}/"})
    case("subject-other", "a token for another purpose", FORGED, "R6", overall={"sub": "SOMETHING-ELSE"})
    case("expired", "a token that has expired", STALE, "R7", overall={"exp": AT})
    case("device-expired", "a device's token that has expired", STALE, "R7", device={"exp": AT - 1})
    case("early", "a token that does not count yet", STALE, "R7", device={"nbf": AT + 1})
    case("issued-later", "a token of tomorrow", STALE, "R7", overall={"iat": AT + 1})
    case("endless", "a token that counts for a year", STALE, "R7", device={"exp": AT + 365 * DAY})
    case(
        "device-swapped",
        "another device's token beside the token over all",
        FORGED,
        "R8",
        digest_of=token({"ueid": "2"}, FORGER),
    )
    case("no-digest", "a token over all that holds no digest", FORGED, "R8", overall={"submods": ...})
    case(
        "device-left-out",
        "a token over all that was about two devices",
        FORGED,
        "R8",
        overall={"submods": {"GPU-0": [], "GPU-1": []}},
    )
    case("nonce-other", "tokens about two nonces", FORGED, "R9", device={"eat_nonce": "00" * 32})

    case("result-bad", "a result over all that is not good", TERMS, "RT1", overall={"x-nvidia-overall-att-result": False})
    case("result-text", "a result that is no truth", TERMS, "RT1", overall={"x-nvidia-overall-att-result": "true"})
    case("result-not-said", "no result", TERMS, "RT1", overall={"x-nvidia-overall-att-result": ...})
    case("measured-other", "measurements that differ", TERMS, "RT2", device={"measres": "fail"})
    case("measured-not-said", "measurements that nobody compared", TERMS, "RT2", device={"measres": ...})
    case("no-secure-boot", "a device without secure boot", TERMS, "RT3", device={"secboot": False})
    case("secure-boot-not-said", "secure boot is not said", TERMS, "RT3", device={"secboot": None})
    case("debug", "a device that is being debugged", TERMS, "RT3", device={"dbgstat": "enabled"})
    case(
        "check-failed",
        "a check of the service that did not pass",
        TERMS,
        "RT4",
        device={"x-nvidia-gpu-vbios-rim-version-match": False},
    )
    case("check-not-made", "a check that the service did not make", TERMS, "RT4", device={"x-nvidia-gpu-arch-check": ...})
    case("warning", "a warning of the service", TERMS, "RT4", device={"x-nvidia-attestation-warning": "hold"})
    for name, status in (
        ("revoked", {"ocsp-status": "revoked"}),
        ("expired", {"status": "expired"}),
        ("unanswered", {"ocsp-response-valid": False}),
    ):
        chain = {
            "x-nvidia-cert-status": "valid",
            "x-nvidia-cert-ocsp-status": "good",
            **{f"x-nvidia-cert-{k}": v for k, v in status.items()},
        }
        case(
            f"chain-{name}",
            f"a path of certificates that is {name}",
            TERMS,
            "RT5",
            device={"x-nvidia-gpu-driver-rim-cert-chain": chain},
        )
    case("driver-old", "a driver older than the floor", TCB, "RT6", device={"x-nvidia-gpu-driver-version": "570.1"})
    case("no-architecture-accepted", "an empty list of architectures accepts none", TCB, "RT6", terms=TokenTerms({}))
    case(
        "vbios-old",
        "a VBIOS older than the floor",
        TCB,
        "RT6",
        terms=TokenTerms({Architecture.HOPPER: Software(Versions(at_least="97"), ANY)}),
    )
    case(
        "nonce-not-checked",
        "a nonce that the service did not check",
        TERMS,
        "RT7",
        device={"x-nvidia-gpu-attestation-report-nonce-match": ...},
    )


def token_cases() -> dict[str, tuple[str, str, str, TokenWorld]]:
    """Name to description, expected code, the check that does not pass, and world."""
    found: dict[str, tuple[str, str, str, TokenWorld]] = {}

    def case(name: str, description: str, expect: str, fails: str, /, **changes: Any) -> None:
        assert name not in found, name
        found[name] = (description, expect, fails, TokenWorld(**changes))

    for group in (_good_tokens, _malformed_tokens, _signed_tokens, _said_by_tokens):
        group(case)
    return found


def all_cases() -> tuple[dict[str, dict[str, dict[str, Any]]], dict[str, str]]:
    """Folder to name to the case as it stands in the file, and the documents that they share."""
    shared: dict[str, str] = {}
    worlds: dict[str, Any] = {"nvidia_cc": device_cases(), "nvidia_switch": switch_cases(), "nras": token_cases()}
    counts: dict[bytes, int] = {}
    for cases in worlds.values():
        for *_, world in cases.values():
            for data in {world.evidence.data, *(d.data for d in world.endorsements.documents)}:
                counts[data] = counts.get(data, 0) + 1

    def held(name: str, data: bytes) -> dict[str, str]:
        if counts[data] == 1 or len(data) < 128:
            return {name: wire.b64(data)}
        shared[wire.digest(data)] = wire.b64(data)
        return {"part" if name == "data" else f"{name}_part": wire.digest(data)}

    made = {
        folder: {
            name: {
                "at": world.at,
                "description": description,
                "endorsements": [{"media_type": d.media_type, **held("data", d.data)} for d in world.endorsements.documents],
                **held("evidence", world.evidence.data),
                "expect": expect,
                "fails": fails,
                "platform": folder,
                "roots": world.roots.to_json(),
                "terms": world.terms.to_json(),
            }
            for name, (description, expect, fails, world) in cases.items()
        }
        for folder, cases in worlds.items()
    }
    return made, shared


def joined(case: dict[str, Any], parts: dict[str, str]) -> dict[str, Any]:
    """A case with the documents in it that it shares with others."""
    documents = [
        {"data": parts[d["part"]] if "part" in d else d["data"], "media_type": d["media_type"]} for d in case["endorsements"]
    ]
    evidence = parts[case["evidence_part"]] if "evidence_part" in case else case["evidence"]
    return {**case, "endorsements": documents, "evidence": evidence}


if __name__ == "__main__":
    made, shared = all_cases()
    for kind, cases in made.items():
        folder = HERE / kind
        folder.mkdir(exist_ok=True)
        for old in folder.glob("*.json"):
            old.unlink()
        for name, case in cases.items():
            (folder / f"{name}.json").write_text(json.dumps(case, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    (HERE / "nvidia_parts.json").write_text(json.dumps(shared, indent=1, sort_keys=True) + "\n", encoding="utf-8")
