"""An engine in its child beside llama.cpp's own HTTP server on the same weights, and weights opened into memory.

Both sides get the same requests with the same settings, in turns, several rounds; a figure is the median of their ratios.
The client of the HTTP server does the least that a client can: it counts bytes. The models have random weights: what is
measured is how words come out, not which.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import llama_files
from strongroom.app.inference import worker
from strongroom.app.inference.weights import Weights
from strongroom.asset import About, AssetKey, FileSource, Manifest, seal
from strongroom.policy import ANY_PARTY, OutputRule, Policy
from strongroom.programs import serve_llm

LIMIT_SECONDS = 1500
SLOW = True
ROUNDS = 5
TOKENS = 128
PARALLEL = 32
CONTEXT = 512
CONCURRENCY = (1, 8, 32)
WEIGHTS_BYTES = 1 << 30
KEY = AssetKey(bytes(range(32)))
Row = dict[str, Any]

NATIVE = """
import json, sys, time, xllamacpp as x
path, threads, context, parallel = sys.argv[1], *map(int, sys.argv[2:])
p = x.CommonParams()
p.model.path, p.hostnames, p.port = path, ["127.0.0.1"], 0
p.offline, p.fit_params, p.warmup, p.verbosity = True, False, True, -1
p.n_ctx, p.n_parallel, p.kv_unified, p.n_batch, p.n_ubatch = context * parallel, parallel, False, 512, 512
p.cpuparams.n_threads = p.cpuparams_batch.n_threads = threads
p.no_extra_bufts, p.cache_ram_mib, p.n_threads_http = True, 0, parallel + 2
server = x.Server(p)
print(server.listening_address, flush=True)
sys.stdin.read()
"""


def question(n: int, tokens: int = TOKENS) -> dict[str, Any]:
    return {
        "logit_bias": {"0": -100, "1": -100, "2": -100},  # no end before the last token
        "max_tokens": tokens,
        "messages": [{"content": f"{n} tell me of the one which was not for you, and they had it " * 4, "role": "user"}],
        "model": "random",
        "seed": n,
    }


class Native:
    """llama.cpp's HTTP server in a process of its own."""

    def __init__(self, path: Path, threads: int) -> None:
        words = [sys.executable, "-c", NATIVE, str(path), str(threads), str(CONTEXT), str(PARALLEL)]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        self.host, _, port = self._process.stdout.readline().strip().removeprefix("http://").partition(":")
        self.port = int(port)

    async def ask(self, n: int, tokens: int) -> tuple[float, int]:
        """Seconds to the first piece, and how many tokens came."""
        asked = question(n, tokens) | {
            "stream": True,
            "stream_options": {"include_usage": True},
            "cache_prompt": False,
            "logit_bias": [[0, -100], [1, -100], [2, -100]],
        }
        body = json.dumps(asked).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
        began = time.perf_counter()
        reader, writer = await asyncio.open_connection(self.host, self.port, limit=1 << 20)
        writer.write(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
        first, tail = 0.0, b""
        while data := await reader.read(1 << 16):
            if not first and b'"content":"' in data:
                first = time.perf_counter() - began
            tail = (tail + data)[-2048:]
        writer.close()
        at = tail.index(b'"completion_tokens":') + 20
        return first, int(tail[at : tail.index(b",", at)])

    def close(self) -> None:
        self._process.communicate("")


class Ours:
    def __init__(self, engine: worker.Worker) -> None:
        self._engine = engine

    async def ask(self, n: int, tokens: int) -> tuple[float, int]:
        began, first = time.perf_counter(), 0.0
        async with aclosing(self._engine.ask("chat", json.dumps(question(n, tokens)).encode())) as answers:
            async for answer in answers:
                if not first and getattr(answer, "delta", None):
                    first = time.perf_counter() - began
        return first, answers.counted.completion_tokens


async def burst(side: Native | Ours, concurrency: int, requests: int, tokens: int) -> tuple[float, list[float]]:
    """Tokens a second, and the seconds to each first piece."""
    numbers, firsts, total = iter(range(requests)), [], 0

    async def client() -> None:
        nonlocal total
        for n in numbers:
            first, count = await side.ask(n, tokens)
            firsts.append(first)
            total += count

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(concurrency)))
    assert total == requests * tokens, "an answer is shorter than asked for"
    return total / (time.perf_counter() - began), firsts


async def compare(name: str, path: Path, threads: int, concurrencies: tuple[int, ...], rounds: int) -> list[Row]:
    given = {"models": [{"engine": "llama.cpp", "name": "random", "role": "model"}], "context_tokens": CONTEXT}
    more = {"parallel": PARALLEL, "threads": threads, "max_tokens": CONTEXT}
    parameters = serve_llm.read({**serve_llm.DEFAULTS, **given, **more})
    weights = Weights.of_file(path)
    engine = await worker.start(parameters, parameters.models[0], weights, worker.Limits(memory_bytes=8 << 30))
    native, ours, rows = Native(path, threads), Ours(engine), []
    try:
        for concurrency in concurrencies:
            requests = max(2, concurrency) * 2
            ratios, later, speeds = [], [], []
            for n in range(rounds + 1):
                order = (native, ours) if n % 2 else (ours, native)
                found = {side: await burst(side, concurrency, requests, TOKENS) for side in order}
                if n:
                    ratios.append(found[ours][0] / found[native][0])
                    speeds.append(found[ours][0])
                    later.append(statistics.median(found[ours][1]) - statistics.median(found[native][1]))
            about = f"llama.cpp's HTTP server, {concurrency} at once, {threads} thread(s); median of {rounds} rounds"
            rows.append(
                row(f"throughput, {name}, {concurrency} at once", statistics.median(ratios), "x", 0.97, about, "higher")
            )
            rows.append(
                row(f"tokens a second, {name}, {concurrency} at once", statistics.median(speeds), "1/s", None, "", "higher")
            )
            rows.append(
                row(f"first piece later by, {name}, {concurrency} at once", 1e3 * statistics.median(later), "ms", 3.0, about)
            )
    finally:
        native.close()
        await engine.close()
        weights.close()
    return rows


def row(name: str, value: float, unit: str, goal: float | None, compared_with: str, better: str = "lower") -> Row:
    return {
        "name": f"engine: {name}", "value": round(value, 3), "unit": unit, "goal": goal, "better": better,
        "compared_with": compared_with,
    }  # fmt: skip


def speed(models: list[str], concurrencies: tuple[int, ...], rounds: int) -> list[Row]:
    shapes = {"17M": llama_files.MILLIONS_14, "50M": llama_files.MILLIONS_50}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in models:
            path = llama_files.write(Path(folder) / f"{name}.gguf", shapes[name])
            rows += asyncio.run(compare(name, path, 1, concurrencies, rounds))
    return rows


def sealed(folder: Path) -> tuple[Path, Path, Manifest]:
    """A plain file of 1 GiB, and the sealed one, in memory where the machine has such a folder."""
    plain, sink = folder / "plain", folder / "sealed"
    piece = os.urandom(1 << 20)
    with plain.open("wb") as file:
        for n in range(WEIGHTS_BYTES >> 20):
            file.write(n.to_bytes(4, "big") + piece[4:])
    terms = Policy(uses=frozenset({"serve-llm"}), outputs={"report": OutputRule(ANY_PARTY, 1, 1, 1)})
    about = About("weights", "model", "application/vnd.gguf", "lab", 1767225600, terms, reveal_digest=True)
    with plain.open("rb", buffering=0) as source, sink.open("wb", buffering=0) as out:
        manifest = seal(source, out, key=KEY, salt=bytes(32), about=about, threads=2)  # type: ignore[arg-type]
    return plain, sink, manifest


def spent(action: Callable[[], Weights]) -> tuple[float, float]:
    """Seconds by the wall's clock, and of the processor."""
    wall, busy = time.perf_counter(), time.process_time()
    action().close()
    return time.perf_counter() - wall, time.process_time() - busy


def opening(rounds: int) -> list[Row]:
    """Weights from a sealed file into memory, beside the plain file into the same kind of memory."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        plain, sink, manifest = sealed(Path(folder))
        found = []
        for _ in range(rounds + 1):
            bare = spent(lambda: Weights.of_file(plain))
            with FileSource(sink) as source:
                found.append((bare, spent(lambda source=source: Weights.opened(source, manifest, KEY, threads=2))))
    walls = statistics.median(ours[0] / bare[0] for bare, ours in found[1:])
    busy = statistics.median(ours[1] for _, ours in found[1:])
    plainly = statistics.median(bare[1] for bare, _ in found[1:])
    about = "the plain file into memory, by one thread"
    return [
        row("1 GiB of sealed weights into memory, two threads", walls, "x", 1.5, about),
        row("the same, the processor's time", busy, "s", None, f"{plainly:.2f} s for the plain file"),
    ]


def figures() -> list[Row]:
    """Rows of ``figures.json``."""
    return [*speed(["17M", "50M"], CONCURRENCY, ROUNDS), *opening(ROUNDS)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="*", default=["17M", "50M"])
    parser.add_argument("--at", type=int, nargs="*", default=CONCURRENCY)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    args = parser.parse_args()
    for figure in [*speed(args.models, tuple(args.at), args.rounds), *opening(args.rounds)]:
        print(figure["name"], figure["value"], figure["unit"])
