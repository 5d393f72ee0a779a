"""The forms of an inbox: a comment, a change that is asked for, a refusal, and an approval of the digests on the page."""

from __future__ import annotations

from strongroom.app.client.inbox import Sheet
from strongroom.contract import State

from .inbox_frame import Frame
from .markup import Markup, element


def comment_form(frame: Frame, digest: str, file: str | None, line: int | None) -> Markup:
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


def decide(frame: Frame, sheet: Sheet, me: str) -> list[Markup]:
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
    talk = [element("details", element("summary", "Comment on the whole"), comment_form(frame, digest, None, None))]
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


__all__ = ["comment_form", "decide"]
