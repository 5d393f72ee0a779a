"""Stories: what somebody types and what the screen says, as transcripts in ``stories/*.txt``.

A story says first what must stand before it begins (``nothing``, ``evidence``, ``brokers``, ``roles``). A line ``$ …`` is
typed; what follows is what it says, errors marked with ``!``, and ``[1]`` its exit status where it is not 0. ``let NAME =
word`` takes the digest on the last line that began with that word. What differs each time (digests, runs, addresses, times,
keys) stands as ``<digest>`` and so on. After a change that is meant: ``python tests/test_stories.py`` writes them anew, and
a person reads the difference.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import string
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "stories"
STORIES = sorted(HERE.glob("*.txt"))
STANDS = ("nothing", "evidence", "brokers", "roles")

DIFFERS = [
    (re.compile(r"[\w.-]+/ledger-[0-9a-f]{8}\+[0-9a-f]{8}\+[A-Za-z0-9+/=]+"), "<log>"),
    (re.compile(r"[\w.-]+/ledger-[0-9a-f]{8}"), "<log>"),
    (re.compile(r"sha256:[0-9a-f]{64}"), "<digest>"),
    (re.compile(r"sha256:[0-9a-f]{6,63}"), "<digest>"),
    (re.compile(r"\bsr-[A-Za-z0-9_-]{43}"), "<API key>"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "<hash>"),
    (re.compile(r"\b[0-9a-f]{12}\b"), "<key id>"),
    (re.compile(r"\b[0-9a-f]{32}\b"), "<run>"),
    (re.compile(r"\b[0-9a-f]{8}…"), "<run>…"),
    (re.compile(r"\b[0-9a-f]{16}…"), "<hash>…"),
    (re.compile(r"http://127\.0\.0\.1:\d+"), "<address>"),
    (re.compile(r"\d{1,2} [A-Z][a-z]+ \d{4}, \d\d:\d\d(?::\d\d)? UTC"), "<time>"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"), "<time>"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d\b"), "<time>"),
    (re.compile(r"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{43}="), "<key>"),
    (re.compile(r"\b0\.\d{4}$"), "<figure>"),
    (re.compile(r"\b\d+ entries"), "<n> entries"),  # brokers log what they decided when they come to it
    (re.compile(r"\b\d of 8(?:; not [a-z, -]+)?$"), "<walls>"),
    (re.compile(r"\b(?:bubblewrap|namespaces)$"), "<sandbox>"),
]
BEATS = re.compile(r"^ *[a-z ]+ \d+ s$")  # what a slow machine says while it waits
SHELL = re.compile(r" [|>;&]")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def same(text: str) -> str:
    """What a line says, without what differs each time."""
    for pattern, name in DIFFERS:
        text = pattern.sub(name, text)
    return text.rstrip()


class Teller:
    """Types a story's lines in a folder, and writes down what is said.

    Args:
        cwd: the folder.
        call: runs a verb.
    """

    def __init__(self, cwd: Path, call) -> None:
        self._cwd, self._call = cwd, call
        self._names: dict[str, str] = {}
        self._last = ""

    def tell(self, story: str) -> str:
        """The story as it is told now."""
        told = []
        for line in story.splitlines():
            if line.startswith("$ "):
                told += [line, *self._type(line[2:])]
            elif line.startswith("let "):
                name, _, word = line[4:].partition(" = ")
                lines = [x for x in self._last.splitlines() if x.strip().startswith(word) and DIGEST.search(x)]
                self._names[name] = DIGEST.search(lines[-1]).group(0)
                told.append(line)
            elif line.startswith("#") or not line or line.split()[0] == "needs":
                told.append(line)
        return "\n".join(told).rstrip() + "\n"

    def _type(self, line: str) -> list[str]:
        typed = string.Template(line).safe_substitute(self._names)
        if typed.startswith("strongroom ") and not SHELL.search(typed):
            said = self._call(*shlex.split(typed)[1:])
            out, err, status = said.out, said.err, said.status
        else:
            env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
            done = subprocess.run(
                typed,
                shell=True,
                cwd=self._cwd,
                env=env,
                capture_output=True,
                text=True,
                check=False,
                stdin=subprocess.DEVNULL,
            )
            out, err, status = done.stdout, done.stderr, done.returncode
        self._last = out
        lines = [same(x) for x in out.splitlines() if not BEATS.match(x)] + [
            f"! {same(x)}" for x in err.splitlines() if not BEATS.match(x)
        ]
        return [*(x or "." for x in lines), *([f"[{status}]"] if status else [])]


@contextmanager
def standing(what: str, cwd: Path, held: Path) -> Iterator[None]:
    """What must stand before a story begins, in a folder."""
    from stage import Watched
    from strongroom.app.cli.parties import make
    from strongroom.app.client.home import Home

    (cwd / "files").mkdir()
    for name in ("model.onnx", "records.csv", "mock.csv", "features.json"):
        shutil.copy(held / name, cwd / "files" / name)
    if what == "evidence":
        from evidence_files import machine

        for name in ("nitro", "report"):
            (cwd / f"{name}.bin").write_bytes(machine(name).data)
            (cwd / f"{name}.policy.json").write_text(json.dumps(machine(name).policy.to_json()))
    if what in ("nothing", "evidence"):
        yield
        return
    draft = {
        "asset": {"data": "hospital/records.csv", "model": "lab/model.onnx"},
        "output": {"calibration": ["hospital"], "predictions": ["lab"], "report": ["hospital", "lab"]},
        "parameters": {
            "classes": ["0", "1"],
            "features": json.loads((held / "features.json").read_bytes()),
            "target": "benign",
            "task": "classification",
        },
        "title": "Accuracy of the lab's classifier",
    }
    (cwd / "files" / "draft.json").write_text(json.dumps(draft))
    place = Home(cwd / "room")
    for name in ("lab", "hospital"):
        make(place, name)
    fleet = Watched(place, cwd / "logs")
    try:
        fleet.start(enclave=what == "roles")
        fleet.reference()
        yield
    finally:
        fleet.stop()


def needs(story: str) -> str:
    (found,) = re.findall(r"^needs (\w+)$", story, re.MULTILINE)
    assert found in STANDS
    return found


def test_there_are_stories():
    assert len(STORIES) >= 5
    assert {needs(path.read_text(encoding="utf-8")) for path in STORIES} == set(STANDS)


@pytest.mark.parametrize("path", STORIES, ids=lambda p: p.stem)
def test_a_story_is_told_as_it_is_written(path, tmp_path, monkeypatch, held):
    from stage import call

    story = path.read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    for name in ("STRONGROOM_HOME", "STRONGROOM_PARTY", "STRONGROOM_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    with standing(needs(story), tmp_path, held):
        assert Teller(tmp_path, call).tell(story) == story


def test_what_differs_each_time_is_left_out():
    digest, run = "sha256:" + "ab" * 32, "cd" * 16
    assert same(f"  contract  {digest} run {run}  ") == "  contract  <digest> run <run>"
    assert same(f"{digest[:19]}… at http://127.0.0.1:40001") == "<digest>… at <address>"
    assert same("from 1 May 2026, 09:30:01 UTC; 2026-05-01 09:30:01") == "from <time>; <time>"
    assert same("log.example/ledger-00ff00ff, 3 entries") == "<log>, <n> entries"
    assert same("groups under 10 are suppressed") == "groups under 10 are suppressed"


def rewrite() -> None:
    """Write every story anew, as it is told now."""
    import warnings

    sys.path.insert(0, str(Path(__file__).parent))
    warnings.simplefilter("ignore")
    from stage import call, files

    os.environ["COLUMNS"] = "120"
    with tempfile.TemporaryDirectory() as place:
        held = files(Path(place) / "held")
        for path in [p for p in STORIES if not sys.argv[1:] or p.stem in sys.argv[1:]]:
            story, cwd = path.read_text(encoding="utf-8"), Path(place) / path.stem
            cwd.mkdir()
            os.chdir(cwd)
            with standing(needs(story), cwd, held):
                path.write_text(Teller(cwd, call).tell(story), encoding="utf-8")


if __name__ == "__main__":
    rewrite()
