"""Notes of a review: heard about the proposal and the code that they name, from the party that signed, and no other."""

from __future__ import annotations

import json
import re
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom import wire
from strongroom.contract import ProgramRef, Proposal
from strongroom.errors import BadField, StrongroomError
from strongroom.review import MAX_TEXT, Kind, Note, bundle_of
from strongroom.wire import Envelope
from world import NOW, World, keys_of

HOME = Path(__file__).parents[1]
VECTORS = sorted((HOME / "vectors" / "review").glob("*.json"))
HOSPITAL = keys_of("hospital")


def _script() -> ModuleType:
    found = spec_from_file_location("make_review", HOME / "vectors" / "make_review.py")
    assert found
    assert found.loader
    module = sys.modules[found.name] = module_from_spec(found)
    found.loader.exec_module(module)
    return module


MADE = _script()

digests = st.binary(max_size=8).map(wire.digest)
shown = st.text(st.characters(exclude_categories=("Cc", "Cf", "Cs", "Zl", "Zp")), max_size=60)
places = st.none() | st.tuples(st.just("a/b.py"), st.integers(1, 1_000_000))


@st.composite
def notes(draw: st.DrawFn) -> Note:
    kind, bundle, place = draw(st.sampled_from(Kind)), draw(st.none() | digests), draw(places)
    if bundle is None or kind is Kind.REVIEWED:
        place = None
    file, line = place or (None, None)
    report = draw(st.none() | digests) if kind is Kind.REVIEWED else None
    text = draw(shown) if kind is Kind.REVIEWED else "why? " + draw(shown)
    return Note(draw(digests), bundle, kind, "lab", draw(st.integers(0, 2**53 - 1)), text, file, line, report)


@given(notes())
def test_a_note_reads_as_it_was_written(note: Note) -> None:
    assert Note.parse(note.encode()) == note
    assert Note.parse(note.encode()).encode() == note.encode()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_what_is_altered_in_any_byte_is_not_heard(data: st.DataObject) -> None:
    whole = bytearray(MADE.COMMENT.sign(HOSPITAL.signing).encode())
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(StrongroomError):
        Note.verify(Envelope.parse(bytes(whole)), MADE.CODE)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)
    )
)
def test_no_other_json_is_a_note(value: Any) -> None:
    with pytest.raises(StrongroomError):
        Note.from_json(value)


@given(st.text(max_size=40))
def test_a_text_is_shown_as_it_is_or_refused(text: str) -> None:
    try:
        note = Note(MADE.CODE.digest, None, Kind.REVIEWED, "lab", NOW, text)
    except BadField:
        assert not text.replace("\n", "").replace("\t", "").isprintable()
        return
    assert "\x1b" not in note.text
    assert not set(note.text) & set("\u202e\u200b\ufeff\x00\r")


def test_a_text_as_long_as_may_be_is_read_again() -> None:
    for sign in ("x", "é", "\N{GRINNING FACE}", '"'):
        note = Note(MADE.CODE.digest, None, Kind.COMMENT, "lab", NOW, sign * MAX_TEXT)
        assert Note.parse(note.encode()) == note


# --- which code ---------------------------------------------------------------------------------------------------------


def with_program(name: str, parameters: dict[str, Any]) -> Proposal:
    return World().proposal(program=ProgramRef(name, MADE.PLAIN.program.digest, MADE.PLAIN.program.use, parameters))


def test_code_is_named_by_its_digest_or_not_at_all() -> None:
    assert bundle_of(MADE.CODE) == MADE.BUNDLE
    assert bundle_of(MADE.PLAIN) is None
    assert bundle_of(with_program("evaluate", {"bundle": MADE.BUNDLE})) is None


@pytest.mark.parametrize("parameters", [{}, {"bundle": None}, {"bundle": "analysis.py"}, {"bundle": ["sha256:" + "0" * 64]}])
def test_a_proposal_of_code_that_does_not_say_which_has_no_code_to_show(parameters: dict[str, Any]) -> None:
    with pytest.raises(BadField):
        bundle_of(with_program("code", parameters))


# --- vectors and the page -------------------------------------------------------------------------------------------------


def test_the_vectors_are_those_that_their_script_writes() -> None:
    assert {path.stem: json.loads(path.read_bytes()) for path in VECTORS} == MADE.all_cases()


@pytest.mark.parametrize("path", VECTORS, ids=lambda p: p.stem)
def test_vector(path: Path) -> None:
    case = json.loads(path.read_bytes())
    envelope, proposal = Envelope.from_json(case["envelope"]), Proposal.from_json(case["proposal"])
    if case["expect"] == "ok":
        note = Note.verify(envelope, proposal)
        assert note.encode() == envelope.payload
        assert (note.proposal, note.bundle) == (proposal.digest, bundle_of(proposal))
        return
    with pytest.raises(StrongroomError) as caught:
        Note.verify(envelope, proposal)
    assert caught.value.code == case["expect"]


def test_the_page_shows_notes_that_are_some_and_names_every_member() -> None:
    page = (HOME / "spec" / "review.md").read_text(encoding="utf-8")
    blocks = [json.loads(block.split("```")[0]) for block in page.split("```json\n")[1:]]
    assert blocks[:2] == [MADE.COMMENT.to_json(), MADE.REVIEWED.to_json()]
    assert not {name for name in MADE.COMMENT.to_json() if f"`{name}`" not in page}
    assert {kind.value for kind in Kind} <= set(re.findall(r"`(\w+)`", page))
