"""The verbs of the inbox, typed: with real roles, and with code that lies on a real exchange."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("bandit", reason="bandit is not installed: pip install 'strongroom[review]'")

from inbox_case import FIRST, SECOND, Desk, bundle
from stage import Said, Stage
from strongroom import wire
from strongroom.app.cli.reviewed import visible
from strongroom.app.client.offer import Offering
from strongroom.code import CodeBundle
from strongroom.contract import Proposal
from strongroom.policy import ANY_PARTY, OutputRule, Policy
from strongroom.schema import ANY_SCHEMA


def hospital(stage: Stage, *words: object) -> Said:
    return stage.cli(*words, party="hospital")


def coded(stage: Stage, code: bytes, title: str) -> Proposal:
    """A proposal of the lab's that runs code, as the part that submits code would make it."""
    with stage.room("lab") as lab:
        lab.exchange.put_code(CodeBundle.parse(code))
        made = Desk.coded(_As(stage, lab), wire.digest(code), stage.draft(title=title))  # type: ignore[arg-type]
        return lab._propose(made)


class _As:
    """What a proposal of code is drawn from."""

    def __init__(self, stage: Stage, lab: Any) -> None:
        self.draft, self.lab = stage.draft, lab


@pytest.fixture
def made(stage: Stage) -> Proposal:
    return coded(stage, bundle(SECOND), f"Income {os.urandom(4).hex()}")


def test_what_waits_is_listed_and_shown(stage: Stage, made: Proposal) -> None:
    listed = hospital(stage, "inbox", "--json").json["proposals"]
    row = next(row for row in listed if row["digest"] == made.digest)
    assert (row["waiting"], row["state"], row["program"]) == (True, "proposed", "code")
    assert made.title in hospital(stage, "inbox").out
    assert hospital(stage, "inbox", "list", "--text", made.title, "--json").json["proposals"][0]["digest"] == made.digest
    for words in (("--state", "withdrawn"), ("--proposer", "hospital"), ("--asset", "nothing"), ("--since", "2999-01-01")):
        assert hospital(stage, "inbox", "list", "--text", made.title, *words, "--json").json["proposals"] == []
    shown = hospital(stage, "inbox", "show", made.digest[:30])
    assert shown.status == 0
    for word in ("import socket", "output.names", "proves nothing", wire.digest(bundle(SECOND)), "to approve"):
        assert word in shown.out
    said = hospital(stage, "inbox", "show", made.digest, "--json").json
    assert said["files"] == {"analysis.py": SECOND}
    assert said["report"]["digest"] == wire.digest(wire.encode({k: v for k, v in said["report"].items() if k != "digest"}))


def test_the_whole_of_a_review_by_its_verbs(stage: Stage, made: Proposal) -> None:
    code = wire.digest(bundle(SECOND))
    assert hospital(stage, "inbox", "approve", made.digest, "--bundle", code).code == "policy.not_permitted"  # not shown yet
    assert hospital(stage, "inbox", "comment", made.digest, "Why?", "--file", "analysis.py", "--line", 3).status == 0
    assert hospital(stage, "inbox", "ask", made.digest, "Write the cities out.").status == 0
    assert "> hospital, comment: Why?" in hospital(stage, "inbox", "show", made.digest).out
    refused = hospital(stage, "inbox", "refuse", made.digest, "Not like this.")
    assert refused.status == 0
    again = coded(stage, bundle(FIRST), made.title)
    assert hospital(stage, "inbox", "show", again.digest).status == 0
    for words in ((again.digest[:30], "--bundle", code), (again.digest, "--bundle", code[:30])):
        assert hospital(stage, "inbox", "approve", *words).status == 2
    assert hospital(stage, "inbox", "approve", again.digest, "--bundle", code).code == "policy.not_permitted"
    told = hospital(stage, "audit", made.digest, "--json").json["lines"]
    assert [(line["what"], line["who"], line["why"]) for line in told] == [
        ("proposal", "lab", made.title),
        ("approval", "lab", ""),
        ("comment", "hospital", "Why?"),
        ("ask", "hospital", "Write the cities out."),
        ("withdrawal", "hospital", "Not like this."),
    ]
    assert all(line["established"] for line in told)


def test_an_audit_is_written_as_lines(stage: Stage, made: Proposal, tmp_path: Path) -> None:
    out = tmp_path / "audit.jsonl"
    assert hospital(stage, "audit", made.digest, "--out", out).status == 0
    assert [json.loads(line)["what"] for line in out.read_text().splitlines()] == ["proposal", "approval"]


def test_what_others_wrote_cannot_steer_the_screen(stage: Stage) -> None:
    code = bundle("x = 1  # \x1b[2J \u202e\n")
    kept = stage.home / "exchange" / "code" / wire.digest(code).removeprefix("sha256:")
    kept.parent.mkdir(exist_ok=True)
    kept.write_bytes(code)  # an honest exchange takes no such bundle
    with stage.room("lab") as lab:
        title = f"Steer {os.urandom(4).hex()}"
        made = lab._propose(Desk.coded(_As(stage, lab), wire.digest(code), stage.draft(title=title)))  # type: ignore[arg-type]
    shown = hospital(stage, "inbox", "show", made.digest).out
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "⟨U+001B⟩[2J ⟨U+202E⟩" in shown


def test_code_is_run_on_the_mock_by_its_author_and_by_its_reviewer(stage: Stage, tmp_path: Path) -> None:
    table, code = tmp_path / f"people-{os.urandom(4).hex()}.csv", tmp_path / "n.py"
    table.write_text("age,id\n" + "31,1\n45,2\n" * 20)
    code.write_text("print('\\x1b[2J')\noutputs['n'] = {'rows': len(census), 'third': 1 / 3}\n")
    rules = {"values": OutputRule(ANY_PARTY, 1 << 20, 1, 3, ANY_SCHEMA)}
    number = {"maximum": 1000, "minimum": 0, "type": "number"}
    form = tmp_path / "form.json"
    form.write_text(json.dumps({"properties": {"rows": number, "third": number}, "type": "object"}))
    holds = ("--schema", f"n={form}")
    offered = stage.hospital.offer(Offering(table), terms=Policy(uses=frozenset({"analyse"}), outputs=rules))
    asset = f"census=hospital/{offered.name}"
    tried = stage.cli("try", code, "--input", asset, "--output", "n=values", *holds, "--out", tmp_path / "out", "--json")
    assert tried.status == 0, tried.err
    assert json.loads((tmp_path / "out/n.json").read_text())["rows"] == 100
    made = stage.cli("submit", code, "--input", asset, "--output", "n=values:lab", *holds, "--decimals", 3, "--json").json[
        "digest"
    ]
    shown = hospital(stage, "inbox", "show", made, "--run-mock")
    assert '{"rows":100,"third":0.333}' in shown.out.replace(" ", "")
    assert "\x1b" not in shown.out
    assert "⟨U+001B⟩[2J" in shown.out
    said = hospital(stage, "inbox", "show", made, "--run-mock", "--json").json["mock"]
    assert json.loads(base64.b64decode(said["outputs"]["n"])) == {"rows": 100, "third": 0.333}
    assert "mock" not in hospital(stage, "inbox", "show", made, "--json").json


@pytest.mark.parametrize(
    "words",
    [("show",), ("comment", "sha256:00"), ("ask",), ("approve",), ("refuse",), ("list", "--since", "yesterday"), ("sing",)],
)
def test_what_is_not_understood_is_said(stage: Stage, words: tuple[str, ...]) -> None:
    assert hospital(stage, "inbox", *words).status == 2


def test_the_page_is_served_to_who_opens_its_address(stage: Stage, made: Proposal) -> None:
    command = [
        sys.executable,
        "-m",
        "strongroom",
        "inbox",
        "--web",
        "--home",
        str(stage.folder / "room"),
        "--as",
        "hospital",
    ]
    process = subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        said = ""
        while not said.rstrip().endswith("}"):
            said += process.stdout.readline()
        url = json.loads(said)["url"]
        with httpx.Client(transport=httpx.HTTPTransport(retries=5), follow_redirects=True, trust_env=False) as client:
            assert made.title in client.get(url).text
            assert client.get(url).status_code == 403
    finally:
        process.terminate()
        process.communicate(timeout=30)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a\u200bb", r"a\u200bb"),
        ("a\u200bb", "a⟨U+200B⟩b"),
        ("\tx = 1", "    x = 1"),
        ("a\u3164b", "ab"),
        ("a\ufe0fb", "ab"),
        ("a\u2800b", "a b"),
        ("a\\nb", "a\nb"),
    ],
)
def test_two_lines_of_code_that_differ_in_what_nobody_sees_do_not_look_alike(one, other):
    assert visible(one) != visible(other)


@pytest.mark.parametrize("char", ["\u3164", "\ufe0f", "\u2800", "\u115f", "\U000e0100", "\u200b", "\x1b", "\t"])
def test_what_nobody_sees_is_spelled_out(char):
    assert visible(char) == f"⟨U+{ord(char):04X}⟩"


def test_a_line_of_code_is_shown_as_it_was_written():
    line = r"re.match('\d+\\n', 'é')"
    assert visible(line) == line
