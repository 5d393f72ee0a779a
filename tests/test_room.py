"""A party at work, and what it can rely on: nothing lost, nothing overwritten, nothing signed that was not meant."""

from __future__ import annotations

import io
import os
import secrets
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from stage import RECORD_CANARY, InProcess, Rehearsal, Stage, forms, terms
from strongroom import wire
from strongroom.app.client.draft import Change, Wanted, countered, least_policy
from strongroom.app.client.room import MAX_REASON, Room, connect, manifest_path
from strongroom.app.enclave import client as enclave_client
from strongroom.app.exchange.server import exchange
from strongroom.asset import FileSource, unseal
from strongroom.contract import Output, Payment, State
from strongroom.errors import (
    BadField,
    BadParameters,
    BadProposal,
    BadReceipt,
    Conflict,
    EmptyFile,
    EmptyPolicy,
    ManifestMismatch,
    NotAParty,
    NotFound,
    NotPermitted,
    NotPinned,
    PinMismatch,
    ReleaseRefused,
    StrongroomError,
    Superseded,
    TableColumns,
    Unreachable,
    Usage,
    WrongState,
)
from strongroom.policy import ANY_PARTY, MAX_DECIMALS, OutputRule, Policy
from strongroom.receipt import Statement
from strongroom.trust import Trust
from world import MEASUREMENT, RULE


class Cut(httpx.BaseTransport):
    """An exchange that is away."""

    def handle_request(self, _request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("away")


def away(rehearsal: Rehearsal, room: Room) -> Room:
    """The same party while the exchange is away."""
    return rehearsal.room(room.home, Cut())


# --- sealing ----------------------------------------------------------------------------------------------------------


def test_what_is_sealed_opens_again_for_its_owner_alone(rehearsal):
    manifest = rehearsal.seal(rehearsal.lab, "model.onnx")
    (sealed,) = rehearsal.folder.glob("*.sealed")
    envelope = wire.Envelope.parse(manifest_path(sealed).read_bytes())
    with rehearsal.lab.open(sealed, envelope) as reader:
        assert reader.read() == RECORD_CANARY + b"model.onnx"
        assert reader.seek(3) == 3
        assert reader.read(4) == (RECORD_CANARY + b"model.onnx")[3:7]
    with pytest.raises(NotFound, match="holds no key"), rehearsal.hospital.open(sealed, envelope):
        pass
    assert RECORD_CANARY not in sealed.read_bytes()
    assert rehearsal.lab.asset("lab/model.onnx") == rehearsal.hospital.asset(manifest.digest) == manifest


def test_no_key_is_ever_written_beside_the_file(rehearsal):
    rehearsal.seal(rehearsal.lab, "model.onnx")
    (envelope,) = rehearsal.lab.home.book.assets()
    key = rehearsal.lab.home.book.held(envelope.digest).key.raw
    beside = b"".join(p.read_bytes() for p in rehearsal.folder.iterdir() if p.is_file())
    assert not [name for name, value in forms(key).items() if value in beside]


def test_a_file_of_that_name_is_never_overwritten(rehearsal):
    path, out = rehearsal.folder / "f.csv", rehearsal.folder / "f.csv.sealed"
    path.write_bytes(b"x")
    out.write_bytes(b"dear")
    with pytest.raises(Conflict) as raised:
        rehearsal.lab.seal(path, terms=terms())
    assert "--out" in raised.value.hint
    assert out.read_bytes() == b"dear"
    assert rehearsal.lab.home.book.assets() == []


@pytest.mark.parametrize(("content", "error"), [(None, NotFound), (b"", EmptyFile), ("folder", NotFound)])
def test_what_cannot_be_sealed_leaves_nothing(rehearsal, content, error):
    path = rehearsal.folder / "f.csv"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    before = sorted(rehearsal.folder.iterdir())
    with pytest.raises(error):
        rehearsal.lab.seal(path, terms=terms())
    assert sorted(rehearsal.folder.iterdir()) == before
    assert rehearsal.lab.home.book.assets() == []


def test_terms_that_allow_nothing_seal_nothing(rehearsal):
    (rehearsal.folder / "f").write_bytes(b"x")
    with pytest.raises(EmptyPolicy):
        rehearsal.lab.seal(rehearsal.folder / "f", terms=Policy())
    assert not (rehearsal.folder / "f.sealed").exists()


def test_a_folder_that_is_not_there_is_said(rehearsal):
    (rehearsal.folder / "f").write_bytes(b"x")
    with pytest.raises(NotFound, match="cannot write"):
        rehearsal.lab.seal(rehearsal.folder / "f", terms=terms(), out=rehearsal.folder / "no" / "f.sealed")


KILLED = """
import os, signal, sys
from pathlib import Path
from strongroom.app.client import room as module
from strongroom.app.client.home import Home
from stage import terms
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
{patch}
home, file = map(Path, sys.argv[1:])
room = module.Room(Home(home).party("lab"), exchange="http://127.0.0.1:0", enclave="http://127.0.0.1:0")
room.seal(file, terms=terms(), upload=False, progress=die if {progress} else None)
"""


@pytest.mark.parametrize(
    ("patch", "progress"),
    [
        ("", True),
        ("module.sign_manifest = die", False),
        ("real = module.write\nmodule.write = lambda *a, **k: (real(*a, **k), die())", False),
        ("Path.rename = die", False),
    ],
    ids=["half-way", "before-the-key-is-kept", "after-the-manifest", "before-the-name"],
)
def test_a_seal_that_is_killed_leaves_no_half_file_and_loses_no_key(rehearsal, patch, progress):
    path = rehearsal.folder / "f.csv"
    path.write_bytes(RECORD_CANARY * 200_000)
    code = KILLED.format(patch=patch, progress=progress)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])}
    rehearsal.lab.close()
    killed = subprocess.run([sys.executable, "-c", code, str(rehearsal.home), str(path)], env=env, check=False)
    assert killed.returncode == -9
    sealed = rehearsal.folder / "f.csv.sealed"
    assert not sealed.exists()
    held = {e.digest for e in rehearsal.lab.home.book.assets()}
    if manifest_path(sealed).exists():  # never a sealed file or a manifest without its key
        assert wire.digest(wire.Envelope.parse(manifest_path(sealed).read_bytes()).payload) in held
    again = rehearsal.lab.seal(path, terms=terms(), upload=False)
    assert again.digest in {e.digest for e in rehearsal.lab.home.book.assets()}
    plain = io.BytesIO()
    with FileSource(sealed) as source:
        unseal(source, again, rehearsal.lab.home.book.held(again.digest).key, plain)
    assert plain.getvalue() == path.read_bytes()


def test_what_is_on_the_exchange_already_may_be_published_again(rehearsal):
    rehearsal.seal(rehearsal.lab, "model.onnx")
    (sealed,) = rehearsal.folder.glob("*.sealed")
    rehearsal.lab.publish(sealed, wire.Envelope.parse(manifest_path(sealed).read_bytes()))


def test_what_was_sealed_while_the_exchange_was_away_is_published_later(rehearsal):
    path = rehearsal.folder / "f.csv"
    path.write_bytes(b"x")
    with pytest.raises(Unreachable):
        away(rehearsal, rehearsal.lab).seal(path, terms=terms())
    sealed = rehearsal.folder / "f.csv.sealed"
    rehearsal.lab.publish(sealed, wire.Envelope.parse(manifest_path(sealed).read_bytes()))
    assert rehearsal.hospital.asset("lab/f.csv").plaintext_bytes == 1


def test_a_mock_is_the_one_that_the_manifest_names(rehearsal):
    mock, other = rehearsal.folder / "mock.csv", rehearsal.folder / "other.csv"
    mock.write_bytes(b"a,b\n")
    other.write_bytes(b"secret\n")
    manifest = rehearsal.seal(rehearsal.hospital, "records.csv", mock=mock)
    assert manifest.mock.digest == wire.digest(b"a,b\n")
    assert (rehearsal.store.folder / "mock" / manifest.mock.digest.removeprefix("sha256:")).read_bytes() == b"a,b\n"
    (sealed,) = rehearsal.folder.glob("*.sealed")
    envelope = wire.Envelope.parse(manifest_path(sealed).read_bytes())
    for wrong in (other, sealed):
        with pytest.raises(ManifestMismatch):
            rehearsal.hospital.publish(sealed, envelope, mock=wrong)


def test_names_and_kinds_come_from_the_file(rehearsal):
    for name, expected in (
        ("My Records (1).CSV", ("my-records--1-.csv", "dataset", "text/csv")),
        ("...", ("asset", "document", "application/octet-stream")),
        ("m.onnx", ("m.onnx", "model", "application/vnd.onnx")),
        ("\u00fc.parquet", ("parquet", "dataset", "application/vnd.apache.parquet")),
    ):
        path = rehearsal.folder / f"x{name}" if name == "..." else rehearsal.folder / name
        path.write_bytes(b"x")
        found = rehearsal.lab.seal(path, terms=terms(), upload=False, out=rehearsal.folder / secrets.token_hex(4))
        assert (found.name, found.kind, found.media_type) == (("x", *expected[1:]) if name == "..." else expected)


def test_assets_of_those_nobody_pinned_are_not_shown(rehearsal):
    stranger = rehearsal.join("mallory")
    rehearsal.seal(stranger, "model.onnx")
    assert rehearsal.lab.assets() == []
    with pytest.raises(NotFound, match="no asset"):
        rehearsal.lab.asset("mallory/model.onnx")
    stranger.close()


def test_an_asset_under_anothers_name_is_not_shown(rehearsal, monkeypatch):
    monkeypatch.setattr(Room, "name", "hospital")
    rehearsal.seal(rehearsal.lab, "model.onnx")  # signed by the lab, in the hospital's name
    monkeypatch.undo()
    assert rehearsal.hospital.assets() == rehearsal.lab.assets() == []


# --- proposing and countering -----------------------------------------------------------------------------------------


def test_who_proposes_has_signed_and_its_broker_knows(rehearsal):
    proposal = rehearsal.lab.propose(rehearsal.draft())
    view = rehearsal.hospital.view(proposal.digest)
    assert (view.state, view.history.approved_by) == (State.PROPOSED, {"lab"})
    assert rehearsal.lab.home.book.standing(proposal.digest).approved


def test_what_ones_own_terms_forbid_is_not_proposed(rehearsal):
    narrow = rehearsal.seal(rehearsal.lab, "narrow.onnx", terms=terms(min_group=10))
    with pytest.raises(NotPermitted, match="your own terms"):
        rehearsal.lab.propose(rehearsal.draft(assets={"model": narrow, "data": rehearsal.records}))
    assert rehearsal.lab.views() == []


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"runs": 0}, BadField),
        ({"seconds": 0}, BadField),
        ({"memory_bytes": 1}, BadField),
        ({"days": 0}, BadProposal),
        ({"min_group": 0}, BadField),
        ({"max_bytes": 0}, BadField),
        ({"decimals": 16}, BadField),
        ({"title": "a\u202eb"}, BadProposal),
        ({"title": "x" * 201}, BadField),
        ({"sandbox": "none"}, BadField),
        ({"payments": (Payment("lab", "lab", 1, "EUR"),)}, BadProposal),
        ({"payments": (Payment("lab", "hospital", 0, "EUR"),)}, BadField),
        ({"payments": (Payment("lab", "hospital", 1, "eur"),)}, BadProposal),
        ({"payments": (Payment("lab", "mallory", 1, "EUR"),)}, Usage),
        ({"outputs": {}}, BadProposal),
        ({"outputs": {"weights": Wanted(("lab",))}}, BadParameters),
        ({"outputs": {"report": Wanted(("mallory",))}}, Usage),
        ({"outputs": {"report": Wanted(())}}, (BadProposal, EmptyPolicy)),
        ({"parameters": {}}, BadParameters),
        ({"program": "../../evil"}, BadParameters),
    ],
)
def test_a_draft_that_makes_no_proposal_signs_nothing(rehearsal, changes, error):
    with pytest.raises(error):
        rehearsal.lab.propose(rehearsal.draft(**changes))
    assert rehearsal.lab.home.book.approved() == []
    assert rehearsal.store.proposals() == []


def test_a_program_needs_each_of_its_assets(rehearsal):
    with pytest.raises(BadParameters, match="data, model"):
        rehearsal.lab.propose(rehearsal.draft(assets={"model": rehearsal.model}))


def test_without_an_expected_measurement_there_is_nothing_to_propose(rehearsal):
    rehearsal.lab.home.save_trust(Trust().pin(rehearsal.lab.home.card).pin(rehearsal.hospital.home.card))
    with pytest.raises(Usage, match="measurement"):
        rehearsal.lab.propose(rehearsal.draft())


def test_several_measurements_and_payments_are_put_in_order(rehearsal):
    other = replace(MEASUREMENT, registers={**MEASUREMENT.registers, "package": wire.digest(b"next version")})
    payments = (Payment("lab", "hospital", 2, "USD"), Payment("lab", "hospital", 1, "EUR"))
    for order in ((other, MEASUREMENT), (MEASUREMENT, other)):
        trust = replace(rehearsal.lab.trust, measurements=order)
        rehearsal.lab.home.save_trust(trust)
        proposal = rehearsal.lab.propose(rehearsal.draft(payments=payments))
        assert [p.currency for p in proposal.payments] == ["EUR", "USD"]
        assert set(proposal.enclave.measurements) == set(order)


def test_a_counter_takes_the_old_ones_place_at_once(rehearsal):
    first = rehearsal.lab.propose(rehearsal.draft())
    second = rehearsal.hospital.counter(first.digest, Change(min_group=10, decimals=4, max_bytes=1000))
    assert [o.rule for o in second.outputs] == [OutputRule(frozenset({"hospital", "lab"}), 1000, 10, 4)]
    assert rehearsal.hospital.home.book.standing(first.digest).ended_by == second.digest
    assert rehearsal.lab.view(first.digest).state is State.COUNTERED
    with pytest.raises(Superseded):
        rehearsal.lab.approve(first.digest)
    with pytest.raises(WrongState):
        rehearsal.hospital.counter(first.digest, Change(runs=2))
    rehearsal.lab.approve(second.digest)
    assert rehearsal.lab.home.book.standing(first.digest).ended_by == second.digest


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (Change(), Usage),
        (Change(min_group=1), Usage),
        (Change(drop=("weights",)), Usage),
        (Change(recipients={"weights": ("lab",)}), Usage),
        (Change(drop=("report",)), (BadProposal, EmptyPolicy)),
        (Change(runs=0), BadField),
        (Change(seconds=0), BadField),
        (Change(title=""), None),
        (Change(min_group=0), BadField),
        (Change(recipients={"report": ("mallory",)}), BadProposal),
        (Change(payments=(Payment("lab", "hospital", 1, "??"),)), BadProposal),
        (Change(days=-1), BadProposal),
    ],
)
def test_a_counter_that_is_none_leaves_the_proposal_as_it_was(rehearsal, change, error):
    first = rehearsal.lab.propose(rehearsal.draft())
    if error is None:
        rehearsal.hospital.counter(first.digest, change)
        return
    with pytest.raises(error):
        rehearsal.hospital.counter(first.digest, change)
    assert rehearsal.hospital.home.book.standing(first.digest).ended_by is None
    assert rehearsal.hospital.view(first.digest).state is State.PROPOSED
    rehearsal.hospital.approve(first.digest)


def test_a_counter_that_ones_own_terms_forbid_leaves_the_proposal_as_it_was(rehearsal):
    """Else a slip of the hand would end a proposal with nothing in its place."""
    narrow = rehearsal.seal(rehearsal.hospital, "narrow.csv", terms=terms(min_group=10))
    first = rehearsal.lab.propose(rehearsal.draft(assets={"model": rehearsal.model, "data": narrow}))
    with pytest.raises(NotPermitted, match="groups under 10"):
        rehearsal.hospital.counter(first.digest, Change(min_group=5))
    assert rehearsal.hospital.view(first.digest).state is State.PROPOSED
    rehearsal.hospital.counter(first.digest, Change(min_group=10))


def test_every_change_of_a_counter_is_made(rehearsal):
    first = rehearsal.lab.propose(rehearsal.draft())
    change = Change(
        title="t",
        runs=2,
        seconds=9,
        memory_bytes=1 << 21,
        days=3,
        sandbox="process",
        recipients={"report": ("lab",)},
        payments=(Payment("lab", "hospital", 5, "EUR"),),
    )
    new = countered(first, change, proposer="hospital", nonce=bytes(16), at=first.created_at)
    assert (new.title, new.limits.runs, new.limits.seconds, new.limits.memory_bytes) == ("t", 2, 9, 1 << 21)
    assert new.not_after == first.created_at + 3 * 24 * 3600
    assert (new.enclave.sandbox, new.outputs[0].recipients, len(new.payments)) == ("process", ("lab",), 1)


def test_the_least_policy_joins_rules_of_one_kind():
    one, other = Output("a", "report", RULE), Output("b", "report", OutputRule(frozenset({"bank"}), 5, 3, 15))
    joined = least_policy({"evaluate"}, [one, other]).outputs["report"]
    assert joined == OutputRule(frozenset({"bank", "hospital", "lab"}), RULE.max_bytes, 3, 15)
    anybody = Output("c", "report", OutputRule(ANY_PARTY, 1, 99, 0))
    assert least_policy({"evaluate"}, [one, anybody]).outputs["report"].recipients is ANY_PARTY
    assert MAX_DECIMALS == 15


# --- approving --------------------------------------------------------------------------------------------------------


def test_an_enclave_that_this_party_does_not_trust_is_not_approved(rehearsal):
    other = replace(MEASUREMENT, registers={**MEASUREMENT.registers, "package": wire.digest(b"edited")})
    rehearsal.lab.home.save_trust(replace(rehearsal.lab.trust, measurements=(other,)))
    proposal = rehearsal.lab.propose(rehearsal.draft())
    with pytest.raises(NotPermitted, match="does not trust") as raised:
        rehearsal.hospital.approve(proposal.digest)
    assert "strongroom measure" in raised.value.hint
    assert rehearsal.hospital.home.book.approved() == []


def test_what_ones_own_terms_forbid_is_not_approved(rehearsal):
    narrow = rehearsal.seal(rehearsal.hospital, "narrow.csv", terms=terms(min_group=10))
    proposal = rehearsal.lab.propose(rehearsal.draft(assets={"model": rehearsal.model, "data": narrow}))
    with pytest.raises(NotPermitted, match="groups under 10 must be suppressed"):
        rehearsal.hospital.approve(proposal.digest)


def test_an_asset_whose_key_is_not_here_is_not_approved(rehearsal):
    proposal = rehearsal.lab.propose(rehearsal.draft())
    (rehearsal.hospital.home.folder / "broker" / "book.db").rename(rehearsal.folder / "moved.db")
    rehearsal.hospital.close()
    fresh = rehearsal.room(rehearsal.place.party("hospital"))
    with pytest.raises(NotFound, match="holds no key"):
        fresh.approve(proposal.digest)
    fresh.close()


def test_an_approval_that_did_not_get_through_can_be_given_again(rehearsal, monkeypatch):
    proposal = rehearsal.lab.propose(rehearsal.draft())

    def lose(*_: object) -> None:
        raise Unreachable("away")

    with monkeypatch.context() as patch:
        patch.setattr(rehearsal.hospital.exchange, "approve", lose)
        with pytest.raises(Unreachable):
            rehearsal.hospital.approve(proposal.digest)
    assert rehearsal.hospital.approve(proposal.digest).state is State.APPROVED


def test_a_proposal_that_did_not_get_through_is_approved_when_it_did(rehearsal, monkeypatch):
    """The answer was lost, but not the proposal: the proposer's own broker knows it all the same."""
    propose = rehearsal.lab.exchange.propose

    def lose(envelope: wire.Envelope) -> None:
        propose(envelope)
        raise Unreachable("the answer was lost")

    with monkeypatch.context() as patch:
        patch.setattr(rehearsal.lab.exchange, "propose", lose)
        with pytest.raises(Unreachable):
            rehearsal.lab.propose(rehearsal.draft())
    digest = rehearsal.hospital.find(None)
    rehearsal.hospital.approve(digest)
    rehearsal.run(digest)


def test_nobody_approves_for_another(rehearsal):
    stranger = rehearsal.join("bank")
    digest = rehearsal.lab.propose(rehearsal.draft()).digest
    stranger.home.save_trust(stranger.trust.pin(rehearsal.lab.home.card).pin(rehearsal.hospital.home.card))
    with pytest.raises(NotAParty):
        stranger.approve(digest)
    assert stranger.views() == []
    stranger.close()


# --- finding ----------------------------------------------------------------------------------------------------------


def test_a_proposal_is_found_by_an_unambiguous_beginning_and_else_not(rehearsal, monkeypatch):
    digests = [rehearsal.lab.propose(rehearsal.draft(title=f"t{n}")).digest for n in range(17)]
    assert rehearsal.lab.find(None) == digests[-1]
    for digest in digests:
        assert rehearsal.lab.find(digest) == rehearsal.lab.find(digest[7:40]) == rehearsal.lab.find(digest[:40]) == digest
    twice = next(d[7] for d in digests if sum(e[7] == d[7] for e in digests) > 1)  # of 17, two begin alike
    with pytest.raises(NotFound, match=f"proposals begin with '{twice}'") as raised:
        rehearsal.lab.find(twice)
    assert "more of the digest" in raised.value.hint
    with pytest.raises(NotFound, match="no proposal begins"):
        rehearsal.lab.find("sha256:zz")
    for empty in ("", "sha256:"):
        with pytest.raises(NotFound, match="at least one"):
            rehearsal.lab.find(empty)


def test_there_is_nothing_to_find_at_first(rehearsal):
    with pytest.raises(NotFound, match="no proposal yet"):
        rehearsal.lab.find(None)


def test_a_proposal_of_somebody_unpinned_is_not_asked_for_and_the_hint_says_why(rehearsal):
    digest = rehearsal.lab.propose(rehearsal.draft()).digest
    rehearsal.hospital.home.save_trust(rehearsal.hospital.trust.unpin("lab"))
    with pytest.raises(NotFound, match="among the parties that you have pinned") as raised:
        rehearsal.hospital.find(None)
    assert "party trust CARD" in raised.value.hint
    with pytest.raises(NotPinned, match="'lab' is not pinned"):
        rehearsal.hospital.view(digest)


def test_a_proposal_with_keys_that_are_not_those_pinned_is_left_out_and_said(rehearsal):
    digest = rehearsal.lab.propose(rehearsal.draft()).digest
    trust, card = rehearsal.hospital.trust, rehearsal.lab.home.card
    moved = replace(card, broker_url="http://127.0.0.1:2")
    rehearsal.hospital.home.save_trust(trust.unpin("lab").pin(moved))
    views, left_out = rehearsal.hospital.sift()
    assert (views, [(x.digest, x.error.code) for x in left_out]) == ([], [(digest, "party.pin_mismatch")])
    with pytest.raises(PinMismatch, match="another address"):
        rehearsal.hospital.find(None)


def test_proposals_among_strangers_are_no_business_of_this_party(rehearsal):
    rehearsal.lab.propose(rehearsal.draft())
    stranger = rehearsal.join("bank")
    assert stranger.sift() == ([], [])
    stranger.close()


# --- withdrawing and granting -----------------------------------------------------------------------------------------


def test_a_withdrawal_stops_the_next_release(rehearsal):
    digest = rehearsal.agree()
    missed = rehearsal.hospital.withdraw(digest, "the board has not met")
    assert missed == ["the broker of lab"]  # nobody listens there in a rehearsal
    assert rehearsal.lab.view(digest).state is State.WITHDRAWN
    with pytest.raises(ReleaseRefused) as raised:
        rehearsal.run(digest)
    assert raised.value.reason == "contract.withdrawn"
    with pytest.raises(WrongState):
        rehearsal.hospital.withdraw(digest)


def test_an_exchange_that_is_away_stops_no_withdrawal(rehearsal):
    digest = rehearsal.agree()
    missed = away(rehearsal, rehearsal.hospital).withdraw(digest)
    assert "the exchange" in missed
    with pytest.raises(ReleaseRefused) as raised:
        rehearsal.run(digest)
    assert raised.value.reason == "contract.withdrawn"


def test_an_exchange_that_hides_the_proposal_stops_no_withdrawal(rehearsal):
    digest = rehearsal.agree()

    class Hiding(InProcess):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            return httpx.Response(404) if "/proposals/" in request.url.path else super().handle_request(request)

    hiding = rehearsal.room(rehearsal.hospital.home, Hiding(exchange(rehearsal.store)))
    assert "the exchange" in hiding.withdraw(digest)
    assert rehearsal.hospital.home.book.standing(digest).withdrawn_by == {"hospital"}


def test_a_party_that_is_pinned_no_more_does_not_stop_a_withdrawal(rehearsal):
    digest = rehearsal.agree()
    rehearsal.hospital.home.save_trust(rehearsal.hospital.trust.unpin("lab"))
    rehearsal.hospital.withdraw(digest)
    assert rehearsal.lab.view(digest).state is State.WITHDRAWN


def test_a_withdrawal_seen_on_the_exchange_reaches_this_partys_broker(rehearsal):
    digest = rehearsal.agree()
    rehearsal.hospital.withdraw(digest)
    assert not rehearsal.lab.home.book.standing(digest).withdrawn_by
    rehearsal.lab.views()
    assert rehearsal.lab.home.book.standing(digest).withdrawn_by == {"hospital"}


def test_who_is_no_party_withdraws_nothing(rehearsal):
    digest = rehearsal.agree()
    stranger = rehearsal.join("bank")
    with pytest.raises(NotAParty):
        stranger.withdraw(digest)
    assert rehearsal.lab.view(digest).state is State.APPROVED
    stranger.close()


def test_a_reason_is_a_line_and_no_letter(rehearsal):
    digest = rehearsal.agree()
    with pytest.raises(Usage):
        rehearsal.lab.withdraw(digest, "x" * (MAX_REASON + 1))
    assert rehearsal.lab.view(digest).state is State.APPROVED
    rehearsal.lab.withdraw(digest, "\u0000" * MAX_REASON)
    assert rehearsal.hospital.view(digest).state is State.WITHDRAWN


def test_what_is_spent_can_be_granted_again_by_each_owner_for_itself(rehearsal):
    digest = rehearsal.agree()
    rehearsal.run(digest)
    assert rehearsal.lab.view(digest).state is State.SPENT
    rehearsal.lab.grant(digest, 1)
    with pytest.raises(ReleaseRefused) as raised:
        rehearsal.run(digest)
    assert raised.value.reason == "broker.no_run_left"
    rehearsal.hospital.grant(digest, 1)
    rehearsal.run(digest)
    assert len(rehearsal.lab.receipts(digest)) == 2


@pytest.mark.parametrize("runs", [0, -1, 1_000_001])
def test_a_grant_is_of_at_least_one_run(rehearsal, runs):
    digest = rehearsal.agree()
    with pytest.raises(BadField):
        rehearsal.lab.grant(digest, runs)
    assert rehearsal.lab.home.book.standing(digest).granted == 0


def test_what_is_not_agreed_grants_nothing(rehearsal):
    digest = rehearsal.lab.propose(rehearsal.draft()).digest
    with pytest.raises(WrongState):
        rehearsal.lab.grant(digest, 1)


# --- outputs and receipts ---------------------------------------------------------------------------------------------


@pytest.fixture
def done(rehearsal: Rehearsal) -> str:
    """A contract with one run: a report for both, a picture for the hospital alone."""
    outputs = {"report": Wanted(("hospital", "lab")), "calibration": Wanted(("hospital",))}
    digest = rehearsal.agree(outputs=outputs, runs=2)
    rehearsal.run(digest)
    return digest


def test_outputs_are_for_their_recipients_alone(rehearsal, done):
    assert [o.name for o in rehearsal.lab.outputs(done)] == ["report"]
    opened = rehearsal.hospital.outputs(done)
    assert [(o.name, o.path.suffix) for o in opened] == [("calibration", ".png"), ("report", ".json")]
    for found in opened:
        assert stat.S_IMODE(found.path.stat().st_mode) == 0o600
        assert found.path.parent.name == found.receipt.statement.run_id


def test_outputs_may_be_opened_again_and_elsewhere(rehearsal, done):
    first = rehearsal.lab.outputs(done)[0].path.read_bytes()
    (again,) = rehearsal.lab.outputs(done, out=rehearsal.folder / "results")
    assert again.path == rehearsal.folder / "results" / "report.json"
    assert again.path.read_bytes() == first


def test_one_runs_report_never_takes_the_place_of_anothers(rehearsal, done):
    rehearsal.run(done)
    opened = rehearsal.lab.outputs(done, out=rehearsal.folder / "results")
    assert len({o.path for o in opened}) == 2
    assert all(o.path.is_file() for o in opened)


def test_a_run_that_failed_delivers_nothing(rehearsal):
    def fail(_inputs: object) -> dict[str, bytes]:
        raise TableColumns("a column is missing", step="read table")

    digest = rehearsal.agree()
    bundle = rehearsal.run(digest, fail)
    receipt = rehearsal.lab.keep(bundle)
    assert (receipt.statement.failure.step, receipt.statement.failure.code) == ("read table", "program.table_columns")
    assert rehearsal.lab.outputs(digest) == []
    assert rehearsal.lab.view(digest).state is State.SPENT


def test_a_release_without_a_receipt_is_listed(rehearsal):
    digest = rehearsal.agree(runs=2)

    class Dies(Exception):
        pass

    def die(_inputs: object) -> dict[str, bytes]:
        raise Dies

    with pytest.raises(Dies):
        rehearsal.run(digest, die)
    (missing,) = rehearsal.hospital.unreceipted()
    assert missing[0] == digest
    rehearsal.run(digest)
    assert rehearsal.hospital.unreceipted() == [missing]
    assert [d.verdict for d in rehearsal.hospital.decisions()] == ["release", "release"]


def test_an_exchange_that_forgot_everything_hides_no_receipt_from_its_owner(rehearsal, done):
    with rehearsal.store._db.write() as connection:
        for table in ("receipts", "proposals", "approvals"):
            connection.execute(f"DELETE FROM {table}")
    assert rehearsal.hospital.unreceipted() == rehearsal.lab.unreceipted() == []


def test_an_enclave_that_answers_with_another_runs_receipt_is_found_out(rehearsal, done, monkeypatch):
    old = rehearsal.lab.receipts(done)[0]
    monkeypatch.setattr(enclave_client, "run_contract", lambda *_: old)
    with pytest.raises(BadReceipt, match="another run"):
        rehearsal.lab.run(done)
    other = rehearsal.agree(title="another")
    with pytest.raises(BadReceipt, match="another run"):
        rehearsal.lab.run(other)


def test_what_is_not_agreed_is_not_run(rehearsal):
    digest = rehearsal.lab.propose(rehearsal.draft()).digest
    with pytest.raises(StrongroomError) as raised:
        rehearsal.lab.run(digest)
    assert raised.value.code == "contract.signature_missing"


def test_what_has_ended_is_not_run(rehearsal, monkeypatch):
    digest = rehearsal.agree(days=1)
    real = time.time
    monkeypatch.setattr("strongroom.app.client.room.time.time", lambda: real() + 2 * 24 * 3600)
    with pytest.raises(StrongroomError) as raised:
        rehearsal.lab.run(digest)
    assert raised.value.code == "contract.expired"


# --- the log ----------------------------------------------------------------------------------------------------------


def test_the_log_holds_what_was_said_and_the_head_is_kept(rehearsal, done):
    head, entries = rehearsal.lab.ledger()
    assert [e.kind for e in entries] == ["proposal", "approval", "approval", "receipt"]
    assert rehearsal.lab.home.last_seen(head.origin) == head


def test_the_log_is_read_in_parts(rehearsal, done, monkeypatch):
    monkeypatch.setattr("strongroom.app.client.room.PAGE", 3)
    assert len(rehearsal.lab.ledger()[1]) == 4


# --- connecting -------------------------------------------------------------------------------------------------------


def test_a_program_connects_as_one_of_the_parties_here(rehearsal):
    with pytest.raises(NotFound, match="knows no exchange"):
        connect(rehearsal.home, "lab")
    with connect(rehearsal.home, "lab", exchange="http://e", enclave="http://n") as room:
        assert (room.name, room.exchange.client.url) == ("lab", "http://e")
    with pytest.raises(Usage):
        connect(str(rehearsal.home), exchange="http://e", enclave="http://n")


def test_the_whole_path_with_real_processes(stage: Stage):
    assert stage.lab.view(stage.done).state is State.SPENT
    (report,) = stage.lab.outputs(stage.done)
    assert b'"accuracy"' in report.path.read_bytes()
    assert stage.lab.unreceipted() == stage.hospital.unreceipted() == []
    statement = Statement.parse(stage.lab.receipts(stage.done)[0].receipt.payload)
    assert statement.failure is None
