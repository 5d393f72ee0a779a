"""D17: a run is charged to the asset's budget before its key is released; once, whoever asks, whatever crashes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from strongroom import wire
from strongroom.app.stores.book import SqliteBook
from strongroom.broker import Refusal, Release
from strongroom.budget.charge import Event
from strongroom.budget.document import Budget, CountLimits
from strongroom.contract import Contract, Grant, Limits, Withdrawal
from strongroom.errors import BadBudget, StaleBudget, Unreachable
from strongroom.policy import Policy
from strongroom.serving import Serving
from test_broker import refused, released
from world import NOW, Asker, Fault, World, allow, charge, keys_of, seed

TWO = Limits(2, 300, 1 << 30)
RUNS = [seed(f"budget run {n}", 16).hex() for n in range(8)]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def on_disk(tmp_path: Path) -> Iterator[World]:
    world = World(book=lambda name: SqliteBook(tmp_path / f"{name}.db"))
    yield world
    for broker in world.brokers.values():
        broker.book.close()


def agreed(world: World, number: int = 0, **changes: Any) -> Contract:
    """One of many contracts, each of which charges half an epsilon."""
    found: dict[str, Any] = {"charges": (charge(),), "nonce": seed(f"proposal {number}", 16).hex(), **changes}
    return world.agree(**found)


def history(world: World) -> list[Any]:
    return world.brokers["hospital"].book.charges([world.assets["data"][0].digest])


def test_a_run_is_charged_before_its_key_is_released(world: World) -> None:
    allow(world)
    contract = agreed(world)
    release = released(Asker(world, contract).ask())
    (kept,) = history(world)
    assert (kept.contract, kept.party, kept.at) == (contract.digest, "lab", NOW)
    assert (kept.charge, kept.settled) == (charge(), None)
    assert release.transcript.checks[-1].detail == "epsilon 0.500000 of 1"


def test_everything_that_an_asset_was_ever_used_for_is_composed(world: World) -> None:
    allow(world)
    for number in range(2):
        released(Asker(world, agreed(world, number), run_id=RUNS[number]).ask())
    refusal = refused(Asker(world, agreed(world, 2), run_id=RUNS[2]).ask(), "D17", "budget.exceeded")
    assert b"epsilon" not in refusal.answer()  # what is left is the owner's to know
    assert "1.500000" in str(refusal.transcript.checks[-1].detail)
    assert len(history(world)) == 2


def test_a_contract_that_states_no_charge_is_refused_for_an_asset_with_a_budget(world: World) -> None:
    allow(world)
    refused(Asker(world, world.agree()).ask(), "D17", "budget.not_charged")
    model = Asker(world, world.agree()).ask("model")
    released(model)  # which has none


def test_a_program_without_noise_is_refused_where_the_budget_limits_epsilon(world: World) -> None:
    allow(world, runs=10)
    contract = agreed(world, charges=(replace(charge(), events=()),))
    refused(Asker(world, contract).ask(), "D17", "budget.not_charged")


def test_a_contract_that_protects_others_than_the_budget_names_is_refused(world: World) -> None:
    found = allow(world)
    assert found.dp is not None
    found = replace(found, version=2, dp=replace(found.dp, unit="person"))
    world.brokers["hospital"].book.set_budget(found, found.sign(keys_of("hospital").signing))
    refused(Asker(world, agreed(world)).ask("data"), "D17", "budget.not_charged")
    assert history(world) == []


def test_plain_counts_are_limited_without_any_epsilon(world: World) -> None:
    allow(world, None, runs=1)
    plain = replace(charge(), events=())
    released(Asker(world, agreed(world, charges=(plain,)), run_id=RUNS[0]).ask())
    refused(Asker(world, agreed(world, 1, charges=(plain,)), run_id=RUNS[1]).ask(), "D17", "budget.exceeded")


def test_a_run_is_charged_once_however_often_it_asks(world: World) -> None:
    allow(world, "0.5")
    enclave = Asker(world, agreed(world))
    first, again = released(enclave.ask()), released(enclave.ask())
    assert first.envelope == again.envelope
    assert again.transcript.checks[-1].detail == "this run is charged already"
    assert len(history(world)) == 1


def test_a_granted_run_is_charged_like_any_other(world: World) -> None:
    allow(world)
    contract = agreed(world)
    grant = Grant(contract.digest, "hospital", 2, "aa" * 16)
    world.brokers["hospital"].book.grant(grant, grant.sign(keys_of("hospital").signing))
    for number in range(2):
        released(Asker(world, contract, f"enclave {number}", run_id=RUNS[number]).ask())
    refused(Asker(world, contract, "third", run_id=RUNS[2]).ask(), "D17", "budget.exceeded")


def test_a_withdrawn_contract_keeps_its_charges(world: World) -> None:
    allow(world)
    contract = agreed(world)
    released(Asker(world, contract, run_id=RUNS[0]).ask())
    withdrawal = Withdrawal(contract.digest, "lab", NOW, "")
    world.brokers["hospital"].book.withdraw(withdrawal, withdrawal.sign(keys_of("lab").signing))
    released(Asker(world, agreed(world, 1), run_id=RUNS[1]).ask())
    refused(Asker(world, agreed(world, 2), run_id=RUNS[2]).ask(), "D17", "budget.exceeded")


def test_what_was_charged_before_there_was_a_budget_counts(world: World) -> None:
    for number in range(2):
        released(Asker(world, agreed(world, number), run_id=RUNS[number]).ask())
    allow(world)
    refused(Asker(world, agreed(world, 2), run_id=RUNS[2]).ask(), "D17", "budget.exceeded")


def test_a_new_budget_forgets_no_charge(world: World) -> None:
    allow(world)
    for number in range(2):
        released(Asker(world, agreed(world, number), run_id=RUNS[number]).ask())
    allow(world, "1.4", version=2)
    refused(Asker(world, agreed(world, 2), run_id=RUNS[2]).ask(), "D17", "budget.exceeded")
    allow(world, "1.5", version=3)
    released(Asker(world, agreed(world, 3), run_id=RUNS[3]).ask())


def test_an_older_budget_does_not_come_back(world: World) -> None:
    allow(world, "1", version=2)
    for version in (1, 2):
        with pytest.raises(StaleBudget):
            allow(world, "50", version=version)


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_a_reseal_of_the_same_data_does_not_reset_the_budget(world: World, on_disk: World, kind: str) -> None:
    world = {"memory": world, "disk": on_disk}[kind]
    book, data = world.brokers["hospital"].book, world.assets["data"][0].digest
    resealed = wire.digest(b"the same records, sealed again")
    both = Budget("hospital", 2, NOW, tuple(sorted((data, resealed))), allow(world).dp, CountLimits())
    book.set_budget(both, both.sign(keys_of("hospital").signing))
    released(Asker(world, agreed(world), run_id=RUNS[0]).ask())
    with book.transaction() as page:
        (kept,) = page.charged([data])
        page.charge(replace(kept, contract=wire.digest(b"another"), manifest=resealed))
    refused(Asker(world, agreed(world, 1), run_id=RUNS[1]).ask(), "D17", "budget.exceeded")
    with pytest.raises(BadBudget, match="leaves out"):
        allow(world, "50", version=3)


def test_a_budget_that_the_owner_did_not_sign_refuses(world: World) -> None:
    manifest = allow(world).assets[0]
    book = world.brokers["hospital"].book
    forged = replace(Budget.parse(book.budget(manifest).payload), version=9)
    book._state.budgets[manifest] = forged.sign(keys_of("lab").signing)
    refused(Asker(world, agreed(world)).ask(), "D17", "wire.bad_signature")


def test_a_book_that_answers_with_the_budget_of_other_assets_is_not_believed(world: World) -> None:
    manifest = allow(world).assets[0]
    book = world.brokers["hospital"].book
    other = replace(Budget.parse(book.budget(manifest).payload), assets=(wire.digest(b"another"),))
    book._state.budgets[manifest] = other.sign(keys_of("hospital").signing)
    refused(Asker(world, agreed(world)).ask(), "D17", "budget.bad_budget")


def test_a_budget_set_under_a_standing_contract_ends_its_leases() -> None:
    serving = Policy(frozenset({"evaluate"}), serve=Serving(frozenset({"chat"}), 600))
    world = World(terms=dict.fromkeys(("data", "model"), serving))
    contract = world.agree(policy=serving, outputs=(), payments=())
    enclave = Asker(world, contract)
    released(enclave.ask())
    allow(world)
    refused(enclave.ask(), "D17", "budget.not_charged")


def test_what_cannot_be_composed_is_refused(world: World) -> None:
    allow(world)
    gaussian = Event("gaussian", 1, noise_multiplier="3")  # at delta 0
    refused(Asker(world, agreed(world, charges=(charge(gaussian),))).ask(), "D17", "budget.exceeded")
    assert history(world) == []


# --- crashes ----------------------------------------------------------------------------------------------------------


def test_a_crash_before_the_commit_charges_nothing_and_releases_nothing(world: World) -> None:
    allow(world, "0.5")
    contract = agreed(world, limits=TWO)
    world.faults.plan("hospital.book", None, Fault.NOT_DONE)  # the first transaction looks, the second charges
    with pytest.raises(Unreachable):
        Asker(world, contract).ask()
    assert history(world) == []
    released(Asker(world, contract).ask())


def test_a_crash_after_the_commit_stays_charged_although_nobody_got_the_key(world: World) -> None:
    allow(world, "0.5")
    contract = agreed(world, limits=TWO)
    enclave = Asker(world, contract)
    world.faults.plan("hospital.book", None, Fault.LOST)
    with pytest.raises(Unreachable):
        enclave.ask()
    assert len(history(world)) == 1
    refused(Asker(world, contract, "another", run_id=RUNS[1]).ask(), "D17", "budget.exceeded")
    released(enclave.ask())  # the same run may still have what it was charged for
    assert len(history(world)) == 1


CRASH = """
import os, sys
from contextlib import contextmanager
from pathlib import Path
from strongroom.app.stores.book import SqliteBook
from test_budget_broker import agreed
from world import Asker, World, allow

class Crashing(SqliteBook):
    opened = 0
    @contextmanager
    def transaction(self):
        self.opened += 1
        with super().transaction() as page:
            yield page
            if self.opened == 2 and sys.argv[2] == "before":
                os._exit(9)  # after everything was written, before the commit
        if self.opened == 2 and sys.argv[2] == "after":
            os._exit(9)  # after the commit, before the answer

folder = Path(sys.argv[1])
world = World(book=lambda party: Crashing(folder / f"{party}.db"))
allow(world, "0.5")
Asker(world, agreed(world), "died").ask()
print("not reached")
"""


@pytest.mark.parametrize(("when", "charged"), [("before", 0), ("after", 1)])
def test_a_broker_that_dies_has_charged_exactly_if_its_release_was_committed(
    tmp_path: Path, when: str, charged: int
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    died = subprocess.run(
        [sys.executable, "-c", CRASH, str(tmp_path), when], env=environment, capture_output=True, text=True, check=False
    )
    assert (died.returncode, died.stdout) == (9, ""), died.stderr
    world = World(book=lambda name: SqliteBook(tmp_path / f"{name}.db"))
    assert len(history(world)) == charged
    released(Asker(world, agreed(world), "died").ask())
    assert len(history(world)) == 1
    refused(Asker(world, agreed(world, 1), run_id=RUNS[1]).ask(), "D17", "budget.exceeded")
    for broker in world.brokers.values():
        broker.book.close()


# --- two at once ------------------------------------------------------------------------------------------------------


def test_the_last_of_a_budget_asked_for_by_many_at_once_goes_to_exactly_one(on_disk: World) -> None:
    world, count = on_disk, 6
    allow(world, "0.5")
    requests = [Asker(world, agreed(world, n), f"enclave {n}", run_id=RUNS[n]).request() for n in range(count)]
    together, decisions = threading.Barrier(count), list[Any]()

    def ask(request: Any) -> None:
        together.wait()
        decisions.append(world.brokers["hospital"].decide(request))

    threads = [threading.Thread(target=ask, args=(request,)) for request in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(decisions) == count
    assert sum(isinstance(d, Release) for d in decisions) == 1
    assert {(d.number, d.code) for d in decisions if isinstance(d, Refusal)} == {("D17", "budget.exceeded")}
    assert len(history(world)) == 1


ASK = """
import sys
from pathlib import Path
from strongroom.app.stores.book import SqliteBook
from test_budget_broker import RUNS, agreed
from world import Asker, World
folder, number = Path(sys.argv[1]), int(sys.argv[2])
world = World(book=lambda party: SqliteBook(folder / f"{party}.db"))
request = Asker(world, agreed(world, number), f"enclave {number}", run_id=RUNS[number]).request()
print("ready", flush=True)
sys.stdin.readline()
print(type(world.brokers["hospital"].decide(request)).__name__, flush=True)
"""


def test_the_last_of_a_budget_asked_for_by_two_processes_at_once_goes_to_exactly_one(tmp_path: Path) -> None:
    world = World(book=lambda name: SqliteBook(tmp_path / f"{name}.db"))
    allow(world, "0.5")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    asking = [
        subprocess.Popen(
            [sys.executable, "-c", ASK, str(tmp_path), number],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for number in ("0", "1")
    ]
    for process in asking:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in asking:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    assert sorted(process.communicate()[0].strip() for process in asking) == ["Refusal", "Release"]
    assert len(history(world)) == 1
    for broker in world.brokers.values():
        broker.book.close()
