"""Writes ``vectors/receipt_batch``: one file a case, the expected outcome in the file.

    python vectors/make_batch.py

The world that the cases come from is that of the tests (tests/world.py), with its fixed keys, times and "random" bytes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from strongroom import wire  # noqa: E402 - the world is found first
from strongroom.attest.keyset import KeyEntry, Keyset  # noqa: E402
from strongroom.batch import AFTER_LEASE_S, BATCH_TYPE, Batch, Submission  # noqa: E402
from strongroom.contract import Contract, Limits, ProgramRef  # noqa: E402
from strongroom.drawing import GRAIN, Agreed, Price  # noqa: E402
from strongroom.party import SigningKey  # noqa: E402
from strongroom.policy import Policy  # noqa: E402
from strongroom.release import RELEASE_TYPE, ReleaseStatement, run_subject  # noqa: E402
from strongroom.serving import Serving  # noqa: E402
from strongroom.wire import Envelope  # noqa: E402
from world import DAY, HOUR, NOW, OWNERS, RUN, Asker, World, broker_key, keys_of, seed, sign_all  # noqa: E402

LEASE = 600
SERVED = Policy(frozenset({"evaluate"}), serve=Serving(frozenset({"chat"}), LEASE))
WORLD = World(terms=dict.fromkeys(OWNERS, SERVED))
LIMITS = Limits(2, 6 * HOUR, 1 << 30)
CONTRACT = sign_all(WORLD.proposal(policy=SERVED, outputs=(), limits=LIMITS, payments=()))
OTHER_CONTRACT = sign_all(WORLD.proposal(policy=SERVED, outputs=(), limits=LIMITS, payments=(), title="Another"))
SOURCE = Agreed("data", "law", wire.digest(b"weights"), Price(1, "credit"), GRAIN, GRAIN)


def sourced(**changes: object) -> Contract:
    """A standing contract of which "data" is a source."""
    given = {"sources": [{**SOURCE.to_json(), **changes}]}
    program = ProgramRef("serve-llm", wire.digest(b"serve-llm"), "evaluate", given)
    return sign_all(WORLD.proposal(policy=SERVED, outputs=(), limits=LIMITS, payments=(), program=program))


SOURCED = sourced()
OTHER_RUN = seed("another run", 16).hex()
RECEIPTS = tuple(sorted(wire.digest(f"receipt {n}".encode()) for n in range(3)))


@dataclass
class Pieces:
    """A submission before it is put together: honest as made; each case twists a piece."""

    contract: Contract = CONTRACT
    under: Contract = CONTRACT  # what the log holds it against
    receipts: tuple[str, ...] = RECEIPTS
    run_id: str = RUN
    signer: SigningKey | None = None
    keyset: Keyset | None = None
    kind: str = BATCH_TYPE
    leases: dict[str, ReleaseStatement] = field(default_factory=dict)
    brokers: dict[str, SigningKey] = field(default_factory=lambda: {r: broker_key(o) for r, o in OWNERS.items()})
    order: tuple[str, ...] = ("data", "model")
    at: int = NOW + 60

    def __post_init__(self) -> None:
        self.enclave = Asker(WORLD, self.contract)
        self.keyset = self.enclave.keyset
        for role, owner in OWNERS.items():
            self.leases[role] = ReleaseStatement(
                contract=self.contract.digest,
                manifest=WORLD.assets[role][0].digest,
                keyset_digest=self.keyset.digest,
                nonce=seed(f"nonce for {role}").hex(),
                run_id=RUN,
                broker=broker_key(owner).public.keyid,
                at=NOW,
                encrypted_key=wire.digest(b"an encrypted key"),
                policy=wire.digest(b"an appraisal policy"),
                until=NOW + LEASE,
            )

    def sent(self) -> Submission:
        assert self.keyset is not None
        payload = Batch(self.contract.digest, self.keyset.digest, self.run_id, self.receipts).encode()
        signer = self.signer or self.enclave.receipt_key
        leases = tuple(self.brokers[r].sign(RELEASE_TYPE, self.leases[r].encode()) for r in self.order)
        return Submission(signer.sign(self.kind, payload), self.keyset, leases)


def case(
    description: str,
    expect: str,
    change: Callable[[Pieces], object] | None = None,
    after: Callable[[dict[str, Any]], object] | None = None,
) -> dict[str, Any]:
    pieces = Pieces()
    if change:
        change(pieces)
    value = json.loads(pieces.sent().encode())
    if after:
        after(value)
    return {
        "at": pieces.at,
        "contract": pieces.under.envelope.to_json(),
        "description": description,
        "expect": expect,
        "submission": wire.encode(value).decode(),
    }


def lease(role: str = "data", **changes: Any) -> Callable[[Pieces], object]:
    def change(pieces: Pieces) -> None:
        pieces.leases[role] = replace(pieces.leases[role], **changes)

    return change


def say(**changes: Any) -> Callable[[Pieces], object]:
    def change(pieces: Pieces) -> None:
        for name, value in changes.items():
            setattr(pieces, name, value)

    return change


def drawn(order: tuple[str, ...] = ("model",), under: Contract = SOURCED, at: int = NOW + 60) -> Callable[[Pieces], object]:
    """Everything of a contract that has a source."""

    def change(pieces: Pieces) -> None:
        pieces.__init__(contract=under, under=under, order=order, at=at)  # type: ignore[misc]

    return change


def then(*changes: Callable[[Pieces], object]) -> Callable[[Pieces], object]:
    def change(pieces: Pieces) -> None:
        for one in changes:
            one(pieces)

    return change


def another_keyset(pieces: Pieces) -> None:
    """Somebody's own keys, and leases that were given to another enclave."""
    mallory = Asker(WORLD, CONTRACT, "mallory")
    pieces.keyset, pieces.signer = mallory.keyset, mallory.receipt_key


def another_role(pieces: Pieces) -> None:
    """The keyset's key for receipts of requests signs the batch."""
    key = SigningKey(seed("another role"))
    assert pieces.keyset is not None
    entries = (*pieces.keyset.receipt_signing_keys, KeyEntry("inference", "ed25519", key.public.raw.hex()))
    pieces.keyset, pieces.signer = replace(pieces.keyset, receipt_signing_keys=entries), key
    for role in OWNERS:
        lease(role, keyset_digest=pieces.keyset.digest)(pieces)


def another_subject(pieces: Pieces) -> None:
    """A keyset that was made for another run, and the leases to it."""
    assert pieces.keyset is not None
    pieces.keyset = replace(pieces.keyset, subject=run_subject(CONTRACT.digest, OTHER_RUN))
    for role in OWNERS:
        lease(role, keyset_digest=pieces.keyset.digest)(pieces)


def resigned(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], object]:
    """A batch whose members say something else, signed rightly."""

    def after(value: dict[str, Any]) -> None:
        said = json.loads(Envelope.from_json(value["batch"]).payload)
        change(said)
        value["batch"] = Asker(WORLD, CONTRACT).receipt_key.sign(BATCH_TYPE, wire.encode(said)).to_json()

    return after


def cases() -> dict[str, dict[str, Any]]:
    bad, signature, wrong = "ledger.bad_batch", "wire.bad_signature", "wire.bad_field"
    run_contract = sign_all(World().proposal())
    return {
        "ok": case("three receipts, and a lease of each owner's broker", "ok"),
        "ok-one": case("one receipt", "ok", say(receipts=RECEIPTS[:1])),
        "ok-after-the-lease": case(
            "what was served is brought a day after the lease", "ok", say(at=NOW + LEASE + AFTER_LEASE_S)
        ),
        "ok-source": case("a lease of a source too", "ok", drawn(("data", "model"))),
        "ok-source-left-out": case("a source whose owner gave no lease", "ok", drawn()),
        "ok-source-ended": case(
            "a source whose lease ended long ago, beside one that did not", "ok",
            then(drawn(("data", "model"), at=NOW + LEASE + AFTER_LEASE_S + 1), lease("model", until=NOW + 2 * LEASE)),
        ),
        "source-alone": case("a source's lease, and none of the model", bad, drawn(("data",))),
        "source-behind": case("a source's lease that is not in the order of the assets", bad, drawn(("model", "data"))),
        "source-doubled": case("a source's lease twice", signature, drawn(("data", "data"))),
        "source-of-another-run": case(
            "a source's lease of another run", bad, then(drawn(("data", "model")), lease(run_id=OTHER_RUN))
        ),
        "source-by-a-stranger": case(
            "a source's lease by another's broker", signature,
            then(drawn(("data", "model")), lambda p: p.brokers.update(data=broker_key("lab"))),
        ),
        "source-without-an-end": case(
            "a release of a source for a run, without an end", bad, then(drawn(("data", "model")), lease(until=None))
        ),
        "source-unreadable": case(
            "what the contract says of its sources is in no form, and one gave no lease", bad, drawn(under=sourced(token=0))
        ),
        "late": case("more than a day after the lease", bad, say(at=NOW + LEASE + AFTER_LEASE_S + 1)),
        "no-standing-contract": case(
            "a contract for runs", bad, say(under=run_contract), None
        ),
        "another-contract": case("leases and batch of another standing contract", bad, say(under=OTHER_CONTRACT)),
        "stranger": case("a stranger signs the batch", signature, say(signer=SigningKey(seed("stranger")))),
        "strangers-keyset": case("a stranger's keyset, beside leases to another enclave's", bad, another_keyset),
        "another-role": case("signed by the keyset's key for receipts of requests", signature, another_role),
        "another-subject": case("a keyset that was made for another run", bad, another_subject),
        "another-run": case("a batch of another run than the keyset's", bad, say(run_id=OTHER_RUN)),
        "another-type": case("an envelope of another payload type", "wire.bad_envelope", say(kind=wire.media_type("entry"))),
        "a-party-is-no-broker": case(
            "a lease signed by the owner, and not by its broker", signature,
            lambda p: p.brokers.update(data=keys_of("hospital").signing),
        ),
        "one-owner-for-both": case(
            "the lab's broker signs the hospital's lease", signature, lambda p: p.brokers.update(data=broker_key("lab"))
        ),
        "lease-missing": case("one owner gave no lease", bad, say(order=("data",))),
        "lease-doubled": case("one owner's lease twice", signature, say(order=("data", "data"))),
        "leases-swapped": case("the leases are not in the order of the assets", signature, say(order=("model", "data"))),
        "no-lease": case("no lease at all", wrong, None, lambda v: v.update(leases=[])),
        "a-release-is-no-lease": case("a release for a run, without an end", bad, lease(until=None)),
        "lease-of-another-run": case("a lease of another run", bad, lease(run_id=OTHER_RUN)),
        "lease-of-another-asset": case("a lease of another asset", bad, lease(manifest=WORLD.assets["model"][0].digest)),
        "lease-of-another-contract": case("a lease under another contract", bad, lease(contract=OTHER_CONTRACT.digest)),
        "lease-to-another-keyset": case("a lease to another enclave", bad, lease(keyset_digest=wire.digest(b"another"))),
        "lease-out-of-the-contract": case(
            "a lease that was given when the contract had ended", "contract.expired", lease(at=NOW + 2 * DAY)
        ),
        "not-sorted": case(
            "receipts out of their order", bad, None, resigned(lambda s: s.update(receipts=s["receipts"][::-1]))
        ),
        "twice": case("a receipt twice", bad, None, resigned(lambda s: s.update(receipts=s["receipts"][:1] * 2))),
        "none": case("no receipt", wrong, None, resigned(lambda s: s.update(receipts=[]))),
        "too-many": case(
            "1,001 receipts", wrong, None,
            resigned(lambda s: s.update(receipts=sorted(wire.digest(str(n).encode()) for n in range(1001)))),
        ),
        "not-a-digest": case(
            "a receipt that is no digest", wrong, None, resigned(lambda s: s.update(receipts=["sha256:00"]))
        ),
        "unknown-member": case("a member too many", wrong, None, resigned(lambda s: s.update(note="hello"))),
        "another-purpose": case("another version", wrong, None, resigned(lambda s: s.update(purpose="strongroom.other.v1"))),
        "submission-member": case("a member too many beside the batch", wrong, None, lambda v: v.update(note="hello")),
    }  # fmt: skip


def main() -> None:
    folder = HERE / "receipt_batch"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.json"):
        old.unlink()
    for name, value in cases().items():
        (folder / f"{name}.json").write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
