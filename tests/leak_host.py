"""A serving process that is made to fail in every way, for the test that looks for what it lets out.

    python leak_host.py --level none --home FOLDER [--engine real] [--leaky]

The server, the counting, the discretion, the receipts, the keys and the encryption are the real ones. The engine echoes what
it is asked and does what a word in it says (``crash``, ``bug``, ``slow``, ``thread``, …); with ``--engine real`` it is the
engine's own child process. ``--leaky`` is the double: it lets out what it must not, so that the test is seen to notice.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import logging
import os
import resource
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from inference_world import ABOUT, MODEL, SERVE, FakeAnswers, FakeEngine, InferenceWorld, WallClock, _Opened
from strongroom import wire
from strongroom.app.http import listen
from strongroom.app.inference.asking import Around
from strongroom.app.inference.credentials import NO_LIMITS
from strongroom.app.inference.discreet import be_discreet
from strongroom.app.inference.listening import serve
from strongroom.app.inference.metering import Metering
from strongroom.app.inference.server import Service
from strongroom.errors import EngineFailed
from strongroom.lm.engine import Answer, Route
from strongroom.lm.request import read
from strongroom.serving import OBSERVABILITY

CRASHES = ("crash", "bug", "group", "unicode")


class Provoked(FakeEngine):
    """An engine that does what it reads."""

    async def answer(self, route: Route, body: bytes, answers: FakeAnswers) -> AsyncIterator[Answer]:
        text = " ".join(read(route, body).texts())
        await self._provoke(text, body)
        async for piece in super().answer(route, body, answers):
            yield piece
            if "midway" in text:
                raise EngineFailed(f"the engine ended at {text}")

    async def _provoke(self, text: str, body: bytes) -> None:
        if "crash" in text:
            raise EngineFailed(f"the engine ended at {text}")
        if "bug" in text:
            found = {"text": text}
            try:
                raise KeyError(text)
            except KeyError as error:
                error.add_note(text)
                raise RuntimeError(f"at {found!r}") from error
        if "group" in text:
            raise ExceptionGroup(text, [ValueError(text), type(text[:40], (Exception,), {})(text)])
        if "unicode" in text:
            body.decode("ascii")
        if "slow" in text:
            await asyncio.sleep(30)
        if "task" in text:
            asyncio.get_running_loop().create_task(_lost(text))
        if "thread" in text:
            thread = threading.Thread(target=_fails, args=(text,))
            thread.start()
            thread.join()
        if "library" in text:
            _library(text)


async def _lost(text: str) -> None:
    raise ValueError(text)


def _fails(text: str) -> None:
    raise ValueError(text)


def _library(text: str) -> None:
    """What a library might do with a prompt."""
    for logger in (logging.getLogger("library"), logging.getLogger("uvicorn.error"), logging.getLogger("strongroom")):
        logger.critical("asked: %s", text)
        try:
            _fails(text)
        except ValueError:
            logger.exception(text)
    warnings.warn(text, stacklevel=1)


def _let_out(home: Path, text: str) -> None:
    """The double: each place and each form that the test must find it in."""
    data = text.encode()
    print(text, flush=True)  # noqa: T201
    print(base64.b64encode(b"." + data).decode(), file=sys.stderr, flush=True)  # noqa: T201
    (home / "disk.bin").write_bytes(b"\0" + data.hex().upper().encode())
    Path("cwd.bin").write_bytes(data.decode().encode("utf-16-be"))
    tempfile.NamedTemporaryFile(delete=False).write(json.dumps(text).encode())  # noqa: SIM115
    (home / "core").write_bytes(bytes(4096) + data.decode().encode("utf-32-le"))
    (home / "url.txt").write_bytes(base64.urlsafe_b64encode(b".." + data))


class Leaky(Provoked):
    """An engine that lets out what it is asked."""

    home: Path

    async def _provoke(self, text: str, body: bytes) -> None:
        if "library" not in text:
            _let_out(self.home, text)
        await super()._provoke(text, body)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--level", choices=OBSERVABILITY, required=True)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--engine", choices=("echo", "real"), default="echo")
    parser.add_argument("--leaky", action="store_true")
    args = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (most, most))  # as a machine may have it that keeps cores
    discreet = None if args.leaky else be_discreet(OBSERVABILITY[0])
    more: dict[str, Any] = {}
    if args.engine == "real":
        import inference_world
        from strongroom.app.inference import starting
        from strongroom.enclave import sandbox
        from strongroom.programs import serve_llm

        inference_world.PROGRAM = sandbox.program_digest(serve_llm.NAME)
        more["starter"] = starting.start
    engine = Leaky() if args.leaky else Provoked(about=ABOUT)
    if isinstance(engine, Leaky):
        engine.home = args.home
    weights = args.weights.read_bytes()
    args.weights.unlink()  # the owner's own copy: the machine never has it
    world = InferenceWorld(
        serve=replace(SERVE, observability=args.level, plain_bodies=True),
        engine=engine,
        clock=WallClock(),
        folder=args.home,
        weights=weights,
        **more,
    )
    del weights
    metering = Metering(args.home, None, anonymous=NO_LIMITS, bare=True, texts=args.home / "named.jsonl", discreet=discreet)
    metering.observers._refresh = 0.0
    world.rooms.observer = metering.observer
    around = Around(
        rooms=world.rooms,
        gate=metering.gate,
        receipts=metering.receipts,
        strangers={},
        now=time.time,
        plain=True,
        body_seconds=0.5,
        stall_seconds=1.0,
    )
    world.service = Service(around, anonymous=True, metrics=metering.metrics, lifecycle=world.lifecycle)
    key = metering.keys.add("tester", at=int(time.time()))
    trust = args.home / "trust.json"
    trust.write_bytes(wire.encode(world.trust().to_json()))

    def announce(url: str) -> None:
        found = {"contract": world.contract.digest, "key": key, "model": MODEL, "pid": os.getpid(), "url": url}
        (args.home / "told.json").write_text(json.dumps(found))

    serve(_Opened(world), listen("127.0.0.1", 0), announce=announce)
    metering.close()
    world.close()


if __name__ == "__main__":
    main()
