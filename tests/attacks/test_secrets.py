"""After a whole story, nothing secret stands anywhere but with its owner: no record, no weight, no key, no figure."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest

from stage import MODEL_CANARY, RECORD_CANARY, Stage, forms, keys, leaks
from strongroom import wire
from strongroom.app.client.draft import Wanted


@pytest.fixture(scope="module")
def told(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A story with a refusal, a failure, a success and a withdrawal in it; what every verb said of it lies in a folder."""
    said = tmp_path_factory.mktemp("said")
    fails = stage.agree(title="fails", outputs={"predictions": Wanted(("lab",))}, max_bytes=100)
    refused = stage.agree(title="refused")
    stage.hospital.withdraw(refused)
    words: list[tuple[str, ...]] = [("run", fails), ("run", refused), ("show", stage.done), ("log",), ("log", "--ledger")]
    words += [("status",), ("receipt", stage.done), ("inspect", str(stage.home / "exchange")), ("verify", "nowhere")]
    words += [("inspect", str(stage.bundle(stage.done))), ("measure",), ("party", "show"), ("party", "list")]
    for party in ("lab", "hospital"):
        for number, line in enumerate(words):
            for json_too in ((), ("--json",)):
                found = stage.cli(*line, *json_too, party=party)
                (said / f"{party}-{number}-{len(json_too)}").write_text(found.out + found.err)
        for output in (stage.lab if party == "lab" else stage.hospital).outputs(stage.done):
            assert output.path.is_file()
    return said


def where(stage: Stage, *, also: tuple[Path, ...] = ()) -> tuple[Path, ...]:
    """Every place that somebody else than an owner can read."""
    exchange, logs = stage.home / "exchange", stage.fleet.logs
    public = [stage.home / "config.json", stage.reference]
    for room in (stage.lab, stage.hospital):
        public += [room.home.folder / "party.json", room.home.folder / "trust.json", room.home.folder / "receipts"]
        public += [room.home.folder / "seen.json"]
    sealed = [*stage.folder.glob("*.sealed"), *stage.folder.glob("*.manifest.json")]
    assert all(p.exists() for p in (exchange, logs, *public, *sealed))
    return (exchange, logs, *public, *sealed, *also)


def test_no_record_and_no_weight_stands_anywhere(stage: Stage, told):
    secret = {"a weight": MODEL_CANARY, "a record": RECORD_CANARY}
    secret["a row"] = (stage.held / "records.csv").read_bytes().splitlines()[3][:60]
    assert leaks(secret, *where(stage, also=(told,))) == []


def test_no_key_stands_anywhere(stage: Stage, told):
    found = keys(stage)
    assert len(found) >= 12
    log = {"log": found.pop("log")}  # the operator's own: it stands in its own file, and there alone
    assert leaks(found, *where(stage, also=(told,))) == []
    places = [p for place in where(stage) for p in (place.rglob("*") if place.is_dir() else [place])]
    assert leaks(log, *(p for p in places if p.is_file() and p.name != "log.key.json"), told) == []


def test_the_log_key_is_all_that_an_operator_has(stage: Stage, told):
    found = leaks({"log": keys(stage)["log"]}, stage.home / "exchange")
    assert {line.rpartition(" in ")[2] for line in found} == {"log.key.json"}


def figures(stage: Stage) -> dict[str, bytes]:
    """The plaintext figures of the report, and the start of the picture."""
    opened = {o.name: o.path.read_bytes() for o in stage.hospital.outputs(stage.done)}
    report = json.loads(opened["report"])
    found = {name: str(value).encode() for name, value in report["metrics"].items() if len(str(value)) >= 6}
    assert len(found) >= 3
    return {**found, "the report": opened["report"][:40], "the picture": opened["calibration"][40:80]}


def test_no_figure_stands_outside_its_recipients_own_folders(stage: Stage, told):
    assert leaks(figures(stage), *where(stage)) == []


def test_a_picture_for_one_is_not_with_the_other(stage: Stage, told):
    picture = {"the picture": figures(stage)["the picture"]}
    assert leaks(picture, stage.lab.home.folder, stage.home / "exchange", stage.fleet.logs) == []
    assert leaks(picture, stage.hospital.home.folder / "outputs") != []


def test_what_lies_in_base64_inside_documents_was_looked_at_too(stage: Stage, told):
    """Payloads are base64 in base64: undo it, layer by layer, and look again."""
    secret = {**figures(stage), "a weight": MODEL_CANARY, "a record": RECORD_CANARY}
    layers = [p.read_bytes() for p in stage.lab.home.folder.glob("receipts/*")]
    layers += [(stage.home / "exchange" / n).read_bytes() for n in ("exchange.db", "exchange.db-wal")]
    depth = 0
    while layers and depth < 4:
        depth += 1
        for data in layers:
            for name, value in secret.items():
                assert not any(form in data for form in forms(value).values()), (name, depth)
        runs = [m.group(0) for data in layers for m in re.finditer(rb"[A-Za-z0-9+/]{24,}", data)]
        layers = [base64.b64decode(run[: len(run) // 4 * 4]) for run in runs]
    assert depth >= 3


def test_looking_finds_what_is_there(tmp_path):
    """The search itself: each form of a secret is found, so that finding none means something."""
    secret = bytes(range(100, 140))
    for name, value in forms(secret).items():
        (tmp_path / name).write_bytes(b"before" + value + b"after")
    assert len(leaks({"s": secret}, tmp_path)) >= len(forms(secret))
    with pytest.raises(AssertionError, match="nothing was looked at"):
        leaks({"s": secret}, tmp_path / "nowhere")


def test_what_is_kept_for_later_is_what_the_contract_names(stage: Stage, told):
    """A receipt commits to outputs with a salt: the same figures in another run are another commitment."""
    receipt = stage.lab.receipts(stage.done)[0]
    manifests = {d.manifest.content.value for d in stage.lab.exchange.deliveries(stage.done)}
    plain = {wire.digest(o.path.read_bytes()) for o in stage.hospital.outputs(stage.done)}
    assert not {m.hex() for m in manifests} & {p.removeprefix("sha256:") for p in plain}
    assert not any(p.removeprefix("sha256:").encode() in receipt.encode() for p in plain)
