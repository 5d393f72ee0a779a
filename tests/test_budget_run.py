"""A run inside the enclave: refused where its contract charges too little, metered, and settled by its receipt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from strongroom import wire
from strongroom.asset import BytesSource
from strongroom.budget.charge import Charge, Used
from strongroom.contract import Contract, Limits, Output
from strongroom.enclave.charged import Meter
from strongroom.errors import BadReceipt, OutputRefused, StrongroomError, UnderCharged, Unreachable
from strongroom.policy import ANY_PARTY, OutputRule, Policy
from strongroom.receipt import Failure, Statement, verify
from world import NOW, RULE, TERMS, FakeConfinement, Fault, Forger, World, allow, charge, seed

TRUST = World.trust()
EVENT = charge().events[0].to_json()
PLAIN = replace(charge(), events=())
RECORDS = OutputRule(frozenset({"hospital"}), 1 << 20, 1, 15)
BOTH = {"report": OutputRule(ANY_PARTY, 1 << 20, 10, 4), "records": OutputRule(ANY_PARTY, 1 << 20, 1, 15)}


@pytest.fixture
def world() -> World:
    return World()


def spends(said: Mapping[str, Any] | None) -> Any:
    return lambda _program: said


def history(world: World) -> list[Any]:
    return world.brokers["hospital"].book.charges([world.assets["data"][0].digest])


def nothing_asked(world: World) -> None:
    """Refused before a broker heard of it."""
    assert world.brokers["hospital"].asked == []
    assert history(world) == []


# --- before any key is asked for ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("charges", "said", "why"),
    [
        ((), {"data": [EVENT]}, "charges nothing"),
        ((charge(),), {"data": [EVENT, EVENT]}, "1 more epsilon-delta"),
        ((charge(),), {"data": [{"count": 1, "event": "laplace", "noise_multiplier": "8"}]}, "1 more laplace"),
        ((charge(),), None, "does not say that it adds any noise"),
        ((charge(),), {}, "names none there"),
        ((charge(),), {"data": []}, "names none there"),
        ((charge(),), {"data": [EVENT], "model": [EVENT]}, "role 'model'"),
        ((charge(),), {"data": [{"count": 1, "event": "magic"}]}, "does not say in events"),
        ((charge(),), {"data": "laplace"}, "does not say in events"),
        ((charge(),), {"data": 7}, "does not say in events"),
        ((charge(),), [EVENT], "does not say in events"),
        ((charge(queries=0),), {"data": [EVENT]}, "1 more queries"),
    ],
)
def test_a_contract_that_charges_less_than_its_program_would_spend_gets_no_key(
    world: World, charges: tuple[Charge, ...], said: Any, why: str
) -> None:
    contract = world.agree(charges=charges)
    with pytest.raises(UnderCharged, match=why):
        world.run(contract, spends=spends(said))
    nothing_asked(world)


def test_an_enclave_that_knows_no_program_refuses_events(world: World) -> None:
    with pytest.raises(UnderCharged):
        world.run(world.agree(charges=(charge(),)))
    nothing_asked(world)


# --- what was used --------------------------------------------------------------------------------------------------------


def test_a_run_says_what_it_used_and_is_settled(world: World) -> None:
    allow(world)
    contract = world.agree(charges=(charge(),))
    bundle = world.run(contract, spends=spends({"data": [EVENT]}))
    statement = verify(bundle, trust=TRUST).statement
    assert statement.used is not None
    assert (statement.used.began, statement.used.rows) == (True, 0)
    (kept,) = history(world)
    assert kept.settled.events == charge().events  # what may have been learned is not given back
    assert kept.settled.counts == replace(charge().counts, bytes_out=statement.used.bytes_out)
    assert 0 < kept.settled.counts.bytes_out < 1 << 20


def test_a_contract_without_charges_gets_the_receipt_that_it_always_got(world: World) -> None:
    statement = verify(world.run(world.agree()), trust=TRUST).statement
    assert statement.used is None
    assert "used" not in statement.to_json()["predicate"]


def test_events_are_given_back_where_the_inputs_could_not_be_opened(world: World) -> None:
    allow(world)
    contract = world.agree(charges=(charge(),))
    _, envelope, sealed, _ = world.assets["data"]
    world.exchange.files[envelope.digest] = BytesSource(sealed[:-1] + bytes([sealed[-1] ^ 1]))
    bundle = world.run(contract, spends=spends({"data": [EVENT]}))
    statement = verify(bundle, trust=TRUST).statement
    assert statement.failure is not None
    assert (statement.failure.step, statement.used) == ("open", Used(False, 0, 0))
    (kept,) = history(world)
    assert kept.charge == charge()
    assert (kept.settled.events, kept.settled.counts.values()) == ((), (1, 0, 0, 0))


def test_events_stay_charged_once_the_program_was_let_at_its_inputs(world: World) -> None:
    """An exchange that stops answering in the middle ends a run at the step of opening too."""
    allow(world)

    def stops(inputs: Any) -> Any:
        inputs["data"].file.read(16)
        raise Unreachable("the exchange does not answer")

    contract = world.agree(charges=(charge(),))
    bundle = world.run(contract, confinement=FakeConfinement(stops), spends=spends({"data": [EVENT]}))
    statement = verify(bundle, trust=TRUST).statement
    assert statement.failure is not None
    assert (statement.failure.step, statement.used) == ("open", Used(True, 0, 0))
    (kept,) = history(world)
    assert kept.settled.events == charge().events
    assert kept.settled.counts.values() == (1, 1, 0, 0)  # no byte left


@pytest.mark.parametrize("fault", [Fault.NOT_DONE, Fault.LOST])
def test_a_receipt_that_does_not_reach_the_broker_gives_nothing_back_twice(world: World, fault: Fault) -> None:
    allow(world)
    contract = world.agree(charges=(charge(),))
    world.faults.plan("hospital.receipt", fault)  # and is sent again
    world.run(contract, spends=spends({"data": [EVENT]}))
    (kept,) = history(world)
    assert kept.settled is not None


def test_a_receipt_that_never_comes_leaves_everything_charged(world: World) -> None:
    allow(world)
    contract = world.agree(charges=(charge(),))
    world.faults.plan("hospital.receipt", Fault.NOT_DONE, Fault.NOT_DONE)
    with pytest.raises(Unreachable):
        world.run(contract, spends=spends({"data": [EVENT]}))
    (kept,) = history(world)
    assert (kept.stands, kept.settled) == (charge(), None)


def test_a_later_receipt_of_the_same_run_settles_nothing_again(world: World) -> None:
    allow(world)
    contract = world.agree(charges=(charge(),))
    world.run(contract, spends=spends({"data": [EVENT]}))
    (before,) = history(world)
    world.brokers["hospital"].book.settle(contract.digest, before.run_id, Used(False, 0, 0))
    assert history(world) == [before]


# --- receipts -------------------------------------------------------------------------------------------------------------


def test_a_receipt_that_claims_not_to_have_begun_after_it_completed_is_none(world: World) -> None:
    statement = Forger.at_work(world, world.agree(charges=(charge(),))).statement
    for failure in (None, Failure("program", "program.crashed"), Failure("output", "output.refused")):
        lying = replace(statement, used=Used(False, 0, 0), failure=failure, outputs=(), owed=())
        with pytest.raises(BadReceipt, match="did not begin"):
            Statement.parse(lying.encode())
    honest = replace(statement, used=Used(False, 0, 0), failure=Failure("open", "asset.truncated"), outputs=(), owed=())
    assert Statement.parse(honest.encode()) == honest


# --- rows -----------------------------------------------------------------------------------------------------------------


def rows_world(rows: int) -> tuple[World, Contract]:
    terms = Policy(TERMS.uses, BOTH)
    world = World(terms=dict.fromkeys(("data", "model"), terms))
    outputs = (Output("predictions", "records", RECORDS),)
    charges = (replace(PLAIN, counts=replace(PLAIN.counts, rows=rows)),)
    policy = Policy(TERMS.uses, {"records": RECORDS})
    return world, world.agree(outputs=outputs, policy=policy, charges=charges)


def written(_inputs: Any) -> dict[str, bytes]:
    return {"predictions": b"row,score\n1,0.5\n2,0.25\n3,0.75\n"}


def test_rows_that_leave_are_counted(world: World) -> None:
    world, contract = rows_world(5)
    bundle = world.run(contract, confinement=FakeConfinement(written))
    assert verify(bundle, trust=TRUST).statement.used == Used(True, 4, len(written(None)["predictions"]))
    (kept,) = history(world)
    assert kept.settled.counts.rows == 4  # three and a header


def test_more_rows_than_are_charged_do_not_leave() -> None:
    world, contract = rows_world(3)
    statement = verify(world.run(contract, confinement=FakeConfinement(written)), trust=TRUST).statement
    assert statement.failure == Failure("output", "output.refused")
    assert world.exchange.delivered == []
    (kept,) = history(world)
    assert kept.settled.counts.rows == 0


def test_a_header_of_names_does_not_leave_where_no_row_may() -> None:
    header = ",".join(f"p{n:04d} born 19{n % 100:02d}" for n in range(2000))
    world, contract = rows_world(0)
    confinement = FakeConfinement(lambda _inputs: {"predictions": f"{header}\n".encode()})
    statement = verify(world.run(contract, confinement=confinement), trust=TRUST).statement
    assert statement.failure == Failure("output", "output.refused")
    assert world.exchange.delivered == []


def test_a_kind_whose_rows_cannot_be_counted_does_not_leave_where_they_are_charged(world: World) -> None:
    class Another:
        charges = (PLAIN,)
        outputs = (type("Output", (), {"name": "x", "kind": "tensors"})(),)

    with pytest.raises(OutputRefused):
        Meter().leaves(Another(), {"x": b""})  # type: ignore[arg-type]


# --- proposals ------------------------------------------------------------------------------------------------------------


def test_charges_are_part_of_what_is_signed(world: World) -> None:
    assert world.proposal(charges=(charge(),)).digest != world.proposal().digest
    assert "charges" not in world.proposal().to_json()
    assert world.proposal(charges=(charge(),)).charge("model") is None


def test_two_runs_of_one_contract_are_two_charges(world: World) -> None:
    allow(world)
    contract = world.agree(charges=(charge(),), limits=Limits(3, 300, 1 << 30))
    for number in range(2):
        world.run(contract, seed(f"run {number}", 16).hex(), spends=spends({"data": [EVENT]}))
    with pytest.raises(StrongroomError) as caught:
        world.run(contract, seed("one more", 16).hex(), spends=spends({"data": [EVENT]}))
    assert caught.value.to_json()["reason"] == "budget.exceeded"
    assert len(history(world)) == 2
    assert {c.at for c in history(world)} == {NOW}
    assert RULE.max_bytes == 1 << 20
    assert wire.encode(charge().to_json())
