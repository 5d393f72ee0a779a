"""EHBP as others speak it, and sealed requests inside it: each thing that somebody on the way could do, by its name."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyhpke import AEADId, CipherSuite, KDFId, KEMId

from strongroom import ehbp, errors, wire
from strongroom.ehbp import (
    ENCAPSULATED_KEY_HEADER,
    RESPONSE_NONCE_HEADER,
    ClientExchange,
    EnclaveExchange,
    FrameReader,
    Padding,
    PrivateKey,
    PublicKey,
    Recipient,
    RequestHead,
    ResponseHead,
    SealedResponse,
    SeenKeys,
    Sender,
    Writer,
)
from strongroom.ehbp.exchange import MAX_FRAME_BYTES, _Response
from strongroom.ehbp.records import MAX_RECORD_BYTES, RECORD_BYTES
from strongroom.errors import (
    AfterEnd,
    BadField,
    BadKey,
    BadKeyConfig,
    BadPadding,
    BadResponseNonce,
    BodyTooLarge,
    EhbpError,
    FrameAltered,
    FrameTooLarge,
    KeyConfigMismatch,
    NoBody,
    NotEnded,
    Replayed,
    SeenKeysFull,
    StrongroomError,
    WireError,
    WrongKeyset,
    WrongRequest,
    WrongStatus,
    WrongTarget,
)

ROOT = Path(__file__).parents[1]


def _maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_ehbp", ROOT / "vectors" / "make_ehbp.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKER = _maker()
CASES = sorted((ROOT / "vectors" / "ehbp").glob("*.json"))
KEY, OTHER_KEY, HEAD, ANSWER, BODY, EVENTS = (
    MAKER.KEY,
    MAKER.OTHER_KEY,
    MAKER.HEAD,
    MAKER.ANSWER,
    MAKER.BODY,
    MAKER.EVENTS,
)
KEYSET, CONTRACT, SEED, NONCE = MAKER.KEYSET, MAKER.CONTRACT, MAKER.SEED, MAKER.NONCE
PADDING = Padding(MAKER.BUCKETS)
LIMIT = 1 << 20

Bodies = st.lists(st.binary(max_size=80), max_size=6)
Cuts = st.lists(st.integers(0, 1 << 12), max_size=12)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    """The same bytes in pieces, of which some may be empty."""
    at = sorted({0, len(data), *(c % (len(data) + 1) for c in cuts)})
    return [data[a:b] for a, b in pairwise(at)] or [data]


def outcome(make: Callable[[], Any], pieces: list[bytes]) -> tuple[str, bytes]:
    """The error's code, or ``ok`` and what came out."""
    try:
        reader = make()
        found = b"".join(reader.feed(piece) for piece in pieces)
        reader.end()
    except StrongroomError as error:
        return error.code, b""
    return "ok", found


def client(head: RequestHead = HEAD, *, seed: bytes = SEED, to: PublicKey = KEY.public, **more: Any) -> ClientExchange:
    return ClientExchange(to, head, seed=seed, **more)


def enclave(headers: Any, *, key: PrivateKey = KEY, seen: SeenKeys | None = None, **more: Any) -> EnclaveExchange:
    expected = {"method": HEAD.method, "path": HEAD.path, "contract": CONTRACT, "max_body": LIMIT} | more
    return EnclaveExchange(
        key, [headers[ENCAPSULATED_KEY_HEADER]], seen=SeenKeys(KEYSET) if seen is None else seen, **expected
    )


def asked(exchange: ClientExchange, body: bytes = BODY, **more: Any) -> EnclaveExchange:
    """The enclave's half, which has read the request."""
    found = enclave(exchange.request.headers, **more)
    assert found.feed(exchange.request.last(body)) == body
    found.end()
    return found


def answer(exchange: EnclaveExchange, *, status: int = 200, nonce: bytes = NONCE, **more: Any) -> Writer:
    return exchange.respond(status=status, content_type="text/event-stream", receipt_id="rcpt-0001", nonce=nonce, **more)


def answered(exchange: ClientExchange, headers: Any, *, status: int = 200, max_body: int = LIMIT) -> SealedResponse:
    return exchange.response([headers[RESPONSE_NONCE_HEADER]], status=status, max_body=max_body)


# --- the library under it ---------------------------------------------------------------------------------------------


def test_hpke_is_that_of_rfc_9180_appendix_a_1_1():
    suite = CipherSuite.new(KEMId.DHKEM_X25519_HKDF_SHA256, KDFId.HKDF_SHA256, AEADId.AES128_GCM)
    recipient = suite.kem.derive_key_pair(bytes.fromhex("6db9df30aa07dd42ee5e8181afdb977e538f5e1fec8a06223f33f7013e525037"))
    ephemeral = suite.kem.derive_key_pair(bytes.fromhex("7268600d403fce431561aef583ee1613527cff655c1343f29812e66706df3234"))
    info = b"Ode on a Grecian Urn"
    enc, sender = suite.create_sender_context(recipient.public_key, info=info, eks=ephemeral)
    context = suite.create_recipient_context(enc, recipient.private_key, info=info)
    assert enc.hex() == "37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431"
    for count, ciphertext in enumerate(
        (
            "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a",
            "af2d7e9ac9ae7e270f46ba1f975be53c09f8d875bdc8535458c2494e8a6eab251c03d0c22a56b8ca42c2063b84",
        )
    ):
        aad = b"Count-%d" % count
        assert sender.seal(b"Beauty is truth, truth beauty", aad).hex() == ciphertext
        assert context.open(bytes.fromhex(ciphertext), aad) == b"Beauty is truth, truth beauty"
    for label, exported in {
        b"": "3853fe2b4035195a573ffc53856e77058e15d9ea064de3e59f4961d0095250ee",
        b"\0": "2e8f0b54673c7029649d4eb9d5e33bf1872cf76d623ff164ac185da9e88c21a5",
        b"TestContext": "e9e43065102c3836401bed8c3c3c75ae46be1639869391d62c61f1ec7af54931",
    }.items():
        assert sender.export(label, 32).hex() == context.export(label, 32).hex() == exported


class Stream:
    """SHAKE128 of nothing, read piece by piece; each begins with its length."""

    def __init__(self) -> None:
        self.data = hashlib.shake_128().digest(1 << 19)
        self.at = 0

    def some(self) -> bytes:
        start, self.at = self.at + 1, self.at + 1 + self.data[self.at]
        return self.data[start : self.at]


def test_hpke_with_our_suite_is_that_of_the_published_vectors():
    # The working group's vector for kem 32, kdf 1, aead 2, in the short form in which Go's standard library carries it: the
    # first ciphertexts and exports for inputs from a stream of SHAKE128, hashed.
    suite = CipherSuite.new(KEMId.DHKEM_X25519_HKDF_SHA256, KDFId.HKDF_SHA256, AEADId.AES256_GCM)
    recipient = suite.kem.derive_key_pair(bytes.fromhex("dac33b0e9db1b59dbbea58d59a14e7b5896e9bdf98fad6891e99d1686492b9ee"))
    ephemeral = suite.kem.derive_key_pair(bytes.fromhex("2cd7c601cefb3d42a62b04b7a9041494c06c7843818e0ce28a8f704ae7ab20f9"))
    enc, sender = suite.create_sender_context(recipient.public_key, info=b"Ode on a Grecian Urn", eks=ephemeral)
    assert recipient.public_key.to_public_bytes().hex() == "430f4b9859665145a6b1ba274024487bd66f03a2dd577d7753c68d7d7d00c00c"
    assert enc.hex() == "6c93e09869df3402d7bf231bf540fadd35cd56be14f97178f0954db94b7fc256"
    source, sink = Stream(), hashlib.shake_128()
    for _ in range(1000):
        aad, plaintext = source.some(), source.some()
        sink.update(sender.seal(plaintext, aad))
    assert sink.hexdigest(16) == "1702e73e1e71705faa8241022af1deea"
    source, sink = Stream(), hashlib.shake_128()
    for size in range(1000):
        sink.update(sender.export(source.some(), size))
    assert sink.hexdigest(16) == "5cb678bf1c52afbd9afb58b8f7c1ced3"


def test_a_response_is_that_of_ehbps_own_vectors():
    secret, encapsulated, nonce = (bytes(range(32 * n, 32 * n + 32)) for n in range(3))
    frame = bytes.fromhex("0000002647e74d9a561b60ff42ac7ffbb4caf6b6d5ad0bb7621e41840d2ab7de7208ff7a59d0a2a482cc")
    assert _Response(secret, encapsulated, nonce).seal(b"hello from test vector") == frame
    reader = FrameReader(_Response(secret, encapsulated, nonce), max_bytes=LIMIT)
    assert reader.read(frame) == [b"hello from test vector"]


# --- vectors and page -------------------------------------------------------------------------------------------------


def test_there_are_vectors_and_they_are_those_that_their_script_writes():
    assert len(CASES) > 100
    assert {path.name: path.read_text() for path in CASES} == MAKER.written()


def test_every_refusal_has_a_vector_and_a_line_in_the_page():
    seen = {json.loads(path.read_bytes())["expect"] for path in CASES}
    page = (ROOT / "spec" / "ehbp.md").read_text()
    for code in errors.leaves():
        if code.startswith("ehbp."):
            assert code in seen or code == errors.RefusedInTheOpen.code  # which no reader of bytes raises: a client says it
            assert f"`{code}`" in page


def test_the_example_of_the_page_is_a_vector():
    page = (ROOT / "spec" / "ehbp.md").read_text()
    padded, stream = (
        json.loads((ROOT / "vectors" / "ehbp" / f"sealed-{name}.json").read_bytes())
        for name in ("request-padded", "response-stream")
    )
    for head in (padded["head"], stream["head"]):
        assert json.dumps(head, indent=2, sort_keys=True) in page
    assert padded["headers"][0] in page
    assert padded["body"] in page.replace("\n", "")
    assert f"`{ehbp.KEYSET_ALGO}`" in page
    for literal in (ehbp.MEDIA_TYPE, ehbp.KEYS_PATH, ehbp.KEYS_MEDIA_TYPE, ehbp.PROBLEM_MEDIA_TYPE, ehbp.PROBLEM_TYPE):
        assert literal in page


def key_config(case: dict[str, Any]) -> None:
    assert PublicKey.from_config(bytes.fromhex(case["config"])).raw.hex() == case["public_key"]


def request(case: dict[str, Any]) -> None:
    limits = {name: case[name] for name in ("max_bytes", "max_empty", "max_frame")}
    recipient = Recipient(PrivateKey(bytes.fromhex(case["private_key"])), ehbp.encapsulated_key(case["headers"]))
    reader = FrameReader(recipient, **limits)
    found = b"".join(reader.read(bytes.fromhex(case["body"])))
    reader.end()
    recipient.respond(NONCE)
    assert found.hex() == case["plaintext"]


def make_request(case: dict[str, Any]) -> None:
    sender = Sender(PublicKey(bytes.fromhex(case["public_key"])), seed=bytes.fromhex(case["seed"]))
    assert [sender.encapsulated_key.hex()] == case["headers"]
    assert b"".join(ehbp.frames(sender, map(bytes.fromhex, case["pieces"]))).hex() == case["body"]


def response(case: dict[str, Any]) -> None:
    nonce = ehbp.response_nonce(case["nonces"])
    opener = _Response(bytes.fromhex(case["exported_secret"]), bytes.fromhex(case["encapsulated_key"]), nonce)
    reader = FrameReader(opener, max_bytes=LIMIT)
    found = b"".join(reader.read(bytes.fromhex(case["body"])))
    reader.end()
    assert found.hex() == case["plaintext"]


def sealed_request(case: dict[str, Any]) -> None:
    seen = SeenKeys(case["keyset"], capacity=case["seen_capacity"])
    for key in case["seen"]:
        seen.add(bytes.fromhex(key))
    reader = EnclaveExchange(
        PrivateKey(bytes.fromhex(case["private_key"])), case["headers"], method=case["method"], path=case["path"],
        seen=seen, contract=case["contract"], max_body=case["max_body"],
    )  # fmt: skip
    found = reader.feed(bytes.fromhex(case["body"]))
    reader.end()
    assert found.hex() == case["plaintext"]
    assert reader.head is not None
    assert json.loads(reader.head.encode()) == case["head"]


def make_sealed_request(case: dict[str, Any]) -> None:
    exchange = ClientExchange(
        PublicKey(bytes.fromhex(case["public_key"])), RequestHead.parse(wire.encode(case["head"])),
        seed=bytes.fromhex(case["seed"]), padding=Padding(tuple(case["buckets"])),
    )  # fmt: skip
    assert [exchange.request.headers[ENCAPSULATED_KEY_HEADER]] == case["headers"]
    assert exchange.request.last(bytes.fromhex(case["plaintext"])).hex() == case["body"]


def sealed_response(case: dict[str, Any]) -> None:
    exchange = ClientExchange(
        PublicKey(bytes.fromhex(case["public_key"])), RequestHead.parse(wire.encode(case["request"])),
        seed=bytes.fromhex(case["seed"]),
    )  # fmt: skip
    reader = exchange.response(case["nonces"], status=case["status"], max_body=case["max_body"])
    found = reader.feed(bytes.fromhex(case["body"]))
    reader.end()
    assert found.hex() == case["plaintext"]
    assert reader.head is not None
    assert json.loads(reader.head.encode()) == case["head"]


def make_sealed_response(case: dict[str, Any]) -> None:
    head = ResponseHead.parse(wire.encode(case["head"]))
    request = Sender(KEY.public, seed=bytes.fromhex(case["request_seed"]))
    recipient = Recipient(PrivateKey(bytes.fromhex(case["private_key"])), request.encapsulated_key)
    recipient.open(request.seal(b"a request")[4:])
    nonce = bytes.fromhex(case["nonce"])
    writer = Writer(recipient.respond(nonce), head.encode(), Padding(tuple(case["buckets"])), {})
    made = [*(writer.write(bytes.fromhex(piece)) for piece in case["pieces"]), writer.last()]
    assert b"".join(made).hex() == case["body"]


OPERATIONS = {
    found.__name__.replace("_", " "): found
    for found in (
        key_config, request, make_request, response, sealed_request, make_sealed_request, sealed_response,
        make_sealed_response,
    )
}  # fmt: skip


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_vector(path):
    case = json.loads(path.read_bytes())
    found = "ok"
    try:
        OPERATIONS[case["operation"]](case)
    except StrongroomError as error:
        found = error.code
    assert found == case["expect"], case["description"]


# --- keys, headers, the problem ---------------------------------------------------------------------------------------


@given(st.binary(min_size=32, max_size=32))
def test_a_key_is_published_as_one_configuration(raw):
    public = PrivateKey(raw).public
    assert PublicKey.from_config(public.config()) == public
    assert len(public.config()) == 41


@given(st.binary(max_size=60))
def test_any_bytes_are_a_configuration_or_are_refused(data):
    try:
        found = PublicKey.from_config(data)
    except EhbpError:
        return
    assert data[1:41] == found.config()[1:]


def test_keys_of_another_length_are_refused():
    with pytest.raises(BadKeyConfig):
        PublicKey(bytes(31))
    with pytest.raises(BadKey):
        PrivateKey(bytes(33))
    with pytest.raises(ValueError, match="32 bytes"):
        Sender(KEY.public, seed=bytes(31))


def test_a_private_key_does_not_show_itself():
    assert KEY.raw.hex() not in repr(KEY)
    assert repr(KEY.raw) not in repr(KEY)


def test_the_problem_is_known_again_and_nothing_else_is():
    assert ehbp.is_problem(422, ehbp.PROBLEM_MEDIA_TYPE, ehbp.problem())
    assert ehbp.is_problem(422, "Application/Problem+JSON; charset=utf-8", ehbp.problem())
    assert not ehbp.is_problem(400, ehbp.PROBLEM_MEDIA_TYPE, ehbp.problem())
    assert not ehbp.is_problem(422, "application/json", ehbp.problem())
    other = (b"", b"[]", b"{}", b'{"type":"x"}', ehbp.problem()[:-1], ehbp.problem() + b" " * 4096)
    for body in (*other, b'{"type":"x",' + ehbp.problem()[1:]):
        assert not ehbp.is_problem(422, ehbp.PROBLEM_MEDIA_TYPE, body)


def test_a_nonce_of_another_length_is_refused():
    exchange = client()
    with pytest.raises(BadResponseNonce):
        answer(asked(exchange), nonce=bytes(12))


# --- frames -----------------------------------------------------------------------------------------------------------


class Bare:
    """Opens every frame as it is, so that any bytes reach the reader's own rules."""

    def open(self, ciphertext: bytes) -> bytes:
        if ciphertext[:1] == b"!":
            raise FrameAltered("as the test asks")
        return ciphertext


def bare(data: bytes, cuts: list[int], **limits: int) -> tuple[str, bytes]:
    reader = FrameReader(Bare(), **({"max_bytes": 60, "max_frame": 9, "max_empty": 2} | limits))

    class Joined:
        def feed(self, piece: bytes) -> bytes:
            return b"|".join(reader.read(piece))

        end = staticmethod(reader.end)

    code, found = outcome(Joined, cut(data, cuts))
    return code, found.replace(b"|", b"")


short_frames = st.lists(
    st.integers(0, 10).flatmap(lambda n: st.binary(min_size=n, max_size=n).map(lambda d: len(d).to_bytes(4, "big") + d)),
    max_size=12,
).map(b"".join)


@given(short_frames | st.binary(max_size=40), st.binary(max_size=3), Cuts)
def test_it_does_not_matter_how_bytes_are_cut(data, tail, cuts):
    assert bare(data + tail, cuts) == bare(data + tail, [])


def test_a_reader_repeats_its_error_and_takes_nothing_more():
    reader = FrameReader(Bare(), max_bytes=LIMIT)
    bad = (2).to_bytes(4, "big") + b"!x"
    with pytest.raises(FrameAltered) as first:
        reader.read(bad)
    for again in (lambda: reader.read(b"\0\0\0\1a"), reader.end):
        with pytest.raises(FrameAltered) as second:
            again()
        assert second.value is first.value
    assert reader.pending == 0


def test_a_long_frame_is_refused_before_it_arrives():
    reader = FrameReader(Bare(), max_bytes=1 << 40)
    with pytest.raises(FrameTooLarge):
        reader.read((MAX_FRAME_BYTES + 1).to_bytes(4, "big"))


@given(st.lists(st.binary(max_size=200), max_size=5), Cuts, st.integers(1, 64))
def test_plain_bodies_go_through(pieces, cuts, frame_bytes):
    sender = Sender(KEY.public, seed=SEED)
    recipient = Recipient(KEY, sender.encapsulated_key)
    reader = FrameReader(recipient, max_bytes=LIMIT)
    sent = b"".join(ehbp.frames(sender, pieces, frame_bytes=frame_bytes))
    assert b"".join(b"".join(reader.read(piece)) for piece in cut(sent, cuts)) == b"".join(pieces)
    reader.end()
    if not sent:
        with pytest.raises(NoBody):
            recipient.respond(NONCE)
        return
    back = b"".join(ehbp.frames(recipient.respond(NONCE), pieces, frame_bytes=frame_bytes))
    reader = FrameReader(sender.response(NONCE), max_bytes=LIMIT)
    assert b"".join(b"".join(reader.read(piece)) for piece in cut(back, cuts)) == b"".join(pieces)


def test_plain_ehbp_does_not_notice_what_sealed_requests_do():
    # The gaps that the page names, so that nobody believes them closed below the records.
    sender = Sender(KEY.public, seed=SEED)
    sent = [sender.seal(b"do "), sender.seal(b"not "), sender.seal(b"pay")]
    for body in (b"".join(sent[:1]), b"".join(sent)):
        reader = FrameReader(Recipient(KEY, sender.encapsulated_key), max_bytes=LIMIT)
        reader.read(body)
        reader.end()


@pytest.mark.parametrize("body", [b"hello", bytes(300_000)], ids=["short", "long"])
def test_the_client_of_ehbps_authors_is_understood_and_understands(body):
    import httpx
    from ehbp.identity import ServerIdentity
    from ehbp.transport import EHBPTransport

    def serve(request: httpx.Request) -> httpx.Response:
        recipient = Recipient(KEY, ehbp.encapsulated_key(request.headers.get_list(ENCAPSULATED_KEY_HEADER)))
        reader = FrameReader(recipient, max_bytes=LIMIT)
        found = b"".join(reader.read(request.read()))
        reader.end()
        sent = b"".join(ehbp.frames(recipient.respond(NONCE), [b"received: ", found]))
        return httpx.Response(200, headers={RESPONSE_NONCE_HEADER: NONCE.hex()}, content=sent)

    peer = ServerIdentity.unmarshal_public_config(KEY.public.config())
    assert PublicKey.from_config(peer.marshal_public_config()) == KEY.public
    with httpx.Client(transport=EHBPTransport(peer, inner=httpx.MockTransport(serve))) as their_client:
        assert their_client.post("http://enclave/v1/chat/completions", content=body).content == b"received: " + body


def test_the_client_of_ehbps_authors_knows_our_problem():
    import httpx
    from ehbp.errors import KeyConfigMismatchError
    from ehbp.identity import ServerIdentity
    from ehbp.transport import EHBPTransport

    def refuse(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(ehbp.PROBLEM_STATUS, headers={"content-type": ehbp.PROBLEM_MEDIA_TYPE}, content=ehbp.problem())

    peer = ServerIdentity.unmarshal_public_config(KEY.public.config())
    with (
        httpx.Client(transport=EHBPTransport(peer, inner=httpx.MockTransport(refuse))) as their_client,
        pytest.raises(KeyConfigMismatchError),
    ):
        their_client.post("http://enclave/v1/chat/completions", content=b"x")


# --- sealed: what goes through ----------------------------------------------------------------------------------------


@given(Bodies, Bodies, Cuts, st.sampled_from([None, PADDING, Padding.powers_of_two()]))
def test_an_exchange_goes_through_however_it_is_cut(request_pieces, answer_pieces, cuts, padding):
    exchange = client(padding=padding)
    reader = enclave(exchange.request.headers)
    sent = b"".join(exchange.request.frames(request_pieces))
    assert outcome(lambda: reader, cut(sent, cuts)) == ("ok", b"".join(request_pieces))
    assert reader.head == HEAD
    writer = answer(reader, padding=padding)
    back = b"".join([*(writer.write(piece) for piece in answer_pieces), writer.last()])
    found = answered(exchange, writer.headers)
    assert outcome(lambda: found, cut(back, cuts)) == ("ok", b"".join(answer_pieces))
    assert found.head == ANSWER
    assert exchange.request.headers["Content-Type"] == writer.headers["Content-Type"] == ehbp.MEDIA_TYPE


def test_a_body_of_many_records_goes_through_and_takes_no_more_memory():
    import tracemalloc

    exchange = client()
    reader = enclave(exchange.request.headers, max_body=16 << 20)
    piece, length = bytes(range(256)) * 1024, 0
    tracemalloc.start()
    for _ in range(64):
        for part in cut(exchange.request.write(piece), [70_000]):
            length += len(reader.feed(part))
    length += len(reader.feed(exchange.request.last()))
    reader.end()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert length == 16 << 20
    assert peak < 4 << 20


def test_a_stream_can_be_read_as_it_comes():
    exchange = client()
    writer = answer(asked(exchange))
    reader = answered(exchange, writer.headers)
    for event in EVENTS:
        assert reader.feed(writer.write(event)) == event
    assert not reader.whole
    assert reader.feed(writer.last()) == b""
    reader.end()
    assert reader.whole


def test_a_peer_that_knows_only_ehbp_carries_it():
    exchange = client()
    sent = exchange.request.last(BODY)
    reader = FrameReader(Recipient(KEY, exchange._sender.encapsulated_key), max_bytes=LIMIT)
    (record,) = reader.read(sent)
    reader.end()
    assert record.endswith(BODY)


# --- sealed: padding --------------------------------------------------------------------------------------------------


@given(st.binary(max_size=3000), st.binary(max_size=3000))
def test_padded_bodies_of_one_bucket_look_alike(one, two):
    sizes = []
    for body in (one, two):
        sent = client(padding=PADDING).request.last(body)
        assert len(sent) - 4 - 16 in PADDING.buckets
        sizes.append(len(sent))
    head = 4 + len(HEAD.encode())
    assert (sizes[0] == sizes[1]) == (
        PADDING.size(RECORD_BYTES + head + len(one)) == PADDING.size(RECORD_BYTES + head + len(two))
    )


@given(st.integers(0, 1 << 20))
def test_the_bucket_is_the_smallest_that_holds_it(wanted):
    found = Padding.powers_of_two().size(wanted)
    assert found >= wanted
    assert found == 1 << 10 or found < 2 * wanted


def test_a_body_longer_than_the_largest_bucket_is_several_records():
    exchange = client(padding=PADDING)
    reader = enclave(exchange.request.headers)
    body = bytes(100_000)
    sent = exchange.request.last(body)
    assert reader.feed(sent) == body
    assert len(sent) == 4 * (4 + 32768 + 16)


@pytest.mark.parametrize(
    "buckets",
    [(), (63, 1 << 15), (1 << 15, 1 << 14), (1 << 15, 1 << 15), (1 << 15, MAX_RECORD_BYTES + 1), (1024,)],
    ids=["none", "small", "descending", "twice", "large", "no-room-for-a-head"],
)
def test_buckets_that_cannot_be_are_refused(buckets):
    with pytest.raises(BadField):
        Padding(buckets)


def test_the_largest_bucket_goes_through():
    exchange = client(padding=Padding((MAX_RECORD_BYTES,)))
    sent = exchange.request.last(BODY)
    assert len(sent) == 4 + MAX_FRAME_BYTES
    reader = enclave(exchange.request.headers)
    assert reader.feed(sent) == BODY
    reader.end()


# --- sealed: attacks on the request -----------------------------------------------------------------------------------


def test_a_replayed_request_is_refused():
    exchange, seen = client(), SeenKeys(KEYSET)
    sent = exchange.request.last(BODY)
    assert enclave(exchange.request.headers, seen=seen).feed(sent) == BODY
    with pytest.raises(Replayed):
        enclave(exchange.request.headers, seen=seen).feed(sent)


def test_a_request_replayed_under_another_spelling_of_its_key_is_refused():
    # X25519 ignores the highest bit, so that this is the same point and the same shared secret; HPKE hashes the spelling.
    exchange, seen = client(), SeenKeys(KEYSET)
    sent = exchange.request.last(BODY)
    enclave(exchange.request.headers, seen=seen).feed(sent)
    raw = bytes.fromhex(exchange.request.headers[ENCAPSULATED_KEY_HEADER])
    spelled = {ENCAPSULATED_KEY_HEADER: MAKER.flip(raw, 31, 7).hex()}
    with pytest.raises(KeyConfigMismatch):
        enclave(spelled, seen=seen).feed(sent)


def test_a_request_replayed_to_another_address_is_refused():
    exchange = client()
    with pytest.raises(WrongTarget):
        enclave(exchange.request.headers, path="/v1/embeddings").feed(exchange.request.last(BODY))


def test_a_request_replayed_to_the_next_keyset_is_refused():
    exchange = client()
    sent = exchange.request.last(BODY)
    with pytest.raises(KeyConfigMismatch):
        enclave(exchange.request.headers, key=OTHER_KEY, seen=SeenKeys(MAKER.OTHER_KEYSET)).feed(sent)
    with pytest.raises(WrongKeyset):  # even by an enclave that kept its key for requests, which none may
        enclave(exchange.request.headers, seen=SeenKeys(MAKER.OTHER_KEYSET)).feed(sent)


def test_a_keyset_swapped_between_attestation_and_request_is_refused():
    exchange = client(replace(HEAD, keyset=MAKER.OTHER_KEYSET))
    with pytest.raises(WrongKeyset):
        enclave(exchange.request.headers).feed(exchange.request.last(BODY))


def test_what_is_refused_takes_no_place_among_the_keys_seen():
    seen = SeenKeys(KEYSET)
    for exchange, more in (
        (client(), {"path": "/other"}),
        (client(replace(HEAD, keyset=MAKER.OTHER_KEYSET)), {}),
        (client(to=OTHER_KEY.public), {}),
    ):
        with pytest.raises(EhbpError):
            enclave(exchange.request.headers, seen=seen, **more).feed(exchange.request.last(BODY))
    assert seen.count == 0


def test_a_request_that_means_no_contract_is_taken_under_any():
    exchange = client(replace(HEAD, contract=None))
    assert asked(exchange).whole
    assert asked(client(replace(HEAD, contract=None)), contract=None).whole


def pieces_of(exchange: ClientExchange) -> list[bytes]:
    return [exchange.request.write(BODY[:30]), exchange.request.write(BODY[30:60]), exchange.request.last(BODY[60:])]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("reordered", lambda p, o: [p[0], p[2], p[1]]),
        ("left out", lambda p, o: [p[0], p[2]]),
        ("repeated", lambda p, o: [p[0], p[1], p[1], p[2]]),
        ("of another request", lambda p, o: [p[0], o[1], p[2]]),
        ("end of another request", lambda p, o: [p[0], p[1], o[2]]),
        ("beginning of another request", lambda p, o: [o[0], p[1], p[2]]),
        ("first taken away", lambda p, o: p[1:]),
        ("last taken away", lambda p, o: p[:2]),
        ("all taken away", lambda p, o: []),
        ("cut", lambda p, o: [p[0], p[1], p[2][:-1]]),
        ("something after it", lambda p, o: [*p, o[2]]),
        ("empty frame in it", lambda p, o: [p[0], bytes(4), p[1], p[2]]),
    ],
)
def test_frames_moved_about_are_refused(name, change):
    exchange, other = client(), client(replace(HEAD, request_id=bytes(16)), seed=MAKER.OTHER_SEED)
    changed = change(pieces_of(exchange), pieces_of(other))
    code, found = outcome(lambda: enclave(exchange.request.headers), changed)
    assert code.startswith("ehbp."), name
    assert found == b""


@given(st.data())
def test_how_changed_bytes_are_cut_does_not_change_the_refusal(data):
    sent = b"".join(pieces_of(client()))
    headers = client().request.headers
    how = data.draw(st.sampled_from(["flip", "cut", "insert", "append"]))
    at = data.draw(st.integers(0, len(sent) - 1))
    more = data.draw(st.binary(min_size=1, max_size=30))
    changed = {
        "flip": MAKER.flip(sent, at),
        "cut": sent[:at],
        "insert": sent[:at] + more + sent[at:],
        "append": sent + more,
    }[how]
    code, _ = outcome(lambda: enclave(headers), [changed])
    assert code != "ok"
    assert outcome(lambda: enclave(headers), cut(changed, data.draw(Cuts)))[0] == code


@given(st.binary(max_size=300), Cuts)
def test_any_bytes_are_refused_with_an_error_of_ours(data, cuts):
    headers = client().request.headers
    code, _ = outcome(lambda: enclave(headers), cut(data, cuts))
    assert code.startswith("ehbp.")


@given(st.lists(st.binary(max_size=300), max_size=4), Cuts)
def test_any_records_of_an_authentic_client_are_read_or_refused_with_an_error_of_ours(records, cuts):
    sender = Sender(KEY.public, seed=SEED)
    headers = {ENCAPSULATED_KEY_HEADER: sender.encapsulated_key.hex()}
    code, _ = outcome(lambda: enclave(headers), cut(b"".join(map(sender.seal, records)), cuts))
    assert code.startswith(("ehbp.", "wire."))


@given(st.binary(max_size=200))
def test_a_head_is_one_or_is_refused(data):
    for kind in (RequestHead, ResponseHead):
        with pytest.raises(WireError):
            kind.parse(data)


def test_heads_read_as_they_were_written():
    for head in (
        HEAD,
        ANSWER,
        replace(HEAD, content_type=None, accept=None, contract=None),
        replace(ANSWER, receipt_id=None),
    ):
        assert type(head).parse(head.encode()) == head


def test_every_flipped_bit_of_a_request_is_refused():
    exchange = client(padding=PADDING)
    sent = exchange.request.last(BODY)
    raw = bytes.fromhex(exchange.request.headers[ENCAPSULATED_KEY_HEADER])
    for at in range(len(raw)):
        headers = {ENCAPSULATED_KEY_HEADER: MAKER.flip(raw, at, at % 8).hex()}
        assert outcome(lambda headers=headers: enclave(headers), [sent])[0].startswith("ehbp.")
    for at in range(len(sent)):
        changed = MAKER.flip(sent, at, at % 8)
        assert outcome(lambda: enclave(exchange.request.headers), [changed])[0].startswith("ehbp.")


def test_padding_that_says_something_is_refused():
    item = MAKER.record(MAKER.headed(HEAD.encode()), padding=bytes(200_000))
    for at in (len(item) - 1, len(item) - 100_000, len(item) - 200_000):
        sender = Sender(KEY.public, seed=SEED)
        headers = {ENCAPSULATED_KEY_HEADER: sender.encapsulated_key.hex()}
        with pytest.raises(BadPadding):
            enclave(headers).feed(sender.seal(MAKER.flip(item, at)))


def test_a_flood_of_padding_ends():
    exchange = client(padding=PADDING)
    reader = enclave(exchange.request.headers, max_body=0, max_wire=10_000)
    with pytest.raises(BodyTooLarge):
        for _ in range(20):
            reader.feed(exchange.request.write(b""))


def test_the_media_type_says_nothing_that_the_bytes_do_not():
    # Taken away: who reads plain EHBP finds a record, which no body of an inference route begins like.
    exchange = client()
    sent = exchange.request.last(BODY)
    plain = FrameReader(Recipient(KEY, exchange._sender.encapsulated_key), max_bytes=LIMIT).read(sent)
    with pytest.raises(errors.NotJson):
        wire.loads(plain[0])
    # Put there: who reads records finds none.
    sender = Sender(KEY.public, seed=SEED)
    with pytest.raises(errors.BadRecord):
        enclave({ENCAPSULATED_KEY_HEADER: sender.encapsulated_key.hex()}).feed(sender.seal(BODY))


def test_after_an_error_nothing_comes_out():
    exchange = client()
    reader = enclave(exchange.request.headers, max_body=10)
    with pytest.raises(BodyTooLarge) as first:
        reader.feed(exchange.request.write(BODY))
    for again in (lambda: reader.feed(exchange.request.last()), reader.end):
        with pytest.raises(BodyTooLarge) as second:
            again()
        assert second.value is first.value
    assert not reader.whole


def test_bytes_after_the_end_are_refused_also_when_they_come_late():
    exchange = client()
    reader = enclave(exchange.request.headers)
    assert reader.feed(exchange.request.last(BODY)) == BODY
    with pytest.raises(AfterEnd):
        reader.feed(b"\0")
    with pytest.raises(AfterEnd):
        reader.end()


# --- sealed: attacks on the response ----------------------------------------------------------------------------------


def test_the_response_to_another_request_is_refused():
    one, two = client(), client(replace(HEAD, request_id=bytes(16)), seed=MAKER.OTHER_SEED)
    asked(one)
    writer = answer(asked(two))
    with pytest.raises(FrameAltered):
        answered(one, writer.headers).feed(writer.last(b"for the other"))


def test_a_response_that_names_another_request_is_refused():
    exchange = client()
    reader = asked(exchange)
    assert reader.head is not None
    reader.head = replace(reader.head, request_id=bytes(16))
    writer = answer(reader)
    with pytest.raises(WrongRequest):
        answered(exchange, writer.headers).feed(writer.last())


def test_a_response_cut_at_a_frame_is_refused():
    exchange = client()
    writer = answer(asked(exchange))
    reader = answered(exchange, writer.headers)
    reader.feed(writer.write(b"all is "))
    with pytest.raises(NotEnded):
        reader.end()


def test_a_refusal_turned_into_a_success_is_refused():
    exchange = client()
    writer = answer(asked(exchange), status=403)
    with pytest.raises(WrongStatus):
        answered(exchange, writer.headers, status=200).feed(writer.last(b"no"))


def test_an_answer_without_encryption_is_refused():
    with pytest.raises(BadResponseNonce):
        client().response([], status=200, max_body=LIMIT)


def test_the_request_sent_back_as_its_response_is_refused():
    exchange = client()
    sent = exchange.request.last(BODY)
    nonce = exchange.request.headers[ENCAPSULATED_KEY_HEADER]
    with pytest.raises(FrameAltered):
        exchange.response([nonce], status=200, max_body=LIMIT).feed(sent)


def test_every_flipped_bit_of_a_response_is_refused():
    exchange = client()
    writer = answer(asked(exchange), padding=PADDING)
    sent = writer.last(b"".join(EVENTS))
    for at in range(32):
        headers = {RESPONSE_NONCE_HEADER: MAKER.flip(NONCE, at, at % 8).hex()}
        assert outcome(lambda headers=headers: answered(exchange, headers), [sent])[0].startswith("ehbp.")
    for at in range(len(sent)):
        changed = MAKER.flip(sent, at, at % 8)
        assert outcome(lambda: answered(exchange, writer.headers), [changed])[0].startswith("ehbp.")


# --- sealed: what an enclave may answer -------------------------------------------------------------------------------


def test_a_request_of_which_nothing_was_accepted_gets_no_sealed_answer():
    exchange = client()
    reader = enclave(exchange.request.headers)
    with pytest.raises(NoBody):
        answer(reader, status=400)


def test_a_request_that_is_not_whole_gets_a_refusal_and_no_success():
    exchange = client()
    reader = enclave(exchange.request.headers)
    reader.feed(exchange.request.write(BODY))
    with pytest.raises(NotEnded):
        reader.end()
    with pytest.raises(NotEnded):
        answer(reader, status=200)
    writer = answer(reader, status=400)
    found = answered(exchange, writer.headers, status=400)
    assert found.feed(writer.last(b"cut short")) == b"cut short"
    found.end()


def test_an_exchange_has_one_answer():
    reader = asked(client())
    answer(reader)
    with pytest.raises(ValueError, match="one answer"):
        answer(reader, nonce=bytes(32))


LIKELY = {"status": 200, "content_type": "text/event-stream", "receipt_id": "rcpt-0001", "nonce": NONCE}


def test_an_answer_that_was_prepared_is_the_same():
    exchange, again = client(), client()
    reader, other = asked(exchange), asked(again)
    reader.prepare(**LIKELY)
    ready, made = answer(reader, nonce=None), answer(other)
    assert ready.headers == made.headers
    assert [ready.write(b"a"), ready.last(b"b")] == [made.write(b"a"), made.last(b"b")]


@pytest.mark.parametrize("padding", [None, Padding.powers_of_two()])
def test_an_answer_that_was_prepared_for_success_can_be_a_refusal(padding):
    exchange = client()
    reader = asked(exchange)
    reader.prepare(**LIKELY)
    writer = answer(reader, status=503, nonce=None, padding=padding)
    found = answered(exchange, writer.headers, status=503)
    assert found.feed(writer.write(b"no") + writer.write(b"") + writer.last()) == b"no"
    found.end()
    assert found.head.status == 503


def test_an_answer_is_prepared_once_and_given_once_whatever_its_nonce():
    reader = asked(client())
    with pytest.raises(ValueError, match="nothing was prepared"):
        answer(reader, nonce=None)
    reader.prepare(**LIKELY)
    with pytest.raises(ValueError, match="one answer"):
        reader.prepare(**LIKELY)
    with pytest.raises(ValueError, match="one answer"):
        answer(reader, nonce=bytes(32))
    answer(reader, nonce=None)
    for nonce in (None, NONCE):
        with pytest.raises(ValueError, match=r"one answer|asked for before"):
            answer(reader, nonce=nonce)


def test_nothing_is_prepared_for_a_request_of_which_nothing_was_accepted():
    exchange = client()
    with pytest.raises(NoBody):
        enclave(exchange.request.headers).prepare(**LIKELY)


def test_what_was_prepared_for_a_request_that_is_not_whole_is_no_success():
    exchange = client()
    reader = enclave(exchange.request.headers)
    reader.feed(exchange.request.write(b"half"))
    reader.prepare(**LIKELY)
    with pytest.raises(NotEnded):
        answer(reader, nonce=None)


def test_a_body_has_one_end():
    writer = client().request
    writer.last(BODY)
    for again in (writer.write, writer.last):
        with pytest.raises(ValueError, match="last record"):
            again(b"more")


def test_heads_that_the_other_side_would_refuse_are_not_sent():
    for head in (replace(HEAD, path="/a b"), replace(HEAD, path="/é"), replace(HEAD, request_id=b"")):
        with pytest.raises(WireError):
            client(head)
    with pytest.raises(WireError):
        asked(client()).respond(status=99, content_type=None, receipt_id=None, nonce=NONCE)


# --- the keys seen ----------------------------------------------------------------------------------------------------


def test_a_full_memory_of_keys_refuses_everything_and_says_what_to_do():
    seen = SeenKeys(KEYSET, capacity=2)
    seen.add(bytes(32))
    with pytest.raises(Replayed):
        seen.add(bytes(32))
    seen.add(bytes([1] * 32))
    for key in (bytes(32), bytes([2] * 32)):
        with pytest.raises(SeenKeysFull) as found:
            seen.add(key)
        assert "rotate" in found.value.hint
    assert seen.count == seen.capacity == 2


def test_of_many_that_bring_one_key_at_once_one_is_taken():
    seen, taken, barrier = SeenKeys(KEYSET), [], threading.Barrier(8)
    keys = [MAKER.seed(f"key {n}") for n in range(200)]

    def bring() -> None:
        barrier.wait()
        for key in keys:
            try:
                seen.add(key)
            except Replayed:
                continue
            taken.append(key)

    threads = [threading.Thread(target=bring) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(keys)
    assert seen.count == 200


@settings(max_examples=30)
@given(st.lists(st.sampled_from([MAKER.seed(f"key {n}") for n in range(8)]), max_size=20))
def test_every_key_counts_once(keys):
    seen, known = SeenKeys(KEYSET, capacity=6), set()
    for key in keys:
        if len(known) == 6:
            with pytest.raises(SeenKeysFull):
                seen.add(key)
        elif key in known:
            with pytest.raises(Replayed):
                seen.add(key)
        else:
            seen.add(key)
            known.add(key)
        assert seen.count == len(known)
