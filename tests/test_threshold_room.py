"""Rooms that stay open on leases of a key that is shared: renewed by any ``t`` brokers, for the slot that the room has."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from strongroom.app.inference.receipts import Authority
from strongroom.batch import Submission, admissible, batches
from strongroom.contract import Limits, Withdrawal
from strongroom.enclave.room import Room
from strongroom.errors import BadBatch, BadSignature, ReleaseRefused, RoomClosed, StrongroomError, TooFewShares
from strongroom.holding import Says
from strongroom.policy import Policy
from strongroom.release import LEASE_PURPOSE, ReleaseStatement
from strongroom.serving import Serving
from strongroom.wire import Envelope
from threshold_world import NAMES, Place
from world import HOUR, NOW, OWNERS, PROGRAM, RUN, World, broker_key, keys_of, seed

LEASE = 600
POLICY = Policy(frozenset({"evaluate"}), serve=Serving(frozenset({"chat"}), LEASE))


class Open:
    """A room over keys that three brokers hold."""

    def __init__(self, names: tuple[str, ...] = NAMES[:3], threshold: int = 2) -> None:
        world = World(terms=dict.fromkeys(OWNERS, POLICY))
        limits = Limits(2, 6 * HOUR, 1 << 30)
        self.place = Place(names, threshold, world=world, policy=POLICY, outputs=(), limits=limits, payments=())
        self.world, self.contract = world, self.place.shared.contract
        self.room = self.another(RUN)
        self.room.open()

    def another(self, run_id: str) -> Room:
        return Room(
            self.contract,
            self.world.asked(self.contract, run_id),
            PROGRAM,
            self.world.surroundings(holders=self.place.holders),
        )

    def slots(self) -> set[tuple[int, int, int]]:
        """(epoch, index, slot) of what the room holds."""
        found = [json.loads(e.payload) for e in self.room.released()["data"].releases]
        assert all(s["purpose"] == LEASE_PURPOSE for s in found)
        return {(s["epoch"], s["index"], s["slot"]) for s in found}

    def later(self, seconds: int = LEASE - 100) -> None:
        self.world.clock.now += seconds

    def withdraw(self, *names: str) -> None:
        said = Withdrawal(self.contract.digest, "lab", self.world.clock(), "")
        for name in names:
            self.place.shared.keepers[name].book.withdraw(said, said.sign(keys_of("lab").signing))


def test_a_room_opens_a_shared_key_on_leases() -> None:
    room = Open()
    assert room.slots() == {(1, 1, 1), (1, 2, 1)}
    assert room.room.until == NOW + LEASE
    manifest = room.place.shared.manifest
    assert len(room.room.reader("data").read()) == manifest.plaintext_bytes


def test_a_lease_is_renewed_for_its_slot_by_whichever_brokers_answer() -> None:
    room = Open()
    for dead in ("ada", "ben", "cy"):
        room.place.lines[dead].dead = True
        room.later()
        room.room.renew()
        assert room.room.until == room.world.clock() + LEASE
        assert {slot for _, _, slot in room.slots()} == {1}
        room.place.lines[dead].dead = False
    for keeper in room.place.shared.keepers.values():  # one run, whoever renewed it
        assert list(keeper.book.standing(room.contract.digest).runs) == [RUN]


def test_the_lease_that_ends_first_counts() -> None:
    room = Open()
    part = room.room.released()["data"].shared
    assert part is not None
    ends = [g.opened.statement.until for g in part.got]
    assert room.room.released()["data"].until == min(e for e in ends if e is not None)


def test_too_few_brokers_that_answer_renew_nothing_and_cost_no_run() -> None:
    room = Open()
    room.place.lines["ada"].dead = room.place.lines["ben"].dead = True
    room.later()
    with pytest.raises(TooFewShares):
        room.room.renew()
    assert room.slots()  # until its end
    assert not room.place.shared.keepers["cy"].book.slots(room.contract.digest, room.place.shared.manifest.digest).get(2)
    room.later()
    with pytest.raises(RoomClosed):
        room.room.released()


def test_a_withdrawal_closes_the_room_once_enough_brokers_know_it() -> None:
    room = Open()
    room.withdraw("ada")
    room.later()
    room.room.renew()  # n - t + 1 honest brokers must know it
    room.withdraw("cy")
    room.later()
    with pytest.raises(ReleaseRefused) as caught:
        room.room.renew()
    assert caught.value.reason == "contract.withdrawn"
    with pytest.raises(RoomClosed):
        room.room.released()


def test_a_lease_is_renewed_in_the_next_epoch_and_by_a_broker_that_is_new() -> None:
    room = Open()
    shared = room.place.shared
    found = shared.recall(["ada", "ben"])
    room.later()
    with pytest.raises(StrongroomError):
        room.room.renew()  # between the two
    shared.deal(["cy", "dee", "eve"], 2, 2, taken=found.taken)
    shared.say(Says.APPROVED)
    room.place.enrolment = shared.published
    for name in ("dee", "eve"):
        room.place.meet(name)
    room.room.renew()
    assert room.slots() == {(2, 1, 1), (2, 2, 1)}


def test_the_limit_of_openings_holds() -> None:
    room = Open()
    other = room.another(seed("another", 16).hex())
    other.open()
    with pytest.raises(ReleaseRefused) as caught:
        room.another(seed("one more", 16).hex()).open()
    assert caught.value.reason == "broker.no_run_left"


# --- receipts of requests are logged on these leases ------------------------------------------------------------------


def submission(room: Open) -> Submission:
    by = Authority.of(room.room)
    (batch,) = batches(by.contract, by.keyset, by.run_id, [f"sha256:{seed('a receipt').hex()}"], by.key)
    return Submission(batch, by.keyset, by.leases, by.enrolments)


def test_receipts_are_logged_on_leases_of_shares() -> None:
    room = Open()
    sent = submission(room)
    assert len(sent.leases) == 3
    assert Submission.parse(sent.encode()) == sent
    assert admissible(sent, room.contract, room.world.clock()).run_id == RUN


@pytest.mark.parametrize("what", ["too-few", "no-enrolment", "one-twice", "another-slot", "another-owner"])
def test_leases_of_too_few_shares_log_nothing(what: str) -> None:
    room = Open()
    sent = submission(room)
    first, second, whole = sent.leases

    def other() -> Envelope:
        statement = ReleaseStatement.verify(second, broker_key("ben").public)
        assert statement.part is not None
        moved = replace(statement, part=replace(statement.part, slot=2))
        return broker_key("ben").sign(second.payload_type, moved.encode())

    changed = {
        "too-few": lambda: replace(sent, leases=(first, whole)),
        "no-enrolment": lambda: replace(sent, enrolments=()),
        "one-twice": lambda: replace(sent, leases=(first, first, whole)),
        "another-slot": lambda: replace(sent, leases=(first, other(), whole)),
        "another-owner": lambda: replace(
            sent, enrolments=(keys_of("lab").signing.sign(sent.enrolments[0].payload_type, sent.enrolments[0].payload),)
        ),
    }
    with pytest.raises((BadBatch, BadSignature)):
        admissible(changed[what](), room.contract, room.world.clock())
