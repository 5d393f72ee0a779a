"""A proposal as a reviewer reads it on a screen: what it says, its code, what was found in it, and what it did on mocks."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from strongroom.app.client.analysis import Tried
from strongroom.app.client.changes import FileDiff, Mark
from strongroom.app.client.inbox import Sheet
from strongroom.app.client.inspection import AID, Report, Severity
from strongroom.app.client.prose import Clause
from strongroom.app.client.trials import SAME, Claim, compare
from strongroom.review import Note
from strongroom.trial import Trial

from .screen import Screen

COLOURS = {Severity.HIGH: "red", Severity.MEDIUM: "yellow", Severity.LOW: "dim"}
MAX_LOG = 40  # lines that code printed, the last ones
SHOWN_BYTES = 2000  # of an output
MAX_SHOWN = 4000  # lines of code on a screen; the whole of it with --json

# printable to Unicode and seen by nobody: fillers, a blank pattern of dots, selectors of variants; and what marks them
_UNSEEN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef⟨]")


def tell_claim(claim: Claim, screen: Screen) -> None:
    """What the proposer says that it did on the mocks."""
    screen.heading("On the mocks, as the proposer claims")
    screen.said("claimed", f"by {claim.by}; nothing of it was checked: --run-mock runs it here, and compares")
    for doubt in claim.doubts:
        screen.said("mind", visible(doubt))
    if claim.trial is None:
        return
    for name, shown in sorted(claim.trial.outputs.items()):
        what = f": {beginning(shown.content)}" if shown.content is not None else ""
        screen.said(name, f"would leave, {shown.kind} of {shown.size:,} bytes{what}")
    _tell_rest(claim.trial, screen)


def tell_tried(tried: Tried, claim: Claim | None, screen: Screen) -> None:
    """What it did here, and whether that is what was claimed."""
    screen.heading("On the mocks, run here")
    screen.said("ran in", f"{tried.sandbox}, {tried.seconds:.2f} s; mocks are made up, and so are these figures")
    for name, data in sorted(tried.outputs.items()):
        screen.said(name, f"would leave, {len(data):,} bytes: {beginning(data)}")
    _tell_rest(tried, screen)
    for name, verdict in _compared(tried, claim).items():
        screen.said("claimed", f"{name}: {'the same' if verdict == SAME else 'NOT THE SAME as it is here'}")


def _tell_rest(tried: Tried | Trial, screen: Screen) -> None:
    for name, why in sorted(tried.refused.items()):
        screen.said(name, f"would not leave: {visible(why)}")
    if tried.failure:
        screen.said("ended with", f"{tried.failure}; of a run in a room nobody would learn more")
    for line in tried.log.splitlines()[-MAX_LOG:]:
        screen.said("printed", visible(line))


def _compared(tried: Tried, claim: Claim | None) -> dict[str, str]:
    return compare(claim.trial, tried) if claim is not None and claim.trial is not None else {}


def beginning(data: bytes) -> str:
    """Of an output: as text where it is text."""
    start = data[:SHOWN_BYTES]
    try:
        text = start.decode("ascii")
    except UnicodeDecodeError:
        return repr(start[:40])
    return visible(" ".join(text.split())) + (" …" if len(data) > SHOWN_BYTES else "")


def tried_json(tried: Tried, claim: Claim | None) -> dict[str, Any]:
    return {
        "compared": _compared(tried, claim),
        "failure": tried.failure,
        "log": tried.log,
        "outputs": {name: base64.b64encode(data).decode() for name, data in tried.outputs.items()},
        "refused": dict(tried.refused),
        "sandbox": tried.sandbox,
    }


def tell_sheet(sheet: Sheet, screen: Screen) -> None:
    _tell_clauses(sheet.said, screen)
    screen.said("state", sheet.view.state.value)
    screen.said("approved by", ", ".join(sorted(sheet.view.history.approved_by)) or "nobody")
    _tell_clauses(sheet.approvers, screen)
    if sheet.code:
        screen.heading("Code")
        screen.said("bundle", sheet.code.digest)
        screen.said("beside", _beside(sheet))
        left = MAX_SHOWN
        for file in sheet.files:
            left = _tell_file(file, sheet, left, screen)
        _tell_packages(sheet, screen)
    if sheet.report:
        _tell_report(sheet.report, screen)
    elif sheet.unreported:
        screen.heading("Static report")
        screen.said("none", f"{sheet.unreported.code}: {sheet.unreported}")
    if sheet.costs:
        screen.heading("What a run would spend")
        _tell_clauses(sheet.costs, screen)
    if sheet.notes:
        screen.heading("Notes")
        for note in sheet.notes:
            screen.said(f"{note.party}, {note.kind.value}", _note(note))


def _tell_clauses(clauses: Iterable[Clause], screen: Screen) -> None:
    for clause in clauses:
        screen.said(clause.about, clause.text)


def _beside(sheet: Sheet) -> str:
    if sheet.before is None:
        return "nothing: it is the first version"
    known = "which was shown to you" if sheet.known else "which was never shown to you here, so that everything is shown"
    return f"the code of {sheet.before[0]}, {known}"


def _note(note: Note) -> str:
    where = f"{note.file}:{note.line}: " if note.file else ""
    return f"{time_said(note.at)} {where}{note.text}".rstrip()


def _tell_file(file: FileDiff, sheet: Sheet, left: int, screen: Screen) -> int:
    """One file: whole where it is compared with nothing that you know, else what changed. What is left of the screen."""
    screen.line()
    screen.line(f"  {file.path} ({file.status})", "bold")
    lines = file.changed if sheet.known else file.lines
    comments: dict[int | None, list[Note]] = {}
    for note in sheet.notes:
        if note.file == file.path:
            comments.setdefault(note.line, []).append(note)
    for line in lines[:left]:
        text = f"  {line.new or '':>5} {line.mark.value} {visible(line.text)}"
        colour = {Mark.ADDED: ("green",), Mark.GONE: ("red",)}.get(line.mark, ())
        screen.line(text, *(colour if sheet.before else ()))
        for note in comments.get(line.new, ()) if line.new else ():
            screen.line(f"        > {note.party}, {note.kind.value}: {visible(note.text)}", "cyan")
    if len(lines) > left:
        screen.line(f"  … {len(lines) - left:,} lines more (the rest: --json)")
    return max(0, left - len(lines))


def visible(text: str) -> str:
    """A line of a stranger's, in which nothing goes unseen and no screen is obeyed: tabs, and what cannot be seen, stand as
    ``⟨U+200B⟩``; so does the first sign of that itself, so that no line can write it and look alike.
    """
    return "".join(c if c.isprintable() and not _UNSEEN.match(c) else f"⟨U+{ord(c):04X}⟩" for c in text)


def _tell_packages(sheet: Sheet, screen: Screen) -> None:
    screen.heading("Packages")
    if sheet.code and sheet.code.lock is None:
        screen.said("none", "it uses what the enclave has")
    for change in sheet.packages:
        version = (
            change.package.version
            if change.before in (None, change.package.version)
            else (f"{change.before} -> {change.package.version}")
        )
        files = ", ".join(change.package.hashes) or "without a hash"
        screen.said(f"{change.status}", f"{change.package.name} {version}: {files}")


def _tell_report(report: Report, screen: Screen) -> None:
    screen.heading("Static report")
    counts = ", ".join(f"{report.count(severity)} {severity.name.lower()}" for severity in reversed(Severity))
    screen.said("findings", f"{counts}; report {report.digest}")
    screen.said("", AID)
    for finding in sorted(report.findings, key=lambda f: (-f.severity, f.place)):
        screen.line(
            f"  {finding.severity.name.lower():<6} {finding.file or 'bundle'}:{finding.line} {finding.rule}",
            COLOURS[finding.severity],
        )
        screen.line(f"         {finding.what}")
        screen.line(f"         ask: {finding.ask}")


def claim_json(claim: Claim) -> dict[str, Any]:
    trial = claim.trial
    return {"by": claim.by, "doubts": list(claim.doubts), "trial": trial.to_json() if trial is not None else None}


def sheet_json(sheet: Sheet) -> dict[str, Any]:
    """Everything about one proposal, for machines."""
    view = sheet.view
    return {
        "approved_by": sorted(view.history.approved_by),
        "approvers": [{"about": c.about, "text": c.text} for c in sheet.approvers],
        "before": sheet.before[0] if sheet.before else None,
        "before_was_shown": sheet.known,
        "bundle": sheet.bundle,
        "claim": claim_json(sheet.claim) if sheet.claim else None,
        "costs": [{"about": c.about, "text": c.text} for c in sheet.costs],
        "digest": view.proposal.digest,
        "files": dict(sheet.code.files) if sheet.code else {},
        "changes": [
            {"path": f.path, "status": f.status, "lines": [[x.mark.value, x.old, x.new, x.text] for x in f.changed]}
            for f in sheet.files
        ],
        "notes": [note.to_json() for note in sheet.notes],
        "packages": [
            {
                "before": p.before,
                "hashes": list(p.package.hashes),
                "name": p.package.name,
                "status": p.status,
                "version": p.package.version,
            }
            for p in sheet.packages
        ],
        "proposal": view.proposal.to_json(),
        "report": {"digest": sheet.report.digest, **sheet.report.to_json()} if sheet.report else None,
        "state": view.state.value,
        "unreported": sheet.unreported.to_json() if sheet.unreported else None,
        "words": [{"about": c.about, "text": c.text} for c in sheet.said],
    }


def time_said(at: int | None) -> str:
    if at is None:
        return "time not said"
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")
    except (OverflowError, ValueError, OSError):
        return f"second {at}"


def short(digest: str) -> str:
    return f"{digest[:19]}…"
