"""A table of the cells of another and of nothing else that its file holds.

A file holds more than its cells: words of a dictionary that no row uses, what stands under a null, metadata that a library
wrote beside columns. Of an owner's own mock only the cells were looked at, so only they are published.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from strongroom.errors import NotATable

from .notation import kind_of, spelled
from .survey import readable


def only_cells(table: pa.Table) -> pa.Table:
    """The same cells in columns of the same names and types, with buffers of their own.

    Raises:
        NotATable: a column's cells cannot be written anew.
    """
    found, fields = [], []
    for field, column in zip(table.schema, table.columns, strict=True):
        with readable(field.name):
            try:
                found.append(_anew(column, kind_of(spelled(field.type))))
            except (TypeError, NotImplementedError) as error:
                raise NotATable(f"column {field.name!r} of the mock has a type that cannot be written anew") from error
        fields.append(pa.field(field.name, found[-1].type, field.nullable))
    return pa.table(found, schema=pa.schema(fields))


def _anew(column: pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(kind):
        return _worded(column, kind)
    if pa.types.is_nested(kind):
        return pa.array(column.to_pylist(), type=kind)
    there = column.is_valid().to_numpy()
    places = pa.array(np.cumsum(there) - 1, mask=~there)
    return column.drop_null().combine_chunks().take(places).cast(kind)


def _worded(column: pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    """With the words alone that rows use, in the order in which the file has them."""
    cells = column.to_pylist()
    used = set(cells) - {None}
    words = [word for chunk in column.chunks for word in chunk.dictionary.to_pylist() if word in used]
    place = {word: n for n, word in enumerate(dict.fromkeys(words))}
    codes = pa.array([None if cell is None else place[cell] for cell in cells], type=kind.index_type)
    return pa.DictionaryArray.from_arrays(codes, pa.array(list(place), type=kind.value_type), ordered=kind.ordered)
