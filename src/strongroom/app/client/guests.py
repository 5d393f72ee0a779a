"""Contracts for confidential containers, which are no enclaves of ours: proposing one, and asking brokers to let guests run.

A guest brings no party's word with it, as an enclave of ours does. So a party brings it to the brokers before: one signed
request for each run that a guest may have.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom import wire
from strongroom.app.http import Client
from strongroom.contract import MAX_QUEUED_SECONDS, AssetRef, EnclaveTerms, Limits, Proposal, RunRequest, guest_program
from strongroom.errors import NotForGuests, StrongroomError, Usage
from strongroom.policy import GUEST, Policy

from .approvers import joined, require
from .draft import DAY
from .room import fresh

if TYPE_CHECKING:
    from strongroom.asset import Manifest
    from strongroom.attest.evidence import Measurement

    from .room import Room

MAX_RUNS = 100  # asked for at once


@dataclass(frozen=True, slots=True)
class Expected:
    """What brokers were asked to let guests have.

    Attributes:
        addresses: of each asset the role, its owner's broker, and the address under which a guest asks for its key.
        until: the last second at which the runs may begin, Unix.
        missed: owners whose brokers did not take it, and why.
    """

    addresses: tuple[tuple[str, str, str], ...]
    until: int
    missed: Mapping[str, str]


def resource(contract: str, manifest: str) -> str:
    """The address of an asset's key, as guests are configured with it. Both are digests."""
    return f"kbs:///{contract.removeprefix('sha256:')}/{manifest.removeprefix('sha256:')}/key"


def propose(
    room: Room, title: str, assets: Mapping[str, Manifest], measurements: Collection[Measurement], *, runs: int, days: int
) -> Proposal:
    """Propose that guests of these measurements get the keys of these assets, and sign as proposer.

    Args:
        room: the proposer at work.
        assets: role -> manifest.
        measurements: what may run; all of it trusted here.
        runs: how many guests may have the keys.
        days: how long it stands.

    Raises:
        Usage: nothing to run, something that is not trusted here, or an owner who is not pinned.
        NotPermitted, ApproverMissing.
    """
    trust, at = room.trust, int(time.time())
    found = tuple(sorted(set(measurements), key=lambda m: m.encode()))
    if not found or not set(found) <= set(trust.measurements):
        raise Usage(
            "a measurement is not trusted here",
            hint="Accept it first: strongroom party trust --reference FILE",
        )
    pinned = {p.name: p for p in trust.parties}
    names = {room.name} | {m.owner for m in assets.values()}
    names |= joined(assets, names, room.name)
    if strangers := names - set(pinned):
        raise Usage(f"{min(strangers)!r} is not pinned", hint="Pin its card first: strongroom party trust CARD")
    new = Proposal(
        title=title,
        nonce=fresh(16).hex(),
        proposer=room.name,
        supersedes=None,
        created_at=at,
        not_before=at,
        not_after=at + days * DAY,
        parties=tuple(pinned[n] for n in sorted(names)),
        program=guest_program(found),
        assets=tuple(AssetRef(role, m.owner, m.digest) for role, m in sorted(assets.items())),
        outputs=(),
        enclave=EnclaveTerms(tuple(sorted({m.platform for m in found})), found, "isolated"),
        policy=Policy(uses=frozenset({GUEST})),
        limits=Limits(runs, 60, 1 << 20),
    )
    require(new, assets)
    return room.propose_as_written(new)


def expect(room: Room, digest: str, *, runs: int, seconds: int) -> Expected:
    """Ask every owner's broker to let guests have this many runs of a contract.

    Args:
        room: a party of it at work.
        runs: 1 to 100.
        seconds: for how long they may begin.

    Raises:
        NotForGuests: the contract is for enclaves of ours. Usage: too many, or for too long.
        SignatureMissing and the errors of ``Room.contract``.
    """
    if not 1 <= runs <= MAX_RUNS or not 1 <= seconds <= MAX_QUEUED_SECONDS:
        raise Usage(f"1 to {MAX_RUNS} runs can be asked for at once, for at most {MAX_QUEUED_SECONDS // 3600} hours")
    contract, at = room.contract(digest), int(time.time())
    proposal = contract.proposal
    if not proposal.for_guests:
        raise NotForGuests(f"{proposal.title!r} is for enclaves that run {proposal.program.name}")
    asked = [RunRequest(digest, room.name, fresh(16).hex(), at, at + seconds) for _ in range(runs)]
    signed = [one.sign(room.home.keys.signing) for one in asked]
    missed = {}
    for owner in sorted({a.owner for a in proposal.assets}):
        try:
            with closing(Client(proposal.party(owner).broker_url, timeout=10)) as client:
                for run in signed:
                    body = {"contract": contract.envelope.to_json(), "run": run.to_json()}
                    client.post("/v1/guests", wire.encode(body))
        except StrongroomError as error:
            missed[owner] = f"{error.code}: {error.message}"
    addresses = [(a.role, proposal.party(a.owner).broker_url, resource(digest, a.manifest)) for a in proposal.assets]
    return Expected(tuple(addresses), at + seconds, missed)
