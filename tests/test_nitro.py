"""AWS Nitro Enclaves: every check has its attack, on documents of our own hypervisor's and on those that AWS's signed."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from contextlib import suppress
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from types import ModuleType

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence_case import accepted_flips, flips, names_in_page, run, walk
from pki_nitro import AT, PCRS, REPORT_DATA, World
from real import cases, read, real
from strongroom import wire
from strongroom.attest import nitro, nitro_document
from strongroom.attest.appraisal import Bare, look
from strongroom.attest.appraisal_policy import AppraisalPolicy
from strongroom.attest.evidence import Endorsements, Evidence, Roots
from strongroom.attest.nitro import Claims, NitroVerified, Terms, parse
from strongroom.attest.result import AttestationResult
from strongroom.attest.vector import AFFIRMED, NO_CLAIM, UNACCEPTABLE, UNRECOGNIZED
from strongroom.errors import BadEvidence, BadField, StrongroomError
from strongroom.transcript import Transcript

HOME = Path(__file__).parents[1]
PAGE = HOME / "spec" / "evidence-nitro.md"
FILES = sorted((HOME / "vectors" / "nitro").glob("*.json"))
AWS = Roots(certificates=("sha256:f2caf5ecc6190b4a8399b78bc58a2bbcd0382375db8a1bfd78a82743874fd225",))
REAL = [case for case in cases("cases_other.json") if case["kind"] == "nitro"]
GOOD = World().data


def _maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_nitro", HOME / "vectors" / "make_nitro.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ask(data: bytes, roots: Roots, terms: Terms | None = None):
    return walk(nitro, Evidence("nitro", data), Endorsements(), roots, AT, terms)


def of(world: World):
    return walk(nitro, world.evidence, Endorsements(), world.roots, world.at, world.terms)


# --- vectors and page -------------------------------------------------------------------------------------------------


def test_the_vectors_are_those_that_their_script_writes():
    assert FILES
    assert {path.stem: json.loads(path.read_bytes()) for path in FILES} == _maker().all_cases()


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_vector(path):
    case = json.loads(path.read_bytes())
    outcome = run(nitro, case)
    assert (outcome.code, outcome.number) == (case["expect"], case["fails"])
    data = wire.unb64(case["evidence"])
    if case["fails"] != "N1":
        assert parse(data).encode() == data


def test_every_numbered_check_is_failed_by_some_vector():
    failed = {json.loads(path.read_bytes())["fails"] for path in FILES} - {""}
    assert failed == {number for number, _ in (*nitro.STEPS, *nitro.TERMS_STEPS)}


def test_the_page_numbers_the_checks_as_the_code_does():
    assert names_in_page(PAGE, "N") == dict(nitro.STEPS)
    assert names_in_page(PAGE, "NT") == dict(nitro.TERMS_STEPS)


def test_the_page_shows_the_terms_as_they_are_written():
    block = PAGE.read_text(encoding="utf-8").split("```json\n")[1].split("```")[0]
    terms = Terms.from_json(json.loads(block))
    assert json.loads(block) == terms.to_json()
    assert terms.pcr4 == (PCRS[4].hex(),)


# --- what a good document says ----------------------------------------------------------------------------------------


def test_a_good_document_says_what_runs_when_and_for_whom():
    outcome = of(World())
    verified = outcome.verified
    assert outcome.code == "ok"
    assert verified.measurement.registers == {f"pcr{n}": f"sha384:{PCRS[n].hex()}" for n in (0, 1, 2, 8)}
    assert verified.measurement.platform == nitro.PLATFORM
    assert verified.report_data == REPORT_DATA
    assert verified.binds(REPORT_DATA)
    assert not verified.binds(bytes(64))
    assert verified.produced_at == AT
    assert verified.valid_until == AT + 3 * 3600
    assert verified.machine is None
    assert verified.debug is False
    assert len(verified.collateral) == 5
    assert outcome.vector.instance_identity == outcome.vector.hardware == AFFIRMED
    assert outcome.vector.runtime_opaque == NO_CLAIM  # nothing in the document says that memory is encrypted


@pytest.mark.parametrize("zero", [(0,), (1,), (2,), (0, 1, 2)])
def test_registers_of_zero_mean_debugging(zero):
    outcome = of(World(members={"pcrs": {**PCRS, **dict.fromkeys(zero, bytes(48))}}))
    assert outcome.verified.debug is True
    assert outcome.vector.runtime_opaque == UNACCEPTABLE


def test_a_document_that_says_nothing_of_ours_binds_nothing():
    for world in (World(members={"user_data": None}), World(without=("user_data",))):
        verified = of(world).verified
        assert not verified.binds(REPORT_DATA)
        assert verified.report_data == b""
    # The nonce and the public key are other slots: what stands there binds nothing.
    assert not of(World(members={"user_data": None, "nonce": REPORT_DATA, "public_key": REPORT_DATA})).verified.binds(
        REPORT_DATA
    )


def looked(data: bytes, nonce: bytes | None, roots: Roots, at: int = AT) -> AttestationResult:
    policy = AppraisalPolicy(platforms=frozenset({"nitro"}), roots={"nitro": roots}, max_age_s=86_400)
    return look(Evidence("nitro", data), policy=policy, endorsements=Endorsements(), bare=Bare(nonce), at=at)


def a6(result: AttestationResult) -> tuple[str, str]:
    check = next(check for check in result.checks if check.number == "A6")
    return check.status.value, check.detail


def test_a_bare_nonce_is_found_in_the_slot_for_nonces_or_in_user_data():
    nonce = bytes(range(16))
    for members, where in (
        ({"nonce": nonce}, "the nonce stands in the platform's slot for nonces"),
        ({"user_data": nonce}, "the nonce stands in the platform's slot"),
    ):
        world = World(members=members)
        assert of(world).verified.nonce == members.get("nonce", b"")
        assert a6(looked(world.data, nonce, world.roots)) == ("passed", where)
        for other in (nonce[:-1], nonce + b"\1", bytes(16), b""):
            assert a6(looked(world.data, other, world.roots))[0] == "failed"
    world = World(members={"public_key": nonce})
    assert a6(looked(world.data, nonce, world.roots))[0] == "failed"


@pytest.mark.parametrize("terms_met", [True, False])
def test_a_look_at_a_debugged_enclave_does_not_lose_that_claim(terms_met):
    world = World(members={"pcrs": {**PCRS, **dict.fromkeys((0, 1, 2), bytes(48))}})
    terms = Terms() if terms_met else Terms(pcr4=())
    policy = AppraisalPolicy(platforms=frozenset({"nitro"}), roots={"nitro": world.roots}, terms={"nitro": terms})
    result = look(world.evidence, policy=policy, endorsements=Endorsements(), bare=Bare(), at=AT)
    assert result.problem.number == "A4"
    assert (result.vector.configuration, result.vector.runtime_opaque) == (UNACCEPTABLE, UNACCEPTABLE)


def test_an_instance_that_the_policy_does_not_name_is_unrecognized():
    assert of(World(terms=Terms(pcr4=()))).vector.instance_identity == UNRECOGNIZED


def test_only_verify_makes_it():
    with pytest.raises(TypeError):
        NitroVerified(parse(GOOD), AT, (), maker=object())
    with pytest.raises(FrozenInstanceError):
        of(World()).verified.valid_until = 0


def test_no_root_verifies_nothing():
    assert ask(GOOD, Roots()).code == "attest.unknown_root"


# --- bytes ------------------------------------------------------------------------------------------------------------


def test_a_document_over_its_limit_is_refused_unread():
    with pytest.raises(BadEvidence, match="longer than"):
        parse(GOOD + bytes(nitro.MAX_NITRO_BYTES))


@given(st.binary(max_size=400))
def test_any_bytes_are_refused_or_come_out_as_they_went_in(data):
    with suppress(BadEvidence):
        assert parse(data).encode() == data


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.binary(max_size=8) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(["module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle", "user_data", "x"]), _values)
def test_a_member_of_any_kind_is_refused_or_comes_out_as_it_went_in(name, value):
    document = cbor2.loads(World().payload)
    document[name] = value
    data = cbor2.dumps([bytes.fromhex("a1013822"), {}, cbor2.dumps(document), bytes(96)])
    with suppress(BadEvidence):
        assert parse(data).encode() == data


@given(_values, _values, _values, _values)
def test_a_message_of_any_kind_is_refused(protected, unprotected, payload, signature):
    with pytest.raises(BadEvidence):
        parse(cbor2.dumps([protected, unprotected, payload, signature]))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x81" * 16_000,  # nested
        b"\xa1\xf6" * 8000,
        b"\x9b\x00\x00\x00\xff\xff\xff\xff\xff",  # a length that nobody holds
        b"\x5b\x00\x00\x00\xff\xff\xff\xff\xff",
        b"\xbb\x00\x00\x00\xff\xff\xff\xff\xff",
        b"\x84" + b"\xd8\x23\x78\x20" + b"(a+)+" * 6 + b"a$" + b"\xf6\xf6\xf6",  # a pattern to be compiled
        b"\x84" + b"\xc4\x82\x1b\x7f\xff\xff\xff\xff\xff\xff\xff\x01" + b"\xf6\xf6\xf6",  # a decimal fraction of 2^63 digits
        b"\x84\xd8\x1c\x81\xd8\x1d\x00\xf6\xf6\xf6",  # a list that holds itself
        b"\x84\x61\xff\xf6\xf6\xf6",  # not UTF-8
    ],
    ids=["nothing", "lists", "maps", "list", "bytes", "map", "pattern", "fraction", "cycle", "text"],
)
def test_hostile_cbor_is_refused(data):
    with pytest.raises(BadEvidence):
        parse(data)


def test_no_tag_is_decoded():
    decoders = nitro_document._NoTags()
    assert 35 in decoders
    assert list(decoders) == []
    assert len(decoders) == 0
    with pytest.raises(BadEvidence):
        decoders[35](None)


def accepts(data: bytes, roots: Roots) -> bool:
    """Whether every check passes, and what is signed is what the good document says."""
    return ask(data, roots).code == "ok"


def all_flips(data: bytes = GOOD, roots: Roots | None = None, *, sample: int | None = None) -> list[int]:
    """The bits whose change nobody notices, for the soak: there are none."""
    pinned = roots or World().roots
    return accepted_flips(data, lambda flipped: accepts(flipped, pinned), sample=sample)


def test_a_flipped_bit_is_noticed():
    assert all_flips(sample=300) == []


@given(st.integers(0, len(GOOD) - 1))
def test_a_document_cut_short_is_refused(size):
    with pytest.raises(BadEvidence):
        parse(GOOD[:size])


# --- terms ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [{"pcr3": "no"}, {"pcr3": ["00"]}, {"pcr4": ["ff" * 48, "00" * 48]}, {"modules": [1]}, {"more": 1}, {"modules": None}],
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
    assert Terms.from_json(Terms().to_json()) == Terms()


# --- what AWS signed --------------------------------------------------------------------------------------------------


@real
@pytest.mark.parametrize("case", REAL, ids=lambda c: c["file"])
def test_what_aws_signed_comes_out_as_the_cases_say(case):
    data = read(case["file"])
    outcome = ask(data, AWS)
    if "error" in case:
        assert (outcome.code, outcome.number) == ("attest.bad_certificate", "N2")
        return
    claims = parse(data)
    assert claims.encode() == data
    assert claims.debug is case["debug"]
    assert len(claims.pcrs) == case["npcr"]
    assert claims.pcrs[0].hex().startswith(case["pcr0"])
    assert claims.module_id.startswith(case["module"])
    assert (claims.nonce or b"").hex().startswith(case["nonce"])
    assert len(claims.user_data or b"") == case["ud"]
    assert len(claims.public_key or b"") == case["pk"]
    made = time.gmtime(claims.timestamp_ms // 1000)
    assert time.strftime("%Y-%m-%dT%H:%M:%S", made) == case["ts"]
    if case["sig"] is not True:
        assert (outcome.code, outcome.number) == ("attest.forged", "N4")
        return
    assert outcome.code == "ok"
    assert outcome.verified.debug is case["debug"]
    assert time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(outcome.verified.valid_until)) == case["valid"][1]


@real
def test_there_are_cases():
    assert len(REAL) == 5


@real
def test_what_aws_signed_does_not_lead_to_another_root():
    data = read("nitro/evervault_beta.cose")
    assert ask(data, World().roots).code == "attest.unknown_root"


@real
@pytest.mark.parametrize("name", ["evervault_beta", "evervault_debug", "fortanix_debug"])
def test_a_real_documents_own_nonce_is_found_and_debugging_is_not_lost(name):
    data = read(f"nitro/{name}.cose")
    claims = parse(data)
    at = claims.timestamp_ms // 1000 + 3
    result = looked(data, claims.nonce or b"\7" * 32, AWS, at)
    assert a6(result)[0] == ("passed" if claims.nonce else "failed")
    assert result.vector.configuration == (UNACCEPTABLE if claims.debug else AFFIRMED)
    assert a6(looked(data, b"\7" * 32, AWS, at))[0] == "failed"


@real
def test_a_flipped_bit_of_what_aws_signed_is_noticed():
    assert all_flips(read("nitro/evervault_beta.cose"), AWS, sample=150) == []


@real
def test_the_roots_page_of_aws_names_the_pinned_key():
    from strongroom.attest.x509 import from_pem

    (root,) = from_pem(read("nitro/aws_root_g1.pem"))
    assert (root.key_digest,) == AWS.certificates
    assert AWS.certificates[0] in PAGE.read_text(encoding="utf-8")


def test_flips_are_a_fixed_sample():
    assert list(flips(b"\0\0", sample=3)) == list(flips(b"\0\0", sample=3))
    assert len(list(flips(b"\0\0"))) == 16


def test_verify_raises_typed_errors_alone():
    for bit, flipped in flips(GOOD, sample=200):
        try:
            nitro.verify(
                Evidence("nitro", flipped), Endorsements(), roots=World().roots, at=AT, transcript=Transcript(nitro.STEPS)
            )
        except StrongroomError:
            continue
        pytest.fail(f"bit {bit}")


def test_claims_are_plain():
    claims = parse(GOOD)
    assert isinstance(claims, Claims)
    assert replace(claims, tagged=True).encode() == b"\xd2" + GOOD
