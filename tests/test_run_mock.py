"""A stranger's code on the mocks of what it asks for: by whoever wrote it, and by whoever is to approve it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("pandas", reason="pandas is not installed: pip install 'strongroom[data]'")
pytest.importorskip("bandit", reason="bandit is not installed: pip install 'strongroom[review]'")

from stage import Rehearsal
from strongroom.app.client.inbox import Inbox
from strongroom.app.client.offer import Offering
from strongroom.asset import Manifest
from strongroom.contract import Proposal
from strongroom.errors import ManifestMismatch, NotFound
from strongroom.policy import ANY_PARTY, OutputRule, Policy
from strongroom.schema import ANY_SCHEMA

TERMS = Policy(uses=frozenset({"analyse"}), outputs={"values": OutputRule(ANY_PARTY, 1 << 20, 1, 15, ANY_SCHEMA)})
CODE = """\
def count(census, smallest):
    print("seen by who tries it \\x1b[2J")
    return {"summary": {"rows": len(census), "third": 1 / 3}}
"""
NUMBER = {"maximum": 1000, "minimum": 0, "type": "number"}
SCHEMA = {"summary": {"properties": {"rows": NUMBER, "third": NUMBER}, "type": "object"}}
SECRET = "SURNAME-1414213562"


@pytest.fixture
def offered(rehearsal: Rehearsal, tmp_path: Path) -> Manifest:
    """The hospital's census, of which its mock has 100 rows and the real one 40."""
    path = tmp_path / "census.parquet"
    pq.write_table(pa.table({"age": [31, 45, 52, 60] * 10, "name": [SECRET] * 40}), path)
    return rehearsal.hospital.offer(Offering(path), terms=TERMS)


@pytest.fixture
def here(rehearsal: Rehearsal) -> Iterator[Inbox]:
    with closing(Inbox(rehearsal.hospital)) as found:
        yield found


def proposed(
    rehearsal: Rehearsal, tmp_path: Path, code: str = CODE, asset: str = "hospital/census", **more: object
) -> Proposal:
    path = tmp_path / "analysis.py"
    path.write_text(code)
    said = {"inputs": {"census": asset}, "outputs": {"summary": "values:lab"}, "arguments": {"smallest": 10}}
    return rehearsal.lab.submit(path, entry="analysis:count", **{**said, "schemas": SCHEMA, **more})


# --- who wrote it -------------------------------------------------------------------------------------------------------


def mean(census: object) -> dict[str, object]:
    return {"rows": len(census)}  # type: ignore[arg-type]


@pytest.mark.usefixtures("offered")
def test_an_asset_is_tried_by_its_mock_and_by_its_name(rehearsal: Rehearsal) -> None:
    census = rehearsal.lab.assets["census"]
    for what in (census, "census", "hospital/census:polars", "census:arrow"):
        code = "outputs['n'] = census.collect().height" if str(what).endswith("polars") else "outputs['n'] = len(census)"
        path = rehearsal.folder / "n.py"
        path.write_text(code + "\n")
        found = rehearsal.lab.try_(path, inputs={"census": what}, outputs={"n": "values"}, schemas={"n": NUMBER})
        assert found.failure is None, found.log
        assert json.loads(found.outputs["n"]) == len(census.mock) == 100


@pytest.mark.usefixtures("offered")
def test_what_is_neither_a_file_nor_an_asset_is_one_line(rehearsal: Rehearsal, tmp_path: Path) -> None:
    path = tmp_path / "n.py"
    path.write_text("outputs['n'] = 1\n")
    with pytest.raises(NotFound, match="there is no file nothing; and as an asset: no asset 'nothing'"):
        rehearsal.lab.try_(path, inputs={"census": "nothing"}, outputs={"n": "values"}, schemas={"n": NUMBER})
    bare = rehearsal.seal(rehearsal.hospital, "bare.csv", terms=TERMS)
    with pytest.raises(NotFound, match="has no mock"):
        rehearsal.lab.try_(path, inputs={"census": f"hospital/{bare.name}"}, outputs={"n": "values"}, schemas={"n": NUMBER})


def test_a_file_goes_before_an_asset_of_its_name(
    rehearsal: Rehearsal, offered: Manifest, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / offered.name).write_text("a\n1\n")
    (tmp_path / "n.py").write_text("outputs['n'] = len(census.read())\n")
    found = rehearsal.lab.try_(
        "n.py", inputs={"census": f"{offered.name}:file"}, outputs={"n": "values"}, schemas={"n": NUMBER}
    )
    assert json.loads(found.outputs["n"]) == 4


# --- who is to approve it -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("offered")
def test_a_reviewer_sees_what_would_leave_under_the_proposals_own_rules(
    rehearsal: Rehearsal, here: Inbox, tmp_path: Path
) -> None:
    made = proposed(rehearsal, tmp_path, decimals=3)
    found = here.run_mock(here.show(made.digest))
    assert found.failure is None, found.log
    assert json.loads(found.outputs["summary"]) == {"rows": 100, "third": 0.333}
    assert found.sandbox != "process"
    assert SECRET not in found.log + str(found.outputs)
    small = proposed(rehearsal, tmp_path, max_bytes=10)
    refused = here.run_mock(here.show(small.digest))
    assert not refused.outputs
    assert not refused.passed


@pytest.mark.usefixtures("offered")
def test_a_contract_that_wants_no_sandbox_gets_one_here(rehearsal: Rehearsal, here: Inbox, tmp_path: Path) -> None:
    made = proposed(rehearsal, tmp_path, sandbox="process")
    assert here.run_mock(here.show(made.digest)).sandbox != "process"


@pytest.mark.usefixtures("offered")
def test_code_that_fails_on_the_mocks_is_said(rehearsal: Rehearsal, here: Inbox, tmp_path: Path) -> None:
    made = proposed(rehearsal, tmp_path, CODE.replace("1 / 3", "1 / 0"))
    found = here.run_mock(here.show(made.digest))
    assert found.failure == "program.crashed"
    assert "ZeroDivisionError" in found.log


def test_an_asset_without_a_mock_is_one_line(rehearsal: Rehearsal, here: Inbox, tmp_path: Path) -> None:
    bare = rehearsal.seal(rehearsal.hospital, "bare.csv", terms=TERMS)
    made = proposed(rehearsal, tmp_path, asset=f"hospital/{bare.name}")
    with pytest.raises(NotFound, match="has no mock"):
        here.run_mock(here.show(made.digest))


def test_another_mock_than_the_owner_signed_is_not_run(
    rehearsal: Rehearsal, here: Inbox, offered: Manifest, tmp_path: Path
) -> None:
    made = proposed(rehearsal, tmp_path)
    assert offered.mock is not None
    kept = rehearsal.store.file("mock", offered.mock.digest)
    kept.write_bytes(bytes(kept.stat().st_size))
    for path in (rehearsal.hospital.home.folder / "mocks").glob("*"):
        path.unlink()
    with pytest.raises(ManifestMismatch):
        here.run_mock(here.show(made.digest))
