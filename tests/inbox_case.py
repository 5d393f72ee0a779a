"""An inbox with something in it, for the tests of its page and for its pictures."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import uvicorn

import strongroom.enclave.sandbox  # noqa: F401 - before a test puts another program in the place of what it imports
from stage import Rehearsal
from strongroom import wire
from strongroom.app.client.draft import Draft
from strongroom.app.client.draft import proposal as drawn
from strongroom.app.client.home import PartyHome
from strongroom.app.client.inbox import Inbox
from strongroom.app.client.room import Room
from strongroom.app.http import listen, url_of
from strongroom.app.web.inbox import InboxPage
from strongroom.contract import ProgramRef, Proposal

FIRST = '''\
"""Mean income by age band, with a fixed seed for the bootstrap."""

import numpy as np
import pandas as pd

BANDS = [18, 30, 45, 60, 120]


def bands(census: pd.DataFrame) -> pd.Series:
    return pd.cut(census["age"], BANDS)


def summarise(census: pd.DataFrame, draws: int) -> dict:
    rng = np.random.default_rng(7)
    income = census["income"].to_numpy()
    means = [rng.choice(income, income.size).mean() for _ in range(draws)]
    return {
        "mean": float(np.mean(means)),
        "low": float(np.quantile(means, 0.025)),
        "high": float(np.quantile(means, 0.975)),
    }
'''
SECOND = (
    FIRST.replace("rng = np.random.default_rng(7)", "rng = np.random.default_rng()")
    .replace(
        '    return {\n        "mean"',
        '    by_city = {f"mean_{city}": rows.income.mean() for city, rows in census.groupby("city")}\n'
        "    print(census.head())\n"
        '    return {\n        **by_city,\n        "mean"',
    )
    .replace("import numpy", "import socket\n\nimport numpy")
)
LOCK = """\
numpy==2.2.{patch} \\
    --hash=sha256:{digest}
pandas==2.3.1 \\
    --hash=sha256:7777777777777777777777777777777777777777777777777777777777777777
"""
HELPER = "def shout(text: str) -> str:\n    return text.upper()\n"


def bundle(text: str = FIRST, lock: str | None = None, **more: str) -> bytes:
    return wire.encode({"files": {"analysis.py": text, **more}, "format": "strongroom.code.v1", "lock": lock})


def lock(patch: int) -> str:
    return LOCK.format(patch=patch, digest=f"{patch}" * 64)


class Code:
    """The program that runs code, as far as an approval asks it: another part's."""

    NAME = "evaluate"

    @staticmethod
    def check(parameters: object) -> None:
        assert parameters


class InThread(httpx.BaseTransport):
    """Another transport in a thread of its own: who drives a browser has a loop running already."""

    def __init__(self, real: httpx.BaseTransport) -> None:
        self._real = real

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(self._real.handle_request, request).result()


class Desk(Rehearsal):
    """Two parties, and code that the lab proposes to run on the hospital's records."""

    def room(self, home: PartyHome, transport: httpx.BaseTransport | None = None) -> Room:
        return super().room(home, InThread(transport or self.web))

    def propose(self, code: bytes | None = None, *, supersedes: str | None = None, **changes: Any) -> Proposal:
        """A proposal of the lab's; with code, of the program that runs it."""
        draft = self.draft(**changes)
        if code is None:
            return self.lab.propose(draft)
        kept = self.store.folder / "code" / wire.digest(code).removeprefix("sha256:")
        kept.parent.mkdir(exist_ok=True)
        kept.write_bytes(code)  # whatever it is: an honest exchange takes no bundle that cannot run
        return self.lab._propose(self.coded(wire.digest(code), draft, supersedes=supersedes))

    def coded(self, digest: str, draft: Draft | None = None, *, supersedes: str | None = None) -> Proposal:
        """A proposal that runs the code with this digest, whether there is any or not."""
        trust = self.lab.trust
        made = drawn(
            draft or self.draft(),
            proposer="lab",
            parties={p.name: p for p in trust.parties},
            measurements=trust.measurements,
            program_digest=wire.digest(b"the program"),
            nonce=secrets.token_bytes(16),
            at=int(time.time()),
        )
        parameters = {
            "arguments": {"draws": 200},
            "bundle": digest,
            "entry": "analysis:summarise",
            "environment": None,
            "inputs": {"data": "pandas"},
            "outputs": {"report": "report"},
        }
        program = ProgramRef("code", made.program.digest, made.program.use, parameters)
        return replace(made, program=program, supersedes=supersedes)


@dataclass
class Served:
    """The hospital's inbox as a page, and everything behind it."""

    desk: Desk
    inbox: Inbox
    page: InboxPage
    url: str


@contextmanager
def served(folder: Path) -> Iterator[Served]:
    """Serve the hospital's inbox on this machine."""
    with ExitStack() as stack:
        desk = Desk(folder)
        stack.callback(desk.close)
        inbox = stack.enter_context(closing(Inbox(desk.hospital)))
        sock = listen("127.0.0.1", 0)
        page = InboxPage(inbox, url_of(sock))
        config = uvicorn.Config(page.application(), log_level="error", access_log=False, timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield Served(desk, inbox, page, url_of(sock))
        server.should_exit = True
        thread.join()
        sock.close()
