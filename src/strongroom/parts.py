"""What shows that enough brokers gave their shares of a key: the releases of shares, as a receipt or a batch brings them.

The owner's enrolment says who holds which share. There are exactly as many releases as it takes, in the order of their
shares, of one slot and epoch, each signed by the broker that holds the share.

See ``spec/threshold.md``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from .errors import StrongroomError
from .release import Part, ReleaseStatement

if TYPE_CHECKING:
    from .contract import AssetRef, Contract
    from .party import VerifyKey
    from .threshold import Enrolment
    from .wire import Envelope


def enrolled(envelopes: tuple[Envelope, ...], contract: Contract, wrong: type[StrongroomError]) -> dict[str, Enrolment]:
    """The enrolments of a contract's assets whose keys were shared, by role.

    Args:
        envelopes: untrusted, in the order of the contract's assets; those without one were not shared.
        contract: completely signed.
        wrong: what is raised of enrolments of no asset, or in another order.

    Raises:
        wrong; BadSignature, BadEnvelope, BadEnrolment, BadKey, WireError.
    """
    if not envelopes:
        return {}
    from .threshold import ENROLMENT_TYPE, Enrolment  # noqa: PLC0415 - what most receipts have nothing of

    found: dict[str, Enrolment] = {}
    left = list(envelopes)
    for ref in contract.proposal.assets:
        if left and Enrolment.parse(left[0].expect(ENROLMENT_TYPE)).manifest == ref.manifest:
            key = contract.proposal.party(ref.owner).signing_key
            found[ref.role] = Enrolment.verify(left.pop(0), manifest=ref.manifest, owner=ref.owner, key=key)
    if left:
        raise wrong("there are enrolments of no asset of the contract, or not in their order")
    return found


def wanted(contract: Contract, shared: Mapping[str, Enrolment]) -> list[AssetRef]:
    """The contract's assets, each as often as its key takes releases."""
    return [ref for ref in contract.proposal.assets for _ in range(shared[ref.role].threshold if ref.role in shared else 1)]


def released(
    envelope: Envelope, enrolment: Enrolment | None, broker: VerifyKey, wrong: type[StrongroomError]
) -> ReleaseStatement:
    """A release by the owner's broker, or of a share by the holder of that share.

    Args:
        envelope: untrusted.
        enrolment: of the asset, verified; ``None`` where its key was not shared.
        broker: the owner's broker.
        wrong: what is raised of another's release, or of another share.

    Raises:
        wrong; BadSignature, BadEnvelope, BadRelease, WireError.
    """
    if enrolment is None:
        release = ReleaseStatement.verify(envelope, broker)
        if release.part is not None:
            raise wrong("a release of a share of a key that was not shared")
        return release
    signers = [h.broker_key for h in enrolment.holders if [s.keyid for s in envelope.signatures] == [h.broker_key.keyid]]
    if not signers:
        raise wrong("a share's release is by no broker that holds one")
    release = ReleaseStatement.verify(envelope, signers[0])
    part = release.part
    if part is None or (part.epoch, part.index) != (enrolment.epoch, enrolment.index(signers[0])):
        raise wrong("a broker released another share than it holds")
    return release


def require_one_slot(
    shared: Mapping[str, Enrolment], releases: Iterable[ReleaseStatement], wrong: type[StrongroomError]
) -> None:
    """Require of each shared asset that its releases are by different holders, sorted, of one slot. Raises ``wrong``."""
    every = list(releases)
    for role, enrolment in shared.items():
        found: list[Part] = [r.part for r in every if r.part is not None and r.manifest == enrolment.manifest]
        indices = [part.index for part in found]
        if indices != sorted(set(indices)) or len({part.slot for part in found}) != 1:
            raise wrong(f"the shares of {role!r} are not of one slot, each holder's once")
