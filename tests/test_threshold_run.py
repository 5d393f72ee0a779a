"""Enclaves that get shared keys: any ``t`` brokers are enough, and what the others do stops nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from strongroom import wire
from strongroom.errors import (
    BadReceipt,
    BadRelease,
    BadSignature,
    NotVerified,
    ReleaseRefused,
    StrongroomError,
    TooFewShares,
)
from strongroom.holding import Says
from strongroom.party import SigningKey
from strongroom.receipt import Bundle, verify
from strongroom.release import RELEASE_TYPE, ReleaseStatement
from strongroom.threshold import Share
from strongroom.wire import Envelope
from threshold_world import NAMES, Place
from world import RUN, Fault, broker_key, seed

HOSPITAL = "hospital"


def test_a_run_with_a_shared_key_and_its_receipt() -> None:
    place = Place()
    bundle = place.run()
    assert len(place.parts(bundle)) == 2
    assert len(bundle.releases) == len(bundle.reports) == 3
    assert Bundle.parse(bundle.encode()) == bundle
    trust = place.world.trust()
    assert verify(bundle, trust=trust).statement.run_id == RUN


def test_a_run_without_shares_has_the_receipt_that_it_always_had() -> None:
    from world import World

    world = World()
    bundle = world.run(world.agree())
    assert b"enrolments" not in bundle.encode()


@pytest.mark.parametrize("dead", [("ada", "ben"), ("dee", "eve"), ("ada", "eve")])
def test_dead_brokers_stop_nothing(dead: tuple[str, ...]) -> None:
    place = Place(NAMES, 3)
    for name in dead:
        place.lines[name].dead = True
    alive = [i for i, name in enumerate(NAMES, 1) if name not in dead]
    assert place.parts(place.run()) == [(i, 1) for i in alive]


def test_one_broker_alone_opens_nothing() -> None:
    place = Place()
    place.lines["ada"].dead = place.lines["cy"].dead = True
    with pytest.raises(TooFewShares, match=r"ada does not answer.*cy does not answer"):
        place.run()
    assert not place.world.exchange.delivered


def test_an_answer_that_was_lost_costs_no_run() -> None:
    place = Place()
    place.lines["cy"].dead = True
    place.lines["ben"].lost = 1
    assert place.parts(place.run()) == [(1, 1), (2, 1)]


def _other_share(place: Place, name: str) -> Callable[[bytes], bytes]:
    """What a broker answers that signs rightly, and gives another share."""

    def lie(answer: bytes) -> bytes:
        said = wire.decode(answer)
        assert isinstance(said, dict)
        statement = ReleaseStatement.verify(Envelope.from_json(said["release"]), broker_key(name).public)
        (asked,) = (r for r in place.lines[name].asked if r.nonce.hex() == statement.nonce)
        part = statement.part
        assert part is not None
        share = Share(place.shared.manifest.digest, 1, part.index, seed("salt"), seed("false"))
        encrypted = asked.report.keyset.release_key.encrypt(share.encode(), info=statement.info)
        signed = broker_key(name).sign(RELEASE_TYPE, replace(statement, encrypted_key=wire.digest(encrypted)).encode())
        return wire.encode({"encrypted_key": wire.b64(encrypted), "release": signed.to_json()})

    return lie


@pytest.mark.parametrize("name", ["ada", "cy"])
def test_a_tampered_share_is_named_and_stops_nothing_while_t_are_honest(name: str) -> None:
    place = Place()
    place.lines[name].lie = _other_share(place, name)
    assert len(place.parts(place.run())) == 2


def test_a_tampered_share_without_which_there_are_too_few_is_named() -> None:
    place = Place()
    place.lines["cy"].dead = True
    place.lines["ben"].lie = _other_share(place, "ben")
    with pytest.raises(TooFewShares, match="'ben' gave another share than the one that it holds"):
        place.run()
    assert not place.world.exchange.delivered


def _resigned(name: str, signer: SigningKey, **changes: Any) -> Callable[[bytes], bytes]:
    def lie(answer: bytes) -> bytes:
        said = wire.decode(answer)
        assert isinstance(said, dict)
        statement = ReleaseStatement.verify(Envelope.from_json(said["release"]), broker_key(name).public)
        part = replace(statement.part, **changes)  # type: ignore[type-var]
        return wire.encode({**said, "release": signer.sign(RELEASE_TYPE, replace(statement, part=part).encode()).to_json()})

    return lie


@pytest.mark.parametrize("what", ["garbage", "index", "slot", "epoch", "signer", "somebody-elses", "twice"])
def test_what_a_lying_broker_answers_stops_nothing_while_t_are_honest(what: str) -> None:
    place = Place(runs=2)
    kept: list[bytes] = []
    if what == "twice":  # the answer of another run, once more
        place.lines["ben"].lie = lambda answer: (kept.append(answer), answer)[1]
        assert place.parts(place.run(seed("another run", 16).hex())) == [(1, 1), (2, 1)]
    else:
        place.lines["ada"].lie = lambda answer: (kept.append(answer), answer)[1]
    lies: dict[str, Callable[[bytes], bytes]] = {
        "garbage": lambda _: b"{}",
        "index": _resigned("ben", broker_key("ben"), index=3),
        "slot": _resigned("ben", broker_key("ben"), slot=7),
        "epoch": _resigned("ben", broker_key("ben"), epoch=2),
        "signer": _resigned("ben", broker_key("eve")),
        "somebody-elses": lambda _: kept[0],
        "twice": lambda _: kept[0],
    }
    place.lines["ben"].lie = lies[what]
    slot = 2 if what == "twice" else 1
    assert place.parts(place.run()) == [(1, slot), (3, slot)]


def test_a_liar_that_chooses_a_slot_that_is_taken_costs_a_try() -> None:
    place = Place(NAMES[:4], 3, runs=3)
    first = seed("first run", 16).hex()
    assert {slot for _, slot in place.parts(place.run(first))} == {1}
    place.lines["ada"].keeper.book._state.slots.clear()  # it forgets, and chooses slot 1 again
    place.lines["ada"].keeper.book._state.runs.clear()
    second = place.parts(place.run(seed("second run", 16).hex()))
    assert {slot for _, slot in second} == {2}


def test_refusals_of_too_many_are_a_refusal() -> None:
    place = Place()
    place.shared.say(Says.ENDED, ["ada", "ben"])
    with pytest.raises(ReleaseRefused) as caught:
        place.run()
    assert caught.value.reason == "contract.superseded"


def test_the_limit_of_runs_holds() -> None:
    place = Place(runs=2)
    slots = {place.parts(place.run(seed(f"run {i}", 16).hex()))[0][1] for i in range(2)}
    assert slots == {1, 2}
    with pytest.raises(ReleaseRefused) as caught:
        place.run(seed("one more", 16).hex())
    assert caught.value.reason == "broker.no_run_left"


def test_an_enrolment_that_the_owner_did_not_sign_is_refused() -> None:
    place = Place()
    assert place.enrolment is not None
    place.enrolment = SigningKey(seed("stranger")).sign(place.enrolment.payload_type, place.enrolment.payload)
    with pytest.raises(BadSignature):
        place.run()
    assert not any(line.asked for line in place.lines.values())


def test_an_exchange_that_shows_an_old_enrolment_opens_nothing() -> None:
    place = Place()
    found = place.shared.recall(["ada", "ben"])
    place.shared.deal(NAMES[:3], 2, 2, taken=found.taken)
    with pytest.raises(ReleaseRefused) as caught:
        place.run()
    assert caught.value.reason == "broker.wrong_epoch"
    place.enrolment = place.shared.published
    assert len(place.parts(place.run())) == 2


def test_an_exchange_that_hides_the_enrolment_gets_nothing_from_the_owners_broker() -> None:
    place = Place()
    place.enrolment = None
    place.world.brokers[HOSPITAL].book.approve(place.shared.contract.digest, place.world.clock())
    with pytest.raises(ReleaseRefused) as caught:
        place.run()
    assert caught.value.reason == "broker.unknown_asset"


def test_brokers_are_asked_side_by_side_and_a_slow_one_is_not_waited_for() -> None:
    place = Place(NAMES, 3)
    meet, go_on = threading.Barrier(2, timeout=60), threading.Event()

    def together() -> None:
        meet.wait()

    # two of the others answer only when both are being asked; the fifth answers when all is over
    place.lines["ben"].before = place.lines["cy"].before = together
    place.lines["eve"].before = lambda: (go_on.wait(60), None)[1]
    place.lines["dee"].dead = True
    try:
        assert place.parts(place.run()) == [(1, 1), (2, 1), (3, 1)]
    finally:
        go_on.set()


def test_as_many_are_asked_as_it_takes() -> None:
    place = Place(NAMES, 3)
    place.run()
    assert [name for name in NAMES if place.lines[name].nonces or place.lines[name].asked] == ["ada", "ben", "cy"]


@pytest.mark.parametrize("alive", ["ada", "cy"])
def test_no_slot_is_taken_while_too_few_brokers_are_there(alive: str) -> None:
    place = Place(runs=2)
    for name, line in place.lines.items():
        line.dead = name != alive
    for i in range(3):
        with pytest.raises(TooFewShares):
            place.run(seed(f"run {i}", 16).hex())
    assert not place.lines[alive].asked
    for line in place.lines.values():
        line.dead = False
    assert {place.parts(place.run(seed(f"good run {i}", 16).hex()))[0][1] for i in range(2)} == {1, 2}


def test_a_broker_that_dies_after_its_nonce_costs_no_other_slot() -> None:
    place = Place(runs=1)
    place.lines["ada"].before = lambda: setattr(place.lines["ada"], "dead", True)
    assert place.parts(place.run()) == [(2, 1), (3, 1)]


def test_a_broker_that_does_not_answer_is_remembered_and_asked_last() -> None:
    place, over = Place(NAMES, 3, runs=3), threading.Event()
    ada = place.lines["ada"]
    ada.hang = lambda: (over.wait(600), None)[1]
    try:
        place.holders = replace(place.holders, patience=0.2)
        assert {i for i, _ in place.parts(place.run(seed("first", 16).hex()))} <= {2, 3, 4, 5}
        # whoever waited for it now would wait as long as this test may take
        place.holders = replace(place.holders, patience=3600.0)
        assert {i for i, _ in place.parts(place.run(seed("second", 16).hex()))} == {2, 3, 4}
        assert ada.nonces == 1
    finally:
        over.set()


def test_a_broker_that_answers_late_is_forgiven() -> None:
    place = Place(NAMES, 3, runs=2)
    place.holders.memory.silent.add(broker_key("ada").public.keyid)
    for name in ("dee", "eve"):
        place.lines[name].dead = True
    assert {i for i, _ in place.parts(place.run(seed("first", 16).hex()))} == {1, 2, 3}
    assert broker_key("ada").public.keyid not in place.holders.memory.silent


def test_many_enclaves_at_once_each_get_a_slot() -> None:
    place = Place(runs=12)
    with ThreadPoolExecutor(max_workers=12) as pool:
        runs = [seed(f"run {i}", 16).hex() for i in range(12)]
        slots = [place.parts(bundle)[0][1] for bundle in pool.map(place.run, runs)]
    assert sorted(slots) == list(range(1, 13))


# --- receipts ---------------------------------------------------------------------------------------------------------


def refuses(place: Place, bundle: Bundle) -> StrongroomError:
    with pytest.raises(StrongroomError) as caught:
        verify(bundle, trust=place.world.trust())
    return caught.value


def test_a_receipt_with_fewer_shares_than_it_takes_does_not_verify() -> None:
    place = Place()
    bundle = place.run()
    assert isinstance(refuses(place, replace(bundle, enrolments=())), (NotVerified, BadReceipt))
    assert isinstance(refuses(place, replace(bundle, enrolments=bundle.enrolments * 2)), (NotVerified, BadReceipt))
    assert isinstance(
        refuses(place, replace(bundle, releases=bundle.releases[1:], reports=bundle.reports[1:])), (NotVerified, BadReceipt)
    )


def test_a_receipt_with_another_epochs_enrolment_does_not_verify() -> None:
    place = Place()
    bundle = place.run()
    other = place.shared.dealt(NAMES[:3], 2, 2).enrolment
    assert isinstance(refuses(place, replace(bundle, enrolments=(other,))), (NotVerified, BadReceipt, BadRelease))


def test_faults_of_the_exchange_do_not_lose_shares() -> None:
    place = Place()
    place.world.faults.plan("exchange.sealed", Fault.NOT_DONE)
    bundle = place.run()
    assert verify(bundle, trust=place.world.trust()).statement.failure is not None
