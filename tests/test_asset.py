"""Sealed files and manifests: round trips, every attack by name, and the vectors."""

from __future__ import annotations

import base64
import dataclasses
import errno
import hashlib
import importlib.util
import io
import json
import os
import threading
import types
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom import asset, errors, merkle, wire
from strongroom.asset import (
    About,
    AssetKey,
    BytesSource,
    Content,
    FileSource,
    Header,
    Layout,
    Manifest,
    Mock,
    Scheme,
    SealedReader,
    SignedManifest,
    check_content,
    check_sealed,
    seal,
    sign_manifest,
    unseal,
    verify_manifest,
)
from strongroom.asset import format as asset_format
from strongroom.party import SigningKey, VerifyKey
from strongroom.policy import ANY_PARTY, OutputRule, Policy

ROOT = Path(__file__).parent.parent
VECTORS = ROOT / "vectors"
SEALED = sorted((VECTORS / "sealed").glob("*.json"))
MANIFESTS = sorted((VECTORS / "manifest").glob("*.json"))

KEY = AssetKey(bytes(range(32)))
SALT = bytes(range(32, 64))
TERMS = Policy(uses=frozenset({"evaluate"}), outputs={"report": OutputRule(ANY_PARTY, 1 << 20, 10, 4)})
ABOUT = About("tumours", "dataset", "text/csv", "hospital", 1767225600, TERMS)
OWNER = SigningKey.from_seed(bytes(32))


def maker() -> types.ModuleType:
    """vectors/make_sealed.py: the second implementation."""
    spec = importlib.util.spec_from_file_location("make_sealed", VECTORS / "make_sealed.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["make_sealed"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def sealed(
    plaintext: bytes,
    *,
    key: AssetKey = KEY,
    salt: bytes = SALT,
    about: About = ABOUT,
    chunk_bytes: int = 64,
    threads: int = 1,
) -> tuple[bytes, Manifest]:
    sink = io.BytesIO()
    manifest = seal(io.BytesIO(plaintext), sink, key=key, salt=salt, about=about, chunk_bytes=chunk_bytes, threads=threads)
    return sink.getvalue(), manifest


def opened(file: bytes, manifest: Manifest, key: AssetKey = KEY, *, threads: int = 1) -> bytes:
    sink = io.BytesIO()
    unseal(BytesSource(file), manifest, key, sink, threads=threads)
    return sink.getvalue()


# --- vectors --------------------------------------------------------------------------------------------------------


def test_vector_folders_are_not_empty() -> None:
    assert len(SEALED) > 40
    assert len(MANIFESTS) > 40


def outcome(call) -> tuple[str, int | None]:
    try:
        call()
    except errors.StrongroomError as error:
        return error.code, getattr(error, "index", None)
    return "ok", None


@pytest.mark.parametrize("path", SEALED, ids=lambda p: p.stem)
def test_sealed_vector(path: Path) -> None:
    vector = json.loads(path.read_bytes())
    expected = vector["expect"], vector.get("index")
    source = BytesSource(base64.b64decode(vector["sealed"]))
    manifest = Manifest.from_json(vector["manifest"])
    key = AssetKey(bytes.fromhex(vector["key"]))

    for threads in (1, 2):
        sink = io.BytesIO()
        assert outcome(lambda sink=sink, threads=threads: unseal(source, manifest, key, sink, threads=threads)) == expected
        assert outcome(lambda threads=threads: check_content(source, manifest, key, threads=threads)) == expected
        if vector["expect"] == "ok":
            assert sink.getvalue() == bytes.fromhex(vector["plaintext"])

    def read() -> None:
        with SealedReader(source, manifest, key) as reader:
            found = reader.read()
        if vector["expect"] == "ok":
            assert found == bytes.fromhex(vector["plaintext"])

    stored = vector["stored"], vector.get("index") if vector["stored"] != "ok" else None
    assert outcome(lambda: check_sealed(source, manifest)) == stored

    # A reader looks at chunks, and cannot know the content as a whole.
    assert outcome(read) == (("ok", None) if vector["expect"] == "asset.content_mismatch" else expected)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda p: p.stem)
def test_manifest_vector(path: Path) -> None:
    vector = json.loads(path.read_bytes())
    envelope = wire.Envelope.from_json(vector["envelope"])
    owner = VerifyKey(wire.unb64(vector["owner_key"]))
    assert outcome(lambda: verify_manifest(envelope, owner)) == (vector["expect"], None)
    if vector["expect"] == "ok":
        found = verify_manifest(envelope, owner)
        assert found.manifest.encode() == envelope.payload
        assert found.digest == found.manifest.digest == wire.digest(envelope.payload)


def test_every_error_of_opening_has_a_vector() -> None:
    seen = {json.loads(path.read_bytes())["expect"] for path in SEALED}
    leaves = {code for code, cls in errors.leaves().items() if issubclass(cls, errors.AssetError)} - {"asset"}
    leaves -= {"asset.mock_misfit", "asset.mock_reveals", "asset.older_offer"}  # of offering, and not of opening
    assert seen == leaves | {"ok"}


def test_vectors_are_what_their_script_makes() -> None:
    module = maker()
    for folder, vectors in (("sealed", module.sealed_vectors()), ("manifest", module.manifest_vectors())):
        kept = {path.stem: json.loads(path.read_bytes()) for path in (VECTORS / folder).glob("*.json")}
        assert kept == vectors


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 128, 200])
@pytest.mark.parametrize("reveal", [False, True])
def test_two_implementations_write_the_same_bytes(size: int, reveal: bool) -> None:
    module = maker()
    plaintext = module.PLAIN[:size]
    about = dataclasses.replace(ABOUT, reveal_digest=reveal)
    file, manifest = sealed(plaintext, key=AssetKey(module.KEY), salt=module.SALT, about=about)
    other = module.sealed(plaintext)
    assert file == bytes(other)
    assert manifest.to_json() == module.manifest(other, plaintext, reveal=reveal)


# --- the specification's examples -----------------------------------------------------------------------------------


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / "spec" / page).read_text(encoding="utf-8")
    return [block.split("```")[0] for block in text.split(f"```{language}\n")[1:]]


def test_spec_example_of_a_sealed_file() -> None:
    lines = blocks("sealed-file.md", "hex")[0].splitlines()
    vector = json.loads((VECTORS / "sealed" / "ok-one-byte.json").read_bytes())
    assert bytes.fromhex("".join(line.split("#")[0] for line in lines)) == base64.b64decode(vector["sealed"])


def test_spec_example_of_a_manifest() -> None:
    approvers, example = map(json.loads, blocks("manifest.md", "json"))
    named = json.loads((VECTORS / "manifest" / "ok-approvers.json").read_bytes())
    assert json.loads(wire.unb64(named["envelope"]["payload"]))["approvers"] == approvers
    vector = json.loads((VECTORS / "manifest" / "ok-mock.json").read_bytes())
    payload = wire.unb64(vector["envelope"]["payload"])
    assert wire.encode(example) == Manifest.from_json(example).encode() == payload
    assert f"`{wire.digest(payload)}`" in (ROOT / "spec" / "manifest.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["sealed-file.md", "manifest.md"])
def test_spec_names_every_error_code(page: str) -> None:
    text = (ROOT / "spec" / page).read_text(encoding="utf-8")
    folder = {"sealed-file.md": SEALED, "manifest.md": MANIFESTS}[page]
    codes = {json.loads(path.read_bytes())["expect"] for path in folder} - {"ok"}
    assert [code for code in codes if f"`{code}`" not in text] == []


# --- round trips ----------------------------------------------------------------------------------------------------


@given(
    plaintext=st.binary(max_size=500),
    chunk_bytes=st.integers(64, 200),
    threads=st.sampled_from([1, 2]),
    reveal=st.booleans(),
    key=st.binary(min_size=32, max_size=32),
    salt=st.binary(min_size=32, max_size=32),
)
def test_what_is_sealed_opens(
    plaintext: bytes, chunk_bytes: int, threads: int, reveal: bool, key: bytes, salt: bytes
) -> None:
    about = dataclasses.replace(ABOUT, reveal_digest=reveal)
    file, manifest = sealed(plaintext, key=AssetKey(key), salt=salt, about=about, chunk_bytes=chunk_bytes, threads=threads)
    assert len(file) == manifest.sealed.size == manifest.layout.sealed_bytes
    assert manifest.plaintext_bytes == len(plaintext)
    assert Manifest.parse(manifest.encode()) == manifest
    assert opened(file, manifest, AssetKey(key), threads=threads) == plaintext


@given(data=st.data(), plaintext=st.binary(max_size=400), reveal=st.booleans())
def test_any_altered_byte_is_found(data: st.DataObject, plaintext: bytes, reveal: bool) -> None:
    file, manifest = sealed(plaintext, about=dataclasses.replace(ABOUT, reveal_digest=reveal))
    at = data.draw(st.integers(0, len(file) - 1))
    altered = bytearray(file)
    altered[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(errors.AssetError) as caught:
        opened(bytes(altered), manifest)
    first_chunk, trailer = 64, manifest.layout.trailer_at
    expected = (
        errors.NotSealed
        if at < 16
        else errors.HeaderAltered
        if at < first_chunk
        else errors.ChunkAltered
        if at < trailer
        else errors.TrailerAltered
    )
    assert type(caught.value) is expected
    if isinstance(caught.value, errors.ChunkAltered):
        assert caught.value.index == (at - first_chunk) // 80
        assert str(caught.value.index) in str(caught.value)


@given(data=st.data(), plaintext=st.binary(max_size=300))
def test_any_other_length_is_found(data: st.DataObject, plaintext: bytes) -> None:
    file, manifest = sealed(plaintext)
    size = data.draw(st.integers(0, len(file) - 1))
    with pytest.raises(errors.NotSealed if size < 15 else errors.Truncated):
        opened(file[:size], manifest)
    with pytest.raises(errors.TrailingBytes):
        opened(file + data.draw(st.binary(min_size=1, max_size=200)), manifest)


@given(plaintext=st.binary(max_size=300), data=st.data())
def test_any_range_is_readable_alone(plaintext: bytes, data: st.DataObject) -> None:
    file, manifest = sealed(plaintext)
    with SealedReader(BytesSource(file), manifest, KEY, cache_chunks=data.draw(st.integers(0, 3))) as reader:
        for _ in range(4):
            offset, length = data.draw(st.integers(0, 350)), data.draw(st.integers(0, 350))
            assert reader.read_at(offset, length) == plaintext[offset : offset + length]
            reader.seek(offset)
            assert reader.read(length) == plaintext[offset : offset + length]
            assert reader.tell() == max(offset, min(offset + length, len(plaintext)))


def test_the_same_asset_sealed_twice_shares_nothing() -> None:
    one, first = sealed(bytes(300))
    two, second = sealed(bytes(300), salt=bytes(32))
    assert first.content != second.content
    assert first.key_commitment != second.key_commitment
    assert not {one[at : at + 80] for at in range(64, 300, 80)} & {two[at : at + 80] for at in range(64, 300, 80)}


def test_a_small_plaintext_cannot_be_guessed_from_its_manifest() -> None:
    _, manifest = sealed(b"0.93")
    hidden, open_ = manifest.content.value, hashlib.sha256(b"0.93").digest()
    assert manifest.content.scheme is Scheme.COMMITMENT
    assert open_.hex() not in manifest.encode().decode()
    assert hashlib.sha256(KEY.content_salt(SALT) + b"0.93").digest() == hidden  # whoever is shown the salt can check


def test_weights_are_known_by_their_plain_digest() -> None:
    _, manifest = sealed(b"weights", about=dataclasses.replace(ABOUT, kind="model", reveal_digest=True))
    assert manifest.to_json()["content"] == {"sha256": hashlib.sha256(b"weights").hexdigest()}


def test_the_root_is_rfc_6962_over_the_chunks_with_their_tags() -> None:
    file, manifest = sealed(bytes(200))
    chunks = [file[64 + i * 80 : min(64 + (i + 1) * 80, manifest.layout.trailer_at)] for i in range(4)]
    assert merkle.root(map(merkle.leaf_hash, chunks)) == manifest.sealed.root
    assert file[manifest.layout.trailer_at :] == b"".join(map(merkle.leaf_hash, chunks))


# --- keys -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_key_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(errors.BadKey):
        AssetKey(bytes(size))


def test_a_key_does_not_print_itself() -> None:
    key = AssetKey(b"secret" * 5 + b"!!")
    assert "secret" not in repr(key)
    assert key.raw.hex() not in f"{key} {key!r}"


def test_no_key_stands_in_file_or_manifest() -> None:
    file, manifest = sealed(bytes(300))
    secrets = [KEY.raw, KEY.content_salt(SALT), KEY.file_key(manifest.header)]
    for secret in secrets:
        assert secret not in file
        assert secret.hex().encode() not in manifest.encode()
    assert len({*secrets, KEY.commitment(SALT)}) == 4


def test_the_file_key_is_bound_to_the_whole_header() -> None:
    keys = {KEY.file_key(Header(c, s)) for c in (64, 128) for s in (SALT, bytes(32))}
    assert len(keys) == 4


def test_a_salt_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        sealed(b"x", salt=bytes(31))


# --- sealing --------------------------------------------------------------------------------------------------------


class Drip(io.RawIOBase):
    """A raw file that gives and takes a few bytes at a time, as pipes do."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = bytearray(data)

    def readinto(self, buffer) -> int:
        got = min(len(buffer), 7, len(self.data))
        buffer[:got] = self.data[:got]
        del self.data[:got]
        return got

    def write(self, data) -> int:
        self.data += data[:7]
        return min(len(data), 7)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("size", [0, 64, 200])
def test_short_reads_and_writes_are_completed(size: int, threads: int) -> None:
    plaintext = os.urandom(size)
    sink = Drip()
    manifest = seal(Drip(plaintext), sink, key=KEY, salt=SALT, about=ABOUT, chunk_bytes=64, threads=threads)
    assert bytes(sink.data) == sealed(plaintext)[0]
    back = Drip()
    unseal(BytesSource(bytes(sink.data)), manifest, KEY, back)
    assert bytes(back.data) == plaintext


class Stuck(io.RawIOBase):
    def readinto(self, buffer) -> None:
        return None

    def write(self, data) -> None:
        return None


def test_files_that_do_not_block_are_refused() -> None:
    with pytest.raises(BlockingIOError):
        seal(Stuck(), io.BytesIO(), key=KEY, salt=SALT, about=ABOUT)
    with pytest.raises(BlockingIOError):
        seal(io.BytesIO(b"x"), Stuck(), key=KEY, salt=SALT, about=ABOUT)


class Full(io.RawIOBase):
    """A sink on a disk that is full after some bytes."""

    def __init__(self, room: int) -> None:
        self.room = room

    def write(self, data) -> int:
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, "no space left")
        return len(data)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_full_disk_ends_it_and_leaves_no_thread(threads: int) -> None:
    before = threading.active_count()
    with pytest.raises(OSError, match="no space"):
        seal(io.BytesIO(bytes(1000)), Full(300), key=KEY, salt=SALT, about=ABOUT, chunk_bytes=64, threads=threads)
    file, manifest = sealed(bytes(1000))
    with pytest.raises(OSError, match="no space"):
        unseal(BytesSource(file), manifest, KEY, Full(300), threads=threads)
    assert threading.active_count() == before


@pytest.mark.parametrize("threads", [1, 2])
def test_a_source_that_fails_ends_it(threads: int) -> None:
    class Failing(Drip):
        def readinto(self, buffer) -> int:
            if len(self.data) < 100:
                raise OSError(errno.EIO, "unreadable")
            return super().readinto(buffer)

    with pytest.raises(OSError, match="unreadable"):
        seal(Failing(bytes(500)), io.BytesIO(), key=KEY, salt=SALT, about=ABOUT, chunk_bytes=64, threads=threads)


@pytest.mark.parametrize("threads", [0, 3, -1])
def test_other_numbers_of_threads_are_refused(threads: int) -> None:
    with pytest.raises(ValueError, match="threads"):
        sealed(b"x", threads=threads)


@pytest.mark.parametrize("threads", [1, 2])
def test_progress_counts_plaintext_bytes(threads: int) -> None:
    seen: list[int] = []
    sink = io.BytesIO()
    manifest = seal(
        io.BytesIO(bytes(150)), sink, key=KEY, salt=SALT, about=ABOUT, chunk_bytes=64, threads=threads, progress=seen.append
    )
    unseal(BytesSource(sink.getvalue()), manifest, KEY, io.BytesIO(), threads=threads, progress=seen.append)
    check_sealed(BytesSource(sink.getvalue()), manifest, progress=seen.append)
    assert seen == [64, 128, 150] * 3


@pytest.mark.parametrize("chunk_bytes", [0, 63, (4 << 20) + 1])
def test_a_chunk_size_out_of_bounds_is_refused(chunk_bytes: int) -> None:
    with pytest.raises(errors.BadField):
        sealed(b"x", chunk_bytes=chunk_bytes)


def test_more_chunks_than_a_reader_accepts_are_not_sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asset_format, "MAX_CHUNKS", 3)
    sealed(bytes(192))
    with pytest.raises(errors.TooLarge, match="chunks"):
        sealed(bytes(193))


def test_ten_gigabytes_fit_in_default_chunks() -> None:
    layout = Layout(10 << 30, asset.DEFAULT_CHUNK_BYTES)
    assert layout.trailer_bytes == 320 << 10


# --- opening --------------------------------------------------------------------------------------------------------


class Changing:
    """A store that serves the right file until told otherwise."""

    def __init__(self, data: bytes) -> None:
        self.data, self.asked = data, []

    @property
    def size(self) -> int:
        return len(self.data)

    def read_at(self, offset: int, length: int) -> bytes:
        self.asked.append((offset, length))
        return self.data[offset : offset + length]


def test_a_read_touches_only_its_chunks() -> None:
    file, manifest = sealed(bytes(1000))
    source = Changing(file)
    reader = SealedReader(source, manifest, KEY)
    layout = manifest.layout
    assert source.asked == [(0, 64), (layout.trailer_at, layout.trailer_bytes), layout.chunk(15)]
    source.asked.clear()
    reader.read_at(130, 100)
    assert source.asked == [layout.chunk(2), layout.chunk(3)]


def test_the_last_chunks_are_kept() -> None:
    file, manifest = sealed(bytes(range(250)))
    source = Changing(file)
    reader = SealedReader(source, manifest, KEY, cache_chunks=2)
    source.asked.clear()
    chunk = manifest.layout.chunk
    for index, asked in ((3, [3]), (0, [0]), (3, []), (1, [1]), (3, []), (0, [0]), (1, [1])):
        assert reader.read_at(index * 64, 5) == bytes(range(250))[index * 64 : index * 64 + 5]
        assert source.asked == [chunk(i) for i in asked]
        source.asked.clear()


def test_the_last_chunk_is_authenticated_on_opening() -> None:
    file, manifest = sealed(bytes(1000))
    altered = bytearray(file)
    altered[manifest.layout.chunk(15)[0]] ^= 1
    with pytest.raises(errors.ChunkAltered) as caught:
        SealedReader(BytesSource(bytes(altered)), manifest, KEY)
    assert caught.value.index == 15


def test_a_store_that_changes_its_answers_is_found() -> None:
    file, manifest = sealed(bytes(1000))
    source = Changing(file)
    reader = SealedReader(source, manifest, KEY)
    source.data = file[:100] + bytes([file[100] ^ 1]) + file[101:]
    with pytest.raises(errors.ChunkAltered) as caught:
        reader.read_at(0, 10)
    assert caught.value.index == 0
    source.data = file
    assert reader.read_at(0, 10) == bytes(10)  # nothing of the altered chunk was kept
    source.data = file[:200]
    with pytest.raises(errors.Truncated):
        reader.read_at(500, 10)


def test_a_store_that_overstates_its_size_is_found() -> None:
    file, manifest = sealed(bytes(1000))

    class Overstating(Changing):
        size = len(file)

    for length in (64, 500, manifest.layout.trailer_at, len(file) - 1):
        with pytest.raises(errors.Truncated):
            SealedReader(Overstating(file[:length]), manifest, KEY)


def test_reading_as_a_file() -> None:
    plaintext = bytes(range(200))
    file, manifest = sealed(plaintext)
    reader = SealedReader(BytesSource(file), manifest, KEY)
    assert reader.readable()
    assert reader.seekable()
    assert not reader.writable()
    assert reader.size == 200
    assert reader.seek(-20, os.SEEK_END) == 180
    assert reader.read(5) == plaintext[180:185]
    assert reader.seek(-5, os.SEEK_CUR) == 180
    assert reader.readall() == plaintext[180:]
    assert reader.read(1) == b""
    assert reader.seek(1000) == 1000
    assert reader.read() == reader.read(10) == b""
    assert reader.readinto(bytearray()) == 0
    assert io.BufferedReader(SealedReader(BytesSource(file), manifest, KEY), 100).read() == plaintext
    with pytest.raises(ValueError, match="whence"):
        reader.seek(0, 3)
    with pytest.raises(ValueError, match="before the start"):
        reader.seek(-1)
    for offset, length in ((-1, 1), (0, -1)):
        with pytest.raises(ValueError, match="range"):
            reader.read_at(offset, length)


def test_reading_into_items_wider_than_a_byte() -> None:
    import array

    file, manifest = sealed(bytes(range(200)))
    numbers = array.array("I", [0] * 30)
    assert SealedReader(BytesSource(file), manifest, KEY).readinto(numbers) == 120
    assert numbers.tobytes() == bytes(range(120))


def test_a_closed_reader_reads_nothing() -> None:
    file, manifest = sealed(bytes(200))
    reader = SealedReader(BytesSource(file), manifest, KEY)
    reader.read(10)
    reader.close()
    reader.close()
    for call in (reader.read, reader.tell, lambda: reader.seek(0), lambda: reader.read_at(0, 1), reader.readall):
        with pytest.raises(ValueError, match="closed"):
            call()


def test_nothing_of_a_bad_chunk_reaches_the_sink() -> None:
    file, manifest = sealed(bytes(300))
    altered = bytearray(file)
    altered[manifest.layout.chunk(2)[0] + 1] ^= 1
    sink = io.BytesIO()
    with pytest.raises(errors.ChunkAltered):
        unseal(BytesSource(bytes(altered)), manifest, KEY, sink)
    assert sink.getvalue() == bytes(128)


def test_file_source(tmp_path: Path) -> None:
    path = tmp_path / "a.sealed"
    path.write_bytes(bytes(range(100)))
    with FileSource(path) as source:
        assert source.size == 100
        assert source.read_at(10, 5) == bytes(range(10, 15))
        assert source.read_at(98, 5) == bytes([98, 99])
        assert source.read_at(100, 5) == source.read_at(3, 0) == b""
    with pytest.raises(ValueError, match="closed"):
        source.read_at(0, 1)
    with path.open("rb") as file:
        assert FileSource(file).read_at(1, 2) == b"\x01\x02"
    with pytest.raises(FileNotFoundError):
        FileSource(str(tmp_path / "nothing"))


def test_file_source_completes_short_reads() -> None:
    class Short(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(3, size or 0))

    assert FileSource(Short(bytes(range(20)))).read_at(2, 10) == bytes(range(2, 12))


def test_sealed_from_file_to_file(tmp_path: Path) -> None:
    plaintext = os.urandom((1 << 20) + 17)
    (tmp_path / "plain").write_bytes(plaintext)
    with (tmp_path / "plain").open("rb") as source, (tmp_path / "sealed").open("wb") as sink:
        manifest = seal(source, sink, key=KEY, salt=SALT, about=ABOUT, threads=2)
    with FileSource(tmp_path / "sealed") as file, (tmp_path / "back").open("wb") as sink:
        unseal(file, manifest, KEY, sink, threads=2)
    assert (tmp_path / "back").read_bytes() == plaintext
    with FileSource(tmp_path / "sealed") as file, SealedReader(file, manifest, KEY) as reader:
        # An opened asset is a range source itself, so that it can hold a sealed file.
        assert reader.read_at(1 << 20, 100) == plaintext[1 << 20 :]


# --- headers --------------------------------------------------------------------------------------------------------


@given(st.integers(64, 4 << 20), st.binary(min_size=32, max_size=32))
def test_header_round_trip(chunk_bytes: int, salt: bytes) -> None:
    header = Header(chunk_bytes, salt)
    assert len(header.encode()) == 64
    assert Header.parse(header.encode()) == header


@given(st.data(), st.integers(64, 4 << 20), st.binary(min_size=32, max_size=32))
def test_a_mutated_header_is_refused(data: st.DataObject, chunk_bytes: int, salt: bytes) -> None:
    raw = bytearray(Header(chunk_bytes, salt).encode())
    raw[data.draw(st.integers(0, 63))] ^= data.draw(st.integers(1, 255))
    with pytest.raises((errors.NotSealed, errors.HeaderAltered)):
        Header.parse(bytes(raw))


def test_a_later_version_says_to_update() -> None:
    raw = bytearray(Header(64, SALT).encode())
    raw[15] = 2
    with pytest.raises(errors.NotSealed, match="version 2") as caught:
        Header.parse(bytes(raw))
    assert "Update" in caught.value.hint


# --- manifests ------------------------------------------------------------------------------------------------------

NAMES = st.from_regex(r"[a-z0-9]([a-z0-9._-]{0,20}[a-z0-9])?", fullmatch=True)
MEDIA = st.sampled_from(["text/csv", "application/onnx", "application/vnd.apache.parquet"])
HASHES = st.binary(min_size=32, max_size=32)
MOCKS = st.builds(Mock, MEDIA, st.integers(0, 2**53 - 1), HASHES.map(lambda b: "sha256:" + b.hex()))


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    layout = Layout(draw(st.integers(0, 64 << 20)), draw(st.integers(64, 4 << 20)))
    return Manifest(
        name=draw(NAMES),
        kind=draw(NAMES),
        media_type=draw(MEDIA),
        owner=draw(NAMES),
        created_at=draw(st.integers(0, 2**53 - 1)),
        plaintext_bytes=layout.plaintext_bytes,
        content=Content(draw(st.sampled_from(Scheme)), draw(HASHES)),
        sealed=asset.Sealed(layout.sealed_bytes, layout.chunk_bytes, layout.chunks, draw(HASHES), draw(HASHES)),
        key_commitment=draw(HASHES),
        terms=draw(st.sampled_from([TERMS, Policy()])),
        mock=draw(st.none() | MOCKS),
    )


@given(manifests())
def test_manifest_round_trip(manifest: Manifest) -> None:
    assert Manifest.parse(manifest.encode()) == manifest
    assert Manifest.parse(manifest.encode()).encode() == manifest.encode()
    assert manifest.digest == wire.digest(manifest.encode())
    assert hash(manifest) == hash(Manifest.parse(manifest.encode()))


@given(manifests(), st.data())
def test_a_mutated_manifest_is_refused_or_is_another_manifest(manifest: Manifest, data: st.DataObject) -> None:
    raw = bytearray(manifest.encode())
    at = data.draw(st.integers(0, len(raw) - 1))
    if data.draw(st.booleans()):
        raw[at] = data.draw(st.integers(0, 255))
    else:
        del raw[at]
    try:
        found = Manifest.parse(bytes(raw))
    except (errors.WireError, errors.PolicyError):
        return
    assert found.encode() == bytes(raw)


@given(manifests(), st.data())
def test_an_unsigned_change_is_refused(manifest: Manifest, data: st.DataObject) -> None:
    envelope = sign_manifest(manifest, OWNER)
    assert verify_manifest(envelope, OWNER.public).manifest == manifest
    payload = bytearray(envelope.payload)
    payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(errors.BadSignature):
        verify_manifest(dataclasses.replace(envelope, payload=bytes(payload)), OWNER.public)


def test_a_signed_manifest_has_one_maker() -> None:
    _, manifest = sealed(b"x")
    envelope = sign_manifest(manifest, OWNER)
    found = verify_manifest(envelope, OWNER.public)
    assert found.signed_by == OWNER.public
    assert found.envelope == envelope
    with pytest.raises(TypeError, match="only verify_manifest"):
        SignedManifest(manifest, OWNER.public, envelope, object())
    other = dataclasses.replace(manifest, name="another")
    with pytest.raises((TypeError, ValueError)):
        dataclasses.replace(found, manifest=other)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.manifest = other  # type: ignore[misc]


@pytest.mark.parametrize(
    "change",
    [
        {"name": "The Tumours"},
        {"kind": ""},
        {"media_type": "csv"},
        {"owner": "hospital/x"},
        {"created_at": -1},
        {"created_at": 1.5},
        {"mock": Mock("text/csv", -1, "sha256:" + "0" * 64)},
        {"mock": Mock("text/csv", 1, "0" * 64)},
    ],
    ids=str,
)
def test_what_no_manifest_can_hold_is_refused_before_sealing(change: dict) -> None:
    with pytest.raises(errors.BadField):
        dataclasses.replace(ABOUT, **change)


def test_sizes_that_do_not_follow_are_refused() -> None:
    _, manifest = sealed(bytes(200))
    for wrong in ({"size": manifest.sealed.size + 1}, {"chunks": 5}):
        with pytest.raises(errors.BadField, match="sizes"):
            dataclasses.replace(manifest, sealed=dataclasses.replace(manifest.sealed, **wrong))
    with pytest.raises(errors.BadField, match="sizes"):
        dataclasses.replace(manifest, plaintext_bytes=201)


def test_a_mock_stands_in_the_manifest() -> None:
    mock = Mock("text/csv", 12, wire.digest(b"size,grade\n"))
    _, manifest = sealed(b"x", about=dataclasses.replace(ABOUT, mock=mock))
    assert Manifest.parse(manifest.encode()).mock == mock
