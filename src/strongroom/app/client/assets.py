"""What pinned owners offer: ``room.assets["census"]`` with its mock, its schema and its terms.

    room = strongroom.connect("room", party="researcher")
    room.assets                          # a table of what is offered
    census = room.assets["census"]       # or "office/census"
    census.mock                          # a pandas DataFrame
    census.terms                         # in words

An exchange can hide what is offered; it can neither make up an offer, nor put another mock in a mock's place, nor go back to
an older offer than was seen here before.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom import wire
from strongroom.asset import Manifest
from strongroom.drawing import Drawing
from strongroom.errors import (
    BadField,
    ManifestMismatch,
    MissingExtra,
    NotATable,
    NotFound,
    OlderOffer,
    StrongroomError,
    TooLarge,
    Usage,
)
from strongroom.policy import Policy
from strongroom.wire import Fields

from . import figures
from .display import aligned, rows_html, table_html, text_html, time_said
from .home import read, write
from .prose import drawn, policy_clauses

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from .room import Room

MAX_MOCK_BYTES = 64 << 20  # as an exchange takes
PIECE = 1 << 20
SHOWN_ROWS = 5  # of a mock, in a notebook
QUIET_SECONDS = 2  # before progress is shown

_SUFFIXES = {
    "application/vnd.apache.arrow.file": ".arrow",
    "application/vnd.apache.arrow.stream": ".arrows",
    "application/vnd.apache.parquet": ".parquet",
    "application/x-ndjson": ".jsonl",
    "text/csv": ".csv",
}


class Terms:
    """What an owner lets anybody do with an asset, in words.

    Args:
        policy: the same, for programs.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    @property
    def clauses(self) -> dict[str, str]:
        """What each clause is about, and what it says."""
        return {clause.about.removeprefix("policy: "): clause.text for clause in policy_clauses(self.policy)}

    def __repr__(self) -> str:
        return aligned(self.clauses.items())

    def _repr_html_(self) -> str:
        return rows_html(self.clauses.items())


class Columns:
    """A table's columns.

    Args:
        schema: the same, as Arrow has it.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self.arrow = schema

    @property
    def rows(self) -> list[tuple[str, str]]:
        """Each column's name and type."""
        return [(f.name, f"{f.type}" + ("" if f.nullable else ", never null")) for f in self.arrow]

    def __repr__(self) -> str:
        return aligned(self.rows)

    def _repr_html_(self) -> str:
        return rows_html(self.rows)


class Asset:
    """Something that a pinned owner offers, under the owner's signature.

    Args:
        room: who looks at it.
        manifest: verified.
    """

    def __init__(self, room: Room, manifest: Manifest) -> None:
        self._room, self.manifest = room, manifest

    @property
    def name(self) -> str:
        """``OWNER/NAME``."""
        return f"{self.manifest.owner}/{self.manifest.name}"

    @property
    def terms(self) -> Terms:
        return Terms(self.manifest.terms)

    @property
    def mock_path(self) -> Path:
        """The mock as a file, fetched once and checked each time: the owner signed these very bytes.

        Raises:
            NotFound: there is no mock, or the exchange does not show it.
            ManifestMismatch: the exchange shows another one.
            TooLarge.
        """
        return self._kept()[0]

    def _kept(self) -> tuple[Path, bytes]:
        named = self.manifest.mock
        if named is None:
            raise NotFound(f"{self.name} has no mock", hint="Ask its owner for one: strongroom offer TABLE --mock auto")
        if named.size > MAX_MOCK_BYTES:
            raise TooLarge(f"the mock of {self.name} has {named.size:,} bytes, where {MAX_MOCK_BYTES:,} are allowed")
        suffix = _SUFFIXES.get(named.media_type, "")
        path = self._room.home.place("mocks") / (named.digest.removeprefix("sha256:") + suffix)
        if path.is_file() and path.stat().st_size == named.size:
            data = read(path, max_bytes=MAX_MOCK_BYTES)
            if wire.digest(data) == named.digest:
                return path, data
        data = self._fetched(named.digest, named.size)
        write(path, data)
        return path, data

    def _fetched(self, digest: str, size: int) -> bytes:
        source, found = self._room.exchange.mock(digest), io.BytesIO()
        if source.size == size:
            with _progress(f"fetching the mock of {self.name}", size) as advance:
                while piece := source.read_at(found.tell(), min(PIECE, size - found.tell())):
                    found.write(piece)
                    advance(len(piece))
        data = found.getvalue()
        if len(data) != size or wire.digest(data) != digest:
            hint = "The exchange is not honest, or is damaged; ask the owner for the mock. Nothing of what came was read."
            raise ManifestMismatch(f"the exchange shows another mock of {self.name} than its owner signed", hint=hint)
        return data

    @property
    def mock_arrow(self) -> pa.Table:
        """The mock as an Arrow table. Raises as :attr:`mock_path`; NotATable, MissingExtra."""
        path = self.mock_path
        if not self.is_table:
            raise BadField(f"the mock of {self.name} is no table", hint="Read it by its media type, from mock_path.")
        from .offer import need_tables

        need_tables()
        from .mock.tabular import Tabular

        return Tabular(path).read()

    @property
    def mock(self) -> pd.DataFrame:
        """The mock as a pandas table, a new one each time. Raises as :attr:`mock_arrow`."""
        table = self.mock_arrow
        try:
            return table.to_pandas()
        except ImportError as error:
            raise MissingExtra("pandas is not installed", hint="pip install 'strongroom[data]'") from error
        except ValueError as error:  # of which Arrow's own are some
            raise NotATable(f"pandas cannot hold the mock of {self.name}", hint="Take mock_arrow.") from error

    @property
    def schema(self) -> Columns:
        """The columns of the asset, which are its mock's. Raises as :attr:`mock_arrow`."""
        return Columns(self.mock_arrow.schema)

    @property
    def is_table(self) -> bool:
        """Whether its mock is one."""
        return self.manifest.mock is not None and self.manifest.mock.media_type in _SUFFIXES

    @property
    def card(self) -> dict[str, str]:
        """All that is known of it without its mock, in words."""
        m = self.manifest
        mock = "none" if m.mock is None else f"{m.mock.size:,} bytes, {m.mock.media_type}"
        return {
            "asset": f"{self.name}, a {m.kind} ({m.media_type})",
            "offered": time_said(m.created_at),
            "manifest": m.digest,
            "mock": mock,
            "who approves": f"{m.owner}, and every other party of a contract; each signs exactly what runs",
            **({"must approve": "; ".join(map(str, m.approvers))} if m.approvers else {}),
            **({"may be drawn from": _drawing(m.drawing)} if m.drawing else {}),
            **self.terms.clauses,
        }

    def __repr__(self) -> str:
        return aligned(self.card.items())

    def _repr_html_(self) -> str:
        return rows_html(self.card.items()) + self._mock_html()

    def _mock_html(self) -> str:
        """The mock's first rows. A notebook shows what is wrong, and no traceback."""
        if not self.is_table:
            return ""
        try:
            table = self.mock_arrow
        except StrongroomError as error:
            return f"<p><b>{text_html(error.code)}</b>: {text_html(error.message)}</p>"
        figure = figures.first(table, SHOWN_ROWS)
        more = f"; {len(figure.header)} of {table.num_columns} columns" if table.num_columns > len(figure.header) else ""
        caption = f"<p>The mock: {table.num_rows:,} rows, of which {len(figure.rows)}{more}</p>"
        return caption + table_html(figure.header, figure.rows)


class Assets(Mapping[str, Asset]):
    """What the pinned parties offer, the newest of each name, as the exchange showed it once.

    ``assets["NAME"]`` where one owner alone offers that; ``assets["OWNER/NAME"]`` and ``assets["sha256:…"]`` always.

    Args:
        room: who looks.
    """

    def __init__(self, room: Room) -> None:
        self._room = room
        self._all = room.manifests()
        self._newest: dict[str, Manifest] = {}
        for manifest in self._all:
            name = f"{manifest.owner}/{manifest.name}"
            # by the time that the owner signed, and not by the order in which an exchange shows them
            if name not in self._newest or manifest.created_at >= self._newest[name].created_at:
                self._newest[name] = manifest
        self._seen = self._remember()

    def _remember(self) -> dict[str, int]:
        """When the newest offer of each name was made that was ever seen here; new ones are written down."""
        kept = self._room.home.offers()
        seen: dict[str, int] = {}
        for name, value in kept.items():
            f = Fields(value, "offers.json")
            seen[name] = f.integer("created_at")
        newer = {n: m for n, m in self._newest.items() if n not in seen or m.created_at > seen[n]}
        if newer:
            said = {n: {"created_at": m.created_at, "manifest": m.digest} for n, m in newer.items()}
            self._room.home.save_offers({**kept, **said})
        return seen

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._newest))

    def __len__(self) -> int:
        return len(self._newest)

    def __contains__(self, reference: object) -> bool:
        try:
            return isinstance(reference, str) and bool(self[reference])
        except NotFound:
            return False

    def get(self, reference: str, default: object = None) -> object:  # type: ignore[override]
        """As of any mapping: ``default`` where there is no such asset."""
        try:
            return self[reference]
        except NotFound:
            return default

    def __getitem__(self, reference: str) -> Asset:
        """An asset by name, owner and name, or digest.

        Raises:
            NotFound, OlderOffer; Usage: several owners offer one of that name.
        """
        for manifest in self._all:
            if manifest.digest == reference:
                return Asset(self._room, manifest)
        names = [n for n in self._newest if reference in (n, n.partition("/")[2])]
        if len(names) > 1:
            raise Usage(f"{' and '.join(sorted(names))} are offered", hint="Say whose: room.assets['OWNER/NAME']")
        if not names:
            seen = [n for n in self._seen if reference in (n, n.partition("/")[2])]
            withheld = "; it was offered before, and this exchange does not show it now" if seen else ""
            raise NotFound(
                f"no asset {reference!r} of a pinned party{withheld}",
                hint="Name it OWNER/NAME, as `strongroom status` lists it.",
            )
        manifest = self._newest[names[0]]
        if manifest.created_at < self._seen.get(names[0], 0):
            raise OlderOffer(f"the exchange shows an older offer of {names[0]} than it did before")
        return Asset(self._room, manifest)

    def listed(self) -> dict[str, Asset]:
        """Every asset by ``OWNER/NAME``, those too of which only an older offer is shown."""
        return {name: Asset(self._room, self._newest[name]) for name in self}

    def rows(self) -> list[list[str]]:
        """What is offered, under :data:`HEADER`."""
        found = []
        for name in self:
            m = self._newest[name]
            stale = " (older than before)" if m.created_at < self._seen.get(name, 0) else ""
            mock = f"{m.mock.size:,} bytes" if m.mock else "none"
            found.append([name + stale, m.kind, ", ".join(sorted(m.terms.uses)), mock, time_said(m.created_at)])
        return found

    def __repr__(self) -> str:
        if not self._newest:
            return "No pinned party offers anything here."
        rows = [list(HEADER), *self.rows()]
        widths = [max(len(row[place]) for row in rows) for place in range(len(HEADER))]
        return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)

    def _repr_html_(self) -> str:
        return table_html(list(HEADER), self.rows()) if self._newest else f"<p>{self!r}</p>"


def _drawing(terms: Drawing) -> str:
    return f"by {', '.join(sorted(terms.models))}: {drawn(terms.price, terms.token, terms.total)}"


HEADER = ("asset", "kind", "uses", "mock", "offered")


def forget(room: Room, name: str) -> None:
    """Take whatever offer of ``OWNER/NAME`` the exchange shows next. Raises NotFound."""
    kept = room.home.offers()
    if kept.pop(name, None) is None:
        raise NotFound(f"no offer of {name!r} was seen here")
    room.home.save_offers(kept)


@contextmanager
def _progress(label: str, total: int) -> Iterator[Callable[[int], object]]:
    """Bytes of something slow, shown once it takes longer than two seconds."""
    from tqdm import tqdm

    with tqdm(desc=label, total=total, unit="B", unit_scale=True, leave=False, delay=QUIET_SECONDS) as bar:
        yield bar.update
