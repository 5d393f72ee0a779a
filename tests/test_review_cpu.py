"""What a reader paid to break the attestation of Intel and AMD found: each first a way through, then a refusal."""

from __future__ import annotations

import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import pki_amd as amd
import pki_intel as pki
from evidence_case import Outcome, walk
from pki_intel import AT, World, level, module
from strongroom.attest import second_opinion, snp, tdx
from strongroom.attest.evidence import Evidence
from strongroom.attest.intel_collateral import TcbStatus
from strongroom.attest.snp_terms import Terms as SnpTerms
from strongroom.attest.vector import AFFIRMED
from strongroom.errors import BadField, Revoked, SecondOpinionDiffers
from strongroom.transcript import Transcript

V5 = World(version=5)
RELAUNCH = TcbStatus.TD_RELAUNCH_ADVISED
NOW_OLD = [level({"isvsvn": 11}), level({"isvsvn": 5}, "OutOfDate")]  # without an advisory, which T2 would not tolerate
SPEC = Path(__file__).parents[1] / "spec"


def of(world: World, terms: tdx.Terms | None = None) -> Outcome:
    return walk(tdx, world.evidence(), world.endorsements(), world.roots(), AT, terms)


# --- a TD's report 1.5 says what the machine has now ---------------------------------------------------------------------


def test_a_machine_that_has_fallen_behind_since_the_launch_is_not_up_to_date() -> None:
    world = replace(V5, td={"tee_tcb_svn2": pki.OLD_SVN}, info={"tdxModuleIdentities": [module(levels=NOW_OLD)]})
    outcome = of(world)
    assert outcome.number == "T1"
    assert outcome.verified.tcb_status is TcbStatus.UP_TO_DATE  # Intel's own rule, on which a second verifier agrees
    assert "now OutOfDate" in outcome.check("T1").detail
    both = tdx.Terms(statuses=frozenset({TcbStatus.UP_TO_DATE, TcbStatus.OUT_OF_DATE}))
    tolerated = of(world, both)
    assert tolerated.code == "ok"
    assert tolerated.vector is not None
    assert tolerated.vector.hardware != AFFIRMED


@pytest.mark.parametrize("now", ["SWHardeningNeeded", "ConfigurationAndSWHardeningNeeded"])
def test_advice_to_relaunch_does_not_hide_what_else_the_machine_needs_now(now: str) -> None:
    world = replace(
        V5,
        td={"tee_tcb_svn": pki.OLD_SVN},
        info={
            "tcbLevels": [level(pki.components(tdx=pki.ZERO_TDX), now)],
            "tdxModuleIdentities": [module(levels=NOW_OLD)],
        },
    )
    advised = TcbStatus.TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED if "Configuration" in now else RELAUNCH
    named = tdx.Terms(statuses=frozenset({TcbStatus.UP_TO_DATE, advised}))
    outcome = of(world, named)
    assert outcome.verified.tcb_status is advised
    assert outcome.number == "T1"
    assert of(world, replace(named, statuses=named.statuses | {TcbStatus(now)})).code == "ok"


def test_what_the_machine_has_now_may_be_better_than_anything_that_is_named() -> None:
    world = replace(V5, td={"tee_tcb_svn": pki.OLD_SVN}, info={"tdxModuleIdentities": [module(levels=NOW_OLD)]})
    assert of(world, tdx.Terms(statuses=frozenset({RELAUNCH}))).code == "ok"


# --- a quote has more than one spelling ----------------------------------------------------------------------------------

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def test_the_other_spelling_of_a_signature_says_the_same_and_the_page_says_so() -> None:
    world = World()
    data = world.quote()
    for at in (48 + 584 + 4, 48 + 584 + 4 + 128 + 6 + 384):  # the attestation key's signature, and the PCK's
        s = int.from_bytes(data[at + 32 : at + 64], "big")
        data = data[: at + 32] + (P256_ORDER - s).to_bytes(32, "big") + data[at + 64 :]
    assert data != world.quote()
    outcome = walk(tdx, Evidence("tdx", data), world.endorsements(), world.roots(), AT)
    assert outcome.code == "ok"
    assert "(r, n - s)" in (SPEC / "evidence-intel.md").read_text(encoding="utf-8")


# --- a second verifier in another shape ----------------------------------------------------------------------------------


def _collateral(**_: object) -> object:
    return object()


@pytest.mark.parametrize(
    "other",
    [
        types.SimpleNamespace(),
        types.SimpleNamespace(QuoteCollateralV3=_collateral, verify_with_root_ca=lambda *_: "UpToDate"),
        types.SimpleNamespace(__version__="0.7", QuoteCollateralV3=_collateral, verify_with_root_ca=lambda *_: None),
        types.SimpleNamespace(
            __version__="0.7",
            QuoteCollateralV3=_collateral,
            verify_with_root_ca=lambda *_: types.SimpleNamespace(status="UpToDate", advisory_ids=None),
        ),
    ],
)
def test_a_second_verifier_that_answers_in_another_shape_ends_it_in_a_typed_way(
    other: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(second_opinion, "_import", lambda: other)
    world = World()
    transcript = Transcript(tdx.STEPS)
    with pytest.raises(SecondOpinionDiffers):
        tdx.verify(world.evidence(), world.endorsements(), roots=world.roots(), at=AT, transcript=transcript)


# --- SEV-SNP -------------------------------------------------------------------------------------------------------------


def test_a_root_that_its_own_list_names_vouches_for_nothing() -> None:
    case = replace(amd.good(), documents=amd.documents(crl=amd.crl("genoa", (0x10000,))))
    transcript = Transcript(snp.STEPS)
    with pytest.raises(Revoked):
        case.verify(transcript)
    assert transcript.first_problem is not None
    assert transcript.first_problem.number == "S5"


@pytest.mark.parametrize(
    "arguments",
    [
        {"id_key": "Required"},  # would have counted as "refused", which is what an image without an ID block passes
        {"author_key": "REQUIRED"},
        {"minimum_report_version": 1},
        {"minimum_report_version": 6},
        {"minimum_guest_svn": -1},
        {"minimum_guest_svn": 1 << 32},
        {"minimum_abi": (256, 0)},
        {"mitigations": 1 << 64},
        {"mitigations": -1},
        {"family_ids": frozenset({b""})},
        {"image_ids": frozenset({bytes(17)})},
    ],
)
def test_terms_outside_their_bounds_cannot_be_made(arguments: dict[str, Any]) -> None:
    with pytest.raises(BadField):
        SnpTerms(**arguments)
