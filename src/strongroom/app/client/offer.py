"""Offering a table: a mock that fits it, a report of what the mock reveals, and then the sealing that any asset gets.

What is sealed and what the mock stands for are one table at one time: columns that are withheld are in neither, and a file
that changes meanwhile is refused.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom.asset import Manifest
from strongroom.errors import Conflict, MissingExtra, MockMisfit, MockReveals, NotFound, TooLarge
from strongroom.policy import Policy

from .home import private, read, write

if TYPE_CHECKING:
    import pyarrow as pa

    from strongroom.asset.approvers import Quorum

    from .mock.report import Report
    from .mock.reveal import Reveal
    from .mock.suggesting import Suggestion
    from .mock.tabular import Tabular
    from .room import Room

MAX_MOCK_BYTES = 64 << 20  # as an exchange takes

Steps = Callable[[str, int | None], Callable[[int], None]]
"""Called with what is going on and the bytes in all; gives what to call with the bytes done so far."""

Stamp = tuple[int, int, int] | None
"""A file's length, the time it was last changed, and its place on the disk."""


def _silent(_label: str, _total: int | None) -> Callable[[int], None]:
    return lambda _done: None


def need_tables() -> None:
    """Raises MissingExtra: what reads tables is not installed."""
    try:
        import pyarrow as pa  # noqa: F401 - whether it can be imported
    except ImportError as error:
        raise MissingExtra("what reads tables is not installed", hint="pip install 'strongroom[data]'") from error


@dataclass(frozen=True, slots=True)
class Offering:
    """What an owner wants to offer.

    Attributes:
        table: Parquet, CSV, JSON lines or Arrow.
        reveal: what the mock may reveal; ``None``: names and types.
        mock: the owner's own mock; ``None``: one is made.
        rows: of the mock, where that is not said in ``reveal``.
        withhold: columns that are neither in the mock nor in what is sealed.
        rename: columns that have another name in both.
        seed: of the mock; any number.
        coincide: rows of the own mock may stand in the table too, by chance.
    """

    table: Path
    reveal: Reveal | None = None
    mock: Path | None = None
    rows: int | None = None
    withhold: tuple[str, ...] = ()
    rename: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    coincide: bool = False


@dataclass(frozen=True, slots=True)
class Offered:
    """A table and a mock that fits it, ready to be sealed and published. Only :func:`prepared` makes one.

    Attributes:
        table: what is to be sealed: the owner's file, or a copy without what is withheld, while the context lasts.
        mock: the mock, while the context lasts.
        reveal: what was agreed.
        report: what the mock reveals.
        schema: of both.
        rows: of the mock.
        media_type: of both.
        source: the owner's file, and what it was like when it was looked at.
    """

    table: Path
    mock: Path
    reveal: Reveal
    report: Report
    schema: pa.Schema
    rows: int
    media_type: str
    source: tuple[Path, Stamp]

    def require_unchanged(self) -> None:
        """Raises Conflict: the owner's file is not as it was when the mock was held against it."""
        path, stamp = self.source
        if _stamp(path) != stamp:
            raise Conflict(f"{path} changed while it was offered", hint="Offer it again once nobody writes to it.")


def suggested(table: Path, few: int | None = None, steps: Steps = _silent) -> Suggestion:
    """A draft of what to reveal of a table, for its owner to read and edit.

    Args:
        table: the owner's file.
        few: categories that fewer records have are risky.
        steps: shows progress.

    Raises:
        NotFound, EmptyFile, NotATable, BadField; MissingExtra.
    """
    need_tables()
    from .mock.suggesting import FEW, suggest
    from .mock.survey import survey
    from .mock.tabular import Tabular

    found = Tabular(table, steps(f"reading {table.name}", _size(table)))
    seen = survey(found, progress=steps(f"looking at {table.name}", _size(table)))
    return suggest(found.schema, seen, FEW if few is None else few)


@contextmanager
def prepared(offering: Offering, *, beside: Path | None = None, steps: Steps = _silent) -> Iterator[Offered]:
    """Make or check the mock, check that it fits, and say what it reveals. Nothing is published, and no file stays.

    Args:
        offering: what the owner wants.
        beside: the folder for temporary files, which nobody else can read; the table's own by default.
        steps: shows progress.

    Raises:
        NotFound, EmptyFile, NotATable; MissingExtra.
        BadField: the description names a column that is not there.
        MockMisfit: the mock or the description is not of the form of the table.
        MockReveals: the own mock shows what was not agreed, or rows of the table.
        TooLarge: the mock is larger than an exchange takes.
    """
    need_tables()
    try:
        folder = Path(tempfile.mkdtemp(prefix=".offer-", dir=beside or offering.table.parent))
    except OSError as error:
        raise NotFound(f"cannot write beside {offering.table}: {error.strerror}") from error
    try:
        yield _prepared(offering, folder, steps)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _prepared(offering: Offering, folder: Path, steps: Steps) -> Offered:
    from .mock.fitting import claims, require_described, require_form, require_told_early, require_true
    from .mock.report import report
    from .mock.reveal import Reveal
    from .mock.rewriting import offered_schema, rewrite
    from .mock.survey import survey
    from .mock.tabular import Tabular

    size, name, stamp = _size(offering.table), offering.table.name, _stamp(offering.table)
    table = Tabular(offering.table, steps(f"reading {name}", size))
    require_told_early(table)
    reveal = Reveal.of_schema(table.schema) if offering.reveal is None else offering.reveal
    reveal = reveal.but(rows=offering.rows, withhold=offering.withhold, rename=offering.rename)
    require_described(reveal, table.schema)
    if claims(reveal, table.schema):
        require_true(reveal, survey(table, reveal, steps(f"checking {name}", size)))
    schema = offered_schema(table.schema, reveal)
    mock = _made(offering, reveal, table, folder) if offering.mock is None else _own(offering.mock, table, folder)
    read_back = Tabular(mock)
    require_form(read_back.schema, schema)
    rows, own = read_back.read(), offering.mock is not None
    if own:
        _require_harmless(offering, reveal, rows, table, steps)
        rows = _published(mock, rows, schema)
    sealed = offering.table
    if reveal.changes(table.schema):
        sealed = folder / name
        with private(sealed) as sink:
            rewrite(table, reveal, sink, steps(f"leaving out what is withheld of {name}", size))
    said = report(reveal, table.media_type, rows if own else None)
    return Offered(sealed, mock, reveal, said, schema, rows.num_rows, table.media_type, (offering.table, stamp))


def _made(offering: Offering, reveal: Reveal, table: Tabular, folder: Path) -> Path:
    from .mock.making import make
    from .mock.tabular import written

    data = written(make(reveal, offering.seed), table.media_type)
    if len(data) > MAX_MOCK_BYTES:
        raise TooLarge(
            f"the mock has {len(data):,} bytes, where {MAX_MOCK_BYTES:,} are allowed", hint="Fewer rows: --rows N"
        )
    found = folder / f"mock{offering.table.suffix.lower()}"
    write(found, data)
    return found


def _own(mock: Path, table: Tabular, folder: Path) -> Path:
    """A copy of the owner's own mock, which nobody changes while it is looked at."""
    from .mock.tabular import media_type_of

    if media_type_of(mock) != table.media_type:
        raise MockMisfit(f"the mock is {media_type_of(mock)}, and the table {table.media_type}")
    found = folder / f"mock{mock.suffix.lower()}"
    write(found, read(mock, max_bytes=MAX_MOCK_BYTES))
    return found


def _published(mock: Path, rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Put the cells that were looked at in place of the file, which may hold more. Gives them as a researcher reads them."""
    from .mock.cells import only_cells
    from .mock.fitting import require_form
    from .mock.tabular import Tabular, media_type_of, written

    data = written(only_cells(rows), media_type_of(mock))
    if len(data) > MAX_MOCK_BYTES:
        raise TooLarge(f"the mock has {len(data):,} bytes, where {MAX_MOCK_BYTES:,} are allowed", hint="Use fewer rows.")
    write(mock, data)
    found = Tabular(mock)
    require_form(found.schema, schema)
    return found.read()


def _require_harmless(offering: Offering, reveal: Reveal, rows: pa.Table, table: Tabular, steps: Steps) -> None:
    from .mock.fitting import require_agreed, require_likeness, require_made_up, shared_rows
    from .mock.survey import survey

    require_agreed(rows, reveal)
    seen = survey(table, reveal, steps(f"looking at {table.path.name}", _size(table.path)))
    require_likeness(rows, table.schema, seen, reveal)
    require_made_up(rows, table, reveal)
    if offering.coincide:
        return
    shared = shared_rows(rows, table, reveal, steps(f"looking for the mock's rows in {table.path.name}", _size(table.path)))
    if shared:
        what = "1 row of the mock is a row" if shared == 1 else f"{shared:,} rows of the mock are rows"
        hint = "Nothing was published. Use --mock auto; or say --coincide, if rows that you made up are alike by chance."
        raise MockReveals(f"{what} of the table", hint=hint)


def mock_path(table: Path) -> Path:
    """Where a made mock is kept: beside the table."""
    return table.with_name(f"{table.stem}.mock{table.suffix.lower()}")


def keep_mock(offered: Offered, target: Path) -> Path:
    """Keep the mock for its owner to look at. Raises Conflict: another file is there."""
    data = read(offered.mock, max_bytes=MAX_MOCK_BYTES)
    if target.exists() and read(target, max_bytes=None) != data:
        raise Conflict(f"{target} is already there, and is another mock", hint="Move it away, or say --mock-out FILE.")
    write(target, data)
    return target


def seal_offer(
    room: Room,
    offered: Offered,
    *,
    terms: Policy,
    name: str,
    out: Path,
    approvers: tuple[Quorum, ...] = (),
    progress: Callable[[int], None] | None = None,
) -> Manifest:
    """Seal what was prepared, as any asset is sealed, with its mock in the manifest. ``Room.publish`` uploads it.

    Args:
        room: the owner at work.
        offered: what was prepared; its context still lasts.
        terms: what the owner lets anybody do with it.
        name: the asset's.
        out: where to write the sealed file.
        approvers: who must approve a use of it beside the owner.
        progress: called with the bytes sealed so far.

    Raises:
        Conflict: the table changed meanwhile; nothing is kept. As ``Room.seal``.
    """
    found = room.seal(
        offered.table,
        terms=terms,
        name=name,
        kind="dataset",
        media_type=offered.media_type,
        mock=offered.mock,
        out=out,
        approvers=approvers,
        progress=progress,
        upload=False,
    )
    try:
        offered.require_unchanged()
    except Conflict:
        from .room import manifest_path

        out.unlink(missing_ok=True)
        manifest_path(out).unlink(missing_ok=True)
        raise
    return found


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None  # whoever reads it says what is wrong
    return found.st_size, found.st_mtime_ns, found.st_ino
