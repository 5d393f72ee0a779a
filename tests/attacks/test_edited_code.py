"""An enclave whose installed code was edited: it starts, it asks, it is measured, and no broker gives it a key."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import strongroom
from stage import Stage, spawn
from strongroom import wire
from strongroom.app.client.home import Home
from strongroom.app.client.room import Room
from strongroom.attest.evidence import Measurement

PROGRAM = "programs/evaluation.py"
CHECK = "if digest != program.digest:"


def measured(said) -> Measurement:
    return Measurement.from_json({name: value for name, value in said.json.items() if name != "programs"})


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site with a copy of the installed package: one line of a program more, and the check that would notice it taken out.

    Whoever edits the one will edit the other; what is left to notice it is the platform, which measures both.
    """
    site = tmp_path_factory.mktemp("site")
    package = site / "strongroom"
    shutil.copytree(Path(strongroom.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    program = package / PROGRAM
    program.write_text(program.read_text() + "\n# and one line more\n")
    run = package / "enclave/obtain.py"
    assert CHECK in run.read_text()
    run.write_text(run.read_text().replace(CHECK, "if False:"))
    return site


@pytest.fixture(scope="module")
def enclave(stage: Stage, edited: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An enclave from that site, on the very platform whose root both parties pin."""
    cache = tmp_path_factory.mktemp("cache")
    with stage.fleet.but(env={"PYTHONPATH": str(edited), "XDG_CACHE_HOME": str(cache)}):
        yield stage.fleet.another_enclave("edited enclave")


def test_edited_code_gets_no_key_and_the_refusal_names_the_measurement(stage: Stage, enclave):
    digest = stage.agree()
    said = stage.cli("run", digest, "--enclave-url", enclave)
    assert (said.status, said.code) == (1, "broker.refused")
    assert "the broker of hospital refused" in said.err
    assert "attest.measurement_not_accepted" in said.err
    found = stage.cli("run", digest, "--enclave-url", enclave, "--json").json["error"]
    assert found["reason"] == "attest.measurement_not_accepted"
    assert stage.hospital.view(digest).history.runs == frozenset()
    assert stage.hospital.unreceipted() == []


@pytest.fixture(scope="module")
def there(edited: Path, tmp_path_factory: pytest.TempPathFactory) -> Measurement:
    """What `strongroom measure` prints of the edited build."""
    said = spawn("measure", "--json", cwd=tmp_path_factory.mktemp("there"), env={"PYTHONPATH": str(edited)})
    return measured(said)


def test_the_owner_reads_of_it_and_which_measurement_it_was(stage: Stage, enclave, there):
    digest = stage.agree()
    assert stage.cli("run", digest, "--enclave-url", enclave).code == "broker.refused"
    log = stage.cli("log", party="hospital").out
    assert "attest.measurement_not_accepted" in log
    assert there.digest in log
    status = stage.cli("status", party="hospital").out
    assert "Refused by your broker" in status
    assert "attest.measurement_not_accepted" in status
    refusals = stage.cli("status", "--json", party="hospital").json["refusals"]
    assert (digest, "attest.measurement_not_accepted") in [(r["contract"], r["code"]) for r in refusals]


def test_the_honest_enclave_beside_it_still_runs(stage: Stage, enclave):
    digest = stage.agree()
    assert stage.cli("run", digest, "--enclave-url", enclave).code == "broker.refused"
    assert stage.cli("run", digest).status == 0


def test_an_edited_measurement_in_a_proposal_is_not_approved(stage: Stage, edited, enclave, tmp_path):
    """The lab trusts the edited build and proposes it; the hospital, which does not, is told what to compare."""
    draft, place = stage.draft(), Home(tmp_path / "room")
    shutil.copytree(stage.lab.home.folder, place.folder / "parties" / "lab")
    lab = place.party("lab")
    honest = lab.trust.measurements[0]
    other = replace(honest, registers={**honest.registers, "package": wire.digest(b"edited")})
    lab.save_trust(replace(lab.trust, measurements=(other,)))
    with Room(lab, exchange=stage.fleet.config.exchange, enclave=enclave) as room:
        digest = room.propose(draft).digest
    said = stage.cli("approve", digest, "--yes", party="hospital")
    assert said.code == "policy.not_permitted"
    assert "strongroom measure" in said.err
    assert other.digest in stage.cli("show", digest, party="hospital").out


def test_measuring_says_which_build_it_is_and_what_differs(stage: Stage, there):
    honest = stage.lab.trust.measurements[0]
    here = measured(stage.cli("measure", "--json"))
    assert here == honest
    assert {name for name in here.registers if here.registers[name] != there.registers[name]} == {"package"}
