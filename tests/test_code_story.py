"""The whole story with real processes: a researcher submits code, an owner reads and approves it, it runs, and what its rule
lets through comes back under a receipt; and again, with packages; and what must not happen on the way."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from stage import RECORD_CANARY, ROOT, Said, Stage, leaks
from strongroom import wire
from strongroom.app.cli import parser_of
from strongroom.code import CodeBundle
from strongroom.errors import BadProposal, CodeMismatch, EnvironmentMismatch, StrongroomError
from strongroom.policy import ANY_PARTY, OutputRule, Policy
from strongroom.receipt import Bundle, verify
from strongroom.schema import ANY_SCHEMA
from wheel_files import wheel

TERMS = Policy(
    uses=frozenset({"analyse"}),
    outputs={
        **{kind: OutputRule(ANY_PARTY, 1 << 20, 1, 4) for kind in ("log", "picture")},
        "values": OutputRule(ANY_PARTY, 1 << 20, 1, 4, schema=ANY_SCHEMA),
    },
)
CODE = """\
import rounding


def mean(records, smallest):
    print("never seen")
    found = records["mean radius"].to_pylist()
    assert len(found) >= smallest
    return {"summary": {"mean": rounding.whole(sum(found) / len(found)), "records": len(found)}}
"""
FORM = {
    "properties": {
        "mean": {"maximum": 1000, "minimum": 0, "type": "number"},
        "records": {"maximum": 100_000, "minimum": 0, "type": "integer"},
    },
    "type": "object",
}
HELPER = "def whole(number):\n    return float(number)\n"


@pytest.fixture(scope="module")
def records(stage: Stage) -> str:
    """The hospital's records, sealed for analyses; their name for everybody."""
    manifest = stage.hospital.seal(
        stage.held / "records.csv", terms=TERMS, name="records-to-analyse", out=stage.folder / "to-analyse.sealed"
    )
    return f"hospital/{manifest.name}"


def study(folder: Path, **files: str) -> Path:
    """A folder of code, another one for every test: what one does to its bundle at the exchange is not another's."""
    place = folder / "study"
    place.mkdir()
    for name, text in {"analysis.py": CODE, "rounding.py": HELPER, "which.txt": folder.name, **files}.items():
        (place / name).write_text(text)
    return place


def submitted(stage: Stage, place: Path, records: str, *words: object) -> Said:
    form = place.with_name("form.json")
    form.write_text(json.dumps(FORM))
    return stage.cli(
        *("submit", place, "--entry", "analysis:mean", "--input", f"records={records}:arrow"),
        *("--output", "summary=values:lab,hospital", "--argument", "smallest=10", "--decimals", "4", "--json"),
        *("--schema", f"summary={form}", *words),
    )


def test_submit_read_approve_run_deliver_verify(stage: Stage, records: str, tmp_path: Path) -> None:
    place = study(tmp_path)
    mock = tmp_path / "mock.csv"
    mock.write_text("mean radius\n" + "1.5\n" * 12)

    tried = stage.cli(
        *("try", place, "--entry", "analysis:mean", "--input", f"records={mock}:arrow", "--output", "summary=values"),
        *("--argument", "smallest=10", "--out", tmp_path / "tried", "--json"),
    )
    assert (tried.status, tried.json["failure"], tried.json["log"]) == (0, None, "never seen\n")
    assert json.loads((tmp_path / "tried/summary.json").read_text()) == {"mean": 1.5, "records": 12}

    said = submitted(stage, place, records)
    assert said.status == 0, said.err
    digest, bundle = said.json["digest"], said.json["code"]

    shown = stage.cli("show", digest, party="hospital")
    assert f"{bundle}, 3 files" in " ".join(shown.out.split())
    assert "code file rounding.py" in shown.out
    assert "the enclave's own, and no others" in " ".join(shown.out.split())
    read = stage.cli("code", "show", digest, "--json", party="hospital")
    files = {"analysis.py": CODE, "rounding.py": HELPER, "which.txt": tmp_path.name}
    assert read.json["files"] == files
    assert read.json["digest"] == bundle == CodeBundle(files).digest
    assert "  4  def mean(records, smallest):" in stage.cli("code", "show", bundle, party="hospital").out

    assert stage.cli("approve", digest, "--yes", party="hospital").status == 0
    ran = stage.cli("run", digest, "--json")
    assert ran.status == 0, ran.err
    for room in (stage.lab, stage.hospital):
        (opened,) = room.outputs(digest)
        found = json.loads(opened.path.read_text())
        assert found["records"] > 100
        assert found["mean"] == round(found["mean"], 4)
    (kept,) = stage.lab.receipts(digest)
    statement = verify(Bundle.parse(kept.encode()), trust=stage.hospital.trust).statement
    assert (statement.contract, statement.failure) == (digest, None)
    assert stage.lab.contract(digest).proposal.program.parameters["bundle"] == bundle
    # neither what it printed nor a record is anywhere at the exchange
    secret = {"printed": b"never seen\nnever", "a record": RECORD_CANARY}
    assert leaks(secret, stage.home / "exchange") == []


def test_a_second_version_is_compared_with_the_first(stage: Stage, records: str, tmp_path: Path) -> None:
    place = study(tmp_path)
    first = submitted(stage, place, records).json
    (place / "analysis.py").write_text(CODE.replace("float", "int").replace('print("never seen")', "pass"))
    (place / "notes.txt").write_text("why\n")
    second = submitted(stage, place, records).json
    changes = stage.cli("code", "diff", first["digest"], second["code"], "--json", party="hospital").json["changes"]
    assert [one["file"] for one in changes] == ["analysis.py", "notes.txt"]
    assert '-    print("never seen")' in changes[0]["diff"]
    said = stage.cli("code", "diff", first["digest"], second["digest"], party="hospital").out
    assert "analysis.py: changed" in said
    assert "notes.txt: new" in said
    assert "nothing changes" in stage.cli("code", "diff", first["code"], first["digest"], party="hospital").out


def test_packages_of_a_lock_and_the_second_run_with_them(stage: Stage, records: str, tmp_path: Path) -> None:
    lock = wheel(
        stage.home / "enclave" / "wheels", "alpha", {"alpha/__init__.py": "def whole(n):\n    return round(n, 1)\n"}
    )
    (tmp_path / "requirements.lock").write_text(lock)
    place = study(tmp_path, **{"rounding.py": "from alpha import whole\n"})
    for _ in range(2):
        said = submitted(stage, place, records, "--lock", tmp_path / "requirements.lock")
        digest = said.json["digest"]
        assert "package alpha" in stage.cli("show", digest, party="hospital").out
        stage.hospital.approve(digest)
        stage.lab.run(digest)
        found = json.loads(stage.lab.outputs(digest)[0].path.read_text())
        assert found["mean"] == round(found["mean"], 1)
    kept = [p for p in (stage.home / "enclave" / "environments").iterdir() if p.is_dir()]
    assert len(kept) == 1


def test_packages_that_the_enclave_cannot_have_are_said_before_any_key(stage: Stage, records: str, tmp_path: Path) -> None:
    (tmp_path / "requirements.lock").write_text("nowhere==1.0 --hash=sha256:" + "0" * 64)
    digest = submitted(stage, study(tmp_path), records, "--lock", tmp_path / "requirements.lock").json["digest"]
    stage.hospital.approve(digest)
    said = stage.cli("run", digest)
    assert said.code == "enclave.no_wheel"
    assert stage.hospital.home.book.standing(digest).runs == {}  # the run is not used up


def test_of_code_that_fails_the_owner_alone_hears_one_code(stage: Stage, records: str, tmp_path: Path) -> None:
    place = study(tmp_path, **{"rounding.py": "def whole(n):\n    raise ValueError(f'SECRET {n}')\n"})
    digest = submitted(stage, place, records).json["digest"]
    stage.hospital.approve(digest)
    bundle = stage.lab.run(digest)
    receipt = verify(bundle, trust=stage.lab.trust)
    assert (receipt.statement.failure.step, receipt.statement.failure.code) == ("withheld", "withheld")
    assert stage.lab.note(receipt) is None
    told = stage.hospital.note(receipt)
    assert (told.failure.step, told.failure.code) == ("program", "program.crashed")
    assert stage.lab.outputs(digest) == []
    assert leaks({"said": b"SECRET 1"}, stage.home / "exchange", stage.fleet.logs) == []


def test_what_the_page_tells_people_to_type_is_understood() -> None:
    page = (ROOT / "docs" / "your-code.md").read_text()
    lines = [line for block in page.split("```")[1::2] for line in block.replace("\\\n", " ").splitlines()]
    found = [line.replace("…", "") for line in lines if line.startswith("strongroom ")]
    assert len(found) >= 6
    for line in found:
        words = shlex.split(line, comments=True)
        parser_of(words[1]).parse_args(words[2:])


def test_an_owner_counters_without_one_output(stage: Stage, records: str, tmp_path: Path) -> None:
    text = CODE.replace('"records": len(found)}}', '"records": len(found)}, "more": {"all": found}}')
    place = study(tmp_path, **{"analysis.py": text})
    first = submitted(
        stage, place, records, "--output", "more=values:lab", "--schema", f"more={place.with_name('form.json')}"
    ).json["digest"]
    said = stage.cli("counter", first, "--drop", "more", "--decimals", "0", "--json", party="hospital")
    assert said.status == 0, said.err
    stage.lab.approve(said.json["digest"])
    stage.lab.run(said.json["digest"])
    (opened,) = stage.lab.outputs(said.json["digest"])
    assert opened.name == "summary"
    assert json.loads(opened.path.read_text())["mean"] % 1 == 0


# --- an exchange that lies ------------------------------------------------------------------------------------------


def replaced(stage: Stage, digest: str, data: bytes) -> Path:
    """Put other bytes where the exchange keeps a bundle."""
    path = stage.home / "exchange" / "code" / digest.removeprefix("sha256:")
    assert path.exists()
    path.write_bytes(data)
    return path


def test_the_exchange_serves_another_bundle_after_the_approval(stage: Stage, records: str, tmp_path: Path) -> None:
    said = submitted(stage, study(tmp_path), records).json
    stage.hospital.approve(said["digest"])
    other = CodeBundle(
        {"analysis.py": "def mean(records, smallest):\n    return {'summary': records.to_pylist()}\n"}
    ).encode()
    path = stage.home / "exchange" / "code" / said["code"].removeprefix("sha256:")
    good = path.read_bytes()
    replaced(stage, said["code"], other)
    try:
        assert stage.cli("run", said["digest"]).code == "enclave.code_mismatch"
        assert stage.hospital.home.book.standing(said["digest"]).runs == {}
        assert stage.cli("code", "show", said["digest"], party="hospital").code == "enclave.code_mismatch"
    finally:
        replaced(stage, said["code"], good)
    assert stage.cli("run", said["digest"], "--json").status == 0


def test_nothing_is_approved_whose_code_cannot_be_read(stage: Stage, records: str, tmp_path: Path) -> None:
    said = submitted(stage, study(tmp_path), records).json
    (stage.home / "exchange" / "code" / said["code"].removeprefix("sha256:")).unlink()
    with pytest.raises(StrongroomError):
        stage.hospital.approve(said["digest"])
    assert "hospital" not in stage.hospital.view(said["digest"]).history.approved_by


def test_a_proposal_that_says_otherwise_than_its_code_is_not_approved(stage: Stage, records: str, tmp_path: Path) -> None:
    from dataclasses import replace

    said = submitted(stage, study(tmp_path), records).json
    good = stage.lab.view(said["digest"]).proposal
    for change, error in (
        ({"environment": wire.digest(b"x")}, EnvironmentMismatch),
        ({"outputs": {"other": "values"}}, BadProposal),
    ):
        program = replace(good.program, parameters={**good.program.parameters, **change})
        new = replace(good, program=program, nonce=wire.digest(repr(change).encode())[7:39])
        stage.lab._propose(new)
        with pytest.raises(error):
            stage.hospital.approve(new.digest)
    with pytest.raises(CodeMismatch):
        replaced(stage, said["code"], b"{}")
        stage.hospital.approve(said["digest"])


def test_a_bundle_that_is_none_is_refused_at_the_door(stage: Stage) -> None:
    from strongroom.app.http import Client

    client = Client(stage.fleet.config.exchange)
    good = CodeBundle({"a.py": ""}).encode()
    for address, data, code in (
        (wire.digest(good), b"x" + good, "code.bad_bundle"),
        (wire.digest(b"{}"), b"{}", "wire.bad_field"),
        (wire.digest(good), good * 400_000, "wire.too_large"),
        ("nonsense", good, "wire.bad_field"),
    ):
        with pytest.raises(StrongroomError) as caught:
            client.call("PUT", f"/v1/code/{address}", content=data)
        assert caught.value.code == code
    for _ in range(2):  # the same twice is kept once
        client.call("PUT", f"/v1/code/{wire.digest(good)}", content=good)
    assert client.get(f"/v1/code/{wire.digest(good)}") == good
    client.close()


def test_what_cannot_be_submitted_is_said_in_one_line(stage: Stage, records: str, tmp_path: Path) -> None:
    place = study(tmp_path)
    (place / "link.txt").symlink_to("/etc/passwd")
    assert submitted(stage, place, records).json["error"]["code"] == "code.bad_bundle"
    (place / "link.txt").unlink()
    (place / "rounding.py").write_text("def (")
    assert submitted(stage, place, records).json["error"]["code"] == "code.not_python"
    (place / "rounding.py").write_text("")
    (tmp_path / "bad.lock").write_text("numpy\n")
    assert submitted(stage, place, records, "--lock", tmp_path / "bad.lock").json["error"]["code"] == "code.bad_lock"
    assert stage.cli("submit", place).code == "app.usage"
    assert stage.cli("submit", place, "--input", "a", "--output", "b=values:lab").code == "app.usage"
    (place / "analysis.py").rename(place / "study.py")
    assert stage.cli("submit", place, "--input", f"a={records}", "--output", "b=values:lab").code == "code.bad_entry"
    assert submitted(stage, place, records, "--entry", "other").json["error"]["code"] == "code.bad_entry"
