"""A hospital's broker that answers guests, in this process, and what guests are judged with there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from rcar_guest import Guest
from stage import in_process
from strongroom import wire
from strongroom.app.broker.rcar import Around, Guests
from strongroom.app.broker.server import broker
from strongroom.app.stores.book import SqliteBook
from strongroom.asset import AssetKey
from strongroom.attest.appraisal_policy import AppraisalPolicy, Reference
from strongroom.attest.evidence import Endorsements, Evidence, Measurement, Roots
from strongroom.attest.guest import RuntimeData
from strongroom.attest.tee_key import TeeKey
from strongroom.broker import Owner, Refusal, Release
from strongroom.contract import AssetRef, Contract, EnclaveTerms, Limits, Proposal, RunRequest, guest_program
from strongroom.guest import Attested, GuestRequest, GuestRun, Taken, decide_guest
from strongroom.party import SigningKey
from strongroom.policy import ANY_PARTY, OutputRule, Policy
from strongroom.trust import Trust
from strongroom.wire import Envelope
from world import (
    DAY,
    HOUR,
    MEASUREMENT,
    NOW,
    Clock,
    Entropy,
    MemoryBook,
    SimulatedPlatform,
    World,
    broker_key,
    card,
    keys_of,
    sealed_asset,
    seed,
    sign_all,
)

TERMS = Policy(frozenset({"evaluate", "guest"}), {"report": OutputRule(ANY_PARTY, 1 << 20, 10, 4)})
MANIFEST, ENVELOPE, SEALED, KEY = sealed_asset("data", TERMS)


class Place:
    """The broker at its door.

    Args:
        folder: for its book.
        at: the time.
        owner: whose, where it is not the hospital of ``World``.
        documents: what vendors vouch for, as far as it did not come along.
    """

    def __init__(
        self, folder: Path, *, at: int = NOW, owner: Owner | None = None, documents: Endorsements | None = None
    ) -> None:
        self.clock = Clock(at)
        self.book = SqliteBook(folder / "book.db")
        self.book.hold(ENVELOPE, KEY)
        self.owner = owner or World().brokers["hospital"].owner
        self.platform = SimulatedPlatform(self.clock)
        self.asked_for: list[Evidence] = []

        def endorse(evidence: Evidence, _at: int, came: Endorsements) -> Endorsements:
            self.asked_for.append(evidence)
            return Endorsements((*came.documents, *(documents.documents if documents else ())))

        self.around = Around(endorse, self.vouch)
        self.app = self.serve()
        self.web = self.client()

    def serve(self) -> Any:
        """The application, as after a restart."""
        self.guests = Guests(self.book, lambda: self.owner, self.around, now=self.clock)
        return broker(self.book, lambda: self.owner, None, now=self.clock, guests=self.guests)

    def vouch(self, report_data: bytes, _measurement: Measurement) -> tuple[Evidence, Endorsements]:
        return self.platform.produce(report_data), self.platform.endorsements()

    def client(self) -> httpx.Client:
        return in_process(self.app)

    def guest(self, **named: Any) -> Guest:
        """One with cookies of its own."""
        return Guest(self.client(), **named)

    def close(self) -> None:
        self.book.close()

    # --- contracts ---

    def proposal(self, *, measurements: Iterable[Measurement] = (MEASUREMENT,), runs: int = 1, **changes: Any) -> Proposal:
        at, found = self.clock.now, tuple(measurements)
        said: dict[str, Any] = {
            "title": "Keys for measured guests",
            "nonce": seed("a contract for guests", 16).hex(),
            "proposer": "lab",
            "supersedes": None,
            "created_at": at - HOUR,
            "not_before": at - HOUR,
            "not_after": at + 9 * DAY,
            "parties": (card("hospital"), card("lab")),
            "program": guest_program(found),
            "assets": (AssetRef("data", "hospital", MANIFEST.digest),),
            "outputs": (),
            "enclave": EnclaveTerms(tuple(sorted({m.platform for m in found})), found, "isolated"),
            "policy": Policy(frozenset({"guest"})),
            "limits": Limits(runs, 60, 1 << 20),
        }
        return Proposal(**{**said, **changes})

    def agree(self, *, asked: int = 1, **changes: Any) -> Contract:
        """A contract that the hospital approved, with runs asked for by the lab."""
        contract = sign_all(self.proposal(**changes))
        self.book.approve(contract.digest, self.clock.now)
        for number in range(asked):
            answer = self.ask(contract, self.run(contract, number))
            assert answer.status_code == 200, answer.text
        return contract

    def run(self, contract: Contract, number: int = 0, *, party: str = "lab", **changes: Any) -> RunRequest:
        run_id = seed(f"{contract.digest} {number}", 16).hex()
        found = RunRequest(contract.digest, party, run_id, self.clock.now, self.clock.now + HOUR)
        return replace(found, **changes)

    def ask(self, contract: Contract, run: RunRequest, *, by: str = "") -> httpx.Response:
        """A party's word that a guest is to run. ``by``: whose key signs, where it is not the party's."""
        signed = run.sign(keys_of(by or run.party).signing)
        body = wire.encode({"contract": contract.envelope.to_json(), "run": signed.to_json()})
        return self.client().post("/v1/guests", content=body)

    def used(self, contract: Contract) -> int:
        return len(self.book.standing(contract.digest).runs)

    def numbers(self) -> list[str]:
        """The checks that failed, of every decision in the owner's log; ``""`` for a release."""
        failed = ([c["number"] for c in d.checks if c["status"] == "failed"] for d in self.book.decisions())
        return [next(iter(found), "") for found in failed]


def uri(contract: Contract | str, manifest: str = MANIFEST.digest) -> str:
    """The address of an asset's key, as guests have it."""
    digest = contract if isinstance(contract, str) else contract.digest
    return f"kbs:///{digest.removeprefix('sha256:')}/{manifest.removeprefix('sha256:')}/key"


def owner_of(platform: str, roots: Roots, measurement: Measurement, terms: Any) -> Owner:
    """The hospital, as it accepts one measurement of some hardware."""
    policy = AppraisalPolicy(
        platforms=frozenset({platform}),
        roots={platform: roots},
        references=(Reference(measurement, "a guest"),),
        terms={platform: terms},
    )
    return Owner("hospital", broker_key("hospital"), World.trust(), policy)


# --- one decision, as a vector says it ----------------------------------------------------------------------------------


class VectorBook(MemoryBook):
    """A broker's memory with what guests need of it."""

    def __init__(self) -> None:
        super().__init__(Entropy("a guest's book"))
        self.asked: list[GuestRun] = []
        self.others: list[Taken] = []
        self.forgotten: dict[str, Envelope] = {}

    def asked_of_guests(self, _contract: str) -> list[GuestRun]:
        return self.asked

    def runs_of(self, keyset: str) -> list[Taken]:
        own = [Taken(*place) for place, holder in self._state.runs.items() if holder == keyset]
        return [*own, *self.others]

    def manifest(self, manifest: str) -> Envelope | None:
        held = self.held(manifest)
        return held.manifest if held else self.forgotten.get(manifest)

    @classmethod
    def read(cls, case: Mapping[str, Any]) -> VectorBook:
        """From a vector's ``book``."""
        found, said, contract = cls(), case["book"], Envelope.from_json(case["contract"]).digest
        for held in said["assets"]:
            found.hold(Envelope.from_json(held["manifest"]), AssetKey(bytes.fromhex(held["key"])))
        for value in said["shared"]:
            envelope = Envelope.from_json(value)
            found.forgotten[envelope.digest] = envelope
        found.others = [Taken(one["contract"], one["run_id"]) for one in said["other_runs"]]
        found._state.budgets.update({m: Envelope.from_json(e) for m, e in said["budgets"].items()})
        standing = said["standing"]
        if standing["approved"]:
            found.approve(contract, 0)
        if standing["ended_by"]:
            found.end(contract, standing["ended_by"])
        found._state.withdrawn.update((contract, party) for party in standing["withdrawn_by"])
        found._state.runs.update({(contract, run_id): guest for run_id, guest in standing["runs"].items()})
        return found


def session_of(said: Mapping[str, Any]) -> Attested:
    """From a vector's ``session``."""
    runtime = said["runtime_data"]
    return Attested(
        bytes.fromhex(said["nonce"]),
        RuntimeData(runtime["nonce"], TeeKey.from_json(runtime["tee-pubkey"]), runtime.get("additional-evidence")),
        Evidence.from_json(said["evidence"]),
        Endorsements.from_json(said["endorsements"]),
        said["began"],
        said["until"],
    )


def decided(case: Mapping[str, Any]) -> Release | Refusal:
    """What a broker does with a vector's request."""
    owner = case["owner"]
    here = Owner(
        owner["name"],
        SigningKey(bytes.fromhex(owner["broker_seed"])),
        Trust.from_json(owner["trust"]),
        AppraisalPolicy.from_json(owner["policy"]),
    )
    run = GuestRun(Envelope.from_json(case["contract"]), Envelope.from_json(case["run"]))
    request = GuestRequest(session_of(case["session"]), run, case["manifest"])
    return decide_guest(request, owner=here, book=VectorBook.read(case), at=case["at"])
