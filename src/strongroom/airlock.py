"""The airlock: an output that people read, and pass or refuse, before its recipients can open it.

What the recipients would get (a :class:`Delivery`, encrypted to them) lies in a *box*, locked with a key that is the sum of
one share for each reviewer: all of them are needed, and any of them fewer know nothing of it. Each reviewer gets its share
and the output's key, to read it. To pass it is to publish the share in a signed verdict that names the box: what the
recipients open is what the enclave locked, whose digest stands in the receipt.

See ``spec/airlock.md``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import IO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from . import wire
from .asset import AssetKey, Manifest
from .contract import Proposal
from .delivery import Delivery
from .errors import BadField, BadReceipt, NotAParty, OutputHeld
from .party import DecryptionKey, EncryptionKey, SigningKey
from .wire import JSON, Envelope, Fields

PURPOSE = "strongroom.airlock.v1"
VERDICT_TYPE = wire.media_type("verdict")
SHARE_BYTES = 32
MAX_REASON = 400
_MAX_LOCKED = 256 << 10
_PIECE = 1 << 16
_NONCE = bytes(12)  # a key locks one box, once


def padded(data: bytes, size: int) -> bytes:
    """What is sealed of an output that waits: as long as the output may be at most, and so always the same.

    A box is read by everybody before anybody has passed it. One bit that is set and zeros follow the data (ISO/IEC 7816-4).

    Args:
        data: at most ``size`` bytes.
        size: of the largest output that the rule allows, in bytes.
    """
    return (data + b"\x80").ljust(size + 1, b"\0")


def unpad(file: IO[bytes]) -> None:
    """Cut a file that was opened down to what :func:`padded` was given. Raises BadReceipt: it was not padded."""
    at = file.seek(0, os.SEEK_END)
    tail = b""
    while at and not tail:
        size = min(at, _PIECE)
        at = file.seek(at - size)
        tail = file.read(size).rstrip(b"\0")
    if tail[-1:] != b"\x80":
        raise BadReceipt("an output that waited for its reviewers does not say where it ends")
    file.truncate(at + len(tail) - 1)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reviewer takes out of a box: the sealed output's key, and its share."""

    key: AssetKey
    share: bytes


@dataclass(frozen=True, slots=True)
class Box:
    """An output that waits for its reviewers. **Untrusted** until its digest was compared with a receipt.

    Attributes:
        contract, run_id, output: which output of which run.
        sealed: SHA-256 of the sealed file.
        manifest: the sealed file's manifest.
        locked: the delivery, under the sum of all shares.
        copies: reviewer's name -> the file's key and the reviewer's share, encrypted to the reviewer.
        shares: reviewer's name -> the digest of the share, so that no other can be passed for it.
    """

    contract: str
    run_id: str
    output: str
    sealed: str
    manifest: Manifest
    locked: bytes
    copies: Mapping[str, bytes]
    shares: Mapping[str, str]

    @classmethod
    def make(
        cls,
        delivery: Delivery,
        *,
        key: AssetKey,
        reviewers: Mapping[str, EncryptionKey],
        entropy: Callable[[int], bytes],
    ) -> Box:
        """Lock a delivery.

        Args:
            delivery: as the recipients would get it.
            key: the sealed file's.
            reviewers: who must pass it.
            entropy: n fresh random bytes.

        Raises:
            NotAParty: there is no reviewer.
        """
        if not reviewers:
            raise NotAParty(f"output {delivery.output!r} has no reviewer")
        shares = {name: entropy(SHARE_BYTES) for name in reviewers}
        where = _Place(delivery.contract, delivery.run_id, delivery.output, delivery.sealed, delivery.manifest.digest)
        return cls(
            delivery.contract,
            delivery.run_id,
            delivery.output,
            delivery.sealed,
            delivery.manifest,
            locked=AESGCM(_sum(shares.values())).encrypt(_NONCE, delivery.encode(), where.binding("")),
            copies={name: to.encrypt(key.raw + shares[name], info=where.binding(name)) for name, to in reviewers.items()},
            shares={name: wire.digest(share) for name, share in shares.items()},
        )

    @property
    def digest(self) -> str:
        """What the receipt and the verdicts name."""
        return wire.digest(self.encode())

    @property
    def _place(self) -> _Place:
        return _Place(self.contract, self.run_id, self.output, self.sealed, self.manifest.digest)

    def read(self, name: str, key: DecryptionKey) -> Reading:
        """What the box holds for a reviewer.

        Raises:
            NotAParty: ``name`` does not review it.
            BadKey: encrypted to another key, or for another run or output. BadReceipt: the share is not the one it names.
        """
        if name not in self.copies:
            raise NotAParty(f"output {self.output!r} is not for {name!r} to review")
        found = key.decrypt(self.copies[name], info=self._place.binding(name))
        asset_key, share = found[:-SHARE_BYTES], found[-SHARE_BYTES:]
        if wire.digest(share) != self.shares[name]:
            raise BadReceipt("the box holds another share than it names")
        return Reading(AssetKey(asset_key), share)

    def open(self, shares: Mapping[str, bytes]) -> Delivery:
        """The delivery, with every reviewer's share.

        Raises:
            OutputHeld: a share is missing.
            BadReceipt: a share is not the one that the box names, or what it holds is of another run or output.
        """
        waiting = sorted(self.shares.keys() - shares.keys())
        if waiting:
            raise OutputHeld(f"output {self.output!r} waits for {', '.join(waiting)}")
        if any(wire.digest(shares[name]) != named for name, named in self.shares.items()):
            raise BadReceipt("a share is not the one that the box names")
        try:
            opened = AESGCM(_sum(shares[name] for name in self.shares)).decrypt(_NONCE, self.locked, self._place.binding(""))
        except InvalidTag as error:
            raise BadReceipt("the box does not open with the shares that it names") from error
        found = Delivery.parse(opened)
        if _Place(found.contract, found.run_id, found.output, found.sealed, found.manifest.digest) != self._place:
            raise BadReceipt("the box holds a delivery of another run or output")
        return found

    def encode(self) -> bytes:
        return wire.encode(
            {
                "contract": self.contract,
                "copies": {name: wire.b64(copy) for name, copy in self.copies.items()},
                "locked": wire.b64(self.locked),
                "manifest": self.manifest.to_json(),
                "output": self.output,
                "purpose": PURPOSE,
                "run_id": self.run_id,
                "sealed": self.sealed,
                "shares": dict(self.shares),
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Box:
        """Raises WireError and its leaves, BadReceipt (no reviewer, or not the same twice)."""
        f = Fields(wire.decode(data, max_bytes=1 << 20), "box")
        f.literal("purpose", PURPOSE)
        copies, shares = f.any("copies"), f.any("shares")
        c, s = Fields(copies, "box.copies"), Fields(shares, "box.shares")
        found = cls(
            contract=f.digest("contract"),
            run_id=f.hex("run_id", size=16).hex(),
            output=f.name("output"),
            sealed=f.digest("sealed"),
            manifest=Manifest.from_json(f.any("manifest")),
            locked=f.base64("locked", max_bytes=_MAX_LOCKED),
            copies={Fields({"name": n}, "box.copies").name("name"): c.base64(n, max_bytes=8192) for n in copies},
            shares={Fields({"name": n}, "box.shares").name("name"): s.digest(n) for n in shares},
        )
        f.end()
        if not found.copies or found.copies.keys() != found.shares.keys():
            raise BadReceipt("the box does not hold a copy and a share for each reviewer")
        return found


@dataclass(frozen=True, slots=True)
class _Place:
    """Which output of which run it is."""

    contract: str
    run_id: str
    output: str
    sealed: str
    manifest: str

    def binding(self, reviewer: str) -> bytes:
        """What a copy is bound to, by the reviewer's name; the box itself by none."""
        return wire.encode(
            {
                "contract": self.contract,
                "manifest": self.manifest,
                "output": self.output,
                "purpose": PURPOSE,
                "reviewer": reviewer,
                "run_id": self.run_id,
                "sealed": self.sealed,
            }
        )


def _sum(shares: object) -> bytes:
    """Without carry: each of them alone is as good as random."""
    return reduce(lambda a, b: bytes(x ^ y for x, y in zip(a, b, strict=True)), shares)  # type: ignore[call-overload, no-any-return]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A reviewer's word on a box.

    Attributes:
        contract, run_id, output, box: which, and the digest of exactly what was read.
        reviewer: who says it.
        at: Unix seconds, as the reviewer says.
        share: the reviewer's share, which passes the box; ``None`` where it is refused.
        reason: of a refusal, one line for people; empty where the contract's rule does not let the recipients know.
    """

    contract: str
    run_id: str
    output: str
    box: str
    reviewer: str
    at: int
    share: bytes | None
    reason: str = ""

    @property
    def passed(self) -> bool:
        return self.share is not None

    def encode(self) -> bytes:
        said: dict[str, JSON] = {
            "at": self.at,
            "box": self.box,
            "contract": self.contract,
            "output": self.output,
            "reason": self.reason,
            "reviewer": self.reviewer,
            "run_id": self.run_id,
            "share": None if self.share is None else wire.b64(self.share),
        }
        return wire.encode(said)

    def sign(self, key: SigningKey) -> Envelope:
        return key.sign(VERDICT_TYPE, self.encode())

    @classmethod
    def peek(cls, envelope: Envelope) -> Verdict:
        """What it says, **unverified**: to find the contract and the box."""
        f = Fields(wire.decode(envelope.expect(VERDICT_TYPE), max_bytes=8192), "verdict")

        def share(value: object) -> bytes:
            found = Fields({"share": value}, "verdict").base64("share", max_bytes=SHARE_BYTES)
            if len(found) != SHARE_BYTES:
                raise BadField(f"verdict.share is not of {SHARE_BYTES} bytes")
            return found

        found = cls(
            contract=f.digest("contract"),
            run_id=f.hex("run_id", size=16).hex(),
            output=f.name("output"),
            box=f.digest("box"),
            reviewer=f.name("reviewer"),
            at=f.integer("at"),
            share=f.optional("share", share),
            reason=f.text("reason", max_chars=MAX_REASON),
        )
        f.end()
        return found

    @classmethod
    def verify(cls, envelope: Envelope, proposal: Proposal, box: Box) -> Verdict:
        """A verdict of one of the output's reviewers on this very box.

        Raises:
            NotAParty: by nobody who reviews this output. BadSignature.
            BadField: on another box, with another share, or with a reason that must not be told.
        """
        found = cls.peek(envelope)
        output = next((o for o in proposal.outputs if o.name == found.output), None)
        if output is None or output.rule.release is None or found.reviewer not in output.rule.reviewers:
            raise NotAParty(f"{found.reviewer!r} does not review output {found.output!r}")
        proposal.party(found.reviewer).signing_key.verify(envelope, VERDICT_TYPE)
        if (found.contract, found.run_id, found.output) != (box.contract, box.run_id, box.output):
            raise BadField("the verdict is on another run or output")
        if found.contract != proposal.digest or found.box != box.digest:
            raise BadField("the verdict is on another box")
        if found.share is not None and wire.digest(found.share) != box.shares.get(found.reviewer):
            raise BadField("verdict.share is not the one that the box names")
        if found.reason and (found.passed or not output.rule.release.reasons):
            raise BadField("verdict.reason is told where it must not be")
        return found
