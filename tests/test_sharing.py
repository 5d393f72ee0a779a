"""Shared keys with real processes: brokers of different people, some of them killed, some of them lying."""

from __future__ import annotations

import secrets
import sqlite3
import time
from dataclasses import replace

import pytest

from sharing_stage import EVERY, GIVES_TO_ALL, HOLDERS, ONE_BIT, Sharing, killed_and_repaired, parts
from stage import terms
from strongroom import wire
from strongroom.app.client import lies, sharing
from strongroom.asset import Manifest
from strongroom.contract import Proposal
from strongroom.errors import BadBudget, StrongroomError, TooFewShares, Unreachable, Usage
from strongroom.job import Cancel
from strongroom.receipt import verify

# --- sealing, sharing, running ----------------------------------------------------------------------------------------


def test_a_key_that_no_single_broker_can_open(shared: Sharing) -> None:
    stage, records = shared.stage, shared.seal()
    contract = shared.agree(records, runs=4)
    shared.kill("clinic")
    bundle = shared.run(contract)
    assert parts(bundle) == {(1, 2, 1), (1, 3, 1)}
    assert verify(bundle, trust=stage.lab.trust).statement.failure is None
    assert verify(bundle, trust=stage.hospital.trust).statement.failure is None

    shared.kill("notary")
    with pytest.raises(TooFewShares, match="clinic"):
        shared.run(contract)

    # the clinic is lost for good; the notary comes back, and the court takes the clinic's place
    shared.start("notary")
    said = shared.verb("replace", records.name, "clinic", shared.card("court"))
    assert (said["epoch"], said["holders"], said["bad"]) == (2, ["court", "notary", "union"], {})
    shared.verb("tell", contract)
    shared.kill("union")
    again = parts(shared.run(contract))
    assert {(epoch, index) for epoch, index, _ in again} == {(2, 1), (2, 2)}
    assert {slot for _, _, slot in again} == {2}  # the first run has slot 1; the second, which could not be, took none


def test_the_whole_key_is_in_no_brokers_book(shared: Sharing) -> None:
    stage = shared.stage
    key = stage.hospital.home.book.held(stage.records.digest)
    assert key is not None
    shared.verb("share", stage.records.name, 2, *shared.cards())
    assert stage.hospital.home.book.held(stage.records.digest) is None
    for name in (*HOLDERS, "hospital"):
        with sqlite3.connect(shared.home(name).folder / "broker" / "book.db") as c:
            rows = [*c.execute("SELECT key FROM assets"), *c.execute("SELECT deal FROM shares")]
        assert all(key.key.raw not in row[0] for row in rows)
    # a book from before has it again; the broker that starts on it, or its owner who puts it back, has it forget once more
    home = stage.hospital.home
    with home.book._db.write() as c:
        c.execute("UPDATE assets SET key = ? WHERE manifest = ?", (key.key.raw, stage.records.digest))
    found = sharing.read(home, stage.records.digest)
    assert found is not None
    sharing._save(home, replace(found, waiting=("clinic",)))
    assert sharing.forget_shared(home) == []  # not yet handed out, and kept until it is
    sharing._save(home, found)
    assert sharing.forget_shared(home) == [stage.records.digest]
    assert home.book.held(stage.records.digest) is None
    assert sharing.forget_shared(home) == []
    refused = stage.lab.propose(stage.draft()).digest  # the owner did not approve it
    with pytest.raises(StrongroomError):
        shared.run(refused)


def test_what_is_sealed_over_brokers_was_never_with_the_owners_own(shared: Sharing) -> None:
    records = shared.seal()
    home = shared.stage.hospital.home
    assert home.book.held(records.digest) is None
    assert home.book.manifest(records.digest) is not None
    with sqlite3.connect(home.folder / "broker" / "book.db") as c:
        assert c.execute("SELECT key FROM assets WHERE manifest = ?", (records.digest,)).fetchone() == (b"",)


def test_a_dead_broker_at_sealing_is_one_line_and_nothing_is_sealed(shared: Sharing) -> None:
    shared.kill("notary")
    words, out = shared.seal_words("2-of-3", HOLDERS)
    before = len(shared.stage.hospital.home.book.assets())
    said = shared.stage.cli(*words, party="hospital")
    assert (said.status, said.code) == (1, Unreachable.code)
    assert "notary" in said.err
    assert "clinic" not in said.err
    assert not out.exists()
    assert len(shared.stage.hospital.home.book.assets()) == before
    with shared.somebody_else_at("notary"):
        said = shared.stage.cli(*words, party="hospital")
        assert (said.status, said.code) == (1, Unreachable.code)
        assert "where another broker is" in said.err
    shared.start("notary")
    said = shared.stage.cli(*words, "--json", party="hospital")  # the same words, once it is there
    assert (said.status, said.json["waiting"]) == (0, {})


def test_brokers_that_do_not_know_the_owner_take_nothing_and_nothing_is_lost(shared: Sharing) -> None:
    strangers = ("union", "museum")
    trusts = {name: shared.home(name).trust for name in strangers}
    try:
        for name in strangers:
            assert shared.stage.cli("party", "untrust", "hospital", party=name).status == 0
        words, out = shared.seal_words("2-of-3", ("clinic", *strangers))
        said = shared.stage.cli(*words, party="hospital")
        assert (said.status, said.code) == (1, TooFewShares.code)
        assert "union" in said.err
        assert out.exists()  # sealed, and its shares are kept
        shared.home("union").save_trust(trusts["union"])
        found = next(s for s in shared.verb("status")["shared"] if s["waiting"])
        assert found["waiting"] == {"museum": "party.not_pinned"}
        records = shared.stage.hospital.asset(found["manifest"])
        assert len(parts(shared.run(shared.agree(records, untold="museum")))) == 2
    finally:
        for name in strangers:
            shared.home(name).save_trust(trusts[name])
    assert not any(s["waiting"] for s in shared.verb("status")["shared"])


@pytest.mark.parametrize("over", ["2-of-4", "1-of-2", "two-of-three", "2of3"])
def test_brokers_that_are_miscounted_seal_nothing(shared: Sharing, over: str) -> None:
    words, out = shared.seal_words(over, HOLDERS if over != "1-of-2" else HOLDERS[:2])
    said = shared.stage.cli(*words, party="hospital")
    assert said.code in (Usage.code, "broker.bad_enrolment")
    assert not out.exists()


def test_an_asset_with_a_budget_is_not_shared_nor_gets_one(shared: Sharing) -> None:
    stage = shared.stage
    words, out = shared.seal_words("2-of-3", HOLDERS)
    name = words[words.index("--name") + 1]
    (stage.folder / "table.csv").write_bytes(b"a,b\n1,2\n")
    stage.hospital.seal(stage.folder / "table.csv", terms=terms(), name=str(name))
    assert stage.cli("budget", "set", name, "--runs", 3, party="hospital").status == 0
    said = stage.cli("broker", "share", name, 1, shared.card("clinic"), party="hospital")
    assert (said.status, said.code) == (1, BadBudget.code)
    said = stage.cli(*words, party="hospital")  # one of the same name has that budget too
    assert (said.status, said.code) == (1, BadBudget.code)
    assert not out.exists()


def test_what_the_owner_itself_proposes_reaches_the_brokers(shared: Sharing) -> None:
    stage, records = shared.stage, shared.seal()
    found = stage.hospital.propose(stage.draft(assets={"data": records, "model": stage.model}))
    assert stage.hospital.untold == ()
    stage.lab.approve(found.digest)
    assert len(parts(shared.run(found.digest))) == 2


def test_a_withdrawal_and_a_cancel_by_somebody_else_reach_the_brokers(shared: Sharing) -> None:
    stage, records = shared.stage, shared.seal()
    contract = shared.agree(records)
    run_id = secrets.token_hex(16)
    signed = Cancel(contract, "lab", run_id, int(time.time())).sign(stage.lab.home.keys.signing)
    seen = stage.lab.exchange.proposal(contract).envelope
    said = wire.encode({"cancel": signed.to_json(), "contract": seen.to_json()})
    assert sharing.bring(stage.lab.exchange, Proposal.parse(seen.payload), "/v1/cancels", said) == []
    shared.kill("union")
    assert stage.lab.withdraw(contract) == ["the broker of union"]
    for name in HOLDERS[:2]:
        standing = shared.home(name).book.standing(contract, "hospital")
        assert (standing.withdrawn_by, dict(standing.cancelled)) == ({"lab"}, {run_id: {"lab"}})


# --- a refresh that is broken off -------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["after-one-deal"])  # the others are in the soak
def test_a_refresh_that_is_killed_loses_nothing_and_the_next_one_repairs(
    shared: Sharing, often: tuple[Manifest, str], where: str
) -> None:
    killed_and_repaired(shared, often, where)


# --- brokers that lie -------------------------------------------------------------------------------------------------


def test_a_share_with_one_bit_flipped_is_found_and_its_holder_named(shared: Sharing, often: tuple[Manifest, str]) -> None:
    _, contract = often
    shared.lie(ONE_BIT, "notary")
    shared.kill("union")
    with pytest.raises(TooFewShares, match="'notary' gave another share than the one that it holds"):
        shared.run(contract)


def test_three_of_five_that_collude_make_a_second_run_and_the_ledger_proves_who(shared: Sharing) -> None:
    # 2t - n is 3 here: as many liars as it takes for a second run, and too few to open anything by themselves
    stage, records = shared.stage, shared.seal("4-of-5", EVERY)
    contract = shared.agree(records, runs=1)
    shared.lie(GIVES_TO_ALL, *HOLDERS)
    shared.kill("museum")  # who carries the messages decides which honest broker is reached
    first = shared.run(contract)
    shared.kill("court")
    shared.start("museum")
    # the lab, whose key is whole, counts alone and would stop it
    assert stage.cli("grant", contract, "--runs", 1, party="lab").status == 0
    second = shared.run(contract)
    assert {slot for _, _, slot in parts(first) | parts(second)} == {1}  # one slot: two runs where the hospital allowed one
    logged = stage.hospital.receipts(contract)
    assert {b.receipt.digest for b in logged} == {first.receipt.digest, second.receipt.digest}
    assert {lie.name for lie in lies.found(logged)} == set(HOLDERS)
    said = stage.cli("broker", "check", contract, "--json", party="hospital")
    assert said.status == 1
    assert {lie["name"] for lie in said.json["lies"]} == set(HOLDERS)
