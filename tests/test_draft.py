"""From what a person says to a proposal: nothing is implied later, and nothing is signed that others would refuse."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.app.client.draft import DAY, MAX_BYTES, Change, Draft, Wanted, countered, least_policy, proposal
from strongroom.contract import Output, Payment, Proposal, counters
from strongroom.errors import BadField, BadParameters, BadProposal, StrongroomError, Usage
from strongroom.policy import ANY_PARTY, OUTPUT_KINDS, Airlock, OutputRule, Policy
from strongroom.programs import evaluate
from strongroom.schema import KINDS
from test_schema import schemas_for
from world import EDITED, MEASUREMENT, NOW, PROGRAM, World, card, keys_of, seed

WORLD = World()
MANIFESTS = {role: WORLD.assets[role][0] for role in ("data", "model")}
DRAFT = Draft(
    title="Accuracy of our classifier",
    program="evaluate",
    assets=MANIFESTS,
    outputs={"report": Wanted(("hospital", "lab")), "calibration": Wanted(("hospital",))},
    parameters={"classes": ["0", "1"], "target": "benign", "task": "classification"},
)
PARTIES = {name: card(name) for name in ("hospital", "lab", "notary", "stranger")}


def draft(measurements: Any = (MEASUREMENT,), parties: Any = None, **changes: Any) -> Proposal:
    return proposal(
        replace(DRAFT, **changes),
        proposer="lab",
        parties=PARTIES if parties is None else parties,
        measurements=measurements,
        program_digest=PROGRAM,
        nonce=seed("draft", 16),
        at=NOW,
    )


OLD = draft()


def counter(old: Proposal = OLD, **changes: Any) -> Proposal:
    return countered(old, Change(**changes), proposer="hospital", nonce=seed("counter", 16), at=NOW + 1)


# --- drafts -----------------------------------------------------------------------------------------------------------


def test_what_was_not_said_is_filled_in_for_all_to_read() -> None:
    assert (OLD.proposer, OLD.created_at, OLD.not_before, OLD.not_after) == ("lab", NOW, NOW, NOW + 7 * DAY)
    assert OLD.program.parameters == {
        "features": None,
        "groups": [],
        "positive": None,
        "target": "benign",
        "classes": ["0", "1"],
        "task": "classification",
    }
    assert [p.name for p in OLD.parties] == ["hospital", "lab"]  # those who have a role, and no others
    assert [(a.role, a.owner, a.manifest) for a in OLD.assets] == [
        ("data", "hospital", MANIFESTS["data"].digest),
        ("model", "lab", MANIFESTS["model"].digest),
    ]
    assert [(o.name, o.kind, o.rule.max_bytes) for o in OLD.outputs] == [
        ("calibration", "picture", MAX_BYTES["picture"]),
        ("report", "report", MAX_BYTES["report"]),
    ]
    assert set(MAX_BYTES) == set(OUTPUT_KINDS)
    assert OLD.enclave.sandbox == "isolated"
    assert OLD.payments == ()


def test_the_policy_is_the_least_that_allows_the_outputs() -> None:
    assert OLD.policy == Policy(frozenset({"evaluate"}), {o.kind: o.rule for o in OLD.outputs})


def test_what_others_would_refuse_is_never_signed() -> None:
    assert Proposal.parse(OLD.encode()) == OLD
    OLD.sign(keys_of("lab"))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"title": "two\nlines"}, BadProposal),
        ({"title": "x" * 201}, BadField),
        ({"runs": 0}, BadField),
        ({"runs": -1}, BadField),
        ({"seconds": 0}, BadField),
        ({"memory_bytes": 1}, BadField),
        ({"days": 0}, BadProposal),
        ({"days": -1}, BadProposal),
        ({"min_group": 0}, BadField),
        ({"decimals": 16}, BadField),
        ({"sandbox": "none"}, BadField),
        ({"outputs": {}}, StrongroomError),
        ({"outputs": {"report": Wanted(())}}, StrongroomError),
        ({"outputs": {"report": Wanted(("lab",), min_group=0)}}, BadField),
        ({"outputs": {"report": Wanted(("lab",), max_bytes=0)}}, BadField),
        ({"outputs": {"report": Wanted(("lab",), decimals=-1)}}, BadField),
        ({"outputs": {"weights": Wanted(("lab",))}}, BadParameters),
        ({"outputs": {"report": Wanted(("nobody",))}}, Usage),
        ({"assets": {"model": MANIFESTS["model"]}}, BadParameters),
        ({"assets": {**MANIFESTS, "more": MANIFESTS["data"]}}, BadParameters),
        ({"assets": {"data": MANIFESTS["data"], "model": MANIFESTS["data"]}}, BadProposal),
        ({"program": "exfiltrate"}, BadParameters),
        ({"parameters": {}}, BadParameters),
        ({"parameters": {**DRAFT.parameters, "more": 1}}, BadParameters),
        ({"payments": (Payment("nobody", "lab", 1, "EUR"),)}, Usage),
        ({"payments": (Payment("lab", "lab", 1, "EUR"),)}, BadProposal),
        ({"payments": (Payment("lab", "hospital", 0, "EUR"),)}, BadField),
        ({"payments": (Payment("lab", "hospital", 1, "\x1b[A"),)}, BadProposal),
        ({"payments": (Payment("lab", "hospital", 1, "EUR"), Payment("lab", "hospital", 2, "EUR"))}, BadProposal),
    ],
)  # fmt: skip
def test_a_draft_that_no_proposal_can_say_is_refused(changes: dict[str, Any], error: type[StrongroomError]) -> None:
    with pytest.raises(error):
        draft(**changes)


def test_no_expected_measurement_is_no_proposal() -> None:
    with pytest.raises(Usage):
        draft(measurements=())


def test_only_pinned_parties_are_proposed_to() -> None:
    with pytest.raises(Usage, match="hospital"):
        draft(parties={"lab": card("lab")})


@pytest.mark.parametrize("name", ["predictions", "log"])
def test_an_output_without_groups_cannot_suppress_any(name: str) -> None:
    # else the run would be used up, and its output refused
    with pytest.raises(Usage, match=name):
        draft(outputs={name: Wanted(("lab",))}, min_group=10)
    assert draft(outputs={name: Wanted(("lab",), min_group=1)}, min_group=10).outputs[0].rule.min_group == 1
    with pytest.raises(Usage, match=name):
        counter(draft(outputs={name: Wanted(("lab",))}), min_group=10)


def test_lists_are_brought_into_their_one_order() -> None:
    payments = (Payment("lab", "hospital", 2, "EUR"), Payment("lab", "hospital", 1, "CHF"))
    one = draft(measurements=(EDITED, MEASUREMENT, EDITED), payments=payments)
    other = draft(measurements=(MEASUREMENT, EDITED), payments=payments[::-1])
    assert one == other
    assert set(one.enclave.measurements) == {EDITED, MEASUREMENT}


def test_an_outputs_own_rule_comes_before_the_drafts() -> None:
    outputs = {"report": Wanted(("lab",), min_group=5, decimals=2, max_bytes=100), "calibration": Wanted(("lab",))}
    calibration, report = draft(outputs=outputs, min_group=20, decimals=6).outputs
    assert (report.rule.min_group, report.rule.decimals, report.rule.max_bytes) == (5, 2, 100)
    assert (calibration.rule.min_group, calibration.rule.decimals) == (20, 6)
    sized = draft(outputs=outputs, max_bytes=1000).outputs
    assert [o.rule.max_bytes for o in sized] == [1000, 100]


def test_a_payer_or_proposer_is_a_party_too() -> None:
    names = [p.name for p in draft(payments=(Payment("notary", "lab", 1, "EUR"),)).parties]
    assert names == ["hospital", "lab", "notary"]
    found = proposal(
        DRAFT,
        proposer="stranger",
        parties=PARTIES,
        measurements=(MEASUREMENT,),
        program_digest=PROGRAM,
        nonce=bytes(16),
        at=NOW,
    )
    assert "stranger" in [p.name for p in found.parties]


# --- the least policy -------------------------------------------------------------------------------------------------

recipients = st.just(ANY_PARTY) | st.sets(st.sampled_from(["hospital", "lab", "notary"]), min_size=1).map(frozenset)
locks = st.none() | st.builds(
    Airlock, st.frozensets(st.sampled_from(["hospital", "lab", "notary"]), min_size=1), st.booleans()
)


def rules_for(kind: str) -> st.SearchStrategy[Output]:
    schema = schemas_for(kind) if kind in KINDS else st.none()
    rules = st.builds(
        OutputRule, recipients, st.integers(1, 100), st.integers(1, 100), st.integers(0, 15), schema=schema, release=locks
    )
    return st.builds(Output, st.text("ab", min_size=1), st.just(kind), rules)


outputs_of = st.lists(st.sampled_from(OUTPUT_KINDS).flatmap(rules_for), max_size=6)


@settings(deadline=None)
@given(outputs_of)
def test_the_least_policy_allows_each_output_and_no_narrower_one_does(outputs: list[Output]) -> None:
    least = least_policy({"evaluate"}, outputs)
    asked = [Policy(outputs={o.kind: o.rule}) for o in outputs]
    assert all(least.permits(policy) for policy in asked)
    assert set(least.outputs) == {o.kind for o in outputs}
    for kind, rule in least.outputs.items():
        of_kind = [o.rule for o in outputs if o.kind == kind]
        assert rule.max_bytes in {r.max_bytes for r in of_kind}
        assert rule.min_group in {r.min_group for r in of_kind}
        assert rule.decimals in {r.decimals for r in of_kind}
        if rule.recipients is not ANY_PARTY:
            named = frozenset().union(*(r.recipients for r in of_kind))  # type: ignore[arg-type]
            assert named <= rule.recipients <= named.union(*(r.reviewers for r in of_kind))


# --- counter-proposals ------------------------------------------------------------------------------------------------


def test_a_counter_says_what_it_answers_and_who_answers() -> None:
    new = counter(min_group=20)
    counters(new, OLD)
    assert (new.proposer, new.supersedes, new.created_at) == ("hospital", OLD.digest, NOW + 1)
    assert new.nonce != OLD.nonce
    assert Proposal.parse(new.encode()) == new


CHANGES: dict[str, tuple[dict[str, Any], Any]] = {
    "title": ({"title": "Another"}, lambda p: p.title == "Another"),
    "runs": ({"runs": 2}, lambda p: p.limits.runs == 2),
    "seconds": ({"seconds": 60}, lambda p: p.limits.seconds == 60),
    "memory": ({"memory_bytes": 1 << 29}, lambda p: p.limits.memory_bytes == 1 << 29),
    "days": ({"days": 1}, lambda p: p.not_after == NOW + 1 + DAY),
    "sandbox": ({"sandbox": "process"}, lambda p: p.enclave.sandbox == "process"),
    "groups": ({"min_group": 20}, lambda p: {o.rule.min_group for o in p.outputs} == {20}),
    "decimals": ({"decimals": 3}, lambda p: {o.rule.decimals for o in p.outputs} == {3}),
    "bytes": ({"max_bytes": 500}, lambda p: {o.rule.max_bytes for o in p.outputs} == {500}),
    "drop": ({"drop": ("calibration",)}, lambda p: [o.name for o in p.outputs] == ["report"]),
    "recipients": ({"recipients": {"report": ("lab",)}}, lambda p: p.outputs[-1].recipients == ("lab",)),
    "payments": ({"payments": (Payment("lab", "hospital", 5, "EUR"),)}, lambda p: [x.amount for x in p.payments] == [5]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_counter_changes_what_it_says_and_nothing_else(name: str) -> None:
    changes, seen = CHANGES[name]
    new = counter(**changes)
    assert seen(new)
    for other, (_, elsewhere) in CHANGES.items():
        assert other == name or not elsewhere(new)
    assert new.policy == least_policy({"evaluate"}, new.outputs)
    assert (new.parties, new.assets, new.program) == (OLD.parties, OLD.assets, OLD.program)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({}, Usage),
        ({"runs": 1}, Usage),
        ({"title": OLD.title}, Usage),
        ({"drop": ("weights",)}, Usage),
        ({"recipients": {"weights": ("lab",)}}, Usage),
        ({"recipients": {"report": ("stranger",)}}, BadProposal),  # a counter brings in nobody
        ({"recipients": {"report": ()}}, BadProposal),
        ({"drop": ("calibration", "report")}, StrongroomError),
        ({"runs": 0}, BadField),
        ({"runs": -1}, BadField),
        ({"seconds": 0}, BadField),
        ({"memory_bytes": 0}, BadField),
        ({"min_group": 0}, BadField),
        ({"days": 0}, None),
        ({"days": -8}, BadProposal),
        ({"title": "\u202e"}, BadProposal),
        ({"sandbox": ""}, BadField),
    ],
)
def test_a_counter_that_says_nothing_or_cannot_be_is_refused(
    changes: dict[str, Any], error: type[StrongroomError] | None
) -> None:
    if error is None:  # one second is left
        assert counter(**changes).not_after == NOW + 1
        return
    with pytest.raises(error):
        counter(**changes)


def test_payments_can_be_taken_out() -> None:
    paid = draft(payments=(Payment("lab", "hospital", 5, "EUR"),))
    assert counter(paid, payments=()).payments == ()
    assert counter(paid, runs=2).payments == paid.payments


# --- charges ----------------------------------------------------------------------------------------------------------

EVENT = {"count": 3, "event": "laplace", "noise_multiplier": "8"}
REPORT = {"report": Wanted(("hospital", "lab"))}


@pytest.fixture
def noisy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program says what it spends of the data."""
    monkeypatch.setattr(evaluate, "charges", lambda _parameters: {"data": [EVENT], "model": []}, raising=False)


def test_no_charge_is_stated_for_a_program_that_says_nothing() -> None:
    assert OLD.charges == ()


def test_a_program_that_says_what_it_spends_is_charged_for_it(noisy: None) -> None:
    (found,) = draft(outputs=REPORT).charges
    assert found.to_json() == {
        "counts": {"bytes_out": MAX_BYTES["report"], "queries": 3, "rows": 0, "runs": 1},
        "events": [EVENT],
        "role": "data",
    }


def test_a_role_is_charged_plain_counts_where_somebody_says_so() -> None:
    model, data = draft(outputs=REPORT, charges={"data": 0, "model": 0}).charges[::-1]
    assert (model.role, data.role) == ("model", "data")
    assert data.counts.values() == (1, 1, 0, MAX_BYTES["report"])
    assert data.events == ()


def test_rows_that_may_leave_must_be_said() -> None:
    records = {"predictions": Wanted(("hospital",))}
    with pytest.raises(Usage, match="how many"):
        draft(outputs=records, charges={"data": 0})
    assert draft(outputs=records, charges={"data": 569}).charges[0].counts.rows == 569


def test_a_counter_keeps_the_charges_and_follows_the_outputs(noisy: None) -> None:
    old = draft(outputs=REPORT)
    new = counter(old, max_bytes=1000)
    assert new.charges[0].counts.bytes_out == 1000
    assert new.charges[0].events == old.charges[0].events
    assert [c.role for c in counter(old, charges={"model": 0}).charges] == ["data", "model"]


def test_a_charge_of_no_role_is_refused() -> None:
    with pytest.raises(BadProposal, match="role"):
        draft(outputs=REPORT, charges={"other": 0})
