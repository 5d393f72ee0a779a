"""Intel TDX: what a policy can ask of a trust domain, and what others' hardware signed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pki_intel as pki
from evidence_case import accepted_flips, flips, walk
from pki_intel import AT, DAY, World
from real import cases, read, real
from strongroom.attest import dcap, tdx
from strongroom.attest.endorsements import CRL, INTEL_QE_IDENTITY, INTEL_TCB_INFO, PEM_CHAIN, documents
from strongroom.attest.evidence import Endorsements, Evidence, Roots
from strongroom.attest.intel_collateral import TcbStatus
from strongroom.attest.roots import ROOTS
from strongroom.attest.tdx import ATTRIBUTES, Terms, parse
from strongroom.attest.vector import AFFIRMED, UNACCEPTABLE
from strongroom.errors import AttestationError, BadEvidence, BadField
from strongroom.transcript import Transcript

INTEL = Roots(certificates=tuple(ROOTS["tdx"].values()))
TD = World(trailing=bytes(70))
REAL = [case for case in cases("cases_dcap.json") if case.get("tee") == "TDX"]
SEEN = {one for case in REAL for entry in case.get("tcb", []) for one in entry["advisories"]} | {
    "INTEL-SA-01192",
    "INTEL-SA-01245",
}
EVERY = Terms(
    statuses=frozenset(TcbStatus) - {TcbStatus.REVOKED},
    advisories=dict.fromkeys(SEEN, 1 << 40),
    tcb_evaluation_floor=0,
    sept_ve_disable=False,
    attributes=frozenset(ATTRIBUTES),
)


def accepts(world: World, data: bytes) -> bool:
    transcript = Transcript(tdx.STEPS)
    try:
        tdx.verify(
            Evidence("tdx", data),
            world.endorsements(),
            roots=world.roots(),
            at=AT,
            transcript=transcript,
            ask_second=False,
        )
    except AttestationError:
        return False
    return True


def harmless(data: bytes) -> set[int]:
    """The bytes of a quote whose change changes nothing that anybody signed: line breaks of the certificates' PEM, and the
    zero byte that may end it. The soak uses this, and flips every bit."""
    certificates = dcap.parse(data).certification_data
    begin = data.index(certificates)
    return {begin + place for place, byte in enumerate(certificates) if byte in b"\n\0"}


def unnoticed_flips(data: bytes, accepts_it, *, sample: int | None) -> list[int]:
    """The bits outside what is harmless whose flip nobody notices: none. All bits where ``sample`` is ``None``."""
    known = harmless(data)
    return [bit for bit in accepted_flips(data, accepts_it, sample=sample) if bit // 8 not in known]


def test_a_flipped_bit_is_refused_or_harmless():
    data = TD.quote()
    assert accepts(TD, data)
    assert unnoticed_flips(data, lambda changed: accepts(TD, changed), sample=600) == []


def test_what_is_harmless_is_white_space_of_pem():
    data = TD.quote()
    known = harmless(data)
    assert len(known) == data.count(b"\n", data.index(b"-----BEGIN"))
    after = data.rindex(b"-----END CERTIFICATE-----") + 25
    assert accepts(TD, data[:after] + b" " + data[after + 1 :])
    assert not accepts(TD, data[:-1] + b"\x01")  # padding is not


def test_the_measurement_is_every_register():
    claims = parse(TD.quote())
    registers = claims.measurement.registers
    assert set(registers) == {"mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3", "mrconfigid", "mrowner", "mrownerconfig"}
    assert registers["mrtd"] == "sha384:" + "11" * 48
    assert [registers[f"rtmr{n}"] for n in range(4)] == [f"sha384:{0x20 + n:02x}" + f"{0x20 + n:02x}" * 47 for n in range(4)]
    assert claims.report_data == pki.REPORT_DATA
    for name in ("mrconfigid", "mrowner", "mrownerconfig"):
        other = parse(replace(TD, td={name: b"\x99" * 48}).quote()).measurement
        assert other.registers[name] == "sha384:" + "99" * 48
        assert other != claims.measurement


def test_an_enclaves_quote_is_no_tds():
    with pytest.raises(BadEvidence, match="a quote of SGX"):
        parse(World(tee="SGX", version=3).quote())


# --- terms --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "terms", [Terms(), EVERY, Terms(mrseam=frozenset({b"\x01" * 48}), mrservicetd=frozenset({b"\x02" * 48}))]
)
def test_terms_are_read_as_they_are_written(terms):
    assert Terms.from_json(json.loads(json.dumps(terms.to_json()))) == terms
    assert hash(Terms.from_json(terms.to_json())) == hash(terms)


STRICT = Terms().to_json()


@pytest.mark.parametrize(
    "changes",
    [
        {"statuses": ["Revoked"]},
        {"statuses": ["UpToDate", "OutOfDate"]},
        {"statuses": ["UpToDate", "UpToDate"]},
        {"statuses": ["Fine"]},
        {"statuses": "UpToDate"},
        {"statuses": None},
        {"advisories": []},
        {"advisories": {"INTEL-SA-1": -1}},
        {"advisories": {"INTEL-SA-1": True}},
        {"advisories": {"any": 1}},
        {"advisories": {f"INTEL-SA-{n}": 1 for n in range(1025)}},
        {"tcb_evaluation_floor": -1},
        {"tcb_evaluation_floor": 65536},
        {"tcb_evaluation_floor": "17"},
        {"sept_ve_disable": 1},
        {"attributes": ["debug"]},
        {"attributes": ["pks", "kl"]},
        {"mrseam": "any"},
        {"mrseam": ["00" * 48, "sha384:" + "00" * 48]},
        {"mrseam": ["sha384:" + "00" * 47]},
        {"mrseam": ["sha384:" + "FF" * 48]},
        {"mrseam": [7]},
        {"mrservicetd": "any-module"},
        {"mrservicetd": ["sha384:" + "02" * 48, "sha384:" + "01" * 48]},
        {"xfam_allowed": "e7"},
        {"xfam_required": None},
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
        {"statuses": frozenset({"UpToDate-ish"})},
        {"advisories": {"everything": 1}},
        {"tcb_evaluation_floor": -1},
        {"attributes": frozenset({"debug"})},
        {"xfam_allowed": -1},
        {"xfam_required": 1 << 64},
        {"mrseam": frozenset({b"short"})},
        {"mrservicetd": frozenset({b""})},
    ],
    ids=str,
)
def test_terms_out_of_bounds_cannot_be_made(arguments):
    with pytest.raises(BadField):
        Terms(**arguments)


@given(
    st.dictionaries(
        st.sampled_from(sorted(STRICT)),
        st.none() | st.integers() | st.text(max_size=5) | st.lists(st.text(max_size=3)),
        min_size=1,
    )
)
def test_terms_are_refused_or_written_as_they_were_read(changes):
    value = {**STRICT, **changes}
    try:
        terms = Terms.from_json(value)
    except BadField:
        return
    assert terms.to_json() == value


@pytest.mark.parametrize("bit", range(8, 64))
def test_every_attribute_must_be_named(bit):
    """By the strict terms only SEPT_VE_DISABLE may be set; with all names said, what has no name still may not."""
    world = replace(World(), td={"attributes": (1 << 28 | 1 << bit).to_bytes(8, "little")})
    outcome = walk(tdx, world.evidence(), world.endorsements(), world.roots(), AT)
    assert (outcome.code == "ok") == (bit == 28)
    named = walk(tdx, world.evidence(), world.endorsements(), world.roots(), AT, EVERY)
    assert (named.code == "ok") == (bit in {28, *ATTRIBUTES.values()})


def test_a_tolerated_advisory_shows_in_the_claims():
    world = replace(World(), td={"tee_tcb_svn": pki.OLD_SVN})
    outcome = walk(tdx, world.evidence(), world.endorsements(), world.roots(), AT, EVERY)
    assert outcome.code == "ok"
    assert outcome.vector.hardware == 32  # AR4SI: genuine, with known vulnerabilities
    refused = walk(tdx, world.evidence(), world.endorsements(), world.roots(), AT)
    assert refused.vector.hardware == UNACCEPTABLE
    assert [check.number for check in refused.checks if check.code] == ["T1", "T2"]  # every term is judged


def test_an_advisory_is_tolerated_until_its_last_second():
    world = replace(World(), td={"tee_tcb_svn": pki.OLD_SVN})
    terms = replace(EVERY, advisories={"INTEL-SA-01192": AT + DAY, "INTEL-SA-01245": AT + DAY})
    for at, code in ((AT + DAY, "ok"), (AT + DAY + 1, "attest.tcb_not_accepted")):
        assert walk(tdx, world.evidence(), world.endorsements(), world.roots(), at, terms).code == code


# --- what others' hardware signed ---------------------------------------------------------------------------------------


def collateral(entry) -> Endorsements:
    """The documents of one entry of a case, and Intel's two signing certificates."""
    return documents(
        [
            (INTEL_TCB_INFO, read(f"collateral/{entry['tcb_info']}")),
            (INTEL_QE_IDENTITY, read(f"collateral/{entry['qe_identity']}")),
            (CRL, read(f"collateral/{entry['pck_crl']}")),
            (CRL, read(f"collateral/{entry['root_crl']}")),
            (PEM_CHAIN, read("collateral/intel_tcb_signing_2018-2025.pem")),
            (PEM_CHAIN, read("collateral/intel_tcb_signing_2025-2032.pem")),
        ]
    )


ENTRIES = [(case, entry) for case in REAL for entry in case.get("tcb", [])]
# What the second verifier refuses, and at which check we do (none: genuine, and what it refuses is for terms and appraisal).
REFUSALS = {
    "REJECT: Failed to verify certificate chain Caused by: CertNotValidYet": "Q6",
    "REJECT: No matching TCB level found": "Q18",
    "REJECT: Debug mode is enabled": "",
    "REJECT: Invalid MR service TD": "",
}


@real
def test_there_are_real_entries():
    assert len(REAL) == 14
    assert len(ENTRIES) == 80


@real
@pytest.mark.parametrize(("case", "entry"), ENTRIES, ids=lambda value: value.get("file") or str(value.get("at")))
def test_a_real_quote_is_as_current_as_its_case_says(case, entry):
    data = read(case["file"])
    said = entry["dcap_qvl_0_7_0"]
    if case["file"] == "tdx/google_spr_e4_v4.quote":  # bytes that are not zero follow it: refused for that alone
        assert walk(tdx, Evidence("tdx", data), collateral(entry), INTEL, entry["at"], EVERY).number == "Q1"
        data = data[:-39]
    outcome = walk(tdx, Evidence("tdx", data), collateral(entry), INTEL, entry["at"], EVERY)
    refused = next((number for start, number in REFUSALS.items() if said.startswith(start)), None)
    if refused:
        assert outcome.number == refused
        return
    verified = outcome.verified
    assert verified.report_data.hex() == case["report_data"]
    assert verified.fmspc.hex() == case["fmspc"]
    assert verified.debug is case["debug"]
    assert verified.measurement.registers["mrtd"] == f"sha384:{case['mrtd']}"
    assert entry["at"] <= verified.valid_until
    if refused is None:
        assert verified.tcb_status == said
        assert sorted({one.id for one in verified.advisories}) == sorted(entry["advisories"])
        assert outcome.code == "ok"
        current = said == "UpToDate"
        assert (outcome.vector.hardware == AFFIRMED) == current
        strict = walk(tdx, Evidence("tdx", data), collateral(entry), INTEL, entry["at"])
        configured = any(verified.claims.td.mrconfigid)
        assert (strict.code == "ok") == current
        assert configured == (case["file"] == "tdx/trustee_v4_gnr.quote")
    elif "service" in said:
        assert outcome.number == "T11"
        listed = replace(EVERY, mrservicetd=frozenset({verified.claims.td.mrservicetd}))
        assert walk(tdx, Evidence("tdx", data), collateral(entry), INTEL, entry["at"], listed).code == "ok"
    else:
        assert verified.debug


@real
def test_a_real_quote_without_the_lists_of_its_date_is_not_established():
    """TCB information and identity of 2024-09 are there, no revocation list of that date."""
    quote = read("tdx/oasis_v4_c0806f.quote")
    info = read("collateral/tcbinfo_tdx_c0806f000000_2024-09-02_ev17_4ee7.json")
    identity = read("collateral/qeid_td_qe_2024-09-02_ev17_46dc.json")
    given = documents([(INTEL_TCB_INFO, info), (INTEL_QE_IDENTITY, identity)])
    outcome = walk(tdx, Evidence("tdx", quote), given, INTEL, 1725400000)
    assert (outcome.code, outcome.number) == ("attest.endorsement_missing", "Q8")


@real
def test_the_real_root_is_the_one_that_is_pinned():
    case, entry = next((case, entry) for case, entry in ENTRIES if entry["dcap_qvl_0_7_0"] == "UpToDate")
    evidence = Evidence("tdx", read(case["file"]))
    for roots in (Roots(), World().roots()):
        assert walk(tdx, evidence, collateral(entry), roots, entry["at"]).code == "attest.unknown_root"


@real
@pytest.mark.parametrize("name", ["tdx/phala_v4.quote", "tdx/google_v5_tdx15.quote", "tdx/gcp_cos113_v4.quote"])
def test_a_flipped_bit_of_a_real_quote_is_refused_or_harmless(name):
    case, entry = next((c, e) for c, e in ENTRIES if c["file"] == name and e["dcap_qvl_0_7_0"] == "UpToDate")
    given, data = collateral(entry), read(case["file"])

    def accepted(changed: bytes) -> bool:
        transcript = Transcript(tdx.STEPS)
        try:
            tdx.verify(Evidence("tdx", changed), given, roots=INTEL, at=entry["at"], transcript=transcript, ask_second=False)
        except AttestationError:
            return False
        return True

    assert accepted(data)
    assert unnoticed_flips(data, accepted, sample=200) == []
    assert sum(1 for _ in flips(data, sample=3)) == 3
