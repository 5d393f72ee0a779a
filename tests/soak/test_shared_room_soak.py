"""A room that stays open on leases of a shared key, as processes: a broker dies, the others renew; then too few are left.

``make soak`` runs it: the shortest lease is a minute.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from llama_files import write
from sharing_stage import HOLDERS, Sharing
from stage import Stage, until
from strongroom.app.client.home import reference
from strongroom.app.http import Client
from strongroom.app.stores.sqlite import blob
from strongroom.errors import StrongroomError
from strongroom.release import LEASE_PURPOSE
from strongroom.wire import Envelope

LEASE = 60


@pytest.fixture
def served(tmp_path: Path, held: Path) -> Iterator[Sharing]:
    """A stage whose enclave can serve, and brokers of other people."""
    stage = Stage(tmp_path, held, enclave=False)
    try:
        stage.fleet.extras = ("chat",)
        stage.reference = stage.fleet.reference()
        values = reference(stage.reference.read_bytes())
        for room in (stage.lab, stage.hospital):
            room.home.save_trust(room.trust.with_enclaves(values.roots, values.measurements))
        stage.fleet.start_enclave().wait()
        yield Sharing(stage)
    finally:
        stage.close()


def leases(shared: Sharing, name: str, contract: str) -> list[dict[str, Any]]:
    """What this broker's book says that it gave for the room."""
    home = shared.home(name)
    try:
        rows = home.book._db.rows("SELECT envelope FROM given WHERE contract = ? ORDER BY at", contract)
    finally:
        home.close()
    found = [json.loads(Envelope.parse(blob(row[0])).payload) for row in rows]
    assert all(s["purpose"] == LEASE_PURPOSE for s in found)
    return found


def test_a_room_over_a_shared_key_is_renewed_by_the_brokers_that_are_there(served: Sharing, tmp_path: Path) -> None:
    stage = served.stage
    write(tmp_path / "model.gguf")
    words = ["seal", tmp_path / "model.gguf", "--serve", "chat", "--lease", LEASE, "--reveal-digest", "--brokers", "2-of-3"]
    said = stage.cli(*words, *served.cards(), "--json", party="hospital")
    assert said.status == 0, said.err
    propose = ["propose", "--title", "Served", "--asset", "model=hospital/model.gguf", "--serve", "chat", "--lease", LEASE]
    said = stage.cli(*propose, "--among", "lab", "--json", party="hospital")
    assert said.status == 0, said.err
    contract = stage.hospital.views()[-1].proposal.digest
    stage.lab.approve(contract)
    stage.hospital.serve(contract)
    first = {name: found for name in HOLDERS if (found := leases(served, name, contract))}
    assert len(first) == 2
    (slot,) = {one["slot"] for given in first.values() for one in given}

    # one of the two dies; when the lease is about to end, the third is asked for the slot that the room has
    lost = min(first)
    served.kill(lost)
    alive = [name for name in HOLDERS if name != lost]
    ends = max(one["until"] for given in first.values() for one in given)
    until(lambda: all(any(x["until"] > ends for x in leases(served, name, contract)) for name in alive), 180)
    assert {one["slot"] for name in alive for one in leases(served, name, contract)} == {slot}
    with closing(Client(stage.fleet.config.enclave)) as enclave:
        assert json.loads(enclave.get("/v1/room"))["contract_digest"] == contract

        # with one broker alone nothing is renewed, and the room closes when its lease ends
        served.kill(alive[0])

        def closed() -> bool:
            try:
                enclave.get("/v1/models")
            except StrongroomError:
                return True
            return False

        until(closed, 180)
