"""Manifests: what an owner says, under signature, of an asset.

A manifest determines its sealed file to the bit: the header, the length, and by the root every chunk. It commits to the key
and to the content. Contracts name a manifest's digest, so that nobody can swap an asset after approval.

A ``Manifest`` is what somebody says; a ``SignedManifest`` is what the owner said, and only ``verify_manifest`` makes one.

See ``spec/manifest.md``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from strongroom import wire
from strongroom.drawing import Drawing
from strongroom.errors import BadField
from strongroom.party import SigningKey, VerifyKey
from strongroom.policy import Policy
from strongroom.wire import JSON, Envelope, Fields

from .approvers import MAX_GROUPS, Quorum, lacking, require_sound
from .format import MAX_CHUNK_BYTES, MAX_CHUNKS, MIN_CHUNK_BYTES, SALT_BYTES, AssetKey, Header, Layout

if TYPE_CHECKING:
    from _hashlib import HASH

MANIFEST_TYPE = wire.media_type("manifest")
MAX_MANIFEST_BYTES = 256 << 10
SOURCE = "datastore"
"""The kind of a sealed source, which models draw from under its owner's terms."""

_MAKER = object()


class Scheme(StrEnum):
    """How a manifest names its content."""

    SHA256 = "sha256"
    """The plain SHA-256 of the plaintext: anybody who has the plaintext, or guesses it, recognises it."""
    COMMITMENT = "commitment"
    """SHA-256 of a 32-byte secret salt and the plaintext: only who holds the key, or is shown the salt, can check it."""

    def start(self, key: AssetKey, salt: bytes) -> HASH:
        """The hash whose digest over the plaintext is :attr:`Content.value`.

        Args:
            key: the asset's key.
            salt: the sealed file's salt, 32 bytes.
        """
        return hashlib.sha256(key.content_salt(salt) if self is Scheme.COMMITMENT else b"")


@dataclass(frozen=True, slots=True)
class Content:
    """What a manifest promises of the plaintext.

    Attributes:
        scheme: how ``value`` was made.
        value: 32 bytes.
    """

    scheme: Scheme
    value: bytes

    def to_json(self) -> dict[str, JSON]:
        return {self.scheme.value: self.value.hex()}

    @classmethod
    def from_json(cls, value: object) -> Content:
        """Raises BadField."""
        f = Fields(value, "content")
        scheme = Scheme.SHA256 if f.has(Scheme.SHA256) else Scheme.COMMITMENT
        found = cls(scheme, f.hex(scheme, size=32))
        f.end()
        return found


@dataclass(frozen=True, slots=True)
class Mock:
    """A public stand-in of the same shape as the asset, for writing code against.

    Attributes:
        media_type: of the mock.
        size: its length, in bytes.
        digest: ``sha256:…`` of it.
    """

    media_type: str
    size: int
    digest: str

    def to_json(self) -> dict[str, JSON]:
        return {"bytes": self.size, "digest": self.digest, "media_type": self.media_type}

    @classmethod
    def from_json(cls, value: object) -> Mock:
        """Raises BadField."""
        f = Fields(value, "mock")
        found = cls(f.media_type("media_type"), f.integer("bytes"), f.digest("digest"))
        f.end()
        return found


@dataclass(frozen=True, slots=True)
class Sealed:
    """What a manifest says of its sealed file.

    Attributes:
        size: the file's length, in bytes.
        chunk_bytes: plaintext bytes in every chunk but the last.
        chunks: how many chunks.
        root: the RFC 6962 root over the chunks, tags included; 32 bytes.
        salt: the file's salt, 32 bytes; with it the key commitment can be checked before the file is at hand.
    """

    size: int
    chunk_bytes: int
    chunks: int
    root: bytes
    salt: bytes

    def to_json(self) -> dict[str, JSON]:
        return {
            "bytes": self.size,
            "chunk_bytes": self.chunk_bytes,
            "chunks": self.chunks,
            "root": self.root.hex(),
            "salt": self.salt.hex(),
        }

    @classmethod
    def from_json(cls, value: object) -> Sealed:
        """Raises BadField."""
        f = Fields(value, "sealed")
        found = cls(
            size=f.integer("bytes"),
            chunk_bytes=f.integer("chunk_bytes", low=MIN_CHUNK_BYTES, high=MAX_CHUNK_BYTES),
            chunks=f.integer("chunks", low=1, high=MAX_CHUNKS),
            root=f.hex("root", size=32),
            salt=f.hex("salt", size=SALT_BYTES),
        )
        f.end()
        return found


@dataclass(frozen=True, slots=True)
class About:
    """What an owner says of an asset when sealing it; the rest of the manifest follows from the bytes.

    Attributes:
        name: the asset's name.
        kind: ``model``, ``dataset``, ``questions``, ``datastore``, ``code``, ``document``, …
        media_type: of the plaintext.
        owner: the owner's party name.
        created_at: Unix seconds.
        terms: what the owner lets anybody do with it; a contract's policy must be permitted by them.
        mock: a public stand-in, or ``None``.
        reveal_digest: whether the manifest shows the plain SHA-256. Say yes for what is public or long and random, such as
            weights that should be recognised; whoever can guess the plaintext can otherwise confirm the guess.
        approvers: who must approve a use of it beside the owner; nobody where it is empty.
        drawing: the terms under which models draw from it, of a sealed source (``spec/drawing.md``); ``None`` of all else.

    Raises:
        BadField: a name, media type or time that no manifest can hold. Found here, not after sealing for an hour.
    """

    name: str
    kind: str
    media_type: str
    owner: str
    created_at: int
    terms: Policy
    mock: Mock | None = None
    reveal_digest: bool = False
    approvers: tuple[Quorum, ...] = ()
    drawing: Drawing | None = None

    def __post_init__(self) -> None:
        _require_source(self.kind, self.drawing)
        f = Fields(
            {
                "created_at": self.created_at,
                "kind": self.kind,
                "media_type": self.media_type,
                "name": self.name,
                "owner": self.owner,
            },
            "manifest",
        )
        f.name("name")
        f.name("kind")
        f.media_type("media_type")
        f.name("owner")
        f.integer("created_at")
        if self.mock is not None:
            Mock.from_json(self.mock.to_json())
        require_sound(self.approvers, self.owner)

    @property
    def scheme(self) -> Scheme:
        return Scheme.SHA256 if self.reveal_digest else Scheme.COMMITMENT


@dataclass(frozen=True, slots=True)
class Manifest:
    """An asset's description. **Only as good as where it came from**: a checked digest, or a :class:`SignedManifest`.

    Attributes:
        name: the asset's name.
        kind: ``model``, ``dataset``, ``questions``, ``datastore``, ``code``, ``document``, …
        media_type: of the plaintext.
        owner: the owner's party name.
        created_at: Unix seconds.
        plaintext_bytes: the plaintext's length.
        content: what the plaintext must hash to.
        sealed: the sealed file.
        key_commitment: :meth:`AssetKey.commitment` of the asset's key; 32 bytes.
        terms: what the owner lets anybody do with it.
        mock: a public stand-in, or ``None``.
        approvers: who must approve a use of it beside the owner.
        drawing: the terms under which models draw from it, of a sealed source; ``None`` of all else.

    Raises:
        BadField: the sealed file's length or its number of chunks do not follow from the plaintext's length; or somebody is
            named twice among the approvers; or terms of drawing are of what is no source.
        TooLarge: more chunks than a sealed file may have.
    """

    name: str
    kind: str
    media_type: str
    owner: str
    created_at: int
    plaintext_bytes: int
    content: Content
    sealed: Sealed
    key_commitment: bytes
    terms: Policy
    mock: Mock | None
    approvers: tuple[Quorum, ...] = ()
    drawing: Drawing | None = None

    def __post_init__(self) -> None:
        require_sound(self.approvers, self.owner)
        _require_source(self.kind, self.drawing)
        layout = self.layout
        if (self.sealed.size, self.sealed.chunks) != (layout.sealed_bytes, layout.chunks):
            raise BadField("manifest.sealed has other sizes than follow from plaintext_bytes and chunk_bytes")

    @property
    def layout(self) -> Layout:
        """Where what stands in the sealed file."""
        return Layout(self.plaintext_bytes, self.sealed.chunk_bytes)

    @property
    def header(self) -> Header:
        """The header that the sealed file must have."""
        return Header(self.sealed.chunk_bytes, self.sealed.salt)

    def lacking(self, approvals: Mapping[str, str]) -> tuple[str, ...]:
        """Whose approval is missing that the asset's terms name, in words.

        Args:
            approvals: key ids of signing keys by party, as ``Contract.approvals`` says.
        """
        return lacking(self.approvers, approvals)

    def to_json(self) -> dict[str, JSON]:
        named: dict[str, JSON] = {"approvers": [q.to_json() for q in self.approvers]} if self.approvers else {}
        if self.drawing is not None:
            named["drawing"] = self.drawing.to_json()
        return {
            **named,
            "content": self.content.to_json(),
            "created_at": self.created_at,
            "key_commitment": self.key_commitment.hex(),
            "kind": self.kind,
            "media_type": self.media_type,
            "mock": None if self.mock is None else self.mock.to_json(),
            "name": self.name,
            "owner": self.owner,
            "plaintext_bytes": self.plaintext_bytes,
            "sealed": self.sealed.to_json(),
            "terms": self.terms.to_json(),
        }

    @classmethod
    def from_json(cls, value: object) -> Manifest:
        """Raises BadField, TooLarge, UnknownDimension."""
        f = Fields(value, "manifest")
        found = cls(
            name=f.name("name"),
            kind=f.name("kind"),
            media_type=f.media_type("media_type"),
            owner=f.name("owner"),
            created_at=f.integer("created_at"),
            plaintext_bytes=f.integer("plaintext_bytes"),
            content=Content.from_json(f.any("content")),
            sealed=Sealed.from_json(f.any("sealed")),
            key_commitment=f.hex("key_commitment", size=32),
            terms=Policy.from_json(f.any("terms")),
            mock=f.optional("mock", Mock.from_json),
            # absent where nobody is named, so that manifests without it stay as they were
            approvers=f.items("approvers", Quorum.from_json, low=1, high=MAX_GROUPS) if f.has("approvers") else (),
            drawing=Drawing.from_json(f.any("drawing")) if f.has("drawing") else None,
        )
        f.end()
        return found

    def encode(self) -> bytes:
        return wire.encode(self.to_json())

    @classmethod
    def parse(cls, data: bytes) -> Manifest:
        """Raises WireError and its leaves, UnknownDimension."""
        return cls.from_json(wire.decode(data, max_bytes=MAX_MANIFEST_BYTES))

    @property
    def digest(self) -> str:
        """The asset's identity: what contracts and receipts name."""
        return wire.digest(self.encode())


def _require_source(kind: str, drawing: Drawing | None) -> None:
    """Raises BadField: there are terms of drawing, and the asset is no source."""
    if drawing is not None and kind != SOURCE:
        raise BadField(f"terms of drawing are of a {SOURCE}, and this is a {kind}")


@dataclass(frozen=True, slots=True)
class SignedManifest:
    """A manifest that the key of ``signed_by`` signed. Only :func:`verify_manifest` makes one.

    Attributes:
        manifest: what was signed.
        signed_by: the key. Whose key it is, and that this is the party that ``manifest.owner`` names, the caller knows.
        envelope: the signature, to pass on.
    """

    manifest: Manifest
    signed_by: VerifyKey
    envelope: Envelope
    maker: InitVar[object]  # not a field, so that dataclasses.replace() cannot carry it over

    def __post_init__(self, maker: object) -> None:
        if maker is not _MAKER:
            raise TypeError("only verify_manifest() makes a SignedManifest")

    @property
    def digest(self) -> str:
        """The manifest's digest."""
        return self.envelope.digest


def sign_manifest(manifest: Manifest, key: SigningKey) -> Envelope:
    """The manifest in a DSSE envelope with its owner's one signature."""
    return key.sign(MANIFEST_TYPE, manifest.encode())


def verify_manifest(envelope: Envelope, owner_key: VerifyKey) -> SignedManifest:
    """Turn an envelope into a manifest that its owner signed.

    Args:
        envelope: untrusted.
        owner_key: the owner's pinned signing key. The name in ``manifest.owner`` is the caller's to compare.

    Raises:
        BadEnvelope: no manifest.
        BadSignature: not signed by exactly this key.
        WireError, UnknownDimension: as :meth:`Manifest.parse`.
    """
    return SignedManifest(Manifest.parse(owner_key.verify(envelope, MANIFEST_TYPE)), owner_key, envelope, _MAKER)
