"""Writes vectors/share_release/: decisions about shares of keys, one file per case, the expected outcome in the file.

    python vectors/make_share_release.py

The broker is ada's, which holds the first of three shares of the hospital's records. What libraries draw at random was made
once and is kept in make_share_release.kept.json.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

import make_threshold as dealer  # noqa: E402 - the world is found first

from strongroom import wire  # noqa: E402
from strongroom.attest.keyset import AttestationReport  # noqa: E402
from strongroom.contract import Limits, Withdrawal  # noqa: E402
from strongroom.holding import Deal  # noqa: E402
from strongroom.policy import Policy  # noqa: E402
from strongroom.release import PartAsked, ReleaseRequest  # noqa: E402
from strongroom.serving import Serving  # noqa: E402
from strongroom.threshold import Enrolment, Share  # noqa: E402
from threshold_world import holder_card, share_key  # noqa: E402
from world import (  # noqa: E402
    EDITED,
    NOW,
    OWNERS,
    RUN,
    Asker,
    World,
    allow,
    broker_key,
    keys_of,
    sealed_asset,
    seed,
    sign_all,
)

FOLDER, KEPT = HERE / "share_release", HERE / "make_share_release.kept.json"
OWNER = keys_of("hospital").signing
SERVED = Policy(frozenset({"evaluate"}), serve=Serving(frozenset({"chat"}), 600))
STANDING: dict[str, Any] = {"policy": SERVED, "outputs": (), "payments": ()}
OTHER = wire.digest(b"another keyset")
WRONG_EPOCH, NOT_MINE = "broker.wrong_epoch", "broker.not_mine"

Case = dict[str, Any]
Change = Callable[[Case], object]


def deal_to(name: str = "ada", *, share: Share | None = None, enrolment: Any = dealer.GOOD, index: int = 1) -> Deal:
    """What the hospital dealt to a broker."""
    to = replace(holder_card(name), share_key=dealer.Kept(share_key(name).public))  # type: ignore[arg-type]
    found = Deal.make(enrolment.sign(OWNER), dealer.SIGNED, share or dealer.SHARES[0], to)
    return replace(found, index=index)


def case(
    description: str,
    number: str = "",
    expect: str = "ok",
    change: Change = lambda _case: None,
    *,
    asked: PartAsked | None = None,
    runs: int = 2,
    world: World | None = None,
    report: Callable[[Asker, bytes], AttestationReport] | None = None,
    **changes: Any,
) -> Case:
    """A decision of ada's broker; ``change`` changes the file, and so what the broker knows."""
    world = world or World()
    contract = sign_all(world.proposal(**{"limits": Limits(runs, 300, 1 << 30), **changes}))
    trust = world.trust()
    trust = replace(trust, parties=tuple(p for p in trust.parties if p.name == "hospital"))
    enclave, nonce = Asker(world, contract, "enclave"), seed("ada's nonce")
    share = asked or PartAsked(dealer.GOOD.digest, 1)
    more = {"report": report(enclave, nonce)} if report else {}
    request: ReleaseRequest = enclave.request(nonce=nonce, share=share, **more)
    found: Case = {
        "at": NOW,
        "book": {
            "approved_by": ["hospital"],
            "budget": None,
            "cancelled": [],
            "ended_by": [],
            "granted": 0,
            "nonces": {nonce.hex(): NOW + 300},
            "runs": {},
            "share": {"deal": json.loads(deal_to().encode()), "owner": "hospital", "recalled": False},
            "slots": {},
            "withdrawn_by": [],
        },
        "description": description,
        "enrolment": json.loads(dealer.GOOD.encode()),
        "expect": expect,
        "keyset": enclave.keyset.digest,
        "number": number,
        "operation": "decide",
        "owner": {
            "broker_seed": broker_key("ada").seed.hex(),
            "name": "ada",
            "policy": trust.appraisal_policy().to_json(),
            "share_seed": share_key("ada").seed.hex(),
            "trust": trust.to_json(),
        },
        "release_seed": enclave.release_key.seed.hex(),
        "request": request.to_json(),
        "share": dealer.SHARES[0].encode().decode(),
        "slot": 1,
    }
    change(found)
    return found


def book(**said: Any) -> Change:
    return lambda found: found["book"].update(said)


def held(**said: Any) -> Change:
    return lambda found: found["book"]["share"].update(said)


def mine(slot: int) -> Change:
    """This very keyset has a slot."""

    def change(found: Case) -> None:
        found["book"]["slots"] = {str(slot): found["keyset"]}
        found["book"]["runs"] = {RUN: found["keyset"]}
        found["slot"] = slot

    return change


def slot(number: int, *changes: Change) -> Change:
    """Which one is given."""

    def change(found: Case) -> None:
        found["slot"] = number
        for one in changes:
            one(found)

    return change


def of_asset(deal: Deal) -> Change:
    return held(deal=json.loads(deal.encode()))


def budget() -> dict[str, Any]:
    world = World()
    allow(world, "1")
    (envelope,) = {e.digest: e for e in world.brokers["hospital"].book._state.budgets.values()}.values()  # noqa: SLF001
    return envelope.to_json()


def withdrawn(found: Case) -> None:
    digest = wire.digest(wire.unb64(found["request"]["contract"]["payload"]))
    signed = Withdrawal(digest, "lab", NOW, "").sign(keys_of("lab").signing)
    found["book"]["withdrawn_by"] = [signed.to_json()]


def served_deal() -> tuple[Enrolment, list[Share], Deal]:
    """The same of records that may be served: another manifest."""
    manifest, signed, _, key = sealed_asset("data", SERVED)
    kept = dealer.MANIFEST, dealer.SIGNED
    dealer.MANIFEST, dealer.SIGNED = manifest, signed
    enrolment, shares = dealer.dealt(3, key)  # what is kept is named by the epoch
    found = deal_to(share=shares[0], enrolment=enrolment)
    dealer.MANIFEST, dealer.SIGNED = kept
    return enrolment, shares, found


dealer.KNOWN.update(json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {})
dealer.USED.clear()
SERVED_ENROLMENT, SERVED_SHARES, SERVED_DEAL = served_deal()


def leased(found: Case) -> None:
    of_asset(SERVED_DEAL)(found)
    found["enrolment"] = json.loads(SERVED_ENROLMENT.encode())
    found["share"] = SERVED_SHARES[0].encode().decode()


def cases() -> dict[str, Case]:
    good, free = dealer.GOOD.digest, PartAsked(dealer.GOOD.digest)
    edited = World()
    edited.platform.measurement = EDITED
    served = World(terms=dict.fromkeys(OWNERS, SERVED))
    false = replace(dealer.SHARES[0], value=seed("a false share"))
    lease = PartAsked(SERVED_ENROLMENT.digest, 1)
    return {
        "ok": case("a share for the slot that was asked for"),
        "ok-again": case("the keyset that has the slot asks again", change=mine(1)),
        "ok-but": case(
            "the broker chooses, and not what led nowhere", asked=replace(free, but=(1,)), change=slot(2)
        ),
        "ok-chosen": case(
            "the broker chooses the lowest that is free", asked=free, change=slot(2, book(slots={"1": OTHER}))
        ),
        "ok-chosen-own": case("the broker chooses what the keyset has already", asked=free, change=mine(2)),
        "ok-granted": case(
            "the owner granted one more", runs=1, asked=PartAsked(good, 2), change=slot(2, book(granted=1))
        ),
        "ok-lease": case("a standing contract: a lease", change=leased, asked=lease, world=served, **STANDING),
        "ok-lease-again": case(
            "a lease is renewed for the slot that the room has", change=slot(1, leased, mine(1)), asked=lease,
            world=served, **STANDING,
        ),
        "d3-owner-not-pinned": case(
            "the asset's owner is a stranger here", "D3", "party.not_pinned",
            lambda found: found["owner"]["trust"].update(parties=[]),
        ),
        "d4-no-share": case("nobody dealt this broker a share", "D4", NOT_MINE, book(share=None)),
        "d4-another-broker": case(
            "the enrolment names another broker for the share", "D4", NOT_MINE, of_asset(deal_to(index=2))
        ),
        "d4-another-epoch": case(
            "a share of another dealing is asked for", "D4", WRONG_EPOCH, asked=PartAsked(dealer.SECOND.digest, 1)
        ),
        "d4-another-owner": case("the share is another owner's", "D4", NOT_MINE, held(owner="lab")),
        "d4-recalled": case("the share was called in", "D4", WRONG_EPOCH, held(recalled=True)),
        "d6-false-share": case(
            "the share here is not the one that was enrolled", "D6", "broker.bad_share", of_asset(deal_to(share=false))
        ),
        "d6-key-lost": case(
            "the key that opens shares is lost", "D6", "broker.unknown_asset",
            lambda found: found["owner"].update(share_seed=None),
        ),
        "d6-other-key": case(
            "the key that opens shares is another", "D6", "party.bad_key",
            lambda found: found["owner"].update(share_seed=share_key("ben").seed.hex()),
        ),
        "d9-edited": case("another program runs there", "D9", "attest.measurement_not_accepted", world=edited),
        "d12-not-told": case("the owner said nothing of this contract", "D12", "broker.not_approved", book(approved_by=[])),
        "d12-another-owners-word": case(
            "another owner's word is not this owner's", "D12", "broker.not_approved", book(approved_by=["lab"])
        ),
        "d13-ended": case("the owner ended it", "D13", "contract.superseded", book(ended_by=["hospital"])),
        "d14-cancelled": case(
            "the run was cancelled by who asked for it", "D14", "broker.run_cancelled", book(cancelled=[[RUN, "lab"]])
        ),
        "d14-withdrawn": case("a party withdrew", "D14", "contract.withdrawn", withdrawn),
        "d15-taken": case("the run is another enclave's", "D15", "broker.run_taken", book(runs={RUN: OTHER})),
        "d16-above-the-limit": case(
            "a slot that the contract has not", "D16", "broker.no_run_left", asked=PartAsked(good, 3)
        ),
        "d16-none-left": case(
            "every slot is given", "D16", "broker.no_run_left", book(slots={"1": OTHER, "2": OTHER}), asked=free
        ),
        "d16-nobodys": case("a slot that is nobody's", "D16", "broker.slot_taken", book(slots={"1": None})),
        "d16-taken": case("a slot that another enclave has", "D16", "broker.slot_taken", book(slots={"1": OTHER})),
        "d17-budget": case("the asset has a budget", "D17", "budget.bad_budget", book(budget=budget())),
    }  # fmt: skip


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    found = cases()
    for path in FOLDER.glob("*.json"):
        if path.stem not in found:
            path.unlink()
    for name, one in found.items():
        (FOLDER / f"{name}.json").write_text(json.dumps(one, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    KEPT.write_text(json.dumps(dealer.USED, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
