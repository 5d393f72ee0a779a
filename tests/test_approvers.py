"""Who must approve, as an asset's owner says: the broker, the enclave, the receipt and the client each hold to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stage import Rehearsal
from strongroom.app.client import approvers
from strongroom.app.client.assets import Asset
from strongroom.app.client.draft import Change
from strongroom.app.client.room import Room
from strongroom.asset import About, Manifest
from strongroom.asset.approvers import MAX_GROUPS, Approver, Quorum, lacking, require_sound
from strongroom.broker import Refusal, Release
from strongroom.contract import Limits, Proposal
from strongroom.errors import ApproverMissing, BadField, Usage
from strongroom.receipt import examine
from world import NOW, TERMS, Asker, Forger, World, keys_of, reviewed, sign_all

CODE = "contract.approver_missing"


def keyid(name: str) -> str:
    return keys_of(name).signing.public.keyid


def group(at_least: int, *names: str) -> Quorum:
    return Quorum(at_least, tuple(Approver(name, keyid(name)) for name in names))


GROUPS = (group(2, "ann", "ben", "cas"), group(1, "dpo"))


def signed_by(*names: str) -> dict[str, str]:
    return {name: keyid(name) for name in names}


# --- counting ---------------------------------------------------------------------------------------------------------


def test_a_group_is_met_by_as_many_as_it_says_and_by_its_own_people_alone() -> None:
    assert lacking(GROUPS, signed_by("ann", "cas", "dpo")) == ()
    assert lacking(GROUPS, signed_by("ann", "dpo")) == ("2 of ann, ben, cas must approve; of them ann did",)
    assert lacking(GROUPS, signed_by("ann", "ben", "cas")) == ("dpo must approve; nobody of them did",)
    assert lacking((), {}) == ()


def test_an_approval_under_another_key_or_by_another_name_does_not_count() -> None:
    assert lacking(GROUPS, {**signed_by("ann", "dpo"), "ben": keyid("ben, after")})
    assert lacking(GROUPS, {**signed_by("ann", "dpo"), "ann-2": keyid("ben")})


@given(st.sets(st.sampled_from(["ann", "ben", "cas", "dpo", "eve"])), st.integers(1, 3))
def test_more_approvals_never_take_one_away(names: set[str], needed: int) -> None:
    quorum = group(needed, "ann", "ben", "cas")
    enough = not lacking([quorum], signed_by(*names))
    assert enough == (len(names & {"ann", "ben", "cas"}) >= needed)
    assert not (enough and lacking([quorum], signed_by(*names, "eve", "ann")))


@pytest.mark.parametrize(
    ("at_least", "names"),
    [(0, ("ann",)), (2, ("ann",)), (1, ()), (1, ("ben", "ann")), (2, ("ann", "ann"))],
    ids=["none needed", "more than there are", "of nobody", "unsorted", "the same name twice"],
)
def test_a_group_that_nobody_or_somebody_twice_would_meet_is_refused(at_least: int, names: tuple[str, ...]) -> None:
    with pytest.raises(BadField):
        group(at_least, *names)


def test_nobody_counts_in_two_groups_or_under_two_names_and_the_owner_in_none() -> None:
    require_sound(GROUPS, "hospital")
    one_key = Quorum(2, (Approver("ann", keyid("ann")), Approver("ben", keyid("ann"))))
    too_many = tuple(group(1, f"p{n}") for n in range(MAX_GROUPS + 1))
    for bad in ((group(1, "ann"), group(1, "ann", "ben")), (one_key,), GROUPS[::-1], (group(1, "hospital"),), too_many):
        with pytest.raises(BadField):
            require_sound(bad, "hospital")


def test_they_are_found_wanting_before_anything_is_sealed() -> None:
    with pytest.raises(BadField, match="owner"):
        About("census", "dataset", "text/csv", "hospital", NOW, TERMS, approvers=(group(1, "hospital"),))


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, unique=True), st.data())
def test_a_group_is_read_as_it_is_written(names: list[str], data: st.DataObject) -> None:
    quorum = group(data.draw(st.integers(1, len(names))), *sorted(names))
    assert Quorum.from_json(quorum.to_json()) == quorum


def test_a_manifest_without_them_is_what_it_was() -> None:
    world = World()
    old = world.assets["data"][0]
    assert "approvers" not in old.to_json()
    world.ask_approval("data", (1, {"dpo": keyid("dpo")}))
    new = world.assets["data"][0]
    assert Manifest.parse(new.encode()) == new != old
    assert replace(new, approvers=()).digest == old.digest


# --- the owner's broker -----------------------------------------------------------------------------------------------


def decided(world: World, **changes: Any) -> Release | Refusal:
    return Asker(world, world.agree(**changes)).ask()


def test_two_of_three_reviewers_and_the_data_protection_officer_are_enough() -> None:
    world, parties = reviewed("ann", "cas", "dpo")
    assert isinstance(decided(world, **parties), Release)


def refused(decision: Release | Refusal, number: str = "D7", code: str = CODE) -> Refusal:
    assert isinstance(decision, Refusal)
    assert (decision.number, decision.code) == (number, code)
    return decision


@pytest.mark.parametrize(
    "names",
    [(), ("ann", "dpo"), ("ann", "ben", "cas"), ("ann", "ann-2", "dpo"), ("ann", "stranger", "dpo")],
    ids=["nobody", "one of two", "another group's", "a doubled approval by one person under two keys", "a stranger's"],
)
def test_a_contract_without_the_approvals_that_the_terms_name_is_refused(names: tuple[str, ...]) -> None:
    world, parties = reviewed(*names)
    contract = world.agree(**parties)
    refusal = refused(Asker(world, contract).ask())
    assert "must approve" in refusal.transcript.checks[6].detail
    assert not world.brokers["hospital"].book.standing(contract.digest).runs
    assert b"must approve" not in refusal.answer()  # who is missing is for the owner to know


def test_a_reviewers_approval_of_their_own_proposal_does_not_count() -> None:
    world, parties = reviewed("ann", "ben", "dpo")
    refused(decided(world, **parties, proposer="ann"))


def test_a_party_by_a_reviewers_name_under_another_key_does_not_count() -> None:
    world, parties = reviewed("ann", "ben", "dpo", moved="ben")
    refused(decided(world, **parties))


def test_a_reviewers_approval_of_other_bytes_is_refused() -> None:
    world, parties = reviewed("ann", "ben", "dpo")
    one = world.agree(**parties)
    two = replace(one.proposal, limits=Limits(2, 300, 1 << 30))
    old = next(s for s in one.envelope.signatures if s.keyid == keyid("ben"))
    signatures = [old, *(two.sign(keys_of(p.name)) for p in two.parties if p.name != "ben")]
    asker = Asker(world, sign_all(two))
    nonce = world.brokers["hospital"].nonce()
    request = asker.request(nonce=nonce, contract=two.envelope(signatures))
    refused(world.brokers["hospital"].decide(request), "D2", "contract.signature_invalid")


def test_a_reviewer_whom_the_owner_unpinned_since_is_refused() -> None:
    world, parties = reviewed("ann", "ben", "dpo")
    contract = world.agree(**parties)
    world.pin("ann", "dpo")
    refused(Asker(world, contract).ask(), "D3", "party.not_pinned")


def test_a_reviewer_removed_from_the_terms_later_does_not_count_under_the_new_ones() -> None:
    world, parties = reviewed("ann", "ben", "dpo")
    before = world.agree(**parties)
    world.ask_approval("data", (2, signed_by("ann", "cas")), (1, signed_by("dpo")))
    refused(decided(world, **parties))
    assert isinstance(Asker(world, before).ask(manifest=before.proposal.assets[0].manifest), Release)  # as it was agreed


# --- the enclave, and whoever reads its receipt -----------------------------------------------------------------------


def test_the_enclave_asks_no_broker_where_an_approval_is_missing() -> None:
    world, parties = reviewed("ann", "dpo")
    contract = world.agree(**parties)
    with pytest.raises(ApproverMissing, match="data"):
        world.run(contract)
    assert not world.brokers["hospital"].asked


def test_v6_a_receipt_of_a_contract_without_the_approvals_that_the_terms_name_fails() -> None:
    # every key holder played along, and the owner's terms said no
    world, parties = reviewed("ann", "dpo")
    bundle = Forger.at_work(world, world.agree(**parties)).bundle()
    problem = examine(bundle, trust=World.trust("ann", "dpo")).transcript.first_problem
    assert problem is not None
    assert (problem.number, problem.code) == ("V6", CODE)
    assert "2 of ann, ben, cas must approve" in problem.detail


# --- parties at work --------------------------------------------------------------------------------------------------


class Reviewed(Rehearsal):
    """Two parties, and three who may review."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.others = [self.join(name) for name in ("ann", "ben", "dpo")]
        everybody = [self.lab, self.hospital, *self.others]
        for me in everybody:
            trust = me.trust
            for other in everybody:
                trust = trust if other is me or other.name in {p.name for p in trust.parties} else trust.pin(other.home.card)
            me.home.save_trust(trust)

    def room_of(self, name: str) -> Room:
        return next(room for room in self.others if room.name == name)

    def close(self) -> None:
        for room in self.others:
            room.close()
        super().close()

    def asked(self, *said: str) -> dict[str, Any]:
        records = self.seal(self.hospital, "records.csv", approvers=approvers.read(self.hospital, said))
        return {"assets": {"model": self.model, "data": records}}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Reviewed]:
    found = Reviewed(tmp_path)
    yield found
    found.close()


def stands(room: Room, proposal: Proposal) -> list[str]:
    view = room.view(proposal.digest)
    return [clause.text for clause in approvers.standing(room, view.proposal, view.history.approved_by)]


def test_whom_the_terms_name_is_a_party_signs_and_is_counted(desk: Reviewed) -> None:
    made = desk.lab.propose(desk.draft(**desk.asked("dpo")))
    assert [p.name for p in made.parties] == ["dpo", "hospital", "lab"]
    assert stands(desk.hospital, made) == ["dpo: dpo has not; 1 missing"]
    desk.hospital.approve(made.digest)
    desk.room_of("dpo").approve(made.digest)
    assert stands(desk.lab, made) == ["dpo: dpo has; enough"]
    desk.run(made.digest)
    (receipt,) = desk.lab.receipts(made.digest)
    assert examine(receipt, trust=desk.lab.trust).transcript.ok


def test_a_proposer_is_told_before_what_is_missing_and_chooses(desk: Reviewed) -> None:
    asked = desk.asked("1:ann,ben")
    with pytest.raises(ApproverMissing, match="1 of ann, ben must approve what uses 'data'") as caught:
        desk.lab.propose(desk.draft(**asked))
    assert "--among ann" in caught.value.hint
    made = desk.lab.propose(desk.draft(**asked, among=("ben",)))
    assert stands(desk.lab, made) == ["1 of ann, ben: ann is no party to it, ben has not; 1 missing"]


def test_nobody_proposes_what_they_alone_would_have_to_approve(desk: Reviewed) -> None:
    draft = desk.draft(**desk.asked("dpo"))
    dpo = desk.room_of("dpo")
    with pytest.raises(ApproverMissing, match="dpo proposes it"):
        dpo.propose(draft)
    made = desk.lab.propose(draft)
    with pytest.raises(ApproverMissing):  # a counter-proposal is a proposal
        dpo.counter(made.digest, Change(min_group=20))


def test_a_proposer_who_pinned_another_key_is_told(desk: Reviewed) -> None:
    asked, made = desk.asked("dpo"), desk.join("ben-2")
    made.close()
    other = replace(made.home.card, name="dpo")
    desk.lab.home.save_trust(desk.lab.trust.unpin("dpo").pin(other))
    with pytest.raises(ApproverMissing, match="dpo: a party under another key than hospital named"):
        desk.lab.propose(desk.draft(**asked))


def test_an_owner_does_not_sign_what_the_owners_own_terms_refuse(desk: Reviewed, monkeypatch: pytest.MonkeyPatch) -> None:
    from strongroom.app.client import draft as drafts

    asked = desk.asked("dpo")
    monkeypatch.setattr(drafts, "joined", lambda *_: set())  # a client that asks nobody
    monkeypatch.setattr(drafts, "require", lambda *_: None)
    made = desk.lab.propose(desk.draft(**asked))
    with pytest.raises(ApproverMissing, match="your own terms"):
        desk.hospital.approve(made.digest)
    assert stands(desk.hospital, made) == ["dpo: dpo is no party to it; 1 missing"]


def test_an_exchange_that_hides_the_terms_cannot_make_them_look_met(desk: Reviewed) -> None:
    made = desk.lab.propose(desk.draft(**desk.asked("dpo")))
    other = desk.hospital.home.book.held(desk.records.digest)
    assert other is not None
    desk.lab.exchange.manifest = lambda *_: other.manifest  # type: ignore[method-assign]
    (data,) = approvers.standing(desk.lab, made, {"lab", "dpo"})
    assert data.text == "cannot be said: the exchange shows another manifest for 'data' (asset.manifest_mismatch)"


def test_approvers_are_said_by_name_and_kept_by_key(desk: Reviewed) -> None:
    two = approvers.read(desk.hospital, ["dpo", "1:ben,ann"])
    assert [str(quorum) for quorum in two] == ["1 of ann, ben", "dpo"]
    assert two[1].of[0].keyid == desk.room_of("dpo").home.card.signing_key.keyid
    assert str(approvers.read(desk.hospital, ["ann,ben"])[0]) == "2 of ann, ben"
    for bad in ("", "2:", "x:ann", ":ann", "eve"):
        with pytest.raises(Usage):
            approvers.read(desk.hospital, [bad])
    with pytest.raises(BadField):
        approvers.read(desk.hospital, ["3:ann,ben"])


def test_an_assets_card_names_them(desk: Reviewed) -> None:
    records = desk.asked("1:ann,ben", "dpo")["assets"]["data"]
    assert Asset(desk.lab, records).card["must approve"] == "1 of ann, ben; dpo"
