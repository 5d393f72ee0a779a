"""inbox: what waits for a decision, everything about it, and what one says of it."""

from __future__ import annotations

import threading
from argparse import ArgumentParser, Namespace
from contextlib import closing
from pathlib import Path

from strongroom.app.client.inbox import Inbox
from strongroom.app.client.listed import Filter, Row, day_of
from strongroom.app.client.room import LeftOut
from strongroom.contract import State
from strongroom.errors import Usage
from strongroom.review import Kind

from .place import example, room
from .reviewed import sheet_json, short, tell_claim, tell_sheet, tell_tried, time_said, tried_json
from .screen import QUIET_SECONDS, Screen
from .shares import say_untold


def declare(_verb: str, parser: ArgumentParser) -> None:
    _declare_inbox(parser)


def _declare_inbox(parser: ArgumentParser) -> None:
    example(
        parser,
        """
strongroom inbox --as hospital                      # what waits for you
strongroom inbox list --all --text bias --as hospital
strongroom inbox show sha256:3f2a --as hospital
strongroom inbox comment sha256:3f2a "Why the fifth decimal?" --file analysis.py --line 12 --as hospital
strongroom inbox ask sha256:3f2a "Bin the ages by ten years." --as hospital
strongroom inbox approve sha256:3f2a…91cc "Rounded, and by region." --bundle sha256:77ab…02d1 --as hospital
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
    place.add_argument("--wheels", type=Path, metavar="FOLDER", help="--run-mock, --web: wheels of a lock's packages")
    place.add_argument("--index", metavar="URL", help="--run-mock, --web: a package index to take them from (none)")
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
        [[short(r.digest), _stands(r, at), time_said(r.created_at), r.proposer, _notes(r), r.title] for r in rows],
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
        screen.said("left out", f"{short(left.digest)} names you; {left.error.code}: {left.error}")


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
    tell_sheet(sheet, screen)
    if sheet.claim:
        tell_claim(sheet.claim, screen)
    tried = here.run_mock(sheet, wheels=args.wheels, index=args.index) if args.run_mock else None
    if tried is not None:
        tell_tried(tried, sheet.claim, screen)
    screen.line()
    bundle = f" --bundle {sheet.bundle}" if sheet.bundle else ""
    screen.said("to approve", f"strongroom inbox approve {sheet.view.proposal.digest}{bundle} --as {here.room.name}")
    screen.result(sheet_json(sheet) | ({"mock": tried_json(tried, sheet.claim)} if tried else {}))
    return 0


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
    say_untold(here.room, digest, screen)
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
    say_untold(here.room, digest, screen)
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
        page = InboxPage(here, url_of(sock), wheels=args.wheels, index=args.index)
        screen.said("open", page.entrance)
        screen.said("", "The address is good for one visit, in one browser. Ctrl-C ends it.")
        screen.result({"url": page.entrance})
        serve(page.application(), sock, announce=lambda _url: None)
    return 0
