"""Brokers of other people as real processes, some of them killed, some of them lying: what tests of shared keys stand on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from stage import Stage, patched
from strongroom.app.cli.parties import make
from strongroom.app.client import sharing
from strongroom.app.client.home import PartyHome, reference
from strongroom.asset import Manifest
from strongroom.receipt import Bundle

HOLDERS = ("clinic", "notary", "union")
EVERY = (*HOLDERS, "court", "museum")

# what a broker that lies runs first
ONE_BIT = """
import strongroom.broker as b
true = b._ShareDecision.secret
def secret(self, proposal):
    owner, manifest, share = true(self, proposal)
    at = share.index(b'"value":"') + 9
    return owner, manifest, share[:at] + b"%x" % (int(share[at:at + 1], 16) ^ 1) + share[at + 1:]
b._ShareDecision.secret = secret
"""
SOMEBODY_ELSES = """
import strongroom.app.broker.server as s
true, kept = s.decide, []
def decide(*args, **named):
    kept.append(true(*args, **named))
    return kept[0]
s.decide = decide
"""
LATE = """
import time
from strongroom.app.stores.book import SqliteBook
SqliteBook.nonce = lambda self, at: time.sleep(3600)
"""
GIVES_TO_ALL = """
import strongroom.broker as b
def left(self, contract, page, standing, allowed, result):
    self.check("D16", True)
    return b.Part(self.enrolment.epoch, self.held.deal.index, self.asked_for.slot or 1)
b._ShareDecision.left = left
"""


class Sharing:
    """A stage with brokers of other people, who know the hospital and nobody else."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.numbers = stage, count(1)
        self.odd: set[str] = set()
        values = reference(stage.reference.read_bytes())
        for name in EVERY:
            make(stage.place, name)
            home = self.home(name)
            trust = home.trust.pin(stage.hospital.home.card).with_enclaves(values.roots, values.measurements)
            home.save_trust(trust.with_log(values.logs[0]))
            said = stage.cli("broker", "enrol", "--out", self.card(name), "--json", party=name)
            assert said.status == 0, said.err
        self.restore()

    def restore(self) -> None:
        """Every broker is there, and honest."""
        for name in sorted(self.odd):
            self.kill(name)
        gone = [name for name in EVERY if f"broker of {name}" not in self.stage.fleet.roles]
        for role in [self.stage.fleet.start_broker(name) for name in gone]:
            role.wait()

    def card(self, name: str) -> Path:
        return self.stage.folder / f"{name}.holder"

    def cards(self, names: tuple[str, ...] = HOLDERS) -> list[Path]:
        return [self.card(name) for name in names]

    def home(self, name: str) -> PartyHome:
        return self.stage.place.party(name)

    def start(self, name: str) -> None:
        self.stage.fleet.start_broker(name).wait()

    def kill(self, name: str) -> None:
        self.odd.discard(name)
        role = self.stage.fleet.roles.pop(f"broker of {name}", None)
        if role is not None:
            role.kill()

    @contextmanager
    def somebody_else_at(self, name: str) -> Iterator[None]:
        """The museum's broker answers at this one's address."""
        port = str(self.home(name).broker.port)
        words = ["broker", "--as", "museum", "--port", port, "--exchange-url", self.stage.fleet.config.exchange]
        role = self.stage.fleet._spawn(f"another at {name}", words)
        try:
            role.wait()
            yield
        finally:
            self.stage.fleet.roles.pop(f"another at {name}").kill()

    def lie(self, how: str, *names: str) -> None:
        """These brokers run that first."""
        for name in names:
            self.kill(name)
        with self.stage.fleet.but(before=how):
            for role in [self.stage.fleet.start_broker(name) for name in names]:
                role.wait()
        self.odd.update(names)

    def verb(self, *words: object) -> Any:
        said = self.stage.cli("broker", *words, "--json", party="hospital")
        assert said.status == 0, said.err
        return said.json

    def seal_words(self, over: str, names: tuple[str, ...]) -> tuple[list[object], Path]:
        number = next(self.numbers)
        out = self.stage.folder / f"records-{number}.sealed"
        words: list[object] = ["seal", self.stage.held / "records.csv", "--out", out, "--name", f"records-{number}"]
        return [*words, "--use", "evaluate", "--allow", "report", "--brokers", over, *self.cards(names)], out

    def seal(self, over: str = "2-of-3", names: tuple[str, ...] = HOLDERS) -> Manifest:
        """Records whose key the hospital's broker never had."""
        words, _ = self.seal_words(over, names)
        said = self.stage.cli(*words, "--json", party="hospital")
        assert said.status == 0, said.err
        assert said.json["waiting"] == {}
        return self.stage.hospital.asset(said.json["manifest"])

    def agree(self, data: Manifest, *, untold: str = "", **changes: Any) -> str:
        """A contract on these records, approved as people do."""
        contract = self.stage.lab.propose(self.stage.draft(assets={"data": data, "model": self.stage.model}, **changes))
        said = self.stage.cli("approve", contract.digest, "--yes", party="hospital")
        assert said.status == 0, said.err
        assert ("not told" in said.out) is bool(untold)
        assert untold in said.out
        return contract.digest

    def run(self, contract: str) -> Bundle:
        return self.stage.lab.run(contract)


def parts(bundle: Bundle) -> set[tuple[int, int, int]]:
    """(epoch, index, slot) of each share that a run took."""
    found = [json.loads(e.payload) for e in bundle.releases]
    return {(s["epoch"], s["index"], s["slot"]) for s in found if "slot" in s}


KILL = "os.kill(os.getpid(), 9)"
BROKEN_OFF = {
    "before-anything-is-recalled": f"sharing._save = lambda *a: {KILL}",
    "after-one-recall": (
        "each = sharing._each\n"
        "def some(asked, via):\n"
        "    if asked and asked[0][2] != '/v1/recalls': return each(asked, via)\n"
        f"    each(asked[:1], via); {KILL}\n"
        "sharing._each = some"
    ),
    "after-the-recalls": f"sharing.collect = lambda *a: {KILL}",
    "before-a-deal-is-sent": f"sharing.send = lambda *a, **n: {KILL}",
    "after-one-deal": (
        "each = sharing._each\n"
        "def some(asked, via):\n"
        "    if asked and asked[0][2] != '/v1/deals': return each(asked, via)\n"
        f"    each(asked[:1], via); {KILL}\n"
        "sharing._each = some"
    ),
}


def killed_and_repaired(shared: Sharing, often: tuple[Manifest, str], where: str) -> None:
    """A refresh is killed at some step; the next one goes on, and the asset opens."""
    records, contract = often
    code = f"import os\nfrom strongroom.app.client import sharing\n{BROKEN_OFF[where]}"
    words = ("broker", "refresh", records.name, "--home", shared.stage.home, "--as", "hospital")
    died = patched(code, *words, cwd=shared.stage.folder)
    assert died.returncode == -9, died.stderr
    if where in ("before-anything-is-recalled", "after-one-recall"):
        assert len(parts(shared.run(contract))) == 2  # enough of them were not called in
    before = sharing.read(shared.stage.hospital.home, records.digest)
    assert before is not None
    said = shared.verb("refresh", records.name)
    assert (said["waiting"], said["bad"], said["recalled"]) == ({}, {}, False)
    assert said["epoch"] > before.enrolment.epoch or where == "before-a-deal-is-sent"
    found = parts(shared.run(contract))
    assert {epoch for epoch, _, _ in found} == {said["epoch"]}
