"""Output rules: what a program wrote goes in, untrusted; what may leave the enclave comes out, or a refusal.

One kind of output, one module. Applying a rule twice is applying it once. See ``spec/output.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from strongroom.errors import OutputRefused, WireError
from strongroom.policy import OutputRule

from .log import log
from .picture import MAX_PIXEL_BYTES, MAX_SIDE, picture
from .records import records
from .refusing import refuse
from .report import REPORT_FORMAT, SEVERAL, report

_RULES: Final[Mapping[str, Callable[[OutputRule, bytes], bytes]]] = {
    "log": log,
    "picture": picture,
    "records": records,
    "report": report,
}


def enforce(kind: str, rule: OutputRule, data: bytes) -> bytes:
    """Apply an output's rule to what the program wrote.

    Args:
        kind: one of the policy's output kinds.
        rule: as agreed. Its recipients are for the delivery.
        data: what the program wrote: untrusted.

    Returns:
        what may leave: for a report RFC 8785 canonical JSON (with decimal places), for a picture a PNG without metadata, for
        records a CSV, for a log text without control characters.

    Raises:
        OutputRefused: too large, malformed, or of a kind that cannot honour the rule. Nothing of it may leave.
    """
    if kind not in _RULES:
        refuse("there is no rule for this kind of output")
    if len(data) > rule.max_bytes:
        refuse(f"the {kind} is larger than {rule.max_bytes} bytes")
    try:
        found = _RULES[kind](rule, data)
    except WireError:
        # Its message may quote the program's bytes.
        raise OutputRefused(f"the {kind} is not of its form") from None
    if len(found) > rule.max_bytes:
        refuse(f"the {kind} is larger than {rule.max_bytes} bytes once its rule is applied")
    return found


__all__ = ["MAX_PIXEL_BYTES", "MAX_SIDE", "REPORT_FORMAT", "SEVERAL", "enforce"]
