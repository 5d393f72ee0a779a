"""Intel SGX: what a policy can ask of an enclave, and what others' hardware signed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from evidence_case import accepted_flips, walk
from pki_intel import AT, REPORT_DATA, World
from real import cases, read, real
from strongroom.attest import sgx
from strongroom.attest.evidence import Endorsements, Evidence, Roots
from strongroom.attest.intel_collateral import TcbStatus
from strongroom.attest.roots import ROOTS
from strongroom.attest.sgx import ATTRIBUTES, Terms, parse
from strongroom.errors import AttestationError, BadEvidence, BadField
from strongroom.transcript import Transcript
from test_tdx import collateral, harmless

INTEL = Roots(certificates=tuple(ROOTS["sgx"].values()))
ENCLAVE = World(tee="SGX", version=3)
REAL = [case for case in cases("cases_dcap.json") if case.get("tee") == "SGX"]
SEEN = {one for case in REAL for entry in case.get("tcb", []) for one in entry["advisories"]}
EVERY = Terms(
    statuses=frozenset(TcbStatus) - {TcbStatus.REVOKED},
    advisories=dict.fromkeys(SEEN, 1 << 40),
    tcb_evaluation_floor=0,
    isv_prod_ids=frozenset({0, 1}),
    attributes=frozenset(ATTRIBUTES),
)


def test_the_measurement_is_the_enclave_and_its_signer():
    claims = parse(ENCLAVE.quote())
    assert dict(claims.measurement.registers) == {"mrenclave": "sha256:" + "e1" * 32, "mrsigner": "sha256:" + "e2" * 32}
    assert claims.report_data == REPORT_DATA


def test_a_tds_quote_is_no_enclaves():
    with pytest.raises(BadEvidence, match="a quote of TDX"):
        parse(World().quote())


def test_a_flipped_bit_is_refused_or_harmless():
    data = ENCLAVE.quote()
    given, roots = ENCLAVE.endorsements(), ENCLAVE.roots()

    def accepted(changed: bytes) -> bool:
        try:
            sgx.verify(
                Evidence("sgx", changed), given, roots=roots, at=AT, transcript=Transcript(sgx.STEPS), ask_second=False
            )
        except AttestationError:
            return False
        return True

    assert accepted(data)
    known = harmless(data)
    assert [bit for bit in accepted_flips(data, accepted, sample=400) if bit // 8 not in known] == []


# --- terms --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("terms", [Terms(), EVERY, Terms(config_ids=frozenset({b"\x01" * 64}), misc_select_allowed=1)])
def test_terms_are_read_as_they_are_written(terms):
    assert Terms.from_json(json.loads(json.dumps(terms.to_json()))) == terms
    assert hash(Terms.from_json(terms.to_json())) == hash(terms)


STRICT = Terms().to_json()


@pytest.mark.parametrize(
    "changes",
    [
        {"statuses": ["Revoked"]},
        {"statuses": ["UpToDate", "OutOfDate"]},
        {"advisories": {"any": 1}},
        {"tcb_evaluation_floor": 65536},
        {"isv_prod_ids": [1, 0]},
        {"isv_prod_ids": [0, 0]},
        {"isv_prod_ids": [65536]},
        {"isv_prod_ids": ["0"]},
        {"isv_prod_ids": "any"},
        {"isv_svn_floor": -1},
        {"config_ids": ["00"]},
        {"config_ids": "any"},
        {"attributes": ["debug"]},
        {"attributes": ["kss", "cet"]},
        {"xfrm_allowed": "e7"},
        {"misc_select_allowed": "0000000000"},
        {"surprise": 1},
    ],
    ids=str,
)
def test_terms_in_another_spelling_are_refused(changes):
    with pytest.raises(BadField):
        Terms.from_json({**STRICT, **changes})


@pytest.mark.parametrize("name", STRICT)
def test_no_member_of_the_terms_can_be_left_out(name):
    with pytest.raises(BadField):
        Terms.from_json({key: value for key, value in STRICT.items() if key != name})


@pytest.mark.parametrize(
    "arguments",
    [
        {"statuses": frozenset({TcbStatus.REVOKED})},
        {"attributes": frozenset({"debug"})},
        {"isv_prod_ids": frozenset({-1})},
        {"isv_svn_floor": 65536},
        {"xfrm_allowed": 1 << 64},
        {"misc_select_allowed": 1 << 32},
        {"config_ids": frozenset({b"short"})},
    ],
    ids=str,
)
def test_terms_out_of_bounds_cannot_be_made(arguments):
    with pytest.raises(BadField):
        Terms(**arguments)


@pytest.mark.parametrize("bit", range(64))
def test_every_attribute_must_be_named(bit):
    """By the strict terms only INIT, DEBUG (which the appraisal refuses) and MODE64BIT may be set."""
    flags = 0x5 ^ 1 << bit if bit == 2 else 0x5 | 1 << bit
    world = replace(ENCLAVE, enclave={"attributes": flags.to_bytes(8, "little") + b"\xe7" + bytes(7)})
    outcome = walk(sgx, world.evidence(), world.endorsements(), world.roots(), AT)
    assert (outcome.code == "ok") == (bit in {0, 1})
    named = walk(sgx, world.evidence(), world.endorsements(), world.roots(), AT, EVERY)
    assert (named.code == "ok") == (bit in {0, 1, *ATTRIBUTES.values()})


# --- what others' hardware signed ---------------------------------------------------------------------------------------

ENTRIES = [(case, entry) for case in REAL for entry in case.get("tcb", [])]


@real
def test_there_are_real_entries():
    assert len(REAL) == 7
    assert len(ENTRIES) == 13


@real
@pytest.mark.parametrize(("case", "entry"), ENTRIES, ids=lambda value: value.get("file") or str(value.get("at")))
def test_a_real_quote_is_as_current_as_its_case_says(case, entry):
    evidence = Evidence("sgx", read(case["file"]))
    outcome = walk(sgx, evidence, collateral(entry), INTEL, entry["at"], EVERY)
    verified = outcome.verified
    assert verified.report_data.hex() == case["report_data"]
    assert verified.fmspc.hex() == case["fmspc"]
    assert verified.debug is case["debug"]
    assert verified.measurement.registers["mrenclave"] == f"sha256:{case['mrenclave']}"
    assert verified.measurement.registers["mrsigner"] == f"sha256:{case['mrsigner']}"
    if not case["debug"]:
        assert verified.tcb_status == entry["dcap_qvl_0_7_0"]
        assert sorted({one.id for one in verified.advisories}) == sorted(entry["advisories"])
        assert outcome.code == "ok"
    assert walk(sgx, evidence, collateral(entry), INTEL, entry["at"]).number == "X1"  # none is up to date


@real
@pytest.mark.parametrize(
    ("name", "number", "code"),
    [
        ("sgx/fortanix_v3_corrupted.quote", "Q3", "attest.forged"),
        ("sgx/fortanix_v3_debug_chain.quote", "Q6", "attest.unknown_root"),  # the root is not the last certificate
        ("sgx/oasis_v3_eppid_certtype3.quote", "Q5", "attest.bad_evidence"),
    ],
)
def test_a_real_quote_that_leads_nowhere(name, number, code):
    outcome = walk(sgx, Evidence("sgx", read(name)), Endorsements(), INTEL, 1751000000)
    assert (outcome.number, outcome.code) == (number, code)
