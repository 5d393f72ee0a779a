"""A served model with everything on, beside llama.cpp's own HTTP server on the same weights, in one run.

Ours: enclave, brokers and exchange as processes, the room opened under a contract; a client that appraised the enclave,
asks with encrypted bodies and opens each record as it comes; every answer has its receipt. Theirs: the same engine and
settings, plain HTTP, a client that counts bytes. Both are asked the same, in turns; a figure is the median of the rounds'
ratios. The larger model has random weights: what is measured is how words come out, not which.

The time to a first token is each request's median where one is asked at a time. Where several are, most of it is waiting for
others' prompts, in an order that chance makes, and the median of 16 such waits differs by a tenth from one round to the next
on either side: there it is the mean over all requests of all rounds, which the order does not change.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import engine as bare
from engine import CONTEXT, PARALLEL, TOKENS, Native, burst, question

import llama_files
from strongroom.app.cli import parties, serving, standing
from strongroom.app.cli.fleet import Fleet
from strongroom.app.client.draft import Draft
from strongroom.app.client.home import Home
from strongroom.app.client.room import Room
from strongroom.app.client.session import Reply, Session, Terms, establish, questions
from strongroom.app.http import Client
from strongroom.ehbp import RESPONSE_NONCE_HEADER, ClientExchange, RequestHead
from strongroom.policy import Policy

LIMIT_SECONDS = 1800
SLOW = True
ROUNDS, ROUNDS_ALONE = 3, 8  # one at a time is soon done, and its milliseconds want more
STREAMS = 1000
GOALS = {"embedded": 0.95, "50M": 0.99}
FIRST_RATIO, FIRST_MORE_MS = 1.02, 3.0
CHAT = "/v1/chat/completions"
Row = dict[str, Any]


class Served:
    """One room, asked over sealed requests by one client."""

    def __init__(self, url: str, session: Session) -> None:
        self.host, _, port = url.removeprefix("http://").partition(":")
        self.port, self.session = int(port), session

    async def ask(self, n: int, tokens: int) -> tuple[float, int]:
        """Seconds to the first piece, and how many tokens came."""
        asked = question(n, tokens) | {"stream": True, "stream_options": {"include_usage": True}}
        began = time.perf_counter()
        head = RequestHead(
            method="POST",
            path=CHAT,
            content_type="application/json",
            accept=None,
            request_id=secrets.token_bytes(16),
            keyset=self.session.keyset_digest,
            contract=self.session.contract.digest,
        )
        sealed = ClientExchange(self.session.key, head, seed=secrets.token_bytes(32), padding=self.session.padding)
        body = sealed.request.last(json.dumps(asked).encode())
        lines = [
            f"POST {CHAT} HTTP/1.1", f"Host: {self.host}:{self.port}", "Connection: close", f"Content-Length: {len(body)}",
            f"Authorization: Bearer anon-{secrets.token_hex(16)}",  # nobody's twice: nothing is used again here or there
            *(f"{name}: {value}" for name, value in sealed.request.headers.items()),
        ]  # fmt: skip
        reader, writer = await asyncio.open_connection(self.host, self.port, limit=1 << 20)
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        status, headers = await _head(reader)
        nonces = [value for name, value in headers if name == RESPONSE_NONCE_HEADER.lower()]
        answer = sealed.response(nonces, status=status, max_body=64 << 20)
        first, tail = 0.0, b""
        async for piece in _chunks(reader):
            plain = answer.feed(piece)
            if not first and b'"content":"' in plain:
                first = time.perf_counter() - began
            tail = (tail + plain)[-2048:]
        answer.end()
        writer.close()
        assert status == 200, tail
        at = tail.rindex(b'"completion_tokens":') + 20
        return first, int(tail[at : at + 9].partition(b",")[0].partition(b"}")[0])


async def _head(reader: asyncio.StreamReader) -> tuple[int, list[tuple[str, str]]]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines[1:] if line)
    return int(lines[0].split()[1]), [(name.lower(), value.strip()) for name, _, value in pairs]


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The body's pieces, as many together as have come."""
    held, size = b"", -1
    while size and (data := await reader.read(1 << 16)):
        held += data
        found = []
        while size and (at := held.find(b"\r\n")) > 0:
            size = int(held[:at], 16)
            end = at + 2 + size
            if len(held) < end + 2:
                size = -1
                break
            found.append(held[at + 2 : end])
            held = held[end + 2 :]
        if found:
            yield b"".join(found)


@dataclass
class Opened:
    """What stands while a model is measured."""

    native: Native
    ours: Served


@contextmanager
def opened(path: Path, folder: Path, threads: int) -> Iterator[Opened]:
    """Both servers over the same weights."""
    home = Home(folder)
    for name in (serving.OWNER, serving.USER):
        parties.make(home, name)
    with Fleet(home, ["chat"]) as fleet:
        fleet.start()
        config = fleet.config
        with (
            Room(home.party(serving.OWNER), exchange=config.exchange, enclave=config.enclave) as owner,
            Room(home.party(serving.USER), exchange=config.exchange, enclave=config.enclave) as user,
        ):
            serving.trust_each_other(owner, user, fleet)
            terms = Policy(uses=frozenset({standing.USE}), serve=standing.USUAL)
            asset = owner.seal(
                path, terms=terms, name="random", kind="model", media_type="application/vnd.gguf", reveal_digest=True,
                out=folder / "random.sealed",
            )  # fmt: skip
            parameters = {
                "context_tokens": CONTEXT, "max_tokens": CONTEXT, "parallel": PARALLEL, "threads": threads,
                "models": [{"engine": "llama.cpp", "name": "random", "role": "model"}],
            }  # fmt: skip
            draft = Draft(
                title="A measurement", program=standing.USE, assets={"model": asset}, outputs={}, parameters=parameters,
                runs=10, seconds=86400, memory_bytes=8 << 30, serve=standing.USUAL, among=(serving.USER,),
            )  # fmt: skip
            contract = owner.propose(draft).digest
            user.approve(contract)
            owner.serve(contract)
            ours = Served(config.enclave, verified(config.enclave, Terms(trust=user.trust, contract=contract)))
        native = Native(path, threads)
        try:
            yield Opened(native, ours)
        finally:
            native.close()


def verified(url: str, terms: Terms) -> Session:
    """The session of a client that appraised the enclave."""
    nonce = secrets.token_bytes(32)
    with closing(Client(url)) as client:
        replies = tuple(Reply(200, client.get(path)) for path in questions(nonce))
    return establish(terms, nonce=nonce, replies=replies, at=int(time.time()))  # type: ignore[arg-type]


def speed(name: str, sides: Opened, concurrencies: tuple[int, ...], rounds: int, threads: int) -> list[Row]:
    rows = []
    for concurrency in concurrencies:
        requests = max(8, concurrency) * 2  # one at a time takes as many, or few tell little
        alone = concurrency == 1
        taken = max(rounds, ROUNDS_ALONE) if alone and name == "embedded" else rounds
        ratios, speeds, firsts = [], [], []
        for n in range(taken + 1):
            order = (sides.native, sides.ours) if n % 2 else (sides.ours, sides.native)
            found = {side: asyncio.run(burst(side, concurrency, requests, TOKENS)) for side in order}
            if n:
                ratios.append(found[sides.ours][0] / found[sides.native][0])
                speeds.append(found[sides.ours][0])
                middle = statistics.median if alone else statistics.mean
                firsts.append([middle(found[side][1]) for side in (sides.ours, sides.native)])
        about = f"llama.cpp's HTTP server, {concurrency} at once, {threads} thread(s); median of {taken} rounds"
        ours, native = (middle(column) for column in zip(*firsts, strict=True))
        rows += [
            row(f"throughput, {name}, {concurrency} at once", statistics.median(ratios), "x", GOALS[name], about, "higher"),
            row(f"tokens a second, {name}, {concurrency} at once", statistics.median(speeds), "1/s", None, "", "higher"),
            row(
                f"first token, {name}, {concurrency} at once, beyond {FIRST_RATIO} times theirs",
                1e3 * (ours - FIRST_RATIO * native), "ms", FIRST_MORE_MS,
                f"{about.replace('median', 'median' if alone else 'mean')}: {1e3 * native:.1f} ms",
            ),
        ]  # fmt: skip
    return rows


def streams(name: str, sides: Opened) -> Row:
    """Requests that did not come to their whole end, of many."""

    async def all_of_them() -> int:
        numbers, wrong = iter(range(STREAMS)), 0

        async def client() -> None:
            nonlocal wrong
            for n in numbers:
                try:
                    _, count = await sides.ours.ask(n, 16)
                    wrong += count != 16
                except Exception as error:  # noqa: BLE001 - what is counted
                    wrong += 1
                    print(f"{error.__class__.__name__}: {error}", file=sys.stderr)

        await asyncio.gather(*(client() for _ in range(PARALLEL)))
        return wrong

    return row(f"errors in {STREAMS:,} streams, {name}", asyncio.run(all_of_them()), "requests", 0, "")


def row(name: str, value: float, unit: str, goal: float | None, compared_with: str, better: str = "lower") -> Row:
    return {
        "name": f"serving: {name}", "value": round(value, 3), "unit": unit, "goal": goal, "better": better,
        "compared_with": compared_with,
    }  # fmt: skip


def measured(models: list[str], concurrencies: tuple[int, ...], rounds: int, threads: int = 1) -> list[Row]:
    rows = []
    for name in models:
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / "random.gguf"
            path = serving.model_file(None) if name == "embedded" else llama_files.write(made, llama_files.MILLIONS_50)
            with opened(path, Path(folder) / "room", threads) as sides:
                rows += speed(name, sides, concurrencies, rounds, threads)
                if name == "embedded":
                    rows.append(streams(name, sides))
    return rows


def figures() -> list[Row]:
    return measured(["embedded", "50M"], bare.CONCURRENCY, ROUNDS)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="*", default=["embedded", "50M"])
    parser.add_argument("--at", type=int, nargs="*", default=bare.CONCURRENCY)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    args = parser.parse_args()
    for figure in measured(args.models, tuple(args.at), args.rounds):
        print(json.dumps(figure))
