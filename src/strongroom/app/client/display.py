"""What a notebook shows of the objects that it is handed: tables, figures and pictures; what others wrote stays text.

Objects of the client show themselves. For those of the core, which know no screen, :func:`register` tells a running IPython.
"""

from __future__ import annotations

import base64
import html
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from .figures import Figure, look

if TYPE_CHECKING:
    from strongroom.contract import Proposal
    from strongroom.receipt import Bundle, Receipt

    from .analysis import Tried
    from .room import Opened, Room, View

QUIET_SECONDS = 2  # before progress is shown
MAX_LOG = 2000  # characters, the last ones
MAX_OUTPUT = 64 << 20  # bytes of an output that are read to show it


def time_said(at: int) -> str:
    """A time as people say it. ``at``: Unix seconds."""
    try:
        when = datetime.fromtimestamp(at, UTC)
    except (OverflowError, ValueError, OSError):
        return f"second {at}"
    return f"{when.day} {when:%B %Y, %H:%M} UTC"


def shown(text: str) -> str:
    """What somebody else wrote, as a screen prints it and does not obey it."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def text_html(text: object) -> str:
    """Anything as text."""
    return html.escape(shown(str(text)))


def lines_html(text: str) -> str:
    """Text with its line ends."""
    return "<pre>" + "\n".join(text_html(line) for line in text.splitlines()) + "</pre>"


def aligned(pairs: Iterable[tuple[str, str]]) -> str:
    """Pairs as lines, for a screen without HTML."""
    rows = [(shown(about), shown(text)) for about, text in pairs]
    width = max((len(about) for about, _ in rows), default=0)
    return "\n".join(f"{about.ljust(width)}  {text}" for about, text in rows)


def rows_html(pairs: Iterable[tuple[str, str]]) -> str:
    """Pairs as a table."""
    rows = "".join(f"<tr><th>{text_html(about)}</th><td>{text_html(text)}</td></tr>" for about, text in pairs)
    return f"<table>{rows}</table>"


def table_html(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with a header."""
    head = "".join(f"<th>{text_html(name)}</th>" for name in header)
    named = f"<thead><tr>{head}</tr></thead>" if any(header) else ""
    body = "".join("<tr>" + "".join(f"<td>{text_html(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table>{named}<tbody>{body}</tbody></table>"


def figure_html(figure: Figure) -> str:
    """An output as a table, a picture or text."""
    parts = []
    if figure.picture is not None:
        # the output's rule drew it anew: it is a PNG and nothing else
        parts.append(f'<img alt="a picture" src="data:image/png;base64,{base64.b64encode(figure.picture).decode()}">')
    if figure.rows:
        parts.append(table_html(figure.header, figure.rows))
    if figure.text:
        parts.append(lines_html(figure.text))
    if figure.more and figure.picture is None:
        parts.append(f"<p>{text_html(figure.more)}</p>")
    return "".join(parts)


# --- a try ----------------------------------------------------------------------------------------------------------


def tried_pairs(tried: Tried) -> list[tuple[str, str]]:
    """What a try came to, in words."""
    end = "passed: everything that was asked for would leave" if tried.passed else "did not pass"
    found = [("tried", end), ("ran in", f"{tried.sandbox}, {tried.seconds:.2f} s")]
    found += [(f"output {name}", f"would leave: {len(data):,} bytes") for name, data in tried.outputs.items()]
    found += [(f"output {name}", f"would not leave: {why}") for name, why in tried.refused.items()]
    if tried.failure:
        found.append(("ended with", f"{tried.failure}; in a room that is all that anybody would learn"))
    return found


def tried_html(tried: Tried) -> str:
    """A try with its outputs, as they would leave."""
    parts = [rows_html(tried_pairs(tried))]
    for name, data in tried.outputs.items():
        parts += [f"<p><b>{text_html(name)}</b></p>", figure_html(look(tried.kinds.get(name, ""), data))]
    if tried.log.strip():
        parts.append(f"<details><summary>What it printed</summary>{lines_html(tried.log[-MAX_LOG:])}</details>")
    return "".join(parts)


# --- proposals and what came of them ----------------------------------------------------------------------------------


def proposal_pairs(proposal: Proposal) -> list[tuple[str, str]]:
    """What a proposal says that its proposer asks first, in words; all of it is in ``strongroom show``."""
    from .prose import clauses

    wanted = ("title", "proposed by", "identity", "program", "asset ", "output ", "runs", "budget of ", "tried on mocks")
    said = [(c.about, c.text) for c in clauses(proposal) if c.about.startswith(wanted)]
    return [*said, ("who signs", ", ".join(p.name for p in proposal.parties))]


def view_pairs(view: View) -> list[tuple[str, str]]:
    """A proposal, where it stands, and who has signed."""
    history, names = view.history, {p.name for p in view.proposal.parties}
    missing = ", ".join(sorted(names - history.approved_by))
    found = [*proposal_pairs(view.proposal), ("state", view.state.value)]
    found.append(("approved by", ", ".join(sorted(history.approved_by)) or "nobody"))
    return [*found, *([("waits for", missing)] if missing else [])]


def receipt_pairs(receipt: Receipt) -> list[tuple[str, str]]:
    """What was verified: a row for each numbered check."""
    found = [("receipt", receipt.label)]
    return found + [(check.number, f"{check.status.value}: {check.name}") for check in receipt.transcript.checks]


def bundle_pairs(bundle: Bundle) -> list[tuple[str, str]]:
    """What a run left behind, unverified."""
    return [
        ("receipt", bundle.receipt.digest),
        ("contract", bundle.contract.digest),
        ("verified", "not here: strongroom.verify(bundle, trust=room.trust)"),
    ]


def opened_html(opened: Iterable[Opened]) -> str:
    """Outputs that were delivered and opened, as tables, pictures and text."""
    parts = []
    for output in opened:
        parts.append(rows_html(opened_pairs(output)))
        parts.append(figure_html(_read(output)))
    return "".join(parts) or "<p>Nothing was delivered to you yet.</p>"


def opened_pairs(output: Opened) -> list[tuple[str, str]]:
    """What it is, and where it lies."""
    return [("output", f"{output.name} ({output.kind})"), ("written to", str(output.path))]


def _read(output: Opened) -> Figure:
    try:
        if output.path.stat().st_size > MAX_OUTPUT:
            return Figure(more="too large to be shown here")
        return look(output.kind, output.path.read_bytes())
    except OSError:
        return Figure(more="the file is not there any more")


def room_pairs(room: Room) -> list[tuple[str, str]]:
    """Who is at work here, and with whom; it asks nobody."""
    parties = ", ".join(p.name for p in room.trust.parties if p.name != room.name)
    return [
        ("party", room.name),
        ("keys", room.home.card.fingerprint),
        ("exchange", room.exchange.client.url),
        ("pinned", parties or "nobody"),
        ("log", ", ".join(vkey.split("+")[0] for vkey in room.trust.logs) or "none"),
    ]


class Outputs(list["Opened"]):
    """The outputs of a contract, which a notebook shows."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return opened_html(self)

    def __repr__(self) -> str:
        return "\n\n".join(aligned(opened_pairs(output)) for output in self) or "Nothing was delivered to you yet."


@contextmanager
def steps(given: Callable[[str, str], None] | None) -> Iterator[Callable[[str, str], None]]:
    """What is called with each step of something slow: what was given, else a line that comes once it takes long."""
    if given is not None:
        yield given
        return
    from tqdm import tqdm

    with tqdm(desc="asking", bar_format="{desc}, {elapsed}", leave=False, delay=QUIET_SECONDS, mininterval=0) as bar:

        def step(name: str, detail: str) -> None:
            bar.set_description_str(shown(f"{name} {detail}".strip()), refresh=False)
            bar.update()

        yield step


# --- IPython ----------------------------------------------------------------------------------------------------------


def of_core() -> Mapping[type, Callable[[Any], list[tuple[str, str]]]]:
    """What shows the core's objects, which know no screen."""
    from strongroom.contract import Proposal
    from strongroom.receipt import Bundle, Receipt

    return {Bundle: bundle_pairs, Proposal: proposal_pairs, Receipt: receipt_pairs}


def in_words() -> Mapping[type, Callable[[Any], list[tuple[str, str]]]]:
    """What shows objects on a screen without HTML."""
    from .analysis import Tried
    from .room import Opened, View

    return {**of_core(), Opened: opened_pairs, Tried: tried_pairs, View: view_pairs}


def html_of(value: object) -> str | None:
    """As a notebook shows it; ``None`` for what is none of ours."""
    pairs = of_core().get(type(value))
    if pairs is not None:
        return rows_html(pairs(value))
    own = getattr(value, "_repr_html_", None)
    return own() if callable(own) else None


def text_of(value: object) -> str:
    """As a screen without HTML shows it."""
    pairs = in_words().get(type(value))
    return repr(value) if pairs is None else aligned(pairs(value))


def register() -> bool:
    """Tell the IPython that this process runs in, if it does, how to show the core's objects."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None
    if shell is None:
        return False
    formats = shell.display_formatter.formatters
    for kind in of_core():
        formats["text/html"].for_type(kind, html_of)
    for kind in in_words():
        formats["text/plain"].for_type(kind, _pretty)
    return True


def _pretty(value: object, printer: Any, _cycle: bool) -> None:
    printer.text(text_of(value))
