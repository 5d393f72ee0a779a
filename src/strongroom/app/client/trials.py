"""What the proposer's code did on the mocks: sent along with the proposal, shown as a claim, compared by reviewers.

    tried = room.try_(analysis, inputs={"census": room.assets["census"]}, outputs={"mean": "values"})
    room.submit(analysis, inputs={"census": "office/census"}, outputs={"mean": "values:lab"}, tried=tried)

Only what was tried on the very mocks that the owners signed can be sent along: of anything else the outputs could be of data
that are nobody else's business, and no reviewer could compare them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strongroom import wire
from strongroom.errors import StrongroomError, Usage
from strongroom.trial import MAX_LOG, MAX_TRIAL_BYTES, MAX_WHY, Trial, fitting

from . import approvers
from .home import read, reading, write

if TYPE_CHECKING:
    from strongroom.asset import Manifest
    from strongroom.contract import Proposal

    from .analysis import Tried
    from .room import Room

SAME, DIFFERENT = "same", "different"


def trial_of(tried: Tried) -> Trial:
    """A try as it can be sent along. Raises Usage: it is of no code."""
    if not tried.parameters:
        raise Usage("that is no try of code", hint="Take what room.try_ answered.")
    return Trial(
        bundle=tried.parameters["bundle"],
        parameters=_digest(tried.parameters),
        inputs=dict(tried.inputs),
        outputs=fitting({name: (tried.kinds[name], data) for name, data in tried.outputs.items()}),
        refused={name: why[:MAX_WHY] for name, why in tried.refused.items()},
        failure=tried.failure,
        log=tried.log[-MAX_LOG:],
    )


def keep(tried: Tried, path: Path) -> Trial:
    """Write a try to a file, for ``submit --tried``."""
    found = trial_of(tried)
    write(path, found.encode())
    return found


def load(tried: Tried | Path | str) -> Trial:
    """What to send along: a try, or a file of one. Raises NotFound, WireError leaves, Usage."""
    if isinstance(tried, Path | str):
        with reading(Path(tried)):
            return Trial.parse(read(Path(tried), max_bytes=MAX_TRIAL_BYTES))
    return trial_of(tried)


def require(trial: Trial, parameters: Mapping[str, Any], assets: Mapping[str, Manifest]) -> None:
    """Refuse to send along what is of other code, or of other data than the mocks that everybody may see.

    Args:
        trial: what was tried.
        parameters: the program's, as they are to be proposed.
        assets: manifests by role.

    Raises:
        Usage.
    """
    if (trial.bundle, trial.parameters) != (parameters["bundle"], _digest(parameters)):
        raise Usage(
            "what was tried is other code, or the same with other inputs, arguments or outputs", hint="Try it again."
        )
    if trial.inputs != mocks_of(assets):
        raise Usage(
            "it was tried on other data than the mocks that the owners signed, and those stay with you",
            hint="Try it on the assets: room.try_(..., inputs={ROLE: room.assets[NAME]}), or --input ROLE=OWNER/NAME",
        )


def mocks_of(assets: Mapping[str, Manifest]) -> dict[str, str]:
    """Digests of mocks, by role, of the assets that have one."""
    return {role: m.mock.digest for role, m in assets.items() if m.mock is not None}


def _digest(parameters: Mapping[str, Any]) -> str:
    # who hears how far it is changes nothing of what it does
    return wire.digest(wire.encode({name: value for name, value in parameters.items() if name != "progress"}))


# --- what a reviewer sees ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Claim:
    """What a proposal's proposer says that the code did.

    Attributes:
        by: the proposer.
        trial: what is claimed; ``None`` where it cannot be had.
        doubts: what about it is not as it should be, in words.
    """

    by: str
    trial: Trial | None
    doubts: tuple[str, ...]


def claim_of(room: Room, proposal: Proposal) -> Claim | None:
    """The claim that travels with a proposal; ``None`` where none does."""
    if proposal.trial is None:
        return None
    try:
        trial = room.exchange.trial(proposal.trial)
    except StrongroomError as error:
        return Claim(proposal.proposer, None, (f"{error.message} ({error.code})",))
    doubts = []
    parameters = proposal.program.parameters
    if (trial.bundle, trial.parameters) != (parameters.get("bundle"), _digest(parameters)):
        doubts.append("it is of other code, or of other parameters, than are proposed")
    try:
        if trial.inputs != mocks_of(approvers.manifests_of(room, proposal)):
            doubts.append("it was made on other data than the mocks that the owners signed")
    except StrongroomError as error:
        doubts.append(f"on which data it was made cannot be said: {error.message} ({error.code})")
    unknown = (set(trial.outputs) | set(trial.refused)) - {output.name for output in proposal.outputs}
    if unknown:
        doubts.append(f"it has outputs that are not proposed: {', '.join(sorted(unknown))}")
    return Claim(proposal.proposer, trial, tuple(doubts))


def compare(trial: Trial, tried: Tried) -> dict[str, str]:
    """Of every output that either has: whether what was claimed is what the code did here, ``same`` or ``different``."""
    mine = {name: wire.digest(data) for name, data in tried.outputs.items()}
    theirs = {name: shown.digest for name, shown in trial.outputs.items()}
    names = sorted({*mine, *theirs, *tried.refused, *trial.refused})
    return {
        name: SAME if _fate(name, mine, tried.refused) == _fate(name, theirs, trial.refused) else DIFFERENT for name in names
    }


def _fate(name: str, left: Mapping[str, str], refused: Mapping[str, str]) -> tuple[bool, str | None]:
    return name in refused, left.get(name)


__all__ = ["DIFFERENT", "SAME", "Claim", "claim_of", "compare", "keep", "load", "mocks_of", "require", "trial_of"]
