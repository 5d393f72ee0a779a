"""Seal a stream. Memory does not grow with its length."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import cycle
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from strongroom import merkle

from .format import DEFAULT_CHUNK_BYTES, SALT_BYTES, TAG_BYTES, AssetKey, Header, Layout, nonce, split_trailer
from .manifest import About, Content, Manifest, Sealed
from .stream import Progress, Readable, Writable, ahead, fill, write_all

if TYPE_CHECKING:
    from _hashlib import HASH


def seal(
    source: Readable,
    sink: Writable,
    *,
    key: AssetKey,
    salt: bytes,
    about: About,
    chunk_bytes: int = DEFAULT_CHUNK_BYTES,
    threads: int = 1,
    progress: Progress | None = None,
) -> Manifest:
    """Encrypt a stream into a sealed file, from its first byte to its last, without seeking in either.

    What was written before an error is the caller's to remove: write to a temporary name and rename.

    Args:
        source: the plaintext; its length need not be known. No bytes at all are sealed too, as one empty chunk.
        sink: where the sealed file goes.
        key: a key for this asset alone.
        salt: 32 fresh random bytes. **Never used before with this key**, not even by a seal that was interrupted: two
            plaintexts under one key and salt would give each other away.
        about: what the owner says of it.
        chunk_bytes: 64 to 4 MiB; what a range read decrypts at least.
        threads: 1, or 2 to read, hash and encrypt the plaintext while the chunk before it is hashed and written. The
            content is one serial SHA-256, so that a third would find nothing to do.
        progress: called after each chunk.

    Returns:
        the manifest, for :func:`sign_manifest`.

    Raises:
        BadField: ``chunk_bytes`` out of bounds.
        TooLarge: more than 2^20 chunks. Where the length is known, ``Layout(length, chunk_bytes)`` tells beforehand.
        OSError: from source or sink.
    """
    if len(salt) != SALT_BYTES:
        raise ValueError(f"a salt is {SALT_BYTES} bytes long")
    Layout(0, chunk_bytes)  # the bounds
    header = Header(chunk_bytes, salt)
    content = about.scheme.start(key, salt)
    made = _sealed_chunks(source, content, AESGCM(key.file_key(header)), chunk_bytes)
    leaves = bytearray()
    done = 0
    write_all(sink, memoryview(header.encode()))
    with closing(ahead(made, threads)) as chunks:
        for chunk in chunks:
            done += len(chunk) - TAG_BYTES
            Layout(done, chunk_bytes)  # not one chunk more than a reader accepts
            leaves += merkle.leaf_hash(chunk)
            write_all(sink, chunk)
            if progress is not None:
                progress(done)
    write_all(sink, memoryview(leaves))
    layout = Layout(done, chunk_bytes)
    return Manifest(
        name=about.name,
        kind=about.kind,
        media_type=about.media_type,
        owner=about.owner,
        created_at=about.created_at,
        plaintext_bytes=done,
        content=Content(about.scheme, content.digest()),
        sealed=Sealed(layout.sealed_bytes, chunk_bytes, layout.chunks, merkle.root(split_trailer(leaves)), salt),
        key_commitment=key.commitment(salt),
        terms=about.terms,
        mock=about.mock,
        approvers=about.approvers,
        drawing=about.drawing,
    )


def _sealed_chunks(source: Readable, content: HASH, cipher: AESGCM, chunk_bytes: int) -> Iterator[memoryview]:
    """The chunks, encrypted; the plaintext is hashed on the way.

    Two buffers of each kind take turns: only what follows a full chunk tells whether it is the last, and the taker may still
    hold the chunk before (see ``ahead``).
    """
    plaintexts = cycle(memoryview(bytearray(chunk_bytes)) for _ in range(2))
    chunks = cycle(memoryview(bytearray(chunk_bytes + TAG_BYTES)) for _ in range(2))
    index, held = 0, fill(source, next(plaintexts))
    while True:
        content.update(held)
        following = fill(source, next(plaintexts)) if len(held) == chunk_bytes else held[:0]
        chunk = next(chunks)[: len(held) + TAG_BYTES]
        cipher.encrypt_into(nonce(index, last=not following), held, None, chunk)
        yield chunk
        if not following:
            return
        index, held = index + 1, following
