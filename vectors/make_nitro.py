"""Writes ``vectors/nitro``. Deterministic: fixed keys, fixed times, signatures as of RFC 6979.

    python vectors/make_nitro.py

One file a case. Every case holds its whole input and ``expect``: ``ok``, or the stable code of the check that fails first,
which ``fails`` names.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

import cbor2  # noqa: E402
from cryptography import x509  # noqa: E402
from cryptography.hazmat.primitives import hashes  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402

from pki_certificates import ec_key  # noqa: E402
from pki_nitro import AT, DAY, INSTANCE, PCRS, ROOT, World, authority, bundle, register  # noqa: E402
from strongroom import wire  # noqa: E402
from strongroom.attest.nitro import Terms  # noqa: E402

BAD, FORGED, CERTIFICATE = "attest.bad_evidence", "attest.forged", "attest.bad_certificate"
EXPIRED, EARLY = "attest.endorsement_expired", "attest.endorsement_not_yet_valid"
ROOT_UNKNOWN, TERMS = "attest.unknown_root", "attest.terms_not_met"
ZERO = bytes(48)
OTHER = (register("another instance").hex(),)
_WORLD = World()
_FLOAT = {"timestamp": float(AT * 1000)}
_LAST = bundle()[:3]


def _indefinite() -> bytes:
    """The same array, without a length."""
    return b"\x9f" + _WORLD.data[1:] + b"\xff"


def _longer() -> bytes:
    """The same array, its length spelled in two bytes."""
    return b"\x98\x04" + _WORLD.data[1:]


def _doubled() -> bytes:
    """A second ``nonce`` in the document, signed like the first."""
    payload = _WORLD.payload
    twice = bytes([payload[0] + 1]) + payload[1:] + cbor2.dumps("nonce") + cbor2.dumps(b"")
    return cbor2.dumps([_WORLD.protected, {}, twice, bytes(96)])


Case = Callable[..., None]


def _good(case: Case) -> None:
    case("good", "a document as the hypervisor makes it", "ok", "")
    case("good-tagged", "the same with the COSE tag in front", "ok", "", front=b"\xd2")
    case(
        "good-debug",
        "an enclave started for debugging: genuine, and for A4 to refuse",
        "ok",
        "",
        members={"pcrs": {**PCRS, 0: ZERO, 1: ZERO, 2: ZERO}},
    )
    case("good-without-optional", "members that an enclave may leave out", "ok", "", without=("public_key", "nonce"))
    pinned = Terms(pcr3=(PCRS[3].hex(),), pcr4=(PCRS[4].hex(),), modules=("i-0123456789abcdef0-enc0123456789abcdef",))
    case("good-terms", "the instance, its role and the module that the policy names", "ok", "", terms=pinned)


def _malformed(case: Case) -> None:
    case("trailing-byte", "a byte after the document", BAD, "N1", after=b"\0")
    case("second-document", "another document after the document", BAD, "N1", after=_WORLD.data)
    case("indefinite-length", "an array without a length", BAD, "N1", _indefinite())
    case("long-spelling", "a length spelled in more bytes than it needs", BAD, "N1", _longer())
    case("member-twice", "a member twice: readers differ on which counts", BAD, "N1", _doubled())
    case("es256", "the header names another algorithm", BAD, "N1", protected=bytes.fromhex("a10126"))
    case("no-algorithm", "the header names no algorithm", BAD, "N1", protected=b"")
    case("unprotected-header", "a header that nobody signed", BAD, "N1", unprotected={1: -7})
    case("other-tag", "a COSE_Mac0: a key of both sides' is no signature", BAD, "N1", front=b"\xd1")
    case("tagged-inside", "a tagged value in the document", BAD, "N1", members={"timestamp": cbor2.CBORTag(1, AT)})
    case("not-a-message", "CBOR, but no array of four", BAD, "N1", cbor2.dumps([b"", {}, b""]))
    case("not-cbor", "no CBOR at all", BAD, "N1", b"{}")
    case(
        "short-signature",
        "a signature of another length",
        BAD,
        "N1",
        cbor2.dumps([_WORLD.protected, {}, _WORLD.payload, bytes(64)]),
    )
    case(
        "not-a-map", "the payload is no document", BAD, "N1", cbor2.dumps([_WORLD.protected, {}, cbor2.dumps([]), bytes(96)])
    )
    case("module-empty", "no module", BAD, "N1", members={"module_id": ""})
    case("module-missing", "a document without its module", BAD, "N1", without=("module_id",))
    case("sha256-registers", "registers by another digest", BAD, "N1", members={"digest": "SHA256"})
    case("timestamp-zero", "no time", BAD, "N1", members={"timestamp": 0})
    case("timestamp-float", "a time that is no integer", BAD, "N1", members=_FLOAT)
    case("register-short", "a register of 32 bytes", BAD, "N1", members={"pcrs": {**PCRS, 0: bytes(32)}})
    case("register-32", "a register that there is not", BAD, "N1", members={"pcrs": {**PCRS, 32: ZERO}})
    case(
        "register-missing",
        "a document without the image's register",
        BAD,
        "N1",
        members={"pcrs": {n: v for n, v in PCRS.items() if n}},
    )
    case("no-bundle", "no issuer", BAD, "N1", members={"cabundle": []})
    case("empty-issuer", "an issuer of no bytes", BAD, "N1", members={"cabundle": [b""]})
    case("large-nonce", "a nonce over its limit", BAD, "N1", members={"nonce": bytes(513)})
    case("unknown-member", "a member that nobody reads", BAD, "N1", members={"note": ""})


def _path(case: Case) -> None:
    zone = bundle()[2].common_name
    case("another-root", "a chain to a root that is not pinned", ROOT_UNKNOWN, "N2", pinned="somebody's root")
    case(
        "root-swapped",
        "the pinned root in front of somebody else's chain",
        CERTIFICATE,
        "N2",
        certificates=(*bundle()[:1], authority("stranger", "stranger's", AT - DAY, AT + DAY)),
    )
    case(
        "root-of-the-same-name",
        "another root of the same name",
        ROOT_UNKNOWN,
        "N2",
        certificates=(
            authority(ROOT, ROOT, AT - DAY, AT + DAY, key=ec_key("forger"), signer=ec_key("forger")),
            *bundle()[1:],
        ),
    )
    case(
        "forged-issuer",
        "an issuer that the one above did not sign",
        CERTIFICATE,
        "N2",
        certificates=(*_LAST, authority(INSTANCE, zone, AT - DAY, AT + DAY, signer=ec_key("forger"))),
    )
    case("forged-leaf", "a certificate that its issuer did not sign", CERTIFICATE, "N2", leaf={"signer": ec_key("forger")})
    case(
        "not-an-authority",
        "an issuer that may not issue",
        CERTIFICATE,
        "N2",
        certificates=(*_LAST, authority(INSTANCE, zone, AT - DAY, AT + DAY, ca=False)),
    )
    case(
        "path-too-long",
        "an issuer below one that allows none",
        CERTIFICATE,
        "N2",
        certificates=(*bundle(), authority("extra", INSTANCE, AT - DAY, AT + DAY)),
        leaf={"issuer": "extra"},
    )
    case("bundle-reversed", "the issuers in the other order", ROOT_UNKNOWN, "N2", certificates=bundle()[::-1])
    case("not-a-certificate", "an issuer that is no certificate", CERTIFICATE, "N2", members={"cabundle": [b"\x30\x00"]})
    case(
        "certificate-trailing",
        "a certificate with bytes after it",
        CERTIFICATE,
        "N2",
        members={"certificate": _WORLD.certificate.der + b"\0"},
    )
    late = {"not_before": AT - 3600, "not_after": AT - 1}
    case("certificate-expired", "a document made after its certificate had expired", EXPIRED, "N2", leaf=late)
    case("certificate-early", "a document made before its certificate counts", EARLY, "N2", leaf={"not_before": AT + 60})
    case(
        "issuer-expired",
        "an issuer that had expired",
        EXPIRED,
        "N2",
        certificates=(*_LAST, authority(INSTANCE, zone, AT - 9 * DAY, AT - DAY)),
    )
    case(
        "unknown-critical", "a critical extension that nobody has looked at", CERTIFICATE, "N2", leaf={"others": _critical()}
    )


def _key_signature_and_terms(case: Case) -> None:
    case(
        "p256-key",
        "a key of another curve",
        CERTIFICATE,
        "N3",
        leaf={"key": ec_key("small", ec.SECP256R1)},
        signer=ec_key("small", ec.SECP256R1),
    )
    case(
        "authority-signs",
        "an issuer's certificate as a document's",
        CERTIFICATE,
        "N3",
        leaf={"ca": True, "usages": ("digital_signature", "key_cert_sign")},
    )
    case("key-for-agreement", "a key that is not for signing", CERTIFICATE, "N3", leaf={"usages": ("key_agreement",)})
    case("usage-not-said", "a certificate that does not say what for", CERTIFICATE, "N3", leaf={"usages": None})

    case("signed-by-another", "a genuine certificate over somebody else's document", FORGED, "N4", signer=ec_key("forger"))
    case("signed-by-sha256", "a signature over another digest", FORGED, "N4", digest=hashes.SHA256())
    case("signed-elsewhere", "a signature made for another use of COSE", FORGED, "N4", context="CounterSignature")
    moved = World(members={"user_data": bytes(64)})
    grafted = cbor2.loads(_WORLD.data)
    grafted[2] = moved.payload
    case("grafted", "a genuine signature on another document", FORGED, "N4", cbor2.dumps(grafted))

    case("another-role", "an instance of another role than the policy names", TERMS, "NT1", terms=Terms(pcr3=OTHER))
    case("no-role-accepted", "an empty list of roles accepts none", TERMS, "NT1", terms=Terms(pcr3=()))
    case("another-instance", "another instance than the policy names", TERMS, "NT2", terms=Terms(pcr4=OTHER))
    case("another-module", "another module than the policy names", TERMS, "NT3", terms=Terms(modules=("i-0-enc0",)))


def cases() -> dict[str, tuple[str, str, str, World, bytes | None]]:
    """Name to description, expected code, failing check, world, and other bytes than the world's."""
    found: dict[str, tuple[str, str, str, World, bytes | None]] = {}

    def case(name: str, description: str, expect: str, fails: str, data: bytes | None = None, **changes: Any) -> None:
        found[name] = (description, expect, fails, World(**changes), data)

    for group in (_good, _malformed, _path, _key_signature_and_terms):
        group(case)
    return found


def _critical() -> tuple[tuple[x509.ExtensionType, bool], ...]:
    return ((x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True),)


def all_cases() -> dict[str, dict[str, Any]]:
    """Name to the case as it stands in the file."""
    return {
        name: {
            "at": world.at,
            "description": description,
            "endorsements": [],
            "evidence": wire.b64(world.data if data is None else data),
            "expect": expect,
            "fails": fails,
            "platform": "nitro",
            "roots": world.roots.to_json(),
            "terms": world.terms.to_json(),
        }
        for name, (description, expect, fails, world, data) in cases().items()
    }


if __name__ == "__main__":
    folder = HERE / "nitro"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.json"):
        old.unlink()
    for name, case in all_cases().items():
        (folder / f"{name}.json").write_text(json.dumps(case, indent=1, sort_keys=True) + "\n", encoding="utf-8")
