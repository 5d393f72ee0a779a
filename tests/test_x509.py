"""Certificates, paths and revocation lists: every rule of a path has an attack that it stops."""

from __future__ import annotations

import contextlib
import re
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

import pki_amd
from evidence_case import accepted_flips
from pki_certificates import Wanted, authority, ec_key, named, revocation_list, when
from strongroom import wire
from strongroom.attest import der as der_module
from strongroom.attest import x509 as module
from strongroom.attest.x509 import (
    MAX_CERTIFICATE_BYTES,
    MAX_CRL_BYTES,
    MAX_PATH,
    MAX_SHOWN_NAME,
    Certificate,
    RevocationList,
    certificate,
    from_pem,
    require_path,
    require_valid,
)
from strongroom.errors import (
    BadCertificate,
    EndorsementExpired,
    EndorsementNotYetValid,
    Revoked,
    UnknownRoot,
)

AT = 1_790_000_000
BEGIN, END = AT - 100, AT + 100
ROOT = authority("root", "root", BEGIN, END + 100, path_length=1)
MIDDLE = authority("middle", "root", BEGIN, END, path_length=0)
BASIC = x509.ObjectIdentifier("1.2.3.4.5")


def leaf(**changes: Any) -> Certificate:
    wanted: dict[str, Any] = {"subject": "leaf", "issuer": "middle", "not_before": BEGIN, "not_after": END}
    return Wanted(**{**wanted, **changes}).make()


LEAF = leaf()
ROOTS = [ROOT.key_digest]


def refused(*path: Certificate, why: str, error: type[Exception] = BadCertificate, at: int = AT, **more: Any) -> None:
    with pytest.raises(error, match=why):
        require_path(path, roots=ROOTS, at=at, **more)


# --- paths ----------------------------------------------------------------------------------------------------------


def test_a_path_is_valid_until_its_first_end() -> None:
    assert require_path((LEAF, MIDDLE, ROOT), roots=ROOTS, at=AT) == END
    assert require_path((MIDDLE, ROOT), roots=ROOTS, at=AT) == END


def test_first_and_last_second_are_valid() -> None:
    for at in (BEGIN, END):
        require_path((LEAF, MIDDLE, ROOT), roots=ROOTS, at=at)
    refused(LEAF, MIDDLE, ROOT, why="valid from", error=EndorsementNotYetValid, at=BEGIN - 1)
    refused(LEAF, MIDDLE, ROOT, why="valid until", error=EndorsementExpired, at=END + 1)
    with pytest.raises(EndorsementExpired):
        require_valid(LEAF, END + 1)


def test_a_root_that_is_not_pinned() -> None:
    stranger = authority("root", "root", BEGIN, END, key=ec_key("stranger"), signer=ec_key("stranger"))
    refused(LEAF, MIDDLE, stranger, why="not pinned", error=UnknownRoot)
    with pytest.raises(UnknownRoot):
        require_path((LEAF, MIDDLE, ROOT), roots=[], at=AT)


def test_a_root_alone_and_too_long_a_path_are_none() -> None:
    refused(ROOT, why="path of 1")
    refused(why="path of 0")
    refused(*[LEAF] * MAX_PATH, ROOT, why=f"path of {MAX_PATH + 1}")


def test_certificates_out_of_order() -> None:
    refused(MIDDLE, LEAF, ROOT, why="no certificate authority|names another issuer|may not issue")


def test_a_leaf_that_issues() -> None:
    """Basic constraints: or else everybody with a certificate is an authority."""
    below = leaf(subject="below", issuer="leaf")
    refused(below, LEAF, MIDDLE, ROOT, why="may not issue")
    bare = Wanted(subject="bare", issuer="root", not_before=BEGIN, not_after=END, ca=None).make()
    refused(leaf(issuer="bare"), bare, ROOT, why="no certificate authority")


def test_a_path_longer_than_an_authority_allows() -> None:
    lower = authority("lower", "middle", BEGIN, END)
    refused(leaf(issuer="lower"), lower, MIDDLE, ROOT, why="may not issue")


def test_an_authority_whose_key_may_not_certify() -> None:
    other = authority("other", "root", BEGIN, END, usages=("crl_sign",))
    refused(leaf(issuer="other"), other, ROOT, why="may not sign certificates")
    silent = authority("silent", "root", BEGIN, END, usages=None)  # says nothing of its key's use
    require_path((leaf(issuer="silent"), silent, ROOT), roots=ROOTS, at=AT)


def test_a_critical_extension_that_nobody_reads() -> None:
    critical = leaf(others=((x509.UnrecognizedExtension(BASIC, b"\x05\x00"), True),))
    refused(critical, MIDDLE, ROOT, why="critical extension that is not known here: 1.2.3.4.5")
    require_path((critical, MIDDLE, ROOT), roots=ROOTS, at=AT, critical=["1.2.3.4.5"])
    harmless = leaf(others=((x509.UnrecognizedExtension(BASIC, b"\x05\x00"), False),))
    require_path((harmless, MIDDLE, ROOT), roots=ROOTS, at=AT)


def test_a_certificate_that_its_issuer_did_not_sign() -> None:
    refused(leaf(signer=ec_key("stranger")), MIDDLE, ROOT, why="not signed by")


def test_what_is_remembered_of_one_issuer_is_not_believed_of_another() -> None:
    """A good signature is remembered by the bytes of both: an authority of the same name with another key gains nothing."""
    LEAF.require_issued_by(MIDDLE)
    twin = authority("middle", "root", BEGIN, END, key=ec_key("stranger"))
    for _ in range(2):  # a refusal is not remembered either
        refused(LEAF, twin, ROOT, why="not signed by")
    LEAF.require_issued_by(MIDDLE)
    signed = bytearray(LEAF.der)
    signed[-1] ^= 1
    refused(Certificate(bytes(signed)), MIDDLE, ROOT, why="not signed by")


def test_a_remembered_signature_does_not_make_a_certificate_current() -> None:
    require_path((LEAF, MIDDLE, ROOT), roots=ROOTS, at=AT)
    refused(LEAF, MIDDLE, ROOT, why="was valid until", error=EndorsementExpired, at=END + 1)
    refused(LEAF, MIDDLE, ROOT, why="is valid from", error=EndorsementNotYetValid, at=BEGIN - 1)


def test_a_certificate_that_names_another_issuer() -> None:
    refused(leaf(issuer="root", signer=ec_key("middle")), MIDDLE, ROOT, why="names another issuer")


def test_a_root_that_did_not_sign_itself() -> None:
    """Its name and dates are then anybody's; a caller for whom the pinned key is the anchor says so."""
    cross = authority("root", "elsewhere", BEGIN, END)
    refused(LEAF, MIDDLE, cross, why="names another issuer")
    unsigned = authority("root", "root", BEGIN, END, signer=ec_key("stranger"))
    refused(LEAF, MIDDLE, unsigned, why="not signed by")
    require_path((LEAF, MIDDLE, cross), roots=ROOTS, at=AT, self_signed=False)
    bad = leaf(signer=ec_key("stranger"))
    with pytest.raises(BadCertificate):
        require_path((bad, MIDDLE, cross), roots=ROOTS, at=AT, self_signed=False)
    with pytest.raises(BadCertificate):  # the anchor's place counts, and not which object stands there
        require_path((cross, cross), roots=ROOTS, at=AT, self_signed=False)


def test_a_weak_digest() -> None:
    refused(leaf(digest=hashes.SHA224()), MIDDLE, ROOT, why="weak or unknown digest")


# --- keys and signatures --------------------------------------------------------------------------------------------


def test_rsa_authorities_by_both_paddings() -> None:
    key = pki_amd.rsa_key(pki_amd.ARK)
    top = authority("rsa", "rsa", BEGIN, END, key=key, signer=key)  # PKCS #1 v1.5
    below = leaf(issuer="rsa", signer=key)
    require_path((below, top), roots=[top.key_digest], at=AT)
    ark, ask = Certificate(pki_amd.ark("genoa")), Certificate(pki_amd.issuer("genoa"))  # PSS
    require_path((ask, ark), roots=[ark.key_digest], at=pki_amd.AT)
    stranger = Certificate(pki_amd.issuer("genoa", key_by=pki_amd.STRANGER))
    with pytest.raises(BadCertificate, match="not signed by"):
        stranger.require_issued_by(ark)


def test_a_signature_by_another_algorithm_than_the_issuers_key() -> None:
    """An ECDSA signature under the name of an RSA authority, and the other way round."""
    key = pki_amd.rsa_key(pki_amd.ARK)
    top = authority("top", "top", BEGIN, END, key=key, signer=key)
    with pytest.raises(BadCertificate, match="unknown algorithm"):
        leaf(issuer="top", signer=ec_key("top")).require_issued_by(top)
    with pytest.raises(BadCertificate, match="not signed by"):
        leaf(issuer="middle", signer=key).require_issued_by(MIDDLE)


def test_a_key_of_another_kind() -> None:
    other = leaf(key=ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)))
    with pytest.raises(BadCertificate, match="neither on an elliptic curve nor RSA"):
        _ = other.public_key


@pytest.mark.parametrize(("bits", "good"), [(1024, False), (2048, True), (8192, True), (8200, False)])
def test_rsa_keys_that_are_too_weak_or_too_slow(bits: int, good: bool) -> None:
    numbers = rsa.RSAPublicNumbers(65537, (1 << bits - 1) | 1)
    made = leaf(key=numbers.public_key())
    if good:
        assert made.public_key.key_size == bits
    else:
        with pytest.raises(BadCertificate, match=f"{bits} bits"):
            _ = made.public_key


def test_a_key_that_cannot_be_read() -> None:
    """A point that is not on the curve."""
    der = LEAF.der
    point = LEAF.public_key.public_bytes(Encoding.X962, module.PublicFormat.UncompressedPoint)  # type: ignore[arg-type]
    broken = Certificate(der.replace(point, point[:-1] + bytes((point[-1] ^ 1,))))
    with pytest.raises(BadCertificate, match="key cannot be read"):
        _ = broken.public_key


# --- one certificate ------------------------------------------------------------------------------------------------


def test_what_a_certificate_says() -> None:
    assert LEAF.common_name == "leaf"
    assert (LEAF.subject, LEAF.issuer) == ("CN=leaf", "CN=middle")
    assert (LEAF.not_before, LEAF.not_after) == (BEGIN, END)
    assert LEAF.serial == LEAF.parsed.serial_number
    assert LEAF.tbs == LEAF.parsed.tbs_certificate_bytes
    assert LEAF.subject_der == named("leaf").public_bytes()
    assert LEAF.issuer_der == named("middle").public_bytes()
    assert LEAF.digest == wire.digest(LEAF.der)
    assert Certificate(LEAF.der) == LEAF
    assert LEAF != ROOT
    nameless = leaf(subject="", key=ec_key("leaf"))
    assert nameless.common_name == ""


def test_extensions_by_name() -> None:
    made = leaf(others=((x509.UnrecognizedExtension(BASIC, b"\x05\x00"), False),))
    assert made.extension("1.2.3.4.5") == b"\x05\x00"
    assert made.extension("1.2.3.4.6") is None
    assert made.extension("2.5.29.19") == b"\x30\x00"  # one that the library reads


def test_an_extension_twice() -> None:
    """The same name twice, of which a reader may see either."""
    extensions = (
        (x509.UnrecognizedExtension(BASIC, b"\x05\x00"), False),
        (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.6"), b"\x05\x00"), False),
    )
    made = leaf(others=extensions)
    twice = Certificate(made.der.replace(b"\x2a\x03\x04\x06", b"\x2a\x03\x04\x05"))
    with pytest.raises(BadCertificate, match="extensions"):
        twice.extensions()


def test_a_name_cannot_break_a_message_or_fill_it() -> None:
    odd = leaf(subject="two\nlines\x1b[2J", key=ec_key("leaf"))
    assert odd.subject.isprintable()
    long = Wanted(subject="x", issuer="middle", not_before=BEGIN, not_after=END, others=(), key=ec_key("leaf")).make()
    many = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATIONAL_UNIT_NAME, "u" * 60)] * 9)
    object.__setattr__(long, "subject_name", many)
    assert len(long.subject) == MAX_SHOWN_NAME + 1


def test_a_name_with_parts_of_a_wrong_length_warns_nobody() -> None:
    der = Certificate(pki_amd.ark("genoa")).der
    country = der.replace(b"\x55\x04\x0a", b"\x55\x04\x06")  # an organisation, called a country of two letters
    assert "C=" in Certificate(country).subject


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x30",
        b"\x30\x00",
        b"\x30\x80",
        b"\x30\x85\x00\x00\x00\x00\x01\x00",
        b"\x30\x84\xff\xff\xff\xff",
        b"\x31\x02\x05\x00",
        b"\x30\x02\x05\x00",
        b"\x30\x02\x30\x00",
        b"\x30\x04\x30\x02\x05\x00",
        b"\x30\x06\x30\x02\x02\x00\x30\x00",
        b"\x30\x09\x30\x02\x05\x00\x30\x00\x03\x01\x00",
        b"\x30\x0b\x30\x04\xa0\x02\x05\x00\x30\x00\x03\x01\x00",
        b"\x30\x0b\x30\x04\xa0\x00\x02\x00\x30\x00\x03\x01\x00",
        bytes(MAX_CERTIFICATE_BYTES + 1),
    ],
)
def test_what_is_no_certificate(data: bytes) -> None:
    with pytest.raises(BadCertificate):
        Certificate(data)


def test_bytes_around_a_certificate() -> None:
    for data in (LEAF.der + b"\0", b"\0" + LEAF.der, LEAF.der[:-1]):
        with pytest.raises(BadCertificate):
            Certificate(data)


def test_an_unknown_version() -> None:
    with pytest.raises(BadCertificate):
        Certificate(LEAF.der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07"))


def test_two_algorithms_for_one_signature() -> None:
    """What is named outside the signature is anybody's."""
    algorithm = LEAF.der.index(b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03", len(LEAF.tbs))
    other = LEAF.der[:algorithm] + LEAF.der[algorithm:].replace(b"\x3d\x04\x03\x03", b"\x3d\x04\x03\x02")
    with pytest.raises(BadCertificate, match="two algorithms"):
        Certificate(other)


def test_names_or_dates_that_cannot_be_read() -> None:
    for old, new in ((b"\x17\x0d26", b"\x17\x0d2x"), (b"\x0c\x04leaf", b"\x0c\x04\xff\xff\xff\xff")):
        assert old in LEAF.der
        with pytest.raises(BadCertificate):
            Certificate(LEAF.der.replace(old, new))


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_no_certificate_and_no_list(data: bytes) -> None:
    for read in (Certificate, RevocationList, from_pem, RevocationList.from_pem):
        with pytest.raises(BadCertificate):
            read(data)


def vouches(data: bytes) -> bool:
    try:
        require_path((Certificate(data), MIDDLE, ROOT), roots=ROOTS, at=AT)
    except (BadCertificate, EndorsementExpired, EndorsementNotYetValid):
        return False
    return True


def test_no_bit_of_a_certificate_can_be_flipped() -> None:
    assert vouches(LEAF.der)
    assert accepted_flips(LEAF.der, vouches) == []


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_damaged_certificates_raise_only_our_errors(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(LEAF.der)))
    damaged = LEAF.der[:at] + data.draw(st.binary(max_size=6)) + LEAF.der[at + data.draw(st.integers(0, 6)) :]
    assert vouches(damaged) == (damaged == LEAF.der)


# --- serial number 0 ------------------------------------------------------------------------------------------------

VCEK = pki_amd.leaf("genoa")


def test_serial_number_0_is_read_and_its_signature_holds() -> None:
    found = Certificate(VCEK)
    assert found.serial == 0
    assert found.tbs in VCEK
    found.require_issued_by(Certificate(pki_amd.issuer("genoa")))


def test_serial_number_0_goes_on_working_when_the_library_refuses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    load = x509.load_der_x509_certificate

    def strict(data: bytes) -> x509.Certificate:
        number = der_module.outline(data).serial
        if not any(data[number]):
            raise ValueError("invalid serial number")
        return load(data)

    monkeypatch.setattr(module.x509, "load_der_x509_certificate", strict)
    found = Certificate(VCEK)
    assert found.serial == 0
    found.require_issued_by(Certificate(pki_amd.issuer("genoa")))
    with pytest.raises(BadCertificate):  # a second zero byte is another spelling, and no AMD certificate's
        Certificate(VCEK.replace(b"\xa0\x03\x02\x01\x02\x02\x01\x00", b"\xa0\x03\x02\x01\x02\x02\x02\x00\x00"))


def test_serial_number_0_and_1_are_two_certificates() -> None:
    """What the library reads as 1 must not be taken for it: a list that names 1 does not revoke 0."""
    zero, one = Certificate(VCEK), Certificate(pki_amd.leaf("genoa", serial=1))
    names_one, names_zero = RevocationList(pki_amd.crl("genoa", (1,))), RevocationList(pki_amd.crl("genoa", (0,)))
    names_one.require_not_revoked(zero)
    names_zero.require_not_revoked(one)
    for found, crl in ((one, names_one), (zero, names_zero)):
        with pytest.raises(Revoked):
            crl.require_not_revoked(found)


def test_a_certificate_with_serial_number_1_is_not_one_with_0_that_was_signed() -> None:
    """The copy that the library reads is not what was signed."""
    copy = Certificate(VCEK.replace(b"\xa0\x03\x02\x01\x02\x02\x01\x00", b"\xa0\x03\x02\x01\x02\x02\x01\x01"))
    with pytest.raises(BadCertificate, match="not signed by"):
        copy.require_issued_by(Certificate(pki_amd.issuer("genoa")))


def test_a_negative_serial_number_is_no_other_certificates() -> None:
    der = pki_amd.leaf("genoa", serial=1).replace(b"\xa0\x03\x02\x01\x02\x02\x01\x01", b"\xa0\x03\x02\x01\x02\x02\x01\xff")
    with contextlib.suppress(BadCertificate):  # the library may refuse it
        found = Certificate(der)
        assert found.serial == -1
        with contextlib.suppress(BadCertificate):
            RevocationList(pki_amd.crl("genoa", (255,))).require_not_revoked(found)


# --- what is remembered ---------------------------------------------------------------------------------------------


def test_a_certificate_is_remembered_and_a_bad_one_is_not() -> None:
    certificate.cache_clear()
    assert certificate(LEAF.der) is certificate(bytes(bytearray(LEAF.der)))
    for _ in range(2):
        with pytest.raises(BadCertificate):
            certificate(b"junk")
    assert certificate.cache_info().currsize == 1
    for n in range(200):
        certificate(leaf(subject=f"s{n}", key=ec_key("leaf")).der)
    assert certificate.cache_info().currsize == module.MAX_REMEMBERED


# --- PEM ------------------------------------------------------------------------------------------------------------


def pem(*ders: bytes) -> bytes:
    return b"".join(f"-----BEGIN CERTIFICATE-----\n{wire.b64(d)}\n-----END CERTIFICATE-----\n".encode() for d in ders)


def test_a_pem_text() -> None:
    assert from_pem(pem(LEAF.der, MIDDLE.der)) == (LEAF, MIDDLE)
    wrapped = re.sub(rb"(.{64})", rb"\1\r\n", pem(LEAF.der).split(b"\n")[1])
    text = b"subject=leaf\n-----BEGIN CERTIFICATE-----\r\n" + wrapped + b"\r\n-----END CERTIFICATE-----\r\n\0\0"
    assert from_pem(text) == (LEAF,)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "holds 0"),
        (b"nothing\0", "holds 0"),
        (pem(LEAF.der) * 3, "holds 3"),
        (pem(LEAF.der)[:-30], "ends early"),
        (pem(LEAF.der).replace(b"-----END", b"!-----END"), "not a PEM"),
        (pem(b"junk"), "DER|early|certificate"),
        (b"\xff" + pem(LEAF.der), "not a PEM"),
        (b"x" * (2 * 2 * MAX_CERTIFICATE_BYTES + 1), "too long"),
    ],
)
def test_what_is_no_pem_text(data: bytes, why: str) -> None:
    with pytest.raises(BadCertificate, match=why):
        from_pem(data, most=2)


# --- revocation lists -----------------------------------------------------------------------------------------------

LIST = RevocationList(revocation_list("root", (MIDDLE.serial, 7), made=BEGIN, until=END))


def made_list(*extensions: x509.ExtensionType, critical: bool = True) -> bytes:
    builder = (
        x509.CertificateRevocationListBuilder().issuer_name(named("root")).last_update(when(BEGIN)).next_update(when(END))
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(ec_key("root"), hashes.SHA384(), ecdsa_deterministic=True).public_bytes(Encoding.DER)


def test_a_list_that_counts_names_what_is_revoked() -> None:
    assert LIST.require_current(ROOT, AT) == END
    assert (LIST.this_update, LIST.next_update) == (BEGIN, END)
    assert LIST.digest == wire.digest(LIST.der)
    assert LIST.issued_by(ROOT)
    assert not LIST.issued_by(MIDDLE)
    with pytest.raises(Revoked, match="is revoked"):
        LIST.require_not_revoked(MIDDLE)
    LIST.require_not_revoked(LEAF)


def test_a_list_at_its_first_and_last_second() -> None:
    for at in (BEGIN, END):
        LIST.require_current(ROOT, at)
    with pytest.raises(EndorsementNotYetValid):
        LIST.require_current(ROOT, BEGIN - 1)
    with pytest.raises(EndorsementExpired):
        LIST.require_current(ROOT, END + 1)


def test_a_list_by_another() -> None:
    with pytest.raises(BadCertificate, match="names another issuer"):
        LIST.require_current(MIDDLE, AT)
    forged = RevocationList(revocation_list("root", (), made=BEGIN, until=END, signer=ec_key("stranger")))
    with pytest.raises(BadCertificate, match="not signed by"):
        forged.require_current(ROOT, AT)


def test_a_list_by_a_key_that_may_not_sign_lists() -> None:
    other = authority("root", "root", BEGIN, END, usages=("key_cert_sign",))
    with pytest.raises(BadCertificate, match="may not sign revocation lists"):
        LIST.require_current(other, AT)
    LIST.require_current(authority("root", "root", BEGIN, END, usages=None), AT)


def test_a_list_that_counts_only_with_another_or_for_some() -> None:
    for extension in (
        x509.DeltaCRLIndicator(1),
        x509.IssuingDistributionPoint(None, None, True, False, None, False, False),
    ):
        with pytest.raises(BadCertificate, match="critical extension"):
            RevocationList(made_list(extension)).require_current(ROOT, AT)
    RevocationList(made_list(x509.CRLNumber(1), critical=False)).require_current(ROOT, AT)


def test_a_list_with_an_extension_twice() -> None:
    numbers = x509.CRLNumber(1), x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.99"), b"\x02\x01\x01")
    der = made_list(*numbers, critical=False).replace(b"\x55\x1d\x63", b"\x55\x1d\x14")
    twice = RevocationList(der)
    unsigned = authority("root", "root", BEGIN, END)
    with pytest.raises(BadCertificate):
        twice.require_current(unsigned, AT)


def test_a_signed_list_with_an_extension_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = x509.CRLNumber(1), x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.99"), b"\x02\x01\x01")
    der = made_list(*numbers, critical=False).replace(b"\x55\x1d\x63", b"\x55\x1d\x14")
    monkeypatch.setattr(module, "require_signed", lambda *_: None)
    with pytest.raises(BadCertificate, match="extensions cannot be read"):
        RevocationList(der).require_current(ROOT, AT)


def test_a_list_that_does_not_say_until_when_it_counts() -> None:
    der, size = LIST.der, 15  # a time: its header and 13 characters
    following = b"\x17\x0d" + when(END).strftime("%y%m%d%H%M%SZ").encode()
    assert der.count(following) == 1
    assert (der[:2], der[3]) == (b"\x30\x81", 0x30)
    shorter = der[:2] + bytes((der[2] - size, 0x30, der[4] - size)) + der[5:].replace(following, b"")
    with pytest.raises(BadCertificate, match="until when"):
        RevocationList(shorter)


def test_entries_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def get_revoked_certificate_by_serial_number(self, _number: int) -> None:
            raise ValueError("invalid entry")

    broken = RevocationList(LIST.der)
    object.__setattr__(broken, "parsed", Broken())
    with pytest.raises(BadCertificate, match="entries"):
        broken.require_not_revoked(LEAF)


def crowded(parts: int) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATIONAL_UNIT_NAME, "u" * 60)] * parts)


def test_a_name_of_thousands_of_parts_is_not_read() -> None:
    """Reading one that fills a list took half a second and 50 MB."""
    builder = x509.CertificateRevocationListBuilder().last_update(when(BEGIN)).next_update(when(END))
    for parts, good in ((57, True), (60, False)):
        made = builder.issuer_name(crowded(parts)).sign(ec_key("root"), hashes.SHA384(), ecdsa_deterministic=True)
        data = made.public_bytes(Encoding.DER)
        if good:
            assert RevocationList(data).issuer_name == crowded(parts)
            continue
        with pytest.raises(BadCertificate, match="name"):
            RevocationList(data)


def test_a_certificate_with_too_long_a_name_is_not_read() -> None:
    builder = x509.CertificateBuilder().serial_number(1).public_key(ec_key("leaf").public_key())
    builder = builder.not_valid_before(when(BEGIN)).not_valid_after(when(END))
    for subject, issuer in ((crowded(60), crowded(1)), (crowded(1), crowded(60))):
        made = builder.subject_name(subject).issuer_name(issuer).sign(ec_key("root"), hashes.SHA384())
        with pytest.raises(BadCertificate, match="name"):
            Certificate(made.public_bytes(Encoding.DER))


@pytest.mark.parametrize("data", [b"", b"\x30\x00", LIST.der + b"\0", LIST.der[:-1], LEAF.der, bytes(MAX_CRL_BYTES + 1)])
def test_what_is_no_list(data: bytes) -> None:
    with pytest.raises(BadCertificate):
        RevocationList(data)


def test_a_list_in_pem() -> None:
    text = LIST.parsed.public_bytes(Encoding.PEM)
    assert RevocationList.from_pem(text) == LIST
    for junk in (b"", b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"):
        with pytest.raises(BadCertificate):
            RevocationList.from_pem(junk)


def counts(data: bytes) -> bool:
    try:
        RevocationList(data).require_current(ROOT, AT)
    except (BadCertificate, EndorsementExpired, EndorsementNotYetValid):
        return False
    return True


def test_no_bit_of_a_list_can_be_flipped() -> None:
    assert counts(LIST.der)
    assert accepted_flips(LIST.der, counts) == []


def test_a_list_of_the_first_version() -> None:
    """Version 1 has no version in it (RFC 5280 section 5.1.2.1)."""
    der_module.require_list_alike(b"\x30\x0a\x30\x02\x30\x00\x30\x00\x03\x02\x00\x01")
    with pytest.raises(BadCertificate, match="two algorithms"):
        der_module.require_list_alike(b"\x30\x0c\x30\x04\x30\x02\x05\x00\x30\x00\x03\x02\x00\x01")
