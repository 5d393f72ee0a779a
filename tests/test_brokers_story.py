"""Brokers killed, copied, lost and put back, as processes; and their owner who looks at all of them."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sharing_stage import HOLDERS, Sharing
from stage import Asker, Stage, until
from strongroom import wire
from strongroom.app.broker.machine import Machine
from strongroom.app.http import Client
from strongroom.app.stores.book import SqliteBook
from strongroom.app.stores.claim import claimed
from strongroom.contract import Withdrawal
from strongroom.errors import BadReceipt, BookRestored, Conflict, StrongroomError, Unreachable

# A broker that dies at the worst moments: when it has counted and left no mark, and when it has left one and not answered.
DIES = """
import os
from strongroom.app.broker.witness import Witness
settle = Witness.settle
def dies(self):
    {before}
    settle(self)
    os._exit(9)
Witness.settle = dies
"""


class Owned:
    """The hospital's own broker, and what is done to its files."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.book = stage.place.party("hospital").folder / "broker" / "book.db"

    def start(self, before: str = "") -> None:
        with self.stage.fleet.but(before=before):
            self.stage.fleet.start_broker("hospital").wait()

    def kill(self) -> None:
        self.stage.fleet.end("broker of hospital")

    def files(self) -> list[Path]:
        return [p for end in ("", "-wal", "-shm") if (p := self.book.with_name(self.book.name + end)).exists()]

    def copy(self, to: Path) -> None:
        """What a file system's snapshot of a broker that was killed holds."""
        to.mkdir()
        for path in self.files():
            shutil.copyfile(path, to / path.name)

    def put(self, copied: Path) -> None:
        self.stage.hospital.home.close()
        for path in self.files():
            path.unlink()
        for path in copied.iterdir():
            shutil.copyfile(path, self.book.parent / path.name)

    def exchange(self, *, away: bool) -> None:
        fleet = self.stage.fleet
        if away:
            fleet.end("exchange")
        elif "exchange" not in fleet.roles:
            fleet.start_exchange().wait()

    def boot(self) -> None:
        """What this machine's memory has of the broker is gone, as when the machine is started again."""
        machine = Machine.here()
        assert machine is not None
        machine._path(self.stage.hospital.home.broker.key.public).unlink()

    def witnessed(self) -> None:
        """Wait until both witnesses know the book as it is."""
        until(lambda: (own := self.said("status")["own"])["shown"] and own["witnessed"] == own["number"])

    def said(self, *words: object) -> Any:
        said = self.stage.cli("broker", *words, "--json", party="hospital")
        assert said.status == 0, said.err
        return said.json


@pytest.fixture
def owned(rough_stage: Stage) -> Iterator[Owned]:
    found = Owned(rough_stage)
    yield found
    found.exchange(away=False)
    if "broker of hospital" not in rough_stage.fleet.roles:
        found.start()
    stays = SqliteBook(found.book)  # what other tests of this machine stand on
    held = stays.held(rough_stage.records.digest)
    stays.close()
    assert held is not None


def gives(asker: Asker) -> bool:
    return "release" in asker.ask()


def restored(asker: Asker) -> bool:
    try:
        asker.ask()
    except BookRestored:
        return True
    return False


def test_a_broker_that_was_killed_and_put_back_by_its_files_gives_no_run_twice(owned: Owned, tmp_path: Path) -> None:
    stage, digest = owned.stage, owned.stage.agree(runs=1)
    first, second = Asker(stage, digest), Asker(stage, digest)
    owned.kill()
    owned.copy(tmp_path / "before")
    owned.start()
    assert gives(first)
    owned.kill()
    owned.put(tmp_path / "before")
    owned.start()
    assert restored(second)
    assert restored(first)
    assert stage.cli("run", digest, party="lab").code == BookRestored.code
    status = owned.said("status")
    assert "forgotten" in status["own"]["restored"]
    assert stage.cli("broker", "confirm", party="hospital").status == 2  # nobody looked
    said = owned.said("confirm", "--yes")
    assert (said["confirmed"], said["forgotten"] > 0, digest in said["contracts"]) == (True, True, True)
    assert owned.said("confirm", "--yes") == {"confirmed": False}
    assert second.refused() == BookRestored.code
    time.sleep(1.1)  # contracts from the second of the confirmation are over too
    assert gives(Asker(stage, stage.agree(runs=1)))
    assert owned.said("status")["own"]["restored"] is None


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_broker_that_dies_beside_its_mark_gives_the_run_to_one(owned: Owned, tmp_path: Path, moment: str) -> None:
    """Killed when the run was counted and no witness knew, or when both knew and the answer had not left."""
    stage, digest = owned.stage, owned.stage.agree(runs=1)
    first, second = Asker(stage, digest), Asker(stage, digest)
    stage.hospital.home.book.marks.place()
    owned.kill()
    owned.copy(tmp_path / "before")
    owned.start(DIES.format(before="os._exit(9)" if moment == "before" else "pass"))
    with pytest.raises(StrongroomError):
        first.ask()
    stage.fleet.roles.pop("broker of hospital").stop()
    owned.copy(tmp_path / "after")
    owned.start()
    assert second.refused() == "broker.no_run_left"  # by the book that counted it
    assert gives(first)
    owned.kill()
    owned.put(tmp_path / "before")
    owned.start()
    assert restored(second)
    owned.kill()
    owned.put(tmp_path / "after")  # it came as far as the witness knows, and no further
    owned.start()
    assert gives(first)


def test_backup_and_restore(owned: Owned, tmp_path: Path) -> None:
    stage, digest = owned.stage, owned.stage.agree(runs=2)
    backup = tmp_path / "hospital.backup"
    said = owned.said("backup", backup)  # the broker is at work
    assert said["bytes"] == backup.stat().st_size
    assert stage.cli("broker", "backup", backup, party="hospital").code == "party.already_exists"
    assert stage.cli("broker", "restore", backup, party="hospital").code == "app.conflict"  # it is at work
    assert gives(Asker(stage, digest))
    with pytest.raises(Conflict), claimed(owned.book, alone=True):
        pass
    owned.kill()
    with claimed(owned.book, alone=False):  # another broker is at work on it, and answers at another port
        assert stage.cli("broker", "restore", backup, party="hospital").code == "app.conflict"
    (tmp_path / "nonsense").write_text("no backup")
    assert stage.cli("broker", "restore", tmp_path / "nonsense", party="hospital").code == "app.not_found"
    kept = owned.said("restore", backup)["kept"]
    stage.hospital.home.close()
    owned.start()
    assert restored(Asker(stage, digest))
    owned.kill()
    (tmp_path / "kept").mkdir()
    shutil.copyfile(kept, tmp_path / "kept" / "book.db")  # the book that was there, which is a backup now, and says so
    owned.put(tmp_path / "kept")
    owned.start()
    assert restored(Asker(stage, digest))
    owned.said("confirm", "--yes")
    time.sleep(1.1)
    assert gives(Asker(stage, stage.agree()))


def test_a_broker_that_is_put_back_while_the_exchange_is_away_gives_no_run_twice(owned: Owned, tmp_path: Path) -> None:
    stage, digest = owned.stage, owned.stage.agree(runs=1)
    first, second = Asker(stage, digest), Asker(stage, digest)
    owned.witnessed()
    owned.kill()
    owned.copy(tmp_path / "before")
    owned.exchange(away=True)
    owned.start()
    assert gives(first)  # brokers decide while it is away
    owned.kill()
    owned.copy(tmp_path / "after")
    owned.put(tmp_path / "before")
    owned.start()
    assert restored(second)  # this machine knows
    owned.kill()
    owned.boot()
    owned.start()
    with pytest.raises(Unreachable, match="nobody can say"):  # nobody knows
        second.ask()
    assert owned.said("status")["own"]["shown"] is False
    owned.kill()
    owned.put(tmp_path / "after")
    owned.start()
    with pytest.raises(Unreachable, match="nobody can say"):
        first.ask()
    owned.exchange(away=False)
    assert gives(first)
    assert second.refused() == "broker.no_run_left"
    owned.witnessed()
    owned.kill()
    owned.boot()
    owned.put(tmp_path / "before")
    owned.start()
    assert restored(second)  # the exchange was told what it had missed
    owned.kill()
    owned.put(tmp_path / "after")
    owned.start()
    assert gives(first)


def test_a_receipt_of_a_run_that_nobody_else_remembers_stops_a_broker(owned: Owned, tmp_path: Path) -> None:
    """Machine, disk and the exchange's mark are all lost: what enclaves wrote is still there, signed by the broker."""
    stage, digest = owned.stage, owned.stage.agree(runs=1)
    owned.kill()
    owned.copy(tmp_path / "before")
    owned.start()
    receipt = stage.lab.run(digest)
    owned.kill()
    owned.boot()
    owned.put(tmp_path / "before")
    with stage.operator() as exchange:
        exchange.execute("DELETE FROM marks")
    owned.start()
    with contextlib.closing(Client(stage.hospital.home.broker.url)) as broker:
        broker.post("/v1/receipts", receipt.encode())
        assert restored(Asker(stage, digest))
        assert owned.said("confirm", "--yes")["confirmed"] is True
        with pytest.raises(BadReceipt):  # that it forgot this one is confirmed
            broker.post("/v1/receipts", receipt.encode())
    assert Asker(stage, digest).refused() == BookRestored.code
    time.sleep(1.1)
    assert gives(Asker(stage, stage.agree()))


# --- shared keys ------------------------------------------------------------------------------------------------------


def broker_of(status: Any, name: str) -> Any:
    return next(b for b in status["brokers"] if b["name"] == name)


def test_an_owner_looks_at_all_its_brokers_while_they_die_differ_and_are_put_back(shared: Sharing) -> None:
    stage, asset = shared.stage, shared.stage.records.name
    shared.verb("share", asset, 2, *(shared.card(name) for name in HOLDERS))
    contract = stage.lab.propose(stage.draft(runs=6)).digest
    assert stage.cli("approve", contract, "--yes", party="hospital").status == 0
    assert stage.cli("broker", "backup", stage.folder / "clinic.backup", party="clinic").status == 0
    shared.run(contract)

    # all three answer, side by side, each by its own signed word
    status = shared.verb("status")
    (one,) = status["shared"]
    assert [b["state"] for b in status["brokers"]] == ["answered"] * 3
    assert {b["signed"] for b in status["brokers"]} == {True}
    assert all(b["witnessed"] and b["version"] for b in status["brokers"])
    (seen,) = one["contracts"]
    assert (seen["contract"], seen["unreceipted"], one["lies"]) == (contract, [], [])
    assert sum(b["given"] for b in seen["brokers"]) >= 2
    assert {b["left"] for b in seen["brokers"]} <= {5, 6}

    # the lab withdraws from another contract, and only the notary hears of it
    other = stage.lab.propose(stage.draft(runs=6, title="Another")).digest
    assert stage.cli("approve", other, "--yes", party="hospital").status == 0
    found = Withdrawal(other, "lab", int(time.time()), "").sign(stage.lab.home.keys.signing)
    said = {"contract": stage.lab.exchange.proposal(other).envelope.to_json(), "withdrawal": found.to_json()}
    with contextlib.closing(Client(shared.home("notary").broker.url)) as notary:
        notary.post("/v1/withdrawals", wire.encode(said))
    lines = " ".join(shared.verb("status")["shared"][0]["differences"])
    assert "who withdrew" in lines
    assert "lab: notary" in lines

    # the union's broker hangs: its port takes calls and nobody answers; the clinic is dead, and its book is put back
    shared.kill("union")
    shared.kill("clinic")
    union = shared.home("union").broker
    with socket.create_server((union.host, union.port)):
        began = time.monotonic()
        status = shared.verb("status")
        assert time.monotonic() - began < 60
    assert broker_of(status, "clinic")["state"] == "dead"
    assert broker_of(status, "union")["state"] in ("dead", "late")
    assert broker_of(status, "notary")["state"] == "answered"
    assert stage.cli("broker", "restore", stage.folder / "clinic.backup", party="clinic").status == 0
    shared.start("clinic")
    shared.start("union")
    status = shared.verb("status")
    assert broker_of(status, "clinic")["forgot"] is True
    screen = stage.cli("broker", "status", party="hospital").out
    assert "FORGOTTEN" in screen
    assert "DIFFERENT" in screen

    # the others go on; the clinic gives nothing, then confirms, and counts again once its owner deals anew
    shared.kill("union")
    with pytest.raises(StrongroomError):
        shared.run(contract)
    shared.start("union")
    shared.run(contract)
    assert stage.cli("broker", "confirm", "--yes", party="clinic").status == 0
    said = shared.verb("refresh", asset)
    assert (said["epoch"], said["restored"], said["over"], said["bad"]) == (2, ["clinic"], None, {})
    with shared.home("clinic").book.transaction() as page:
        assert page.standing(other, "hospital").withdrawn_by == {"lab"}  # from the notary, with the share
    shared.home("clinic").close()
    shared.kill("union")
    with pytest.raises(
        StrongroomError, match=r"clinic refused at check D12: broker\.restored"
    ):  # whoever has which slot of it, it gives none
        shared.run(contract)
    shared.start("union")
    shared.run(contract)
    time.sleep(1.1)
    anew = stage.lab.propose(stage.draft(runs=2, title="Anew")).digest
    assert stage.cli("approve", anew, "--yes", party="hospital").status == 0
    shared.kill("union")
    releases = [json.loads(e.payload) for e in shared.run(anew).releases]
    assert {s["index"] for s in releases if "slot" in s} == {1, 2}
