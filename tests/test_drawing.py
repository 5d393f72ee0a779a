"""What may be drawn from a source, what was agreed, what an owner says anew, and what draws cost: to the last integer."""

from __future__ import annotations

import contextlib
import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom import wire
from strongroom.asset import About
from strongroom.drawing import (
    GRAIN,
    MAX_SOURCES,
    MAX_TOTAL,
    PER_TOKENS,
    Agreed,
    Drawing,
    Price,
    Revision,
    agreed,
    lacking,
)
from strongroom.errors import BadDrawing, BadField, StaleRevision, StrongroomError
from strongroom.inference.events import MAX_GATES, SourceUsed, event_from_json
from strongroom.lm import influence
from strongroom.party import VerifyKey
from strongroom.policy import Policy
from strongroom.programs import serve_llm
from strongroom.wire import Envelope
from world import NOW, keys_of

HOME = Path(__file__).parents[1]
VECTORS = sorted((HOME / "vectors" / "drawing").glob("*.json"))
MODEL, OTHER = wire.digest(b"a model"), wire.digest(b"another")
TERMS = Drawing(frozenset({MODEL}), Price(25, "EUR-micro"), GRAIN // 2, 8 * GRAIN)
ASKED = Agreed("law", "law", MODEL, Price(25, "EUR-micro"), GRAIN // 2, 8 * GRAIN)

prices = st.builds(Price, st.integers(0, 10**12), st.sampled_from(["EUR-micro", "credit"]))
digests = st.sampled_from([MODEL, OTHER, wire.digest(b"a third")])
budgets = st.integers(1, GRAIN), st.integers(1, MAX_TOTAL)
drawings = st.builds(Drawing, st.frozensets(digests, min_size=1), prices, *budgets)
asked = st.builds(Agreed, st.just("law"), st.just("law"), digests, prices, *budgets)


# --- money ----------------------------------------------------------------------------------------------------------


def test_a_grain_is_one_number_in_both_halves() -> None:
    assert GRAIN == influence.GRAIN == serve_llm.GRAIN
    assert MAX_TOTAL == serve_llm.MAX_TOTAL
    assert MAX_SOURCES == serve_llm.MAX_SOURCES
    assert MAX_GATES == serve_llm.MAX_DRAWN


@given(prices, st.integers(0, MAX_TOTAL))
def test_an_amount_is_rounded_down_and_never_by_a_whole_unit(price: Price, grains: int) -> None:
    owed = price.of(grains) * PER_TOKENS * GRAIN
    assert 0 <= grains * price.amount - owed < PER_TOKENS * GRAIN


@given(prices, st.lists(st.integers(0, GRAIN), max_size=20))
def test_what_is_added_up_first_is_never_less_than_what_is_rounded_first(price: Price, gates: list[int]) -> None:
    assert price.of(sum(gates)) >= sum(map(price.of, gates))


# --- terms ----------------------------------------------------------------------------------------------------------


@given(drawings)
def test_terms_are_read_as_they_are_written(terms: Drawing) -> None:
    assert Drawing.from_json(terms.to_json()) == terms


@given(drawings, asked)
def test_terms_permit_exactly_what_is_narrower(terms: Drawing, one: Agreed) -> None:
    narrower = (
        one.weights in terms.models
        and one.price.unit == terms.price.unit
        and one.price.amount >= terms.price.amount
        and one.token <= terms.token
        and one.total <= terms.total
    )
    assert (not terms.explain(one)) == narrower


def test_what_goes_beyond_is_named() -> None:
    wide = Agreed("law", "law", OTHER, Price(24, "EUR-micro"), GRAIN, 9 * GRAIN)
    found = lacking(TERMS, "law", {"sources": [wide.to_json()]})
    assert len(found) == 4
    assert all(line.startswith("law: ") for line in found)
    assert OTHER in found[0]


def test_a_source_is_no_other_input_and_no_other_input_is_a_source() -> None:
    said = {"sources": [ASKED.to_json()]}
    assert lacking(TERMS, "law", said) == ()
    assert lacking(None, "model", said) == ()
    assert lacking(TERMS, "data", said)  # it would be read as an input of a program
    assert lacking(TERMS, "law", {})
    assert lacking(None, "law", said)


@pytest.mark.parametrize("value", [3, [3], [{**ASKED.to_json(), "price": "25"}], [ASKED.to_json()] * 2, [{}] * 17])
def test_what_cannot_be_read_permits_nothing(value: Any) -> None:
    assert lacking(TERMS, "law", {"sources": value})


def test_two_sources_of_one_name_are_refused() -> None:
    with pytest.raises(BadDrawing):
        agreed({"sources": [ASKED.to_json(), {**ASKED.to_json(), "role": "other"}]})


def test_terms_of_drawing_are_of_sources_alone() -> None:
    with pytest.raises(BadField, match="a datastore, and this is a model"):
        About("law", "model", "application/x-tar", "lab", NOW, Policy(), drawing=TERMS)


def test_no_models_are_nobody_and_no_terms() -> None:
    with pytest.raises(BadDrawing):
        Drawing(frozenset(), Price(0, "credit"))


# --- revisions ------------------------------------------------------------------------------------------------------


@given(st.builds(Revision, digests, st.integers(1, 2**53 - 1), st.integers(0, 2**53 - 1), st.none() | drawings))
def test_a_revision_is_read_as_it_is_written(one: Revision) -> None:
    assert Revision.parse(one.encode()) == one


@given(st.binary(max_size=4), st.integers(0, 400), st.integers(0, 4))
def test_a_revision_that_was_changed_is_refused_or_another(junk: bytes, at: int, gone: int) -> None:
    data = Revision(MODEL, 3, NOW, TERMS).encode()
    changed = data[:at] + junk + data[at + gone :]
    with contextlib.suppress(StrongroomError):
        assert Revision.parse(changed).encode() == changed


def test_an_older_word_does_not_come_back() -> None:
    out, back = Revision(MODEL, 2, NOW, None), Revision(MODEL, 1, NOW, TERMS)
    out.follows(back)
    out.follows(out)
    out.follows(None)
    with pytest.raises(StaleRevision):
        back.follows(out)
    with pytest.raises(StaleRevision):
        Revision(MODEL, 2, NOW, TERMS).follows(out)


# --- parameters -----------------------------------------------------------------------------------------------------

MODELS = [{"engine": "retrieval", "name": "lab/retrieval", "role": "model"}]
PARAMETERS = {**serve_llm.DEFAULTS, "max_tokens": 64, "models": MODELS, "sources": [ASKED.to_json()]}


def test_both_halves_read_sources_alike() -> None:
    (one,) = serve_llm.read(PARAMETERS).sources
    other = agreed(PARAMETERS)["law"]
    assert {**other.to_json()} == {name: getattr(one, name) for name in other.to_json()}
    assert serve_llm.roles(PARAMETERS) == {"model", "law"}


@pytest.mark.parametrize(
    "changes",
    [
        {"sources": []},
        {"models": [{**MODELS[0], "engine": "transformers"}]},
        {"models": [*MODELS, {"engine": "retrieval", "name": "two", "role": "two"}]},
        {"guard": "model"},  # it would draw for nobody's receipt
        {"max_tokens": 1025},
        {"sources": [{**ASKED.to_json(), "role": "model"}]},
        {"sources": [ASKED.to_json(), {**ASKED.to_json(), "role": "two"}]},
        {"sources": [{**ASKED.to_json(), "weights": None}]},
        {"sources": [{**ASKED.to_json(), "token": 0}]},
        {"sources": [{**ASKED.to_json(), "unit": "a b"}]},
        {"sources": [{**ASKED.to_json(), "name": "../law"}]},
        {"sources": [{**ASKED.to_json(), "more": 1}]},
    ],
)
def test_parameters_that_no_room_could_keep_to_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(StrongroomError) as caught:
        serve_llm.read({**PARAMETERS, **changes})
    assert caught.value.code == "program.bad_parameters"


# --- vectors --------------------------------------------------------------------------------------------------------


def _run(case: dict[str, Any]) -> None:
    operation = case["operation"]
    if operation == "terms":
        assert Drawing.from_json(case["value"]).to_json() == case["value"]
    elif operation == "agreed":
        terms = None if case["terms"] is None else Drawing.from_json(case["terms"])
        assert bool(lacking(terms, case["role"], case["parameters"])) == (case["expect"] == "policy.not_permitted")
    elif operation == "revision":
        Revision.verify(Envelope.from_json(case["envelope"]), VerifyKey(wire.unb64(case["signing_key"])))
    else:
        used = event_from_json(case["value"])
        assert isinstance(used, SourceUsed)
        assert used.to_json() == case["value"]
        price = Price(case["price"], case["unit"])
        same = (used.amount, used.unit) == (price.of(used.weight), price.unit)
        assert same == (case["expect"] == "ok")


@pytest.mark.parametrize("path", VECTORS, ids=lambda p: p.stem)
def test_each_case_has_its_outcome(path: Path) -> None:
    case = json.loads(path.read_bytes())
    if case["expect"] in ("ok", "policy.not_permitted", "inference.bad_usage"):
        _run(case)
        return
    with pytest.raises(StrongroomError) as caught:
        _run(case)
    assert caught.value.code == case["expect"]


def test_the_vectors_are_those_that_their_script_writes() -> None:
    found = spec_from_file_location("make_drawing", HOME / "vectors" / "make_drawing.py")
    assert found is not None
    assert found.loader is not None
    made = module_from_spec(found)
    found.loader.exec_module(made)
    assert {path.stem: json.loads(path.read_bytes()) for path in VECTORS} == made.cases()
    assert len(VECTORS) > 40


def test_a_revision_by_another_key_is_nobodys() -> None:
    signed = Revision(MODEL, 1, NOW, None).sign(keys_of("lab").signing)
    with pytest.raises(StrongroomError) as caught:
        Revision.verify(signed, keys_of("hospital").signing.public)
    assert caught.value.code == "wire.bad_signature"
