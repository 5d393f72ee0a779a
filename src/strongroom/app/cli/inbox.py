"""inbox, audit: what waits for a decision, everything about it, and who decided what."""

from __future__ import annotations

import base64
import threading
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from strongroom.app.client.analysis import Tried
from strongroom.app.client.audit import Line as Decision
from strongroom.app.client.audit import audit
from strongroom.app.client.changes import FileDiff, Mark
from strongroom.app.client.inbox import Filter, Inbox, Row, Sheet, day_of
from strongroom.app.client.inspection import AID, Report, Severity
from strongroom.app.client.prose import Clause
from strongroom.app.client.room import LeftOut
from strongroom.contract import State
from strongroom.errors import Usage
from strongroom.review import Kind, Note

from .place import example, room
from .screen import QUIET_SECONDS, Screen

COLOURS = {Severity.HIGH: "red", Severity.MEDIUM: "yellow", Severity.LOW: "dim"}
MAX_LOG = 40  # lines that code printed, the last ones
SHOWN_BYTES = 2000  # of an output
MAX_SHOWN = 4000  # lines of code on a screen; the whole of it with --json


def declare(verb: str, parser: ArgumentParser) -> None:
    {"inbox": _declare_inbox, "audit": _declare_audit}[verb](parser)


def _declare_inbox(parser: ArgumentParser) -> None:
    example(
        parser,
        """
strongroom inbox --as hospital                      # what waits for you
strongroom inbox list --all --text bias --as hospital
strongroom inbox show sha256:3f2a --as hospital
strongroom inbox comment sha256:3f2a "Why the fifth decimal?" --file analysis.py --line 12 --as hospital
strongroom inbox ask sha256:3f2a "Bin the ages by ten years." --as hospital
strongroom inbox approve sha256:3f2a…91cc --bundle sha256:77ab…02d1 --as hospital
strongroom inbox refuse sha256:3f2a "Names of outputs come from the data." --as hospital
strongroom inbox --web --as hospital                # as a page in your browser
""",
    )
    parser.add_argument(
        "action",
        nargs="?",
        default="list",
        choices=["list", "show", "comment", "ask", "approve", "refuse"],
        help="list (where nothing is said), show, comment, ask, approve or refuse",
    )
    parser.add_argument("proposal", nargs="?", help="its digest or the beginning of it; of what you approve the whole")
    parser.add_argument("text", nargs="?", help="a comment, what is to change, or why")
    listed = parser.add_argument_group("list")
    listed.add_argument("--all", action="store_true", help="also what does not wait for you")
    listed.add_argument("--state", choices=[s.value for s in State], help="where it stands")
    listed.add_argument("--proposer", metavar="PARTY", help="who proposed it")
    listed.add_argument("--asset", metavar="WORD", help="a role, an owner, an asset's name or the beginning of its digest")
    listed.add_argument("--text", dest="words", metavar="WORDS", help="in the title")
    listed.add_argument("--since", metavar="DATE", help="proposed on this day or later (2026-11-01, UTC)")
    place = parser.add_argument_group("show, comment, ask, approve")
    place.add_argument("--file", metavar="PATH", help="the file that a comment is about")
    place.add_argument("--line", type=int, metavar="N", help="the line in it")
    place.add_argument("--bundle", metavar="DIGEST", help="approve: the whole digest of the code that you read")
    place.add_argument("--run-mock", action="store_true", help="show: run the code on the mocks, here, in the sandbox")
    place.add_argument("--wheels", type=Path, metavar="FOLDER", help="with --run-mock: wheels of the lock's packages")
    place.add_argument("--index", metavar="URL", help="with --run-mock: a package index to take them from (none)")
    web = parser.add_argument_group("page")
    web.add_argument("--web", action="store_true", help="serve the inbox as a page on this machine, for your browser")
    web.add_argument("--port", type=int, default=0, help="of the page; a free one where it is not said")
    parser.set_defaults(run=inbox)


def inbox(args: Namespace, screen: Screen) -> int:
    if args.web:
        return _serve(args, screen)
    with closing(Inbox(room(args))) as here:
        action = {"list": _list, "show": _show, "comment": _say, "ask": _say, "approve": _approve, "refuse": _refuse}
        return action[args.action](args, here, screen)


def _time(at: int | None) -> str:
    if at is None:
        return "time not said"
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")
    except (OverflowError, ValueError, OSError):
        return f"second {at}"


def wanted(args: Namespace) -> Filter:
    """What the flags ask for: without any, what waits."""
    said = any((args.state, args.proposer, args.asset, args.words, args.since, args.all))
    return Filter(
        waiting=not said,
        state=State(args.state) if args.state else None,
        proposer=args.proposer,
        asset=args.asset,
        text=args.words,
        since=day_of(args.since) if args.since else None,
    )


def _list(args: Namespace, here: Inbox, screen: Screen) -> int:
    left_out = _refreshed(here, screen)
    rows, at = here.rows(wanted(args)), here.now()
    screen.table(
        ["proposal", "state", "proposed", "by", "notes", "title"],
        [[_short(r.digest), _stands(r, at), _time(r.created_at), r.proposer, _notes(r), r.title] for r in rows],
    )
    if not rows:
        screen.line("  nothing waits for you" if wanted(args).waiting else "  nothing like that")
    _left_out(left_out, screen)
    screen.result(
        {
            "left_out": [{"digest": left.digest, "error": left.error.to_json()} for left in left_out],
            "proposals": [row.to_json(at) for row in rows],
        }
    )
    return 0


def _refreshed(here: Inbox, screen: Screen) -> list[LeftOut]:
    """What is new, and a word where that takes long: the first look at a thousand proposals does."""
    word = "Looking at what is new: every signature is verified, once …"
    patience = threading.Timer(QUIET_SECONDS, screen.note, [word])
    patience.daemon = True
    patience.start()
    try:
        return here.refresh()
    finally:
        patience.cancel()


def _left_out(left_out: list[LeftOut], screen: Screen) -> None:
    for left in left_out:
        screen.said("left out", f"{_short(left.digest)} names you; {left.error.code}: {left.error}")


def _short(digest: str) -> str:
    return f"{digest[:19]}…"


def _stands(row: Row, at: int) -> str:
    return "waits for you" if row.waiting(at) else row.state(at).value


def _notes(row: Row) -> str:
    asked = f", {row.asks} asked" if row.asks else ""
    return f"{row.notes}{asked}" if row.notes else ""


# --- one proposal -------------------------------------------------------------------------------------------------------


def _named(args: Namespace, here: Inbox, screen: Screen) -> str:
    if not args.proposal:
        raise Usage(f"say which proposal to {args.action}", hint="See: strongroom inbox list")
    _refreshed(here, screen)
    return here.find(args.proposal)


def _show(args: Namespace, here: Inbox, screen: Screen) -> int:
    sheet = here.show(_named(args, here, screen))
    _tell(sheet, screen)
    tried = here.run_mock(sheet, wheels=args.wheels, index=args.index) if args.run_mock else None
    if tried is not None:
        _tell_tried(tried, screen)
    screen.line()
    bundle = f" --bundle {sheet.bundle}" if sheet.bundle else ""
    screen.said("to approve", f"strongroom inbox approve {sheet.view.proposal.digest}{bundle} --as {here.room.name}")
    screen.result(sheet_json(sheet) | ({"mock": _tried_json(tried)} if tried else {}))
    return 0


def _tell_tried(tried: Tried, screen: Screen) -> None:
    screen.heading("On the mocks, run here")
    screen.said("ran in", f"{tried.sandbox}, {tried.seconds:.2f} s; mocks are made up, and so are these figures")
    for name, data in sorted(tried.outputs.items()):
        screen.said(name, f"would leave, {len(data):,} bytes: {_beginning(data)}")
    for name, why in sorted(tried.refused.items()):
        screen.said(name, f"would not leave: {_visible(why)}")
    if tried.failure:
        screen.said("ended with", f"{tried.failure}; of a run in a room nobody would learn more")
    for line in tried.log.splitlines()[-MAX_LOG:]:
        screen.said("printed", _visible(line))


def _beginning(data: bytes) -> str:
    """Of an output: as text where it is text."""
    start = data[:SHOWN_BYTES]
    try:
        text = start.decode("ascii")
    except UnicodeDecodeError:
        return repr(start[:40])
    return _visible(" ".join(text.split())) + (" …" if len(data) > SHOWN_BYTES else "")


def _tried_json(tried: Tried) -> dict[str, Any]:
    return {
        "failure": tried.failure,
        "log": tried.log,
        "outputs": {name: base64.b64encode(data).decode() for name, data in tried.outputs.items()},
        "refused": dict(tried.refused),
        "sandbox": tried.sandbox,
    }


def _tell(sheet: Sheet, screen: Screen) -> None:
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
    return f"{_time(note.at)} {where}{note.text}".rstrip()


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
        text = f"  {line.new or '':>5} {line.mark.value} {_visible(line.text)}"
        colour = {Mark.ADDED: ("green",), Mark.GONE: ("red",)}.get(line.mark, ())
        screen.line(text, *(colour if sheet.before else ()))
        for note in comments.get(line.new, ()) if line.new else ():
            screen.line(f"        > {note.party}, {note.kind.value}: {_visible(note.text)}", "cyan")
    if len(lines) > left:
        screen.line(f"  … {len(lines) - left:,} lines more (the rest: --json)")
    return max(0, left - len(lines))


def _visible(text: str) -> str:
    """A line of a stranger's: tabs as blanks; what a screen would obey is spelled out, so that no two lines look alike."""
    shown = text.replace("\t", "    ")
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in shown)


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


def sheet_json(sheet: Sheet) -> dict[str, Any]:
    """Everything about one proposal, for machines."""
    view = sheet.view
    return {
        "approved_by": sorted(view.history.approved_by),
        "approvers": [{"about": c.about, "text": c.text} for c in sheet.approvers],
        "before": sheet.before[0] if sheet.before else None,
        "before_was_shown": sheet.known,
        "bundle": sheet.bundle,
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


# --- what is said of it -------------------------------------------------------------------------------------------------


def _say(args: Namespace, here: Inbox, screen: Screen) -> int:
    if not args.text:
        raise Usage(f"say what to {args.action}", hint=f'strongroom inbox {args.action} DIGEST "the text"')
    digest = _named(args, here, screen)
    note = here.say(digest, Kind(args.action), args.text, file=args.file, line=args.line)
    screen.said("noted", f"{note.kind.value} on {digest}; you signed it")
    screen.result({"note": note.to_json()})
    return 0


def _approve(args: Namespace, here: Inbox, screen: Screen) -> int:
    found = here.approve(args.proposal or "", args.bundle, args.text or "")
    digest = found.proposal.digest
    screen.said("approved", digest)
    if args.bundle:
        screen.said("code", f"{args.bundle}, as it was shown to you")
    waiting = sorted({p.name for p in found.proposal.parties} - found.history.approved_by)
    screen.said("waits for", ", ".join(waiting) or "nobody: it is a contract")
    screen.result({"bundle": args.bundle, "digest": digest, "state": found.state.value, "waiting_for": waiting})
    return 0


def _refuse(args: Namespace, here: Inbox, screen: Screen) -> int:
    digest = _named(args, here, screen)
    missed = here.refuse(digest, args.text or "")
    screen.said("refused", f"{digest}; your broker releases nothing under it")
    for who in missed:
        screen.said("not reached", who)
    screen.result({"digest": digest, "not_reached": missed})
    return 0


# --- as a page ----------------------------------------------------------------------------------------------------------


def _serve(args: Namespace, screen: Screen) -> int:
    from strongroom.app.http import listen, serve, url_of
    from strongroom.app.web.inbox import InboxPage

    with closing(Inbox(room(args))) as here:
        sock = listen("127.0.0.1", args.port)
        page = InboxPage(here, url_of(sock))
        screen.said("open", page.entrance)
        screen.said("", "The address is good for one visit, in one browser. Ctrl-C ends it.")
        screen.result({"url": page.entrance})
        serve(page.application(), sock, announce=lambda _url: None)
    return 0


# --- who decided what ---------------------------------------------------------------------------------------------------


def _declare_audit(parser: ArgumentParser) -> None:
    example(parser, "strongroom audit --as hospital\nstrongroom audit sha256:3f2a --as hospital --json")
    parser.add_argument("proposal", nargs="?", help="its digest or the beginning of it; all of them where not given")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write it as JSON Lines")
    parser.set_defaults(run=audited)


def audited(args: Namespace, screen: Screen) -> int:
    here = room(args)
    head, lines = audit(here, here.find(args.proposal) if args.proposal else None)
    for line in lines:
        _tell_decision(line, screen)
    doubtful = sum(not line.established for line in lines)
    screen.line()
    screen.said("head", f"{head.origin}, {head.size} entries")
    screen.said("established", f"{len(lines) - doubtful} of {len(lines)}")
    if args.out:
        import json

        from strongroom.app.client.home import write

        write(args.out, "".join(json.dumps(line.to_json(), sort_keys=True) + "\n" for line in lines).encode())
    screen.result({"lines": [line.to_json() for line in lines], "origin": head.origin, "size": head.size})
    return 0


def _tell_decision(line: Decision, screen: Screen) -> None:
    place = "not logged" if line.index is None else str(line.index)
    doubt = "" if line.established else f" (not established: {line.note})"
    more = f" [{line.note}]" if line.established and line.note else ""
    why = f": {_visible(line.why)}" if line.why else ""
    screen.said(
        f"{place} {line.what}", f"{_time(line.at)} {line.who or 'somebody'} on {_short(line.contract)}{why}{more}{doubt}"
    )
