"""An owner's inbox: what waits for a decision, everything about one proposal, and what the owner says of it.

Proposals and notes are verified as they come, under this party's own pins, and indexed in its folder; the exchange is then
asked for nothing but what changed since. What somebody has not pinned is left out, and said.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from strongroom import wire
from strongroom.contract import Proposal, require, state
from strongroom.errors import BadField, NotFound, NotPermitted, StrongroomError, Usage
from strongroom.review import Kind, Note, bundle_of
from strongroom.wire import Envelope

from . import approvers
from .analysis import Tried, try_proposal
from .budgets import costs
from .changes import FileDiff, PackageChange, diff, packages
from .code import Code, read_code
from .home import read
from .inspection import Report, inspect
from .listed import Filter, News, Row
from .prose import Clause, clauses
from .room import LeftOut, Room, View, is_whole
from .trials import Claim, claim_of

FORMAT = "1"  # of the index; what another one left is made anew
DAY = 86_400


Herald = tuple[Sequence[str], Callable[[News], bytes]]
"""Channels by name, and the notice of some news for them."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """Everything that a reviewer sees of one proposal.

    Attributes:
        view: checked.
        said: what it says, in words.
        code: what it runs; ``None`` where it runs a program of the measured image.
        before: the proposal and code that it is compared with, if there is one.
        known: whether this party was shown that one here, or approved it: else what did not change is news to it too.
        files, packages: the differences to it.
        report: the static report, or ``None``.
        unreported: why there is no report, where there should be one.
        notes: verified, oldest first.
        costs: what a run would spend of this party's own budgets.
        approvers: of those whom the assets' terms name, who has approved and who has not.
        claim: what the proposer says that the code did on the mocks, if anything.
    """

    view: View
    said: tuple[Clause, ...]
    code: Code | None
    before: tuple[str, Code] | None
    known: bool
    files: tuple[FileDiff, ...]
    packages: tuple[PackageChange, ...]
    report: Report | None
    unreported: StrongroomError | None
    notes: tuple[Note, ...]
    costs: tuple[Clause, ...]
    approvers: tuple[Clause, ...]
    claim: Claim | None

    @property
    def bundle(self) -> str | None:
        return self.code.digest if self.code else None


class Inbox:
    """One party's inbox.

    Args:
        room: the party at work. Its folder keeps the index.
        now: Unix seconds.
    """

    def __init__(self, room: Room, *, now: Callable[[], int] = lambda: int(time.time())) -> None:
        from strongroom.app.stores.inbox import InboxStore

        self.room, self.now = room, now
        self.store = InboxStore(room.home.folder / "inbox.db")
        self._sheets: dict[str, tuple[bytes, Code, Report | None, StrongroomError | None]] = {}

    def close(self) -> None:
        self.store.close()

    # --- the list ---

    def refresh(self, herald: Herald | None = None) -> list[LeftOut]:
        """Ask what changed, verify it, and index it: all of what came, or nothing. What is news is put into the outbox.

        Once a day everything is asked for again: an exchange that counted its changes otherwise for a while, or that was
        restored from a backup, hides nothing for longer.

        Args:
            herald: the channels that are told what is news, and what they are told; those of the party by default.

        Returns:
            what names this party among what changed, and cannot be relied on.
        """
        from strongroom.app.notify import herald_of

        channels, notice = herald or herald_of(self.room.home, self.now)
        seen = (FORMAT, self.room.exchange.client.url, wire.digest(read(self.room.home.folder / "trust.json")))
        trust = " ".join(seen)
        same, at = self.store.mark("trust") == trust, self.now()
        whole = not same or not 0 <= at - int(self.store.mark("whole") or 0) < DAY
        place = 0 if whole else int(self.store.mark("place") or 0)
        views, left_out, changed = self.room.changes(place)
        counts = {change.seen.envelope.digest: change.notes for change in changed}
        names = self._names() if views else {}
        fresh = []
        for view in views:
            digest = view.proposal.digest
            old = self._row(digest) if same else None
            known = old.notes if old else 0
            notes = self._heard(view.proposal) if counts[digest] != known else None
            fresh.append((old, self._indexed(view, names, notes, old, counts[digest]), notes or []))
        with self.store.write() as page:
            if not same:
                page.clear()
                page.mark("trust", trust)
            for old, row, notes in fresh:
                page.put(row.digest, row.created_at, row.encode())
                page.put_notes(row.digest, (envelope for envelope, _ in notes))
                for news in self._news(old, row, [note for _, note in notes]):
                    if page.tell(f"{news.event} {news.key}"):
                        for channel in channels:
                            page.post(channel, notice(news), at)
            if whole:
                page.mark("whole", str(at))
            if changed or whole:
                page.mark("place", str(max((change.place for change in changed), default=0)))
        return left_out

    def _row(self, digest: str) -> Row | None:
        data = self.store.row(digest)
        return Row.parse(data) if data else None

    def _names(self) -> dict[str, str]:
        """Names of this party's own assets, by their manifests."""
        from strongroom.asset import Manifest

        return {envelope.digest: Manifest.parse(envelope.payload).name for envelope in self.room.home.book.assets()}

    def _heard(self, proposal: Proposal) -> list[tuple[Envelope, Note]]:
        """The notes that the exchange shows and that parties signed; whatever else it shows is none."""
        found = []
        for envelope in self.room.exchange.notes(proposal.digest):
            try:
                found.append((envelope, Note.verify(envelope, proposal)))
            except StrongroomError:
                continue
        return found

    def _indexed(
        self,
        view: View,
        names: Mapping[str, str],
        notes: list[tuple[Envelope, Note]] | None,
        old: Row | None,
        count: int,
    ) -> Row:
        p, h = view.proposal, view.history
        asks = sum(note.kind is Kind.ASK for _, note in notes) if notes is not None else (old.asks if old else 0)
        words = {word for a in p.assets for word in (a.role, a.owner, a.manifest, names.get(a.manifest, a.role))}
        return Row(
            digest=p.digest,
            title=p.title,
            proposer=p.proposer,
            created_at=p.created_at,
            not_after=p.not_after,
            settled=state(p, h, 0).value,
            waits=self.room.name not in h.approved_by,
            parties=tuple(party.name for party in p.parties),
            approved_by=tuple(sorted(h.approved_by)),
            withdrawn_by=tuple(sorted(h.withdrawn_by)),
            countered_by=h.countered_by,
            supersedes=p.supersedes,
            program=p.program.name,
            bundle=_bundle_or_none(p),
            assets=tuple(sorted(words)),
            notes=count,
            asks=asks,
        )

    def _news(self, old: Row | None, row: Row, notes: list[Note]) -> Iterable[News]:
        """What others did; what this party did itself is no news to it."""
        at = self.now()
        if row.waiting(at):
            yield News("proposed", row.digest, row.proposer, row.digest)
        if old is None:
            return  # the index is new: what was there before it is not news
        for name in set(row.approved_by) - set(old.approved_by) - {self.room.name}:
            yield News("approved", row.digest, name, f"{row.digest} {name}")
        if set(row.approved_by) == set(row.parties) != set(old.approved_by):
            yield News("agreed", row.digest, row.proposer, row.digest)
        for name in set(row.withdrawn_by) - set(old.withdrawn_by) - {self.room.name}:
            yield News("withdrawn", row.digest, name, f"{row.digest} {name}")
        if row.countered_by and not old.countered_by:
            yield News("countered", row.digest, "", row.digest)
        for note in notes:
            if note.party != self.room.name:
                yield News(note.kind.value, row.digest, note.party, wire.digest(note.encode()))

    def rows(self, wanted: Filter | None = None) -> list[Row]:
        """What is indexed, the newest first."""
        at, wanted = self.now(), wanted or Filter()
        return [row for data in self.store.rows() if wanted.takes(row := Row.parse(data), at)]

    def find(self, reference: str) -> str:
        """The digest of an indexed proposal by any beginning that is one's alone. Raises NotFound."""
        if is_whole(reference):
            return reference
        start = reference.removeprefix("sha256:")
        found = [row.digest for row in self.rows() if start and row.digest.removeprefix("sha256:").startswith(start)]
        if len(found) != 1:
            raise NotFound(f"{len(found) or 'no'} proposals begin with {reference!r}", hint="See: strongroom inbox list")
        return found[0]

    # --- one proposal ---

    def show(self, digest: str) -> Sheet:
        """Everything about one proposal, checked, and noted as shown to this party here.

        Raises:
            NotFound, ContractError, PartyError and their leaves. CodeMismatch: the exchange shows other code.
        """
        view = self.room.view(digest)
        notes = tuple(sorted((note for _, note in self._heard(view.proposal)), key=lambda note: note.at))
        bundle, code, report, failed = bundle_of(view.proposal), None, None, None
        before: tuple[str, Code] | None = None
        if bundle is not None:
            code, report, failed = self._code(bundle)
            before = self._before(view.proposal)
        sheet = Sheet(
            view=view,
            said=tuple(clauses(view.proposal)),
            code=code,
            before=before,
            known=before is not None and self._known(before[0], before[1].digest),
            files=diff(before[1] if before else None, code) if code else (),
            packages=packages(before[1] if before else None, code) if code else (),
            report=report,
            unreported=failed,
            notes=notes,
            costs=tuple(costs(self.room.home, view.proposal)),
            approvers=tuple(approvers.standing(self.room, view.proposal, view.history.approved_by)),
            claim=claim_of(self.room, view.proposal),
        )
        self.store.show(digest, bundle or "", report.digest if report else "", self.now())
        return sheet

    def _code(self, bundle: str) -> tuple[Code, Report | None, StrongroomError | None]:
        """A bundle and the report on it, which are the same each time."""
        if bundle not in self._sheets:
            data = self.room.exchange.code(bundle)
            code = read_code(data, bundle)
            try:
                made: tuple[Report | None, StrongroomError | None] = (inspect(data, code), None)
            except StrongroomError as error:  # bandit is not installed: the code can still be read
                made = (None, error)
            while len(self._sheets) >= 8:
                del self._sheets[next(iter(self._sheets))]
            self._sheets[bundle] = (data, code, *made)
        _, code, report, failed = self._sheets[bundle]
        return code, report, failed

    def _before(self, proposal: Proposal) -> tuple[str, Code] | None:
        """What it is compared with: what it supersedes, or the last agreed one of this proposer under this title."""
        candidates = [proposal.supersedes] if proposal.supersedes else []
        candidates += [
            row.digest
            for row in self.rows(Filter(proposer=proposal.proposer))
            if row.title == proposal.title
            and row.digest != proposal.digest
            and row.created_at <= proposal.created_at
            and set(row.approved_by) == set(row.parties)
        ]
        for digest in candidates:
            try:
                bundle = bundle_of(self.room.view(digest).proposal)
                if bundle is not None:
                    return digest, read_code(self.room.exchange.code(bundle), bundle)
            except StrongroomError:
                continue  # an exchange may have lost it; then the older one is what there is to compare with
        return None

    def _known(self, digest: str, bundle: str) -> bool:
        """A version that nobody here ever saw is no measure of what is new: it could hold what should not be seen."""
        return self.store.shown(digest, bundle) is not None or digest in self.room.home.book.approved()

    def run_mock(self, sheet: Sheet, *, wheels: Path | None = None, index: str | None = None) -> Tried:
        """Run the code here, in the sandbox, on the mocks that the owners signed: the proposer's word is shown nowhere.

        Args:
            sheet: what was shown.
            wheels, index: where the packages of its lock come from.

        Raises:
            Usage: it runs no code of its own. And as :func:`strongroom.app.client.analysis.try_proposal`.
        """
        if sheet.code is None:
            raise Usage("it runs a program of the measured image, and no code that could be tried on mocks")
        return try_proposal(self.room, sheet.view.proposal, wheels=wheels, index=index)

    # --- what this party says ---

    def say(self, digest: str, kind: Kind, text: str, *, file: str | None = None, line: int | None = None) -> Note:
        """Sign and post a comment, or ask for a change.

        Raises:
            BadField: the text or the place is no good. NotFound: there is no such line in the code.
        """
        proposal = self.room.view(digest).proposal
        bundle = bundle_of(proposal)
        if file is not None and bundle is not None:
            code = read_code(self.room.exchange.code(bundle), bundle)
            if file not in code.files or line is None or not 1 <= line <= code.files[file].count("\n") + 1:
                raise NotFound(f"the code has no line {line} in {file!r}")
        return self._post(Note(digest, bundle, kind, self.room.name, self.now(), text, file, line), proposal)

    def _post(self, note: Note, proposal: Proposal) -> Note:
        signed = Note.parse(note.encode()).sign(self.room.home.keys.signing)
        Note.verify(signed, proposal)
        self.room.exchange.note(signed, note.proposal)
        return note

    def approve(self, digest: str, bundle: str | None, reason: str = "") -> View:
        """Approve exactly what was shown here, and note what that was.

        Args:
            digest: of the proposal, whole.
            bundle: of the code, whole; ``None`` where the proposal runs none.
            reason: for people, may be empty.

        Raises:
            Usage: a digest is not whole. NotPermitted: this is not what was shown here. And as ``Room.approve``.
        """
        if not is_whole(digest) or (bundle is not None and not is_whole(bundle)):
            raise Usage("an approval names digests, the whole of each", hint="Copy them from: strongroom inbox show")
        view = self.room.view(digest)
        require("approve", view.state)
        proposal = view.proposal
        runs = bundle_of(proposal)
        if runs != bundle:
            what = "it runs no code" if runs is None else f"it runs the code {runs}"
            raise NotPermitted(f"that is not what the proposal runs: {what}", hint="Look again: strongroom inbox show")
        report = self.store.shown(digest, bundle or "")
        if report is None:
            raise NotPermitted("it was not shown to you here", hint="Look at it first: strongroom inbox show")
        # the note first: where there is an approval, there is the word of what had been shown, and not the other way round
        self._post(Note(digest, bundle, Kind.REVIEWED, self.room.name, self.now(), reason, report=report or None), proposal)
        return self.room.approve(digest)

    def refuse(self, digest: str, reason: str) -> list[str]:
        """Withdraw with a reason; who could not be told. Raises Usage where no reason is given, and as ``Room.withdraw``."""
        if not reason.strip():
            raise Usage("a refusal says why", hint='strongroom inbox refuse DIGEST "the reason"')
        return self.room.withdraw(digest, reason)


def _bundle_or_none(proposal: Proposal) -> str | None:
    try:
        return bundle_of(proposal)
    except BadField:
        return None  # it is shown as what it is, and nothing of it can be approved
