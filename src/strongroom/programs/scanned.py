"""A Parquet file as a lazy frame of Polars that fetches the columns and row groups of a query, and decodes them itself.

Polars reads files of the machine's, and there is none: an input is read by range, through the process that holds the key.
So each query is answered in parts of some row groups, each a small file in memory (``footer.py``), of which the next is
fetched while Polars is at work on the one before. At most three are in memory at once.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from importlib.util import find_spec
from itertools import cycle, groupby
from typing import Any, Final, Protocol

import pyarrow.parquet

from . import Input
from .footer import Chunk, Footer, Group, Memory

if find_spec("polars") is not None:  # an enclave without it compiles this module too
    import polars as pl
    from polars.io.plugins import register_io_source

FIRST_BYTES: Final = 4 << 20
"""Of the first part, so that there is work soon; every next one may be twice as large."""

PART_BYTES: Final = 16 << 20
"""Of a part, where its row groups are not larger."""


def scan(source: Input) -> Any:
    """A lazy frame.

    Raises:
        ValueError: the file cannot be read in parts (``Footer``).
    """
    file = source.open()
    footer = Footer(file, source.size)
    schema = pl.read_parquet_schema(io.BytesIO(footer.empty()))
    table = _Table(source, footer, schema)
    return register_io_source(table.frames, schema=schema, is_pure=True)


class Tables(Protocol):
    """Something that is read as tables of Arrow, one after the other."""

    @property
    def schema(self) -> Any:
        """An Arrow schema."""

    def tables(self, columns: Sequence[str]) -> Iterator[Any]:
        """Some columns of every row, in this order. Whatever it raises ends the query."""


def tables(source: Tables) -> Any:
    """A lazy frame over tables, of which it holds one at a time.

    Raises:
        ValueError: two columns have one name.
    """
    names = source.schema.names
    if len(set(names)) != len(names):
        raise ValueError("two columns have one name")
    schema = pl.DataFrame(source.schema.empty_table()).schema

    def frames(with_columns: list[str] | None, predicate: Any, n_rows: int | None, _: int | None) -> Iterator[Any]:
        columns = names if with_columns is None else with_columns
        needed = {*columns, *(() if predicate is None else predicate.meta.root_names())}
        left, made = n_rows, False
        for table in source.tables([name for name in names if name in needed]):
            if left is not None and left <= 0:
                break
            frame = pl.DataFrame(table)
            if left is not None:
                frame = frame.head(left)
                left -= frame.height
            made = True
            yield (frame if predicate is None else frame.filter(predicate)).select(columns)
        if not made:
            yield pl.DataFrame(schema={name: schema[name] for name in columns})

    return register_io_source(frames, schema=schema, is_pure=True)


class _Table:
    def __init__(self, source: Input, footer: Footer, schema: Mapping[str, Any]) -> None:
        self._source, self._footer, self._schema = source, footer, schema

    def frames(
        self, with_columns: list[str] | None, predicate: Any, n_rows: int | None, batch_size: int | None
    ) -> Iterator[Any]:
        """What Polars asks for: some columns of the rows that fit a predicate, or of the first rows."""
        del batch_size
        columns = [*self._schema] if with_columns is None else with_columns
        wanted = {*columns, *(() if predicate is None else predicate.meta.root_names())}
        groups = self._few(n_rows) if predicate is None else self._fitting(predicate)
        made = False
        for part in self._parts(groups, wanted):
            found = _answered(part, columns, predicate, n_rows)
            del part  # its memory is filled again
            n_rows = None if n_rows is None else n_rows - found.height
            made = True
            yield found
        if not made:
            yield pl.DataFrame(schema={name: self._schema[name] for name in columns})

    def _few(self, rows: int | None) -> list[Group]:
        """As many row groups as hold the first rows."""
        found, left = [], rows
        for group in self._footer.groups:
            if left is not None:
                if left <= 0:
                    break
                left -= group.rows
            found.append(group)
        return found

    def _fitting(self, predicate: Any) -> list[Group]:
        """The row groups in which a row can fit, by the least and the greatest value of each column."""
        groups = self._footer.groups
        with suppress(AttributeError, pl.exceptions.PolarsError, ValueError, TypeError, OverflowError):
            skipped = self._skipped(predicate)
            return [group for group, skip in zip(groups, skipped, strict=True) if not skip]
        return [*groups]

    def _skipped(self, predicate: Any) -> Sequence[bool | None]:
        """For each row group whether no row of it can fit. Raises several errors, where nobody can tell."""
        asked = {name: self._schema[name] for name in predicate.meta.root_names()}
        skip = predicate._skip_batch_predicate(asked)  # noqa: SLF001 - as Polars does itself; without it nothing is skipped
        if skip is None:
            raise ValueError("nothing can be told from extremes")
        with self._source.open() as file, pyarrow.parquet.ParquetFile(file) as parquet:
            about, names = parquet.metadata, [column.path for column in parquet.schema]
            places = {path: n for n, path in enumerate(names) if "." not in path}  # with one it may be a nested column's
            found = [pl.Series("len", [group.rows for group in self._footer.groups], pl.get_index_type())]
            for name, kind in asked.items():
                told = [_told(about.row_group(n), places.get(name), kind) for n in range(about.num_row_groups)]
                lows, highs, nulls = zip(*told, strict=True)
                found += [pl.Series(f"{name}_min", lows, kind), pl.Series(f"{name}_max", highs, kind)]
                found.append(pl.Series(f"{name}_nc", nulls, pl.get_index_type()))
        answer: list[bool | None] = pl.DataFrame(found).select(skip.alias("skip"))["skip"].to_list()
        return answer

    def _parts(self, groups: Sequence[Group], columns: set[str]) -> Iterator[bytes]:
        """Files in memory, each of which is fetched while the taker works on the one before."""
        memories = cycle((Memory(), Memory()))
        with self._source.open() as opened, ThreadPoolExecutor(1) as pool:
            file: Any = getattr(opened, "raw", opened)  # a buffer would read on beyond what is asked for
            upcoming: Future[bytes] | None = None
            for groups_of_part in [*_together(groups, columns), None]:
                part = None if upcoming is None else upcoming.result()
                upcoming = (
                    None
                    if groups_of_part is None
                    else pool.submit(self._fetched, file, next(memories), groups_of_part, columns)
                )
                if part is not None:
                    yield part

    def _fetched(self, file: Any, memory: Memory, groups: Sequence[Group], columns: set[str]) -> bytes:
        chunks = [chunk for group in groups for chunk in group.of(columns)]
        return memory.fill(file, [*_spans(chunks)], self._footer.part(groups, columns))


def _answered(part: bytes, columns: list[str], predicate: Any, rows: int | None) -> Any:
    """What one part holds of an answer."""
    frame = pl.scan_parquet(part)
    if rows is not None:
        frame = frame.head(rows)
    if predicate is not None:
        frame = frame.filter(predicate)
    return frame.select(columns).collect()


def _told(group: Any, place: int | None, kind: Any) -> tuple[Any, Any, int | None]:
    """A column's least and greatest value in a row group, and how many are null; ``None`` for what is not told.

    Of floats nothing is: a NaN is greater than the greatest to Polars, and no value at all to Parquet.
    """
    found = None if place is None or kind.is_float() or kind.is_nested() else group.column(place).statistics
    if found is None:
        return None, None, None
    ends = (found.min, found.max) if found.has_min_max else (None, None)
    return *ends, found.null_count if found.has_null_count else None


def _together(groups: Sequence[Group], columns: set[str]) -> Iterator[list[Group]]:
    """Row groups that are fetched and decoded together."""
    some: list[Group] = []
    size, most = 0, FIRST_BYTES
    for group in groups:
        more = sum(chunk.size for chunk in group.of(columns))
        if some and size + more > most:
            yield some
            some, size, most = [], 0, min(2 * most, PART_BYTES)
        some.append(group)
        size += more
    if some:
        yield some


def _spans(chunks: Sequence[Chunk]) -> Iterator[tuple[int, int]]:
    """Ranges of the file, in which chunks that lie next to each other are one."""
    run = 0
    numbered = []
    for before, chunk in zip([None, *chunks], chunks, strict=False):
        run += before is None or before.start + before.size != chunk.start
        numbered.append((run, chunk))
    for _, some in groupby(numbered, key=lambda one: one[0]):
        each = [chunk for _, chunk in some]
        yield each[0].start, sum(chunk.size for chunk in each)
