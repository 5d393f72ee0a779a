"""Attacks on the memory that a child shares with its parent, by the child.

As in ``test_escapes.py`` every probe is run where it works too: on a memory file that nobody sealed.
"""

from __future__ import annotations

import io
import json
import os
import textwrap
from typing import Any

import pytest

from confined import LIMITS, OUTPUTS, Opened, outside, start
from strongroom.asset import About, AssetKey, BytesSource, SealedReader, seal
from strongroom.enclave.sandbox_child import BUBBLEWRAP, KINDS, NAMESPACES, PROCESS, works
from strongroom.errors import ChunkAltered
from strongroom.policy import Policy

SIZE = 4 << 20
KEY = AssetKey(b"the-key-of-the-asset-of-32-bytes")
pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no memory files on this system")


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


PLAINTEXT = b"Ada Lovelace, 36" * (SIZE // 16)


def sealed() -> tuple[BytesSource, SealedReader]:
    sink, about = io.BytesIO(), About("persons", "dataset", "text/csv", "lab", 0, Policy())
    manifest = seal(io.BytesIO(PLAINTEXT), sink, key=KEY, salt=bytes(32), about=about, chunk_bytes=1 << 20)
    source = BytesSource(sink.getvalue())
    return source, SealedReader(source, manifest, KEY)


def inside(body: str, kind: str) -> Any:
    """What the code finds, with an input that is shown in a window."""
    _, reader = sealed()
    with reader, start(body, kind) as room:
        given = {"data": Opened(size=SIZE, file=reader)}  # type: ignore[arg-type]
        return json.loads(room.run({}, given, OUTPUTS, LIMITS)["report"])


FIND = """
raw = inputs["data"].open().raw
before = raw.read(1 << 20)
[fd] = [int(n) for n in os.listdir("/proc/self/fd") if os.path.islink(f"/proc/self/fd/{n}")
        and os.readlink(f"/proc/self/fd/{n}").startswith("/memfd:window")]
"""
MAKE = """
fd = os.memfd_create("window")
os.ftruncate(fd, 16 << 20)
shown = mmap.mmap(fd, 16 << 20, prot=mmap.PROT_READ)
"""
CHANGE = """
def by(flags, action):
    def probe():
        again = os.open(f"/proc/self/fd/{fd}", flags)
        try:
            action(again)
        finally:
            os.close(again)
    return tried(probe)

def mapped(protection):
    return lambda again: mmap.mmap(again, 16 << 20, flags=mmap.MAP_SHARED, prot=protection)

def protect():
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64)
    place = libc.mmap(None, 4096, 1, 1, fd, 0)
    return called("mprotect", ctypes.c_void_p(place), ctypes.c_size_t(4096), 3)

found = {
    "protect": protect(),
    "write": by(os.O_RDWR, lambda again: os.pwrite(again, b"evil", 0)),
    "map": by(os.O_RDWR, mapped(3)),
    "shrink": by(os.O_RDWR, lambda again: os.ftruncate(again, 4096)),
    "restore": by(os.O_RDWR, lambda again: os.ftruncate(again, 16 << 20)),
    "grow": by(os.O_RDWR, lambda again: os.ftruncate(again, 32 << 20)),
    "cut": by(os.O_RDWR | os.O_TRUNC, lambda again: None),
    "restore again": by(os.O_RDWR, lambda again: os.ftruncate(again, 16 << 20)),
    "size": os.fstat(fd).st_size,
}
"""


def test_who_sees_the_window_cannot_change_it(kind: str) -> None:
    free, found = outside(MAKE + CHANGE), inside(FIND + CHANGE, kind)
    for probes in (free, found):
        assert probes.pop("size") == 16 << 20
        assert {probes.pop("restore"), probes.pop("restore again")} <= {"done", "EPERM", "EACCES"}  # to the size that it has
    assert free.pop("protect") == "done"
    assert set(free.values()) == {"done"}, free
    assert found.keys() == free.keys() | {"protect"}
    assert set(found.values()) <= {"EPERM", "EACCES"}, found


def test_what_the_child_tried_changes_nothing_of_what_it_is_shown(kind: str) -> None:
    body = FIND + textwrap.dedent(CHANGE) + "raw.seek(1 << 20)\nfound = raw.read(1 << 20) == before == raw.read(1 << 20)"
    assert inside(body, kind) is True


def test_no_key_lies_in_the_window(kind: str) -> None:
    body = FIND + f"memory = mmap.mmap(fd, 16 << 20, prot=1)\nfound = [{KEY.raw!r} in memory, b'Ada Lovelace' in memory]"
    assert inside(body.replace("mmap.mmap(fd, 16 << 20, prot=1)", "bytes(mmap.mmap(fd, 16 << 20, prot=1))"), kind) == [
        False,
        True,
    ]


def test_the_window_is_another_for_each_run(isolated: str) -> None:
    # what one run was shown, and where, is nothing that the next can find
    body = FIND + "found = [bytes(mmap.mmap(fd, 16 << 20, prot=1)).count(b'Ada Lovelace, 36'), os.fstat(fd).st_ino]"
    first, second = inside(body, isolated), inside(body, isolated)
    assert first[0] == second[0] == (1 << 20) // 16


def test_no_byte_of_what_was_never_sealed_is_seen(kind: str) -> None:
    # a store alters one byte of a chunk: its key stream would make the rest of it plain at once
    source, reader = sealed()
    at = 64 + (2 << 20) + 32 + 5
    source._data = source._data[:at] + bytes([source._data[at] ^ 1]) + source._data[at + 1 :]
    body = """
        import threading
        raw = inputs["data"].open().raw
        memory = raw._channel.window._memory
        def watch():
            while not any(memory[::4096]):
                pass
            os.write(2, b"seen")
        threading.Thread(target=watch, daemon=True).start()
        raw.seek(2 << 20)
        raw.readinto(bytearray(1 << 20))
        """
    with reader, start(body, kind) as room:
        with pytest.raises(ChunkAltered):
            room.run({}, {"data": Opened(size=SIZE, file=reader)}, OUTPUTS, LIMITS)  # type: ignore[arg-type]
        assert b"seen" not in room.log
