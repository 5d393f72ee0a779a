"""README: what it tells people to type works, in the order it says, for a stranger in an empty folder."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from stage import ROOT
from test_cli import parses

README = (ROOT / "README.md").read_text(encoding="utf-8")
STORY = re.compile(r"<!-- story -->\n```\n(.*?)```", re.DOTALL)
LINKS = re.compile(r"\]\((?!https?:)([^)#]+)\)")


def story() -> list[str]:
    lines = [line for block in STORY.findall(README) for line in block.strip().splitlines()]
    assert len(lines) >= 15
    return lines


@pytest.fixture(scope="module")
def told(stranger) -> dict[str, str]:
    """Every line of the story, run as it stands; CONTRACT is what `counter` printed. Line -> what it said."""
    said, contract = {}, "CONTRACT"
    for line in story():
        done = stranger.shell(line.replace("CONTRACT", contract))
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        assert not re.search("Traceback|internal", done.stderr), (line, done.stderr)
        said[line] = done.stdout
        if " counter " in line:
            contract = re.search(r"countered +(sha256:[0-9a-f]{64})", done.stdout).group(1)
    assert contract != "CONTRACT"
    return said


def line_of(told: dict[str, str], verb: str, who: str = "") -> str:
    (found,) = (out for line, out in told.items() if line.startswith(f"strongroom {verb}") and line.endswith(who))
    return found


def test_up_says_where_everything_is(stranger):
    for role in ("enclave", "exchange", "broker of hospital", "broker of lab"):
        assert re.search(rf"^  {role} +http://127\.0\.0\.1:\d+ ", stranger.screen, re.MULTILINE)
    assert "platform: simulated (no hardware protection)" in stranger.screen
    assert "room/reference.json" in stranger.screen


def test_the_whole_story_by_hand(told):
    run = line_of(told, "run")
    assert "verified" in run
    assert "platform: simulated (no hardware protection)" in run
    outputs = line_of(told, "outputs")
    assert re.search(r"^  accuracy +0\.9\d*$", outputs, re.MULTILINE)
    assert "suppressed" in outputs
    assert "platform: simulated (no hardware protection)" in outputs
    assert "13 of 13 checks passed" in line_of(told, "verify")
    assert "release; records.csv" in line_of(told, "log")
    assert "spent" in line_of(told, "status")
    assert "1.00" in line_of(told, "inspect")


def test_the_counter_says_what_changes_and_the_other_side_reads_the_same(told):
    counter, diff = line_of(told, "counter"), line_of(told, "diff")
    changes = [line for line in counter.splitlines() if line.startswith(("  - ", "  + ", "  ~ "))]
    assert len(changes) >= 3
    assert all(change in diff for change in changes)
    assert "groups under 10 are suppressed" in diff
    assert "one row per record" in diff


def test_each_gets_what_was_agreed_and_no_more(told, stranger):
    lab, hospital = ({p.name for p in (stranger.cwd / "room/parties" / n).rglob("outputs/*/*")} for n in ("lab", "hospital"))
    assert hospital == {"calibration.png", "report.json"}
    assert lab <= {"report.json"}


def test_the_receipt_that_was_written_is_a_document_of_ours(told, stranger):
    assert json.loads((stranger.cwd / "receipt.json").read_bytes())["format"] == "strongroom.receipt-bundle.v1"


@pytest.mark.parametrize("line", [m.group(1) for m in re.finditer(r"`(strongroom [^`]+)`", README)])
def test_what_stands_in_passing_works_too(line):
    parses(line.replace("CONTRACT", "sha256:" + "0" * 64))


@pytest.mark.parametrize("line", sorted(set(LINKS.findall(README))))
def test_links_lead_somewhere(line):
    assert (ROOT / line).exists()


def test_make_knows_the_two_commands():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make ([a-z]+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_nothing_here_is_of_one_machine_alone():
    assert not re.search(r"/home/|/Users/|/tmp/", README)
    assert Path(ROOT / "LICENSE").is_file()
