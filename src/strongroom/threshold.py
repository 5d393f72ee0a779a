"""An asset's key, shared over the brokers of different people: any ``t`` of ``n`` open it, and ``t - 1`` know nothing of it.

The key is split by Shamir's scheme. The owner signs an *enrolment*: who holds which share in which epoch, and a salted
commitment to each, so that a share that was tampered with is found and its holder named. An enrolment is public; a share
travels encrypted to one broker, and lies there as it came.

``2t > n`` is required: of two sets of ``t`` brokers at least one broker is in both, and it gives a slot once.

See ``spec/threshold.md``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol

from . import wire
from .asset import AssetKey, Manifest
from .errors import BadEnrolment, BadField, BadShare, MissingExtra, WireError, WrongKey
from .party import EncryptionKey, SigningKey, VerifyKey
from .wire import JSON, Envelope, Fields

ENROLMENT_TYPE = wire.media_type("enrolment")
PURPOSE = "strongroom.enrolment.v1"
SHARE_PURPOSE = "strongroom.share.v1"
CARD_FORMAT = "strongroom.holder.v1"
MAX_HOLDERS = 16
MAX_EPOCH = 1_000_000
MAX_SLOT = 1_000_000_000  # of a contract: its runs, and as many as its owners grant
_HALF = 16  # the library's field is GF(2^128): a key of 32 bytes is two secrets, shared at the same points
_ADDRESS = re.compile(r"https?://(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:]{2,45}\])(?::[1-9][0-9]{0,4})?\Z")


def _address(f: Fields) -> str:
    found = f.text("address", max_chars=256)
    if not _ADDRESS.match(found):
        raise BadField("holder.address is not http(s)://host or http(s)://host:port")
    return found


@dataclass(frozen=True, slots=True)
class HolderCard:
    """A broker that can hold shares of other people's assets, as its own people hand it out.

    Attributes:
        name: whose broker it is.
        broker_key: signs its releases.
        share_key: shares are encrypted to it; its private half stays with the broker, beside no book.
        address: where it answers.
    """

    name: str
    broker_key: VerifyKey
    share_key: EncryptionKey
    address: str

    def encode(self) -> bytes:
        return wire.encode(
            {
                "address": self.address,
                "broker_key": wire.b64(self.broker_key.raw),
                "format": CARD_FORMAT,
                "name": self.name,
                "share_key": wire.b64(self.share_key.raw),
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> HolderCard:
        """Raises WireError and its leaves, BadKey."""
        f = Fields(wire.decode(data, max_bytes=16 << 10), "holder")
        f.literal("format", CARD_FORMAT)
        found = cls(
            name=f.name("name"),
            broker_key=VerifyKey(f.base64("broker_key")),
            share_key=EncryptionKey(f.base64("share_key")),
            address=_address(f),
        )
        f.end()
        return found

    @property
    def fingerprint(self) -> str:
        """The digest of the card: what two people compare over the telephone."""
        return wire.digest(self.encode())


@dataclass(frozen=True, slots=True)
class Holder:
    """One broker in an enrolment.

    Attributes:
        name, broker_key, address: of its card.
        commitment: the digest of its share's document.
    """

    name: str
    broker_key: VerifyKey
    address: str
    commitment: str

    def to_json(self) -> dict[str, JSON]:
        return {
            "address": self.address,
            "broker_key": wire.b64(self.broker_key.raw),
            "commitment": self.commitment,
            "name": self.name,
        }

    @classmethod
    def from_json(cls, value: object) -> Holder:
        f = Fields(value, "holder")
        found = cls(
            name=f.name("name"),
            broker_key=VerifyKey(f.base64("broker_key")),
            address=_address(f),
            commitment=f.digest("commitment"),
        )
        f.end()
        return found


@dataclass(frozen=True, slots=True)
class Enrolment:
    """Who holds the shares of an asset's key in one epoch. Public. **Untrusted** unless :meth:`verify` made it.

    Attributes:
        manifest: digest of the asset's manifest.
        owner: who signs it.
        epoch: from 1, one more with each dealing.
        threshold: how many shares open the key.
        holders: in the order of their shares: the first holds share 1.

    Raises:
        BadEnrolment: T1 or T2 of ``spec/threshold.md`` does not hold.
    """

    manifest: str
    owner: str
    epoch: int
    threshold: int
    holders: tuple[Holder, ...]

    def __post_init__(self) -> None:
        require_majority(self.threshold, len(self.holders))
        for what, values in (
            ("name", [h.name for h in self.holders]),
            ("key", [h.broker_key.raw for h in self.holders]),
            ("commitment", [h.commitment for h in self.holders]),
        ):
            if len(set(values)) != len(values):  # T2: one broker with two shares would be two of t
                raise BadEnrolment(f"two holders have one {what}")

    def to_json(self) -> dict[str, JSON]:
        return {
            "epoch": self.epoch,
            "holders": [h.to_json() for h in self.holders],
            "manifest": self.manifest,
            "owner": self.owner,
            "purpose": PURPOSE,
            "threshold": self.threshold,
        }

    def encode(self) -> bytes:
        return wire.encode(self.to_json())

    def sign(self, key: SigningKey) -> Envelope:
        return key.sign(ENROLMENT_TYPE, self.encode())

    @classmethod
    def parse(cls, data: bytes) -> Enrolment:
        """Raises WireError and its leaves, BadKey, BadEnrolment."""
        f = Fields(wire.decode(data, max_bytes=64 << 10), "enrolment")
        f.literal("purpose", PURPOSE)
        found = cls(
            manifest=f.digest("manifest"),
            owner=f.name("owner"),
            epoch=f.integer("epoch", low=1, high=MAX_EPOCH),
            threshold=f.integer("threshold", low=1, high=MAX_HOLDERS),
            holders=f.items("holders", Holder.from_json, low=1, high=MAX_HOLDERS),
        )
        f.end()
        return found

    @classmethod
    def verify(cls, envelope: Envelope, *, manifest: str, owner: str, key: VerifyKey) -> Enrolment:
        """The enrolment of this asset, as its owner signed it.

        Args:
            envelope: untrusted.
            manifest: digest of the asset's manifest.
            owner: the owner's name.
            key: the owner's signing key.

        Raises:
            BadEnvelope, BadSignature: T3. BadEnrolment: of another asset or owner (T4), or one of T1 and T2.
            WireError, BadKey.
        """
        found = cls.parse(key.verify(envelope, ENROLMENT_TYPE))
        if found.manifest != manifest or found.owner != owner:
            raise BadEnrolment("the enrolment is of another asset or owner")
        if any(h.broker_key == key for h in found.holders):
            raise BadEnrolment("a holder signs with the owner's own key")
        return found

    @property
    def digest(self) -> str:
        return wire.digest(self.encode())

    def index(self, broker: VerifyKey) -> int | None:
        """Which share the broker with this key holds, from 1; ``None`` where it holds none."""
        return next((i for i, h in enumerate(self.holders, 1) if h.broker_key == broker), None)

    def holder(self, index: int) -> Holder:
        """Raises BadShare: there is no such share."""
        if not 1 <= index <= len(self.holders):
            raise BadShare(f"nobody holds a share {index}")
        return self.holders[index - 1]

    def require(self, data: bytes, index: int) -> Share:
        """A share of this epoch, compared with what the owner committed to.

        Args:
            data: a share's document, untrusted.
            index: whose it must be.

        Raises:
            BadShare: it is not the one that the owner enrolled its holder with (T5). The holder is named.
        """
        holder = self.holder(index)
        if wire.digest(data) != holder.commitment:
            raise BadShare(f"the broker of {holder.name!r} gave another share than the one that it holds")
        try:
            share = Share.parse(data)
        except WireError as error:
            raise BadShare(f"what the owner dealt to the broker of {holder.name!r} is no share") from error
        if (share.manifest, share.epoch, share.index) != (self.manifest, self.epoch, index):
            raise BadShare(f"the owner dealt a share of something else to the broker of {holder.name!r}")
        return share


def require_majority(threshold: int, holders: int) -> None:
    """T1: ``2t > n`` and ``1 <= t <= n <= 16``. Raises BadEnrolment."""
    if not 1 <= threshold <= holders <= MAX_HOLDERS:
        raise BadEnrolment(f"{threshold} of {holders} brokers cannot be asked for; there are 1 to {MAX_HOLDERS}")
    if 2 * threshold <= holders:
        raise BadEnrolment(f"{threshold} of {holders} is not more than half: two halves would each count the runs alone")


@dataclass(frozen=True, slots=True, repr=False)
class Share:
    """One share of an asset's key. **Secret.** The digest of its document is its commitment; the salt makes it say nothing.

    Attributes:
        manifest, epoch, index: which.
        salt: 32 fresh bytes.
        value: 32 bytes: one point of each half's polynomial.
    """

    manifest: str
    epoch: int
    index: int
    salt: bytes
    value: bytes

    def __repr__(self) -> str:
        return f"Share(epoch={self.epoch}, index={self.index}, …)"

    def encode(self) -> bytes:
        return wire.encode(
            {
                "epoch": self.epoch,
                "index": self.index,
                "manifest": self.manifest,
                "purpose": SHARE_PURPOSE,
                "salt": self.salt.hex(),
                "value": self.value.hex(),
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Share:
        """Raises WireError and its leaves."""
        f = Fields(wire.decode(data, max_bytes=1024), "share")
        f.literal("purpose", SHARE_PURPOSE)
        found = cls(
            manifest=f.digest("manifest"),
            epoch=f.integer("epoch", low=1, high=MAX_EPOCH),
            index=f.integer("index", low=1, high=MAX_HOLDERS),
            salt=f.hex("salt", size=32),
            value=f.hex("value", size=2 * _HALF),
        )
        f.end()
        return found

    @property
    def commitment(self) -> str:
        return wire.digest(self.encode())


class _Scheme(Protocol):
    """Shamir's scheme over GF(2^128), as the library has it."""

    def split(self, k: int, n: int, secret: bytes) -> list[tuple[int, bytes]]: ...

    def combine(self, shares: list[tuple[int, bytes]]) -> bytes: ...


def _scheme() -> _Scheme:
    try:
        from Crypto.Protocol import SecretSharing  # noqa: PLC0415 - where shares are made or combined alone
    except ImportError as error:
        raise MissingExtra(
            "shares of keys need a library that is not installed", hint="pip install 'strongroom[threshold]'"
        ) from error
    module: ModuleType = SecretSharing
    scheme: _Scheme = module.Shamir
    return scheme


def split(
    key: AssetKey,
    *,
    manifest: str,
    owner: str,
    epoch: int,
    threshold: int,
    cards: Sequence[HolderCard],
    entropy: Callable[[int], bytes],
) -> tuple[Enrolment, tuple[Share, ...]]:
    """Share a key: what the owner signs, and each holder's share.

    Args:
        key: the asset's.
        manifest: the digest of its manifest.
        owner: the owner's name.
        epoch: one more than that of the shares that were dealt before; 1 for the first.
        threshold: how many shares open it.
        cards: the brokers, in the order of their shares.
        entropy: n fresh random bytes, for the salts; the library draws its polynomials itself.

    Raises:
        BadEnrolment, MissingExtra.
    """
    require_majority(threshold, len(cards))
    halves = [_scheme().split(threshold, len(cards), part) for part in (key.raw[:_HALF], key.raw[_HALF:])]
    shares = tuple(
        Share(manifest, epoch, index, entropy(32), low + high) for (index, low), (_, high) in zip(*halves, strict=True)
    )
    holders = tuple(Holder(c.name, c.broker_key, c.address, s.commitment) for c, s in zip(cards, shares, strict=True))
    return Enrolment(manifest, owner, epoch, threshold, holders), shares


def combine(enrolment: Enrolment, shares: Iterable[Share], manifest: Manifest) -> AssetKey:
    """The key, out of exactly as many shares as it takes.

    Args:
        enrolment: verified.
        shares: any ``threshold`` of this epoch, or more; each is compared with its commitment again.
        manifest: whose commitment the key must fit.

    Raises:
        BadShare: too few, one twice, or of another epoch or asset (T5, T6).
        WrongKey: it is not the key that the manifest commits to (T7): the owner dealt shares of another.
        MissingExtra.
    """
    found: dict[int, Share] = {}
    for share in shares:
        if share.index in found:
            raise BadShare(f"share {share.index} was given twice")
        found[share.index] = enrolment.require(share.encode(), share.index)
    if len(found) < enrolment.threshold:
        raise BadShare(f"{len(found)} shares where it takes {enrolment.threshold}")
    if manifest.digest != enrolment.manifest:
        raise BadShare("the shares are of another asset's key")
    points = sorted(found.items())[: enrolment.threshold]
    halves = [_scheme().combine([(i, s.value[part]) for i, s in points]) for part in (slice(_HALF), slice(_HALF, None))]
    key = AssetKey(b"".join(halves))
    if key.commitment(manifest.sealed.salt) != manifest.key_commitment:
        raise WrongKey("the shares are not of the key that the manifest commits to")
    return key
