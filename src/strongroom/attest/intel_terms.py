"""What a policy asks of any of Intel's processors: how current its TCB is, and what is tolerated until when.

See ``spec/evidence-intel.md``, T1 to T3 and X1 to X3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from strongroom.errors import BadField
from strongroom.wire import Fields

from .evidence import FOREVER
from .intel import Processor, named
from .intel_collateral import TcbStatus
from .vector import AFFIRMED, UNACCEPTABLE

MAX_ADVISORIES = 1024
DEFAULT_FLOOR = 17  # the evaluation number of 2025's first TCB recovery; a policy says a later one
DEFAULT_STATUSES = frozenset({TcbStatus.UP_TO_DATE})
KNOWN_VULNERABLE = 32  # of hardware: genuine, with known vulnerabilities (AR4SI)

_ADVISORY = re.compile(r"INTEL-[A-Z]{2,8}-\d{1,8}\Z", re.ASCII)

Answer = tuple[bool, str]  # whether a check passed, and what was seen


def check_tcb_terms(where: str, statuses: frozenset[TcbStatus], advisories: Mapping[str, int], floor: int) -> None:
    """Raises BadField: a revoked TCB named as acceptable, what is no advisory, or numbers out of bounds."""
    if TcbStatus.REVOKED in statuses:
        raise BadField(f"{where}.statuses names {TcbStatus.REVOKED}, which nothing can make acceptable")
    if not all(isinstance(status, TcbStatus) for status in statuses):
        raise BadField(f"{where}.statuses names what is no status")
    if len(advisories) > MAX_ADVISORIES or not all(_ADVISORY.match(one) and until >= 0 for one, until in advisories.items()):
        raise BadField(f"{where}.advisories has more than {MAX_ADVISORIES} members, or one that is no advisory of Intel's")
    if not 0 <= floor <= 0xFFFF:
        raise BadField(f"{where}.tcb_evaluation_floor is not a number from 0 to 65535")


def read_statuses(f: Fields) -> frozenset[TcbStatus]:
    """The member ``statuses``. Raises BadField."""
    known = tuple(TcbStatus)

    def one(value: object) -> TcbStatus:
        return TcbStatus(Fields({"status": value}, "terms.statuses").text("status", choices=known))

    return frozenset(f.items("statuses", one, high=len(known)))


def read_advisories(f: Fields) -> dict[str, int]:
    """The member ``advisories``: an advisory to the last second at which it is tolerated, unix. Raises BadField."""
    value = f.any("advisories")
    read = Fields(value, "terms.advisories")
    return {one: read.integer(one) for one in value}


def judge_tcb(
    processor: Processor,
    statuses: frozenset[TcbStatus],
    advisories: Mapping[str, int],
    floor: int,
    at: int,
) -> tuple[Answer, Answer, Answer]:
    """Status, advisories and evaluation number: whether each is as the terms ask, and what was seen."""
    tcb = processor.tcb
    late = sorted({one.id for one in tcb.advisories if at > advisories.get(one.id, -1)})
    seen = f"not tolerated at {at}: {', '.join(late)}" if late else named(tcb.advisories)
    now = "" if tcb.now in {None, tcb.status} else f", now {tcb.now}"
    return (
        (tcb.status in statuses and (_current(tcb.now) or tcb.now in statuses), f"{tcb.status}{now}, levels of {tcb.date}"),
        (not late, seen),
        (processor.evaluation >= floor, f"evaluation {processor.evaluation}, floor {floor}"),
    )


def tolerated_until(processor: Processor, advisories: Mapping[str, int]) -> int:
    """The last second at which every advisory is tolerated; ``FOREVER`` where there is none."""
    return min((advisories.get(one.id, -1) for one in processor.tcb.advisories), default=FOREVER)


def _current(now: TcbStatus | None) -> bool:
    """Whether nothing is to be said of what the machine has now."""
    return now in {None, TcbStatus.UP_TO_DATE}


def hardware(processor: Processor, *, accepted: bool) -> int:
    """What to claim of the hardware (AR4SI, section 2.3.4): current; vulnerable, and tolerated; or not accepted."""
    if not accepted:
        return UNACCEPTABLE
    tcb = processor.tcb
    current = tcb.status is TcbStatus.UP_TO_DATE and _current(tcb.now) and not tcb.advisories
    return AFFIRMED if current else KNOWN_VULNERABLE
