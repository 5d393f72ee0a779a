"""Several owners in one run: every owner's terms hold, budgets count reports that could be subtracted, and many people sign
one contract."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow")

from owners import groups, people, raw
from stage import Rehearsal
from strongroom.app.client import budgets
from strongroom.app.client.draft import Draft, Wanted, proposal
from strongroom.asset import Manifest
from strongroom.contract import Contract
from strongroom.errors import NotPermitted, ReleaseRefused, Usage
from strongroom.policy import ANY_PARTY, OutputRule, Policy
from strongroom.programs import OutputSpec, match_report
from world import MEASUREMENT, NOW, World, seed

KEYS = {"inputs": {"census": ["email"], "logs": ["user"]}, "rules": ["email"]}


def permits(min_group: int, use: str = "match-report") -> Policy:
    return Policy(uses={use}, outputs={"report": OutputRule(ANY_PARTY, 1 << 20, min_group, 4)})


@pytest.fixture
def rehearsal(tmp_path: Path) -> Iterator[Rehearsal]:
    found = Rehearsal(tmp_path)
    yield found
    found.close()


def held(rehearsal: Rehearsal, census: int = 100, lab: int = 3, hospital: int = 10) -> dict[str, Manifest]:
    """The hospital's list and the lab's logs, each under its owner's own terms."""
    (rehearsal.folder / "census.csv").write_text("\n".join(["email", *people(range(census))]) + "\n")
    (rehearsal.folder / "logs.csv").write_text("\n".join(["user", *people(range(4, 300))]) + "\n")
    return {
        "census": rehearsal.seal(rehearsal.hospital, "census.csv", terms=permits(hospital)),
        "logs": rehearsal.seal(rehearsal.lab, "logs.csv", terms=permits(lab)),
    }


def draft(assets: Mapping[str, Manifest], min_group: int, **more: Any) -> Draft:
    wanted = {"report": Wanted(("hospital", "lab"))}
    found = Draft("Do they fit?", "match-report", assets, wanted, KEYS, min_group=min_group, decimals=4)
    return replace(found, **more)


def counted(rehearsal: Rehearsal, contract: str) -> dict[str, int | None]:
    """The report of a run in which the program is the real one, as its rule lets it through."""
    agreed, written = rehearsal.lab.contract(contract).proposal, dict[str, bytes]()

    def program(inputs: Mapping[str, Any]) -> Mapping[str, bytes]:
        spec = OutputSpec("report", 1 << 20, agreed.outputs[0].rule.min_group, 4)
        files = {role: raw(opened.file.read(), "csv") for role, opened in inputs.items()}
        match_report.run(files, agreed.program.parameters, {"report": spec}, written.__setitem__, lambda *_: None)
        return written

    rehearsal.run(contract, program)
    (output,) = rehearsal.lab.outputs(contract)
    return groups(json.loads(output.path.read_bytes()))


def agreed(rehearsal: Rehearsal, wanted: Draft) -> str:
    digest = rehearsal.lab.propose(wanted).digest
    rehearsal.hospital.approve(digest)
    return digest


# --- the meet of all terms ------------------------------------------------------------------------------------------------


def test_the_strictest_owners_group_size_holds_for_all(rehearsal: Rehearsal) -> None:
    """The lab permits groups of three. The hospital does not, and four of its people are not in the logs."""
    assets = held(rehearsal)
    with pytest.raises(NotPermitted, match="groups under 10"):
        agreed(rehearsal, draft(assets, 3))
    assert counted(rehearsal, agreed(rehearsal, draft(assets, 10))) == {}


def test_where_both_permit_it_the_same_figures_are_told(rehearsal: Rehearsal) -> None:
    assets = held(rehearsal, hospital=3)
    found = counted(rehearsal, agreed(rehearsal, draft(assets, 3)))
    assert found == {"in all": 96, "census alone": 4, "logs alone": 200}


def test_an_owner_whose_terms_know_no_such_use_keeps_everybody_out(rehearsal: Rehearsal) -> None:
    assets = held(rehearsal)
    elsewhere = rehearsal.seal(rehearsal.hospital, "census.csv", terms=permits(1, "intersection-size"))
    with pytest.raises(NotPermitted, match="match-report"):
        agreed(rehearsal, draft({**assets, "census": elsewhere}, 10))


def test_the_proposers_own_terms_hold_too(rehearsal: Rehearsal) -> None:
    assets = held(rehearsal, lab=50, hospital=3)
    with pytest.raises(NotPermitted, match="groups under 50"):
        agreed(rehearsal, draft(assets, 10))


# --- two reports subtracted -----------------------------------------------------------------------------------------------


def test_two_reports_that_differ_by_one_person_cost_two_of_the_owners_queries(rehearsal: Rehearsal) -> None:
    """The lab asks again with one person less in its logs: the difference would say whether the hospital knows them."""
    assets, charges = held(rehearsal, hospital=3), {"census": 0}
    budgets.put(rehearsal.hospital.home, assets["census"], budgets.Wanted(queries=1), NOW)
    first = counted(rehearsal, agreed(rehearsal, draft(assets, 3, charges=charges)))
    (rehearsal.folder / "logs.csv").write_text("\n".join(["user", *people(range(5, 300))]) + "\n")
    without = {**assets, "logs": rehearsal.seal(rehearsal.lab, "logs.csv", terms=permits(3))}
    second = agreed(rehearsal, draft(without, 3, charges=charges))
    with pytest.raises(ReleaseRefused) as refused:
        counted(rehearsal, second)
    assert refused.value.reason == "budget.exceeded"
    assert first["in all"] == 96
    budgets.put(rehearsal.hospital.home, assets["census"], budgets.Wanted(queries=2), NOW)
    assert counted(rehearsal, second)["in all"] == 95  # what the owner then lets them learn, and sees in its history


def test_an_asset_with_a_budget_is_not_counted_for_nothing(rehearsal: Rehearsal) -> None:
    assets = held(rehearsal, hospital=3)
    budgets.put(rehearsal.hospital.home, assets["census"], budgets.Wanted(queries=5), NOW)
    with pytest.raises(ReleaseRefused) as refused:
        counted(rehearsal, agreed(rehearsal, draft(assets, 3)))
    assert refused.value.reason == "budget.not_charged"


def test_where_epsilon_is_limited_nothing_exact_is_counted(rehearsal: Rehearsal) -> None:
    assets = held(rehearsal, hospital=3)
    budgets.put(rehearsal.hospital.home, assets["census"], budgets.Wanted(epsilon="1", delta="0"), NOW)
    with pytest.raises(ReleaseRefused) as refused:
        counted(rehearsal, agreed(rehearsal, draft(assets, 3, charges={"census": 0})))
    assert refused.value.reason.startswith("budget.")


# --- many people --------------------------------------------------------------------------------------------------------


def test_fifty_people_sign_one_contract_and_each_is_charged() -> None:
    from strongroom.party import DecryptionKey, PartyKeys, SigningKey

    names = [f"p{n:02}" for n in range(50)]
    keys = {
        n: PartyKeys(n, SigningKey(seed(f"{n} sign")), DecryptionKey(seed(f"{n} open") + seed(f"{n} close") + seed(n)))
        for n in names
    }
    world = World()
    manifest = world.assets["data"][0]
    wanted = Draft(
        title="What do we actually watch?",
        program="joint-histogram",
        assets={name: replace(manifest, owner=name, name="history") for name in names},
        outputs={"report": Wanted(tuple(names))},
        parameters={"categories": ["news"], "column": "show", "epsilon": "1", "most": 10, "people": names},
    )
    said: dict[str, Any] = {
        "parties": {n: k.card(SigningKey(seed(f"{n} broker")).public) for n, k in keys.items()},
        "measurements": [MEASUREMENT],
    }
    found = proposal(
        wanted, proposer="p00", program_digest=f"sha256:{seed('program').hex()}", nonce=b"n" * 16, at=NOW, **said
    )
    assert [c.role for c in found.charges] == names
    assert {c.events for c in found.charges} == {found.charges[0].events}
    contract = Contract.verify(found.envelope(found.sign(k) for k in keys.values()))
    assert len(contract.proposal.parties) == 50


def test_a_file_of_somebody_who_is_no_role_of_the_program_is_refused() -> None:
    from strongroom.errors import BadParameters

    world = World()
    manifest = world.assets["data"][0]
    wanted = Draft(
        title="Two of three",
        program="joint-histogram",
        assets={"a": manifest, "b": manifest, "c": manifest},
        outputs={"report": Wanted(("hospital",))},
        parameters={"categories": ["news"], "column": "show", "most": 10, "people": ["a", "b"]},
    )
    with pytest.raises((BadParameters, Usage)):
        proposal(wanted, proposer="lab", parties={}, measurements=[MEASUREMENT], program_digest="", nonce=b"n" * 16, at=NOW)
