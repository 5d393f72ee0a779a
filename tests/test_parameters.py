"""What members of a program's parameters must be: each check by what it refuses."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.errors import BadParameters
from strongroom.programs import NAMES, load, sources
from strongroom.programs.parameters import MAX_TEXT, STEP, Checks

CHECK = Checks("a-program")
DIGEST = "sha256:" + "0" * 64
REFUSED: dict[str, Callable[[], object]] = {
    "no object": lambda: CHECK.members([], {"a"}, "it"),
    "a member missing": lambda: CHECK.members({}, {"a"}, "it"),
    "a member too many": lambda: CHECK.members({"a": 1, "b": 2}, {"a"}, "it"),
    "no list": lambda: CHECK.items("ab", "it", 1, 3),
    "too few": lambda: CHECK.items([], "it", 1, 3),
    "too many": lambda: CHECK.items([1, 2, 3, 4], "it", 1, 3),
    "no text": lambda: CHECK.text(1, "it"),
    "an empty text": lambda: CHECK.text("", "it"),
    "a text too long": lambda: CHECK.text("x" * (MAX_TEXT + 1), "it"),
    "a text of two lines": lambda: CHECK.text("a\nb", "it"),
    "another word": lambda: CHECK.matching("B", re.compile(r"[a-z]\Z"), "it"),
    "a word and a line's end": lambda: CHECK.matching("b\n", re.compile(r"[a-z]\Z"), "it"),
    "no word": lambda: CHECK.matching(None, re.compile(""), "it"),
    "no digest": lambda: CHECK.digest("sha256:0", "it"),
    "a digest and a line's end": lambda: CHECK.digest(DIGEST + "\n", "it"),
    "a number for a digest": lambda: CHECK.digest(0, "it"),
    "true for a number": lambda: CHECK.whole(True, "it", 0, 3),
    "a fraction": lambda: CHECK.whole(1.0, "it", 0, 3),
    "below": lambda: CHECK.whole(-1, "it", 0, 3),
    "above": lambda: CHECK.whole(4, "it", 0, 3),
    "one for true": lambda: CHECK.flag(1, "it"),
    "nothing for true": lambda: CHECK.flag(None, "it"),
    "the same twice": lambda: CHECK.distinct(["a", "b", "a"], "they"),
}


@pytest.mark.parametrize("wrong", REFUSED.values(), ids=REFUSED.keys())
def test_it_is_refused_in_the_programs_name(wrong: Callable[[], object]) -> None:
    with pytest.raises(BadParameters, match=r"^a-program: (it|they) ") as found:
        wrong()
    assert found.value.step == STEP


def test_what_is_right_comes_back_as_it_is() -> None:
    assert CHECK.members({"a": 1}, {"a"}, "it") == {"a": 1}
    assert CHECK.items((1, 2), "it", 0, 2) == [1, 2]
    assert CHECK.text("x" * MAX_TEXT, "it") == "x" * MAX_TEXT
    assert CHECK.matching("b", re.compile(r"[a-z]\Z"), "it") == "b"
    assert (CHECK.digest(None, "it"), CHECK.digest(DIGEST, "it")) == (None, DIGEST)
    assert (CHECK.whole(0, "it", 0, 3), CHECK.whole(3, "it", 0, 3)) == (0, 3)
    assert CHECK.flag(False, "it") is False
    CHECK.distinct(["a", "b"], "they")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_whatever_the_value_it_passes_or_is_refused_and_is_never_shown(value: Any) -> None:
    checks: list[Callable[[], object]] = [
        lambda: CHECK.members(value, {"member"}, "it"),
        lambda: CHECK.items(value, "it", 0, 1),
        lambda: CHECK.text(value, "it"),
        lambda: CHECK.digest(value, "it"),
        lambda: CHECK.whole(value, "it", 0, 9),
        lambda: CHECK.flag(value, "it"),
    ]
    for check in checks:
        words = set[str]()
        try:
            check()
        except BadParameters as error:
            words.add(error.message)
        assert all(word.startswith("a-program: it ") for word in words)


def test_every_program_brings_the_checks_along_into_its_sandbox() -> None:
    for name in NAMES:
        assert "programs/parameters.py" in sources(name)
        with pytest.raises(BadParameters, match=f"^{name}: the parameters (do|are not exactly)"):
            load(name).check({})
