"""The exchange at its door: nonsense is refused, uploads are whole or not there, and strangers can heap up nothing."""

from __future__ import annotations

import asyncio
import io
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from stage import in_process
from strongroom import wire
from strongroom.app.exchange.client import ExchangeClient
from strongroom.app.exchange.entry import ENTRY_TYPE
from strongroom.app.exchange.server import exchange
from strongroom.app.http import Client
from strongroom.app.stores.exchange import ExchangeStore
from strongroom.asset import Manifest, sign_manifest, unseal
from strongroom.contract import Contract, Withdrawal
from strongroom.errors import (
    BadReceipt,
    Conflict,
    ManifestMismatch,
    NoSpace,
    NotCanonical,
    TooLarge,
    Truncated,
    WrongKey,
)
from strongroom.ledger import Entry
from strongroom.party import SigningKey
from strongroom.receipt import Bundle
from strongroom.wire import Envelope
from world import LOG, NOW, PLAINTEXTS, RUN, Forger, World, broker_key, card, keys_of, seed, sign_all

NOBODY = wire.digest(b"nobody knows this")
LAB, HOSPITAL, MALLORY = (keys_of(n).signing.public.keyid for n in ("lab", "hospital", "mallory"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ExchangeStore]:
    found = ExchangeStore(tmp_path / "exchange", LOG)
    yield found
    found.close()


@pytest.fixture
def web(store: ExchangeStore) -> Iterator[httpx.Client]:
    with in_process(exchange(store)) as found:
        yield found


@pytest.fixture
def there(store: ExchangeStore, web: httpx.Client) -> ExchangeClient:
    """The same exchange, as our own clients ask it."""
    return ExchangeClient(Client("http://role", transport=web._transport))


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def contract(there: ExchangeClient, world: World) -> Contract:
    """A contract that is on the exchange with both signatures."""
    agreed = world.agree()
    proposal = agreed.proposal
    lab, hospital = (proposal.sign(keys_of(n)) for n in ("lab", "hospital"))
    there.propose(proposal.envelope([lab]))
    there.approve(proposal, (hospital,))
    return agreed


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def files(store: ExchangeStore) -> set[str]:
    return {f"{p.parent.name}/{p.name}" for kind in ("sealed", "mock", "output") for p in (store.folder / kind).iterdir()}


def upload(there: ExchangeClient, digest: str, data: bytes) -> None:
    """Upload a sealed file, which lies on a disk."""
    with tempfile.TemporaryFile() as source:
        source.write(data)
        source.seek(0)
        there.put_sealed(digest, source)


def put_manifest(there: ExchangeClient, envelope: Envelope, name: str = "hospital") -> None:
    """Publish the data's manifest, as its owner does."""
    there.put_manifest(envelope, keys_of(name).signing.public)


def put_asset(there: ExchangeClient, world: World, role: str = "data") -> tuple[Manifest, bytes]:
    manifest, envelope, sealed, _ = world.assets[role]
    put_manifest(there, envelope)
    upload(there, manifest.digest, sealed)
    return manifest, sealed


# --- every route, with what it must not take --------------------------------------------------------------------------

DIGESTS = ["/v1/manifests/{}", "/v1/sealed/{}", "/v1/mocks/{}", "/v1/outputs/{}", "/v1/proposals/{}", "/v1/receipts/{}"]
DIGESTS += ["/v1/proposals/{}/deliveries", "/v1/proposals/{}/notes"]
BODIES = [
    ("PUT", f"/v1/manifests/{NOBODY}"),
    ("POST", "/v1/proposals"),
    ("POST", f"/v1/proposals/{NOBODY}/approvals"),
    ("POST", f"/v1/proposals/{NOBODY}/withdrawals"),
    ("POST", f"/v1/proposals/{NOBODY}/notes"),
    ("POST", "/v1/deliveries"),
    ("POST", "/v1/receipts"),
    ("POST", "/v1/log/entries"),
]


@pytest.mark.parametrize("path", DIGESTS)
@pytest.mark.parametrize(
    "digest",
    [
        "sha256:",
        "sha256:" + "0" * 63,
        "sha256:" + "0" * 65,
        "sha256:" + "A" * 64,
        "sha512:" + "0" * 64,
        "0" * 64,
        "..",
        "%2e%2e",
        "..%2f..%2fexchange.db",
        "sha256:..%2f..%2f..%2fexchange.db",
        "sha256:" + "0" * 63 + "%00",
        "sha256:" + "0" * 64 + "%0a",
        "%F0%9F%94%92",
    ],
)
def test_what_is_no_digest_names_nothing(web, path, digest):
    answer = web.get(path.format(digest), params={"by": LAB})
    assert code(answer) in {(400, "wire.bad_field"), (404, "app.not_found"), (405, "app.usage")}


@pytest.mark.parametrize("path", [*DIGESTS[:4], DIGESTS[4], DIGESTS[5]])
def test_what_is_not_here_is_not_found(web, path):
    assert code(web.get(path.format(NOBODY), params={"by": LAB})) == (404, "app.not_found")


@pytest.mark.parametrize(("method", "path"), BODIES)
@pytest.mark.parametrize(
    "body", [b"", b"{", b"null", b"[]", b"{}", b"\xff", b'{"a": 1}', b'{"a":1.5}', b'{"a":1,"a":1}', b"[" * 10_000]
)
def test_a_body_that_is_no_document_is_refused(web, store, method, path, body):
    answer = web.request(method, path, content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"].startswith("wire.")
    assert (files(store), store.checkpoint().size) == (set(), 0)


@pytest.mark.parametrize(("method", "path"), BODIES)
def test_a_body_that_is_too_large_is_refused(web, method, path):
    size = (17 << 20) if path == "/v1/receipts" else (1 << 20) + 1
    assert code(web.request(method, path, content=b" " * size)) == (413, "wire.too_large")


@pytest.mark.parametrize(("method", "path"), BODIES)
def test_a_document_of_another_type_is_refused(web, world, method, path):
    envelope = SigningKey(seed("x")).sign("application/vnd.strongroom.nothing.v1+json", b"{}")
    assert code(web.request(method, path, content=envelope.encode()))[0] in {400, 404}


@pytest.mark.parametrize("path", ["/v1/health", "/v1/manifests", "/v1/proposals", "/v1/log/checkpoint", "/v1/deliveries"])
def test_a_wrong_method_is_refused(web, path):
    assert code(web.request("DELETE", path)) == (405, "app.usage")


@pytest.mark.parametrize("path", ["/", "/v1", "/v2/health", "/v1/log", "/v1/sealed/", "/v1//health", "/v1/nodes"])
def test_nothing_else_is_there(web, path):
    assert code(web.get(path)) == (404, "app.not_found")


@pytest.mark.parametrize(
    "query", ["", "?old=1", "?old=a&new=1", "?old=-1&new=1", "?old=1&new=1e3", "?old=0&new=" + "9" * 30]
)
def test_a_consistency_proof_is_asked_for_with_two_numbers(web, query):
    assert code(web.get("/v1/log/consistency" + query)) == (400, "wire.bad_field")


def test_proofs_and_entries_beyond_the_log_are_refused(web):
    assert code(web.get("/v1/log/consistency?old=0&new=1")) == (400, "ledger.not_logged")
    assert code(web.get("/v1/log/consistency?old=1&new=0")) == (400, "ledger.not_logged")
    assert code(web.get("/v1/log/entries?start=0&end=1001")) == (409, "app.conflict")
    assert web.get("/v1/log/entries?start=5&end=0").json() == []
    assert web.get("/v1/log/entries?start=0&end=1000").json() == []


def test_the_exchange_says_what_it_is(web):
    assert web.get("/v1/health").json() == {"log": LOG.verifier.vkey, "role": "exchange"}


# --- assets -----------------------------------------------------------------------------------------------------------


def test_an_asset_comes_back_as_it_went(there, store, world):
    manifest, sealed = put_asset(there, world)
    assert there.manifest(manifest.digest, HOSPITAL) == world.assets["data"][1]
    assert [e.digest for e in there.manifests([HOSPITAL])] == [manifest.digest]
    source = there.sealed(manifest.digest)
    assert (source.size, source.read_at(0, 10**6)) == (len(sealed), sealed)
    plain = io.BytesIO()
    unseal(source, manifest, world.assets["data"][3], plain)
    assert plain.getvalue() == PLAINTEXTS["data"]
    with pytest.raises(WrongKey):
        unseal(source, manifest, world.assets["model"][3], io.BytesIO())


def test_the_same_manifest_twice_is_one(there, world):
    put_asset(there, world)
    put_manifest(there, world.assets["data"][1])
    assert len(there.manifests([HOSPITAL])) == 1


def test_a_manifest_under_anothers_address_is_refused(web, world):
    envelope = world.assets["data"][1]
    other = world.assets["model"][0].digest
    assert code(web.put(f"/v1/manifests/{other}", content=envelope.encode())) == (400, "asset.manifest_mismatch")


def test_a_sealed_file_without_its_manifest_is_refused(web, store, world):
    manifest, _, sealed, _ = world.assets["data"]
    assert code(web.put(f"/v1/sealed/{manifest.digest}", content=sealed)) == (404, "app.not_found")
    assert files(store) == set()


@pytest.mark.parametrize(
    ("alter", "expected"),
    [
        (lambda b: b[:-1], (400, "asset.truncated")),
        (lambda _: b"", (400, "asset.truncated")),
        (lambda b: b + b"x", (413, "wire.too_large")),
        (lambda b: b[:100] + bytes([b[100] ^ 1]) + b[101:], (400, "asset.chunk_altered")),
        (lambda b: b[:-1] + bytes([b[-1] ^ 1]), (400, "asset.trailer_altered")),
        (lambda b: b"x" * len(b), (400, "asset.not_sealed")),
        (lambda b: b[:40] + bytes([b[40] ^ 1]) + b[41:], (400, "asset.header_altered")),
    ],
)
def test_bytes_that_are_not_the_owners_cannot_take_their_place(web, there, store, world, alter, expected):
    manifest, envelope, sealed, _ = world.assets["data"]
    put_manifest(there, envelope)
    assert code(web.put(f"/v1/sealed/{manifest.digest}", content=alter(sealed))) == expected
    assert files(store) == set()
    upload(there, manifest.digest, sealed)
    assert len(files(store)) == 1


def test_another_assets_file_under_this_manifest_is_refused(web, there, store, world):
    manifest, envelope, sealed, _ = world.assets["data"]
    put_manifest(there, envelope)
    other = world.assets["model"][2]
    padded = (other + bytes(len(sealed)))[: len(sealed)]
    assert web.put(f"/v1/sealed/{manifest.digest}", content=padded).status_code == 400
    assert files(store) == set()


def test_a_file_is_never_replaced(there, store, world):
    manifest, sealed = put_asset(there, world)
    with pytest.raises(Conflict):
        upload(there, manifest.digest, sealed)
    assert there.sealed(manifest.digest).read_at(0, len(sealed)) == sealed


@pytest.mark.parametrize("kind", ["mocks", "outputs"])
def test_a_file_is_what_its_address_names(web, store, kind):
    data = b"as public as can be"
    assert code(web.put(f"/v1/{kind}/{NOBODY}", content=data)) == (400, "asset.manifest_mismatch")
    assert files(store) == set()
    assert web.put(f"/v1/{kind}/{wire.digest(data)}", content=data).status_code == 200
    assert web.get(f"/v1/{kind}/{wire.digest(data)}").content == data
    assert code(web.put(f"/v1/{kind}/{wire.digest(data)}", content=data)) == (409, "app.conflict")


def test_a_mock_has_a_largest_size(web, store, monkeypatch):
    monkeypatch.setattr("strongroom.app.exchange.server.MAX_MOCK", 10)
    assert code(web.put(f"/v1/mocks/{wire.digest(b'x' * 11)}", content=b"x" * 11)) == (413, "wire.too_large")
    assert files(store) == set()


@pytest.mark.parametrize("cut", [0, 1, 2000])
def test_an_upload_that_is_cut_off_leaves_nothing_behind(store, there, world, cut):
    manifest, envelope, sealed, _ = world.assets["data"]
    put_manifest(there, envelope)
    app = exchange(store)
    messages = [
        {"type": "http.request", "body": sealed[:cut], "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(_message: dict[str, Any]) -> None:
        raise AssertionError("nobody is there to be answered")

    path = f"/v1/sealed/{manifest.digest}"
    scope = {"type": "http", "method": "PUT", "path": path, "raw_path": path.encode(), "query_string": b"", "headers": []}
    asyncio.run(app(scope, receive, send))
    assert files(store) == set()
    upload(there, manifest.digest, sealed)


def test_what_a_killed_exchange_left_of_uploads_is_swept_away(store):
    (store.folder / "sealed" / "00.partial").write_bytes(b"half")
    (store.folder / "sealed" / "11").write_bytes(b"whole")
    store.sweep()
    assert files(store) == {"sealed/11"}


def test_an_upload_that_would_fill_the_disk_leaves_nothing_behind(tmp_path, world, monkeypatch):
    manifest, envelope, sealed, _ = world.assets["data"]
    full = ExchangeStore(tmp_path / "full", LOG)
    with in_process(exchange(full)) as web:
        put_manifest(ExchangeClient(Client("http://role", transport=web._transport)), envelope)
        monkeypatch.setattr(full, "_reserve", 1 << 60)
        for kind, digest, data in (
            ("sealed", manifest.digest, sealed),
            ("mocks", wire.digest(b"mock"), b"mock"),
            ("outputs", wire.digest(b"output"), b"output"),
        ):
            answer = web.put(f"/v1/{kind}/{digest}", content=data)
            assert code(answer) == (507, "app.no_space")
            assert "operator" in answer.json()["error"]["hint"]
        proposal = world.proposal()
        signed = proposal.envelope([proposal.sign(keys_of("lab"))])
        assert code(web.post("/v1/proposals", content=signed.encode())) == (507, "app.no_space")
        monkeypatch.setattr(full, "_reserve", 0)
        assert web.post("/v1/proposals", content=signed.encode()).status_code == 200
        monkeypatch.setattr(full, "_reserve", 1 << 60)  # the reserve is for what matters
        there = ExchangeClient(Client("http://role", transport=web._transport))
        there.approve(proposal, (proposal.sign(keys_of("hospital")),))
        there.withdraw(proposal.digest, Withdrawal(proposal.digest, "lab", NOW, "").sign(keys_of("lab").signing))
    assert files(full) == set()
    full.close()


def test_uploads_that_fill_the_disk_together_are_refused_on_the_way(web, store, monkeypatch):
    monkeypatch.setattr("strongroom.app.exchange.server.STRIDE", 2)
    asked: list[int] = []

    def fills(size: int) -> None:
        asked.append(size)
        if len(asked) > 2:
            raise NoSpace("the disk is full")

    monkeypatch.setattr(store, "require_space", fills)
    answer = web.put(f"/v1/mocks/{wire.digest(b'xxxxxx')}", content=iter([b"xx"] * 3))
    assert code(answer) == (507, "app.no_space")
    assert files(store) == set()


def test_an_output_has_a_largest_size(web, store, monkeypatch):
    monkeypatch.setattr("strongroom.app.exchange.server.MAX_OUTPUT", 10)
    assert code(web.put(f"/v1/outputs/{wire.digest(b'x' * 11)}", content=b"x" * 11)) == (413, "wire.too_large")
    assert files(store) == set()


# --- lists, and what strangers put on them ----------------------------------------------------------------------------


def put_with(web: httpx.Client, envelope: Envelope, key: str | None) -> tuple[int, str]:
    headers = {} if key is None else {"Strongroom-Signing-Key": key}
    return code(web.put(f"/v1/manifests/{envelope.digest}", content=envelope.encode(), headers=headers))


def test_a_garbage_signature_squats_no_manifest(web, there, world):
    manifest, envelope, _, _ = world.assets["data"]
    key = keys_of("hospital").signing.public
    garbage = replace(envelope, signatures=(replace(envelope.signatures[0], sig=bytes(64)),))
    foreign = sign_manifest(manifest, keys_of("mallory").signing)
    relabelled = replace(foreign, signatures=(replace(foreign.signatures[0], keyid=key.keyid),))
    for twisted in (garbage, foreign, relabelled, replace(envelope, signatures=())):
        assert put_with(web, twisted, wire.b64(key.raw)) == (400, "wire.bad_signature")
    for header, expected in (
        (None, "party.bad_key"),
        ("", "party.bad_key"),
        ("%", "wire.bad_field"),
        (wire.b64(bytes(32)), "party.bad_key"),
        (wire.b64(keys_of("mallory").signing.public.raw), "wire.bad_signature"),
    ):
        assert put_with(web, envelope, header) == (400, expected)
    assert there.manifests([HOSPITAL, MALLORY]) == []
    put_manifest(there, foreign, "mallory")  # a stranger's copy stands beside the owner's, under the stranger's own key
    put_manifest(there, envelope)
    assert there.manifest(manifest.digest, HOSPITAL) == envelope
    assert there.manifests([HOSPITAL, LAB]) == [envelope]


@pytest.mark.parametrize(("path", "query"), [("manifests", "by"), ("proposals", "among"), (f"manifests/{NOBODY}", "by")])
def test_a_list_is_asked_for_by_keys(web, path, query):
    for asked in (
        "",
        ",",
        "x",
        LAB + ",",
        LAB.upper(),
        ",".join(wire.digest(bytes([n, m])) for n in range(3) for m in range(200)),
    ):
        assert code(web.get(f"/v1/{path}", params={query: asked})) == (400, "wire.bad_field")
    assert code(web.get(f"/v1/{path}")) == (400, "wire.bad_field")


@pytest.mark.parametrize("window", [{"limit": "0"}, {"limit": "101"}, {"limit": "x"}, {"after": "-1"}, {"after": ""}])
def test_a_page_is_asked_for_with_numbers(web, window):
    for path, query in (("manifests", "by"), ("proposals", "among")):
        assert code(web.get(f"/v1/{path}", params={query: LAB, **window})) == (400, "wire.bad_field")


def test_a_strangers_proposals_are_on_nobodys_list(web, there, world, contract):
    """Else a hundred large ones make the list too large for everybody."""
    parties = tuple(card(n) for n in ("hospital", "lab", "mallory"))
    for n in range(3):
        large = world.proposal(proposer="mallory", parties=parties, nonce=seed(f"large {n}", 16).hex())
        there.propose(large.envelope([large.sign(keys_of("mallory"))]))
    assert [s.envelope.digest for s in there.proposals([LAB, HOSPITAL])] == [contract.digest]
    assert len(there.proposals([LAB, HOSPITAL, MALLORY])) == 4
    assert there.proposals([MALLORY]) == []


def test_a_long_list_comes_in_pages(web, there, world, monkeypatch):
    made = []
    for n in range(5):
        proposal = world.proposal(nonce=seed(f"page {n}", 16).hex())
        there.propose(proposal.envelope([proposal.sign(keys_of("lab"))]))
        made.append(proposal.digest)
    first = web.get("/v1/proposals", params={"among": f"{LAB},{HOSPITAL}", "limit": 2}).json()
    assert [wire.digest(wire.unb64(s["envelope"]["payload"])) for s in first["proposals"]] == made[:2]
    rest = web.get("/v1/proposals", params={"among": f"{LAB},{HOSPITAL}", "after": first["next"], "limit": 100}).json()
    assert (len(rest["proposals"]), rest["next"]) == (3, None)
    monkeypatch.setattr("strongroom.app.exchange.server.PAGE_BYTES", 1)  # every item fills a page
    assert len(web.get("/v1/proposals", params={"among": f"{LAB},{HOSPITAL}"}).json()["proposals"]) == 1
    assert [s.envelope.digest for s in there.proposals([LAB, HOSPITAL])] == made
    monkeypatch.setattr("strongroom.app.exchange.client.PAGE_ITEMS", 2)
    for role, name in (("data", "hospital"), ("model", "lab")):
        put_manifest(there, world.assets[role][1], name)
    assert there.manifests([LAB, HOSPITAL]) == [world.assets[r][1] for r in ("data", "model")]


# --- ranges (RFC 9110 section 14) -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "status", "part"),
    [
        ("bytes=0-9", 206, slice(0, 10)),
        ("bytes=5-5", 206, slice(5, 6)),
        ("bytes=-7", 206, slice(-7, None)),
        ("bytes=90-", 206, slice(90, None)),
        ("bytes=90-100000", 206, slice(90, None)),
        ("bytes=100-200", 416, None),
        ("bytes=9-5", 400, None),
        ("bytes=a-b", 400, None),
        ("bytes=", 400, None),
        ("lines=0-9", 400, None),
    ],
)
def test_a_range_is_what_was_asked_for_or_refused(web, asked, status, part):
    data = bytes(range(100))
    web.put(f"/v1/outputs/{wire.digest(data)}", content=data)
    answer = web.get(f"/v1/outputs/{wire.digest(data)}", headers={"range": asked})
    assert answer.status_code == status
    if part is not None:
        assert answer.content == data[part]
        assert int(answer.headers["content-length"]) == len(data[part])


def test_several_ranges_are_given_each_with_its_place(web):
    data = bytes(range(100))
    web.put(f"/v1/outputs/{wire.digest(data)}", content=data)
    answer = web.get(f"/v1/outputs/{wire.digest(data)}", headers={"range": "bytes=0-1,50-51"})
    assert answer.status_code == 206
    assert answer.headers["content-type"].startswith("multipart/byteranges")
    assert data[0:2] in answer.content
    assert b"content-range: bytes 50-51/100" in answer.content.lower()


def test_many_ranges_of_the_same_bytes_do_not_multiply_them(web):
    data = bytes(1000)
    web.put(f"/v1/outputs/{wire.digest(data)}", content=data)
    greedy = "bytes=" + ",".join(["0-999"] * 200)
    answer = web.get(f"/v1/outputs/{wire.digest(data)}", headers={"range": greedy})
    assert len(answer.content) < 3000


# --- contracts --------------------------------------------------------------------------------------------------------


def test_a_proposal_is_seen_with_what_happened_to_it(there, world, contract):
    seen = there.proposal(contract.digest)
    assert Contract.verify(seen.envelope).digest == contract.digest
    assert (seen.countered_by, seen.withdrawals, seen.receipts) == ((), (), ())
    assert [s.envelope.digest for s in there.proposals([LAB, HOSPITAL])] == [contract.digest]


def test_the_same_proposal_twice_is_one(there, world, contract):
    proposal = contract.proposal
    there.propose(proposal.envelope([proposal.sign(keys_of("lab"))]))
    there.approve(proposal, (proposal.sign(keys_of("hospital")),))
    assert len(there.proposals([LAB, HOSPITAL])) == 1
    assert there.checkpoint().size == 3


@pytest.mark.parametrize("signers", [(), ("hospital",), ("hospital", "lab")])
def test_a_proposal_comes_with_its_proposers_signature_and_no_other(web, world, signers):
    proposal = world.proposal()
    envelope = proposal.envelope(proposal.sign(keys_of(n)) for n in signers)
    assert code(web.post("/v1/proposals", content=envelope.encode())) == (400, "wire.bad_field")


def test_a_proposal_signed_by_a_stranger_is_refused(web, world):
    proposal = world.proposal()
    forged = proposal.envelope([keys_of("mallory").signing.signature("x", b"y")])
    assert code(web.post("/v1/proposals", content=forged.encode())) == (400, "contract.signature_from_stranger")


def test_an_approval_of_other_bytes_is_refused(web, there, world, contract):
    other = world.proposal(title="another")
    replayed = contract.proposal.sign(keys_of("hospital"))
    there.propose(other.envelope([other.sign(keys_of("lab"))]))
    path = f"/v1/proposals/{other.digest}/approvals"
    forged = code(web.post(path, content=other.envelope([replayed]).encode()))
    assert forged == (400, "contract.signature_invalid")
    moved = contract.proposal.envelope([replayed])
    assert code(web.post(path, content=moved.encode())) == (400, "wire.bad_field")
    assert code(web.post(path, content=other.envelope([]).encode())) == (400, "wire.bad_field")
    assert len(there.proposal(other.digest).envelope.signatures) == 1


def test_an_approval_of_what_nobody_proposed_is_refused(web, world):
    proposal = world.proposal()
    envelope = proposal.envelope([proposal.sign(keys_of("hospital"))])
    answer = web.post(f"/v1/proposals/{proposal.digest}/approvals", content=envelope.encode())
    assert code(answer) == (404, "app.not_found")


def counter(world: World, old: Contract, proposer: str, **changes: Any) -> Envelope:
    new = world.proposal(
        supersedes=old.digest, proposer=proposer, title="a counter", **{"nonce": seed(proposer, 16).hex(), **changes}
    )
    return new.envelope([new.sign(keys_of(proposer))])


def test_a_counter_is_shown_under_what_it_counters(there, world, contract):
    envelope = counter(world, contract, "hospital")
    there.propose(envelope)
    assert there.proposal(contract.digest).countered_by == (envelope.digest,)


def test_a_stranger_cannot_heap_counters_on_a_proposal(web, there, world, contract):
    parties = tuple(card(n) for n in ("hospital", "lab", "mallory"))
    envelope = counter(world, contract, "mallory", parties=parties)
    assert code(web.post("/v1/proposals", content=envelope.encode())) == (400, "contract.bad_proposal")
    assert there.proposal(contract.digest).countered_by == ()


def test_a_counter_to_what_is_not_here_is_refused(web, world):
    nowhere = sign_all(world.proposal(title="never proposed"))
    envelope = counter(world, nowhere, "hospital")
    assert code(web.post("/v1/proposals", content=envelope.encode())) == (404, "app.not_found")


def test_a_withdrawal_is_its_partys_own(web, there, world, contract):
    path = f"/v1/proposals/{contract.digest}/withdrawals"
    withdrawal = Withdrawal(contract.digest, "hospital", NOW, "")
    for key, payload, expected in (
        (keys_of("mallory").signing, withdrawal, "wire.bad_signature"),
        (keys_of("lab").signing, withdrawal, "wire.bad_signature"),
        (keys_of("mallory").signing, replace(withdrawal, party="mallory"), "contract.not_a_party"),
        (keys_of("hospital").signing, replace(withdrawal, contract=NOBODY), "wire.bad_field"),
    ):
        assert code(web.post(path, content=payload.sign(key).encode())) == (400, expected)
    assert there.proposal(contract.digest).withdrawals == ()
    there.withdraw(contract.digest, withdrawal.sign(keys_of("hospital").signing))
    there.withdraw(contract.digest, withdrawal.sign(keys_of("hospital").signing))
    assert len(there.proposal(contract.digest).withdrawals) == 1


# --- deliveries and receipts ------------------------------------------------------------------------------------------


@pytest.fixture
def bundle(world: World, contract: Contract) -> Bundle:
    """A receipt as the enclave brings it: not logged yet."""
    return replace(world.run(contract), proof=None)


def test_a_delivery_is_kept_beside_its_output(there, world, contract, bundle):
    there.record(bundle)
    for delivery, sealed in world.exchange.delivered:
        for _ in range(2):  # the answer was lost: again
            there.put_output(sealed)
            there.deliver(delivery)
    assert there.deliveries(contract.digest) == [d for d, _ in world.exchange.delivered]
    assert there.output(world.exchange.delivered[0][0].sealed).size == len(world.exchange.delivered[0][1])


def test_a_delivery_of_nothing_is_refused(web, there, world, contract, bundle):
    delivery, sealed = world.exchange.delivered[0]
    assert code(web.post("/v1/deliveries", content=delivery.encode())) == (404, "app.not_found")
    there.put_output(sealed)
    assert code(web.post("/v1/deliveries", content=delivery.encode())) == (400, "wire.bad_field")  # no receipt was logged
    there.record(bundle)
    for twisted, expected in (
        (replace(delivery, contract=NOBODY), (404, "app.not_found")),
        (replace(delivery, output="another"), (400, "wire.bad_field")),
        (replace(delivery, run_id="00" * 16), (400, "wire.bad_field")),
        (replace(delivery, manifest=replace(delivery.manifest, name="another")), (400, "wire.bad_field")),
        (replace(delivery, keys={"mallory": b"x"}), (400, "wire.bad_field")),
        (replace(delivery, keys={"lab": delivery.keys["lab"]}), (400, "wire.bad_field")),
    ):
        assert code(web.post("/v1/deliveries", content=twisted.encode())) == expected
    assert there.deliveries(contract.digest) == []


def test_a_receipt_is_logged_once_and_comes_back_with_its_proof(there, world, contract, bundle):
    logged = there.record(bundle)
    assert there.record(bundle).receipt == logged.receipt
    assert logged.proof is not None
    logged.proof.verify(logged.entry, [LOG.verifier])
    assert there.proposal(contract.digest).receipts == ((bundle.receipt.digest, RUN),)
    assert there.receipt(bundle.receipt.digest) == logged
    assert there.checkpoint().size == 4


def test_a_receipt_of_a_contract_that_is_not_here_is_refused(web, world, there):
    bundle = world.run(world.agree())
    assert code(web.post("/v1/receipts", content=bundle.encode())) == (404, "app.not_found")


def forged_statement(world: World, contract: Contract, **changes: Any) -> Bundle:
    """With the releases of the brokers, and a statement that says something else than the contract."""
    return replace(Forger.at_work(world, contract, **changes).bundle(), proof=None)


def test_a_stranger_cannot_make_up_a_run(there, web, world, contract, bundle):
    """Else anybody could have a contract counted as spent in everybody's eyes."""
    mallory = World()
    for broker in mallory.brokers.values():
        broker.owner = replace(broker.owner, broker=SigningKey(seed("mallory's broker")))
    forged = {
        "no releases": replace(bundle, releases=(), reports=()),
        "another's keyset": replace(
            bundle, receipt=SigningKey(seed("x")).sign(bundle.receipt.payload_type, bundle.receipt.payload)
        ),
        "releases by another": replace(
            bundle,
            releases=tuple(SigningKey(seed("x")).sign(e.payload_type, e.payload) for e in bundle.releases),
        ),
        "paid otherwise": forged_statement(world, contract, owed=()),
        "another output": forged_statement(world, contract, outputs=()),
        "not signed by all": replace(bundle, contract=replace(bundle.contract, signatures=bundle.contract.signatures[:1])),
    }
    for what, twisted in forged.items():
        answer = web.post("/v1/receipts", content=twisted.encode())
        assert code(answer) == (400, "receipt.not_verified"), what
    assert there.proposal(contract.digest).receipts == ()


# --- the log ----------------------------------------------------------------------------------------------------------


def post_entry(web: httpx.Client, entry: Entry, key: SigningKey) -> httpx.Response:
    return web.post("/v1/log/entries", content=key.sign(ENTRY_TYPE, entry.encode()).encode())


def test_a_broker_logs_what_it_decided(web, there, contract):
    entry = Entry("release", contract.digest, wire.digest(b"a release"))
    assert post_entry(web, entry, broker_key("hospital")).json() == {"index": 3}
    assert post_entry(web, entry, broker_key("hospital")).json() == {"index": 3}
    assert there.entries(3, 4) == [entry]


def test_nobody_else_logs_anything(web, there, contract):
    entry = Entry("release", contract.digest, wire.digest(b"a release"))
    assert code(post_entry(web, entry, broker_key("mallory"))) == (404, "app.not_found")
    assert code(post_entry(web, entry, keys_of("hospital").signing)) == (404, "app.not_found")
    assert code(post_entry(web, replace(entry, contract=NOBODY), broker_key("hospital"))) == (404, "app.not_found")
    assert code(post_entry(web, replace(entry, kind="receipt"), broker_key("hospital"))) == (400, "wire.bad_field")
    envelope = broker_key("hospital").sign(ENTRY_TYPE, entry.encode())
    unsigned = replace(envelope, signatures=())
    assert code(web.post("/v1/log/entries", content=unsigned.encode())) == (404, "app.not_found")
    moved = replace(envelope, payload=replace(entry, digest=NOBODY).encode())
    assert code(web.post("/v1/log/entries", content=moved.encode())) == (400, "wire.bad_signature")
    assert there.checkpoint().size == 3


def test_the_log_only_grows_and_shows_it(web, there, world, contract):
    earlier = LOG.verifier.verify(there.checkpoint())
    post_entry(web, Entry("refusal", contract.digest, NOBODY), broker_key("lab"))
    later = LOG.verifier.verify(there.checkpoint())
    there.consistency(earlier.size, later.size).verify(earlier, later)
    assert [e.kind for e in there.entries(0, later.size)] == ["proposal", "approval", "approval", "refusal"]


# --- our own client, with an exchange that answers something else ------------------------------------------------------


def lying(answers: dict[str, object]) -> ExchangeClient:
    def answer(request: httpx.Request) -> httpx.Response:
        found = answers[request.url.path]
        return found if isinstance(found, httpx.Response) else httpx.Response(200, content=found)

    return ExchangeClient(Client("http://role", transport=httpx.MockTransport(answer)))


def test_another_manifest_is_noticed(world):
    asked, given = world.assets["data"][0].digest, world.assets["model"][1]
    with pytest.raises(ManifestMismatch):
        lying({f"/v1/manifests/{asked}": given.encode()}).manifest(asked, HOSPITAL)


def test_another_proposal_is_noticed(world, there, contract):
    seen = there.client.get(f"/v1/proposals/{contract.digest}")
    with pytest.raises(wire.BadField, match="another proposal"):
        lying({f"/v1/proposals/{NOBODY}": seen}).proposal(NOBODY)


def test_another_receipt_is_noticed(bundle):
    with pytest.raises(BadReceipt, match="another receipt"):
        lying({f"/v1/receipts/{NOBODY}": bundle.encode()}).receipt(NOBODY)


@pytest.mark.parametrize("length", ["", "-1", "1.5", "9" * 16, "9" * 5000, "\u0663"])
def test_a_file_of_no_length_is_noticed(length):
    answer = httpx.Response(200, headers=[(b"content-length", length.encode())])
    with pytest.raises(wire.BadField, match="how long"):
        lying({f"/v1/sealed/{NOBODY}": answer}).sealed(NOBODY)


def test_a_range_that_is_not_what_was_asked_for_is_noticed(world):
    manifest, _, sealed, key = world.assets["data"]

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "HEAD":
            return httpx.Response(200, headers={"content-length": str(len(sealed))})
        return httpx.Response(200, content=sealed[:64])

    source = ExchangeClient(Client("http://role", transport=httpx.MockTransport(answer))).sealed(manifest.digest)
    assert source.read_at(len(sealed), 5) == source.read_at(0, 0) == b""
    with pytest.raises(Truncated):
        unseal(source, manifest, key, io.BytesIO())


@pytest.mark.parametrize("answer", [b"", b"{}", b"null", b'"x"', b"[1]", b'[{"a":1}]', b"[ ]", b"[[]]"])
@pytest.mark.parametrize("ask", ["manifests", "proposals", "deliveries", "entries"])
def test_a_list_that_is_none_is_noticed(ask, answer):
    there = lying({"/v1/manifests": answer, "/v1/proposals": answer, f"/v1/proposals/{NOBODY}/deliveries": answer,
                   "/v1/log/entries": answer})  # fmt: skip
    asked = {
        "deliveries": lambda: there.deliveries(NOBODY),
        "entries": lambda: there.entries(0, 1),
        "manifests": lambda: there.manifests([LAB]),
        "proposals": lambda: there.proposals([LAB]),
    }
    with pytest.raises((wire.BadField, wire.NotJson, NotCanonical)):
        asked[ask]()


@pytest.mark.parametrize("next_", [0, -1, True, "1", [], {}])
def test_a_list_that_goes_in_a_circle_is_noticed(next_):
    page = wire.encode({"manifests": [], "next": next_})
    with pytest.raises(wire.BadField):
        lying({"/v1/manifests": page}).manifests([LAB])


def test_a_list_without_end_is_left():
    places = iter(range(1, 10**6))

    def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=wire.encode({"next": next(places), "proposals": []}))

    there = ExchangeClient(Client("http://role", transport=httpx.MockTransport(answer)))
    with pytest.raises(TooLarge, match="pages of proposals"):
        there.proposals([LAB])


def test_a_page_that_is_too_large_is_left():
    with pytest.raises(TooLarge):
        lying({"/v1/proposals": b" " * ((16 << 20) + 1)}).proposals([LAB])


def test_documents_of_the_log_are_parsed_strictly():
    for answer in (b"", b"x", b"a\n1\n\n"):
        with pytest.raises(Exception, match="checkpoint") as raised:
            lying({"/v1/log/checkpoint": answer}).checkpoint()
        assert raised.type.__name__ == "BadCheckpoint"
    with pytest.raises(wire.BadField):
        lying({"/v1/log/consistency": b'{"old":0}'}).consistency(0, 1)
