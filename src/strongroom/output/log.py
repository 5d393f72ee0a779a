"""Logs: free text, without what a terminal obeys. It cannot be grouped, so a rule that asks for groups refuses it.

See ``spec/output.md``.
"""

from __future__ import annotations

from strongroom.policy import OutputRule

from .refusing import refuse_groups


def log(rule: OutputRule, data: bytes) -> bytes:
    refuse_groups("a log", rule.min_group)
    text = data.decode("utf-8", "replace")
    # Terminals obey control characters.
    clean = "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
    return clean.encode()[: rule.max_bytes].decode("utf-8", "ignore").encode()
