"""The pages of the inbox: a list, and a proposal with its code, what was found in it, and what was said of it.

They are plain HTML. There is no script, and the browser is told to run none. What others wrote is text (``markup.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from strongroom.app.client.analysis import Tried
from strongroom.app.client.inbox import Sheet
from strongroom.app.client.listed import Row
from strongroom.app.client.prose import Clause
from strongroom.app.client.room import LeftOut
from strongroom.contract import State
from strongroom.errors import StrongroomError

from .inbox_code import code_part, report_part, said
from .inbox_forms import decide
from .inbox_frame import Frame, Place, day
from .inbox_mock import mock_part
from .markup import Markup, element, together

MAX_ROWS = 500
FIRST = ("takes the place of", "program")
ABOVE = ("title", "proposed by", "identity")  # which stand in the heading, and where it is decided
STATES = [state.value for state in State]


def page(frame: Frame, title: str, *parts: object) -> bytes:
    """A whole page."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{title} · inbox of {frame.party}"),
        element("link", rel="stylesheet", href=f"{frame.base}style.css"),
        element("link", rel="icon", href=f"{frame.base}icon.svg", type="image/svg+xml"),
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


def proposal(frame: Frame, sheet: Sheet, place: Place, me: str, tried: Tried | None = None) -> bytes:
    """Everything about one proposal."""
    view = sheet.view
    main = [
        element("h1", view.proposal.title),
        element("p", *_standing(sheet), class_="soft"),
        _words(sheet),
        *code_part(frame, sheet, place),
        *report_part(sheet),
        *mock_part(frame, sheet, tried),
        *_general_notes(sheet),
    ]
    aside = element("aside", *decide(frame, sheet, me), id="decide", aria_label="Decide")
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
    must = [element("h2", "Who must approve"), terms(sheet.approvers)] if sheet.approvers else []
    return together(
        [
            element("h2", "What leaves"),
            terms(outputs),
            element("h2", "Who and what"),
            terms(heads),
            *must,
            *costs,
            element("details", element("summary", "Everything else that it says"), terms(rest)),
        ]
    )


def _general_notes(sheet: Sheet) -> list[Markup]:
    general = [note for note in sheet.notes if note.file is None]
    return [element("h2", "Said of the whole", id="notes"), *map(said, general)] if general else []


__all__ = ["listing", "message", "proposal"]
