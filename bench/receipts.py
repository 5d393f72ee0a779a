"""What counting a request costs beside answering it: the gate, the observer, keeping and logging its receipt.

    python bench/receipts.py

Each figure is of a request on the thread that answers it, but for those that say otherwise: what is written is written by a
thread of its own, which shares the interpreter with the answers. The gate reads the key from the disk's cache every time.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "vectors"), str(HERE.parent / "tests")]

import make_inference_receipt as made  # noqa: E402 - found beside this file
from make_batch import Pieces  # noqa: E402

from strongroom import wire  # noqa: E402
from strongroom.app.inference.credentials import Credential, Gate, Keys, Limits  # noqa: E402
from strongroom.app.inference.observed import Observers  # noqa: E402
from strongroom.app.inference.receipts import ReceiptStore  # noqa: E402
from strongroom.app.stores.exchange import ExchangeStore  # noqa: E402
from strongroom.batch import admissible  # noqa: E402
from strongroom.checkpoint import LogKey  # noqa: E402
from strongroom.inference.receipt import InferenceReceipt  # noqa: E402
from strongroom.ledger import Entry  # noqa: E402
from strongroom.party import SigningKey  # noqa: E402

REQUESTS, ROUNDS = 2000, 5
LOGGED = 200_000  # entries that the log holds already

Figure = dict[str, Any]


def figure(name: str, value: float, unit: str, goal: float | None, compared_with: str) -> Figure:
    return {
        "name": name,
        "value": float(f"{value:.3g}"),
        "unit": unit,
        "goal": goal,
        "better": "lower",
        "compared_with": compared_with,
    }


def each(work: Callable[[int], object], rounds: int = ROUNDS) -> float:
    """Milliseconds a call: the median of some rounds."""
    found = []
    for n in range(rounds):
        began = time.perf_counter()
        for i in range(REQUESTS):
            work(n * REQUESTS + i)
        found.append((time.perf_counter() - began) * 1000 / REQUESTS)
    return statistics.median(found)


def receipts(count: int) -> list[InferenceReceipt]:
    """As many that differ; their signatures are not looked at here."""
    one = made.sign()
    return [replace(one, receipt_id=f"rcpt-{n:032x}", chat_id=f"chatcmpl-{n}") for n in range(count)]


def gate(folder: Path) -> Figure:
    keys = Keys(folder / "keys.db")
    limits = Limits(requests_per_minute=10**9, tokens_per_minute=10**9, tokens_per_day=10**12)
    tokens = [f"Bearer {keys.add(f'k{n}', limits, at=0)}" for n in range(1000)]
    asked = Gate(keys)

    def work(n: int) -> None:
        with asked.admit(tokens[n % 1000], None, 1e9) as admission:
            admission.hold(100)
            admission.settle(17, 6)

    found = each(work)
    asked.close()
    keys.close()
    return figure("admit, hold and settle a request", found, "ms", 0.2, "1,000 keys with every limit")


def observer() -> Figure:
    seen = Observers().of("aggregate", ["example/small"])

    def work(_: int) -> None:
        one = seen.begun("chat")
        one.model("example/small")
        one.first_token()
        one.ended("ok", 17, 6)

    return figure("count a request", each(work), "ms", 0.1, "level aggregate")


def store(folder: Path) -> list[Figure]:
    made_at = int(time.time())
    kept = ReceiptStore(folder / "receipts.db", bytes(range(32)))
    who = Credential("ab" * 32, "k", Limits())
    all_ = receipts(REQUESTS * ROUNDS)
    put = each(lambda n: kept.put(all_[n], who, made_at + 3600))
    began = time.perf_counter()
    kept.flush()
    behind = time.perf_counter() - began
    times = []
    for one in all_[:REQUESTS]:
        began = time.perf_counter()
        kept.get(one.receipt_id, who)
        times.append((time.perf_counter() - began) * 1000)
    began = time.perf_counter()
    kept.totals()
    totals = time.perf_counter() - began
    # again with nothing else going on: what the thread behind takes for each
    fresh = ReceiptStore(folder / "again.db", bytes(range(32)))
    began = time.process_time()
    for one in all_:
        fresh.put(one, who, made_at + 3600)
    fresh.flush()
    whole = (time.process_time() - began) * 1000 / len(all_)
    kept.close()
    fresh.close()
    return [
        figure(
            "keep a receipt", put, "ms", 1.0, f"while a thread writes the others; the last was written {behind:.1f} s later"
        ),
        figure("keep a receipt, everything", whole, "ms", 1.0, "processor time of both threads: encoding, sealing, writing"),
        figure("fetch a receipt", statistics.median(times), "ms", None, f"of {len(all_):,} that are kept"),
        figure("count all receipts", totals * 1000 / len(all_) * 1000, "ms", None, "for each 1,000 that are kept"),
    ]


def log(folder: Path) -> list[Figure]:
    exchange = ExchangeStore(folder / "exchange", LogKey("log.example/bench", SigningKey(bytes(32))), batched=10**9)
    contract = wire.digest(b"a contract")
    for start in range(0, LOGGED, 10_000):
        exchange.log_batch(
            contract, [Entry("receipt", contract, wire.digest(b"%d" % n)) for n in range(start, start + 10_000)], 0
        )
    pieces = Pieces(receipts=tuple(sorted(wire.digest(b"r%d" % n) for n in range(1000))))
    sent = pieces.sent()
    began = time.perf_counter()
    batch = admissible(sent, pieces.contract, pieces.at)
    looked = time.perf_counter() - began
    began = time.perf_counter()
    exchange.log_batch(pieces.contract.digest, batch.entries, 0)
    took = time.perf_counter() - began
    began = time.perf_counter()
    for digest in batch.receipts[:200]:
        exchange.prove(Entry("receipt", pieces.contract.digest, digest))
    proved = (time.perf_counter() - began) / 200
    exchange.close()
    where = f"in a log of {LOGGED:,} entries"
    return [
        figure(
            "log a receipt",
            took,
            "ms",
            1.0,
            f"of a batch of 1,000, {where}; as many milliseconds as the batch takes seconds",
        ),
        figure("look at a batch", looked * 1000, "ms", None, "1,000 receipts and two leases: whether it may be logged"),
        figure("prove a receipt", proved * 1000, "ms", None, where),
    ]


def figures() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        return [gate(Path(folder)), observer(), *store(Path(folder)), *log(Path(folder))]


if __name__ == "__main__":
    for one in figures():
        print(f"{one['name']:<32} {one['value']:>8g} {one['unit']}   {one['compared_with']}")
