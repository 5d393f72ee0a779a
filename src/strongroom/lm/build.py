"""Building a source: parts are read into vectors and tokens (``lm.part``), and merged into one folder.

What is merged does not depend on how it was divided into parts and runs, nor on where a build was interrupted: the same
files give the same bytes. Memory does not grow with the source. Nothing is in a store before all of it is there.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from strongroom.errors import EmptySource, NotRemoved, SourceTwice

from .datastore import BUILDING, PARTS, Head, add, manifests
from .disk import durable, put, remove, roomy
from .locks import alone, emptied
from .part import RUN, Part, Progress, Runs
from .parts import CHUNK, Parts
from .source import About, Checked, File, Manifest, check
from .texts import Texts

_PIECE: Final = 1 << 20
_OFFSETS: Final = 1 << 16  # documents worked on at once

Told = Callable[[Progress], None]


def build(
    store: Path | str,
    about: About,
    texts: Texts,
    *,
    skip: bool = False,
    replace: bool = False,
    restart: bool = False,
    run: int = RUN,
    said: Told = lambda _progress: None,
) -> Manifest:
    """Build a source, and put it into a store.

    A build that ended before its end goes on where it was when it is asked for again.

    Args:
        store: one that there is.
        about: what its owner says of it.
        texts: its files.
        skip: pass over what is no document, and count it.
        replace: in the place of a source of that name.
        restart: throw away what was built of it before.
        run: chunks that are held in memory.
        said: told how far it is.

    Raises:
        SourceTwice, EmptySource, StoreBusy, InputChanged, DiskFull; BadDocument, EmptyDocument, DocumentTooLong, NotUtf8,
        NotATextFile; and what opening a store raises.
    """

    def read(folder: Path, parts: Parts) -> list[Path]:
        Part(folder / "part-0", parts, texts, skip=skip, run=run).build(said)
        return [folder / "part-0"]

    return made(Path(store), about, read, replace=replace, restart=restart)


def made(
    store: Path, about: About, read: Callable[[Path, Parts], list[Path]], *, replace: bool = False, restart: bool = False
) -> Manifest:
    """Put what is read into parts into a store, as one source.

    Args:
        store, about, replace, restart: as of :func:`build`.
        read: makes parts in a folder, and says where they are, in order.

    Raises:
        as :func:`build`.
    """
    if about.name in manifests(store) and not replace:
        raise SourceTwice(f"the store has a source {about.name} already")
    parts = Parts.load(store / PARTS)
    folder = store / BUILDING / f"source-{about.name}"
    with roomy(), alone(folder):
        if restart:
            for piece in folder.glob("part-*"):
                remove(piece)
        pieces = read(folder, parts)
        found = finish(pieces, about, parts, folder / "whole")
        add(store, found, replace=replace)
        if not emptied(folder):
            raise NotRemoved("the source is in the store, but what it was built of could not be removed")
    return found.manifest


def finish(pieces: Sequence[Path], about: About, parts: Parts, folder: Path) -> Checked:
    """Merge parts that are whole, in their order, into a source in a folder of its own.

    Raises:
        HalfBuilt: one is not whole. EmptySource: no document is in any of them. OSError, where the disk is full.
    """
    remove(folder)
    folder.mkdir(parents=True)
    runs = []
    first = 0
    for piece in pieces:
        runs.append(Runs(piece, first, parts.quantizer.lists, parts.quantizer.dimensions))
        first += runs[-1].progress.chunks
    total = [run.progress for run in runs]
    if not sum(one.documents for one in total):
        raise EmptySource("no document is in it")
    files = {
        "tokens.u16": _write(folder / "tokens.u16", _joined(pieces, "tokens.u16")),
        "ids.utf8": _write(folder / "ids.utf8", _joined(pieces, "ids.utf8")),
        "documents.u64": _write(folder / "documents.u64", _offsets(pieces, "lengths.u64", 1)),
        "passages.u64": _write(folder / "passages.u64", _offsets(pieces, "lengths.u64", CHUNK)),
        "ids.u64": _write(folder / "ids.u64", _offsets(pieces, "id-lengths.u64", 1)),
        "index.faiss": _write(folder / "index.faiss", _index(runs, parts)),
    }
    manifest = Manifest(
        about,
        parts.digest,
        sum(one.documents for one in total),
        sum(one.tokens for one in total),
        sum(one.chunks for one in total),
        sum(one.characters for one in total),
        sum(one.passed_over for one in total),
        files,
    )
    put(folder / "manifest.json", manifest.encode())
    durable(folder.parent)
    return check(folder, parts)


def _write(path: Path, pieces: Iterator[bytes]) -> File:
    sha, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        for piece in pieces:
            file.write(piece)
            sha.update(piece)
            size += len(piece)
        file.flush()
        os.fsync(file.fileno())
    return File(size, f"sha256:{sha.hexdigest()}")


def _joined(pieces: Sequence[Path], name: str) -> Iterator[bytes]:
    for piece in pieces:
        with (piece / name).open("rb") as file:
            while data := file.read(_PIECE):
                yield data


def _offsets(pieces: Sequence[Path], name: str, unit: int) -> Iterator[bytes]:
    """Where each begins, and where the last ends, from their lengths in units, the last of each rounded up."""
    at = 0
    yield np.zeros(1, "<u8").tobytes()
    for piece in pieces:
        with (piece / name).open("rb") as file:
            while data := file.read(8 * _OFFSETS):
                ends = at + np.cumsum(-(-np.frombuffer(data, "<u8").astype(np.int64) // unit))
                at = int(ends[-1])
                yield ends.astype("<u8").tobytes()


def _index(runs: Sequence[Runs], parts: Parts) -> Iterator[bytes]:
    sizes = np.sum([run.sizes for run in runs], axis=0).astype(np.int64)
    yield parts.quantizer.head(sizes)
    for number in range(len(sizes)):
        numbers = []
        for run in runs:
            for vectors, of in run.take(number):
                yield vectors
                numbers.append(of)
        yield np.concatenate([np.empty(0, np.int64), *numbers]).astype("<i8").tobytes()


def head_of(store: Path | str) -> Head:
    """What is in a store now."""
    return Head.read(Path(store))
