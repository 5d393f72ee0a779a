"""An NVIDIA of our own: devices, manifests, OCSP responses and tokens of the same layout under roots of our own."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from lxml import etree

from pki_certificates import Wanted, authority, ec_key
from strongroom import wire
from strongroom.attest.binding import gpu_nonce
from strongroom.attest.endorsements import JWK_SET, NVIDIA_RIM, OCSP_RESPONSE, PEM_CHAIN
from strongroom.attest.evidence import Endorsement, Endorsements, Evidence, Roots
from strongroom.attest.nras_token import PLATFORM as NRAS
from strongroom.attest.nvidia_device import PLATFORM, SWITCH_PLATFORM
from strongroom.attest.nvidia_terms import SwitchTerms, Terms, TokenTerms
from strongroom.attest.x509 import Certificate

AT = 1_790_000_000  # 2026-09-21, the time in question
DAY = 86_400
LONG = AT + 3000 * DAY
REPORT_DATA = hashlib.sha256(b"a keyset and a nonce").digest() + bytes(32)
NONCE = gpu_nonce(REPORT_DATA)
DRIVER, VBIOS = "580.95.05", "96.00.A5.00.01"
DEVICE_ROOT, RIM_ROOT = "NVIDIA Device Identity CA", "NVIDIA CoRIM signing Root CA"
RIM_CA, RIM_L3, SIGNER = "Reference Value CA of a test", "Reference Value L3 of a test", "RIM signer of a test"
FIRMWARE = hashlib.sha384(b"firmware").digest()
FWID_OID, TCB_INFO_OID = "2.23.133.5.4.1", "2.23.133.5.4.1.1"
VBIOS_INDICES = (0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12)
DRIVER_INDICES = (7, *range(21, 42))
ENABLED, DISABLED = b"\xaa", b"\x55"
Key = ec.EllipticCurvePrivateKey


def raw_signature(key: Key, data: bytes, digest: hashes.HashAlgorithm | None = None) -> bytes:
    """``r || s``, each as long as the curve's order."""
    size = (key.curve.key_size + 7) // 8
    der = key.sign(data, ec.ECDSA(digest or hashes.SHA384(), deterministic_signing=True))
    return b"".join(n.to_bytes(size, "big") for n in decode_dss_signature(der))


def spki(key: Key) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def value(index: int) -> bytes:
    """What the device measures at this index."""
    return hashlib.sha384(b"measurement %d" % index).digest()


# --- DER, where the library cannot make what is needed, or not the same twice ---


def der(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    if len(body) < 0x80:
        return bytes([tag, len(body)]) + body
    size = (len(body).bit_length() + 7) // 8
    return bytes([tag, 0x80 | size]) + len(body).to_bytes(size, "big") + body


def der_integer(number: int) -> bytes:
    return der(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def der_time(at: int) -> bytes:
    return der(0x18, datetime.fromtimestamp(at, UTC).strftime("%Y%m%d%H%M%SZ").encode())


def der_oid(dotted: str) -> bytes:
    first, second, *others = (int(part) for part in dotted.split("."))
    body = bytearray()
    for number in (first * 40 + second, *others):
        groups = [number & 0x7F]
        while number := number >> 7:
            groups.append(number & 0x7F | 0x80)
        body += bytes(reversed(groups))
    return der(0x06, bytes(body))


SHA384_OID, SHA1_OID, ECDSA_SHA384_OID = "2.16.840.1.101.3.4.2.2", "1.3.14.3.2.26", "1.2.840.10045.4.3.3"
BASIC_OID, OCSP_SIGNING = "1.3.6.1.5.5.7.48.1.1", "1.3.6.1.5.5.7.3.9"


def fwid(digest: bytes) -> bytes:
    return der(0x30, der_oid(SHA384_OID), der(0x04, digest))


def composite_device_id(digest: bytes) -> tuple[x509.ExtensionType, bool]:
    """TCG DICE: what Hopper's leaves carry."""
    body = der(0x30, der_integer(1), spki(ec_key("alias")), fwid(digest))
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(FWID_OID), body), False


def tcb_info(digest: bytes) -> tuple[x509.ExtensionType, bool]:
    """TCG DICE: what Blackwell's leaves carry."""
    body = der(0x30, der(0x80, b"NVIDIA"), der(0xA6, fwid(digest), fwid(bytes(48))), der(0x88, b"\xc0"))
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(TCB_INFO_OID), body), False


# --- devices ---


@dataclass(frozen=True)
class Device:
    """A device; each case changes one thing.

    Args:
        chip: its chip's name.
        name: of the key of its certificate, so that two are two devices.
        certificates: what is otherwise in a certificate of its path, by place; leaf first.
        opaque: the fields of its report that are otherwise; ``None`` of one leaves it out.
        measured: what it measures otherwise, by index from 0.
        count: how many measurements it has.
        change: what is done to its report before it is signed, and after.
    """

    chip: str = "GH100"
    name: str = "a"
    nonce: bytes = NONCE
    firmware: bytes | None = FIRMWARE
    certificates: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    opaque: Mapping[int, bytes | None] = field(default_factory=dict)
    measured: Mapping[int, bytes] = field(default_factory=dict)
    count: int = 64
    signer: Any = None
    digest: hashes.HashAlgorithm = field(default_factory=hashes.SHA384)
    change: Callable[[bytes], bytes] = lambda data: data
    change_after: Callable[[bytes], bytes] = lambda data: data
    driver: str = DRIVER
    vbios: str = VBIOS

    @property
    def switch(self) -> bool:
        return self.chip.startswith("LS")

    @property
    def platform(self) -> str:
        return SWITCH_PLATFORM if self.switch else PLATFORM

    @property
    def architecture(self) -> str:
        return "LS10" if self.switch else "HOPPER" if self.chip.startswith("GH") else "BLACKWELL"

    @property
    def names(self) -> tuple[str, ...]:
        processor = "FSP" if self.switch else "GSP"
        return (
            f"{self.chip} A01 {processor} FMC LF",
            f"{self.chip} A01 {processor} BROM",
            f"{self.chip} Provisioner ICA of a test",
            f"{self.chip} Identity of a test",
            DEVICE_ROOT,
        )

    @property
    def leaf_key(self) -> Key:
        return ec_key(f"leaf of {self.chip} {self.name}")

    @cached_property
    def path(self) -> tuple[Certificate, ...]:
        """Leaf first."""
        _, device, issuer, identity, root = self.names
        keys = (self.leaf_key, ec_key(f"device {self.chip} {self.name}"), ec_key(issuer), ec_key(identity), ec_key(root))
        made = []
        for place, (subject, above) in enumerate(zip(self.names, (device, issuer, identity, root, root), strict=True)):
            wanted: dict[str, Any] = {
                "subject": subject, "issuer": above, "not_before": AT - 1000 * DAY, "not_after": LONG, "key": keys[place],
                "signer": keys[min(place + 1, 4)],
            }  # fmt: skip
            if place:
                wanted |= {"ca": True, "usages": ("key_cert_sign", "crl_sign")}
            else:
                wanted |= {"ca": None}
                if self.firmware is not None:
                    made_for = tcb_info if self.architecture == "BLACKWELL" else composite_device_id
                    wanted["others"] = (made_for(self.firmware),)
            made.append(Wanted(**{**wanted, **self.certificates.get(place, {})}).make())
        return tuple(made)

    @property
    def fields(self) -> dict[int, bytes]:
        """The device's own fields, in the order in which devices report them."""
        if self.switch:
            found: dict[int, bytes | None] = {
                6: self.vbios.encode(), 22: pdi(self.name), 26: pdi("a") + bytes(56) + b"\0" * 18 + b"\xff" * 46, 23: b"\0\0"
            }  # fmt: skip
        else:
            *high, low = bytes.fromhex(self.vbios.replace(".", ""))
            found = {
                6: bytes(reversed(high)) + bytes([low]) + bytes(3), 14: bytes(4), 15: b"885\0\0\0\0\0\0", 16: b"0\0\0\0\0",
                17: b"G520\0", 18: b"0200\0", 19: bytes(2), 3: self.driver.encode() + b"\0", 4: bytes(8), 12: bytes(256),
                13: bytes(4), 11: DISABLED,
            }  # fmt: skip
        found |= {20: self.firmware, 21: None if self.switch else DISABLED, **self.opaque}
        return {kind: data for kind, data in found.items() if data is not None}

    @property
    def unsigned(self) -> bytes:
        request = b"\x11\xe0\x01\xff" + self.nonce + b"\0"
        blocks = b"".join(bytes([i + 1, 1, 51, 0, 1, 48, 0]) + self.measured.get(i, value(i)) for i in range(self.count))
        opaque = b"".join(k.to_bytes(2, "little") + len(v).to_bytes(2, "little") + v for k, v in self.fields.items())
        head = b"\x11\x60\0\0" + bytes([self.count]) + len(blocks).to_bytes(3, "little")
        own = hashlib.sha256(b"the device's own nonce").digest()
        return self.change(request + head + blocks + own + len(opaque).to_bytes(2, "little") + opaque)

    @cached_property
    def report(self) -> bytes:
        unsigned = self.unsigned
        signature = raw_signature(self.signer or self.leaf_key, unsigned, self.digest)
        return self.change_after(unsigned + signature)

    @property
    def pem(self) -> bytes:
        return b"".join(c.parsed.public_bytes(Encoding.PEM) for c in self.path)

    @property
    def container(self) -> dict[str, Any]:
        return {
            "arch": self.architecture,
            "certificates": [wire.b64(c.der) for c in self.path],
            "report": wire.b64(self.report),
        }

    @property
    def evidence(self) -> Evidence:
        return Evidence(self.platform, wire.encode(self.container))

    @property
    def entry(self) -> dict[str, str]:
        """As NVIDIA's SDK writes it."""
        return {
            "arch": self.architecture,
            "certificate": wire.b64(self.pem),
            "evidence": wire.b64(self.report),
            "nonce": self.nonce.hex(),
        }


def pdi(name: str) -> bytes:
    """What a device's links call it, as switches write it; GPUs write it in reverse."""
    return hashlib.sha256(b"links " + name.encode()).digest()[:8]


def protected(gpus: int = 2, switches: int = 2, **changes: Any) -> tuple[Device, ...]:
    """GPUs in protected PCIe mode, each linked to every switch, one of its links unused; and then the switches.

    Args:
        changes: the changes to one device, by its name: ``gpu0``, ``switch1``.
    """
    names = [f"gpu{n}" for n in range(gpus)], [f"switch{n}" for n in range(switches)]
    links = b"".join(pdi(name)[::-1] * 2 for name in names[1]) + bytes(8)
    table = b"".join(map(pdi, names[0])).ljust(64, b"\0") + b"\xff" * 64
    mode = {21: ENABLED, 22: links, 34: b"\1\0", 36: b"\2\0"}

    def made(name: str, chip: str, opaque: Mapping[int, bytes], **others: Any) -> Device:
        changed = dict(changes.get(name, {}))
        number = {1: {"serial": 0x1000 + int.from_bytes(name.encode(), "big")}}  # as no two devices have the same
        opaque = {**opaque, **changed.pop("opaque", {})}
        return Device(name=name, chip=chip, **{"certificates": number, "opaque": opaque, **others, **changed})

    return (
        *(made(name, "GH100", mode) for name in names[0]),
        *(made(name, "LS_10", {26: table}, count=31, vbios="96.10.55.00.01") for name in names[1]),
    )


# --- reference manifests ---

_NS = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd"
_DS = "http://www.w3.org/2000/09/xmldsig#"
C14N11, C14N, EXCLUSIVE = (
    "http://www.w3.org/2006/12/xml-c14n11",
    "http://www.w3.org/TR/2001/REC-xml-c14n-20010315",
    "http://www.w3.org/2001/10/xml-exc-c14n#",
)
ENVELOPED = f"{_DS}enveloped-signature"
ECDSA_SHA384 = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"
SHA384 = "http://www.w3.org/2001/04/xmldsig-more#sha384"


def signers(
    name: str = SIGNER, until: int = AT + 400 * DAY, since: int = AT - 300 * DAY, **changes: Any
) -> tuple[Certificate, ...]:
    """The path of a manifest's signer, signer first."""
    leaf = {"subject": name, "issuer": RIM_L3, "not_before": since, "not_after": until}
    return (
        Wanted(**{**leaf, **changes}).make(),
        authority(RIM_L3, RIM_CA, AT - 800 * DAY, AT + 800 * DAY, path_length=0),
        authority(RIM_CA, RIM_ROOT, AT - 1000 * DAY, LONG),
        authority(RIM_ROOT, RIM_ROOT, AT - 2000 * DAY, LONG),
    )


@dataclass(frozen=True)
class Manifest:
    """A manifest; each case changes one thing.

    Args:
        values: index to alternatives.
        whole: whether inactive measurements stand in it too, as NVIDIA's do.
        text: what is done to the text before it is signed.
        after: likewise, afterwards.
        signature: what is done to the signature's text.
    """

    version: str
    indices: tuple[int, ...]
    product: str = "GH100"
    values: Mapping[int, tuple[bytes, ...]] = field(default_factory=dict)
    whole: bool = False
    path: tuple[Certificate, ...] = field(default_factory=signers)
    signer: Any = None
    canonical: str = C14N11
    form: str = C14N11
    text: Callable[[str], str] = lambda text: text
    signature: Callable[[str], str] = lambda text: text
    after: Callable[[bytes], bytes] = lambda data: data

    def _resource(self, index: int) -> str:
        active = index in self.indices
        found = self.values.get(index, (value(index),)) if active else (bytes(48),)
        digests = " ".join(f'ns2:Hash{n}="{digest.hex()}"' for n, digest in enumerate(found))
        return (
            f'        <ns0:Resource type="Measurement" index="{index}" active="{active}" alternatives="{len(found)}" '
            f'{digests} name="Measurement_{index}" size="48"/>\n'
        )

    @property
    def document(self) -> str:
        """Without its signature, up to the end tag of its root."""
        resources = "".join(self._resource(i) for i in (range(64) if self.whole else self.indices))
        return self.text(
            f'<SoftwareIdentity xmlns="{_NS}" xmlns:ns0="{_NS}" xmlns:ns2="http://www.w3.org/2001/04/xmlenc#sha384" '
            f'corpus="false" name="{self.product}" patch="false" supplemental="false" tagId="{"0" * 96}" version="1.0" '
            'tagVersion="0">\n'
            '    <ns0:Entity name="NVIDIA Corporation of a test" role="softwareCreator tagCreator"/>\n'
            '    <ns0:Meta xmlns:ns1="https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-'
            f'information-model/" colloquialVersion="{self.version}" edition="GPU" product="{self.product}" revision="r1" '
            'PayloadType="direct" ns1:BindingSpec="RIMIM" ns1:PlatformManufacturerId="5703"/>\n'
            f"    <ns0:Payload>\n{resources}    </ns0:Payload>\n"
        )

    @cached_property
    def data(self) -> bytes:
        end = "</SoftwareIdentity>"
        exclusive = {EXCLUSIVE: True}
        root = etree.fromstring((self.document + end).encode())
        body = etree.tostring(root, method="c14n", exclusive=exclusive.get(self.form, False))
        digest = wire.b64(hashlib.sha384(body).digest())
        held = "".join(f"<ds:X509Certificate>{_folded(c.der)}</ds:X509Certificate>" for c in self.path)
        signature = self.signature(
            f'<ds:Signature xmlns:ds="{_DS}"><ds:SignedInfo><ds:CanonicalizationMethod Algorithm="{self.canonical}"/>'
            f'<ds:SignatureMethod Algorithm="{ECDSA_SHA384}"/><ds:Reference URI=""><ds:Transforms>'
            f'<ds:Transform Algorithm="{ENVELOPED}"/><ds:Transform Algorithm="{self.form}"/></ds:Transforms>'
            f'<ds:DigestMethod Algorithm="{SHA384}"/><ds:DigestValue>{digest}</ds:DigestValue></ds:Reference>'
            f"</ds:SignedInfo><ds:SignatureValue>SIGNED</ds:SignatureValue><ds:KeyInfo><ds:X509Data>{held}</ds:X509Data></ds:KeyInfo>"
            "</ds:Signature>"
        )
        try:
            info = next(etree.fromstring((self.document + signature + end).encode()).iter(f"{{{_DS}}}SignedInfo"))
            signed = etree.tostring(info, method="c14n", exclusive=exclusive.get(self.canonical, False))
        except (etree.XMLSyntaxError, StopIteration):
            signed = b""  # it was spoiled: nobody will come to look at the signature
        made = wire.b64(raw_signature(self.signer or ec_key(SIGNER), signed))
        return self.after((self.document + signature.replace("SIGNED", made) + end).encode())


def _folded(data: bytes) -> str:
    text = wire.b64(data)
    return "\n".join(text[i : i + 64] for i in range(0, len(text), 64)) + "\n"


def driver_manifest(device: Device | None = None, **changes: Any) -> Manifest:
    """An intact manifest for a device's driver."""
    device = device or Device()
    found = {"values": {22: (bytes(48), value(22)), 21: (value(21), b"\1" * 48)}, "product": device.chip}
    return Manifest(**{"version": device.driver, "indices": DRIVER_INDICES, **found, **changes})


def vbios_manifest(device: Device | None = None, **changes: Any) -> Manifest:
    """An intact manifest for a device's VBIOS."""
    device = device or Device()
    found: dict[str, Any] = {"version": device.vbios, "indices": VBIOS_INDICES, "product": device.chip.replace("_", "")}
    return Manifest(**{**found, **changes})


# --- OCSP ---


def responder(issuer: str, signer: Key, **changes: Any) -> Certificate:
    """A certificate of a responder that an issuer made for nothing else."""
    wanted: dict[str, Any] = {
        "subject": "responder", "issuer": issuer, "not_before": AT - DAY, "not_after": AT + 30 * DAY, "signer": signer,
        "purposes": (OCSP_SIGNING,), "ca": None,
    }  # fmt: skip
    return Wanted(**{**wanted, **changes}).make()


@dataclass(frozen=True)
class Answer:
    """An OCSP response about one certificate.

    Args:
        status: ``good``, ``revoked`` or ``unknown``.
        reason: of a revocation; 6 is a hold (RFC 5280 section 5.3.1), ``None`` leaves it out.
        responders: certificates that come along.
    """

    certificate: Certificate
    issuer: Certificate
    signer: Any
    status: str = "good"
    reason: int | None = None
    made: int = AT - 3600
    until: int | None = AT + DAY
    responders: tuple[Certificate, ...] = ()
    sha1: bool = False
    critical: bool = False
    twice: bool = False
    response_status: int = 0
    serial: int | None = None

    @cached_property
    def data(self) -> bytes:
        if self.response_status:
            return der(0x30, der(0x0A, bytes([self.response_status])))
        digest = hashlib.sha1 if self.sha1 else hashlib.sha384
        bits = self.issuer.public_key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        named = der(
            0x30,
            der(0x30, der_oid(SHA1_OID if self.sha1 else SHA384_OID), b"\x05\x00"),
            der(0x04, digest(self.issuer.parsed.subject.public_bytes()).digest()),
            der(0x04, digest(bits).digest()),
            der_integer(self.certificate.serial if self.serial is None else self.serial),
        )
        reason = b"" if self.reason is None else der(0xA0, der(0x0A, bytes([self.reason])))
        status = {"good": der(0x80), "revoked": der(0xA1, der_time(self.made - DAY), reason), "unknown": der(0x82)}
        until = b"" if self.until is None else der(0xA0, der_time(self.until))
        single = der(0x30, named, status[self.status], der_time(self.made), until)
        extra = der(0xA1, der(0x30, der(0x30, der_oid("1.2.3.4"), b"\x01\x01\xff", der(0x04, b"\x05\x00"))))
        whose = der(0xA1, self.issuer.parsed.subject.public_bytes())
        answers = der(0x30, single, *([single] if self.twice else []))
        signed = der(0x30, whose, der_time(self.made), answers, extra if self.critical else b"")
        signature = self.signer.sign(signed, ec.ECDSA(hashes.SHA384(), deterministic_signing=True))
        held = der(0xA0, der(0x30, *(c.der for c in self.responders))) if self.responders else b""
        basic = der(0x30, signed, der(0x30, der_oid(ECDSA_SHA384_OID)), der(0x03, b"\0" + signature), held)
        return der(0x30, der(0x0A, b"\0"), der(0xA0, der(0x30, der_oid(BASIC_OID), der(0x04, basic))))


def answers(device: Device, manifests: tuple[Manifest, ...] = ()) -> tuple[Answer, ...]:
    """A good answer about every certificate that one can be asked about."""
    path = device.path
    found = [Answer(path[n], path[n + 1], ec_key(device.names[n + 1])) for n in (1, 2, 3)]
    pairs = dict.fromkeys(pair for m in manifests for pair in zip(m.path[:-1], m.path[1:], strict=True))
    found += [Answer(certificate, issuer, ec_key(issuer.common_name)) for certificate, issuer in pairs]
    return tuple(found)


@dataclass(frozen=True)
class World:
    """A device, its vendor and a verifier between whom everything is right; each case changes one thing."""

    device: Device = field(default_factory=Device)
    manifests: tuple[Manifest, ...] | None = None
    answers: tuple[Answer, ...] | None = None
    others: tuple[Endorsement, ...] = ()
    data: bytes | None = None
    pinned: tuple[str, ...] = (DEVICE_ROOT, RIM_ROOT)
    at: int = AT
    terms: Any = None

    def __post_init__(self) -> None:
        if self.terms is None:
            object.__setattr__(self, "terms", SwitchTerms() if self.device.switch else Terms())

    @cached_property
    def held(self) -> tuple[Manifest, ...]:
        if self.manifests is not None:
            return self.manifests
        driver = () if self.device.switch else (driver_manifest(self.device),)
        return (*driver, vbios_manifest(self.device))

    @property
    def evidence(self) -> Evidence:
        return self.device.evidence if self.data is None else Evidence(self.device.platform, self.data)

    @property
    def endorsements(self) -> Endorsements:
        said = answers(self.device, self.held) if self.answers is None else self.answers
        manifests = [Endorsement(NVIDIA_RIM, manifest.data) for manifest in self.held]
        return Endorsements((*manifests, *(Endorsement(OCSP_RESPONSE, a.data) for a in said), *self.others))

    @property
    def roots(self) -> Roots:
        return Roots(certificates=tuple(wire.digest(spki(ec_key(name))) for name in self.pinned))


# --- tokens ---

ISSUER = "https://nras.attestation.nvidia.com"
SERVICE, SERVICE_CA, TOKEN_KEY, KID = (
    "Attestation Service of a test",
    "Attestation Service CA of a test",
    "token key",
    "kid-1",
)
UEID = str(int.from_bytes(hashlib.sha1(b"a leaf").digest(), "big"))
_CHAIN = {
    "x-nvidia-cert-expiration-date": "2030-01-01T00:00:00Z", "x-nvidia-cert-ocsp-status": "good",
    "x-nvidia-cert-revocation-reason": None, "x-nvidia-cert-status": "valid",
}  # fmt: skip
_TRUE = (
    "arch-check", "attestation-report-cert-chain-fwid-match", "attestation-report-nonce-match", "attestation-report-parsed",
    "attestation-report-signature-verified", "driver-rim-fetched", "driver-rim-measurements-available",
    "driver-rim-signature-verified", "driver-rim-version-match", "vbios-index-no-conflict", "vbios-rim-fetched",
    "vbios-rim-measurements-available", "vbios-rim-signature-verified", "vbios-rim-version-match",
)  # fmt: skip
CHAINS = ("attestation-report-cert-chain", "driver-rim-cert-chain", "vbios-rim-cert-chain")


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(payload: Mapping[str, Any], key: Key | None, header: Mapping[str, Any] | None = None) -> str:
    """A token; without a key, its signature is empty."""
    said = {"kid": KID, "alg": "ES384"} if header is None else header
    signed = ".".join(b64url(json.dumps(part, separators=(",", ":")).encode()) for part in (said, payload))
    return f"{signed}.{b64url(raw_signature(key, signed.encode()))}" if key else f"{signed}."


def key_path(**changes: Any) -> tuple[Certificate, ...]:
    """The path of the service's key, as key sets carry it: without the authority at its end."""
    wanted: dict[str, Any] = {
        "subject": "Attestation Service GPU GH100 of a test", "issuer": SERVICE, "key": ec_key(TOKEN_KEY),
        "not_before": AT - DAY, "not_after": AT + DAY, "ca": None,
    }  # fmt: skip
    return Wanted(**{**wanted, **changes}).make(), authority(SERVICE, SERVICE_CA, AT - 300 * DAY, AT + 1000 * DAY)


def jwk(key: Key, path: tuple[Certificate, ...], **changes: Any) -> dict[str, Any]:
    numbers = key.public_key().public_numbers()
    found: dict[str, Any] = {"kty": "EC", "crv": "P-384", "kid": KID, "x5c": [wire.b64(c.der) for c in path]}
    found |= {name: b64url(n.to_bytes(48, "big")) for name, n in (("x", numbers.x), ("y", numbers.y))}
    return {**found, **changes}


@dataclass(frozen=True)
class TokenWorld:
    """A service, its answer and a verifier between whom everything is right; each case changes one thing.

    Args:
        overall, device: claims that are otherwise; ``None`` of one leaves it out.
        digest_of: of which text the token over all holds the digest; the device's token where ``None``.
    """

    overall: Mapping[str, Any] = field(default_factory=dict)
    device: Mapping[str, Any] = field(default_factory=dict)
    overall_header: Mapping[str, Any] | None = None
    device_header: Mapping[str, Any] | None = None
    signer: Any = None
    device_signer: Any = None
    unsigned: bool = False
    digest_of: str | None = None
    name: str = "GPU-0"
    wrapped: bool = False
    data: bytes | None = None
    path: tuple[Certificate, ...] = field(default_factory=key_path)
    keys: tuple[Mapping[str, Any], ...] | None = None
    key_sets: tuple[bytes, ...] | None = None
    others: tuple[Endorsement, ...] = ()
    pinned: tuple[str, ...] = (SERVICE,)
    at: int = AT
    terms: TokenTerms = field(default_factory=TokenTerms)

    def _signed(self, claims: Mapping[str, Any], signer: Any, header: Mapping[str, Any] | None) -> str:
        said = {name: claim for name, claim in claims.items() if claim is not ...}
        return token(said, None if self.unsigned else signer or self.signer or ec_key(TOKEN_KEY), header)

    @property
    def device_token(self) -> str:
        claims: dict[str, Any] = {
            "iss": ISSUER, "eat_nonce": NONCE.hex(), "iat": AT - 60, "nbf": AT - 60, "exp": AT + 3540, "ueid": UEID,
            "hwmodel": "GH100 A01 GSP BROM", "oemid": "5703", "measres": "success", "secboot": True, "dbgstat": "disabled",
            "x-nvidia-gpu-driver-version": DRIVER, "x-nvidia-gpu-vbios-version": VBIOS,
            "x-nvidia-attestation-warning": None,
            **{f"x-nvidia-gpu-{name}": True for name in _TRUE},
            **{f"x-nvidia-gpu-{name}": dict(_CHAIN) for name in CHAINS},
        }  # fmt: skip
        return self._signed({**claims, **self.device}, self.device_signer, self.device_header)

    @property
    def answer(self) -> list[Any]:
        beside = self.device_token
        digest = hashlib.sha256((beside if self.digest_of is None else self.digest_of).encode()).hexdigest()
        claims: dict[str, Any] = {
            "sub": "NVIDIA-PLATFORM-ATTESTATION", "iss": ISSUER, "x-nvidia-ver": "3.0", "iat": AT - 60, "nbf": AT - 60,
            "exp": AT + 3540, "eat_nonce": NONCE.hex(), "x-nvidia-overall-att-result": True,
            "submods": {self.name: ["DIGEST", ["SHA-256", digest]]},
        }  # fmt: skip
        return [["JWT", self._signed({**claims, **self.overall}, None, self.overall_header)], {self.name: beside}]

    @cached_property
    def evidence(self) -> Evidence:
        if self.data is not None:
            return Evidence(NRAS, self.data)
        own = token({"iss": "NV-Attestation-SDK"}, None, {"alg": "HS256", "typ": "JWT"}) + "AAAA"
        answer = [["JWT", own], {"REMOTE_GPU_CLAIMS": self.answer}] if self.wrapped else self.answer
        return Evidence(NRAS, json.dumps(answer).encode())

    @property
    def endorsements(self) -> Endorsements:
        held = (jwk(ec_key(TOKEN_KEY), self.path),) if self.keys is None else self.keys
        sets = (json.dumps({"keys": list(held)}).encode(),) if self.key_sets is None else self.key_sets
        return Endorsements((*(Endorsement(JWK_SET, data) for data in sets), *self.others))

    @property
    def roots(self) -> Roots:
        return Roots(certificates=tuple(wire.digest(spki(ec_key(name))) for name in self.pinned))


def pem_chain(*certificates: Certificate) -> Endorsement:
    return Endorsement(PEM_CHAIN, b"".join(c.parsed.public_bytes(Encoding.PEM) for c in certificates))
