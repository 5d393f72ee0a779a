"""Opening a whole sealed file with several threads: the same checks, and the same bytes, as by ``unseal``."""

from __future__ import annotations

import io
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.asset import About, AssetKey, BytesSource, Content, FileSource, Manifest, Scheme, open_whole, seal
from strongroom.errors import AssetError, ChunkAltered, ContentMismatch, TrailerAltered, TrailingBytes, Truncated, WrongKey
from strongroom.policy import ANY_PARTY, OutputRule, Policy

KEY = AssetKey(bytes(range(32)))
TERMS = Policy(uses=frozenset({"serve-llm"}), outputs={"report": OutputRule(ANY_PARTY, 1, 1, 1)})
CHUNK = 64


def sealed(data: bytes, *, reveal: bool = True) -> tuple[bytes, Manifest]:
    about = About("weights", "model", "application/vnd.gguf", "lab", 1767225600, TERMS, reveal_digest=reveal)
    sink = io.BytesIO()
    manifest = seal(io.BytesIO(data), sink, key=KEY, salt=bytes(32), about=about, chunk_bytes=CHUNK)
    return sink.getvalue(), manifest


def opened(source: bytes | FileSource, manifest: Manifest, key: AssetKey = KEY, **more: Any) -> bytes:
    found = bytearray(manifest.plaintext_bytes)

    def write_at(offset: int, data: memoryview) -> None:
        found[offset : offset + len(data)] = data

    open_whole(BytesSource(source) if isinstance(source, bytes) else source, manifest, key, write_at, **more)
    return bytes(found)


DATA = random.Random(1).randbytes(10 * CHUNK + 7)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("paths", [True, False])
@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, len(DATA)])
def test_it_opens_what_was_sealed(threads: int, paths: bool, size: int) -> None:
    data, manifest = sealed(DATA[:size], reveal=size % 2 == 0)
    assert opened(data, manifest, threads=threads, paths=paths) == DATA[:size]


def test_it_opens_a_file_into_memory_that_is_there_already(tmp_path: Path) -> None:
    data, manifest = sealed(DATA)
    (tmp_path / "sealed").write_bytes(data)
    with FileSource(tmp_path / "sealed") as source:
        assert opened(source, manifest, threads=2) == DATA
    (tmp_path / "sealed").write_bytes(data)
    with FileSource(tmp_path / "sealed") as source:
        os.truncate(tmp_path / "sealed", len(data) // 2)
        with pytest.raises(Truncated):
            opened(source, manifest)


@pytest.mark.parametrize("paths", [True, False])
@given(at=st.integers(0, 1 << 20), bit=st.integers(0, 7))
def test_no_byte_can_be_changed(paths: bool, at: int, bit: int) -> None:
    data, manifest = sealed(DATA)
    changed = bytearray(data)
    changed[at % len(data)] ^= 1 << bit
    with pytest.raises(AssetError):
        opened(bytes(changed), manifest, paths=paths)


@pytest.mark.parametrize("paths", [True, False])
def test_chunks_cannot_change_places(paths: bool) -> None:
    data, manifest = sealed(DATA)
    one, other = (slice(*(64 + n * (CHUNK + 16) + end for end in (0, CHUNK + 16))) for n in (1, 4))
    changed = bytearray(data)
    changed[one], changed[other] = data[other], data[one]
    with pytest.raises(ChunkAltered):
        opened(bytes(changed), manifest, paths=paths)


@pytest.mark.parametrize("paths", [True, False])
def test_another_key_a_shorter_file_and_a_longer_one_are_refused(paths: bool) -> None:
    data, manifest = sealed(DATA)
    with pytest.raises(WrongKey):
        opened(data, manifest, AssetKey(bytes(32)), paths=paths)
    with pytest.raises(Truncated):
        opened(data[:-1], manifest, paths=paths)
    with pytest.raises(TrailingBytes):
        opened(data + b"\0", manifest, paths=paths)
    with pytest.raises(TrailerAltered):
        opened(data[:-1] + bytes([data[-1] ^ 1]), manifest, paths=paths)


@pytest.mark.parametrize("paths", [True, False])
def test_weights_that_are_not_those_of_the_digest_are_refused(paths: bool) -> None:
    """An owner who names the digest of a well-known model, and seals another."""
    data, manifest = sealed(DATA)
    for value in (bytes(32), sealed(DATA + b"x")[1].content.value):
        with pytest.raises(ContentMismatch):
            opened(data, replace(manifest, content=Content(Scheme.SHA256, value)), paths=paths)


def test_a_sink_that_fails_ends_every_thread() -> None:
    data, manifest = sealed(DATA)

    def write_at(offset: int, _data: memoryview) -> None:
        if offset >= 3 * CHUNK:
            raise OSError(28, "no room")

    with pytest.raises(OSError, match="no room"):
        open_whole(BytesSource(data), manifest, KEY, write_at, threads=3)


def test_progress_is_told_of_every_chunk_in_order() -> None:
    data, manifest = sealed(DATA)
    told: list[int] = []
    opened(data, manifest, threads=3, progress=told.append)
    assert told == [*range(CHUNK, len(DATA), CHUNK), len(DATA)]
