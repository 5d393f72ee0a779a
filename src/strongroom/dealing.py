"""The owner's side of shared keys: deal shares out, call them in, deal anew.

Dealing anew is one thing with three names: to *refresh* (the same brokers), to *replace* a lost broker (other cards), and to
change ``t`` and ``n``. In each the owner recalls the shares of the epoch that ends, which takes ``t`` brokers, and deals the
next. **Old shares stay shares of the same key**: whoever kept ``t`` of one epoch opens what was sealed under it. Where that
is to be feared, the asset is sealed anew under another key.

See ``spec/threshold.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .asset import AssetKey, Manifest, verify_manifest
from .errors import StrongroomError, TooFewShares, WrongEpoch
from .holding import MAX_WITHDRAWN, TOO_MANY, Deal, Recalled, Taken, Withdrawn, together
from .party import DecryptionKey, PartyKeys
from .threshold import Enrolment, Holder, HolderCard, Share, combine, split
from .wire import Envelope


@dataclass(frozen=True, slots=True)
class Dealt:
    """What an owner publishes and sends. It says nothing to who has no holder's key: it may be kept, and sent again.

    Attributes:
        enrolment: signed; for everybody.
        deals: signed, one for each holder, in the order of their shares.
    """

    enrolment: Envelope
    deals: tuple[Envelope, ...]


def deal(
    key: AssetKey,
    manifest: Envelope,
    *,
    keys: PartyKeys,
    epoch: int,
    threshold: int,
    cards: Sequence[HolderCard],
    taken: tuple[Taken, ...] = (),
    withdrawn: tuple[Withdrawn, ...] = (),
    over: int = 0,
    heard: Mapping[str, int] | None = None,
    entropy: Callable[[int], bytes],
) -> Dealt:
    """Share an asset's key over brokers.

    Args:
        key: the asset's.
        manifest: as its owner signed it.
        keys: the owner's.
        epoch: 1, or one more than the newest that anybody was dealt.
        threshold: how many shares open it.
        cards: the brokers, in the order of their shares.
        taken, withdrawn, over, heard: what :func:`collect` found.
        entropy: n fresh random bytes.

    Raises:
        BadEnrolment, MissingExtra; and as of :func:`verify_manifest`.
    """
    verified = verify_manifest(manifest, keys.signing.public).manifest
    enrolment, shares = split(
        key,
        manifest=verified.digest,
        owner=keys.name,
        epoch=epoch,
        threshold=threshold,
        cards=cards,
        entropy=entropy,
    )
    signed = enrolment.sign(keys.signing)
    known = heard or {}
    deals = tuple(
        Deal.make(
            signed, manifest, share, c, taken, withdrawn=withdrawn, over=over, restored=known.get(c.broker_key.keyid, 0)
        )
        for share, c in zip(shares, cards, strict=True)
    )
    return Dealt(signed, tuple(d.sign(keys.signing) for d in deals))


@dataclass(frozen=True, slots=True)
class Collected:
    """What came of a recall.

    Attributes:
        key: the asset's key.
        taken: every slot that any of the brokers gave.
        withdrawn: every withdrawal that any of them knew.
        over: contracts that had begun then, Unix seconds, are over at every broker of the next epoch: of those that began
            later ``t`` brokers know all that they gave. 0: of all.
        restored: holder's name -> when it lost count, Unix seconds.
        heard: the same by the id of the broker's key, for :func:`deal`.
        bad: holder's name -> what is wrong with its answer.
    """

    key: AssetKey
    taken: tuple[Taken, ...]
    withdrawn: tuple[Withdrawn, ...]
    over: int
    restored: Mapping[str, int]
    heard: Mapping[str, int]
    bad: Mapping[str, StrongroomError]


def collect(
    enrolment: Enrolment, manifest: Manifest, answers: Mapping[int, Envelope], key: DecryptionKey, at: int
) -> Collected:
    """Put a key together of what brokers gave back.

    Where fewer than ``2t - n`` brokers lie, ``taken`` holds the slot of every enclave that ever had ``t`` shares, but for
    contracts that are over by ``over``; and ``withdrawn`` every withdrawal that ``n - t + 1`` honest brokers knew.

    Args:
        enrolment: verified; of the epoch that was recalled.
        manifest: the asset's, verified.
        answers: index -> the account of the broker that holds this share, untrusted.
        key: the owner's own.
        at: when the accounts came, Unix seconds.

    Raises:
        TooFewShares: fewer than ``t`` are good; each other holder is named. WrongEpoch: too many withdrawals are known.
        WrongKey: the shares are of another key. MissingExtra.
    """
    shares: list[Share] = []
    accounts: list[tuple[Taken, ...]] = []
    withdrawn: set[Withdrawn] = set()
    lost: dict[Holder, int] = {}
    bad: dict[str, StrongroomError] = {}
    for index, envelope in sorted(answers.items()):
        try:
            found = Recalled.verify(envelope, enrolment, index, at)
            shares.append(found.open(enrolment, key))
        except StrongroomError as error:
            bad[enrolment.holder(index).name] = error
        else:
            accounts.append(found.taken)
            withdrawn.update(found.withdrawn)
            if found.restored:
                lost[enrolment.holder(index)] = found.restored
    if len(shares) < enrolment.threshold:
        said = "; ".join(f"{name}: {error}" for name, error in bad.items())
        missing = ", ".join(h.name for i, h in enumerate(enrolment.holders, 1) if i not in answers)
        raise TooFewShares(
            f"{len(shares)} of {enrolment.threshold} shares came back"
            + (f"; {said}" if said else "")
            + (f"; no answer of {missing}" if missing else "")
        )
    if len(withdrawn) > MAX_WITHDRAWN:
        raise WrongEpoch(f"{len(withdrawn)} withdrawals are known, more than a dealing can hold", hint=TOO_MANY)
    times = sorted([*lost.values(), *[0] * (len(shares) - len(lost))])
    return Collected(
        key=combine(enrolment, shares, manifest),
        taken=together(accounts),
        withdrawn=tuple(sorted(withdrawn)),
        over=times[enrolment.threshold - 1],  # the others may have lost more, or lie: they are not needed
        restored={h.name: at for h, at in lost.items()},
        heard={h.broker_key.keyid: at for h, at in lost.items()},
        bad=bad,
    )
