"""What signed words prove: that a broker gave a slot to two enclaves, or accounts for it otherwise than it gave.

Below ``2t - n`` liars no slot leads to two enclaves. Beyond, it can; but not without some broker having signed two things of
which one is a lie. Whoever has the papers (receipts with their releases, the accounts that brokers gave of an epoch, the
deals that told them what was given before) finds the broker by them. Nobody can make them up of an honest one.

See ``spec/threshold.md``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from .holding import Deal, Recalled, Taken
from .party import VerifyKey
from .release import ReleaseStatement
from .threshold import Enrolment
from .wire import Envelope


class Lie(NamedTuple):
    """A lie, and what proves it.

    Attributes:
        broker: who lies.
        contract, slot: about what.
        what: in a few words.
        papers: two documents, one or both signed by the broker: no honest one signs it beside the other.
    """

    broker: VerifyKey
    contract: str
    slot: int
    what: str
    papers: tuple[Envelope, Envelope]


@dataclass
class Papers:
    """What is known of one asset's slots, all of it verified as it was added.

    Args:
        manifest: the asset's digest.
        owner: its owner's name.
        key: the owner's signing key.
    """

    manifest: str
    owner: str
    key: VerifyKey
    _gave: dict[tuple[str, str, int], dict[tuple[str, int], Envelope]] = field(default_factory=dict)
    _times: dict[str, int] = field(default_factory=dict)
    _accounts: list[tuple[VerifyKey, Enrolment, Recalled, Envelope]] = field(default_factory=list)
    _deals: list[tuple[VerifyKey, Enrolment, Deal, Envelope]] = field(default_factory=list)
    _brokers: dict[str, VerifyKey] = field(default_factory=dict)

    def release(self, envelope: Envelope, broker: VerifyKey) -> bool:
        """A release by this broker; whether it is of a share of this asset. Raises BadRelease, BadSignature, WireError."""
        found = ReleaseStatement.verify(envelope, broker)
        if found.part is None or found.manifest != self.manifest:
            return False
        self._brokers[broker.keyid] = broker
        place = (broker.keyid, found.contract, found.part.slot)
        self._gave.setdefault(place, {})[found.keyset_digest, found.part.epoch] = envelope
        self._times[envelope.digest] = found.at
        return True

    def account(self, envelope: Envelope, enrolment: Enrolment, index: int, at: int) -> None:
        """What a broker answered to a recall, ``at``, Unix seconds. Raises BadSignature, BadShare, WireError."""
        found = Recalled.verify(envelope, enrolment, index, at)
        self._accounts.append((enrolment.holder(index).broker_key, enrolment, found, envelope))

    def deal(self, envelope: Envelope) -> None:
        """What the owner dealt to a broker. Raises BadSignature, BadEnrolment, BadShare, WireError."""
        found, enrolment, _ = Deal.verify(envelope, owner=self.owner, key=self.key)
        self._deals.append((enrolment.holder(found.index).broker_key, enrolment, found, envelope))

    def lies(self) -> list[Lie]:
        """Every lie that two of the papers prove: P1 to P4 of ``spec/threshold.md``."""
        return [*self._twice(), *self._unaccounted(), *self._against_deals(), *self._forgotten()]

    def _twice(self) -> Iterator[Lie]:
        """P1: two releases of one slot to two keysets."""
        for (keyid, contract, slot), to in sorted(self._gave.items()):
            first = {keyset: envelope for (keyset, _), envelope in sorted(to.items(), reverse=True)}
            if len(first) > 1:
                one, two = (first[keyset] for keyset in sorted(first)[:2])
                yield Lie(self._brokers[keyid], contract, slot, "gave a slot to two enclaves", (one, two))

    def _of(self, broker: VerifyKey) -> Iterator[_Gave]:
        for (keyid, contract, slot), to in sorted(self._gave.items()):
            if keyid == broker.keyid:
                for (keyset, epoch), envelope in sorted(to.items()):
                    yield _Gave(contract, slot, keyset, epoch, self._times[envelope.digest], envelope)

    def _unaccounted(self) -> Iterator[Lie]:
        """P2: a release, and an account of its epoch that says otherwise; but for what it says it lost.

        An account of a later epoch says nothing against anybody: a broker that was put back from a backup in between
        accounts for what the owner told it since.
        """
        for broker, enrolment, account, paper in self._accounts:
            said = _by_slot(account.taken)
            for gave in self._of(broker):
                if gave.epoch != enrolment.epoch or gave.at <= account.restored:
                    continue
                if said.get((gave.contract, gave.slot), _NOTHING) not in (gave.keyset, None):
                    what = "gave a slot and accounts for it otherwise"
                    yield Lie(broker, gave.contract, gave.slot, what, (gave.envelope, paper))

    def _against_deals(self) -> Iterator[Lie]:
        """P3: a release of a slot that the deal of its epoch says is another's, or nobody's."""
        for broker, enrolment, deal, paper in self._deals:
            told = _by_slot(deal.taken)
            for gave in self._of(broker):
                to = told.get((gave.contract, gave.slot), gave.keyset)
                if gave.epoch == enrolment.epoch and to != gave.keyset:
                    what = "gave a slot that it was told is not free"
                    yield Lie(broker, gave.contract, gave.slot, what, (paper, gave.envelope))

    def _forgotten(self) -> Iterator[Lie]:
        """P4: an account that leaves out what the deal of its epoch told."""
        for broker, enrolment, account, paper in self._accounts:
            said = _by_slot(account.taken)
            for other, of, deal, told in self._deals:
                if other != broker or of.digest != enrolment.digest:
                    continue
                for t in deal.taken:
                    if said.get((t.contract, t.slot), _NOTHING) not in (t.keyset, None):
                        what = "accounts for a slot otherwise than it was told"
                        yield Lie(broker, t.contract, t.slot, what, (told, paper))


class _Gave(NamedTuple):
    contract: str
    slot: int
    keyset: str
    epoch: int
    at: int
    envelope: Envelope


_NOTHING = ""  # no keyset's digest: the account does not have the slot


def _by_slot(taken: Iterable[Taken]) -> dict[tuple[str, int], str | None]:
    return {(t.contract, t.slot): t.keyset for t in taken}
