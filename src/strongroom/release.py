"""The release: what an enclave asks a broker for, what the broker signs, and how the enclave opens it.

The documents alone; whether one is made is decided in ``broker``. See ``spec/release.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from . import wire
from .asset import AssetKey
from .attest.keyset import AttestationReport
from .errors import BadField, BadRelease
from .party import DecryptionKey, VerifyKey
from .threshold import MAX_EPOCH, MAX_HOLDERS, MAX_SLOT, Enrolment, Share
from .wire import JSON, Envelope, Fields

RELEASE_TYPE = wire.media_type("release")
PURPOSE = "strongroom.release.v1"
LEASE_PURPOSE = "strongroom.lease.v1"
MAX_REQUEST_BYTES = 4 << 20  # eight GPUs bring their manifests and OCSP answers with them
MAX_BUT = 2 * MAX_HOLDERS


@dataclass(frozen=True, slots=True)
class Part:
    """Which part of a key a release holds, where its owner shared it over several brokers (``spec/threshold.md``).

    Attributes:
        epoch, index: which share.
        slot: which of the contract's runs it is given for, from 1.
    """

    epoch: int
    index: int
    slot: int

    def to_json(self) -> dict[str, JSON]:
        return {"epoch": self.epoch, "index": self.index, "slot": self.slot}

    @classmethod
    def read(cls, f: Fields) -> Part | None:
        """The members of a statement that has them; none of them where there is no ``slot``."""
        if not f.has("slot"):
            return None
        return cls(
            epoch=f.integer("epoch", low=1, high=MAX_EPOCH),
            index=f.integer("index", low=1, high=MAX_HOLDERS),
            slot=f.integer("slot", low=1, high=MAX_SLOT),
        )


@dataclass(frozen=True, slots=True)
class PartAsked:
    """What an enclave asks of a broker that holds a share.

    Attributes:
        enrolment: digest of the enrolment that it holds its share under.
        slot: for which slot; ``None`` for the lowest that the broker has for this enclave.
        but: slots that did not lead to enough shares, sorted; none of them is meant by ``None``.
    """

    enrolment: str
    slot: int | None = None
    but: tuple[int, ...] = ()

    def to_json(self) -> dict[str, JSON]:
        return {"but": list(self.but), "enrolment": self.enrolment, "slot": self.slot}

    @classmethod
    def from_json(cls, value: object) -> PartAsked:
        f = Fields(value, "share")

        def slot(item: object) -> int:
            return Fields({"slot": item}, "share").integer("slot", low=1, high=MAX_SLOT)

        found = cls(f.digest("enrolment"), f.optional("slot", slot), f.items("but", slot, high=MAX_BUT))
        f.end()
        if list(found.but) != sorted(set(found.but)) or (found.slot is not None and found.but):
            raise BadField("share.but is not sorted and distinct, or stands beside a slot")
        return found


@dataclass(frozen=True, slots=True)
class ReleaseRequest:
    """An enclave's request for one asset's key. **Untrusted.**

    Attributes:
        contract: the contract's envelope.
        manifest: digest of the asset's manifest.
        run_id: 16 bytes in hex, chosen by whoever asked for the run.
        run: a party's signed request for that run: without it, whoever has an enclave could use up the runs of others.
        nonce: 32 bytes, from this broker.
        report: the enclave's attestation report for that nonce.
        share: where the broker is asked for a share and not for a key.
    """

    contract: Envelope
    manifest: str
    run_id: str
    run: Envelope
    nonce: bytes
    report: AttestationReport
    share: PartAsked | None = None

    def to_json(self) -> dict[str, JSON]:
        share: dict[str, JSON] = {} if self.share is None else {"share": self.share.to_json()}
        return share | {
            "contract": self.contract.to_json(),
            "manifest": self.manifest,
            "nonce": self.nonce.hex(),
            "purpose": PURPOSE,
            "report": self.report.to_json(),
            "run": self.run.to_json(),
            "run_id": self.run_id,
        }

    def encode(self) -> bytes:
        return wire.encode(self.to_json())

    @classmethod
    def parse(cls, data: bytes) -> ReleaseRequest:
        """Raises WireError and AttestationError leaves."""
        f = Fields(wire.decode(data, max_bytes=MAX_REQUEST_BYTES), "request")
        f.literal("purpose", PURPOSE)
        found = cls(
            contract=Envelope.from_json(f.any("contract")),
            manifest=f.digest("manifest"),
            run_id=f.hex("run_id", size=16).hex(),
            run=Envelope.from_json(f.any("run")),
            nonce=f.hex("nonce", size=32),
            report=AttestationReport.from_json(f.any("report")),
            share=PartAsked.from_json(f.any("share")) if f.has("share") else None,
        )
        f.end()
        return found


def run_subject(contract: str, run_id: str) -> str:
    """The subject of a keyset that was made for one run: evidence for it is of no use for another.

    Args:
        contract: its digest.
        run_id: 16 bytes in hex.
    """
    return f"strongroom-run://{contract.removeprefix('sha256:')}/{run_id}"


def binding(
    *,
    contract: str,
    manifest: str,
    keyset_digest: str,
    nonce: str,
    run_id: str,
    broker: str,
    purpose: str = PURPOSE,
    part: Part | None = None,
) -> bytes:
    """What an encrypted asset key, or part of one, is bound to: the HPKE ``info``, canonical JSON."""
    return wire.encode(
        ({} if part is None else part.to_json())
        | {
            "broker": broker,
            "contract": contract,
            "keyset_digest": keyset_digest,
            "manifest": manifest,
            "nonce": nonce,
            "purpose": purpose,
            "run_id": run_id,
        }
    )


@dataclass(frozen=True, slots=True)
class ReleaseStatement:
    """What a broker signs when it releases a key. It holds no key: the encrypted key travels beside it, unpublished.

    Attributes:
        contract, manifest, keyset_digest, nonce, run_id, broker: what the key is bound to; ``broker`` is the key id that
        signs.
        at: the broker's clock, Unix seconds.
        encrypted_key: digest of the encrypted key.
        policy: digest of the appraisal policy under which the evidence was affirmed.
        until: of a lease the last second at which the key may be held, Unix; ``None`` for the length of a run.
        part: which part of the key it is; ``None`` for a whole key.
    """

    contract: str
    manifest: str
    keyset_digest: str
    nonce: str
    run_id: str
    broker: str
    at: int
    encrypted_key: str
    policy: str
    until: int | None = None
    part: Part | None = None

    @property
    def purpose(self) -> str:
        return PURPOSE if self.until is None else LEASE_PURPOSE

    def encode(self) -> bytes:
        until: dict[str, JSON] = {} if self.until is None else {"until": self.until}
        part: dict[str, JSON] = {} if self.part is None else self.part.to_json()
        return wire.encode(
            {
                **part,
                **until,
                "at": self.at,
                "broker": self.broker,
                "contract": self.contract,
                "encrypted_key": self.encrypted_key,
                "keyset_digest": self.keyset_digest,
                "manifest": self.manifest,
                "nonce": self.nonce,
                "policy": self.policy,
                "purpose": self.purpose,
                "run_id": self.run_id,
            }
        )

    @property
    def info(self) -> bytes:
        return binding(
            contract=self.contract,
            manifest=self.manifest,
            keyset_digest=self.keyset_digest,
            nonce=self.nonce,
            run_id=self.run_id,
            broker=self.broker,
            purpose=self.purpose,
            part=self.part,
        )

    @classmethod
    def verify(cls, envelope: Envelope, broker: VerifyKey) -> ReleaseStatement:
        """What this broker signed. Raises BadSignature, BadEnvelope, WireError, BadRelease (signed under another name)."""
        f = Fields(wire.decode(broker.verify(envelope, RELEASE_TYPE), max_bytes=16 << 10), "release")
        purpose = f.text("purpose", choices=(PURPOSE, LEASE_PURPOSE))
        found = cls(
            contract=f.digest("contract"),
            manifest=f.digest("manifest"),
            keyset_digest=f.digest("keyset_digest"),
            nonce=f.hex("nonce", size=32).hex(),
            run_id=f.hex("run_id", size=16).hex(),
            broker=f.digest("broker"),
            at=f.integer("at"),
            encrypted_key=f.digest("encrypted_key"),
            policy=f.digest("policy"),
            until=f.integer("until") if purpose == LEASE_PURPOSE else None,
            part=Part.read(f),
        )
        f.end()
        if found.broker != broker.keyid:
            raise BadRelease("the release names another broker than the one that signed it")
        return found


@dataclass(frozen=True, slots=True)
class Slot:
    """What a release is counted and found again under; ``part`` where it is of a share."""

    contract: str
    run_id: str
    keyset_digest: str
    manifest: str
    part: Part | None = None


class OpenedRelease(NamedTuple):
    """What an enclave takes out of a broker's answer: the signed release, the asset key, and what was signed."""

    envelope: Envelope
    key: AssetKey
    statement: ReleaseStatement


def open_release(
    answer: bytes,
    *,
    slot: Slot,
    broker: VerifyKey,
    nonces: frozenset[str],
    key: DecryptionKey,
    latest: int | None = None,
) -> OpenedRelease:
    """The enclave's side: the asset key of a release that is for exactly this slot.

    Args:
        answer: the broker's answer, untrusted.
        slot: the contract, run, keyset and manifest that were asked for.
        broker: the broker's key, as the contract names it.
        nonces: hex nonces under which this enclave asked this broker for this slot.
        key: the keyset's release key.
        latest: under a standing contract the latest end of a lease that it allows, Unix seconds by the enclave's clock;
            else ``None``.

    Returns:
        the signed release, the asset key and what was signed. Whether the key fits the manifest's commitment is for the
        opener of the asset.

    Raises:
        BadRelease: a release for something else, or whose encrypted key is another; without an end where it must be a
            lease, or with one that the contract does not allow.
        BadSignature, BadEnvelope, WireError, BadKey.
    """
    envelope, secret, statement = _opened(answer, slot=slot, broker=broker, nonces=nonces, key=key, latest=latest)
    if statement.part is not None:
        raise BadRelease("a share of the key where the whole was asked for")
    return OpenedRelease(envelope, AssetKey(secret), statement)


class OpenedShare(NamedTuple):
    """What an enclave takes out of a holder's answer: the signed release, the share, and what was signed."""

    envelope: Envelope
    share: Share
    statement: ReleaseStatement


def open_share(
    answer: bytes,
    *,
    slot: Slot,
    enrolment: Enrolment,
    index: int,
    asked: PartAsked,
    nonces: frozenset[str],
    key: DecryptionKey,
    latest: int | None = None,
) -> OpenedShare:
    """The enclave's side: the share of a release by exactly this holder for exactly what was asked.

    Args:
        answer: the broker's answer, untrusted.
        slot: the contract, run, keyset and manifest that were asked for.
        enrolment: verified.
        index: whose answer it must be.
        asked: as it was asked.
        nonces, key, latest: as of :func:`open_release`.

    Raises:
        BadRelease: a release for something else, another's, a whole key, or of a slot that was not asked for.
        BadShare: it holds another share than the owner committed to; the holder is named.
        BadSignature, BadEnvelope, WireError, BadKey.
    """
    holder = enrolment.holder(index)
    envelope, secret, statement = _opened(answer, slot=slot, broker=holder.broker_key, nonces=nonces, key=key, latest=latest)
    part = statement.part
    if part is None or (part.epoch, part.index) != (enrolment.epoch, index):
        raise BadRelease(f"the broker of {holder.name!r} answered with another share than it was asked for")
    if (asked.slot is not None and part.slot != asked.slot) or part.slot in asked.but:
        raise BadRelease(f"the broker of {holder.name!r} answered for another slot")
    return OpenedShare(envelope, enrolment.require(secret, index), statement)


def _opened(
    answer: bytes, *, slot: Slot, broker: VerifyKey, nonces: frozenset[str], key: DecryptionKey, latest: int | None
) -> tuple[Envelope, bytes, ReleaseStatement]:
    f = Fields(wire.decode(answer, max_bytes=64 << 10), "answer")
    envelope = Envelope.from_json(f.any("release"))
    encrypted = f.base64("encrypted_key", max_bytes=8192)
    f.end()
    statement = ReleaseStatement.verify(envelope, broker)
    found = Slot(statement.contract, statement.run_id, statement.keyset_digest, statement.manifest)
    if found != slot or statement.nonce not in nonces:
        raise BadRelease("the release is for another run, enclave, asset or question")
    if statement.encrypted_key != wire.digest(encrypted):
        raise BadRelease("the encrypted key is not the one that the broker signed")
    if (statement.until is None) is not (latest is None):
        raise BadRelease("a lease where the contract is for runs, or no end where it is a standing one")
    if statement.until is not None and latest is not None and statement.until > latest:
        raise BadRelease("the lease is longer than the contract allows")
    return envelope, key.decrypt(encrypted, info=statement.info), statement


def gave_twice(first: Envelope, second: Envelope, broker: VerifyKey) -> Part:
    """What two signed releases prove: that this broker gave one slot of one contract to two enclaves.

    No honest broker does, in whatever epochs; so nobody can make up the proof of one without its key.

    Args:
        first, second: untrusted.
        broker: whom they are said to prove it of.

    Returns:
        the part as the second release has it.

    Raises:
        BadRelease: they prove nothing: of a whole key, of two slots, contracts or assets, or of one enclave.
        BadSignature, BadEnvelope, WireError: they are not this broker's releases.
    """
    one, two = ReleaseStatement.verify(first, broker), ReleaseStatement.verify(second, broker)
    if one.part is None or two.part is None:
        raise BadRelease("a release of a whole key is of no slot")
    if (one.contract, one.manifest, one.part.slot) != (two.contract, two.manifest, two.part.slot):
        raise BadRelease("the releases are of two slots")
    if one.keyset_digest == two.keyset_digest:
        raise BadRelease("the releases are to one enclave")
    return two.part
