"""The command line as a whole: help with examples, one JSON object, exit statuses, and one clear line for what is wrong."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest
import uvicorn

from stage import ROOT, Said, Stage, call, patched, spawn, terms, until
from strongroom import wire
from strongroom.app import cli
from strongroom.app.cli import VERBS, parser_of, runs, verbed
from strongroom.app.cli.assets import size
from strongroom.app.cli.contracts import _payment
from strongroom.app.cli.contracts import value as _value
from strongroom.app.cli.parties import make
from strongroom.app.client.draft import Change
from strongroom.app.client.home import Home
from strongroom.app.enclave.server import Going, Runner, enclave
from strongroom.app.http import Client, listen
from strongroom.contract import Payment
from strongroom.errors import Usage, leaves
from strongroom.wire import JSON

WORD = re.compile(r"strongroom ([a-z]+)((?: [^\s`;,|)\"]+)*)")


def parses(line: str) -> None:
    """A command line, as somebody would type it, is understood."""
    name, *words = shlex.split(line.replace("\\\n", " "), comments=True)
    assert name == "strongroom", line
    verb, *rest = verbed(words)
    assert verb in VERBS, line
    parser_of(verb).parse_args(rest)


def examples(verb: str) -> list[str]:
    """The lines of a verb's example, those that go on in the next put together."""
    epilog = parser_of(verb).epilog
    assert epilog is not None
    lines = epilog.removeprefix("example:\n").replace("\\\n", " ").splitlines()
    return [part.strip() for line in lines for part in line.split("&&")]


# --- help -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_shows_an_example_that_works(verb):
    said = call(verb, "--help")
    assert (said.status, said.err) == (0, "")
    assert "example:" in said.out
    assert "--json" in said.out
    lines = examples(verb)
    assert any(line.startswith(f"strongroom {verb}") for line in lines)
    for line in lines:
        parses(line)


def test_the_overview_names_every_verb():
    for words in ((), ("--help",), ("-h",), ("help",)):
        said = call(*words)
        assert said.status == (0 if words else 2)
        for verb, (_, line) in VERBS.items():
            assert re.search(rf"^  {verb} +{re.escape(line)}$", said.out, re.MULTILINE)


def test_the_version_is_said():
    import strongroom

    assert call("--version").out == f"strongroom {strongroom.__version__}\n"


def commands(text: str) -> list[str]:
    return [m.group(0).rstrip(".") for m in WORD.finditer(text)]


@pytest.mark.parametrize("code", sorted(leaves()))
def test_what_a_hint_tells_people_to_type_exists(code):
    hint = leaves()[code].hint
    assert hint
    assert hint.isprintable()
    for found in commands(hint):
        verb, *rest = verbed(found.split()[1:])
        assert verb in VERBS, hint
        flags = {o for a in _actions(parser_of(verb)) for o in a.option_strings}
        assert {word for word in rest if word.startswith("--")} <= flags, hint


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    found = list(parser._actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                found += _actions(sub)
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "src/strongroom/app").rglob("*.py")), ids=lambda p: p.stem)
def test_flags_that_the_screens_name_exist(path):
    known = {o for verb in VERBS for a in _actions(parser_of(verb)) for o in a.option_strings}
    for found in commands(path.read_text(encoding="utf-8")):
        verb, *rest = verbed(found.split()[1:])
        if verb in VERBS:
            assert {w.split("=")[0] for w in rest if w.startswith("--")} <= known, found


# --- usage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("launch",), ("Show",), ("--json",), ("sea",)])
def test_a_verb_that_is_none_is_wrong_usage(words):
    said = call(*words)
    assert said.status == 2
    if "--json" not in words:
        assert said.code == "app.usage"


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_a_flag_that_is_none_is_wrong_usage_in_both_tongues(verb):
    said = call(verb, "--no-such-flag")
    assert (said.status, said.out, said.code) == (2, "", "app.usage")
    assert f"strongroom {verb} --help" in said.err
    machine = call(verb, "--no-such-flag", "--json")
    assert (machine.status, machine.err) == (2, "")
    assert machine.json["error"]["code"] == "app.usage"


@pytest.mark.parametrize(
    "words",
    [
        ("seal", "f", "--us", "evaluate"),
        ("approve", "--ye"),
        ("verify", "f", "--js"),
        ("party", "trust", "f", "--finger", "x"),
        ("seal", "f", "--threads", "3"),
        ("seal", "f", "--no-upload", "--only-upload"),
        ("seal", "f", "--min-group", "ten"),
        ("seal", "f", "--max-bytes", "-1"),
        ("seal", "f", "--allow", "everything"),
        ("propose", "--sandbox", "none"),
        ("propose", "--wall", "moat"),
        ("propose", "--days", "1.5"),
        ("open", "f"),
        ("open", "f", "--out", "g", "--offset", "x"),
        ("party",),
        ("party", "make"),
        ("withdraw",),
        ("exchange", "--port", "http"),
    ],
)
def test_wrong_usage_is_said_in_one_line_with_status_2(words):
    said = call(*words)
    assert (said.status, said.out, said.code) == (2, "", "app.usage")


def test_sizes_are_what_people_write():
    assert [size(t) for t in ("0", "10", "64K", "2M", "1G")] == [0, 10, 65536, 2 << 20, 1 << 30]
    for bad in ("", "K", "1k", "1.5M", "-1", "1T", "0x10", "\u0663"):
        with pytest.raises(argparse.ArgumentTypeError):
            size(bad)


def test_payments_are_what_people_write():
    assert _payment("lab:hospital:50.00:EUR") == Payment("lab", "hospital", 5000, "EUR")
    assert _payment("lab:hospital:7:EUR").amount == 700
    assert _payment("lab:hospital:0.5:EUR").amount == 50
    for bad in (
        "",
        "lab",
        "lab:hospital:50",
        "a:b:c:d",
        "a:b:-1:EUR",
        "a:b:1.234:EUR",
        "a:b:1.x:EUR",
        "a:b:1,5:EUR",
        "a:b::EUR",
    ):
        with pytest.raises(Usage):
            _payment(bad)


def test_parameters_are_json_or_a_plain_word():
    assert [_value(t) for t in ("benign", "1", "-1", "true", "null", '"1"', '["a"]', "9.5")] == [
        "benign", 1, -1, True, None, "1", ["a"], "9.5",
    ]  # fmt: skip
    with pytest.raises(wire.NotJson):
        _value("[1,")


# --- the last line of defence -----------------------------------------------------------------------------------------


@pytest.fixture
def breaking(monkeypatch: pytest.MonkeyPatch):
    def breaks(error: BaseException) -> None:
        def fail(*_: object) -> int:
            raise error

        monkeypatch.setattr(cli, "_run", fail)

    monkeypatch.delenv("STRONGROOM_DEBUG", raising=False)
    return breaks


def test_what_nobody_expected_is_one_line_without_its_message(breaking):
    breaking(ValueError("SECRET"))
    said = call("status")
    assert (said.status, said.code) == (1, "app.internal")
    assert "ValueError in status" in said.err
    assert "SECRET" not in said.out + said.err
    assert call("status", "--json").json["error"]["code"] == "app.internal"


def test_with_debug_the_traceback_is_there(breaking, monkeypatch):
    monkeypatch.setenv("STRONGROOM_DEBUG", "1")
    breaking(ValueError("x"))
    with pytest.raises(ValueError, match="x"):
        call("status")


def test_what_the_system_says_is_one_line_with_the_file(breaking):
    breaking(PermissionError(13, "Permission denied", "/nowhere/secret"))
    said = call("status")
    assert (said.status, said.code) == (1, "app.not_found")
    assert "/nowhere/secret: Permission denied" in said.err
    breaking(OSError(28, "No space left on device"))
    assert "No space left on device" in call("status").err


def test_interrupted_is_130_without_a_word(breaking):
    breaking(KeyboardInterrupt())
    assert call("status") == Said(130, "", "")


def test_a_reader_that_went_away_gets_no_traceback(tmp_path):
    code = "import sys; sys.argv[1:] = ['--help']; from strongroom.app.cli import main; raise SystemExit(main())"
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as sink:
        done = subprocess.run([sys.executable, "-c", code], stdout=sink, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_verb_closes_what_it_opened(stage):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        stage.cli("status")
        stage.cli("log")
    assert len(os.listdir("/proc/self/fd")) <= before + 2


# --- one JSON object --------------------------------------------------------------------------------------------------


def test_every_verb_has_one_json_object(stage: Stage, tmp_path):
    """The whole story for machines; ``json`` asserts that it is one object."""
    done, home = stage.done, ["--home", stage.home]
    receipt = stage.bundle(done)
    (tmp_path / "a.csv").write_bytes(b"a,b\n1,2\n")
    says = {
        "seal": ["seal", tmp_path / "a.csv", "--use", "evaluate", "--allow", "report"],
        "open": ["open", tmp_path / "a.csv.sealed", "--out", tmp_path / "b.csv"],
        "inspect sealed": ["inspect", tmp_path / "a.csv.sealed"],
        "inspect manifest": ["inspect", tmp_path / "a.csv.manifest.json"],
        "inspect card": ["inspect", stage.lab.home.folder / "party.json"],
        "inspect receipt": ["inspect", receipt],
        "inspect trust": ["inspect", stage.reference],
        "inspect exchange": ["inspect", stage.home / "exchange"],
        "party show": ["party", "show"],
        "party list": ["party", "list"],
        "show": ["show", done],
        "outputs": ["outputs", done],
        "receipt": ["receipt", done, "--out", tmp_path / "r.json"],
        "verify": ["verify", receipt],
        "log": ["log"],
        "ledger": ["log", "--ledger"],
        "status": ["status"],
        "measure": ["measure"],
    }
    for what, words in says.items():
        said = call(*words, "--json", *home, "--as", "lab")
        assert (said.status, said.err) == (0, ""), (what, said)
        assert said.json, what
    assert (tmp_path / "b.csv").read_bytes() == b"a,b\n1,2\n"


def test_agreeing_has_one_json_object_a_verb(stage: Stage, tmp_path):
    draft = stage.draft()
    file = tmp_path / "draft.json"
    file.write_text(
        json.dumps(
            {
                "asset": {"data": stage.records.digest, "model": stage.model.digest},
                "output": {"report": ["hospital", "lab"]},
                "parameters": dict(draft.parameters),
                "title": "by machine",
            }
        )
    )
    first = stage.cli("propose", "--file", file, "--max-bytes", "64K", "--wall", "seccomp", "--json").json["digest"]
    counter = stage.cli("counter", first, "--min-group", "10", "--max-bytes", "32K", "--json", party="hospital").json
    assert counter["supersedes"] == first
    assert "seccomp" in json.dumps(stage.cli("show", first, "--json").json)
    changes = stage.cli("diff", first, counter["digest"], "--json").json["changes"]
    assert changes == counter["changes"]
    assert {c["about"] for c in changes} >= {"output report", "policy: report output"}
    assert stage.cli("show", counter["digest"], "--json").json["state"] == "proposed"
    unread = stage.cli("approve", counter["digest"], "--json")
    assert (unread.status, unread.json["error"]["code"]) == (2, "app.usage")
    assert stage.cli("approve", counter["digest"], "--yes", "--json").json["state"] == "approved"
    assert stage.cli("grant", counter["digest"], "--json").json["runs"] == 1
    assert stage.cli("withdraw", counter["digest"], "--json").json["not_reached"] == []
    withdrawn = stage.cli("run", counter["digest"], "--json")
    assert (withdrawn.status, withdrawn.json["error"]["code"]) == (1, "contract.wrong_state")


@pytest.mark.parametrize(
    "words",
    [
        ("seal", "nowhere"),
        ("open", "nowhere", "--out", "x"),
        ("inspect", "nowhere"),
        ("verify", "nowhere"),
        ("propose",),
        ("propose", "--file", "nowhere"),
        ("show", "sha256:none"),
        ("diff", "sha256:none"),
        ("counter", "sha256:none"),
        ("approve", "sha256:none"),
        ("withdraw", "sha256:none"),
        ("grant", "sha256:none"),
        ("run", "sha256:none"),
        ("progress", "sha256:none"),
        ("outputs", "sha256:none"),
        ("receipt", "sha256:none"),
        ("party", "trust", "nowhere"),
        ("party", "untrust", "nobody"),
        ("party", "new", "lab"),
        ("party", "new", "../evil"),
    ],
)
def test_errors_are_one_json_object_too(stage: Stage, words):
    said = stage.cli(*words, "--json")
    assert said.status in (1, 2)
    assert said.err == ""
    error = said.json["error"]
    assert set(error) == {"code", "message", "hint"}
    assert error["code"] in leaves()
    people = stage.cli(*words)
    assert (people.status, people.code) == (said.status, error["code"])


@pytest.mark.parametrize("role", ["exchange", "broker"])
def test_roles_say_where_they_are_in_json(tmp_path, role):
    """A role without a parent: one object, and it serves."""
    make(Home(tmp_path), "lab")
    words = [role, "--json", "--home", str(tmp_path), "--exchange-url", "http://127.0.0.1:1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "strongroom", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    text = ""
    while not text.rstrip().endswith("}"):
        text += process.stdout.readline()
    assert json.loads(text)["role"].startswith(role)
    process.terminate()
    _, said = process.communicate(timeout=20)
    assert said == ""
    assert process.returncode in (0, -15)


# --- what bad input gets, by command line -----------------------------------------------------------------------------


def test_wrong_paths_and_files_that_are_none(stage: Stage, tmp_path):
    empty, folder = tmp_path / "empty", tmp_path / "folder"
    empty.touch()
    folder.mkdir()
    allow = ("--use", "evaluate", "--allow", "report")
    assert stage.cli("seal", tmp_path / "no.csv", *allow).code == "app.not_found"
    assert stage.cli("seal", empty, *allow).code == "app.empty_file"
    for named in (folder, ".", "/"):  # the last two have no name of their own
        assert stage.cli("seal", named, *allow).code == "app.not_found"
        assert stage.cli("offer", named, *allow, "--mock", "auto").code == "app.not_found"
    assert stage.cli("open", empty, "--out", tmp_path / "x").code == "app.empty_file"
    assert stage.cli("inspect", empty).code == "app.empty_file"
    assert stage.cli("inspect", folder).code == "app.not_found"
    assert stage.cli("verify", empty).code == "app.empty_file"
    assert stage.cli("verify", folder).code == "app.not_found"
    assert stage.cli("party", "trust", empty).code == "app.empty_file"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "folder"]


def test_terms_must_be_said(stage: Stage, tmp_path):
    (tmp_path / "f").write_bytes(b"x")
    assert stage.cli("seal", tmp_path / "f").code == "app.usage"
    assert stage.cli("seal", tmp_path / "f", "--use", "evaluate").code == "app.usage"
    (tmp_path / "terms.json").write_text('{"uses": ["evaluate"], "outputs": {}, "retention": 3}')
    said = stage.cli("seal", tmp_path / "f", "--terms", tmp_path / "terms.json")
    assert said.code == "policy.unknown_dimension"
    (tmp_path / "terms.json").write_text("[]")
    assert stage.cli("seal", tmp_path / "f", "--terms", tmp_path / "terms.json").code == "wire.bad_field"
    (tmp_path / "terms.json").write_text(json.dumps(terms().to_json()))
    assert stage.cli("seal", tmp_path / "f", "--terms", tmp_path / "terms.json", "--no-upload").status == 0


@pytest.fixture
def sealed(stage: Stage, tmp_path: Path) -> Path:
    """An own sealed file with its manifest beside it."""
    (tmp_path / "a.csv").write_bytes(bytes(range(256)) * 5000)
    said = stage.cli("seal", tmp_path / "a.csv", "--use", "evaluate", "--allow", "report", "--no-upload")
    assert said.status == 0
    (tmp_path / "a.csv").unlink()
    return tmp_path / "a.csv.sealed"


@pytest.mark.parametrize(
    ("alter", "code"),
    [
        (lambda b: b[:-1], "asset.truncated"),
        (lambda b: b[:1000], "asset.truncated"),
        (lambda b: b[:30], "asset.truncated"),
        (lambda b: b + b"x", "asset.trailing_bytes"),
        (lambda b: b[:40] + bytes([b[40] ^ 1]) + b[41:], "asset.header_altered"),
        (lambda b: b[:5000] + bytes([b[5000] ^ 1]) + b[5001:], "asset.chunk_altered"),
        (lambda b: b[:-1] + bytes([b[-1] ^ 1]), "asset.trailer_altered"),
    ],
)
def test_a_sealed_file_that_was_changed_opens_to_nothing(stage: Stage, sealed, tmp_path, alter, code):
    sealed.write_bytes(alter(sealed.read_bytes()))
    target = tmp_path / "target"
    target.write_bytes(b"dear")
    assert stage.cli("open", sealed, "--out", target).code == code
    assert stage.cli("inspect", sealed).code == code
    assert stage.cli("seal", sealed, "--only-upload").code == {"asset.trailing_bytes": "wire.too_large"}.get(code, code)
    assert target.read_bytes() == b"dear"
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_a_range_is_opened_alone(stage: Stage, sealed, tmp_path):
    plain = bytes(range(256)) * 5000
    said = stage.cli("open", sealed, "--offset", 70_000, "--length", 10, "--out", tmp_path / "part")
    assert said.status == 0
    assert (tmp_path / "part").read_bytes() == plain[70_000:70_010]
    assert oct((tmp_path / "part").stat().st_mode & 0o777) == "0o600"
    out = spawn("open", sealed, "--length", 4, "--out", "-", "--home", stage.home, "--as", "lab", cwd=tmp_path)
    assert out.out == "\x00\x01\x02\x03"
    beyond = stage.cli("open", sealed, "--offset", len(plain) + 1, "--out", tmp_path / "x")
    assert beyond.code == "app.usage"
    assert stage.cli("open", sealed, "--offset", "-1", "--out", tmp_path / "x").code == "app.usage"
    assert stage.cli("open", sealed, "--out", "-", "--json").json["error"]["code"] == "app.usage"
    nowhere = stage.cli("open", sealed, "--out", tmp_path / "nowhere" / "x")
    assert (nowhere.code, "nowhere" in nowhere.err, "/." in nowhere.err) == ("app.not_found", True, False)
    assert not (tmp_path / "x").exists()


def test_only_the_owner_opens(stage: Stage, sealed, tmp_path):
    said = stage.cli("open", sealed, "--out", tmp_path / "x", party="hospital")
    assert said.code == "app.not_found"
    assert "Only the owner" in said.err
    (tmp_path / "a.csv.manifest.json").unlink()
    said = stage.cli("open", sealed, "--out", tmp_path / "x")
    assert said.code == "app.not_found"
    assert "a.csv.manifest.json" in said.err
    assert "manifest is not beside it" in stage.cli("inspect", sealed).err


def test_sealing_needs_no_exchange_and_uploading_comes_later(stage: Stage, tmp_path):
    alone = Home(tmp_path / "alone")
    alone.create("bank", host="127.0.0.1", port=1)
    (tmp_path / "f").write_bytes(b"x")
    words = ("--home", tmp_path / "alone", "--as", "bank")
    allow = ("--use", "evaluate", "--allow", "report")
    assert call("seal", tmp_path / "f", *allow, *words).code == "app.not_found"  # no exchange is known
    assert call("seal", tmp_path / "f", *allow, "--no-upload", *words).status == 0
    dead = ("--exchange-url", "http://127.0.0.1:1", "--enclave-url", "http://127.0.0.1:1")
    (tmp_path / "g").write_bytes(b"x")
    said = call("seal", tmp_path / "g", *allow, *words, *dead)
    assert said.code == "app.unreachable"
    (again,) = commands(said.err)
    parses(again)
    assert (tmp_path / "g.sealed").is_file()
    there = ("--exchange-url", stage.fleet.config.exchange, "--enclave-url", "http://127.0.0.1:1")
    for name in ("f", "g"):
        said = call("seal", tmp_path / f"{name}.sealed", "--only-upload", *words, *there)
        assert (said.status, "holds the sealed file" in said.out) == (0, True)


def test_a_document_that_is_not_canonical_is_refused_by_name(stage: Stage, tmp_path):
    card = stage.lab.home.folder / "party.json"
    pretty = tmp_path / "pretty.json"
    pretty.write_text(json.dumps(json.loads(card.read_bytes()), indent=2))
    receipt = tmp_path / "receipt.json"
    receipt.write_bytes(stage.bundle(stage.done).read_bytes().replace(b'"format"', b' "format"'))
    for words in (("inspect", pretty), ("party", "trust", pretty), ("verify", receipt), ("inspect", receipt)):
        said = stage.cli(*words)
        assert said.code == "wire.not_canonical"
        assert str(words[-1]) in said.err
    for name, content, code in (
        ("junk", b"\x00\x01junk", "wire.not_json"),
        ("twice", b'{"a":1,"a":2}', "wire.not_json"),
        ("list", b"[]", "wire.bad_field"),
        ("other", b'{"a":1}', "wire.bad_field"),
    ):
        (tmp_path / name).write_bytes(content)
        for words in (("inspect", tmp_path / name), ("party", "trust", tmp_path / name)):
            assert stage.cli(*words).code == code, words


def envelope(stage: Stage, digest: str) -> dict:
    return stage.lab.exchange.proposal(digest).envelope.to_json()


def test_a_contract_whose_signatures_are_wrong_is_no_contract(stage: Stage, tmp_path):
    agreed, other = stage.agree(), stage.agree(title="another")
    good, replayed = envelope(stage, agreed), envelope(stage, other)["signatures"]
    stranger = {"keyid": wire.digest(b"stranger"), "sig": wire.b64(bytes(64))}
    cases = {
        "doubled": ([*good["signatures"], good["signatures"][-1]], "contract.signature_doubled"),
        "unsorted": (good["signatures"][::-1], "contract.signature_doubled"),
        "stranger": (sorted([*good["signatures"], stranger], key=lambda s: s["keyid"]), "contract.signature_from_stranger"),
        "replayed": (replayed, "contract.signature_invalid"),
    }
    path = tmp_path / "contract.json"
    for what, (signatures, code) in cases.items():
        path.write_bytes(wire.encode({**good, "signatures": signatures}))
        said = stage.cli("inspect", path)
        assert (said.status, said.code) == (1, code), what
    path.write_bytes(wire.encode(good))
    assert "hospital, lab" in stage.cli("inspect", path).out
    bundle = json.loads(stage.bundle(stage.done).read_bytes())
    for signatures, code in (
        (bundle["contract"]["signatures"][:1], "contract.signature_missing"),
        ([], "contract.signature_missing"),
        ([bundle["contract"]["signatures"][0]] * 2, "contract.signature_doubled"),
        (good["signatures"], "contract.signature_invalid"),
    ):
        path.write_bytes(wire.encode({**bundle, "contract": {**bundle["contract"], "signatures": signatures}}))
        said = stage.cli("verify", path, "--json")
        assert said.status == 1
        assert said.json["checks"][0]["code"] == code
        assert said.json["error"]["code"] == "receipt.not_verified"


def test_an_operator_who_takes_an_approval_away_is_noticed(stage: Stage):
    agreed = stage.agree()
    with stage.operator() as database:
        database.execute(
            "DELETE FROM approvals WHERE proposal = ? AND rowid = (SELECT max(rowid) FROM approvals)", (agreed,)
        )
    said = stage.cli("run", agreed)
    assert (said.status, said.code) == (1, "contract.signature_missing")


def test_a_proposal_that_not_all_signed_is_not_run(stage: Stage):
    digest = stage.lab.propose(stage.draft()).digest
    said = stage.cli("run", digest)
    assert said.code == "contract.signature_missing"
    assert "hospital" in said.err


def test_a_contract_that_has_ended_is_not_run(stage: Stage, monkeypatch):
    import strongroom.app.client.room as module

    real = module.time.time
    with monkeypatch.context() as patch:
        patch.setattr(module.time, "time", lambda: real() - 2 * 24 * 3600)
        digest = stage.agree(days=1)
    for words in (("run", digest), ("grant", digest), ("withdraw", digest)):
        said = stage.cli(*words)
        assert said.code in ("contract.expired", "contract.wrong_state")
    assert stage.cli("run", digest).code == "contract.expired"
    assert "expired" in stage.cli("show", digest).out


def test_what_ones_own_terms_forbid_is_said_in_words(stage: Stage):
    strict = stage.seal(stage.hospital, b"a,b\n1,2\n", "strict.csv", terms=terms(min_group=10, kinds=("report",)))
    digest = stage.lab.propose(stage.draft(assets={"model": stage.model, "data": strict})).digest
    said = stage.cli("approve", digest, "--yes", party="hospital")
    assert said.code == "policy.not_permitted"
    assert "groups under 10 must be suppressed" in said.err
    said = stage.cli("counter", digest, "--min-group", "5", party="hospital")
    assert said.code == "policy.not_permitted"
    assert stage.cli("counter", digest, "--min-group", "10", party="hospital").status == 0


def test_yes_needs_the_whole_digest(stage: Stage):
    """Another proposal can be made to begin as the one that was read."""
    digest = stage.lab.propose(stage.draft()).digest
    for reference in ((), (digest[:-1],), (digest[7:],), ("sha256:",), ("",)):
        said = stage.cli("approve", *reference, "--yes", party="hospital")
        assert (said.status, said.code) == (2, "app.usage"), reference
    assert stage.cli("approve", digest, "--yes", party="hospital").status == 0


def test_without_a_terminal_nothing_is_approved_unread(stage: Stage):
    digest = stage.lab.propose(stage.draft()).digest
    said = stage.cli("approve", digest, party="hospital")
    assert said.status == 2
    assert "output report" in said.out
    (told,) = commands(said.err)
    parses(told)
    assert digest in told


def test_an_approval_at_a_terminal_is_asked_for(stage: Stage, monkeypatch):
    digest = stage.lab.propose(stage.draft()).digest
    new = stage.hospital.counter(digest, Change(min_group=3)).digest
    monkeypatch.setattr(sys, "stdin", type("T", (), {"isatty": lambda _: True})())
    monkeypatch.setattr("builtins.input", lambda _: "n")
    said = stage.cli("approve", new)
    assert (said.status, "nothing was signed" in said.out) == (1, True)
    assert "What changes" in said.out
    assert stage.lab.view(new).history.approved_by == {"hospital"}
    monkeypatch.setattr("builtins.input", lambda _: " Y ")
    assert stage.cli("approve", new).status == 0
    assert stage.lab.view(new).history.approved_by == {"hospital", "lab"}


@pytest.mark.parametrize(
    "said",
    [
        [],
        {"assets": {}},
        {"asset": []},
        {"asset": {"model": 1}},
        {"output": {"report": "lab"}},
        {"output": {"report": [1]}},
        {"output": []},
        {"title": 1},
        {"parameters": []},
        {"runs": 1},
    ],
)
def test_a_draft_file_with_something_else_in_it_is_wrong_usage(stage: Stage, tmp_path, said):
    path = tmp_path / "draft.json"
    path.write_text(json.dumps(said))
    found = stage.cli("propose", "--file", path)
    assert (found.status, found.code) == (2, "app.usage")
    assert str(path) in found.err


def test_an_unknown_asset_output_or_party_is_said(stage: Stage):
    words = ("task=classification", "target=benign", 'classes=["0", "1"]')
    common = ("--asset", f"model={stage.model.digest}", *(w for p in words for w in ("--parameter", p)))
    data = ("--asset", f"data={stage.records.digest}")
    for words, code in (
        ((*common, "--asset", "data=hospital/nothing", "--output", "report=lab"), "app.not_found"),
        ((*common, "--output", "report=lab"), "program.bad_parameters"),
        ((*common, *data, "--output", "weights=lab"), "program.bad_parameters"),
        ((*common, *data, "--output", "report=mallory"), "app.usage"),
        ((*common, *data, "--output", "report"), "app.usage"),
        ((*common, *data, "--output", "report=lab", "--pay", "x"), "app.usage"),
        ((*common, *data, "--output", "report=lab", "--program", "steal"), "program.bad_parameters"),
        ((*common, *data, "--output", "report=lab", "--parameter", "target=[1,"), "wire.not_json"),
    ):
        said = stage.cli("propose", *words)
        assert (said.code, said.out) == (code, ""), words


def test_an_exchange_that_is_away_is_said(stage: Stage):
    dead = ("--exchange-url", "http://127.0.0.1:1")
    digest = stage.agree()
    for words in (("status",), ("show",), ("run", digest), ("log", "--ledger"), ("withdraw", digest[:20])):
        said = stage.cli(*words, *dead)
        assert said.status == 1
        assert "app.unreachable" in said.err
    assert stage.cli("log", *dead).status == 0  # the owner's own log needs no exchange
    said = stage.cli("withdraw", digest, *dead)
    assert said.status == 0
    assert "not reached" in said.out
    assert stage.lab.view(digest).state.value == "withdrawn"


def test_an_enclave_that_is_away_is_said_and_uses_up_nothing(stage: Stage):
    digest = stage.agree()
    said = stage.cli("run", digest, "--enclave-url", "http://127.0.0.1:1")
    assert said.code == "app.unreachable"
    assert stage.lab.view(digest).history.runs == frozenset()


@contextmanager
def listening(stage: Stage, contract: str, said: list[str]) -> Iterator[str]:
    """An enclave's address where a run of a contract goes on that says one thing more each time that it is asked about."""
    exchange = Client(stage.fleet.config.exchange)
    runner = Runner(None, exchange)  # type: ignore[arg-type] # nothing is attested here
    going = runner.going

    def further(data: bytes) -> list[JSON]:
        found = going(data)
        runner._going.clear()
        if said:
            runner._going[contract, "0" * 32] = Going("program", "evaluate-llm", said.pop(0))
        return found

    runner.going = further  # type: ignore[method-assign]
    runner._going[contract, "0" * 32] = Going("program", "evaluate-llm", said.pop(0))
    sock = listen("127.0.0.1", 0)
    serving = uvicorn.Server(uvicorn.Config(enclave(runner), log_config=None, lifespan="off"))
    thread = Thread(target=lambda: serving.run(sockets=[sock]), daemon=True)
    thread.start()
    try:
        until(lambda: serving.started, 60)
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        serving.should_exit = True
        thread.join(30)
        sock.close()
        exchange.close()


def test_the_other_party_hears_where_a_run_is_and_counts_alone(stage: Stage, monkeypatch):
    monkeypatch.setattr(runs, "QUIET_SECONDS", 0.01)
    digest = stage.agree()
    counts = ["20 of 200 questions", "40 of 200 questions", "40 of 200 questions"]
    with listening(stage, digest, [*counts]) as url:
        once = stage.cli("progress", digest, "--enclave-url", url, "--json", party="hospital").json
        assert once == {"contract": digest, "heard": [[{"detail": counts[0], "step": "program"}]]}
        followed = stage.cli("progress", digest, "--follow", "--enclave-url", url, party="hospital")
        assert [line.split()[1:] for line in followed.out.splitlines()[:1]] == [counts[1].split()]
        assert "no run of this contract goes on now" in followed.out
        assert followed.out.count("of 200 questions") == 1  # what has not changed is not said again


def test_nobody_but_a_party_hears_where_a_run_is(stage: Stage, tmp_path):
    digest = stage.agree()
    make(Home(tmp_path / "room"), "stranger")
    with listening(stage, digest, ["20 of 200 questions"]) as url:
        where = ("--exchange-url", stage.fleet.config.exchange, "--enclave-url", url)
        said = call("progress", digest, "--home", tmp_path / "room", "--as", "stranger", *where)
        assert said.status == 1
        assert "questions" not in said.out + said.err


def test_where_no_run_goes_on_that_is_said(stage: Stage):
    said = stage.cli("progress", stage.done, party="hospital")
    assert said.status == 0
    assert "no run of this contract goes on now" in said.out
    assert stage.cli("progress", stage.done, "--enclave-url", "http://127.0.0.1:1").code == "app.unreachable"


def test_a_log_that_is_not_trusted_here_is_said(stage: Stage, tmp_path):
    place = Home(tmp_path / "room")
    place.create("bank", host="127.0.0.1", port=1)
    where = ("--exchange-url", stage.fleet.config.exchange, "--enclave-url", "http://127.0.0.1:1")
    said = call("log", "--ledger", "--home", tmp_path / "room", *where)
    assert said.code == "ledger.bad_checkpoint"
    said = call("verify", stage.bundle(stage.done), "--home", tmp_path / "room")
    assert (said.status, said.err.startswith("strongroom: receipt.not_verified: V2")) == (1, True)


def test_a_trust_file_can_be_named(stage: Stage, tmp_path):
    trust = tmp_path / "trust.json"
    trust.write_bytes((stage.lab.home.folder / "trust.json").read_bytes())
    receipt = stage.bundle(stage.done)
    assert call("verify", receipt, "--trust", trust).status == 0
    trust.write_text("{}")
    said = call("verify", receipt, "--trust", trust)
    assert said.code == "wire.bad_field"
    assert str(trust) in said.err


def test_verifying_loads_no_network_and_no_program(stage: Stage, tmp_path):
    loaded = "sorted({m.split('.')[0] for m in sys.modules})"
    code = f"import atexit, sys; atexit.register(lambda: print(*{loaded}, file=sys.stderr))"
    done = patched(code, "verify", stage.bundle(stage.done), "--home", stage.home, "--as", "lab", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stderr.split())
    assert "strongroom" in loaded
    assert not loaded & {
        "httpx",
        "starlette",
        "uvicorn",
        "anyio",
        "numpy",
        "onnxruntime",
        "sklearn",
        "pyarrow",
        "sqlite3",
        "rich",
    }
