"""Keys: one normal form, no locale, and nothing that is made to look like another's key becomes it."""

from __future__ import annotations

import locale
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.errors import BadParameters
from strongroom.programs import intersection_size, match_report
from strongroom.programs.keys import MAX_CHARS, RULES, Keying, normal

TWO = {"census": ["e-mail"], "logs": ["user"]}
GOOD = {"country": None, "inputs": TWO, "round": 1, "rules": ["email"]}
TEXTS = st.text(max_size=40) | st.text("aAßİıſﬁＡ@.+ \u200d\u00ad\ufe0f0123４٣()-/", max_size=20)


@pytest.mark.parametrize(
    ("rule", "value", "form"),
    [
        ("email", " Anna.Maier@Example.ORG. ", "anna.maier@example.org"),
        ("email", "ａｎｎａ@example.org", "anna@example.org"),
        ("email", "an\u00adna@exa\u200bmple.org", "anna@example.org"),
        ("email", "STRASSE@example.org", "strasse@example.org"),
        ("email", "straße@example.org", "strasse@example.org"),
        ("email", "a.n.n.a+news@example.org", "a.n.n.a+news@example.org"),  # whose letters are whose is not ours to say
        ("email", "anna", None),
        ("email", "a@b@c", None),
        ("email", "anna @example.org", None),
        ("email", "@example.org", None),
        ("email", "anna@.", None),
        ("exact", " A ", " A "),
        ("exact", "", None),
        ("id", "  ab  12 ", "ab 12"),
        ("id", "AB12", "AB12"),
        ("id", "007", "007"),
        ("id", "\u200b", None),
        ("id", "a\x00b", None),
        ("text", "  Mexican\tfood ", "mexican food"),
        ("text", "ﬁlm", "film"),
        ("phone", "+49 (30) 1234-567", "+49301234567"),
        ("phone", "0049301234567", "+49301234567"),
        ("phone", "+٤٩٣٠١٢٣٤٥٦٧", "+49301234567"),
        ("phone", "030 1234567", None),  # of which country?
        ("phone", "+49 30 CALL", None),
        ("phone", "+1234", None),
        ("phone", "+1234567890123456", None),
        ("phone", "+", None),
        ("phone", "", None),
    ],
)
def test_a_value_has_one_normal_form(rule: str, value: str, form: str | None) -> None:
    assert normal(rule, value) == form


def test_a_national_number_takes_the_country_that_was_agreed() -> None:
    assert normal("phone", "030 1234567", "49") == normal("phone", "+49 30/1234567") == "+49301234567"
    assert normal("phone", "+44 20 7946 0000", "49") == "+442079460000"


@given(TEXTS, st.sampled_from(RULES))
def test_a_normal_form_is_its_own(value: str, rule: str) -> None:
    found = normal(rule, value)
    if found is not None:
        assert normal(rule, found) == found
        assert 0 < len(found) <= MAX_CHARS


@given(TEXTS)
def test_case_width_and_what_is_not_seen_make_no_other_key(value: str) -> None:
    spelled = unicodedata.normalize("NFD", value)
    assert normal("text", spelled) == normal("text", value)
    assert normal("text", f"\u200b {value}\u00ad ") in (normal("text", value), None)


# --- attacks --------------------------------------------------------------------------------------------------------------


def test_letters_that_look_alike_stay_apart() -> None:
    """A key crafted to pass for another's to the eye."""
    assert normal("email", "аnna@example.org") != normal("email", "anna@example.org")
    assert normal("id", "I0") != normal("id", "lO")


def test_no_locale_makes_two_keys_one() -> None:
    """In a Turkish locale a dotless i would be the lower case of I."""
    before = locale.setlocale(locale.LC_ALL)
    try:
        for name in ("tr_TR.UTF-8", "C"):
            try:
                locale.setlocale(locale.LC_ALL, name)
            except locale.Error:
                continue
            assert normal("text", "ISTANBUL") == "istanbul"
            assert normal("text", "ıstanbul") != "istanbul"
    finally:
        locale.setlocale(locale.LC_ALL, before)


@given(st.lists(st.text(max_size=6), min_size=2, max_size=2), st.lists(st.text(max_size=6), min_size=2, max_size=2))
def test_parts_of_a_key_do_not_run_together(one: list[str], other: list[str]) -> None:
    """('ab', 'c') crafted to collide with ('a', 'bc'), whatever stands between them."""
    keying = Keying(("exact", "exact"))
    first, second = keying.key(one), keying.key(other)
    if first is not None and second is not None:
        assert (first == second) == (one == other)


def test_a_key_with_a_part_missing_matches_nothing() -> None:
    keying = Keying(("id", "id"))
    assert keying.key(["a", None]) is keying.key(["a", " "]) is keying.key([None, None]) is None
    assert keying.key(["a", "\ud800"]) is None


@pytest.mark.parametrize("value", ["x" * (MAX_CHARS + 1), "\ufdfa" * 200])
def test_a_value_that_is_long_or_grows_long_is_no_key(value: str) -> None:
    assert normal("text", value) is None


# --- parameters -----------------------------------------------------------------------------------------------------------


def changed(**more: Any) -> dict[str, Any]:
    return {**GOOD, **more}


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        changed(more=1),
        changed(inputs={"census": ["a"]}),
        changed(inputs={f"r{n}": ["a"] for n in range(17)}),
        changed(inputs=[["a"], ["b"]]),
        changed(inputs={"Census": ["a"], "logs": ["b"]}),
        changed(inputs={"census": ["a", "b"], "logs": ["b"]}),
        changed(inputs={"census": [], "logs": []}),
        changed(inputs={"census": [""], "logs": ["b"]}),
        changed(inputs={"census": ["a", "a"], "logs": ["b", "c"]}, rules=["id", "id"]),
        changed(inputs={"census": "a", "logs": "b"}),
        changed(rules=[]),
        changed(rules=["soundex"]),
        changed(rules=[["id"]]),
        changed(rules="id"),
        changed(country="049"),
        changed(country=49),
        changed(round=0),
        changed(round=True),
        changed(round="10"),
    ],
)
@pytest.mark.parametrize("program", [match_report, intersection_size])
def test_parameters_that_no_run_could_use_are_refused(program: Any, parameters: dict[str, Any]) -> None:
    said = {"epsilon": None, **parameters} if program is intersection_size else parameters
    with pytest.raises(BadParameters, match=program.NAME):
        program.check(said)


def test_each_input_is_a_role() -> None:
    assert match_report.roles(GOOD) == intersection_size.roles({**GOOD, "epsilon": None}) == {"census", "logs"}
