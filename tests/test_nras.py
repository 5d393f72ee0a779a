"""Tokens of NVIDIA's attestation service: every check has its attack, on answers of a service of our own and on NVIDIA's."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence_case import Outcome, accepted_flips, names_in_page, run, walk
from pki_certificates import ec_key
from pki_nvidia import AT, DAY, NONCE, REPORT_DATA, TOKEN_KEY, UEID, TokenWorld, jwk, key_path, token
from real import FOLDER, read, real
from strongroom import wire
from strongroom.attest import nras, nras_token
from strongroom.attest.endorsements import JWK_SET, documents
from strongroom.attest.evidence import Endorsements, Evidence, Roots
from strongroom.attest.nras_token import parse, unb64url
from strongroom.attest.nvidia_terms import TokenTerms
from strongroom.attest.vector import AFFIRMED, UNACCEPTABLE
from strongroom.attest.x509 import require_path
from strongroom.errors import BadEndorsement, BadEvidence, BadField
from strongroom.transcript import Status
from test_nvidia import PARTS, made, maker

HOME = Path(__file__).parents[1]
PAGE = HOME / "spec" / "evidence-nvidia.md"
FILES = sorted((HOME / "vectors" / "nras").glob("*.json"))
INTERMEDIATE = "sha256:fd32837f954e2c45db073105166dfe6985ae0480bb113fba63b091a75affe896"
NVIDIA = Roots(certificates=(INTERMEDIATE,))
WORLD = TokenWorld()
GOOD = WORLD.evidence.data


def of(world: TokenWorld) -> Outcome:
    return walk(nras, world.evidence, world.endorsements, world.roots, world.at, world.terms)


# --- vectors and page -------------------------------------------------------------------------------------------------


def test_the_vectors_are_those_that_their_script_writes():
    assert FILES
    assert {path.stem: json.loads(path.read_bytes()) for path in FILES} == made()[0]["nras"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_vector(path):
    case = maker().joined(json.loads(path.read_bytes()), PARTS)
    outcome = run(nras, case)
    assert (outcome.code, outcome.number) == (case["expect"], case["fails"])


def test_every_numbered_check_is_failed_by_some_vector():
    failed = {json.loads(path.read_bytes())["fails"] for path in FILES} - {""}
    assert failed == {number for number, _ in (*nras.STEPS, *nras.TERMS_STEPS)}


def test_the_page_numbers_the_checks_as_the_code_does():
    assert names_in_page(PAGE, "R") == dict(nras.STEPS)
    assert names_in_page(PAGE, "RT") == dict(nras.TERMS_STEPS)


# --- what a good answer says ------------------------------------------------------------------------------------------


def test_a_good_answer_says_what_it_is_when_and_for_whom():
    outcome = of(WORLD)
    verified = outcome.verified
    assert outcome.code == "ok"
    assert verified.nonce == verified.report_data == NONCE
    assert verified.binds(REPORT_DATA)
    assert not verified.binds(bytes(64))
    assert not verified.binds(b"")
    assert verified.debug is False
    assert verified.produced_at == AT - 60
    assert verified.valid_until == AT + 3539
    assert verified.machine == f"ueid:{int(UEID).to_bytes(20, 'big').hex()}"
    assert set(verified.measurement.registers) == {"software"}
    assert len(verified.collateral) == 3
    assert outcome.vector == verified.vector
    assert outcome.vector.instance_identity == outcome.vector.hardware == AFFIRMED


def test_the_sdks_own_token_is_not_looked_at():
    wrapped = TokenWorld(wrapped=True)
    outcome = of(wrapped)
    assert outcome.code == "ok"
    assert "not counted" in outcome.check("R1").detail
    assert parse(wrapped.evidence.data).wrapped
    assert outcome.verified.measurement == of(WORLD).verified.measurement


def test_a_token_over_all_by_a_shared_secret_is_refused_though_it_verifies():
    """The secret that NVIDIA's SDK signs with is in its source: anybody can sign so."""
    import hashlib
    import hmac

    from pki_nvidia import b64url

    head, body = (b64url(json.dumps(part).encode()) for part in ({"alg": "HS256", "kid": "kid-1"}, {}))
    mac = hmac.new(b"secret", f"{head}.{body}".encode(), hashlib.sha256).digest()
    answer = WORLD.answer
    answer[0][1] = f"{head}.{body}.{b64url(mac)}"
    assert of(TokenWorld(data=json.dumps(answer).encode())).code == "attest.bad_evidence"  # it says nothing either
    claims = json.loads(unb64url(WORLD.answer[0][1].split(".")[1]))
    answer[0][1] = token(claims, ec_key(TOKEN_KEY), {"alg": "HS256", "kid": "kid-1"})
    assert of(TokenWorld(data=json.dumps(answer).encode())).number == "R2"


def test_the_public_key_is_no_shared_secret():
    """Algorithm confusion: a token signed by HMAC with the bytes of the service's public key."""
    import hashlib
    import hmac

    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    from pki_nvidia import b64url

    secret = ec_key(TOKEN_KEY).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    answer = WORLD.answer
    body = answer[0][1].split(".")[1]
    for algorithm in ("HS256", "ES384"):
        head = b64url(json.dumps({"alg": algorithm, "kid": "kid-1"}).encode())
        mac = hmac.new(secret, f"{head}.{body}".encode(), hashlib.sha384).digest()
        answer[0][1] = f"{head}.{body}.{b64url(mac)}"
        assert of(TokenWorld(data=json.dumps(answer).encode())).code == "attest.forged"


def test_debugging_is_what_is_not_said_to_be_off():
    assert of(TokenWorld(device={"dbgstat": "disabled-since-boot"})).verified.debug is True
    assert of(TokenWorld(device={"dbgstat": ...})).verified.debug is True


def test_what_is_not_said_is_not_affirmed():
    unsaid = {f"x-nvidia-gpu-{name}": ... for name in nras.CHAINS}
    assert of(TokenWorld(device=unsaid)).check("RT5").status is Status.NOT_ESTABLISHED
    assert of(TokenWorld(device=unsaid)).vector.hardware == UNACCEPTABLE
    assert of(TokenWorld(device=unsaid, terms=TokenTerms(revocation="where-given"))).vector.hardware == 32


def test_a_device_numbered_zero_is_one():
    assert of(TokenWorld(device={"ueid": "0"})).verified.machine == "ueid:00"


def test_a_key_whose_certificate_ends_first_bounds_the_result():
    assert of(TokenWorld(path=key_path(not_after=AT + 60))).verified.valid_until == AT + 60


def test_only_verify_makes_it():
    with pytest.raises(TypeError):
        nras.NrasVerified(claims=parse(GOOD), valid_until=AT, collateral=(), maker=object())
    with pytest.raises(FrozenInstanceError):
        of(WORLD).verified.valid_until = 0


# --- bytes ------------------------------------------------------------------------------------------------------------


def test_an_answer_over_its_limit_is_refused_unread():
    with pytest.raises(BadEvidence, match="at most"):
        parse(GOOD + b" " * nras_token.MAX_EVIDENCE_BYTES)
    long = json.dumps([["JWT", "A" * 17_000], {"GPU-0": "A"}]).encode()
    with pytest.raises(BadEvidence, match="at most"):
        parse(long)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data):
    with pytest.raises(BadEvidence):
        parse(data)


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(_values)
def test_an_answer_of_any_form_is_refused(value):
    with pytest.raises(BadEvidence):
        parse(json.dumps([["JWT", value], {"GPU-0": value}]).encode())
    with pytest.raises(BadEvidence):
        parse(json.dumps(value).encode())


_CLAIMS = ("exp", "iat", "nbf", "iss", "eat_nonce", "ueid", "hwmodel", "measres", "secboot", "dbgstat")


@given(st.sampled_from(_CLAIMS), _values)
def test_a_claim_of_any_kind_raises_typed_errors_alone(name, value):
    outcome = of(TokenWorld(device={name: value}))
    assert outcome.code != "ok" or name in {"iat", "nbf", "ueid"}


@given(_values)
def test_a_key_set_of_any_form_is_refused_or_holds_no_such_key(value):
    for held in (value, {"keys": value}, {"keys": [value]}, {"keys": [{"kid": "kid-1", "x": value}]}):
        with suppress(BadEndorsement):
            assert nras_token.keys(documents([(JWK_SET, json.dumps(held).encode())]), "kid-1") == ()


@given(st.text(max_size=12))
def test_base64url_has_one_spelling(text):
    from pki_nvidia import b64url

    with suppress(BadField):
        assert b64url(unb64url(text)) == text


def all_flips(world: TokenWorld = WORLD, *, sample: int | None = None) -> list[int]:
    """The bits of an answer whose change nobody notices, for the soak: none of the tokens', and none of the JSON around them
    but white space, which is not signed and says nothing."""

    def accepted(flipped: bytes) -> bool:
        return of(replace(world, data=flipped)).code == "ok"

    return accepted_flips(world.evidence.data, accepted, sample=sample)


def test_a_flipped_bit_is_noticed():
    assert all_flips(sample=300) == []


def test_a_flipped_bit_of_a_wrapped_answer_is_noticed_but_in_the_sdks_token():
    """What the SDK signed with a secret that everybody knows is not read: changes there are harmless."""
    wrapped = TokenWorld(wrapped=True)
    data = wrapped.evidence.data
    start = data.index(b"{")  # of what stands beside the SDK's token
    assert all(bit // 8 < start for bit in all_flips(replace(wrapped, data=data), sample=300))


# --- what NVIDIA's service said ---------------------------------------------------------------------------------------


@real
@pytest.mark.parametrize("name", ["nras/h200_tokens.json", "nvidia/nras_hopper_detached_eat.json"])
def test_tokens_whose_key_was_replaced_are_not_established(name):
    """Their form is right and their digests agree; the key set that was kept does not hold their key."""
    held = documents([(JWK_SET, read("nras/jwks_2026-09-12.json"))])
    claims = parse(read(name))
    assert claims.wrapped is name.startswith("nras/")
    outcome = walk(nras, Evidence("nras", read(name)), held, NVIDIA, claims.device.issued_at + 60)
    assert (outcome.code, outcome.number) == ("attest.endorsement_missing", "R3")
    assert outcome.check("R3").status is Status.NOT_ESTABLISHED
    digest = wire.digest(claims.device.text).removeprefix("sha256:")
    assert claims.overall.payload["submods"] == {"GPU-0": ["DIGEST", ["SHA-256", digest]]}
    assert claims.overall.nonce == claims.device.nonce


@real
def test_a_key_of_our_own_under_nvidias_name_vouches_for_nothing():
    claims = parse(read("nras/h200_tokens.json"))
    named = jwk(ec_key("forger"), key_path(key=ec_key("forger")), kid=claims.device.header["kid"])
    held = documents([(JWK_SET, json.dumps({"keys": [named]}).encode())])
    outcome = walk(nras, Evidence("nras", read("nras/h200_tokens.json")), held, NVIDIA, claims.device.issued_at + 60)
    assert (outcome.code, outcome.number) == ("attest.unknown_root", "R4")


@real
def test_every_key_that_nvidia_published_leads_to_the_pinned_intermediate():
    data = read("nras/jwks_2026-09-12.json")
    named = [key["kid"] for key in json.loads(data)["keys"]]
    assert len(named) == 32
    for kid in named:
        (key,) = nras_token.keys(documents([(JWK_SET, data)]), kid)
        from_, until = key.path[0].not_before, key.path[0].not_after
        assert until - from_ <= 2 * DAY + 60
        assert require_path(key.path, roots=NVIDIA.certificates, at=from_, self_signed=False) == until
        assert key.path[0].public_key.public_numbers() == key.public.public_numbers()


@real
def test_a_token_of_a_local_verifier_is_signed_by_nobody():
    kept = json.loads((FOLDER / "dstack" / "gpu_attestation_h100_claims.json").read_bytes())["detached_eat"]
    outcome = walk(nras, Evidence("nras", json.dumps(kept).encode()), Endorsements(), NVIDIA, AT)
    assert outcome.code in {"attest.forged", "attest.bad_evidence"}
    assert outcome.number in {"R1", "R2"}


@real
def test_the_page_names_the_pinned_intermediate():
    assert INTERMEDIATE in PAGE.read_text(encoding="utf-8")
