"""Who must approve beside an asset's owner: named by its owner, asked by the proposer, and counted for everybody to see.

An owner's terms name people by name and key (``spec/manifest.md``). They approve as parties of the proposal do. What is
missing is said before anything is signed; the owner's broker decides in the end.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from strongroom.asset import Manifest, verify_manifest
from strongroom.asset.approvers import Approver, Quorum
from strongroom.errors import ApproverMissing, ManifestMismatch, StrongroomError, Usage

from .prose import Clause

if TYPE_CHECKING:
    from strongroom.contract import AssetRef, Proposal

    from .room import Room


def read(room: Room, said: Iterable[str]) -> tuple[Quorum, ...]:
    """Approvers as an owner says them: ``NAME,NAME`` for all of these, ``N:NAME,NAME`` for so many of them.

    Raises:
        Usage: it has another form, or somebody is not pinned here. BadField: somebody is named twice.
    """
    cards = {p.name: p for p in room.trust.parties}
    found = []
    for text in said:
        count, sign, names = text.rpartition(":")
        of = [name for name in names.split(",") if name]
        if not of or (sign and not (count.isascii() and count.isdigit() and len(count) < 4)):
            raise Usage(f"{text!r} is not NAME,NAME or N:NAME,NAME", hint="Two of three reviewers: 2:ann,ben,cas")
        strangers = [name for name in of if name not in cards]
        if strangers:
            raise Usage(f"{strangers[0]!r} is not pinned", hint="Pin its card first: strongroom party trust CARD")
        named = tuple(Approver(name, cards[name].signing_key.keyid) for name in sorted(of))
        found.append(Quorum(int(count) if sign else len(named), named))
    return tuple(sorted(found, key=lambda quorum: quorum.of[0].name))


def joined(assets: Mapping[str, Manifest], names: Collection[str], proposer: str) -> set[str]:
    """Who has to become a party of a proposal so that it can be approved; those among whom there is a choice are not chosen.

    Args:
        assets: by role.
        names: who is a party anyway.
        proposer: whose own approval does not count.

    Raises:
        ApproverMissing: the proposer has to choose, or there are not enough others.
    """
    found: set[str] = set()
    for role, manifest in sorted(assets.items()):
        for quorum in manifest.approvers:
            able = {a.name for a in quorum.of} - {proposer}
            if len(able & set(names)) >= quorum.at_least:
                continue
            if len(able) < quorum.at_least:
                raise ApproverMissing(
                    f"{quorum} must approve what uses {role!r}, and {proposer} proposes it",
                    hint="Nobody approves their own proposal: let another party propose it.",
                )
            if len(able) > quorum.at_least:
                hint = f"Say which: {' '.join(f'--among {name}' for name in sorted(able)[: quorum.at_least])}"
                raise ApproverMissing(f"{quorum} must approve what uses {role!r}", hint=hint)
            found |= able
    return found


def require(proposal: Proposal, manifests: Mapping[str, Manifest]) -> None:
    """Refuse before anybody signs what no broker would release to, however many sign.

    Raises:
        ApproverMissing: whom an asset's terms name is no party, or under another key than there.
    """
    approvals = proposal.approvals(p.name for p in proposal.parties)
    for role, manifest in sorted(manifests.items()):
        for line in manifest.lacking(approvals):
            other = [a.name for q in manifest.approvers for a in q.of if approvals.get(a.name, a.keyid) != a.keyid]
            why = f" ({', '.join(other)}: a party under another key than {manifest.owner} named)" if other else ""
            raise ApproverMissing(f"the terms of {role!r}: {line}{why}")


def manifest_of(room: Room, proposal: Proposal, ref: AssetRef) -> Manifest:
    """An asset's manifest as its owner signed it. Raises ManifestMismatch, NotFound, BadSignature."""
    held = room.home.book.held(ref.manifest) if ref.owner == room.name else None
    key = proposal.party(ref.owner).signing_key
    envelope = held.manifest if held is not None else room.exchange.manifest(ref.manifest, key.keyid)
    found = verify_manifest(envelope, key).manifest
    if (found.digest, found.owner) != (ref.manifest, ref.owner):
        raise ManifestMismatch(f"the exchange shows another manifest for {ref.role!r}")
    return found


def manifests_of(room: Room, proposal: Proposal) -> dict[str, Manifest]:
    """Every asset's manifest by its role. Raises as :func:`manifest_of`."""
    return {ref.role: manifest_of(room, proposal, ref) for ref in proposal.assets}


def standing(room: Room, proposal: Proposal, signed: Collection[str]) -> list[Clause]:
    """Who of those whom the assets' terms name has approved, and who has not, in words.

    Args:
        room: who asks.
        proposal: whose parties are pinned here.
        signed: the parties whose signatures were verified.
    """
    found = []
    for ref in proposal.assets:
        about = f"must approve, {ref.role}"
        try:
            quorums = manifest_of(room, proposal, ref).approvers
        except StrongroomError as error:
            found.append(Clause(about, f"cannot be said: {error.message} ({error.code})"))
            continue
        found += [Clause(about, text) for text in words(quorums, proposal, signed)]
    return found


def words(quorums: Sequence[Quorum], proposal: Proposal, signed: Collection[str]) -> list[str]:
    """One sentence for each group: how many, who has and who has not."""
    approvals = proposal.approvals(signed)
    possible = proposal.approvals(p.name for p in proposal.parties)
    found = []
    for quorum in quorums:
        there = quorum.approved(approvals)
        each = ", ".join(f"{a.name} {_has(a, there, proposal, possible)}" for a in quorum.of)
        enough = "enough" if len(there) >= quorum.at_least else f"{quorum.at_least - len(there)} missing"
        found.append(f"{quorum}: {each}; {enough}")
    return found


def _has(who: Approver, there: Collection[str], proposal: Proposal, possible: Mapping[str, str]) -> str:
    if who.name in there:
        return "has"
    if who.name == proposal.proposer:
        return "proposed it, which does not count"
    if who.name not in possible:
        return "is no party to it"
    return "has not" if possible[who.name] == who.keyid else "is there under another key, which does not count"


__all__ = ["joined", "manifest_of", "manifests_of", "read", "require", "standing", "words"]
