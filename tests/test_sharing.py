"""Shared keys with real processes: brokers of different people, one of them killed, and one alone that opens nothing."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stage import Stage
from strongroom.app.cli.parties import make
from strongroom.app.client.home import PartyHome, reference
from strongroom.errors import BadBudget, StrongroomError, TooFewShares
from strongroom.receipt import Bundle, verify

HOLDERS = ("clinic", "notary", "union")


class Sharing:
    """A stage with brokers of other people, who know the hospital and nobody else."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        values = reference(stage.reference.read_bytes())
        for name in (*HOLDERS, "court"):
            make(stage.place, name)
            home = self.home(name)
            trust = home.trust.pin(stage.hospital.home.card).with_enclaves(values.roots, values.measurements)
            home.save_trust(trust.with_log(values.logs[0]))
            said = stage.cli("broker", "enrol", "--out", self.card(name), "--json", party=name)
            assert said.status == 0, said.err
            self.start(name)

    def card(self, name: str) -> Path:
        return self.stage.folder / f"{name}.holder"

    def home(self, name: str) -> PartyHome:
        return self.stage.place.party(name)

    def start(self, name: str) -> None:
        self.stage.fleet.start_broker(name).wait()

    def kill(self, name: str) -> None:
        self.stage.fleet.roles.pop(f"broker of {name}").kill()

    def verb(self, *words: object) -> Any:
        said = self.stage.cli("broker", *words, "--json", party="hospital")
        assert said.status == 0, said.err
        return said.json

    def run(self, contract: str) -> Bundle:
        return self.stage.lab.run(contract)


@pytest.fixture
def shared(tmp_path: Path, held: Path) -> Iterator[Sharing]:
    stage = Stage(tmp_path, held)
    try:
        yield Sharing(stage)
    finally:
        stage.close()


def parts(bundle: Bundle) -> set[tuple[int, int, int]]:
    found = [json.loads(e.payload) for e in bundle.releases]
    return {(s["epoch"], s["index"], s["slot"]) for s in found if "slot" in s}


def test_a_key_that_no_single_broker_can_open(shared: Sharing) -> None:
    stage, asset = shared.stage, shared.stage.records.name
    said = shared.verb("share", asset, 2, *(shared.card(name) for name in HOLDERS))
    assert (said["need"], said["holders"], said["waiting"]) == (2, list(HOLDERS), {})
    # the owner's own broker has forgotten the key, and nobody keeps a share that is not sealed
    assert stage.hospital.home.book.held(stage.records.digest) is None
    contract = stage.lab.propose(stage.draft(runs=4)).digest
    assert stage.cli("approve", contract, "--yes", party="hospital").status == 0

    shared.kill("clinic")
    bundle = shared.run(contract)
    assert parts(bundle) == {(1, 2, 1), (1, 3, 1)}
    assert verify(bundle, trust=stage.lab.trust).statement.failure is None
    assert verify(bundle, trust=stage.hospital.trust).statement.failure is None

    shared.kill("notary")
    with pytest.raises(TooFewShares, match="clinic"):
        shared.run(contract)

    # the clinic is lost for good; the notary comes back, and the court takes the clinic's place
    shared.start("notary")
    said = shared.verb("replace", asset, "clinic", shared.card("court"))
    assert (said["epoch"], said["holders"], said["bad"]) == (2, ["court", "notary", "union"], {})
    shared.verb("tell", contract)
    shared.kill("union")
    again = parts(shared.run(contract))
    assert {(epoch, index) for epoch, index, _ in again} == {(2, 1), (2, 2)}
    assert {slot for _, _, slot in again} == {3}  # the first run has slot 1; the second had a part of slot 2


def test_the_whole_key_is_in_no_brokers_book(shared: Sharing) -> None:
    stage = shared.stage
    key = stage.hospital.home.book.held(stage.records.digest)
    assert key is not None
    shared.verb("share", stage.records.name, 2, *(shared.card(name) for name in HOLDERS))
    for name in (*HOLDERS, "hospital"):
        with sqlite3.connect(shared.home(name).folder / "broker" / "book.db") as c:
            rows = [*c.execute("SELECT key FROM assets"), *c.execute("SELECT deal FROM shares")]
        assert all(key.key.raw not in row[0] for row in rows)
    refused = stage.lab.propose(stage.draft()).digest  # the owner did not approve it
    with pytest.raises(StrongroomError):
        shared.run(refused)


def test_an_asset_with_a_budget_is_not_shared_nor_gets_one(shared: Sharing) -> None:
    stage, asset = shared.stage, shared.stage.records.name
    assert stage.cli("budget", "set", asset, "--runs", 3, party="hospital").status == 0
    said = stage.cli("broker", "share", asset, 1, shared.card("clinic"), party="hospital")
    assert (said.status, said.code) == (1, BadBudget.code)
