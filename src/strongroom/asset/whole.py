"""Open a whole sealed file as fast as two threads can, into a sink that takes its parts in any order.

Either thread takes whatever is to be done next. Chunks can be read, checked and decrypted side by side; the content is one
serial hash, which whoever is free moves on by the chunk that follows. No buffer is made anew for a chunk: fresh memory costs
more than the cipher does.

The checks are those of :func:`strongroom.asset.unseal`, S1 to S9. A third of the time goes to S7, the hash of each chunk as
it is stored, and here S7 follows from the others: under one key (S5) and one nonce, AES-GCM is a bijection of plaintexts and
ciphertexts with their tags, so that a chunk that passes S8 and has the promised plaintext (S9) *is* the chunk that was
sealed. Who opens a whole file may therefore leave it out (``paths=False``). It would only show a manifest whose owner signed
a root that is not that of its own content; what is opened is in that case, too, exactly what the manifest promises.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from strongroom.errors import ContentMismatch

from .format import AssetKey
from .manifest import Manifest
from .opening import Opened
from .stream import Progress, RangeSource

WriteAt = Callable[[int, memoryview], None]
"""Takes a part of the plaintext and its offset; called by any of the threads."""

_AHEAD = 4  # chunks that a thread may be ahead of the hash


def open_whole(
    source: RangeSource,
    manifest: Manifest,
    key: AssetKey,
    write_at: WriteAt,
    *,
    threads: int = 2,
    paths: bool = True,
    progress: Progress | None = None,
) -> None:
    """Decrypt a whole sealed file.

    Each chunk is checked before it is written, but the content only after all of it was: what was written before an error is
    the caller's to throw away.

    Args:
        source: the sealed file; usable from several threads.
        manifest: its manifest, from somebody trusted for it.
        key: the asset's key.
        write_at: takes the plaintext.
        threads: how many work on it, at least 1. More than 2 are rarely faster: the hash is one.
        paths: whether S7 is made though it follows from the others.
        progress: called after each chunk, by one thread at a time.

    Raises:
        AssetError: its leaves, as :func:`strongroom.asset.unseal` does.
        ContentMismatch: the plaintext is not what the manifest promises.
        OSError: from source or sink.
    """
    work = _Work(Opened(source, manifest, key), manifest, key, write_at, progress, buffers=_AHEAD * threads, paths=paths)
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - as in `stream`

    with ThreadPoolExecutor(threads) as pool:
        for ended in [pool.submit(work.run) for _ in range(threads)]:
            ended.result()
    if work.digest() != manifest.content.value:  # S9
        raise ContentMismatch("the opened bytes are not those that the manifest promises")


class _Work:
    """What is still to be done, shared between threads."""

    def __init__(
        self,
        opened: Opened,
        manifest: Manifest,
        key: AssetKey,
        write_at: WriteAt,
        progress: Progress | None,
        *,
        buffers: int,
        paths: bool,
    ) -> None:
        self._opened, self._write_at, self._progress = opened, write_at, progress
        self._chunks, self._chunk_bytes = manifest.sealed.chunks, manifest.sealed.chunk_bytes
        self._content = manifest.content.scheme.start(key, manifest.sealed.salt)
        self._free = [opened.buffer() for _ in range(min(buffers, self._chunks))]
        self._done: dict[int, memoryview] = {}  # plaintexts that wait for the hash
        self._next, self._hashed, self._hashing, self._failed = 0, 0, False, False
        self._bytes, self._paths = 0, paths
        self._changed = threading.Condition()

    def digest(self) -> bytes:
        return self._content.digest()

    def run(self) -> None:
        """One thread's part. Raises what it met; the others then stop."""
        scratch = self._opened.scratch()
        try:
            while (task := self._take()) is not None:
                index, buffer = task
                if buffer is None:
                    self._hash(index)
                else:
                    self._make(index, buffer, scratch)
        except BaseException:
            with self._changed:
                self._failed = True
                self._changed.notify_all()
            raise

    def _take(self) -> tuple[int, memoryview | None] | None:
        """What to do next: move the hash on, or make a chunk in a buffer; ``None`` where nothing is left."""
        with self._changed:
            while not self._failed and self._hashed < self._chunks:
                if not self._hashing and self._hashed in self._done:
                    self._hashing = True
                    return self._hashed, None
                if self._next < self._chunks and self._free:
                    self._next += 1
                    return self._next - 1, self._free.pop()
                self._changed.wait()
        return None

    def _make(self, index: int, buffer: memoryview, scratch: memoryview) -> None:
        plaintext = self._opened.plaintext(index, buffer, scratch, path=self._paths)
        self._write_at(index * self._chunk_bytes, plaintext)
        with self._changed:
            self._done[index] = plaintext
            self._changed.notify_all()

    def _hash(self, index: int) -> None:
        plaintext = self._done[index]
        self._content.update(plaintext)
        self._bytes += len(plaintext)
        if self._progress is not None:
            self._progress(self._bytes)
        with self._changed:
            del self._done[index]
            self._free.append(memoryview(plaintext.obj))  # whole, also where the last chunk was
            self._hashed, self._hashing = index + 1, False
            self._changed.notify_all()
