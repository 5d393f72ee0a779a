"""The ledger: an append-only Merkle log of what parties, brokers and enclaves signed.

The tree is that of RFC 6962 section 2.1; proofs are made and checked as in RFC 9162 section 2.1; heads are signed as in
``checkpoint.py``. An entry is logged by digest: to those who hold the document the log shows that it was said, and to
others nothing about it. What makes proofs and what checks them stand in one file, to be read side by side.

See ``spec/ledger.md``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from . import wire
from .checkpoint import Checkpoint, LogKey, LogVerifier, NoteSignature, VerifiedCheckpoint
from .errors import BadCheckpoint, BadField, BadProof, Inconsistent, NotLogged
from .merkle import HASH_BYTES, leaf_hash, node_hash, root
from .wire import JSON, Fields

ENTRY_KINDS = ("approval", "proposal", "receipt", "refusal", "release", "review", "verdict", "withdrawal")
EMPTY_ROOT = root(())
MAX_HASHES = 64

_MAX_ENTRY_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the log.

    Attributes:
        kind: what was said, one of ``ENTRY_KINDS``.
        contract: the digest of the contract that it is about.
        digest: the digest of the signed document's payload.

    Raises:
        BadField: another kind, or not a digest.
    """

    kind: str
    contract: str
    digest: str

    def __post_init__(self) -> None:
        f = Fields(self.to_json(), "entry")
        f.text("kind", choices=ENTRY_KINDS)
        f.digest("contract")
        f.digest("digest")

    @property
    def leaf_hash(self) -> bytes:
        """The hash of the entry's canonical bytes as a leaf, 32 bytes."""
        return leaf_hash(self.encode())

    def to_json(self) -> dict[str, JSON]:
        return {"contract": self.contract, "digest": self.digest, "kind": self.kind}

    @classmethod
    def from_json(cls, value: object) -> Entry:
        """Raises BadField."""
        f = Fields(value, "entry")
        found = cls(kind=f.any("kind"), contract=f.any("contract"), digest=f.any("digest"))
        f.end()
        return found

    def encode(self) -> bytes:
        return wire.encode(self.to_json())

    @classmethod
    def parse(cls, data: bytes) -> Entry:
        """Raises WireError and its leaves."""
        return cls.from_json(wire.decode(data, max_bytes=_MAX_ENTRY_BYTES))


# --- proofs ---------------------------------------------------------------------------------------------------------


def _check_hashes(hashes: tuple[bytes, ...]) -> None:
    if len(hashes) > MAX_HASHES or any(len(h) != HASH_BYTES for h in hashes):
        raise BadProof(f"a proof is not at most {MAX_HASHES} hashes of {HASH_BYTES} bytes")


def _read_hashes(f: Fields) -> tuple[bytes, ...]:
    def one(item: Any) -> bytes:
        return Fields({"hash": item}, "proof.hashes").base64("hash", max_bytes=HASH_BYTES)

    return f.items("hashes", one, high=MAX_HASHES)


def _climb(place: int, last: int, siblings: Iterable[bytes]) -> Iterator[tuple[bool, bytes]]:
    """Each sibling on the way from node ``place`` of a level to the root, and whether it stands to the left.

    Args:
        place: the node's index on its level.
        last: the index of that level's last node.
        siblings: from the bottom up.

    Raises:
        BadProof: while iterating, when there are more siblings than the tree has levels, or fewer.
    """
    for sibling in siblings:
        if last == 0:
            raise BadProof("a proof has too many hashes")
        left = place & 1 == 1 or place == last
        yield left, sibling
        if left:  # a last node without a sibling on its level moves up as it is
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        place, last = place >> 1, last >> 1
    if last != 0:
        raise BadProof("a proof has too few hashes")


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """That one entry is in the log. **Untrusted**: it proves nothing until ``verify`` returns.

    Attributes:
        index: the entry's place, from 0.
        size: the number of entries of the head it leads to.
        hashes: the audit path, from the leaf to the root, 32 bytes each.

    Raises:
        BadProof: too many hashes, or one of another length.
    """

    index: int
    size: int
    hashes: tuple[bytes, ...]

    def __post_init__(self) -> None:
        _check_hashes(self.hashes)

    def root_from(self, leaf: bytes) -> bytes:
        """The root that the path leads to (RFC 9162 section 2.1.3.2).

        Args:
            leaf: the entry's leaf hash, 32 bytes.

        Raises:
            BadProof: no such place in a tree of that size, or a path of another length than its.
        """
        if not 0 <= self.index < self.size:
            raise BadProof(f"there is no entry {self.index} in a log of {self.size}")
        found = leaf
        for left, sibling in _climb(self.index, self.size - 1, self.hashes):
            found = node_hash(sibling, found) if left else node_hash(found, sibling)
        return found

    def verify(self, entry: Entry, checkpoint: VerifiedCheckpoint) -> None:
        """Raises BadProof unless ``entry`` stands at ``index`` of the log whose head this is."""
        if self.size != checkpoint.size:
            raise BadProof(f"the proof is for a log of {self.size} entries, the checkpoint of {checkpoint.size}")
        if self.root_from(entry.leaf_hash) != checkpoint.root:
            raise BadProof("the proof does not lead from the entry to the checkpoint's root")

    def to_json(self) -> dict[str, JSON]:
        return {"hashes": [wire.b64(h) for h in self.hashes], "index": self.index, "size": self.size}

    @classmethod
    def from_json(cls, value: object) -> InclusionProof:
        """Raises BadField, BadProof."""
        f = Fields(value, "proof")
        found = cls(f.integer("index"), f.integer("size"), _read_hashes(f))
        f.end()
        return found


@dataclass(frozen=True, slots=True)
class ConsistencyProof:
    """That a log only grew. **Untrusted**: it proves nothing until ``verify`` returns.

    Attributes:
        old: the number of entries of the earlier head.
        new: that of the later.
        hashes: 32 bytes each, in the order of RFC 9162 section 2.1.4.

    Raises:
        BadProof: too many hashes, or one of another length.
    """

    old: int
    new: int
    hashes: tuple[bytes, ...]

    def __post_init__(self) -> None:
        _check_hashes(self.hashes)

    def roots_from(self, old_root: bytes) -> tuple[bytes, bytes | None]:
        """The two roots that the proof leads to (RFC 9162 section 2.1.4.2).

        Args:
            old_root: the earlier head's root, 32 bytes. A proof from a complete tree begins with it, and leaves it out.

        Returns:
            the earlier root and the later one; ``None`` for the later where any root extends the earlier: from no entries.

        Raises:
            BadProof: the log shrank, or a proof of another length than that of its sizes.
        """
        if not 0 <= self.old <= self.new:
            raise BadProof(f"a log of {self.old} entries cannot become one of {self.new}")
        if self.old in (0, self.new):
            if self.hashes:
                raise BadProof("a proof has too many hashes")
            return (old_root, old_root) if self.old == self.new else (EMPTY_ROOT, None)
        hashes = self.hashes if self.old & (self.old - 1) else (old_root, *self.hashes)
        if not hashes:
            raise BadProof("a proof has too few hashes")
        place, last = self.old - 1, self.new - 1
        while place & 1:
            place, last = place >> 1, last >> 1
        old = new = hashes[0]
        for left, sibling in _climb(place, last, hashes[1:]):
            if left:
                old, new = node_hash(sibling, old), node_hash(sibling, new)
            else:
                new = node_hash(new, sibling)
        return old, new

    def verify(self, old: VerifiedCheckpoint, new: VerifiedCheckpoint) -> None:
        """Raises BadProof unless the log of head ``new`` begins with every entry of the log of head ``old``."""
        if (self.old, self.new) != (old.size, new.size):
            raise BadProof(f"the proof leads from {self.old} entries to {self.new}, not from {old.size} to {new.size}")
        old_root, new_root = self.roots_from(old.root)
        if old_root != old.root or new_root not in (None, new.root):
            raise BadProof("the proof does not lead from the earlier checkpoint to the later")

    def to_json(self) -> dict[str, JSON]:
        return {"hashes": [wire.b64(h) for h in self.hashes], "new": self.new, "old": self.old}

    @classmethod
    def from_json(cls, value: object) -> ConsistencyProof:
        """Raises BadField, BadProof."""
        f = Fields(value, "proof")
        found = cls(f.integer("old"), f.integer("new"), _read_hashes(f))
        f.end()
        return found


def follow(
    last: VerifiedCheckpoint | None, new: VerifiedCheckpoint, proof: ConsistencyProof | None = None
) -> VerifiedCheckpoint:
    """Accept a log's new head only if it extends the last one seen.

    Args:
        last: the head that this client kept, or ``None`` where it has seen none of this log.
        new: the head it was shown.
        proof: from ``last`` to ``new``; not needed where there is no last one or the size is the same.

    Returns:
        the head to keep.

    Raises:
        Inconsistent: of another log, shorter, of the same size with another root, or without a proof that holds.
    """
    if last is None:
        return new
    if new.origin != last.origin:
        raise Inconsistent(f"the head is of the log {new.origin[:80]!r}, and the last one seen of {last.origin[:80]!r}")
    if new.size < last.size:
        raise Inconsistent(f"the log has {new.size} entries, and had {last.size} before")
    if new.size == last.size:
        if new.root != last.root:
            raise Inconsistent(f"the log showed two different trees of {new.size} entries")
        return new
    if proof is None:
        raise Inconsistent(f"the log gave no proof that its {new.size} entries extend the {last.size} seen before")
    try:
        proof.verify(last, new)
    except BadProof as error:
        raise Inconsistent(f"the log's {new.size} entries do not extend the {last.size} seen before: {error}") from error
    return new


@dataclass(frozen=True, slots=True)
class LoggedProof:
    """A head and the path to it: how a bundle shows that its receipt was logged. **Untrusted.**

    Attributes:
        checkpoint: the log's signed head.
        inclusion: the path from the entry to it.
    """

    checkpoint: Checkpoint
    inclusion: InclusionProof

    def verify(self, entry: Entry, logs: Iterable[LogVerifier]) -> VerifiedCheckpoint:
        """The head, if it is one of these logs' and ``entry`` is under it.

        Args:
            entry: what must have been logged.
            logs: the keys in the verifier's own trust file.

        Raises:
            BadCheckpoint: signed by none of them.
            BadSignature: a forged head.
            BadProof: the entry is not under it.
        """
        for log in logs:
            if log.signatures_of(self.checkpoint):
                found = log.verify(self.checkpoint)
                self.inclusion.verify(entry, found)
                return found
        raise BadCheckpoint("the checkpoint is signed by no log that is trusted here")

    def to_json(self) -> dict[str, JSON]:
        return {"checkpoint": self.checkpoint.encode().decode(), "inclusion": self.inclusion.to_json()}

    @classmethod
    def from_json(cls, value: object) -> LoggedProof:
        """Raises BadField, BadCheckpoint, BadProof."""
        f = Fields(value, "logged proof")
        note = f.text("checkpoint", max_chars=wire.MAX_BYTES)
        try:
            data = note.encode()
        except UnicodeEncodeError as error:
            raise BadField("logged proof.checkpoint holds a lone surrogate") from error
        found = cls(Checkpoint.parse(data), InclusionProof.from_json(f.any("inclusion")))
        f.end()
        return found


# --- the tree -------------------------------------------------------------------------------------------------------


class Nodes(Protocol):
    """Where a tree keeps the hashes of its complete subtrees.

    The subtree at ``(level, index)`` has ``2**level`` leaves and begins at leaf ``index * 2**level``. A node once put never
    changes, so putting it again is harmless. A store must make the nodes of an append, and the new size, durable together.
    """

    def get(self, level: int, index: int) -> bytes:
        """The 32 bytes put there before."""

    def put(self, level: int, index: int, node: bytes) -> None:
        """Keep 32 bytes."""


class MemoryNodes:
    """Nodes in memory."""

    def __init__(self) -> None:
        self._nodes: dict[tuple[int, int], bytes] = {}

    def get(self, level: int, index: int) -> bytes:
        return self._nodes[level, index]

    def put(self, level: int, index: int, node: bytes) -> None:
        self._nodes[level, index] = node


def _split(size: int) -> int:
    """The largest power of two below ``size`` (RFC 6962 section 2.1)."""
    return 1 << ((size - 1).bit_length() - 1)


class Tree:
    """An append-only tree over ``Nodes``: an append, a root and a proof each touch a logarithmic number of them.

    Args:
        nodes: where its hashes are kept.
        size: the number of entries there. It grows only after every node of an append was put: an append that failed halfway
            can be made again.
    """

    def __init__(self, nodes: Nodes, size: int = 0) -> None:
        self._nodes = nodes
        self._size = size

    @property
    def size(self) -> int:
        """The number of entries."""
        return self._size

    def append(self, entry: Entry) -> int:
        """Log an entry.

        Returns:
            its index, from 0.
        """
        return self.append_leaf(entry.leaf_hash)

    def append_leaf(self, leaf: bytes) -> int:
        """As ``append``, for the 32-byte leaf hash of anything."""
        index, node, level, place = self._size, leaf, 0, self._size
        self._nodes.put(level, place, node)
        while place & 1:
            node = node_hash(self._nodes.get(level, place - 1), node)
            level, place = level + 1, place >> 1
            self._nodes.put(level, place, node)
        self._size += 1
        return index

    def root(self, size: int | None = None) -> bytes:
        """The root over the first ``size`` entries, all by default: 32 bytes. Raises NotLogged."""
        size = self._at_most(self._size if size is None else size, self._size)
        return self._subtree(0, size) if size else EMPTY_ROOT

    def checkpoint(self, signer: LogKey) -> Checkpoint:
        """The signed head over every entry."""
        return signer.sign(self._size, self.root())

    def prove_inclusion(self, index: int, size: int) -> InclusionProof:
        """That entry ``index`` is among the first ``size``. Raises NotLogged where it is not."""
        self._at_most(size, self._size)
        self._at_most(index, size - 1)
        path: list[bytes] = []
        start, end = 0, size
        while end - start > 1:
            middle = start + _split(end - start)
            if index < middle:
                path.append(self._subtree(middle, end))
                end = middle
            else:
                path.append(self._subtree(start, middle))
                start = middle
        return InclusionProof(index, size, tuple(reversed(path)))

    def prove_consistency(self, old: int, new: int) -> ConsistencyProof:
        """That the first ``new`` entries begin with the first ``old`` (RFC 9162 section 2.1.4.1). Raises NotLogged."""
        self._at_most(new, self._size)
        self._at_most(old, new)
        path: list[bytes] = []
        start, end = 0, new
        if old:
            while end != old:
                middle = start + _split(end - start)
                if old <= middle:
                    path.append(self._subtree(middle, end))
                    end = middle
                else:
                    path.append(self._subtree(start, middle))
                    start = middle
            if start:  # else the earlier tree is complete, and its root need not be sent
                path.append(self._subtree(start, end))
        return ConsistencyProof(old, new, tuple(reversed(path)))

    def _at_most(self, wanted: int, limit: int) -> int:
        if not 0 <= wanted <= limit:
            raise NotLogged(f"the log has {self._size} entries; {wanted} was asked for where at most {limit} can be")
        return wanted

    def _subtree(self, start: int, end: int) -> bytes:
        """The root over leaves ``start`` to ``end``; ``start`` is a multiple of the largest power of two in the range."""
        count = end - start
        if count & (count - 1) == 0:
            return self._nodes.get(count.bit_length() - 1, start // count)
        middle = start + _split(count)
        return node_hash(self._subtree(start, middle), self._subtree(middle, end))


__all__ = [
    "EMPTY_ROOT",
    "ENTRY_KINDS",
    "Checkpoint",
    "ConsistencyProof",
    "Entry",
    "InclusionProof",
    "LogKey",
    "LogVerifier",
    "LoggedProof",
    "MemoryNodes",
    "Nodes",
    "NoteSignature",
    "Tree",
    "VerifiedCheckpoint",
    "follow",
]
