"""Batches with their neighbours, ahead of the step that learns from them.

A batch is a function of a plan, a store's version and its number, so that a training that goes on has the batches that it
would have had. Worker processes search while the model learns; what they give names the version that they searched, and of
another version nothing is used. Or the search is done beforehand (:func:`precompute`), for a training that is repeated.

A document is never its own neighbour, and a neighbour that has too many runs of three tokens in common with what is to be
learned is a copy of it and may be left out. Some windows get neighbours drawn at random, so that the gate learns when to
close.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import queue
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from strongroom.errors import BadTraining, OtherTraining

from .datastore import Datastore
from .parts import CHUNK, NEIGHBOUR
from .tokenizer import PAD

_AFTER: Final = NEIGHBOUR
_WAIT: Final = 0.5


@dataclass(frozen=True, slots=True)
class Plan:
    """Which windows a training reads, and which neighbours they get.

    Attributes:
        sources: public ones, that are learned from, each as often as it is long.
        seed: of everything that is drawn.
        windows: in a batch.
        window: tokens asked for of a window.
        every: tokens that share a list of neighbours.
        neighbours: of a list.
        random: parts in a thousand of windows that get neighbours drawn from their own source.
        strange: the same, drawn from any source.
        alike: parts in a thousand of a neighbour's runs of three tokens that may stand in what is read; more is a copy and
            is
            left out. 1000 leaves out none.
    """

    sources: tuple[str, ...]
    seed: int = 0
    windows: int = 8
    window: int = 512
    every: int = 32
    neighbours: int = 4
    random: int = 150
    strange: int = 150
    alike: int = 1000

    def __post_init__(self) -> None:
        """Raises BadTraining."""
        if not self.sources or len(set(self.sources)) != len(self.sources):
            raise BadTraining("a training reads at least one source, and each once")
        if min(self.windows, self.window, self.every, self.neighbours) < 1 or self.window % self.every:
            raise BadTraining("a window is a multiple of the stretch that shares neighbours")
        if min(self.random, self.strange, self.alike) < 0 or max(self.random + self.strange, self.alike) > 1000:
            raise BadTraining("shares are parts in a thousand")

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Batch:
    """Windows and what was found for them.

    Attributes:
        number: which one.
        version: of the store.
        tokens: ``int32[windows, window + 1]``.
        neighbours: ``int32[windows, stretches, k, 128]``.
        scores: ``float32[windows, stretches, k]``, -1 where there is none.
    """

    number: int
    version: str
    tokens: NDArray[np.int32]
    neighbours: NDArray[np.int32]
    scores: NDArray[np.float32]


class Supply:
    """Makes batches.

    Args:
        store: that has the plan's sources.
        plan: the plan.
        kept: a folder of :func:`precompute`, for this plan and this version of the store.

    Raises:
        NoSource. BadTraining: a source is shorter than a window. OtherTraining: what was kept is of another plan or version.
    """

    def __init__(self, store: Datastore, plan: Plan, kept: Path | None = None) -> None:
        self.store, self.plan = store, plan
        self._sources = [store.source(name) for name in plan.sources]
        lengths = np.array([len(source.tokens) - plan.window - CHUNK - _AFTER for source in self._sources], float)
        if (lengths < 1).any():
            raise BadTraining("a source is too short for a window")
        self._shares = lengths / lengths.sum()
        self._kept = None if kept is None else _Kept(kept, store.version, plan)

    def batch(self, number: int) -> Batch:
        """Batch ``number``."""
        rows = [self._window(number, row) for row in range(self.plan.windows)]
        tokens, neighbours, scores = (np.stack(column) for column in zip(*rows, strict=True))
        return Batch(number, self.store.version, tokens, neighbours, scores)

    def _window(self, number: int, row: int) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
        plan = self.plan
        random = np.random.default_rng((plan.seed, number, row))
        source = self._sources[int(random.choice(len(self._sources), p=self._shares))]
        start = CHUNK + int(random.integers(0, len(source.tokens) - plan.window - CHUNK - _AFTER))
        kind, other = int(random.integers(1000)), int(random.integers(len(self._sources)))
        stretches = plan.window // plan.every
        if kind < plan.random + plan.strange:
            of = source if kind < plan.random else self._sources[other]
            passages = random.integers(0, of.manifest.chunks, (stretches, plan.neighbours))
            scores = np.sort(random.uniform(0.2, 0.95, passages.shape), axis=1)[:, ::-1].astype(np.float32)
        else:
            of = source
            passages, scores = self._kept.hits(number, row) if self._kept else self.search(source.name, start)
        near, _ = of.neighbours(passages)
        found = np.where(passages < 0, -1.0, np.maximum(scores, -1.0)).astype(np.float32)
        tokens = np.asarray(source.tokens[start : start + plan.window + 1], np.int32)
        return tokens, np.asarray(near, np.int32), found

    def search(self, name: str, start: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Passages and scores for the stretches of the window that starts at a token of a source, ``[stretches, k]``."""
        plan, source = self.plan, self.store.source(name)
        at = start + np.arange(0, plan.window, plan.every)
        queries = source.tokens[(at - CHUNK)[:, None] + np.arange(CHUNK)]
        of = np.searchsorted(source.documents, at.astype(np.uint64), side="right") - 1
        filtered = plan.alike < 1000
        k = plan.neighbours * (3 if filtered else 1)
        hits = self.store.search(queries, k, source.key + of.astype(np.int64), names=[name])[name]
        passages, scores = hits.passages, hits.scores
        if filtered:
            read = source.tokens[(at - CHUNK)[:, None] + np.arange(2 * CHUNK)]
            copies = alike(source.neighbours(passages)[0], read) * 1000 > plan.alike
            order = np.argsort(copies | (passages < 0), axis=1, kind="stable")
            passages = np.take_along_axis(np.where(copies, -1, passages), order, 1)
            scores = np.take_along_axis(scores, order, 1)
        return passages[:, : plan.neighbours], scores[:, : plan.neighbours]

    def drawn(self, number: int, row: int) -> tuple[str, int]:
        """The source and the first token of a window."""
        random = np.random.default_rng((self.plan.seed, number, row))
        source = self._sources[int(random.choice(len(self._sources), p=self._shares))]
        return source.name, CHUNK + int(random.integers(0, len(source.tokens) - self.plan.window - CHUNK - _AFTER))


def alike(neighbours: NDArray[Any], read: NDArray[Any]) -> NDArray[np.float64]:
    """The share of each neighbour's runs of three tokens that stand in what is read.

    Args:
        neighbours: ``int[n, k, w]``, filled up with ``PAD``.
        read: ``int[n, v]``.

    Returns:
        ``float64[n, k]``.
    """

    def runs(tokens: NDArray[Any]) -> NDArray[np.int64]:
        wide = tokens.astype(np.int64)
        found = (wide[..., 2:] << 32) | (wide[..., 1:-1] << 16) | wide[..., :-2]
        return np.where((wide[..., 2:] == PAD) | (wide[..., :-2] == PAD), -1, found)

    theirs, ours = runs(neighbours), runs(read)
    same = np.stack([np.isin(one, mine[mine >= 0]) for one, mine in zip(theirs, ours, strict=True)])
    return np.asarray(same.sum(-1) / np.maximum(1, (theirs >= 0).sum(-1)), np.float64)


# --- beforehand -----------------------------------------------------------------------------------------------------


class _Kept:
    def __init__(self, folder: Path, version: str, plan: Plan) -> None:
        try:
            said = json.loads((folder / "neighbours.json").read_text())
            if said["version"] != version or said["plan"] != plan.digest:
                raise OtherTraining("the neighbours that were kept are of another plan, or of another version of the store")
            shape = (said["batches"], plan.windows, plan.window // plan.every, plan.neighbours)
            self._passages = np.memmap(folder / "passages.i64", "<i8", "r", shape=shape)
            self._scores = np.memmap(folder / "scores.f32", "<f4", "r", shape=shape)
        except (OSError, ValueError, KeyError, TypeError):
            raise OtherTraining("the neighbours that were kept cannot be read") from None

    def hits(self, number: int, row: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        if number >= len(self._passages):
            raise OtherTraining("neighbours were kept for fewer batches than are asked for")
        return np.array(self._passages[number, row]), np.array(self._scores[number, row])


def precompute(store: Datastore, plan: Plan, batches: int, folder: Path) -> None:
    """Search for the neighbours of all batches beforehand. What is in the folder is good for this plan and version alone."""
    supply = Supply(store, plan)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "neighbours.json").unlink(missing_ok=True)
    with (folder / "passages.i64").open("wb") as passages, (folder / "scores.f32").open("wb") as scores:
        for number in range(batches):
            for row in range(plan.windows):
                found = supply.search(*supply.drawn(number, row))
                passages.write(found[0].astype("<i8").tobytes())
                scores.write(found[1].astype("<f4").tobytes())
    said = {"batches": batches, "plan": plan.digest, "version": store.version}
    (folder / "neighbours.json").write_text(json.dumps(said))


# --- ahead ----------------------------------------------------------------------------------------------------------


def _work(path: str, version: str, plan: Plan, kept: str | None, numbers: range, out: Any) -> None:  # noqa: PLR0917
    try:
        store = Datastore.open(path)
        if store.version != version:
            raise OtherTraining("the store was changed since the training began")  # noqa: TRY301 - told as all others are
        supply = Supply(store, plan, None if kept is None else Path(kept))
        for number in numbers:
            if not _put(out, supply.batch(number)):
                return
    except Exception as error:  # noqa: BLE001 - whatever it is, who waits for the batch has to know
        _put(out, error)


def _put(out: Any, what: Batch | Exception) -> bool:
    """Hand something over, and wait for room; False where nobody is there any more: a killed training leaves no process."""
    parent = multiprocessing.parent_process()
    while True:
        try:
            out.put(what, timeout=_WAIT)
        except queue.Full:
            if parent is not None and not parent.is_alive():
                out.cancel_join_thread()
                return False
        else:
            return True


class Ahead:
    """Batches from worker processes, in their order; a context manager.

    Args:
        path: of the store.
        version: that it must have.
        plan: the plan.
        first, end: which batches.
        workers: processes; 0 makes each batch when it is asked for.
        ahead: batches that a worker is ahead at most.
        kept: as of :class:`Supply`.

    Attributes:
        waited: seconds that were waited for batches.
    """

    def __init__(
        self,
        path: Path,
        version: str,
        plan: Plan,
        first: int,
        end: int,
        *,
        workers: int = 1,
        ahead: int = 4,
        kept: Path | None = None,
    ) -> None:
        self._version, self._first, self._end, self.waited = version, first, end, 0.0
        self._processes: list[Any] = []
        self._queues: list[Any] = []
        self._supply: Supply | None = None
        if workers == 0:
            store = Datastore.open(path)
            if store.version != version:
                raise OtherTraining("the store was changed since the training began")
            self._supply = Supply(store, plan, kept)
        spawn = multiprocessing.get_context("spawn")
        for worker in range(workers):
            out = spawn.Queue(ahead)
            numbers = range(first + worker, end, workers)
            said = (str(path), version, plan, None if kept is None else str(kept), numbers, out)
            self._queues.append(out)
            self._processes.append(spawn.Process(target=_work, args=said, daemon=True))

    def __enter__(self) -> Self:
        for process in self._processes:
            process.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join()
        for out in self._queues:
            out.close()
            out.cancel_join_thread()

    def __iter__(self) -> Iterator[Batch]:
        for number in range(self._first, self._end):
            began = time.monotonic()
            batch = self._take(number)
            self.waited += time.monotonic() - began
            if batch.number != number or batch.version != self._version:
                raise OtherTraining("a batch is of another number, or of another version of the store, than was asked for")
            yield batch

    def _take(self, number: int) -> Batch:
        if self._supply is not None:
            return self._supply.batch(number)
        of = (number - self._first) % len(self._queues)
        while True:
            try:
                found = self._queues[of].get(timeout=_WAIT)
            except queue.Empty:
                if not self._processes[of].is_alive():
                    raise OtherTraining("a process that makes batches ended by itself") from None
                continue
            if isinstance(found, Exception):
                raise found
            return found  # type: ignore[no-any-return]
