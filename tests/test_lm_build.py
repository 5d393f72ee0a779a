"""Building sources: the same bytes however it is divided or interrupted, and one clear error for each bad input."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("faiss", reason="faiss is not installed: pip install 'strongroom[lm]', or make lm")
pytest.importorskip("tokenizers", reason="tokenizers is not installed: pip install 'strongroom[lm]', or make lm")

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

import lm_case
from strongroom.errors import (
    BadDocument,
    DatastoreError,
    DiskFull,
    DocumentTooLong,
    EmptyDocument,
    EmptySource,
    HalfBuilt,
    InputChanged,
    NotATextFile,
    NotUtf8,
    StoreBusy,
)
from strongroom.lm import texts as reading
from strongroom.lm.build import build, finish
from strongroom.lm.datastore import Datastore
from strongroom.lm.locks import alone
from strongroom.lm.part import Part, Progress
from strongroom.lm.texts import Document, Passed, Texts

GOOD = lm_case.texts("law", 20)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return lm_case.store(tmp_path / "store")


def made(place: Path, *files: Path, **how: object) -> dict[str, bytes]:
    build(place, lm_case.about("law"), Texts.of(files), **how)  # type: ignore[arg-type]
    return lm_case.tree(place)


# --- what is read ---------------------------------------------------------------------------------------------------


def all_of(*paths: Path) -> list[tuple[str, str]]:
    return [(d.id, d.text) for d in Texts.of(paths).read() if isinstance(d, Document)]


def test_the_same_documents_from_every_kind_of_file(tmp_path: Path) -> None:
    plain = lm_case.lines(tmp_path / "a.jsonl", GOOD)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    (tmp_path / "a.jsonl.xz").write_bytes(lzma.compress(plain.read_bytes()))
    table = pa.table({"id": [f"d{i}" for i in range(len(GOOD))], "other": [1] * len(GOOD), "text": GOOD})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=7)
    expected = [(f"d{i}", text) for i, text in enumerate(GOOD)]
    for name in ("a.jsonl", "a.jsonl.gz", "a.jsonl.xz", "a.parquet"):
        assert all_of(tmp_path / name) == expected
    folder = tmp_path / "folder"
    folder.mkdir()
    for number, text in enumerate(GOOD):
        (folder / f"d{number:02}.txt").write_text(text)
    (folder / "picture.png").write_bytes(b"\x89PNG")
    assert [text for _, text in all_of(folder)] == GOOD


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.xz", "a.parquet", "folder"])
def test_reading_goes_on_at_any_place(tmp_path: Path, name: str) -> None:
    plain = lm_case.lines(tmp_path / "a.jsonl", GOOD)
    (tmp_path / "a.jsonl.xz").write_bytes(lzma.compress(plain.read_bytes()))
    parquet.write_table(pa.table({"text": GOOD}), tmp_path / "a.parquet", row_group_size=7)
    (tmp_path / "folder").mkdir()
    for number, text in enumerate(GOOD):
        (tmp_path / "folder" / f"{number:02}.txt").write_text(text)
    texts = Texts.of([tmp_path / name, plain])
    whole = list(texts.read())
    assert len(whole) == 2 * len(GOOD)
    for number, one in enumerate(whole):
        assert list(texts.read(one.after)) == whole[number + 1 :]


@settings(max_examples=40)
@given(
    st.lists(st.one_of(st.binary(max_size=40).filter(lambda b: b"\n" not in b), st.just(b'{"text": "word"}')), max_size=6)
)
def test_whatever_stands_in_a_line_is_a_document_or_an_error_of_ours(tmp_path_factory, lines: list[bytes]) -> None:
    file = tmp_path_factory.mktemp("lines") / "a.jsonl"
    file.write_bytes(b"\n".join(lines))
    texts = Texts.of([file])
    whole = list(texts.read())
    assert all(isinstance(one, Document) or isinstance(one.error, DatastoreError) for one in whole)
    for number, one in enumerate(whole):
        assert [type(x) for x in texts.read(one.after)] == [type(x) for x in whole[number + 1 :]]


# --- the same bytes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [1, 2, 3, 7, 50])
def test_pieces_one_after_the_other_are_the_whole(tmp_path: Path, pieces: int) -> None:
    plain = lm_case.lines(tmp_path / "a.jsonl", GOOD)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    parquet.write_table(pa.table({"text": GOOD}), tmp_path / "c.parquet")
    (tmp_path / "d.jsonl").write_bytes(plain.read_bytes().rstrip())
    (tmp_path / "e.jsonl").write_bytes(b"")
    texts = Texts.of([tmp_path / name for name in ("a.jsonl", "b.jsonl.gz", "c.parquet", "d.jsonl", "e.jsonl")])
    places = texts.places(pieces)
    assert pieces // 3 <= len(places) <= pieces + 5
    found = [list(texts.read(first, end)) for first, end in zip(places, [*places[1:], None], strict=True)]
    assert [one for piece in found for one in piece] == list(texts.read())


def test_runs_and_parts_do_not_show_in_what_is_built(tmp_path: Path) -> None:
    file = lm_case.lines(tmp_path / "a.jsonl", GOOD)
    expected = made(lm_case.store(tmp_path / "one"), file)
    assert made(lm_case.store(tmp_path / "runs"), file, run=5) == expected
    texts = Texts.of([file])
    places = texts.places(3)
    pieces = [tmp_path / f"part-{number}" for number in range(len(places))]
    for piece, first, end in zip(pieces, places, [*places[1:], None], strict=True):
        Part(piece, lm_case.parts(), texts, run=9, first=first, end=end).build()
    whole = finish(pieces, lm_case.about("law"), lm_case.parts(), tmp_path / "whole")
    source = {k.partition("/")[2].partition("/")[2]: v for k, v in expected.items() if k.startswith("sources/")}
    assert lm_case.tree(whole.folder) == source


LITTLE = """
import resource, sys
from pathlib import Path
import lm_case
from strongroom.lm.build import build
from strongroom.lm.texts import Texts
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
import strongroom.lm.part as part
part._BATCH = 1
print(build(sys.argv[1], lm_case.about("law"), Texts.of([Path(sys.argv[2])]), run=1).digest)
"""


def test_more_runs_than_files_that_can_be_open(tmp_path: Path) -> None:
    file = lm_case.lines(tmp_path / "a.jsonl", lm_case.texts("law", 60, words=20))
    expected = build(lm_case.store(tmp_path / "one"), lm_case.about("law"), Texts.of([file])).digest
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", LITTLE, str(lm_case.store(tmp_path / "two")), str(file)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == expected, ran.stderr


KILLED = """
import os, sys
from pathlib import Path
import lm_case
from strongroom.lm.build import build
from strongroom.lm.texts import Texts
def said(progress):
    if progress.runs >= 2:
        os.kill(os.getpid(), 9)
build(sys.argv[1], lm_case.about("law"), Texts.of([Path(sys.argv[2])]), run=8, said=said)
"""


def test_a_build_that_was_killed_goes_on_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strongroom.lm.part._BATCH", 3000)
    file = lm_case.lines(tmp_path / "a.jsonl", GOOD)
    expected = made(lm_case.store(tmp_path / "one"), file)
    place = lm_case.store(tmp_path / "two")
    empty = (place / "store.json").read_bytes()
    script = "import strongroom.lm.part as part\npart._BATCH = 3000\n" + KILLED
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    ran = subprocess.run([sys.executable, "-c", script, str(place), str(file)], env=environment, check=False)
    assert ran.returncode == -9
    assert (place / "store.json").read_bytes() == empty
    assert Datastore.open(place).names == []
    begun = Progress.read(place / "building" / "source-law" / "part-0")
    assert begun is not None
    assert begun.runs >= 2
    assert not begun.whole
    told: list[int] = []
    build(place, lm_case.about("law"), Texts.of([file]), run=8, said=lambda p: told.append(p.documents))
    assert told[0] > begun.documents
    assert lm_case.tree(place) == expected


def test_a_build_goes_on_after_its_files_were_changed_only_when_begun_anew(place: Path, tmp_path: Path) -> None:
    file = lm_case.lines(tmp_path / "a.jsonl", [*GOOD, ""])
    with pytest.raises(EmptyDocument):
        build(place, lm_case.about("law"), Texts.of([file]), run=1)
    lm_case.lines(file, GOOD[1:])
    part = place / "building" / "source-law" / "part-0"
    Progress(Texts.of([file]).state(), "sha256:0", skip=False).write(part)
    with pytest.raises(InputChanged):
        build(place, lm_case.about("law"), Texts.of([file]))
    assert build(place, lm_case.about("law"), Texts.of([file]), restart=True).documents == len(GOOD) - 1


def test_a_part_that_was_cut_short_is_not_gone_on_with(tmp_path: Path) -> None:
    file = lm_case.lines(tmp_path / "a.jsonl", [*GOOD, ""])
    part = Part(tmp_path / "part", lm_case.parts(), Texts.of([file]), run=1)
    replace(part.progress, tokens=10**6).write(tmp_path / "part")
    with pytest.raises(HalfBuilt):
        Part(tmp_path / "part", lm_case.parts(), Texts.of([file])).build()


def test_a_part_that_is_not_whole_is_in_no_source(tmp_path: Path) -> None:
    with pytest.raises(HalfBuilt):
        finish([tmp_path], lm_case.about("law"), lm_case.parts(), tmp_path / "whole")


def test_two_that_build_the_same_source(place: Path, tmp_path: Path) -> None:
    script = """
import sys
from dataclasses import replace
from pathlib import Path
from strongroom.lm.locks import alone
with alone(Path(sys.argv[1])):
    print("ready", flush=True)
    sys.stdin.read()
"""
    folder = place / "building" / "source-law"
    command = [sys.executable, "-c", script, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        with pytest.raises(StoreBusy):
            made(place, lm_case.lines(tmp_path / "a.jsonl", GOOD))
        with pytest.raises(StoreBusy), alone(folder):
            pass
        other.communicate()
    with alone(folder), pytest.raises(StoreBusy), alone(folder):
        pass
    made(place, tmp_path / "a.jsonl")


# --- bad inputs -----------------------------------------------------------------------------------------------------

LINE = json.dumps({"text": "a line"}).encode()


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"", EmptyDocument),
        (b'{"text": ""}', EmptyDocument),
        (b'{"text": " \\n "}', EmptyDocument),
        (b'{"text": "caf\xe9"}', NotUtf8),
        (b'{"text": "\\ud800"}', NotUtf8),
        (b"{", BadDocument),
        (b"[1]", BadDocument),
        (b'{"text": 1}', BadDocument),
        (b'{"id": "x"}', BadDocument),
        (b'{"id": true, "text": "a"}', BadDocument),
        (b'{"id": "a\\nb", "text": "a"}', BadDocument),
        (b"[" * 100_000, BadDocument),
    ],
)
def test_a_line_that_is_no_document(place: Path, tmp_path: Path, line: bytes, error: type[DatastoreError]) -> None:
    before = lm_case.tree(place)
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"\n".join([LINE, line, LINE]) + b"\n")
    with pytest.raises(error, match="line 2"):
        made(place, file)
    assert {k: v for k, v in lm_case.tree(place).items() if not k.startswith("building/")} == before
    made(place, file, skip=True)
    manifest = next(iter(Datastore.open(place).sources.values())).manifest
    assert (manifest.documents, manifest.passed_over) == (2, 1)


HELD = """
import resource, sys
from pathlib import Path
from strongroom.lm.texts import Texts
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = list(Texts.of([Path(sys.argv[1])]).read())
held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(",".join(type(one).__name__ for one in found), held)
"""


def test_a_hundred_megabytes_in_one_line_are_never_held(place: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    with file.open("wb") as out:
        out.write(LINE + b"\n" + b'{"text": "')
        for _ in range(100):
            out.write(b"a" * 1_000_000)
        out.write(b'"}\n' + LINE + b"\n")
    command = [sys.executable, "-c", HELD, str(file)]  # a process of its own: the most that one ever held never goes down
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    kinds, held = ran.stdout.split()
    assert kinds == "Document,Passed,Document"
    assert int(held) < 90_000  # kilobytes
    with pytest.raises(DocumentTooLong, match="line 2"):
        made(place, file)


def test_documents_that_are_too_long_in_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_DOCUMENT", 1000)
    (tmp_path / "a.txt").write_text("a " * 600)
    parquet.write_table(pa.table({"text": ["a " * 600, "short", None]}), tmp_path / "a.parquet")
    found = list(Texts.of([tmp_path / "a.txt", tmp_path / "a.parquet"]).read())
    assert [type(one.error) if isinstance(one, Passed) else one.text for one in found] == [
        DocumentTooLong,
        DocumentTooLong,
        "short",
        EmptyDocument,
    ]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.parquet", b"PAR1 not really"),
        ("a.jsonl.xz", lzma.compress(LINE * 1000)[:-9]),
        ("a.jsonl.gz", gzip.compress(LINE * 1000, mtime=0)[:-9]),  # without the time: workers collect the same tests
        ("a.jsonl.gz", b"no gzip"),
        ("a.txt.xz", b"no xz"),
        ("a.docx", b"PK"),
    ],
)
def test_files_that_cannot_be_read(place: Path, tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(NotATextFile):
        made(place, tmp_path / name, skip=True)


def test_a_table_without_text(place: Path, tmp_path: Path) -> None:
    parquet.write_table(pa.table({"text": [1, 2]}), tmp_path / "a.parquet")
    with pytest.raises(NotATextFile):
        made(place, tmp_path / "a.parquet")


def test_a_source_without_documents(place: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"")
    with pytest.raises(EmptySource):
        made(place, tmp_path / "a.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(EmptySource):
        made(place, tmp_path / "empty")


FILLED = """
import resource, sys
from pathlib import Path
import lm_case
from strongroom.errors import DiskFull
from strongroom.lm.build import build
from strongroom.lm.texts import Texts
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
try:
    build(sys.argv[1], lm_case.about("law"), Texts.of([Path(sys.argv[2])]), run=8)
except DiskFull as error:
    print(error.code)
"""


@pytest.mark.parametrize("limit", [2_000, 20_000, 60_000])
def test_a_disk_that_fills_while_building(tmp_path: Path, limit: int) -> None:
    file = lm_case.lines(tmp_path / "a.jsonl", GOOD)
    expected = made(lm_case.store(tmp_path / "one"), file)
    place = lm_case.store(tmp_path / "two")
    before = {k: v for k, v in lm_case.tree(place).items() if not k.startswith("building/")}
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", FILLED, str(place), str(file), str(limit)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == DiskFull.code, ran.stderr
    assert {k: v for k, v in lm_case.tree(place).items() if not k.startswith("building/")} == before
    made(place, file)  # there is room again
    assert lm_case.tree(place) == expected
