"""Ranges of a sealed file, opened by several threads into memory that somebody else may be reading."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom import errors
from strongroom.asset import About, AssetKey, BytesSource, Manifest, SealedReader, seal
from strongroom.asset.ranges import KEPT
from strongroom.policy import Policy

KEY = AssetKey(bytes(range(32)))
PLAINTEXT = bytes(range(256)) * 4 + bytes(range(50))  # 16 chunks of 64 bytes, and a short one
VECTORS = sorted((Path(__file__).parent.parent / "vectors" / "sealed").glob("*.json"))
UNTOUCHED = 0xEE


def sealed(plaintext: bytes = PLAINTEXT, chunk_bytes: int = 64) -> tuple[bytes, Manifest]:
    sink = io.BytesIO()
    about = About("tumours", "dataset", "text/csv", "hospital", 0, Policy())
    manifest = seal(io.BytesIO(plaintext), sink, key=KEY, salt=bytes(32), about=about, chunk_bytes=chunk_bytes)
    return sink.getvalue(), manifest


FILE, MANIFEST = sealed()


class Changing(BytesSource):
    """A store that answers as it likes, and knows what it was asked."""

    def __init__(self, data: bytes = FILE) -> None:
        super().__init__(data)
        self.data, self.asked = data, list[int]()
        self.before: Callable[[int], None] = lambda _: None

    def read_at(self, offset: int, length: int) -> bytes:
        index = (offset - 64) // 80
        self.asked.append(index)
        self.before(index)
        return self.data[offset : offset + length]


def into(*sizes: int) -> list[memoryview]:
    return [memoryview(bytearray([UNTOUCHED] * size)) for size in sizes]


@given(st.binary(max_size=700), st.integers(64, 300), st.integers(1, 4), st.data())
def test_ranges_are_those_of_the_plaintext(plaintext: bytes, chunk_bytes: int, threads: int, draw: st.DataObject) -> None:
    file, manifest = sealed(plaintext, chunk_bytes)
    place = st.integers(0, len(plaintext))
    with SealedReader(BytesSource(file), manifest, KEY) as reader:
        for _ in range(3):
            ends = [sorted((draw.draw(place), draw.draw(place))) for _ in range(draw.draw(st.integers(0, 5)))]
            wanted = [(start, memoryview(bytearray(end - start))) for start, end in ends]
            reader.read_ranges(wanted, threads=threads)
            assert [bytes(view) for _, view in wanted] == [plaintext[start:end] for start, end in ends]


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_a_sealed_vector_by_ranges_as_by_reading(path: Path) -> None:
    vector = json.loads(path.read_bytes())
    source, key = BytesSource(base64.b64decode(vector["sealed"])), AssetKey(bytes.fromhex(vector["key"]))

    def told(read: Callable[[SealedReader], bytes]) -> Any:
        try:
            with SealedReader(source, Manifest.from_json(vector["manifest"]), key) as reader:
                return read(reader)
        except errors.StrongroomError as error:
            return error.code, getattr(error, "index", None)

    def ranges(reader: SealedReader) -> bytes:
        whole = bytearray(reader.size)
        reader.read_ranges([(0, memoryview(whole))], threads=1)
        return bytes(whole)

    assert told(ranges) == told(SealedReader.readall)


@pytest.mark.parametrize(("offset", "size"), [(-1, 2), (len(PLAINTEXT) - 1, 2), (len(PLAINTEXT) + 1, 0), (1 << 64, 1)])
def test_a_range_outside_is_refused_before_anything_is_filled(offset: int, size: int) -> None:
    first, second = into(64, size)
    with SealedReader(Changing(), MANIFEST, KEY) as reader, pytest.raises(ValueError, match="outside"):
        reader.read_ranges([(0, first), (offset, second)], threads=2)
    assert set(first) == {UNTOUCHED}


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("place", [0, 63, 64, 79], ids=["first byte", "last byte", "tag", "end of the tag"])
def test_of_a_chunk_that_was_altered_no_byte_is_ever_decrypted_to_where_others_see(place: int, threads: int) -> None:
    # GCM decrypts before it knows that the tag is wrong; so what is not under the root must not come that far
    at = MANIFEST.layout.chunk(5)[0] + place
    source = Changing()
    whole, part = into(64, 20)
    with SealedReader(source, MANIFEST, KEY) as reader:
        source.data = FILE[:at] + bytes([FILE[at] ^ 1]) + FILE[at + 1 :]
        for wanted in ([(5 * 64, whole)], [(5 * 64 + 3, part)]):
            with pytest.raises(errors.ChunkAltered) as caught:
                reader.read_ranges(wanted, threads=threads)
            assert caught.value.index == 5
        assert set(whole) == set(part) == {UNTOUCHED}
        source.data = FILE
        reader.read_ranges([(5 * 64 + 3, part)])
        assert bytes(part) == PLAINTEXT[323:343]  # nothing of the altered chunk was kept


def test_a_store_that_changes_its_answers_is_found_each_time() -> None:
    source = Changing()
    with SealedReader(source, MANIFEST, KEY) as reader:
        (view,) = into(256)
        reader.read_ranges([(0, view)], threads=2)
        source.data = FILE[:100] + bytes([FILE[100] ^ 1]) + FILE[101:]
        with pytest.raises(errors.ChunkAltered):
            reader.read_ranges([(0, view)])
        source.data = FILE[:200]
        with pytest.raises(errors.Truncated):
            reader.read_ranges([(64, view)])


def test_a_chunk_of_which_parts_are_wanted_is_opened_once() -> None:
    source = Changing()
    with SealedReader(source, MANIFEST, KEY) as reader:
        source.asked.clear()
        reader.read_ranges(list(zip((10, 40, 130), into(20, 40, 10), strict=True)))
        reader.read_ranges(list(zip((0, 140), into(5, 20), strict=True)))
        assert sorted(source.asked) == [0, 1, 2]


def test_memory_is_bounded_whatever_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from strongroom.asset.opening import Opened

    made: list[str] = []
    for name in ("buffer", "scratch"):
        true = getattr(Opened, name)
        monkeypatch.setattr(Opened, name, lambda self, name=name, true=true: made.append(name) or true(self))
    with SealedReader(Changing(), MANIFEST, KEY) as reader:
        made.clear()
        for start in range(60):
            wanted = [(at, memoryview(bytearray(3))) for at in range(start, len(PLAINTEXT) - 3, 64)]
            reader.read_ranges(wanted, threads=3)
        assert made.count("buffer") <= KEPT + 3
        assert made.count("scratch") <= 3


def test_nobody_writes_any_more_when_it_has_failed() -> None:
    source, entered, go = Changing(), threading.Event(), threading.Event()
    order: list[str] = []
    caller: list[int] = []

    def before(_: int) -> None:
        if threading.get_ident() in caller:
            entered.wait(60)
            raise OSError("the store is gone")
        entered.set()
        go.wait(60)
        order.append("other")

    def work() -> None:
        caller.append(threading.get_ident())
        with suppress(OSError):
            reader.read_ranges([(0, memoryview(bytearray(256)))], threads=2)
        order.append("ended")

    with SealedReader(source, MANIFEST, KEY) as reader:
        source.before = before
        thread = threading.Thread(target=work)
        thread.start()
        entered.wait(60)
        assert not order
        go.set()
        thread.join(60)
    assert order.count("other") >= 1
    assert order.index("ended") == len(order) - 1


def test_an_error_of_any_thread_is_raised() -> None:
    source, caller = Changing(), threading.get_ident()
    came = threading.Event()

    def before(_: int) -> None:
        if threading.get_ident() != caller:
            came.set()
            raise OSError("the store is gone")
        came.wait(60)

    with SealedReader(source, MANIFEST, KEY) as reader:
        source.before = before
        with pytest.raises(OSError, match="gone"):
            reader.read_ranges([(0, memoryview(bytearray(1024)))], threads=2)


def test_who_looks_can_end_it() -> None:
    source = Changing()
    looked: list[int] = []

    def look() -> None:
        looked.append(len(source.asked))
        if len(looked) == 3:
            raise TimeoutError

    with SealedReader(source, MANIFEST, KEY) as reader:
        source.asked.clear()
        with pytest.raises(TimeoutError):
            reader.read_ranges([(0, memoryview(bytearray(1024)))], look=look)
    assert looked == [0, 1, 2]


def test_a_closed_reader_fills_nothing() -> None:
    reader = SealedReader(Changing(), MANIFEST, KEY)
    (view,) = into(256)
    reader.read_ranges([(0, view)], threads=2)
    reader.close()
    with pytest.raises(ValueError, match="closed"):
        reader.read_ranges([(0, view)])
