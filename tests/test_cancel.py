"""A cancel, wherever it is heard: at a broker no key is released, in an enclave the program is killed and nothing leaves,
and what it tells of the data is nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from confined import given, start
from stage import InProcess, in_process
from strongroom import wire
from strongroom.app.broker.server import broker
from strongroom.app.enclave import server as module
from strongroom.app.enclave.server import Runner, Standby, enclave
from strongroom.app.enclave.stop import Stop
from strongroom.app.exchange.client import ExchangeClient
from strongroom.app.exchange.server import exchange
from strongroom.app.http import Client
from strongroom.app.stores import book as books
from strongroom.app.stores.book import SqliteBook
from strongroom.app.stores.exchange import ExchangeStore
from strongroom.broker import Owner, Refusal, Release
from strongroom.contract import Contract, Limits, RunRequest
from strongroom.enclave.sandbox import Limits as Most
from strongroom.errors import Cancelled, JobCancelled, NotFound, RunBegun, RunEnded
from strongroom.job import Cancel
from strongroom.observation import Observed
from strongroom.programs import OutputSpec
from strongroom.receipt import verify
from world import LOG, NOW, RUN, TERMS, Asker, FakeConfinement, World, allow, broker_key, charge, evaluate, keys_of, seed

OTHER_RUN = seed("another run", 16).hex()


@pytest.fixture
def world() -> World:
    return World()


def word(contract: Contract, party: str, run_id: str = RUN, at: int = NOW) -> Cancel:
    return Cancel(contract.digest, party, run_id, at)


# --- at a broker ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["hospital", "lab"])
def test_no_key_is_released_for_a_run_that_was_cancelled_and_no_run_is_counted(world: World, who: str) -> None:
    contract = world.agree(limits=Limits(2, 300, 1 << 30))
    book = world.brokers["hospital"].book
    book.cancel(word(contract, who), None)
    found = Asker(world, contract).ask()
    assert isinstance(found, Refusal)
    assert (found.number, found.code) == ("D14", "broker.run_cancelled")
    assert book.standing(contract.digest).runs == {}
    assert isinstance(Asker(world, contract, "another", run_id=OTHER_RUN).ask(), Release)


def test_not_even_the_same_keyset_is_given_again_what_was_cancelled(world: World) -> None:
    contract = world.agree()
    asker = Asker(world, contract)
    assert isinstance(asker.ask(), Release)
    world.brokers["hospital"].book.cancel(word(contract, "lab"), None)
    assert isinstance(asker.ask(), Refusal)


@pytest.fixture
def book(tmp_path: Path) -> Iterator[SqliteBook]:
    found = SqliteBook(tmp_path / "book.db")
    yield found
    found.close()


def door(world: World, book: SqliteBook) -> Any:
    hospital = world.brokers["hospital"].owner
    owner = Owner("hospital", broker_key("hospital"), hospital.trust, hospital.policy)
    return in_process(broker(book, lambda: owner, None, now=lambda: NOW))


def told(contract: Contract, signed: wire.Envelope) -> bytes:
    return wire.encode({"cancel": signed.to_json(), "contract": contract.envelope.to_json()})


def test_a_broker_keeps_a_cancel_that_a_party_signed(world: World, book: SqliteBook) -> None:
    contract = world.agree()
    with door(world, book) as web:
        said = word(contract, "lab").sign(keys_of("lab").signing)
        for _ in range(2):
            assert web.post("/v1/cancels", content=told(contract, said)).json() == {}
    assert book.standing(contract.digest).cancelled == {RUN: frozenset({"lab"})}


@pytest.mark.parametrize(
    ("said", "signer", "expected"),
    [
        ({"party": "stranger"}, "stranger", "contract.not_a_party"),
        ({}, "stranger", "wire.bad_signature"),
        ({}, "hospital", "wire.bad_signature"),
        ({"at": NOW - 601}, "lab", "wire.bad_field"),
        ({"contract": wire.digest(b"another")}, "lab", "wire.bad_field"),
    ],
)
def test_a_broker_keeps_no_other(world: World, book: SqliteBook, said: dict[str, Any], signer: str, expected: str) -> None:
    contract = world.agree()
    signed = replace(word(contract, "lab"), **said).sign(keys_of(signer).signing)
    with door(world, book) as web:
        assert web.post("/v1/cancels", content=told(contract, signed)).json()["error"]["code"] == expected
    assert book.standing(contract.digest).cancelled == {}


def test_a_stranger_cancels_nothing_under_a_contract_that_names_parties_with_keys_of_its_own(
    world: World, book: SqliteBook
) -> None:
    """A proposal that nobody signed, with the parties' names and a stranger's keys."""
    proposal = world.proposal()
    unsigned = proposal.envelope([])
    signed = Cancel(proposal.digest, "lab", RUN, NOW).sign(keys_of("lab").signing)
    with door(world, book) as web:
        body = wire.encode({"cancel": signed.to_json(), "contract": unsigned.to_json()})
        assert web.post("/v1/cancels", content=body).json()["error"]["code"] == "contract.signature_missing"


def test_a_party_cannot_fill_an_owners_book(world: World, book: SqliteBook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(books, "MAX_CANCELLED", 3)
    contract = world.agree()
    with door(world, book) as web:
        answers = [
            web.post(
                "/v1/cancels", content=told(contract, word(contract, "lab", f"{n:032x}").sign(keys_of("lab").signing))
            ).status_code
            for n in range(5)
        ]
    assert answers == [200, 200, 200, 409, 409]


# --- in a run ---------------------------------------------------------------------------------------------------------


def test_a_run_cancelled_before_a_key_asks_for_none(world: World) -> None:
    contract = world.agree()
    with pytest.raises(JobCancelled):
        world.run(contract, cancelled=lambda: True)
    assert all(not b.book.standing(contract.digest).runs for b in world.brokers.values())


def test_what_a_cancelled_run_wrote_leaves_nothing_and_its_charge_is_lowered_to_what_it_may_have_learned(
    world: World,
) -> None:
    allow(world)
    contract = world.agree(charges=(charge(),))
    event = {"count": 1, "delta": "0", "epsilon": "0.5", "event": "epsilon-delta"}
    bundle = world.run(contract, leaves=lambda: False, spends=lambda _program: {"data": [event]})
    statement = verify(bundle, trust=World.trust()).statement
    assert (statement.failure.step, statement.failure.code) == ("program", "program.cancelled")
    assert (statement.outputs, statement.owed) == ((), ())
    assert "deliver" not in [step for step, _ in world.steps]
    (kept,) = world.brokers["hospital"].book.charged([world.assets["data"][0].digest])
    assert kept.settled is not None
    assert kept.settled.events == charge().events
    assert (kept.settled.counts.runs, kept.settled.counts.bytes_out) == (1, 0)


@pytest.mark.parametrize("ended", [3, 40])
@pytest.mark.parametrize("fails", [False, True])
def test_a_cancel_does_not_tell_when_the_program_ended_nor_how(ended: int, fails: bool) -> None:
    """Else who may cancel finds out by cancelling at many moments what the policy withholds."""
    observed = Observed(60, "withheld")
    world = World(terms={role: replace(TERMS, observed=observed) for role in ("data", "model")})
    contract = world.agree(policy=replace(World().proposal().policy, observed=observed))

    def program(inputs: Any) -> Any:
        world.clock.wait(ended)
        if fails:
            raise Cancelled("the child was killed")
        return evaluate(inputs)

    bundle = world.run(contract, confinement=FakeConfinement(program), leaves=lambda: False)
    statement = verify(bundle, trust=World.trust()).statement
    assert (statement.failure.step, statement.failure.code) == ("withheld", "withheld")
    assert statement.ended_at - statement.started_at == 60


def test_a_stop_is_heard_until_the_first_delivery_and_not_after() -> None:
    stop, ends = Stop("lab"), []
    stop.at(lambda: ends.append("sandbox"))
    assert (stop.cancelled(), ends) == (False, [])
    assert stop.cancel()
    assert (stop.cancelled(), ends, stop.leaves()) == (True, ["sandbox"], False)
    stop.at(lambda: ends.append("late"))
    assert ends == ["sandbox", "late"]
    other = Stop("lab")
    assert other.leaves()
    assert not other.cancel()
    assert not other.cancelled()


# --- in a sandbox -----------------------------------------------------------------------------------------------------


def test_the_child_is_killed_by_a_word_from_another_thread() -> None:
    most = Most(seconds=600, memory_bytes=256 << 20, output_bytes=1 << 20)
    with start("inputs['data'].open().read()\nstep('program', 500)\ntime.sleep(600)", "process") as room:

        def heard(step: str, _permille: int) -> None:
            if step == "program":
                threading.Thread(target=room.cancel).start()

        with pytest.raises(Cancelled):
            room.run({}, given(), {"report": OutputSpec("report", 1 << 20, 1, 4)}, most, heard)
        assert not Path(f"/proc/{room._child.pid}").exists()


# --- at an enclave's door ---------------------------------------------------------------------------------------------


@pytest.fixture
def served(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Runner, Contract]]:
    monkeypatch.setattr(module.time, "time", lambda: NOW)
    monkeypatch.setattr(Standby, "prepare", lambda _self: None)
    store = ExchangeStore(tmp_path / "exchange", LOG)
    transport = InProcess(exchange(store))
    there = ExchangeClient(Client("http://exchange", transport=transport))
    agreed = world.agree()
    there.propose(agreed.proposal.envelope([agreed.proposal.sign(keys_of("lab"))]))
    there.approve(agreed.proposal, (agreed.proposal.sign(keys_of("hospital")),))
    yield Runner(world.platform, Client("http://exchange", transport=transport)), agreed
    store.close()


def asked(contract: Contract, at: int = NOW, until: int | None = None) -> bytes:
    return RunRequest(contract.digest, "lab", RUN, at, until).sign(keys_of("lab").signing).encode()


def test_a_cancel_at_the_door_ends_the_run_that_goes_on(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    runner, contract = served
    cancelled = threading.Event()

    def waits(_contract: Any, _request: Any, around: Any) -> Any:
        around.progress("program", "evaluate")
        cancelled.wait(20)
        assert around.cancelled()
        assert not around.leaves()
        raise NotFound("over")

    monkeypatch.setattr(module, "run", waits)
    lines = runner.start(asked(contract))
    next(lines)
    with in_process(enclave(runner)) as web:
        stranger = word(contract, "stranger").sign(keys_of("stranger").signing).encode()
        assert web.post("/v1/cancels", content=stranger).json()["error"]["code"] == "contract.not_a_party"
        forged = word(contract, "hospital").sign(keys_of("lab").signing).encode()
        assert web.post("/v1/cancels", content=forged).json()["error"]["code"] == "wire.bad_signature"
        old = word(contract, "hospital", at=NOW - 601).sign(keys_of("hospital").signing).encode()
        assert web.post("/v1/cancels", content=old).json()["error"]["code"] == "wire.bad_field"
        other = word(contract, "hospital", OTHER_RUN).sign(keys_of("hospital").signing).encode()
        assert web.post("/v1/cancels", content=other).json()["error"]["code"] == "app.not_found"
        good = word(contract, "hospital").sign(keys_of("hospital").signing).encode()
        assert web.post("/v1/cancels", content=good).json() == {"run_id": RUN}
        cancelled.set()
        list(lines)
        assert web.post("/v1/cancels", content=good).json()["error"]["code"] == "app.not_found"


def test_a_cancel_that_comes_too_late_says_so(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    runner, contract = served
    done = threading.Event()

    def delivers(_contract: Any, _request: Any, around: Any) -> Any:
        assert around.leaves()
        around.progress("deliver", "report")
        done.wait(20)
        raise NotFound("over")

    monkeypatch.setattr(module, "run", delivers)
    lines = runner.start(asked(contract))
    next(lines)
    with in_process(enclave(runner)) as web:
        good = word(contract, "hospital").sign(keys_of("hospital").signing).encode()
        assert web.post("/v1/cancels", content=good).json()["error"]["code"] == "job.over"
    done.set()
    list(lines)


def test_the_same_run_goes_on_once_and_begins_again_only_by_a_newer_word(
    served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, contract = served
    go = threading.Event()

    def waits(_contract: Any, _request: Any, around: Any) -> Any:
        around.progress("attest", "")
        go.wait(20)
        raise NotFound("over")

    monkeypatch.setattr(module, "run", waits)
    lines = runner.start(asked(contract, until=NOW + 3600))
    next(lines)
    with pytest.raises(RunBegun):
        runner.start(asked(contract, at=NOW + 5))
    go.set()
    list(lines)
    with pytest.raises(RunEnded):
        runner.start(asked(contract, until=NOW + 3600))
    with pytest.raises(RunEnded):
        runner.start(asked(contract, at=NOW - 5))
    assert "error" in list(runner.start(asked(contract, at=NOW + 5)))[-1].decode()
