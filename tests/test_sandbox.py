"""The sandbox: what a hostile program can reach (nothing), what it can say (the protocol), and how it ends (for sure)."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom import programs, wire
from strongroom.enclave import (
    sandbox,
    sandbox_bubblewrap,
    sandbox_cgroup,
    sandbox_child,
    sandbox_filter,
    sandbox_landlock,
    sandbox_namespaces,
    sandbox_view,
)
from strongroom.enclave.sandbox import Limits, Sandbox, prepare, program_digest
from strongroom.enclave.sandbox_child import BUBBLEWRAP, KINDS, NAMESPACES, PROCESS, Child, choose, works
from strongroom.enclave.sandbox_view import SCRATCH_BYTES
from strongroom.errors import (
    BadParameters,
    ChunkAltered,
    MissingExtra,
    ModelShape,
    NoSandbox,
    OutOfMemory,
    OutOfTime,
    OutputMissing,
    ProgramCrashed,
    ProgramError,
    ProtocolBroken,
    TableEmpty,
    TooMuchOutput,
    Truncated,
)
from strongroom.programs import STEPS, Input, OutputKind, OutputSpec, boot, frames, runner

ISOLATED = (BUBBLEWRAP, NAMESPACES)
SECRET = "the-secret-of-the-host"
LIMITS = Limits(seconds=60, memory_bytes=256 << 20, output_bytes=1 << 20)
OUTPUTS = {"report": OutputSpec("report", 1 << 20, 1, 4)}
DATA = bytes(range(256)) * 8192  # two of the largest reads

HOSTILE = """
import ctypes, gc, json, os, socket, struct, sys, time

class Kind:
    kind, media_type = "report", "application/json"

NAME = "hostile"
ROLES = frozenset({"data"})
OUTPUTS = {"report": Kind, "second": Kind}
LIBRARIES = ()

def check(parameters):
    pass

def load(outputs):
    LOAD

def raw():
    return socket.socket(fileno=os.dup(int(sys.argv[1])))

def frame(kind, body=b"", length=None):
    return struct.pack(">cI", kind, len(body) if length is None else length) + body

def run(inputs, parameters, outputs, write, step):
    found = None
BODY
    if found is not None:
        write("report", json.dumps(found).encode())
"""


@dataclass
class Opened:
    media_type: str
    size: int
    file: BinaryIO


def data(content: bytes = DATA) -> dict[str, Opened]:
    return {"data": Opened("application/octet-stream", len(content), io.BytesIO(content))}


def hostile(body: str, load: str = "pass") -> dict[str, str]:
    text = HOSTILE.replace("LOAD", load).replace("BODY", textwrap.indent(textwrap.dedent(body), "    "))
    names = ("__init__", "boot", "frames", "runner", "window")
    frame = ("errors.py", *(f"programs/{name}.py" for name in names))
    return {file: sandbox_child.source(file) for file in frame} | {"programs/hostile.py": text}


def start(body: str, kind: str = PROCESS, load: str = "pass") -> Sandbox:
    return sandbox._start("hostile", hostile(body, load), kind, ())


def attack(
    body: str, kind: str = PROCESS, limits: Limits = LIMITS, outputs: Any = OUTPUTS, load: str = "pass"
) -> dict[str, bytes]:
    with start(body, kind, load) as room:
        return room.run({}, data(), outputs, limits)


def found(body: str, kind: str = PROCESS, **more: Any) -> Any:
    return json.loads(attack(body, kind, **more)["report"])


def refused(error: type[ProgramError], body: str, kind: str = PROCESS, step: str = "check parameters", **more: Any) -> None:
    with pytest.raises(ProgramError) as caught:
        attack(body, kind, **more)
    assert (type(caught.value), caught.value.step) == (error, step)
    assert SECRET not in str(caught.value)


@pytest.fixture(params=ISOLATED)
def isolated(request: pytest.FixtureRequest) -> str:
    if not works(request.param):
        pytest.skip(f"{request.param} cannot be had on this machine")
    return str(request.param)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    if request.param != PROCESS and not works(request.param):
        pytest.skip(f"{request.param} cannot be had on this machine")
    return str(request.param)


# --- what it can reach ----------------------------------------------------------------------------------------------


def test_the_environment_is_empty(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRONGROOM_SECRET", SECRET)
    text = found(
        """
        libc = ctypes.CDLL(None)
        libc.getenv.restype = ctypes.c_char_p
        found = [dict(os.environ), libc.getenv(b"STRONGROOM_SECRET"), os.getcwd()]
        """,
        kind,
    )
    assert text == [{}, None, "/"]


def test_the_start_carries_no_environment_either(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRONGROOM_SECRET", SECRET)
    assert SECRET not in found("found = open('/proc/self/environ').read()", kind)


def test_nobody_without_capabilities_in_a_session_of_its_own(isolated: str) -> None:
    status = found("found = open('/proc/self/status').read()", isolated)
    lines = dict(line.split(":\t", 1) for line in status.splitlines())
    assert {int(lines[f"Cap{which}"], 16) for which in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {0}
    assert lines["NoNewPrivs"] == "1"
    assert found("found = [os.getuid(), os.getgid(), os.getpid(), os.getsid(0), os.uname().nodename]", isolated) == [
        65534, 65534, 1, 1, "strongroom",
    ]  # fmt: skip


def test_no_further_namespace_can_be_made(isolated: str) -> None:
    assert found("found = ctypes.CDLL(None).unshare(0x10000000)", isolated) == -1


def test_no_socket_leads_out(isolated: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind("\0strongroom-test-abstract")
        abstract.listen()
        said = found(
            f"""
            found = []
            for family, where in (
                (socket.AF_INET, ("127.0.0.1", {tcp.getsockname()[1]})),
                (socket.AF_INET, ("192.0.2.1", 80)),
                (socket.AF_INET6, ("::1", 80)),
                (socket.AF_UNIX, "\\0strongroom-test-abstract"),
            ):
                try:
                    socket.socket(family).connect(where)
                    found.append("connected")
                except OSError as error:
                    found.append(error.errno)
            found.append([line.split()[0] for line in open("/proc/net/dev").readlines()[2:]])
            try:
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.1", 53))
            except OSError as error:
                found.append(error.errno)
            """,
            isolated,
        )
    assert "connected" not in said
    assert said[4] == ["lo:"]
    assert isinstance(said[5], int)


@pytest.fixture
def mounts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the second layer, so that the first is what is seen."""
    monkeypatch.setattr(sandbox_child, "unsafe_without", frozenset({"landlock"}))


def test_no_socket_can_be_made(isolated: str) -> None:
    # AF_VSOCK, 40, leads from a virtual machine straight to its host: no network namespace holds it.
    made = found(
        """
        found = []
        for family in range(64):
            for kind in (1, 2, 3, 5):
                try:
                    socket.socket(family, kind).close()
                    found.append(family)
                except OSError:
                    pass
        """,
        isolated,
    )
    assert made == []


# In x86_64's numbers, and everybody else's.
REFUSED = {
    "accept": (43, 202), "acct": (163, 89), "add_key": (248, 217), "adjtimex": (159, 171), "bind": (49, 200),
    "bpf": (321, 280), "capset": (126, 91), "chroot": (161, 51), "clock_settime": (227, 112), "clone3": (435, 435),
    "connect": (42, 203),
    "execve": (59, 221), "execveat": (322, 281), "fanotify_init": (300, 262), "finit_module": (313, 273),
    "fsmount": (432, 432), "fsopen": (430, 430), "init_module": (175, 105), "inotify_init1": (294, 26),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "io_uring_setup": (425, 425), "kcmp": (312, 272),
    "kexec_load": (246, 104), "keyctl": (250, 219), "landlock_create_ruleset": (444, 444), "listen": (50, 201),
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "mincore": (27, 232), "mknodat": (259, 33),
    "mlockall": (151, 230), "mount": (165, 40), "mount_setattr": (442, 442), "move_mount": (429, 429),
    "mq_open": (240, 180), "msgget": (68, 186), "open_tree": (428, 428), "perf_event_open": (298, 241),
    "personality": (135, 92), "pidfd_getfd": (438, 438), "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424),
    "pivot_root": (155, 41), "process_madvise": (440, 440), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "ptrace": (101, 117), "quotactl": (179, 60), "reboot": (169, 142),
    "request_key": (249, 218), "rt_sigqueueinfo": (129, 138), "sched_setscheduler": (144, 119), "seccomp": (317, 277),
    "semget": (64, 190), "sethostname": (170, 161), "setns": (308, 268), "setresuid": (117, 147),
    "setsockopt": (54, 208), "settimeofday": (164, 170), "shmget": (29, 194), "splice": (275, 76), "swapon": (167, 224),
    "syslog": (103, 116), "umount2": (166, 39), "unshare": (272, 97), "userfaultfd": (323, 282), "vmsplice": (278, 75),
}  # fmt: skip


def test_calls_that_no_namespace_confines_are_refused(isolated: str) -> None:
    calls = [numbers[os.uname().machine != "x86_64"] for numbers in REFUSED.values()] + [1 << 30, 9999]
    said = found(
        f"""
        libc, found = ctypes.CDLL(None, use_errno=True), []
        for number in {calls!r}:
            found.append([libc.syscall(number, 0, 0, 0, 0, 0), ctypes.get_errno()])
        """,
        isolated,
    )
    assert said == [[-1, sandbox_filter.ENOSYS]] * len(calls)


def test_memory_that_is_in_no_process_cannot_be_had(isolated: str) -> None:
    # A file without a name that is written and never mapped is in no process: a run could hold gigabytes past its limit.
    said = found(
        """
        libc, found = ctypes.CDLL(None, use_errno=True), []
        for make in (
            lambda: os.memfd_create("m"),
            lambda: os.open("/dev/shm/m", os.O_CREAT | os.O_RDWR),
        ):
            try:
                make()
                found.append("made")
            except OSError as error:
                found.append(error.errno)
        found.append([libc.shmget(0, 1 << 30, 0o1600), ctypes.get_errno()])
        found.append([libc.msgget(0, 0o1600), ctypes.get_errno()])
        found.append([libc.mq_open(b"/m", os.O_CREAT | os.O_RDWR, 0o600, None), ctypes.get_errno()])
        """,
        isolated,
    )
    refused = sandbox_filter.ENOSYS
    assert said == [refused, errno.ENOENT, [-1, refused], [-1, refused], [-1, refused]]


def test_no_file_of_the_machine_is_there(isolated: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    here = [
        str(tmp_path / "secret"),
        __file__,
        wire.__file__,
        "/etc/passwd",
        "/etc/hostname",
        "/etc/shadow",
        "/sys",
        "/run",
        "/var",
        "/boot",
    ]
    # a virtual environment may lie anywhere; what leads to it is there then
    here = [path for path in here if not any(p.startswith(path + "/") for p in sandbox_view.view().read_only)]
    assert found(f"found = [path for path in {here!r} if os.path.exists(path)]", isolated) == []


@pytest.mark.usefixtures("mounts_alone")
def test_folders_hold_nothing_of_the_machine(isolated: str) -> None:
    assert set(found("found = os.listdir('/etc') if os.path.exists('/etc') else []", isolated)) <= {"ld.so.cache"}
    assert set(found("found = os.listdir('/dev')", isolated)) == {"null", "random", "urandom", "zero"}
    under_tmp = {p.parts[2] for p in map(Path, sandbox_view.view().read_only) if p.parts[:2] == ("/", "tmp")}
    assert set(found("found = os.listdir('/tmp')", isolated)) == under_tmp


@pytest.mark.usefixtures("mounts_alone")
def test_no_folder_shows_more_than_what_the_view_says(isolated: str) -> None:
    seen = sandbox_view.view()
    walked = found(
        f"""
        found, todo = [], ["/"]
        stop = {[*seen.read_only, "/proc", "/tmp", "/dev"]!r}
        while todo:
            folder = todo.pop()
            for entry in os.scandir(folder):
                if entry.path in stop or entry.is_symlink():
                    continue
                if entry.is_dir():
                    todo.append(entry.path)
                else:
                    found.append(entry.path)
        """,
        isolated,
    )
    assert walked == []


def test_the_host_s_processes_are_not_there(isolated: str) -> None:
    assert found("found = [name for name in os.listdir('/proc') if name.isdigit()]", isolated) == ["1"]
    # the number of this very process means nothing there
    assert found(f"""
        try:
            os.kill({os.getpid()}, 0)
            found = "alive"
        except ProcessLookupError:
            found = "none"
        """, isolated) == ("none" if os.getpid() != 1 else "alive")  # fmt: skip


def test_nothing_can_be_written_but_scratch(isolated: str) -> None:
    seen = sandbox_view.view()
    places = ["/x", "/etc/x", "/dev/x", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sysrq-trigger"]
    places += [f"{path}/x" for path in seen.read_only if Path(path).is_dir()] + [seen.python]
    assert found(
        f"""
        found = []
        for place in {places!r}:
            try:
                open(place, "a").close()
                found.append(place)
            except OSError:
                pass
        open("/tmp/x", "w").close()
        """,
        isolated,
    ) == []  # fmt: skip


@pytest.mark.parametrize("files", [1, 2])
def test_scratch_is_small(isolated: str, files: int) -> None:
    assert found(
        f"""
        try:
            for n in range({files}):
                with open(f"/tmp/{{n}}", "wb") as file:
                    for _ in range(80):
                        file.write(bytes(1 << 20))
        except OSError:
            found = sum(entry.stat().st_size for entry in os.scandir("/tmp") if entry.is_file())
        """,
        isolated,
    ) <= SCRATCH_BYTES  # fmt: skip


def test_only_four_descriptors_are_open(kind: str) -> None:
    with Path(os.devnull).open("rb") as other:
        os.set_inheritable(other.fileno(), True)
        names = found("found = [int(name) for name in os.listdir('/proc/self/fd')]", kind)
    assert len(names) == 5  # and the one that lists the folder
    assert {0, 1, 2} < set(names)


def test_standard_input_is_empty(kind: str) -> None:
    assert found("found = sys.stdin.read()", kind) == ""


def test_limits_are_set_before_the_program_is_loaded(kind: str) -> None:
    limits = found(
        "import resource as r; found = [r.getrlimit(getattr(r, 'RLIMIT_' + n))[1] for n in ('CORE', 'FSIZE', 'NOFILE')]",
        kind,
    )
    assert limits[0] == 0
    assert limits[1] == SCRATCH_BYTES
    assert limits[2] <= 256


def test_the_interpreter_is_isolated(kind: str) -> None:
    flags = found(
        "f = sys.flags; found = [f.isolated, f.no_site, f.ignore_environment, f.no_user_site, f.dont_write_bytecode]", kind
    )
    assert flags == [1, 1, 1, 1, 1]
    path = found("found = sys.path", kind)
    assert "" not in path
    assert str(Path(sandbox.__file__).parents[2]) not in path


def test_strongroom_itself_is_not_there_beyond_the_program(kind: str) -> None:
    assert found(
        """
        found = []
        for name in ("strongroom.wire", "strongroom.asset", "strongroom.programs.evaluate", "strongroom.nothing"):
            try:
                __import__(name)
                found.append(name)
            except ModuleNotFoundError:
                pass
        """,
        kind,
    ) == []  # fmt: skip


def test_bytecode_is_read_from_the_parent_s_folder_and_not_written(
    isolated: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path))
    assert found(f"import colorsys; found = [sys.pycache_prefix, os.access({str(tmp_path)!r}, os.W_OK)]", isolated) == [
        str(tmp_path),
        False,
    ]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


# --- what it can read -----------------------------------------------------------------------------------------------


def test_inputs_are_read_by_range(kind: str) -> None:
    text = found(
        """
        file = inputs["data"].open()
        found = [inputs["data"].size, inputs["data"].media_type, file.seek(-1, 2), file.read().hex(), file.read().hex()]
        file.seek(5)
        found += [file.read(3).hex(), file.tell(), file.seek(10, 1), file.seekable(), file.readable(), file.writable()]
        file.seek(0)
        import hashlib
        found.append(hashlib.sha256(file.read()).hexdigest())
        found.append(hashlib.sha256(inputs["data"].open().read()).hexdigest())
        try:
            file.raw.seek(-1)
        except ValueError:
            found.append("refused")
        """,
        kind,
    )
    whole = hashlib.sha256(DATA).hexdigest()
    assert text == [
        *(len(DATA), "application/octet-stream", len(DATA) - 1, "ff", ""),
        *("050607", 8, 18, True, True, False),
        *(whole, whole, "refused"),
    ]


@pytest.mark.parametrize(
    "body",
    [
        "struct.pack('>BQI', 1, 0, 1)",  # a role that there is not
        "struct.pack('>BQI', 0, len_ - 1, 2)",  # past the end
        "struct.pack('>BQI', 0, 2**64 - 1, 1)",
        "struct.pack('>BQI', 0, 0, 0)",
        "struct.pack('>BQI', 0, 0, 2**20 + 1)",
        "b''",
        "struct.pack('>BQ', 0, 0)",
    ],
)
def test_nothing_outside_the_inputs_can_be_read(body: str) -> None:
    refused(ProtocolBroken, f"len_ = inputs['data'].size\nraw().sendall(frame(b'R', {body}))\ntime.sleep(60)")


def test_an_input_that_was_altered_ends_the_run_with_that(kind: str) -> None:
    class Altered(io.BytesIO):
        def readinto(self, buffer: Any) -> int:
            raise ChunkAltered("chunk 3 is not as sealed", index=3)

    with start("inputs['data'].open().read()", kind) as room, pytest.raises(ChunkAltered):
        room.run({}, {"data": Opened("a/b", 10, Altered())}, OUTPUTS, LIMITS)
    assert room._child.end() == signal.SIGKILL


def test_an_input_that_ends_early_is_truncated() -> None:
    with start("inputs['data'].open().read()") as room, pytest.raises(Truncated):
        room.run({}, {"data": Opened("a/b", 10, io.BytesIO(b"12345"))}, OUTPUTS, LIMITS)


def test_an_input_whose_reads_are_short_is_read_whole() -> None:
    class Short(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(size or 0, 3))

    with start("found = inputs['data'].open().read().decode()") as room:
        written = room.run({}, {"data": Opened("a/b", 10, Short(b"0123456789"))}, OUTPUTS, LIMITS)
    assert json.loads(written["report"]) == "0123456789"


def test_a_program_that_is_given_other_roles_does_not_start() -> None:
    with start("found = 1") as room, pytest.raises(BadParameters):
        room.run({}, {}, OUTPUTS, LIMITS)


@pytest.mark.parametrize("outputs", [{"other": OUTPUTS["report"]}, {"report": OutputSpec("records", 1, 1, 1)}])
def test_a_program_that_writes_no_such_output_does_not_start(outputs: Any) -> None:
    refused(BadParameters, "found = 1", outputs=outputs)


# --- what it can write ----------------------------------------------------------------------------------------------


def test_outputs_come_back_as_written(kind: str) -> None:
    outputs = {"report": OUTPUTS["report"], "second": OUTPUTS["report"]}
    body = "write('second', b'')\nwrite('report', bytes(600_000))"
    assert attack(body, kind, outputs=outputs) == {"report": bytes(600_000), "second": b""}


@pytest.mark.parametrize(
    ("error", "body"),
    [
        (OutputMissing, "pass"),
        (OutputMissing, "raw().sendall(frame(b'O', b'\\0\\0half'))"),
        (TooMuchOutput, "write('report', bytes((1 << 20) + 1))"),
        (ProtocolBroken, "write('report', b'1'); write('report', b'2')"),
        (ProtocolBroken, "raw().sendall(frame(b'O', b'\\1\\1whole')); time.sleep(60)"),
        (ProtocolBroken, "raw().sendall(frame(b'O', b'\\0\\2whole')); time.sleep(60)"),
        (ProtocolBroken, "raw().sendall(frame(b'O', b'\\0')); time.sleep(60)"),
        (ProtocolBroken, "raw().sendall(frame(b'O', b'\\0\\1' + bytes((1 << 18) + 1))); time.sleep(60)"),
        (ProgramCrashed, "write('second', b'1')"),
    ],
)
def test_outputs_that_were_not_agreed(error: type[ProgramError], body: str) -> None:
    refused(error, body)


def test_all_outputs_together_have_a_limit() -> None:
    body = "write('report', bytes(600)); write('second', bytes(600))"
    outputs = {"report": OUTPUTS["report"], "second": OUTPUTS["report"]}
    refused(TooMuchOutput, body, outputs=outputs, limits=replace(LIMITS, output_bytes=1000))


def test_what_is_printed_stays_inside(kind: str) -> None:
    body = f"print('{SECRET}'); print('{SECRET}', file=sys.stderr); os.write(1, b'{SECRET}'); found = 1"
    with start(body, kind) as room:
        written = room.run({}, data(), OUTPUTS, LIMITS)
    assert written == {"report": b"1"}
    assert room.log.decode().count(SECRET) == 3


def test_what_is_printed_leaves_where_a_log_was_agreed(kind: str) -> None:
    outputs = {**OUTPUTS, "messages": OutputSpec("log", 12, 1, 0)}
    assert attack("print('hello, ' * 1000); found = 1", kind, outputs=outputs) == {
        "report": b"1",
        "messages": b"hello, hello",
    }


def test_a_traceback_stays_inside(kind: str) -> None:
    with start(f"raise ValueError('{SECRET}')", kind) as room, pytest.raises(ProgramCrashed) as caught:
        room.run({}, data(), OUTPUTS, LIMITS)
    assert SECRET not in str(caught.value) + json.dumps(caught.value.to_json())
    assert SECRET in room.log.decode()
    assert "programs/hostile.py" in room.log.decode()


def test_what_is_printed_without_end_is_cut() -> None:
    with start("while True: os.write(1, bytes(65536))") as room, pytest.raises(OutOfTime):
        room.run({}, data(), OUTPUTS, replace(LIMITS, seconds=0.3))
    assert len(room.log) == sandbox.MAX_LOG_BYTES


def test_standard_output_can_be_closed() -> None:
    assert found("os.close(1); os.close(2); time.sleep(0.2); found = 1") == 1


# --- how it ends ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", ["time.sleep(600)", "while True: pass", "signal = __import__('signal'); signal.pause()"])
def test_out_of_time(kind: str, body: str) -> None:
    refused(OutOfTime, body, kind, limits=replace(LIMITS, seconds=0.2))


def test_out_of_time_while_it_loads() -> None:
    with start("pass", load="time.sleep(600)") as room, pytest.raises(OutOfTime):
        room.wait(0.2)


def test_the_step_where_it_stopped_is_told(kind: str) -> None:
    refused(OutOfTime, "step('predict', 10); time.sleep(600)", kind, step="predict", limits=replace(LIMITS, seconds=0.5))


def test_more_memory_than_agreed(kind: str) -> None:
    refused(OutOfMemory, "found = len(bytearray(1 << 31))", kind)


def test_more_memory_than_agreed_in_several_processes(kind: str) -> None:
    body = """
        for _ in range(8):
            if os.fork() == 0:
                held = bytearray(os.urandom(1 << 20) * 48)
                time.sleep(600)
        time.sleep(600)
        """
    refused(OutOfMemory, body, kind, limits=replace(LIMITS, memory_bytes=128 << 20))


def test_more_processes_than_agreed(kind: str) -> None:
    with pytest.raises((OutOfMemory, ProgramCrashed)):
        attack("for _ in range(200): os.fork() or time.sleep(600)\ntime.sleep(600)", kind)


def descendants(pid: int) -> list[int]:
    children = [int(c) for path in Path(f"/proc/{pid}/task").glob("*/children") for c in path.read_text().split()]
    return [pid, *(each for child in children for each in descendants(child))]


@pytest.mark.parametrize("ending", ["found = 1", "time.sleep(600)", "os._exit(0)", "1 / 0"])
def test_nothing_that_it_started_outlives_it(kind: str, ending: str) -> None:
    body = f"""
        ready, told = os.pipe()
        if os.fork() == 0:
            {"os.setsid()" if kind != PROCESS else "pass"}
            if os.fork() == 0:
                os.write(told, b"x")
                time.sleep(600)
            time.sleep(600)
        os.read(ready, 1)
        step("program", 1)
        inputs["data"].open().read(1)
        {ending}
        """
    alive: list[int] = []
    with start(body, kind) as room:

        def look(_step: str, permille: int) -> None:
            if permille:
                alive.extend(descendants(room._child.pid))

        with suppress(ProgramError):
            room.run({}, data(), OUTPUTS, replace(LIMITS, seconds=60 if ending != "time.sleep(600)" else 2), look)
    assert len(alive) == 3
    if kind != PROCESS:  # there a killed child's children end soon, here they have ended
        assert not [pid for pid in alive if Path(f"/proc/{pid}").exists()]


@pytest.mark.parametrize(
    ("error", "body"),
    [
        (ProgramCrashed, "os._exit(0)"),
        (ProgramCrashed, "os._exit(3)"),
        (ProgramCrashed, "sys.exit(0)"),
        (ProgramCrashed, "raise KeyboardInterrupt"),
        (ProgramCrashed, "os.close(int(sys.argv[1])); os._exit(0)"),
        (ProgramCrashed, "ctypes.string_at(0)"),
        (OutOfMemory, "raise MemoryError"),
    ],
)
def test_a_program_that_just_ends(kind: str, error: type[ProgramError], body: str) -> None:
    refused(error, body, kind)


def test_a_program_that_the_kernel_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    # without a control group nobody says why: whatever killed it behind our back was short of memory
    monkeypatch.setattr(sandbox_child, "unsafe_without", frozenset(sandbox_cgroup.WALLS.values()))
    refused(OutOfMemory, "os.kill(os.getpid(), 9)")


def test_a_program_that_killed_itself_was_not_short_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Child, "starved", lambda _: False)
    refused(ProgramCrashed, "os.kill(os.getpid(), 9)")


@pytest.mark.parametrize(("error", "held"), [(ProgramCrashed, 1), (OutOfMemory, 200 << 20)])
def test_a_library_that_aborts(kind: str, error: type[ProgramError], held: int) -> None:
    refused(error, f"held = bytearray({held}); time.sleep(0.3); os.abort()", kind)


def test_a_program_that_hangs_up_and_lives_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_DYING_SECONDS", 0.05)
    refused(ProgramCrashed, "raw().shutdown(2); time.sleep(600)")


def test_a_program_that_crashes_while_it_is_loaded(kind: str) -> None:
    with start("pass", kind, load="1 / 0") as room, pytest.raises(ProgramCrashed) as caught:
        room.run({}, data(), OUTPUTS, LIMITS)
    assert caught.value.step == "start"


def test_a_caller_that_stops_listening_ends_it(kind: str) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with start("time.sleep(600)", kind) as room, pytest.raises(KeyboardInterrupt):
        room.run({}, data(), OUTPUTS, LIMITS, stop)
    assert not Path(f"/proc/{room._child.pid}").exists()


def test_one_child_serves_one_run(kind: str) -> None:
    with start("found = 1", kind) as room:
        room.wait()
        room.wait()
        room.run({}, data(), OUTPUTS, LIMITS)
        with pytest.raises(ValueError, match="once"):
            room.run({}, data(), OUTPUTS, LIMITS)


def test_a_closed_sandbox_runs_nothing(kind: str) -> None:
    room = start("found = 1", kind)
    room.close()
    room.close()
    room.wait()
    with pytest.raises(ValueError, match="once"):
        room.run({}, data(), OUTPUTS, LIMITS)


def test_only_prepare_makes_a_sandbox() -> None:
    with pytest.raises(TypeError):
        Sandbox(object(), "evaluate", {}, PROCESS, ())


def test_a_sandbox_outlives_the_thread_that_made_it(kind: str) -> None:
    made: list[Sandbox] = []
    thread = threading.Thread(target=lambda: made.append(start("found = 1", kind)))
    thread.start()
    thread.join()
    with made[0] as room:
        assert room.run({}, data(), OUTPUTS, LIMITS) == {"report": b"1"}


def test_a_sandbox_dies_with_its_parent(isolated: str) -> None:
    code = f"""
        import os, sys, time
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_sandbox import start
        room = start("found = 1", {isolated!r})
        room.wait()
        print(room._child.pid, flush=True)
        os.kill(os.getpid(), 9)
        """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, check=False)
    child = int(ran.stdout)
    with suppress(ProcessLookupError):
        handle = os.pidfd_open(child)
        assert sandbox_child.readable(handle, 60)
        os.close(handle)


# --- what it can say ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        "frame(b'Z')",
        "frame(b'J')",
        "frame(b'A', b'1')",
        "frame(b'Y')",
        "frame(b'Y', b'1')",
        "frame(b'D', b'1')",
        "frame(b'O', length=2**32 - 1)",
        "frame(b'F', length=257)",
        "frame(b'S', b'\\0')",
        "frame(b'S', struct.pack('>BH', 200, 1))",
        "frame(b'S', struct.pack('>BH', 1, 1001))",
        "frame(b'S', struct.pack('>BH', 1, 5)) + frame(b'S', struct.pack('>BH', 1, 4))",
        "frame(b'S', struct.pack('>BH', 1, 5)) * 5000",
        "frame(b'F', b'')",
        "frame(b'F', b'{}')",
        'frame(b\'F\', b\'{"code":"program.out_of_time","step":"predict"}\')',
        'frame(b\'F\', b\'{"code":"program.protocol_broken","step":"predict"}\')',
        'frame(b\'F\', b\'{"code":"program.model_shape","step":"Ada Lovelace"}\')',
        'frame(b\'F\', b\'{"code":"Ada Lovelace","step":"predict"}\')',
        'frame(b\'F\', b\'{"code": "program.model_shape","step":"predict"}\')',
        'frame(b\'F\', b\'{"code":"program.model_shape","step":"predict","who":"Ada"}\')',
        "os.urandom(64)",
    ],
)
def test_whatever_is_not_the_protocol_kills_it(said: str) -> None:
    with pytest.raises(ProtocolBroken) as caught:
        attack(f"raw().sendall({said} + frame(b'Z'))\ntime.sleep(60)")
    assert caught.value.step in STEPS
    assert "Ada" not in str(caught.value)


def test_what_it_says_before_it_has_a_job() -> None:
    with start("pass", load="raw().sendall(frame(b'D')); time.sleep(60)") as room, pytest.raises(ProtocolBroken):
        room.wait()


def test_an_answer_given_before_the_job_is_no_answer() -> None:
    with (
        start("pass", load="raw().sendall(frame(b'Y') + frame(b'D')); time.sleep(60)") as room,
        pytest.raises(OutputMissing),
    ):
        room.run({}, data(), OUTPUTS, LIMITS)


def test_who_asks_and_does_not_listen_runs_out_of_time() -> None:
    body = "for _ in range(64): raw().send(frame(b'R', struct.pack('>BQI', 0, 0, 1 << 20)))\ntime.sleep(600)"
    refused(OutOfTime, body, limits=replace(LIMITS, seconds=0.3))


def test_who_asks_and_hangs_up_has_crashed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_DYING_SECONDS", 0.05)
    body = """
        raw().shutdown(socket.SHUT_RD)
        raw().send(frame(b'R', struct.pack('>BQI', 0, 0, 1 << 20)))
        time.sleep(600)
        """
    refused(ProgramCrashed, body)


def test_who_asks_and_does_not_stay_for_the_answer_has_crashed() -> None:
    refused(ProgramCrashed, "raw().send(frame(b'R', struct.pack('>BQI', 0, 0, 9))); time.sleep(0.2); os._exit(0)")


def test_a_channel_that_is_full_is_waited_for() -> None:
    with start("pass", load="time.sleep(600)") as room:
        room._unsent = memoryview(bytes(1 << 23))
        for _ in range(100):
            room._send()
        assert room._unsent


@pytest.mark.parametrize("code", sorted(programs.CLAIMS))
def test_every_failure_that_it_may_claim(code: str) -> None:
    body = f"""
        from strongroom import errors
        raise errors.leaves()[{code!r}]("{SECRET}", step="measure")
        """
    refused(programs.CLAIMS[code], body, step="measure")


@pytest.mark.parametrize(
    "code", ["program.out_of_time", "program.too_much_output", "program.output_missing", "program.protocol_broken"]
)
def test_a_failure_that_is_the_parent_s_to_find_is_a_crash(code: str) -> None:
    refused(ProgramCrashed, f"from strongroom import errors\nraise errors.leaves()[{code!r}]('x', step='{SECRET}')")


def test_progress_is_told_and_never_falls() -> None:
    seen: list[tuple[str, int]] = []
    body = """
        step("read table", 100); step("read table", 100); step("predict", 50); step("predict", 5000)
        for n in range(5000): step(("read table", "predict")[n % 2], 1000)
        found = 1
        """
    with start(body) as room:
        room.run({}, data(), OUTPUTS, LIMITS, lambda *told: seen.append(told))
    assert seen[:4] == [("check parameters", 0), ("read table", 100), ("predict", 100), ("predict", 1000)]
    assert len(seen) == frames.MAX_STEPS


def test_a_step_that_there_is_not_is_a_crash() -> None:
    refused(ProgramCrashed, f"step('{SECRET}', 1)")


# --- frames ---------------------------------------------------------------------------------------------------------

DIRECTIONS = st.sampled_from([frames.TO_CHILD, frames.FROM_CHILD])


@given(st.lists(st.tuples(st.sampled_from(sorted(frames.FROM_CHILD)), st.binary(max_size=300)), max_size=5), st.data())
def test_frames_are_cut_where_they_were_joined(made: list[tuple[bytes, bytes]], draw: st.DataObject) -> None:
    made = [(kind, body[: frames.FROM_CHILD[kind]]) for kind, body in made]
    stream = b"".join(frames.frame(kind, body) for kind, body in made)
    reader, got, at = frames.Frames(frames.FROM_CHILD), [], 0
    while at < len(stream):
        size = draw.draw(st.integers(1, 64))
        reader.feed(stream[at : at + size])
        at += size
        while frame := reader.next():
            got.append(frame)
    assert got == made


@given(st.binary(max_size=64), DIRECTIONS)
def test_any_bytes_are_frames_or_refused(stream: bytes, allowed: Any) -> None:
    reader, read = frames.Frames(allowed), b""
    reader.feed(stream)
    with suppress(frames.BrokenFrame):
        while found_ := reader.next():
            read += frames.frame(*found_)
            assert len(found_[1]) <= allowed[found_[0]]
        assert read + bytes(reader._held) == stream


def test_no_type_goes_both_ways() -> None:
    assert not set(frames.TO_CHILD) & set(frames.FROM_CHILD)


PAGE = (Path(__file__).parents[1] / "spec" / "sandbox.md").read_text(encoding="utf-8")


def test_the_conversation_of_the_specification() -> None:
    lines = PAGE.split("```\nchild ")[1].split("```")[0].splitlines()
    said = [bytes.fromhex(line.removeprefix("parent")) for line in ["  " + lines[0], *(line[6:] for line in lines[1:])]]
    assert said == [
        frames.frame(frames.READ, frames.READ_BODY.pack(0, 8, 2)),
        frames.frame(frames.DATA, b"89"),
        frames.frame(frames.OUTPUT, frames.OUTPUT_BODY.pack(0, True)),
        frames.frame(frames.DONE),
    ]


def test_the_lists_of_the_specification() -> None:
    steps = PAGE.split("The steps, in order:")[1].split("\n\n")[0]
    assert tuple(steps.split("`")[1::2]) == STEPS
    claims = PAGE.split("The codes that a child may claim:")[1].split("The others")[0]
    assert set(claims.split("`")[1::2]) == set(programs.CLAIMS)
    types = {line.split("`")[1].encode() for line in PAGE.splitlines() if line.startswith("| `") and line[4:5] == "`"}
    serving = set(frames.TO_SERVING) | set(frames.FROM_SERVING)
    assert types == set(frames.TO_CHILD) | set(frames.FROM_CHILD) | serving


def test_the_digest_of_the_specification() -> None:
    example = PAGE.split("```json\n")[1].split("\n```")[0]
    assert sandbox.digest_of({"a.py": "", "b.py": "print(1)\n"}) == wire.digest(example.encode())
    assert wire.digest(example.encode()) in PAGE


# --- which program, which sandbox -----------------------------------------------------------------------------------


def test_the_digest_is_of_the_files_that_a_program_is_made_of() -> None:
    folder = Path(programs.__file__).parents[1]
    hashes = {
        file: "sha256:" + hashlib.sha256((folder / file).read_bytes()).hexdigest() for file in programs.sources("evaluate")
    }
    assert program_digest("evaluate") == wire.digest(wire.encode(hashes))


def test_one_changed_byte_is_another_program(monkeypatch: pytest.MonkeyPatch) -> None:
    before = program_digest("evaluate")
    read = sandbox_child.source
    for changed in programs.sources("evaluate"):
        monkeypatch.setattr(sandbox_child, "source", lambda f, c=changed: read(f) + "#" if f == c else read(f))
        assert program_digest("evaluate") != before


def test_what_runs_is_what_was_hashed() -> None:
    files = hostile("found = sys.modules[__name__].__loader__.get_source(__name__)")
    with sandbox._start("hostile", files, PROCESS, ()) as room:
        assert room.program_digest == sandbox.digest_of(files)
        assert json.loads(room.run({}, data(), OUTPUTS, LIMITS)["report"]) == files["programs/hostile.py"]


@pytest.mark.parametrize("ask", [program_digest, prepare])
def test_a_program_that_there_is_not(ask: Callable[[str], Any]) -> None:
    with pytest.raises(BadParameters, match="no standard program"):
        ask("exfiltrate")


def test_libraries_that_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs.load("evaluate"), "LIBRARIES", ("numpy", "no_such_library"))
    with pytest.raises(MissingExtra, match="no_such_library"):
        prepare("evaluate", PROCESS)


@pytest.mark.parametrize("asked", ["", "none", "docker", "PROCESS"])
def test_a_kind_that_there_is_not(asked: str) -> None:
    with pytest.raises(NoSandbox):
        choose(asked)


def test_process_is_never_chosen_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_child, "works", lambda _: False)
    with pytest.raises(NoSandbox, match="bubblewrap, namespaces"):
        prepare("evaluate")
    assert choose(PROCESS) == PROCESS


@pytest.mark.parametrize(
    ("there", "chosen"), [({BUBBLEWRAP, NAMESPACES}, BUBBLEWRAP), ({NAMESPACES}, NAMESPACES), ({BUBBLEWRAP}, BUBBLEWRAP)]
)
def test_the_best_that_works_is_chosen(there: set[str], chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_child, "works", there.__contains__)
    assert choose("isolated") == chosen
    assert choose(chosen) == chosen


def test_where_bubblewrap_is_not_installed_it_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_bubblewrap, "_PLACES", ("/nowhere/bwrap",))
    assert not works.__wrapped__(BUBBLEWRAP)


def test_elsewhere_than_on_linux_nothing_is_isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not works.__wrapped__(BUBBLEWRAP)
    assert not works.__wrapped__(NAMESPACES)


@pytest.mark.parametrize("wrong", ["/bin/false", "/nowhere/bwrap"])
def test_a_bubblewrap_that_fails_does_not_work(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_bubblewrap, "find", lambda: wrong)
    assert not works.__wrapped__(BUBBLEWRAP)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(NoSandbox):
        start("pass", BUBBLEWRAP)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_sandbox_that_tells_nonsense_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sandbox_child,
        "_command",
        lambda _k, seen, info, *_: ([seen.python, "-c", f"import os; os.write({info}, b'{{}}')"], [info]),
    )
    with pytest.raises(NoSandbox, match="could not make"):
        start("pass", NAMESPACES)


# --- the filter of system calls -------------------------------------------------------------------------------------


def answer(lines: bytes, architecture: int, number: int, *arguments: int) -> int:
    """What a filter says of a call: the kernel's own loop, for the instructions that occur."""
    seen = struct.pack("<iIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    at = value = 0
    while True:
        code, yes, no, constant = struct.unpack_from("<HBBI", lines, 8 * at)
        at += 1
        if code == 0x20:
            (value,) = struct.unpack_from("<I", seen, constant)
        elif code == 0x06:
            return constant
        else:
            taken = {0x15: value == constant, 0x35: value >= constant, 0x45: bool(value & constant)}[code]
            at += yes if taken else no


WORDS = st.integers(0, 2**64 - 1) | st.integers(0, 50) | st.sampled_from([0x5401, 0x10000000, 0x11, 2**32, 1 << 28])
EVERY_CALL = {**sandbox_filter.ALLOWED, **sandbox_filter.STARTING}


def expected_answer(column: int, number: int, words: list[int], *, last: bool) -> int:
    low = [word & 0xFFFFFFFF for word in words]
    error = sandbox_filter.ERRNO
    allowed = sandbox_filter.ALLOWED if last else EVERY_CALL
    if number >= 1 << 30:
        return error | sandbox_filter.ENOSYS
    if number in {numbers[column] for numbers in allowed.values()}:
        return sandbox_filter.ALLOW
    if number in {numbers[column] for numbers in sandbox_filter.IDLE.values()}:
        return error
    if number == sandbox_filter.CLONE[column]:
        return error | sandbox_filter.EPERM if low[0] & sandbox_filter.NEW_NAMESPACES else sandbox_filter.ALLOW
    if number == sandbox_filter.PRLIMIT[column]:
        return error | sandbox_filter.EPERM if last and words[2] else sandbox_filter.ALLOW
    for choice in sandbox_filter.CHOICES.values():
        if number == choice.numbers[column]:
            values = choice.allowed if last else (*choice.allowed, *choice.starting)
            if low[choice.argument] in choice.idle:
                return error
            return sandbox_filter.ALLOW if low[choice.argument] in values else error | choice.error
    return error | sandbox_filter.ENOSYS


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("name", sandbox_filter.MACHINES)
@given(number=st.integers(0, 2**31 - 1) | st.integers(0, 500), words=st.lists(WORDS, min_size=3, max_size=6))
def test_the_filter_says_what_it_means(name: str, last: bool, number: int, words: list[int]) -> None:
    architecture, lines = sandbox_filter.MACHINES[name], sandbox_filter.program(name, last=last)
    column = int(name != "x86_64")
    assert answer(lines, architecture, number, *words) == expected_answer(column, number, words, last=last)
    for other in {0x40000003, *sandbox_filter.MACHINES.values()} - {architecture}:
        assert answer(lines, other, number, *words) == sandbox_filter.KILL


@pytest.mark.parametrize("name", sandbox_filter.MACHINES)
def test_what_leads_out_is_on_no_list(name: str) -> None:
    column, architecture = int(name != "x86_64"), sandbox_filter.MACHINES[name]
    for call, numbers in REFUSED.items():
        assert answer(sandbox_filter.program(name, last=True), architecture, numbers[column]) == (
            sandbox_filter.ERRNO | sandbox_filter.ENOSYS
        ), call
    assert not REFUSED.keys() & sandbox_filter.ALLOWED.keys()


def test_a_filter_is_no_longer_than_the_kernel_takes() -> None:
    assert max(len(sandbox_filter.program(name)) // 8 for name in sandbox_filter.MACHINES) <= 4096


def test_a_machine_whose_calls_are_not_known_has_no_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoSandbox, match="no filter"):
        sandbox_filter.program("vax")

    class Machine:
        machine = "vax"

    monkeypatch.setattr(os, "uname", Machine)
    assert not works.__wrapped__(BUBBLEWRAP)


# --- the view -------------------------------------------------------------------------------------------------------


def test_the_view_shows_no_home_and_no_import_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    seen = sandbox_view.view()
    assert str(tmp_path) not in seen.paths
    assert not {"/", "/home", "/root", "/etc", "/tmp", str(Path.home()), str(Path.cwd())} & set(seen.read_only)
    assert not any(Path(wire.__file__).is_relative_to(path) for path in seen.read_only if "site-packages" not in path)


def test_the_view_of_an_enclave_that_its_platform_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "image").mkdir()
    (tmp_path / "library").mkdir()
    (tmp_path / "image" / "library").symlink_to(tmp_path / "library")
    (tmp_path / "image" / "strongroom").symlink_to(Path(wire.__file__).parent)
    (tmp_path / "image" / "note").write_text("")
    stdlib = sandbox_view.sysconfig.get_path("stdlib")
    monkeypatch.setattr(sys, "path", ["", stdlib, f"{stdlib}/lib-dynload", str(tmp_path / "image"), str(tmp_path / "none")])

    class Flags:
        no_site = 1

    monkeypatch.setattr(sandbox_view.sys, "flags", Flags)
    seen = sandbox_view.view()
    assert seen.paths == (str(tmp_path / "image"),)
    assert {str(tmp_path / "image"), str(tmp_path / "library")} <= set(seen.read_only)
    assert not any(Path(wire.__file__).is_relative_to(path) for path in seen.read_only)


def test_nothing_is_shown_twice() -> None:
    assert sandbox_view._outermost(["/a/b", "/a", "/ab", "/a/b/c", "/"]) == ("/",)
    assert sandbox_view._outermost(["/a/b", "/a", "/ab"]) == ("/a", "/ab")


def test_a_bytecode_folder_that_is_not_there_is_not_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path / "none"))
    assert sandbox_view.view().bytecode == ""
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path))
    assert f"pycache_prefix={tmp_path}" in sandbox_view.view().command("", 3)


# --- the real program, in a real sandbox ----------------------------------------------------------------------------


def evaluation(media_type: str = "text/csv") -> tuple[dict[str, Any], dict[str, Opened]]:
    import test_evaluate as made

    model, table = made.linear([0, 1]), made.table(made.TABLE)
    inputs = {
        "model": Opened("application/onnx", len(model), io.BytesIO(model)),
        "data": Opened(media_type, len(table), io.BytesIO(table)),
    }
    return {**made.PARAMETERS, "groups": [made.grouping(["2"])]}, inputs


@pytest.fixture(autouse=True, scope="module")
def _beside() -> Iterator[None]:
    """Test modules stand beside this one."""
    sys.path.insert(0, str(Path(__file__).parent))
    yield
    sys.path.remove(str(Path(__file__).parent))


def test_evaluate(kind: str) -> None:
    import test_evaluate as made

    parameters, inputs = evaluation()
    with prepare("evaluate", kind, outputs=tuple(made.SPEC)) as room:
        assert room.program_digest == program_digest("evaluate")
        assert room.kind == kind
        written = room.run(parameters, inputs, made.SPEC, LIMITS)
    outside = made.run(made.linear([0, 1]), made.table(made.TABLE), outputs=made.SPEC, groups=parameters["groups"])
    assert written == outside


def test_evaluate_that_fails_says_where(kind: str) -> None:
    parameters, inputs = evaluation()
    with prepare("evaluate", kind) as room, pytest.raises(ModelShape) as caught:
        room.run({**parameters, "features": ["x"]}, inputs, OUTPUTS, LIMITS)
    assert caught.value.step == "load model"


# --- the child's own half, in this process --------------------------------------------------------------------------


class Quiet:
    """A program that does what it is told."""

    NAME = "quiet"
    ROLES = frozenset({"data"})
    OUTPUTS = {"report": OutputKind("report", "application/json")}
    LIBRARIES = ()

    def __init__(self, work: Callable[..., None]) -> None:
        self.work = work

    def check(self, parameters: Any) -> None:
        pass

    def load(self, outputs: Any) -> None:
        pass

    def run(self, inputs: Any, parameters: Any, outputs: Any, write: Any, step: Any) -> None:
        self.work(inputs["data"], write, step)


JOB: dict[str, Any] = {
    "inputs": {"data": {"media_type": "a/b", "size": 10}},
    "outputs": {"report": {"kind": "report", "max_bytes": 9, "min_group": 1, "decimals": 1}},
    "parameters": {},
}


def converse(work: Callable[..., None], job: Any = JOB, answers: tuple[bytes, ...] = ()) -> list[tuple[bytes, bytes]]:
    """What the child's half says, given this job and these answers."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(frames.frame(frames.JOB, json.dumps(job).encode()))
        for answer in answers:
            ours.sendall(answer)
        runner.serve(theirs, Quiet(work))  # type: ignore[arg-type]
        theirs.close()
        reader, said = frames.Frames(frames.FROM_CHILD), []
        while piece := ours.recv(1 << 20):
            reader.feed(piece)
        while frame := reader.next():
            said.append(frame)
        return said


def test_the_runner_serves_one_job() -> None:
    def work(given_: Input, write: Any, step: Any) -> None:
        file = given_.open()
        assert file.seek(-2, io.SEEK_END) == 8
        assert file.read(100) == b"89"
        assert file.read(1) == b""
        step("write", 999)
        step("write", 999)
        write("report", b"")

    said = converse(work, answers=(frames.frame(frames.DATA, b"89"),))
    assert said == [
        (frames.STEP, frames.STEP_BODY.pack(1, 0)),
        (frames.READ, frames.READ_BODY.pack(0, 8, 2)),
        (frames.STEP, frames.STEP_BODY.pack(STEPS.index("write"), 999)),
        (frames.OUTPUT, frames.OUTPUT_BODY.pack(0, True)),
        (frames.DONE, b""),
    ]


def test_an_answer_of_another_length_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    def work(given_: Input, write: Any, step: Any) -> None:
        given_.open().read(5)

    assert b"program.crashed" in converse(work, answers=(frames.HEADER.pack(frames.DATA, 2),))[-1][1]
    assert "another number of bytes" in capsys.readouterr().err


def test_a_raw_input_reads_all_in_pieces() -> None:
    def work(given_: Input, write: Any, step: Any) -> None:
        raw = given_.open().raw  # type: ignore[attr-defined]
        assert raw.readable()
        assert raw.readall() == b"0123456789"
        assert raw.readall() == b""
        assert raw.seek(-3, io.SEEK_CUR) == raw.tell() == 7
        with pytest.raises(ValueError, match="before"):
            raw.seek(-1)

    assert converse(work, answers=(frames.frame(frames.DATA, b"0123456789"),))[-1] == (frames.DONE, b"")


@pytest.mark.parametrize(
    ("error", "code", "step"),
    [
        (TableEmpty("x", step="read table"), "program.table_empty", "read table"),
        (TableEmpty("x"), "program.table_empty", "check parameters"),
        (OutOfTime("x", step="draw"), "program.crashed", "draw"),
        (ValueError(SECRET), "program.crashed", "check parameters"),
        (SystemExit(SECRET), "program.crashed", "check parameters"),
        (MemoryError(), "program.out_of_memory", "check parameters"),
    ],
)
def test_the_runner_says_a_code_and_a_step(
    error: BaseException, code: str, step: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(*_: Any) -> None:
        raise error

    assert converse(work)[-1] == (frames.FAILED, wire.encode({"code": code, "step": step}))
    assert type(error).__name__ in capsys.readouterr().err


def test_the_runner_refuses_roles_and_outputs_that_the_program_has_not(capsys: pytest.CaptureFixture[str]) -> None:
    for changed in ({"inputs": {}}, {"outputs": {"other": JOB["outputs"]["report"]}}):
        assert b"bad_parameters" in converse(lambda *_: None, {**JOB, **changed})[-1][1]
    assert "other roles" in capsys.readouterr().err


def test_the_runner_stops_when_the_parent_is_gone() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.sendall(frames.frame(frames.JOB, json.dumps(JOB).encode()))
        ours.shutdown(socket.SHUT_WR)
        with pytest.raises(EOFError):
            runner.serve(theirs, Quiet(lambda given_, *_: given_.open().read()))  # type: ignore[arg-type]
        ours.close()


def test_the_runner_takes_no_frame_but_the_one_awaited() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(frames.frame(frames.DATA, b"1"))
        with pytest.raises(frames.BrokenFrame):
            runner.Channel(theirs).receive(frames.JOB)


def test_the_runner_confines_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[tuple[int, int]] = []
    limits: dict[int, tuple[int, int]] = {}
    monkeypatch.setattr(os, "closerange", lambda low, high: closed.append((low, high)))
    monkeypatch.setattr(os, "environ", {"A": "b"})
    monkeypatch.setattr(resource, "setrlimit", limits.__setitem__)
    monkeypatch.setattr(
        resource, "getrlimit", lambda which: (0, 100 if which == resource.RLIMIT_NOFILE else resource.RLIM_INFINITY)
    )
    runner.confine(7, {"RLIMIT_CORE": 0, "RLIMIT_NOFILE": 256})
    assert closed == [(3, 7), (8, 4096)]
    assert limits == {resource.RLIMIT_CORE: (0, 0), resource.RLIMIT_NOFILE: (100, 100)}
    assert os.environ == {}


class Calls:
    """A C library that notes what it is asked for, and fails where it is told to."""

    def __init__(self, fails: int = 0) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.fails = fails

    def _answer(self, *words: Any) -> int:
        self.asked.append(tuple(getattr(word, "value", word) for word in words))
        return -1 if len(self.asked) == self.fails else 77

    def prctl(self, *words: Any) -> int:
        return self._answer("prctl", *words)

    def syscall(self, *words: Any) -> int:
        return self._answer("syscall", *words)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Calls:
    found_, close = Calls(), os.close
    monkeypatch.setattr(runner.ctypes, "CDLL", lambda *_, **__: found_)
    monkeypatch.setattr(os, "close", lambda descriptor: None if descriptor == 77 else close(descriptor))
    return found_


def test_the_runner_puts_its_walls_up_in_order(library: Calls, tmp_path: Path) -> None:
    runner.enclose(bytes(16), {"attributes": "07" * 24, "rules": [[str(tmp_path), 12], ["/dev/null", 6]]})
    assert [call[:2] for call in library.asked] == [
        ("prctl", 4), ("prctl", 38), ("syscall", 444), ("syscall", 445), ("syscall", 445), ("syscall", 446), ("prctl", 22),
    ]  # fmt: skip
    assert library.asked[2][2:] == (b"\x07" * 24, 24, 0)
    assert struct.unpack("=Qi", library.asked[3][4])[0] == 12
    assert struct.unpack("@HP", library.asked[6][3])[0] == 2


@pytest.mark.parametrize("fails", range(1, 7))
def test_a_wall_that_does_not_stand_is_not_passed_over(library: Calls, fails: int) -> None:
    library.fails = fails
    with pytest.raises(OSError, match="Errno"):
        runner.enclose(bytes(8), {"attributes": "00" * 8, "rules": [["/dev/null", 6]]})
    assert len(library.asked) == fails


def test_without_walls_its_memory_is_not_dumped_all_the_same(library: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    runner.enclose(b"", None)
    assert library.asked == [("prctl", 4, 0, 0, 0, 0)]
    monkeypatch.setattr(sys, "platform", "darwin")
    runner.enclose(b"", None)
    assert len(library.asked) == 1


@pytest.mark.parametrize(
    ("known", "walls", "size"),
    [
        (0, (), 0), (1, (), 8), (2, (), 8), (3, ("landlock",), 8), (4, ("landlock", "landlock-network"), 16),
        (5, ("landlock", "landlock-network"), 16), (6, ("landlock", "landlock-network", "landlock-scope"), 24),
        (99, ("landlock", "landlock-network", "landlock-scope"), 24),
    ],
)  # fmt: skip
def test_no_more_of_landlock_is_asked_for_and_named_than_the_kernel_has(
    known: int, walls: tuple[str, ...], size: int
) -> None:
    seen = sandbox_view.view()
    assert sandbox_landlock.walls(known) == walls
    rules = sandbox_landlock.rules(seen, known)
    if rules is None:
        assert known == 0
        return
    attributes = bytes.fromhex(str(rules["attributes"]))
    assert len(attributes) == size
    (handled,) = struct.unpack_from("=Q", attributes)
    assert handled.bit_length() == {1: 13, 2: 14, 3: 15, 4: 15}.get(known, 16)
    granted: dict[str, int] = dict(rules["rules"])  # type: ignore[arg-type, assignment]
    assert granted.keys() == {*seen.read_only, *sandbox_view.DEVICES, "/proc", "/tmp"}
    assert not any(access & ~handled for access in granted.values())
    assert not any(access & 1 for access in granted.values())  # nothing is executed
    writing = {path for path, access in granted.items() if access & sandbox_landlock.WRITE_FILE}
    assert writing == {*sandbox_view.DEVICES, "/tmp"}
    sockets = sandbox_landlock.rules(seen, known, sockets=True)
    assert sockets is not None
    more: dict[str, int] = dict(sockets["rules"])  # type: ignore[arg-type, assignment]
    assert {path: more[path] ^ access for path, access in granted.items() if more[path] != access} == {
        "/tmp": sandbox_landlock.MAKE_SOCK
    }


def test_a_system_that_is_no_linux_has_no_landlock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert sandbox_landlock.version.__wrapped__() == 0


def test_sockets_are_had_only_by_who_declares_them() -> None:
    numbers = {name: numbers[0] for name, numbers in sandbox_filter.SOCKETS.items()}
    architecture = sandbox_filter.MACHINES["x86_64"]
    for last in (False, True):
        without, with_ = (sandbox_filter.program("x86_64", last=last, sockets=sockets) for sockets in (False, True))
        for number in numbers.values():
            assert answer(without, architecture, number) == sandbox_filter.ERRNO | sandbox_filter.ENOSYS
            assert answer(with_, architecture, number) == sandbox_filter.ALLOW
        for family in range(64):
            refused_ = sandbox_filter.ERRNO | sandbox_filter.EAFNOSUPPORT
            assert answer(without, architecture, 41, family) == refused_
            assert answer(with_, architecture, 41, family) == (sandbox_filter.ALLOW if family == 1 else refused_)


def test_walls_that_are_missing_are_named() -> None:
    sandbox_child.require((), ())
    sandbox_child.require(("seccomp",), ("namespaces", "seccomp"))
    with pytest.raises(NoSandbox, match="cgroup-memory, landlock"):
        sandbox_child.require(("landlock", "cgroup-memory", "seccomp"), ("seccomp",))


class Ended(BaseException):
    pass


@pytest.mark.parametrize(("works_", "status"), [(True, 0), (False, 1)])
def test_the_runner_s_main_never_returns(
    works_: bool, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def end(code: int) -> None:
        raise Ended(code)

    quiet = ModuleType("strongroom.programs.quiet")
    quiet.__dict__.update({name: getattr(Quiet, name) for name in ("NAME", "ROLES", "OUTPUTS", "LIBRARIES")})
    quiet.__dict__.update(check=lambda p: None, load=lambda o: None, run=lambda i, p, o, write, step: write("report", b"1"))
    monkeypatch.setitem(sys.modules, "strongroom.programs.quiet", quiet)
    monkeypatch.setattr(runner, "confine", lambda *_: None)
    monkeypatch.setattr(runner, "enclose", lambda *_: None)
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setattr(os, "_exit", end)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(frames.frame(frames.JOB, json.dumps(JOB).encode()))
        name = "quiet" if works_ else "nothing"
        with pytest.raises(Ended) as caught:
            runner.main(theirs, {"calls": "", "landlock": None, "limits": {}, "outputs": [], "program": name})
        assert caught.value.args == (status,)
    assert ("ModuleNotFoundError" in capsys.readouterr().err) != works_


# --- the first thing that a child executes --------------------------------------------------------------------------


def test_modules_come_from_memory_and_from_nowhere_else() -> None:
    sources = boot.Sources("p", {"a.py": "X = 1\n", "b/__init__.py": "Y = 2\n", "b/c.py": "Z = 3\n", "d/e.py": "W = 4\n"})
    for name, attribute, package in (("p.a", "X", False), ("p.b", "Y", True), ("p.b.c", "Z", False), ("p.d.e", "W", False)):
        spec = sources.find_spec(name)
        assert spec is not None
        module = ModuleType(name)
        module.__spec__ = spec
        assert sources.create_module(spec) is None
        sources.exec_module(module)
        assert hasattr(module, attribute)
        assert (spec.submodule_search_locations is not None) == package
        assert sources.get_source(name).startswith(attribute)
    for folder in ("p", "p.d"):
        spec = sources.find_spec(folder)
        assert spec is not None
        module = ModuleType(folder)
        module.__spec__ = spec
        sources.exec_module(module)
        assert spec.submodule_search_locations == []
        assert sources.get_source(folder) == ""
    assert sources.find_spec("json") is None
    assert sources.find_spec("pq") is None
    for name in ("p.x", "p.a.b", "p.b.x"):
        with pytest.raises(ModuleNotFoundError):
            sources.find_spec(name)


def test_boot_hands_over_to_the_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"sources": {"a.py": "X = 1\n" * 90_000}, "paths": ["/nowhere"], "program": "quiet"}
    called: list[Any] = []
    monkeypatch.setattr(runner, "main", lambda channel, hello: (called.append(hello), channel.close()))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    ours, theirs = socket.socketpair()
    with ours:
        sender = threading.Thread(target=lambda: ours.sendall(frames.frame(frames.HELLO, json.dumps(said).encode())))
        sender.start()
        boot.main(theirs.detach())
        sender.join()
    assert called == [said]
    assert isinstance(sys.meta_path[0], boot.Sources)
    assert sys.path[-1] == "/nowhere"


def test_boot_ends_when_the_parent_is_gone() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    with theirs, pytest.raises(SystemExit):
        boot.hello(theirs)


# --- where the system does less -------------------------------------------------------------------------------------


@pytest.fixture
def no_pidfd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    monkeypatch.delattr(resource, "prlimit")


@pytest.mark.usefixtures("no_pidfd")
def test_a_process_without_handles_and_limits_from_outside() -> None:
    assert found("found = 1") == 1
    refused(ProgramCrashed, "os._exit(0)")
    refused(OutOfTime, "time.sleep(60)", limits=replace(LIMITS, seconds=0.2))


@pytest.mark.usefixtures("no_pidfd")
def test_a_process_without_handles_that_hangs_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_DYING_SECONDS", 0.05)
    refused(ProgramCrashed, "raw().shutdown(2); time.sleep(600)")


def test_a_launcher_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_child, "_KILL_SECONDS", 0.05)
    code = (
        "import os, time; pid = os.fork() or time.sleep(600); os.write({}, b'{{\"child-pid\": %d}}' % pid); time.sleep(600)"
    )
    monkeypatch.setattr(
        sandbox_child, "_command", lambda _k, seen, info, *_: ([seen.python, "-c", code.format(info)], [info])
    )
    read, write = os.pipe()
    child = Child(NAMESPACES, sandbox_view.view(), [], keep=(), says=write, calls=b"")
    assert child.end() == signal.SIGKILL
    os.close(read)
    os.close(write)


def test_memory_of_who_is_gone_is_nothing() -> None:
    with start("found = 1") as room:
        room.close()
        room._child.limit_address_space(1 << 30)
        assert room._child.memory()[0] == 0
        assert room._child.address_space() == 0
        room._child.limit_address_space(0)


# --- the namespaces by hand, in this process, on a machine that is not there ----------------------------------------


class Kernel:
    """Notes what it is asked for."""

    def __init__(self, fails: str = "") -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.fails = fails

    def __getattr__(self, name: str) -> Callable[..., int]:
        def call(*words: Any) -> int:
            plain = tuple(getattr(word, "value", word) for word in words)
            self.asked.append((name, *plain))
            return -1 if name == self.fails else 0

        return call


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Kernel:
    found_ = Kernel()
    for folder in ("tmp", "proc/self", "proc/sys/user", "old/lib", "new/proc/pressure"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "old" / "null").touch()
    monkeypatch.setattr(sandbox_namespaces, "_libc", found_)
    monkeypatch.setattr(
        sandbox_namespaces,
        "Path",
        lambda *parts: Path(str(tmp_path) + str(Path(*parts))) if str(parts[0]).startswith("/") else Path(*parts),
    )
    monkeypatch.setattr(os, "chdir", lambda path: found_.asked.append(("chdir", path)))
    return found_


CONFIG = {
    "command": ["/python", "-c", ""], "devices": ["/null"], "hostname": "h", "info": -1, "links": [["usr/lib", "/lib32"]],
    "calls": "00" * 16, "hidden": ["/proc/uptime", "/proc/pressure"],
    "nobody": 65534, "parent": os.getppid(), "read_only": ["/lib"], "scratch_bytes": 4096,
}  # fmt: skip


def test_the_root_shows_what_it_was_told_read_only(kernel: Kernel, tmp_path: Path) -> None:
    (tmp_path / "new" / "proc").rename(tmp_path / "kept")
    sandbox_namespaces._root(CONFIG)
    mounts = [call for call in kernel.asked if call[0] == "mount"]
    binds = [call[2] for call in mounts if call[4] & sandbox_namespaces.MS_BIND]
    hardened = [call[3] for call in kernel.asked if call[:2] == ("syscall", sandbox_namespaces.SYS_MOUNT_SETATTR)]
    assert len(binds) == 2
    assert [path.decode().endswith(end) for path, end in zip(hardened, ("/new/lib", "/new/null"), strict=True)] == [
        True,
        True,
    ]
    assert [call[3] for call in mounts if call[3]] == [b"tmpfs", b"tmpfs", b"tmpfs"]
    assert any(b"size=4096" in (call[5] or b"") for call in mounts)
    assert (tmp_path / "new" / "lib32").is_symlink()
    assert (tmp_path / "new" / "null").is_file()


def test_inside_neither_proc_nor_the_root_can_be_written(kernel: Kernel) -> None:
    sandbox_namespaces._enter(CONFIG["hidden"])
    hardened = [call[3].decode() for call in kernel.asked if call[:2] == ("syscall", sandbox_namespaces.SYS_MOUNT_SETATTR)]
    assert hardened == ["/new/proc/uptime", "/new/proc", "/new"]
    assert [call[1:4] for call in kernel.asked if call[0] == "mount"][1:] == [
        (b"/old/dev/null", b"/new/proc/uptime", None),
        (b"tmpfs", b"/new/proc/pressure", b"tmpfs"),
    ]
    assert kernel.asked[-3:] == [
        ("syscall", sandbox_namespaces.SYS_PIVOT_ROOT[os.uname().machine], b".", b"."),
        ("umount2", b".", sandbox_namespaces.MNT_DETACH),
        ("chdir", "/"),
    ]


def test_the_child_has_nothing_when_it_starts(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    def execve(path: str, command: list[str], environment: dict[str, str]) -> None:
        raise Ended(path, command, environment)

    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.setattr(os, "setsid", lambda: None)
    lifeline, held = os.pipe2(os.O_NONBLOCK)
    info = os.open(os.devnull, os.O_WRONLY)
    with pytest.raises(Ended) as caught:
        sandbox_namespaces._child({**CONFIG, "info": info}, lifeline)
    assert caught.value.args == ("/python", CONFIG["command"], {})
    done = [call[:3] for call in kernel.asked]
    privileges = done.index(("prctl", sandbox_namespaces.PR_SET_NO_NEW_PRIVS, 1))
    assert done[-1] == ("prctl", sandbox_namespaces.PR_SET_PDEATHSIG, signal.SIGKILL)
    assert done[privileges + 1][0] == "capset"
    assert done[privileges + 2] == ("prctl", sandbox_namespaces.PR_SET_SECCOMP, sandbox_namespaces.SECCOMP_MODE_FILTER)
    assert done.count(("prctl", sandbox_namespaces.PR_CAPBSET_DROP, 21)) == 1
    os.close(held)
    with pytest.raises(SystemExit):  # its parent died before the kernel knew what to do then
        sandbox_namespaces._child({**CONFIG, "info": os.open(os.devnull, os.O_WRONLY)}, lifeline)
    os.close(lifeline)


@pytest.mark.parametrize(("status", "code"), [(0, 0), (3 << 8, 3), (9, 137)])
def test_the_launcher_ends_as_its_child_did(
    kernel: Kernel, status: int, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(code_: int) -> None:
        raise Ended(code_)

    (tmp_path / "new" / "proc").rename(tmp_path / "kept")
    heard, told = os.pipe()
    monkeypatch.setattr(os, "fork", lambda: 4711)
    monkeypatch.setattr(os, "waitpid", lambda pid, _: (pid, status))
    monkeypatch.setattr(os, "_exit", end)
    with pytest.raises(Ended) as caught:
        sandbox_namespaces.main({**CONFIG, "info": told})
    assert caught.value.args == (code,)
    assert json.loads(os.read(heard, 100)) == {"child-pid": 4711}
    os.close(heard)
    assert (tmp_path / "proc/self/uid_map").read_text() == f"65534 {os.geteuid()} 1"
    assert (tmp_path / "proc/self/setgroups").read_text() == "deny"
    assert (tmp_path / "proc/sys/user/max_user_namespaces").read_text() == "0"
    unshared = next(call for call in kernel.asked if call[0] == "unshare")
    assert unshared[1] == 0x10000000 | 0x20000 | 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000 | 0x02000000


def test_the_launcher_s_child_becomes_the_command(kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def become(config: dict[str, Any], lifeline: int) -> None:
        os.close(lifeline)
        raise Ended(config)

    (tmp_path / "new" / "proc").rename(tmp_path / "kept")
    monkeypatch.setattr(os, "fork", lambda: 0)
    monkeypatch.setattr(sandbox_namespaces, "_child", become)
    with pytest.raises(Ended):
        sandbox_namespaces.main(CONFIG)


def test_a_launcher_whose_parent_is_gone_ends(kernel: Kernel) -> None:
    with pytest.raises(SystemExit):
        sandbox_namespaces.main({**CONFIG, "parent": os.getpid()})


@pytest.mark.parametrize("fails", ["unshare", "prctl"])
def test_what_the_kernel_refuses_is_not_passed_over(fails: str, kernel: Kernel) -> None:
    kernel.fails = fails
    with pytest.raises(OSError, match=fails):
        sandbox_namespaces.main(CONFIG)
