"""What a reader makes of an inference receipt: the checks I1 to I20, and for which reader which of them must have passed.

A client knows the bytes that it sent and received; an owner knows the contract and the log. What a reader does not know is
*not established*, and :meth:`Verification.require` says whether the reader may rely on the receipt all the same.

See ``spec/inference-receipt.md``; the numbers of the checks are the same there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import InitVar, dataclass
from enum import Enum

from strongroom.attest.result import AttestationResult
from strongroom.checkpoint import LogVerifier, VerifiedCheckpoint
from strongroom.errors import InferenceNotVerified, StrongroomError
from strongroom.ledger import LoggedProof
from strongroom.transcript import Check, Status, Transcript

from .expected import Expected
from .reading import CHECKS, GATE, STEPS, Reading, Unknown
from .receipt import InferenceReceipt

_MAKER = object()


class Reader(Enum):
    """Who relies on a receipt, and on which checks. A check that failed is everybody's: none of them relies on it then."""

    CLIENT = frozenset(f"I{n}" for n in range(1, 20))
    """Who sent the request: everything but the log, which does not hold a receipt the moment that it is made."""
    OWNER = frozenset(f"I{n}" for n in (*range(1, 7), 11, 13, 14, 15, 16, 20))
    """Who is paid by the token and never saw a request: the contract, the policy, the usage, and that it was logged."""
    AUDITOR = frozenset(number for number, _ in STEPS)
    """Who was given everything."""


@dataclass(frozen=True, slots=True)
class VerifiedReceipt:
    """A receipt that passed every check that its reader relies on. Made by :meth:`Verification.require` alone.

    Attributes:
        receipt: what the enclave signed.
        reader: for whom it was verified.
        label: how to name the platform to people (``platform: simulated (no hardware protection)``).
        transcript: the numbered checks.
        checkpoint: the log's head that holds it; ``None`` where that is not established.
    """

    receipt: InferenceReceipt
    reader: Reader
    label: str
    transcript: Transcript
    checkpoint: VerifiedCheckpoint | None
    maker: InitVar[object]  # not a field, so that dataclasses.replace() cannot carry it over

    def __post_init__(self, maker: object) -> None:
        if maker is not _MAKER:
            raise TypeError("only Verification.require() makes a VerifiedReceipt")


@dataclass(frozen=True, slots=True)
class Verification:
    """What :func:`examine` saw. Made by it alone.

    Attributes:
        transcript: I1 to I20.
        receipt: what was read, **untrusted**; ``None`` where it is no receipt.
        label: how to name the platform to people.
        checkpoint: the log's head that holds the receipt; ``None`` where that is not established.
    """

    transcript: Transcript
    receipt: InferenceReceipt | None
    label: str
    checkpoint: VerifiedCheckpoint | None
    maker: InitVar[object]

    def __post_init__(self, maker: object) -> None:
        if maker is not _MAKER:
            raise TypeError("only examine() makes a Verification")

    def problem(self, reader: Reader) -> Check | None:
        """The first check that failed, whosever it is; else the first of the reader's that is not established."""
        checks = self.transcript.checks
        failed = (check for check in checks if check.status is Status.FAILED)
        missing = (check for check in checks if check.status is not Status.PASSED and check.number in reader.value)
        return next(failed, None) or next(missing, None)

    def require(self, reader: Reader) -> VerifiedReceipt:
        """The receipt, if this reader may rely on it.

        Raises:
            InferenceNotVerified: with the first check that stands in the way.
        """
        problem = self.problem(reader)
        if problem is not None:
            said = f"{problem.number} {problem.name}: {problem.status.value}; {problem.detail}"
            raise InferenceNotVerified(said, reason=problem.code)
        assert self.receipt is not None  # I1 is everybody's
        return VerifiedReceipt(self.receipt, reader, self.label, self.transcript, self.checkpoint, _MAKER)


def examine(
    data: bytes,
    *,
    appraisal: AttestationResult | None,
    expected: Expected,
    at: int,
    proof: LoggedProof | None = None,
    logs: Iterable[LogVerifier] = (),
) -> Verification:
    """Look at a receipt and write down every check, whatever it shows; :meth:`Verification.require` is what decides.

    Where one of I1 to I6 does not pass, nothing after it is looked at: nobody is known to have said it. Of the others each
    is made by itself. Bytes never make it raise.

    Args:
        data: untrusted; the receipt in its canonical spelling.
        appraisal: of the enclave's evidence, by this reader; ``None`` where there is none.
        expected: what the reader knows of its own.
        at: now, unix seconds.
        proof: untrusted; where a log holds the receipt.
        logs: the logs in the reader's own trust file.
    """
    transcript = Transcript(STEPS)
    reading = Reading(data, appraisal, expected, at, proof, tuple(logs))
    reached = True
    for n, ((number, _), (check, kind)) in enumerate(zip(STEPS, CHECKS, strict=True), 1):
        if not reached:  # written down too, so that nobody adds to the transcript later
            transcript.record(number, None, "not reached", code=kind.code)
            continue
        try:
            passed = transcript.record(number, passed=True, detail=check(reading))
        except Unknown as unknown:
            passed = transcript.record(number, None, str(unknown), code=kind.code)
        except StrongroomError as error:
            passed = transcript.record(number, passed=False, detail=error.message, code=error.code)
        reached = passed or n > GATE
    label = appraisal.label if appraisal else "platform: not established"
    return Verification(transcript, reading.read, label, reading.checkpoint, _MAKER)


__all__ = [
    "STEPS",
    "Reader",
    "Verification",
    "VerifiedReceipt",
    "examine",
]
