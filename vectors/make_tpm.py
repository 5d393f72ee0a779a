"""Writes ``vectors/tpm``. Deterministic: fixed keys, fixed times, signatures as of RFC 6979.

    python vectors/make_tpm.py

One file a case. Every case holds its whole input and ``expect``: ``ok``, or the stable code of the check that does not pass
first, which ``fails`` names.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from cryptography import x509  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402

from pki_certificates import ec_key, points_at_a_list  # noqa: E402
from pki_tpm import (  # noqa: E402
    AT,
    ATTRIBUTES,
    DAY,
    EK,
    ISSUER,
    KEY,
    ROOT,
    World,
    authority,
    issuer,
    public,
    register,
    revoking,
    root,
    rsa_key,
    sign,
    sized,
)
from strongroom import wire  # noqa: E402
from strongroom.attest.endorsements import CERTIFICATE, CRL  # noqa: E402
from strongroom.attest.evidence import Endorsement  # noqa: E402
from strongroom.attest.tpm import Terms  # noqa: E402
from strongroom.attest.tpm_quote import QuoteTerms  # noqa: E402

BAD, FORGED, CERTIFICATE_BAD = "attest.bad_evidence", "attest.forged", "attest.bad_certificate"
MISSING, UNKNOWN, REVOKED = "attest.endorsement_missing", "attest.unknown_root", "attest.revoked"
EXPIRED, EARLY, TERMS = "attest.endorsement_expired", "attest.endorsement_not_yet_valid", "attest.terms_not_met"
JUNK = "attest.bad_endorsement"
Case = Callable[..., None]
_WORLD = World()
_FORGER = ec_key("forger", ec.SECP256R1)
_DECRYPT, _SIGN, _RESTRICTED = 1 << 17, 1 << 18, 1 << 16
_DIRECTORY = x509.SubjectAlternativeName([x509.DirectoryName(x509.Name([]))])
_PCRS = {n: register(n) for n in range(16)}


def _asked(**changes: Any) -> Terms:
    return Terms(quote=replace(QuoteTerms(), **changes))


def _good(case: Case) -> None:
    case("good", "a quote by a key on P-256, whose certificate leads to the pinned root", "ok", "")
    case("good-rsa", "the same by an RSA key", "ok", "", key=rsa_key())
    case("good-p384", "the same by a key on P-384, signing SHA-384", "ok", "", key=ec_key(KEY), digest=0x000C)
    case("good-sha512", "a signature over SHA-512: the registers' digest is by it too", "ok", "", digest=0x000D)
    case("good-sha384-bank", "registers of the SHA-384 bank", "ok", "", bank="sha384")
    case(
        "good-bare-key", "a key that nobody kept the TPM's description of: its certificate calls it one", "ok", "", bare=True
    )
    case("good-under-a-key", "a key made under another key", "ok", "", parent=b"\0\x0b" + bytes(32))
    case(
        "good-critical-name",
        "a certificate that names its TPM in a critical extension",
        "ok",
        "",
        leaf={"others": ((_DIRECTORY, True),)},
    )
    case(
        "good-endorsement-purpose", "a certificate with the purpose of endorsement keys", "ok", "", leaf={"purposes": (EK,)}
    )
    instance = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.1.21"), b"\x30\x00")
    case(
        "good-no-purpose",
        "a certificate without a purpose that names a machine of Google's",
        "ok",
        "",
        leaf={"purposes": (), "others": ((instance, False),)},
    )
    case(
        "good-old-list-beside",
        "an old revocation list beside the current one",
        "ok",
        "",
        lists=(revoking(until=AT - 1), revoking()),
    )
    case("good-unlisted-tolerated", "no list, and a policy that says so", "ok", "", lists=(), terms=Terms(revocation=False))
    asked = {"firmware": ("2019102300000001",), "reset_count": 7, "restart_count": 0, "pcrs": (0, 7), "banks": ("sha256",)}
    case("good-terms", "the firmware, the starts and the bank that the policy names", "ok", "", terms=_asked(**asked))
    other = Endorsement("application/octet-stream", b"another device's")
    case("good-others-beside", "documents that no TPM reads are left alone", "ok", "", documents=(other,))


def _malformed(case: Case) -> None:
    evidence = _WORLD.evidence.data
    key = {"parent": "4000000b", "public": wire.b64(public(_WORLD.key))}

    def member(name: str, description: str, **changes: Any) -> None:
        case(name, description, BAD, "M1", changes=changes)

    def described(name: str, description: str, structure: bytes) -> None:
        member(name, description, key={**key, "public": wire.b64(structure)})

    case("trailing-byte", "a byte after the evidence", BAD, "M1", data=evidence + b"\n")
    case("not-canonical", "the same JSON with a space", BAD, "M1", data=evidence.replace(b'":', b'": ', 1))
    member("another-format", "another format", format="strongroom.tpm.v2")
    member("unknown-member", "a member that nobody reads", note="")
    member("no-registers", "no registers", pcrs={})
    member("register-24", "a register that there is not", pcrs={"pcr24": bytes(32).hex()})
    member("register-short", "a register of 20 bytes", pcrs={"pcr0": bytes(20).hex()})
    member("sha1-bank", "registers of the SHA-1 bank", bank="sha1")
    member("key-of-both-kinds", "a key described twice", key={**key, "spki": ""})
    member("no-key", "no key", key={"spki": ""})
    member("parent-odd", "a parent that is neither a name nor a handle", key={**key, "parent": "40"})
    member("signature-sha1", "a signature over SHA-1", signature=wire.b64(struct.pack(">HH", 0x18, 4) + sized(b"1") * 2))
    member("signature-hmac", "a keyed digest for a signature", signature=wire.b64(struct.pack(">HH", 5, 11) + bytes(32)))
    member("signature-trailing", "a byte after the signature", signature=wire.b64(_WORLD.signed + b"\0"))
    member("quote-empty", "no quote", quote="")
    member("quote-short", "a quote that ends early", quote=wire.b64(_WORLD.message[:-1]))
    case("quote-trailing", "a byte after the quote", BAD, "M1", after=b"\0")
    case("clock-neither", "a clock that is neither safe nor unsafe", BAD, "M1", safe=2)
    case("seventeen-banks", "more banks than a TPM has", BAD, "M1", selected=(("sha256", (0,)),) * 17)
    described("key-trailing", "a byte after the key's description", public(_WORLD.key) + b"\0")
    described("key-keyed-hash", "a key of neither kind", b"\0\x08" + public(_WORLD.key)[2:])
    described("key-name-sha1", "a key that is named by SHA-1", public(_WORLD.key, name_digest=4))
    described("key-attributes-unknown", "attributes that are not known", public(_WORLD.key, attributes=ATTRIBUTES | 1 << 31))
    described("key-curve-unknown", "a curve that is not known", public(_WORLD.key).replace(b"\0\x03\0\x10", b"\0\x10\0\x10"))
    point = public(_WORLD.key)[:-1] + bytes([public(_WORLD.key)[-1] ^ 1])
    described("key-off-the-curve", "a point that is on no curve", point)
    weak = public(rsa_key()).replace(struct.pack(">H", 2048) + bytes(4), struct.pack(">HI", 2048, 3))
    described("key-exponent-3", "an RSA key of exponent 3", weak)
    described("key-rsa-short", "an RSA key of 1024 bits", public(rsa_key())[:-258] + sized(b"\xff" * 128))


def _quote(case: Case) -> None:
    case("not-made-by-a-tpm", "the key signed what looks like a quote, and is none", FORGED, "M2", magic=0x12345678)
    case("another-kind", "the TPM certifies a key, and quotes nothing", BAD, "M2", kind=0x8017)
    case("signed-by-another", "a quote that another key signed", FORGED, "M3", signer=_FORGER)
    case(
        "signature-of-another-kind",
        "an RSA signature by a key on a curve",
        FORGED,
        "M3",
        signature=sign(rsa_key(), _WORLD.message),
    )
    case(
        "grafted",
        "a genuine signature on a quote for another nonce",
        FORGED,
        "M3",
        extra_data=bytes(32),
        signature=_WORLD.signed,
    )
    case(
        "scheme-not-the-keys",
        "a signature over another digest than the key is restricted to",
        FORGED,
        "M3",
        signature=sign(_WORLD.key, _WORLD.message, digest=0x000C),
    )
    case(
        "register-left-out",
        "a register that was quoted is not presented",
        FORGED,
        "M4",
        pcrs={n: _PCRS[n] for n in range(15)},
        selected=(("sha256", tuple(range(16))),),
        quoted=_PCRS,
    )
    case(
        "register-added",
        "a register is presented that was not quoted",
        FORGED,
        "M4",
        selected=(("sha256", tuple(range(15))),),
    )
    case(
        "another-bank",
        "registers of a bank are presented as those of another",
        FORGED,
        "M4",
        selected=(("sha1", tuple(range(16))),),
    )
    case(
        "two-banks",
        "a quote of two banks: only one is presented",
        FORGED,
        "M4",
        selected=(("sha256", tuple(range(16))), ("sha1", (0,))),
    )
    case("nothing-selected", "a quote of no registers", FORGED, "M4", selected=())
    case(
        "register-changed",
        "a register that is not what was quoted",
        FORGED,
        "M5",
        pcrs={**_PCRS, 4: bytes(32)},
        quoted=_PCRS,
    )
    case(
        "registers-swapped",
        "two registers in each other's place",
        FORGED,
        "M5",
        pcrs={**_PCRS, 4: _PCRS[5], 5: _PCRS[4]},
        quoted=_PCRS,
    )
    case("digest-empty", "a quote with no digest", FORGED, "M5", pcr_digest=b"")


def _path(case: Case) -> None:
    leaf = _WORLD.certificate
    case("no-certificate", "nothing vouches for the key: anybody could have made it", MISSING, "M6", certificates=())
    case("certificate-of-another", "a certificate of another key", MISSING, "M6", leaf={"key": _FORGER})
    case(
        "certificate-junk", "an endorsement that is no certificate", JUNK, "M6", documents=(Endorsement(CERTIFICATE, b"0"),)
    )
    case("no-issuer", "the issuer's certificate did not come along", MISSING, "M7", certificates=(leaf, root()))
    case("no-root", "the root's certificate did not come along", MISSING, "M7", certificates=(leaf, issuer()))
    case(
        "self-made",
        "a key that vouches for itself",
        CERTIFICATE_BAD,
        "M7",
        leaf={"issuer": KEY, "signer": ec_key(KEY, ec.SECP256R1)},
    )
    case("another-root", "a chain to a root that is not pinned", UNKNOWN, "M7", pinned="somebody's root")
    forged = root(key=ec_key("forger"), signer=ec_key("forger"))
    case(
        "root-of-the-same-name",
        "another root of the same name",
        UNKNOWN,
        "M7",
        certificates=(leaf, issuer(signer=ec_key("forger")), forged),
    )
    case(
        "forged-leaf", "a certificate that its issuer did not sign", CERTIFICATE_BAD, "M7", leaf={"signer": ec_key("forger")}
    )
    case(
        "forged-issuer",
        "an issuer that the root did not sign",
        CERTIFICATE_BAD,
        "M7",
        certificates=(leaf, issuer(signer=ec_key("forger")), root()),
    )
    case(
        "not-an-authority",
        "an issuer that may not issue",
        CERTIFICATE_BAD,
        "M7",
        certificates=(leaf, issuer(ca=False, path_length=None), root()),
    )
    case("expired", "a certificate that has expired", EXPIRED, "M7", leaf={"not_after": AT - 1})
    case("not-yet-valid", "a certificate that does not count yet", EARLY, "M7", leaf={"not_before": AT + 1})
    case(
        "issuer-expired",
        "an issuer that has expired",
        EXPIRED,
        "M7",
        certificates=(leaf, authority(ISSUER, ROOT, AT - 9 * DAY, AT - 1), root()),
    )


def _revocation_and_key(case: Case) -> None:
    case("issuer-revoked", "the root revokes the issuer", REVOKED, "M8", lists=(revoking(issuer()),))
    own = revoking(_WORLD.certificate, by=ISSUER)
    case("key-revoked", "the issuer revokes the key's certificate", REVOKED, "M8", lists=(revoking(), own))
    case(
        "revoked-by-an-old-list",
        "an old list that names the issuer still counts",
        REVOKED,
        "M8",
        lists=(revoking(), revoking(issuer(), until=AT - 1)),
    )
    case(
        "list-old", "the only list is out of date: it hides what came after", EXPIRED, "M8", lists=(revoking(until=AT - 1),)
    )
    case("list-early", "a list that does not count yet", EARLY, "M8", lists=(revoking(made=AT + 1, until=AT + DAY),))
    case(
        "list-forged",
        "an empty list that somebody else signed",
        CERTIFICATE_BAD,
        "M8",
        lists=(revoking(signer=ec_key("forger")),),
    )
    case("list-junk", "an endorsement that is no revocation list", JUNK, "M8", documents=(Endorsement(CRL, b"0"),))

    case(
        "unrestricted", "a key that signs what anybody hands to its TPM", FORGED, "M9", attributes=ATTRIBUTES & ~_RESTRICTED
    )
    case("also-decrypts", "a key that is for more than signing", FORGED, "M9", attributes=ATTRIBUTES | _DECRYPT)
    case("not-for-signing", "a key that is not for signing", FORGED, "M9", attributes=ATTRIBUTES & ~_SIGN)
    case("not-fixed", "a key that can be taken to another TPM", FORGED, "M9", attributes=ATTRIBUTES & ~2)
    case("parent-not-fixed", "a key that can be taken under another parent", FORGED, "M9", attributes=ATTRIBUTES & ~0x10)
    case("imported", "a key that was made outside", FORGED, "M9", attributes=ATTRIBUTES & ~0x20)
    case(
        "attributes-altered",
        "attributes other than those of the key that the quote names",
        FORGED,
        "M9",
        named_for=ATTRIBUTES & ~_RESTRICTED,
    )
    key = {"parent": "40000001", "public": wire.b64(public(_WORLD.key))}
    case("another-parent", "a parent other than that which the quote names", FORGED, "M9", changes={"key": key})
    case(
        "bare-key-unnamed",
        "a bare key that its certificate does not call an attestation key",
        CERTIFICATE_BAD,
        "M9",
        bare=True,
        leaf={"purposes": (EK,)},
    )
    case(
        "bare-key-no-purpose",
        "a bare key whose certificate has no purpose",
        CERTIFICATE_BAD,
        "M9",
        bare=True,
        leaf={"purposes": ()},
    )
    case(
        "no-purpose",
        "a certificate that says nothing of TPMs: its key may be anybody's, and sign what he writes",
        CERTIFICATE_BAD,
        "M9",
        leaf={"purposes": ()},
    )
    case(
        "server-certificate",
        "a certificate for a web server",
        CERTIFICATE_BAD,
        "M9",
        leaf={"purposes": ("1.3.6.1.5.5.7.3.1",)},
    )
    case(
        "server-authority",
        "an issuer of certificates for web servers",
        CERTIFICATE_BAD,
        "M9",
        certificates=(_WORLD.certificate, issuer(purposes=("1.3.6.1.5.5.7.3.1",)), root()),
    )
    case(
        "key-for-encryption",
        "an endorsement key's certificate as an attestation key's",
        CERTIFICATE_BAD,
        "M9",
        leaf={"usages": ("key_encipherment",)},
    )
    case(
        "authority-signs",
        "an issuer's key as an attestation key",
        CERTIFICATE_BAD,
        "M9",
        leaf={"ca": True, "usages": ("digital_signature", "key_cert_sign")},
    )
    case("usage-not-said", "a certificate that does not say what for", CERTIFICATE_BAD, "M9", leaf={"usages": None})


def _terms(case: Case) -> None:
    few = {n: _PCRS[n] for n in range(8)}
    case("registers-missing", "the loader's registers are not quoted", TERMS, "MT1", pcrs=few)
    case("bank-not-accepted", "a bank that the policy does not name", TERMS, "MT2", terms=_asked(banks=("sha384",)))
    case("no-bank-accepted", "an empty list of banks accepts none", TERMS, "MT2", terms=_asked(banks=()))
    case("clock-unsafe", "a clock that may have gone back", TERMS, "MT3", safe=0)
    case(
        "firmware-not-accepted",
        "firmware that the policy does not name",
        TERMS,
        "MT4",
        terms=_asked(firmware=("0000000000000000",)),
    )
    case("no-firmware-accepted", "an empty list of firmware accepts none", TERMS, "MT4", terms=_asked(firmware=()))
    case("restarted", "the machine was started since", TERMS, "MT5", terms=_asked(reset_count=6))
    case("woken", "the machine slept since", TERMS, "MT6", restarts=1, terms=_asked(restart_count=0))
    case("not-listed", "a certificate names a list that nobody held it against", TERMS, "MT7", lists=())
    case(
        "key-not-listed",
        "the key's certificate names a list that nobody held it against",
        TERMS,
        "MT7",
        leaf={"others": (points_at_a_list(),)},
    )


def cases() -> dict[str, tuple[str, str, str, World]]:
    """Name to description, expected code, the check that does not pass, and world."""
    found: dict[str, tuple[str, str, str, World]] = {}

    def case(name: str, description: str, expect: str, fails: str, **changes: Any) -> None:
        assert name not in found, name
        found[name] = (description, expect, fails, World(**changes))

    for group in (_good, _malformed, _quote, _path, _revocation_and_key, _terms):
        group(case)
    return found


def all_cases() -> dict[str, dict[str, Any]]:
    """Name to the case as it stands in the file."""
    return {
        name: {
            "at": world.at,
            "description": description,
            "endorsements": world.endorsements.to_json(),
            "evidence": wire.b64(world.evidence.data),
            "expect": expect,
            "fails": fails,
            "platform": "tpm",
            "roots": world.roots.to_json(),
            "terms": world.terms.to_json(),
        }
        for name, (description, expect, fails, world) in cases().items()
    }


if __name__ == "__main__":
    folder = HERE / "tpm"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.json"):
        old.unlink()
    for name, case in all_cases().items():
        (folder / f"{name}.json").write_text(json.dumps(case, indent=1, sort_keys=True) + "\n", encoding="utf-8")
