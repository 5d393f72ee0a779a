"""An answer that a client kept, verified again: the service as it was then, and the receipt over what came and went."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from strongroom.app.client.home import reading
from strongroom.contract import Contract
from strongroom.drawing import GRAIN
from strongroom.errors import InferenceNotVerified
from strongroom.inference.events import SourceUsed, UsageMetered
from strongroom.inference.verification import Reader
from strongroom.trust import Trust

from . import appraised
from .proxy import weights_of
from .screen import Screen

if TYPE_CHECKING:
    from strongroom.app.client.answer import Answer
    from strongroom.app.client.session import Session


def answered(args: Namespace, data: bytes, trust: Trust, screen: Screen) -> int:
    """Show E1 to E8 and I1 to I20; the exit status.

    Args:
        args: the file, and the contract that is expected; where none is, the parties of the one in it must all be pinned.
        data: the file's bytes.
        trust: the verifier's own.

    Raises:
        NotJson, BadField: no kept answer. NotPinned, PinMismatch: a party of the contract. StrongroomError: a leaf, of
            the first of E1 to E8 that does not pass.
    """
    from strongroom.app.client.answer import Answer
    from strongroom.app.client.session import Terms

    with reading(args.file):
        answer = Answer.parse(data)
        contract = args.contract or _agreed(answer, trust)
        session = answer.session(Terms(trust=trust, contract=contract, weights=weights_of(args.weights)))
    return _show(args, answer, session, screen)


def _agreed(answer: Answer, trust: Trust) -> str:
    found = Contract.verify(answer.shown.contract)
    trust.check(found.proposal.parties)
    return found.digest


def _called(session: Session, source: str) -> str:
    """What the contract calls a sealed source."""
    known = {digest: agreed.name for model in session.models.values() for digest, agreed in model.sources.items()}
    return known.get(source, source)


def _show(args: Namespace, answer: Answer, session: Session, screen: Screen) -> int:
    found = answer.examine(session)
    if args.evidence:
        screen.heading(f"evidence, at {answer.attested_at}")
        appraised.show(session.appraisal, screen)
    screen.heading("service")
    screen.transcript(session.transcript)
    screen.heading("receipt")
    screen.transcript(found.transcript)
    screen.line()
    receipt = found.receipt
    if receipt is not None:
        metered, refused = receipt.one(UsageMetered), receipt.refused
        screen.said("asked", f"{receipt.endpoint} {receipt.model or '-'}")
        screen.said("outcome", f"refused with {refused.code}" if refused else "answered")
        if metered is not None:
            used = metered.usage
            screen.said("tokens", f"{used.prompt} prompt, {used.completion} completion, {used.embedding} embedding")
        for drew in receipt.every(SourceUsed):
            screen.said(
                "drawn from",
                f"{_called(session, drew.source)}: {drew.weight / GRAIN:,.2f} tokens, {drew.amount:,} {drew.unit}",
            )
    screen.said("", session.label)
    value: dict[str, Any] = {
        "appraisal": session.appraisal.to_json(),
        "checks": found.transcript.to_json(),
        "contract": session.contract.digest,
        "label": session.label,
        "receipt": receipt.to_json() if receipt else None,
        "service": session.transcript.to_json(),
    }
    passed = sum(check.status.value == "passed" for check in found.transcript.checks)
    total = len(found.transcript.checks)
    try:
        found.require(Reader.CLIENT)
    except InferenceNotVerified as error:
        screen.said("receipt", f"NOT VERIFIED: {passed} of {total} checks passed")
        screen.error(error, **value, verified=False)
        return 1
    screen.said("receipt", f"verified: {passed} of {total} checks passed; the log (I20) is no client's to wait for")
    screen.result({**value, "verified": True})
    return 0
