"""Memory that parent and child share: what goes through it, who may write to it, and what may be asked of it."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import mmap
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.asset import About, AssetKey, BytesSource, Manifest, SealedReader, seal
from strongroom.enclave import sandbox_window
from strongroom.enclave.sandbox_child import KINDS, PROCESS, works
from strongroom.enclave.sandbox_job import Inputs
from strongroom.enclave.sandbox_window import SEALS, SHARE, WORTH_BYTES, Window, made
from strongroom.errors import Cancelled, ChunkAltered, OutOfTime, ProtocolBroken, Truncated
from strongroom.policy import Policy
from strongroom.programs import frames, runner
from strongroom.programs.window import LEAST
from strongroom.programs.window import Window as Seen
from test_sandbox import LIMITS, OUTPUTS, PAGE, Opened, start

KEY = AssetKey(bytes(range(32)))
SIZE = (5 << 20) + 12345
HALF = frames.WINDOW_BYTES // 2
pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no memory files on this system")


@cache
def plaintext() -> bytes:
    return b"".join(hashlib.sha256(n.to_bytes(4, "big")).digest() for n in range(SIZE // 32 + 1))[:SIZE]


@cache
def sealed() -> tuple[bytes, Manifest]:
    sink = io.BytesIO()
    about = About("tumours", "dataset", "text/csv", "hospital", 0, Policy())
    manifest = seal(io.BytesIO(plaintext()), sink, key=KEY, salt=bytes(32), about=about, chunk_bytes=1 << 20)
    return sink.getvalue(), manifest


@pytest.fixture
def inputs() -> Iterator[dict[str, Opened]]:
    """One input, sealed."""
    file, manifest = sealed()
    with SealedReader(BytesSource(file), manifest, KEY) as reader:
        yield {"data": Opened("application/octet-stream", SIZE, reader)}  # type: ignore[arg-type]


def plain() -> dict[str, Opened]:
    """The same, as a file of another kind."""
    return {"data": Opened("application/octet-stream", SIZE, io.BytesIO(plaintext()))}


@pytest.fixture
def window() -> Iterator[Window]:
    found = made(SIZE, LIMITS.memory_bytes)
    assert found is not None
    with found:
        yield found


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    if request.param != PROCESS and not works(request.param):
        pytest.skip(f"{request.param} cannot be had on this machine")
    return str(request.param)


# --- the memory -----------------------------------------------------------------------------------------------------


def test_nobody_writes_to_it_but_the_mapping_that_made_it(window: Window) -> None:
    window.view[:4] = b"mine"
    given_ = window.pass_on()
    again = os.open(f"/proc/self/fd/{given_}", os.O_RDWR)  # who has it for reading can open it anew
    attacks: list[Callable[[], object]] = [
        lambda: os.pwrite(given_, b"his", 0),
        lambda: os.pwrite(again, b"his", 0),
        lambda: os.ftruncate(again, 0),
        lambda: os.ftruncate(again, 1 << 30),
        lambda: os.posix_fallocate(again, 0, 1 << 30),
        lambda: mmap.mmap(again, 4096, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE),
        lambda: fcntl.fcntl(again, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE),
    ]
    try:
        for attack in attacks:
            with pytest.raises(OSError):
                attack()
        assert fcntl.fcntl(given_, fcntl.F_GET_SEALS) == SEALS
        assert os.pread(given_, 4, 0) == b"mine"
        window.view[:4] = b"more"
        assert os.pread(given_, 4, 0) == b"more"
        assert os.fstat(given_).st_size == os.fstat(given_).st_blocks * 512 == frames.WINDOW_BYTES  # all of it is there
    finally:
        os.close(given_)
        os.close(again)


def test_nothing_is_left_of_it_when_it_is_closed() -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    with sandbox_window._sealed(1 << 20) as unused:
        assert len(os.listdir("/proc/self/fd")) > len(before)
    assert sorted(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ValueError, match="released"):
        unused.view[0] = 1
    part = None
    with sandbox_window._sealed(1 << 20) as known:
        part = known.view[:10]  # as an error's traceback has
    assert len(part) == 10


def test_there_is_none_where_it_is_not_worth_it_or_may_not_be() -> None:
    assert made(WORTH_BYTES - 1, 1 << 40) is None
    assert made(1 << 40, frames.WINDOW_BYTES * SHARE - 1) is None


@pytest.mark.parametrize("missing", ["memfd_create", "seals", "proc"])
def test_there_is_none_where_the_system_cannot(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(os.listdir("/proc/self/fd"))

    def fails(*_: object, **__: object) -> int:
        raise OSError

    if missing == "memfd_create":
        monkeypatch.delattr(os, "memfd_create")
    elif missing == "seals":
        monkeypatch.setattr(fcntl, "fcntl", fails)
    else:
        monkeypatch.setattr(sandbox_window.os, "open", fails)
    assert made(SIZE, LIMITS.memory_bytes) is None
    monkeypatch.undo()
    assert len(os.listdir("/proc/self/fd")) == before


def test_there_is_none_where_a_seal_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    true = fcntl.fcntl
    monkeypatch.setattr(fcntl, "fcntl", lambda fd, what, *more: true(fd, what, *[value & ~0x10 for value in more]))
    assert made(SIZE, LIMITS.memory_bytes) is None


# --- what may be asked ----------------------------------------------------------------------------------------------


def said(place: int, *ranges: tuple[int, int, int]) -> bytes:
    return frames.PLACE_BODY.pack(place) + b"".join(frames.READ_BODY.pack(*one) for one in ranges)


BAD = {
    "nothing": b"",
    "no range": said(0),
    "half a range": said(0, (0, 0, 1))[:-1],
    "too many": said(0, *[(0, 0, 1)] * (frames.MAX_RANGES + 1)),
    "a role that there is not": said(0, (1, 0, 1)),
    "no byte": said(0, (0, 0, 0)),
    "past the input": said(0, (0, SIZE - 1, 2)),
    "far past the input": said(0, (0, 2**64 - 1, 2**32 - 1)),
    "past the window": said(frames.WINDOW_BYTES - 1, (0, 0, 2)),
    "outside of the window": said(2**32 - 1, (0, 0, 1)),
    "the second past the window": said(HALF, (0, 0, 5 << 20), (0, 0, 5 << 20)),
    "the second past the input": said(0, (0, 0, 10), (0, SIZE, 1)),
}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD)
def test_nothing_is_filled_where_any_of_it_may_not_be_asked_for(body: bytes, window: Window, inputs: Any) -> None:
    assert Inputs(inputs, window).answer(frames.SHOW, body, lambda: None) is None
    assert not any(window.view[::4096])


def test_without_a_window_nobody_may_ask_for_it(inputs: Any) -> None:
    assert Inputs(inputs).answer(frames.SHOW, said(0, (0, 0, 1)), lambda: None) is None


@pytest.mark.parametrize("other", [False, True], ids=["sealed", "another file"])
def test_ranges_lie_one_after_the_other(window: Window, inputs: Any, *, other: bool) -> None:
    served = Inputs(plain() if other else inputs, window)
    body = said(HALF, (0, 4 << 20, 1 << 20), (0, 7, 3), (0, SIZE - 2, 2), (0, 0, 3 << 20))
    answer = served.answer(frames.SHOW, body, lambda: None)
    assert answer is not None
    assert bytes(answer) == frames.frame(frames.SHOWN)
    data, end = plaintext(), HALF + (4 << 20) + 5
    whole = data[4 << 20 : 5 << 20] + data[7:10] + data[-2:] + data[: 3 << 20]
    assert bytes(window.view[HALF:end]) == whole
    assert not any(window.view[:HALF:4096])
    assert not any(window.view[end:])


@given(st.binary(max_size=60))
def test_whatever_is_asked_is_an_answer_or_none(body: bytes) -> None:
    shown = Window.__new__(Window)
    shown.view = memoryview(bytearray(100))
    shown.size = 100
    served = Inputs({"data": Opened("a/b", 50, io.BytesIO(bytes(50)))}, shown)
    assert served.answer(frames.SHOW, body, lambda: None) in {None, frames.frame(frames.SHOWN)}


def test_an_input_that_ends_early_is_truncated(window: Window) -> None:
    served = Inputs({"data": Opened("a/b", SIZE, io.BytesIO(b"12345"))}, window)
    with pytest.raises(Truncated):
        served.show(said(0, (0, 0, 10)), lambda: None)


def test_the_conversation_of_the_specification() -> None:
    lines = PAGE.split("With a window,")[1].split("```")[1].strip().splitlines()
    assert [bytes.fromhex(line[6:]) for line in lines] == [
        frames.frame(frames.SHOW, said(HALF, (0, 4 << 20, HALF))),
        frames.frame(frames.SHOWN),
        frames.frame(frames.SHOW, said(0, (0, 0, 8), (0, 8, 2))),
        frames.frame(frames.SHOWN),
    ]


# --- the child's half -----------------------------------------------------------------------------------------------


def seen(size: int = frames.WINDOW_BYTES) -> Seen:
    descriptor = os.memfd_create("window")
    os.ftruncate(descriptor, size)
    return Seen(descriptor, size)


@given(st.lists(st.tuples(st.integers(0, 1 << 40), st.integers(0, 20 << 20)), max_size=90))
def test_portions_are_the_ranges_and_fit(ranges: list[tuple[int, int]]) -> None:
    portions = [*seen().portions(ranges)]
    for portion in portions:
        assert 1 <= len(portion) <= frames.MAX_RANGES
        assert all(size > 0 for _, size in portion)
        assert sum(size for _, size in portion) <= HALF

    def joined(some: list[tuple[int, int]]) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        for start_, size in some:
            if found and sum(found[-1]) == start_:
                found[-1] = (found[-1][0], found[-1][1] + size)
            elif size:
                found.append((start_, size))
        return found

    assert joined([one for portion in portions for one in portion]) == joined(ranges)


def test_long_ranges_are_cut_where_chunks_end() -> None:
    cut = [portion[0] for portion in seen().portions([(100, 20 << 20)])]
    assert cut == [(100, HALF - 100), (HALF, HALF), (2 * HALF, (4 << 20) + 100)]


def test_an_answer_that_says_something_is_refused() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(frames.frame(frames.DATA, b"1"))
        way = runner.Channel(theirs)
        way.window = seen()
        with pytest.raises(frames.BrokenFrame):
            way.read(0, [(0, LEAST)], memoryview(bytearray(LEAST)))


def test_who_has_no_room_for_it_asks_through_the_channel() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, open(os.devnull, "rb") as nothing:
        job = {"inputs": {}, "outputs": {}, "parameters": {}, "window": 1 << 20}
        way = runner.Channel(theirs)
        way.descriptors = [os.dup(nothing.fileno())]  # cannot be mapped
        runner.Job(way, job)
        assert way.window is None
        assert not way.descriptors


def test_a_range_past_the_end_is_not_asked_for() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(EOFError):
        runner.RangeFile(runner.Channel(theirs), 0, 10).gather([(5, 6)], memoryview(bytearray(6)))


# --- real children --------------------------------------------------------------------------------------------------

READS = """
import hashlib
raw = inputs["data"].open().raw
size = inputs["data"].size
small = bytearray(10)
raw.gather([(size - 3, 3), (7, 7)], memoryview(small))
large = bytearray(3 << 20)
raw.gather([(1 << 20, 2 << 20), (size - (1 << 20), 1 << 20)], memoryview(large))
whole = hashlib.sha256(raw.readall()).hexdigest()
found = [raw._channel.window is not None, small.hex(), hashlib.sha256(large).hexdigest(), whole]
"""


def read(kind: str, inputs: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Any], list[int]]:
    lengths: list[int] = []
    true = Inputs.read
    monkeypatch.setattr(Inputs, "read", lambda self, body: lengths.append(body[-1]) or true(self, body))
    with start(READS, kind) as room:
        return json.loads(room.run({}, inputs, OUTPUTS, LIMITS)["report"]), lengths


def expected() -> list[str]:
    data = plaintext()
    large = data[1 << 20 : 3 << 20] + data[-(1 << 20) :]
    return [(data[-3:] + data[7:14]).hex(), *(hashlib.sha256(part).hexdigest() for part in (large, data))]


@pytest.mark.parametrize("other", [False, True], ids=["sealed", "another file"])
def test_what_is_long_comes_through_the_window(
    kind: str, inputs: Any, monkeypatch: pytest.MonkeyPatch, *, other: bool
) -> None:
    found, lengths = read(kind, plain() if other else inputs, monkeypatch)
    assert found == [True, *expected()]
    assert lengths == [3, 7]


def test_without_a_window_everything_comes_through_the_channel(
    kind: str, inputs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "memfd_create")
    found, lengths = read(kind, inputs, monkeypatch)
    assert found == [False, *expected()]
    assert len(lengths) > 8


def test_code_ahead_of_the_job_takes_no_descriptor_from_it() -> None:
    # both are sent as one, and descriptors come with the first byte
    ours, theirs = socket.socketpair()
    with ours, theirs:
        passed = os.memfd_create("window")
        os.ftruncate(passed, 1 << 20)
        both = frames.frame(frames.CODE, b"code") + frames.frame(frames.JOB, b"{}")
        socket.send_fds(ours, [both], [passed])
        os.close(passed)
        way = runner.Channel(theirs)
        assert (way.receive(frames.CODE), way.receive(frames.JOB)) == (b"code", b"{}")
        assert len(way.descriptors) == 1
        os.close(way.descriptors[0])


def refused(
    error: type[Exception] | tuple[type[Exception], ...], body: str, inputs: Any, limits: Any = LIMITS, kind: str = PROCESS
) -> None:
    head = "channel = inputs['data'].open().raw._channel\n"
    with start(head + body, kind) as room, pytest.raises(error):
        room.run({}, inputs, OUTPUTS, limits)
    assert room._said < 0


@pytest.mark.parametrize("name", ["past the window", "past the input", "a role that there is not", "no range"])
def test_who_asks_for_what_nobody_may_have_is_killed(name: str, inputs: Any) -> None:
    refused(ProtocolBroken, f"raw().sendall(frame(b'W', {BAD[name]!r}))\ntime.sleep(600)", inputs)


def test_who_asks_for_a_window_that_it_has_not_is_killed() -> None:
    small = {"data": Opened("a/b", 4, io.BytesIO(b"data"))}
    refused(ProtocolBroken, f"raw().sendall(frame(b'W', {said(0, (0, 0, 1))!r}))\ntime.sleep(600)", small)


def test_an_input_that_was_altered_ends_the_run_with_that(kind: str) -> None:
    file, manifest = sealed()
    source = BytesSource(file)
    with SealedReader(source, manifest, KEY) as reader:
        source._data = file[:-5_000_000] + bytes([file[-5_000_000] ^ 1]) + file[-4_999_999:]
        inputs = {"data": Opened("a/b", SIZE, reader)}  # type: ignore[arg-type]
        refused(ChunkAltered, "inputs['data'].open().raw.readall()", inputs, kind=kind)


ASKS = f"""
for _ in range(2000): raw().send(frame(b'W', {said(0, (0, 0, 5 << 20), (0, 0, 5 << 20))!r}))
time.sleep(600)
"""


def test_who_asks_and_does_not_listen_runs_out_of_time(inputs: Any) -> None:
    refused(OutOfTime, ASKS, inputs, replace(LIMITS, seconds=1.0))


def test_a_run_can_be_cancelled_while_the_window_is_filled(inputs: Any) -> None:
    file = inputs["data"].file
    with start("inputs['data'].open().raw.readall()") as room:
        true = file.read_ranges

        def read_ranges(*wanted: Any, **more: Any) -> None:
            room.cancel()
            true(*wanted, **more)

        file.read_ranges = read_ranges
        with pytest.raises(Cancelled):
            room.run({}, inputs, OUTPUTS, LIMITS)


def test_two_threads_that_ask_at_once_get_their_own(kind: str, inputs: Any) -> None:
    body = """
        import hashlib, threading
        raw, found = inputs["data"].open().raw, [None] * 6
        def work(n):
            taken = bytearray(2 << 20)
            raw.gather([(n * 100_000, len(taken))], memoryview(taken))
            found[n] = hashlib.sha256(taken).hexdigest()
        threads = [threading.Thread(target=work, args=(n,)) for n in range(len(found))]
        [one.start() for one in threads]
        [one.join() for one in threads]
        """
    with start(body, kind) as room:
        found = json.loads(room.run({}, inputs, OUTPUTS, LIMITS)["report"])
    data = plaintext()
    assert found == [hashlib.sha256(data[n * 100_000 :][: 2 << 20]).hexdigest() for n in range(6)]


def test_who_asks_again_while_it_reads_harms_nobody_else(inputs: Any) -> None:
    # over and over for the same place, from two threads, without waiting: in the end it knows less, and that is all
    body = f"""
        import threading
        way, ask = raw(), frame(b'W', {said(0, (0, 0, 3 << 20), (0, 1 << 20, 3 << 20))!r})
        memory = inputs["data"].open().raw._channel.window._memory
        def work():
            for _ in range(15):
                way.sendall(ask)
        threads = [threading.Thread(target=work) for _ in range(2)]
        [one.start() for one in threads]
        answers = b""
        while len(answers) < 150:
            answers += way.recv(5)
            sum(memory[::4096])
        [one.join() for one in threads]
        found = answers.hex()
        """
    with start(body) as room:
        assert json.loads(room.run({}, inputs, OUTPUTS, LIMITS)["report"]) == "5a00000000" * 30
    reader = inputs["data"].file
    assert len(reader._ranges._kept) <= 4
