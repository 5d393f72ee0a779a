"""What tests of platforms share: run one vector, walk one verification, flip bits."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strongroom import wire
from strongroom.attest.evidence import Endorsements, Evidence, Roots, Verifier
from strongroom.attest.vector import TrustVector
from strongroom.errors import AttestationError
from strongroom.transcript import Check, Status, Transcript


@dataclass(frozen=True)
class Outcome:
    """How one verification ended.

    Attributes:
        code: ``ok``, or the code of the first check that did not pass.
        number: of that check, or ``""``.
        checks: the platform's own, then the terms'.
        verified: ``None`` where a check of the platform did not pass.
        vector: likewise.
    """

    code: str
    number: str
    checks: tuple[Check, ...]
    verified: Any = None
    vector: TrustVector | None = None

    def check(self, number: str) -> Check:
        return next(check for check in self.checks if check.number == number)


def walk(
    platform: Verifier,
    evidence: Evidence,
    endorsements: Endorsements,
    roots: Roots,
    at: int,
    terms: Any = None,
) -> Outcome:
    """Verify and judge, as the appraisal does, and hold the module to its protocol."""
    own = Transcript(platform.STEPS)
    raised, verified = "", None
    try:
        verified = platform.verify(evidence, endorsements, roots=roots, at=at, transcript=own)
    except AttestationError as error:
        raised = error.code
    if verified is None:
        coded = [check for check in own.checks if check.code]
        assert [check.code for check in coded] == [raised]  # one check, recorded, and raised
        (failed,) = coded
        assert failed.status is not Status.PASSED
        assert failed.detail
        place = own.checks.index(failed)
        assert all(check.status is Status.PASSED for check in own.checks[:place])
        assert all(check.status is Status.NOT_ESTABLISHED for check in own.checks[place + 1 :])
        return Outcome(raised, failed.number, own.checks)
    assert own.ok
    assert platform.TERMS_STEPS is not None
    asked = Transcript(platform.TERMS_STEPS)
    vector = platform.judge(verified, terms if terms is not None else platform.Terms(), at=at, transcript=asked)
    assert all(check.detail != "not reached" for check in asked.checks)
    problem = asked.first_problem
    checks = (*own.checks, *asked.checks)
    if problem is None:
        return Outcome("ok", "", checks, verified, vector)
    assert problem.code
    return Outcome(problem.code, problem.number, checks, verified, vector)


def run(platform: Verifier, case: dict[str, Any]) -> Outcome:
    """One vector."""
    return walk(
        platform,
        Evidence(case["platform"], wire.unb64(case["evidence"])),
        Endorsements.from_json(case["endorsements"]),
        Roots.from_json(case["roots"]),
        case["at"],
        platform.Terms.from_json(case["terms"]),
    )


def flips(data: bytes, *, sample: int | None = None) -> Iterator[tuple[int, bytes]]:
    """The data with one bit changed, and which: every bit, or a fixed random sample of so many."""
    bits = range(8 * len(data))
    chosen = bits if sample is None else sorted(random.Random(len(data)).sample(bits, min(sample, len(bits))))
    for bit in chosen:
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        yield bit, bytes(flipped)


def accepted_flips(data: bytes, accepts: Callable[[bytes], bool], *, sample: int | None = None) -> list[int]:
    """The bits whose change nobody noticed."""
    return [bit for bit, flipped in flips(data, sample=sample) if accepts(flipped)]


def names_in_page(page: Path, letter: str) -> dict[str, str]:
    """The numbered checks of a page: number and name, from the rows ``| N1 | name | …``."""
    found = {}
    for line in page.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and len(cells) >= 2 and cells[0].rstrip("0123456789") == letter and cells[0][-1].isdigit():
            found[cells[0]] = cells[1]
    return found
