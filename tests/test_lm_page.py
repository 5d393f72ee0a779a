"""The page of an answer: colours by source, nothing that runs, and text that stays text."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

pytest.importorskip("numpy", reason="numpy is not installed")

from hypothesis import given
from hypothesis import strategies as st

from strongroom.app.cli.drawn_page import GRAIN, HUES, LEVELS, level, page
from strongroom.errors import Usage
from strongroom.lm.generation import Answer, Draw, Written

HOSTILE = '<script>alert(1)</script><img src=x onerror="alert(2)">\u202e"&'


class Read(HTMLParser):
    """Names of elements, their attributes, and text."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(data.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def made(words: list[str], prompt: str = "", names: tuple[str, ...] = ("books", "law")) -> Read:
    """Tokens that draw from the last source, one the half of it, the next nearly nothing."""
    weights = [GRAIN // 2, 5, GRAIN]
    tokens = tuple(
        Written(number, 0, (Draw(names[-1], weights[number % 3], 7, 0),) if number % 4 else ())
        for number in range(len(words))
    )
    drawn = {name: sum(d.weight for t in tokens for d in t.draws if d.source == name) for name in names}
    answer = Answer("".join(words), tokens, drawn, "sha256:0")
    return Read(page(prompt, answer, names, lambda held: "".join(words[n] for n in held), {"law": "City council"}))


def test_each_token_has_its_sources_colour() -> None:
    spans = [
        a for tag, a in made(["a", "b", "c", "d", "e", "f"]).elements if tag == "span" and "token" in (a["class"] or "")
    ]
    classes = [a["class"] for a in spans]
    assert classes == ["token", "token", f"token s1l{LEVELS}", "token s1l2", "token", f"token s1l{LEVELS}"]
    assert spans[3]["title"] == "law 50.0%, passage 7"


@given(st.integers(0, GRAIN))
def test_more_is_darker(weight: int) -> None:
    assert 0 <= level(weight) <= level(min(GRAIN, weight + 1)) <= LEVELS


def test_what_a_text_holds_stays_text() -> None:
    found = made([HOSTILE, "x"], prompt=HOSTILE)
    assert {tag for tag, _ in found.elements} <= {
        *("html", "head", "meta", "title", "style", "body", "h1", "table", "tr", "th", "td", "p", "div", "span"),
    }
    assert not any(name.startswith("on") or name in ("src", "href") for _, a in found.elements for name in a)
    assert "".join(found.texts).count("<script>") == 2
    assert "\u202e" not in "".join(found.texts)  # it would turn the direction of what follows


def test_its_policy_lets_nothing_be_loaded_and_nothing_run() -> None:
    policy = next(a["content"] for tag, a in made(["a"]).elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "script" not in policy


def test_half_a_character_waits_for_the_rest() -> None:
    words = ["\N{REPLACEMENT CHARACTER}", "x"]
    tokens = (Written(0, 0, ()), Written(1, 0, ()))
    answer = Answer("é", tokens, {}, "sha256:0")
    found = Read(page("", answer, (), lambda held: "é" if held == [0, 1] else words[held[0]], {}))
    assert "é" in found.texts
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(found.texts)


def test_more_sources_than_colours_are_refused() -> None:
    with pytest.raises(Usage):
        made(["a"], names=tuple(f"s{n}" for n in range(len(HUES) + 1)))
