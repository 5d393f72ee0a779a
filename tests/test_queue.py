"""A queue without an enclave: what it takes from whom, what it writes down, and how it ends a job by what came of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stage import Rehearsal, in_process, until
from strongroom import wire
from strongroom.app.enclave.going import GoingRequest
from strongroom.app.queue import keeper as module
from strongroom.app.queue.keeper import MAX_TRIES, Keeper
from strongroom.app.queue.order import Room
from strongroom.app.queue.server import queue
from strongroom.app.stores import queue as stores
from strongroom.app.stores.queue import Job, QueueStore, alone
from strongroom.contract import RunRequest
from strongroom.errors import (
    Conflict,
    JobCancelled,
    JobOver,
    NotFound,
    ReleaseRefused,
    RunBegun,
    RunEnded,
    StrongroomError,
    Unreachable,
)
from strongroom.job import Cancel, JobsRequest, JobState
from strongroom.receipt import Bundle
from strongroom.wire import Envelope

PLENTY = Room(2, 4 << 30)


class Enclave:
    """Somewhere to run jobs: a test says what comes of each try (``places.Place``)."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.told: list[tuple[str, str]] = []
        self.answer: Callable[[str, Envelope, Callable[[], None]], Bundle] = self.off

    @staticmethod
    def off(_job: str, _request: Envelope, _began: Callable[[], None]) -> Bundle:
        raise Unreachable("nothing answers")

    def run(self, job: str, request: Envelope, began: Callable[[], None]) -> Bundle:
        self.asked.append(job)
        return self.answer(job, request, began)

    def post(self, job: str, path: str, _content: bytes) -> bytes:
        self.told.append((job, path))
        return wire.encode({"runs": [{"contract": "c", "detail": "d", "run_id": job, "step": "program"}]})

    def close(self) -> None:
        pass


class Here:
    """A queue on a rehearsal's exchange; its clock is the test's."""

    def __init__(self, folder: Path, rehearsal: Rehearsal, room: Room = PLENTY) -> None:
        self.rehearsal, self.enclave = rehearsal, Enclave()
        self.store = QueueStore(folder / "queue.db")
        self.later = 0
        self.keeper = Keeper(self.store, rehearsal.lab.exchange, self.enclave, room, now=self.now)

    def now(self) -> float:
        return time.time() + self.later

    def request(self, contract: str, run_id: str, party: str = "lab", *, hours: int = 1, at: int = 0) -> bytes:
        keys = (self.rehearsal.lab if party == "lab" else self.rehearsal.hospital).home.keys.signing
        begins = int(self.now()) + at
        return RunRequest(contract, party, run_id, begins, begins + 3600 * hours).sign(keys).encode()

    def cancel(self, contract: str, run_id: str, party: str = "hospital") -> bytes:
        keys = (self.rehearsal.lab if party == "lab" else self.rehearsal.hospital).home.keys.signing
        return Cancel(contract, party, run_id, int(self.now())).sign(keys).encode()

    def mine(self, party: str = "lab") -> list[Job]:
        keys = (self.rehearsal.lab if party == "lab" else self.rehearsal.hospital).home.keys.signing
        return self.keeper.seen(JobsRequest(keys.public, int(self.now())).sign(keys).encode())

    def one(self, contract: str, answer: Callable[..., Bundle]) -> Job:
        """A job, claimed and tried once, with this answer."""
        self.enclave.answer = answer
        self.keeper.add(self.request(contract, "a" * 32))
        return self.turn(contract)

    def turn(self, contract: str, run_id: str = "a" * 32) -> Job:
        job = self.store.claim(int(self.now()), lambda ready, _running, _turns: ready[0] if ready else None)
        assert job is not None
        self.keeper._job(job)
        return self.store.get(contract, run_id)


@pytest.fixture
def here(tmp_path: Path, rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    monkeypatch.setattr(module, "BUSY_SECONDS", 0)
    found = Here(tmp_path, rehearsal)
    yield found
    found.keeper.stop()
    found.store.close()


@pytest.fixture
def contract(here: Here) -> str:
    return here.rehearsal.agree(runs=5)


def raising(error: StrongroomError, *, begins: bool = True) -> Callable[..., Bundle]:
    def answer(_job: str, _request: Envelope, began: Callable[[], None]) -> Bundle:
        if begins:
            began()
        raise error

    return answer


def run(here: Here, *, dies: bool = False) -> Callable[..., Bundle]:
    """An enclave that makes the run; one that dies right after its receipt was logged."""

    def answer(_job: str, request: Envelope, began: Callable[[], None]) -> Bundle:
        began()
        asked = RunRequest.peek(request)
        bundle = made(here.rehearsal, asked.contract, request)
        if dies:
            raise Unreachable("cut off")
        return bundle

    return answer


def made(rehearsal: Rehearsal, contract: str, request: Envelope) -> Bundle:
    """A run of exactly this request."""
    original = RunRequest.sign
    try:
        RunRequest.sign = lambda _self, _key: request  # type: ignore[method-assign]
        return rehearsal.run(contract)
    finally:
        RunRequest.sign = original  # type: ignore[method-assign]


# --- what it takes ----------------------------------------------------------------------------------------------------


def test_a_job_waits_and_its_parties_see_it(here: Here, contract: str) -> None:
    job = here.keeper.add(here.request(contract, "a" * 32))
    assert (job.state, job.party, job.tries) == (JobState.WAITING, "lab", 0)
    assert [j.run_id for j in here.mine("lab")] == [j.run_id for j in here.mine("hospital")] == ["a" * 32]


def test_the_same_request_again_changes_nothing(here: Here, contract: str) -> None:
    data = here.request(contract, "a" * 32)
    assert here.keeper.add(data) == here.keeper.add(data)
    assert len(here.mine()) == 1


def test_another_party_does_not_take_over_a_job_by_its_name(here: Here, contract: str) -> None:
    """Its turn would be taken on the account of the party that asked."""
    here.one(contract, raising(NotFound("no such wheel")))
    with pytest.raises(Conflict, match="another party"):
        here.keeper.add(here.request(contract, "a" * 32, "hospital", at=5))
    assert here.keeper.add(here.request(contract, "a" * 32, at=5)).state is JobState.WAITING


def test_a_stranger_sees_no_job_and_cannot_say_that_it_is_a_party(here: Here, contract: str) -> None:
    here.keeper.add(here.request(contract, "a" * 32))
    stranger = here.rehearsal.join("stranger").home.keys.signing
    mine = JobsRequest(stranger.public, int(here.now())).sign(stranger).encode()
    assert here.keeper.seen(mine) == []
    forged = JobsRequest(here.rehearsal.lab.home.keys.signing.public, int(here.now())).sign(stranger).encode()
    with pytest.raises(StrongroomError) as caught:
        here.keeper.seen(forged)
    assert caught.value.code == "wire.bad_signature"


def test_only_a_party_asks_and_only_for_a_contract_that_is_in_force(here: Here, contract: str) -> None:
    stranger = here.rehearsal.join("stranger").home.keys.signing
    forged = RunRequest(contract, "lab", "a" * 32, int(here.now())).sign(stranger).encode()
    with pytest.raises(StrongroomError) as caught:
        here.keeper.add(forged)
    assert caught.value.code == "wire.bad_signature"
    here.later = 30 * 86_400
    with pytest.raises(StrongroomError) as caught:
        here.keeper.add(here.request(contract, "a" * 32))
    assert caught.value.code == "contract.expired"


def test_a_run_that_never_fits_is_refused_at_once(tmp_path: Path, rehearsal: Rehearsal) -> None:
    found = Here(tmp_path, rehearsal, Room(2, 1 << 20))
    with pytest.raises(StrongroomError) as caught:
        found.keeper.add(found.request(rehearsal.agree(), "a" * 32))
    assert caught.value.code == "job.too_large"
    found.store.close()


def test_one_party_cannot_fill_the_queue(here: Here, contract: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "WAITING_OF_ONE", 2)
    for n in range(2):
        here.keeper.add(here.request(contract, f"{n:032x}"))
    with pytest.raises(StrongroomError) as caught:
        here.keeper.add(here.request(contract, "f" * 32))
    assert caught.value.code == "job.queue_full"
    here.keeper.add(here.request(contract, "e" * 32, "hospital"))


def test_what_is_over_is_forgotten_in_the_end(here: Here, contract: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "KEPT", 1)
    for n in range(3):
        here.keeper.add(here.request(contract, f"{n:032x}"))
        here.keeper.cancel(here.cancel(contract, f"{n:032x}"))
    here.keeper.add(here.request(contract, "f" * 32))
    assert len(here.mine()) <= 3


def test_a_job_whose_turn_does_not_come_in_time_expires(here: Here, contract: str) -> None:
    here.keeper.add(here.request(contract, "a" * 32))
    here.later = 3601
    here.keeper._turn()
    (job,) = here.mine()
    assert (job.state, job.code, here.enclave.asked) == (JobState.EXPIRED, "job.expired", [])


# --- what comes of it -------------------------------------------------------------------------------------------------


def test_a_receipt_ends_it(here: Here, contract: str) -> None:
    job = here.one(contract, run(here))
    assert job.state is JobState.DONE
    assert here.rehearsal.lab.exchange.receipt(job.receipt).receipt.digest == job.receipt
    with pytest.raises(JobOver):
        here.keeper.add(here.request(contract, "a" * 32, at=5))


def test_a_receipt_that_nobody_heard_of_is_found(here: Here, contract: str) -> None:
    """The enclave died after it had logged its receipt, or the queue did: the run was made, and is not asked for again."""
    job = here.one(contract, run(here, dies=True))
    assert (job.state, job.code) == (JobState.WAITING, "app.unreachable")
    here.later = 100
    assert here.turn(contract).state is JobState.DONE
    assert len(here.enclave.asked) == 1


def test_an_enclave_that_is_off_costs_no_try(here: Here, contract: str) -> None:
    job = here.one(contract, raising(Unreachable("off"), begins=False))
    assert (job.state, job.tries) == (JobState.WAITING, 0)
    assert here.turn(contract).tries == 0


def test_an_enclave_that_is_busy_costs_no_try(here: Here, contract: str) -> None:
    assert here.one(contract, raising(Conflict("4 runs are going on here"), begins=False)).tries == 0


def test_a_request_that_kills_enclaves_is_tried_so_often_and_no_more(here: Here, contract: str) -> None:
    job = here.one(contract, raising(Unreachable("it ended")))
    for _ in range(MAX_TRIES - 1):
        assert job.state is JobState.WAITING
        here.later += 100
        job = here.turn(contract)
    assert (job.state, job.code, len(here.enclave.asked)) == (JobState.FAILED, "app.unreachable", MAX_TRIES)
    again = here.keeper.add(here.request(contract, "a" * 32, at=5))  # its party may ask once more
    assert again.state is JobState.WAITING


@pytest.mark.parametrize(
    ("reason", "state", "code"),
    [
        ("broker.run_taken", JobState.LOST, "job.lost"),
        ("broker.run_cancelled", JobState.CANCELLED, "broker.refused"),
        ("broker.no_run_left", JobState.FAILED, "broker.refused"),
    ],
)
def test_what_brokers_say_of_a_run(here: Here, contract: str, reason: str, state: JobState, code: str) -> None:
    job = here.one(contract, raising(ReleaseRefused("the broker refused", reason=reason)))
    assert (job.state, job.code) == (state, code)


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (JobCancelled("cancelled"), JobState.CANCELLED),
        (RunEnded("it ended"), JobState.FAILED),
        (NotFound("no such wheel"), JobState.FAILED),
    ],
)
def test_what_enclaves_say_of_a_run(here: Here, contract: str, error: StrongroomError, state: JobState) -> None:
    job = here.one(contract, raising(error))
    assert (job.state, job.code) == (state, error.code)


def test_a_run_is_not_called_lost_while_the_exchange_cannot_say_whether_it_has_a_receipt(
    here: Here, contract: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = here.one(contract, run(here, dies=True))
    here.later = 100
    here.enclave.answer = raising(ReleaseRefused("the broker refused", reason="broker.run_taken"))
    exchange = here.rehearsal.lab.exchange

    def away(_digest: str) -> None:
        raise Unreachable("the exchange does not answer")

    with monkeypatch.context() as cut:
        cut.setattr(exchange, "proposal", away)
        job = here.turn(contract)
        assert (job.state, job.receipt) == (JobState.WAITING, "")
    assert here.turn(contract).state is JobState.DONE


def test_of_a_run_that_ended_before_it_had_its_keys_the_first_reason_is_kept(here: Here, contract: str) -> None:
    here.one(contract, raising(Unreachable("the broker of hospital does not answer")))
    here.later = 100
    here.enclave.answer = raising(RunEnded("it ended"), begins=False)
    job = here.turn(contract)
    assert (job.state, job.code) == (JobState.FAILED, "app.unreachable")
    assert "hospital" in job.message


def test_a_run_that_goes_on_is_followed_to_its_receipt(here: Here, contract: str) -> None:
    began: list[Bundle] = []

    def going(_job: str, request: Envelope, _began: Callable[[], None]) -> Bundle:
        if len(here.enclave.asked) == 3:
            began.append(made(here.rehearsal, contract, request))
        raise RunBegun("it goes on")

    assert here.one(contract, going).state is JobState.DONE
    assert len(here.enclave.asked) == 3


def test_a_receipt_of_another_run_is_none_of_this_one(here: Here, contract: str) -> None:
    job = here.one(contract, lambda *_: here.rehearsal.run(contract))
    assert (job.state, job.receipt) == (JobState.FAILED, "")


def test_what_nobody_expected_does_not_end_the_queue(here: Here, contract: str) -> None:
    def breaks(*_: object) -> Bundle:
        raise ZeroDivisionError

    job = here.one(contract, breaks)
    assert (job.state, job.code) == (JobState.WAITING, "app.internal")


# --- a crash ----------------------------------------------------------------------------------------------------------


def test_what_was_running_when_the_queue_died_is_asked_for_again_by_the_same_name(here: Here, contract: str) -> None:
    here.keeper.add(here.request(contract, "a" * 32))
    assert here.store.claim(int(here.now()), lambda ready, *_: ready[0]) is not None
    assert here.store.recover() == 1
    here.enclave.answer = run(here)
    assert here.turn(contract).state is JobState.DONE
    assert here.enclave.asked == ["a" * 32]
    assert len(here.rehearsal.lab.receipts(contract)) == 1


def test_two_keepers_cannot_share_a_folder(tmp_path: Path) -> None:
    with alone(tmp_path), pytest.raises(Conflict), alone(tmp_path):
        pass
    with alone(tmp_path):
        pass


def test_a_keeper_at_work_takes_turns_and_takes_up(here: Here, contract: str) -> None:
    here.keeper.add(here.request(contract, "a" * 32))
    here.store.claim(int(here.now()), lambda ready, *_: ready[0])
    here.enclave.answer = run(here)
    here.keeper.start()
    until(lambda: here.store.get(contract, "a" * 32).state is JobState.DONE)
    here.keeper.add(here.request(contract, "b" * 32))
    until(lambda: here.store.get(contract, "b" * 32).state is JobState.DONE)


# --- cancel -----------------------------------------------------------------------------------------------------------


def test_what_waits_is_cancelled_at_once_and_never_begun(here: Here, contract: str) -> None:
    here.keeper.add(here.request(contract, "a" * 32))
    job = here.keeper.cancel(here.cancel(contract, "a" * 32))
    assert (job.state, job.code) == (JobState.CANCELLED, "job.cancelled")
    assert here.store.claim(int(here.now()), lambda ready, *_: ready[0] if ready else None) is None
    with pytest.raises(JobOver):
        here.keeper.cancel(here.cancel(contract, "a" * 32))
    with pytest.raises(JobOver):
        here.keeper.add(here.request(contract, "a" * 32, at=5))


def test_what_runs_is_told_to_end_and_after_a_crash_is_not_asked_for_again(here: Here, contract: str) -> None:
    here.keeper.add(here.request(contract, "a" * 32))
    here.store.claim(int(here.now()), lambda ready, *_: ready[0])
    assert here.keeper.cancel(here.cancel(contract, "a" * 32, "lab")).state is JobState.RUNNING
    assert here.enclave.told == [("a" * 32, "/v1/cancels")]
    here.store.recover()
    assert here.turn(contract).state is JobState.CANCELLED
    assert here.enclave.asked == []


def test_an_enclave_that_did_not_hear_of_a_cancel_is_told_again(here: Here, contract: str) -> None:
    here.keeper.add(here.request(contract, "a" * 32))
    here.store.claim(int(here.now()), lambda ready, *_: ready[0])
    deaf = [Unreachable("cut"), NotFound("not begun yet")]

    def post(job: str, path: str, _content: bytes) -> bytes:
        here.enclave.told.append((job, path))
        if deaf:
            raise deaf.pop()
        return b"{}"

    here.enclave.post = post  # type: ignore[method-assign]
    here.keeper.cancel(here.cancel(contract, "a" * 32))
    for _ in range(4):
        here.keeper._turn()
    assert len(here.enclave.told) == 3


def test_a_party_that_neither_asked_nor_owns_anything_cancels_nothing(here: Here) -> None:
    lab = here.rehearsal.lab
    assets = {"model": here.rehearsal.seal(lab, "a.onnx"), "data": here.rehearsal.seal(lab, "b.csv")}
    digest = here.rehearsal.agree(assets=assets)  # both are the lab's: the hospital only gets the report
    here.keeper.add(here.request(digest, "a" * 32))
    with pytest.raises(StrongroomError) as caught:
        here.keeper.cancel(here.cancel(digest, "a" * 32, "hospital"))
    assert caught.value.code == "contract.not_a_party"
    assert here.keeper.cancel(here.cancel(digest, "a" * 32, "lab")).state is JobState.CANCELLED


# --- at the door ------------------------------------------------------------------------------------------------------


def test_over_http(here: Here, contract: str) -> None:
    lab = here.rehearsal.lab.home.keys.signing
    with in_process(queue(here.keeper)) as web:
        assert web.get("/v1/health").json()["role"] == "queue"
        job = web.post("/v1/jobs", content=here.request(contract, "a" * 32)).json()
        assert (job["state"], job["run_id"]) == ("waiting", "a" * 32)
        listed = web.post("/v1/jobs/list", content=JobsRequest(lab.public, int(here.now())).sign(lab).encode())
        assert listed.json()["jobs"] == [job]
        here.store.claim(int(here.now()), lambda ready, *_: ready[0])
        heard = web.post("/v1/going", content=GoingRequest(contract, "lab", int(here.now())).sign(lab).encode())
        assert [run["step"] for run in heard.json()["runs"]] == ["program"]
        ended = web.post("/v1/jobs/cancel", content=here.cancel(contract, "a" * 32)).json()
        assert (ended["state"], ended["cancelled"]) == ("running", True)


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs/list", "/v1/jobs/cancel", "/v1/going"])
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"{}", b"\xff", b"[" * 9999])
def test_nonsense_is_refused_and_leaves_no_trace(here: Here, path: str, body: bytes) -> None:
    with in_process(queue(here.keeper)) as web:
        answer = web.post(path, content=body)
        assert (answer.status_code, answer.json()["error"]["code"].split(".")[0]) == (400, "wire")
        assert web.get(path).status_code == 405
    assert here.mine() == []


def test_a_job_holds_no_secret(here: Here, contract: str) -> None:
    here.keeper.add(here.request(contract, "a" * 32))
    said = json.dumps([job.told.to_json() for job in here.mine()])
    assert "signatures" not in said
