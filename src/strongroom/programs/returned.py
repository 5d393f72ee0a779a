"""What the code gave back, as the bytes of an output: JSON, Arrow, PNG, CSV or safetensors; nothing is pickled.

The rule of the output is applied outside of the sandbox, on these bytes, whatever made them.
"""

from __future__ import annotations

import datetime as dt
import decimal
import io
import json
import math
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from strongroom.errors import ProgramCrashed

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_MAX_DEPTH: Final = 32


def _is(value: object, library: str, *names: str) -> bool:
    """Whether a value is of one of a library's types. What was never imported has made none, and is not imported for it."""
    found = sys.modules.get(library)
    return found is not None and isinstance(value, tuple(getattr(found, name) for name in names))


def _unfit(kind: str, value: object) -> ProgramCrashed:
    # To the author alone, on a mock: in a room it stays inside.
    return ProgramCrashed(f"an output of kind {kind} cannot be made of a {type(value).__name__}", step="program")


def plain(value: Any, depth: int = 0) -> Any:
    """A value as JSON has it: numbers, texts, booleans, lists and objects. Raises ProgramCrashed.

    Numbers that are none, as pandas writes what is missing, become ``null``; dates become text.
    """
    if depth > _MAX_DEPTH:
        raise _unfit("values", value)
    value = value.item() if _is(value, "numpy", "generic") else value
    if isinstance(value, Mapping):
        return {_key(name): plain(item, depth + 1) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item, depth + 1) for item in value]
    if _is(value, "numpy", "ndarray"):
        return plain(value.tolist(), depth + 1)
    if hasattr(value, "to_dict"):  # a series, or a frame
        return plain(value.to_dict(), depth + 1)
    return _one(value)


def _one(value: Any) -> Any:
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, float | decimal.Decimal):
        number = float(value)
        if math.isinf(number):
            raise _unfit("values", value)
        return None if math.isnan(number) else number
    if value is None or isinstance(value, str | bool | int):
        return value
    raise _unfit("values", value)


def _key(name: object) -> str:
    if isinstance(name, str):
        return name
    if isinstance(name, bool | int | float | dt.date) or _is(name, "numpy", "generic"):
        return str(plain(name))
    raise _unfit("values", name)


def _values(value: Any) -> bytes:
    return json.dumps(plain(value), allow_nan=False, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


def table_of(value: Any, kind: str) -> Any:
    """An Arrow table of what the code gave back. Raises ProgramCrashed."""
    import pyarrow as pa  # noqa: PLC0415 - only where it is wanted

    if isinstance(value, pa.Table):
        return value
    if isinstance(value, pa.RecordBatch):
        return pa.Table.from_batches([value])
    library = type(value).__module__.partition(".")[0]
    if library == "polars":
        found = value.collect() if hasattr(value, "collect") else value
        return found.to_arrow() if hasattr(found, "columns") else found.to_frame().to_arrow()
    if library == "pandas":
        found = value.reset_index() if hasattr(value, "to_frame") or not _plain_index(value.index) else value
        found = found.to_frame() if hasattr(found, "to_frame") else found
        return pa.Table.from_pandas(found.rename(columns=str), preserve_index=False).replace_schema_metadata(None)
    if isinstance(value, Mapping | list):
        return pa.table(value) if isinstance(value, Mapping) else pa.Table.from_pylist(value)
    raise _unfit(kind, value)


def _plain_index(index: Any) -> bool:
    return type(index).__name__ == "RangeIndex"


def _table(value: Any) -> bytes:
    import pyarrow as pa  # noqa: PLC0415 - only where it is wanted

    table, sink = table_of(value, "table"), io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _records(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    from pyarrow import csv  # noqa: PLC0415 - only where it is wanted

    sink = io.BytesIO()
    csv.write_csv(table_of(value, "records"), sink)
    return sink.getvalue()


def _picture(value: Any) -> bytes:
    if isinstance(value, bytes | bytearray) and value[:8] == _PNG:
        return bytes(value)
    figure = getattr(value, "figure", value)  # what plots give back are axes, as often
    if not hasattr(figure, "savefig"):
        raise _unfit("picture", value)
    sink = io.BytesIO()
    figure.savefig(sink, format="png", metadata={"Software": None})
    return sink.getvalue()


def _tensors(value: Any) -> bytes:
    import numpy as np  # noqa: PLC0415 - only where it is wanted
    from safetensors.numpy import save  # noqa: PLC0415 - only where it is wanted

    if not isinstance(value, Mapping):
        raise _unfit("tensors", value)
    if not all(isinstance(n, str) and isinstance(a, np.ndarray) and a.dtype.kind in "biuf" for n, a in value.items()):
        raise _unfit("tensors", value)
    found: bytes = save({name: np.ascontiguousarray(array) for name, array in value.items()})
    return found


KINDS: Final[Mapping[str, Callable[[Any], bytes]]] = {
    "picture": _picture,
    "records": _records,
    "table": _table,
    "tensors": _tensors,
    "values": _values,
}


def encode(kind: str, value: Any) -> bytes:
    """The bytes of an output.

    Args:
        kind: one of the policy's kinds, but ``log``.
        value: what the code gave back for it.

    Raises:
        ProgramCrashed: nothing of this kind can be made of that.
    """
    return KINDS[kind](value)
