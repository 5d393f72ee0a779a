"""API keys and their limits: what lies on the disk is no key, what is used up is refused, and others are not let in."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.app.inference.behind import Behind
from strongroom.app.inference.credentials import DAY, Gate, Keys, Limits, hash_of
from strongroom.errors import AlreadyExists, BadField, LimitReached, NoCredential, NoSpace, NotFound, Unauthorised

NOW = 1_790_000_000
MIDNIGHT = NOW - NOW % DAY + DAY
ANON = "Bearer anon-" + "ab" * 16


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[Keys]:
    found = Keys(tmp_path / "serve" / "keys.db")
    yield found
    found.close()


@pytest.fixture
def gate(keys: Keys) -> Iterator[Gate]:
    found = Gate(keys)
    yield found
    found.close()


def bearer(keys: Keys, name: str = "ada", **limits) -> str:
    return "Bearer " + keys.add(name, Limits(**limits), at=NOW)


# --- keys -------------------------------------------------------------------------------------------------------------


def test_a_key_is_shown_once_and_only_its_hash_is_kept(keys, tmp_path):
    token = keys.add("ada", at=NOW)
    assert len(token) == 46
    assert token.startswith("sr-")
    keys.close()
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert hash_of(token).encode() in everything
    assert token.encode() not in everything
    assert token[3:].encode() not in everything


def test_no_two_keys_are_alike(keys):
    assert len({keys.add(f"k{n}", at=NOW) for n in range(50)}) == 50


def test_a_key_lets_its_holder_in_and_says_its_name(keys, gate):
    admission = gate.admit(bearer(keys, requests_per_minute=3), "example/small", NOW)
    assert admission.credential.name == "ada"
    assert admission.credential.limits == Limits(requests_per_minute=3)
    assert gate.known("bearer   " + keys.add("bob", at=NOW)).name == "bob"


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Basic YTpi", "Bearer a b", "Bearer \n", "Bearer x\n", "sr-" + "a" * 43, "Bearer é"],
)
def test_a_request_without_a_key_is_refused(gate, header):
    with pytest.raises(NoCredential):
        gate.admit(header, None, NOW)


@pytest.mark.parametrize("token", ["sr-" + "A" * 43, "sr-" + "A" * 42, "sr-", "anon-" + "ab" * 16, "sk-anything", "x" * 300])
def test_a_key_that_nobody_gave_is_refused(gate, keys, token):
    keys.add("ada", at=NOW)
    with pytest.raises(NoCredential):
        gate.admit(f"Bearer {token}", None, NOW)


def test_the_hash_of_a_key_is_no_key(gate, keys):
    token = keys.add("ada", at=NOW)
    for stolen in (hash_of(token), "sr-" + hash_of(token)[:43], token[:-1], token + "A", token.upper()):
        with pytest.raises(NoCredential):
            gate.admit(f"Bearer {stolen}", None, NOW)


def test_a_revoked_key_is_refused_at_once_and_is_not_let_in_as_nobody(keys):
    token, other = bearer(keys), bearer(keys, "bob")
    gate = Gate(keys, anonymous=Limits())
    gate.admit(token, None, NOW).settle()
    second = Keys(keys._db._path)  # another process: `strongroom keys revoke`
    assert second.revoke("ada", at=NOW).revoked_at == NOW
    second.close()
    with pytest.raises(NoCredential):
        gate.admit(token, None, NOW)
    gate.admit(other, None, NOW)
    gate.close()


def test_a_name_can_be_used_again_once_its_key_is_revoked(keys):
    first = keys.add("ada", at=NOW)
    with pytest.raises(AlreadyExists):
        keys.add("ada", at=NOW)
    keys.revoke(keys.in_force(hash_of(first)).id, at=NOW)
    assert keys.add("ada", at=NOW) != first
    assert [(k.name, k.revoked_at) for k in keys.list()] == [("ada", NOW), ("ada", None)]
    with pytest.raises(NotFound):
        keys.revoke("bob", at=NOW)


@pytest.mark.parametrize("name", ["", "Ada", "a b", "../a", "é"])
def test_a_key_has_a_name(keys, name):
    with pytest.raises(BadField):
        keys.add(name, at=NOW)


@pytest.mark.parametrize(
    "limits", [{"requests_per_minute": 0}, {"tokens_per_minute": -1}, {"tokens_per_day": True}, {"models": frozenset()}]
)
def test_a_limit_allows_something(limits):
    with pytest.raises(BadField):
        Limits(**limits)


@settings(deadline=None)
@given(
    st.builds(
        Limits,
        *[st.none() | st.integers(1, 2**53 - 1)] * 3,
        st.none() | st.frozensets(st.text(st.characters(codec="ascii"), min_size=1, max_size=20), min_size=1, max_size=4),
    )
)
def test_limits_are_read_as_they_are_written(limits):
    assert Limits.from_json(limits.to_json()) == limits


@pytest.mark.parametrize("change", [{"models": []}, {"models": "all"}, {"requests_per_minute": 0}, {"unknown": 1}])
def test_limits_that_were_edited_are_refused(change):
    with pytest.raises(BadField):
        Limits.from_json({**Limits().to_json(), **change})


def test_a_key_for_one_model_asks_no_other(keys, gate):
    token = bearer(keys, models=frozenset({"example/small"}))
    gate.admit(token, "example/small", NOW)
    gate.admit(token, None, NOW)
    with pytest.raises(Unauthorised):
        gate.admit(token, "example/large", NOW)


# --- who brings no key ------------------------------------------------------------------------------------------------


def test_where_no_key_is_needed_each_client_makes_its_own(keys):
    gate = Gate(keys, anonymous=Limits())
    one, other = gate.known(ANON), gate.known("Bearer whatever")
    assert one.name is None
    assert one.hash == hash_of(ANON[7:])
    assert one.hash != other.hash
    with pytest.raises(NoCredential):
        gate.known(None)
    gate.close()


def test_a_request_without_any_credential_is_let_in_only_where_the_operator_says_so(keys):
    gate = Gate(keys, anonymous=Limits(), bare=True)
    assert gate.known(None).hash is None
    gate.close()
    closed = Gate(keys, bare=True)  # keys are required: there is no such request
    with pytest.raises(NoCredential):
        closed.known(None)
    closed.close()


def test_making_up_credentials_makes_up_no_allowance(keys):
    gate = Gate(keys, anonymous=Limits(requests_per_minute=5), bare=True)
    for n in range(5):
        gate.admit(f"Bearer anon-{n:032x}" if n else None, None, NOW)
    with pytest.raises(LimitReached):
        gate.admit("Bearer anon-" + "ff" * 16, None, NOW)
    assert len(gate._accounts) == 1  # and memory does not grow with them
    gate.close()


def test_loopback_is_not_private_to_who_is_let_in_without_a_key(keys):
    gate = Gate(keys, anonymous=Limits(), outside=False, bare=True)
    for header in (ANON, None):
        assert gate.known(header).name is None
        with pytest.raises(NoCredential):
            gate.known(header, passed_on=True)
        with pytest.raises(NoCredential):
            gate.admit(header, None, NOW, passed_on=True)
    assert gate.known(bearer(keys), passed_on=True).name == "ada"
    assert (gate.lets_in(), gate.lets_in(passed_on=True)) == (True, False)
    gate.close()
    said = Gate(keys, anonymous=Limits())  # the operator's own word
    assert said.known(ANON, passed_on=True).name is None
    said.close()


# --- limits -----------------------------------------------------------------------------------------------------------


def test_requests_beyond_the_minutes_are_told_when_to_come_again(keys, gate):
    token = bearer(keys, requests_per_minute=6)
    for _ in range(6):
        gate.admit(token, None, NOW)
    with pytest.raises(LimitReached) as refused:
        gate.admit(token, None, NOW)
    assert refused.value.retry_after == 10
    with pytest.raises(LimitReached):
        gate.admit(token, None, NOW + 9)
    gate.admit(token, None, NOW + 10)


def test_tokens_are_counted_when_the_answer_is_out(keys, gate):
    token = bearer(keys, tokens_per_minute=600)
    gate.admit(token, None, NOW).settle(prompt_tokens=700, completion_tokens=400, embedding_tokens=100)
    with pytest.raises(LimitReached) as refused:
        gate.admit(token, None, NOW)
    assert refused.value.retry_after == 61  # 600 too many, at ten a second, and one
    gate.admit(token, None, NOW + 61)


def test_many_requests_at_once_use_no_more_together_than_one_may(keys, gate):
    token = bearer(keys, tokens_per_minute=1000)
    first, second, third = (gate.admit(token, None, NOW) for _ in range(3))
    first.hold(400)
    second.hold(400)
    with pytest.raises(LimitReached):
        third.hold(400)
    first.settle(10)  # what was not used is there again
    third.hold(400)


def test_a_request_larger_than_the_whole_limit_waits_for_all_of_it(keys, gate):
    token = bearer(keys, tokens_per_minute=100, tokens_per_day=1000)
    gate.admit(token, None, NOW).hold(5000)
    other = "Bearer " + keys.add("bob", Limits(tokens_per_minute=100), at=NOW)
    gate.admit(other, None, NOW).settle(1)
    with pytest.raises(LimitReached):
        gate.admit(other, None, NOW).hold(5000)


def test_what_is_held_is_given_back_when_the_handler_fails(keys, gate):
    token = bearer(keys, tokens_per_day=100)
    with pytest.raises(ZeroDivisionError), gate.admit(token, None, NOW) as admission:
        admission.hold(100)
        _ = 1 / 0
    gate.admit(token, None, NOW).hold(100)


def test_only_the_first_settlement_counts(keys, gate):
    admission = gate.admit(bearer(keys, tokens_per_day=100), None, NOW)
    admission.settle(60)
    admission.settle(60)
    gate.flush()
    assert keys.used(admission.credential.hash, NOW // DAY).tokens == 60


def test_a_day_ends_at_midnight(keys, gate):
    token = bearer(keys, tokens_per_day=100)
    gate.admit(token, None, NOW).settle(100)
    with pytest.raises(LimitReached) as refused:
        gate.admit(token, None, NOW)
    assert refused.value.retry_after == MIDNIGHT - NOW
    gate.admit(token, None, MIDNIGHT)


def test_what_was_held_before_midnight_gives_nothing_to_the_next_day(keys, gate):
    token = bearer(keys, tokens_per_day=100)
    late = gate.admit(token, None, MIDNIGHT - 1)
    late.hold(90)
    gate.admit(token, None, MIDNIGHT).hold(100)
    late.settle(10)
    with pytest.raises(LimitReached):
        gate.admit(token, None, MIDNIGHT).hold(1)


def test_starting_again_forgives_no_day(keys):
    token = bearer(keys, tokens_per_day=100)
    first = Gate(keys)
    first.admit(token, None, NOW).settle(60, 40)
    first.close()
    second = Gate(keys)
    with pytest.raises(LimitReached):
        second.admit(token, None, NOW)
    second.close()


def test_where_the_operator_may_see_nothing_no_count_is_written(keys):
    token = bearer(keys, tokens_per_day=100)
    gate = Gate(keys, on_disk=False)
    admission = gate.admit(token, None, NOW)
    admission.settle(100)
    with pytest.raises(LimitReached):
        gate.admit(token, None, NOW)
    gate.close()
    assert keys.used(admission.credential.hash, NOW // DAY).requests == 0


def test_a_clock_that_goes_back_gives_nothing(keys, gate):
    token = bearer(keys, requests_per_minute=1)
    gate.admit(token, None, NOW)
    for at in (NOW - 3600, NOW - 3600.5, NOW - 3599):
        with pytest.raises(LimitReached):
            gate.admit(token, None, at)


def test_counts_of_long_ago_are_forgotten(keys, gate):
    token = bearer(keys)
    gate.admit(token, None, NOW).settle(7)
    gate.flush()
    gate.admit(token, None, NOW + 500 * DAY).settle(8)
    gate.flush()
    hash_ = gate.known(token).hash
    assert keys.used(hash_, NOW // DAY).tokens == 0
    assert keys.used(hash_, NOW // DAY + 500).tokens == 8


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 120), st.integers(1, 200), st.booleans()), max_size=60))
def test_no_order_of_requests_passes_the_limits(steps):
    from strongroom.app.inference.credentials import _Account

    account, at, used, day = _Account(Limits(tokens_per_minute=100, tokens_per_day=1000), NOW), NOW, 0, NOW // DAY
    account.day = day
    for wait, tokens, held in steps:
        at += wait
        account.fill(at)
        try:
            account.require(tokens, at)
        except LimitReached:
            continue
        account.take(tokens, day)
        if held:  # and the half of it given back
            account.take(-(tokens - tokens // 2), day)
        used += tokens // 2 if held else tokens
        assert used <= 1000
        assert used <= 100 + 100 * (at - NOW) / 60 + 100  # one request larger than the minute waits for a full one


def test_the_gate_counts_right_from_many_threads(keys, gate):
    token = bearer(keys, tokens_per_day=10_000)

    def ask() -> None:
        for _ in range(50):
            with gate.admit(token, None, NOW) as admission:
                admission.hold(2)
                admission.settle(1)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gate.flush()
    assert keys.used(gate.known(token).hash, NOW // DAY) == type(keys.used("", 0))(200, 200)


# --- writing behind ---------------------------------------------------------------------------------------------------


def test_what_could_not_be_written_is_kept_and_tried_again():
    wrote: list[int] = []
    failing = [sqlite3.OperationalError("the disk is full")]

    def write(batch: list[int]) -> None:
        if failing:
            raise failing.pop()
        wrote.extend(batch)

    behind = Behind(write, pause=0)
    behind.put(1)
    behind.put(2)
    assert behind.flush()
    assert wrote == [1, 2]
    assert behind.close()
    assert behind.close()
    with pytest.raises(NoSpace):
        behind.put(3)


def test_where_nothing_can_be_written_nothing_more_is_taken():
    held = threading.Event()

    def write(_: list[int]) -> None:
        held.wait()

    behind = Behind(write, most=3, pause=0)
    for n in range(3):
        behind.put(n)
    with pytest.raises(NoSpace):
        behind.put(4)
    held.set()
    assert behind.close()


def test_what_cannot_be_written_at_the_end_is_said():
    def write(_: list[int]) -> None:
        raise OSError

    behind = Behind(write, pause=0)
    behind.put(1)
    assert not behind.flush(timeout=0.01)
    assert not behind.close()


def test_where_nothing_comes_the_idle_work_is_done():
    done = threading.Event()
    behind: Behind[int] = Behind(lambda _: None, idle=done.set, idle_pause=0.001)
    assert done.wait(10)
    assert behind.close()
