"""The room behind a real socket: OpenAI's own client, slow ones, endless ones, TLS, and the end of the service."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("httptools", reason="serving needs strongroom[room]")

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from inference_world import MODEL, SERVE, FakeEngine, InferenceWorld
from strongroom.app.inference import bounded
from strongroom.app.inference.listening import Tls
from strongroom.attest.keyset import AttestationReport
from strongroom.errors import EngineFailed
from world import NOW

CHAT = "/v1/chat/completions"
PLAIN = replace(SERVE, plain_bodies=True)
KEY = "anon-" + "0" * 32
HEADERS = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
HELLO = {"model": MODEL, "messages": [{"role": "user", "content": "hello you"}]}
STREAM = {**HELLO, "stream": True}


@pytest.fixture
def plain() -> Iterator[tuple[InferenceWorld, str]]:
    with InferenceWorld(serve=PLAIN) as world, world.listening() as url:
        yield world, url


def connected(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def raw(method: str, path: str, body: bytes, **headers: str) -> bytes:
    found = {"Host": "room", "Content-Length": str(len(body)), **headers, "Authorization": f"Bearer {KEY}"}
    head = "".join(f"{name}: {value}\r\n" for name, value in found.items())
    return f"{method} {path} HTTP/1.1\r\nContent-Type: application/json\r\n{head}\r\n".encode() + body


def eventually(happened: Any) -> None:
    for _ in range(6000):
        if happened():
            return
        time.sleep(0.005)
    raise AssertionError("it does not happen")


# --- OpenAI's own client ------------------------------------------------------------------------------------------------


def test_openais_python_package_works_against_the_endpoint(plain):
    openai = pytest.importorskip("openai", reason="OpenAI's package is not installed")
    world, url = plain
    with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        answer = client.chat.completions.create(
            model=MODEL, messages=HELLO["messages"], temperature=0.2, max_tokens=3, user="me"
        )
        assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("You said: hello ", "length")
        assert answer.usage.total_tokens == 5
        options = {"stream": True, "stream_options": {"include_usage": True}, "n": 2}
        events = list(client.chat.completions.create(model=MODEL, messages=HELLO["messages"], **options))
        said = "".join(e.choices[0].delta.content or "" for e in events if e.choices and e.choices[0].index == 1)
        assert said == "You said: hello you "
        assert events[-1].usage.completion_tokens == 8
        assert client.completions.create(model=MODEL, prompt="once").choices[0].text == "You said: once "
        vectors = client.embeddings.create(model=MODEL, input=["a", "b"])
        assert [len(item.embedding) for item in vectors.data] == [8, 8]
        assert [model.id for model in client.models.list()] == [MODEL]
        assert client.models.retrieve(MODEL).owned_by == "lab"
        raw_answer = client.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO["messages"])
        receipt = httpx.get(f"{url}/v1/aci/receipts/{raw_answer.headers['x-receipt-id']}", headers=HEADERS).json()
        assert receipt["chat_id"] == raw_answer.parse().id
        with pytest.raises(openai.NotFoundError) as missing:
            client.chat.completions.create(model="none", messages=HELLO["messages"])
        assert (missing.value.code, missing.value.param) == ("request.model_not_served", "model")
        with pytest.raises(openai.BadRequestError) as bad:
            client.chat.completions.create(model=MODEL, messages=HELLO["messages"], extra_body={"frobnicate": 1})
        assert (bad.value.code, bad.value.param) == ("request.unknown_member", "frobnicate")
    stranger = openai.OpenAI(base_url=f"{url}/v1", api_key="sr-" + "x" * 43, max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError):
        stranger.chat.completions.create(model=MODEL, messages=HELLO["messages"])
    eventually(lambda: world.rooms.current.active == 0)  # a refusal is read before its place is free


def test_openais_package_hears_of_an_engine_that_crashes_mid_stream():
    openai = pytest.importorskip("openai", reason="OpenAI's package is not installed")
    crashing = FakeEngine(fails=EngineFailed("it crashed"))
    with InferenceWorld(serve=PLAIN, engine=crashing) as world, world.listening() as url:
        client, heard = openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0), list[Any]()
        with client, pytest.raises(openai.APIError, match="it crashed"):
            heard.extend(client.chat.completions.create(model=MODEL, messages=HELLO["messages"], stream=True))
        assert [event.choices[0].delta.content for event in heard] == ["You ", "said: "]


# --- many at once -------------------------------------------------------------------------------------------------------


def test_many_streams_at_once_are_each_their_own(plain):
    world, url = plain
    world.rooms.current.capacity = 200
    found: dict[int, str] = {}

    def ask(n: int) -> None:
        value = {**STREAM, "messages": [{"role": "user", "content": f"number {n}"}]}
        answer = client.post(url + CHAT, json=value, headers=HEADERS)
        events = [json.loads(line[6:]) for line in answer.text.split("\n\n") if line.startswith("data: {")]
        found[n] = "".join(event["choices"][0]["delta"].get("content", "") for event in events)

    with httpx.Client(timeout=60, limits=httpx.Limits(max_connections=100)) as client:
        threads = [threading.Thread(target=ask, args=(n,)) for n in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {n: f"You said: number {n} " for n in range(100)}
    assert len({receipt.receipt_id for receipt, *_ in world.receipts.all}) == 100


# --- clients that mean no good, or are slow -----------------------------------------------------------------------------


def test_a_body_of_200_megabytes_is_refused_over_a_socket_too(plain):
    world, url = plain
    answer = httpx.post(url + CHAT, content=b"x" * (200 << 20), headers=HEADERS, timeout=60)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request.too_large")
    assert world.receipts.last.refused.code == "request.too_large"


def test_a_client_that_waits_for_leave_is_told_that_its_body_is_too_large_before_it_sends_it(plain):
    _, url = plain
    with closing(connected(url)) as sock:
        sock.sendall(
            raw("POST", CHAT, b"", Expect="100-continue").replace(b"Content-Length: 0", b"Content-Length: 209715200")
        )
        assert sock.recv(64).startswith(b"HTTP/1.1 413")


def test_a_client_that_goes_mid_stream_is_noticed():
    with (
        InferenceWorld(serve=PLAIN, engine=FakeEngine(words=["word "] * 1000, pause=0.01)) as world,
        world.listening() as url,
    ):
        with closing(connected(url)) as sock:
            sock.sendall(raw("POST", CHAT, json.dumps(STREAM).encode()))
            assert b"word" in sock.recv(1 << 16) + sock.recv(1 << 16)
        eventually(lambda: world.receipts.all)
        assert world.receipts.last.refused.code == "request.client_gone"
        assert world.engine.given_up == 1


def test_a_client_that_stops_reading_is_cut_off_with_what_it_has_not_read_bounded():
    engine = FakeEngine(words=["x" * 1024] * 1000, most=1 << 20)
    world = InferenceWorld(serve=PLAIN, engine=engine, stall_seconds=0.2)
    with world, world.listening() as url, closing(socket.socket()) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        host, port = url.removeprefix("http://").split(":")
        sock.connect((host, int(port)))
        sock.sendall(raw("POST", CHAT, json.dumps({**STREAM, "n": 8}).encode()))
        eventually(lambda: world.receipts.all)
        assert world.receipts.last.refused.code == "request.client_too_slow"
        eventually(lambda: world.rooms.current.active == 0)
        with pytest.raises(ConnectionResetError):
            while sock.recv(1 << 16):
                pass


def test_headers_without_an_end_are_not_read_for_ever(plain):
    _, url = plain
    with closing(connected(url)) as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\n")
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            for n in range(100_000):
                sock.sendall(b"X-%d: %s\r\n" % (n, b"x" * 1000))


def test_a_path_without_an_end_is_not_read_for_ever(plain):
    _, url = plain
    with closing(connected(url)) as sock, pytest.raises((ConnectionResetError, BrokenPipeError)):
        sock.sendall(b"GET /")
        for _ in range(10_000):
            sock.sendall(b"x" * 10_000)


def test_a_connection_that_says_nothing_is_closed(monkeypatch):
    monkeypatch.setattr(bounded, "HEADER_SECONDS", 0.05)
    with InferenceWorld(serve=PLAIN) as world, world.listening() as url:
        for begun in (b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\n"):
            with closing(connected(url)) as sock:
                sock.sendall(begun)
                assert closed(sock)


def closed(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    "sent",
    [
        b"\0" * 100,
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/rooms HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
    ],
)
def test_what_is_no_http_is_refused(plain, sent):
    _, url = plain
    with closing(connected(url)) as sock:
        sock.sendall(sent)
        sock.shutdown(socket.SHUT_WR)
        answer = sock.recv(1 << 16)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert httpx.get(url + "/healthz").status_code == 200


def test_a_websocket_is_not_spoken(plain):
    _, url = plain
    with closing(connected(url)) as sock:
        sock.sendall(b"GET /v1/room HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        assert sock.recv(12) == b"HTTP/1.1 200"


# --- TLS ----------------------------------------------------------------------------------------------------------------


def test_tls_ends_inside_and_the_keyset_names_its_key():
    tls = Tls.make("127.0.0.1", time.time())
    assert "…" in repr(tls)
    with InferenceWorld(serve=PLAIN, tls=tls) as world, world.listening(tls=tls) as url:
        assert url.startswith("https://127.0.0.1:")
        pem = ssl.get_server_certificate(("127.0.0.1", int(url.rpartition(":")[2])))
        certificate = x509.load_pem_x509_certificate(pem.encode())
        spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        with httpx.Client(verify=ssl.create_default_context(cadata=pem), headers=HEADERS) as client:
            report = AttestationReport.parse(client.get(f"{url}/v1/aci/attestation?nonce={'a' * 64}").content)
            (key,) = report.keyset.tls_public_keys
            assert key.spki_sha256 == hashlib.sha256(spki).digest()
            assert client.post(url + CHAT, json=HELLO).status_code == 200
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode, old.maximum_version = False, ssl.CERT_NONE, ssl.TLSVersion.TLSv1_2
        with httpx.Client(verify=old) as client, pytest.raises(httpx.ConnectError):
            client.get(url + "/healthz")


def test_a_key_of_tls_is_for_one_name_and_another_each_time():
    one, two = Tls.make("enclave.example", NOW), Tls.make("enclave.example", NOW)
    assert one.key != two.key
    assert not [name for name in os.listdir("/proc/self/fd") if "memfd:tls" in link(name)]


def link(name: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{name}")
    except OSError:
        return ""


# --- the end ------------------------------------------------------------------------------------------------------------


def test_what_is_under_way_when_the_service_is_asked_to_end_is_answered_to_its_end():
    command = [sys.executable, "-m", "inference_world", "--plain", "--pause", "0.05"]
    with subprocess.Popen(
        command, cwd=Path(__file__).parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        value = {**STREAM, "messages": [{"role": "user", "content": "word " * 20}]}
        with httpx.stream("POST", url + CHAT, json=value, headers=HEADERS, timeout=60) as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith("data: ")
            process.send_signal(signal.SIGTERM)
            rest = list(lines)
        assert rest[-2] == "data: [DONE]"
        assert sum("word " in line for line in rest) == 20
        assert process.wait(30) in (0, -signal.SIGTERM)
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
