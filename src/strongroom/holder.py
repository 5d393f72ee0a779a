"""What a broker does with what the owner of an asset tells it: take a share, give it back, hear the owner's word.

The owner is one whose card the broker's own people pinned. All of it is written in one transaction of the broker's book
before it is answered.

See ``spec/threshold.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from .broker import HeldShare, Owner
from .contract import Grant, Proposal
from .errors import BadField, UnknownAsset, WrongEpoch
from .holding import DEAL_TYPE, MAX_TAKEN, MAX_WITHDRAWN, TOO_MANY, Deal, Recall, Recalled, Taken, Withdrawn, Word
from .party import Party
from .threshold import ENROLMENT_TYPE, Enrolment
from .wire import Envelope


class HolderPage(Protocol):
    """The broker's book while one transaction is open."""

    def share(self, manifest: str) -> HeldShare | None:
        """The newest share that was dealt of this asset."""

    def deal(self, manifest: str, held: HeldShare, taken: Sequence[Taken]) -> None:
        """Keep a share in the place of an older one, and note slots that others gave.

        A slot of which the book says something else is nobody's from now on.
        """

    def learn(self, manifest: str, owner: str, withdrawn: Sequence[Withdrawn], over: int, restored: int) -> None:
        """Keep what the owner says with a deal: who withdrew, and that contracts that had begun at ``over`` are over.

        What the book did not know of this asset (:meth:`uncounted`) is known with it, but for those, where ``restored`` is
        when it was put back: a deal that does not say so may have come before, and what was given under it be forgotten.
        """

    def withdrawn(self, manifest: str, owner: str) -> Sequence[Withdrawn]:
        """Every withdrawal from a contract on this asset that is known here, sorted."""

    def uncounted(self, manifest: str) -> int:
        """Of contracts that had begun then, Unix seconds, :meth:`taken` may leave something out; 0: of none.

        It is so after the book was put back from a backup, until the owner deals anew and says that it knows; and where a
        deal says so.
        """

    def recall(self, manifest: str) -> None:
        """Give nothing more under the share that is held."""

    def taken(self, manifest: str) -> Sequence[Taken]:
        """Every slot of this asset that was given, here or, as its owner said, elsewhere, sorted."""

    def hear(self, word: Word, envelope: Envelope) -> None:
        """Keep an owner's word."""

    def hear_grant(self, grant: Grant, envelope: Envelope) -> None:
        """Keep an owner's grant; the same one counts once."""


class HolderBook(Protocol):
    """A broker's memory."""

    def transaction(self) -> AbstractContextManager[HolderPage]:
        """An exclusive, durable transaction; an exception inside rolls it back."""


def _owner_of(deal: Envelope) -> str:
    """Whose deal it claims to be, **unverified**."""
    return Enrolment.parse(Deal.parse(deal.expect(DEAL_TYPE)).enrolment.expect(ENROLMENT_TYPE)).owner


def take(envelope: Envelope, *, here: Owner, book: HolderBook, at: int) -> Enrolment:
    """Take a share. The same deal may come again.

    Args:
        envelope: a deal, untrusted.
        here: whose broker this is.
        book: its memory.
        at: its clock, Unix seconds.

    Raises:
        NotPinned: the owner is not one that this broker's people know.
        UnknownAsset: this broker has no key for shares.
        WrongEpoch: as new a share is here, of another dealing.
        BadField: it ends contracts that have not begun by this broker's clock; it may be brought again.
        BadShare, BadEnrolment, BadSignature, BadEnvelope, BadKey, WireError.
    """
    owner = here.trust.party(_owner_of(envelope))
    deal, enrolment, _ = Deal.verify(envelope, owner=owner.name, key=owner.signing_key)
    deal.require_past(at)
    if here.shares is None:
        raise UnknownAsset("this broker has no key for shares", hint="Make one with: strongroom broker enrol")
    deal.open(enrolment, broker=here.broker.public, key=here.shares)
    with book.transaction() as page:
        held = page.share(enrolment.manifest)
        if held is not None:
            known = Enrolment.parse(held.deal.enrolment.expect(ENROLMENT_TYPE))
            if held.owner != owner.name:
                raise WrongEpoch("the share that is held is another owner's")
            if known.digest == enrolment.digest:
                return enrolment  # what was recalled stays recalled
            if known.epoch >= enrolment.epoch:
                raise WrongEpoch(f"a share of epoch {known.epoch} is here already")
        page.deal(enrolment.manifest, HeldShare(owner.name, deal), deal.taken)
        page.learn(enrolment.manifest, owner.name, deal.withdrawn, deal.over, deal.restored)  # with the share
    return enrolment


def give_back(envelope: Envelope, *, here: Owner, book: HolderBook) -> Envelope:
    """Obey a recall: nothing more is given under this share, and the owner gets it with an account. May be asked again.

    Args:
        envelope: a recall, untrusted.
        here, book: as of :func:`take`.

    Returns:
        the signed account.

    Raises:
        NotPinned, BadSignature, BadEnvelope, WireError. UnknownAsset: no share of this asset of this owner is here.
        WrongEpoch: the share here is of another epoch.
    """
    said = Recall.peek(envelope)
    owner = here.trust.party(said.owner)
    recall = Recall.verify(envelope, owner.signing_key)
    with book.transaction() as page:
        held = page.share(recall.manifest)
        if held is None or held.owner != owner.name or here.shares is None:
            raise UnknownAsset("no share of this asset is here")
        enrolment = Enrolment.verify(held.deal.enrolment, manifest=recall.manifest, owner=owner.name, key=owner.signing_key)
        if enrolment.epoch != recall.epoch:
            raise WrongEpoch(f"the share that is here is of epoch {enrolment.epoch}")
        share = held.deal.open(enrolment, broker=here.broker.public, key=here.shares)
        taken = page.taken(recall.manifest)
        if len(taken) > MAX_TAKEN:
            raise WrongEpoch(f"{len(taken)} slots are given, more than an account can hold", hint=TOO_MANY)
        withdrawn = page.withdrawn(recall.manifest, owner.name)
        if len(withdrawn) > MAX_WITHDRAWN:
            raise WrongEpoch(f"{len(withdrawn)} withdrawals are known, more than an account can hold", hint=TOO_MANY)
        restored = page.uncounted(recall.manifest)
        page.recall(recall.manifest)
    made = Recalled.make(
        enrolment,
        share,
        taken,
        broker=here.broker.public,
        owner=owner.encryption_key,
        withdrawn=withdrawn,
        restored=restored,
    )
    return made.sign(here.broker)


def hear(envelope: Envelope, proposal: Proposal, *, here: Owner, book: HolderBook) -> Word:
    """Take an owner's word of a contract.

    Args:
        envelope: a word, untrusted.
        proposal: the contract's, untrusted: its digest is what the word names.
        here, book: as of :func:`take`.

    Raises:
        NotPinned, PinMismatch, NotAParty, BadSignature, BadEnvelope, WireError. BadField: of another contract.
    """
    said = Word.peek(envelope)
    word = Word.verify(envelope, _pinned(proposal, said.party, here).signing_key)
    if word.contract != proposal.digest:
        raise BadField("word.contract is another contract")
    with book.transaction() as page:
        page.hear(word, envelope)
    return word


def hear_grant(envelope: Envelope, proposal: Proposal, party: str, *, here: Owner, book: HolderBook) -> Grant:
    """Take an owner's grant of more runs.

    Args:
        envelope: a grant, untrusted.
        proposal: the contract's, untrusted.
        party: who is said to have signed it.
        here, book: as of :func:`take`.

    Raises:
        NotPinned, PinMismatch, NotAParty, BadSignature, BadEnvelope, WireError. BadField: another contract's or party's.
    """
    _pinned(proposal, party, here)
    grant = Grant.verify(envelope, proposal)
    if grant.party != party:
        raise BadField("grant.party is another party")
    with book.transaction() as page:
        page.hear_grant(grant, envelope)
    return grant


def _pinned(proposal: Proposal, name: str, here: Owner) -> Party:
    party = proposal.party(name)
    here.trust.check([party])
    return party
