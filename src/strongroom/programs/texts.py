"""CSV and JSON lines, read some whole lines at a time: of the text no more is in memory than a block and a line.

Arrow's readers of text read ahead in a thread of their own, also where they are told to use none, and go on with it after an
error. So they get blocks in memory, and never a file of the interpreter's: that thread would wait for the interpreter at its
end, or read from a file that is closed.

Text says no types. Who reads a table whole gets the narrowest that every value fits; who reads it lazily the narrowest that
fits the first block, and an error where a later one does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import pyarrow as pa
import pyarrow.csv
import pyarrow.json

from . import Input

BLOCK_BYTES: Final = 1 << 20
MAX_LINE_BYTES: Final = 64 << 20

_KINDS: Final = (
    pa.null(),
    pa.int64(),
    pa.bool_(),
    pa.date32(),
    pa.time32("s"),
    pa.timestamp("s"),
    pa.timestamp("ns"),
    pa.timestamp("ns", "UTC"),
    pa.float64(),
    pa.string(),
    pa.binary(),
)
"""What a column of CSV may be, in the order in which Arrow tries them."""


def blocks(source: Input) -> Iterator[bytes]:
    """Whole lines, about ``BLOCK_BYTES`` at a time.

    Raises:
        ValueError: a line is longer than ``MAX_LINE_BYTES``.
        EOFError: the input is shorter than it is said to be.
    """
    held: list[bytes] = []
    size, left = 0, source.size
    with source.open() as file:
        while piece := file.read(BLOCK_BYTES):
            left -= len(piece)
            end = piece.rfind(b"\n") + 1
            if not end:
                held.append(piece)
                size += len(piece)
                if size > MAX_LINE_BYTES:
                    raise ValueError("a line is too long")
                continue
            yield b"".join([*held, piece[:end]])
            held, size = [piece[end:]], len(piece) - end
    if left > 0:
        raise EOFError("the input is shorter than it is said to be")
    if rest := b"".join(held):
        yield rest


class Csv:
    """A CSV file.

    Args:
        source: the input.

    Raises:
        ValueError, pa.ArrowException: it is none, or has two columns of one name.
    """

    def __init__(self, source: Input) -> None:
        self._source = source
        table = _csv(next(blocks(source), b""), None, {})
        self.types = {field.name: field.type for field in table.schema}
        if len(self.types) != len(table.schema):
            raise ValueError("two columns have one name")

    @property
    def schema(self) -> pa.Schema:
        """As the first block has it."""
        return pa.schema(list(self.types.items()))

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Every row. Raises pa.ArrowException: a block does not fit ``types``."""
        names = None
        for block in blocks(self._source):
            yield _csv(block, names, self.types, columns)
            names = [*self.types]

    def read(self) -> pa.Table:
        """The whole of it. Where a block does not fit, types are widened and all is read again."""
        widened = True
        while widened:
            found, widened, names = [_csv(b"", [*self.types], self.types)], False, None
            for block in blocks(self._source):
                try:
                    table = _csv(block, names, self.types)
                except pa.ArrowInvalid:
                    if not self._widen(block, names):
                        raise  # it is not for its types
                    widened, found = True, []
                else:
                    if not widened:
                        found.append(table)
                names = [*self.types]
        return pa.concat_tables(found)

    def _widen(self, block: bytes, names: list[str] | None) -> bool:
        """Take for each column the next type that the block fits, if any must be taken."""
        widened = False
        for name, kind in self.types.items():
            left = list(_KINDS[_KINDS.index(kind) :])
            while len(left) > 1 and not self._fits(block, names, name, left[0]):
                left.pop(0)
                widened = True
            self.types[name] = left[0]
        return widened

    def _fits(self, block: bytes, names: list[str] | None, name: str, kind: pa.DataType) -> bool:
        try:
            _csv(block, names, {name: kind}, [name])
        except pa.ArrowInvalid:
            return False
        return True


def _csv(
    block: bytes, names: list[str] | None, types: dict[str, pa.DataType], columns: Sequence[str] | None = None
) -> pa.Table:
    """Some lines; the first is the header where no names are said."""
    if names is not None and not block.strip():
        return pa.schema([(name, types[name]) for name in (names if columns is None else columns)]).empty_table()
    return pa.csv.read_csv(
        pa.BufferReader(block),
        read_options=pa.csv.ReadOptions(use_threads=False, block_size=len(block) + 1, column_names=names),
        convert_options=pa.csv.ConvertOptions(column_types=types, include_columns=columns or None),
    )


class Lines:
    """A file of JSON lines.

    Args:
        source: the input.

    Raises:
        pa.ArrowException: it is none.
    """

    def __init__(self, source: Input) -> None:
        self._source = source
        self.schema = pa.schema([])
        for block in blocks(source):
            if block.strip():
                self.schema = _json(block, None).schema
                break

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Every row, with the first block's members. Raises pa.ArrowException: a block does not fit them."""
        wanted = self.schema if columns is None else pa.schema([self.schema.field(name) for name in columns])
        for block in blocks(self._source):
            if block.strip():
                yield _json(block, wanted, "ignore").select(wanted.names)

    def read(self) -> pa.Table:
        """The whole of it. Where a block says more, or something else, types are widened and all is read again."""
        widened = True
        while widened:
            found, widened = [self.schema.empty_table()], False
            for block in blocks(self._source):
                if block.strip():
                    table = _json(block, None)
                    both = _both(self.schema, table.schema)
                    if both != self.schema:
                        self.schema, widened, found = both, True, []
                    if not widened:
                        found.append(table if table.schema == self.schema else _json(block, self.schema, "error"))
        return pa.concat_tables(found)


def _json(block: bytes, schema: pa.Schema | None, unexpected: str = "infer") -> pa.Table:
    return pa.json.read_json(
        pa.BufferReader(block),
        read_options=pa.json.ReadOptions(use_threads=False, block_size=len(block) + 1),
        parse_options=pa.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior=unexpected),
    )


def _both(one: pa.Schema, other: pa.Schema) -> pa.Schema:
    """What both fit: 3 and 2.5 are float64; a timestamp and another text are text. Raises pa.ArrowException."""
    try:
        return pa.unify_schemas([one, other], promote_options="permissive")
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        plain = [pa.schema([pa.field(f.name, _untimed(f.type)) for f in schema]) for schema in (one, other)]
        return pa.unify_schemas(plain, promote_options="permissive")


def _untimed(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_untimed(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(f.name, _untimed(f.type)) for f in kind])
    return kind
