"""Stores that models retrieve from: building, dropping and adding at several sizes, and the memory of serving 10 GB.

Text is the statutes that lie beside the project, where they do, else made of drawn words. Larger sources are made of drawn
vectors: what dropping, adding and serving cost does not depend on what they say. Building is counted in the processor's
seconds on one thread, so that a busy machine shows as little as possible.
"""

from __future__ import annotations

import json
import lzma
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.update({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"})

import numpy as np

from strongroom.lm.build import _write, build
from strongroom.lm.datastore import BUILDING, SOURCES, Datastore, add, drop
from strongroom.lm.disk import put, remove
from strongroom.lm.nearest import index_file
from strongroom.lm.parts import Parts
from strongroom.lm.source import About, Manifest, check
from strongroom.lm.texts import Texts

SLOW = True
LIMIT_SECONDS = 3600
CORPORA = Path(__file__).resolve().parents[2] / "shared" / "corpora"
SIZES = (10_000, 100_000, 1_000_000)
SERVED = int(os.environ.get("STRONGROOM_BENCH_BYTES", "10000000000"))
QUERIES = 400
DIMENSIONS = 128
ENTRY = 4 * DIMENSIONS + 8 + 2 * 64  # bytes of a chunk: its vector, its number, its tokens

CHILD = """
import json, sys, time
import numpy as np
import strongroom.lm.datastore as datastore
from pathlib import Path

def memory():
    said = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(said[name].split()[0]) * 1024 for name in ("VmRSS", "RssAnon", "VmHWM")}

store = datastore.Datastore.open(sys.argv[1])
store.nearest(np.full((1, 64), 2), 1)
before = memory()
draw = np.random.default_rng(0)
size = store.tokenizer.size
began, most = time.perf_counter(), 0
for _ in range(int(sys.argv[2]) // 20):
    store.nearest(draw.integers(2, size, (20, 64)), 4)
    most = max(most, memory()["VmRSS"])
print(json.dumps({"before": before, "most": most, "anon": memory()["RssAnon"], "seconds": time.perf_counter() - began}))
"""


def texts(name: str, characters: int) -> list[str]:
    """Documents: real ones where they are, else of drawn words."""
    path = CORPORA / f"{name}.jsonl.xz"
    if path.exists():
        found, size = [], 0
        with lzma.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                found.append(json.loads(line)["text"])
                size += len(found[-1])
                if size > characters:
                    break
        return found
    draw = random.Random(name)
    words = ["".join(draw.choices("etaoinshrdlu", k=draw.randint(2, 9))) for _ in range(5000)]
    weights = [1 / (i + 1) for i in range(5000)]
    return [" ".join(draw.choices(words, weights, k=1000)) for _ in range(characters // 6500)]


def made(folder: Path, name: str, chunks: int, parts: Any) -> None:
    """A source of drawn vectors, in a folder of its own."""
    draw = np.random.default_rng(chunks)
    lists, size = parts.quantizer.lists, parts.tokenizer.size
    sizes = np.full(lists, chunks // lists, np.int64)
    sizes[: chunks - int(sizes.sum())] += 1

    def content() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        at = 0
        for number, count in enumerate(sizes):
            vectors = draw.standard_normal((int(count), DIMENSIONS), np.float32) * np.float32(0.05)
            vectors += parts.quantizer.centres[number]
            vectors /= np.sqrt(np.square(vectors).sum(axis=1, keepdims=True))
            yield vectors, np.arange(at, at + int(count))
            at += int(count)

    def tokens() -> Iterator[bytes]:
        for at in range(0, chunks, 1 << 16):
            yield draw.integers(2, size, 64 * min(1 << 16, chunks - at), np.uint16).tobytes()

    per = 16  # chunks of a document
    documents = -(-chunks // per)
    ends = np.minimum(np.arange(documents + 1) * per, chunks)
    folder.mkdir(parents=True)
    files = {
        "tokens.u16": _write(folder / "tokens.u16", tokens()),
        "documents.u64": _write(folder / "documents.u64", iter([(ends * 64).astype("<u8").tobytes()])),
        "passages.u64": _write(folder / "passages.u64", iter([ends.astype("<u8").tobytes()])),
        "ids.utf8": _write(folder / "ids.utf8", iter([b"d" * documents])),
        "ids.u64": _write(folder / "ids.u64", iter([np.arange(documents + 1).astype("<u8").tobytes()])),
        "index.faiss": _write(folder / "index.faiss", index_file(parts.quantizer, sizes, content())),
    }
    about = About(name, "nobody", "CC0-1.0")
    manifest = Manifest(about, parts.digest, documents, 64 * chunks, chunks, 64 * chunks * 3, 0, files)
    (folder / "manifest.json").write_bytes(manifest.encode())


def building(folder: Path, parts: Any) -> float:
    """Tokens built in one of the processor's seconds."""
    file = folder / "law.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts("law", 24_000_000)))
    Datastore.create(folder / "built", parts)
    began = time.process_time()
    manifest = build(folder / "built", About("law", "somebody", "CC0-1.0"), Texts.of([file]))
    return manifest.tokens / (time.process_time() - began)


def switching(folder: Path, parts: Any, chunks: int) -> tuple[float, float]:
    """Milliseconds of adding and of dropping a source, as readers see it; medians of five.

    In memory, where the machine has a file system there: how long a disk takes to say that it has a name is its own.
    """
    memory = Path("/dev/shm")
    store = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else folder)) / f"switched-{chunks}"
    Datastore.create(store, parts)
    made(store / BUILDING / "made", "big", chunks, parts)
    added, dropped = [], []
    for _ in range(5):
        checked = check(next(p for p in (store / BUILDING).iterdir() if p.is_dir()), parts)
        began = time.perf_counter()
        add(store, checked, reclaim=False)
        added.append(time.perf_counter() - began)
        assert len(list((store / SOURCES).iterdir())) == 1
        began = time.perf_counter()
        drop(store, "big", reclaim=False)
        dropped.append(time.perf_counter() - began)
    remove(store)
    return 1000 * statistics.median(added), 1000 * statistics.median(dropped)


def waited(folder: Path) -> float:
    """Milliseconds in which the disk has a small file and its name; the median of nine."""
    found = []
    for number in range(9):
        began = time.perf_counter()
        put(folder / "small", b"a" * (100 + number))
        found.append(time.perf_counter() - began)
    return 1000 * statistics.median(found)


def serving(folder: Path, parts: Any) -> dict[str, Any]:
    """A store of ten gigabytes in five sources, served by a process of its own."""
    store = folder / "served"
    Datastore.create(store, parts)
    for number in range(5):
        made(store / BUILDING / "made", f"s{number}", SERVED // 5 // ENTRY, parts)
        add(store, check(store / BUILDING / "made", parts))
    size = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    ran = subprocess.run([sys.executable, "-c", CHILD, str(store), str(QUERIES)], capture_output=True, text=True, check=True)
    return {**json.loads(ran.stdout), "size": size}


def figures() -> list[dict[str, Any]]:
    def figure(name: str, value: float, unit: str, goal: float | None, better: str, beside: str) -> dict[str, Any]:
        return {"name": name, "value": value, "unit": unit, "goal": goal, "better": better, "compared_with": beside}

    found = []
    with tempfile.TemporaryDirectory(dir=os.environ.get("STRONGROOM_BENCH_FOLDER")) as name:
        folder = Path(name)
        parts = Parts.train(texts("encyclopedia", 6_000_000))
        found.append(
            figure(
                "datastore: building",
                round(building(folder, parts), -2),
                "tokens a second",
                300_000,
                "higher",
                "of the processor's, one thread: JSON lines to a checked source with vectors, index and digests",
            )
        )
        disk = f"on this disk {waited(folder):.1f} ms come to it, which a small file and its name take to be there"
        for chunks in SIZES:
            added, dropped = switching(folder, parts, chunks)
            said = f"{chunks * ENTRY / 1e6:,.0f} MB, compared with its digests before; {disk}"
            found.append(figure(f"datastore: add, {chunks:,} passages", round(added, 2), "ms", 10, "lower", said))
            said = f"{chunks * ENTRY / 1e6:,.0f} MB, whose space is given back afterwards; {disk}"
            found.append(figure(f"datastore: drop, {chunks:,} passages", round(dropped, 2), "ms", 10, "lower", said))
        served = serving(folder, parts)
        said = (
            f"{served['size'] / 1e9:.1f} GB in five sources, {QUERIES:,} queries of 20 at once, 4 neighbours of each source"
        )
        whole, own = f"{said}; the whole process, at its most", f"{said}; without what is mapped from files"
        before = "the same process with the store open"
        cached = f"{said}; one thread, files in the system's cache as far as they fit"
        found += [
            figure("datastore: memory of serving", round(served["most"] / 1e6, 1), "MB", 1000, "lower", whole),
            figure("datastore: memory of serving, own", round(served["anon"] / 1e6, 1), "MB", None, "lower", own),
            figure("datastore: memory before", round(served["before"]["VmRSS"] / 1e6, 1), "MB", None, "lower", before),
            figure("datastore: queries", round(QUERIES / served["seconds"], 1), "a second", None, "higher", cached),
        ]
    return found


if __name__ == "__main__":
    for one in figures():
        print(json.dumps(one))
