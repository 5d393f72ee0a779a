"""Values: JSON of exactly the form that the rule's schema says, rounded, in canonical form.

No text leaves but those that the schema lists. See ``spec/output.md``.
"""

from __future__ import annotations

from typing import cast

import rfc8785

from strongroom import wire
from strongroom.policy import OutputRule
from strongroom.schema import ANY_SCHEMA, KINDS, MAX_LEVELS, MAX_VALUES, Value

from .fitting import fit
from .refusing import refuse, refuse_groups


def values(rule: OutputRule, data: bytes) -> bytes:
    """What leaves: RFC 8785 canonical JSON."""
    refuse_groups("a set of values", rule.min_group)
    schema = rule.schema
    if schema is ANY_SCHEMA or not isinstance(schema, KINDS["values"]):
        refuse("the rule does not say what values may leave", "schema")
    # The schema bounds what leaves. What was written is bounded before it is built: an item may lie in MAX_LEVELS brackets.
    found = wire.loads(data, max_bytes=rule.max_bytes, max_values=MAX_LEVELS * MAX_VALUES)
    return rfc8785.dumps(fit(cast("Value", schema), found, rule.decimals))
