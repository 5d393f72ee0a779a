"""The RFC 6962 tree hash, against the RFC's recursive definition and the published vectors of certificate transparency."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from strongroom import merkle

# The entries and roots of the certificate-transparency reference implementation's Merkle tree tests.
ENTRIES = [
    bytes.fromhex(x)
    for x in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def definition(entries: list[bytes]) -> bytes:
    """MTH as RFC 6962 section 2.1 writes it: split at the largest power of two below n."""
    if not entries:
        return hashlib.sha256(b"").digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    k = 1 << ((len(entries) - 1).bit_length() - 1)
    return hashlib.sha256(b"\x01" + definition(entries[:k]) + definition(entries[k:])).digest()


def test_published_roots() -> None:
    for size, expected in enumerate(ROOTS):
        assert merkle.root(map(merkle.leaf_hash, ENTRIES[:size])).hex() == expected


@given(st.lists(st.binary(max_size=8), max_size=70))
def test_root_is_the_definition(entries: list[bytes]) -> None:
    assert merkle.root(merkle.leaf_hash(entry) for entry in entries) == definition(entries)


@given(st.binary(max_size=64))
def test_leaf_hash_takes_any_buffer(data: bytes) -> None:
    expected = hashlib.sha256(b"\x00" + data).digest()
    assert merkle.leaf_hash(data) == merkle.leaf_hash(bytearray(data)) == merkle.leaf_hash(memoryview(data)) == expected


def test_a_node_is_no_leaf() -> None:
    left, right = merkle.leaf_hash(b"a"), merkle.leaf_hash(b"b")
    assert merkle.node_hash(left, right) != merkle.leaf_hash(left + right)


@given(st.lists(st.binary(max_size=4), min_size=2, max_size=20, unique=True), st.data())
def test_order_counts(entries: list[bytes], data: st.DataObject) -> None:
    other = data.draw(st.permutations(entries).filter(lambda p: p != entries))
    assert merkle.root(map(merkle.leaf_hash, entries)) != merkle.root(map(merkle.leaf_hash, other))
