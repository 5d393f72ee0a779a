"""One value against one schema: rounded where it is a number, refused where the schema does not let it through.

See ``spec/output.md``.
"""

from __future__ import annotations

from typing import Any

from strongroom.schema import Array, Boolean, Null, Numeric, Object, OrNull, Text, Value

from .refusing import refuse, rounded


def fit(schema: Value, value: Any, decimals: int) -> Any:
    """What leaves of a value: the same, its numbers rounded first and compared with their bounds then.

    Args:
        schema: what may leave.
        value: as JSON has it, untrusted.
        decimals: the most decimal places of a number.

    Raises:
        OutputRefused: the schema does not let it through.
    """
    if isinstance(schema, OrNull):
        return None if value is None else fit(schema.inner, value, decimals)
    if isinstance(schema, Numeric):
        return _number(schema, value, decimals)
    if isinstance(schema, Array):
        if not isinstance(value, list) or len(value) > schema.most:
            refuse("the schema allows a shorter list there, or none", "schema")
        return [fit(schema.items, item, decimals) for item in value]
    if isinstance(schema, Object):
        if not isinstance(value, dict) or value.keys() != schema.properties.keys():
            refuse("the schema allows an object of other members there, or none", "schema")
        return {name: fit(item, value[name], decimals) for name, item in schema.properties.items()}
    if not (
        (isinstance(schema, Null) and value is None)
        or (isinstance(schema, Boolean) and isinstance(value, bool))
        or (isinstance(schema, Text) and isinstance(value, str) and value in schema.options)
    ):
        refuse("the schema does not allow the value there", "schema")
    return value


def _number(schema: Numeric, value: Any, decimals: int) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        refuse("the schema allows a number there", "schema")
    found = value if isinstance(value, int) else rounded(value, decimals)
    if not schema.low <= found <= schema.high or (schema.whole and found != int(found)):
        refuse("the schema allows other numbers there", "schema")
    return int(found) if schema.whole else found
