"""A room that stays open: leases, their renewal, and what becomes of the keys when an owner says no."""

from __future__ import annotations

from dataclasses import replace

import pytest

from strongroom.broker import Release
from strongroom.contract import Contract, Limits, RunRequest, Withdrawal
from strongroom.enclave.room import Room
from strongroom.errors import (
    BadField,
    BadProposal,
    BadRelease,
    BookRestored,
    NotPermitted,
    ProgramNotApproved,
    ReleaseRefused,
    RoomClosed,
    Unreachable,
)
from strongroom.policy import Policy
from strongroom.release import LEASE_PURPOSE, PURPOSE, ReleaseStatement, open_release
from strongroom.serving import Serving
from world import DAY, HOUR, NOW, OWNERS, PROGRAM, RUN, Asker, World, broker_key, keys_of

LEASE = 600
POLICY = Policy(frozenset({"evaluate"}), serve=Serving(frozenset({"chat"}), LEASE))
LIMITS = Limits(2, 6 * HOUR, 1 << 30)


@pytest.fixture
def world() -> World:
    return World(terms=dict.fromkeys(OWNERS, POLICY))


def agreed(world: World, **changes: object) -> Contract:
    return world.agree(**{"policy": POLICY, "outputs": (), "limits": LIMITS, "payments": (), **changes})


def room(world: World, contract: Contract | None = None, run_id: str = RUN) -> Room:
    contract = contract or agreed(world)
    return Room(contract, world.asked(contract, run_id), PROGRAM, world.surroundings())


def opened(world: World, contract: Contract | None = None) -> Room:
    found = room(world, contract)
    found.open()
    return found


# --- what a contract says ---------------------------------------------------------------------------------------------


def test_what_is_served_is_no_output_and_something_must_leave(world: World):
    with pytest.raises(BadProposal, match="answers"):
        world.proposal(policy=replace(POLICY, outputs=world.proposal().policy.outputs))
    with pytest.raises(BadProposal, match="at least one output"):
        world.proposal(outputs=())
    assert world.proposal(policy=POLICY, outputs=()).standing
    assert not world.proposal().standing


def test_a_standing_contract_is_not_run_and_one_for_runs_is_not_served(world: World):
    with pytest.raises(NotPermitted, match="served"):
        world.run(agreed(world))
    plain = World()
    with pytest.raises(NotPermitted, match="run"):
        room(plain, plain.agree())


def test_another_program_than_the_approved_one_serves_nothing(world: World):
    contract = agreed(world)
    with pytest.raises(ProgramNotApproved):
        Room(contract, world.asked(contract), "sha256:" + "00" * 32, world.surroundings())


# --- leases -----------------------------------------------------------------------------------------------------------


def test_a_room_opens_what_the_owners_sealed(world: World):
    with pytest.raises(RoomClosed):
        room(world).reader("data")
    found = opened(world, agreed(world))
    for role, (manifest, _, _, key) in world.assets.items():
        assert found.released()[role].key == key
        assert len(found.reader(role).read()) == manifest.plaintext_bytes
    assert found.until == NOW + LEASE


def test_a_key_is_gone_when_its_lease_ends(world: World):
    found = opened(world)
    world.clock.now = NOW + LEASE
    found.require_open(world.clock())
    world.clock.now = NOW + LEASE + 1
    with pytest.raises(RoomClosed):
        found.released()
    world.clock.now = NOW  # a clock that is set back does not bring it back
    with pytest.raises(RoomClosed):
        found.reader("data")


def test_a_lease_is_renewed_with_a_fresh_nonce_and_counted_once(world: World):
    contract = agreed(world)
    found = opened(world, contract)
    assert not found.due(NOW)
    nonces = set()
    for round_ in range(1, 6):
        world.clock.now = NOW + round_ * (LEASE - 100)
        assert found.due(world.clock())
        found.renew()
        assert found.until == world.clock() + LEASE
        nonces |= {
            ReleaseStatement.verify(r.release, broker_key(OWNERS[role]).public).nonce for role, r in found.released().items()
        }
    assert len(nonces) == 10
    for broker in world.brokers.values():
        assert list(broker.book.standing(contract.digest).runs) == [RUN]


def test_a_withdrawal_reaches_an_open_room(world: World):
    contract = agreed(world)
    found = opened(world, contract)
    withdrawal = Withdrawal(contract.digest, "hospital", NOW, "the patients said no")
    for broker in world.brokers.values():
        broker.book.withdraw(withdrawal, withdrawal.sign(keys_of("hospital").signing))
    found.require_open(NOW + 10)  # not before the lease ends, or is to be renewed
    with pytest.raises(ReleaseRefused) as caught:
        found.renew()
    assert caught.value.code == "broker.refused" or "withdrawn" in str(caught.value)
    with pytest.raises(RoomClosed):
        found.released()


def test_a_broker_that_does_not_answer_closes_nothing_before_the_lease_ends(world: World):
    found = opened(world)
    before = found.until
    world.brokers["lab"].nonce = lambda: (_ for _ in ()).throw(Unreachable("gone"))  # type: ignore[method-assign]
    with pytest.raises(Unreachable):
        found.renew()
    assert found.until == before
    found.require_open(before)


@pytest.mark.parametrize("error", [Unreachable("gone"), BookRestored("put back")], ids=["silent", "put-back"])
def test_a_restored_broker_of_one_source_does_not_stop_the_other_owners_leases(world: World, error: Exception):
    """One owner puts a backup back: every other owner's lease is renewed, and that source is held until its own ends."""
    contract = agreed(world)
    found = Room(contract, world.asked(contract), PROGRAM, world.surroundings(), droppable={"data"})

    def stopped() -> bytes:
        raise error

    answering, world.brokers["hospital"].nonce = world.brokers["hospital"].nonce, stopped  # type: ignore[method-assign]
    with pytest.raises(type(error)):  # while it is opened, everybody is there
        found.open()
    world.brokers["hospital"].nonce = answering  # type: ignore[method-assign]
    found.open()
    world.brokers["hospital"].nonce = stopped  # type: ignore[method-assign]
    world.clock.now = NOW + LEASE - 10
    found.renew()
    assert found.until == NOW + LEASE - 10 + LEASE
    assert set(found.released()) == {"data", "model"}
    world.clock.now = NOW + LEASE + 1
    assert set(found.released()) == {"model"}


def test_a_second_enclave_cannot_take_an_open_rooms_place(world: World):
    contract = agreed(world)
    opened(world, contract)
    with pytest.raises(ReleaseRefused):
        room(world, contract).open()  # the same request, another keyset
    other = "ab" * 16
    room(world, contract, other).open()
    with pytest.raises(ReleaseRefused):
        room(world, contract, "cd" * 16).open()  # two enclaves were agreed


def test_a_room_is_open_no_longer_than_agreed(world: World):
    found = opened(world, agreed(world, limits=Limits(1, LEASE + 100, 1 << 30)))
    world.clock.now = NOW + LEASE - 10
    found.renew()
    assert found.until == NOW + LEASE + 100
    world.clock.now = NOW + LEASE + 101
    with pytest.raises(ReleaseRefused):
        found.renew()


def test_a_lease_ends_with_its_contract(world: World):
    found = opened(world, agreed(world, not_after=NOW + 100))
    assert found.until == NOW + 99


def test_an_old_request_opens_a_room_for_nobody_else(world: World):
    contract = agreed(world)
    request = world.asked(contract)
    for at, good in ((LIMITS.seconds, True), (LIMITS.seconds + 1, False), (-601, False)):
        if good:
            RunRequest.verify(request, contract.proposal, NOW + at)
        else:
            with pytest.raises(BadField):
                RunRequest.verify(request, contract.proposal, NOW + at)


# --- what a broker signs ----------------------------------------------------------------------------------------------


def lease(world: World) -> tuple[Asker, Release, dict[str, object]]:
    enclave = Asker(world, agreed(world))
    request = enclave.request()
    release = enclave.ask(nonce=request.nonce)
    assert isinstance(release, Release)
    asked = {
        "slot": enclave.slot(),
        "broker": broker_key("hospital").public,
        "nonces": frozenset({request.nonce.hex()}),
        "key": enclave.release_key,
    }
    return enclave, release, asked


def test_a_lease_says_its_end_and_its_key_opens_for_a_lease_alone(world: World):
    _, release, asked = lease(world)
    opened_release = open_release(release.answer(), **asked, latest=NOW + LEASE)  # type: ignore[arg-type]
    assert opened_release.statement.until == NOW + LEASE
    assert opened_release.statement.purpose == LEASE_PURPOSE != PURPOSE
    assert LEASE_PURPOSE.encode() in opened_release.statement.info


def test_a_lease_for_longer_than_agreed_is_refused_by_the_enclave(world: World):
    _, release, asked = lease(world)
    with pytest.raises(BadRelease, match="longer"):
        open_release(release.answer(), **asked, latest=NOW + LEASE - 1)  # type: ignore[arg-type]


def test_a_lease_is_no_release_for_a_run_and_a_release_no_lease(world: World):
    _, release, asked = lease(world)
    with pytest.raises(BadRelease, match="lease"):
        open_release(release.answer(), **asked)  # type: ignore[arg-type]
    plain = World()
    enclave = Asker(plain, plain.agree())
    request = enclave.request()
    for_a_run = enclave.ask(nonce=request.nonce)
    assert isinstance(for_a_run, Release)
    with pytest.raises(BadRelease, match="no end"):
        open_release(
            for_a_run.answer(),
            slot=enclave.slot(),
            broker=broker_key("hospital").public,
            nonces=frozenset({request.nonce.hex()}),
            key=enclave.release_key,
            latest=NOW + DAY,
        )
