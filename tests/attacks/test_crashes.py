"""Roles that are killed at the worst moment, with real processes: no run is made twice, none is lost without a trace."""

from __future__ import annotations

import io
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stage import Asker, Stage, terms, until
from strongroom import wire
from strongroom.app.client.room import Room, manifest_path
from strongroom.contract import State
from strongroom.errors import BadReceipt, NotFound, ReleaseRefused, StrongroomError, Unreachable, WrongState

DIES = """
import os, signal
from strongroom.app.stores.book import SqliteBook
SqliteBook.record = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
"""
DIES_LATER = """
import os, signal
from strongroom.app.stores.exchange import ExchangeStore
ExchangeStore.put_receipt = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def rough(rough_stage: Stage) -> Iterator[Stage]:
    """A machine on which every role runs again when the test ends."""
    yield rough_stage
    fleet = rough_stage.fleet
    starts: dict[str, Callable[[], object]] = {
        "exchange": fleet.start_exchange,
        "broker of lab": lambda: fleet.start_broker("lab"),
        "broker of hospital": lambda: fleet.start_broker("hospital"),
        "enclave": fleet.start_enclave,
    }
    for name, start in starts.items():
        role = fleet.roles.get(name)
        if role is not None and role.process.poll() is not None:
            fleet.end(name)
            role = None
        if role is None:
            start()
            fleet.roles[name].wait()


def children(process: int) -> list[int]:
    return [int(p) for t in Path(f"/proc/{process}/task").iterdir() for p in (t / "children").read_text().split()]


# --- the enclave ------------------------------------------------------------------------------------------------------


def run_until(room: Room, digest: str, step: str, detail: str, do: Callable[[], None]) -> Exception:
    """Have a contract run, and do something as soon as a step is told; what the client then raises."""

    def told(name: str, what: str) -> None:
        if name == step and detail in what:
            do()

    with pytest.raises((Unreachable, BadReceipt)) as raised:
        room.run(digest, told)
    return raised.value


@pytest.mark.parametrize(
    ("who", "step", "detail", "releases"),
    [("platform", "attest", "broker of lab", {"hospital"}), ("enclave", "program", "", {"hospital", "lab"})],
    ids=["between-two-releases", "after-both"],
)
def test_an_enclave_killed_between_release_and_receipt_has_used_the_run(rough: Stage, who, step, detail, releases):
    digest = rough.agree()
    platform = rough.fleet.roles["enclave"].process.pid

    def kill() -> None:
        os.kill(platform if who == "platform" else children(platform)[0], 9)

    run_until(rough.lab, digest, step, detail, kill)
    for room in (rough.lab, rough.hospital):
        missing = [run for contract, run, _ in room.unreceipted() if contract == digest]
        assert len(missing) == (1 if room.name in releases else 0)
    shown = rough.cli("status", party="hospital").out.split("Released without a receipt")[1]
    assert digest[:19] in shown
    until(lambda: rough.fleet.roles["enclave"].process.poll() is not None)
    rough.fleet.end("enclave")
    rough.fleet.start_enclave().wait()
    with pytest.raises((ReleaseRefused, WrongState)):
        rough.lab.run(digest)
    with pytest.raises((ReleaseRefused, WrongState)):
        rough.hospital.run(digest)
    for room in (rough.lab, rough.hospital):
        if room.name in releases:
            assert rough.cli("grant", digest, party=room.name).status == 0
    rough.lab.run(digest)
    assert [o.name for o in rough.hospital.outputs(digest)] == ["report"]
    assert len([1 for contract, _, _ in rough.hospital.unreceipted() if contract == digest]) == 1


def test_a_run_goes_on_when_the_one_who_asked_goes_away(rough: Stage):
    """The client is gone after the first step; the receipt is logged all the same, and nothing has to be granted."""
    digest = rough.agree()

    class Gone(Exception):
        pass

    def leave(_step: str, _detail: str) -> None:
        raise Gone

    with pytest.raises(Gone):
        rough.lab.run(digest, leave)
    until(lambda: len(rough.lab.exchange.proposal(digest).receipts) == 1, 30)
    until(lambda: len(rough.lab.exchange.deliveries(digest)) == 1, 30)
    assert [o.name for o in rough.lab.outputs(digest)] == ["report"]
    assert digest not in [contract for contract, _, _ in rough.hospital.unreceipted()]


# --- a broker ---------------------------------------------------------------------------------------------------------


def restart(rough: Stage, party: str, before: str = "") -> None:
    rough.fleet.end(f"broker of {party}")
    with rough.fleet.but(before=before):
        rough.fleet.start_broker(party).wait()


def test_a_broker_killed_after_its_commit_gives_the_same_release_again_and_no_second_run(rough: Stage):
    digest = rough.agree()
    first = Asker(rough, digest)
    restart(rough, "hospital", DIES)
    with pytest.raises(Unreachable):
        first.ask()
    until(lambda: rough.fleet.roles["broker of hospital"].process.poll() is not None)
    assert digest not in [d.contract for d in rough.hospital.decisions()]
    restart(rough, "hospital")
    decision = rough.hospital.decisions()[-1]  # the broker found what it had not written down
    assert (decision.verdict, decision.contract, decision.run_id) == ("release", digest, first.run_id)
    again, once_more = first.ask(), first.ask()
    assert again == once_more
    assert len(rough.hospital.home.book.standing(digest).runs) == 1
    assert Asker(rough, digest, first.run_id).refused() == "broker.run_taken"
    assert Asker(rough, digest).refused() == "broker.no_run_left"


def test_a_run_whose_broker_dies_with_the_answer_is_used_and_can_be_granted_again(rough: Stage):
    digest = rough.agree()
    restart(rough, "hospital", DIES)
    with pytest.raises(StrongroomError) as raised:
        rough.lab.run(digest)
    assert raised.value.code == "app.unreachable"
    restart(rough, "hospital")
    assert [contract for contract, _, _ in rough.hospital.unreceipted()][-1] == digest
    with pytest.raises(ReleaseRefused) as refused:
        rough.lab.run(digest)
    assert refused.value.reason == "broker.no_run_left"
    rough.hospital.grant(digest, 1)
    rough.lab.run(digest)


def test_a_broker_that_was_away_when_it_was_told_learns_of_a_withdrawal(rough: Stage):
    digest = rough.agree()
    rough.fleet.end("broker of lab")
    said = rough.cli("withdraw", digest, party="hospital")
    assert said.status == 0
    assert "the broker of lab" in said.out
    rough.fleet.start_broker("lab").wait()
    until(lambda: "hospital" in rough.lab.home.book.standing(digest).withdrawn_by)
    assert Asker(rough, digest).refused("model") == "contract.withdrawn"


def test_a_withdrawal_reaches_a_running_broker_of_the_other_party(rough: Stage):
    digest = rough.agree()
    said = rough.cli("withdraw", digest, "--json", party="hospital")
    assert said.json["not_reached"] == []
    assert Asker(rough, digest).refused("model") == "contract.withdrawn"
    assert Asker(rough, digest).refused("data") == "contract.withdrawn"


# --- the exchange -----------------------------------------------------------------------------------------------------


class Slow(io.RawIOBase):
    """A file that is read until somebody is told so, and then waits for a word."""

    def __init__(self, path: Path, at: int, tell: threading.Event, wait: threading.Event) -> None:
        self._file, self._at, self._tell, self._wait = path.open("rb"), at, tell, wait

    def read(self, size: int = -1) -> bytes:
        if self._file.tell() >= self._at and not self._tell.is_set():
            self._tell.set()
            assert self._wait.wait(20)
        return self._file.read(size)

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()


def test_an_exchange_killed_while_something_is_uploaded_keeps_nothing_half(rough: Stage, tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(secrets.token_bytes(6 << 20))
    manifest = rough.lab.seal(path, terms=terms(), upload=False)
    sealed = tmp_path / "a.csv.sealed"
    envelope = wire.Envelope.parse(manifest_path(sealed).read_bytes())
    rough.lab.exchange.put_manifest(envelope, rough.lab.home.keys.signing.public)
    folder, begun, go_on = rough.home / "exchange" / "sealed", threading.Event(), threading.Event()
    failed: list[BaseException] = []

    def upload() -> None:
        source = Slow(sealed, 3 << 20, begun, go_on)
        try:
            rough.lab.exchange.put_sealed(manifest.digest, source)
        except StrongroomError as error:
            failed.append(error)
        finally:
            source.close()

    thread = threading.Thread(target=upload)
    thread.start()
    assert begun.wait(20)
    until(lambda: any(p.suffix == ".partial" and p.stat().st_size > 1 << 20 for p in folder.iterdir()))
    rough.fleet.end("exchange")
    go_on.set()
    thread.join()
    assert isinstance(failed[0], Unreachable)
    assert [p for p in folder.iterdir() if p.suffix == ".partial"]
    rough.fleet.start_exchange().wait()
    assert not [p for p in folder.iterdir() if p.suffix == ".partial"]
    with pytest.raises(NotFound):
        rough.lab.exchange.sealed(manifest.digest)
    said = rough.cli("seal", sealed, "--only-upload")
    assert said.status == 0, said.err
    assert rough.lab.exchange.sealed(manifest.digest).size == manifest.sealed.size


def test_an_exchange_killed_before_it_logs_a_receipt_is_asked_again_when_it_is_back(rough: Stage):
    digest = rough.agree()
    rough.fleet.end("exchange")
    with rough.fleet.but(before=DIES_LATER):
        rough.fleet.start_exchange().wait()

    def revive() -> None:
        until(lambda: rough.fleet.roles["exchange"].process.poll() is not None, 60)
        rough.fleet.end("exchange")
        rough.fleet.start_exchange().wait()

    reviver = threading.Thread(target=revive)
    reviver.start()
    rough.lab.run(digest)
    reviver.join()
    assert [o.name for o in rough.hospital.outputs(digest)] == ["report"]


def test_brokers_decide_and_enclaves_are_refused_while_the_exchange_is_away_and_it_is_logged_later(rough: Stage):
    digest = rough.agree()
    asker = Asker(rough, digest)
    rough.fleet.end("exchange")
    assert "release" in asker.ask()
    assert not rough.hospital.decisions()[-1].logged
    rough.fleet.start_exchange().wait()
    until(lambda: rough.hospital.decisions()[-1].logged)
    _, entries = rough.hospital.ledger()
    assert rough.hospital.decisions()[-1].digest in [e.digest for e in entries]


# --- two at once ------------------------------------------------------------------------------------------------------


@pytest.fixture
def second_enclave(rough: Stage) -> Iterator[str]:
    yield rough.fleet.another_enclave("second enclave")
    rough.fleet.end("second enclave")


def test_two_enclaves_asked_at_once_for_the_last_run_exactly_one_gets_it(rough: Stage, second_enclave):
    digest = rough.agree()
    rooms = [rough.room("lab"), rough.room("hospital", enclave=second_enclave)]
    start, ended = threading.Barrier(2), []

    def go(room: Room) -> None:
        start.wait()
        try:
            ended.append(room.run(digest).receipt.digest)
        except ReleaseRefused as refused:
            ended.append(refused.reason)

    threads = [threading.Thread(target=go, args=(room,)) for room in rooms]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(e.startswith("sha256:") for e in ended) == [False, True]
    assert [e for e in ended if not e.startswith("sha256:")] == ["broker.no_run_left"]
    assert len(rough.lab.receipts(digest)) == 1
    for room in (rough.lab, rough.hospital):
        assert len(room.home.book.standing(digest).runs) == 1
        assert room.view(digest).state is State.SPENT


def test_many_enclaves_at_once_at_two_brokers_never_get_more_than_the_limit(rough: Stage):
    digest = rough.agree(runs=2)
    askers = [Asker(rough, digest) for _ in range(6)]
    start, given = threading.Barrier(len(askers)), []

    def go(asker: Asker) -> None:
        start.wait()
        for role in ("data", "model"):  # as every enclave does: by the roles' names, the next after the one before
            if "release" not in asker.ask(role):
                return
        given.append(asker.run_id)

    threads = [threading.Thread(target=go, args=(a,)) for a in askers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(given) == 2
    for room in (rough.lab, rough.hospital):
        assert set(room.home.book.standing(digest).runs) == set(given)
