"""Writes vectors/release and vectors/delivery: one file per case, the expected outcome in the file.

    python vectors/make_release.py

The world that the cases come from is that of the tests (tests/world.py), with its fixed keys, times and "random" bytes.
Encryption does draw random numbers, so each ciphertext was made once and is kept in make_release.kept.json; one that no
longer fits its case is made anew.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from strongroom import wire  # noqa: E402 - the world is found first
from strongroom.asset import sign_manifest  # noqa: E402
from strongroom.attest.appraisal_policy import AppraisalPolicy  # noqa: E402
from strongroom.attest.evidence import Endorsements  # noqa: E402
from strongroom.attest.keyset import report_data  # noqa: E402
from strongroom.broker import Charged, Held  # noqa: E402
from strongroom.budget.charge import Charge  # noqa: E402
from strongroom.contract import (  # noqa: E402
    WITHDRAWAL_TYPE,
    Contract,
    Grant,
    Limits,
    RunRequest,
    Withdrawal,
)
from strongroom.delivery import Delivery, binding  # noqa: E402
from strongroom.party import EncryptionKey, SigningKey  # noqa: E402
from strongroom.policy import Policy  # noqa: E402
from strongroom.release import RELEASE_TYPE, ReleaseRequest, ReleaseStatement, run_subject  # noqa: E402
from strongroom.serving import Serving  # noqa: E402
from strongroom.wire import Envelope  # noqa: E402
from world import (  # noqa: E402
    DAY,
    EDITED,
    HOUR,
    NOW,
    RUN,
    TERMS,
    Asker,
    Clock,
    MemoryBook,
    SimulatedPlatform,
    World,
    allow,
    broker_key,
    card,
    charge,
    keys_of,
    reviewed,
    seed,
    sign_all,
)

KEPT = HERE / "make_release.kept.json"
APPROVER_MISSING = "contract.approver_missing"
OTHER_RUN = seed("another run", 16).hex()
OTHER = wire.digest(b"another")

Case = dict[str, Any]
Cases = dict[str, Case]

WORLD = World()
PROPOSAL = WORLD.proposal()
CONTRACT = sign_all(PROPOSAL)
SERVED = Policy(frozenset({"evaluate"}), serve=Serving(frozenset({"chat"}), 600))
STANDING: dict[str, Any] = {"policy": SERVED, "outputs": (), "payments": ()}
LAB, HOSPITAL, STRANGER = (keys_of(name) for name in ("lab", "hospital", "stranger"))


class Kept:
    """Ciphertexts that were made once."""

    def __init__(self, place: Path = KEPT) -> None:
        self._known: dict[str, str] = json.loads(place.read_text(encoding="utf-8")) if place.exists() else {}
        self.used: dict[str, str] = {}

    def encrypt(self, key: EncryptionKey, plaintext: bytes, info: bytes) -> bytes:
        name = hashlib.sha256(key.raw + plaintext + info).hexdigest()
        self.used[name] = self._known.get(name) or wire.b64(key.encrypt(plaintext, info=info))
        return wire.unb64(self.used[name])


KEEP = Kept()


# --- releases ---------------------------------------------------------------------------------------------------------


def book_json(book: MemoryBook, contract: str) -> dict[str, Any]:
    """What a broker remembers, as far as one decision needs it."""
    standing, state = book.standing(contract), book._state  # noqa: SLF001
    budgets = [envelope.to_json() for envelope in {e.digest: e for e in state.budgets.values()}.values()]
    charges = [
        {
            "at": c.at,
            "charge": c.charge.to_json(),
            "contract": c.contract,
            "manifest": c.manifest,
            "party": c.party,
            "run_id": c.run_id,
            "settled": c.settled.to_json() if c.settled else None,
        }
        for c in state.charges.values()
    ]
    return {
        **({"budgets": budgets, "charges": charges} if budgets or charges else {}),
        **({"over": state.over[""]} if state.over else {}),
        "assets": [{"key": held.key.raw.hex(), "manifest": held.manifest.to_json()} for held in book._state.assets.values()],  # noqa: SLF001
        "nonces": {nonce.hex(): until for nonce, until in sorted(book._state.nonces.items())},  # noqa: SLF001
        "standing": {
            "approved": standing.approved,
            "ended_by": standing.ended_by,
            "granted": standing.granted,
            "runs": dict(sorted(standing.runs.items())),
            "withdrawn_by": sorted(standing.withdrawn_by),
        },
    }


Twist = Callable[[World, Contract, Asker, bytes], ReleaseRequest | None]


def _decide(
    description: str,
    expect: str,
    number: str,
    twist: Twist | None = None,
    *,
    world: World | None = None,
    approve: bool = True,
    at: int = NOW,
    prepare: Callable[[World, Contract], None] | None = None,
    run_id: str = RUN,
    name: str = "enclave",
    **changes: Any,
) -> Case:
    """A decision of the hospital's broker on one request; ``twist`` changes the request, ``prepare`` what came before."""
    world = world or World()
    contract = world.agree(**changes) if approve else sign_all(world.proposal(**changes))
    if prepare:
        prepare(world, contract)
    broker = world.brokers["hospital"]
    nonce = broker.nonce()
    enclave = Asker(world, contract, name, run_id=run_id)
    request = (twist(world, contract, enclave, nonce) if twist else None) or enclave.request(nonce=nonce)
    return {
        "at": at,
        "book": book_json(broker.book, contract.digest),
        "description": description,
        "expect": expect,
        "number": number,
        "operation": "decide",
        "owner": {
            "broker_seed": broker.owner.broker.seed.hex(),
            "name": broker.owner.name,
            "policy": broker.owner.policy.to_json(),
            "trust": broker.owner.trust.to_json(),
        },
        "release_seed": enclave.release_key.seed.hex(),
        "request": request.to_json(),
    }


def _owner(**changes: Any) -> Callable[[World, Contract], None]:
    """The hospital's broker, set up otherwise."""

    def prepare(world: World, _: Contract) -> None:
        broker = world.brokers["hospital"]
        trust = changes.get("trust", broker.owner.trust)
        broker.owner = replace(broker.owner, **{"policy": trust.appraisal_policy(), **changes})

    return prepare


def _took(name: str, run_id: str) -> Callable[[World, Contract], None]:
    """Another enclave had a run before."""

    def prepare(world: World, contract: Contract) -> None:
        world.brokers["hospital"].book._state.runs[contract.digest, run_id] = Asker(world, contract, name).keyset.digest  # noqa: SLF001

    return prepare


def _budget(epsilon: str | None = "1", *before: Charge, signer: SigningKey | None = None, **counts: int) -> Any:
    """The data has a budget, and this was charged against it under another contract."""

    def prepare(world: World, _: Contract) -> None:
        book = world.brokers["hospital"].book
        budget = allow(world, epsilon, **counts)
        manifest = budget.assets[0]
        if signer is not None:
            book._state.budgets[manifest] = budget.sign(signer)  # noqa: SLF001
        for number, charged in enumerate(before):
            book.charge(Charged(OTHER, f"{number:032x}", manifest, "lab", NOW, charged))

    return prepare


def _this_run_charged(world: World, contract: Contract) -> None:
    _budget("1", charge(), charge())(world, contract)
    _took("enclave", RUN)(world, contract)
    manifest = world.assets["data"][0].digest
    world.brokers["hospital"].book.charge(Charged(contract.digest, RUN, manifest, "lab", NOW, charge()))


def approved(*parties: str, **said: Any) -> dict[str, Any]:
    world, changes = reviewed(*parties, **said)
    return {"world": world, **changes}


def _approval_of_other_bytes(_: World, contract: Contract, enclave: Asker, nonce: bytes) -> ReleaseRequest:
    """A reviewer signed the proposal with one run; this one says two."""
    more = replace(contract.proposal, limits=Limits(2, 300, 1 << 30))
    others = [more.sign(keys_of(p.name)) for p in more.parties if p.name != "ben"]
    old = next(s for s in contract.envelope.signatures if s.keyid == card("ben").signing_key.keyid)
    return enclave.request(nonce=nonce, contract=more.envelope([*others, old]))


def _without(missing: str) -> Twist:
    def twist(_: World, contract: Contract, enclave: Asker, nonce: bytes) -> ReleaseRequest:
        kept = tuple(s for s in contract.envelope.signatures if s.keyid != card(missing).signing_key.keyid)
        return enclave.request(nonce=nonce, contract=replace(contract.envelope, signatures=kept))

    return twist


def _evidence(**changes: Any) -> Twist:
    return lambda world, _c, enclave, nonce: enclave.request(
        nonce=nonce, report=enclave.report(nonce, replace(world.platform, **changes))
    )


def _report(change: Callable[[World, Asker, bytes], Any]) -> Twist:
    return lambda world, _c, enclave, nonce: enclave.request(nonce=nonce, report=change(world, enclave, nonce))


def _asked(by: Callable[[World, Contract], Envelope]) -> Twist:
    return lambda world, contract, enclave, nonce: enclave.request(nonce=nonce, run=by(world, contract))


def _relayed(_: World, enclave: Asker, nonce: bytes) -> Any:
    enclave.keyset = replace(enclave.keyset, subject=run_subject(OTHER, RUN))
    return enclave.report(nonce)


def _null_nonce(world: World, enclave: Asker, nonce: bytes) -> Any:
    bound = report_data(enclave.keyset.digest, None)
    return replace(enclave.report(nonce), report_data=bound[:32], evidence=world.platform.produce(bound))


def _expired_keyset(_: World, enclave: Asker, nonce: bytes) -> Any:
    enclave.keyset = replace(enclave.keyset, not_after=NOW - 1)
    return enclave.report(nonce)


def _withdraw(world: World, contract: Contract) -> None:
    withdrawal = Withdrawal(contract.digest, "lab", NOW, "")
    world.brokers["hospital"].book.withdraw(withdrawal, withdrawal.sign(LAB.signing))


def _grant(world: World, contract: Contract) -> None:
    _took("another", OTHER_RUN)(world, contract)
    grant = Grant(contract.digest, "hospital", 1, "ab" * 16)
    world.brokers["hospital"].book.grant(grant, grant.sign(HOSPITAL.signing))


def _forget_keys(world: World, _: Contract) -> None:
    world.brokers["hospital"].book._state.assets.clear()  # noqa: SLF001


def _unsigned_manifest(world: World, _: Contract) -> None:
    manifest, _e, _s, key = world.assets["data"]
    forged = Held(sign_manifest(manifest, LAB.signing), key)
    world.brokers["hospital"].book._state.assets[manifest.digest] = forged  # noqa: SLF001


def _serving() -> World:
    return World(terms=dict.fromkeys(("data", "model"), SERVED))


def _asked_long_ago(_: World, contract: Contract, enclave: Asker, nonce: bytes) -> ReleaseRequest:
    asked = RunRequest(contract.digest, "lab", RUN, NOW - 601).sign(LAB.signing)
    return enclave.request(nonce=nonce, run=asked)


def decide_cases() -> Cases:
    trust, two = World.trust(), Limits(2, 300, 1 << 30)
    both = trust.with_enclaves([], [EDITED])
    other_lab = replace(card("lab"), broker_key=broker_key("stranger").public)
    rogue = SigningKey(seed("rogue"))
    narrow = World(terms={"data": Policy(frozenset({"train"}), TERMS.outputs)})
    edited = World()
    edited.platform.measurement = EDITED
    return {
        "ok": _decide("everything is as it must be", "ok", ""),
        "ok-second-run": _decide(
            "the second of two runs", "ok", "", limits=two, prepare=_took("another", OTHER_RUN)
        ),
        "ok-same-keyset": _decide("the same keyset asks again", "ok", "", prepare=_took("enclave", RUN)),
        "ok-lease": _decide("a standing contract: a lease", "ok", "", **STANDING, world=_serving()),
        "ok-lease-renewed": _decide(
            "the room is open, and asks for another lease under the request that opened it", "ok", "", **STANDING,
            world=_serving(), prepare=_took("enclave", RUN), at=NOW + 299,
        ),
        "d8-room-too-old": _decide(
            "a room that was opened longer ago than it may be open", "wire.bad_field", "D8", **STANDING,
            world=_serving(), prepare=_took("enclave", RUN), twist=_asked_long_ago,
        ),
        "ok-granted": _decide("the owner granted another run", "ok", "", prepare=_grant),
        "ok-last-second": _decide("in the contract's last second", "ok", "", world=World(), at=NOW, not_after=NOW + 1),
        "ok-charged": _decide(
            "the last of the budget", "ok", "", prepare=_budget("1", charge()), charges=(charge(),)
        ),
        "ok-charged-before": _decide(
            "the same keyset asks again, and its run is charged already", "ok", "", prepare=_this_run_charged,
            charges=(charge(),),
        ),
        "ok-charged-without-a-budget": _decide("a charge, and no budget yet", "ok", "", charges=(charge(),)),
        "d17-epsilon": _decide(
            "others have spent what it would need", "budget.exceeded", "D17",
            prepare=_budget("1", charge(), charge()), charges=(charge(),),
        ),
        "d17-runs": _decide(
            "the budget's last run was used under another contract", "budget.exceeded", "D17",
            prepare=_budget(None, charge(), runs=1), charges=(charge(),),
        ),
        "d17-no-charge": _decide(
            "the asset has a budget, and the contract states no charge", "budget.not_charged", "D17", prepare=_budget()
        ),
        "d17-no-event": _decide(
            "the budget limits epsilon, and the charge names no event", "budget.not_charged", "D17", prepare=_budget(),
            charges=(replace(charge(), events=()),),
        ),
        "d17-forged": _decide(
            "a budget in the book that the owner did not sign", "wire.bad_signature", "D17",
            prepare=_budget(signer=LAB.signing), charges=(charge(),),
        ),
        "d1-made-up": _decide(
            "a nonce that this broker never gave", "broker.nonce", "D1",
            lambda _w, _c, enclave, _n: enclave.request(nonce=seed("made up")),
        ),
        "d1-expired": _decide("a nonce that has expired", "broker.nonce", "D1", at=NOW + 300),
        "d2-missing": _decide("a signature is missing", "contract.signature_missing", "D2", _without("lab")),
        "d2-other-bytes": _decide(
            "an approval of other bytes", "contract.signature_invalid", "D2",
            lambda world, contract, enclave, nonce: enclave.request(
                nonce=nonce, contract=replace(contract.envelope, payload=world.proposal(limits=two).encode())
            ),
        ),
        "d3-not-pinned": _decide(
            "a party is not pinned", "party.not_pinned", "D3", prepare=_owner(trust=trust.unpin("lab"))
        ),
        "d3-other-keys": _decide(
            "other keys are pinned under a party's name", "party.pin_mismatch", "D3",
            prepare=_owner(trust=replace(trust, parties=(card("hospital"), other_lab))),
        ),
        "d4-other-broker": _decide(
            "the contract names another broker key", "broker.not_mine", "D4", prepare=_owner(broker=broker_key("stranger"))
        ),
        "d5-expired": _decide(
            "the contract has ended", "contract.expired", "D5", not_before=NOW - DAY, not_after=NOW
        ),
        "d5-too-early": _decide("the contract has not begun", "contract.not_yet_valid", "D5", not_before=NOW + 1),
        "d6-no-key": _decide("the key is not here", "broker.unknown_asset", "D6", prepare=_forget_keys),
        "d6-not-in-contract": _decide(
            "the asset is not in the contract", "broker.unknown_asset", "D6",
            lambda _w, _c, enclave, nonce: enclave.request(nonce=nonce, manifest=OTHER),
        ),
        "d6-of-another": _decide(
            "the asset is another owner's", "broker.unknown_asset", "D6",
            lambda world, _c, enclave, nonce: enclave.request(nonce=nonce, manifest=world.assets["model"][0].digest),
        ),
        "d6-manifest-forged": _decide(
            "the manifest is not signed by its owner", "wire.bad_signature", "D6", prepare=_unsigned_manifest
        ),
        "d7-terms": _decide("the asset's terms allow another use", "policy.not_permitted", "D7", world=narrow),
        "ok-approved": _decide(
            "two of three reviewers approved, and the data protection officer", "ok", "", **approved("ann", "cas", "dpo")
        ),
        "d7-approver-missing": _decide(
            "one of the two reviewers who must approve is no party", APPROVER_MISSING, "D7", **approved("ann", "dpo")
        ),
        "d7-approver-of-another-group": _decide(
            "three reviewers make up for no data protection officer", APPROVER_MISSING, "D7", **approved("ann", "ben", "cas")
        ),
        "d7-approver-proposes": _decide(
            "a reviewer's approval of their own proposal", APPROVER_MISSING, "D7", **approved("ann", "ben", "dpo"),
            proposer="ann",
        ),
        "d7-approver-under-two-names": _decide(
            "one reviewer's second key, as a party that the terms do not name", APPROVER_MISSING, "D7",
            **approved("ann", "ann-2", "dpo"),
        ),
        "d7-approver-under-another-key": _decide(
            "a party by a reviewer's name, under another key than the terms name", APPROVER_MISSING, "D7",
            **approved("ann", "ben", "dpo", moved="ben"),
        ),
        "d3-approver-unpinned": _decide(
            "a reviewer whom the owner has unpinned since", "party.not_pinned", "D3",
            **approved("ann", "ben", "dpo", pinned=("ann", "dpo")),
        ),
        "d2-approver-of-other-bytes": _decide(
            "a reviewer's approval of other bytes", "contract.signature_invalid", "D2", _approval_of_other_bytes,
            **approved("ann", "ben", "dpo"),
        ),
        "d8-stranger": _decide(
            "a stranger asked for the run", "contract.not_a_party", "D8",
            _asked(lambda _w, c: RunRequest(c.digest, "stranger", RUN, NOW).sign(STRANGER.signing)),
        ),
        "d8-forged": _decide(
            "a stranger asked in a party's name", "wire.bad_signature", "D8",
            _asked(lambda _w, c: RunRequest(c.digest, "lab", RUN, NOW).sign(STRANGER.signing)),
        ),
        "d8-other-run": _decide(
            "a party asked for another run", "wire.bad_field", "D8",
            _asked(lambda world, c: world.asked(c, OTHER_RUN)),
        ),
        "d8-other-contract": _decide(
            "a party asked for a run of another contract", "wire.bad_field", "D8",
            _asked(lambda _w, _c: RunRequest(OTHER, "lab", RUN, NOW).sign(LAB.signing)),
        ),
        "d8-old": _decide(
            "a party asked an hour ago", "wire.bad_field", "D8",
            _asked(lambda _w, c: RunRequest(c.digest, "lab", RUN, NOW - HOUR).sign(LAB.signing)),
        ),
        "d9-edited": _decide(
            "an edited program", "attest.measurement_not_accepted", "D9", _evidence(measurement=EDITED)
        ),
        "d9-rogue-platform": _decide(
            "a platform of one's own", "attest.unknown_root", "D9",
            _evidence(root=rogue, key=SigningKey(seed("rogue platform"))),
        ),
        "d9-debug": _decide("an enclave under a debugger", "attest.debug", "D9", _evidence(debug=True)),
        "d9-unendorsed": _decide(
            "nothing vouches for the platform", "attest.endorsement_missing", "D9",
            _report(lambda _w, enclave, nonce: replace(enclave.report(nonce), endorsements=Endorsements())),
        ),
        "d9-other-nonce": _decide(
            "evidence for another nonce", "attest.not_bound", "D9",
            _report(lambda _w, enclave, _n: enclave.report(seed("another nonce"))),
        ),
        "d9-null-nonce": _decide("evidence for no nonce", "attest.not_bound", "D9", _report(_null_nonce)),
        "d9-other-keyset": _decide(
            "another enclave's evidence", "attest.not_bound", "D9",
            _report(
                lambda world, enclave, nonce: replace(
                    Asker(world, enclave.contract, "eavesdropper").report(nonce), evidence=enclave.report(nonce).evidence
                )
            ),
        ),
        "d9-old": _decide(
            "evidence an hour old", "attest.not_fresh", "D9",
            _report(lambda _w, enclave, nonce: enclave.report(nonce, SimulatedPlatform(Clock(NOW - HOUR)))),
        ),
        "d9-keyset-expired": _decide(
            "a keyset that has expired", "attest.keyset_expired", "D9", _report(_expired_keyset)
        ),
        "d9-empty-policy": _decide(
            "an owner that accepts no platform", "attest.platform_not_accepted", "D9",
            prepare=_owner(policy=AppraisalPolicy()),
        ),
        "d10-relayed": _decide(
            "evidence that was made for another contract's run, passed on", "broker.keyset_of_another_run", "D10",
            _report(_relayed),
        ),
        "d11-not-named": _decide(
            "an enclave that the owner accepts and the contract does not name", "broker.enclave_not_named", "D11",
            world=edited, prepare=_owner(trust=both),
        ),
        "d12-not-approved": _decide("the owner did not approve it here", "broker.not_approved", "D12", approve=False),
        "d12-restored": _decide(
            "the broker was put back from a backup after the contract had begun", "broker.restored", "D12",
            prepare=lambda world, contract: world.brokers["hospital"].book._state.over.update(  # noqa: SLF001
                {"": contract.proposal.created_at}
            ),
        ),
        "ok-begun-after-a-restore": _decide(
            "the broker was put back before the contract was proposed", "ok", "",
            prepare=lambda world, contract: world.brokers["hospital"].book._state.over.update(  # noqa: SLF001
                {"": min(contract.proposal.created_at, contract.proposal.not_before) - 1}
            ),
        ),
        "d13-countered": _decide(
            "the owner countered it", "contract.superseded", "D13",
            prepare=lambda world, contract: world.brokers["hospital"].book.end(contract.digest, OTHER),
        ),
        "d14-withdrawn": _decide("another party withdrew", "contract.withdrawn", "D14", prepare=_withdraw),
        "d15-taken": _decide(
            "the run is another enclave's", "broker.run_taken", "D15", limits=two, prepare=_took("another", RUN)
        ),
        "d16-spent": _decide("no run is left", "broker.no_run_left", "D16", prepare=_took("another", OTHER_RUN)),
    }  # fmt: skip


def open_cases() -> Cases:
    """The enclave's side: what it makes of a broker's answer."""
    world = World()
    enclave = Asker(world, CONTRACT)
    key, nonce, slot = world.assets["data"][3], seed("nonce"), enclave.slot()
    broker = broker_key("hospital")
    draft = ReleaseStatement(
        contract=slot.contract,
        manifest=slot.manifest,
        keyset_digest=slot.keyset_digest,
        nonce=nonce.hex(),
        run_id=slot.run_id,
        broker=broker.public.keyid,
        at=NOW,
        encrypted_key="",
        policy=world.trust().appraisal_policy().digest,
    )
    encrypted = KEEP.encrypt(enclave.release_key.public, key.raw, draft.info)
    short = KEEP.encrypt(enclave.release_key.public, key.raw[:-1], draft.info)
    swapped = KEEP.encrypt(enclave.release_key.public, bytes(32), draft.info)
    statement = replace(draft, encrypted_key=wire.digest(encrypted))
    cases: Cases = {}

    def add(
        name: str,
        description: str,
        expect: str,
        *,
        said: ReleaseStatement = statement,
        signer: SigningKey = broker,
        kind: str = RELEASE_TYPE,
        ciphertext: bytes = encrypted,
        more: dict[str, Any] | None = None,
        latest: int | None = None,
        **asked: Any,
    ) -> None:
        answer = {
            "encrypted_key": wire.b64(ciphertext),
            "release": signer.sign(kind, said.encode()).to_json(),
            **(more or {}),
        }
        cases[f"open-{name}"] = {
            "answer": answer,
            "asset_key": key.raw.hex(),
            "broker": wire.b64(broker.public.raw),
            "description": description,
            "expect": expect,
            **({} if latest is None else {"latest": latest}),
            "nonces": [nonce.hex()],
            "operation": "open",
            "release_seed": enclave.release_key.seed.hex(),
            "slot": {
                "contract": slot.contract,
                "keyset_digest": slot.keyset_digest,
                "manifest": slot.manifest,
                "run_id": slot.run_id,
                **asked,
            },
        }

    release, forged = "broker.bad_release", "wire.bad_signature"
    add("ok", "the release that was asked for", "ok")
    for member in ("contract", "keyset_digest", "manifest"):
        add(f"other-{member.replace('_', '-')}", f"another {member} was asked for", release, **{member: OTHER})
    add("other-run", "another run was asked for", release, run_id=OTHER_RUN)
    add("other-nonce", "a release for another nonce", release, said=replace(statement, nonce=seed("another").hex()))
    cases["open-no-nonce"] = {**cases["open-ok"], "description": "nothing was asked", "expect": release, "nonces": []}
    add("other-broker", "signed by another broker", forged, signer=broker_key("lab"))
    add("by-the-party", "signed by the owner and not its broker", forged, signer=HOSPITAL.signing)
    add(
        "other-broker-named",
        "it names another broker than the one that signed",
        release,
        said=replace(statement, broker=broker_key("lab").public.keyid),
    )
    add("swapped", "the encrypted key is another than was signed", release, ciphertext=swapped)
    add(
        "short-key",
        "a key of 31 bytes",
        "party.bad_key",
        said=replace(statement, encrypted_key=wire.digest(short)),
        ciphertext=short,
    )
    moved = replace(statement, run_id=OTHER_RUN)
    add("bound-elsewhere", "signed for this run, and encrypted for another", "party.bad_key", said=moved, run_id=OTHER_RUN)
    lease = replace(draft, until=NOW + 600)
    leased = KEEP.encrypt(enclave.release_key.public, key.raw, lease.info)
    lease = replace(lease, encrypted_key=wire.digest(leased))
    add("lease-ok", "a lease that the contract allows", "ok", said=lease, ciphertext=leased, latest=NOW + 600)
    add("lease-too-long", "longer than the contract allows", release, said=lease, ciphertext=leased, latest=NOW + 599)
    add("lease-for-a-run", "a lease, where a run was asked for", release, said=lease, ciphertext=leased)
    add("run-for-a-lease", "no end, where a lease was asked for", release, latest=NOW + 600)
    add(
        "lease-bound-as-a-run",
        "signed as a lease, and encrypted for the length of a run",
        "party.bad_key",
        said=replace(statement, until=NOW + 600),
        latest=NOW + 600,
    )
    add("another-type", "another kind of document", "wire.bad_envelope", kind=WITHDRAWAL_TYPE)
    add("unknown-member", "a member of another version", "wire.bad_field", more={"more": 1})
    return cases


def request_cases() -> Cases:
    world = World()
    good = Asker(world, CONTRACT).request().to_json()
    changes: dict[str, tuple[str, str, Any]] = {
        "ok": ("a request", "ok", good),
        "null-nonce": ("no nonce: a release never accepts a null one", "wire.bad_field", {**good, "nonce": None}),
        "short-nonce": ("a nonce of 16 bytes", "wire.bad_field", {**good, "nonce": "00" * 16}),
        "other-purpose": ("for another purpose", "wire.bad_field", {**good, "purpose": "aci.report_data.v1"}),
        "short-run": ("a run id of one byte", "wire.bad_field", {**good, "run_id": "00"}),
        "unknown-member": ("a member of another version", "wire.bad_field", {**good, "more": 1}),
        "no-report": ("without a report", "wire.bad_field", {k: v for k, v in good.items() if k != "report"}),
    }
    return {
        f"request-{name}": {"description": description, "expect": expect, "operation": "request", "request": value}
        for name, (description, expect, value) in changes.items()
    }


# --- deliveries -------------------------------------------------------------------------------------------------------


def delivery_cases() -> Cases:
    manifest, _, sealed, key = WORLD.assets["data"]  # any sealed file will do
    bound = {"contract": CONTRACT.digest, "run_id": RUN, "output": "report", "manifest": manifest.digest}
    keys = {
        name: KEEP.encrypt(card(name).encryption_key, key.raw, binding(**bound, recipient=name))
        for name in ("hospital", "lab")
    }
    good = Delivery(CONTRACT.digest, RUN, "report", wire.digest(sealed), manifest, keys)
    value = json.loads(good.encode())
    cases: Cases = {}

    def add(name: str, description: str, expect: str, found: Any, *, who: str = "lab", opens: str = "lab") -> None:
        cases[name] = {
            "delivery": found,
            "description": description,
            "expect": expect,
            "key": key.raw.hex(),
            "recipient": who,
            "seed": keys_of(opens).decryption.seed.hex(),
        }

    add("ok-lab", "one recipient opens it", "ok", value)
    add("ok-hospital", "the other recipient opens it", "ok", value, who="hospital", opens="hospital")
    add("another-key", "with another party's private key", "party.bad_key", value, opens="hospital")
    add(
        "no-recipient",
        "by somebody to whom it was not delivered",
        "contract.not_a_party",
        value,
        who="stranger",
        opens="stranger",
    )
    encoded = {name: wire.b64(found) for name, found in keys.items()}
    swapped = {"hospital": encoded["lab"], "lab": encoded["hospital"]}
    add("keys-swapped", "the recipients' keys are swapped", "party.bad_key", {**value, "keys": swapped})
    renamed = {"laboratory": encoded["lab"]}
    add("renamed", "under another recipient's name", "party.bad_key", {**value, "keys": renamed}, who="laboratory")
    add("other-contract", "moved to another contract", "party.bad_key", {**value, "contract": OTHER})
    add("other-run", "moved to another run", "party.bad_key", {**value, "run_id": OTHER_RUN})
    add("other-output", "moved to another output", "party.bad_key", {**value, "output": "log"})
    other = WORLD.assets["model"][0].to_json()
    add("other-manifest", "with another file's manifest", "party.bad_key", {**value, "manifest": other})
    add("nobody", "delivered to nobody", "receipt.bad_receipt", {**value, "keys": {}})
    add("path-as-output", "an output named like a path", "wire.bad_field", {**value, "output": "../report"})
    add("unknown-member", "a member of another version", "wire.bad_field", {**value, "more": 1})
    add("other-purpose", "for another purpose", "wire.bad_field", {**value, "purpose": "strongroom.release.v1"})
    return cases


def all_cases() -> dict[str, Cases]:
    """Folder to name to case."""
    return {
        "delivery": delivery_cases(),
        "release": {
            **{f"decide-{name}": case for name, case in decide_cases().items()},
            **open_cases(),
            **request_cases(),
        },
    }


def main() -> None:
    for folder, cases in all_cases().items():
        (HERE / folder).mkdir(exist_ok=True)
        for stale in (HERE / folder).glob("*.json"):
            stale.unlink()
        for name, case in cases.items():
            text = json.dumps(case, indent=2, sort_keys=True) + "\n"
            (HERE / folder / f"{name}.json").write_text(text, encoding="utf-8")
    KEPT.write_text(json.dumps(KEEP.used, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
