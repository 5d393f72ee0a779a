"""Output rules: what a program wrote goes in, untrusted; what may leave the enclave comes out, or a refusal.

One kind of output, one module. Applying a rule twice is applying it once. See ``spec/output.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Final, cast

from strongroom.errors import MissingExtra, OutputRefused
from strongroom.policy import OUTPUT_KINDS, OutputRule

from .refusing import RULES, refuse

GROUPED: Final = ("report", "table")
"""The kinds whose small groups are suppressed."""


def _applied(kind: str) -> Callable[[OutputRule, bytes], bytes]:
    """What applies a rule to one kind: the function of the kind's name in its module, loaded when it is used, for its
    libraries are those of an enclave. Raises MissingExtra."""
    try:
        module = import_module(f"{__name__}.{kind}")
    except ImportError as error:
        raise MissingExtra(f"applying a rule to a {kind} needs {error.name or 'a library'}") from error
    return cast("Callable[[OutputRule, bytes], bytes]", getattr(module, kind))


def enforce(kind: str, rule: OutputRule, data: bytes) -> bytes:
    """Apply an output's rule to what the program wrote.

    Args:
        kind: one of the policy's output kinds.
        rule: as agreed. Its recipients are for the delivery.
        data: what the program wrote: untrusted.

    Returns:
        what may leave: for a report and for values RFC 8785 canonical JSON (with decimal places), for a picture a PNG of the
        pixels alone, for records a CSV, for a log text without control characters, for a table an Arrow IPC file, for
        tensors a safetensors file; for success always the same.

    Raises:
        OutputRefused: too large, malformed, or of a kind that cannot honour the rule. Nothing of it may leave. It says which
            of ``RULES`` was broken.
        MissingExtra: a library that the kind needs is not installed.
    """
    if kind not in OUTPUT_KINDS:
        refuse("there is no rule for this kind of output")
    if len(data) > rule.max_bytes:
        refuse(f"the {kind} is larger than {rule.max_bytes} bytes", "max_bytes")
    try:
        found = _applied(kind)(rule, data)
    except (OutputRefused, MissingExtra):
        raise
    except Exception:  # noqa: BLE001 - libraries read what a program wrote; a message may quote its bytes
        raise OutputRefused(f"the {kind} is not of its form") from None
    if len(found) > rule.max_bytes:
        refuse(f"the {kind} is larger than {rule.max_bytes} bytes once its rule is applied", "max_bytes")
    return found


def table_rows(data: bytes) -> int:
    """How many rows a table has that went through its rule."""
    found: int = import_module(f"{__name__}.table").rows(data)
    return found


__all__ = ["GROUPED", "RULES", "enforce", "table_rows"]
