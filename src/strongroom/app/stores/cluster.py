"""Building sources and asking for neighbours on a Ray cluster, as jobs of Ray Data.

The work is cut into pieces: of a source's files, or of one source's queries. Each piece is one row, and what becomes of it
lies in files that all nodes reach. They are merged in the order of the pieces, so that the result is the same, byte for
byte, as that of one process. A piece that a node had begun goes on where it was.

Ray executes what it is given on every node, and is trusted like the machine itself: owners' text lies in the open on it. No
part of a contract runs here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np

from strongroom.errors import MissingExtra, NoCluster, StrongroomError, from_json
from strongroom.lm.build import made
from strongroom.lm.datastore import PARTS, Datastore
from strongroom.lm.disk import remove, roomy
from strongroom.lm.lists import Queries, listed, table
from strongroom.lm.part import Part
from strongroom.lm.parts import Parts
from strongroom.lm.source import About, Manifest
from strongroom.lm.texts import Place, Texts

Row = dict[str, Any]
_THREADS: Final = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}  # a piece has one processor


class Cluster:
    """A Ray cluster.

    Args:
        address: ``ray://HOST:PORT``, of its port for clients; or ``HOST:PORT``, from a process on one of its nodes.

    Raises:
        MissingExtra. NoCluster: it does not answer.
    """

    def __init__(self, address: str) -> None:
        try:
            import ray
            import ray.data
        except ImportError as error:
            raise MissingExtra("a cluster needs Ray", hint="pip install 'strongroom[store,ray]'") from error
        self._ray = ray
        try:
            ray.init(address, ignore_reinit_error=True, log_to_driver=False)
        except Exception as error:  # whatever a library of that size raises
            raise NoCluster(f"no Ray cluster answers: {error.__class__.__name__}") from error

    def _each(self, rows: list[Row], work: Callable[[Row], Row]) -> list[Row]:
        """Do the work of each row on one of the cluster's processors; in the order of the rows.

        Raises what the first of them raised that did.
        """

        def all_of(rows: list[Row]) -> list[Row]:
            import ray.data

            ray.data.DataContext.get_current().enable_progress_bars = False
            found: list[Row] = ray.data.from_items(rows, override_num_blocks=len(rows)).map(work, num_cpus=1).take_all()
            return found

        # In a task, so that a client's connection carries rows alone.
        remote = self._ray.remote(num_cpus=0, runtime_env={"env_vars": _THREADS})(all_of)
        done: Any = self._ray.get(remote.remote(rows))
        found: list[Row] = sorted(done, key=lambda row: int(row["number"]))
        for row in found:
            if row["error"]:
                raise from_json(row["error"])
        return found

    def build(
        self, store: Path, about: About, texts: Texts, *, pieces: int, skip: bool = False, replace: bool = False
    ) -> Manifest:
        """Build a source in pieces; the same bytes as ``lm.build.build``.

        Args:
            store: a store in a folder that all nodes reach by this name; so are the files.
            about, texts, skip, replace: as there.
            pieces: about how many.

        Raises:
            as there.
        """

        def read(folder: Path, _parts: Parts) -> list[Path]:
            places = texts.places(pieces)
            ends: list[Place | None] = [*places[1:], None]
            rows = [
                {
                    "number": number,
                    "store": str(store.absolute()),
                    "folder": str(folder.absolute() / f"part-{number}"),
                    "files": [str(path.absolute()) for path in texts.files],
                    "names": list(texts.names),
                    "first": asdict(first),
                    "end": asdict(end) if end is not None else None,
                    "skip": skip,
                }
                for number, (first, end) in enumerate(zip(places, ends, strict=True))
            ]
            self._each(rows, built)
            return [folder / f"part-{number}" for number in range(len(rows))]

        return made(store, about, read, replace=replace)

    def ask(self, store: Path, queries: Queries, folder: Path, *, pieces: int) -> None:
        """Find the neighbours of queries in each source, and keep them as ``lm.lists.listed`` does, byte for byte.

        Args:
            store: in a folder that all nodes reach by this name.
            queries: what is asked.
            folder: where lists are kept; reached by all nodes too.
            pieces: about how many for each source.
        """
        opened = Datastore.open(store)
        with roomy(), _beside(folder) as place:
            np.save(place / "tokens.npy", np.asarray(queries.tokens, np.uint16))
            np.save(place / "without.npy", np.asarray(queries.without if queries.without is not None else [], np.int64))
            for name in opened.names:
                (place / name).mkdir()
            cuts = np.linspace(0, len(queries.tokens), max(1, min(pieces, len(queries.tokens))) + 1).astype(int).tolist()
            rows = [
                {
                    "number": number,
                    "store": str(store.absolute()),
                    "source": name,
                    "version": opened.version,
                    "place": str(place.absolute()),
                    "k": queries.k,
                    "first": first,
                    "end": end,
                }
                for number, (name, first, end) in enumerate(
                    (name, first, end) for name in opened.names for first, end in pairwise(cuts)
                )
            ]
            self._each(rows, asked)
            listed(opened, queries, folder, made=place)


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    place = folder / f".asked-{os.getpid()}"
    remove(place)
    place.mkdir(parents=True)
    try:
        yield place
    finally:
        remove(place)


def _result(number: int, work: Callable[[], object]) -> Row:
    try:
        with roomy():
            work()
    except StrongroomError as error:
        return {"number": number, "error": error.to_json()}
    return {"number": number, "error": None}


def built(row: Row) -> Row:
    """Build one piece of a source; on a node."""

    def work() -> None:
        texts = Texts([Path(path) for path in row["files"]], row["names"])
        end = Place(**row["end"]) if row["end"] is not None else None
        parts = Parts.load(Path(row["store"]) / PARTS)
        Part(Path(row["folder"]), parts, texts, skip=row["skip"], first=Place(**row["first"]), end=end).build()

    return _result(row["number"], work)


def asked(row: Row) -> Row:
    """Ask one piece of the queries of one source; on a node."""

    def work() -> None:
        store = Datastore.open(row["store"])
        if store.version != row["version"]:
            raise NoCluster("the store was changed while its neighbours were looked for", hint="Ask again.")
        place = Path(row["place"])
        tokens = np.load(place / "tokens.npy", mmap_mode="r")[row["first"] : row["end"]]
        without = np.load(place / "without.npy", mmap_mode="r")
        keys = without[row["first"] : row["end"]] if len(without) else None
        found = table(store, row["source"], tokens, row["k"], keys)
        (place / row["source"] / f"{row['first']:012}.part").write_bytes(found)

    return _result(row["number"], work)
