"""The enclave at its door: who may ask for a run, how many at once, what is told of it, and what is tried again."""

from __future__ import annotations

import contextlib
import io
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from stage import InProcess, in_process
from strongroom import wire
from strongroom.app.enclave import server as module
from strongroom.app.enclave.client import going, run_contract
from strongroom.app.enclave.going import REQUEST_SECONDS, GoingRequest
from strongroom.app.enclave.server import Confined, Going, HttpBroker, PatientExchange, Runner, Standby, enclave
from strongroom.app.exchange.server import exchange
from strongroom.app.http import Client
from strongroom.app.stores.exchange import ExchangeStore
from strongroom.contract import Contract, RunRequest
from strongroom.enclave.run import OpenInput
from strongroom.errors import (
    BadField,
    BadReceipt,
    BadRelease,
    Conflict,
    Internal,
    NoSandbox,
    NotFound,
    NotVerified,
    ProgramNotApproved,
    ReleaseRefused,
    RunEnded,
    TooLarge,
    Unreachable,
)
from strongroom.programs import NAMES
from strongroom.receipt import Bundle
from strongroom.served import ServedRequest
from strongroom.wire import Envelope
from world import LOG, NOW, RUN, Asker, World, card, keys_of

SECRET = "CANARY-3141592653"


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def transport(tmp_path: Path) -> Iterator[InProcess]:
    store = ExchangeStore(tmp_path / "exchange", LOG)
    yield InProcess(exchange(store))
    store.close()


@pytest.fixture
def there(transport: InProcess) -> PatientExchange:
    return PatientExchange(Client("http://exchange", transport=transport))


@pytest.fixture
def contract(world: World, there: PatientExchange) -> Contract:
    agreed = world.agree()
    there.propose(agreed.proposal.envelope([agreed.proposal.sign(keys_of("lab"))]))
    there.approve(agreed.proposal, (agreed.proposal.sign(keys_of("hospital")),))
    return agreed


@pytest.fixture
def runner(world: World, transport: InProcess, monkeypatch: pytest.MonkeyPatch) -> Runner:
    monkeypatch.setattr(module.time, "time", lambda: NOW)
    monkeypatch.setattr(Standby, "prepare", lambda _self: None)
    return Runner(world.platform, Client("http://exchange", transport=transport))


def asked(contract: Contract, party: str = "lab", **changes: Any) -> bytes:
    request = RunRequest(contract.digest, party, RUN, NOW)
    return replace(request, **changes).sign(keys_of(party).signing).encode()


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def client(answer: Callable[[httpx.Request], httpx.Response]) -> Client:
    return Client("http://role", transport=httpx.MockTransport(answer))


# --- the door ---------------------------------------------------------------------------------------------------------


def test_an_enclave_says_what_it_runs(runner):
    with in_process(enclave(runner)) as web:
        assert web.get("/v1/health").json() == {"programs": list(NAMES), "role": "enclave"}
        assert code(web.get("/v1/runs")) == (405, "app.usage")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"{}", b"\xff", b'{"a": 1}', b"[" * 9999])
def test_a_body_that_is_no_request_is_refused(runner, body):
    with in_process(enclave(runner)) as web:
        status, found = code(web.post("/v1/runs", content=body))
    assert (status, found.split(".")[0]) == (400, "wire")


def test_a_body_that_is_too_large_is_refused(runner):
    with in_process(enclave(runner)) as web:
        assert code(web.post("/v1/runs", content=b" " * ((64 << 10) + 1))) == (413, "wire.too_large")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"party": "mallory"}, "contract.not_a_party"),
        ({"party": "hospital"}, "wire.bad_signature"),
        ({"at": NOW - 601}, "wire.bad_field"),
        ({"at": NOW + 601}, "wire.bad_field"),
        ({"contract": wire.digest(b"x")}, "app.not_found"),
    ],
)
def test_only_a_party_asks_for_a_run_and_only_now(runner, contract, changes, expected):
    signer = "mallory" if changes.get("party") == "mallory" else "lab"
    request = replace(RunRequest(contract.digest, "lab", RUN, NOW), **changes).sign(keys_of(signer).signing)
    with in_process(enclave(runner)) as web:
        assert code(web.post("/v1/runs", content=request.encode()))[1] == expected


def test_a_proposal_that_not_all_signed_is_not_run(runner, world, there):
    proposal = world.proposal(title="half")
    there.propose(proposal.envelope([proposal.sign(keys_of("lab"))]))
    body = RunRequest(proposal.digest, "lab", RUN, NOW).sign(keys_of("lab").signing).encode()
    with in_process(enclave(runner)) as web:
        assert code(web.post("/v1/runs", content=body))[1] == "contract.signature_missing"


def test_so_many_runs_at_once_and_no_more(runner, contract, monkeypatch):
    go = threading.Event()

    def slow(*_: object) -> Bundle:
        go.wait(20)
        raise NotFound("over")

    monkeypatch.setattr(module, "run", slow)
    running = [runner.start(asked(contract, run_id=f"{n:032x}")) for n in range(module.MAX_RUNS)]
    with pytest.raises(Conflict, match="are going on here"):
        runner.start(asked(contract))
    go.set()
    for told in running:
        assert json.loads(list(told)[-1])["error"]["code"] == "app.not_found"
    list(runner.start(asked(contract, run_id="f" * 32)))


def test_a_copy_of_a_request_begins_nothing(runner, contract, monkeypatch):
    """Else whoever saw it pass could keep the enclave busy with runs that brokers only refuse."""
    begun: list[str] = []

    def note(_contract: Contract, request: wire.Envelope, _around: Any) -> Bundle:
        begun.append(RunRequest.peek(request).run_id)
        raise NotFound("over")

    monkeypatch.setattr(module, "run", note)
    list(runner.start(asked(contract)))
    for _ in range(3):
        with pytest.raises(RunEnded, match="begun already"):
            runner.start(asked(contract))
    assert begun == [RUN]


def test_while_nothing_is_told_the_clock_is(runner, contract, monkeypatch):
    """How far a program is depends on the data; how late it is does not."""
    go = threading.Event()

    def slow(_contract: Contract, _request: wire.Envelope, around: Any) -> Bundle:
        around.progress("program", "evaluate")
        go.wait(20)
        raise NotFound("over")

    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.02)
    monkeypatch.setattr(module, "run", slow)
    told = runner.start(asked(contract))
    assert json.loads(next(told)) == {"detail": "evaluate", "step": "program"}
    assert json.loads(next(told)) == {"detail": "0 s", "step": "program"}
    go.set()
    assert "error" in json.loads(list(told)[-1])


# --- what is told of a run --------------------------------------------------------------------------------------------


def lines(runner: Runner, contract: Contract) -> list[dict[str, Any]]:
    return [json.loads(line) for line in runner.start(asked(contract))]


def test_steps_are_told_as_they_begin_and_the_bundle_comes_last(runner, world, contract, monkeypatch):
    def made(_contract: Contract, _request: wire.Envelope, around: Any) -> Bundle:
        around.progress("program", "evaluate")
        return world.run(contract)

    monkeypatch.setattr(module, "run", made)
    first, last = lines(runner, contract)
    assert first == {"step": "program", "detail": "evaluate"}
    bundle = Bundle.parse(wire.encode(last["bundle"]))
    assert bundle.proof is not None


def test_an_error_is_told_by_its_code(runner, contract, monkeypatch):
    def refuse(*_: object) -> Bundle:
        raise ReleaseRefused("the broker of hospital refused", reason="broker.no_run_left")

    monkeypatch.setattr(module, "run", refuse)
    (event,) = lines(runner, contract)
    assert event["error"]["reason"] == "broker.no_run_left"


def test_what_nobody_expected_says_nothing_to_anybody(runner, contract, monkeypatch, caplog, capfd):
    def fail(*_: object) -> Bundle:
        raise ValueError(SECRET)

    monkeypatch.setattr(module, "run", fail)
    (event,) = lines(runner, contract)
    assert event["error"]["code"] == "app.internal"
    assert "ValueError" in caplog.text
    assert SECRET not in json.dumps(event) + caplog.text + "".join(capfd.readouterr())


def test_each_party_is_asked_at_the_address_in_the_contract(runner, contract, monkeypatch):
    opened: list[str] = []
    closed: list[str] = []

    class Line(HttpBroker):
        def __init__(self, party: Any) -> None:
            super().__init__(party)
            opened.append(party.broker_url)

        def close(self) -> None:
            super().close()
            closed.append(self._name)

    def ask(_contract: Contract, _request: wire.Envelope, around: Any) -> Bundle:
        for party in contract.proposal.parties:
            around.broker(party)
        assert len(around.entropy(32)) == 32
        assert around.now() == NOW
        raise NotFound("enough")

    monkeypatch.setattr(module, "HttpBroker", Line)
    monkeypatch.setattr(module, "run", ask)
    lines(runner, contract)
    assert opened == ["https://broker.hospital.example", "https://broker.lab.example"]
    assert sorted(closed) == ["hospital", "lab"]


# --- the way to a broker ----------------------------------------------------------------------------------------------


def line_to(answer: Callable[[httpx.Request], httpx.Response]) -> HttpBroker:
    found = HttpBroker(card("hospital"))
    found._client = client(answer)
    return found


def test_a_nonce_is_32_bytes_or_none():
    assert line_to(lambda _: httpx.Response(200, content=b'{"nonce":"' + b"ab" * 32 + b'"}')).nonce() == b"\xab" * 32
    for bad in (b"{}", b"", b'{"nonce":"ab"}', b'{"more":1,"nonce":"' + b"ab" * 32 + b'"}', b'{"nonce":null}'):
        with pytest.raises((wire.BadField, wire.NotJson)):
            line_to(lambda _, bad=bad: httpx.Response(200, content=bad)).nonce()


def test_a_refusal_is_raised_with_its_reason(world, contract):
    asker = Asker(world, contract)
    request = asker.request()
    refusal = world.brokers["hospital"].decide(replace(request, nonce=bytes(32)))
    sent = wire.encode({"refusal": refusal.envelope.to_json()})
    line = line_to(lambda _: httpx.Response(403, content=sent))
    with pytest.raises(ReleaseRefused, match="the broker of hospital refused at check D1") as raised:
        line.release(replace(request, nonce=bytes(32)).encode())
    assert raised.value.reason == "broker.nonce"
    with pytest.raises(BadRelease, match="of another request"):
        line.release(request.encode())


@pytest.mark.parametrize("payload", [b"[]", b"1", b'{"nonce":null}', b"{}"])
def test_a_refusal_that_says_nothing_is_none(world, contract, payload):
    request = Asker(world, contract).request().encode()
    sent = wire.encode({"refusal": keys_of("mallory").signing.sign("x/y", payload).to_json()})
    with pytest.raises(BadRelease):
        line_to(lambda _: httpx.Response(403, content=sent)).release(request)


def test_anything_else_is_handed_on_unread(world, contract):
    request = Asker(world, contract).request().encode()
    assert line_to(lambda _: httpx.Response(200, content=b"[1]")).release(request) == b"[1]"
    with pytest.raises(Unreachable):
        HttpBroker(replace(card("hospital"), broker_url="")).nonce()


@pytest.mark.parametrize("status", [200, 301, 404, 500])
def test_what_else_listens_at_that_address_is_told_to_nobody(status):
    """The contract's writer chose the address; an enclave must not be a way to read what lies behind its firewall."""
    inside = httpx.Response(status, content=SECRET.encode() * 10_000, headers={"location": SECRET})
    with pytest.raises((Unreachable, wire.NotJson)) as raised:
        line_to(lambda _: inside).nonce()
    assert SECRET not in str(raised.value)


def test_a_broker_takes_its_receipt_or_is_asked_again(world, contract, hurried):
    bundle, answers = world.run(contract), [b"{}", b"[]", b""]

    def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=answers.pop())

    line_to(answer).receipt(bundle)
    assert answers == []
    assert len(hurried) == 2
    with pytest.raises(Unreachable):
        line_to(lambda _: httpx.Response(400)).receipt(bundle)


# --- an exchange that is asked again ----------------------------------------------------------------------------------


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waited: list[float] = []
    monkeypatch.setattr(module.time, "sleep", waited.append)
    return waited


@pytest.mark.parametrize("fails", [0, 1, 3])
def test_a_receipt_is_not_lost_to_an_exchange_that_restarts(world, there, contract, hurried, monkeypatch, fails):
    bundle, left = replace(world.run(contract), proof=None), [fails]
    post = there.client.post

    def flaky(*args: Any, **named: Any) -> bytes:
        if left[0]:
            left[0] -= 1
            raise Unreachable("away")
        return post(*args, **named)

    monkeypatch.setattr(there.client, "post", flaky)
    assert there.record(bundle).proof is not None
    assert hurried == list(module.RETRIES[:fails])


def test_an_exchange_that_stays_away_is_left_alone_in_the_end(world, there, contract, hurried, monkeypatch):
    def away(*_: Any, **__: Any) -> bytes:
        raise Unreachable("away")

    bundle = replace(world.run(contract), proof=None)
    monkeypatch.setattr(there.client, "post", away)
    with pytest.raises(Unreachable):
        there.record(bundle)
    assert len(hurried) == len(module.RETRIES)


def test_what_an_exchange_refuses_is_not_asked_again(world, there, contract, hurried):
    bundle = replace(world.run(contract), proof=None, releases=())
    with pytest.raises(NotVerified):
        there.record(bundle)
    assert hurried == []


def test_an_output_that_got_there_without_an_answer_is_delivered_once(world, there, contract, hurried, monkeypatch):
    there.record(replace(world.run(contract), proof=None))
    delivery, sealed = world.exchange.delivered[0]
    post, lost = there.client.post, [True]

    def lose(path: str, *args: Any, **named: Any) -> bytes:
        answer = post(path, *args, **named)
        if lost.pop() if lost else False:
            raise Unreachable("the answer was lost")
        return answer

    monkeypatch.setattr(there.client, "post", lose)
    there.put_output(sealed)
    there.put_output(sealed)
    there.deliver(delivery)
    assert there.deliveries(contract.digest) == [delivery]
    assert len(hurried) == 1


# --- sandboxes that stand ready ---------------------------------------------------------------------------------------


class FakeSandbox:
    kind, program_digest = "bubblewrap", "sha256:" + "0" * 64
    walls = ("namespaces", "seccomp")

    def __init__(self) -> None:
        self.closed = 0
        self.ran: tuple[Any, ...] = ()

    def close(self) -> None:
        self.closed += 1

    def run(self, *asked: Any) -> dict[str, bytes]:
        self.ran = asked
        return {"report": b"x"}


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[Any, ...], dict[str, Any], FakeSandbox]]:
    found: list[tuple[tuple[Any, ...], dict[str, Any], FakeSandbox]] = []

    def prepare(*args: Any, **named: Any) -> FakeSandbox:
        found.append((args, named, FakeSandbox()))
        return found[-1][2]

    monkeypatch.setattr(module.sandbox, "prepare", prepare)
    return found


def test_one_sandbox_stands_ready_and_serves_one_run(prepared, contract):
    standby = Standby()
    standby.prepare()
    standby.prepare()
    assert len(prepared) == 1
    ready = prepared[0][2]
    assert standby.take(contract)._sandbox is ready
    assert standby.take(contract)._sandbox is not ready
    standby.close()
    assert ready.closed == 0


def test_a_contract_for_a_process_gets_no_isolated_sandbox_and_none_that_is_ready(prepared, world):
    standby = Standby()
    standby.prepare()
    agreed = world.agree(enclave=replace(world.proposal().enclave, sandbox="process"))
    standby.take(agreed)
    assert prepared[-1][0] == ("evaluate", "process")
    assert len(prepared) == 2
    standby.close()
    standby.close()
    assert prepared[0][2].closed == 1


def test_a_sandbox_that_cannot_be_had_is_said_when_it_is_needed(monkeypatch, contract, caplog):
    def none(*_: Any, **__: Any) -> FakeSandbox:
        raise NoSandbox("no bubblewrap and no namespaces")

    monkeypatch.setattr(module.sandbox, "prepare", none)
    standby = Standby()
    standby.prepare()
    assert "enclave.no_sandbox" in caplog.text
    with pytest.raises(NoSandbox):
        standby.take(contract)
    standby.close()


def test_a_confined_run_has_the_contracts_limits_and_no_wider(contract):
    inner = FakeSandbox()
    confined = Confined(inner)
    inputs = {"data": OpenInput("text/csv", 3, io.BytesIO(b"abc"))}
    assert confined.run(contract, inputs, contract.proposal.limits) == {"report": b"x"}
    parameters, whole, outputs, limits, on_progress = inner.ran
    assert on_progress is None  # how far it is stays inside: this contract agreed on nothing else
    assert parameters == contract.proposal.program.parameters
    assert whole["data"].file.read(3) == b"abc"
    assert outputs["report"].max_bytes == limits.output_bytes == 1 << 20
    assert (limits.seconds, limits.memory_bytes) == (300, 1 << 30)
    assert (confined.kind, confined.program_digest) == (inner.kind, inner.program_digest)
    assert confined.walls == inner.walls
    confined.close()
    assert inner.closed == 1


def hears(agreed: Contract, party: str = "hospital", signer: str = "", **changes: Any) -> bytes:
    request = replace(GoingRequest(agreed.digest, party, NOW), **changes)
    return request.sign(keys_of(signer or party).signing).encode()


@pytest.fixture
def listening(runner: Runner, contract: Contract) -> Iterator[Any]:
    """An enclave where a run of the contract goes on, and one of another."""
    for run_id, digest, detail in (("0", contract.digest, "40 of 200 questions"), ("1", f"sha256:{'1' * 64}", SECRET)):
        runner._going[digest, run_id * 32] = Going("program", "evaluate-llm", detail)
    with in_process(enclave(runner)) as web:
        yield web


def test_where_a_run_is_each_party_of_its_contract_hears_and_of_no_other_run(listening, contract):
    for party in ("hospital", "lab"):
        answer = listening.post("/v1/going", content=hears(contract, party))
        (run,) = answer.json()["runs"]
        assert (run["step"], run["detail"]) == ("program", "40 of 200 questions")
        assert SECRET not in answer.text


def test_a_stranger_who_reads_the_log_hears_nothing_of_a_run(listening, contract):
    assert listening.get(f"/v1/contracts/{contract.digest.removeprefix('sha256:')}/runs").status_code == 404
    assert code(listening.get("/v1/going")) == (405, "app.usage")
    for body, expected in (
        (b"{}", "wire.bad_field"),
        (hears(contract, "stranger"), "contract.not_a_party"),
        (hears(contract, signer="stranger"), "wire.bad_signature"),
        (hears(contract, signer="lab"), "wire.bad_signature"),
        (hears(contract, contract=f"sha256:{'1' * 64}"), "app.not_found"),  # its runs too are its parties' alone
    ):
        answer = listening.post("/v1/going", content=body)
        assert code(answer)[1] == expected
        assert "questions" not in answer.text


def test_a_partys_stale_signature_hears_nothing(listening, contract):
    for at in (NOW - REQUEST_SECONDS - 1, NOW + REQUEST_SECONDS + 1):
        assert code(listening.post("/v1/going", content=hears(contract, at=at)))[1] == "wire.bad_field"
    assert listening.post("/v1/going", content=hears(contract, at=NOW - REQUEST_SECONDS)).status_code == 200


def test_a_signed_request_for_a_run_or_for_receipts_is_none_to_hear_of_runs(listening, contract):
    receipts = ServedRequest(contract.digest, "lab", "0" * 64, NOW).sign(keys_of("lab").signing).encode()
    for other in (asked(contract), receipts):
        assert code(listening.post("/v1/going", content=other))[1] == "wire.bad_envelope"


def test_another_contracts_party_hears_nothing(listening, contract):
    with pytest.raises(BadField, match="another contract"):
        envelope = GoingRequest(f"sha256:{'2' * 64}", "lab", NOW).sign(keys_of("lab").signing)
        GoingRequest.verify(envelope, contract.proposal, NOW)
    assert code(listening.post("/v1/going", content=hears(contract, "auditor")))[1] == "contract.not_a_party"


def test_contracts_whose_runs_are_listened_to_are_asked_for_once(listening, contract, monkeypatch):
    assert listening.post("/v1/going", content=hears(contract)).status_code == 200
    monkeypatch.setattr(PatientExchange, "proposal", None)
    assert listening.post("/v1/going", content=hears(contract)).status_code == 200


def test_a_listener_reads_steps(contract):
    said = wire.encode({"runs": [{"contract": contract.digest, "detail": "x", "run_id": RUN, "step": "open"}]})
    request = Envelope.parse(hears(contract))
    with contextlib.closing(answering(said)) as asked_of:
        assert going(asked_of, request) == [("open", "x")]


def test_a_reader_that_gives_little_at_a_time_is_read_whole():
    class Grudging(io.RawIOBase):
        def __init__(self) -> None:
            self.left = b"abcdefgh"

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            piece, self.left = self.left[:1], self.left[1:]
            buffer[: len(piece)] = piece
            return len(piece)

    assert module._whole_reads(Grudging()).read(8) == b"abcdefgh"


# --- the way to an enclave --------------------------------------------------------------------------------------------


def answering(*pieces: bytes) -> Client:
    return client(lambda _: httpx.Response(200, content=iter(pieces)))


def told_by(*pieces: bytes) -> tuple[Bundle, list[tuple[str, str]]]:
    steps: list[tuple[str, str]] = []
    envelope = RunRequest("sha256:" + "0" * 64, "lab", RUN, NOW).sign(keys_of("lab").signing)
    with contextlib.closing(answering(*pieces)) as asked_of:
        return run_contract(asked_of, envelope, lambda *step: steps.append(step)), steps


def test_steps_may_come_in_any_pieces(world, contract):
    bundle = world.run(contract)
    data = wire.encode({"step": "open", "detail": "x" * 999}) + b"\n" + wire.encode({"bundle": bundle.to_json()}) + b"\n"
    for size in (1, 7, 1000, len(data)):
        found, steps = told_by(*(data[i : i + size] for i in range(0, len(data), size)))
        assert found == bundle
        assert steps == [("open", "x" * 200)]


@pytest.mark.parametrize(
    "pieces", [(), (b"",), (b'{"detail":"","step":"open"}\n',), (b'{"detail":"","step":"open"}',), (b"[]\n",)]
)
def test_a_run_that_ends_without_a_receipt_is_said_to(pieces):
    with pytest.raises(BadReceipt, match="without a receipt") as raised:
        told_by(*pieces)
    assert "counts as used" in raised.value.hint


@pytest.mark.parametrize(
    ("piece", "error"),
    [
        (b"x\n", wire.NotJson),
        (b'{"a": 1}\n', wire.NotCanonical),
        (b'{"bundle":{}}\n', wire.BadField),
        (b'{"bundle":[]}\n', wire.BadField),
        (b'{"error":{"code":"enclave.program_not_approved","message":"no"}}\n', ProgramNotApproved),
        (b'{"error":"?"}\n', Internal),
    ],
)
def test_what_an_enclave_says_is_parsed_strictly(piece, error):
    with pytest.raises(error):
        told_by(piece)


def test_an_endless_line_is_not_read_to_its_end():
    with pytest.raises(TooLarge):
        told_by(*([b"x" * (1 << 20)] * 20))
