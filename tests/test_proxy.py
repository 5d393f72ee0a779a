"""The local proxy: what any OpenAI client gets through it, what nobody gets, and its verb. Attacks have their own names."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from fake_service import MODEL, TRUST, URL, WORDS, Answer, Service, Way, altered, on
from inference_world import MODEL as REAL_MODEL
from inference_world import SERVE, InferenceWorld, WallClock
from stage import call
from strongroom import errors, wire
from strongroom.app.cli.proxy import weights_of
from strongroom.app.client.answer import Answer as Kept
from strongroom.app.client.asking import Outcome, Verifier, Word
from strongroom.app.client.carrier import AsyncCarrier
from strongroom.app.client.home import pretty
from strongroom.app.client.prose import ON_NO_DISK
from strongroom.app.client.proxy import addresses, proxy
from strongroom.app.client.session import Terms
from strongroom.app.client.verified import AsyncVerifiedTransport
from strongroom.app.inference.listening import Tls
from tls_between import Authority, between

HERE = Path(__file__).parent
HOST = "127.0.0.1:8989"
CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"content": "How do cells divide?", "role": "user"}], "model": MODEL}


@pytest.fixture
def service() -> Service:
    return Service()


class Local:
    """A proxy in this process, before a service in this process."""

    def __init__(self, service: Service, static: Path, **options: Any) -> None:
        terms = Terms(trust=TRUST, contract=service.contract.digest)
        self.ended: list[Outcome] = []
        self.verifier = Verifier(URL, terms, now=service.clock, on_answer=self.ended.append, **options)
        transport, raw = AsyncVerifiedTransport(self.verifier, Way(service)), Way(service)
        offered = json.dumps(TRUST.to_json()).encode()
        self.app = proxy(transport, raw, addresses("127.0.0.1", 8989), static=static, trust=offered)

    def ask(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        async def one() -> httpx.Response:
            base = kwargs.pop("base", f"http://{HOST}")
            async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url=base) as client:
                return await client.request(method, path, **kwargs)

        return asyncio.run(one())


@pytest.fixture
def local(service: Service, tmp_path: Path) -> Local:
    static = tmp_path / "static"
    (static / "assets").mkdir(parents=True)
    script = f'<script type="module" integrity="sha384-{64 * "A"}" src="/assets/page.js"></script>'
    (static / "index.html").write_text(f"<!doctype html><title>chat</title>{script}")
    (static / "assets" / "page.js").write_text("1")
    return Local(service, static)


# --- what goes through ------------------------------------------------------------------------------------------------


def test_an_answer_goes_through_verified(local: Local) -> None:
    answer = local.ask("POST", CHAT, json=HELLO)
    assert answer.json()["choices"][0]["message"]["content"] == "".join(WORDS)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-receipt-id"].startswith("rcpt-")
    assert [outcome.word for outcome in local.ended] == [Word.SIMULATED]


def test_a_stream_goes_through_to_its_end(local: Local) -> None:
    answer = local.ask("POST", CHAT, json={**HELLO, "stream": True})
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.text.count("data: ") == len(WORDS) + 1
    assert answer.text.endswith("data: [DONE]\n\n")


def test_models_and_what_is_not_there(local: Local) -> None:
    assert local.ask("GET", "/v1/models").json()["data"][0]["id"] == MODEL
    missing = local.ask("POST", "/v1/images/generations", json={})
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "app.not_found")


def test_an_error_of_the_services_own_goes_through_as_it_is(local: Local) -> None:
    answer = local.ask("POST", CHAT, json={**HELLO, "model": "other"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "app.not_found")
    assert local.ended[0].word is Word.SIMULATED


def test_the_page_is_served_with_headers_that_let_it_load_nothing_from_elsewhere(local: Local) -> None:
    page = local.ask("GET", "/")
    assert page.text.startswith("<!doctype html>")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert f"script-src 'sha384-{64 * 'A'}'" in policy
    assert "http:" not in policy
    assert "unsafe-inline" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    assert local.ask("GET", "/assets/page.js").status_code == 200
    assert local.ask("GET", "/../secret").status_code == 404


def test_the_page_is_told_where_the_service_is_and_what_is_trusted(local: Local, service: Service) -> None:
    config = local.ask("GET", "/config.json").json()
    digest = service.contract.digest
    assert config == {"base": "/raw", "contract": digest, "room": URL, "served_by": "proxy", "trust": True}
    assert local.ask("GET", "/trust.json").json() == TRUST.to_json()


def test_without_a_page_the_proxy_says_so(service: Service, tmp_path: Path) -> None:
    answer = Local(service, tmp_path).ask("GET", "/")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "app.not_found")


def test_without_a_trust_file_none_is_offered(service: Service, tmp_path: Path) -> None:
    local = Local(service, tmp_path)
    transport = AsyncVerifiedTransport(local.verifier, Way(service))
    local.app = proxy(transport, Way(service), addresses("127.0.0.1", 8989))
    assert local.ask("GET", "/trust.json").status_code == 404


# --- raw --------------------------------------------------------------------------------------------------------------


def test_raw_requests_go_to_the_service_byte_for_byte(local: Local, service: Service) -> None:
    nonce = "ab" * 32
    report = local.ask("GET", f"/raw/v1/aci/attestation?nonce={nonce}")
    assert report.content == wire.encode(service.report(nonce))
    assert report.headers["x-aci-keyset-digest"] == service.keys.keyset.digest
    body = bytes(range(256)) * 10
    local.ask("POST", f"/raw{CHAT}?a=1%202", content=body, headers={"ehbp-encapsulated-key": "00", "cookie": "mine"})
    sent = service.asked[-1]
    assert (sent.body, sent.query) == (body, "a=1%202")
    assert sent.headers["ehbp-encapsulated-key"] == "00"
    assert "cookie" not in sent.headers


@pytest.mark.parametrize("path", ["/raw/", "/raw/metrics", "/raw//evil.example/v1/x", "/raw/http://evil.example/v1/"])
def test_raw_requests_for_anything_else_go_nowhere(local: Local, service: Service, path: str) -> None:
    assert local.ask("GET", path).status_code == 404
    assert service.log == []


def test_a_page_that_the_service_answers_with_never_becomes_one_of_this_origin(local: Local, service: Service) -> None:
    evil = Answer(200, {"content-type": "text/html", "set-cookie": "a=b", "location": "/"}, [b"<script>1</script>"])
    service.tampers.append(on("/v1/room", lambda _: evil))
    answer = local.ask("GET", "/raw/v1/room")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert "sandbox" in answer.headers["content-security-policy"].split("; ")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "set-cookie" not in answer.headers
    assert "location" not in answer.headers


def test_a_service_that_is_away_is_said_to_be(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_: Any) -> Any:
        raise httpx.ConnectError("x")

    monkeypatch.setattr(Way, "handle_async_request", fails)
    answer = local.ask("GET", "/raw/v1/room")
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "app.unreachable")


# --- attacks by the host ----------------------------------------------------------------------------------------------


def _refused(local: Local, code: str, **more: Any) -> httpx.Response:
    answer = local.ask("POST", CHAT, json={**HELLO, **more})
    assert answer.status_code == 502
    error = answer.json()["error"]
    assert error["code"] == code
    assert {"message", "type", "param", "hint"} <= set(error)
    assert answer.headers["x-should-retry"] == "false"
    assert not any(word.encode() in answer.content for word in WORDS[:2])
    return answer


def test_a_host_that_is_no_enclave_is_a_502_and_never_an_answer(local: Local, service: Service) -> None:
    service.tampers.append(on("/v1/aci/attestation", lambda a: altered(a, pieces=[b"<html>"])))
    _refused(local, "attest.bad_evidence")


def test_a_tampered_answer_is_a_502(local: Local, service: Service) -> None:
    service.tampers.append(on(CHAT, lambda a: altered(a, pieces=[a.body[:-1] + b"\0"])))
    _refused(local, "ehbp.frame_altered")


def test_a_plaintext_answer_is_a_502(local: Local, service: Service) -> None:
    service.tampers.append(
        on(CHAT, lambda _: Answer(200, {"content-type": "application/json"}, [b'{"id": "Cells divide"}']))
    )
    _refused(local, "ehbp.bad_response_nonce")


def test_a_false_receipt_is_a_502_and_the_whole_answer_is_withheld(local: Local, service: Service) -> None:
    service.tampers.append(on("/v1/aci/receipts/", lambda a: altered(a, pieces=[b"{}"])))
    _refused(local, "inference.not_verified")
    assert local.ended[0].word is Word.REFUSED


def test_a_stream_that_is_cut_ends_with_an_error_and_never_with_the_mark_of_the_end(local: Local, service: Service) -> None:
    service.tampers.append(on(CHAT, lambda a: altered(a, pieces=a.pieces[:-1])))
    answer = local.ask("POST", CHAT, json={**HELLO, "stream": True})
    *_, last, empty = answer.text.split("\n\n")
    assert empty == ""
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "ehbp.not_ended"
    assert "[DONE]" not in answer.text


def test_a_stream_whose_receipt_is_false_ends_with_an_error(local: Local, service: Service) -> None:
    service.tampers.append(on("/v1/aci/receipts/", lambda a: altered(a, pieces=[b"{}"])))
    answer = local.ask("POST", CHAT, json={**HELLO, "stream": True})
    assert '"code": "inference.not_verified"' in answer.text
    assert "[DONE]" not in answer.text


@pytest.mark.parametrize(
    ("error", "status"),
    [(httpx.ConnectError("x"), 502), (httpx.ReadTimeout("x"), 504), (httpx.RemoteProtocolError("x"), 502)],
)
def test_a_service_that_does_not_answer(
    local: Local, monkeypatch: pytest.MonkeyPatch, error: httpx.HTTPError, status: int
) -> None:
    async def fails(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(AsyncVerifiedTransport, "_send", fails)
    answer = local.ask("POST", CHAT, json=HELLO)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, "app.unreachable")
    assert "x-should-retry" not in answer.headers  # to ask again may help here


def test_a_200_mb_prompt_is_refused_here(local: Local, monkeypatch: pytest.MonkeyPatch, service: Service) -> None:
    monkeypatch.setattr("strongroom.app.client.proxy.MAX_REQUEST_BYTES", 1000)
    for path in (CHAT, f"/raw{CHAT}"):
        answer = local.ask("POST", path, content=bytes(1001))
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "wire.too_large")
    assert service.log == []


# --- attacks by web pages ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1:8989", "localhost:8989", "[::1]:8989", "LOCALHOST:8989"])
def test_it_is_reached_by_the_names_of_this_machine(local: Local, host: str) -> None:
    assert local.ask("GET", "/v1/models", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8989", "127.0.0.1", "127.0.0.1:80", "localhost.evil.example:8989", "", "10.0.0.1:8989"],
)
@pytest.mark.parametrize("path", ["/", "/v1/models", "/raw/v1/room", "/trust.json"])
def test_a_name_that_somebody_points_at_this_machine_gets_nothing(
    local: Local, service: Service, host: str, path: str
) -> None:
    answer = local.ask("GET", path, headers={"host": host})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "app.unauthorised")
    assert service.log == []


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:8080"},
        {"origin": "http://127.0.0.1"},
        {"origin": "https://127.0.0.1:8989"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": f"http://{HOST}", "sec-fetch-site": "cross-site"},
    ],
)
@pytest.mark.parametrize("path", [CHAT, f"/raw{CHAT}"])
def test_a_page_from_elsewhere_gets_nothing_and_sends_nothing(
    local: Local, service: Service, headers: dict[str, str], path: str
) -> None:
    answer = local.ask("POST", path, content=json.dumps(HELLO), headers={"content-type": "text/plain", **headers})
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers
    assert service.log == []


def test_our_own_page_and_a_person_who_types_the_address_may_ask(local: Local) -> None:
    own = {"origin": f"http://{HOST}", "sec-fetch-site": "same-origin"}
    assert local.ask("POST", CHAT, json=HELLO, headers=own).status_code == 200
    assert local.ask("GET", "/", headers={"sec-fetch-site": "none"}).status_code == 200


def test_a_preflight_is_answered_with_nothing(local: Local) -> None:
    asked = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    answer = local.ask("OPTIONS", CHAT, headers=asked)
    assert answer.status_code == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_it_is_bound_to_one_address() -> None:
    assert addresses("127.0.0.1", 80) >= {"127.0.0.1", "127.0.0.1:80", "[::1]:80"}
    assert addresses("192.0.2.7", 8989) == {"192.0.2.7:8989"}
    assert addresses("gpu.lan", 8989) == {"gpu.lan:8989"}
    assert addresses("127.0.0.2", 8989) >= {"127.0.0.2:8989", "localhost:8989"}
    for everything in ("0.0.0.0", "::"):
        with pytest.raises(errors.Usage):
            addresses(everything, 8989)


# --- over sockets, with the real server ---------------------------------------------------------------------------------


@dataclasses.dataclass
class Running:
    """`strongroom proxy` as a process, before a room in this process."""

    world: InferenceWorld
    trust: Path
    url: str
    process: subprocess.Popen[str]


@contextmanager
def running(folder: Path, *words: object, world: InferenceWorld, room: str) -> Iterator[Running]:
    trust = folder / "trust.json"
    trust.write_bytes(pretty(world.trust().to_json()))
    command = [sys.executable, "-m", "strongroom", "proxy", room, "--contract", world.contract.digest, "--trust", trust]
    command += ["--port", "0", "--announce", *words]
    with (folder / "said.txt").open("w") as said:
        process = subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True
        )
    assert process.stdin
    assert process.stdout
    try:
        line = process.stdout.readline()
        assert line, (folder / "said.txt").read_text()
        yield Running(world, trust, json.loads(line)["url"], process)
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("proxy")
    serve = dataclasses.replace(SERVE, padding=1024, input_guards=frozenset({"pii"}))
    with (
        InferenceWorld(clock=WallClock(), serve=serve) as world,
        world.listening() as room,
        running(folder, "--keep", folder / "kept", world=world, room=room) as found,
    ):
        yield found


def test_the_official_python_client_through_the_proxy(behind: Running) -> None:
    openai = pytest.importorskip("openai", reason="the extra `dev` is not installed")
    with openai.OpenAI(base_url=f"{behind.url}/v1", api_key="unused", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == [REAL_MODEL]
        said = [{"role": "user", "content": "How do cells divide?"}]
        chat = client.chat.completions.create(model=REAL_MODEL, messages=said)
        assert chat.choices[0].message.content == "You said: How do cells divide? "
        stream = client.chat.completions.create(model=REAL_MODEL, messages=said, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "You said: How do cells divide? "
        assert client.completions.create(model=REAL_MODEL, prompt="Cells").choices[0].text == "You said: Cells "
        assert len(client.embeddings.create(model=REAL_MODEL, input=["a", "b"]).data) == 2
        with pytest.raises(openai.NotFoundError) as found:
            client.chat.completions.create(model="none", messages=said)
        assert found.value.status_code == 404


def test_the_official_npm_client_through_the_proxy(behind: Running, tmp_path: Path) -> None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not installed")
    for name in ("package.json", "package-lock.json", "client.mjs"):
        shutil.copy(HERE / "npm_openai" / name, tmp_path)
    install = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    installed = subprocess.run(install, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    if installed.returncode:
        pytest.skip(f"npm could not install the client: {installed.stderr.strip().splitlines()[-1:]}")
    told = subprocess.run(
        [node, "client.mjs", f"{behind.url}/v1", REAL_MODEL],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    said = json.loads(told.stdout)
    assert said == {
        "chat": "You said: How do cells divide? ",
        "completion": "You said: Cells ",
        "embeddings": 2,
        "missing": 404,
        "models": [REAL_MODEL],
        "stream": "You said: How do cells divide? ",
    }


def test_what_was_kept_is_verified_again_offline(behind: Running) -> None:
    with httpx.Client(base_url=behind.url) as client:
        asked = {"model": REAL_MODEL, "messages": [{"role": "user", "content": "kept"}]}
        assert client.post(CHAT, json=asked).status_code == 200
    folder = behind.trust.parent / "kept"
    kept = next(path for path in sorted(folder.iterdir()) if b"kept" in Kept.parse(path.read_bytes()).request)
    assert kept.stat().st_mode & 0o077 == 0
    assert "-simulated-rcpt-" in kept.name
    said = call("verify", kept, "--trust", behind.trust)
    assert said.status == 0, said.err
    assert said.out.count("✓ E") == 8
    assert said.out.count("✓ I") == 19
    assert "? I20" in said.out
    assert "platform: simulated (no hardware protection)" in said.out
    as_json = call("verify", kept, "--trust", behind.trust, "--contract", behind.world.contract.digest, "--json").json
    assert as_json["verified"] is True
    assert as_json["receipt"]["model"] == REAL_MODEL
    _verify_changed(kept, behind)


def _verify_changed(kept: Path, behind: Running) -> None:
    value = json.loads(kept.read_bytes())
    changed = kept.parent.parent / "changed.json"
    changed.write_bytes(pretty({**value, "request": wire.b64(b"{}")}))
    said = call("verify", changed, "--trust", behind.trust, "--evidence")
    assert (said.status, said.code) == (1, "inference.not_verified")
    assert "✗ I7" in said.out
    assert "NOT VERIFIED" in said.out
    other = call("verify", kept, "--trust", behind.trust, "--contract", wire.digest(b"another"))
    assert (other.status, other.code) == (1, "inference.other_contract")
    stranger = kept.parent.parent / "stranger.json"
    stranger.write_bytes(pretty(dataclasses.replace(behind.world.trust(), parties=()).to_json()))
    assert call("verify", kept, "--trust", stranger).code == "party.not_pinned"


def test_it_tells_of_each_answer_in_a_line_and_nothing_of_what_was_asked(behind: Running) -> None:
    with httpx.Client(base_url=behind.url) as client:
        client.post(CHAT, json={"model": REAL_MODEL, "messages": [{"role": "user", "content": "a marker"}]})
    said = (behind.trust.parent / "said.txt").read_text()
    assert f"simulated   {CHAT} {REAL_MODEL}, " in said
    assert "marker" not in said


def test_the_verb_shows_a_contract_before_anybody_relies_on_it(tmp_path: Path) -> None:
    serve = dataclasses.replace(SERVE, retention_s=0)
    with InferenceWorld(clock=WallClock(), serve=serve) as world, world.listening() as room:
        own, contract = tmp_path / "own.json", world.contract.digest
        own.write_bytes(pretty(world.trust().to_json()))
        said = call("proxy", room)
        assert (said.status, said.code) == (2, "app.usage")
        assert contract in said.err
        assert "nothing of that is verified" in said.err
        assert "the operator sees" in said.out
        assert ON_NO_DISK in said.out
        wrong = call("proxy", room, "--trust", own, "--contract", wire.digest(b"another"))
        assert (wrong.status, wrong.code) == (1, "inference.other_contract")
        rootless = tmp_path / "rootless.json"
        rootless.write_bytes(pretty(dataclasses.replace(world.trust(), roots=()).to_json()))
        assert call("proxy", room, "--trust", rootless, "--contract", contract).code == "attest.not_affirming"
    away = call("proxy", room, "--trust", own, "--contract", contract)
    assert (away.status, away.code) == (1, "app.unreachable")


@pytest.mark.parametrize("text", ["example/small", "=sha256:00", "example/small=3f2a"])
def test_weights_are_said_with_their_model(text: str) -> None:
    with pytest.raises(errors.Usage):
        weights_of([text])
    assert weights_of(["a=b=sha256:00"]) == {"a=b": "sha256:00"}


# --- TLS --------------------------------------------------------------------------------------------------------------


def through(world: InferenceWorld, url: str, *asked: tuple[str, str, dict[str, Any]]) -> list[httpx.Response]:
    """What the proxy before a service answers, in one loop."""

    async def talk() -> list[httpx.Response]:
        verifier = Verifier(url, Terms(trust=world.trust(), contract=world.contract.digest))
        transport, inner = AsyncVerifiedTransport(verifier, AsyncCarrier(verifier.origin)), AsyncCarrier(verifier.origin)
        app = proxy(transport, inner, addresses("127.0.0.1", 8989))
        try:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=f"http://{HOST}") as client:
                return [await client.request(method, path, **more) for method, path, more in asked]
        finally:
            await transport.aclose()
            await inner.aclose()

    return asyncio.run(talk())


RAW_REPORT = ("GET", f"/raw/v1/aci/attestation?nonce={'ab' * 32}", {})
BEARER = {"authorization": f"Bearer anon-{'7' * 32}"}
RAW_CHAT = ("POST", "/raw" + CHAT, {"json": {**HELLO, "model": REAL_MODEL}, "headers": BEARER})
RAW_RECEIPT = ("GET", "/raw/v1/aci/receipts/rcpt-1", {"headers": BEARER})
VERIFIED_CHAT = ("POST", CHAT, {"json": {**HELLO, "model": REAL_MODEL}, "headers": BEARER})


def test_what_stands_before_tls_that_ends_inside_is_let_read_questions_alone() -> None:
    own = Tls.make("127.0.0.1", WallClock()())
    with InferenceWorld(clock=WallClock(), tls=own) as world, world.listening(tls=own) as url:
        verified, report, chat, receipt = through(world, url, VERIFIED_CHAT, RAW_REPORT, RAW_CHAT, RAW_RECEIPT)
        assert (verified.status_code, report.status_code, receipt.status_code) == (200, 200, 404)
        assert chat.status_code != 502
        with between(Authority().server(), url) as (middle, there):
            answers = through(world, there, VERIFIED_CHAT, RAW_CHAT, RAW_RECEIPT, RAW_REPORT)
        for answer in answers[:3]:
            assert (answer.status_code, answer.json()["error"]["code"]) == (502, "inference.other_tls_key")
        assert answers[3].status_code == 200
        assert b"7777" not in middle.read
        assert b"POST" not in middle.read
        assert b"receipts" not in middle.read


def test_a_service_whose_tls_ends_inside_shows_what_it_serves_to_who_has_not_decided() -> None:
    own = Tls.make("127.0.0.1", WallClock()())
    with InferenceWorld(clock=WallClock(), tls=own) as world, world.listening(tls=own) as url:
        done = call("proxy", url)
        assert world.contract.digest in done.err
