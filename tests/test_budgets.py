"""An owner's budgets through its own client: put in force, looked at, shared by what is sealed again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stage import Rehearsal, call
from strongroom.app.client import budgets
from strongroom.app.client.budgets import Wanted
from strongroom.broker import Charged
from strongroom.budget.charge import Event
from strongroom.budget.document import Privacy
from strongroom.contract import AssetRef
from strongroom.errors import BadBudget, NotCharged, NotFound, StrongroomError, Usage
from world import NOW, charge


@pytest.fixture
def rehearsal(tmp_path: Path) -> Iterator[Rehearsal]:
    found = Rehearsal(tmp_path)
    yield found
    found.close()


def put(rehearsal: Rehearsal, **wanted: Any) -> Any:
    return budgets.put(rehearsal.hospital.home, rehearsal.records, Wanted(**wanted), NOW)


def spend(rehearsal: Rehearsal, manifest: str, *events: Event, run: int = 0) -> None:
    with rehearsal.hospital.home.book.transaction() as page:
        page.charge(Charged(f"sha256:{run:064x}", f"{run:032x}", manifest, "lab", NOW + run, charge(*events)))


def test_what_is_not_said_stays_as_it_is(rehearsal: Rehearsal) -> None:
    first = put(rehearsal, epsilon="3", delta="1e-6", runs=50)
    assert first.dp is not None
    assert (first.version, first.dp.delta, first.counts.values()) == (1, "0.000001", (50, None, None, None))
    second = put(rehearsal, rows=10)
    assert (second.version, second.dp, second.counts.values()) == (2, first.dp, (50, None, 10, None))
    third = put(rehearsal, epsilon="4.50")
    assert third.dp is not None
    assert (third.dp.epsilon, third.dp.delta) == ("4.5", "0.000001")
    assert budgets.in_force(rehearsal.hospital.home, rehearsal.records.digest) == third


@pytest.mark.parametrize(
    "wanted",
    [
        {"epsilon": "3"},
        {"delta": "0"},
        *({"epsilon": text, "delta": "0"} for text in ("x", "inf", "-1", "1e-9999", "1e99999999")),
    ],
)
def test_a_number_that_is_none_is_refused(rehearsal: Rehearsal, wanted: dict[str, str]) -> None:
    with pytest.raises(Usage):
        put(rehearsal, **wanted)


def test_a_budget_that_limits_nothing_is_refused(rehearsal: Rehearsal) -> None:
    with pytest.raises(BadBudget):
        put(rehearsal)


def test_nobody_sets_a_budget_for_what_another_holds(rehearsal: Rehearsal) -> None:
    rehearsal.records  # noqa: B018 - sealed by the hospital
    with pytest.raises(NotFound):
        budgets.find(rehearsal.lab.home, "records.csv")


def test_what_is_sealed_again_under_its_name_shares_the_budget(rehearsal: Rehearsal) -> None:
    put(rehearsal, epsilon="1", delta="0")
    spend(rehearsal, rehearsal.records.digest)
    again = rehearsal.seal(rehearsal.hospital, "records.csv")
    assert again.digest != rehearsal.records.digest
    shared = budgets.in_force(rehearsal.hospital.home, again.digest)
    assert shared is not None
    assert set(shared.assets) == {again.digest, rehearsal.records.digest}
    (epsilon,) = budgets.look(rehearsal.hospital.home, shared)
    assert (str(epsilon.used), str(epsilon.left)) == ("0.500000", "0.500000")


def test_what_was_sealed_under_its_name_before_there_was_a_budget_shares_it_too(rehearsal: Rehearsal) -> None:
    older = rehearsal.seal(rehearsal.hospital, "records.csv")
    assert older.digest in put(rehearsal, runs=3).assets


def test_what_is_sealed_under_another_name_shares_it_by_the_owners_word(rehearsal: Rehearsal) -> None:
    old = put(rehearsal, epsilon="1", delta="0")
    spend(rehearsal, rehearsal.records.digest, run=1)
    home, other = rehearsal.hospital.home, rehearsal.seal(rehearsal.hospital, "renamed.csv")
    assert budgets.in_force(home, other.digest) is None
    own = budgets.put(home, other, Wanted(epsilon="9", delta="0"), NOW)
    spend(rehearsal, other.digest, run=2)
    joined = budgets.put(home, other, Wanted(shares_with="records.csv"), NOW)
    assert set(joined.assets) == {*old.assets, *own.assets}
    assert joined.dp == old.dp  # of the one that it now shares, and not the larger of the two
    assert joined.version == max(old.version, own.version) + 1
    assert [c.manifest for c in budgets.charges(home, joined)] == [rehearsal.records.digest, other.digest]
    assert budgets.look(home, joined)[0].left == 0


def test_an_owner_sees_what_a_proposal_would_spend_of_its_own_budget_alone(rehearsal: Rehearsal) -> None:
    put(rehearsal, runs=1, bytes_out=1 << 30)
    draft = rehearsal.draft(charges={"data": 0, "model": 0})
    found = rehearsal.lab.view(rehearsal.lab.propose(draft).digest).proposal
    (one,) = budgets.spending(rehearsal.hospital.home, found)
    assert (one.role, one.charged, one.fits) == ("data", True, True)
    assert budgets.spending(rehearsal.lab.home, found) == []
    spend(rehearsal, rehearsal.records.digest)
    (one,) = budgets.spending(rehearsal.hospital.home, found)
    assert not one.fits
    put(rehearsal, epsilon="1", delta="0")
    (one,) = budgets.spending(rehearsal.hospital.home, found)
    assert one.noisy


def test_a_proposal_that_charges_nothing_is_told(rehearsal: Rehearsal) -> None:
    put(rehearsal, runs=1)
    found = rehearsal.lab.view(rehearsal.lab.propose(rehearsal.draft()).digest).proposal
    (one,) = budgets.spending(rehearsal.hospital.home, found)
    assert (one.charged, one.fits, one.lines) == (False, False, ())


def test_a_receipt_settles_what_the_broker_charged(rehearsal: Rehearsal) -> None:
    put(rehearsal, runs=2)
    digest = rehearsal.agree(charges={"data": 0})
    rehearsal.run(digest)
    (kept,) = rehearsal.hospital.home.book.charges([rehearsal.records.digest])
    assert (kept.contract, kept.party) == (digest, "lab")
    assert kept.settled is not None
    assert 0 < kept.settled.counts.bytes_out < kept.charge.counts.bytes_out
    assert rehearsal.hospital.home.book.uncharged([rehearsal.records.digest]) == 0
    with pytest.raises(StrongroomError):  # its one run is used; the contract's own limit says so first
        rehearsal.run(digest)


def test_runs_from_before_the_budget_are_told(rehearsal: Rehearsal) -> None:
    rehearsal.run(rehearsal.agree())
    budget = put(rehearsal, runs=2)
    assert rehearsal.hospital.home.book.uncharged(budget.assets) == 1


# --- the command line ---------------------------------------------------------------------------------------------------


def said(rehearsal: Rehearsal, *words: str) -> Any:
    return call("budget", *words, "--as", "hospital", "--home", str(rehearsal.home))


def test_the_history_says_who_when_and_what_is_settled(rehearsal: Rehearsal) -> None:
    put(rehearsal, epsilon="3", delta="0.000001", runs=9)
    events = (Event("gaussian", 2, noise_multiplier="12.5"), Event("epsilon-delta", 1, epsilon="0.5", delta="0"))
    spend(rehearsal, rehearsal.records.digest, *events)
    shown = said(rehearsal, "history", "records.csv")
    assert "lab, run 00000000…" in shown.out
    assert "2 times gaussian, noise 12.5" in shown.out
    assert "not settled" in shown.out
    (one,) = json.loads(said(rehearsal, "history", "records.csv", "--json").out)["charges"]
    assert (one["party"], one["settled"], len(one["charge"]["events"])) == ("lab", None, 2)


def test_a_unit_stays_until_another_is_said(rehearsal: Rehearsal) -> None:
    put(rehearsal, epsilon="1", delta="0", unit="person")
    assert put(rehearsal, epsilon="2").dp == Privacy("2", "0", "person")
    assert "each 'person'" in said(rehearsal, "show", "records.csv").out


def test_the_bar_and_the_numbers_agree(rehearsal: Rehearsal) -> None:
    put(rehearsal, epsilon="1", delta="0", rows=0)
    spend(rehearsal, rehearsal.records.digest)
    shown = said(rehearsal, "show", "records.csv")
    assert "[############............] 0.5 of 1, 0.5 left" in shown.out
    assert "[########################] 0 of 0, 0 left" in shown.out
    value = json.loads(said(rehearsal, "show", "--json").out)["budgets"][0]
    assert value["lines"][0] == {
        "left": "0.500000",
        "limit": "1",
        "name": "epsilon",
        "used": "0.500000",
        "would": "0.500000",
    }
    spend(rehearsal, rehearsal.records.digest, Event("gaussian", 1, noise_multiplier="1"), run=5)
    assert "more than can be said" in said(rehearsal, "show").out


def test_the_signed_budget_is_written_for_auditors(rehearsal: Rehearsal, tmp_path: Path) -> None:
    budget = put(rehearsal, runs=2)
    out = tmp_path / "budget.json"
    assert said(rehearsal, "show", "records.csv", "--out", str(out)).status == 0
    shown = call("inspect", str(out), "--json")
    assert json.loads(shown.out)["payload"] == budget.to_json()
    assert said(rehearsal, "show", "--out", str(out)).status == 2


def test_without_the_accountant_the_proposal_is_still_shown(rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch) -> None:
    from strongroom.app.cli.budget import tell_spending
    from strongroom.app.cli.screen import Screen
    from strongroom.errors import MissingExtra

    def missing(*_: Any) -> None:
        raise MissingExtra("the accountant is not installed")

    monkeypatch.setattr(budgets, "spending", missing)
    proposal = rehearsal.lab.propose(rehearsal.draft())
    (found,) = tell_spending(rehearsal.hospital.home, proposal, Screen())
    assert found["error"]["code"] == "app.missing_extra"
    assert replace(proposal, title="x").title == "x"


# --- what a room answers ------------------------------------------------------------------------------------------------


def test_an_owner_does_not_sign_that_a_room_answers_about_what_has_a_budget(rehearsal: Rehearsal) -> None:
    ref = AssetRef("data", "hospital", rehearsal.records.digest)
    standing: Any = SimpleNamespace(standing=True, assets=(ref,), limits=SimpleNamespace(runs=1), charge=lambda _role: None)
    runs: Any = SimpleNamespace(**{**vars(standing), "standing": False})
    home = rehearsal.hospital.home
    budgets.require_runs(home, standing)  # there is no budget yet
    put(rehearsal, runs=50)
    budgets.require_runs(home, runs)
    budgets.require_runs(rehearsal.lab.home, standing)  # another's
    with pytest.raises(NotCharged, match="what a room answers is charged to none"):
        budgets.require_runs(home, standing)
    said = [clause.text for clause in budgets.costs(home, standing)]
    assert said == ["what a room answers is charged to no budget, so that your broker will refuse"]
    assert "counter it" in budgets.costs(home, runs)[0].text
