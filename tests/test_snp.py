"""AMD SEV-SNP: reports, what vouches for them, and terms. Real reports where the real evidence is, made ones everywhere."""

from __future__ import annotations

import contextlib
import json
import re
import struct
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evidence_case import accepted_flips, names_in_page, run, walk
from pki_amd import AT, CHIP, PROVIDER, TCB, TERMS, Case, ark, claims, crl, documents, good, issuer, leaf, policy, signed
from real import cases, read, real
from strongroom import wire
from strongroom.attest import snp, snp_key
from strongroom.attest.appraisal import appraise
from strongroom.attest.appraisal_policy import AppraisalPolicy, Reference
from strongroom.attest.endorsements import CERTIFICATE, CRL, PEM_CHAIN
from strongroom.attest.endorsements import documents as endorsements_of
from strongroom.attest.evidence import MAX_EVIDENCE_BYTES, Endorsements, Roots
from strongroom.attest.keyset import RELEASE_ALGO, RUN_RECEIPT_ALGO, KeyEntry, Keyset, report_data
from strongroom.attest.snp_report import HOST_VMPL, PROCESSORS, REPORT_BYTES, Firmware, Tcb, processor_of
from strongroom.attest.snp_terms import Terms
from strongroom.attest.vector import AFFIRMED, UNACCEPTABLE
from strongroom.attest.x509 import Certificate, RevocationList, from_pem
from strongroom.errors import (
    AttestationError,
    BadCertificate,
    BadEndorsement,
    BadEvidence,
    BadField,
    EndorsementExpired,
    EndorsementMissing,
)
from strongroom.party import DecryptionKey, SigningKey
from strongroom.transcript import Status, Transcript

HOME = Path(__file__).parents[1]
VECTORS = sorted((HOME / "vectors" / "sev_snp").glob("*.json"))
PAGE = HOME / "spec" / "evidence-sev-snp.md"


def outcome(case: Case) -> Any:
    return walk(snp, case.evidence, case.endorsements, case.roots, case.at, case.terms)


# --- vectors --------------------------------------------------------------------------------------------------------


def test_there_are_vectors() -> None:
    assert len(VECTORS) > 100


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_vector(path: Path) -> None:
    case = json.loads(path.read_bytes())
    found = run(snp, case)
    assert (found.code, found.number) == (case["expect"], case["fails"])


def test_every_check_has_a_vector_that_fails_it() -> None:
    failed = {json.loads(path.read_bytes())["fails"] for path in VECTORS}
    assert failed == {"", *snp.STEPS.names, *snp.TERMS_STEPS.names}


def test_vectors_are_what_their_script_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HOME / "vectors"))
    monkeypatch.delitem(sys.modules, "make_snp", raising=False)
    import make_snp

    made = make_snp.all_cases()
    assert {path.stem: json.loads(path.read_bytes()) for path in VECTORS} == made


# --- what a verified report says ------------------------------------------------------------------------------------


def test_verified_says_what_was_signed() -> None:
    case = good(policy=policy("debug"))
    verified = case.verify(Transcript(snp.STEPS))
    assert verified.report_data == verified.claims.report_data
    assert verified.binds(verified.claims.report_data)
    assert not verified.binds(bytes(64))
    assert verified.debug
    assert verified.vector.runtime_opaque == UNACCEPTABLE
    assert verified.produced_at is None
    assert verified.machine == f"chip:{CHIP['genoa'].hex()}"
    assert verified.measurement.platform == "sev_snp"
    assert list(verified.measurement.registers) == ["author_key_digest", "host_data", "id_key_digest", "measurement"]
    assert verified.valid_until == AT + 20 * 86_400  # the revocation list's
    assert set(verified.collateral) == {wire.digest(document.data) for document in case.documents}


def test_a_certificate_that_ends_before_the_list_bounds_the_result() -> None:
    case = replace(good(), documents=documents(leaf=leaf("genoa", after=AT + 5)))
    assert case.verify(Transcript(snp.STEPS)).valid_until == AT + 5


def test_the_machine_of_turin_is_its_eight_bytes_and_of_a_vlek_or_masked_chip_is_not_said() -> None:
    assert good("turin").verify(Transcript(snp.STEPS)).machine == f"chip:{CHIP['turin'].hex()}"
    assert good("genoa", "vlek").verify(Transcript(snp.STEPS)).machine is None
    assert good("genoa", "vlek", chip_id=b"\1" * 64).verify(Transcript(snp.STEPS)).machine is None
    assert good(chip_id=bytes(64)).verify(Transcript(snp.STEPS)).machine is None


def test_only_verify_makes_a_verified_report() -> None:
    verified = good().verify(Transcript(snp.STEPS))
    fields = {name: getattr(verified, name) for name in verified.__dataclass_fields__ if name != "maker"}
    with pytest.raises(TypeError, match="only verify"):
        snp.SnpVerified(**fields, maker=object())


def test_an_endorsement_that_is_missing_is_not_established_and_no_pass() -> None:
    for name in ("leaf", "issuer", "ark", "crl"):
        transcript = Transcript(snp.STEPS)
        with pytest.raises(EndorsementMissing):
            replace(good(), documents=documents(**{name: None})).verify(transcript)
        (check,) = [c for c in transcript.checks if c.code]
        assert check.status is Status.NOT_ESTABLISHED
        assert not transcript.ok


def test_documents_of_other_devices_are_left_alone() -> None:
    other = endorsements_of([("application/swid+xml", b"<x/>"), (CRL, crl("milan")), (CERTIFICATE, ark("milan"))])
    case = good()
    assert outcome(replace(case, documents=(*other.documents, *case.documents))).code == "ok"


def test_an_issuer_whose_name_is_spelled_otherwise_is_found() -> None:
    """Two encodings of one name are one name (RFC 5280 section 7.1)."""
    certificate, above = Certificate(leaf("genoa")), Certificate(issuer("genoa"))
    other = replace(above)
    object.__setattr__(other, "subject_der", b"another spelling")
    assert snp_key.pick_path([other, Certificate(ark("genoa"))], certificate)[1] is other


def test_of_many_issuers_that_did_not_sign_the_first_is_taken_and_refused() -> None:
    strangers = tuple(issuer("genoa", key_of=name) for name in ("amd_stranger", "amd_asvk"))
    kept = endorsements_of([(CERTIFICATE, one) for one in strangers]).documents
    found = outcome(replace(good(), documents=(*kept, *documents(issuer=None))))
    assert (found.number, found.code) == ("S4", "attest.bad_certificate")


def test_more_issuers_of_one_name_than_are_read_are_refused() -> None:
    many = tuple(issuer("genoa", serial=0x10001 + n) for n in range(9))
    kept = endorsements_of([(CERTIFICATE, one) for one in many]).documents
    found = outcome(replace(good(), documents=(*kept, *documents(issuer=None))))
    assert (found.number, found.code) == ("S3", "attest.bad_endorsement")


def test_of_many_leaves_that_did_not_sign_the_first_is_taken_and_refused() -> None:
    others = endorsements_of([(CERTIFICATE, leaf("genoa", key_of=f"chip {n}")) for n in range(3)]).documents
    found = outcome(replace(good(), documents=(*others, *documents(leaf=None))))
    assert (found.number, found.code) == ("S9", "attest.forged")


def test_appraised_from_end_to_end() -> None:
    nonce = bytes(32)
    receipts, releases = SigningKey.from_seed(bytes(32)).public.raw, DecryptionKey.from_seed(bytes(96)).public.raw
    keyset = Keyset(
        AT + 3600,
        receipt_signing_keys=(KeyEntry("receipts", RUN_RECEIPT_ALGO, receipts.hex()),),
        e2ee_public_keys=(KeyEntry("releases", RELEASE_ALGO, releases.hex()),),
    )
    case = good(report_data=report_data(keyset.digest, nonce))
    measurement = case.verify(Transcript(snp.STEPS)).measurement
    policy_ = AppraisalPolicy(
        frozenset({"sev_snp"}),
        {"sev_snp": case.roots},
        (Reference(measurement, "image", "build"),),
        machines=frozenset({f"chip:{CHIP['genoa'].hex()}"}),
        terms={"sev_snp": TERMS},
    )
    assert AppraisalPolicy.parse(policy_.encode()) == policy_

    def appraised(case: Case, policy_: AppraisalPolicy = policy_) -> Any:
        return appraise(case.evidence, policy=policy_, endorsements=case.endorsements, nonce=nonce, at=AT, keyset=keyset)

    assert appraised(case).affirming
    without_list = replace(case, documents=documents(crl=None))
    assert not appraised(without_list).affirming  # a missing endorsement never ends as affirming
    assert not appraised(good(report_data=case.verify(Transcript(snp.STEPS)).report_data, policy=policy("debug"))).affirming
    assert not appraised(good()).affirming
    assert not appraised(case, replace(policy_, machines=frozenset())).affirming
    assert not appraised(case, replace(policy_, terms={})).affirming


# --- the layout -----------------------------------------------------------------------------------------------------


def require_one_spelling(data: bytes) -> None:
    try:
        found = snp.parse(data)
    except BadEvidence:
        return
    assert found.encode() == data


@given(st.binary(max_size=2 * REPORT_BYTES))
def test_random_bytes_are_refused_or_one_spelling(data: bytes) -> None:
    require_one_spelling(data)


@given(st.integers(0, REPORT_BYTES - 1), st.binary(min_size=1, max_size=16))
def test_altered_reports_are_refused_or_one_spelling(at: int, new: bytes) -> None:
    data = good().data
    require_one_spelling((data[:at] + new + data[at + len(new) :])[:REPORT_BYTES])


@given(st.integers(0, REPORT_BYTES))
def test_a_part_of_a_report_is_refused(size: int) -> None:
    data = good().data[:size]
    if size < REPORT_BYTES:
        with pytest.raises(BadEvidence):
            snp.parse(data)


def test_evidence_of_the_largest_size_is_refused_by_its_length() -> None:
    assert outcome(replace(good(), data=bytes(MAX_EVIDENCE_BYTES))).number == "S1"


@given(st.binary(min_size=8, max_size=8), st.booleans())
def test_a_tcb_has_one_spelling(raw: bytes, turin: bool) -> None:
    try:
        found = Tcb.decode(raw, turin=turin)
    except BadEvidence:
        assert any(raw[4:7] if turin else raw[2:6])
        return
    assert found.encode() == raw
    assert Tcb.from_json(found.to_json()) == found


tcbs = st.builds(Tcb, *[st.integers(0, 255)] * 4, fmc=st.none() | st.integers(0, 255))


@given(tcbs, tcbs)
def test_a_tcb_is_at_least_another_exactly_when_every_component_is(one: Tcb, other: Tcb) -> None:
    parts, floor = one.to_json(), other.to_json()
    assert one.at_least(other) == (parts.keys() == floor.keys() and all(parts[n] >= floor[n] for n in parts))  # type: ignore[operator]
    assert one.at_least(one)
    if one.at_least(other) and other.at_least(one):
        assert one == other


def test_turin_and_the_others_order_their_tcb_differently() -> None:
    raw = bytes((1, 2, 3, 4, 0, 0, 0, 9))
    assert Tcb.decode(raw, turin=True) == Tcb(fmc=1, bootloader=2, tee=3, snp=4, microcode=9)
    with pytest.raises(BadEvidence):
        Tcb.decode(raw, turin=False)
    assert Tcb.decode(bytes((1, 2, 0, 0, 0, 0, 4, 9)), turin=False) == Tcb(1, 2, 4, 9)


@pytest.mark.parametrize(
    ("cpuid", "name"),
    [
        ((0x19, 0x01, 0), "milan"),
        ((0x19, 0x01, 1), "milan"),
        ((0x19, 0x01, 2), "milan_x"),
        ((0x19, 0x11, 1), "genoa"),
        ((0x19, 0x11, 2), "genoa_x"),
        ((0x19, 0xA0, 2), "bergamo"),
        ((0x1A, 0x02, 1), "turin"),
        ((0x1A, 0x11, 0), "turin_dense"),
        ((0x19, 0x21, 0), None),
        ((0x1A, 0x50, 0), None),
        ((0x17, 0x31, 0), None),
    ],
)
def test_the_processor_of_a_cpuid(cpuid: tuple[int, int, int], name: str | None) -> None:
    assert processor_of(*cpuid) == (PROCESSORS[name] if name else None)


# --- what bytes can do ----------------------------------------------------------------------------------------------


def accepts(case: Case) -> bool:
    """Whether a case passes; whatever its bytes, only our own errors escape."""
    return bool(outcome(case).code == "ok")


# Bits of what was made that may be flipped and nobody minds, by case and what; none: what is not signed is in one spelling.
HARMLESS: dict[tuple[str, str], frozenset[int]] = {}


def positives() -> dict[str, Case]:
    return {
        "genoa": good(),
        "turin": good("turin"),
        "vlek": replace(
            good("milan", "vlek"),
            terms=replace(TERMS, signing_keys=frozenset({"vlek"}), cloud_providers=frozenset({PROVIDER})),
        ),
    }


def flipped(*, sample: int | None = None) -> Iterator[tuple[str, str, list[int]]]:
    """Of each made case and each of its parts, the bits whose change nobody noticed. Without a sample, all."""
    for name, case in positives().items():
        yield name, "report", accepted_flips(case.data, lambda data, c=case: accepts(replace(c, data=data)), sample=sample)
        for place, document in enumerate(case.documents):

            def with_document(data: bytes, case: Case = case, place: int = place) -> bool:
                changed = list(case.documents)
                changed[place] = replace(changed[place], data=data)
                return accepts(replace(case, documents=tuple(changed)))

            yield name, f"document {place}", accepted_flips(document.data, with_document, sample=sample)


def test_no_single_bit_can_be_flipped() -> None:
    for name, what, unnoticed in flipped(sample=150):
        assert frozenset(unnoticed) <= HARMLESS.get((name, what), frozenset()), f"{name}, {what}"


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_damaged_documents_raise_only_our_errors(data: st.DataObject) -> None:
    case = good()
    place = data.draw(st.integers(0, 3))
    der = case.documents[place].data
    at = data.draw(st.integers(0, len(der)))
    new = data.draw(st.binary(max_size=8))
    damaged = der[:at] + new + der[at + data.draw(st.integers(0, 8)) :]
    changed = list(case.documents)
    changed[place] = replace(changed[place], data=damaged)
    assert accepts(replace(case, documents=tuple(changed))) == (damaged == der)


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_whatever_is_signed_is_judged_and_never_raises(data: st.DataObject) -> None:
    """Every field at random under a good signature: verify may refuse, judge records every check."""
    word = st.integers(0, 2**64 - 1)
    made = claims(
        data.draw(st.sampled_from(("milan", "genoa", "turin"))),
        guest_svn=data.draw(st.integers(0, 2**32 - 1)),
        policy=data.draw(word) | 1 << 17,
        vmpl=data.draw(st.sampled_from((0, 1, 2, 3, HOST_VMPL))),
        platform_info=data.draw(word),
        family_id=data.draw(st.binary(min_size=16, max_size=16)),
        id_key_digest=data.draw(st.binary(min_size=48, max_size=48)),
        committed=Firmware(1, data.draw(st.integers(0, 255)), 0),
        current_mitigations=data.draw(word),
        launch_mitigations=data.draw(word),
    )
    line = made.processor.line  # type: ignore[union-attr]
    found = outcome(Case(signed(made), documents(line), terms=TERMS))
    assert found.verified is not None
    assert found.vector.instance_identity == AFFIRMED


# --- terms ----------------------------------------------------------------------------------------------------------


def test_terms_without_arguments_refuse_every_processor() -> None:
    found = outcome(replace(good(), terms=Terms()))
    assert (found.number, found.code) == ("SP3", "attest.tcb_not_accepted")
    assert found.vector.hardware == UNACCEPTABLE
    details = {check.number: check.detail for check in found.checks}
    assert details["SP3"] == "they name none; this is genoa"


def test_hardware_is_affirmed_where_the_tcb_is_accepted_whatever_else_is_not() -> None:
    found = outcome(good(vmpl=2))
    assert found.number == "SP8"
    assert found.vector.hardware == AFFIRMED


def test_every_term_that_fails_is_recorded() -> None:
    found = outcome(replace(good(vmpl=HOST_VMPL, platform_info=0, policy=policy("smt", "migration_agent")), terms=Terms()))
    failed = [check.number for check in found.checks if check.status is Status.FAILED]
    assert failed == ["SP3", "SP4", "SP8", "SP9", "SP10", "SP12"]


words = st.sampled_from(("any", "refused", "required"))
ids = st.none() | st.frozensets(st.binary(min_size=16, max_size=16), max_size=3)
all_terms = st.builds(
    Terms,
    minimum_tcb=st.dictionaries(
        st.sampled_from(sorted(PROCESSORS)),
        tcbs,
        max_size=4,
    ).map(lambda d: {n: replace(t, fmc=(t.fmc or 0) if "turin" in n else None) for n, t in d.items()}),
    minimum_firmware=st.builds(Firmware, *[st.integers(0, 255)] * 3),
    minimum_abi=st.tuples(st.integers(0, 255), st.integers(0, 255)),
    minimum_guest_svn=st.integers(0, 2**32 - 1),
    minimum_report_version=st.integers(2, 5),
    mitigations=st.integers(0, 2**64 - 1),
    signing_keys=st.frozensets(st.sampled_from(("vcek", "vlek"))),
    cloud_providers=st.none() | st.frozensets(st.text(max_size=20), max_size=3),
    vmpls=st.frozensets(st.integers(0, 3)),
    guest_policy=st.fixed_dictionaries(dict.fromkeys(TERMS.guest_policy, words)),
    platform_info=st.fixed_dictionaries(dict.fromkeys(TERMS.platform_info, words)),
    id_key=words,
    author_key=words,
    family_ids=ids,
    image_ids=ids,
)


@given(all_terms)
def test_terms_have_one_spelling(terms: Terms) -> None:
    assert Terms.from_json(terms.to_json()) == terms


@pytest.mark.parametrize("name", sorted(TERMS.to_json()))
def test_every_member_of_the_terms_must_be_there(name: str) -> None:
    value = TERMS.to_json()
    del value[name]
    with pytest.raises(BadField, match=f"{name} is missing"):
        Terms.from_json(value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("author_key", "maybe"),
        ("cloud_providers", ["b", "a"]),
        ("cloud_providers", ["a" * 127]),
        ("cloud_providers", "all"),
        ("family_ids", ["00"]),
        ("family_ids", ["00" * 16, "00" * 16]),
        ("guest_policy", []),
        ("guest_policy", {}),
        ("guest_policy", {**TERMS.guest_policy, "debug": "any"}),
        ("guest_policy", {**TERMS.guest_policy, "migration_agent": "any"}),
        ("guest_policy", {**TERMS.guest_policy, "smt": True}),
        ("id_key", None),
        ("image_ids", None),
        ("minimum_abi", {"major": 1}),
        ("minimum_abi", {"major": 1, "minor": 2, "build": 3}),
        ("minimum_firmware", {"build": 256, "major": 1, "minor": 55}),
        ("minimum_guest_svn", -1),
        ("minimum_report_version", 1),
        ("minimum_report_version", 6),
        ("minimum_tcb", []),
        ("minimum_tcb", {"rome": TCB["milan"].to_json()}),
        ("minimum_tcb", {"turin": TCB["milan"].to_json()}),
        ("minimum_tcb", {"milan": TCB["turin"].to_json()}),
        ("minimum_tcb", {"milan": {**TCB["milan"].to_json(), "spare": 0}}),
        ("minimum_tcb", {"milan": {**TCB["milan"].to_json(), "snp": 256}}),
        ("mitigations", "7"),
        ("mitigations", 7),
        ("platform_info", {**TERMS.platform_info, "ecc": "yes"}),
        ("platform_info", {name: "any" for name in TERMS.platform_info if name != "ecc"}),
        ("signing_keys", ["none"]),
        ("signing_keys", ["vlek", "vcek"]),
        ("vmpls", [4]),
        ("vmpls", [1, 0]),
        ("vmpls", [0, 0]),
        ("unknown", 0),
    ],
)
def test_terms_out_of_bounds_are_refused(name: str, value: object) -> None:
    with pytest.raises(BadField):
        Terms.from_json({**TERMS.to_json(), name: value})


# --- the page -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("letter", "steps"), [("S", snp.STEPS), ("SP", snp.TERMS_STEPS)])
def test_the_page_numbers_the_checks_as_the_code_does(letter: str, steps: Any) -> None:
    assert names_in_page(PAGE, letter) == dict(steps)


def test_the_terms_on_the_page_are_terms() -> None:
    (block,) = re.findall(r"```json\n(\{\n\s+\"author_key\".*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert Terms.from_json(json.loads(block)).minimum_tcb


# --- the host's table of certificates -------------------------------------------------------------------------------

VCEK, ASK, ARK, LIST, OTHER = (
    bytes.fromhex(guid)
    for guid in (
        "63da758de6644564adc5f4b93be8accd",
        "4ab7b379bbac4fe4a02f05aef327c782",
        "c0b406a4a803495297433fb6014cd0ae",
        "92f81bc358114d3d97ffd19f88dc67ea",
        "9f4116cdc5034f4a8f6ffb68882f4ce2",
    )
)


def pem(der: bytes, what: str = "CERTIFICATE") -> bytes:
    return f"-----BEGIN {what}-----\n{wire.b64(der)}\n-----END {what}-----\n".encode()


def table(*entries: tuple[bytes, bytes], gap: bytes = b"", tail: bytes = b"") -> bytes:
    at = 24 * (len(entries) + 1)
    head, body = b"", b""
    for guid, data in entries:
        body += gap
        head += struct.pack("<16sII", guid, at + len(body), len(data))
        body += data
    return head + bytes(24) + body + tail


GOOD_TABLE = ((ARK, pem(ark("genoa"))), (ASK, issuer("genoa")), (VCEK, leaf("genoa")), (LIST, crl("genoa")))


def test_the_table_of_certificates_vouches_for_a_report() -> None:
    found = snp.certificates_of_auxblob(table(*GOOD_TABLE, (OTHER, b"a provider's own"), gap=bytes(3), tail=bytes(512)))
    assert len(found.documents) == 4
    assert outcome(replace(good(), documents=found.documents)).code == "ok"
    in_pem = snp.certificates_of_auxblob(table((LIST, pem(crl("genoa"), "X509 CRL"))))
    assert in_pem.documents[0].data == crl("genoa")


def test_no_table_is_no_endorsement() -> None:
    assert snp.certificates_of_auxblob(b"") == Endorsements()
    assert snp.certificates_of_auxblob(bytes(24)) == Endorsements()


def entry(guid: bytes, offset: int, length: int) -> bytes:
    return struct.pack("<16sII", guid, offset, length)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (bytes(65537), "longer than"),
        (b"\1" * 23, "no end"),
        (entry(VCEK, 48, 1), "no end"),
        (b"".join(bytes([n + 1]) * 24 for n in range(70)), "no end"),
        (table((VCEK, leaf("genoa")), (VCEK, leaf("genoa"))), "twice"),
        (entry(VCEK, 0, 24) + bytes(24), "outside"),
        (entry(VCEK, 48, 1) + bytes(24), "outside"),
        (entry(VCEK, 0xFFFFFFFF, 0xFFFFFFFF) + bytes(24), "outside"),
        (entry(VCEK, 48, 0) + bytes(24), "outside"),
        (entry(VCEK, 72, 2) + entry(ASK, 73, 2) + bytes(24) + b"abc", "on one another"),
        (table(*GOOD_TABLE, gap=b"\1"), "no entry names"),
        (table(*GOOD_TABLE, tail=b"\1"), "no entry names"),
        (table((VCEK, b"junk")), "an entry"),
        (table((VCEK, b"-----BEGIN CERTIFICATE-----\n!!")), "an entry"),
        (table((ASK, pem(issuer("genoa")) + pem(ark("genoa")))), "an entry"),
        (table((LIST, b"junk")), "an entry"),
    ],
)
def test_a_table_out_of_order_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(BadEndorsement, match=why):
        snp.certificates_of_auxblob(data)


@given(st.integers(0, 24 * 5), st.binary(max_size=24))
def test_damaged_tables_raise_only_our_errors(at: int, new: bytes) -> None:
    data = table(*GOOD_TABLE)
    with contextlib.suppress(BadEndorsement):
        snp.certificates_of_auxblob(data[:at] + new + data[at + len(new) :])


# --- other hardware's reports ---------------------------------------------------------------------------------------

AMD_ROOTS = Roots(
    certificates=(
        "sha256:9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9",
        "sha256:429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831",
        "sha256:4f125410563a2ab9a50356f9243f6fe0b6f73de98603f53f90339c70e9d7ad08",
    )
)
FACTS = [case for case in cases("cases_other.json") if case["kind"] == "snp" and "signature" in case]


def real_leaf(name: str) -> Certificate:
    data = read(name)
    return from_pem(data)[0] if name.endswith(".pem") else Certificate(data)


def real_list(line: str) -> RevocationList:
    return RevocationList.from_pem(read(f"snp/kds_{line}.crl.pem"))


def real_documents(line: str, *leaves: Certificate) -> Endorsements:
    chain = read(f"snp/ca_{line}_ask_ark_asvk.pem")
    return endorsements_of([*((CERTIFICATE, one.der) for one in leaves), (PEM_CHAIN, chain), (CRL, real_list(line).der)])


def real_case(data: bytes, line: str, certificate: Certificate, terms: Terms = TERMS) -> Case:
    """At a time at which the certificate and the list are both valid, if there is one; else at the certificate's own."""
    at = max(certificate.not_before, real_list(line).this_update) + 86_400
    return Case(data, real_documents(line, certificate).documents, AMD_ROOTS, at, terms)


@pytest.fixture
def unsafe_without_revocation(monkeypatch: pytest.MonkeyPatch) -> None:
    """For reports of whose time no revocation list was kept: everything but S5."""
    monkeypatch.setattr(snp, "_require_not_revoked", lambda *_: ([], 2**40))


@real
@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact["report"])
def test_facts_of_real_reports(fact: dict[str, Any], request: pytest.FixtureRequest) -> None:
    line = fact["product"].split("-")[0].lower()
    certificate = real_leaf(fact["key_cert"])
    case = real_case(read(fact["report"]), line, certificate)
    if fact["report"] == "snp/ms_genoa.report":  # of 2026; the kept list of Genoa's root counted until November 2025
        with pytest.raises(EndorsementExpired):
            case.verify(Transcript(snp.STEPS))
        request.getfixturevalue("unsafe_without_revocation")
    transcript = Transcript(snp.STEPS)
    verified = case.verify(transcript)
    assert transcript.ok  # signature, tcb_ext_match, chip_id_match
    assert (verified.key.line, verified.key.provider) == (line, fact["csp"])
    assert verified.claims.version == fact["version"]
    assert verified.claims.vmpl == fact["vmpl"]
    assert verified.debug == fact["debug"]
    assert verified.claims.policy == int(fact["policy"], 16)
    assert verified.claims.reported_tcb.hex() == fact["reported_tcb"]
    assert verified.report_data.hex() == fact["report_data"]
    assert verified.measurement.registers["measurement"] == f"sha384:{fact['measurement']}"
    assert verified.key.kind == ("vcek", "vlek")[fact["signing_key"]]
    assert verified.claims.platform_info == int(fact["platform_info"], 16)
    assert (
        f"CN={certificate.issuer_name.get_attributes_for_oid(snp_key.x509.NameOID.COMMON_NAME)[0].value}" == fact["issuer"]
    )
    named = verified.machine == f"chip:{verified.claims.chip_id.hex()}"
    assert named == (fact["chip_id_match"] is True)


@real
def test_facts_are_there() -> None:
    assert len(FACTS) == 8


@real
def test_a_real_report_without_its_own_certificate_is_never_accepted() -> None:
    """gce_v4_milan_novcek: AMD never published its key's certificate. Nothing, and no other chip's, stands in for it."""
    data = read("snp/gce_v4_milan_novcek.report")
    at = real_list("milan").this_update + 300 * 86_400
    with pytest.raises(EndorsementMissing):
        Case(data, real_documents("milan").documents, AMD_ROOTS, at).verify(Transcript(snp.STEPS))
    for fact in FACTS:
        case = real_case(data, fact["product"].split("-")[0].lower(), real_leaf(fact["key_cert"]))
        with pytest.raises(AttestationError):
            case.verify(Transcript(snp.STEPS))


@real
@pytest.mark.usefixtures("unsafe_without_revocation")
def test_no_real_certificate_vouches_for_another_real_report() -> None:
    for one in FACTS:
        for other in FACTS:
            line = other["product"].split("-")[0].lower()
            case = real_case(read(one["report"]), line, real_leaf(other["key_cert"]))
            transcript = Transcript(snp.STEPS)
            if one is other:
                case.verify(transcript)
            else:
                with pytest.raises(AttestationError):
                    case.verify(transcript)


@real
@pytest.mark.parametrize("name", ["trustee_vcek_invalid_legacy.der", "trustee_vcek_invalid_new.der"])
def test_real_certificates_that_nobody_signed(name: str) -> None:
    case = real_case(read("snp/trustee_v2_milan.report"), "milan", real_leaf(f"snp/{name}"))
    found = outcome(case)
    assert (found.number, found.code) == ("S4", "attest.bad_certificate")


@real
def test_the_real_debug_report_is_genuine_and_says_debug() -> None:
    found = outcome(
        real_case(read("snp/google_v2_milan_debug.report"), "milan", real_leaf("snp/google_v2_milan_debug.vcek.der"))
    )
    assert found.verified.debug
    assert found.vector.runtime_opaque == UNACCEPTABLE


@real
def test_a_real_report_that_meets_terms_said_for_it() -> None:
    """The VLEK report of a cloud: its terms say the provider, the privilege level and that threads share cores."""
    terms = Terms(
        minimum_tcb={"milan": Tcb(4, 0, 24, 217)},
        signing_keys=frozenset({"vlek"}),
        cloud_providers=frozenset({"CN=cc-us-east-2.amazonaws.com"}),
        vmpls=frozenset({1}),
        guest_policy={**TERMS.guest_policy, "smt": "any"},
    )
    certificate = real_leaf("snp/trustee_vlek_v3_milan.vlek.der")
    case = real_case(read("snp/trustee_vlek_v3_milan.report"), "milan", certificate, terms)
    assert outcome(case).code == "ok"
    at_most = replace(terms, minimum_tcb={"milan": Tcb(4, 0, 24, 218)})  # the host states 217, and runs 220
    assert outcome(replace(case, terms=at_most)).number == "SP4"


@real
def test_the_first_ask_of_genoa_is_revoked_by_the_real_list() -> None:
    assert real_list("genoa").this_update > 0
    with pytest.raises(AttestationError, match="0x20001 is revoked"):
        real_list("genoa").require_not_revoked(Certificate(issuer("genoa", serial=0x20001)))
    real_list("genoa").require_not_revoked(from_pem(read("snp/ca_genoa_ask_ark_asvk.pem"))[0])


@real
@pytest.mark.usefixtures("unsafe_without_revocation")
def test_the_real_triple_of_configfs_tsm() -> None:
    found = snp.certificates_of_auxblob(read("configfs_tsm/genoa.auxblob.bin"))
    assert len(found.documents) == 3
    certificates = [Certificate(document.data) for document in found.documents]
    at = max(certificate.not_before for certificate in certificates)
    verified = Case(read("configfs_tsm/genoa.outblob.bin"), found.documents, AMD_ROOTS, at).verify(Transcript(snp.STEPS))
    assert verified.processor.name == "genoa"
    assert verified.claims.version == 3


@real
@pytest.mark.usefixtures("unsafe_without_revocation")
def test_the_real_report_inside_dstacks_attestation() -> None:
    data = bytes.fromhex(json.loads(read("dstack/sev_snp_attestation.json"))["attestation"])
    report = data[4 : 4 + REPORT_BYTES]
    at = data.index(b"-----BEGIN CERTIFICATE-----", data.index(b"-----END CERTIFICATE-----"))
    (certificate,) = from_pem(data[at : data.index(b"-----END CERTIFICATE-----", at) + 25])
    verified = real_case(report, "milan", certificate).verify(Transcript(snp.STEPS))
    assert verified.report_data.startswith(b"attest-test-fixture")


@real
def test_the_real_reports_inside_azures() -> None:
    """The host's report wraps one of 1184 bytes, 32 bytes in; the module that reads the wrapping calls this one."""
    genoa = read("azure_vtpm/openpcc_genoa_hcl.bin")[32 : 32 + REPORT_BYTES]
    assert (
        real_case(genoa, "genoa", real_leaf("snp/openpcc_genoa.vcek.pem")).verify(Transcript(snp.STEPS)).claims.version == 3
    )
    assert snp.parse(read("azure_vtpm/snp_hcl_report.bin")[32 : 32 + REPORT_BYTES]).version == 2


@real
def test_no_single_bit_of_real_reports_can_be_flipped() -> None:
    for fact in FACTS:
        case = real_case(read(fact["report"]), fact["product"].split("-")[0].lower(), real_leaf(fact["key_cert"]))

        def verifies(data: bytes, case: Case = case) -> bool:
            try:
                replace(case, data=data).verify(Transcript(snp.STEPS))
            except AttestationError:
                return False
            return True

        assert accepted_flips(case.data, verifies, sample=60) == []


@real
def test_a_real_certificate_without_a_p384_key_signs_no_report() -> None:
    with pytest.raises(BadCertificate, match="P-384"):
        snp_key.require_signed_report(from_pem(read("snp/ca_milan_ask_ark_asvk.pem"))[0], b"", 1, 1)
