"""The client that verifies: what it hands on, and the attacks that it must notice. Each is named for what is done to it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import json
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import strongroom
from fake_service import (
    MODEL,
    PII,
    TRUST,
    URL,
    WEIGHTS,
    WORDS,
    Answer,
    Dies,
    Keys,
    Service,
    Way,
    altered,
    manifest_of,
    on,
    proposal_of,
)
from inference_world import SERVE, InferenceWorld, WallClock
from strongroom import errors, wire
from strongroom.app.client import answer as answers
from strongroom.app.client import carrier as carriers
from strongroom.app.client import session as sessions
from strongroom.app.client.asking import Outcome, Word, origin_of
from strongroom.app.client.room import Room
from strongroom.app.client.session import Reply, Session, Terms, establish, questions
from strongroom.app.client.verified import verified_async_client, verified_client
from strongroom.app.inference.listening import Tls
from strongroom.attest.keyset import TlsKey
from strongroom.contract import Contract
from strongroom.ehbp import PrivateKey
from strongroom.inference.verification import Reader
from strongroom.party import SigningKey
from strongroom.trust import Root, Trust
from strongroom.wire import Envelope
from tls_between import Authority, between
from world import DAY, EDITED, HOUR, MEASUREMENT, NOW, keys_of, seed, sign_all

CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"content": "How do cells divide?", "role": "user"}], "model": MODEL}
RECEIPTS = "/v1/aci/receipts/"


@pytest.fixture
def service() -> Service:
    return Service()


def client_of(service: Service, **options: Any) -> Any:
    told = {"trust": TRUST, "contract": service.contract.digest, "transport": Way(service), **options}
    found = verified_client(URL, **told)
    found._verified.verifier.now = service.clock
    return found


def async_client_of(service: Service, **options: Any) -> Any:
    told = {"trust": TRUST, "contract": service.contract.digest, "transport": Way(service), **options}
    found = verified_async_client(URL, **told)
    found._verified.verifier.now = service.clock
    return found


def ask(client: Any, *, stream: bool = False, path: str = CHAT, **more: Any) -> httpx.Response:
    return client.post(path, json={**HELLO, "stream": stream, **more})


def refused(service: Service, error: type[errors.StrongroomError], *, stream: bool = False, **options: Any) -> Any:
    """Both clients refuse an answer, with the same error; what the first raised."""
    with client_of(service, **options) as client, pytest.raises(error) as found:
        ask(client, stream=stream)

    async def again() -> None:
        async with async_client_of(service, **options) as client:
            with pytest.raises(error):
                await client.post(CHAT, json={**HELLO, "stream": stream})

    asyncio.run(again())
    return found.value


# --- what goes well ---------------------------------------------------------------------------------------------------


def test_an_answer_is_verified_to_its_receipt(service: Service) -> None:
    with client_of(service) as client:
        answer = ask(client)
        outcome = answer.extensions["strongroom"]
    assert answer.json()["choices"][0]["message"]["content"] == "".join(WORDS)
    assert outcome.word is Word.SIMULATED
    assert outcome.receipt.label == "platform: simulated (no hardware protection)"
    passed = [check.number for check in outcome.verification.transcript.checks if check.status.value == "passed"]
    assert set(passed) >= Reader.CLIENT.value
    assert [check.status.value for check in outcome.session.transcript.checks] == ["passed"] * 8
    assert answer.headers["x-receipt-id"] == outcome.receipt.receipt.receipt_id
    assert outcome is client.last


def test_a_platform_with_hardware_has_another_word(service: Service) -> None:
    with client_of(service) as client:
        ask(client)
        outcome = client.last
    real = Outcome(CHAT, MODEL, _Real(), receipt=outcome.receipt)  # type: ignore[arg-type]
    assert real.word is Word.VERIFIED


class _Real:
    simulated = False


def test_nothing_of_the_prompt_or_its_sender_is_sent_in_the_open(service: Service) -> None:
    with client_of(service) as client:
        client.post(CHAT, json=HELLO, headers={"cookie": "me", "x-stainless-os": "mine", "user-agent": "me"})
    (sent,) = [asked for asked in service.asked if asked.method == "POST"]
    assert b"cells" not in sent.body
    assert not {"cookie", "x-stainless-os", "user-agent"} & set(sent.headers)
    assert service.opened == [json.dumps(HELLO, separators=(",", ":")).encode()]


def test_a_stream_is_handed_on_as_it_comes_and_its_end_withheld_until_the_receipt_is_there(service: Service) -> None:
    seen = []
    with client_of(service) as client, client.stream("POST", CHAT, json={**HELLO, "stream": True}) as answer:
        seen.extend((piece, client.last) for piece in answer.iter_raw())
    assert len(seen) == len(WORDS) + 1
    assert all(last is None for _, last in seen[:-1])
    assert seen[-1][0] == b"data: [DONE]\n\n"
    assert seen[-1][1].receipt is not None


def test_the_last_byte_of_a_whole_answer_is_withheld_until_the_receipt_is_there(service: Service) -> None:
    service.slow_receipts = 1
    with client_of(service) as client, client.stream("POST", CHAT, json=HELLO) as answer:
        pieces = [(piece, answer.extensions["strongroom"].word) for piece in answer.iter_raw()]
    assert pieces[-1] == (b"}", Word.SIMULATED)
    assert pieces[0][1] is Word.PENDING


def test_the_openai_client_works_streaming_and_not(service: Service) -> None:
    openai = pytest.importorskip("openai", reason="the extra `dev` is not installed")
    with client_of(service) as http:
        client = openai.OpenAI(base_url=f"{URL}/v1", api_key="unused", http_client=http, max_retries=0)
        chat = client.chat.completions.create(model=MODEL, messages=HELLO["messages"])
        assert chat.choices[0].message.content == "".join(WORDS)
        options = {"include_usage": True}
        stream = client.chat.completions.create(model=MODEL, messages=HELLO["messages"], stream=True, stream_options=options)
        chunks = list(stream)
        assert [c.choices[0].delta.content for c in chunks if c.choices] == list(WORDS)
        assert chunks[-1].usage.completion_tokens == len(WORDS)
        assert http.last.word is Word.SIMULATED
        assert client.completions.create(model=MODEL, prompt="Cells").choices[0].text == "".join(WORDS)
        assert client.embeddings.create(model=MODEL, input="Cells", encoding_format="float").data[0].embedding == [0.5, 0.25]
        assert [model.id for model in client.models.list()] == [MODEL]
        assert client.models.retrieve(MODEL).owned_by == "lab"
        with pytest.raises(openai.NotFoundError) as found:
            client.chat.completions.create(model="another/model", messages=HELLO["messages"])
        assert found.value.code == "app.not_found"
        assert http.last.word is Word.SIMULATED  # the refusal has a receipt too
        with pytest.raises(openai.NotFoundError):
            client.responses.create(model=MODEL, input="Cells")
    assert len({path for path in service.log if RECEIPTS in path}) == 5


def test_the_asynchronous_openai_client_works(service: Service) -> None:
    openai = pytest.importorskip("openai", reason="the extra `dev` is not installed")

    async def talk() -> list[Any]:
        async with async_client_of(service) as http:
            client = openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key="unused", http_client=http, max_retries=0)
            said = [model.id async for model in client.models.list()]
            chat = await client.chat.completions.create(model=MODEL, messages=HELLO["messages"])
            said.append(chat.choices[0].message.content)
            stream = await client.chat.completions.create(model=MODEL, messages=HELLO["messages"], stream=True)
            said += [chunk.choices[0].delta.content async for chunk in stream]
            return [*said, http.last.word]

    assert asyncio.run(talk()) == [MODEL, "".join(WORDS), *WORDS, Word.SIMULATED]


def test_an_error_reaches_the_openai_client_typed_and_no_answer_does(service: Service) -> None:
    openai = pytest.importorskip("openai", reason="the extra `dev` is not installed")
    service.tampers.append(on(CHAT, lambda a: altered(a, pieces=[a.body[:-1] + bytes([a.body[-1] ^ 1])])))
    with client_of(service) as http:
        client = openai.OpenAI(base_url=f"{URL}/v1", api_key="unused", http_client=http, max_retries=0)
        with pytest.raises((errors.FrameAltered, openai.APIConnectionError)) as found:
            client.chat.completions.create(model=MODEL, messages=HELLO["messages"])
    raised = found.value if isinstance(found.value, errors.FrameAltered) else found.value.__cause__
    assert isinstance(raised, errors.FrameAltered)


def test_the_service_is_verified_once_and_again_when_it_does_not_last(service: Service) -> None:
    with client_of(service) as client:
        ask(client)
        ask(client)
        assert service.log.count("GET /v1/aci/attestation") == 1
        service.clock.now = client.establish().until - 60
        service.keys = Keys("second", service.contract.digest, not_after=NOW + 14 * DAY)
        ask(client)
    assert service.log.count("GET /v1/aci/attestation") == 2


def test_two_threads_verify_the_service_once(service: Service) -> None:
    with client_of(service) as client:
        threads = [threading.Thread(target=client.establish) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert service.log.count("GET /v1/aci/attestation") == 1


def test_new_keys_are_verified_and_the_request_sent_again(service: Service) -> None:
    with client_of(service) as client:
        ask(client)
        service.rotate()
        assert ask(client).status_code == 200
        assert client.last.session.keyset == service.keys.keyset
    assert [path for path in service.log if path.startswith("POST")] == [f"POST {CHAT}"] * 3


def test_keys_named_in_a_header_have_the_service_verified_before_the_next_request(service: Service) -> None:
    service.tampers.append(
        on(CHAT, lambda a: altered(a, headers={**a.headers, "x-aci-keyset-digest": "sha256:" + 64 * "0"}))
    )
    with client_of(service) as client:
        assert ask(client).status_code == 200
        assert ask(client).status_code == 200
    assert service.log.count("GET /v1/aci/attestation") == 2


def test_a_service_that_attests_keys_which_it_does_not_have_is_refused_after_one_more_try(service: Service) -> None:
    with client_of(service) as client:
        client.establish()
        service.keys.requests = PrivateKey(seed("not the attested one"))
        service.tampers.append(on("/.well-known", lambda a: altered(a, pieces=[Keys("first", "").requests.public.config()])))
        with pytest.raises(errors.KeyConfigMismatch):
            ask(client)
    assert service.log.count(f"POST {CHAT}") == 2


def test_a_service_that_takes_new_keys_while_it_is_verified_is_verified_again(service: Service) -> None:
    def rotate(answer: Answer) -> Answer:
        if service.log.count("GET /v1/aci/attestation") == 1:
            service.rotate()
        return answer

    service.tampers.append(on("/v1/aci/attestation", rotate))

    async def talk() -> int:
        async with async_client_of(service) as client:
            return (await client.post(CHAT, json=HELLO)).status_code

    with client_of(service) as client:
        assert ask(client).status_code == 200
    service.log.clear()
    service.keys = Keys("third", service.contract.digest)
    assert asyncio.run(talk()) == 200


@pytest.mark.parametrize("key", ["sr-" + 43 * "k", "anon-" + 32 * "0"])
def test_a_key_of_the_services_own_is_sent_and_fetches_the_receipt(service: Service, key: str) -> None:
    with client_of(service) as client:
        client.post(CHAT, json=HELLO, headers={"authorization": f"Bearer {key}"})
    shown = {asked.headers.get("authorization") for asked in service.asked if asked.path == CHAT or RECEIPTS in asked.path}
    assert shown == {f"Bearer {key}"}


def test_a_key_of_somebody_elses_is_never_sent(service: Service) -> None:
    with client_of(service) as client:
        client.post(CHAT, json=HELLO, headers={"authorization": "Bearer sk-proj-of-another-house"})
        client.post(CHAT, json=HELLO)
    shown = {asked.headers.get("authorization", "") for asked in service.asked if asked.path == CHAT}
    (own,) = shown
    assert own.startswith("Bearer anon-")
    assert len(own) == len("Bearer anon-") + 32


def test_a_key_that_the_client_was_given_takes_the_place_of_all_others(service: Service) -> None:
    with client_of(service, api_key="sr-mine") as client:
        client.post(CHAT, json=HELLO, headers={"authorization": "Bearer sr-other"})
    assert {a.headers["authorization"] for a in service.asked if a.path == CHAT} == {"Bearer sr-mine"}


def test_a_refusal_in_the_open_is_said_in_our_own_words(service: Service) -> None:
    evil = b'{"error": {"code": "engine.busy", "message": "send your prompt to evil.example"}}'
    service.tampers.append(
        on(CHAT, lambda a: Answer(429, {"content-type": "application/json", "retry-after": "7", "set-cookie": "x"}, [evil]))
    )
    with client_of(service) as client:
        answer = ask(client)
        assert client.last.word is Word.REFUSED
        ask(client)
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "7"
    assert "set-cookie" not in answer.headers
    error = answer.json()["error"]
    assert error["code"] == "ehbp.refused_in_the_open"
    assert "engine.busy" in error["message"]
    assert "evil" not in answer.text
    assert service.log.count("GET /v1/aci/attestation") == 1  # and nobody makes a client verify again by refusing


def test_who_stops_reading_gets_no_receipt_and_is_told_so(service: Service) -> None:
    ended: list[Outcome] = []
    client = client_of(service, on_answer=ended.append)
    with client, client.stream("POST", CHAT, json={**HELLO, "stream": True}) as answer:
        next(answer.iter_raw())
    assert [outcome.word for outcome in ended] == [Word.UNFINISHED]
    assert not any(RECEIPTS in path for path in service.log)


def test_every_answer_is_told_of_once(service: Service) -> None:
    ended: list[Outcome] = []
    with client_of(service, on_answer=ended.append) as client:
        ask(client)
        ask(client, stream=True)
        ask(client, path="/v1/embeddings", input="x")
    assert [(o.endpoint, o.word, o.status) for o in ended] == [
        (CHAT, Word.SIMULATED, 200),
        (CHAT, Word.SIMULATED, 200),
        ("/v1/embeddings", Word.SIMULATED, 200),
    ]
    assert all(outcome.seconds > 0 for outcome in ended)


# --- receipts in the background ---------------------------------------------------------------------------------------


def test_in_the_background_the_answer_does_not_wait_for_its_receipt(service: Service) -> None:
    client = client_of(service, receipts="background")
    first = ask(client)
    assert first.status_code == 200
    client.close()  # waits for what is due
    assert first.extensions["strongroom"].word is Word.SIMULATED


def test_in_the_background_a_false_receipt_stops_the_next_request(service: Service) -> None:
    service.tampers.append(_of_another_request(service))
    client = client_of(service, receipts="background")
    first = ask(client)
    for thread in list(client._verified._pending):
        thread.join()
    assert first.extensions["strongroom"].word is Word.REFUSED
    with pytest.raises(errors.InferenceNotVerified):
        ask(client)
    client.close()


def test_in_the_background_under_asyncio_too(service: Service) -> None:
    service.slow_receipts = 1

    async def talk() -> tuple[Word, Word]:
        client = async_client_of(service, receipts="background")
        good = await client.post(CHAT, json=HELLO)
        await asyncio.gather(*client._verified._pending)
        service.tampers.append(_of_another_request(service))
        bad = await client.post(CHAT, json=HELLO)
        await asyncio.gather(*client._verified._pending)
        with pytest.raises(errors.InferenceNotVerified):
            await client.post(CHAT, json=HELLO)
        await client.aclose()
        return good.extensions["strongroom"].word, bad.extensions["strongroom"].word

    assert asyncio.run(talk()) == (Word.SIMULATED, Word.REFUSED)


def test_in_the_background_too_a_truncated_stream_raises_at_its_end(service: Service) -> None:
    service.tampers.append(on(CHAT, lambda a: altered(a, pieces=a.pieces[:-1])))
    refused(service, errors.NotEnded, stream=True, receipts="background")


# --- attacks before anything is sent ----------------------------------------------------------------------------------


def _prompts(service: Service) -> int:
    return sum(path.startswith("POST") for path in service.log)


def _again(service: Service, change: Callable[[Any], Any]) -> Any:
    """A tamper with the report."""
    return on("/v1/aci/attestation", lambda a: altered(a, pieces=[wire.encode(change(json.loads(a.body)))]))


def test_a_stale_attestation(service: Service) -> None:
    old = json.loads(json.dumps(service.report(64 * "0")))
    service.tampers.append(_again(service, lambda _: old))
    error = refused(service, errors.NotAffirming)
    assert error.reason == "attest.not_bound"
    assert error.message.startswith("E2: A6")
    assert not _prompts(service)


def test_an_attestation_for_another_nonce(service: Service) -> None:
    service.tampers.append(_again(service, lambda _: service.report(seed("another nonce").hex())))
    assert refused(service, errors.NotAffirming).reason == "attest.not_bound"
    assert not _prompts(service)


@pytest.mark.parametrize("nonce", [b"", b"short", bytes(31), bytes(33)])
def test_a_nonce_of_another_shape_is_never_asked_with(service: Service, nonce: bytes) -> None:
    terms = Terms(trust=TRUST, contract=service.contract.digest)
    replies = (Reply(200, wire.encode(service.report(64 * "0"))), Reply(200, b""), Reply(200, b""))
    with pytest.raises(errors.BadNonce):
        establish(terms, nonce=nonce, replies=replies, at=NOW)


def test_evidence_that_is_too_old(service: Service) -> None:
    service.clock.now = NOW + HOUR
    with client_of(service) as client:
        service.platform.clock = dataclasses.replace(service.clock, now=NOW)
        with pytest.raises(errors.NotAffirming) as found:
            ask(client)
    assert found.value.reason == "attest.not_fresh"


def test_a_keyset_swapped_in_the_report(service: Service) -> None:
    other = Keys("of the attacker", service.contract.digest)

    def swap(report: Any) -> Any:
        report["attestation"]["workload_keyset"] = other.keyset.to_json()
        report["workload_keyset_digest"] = other.keyset.digest
        return report

    service.tampers += [
        _again(service, swap),
        on("/v1/aci/attestation", lambda a: altered(a, headers={"content-type": "application/json"})),
        on("/.well-known", lambda a: altered(a, pieces=[other.requests.public.config()])),
    ]
    assert refused(service, errors.NotAffirming).reason == "attest.not_bound"
    assert not _prompts(service)


def test_a_report_whose_header_names_another_keyset(service: Service) -> None:
    headers = {"x-aci-keyset-digest": Keys("other", "").keyset.digest}
    service.tampers.append(on("/v1/aci/attestation", lambda a: altered(a, headers=headers)))
    assert refused(service, errors.WrongKeyset).message.startswith("E1")


def test_a_keyset_swapped_between_attestation_and_request(service: Service) -> None:
    """Who took over the address cannot read what is sealed to the attested key, and attests nothing that is trusted."""
    with client_of(service) as client:
        client.establish()
        service.rotate("of the attacker")
        service.platform.root = service.platform.key = SigningKey(seed("the attacker's platform"))
        with pytest.raises(errors.NotAffirming):
            ask(client)
    assert service.opened == []


def test_a_well_known_key_that_differs_from_the_keyset(service: Service) -> None:
    other = PrivateKey(seed("another")).public.config()
    service.tampers.append(on("/.well-known", lambda a: altered(a, pieces=[other])))
    assert refused(service, errors.WrongKeyset).message.startswith("E7")
    assert not _prompts(service)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda a: altered(a, pieces=[b"garbage"]), errors.EhbpError),
        (lambda a: altered(a, pieces=[b""]), errors.BadKeyConfig),
        (lambda a: altered(a, status=404), errors.NotFound),
        (lambda a: altered(a, status=500), errors.Internal),
    ],
)
def test_a_well_known_address_without_a_key(service: Service, change: Any, error: type[errors.StrongroomError]) -> None:
    service.tampers.append(on("/.well-known", change))
    assert refused(service, error).message.startswith("E7")


def test_a_wrong_contract(service: Service) -> None:
    other = sign_all(proposal_of(service.manifest, title="Another"))
    assert refused(service, errors.OtherContract, contract=other.digest).message.startswith("E3")
    assert not _prompts(service)


def test_a_contract_that_not_everybody_signed(service: Service) -> None:
    whole = service.contract.envelope
    half = Envelope(whole.payload_type, whole.payload, whole.signatures[:1])
    service.tampers.append(on("/v1/room", lambda a: altered(a, pieces=[_room(service, contract=half.to_json())])))
    assert refused(service, errors.SignatureMissing).message.startswith("E3")


def _room(service: Service, **changes: Any) -> bytes:
    return wire.encode({**service.room(), **changes})


def test_a_contract_that_is_over() -> None:
    service = Service(changes={"not_after": NOW + 60})
    service.clock.now = NOW + 61
    assert refused(service, errors.Expired).message.startswith("E3")


def test_a_contract_for_something_else() -> None:
    program = dataclasses.replace(proposal_of(manifest_of()).program, name="evaluate")
    assert refused(Service(changes={"program": program}), errors.NotPermitted).message.startswith("E4")


def test_a_keyset_that_was_made_for_another_contract(service: Service) -> None:
    service.keys = Keys("first", wire.digest(b"another contract"))
    assert refused(service, errors.KeysetOfAnotherRun).message.startswith("E5")
    assert not _prompts(service)


def test_an_enclave_that_is_trusted_and_not_the_one_that_was_agreed_to(service: Service) -> None:
    service.platform.measurement = EDITED
    trust = dataclasses.replace(TRUST, measurements=(EDITED, MEASUREMENT))
    assert refused(service, errors.EnclaveNotNamed, trust=trust).message.startswith("E6")


def test_an_enclave_that_runs_something_else(service: Service) -> None:
    service.platform.measurement = EDITED
    assert refused(service, errors.NotAffirming).reason == "attest.measurement_not_accepted"


@pytest.mark.parametrize(
    "trust",
    [
        Trust(),
        Trust(measurements=(MEASUREMENT,)),
        Trust(roots=TRUST.roots),
        Trust(roots=(Root("simulated", SigningKey(seed("another root")).public),), measurements=(MEASUREMENT,)),
    ],
    ids=["nothing", "no root", "no measurement", "another root"],
)
def test_who_trusts_nothing_accepts_nothing(service: Service, trust: Trust) -> None:
    refused(service, errors.NotAffirming, trust=trust)
    assert not _prompts(service)


def test_weights_that_are_not_those_expected(service: Service) -> None:
    error = refused(service, errors.OtherWeights, weights={MODEL: wire.digest(b"other weights")})
    assert error.message.startswith("E8")


def test_weights_whose_digest_nobody_says() -> None:
    hidden = Service(reveal=False)
    assert "does not show" in refused(hidden, errors.OtherWeights).message
    with client_of(hidden, weights={MODEL: wire.digest(WEIGHTS)}) as client:
        assert ask(client).status_code == 200
        assert client.last.word is Word.SIMULATED


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"manifests": []}, errors.OtherWeights),
        ({"guards": []}, errors.OtherPolicy),
        ({"guards": [{**PII.to_json(), "stage": "output"}]}, errors.OtherPolicy),
        ({"guards": [PII.to_json(), {**PII.to_json(), "name": "model"}]}, errors.OtherPolicy),
        ({"contract": 1}, errors.BadField),
    ],
)
def test_a_room_that_shows_something_else(service: Service, changes: Any, error: type[errors.StrongroomError]) -> None:
    service.tampers.append(on("/v1/room", lambda a: altered(a, pieces=[_room(service, **changes)])))
    refused(service, error)
    assert not _prompts(service)


def test_a_manifest_that_its_owner_did_not_sign(service: Service) -> None:
    forged = keys_of("hospital").signing.sign(service.manifest.payload_type, service.manifest.payload)
    service.tampers.append(on("/v1/room", lambda a: altered(a, pieces=[_room(service, manifests=[forged.to_json()])])))
    assert isinstance(refused(service, errors.WireError), errors.BadSignature)


def test_a_manifest_of_another_owners_asset() -> None:
    """The lab signs, and names in its contract, a manifest that says to be the hospital's."""
    manifest = manifest_of(owner="hospital")
    manifest = keys_of("lab").signing.sign(manifest.payload_type, manifest.payload)
    service = Service()
    service.manifest = manifest
    service.contract = sign_all(proposal_of(manifest))
    service.keys = Keys("first", service.contract.digest)
    assert "another owner" in refused(service, errors.OtherWeights).message


@pytest.mark.parametrize(
    "change",
    [
        lambda a: altered(a, pieces=[b"<html>Welcome</html>"]),
        lambda a: altered(a, pieces=[b"{}"]),
        lambda a: altered(a, pieces=[b""]),
        lambda a: altered(a, status=404),
        lambda a: altered(a, status=302, headers={"location": "https://evil.example/"}, pieces=[]),
    ],
    ids=["a page", "an object", "nothing", "not found", "a redirect"],
)
def test_a_host_that_is_no_service(service: Service, change: Any) -> None:
    service.tampers.append(on("/v1/aci/attestation", change))
    refused(service, errors.StrongroomError)
    assert not _prompts(service)


def test_a_host_that_answers_without_end(service: Service) -> None:
    endless = [bytes(1 << 20)] * 8
    service.tampers.append(on("/v1/room", lambda a: altered(a, pieces=endless)))
    refused(service, errors.TooLarge)


def test_a_host_that_does_not_answer(service: Service) -> None:
    service.tampers.append(on("/v1/room", lambda a: altered(a, pieces=[Dies])))
    refused(service, errors.Unreachable)


# --- attacks on the answer --------------------------------------------------------------------------------------------


def _pieces(change: Callable[[list[bytes]], list[Any]]) -> Any:
    return on(CHAT, lambda a: altered(a, pieces=change(a.pieces)))


@pytest.mark.parametrize("at", [0, 5, 40, -1])
def test_an_answer_tampered_with_by_a_proxy_in_between(service: Service, at: int) -> None:
    def flip(pieces: list[bytes]) -> list[bytes]:
        body = bytearray(b"".join(pieces))
        body[at] ^= 1
        return [bytes(body)]

    service.tampers.append(_pieces(flip))
    refused(service, errors.EhbpError)


def test_an_answer_to_another_request_replayed(service: Service) -> None:
    with client_of(service) as client:
        ask(client)
    kept: list[Answer] = []
    service.tampers.append(on(CHAT, lambda a: kept.append(a) or kept[0]))  # type: ignore[func-returns-value]
    with client_of(service) as client:
        ask(client)
        with pytest.raises(errors.FrameAltered):
            ask(client)


def test_an_encrypted_answer_with_its_frames_in_another_order(service: Service) -> None:
    service.tampers.append(_pieces(lambda p: [p[0], p[2], p[1], *p[3:]]))
    refused(service, errors.FrameAltered, stream=True)


def test_an_encrypted_answer_with_a_frame_twice(service: Service) -> None:
    service.tampers.append(_pieces(lambda p: [p[0], p[1], p[1], *p[2:]]))
    refused(service, errors.FrameAltered, stream=True)


def test_an_encrypted_answer_without_one_of_its_frames(service: Service) -> None:
    service.tampers.append(_pieces(lambda p: [p[0], *p[2:]]))
    refused(service, errors.FrameAltered, stream=True)


def test_a_stream_truncated_at_a_frame_raises_at_its_end_and_never_says_done(service: Service) -> None:
    service.tampers.append(_pieces(lambda p: p[:-1]))
    refused(service, errors.NotEnded, stream=True)
    seen = b""
    client = client_of(service)
    with client, client.stream("POST", CHAT, json={**HELLO, "stream": True}) as answer, pytest.raises(errors.NotEnded):
        for piece in answer.iter_raw():
            seen += piece
    assert seen.count(b"data:") == len(WORDS)
    assert b"[DONE]" not in seen


def test_a_stream_truncated_inside_a_frame(service: Service) -> None:
    service.tampers.append(_pieces(lambda p: [*p[:-1], p[-1][:9]]))
    refused(service, errors.BodyTruncated, stream=True)


@pytest.mark.parametrize("kept", [0, 2])
def test_a_connection_that_dies(service: Service, kept: int) -> None:
    service.tampers.append(_pieces(lambda p: [*p[:kept], Dies]))
    refused(service, errors.BodyTruncated, stream=True)


def test_an_empty_answer(service: Service) -> None:
    service.tampers.append(_pieces(lambda _: []))
    refused(service, errors.NotEnded)


def test_bytes_added_after_the_end(service: Service) -> None:
    service.tampers.append(_pieces(lambda p: [*p, b"\0\0\0\1x"]))
    refused(service, errors.AfterEnd)


def test_a_downgrade_to_a_plaintext_answer(service: Service) -> None:
    plain = b'{"id": "chatcmpl-1", "choices": [{"message": {"content": "Buy this."}}]}'
    service.tampers.append(on(CHAT, lambda _: Answer(200, {"content-type": "application/json"}, [plain])))
    error = refused(service, errors.BadResponseNonce)
    assert "without encryption" in error.message


def test_a_host_that_answers_200_with_plain_text(service: Service) -> None:
    service.tampers.append(on(CHAT, lambda _: Answer(200, {"content-type": "text/plain"}, [b"ok"])))
    refused(service, errors.BadResponseNonce)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_elsewhere(service: Service, status: int) -> None:
    service.tampers.append(on(CHAT, lambda _: Answer(status, {"location": "https://evil.example/v1"}, [])))
    refused(service, errors.BadResponseNonce)
    assert _prompts(service) == 2  # one of each client, and to nobody else


def test_a_status_changed_on_the_way(service: Service) -> None:
    service.tampers.append(on(CHAT, lambda a: altered(a, status=201)))
    refused(service, errors.WrongStatus)


@pytest.mark.parametrize("nonce", ["", "00", 64 * "g", 64 * "0"])
def test_an_answers_nonce_of_another_shape(service: Service, nonce: str) -> None:
    service.tampers.append(on(CHAT, lambda a: altered(a, headers={**a.headers, "Ehbp-Response-Nonce": nonce})))
    refused(service, errors.EhbpError)


# --- attacks on the receipt -------------------------------------------------------------------------------------------


def _receipt(change: Callable[[Any], Any]) -> Any:
    return on(RECEIPTS, lambda a: altered(a, pieces=[change(a.body)]))


def _of_another_request(service: Service) -> Any:
    with client_of(service) as client:
        ask(client, user="another")
    other = next(iter(service.receipts.values()))[0].encode()
    return _receipt(lambda _: other)


def _failed(error: errors.InferenceNotVerified) -> str:
    return error.message.split()[0]


def test_the_receipt_of_another_request(service: Service) -> None:
    service.tampers.append(_of_another_request(service))
    error = refused(service, errors.InferenceNotVerified)
    assert (_failed(error), error.reason) == ("I7", "inference.other_request")


def _resigned(service: Service, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """The enclave itself says something else: its measurement vouches for it, and the client compares all the same."""
    before = service.weights()
    monkeypatch.setattr(service, "weights", lambda: dataclasses.replace(before, **changes))


def test_a_receipt_with_another_weights_digest(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    _resigned(service, monkeypatch, weights=wire.digest(b"smaller weights"))
    error = refused(service, errors.InferenceNotVerified)
    assert (_failed(error), error.reason) == ("I14", "inference.other_weights")


def test_a_receipt_of_another_contract(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    _resigned(service, monkeypatch, contract=wire.digest(b"another contract"))
    assert _failed(refused(service, errors.InferenceNotVerified)) == "I13"


def test_a_receipt_of_another_model(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    _resigned(service, monkeypatch, name="another/model")
    assert _failed(refused(service, errors.InferenceNotVerified)) == "I12"


def test_a_receipt_with_another_policy(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    before = service.applied()
    monkeypatch.setattr(service, "applied", lambda: dataclasses.replace(before, guards=()))
    assert _failed(refused(service, errors.InferenceNotVerified)) == "I15"


def test_a_receipt_that_is_not_signed_by_the_attested_key(service: Service) -> None:
    service.tampers.append(_receipt(lambda body: body.replace(b'"signature":"', b'"signature":"0')[:-3] + b'"}'))
    refused(service, errors.InferenceNotVerified)


def test_a_receipt_with_one_byte_changed(service: Service) -> None:
    service.tampers.append(_receipt(lambda body: body.replace(b'"completion_tokens":3', b'"completion_tokens":4')))
    assert _failed(refused(service, errors.InferenceNotVerified)) == "I4"


@pytest.mark.parametrize("body", [b"", b"{}", b"<html>", b"null"])
def test_what_is_no_receipt(service: Service, body: bytes) -> None:
    service.tampers.append(_receipt(lambda _: body))
    assert _failed(refused(service, errors.InferenceNotVerified)) == "I1"


def test_a_receipt_that_is_withheld(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strongroom.app.client.verified.RECEIPT_PAUSES", (0.0, 0.0))
    service.tampers.append(on(RECEIPTS, lambda a: altered(a, status=404)))
    refused(service, errors.NoInferenceReceipt)
    assert sum(RECEIPTS in path for path in service.log) == 6


@pytest.mark.parametrize("change", [lambda a: altered(a, status=500), lambda a: altered(a, pieces=[Dies])])
def test_a_receipt_that_cannot_be_had(service: Service, change: Any) -> None:
    service.tampers.append(on(RECEIPTS, change))
    refused(service, errors.NoInferenceReceipt)


def test_an_answer_that_names_no_receipt(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    from strongroom.ehbp import EnclaveExchange

    respond = EnclaveExchange.respond
    monkeypatch.setattr(EnclaveExchange, "respond", lambda self, **kw: respond(self, **{**kw, "receipt_id": None}))
    refused(service, errors.NoInferenceReceipt)
    with client_of(service) as client:  # a refusal need not have one, and is then no more than that
        assert ask(client, model="other").status_code == 404
        assert client.last.word is Word.REFUSED


def test_a_receipt_is_waited_for(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strongroom.app.client.verified.RECEIPT_PAUSES", (0.0, 0.0))
    service.slow_receipts = 2
    with client_of(service) as client:
        assert ask(client).status_code == 200


def test_after_an_answer_that_failed_the_service_is_verified_again(service: Service) -> None:
    with client_of(service) as client:
        service.tampers.append(_pieces(lambda p: p[:-1]))
        with pytest.raises(errors.NotEnded):
            ask(client, stream=True)
        assert client.last.word is Word.REFUSED
        service.tampers.clear()
        ask(client)
    assert service.log.count("GET /v1/aci/attestation") == 2


# --- where requests may go --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["https://service.test/v1", "http://evil.test", "http://service.test:81", "http://service.test.evil.test"]
)
def test_a_request_to_another_host_is_not_sent(service: Service, url: str) -> None:
    with client_of(service) as client, pytest.raises(errors.Usage):
        client.post(f"{url}{CHAT}", json=HELLO)
    assert service.log == []


@pytest.mark.parametrize("path", ["/", "/v1/files", "/v1/responses", "/v1/aci/receipts/x", "/v1/chat/completions/"])
def test_what_is_not_served_over_a_verified_session_is_not_asked_for(service: Service, path: str) -> None:
    with client_of(service) as client:
        for answer in (client.get(path), client.post(path, json=HELLO), client.get(CHAT)):
            assert answer.status_code == 404
            assert answer.json()["error"]["code"] == "app.not_found"
    assert service.log == []


def test_models_are_those_of_the_contract_and_not_what_the_host_says(service: Service) -> None:
    with client_of(service) as client:
        assert [model["id"] for model in client.get("/v1/models").json()["data"]] == [MODEL]
        assert client.get("/v1/models/none").status_code == 404
    assert not any("/v1/models" in path for path in service.log)


@pytest.mark.parametrize(
    "url", ["", "service.test", "ftp://service.test", "https://", "https://me:secret@host", "https://host/path", 3]
)
def test_what_is_no_address(url: Any) -> None:
    with pytest.raises(errors.Usage):
        origin_of(url)


@pytest.mark.parametrize("url", ["https://host", "https://host/", "https://host/v1", "https://host/v1/"])
def test_an_address_is_that_of_a_host(url: str) -> None:
    assert str(origin_of(url)) == "https://host/"


@pytest.mark.parametrize("contract", ["", "sha256:3f2a", "the newest"])
def test_what_is_no_contract(contract: str) -> None:
    with pytest.raises(errors.BadField):
        verified_client(URL, trust=TRUST, contract=contract)


def test_what_is_no_digest_of_weights(service: Service) -> None:
    with pytest.raises(errors.BadField):
        verified_client(URL, trust=TRUST, contract=service.contract.digest, weights={MODEL: "3f2a"})


def test_receipts_are_required_or_in_the_background(service: Service) -> None:
    with pytest.raises(errors.Usage):
        verified_client(URL, trust=TRUST, contract=service.contract.digest, receipts="never")  # type: ignore[arg-type]


def test_a_trust_file_is_read(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "trust.json"
    path.write_bytes(json.dumps(TRUST.to_json()).encode())
    with client_of(service, trust=path) as client:
        assert ask(client).status_code == 200
    with pytest.raises(errors.NotFound):
        client_of(service, trust=tmp_path / "none.json")


def test_only_establish_makes_a_session(service: Service) -> None:
    with client_of(service) as client:
        found = client.establish()
    with pytest.raises(TypeError):
        Session(**{f.name: getattr(found, f.name) for f in dataclasses.fields(Session)}, maker=object())
    with pytest.raises((TypeError, ValueError)):
        dataclasses.replace(found, until=NOW)


def test_it_is_there_by_its_short_name() -> None:
    assert strongroom.verified_client is verified_client
    assert strongroom.verified_async_client is verified_async_client


# --- the checks and their numbers -------------------------------------------------------------------------------------


def test_the_checks_stand_in_the_page_with_the_same_numbers() -> None:
    page = (Path(__file__).parents[1] / "docs" / "private-inference.md").read_text(encoding="utf-8")
    for number, name in sessions.STEPS:
        assert f"| {number} | {name} |" in page


def test_what_is_asked_for_is_asked_with_the_nonce() -> None:
    assert questions(bytes(32))[0] == f"/v1/aci/attestation?nonce={64 * '0'}"


def test_what_a_host_shows_can_be_read_before_it_is_relied_on(service: Service) -> None:
    shown = sessions.look(Reply(200, wire.encode(service.room())))
    assert isinstance(shown, Contract)
    assert shown.digest == service.contract.digest
    with pytest.raises(errors.NotFound):
        sessions.look(Reply(404, b"no"))
    with pytest.raises(errors.NotPermitted):
        sessions.look(Reply(403, wire.encode({"error": {"code": "policy.not_permitted", "message": "no", "hint": ""}})))


# --- what is kept -----------------------------------------------------------------------------------------------------


@pytest.fixture
def kept(service: Service) -> answers.Answer:
    with client_of(service, keep=True) as client:
        ask(client, stream=True)
        return client.last.answer


def _terms(service: Service) -> Terms:
    return Terms(trust=TRUST, contract=service.contract.digest)


def test_a_kept_answer_is_examined_again_offline(service: Service, kept: answers.Answer) -> None:
    read = answers.Answer.parse(json.dumps(kept.to_json()).encode())
    assert read == kept
    assert answers.is_answer(json.dumps(kept.to_json()).encode())
    found = read.examine(read.session(_terms(service)))
    assert found.require(Reader.CLIENT).receipt.model == MODEL
    assert b"[DONE]" in read.restored


def test_nothing_is_kept_unasked(service: Service) -> None:
    with client_of(service) as client:
        ask(client)
        assert client.last.answer is None


@pytest.mark.parametrize(
    ("changes", "number"),
    [
        ({"request": b"{}"}, "I7"),
        ({"returned": b"other"}, "I8"),
        ({"restored": b"data: {}\n\n"}, "I9"),
        ({"endpoint": "/v1/completions"}, "I17"),
        ({"receipt_id": "another"}, "I18"),
        ({"receipt": b"{}"}, "I1"),
        ({"received_at": NOW - HOUR}, "I5"),
        ({"sent_at": NOW + HOUR}, "I7"),
    ],
)
def test_a_kept_answer_that_was_changed(service: Service, kept: answers.Answer, changes: Any, number: str) -> None:
    read = dataclasses.replace(kept, **changes)
    with pytest.raises(errors.InferenceNotVerified) as found:
        read.examine(read.session(_terms(service))).require(Reader.CLIENT)
    assert _failed(found.value) == number


def test_a_kept_answer_with_another_nonce(service: Service, kept: answers.Answer) -> None:
    with pytest.raises(errors.NotAffirming):
        dataclasses.replace(kept, nonce=bytes(32)).session(_terms(service))


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b'{"format": "strongroom.answer.v1"}', b'{"format": "strongroom.answer.v2"}'],
)
def test_what_is_no_kept_answer(data: bytes) -> None:
    with pytest.raises(errors.WireError):
        answers.Answer.parse(data)
    assert answers.is_answer(data) == (data == b'{"format": "strongroom.answer.v1"}')


# --- what is heard of an answer ---------------------------------------------------------------------------------------


def _hear(content_type: str | None, *pieces: bytes, embeds: bool = False) -> answers.Heard:
    found = answers.Heard(content_type, embeds=embeds)
    for piece in pieces:
        found.feed(piece)
    found.end()
    return found


def test_an_answer_is_heard_however_it_is_cut() -> None:
    stream = (
        b'data: {"id": "a", "choices": []}\n\n: ping\n\ndata: {"id": "b", "usage": {"prompt_tokens": 1}}\n\ndata: [DONE]\n\n'
    )
    whole = _hear("text/event-stream; charset=utf-8", stream)
    assert (whole.chat_id, whole.refused, whole.usage.prompt) == ("a", None, 1)
    for n in range(len(stream)):
        cut = _hear("text/event-stream", stream[:n], stream[n:])
        assert (cut.chat_id, cut.usage) == (whole.chat_id, whole.usage)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", (None, None, None)),
        (b"not JSON", (None, None, None)),
        (b"[1]", (None, None, None)),
        (b'{"id": 3, "usage": {"prompt_tokens": -1}}', (None, None, None)),
        (b'{"error": {"code": "engine.busy"}}', (None, "engine.busy", None)),
        (b'{"error": {"code": null}}', (None, "unnamed", None)),
        (b'{"error": "no"}', (None, "unnamed", None)),
    ],
)
def test_what_is_not_said_in_the_form_is_not_said(body: bytes, said: tuple[Any, ...]) -> None:
    heard = _hear("application/json", body)
    assert (heard.chat_id, heard.refused, heard.usage) == said


def test_tokens_of_embeddings_are_of_their_own_kind() -> None:
    heard = _hear("application/json", b'{"usage": {"prompt_tokens": 5, "total_tokens": 5}}', embeds=True)
    assert (heard.usage.prompt, heard.usage.embedding) == (0, 5)


def test_the_mark_of_the_end_is_withheld_however_the_stream_is_cut(service: Service) -> None:
    """Whatever the enclave puts into one record: what comes before the mark is handed on, the mark is not."""
    stream = b'data: {"a": 1}\n\ndata: {"b": 2}\n\ndata: [DONE]\n\n'
    for cuts in itertools.combinations(range(1, len(stream)), 2):
        with client_of(service) as client:
            exchange = _exchange(client)
        pieces = [stream[: cuts[0]], stream[cuts[0] : cuts[1]], stream[cuts[1] :]]
        out = [exchange._release(piece) for piece in pieces]
        assert b"".join(out) == b'data: {"a": 1}\n\ndata: {"b": 2}\n\n'
        assert exchange.rest == b"data: [DONE]\n\n"


def _exchange(client: Any) -> Any:
    class _Exchange(answers.Heard):
        pass

    from strongroom.app.client.asking import Exchange

    found = Exchange.__new__(Exchange)
    found._heard = _Exchange("text/event-stream", embeds=False)
    found._held, found._done = b"", False
    return found


# --- against the real server ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[InferenceWorld, str, Path]]:
    """A room over a socket, and a trust file."""
    pii = frozenset({"pii"})
    serve = dataclasses.replace(SERVE, padding=1024, observability="aggregate", input_guards=pii, output_guards=pii)
    path = tmp_path_factory.mktemp("real") / "trust.json"
    with InferenceWorld(clock=WallClock(), serve=serve) as world, world.listening() as url:
        path.write_text(json.dumps(world.trust().to_json()))
        yield world, url, path


def test_the_real_server_is_verified_on_every_route(real: tuple[InferenceWorld, str, Path]) -> None:
    world, url, trust = real
    words = []
    with verified_client(url, trust=trust, contract=world.contract.digest) as client:
        for path, asked in (
            (CHAT, HELLO),
            (CHAT, {**HELLO, "stream": True, "stream_options": {"include_usage": True}}),
            ("/v1/completions", {"model": MODEL, "prompt": "Cells"}),
            ("/v1/completions", {"model": MODEL, "prompt": "Cells", "stream": True}),
            ("/v1/embeddings", {"model": MODEL, "input": ["Cells", "divide"]}),
            (CHAT, {**HELLO, "model": "another/model"}),
            (CHAT, {**HELLO, "messages": "no messages"}),
        ):
            answer = client.post(path, json=asked)
            words.append((answer.status_code, client.last.word))
    assert words == [(200, Word.SIMULATED)] * 5 + [(404, Word.SIMULATED), (400, Word.SIMULATED)]


def test_the_real_server_under_asyncio(real: tuple[InferenceWorld, str, Path]) -> None:
    world, url, trust = real

    async def talk() -> list[Word]:
        async with verified_async_client(url, trust=trust, contract=world.contract.digest) as client:
            answers = await asyncio.gather(*(client.post(CHAT, json={**HELLO, "stream": n % 2 == 0}) for n in range(8)))
            return [answer.extensions["strongroom"].word for answer in answers]

    assert asyncio.run(talk()) == [Word.SIMULATED] * 8


def test_an_api_key_that_the_service_asks_for(tmp_path: Path) -> None:
    with InferenceWorld(clock=WallClock(), limits=None) as world, world.listening() as url:
        key = world.keys.add("tester", at=world.clock())
        options = {"trust": world.trust(), "contract": world.contract.digest}
        with verified_client(url, **options) as client:
            assert client.post(CHAT, json=HELLO).status_code == 401
            assert client.last.word is Word.REFUSED
        with verified_client(url, api_key=key, **options) as client:
            assert client.post(CHAT, json=HELLO).status_code == 200
            assert client.last.word is Word.SIMULATED


def test_the_example_does_what_it_says(real: tuple[InferenceWorld, str, Path]) -> None:
    world, url, trust = real
    example = Path(__file__).parents[1] / "examples" / "private_inference.py"
    command = [sys.executable, str(example), url, str(trust)]
    done = subprocess.run(
        [*command, world.contract.digest, "How do cells divide?"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" passed: ") == 8
    assert "You said: How do cells divide?" in done.stdout
    assert f"simulated: {MODEL}, weights sha256:" in done.stdout
    wrong = [*command, wire.digest(b"another"), "How?"]
    refused_ = subprocess.run(wrong, capture_output=True, text=True, check=False, timeout=60)
    assert refused_.returncode == 1
    assert refused_.stderr.startswith("inference.other_contract: E3")
    assert refused_.stdout == ""


# --- TLS --------------------------------------------------------------------------------------------------------------

AUTHORITY = Authority()


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine relies on an authority, which signs for whoever asks it."""
    monkeypatch.setattr(carriers, "tls", AUTHORITY.trusted)


@pytest.fixture(scope="module")
def inside() -> Iterator[tuple[InferenceWorld, str]]:
    """A room whose TLS ends inside, at a key of its own."""
    own = Tls.make("127.0.0.1", WallClock()())
    with InferenceWorld(clock=WallClock(), tls=own) as world, world.listening(tls=own) as url:
        yield world, url


def over(world: InferenceWorld, url: str, body: dict[str, Any] = HELLO) -> list[Any]:
    """What both clients make of one request: the word, or the error."""
    options: dict[str, Any] = {"trust": world.trust(), "contract": world.contract.digest, "api_key": f"anon-{'7' * 32}"}
    found: list[Any] = []
    with verified_client(url, **options) as client:
        try:
            client.post(CHAT, json=body)
            found.append(client.last.word if client.last else None)
        except (errors.StrongroomError, httpx.TransportError) as error:
            found.append(type(error))

    async def again() -> None:
        async with verified_async_client(url, **options) as client:
            try:
                await client.post(CHAT, json=body)
                found.append(client.last.word if client.last else None)
            except (errors.StrongroomError, httpx.TransportError) as error:
                found.append(type(error))

    asyncio.run(again())
    return found


def secret_in(sent: bytes | bytearray) -> bool:
    return b"authorization" in sent.lower() or b"POST" in sent or b"7777" in sent


def test_tls_that_ends_inside_is_recognised_by_the_attested_keyset(inside: tuple[InferenceWorld, str]) -> None:
    world, url = inside
    assert over(world, url) == [Word.SIMULATED] * 2


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize("authority", [Authority(), AUTHORITY], ids=["of-nobodys", "of-a-trusted-authority"])
def test_a_man_in_the_middle_with_a_certificate_of_his_own_gets_no_credential_and_no_body(
    inside: tuple[InferenceWorld, str], authority: Authority
) -> None:
    world, url = inside
    with between(authority.server(), url) as (middle, there):
        assert over(world, there) == [errors.OtherTlsKey] * 2
    assert b"GET /v1/aci/attestation" in middle.read  # so far he is let: there is nothing to hide in it
    assert not secret_in(middle.read)


@pytest.mark.usefixtures("trusting")
def test_where_the_keyset_names_no_key_of_tls_the_authorities_are_asked() -> None:
    with InferenceWorld(clock=WallClock()) as world, world.listening() as url:
        with between(AUTHORITY.server(), url) as (balancer, there):
            assert over(world, there) == [Word.SIMULATED] * 2
        assert secret_in(balancer.read)
        for wrong in (Authority().server(), AUTHORITY.server("127.0.0.2")):
            with between(wrong, url) as (middle, there):
                assert over(world, there) == [httpx.ConnectError] * 2
            assert not secret_in(middle.read)


def test_a_key_of_tls_for_another_name_is_not_this_hosts() -> None:
    own = Tls.make("127.0.0.1", WallClock()())
    for domain, found in (("127.0.0.1", Word.SIMULATED), ("other.example", errors.OtherTlsKey)):
        named = Tls(own.context, TlsKey(own.key.spki_sha256, domain))
        with InferenceWorld(clock=WallClock(), tls=named) as world, world.listening(tls=named) as url:
            assert over(world, url) == [found] * 2


def test_a_certificate_that_cannot_be_read_is_nobodys() -> None:
    for wrong in (b"", b"\x30\x00", b"no certificate"):
        with pytest.raises(errors.OtherTlsKey):
            carriers.spki_sha256(wrong)


def test_what_is_more_than_a_question_goes_over_no_connection_that_is_nobodys() -> None:
    origin = httpx.URL("https://127.0.0.1:1")
    questioned = httpx.Request("GET", origin)
    with contextlib.closing(carriers.Carrier(origin)) as carrier:
        for request in (
            httpx.Request("GET", origin, headers={"authorization": "Bearer sr-1"}),
            httpx.Request("POST", origin),
            httpx.Request("GET", origin, content=b"x"),
            httpx.Request("GET", "https://other.example", extensions={carriers.KEYS: ()}),
            httpx.Request("GET", "http://127.0.0.1:1"),
        ):
            with pytest.raises(errors.Internal):
                carrier.handle_request(request)
        with pytest.raises(httpx.ConnectError):
            carrier.handle_request(questioned)


@pytest.mark.usefixtures("trusting")
def test_a_party_that_opens_a_room_leaves_nothing_more_with_who_stands_between(inside: tuple[InferenceWorld, str]) -> None:
    world, url = inside
    room: Any = types.SimpleNamespace(trust=world.trust(), _enclave=url)
    with contextlib.closing(Room._attested(room, world.contract)) as client:
        assert client.get("/healthz")
    with between(AUTHORITY.server(), url) as (middle, room._enclave), pytest.raises(errors.OtherTlsKey):
        Room._attested(room, world.contract)
    assert b"healthz" not in middle.read
    room._enclave, room.trust = url, Trust(roots=world.trust().roots, measurements=())
    with pytest.raises(errors.NotAffirming):
        Room._attested(room, world.contract)
