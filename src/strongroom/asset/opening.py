"""Open sealed files: the whole as a stream, or any range of it. Memory does not grow with an asset's size.

Opening makes the numbered checks of ``spec/sealed-file.md``, S1 to S6; every chunk then passes S7 and S8 before a byte of it
is handed out, and a whole opened asset S9.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from contextlib import closing
from itertools import cycle
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from strongroom import merkle
from strongroom.errors import (
    ChunkAltered,
    ContentMismatch,
    ManifestMismatch,
    TrailerAltered,
    TrailingBytes,
    Truncated,
    WrongKey,
)

from .format import HEADER_BYTES, TAG_BYTES, AssetKey, Header, split_trailer
from .manifest import Manifest
from .ranges import Ranges, Wanted
from .stream import FileSource, Progress, RangeSource, Writable, ahead, write_all

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


def unseal(
    source: RangeSource,
    manifest: Manifest,
    key: AssetKey,
    sink: Writable,
    *,
    threads: int = 1,
    progress: Progress | None = None,
) -> None:
    """Decrypt a whole sealed file into a sink.

    Each chunk is checked before it is written, but the content only after all of it was. What was written before an error is
    the caller's to remove: write to a temporary name and rename.

    Args:
        source: the sealed file.
        manifest: its manifest, from somebody trusted for it.
        key: the asset's key.
        sink: where the plaintext goes.
        threads: 1, or 2 to read, check and decrypt one chunk while the one before it is hashed and written.
        progress: called after each chunk.

    Raises:
        AssetError: its leaves, as :class:`SealedReader` does.
        ContentMismatch: the plaintext is not what the manifest promises.
        OSError: from source or sink.
    """
    opened = Opened(source, manifest, key)
    content = manifest.content.scheme.start(key, manifest.sealed.salt)
    buffers = cycle((opened.buffer(), opened.buffer()))  # two, because the taker may still hold the chunk before
    made = (opened.plaintext(i, next(buffers)) for i in range(manifest.sealed.chunks))
    done = 0
    with closing(ahead(made, threads)) as chunks:
        for plaintext in chunks:
            content.update(plaintext)
            write_all(sink, plaintext)
            done += len(plaintext)
            if progress is not None:
                progress(done)
    if content.digest() != manifest.content.value:  # S9
        raise ContentMismatch("the opened bytes are not those that the manifest promises")


class _Nowhere:
    def write(self, data: memoryview, /) -> int:
        return len(data)


def check_content(
    source: RangeSource, manifest: Manifest, key: AssetKey, *, threads: int = 1, progress: Progress | None = None
) -> None:
    """Read a whole sealed file and check that its content is what the manifest promises.

    Chunks that decrypt are what the owner sealed; that they add up to a digest by which others know the asset, only this
    shows (and ``unseal``).

    Args:
        source: the sealed file.
        manifest: its manifest, from somebody trusted for it.
        key: the asset's key.
        threads: 1 or 2, as of :func:`unseal`.
        progress: called after each chunk.

    Raises:
        AssetError: its leaves, as :func:`unseal` does.
        OSError: from the source.
    """
    unseal(source, manifest, key, _Nowhere(), threads=threads, progress=progress)


def check_sealed(source: RangeSource, manifest: Manifest, *, progress: Progress | None = None) -> None:
    """Check without a key that a sealed file is, to the last byte, its manifest's: S1 to S4, and S7 of every chunk.

    Whoever stores sealed files can know this much. That the file opens, and to what, only the key shows.

    Args:
        source: the sealed file.
        manifest: its manifest.
        progress: called after each chunk.

    Raises:
        NotSealed, HeaderAltered, ManifestMismatch, Truncated, TrailingBytes, TrailerAltered, ChunkAltered.
        OSError: from the source.
    """
    stored = _Stored(source, manifest)
    done = 0
    for index in range(manifest.sealed.chunks):
        done += len(stored.fetch(index)) - TAG_BYTES
        if progress is not None:
            progress(done)


class _Stored:
    """A sealed file that passed S1 to S4: what can be checked without its key.

    Args:
        source: the sealed file. Untrusted; it may answer differently each time.
        manifest: what it must be.

    Raises:
        NotSealed, HeaderAltered, ManifestMismatch, Truncated, TrailingBytes, TrailerAltered.
    """

    def __init__(self, source: RangeSource, manifest: Manifest) -> None:
        self._source = source
        self._layout = layout = manifest.layout
        if Header.parse(source.read_at(0, HEADER_BYTES)) != manifest.header:  # S1, S2
            raise ManifestMismatch("the manifest describes another sealed file than this one")
        size = source.size
        if size != layout.sealed_bytes:  # S3
            mismatch = Truncated if size < layout.sealed_bytes else TrailingBytes
            raise mismatch(f"the sealed file has {size} bytes where its manifest says {layout.sealed_bytes}")
        self._leaves = bytes(self._read(layout.trailer_at, layout.trailer_bytes))
        if merkle.root(split_trailer(self._leaves)) != manifest.sealed.root:  # S4
            raise TrailerAltered("the sealed file's trailer does not hash to the manifest's root")

    def scratch(self) -> memoryview:
        """Room for one chunk as it stands in the file."""
        return memoryview(bytearray(self._layout.chunk(0)[1]))

    def fetch(self, index: int, scratch: memoryview | None = None) -> bytes | memoryview:
        """A chunk as it stands in the file, if it is the one under the manifest's root (S7).

        Args:
            index: the chunk's index.
            scratch: from ``scratch()``, to be overwritten; without it there is new memory for each chunk.

        Raises:
            Truncated: the source ends before it.
            ChunkAltered: it is another.
        """
        chunk = self._read(*self._layout.chunk(index), scratch)
        if merkle.leaf_hash(chunk) != self._leaves[index * merkle.HASH_BYTES : (index + 1) * merkle.HASH_BYTES]:
            raise ChunkAltered(f"chunk {index} is not the one that was sealed", index=index)
        return chunk

    def _read(self, offset: int, length: int, scratch: memoryview | None = None) -> bytes | memoryview:
        data: bytes | memoryview
        if scratch is not None and isinstance(self._source, FileSource):
            data = scratch[: self._source.read_into(offset, scratch[:length])]
        else:
            data = self._source.read_at(offset, length)
        if len(data) != length:
            raise Truncated(f"the sealed file ended before byte {offset + length}, shorter than it said it was")
        return data


class Opened(_Stored):
    """A sealed file and its key, that passed S1 to S6.

    Args:
        source: the sealed file. Untrusted; it may answer differently each time.
        manifest: what it must be.
        key: the asset's key.

    Raises:
        WrongKey, ChunkAltered, and as of a stored one.
    """

    def __init__(self, source: RangeSource, manifest: Manifest, key: AssetKey) -> None:
        super().__init__(source, manifest)
        if key.commitment(manifest.sealed.salt) != manifest.key_commitment:  # S5
            raise WrongKey("the key is not the one that the manifest commits to")
        self._cipher = AESGCM(key.file_key(manifest.header))
        # S6: the last chunk's nonce says that it is the last, so that no later read can be of a file cut short when sealed.
        self.plaintext(self._layout.chunks - 1, self.buffer())

    def buffer(self) -> memoryview:
        """Room for one chunk's plaintext."""
        return memoryview(bytearray(min(self._layout.chunk_bytes, self._layout.plaintext_bytes)))

    def plaintext(
        self, index: int, buffer: memoryview, scratch: memoryview | None = None, *, path: bool = True
    ) -> memoryview:
        """A chunk's plaintext, if it is under the root (S7) and its tag is right for this file and place (S8).

        Args:
            index: the chunk's index.
            buffer: from ``buffer()``; overwritten. What is left in it after an error is nobody's to read.
            scratch: as of ``fetch``.
            path: whether S7 is made. Only who makes S8 and S9 of the whole may leave it out: see ``whole.py``.

        Returns:
            the part of ``buffer`` that holds the plaintext.

        Raises:
            Truncated: the source ends before it.
            ChunkAltered: it is another chunk, or was not encrypted by this key, for this file, as this chunk.
        """
        chunk = self.fetch(index, scratch) if path else self._read(*self._layout.chunk(index), scratch)
        plaintext = buffer[: len(chunk) - TAG_BYTES]
        try:
            self._cipher.decrypt_into(self._layout.nonce(index), chunk, None, plaintext)
        except InvalidTag as error:
            raise ChunkAltered(f"chunk {index} was not sealed as this chunk of this file", index=index) from error
        return plaintext


class SealedReader(io.RawIOBase):
    """An opened sealed file, as a seekable file of its plaintext. Any range is readable without the rest.

    A read fetches and decrypts the chunks that it touches, and no others. Opening reads the header, the trailer and the last
    chunk. The content as a whole is not checked: :func:`check_content` does that. One thread at a time.

    Args:
        source: the sealed file. The caller closes it.
        manifest: its manifest, from somebody trusted for it.
        key: the asset's key.
        cache_chunks: how many decrypted chunks to keep, at least 1; those least recently used go first.

    Raises:
        NotSealed: no sealed file, or one of a later version.
        HeaderAltered: its header was changed.
        ManifestMismatch: it is another file than the manifest's.
        Truncated: shorter than the manifest says.
        TrailingBytes: longer.
        WrongKey: not the key that the manifest commits to.
        TrailerAltered: its list of chunk hashes was changed.
        ChunkAltered: a chunk was changed, moved, or is from another file; on opening the last chunk, later any that is read.
        OSError: from the source.
    """

    def __init__(self, source: RangeSource, manifest: Manifest, key: AssetKey, *, cache_chunks: int = 2) -> None:
        super().__init__()
        self._size = manifest.plaintext_bytes
        self._position = 0
        self._chunk_bytes = manifest.sealed.chunk_bytes
        self._cache_chunks = max(1, cache_chunks)
        self._cache: dict[int, memoryview] = {}  # chunk index -> plaintext, least recently used first
        self._layout = manifest.layout
        self._ranges: Ranges | None = None
        self._opened: Opened | None = None  # first of all, since close() is called even if the next line raises
        self._opened = Opened(source, manifest, key)
        self._scratch = self._opened.scratch()

    @property
    def size(self) -> int:
        """The plaintext's length, in bytes."""
        return self._size

    def read_at(self, offset: int, length: int) -> bytes:
        """A range of the plaintext, wherever the file's position is; shorter only where the plaintext ends.

        Args:
            offset: of the first byte, from 0.
            length: how many bytes.

        Raises:
            ChunkAltered, Truncated, OSError.
        """
        if offset < 0 or length < 0:
            raise ValueError("a range begins at 0 or later and has no negative length")
        found = bytearray(max(0, min(length, self._size - offset)))
        self._fill(memoryview(found), offset)
        return bytes(found)

    def read_ranges(self, wanted: Wanted, *, threads: int = 1, look: Callable[[], None] | None = None) -> None:
        """Many ranges of the plaintext at once, straight into memory that is there; see ``ranges.py``.

        Args:
            wanted: offsets, and the memory that what is there goes into.
            threads: how many work on it; the first call settles it. Of more than one the source must be usable by several.
            look: called between chunks; what it raises ends the work.

        Raises:
            ValueError: a range lies outside of the plaintext.
            ChunkAltered, Truncated, OSError: what was filled is nobody's to read.
        """
        opened = self._require_open()
        if self._ranges is None:
            self._ranges = Ranges(opened, self._layout, threads)
        self._ranges.fill(wanted, look)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        self._require_open()
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._require_open()
        if whence not in (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END):
            raise ValueError(f"whence {whence} is not 0, 1 or 2")
        position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if position < 0:
            raise ValueError("the position would be before the start")
        self._position = position
        return position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill the buffer, or as much of it as there is plaintext left: never less, as other raw files may."""
        with memoryview(buffer) as whole, whole.cast("B") as view:
            length = max(0, min(len(view), self._size - self._position))
            self._fill(view[:length], self._position)
        self._position += length
        return length

    def readall(self) -> bytes:
        found = self.read_at(self._position, self._size)
        self._position += len(found)
        return found

    def close(self) -> None:
        """Let go of the key and of what was decrypted. The source stays open."""
        self._opened = None
        self._cache.clear()
        if self._ranges is not None:
            self._ranges.close()
            self._ranges = None
        super().close()

    def _require_open(self) -> Opened:
        if self._opened is None:
            raise ValueError("the sealed file is closed")
        return self._opened

    def _fill(self, view: memoryview, offset: int) -> None:
        """Copy plaintext from ``offset`` on; it must go as far as the view."""
        opened = self._require_open()
        filled = 0
        while filled < len(view):
            index, skip = divmod(offset + filled, self._chunk_bytes)
            piece = self._chunk(opened, index)[skip : skip + len(view) - filled]
            view[filled : filled + len(piece)] = piece
            filled += len(piece)

    def _chunk(self, opened: Opened, index: int) -> memoryview:
        plaintext = self._cache.pop(index, None)
        if plaintext is None:
            if len(self._cache) < self._cache_chunks:
                buffer = opened.buffer()
            else:
                buffer = memoryview(self._cache.pop(next(iter(self._cache))).obj)  # whole, also where the last chunk was
            plaintext = opened.plaintext(index, buffer, self._scratch)
        self._cache[index] = plaintext
        return plaintext
