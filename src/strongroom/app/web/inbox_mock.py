"""What the code did on the mocks, on its page: as the proposer claims it, and as it does when it is run here.

A claim is shown as text alone. Tables and pictures are of this machine's own run, after the proposal's own output rules.
"""

from __future__ import annotations

from collections.abc import Mapping

from strongroom.app.client.analysis import Tried
from strongroom.app.client.figures import Figure, look
from strongroom.app.client.inbox import Sheet
from strongroom.app.client.trials import SAME, Claim, compare
from strongroom.trial import Trial

from .inbox_frame import Frame
from .markup import Markup, element

MAX_LOG = 4000  # characters, the last ones


def mock_part(frame: Frame, sheet: Sheet, tried: Tried | None) -> list[Markup]:
    """The claim, and this machine's own run beside it."""
    if sheet.code is None:
        return []
    compared = compare(sheet.claim.trial, tried) if tried is not None and sheet.claim and sheet.claim.trial else {}
    return [
        element("h2", "On the mocks", id="mocks"),
        *_claimed(sheet.claim),
        *(_mine(frame, sheet, tried, compared) if tried is not None else []),
        _form(frame, sheet, again=tried is not None),
    ]


def _claimed(claim: Claim | None) -> list[Markup]:
    if claim is None:
        return [element("p", "The proposer sent nothing along of what it did.", class_="soft")]
    badge = element("span", "claimed", class_="badge medium")
    said = [element("p", badge, f" by {claim.by}, who proposes it. Nothing of it was checked: run it here to compare.")]
    said += [element("p", f"Mind: {doubt}.", class_="said error") for doubt in claim.doubts]
    if claim.trial is not None:
        said += [element("dl", *_claimed_outputs(claim.trial), class_="fine"), *_log(claim.trial.log)]
    return said


def _claimed_outputs(trial: Trial) -> list[Markup]:
    found = []
    for name, shown in sorted(trial.outputs.items()):
        what = [f"{shown.kind}, {shown.size:,} bytes"]
        if shown.content is not None and shown.kind in ("log", "report", "success", "values"):
            what = [_figure(look(shown.kind, shown.content))]
        found += [element("dt", name), element("dd", *what, element("p", shown.digest, class_="mono soft"))]
    for name, why in sorted(trial.refused.items()):
        found += [element("dt", name), element("dd", f"would not leave: {why}")]
    if trial.failure:
        found += [element("dt", "ended with"), element("dd", trial.failure, class_="mono")]
    return found


def _mine(frame: Frame, sheet: Sheet, tried: Tried, compared: Mapping[str, str]) -> list[Markup]:
    badge = element("span", "run here", class_="badge good")
    kind = f" in the sandbox ({tried.sandbox}), in {tried.seconds:.2f} s. Mocks are made up, and so are these figures."
    found: list[Markup] = []
    for name, data in sorted(tried.outputs.items()):
        figure = look(tried.kinds.get(name, ""), data)
        source = frame.path("p", sheet.view.proposal.digest, "mock", name)
        found += [element("dt", name, *_verdict(compared, name)), element("dd", _figure(figure, source))]
    for name, why in sorted(tried.refused.items()):
        found += [element("dt", name, *_verdict(compared, name)), element("dd", f"would not leave: {why}")]
    if tried.failure:
        found += [element("dt", "ended with"), element("dd", tried.failure, class_="mono")]
    different = [name for name, verdict in compared.items() if verdict != SAME]
    said = []
    if different:
        what = f"Not what was claimed: {', '.join(different)}. Code that draws random numbers answers otherwise each time."
        said = [element("p", what, class_="said error", role="status")]
    return [element("p", badge, kind, id="here"), *said, element("dl", *found, class_="fine"), *_log(tried.log)]


def _verdict(compared: Mapping[str, str], name: str) -> list[object]:
    if name not in compared:
        return []
    same = compared[name] == SAME
    return [" ", element("span", "as claimed" if same else "not as claimed", class_=f"badge {'good' if same else 'high'}")]


def _figure(figure: Figure, source: str | None = None) -> Markup:
    if figure.picture is not None and source is not None:
        return element("img", src=source, alt="the picture that the code drew of the mocks")
    parts: list[Markup] = []
    if figure.rows:
        names = [element("th", name, scope="col") for name in figure.header]
        head = element("thead", element("tr", *names)) if any(figure.header) else None
        rows = [element("tr", *(element("td", cell) for cell in row)) for row in figure.rows]
        parts.append(element("div", element("table", head, element("tbody", *rows)), class_="table"))
    if figure.text:
        parts.append(element("pre", figure.text))
    if figure.more:
        parts.append(element("p", figure.more, class_="soft small"))
    return element("div", *parts)


def _log(log: str) -> list[Markup]:
    if not log.strip():
        return []
    return [element("details", element("summary", "What it printed"), element("pre", log[-MAX_LOG:]))]


def _form(frame: Frame, sheet: Sheet, *, again: bool) -> Markup:
    return element(
        "form",
        element("input", type="hidden", name="proposal", value=sheet.view.proposal.digest),
        element("input", type="hidden", name="secret", value=frame.secret),
        element("button", "Run it here again" if again else "Run it here, in the sandbox"),
        method="post",
        action=frame.path("p", sheet.view.proposal.digest, "try"),
    )


__all__ = ["mock_part"]
