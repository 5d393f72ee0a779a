"""What many tests of the edge share: one machine with real processes a session, and the files that its parties hold.

Nothing here is used unless a test asks for it by name. A test that ends roles asks for ``rough_stage``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:  # else it would all be imported before its coverage is measured
    from stage import Rehearsal, Stage

# A slow machine fails nothing: what takes long is measured in bench/.
for name, examples in (("ordinary", 50), ("soak", 250)):
    settings.register_profile(name, max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])

SOAK = Path(__file__).parent / "soak"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="also run tests/soak, which takes minutes")


def pytest_configure(config: pytest.Config) -> None:
    shared = Path("/dev/shm")
    if shared.is_dir():
        os.environ["STRONGROOM_MEMORY"] = tempfile.mkdtemp(prefix="strongroom-tests-", dir=shared)
    settings.load_profile("soak" if config.getoption("--soak") else "ordinary")


def pytest_unconfigure() -> None:
    found = os.environ.get("STRONGROOM_MEMORY", "")
    if Path(found).name.startswith("strongroom-tests-"):
        shutil.rmtree(found, ignore_errors=True)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if collection_path == SOAK and not config.getoption("--soak") else None


@pytest.fixture(scope="session")
def held(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model and the records, with a canary in each."""
    from stage import files

    return files(tmp_path_factory.mktemp("held"))


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory, held: Path) -> Iterator[Stage]:
    """One machine for every test that breaks nothing."""
    from stage import Stage

    yield from _set(Stage(tmp_path_factory.mktemp("stage"), held))


@pytest.fixture(scope="session")
def rough_stage(tmp_path_factory: pytest.TempPathFactory, held: Path) -> Iterator[Stage]:
    """One machine for tests that end roles, and start them again before they end themselves."""
    from stage import Stage

    yield from _set(Stage(tmp_path_factory.mktemp("rough"), held))


def _set(stage: Stage) -> Iterator[Stage]:
    from stage import MODEL_CANARY, RECORD_CANARY, keys, leaks

    yield stage
    secret = keys(stage)
    stage.close()
    # every word that any role said, until its end
    assert leaks({**secret, "a weight": MODEL_CANARY, "a record": RECORD_CANARY}, stage.fleet.logs) == []


@pytest.fixture
def rehearsal(tmp_path: Path) -> Iterator[Rehearsal]:
    """Two parties at work without a single process."""
    from stage import Rehearsal

    found = Rehearsal(tmp_path)
    yield found
    found.close()


@dataclass(frozen=True)
class Stranger:
    """Somebody in an empty folder who typed ``strongroom up``."""

    cwd: Path
    process: subprocess.Popen[str]
    screen: str

    def shell(self, line: str) -> subprocess.CompletedProcess[str]:
        """Run a line as a shell would, in that folder."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            line,
            shell=True,
            cwd=self.cwd,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=120,
        )


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stranger]:
    """`strongroom up`, as README says, in an empty folder."""
    cwd = tmp_path_factory.mktemp("stranger")
    command = [sys.executable, "-m", "strongroom", "up", "--party", "lab", "--party", "hospital"]
    process = subprocess.Popen(
        command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stderr
    screen = ""
    while "Ctrl-C ends all" not in screen:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        screen += line
    yield Stranger(cwd, process, screen)
    process.terminate()
    process.communicate(timeout=30)


@pytest.fixture(scope="module")
def stands(tmp_path_factory, held):
    """Brokers of other people beside a stage, as processes (``sharing_stage``)."""
    from sharing_stage import Sharing
    from stage import Stage

    stage = Stage(tmp_path_factory.mktemp("sharing"), held)
    try:
        yield Sharing(stage)
    finally:
        stage.close()


@pytest.fixture
def shared(stands):
    """The same, every broker there and honest."""
    stands.restore()
    return stands


@pytest.fixture(scope="module")
def often(stands):
    """Records whose key is shared, and a contract for many runs."""
    stands.restore()
    records = stands.seal()
    return records, stands.agree(records, runs=20)
