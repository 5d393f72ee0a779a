"""The policy lattice: its laws on normal forms, what it refuses, and what it says to people."""

from __future__ import annotations

import copy
import json
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom import wire
from strongroom.errors import BadField, EmptyPolicy, NotPermitted, StrongroomError, UnknownDimension
from strongroom.observation import FAILURES, Observed
from strongroom.policy import ANY_PARTY, MAX_NAMES, Airlock, OutputRule, Policy, explain
from strongroom.schema import ANY_SCHEMA, KINDS
from strongroom.serving import GUARDS, MAX_LEASE_S, MAX_PADDING, MIN_LEASE_S, OBSERVABILITY, ROUTES, Serving
from test_schema import schemas_for

VECTORS = sorted((Path(__file__).parents[1] / "vectors" / "policy").glob("*.json"))

# Few values in each dimension, so that two policies drawn at random are often comparable.
names = st.frozensets(st.sampled_from(["hospital", "lab", "press"]))
locks = st.builds(
    Airlock, by=st.frozensets(st.sampled_from(["hospital", "lab", "press"]), min_size=1, max_size=2), reasons=st.booleans()
)


def rules_for(kind: str) -> st.SearchStrategy[OutputRule]:
    return st.builds(
        OutputRule,
        recipients=st.just(ANY_PARTY) | names,
        max_bytes=st.sampled_from([1, 1000, wire.MAX_INT]),
        min_group=st.sampled_from([1, 10, wire.MAX_INT]),
        decimals=st.sampled_from([0, 4, 15]),
        schema=st.just(ANY_SCHEMA) | schemas_for(kind) if kind in KINDS else st.none(),
        release=st.none() | locks,
    )


servings = st.builds(
    Serving,
    routes=st.frozensets(st.sampled_from(ROUTES)),
    lease_s=st.sampled_from([MIN_LEASE_S, 600, MAX_LEASE_S]),
    plain_bodies=st.booleans(),
    padding=st.sampled_from([0, 256, MAX_PADDING]),
    observability=st.sampled_from(OBSERVABILITY),
    retention_s=st.sampled_from([0, 3600]),
    input_guards=st.frozensets(st.sampled_from(GUARDS)),
    output_guards=st.frozensets(st.sampled_from(GUARDS)),
)
policies = st.builds(
    Policy,
    uses=st.frozensets(st.sampled_from(["evaluate", "train"])),
    outputs=st.fixed_dictionaries({}, optional={kind: rules_for(kind) for kind in ("report", "table", "values")}),
    serve=st.none() | servings,
    observed=st.none()
    | st.builds(Observed, duration_s=st.sampled_from([None, 1, 4, 6, 60, 86_399]), failure=st.sampled_from(FAILURES)),
)


def rule(**changes: object) -> OutputRule:
    values = {"recipients": frozenset({"hospital"}), "max_bytes": 1000, "min_group": 10, "decimals": 4, **changes}
    return OutputRule(**values)  # type: ignore[arg-type]


TERMS = Policy(frozenset({"evaluate"}), {"report": rule()})


# --- the laws -------------------------------------------------------------------------------------------------------


@given(policies)
def test_permits_is_reflexive(a: Policy) -> None:
    assert a.permits(a)


@given(policies, policies, policies)
def test_permits_is_transitive(a: Policy, b: Policy, c: Policy) -> None:
    # Drawn at random the premise seldom holds, so the chain is made: b and c are narrowed into it.
    b, c = a & b, a & b & c
    assert a.permits(b)
    assert b.permits(c)
    assert a.permits(c)


@given(policies, policies, policies)
def test_permits_is_transitive_on_unrelated_policies(a: Policy, b: Policy, c: Policy) -> None:
    if a.permits(b) and b.permits(c):
        assert a.permits(c)


@given(policies, policies)
def test_permits_is_antisymmetric_on_normal_forms(a: Policy, b: Policy) -> None:
    assert (a.permits(b) and b.permits(a)) == (a == b)


@given(policies, policies)
def test_meet_is_a_lower_bound(a: Policy, b: Policy) -> None:
    assert a.permits(a & b)
    assert b.permits(a & b)


@given(policies, policies, policies)
def test_meet_is_the_greatest_lower_bound(a: Policy, b: Policy, c: Policy) -> None:
    assert (a.permits(c) and b.permits(c)) == (a & b).permits(c)


@given(policies, policies, policies)
def test_meet_is_commutative_associative_and_idempotent(a: Policy, b: Policy, c: Policy) -> None:
    assert a & b == b & a
    assert (a & b) & c == a & (b & c)
    assert a & a == a
    assert a.meet(b) == a & b


@given(policies, policies)
def test_permits_is_the_order_of_meet(a: Policy, b: Policy) -> None:
    assert a.permits(b) == (a & b == b)


@given(policies, policies)
def test_equal_policies_hash_equally(a: Policy, b: Policy) -> None:
    assert a != b or hash(a) == hash(b)
    assert hash(Policy.from_json(a.to_json())) == hash(a)


@given(policies)
def test_the_bottom_is_under_every_policy(a: Policy) -> None:
    assert a.permits(Policy())
    assert a & Policy() == Policy()


@given(policies, policies)
def test_every_refusal_is_explained_and_nothing_else(a: Policy, b: Policy) -> None:
    assert a.permits(b) == (explain(a, b) == ())


# --- what is absent allows nothing ----------------------------------------------------------------------------------


@given(policies, st.sampled_from([("uses", frozenset()), ("outputs", {}), ("serve", None)]))
def test_a_policy_without_a_dimension_permits_nothing_that_has_it(a: Policy, nothing: tuple[str, object]) -> None:
    dimension, empty = nothing
    without = replace(a, **{dimension: empty})
    assert without.permits(a) == (not getattr(a, dimension))


@given(policies)
def test_a_draft_may_leave_dimensions_out_and_they_allow_nothing(a: Policy) -> None:
    written = a.to_json()
    assert Policy.draft(written) == a
    assert Policy.draft({"uses": written["uses"]}) == Policy(uses=a.uses)
    assert Policy.draft({"outputs": written["outputs"]}) == Policy(outputs=a.outputs)
    assert Policy.draft({m: v for m, v in written.items() if m in ("observed", "uses")}) == Policy(
        uses=a.uses, observed=a.observed
    )
    assert Policy.draft({m: v for m, v in written.items() if m == "serve"}) == Policy(serve=a.serve)
    assert Policy.draft({}) == Policy()


def test_a_draft_is_an_object() -> None:
    with pytest.raises(BadField):
        Policy.draft([])  # type: ignore[arg-type]


def test_rules_without_recipients_drop_out() -> None:
    assert Policy(frozenset({"evaluate"}), {"report": rule(recipients=frozenset())}) == Policy(frozenset({"evaluate"}))


@pytest.mark.parametrize("empty", [Policy(), Policy(frozenset({"evaluate"})), Policy(outputs={"report": rule()})])
def test_the_bottom_is_refused(empty: Policy) -> None:
    with pytest.raises(EmptyPolicy):
        empty.require()


def test_a_usable_policy_is_itself() -> None:
    assert TERMS.require() is TERMS


# --- what is unknown is refused -------------------------------------------------------------------------------------


def test_an_unknown_output_kind_is_refused_on_construction() -> None:
    with pytest.raises(UnknownDimension):
        Policy(frozenset({"evaluate"}), {"video": rule()})


def test_egress_is_refused_on_construction() -> None:
    with pytest.raises(UnknownDimension):
        Policy(egress=frozenset({"example.com"}))


@pytest.mark.parametrize(
    "values",
    [
        {"uses": "evaluate"},
        {"uses": b"evaluate"},
        {"uses": {"evaluate": 1}},
        {"uses": 7},
        {"uses": {"Evaluate"}},
        {"uses": frozenset(f"use{n}" for n in range(MAX_NAMES + 1))},
        {"egress": None},
        {"outputs": None},
        {"outputs": [("report", rule())]},
        {"outputs": {"report": {"decimals": 4}}},
    ],
)
def test_a_policy_of_another_shape_cannot_be_made(values: dict[str, object]) -> None:
    with pytest.raises(BadField):
        Policy(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"decimals": 16},
        {"decimals": -1},
        {"decimals": True},
        {"decimals": 4.0},
        {"max_bytes": 0},
        {"max_bytes": wire.MAX_INT + 1},
        {"min_group": 0},
        {"min_group": None},
        {"recipients": "any-party"},  # the word stands only in JSON; as a string it would be a set of letters
        {"recipients": "hospital"},
        {"recipients": frozenset({"any-party"})},
        {"recipients": frozenset({"../lab"})},
        {"recipients": None},
    ],
)
def test_a_rule_out_of_range_cannot_be_made(changes: dict[str, object]) -> None:
    with pytest.raises(BadField):
        rule(**changes)


def test_any_iterable_of_names_is_taken_and_made_a_set() -> None:
    assert rule(recipients=["lab", "lab", "hospital"]).recipients == frozenset({"hospital", "lab"})


def test_delivers_to() -> None:
    assert rule(recipients=ANY_PARTY).delivers_to("anybody")
    assert rule().delivers_to("hospital")
    assert not rule().delivers_to("hosp")


def test_a_policy_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        TERMS.outputs["log"] = rule()  # type: ignore[index]
    with pytest.raises(FrozenInstanceError):
        TERMS.uses = frozenset({"train"})  # type: ignore[misc]


def test_changing_the_map_it_was_made_from_changes_no_policy() -> None:
    outputs = {"report": rule()}
    policy = Policy(frozenset({"evaluate"}), outputs)
    outputs["log"] = rule()
    assert set(policy.outputs) == {"report"}


# --- the wire form --------------------------------------------------------------------------------------------------


@given(policies)
def test_round_trip(a: Policy) -> None:
    encoded = wire.encode(a.to_json())
    parsed = Policy.from_json(wire.decode(encoded))
    assert parsed == a
    assert wire.encode(parsed.to_json()) == encoded


@given(policies, policies)
def test_the_wire_form_keeps_the_order(a: Policy, b: Policy) -> None:
    read = [Policy.from_json(wire.decode(wire.encode(p.to_json()))) for p in (a, b)]
    assert read[0].permits(read[1]) == a.permits(b)


@given(policies, st.data())
def test_malleability_every_change_is_refused_or_is_another_policy(a: Policy, data: st.DataObject) -> None:
    encoded = bytearray(wire.encode(a.to_json()))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = Policy.from_json(wire.decode(bytes(encoded)))
    except StrongroomError:
        return
    assert wire.encode(found.to_json()) == bytes(encoded)
    assert found != a


@given(policies, st.recursive(st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3), st.lists, max_leaves=3))
def test_from_json_is_total(a: Policy, junk: object) -> None:
    written = copy.deepcopy(a.to_json())
    for path in ("egress", "outputs", "uses"):
        try:
            found = Policy.from_json({**written, path: junk})
        except StrongroomError:
            continue
        assert found.to_json() == {**written, path: junk}


def test_the_example_of_the_specification() -> None:
    page = (Path(__file__).parents[1] / "spec" / "policy.md").read_text(encoding="utf-8")
    for block in page.split("## Example")[1].split("```json\n")[1:]:
        example = json.loads(block.split("```")[0])
        assert Policy.from_json(example).require().to_json() == example


# --- vectors --------------------------------------------------------------------------------------------------------


def test_there_are_vectors() -> None:
    assert len(VECTORS) > 20


def run(case: dict[str, object]) -> None:
    match case["operation"]:
        case "parse":
            assert Policy.from_json(case["policy"]).to_json() == case["policy"]
        case "require":
            Policy.from_json(case["policy"]).require()
        case "permits":
            terms, asked = Policy.from_json(case["terms"]), Policy.from_json(case["asked"])
            assert list(explain(terms, asked)) == case["explanation"]
            if not terms.permits(asked):
                raise NotPermitted(case["explanation"][0])  # type: ignore[index]
        case "meet":
            met = Policy.from_json(case["first"]) & Policy.from_json(case["second"])
            assert met.to_json() == case["meet"]
        case _:
            pytest.fail("an operation that this test does not know")


@pytest.mark.parametrize("path", VECTORS, ids=lambda p: p.stem)
def test_vector(path: Path) -> None:
    case = json.loads(path.read_bytes())
    if case["expect"] == "ok":
        run(case)
        return
    with pytest.raises(StrongroomError) as caught:
        run(case)
    assert caught.value.code == case["expect"]
