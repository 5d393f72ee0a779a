"""How far a program is, as much of it as its contract agreed that others hear: counts or shares, and nothing between.

See ``spec/run.md``.
"""

from __future__ import annotations

from collections.abc import Callable

from strongroom.contract import Contract
from strongroom.programs import code, evaluate_llm


def counted(contract: Contract, told: Callable[[str], None]) -> Callable[[str, int], None] | None:
    """Tells how far the program is, each time that the contract agreed on; ``None`` where it agreed on no time, or that
    times are told less finely.

    Args:
        contract: whose program says how far it is, in thousandths.
        told: called with the count or the share, in words.
    """
    program, observed = contract.proposal.program, contract.proposal.policy.observed
    if program.name == evaluate_llm.NAME and observed is None:
        return _questions(evaluate_llm.read(program.parameters), told)
    # when a share is reached is a time; where that of the end is told less finely, so would this have to be
    if program.name == code.NAME and contract.proposal.policy.observation.duration_s == 1:
        return _shares(code.read(program.parameters).progress, told)
    return None


def hear(contract: Contract) -> frozenset[str]:
    """The parties that hear how far the program is: every one where the program counts questions, and of submitted code
    those alone that the contract names."""
    proposal = contract.proposal
    everybody = frozenset(party.name for party in proposal.parties)
    if proposal.program.name != code.NAME:
        return everybody
    agreed = code.read(proposal.program.parameters).progress
    return frozenset() if agreed is None else everybody & set(agreed.parties)


def _questions(agreed: evaluate_llm.Parameters, told: Callable[[str], None]) -> Callable[[str, int], None] | None:
    told_last = 0

    def on_progress(step: str, permille: int) -> None:
        # Whatever the child says, no more leaves than which multiple of what was agreed is reached.
        nonlocal told_last
        count = permille * agreed.questions // 1000 // agreed.progress * agreed.progress
        if step == "ask" and told_last < count < agreed.questions:
            told_last = count
            told(f"{count:,} of {agreed.questions:,} questions")

    return on_progress if agreed.progress else None


def _shares(agreed: code.Progress | None, told: Callable[[str], None]) -> Callable[[str, int], None] | None:
    if agreed is None:
        return None
    told_last = 0

    def on_progress(step: str, permille: int) -> None:
        # The same: the code chooses when, of so many moments, and nothing else.
        nonlocal told_last
        begins, ends = code.BEGINS, code.ENDS
        done = (permille - begins) * agreed.steps // (ends - begins)
        if step == "program" and told_last < done < agreed.steps:
            told_last = done
            told(f"{done} of {agreed.steps} parts")

    return on_progress
