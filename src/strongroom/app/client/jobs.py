"""A party's jobs: runs that wait in a queue for their turn.

jobs = Jobs(room, "http://127.0.0.1:8480")
job = jobs.add(digest)
jobs.wait(job, on_step=print)
receipt = jobs.receipt(job)

What a queue says is untrusted: a job is done when its receipt verifies, and cancelled when the owners' brokers know of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing, suppress

from strongroom import wire
from strongroom.app.enclave.client import going
from strongroom.app.enclave.going import GoingRequest
from strongroom.app.http import Client
from strongroom.contract import MAX_QUEUED_SECONDS, RunRequest, require
from strongroom.errors import JobOver, NotFound, NotPermitted, StrongroomError, Unreachable, Usage
from strongroom.job import Cancel, Job, JobsRequest, JobState, may_cancel
from strongroom.receipt import Receipt
from strongroom.wire import Fields

from . import sharing
from .room import Room, fresh, is_whole

HOURS = 24
WAIT_SECONDS = 1.0


class Jobs:
    """A party at a queue.

    Args:
        room: the party at work.
        queue: the queue's address.
    """

    def __init__(self, room: Room, queue: str) -> None:
        self._room, self._queue = room, queue

    def _post(self, path: str, content: bytes) -> bytes:
        with closing(Client(self._queue, timeout=30)) as client:
            return client.post(path, content)

    def _job(self, path: str, content: bytes) -> Job:
        return Job.from_json(wire.decode(self._post(path, content)))

    # --- reading ---

    def all(self) -> list[Job]:
        """The jobs of every contract that this party's key is in, newest first. Raises Unreachable, BadField."""
        keys = self._room.home.keys.signing
        request = JobsRequest(keys.public, int(time.time())).sign(keys)
        f = Fields(wire.decode(self._post("/v1/jobs/list", request.encode()), max_bytes=8 << 20), "answer")
        found = f.items("jobs", Job.from_json, high=10_000)
        f.end()
        return list(found)

    def find(self, reference: str | None) -> Job:
        """A job by the beginning of its run id; the newest where none is given. Raises NotFound, Usage."""
        jobs = self.all()
        found = [job for job in jobs if job.run_id.startswith(reference)] if reference else jobs[:1]
        if not found:
            raise NotFound("there is no such job of yours at the queue", hint="strongroom jobs lists them.")
        if len(found) > 1:
            raise Usage(f"{reference!r} is the beginning of {len(found)} jobs", hint="Give more of it.")
        return found[0]

    def going(self, job: Job) -> list[tuple[str, str]]:
        """Where the runs of its contract are now: steps, and how far the program is where the contract lets this party hear
        it. Raises Unreachable and what the enclave refuses with."""
        request = GoingRequest(job.contract, self._room.name, int(time.time())).sign(self._room.home.keys.signing)
        with closing(Client(self._queue, timeout=30)) as client:
            return going(client, request)

    # --- asking ---

    def add(self, digest: str, *, hours: int = HOURS) -> Job:
        """Have a run of a contract wait for its turn.

        Args:
            digest: of the contract.
            hours: how long it may wait. Until then whoever holds the request decides when the run begins.

        Raises:
            SignatureMissing, Expired, WrongState: as :meth:`Room.run`. QueueFull, JobTooLarge.
        """
        view, contract = self._room.view(digest), self._room.contract(digest)
        contract.require_in_force(int(time.time()))
        require("run", view.state)
        if contract.proposal.standing:
            raise NotPermitted("the contract keeps a room open for requests, and is not run")
        return self._ask(digest, fresh(16).hex(), hours)

    def _ask(self, digest: str, run_id: str, hours: int) -> Job:
        at = int(time.time())
        if not 0 < hours * 3600 <= MAX_QUEUED_SECONDS:
            raise Usage(f"a job waits for 1 to {MAX_QUEUED_SECONDS // 3600} hours")
        request = RunRequest(digest, self._room.name, run_id, at, at + hours * 3600)
        return self._job("/v1/jobs", request.sign(self._room.home.keys.signing).encode())

    def retry(self, job: Job, *, another: bool = False, hours: int = HOURS) -> Job:
        """Ask once more.

        Args:
            job: one that is over.
            another: ask for another run of the contract, which counts, and is charged, anew. Without it for the same run:
                that costs nothing, and is refused by every broker that had released a key for it.
            hours: how long it may wait.

        Raises:
            JobOver: it goes on; or the same run cannot be had again. What :meth:`add` raises.
        """
        if not job.state.over:
            raise JobOver(f"the job is {job.state.value}", hint="strongroom jobs wait JOB follows it.")
        if another:
            return self.add(job.contract, hours=hours)
        if job.receipt or job.cancelled or job.state is JobState.LOST:
            hint = "Ask for another run, which counts and is charged anew: strongroom jobs retry JOB --another"
            raise JobOver(f"the run of this job is over: it is {job.state.value}", hint=hint)
        if max(job.created_at, job.ended_at or 0) >= int(time.time()):
            time.sleep(1.0)  # a request of the same second would be the same bytes, and so no other request
        return self._ask(job.contract, job.run_id, hours)

    def cancel(self, job: Job) -> tuple[Job | None, list[str]]:
        """Cancel a job: at the owners' brokers and those that hold shares, which release no key for it from then on, and at
        the queue.

        Returns:
            the job as the queue tells of it then, ``None`` where the queue could not be told; and who could not be told.

        Raises:
            NotAParty: this party may not. JobOver: it is over.
        """
        room, contract = self._room, self._room.contract(job.contract)
        if room.name not in may_cancel(contract.proposal, job.party):
            raise NotPermitted("who asked for a run may cancel it, and the owners of what it reads")
        if job.state in (JobState.DONE, JobState.CANCELLED):
            raise JobOver(f"the job is {job.state.value}")
        signed = Cancel(job.contract, room.name, job.run_id, int(time.time())).sign(room.home.keys.signing)
        told, missed = wire.encode({"cancel": signed.to_json(), "contract": contract.envelope.to_json()}), []
        for owner in sorted({ref.owner for ref in contract.proposal.assets}):
            try:
                with closing(Client(contract.proposal.party(owner).broker_url, timeout=5)) as client:
                    client.post("/v1/cancels", told)
            except StrongroomError:
                missed.append(f"the broker of {owner}")
        missed += sharing.bring(room.exchange, contract.proposal, "/v1/cancels", told)
        try:
            return self._job("/v1/jobs/cancel", signed.encode()), missed
        except (Unreachable, NotFound):
            return None, [*missed, "the queue"]

    def wait(self, job: Job, on_step: Callable[[str, str], None] = lambda _step, _detail: None) -> Job:
        """Follow a job until it is over.

        Args:
            job: any.
            on_step: called with a word and what is said of it, each time that there is news.
        """
        last: list[tuple[str, str]] = []
        while True:
            now = self.find(job.run_id)
            said = [(now.state.value, now.message)] if now.state is not JobState.RUNNING else []
            if now.state is JobState.RUNNING:
                with suppress(StrongroomError):  # it may be over by now
                    said = self.going(now)
            if said != last and not now.state.over:
                for step, detail in said:
                    on_step(step, detail)
                last = said
            if now.state.over:
                return now
            time.sleep(WAIT_SECONDS)

    def receipt(self, job: Job) -> Receipt:
        """The verified receipt of a job; it is kept. Raises NotFound, NotVerified."""
        if not is_whole(job.receipt):
            raise NotFound("the job has no receipt")
        found = self._room.keep(self._room.exchange.receipt(job.receipt))
        if (found.statement.contract, found.statement.run_id) != (job.contract, job.run_id):
            raise NotFound("the queue names the receipt of another run")
        return found
