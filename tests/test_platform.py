"""The simulated platform as a process: it says what runs, whatever the enclave or its files say."""

from __future__ import annotations

import importlib.util
import json
import os
import py_compile
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

import strongroom
from strongroom import wire
from strongroom.app.enclave import platform as platform_module
from strongroom.app.enclave.keys import PlatformKeys, _make_key, root_public_key
from strongroom.app.enclave.line import PlatformClient, write_frame
from strongroom.app.enclave.measure import FileDigests, Installation
from strongroom.app.enclave.platform import SimulatedPlatform, _traced, serve
from strongroom.attest.appraisal import appraise
from strongroom.attest.appraisal_policy import AppraisalPolicy, Reference
from strongroom.attest.evidence import Endorsements, Evidence, Measurement, Roots
from strongroom.attest.keyset import RELEASE_ALGO, RUN_RECEIPT_ALGO, KeyEntry, Keyset, report_data
from strongroom.attest.simulated import PLATFORM, parse
from strongroom.errors import NotMeasurable, PlatformFailed
from strongroom.party import DecryptionKey, SigningKey

NONCE = b"\x07" * 32
NOW = 1_790_000_000
MEASUREMENT = Measurement(PLATFORM, {"package": wire.digest(b"as installed")})
EDITED = Measurement(PLATFORM, {"package": wire.digest(b"edited")})
KEYSET = Keyset(
    NOW + 3600,
    (KeyEntry("a", RUN_RECEIPT_ALGO, SigningKey.from_seed(b"\x01" * 32).public.raw.hex()),),
    (KeyEntry("b", RELEASE_ALGO, DecryptionKey.from_seed(b"\x02" * 96).public.raw.hex()),),
)


# --- keys -------------------------------------------------------------------------------------------------------------


def test_keys_are_made_once_and_are_the_owners_alone(tmp_path):
    state = tmp_path / "a/state"
    keys = PlatformKeys.open(state)
    assert PlatformKeys.open(state).root.seed == keys.root.seed
    assert root_public_key(state) == keys.root.public
    assert keys.root.public != keys.platform.public
    assert {path.name for path in state.iterdir()} == {"root.key", "platform.key"}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in state.iterdir())
    assert keys.root.seed.hex() not in repr(keys)


def test_a_key_is_never_written_over(tmp_path):
    seed = PlatformKeys.open(tmp_path).root.seed
    _make_key(tmp_path / "root.key", "root", os.urandom)
    assert PlatformKeys.open(tmp_path).root.seed == seed
    assert {path.name for path in tmp_path.iterdir()} == {"root.key", "platform.key"}


def _swap(state: Path) -> None:
    shutil.copy(state / "platform.key", state / "root.key")


def _link(state: Path) -> None:
    (state / "root.key").rename(state / "elsewhere")
    (state / "root.key").symlink_to("elsewhere")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: (state / "root.key").chmod(0o640),
        lambda state: (state / "root.key").write_bytes(b"{}"),
        lambda state: (state / "root.key").write_bytes((state / "root.key").read_bytes() + b"\n"),
        _swap,
        _link,
    ],
    ids=["readable-by-others", "garbage", "trailing", "another-role", "link"],
)
def test_a_key_that_is_not_what_it_must_be_is_refused(tmp_path, spoil):
    PlatformKeys.open(tmp_path)
    spoil(tmp_path)
    with pytest.raises(PlatformFailed) as caught:
        PlatformKeys.open(tmp_path)
    assert "root.key" in caught.value.message


def test_a_state_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "state").write_bytes(b"")
    with pytest.raises(PlatformFailed, match="cannot be written"):
        PlatformKeys.open(tmp_path / "state")


# --- what it signs ----------------------------------------------------------------------------------------------------


class Bench:
    """A platform whose files, clock and debugger a test holds in its hands."""

    def __init__(self, state: Path) -> None:
        self.now, self.files, self.debugged = NOW, MEASUREMENT, False
        self.keys = PlatformKeys.open(state)
        self.platform = SimulatedPlatform(
            self.keys, lambda: self.files, clock=lambda: self.now, debugged=lambda: self.debugged
        )

    def ask(self, nonce: bytes = NONCE):
        roots = {PLATFORM: Roots((self.keys.root.public,))}
        policy = AppraisalPolicy(frozenset({PLATFORM}), roots, (Reference(MEASUREMENT),))
        return appraise(
            self.platform.produce(report_data(KEYSET.digest, nonce)),
            policy=policy,
            endorsements=self.platform.endorsements(),
            nonce=nonce,
            at=self.now,
            keyset=KEYSET,
        )

    def code(self) -> str:
        return next((c.code for c in self.ask().checks if c.code), "ok")


@pytest.fixture
def bench(tmp_path) -> Bench:
    return Bench(tmp_path / "state")


def test_what_it_signs_is_affirmed(bench):
    result = bench.ask()
    assert result.affirming
    assert result.measurement == MEASUREMENT


def test_an_edit_after_the_start_is_signed_and_undoing_it_does_not_help(bench):
    assert bench.code() == "ok"
    bench.files = EDITED
    assert bench.code() == "attest.measurement_not_accepted"
    bench.files = MEASUREMENT
    assert bench.code() == "attest.measurement_not_accepted"
    assert parse(bench.platform.produce(bytes(64)).data).measurement == EDITED


def test_a_debugger_once_seen_is_signed_for_good(bench):
    assert bench.code() == "ok"
    bench.debugged = True
    assert bench.code() == "attest.debug"
    bench.debugged = False
    assert bench.code() == "attest.debug"


def test_it_signs_64_bytes_and_nothing_else(bench):
    for size in (0, 32, 63, 65):
        with pytest.raises(PlatformFailed, match="64 bytes"):
            bench.platform.produce(bytes(size))


def test_the_endorsement_is_renewed_when_half_its_time_is_over(bench):
    first = bench.platform.endorsements()
    bench.now += platform_module.ENDORSED_S // 2 - 1
    assert bench.platform.endorsements() == first
    bench.now += 1
    assert bench.platform.endorsements() != first
    assert bench.ask(b"\x08" * 32).transcript.first_problem.code == "attest.keyset_expired"  # the chain itself still holds


def test_a_debugger_is_read_from_the_kernel(tmp_path):
    assert not _traced(os.getpid())
    assert not _traced(1, tmp_path)  # no such list: it cannot be told
    (tmp_path / "self").mkdir()
    assert _traced(1, tmp_path)
    (tmp_path / "1").mkdir()
    (tmp_path / "1/status").write_text("Name:\tx\nTracerPid:\t0\n")
    assert not _traced(1, tmp_path)
    (tmp_path / "1/status").write_text("Name:\tx\nTracerPid:\t77\n")
    assert _traced(1, tmp_path)


# --- the line -----------------------------------------------------------------------------------------------------------


class Far:
    """The far end of a line, which answers each request with the next of some bodies."""

    def __init__(self, *bodies: bytes, raw: bytes = b"", silent: bool = False) -> None:
        near, far = socket.socketpair()
        self.client = PlatformClient(near.detach(), seconds=0.2 if silent else 5.0)
        self.requests: list[bytes] = []
        self._far, self._bodies, self._raw = far, bodies, raw
        self._thread = threading.Thread(target=self._silent if silent else self._run)
        self._thread.start()

    def _silent(self) -> None:
        while self._far.recv(4096):
            pass

    def _run(self) -> None:
        for body in self._bodies:
            head = self._far.recv(4, socket.MSG_WAITALL)
            if not head:  # the client closed the line, as it should after a bad answer
                return
            size = int.from_bytes(head, "big")
            self.requests.append(self._far.recv(size, socket.MSG_WAITALL) if size else b"")
            write_frame(self._far, 5, body)
        if self._raw:
            self._far.recv(4096)
            self._far.sendall(self._raw)
        self._far.shutdown(socket.SHUT_WR)

    def end(self) -> None:
        self.client.close()
        self._thread.join()
        self._far.close()


@pytest.fixture
def far():
    ends: list[Far] = []

    def make(*bodies: bytes, **named) -> Far:
        ends.append(Far(*bodies, **named))
        return ends[-1]

    yield make
    for end in ends:
        end.end()


EVIDENCE = wire.encode({"evidence": {"data": wire.b64(b"signed"), "platform": "simulated"}})


def test_the_client_asks_for_a_quote_and_for_endorsements(far):
    end = far(EVIDENCE, wire.encode({"endorsements": []}))
    assert end.client.produce(bytes(64)) == Evidence("simulated", b"signed")
    assert end.client.endorsements() == Endorsements()
    assert end.requests == [bytes(64), b""]
    with pytest.raises(PlatformFailed, match="64 bytes"):
        end.client.produce(b"")


def test_a_refusal_leaves_the_line_open(far):
    end = far(wire.encode({"error": {"code": "enclave.not_measurable", "message": "a file is missing"}}), EVIDENCE)
    with pytest.raises(PlatformFailed, match="gives no evidence: a file is missing"):
        end.client.produce(bytes(64))
    assert end.client.produce(bytes(64)).data == b"signed"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        EVIDENCE + b" ",
        wire.encode({"endorsements": []}),
        wire.encode({**json.loads(EVIDENCE), "endorsements": []}),
        wire.encode({**json.loads(EVIDENCE), "error": {"code": "x", "message": "y"}}),
        wire.encode({"error": {"message": "y"}}),
        wire.encode({"error": {"code": "x", "message": "y", "more": ""}}),
        wire.encode({"evidence": {"data": "!", "platform": "simulated"}}),
        wire.encode({"evidence": {"data": "", "platform": "Simulated"}}),
        wire.encode({"evidence": {"data": "", "platform": "simulated", "more": ""}}),
    ],
)
def test_any_other_answer_closes_the_line_for_good(far, body):
    end = far(body, EVIDENCE)
    for _ in range(2):
        with pytest.raises(PlatformFailed, match="no usable answer"):
            end.client.produce(bytes(64))


@pytest.mark.parametrize("raw", [b"\x00", b"\x00\x00\x00\x05{}", b"\xff\xff\xff\xff" + bytes(10)])
def test_a_broken_frame_closes_the_line_for_good(far, raw):
    end = far(raw=raw)
    for _ in range(2):
        with pytest.raises(PlatformFailed, match="no usable answer"):
            end.client.produce(bytes(64))


def test_an_answer_that_comes_too_late_is_for_no_question(far):
    end = far(silent=True)
    for _ in range(2):
        with pytest.raises(PlatformFailed, match="no usable answer"):
            end.client.produce(bytes(64))


def test_a_descriptor_that_is_no_socket_is_refused(tmp_path):
    with (tmp_path / "file").open("wb") as file, pytest.raises(PlatformFailed, match="not a platform's socket"):
        PlatformClient(file.fileno())
    with pytest.raises(PlatformFailed):
        PlatformClient(999_999)


def test_the_descriptor_goes_no_further():
    near, far_end = socket.socketpair()
    near.set_inheritable(True)
    client = PlatformClient(near.detach())
    assert not client._line.get_inheritable()
    client.close()
    far_end.close()


# --- the process --------------------------------------------------------------------------------------------------------

SERVER = """
import json, os, signal, sys, time
from pathlib import Path
from strongroom.app.enclave import launch
from strongroom.app.enclave.line import PlatformClient
assert sys.argv[1] == "--platform-fd"
fd = int(sys.argv[2])
def quote(client, where, data=bytes(64)):
    evidence, documents = client.produce(data), client.endorsements()
    Path(where).write_text(json.dumps({"data": evidence.data.decode(), "documents": documents.to_json()}))
exec(sys.argv[3])
"""


@pytest.fixture(scope="module")
def small() -> Installation:
    """This installation with only the distributions that the line needs: quicker to measure."""
    here = Installation.here()
    wanted = {"cryptography", "cffi", "pycparser", "rfc8785", "typing-extensions"}
    return replace(here, distributions=tuple(d for d in here.distributions if d.name in wanted))


@pytest.fixture
def room(small, tmp_path):
    """A copy of the package whose enclave does what a test says."""
    package = tmp_path / "installed/strongroom"
    source = Path(strongroom.__file__).parent
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "app/enclave/server.py").write_text(SERVER)
    return replace(small, package=package)


def run(room: Installation, tmp_path: Path, code: str, *more: str, **named) -> int:
    return serve(tmp_path / "state", [code, *more], installation=room, **named)


def test_evidence_of_a_started_enclave_is_affirmed(room, tmp_path):
    expected = room.measure(FileDigests())
    data = report_data(KEYSET.digest, NONCE)
    where = tmp_path / "quote"
    code = f"quote(PlatformClient(fd), {str(where)!r}, bytes.fromhex({data.hex()!r}))"
    assert run(room, tmp_path, code, clock=lambda: NOW) == 0
    found = json.loads(where.read_text())
    result = appraise(
        Evidence("simulated", found["data"].encode()),
        policy=AppraisalPolicy(
            frozenset({PLATFORM}), {PLATFORM: Roots((root_public_key(tmp_path / "state"),))}, (Reference(expected),)
        ),
        endorsements=Endorsements.from_json(found["documents"]),
        nonce=NONCE,
        at=NOW,
        keyset=KEYSET,
    )
    assert result.affirming


def _measured(where: Path) -> Measurement:
    return parse(json.loads(where.read_text())["data"].encode()).measurement


def test_a_program_edited_while_the_enclave_runs_is_what_the_platform_signs(room, tmp_path):
    before = room.measure(FileDigests())
    program = room.package / "__init__.py"
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    code = f"""
c = PlatformClient(fd)
quote(c, {str(one)!r})
program = Path({str(program)!r})
was = program.read_bytes()
program.write_bytes(was + b"#")
quote(c, {str(two)!r})
program.write_bytes(was)
quote(c, {str(three)!r})
"""
    assert run(room, tmp_path, code) == 0
    assert _measured(one) == before
    assert _measured(two) == _measured(three) != before
    assert {n for n in before.registers if before.registers[n] != _measured(two).registers[n]} == {"package"}


def test_files_that_cannot_be_measured_give_no_evidence(room, tmp_path):
    said = tmp_path / "said"
    code = f"""
c = PlatformClient(fd)
Path({str(room.package / "planted")!r}).symlink_to("/nowhere")
try:
    c.produce(bytes(64))
except Exception as error:
    Path({str(said)!r}).write_text(type(error).__name__ + str(error))
"""
    assert run(room, tmp_path, code) == 0
    assert said.read_text().startswith("PlatformFailedthe platform gives no evidence")


def test_an_incomplete_installation_is_not_started(room, tmp_path):
    (room.package / "planted").symlink_to("/nowhere")
    with pytest.raises(NotMeasurable):
        run(room, tmp_path, "raise SystemExit(3)")


def test_planted_bytecode_is_never_run(room, tmp_path):
    said = tmp_path / "said"
    honest = room.package / "fair.py"
    honest.write_text("VERDICT = 'good'\n")
    status = honest.stat()
    evil = tmp_path / "fair.py"
    evil.write_text("VERDICT = 'evil'\n")
    os.utime(evil, ns=(status.st_atime_ns, status.st_mtime_ns))
    planted = importlib.util.cache_from_source(str(honest))
    py_compile.compile(str(evil), planted, dfile=str(honest))
    # The attack works where nobody prepared for it:
    show = "import sys; sys.path.insert(0, sys.argv[1]); from strongroom.fair import VERDICT; print(VERDICT)"
    plain = [sys.executable, "-c", show]
    assert subprocess.check_output([*plain, str(room.package.parent)]) == b"evil\n"
    # and is neither measured nor run here:
    assert room.measure(FileDigests()) == replace(room).measure(FileDigests())
    assert run(room, tmp_path, f"from strongroom.fair import VERDICT; Path({str(said)!r}).write_text(VERDICT)") == 0
    assert said.read_text() == "good"


def test_the_enclave_cannot_import_what_was_not_measured(room, tmp_path, monkeypatch):
    said, evil = tmp_path / "said", tmp_path / "evil"
    evil.mkdir()
    for name in ("sitecustomize", "usercustomize"):
        (evil / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.setenv("PYTHONPATH", str(evil))
    monkeypatch.setenv("STRONGROOM_SECRET", "x")
    code = f"""
import importlib.util
names = ["pytest", "hypothesis", "site", "sitecustomize", "cryptography", "strongroom"]
found = {{n: n in sys.modules or bool(importlib.util.find_spec(n)) for n in names}}
found["site"] = "site" in sys.modules
Path({str(said)!r}).write_text(json.dumps([found, dict(os.environ), sys.path]))
"""
    assert run(room, tmp_path, code) == 0
    found, environment, path = json.loads(said.read_text())
    assert found == {
        "pytest": False,
        "hypothesis": False,
        "site": False,
        "sitecustomize": False,
        "cryptography": True,
        "strongroom": True,
    }
    assert environment.keys() <= {"LANG", "PATH", "LC_CTYPE"}
    assert len(path) == 3
    assert not (tmp_path / "ran").exists()


def test_the_enclaves_exit_status_is_passed_on(room, tmp_path):
    assert run(room, tmp_path, "raise SystemExit(7)") == 7
    assert run(room, tmp_path, "os.kill(os.getpid(), signal.SIGKILL)") == 128 + 9


@pytest.mark.parametrize(
    "sent",
    [
        "b'\\x00\\x00\\x00\\x20' + bytes(32)",
        "b'\\x00\\x00\\x00\\x41' + bytes(65)",
        "b'\\xff\\xff\\xff\\xff'",
        'json.dumps({"measurement": "sha256:" + "0" * 64}).encode()',
        "b'\\x00\\x00\\x00\\x40' + bytes(10)",
    ],
    ids=["short", "long", "huge", "a-measurement-of-its-choosing", "unfinished"],
)
def test_an_enclave_that_asks_for_anything_else_is_ended(room, tmp_path, monkeypatch, sent):
    monkeypatch.setattr(platform_module, "FRAME_S", 0.2)
    process = tmp_path / "pid"
    code = f"Path({str(process)!r}).write_text(str(os.getpid())); os.write(fd, {sent}); time.sleep(60)"
    with pytest.raises(PlatformFailed):
        run(room, tmp_path, code)
    assert _gone(int(process.read_text()))


def test_an_enclave_that_closes_its_line_is_ended(room, tmp_path, monkeypatch):
    monkeypatch.setattr(platform_module, "STOP_S", 0.2)
    assert run(room, tmp_path, "os.close(fd); time.sleep(60)") in {128 + signal.SIGTERM, 128 + signal.SIGKILL}


def test_stopping_the_platform_stops_even_an_enclave_that_will_not(room, tmp_path, monkeypatch):
    monkeypatch.setattr(platform_module, "STOP_S", 0.2)
    before = signal.getsignal(signal.SIGTERM)
    code = "signal.signal(signal.SIGTERM, signal.SIG_IGN); os.kill(os.getppid(), signal.SIGTERM); time.sleep(60)"
    assert run(room, tmp_path, code) == 0
    assert signal.getsignal(signal.SIGTERM) is before


def test_other_signals_do_not_stop_it(room, tmp_path):
    handled = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        assert run(room, tmp_path, "os.kill(os.getppid(), signal.SIGUSR1); raise SystemExit(5)") == 5
    finally:
        signal.signal(signal.SIGUSR1, handled)


def test_libraries_are_compiled_once_before_the_enclave_starts(room, tmp_path):
    (room.package / "heavy.py").write_text("print()\n")
    code = "raise SystemExit(0 if list(Path(sys.pycache_prefix).rglob('heavy.*.pyc')) else 1)"
    assert run(room, tmp_path, code) == 1
    assert run(room, tmp_path, code, warm=["strongroom.heavy"]) == 0
    assert run(room, tmp_path, code, warm=["strongroom.no_such_module"]) == 0  # it was done the first time
    (room.package / "heavy.py").write_text("print(1)\n")
    with pytest.raises(PlatformFailed, match="cannot be imported"):
        run(room, tmp_path, code, warm=["strongroom.no_such_module"])


DRIVER = """
import sys
from dataclasses import replace
from pathlib import Path
from strongroom.app.enclave.measure import Installation
from strongroom.app.enclave.platform import serve
place = Installation.here()
wanted = ("cryptography", "cffi", "pycparser", "rfc8785", "typing-extensions")
place = replace(place, package=Path(sys.argv[1]), distributions=tuple(d for d in place.distributions if d.name in wanted))
sys.exit(serve(Path(sys.argv[2]), [sys.argv[3]], installation=place))
"""


def _gone(process: int, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":  # dead; whoever adopted it has not collected it yet
            return True
        time.sleep(0.01)
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="roles run on Linux; only its kernel ties a child to its parent")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGKILL, -9)])
def test_the_enclave_ends_with_its_platform(room, tmp_path, number, status):
    pid_file = tmp_path / "pid"
    draft = tmp_path / "draft"
    code = f"""
Path({str(draft)!r}).write_text(str(os.getpid()))
Path({str(draft)!r}).rename({str(pid_file)!r})
time.sleep(60)
"""
    platform = subprocess.Popen([sys.executable, "-c", DRIVER, str(room.package), str(tmp_path / "state"), code])
    deadline = time.monotonic() + 30
    while not pid_file.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    enclave = int(pid_file.read_text())
    assert not _gone(enclave, 0.05)
    platform.send_signal(number)
    assert platform.wait(20) == status
    assert _gone(enclave)


def test_an_enclave_whose_platform_is_not_its_parent_does_not_start(room, tmp_path):
    digests = FileDigests()
    from strongroom.app.enclave import launch

    image = launch.build(tmp_path / "state", room.measure(digests).digest, room.links, room.interpreter, room.library)
    ended = subprocess.run(image.command(room.module, parent=1), capture_output=True, check=False)
    assert ended.returncode == 1
    assert b"the platform is gone" in ended.stderr
