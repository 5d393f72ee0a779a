"""Control groups: where they are found, what is written into them, and that nothing stays behind. Real ones are in
``attacks/test_escapes.py``; here are folders that look like them, of either version."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.enclave import sandbox_cgroup, sandbox_child
from strongroom.enclave.sandbox_cgroup import Cgroup, Place, places

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="control groups are Linux's")
SECOND = "29 23 0:26 {root} {at} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
FIRST = "{n} 23 0:{n} {root} {at} rw shared:9 - cgroup cgroup rw,{name}\n"


def proc(folder: Path, groups: str, mounts: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "cgroup").write_text(groups)
    (folder / "mountinfo").write_text(mounts)
    return folder


@pytest.fixture
def second(tmp_path: Path) -> Path:
    """A group of version 2."""
    own = tmp_path / "sys" / "room.service"
    own.mkdir(parents=True)
    (own / "cgroup.controllers").write_text("cpu io memory pids\n")
    (own / "cgroup.subtree_control").write_text("")
    (own / "cgroup.procs").write_text("")
    return own


# --- where they are ---------------------------------------------------------------------------------------------------


def test_version_two_is_found(tmp_path: Path, second: Path) -> None:
    seen = proc(tmp_path / "proc", "0::/room.service\n", SECOND.format(root="/", at=tmp_path / "sys"))
    assert places(seen) == dict.fromkeys(("cpu", "memory", "pids"), Place(2, second))


def test_version_one_and_both_together_are_found(tmp_path: Path, second: Path) -> None:
    (second / "cgroup.controllers").write_text("cpu\n")
    mounts = SECOND.format(root="/", at=tmp_path / "sys")
    mounts += FIRST.format(n=31, root="/", at="/cg/memory", name="memory")
    mounts += FIRST.format(n=32, root="/", at="/cg/both", name="pids,hugetlb")
    seen = proc(tmp_path / "proc", "5:pids,hugetlb:/\n4:memory:/a/b\n1:name=systemd:/\n0::/room.service\n", mounts)
    assert places(seen) == {
        "cpu": Place(2, second),
        "memory": Place(1, Path("/cg/memory/a/b")),
        "pids": Place(1, Path("/cg/both")),
    }


@pytest.mark.parametrize(
    ("root", "group", "found"),
    [
        ("/", "/", "/m"),
        ("/", "/a", "/m/a"),
        ("/a", "/a", "/m"),
        ("/a", "/a/b", "/m/b"),
        ("/a", "/ab", None),
        ("/a", "/", None),
        ("/..", "/a", None),
        ("/", "/../a", None),  # of another namespace: what is above us is not ours
    ],
)
def test_a_mount_shows_what_is_below_its_root(root: str, group: str, found: str | None, tmp_path: Path) -> None:
    seen = proc(tmp_path / "proc", f"4:memory:{group}\n", FIRST.format(n=31, root=root, at="/m", name="memory"))
    assert places(seen) == ({"memory": Place(1, Path(found))} if found else {})


def test_blanks_in_a_mount_are_read(tmp_path: Path) -> None:
    seen = proc(tmp_path / "proc", "4:memory:/\n", FIRST.format(n=31, root="/", at="/a\\040b", name="memory"))
    assert places(seen) == {"memory": Place(1, Path("/a b"))}


def test_a_machine_that_has_none(tmp_path: Path) -> None:
    assert places(tmp_path) == {}
    assert places(proc(tmp_path / "proc", "", "")) == {}


# --- dividing a group of version 2 ------------------------------------------------------------------------------------


def test_a_group_that_is_divided_already_is_used(second: Path) -> None:
    (second / "cgroup.subtree_control").write_text("memory pids\n")
    assert sandbox_cgroup._divided(second, "memory") == second


def test_a_service_that_was_put_into_a_group_of_its_own_divides_the_one_above(second: Path) -> None:
    (second / "enclave").mkdir()
    assert sandbox_cgroup._divided(second / "enclave", "pids") == second
    assert (second / "cgroup.subtree_control").read_text() == "+pids"


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group with processes in it takes no controllers; one without does."""
    write = sandbox_cgroup._write

    def refusing(path: Path, text: str) -> None:
        if path.name == "cgroup.subtree_control" and (path.parent / "cgroup.procs").read_text():
            raise OSError(16, "busy")
        if path.parent.name == "enclave":
            (path.parent.parent / "cgroup.procs").write_text("")
            path.touch()
        write(path, text)

    monkeypatch.setattr(sandbox_cgroup, "_write", refusing)


@pytest.mark.usefixtures("busy")
def test_who_is_alone_in_a_group_moves_into_one_below(second: Path) -> None:
    (second / "cgroup.procs").write_text(f"{os.getpid()}\n")
    assert sandbox_cgroup._divided(second, "memory") == second
    assert (second / "enclave" / "cgroup.procs").read_text() == "0"


@pytest.mark.usefixtures("busy")
def test_who_is_not_alone_moves_nobody(second: Path) -> None:
    (second / "cgroup.procs").write_text(f"1\n{os.getpid()}\n")
    with pytest.raises(PermissionError):
        sandbox_cgroup._divided(second, "memory")
    assert not (second / "enclave").exists()


# --- what is written --------------------------------------------------------------------------------------------------

CONTROLS = {
    2: ("memory.max", "memory.swap.max", "memory.oom.group", "memory.current", "memory.events", "pids.max", "cpu.max",
        "cgroup.procs", "cgroup.kill"),
    1: ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.usage_in_bytes", "memory.oom_control", "pids.max",
        "cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us", "cgroup.procs"),
}  # fmt: skip


@pytest.fixture(params=[1, 2])
def version(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A folder that is made has the files of a group, and goes with them."""
    mkdir, rmdir = Path.mkdir, Path.rmdir

    def make(self: Path, *words: object, **more: object) -> None:
        mkdir(self, *words, **more)  # type: ignore[arg-type]
        if self.name.startswith("strongroom-"):
            for name in CONTROLS[request.param]:
                (self / name).write_text("100" if name in {"memory.current", "memory.usage_in_bytes"} else "")
            if request.param == 1:
                for name in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"):
                    (self / name).write_text("9223372036854771712")

    def remove(self: Path) -> None:
        if self.name.startswith("strongroom-"):
            for path in self.iterdir():
                path.unlink()
        rmdir(self)

    monkeypatch.setattr(Path, "mkdir", make)
    monkeypatch.setattr(Path, "rmdir", remove)
    yield request.param
    monkeypatch.undo()


def everything(tmp_path: Path) -> dict[str, Path]:
    return dict.fromkeys(("cpu", "memory", "pids"), tmp_path)


def only(tmp_path: Path) -> Path:
    (found,) = tmp_path.glob("strongroom-*")
    return found


def text(folder: Path, name: str) -> str:
    """What was written last: these files are not cut."""
    return (folder / name).read_text()


def test_limits_are_written_in_either_version(version: int, tmp_path: Path) -> None:
    group = Cgroup(everything(tmp_path), 65, 1.5)
    assert group.walls == tuple(sorted(sandbox_cgroup.WALLS.values()))
    own = only(tmp_path)
    assert text(own, "pids.max") == "65"
    start = str(sandbox_cgroup.LOADING_BYTES)
    if version == 2:
        assert (text(own, "memory.max"), text(own, "memory.swap.max"), text(own, "memory.oom.group")) == (start, "0", "1")
        assert text(own, "cpu.max") == "150000 100000"
    else:
        assert text(own, "memory.limit_in_bytes").startswith(start)
        assert text(own, "memory.memsw.limit_in_bytes").startswith(start)
        assert (text(own, "cpu.cfs_quota_us"), text(own, "cpu.cfs_period_us")) == ("150000", "100000")
    group.join(4711)
    assert text(own, "cgroup.procs") == "4711"
    group._joined = False
    (own / "cgroup.procs").write_text("")
    group.end()
    group.end()
    assert list(tmp_path.iterdir()) == []


def test_memory_beside_what_is_held(version: int, tmp_path: Path) -> None:
    group = Cgroup({"memory": tmp_path}, 65)
    own, name = only(tmp_path), "memory.max" if version == 2 else "memory.limit_in_bytes"
    (own / name).write_text("0" if version == 1 else "")
    if version == 1:
        (own / "memory.memsw.limit_in_bytes").write_text("0")
    group.limit_memory(1000, more=True)
    assert text(own, name) == "1100"
    group.end()
    Cgroup({}, 65).limit_memory(1)  # nothing to write to


@pytest.mark.parametrize(
    ("said", "starved"),
    [("", False), ("oom_kill 0\n", False), ("oom 3\noom_kill 2\n", True), ("under_oom 0\noom_kill 1\n", True)],
)
def test_a_kill_by_the_kernel_is_told_from_a_crash(version: int, tmp_path: Path, said: str, starved: bool) -> None:
    group = Cgroup({"memory": tmp_path}, 65)
    (only(tmp_path) / ("memory.events" if version == 2 else "memory.oom_control")).write_text(said)
    assert group.starved() == starved
    group.end()
    assert not Cgroup({"pids": tmp_path}, 65).starved()


@pytest.mark.usefixtures("version")
def test_a_wall_that_could_not_be_built_is_not_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = sandbox_cgroup._write

    def refusing(path: Path, value: str) -> None:
        if path.name in {"cpu.max", "cpu.cfs_quota_us"}:
            raise OSError(22, "more than the group above has")
        write(path, value)

    monkeypatch.setattr(sandbox_cgroup, "_write", refusing)
    group = Cgroup(everything(tmp_path), 65)
    assert group.walls == ("cgroup-memory", "cgroup-processes")
    group.end()


def test_where_no_group_can_be_made_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_cgroup, "parents", lambda: {"memory": tmp_path / "nowhere"})
    assert sandbox_cgroup.make(65) is None


def test_groups_that_cannot_be_divided_or_written_are_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"memory": Place(2, tmp_path / "nowhere"), "pids": Place(1, tmp_path)}
    monkeypatch.setattr(sandbox_cgroup, "places", lambda: found)
    assert sandbox_cgroup.parents.__wrapped__() == {"pids": tmp_path}
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert sandbox_cgroup.parents.__wrapped__() == {}


def test_what_the_dead_left_is_swept_and_what_the_living_hold_is_not(tmp_path: Path) -> None:
    for name in ("strongroom-dead", "strongroom-living", "strongroom-file", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "strongroom-file" / "held").touch()  # as a group with a process in it, it cannot be removed
    lock = sandbox_cgroup._locked(tmp_path / "strongroom-living")
    assert sandbox_cgroup._locked(tmp_path / "strongroom-living") == -1
    sandbox_cgroup._sweep(tmp_path)
    os.close(lock)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "strongroom-file", "strongroom-living"]
    with pytest.raises(FileNotFoundError):
        sandbox_cgroup._locked(tmp_path / "nowhere")


@pytest.mark.usefixtures("version")
def test_whatever_is_in_it_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = Cgroup({"pids": tmp_path}, 65)
    own = only(tmp_path)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        group.join(process.pid)

        def inside() -> Iterator[int]:
            yield from [process.pid] if process.poll() is None else []

        (own / "cgroup.procs").write_text(f"{process.pid}\n0\n")
        assert list(group._inside()) == [process.pid]
        monkeypatch.setattr(group, "_inside", inside)
        group.end()
        assert process.wait() == -9
    assert not own.exists()


def test_a_child_whose_group_cannot_be_entered_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Cgroup({}, 65)

    def refused(_: int) -> None:
        raise OSError(1, "no")

    monkeypatch.setattr(made, "join", refused)
    monkeypatch.setattr(sandbox_cgroup, "make", lambda _: made)
    child = sandbox_child.Child.__new__(sandbox_child.Child)
    child.pid, child._cgroup, child.walls = 1, None, ()
    child._join(65)
    assert (child._cgroup, child.walls) == (None, ())


@given(st.text(max_size=200), st.text(max_size=200))
def test_any_text_is_read_as_groups_or_none(groups: str, mounts: str) -> None:
    folder = Path(f"/tmp/strongroom-test-{os.getpid()}")
    try:
        assert isinstance(places(proc(folder, groups, mounts)), dict)
    finally:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
