"""The keeper of a queue: it begins jobs when their turn comes, each in a thread, and writes down how they end.

A request names its run, and a run has one keyset at every broker. So asking again after anything died is safe, and free:
where no key had been released the run is made, once; where one had, the brokers refuse (``broker.run_taken``), the job is
lost, and nothing is charged that was not charged before.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from strongroom.app.exchange.client import ExchangeClient
from strongroom.app.stores.queue import Asked, Job, QueueStore
from strongroom.contract import RUN_REQUEST_SECONDS, Contract, RunRequest
from strongroom.errors import (
    BadReceipt,
    Cancelled,
    Conflict,
    Internal,
    JobCancelled,
    JobLost,
    JobTooLarge,
    NotFound,
    NotPermitted,
    ReleaseRefused,
    RunBegun,
    RunCancelled,
    RunEnded,
    RunTaken,
    StrongroomError,
    Unreachable,
)
from strongroom.job import Cancel, JobsRequest, JobState, require_may_cancel
from strongroom.receipt import STATEMENT_TYPE, Bundle, Statement
from strongroom.wire import Envelope

from .order import Room, choose
from .places import Place

_LOG = logging.getLogger("strongroom.queue")
MAX_TRIES = 5  # of one request that enclaves began and did not end
TICK_SECONDS = 1.0
BUSY_SECONDS = 2
LONGEST_PAUSE = 60


class Keeper:
    """Holds jobs, and has them run.

    Args:
        store: where they are written down.
        exchange: where contracts and receipts are.
        place: where they run.
        room: how many at once, and how much memory they may have together.
        now: Unix seconds.
    """

    def __init__(
        self, store: QueueStore, exchange: ExchangeClient, place: Place, room: Room, *, now: Callable[[], float] = time.time
    ) -> None:
        self._store, self._exchange, self._place, self._room, self._now = store, exchange, place, room, now
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self._told: set[int] = set()  # places of running jobs whose enclave heard that they are cancelled
        self._thread = threading.Thread(target=self._work, daemon=True, name="queue")

    def start(self) -> None:
        """Take up what the last keeper left, and begin."""
        taken_up = self._store.recover()
        if taken_up:
            _LOG.warning("%d jobs were running when the queue ended: each is asked for again", taken_up)
        self._thread.start()

    def stop(self) -> None:
        """Begin nothing more. What runs goes on in its enclave; the next keeper takes it up."""
        self._stopped.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _at(self) -> int:
        return int(self._now())

    # --- what parties ask ---

    def add(self, data: bytes) -> Job:
        """Take a party's request for a run.

        Raises:
            WireError, NotFound, ContractError, PartyError: as an enclave would refuse it. JobTooLarge, QueueFull, JobOver.
        """
        envelope = Envelope.parse(data, max_bytes=64 << 10)
        contract = self._contract(RunRequest.peek(envelope).contract)
        asked = RunRequest.verify(envelope, contract.proposal, self._at())
        if contract.proposal.standing:
            raise NotPermitted("a standing contract is served, and not run")
        contract.require_in_force(self._at())
        memory = contract.proposal.limits.memory_bytes
        if memory > self._room.memory_bytes:
            raise JobTooLarge(f"a run may use {memory:,} bytes, and all that run here {self._room.memory_bytes:,} together")
        keys = {party.name: party.signing_key.keyid for party in contract.proposal.parties}
        until = asked.at + RUN_REQUEST_SECONDS if asked.until is None else asked.until
        found = self._store.add(
            Asked(
                contract=contract.digest,
                run_id=asked.run_id,
                party=asked.party,
                key=keys[asked.party],
                request=envelope,
                at=asked.at,
                until=min(until, contract.proposal.not_after),
                memory_bytes=memory,
                among=frozenset(keys.values()),
            ),
            self._at(),
        )
        self._wake.set()
        return found

    def seen(self, data: bytes) -> list[Job]:
        """The jobs of whoever signed. Raises BadSignature, BadField, WireError."""
        request = JobsRequest.verify(Envelope.parse(data, max_bytes=64 << 10), self._at())
        return self._store.seen_by(request.key.keyid)

    def cancel(self, data: bytes) -> Job:
        """Keep a party's word that a job shall not be, and have it end.

        Raises:
            WireError, NotFound, ContractError, PartyError: not by somebody who may. JobOver.
        """
        envelope = Envelope.parse(data, max_bytes=64 << 10)
        contract = self._contract(Cancel.peek(envelope).contract)
        said = Cancel.verify(envelope, contract.proposal, self._at())
        job = self._store.get(contract.digest, said.run_id)
        require_may_cancel(contract.proposal, said.party, job.party)
        found = self._store.cancel(contract.digest, said.run_id, envelope, self._at())
        if found.state is JobState.RUNNING:
            self._tell(found)
        return self._store.get(contract.digest, said.run_id)

    def going(self, contract: str, data: bytes) -> list[bytes]:
        """What the enclaves that run jobs of a contract answer to a party's request to hear where they are."""
        found = []
        for job in self._store.of(JobState.RUNNING):
            if job.contract == contract:
                try:
                    found.append(self._place.post(job.run_id, "/v1/going", data))
                except (Unreachable, NotFound):
                    continue
        return found

    def _contract(self, digest: str) -> Contract:
        return Contract.verify(self._exchange.proposal(digest).envelope)

    # --- turns ---

    def _work(self) -> None:
        while not self._stopped.is_set():
            self._wake.clear()
            try:
                self._turn()
            except StrongroomError as error:
                _LOG.error("the queue goes on: %s: %s", error.code, error)
            except Exception as error:  # noqa: BLE001 - the queue must not end for one job
                _LOG.error("the queue goes on: %s", error.__class__.__name__)
            self._wake.wait(TICK_SECONDS)

    def _turn(self) -> None:
        at = self._at()
        self._store.expire(at)
        for job in self._store.of(JobState.RUNNING):
            if job.cancel is not None and job.place not in self._told:
                self._tell(job)
        while not self._stopped.is_set():
            chosen = self._store.claim(at, lambda ready, running, turns: choose(ready, running, turns, self._room))
            if chosen is None:
                return
            threading.Thread(target=self._job, args=(chosen,), daemon=True, name=f"job {chosen.run_id[:8]}").start()

    def _tell(self, job: Job) -> None:
        """Bring a cancel to the enclave. Where that fails it is tried again, and the brokers know of it by themselves."""
        assert job.cancel is not None
        try:
            self._place.post(job.run_id, "/v1/cancels", job.cancel.encode())
        except (Unreachable, Internal, NotFound) as error:
            _LOG.info("the enclave did not hear of a cancel: %s", error.code)
            return
        except StrongroomError as error:  # it is being delivered, or the word is too old: nothing to try again
            _LOG.info("the enclave does not cancel: %s", error.code)
        self._told.add(job.place)

    # --- one job ---

    def _job(self, job: Job) -> None:
        try:
            self._settled(job)
        except (Unreachable, Internal) as error:  # the exchange, which alone knows whether there is a receipt
            self._store.again(job, due=self._at() + BUSY_SECONDS, error=error, began=False)
        except Exception as error:  # noqa: BLE001 - a thread's last line of defence
            _LOG.error("internal error in a job: %s", error.__class__.__name__)
            self._store.again(job, due=self._at() + LONGEST_PAUSE, error=Internal("the queue failed"), began=True)
        finally:
            self._told.discard(job.place)
            self._wake.set()

    def _settled(self, job: Job) -> None:
        """One turn of a job, to its end or back to the queue."""
        if (job.tries > 1 or job.cancel is not None) and self._received(job):
            return
        if job.cancel is not None:
            self._end(job, JobState.CANCELLED, JobCancelled("it was cancelled"))
            return
        begun = threading.Event()
        while not self._stopped.is_set():
            try:
                self._conclude(job, self._place.run(job.run_id, job.request, begun.set))
            except RunBegun:  # another keeper, or this one before it was cut off, asked for it: it goes on
                begun.set()
                with suppress(Unreachable, Internal):
                    if self._received(job):
                        return
                self._stopped.wait(BUSY_SECONDS)
                continue
            except StrongroomError as error:
                self._failed(job, error, began=begun.is_set())
            return

    def _conclude(self, job: Job, bundle: Bundle) -> None:
        """What a receipt says. It is the parties' to verify it; the queue believes it as it believes an enclave."""
        said = Statement.parse(bundle.receipt.expect(STATEMENT_TYPE))
        if (said.contract, said.run_id) != (job.contract, job.run_id):
            self._end(job, JobState.FAILED, BadReceipt("the enclave answered with the receipt of another run"))
            return
        now = self._store.get(job.contract, job.run_id)
        if said.failure is None:
            self._store.end(job, JobState.DONE, self._at(), receipt=bundle.receipt.digest)
        elif now.cancel is not None:
            error = Cancelled("it was cancelled while it ran; it counts as a run")
            self._end(job, JobState.CANCELLED, error, receipt=bundle.receipt.digest)
        else:
            message = f"the program stopped at {said.failure.step!r}"
            self._store.end(
                job, JobState.FAILED, self._at(), code=said.failure.code, message=message, receipt=bundle.receipt.digest
            )

    def _end(self, job: Job, state: JobState, error: StrongroomError, *, receipt: str = "") -> None:
        self._store.end(job, state, self._at(), code=error.code, message=error.message, receipt=receipt)

    def _received(self, job: Job) -> bool:
        """Whether the exchange has its receipt: it was made while nobody listened. Raises Unreachable, Internal."""
        with suppress(NotFound):
            for digest, run_id in self._exchange.proposal(job.contract).receipts:
                if run_id == job.run_id:
                    self._conclude(job, self._exchange.receipt(digest))
                    return True
        return False

    def _failed(self, job: Job, error: StrongroomError, *, began: bool) -> None:
        if isinstance(error, Unreachable | BadReceipt | Internal):
            if began and job.tries >= MAX_TRIES:
                self._end(job, JobState.FAILED, error)
                return
            pause = min(LONGEST_PAUSE, 1 << job.tries) if began else BUSY_SECONDS
            self._store.again(job, due=self._at() + pause, error=error, began=began)
        elif isinstance(error, Conflict):  # too many runs there, that others asked for
            self._store.again(job, due=self._at() + BUSY_SECONDS, error=error, began=False)
        elif isinstance(error, RunEnded | ReleaseRefused) and self._received(job):
            return
        elif isinstance(error, RunEnded) and job.code:  # what was heard of it when it ended says more
            self._store.end(job, JobState.FAILED, self._at(), code=job.code, message=job.message)
        elif isinstance(error, ReleaseRefused) and error.reason == RunTaken.code:
            self._end(job, JobState.LOST, JobLost("its enclave ended after a key had been released"))
        elif isinstance(error, JobCancelled) or (isinstance(error, ReleaseRefused) and error.reason == RunCancelled.code):
            self._end(job, JobState.CANCELLED, error)
        else:
            self._end(job, JobState.FAILED, error)
