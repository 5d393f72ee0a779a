"""Changes of a store that are interrupted, meet another, or meet what a change before them left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

pytest.importorskip("faiss", reason="faiss is not installed: pip install 'strongroom[lm]', or make lm")
pytest.importorskip("tokenizers", reason="tokenizers is not installed: pip install 'strongroom[lm]', or make lm")

import numpy as np

import lm_case
from stage import call
from strongroom.errors import (
    BadManifest,
    BadSourceName,
    DigestMismatch,
    EmptyDocument,
    HalfBuilt,
    NoSource,
    NotRemoved,
    SourceTwice,
    StoreTruncated,
)
from strongroom.lm import datastore, source
from strongroom.lm.build import build
from strongroom.lm.datastore import Datastore, Head, add, become, drop, manifests
from strongroom.lm.lists import Queries, folder_of, listed
from strongroom.lm.moving import brought, found
from strongroom.lm.parts import Parts
from strongroom.lm.source import check, read_manifest
from strongroom.lm.texts import Texts
from strongroom.lm.traces import traces


@pytest.fixture
def one(tmp_path: Path) -> Path:
    place = lm_case.store(tmp_path / "store")
    lm_case.source(place, "law")
    return place


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """A store without sources, and a file of law beside it."""
    lm_case.lines(tmp_path / "law.jsonl", lm_case.texts("law", 20))
    return lm_case.store(tmp_path / "store")


def law(place: Path, **how: object) -> None:
    build(place, lm_case.about("law"), Texts.of([place.parent / "law.jsonl"]), **how)  # type: ignore[arg-type]


def left(place: Path) -> list[str]:
    """What is in a store beside its head, its lock and its frozen parts."""
    return [name for name in lm_case.tree(place) if name not in ("store.json", "lock") and not name.startswith("parts/")]


def queries(store: Datastore) -> Queries:
    one = store.source("law")
    return Queries(np.stack([one.document(i)[:64] for i in range(5)]), 3)


# --- what was built or brought and never came to its end ------------------------------------------------------------


def test_replacing_a_source_by_itself_leaves_no_text_in_building(parts: Path) -> None:
    law(parts)
    law(parts, replace=True)
    assert list((parts / "building").iterdir()) == []
    drop(parts, "law")
    assert left(parts) == []


def test_adding_a_source_again_as_it_is_leaves_no_text_in_building(one: Path, tmp_path: Path) -> None:
    other = lm_case.store(tmp_path / "other")
    lm_case.source(other, "law")
    with brought(one, found(other)) as checked:
        add(one, checked, replace=True)
        assert not checked.folder.exists()
    assert list((one / "building").iterdir()) == []


def test_dropping_a_name_removes_what_a_killed_build_read_of_it(parts: Path) -> None:
    lm_case.lines(parts.parent / "law.jsonl", [*lm_case.texts("law", 20), ""])
    with pytest.raises(EmptyDocument):
        law(parts, run=1)
    assert any("building/source-law/part-0/tokens" in name for name in left(parts))
    with pytest.raises(NoSource):
        drop(parts, "law")
    assert left(parts) == []


def test_dropping_a_name_removes_what_a_killed_copy_left_of_it(one: Path) -> None:
    for place in ("brought-law/whole", "fetched/law-0123456789abcdef0123456789abcdef", "source-law/part-7"):
        (one / "building" / place).mkdir(parents=True)
        (one / "building" / place / "tokens.u16").write_bytes(b"an owner's text")
    drop(one, "law")
    assert left(one) == []


def test_a_build_that_goes_on_removes_parts_of_one_that_was_cut_otherwise(parts: Path) -> None:
    (parts / "building" / "source-law" / "part-3").mkdir(parents=True)
    (parts / "building" / "source-law" / "part-3" / "tokens.u16").write_bytes(b"an owner's text")
    law(parts)
    assert list((parts / "building").iterdir()) == []


def test_dropping_leaves_the_builds_of_others_and_those_that_are_running(one: Path) -> None:
    for name in ("cells", "law"):
        (one / "building" / f"source-{name}" / "part-0").mkdir(parents=True)
    from strongroom.lm.locks import alone

    with alone(one / "building" / "source-law"):
        drop(one, "law")
        assert (one / "building" / "source-law" / "part-0").exists()
    assert (one / "building" / "source-cells" / "part-0").exists()


# --- dropping -------------------------------------------------------------------------------------------------------


def test_a_name_that_is_not_there_among_others_drops_none(one: Path) -> None:
    before = (one / "store.json").read_bytes()
    said = call("lm", "drop", one, "law", "lwa", "--json")
    assert said.json["error"]["code"] == "datastore.no_source"
    assert (one / "store.json").read_bytes() == before
    assert Datastore.open(one).names == ["law"]


def test_several_are_dropped_in_one_change(one: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm_case.source(one, "cells")
    heads = []
    real = datastore.put
    monkeypatch.setattr(datastore, "put", lambda path, data: (heads.append(data), real(path, data)))
    assert call("lm", "drop", one, "law", "cells", "law", "--json").status == 0
    assert len(heads) == 1
    assert left(one) == []


@pytest.mark.parametrize("where", ["set_aside", "reclaimed"])
def test_a_drop_that_died_after_the_head_is_finished_by_the_next(
    one: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def dies(*_words: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(datastore, where, dies)
        if where == "set_aside":
            patched.setattr(datastore, "reclaimed", lambda *_words: None)
        with pytest.raises(KeyboardInterrupt):
            drop(one, "law")
    assert left(one)
    with pytest.raises(NoSource):
        drop(one, "law")
    assert left(one) == []


def test_any_change_finishes_a_drop_that_died(one: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drop(one, "law", reclaim=False)
    assert left(one)
    lm_case.source(one, "cells")
    assert not any("law" in name for name in left(one))


def test_a_store_without_an_empty_folder_is_dropped_from_all_the_same(one: Path) -> None:
    (one / "building").rmdir()
    drop(one, "law")
    assert left(one) == []


def test_files_that_cannot_be_removed_are_said_and_the_others_go(one: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.unlink

    def unlink(self: Path, missing_ok: bool = False) -> None:
        if self.name == "documents.u64" and "dropped" in str(self):
            raise PermissionError
        real(self, missing_ok=missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", unlink)
        with pytest.raises(NotRemoved):
            drop(one, "law")
    assert [Path(name).name for name in left(one)] == ["documents.u64"]
    lm_case.source(one, "cells")
    drop(one, "cells")
    assert left(one) == []


def test_folders_that_are_set_aside_twice_by_one_process_have_two_names(one: Path, tmp_path: Path) -> None:
    other = lm_case.store(tmp_path / "other")
    lm_case.source(other, "law")
    drop(one, "law", reclaim=False)
    with brought(one, found(other)) as checked:
        add(one, checked, reclaim=False)
    drop(one, "law", reclaim=False)
    assert list((one / "sources").iterdir()) == []
    assert len(list((one / "building").iterdir())) == 2


# --- a first build --------------------------------------------------------------------------------------------------


def test_two_first_builds_at_once_lose_no_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, real = tmp_path / "store", Parts.save
    lm_case.lines(tmp_path / "law.jsonl", lm_case.texts("law", 20))
    others: list[threading.Thread] = []

    def other() -> None:
        with suppress(SourceTwice):
            lm_case.store(place)
        law(place)

    def save(self: Parts, folder: Path) -> None:
        real(self, folder)
        if not others:
            others.append(threading.Thread(target=other))
            others[0].start()
            others[0].join(2)  # it comes to its end here where nobody has it wait

    monkeypatch.setattr(Parts, "save", save)
    lm_case.store(place)
    others[0].join()
    assert Datastore.open(place).names == ["law"]


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
import lm_case
from pathlib import Path
try:
    lm_case.store(Path(sys.argv[1]))
except Exception as error:
    print(error.code)
"""


def test_a_first_build_that_ran_out_of_disk_is_begun_anew(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "store")]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == "datastore.disk_full", ran.stderr
    file = lm_case.lines(tmp_path / "public.jsonl", lm_case.texts("public", 30))
    own = ("--owner", "me", "--licence", "CC0-1.0", "--lists", "8")
    assert call("lm", "build", file, "--public", "--out", tmp_path / "store", *own).status == 0
    assert Datastore.open(tmp_path / "store").names == ["public"]


def test_a_store_is_not_begun_anew_over_sources_that_lost_their_head(one: Path) -> None:
    (one / "store.json").unlink()
    with pytest.raises(HalfBuilt):
        Datastore.create(one, lm_case.parts())
    assert left(one)


# --- readers beside changes -----------------------------------------------------------------------------------------


def again(one: Path, tmp_path: Path) -> Callable[[], None]:
    """Drops law and adds the same law again."""
    other = lm_case.store(tmp_path / "other")
    lm_case.source(other, "law")

    def change() -> None:
        drop(one, "law")
        with brought(one, found(other)) as checked:
            add(one, checked)

    return change


@pytest.mark.parametrize("read", [Datastore.open, manifests])
def test_a_source_that_is_dropped_and_added_again_while_a_reader_opens(
    one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], object]
) -> None:
    change, calls = again(one, tmp_path), []
    real = read_manifest

    def manifest(folder: Path) -> source.Manifest:
        if not calls:
            calls.append(folder)
            change()
            raise NoSource("gone for a moment")
        return real(folder)

    monkeypatch.setattr(datastore, "read_manifest", manifest)
    read(one)
    assert calls


def test_a_source_that_came_meanwhile_stays_where_readers_have_it(one: Path, tmp_path: Path) -> None:
    other = lm_case.store(tmp_path / "other")
    lm_case.source(other, "law")
    before = os.stat(found(one)).st_ino
    with brought(one, found(other)) as checked:
        become(one, Head.read(other), [checked])
    assert os.stat(found(one)).st_ino == before
    assert list((one / "building").iterdir()) == []


def test_sources_and_version_are_of_one_head(one: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = Head.read.__func__, []  # type: ignore[attr-defined]

    def read(kind: type[Head], store: Path) -> Head:
        said = real(kind, store)
        if not calls:
            calls.append(said)
            drop(one, "law", reclaim=False)
            (one / "building").joinpath("dropped-0-" + said.folder("law")).rename(one / "sources" / said.folder("law"))
        return said

    monkeypatch.setattr(Head, "read", classmethod(read))
    said = call("lm", "sources", one, "--json").json
    assert [row["name"] for row in said["sources"]] == ["law"]
    assert said["version"] == calls[0].digest


def test_what_was_found_in_a_source_does_not_come_back_after_it_was_dropped(one: Path) -> None:
    store = Datastore.open(one)
    asked = queries(store)
    direct = store.search(asked.tokens, 3)["law"]
    text = np.array(store.source("law").document(2)[:30])
    drop(one, "law")
    assert listed(store, asked, folder_of(one))["law"].passages.tobytes() == direct.passages.tobytes()
    assert [trace.length for trace in traces(store, text, folder_of(one))] == [30]
    assert left(one) == []


def test_what_was_found_while_its_source_is_dropped_is_not_kept(one: Path) -> None:
    store = Datastore.open(one)
    asked = queries(store)
    hits = listed(store, asked, folder_of(one), said=lambda _name, _done: drop(one, "law"))
    assert (hits["law"].passages >= 0).all()
    assert left(one) == []


def test_a_list_that_could_not_be_written_leaves_nothing(one: Path) -> None:
    store = Datastore.open(one)

    def said(_name: str, _done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        listed(store, queries(store), folder_of(one), said=said)
    assert lm_case.tree(folder_of(one)) == {}


# --- lists of sources whose names begin alike -----------------------------------------------------------------------


def test_pieces_of_law_0_are_in_no_list_of_law(one: Path, tmp_path: Path) -> None:
    lm_case.source(one, "law-0", documents=7)
    store = Datastore.open(one)
    asked = queries(store)
    from strongroom.app.stores.cluster import asked as ask

    place = tmp_path / "asked"
    place.mkdir()
    np.save(place / "tokens.npy", np.asarray(asked.tokens, np.uint16))
    np.save(place / "without.npy", np.asarray([], np.int64))
    for name in store.names:
        (place / name).mkdir()
        for first, end in ((0, 2), (2, 5)):
            row = {"store": str(one), "version": store.version, "place": str(place), "k": 3}
            assert ask({**row, "number": 0, "source": name, "first": first, "end": end})["error"] is None
    lists = listed(store, asked, folder_of(one), made=place)
    direct = store.search(asked.tokens, 3)
    for name in store.names:
        assert lists[name].passages.tobytes() == direct[name].passages.tobytes()
    kept = folder_of(one) / store.source("law").manifest.folder
    assert sum(path.stat().st_size for path in kept.iterdir()) < 128 + 5 * 3 * 12 + 1
    with pytest.raises(HalfBuilt):
        listed(store, Queries(asked.tokens[:4], 3), folder_of(one), made=place)


# --- files that are none --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["store.json", "parts/parts.json", "parts/tokenizer.json", "manifest.json"])
@pytest.mark.parametrize("how", ["pipe", "link", "large"])
def test_files_without_an_end_are_not_read(one: Path, tmp_path: Path, name: str, how: str) -> None:
    file = found(one) / name if name == "manifest.json" else one / name
    os.rename(file, tmp_path / "kept")
    if how == "pipe":
        os.mkfifo(file)
    elif how == "link":
        file.symlink_to("/dev/zero")
    else:
        with file.open("wb") as out:
            out.truncate(100 << 30)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.alarm(60)  # it would wait for ever
    try:
        with pytest.raises(BadManifest if how == "large" else StoreTruncated):
            Datastore.open(one)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_a_change_after_the_check_shows_where_its_time_is_put_back(one: Path) -> None:
    checked = check(found(one), lm_case.parts())
    file = found(one) / "tokens.u16"
    times = file.stat()
    with file.open("r+b") as out:
        out.write(b"\x09\x00")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(DigestMismatch):
        checked.unchanged()


def test_sources_that_cannot_be_told_apart_do_not_come_with_a_whole_head(
    one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = lm_case.store(tmp_path / "other")
    for name in ("law", "cells"):
        lm_case.source(other, name)
    monkeypatch.setattr(datastore, "document_key", lambda _name, number: number)
    with brought(one, found(other, "cells")) as checked, pytest.raises(BadSourceName):
        become(one, Head.read(other), [checked])
    assert Head.read(one).sources.keys() == {"law"}


def test_who_waits_for_a_lock_that_is_removed_does_not_hold_it(tmp_path: Path) -> None:
    from strongroom.lm import locks

    folder = tmp_path / "folder"
    real, opened = os.open, []

    def opens(path: os.PathLike[str], *words: int) -> int:
        number = real(path, *words)
        if not opened:  # its holder comes to its end between opening and locking
            opened.append(number)
            os.unlink(path)
        return number

    os_open = locks.os.open
    try:
        locks.os.open = opens  # type: ignore[assignment]
        with locks.alone(folder):
            assert (folder / "lock").exists()
    finally:
        locks.os.open = os_open
