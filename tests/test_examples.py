"""The examples and the demo: short, and each does what it says."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from stage import ROOT, Stage, call, spawn

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SIMULATED = "platform: simulated (no hardware protection)"


def python(*words: object, cwd: Path, seconds: int = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=seconds,
        env={**os.environ, "PYTHONWARNINGS": "error::ResourceWarning"},
    )


def test_there_are_examples():
    assert {"bias_audit.py", "private_statistics.py", "story.py", "tamper.py", "what_we_eat.py"} <= {
        p.name for p in EXAMPLES
    }


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_an_example_is_short_and_says_how_it_is_run(path):
    text = path.read_text()
    assert len(text.splitlines()) < 80
    assert text.startswith('"""')
    assert f"python examples/{path.name}" in text.split('"""')[1]


def test_the_story_in_python(stranger):
    files = stranger.shell("strongroom demo --only-files --folder example-files")
    assert files.returncode == 0, files.stderr
    done = python(ROOT / "examples/story.py", "room", "example-files", cwd=stranger.cwd)
    assert done.returncode == 0, done.stderr
    assert f"{SIMULATED}; 13 checks passed" in done.stdout
    assert re.search(r"report \{.*'accuracy': 0\.9\d*", done.stdout)


def alone(name: str, cwd: Path) -> str:
    """What an example prints that starts everything that it needs."""
    for extra in ("pandas", "opendp", "dp_accounting"):
        pytest.importorskip(extra, reason=f"{extra} is not installed: pip install 'strongroom[data,review]'")
    before = {p.name for p in (ROOT / "examples" / "data").iterdir()}
    done = python(ROOT / "examples" / name, cwd=cwd, seconds=480)  # a minute, where nothing else is going on
    assert done.returncode == 0, done.stderr
    assert f"{SIMULATED}; 13 checks passed" in done.stdout
    assert {p.name for p in (ROOT / "examples" / "data").iterdir()} == before
    assert not list(cwd.iterdir())
    return done.stdout


def test_two_owners_tables_are_joined_in_the_room_alone(tmp_path):
    told = alone("bias_audit.py", tmp_path)
    report, audit = told.split("on the mocks it runs\n")
    assert re.search(r"in all +75 people\n +logs alone +17 people\n +people alone +11 people", report)
    rows = {line[:14].strip(): [float(n) for n in line[14:].split()] for line in audit.splitlines()[2:]}
    logs, people = (
        csv.DictReader((ROOT / "examples/data" / name).read_text().splitlines()) for name in ("ratings.csv", "people.csv")
    )
    born, rows_of = {row["person"]: int(row["born"]) for row in people}, list(logs)
    often = Counter(row["person"] for row in rows_of)
    old = [row for row in rows_of if often[row["person"]] >= 7 and born.get(row["person"], 9999) <= 1988]
    welcome = round(sum(row["rating"] == "2" for row in old) / len(old), 2)
    rejected = round(sum(row["rating"] == "0" for row in old) / len(old), 2)
    assert rows["1988 or before"] == [len({row["person"] for row in old}), rejected, welcome]
    assert sum(row[0] for row in rows.values()) == 75


def test_statistics_of_records_carry_their_accuracy_and_are_paid_from_the_budget(tmp_path):
    told = alone("private_statistics.py", tmp_path)
    answers = {line[:14].strip(): json.loads(line[14:]) for line in told.splitlines() if '"epsilon"' in line}
    assert set(answers) == {"by_diagnosis", "median_radius", "radius", "records", "sizes"}
    records = answers["records"]
    assert abs(records["value"] - 569) < 20 * records["within"]  # beyond: e^-50
    assert all("within" in str(answer) for answer in answers.values())
    assert "epsilon 2.000000 used, 1.000000 left" in told
    assert "the same once more: broker.refused" in told
    assert "budget.exceeded" in told


def test_six_people_learn_what_all_of_them_eat(tmp_path):
    exact, noisy = alone("what_we_eat.py", tmp_path).split("With noise\n")
    assert "(of few people)" in exact
    assert "within" not in exact
    assert re.search(r"Mexican +24 ", exact)
    assert "epsilon 3.000000 used, 1.000000 left" in noisy
    assert noisy.count("within") == 9


def test_tampering_with_a_receipt_is_found_by_its_number(stage: Stage, tmp_path):
    receipt, tampered = stage.bundle(stage.done), tmp_path / "tampered.json"
    done = python(ROOT / "examples/tamper.py", receipt, tampered, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = stage.cli("verify", tampered)
    assert said.status == 1
    assert said.code == "receipt.not_verified"
    assert re.search(r"✗ V3 .*\(failed\)", said.out)
    assert "NOT VERIFIED" in said.out
    assert stage.cli("verify", receipt).status == 0


# --- the demo ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory):
    """`strongroom demo`, whole, in an empty folder."""
    cwd = tmp_path_factory.mktemp("demo")
    return cwd, spawn("demo", cwd=cwd)


def test_the_demo_tells_the_whole_story(demo):
    _, said = demo
    assert said.status == 0, said.err
    assert SIMULATED in said.out
    for number in range(1, 10):
        assert re.search(rf"^{number}  ", said.out, re.MULTILINE)
    assert "approve: policy.not_permitted" in said.out
    assert "groups under 10 must be suppressed" in said.out
    assert "13 of 13 checks passed" in said.out
    assert said.out.count("✓ V") == 13
    assert "suppressed" in said.out
    assert "Traceback" not in said.err


def test_the_demo_shows_what_each_side_gets(demo):
    cwd, said = demo
    assert re.search(r"lab +report; cannot open: calibration", said.out)
    (picture,) = cwd.glob("demo/parties/hospital/outputs/*/calibration.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert not list(cwd.glob("demo/parties/lab/outputs/*/calibration.png"))
    report = json.loads(next(cwd.glob("demo/parties/lab/outputs/*/report.json")).read_bytes())
    assert report["metrics"]["accuracy"] > 0.9


def test_the_three_commands_to_try_work(demo):
    cwd, said = demo
    lines = [line.strip() for line in said.out.split("\nTry\n")[1].splitlines() if line.strip()]
    assert len(lines) == 3
    statuses = []
    for line in (part.strip() for whole in lines for part in whole.split(";")):
        program, *words = shlex.split(line)
        if "python" in Path(program).name:
            statuses.append(python(ROOT / words[0], *words[1:], cwd=cwd).returncode)
        else:
            assert Path(program).name == "strongroom"
            statuses.append(spawn(*words, cwd=cwd).status)
    assert statuses == [0, 0, 1, 0]


def test_the_demo_replaces_its_own_folder_and_no_other(demo, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README").write_text("mine")
    said = call("demo", "--folder", tmp_path / "mine")
    assert (said.status, said.code) == (1, "app.conflict")
    assert (tmp_path / "mine" / "README").read_text() == "mine"
    for _ in range(2):
        said = call("demo", "--only-files", "--folder", tmp_path / "files", "--json")
        assert said.json == {"folder": str(tmp_path / "files")}
    assert {p.name for p in (tmp_path / "files").iterdir()} == {
        "README",
        "draft.json",
        "features.json",
        "mock.csv",
        "model.onnx",
        "records.csv",
    }


# --- the demo of language models --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llm_demo(tmp_path_factory: pytest.TempPathFactory):
    """`strongroom demo llm-eval`, whole, with a model that a second made."""
    for extra in ("inspect_ai", "xllamacpp", "gguf"):
        pytest.importorskip(extra, reason=f"{extra} is not installed: strongroom[evals] and the gguf package")
    import llama_files

    cwd = tmp_path_factory.mktemp("llm")
    return cwd, spawn("demo", "llm-eval", "--model", llama_files.write(cwd / "tiny.gguf"), cwd=cwd)


@pytest.mark.slow
def test_the_demo_of_language_models_tells_the_whole_story(llm_demo):
    _, said = llm_demo
    assert said.status == 0, said.err
    assert SIMULATED in said.out
    for number in range(1, 10):
        assert re.search(rf"^{number}  ", said.out, re.MULTILINE)
    assert "approve: policy.not_permitted" in said.out
    assert re.search(r"program +\d+ of 200 questions", said.out)
    assert re.search(r"institute +heard while it ran: ", said.out)
    assert "13 of 13 checks passed" in said.out
    assert "Traceback" not in said.err


@pytest.mark.slow
def test_both_get_the_figures_and_nobody_the_answers(llm_demo):
    cwd, _ = llm_demo
    reports = [next(cwd.glob(f"demo/parties/{name}/outputs/*/report.json")).read_bytes() for name in ("lab", "institute")]
    assert reports[0] == reports[1]
    report = json.loads(reports[0])
    assert report["records"] == 200
    assert {group["group"]: group["records"] for group in report["tables"][0]["groups"]} == {
        "name": 60,
        "phrase": 100,
        "sum": 40,
    }
    assert not list(cwd.glob("demo/parties/*/outputs/*/records.csv"))


def test_a_flag_of_the_other_story_is_refused_and_a_model_that_is_not_there_too(tmp_path):
    said = call("demo", "--model", tmp_path / "no.gguf", "--folder", tmp_path / "x")
    assert (said.status, said.code) == (2, "app.usage")
    said = call("demo", "llm-eval", "--model", tmp_path / "no.gguf", "--folder", tmp_path / "x")
    assert (said.status, said.code) == (1, "app.not_found")
    assert not (tmp_path / "x").exists()


def test_the_questions_of_the_demo_are_real_ones_with_answers():
    asked = [json.loads(line) for line in (ROOT / "src/strongroom/app/cli/demo_llm.jsonl").read_text().splitlines()]
    assert len(asked) == 200
    for question in asked:
        assert question["target"]
        assert len(question["input"].split()) >= 12
    assert len({question["input"] for question in asked}) == 200
