"""The serving half of an enclave process, put together; and what its operator decides."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inference_world import MODEL, PROGRAM, InferenceWorld, WallClock
from stage import InProcess
from strongroom.app.enclave.server import Runner, enclave
from strongroom.app.exchange.client import ExchangeClient
from strongroom.app.exchange.server import exchange
from strongroom.app.http import Client
from strongroom.app.inference import arguments, hosting, listening
from strongroom.app.inference.arguments import ANYBODY, OWN_MACHINE, Options
from strongroom.app.inference.credentials import NO_LIMITS, Limits
from strongroom.app.inference.hosting import Hosting
from strongroom.app.stores.exchange import ExchangeStore
from strongroom.errors import MissingExtra, Usage
from test_inference_server import CHAT, HELLO, KEY, PLAIN, running
from world import LOG, NOW, keys_of


@pytest.fixture
def world() -> Iterator[InferenceWorld]:
    with InferenceWorld(serve=PLAIN, clock=WallClock()) as found:  # an exchange has a clock of its own
        yield found


@pytest.fixture
def web(tmp_path: Path, world: InferenceWorld) -> Iterator[Client]:
    """An exchange with the contract, the manifest and the sealed file."""
    store = ExchangeStore(tmp_path / "exchange", LOG)
    client = Client("http://exchange", transport=InProcess(exchange(store)))
    there, proposal = ExchangeClient(client), world.contract.proposal
    there.propose(proposal.envelope([proposal.sign(keys_of("lab"))]))
    there.approve(proposal, (proposal.sign(keys_of("hospital")),))
    there.put_manifest(world.asset[1], keys_of("lab").signing.public)
    (tmp_path / "weights.sealed").write_bytes(world.asset[2])
    with (tmp_path / "weights.sealed").open("rb") as sealed:
        there.put_sealed(world.asset[0].digest, sealed)
    yield client
    client.close()
    store.close()


@pytest.fixture
def hosted(tmp_path: Path, world: InferenceWorld, web: Client, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosting]:
    monkeypatch.setattr(hosting.starting, "start", world.start)
    monkeypatch.setattr(hosting.sandbox, "program_digest", lambda _name: PROGRAM)
    monkeypatch.setattr(Hosting, "_broker", lambda _self, party: world.world.brokers[party.name])
    chosen = Options(home=tmp_path / "home", anonymous=NO_LIMITS, loopback=True)
    found = Hosting(chosen, world.world.platform, web, discreet=None)
    yield found
    found.close()


async def asked(app: Any, world: InferenceWorld, method: str, path: str, body: bytes = b"", **headers: str) -> Any:
    """As ``InferenceWorld.send``, to another application."""
    world.service = app
    found = {name.replace("_", "-"): value for name, value in headers.items()}
    return await world.send(method, path, body, found)


def test_the_whole_of_it_answers_keeps_and_logs(hosted, world, web):
    service = hosted.service(behind=enclave(Runner(world.world.platform, web)))

    @running
    async def go() -> None:
        opened = await asked(service, world, "POST", "/v1/rooms", world.asked().encode())
        assert "room" in json.loads(opened.body.splitlines()[-1]), opened.body
        credential = {"authorization": f"Bearer {KEY}"}
        body = json.dumps(HELLO).encode()
        reply = await asked(service, world, "POST", CHAT, body, content_type="application/json", **credential)
        assert reply.json["choices"][0]["message"]["content"] == "You said: hello you "
        receipt = await asked(service, world, "GET", f"/v1/aci/receipts/{reply.headers['x-receipt-id']}", **credential)
        assert receipt.json["model"] == MODEL
        signed = await asked(service, world, "GET", f"/v1/signature/{reply.json['id']}?signing_algo=ed25519", **credential)
        assert signed.status == 200
        assert (await asked(service, world, "GET", "/metrics")).code == "app.not_found"  # observability: none
        assert (await asked(service, world, "GET", "/v1/health")).json["role"] == "enclave"  # what lies behind
        await hosted.rooms.close()

    go()
    hosted.metering.receipts.flush()
    hosted.metering._logger.step()
    assert hosted.metering.receipts.waiting == 0
    assert len(ExchangeClient(web).entries(0, 2)) == 2  # the contract's and the receipt's


def test_the_way_to_a_broker_is_kept_while_leases_are_renewed(tmp_path, world, web):
    found = Hosting(Options(home=tmp_path / "home"), world.world.platform, web, discreet=None)
    party = world.contract.proposal.party("lab")
    assert found._broker(party) is found._broker(party)
    found.close()


def test_the_process_is_made_discreet_and_tls_is_made_before(tmp_path, world, web, monkeypatch):
    order: list[str] = []
    make = listening.Tls.make

    def made(host: str, now: float) -> listening.Tls:
        order.append(f"tls for {host}")
        return make(host, now)

    def discreet(level: str) -> Any:
        order.append(f"discreet: {level}")

    monkeypatch.setattr(hosting.Tls, "make", made)
    chosen = Options(home=tmp_path / "home", tls="enclave.example")
    found = Hosting(chosen, world.world.platform, web, discreet=discreet, now=lambda: NOW)
    assert order == ["tls for enclave.example", "discreet: none"]
    assert found.rooms.tls == (found.tls.key,)
    found.close()


def test_the_chat_page_is_served_where_the_operator_says_so(tmp_path, world, web):
    pytest.importorskip("strongroom.app.web")
    from strongroom.errors import NotBuilt

    found = Hosting(Options(home=tmp_path / "home", page=True), world.world.platform, web, discreet=None, now=lambda: NOW)
    try:
        service = found.service(behind=None)
    except NotBuilt:
        pytest.skip("the chat page is not built")
    finally:
        found.close()

    @running
    async def go() -> None:
        assert (await asked(service, world, "GET", "/")).status == 200

    go()


# --- what the operator decides ------------------------------------------------------------------------------------------


def said(*words: str) -> Options | None:
    """What an enclave process makes of the operator's words."""
    operators, process = ArgumentParser(), ArgumentParser()
    for parser in (operators, process):
        parser.add_argument("--host", default="127.0.0.1")
    arguments.flags(operators)
    arguments.declare(process)
    args = operators.parse_args(words)
    return arguments.read(process.parse_args(["--host", args.host, *arguments.words(args, Path("/home/room"))]))


NAMED = ("--contract", "sha256:" + "ab" * 32)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "enclave.example"])
def test_where_others_can_reach_it_nobody_gets_a_room_by_being_the_first_to_ask(host):
    with pytest.raises(Usage, match="first") as caught:
        said("--host", host)
    assert "--contract" in caught.value.hint
    process = ArgumentParser()
    process.add_argument("--host")
    arguments.declare(process)
    with pytest.raises(Usage):  # told by itself, without the operator's command
        arguments.read(process.parse_args(["--host", host, "--serve", "home"]))
    assert said("--host", host, *NAMED).contracts == {NAMED[1]}
    assert said("--host", host, "--first-comer").contracts == frozenset()
    with pytest.raises(Usage, match="--first-comer"):
        said("--host", host, "--first-comer", *NAMED)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_on_this_machine_alone_the_first_contract_that_is_opened_is_the_one(host):
    assert said("--host", host).contracts == frozenset()


def test_an_enclave_that_only_runs_is_told_nothing_of_serving():
    process = ArgumentParser()
    arguments.declare(process)
    assert arguments.read(process.parse_args([])) is None


def test_who_has_no_key_is_let_in_on_loopback_alone_unless_the_operator_says_otherwise():
    here, elsewhere = said(), said("--host", "0.0.0.0", *NAMED)
    assert (here.anonymous, here.outside, here.loopback) == (OWN_MACHINE, False, True)
    assert (elsewhere.anonymous, elsewhere.loopback) == (None, False)
    assert said("--keyed").anonymous is None
    limited = said("--host", "0.0.0.0", *NAMED, "--anonymous", "--requests-per-minute", "5", "--tokens-per-minute", "900")
    assert limited.anonymous == Limits(requests_per_minute=5, tokens_per_minute=900)
    assert limited.outside
    everybody = said("--anonymous")  # on loopback too: the operator knows of who passes requests on
    assert (everybody.anonymous, everybody.outside) == (ANYBODY, True)
    half = said("--anonymous", "--tokens-per-minute", "7")
    assert half.anonymous == replace(ANYBODY, tokens_per_minute=7)


def test_nobody_is_let_in_without_a_limit():
    for usual in (ANYBODY, OWN_MACHINE):
        assert usual.requests_per_minute is not None
        assert usual.tokens_per_minute is not None


def test_everything_that_an_operator_says_reaches_the_process(tmp_path):
    log = tmp_path / "texts.log"
    pages = ("--origin", "https://b", "--origin", "https://c")
    two = {"sha256:" + "ab" * 32, "sha256:" + "cd" * 32}
    contracts = [word for digest in sorted(two) for word in ("--contract", digest)]
    found = said("--bare", "--page", "--tls", "a.example", *pages, "--log-texts", str(log), *contracts)
    assert found == Options(
        home=Path("/home/room"),
        anonymous=OWN_MACHINE,
        outside=False,
        bare=True,
        tls="a.example",
        loopback=True,
        origins=frozenset({"https://b", "https://c"}),
        log=log,
        page=True,
        contracts=frozenset(two),
    )


@pytest.mark.parametrize("digest", ["", "sha256:3f2a", "sha256:" + "AB" * 32, "ab" * 32])
def test_the_beginning_of_a_digest_lets_no_contract_in(digest):
    with pytest.raises(Usage):
        said("--contract", digest)


def test_without_its_library_nothing_is_served(monkeypatch):
    monkeypatch.setitem(sys.modules, "httptools", None)
    for name in ("strongroom.app.inference.bounded", "uvicorn.protocols.http.httptools_impl"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(MissingExtra):
        listening.server(None, None, announce=lambda _url: None)  # type: ignore[arg-type]
