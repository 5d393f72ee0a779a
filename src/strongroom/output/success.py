"""Success: that the run completed, and nothing else. The program writes nothing for it, and what leaves is always the same.

See ``spec/output.md``.
"""

from __future__ import annotations

from typing import Final

from strongroom.policy import OutputRule

COMPLETED: Final = b"completed\n"


def success(rule: OutputRule, data: bytes) -> bytes:
    """What leaves: ``completed``, whatever was written."""
    del rule, data
    return COMPLETED
