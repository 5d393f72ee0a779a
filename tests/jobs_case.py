"""What the tests of jobs share: code that takes as long as a test wants, its contracts, and an owner's log of charges."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stage import Stage, until
from strongroom.app.client.jobs import Jobs
from strongroom.job import Job, JobState
from strongroom.policy import ANY_PARTY, OutputRule, Policy
from strongroom.schema import ANY_SCHEMA

TERMS = Policy(uses=frozenset({"analyse"}), outputs={"values": OutputRule(ANY_PARTY, 1 << 20, 1, 4, schema=ANY_SCHEMA)})
CODE = """\
import time


def count(records, seconds, progress):
    progress(0.5)
    time.sleep(seconds)
    progress(1.0)
    return {"summary": {"rows": len(records)}}
"""
SCHEMA = {"properties": {"rows": {"maximum": 100_000, "minimum": 0, "type": "integer"}}, "type": "object"}
LONG = 600


def sealed(stage: Stage) -> str:
    """Records of the hospital's, sealed for analyses, another asset for every module of tests."""
    name = f"jobs-{secrets.token_hex(4)}"
    found = stage.hospital.seal(stage.held / "records.csv", terms=TERMS, name=name, out=stage.folder / f"{name}.sealed")
    return f"hospital/{found.name}"


def agree(stage: Stage, records: str, folder: Path, *, seconds: int = 0, runs: int = 1, **more: object) -> str:
    """A contract of both over that code, whose runs are charged."""
    folder.mkdir(exist_ok=True)
    (folder / "slow.py").write_text(CODE)
    proposal = stage.lab.submit(
        folder / "slow.py",
        entry="slow:count",
        inputs={"records": f"{records}:arrow"},
        outputs={"summary": "values:lab"},
        arguments={"seconds": seconds},
        schemas={"summary": SCHEMA},
        title=secrets.token_hex(8),
        seconds=2 * LONG,
        memory_bytes=1 << 29,
        decimals=4,
        runs=runs,
        charges={"records": 0},
        **more,
    )
    stage.hospital.approve(proposal.digest)
    return proposal.digest


def charges(stage: Stage, contract: str) -> list[tuple[str, bool]]:
    """The hospital's log of what runs of a contract were charged: the run, and whether it is settled."""
    manifest = stage.lab.contract(contract).proposal.assets[0].manifest
    return [
        (c.run_id, c.settled is not None) for c in stage.hospital.home.book.charges([manifest]) if c.contract == contract
    ]


def used(stage: Stage, contract: str) -> int:
    """How many runs the hospital's broker counts."""
    return len(stage.hospital.home.book.standing(contract).runs)


def is_at(jobs: Jobs, job: Job, *states: JobState) -> Job:
    """Wait until a job is in one of these states."""
    until(lambda: jobs.find(job.run_id).state in states, 120)
    return jobs.find(job.run_id)


def computes(jobs: Jobs, job: Job) -> None:
    """Wait until its program runs, so that its keys were released."""
    until(lambda: any(step == "program" for step, _ in jobs.going(job)), 120)


@contextmanager
def stopped(process: int) -> Iterator[None]:
    """A process that neither ends nor answers."""
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)
