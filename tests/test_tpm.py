"""TPM 2.0: every check has its attack, on quotes of our own TPM, of one in software if it is here, and of others'."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from evidence_case import accepted_flips, flips, names_in_page, run, walk
from pki_certificates import ec_key
from pki_tpm import (
    AT,
    ATTRIBUTES,
    DAY,
    KEY,
    REPORT_DATA,
    Quoting,
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
from real import read, real
from strongroom import wire
from strongroom.attest import endorsements as documents
from strongroom.attest import tpm, tpm_foreign
from strongroom.attest.endorsements import CERTIFICATE
from strongroom.attest.evidence import Endorsements, Evidence, Roots
from strongroom.attest.tpm import Claims, Terms, TpmVerified, parse
from strongroom.attest.tpm2 import Attest, Public, Signature
from strongroom.attest.tpm_quote import Quote, QuoteTerms
from strongroom.attest.vector import AFFIRMED, NO_CLAIM, UNACCEPTABLE
from strongroom.attest.x509 import Certificate
from strongroom.errors import BadCertificate, BadEvidence, BadField, EvidenceForged, StrongroomError
from strongroom.transcript import Status, Transcript

HOME = Path(__file__).parents[1]
PAGE = HOME / "spec" / "evidence-tpm.md"
FILES = sorted((HOME / "vectors" / "tpm").glob("*.json"))
GOOD = World()
DATA = GOOD.evidence.data
# Google's authority of attestation keys of 2018, and of those since 2022; Azure's of 2023.
GOOGLE_2018 = Roots(certificates=("sha256:f23057f4f97d1d90e4cae0ce91d5a0fc99069f0a1bc147021dca33b1e9c4d0d9",))
GOOGLE = Roots(certificates=("sha256:56a613f57126a385dd6949294e93b0b566f96ab0573be0c2368e6f5ca779831f",))
AZURE = Roots(certificates=("sha256:5cbc52672ae101263c2976736044a964c1182ce9412c39937183baddcccb8cdf",))
TOOLS = ("swtpm", "tpm2_createek", "tpm2_createak", "tpm2_readpublic", "tpm2_pcrextend", "tpm2_quote", "tpm2_flushcontext")
software = pytest.mark.skipif(
    not all(map(shutil.which, TOOLS)), reason="left out: no software TPM here (apt-get install swtpm tpm2-tools)"
)
# The older of Google's authorities has names of more characters than X.520 allows.
long_names = pytest.mark.filterwarnings("ignore:Attribute's length")


def _maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_tpm", HOME / "vectors" / "make_tpm.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def of(world: World):
    return walk(tpm, world.evidence, world.endorsements, world.roots, world.at, world.terms)


# --- vectors and page -------------------------------------------------------------------------------------------------


def test_the_vectors_are_those_that_their_script_writes():
    assert FILES
    assert {path.stem: json.loads(path.read_bytes()) for path in FILES} == _maker().all_cases()


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_vector(path):
    case = json.loads(path.read_bytes())
    outcome = run(tpm, case)
    assert (outcome.code, outcome.number) == (case["expect"], case["fails"])
    if case["fails"] != "M1":
        assert parse(wire.unb64(case["evidence"])).encode() == wire.unb64(case["evidence"])


def test_every_numbered_check_is_failed_by_some_vector():
    failed = {json.loads(path.read_bytes())["fails"] for path in FILES} - {""}
    assert failed == {number for number, _ in (*tpm.STEPS, *tpm.TERMS_STEPS)}


def test_the_page_numbers_the_checks_as_the_code_does():
    assert names_in_page(PAGE, "M") == dict(tpm.STEPS)
    assert names_in_page(PAGE, "MT") == dict(tpm.TERMS_STEPS)


def test_the_page_shows_evidence_and_terms_as_they_are_written():
    blocks = [block.split("```")[0] for block in PAGE.read_text(encoding="utf-8").split("```json\n")[1:]]
    evidence, terms = blocks
    few = World(pcrs={n: register(n) for n in (0, 7)})
    assert json.loads(evidence) == json.loads(few.evidence.data)
    assert Terms.from_json(json.loads(terms)) == Terms()
    assert json.loads(terms) == Terms().to_json()


# --- what a good quote says -------------------------------------------------------------------------------------------


def test_a_good_quote_says_what_was_booted_and_for_whom():
    outcome = of(GOOD)
    verified = outcome.verified
    assert outcome.code == "ok"
    assert verified.measurement.registers == {f"pcr{n}": f"sha256:{register(n).hex()}" for n in range(16)}
    assert verified.report_data == hashlib.sha256(REPORT_DATA).digest()
    assert verified.binds(REPORT_DATA)
    assert not verified.binds(bytes(64))
    assert not verified.binds(verified.report_data)
    assert verified.produced_at is None
    assert verified.debug is False
    assert verified.valid_until == AT + DAY  # the revocation list's
    assert len(verified.collateral) == 4
    assert verified.machine.startswith("ak:")
    assert len(verified.machine) == 3 + 64
    assert outcome.vector.instance_identity == outcome.vector.hardware == AFFIRMED
    assert outcome.vector.runtime_opaque == NO_CLAIM  # a TPM says nothing of who reads the memory
    assert "not protected" in tpm.LABEL


def test_what_fails_the_terms_is_contraindicated():
    unlisted, unsafe = of(replace(GOOD, lists=())).vector, of(replace(GOOD, safe=0)).vector
    assert (unlisted.instance_identity, unlisted.hardware) == (UNACCEPTABLE, AFFIRMED)
    assert (unsafe.instance_identity, unsafe.hardware) == (AFFIRMED, UNACCEPTABLE)


def test_a_key_without_a_certificate_is_not_established_and_no_pass():
    outcome = of(replace(GOOD, certificates=()))
    assert outcome.check("M6").status is Status.NOT_ESTABLISHED
    assert outcome.verified is None


def test_of_two_certificates_of_a_key_the_one_that_counts_is_taken():
    old = replace(GOOD, leaf={"not_after": AT - 1}).certificate
    for order in ((old, GOOD.certificate), (GOOD.certificate, old)):
        assert of(replace(GOOD, certificates=(*order, issuer(), root()))).code == "ok"


def test_of_two_issuers_of_a_name_the_one_that_signed_is_taken():
    other = issuer(key=ec_key("other"))
    for order in ((other, issuer()), (issuer(), other)):
        assert of(replace(GOOD, certificates=(GOOD.certificate, *order, root()))).code == "ok"


def test_certificates_of_other_kinds_of_keys_are_left_alone():
    other = authority("another device", "another device", AT - DAY, AT + DAY)
    strange = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))
    stranger = authority("a third", "a third", AT - DAY, AT + DAY, key=strange, signer=ec_key("a third"))
    chain = (other, stranger, GOOD.certificate, issuer(), root())
    assert of(replace(GOOD, certificates=chain)).code == "ok"


def test_a_path_that_goes_round_is_refused():
    first = authority("round", "and round", AT - DAY, AT + DAY)
    second = authority("and round", "round", AT - DAY, AT + DAY)
    around = (replace(GOOD, leaf={"issuer": "round"}).certificate, first, second)
    outcome = of(replace(GOOD, certificates=around))
    assert (outcome.code, outcome.number) == ("attest.endorsement_missing", "M7")


def test_a_certificate_without_a_name_is_shown_by_its_number():
    nameless = replace(GOOD, leaf={"others": (*issuer_points(),), "subject": ""}).certificate
    outcome = of(replace(GOOD, certificates=(nameless, issuer(), root())))
    assert outcome.number == "MT7"
    assert "serial number 0x" in outcome.check("MT7").detail


def issuer_points():
    from pki_certificates import points_at_a_list

    return (points_at_a_list(),)


def test_only_verify_makes_it():
    with pytest.raises(TypeError):
        TpmVerified(parse(DATA).quote, "ak:00", 0, (), (), maker=object())


def test_no_root_verifies_nothing():
    assert walk(tpm, GOOD.evidence, GOOD.endorsements, Roots(), AT).code == "attest.unknown_root"


def test_pss_by_an_rsa_key():
    world = World(key=rsa_key(), scheme=0x0016)  # its salt is random, and so it is no vector
    assert of(world).code == "ok"
    assert of(replace(world, signature=sign(rsa_key(), world.message))).number == "M3"


def test_a_p521_key():
    assert of(World(key=ec_key(KEY, ec.SECP521R1), digest=0x000D)).code == "ok"


def test_a_key_restricted_to_no_scheme_signs_by_any():
    free = public(GOOD.key).replace(b"\0\x10\0\x18\0\x0b\0\x03", b"\0\x10\0\x10\0\x03")
    assert Public.parse(free).scheme == 0x0010
    changed = replace(GOOD, changes={"key": {"parent": "4000000b", "public": wire.b64(free)}})
    assert of(changed).number == "M9"  # it is another key than the quote names


def test_a_storage_key_is_read_and_is_no_attestation_key():
    storage = public(GOOD.key).replace(b"\0\x10\0\x18\0\x0b\0\x03", b"\0\x06\0\x80\0\x43\0\x10\0\x03")
    assert Public.parse(storage).attributes == ATTRIBUTES
    derived = public(GOOD.key).replace(b"\0\x03\0\x10", b"\0\x03\0\x20\0\x0b")
    assert Public.parse(derived).key == GOOD.key.public_key()


def test_the_numbers_of_a_signature_count_and_not_their_zeros():
    r, s = b"\1" * 31, b"\2" * 32
    padded = Signature.parse(b"\0\x18\0\x0b" + sized(b"\0" + r) + sized(s))
    assert padded == Signature.parse(b"\0\x18\0\x0b" + sized(r) + sized(s))


@pytest.mark.parametrize("parent", [b"", b"\0" * 5, b"\0" * 33])
def test_a_parent_is_a_name_or_a_handle(parent):
    with pytest.raises(BadEvidence):
        Claims(parse(DATA).quote, public(GOOD.key), parent)


def test_a_bare_key_has_no_parent():
    spki = GOOD.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(BadEvidence):
        Claims(parse(DATA).quote, parent=bytes(4), key_info=spki)


def _spki(key) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    "spki",
    [
        b"\x30\x00",
        _spki(ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()),
        _spki(ec_key("k1", ec.SECP256K1).public_key()),
        _spki(rsa.RSAPublicNumbers(3, rsa_key().public_key().public_numbers().n).public_key()),
        GOOD.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint),
    ],
    ids=["junk", "ed25519", "another-curve", "exponent-3", "no-algorithm"],
)
def test_a_bare_key_that_is_no_tpms_is_refused(spki):
    with pytest.raises(BadEvidence):
        Claims(parse(DATA).quote, key_info=spki)


def test_a_bare_rsa_key():
    assert of(World(key=rsa_key(), bare=True)).check("M9").detail == "by its certificate"


def test_a_bare_key_in_another_spelling_is_refused():
    spki = bytearray(_spki(rsa_key().public_key()))
    compressed = ec_key(KEY, ec.SECP256R1).public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    front = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200")
    for other in (bytes(spki) + b"\0", front + compressed):
        with pytest.raises(BadEvidence):
            Claims(parse(DATA).quote, key_info=other)


def test_a_selection_of_more_registers_than_there_are_is_refused():
    wider = GOOD.message.replace(b"\0\x0b\3\xff\xff\0", b"\0\x0b\4\xff\xff\0\0")
    assert wider != GOOD.message
    with pytest.raises(BadEvidence, match="4 bytes"):
        Attest.parse(wider)


def test_a_point_of_another_size_than_its_curve_is_refused():
    with pytest.raises(BadEvidence, match="size"):
        Public.parse(GOOD.described[:-34] + sized(GOOD.described[-31:]))


def test_a_scheme_is_held_against_the_kind_of_key():
    for key, signature in ((rsa_key().public_key(), GOOD.signed), (GOOD.key.public_key(), sign(rsa_key(), GOOD.message))):
        with pytest.raises(EvidenceForged, match="scheme"):
            Signature.parse(signature).require(key, GOOD.message)


def test_a_signature_of_other_numbers_than_a_curves_is_forged():
    signature = Signature.parse(b"\0\x18\0\x0b" + sized(b"") + sized(b""))
    with pytest.raises(EvidenceForged):
        signature.require(GOOD.key.public_key(), b"")


def test_an_rsa_key_that_the_library_refuses_is_no_key(monkeypatch):
    def refuse(_):
        raise ValueError

    monkeypatch.setattr(rsa.RSAPublicNumbers, "public_key", refuse)
    with pytest.raises(BadEvidence, match="cannot be read"):
        Public.parse(public(rsa_key()))


# --- terms ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"pcrs": []},
        {"pcrs": [24]},
        {"pcrs": [1, 0]},
        {"pcrs": "any"},
        {"banks": ["sha1"]},
        {"banks": ["sha384", "sha256"]},
        {"banks": "any"},
        {"clock_safe": 1},
        {"firmware": ["1"]},
        {"firmware": ["f" * 16, "0" * 16]},
        {"firmware": None},
        {"reset_count": -1},
        {"restart_count": "none"},
        {"revocation": "required"},
        {"more": 1},
    ],
    ids=str,
)
def test_terms_that_cannot_be_read_are_refused(change):
    with pytest.raises(BadField):
        Terms.from_json({**Terms().to_json(), **change})


def test_every_member_of_the_terms_must_be_there():
    for name in Terms().to_json():
        left = {k: v for k, v in Terms().to_json().items() if k != name}
        with pytest.raises(BadField):
            Terms.from_json(left)


@given(
    st.builds(
        QuoteTerms,
        pcrs=st.sets(st.integers(0, 23), min_size=1).map(sorted).map(tuple),
        banks=st.sampled_from([(), ("sha256",), ("sha384",), ("sha256", "sha384")]),
        clock_safe=st.booleans(),
        firmware=st.none() | st.sets(st.integers(0, 2**64 - 1).map("{:016x}".format), max_size=3).map(sorted).map(tuple),
        reset_count=st.none() | st.integers(0, 2**32 - 1),
        restart_count=st.none() | st.integers(0, 2**32 - 1),
    ),
    st.booleans(),
)
def test_terms_come_out_as_they_went_in(quote, revocation):
    terms = Terms(quote, revocation)
    assert Terms.from_json(terms.to_json()) == terms
    assert QuoteTerms.from_json(quote.to_json()) == quote


# --- bytes ------------------------------------------------------------------------------------------------------------


def test_evidence_over_its_limit_is_refused_unread():
    with pytest.raises(BadEvidence, match="at most"):
        parse(DATA + b" " * tpm.MAX_TPM_BYTES)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data):
    with pytest.raises(BadEvidence):
        parse(data)


@given(st.sampled_from(["bank", "format", "key", "pcrs", "quote", "signature"]), st.data())
def test_a_member_of_any_kind_is_refused_or_comes_out_as_it_went_in(name, data):
    values = st.none() | st.integers() | st.text(max_size=8) | st.dictionaries(st.text(max_size=6), st.text(max_size=6))
    found = {**json.loads(DATA), name: data.draw(values)}
    with suppress(StrongroomError):
        encoded = wire.encode(found)
        assert parse(encoded).encode() == encoded


@given(st.binary(max_size=160))
def test_any_structure_is_refused_or_read(data):
    for reader in (Attest.parse, Public.parse, Signature.parse):
        with suppress(BadEvidence):
            reader(data)


@given(
    st.sampled_from([GOOD.message, GOOD.described, GOOD.signed, public(rsa_key())]),
    st.integers(0, 2000),
    st.binary(max_size=3),
)
def test_a_structure_with_bytes_changed_is_refused_or_read(structure, place, others):
    place %= len(structure)
    changed = structure[:place] + others + structure[place + len(others) :]
    for reader in (Attest.parse, Public.parse, Signature.parse):
        with suppress(BadEvidence):
            reader(changed)


@given(st.integers(0, len(DATA) - 1))
def test_evidence_cut_short_is_refused(size):
    with pytest.raises(BadEvidence):
        parse(DATA[:size])


def accepts(data: bytes, world: World = GOOD) -> bool:
    return walk(tpm, Evidence("tpm", data), world.endorsements, world.roots, world.at, world.terms).code == "ok"


def all_flips(*, sample: int | None = None) -> list[int]:
    """The bits of good evidence whose change nobody notices, for the soak: there are none."""
    endorsements, roots = GOOD.endorsements, GOOD.roots
    return accepted_flips(
        DATA, lambda data: walk(tpm, Evidence("tpm", data), endorsements, roots, AT).code == "ok", sample=sample
    )


def test_a_flipped_bit_is_noticed():
    assert all_flips(sample=300) == []


def test_a_flipped_bit_of_a_certificate_or_list_is_noticed():
    for place, document in enumerate(GOOD.endorsements.documents):
        others = GOOD.endorsements.documents

        def taken(data: bytes, place=place, document=document, others=others) -> bool:
            changed = (*others[:place], replace(document, data=data), *others[place + 1 :])
            return walk(tpm, GOOD.evidence, Endorsements(changed), GOOD.roots, AT).code == "ok"

        assert accepted_flips(document.data, taken, sample=60) == []


def test_hostile_bytes_are_refused():
    for data in (b"[" * tpm.MAX_TPM_BYTES, b'{"a":' * 3000, b'"' + b"\\u0000" * 2500 + b'"'):
        with pytest.raises(BadEvidence):
            parse(data)


# --- the forms of others ----------------------------------------------------------------------------------------------


def dumped(pcrs: dict[int, bytes], *, algorithm: int = 0x000B, banks: int = 1) -> bytes:
    """As tpm2_quote writes registers: structures in memory, little-endian."""
    mask = sum(1 << n for n in pcrs).to_bytes(4, "little")
    selection = banks.to_bytes(4, "little") + algorithm.to_bytes(2, "little") + b"\3" + mask + b"\0"
    values = list(pcrs.values())
    groups = [values[i : i + 8] for i in range(0, len(values), 8)]
    lists = b"".join(
        len(group).to_bytes(4, "little")
        + b"".join(len(v).to_bytes(2, "little") + v.ljust(64, b"\0") for v in group).ljust(528, b"\0")
        for group in groups
    )
    return selection.ljust(132, b"\0") + len(groups).to_bytes(4, "little") + lists


QUOTING = Quoting()
PEM = QUOTING.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def test_what_tpm2_quote_writes_is_read():
    registers = dumped(dict(QUOTING.presented))
    bare = tpm_foreign.from_tpm2_tools(message=QUOTING.message, signature=QUOTING.signed, registers=registers, key_pem=PEM)
    assert bare.encode() == World(bare=True).evidence.data
    full = tpm_foreign.from_tpm2_tools(
        message=QUOTING.message,
        signature=QUOTING.signed,
        registers=registers,
        public=sized(QUOTING.described),
        parent=QUOTING.parent,
    )
    assert full.encode() == DATA
    assert full.evidence() == GOOD.evidence


@pytest.mark.parametrize(
    "changes",
    [
        {"key_pem": b"no key"},
        {"registers": b""},
        {"registers": dumped(dict(QUOTING.presented), algorithm=4)},
        {"registers": dumped(dict(QUOTING.presented), banks=2)},
        {"registers": dumped(dict(QUOTING.presented)) + b"\0"},
        {"registers": dumped(dict(QUOTING.presented))[:4] + b"\x0b\0\3\1\0\0\0" + dumped(dict(QUOTING.presented))[11:]},
        {"key_pem": b"", "public": b"\0\1" + QUOTING.described, "parent": QUOTING.parent},
    ],
    ids=["no-pem", "nothing", "sha1", "two-banks", "trailing", "fewer-selected", "wrong-length"],
)
def test_what_tpm2_quote_does_not_write_is_refused(changes):
    good = {
        "message": QUOTING.message, "signature": QUOTING.signed, "registers": dumped(dict(QUOTING.presented)), "key_pem": PEM
    }  # fmt: skip
    with pytest.raises(BadEvidence):
        tpm_foreign.from_tpm2_tools(**{**good, **changes})


def trustee(**changes) -> bytes:
    world = World(pcrs={n: register(n) for n in range(24)})
    quote = {"message": wire.b64(world.message), "signature": wire.b64(world.signed)}
    quote["pcrs"] = [register(n).hex() for n in range(24)]
    found = {"ak_public": wire.b64(_spki(world.key.public_key())), "tpm_quote": quote, **changes}
    return json.dumps(found, indent=2).encode()


def test_what_the_confidential_containers_verifier_takes_is_read():
    assert len(tpm_foreign.from_trustee(trustee()).quote.pcrs) == 24
    for data in (b"", trustee(more=1), trustee(ak_public=None), trustee(tpm_quote={}), trustee(ak_public="AAAA")):
        with pytest.raises(BadEvidence):
            tpm_foreign.from_trustee(data)


def field(number: int, value: int | bytes) -> bytes:
    """A field of a protocol buffers message."""

    def varint(n: int) -> bytes:
        return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + varint(n >> 7)

    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def google(bank: int = 0x0B, *, quotes: int = 1, after: bytes = b"", certificates: tuple[bytes, ...] = ()) -> bytes:
    pcrs = b"".join(field(2, field(1, n) + field(2, value)) for n, value in QUOTING.presented.items())
    quote = field(1, QUOTING.message) + field(2, QUOTING.signed) + field(3, field(1, bank) + pcrs)
    chain = b"".join(field(6 + bool(i), der) for i, der in enumerate(certificates))
    return field(1, QUOTING.described) + field(2, quote) * quotes + field(3, b"a log") + chain + after


def test_what_go_tpm_tools_writes_is_read():
    chain = (GOOD.certificate.der, issuer().der)
    claims, certificates = tpm_foreign.from_google(google(certificates=chain))
    assert claims.encode() == DATA
    assert tuple(c.der for c in certificates) == chain


@pytest.mark.parametrize(
    "data",
    [
        b"",
        google(quotes=2),
        google(0x04),
        google() + google(),
        google(after=b"\x0d\0\0\0\0"),  # a wire type that is not used
        google(after=b"\x1a\xff"),  # a length beyond the end
        google(after=b"\x1a" + b"\xff" * 11),  # a number that does not end
        google(after=b"\x08\x01"),  # a number for the key
        google(after=b"\x12\x02\x08\x01"),  # a quote of one field
        field(1, QUOTING.described) + field(2, field(1, QUOTING.message) + field(2, b"") + field(3, field(1, b"x"))),
        google(after=bytes(tpm_foreign.MAX_FOREIGN_BYTES)),
    ],
    ids=["nothing", "two", "sha1", "doubled", "wire-type", "ends-early", "endless", "number", "half", "bytes", "long"],
)
def test_what_go_tpm_tools_does_not_write_is_refused(data):
    with pytest.raises(BadEvidence):
        tpm_foreign.from_google(data)


@given(st.binary(max_size=80))
def test_any_message_is_refused(data):
    with pytest.raises((BadEvidence, BadCertificate)):
        tpm_foreign.from_google(data)


@given(st.integers(0, 5000), st.binary(min_size=1, max_size=3))
def test_a_changed_message_is_refused_or_read(place, others):
    data = google()
    place %= len(data)
    with suppress(StrongroomError):
        tpm_foreign.from_google(data[:place] + others + data[place + len(others) :])
    with suppress(StrongroomError):
        tpm_foreign.from_tpm2_tools(
            message=QUOTING.message,
            signature=QUOTING.signed,
            registers=(dump := dumped(dict(QUOTING.presented)))[: place % len(dump)]
            + others
            + dump[place % len(dump) + len(others) :],
            key_pem=PEM,
        )


def test_a_certificate_is_taken_off_an_nv_index_and_nowhere_else():
    der = GOOD.certificate.der
    assert tpm_foreign.certificate_of_nv_index(der) == GOOD.certificate
    assert tpm_foreign.certificate_of_nv_index(der.ljust(4096, b"\xff")) == GOOD.certificate
    with pytest.raises(BadCertificate):
        Certificate(der.ljust(4096, b"\0"))
    for data in (b"", b"\x30\x82", bytes(4096), der[:-1], b"\x30\x82" + bytes(1 << 15)):
        with pytest.raises(BadCertificate):
            tpm_foreign.certificate_of_nv_index(data)


# --- a TPM in software ------------------------------------------------------------------------------------------------


@software
@pytest.mark.parametrize(("kind", "scheme"), [("ecc", "ecdsa"), ("rsa", "rsassa"), ("rsa", "rsapss")])
def test_what_a_tpm_signs_is_verified(tmp_path, kind, scheme):
    """A whole TPM 2.0 makes an endorsement key, an attestation key under it and a quote; our authority certifies its key."""
    nonce = hashlib.sha256(REPORT_DATA).hexdigest()
    quoted = ",".join(map(str, range(16)))
    emulator = subprocess.Popen(
        ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={tmp_path}", "--ctrl", f"type=unixio,path={tmp_path}/s.ctrl",
         "--server", f"type=unixio,path={tmp_path}/s", "--flags", "not-need-init,startup-clear"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    environment = {**os.environ, "TPM2TOOLS_TCTI": f"swtpm:path={tmp_path}/s"}

    def tool(name: str, *arguments: str) -> None:
        subprocess.run(
            [f"tpm2_{name}", *arguments], cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=30
        )

    try:
        for _ in range(200):
            if (tmp_path / "s").exists():
                break
            time.sleep(0.01)
        tool("createek", "-c", "ek", "-G", kind, "-u", "ek.pub")
        tool("createak", "-C", "ek", "-c", "ak", "-G", kind, "-g", "sha256", "-s", scheme, "-u", "ak.pub", "-n", "ak.name")
        tool("flushcontext", "-t")
        tool("readpublic", "-c", "ek", "-n", "ek.name")
        tool("flushcontext", "-t")
        tool("pcrextend", f"4:sha256={'07' * 32}")
        tool(
            "quote",
            "--scheme",
            scheme,
            "-c",
            "ak",
            "-l",
            f"sha256:{quoted}",
            "-q",
            nonce,
            "-m",
            "q.msg",
            "-s",
            "q.sig",
            "-o",
            "q.pcrs",
        )
    finally:
        emulator.terminate()
        emulator.wait(timeout=30)
    files = {name: (tmp_path / name).read_bytes() for name in ("q.msg", "q.sig", "q.pcrs", "ak.pub", "ek.name", "ak.name")}
    ek_name = files["ek.name"]
    parent = b"\0\x0b" + hashlib.sha256(tpm_foreign.ENDORSEMENT_HIERARCHY + ek_name).digest()
    claims = tpm_foreign.from_tpm2_tools(
        message=files["q.msg"], signature=files["q.sig"], registers=files["q.pcrs"], public=files["ak.pub"], parent=parent
    )
    assert claims.described is not None
    assert claims.described.name == files["ak.name"]
    assert claims.quote.pcrs[4] == hashlib.sha256(bytes(32) + b"\7" * 32).digest()
    world = World(leaf={"key": claims.key})
    outcome = walk(tpm, claims.evidence(), world.endorsements, world.roots, AT)
    assert outcome.code == "ok"
    assert outcome.verified.binds(REPORT_DATA)
    assert walk(tpm, claims.evidence(), GOOD.endorsements, GOOD.roots, AT).number == "M6"


# --- what others' TPMs signed -----------------------------------------------------------------------------------------


def _keylime() -> Claims:
    return tpm_foreign.from_tpm2_tools(
        message=read("tpm/keylime.quote"),
        signature=read("tpm/keylime.sig"),
        registers=read("tpm/keylime.pcrs"),
        key_pem=read("tpm/keylime.akpub.pem"),
    )


@real
@pytest.mark.parametrize("claims", [lambda: tpm_foreign.from_trustee(read("tpm/trustee_generic.json")), _keylime])
def test_a_real_quote_by_a_key_that_nothing_vouches_for_is_not_established(claims):
    outcome = walk(tpm, claims().evidence(), GOOD.endorsements, GOOD.roots, AT)
    assert [check.status for check in outcome.checks[:5]] == [Status.PASSED] * 5  # the signature and the registers hold
    assert (outcome.number, outcome.code) == ("M6", "attest.endorsement_missing")
    assert outcome.check("M6").status is Status.NOT_ESTABLISHED
    assert outcome.verified is None


@real
def test_keylimes_registers():
    assert sorted(_keylime().quote.pcrs) == [15, 16, 22]


def _google_2018() -> tuple[Claims, Endorsements]:
    claims, certificates = tpm_foreign.from_google(read("tpm/gce_cos85_nononce.pb"))
    others = (read("tpm/ca_tpm_ek_intermediate_2.crt"), read("tpm/ca_tpm_ek_root_1.cer"))
    return claims, documents.documents((CERTIFICATE, der) for der in (*(c.der for c in certificates), *others))


@real
@long_names
def test_a_real_quote_of_a_google_machine_leads_to_googles_root():
    claims, endorsements = _google_2018()
    outcome = walk(tpm, claims.evidence(), endorsements, GOOGLE_2018, 1_640_000_000)
    assert outcome.verified is not None
    assert outcome.check("M9").detail == "attributes 0x00050072, named in the quote"
    assert len(outcome.verified.measurement.registers) == 24
    assert outcome.verified.report_data == b""  # it was asked for without a nonce
    assert not outcome.verified.binds(bytes(64))
    assert outcome.number == "MT7"  # its certificates name lists that are not among the samples
    tolerant = walk(tpm, claims.evidence(), endorsements, GOOGLE_2018, 1_640_000_000, Terms(revocation=False))
    assert tolerant.code == "ok"
    assert walk(tpm, claims.evidence(), endorsements, GOOGLE, 1_640_000_000).code == "attest.unknown_root"
    assert walk(tpm, claims.evidence(), endorsements, GOOGLE_2018, 1_600_000_000).code == "attest.endorsement_not_yet_valid"


@real
@long_names
def test_a_flipped_bit_of_a_real_quote_is_noticed():
    claims, endorsements = _google_2018()
    data = claims.encode()

    def taken(flipped: bytes) -> bool:
        evidence = Evidence("tpm", flipped)
        return walk(tpm, evidence, endorsements, GOOGLE_2018, 1_640_000_000, Terms(revocation=False)).code == "ok"

    assert taken(data)
    assert accepted_flips(data, taken, sample=100) == []


@real
def test_real_certificates_of_attestation_keys_lead_to_their_roots():
    """Without a quote by those keys: the path, the purposes and the trailing bytes of Azure's NV index."""
    from strongroom.attest.tpm_key import path_of, require_attestation_key
    from strongroom.attest.x509 import from_pem, require_path

    blocks = [
        wire.unb64("".join(part.split("-----END")[0].split()))
        for part in read("tpm/azure_ak_certs.txt").decode().split("-----BEGIN CERTIFICATE-----")[1:]
    ]
    assert [len(block) for block in blocks] == [1009, 4096]
    with pytest.raises(BadCertificate):
        Certificate(blocks[1])
    above = [from_pem(read(f"tpm/ca_azure_vtpm_{name}.pem"))[0] for name in ("intermediate_03", "root_2023")]
    for block in blocks:
        leaf = tpm_foreign.certificate_of_nv_index(block)
        path = path_of(leaf, (leaf, *above))
        assert require_path(path, roots=AZURE.certificates, at=1_762_000_000)
        assert require_attestation_key(None, b"", b"", path) == "by its certificate"
    leaf, middle = (
        wire.unb64("".join(part.split("-----END")[0].split()))
        for part in read("tpm/gce_ak_certs.txt").decode().split("-----BEGIN CERTIFICATE-----")[1:]
    )
    google_root = from_pem(read("tpm/ca_gce_ek_ak_root.pem"))[0]
    path = path_of(Certificate(leaf), (Certificate(middle), google_root))
    assert require_path(path, roots=GOOGLE.certificates, at=1_762_000_000)
    with pytest.raises(BadCertificate):  # Google names no purpose: only the TPM's own description will do
        require_attestation_key(None, b"", b"", path)


def test_the_pages_name_the_pinned_keys():
    page = PAGE.read_text(encoding="utf-8")
    for roots in (GOOGLE, GOOGLE_2018, AZURE):
        assert roots.certificates[0] in page


def test_verify_raises_typed_errors_alone():
    for bit, flipped in flips(DATA, sample=200):
        try:
            tpm.verify(
                Evidence("tpm", flipped), GOOD.endorsements, roots=GOOD.roots, at=AT, transcript=Transcript(tpm.STEPS)
            )
        except StrongroomError:
            continue
        pytest.fail(f"bit {bit}")


@pytest.mark.parametrize(
    ("bank", "pcrs"), [("sha1", {0: bytes(20)}), ("sha256", {}), ("sha256", {24: bytes(32)}), ("sha256", {0: bytes(48)})]
)
def test_a_quote_holds_registers_of_its_bank(bank, pcrs):
    with pytest.raises(BadEvidence):
        Quote(GOOD.message, GOOD.signed, bank, pcrs)


def test_a_quote_over_its_limit_is_refused():
    with pytest.raises(BadEvidence):
        Quote(bytes(1025), GOOD.signed, "sha256", {0: bytes(32)})


def test_an_old_list_alone_does_not_hide_a_revocation():
    assert of(replace(GOOD, lists=(revoking(issuer(), until=AT - 1),))).code == "attest.revoked"
