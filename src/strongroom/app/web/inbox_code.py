"""The code of a proposal on its page: beside its last version, with what was found in it and said of it, line by line."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from strongroom.app.client.changes import FileDiff, Line, Mark
from strongroom.app.client.inbox import Sheet
from strongroom.app.client.inspection import AID, Finding, Severity
from strongroom.review import Note

from .inbox_forms import comment_form
from .inbox_frame import Frame, Place, day
from .markup import Markup, code, element, together

MAX_LINES = 3000  # of one file on a page; the next ones are a link away
MAX_FILES_LINES = 6000  # of all files on a page
CLASSES = {Severity.HIGH: "high", Severity.MEDIUM: "medium", Severity.LOW: "low"}


def code_part(frame: Frame, sheet: Sheet, place: Place) -> list[Markup]:
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
        parts += [said(note) for note in self.notes.get(at, ())]
        if here:
            parts.append(comment_form(self.frame, self.digest, self.file.path, line.new))
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


def said(note: Note) -> Markup:
    head = element("span", f"{note.party}, {note.kind.value}, {day(note.at)}", class_="soft small")
    return element("div", head, element("p", note.text), class_="beside note")


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


def report_part(sheet: Sheet) -> list[Markup]:
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


__all__ = ["anchor", "code_part", "report_part", "said"]
