"""What is told of a run beside its outputs: no more than was agreed, to nobody but those who may know."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom import wire
from strongroom.asset import BytesSource, SealedReader
from strongroom.contract import Contract, Limits, Output
from strongroom.errors import BadKey, BadProposal, BadReceipt, NotPermitted, NotVerified, OutOfTime, StrongroomError
from strongroom.failure import NOT_TOLD, NOTE_BYTES, Failure, Note
from strongroom.observation import MAX_DURATION_S, Observed
from strongroom.output import RULES
from strongroom.policy import OutputRule, Policy
from strongroom.receipt import Statement, verify
from strongroom.schema import Numeric, Object, Table, Text
from strongroom.serving import Serving
from world import CANARY, NOW, RULE, RUN, FakeConfinement, Forger, World, evaluate, keys_of, report, seed

TRUST = World.trust()
MINUTE = Observed(60, "withheld")
NEVER = Observed(None, "withheld")
FIGURES = Object({"n": Numeric(0, 1000, whole=True)})
VALUES = OutputRule(frozenset({"lab"}), 4096, 1, 2, schema=FIGURES)


def agreed(observed: Observed | None, *outputs: Output) -> tuple[World, Contract]:
    outputs = outputs or (Output("report", "report", RULE),)
    rules = {o.kind: o.rule for o in outputs}
    world = World(terms=dict.fromkeys(("data", "model"), Policy(frozenset({"evaluate"}), rules)))
    policy = Policy(frozenset({"evaluate"}), rules, observed=observed)
    return world, world.agree(outputs=outputs, policy=policy, limits=Limits(2, 300, 1 << 30))


def taking(world: World, seconds: int, then: Callable[[Any], Mapping[str, bytes]] = evaluate) -> FakeConfinement:
    def program(inputs: Any) -> Mapping[str, bytes]:
        world.clock.now += seconds
        return then(inputs)

    return FakeConfinement(program)


def leaking(_inputs: Any) -> dict[str, bytes]:
    return {"report": CANARY, "figures": CANARY}


def stopped(_inputs: Any) -> dict[str, bytes]:
    raise OutOfTime("it took too long", step="predict")


def a_fault(_inputs: Any) -> dict[str, bytes]:
    raise MemoryError  # what a program may bring about in what reads it, at a moment of its choice


def a_sum_beyond_json(_inputs: Any) -> dict[str, bytes]:
    confusion = [[1 if row == column else 0 for column in range(40)] for row in range(40)]
    classes = [f"c{n}" for n in range(40)]
    matrices = {"confusion": confusion, "x": [[10**15] * 40] * 40}
    return {"report": report(records=40, classes=classes, matrices=matrices, metrics={})}


def of(bundle: Any) -> Statement:
    return verify(bundle, trust=TRUST).statement


# --- time -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "told"), [(0, 60), (1, 60), (59, 60), (60, 60), (61, 120), (299, 300)])
def test_a_run_ends_for_everybody_after_whole_minutes(seconds: int, told: int) -> None:
    world, contract = agreed(MINUTE)
    seen: list[tuple[str, int]] = []
    bundle = world.run(
        contract, confinement=taking(world, seconds), progress=lambda step, _: seen.append((step, world.clock.now))
    )
    assert of(bundle).ended_at - of(bundle).started_at == told
    assert [at - NOW for step, at in seen if step in ("deliver", "record")] == [told, told]


@pytest.mark.parametrize("then", [evaluate, leaking, stopped, a_fault, a_sum_beyond_json])
def test_a_covert_channel_in_time_is_closed(then: Callable[[Any], Mapping[str, bytes]]) -> None:
    ends = set()
    for seconds in (0, 17, 299, 300):
        world, contract = agreed(NEVER)
        ends.add(of(world.run(contract, confinement=taking(world, seconds, then))).ended_at)
        assert world.clock.now == NOW + 360
    assert ends == {NOW + 360}


def test_a_run_without_the_dimension_tells_its_seconds() -> None:
    world, contract = agreed(None)
    assert of(world.run(contract, confinement=taking(world, 17))).ended_at == NOW + 17


def test_an_enclave_that_cannot_wait_does_not_begin() -> None:
    world, contract = agreed(MINUTE)
    with pytest.raises(NotPermitted, match="hold back"):
        world.run(contract, wait=None)
    assert all(not broker.asked for broker in world.brokers.values())


@given(st.integers(1, MAX_DURATION_S) | st.none(), st.integers(0, 10**6), st.integers(0, 600), st.integers(1, 10**5))
def test_nothing_is_told_before_it_is_over(duration: int | None, took: int, before: int, longest: int) -> None:
    ends = Observed(duration, "step").ends_at(NOW, NOW + before, NOW + before + took, longest)
    assert ends >= NOW + before + took
    if duration is None:
        assert ends == NOW + before + longest + 60 or took > longest + 60
    else:
        assert (ends - NOW) % duration == 0


def test_what_is_served_has_no_times_to_round() -> None:
    serve = Serving(frozenset({"chat"}), 3600)
    with pytest.raises(BadProposal, match="served"):
        World().proposal(outputs=(), policy=Policy(frozenset({"evaluate"}), {}, serve=serve, observed=MINUTE))


# --- failures -------------------------------------------------------------------------------------------------------


def test_how_a_run_failed_is_withheld_from_everybody_but_the_owners() -> None:
    told = []
    for then in (leaking, stopped, lambda _: {}):
        world, contract = agreed(MINUTE)
        bundle = world.run(contract, confinement=taking(world, 1, then))
        assert of(bundle).failure == NOT_TOLD
        assert world.exchange.delivered == []
        assert CANARY not in world.exchange.everything
        told.append([(name, len(note)) for name, note in of(bundle).notes.items()])
    assert told[0] == told[1] == told[2]
    assert told[0][0][1] > NOTE_BYTES


def opened(bundle: Any, holder: str, **changes: str) -> Note:
    statement = of(bundle)
    said = {"contract": statement.contract, "run_id": statement.run_id, "owner": holder, **changes}
    return Note.open(statement.notes[holder], keys_of(holder).decryption, **said)


def test_an_owner_sees_which_rule_an_output_broke_and_not_the_value() -> None:
    world, contract = agreed(None, Output("figures", "values", VALUES))
    bundle = world.run(contract, confinement=FakeConfinement(lambda _: {"figures": b'{"n": 1001}'}))
    assert of(bundle).failure == Failure("output", "output.refused")
    for owner in ("hospital", "lab"):
        assert opened(bundle, owner) == Note(Failure("output", "output.refused"), "figures", "schema")
    assert b"schema" not in bundle.encode()


@pytest.mark.parametrize(
    ("wrote", "broken"),
    [(b" " * 4097, "max_bytes"), (b"{", "form"), (b'{"n": 1, "m": 1}', "schema")],
)
def test_every_rule_has_its_name(wrote: bytes, broken: str) -> None:
    world, contract = agreed(MINUTE, Output("figures", "values", VALUES))
    bundle = world.run(contract, confinement=FakeConfinement(lambda _: {"figures": wrote}))
    assert opened(bundle, "hospital").rule == broken
    assert broken in RULES


def test_a_note_is_for_its_owner_and_run_alone() -> None:
    world, contract = agreed(MINUTE)
    bundle = world.run(contract, confinement=FakeConfinement(stopped))
    assert opened(bundle, "hospital") == Note(Failure("predict", "program.out_of_time"))
    with pytest.raises(BadKey):
        opened(bundle, "hospital", owner="lab")
    with pytest.raises(BadKey):
        opened(bundle, "hospital", run_id=seed("another", 16).hex())
    with pytest.raises(BadKey):
        Note.open(of(bundle).notes["lab"], keys_of("hospital").decryption, contract=contract.digest, run_id=RUN, owner="lab")


def test_a_run_that_completed_has_no_note() -> None:
    world, contract = agreed(MINUTE)
    assert of(world.run(contract)).notes == {}
    assert b"notes" not in of(world.run(contract, seed("second", 16).hex())).encode()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"ended_at": NOW + 61}, "60 s"),
        ({"ended_at": NOW + 60, "failure": Failure("predict", "program.crashed")}, "withholds"),
        ({"ended_at": NOW + 60, "notes": {"lab": b"note"}}, "no failure"),
        ({"ended_at": NOW + 60, "failure": NOT_TOLD, "outputs": (), "owed": (), "notes": {"press": b"note"}}, "no asset"),
    ],
)
def test_a_receipt_that_tells_more_than_was_agreed_does_not_verify(changes: dict[str, Any], why: str) -> None:
    world, contract = agreed(MINUTE)
    forger = Forger.at_work(world, contract, **changes)
    with pytest.raises(NotVerified, match=f"V11.*{why}"):
        verify(forger.bundle(), trust=TRUST)


def test_a_receipt_that_tells_a_withheld_time_does_not_verify() -> None:
    world, contract = agreed(NEVER)
    with pytest.raises(NotVerified, match=r"V11.*withholds"):
        verify(Forger.at_work(world, contract, ended_at=NOW + 299).bundle(), trust=TRUST)
    verify(Forger.at_work(world, contract, ended_at=NOW + 360).bundle(), trust=TRUST)


@given(st.dictionaries(st.sampled_from(["hospital", "lab"]), st.binary(max_size=4096), min_size=1))
def test_notes_round_trip(notes: dict[str, bytes]) -> None:
    world, contract = agreed(MINUTE)
    statement = replace(Forger.at_work(world, contract, failure=NOT_TOLD, outputs=(), owed=()).statement, notes=notes)
    assert Statement.parse(statement.encode()) == statement


@pytest.mark.parametrize("notes", [{}, [], {"lab": "no base64!"}, {"../lab": ""}, {f"n{n}": "" for n in range(65)}])
def test_notes_of_another_form_are_refused(notes: Any) -> None:
    world, contract = agreed(MINUTE)
    value: Any = Forger.at_work(world, contract, failure=NOT_TOLD, outputs=(), owed=()).statement.to_json()
    value["predicate"]["notes"] = notes
    with pytest.raises((BadReceipt, StrongroomError)):
        Statement.parse(wire.encode(value))


# --- nothing but success, and rules that cannot be kept together ------------------------------------------------------


def test_nothing_but_success_leaves() -> None:
    rule = OutputRule(frozenset({"lab"}), 10, 1, 0)
    for wrote in ({}, {"done": CANARY}):
        world, contract = agreed(NEVER, Output("done", "success", rule))
        bundle = world.run(contract, confinement=FakeConfinement(lambda _, wrote=wrote: wrote))
        assert of(bundle).failure is None
        ((delivery, sealed),) = world.exchange.delivered
        key = delivery.open("lab", keys_of("lab").decryption)
        with SealedReader(BytesSource(sealed), delivery.manifest, key) as reader:
            assert reader.read() == b"completed\n"
        assert CANARY not in world.exchange.everything


def test_two_grouped_outputs_to_one_reader_are_refused_before_any_key_is_asked_for() -> None:
    schema = Table({"area": Text(frozenset("ab")), "n": Numeric(0, 9, whole=True)}, ("area",), "n", 2)
    one = OutputRule(frozenset({"lab"}), 4096, 10, 2, schema=schema)
    other = replace(one, recipients=frozenset({"hospital"}))
    world, contract = agreed(None, Output("a", "table", one), Output("b", "table", one))
    with pytest.raises(NotPermitted, match="one reader"):
        world.run(contract)
    assert all(not broker.asked for broker in world.brokers.values())
    both = (Output("a", "table", one), Output("b", "table", other))
    world = World()
    policy = Policy(frozenset({"evaluate"}), {"table": replace(one, recipients=frozenset({"hospital", "lab"}))})
    with pytest.raises(NotPermitted, match="do not permit"):  # it gets as far as the owners' terms
        world.run(world.agree(outputs=both, policy=policy))


def test_a_note_of_another_form_is_refused() -> None:
    sealed = Note(Failure("open", "wire.bad_field")).seal(
        {"lab": keys_of("lab").decryption.public}, contract=wire.digest(b"c"), run_id=RUN
    )
    found = Note.open(sealed["lab"], keys_of("lab").decryption, contract=wire.digest(b"c"), run_id=RUN, owner="lab")
    assert found == Note(Failure("open", "wire.bad_field"))
    with pytest.raises(BadReceipt):
        Failure("Open!", "x")
    assert json.loads(wire.encode(found.failure.to_json())) == {"code": "wire.bad_field", "step": "open"}
