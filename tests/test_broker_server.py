"""A broker at its door: what it takes, what it says, what it does when the exchange is away, and who can withdraw."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from stage import InProcess, in_process, until
from strongroom import wire
from strongroom.app.broker import server as module
from strongroom.app.broker.server import Outbox, broker
from strongroom.app.exchange.client import ExchangeClient
from strongroom.app.exchange.server import exchange
from strongroom.app.http import Client
from strongroom.app.stores.book import SqliteBook
from strongroom.app.stores.exchange import ExchangeStore
from strongroom.broker import Owner
from strongroom.contract import Contract, Withdrawal
from strongroom.errors import BadField, Internal, NotFound, Unreachable
from strongroom.ledger import Entry
from strongroom.party import SigningKey
from strongroom.release import MAX_REQUEST_BYTES
from strongroom.trust import Trust
from world import LOG, NOW, Asker, World, broker_key, card, keys_of, sealed_asset, seed, sign_all

SECRET_PLACE = "/home/somebody/trust.json"


class Way(InProcess):
    """The way to an exchange, which can be cut."""

    def __init__(self, app: Any) -> None:
        super().__init__(app)
        self.cut = False
        self.asked: list[str] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(f"{request.method} {request.url.path}")
        if self.cut:
            raise httpx.ConnectError("cut")
        return super().handle_request(request)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def book(tmp_path: Path, world: World) -> Iterator[SqliteBook]:
    found = SqliteBook(tmp_path / "book.db")
    _, envelope, _, key = sealed_asset("data")
    found.hold(envelope, key)
    yield found
    found.close()


@pytest.fixture
def owner(world: World) -> Owner:
    return world.brokers["hospital"].owner


@pytest.fixture
def way(tmp_path: Path) -> Iterator[Way]:
    store = ExchangeStore(tmp_path / "exchange", LOG)
    yield Way(exchange(store))
    store.close()


@pytest.fixture
def there(way: Way) -> ExchangeClient:
    return ExchangeClient(Client("http://exchange", transport=way))


@pytest.fixture
def outbox(book: SqliteBook, owner: Owner, way: Way) -> Outbox:
    return Outbox(book, lambda: owner, Client("http://exchange", transport=way))


@pytest.fixture
def web(book: SqliteBook, owner: Owner, world: World) -> Iterator[httpx.Client]:
    with in_process(broker(book, lambda: owner, None, now=world.clock)) as found:
        yield found


@pytest.fixture
def contract(world: World, book: SqliteBook, there: ExchangeClient) -> Contract:
    """A contract that both signed, the hospital approved, and the exchange shows."""
    agreed = world.agree()
    book.approve(agreed.digest, NOW)
    there.propose(agreed.proposal.envelope([agreed.proposal.sign(keys_of("lab"))]))
    there.approve(agreed.proposal, (agreed.proposal.sign(keys_of("hospital")),))
    return agreed


def ask(web: httpx.Client, asker: Asker) -> httpx.Response:
    nonce = bytes.fromhex(web.post("/v1/nonce", content=b"{}").json()["nonce"])
    return web.post("/v1/release", content=asker.request(nonce=nonce).encode())


def why(answer: httpx.Response) -> str:
    assert answer.status_code == 403
    return wire.loads(wire.unb64(answer.json()["refusal"]["payload"]))["code"]


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


# --- the door ---------------------------------------------------------------------------------------------------------


def test_a_broker_says_whose_it_is_and_nothing_more(web):
    assert web.get("/v1/health").json() == {
        "broker": broker_key("hospital").public.keyid,
        "party": "hospital",
        "role": "broker",
    }


@pytest.mark.parametrize("path", ["/v1/nonce", "/v1/release", "/v1/withdrawals"])
def test_a_wrong_method_is_refused(web, path):
    assert code(web.get(path)) == (405, "app.usage")


@pytest.mark.parametrize("path", ["/v1/release", "/v1/withdrawals"])
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"{}", b"\xff", b'{"a": 1}', b'{"purpose":1}', b"[" * 9999])
def test_a_body_that_is_no_request_is_refused_and_leaves_no_trace(web, book, path, body):
    status, found = code(web.post(path, content=body))
    assert (status, found.split(".")[0]) == (400, "wire")
    assert book.decisions() == []


@pytest.mark.parametrize("path", ["/v1/release", "/v1/withdrawals"])
def test_a_body_that_is_too_large_is_refused(web, path):
    assert code(web.post(path, content=b" " * (MAX_REQUEST_BYTES + 1))) == (413, "wire.too_large")


def test_nonces_are_fresh_and_asking_for_many_fills_nothing_up(web, book):
    given = {web.post("/v1/nonce").json()["nonce"] for _ in range(100)}
    assert len(given) == 100
    assert book._db.row("SELECT count(*) FROM spent") == (0,)


# --- deciding ---------------------------------------------------------------------------------------------------------


def test_a_release_opens_for_who_asked_and_stands_in_the_owners_log(web, world, contract, book):
    asker = Asker(world, contract)
    answer = ask(web, asker)
    assert answer.status_code == 200
    assert set(answer.json()) == {"encrypted_key", "release"}
    (decision,) = book.decisions()
    assert (decision.verdict, decision.code, decision.contract) == ("release", "", contract.digest)
    assert len(decision.checks) == 17


def test_a_refusal_names_the_check_and_keeps_its_details_at_home(web, world, contract, book):
    ask(web, Asker(world, contract))
    answer = ask(web, Asker(world, contract, "another", run_id=seed("another run", 16).hex()))
    assert why(answer) == "broker.no_run_left"
    payload = wire.loads(wire.unb64(answer.json()["refusal"]["payload"]))
    assert set(payload) == {"at", "broker", "code", "contract", "manifest", "nonce", "number", "run_id"}
    assert "1 of 1 used" in json.dumps(book.decisions()[-1].checks)


def test_a_nonce_serves_once(web, world, contract):
    asker = Asker(world, contract)
    nonce = bytes.fromhex(web.post("/v1/nonce").json()["nonce"])
    request = asker.request(nonce=nonce).encode()
    assert web.post("/v1/release", content=request).status_code == 200
    assert why(web.post("/v1/release", content=request)) == "broker.nonce"


def test_many_at_once_for_the_last_run_exactly_one_gets_it(web, world, contract, book, owner):
    app = broker(book, lambda: owner, None, now=world.clock)
    start, answers = threading.Barrier(6), []

    def go(number: int) -> None:
        with in_process(app) as mine:
            asker = Asker(world, contract, f"enclave {number}", run_id=seed(f"run {number}", 16).hex())
            nonce = bytes.fromhex(mine.post("/v1/nonce").json()["nonce"])
            request = asker.request(nonce=nonce).encode()
            start.wait()
            answers.append(mine.post("/v1/release", content=request).status_code)

    threads = [threading.Thread(target=go, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200, *[403] * 5]
    assert len(book.standing(contract.digest).runs) == 1


def test_an_owners_broken_files_refuse_everything_and_are_nobodys_business(book, world, contract, caplog):
    def broken() -> Owner:
        raise BadField(f"{SECRET_PLACE}: trust has an unknown member")

    with in_process(broker(book, broken, None, now=world.clock)) as web:
        answer = ask(web, Asker(world, contract))
        health = web.get("/v1/health")
    assert code(answer) == code(health) == (500, "app.internal")
    assert SECRET_PLACE not in answer.text + health.text
    assert SECRET_PLACE in caplog.text
    assert not book.standing(contract.digest).runs


def test_a_pin_that_the_owner_removes_is_gone_at_once(book, world, contract, owner):
    current = [owner]
    with in_process(broker(book, lambda: current[0], None, now=world.clock)) as web:
        current[0] = replace(owner, trust=owner.trust.unpin("lab"))
        assert why(ask(web, Asker(world, contract))) == "party.not_pinned"
        current[0] = replace(owner, policy=Trust().appraisal_policy())
        assert why(ask(web, Asker(world, contract))).startswith("attest.")
        current[0] = owner
        assert ask(web, Asker(world, contract)).status_code == 200


# --- withdrawals from elsewhere ---------------------------------------------------------------------------------------


def told(contract: Contract, withdrawal: Withdrawal, key: SigningKey) -> bytes:
    return wire.encode({"contract": contract.envelope.to_json(), "withdrawal": withdrawal.sign(key).to_json()})


def test_another_partys_withdrawal_stops_releases(web, world, contract):
    withdrawal = Withdrawal(contract.digest, "lab", NOW, "")
    answer = web.post("/v1/withdrawals", content=told(contract, withdrawal, keys_of("lab").signing))
    assert answer.json() == {}
    assert why(ask(web, Asker(world, contract))) == "contract.withdrawn"


@pytest.mark.parametrize(
    ("party", "signer", "expected"),
    [
        ("mallory", "mallory", "contract.not_a_party"),
        ("lab", "mallory", "wire.bad_signature"),
        ("hospital", "lab", "wire.bad_signature"),
    ],
)
def test_a_strangers_withdrawal_stops_nothing(web, world, contract, party, signer, expected):
    body = told(contract, Withdrawal(contract.digest, party, NOW, ""), keys_of(signer).signing)
    assert code(web.post("/v1/withdrawals", content=body)) == (400, expected)
    assert ask(web, Asker(world, contract)).status_code == 200


def test_a_stranger_under_a_partys_name_stops_nothing(web, world, contract):
    forged = replace(card("mallory"), name="lab")
    parties = (card("hospital"), forged)
    proposal = world.proposal(parties=parties)
    moved = proposal.envelope([])
    withdrawal = Withdrawal(proposal.digest, "lab", NOW, "").sign(keys_of("mallory").signing)
    body = wire.encode({"contract": moved.to_json(), "withdrawal": withdrawal.to_json()})
    assert code(web.post("/v1/withdrawals", content=body)) == (400, "party.pin_mismatch")
    assert ask(web, Asker(world, contract)).status_code == 200


def test_a_withdrawal_of_another_contract_stops_that_one_alone(web, world, contract):
    other = sign_all(world.proposal(title="another"))
    withdrawal = Withdrawal(other.digest, "lab", NOW, "")
    assert code(web.post("/v1/withdrawals", content=told(contract, withdrawal, keys_of("lab").signing))) == (
        400,
        "wire.bad_field",
    )
    assert web.post("/v1/withdrawals", content=told(other, withdrawal, keys_of("lab").signing)).status_code == 200
    assert ask(web, Asker(world, contract)).status_code == 200


# --- the exchange is away ---------------------------------------------------------------------------------------------


def test_a_broker_decides_without_the_exchange_and_logs_later(book, owner, world, contract, way, outbox, there):
    way.cut = True
    with in_process(broker(book, lambda: owner, outbox, now=world.clock)) as web:
        assert ask(web, Asker(world, contract)).status_code == 200
    with pytest.raises(Unreachable):
        outbox.flush()
    assert [d.logged for d in book.decisions()] == [False]
    way.cut = False
    outbox.flush()
    (decision,) = book.decisions()
    assert decision.logged
    assert there.entries(0, 100)[-1] == Entry("release", contract.digest, decision.digest)
    size = there.checkpoint().size
    outbox.flush()
    assert there.checkpoint().size == size


def test_a_logged_decision_whose_answer_was_lost_is_logged_once(book, owner, world, contract, outbox, there, monkeypatch):
    with in_process(broker(book, lambda: owner, None, now=world.clock)) as web:
        ask(web, Asker(world, contract))

    def lost(_decision: int) -> None:
        raise Unreachable("the answer was lost")

    with monkeypatch.context() as patch, pytest.raises(Unreachable):
        patch.setattr(book, "mark_logged", lost)
        outbox.flush()
    size = there.checkpoint().size
    outbox.flush()
    assert there.checkpoint().size == size
    assert book.decisions()[0].logged


def test_a_strangers_nonsense_does_not_stand_in_the_way_of_the_log(book, owner, world, contract, outbox, there):
    """A request under a contract that nobody proposed is refused, and that refusal no exchange will ever take."""
    with in_process(broker(book, lambda: owner, outbox, now=world.clock)) as web:
        junk = sign_all(world.proposal(title="never proposed"))
        assert why(ask(web, Asker(world, junk))) == "broker.not_approved"
        assert ask(web, Asker(world, contract)).status_code == 200
    outbox.flush()
    assert [d.logged for d in book.decisions()] == [False, True]
    assert book.decisions(unlogged=True) == []
    assert there.entries(0, 100)[-1].kind == "release"


def test_an_exchange_that_fails_is_asked_again(book, owner, world, contract):
    def fail(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(500)

    with in_process(broker(book, lambda: owner, None, now=world.clock)) as web:
        ask(web, Asker(world, contract))
    with pytest.raises(Internal):
        Outbox(book, lambda: owner, Client("http://exchange", transport=httpx.MockTransport(fail))).flush()
    assert len(book.decisions(unlogged=True)) == 1


def test_a_broker_that_was_off_learns_of_withdrawals_when_it_is_back(book, owner, world, contract, outbox, there):
    withdrawal = Withdrawal(contract.digest, "lab", NOW, "").sign(keys_of("lab").signing)
    there.withdraw(contract.digest, withdrawal)
    outbox.catch_up()
    assert book.standing(contract.digest).withdrawn_by == {"lab"}
    with in_process(broker(book, lambda: owner, None, now=world.clock)) as web:
        assert why(ask(web, Asker(world, contract))) == "contract.withdrawn"


def test_catching_up_believes_no_forged_withdrawal(book, owner, world, contract, way):
    forged = Withdrawal(contract.digest, "lab", NOW, "").sign(keys_of("mallory").signing)
    seen = {"countered_by": [], "envelope": contract.envelope.to_json(), "receipts": [], "withdrawals": [forged.to_json()]}

    def lie(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=wire.encode(seen))

    Outbox(book, lambda: owner, Client("http://exchange", transport=httpx.MockTransport(lie))).catch_up()
    assert book.standing(contract.digest).withdrawn_by == frozenset()


def test_catching_up_goes_past_what_the_exchange_does_not_have(book, outbox, contract, there):
    book.approve(wire.digest(b"of another exchange"), NOW - 1)
    there.withdraw(contract.digest, Withdrawal(contract.digest, "lab", NOW, "").sign(keys_of("lab").signing))
    outbox.catch_up()
    assert book.standing(contract.digest).withdrawn_by == {"lab"}


def test_what_is_withdrawn_is_not_asked_about_again(book, outbox, contract, way):
    book.withdraw(*_withdrawn(contract))
    way.asked.clear()
    outbox.catch_up()
    assert way.asked == []


def _withdrawn(contract: Contract) -> tuple[Withdrawal, wire.Envelope]:
    withdrawal = Withdrawal(contract.digest, "hospital", NOW, "")
    return withdrawal, withdrawal.sign(keys_of("hospital").signing)


@pytest.fixture
def working(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """The outbox at work, hurried."""
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.02)
    yield outbox.start
    outbox.stop()
    assert not outbox._thread.is_alive()


def test_at_work_the_outbox_keeps_trying_until_the_exchange_is_back(book, owner, world, contract, way, outbox, working):
    way.cut = True
    working()
    with in_process(broker(book, lambda: owner, outbox, now=world.clock)) as web:
        ask(web, Asker(world, contract))
    until(lambda: len(way.asked) > 3)
    assert not book.decisions()[0].logged
    way.cut = False
    until(lambda: book.decisions()[0].logged)


def test_at_work_the_outbox_sends_at_once_and_is_then_quiet(book, owner, world, contract, way, outbox, working):
    working()
    with in_process(broker(book, lambda: owner, outbox, now=world.clock)) as web:
        ask(web, Asker(world, contract))
    until(lambda: book.decisions()[0].logged)
    asked = len(way.asked)
    outbox.wake()
    until(lambda: not outbox._wake.is_set())
    assert len(way.asked) == asked


def test_a_release_that_was_not_recorded_is_found_again(book, owner, world, contract, monkeypatch):
    """A broker that died between its commit and its log: the owner still reads of it."""

    def die(*_: object) -> None:
        raise NotFound("dead")

    with monkeypatch.context() as patch, in_process(broker(book, lambda: owner, None, now=world.clock)) as web:
        patch.setattr(book, "record", die)
        assert code(ask(web, Asker(world, contract))) == (404, "app.not_found")
    assert book.decisions() == []
    assert (book.record_lost(), book.record_lost()) == (1, 0)
    (decision,) = book.decisions()
    assert (decision.verdict, decision.checks, decision.at) == ("release", [], NOW)
    assert decision.digest == json.loads(json.dumps(decision.to_json()))["digest"]
