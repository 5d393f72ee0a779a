"""A piece of a source while it is built: what was read of it so far, on disk, so that a build that is killed goes on.

    tokens.u16, ids.utf8, lengths.u64 (tokens of each document), id-lengths.u64
    run-N.vectors, run-N.numbers, run-N.sizes    vectors of some chunks by list, their numbers in this part, sizes of lists
    state.json                                   how far it is; replaced as a whole after each run

Memory holds the vectors of one run. Parts of one source, built side by side, are merged into the source that one part alone
would have made, byte for byte (``lm.build``).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from strongroom.errors import HalfBuilt, InputChanged

from .disk import durable, put
from .parts import CHUNK, Parts
from .retriever import chunked
from .texts import Document, Passed, Place, Texts
from .tokenizer import Tokens

RUN: Final = 1 << 16
"""Chunks of a run."""
_BATCH: Final = 1 << 18  # characters tokenized at once
_STREAMS: Final = ("tokens.u16", "ids.utf8", "lengths.u64", "id-lengths.u64")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a part is.

    Attributes:
        inputs: what the system told of each input file when it began, and which piece of them it is.
        parts: digest of the frozen parts.
        skip: whether what is no document is passed over.
        place: where to go on reading.
        documents, tokens, chunks, characters, passed_over, id_bytes: so far.
        runs: how many were written.
        whole: everything was read.
    """

    inputs: list[list[int]]
    parts: str
    skip: bool
    place: Place = Place()  # noqa: RUF009 - frozen
    documents: int = 0
    tokens: int = 0
    chunks: int = 0
    characters: int = 0
    passed_over: int = 0
    id_bytes: int = 0
    runs: int = 0
    whole: bool = False

    @classmethod
    def read(cls, folder: Path) -> Progress | None:
        """``None`` where nothing was begun, or nothing came of it."""
        try:
            value = json.loads((folder / "state.json").read_bytes())
            return cls(**{**value, "place": Place(**value["place"])})
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None

    def write(self, folder: Path) -> None:
        put(folder / "state.json", json.dumps(asdict(self)).encode())


class Part:
    """A part that is being written.

    Args:
        folder: of this part alone.
        parts: the frozen parts.
        texts: what is read.
        skip: pass over what is no document, and count it; else it is an error.
        run: chunks of a run.
        first, end: where to begin, and where to end (``Texts.places``); the whole where not given.

    Raises:
        InputChanged: the folder holds a part of something else.
    """

    def __init__(
        self,
        folder: Path,
        parts: Parts,
        texts: Texts,
        *,
        skip: bool = False,
        run: int = RUN,
        first: Place = Place(),  # noqa: B008 - frozen
        end: Place | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        fresh = Progress(_inputs(texts, first, end), parts.digest, skip, first)
        self.progress = Progress.read(folder) or fresh
        begun = self.progress
        if (begun.inputs, begun.parts, begun.skip) != (fresh.inputs, fresh.parts, fresh.skip):
            raise InputChanged("what was built so far is of other files, of other frozen parts, or was built otherwise")
        self._folder, self._parts, self._texts, self._run = folder, parts, texts, run
        self._first, self._end = first, end
        self._vectors: list[NDArray[np.float32]] = []
        self._lists: list[NDArray[np.int64]] = []
        self._held = 0  # chunks of the run that is being gathered

    def build(self, said: Callable[[Progress], None] = lambda _progress: None) -> Progress:
        """Read all that is left. ``said`` is told after each batch how far it is.

        Raises:
            what :meth:`Texts.read` raises; and what is wrong with a document that is none, unless such are passed over.
        """
        if self.progress.whole:
            return self.progress
        lengths = (
            self.progress.tokens * 2,
            self.progress.id_bytes,
            self.progress.documents * 8,
            self.progress.documents * 8,
        )
        files = [_opened(self._folder / name, length) for name, length in zip(_STREAMS, lengths, strict=True)]
        try:
            for batch in self._batches():
                self._take(batch, files)
                said(self.progress)
                if self._held >= self._run:
                    self._flush(files)
            if _inputs(self._texts, self._first, self._end) != self.progress.inputs:
                raise InputChanged("a file was changed while it was read")
            self.progress = replace(self.progress, whole=True)
            self._flush(files)
        finally:
            for file in files:
                file.close()
        return self.progress

    def _batches(self) -> Iterator[list[Document]]:
        batch: list[Document] = []
        size = 0
        for found in self._texts.read(self.progress.place, self._end):
            if isinstance(found, Passed):
                if not self.progress.skip:
                    raise found.error
                if batch:
                    yield batch
                    batch, size = [], 0
                self.progress = replace(self.progress, passed_over=self.progress.passed_over + 1, place=found.after)
                continue
            batch.append(found)
            size += len(found.text)
            if size >= _BATCH:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _take(self, batch: list[Document], files: list[Any]) -> None:
        tokens = self._parts.tokenizer.encode_many([one.text for one in batch])
        ids = [one.id.encode("utf-8") for one in batch]
        chunks = chunked(tokens, CHUNK)
        for at in range(0, len(chunks), RUN):  # a long document is worked on in pieces
            vectors = self._parts.retriever.embed(chunks[at : at + RUN])
            self._vectors.append(vectors)
            self._lists.append(self._parts.quantizer.lists_of(vectors)[1][:, 0])
        self._held += len(chunks)
        for file, data in zip(files, _streams(tokens, ids), strict=True):
            file.write(data)
        now = self.progress
        self.progress = replace(
            now,
            place=batch[-1].after,
            documents=now.documents + len(batch),
            tokens=now.tokens + sum(map(len, tokens)),
            chunks=now.chunks + len(chunks),
            characters=now.characters + sum(len(one.text.encode("utf-8")) for one in batch),
            id_bytes=now.id_bytes + sum(map(len, ids)),
        )

    def _flush(self, files: list[Any]) -> None:
        """Have all of it on the disk, and say so."""
        for file in files:
            file.flush()
            os.fsync(file.fileno())
        if self._held:
            lists = np.concatenate(self._lists)
            order = np.argsort(lists, kind="stable")
            first = self.progress.chunks - self._held
            run = _run(self._folder, self.progress.runs)
            vectors = np.concatenate(self._vectors)
            with run("vectors").open("wb") as file:
                for at in range(0, len(order), 4096):
                    file.write(vectors[order[at : at + 4096]].astype("<f4").tobytes())
            run("numbers").write_bytes((order + first).astype("<i8").tobytes())
            run("sizes").write_bytes(np.bincount(lists, minlength=self._parts.quantizer.lists).astype("<i8").tobytes())
            for what in ("vectors", "numbers", "sizes"):
                durable(run(what))
            self._vectors, self._lists, self._held = [], [], 0
            self.progress = replace(self.progress, runs=self.progress.runs + 1)
        self.progress.write(self._folder)


def _inputs(texts: Texts, first: Place, end: Place | None) -> list[list[int]]:
    places = [[place.file, place.documents, place.offset] for place in (first, end) if place is not None]
    return [*texts.state(), *places]


def _streams(tokens: list[Tokens], ids: list[bytes]) -> tuple[bytes, ...]:
    return (
        b"".join(one.astype("<u2").tobytes() for one in tokens),
        b"".join(ids),
        np.asarray([len(one) for one in tokens], "<u8").tobytes(),
        np.asarray([len(one) for one in ids], "<u8").tobytes(),
    )


def _opened(path: Path, length: int) -> Any:
    """A file as long as it was when the last run was written, to be written on."""
    file = path.open("r+b" if path.exists() else "w+b")
    if file.seek(0, 2) < length:
        file.close()
        raise HalfBuilt("what was built so far was cut short", hint="Begin anew: --restart")
    file.truncate(length)
    file.seek(length)
    return file


def _run(folder: Path, number: int) -> Callable[[str], Path]:
    return lambda what: folder / f"run-{number:06}.{what}"


class Runs:
    """The vectors of a part that is whole, list by list.

    Args:
        folder: the part's.
        first: the number of its first chunk in the source.
        lists, dimensions: of the quantizer.
    """

    def __init__(self, folder: Path, first: int, lists: int, dimensions: int) -> None:
        progress = Progress.read(folder)
        if progress is None or not progress.whole:
            raise HalfBuilt("a part of the source is not whole")
        self.progress, self._first, self._width = progress, first, 4 * dimensions
        runs = [_run(folder, number) for number in range(progress.runs)]
        found = [np.frombuffer(run("sizes").read_bytes(), "<i8") for run in runs]
        self._sizes = np.stack(found) if found else np.zeros((0, lists), np.int64)
        self._files = [(run("vectors"), run("numbers")) for run in runs]
        self._behind = np.zeros(len(runs), np.int64)  # vectors of each run that were taken

    @property
    def sizes(self) -> NDArray[np.int64]:
        return np.asarray(self._sizes.sum(axis=0), np.int64)

    def take(self, number: int) -> Iterator[tuple[bytes, NDArray[np.int64]]]:
        """A list's vectors and their chunks' numbers, run by run. Lists are asked for in order, each once."""
        for run, (vectors, numbers) in enumerate(self._files):  # opened for each list anew: there can be thousands
            size, behind = int(self._sizes[run, number]), int(self._behind[run])
            self._behind[run] += size
            if size:
                yield (
                    _read(vectors, behind * self._width, size * self._width),
                    np.frombuffer(_read(numbers, 8 * behind, 8 * size), "<i8") + self._first,
                )


def _read(path: Path, at: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(at)
        return file.read(size)
