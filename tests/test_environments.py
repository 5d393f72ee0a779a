"""Environments: the packages of a lock and nothing else, built once, from wheels whose hashes the lock names."""

from __future__ import annotations

import errno
import hashlib
import http.server
import json
import multiprocessing
import os
import random
import signal
import stat
import sys
import threading
import zipfile
from collections.abc import Iterator
from importlib.util import cache_from_source
from pathlib import Path

import pytest

from strongroom.app.enclave import environments, wheels
from strongroom.app.enclave.environments import Environments
from strongroom.app.enclave.wheels import Place, Unpacked, best
from strongroom.enclave import sandbox
from strongroom.errors import BadLock, EnvironmentAltered, NoSandbox, NoWheel, WheelRefused
from strongroom.lock import Lock, Pin
from wheel_files import wheel

PIN = Pin("a", "1.0", ("0" * 64,), None, 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "environments"


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    return tmp_path / "wheels"


def built(folder: Path, shelf: Path, lock: str) -> Path:
    return Path(Environments(folder, Place(shelf)).get(Lock.parse(lock)).path)


def files(place: Path) -> set[str]:
    return {str(p.relative_to(place)) for p in place.rglob("*") if p.is_file() and p.parent.name != "__pycache__"}


def test_a_lock_becomes_a_folder_of_its_packages_that_nobody_can_write(folder: Path, shelf: Path) -> None:
    lock = wheel(shelf, "alpha", {"alpha/__init__.py": "X = 1\n"}) + wheel(
        shelf,
        "beta-two",
        {"beta_two.py": "import alpha\n", "beta_two-1.0.data/purelib/more.py": "", "beta_two-1.0.data/scripts/run": ""},
    )
    place = built(folder, shelf, lock)
    infos = {f"{n}-1.0.dist-info/{f}" for n in ("alpha", "beta_two") for f in ("METADATA", "WHEEL", "RECORD")}
    assert files(place) == {"alpha/__init__.py", "beta_two.py", "more.py", *infos}
    assert not any(path.stat().st_mode & 0o222 for path in place.rglob("*"))
    assert {p.name for p in folder.iterdir() if not p.name.endswith(".lock")} == {place.parent.name}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_it_is_built_once_and_bytecode_is_ready(folder: Path, shelf: Path) -> None:
    lock = wheel(shelf, "alpha", {"alpha/__init__.py": "X = 1\n", "alpha/odd.py": "print 1\n"})
    place = built(folder, shelf, lock)
    compiled = Path(cache_from_source(str(place / "alpha/__init__.py")))
    before = compiled.stat().st_mtime_ns
    for old in shelf.iterdir():
        old.unlink()
    assert built(folder, shelf, lock) == place  # another process: nothing is fetched, and nothing compiled
    assert compiled.stat().st_mtime_ns == before
    one = Environments(folder, Place(shelf))
    assert one.get(Lock.parse(lock)) is one.get(Lock.parse(lock))


def test_bytecode_that_somebody_planted_is_compiled_anew(folder: Path, shelf: Path) -> None:
    place = built(folder, shelf, lock := wheel(shelf, "alpha", {"alpha.py": "X = 1\n"}))
    compiled = Path(cache_from_source(str(place / "alpha.py")))
    good = compiled.read_bytes()
    compiled.parent.chmod(0o755)
    compiled.chmod(0o644)
    compiled.write_bytes(good[:16] + b"planted")
    assert built(folder, shelf, lock) == place
    assert compiled.read_bytes() == good


def test_a_hash_that_is_not_the_locks_is_refused(folder: Path, shelf: Path) -> None:
    wheel(shelf, "alpha", {"alpha.py": ""})
    with pytest.raises(NoWheel, match=r"alpha==1\.0: none of the wheels has a hash"):
        built(folder, shelf, f"alpha==1.0 --hash=sha256:{'0' * 64}")
    assert not [p for p in folder.iterdir() if not p.name.endswith(".lock")]


@pytest.mark.parametrize("line", ["beta==1.0", "alpha==2.0"])
def test_a_wheel_that_is_missing(folder: Path, shelf: Path, line: str) -> None:
    wheel(shelf, "alpha", {"alpha.py": ""})
    with pytest.raises(NoWheel, match="there is no wheel for this interpreter"):
        built(folder, shelf, f"{line} --hash=sha256:{'0' * 64}")


def test_a_wheel_for_another_machine_is_none_for_this_one(folder: Path, shelf: Path) -> None:
    lock = wheel(shelf, "alpha", {"alpha.py": ""}, tag="cp27-cp27m-win32")
    with pytest.raises(NoWheel, match="for this interpreter"):
        built(folder, shelf, lock)


def test_no_place_means_no_wheel(folder: Path) -> None:
    with pytest.raises(NoWheel):
        Environments(folder, Place()).get(Lock.parse(f"a==1 --hash=sha256:{'0' * 64}"))
    assert not Place()
    assert Place(folder)


def test_the_best_fitting_wheel_comes_first() -> None:
    mine = f"cp{sys.version_info.major}{sys.version_info.minor}"
    names = ["a-1.0-py3-none-any.whl", f"a-1.0-{mine}-none-any.whl", "b-1.0-py3-none-any.whl", "a-1.0.tar.gz", "x.whl"]
    assert best(PIN, names) == [f"a-1.0-{mine}-none-any.whl", "a-1.0-py3-none-any.whl"]


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ("alpha.pth", "a .pth file"),
        ("alpha-1.0.data/purelib/alpha.pth", "a .pth file"),
        ("json/__init__.py", "a module 'json'"),
        ("socket.py", "a module 'socket'"),
        ("pandas/__init__.py", "a module 'pandas'"),
        ("numpy.py", "a module 'numpy'"),
        ("sitecustomize.py", "a module 'sitecustomize'"),
        ("strongroom/wire.py", "a module 'strongroom'"),
        ("alpha-1.0.data/platlib/os.py", "a module 'os'"),
        ("zlib.cpython-311-x86_64-linux-gnu.so", "a module 'zlib'"),
        ("../escape.py", "outside of its folder"),
        ("/etc/escape.py", "outside of its folder"),
        ("alpha\\..\\escape.py", "outside of its folder"),
        ("C:escape.py", "outside of its folder"),
        ("alpha/link->/etc/passwd", "a link"),
    ],
)
def test_a_wheel_that_holds_what_no_environment_may(folder: Path, shelf: Path, entry: str, why: str) -> None:
    lock = wheel(shelf, "alpha", {"alpha/__init__.py": "", entry: "x"})
    with pytest.raises(WheelRefused, match=why):
        built(folder, shelf, lock)
    assert not [p for p in folder.iterdir() if not p.name.endswith(".lock")]


def test_what_looks_like_a_module_and_is_none_is_kept(folder: Path, shelf: Path) -> None:
    lock = wheel(
        shelf, "alpha", {"json-1.dist-info/x": "", "alpha/json.py": "", "alpha/__pycache__/json.cpython-311.pyc": "x"}
    )
    assert {"json-1.dist-info/x", "alpha/json.py"} < files(built(folder, shelf, lock))


def test_two_packages_with_one_file(folder: Path, shelf: Path) -> None:
    same = wheel(shelf, "alpha", {"shared/__init__.py": ""}) + wheel(shelf, "beta", {"shared/__init__.py": ""})
    assert built(folder, shelf, same)
    other = wheel(shelf, "gamma", {"shared/__init__.py": "x = 1\n"})
    with pytest.raises(WheelRefused, match="and a different one"):
        built(folder, shelf, same + other)


@pytest.mark.parametrize("how", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_wheel_that_was_compressed_and_damaged(tmp_path: Path, how: int) -> None:
    path, target = tmp_path / "alpha-1.0-py3-none-any.whl", tmp_path / "unpacked"
    target.mkdir()
    with zipfile.ZipFile(path, "w", how) as archive:
        archive.writestr("alpha/__init__.py", random.Random(1).randbytes(1000))
    damaged = bytearray(path.read_bytes())
    damaged[60:90] = bytes(b ^ 0xFF for b in damaged[60:90])
    path.write_bytes(damaged)
    with pytest.raises(WheelRefused, match="no archive"):
        Unpacked(target).add(path, PIN)


def test_an_archive_that_is_none(folder: Path, shelf: Path) -> None:
    shelf.mkdir()
    (shelf / "alpha-1.0-py3-none-any.whl").write_bytes(b"PK no")
    with pytest.raises(WheelRefused, match="no archive"):
        built(folder, shelf, f"alpha==1.0 --hash=sha256:{hashlib.sha256(b'PK no').hexdigest()}")


def test_a_full_disk_is_no_fault_of_the_wheel(folder: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    lock = wheel(shelf, "alpha", {"alpha/__init__.py": ""})
    monkeypatch.setattr(wheels.Unpacked, "_write", full)
    with pytest.raises(WheelRefused, match="cannot be unpacked: No space left"):
        built(folder, shelf, lock)


def test_a_bomb_is_counted_as_it_comes(folder: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = wheel(shelf, "alpha", {"alpha/big.txt": "0" * (4 << 20)})
    assert (shelf / "alpha-1.0-py3-none-any.whl").stat().st_size < 10_000
    monkeypatch.setattr(environments, "Unpacked", lambda place: wheels.Unpacked(place, {}, 1 << 20))
    with pytest.raises(WheelRefused, match="holds at most"):
        built(folder, shelf, lock)


def test_an_environment_has_so_many_files_and_no_more(folder: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "MAX_ENTRIES", 3)
    with pytest.raises(WheelRefused, match="at most 3 files"):
        built(folder, shelf, wheel(shelf, "alpha", {f"a{n}.py": "" for n in range(4)}))


@pytest.mark.parametrize("what", ["altered", "added", "removed", "linked", "manifest", "no manifest", "another lock"])
def test_an_environment_that_was_altered_is_refused(folder: Path, shelf: Path, what: str) -> None:
    lock = wheel(shelf, "alpha", {"alpha.py": "X = 1\n", "beta.py": ""})
    place = built(folder, shelf, lock)
    place.chmod(0o755)
    manifest = place.parent / "manifest.json"
    manifest.chmod(0o644)
    if what in ("altered", "removed", "linked"):
        (place / "alpha.py").chmod(0o644)
    if what == "altered":
        (place / "alpha.py").write_text("X = 2\n")
    elif what == "added":
        (place / "evil.py").write_text("")
    elif what in ("removed", "linked"):
        (place / "alpha.py").unlink()
        if what == "linked":
            (place / "alpha.py").symlink_to("beta.py")
    elif what == "manifest":
        manifest.write_text("{}")
    elif what == "no manifest":
        manifest.unlink()
    else:
        manifest.write_text(manifest.read_text().replace('"lock":"sha256:', '"lock":"sha256:0', 1))
    with pytest.raises(EnvironmentAltered):
        built(folder, shelf, lock)


def test_a_folder_where_others_may_write_is_refused(folder: Path, shelf: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(EnvironmentAltered, match="others may write"):
        built(folder, shelf, wheel(shelf, "alpha", {"alpha.py": ""}))


def test_two_versions_for_this_interpreter_are_refused(folder: Path, shelf: Path) -> None:
    lock = wheel(shelf, "alpha", {"alpha.py": ""}) + wheel(shelf, "alpha", {"alpha.py": ""}, "2.0").replace(
        " --", " ; python_version >= '3' --"
    )
    with pytest.raises(BadLock, match="both for alpha"):
        built(folder, shelf, lock)


def test_a_build_that_was_killed_leaves_nothing_that_looks_like_one(folder: Path, shelf: Path) -> None:
    lock = wheel(shelf, "alpha", {"alpha.py": ""}) + wheel(shelf, "beta", {"beta.py": ""})
    killed = multiprocessing.get_context("spawn").Process(target=_killed, args=(str(folder), str(shelf), lock))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    left = [p for p in folder.iterdir() if p.name.endswith(".partial")]
    assert len(left) == 1
    assert (left[0] / "packages/alpha.py").exists()
    place = built(folder, shelf, lock)
    assert {"alpha.py", "beta.py"} < files(place)
    assert not [p for p in folder.iterdir() if p.name.endswith(".partial")]


def _killed(folder: str, shelf: str, lock: str) -> None:
    real = wheels.Unpacked.add

    def add(self: wheels.Unpacked, path: Path, pin: Pin) -> None:
        real(self, path, pin)
        os.kill(os.getpid(), signal.SIGKILL)

    wheels.Unpacked.add = add
    built(Path(folder), Path(shelf), lock)


def test_two_that_build_at_once_make_one(folder: Path, shelf: Path) -> None:
    lock = wheel(shelf, "alpha", {f"alpha/m{n}.py": f"X = {n}\n" for n in range(50)})
    places, ready = [], threading.Barrier(4)

    def build() -> None:
        ready.wait()
        places.append(built(folder, shelf, lock))  # each with an Environments of its own, as processes have

    threads = [threading.Thread(target=build) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(places) == 4
    assert len(set(places)) == 1


# --- an index -------------------------------------------------------------------------------------------------------


class Shop(http.server.ThreadingHTTPServer):
    """A simple index in JSON (PEP 691)."""

    def __init__(self, shelf: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Page)
        self.shelf, self.lies, self.page = shelf, False, b""
        self.asked: list[str] = []


class _Page(http.server.BaseHTTPRequestHandler):
    server: Shop

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        name = self.path.strip("/").split("/")[-1]
        if name.endswith(".whl"):
            body = b"other bytes" if self.server.lies else (self.server.shelf / name).read_bytes()
        else:
            body = (
                self.server.page
                or json.dumps(
                    {
                        "files": [
                            {
                                "filename": p.name,
                                "url": f"../../files/{p.name}",
                                "hashes": {"sha256": hashlib.sha256(p.read_bytes()).hexdigest()},
                            }
                            for p in self.server.shelf.glob("*.whl")
                        ],
                        "meta": {"api-version": "1.0"},
                    }
                ).encode()
            )
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def shop(shelf: Path) -> Iterator[Shop]:
    with Shop(shelf) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def address(shop: Shop) -> str:
    return f"http://127.0.0.1:{shop.server_address[1]}/simple"


def test_an_index_is_asked_for_what_the_folder_has_not(folder: Path, shelf: Path, shop: Shop) -> None:
    lock = wheel(shelf, "alpha", {"alpha.py": ""})
    place = Environments(folder, Place(folder / "nowhere", address(shop))).get(Lock.parse(lock))
    assert "alpha.py" in files(Path(place.path))
    assert shop.asked == ["/simple/alpha/", "/files/alpha-1.0-py3-none-any.whl"]


@pytest.mark.parametrize(
    ("page", "lies", "why"),
    [
        (b"", True, "served other bytes"),
        (b"<html>", False, "no.* list in JSON"),
        (b"[]", False, "something else than a list"),
        (b'{"files": [1]}', False, "something else than a list"),
        (b'{"files": []}', False, "no wheel for this interpreter"),
    ],
)
def test_an_index_that_lies_is_refused(folder: Path, shelf: Path, shop: Shop, page: bytes, lies: bool, why: str) -> None:
    lock = wheel(shelf, "alpha", {"alpha.py": ""})
    shop.page, shop.lies = page, lies
    with pytest.raises(NoWheel, match=why):
        Environments(folder, Place(None, address(shop))).get(Lock.parse(lock))


def test_an_archive_that_says_less_than_it_holds(folder: Path, shelf: Path) -> None:
    wheel(shelf, "alpha", {"alpha.py": "x" * 1000})
    path = shelf / "alpha-1.0-py3-none-any.whl"
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        at = archive.infolist()[0].header_offset
    data[at : at + 4] = b"XXXX"
    path.write_bytes(bytes(data))
    with pytest.raises(WheelRefused, match="no archive"):
        built(folder, shelf, f"alpha==1.0 --hash=sha256:{hashlib.sha256(bytes(data)).hexdigest()}")


# --- cleaning -------------------------------------------------------------------------------------------------------


def several(folder: Path, shelf: Path, count: int, *, days: int = 30) -> list[tuple[Lock, Path]]:
    """Environments that were asked for long ago, each a day after the one before."""
    found = []
    for n in range(count):
        lock = Lock.parse(wheel(shelf, f"old-{n}", {f"old_{n}.py": f"X = {n}\n"}))
        place = Path(Environments(folder, Place(shelf)).get(lock).path).parent
        at = place.stat().st_mtime - (days - n) * 86400
        os.utime(place, (at, at))
        found.append((lock, place))
    return found


def test_the_least_lately_used_goes_when_there_are_too_many(
    folder: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = several(folder, shelf, 4)
    assert Environments(folder, Place(shelf)).get(old[0][0])  # used again: it is not the oldest any more
    monkeypatch.setattr(environments, "KEPT", 3)
    built(folder, shelf, wheel(shelf, "new", {"new.py": ""}))
    assert [place.exists() for _, place in old] == [True, False, False, True]
    assert not list(folder.glob(".*"))


def test_they_are_bounded_in_bytes_too(folder: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = several(folder, shelf, 2)
    monkeypatch.setattr(environments, "KEPT_BYTES", 1)
    place = Path(built(folder, shelf, wheel(shelf, "new", {"new.py": ""})))
    assert [place.exists() for _, place in old] == [False, False]
    assert place.exists()  # though it alone is more than that: it was asked for just now


def test_one_that_a_sandbox_sees_is_never_removed(folder: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [(lock, place)] = several(folder, shelf, 1)
    monkeypatch.setattr(environments, "KEPT", 1)
    mounted = Environments(folder, Place(shelf)).get(lock)
    with sandbox.prepare("code", "process", mounted=mounted):
        os.utime(place, (1, 1))
        built(folder, shelf, wheel(shelf, "new", {"new.py": ""}))
        assert place.exists()
    built(folder, shelf, wheel(shelf, "newer", {"newer.py": ""}))
    assert not place.exists()


def test_one_that_was_removed_and_built_again_is_checked_again(
    folder: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [(lock, place)] = several(folder, shelf, 1)
    known = Environments(folder, Place(shelf))
    mounted = known.get(lock)
    os.utime(place, (1, 1))
    monkeypatch.setattr(environments, "KEPT", 1)
    built(folder, shelf, wheel(shelf, "new", {"new.py": ""}))
    assert not place.exists()
    with pytest.raises(NoSandbox, match="not there any more"):
        sandbox.prepare("code", "process", mounted=mounted)
    assert Path(known.get(lock).path).is_dir()
    environments._remove(place)
    (place / "packages").mkdir(parents=True)
    with pytest.raises(EnvironmentAltered):
        known.get(lock)
