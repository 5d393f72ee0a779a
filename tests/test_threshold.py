"""Shared keys: what is split and combined, who holds it, and what an owner and the brokers say to each other."""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom import wire
from strongroom.asset import AssetKey
from strongroom.broker import Refusal, Release
from strongroom.contract import Grant, Withdrawal
from strongroom.dealing import collect
from strongroom.errors import (
    BadEnrolment,
    BadField,
    BadKey,
    BadRelease,
    BadShare,
    BadSignature,
    MissingExtra,
    NotPinned,
    StrongroomError,
    TooFewShares,
    UnknownAsset,
    WrongEpoch,
    WrongKey,
)
from strongroom.holder import give_back, hear, hear_grant, take
from strongroom.holding import Deal, Recall, Recalled, Says, Taken, Word, together
from strongroom.party import DecryptionKey, VerifyKey
from strongroom.release import Part, PartAsked, ReleaseStatement, gave_twice, open_release, open_share
from strongroom.threshold import Enrolment, HolderCard, Share, combine, require_majority, split
from strongroom.wire import Envelope
from threshold_world import NAMES, Shared, holder_card, share_key
from world import NOW, Entropy, broker_key, card, keys_of, sealed_asset, seed

HOME = Path(__file__).parents[1]
MANIFEST, SIGNED, _, KEY = sealed_asset("data")
HOSPITAL = keys_of("hospital")


def shares_of(threshold: int = 2, names: tuple[str, ...] = NAMES[:3], epoch: int = 1, key: AssetKey = KEY) -> Any:
    return split(
        key,
        manifest=MANIFEST.digest,
        owner="hospital",
        epoch=epoch,
        threshold=threshold,
        cards=[holder_card(n) for n in names],
        entropy=Entropy(f"salts {epoch}"),
    )


# --- the arithmetic ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("threshold", "count"), [(1, 1), (2, 2), (2, 3), (3, 4), (3, 5), (5, 5)])
def test_any_t_of_n_shares_are_the_key(threshold: int, count: int) -> None:
    enrolment, shares = shares_of(threshold, NAMES[:count])
    for some in itertools.combinations(shares, threshold):
        assert combine(enrolment, some, MANIFEST) == KEY
    assert combine(enrolment, shares, MANIFEST) == KEY


def test_fewer_than_t_shares_are_refused() -> None:
    enrolment, shares = shares_of(3, NAMES)
    for some in itertools.combinations(shares, 2):
        with pytest.raises(BadShare):
            combine(enrolment, some, MANIFEST)


@settings(max_examples=20)
@given(st.binary(min_size=32, max_size=32))
def test_one_share_alone_is_a_share_of_any_other_key_too(raw: bytes) -> None:
    # t - 1 points fit a polynomial through any secret: nothing is known of the key, not even what it is not
    from Crypto.Protocol.SecretSharing import Shamir

    _, shares = shares_of()
    one = shares[0]
    for part in (slice(16), slice(16, None)):
        # the point that would make `raw` the secret: p(2) for the line through (0, raw) and (1, share)
        other = _line(raw[part], one.value[part], 2)
        assert Shamir.combine([(1, one.value[part]), (2, other)]) == raw[part]


def _line(at_zero: bytes, at_one: bytes, x: int) -> bytes:
    """p(x) over GF(2^128) for the line through two points; p = a + (a + b) x."""
    a, slope = int.from_bytes(at_zero), int.from_bytes(at_zero) ^ int.from_bytes(at_one)
    product = 0
    while x:
        if x & 1:
            product ^= slope
        slope = (slope << 1) ^ ((1 << 128 | 0x87) if slope >> 127 else 0)
        x >>= 1
    return (a ^ product).to_bytes(16)


@pytest.mark.parametrize(("threshold", "count"), [(0, 1), (2, 1), (1, 2), (2, 4), (2, 5), (8, 16), (9, 17), (0, 0)])
def test_half_of_the_brokers_or_fewer_are_never_enough(threshold: int, count: int) -> None:
    with pytest.raises(BadEnrolment):
        require_majority(threshold, count)


@given(st.integers(-1, 20), st.integers(-1, 20))
def test_two_sets_that_open_always_have_a_broker_in_common(threshold: int, count: int) -> None:
    try:
        require_majority(threshold, count)
    except BadEnrolment:
        return
    assert 2 * threshold - count >= 1


@pytest.mark.parametrize("byte", [0, 15, 16, 31])
def test_a_share_with_one_bit_flipped_is_found_and_its_holder_named(byte: int) -> None:
    enrolment, shares = shares_of()
    value = bytearray(shares[1].value)
    value[byte] ^= 1
    with pytest.raises(BadShare, match="'ben'"):
        combine(enrolment, (shares[0], replace(shares[1], value=bytes(value))), MANIFEST)


def test_a_share_of_another_epoch_is_found_and_its_holder_named() -> None:
    enrolment, shares = shares_of()
    _, others = shares_of(epoch=2)
    with pytest.raises(BadShare, match="'cy'"):
        combine(enrolment, (shares[0], others[2]), MANIFEST)


def test_one_share_twice_is_not_two() -> None:
    enrolment, shares = shares_of()
    with pytest.raises(BadShare, match="twice"):
        combine(enrolment, (shares[0], shares[0]), MANIFEST)


def test_a_share_that_nobody_holds_is_refused() -> None:
    enrolment, shares = shares_of()
    with pytest.raises(BadShare):
        combine(enrolment, (shares[0], replace(shares[1], index=4)), MANIFEST)


def test_shares_of_another_key_are_not_taken_for_this_ones() -> None:
    enrolment, shares = shares_of(key=AssetKey(seed("another key")))
    with pytest.raises(WrongKey):
        combine(enrolment, shares[:2], MANIFEST)
    enrolment, shares = shares_of()
    with pytest.raises(BadShare):
        combine(enrolment, shares[:2], sealed_asset("model")[0])


def test_old_shares_still_open_the_key() -> None:
    # said plainly in the docs: dealing anew takes nothing from who kept t old shares
    old, shares = shares_of()
    new, _ = shares_of(epoch=2)
    assert new.epoch == 2
    assert combine(old, shares[1:], MANIFEST) == KEY


def test_a_commitment_does_not_tell_a_share_that_is_guessed() -> None:
    enrolment, shares = shares_of()
    guess = replace(shares[0], salt=seed("a guess"))
    assert wire.digest(guess.encode()) != enrolment.holders[0].commitment


def test_a_share_is_not_shown() -> None:
    _, shares = shares_of()
    assert shares[0].value.hex() not in repr(shares[0])


def test_without_the_library_a_share_is_neither_made_nor_combined(monkeypatch: pytest.MonkeyPatch) -> None:
    enrolment, shares = shares_of()
    monkeypatch.setitem(sys.modules, "Crypto.Protocol", None)
    with pytest.raises(MissingExtra, match="library"):
        combine(enrolment, shares, MANIFEST)
    with pytest.raises(MissingExtra):
        shares_of()


# --- enrolments -------------------------------------------------------------------------------------------------------


def test_an_enrolment_is_its_owners_and_its_assets() -> None:
    enrolment, _ = shares_of()
    signed = enrolment.sign(HOSPITAL.signing)
    args: dict[str, Any] = {"manifest": MANIFEST.digest, "owner": "hospital", "key": HOSPITAL.signing.public}
    assert Enrolment.verify(signed, **args) == enrolment
    with pytest.raises(BadEnrolment):
        Enrolment.verify(signed, **{**args, "manifest": wire.digest(b"another")})
    with pytest.raises(BadEnrolment):
        Enrolment.verify(signed, **{**args, "owner": "lab"})
    with pytest.raises(BadSignature):
        Enrolment.verify(enrolment.sign(keys_of("lab").signing), **args)
    mine = replace(enrolment.holders[0], broker_key=HOSPITAL.signing.public)
    with pytest.raises(BadEnrolment):
        Enrolment.verify(replace(enrolment, holders=(mine, *enrolment.holders[1:])).sign(HOSPITAL.signing), **args)


@pytest.mark.parametrize("member", ["name", "broker_key", "commitment"])
def test_one_broker_does_not_hold_two_shares(member: str) -> None:
    enrolment, _ = shares_of()
    first, second, third = enrolment.holders
    with pytest.raises(BadEnrolment):
        replace(enrolment, holders=(first, replace(second, **{member: getattr(first, member)}), third))


@st.composite
def enrolments(draw: Any) -> Enrolment:
    count = draw(st.integers(1, 5))
    threshold = draw(st.integers(count // 2 + 1, count))
    found, _ = shares_of(threshold, NAMES[:count], epoch=draw(st.integers(1, 1_000_000)))
    return found  # type: ignore[no-any-return]


@settings(max_examples=25)
@given(enrolments())
def test_an_enrolment_parses_to_itself(enrolment: Enrolment) -> None:
    assert Enrolment.parse(enrolment.encode()) == enrolment
    assert Enrolment.parse(enrolment.encode()).encode() == enrolment.encode()


taken_lists = st.lists(
    st.builds(
        Taken,
        st.sampled_from([wire.digest(b"one"), wire.digest(b"two")]),
        st.integers(1, 9),
        st.none() | st.sampled_from([wire.digest(b"a"), wire.digest(b"b")]),
    ),
    unique_by=lambda t: (t.contract, t.slot),
).map(lambda found: tuple(sorted(found, key=lambda t: (t.contract, t.slot))))


@settings(max_examples=25)
@given(taken_lists, st.integers(1, 3))
def test_a_deal_parses_to_itself(taken: tuple[Taken, ...], index: int) -> None:
    enrolment, shares = shares_of()
    deal = Deal.make(enrolment.sign(HOSPITAL.signing), SIGNED, shares[index - 1], holder_card(NAMES[index - 1]), taken)
    assert Deal.parse(deal.encode()) == deal
    again, found, manifest = Deal.verify(deal.sign(HOSPITAL.signing), owner="hospital", key=HOSPITAL.signing.public)
    assert (again, found, manifest) == (deal, enrolment, MANIFEST)


def test_a_card_parses_to_itself_and_names_a_place() -> None:
    found = holder_card("ada")
    assert HolderCard.parse(found.encode()) == found
    for address in ("", "https://", "ftp://x", "https://x/path", "https://X"):
        with pytest.raises(BadField):
            HolderCard.parse(replace(found, address=address).encode())
    assert found.fingerprint != replace(found, share_key=share_key("ben").public).fingerprint


@given(st.binary(max_size=200) | st.text().map(str.encode))
def test_bytes_that_are_none_of_the_documents_are_refused(data: bytes) -> None:
    for parse in (Enrolment.parse, Deal.parse, Share.parse, HolderCard.parse):
        with pytest.raises(StrongroomError):
            parse(data)


@given(st.lists(taken_lists, max_size=4), st.randoms())
def test_what_accounts_say_together_does_not_depend_on_their_order(accounts: list[tuple[Taken, ...]], random: Any) -> None:
    shuffled = list(accounts)
    random.shuffle(shuffled)
    found = together(accounts)
    assert found == together(shuffled) == together([found, *shuffled])
    said = {(t.contract, t.slot) for account in accounts for t in account}
    assert {(t.contract, t.slot) for t in found} == said
    for t in found:
        keysets = {o.keyset for account in accounts for o in account if (o.contract, o.slot) == (t.contract, t.slot)}
        assert t.keyset == (next(iter(keysets)) if len(keysets) == 1 else None)


# --- taking, giving back, hearing -------------------------------------------------------------------------------------


def test_a_broker_takes_shares_of_owners_that_its_people_pinned_alone() -> None:
    shared = Shared()
    keeper = shared.keepers["ada"]
    (envelope, *_) = shared.dealt(NAMES[:3], 2, 2).deals
    stranger = replace(keeper.here, trust=replace(keeper.here.trust, parties=(card("lab"),)))
    with pytest.raises(NotPinned):
        take(envelope, here=stranger, book=keeper.book, at=NOW)


def test_a_deal_that_another_signed_is_refused() -> None:
    shared = Shared()
    keeper = shared.keepers["ada"]
    deal = Deal.parse(shared.dealt(NAMES[:3], 2, 2).deals[0].payload)
    with pytest.raises(BadSignature):
        take(deal.sign(keys_of("lab").signing), here=keeper.here, book=keeper.book, at=NOW)


def test_another_brokers_deal_is_refused() -> None:
    shared = Shared()
    keeper = shared.keepers["ada"]
    with pytest.raises(BadShare):
        take(shared.dealt(NAMES[:3], 2, 2).deals[1], here=keeper.here, book=keeper.book, at=NOW)


def test_a_share_encrypted_to_another_is_refused() -> None:
    shared = Shared()
    keeper = shared.keepers["ada"]
    found = shared.dealt(NAMES[:3], 2, 2).deals[0]
    with pytest.raises(BadKey):
        take(found, here=replace(keeper.here, shares=share_key("ben")), book=keeper.book, at=NOW)
    with pytest.raises(UnknownAsset):
        take(found, here=replace(keeper.here, shares=None), book=keeper.book, at=NOW)


def test_an_owner_who_deals_another_share_than_it_committed_to_is_found_at_once() -> None:
    shared = Shared()
    keeper = shared.keepers["ada"]
    enrolment, shares = shares_of(epoch=2)
    signed = enrolment.sign(HOSPITAL.signing)
    false = replace(shares[0], value=seed("not this"))
    found = Deal.make(signed, SIGNED, false, holder_card("ada")).sign(HOSPITAL.signing)
    with pytest.raises(BadShare, match="'ada'"):
        take(found, here=keeper.here, book=keeper.book, at=NOW)


def test_an_older_epoch_is_not_taken_again_and_the_same_deal_is() -> None:
    shared = Shared()
    keeper = shared.keepers["ada"]
    second, other = shared.dealt(NAMES[:3], 2, 2), shared.dealt(NAMES[:3], 2, 2)
    for _ in range(2):
        take(second.deals[0], here=keeper.here, book=keeper.book, at=NOW)
    with pytest.raises(WrongEpoch):  # two dealings of one epoch: shares of two polynomials
        take(other.deals[0], here=keeper.here, book=keeper.book, at=NOW)
    with pytest.raises(WrongEpoch):
        take(shared.dealt(NAMES[:3], 2, 1).deals[0], here=keeper.here, book=keeper.book, at=NOW)


def test_what_was_recalled_is_not_in_force_again_because_its_deal_comes_again() -> None:
    shared = Shared()
    keeper, found = shared.keepers["ada"], shared.dealt(NAMES[:3], 2, 2)
    take(found.deals[0], here=keeper.here, book=keeper.book, at=NOW)
    give_back(Recall(MANIFEST.digest, "hospital", 2).sign(HOSPITAL.signing), here=keeper.here, book=keeper.book)
    take(found.deals[0], here=keeper.here, book=keeper.book, at=NOW)
    assert keeper.book.share(MANIFEST.digest).recalled


def test_a_share_is_given_back_to_its_owner_alone() -> None:
    shared = Shared()
    keeper = shared.keepers["ada"]
    order = Recall(MANIFEST.digest, "hospital", 1)
    with pytest.raises(BadSignature):
        give_back(order.sign(keys_of("lab").signing), here=keeper.here, book=keeper.book)
    with pytest.raises(NotPinned):
        give_back(replace(order, owner="lab").sign(keys_of("lab").signing), here=keeper.here, book=keeper.book)
    answer = give_back(order.sign(HOSPITAL.signing), here=keeper.here, book=keeper.book)
    found = Recalled.verify(answer, shared.enrolment, 1, NOW)
    with pytest.raises(BadKey):
        found.open(shared.enrolment, keys_of("lab").decryption)
    assert found.open(shared.enrolment, HOSPITAL.decryption).index == 1


def test_a_recall_of_another_epoch_or_asset_is_refused() -> None:
    shared = Shared()
    keeper = shared.keepers["ada"]
    with pytest.raises(WrongEpoch):
        give_back(Recall(MANIFEST.digest, "hospital", 2).sign(HOSPITAL.signing), here=keeper.here, book=keeper.book)
    with pytest.raises(UnknownAsset):
        order = Recall(wire.digest(b"another"), "hospital", 1).sign(HOSPITAL.signing)
        give_back(order, here=keeper.here, book=keeper.book)
    assert not keeper.book.share(MANIFEST.digest).recalled


def test_the_key_comes_back_from_any_t_brokers_and_a_false_share_is_named() -> None:
    shared = Shared(NAMES, 3)
    order = Recall(MANIFEST.digest, "hospital", 1).sign(HOSPITAL.signing)
    answers = {i: give_back(order, here=k.here, book=k.book) for i, k in enumerate(shared.keepers.values(), 1)}
    liar = shared.keepers["ben"]
    false = replace(Share.parse(_share(shared, "ben")), value=seed("false"))
    made = Recalled.make(shared.enrolment, false, (), broker=liar.here.broker.public, owner=card("hospital").encryption_key)
    answers[2] = made.sign(liar.here.broker)
    found = collect(shared.enrolment, MANIFEST, answers, HOSPITAL.decryption, NOW)
    assert found.key == KEY
    assert {name: error.code for name, error in found.bad.items()} == {"ben": "broker.bad_share"}
    with pytest.raises(TooFewShares, match=r"'ben'.*no answer of dee, eve"):
        collect(shared.enrolment, MANIFEST, {i: answers[i] for i in (1, 2, 3)}, HOSPITAL.decryption, NOW)


def test_an_account_is_of_the_broker_that_holds_the_share() -> None:
    shared = Shared()
    order = Recall(MANIFEST.digest, "hospital", 1).sign(HOSPITAL.signing)
    ada = shared.keepers["ada"]
    answer = give_back(order, here=ada.here, book=ada.book)
    with pytest.raises(BadSignature):
        Recalled.verify(answer, shared.enrolment, 2, NOW)
    other, _ = shares_of(epoch=2)
    with pytest.raises(BadShare):
        Recalled.verify(answer, other, 1, NOW)


def _share(shared: Shared, name: str) -> bytes:
    keeper = shared.keepers[name]
    held = keeper.book.share(MANIFEST.digest)
    found: bytes = held.deal.open(shared.enrolment, broker=keeper.here.broker.public, key=keeper.here.shares).encode()
    return found


def test_shares_lie_sealed_in_a_brokers_book() -> None:
    shared = Shared()
    held = shared.keepers["ada"].book.share(MANIFEST.digest)
    share = Share.parse(_share(shared, "ada"))
    for spelled in (share.value, share.value.hex().encode(), wire.b64(share.value).encode()):
        assert spelled not in held.deal.encode()
        assert spelled not in held.deal.share


# --- a share instead of a key: what is decided ------------------------------------------------------------------------


def released(found: Release | Refusal) -> Release:
    assert isinstance(found, Release), (found.number, found.code, found.transcript.first_problem)
    assert found.transcript.ok
    return found


def refused(found: Release | Refusal, number: str, code: str) -> None:
    assert isinstance(found, Refusal)
    assert (found.number, found.code) == (number, code)


def statement(found: Release, name: str) -> ReleaseStatement:
    return ReleaseStatement.verify(found.envelope, broker_key(name).public)


def test_t_brokers_open_an_asset_and_one_alone_does_not() -> None:
    shared = Shared()
    enclave, got = shared.enclave(), []
    for name in ("cy", "ada"):
        request = enclave.share_request(name)
        found = released(shared.keepers[name].decide(request))
        got.append(enclave.open_share(name, found, request))
    assert [g.statement.part for g in got] == [Part(1, 3, 1), Part(1, 1, 1)]
    assert combine(shared.enrolment, [g.share for g in got], MANIFEST) == KEY
    with pytest.raises(BadShare):
        combine(shared.enrolment, [got[0].share], MANIFEST)


def test_no_broker_that_holds_a_share_gives_the_whole_key() -> None:
    shared = Shared()
    enclave = shared.enclave()
    keeper = shared.keepers["ada"]
    refused(keeper.decide(enclave.request(nonce=keeper.book.nonce(NOW))), "D3", "party.not_pinned")
    hospital = shared.world.brokers["hospital"]
    hospital.book.approve(shared.contract.digest, NOW)
    refused(hospital.decide(enclave.request(nonce=hospital.nonce())), "D6", "broker.unknown_asset")


def test_d3_an_owner_that_this_broker_did_not_pin() -> None:
    shared = Shared()
    keeper = shared.keepers["ada"]
    keeper.here = replace(keeper.here, trust=replace(keeper.here.trust, parties=(card("lab"),)))
    refused(shared.enclave().ask_share("ada"), "D3", "party.not_pinned")


def test_d4_a_broker_without_a_share() -> None:
    shared = Shared()
    shared.keepers["ada"].book._state.shares.clear()
    refused(shared.enclave().ask_share("ada"), "D4", "broker.not_mine")


def test_d4_a_share_of_an_older_epoch_is_not_given() -> None:
    shared = Shared()
    old = PartAsked(shared.enrolment.digest)
    shared.recall(["ada", "ben"])
    shared.deal(NAMES[:3], 2, 2)
    enclave = shared.enclave()
    refused(shared.keepers["ada"].decide(enclave.share_request("ada", old)), "D4", "broker.wrong_epoch")
    released(enclave.ask_share("ada"))


def test_d4_a_share_of_an_epoch_that_is_not_here_yet() -> None:
    shared = Shared()
    newer, _ = shares_of(epoch=2)
    refused(
        shared.keepers["ada"].decide(shared.enclave().share_request("ada", PartAsked(newer.digest))),
        "D4",
        "broker.wrong_epoch",
    )


def test_d4_what_was_recalled_is_given_to_nobody() -> None:
    shared = Shared()
    released(shared.enclave().ask_share("ada"))
    shared.recall(["ada", "ben"])
    refused(shared.enclave().ask_share("ada"), "D4", "broker.wrong_epoch")
    released(shared.enclave().ask_share("cy"))


def test_d16_a_recall_between_the_check_and_the_book_is_seen() -> None:
    shared = Shared()
    keeper = shared.keepers["ada"]
    request = shared.enclave().share_request("ada")
    before = keeper.book.share

    def share(manifest: str) -> Any:  # the recall is written after the decision has begun
        keeper.book.share = before
        found = before(manifest)
        shared.recall(["ada", "ben"])
        return found

    keeper.book.share = share
    refused(keeper.decide(request), "D16", "broker.wrong_epoch")
    assert keeper.book.taken(MANIFEST.digest) == []


def test_d6_the_key_that_opens_shares_is_lost() -> None:
    shared = Shared()
    keeper = shared.keepers["ada"]
    keeper.here = replace(keeper.here, shares=None)
    refused(shared.enclave().ask_share("ada"), "D6", "broker.unknown_asset")
    keeper.here = replace(keeper.here, shares=share_key("ben"))
    refused(shared.enclave().ask_share("ada"), "D6", "party.bad_key")


def test_d9_a_holder_appraises_by_its_own_policy() -> None:
    shared = Shared()
    keeper = shared.keepers["ada"]
    trust = replace(keeper.here.trust, measurements=())
    keeper.here = replace(keeper.here, policy=trust.appraisal_policy())
    assert isinstance(shared.enclave().ask_share("ada"), Refusal)
    assert shared.enclave().ask_share("ada").number == "D9"  # type: ignore[union-attr]
    released(shared.enclave().ask_share("ben"))


def test_d12_a_signature_on_the_contract_is_not_the_owners_word() -> None:
    shared = Shared()
    shared.keepers["ada"].book._state.words.clear()
    refused(shared.enclave().ask_share("ada"), "D12", "broker.not_approved")
    shared.say(Says.APPROVED, ["ada"])
    released(shared.enclave().ask_share("ada"))


def test_d12_one_owners_word_is_not_anothers() -> None:
    shared = Shared()
    book = shared.keepers["ada"].book
    book._state.words.clear()
    book.approve(shared.contract.digest, NOW)  # the broker's own people approved it, for what is theirs
    book.hear(Word(shared.contract.digest, "lab", Says.APPROVED, NOW), Envelope("", b"", ()))
    refused(shared.enclave().ask_share("ada"), "D12", "broker.not_approved")


def test_d13_what_the_owner_ended_does_not_begin_again() -> None:
    shared = Shared()
    shared.say(Says.ENDED, ["ada"])
    shared.say(Says.APPROVED, ["ada"])
    refused(shared.enclave().ask_share("ada"), "D13", "contract.superseded")


def test_d14_a_withdrawal() -> None:
    shared = Shared()
    withdrawal = Withdrawal(shared.contract.digest, "lab", NOW, "")
    shared.keepers["ada"].book.withdraw(withdrawal, withdrawal.sign(keys_of("lab").signing))
    refused(shared.enclave().ask_share("ada"), "D14", "contract.withdrawn")


def test_d15_a_run_is_one_enclaves() -> None:
    shared = Shared(runs=2)
    released(shared.enclave().ask_share("ada"))
    refused(shared.enclave("another").ask_share("ada"), "D15", "broker.run_taken")


OTHER_RUN = seed("another run", 16).hex()


def test_d16_a_slot_is_given_to_one_enclave_ever() -> None:
    shared = Shared(runs=2)
    released(shared.enclave().ask_share("ada", 2))
    other = shared.enclave("another", run_id=OTHER_RUN)
    refused(other.ask_share("ada", 2), "D16", "broker.slot_taken")
    assert statement(released(other.ask_share("ada")), "ada").part == Part(1, 1, 1)
    refused(other.ask_share("ada", 3), "D16", "broker.no_run_left")


def test_d16_a_slot_stays_given_in_the_next_epoch() -> None:
    shared = Shared()
    released(shared.enclave().ask_share("ada"))
    found = shared.recall(["ada", "ben"])
    shared.deal(NAMES[:3], 2, 2, taken=found.taken)
    other = shared.enclave("another", run_id=OTHER_RUN)
    for name in NAMES[:3]:
        refused(other.ask_share(name), "D16", "broker.no_run_left")
    for name in NAMES[:3]:
        released(shared.enclave().ask_share(name))


def test_d16_a_replaced_brokers_slots_stay_given() -> None:
    # without the accounts, a lost broker and its replacement would give one slot to two enclaves
    shared = Shared()
    for name in ("ada", "ben"):
        released(shared.enclave().ask_share(name))
    found = shared.recall(["ada", "cy"])  # ben is lost
    shared.deal(("ada", "dee", "cy"), 2, 2, taken=found.taken)
    shared.say(Says.APPROVED)
    other = shared.enclave("another", run_id=OTHER_RUN)
    for name in ("ada", "dee", "cy"):
        refused(other.ask_share(name), "D16", "broker.no_run_left")


def test_d16_a_slot_of_which_two_accounts_differ_is_nobodys() -> None:
    shared = Shared()
    released(shared.enclave().ask_share("ada"))
    released(shared.enclave("another", run_id=OTHER_RUN).ask_share("ben"))
    found = shared.recall(["ada", "ben"])
    assert found.taken == (Taken(shared.contract.digest, 1, None),)
    shared.deal(NAMES[:3], 2, 2, taken=found.taken)
    for name in NAMES[:3]:
        assert isinstance(shared.enclave().ask_share(name), Refusal)


def test_d16_grants_of_the_owner_are_further_slots() -> None:
    shared = Shared()
    released(shared.enclave().ask_share("ada"))
    other, keeper = shared.enclave("another", run_id=OTHER_RUN), shared.keepers["ada"]
    refused(other.ask_share("ada"), "D16", "broker.no_run_left")
    grant = Grant(shared.contract.digest, "hospital", 1, seed("grant", 16).hex())
    proposal = shared.contract.proposal
    with pytest.raises(BadSignature):
        hear_grant(grant.sign(keys_of("lab").signing), proposal, "hospital", here=keeper.here, book=keeper.book)
    with pytest.raises(NotPinned):
        of_lab = replace(grant, party="lab").sign(keys_of("lab").signing)
        hear_grant(of_lab, proposal, "lab", here=keeper.here, book=keeper.book)
    with pytest.raises(BadField):
        hear_grant(of_lab, proposal, "hospital", here=keeper.here, book=keeper.book)
    for _ in range(2):  # once, however often it comes
        hear_grant(grant.sign(HOSPITAL.signing), proposal, "hospital", here=keeper.here, book=keeper.book)
    assert statement(released(other.ask_share("ada")), "ada").part == Part(1, 1, 2)
    refused(shared.enclave("third", run_id=seed("third", 16).hex()).ask_share("ada"), "D16", "broker.no_run_left")


def test_d17_a_budget_is_not_counted_across_brokers() -> None:
    from strongroom.budget.document import Budget, CountLimits

    shared = Shared()
    budget = Budget(owner="hospital", version=1, at=NOW, assets=(MANIFEST.digest,), dp=None, counts=CountLimits(runs=9))
    shared.keepers["ada"].book.set_budget(budget, budget.sign(HOSPITAL.signing))
    refused(shared.enclave().ask_share("ada"), "D17", "budget.bad_budget")


def test_the_same_enclave_gets_the_same_release_again() -> None:
    shared = Shared()
    enclave = shared.enclave()
    first, second = released(enclave.ask_share("ada")), released(enclave.ask_share("ada", 1))
    assert first.answer() == second.answer()


def test_slots_that_did_not_lead_to_enough_shares_are_passed_over() -> None:
    shared = Shared(runs=3)
    enclave = shared.enclave()
    digest = shared.enrolment.digest
    for but, slot in (((), 1), ((1,), 2), ((1, 2), 3)):
        found = released(shared.keepers["ada"].decide(enclave.share_request("ada", PartAsked(digest, None, but))))
        assert statement(found, "ada").part == Part(1, 1, slot)
    last = shared.keepers["ada"].decide(enclave.share_request("ada", PartAsked(digest, None, (1, 2, 3))))
    refused(last, "D16", "broker.no_run_left")


def test_a_word_of_another_contract_or_party_is_not_heard() -> None:
    shared = Shared()
    keeper, proposal = shared.keepers["ada"], shared.contract.proposal
    word = Word(wire.digest(b"another"), "hospital", Says.APPROVED, NOW)
    with pytest.raises(BadField):
        hear(word.sign(HOSPITAL.signing), proposal, here=keeper.here, book=keeper.book)
    with pytest.raises(BadSignature):
        hear(word.sign(keys_of("lab").signing), proposal, here=keeper.here, book=keeper.book)


# --- what an enclave takes --------------------------------------------------------------------------------------------


def test_an_enclave_takes_no_share_that_it_did_not_ask_for() -> None:
    shared = Shared(runs=3)
    enclave = shared.enclave()
    request = enclave.share_request("ada", PartAsked(shared.enrolment.digest, 2))
    answer = released(shared.keepers["ada"].decide(request)).answer()
    whole: dict[str, Any] = {
        "slot": enclave.slot(),
        "enrolment": shared.enrolment,
        "index": 1,
        "asked": request.share,
        "nonces": frozenset({request.nonce.hex()}),
        "key": enclave.release_key,
    }
    assert open_share(answer, **whole).share.index == 1
    for wrong in (
        {"asked": PartAsked(shared.enrolment.digest, 1)},  # another slot
        {"asked": PartAsked(shared.enrolment.digest, None, (2,))},  # one that it said leads nowhere
        {"nonces": frozenset({seed("another").hex()})},  # an answer to another question
        {"enrolment": shares_of(epoch=2)[0]},  # another epoch
        {"slot": replace(enclave.slot(), run_id=OTHER_RUN)},
        {"slot": replace(enclave.slot(), manifest=wire.digest(b"another asset"))},
        {"slot": replace(enclave.slot(), contract=wire.digest(b"another contract"))},
    ):
        with pytest.raises(BadRelease):
            open_share(answer, **{**whole, **wrong})
    with pytest.raises(BadSignature):  # another broker's answer
        open_share(answer, **{**whole, "index": 2})
    with pytest.raises(BadRelease):  # a share is no key
        open_release(
            answer, slot=enclave.slot(), broker=broker_key("ada").public, nonces=whole["nonces"], key=enclave.release_key
        )


def test_what_was_signed_before_there_were_shares_is_as_it_was() -> None:
    from world import Asker, World

    world = World()
    enclave = Asker(world, world.agree())
    found = enclave.ask()
    assert isinstance(found, Release)
    said = json.loads(found.envelope.payload)
    assert not {"epoch", "index", "slot"} & set(said)
    assert b'"share"' not in enclave.request().encode()


# --- what a ledger proves ---------------------------------------------------------------------------------------------


def test_two_releases_of_one_slot_prove_that_a_broker_lies() -> None:
    shared = Shared(runs=2)
    first = released(shared.enclave().ask_share("ada", 1)).envelope
    other = released(shared.enclave("another", run_id=OTHER_RUN).ask_share("ada", 2)).envelope
    key = broker_key("ada").public
    for one, two in ((first, first), (first, other)):  # an honest broker's releases
        with pytest.raises(BadRelease):
            gave_twice(one, two, key)
    shared.keepers["ada"].book._state.slots.clear()
    again = released(shared.enclave("another", run_id=OTHER_RUN).ask_share("ada", 1)).envelope
    assert gave_twice(first, again, key) == Part(1, 1, 1)
    with pytest.raises(BadSignature):
        gave_twice(first, again, broker_key("ben").public)


def test_a_release_of_a_whole_key_proves_nothing_of_slots() -> None:
    from world import Asker, World

    world = World()
    found = Asker(world, world.agree()).ask()
    with pytest.raises(BadRelease):
        gave_twice(found.envelope, found.envelope, broker_key("hospital").public)


# --- vectors ----------------------------------------------------------------------------------------------------------

VECTORS = sorted((HOME / "vectors" / "threshold").glob("*.json"))  # written by make_threshold.py


def test_there_are_vectors() -> None:
    assert len(VECTORS) > 30


def _happen(case: dict[str, Any]) -> None:
    owner = VerifyKey(wire.unb64(case["owner_key"])) if "owner_key" in case else HOSPITAL.signing.public
    match case["operation"]:
        case "enrolment":
            envelope = Envelope.from_json(case["enrolment"])
            found = Enrolment.verify(envelope, manifest=case["manifest"], owner=case["owner"], key=owner)
            assert found.encode() == envelope.payload
        case "combine":
            enrolment = Enrolment.parse(wire.encode(case["enrolment"]))
            shares = [enrolment.require(s.encode(), i) for i, s in case["shares"]]
            assert combine(enrolment, shares, MANIFEST).raw.hex() == case["key"]
        case "deal":
            deal, enrolment, _ = Deal.verify(Envelope.from_json(case["deal"]), owner=case["owner"], key=owner)
            share_opener = DecryptionKey.from_seed(bytes.fromhex(case["share_seed"]))
            broker = VerifyKey(wire.unb64(case["broker"]))
            assert deal.open(enrolment, broker=broker, key=share_opener).encode().decode() == case["share"]
        case "recalled":
            enrolment = Enrolment.parse(wire.encode(case["enrolment"]))
            back = Recalled.verify(Envelope.from_json(case["recalled"]), enrolment, case["index"], case["at"])
            opened = back.open(enrolment, DecryptionKey.from_seed(bytes.fromhex(case["owner_seed"])))
            assert opened.encode().decode() == case["share"]
        case "recall":
            Recall.verify(Envelope.from_json(case["recall"]), owner)
        case "word":
            Word.verify(Envelope.from_json(case["word"]), owner)
        case "card":
            HolderCard.parse(wire.encode(case["card"]))
        case "gave-twice":
            one, two = (Envelope.from_json(e) for e in case["releases"])
            gave_twice(one, two, VerifyKey(wire.unb64(case["broker"])))


@pytest.mark.parametrize("path", VECTORS, ids=lambda p: p.stem)
def test_vector(path: Path) -> None:
    case = json.loads(path.read_bytes())
    if case["expect"] == "ok":
        _happen(case)
        return
    with pytest.raises(StrongroomError) as caught:
        _happen(case)
    assert caught.value.code == case["expect"]


def test_the_page_shows_documents_that_are_some() -> None:
    page = (HOME / "spec" / "threshold.md").read_text(encoding="utf-8")
    shown = [json.loads(block.split("```")[0]) for block in page.split("```json\n")[1:]]
    cases = {p.stem: json.loads(p.read_bytes()) for p in VECTORS}
    assert shown[0] == json.loads(wire.unb64(cases["enrolment-ok"]["enrolment"]["payload"]))
    assert shown[1] == json.loads(cases["combine-ok"]["shares"][0][1])
    assert shown[2] == json.loads(wire.unb64(cases["word-ok"]["word"]["payload"]))
