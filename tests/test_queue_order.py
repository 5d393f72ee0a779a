"""Whose turn it is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from strongroom.app.queue.order import Ready, Room, choose

PLENTY = Room(1, 1 << 40)


def ready(place: int, party: str, memory: int = 1) -> Ready:
    return Ready(place, party, memory)


def test_of_nothing_nothing_is_chosen() -> None:
    assert choose([], [], {}, PLENTY) is None


def test_of_one_party_the_oldest_goes_first() -> None:
    assert choose([ready(3, "a"), ready(1, "a"), ready(2, "a")], [], {}, PLENTY) == ready(1, "a")


def test_who_has_fewest_running_goes_first_however_late_they_came() -> None:
    room = Room(3, 1 << 40)
    assert choose([ready(2, "a"), ready(9, "b")], [ready(1, "a")], {"a": 1}, room) == ready(9, "b")


def test_who_had_no_turn_for_longest_goes_first() -> None:
    assert choose([ready(1, "a"), ready(2, "b"), ready(3, "c")], [], {"a": 5, "b": 4, "c": 6}, PLENTY) == ready(2, "b")


def test_a_thousand_jobs_of_one_party_do_not_keep_out_one_of_another() -> None:
    flood = [ready(n, "flood") for n in range(1000)]
    assert choose([*flood, ready(5000, "other")], [], {"flood": 1}, PLENTY) == ready(5000, "other")


def test_no_more_than_so_many_at_once() -> None:
    assert choose([ready(2, "a")], [ready(1, "b")], {}, Room(1, 1 << 40)) is None


def test_nothing_passes_a_job_that_does_not_fit_yet() -> None:
    """Small jobs in a stream would keep a large one out for ever."""
    room, going = Room(4, 10), [ready(1, "a", 6)]
    assert choose([ready(2, "b", 5), ready(3, "a", 1)], going, {"a": 1}, room) is None
    assert choose([ready(2, "b", 5), ready(3, "a", 1)], [], {"a": 1}, room) == ready(2, "b", 5)


parties = st.sampled_from("abcd")
jobs = st.lists(st.tuples(parties, st.integers(1, 4)), min_size=1, max_size=40)


@given(jobs, st.integers(1, 4))
def test_every_job_has_its_turn_and_no_party_two_while_another_waits(asked: list[tuple[str, int]], runs: int) -> None:
    room = Room(runs, 4)
    waiting = [ready(place, party, memory) for place, (party, memory) in enumerate(asked)]
    running: list[Ready] = []
    turns: dict[str, int] = {}
    order: list[Ready] = []
    while waiting or running:
        found = choose(waiting, running, turns, room)
        if found is None:
            assert running  # it waits for something
            running.pop(0)
            continue
        others = {job.party for job in waiting} - {found.party}
        many = {party: sum(job.party == party for job in running) for party in {*others, found.party}}
        assert all(many[found.party] <= many[other] for other in others)
        waiting.remove(found)
        running.append(found)
        assert len(running) <= runs
        assert sum(job.memory_bytes for job in running) <= room.memory_bytes
        turns[found.party] = len(order) + 1
        order.append(found)
    assert sorted(job.place for job in order) == list(range(len(asked)))
    for party in "abcd":
        mine = [job.place for job in order if job.party == party]
        assert mine == sorted(mine)


@given(st.lists(parties, min_size=2, max_size=30))
def test_one_at_a_time_no_party_has_two_turns_while_another_waits_for_one(asked: list[str]) -> None:
    waiting = [ready(place, party) for place, party in enumerate(asked)]
    turns: dict[str, int] = {}
    order: list[str] = []
    while waiting:
        found = choose(waiting, [], turns, PLENTY)
        assert found is not None
        for other in {job.party for job in waiting} - {found.party}:
            assert turns.get(found.party, 0) <= turns.get(other, 0)
        waiting.remove(found)
        order.append(found.party)
        turns[found.party] = len(order)
