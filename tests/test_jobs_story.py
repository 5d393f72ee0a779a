"""Jobs with real processes: they wait, run, and end as they should when anything is killed in the middle; and whatever
happens, the owner's log has one charge for each run that had a key, and none for one that had not."""

from __future__ import annotations

import json
import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from jobs_case import LONG, agree, charges, computes, is_at, sealed, stopped, used
from stage import ROOT, Stage, spawn, until
from strongroom.app.cli import parser_of
from strongroom.app.cli.parties import make
from strongroom.app.client.jobs import Jobs
from strongroom.app.enclave.client import run_contract
from strongroom.app.http import Client
from strongroom.errors import Conflict, JobOver, ReleaseRefused, RunTaken, StrongroomError
from strongroom.job import JobState
from strongroom.wire import Envelope


@pytest.fixture(scope="module")
def records(rough_stage: Stage) -> str:
    return sealed(rough_stage)


@pytest.fixture(scope="module")
def kept(rough_stage: Stage) -> Iterator[Stage]:
    """A stage with a queue."""
    rough_stage.fleet.start_queue("--runs", "2", "--memory", "2G").wait()
    yield rough_stage
    rough_stage.fleet.roles.pop("queue").stop()


@pytest.fixture
def lab(kept: Stage) -> Jobs:
    return Jobs(kept.lab, kept.fleet.config.queue)


@pytest.fixture
def hospital(kept: Stage) -> Jobs:
    return Jobs(kept.hospital, kept.fleet.config.queue)


def restart(stage: Stage, name: str) -> None:
    """End a role as a crash would, and start it again."""
    stage.fleet.end(name)
    again(stage, name)


def again(stage: Stage, name: str) -> None:
    start = {"enclave": stage.fleet.start_enclave, "queue": lambda: stage.fleet.start_queue("--runs", "2", "--memory", "2G")}
    start[name]().wait()


def test_add_wait_and_read(kept: Stage, records: str, tmp_path: Path) -> None:
    digest = agree(kept, records, tmp_path / "code")
    added = kept.cli("jobs", "add", digest, "--wait", "--json")
    assert added.status == 0, added.out
    job = added.json["job"]
    assert (job["state"], job["code"], added.json["statement"]["predicate"]["run_id"]) == ("done", "", job["run_id"])
    assert json.loads(kept.lab.outputs(digest)[0].path.read_text())["rows"] > 100
    for party in ("lab", "hospital"):
        listed = kept.cli("jobs", "--json", party=party).json["jobs"]
        assert job["run_id"] in [one["run_id"] for one in listed]
    assert job["run_id"][:12] in kept.cli("jobs", "list").out
    shown = kept.cli("jobs", "show", job["run_id"][:12], party="hospital")
    assert job["receipt"] in shown.out
    assert charges(kept, digest) == [(job["run_id"], True)]
    over = kept.cli("jobs", "cancel", job["run_id"])
    assert over.code == "job.over"
    assert kept.cli("jobs", "retry", job["run_id"]).code == "job.over"
    assert kept.cli("jobs", "add", digest).code == "contract.wrong_state"  # its one run is used


def test_an_enclave_killed_before_a_key_was_released_costs_nothing(
    kept: Stage, lab: Jobs, records: str, tmp_path: Path
) -> None:
    digest = agree(kept, records, tmp_path / "code")
    with stopped(kept.fleet.roles["broker of hospital"].process.pid):
        job = lab.add(digest)
        until(lambda: any(step == "attest" for step, _ in _heard(lab, job)), 60)
        kept.fleet.end("enclave")
        assert charges(kept, digest) == []
    again(kept, "enclave")
    found = is_at(lab, job, JobState.DONE, JobState.LOST, JobState.FAILED)
    assert (found.state, used(kept, digest)) == (JobState.DONE, 1), found
    assert found.tries > 1
    assert charges(kept, digest) == [(job.run_id, True)]


def _heard(jobs: Jobs, job: object) -> list[tuple[str, str]]:
    with suppress(StrongroomError):
        return jobs.going(job)
    return []


def test_an_enclave_killed_after_a_key_was_released_used_the_run_and_is_charged_once(
    kept: Stage, lab: Jobs, records: str, tmp_path: Path
) -> None:
    digest = agree(kept, records, tmp_path / "code", seconds=LONG)
    job = lab.add(digest)
    computes(lab, job)
    restart(kept, "enclave")
    found = is_at(lab, job, JobState.DONE, JobState.LOST, JobState.FAILED)
    assert (found.state, found.code, found.receipt) == (JobState.LOST, "job.lost", "")
    # asked for again by the same name it was refused; nothing is charged for that, and nothing given back
    reasons = [d.code for d in kept.hospital.home.book.decisions() if d.contract == digest]
    assert RunTaken.code in reasons
    assert charges(kept, digest) == [(job.run_id, False)]
    assert used(kept, digest) == 1
    with pytest.raises(JobOver):
        lab.retry(found)
    second = is_at(lab, lab.retry(found, another=True), JobState.FAILED)
    assert "broker.no_run_left" in second.message
    kept.hospital.grant(digest, 1)
    second = lab.retry(second)  # no key was released for it: it is the same run still
    computes(lab, second)
    assert [settled for _, settled in charges(kept, digest)] == [False, False]  # one for each run that had a key
    lab.cancel(second)
    is_at(lab, second, JobState.CANCELLED)
    assert len(charges(kept, digest)) == 2


def test_a_queue_killed_in_the_middle_has_everything_and_takes_up_what_runs(
    kept: Stage, lab: Jobs, records: str, tmp_path: Path
) -> None:
    slow = agree(kept, records, tmp_path / "slow", seconds=8, runs=2)
    more = [agree(kept, records, tmp_path / "more") for _ in range(3)]
    running = [lab.add(slow) for _ in range(2)]  # as many as may run at once
    computes(lab, running[0])
    waiting = [lab.add(digest) for digest in more]
    assert [lab.find(job.run_id).state for job in waiting] == [JobState.WAITING] * 3
    restart(kept, "queue")
    assert {job.run_id for job in (*running, *waiting)} <= {job.run_id for job in lab.all()}
    for job in (*running, *waiting):
        assert is_at(lab, job, JobState.DONE, JobState.LOST, JobState.FAILED).state is JobState.DONE
    assert sorted(charges(kept, slow)) == sorted((job.run_id, True) for job in running)
    for job, digest in zip(waiting, more, strict=True):
        assert charges(kept, digest) == [(job.run_id, True)]


def test_a_cancel_ends_what_runs_and_nothing_leaves(
    kept: Stage, lab: Jobs, hospital: Jobs, records: str, tmp_path: Path
) -> None:
    digest = agree(kept, records, tmp_path / "code", seconds=LONG, runs=2)
    job = lab.add(digest)
    computes(lab, job)
    said = kept.cli("jobs", "cancel", job.run_id, "--json", party="hospital")  # whose records they are
    assert (said.status, said.json["missed"]) == (0, [])
    found = is_at(lab, job, JobState.CANCELLED)
    assert kept.lab.outputs(digest) == []
    statement = lab.receipt(found).statement
    assert (statement.failure.code, statement.outputs, statement.owed) == ("withheld", (), ())
    ((run, settled),) = charges(kept, digest)
    assert (run, settled) == (job.run_id, True)
    manifest = kept.lab.contract(digest).proposal.assets[0].manifest
    (charge,) = [c for c in kept.hospital.home.book.charges([manifest]) if c.contract == digest]
    assert charge.settled.counts.runs == charge.charge.counts.runs == 1  # it ran: that is not given back
    with pytest.raises(JobOver):
        lab.retry(found)


def test_a_cancel_of_what_waits_is_kept_by_the_brokers_too(kept: Stage, lab: Jobs, records: str, tmp_path: Path) -> None:
    digest = agree(kept, records, tmp_path / "code", runs=2)
    slow = agree(kept, records, tmp_path / "slow", seconds=LONG, runs=2)
    going = [lab.add(slow) for _ in range(2)]
    job = lab.add(digest)
    assert lab.cancel(job)[0].state is JobState.CANCELLED
    assert used(kept, digest) == 0
    # a queue that would run it all the same gets no key
    (request,) = _stored(kept, job.run_id)
    with closing(Client(kept.fleet.config.enclave, timeout=60)) as client, pytest.raises(ReleaseRefused) as refused:
        run_contract(client, Envelope.parse(request), lambda _step, _detail: None)
    assert refused.value.reason == "broker.run_cancelled"
    assert charges(kept, digest) == []
    for one in going:
        lab.cancel(one)
        is_at(lab, one, JobState.CANCELLED)


def _stored(stage: Stage, run_id: str) -> list[bytes]:
    connection = sqlite3.connect(stage.home / "queue" / "queue.db", timeout=10)
    try:
        return [row[0] for row in connection.execute("SELECT request FROM jobs WHERE run_id = ?", (run_id,))]
    finally:
        connection.close()


def test_how_far_code_is_hears_who_the_contract_names_and_nobody_else(
    kept: Stage, lab: Jobs, hospital: Jobs, records: str, tmp_path: Path
) -> None:
    told = agree(kept, records, tmp_path / "told", seconds=LONG, progress="4:lab")
    untold = agree(kept, records, tmp_path / "untold", seconds=LONG)
    jobs = [lab.add(told), lab.add(untold)]
    until(lambda: ("program", "2 of 4 parts") in _heard(lab, jobs[0]), 120)
    computes(lab, jobs[1])
    assert hospital.going(jobs[0]) == [("program", "code")]
    assert lab.going(jobs[1]) == hospital.going(jobs[1]) == [("program", "code")]
    shown = kept.cli("show", told, party="hospital").out
    assert "how far it is" in shown
    for job in jobs:
        lab.cancel(job)
        is_at(lab, job, JobState.CANCELLED)


def test_somebody_else_neither_sees_nor_cancels(kept: Stage, lab: Jobs, records: str, tmp_path: Path) -> None:
    digest = agree(kept, records, tmp_path / "code")
    job = lab.add(digest)
    with suppress(StrongroomError):
        make(kept.place, "stranger")
    stranger = kept.room("stranger")
    theirs = Jobs(stranger, kept.fleet.config.queue)
    assert theirs.all() == []
    with pytest.raises(StrongroomError):
        theirs.cancel(job)
    assert is_at(lab, job, JobState.DONE)


def test_one_queue_a_folder(kept: Stage) -> None:
    said = spawn("jobs", "serve", "--home", kept.home, "--port", "0", cwd=kept.folder)
    assert (said.status, said.code) == (1, Conflict.code)


def test_what_the_page_tells_people_to_type_is_understood() -> None:
    page = (ROOT / "docs" / "jobs.md").read_text()
    lines = [line for block in page.split("```")[1::2] for line in block.replace("\\\n", " ").splitlines()]
    found = [line.replace("…", "") for line in lines if line.startswith("strongroom ")]
    assert len(found) >= 8
    for line in found:
        words = shlex.split(line, comments=True)
        parser_of(words[1]).parse_args(words[2:])
