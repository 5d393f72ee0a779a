"""A room that answers requests, in this process: the real server on real keys, leases, receipts and encryption.

What is simulated is what stands around it (``world.py``), and the engine: its words depend on the request alone, and it
fails when it is told to. ``InferenceWorld`` is driven without a socket (``ask``, ``sealed``), or over one (``listening``)::

    python -m inference_world --port 8080

starts it on loopback by the real clock, and prints one line of JSON: its address, a trust file, the contract's digest.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import io
import json
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from strongroom import wire
from strongroom.app.http import listen
from strongroom.app.inference.asking import Around
from strongroom.app.inference.credentials import NO_LIMITS, Credential, Gate, Keys, Limits
from strongroom.app.inference.lifecycle import Lifecycle
from strongroom.app.inference.listening import Tls, serve, server
from strongroom.app.inference.ports import Started, Wanted
from strongroom.app.inference.rooms import Keeper, Rooms
from strongroom.app.inference.server import Service
from strongroom.asset import About as Described
from strongroom.asset import AssetKey, SealedReader, seal, sign_manifest
from strongroom.contract import AssetRef, Contract, ProgramRef, RunRequest
from strongroom.contract import Limits as Agreed
from strongroom.ehbp import KEYSET_ALGO, RESPONSE_NONCE_HEADER, ClientExchange, Padding, PublicKey, RequestHead
from strongroom.errors import EngineError, NotFound
from strongroom.inference.receipt import InferenceReceipt
from strongroom.lm.engine import About, Answer, Counted, Piece, Route, Vectors
from strongroom.lm.request import read
from strongroom.policy import Policy
from strongroom.programs import guards as real_guards
from strongroom.programs.serve_llm import DEFAULTS
from strongroom.serving import Serving
from strongroom.trust import Trust
from strongroom.wire import Envelope
from world import DAY, HOUR, NOW, Clock, World, keys_of, seed

MODEL = "example/small"
DONE = "[DONE]"
WEIGHTS = b"GGUF: weights that CANARY-3141592653 would be found in " * 100
PROGRAM = wire.digest(b"serve-llm as it stands ready")
SERVE = Serving(
    routes=frozenset({"chat", "completions", "embeddings"}),
    lease_s=HOUR,
    observability="none",
    retention_s=DAY,
)
LIMITS = Agreed(8, 7 * DAY, 1 << 30)
VECTOR = 8


class WallClock(Clock):
    """The machine's own."""

    def __call__(self) -> int:
        return int(time.time())


# --- the engine -----------------------------------------------------------------------------------------------------


ABOUT = About(4096, 8, frozenset({"chat", "completions", "embeddings"}), VECTOR, "fake 1")


class FakeAnswers:
    """An answer as it comes (``lm.engine.Answers``)."""

    def __init__(self, engine: FakeEngine, route: Route, body: bytes) -> None:
        self._engine, self._pieces = engine, engine.answer(route, body, self)
        self.counted = Counted(0)
        self.closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Answer:
        if self.closed:
            raise StopAsyncIteration
        return await anext(self._pieces)

    async def aclose(self) -> None:
        if not self.closed:
            self.closed = True
            self._engine.given_up += 0 if self._engine.done(self) else 1
            await self._pieces.aclose()


@dataclass
class FakeEngine:
    """Answers with what it was asked, word by word (``lm.engine.Engine``).

    Attributes:
        pause: seconds before each word.
        words: said instead of what was asked, where there are any.
        fails: raised once the number of words in ``after`` was said.
        go: where it is not set, an answer waits for it after its first word.
        asked: every question: route, body, scope.
        closed: whether it was closed: its weights are gone.
        given_up: how many answers were closed before their end.
    """

    about: About = ABOUT
    pause: float = 0.0
    words: Sequence[str] = ()
    fails: EngineError | Exception | None = None
    after: int = 2
    most: int = 1024
    go: asyncio.Event | None = None
    asked: list[tuple[Route, bytes, bytes | None]] = field(default_factory=list)
    closed: bool = False
    given_up: int = 0
    _whole: set[int] = field(default_factory=set)

    def ask(self, route: Route, body: bytes, *, scope: bytes | None = None) -> FakeAnswers:
        self.asked.append((route, body, scope))
        return FakeAnswers(self, route, body)

    def done(self, answers: FakeAnswers) -> bool:
        return id(answers) in self._whole

    async def close(self) -> None:
        self.closed = True

    async def answer(self, route: Route, body: bytes, answers: FakeAnswers) -> AsyncIterator[Answer]:
        """The answer to one request: what was said last, echoed; of embeddings, hashes."""
        request = read(route, body)
        texts = request.texts()
        prompt = sum(len(text.split()) for text in texts)
        answers.counted = Counted(prompt)
        if route == "embeddings":
            if self.fails:
                raise self.fails
            yield Vectors([_vector(text) for text in texts])
        else:
            async for piece in self._say(request.normal, texts, request.choices, answers, prompt):
                yield piece
        self._whole.add(id(answers))
        yield answers.counted

    async def _say(
        self, normal: Mapping[str, Any], texts: Sequence[str], choices: int, answers: FakeAnswers, prompt: int
    ) -> AsyncIterator[Answer]:
        name = "content" if "messages" in normal else "text"
        words = list(self.words) or [f"{word} " for word in f"You said: {texts[-1] if texts else ''}".split()]
        most = min(normal.get("max_tokens", self.most), self.most)
        said = 0
        for n, word in enumerate(words[:most]):
            for index in range(choices):
                if self.pause:
                    await asyncio.sleep(self.pause)
                if self.fails and said >= self.after:
                    raise self.fails
                said += 1
                answers.counted = Counted(prompt, said)
                yield Piece({name: word}, index)
                if n == 0 and self.go is not None:
                    await self.go.wait()
        if self.fails:
            raise self.fails
        for index in range(choices):
            yield Piece({}, index, "length" if len(words) > most else "stop")


def _vector(text: str) -> list[float]:
    digest = hashlib.sha256(text.encode()).digest()[:VECTOR]
    return [byte / 256 for byte in digest]


# --- receipts and who counts ----------------------------------------------------------------------------------------


class MemoryReceipts:
    """Keeps receipts (``ports.Receipts``)."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.all: list[tuple[InferenceReceipt, Credential, int]] = []
        self.held: list[str] = []  # ids of those that go to no disk and no log

    def put(
        self, receipt: InferenceReceipt, credential: Credential, until: int, *, contract: str | None = None
    ) -> InferenceReceipt:
        self.all.append((receipt, credential, until))
        return receipt

    def hold(self, receipt: InferenceReceipt, credential: Credential) -> None:
        self.held.append(receipt.receipt_id)
        self.all.append((receipt, credential, int(self._now()) + 300))

    def get(self, receipt_id: str, credential: Credential) -> InferenceReceipt:
        return self._find(lambda receipt: receipt.receipt_id == receipt_id, credential)

    def by_chat(self, chat_id: str, credential: Credential) -> InferenceReceipt:
        return self._find(lambda receipt: receipt.chat_id == chat_id, credential)

    def _find(self, wanted: Callable[[InferenceReceipt], bool], credential: Credential) -> InferenceReceipt:
        for receipt, owner, until in reversed(self.all):
            if wanted(receipt) and until >= self._now() and owner.hash in (None, credential.hash):
                return receipt
        raise NotFound("there is no such receipt")

    @property
    def last(self) -> InferenceReceipt:
        return self.all[-1][0]


@dataclass
class Seen:
    """What an observer was told of one request (``ports.Observation``)."""

    route: str
    firsts: int = 0
    name: str = ""
    texts: list[bytes] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    outcome: str = ""
    tokens: tuple[int, int, int] = (0, 0, 0)

    def model(self, name: str) -> None:
        self.name = name

    def asked(self, text: bytes) -> None:
        self.texts.append(text)

    def answered(self, text: bytes) -> None:
        self.texts.append(text)

    def first_token(self) -> None:
        self.firsts += 1

    def failed(self, error: BaseException) -> None:
        self.errors.append(error.__class__.__name__)

    def ended(self, outcome: str, prompt_tokens: int, completion_tokens: int, embedding_tokens: int) -> None:
        self.outcome, self.tokens = outcome, (prompt_tokens, completion_tokens, embedding_tokens)


class MemoryObserver:
    """Is told of requests (``ports.Observer``)."""

    keeps_texts = False

    def __init__(self) -> None:
        self.seen: list[Seen] = []

    def begun(self, route: str) -> Seen:
        self.seen.append(Seen(route))
        return self.seen[-1]


# --- the world ------------------------------------------------------------------------------------------------------


def sealed_weights(
    terms: Policy, plaintext: bytes = WEIGHTS, reveal: bool = True, name: str = "weights"
) -> tuple[Any, Envelope, bytes, AssetKey]:
    """The lab's model: its manifest, signed, the sealed file, the key."""
    key, sink = AssetKey(seed(f"key of {name}")), io.BytesIO()
    about = Described(
        name=f"lab-{name}",
        kind="model",
        media_type="application/vnd.gguf",
        owner="lab",
        created_at=NOW - DAY,
        terms=terms,
        reveal_digest=reveal,
    )
    manifest = seal(io.BytesIO(plaintext), sink, key=key, salt=seed(f"salt of {name}"), about=about, chunk_bytes=1024)
    return manifest, sign_manifest(manifest, keys_of("lab").signing), sink.getvalue(), key


@dataclass
class Reply:
    """An answer, taken off the wire as ASGI sent it.

    Attributes:
        status, headers: of HTTP; header names in lower case.
        pieces: of the body, as they were sent.
        whole: whether its last piece came.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    pieces: list[bytes] = field(default_factory=list)
    whole: bool = False

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The stable code of a refusal."""
        found = self.json["error"]["code"]
        assert isinstance(found, str)
        return found

    @property
    def events(self) -> list[Any]:
        """What a stream's events say; the last is ``[DONE]`` of one that is whole."""
        return events(self.body)

    @property
    def text(self) -> str:
        """The words of a chat's stream."""
        return said(self.events)


def events(body: bytes) -> list[Any]:
    """What the events of a stream say."""
    found = []
    for event in body.decode().split("\n\n"):
        if event:
            assert event.startswith("data: "), event
            found.append(event[6:] if event == "data: [DONE]" else json.loads(event[6:]))
    return found


def said(found: Iterable[Any]) -> str:
    """The words of a chat, out of its events."""
    choices = [choice for event in found if isinstance(event, dict) for choice in event.get("choices", [])]
    return "".join(choice["delta"].get("content", "") for choice in choices if choice["index"] == 0)


class InferenceWorld:
    """A standing contract of the lab and the hospital, its room, and the server before it.

    Args:
        serve: the policy's dimension, with changes from ``SERVE``.
        engine: what answers; made anew for each weights file by default.
        limits: of those without a key; ``None`` where a key is needed.
        bare: whether a request without any credential is let in.
        guards: loads guards; those that are installed by default.
        clock: by default one that stands still.
        plain: whether bodies in the open reach the server unread.
        tls: ends TLS.
        folder: for keys; a temporary one by default.
        reveal: whether the manifest of the weights shows their SHA-256.
        weights: the plaintext that the lab sealed.
        starter: starts engines; the fake one by default.
        parameters: of the program.
        around: changes of ``asking.Around``.
    """

    def __init__(
        self,
        *,
        serve: Serving | None = None,
        engine: FakeEngine | None = None,
        limits: Limits | None = NO_LIMITS,
        bare: bool = False,
        guards: Any = None,
        clock: Clock | None = None,
        plain: bool = True,
        tls: Tls | None = None,
        folder: Path | None = None,
        reveal: bool = True,
        weights: bytes = WEIGHTS,
        starter: Any = None,
        parameters: Mapping[str, Any] | None = None,
        origins: frozenset[str] = frozenset(),
        **around: Any,
    ) -> None:
        self.serve = serve or SERVE
        self.policy = Policy(frozenset({"serve-llm"}), serve=self.serve)
        self.world = World(clock=clock)
        self.clock = self.world.clock
        self.asset = sealed_weights(self.policy, weights, reveal)
        _, envelope, sealed, key = self.asset
        self.world.brokers["lab"].book.hold(envelope, key)
        self.world.exchange.put(envelope, sealed)
        self.engine = engine or FakeEngine()
        self.engines: list[FakeEngine] = []
        self.parameters = {**DEFAULTS, "models": [{"engine": "llama.cpp", "name": MODEL, "role": "weights"}]}
        self.parameters.update(parameters or {})
        self.contract = self.agree()
        self.contracts = {self.contract.digest: self.contract}
        self.receipts, self.observer = MemoryReceipts(self.now), MemoryObserver()
        self._folder = None if folder else tempfile.TemporaryDirectory()
        self.keys = Keys((folder or Path(self._folder.name)) / "keys.db")  # type: ignore[union-attr]
        self.gate = Gate(self.keys, anonymous=limits, bare=bare)
        self.rooms = Rooms(
            around=self._around,
            contract=self._find,
            program_digest=lambda: PROGRAM,
            start=starter or self.start,
            guards=guards or real_guards.load,
            observer=lambda _contract: self.observer,
            tls=(tls.key,) if tls else (),
        )
        self.around = Around(
            rooms=self.rooms,
            gate=self.gate,
            receipts=self.receipts,
            strangers={},
            now=self.now,
            plain=plain,
            **around,
        )
        self.lifecycle = Lifecycle(self.rooms, self.now)
        self.service = Service(self.around, anonymous=limits is not None, origins=origins, lifecycle=self.lifecycle)
        self._runs = 0

    def close(self) -> None:
        self.gate.close()
        self.keys.close()
        if self._folder is not None:
            self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- what was agreed ---

    def now(self) -> float:
        return self.clock()

    def _around(self, progress: Callable[[str, str], None]) -> Any:
        return self.world.surroundings(progress=progress)

    def _find(self, digest: str) -> Contract:
        if digest not in self.contracts:
            raise NotFound("no such contract")
        return self.contracts[digest]

    def agree(self, **changes: Any) -> Contract:
        """A standing contract that everybody signed, with changes."""
        found: dict[str, Any] = {
            "title": "The lab's model answers",
            "assets": (AssetRef("weights", "lab", self.asset[0].digest),),
            "limits": LIMITS,
            "not_after": NOW + 365 * DAY,
            "outputs": (),
            "payments": (),
            "policy": self.policy,
            "program": ProgramRef("serve-llm", PROGRAM, "serve-llm", self.parameters),
        }
        return self.world.agree(**{**found, **changes})

    def asked(self, contract: Contract | None = None) -> Envelope:
        """The lab's signed request for another room."""
        self._runs += 1
        run_id = seed(f"room {self._runs}", 16).hex()
        contract = contract or self.contract
        return RunRequest(contract.digest, "lab", run_id, self.clock()).sign(keys_of("lab").signing)

    async def start(self, wanted: Wanted) -> Started:
        """Opens the weights, and starts the engine (``ports.Starter``)."""
        sealed = (wanted.source, wanted.released.manifest, wanted.released.key)
        opened = await asyncio.to_thread(lambda: SealedReader(*sealed).read())
        engine = (
            self.engine
            if not self.engines
            else replace(self.engine, asked=[], closed=False, go=None, fails=None, _whole=set())
        )
        self.engines.append(engine)
        return Started(engine, hashlib.sha256(opened).digest())

    async def open(self, contract: Contract | None = None) -> Keeper:
        """Open a room; the one before it is drained."""
        contract = contract or self.contract
        self.contracts[contract.digest] = contract
        self.rooms.contracts |= {self.contract.digest, contract.digest}  # the operator says so
        return await self.rooms.open(contract, self.asked(contract), lambda _step, _detail: None)

    def trust(self) -> Trust:
        """A client's trust file."""
        return self.world.trust()

    # --- asking without a socket ---

    async def send(
        self,
        method: str,
        target: str,
        body: bytes | Iterable[bytes] = b"",
        headers: Mapping[str, str] | None = None,
        *,
        seen: Callable[[dict[str, Any]], None] = lambda _message: None,
        gone: asyncio.Event | None = None,
        extensions: dict[str, Any] | None = None,
    ) -> Reply:
        """One request to the application.

        Args:
            body: whole, or in pieces as they arrive.
            seen: is called with each message of the answer.
            gone: once set, the client is gone.
        """
        path, _, query = target.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(k.lower().encode(), v.encode()) for k, v in (headers or {}).items()],
            "server": ("room", 80),
            "client": ("127.0.0.1", 1),
            "extensions": extensions or {},
        }
        pieces = iter([body] if isinstance(body, bytes) else body)
        held = next(pieces, b"")
        ended, reply = False, Reply()
        never = asyncio.Event()

        async def receive() -> dict[str, Any]:
            nonlocal held, ended
            if ended:
                await (gone or never).wait()
                return {"type": "http.disconnect"}
            piece, held = held, next(pieces, None)
            ended = held is None
            return {"type": "http.request", "body": piece, "more_body": not ended}

        async def send(message: dict[str, Any]) -> None:
            seen(message)
            if message["type"] == "http.response.start":
                reply.status = message["status"]
                reply.headers = {k.decode(): v.decode() for k, v in message["headers"]}
            else:
                reply.pieces.append(message.get("body", b""))
                reply.whole = not message.get("more_body", False)
            await asyncio.sleep(0)

        await self.service(scope, receive, send)
        return reply

    async def ask(self, path: str, value: object, key: str | None = "anon-" + "0" * 32, **more: Any) -> Reply:
        """A question in the open. ``value``: JSON, or bytes as they are."""
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        headers = {"content-type": "application/json", **more.pop("headers", {})}
        if key is not None:
            headers["authorization"] = f"Bearer {key}"
        return await self.send("POST", path, body, headers, **more)

    def exchange(self, target: str, *, name: str = "1", keeper: Keeper | None = None, **head: Any) -> ClientExchange:
        """A client's half of a sealed request to the current room, or another."""
        keeper = keeper or self.rooms.current
        assert keeper is not None
        found: dict[str, Any] = {
            "method": "POST",
            "path": target,
            "content_type": "application/json",
            "accept": None,
            "request_id": seed(f"request {name}", 16),
            "keyset": keeper.digest,
            "contract": keeper.contract.digest,
        }
        entry = next(e for e in keeper.keyset.e2ee_public_keys if e.algo == KEYSET_ALGO)
        padding = Padding(keeper.sizes) if keeper.sizes else None
        return ClientExchange(
            PublicKey(entry.raw), RequestHead(**{**found, **head}), seed=seed(f"exchange {name}"), padding=padding
        )

    async def sealed(
        self,
        path: str,
        value: object,
        key: str | None = "anon-" + "0" * 32,
        *,
        name: str | None = None,
        exchange: ClientExchange | None = None,
        **more: Any,
    ) -> tuple[Reply, Reply]:
        """A sealed question: the answer off the wire, and as it opens (the same where it is not sealed)."""
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self._runs += 1
        exchange = exchange or self.exchange(path, name=name or f"sealed {self._runs}")
        headers = dict(exchange.request.headers)
        if key is not None:
            headers["authorization"] = f"Bearer {key}"
        reply = await self.send("POST", path, exchange.request.last(body), headers, **more)
        return reply, opened(exchange, reply)

    async def receipt(self, reply: Reply, key: str | None = "anon-" + "0" * 32) -> InferenceReceipt:
        """The receipt that an answer names."""
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        found = await self.send("GET", f"/v1/aci/receipts/{reply.headers['x-receipt-id']}", headers=headers)
        assert found.status == 200, found.body
        return InferenceReceipt.parse(found.body)

    # --- over a socket ---

    @contextmanager
    def listening(self, port: int = 0, *, tls: Tls | None = None, grace: int = 5) -> Iterator[str]:
        """Serve on loopback, in a thread; the address. A room is open."""
        sock, ready, told = listen("127.0.0.1", port), threading.Event(), list[str]()

        def announce(url: str) -> None:
            told.append(url)
            ready.set()

        serving = server(_Opened(self), sock, announce=announce, tls=tls, grace=grace)
        thread = threading.Thread(target=lambda: serving.run(sockets=[sock]), daemon=True)
        thread.start()
        assert ready.wait(30), "the server does not start"
        try:
            yield told[0]
        finally:
            serving.should_exit = True
            thread.join(30)
            sock.close()


class _Opened:
    """The application, whose room opens as it starts."""

    def __init__(self, world: InferenceWorld) -> None:
        self._world, self.lifecycle = world, world.lifecycle

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._world.open()
        await self._world.service(scope, receive, send)


async def until(happened: Callable[[], Any]) -> None:
    """Let others go on until something happened."""
    for _ in range(100_000):
        if happened():
            return
        await asyncio.sleep(0)
    raise AssertionError("it does not happen")


def opened(exchange: ClientExchange, reply: Reply) -> Reply:
    """An answer as its client opens it; as it is, where it is not sealed."""
    nonce = reply.headers.get(RESPONSE_NONCE_HEADER.lower())
    if nonce is None:
        return reply
    reading = exchange.response([nonce], status=reply.status, max_body=64 << 20)
    pieces = [reading.feed(piece) for piece in reply.pieces]
    if reply.whole:
        reading.end()
    assert reading.head is not None
    assert reading.head.receipt_id == reply.headers["x-receipt-id"]
    return Reply(reply.status, {"content-type": reading.head.content_type or ""}, pieces, reading.whole)


# --- as a process ---------------------------------------------------------------------------------------------------


def main(words: Sequence[str] | None = None) -> None:
    """A server on loopback, until it is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--plain", action="store_true", help="bodies may come in the open")
    parser.add_argument("--padding", type=int, default=0)
    parser.add_argument("--observability", default="none")
    parser.add_argument("--lease", type=int, default=HOUR, help="seconds")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds before each word")
    parser.add_argument("--key", action="store_true", help="an API key is needed; it is printed")
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--guard", action="append", default=[], help="pii or injection, before and after")
    parser.add_argument("--origin", action="append", default=[], help="of a page that may ask from a browser")
    args = parser.parse_args(words)
    made = replace(
        SERVE,
        plain_bodies=args.plain,
        padding=args.padding,
        observability=args.observability,
        lease_s=args.lease,
        input_guards=frozenset(args.guard),
        output_guards=frozenset(args.guard),
    )
    tls = Tls.make("127.0.0.1", time.time()) if args.tls else None
    with tempfile.TemporaryDirectory() as folder:
        world = InferenceWorld(
            serve=made,
            engine=FakeEngine(pause=args.pause),
            clock=WallClock(),
            folder=Path(folder),
            limits=None if args.key else NO_LIMITS,
            tls=tls,
            origins=frozenset(args.origin),
        )
        trust = Path(folder) / "trust.json"
        trust.write_bytes(wire.encode(world.trust().to_json()))
        key = world.keys.add("tester", at=int(time.time())) if args.key else None

        def announce(url: str) -> None:
            found = {"contract": world.contract.digest, "key": key, "model": MODEL, "trust": str(trust), "url": url}
            print(json.dumps(found), flush=True)  # noqa: T201 - for who started it

        serve(_Opened(world), listen("127.0.0.1", args.port), announce=announce, tls=tls)


if __name__ == "__main__":
    main()
