"""An inbox with 1,000 proposals: listing and filtering it, the first look, and the report on a small and on a large bundle.

The exchange is a real one over HTTP, in a thread of its own; the owner's folder is on the disk. A list asks the exchange
what is new, which is nothing; a first look verifies every signature.
"""

from __future__ import annotations

import secrets
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "tests")]

import uvicorn  # noqa: E402

from stage import Rehearsal  # noqa: E402
from strongroom import wire  # noqa: E402
from strongroom.app.client.code import read_code  # noqa: E402
from strongroom.app.client.draft import proposal as drawn  # noqa: E402
from strongroom.app.client.inbox import Inbox  # noqa: E402
from strongroom.app.client.inspection import inspect  # noqa: E402
from strongroom.app.client.listed import Filter  # noqa: E402
from strongroom.app.client.room import Room  # noqa: E402
from strongroom.app.exchange.server import exchange  # noqa: E402
from strongroom.app.http import listen, url_of  # noqa: E402
from strongroom.contract import State  # noqa: E402

PROPOSALS, REPEATS = 1000, 21
SMALL = "import pandas as pd\n\n\ndef summarise(census):\n    return {'mean': census.age.mean()}\n" * 20
LARGE_BYTES = 3_600_000

Figure = dict[str, Any]


def figure(name: str, value: float, unit: str, goal: float | None, beside: str) -> Figure:
    return {"better": "lower", "compared_with": beside, "goal": goal, "name": f"inbox.{name}", "unit": unit, "value": value}


def median(action: Callable[[], object]) -> float:
    """Milliseconds; one time more than said, for the caches."""
    times = []
    for _ in range(REPEATS + 1):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return round(1000 * statistics.median(times[1:]), 1)


@contextmanager
def over_http(rehearsal: Rehearsal) -> Iterator[str]:
    sock = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(exchange(rehearsal.store), log_level="error", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield url_of(sock)
    server.should_exit = True
    thread.join()


def fill(rehearsal: Rehearsal) -> None:
    """A thousand proposals of the lab's, as the exchange keeps them."""
    lab = rehearsal.lab
    trust = lab.trust
    first = drawn(
        rehearsal.draft(),
        proposer="lab",
        parties={p.name: p for p in trust.parties},
        measurements=trust.measurements,
        program_digest=wire.digest(b"the program"),
        nonce=secrets.token_bytes(16),
        at=int(time.time()),
    )
    for number in range(PROPOSALS):
        made = replace(
            first, nonce=secrets.token_hex(16), title=f"Analysis {number} of {'bias' if number % 10 else 'survival'}"
        )
        rehearsal.store.put_proposal(made, made.sign(lab.home.keys), int(time.time()))


def lists() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder, closing(Rehearsal(Path(folder))) as rehearsal:
        fill(rehearsal)
        with over_http(rehearsal) as url:
            home = rehearsal.place.party("hospital")
            with Room(home, exchange=url, enclave=url) as room, closing(Inbox(room)) as inbox:
                began = time.perf_counter()
                inbox.refresh()
                first = round(time.perf_counter() - began, 2)
                assert len(inbox.rows(Filter(waiting=True))) == PROPOSALS

                def listed() -> None:
                    inbox.refresh()
                    assert len(inbox.rows(Filter(waiting=True))) == PROPOSALS

                def filtered() -> None:
                    inbox.refresh()
                    wanted = Filter(state=State.PROPOSED, proposer="lab", asset="data", text="SURVIVAL", since=1)
                    assert len(inbox.rows(wanted)) == PROPOSALS // 10

                beside = "1,000 proposals, the exchange asked over HTTP what is new"
                return [
                    figure("list", median(listed), "ms", 100, beside),
                    figure("filter", median(filtered), "ms", 100, f"{beside}; by state, proposer, asset, text and day"),
                    figure("first", first, "s", None, "the first look at 1,000 proposals, every signature verified"),
                ]


def reports() -> list[Figure]:
    package = HERE.parent / "src" / "strongroom"
    sources = [
        path.read_text(encoding="utf-8").replace("from __future__ ", "from future ")
        for path in sorted(package.rglob("*.py"))
    ]
    files: dict[str, str] = {}
    while sum(map(len, files.values())) < LARGE_BYTES:  # four modules a file: a bundle has at most 256 files
        at = 4 * len(files) % len(sources)
        files[f"part_{len(files)}.py"] = "\n".join(sources[at : at + 4])
    found = []
    for name, holds in (("small", {"analysis.py": SMALL}), ("large", files)):
        data = wire.encode({"files": holds, "format": "strongroom.code.v1", "lock": None})
        code = read_code(data, wire.digest(data))
        began = time.perf_counter()
        inspect(data, code)
        size = f"a bundle of {len(data) / 1e6:.2g} MB, in a child process"
        found.append(figure(f"report_{name}", round(time.perf_counter() - began, 2), "s", None, size))
    return found


def figures() -> list[Figure]:
    """Rows of ``figures.json``."""
    return [*lists(), *reports()]


if __name__ == "__main__":
    for one in figures():
        print(f"{one['name']:<24} {one['value']:>8g} {one['unit']}   {one['compared_with']}")
