"""Escapes from the sandbox, one test each, by code that means ill.

Every probe is run twice: inside, where it must come to nothing, and as an ordinary process or with the wall in question
taken down, where it must work, so that no check is of an attack that would fail anyhow. A machine on which it does not
work there either (no AF_VSOCK, a kernel that lets nobody trace) skips the test and says why.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import sysconfig
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from confined import LIMITS, OUTPUTS, given, inside, outside, start
from strongroom.enclave import sandbox, sandbox_cgroup, sandbox_child, sandbox_landlock, sandbox_view
from strongroom.enclave.sandbox_child import BUBBLEWRAP, KINDS, NAMESPACES, PROCESS, works
from strongroom.errors import OutOfMemory, ProgramCrashed, ProgramError

SECRET = b"the-key-of-another-input"
CGROUPS = frozenset(sandbox_cgroup.WALLS.values())
PAGE = (Path(__file__).parents[2] / "docs" / "sandbox.md").read_text(encoding="utf-8")
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sandbox is Linux's")


@pytest.fixture(params=(BUBBLEWRAP, NAMESPACES))
def isolated(request: pytest.FixtureRequest) -> str:
    if not works(request.param):
        pytest.skip(f"{request.param} cannot be had on this machine")
    return str(request.param)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    if request.param != PROCESS and not works(request.param):
        pytest.skip(f"{request.param} cannot be had on this machine")
    return str(request.param)


@pytest.fixture
def down(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Takes walls down."""
    return lambda *names: monkeypatch.setattr(sandbox_child, "unsafe_without", frozenset(names))


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process of this user that has nothing to do with it."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        yield process
        process.kill()


@pytest.fixture
def grouped() -> None:
    if not {"memory", "pids"} <= sandbox_cgroup.parents().keys():
        pytest.skip("no control groups can be made on this machine")


# --- the enclave's memory and processes -------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["mem", "process_vm_readv", "ptrace"])
def test_reading_another_inputs_key_in_the_enclaves_memory(
    isolated: str, way: str, bystander: subprocess.Popen[bytes]
) -> None:
    key = ctypes.create_string_buffer(SECRET, len(SECRET))
    pid, where = os.getpid(), ctypes.addressof(key)
    bodies = {
        "mem": """
            try:
                with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
                    memory.seek(where)
                    found = memory.read(size).decode()
            except OSError as error:
                found = "refused"
            """,
        "process_vm_readv": """
            buffer = ctypes.create_string_buffer(size)
            local = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), size)
            remote = (ctypes.c_size_t * 2)(where, size)
            found = buffer.raw.decode() if libc.process_vm_readv(pid, local, 1, remote, 1, 0) == size else "refused"
            """,
        "ptrace": """
            found = "traced" if libc.ptrace(0x4206, pid, None, None) == 0 else "refused"
            """,
    }
    if way == "ptrace":
        pid = bystander.pid  # a test that is traced would wait for its tracer
    body = f"pid, where, size = {pid}, {where}, {len(SECRET)}\n{textwrap.dedent(bodies[way])}"
    if outside(body) == "refused":
        pytest.skip("this kernel lets no process look at another of its user")
    assert outside(body) == ("traced" if way == "ptrace" else SECRET.decode())
    assert inside(body, isolated) == "refused"
    assert key.raw == SECRET


def test_proc_1_is_the_child_itself(isolated: str) -> None:
    body = "found = open('/proc/1/cmdline').read()"
    first = Path("/proc/1/cmdline").read_text()
    assert outside(body) == first
    said = inside(body, isolated)
    assert said != first
    assert "The first thing a child executes" in said
    assert inside("found = [os.readlink('/proc/1/root'), os.path.exists('/proc/1/root/etc/passwd')]", isolated) == [
        "/",
        False,
    ]


def test_other_processes_are_not_seen(isolated: str, bystander: subprocess.Popen[bytes]) -> None:
    body = "found = [int(name) for name in os.listdir('/proc') if name.isdigit()]"
    assert bystander.pid in outside(body)
    assert inside(body, isolated) == [1]


def test_signalling_the_parent_and_others(isolated: str, bystander: subprocess.Popen[bytes]) -> None:
    body = f"found = [tried(lambda: os.kill(pid, 0)) for pid in ({os.getpid()}, {bystander.pid})]"
    assert outside(body) == ["done", "done"]
    assert inside(body, isolated) == ["ESRCH", "ESRCH"]
    # every process that it can see, and none of them is one of ours
    assert inside("found = [tried(lambda: os.kill(-1, 9)), tried(lambda: os.kill(0, 0))]", isolated)[0] in {"ESRCH", "done"}
    assert bystander.poll() is None


# --- files ------------------------------------------------------------------------------------------------------------

ROUTES = ("{}", "/proc/self/root{}", "/proc/1/root{}", "/proc/self/cwd/..{}", "/tmp/../..{}", "/proc/self/fd/../root{}")


@pytest.mark.parametrize("route", ROUTES)
def test_the_hosts_files(isolated: str, route: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(SECRET)
    for path in (str(tmp_path / "secret"), "/etc/passwd"):
        body = f"found = tried(lambda: open({route.format(path)!r}))"
        if "/1/" not in route and "cwd" not in route:
            assert outside(body) == "done"
        assert inside(body, isolated) in {"ENOENT", "EACCES", "ENOTDIR"}


def test_another_users_tmp(isolated: str) -> None:
    place = Path("/tmp") / f"strongroom-{os.getpid()}-theirs"
    place.write_bytes(SECRET)
    try:
        body = f"found = os.path.exists({str(place)!r})"
        assert outside(body)
        assert not inside(body, isolated)
        inside(f"open({str(place)!r} + '-mine', 'w').close(); found = 1", isolated)
        assert not Path(f"{place}-mine").exists()
    finally:
        place.unlink()


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder that is not below /tmp, where a child may do as it likes."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        yield Path(folder)


def test_what_is_in_sight_and_not_in_the_rules(
    isolated: str, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, down: Callable[..., None]
) -> None:
    # the second layer alone: the mounts show a folder that they should not
    if not sandbox_landlock.version():
        pytest.skip("this kernel has no Landlock")
    (elsewhere / "secret").write_bytes(SECRET)
    true, rules = sandbox_view.view(), sandbox_landlock.rules
    shown = replace(true, read_only=(*true.read_only, str(elsewhere)))
    monkeypatch.setattr(sandbox, "view", lambda *_: shown)
    monkeypatch.setattr(sandbox_landlock, "rules", lambda _seen, known, **more: rules(true, known, **more))
    body = f"""
        path = {str(elsewhere / "secret")!r}
        found = [os.path.exists(path), tried(lambda: open(path)), tried(lambda: os.listdir(os.path.dirname(path)))]
        """
    assert inside(body, isolated) == [True, "EACCES", "EACCES"]
    down("landlock")
    assert inside(body, isolated) == [True, "done", "done"]


CHANGES = """
    place = PLACE
    link = os.path.join("/tmp", f"link-{os.getpid()}")
    os.symlink(place + "/library.py", link)
    held = os.open(place + "/library.py", os.O_RDONLY)
    found = {
        "write": tried(lambda: open(place + "/library.py", "a")),
        "through a link": tried(lambda: open(link, "a")),
        "hard link": tried(lambda: os.link(place + "/library.py", place + "/other.py")),
        "hard link elsewhere": tried(lambda: os.link(place + "/library.py", link + "-hard")),
        "again by descriptor": tried(lambda: os.open(f"/proc/self/fd/{held}", os.O_RDWR)),
        "truncate": tried(lambda: os.truncate(place + "/library.py", 1)),
        "mode": tried(lambda: os.chmod(place + "/library.py", 0o777)),
        "times": tried(lambda: os.utime(place + "/library.py")),
        "new": tried(lambda: open(place + "/new.py", "w")),
        "folder": tried(lambda: os.mkdir(place + "/folder")),
        "rename": tried(lambda: os.rename(place + "/library.py", place + "/renamed.py")),
        "remove": tried(lambda: os.unlink(place + "/renamed.py")),
    }
    os.unlink(link)
    """


@pytest.mark.parametrize("without", ["", "landlock"])
def test_changing_what_is_shown(
    isolated: str, without: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, down: Callable[..., None]
) -> None:
    down(without)
    for name in ("bare", "shown"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "library.py").write_text("X = 1\n")
    done = outside(CHANGES.replace("PLACE", repr(str(tmp_path / "bare"))))
    assert {name for name, answer in done.items() if answer != "done"} <= {"hard link elsewhere"}  # another file system
    true = sandbox_view.view()
    monkeypatch.setattr(sandbox, "view", lambda *_: replace(true, read_only=(*true.read_only, str(tmp_path / "shown"))))
    said = inside(CHANGES.replace("PLACE", repr(str(tmp_path / "shown"))), isolated)
    assert "done" not in said.values(), said
    assert [path.name for path in (tmp_path / "shown").iterdir()] == ["library.py"]
    assert (tmp_path / "shown" / "library.py").read_text() == "X = 1\n"


def test_filling_the_disk(isolated: str, tmp_path: Path) -> None:
    body = """
        def fill():
            for n in range(3):
                with open(PLACE + f"/{n}", "wb") as file:
                    for _ in range(30):
                        file.write(bytes(1 << 20))
        found = [tried(fill), sum(os.stat(PLACE + f"/{n}").st_size for n in range(3)) >> 20]
        """
    assert outside(body.replace("PLACE", repr(str(tmp_path)))) == ["done", 90]
    error, size = inside(body.replace("PLACE", '"/tmp"'), isolated)
    assert error == "ENOSPC"
    assert size <= sandbox_view.SCRATCH_BYTES >> 20


# --- sockets ----------------------------------------------------------------------------------------------------------

FAMILIES = {
    "inet": "socket.socket(socket.AF_INET)",
    "inet6": "socket.socket(socket.AF_INET6)",
    "unix": "socket.socket(socket.AF_UNIX)",
    "netlink": "socket.socket(16, socket.SOCK_RAW)",
    "vsock": "socket.socket(40)",
    "raw": "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
    "packet": "socket.socket(17, socket.SOCK_RAW)",
    "alg": "socket.socket(38, socket.SOCK_SEQPACKET)",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_making_a_socket(isolated: str, family: str) -> None:
    body = f"found = tried(lambda: {FAMILIES[family]}.close())"
    here = outside(body)
    assert inside(body, isolated) == "EAFNOSUPPORT"
    if here != "done":
        pytest.skip(f"nobody makes such a socket on this machine: {here}")


@pytest.mark.parametrize("without", [(), ("seccomp",), ("seccomp", "landlock")])
def test_reaching_a_service_of_the_host(isolated: str, without: tuple[str, ...], down: Callable[..., None]) -> None:
    down(*without)  # each wall that is left holds by itself
    with ExitStack() as stack:
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind(f"\0strongroom-{os.getpid()}-{isolated}-{len(without)}")
        abstract.listen()
        place = Path("/tmp") / f"strongroom-{os.getpid()}-{isolated}-{len(without)}.sock"
        named = stack.enter_context(socket.socket(socket.AF_UNIX))
        named.bind(str(place))
        stack.callback(place.unlink)
        named.listen()
        body = f"""
            found = [tried(lambda: socket.socket(family).connect(where)) for family, where in (
                (socket.AF_INET, ("127.0.0.1", {tcp.getsockname()[1]})),
                (socket.AF_UNIX, {abstract.getsockname().decode()!r}),
                (socket.AF_UNIX, {str(place)!r}),
            )]
            """
        assert outside(body) == ["done", "done", "done"]
        assert "done" not in inside(body, isolated)


def test_a_service_of_its_own_to_hide_behind(isolated: str, down: Callable[..., None]) -> None:
    body = "found = tried(lambda: socket.socket().bind(('0.0.0.0', 0)))"
    assert outside(body) == "done"
    assert inside(body, isolated) == "EAFNOSUPPORT"
    down("seccomp")
    assert inside(body, isolated) == ("EACCES" if sandbox_landlock.version() >= 4 else "done")
    down("seccomp", "landlock")
    assert inside(body, isolated) == "done"  # in a namespace that has nobody else in it


# --- more than its share ----------------------------------------------------------------------------------------------

BOMB = """
    ready, told = os.pipe()
    made = 0
    for _ in range(100):
        try:
            if os.fork() == 0:
                os.close(told)
                os.read(ready, 1)  # until the first is gone
                os._exit(0)
        except OSError:
            break
        made += 1
    found = made
    os.close(told)
    """


@pytest.mark.usefixtures("grouped")
def test_a_fork_bomb(kind: str) -> None:
    assert outside(BOMB) == 100
    roomy = replace(LIMITS, memory_bytes=4 << 30)  # what processes share is counted for each of them
    assert inside(BOMB, kind, roomy) < sandbox_child.MAX_PROCESSES


def test_a_fork_bomb_where_there_is_no_control_group(kind: str, down: Callable[..., None]) -> None:
    down(*CGROUPS)
    forever = BOMB.replace("found = made", "time.sleep(600)")
    with (
        pytest.raises((OutOfMemory, ProgramCrashed)) if kind == PROCESS or os.geteuid() == 0 else pytest.raises(ProgramError)
    ):
        inside(forever, kind, replace(LIMITS, seconds=60))


# Each connected pair holds what nobody reads, in the kernel: in no process's memory.
BUFFERS = """
    ready, told = os.pipe()
    for _ in range(10):
        if os.fork() == 0:
            held = [end for _ in range(120) for end in socket.socketpair()]
            for end in held:
                end.setblocking(False)
                try:
                    while True:
                        end.send(bytes(16384))
                except BlockingIOError:
                    pass
            os.write(told, b"x")
            time.sleep(600)
    for _ in range(10):
        os.read(ready, 1)
    found = "held"
    """
SMALL = replace(LIMITS, memory_bytes=192 << 20)


@pytest.mark.usefixtures("grouped")
def test_memory_that_is_in_no_process(kind: str, down: Callable[..., None]) -> None:
    with pytest.raises(OutOfMemory):
        inside(BUFFERS, kind, SMALL)
    down(*CGROUPS)
    assert inside(BUFFERS, kind, SMALL) == "held"


def test_filling_the_machine_s_memory_ends_the_child_and_not_the_enclave(kind: str) -> None:
    """Some machines run everything at 1000, the most there is: nothing can go before it, unless it may go lower first."""
    mine = Path("/proc/self/oom_score_adj")
    before = mine.read_text()
    if int(before) >= 1000:
        try:
            mine.write_text("300")
        except OSError:
            pytest.skip("this machine kills everything here first, and lets nothing be spared")
    try:
        body = "found = int(open('/proc/self/oom_score_adj').read())"
        own = outside(body)
        assert inside(body, kind) == min(own + 500, 1000) > own
    finally:
        mine.write_text(before)


@pytest.mark.usefixtures("grouped")
def test_filling_memory_is_told_from_a_crash(kind: str) -> None:
    with pytest.raises(OutOfMemory):
        inside("held = bytearray(1 << 31)", kind)
    with pytest.raises(ProgramCrashed):
        inside("os.kill(os.getpid(), 6) or ctypes.string_at(0)", kind)


def test_files_without_a_name(isolated: str) -> None:
    body = "found = tried(lambda: os.close(os.memfd_create('m')))"
    assert outside(body) == "done"
    assert inside(body, isolated) == "ENOSYS"


def running(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def descendants(pid: int) -> list[int]:
    children = [int(c) for path in Path(f"/proc/{pid}/task").glob("*/children") for c in path.read_text().split()]
    return [each for child in children for each in (child, *descendants(child))]


def test_leaving_a_process_behind(kind: str, down: Callable[..., None]) -> None:
    body = """
        ready, told = os.pipe()
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                signal.signal(signal.SIGHUP, signal.SIG_IGN)
                os.write(told, b"%d" % os.getpid())
                time.sleep(600)
            os._exit(0)
        found = os.read(ready, 100).decode()
        os.wait()
        step("program", 1)
        inputs["data"].open().read(1)  # until that was heard, and it was looked at
        """

    def left() -> list[int]:
        """What it started: the child of a child that is gone, in a session of its own."""
        seen: list[int] = []
        with start(body, kind) as room:

            def look(_step: str, permille: int) -> None:
                seen.extend(descendants(room._child.pid) if permille else [])

            number = json.loads(room.run({}, given(), OUTPUTS, LIMITS, look)["report"])
        if kind == PROCESS:
            seen = [int(number)]
        assert seen
        return [pid for pid in seen if running(pid)]

    if kind != PROCESS or {"memory", "pids"} & sandbox_cgroup.parents().keys():
        assert left() == []
    down(*CGROUPS)
    found = left()
    if kind == PROCESS:
        (behind,) = found  # nothing but a group ends what is in a session of its own
        os.kill(behind, signal.SIGKILL)
    else:
        assert found == []


@pytest.mark.usefixtures("grouped")
def test_groups_are_gone_when_the_run_is(kind: str) -> None:
    def groups() -> set[Path]:
        return {path for folder in sandbox_cgroup.parents().values() for path in folder.glob("strongroom-*")}

    with start("found = 1", kind) as room:
        ours = [path for path in groups() if str(room._child.pid) in (path / "cgroup.procs").read_text().split()]
        assert len(ours) == len(set(sandbox_cgroup.parents().values()))
        room.run({}, given(), OUTPUTS, LIMITS)
    assert not any(path.exists() for path in ours)


# --- privileges -------------------------------------------------------------------------------------------------------

PRIVILEGES = """
    word = (ctypes.c_uint32 * 2)(0x20080522, 0)
    found = {
        "namespace": called("unshare", 0x10000000),
        "mount": called("mount", b"none", b"/tmp", b"tmpfs", 0, None),
        "root": called("chroot", b"/tmp"),
        "group": called("setgid", 1),
        "user": called("setuid", 1),
        "dumpable": called("prctl", 4, 1, 0, 0, 0),
        "securebits": called("prctl", 28, 0, 0, 0, 0),
        "personality": called("personality", 0x0040000),
        "higher priority": called("setpriority", 0, 0, -5),
        "hostname": called("sethostname", b"x", 1),
    }
    """


def test_gaining_privileges(isolated: str, down: Callable[..., None]) -> None:
    if os.geteuid() == 0:  # who is root has nearly all of these
        apart = "libc.unshare(0x00020000 | 0x04000000)\nlibc.mount(b'none', b'/', None, 1 << 18 | 16384, None)\n"
        done = outside(apart + textwrap.dedent(PRIVILEGES))
        assert "done" in {done["namespace"], done["mount"]}
        assert done["dumpable"] == done["personality"] == "done"
    said = inside(PRIVILEGES, isolated)
    assert set(said.values()) <= {"EPERM", "ENOSYS"}, said
    down("seccomp")
    said = inside(PRIVILEGES, isolated)
    # what is left is harmless in there, and the rest is refused by the lack of every capability
    assert {name for name, answer in said.items() if answer == "done"} <= {"dumpable", "personality"}, said


LOCKS = """
    import fcntl, sysconfig
    place = os.open(sysconfig.get_path("stdlib") + "/this.py", os.O_RDONLY)
    null = os.open("/dev/null", os.O_RDWR)
    whole = struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 0, 0, 0)
    found = [
        tried(lambda: fcntl.flock(place, fcntl.LOCK_SH | fcntl.LOCK_NB)),
        tried(lambda: fcntl.lockf(null, fcntl.LOCK_SH | fcntl.LOCK_NB)),
        tried(lambda: fcntl.fcntl(null, fcntl.F_OFD_SETLK, whole)),
        tried(lambda: fcntl.fcntl(null, fcntl.F_GETLK, whole)),
    ]
    """


def test_telling_another_run_by_locks_on_what_both_see(isolated: str, down: Callable[..., None]) -> None:
    library, null = Path(sysconfig.get_path("stdlib"), "this.py"), Path("/dev/null")
    with library.open("rb") as shared, null.open("r+b") as device:
        fcntl.flock(shared, fcntl.LOCK_EX)  # as another run would
        fcntl.fcntl(device, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
        assert inside(LOCKS, isolated) == ["done", "done", "done", "EINVAL"]
        down("seccomp")
        assert inside(LOCKS, isolated) == ["EAGAIN", "EAGAIN", "EAGAIN", "done"]


def test_telling_a_later_run_by_what_the_machine_keeps_of_a_library(isolated: str, down: Callable[..., None]) -> None:
    body = """
        import mmap, sysconfig

        place = os.open(sysconfig.get_path("stdlib") + "/pydoc_data/topics.py", os.O_RDONLY)
        pages = mmap.mmap(place, 4096, mmap.MAP_PRIVATE, mmap.PROT_READ)
        found = [
            tried(lambda: os.preadv(place, [bytearray(1)], 1 << 20, os.RWF_NOWAIT)),
            tried(lambda: pages.madvise(21)),
            tried(lambda: pages.madvise(20)),
        ]
        """
    assert inside(body, isolated) == ["ENOTSUP", "EINVAL", "EINVAL"]  # the C library's own word, where the call is not there
    down("seccomp")
    assert inside(body, isolated)[1:] == ["done", "done"]


def test_setuid_files(isolated: str, tmp_path: Path) -> None:
    body = """
        place = PLACE + "/true"
        open(place, "wb").write(open(sys.executable, "rb").read(1 << 20) if False else b"#!/nowhere")
        os.chmod(place, 0o4755)
        found = [
            bool(os.statvfs(PLACE).f_flag & os.ST_NOSUID),
            tried(lambda: os.execv(place, [place])),
            open("/proc/self/status").read().split("NoNewPrivs:")[1].split()[0],
        ]
        """
    assert inside(body.replace("PLACE", '"/tmp"'), isolated) in ([True, "ENOSYS", "1"], [True, "EACCES", "1"])
    assert outside(body.replace("PLACE", repr(str(tmp_path))))[1:] == ["ENOENT", "0"]
    assert inside("found = [os.statvfs(path).f_flag & os.ST_NOSUID for path in ('/usr/lib', '/proc')]", isolated) == [2, 2]


def test_starting_another_program(isolated: str, down: Callable[..., None]) -> None:
    body = """
        pid = os.fork()
        if pid == 0:
            tried(lambda: os.execve(PYTHON, [PYTHON, "-I", "-S", "-c", ""], {}))
            os._exit(7)
        found = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        """.replace("PYTHON", repr(sandbox_view.view().python))
    assert outside(body) == 0
    assert inside(body, isolated) == 7
    down("seccomp")
    assert inside(body, isolated) == (7 if sandbox_landlock.version() else 0)  # Landlock lets nothing be executed
    down("seccomp", "landlock")
    assert inside(body, isolated) == 0


def test_changing_limits(isolated: str) -> None:
    body = """
        def written(path, text):
            with open(path, "w") as file:
                file.write(text)

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        found = [
            tried(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))),
            tried(lambda: resource.prlimit(os.getpid(), resource.RLIMIT_CORE, (0, hard and 0))),
            tried(lambda: written("/proc/self/oom_score_adj", "500")),
            tried(lambda: written("/proc/self/clear_refs", "1")),
        ]
        """
    assert outside(body) == ["done"] * 4
    assert "done" not in inside(body, isolated)
    assert inside("found = os.path.exists('/sys/fs/cgroup')", isolated) is False


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="another machine has no such calls")
def test_calling_in_another_machines_convention(isolated: str) -> None:
    # int 0x80 with 20, getpid, as a program of 32 bits would: the numbers mean something else there
    body = """
        code = mmap.mmap(-1, 4096, prot=7)
        code.write(bytes.fromhex("b814000000cd80c3"))
        pid = os.fork()
        if pid == 0:
            call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
            os._exit(0 if call() > 0 else 9)
        found = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        """
    here = outside(body)
    assert inside(body, isolated) in {-signal.SIGSYS, -signal.SIGSEGV}
    if here != 0:
        pytest.skip("this kernel answers nobody in that convention")
    assert inside(body, isolated) == -signal.SIGSYS


def test_a_core_dump_of_what_it_read(kind: str) -> None:
    # a limit of nought does not stop a program that collects what crashed: not being dumpable does
    body = "found = [libc.prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE)[1]]"
    assert outside(body)[0] == 1
    assert inside(body, kind) == [0, 0]


# --- what it inherits and what it can see -----------------------------------------------------------------------------


def test_inheriting_descriptors(kind: str, tmp_path: Path) -> None:
    body = """
        found = {}
        for name in os.listdir("/proc/self/fd"):
            try:
                found[name] = os.readlink(f"/proc/self/fd/{name}").split(":")[0]
            except OSError:
                pass  # the folder's own
        """
    (tmp_path / "state").write_bytes(SECRET)
    with (tmp_path / "state").open("rb") as file:
        os.set_inheritable(file.fileno(), True)
        code = f"import os, json\n{textwrap.dedent(body)}\nprint(json.dumps(found))"
        ran = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True, close_fds=False)
        assert str(tmp_path / "state") in json.loads(ran.stdout).values()
        said = inside(body, kind)
    channel = {name: what for name, what in said.items() if name not in {"0", "1", "2"}}
    assert [said["0"], said["1"], said["2"], *channel.values()] == ["/dev/null", "pipe", "pipe", "socket"]


def test_the_environment(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRONGROOM_KEY", SECRET.decode())
    body = """
        libc.getenv.restype = ctypes.c_char_p
        try:
            kept = open("/proc/self/environ").read()
        except PermissionError:
            kept = ""
        found = [dict(os.environ), str(libc.getenv(b"STRONGROOM_KEY")), kept]
        """
    said = inside(body, kind)
    assert said[:2] == [{}, "None"]
    assert said[2] in {"", "PWD=/\0"}  # bubblewrap tells the folder that it starts in
    with_it = "found = open('/proc/self/environ').read()"
    assert SECRET.decode() in outside(with_it)


def test_what_it_can_tell_of_the_machine(isolated: str) -> None:
    body = f"""
        def length(path):
            try:
                with open(path, "rb") as file:
                    return len(file.read(4096))
            except OSError:
                return 0
        found = {{name: length("/proc/" + name) for name in {[*sandbox_child.HIDDEN]!r}}}
        found["sys"] = os.path.exists("/sys/kernel")
        found["name"] = os.uname().nodename
        """
    here, said = outside(body), inside(body, isolated)
    assert all(here[name] for name in ("uptime", "cmdline", "loadavg", "version"))
    assert [name for name, size in said.items() if size and name != "name"] == []
    assert said["name"] == "strongroom"
    if os.path.exists("/sys/kernel"):
        assert here["sys"]


@pytest.mark.parametrize("kind_of", ["uptime by a call", "clocks", "processor", "memory", "interpreter"])
def test_what_it_can_still_tell_of_the_machine_is_on_the_page(isolated: str, kind_of: str) -> None:
    bodies = {
        "uptime by a call": "found = time.clock_gettime(time.CLOCK_BOOTTIME) > 0",
        "clocks": "found = time.time() > 0",
        "processor": "found = 'processor' in open('/proc/cpuinfo').read() or 'CPU' in open('/proc/cpuinfo').read()",
        "memory": "found = 'MemTotal' in open('/proc/meminfo').read()",
        "interpreter": "found = bool(sys.version)",
    }
    assert inside(bodies[kind_of], isolated) is True
    assert kind_of in PAGE


# --- side doors in what comes out -------------------------------------------------------------------------------------


def test_the_order_of_outputs_says_nothing(kind: str) -> None:
    both = {**OUTPUTS, "second": OUTPUTS["report"]}
    written = []
    for first, then in (("report", "second"), ("second", "report")):
        with start(f"write({first!r}, b'1'); write({then!r}, b'1')", kind) as room:
            written.append(list(room.run({}, given(), both, LIMITS).items()))
    assert written[0] == written[1] == [("report", b"1"), ("second", b"1")]


def test_the_exit_code_says_nothing(kind: str) -> None:
    said = set()
    for ending in (
        "os._exit(0)",
        "os._exit(17)",
        "sys.exit('Ada Lovelace')",
        "raise ValueError('Ada Lovelace')",
        "os.abort()",
    ):
        with pytest.raises(ProgramError) as caught:
            inside(ending, kind)
        said.add(json.dumps(caught.value.to_json(), sort_keys=True))
    assert len(said) == 1


def test_passing_a_descriptor_to_the_enclave_opens_nothing_there(kind: str) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    body = """
        end = socket.socket(fileno=os.dup(int(sys.argv[1])))
        for _ in range(50):
            socket.send_fds(end, [struct.pack(">cIBH", b"S", 3, 10, 1)], [0, 1])
        found = 1
        """
    with start(body, kind) as room, closing(room):
        assert json.loads(room.run({}, given(), OUTPUTS, LIMITS)["report"]) == 1
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


# --- the list of walls ------------------------------------------------------------------------------------------------


def test_the_walls_that_are_named_are_those_that_stand(kind: str, down: Callable[..., None]) -> None:
    def named(*without: str) -> set[str]:
        down(*without)
        with start("found = 1", kind) as room:
            return set(room.walls)

    every = named()
    assert every <= set(sandbox_child.WALLS)
    if kind == PROCESS:
        assert not every - CGROUPS
        return
    assert {"namespaces", "seccomp"} <= every
    assert every - named("seccomp") == {"seccomp"}
    assert not {name for name in named("landlock") if name.startswith("landlock")}
    assert not named(*CGROUPS) & CGROUPS


def test_a_wall_that_the_child_cannot_put_up_ends_it(isolated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> dict[str, Any]:
        return {"attributes": "00" * 8, "rules": [["/nowhere", 4]]}

    monkeypatch.setattr(sandbox_landlock, "rules", broken)
    with pytest.raises(ProgramCrashed):
        inside("found = 1", isolated)
