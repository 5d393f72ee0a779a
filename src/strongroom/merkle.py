"""The Merkle tree hash of RFC 6962 section 2.1, with SHA-256: what the ledger and sealed files both hash with.

Leaves and nodes are hashed under different prefixes (0x00 and 0x01), so that no node can be passed off as a leaf.

See ``spec/sealed-file.md`` and ``spec/ledger.md``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

HASH_BYTES = 32


def leaf_hash(data: bytes | bytearray | memoryview) -> bytes:
    """``SHA-256(0x00 || data)``, 32 bytes."""
    state = hashlib.sha256(b"\x00")
    state.update(data)  # large buffers are hashed without the interpreter's lock, and never copied behind the prefix
    return state.digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """``SHA-256(0x01 || left || right)``, 32 bytes.

    Args:
        left: the left subtree's hash, 32 bytes.
        right: the right subtree's hash, 32 bytes.
    """
    return hashlib.sha256(b"\x01" + left + right).digest()


def root(leaf_hashes: Iterable[bytes]) -> bytes:
    """The Merkle tree hash over leaves that are hashed already: 32 bytes.

    Args:
        leaf_hashes: ``leaf_hash`` of each entry in order, 32 bytes each; read once, in memory logarithmic in their number.

    Returns:
        the root; of no leaves at all, SHA-256 of the empty string.
    """
    # The roots of the complete subtrees to the left, largest first: one for each set bit of the number of leaves so far.
    subtrees: list[bytes] = []
    for count, leaf in enumerate(leaf_hashes, 1):
        subtree = leaf
        merges = (count & -count).bit_length() - 1  # as many as `count` ends in zero bits
        for _ in range(merges):
            subtree = node_hash(subtrees.pop(), subtree)
        subtrees.append(subtree)
    if not subtrees:
        return hashlib.sha256(b"").digest()
    found = subtrees.pop()
    while subtrees:
        found = node_hash(subtrees.pop(), found)
    return found
