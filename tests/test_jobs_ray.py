"""The same jobs on a real Ray cluster of two nodes on this machine: enclaves that it starts, on either node, prove
themselves to the owners' brokers as any other does; and what it loses in the middle is charged once."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from jobs_case import LONG, agree, charges, computes, is_at, sealed
from ray_nodes import OURS, two_nodes
from stage import Stage, spawn, until
from strongroom.app.cli.fleet import Role
from strongroom.app.client.jobs import Jobs
from strongroom.app.queue.cluster import Cluster
from strongroom.errors import MissingExtra, NoCluster
from strongroom.job import JobState

HERE = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not HERE, reason="Ray is not installed: pip install 'strongroom[ray]', or make cluster")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with two_nodes(tmp_path_factory.mktemp("ray")) as (_, address):
        yield address


@pytest.fixture(scope="module")
def kept(rough_stage: Stage, cluster: str) -> Iterator[Stage]:
    """A stage with a queue whose jobs run on the cluster. The stage's own enclave is not asked."""
    role = queue(rough_stage, cluster)
    yield rough_stage
    rough_stage.fleet.roles.pop("queue on ray", role).stop()


def queue(stage: Stage, cluster: str) -> Role:
    words = ["jobs", "serve", "--on", cluster, "--runs", "2", "--memory", "4G", "--port", "0"]
    stage_home = stage.home.parent / "queue-home"
    stage_home.mkdir(exist_ok=True)
    words += ["--exchange-url", stage.fleet.config.exchange, "--node-home", str(stage.home), "--announce"]
    with (stage.fleet.logs / "queue-on-ray.err").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "strongroom", *words, "--home", str(stage_home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, **OURS},
        )
    role = stage.fleet.roles["queue on ray"] = Role("queue on ray", process, time.monotonic())
    role.wait()
    return role


@pytest.fixture(scope="module")
def records(rough_stage: Stage) -> str:
    return sealed(rough_stage)


@pytest.fixture
def lab(kept: Stage) -> Jobs:
    return Jobs(kept.lab, kept.fleet.roles["queue on ray"].url)


def enclaves(stage: Stage) -> dict[int, int]:
    """The processes that cluster nodes started as enclaves on this stage, each with its node's own process."""
    found = {}
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            with suppress(OSError):
                words = (place / "cmdline").read_bytes().split(b"\0")
                if b"enclave" in words and b"--announce" in words and str(stage.home).encode() in words:
                    found[int(place.name)] = _session(int(place.name))
    own = {role.process.pid for role in stage.fleet.roles.values()}
    return {pid: session for pid, session in found.items() if pid not in own}


def _session(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[3])


@needs_ray
def test_jobs_run_on_both_nodes_each_in_an_enclave_of_its_own(kept: Stage, lab: Jobs, records: str, tmp_path: Path) -> None:
    long = agree(kept, records, tmp_path / "long", seconds=LONG, runs=2)
    jobs = [lab.add(long) for _ in range(2)]
    until(lambda: [step for step, _ in lab.going(jobs[0])].count("program") == 2, 240)  # of one contract: both are heard
    found = enclaves(kept)
    assert len(found) == 2
    assert len(set(found.values())) == 2, "both on one node"
    for job in jobs:
        lab.cancel(job)
        is_at(lab, job, JobState.CANCELLED)
    short = agree(kept, records, tmp_path / "short", runs=3)
    jobs = [lab.add(short) for _ in range(3)]
    for job in jobs:
        done = is_at(lab, job, JobState.DONE, JobState.FAILED, JobState.LOST)
        assert done.state is JobState.DONE, done
        assert lab.receipt(done).statement.run_id == job.run_id
    assert sorted(charges(kept, short)) == sorted((job.run_id, True) for job in jobs)
    assert len(enclaves(kept)) == 2  # used again


@needs_ray
def test_an_enclave_that_the_cluster_loses_in_the_middle_is_charged_once(
    kept: Stage, lab: Jobs, records: str, tmp_path: Path
) -> None:
    digest = agree(kept, records, tmp_path / "code", seconds=LONG)
    before = set(enclaves(kept))
    job = lab.add(digest)
    computes(lab, job)
    for process in before | set(enclaves(kept)):
        os.kill(process, signal.SIGKILL)
    found = is_at(lab, job, JobState.LOST, JobState.DONE, JobState.FAILED)
    assert found.state is JobState.LOST, found
    assert charges(kept, digest) == [(job.run_id, False)]


@needs_ray
def test_a_cancel_reaches_an_enclave_on_a_node(kept: Stage, lab: Jobs, records: str, tmp_path: Path) -> None:
    digest = agree(kept, records, tmp_path / "code", seconds=LONG, progress="4:lab")
    job = lab.add(digest)
    until(lambda: ("program", "2 of 4 parts") in lab.going(job), 120)
    lab.cancel(job)
    is_at(lab, job, JobState.CANCELLED)
    assert kept.lab.outputs(digest) == []
    assert charges(kept, digest) == [(job.run_id, True)]


@needs_ray
def test_no_enclave_outlives_its_queue(kept: Stage, cluster: str) -> None:
    kept.fleet.roles.pop("queue on ray").stop()
    until(lambda: not enclaves(kept), 60)
    queue(kept, cluster)


@needs_ray
def test_a_cluster_that_is_not_there_is_said(tmp_path: Path) -> None:
    assert refused(tmp_path, "ray://127.0.0.1:9") == (1, NoCluster.code)


@pytest.mark.skipif(HERE, reason="Ray is installed")
def test_without_ray_one_line_says_what_to_install() -> None:
    with pytest.raises(MissingExtra) as caught:
        Cluster("ray://127.0.0.1:9", ["enclave"], enclaves=1)
    assert "strongroom[ray]" in caught.value.hint


def test_an_address_that_is_no_cluster_is_said(tmp_path: Path) -> None:
    assert refused(tmp_path, "spark://a:1") == (2, "app.usage")


def refused(folder: Path, cluster: str) -> tuple[int, str]:
    """The status and the code with which no queue is kept on it."""
    place = folder / "room"
    place.mkdir()
    words = ["jobs", "serve", "--on", cluster, "--exchange-url", "http://127.0.0.1:1", "--home", place]
    said = spawn(*words, cwd=folder)
    return said.status, said.code
