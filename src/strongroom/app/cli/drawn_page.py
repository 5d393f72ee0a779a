"""An answer as a page: each token in the colour of the source that it drew on most, and by how much when it is pointed at.

One file without a script, whose policy lets nothing be loaded. What a text holds is text on the page, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from strongroom.app.web.markup import Markup, element
from strongroom.errors import Usage

if TYPE_CHECKING:
    from strongroom.lm.generation import Answer, Written

GRAIN: Final = 1 << 20
TITLE: Final = "What an answer was drawn from"
_NOTE: Final = (
    "A token has the colour of the source that could decide most of it, darker for more; without colour it is the model's "
    "own. Point at one to see the weights. A weight is what a source could decide, and not what is true."
)
# Hues that people who see few colours tell apart too, and that text can be read on; the darkness says how much was drawn.
HUES: Final = (205, 35, 145, 285, 0, 60, 175, 320)
LEVELS: Final = 4
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE: Final = """
body { font: 18px/1.9 Georgia, serif; max-width: 44em; margin: 2em auto; padding: 0 1em; color: #111; background: #fff }
h1 { font: bold 22px/1.3 system-ui, sans-serif }
table, .key { font: 14px/1.5 system-ui, sans-serif; border-collapse: collapse }
th, td { text-align: left; padding: .15em .9em .15em 0 } td + td { text-align: right }
.text { white-space: pre-wrap; overflow-wrap: anywhere; border-top: 1px solid #ccc; padding-top: 1em }
.prompt { color: #555 } .token { border-radius: 3px; padding: .12em 0 } .key span { padding: .1em .4em; margin-right: .6em }
p.note { font: 14px/1.5 system-ui, sans-serif; color: #444 }
"""


def level(weight: int) -> int:
    """How dark: 0 for next to nothing, then 1 to ``LEVELS``."""
    return min(LEVELS, weight * (LEVELS + 1) // GRAIN)


def page(
    prompt: str, answer: Answer, sources: Sequence[str], decode: Callable[[Sequence[int]], str], owners: Mapping[str, str]
) -> bytes:
    """The page.

    Args:
        prompt: what the answer goes on from.
        answer: with the draws of each token.
        sources: those of the store, in order.
        decode: tokens to text.
        owners: of each source.

    Raises:
        Usage: there are more sources than colours.
    """
    if len(sources) > len(HUES):
        raise Usage(f"a page has colours for {len(HUES)} sources", hint="Leave some out: --without NAME")
    spans = [_span(run, decode, sources) for run in _whole(answer.tokens, decode)]
    header = element("tr", *(element("th", word) for word in ("source", "owner", "tokens drawn")))
    rows = [_row(name, place, answer, owners) for place, name in enumerate(sources)]
    body = element(
        "body",
        element("h1", TITLE),
        element("table", header, rows),
        element("p", f"{len(answer.tokens)} tokens. {_NOTE}", class_="note"),
        element("div", element("span", prompt, class_="prompt"), spans, class_="text"),
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
        element("meta", name="viewport", content="width=device-width"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", TITLE),
        element("style", Markup(_STYLE + _colours())),
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n".encode()


def _colours() -> str:
    found = []
    for place, hue in enumerate(HUES):
        found += [f".s{place}l{n} {{ background: hsl({hue} 85% {96 - 8 * n}%) }}" for n in range(1, LEVELS + 1)]
    return "\n".join(found)


def _row(name: str, place: int, answer: Answer, owners: Mapping[str, str]) -> Markup:
    key = element("td", element("span", name, class_=f"s{place}l{LEVELS}"), class_="key")
    return element("tr", key, element("td", owners.get(name, "")), element("td", f"{answer.drawn.get(name, 0) / GRAIN:.2f}"))


def _whole(tokens: Sequence[Written], decode: Callable[[Sequence[int]], str]) -> list[list[Written]]:
    """Tokens, those that make one character together."""
    found: list[list[Written]] = []
    held: list[Written] = []
    for one in tokens:
        held.append(one)
        if not decode([w.token for w in held]).endswith("\N{REPLACEMENT CHARACTER}"):
            found.append(held)
            held = []
    return [*found, held] if held else found


def _span(run: Sequence[Written], decode: Callable[[Sequence[int]], str], sources: Sequence[str]) -> Markup:
    words = decode([one.token for one in run])
    draws = [draw for one in run for draw in one.draws]
    if not draws:
        return element("span", words, class_="token")
    said = "; ".join(f"{draw.source} {draw.weight / GRAIN:.1%}, passage {draw.passage:,}" for draw in draws)
    most = max(draws, key=lambda draw: draw.weight)
    dark = level(most.weight)
    colour = f" s{sources.index(most.source)}l{dark}" if dark else ""
    return element("span", words, class_=f"token{colour}", title=said)
