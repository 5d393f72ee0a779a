"""What it costs that no single broker can open a key: a 3-of-5 release beside a 1-of-1, dead brokers, many at once.

Real brokers, each a process of its own with its book on disk, over loopback; this process is the enclaves. Both releases
are timed in turn, so that whatever else the machine does befalls both: the ratio is the figure. With five brokers on two
cores, what five machines would do side by side is done two at a time.

A dead broker here is a stopped process: connections to it are made, and nothing ever answers.
"""

from __future__ import annotations

import os
import signal
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from strongroom import wire
from strongroom.app.cli.fleet import Fleet
from strongroom.app.cli.parties import make
from strongroom.app.client import sharing
from strongroom.app.client.draft import Draft, Wanted
from strongroom.app.client.home import Home
from strongroom.app.client.room import Room
from strongroom.app.enclave.keys import PlatformKeys, root_public_key
from strongroom.app.enclave.platform import SimulatedPlatform
from strongroom.app.enclave.server import HttpBroker, HttpHolder
from strongroom.app.exchange.client import ExchangeClient
from strongroom.app.exchange.key import log_key
from strongroom.app.http import Client
from strongroom.attest.evidence import Measurement
from strongroom.attest.simulated import PLATFORM
from strongroom.contract import Contract, RunRequest
from strongroom.enclave.obtain import Around, Keys, Obtainer
from strongroom.enclave.shares import Holders, Memory
from strongroom.policy import ANY_PARTY, OutputRule, Policy
from strongroom.release import run_subject
from strongroom.trust import Root
from strongroom.wire import Envelope

ROUNDS = 25
MANY = 50
RUNS = 1000
TIMEOUT_S = 2.0
NAMES = ("ada", "ben", "cy", "dee", "eve")
MEASUREMENT = Measurement(PLATFORM, {n: wire.digest(n.encode()) for n in ("dependencies", "interpreter", "package")})
LIMIT_SECONDS = 900


class Place:
    """An exchange, the hospital's own broker and five brokers of other people, as processes; contracts over three keys.

    Args:
        folder: an empty one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, home = folder, Home(folder)
        for name in ("lab", "hospital", *NAMES):
            make(home, name)
        self.fleet = Fleet(home)
        self.fleet.start(enclave=False)
        where = self.fleet.config
        self.lab, self.hospital = (Room(home.party(n), exchange=where.exchange, enclave=where.enclave) for n in PARTIES)
        self.platform = SimulatedPlatform(PlatformKeys.open(folder / "platform"), lambda: MEASUREMENT)
        root, log = Root(PLATFORM, root_public_key(folder / "platform")), log_key(folder / "exchange").verifier.vkey
        for party in home.parties():
            pins = [self.hospital.home.card] if party.name in NAMES else [r.home.card for r in (self.lab, self.hospital)]
            trust = party.trust.with_enclaves([root], [MEASUREMENT]).with_log(log)
            for card in pins:
                trust = trust if party.name == card.name else trust.pin(card)
            party.save_trust(trust)
        self.cards = [sharing.card(home.party(name)) for name in NAMES]
        self.exchange = ExchangeClient(Client(where.exchange))
        terms = Policy(frozenset({"evaluate"}), {"report": OutputRule(ANY_PARTY, 1 << 20, 1, 15)})
        self.model = self._seal(self.lab, "model", terms)
        self.contracts = {
            "whole": self._agree(self._seal(self.hospital, "whole", terms)),
            "1-of-1": self._agree(self._seal(self.hospital, "one", terms, 1, self.cards[:1])),
            "3-of-5": self._agree(self._seal(self.hospital, "five", terms, 3, self.cards)),
        }

    def _seal(self, room: Room, name: str, terms: Policy, *over: Any) -> Any:
        path = self.folder / f"{name}.csv"
        path.write_bytes(b"a,b\n1,2\n")
        keep = sharing.keeper(room.home, *over) if over else None
        manifest = room.seal(path, terms=terms, name=name, keep=keep)
        if over and sharing.send(room.home, room.exchange, manifest.digest).waiting:
            raise RuntimeError("a broker did not take its share")
        return manifest

    def _agree(self, data: Any) -> Contract:
        parameters = {"classes": ["0", "1"], "features": ["a"], "groups": [], "target": "b", "task": "classification"}
        draft = Draft(
            "a release", "evaluate", {"data": data, "model": self.model}, {"report": Wanted(("lab",))}, parameters, runs=RUNS
        )
        digest = self.lab.propose(draft).digest
        self.hospital.approve(digest)
        if self.hospital.untold:
            raise RuntimeError("a broker was not told")
        return self.lab.contract(digest)

    def enclave(self, memory: Memory | None = None) -> Enclave:
        """``memory``: what it knows of brokers that do not answer; nothing by default."""
        return Enclave(self, memory or Memory(), TIMEOUT_S)

    @contextmanager
    def dead(self, *names: str) -> Iterator[None]:
        """Brokers that take connections and answer nothing."""
        processes = [self.fleet.roles[f"broker of {name}"].process for name in names]
        for process in processes:
            process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for process in processes:
                process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        for room in (self.lab, self.hospital):
            room.close()
        self.exchange.close()
        self.fleet.stop()


PARTIES = ("lab", "hospital")


class Enclave:
    """What asks for keys, one run after the other."""

    def __init__(self, place: Place, memory: Memory, patience: float) -> None:
        self.place, self.memory, self.patience = place, memory, patience

    def release(self, name: str) -> float:
        """Seconds that a fresh keyset takes to get the data's key."""
        contract = self.place.contracts[name]
        request = self._request(contract)
        run_id = RunRequest.peek(request).run_id
        keys = Keys(os.urandom, run_subject(contract.digest, run_id), int(time.time()) + 3600, devices=False)
        (ref,) = (a for a in contract.proposal.assets if a.role == "data")
        with ExitStack() as lines:

            def closing(line: Any) -> Any:
                lines.callback(line.close)
                return line

            around = Around(
                platform=self.place.platform,
                exchange=self.place.exchange,
                broker=lambda party: closing(HttpBroker(party)),
                now=lambda: int(time.time()),
                entropy=os.urandom,
                progress=lambda _step, _detail: None,
                holders=Holders(self.place.exchange.enrolment, lambda h: closing(HttpHolder(h)), self.memory, self.patience),
            )
            obtainer = Obtainer(contract, request, keys, around)
            envelope, manifest = obtainer.manifests()["data"]
            began = time.perf_counter()
            obtainer.obtain(ref, envelope, manifest)
            return time.perf_counter() - began

    def _request(self, contract: Contract) -> Envelope:
        at = int(time.time())
        asked = RunRequest(contract.digest, "lab", os.urandom(16).hex(), at, at + 600)
        return asked.sign(self.place.lab.home.keys.signing)


def measure(place: Place) -> list[dict[str, Any]]:
    names = ("whole", "1-of-1", "3-of-5")
    enclave = place.enclave()
    for name in names * 3:  # whatever is loaded once is loaded
        enclave.release(name)
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(ROUNDS):
        for name in names:
            found[name].append(enclave.release(name))
    whole, one, five = (statistics.median(found[name]) for name in names)
    with place.dead("ada", "dee"):
        enclave = place.enclave()  # of which nobody told it yet
        first = enclave.release("3-of-5")
        after = statistics.median(enclave.release("3-of-5") for _ in range(ROUNDS))
    enclave = place.enclave()
    began = time.perf_counter()
    with ThreadPoolExecutor(max_workers=MANY) as pool:
        many = list(pool.map(lambda _i: enclave.release("3-of-5"), range(MANY)))  # an error ends it
    whole_s = time.perf_counter() - began
    beside = f"median of {ROUNDS} in turn; 1-of-1: {one * 1e3:.1f} ms, an owner's own broker: {whole * 1e3:.1f} ms"
    return [
        row("a 3-of-5 release, in 1-of-1 releases", five / one, "x", 3.0, beside),
        row("a 3-of-5 release", five * 1e3, "ms", None, "five brokers and the enclave on this machine"),
        row("the first with two of five dead", first, "s", 2.5, f"time-outs of {TIMEOUT_S:g} s"),
        row("those after it, in 3-of-5 releases with all alive", after / five, "x", None, "the dead are remembered"),
        row(f"{MANY} releases at once, of {MANY} without an error", len(many), "", MANY, "", better="higher"),
        row("the same, all of them", whole_s, "s", None, f"one after the other: {MANY * five:.1f} s"),
    ]


def figures() -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        place = Place(Path(name))
        try:
            return measure(place)
        finally:
            place.close()


def row(name: str, value: float, unit: str, goal: float | None, beside: str, *, better: str = "lower") -> dict[str, Any]:
    return {"name": name, "value": round(value, 3), "unit": unit, "goal": goal, "better": better, "compared_with": beside}


def main() -> None:
    for found in figures():
        goal = "" if found["goal"] is None else f"goal {found['goal']}"
        print(f"{found['name']:<55}{found['value']:>9} {found['unit']:<4}{goal:<10} {found['compared_with']}")


if __name__ == "__main__":
    main()
