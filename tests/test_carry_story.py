"""The whole story across an air gap: two network namespaces that share nothing but a folder, real processes on both sides.

On the low side a researcher has a mock, tries code on it, proposes, and carries out. On the high side an owner carries in,
reads, approves, runs, and carries out. The low side carries in, opens the output, and verifies the receipt.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import copy
from typing import Any

import pytest

from apart import Side, side, unavailable
from stage import RECORD_CANARY, leaks, spawn
from strongroom.receipt import Bundle
from strongroom.trust import Trust

pytestmark = pytest.mark.skipif(bool(unavailable()), reason=f"the air gap cannot be tested: {unavailable()}")

CODE = """\
def mean(records, smallest):
    found = [one for one in records["mean radius"].to_pylist() if one is not None]
    assert len(found) >= smallest
    return {"summary": {"mean": sum(found) / len(found), "records": len(found)}}
"""
FORM = {
    "properties": {
        "mean": {"maximum": 1000, "minimum": 0, "type": "number"},
        "records": {"maximum": 100_000, "minimum": 0, "type": "integer"},
    },
    "type": "object",
}


@dataclass
class Gap:
    """Both sides, and the drive that is carried between them."""

    low: Side
    high: Side
    drive: Path

    def carried(self, by: Side, name: str, *words: object) -> Path:
        """Carry out to the other side."""
        other = "high" if by is self.low else "low"
        path = self.drive / name
        said = by.says("carry", "out", "--to", other, "--out", path, *words, "--json")
        assert said.status == 0, said.err + said.out
        return path


def ok(side: Side, *words: object) -> Any:
    said = side.says(*words, "--json")
    assert said.status == 0, said.err + said.out
    return said.json


@pytest.fixture(scope="module")
def gap(tmp_path_factory: pytest.TempPathFactory, held: Path) -> Iterator[Gap]:
    folder = tmp_path_factory.mktemp("gap")
    low, high, drive = folder / "low", folder / "high", folder / "drive"
    questions = "approval,code,manifest,note,proposal,trial,withdrawal"
    drive.mkdir()
    with side(low, high, "lab") as left, side(high, low, "hospital") as right:
        copy(held / "records.csv", high / "records.csv")
        # before anything is carried, two people meet: cards, whose fingerprints they compare
        for here, there in ((left, right), (right, left)):
            card = drive / f"{there.party}.json"
            copy(there.home / "parties" / there.party / "party.json", card)
            ok(here, "party", "trust", card)
            ok(here, "party", "trust", "--reference", here.home / "reference.json")
        ok(
            left,
            "carry",
            "allow",
            "high",
            "--here",
            "low",
            "--party",
            "hospital",
            "--lets-in",
            "all",
            "--lets-out",
            questions,
        )
        words = ("--here", "high", "--party", "lab", "--lets-in", questions, "--lets-out", "all")
        ok(right, "carry", "allow", "low", *words)
        yield Gap(left, right, drive)


def test_the_sides_share_nothing_but_the_folder(gap: Gap) -> None:
    config = json.loads((gap.high.home / "config.json").read_bytes())
    links = {here.do("readlink", "/proc/self/ns/net").stdout for here in (gap.low, gap.high)} | {
        os.readlink("/proc/self/ns/net") + "\n"
    }
    assert len(links) == 3
    asked = gap.low.says("status", "--exchange-url", config["exchange"])
    assert asked.code == "app.unreachable"
    assert gap.high.says("status", "--exchange-url", config["exchange"]).status == 0
    assert gap.low.do("ls", gap.high.home).stdout == ""
    assert gap.high.do("ls", gap.low.home).stdout == ""
    assert gap.low.do("ls", gap.drive).stdout == gap.high.do("ls", gap.drive).stdout != ""


def test_mock_propose_review_run_deliver_verify_across_the_gap(gap: Gap, tmp_path: Path) -> None:
    low, high = gap.low, gap.high
    # the high side: a mock, and what the low side needs to propose
    terms = ("--use", "analyse", "--allow", "values", "--decimals", 4)
    ok(high, "offer", high.home / "records.csv", "--mock", "auto", "--name", "records", *terms)
    first = gap.carried(high, "1-down.carry", "--offer", "hospital/records", "--reference", high.home / "reference.json")

    # the low side takes it in, and accepts the enclave's reference values by hand
    arrived = ok(low, "carry", "in", first)
    assert arrived["refused"] == []
    (reference,) = (path for path in arrived["files"] if "reference-" in path)
    ok(low, "party", "trust", "--reference", reference)
    study = low.home / "analysis.py"
    study.write_text(CODE)
    form = low.home / "form.json"
    form.write_text(json.dumps(FORM))
    about = ("--entry", "analysis:mean", "--argument", "smallest=10", "--decimals", 4, "--schema", f"summary={form}")
    given, kept = (study, "--input", "records=hospital/records:arrow", *about), low.home / "tried.json"
    tried = ok(low, "try", *given, "--output", "summary=values", "--keep", kept)
    assert tried["failure"] is None
    submitted = ok(low, "submit", *given, "--output", "summary=values:lab", "--tried", kept)
    up = gap.carried(low, "2-up.carry")

    # the border: whoever guards it reads what it is, without a key and without a party
    guard = tmp_path / "guard"
    shown = spawn("carry", "show", up, "--home", guard, "--json", cwd=tmp_path)
    assert (shown.json["signature"], shown.json["opened"], shown.json["whole"]) == ("not established", False, True)
    assert [item["kind"] for item in shown.json["items"]] == ["code", "trial", "proposal"]
    assert (shown.json["from"], shown.json["to"]) == (
        {"party": "lab", "site": "low"},
        {"party": "hospital", "site": "high"},
    )
    pinned = spawn("carry", "show", up, "--home", guard, "--trust", high.home / "parties/hospital/trust.json", cwd=tmp_path)
    assert "whose card is pinned" in pinned.out
    assert not guard.exists()

    # the high side: what came is reviewed, approved and run there, and by nobody before
    opened = ok(high, "carry", "show", up)
    assert (opened["signature"], opened["opened"]) == ("verified", True)
    assert ok(high, "carry", "in", up)["refused"] == []
    digest = submitted["digest"]
    assert high.says("run", digest).code == "contract.signature_missing"
    assert ok(high, "code", "show", digest)["files"] == {"analysis.py": CODE}
    claim = ok(high, "inbox", "show", digest)["claim"]  # what the code did on the mocks came along
    assert (claim["by"], claim["doubts"]) == ("lab", [])
    ok(high, "approve", digest, "--yes")
    ok(high, "run", digest)
    down = gap.carried(high, "3-down.carry")

    # the low side: the output is opened, and the receipt verified offline, under the proof of the high side's own log
    arrived = ok(low, "carry", "in", down)
    assert arrived["refused"] == []
    assert [head["stands"] for head in arrived["ledger"]] == ["the first head seen"]
    (opened,) = ok(low, "outputs", digest)["outputs"]
    found = json.loads(Path(opened["path"]).read_text())
    assert found["records"] > 100
    (receipt,) = (path for path in arrived["files"] if "receipt-" in path)
    verified = low.says("verify", receipt)
    assert verified.status == 0, verified.out
    assert "V13" in verified.out
    mine = Trust.from_json(json.loads((low.home / "parties/lab/trust.json").read_bytes()))
    logs = [
        log.name
        for log in mine.log_verifiers()
        if log.signatures_of(Bundle.parse(Path(receipt).read_bytes()).proof.checkpoint)
    ]
    assert len(logs) == 1

    # all that was carried can be thrown away: nothing of it is in the clear, and none of it comes in twice
    assert leaks({"a record": RECORD_CANARY, "the code": CODE.encode()[:40], "a result": b'"mean"'}, gap.drive) == []
    for here, path, code in ((low, first, "carry.replayed"), (low, down, "carry.replayed"), (high, up, "carry.replayed")):
        assert here.says("carry", "in", path).code == code
    assert gap.high.says("carry", "in", down).code == "carry.another_site"
    again = low.says("carry", "out", "--to", "high", "--out", gap.drive / "4-up.carry")
    assert again.code == "carry.nothing"
    assert [line["number"] for line in ok(low, "carry", "log")["carried"]] == [1, 1, 2]
