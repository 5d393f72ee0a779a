"""Two parties at work with real processes: what the tests of the edge stand on.

A ``Stage`` is a machine's folder with a lab and a hospital that pinned each other, an exchange, a broker for each, and an
enclave. Every asset on it holds a canary; ``leaks`` looks for them, and for keys, wherever none may be.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import os
import secrets
import sqlite3
import subprocess
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx

from strongroom import wire
from strongroom.app.broker.server import broker
from strongroom.app.cli import main
from strongroom.app.cli.demo import prepare
from strongroom.app.cli.fleet import Fleet, Role
from strongroom.app.cli.parties import make
from strongroom.app.cli.screen import Screen
from strongroom.app.client.draft import Draft, Wanted
from strongroom.app.client.home import Home, PartyHome, reference
from strongroom.app.client.room import Room
from strongroom.app.enclave.keys import PlatformKeys, root_public_key
from strongroom.app.enclave.platform import SimulatedPlatform
from strongroom.app.exchange.client import ExchangeClient
from strongroom.app.exchange.server import exchange
from strongroom.app.http import Client
from strongroom.app.stores.exchange import ExchangeStore
from strongroom.asset import Manifest
from strongroom.attest.keyset import RELEASE_ALGO, RUN_RECEIPT_ALGO, AttestationReport, KeyEntry, Keyset, report_data
from strongroom.checkpoint import LogKey
from strongroom.contract import RunRequest
from strongroom.enclave.run import Surroundings, run
from strongroom.errors import ReleaseRefused
from strongroom.party import DecryptionKey, SigningKey
from strongroom.policy import ANY_PARTY, OutputRule, Policy
from strongroom.receipt import Bundle
from strongroom.release import ReleaseRequest, run_subject
from strongroom.trust import Root
from world import MEASUREMENT, FakeConfinement, report

HERE = Path(__file__).parent
ROOT = HERE.parent
MODEL_CANARY, RECORD_CANARY = b"CANARY-MODEL-2718281828", b"CANARY-RECORD-3141592653"
BAND = {"column": "mean radius", "edges": ["9", "12", "15", "18", "22"], "name": "tumour size"}
KINDS = {"log": 1 << 20, "picture": 4 << 20, "records": 64 << 20, "report": 1 << 20}


# --- the command line -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Said:
    """What a verb said, and its exit status."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON object on standard output."""
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found

    @property
    def code(self) -> str:
        """The code of the one error line, which has a hint under it."""
        first, hint = self.err.splitlines()
        assert first.startswith("strongroom: "), first
        assert hint.startswith("  "), hint
        assert hint.strip()
        return first.split(": ")[1]


def call(*words: object) -> Said:
    """Run a verb in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main([str(word) for word in words])
        except SystemExit as ended:  # --help
            status = int(ended.code or 0)
    return Said(status, out.getvalue(), err.getvalue())


def spawn(*words: object, cwd: Path, env: Mapping[str, str] | None = None, check: bool = False) -> Said:
    """Run a verb as a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "strongroom", *map(str, words)],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        check=check,
        stdin=subprocess.DEVNULL,
        timeout=120,
    )
    return Said(done.returncode, done.stdout, done.stderr)


def patched(code: str, *words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a verb as a process of its own, after some code that breaks it on purpose."""
    return subprocess.run(
        [sys.executable, "-c", f"{code}\nfrom strongroom.app.cli import main\nraise SystemExit(main())", *map(str, words)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=120,
    )


# --- roles ----------------------------------------------------------------------------------------------------------


class Watched(Fleet):
    """A fleet whose roles' own words are kept: everything on standard error, and on standard output.

    Args:
        home: the machine's folder.
        logs: where to keep them.
    """

    def __init__(self, home: Home, logs: Path) -> None:
        super().__init__(home)
        logs.mkdir(exist_ok=True)
        (logs / "README").write_text("what the roles said\n")
        self.logs = logs
        self.before = ""
        self.env: dict[str, str] = {}

    def _spawn(self, name: str, arguments: Sequence[str]) -> Role:
        program = (
            ["-c", f"{self.before}\nfrom strongroom.app.cli import main\nmain()"] if self.before else ["-m", "strongroom"]
        )
        command = [sys.executable, *program, *arguments, "--home", str(self.home.folder), "--announce"]
        with (self.logs / f"{name.replace(' ', '-')}.err").open("ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env={**os.environ, **self.env}
            )
        role = self.roles[name] = Role(name, process, time.monotonic())
        return role

    @contextlib.contextmanager
    def but(self, *, before: str = "", env: Mapping[str, str] | None = None) -> Iterator[None]:
        """Roles started inside run some code first, or in another environment."""
        self.before, self.env = before, dict(env or {})
        try:
            yield
        finally:
            self.before, self.env = "", {}

    def another_enclave(self, name: str) -> str:
        """A second enclave on this machine's platform; its address."""
        role = self._spawn(
            name, ["enclave", "--platform", "simulated", "--port", "0", "--exchange-url", self.config.exchange]
        )
        role.wait()
        return role.url

    def end(self, name: str) -> None:
        """End a role at once, as a crash would."""
        self.roles.pop(name).kill()

    def stop(self) -> None:
        for name, role in self.roles.items():
            if role.process.stdout.closed:
                continue
            role.process.stdin.close()
            with (self.logs / f"{name.replace(' ', '-')}.out").open("ab") as log:
                log.write(role.process.stdout.read())
        super().stop()


# --- what the parties hold ------------------------------------------------------------------------------------------


def files(folder: Path) -> Path:
    """The demo's model, records, mock and features, with a canary in the model and in a table cell."""
    import onnx

    folder.mkdir(exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepare(folder, Screen(as_json=True))
        model = onnx.load(folder / "model.onnx")
    model.doc_string = MODEL_CANARY.decode()
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    header, first, *rest = (folder / "records.csv").read_text().splitlines()
    rows = [f"{header},note", f"{first},{RECORD_CANARY.decode()}", *(f"{row}," for row in rest)]
    (folder / "records.csv").write_text("\n".join(rows) + "\n")
    return folder


def terms(min_group: int = 1, decimals: int = 15, kinds: Sequence[str] = tuple(KINDS)) -> Policy:
    rules = {kind: OutputRule(ANY_PARTY, KINDS[kind], min_group, decimals) for kind in kinds}
    return Policy(uses=frozenset({"evaluate"}), outputs=rules)


@dataclass
class Stage:
    """A machine with everything on it.

    Args:
        folder: an empty one.
        held: the files that the parties seal (``files``).
        enclave: start one too.
    """

    folder: Path
    held: Path
    enclave: bool = True
    _rooms: list[Room] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.home = self.folder / "room"
        self.place = Home(self.home)
        for name in ("lab", "hospital"):
            make(self.place, name)
        self.fleet = Watched(self.place, self.folder / "logs")
        self.fleet.start(enclave=self.enclave)
        self.reference = self.fleet.reference()
        self.lab, self.hospital = self.room("lab"), self.room("hospital")
        values = reference(self.reference.read_bytes())
        for me, other in ((self.lab, self.hospital), (self.hospital, self.lab)):
            trust = me.trust.pin(other.home.card).with_enclaves(values.roots, values.measurements)
            me.home.save_trust(trust.with_log(values.logs[0]))

    def room(self, party: str, **where: str) -> Room:
        """A party at work; closed with the stage."""
        config = self.fleet.config
        found = Room(self.place.party(party), **{"exchange": config.exchange, "enclave": config.enclave, **where})
        self._rooms.append(found)
        return found

    def close(self) -> None:
        for room in self._rooms:
            room.close()
        self.fleet.stop()

    def cli(self, *words: object, party: str = "lab") -> Said:
        """Run a verb as a party."""
        return call(*words, "--home", self.home, "--as", party)

    # --- what is sealed once and used often ---

    @cached_property
    def model(self) -> Manifest:
        return self._seal(self.lab, "model.onnx", reveal_digest=True)

    @cached_property
    def records(self) -> Manifest:
        return self._seal(self.hospital, "records.csv")

    def _seal(self, owner: Room, name: str, **named: Any) -> Manifest:
        return owner.seal(self.held / name, terms=terms(), out=self.folder / f"{name}.sealed", **named)

    def seal(self, owner: Room, data: bytes, name: str, **named: Any) -> Manifest:
        """Seal some bytes as an asset."""
        path = self.folder / f"{secrets.token_hex(4)}-{name}"
        path.write_bytes(data)
        return owner.seal(path, terms=named.pop("terms", terms()), **named)

    @cached_property
    def features(self) -> list[str]:
        return json.loads((self.held / "features.json").read_bytes())

    def draft(self, **changes: Any) -> Draft:
        """An evaluation with a report for both; a draft with changes."""
        parameters = {
            "classes": ["0", "1"],
            "features": self.features,
            "groups": [BAND],
            "target": "benign",
            "task": "classification",
        }
        said: dict[str, Any] = {
            "title": "Accuracy on your records",
            "program": "evaluate",
            "assets": {"model": self.model, "data": self.records},
            "outputs": {"report": Wanted(("hospital", "lab"))},
            "parameters": parameters,
            "seconds": 60,
        }
        return Draft(**{**said, **changes})

    def agree(self, **changes: Any) -> str:
        """A contract that both signed: its digest."""
        digest = self.lab.propose(self.draft(**changes)).digest
        self.hospital.approve(digest)
        return digest

    @cached_property
    def done(self) -> str:
        """A contract with one completed run: a report for both, a picture for the hospital alone."""
        outputs = {"report": Wanted(("hospital", "lab")), "calibration": Wanted(("hospital",))}
        digest = self.agree(outputs=outputs, min_group=10, decimals=4)
        self.lab.run(digest)
        return digest

    def bundle(self, contract: str) -> Path:
        """The last receipt of a contract, as the lab kept it."""
        found = self.lab.receipts(contract)[-1]
        self.lab.keep(found)
        return self.lab.home.folder / "receipts" / f"{found.receipt.digest.removeprefix('sha256:')}.json"

    # --- the exchange's operator ---

    @contextlib.contextmanager
    def operator(self) -> Iterator[sqlite3.Connection]:
        """The exchange's database, written to behind its back."""
        connection = sqlite3.connect(self.home / "exchange" / "exchange.db", timeout=10)
        try:
            with connection:
                yield connection
        finally:
            connection.close()


# --- roles in this process ------------------------------------------------------------------------------------------


class InProcess(httpx.BaseTransport):
    """Carries requests to an application of ours without a socket."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return asyncio.run(self._answer(request))

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": "http",
            "path": request.url.path,
            "raw_path": request.url.raw_path.split(b"?")[0],
            "root_path": "",
            "query_string": request.url.query,
            "headers": [(k.lower(), v) for k, v in request.headers.raw],
            "server": ("role", 80),
            "client": ("127.0.0.1", 1),
        }
        pieces, sent = iter([*request.stream, b""]), []

        async def receive() -> dict[str, Any]:
            piece = next(pieces, None)
            if piece is None:
                await asyncio.sleep(3600)
            return {"type": "http.request", "body": piece, "more_body": piece != b""}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self._app(scope, receive, send)
        start, *rest = sent
        return httpx.Response(start["status"], headers=start["headers"], content=b"".join(m.get("body", b"") for m in rest))


def in_process(app: Any) -> httpx.Client:
    """A client of an application of ours."""
    return httpx.Client(transport=InProcess(app), base_url="http://role")


class Rehearsal:
    """Two parties at work without a single process: the real applications, called directly; the program alone is a stand-in.

    Args:
        folder: an empty one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.home, self.place = folder, folder / "room", Home(folder / "room")
        self.log = LogKey("log.example", SigningKey(secrets.token_bytes(32)))
        self.store = ExchangeStore(folder / "exchange", self.log)
        self.web = InProcess(exchange(self.store))
        self.platform = SimulatedPlatform(PlatformKeys.open(folder / "platform"), lambda: MEASUREMENT)
        self.lab, self.hospital = self.join("lab"), self.join("hospital")
        for me, other in ((self.lab, self.hospital), (self.hospital, self.lab)):
            me.home.save_trust(me.trust.pin(other.home.card))

    def join(self, name: str) -> Room:
        """One more party, who trusts the platform and the log."""
        self.place.create(name, host="127.0.0.1", port=1)
        home = self.place.party(name)
        root = Root("simulated", root_public_key(self.folder / "platform"))
        home.save_trust(home.trust.with_enclaves([root], [MEASUREMENT]).with_log(self.log.verifier.vkey))
        return self.room(home)

    def room(self, home: PartyHome, transport: httpx.BaseTransport | None = None) -> Room:
        """A party at work, with the exchange or with something that stands before it."""
        found = Room(home, exchange="http://exchange", enclave="http://enclave")
        found.exchange = ExchangeClient(Client("http://exchange", transport=transport or self.web))
        return found

    def close(self) -> None:
        for room in (self.lab, self.hospital):
            room.close()
        self.store.close()

    def seal(self, owner: Room, name: str, **named: Any) -> Manifest:
        """Seal and publish an asset with a canary in it."""
        path = self.folder / name
        if not path.exists():
            path.write_bytes(RECORD_CANARY + name.encode())
        out = self.folder / f"{secrets.token_hex(4)}.sealed"
        return owner.seal(path, terms=named.pop("terms", terms()), out=out, **named)

    @cached_property
    def model(self) -> Manifest:
        return self.seal(self.lab, "model.onnx")

    @cached_property
    def records(self) -> Manifest:
        return self.seal(self.hospital, "records.csv")

    def draft(self, **changes: Any) -> Draft:
        said: dict[str, Any] = {
            "title": "Accuracy on your records",
            "program": "evaluate",
            "assets": {"model": self.model, "data": self.records},
            "outputs": {"report": Wanted(("hospital", "lab"))},
            "parameters": {
                "classes": ["0", "1"],
                "features": None,
                "groups": [],
                "target": "benign",
                "task": "classification",
            },
        }
        return Draft(**{**said, **changes})

    def agree(self, **changes: Any) -> str:
        digest = self.lab.propose(self.draft(**changes)).digest
        self.hospital.approve(digest)
        return digest

    def run(self, contract: str, program: Callable[..., Mapping[str, bytes]] | None = None) -> Bundle:
        """One run, logged: everything but the program is what an enclave does."""
        agreed = self.lab.contract(contract)
        confinement = FakeConfinement(program or _written, agreed.proposal.program.digest)
        around = Surroundings(
            platform=self.platform,
            exchange=self.lab.exchange,
            broker=lambda party: _Line(self, party.name),
            confine=lambda _contract: confinement,
            now=lambda: int(time.time()),
            entropy=secrets.token_bytes,
            progress=lambda _step, _detail: None,
        )
        asked = RunRequest(contract, "lab", secrets.token_hex(16), int(time.time()))
        return run(agreed, asked.sign(self.lab.home.keys.signing), around)


def _written(_inputs: object) -> dict[str, bytes]:
    pixel = b"\x89PNG\r\n\x1a\n" + _png(b"IHDR", b"\0\0\0\1\0\0\0\1\x08\0\0\0\0") + _png(b"IDAT", zlib.compress(b"\0\0"))
    return {"report": report(), "calibration": pixel + _png(b"IEND", b""), "predictions": b"row,score\n1,0.5\n"}


def _png(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


class _Line:
    """A rehearsal's way to a broker (``enclave.run.BrokerLine``)."""

    def __init__(self, rehearsal: Rehearsal, party: str) -> None:
        home = rehearsal.place.party(party)
        book = (rehearsal.lab if party == "lab" else rehearsal.hospital).home.book
        self._client = in_process(broker(book, home.owner, None))

    def nonce(self) -> bytes:
        return bytes.fromhex(self._client.post("/v1/nonce").json()["nonce"])

    def release(self, request: bytes) -> bytes:
        answer = self._client.post("/v1/release", content=request)
        if answer.status_code != 200:
            reason = json.loads(base64.b64decode(answer.json()["refusal"]["payload"]))["code"]
            raise ReleaseRefused("refused", reason=reason)
        return answer.content

    def receipt(self, bundle: Bundle) -> None:
        assert self._client.post("/v1/receipts", content=bundle.encode()).json() == {}


# --- an enclave put together by hand --------------------------------------------------------------------------------


class Asker:
    """What an enclave on this machine's platform asks a broker, without being one: its owner can sign what it likes.

    The lab asked for the run.

    Args:
        stage: where.
        contract: the contract's digest.
        run_id: the run.
    """

    def __init__(self, stage: Stage, contract: str, run_id: str | None = None) -> None:
        self.stage, self.run_id = stage, run_id or secrets.token_hex(16)
        self.contract = stage.lab.contract(contract)
        measurement = stage.lab.trust.measurements[0]
        self.platform = SimulatedPlatform(PlatformKeys.open(stage.home / "enclave"), lambda: measurement)
        self.signing, self.release = SigningKey(secrets.token_bytes(32)), DecryptionKey(secrets.token_bytes(96))
        self.keyset = Keyset(
            subject=run_subject(contract, self.run_id),
            not_after=int(time.time()) + 3600,
            receipt_signing_keys=(KeyEntry("run-receipt", RUN_RECEIPT_ALGO, self.signing.public.raw.hex()),),
            e2ee_public_keys=(KeyEntry("release", RELEASE_ALGO, self.release.public.raw.hex()),),
        )

    def request(self, role: str, nonce: bytes) -> bytes:
        bound = report_data(self.keyset.digest, nonce)
        report = AttestationReport(self.keyset, bound[:32], self.platform.produce(bound), self.platform.endorsements())
        ref = next(a for a in self.contract.proposal.assets if a.role == role)
        asked = RunRequest(self.contract.digest, "lab", self.run_id, int(time.time()))
        signed = asked.sign(self.stage.lab.home.keys.signing)
        return ReleaseRequest(self.contract.envelope, ref.manifest, self.run_id, signed, nonce, report).encode()

    def ask(self, role: str = "data") -> dict[str, Any]:
        """The broker's answer: ``release`` and ``encrypted_key``, or ``refusal``."""
        owner = next(a for a in self.contract.proposal.assets if a.role == role).owner
        with contextlib.closing(Client(self.contract.proposal.party(owner).broker_url)) as client:
            nonce = bytes.fromhex(json.loads(client.post("/v1/nonce", b"{}"))["nonce"])
            return json.loads(client.post("/v1/release", self.request(role, nonce), allow=(403,)))

    def refused(self, role: str = "data") -> str:
        """The code of the check that failed."""
        answer = self.ask(role)
        return json.loads(base64.b64decode(answer["refusal"]["payload"]))["code"]


# --- leaks ----------------------------------------------------------------------------------------------------------


def forms(secret: bytes) -> dict[str, bytes]:
    """A secret as it may stand somewhere: raw, hex, base64."""
    return {
        "raw": secret,
        "hex": secret.hex().encode(),
        "HEX": secret.hex().upper().encode(),
        "base64": base64.b64encode(secret).rstrip(b"=")[:-1],  # the last characters hang on what follows
        "base64url": base64.urlsafe_b64encode(secret).rstrip(b"=")[:-1],
    }


def leaks(secret: Mapping[str, bytes], *places: Path) -> list[str]:
    """Which secrets stand where, in any form."""
    found = []
    seen = 0
    for path in (p for place in places for p in (sorted(place.rglob("*")) if place.is_dir() else [place])):
        if not path.is_file():
            continue
        data = path.read_bytes()
        seen += len(data)
        found += [
            f"{name} as {form} in {path.name}"
            for name, value in secret.items()
            for form, pattern in forms(value).items()
            if pattern in data
        ]
    assert seen, "nothing was looked at"
    return found


def keys(stage: Stage) -> dict[str, bytes]:
    """Every secret key of a stage: of parties, brokers, assets, the platform and the log."""
    found: dict[str, bytes] = {}
    for room in (stage.lab, stage.hospital):
        home = room.home
        found[f"{home.name} signs"] = home.keys.signing.seed
        found[f"{home.name} opens, ML-KEM"] = home.keys.decryption.seed[:64]
        found[f"{home.name} opens, X25519"] = home.keys.decryption.seed[64:]
        found[f"{home.name}'s broker"] = home.broker.key.seed
        for envelope in home.book.assets():
            found[f"key of {home.name}/{envelope.digest[:15]}"] = home.book.held(envelope.digest).key.raw
    platform = PlatformKeys.open(stage.home / "enclave")
    found["platform root"], found["platform"] = platform.root.seed, platform.platform.seed
    log = wire.loads((stage.home / "exchange" / "log.key.json").read_bytes())
    found["log"] = base64.b64decode(log["seed"])
    assert all(len(value) >= 32 for value in found.values())
    return found


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until something is so, which it will be."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.02)
