"""The receipt of one request as a document, its events, and what records them inside an enclave."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_case import GOOD, M, look
from strongroom import wire
from strongroom.attest.keyset import CHAT_SIGNATURE_ALGO, INFERENCE_RECEIPT_ALGO, KeyEntry, Keyset
from strongroom.errors import (
    BadField,
    BadInferenceReceipt,
    BadKeyset,
    BadSignature,
    NotCanonical,
    StrongroomError,
    TooLarge,
)
from strongroom.inference import events, guard
from strongroom.inference.events import (
    MAX_TOKENS,
    ORDER,
    ModelWeights,
    Observability,
    Other,
    PolicyApplied,
    RequestForwarded,
    RequestReceived,
    RequestRefused,
    ResponseRestored,
    ResponseReturned,
    UpstreamVerified,
    Usage,
    UsageMetered,
    event_from_json,
)
from strongroom.inference.guard import Decision, Guard, GuardRun, Stage
from strongroom.inference.receipt import MAX_RECEIPT_BYTES, InferenceReceipt, ReceiptSigner
from strongroom.inference.recorder import BodyHash, Recorder
from strongroom.inference.verification import Reader

ID = "rcpt-" + "5a" * 16

# --- strategies -----------------------------------------------------------------------------------------------------

digests = st.binary(min_size=32, max_size=32).map(lambda raw: f"sha256:{raw.hex()}")
labels = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
words = st.from_regex(r"[a-z]([a-z0-9._ ]{0,20}[a-z0-9])?", fullmatch=True)
names = st.from_regex(r"[a-z0-9]([a-z0-9._-]{0,10}[a-z0-9])?", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
counts = st.integers(0, MAX_TOKENS)
usages = st.builds(Usage, counts, counts, counts)
runs = st.builds(GuardRun, st.builds(Guard, names, digests, st.sampled_from(Stage)), st.sampled_from(Decision))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-wire.MAX_INT, wire.MAX_INT) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
sizes = st.lists(st.integers(64, 16 << 20), max_size=4, unique=True).map(lambda found: tuple(sorted(found)))
some_guards = st.lists(runs, max_size=4, unique_by=lambda run: (run.guard.stage, run.guard.name)).map(
    lambda found: tuple(sorted(found, key=lambda run: run.guard.stage))
)
others = st.builds(
    lambda kind, members: Other.from_json({**members, "type": f"x.{kind}"}),
    labels,
    st.dictionaries(texts, json_values, max_size=3),
)
any_event = st.one_of(
    *(st.builds(kind, digests) for kind in (RequestReceived, RequestForwarded, ResponseReturned, ResponseRestored)),
    st.builds(ModelWeights, labels, digests, digests, digests),
    st.builds(UpstreamVerified, st.booleans(), texts, session_id=st.just("0f" * 32)),
    st.builds(UpstreamVerified, st.booleans(), texts, reason=texts, upstream_name=st.none() | texts),
    st.builds(PolicyApplied, digests, some_guards, sizes, st.sampled_from(Observability)),
    st.builds(UsageMetered, usages),
    st.builds(RequestRefused, words, words),
    others,
)
receipts = st.builds(
    InferenceReceipt,
    receipt_id=labels,
    chat_id=st.none() | labels,
    model=st.none() | texts,
    workload_keyset_digest=digests,
    endpoint=labels.map(lambda found: "/" + found),
    method=st.from_regex(r"[A-Z]{1,16}", fullmatch=True),
    served_at=st.integers(0, wire.MAX_INT),
    event_log=st.lists(any_event, min_size=1, max_size=6).map(tuple),
    key_id=labels,
    signature=st.binary(min_size=64, max_size=64),
)


# --- the document ---------------------------------------------------------------------------------------------------


@given(receipts)
def test_a_receipt_is_read_as_it_was_written(receipt: InferenceReceipt) -> None:
    data = receipt.encode()
    assert InferenceReceipt.parse(data) == receipt
    assert InferenceReceipt.parse(data).encode() == data
    loose = json.dumps(receipt.to_json(), indent=1, sort_keys=False).encode()
    assert InferenceReceipt.from_json(wire.loads(loose)).payload == receipt.payload


@settings(max_examples=300)
@given(receipts, st.data())
def test_a_mutated_receipt_is_refused_or_is_another_one(receipt: InferenceReceipt, data: st.DataObject) -> None:
    encoded = bytearray(receipt.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(encoded) - 1))
        if data.draw(st.booleans()):
            encoded[at] = data.draw(st.integers(0, 255))
        else:
            del encoded[at]
    try:
        found = InferenceReceipt.parse(bytes(encoded))
    except StrongroomError:
        return
    assert found.encode() == bytes(encoded)


@given(json_values)
def test_any_value_is_a_receipt_or_a_typed_error(value: Any) -> None:
    with pytest.raises(StrongroomError):
        InferenceReceipt.from_json(value)
    try:
        event = event_from_json(value)
    except StrongroomError:
        return
    assert event.to_json() == value


@given(any_event)
def test_an_event_is_read_as_it_was_written(event: events.Event) -> None:
    assert event_from_json(event.to_json()) == event


@given(any_event, st.data())
def test_a_known_event_with_a_member_more_or_less_is_refused(event: events.Event, data: st.DataObject) -> None:
    value = event.to_json()
    if isinstance(event, Other):
        return
    with pytest.raises(BadInferenceReceipt):
        event_from_json({**value, "more": None})
    gone = data.draw(st.sampled_from(sorted(set(value) - {"type", "upstream_name"})))
    with pytest.raises(BadInferenceReceipt):
        event_from_json({name: member for name, member in value.items() if name != gone})


@pytest.mark.parametrize(
    "changes",
    [
        {"signature": bytes(63)},
        {"event_log": (RequestReceived(M.of("a")),) * 65},
        {"event_log": ()},
        {"endpoint": "v1/models"},
        {"endpoint": "/" + "a" * 256},
        {"endpoint": "/a b"},
        {"method": "post"},
        {"receipt_id": ""},
        {"receipt_id": "a" * 129},
        {"receipt_id": "a\n"},
        {"key_id": " "},
        {"chat_id": ""},
        {"model": "m" * 257},
        {"workload_keyset_digest": "sha256:" + "AB" * 32},
        {"served_at": -1},
        {"served_at": 2**53},
        {"served_at": True},
    ],
    ids=str,
)
def test_no_receipt_is_made_that_could_not_be_read(changes: dict[str, Any]) -> None:
    with pytest.raises((BadField, BadInferenceReceipt)):
        replace(GOOD, **changes)


def named(n: int) -> Guard:
    return Guard(f"guard-{n}", M.of("a guard"), Stage.INPUT)


@pytest.mark.parametrize(
    "make",
    [
        lambda: RequestReceived("sha256:00"),
        lambda: ModelWeights("a b", M.of("a"), M.of("a"), M.of("a")),
        lambda: ModelWeights("a", M.of("a"), "none", M.of("a")),
        lambda: UpstreamVerified(True, "m"),
        lambda: UpstreamVerified(True, "m", session_id="ab" * 32, reason="why"),
        lambda: UpstreamVerified(True, "m", session_id="AB" * 32),
        lambda: UpstreamVerified(True, "m", session_id="ab" * 32, upstream_name="n"),
        lambda: Guard("Guard", M.of("a"), Stage.INPUT),
        lambda: Guard("guard", "a", Stage.INPUT),
        lambda: replace(M.POLICY, padding=((16 << 20) + 1,)),
        lambda: replace(M.POLICY, padding=(63,)),
        lambda: replace(M.POLICY, padding=(128, 64)),
        lambda: replace(M.POLICY, padding=tuple(range(64, 129))),
        lambda: replace(M.POLICY, policy="p"),
        lambda: replace(M.POLICY, guards=(M.ALLOWED[0],) * 2),
        lambda: replace(M.POLICY, guards=tuple(GuardRun(named(n), Decision.ALLOWED) for n in range(33))),
        lambda: Usage(prompt=-1),
        lambda: Usage(completion=2**53),
        lambda: Usage(embedding=True),
        lambda: UsageMetered(Usage(prompt=MAX_TOKENS + 1)),
        lambda: RequestRefused("Code", "step"),
        lambda: RequestRefused("code", "My name is Ann"),
        lambda: Other.from_json({"type": "request.received"}),
        lambda: Other.from_json({"type": "two words"}),
        lambda: Other.from_json({"type": "long", "x": "a" * events.MAX_OTHER_BYTES}),
    ],
)  # fmt: skip
def test_no_event_is_made_that_could_not_be_read(make: Callable[[], object]) -> None:
    with pytest.raises((BadField, BadInferenceReceipt)):
        make()


@pytest.mark.parametrize("value", [1.5, "\ud800", 2**53])
def test_an_event_of_another_type_holds_nothing_that_cannot_be_signed(value: object) -> None:
    with pytest.raises(NotCanonical):
        event_from_json({"type": "x", "x": value})


@given(receipts)
def test_what_is_signed_can_be_read(receipt: InferenceReceipt) -> None:
    names = ("receipt_id", "chat_id", "model", "endpoint", "method", "served_at", "event_log")
    signed = M.SIGNER.sign(**{name: getattr(receipt, name) for name in names})
    assert InferenceReceipt.parse(signed.encode()) == signed
    assert len(signed.encode()) == len(signed.payload) + len(',"signature":""') + 128
    signed.check_signature(M.KEYSET)


def test_a_receipt_too_large_to_be_read_is_not_signed() -> None:
    big = tuple(Other.from_json({"n": n, "type": "x", "x": "a" * 16_000}) for n in range(20))
    with pytest.raises(TooLarge):
        M.sign((*M.SERVED[:3], *big, *M.SERVED[3:]))
    assert sum(len(event.canonical) for event in big) > MAX_RECEIPT_BYTES


def test_the_order_of_events_is_whole() -> None:
    kinds = {
        kind.TYPE for kind in vars(events).values() if isinstance(kind, type) and isinstance(vars(kind).get("TYPE"), str)
    }
    assert kinds == set(ORDER)
    assert set(guard.Stage) == {"input", "output"}


# --- the key --------------------------------------------------------------------------------------------------------


def test_the_identity_of_a_receipt_is_what_was_signed() -> None:
    value = GOOD.to_json()
    signature = value.pop("signature")
    assert GOOD.payload == wire.encode(value)
    assert GOOD.digest == wire.digest(wire.encode(value))
    M.RECEIPT_KEY.public.verify_bytes(bytes.fromhex(str(signature)), wire.encode(value))
    assert replace(GOOD, signature=bytes(64)).digest == GOOD.digest


def test_a_signer_has_the_keysets_own_key_and_shows_none() -> None:
    assert ReceiptSigner(M.KEYSET, M.RECEIPT_KEY).key_id == "inference-1"
    assert M.RECEIPT_KEY.seed.hex() not in repr(M.SIGNER)
    assert "SigningKey" not in repr(M.SIGNER)
    for key in (M.CHAT_KEY, M.make_attest.RECEIPT_KEY, M.OTHER_KEY):  # of other roles, and of none
        with pytest.raises(BadKeyset):
            ReceiptSigner(M.KEYSET, key)


def test_a_key_of_another_role_or_an_unusable_one_signs_no_receipt() -> None:
    weak = KeyEntry("weak", INFERENCE_RECEIPT_ALGO, (b"\x01" + bytes(31)).hex())
    keyset = replace(M.KEYSET, receipt_signing_keys=(*M.KEYSET.receipt_signing_keys, weak))
    for key_id in ("weak", "chat-1", "run-receipt-1", "release-1", "nobody"):
        with pytest.raises(BadKeyset):
            keyset.inference_receipt_key(key_id)
    with pytest.raises(BadSignature):
        replace(GOOD, served_at=1).check_signature(M.KEYSET)


def test_a_keyset_has_one_chat_signature_key_in_its_own_list() -> None:
    assert M.KEYSET.chat_signature_key == M.CHAT_KEY.public
    with pytest.raises(BadKeyset, match="0 keys"):
        _ = M.make_attest.KEYSET.chat_signature_key
    weak = KeyEntry("weak", CHAT_SIGNATURE_ALGO, (b"\x01" + bytes(31)).hex())
    with pytest.raises(BadKeyset, match="unusable"):
        _ = Keyset(0, (weak,)).chat_signature_key
    with pytest.raises(BadKeyset, match="not the key's own"):
        Keyset(0, e2ee_public_keys=(M.KEYSET.receipt_signing_keys[2],))


# --- the recorder ---------------------------------------------------------------------------------------------------


def recorder() -> Recorder:
    return Recorder(M.SIGNER, receipt_id=ID, endpoint="/v1/chat/completions", method="POST")


def serve(found: Recorder, request: bytes = M.CHAT) -> Recorder:
    """Everything up to the answer."""
    found.received(request)
    found.asked_for(M.WEIGHTS.name)
    found.chose(M.WEIGHTS)
    found.forwarded(request)
    return found


pieces = st.lists(st.binary(max_size=20), max_size=6)


@given(pieces, pieces, pieces)
def test_the_receipt_is_of_the_bytes_however_they_come_in_pieces(request, response, plain) -> None:
    found = recorder()
    for piece in request:
        found.received(piece)
    found.asked_for(M.WEIGHTS.name)
    found.chose(M.WEIGHTS)
    found.forwarded(b"".join(request))
    found.encrypts()
    for piece in plain:
        found.restored(piece)
    for piece in response:
        found.returned(piece)
    found.applied(M.POLICY)
    found.metered(M.USAGE)
    receipt = found.sign(served_at=M.AT + 60, chat_id="chatcmpl-1")
    bodies = M.Bodies(b"".join(request), b"".join(response), b"".join(plain))
    assert receipt.event_log == M.swap(
        M.SERVED,
        RequestReceived=RequestReceived(wire.digest(bodies.request)),
        RequestForwarded=RequestForwarded(wire.digest(bodies.request)),
        ResponseReturned=ResponseReturned(wire.digest(bodies.response)),
        ResponseRestored=ResponseRestored(wire.digest(bodies.restored)),
    )
    known = replace(M.KNOWN, asked=bodies.asked(), answered=bodies.answered())
    look(receipt.encode(), expected=known).require(Reader.CLIENT)


def test_what_is_recorded_of_the_good_exchange_is_its_receipt() -> None:
    found = serve(recorder())
    found.encrypts()
    for plain in M.STREAM:
        found.restored(plain)
    found.returned(M.SEALED)
    found.applied(M.POLICY)
    found.metered(M.USAGE)
    assert found.sign(served_at=M.AT + 60, chat_id="chatcmpl-1") == GOOD


def test_a_refusal_is_signed_with_whatever_was_recorded_by_then() -> None:
    found = recorder()
    found.received(M.CHAT)
    found.asked_for(M.WEIGHTS.name)
    found.refuse("inference.other_model", "choose model")
    found.returned(M.REFUSAL)
    assert found.sign(served_at=M.AT + 60, chat_id=None) == M.sign(M.REFUSED, chat_id=None)
    late = serve(recorder())
    late.returned(b"data: ")
    late.refuse("app.internal", "generate")
    receipt = late.sign(served_at=M.AT, chat_id=None)
    assert [event.TYPE for event in receipt.event_log] == [
        "request.received", "model.weights", "request.forwarded", "request.refused", "response.returned",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["x" * 257, "\ud800"])
def test_no_name_that_a_client_chooses_keeps_a_refusal_from_its_receipt(name: str) -> None:
    found = recorder()
    found.asked_for(name)
    found.refuse("inference.other_model", "choose model")
    assert InferenceReceipt.parse(found.sign(served_at=M.AT, chat_id=None).encode()).model is None
    with pytest.raises(BadInferenceReceipt):
        found.asked_for("another")


def test_events_of_other_types_stand_before_the_policy() -> None:
    found = serve(recorder())
    found.also(Other.from_json({"source": M.of("a"), "type": "source.cited"}))
    found.applied(M.POLICY)
    found.metered(M.USAGE)
    log = found.sign(served_at=M.AT + 60, chat_id=None).event_log
    assert isinstance(log[3], Other)
    assert log[4] == M.POLICY


@pytest.mark.parametrize("left_out", ["chose", "forwarded", "applied", "metered"])
def test_an_answer_is_not_signed_before_all_of_it_is_recorded(left_out: str) -> None:
    found = recorder()
    found.received(M.CHAT)
    steps: list[tuple[str, Callable[[], None]]] = [
        ("chose", lambda: found.chose(M.WEIGHTS)),
        ("forwarded", lambda: found.forwarded(M.CHAT)),
        ("applied", lambda: found.applied(M.POLICY)),
        ("metered", lambda: found.metered(M.USAGE)),
    ]
    with pytest.raises(BadInferenceReceipt):
        for name, step in steps:
            if name != left_out:
                step()
        found.sign(served_at=M.AT, chat_id=None)


def _signed(found: Recorder) -> Recorder:
    found.refuse("app.internal", "generate")
    found.sign(served_at=M.AT, chat_id=None)
    return found


@pytest.mark.parametrize(
    "misuse",
    [
        lambda r: serve(r).received(b"more"),
        lambda r: (r.returned(b""), r.received(b"more")),
        lambda r: (r.asked_for("a"), r.asked_for("b")),
        lambda r: (r.chose(M.WEIGHTS), r.chose(M.WEIGHTS)),
        lambda r: serve(r).chose(M.WEIGHTS),
        lambda r: r.forwarded(M.CHAT),
        lambda r: (serve(r).returned(b"a"), r.forwarded(b"more")),
        lambda r: (r.applied(M.POLICY), r.applied(M.POLICY)),
        lambda r: r.metered(M.USAGE),
        lambda r: (serve(r).metered(M.USAGE), r.metered(M.USAGE)),
        lambda r: (r.refuse("a", "b"), r.refuse("a", "b")),
        lambda r: r.restored(b"plain"),
        lambda r: (r.encrypts(), r.encrypts()),
        lambda r: (r.returned(b"a"), r.encrypts()),
        lambda r: _signed(r).returned(b"more"),
        lambda r: _signed(r).received(b"more"),
        lambda r: _signed(r).also(Other.from_json({"type": "x"})),
        lambda r: _signed(r).sign(served_at=M.AT, chat_id=None),
    ],
)
def test_what_is_recorded_out_of_its_turn_is_refused(misuse: Callable[[Recorder], object]) -> None:
    with pytest.raises(BadInferenceReceipt, match="out of its turn"):
        misuse(recorder())


def test_a_recorder_keeps_hashes_and_no_bytes() -> None:
    marker = b"my secret question"
    found = serve(recorder(), marker)
    found.returned(marker)
    kept = [getattr(found, name) for name in vars(found)]
    assert not any(marker in repr(value).encode() for value in kept)
    assert sum(isinstance(value, BodyHash) for value in kept) == 3


@given(pieces)
def test_a_body_is_hashed_as_it_passes(found: list[bytes]) -> None:
    body = BodyHash()
    for piece in found:
        body.update(piece)
    whole = b"".join(found)
    assert (body.digest, body.size) == (f"sha256:{hashlib.sha256(whole).hexdigest()}", len(whole))
