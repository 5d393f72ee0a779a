"""The pages of the inbox: a list, and a proposal with its code, what was found in it, and what was said of it.

They are plain HTML. There is no script, and the browser is told to run none. What others wrote is text (``markup.py``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlencode

from strongroom.app.client.changes import FileDiff, Line, Mark
from strongroom.app.client.inbox import Row, Sheet
from strongroom.app.client.inspection import AID, Finding, Severity
from strongroom.app.client.prose import Clause
from strongroom.app.client.room import LeftOut
from strongroom.contract import State
from strongroom.errors import StrongroomError
from strongroom.review import Note

from .markup import Markup, code, element, together

MAX_LINES = 3000  # of one file on a page; the next ones are a link away
MAX_FILES_LINES = 6000  # of all files on a page
MAX_ROWS = 500
FIRST = ("takes the place of", "program")
ABOVE = ("title", "proposed by", "identity")  # which stand in the heading, and where it is decided
CLASSES = {Severity.HIGH: "high", Severity.MEDIUM: "medium", Severity.LOW: "low"}
STATES = [state.value for state in State]


@dataclass(frozen=True, slots=True)
class Frame:
    """What is the same on every page of a session.

    Attributes:
        base: the path that all pages are under, which ends in ``/``.
        party: whose inbox it is, with the fingerprint of its keys.
        secret: what every form carries.
    """

    base: str
    party: str
    fingerprint: str
    secret: str

    def path(self, *parts: str, **query: object) -> str:
        said = urlencode({name: value for name, value in query.items() if value not in (None, "")})
        return self.base + "/".join(parts) + (f"?{said}" if said else "")


def page(frame: Frame, title: str, *parts: object) -> bytes:
    """A whole page."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{title} · inbox of {frame.party}"),
        element("link", rel="stylesheet", href=f"{frame.base}style.css"),
    )
    top = element(
        "header",
        element("strong", element("a", "Inbox", href=frame.base, accesskey="i")),
        element("span", f"{frame.party}, keys {frame.fingerprint}", class_="who mono"),
    )
    skip = element("a", "Skip to the content", href="#content", class_="skip")
    body = element("body", skip, top, element("main", *parts, id="content"))
    return ("<!doctype html>" + element("html", head, body, lang="en")).encode()


def message(frame: Frame, title: str, said: str, *, error: StrongroomError | None = None) -> bytes:
    """One sentence, and the way back."""
    parts = [element("p", said)]
    if error:
        parts += [element("p", error.hint), element("p", error.code, class_="mono soft")]
    box = element("div", *parts, class_="said error" if error else "said", role="status")
    return page(frame, title, element("h1", title), box, element("p", element("a", "Back to the inbox", href=frame.base)))


def day(at: int) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")
    except (OverflowError, ValueError, OSError):
        return f"second {at}"


# --- the list -----------------------------------------------------------------------------------------------------------


def listing(frame: Frame, rows: list[Row], said: Mapping[str, str], *, left_out: Iterable[LeftOut], at: int) -> bytes:
    """The inbox: a filter, and what it lets through."""
    title = "Proposals" if said.get("state") else "What waits for you"
    shown = [_row(frame, row, at) for row in rows[:MAX_ROWS]]
    parts = [
        element("h1", f"{title} ({len(rows):,})"),
        _filter(frame, said),
        element("ul", *shown, class_="list") if shown else element("p", "Nothing like that.", class_="soft"),
    ]
    if len(rows) > MAX_ROWS:
        parts.append(element("p", f"The newest {MAX_ROWS} are shown: narrow the filter.", class_="soft"))
    for left in left_out:
        what = f"Left out: {left.digest} names you, and {left.error} ({left.error.code})"
        parts.append(element("p", what, class_="said error"))
    return page(frame, title, *parts)


def _filter(frame: Frame, said: Mapping[str, str]) -> Markup:
    def field(name: str, label: str, kind: str = "text", class_: str | None = None, **more: object) -> Markup:
        given = element("input", type=kind, name=name, id=name, value=said.get(name, ""), autocomplete="off", **more)
        return element("div", element("label", label, for_=name), given, class_=class_)

    states = [("", "waits for me"), ("all", "any"), *((state, state) for state in STATES)]
    chosen = said.get("state", "")
    options = [element("option", label, value=value, selected=value == chosen) for value, label in states]
    return element(
        "form",
        field("text", "Text", "search", "wide", accesskey="f"),
        element("div", element("label", "State", for_="state"), element("select", *options, name="state", id="state")),
        field("proposer", "Proposed by"),
        field("asset", "Asset"),
        field("since", "Since", "date"),
        element("div", element("button", "Filter"), class_="act"),
        class_="filter",
        method="get",
        action=frame.base,
        role="search",
    )


def _row(frame: Frame, row: Row, at: int) -> Markup:
    state = row.state(at)
    kind = "wait" if row.waiting(at) else "good" if state in (State.APPROVED, State.ACTIVE) else ""
    badge = element("span", "waits for you" if row.waiting(at) else state.value, class_=f"badge {kind}".strip())
    meta = [f"by {row.proposer}", day(row.created_at), row.program, f"{row.digest[7:19]}…"]
    if row.notes:
        meta.append(f"{row.notes} note{'s' if row.notes > 1 else ''}" + (f", {row.asks} asked" if row.asks else ""))
    link = element(
        "a",
        element("span", badge),
        element("span", row.title, class_="title"),
        element("span", " · ".join(meta), class_="meta small soft"),
        href=frame.path("p", row.digest),
    )
    return element("li", link)


# --- one proposal -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """Where on a page somebody is: the file and line to comment on, a file shown whole, and from which line."""

    file: str | None = None
    line: int | None = None
    whole: str | None = None
    start: int = 1


def proposal(frame: Frame, sheet: Sheet, place: Place, me: str) -> bytes:
    """Everything about one proposal."""
    view = sheet.view
    main = [
        element("h1", view.proposal.title),
        element("p", *_standing(sheet), class_="soft"),
        _words(sheet),
        *_code(frame, sheet, place),
        *_report(sheet),
        *_general_notes(sheet),
    ]
    aside = element("aside", *_decide(frame, sheet, me), id="decide", aria_label="Decide")
    jump = element("p", element("a", "To the decision", href="#decide", accesskey="d"), class_="small")
    return page(frame, view.proposal.title, element("div", element("div", jump, *main), aside, class_="two"))


def _standing(sheet: Sheet) -> list[object]:
    view = sheet.view
    waiting = sorted({p.name for p in view.proposal.parties} - view.history.approved_by)
    approved = ", ".join(sorted(view.history.approved_by)) or "nobody"
    said: list[object] = [
        element("span", view.state.value, class_="badge"),
        f" by {view.proposal.proposer}, approved by {approved}",
    ]
    if waiting:
        said.append(f", waits for {', '.join(waiting)}")
    return said


def _words(sheet: Sheet) -> Markup:
    """Outputs first: what leaves matters more than how it is made."""
    outputs = [c for c in sheet.said if c.about.startswith(("output ", "nothing else", "leaves"))]
    heads = [c for c in sheet.said if c.about in FIRST or c.about.startswith(("party ", "asset "))]
    rest = [c for c in sheet.said if c not in outputs and c not in heads and c.about not in ABOVE]

    def terms(these: Iterable[Clause]) -> Markup:
        return element("dl", *((element("dt", c.about), element("dd", c.text)) for c in these), class_="fine")

    costs = [element("h2", "What a run would spend"), terms(sheet.costs)] if sheet.costs else []
    return together(
        [
            element("h2", "What leaves"),
            terms(outputs),
            element("h2", "Who and what"),
            terms(heads),
            *costs,
            element("details", element("summary", "Everything else that it says"), terms(rest)),
        ]
    )


def _code(frame: Frame, sheet: Sheet, place: Place) -> list[Markup]:
    if sheet.code is None:
        return [element("h2", "Code"), element("p", "It runs a program of the measured image, and no code of anybody's.")]
    digest = sheet.view.proposal.digest
    beside = "The first version: there is nothing to compare it with"
    if sheet.before:
        known = "which was shown to you" if sheet.known else "which was never shown to you here: everything is shown"
        beside = f"Beside the code of {sheet.before[0]}, {known}"
    found = [
        element("h2", "Code", id="code"),
        element("p", f"{beside}. Line numbers are links: follow one to comment on its line.", class_="soft small"),
    ]
    left = MAX_FILES_LINES
    findings = _by_line(sheet.report.findings if sheet.report else ())
    notes: dict[tuple[str, int], list[Note]] = defaultdict(list)
    for note in sheet.notes:
        if note.file is not None and note.line is not None:
            notes[note.file, note.line].append(note)
    for file in sheet.files:
        part, used = _File(
            frame, digest, file, place, findings, notes, compared=sheet.before is not None, known=sheet.known
        ).render(left)
        found.append(part)
        left = max(0, left - used)
    return [*found, *_packages(sheet)]


def _by_line(findings: Iterable[Finding]) -> dict[tuple[str, int], list[tuple[int, Finding]]]:
    """Findings by place, each with its number in the order of the page."""
    found: dict[tuple[str, int], list[tuple[int, Finding]]] = defaultdict(list)
    for number, finding in enumerate(findings, 1):
        found[finding.file, finding.line].append((number, finding))
    return found


@dataclass(frozen=True, slots=True)
class _File:
    """One file on the page."""

    frame: Frame
    digest: str
    file: FileDiff
    place: Place
    findings: Mapping[tuple[str, int], list[tuple[int, Finding]]]
    notes: Mapping[tuple[str, int], list[Note]]
    compared: bool
    known: bool

    def render(self, left: int) -> tuple[Markup, int]:
        """The file, and how many lines of it are there."""
        path, whole = self.file.path, self.place.whole == self.file.path
        lines = self._lines(whole=whole)
        start = self.place.start - 1 if whole else 0
        most = MAX_LINES if whole else min(left, MAX_LINES)
        shown = lines[start : start + most]
        parts: list[object] = [self._head(whole=whole), [_finding(n, f) for n, f in self.findings.get((path, 0), ())]]
        parts += [self._line(line) for line in shown]
        if start + most < len(lines):
            link = self.frame.path("p", self.digest, whole=path, start=(start + most if whole else 0) + 1) + "#code"
            parts.append(element("p", element("a", f"{len(lines) - start - most:,} more lines", href=link), class_="gap"))
        return element("section", *parts, class_="file", aria_label=path), len(shown)

    def _lines(self, *, whole: bool) -> tuple[Line, ...]:
        if whole or not self.known:
            return self.file.lines
        near = {line for (path, line) in (*self.findings, *self.notes) if path == self.file.path}
        kept = self.file.changed if self.file.status != "same" else ()
        if self.place.file == self.file.path and self.place.line:
            near.add(self.place.line)
        there = {line.new for line in kept}
        return kept if near <= there | {0} else self._with(near)

    def _with(self, near: set[int]) -> tuple[Line, ...]:
        """The changed lines, and those that something was found or said of."""
        changed = set(self.file.changed) if self.file.status != "same" else set()
        found: list[Line] = []
        for line in self.file.lines:
            if line in changed or line.new in near:
                found.append(line)
            elif not found or found[-1].mark is not Mark.GAP:
                found.append(Line(Mark.GAP, None, None, ""))
        return tuple(found)

    def _head(self, *, whole: bool) -> Markup:
        parts: list[object] = [self.file.path, element("span", self.file.status, class_="badge")]
        if self.known and not whole and self.file.status != "gone":
            link = self.frame.path("p", self.digest, whole=self.file.path) + "#code"
            parts.append(element("a", "whole file", href=link, class_="small"))
        elif whole and self.known:
            parts.append(element("a", "only changes", href=self.frame.path("p", self.digest) + "#code", class_="small"))
        return element("h3", *parts)

    def _line(self, line: Line) -> list[object]:
        if line.mark is Mark.GAP:
            return [element("div", "…", class_="gap")]
        kind = {Mark.ADDED: "added", Mark.GONE: "gone"}.get(line.mark, "") if self.compared else ""
        here = self.place.file == self.file.path and self.place.line == line.new and line.new is not None
        number: Markup
        if line.new is None:
            number = element("span", line.old, class_="n", aria_hidden="true")
        else:
            link = self.frame.path("p", self.digest, file=self.file.path, line=line.new) + "#words"
            number = element("a", line.new, href=link, aria_label=f"Comment on line {line.new}")
        row = element(
            "div",
            number,
            element("span", line.mark.value if self.compared else "", class_="m", aria_hidden="true"),
            element("code", code(line.text)),
            class_=f"line {kind} {'here' if here else ''}".strip(),
            id=anchor(self.file.path, line.new) if line.new else None,
        )
        at = (self.file.path, line.new or -1)
        parts: list[object] = [row]
        parts += [_finding(number, finding) for number, finding in self.findings.get(at, ())]
        parts += [_said(note) for note in self.notes.get(at, ())]
        if here:
            parts.append(_comment_form(self.frame, self.digest, self.file.path, line.new))
        return parts


def anchor(path: str, line: int | None) -> str:
    """Where a line is on its page."""
    return f"L{line}-{''.join(c if c.isalnum() else '-' for c in path)}"


def _finding(number: int, finding: Finding) -> Markup:
    """A finding beside its line, with a link to the next one."""
    badge = element("span", finding.severity.name.lower(), class_=f"badge {CLASSES[finding.severity]}")
    return element(
        "div",
        element("a", "next", href=f"#f{number + 1}", class_="go small", aria_label="Next finding"),
        element("p", badge, " ", element("span", finding.rule, class_="mono"), " ", finding.what),
        element("p", f"Ask: {finding.ask}", class_="ask"),
        class_=f"beside {CLASSES[finding.severity]}",
        id=f"f{number}",
    )


def _said(note: Note) -> Markup:
    head = element("span", f"{note.party}, {note.kind.value}, {day(note.at)}", class_="soft small")
    return element("div", head, element("p", note.text), class_="beside note")


def _comment_form(frame: Frame, digest: str, file: str | None, line: int | None) -> Markup:
    where, name = (f"line {line} of {file}", "words") if file else ("the proposal", "general")
    hidden = [element("input", type="hidden", name=n, value=v) for n, v in (("file", file), ("line", line)) if v is not None]
    return element(
        "form",
        element("label", f"Your comment on {where}; every party can read it", for_=name),
        element("textarea", name="text", id=name, maxlength="2000", required=True),
        hidden,
        element("input", type="hidden", name="secret", value=frame.secret),
        element("button", "Comment", class_="main"),
        " ",
        element("a", "Cancel", href=frame.path("p", digest) + "#code", class_="button") if file else None,
        method="post",
        action=frame.path("p", digest, "comment"),
        class_="beside note",
    )


def _packages(sheet: Sheet) -> list[Markup]:
    assert sheet.code
    head = element("h2", "Packages")
    if sheet.code.lock is None:
        return [head, element("p", "It brings no lock: it uses what the enclave has.", class_="soft")]
    items = []
    for change in sheet.packages:
        was = f"{change.before} → " if change.before not in (None, change.package.version) else ""
        files = ", ".join(change.package.hashes) or "without a hash"
        kind = {"new": "medium", "changed": "medium", "gone": ""}.get(change.status, "")
        badge = element("span", change.status, class_=f"badge {kind}".strip())
        name = f" {change.package.name} {was}{change.package.version}"
        items.append(element("li", badge, name, element("div", files, class_="mono soft")))
    return [head, element("ul", *items, class_="plain")]


def _report(sheet: Sheet) -> list[Markup]:
    head = element("h2", "Static report", id="report")
    if sheet.report is None:
        if sheet.unreported is None:
            return []
        return [head, element("p", f"There is none: {sheet.unreported}. {sheet.unreported.hint}", class_="said error")]
    counts = [
        element("span", f"{sheet.report.count(severity)} {severity.name.lower()}", class_=f"badge {CLASSES[severity]}")
        for severity in reversed(Severity)
    ]
    files = {file.path for file in sheet.files}
    general = [_finding(n, f) for n, f in enumerate(sheet.report.findings, 1) if f.file not in files]
    first = [element("a", "to the first finding", href="#f1", accesskey="n")] if sheet.report.findings else []
    return [
        head,
        element("p", *(part for badge in counts for part in (badge, " ")), *first),
        element("p", AID, class_="soft small"),
        together(general),
        element("p", sheet.report.digest, class_="mono soft"),
    ]


def _general_notes(sheet: Sheet) -> list[Markup]:
    general = [note for note in sheet.notes if note.file is None]
    return [element("h2", "Said of the whole", id="notes"), *map(_said, general)] if general else []


def _decide(frame: Frame, sheet: Sheet, me: str) -> list[Markup]:
    view, digest = sheet.view, sheet.view.proposal.digest
    named = [element("p", "Proposal", class_="soft small"), element("p", digest, class_="mono")]
    if sheet.bundle:
        named += [element("p", "Code", class_="soft small"), element("p", sheet.bundle, class_="mono")]
    open_ = view.state is State.PROPOSED and me not in view.history.approved_by
    parts = [element("h2", "Decide"), element("div", *named, class_="card")]
    if open_:
        parts.append(element("div", _approve_form(frame, sheet), class_="card"))
    else:
        said = "You approved it." if me in view.history.approved_by else f"It is {view.state.value}."
        parts.append(element("p", said, class_="said", role="status"))
    talk = [element("details", element("summary", "Comment on the whole"), _comment_form(frame, digest, None, None))]
    if open_:
        talk.append(
            _text_form(frame, digest, "ask", label="Ask for a change", says="What is to change; every party can read it")
        )
    if view.state in (State.PROPOSED, State.COUNTERED, State.APPROVED, State.ACTIVE, State.SPENT):
        talk.append(
            _text_form(
                frame, digest, "refuse", label="Refuse", says="Why; it stops this proposal for all parties", kind="no"
            )
        )
    return [*parts, element("div", *talk, class_="card")]


def _digests(sheet: Sheet) -> list[Markup]:
    """What a form is about: the digests that were on the page."""
    return [
        element("input", type="hidden", name="proposal", value=sheet.view.proposal.digest),
        element("input", type="hidden", name="bundle", value=sheet.bundle or ""),
    ]


def _approve_form(frame: Frame, sheet: Sheet) -> Markup:
    digest = sheet.view.proposal.digest
    what = "the proposal and its code" if sheet.bundle else "the proposal"
    return element(
        "form",
        element("label", "Why (optional; every party can read it)", for_="reason"),
        element("input", type="text", name="text", id="reason", maxlength="2000", autocomplete="off"),
        element(
            "label",
            element("input", type="checkbox", name="read", value="yes", required=True),
            element("span", f"I have read {what}, with the digests above."),
            class_="check",
        ),
        _digests(sheet),
        element("input", type="hidden", name="secret", value=frame.secret),
        element("button", f"Approve {digest[7:15]}…{digest[-8:]}", class_="main", accesskey="a"),
        method="post",
        action=frame.path("p", digest, "approve"),
    )


def _text_form(frame: Frame, digest: str, verb: str, *, label: str, says: str, kind: str | None = None) -> Markup:
    form = element(
        "form",
        element("label", says, for_=f"{verb}-text"),
        element("textarea", name="text", id=f"{verb}-text", maxlength="400" if verb == "refuse" else "2000", required=True),
        element("input", type="hidden", name="proposal", value=digest),
        element("input", type="hidden", name="secret", value=frame.secret),
        element("button", f"{label} {digest[7:15]}…{digest[-8:]}", class_=kind),
        method="post",
        action=frame.path("p", digest, verb),
    )
    return element("details", element("summary", label), form)


__all__ = ["Frame", "Place", "anchor", "listing", "message", "proposal"]
