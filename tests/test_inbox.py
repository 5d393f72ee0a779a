"""The inbox: what waits for whom, what a reviewer is shown, and that nothing is approved but what was."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("bandit", reason="bandit is not installed: pip install 'strongroom[review]'")

from inbox_case import Code, Desk
from inbox_case import bundle as made_of
from strongroom import wire
from strongroom.app.client import budgets
from strongroom.app.client.audit import audit
from strongroom.app.client.inbox import Inbox
from strongroom.app.client.listed import Filter, News
from strongroom.app.client.room import Room
from strongroom.contract import Proposal, State
from strongroom.errors import (
    BadField,
    CodeMismatch,
    NotFound,
    NotPermitted,
    StrongroomError,
    Unreachable,
    Usage,
    WrongState,
)
from strongroom.party import Party
from strongroom.review import Kind, Note

FIRST = "import pandas as pd\n\n\ndef summarise(census):\n    return {'mean': census.age.mean()}\n"
SECOND = "import pandas as pd\n\n\ndef summarise(census):\n    return {f'mean_{k}': 1 for k in census.city.unique()}\n"
HASH = "--hash=sha256:"


def bundle(text: str = FIRST, lock: str | None = None) -> bytes:
    return made_of(text, lock)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    found = Desk(tmp_path)
    import strongroom.programs

    real = strongroom.programs.load
    monkeypatch.setattr(strongroom.programs, "load", lambda name: Code if name == "code" else real(name))
    yield found
    found.close()


@pytest.fixture
def here(desk: Desk) -> Iterator[Inbox]:
    """The hospital's inbox."""
    with closing(Inbox(desk.hospital)) as found:
        yield found


@pytest.fixture
def lab(desk: Desk) -> Iterator[Inbox]:
    with closing(Inbox(desk.lab)) as found:
        yield found


# --- the list -----------------------------------------------------------------------------------------------------------


def titles(here: Inbox, **wanted: Any) -> list[str]:
    here.refresh()
    return [row.title for row in here.rows(Filter(**wanted))]


def test_what_waits_is_what_this_party_has_still_to_decide(desk: Desk, here: Inbox, lab: Inbox) -> None:
    first, second = desk.propose(title="first"), desk.propose(title="second")
    assert set(titles(here, waiting=True)) == {"first", "second"}
    assert titles(lab, waiting=True) == []
    desk.hospital.approve(first.digest)
    assert titles(here, waiting=True) == ["second"]
    desk.hospital.withdraw(second.digest, "no")
    assert titles(here, waiting=True) == []
    assert titles(here, state=State.WITHDRAWN) == ["second"]
    assert titles(here, state=State.APPROVED) == ["first"]


def test_filters_hold_together(desk: Desk, here: Inbox) -> None:
    desk.propose(title="Bias of recommendations")
    later = desk.propose(title="Survival by age")
    assert titles(here, text="BIAS") == ["Bias of recommendations"]
    assert titles(here, proposer="hospital") == []
    assert titles(here, proposer="lab", text="age") == ["Survival by age"]
    for asset in ("data", "hospital", "records.csv", desk.records.digest, desk.records.digest[:20]):
        assert len(titles(here, asset=asset)) == 2
    assert titles(here, asset="sha256:") == titles(here, asset="nothing") == []
    assert titles(here, since=later.created_at + 1) == []
    assert len(titles(here, since=later.created_at - 3600)) == 2
    assert titles(here, text=later.digest[:20]) == ["Survival by age"]


def test_the_newest_is_first(desk: Desk, here: Inbox) -> None:
    for name in ("a", "b", "c"):
        desk.propose(title=name)
    here.refresh()
    rows = here.rows()
    assert rows == sorted(rows, key=lambda r: (-r.created_at, r.digest))


def test_time_passes_without_the_exchange(desk: Desk, here: Inbox) -> None:
    made = desk.propose()
    here.refresh()
    here.now = lambda: made.not_after
    assert here.rows(Filter(waiting=True)) == []
    (row,) = here.rows(Filter(state=State.EXPIRED))
    assert row.to_json(made.not_after)["state"] == "expired"


def test_a_row_stands_where_the_proposal_stands(desk: Desk, here: Inbox) -> None:
    first, second = desk.propose(), desk.propose(title="second")
    desk.hospital.approve(second.digest)
    here.refresh()
    for row in here.rows():
        assert row.state(here.now()) is desk.hospital.view(row.digest).state
    assert {row.digest for row in here.rows()} == {first.digest, second.digest}


def test_nothing_is_asked_for_twice(desk: Desk, here: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        desk.propose(title=name)
    here.refresh()
    opened = []
    real = Proposal.open
    monkeypatch.setattr(Proposal, "open", classmethod(lambda _cls, envelope: opened.append(1) or real(envelope)))
    here.refresh()
    assert opened == []
    desk.propose(title="c")
    opened.clear()
    here.refresh()
    assert len(opened) <= 2


def test_a_pin_that_is_removed_is_gone_from_the_list(desk: Desk, here: Inbox) -> None:
    desk.propose()
    assert len(titles(here)) == 1
    desk.hospital.home.save_trust(desk.hospital.trust.unpin("lab"))
    assert titles(here) == []
    desk.hospital.home.save_trust(desk.hospital.trust.pin(desk.lab.home.card))
    assert len(titles(here)) == 1


def test_what_cannot_be_relied_on_is_left_out_and_said(desk: Desk, here: Inbox) -> None:
    card = desk.lab.home.card
    moved = Party(card.name, card.signing_key, card.encryption_key, card.broker_key, "https://elsewhere.example")
    desk.hospital.home.save_trust(desk.hospital.trust.unpin("lab").pin(moved))
    desk.propose()
    (left,) = here.refresh()
    assert left.error.code == "party.pin_mismatch"
    assert here.rows() == []


def test_a_proposal_is_found_by_a_beginning_that_is_its_own(desk: Desk, here: Inbox) -> None:
    made = desk.propose()
    here.refresh()
    assert here.find(made.digest[:20]) == made.digest
    assert here.find(made.digest) == made.digest
    for reference in ("", "sha256:", "zz"):
        with pytest.raises(NotFound):
            here.find(reference)


# --- what a reviewer sees ---------------------------------------------------------------------------------------------


def test_a_first_version_is_shown_whole_with_its_findings(desk: Desk, here: Inbox) -> None:
    made = desk.propose(bundle(SECOND))
    sheet = here.show(made.digest)
    (file,) = sheet.files
    assert (file.path, file.status) == ("analysis.py", "new")
    assert "\n".join(line.text for line in file.lines) + "\n" == SECOND
    assert sheet.report is not None
    assert sheet.report.bundle == sheet.bundle
    assert "output.names" in {finding.rule for finding in sheet.report.findings}
    assert sheet.before is None
    assert {"title", "party hospital", "output report"} <= {clause.about for clause in sheet.said}


def test_a_new_version_is_shown_beside_the_one_it_supersedes(desk: Desk, here: Inbox) -> None:
    old = desk.propose(bundle(FIRST, f"numpy==1.0 {HASH}{'ab' * 32}\nold==1 {HASH}{'ab' * 32}\nsame==1 {HASH}{'ab' * 32}\n"))
    lock = f"numpy==1.0 {HASH}{'cd' * 32}\nnew==1 {HASH}{'ab' * 32}\nsame==1 {HASH}{'ab' * 32}\n"
    new = desk.propose(bundle(SECOND, lock), supersedes=old.digest)
    sheet = here.show(new.digest)
    assert sheet.before
    assert sheet.before[0] == old.digest
    (file,) = sheet.files
    assert file.status == "changed"
    assert [line.text for line in file.lines if line.mark == "+"] == [SECOND.splitlines()[-1]]
    assert [line.text for line in file.lines if line.mark == "-"] == [FIRST.splitlines()[-1]]
    assert {(p.package.name, p.status) for p in sheet.packages} == {
        ("new", "new"), ("numpy", "changed"), ("old", "gone"), ("same", "same"),
    }  # fmt: skip


def test_a_version_that_was_never_shown_here_is_no_measure_of_what_is_new(desk: Desk, here: Inbox) -> None:
    old = desk.propose(bundle(SECOND))
    new = desk.propose(bundle(SECOND + "# a harmless change\n"), supersedes=old.digest)
    assert not here.show(new.digest).known
    here.show(old.digest)
    assert here.show(new.digest).known


def test_another_exchange_is_asked_from_its_beginning(desk: Desk, here: Inbox) -> None:
    desk.propose()
    assert len(titles(here)) == 1
    with here.store.write() as page:
        page.mark("place", str(10**9))  # as another exchange counted, or one that lies
    desk.propose(title="later")
    assert len(titles(here)) == 1
    desk.hospital.exchange.client.url = "http://another"
    assert len(titles(here)) == 2


def test_once_a_day_everything_is_asked_for_again(desk: Desk, here: Inbox) -> None:
    desk.propose()
    here.refresh()
    with here.store.write() as page:
        page.mark("place", str(10**9))
    desk.propose(title="later")
    assert len(titles(here)) == 1
    tomorrow = here.now() + 86_400
    here.now = lambda: tomorrow
    assert len(titles(here)) == 2


def test_without_one_it_is_shown_beside_the_last_that_was_agreed_under_its_title(desk: Desk, here: Inbox) -> None:
    agreed = desk.propose(bundle(FIRST))
    here.show(agreed.digest)
    here.approve(agreed.digest, wire.digest(bundle(FIRST)))
    desk.propose(bundle("x = 1\n"))  # never agreed
    here.refresh()
    sheet = here.show(desk.propose(bundle(SECOND)).digest)
    assert sheet.before
    assert sheet.before[0] == agreed.digest
    assert here.show(desk.propose(bundle(SECOND), title="another").digest).before is None


def test_other_code_than_was_proposed_is_not_shown(desk: Desk, here: Inbox) -> None:
    made = desk.propose(bundle(FIRST))
    path = desk.store.file("code", wire.digest(bundle(FIRST)))
    path.write_bytes(bundle(SECOND))
    with pytest.raises(CodeMismatch):
        here.show(made.digest)


def test_code_that_the_exchange_lost_is_not_approved(desk: Desk, here: Inbox) -> None:
    made = desk.propose(bundle(FIRST))
    desk.store.file("code", wire.digest(bundle(FIRST))).unlink()
    with pytest.raises(NotFound):
        here.show(made.digest)
    with pytest.raises(NotPermitted):
        here.approve(made.digest, wire.digest(bundle(FIRST)))


def test_what_a_run_would_spend_of_ones_own_budgets_is_shown_and_of_others_not(desk: Desk, here: Inbox, lab: Inbox) -> None:
    budgets.put(desk.hospital.home, desk.records, budgets.Wanted(runs=5), int(time.time()))
    made = desk.propose(bundle(FIRST))
    (said,) = here.show(made.digest).costs
    assert said.about == "your budget, data"
    assert "nothing is charged to it" in said.text
    made = desk.propose(charges={"data": 0})
    texts = [clause.text for clause in here.show(made.digest).costs]
    assert "runs: a run would spend 1, and 5 is left of 5" in texts
    assert lab.show(made.digest).costs == ()


def test_a_program_of_the_image_is_not_run_on_mocks(desk: Desk, here: Inbox) -> None:
    with pytest.raises(Usage):
        here.run_mock(here.show(desk.propose().digest))


def test_without_bandit_the_code_can_be_read_and_it_is_said(
    desk: Desk, here: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "bandit", None)
    sheet = here.show(desk.propose(bundle(FIRST)).digest)
    assert sheet.report is None
    assert sheet.unreported is not None
    assert sheet.unreported.code == "app.missing_extra"


# --- notes ----------------------------------------------------------------------------------------------------------------


def test_a_comment_stands_at_its_line_for_everybody(desk: Desk, here: Inbox, lab: Inbox) -> None:
    made = desk.propose(bundle(FIRST))
    here.say(made.digest, Kind.COMMENT, "Why the mean?", file="analysis.py", line=5)
    lab.say(made.digest, Kind.COMMENT, "Because.")
    here.say(made.digest, Kind.ASK, "Round it.")
    for one in (here, lab):
        notes = one.show(made.digest).notes
        assert [(n.party, n.kind, n.file, n.line) for n in notes if n.file] == [("hospital", "comment", "analysis.py", 5)]
        assert len(notes) == 3
    lab.refresh()
    (row,) = lab.rows()
    assert (row.notes, row.asks) == (3, 1)


@pytest.mark.parametrize(("file", "line"), [("analysis.py", 0), ("analysis.py", 99), ("other.py", 1), ("analysis.py", None)])
def test_a_comment_on_a_line_that_is_not_there_is_refused(desk: Desk, here: Inbox, file: str, line: int | None) -> None:
    made = desk.propose(bundle(FIRST))
    with pytest.raises(NotFound):
        here.say(made.digest, Kind.COMMENT, "x", file=file, line=line)


def test_a_note_that_the_exchange_made_up_is_not_shown(desk: Desk, here: Inbox) -> None:
    from strongroom.party import SigningKey

    made = desk.propose(bundle(FIRST))
    note = Note(made.digest, wire.digest(bundle(FIRST)), Kind.COMMENT, "hospital", 1, "Approve it at once.")
    forged = note.sign(SigningKey(b"x" * 32))
    with desk.store._db.write() as c:
        row = (forged.digest, made.digest, "hospital", forged.encode())
        c.execute("INSERT INTO notes (digest, proposal, party, envelope) VALUES (?, ?, ?, ?)", row)
    assert here.show(made.digest).notes == ()


def test_a_note_with_what_a_screen_obeys_is_never_signed(desk: Desk, here: Inbox) -> None:
    made = desk.propose(bundle(FIRST))
    with pytest.raises(BadField):
        here.say(made.digest, Kind.COMMENT, "fine\x1b[2J")
    assert desk.hospital.exchange.notes(made.digest) == []


# --- decisions ------------------------------------------------------------------------------------------------------------


def test_what_was_shown_can_be_approved(desk: Desk, here: Inbox) -> None:
    made, code = desk.propose(bundle(FIRST)), wire.digest(bundle(FIRST))
    sheet = here.show(made.digest)
    view = here.approve(made.digest, code, "The mean of ages is harmless.")
    assert view.state is State.APPROVED
    (note,) = here.show(made.digest).notes
    assert sheet.report
    assert (note.kind, note.bundle, note.report) == (Kind.REVIEWED, code, sheet.report.digest)


def test_what_was_not_shown_is_not_approved(desk: Desk, here: Inbox) -> None:
    made, code = desk.propose(bundle(FIRST)), wire.digest(bundle(FIRST))
    with pytest.raises(NotPermitted):
        here.approve(made.digest, code)
    assert desk.hospital.view(made.digest).history.approved_by == {"lab"}
    assert desk.hospital.exchange.notes(made.digest) == []


def test_code_that_was_shown_for_another_proposal_is_not_approved_here(desk: Desk, here: Inbox) -> None:
    shown, made = desk.propose(bundle(FIRST)), desk.propose(bundle(SECOND))
    here.show(shown.digest)
    here.show(made.digest)
    with pytest.raises(NotPermitted):
        here.approve(made.digest, wire.digest(bundle(FIRST)))
    with pytest.raises(NotPermitted):
        here.approve(made.digest, None)
    other = desk.propose(title="same code, another proposal")
    here.show(other.digest)
    with pytest.raises(NotPermitted):
        here.approve(other.digest, wire.digest(bundle(FIRST)))
    assert not desk.hospital.home.book.approved()


def test_a_digest_is_named_whole(desk: Desk, here: Inbox) -> None:
    made, code = desk.propose(bundle(FIRST)), wire.digest(bundle(FIRST))
    here.show(made.digest)
    for digest, named in ((made.digest[:30], code), (made.digest, code[:30]), ("", None)):
        with pytest.raises(Usage):
            here.approve(digest, named)


def test_code_that_is_not_named_as_a_bundle_can_be_read_as_a_row_and_never_approved(desk: Desk, here: Inbox) -> None:
    made = desk.lab._propose(desk.coded("analysis.py"))
    here.refresh()
    assert here.rows()[0].bundle is None
    with pytest.raises(BadField):
        here.show(made.digest)
    with pytest.raises(StrongroomError):
        here.approve(made.digest, None)


def test_what_needs_no_code_is_approved_once_it_was_shown(desk: Desk, here: Inbox) -> None:
    made = desk.propose()
    with pytest.raises(NotPermitted):
        here.approve(made.digest, None)
    here.show(made.digest)
    assert here.approve(made.digest, None).state is State.APPROVED
    with pytest.raises(WrongState):
        here.approve(made.digest, None)


def test_where_the_word_of_what_was_shown_cannot_be_posted_nothing_is_approved(
    desk: Desk, here: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, code = desk.propose(bundle(FIRST)), wire.digest(bundle(FIRST))
    here.show(made.digest)

    def lost(*_: object) -> None:
        raise Unreachable("the exchange does not answer")

    monkeypatch.setattr(desk.hospital.exchange, "note", lost)
    with pytest.raises(Unreachable):
        here.approve(made.digest, code)
    assert desk.hospital.view(made.digest).history.approved_by == {"lab"}


def test_a_refusal_has_a_reason_and_is_a_withdrawal(desk: Desk, here: Inbox) -> None:
    made = desk.propose(bundle(FIRST))
    with pytest.raises(Usage):
        here.refuse(made.digest, " ")
    here.refuse(made.digest, "Names come from the data.")
    assert desk.lab.view(made.digest).history.withdrawn_by == {"hospital"}
    with pytest.raises(StrongroomError):
        here.approve(made.digest, wire.digest(bundle(FIRST)))


# --- news ---------------------------------------------------------------------------------------------------------------


def news(here: Inbox) -> list[tuple[str, str]]:
    found: list[News] = []

    def keep(one: News) -> bytes:
        found.append(one)
        return b"{}"

    here.refresh((["channel"], keep))
    return sorted((one.event, one.by) for one in found)


def test_each_thing_is_news_once(desk: Desk, here: Inbox, lab: Inbox) -> None:
    old = desk.propose(title="old")
    assert news(here) == [("proposed", "lab")]
    assert news(here) == []
    assert news(lab) == []
    here.say(old.digest, Kind.ASK, "Less.")
    desk.hospital.approve(old.digest)
    assert news(here) == [("agreed", "lab")]
    assert news(lab) == [("agreed", "lab"), ("approved", "hospital"), ("ask", "hospital")]
    made = desk.propose(title="new")
    assert news(here) == [("proposed", "lab")]
    desk.lab.withdraw(made.digest, "never mind")
    assert news(here) == [("withdrawn", "lab")]
    assert news(here) == []


def test_an_index_that_is_made_anew_tells_nothing_twice(desk: Desk, here: Inbox) -> None:
    desk.propose()
    assert news(here) == [("proposed", "lab")]
    desk.hospital.home.save_trust(desk.hospital.trust.unpin("lab"))
    assert news(here) == []
    desk.hospital.home.save_trust(desk.hospital.trust.pin(desk.lab.home.card))
    assert news(here) == []
    assert len(here.rows()) == 1


# --- the audit ----------------------------------------------------------------------------------------------------------


def auditor(desk: Desk) -> Room:
    """Somebody who is no party, and pinned the parties and the log."""
    desk.place.create("auditor", host="127.0.0.1", port=1)
    home = desk.place.party("auditor")
    trust = home.trust.with_log(desk.log.verifier.vkey)
    for room in (desk.lab, desk.hospital):
        trust = trust.pin(room.home.card)
    home.save_trust(trust)
    return desk.room(home)


def test_an_auditor_sees_who_decided_what_when_and_why(desk: Desk, here: Inbox) -> None:
    made, code = desk.propose(bundle(FIRST)), wire.digest(bundle(FIRST))
    here.say(made.digest, Kind.ASK, "Round it.")
    here.show(made.digest)
    here.approve(made.digest, code, "Harmless.")
    refused = desk.propose(title="another")
    here.refuse(refused.digest, "The board has not met.")
    with auditor(desk) as room:
        _, lines = audit(room)
        assert all(line.established for line in lines)
        assert [(x.index, x.what, x.who, x.why) for x in lines] == [
            (0, "proposal", "lab", made.title),
            (1, "approval", "lab", ""),
            (2, "ask", "hospital", "Round it."),
            (3, "reviewed", "hospital", "Harmless."),
            (4, "approval", "hospital", "Harmless."),
            (5, "proposal", "lab", "another"),
            (6, "approval", "lab", ""),
            (7, "withdrawal", "hospital", "The board has not met."),
        ]
        assert code in lines[4].note
        assert all(line.at for line in lines if line.what != "approval" or line.who == "hospital")
        assert [x.index for x in audit(room, refused.digest)[1]] == [5, 6, 7]
        assert json.dumps([line.to_json() for line in lines])


def test_to_who_pinned_nobody_nothing_is_established(desk: Desk, here: Inbox) -> None:
    made = desk.propose()
    here.say(made.digest, Kind.COMMENT, "Why?")
    with auditor(desk) as room:
        trust = room.trust
        room.home.save_trust(trust.unpin("lab"))
        _, lines = audit(room)
        assert len(lines) == 3
        assert not any(line.established for line in lines)
        assert all("pinned" in line.note for line in lines)


def test_what_the_exchange_hides_is_missing_by_its_entry(desk: Desk, here: Inbox) -> None:
    made = desk.propose()
    here.say(made.digest, Kind.COMMENT, "This must not be lost.")
    with desk.store._db.write() as c:
        c.execute("DELETE FROM notes")
    with auditor(desk) as room:
        lines = audit(room)[1]
        assert [(x.what, x.established) for x in lines] == [("proposal", True), ("approval", True), ("review", False)]
        assert "not shown" in lines[2].note


def test_what_the_exchange_shows_and_never_logged_is_said(desk: Desk, here: Inbox) -> None:
    made = desk.propose()
    note = Note(made.digest, None, Kind.COMMENT, "hospital", 1, "Beside the log.")
    signed = note.sign(desk.hospital.home.keys.signing)
    with desk.store._db.write() as c:
        row = (signed.digest, made.digest, "hospital", signed.encode())
        c.execute("INSERT INTO notes (digest, proposal, party, envelope) VALUES (?, ?, ?, ?)", row)
    with auditor(desk) as room:
        last = audit(room)[1][-1]
        assert (last.index, last.established, last.why) == (None, False, "Beside the log.")


def test_runs_and_releases_are_in_it(desk: Desk) -> None:
    contract = desk.agree()
    desk.lab.keep(desk.run(contract))
    with auditor(desk) as room:
        root = desk.lab.trust
        room.home.save_trust(room.trust.with_enclaves(root.roots, root.measurements))
        kinds = {(x.what, x.who): x for x in audit(room)[1]}
        assert kinds["receipt", "the enclave"].established


# --- an exchange that lies ------------------------------------------------------------------------------------------------


class Tampering(httpx.BaseTransport):
    """An exchange that answers a path with something else."""

    def __init__(self, real: httpx.BaseTransport, path: str, answer: Any) -> None:
        self._real, self._path, self._answer = real, path, answer

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == self._path:
            return httpx.Response(200, content=wire.encode(self._answer), request=request)
        return self._real.handle_request(request)


@pytest.mark.parametrize(
    "answer", [{}, [], {"changes": [{}], "next": None}, {"changes": [], "next": 0}, {"changes": 1, "next": 1}]
)
def test_an_answer_that_is_no_list_of_changes_is_refused_and_nothing_is_lost(desk: Desk, answer: Any) -> None:
    desk.propose()
    with closing(Inbox(desk.hospital)) as good:
        good.refresh()
    with closing(Inbox(desk.room(desk.hospital.home, Tampering(desk.web, "/v1/changes", answer)))) as bad:
        with pytest.raises(BadField):
            bad.refresh()
        assert len(bad.rows()) == 1
