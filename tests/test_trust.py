"""Trust files: what is not in them is not trusted."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom import wire
from strongroom.attest.appraisal_policy import AppraisalPolicy
from strongroom.attest.evidence import Measurement, Roots
from strongroom.checkpoint import LogKey
from strongroom.errors import BadField, BadKey, BadMeasurement, NotPinned, PinMismatch, StrongroomError
from strongroom.party import Party, SigningKey
from strongroom.trust import FORMAT, Root, Trust
from world import EDITED, LOG, MEASUREMENT, PLATFORM_KEY, ROOT, World, card, keys_of, seed

TRUST = World.trust()
OTHER_LOG = LogKey("other.example", SigningKey(seed("other log"))).verifier.vkey
HARDWARE = Measurement("tdx", {"mrtd": "sha384:" + "0" * 96})


# --- parties ----------------------------------------------------------------------------------------------------------


def test_pinned_parties_are_accepted() -> None:
    TRUST.check([card("lab")])
    TRUST.check([card("hospital"), card("lab")])
    assert TRUST.party("lab") == card("lab")


def test_an_empty_trust_file_accepts_nobody() -> None:
    with pytest.raises(NotPinned):
        Trust().check([card("lab")])


def test_no_parties_at_all_are_not_accepted() -> None:
    with pytest.raises(NotPinned):
        TRUST.check([])
    with pytest.raises(NotPinned):
        TRUST.check(iter(()))


def test_one_party_that_is_not_pinned_is_refused_among_others() -> None:
    with pytest.raises(NotPinned, match="stranger"):
        TRUST.check([card("hospital"), card("lab"), card("stranger")])


@pytest.mark.parametrize("member", ["signing_key", "encryption_key", "broker_key"])
def test_another_key_under_a_pinned_name_is_refused(member: str) -> None:
    imposter = replace(card("lab"), **{member: getattr(card("stranger"), member)})
    with pytest.raises(PinMismatch, match="lab"):
        TRUST.check([card("hospital"), imposter])
    with pytest.raises(PinMismatch, match="lab"):
        TRUST.pin(imposter)


def test_pinned_keys_under_another_name_are_refused() -> None:
    renamed = replace(card("lab"), name="laboratory")
    with pytest.raises(NotPinned):
        TRUST.check([renamed])
    with pytest.raises(PinMismatch):
        TRUST.check([replace(card("lab"), name="hospital")])


def test_an_address_is_no_part_of_a_pin() -> None:
    moved = replace(card("lab"), broker_url="https://elsewhere.example")
    TRUST.check([moved])
    assert TRUST.pin(moved).party("lab") == moved


def test_pinning_keeps_names_sorted_and_single() -> None:
    trust = Trust().pin(card("lab")).pin(card("hospital")).pin(card("lab"))
    assert [p.name for p in trust.parties] == ["hospital", "lab"]


def test_unpinning_is_at_once_and_leaves_others() -> None:
    trust = TRUST.unpin("lab")
    with pytest.raises(NotPinned):
        trust.check([card("lab")])
    trust.check([card("hospital")])
    with pytest.raises(NotPinned):
        trust.unpin("lab")


def test_a_name_pinned_twice_is_refused() -> None:
    with pytest.raises(BadField):
        Trust(parties=(card("lab"), replace(card("lab"), broker_key=keys_of("stranger").signing.public)))


# --- enclaves and logs ------------------------------------------------------------------------------------------------


def test_an_empty_trust_file_accepts_no_platform() -> None:
    assert Trust().appraisal_policy() == AppraisalPolicy()
    assert Trust().log_verifiers() == ()


def test_a_platform_needs_a_root_and_a_measurement() -> None:
    root = Root("simulated", ROOT.public)
    assert Trust(roots=(root,)).appraisal_policy().platforms == frozenset()
    assert Trust(measurements=(MEASUREMENT,)).appraisal_policy().platforms == frozenset()
    assert Trust(roots=(root,), measurements=(HARDWARE,)).appraisal_policy().platforms == frozenset()
    assert TRUST.appraisal_policy().platforms == {"simulated"}


def test_a_platforms_roots_vouch_for_it_alone() -> None:
    trust = TRUST.with_enclaves([Root("tdx", PLATFORM_KEY.public)], [HARDWARE])
    policy = trust.appraisal_policy()
    assert policy.platforms == {"simulated", "tdx"}
    assert dict(policy.roots) == {"simulated": Roots((ROOT.public,)), "tdx": Roots((PLATFORM_KEY.public,))}


def test_enclaves_are_added_once() -> None:
    root = Root("simulated", ROOT.public)
    trust = Trust().with_enclaves([root], [MEASUREMENT]).with_enclaves([root], [MEASUREMENT, EDITED])
    assert trust.roots == (root,)
    assert trust.measurements == (MEASUREMENT, EDITED)


def test_logs_are_added_once_and_only_when_their_key_is_one() -> None:
    trust = TRUST.with_log(LOG.verifier.vkey).with_log(OTHER_LOG)
    assert trust.logs == (LOG.verifier.vkey, OTHER_LOG)
    assert [v.name for v in trust.log_verifiers()] == ["log.example", "other.example"]
    with pytest.raises(BadKey):
        trust.with_log("log.example+00000000+AAAA")


# --- the file ---------------------------------------------------------------------------------------------------------


def test_a_trust_file_is_read_as_it_was_written() -> None:
    trust = TRUST.with_enclaves([], [EDITED, HARDWARE]).with_log(OTHER_LOG).pin(card("stranger"))
    assert Trust.from_json(wire.loads(json.dumps(trust.to_json(), indent=2).encode())) == trust
    assert Trust.from_json(Trust().to_json()) == Trust()


def _file(**members: Any) -> dict[str, Any]:
    return {**TRUST.to_json(), **members}


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (None, BadField),
        ([], BadField),
        ({}, BadField),
        (_file(more=[]), BadField),
        (_file(format="strongroom.trust.v2"), BadField),
        (_file(parties=None), BadField),
        (_file(parties={}), BadField),
        (_file(parties=[card("lab").to_json(), card("lab").to_json()]), BadField),
        (_file(parties=[{**card("lab").to_json(), "signing_key": wire.b64(b"\x01" + bytes(31))}]), BadKey),
        (_file(roots=[{"key": wire.b64(bytes(32)), "platform": "simulated"}]), BadKey),
        (_file(roots=[{"key": wire.b64(ROOT.public.raw), "platform": "Simulated"}]), BadField),
        (_file(roots=[{"key": wire.b64(ROOT.public.raw)}]), BadField),
        (_file(roots=[{"key": wire.b64(ROOT.public.raw), "platform": "simulated", "more": 1}]), BadField),
        (_file(measurements=[{"platform": "simulated", "registers": {}}]), BadMeasurement),
        (_file(measurements=["any"]), BadField),
        (_file(logs=["*"]), BadKey),
        (_file(logs=[7]), BadField),
        (_file(logs=["x" * 513]), BadField),
    ],
)
def test_a_file_that_is_no_trust_file_is_refused(value: Any, error: type[StrongroomError]) -> None:
    with pytest.raises(error):
        Trust.from_json(value)


@pytest.mark.parametrize("member", ["format", "logs", "measurements", "parties", "roots"])
def test_a_member_that_is_missing_is_not_taken_for_an_empty_one(member: str) -> None:
    value = _file()
    del value[member]
    with pytest.raises(BadField):
        Trust.from_json(value)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["logs", "measurements", "parties", "roots", "format"]), values)
def test_nothing_but_our_errors_comes_out_of_a_trust_file(member: str, value: Any) -> None:
    with contextlib.suppress(StrongroomError):
        assert Trust.from_json(_file(**{member: [value]})).to_json()["format"] == FORMAT
    with contextlib.suppress(StrongroomError):
        assert Trust.from_json(_file(**{member: value})).to_json()["format"] == FORMAT


# --- vectors ----------------------------------------------------------------------------------------------------------

VECTORS = sorted((Path(__file__).parents[1] / "vectors" / "trust").glob("*.json"))  # written by make_contract.py


def test_the_folder_holds_vectors_of_both_outcomes() -> None:
    assert {json.loads(path.read_bytes())["expect"] == "ok" for path in VECTORS} == {True, False}


def _happen(case: dict[str, Any]) -> None:
    trust = Trust.from_json(case["trust"])
    assert trust.to_json() == case["trust"]
    if case["operation"] == "check":
        trust.check(Party.from_json(party) for party in case["parties"])


@pytest.mark.parametrize("path", VECTORS, ids=lambda p: p.stem)
def test_vector(path: Path) -> None:
    case = json.loads(path.read_bytes())
    if case["expect"] == "ok":
        _happen(case)
        return
    with pytest.raises(StrongroomError) as caught:
        _happen(case)
    assert caught.value.code == case["expect"]


def test_the_page_shows_a_trust_file_that_is_one() -> None:
    page = (Path(__file__).parents[1] / "spec" / "trust.md").read_text(encoding="utf-8")
    shown = json.loads(page.split("```json\n")[1].split("```")[0])
    assert Trust.from_json(shown).to_json() == shown
    assert shown == replace(TRUST, parties=TRUST.parties[:1]).to_json()
    assert not {member for member in shown if f"`{member}`" not in page}
