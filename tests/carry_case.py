"""Two sites without a single process, each with an exchange and a log of its own, and a drive between them."""

from __future__ import annotations

import base64
import json
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stage import RECORD_CANARY, InProcess, _written, in_process, terms
from strongroom.app.broker.server import broker
from strongroom.app.client.carry import Arrived, Desk, Wish, Written, carry_in, carry_out
from strongroom.app.client.draft import Draft, Wanted
from strongroom.app.client.home import Home, pretty
from strongroom.app.client.room import Room
from strongroom.app.enclave.keys import PlatformKeys, root_public_key
from strongroom.app.enclave.platform import SimulatedPlatform
from strongroom.app.exchange.client import ExchangeClient
from strongroom.app.exchange.server import exchange
from strongroom.app.http import Client
from strongroom.app.stores.exchange import ExchangeStore
from strongroom.asset import Manifest
from strongroom.carry import Kind, Lets, Peer
from strongroom.checkpoint import LogKey
from strongroom.contract import RunRequest
from strongroom.enclave.run import Surroundings, run
from strongroom.errors import ReleaseRefused
from strongroom.party import SigningKey
from strongroom.receipt import Bundle
from strongroom.trust import Root, Trust
from world import MEASUREMENT, FakeConfinement

EVERY = Lets(tuple(sorted(Kind)), 1 << 30)


class _Line:
    """The way to a site's one broker."""

    def __init__(self, half: Half) -> None:
        self._client = in_process(broker(half.room.home.book, half.room.home.owner, None))

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


class Half:
    """One site: a party, an exchange with its log, a platform, and a desk.

    Args:
        folder: an empty one.
        site: its name.
        party: who is there.
    """

    def __init__(self, folder: Path, site: str, party: str) -> None:
        self.folder, self.site, self.place = folder, site, Home(folder / "room")
        self.log = LogKey(f"log.{site}.example", SigningKey(secrets.token_bytes(32)))
        self.store = ExchangeStore(folder / "exchange", self.log)
        self.web = InProcess(exchange(self.store))
        self.platform = SimulatedPlatform(PlatformKeys.open(folder / "platform"), lambda: MEASUREMENT)
        self.place.create(party, host="127.0.0.1", port=1)
        home = self.place.party(party)
        root = Root("simulated", root_public_key(folder / "platform"))
        self.values = Trust().with_enclaves([root], [MEASUREMENT]).with_log(self.log.verifier.vkey)
        home.save_trust(home.trust.with_enclaves([root], [MEASUREMENT]).with_log(self.log.verifier.vkey))
        self.reference = folder / "reference.json"
        self.reference.write_bytes(pretty(self.values.to_json()))
        self.room = Room(home, exchange="http://exchange", enclave="http://enclave")
        self.room.exchange = ExchangeClient(Client("http://exchange", transport=self.web))
        self.desk = Desk(self.place)

    def close(self) -> None:
        self.desk.close()
        self.room.close()
        self.store.close()

    def seal(self, name: str, **named: Any) -> Manifest:
        path = self.folder / name
        path.write_bytes(RECORD_CANARY + name.encode())
        return self.room.seal(path, terms=terms(), out=self.folder / f"{name}.sealed", **named)

    def run(self, digest: str) -> Bundle:
        """One run, as its own party asks for it."""
        agreed = self.room.contract(digest)
        confinement = FakeConfinement(_written, agreed.proposal.program.digest)
        around = Surroundings(
            platform=self.platform,
            exchange=self.room.exchange,
            broker=lambda _party: _Line(self),
            confine=lambda _contract: confinement,
            now=lambda: int(time.time()),
            entropy=secrets.token_bytes,
            progress=lambda _step, _detail: None,
        )
        asked = RunRequest(digest, self.room.name, secrets.token_hex(16), int(time.time()))
        return run(agreed, asked.sign(self.room.home.keys.signing), around)


@dataclass
class Gap:
    """A low side with a lab, and a high side with a hospital; each has pinned the other."""

    low: Half
    high: Half
    drive: Path
    written: int = 0

    def out(self, by: Half, *, name: str = "", **wished: Any) -> Written:
        """Carry out to the other side."""
        self.written += 1
        path = self.drive / (name or f"{self.written:04}.carry")
        other = self.high if by is self.low else self.low
        return carry_out(by.room, by.desk, site=other.site, path=path, wish=Wish(**wished))

    def into(self, by: Half, path: Path) -> Arrived:
        return carry_in(by.room, by.desk, path)

    def over(self, by: Half, **wished: Any) -> Arrived:
        """Carry out, and in on the other side."""
        other = self.high if by is self.low else self.low
        return self.into(other, self.out(by, **wished).path)

    def offered(self) -> None:
        """The hospital offers a model and records with a mock, and the lab accepts what it has to."""
        mock = self.high.folder / "mock.csv"
        mock.write_text("a,b\n1,2\n")
        self.high.seal("model.onnx")
        self.high.seal("records.csv", mock=mock)
        offers = ("hospital/model.onnx", "hospital/records.csv")
        self.over(self.high, offers=offers, references=(self.high.reference,))
        home = self.low.room.home
        values = self.high.values
        trust = home.trust.with_enclaves(values.roots, values.measurements)
        home.save_trust(trust.with_log(values.logs[0]))

    def proposed(self, **changes: Any) -> str:
        """The lab proposes, on its own side."""
        room = self.low.room
        assets = {"model": room.asset("hospital/model.onnx"), "data": room.asset("hospital/records.csv")}
        said: dict[str, Any] = {
            "title": "Accuracy on your records",
            "program": "evaluate",
            "assets": assets,
            "outputs": {"report": Wanted(("hospital", "lab"))},
            "parameters": {
                "classes": ["0", "1"],
                "features": None,
                "groups": [],
                "target": "benign",
                "task": "classification",
            },
        }
        return room.propose(Draft(**{**said, **changes})).digest

    def close(self) -> None:
        self.low.close()
        self.high.close()


def gap(folder: Path) -> Gap:
    """Two sites that let everything cross both ways."""
    halves = []
    for site, party in (("low", "lab"), ("high", "hospital")):
        (folder / site).mkdir()
        halves.append(Half(folder / site, site, party))
    low, high = halves
    for me, other in ((low, high), (high, low)):
        me.room.home.save_trust(me.room.trust.pin(other.room.home.card))
        me.desk.allow(Peer(other.site, (other.room.name,), (other.room.name,), EVERY, EVERY), me.site)
    (folder / "drive").mkdir()
    return Gap(low, high, folder / "drive")
