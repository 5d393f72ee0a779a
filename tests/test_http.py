"""HTTP at both ends: errors cross as themselves, answers are bounded, and what nobody expected says nothing."""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Callable

import httpx
import pytest
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from stage import in_process
from strongroom import errors, wire
from strongroom.app import http
from strongroom.app.http import Client, application, body, json_answer, listen, serve, status_of, url_of
from strongroom.errors import (
    BrokerError,
    Conflict,
    Internal,
    NotFound,
    TooLarge,
    Unauthorised,
    Unreachable,
    Usage,
)

SECRET = "SECRET-0123456789"


def client(answer: Callable[[httpx.Request], httpx.Response]) -> Client:
    return Client("http://role", transport=httpx.MockTransport(answer))


def routes(work: Callable[..., object], *, methods: tuple[str, ...] = ("GET", "POST")) -> httpx.Client:
    return in_process(application([Route("/x", work, methods=list(methods))]))


# --- the client -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", sorted(errors.leaves()))
def test_every_error_crosses_as_its_own_class(code):
    cls = errors.leaves()[code]
    sent = {"code": code, "message": "why", "hint": "do as I say", "reason": "a.b", "step": "s"}
    answer = httpx.Response(400, content=wire.encode({"error": sent}))
    with pytest.raises(cls) as raised:
        client(lambda _: answer).get("/x")
    assert raised.value.message == "why"
    assert raised.value.hint != "do as I say"


@pytest.mark.parametrize(
    "content", [b"", b"<html>", b"[]", b"{}", b'{"error":[]}', b'{"error":{"code":"no.such"}}', b"\xff", b"{" * 100_000]
)
def test_an_answer_that_is_no_error_of_ours_is_internal(content):
    with pytest.raises(Internal):
        client(lambda _: httpx.Response(502, content=content)).get("/x")


def test_what_is_not_there_is_not_found_even_where_nothing_can_be_said():
    with pytest.raises(NotFound, match="nothing at /x"):
        client(lambda _: httpx.Response(404)).call("HEAD", "/x")


def test_a_message_from_elsewhere_is_one_short_printable_line():
    sent = {"code": "app.not_found", "message": "a\nb\x1b[31m" + "c" * 5000}
    with pytest.raises(NotFound) as raised:
        client(lambda _: httpx.Response(404, content=json.dumps({"error": sent}).encode())).get("/x")
    assert raised.value.message.isprintable()
    assert len(raised.value.message) <= 500


def test_an_endless_error_is_not_read_to_its_end():
    read = []

    def endless():
        for _ in range(1000):
            read.append(1)
            yield b"x" * 4096

    with pytest.raises(Internal):
        client(lambda _: httpx.Response(500, content=endless())).get("/x")
    assert len(read) < 50


def test_an_answer_is_bounded():
    with pytest.raises(TooLarge):
        client(lambda _: httpx.Response(200, content=b"x" * 101)).get("/x", max_bytes=100)
    assert client(lambda _: httpx.Response(200, content=b"x" * 100)).get("/x", max_bytes=100) == b"x" * 100


@pytest.mark.parametrize("status", [301, 302, 304, 307])
def test_nobody_is_sent_elsewhere(status):
    asked = []

    def answer(request):
        asked.append(request.url.host)
        return httpx.Response(status, headers={"location": "http://elsewhere/"})

    with pytest.raises(Internal):
        client(answer).get("/x")
    assert asked == ["role"]


@pytest.mark.parametrize(
    "error", [httpx.ConnectError("x"), httpx.ReadTimeout("x"), httpx.RemoteProtocolError("x"), httpx.DecodingError("x")]
)
def test_what_does_not_answer_is_unreachable(error):
    def fail(_):
        raise error

    with pytest.raises(Unreachable, match=error.__class__.__name__):
        client(fail).get("/x")


@pytest.mark.parametrize("url", ["", "nowhere", "ftp://x", "http://", "http://[", "http://a:b", "file:///etc/passwd"])
def test_what_is_no_address_is_unreachable(url):
    with pytest.raises(Unreachable):
        Client(url).get("/x")


def test_proxies_of_the_environment_are_ignored(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("all_proxy", "http://127.0.0.1:1")
    with listen("127.0.0.1", 0) as sock:
        sock.listen()
        threading.Thread(target=_one_answer, args=(sock,), daemon=True).start()
        asked = Client(url_of(sock))
        assert asked.get("/x") == b"direct"
        asked.close()


def _one_answer(sock: socket.socket) -> None:
    connection, _ = sock.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\ndirect")


# --- the server -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotFound, 404),
        (Conflict, 409),
        (Unauthorised, 403),
        (BrokerError, 403),
        (errors.BookRestored, 503),
        (TooLarge, 413),
        (Unreachable, 502),
        (Internal, 500),
        (Usage, 400),
        (errors.BadField, 400),
        (errors.BadProposal, 400),
    ],
)
def test_errors_have_their_status_and_their_code(error, status):
    async def fail(_request):
        raise error("why")

    with routes(fail) as role:
        answer = role.get("/x")
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, error.code)
    assert status_of(error("why")) == status


def test_a_wrong_address_or_method_is_answered_as_everything_else():
    async def fine(_request):
        return json_answer({})

    with routes(fine, methods=("GET",)) as role:
        nowhere, wrong = role.get("/y"), role.delete("/x")
    assert (nowhere.status_code, nowhere.json()["error"]["code"]) == (404, "app.not_found")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "app.usage")


def test_an_address_is_one_address():
    async def fine(_request):
        return json_answer({})

    with routes(fine) as role:
        answer = role.post("/x/")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "app.not_found")


def test_what_nobody_expected_says_nothing_to_the_caller_nor_to_the_log(caplog, capfd, monkeypatch):
    monkeypatch.delenv("STRONGROOM_DEBUG", raising=False)

    async def fail(_request):
        raise ValueError(SECRET)

    with caplog.at_level(logging.DEBUG), routes(fail) as role:
        answer = role.get("/x")
    said = "".join(capfd.readouterr())
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "app.internal")
    assert "internal error: ValueError" in caplog.text
    assert SECRET not in answer.text + caplog.text + said


def test_with_debug_the_traceback_is_there_for_who_asked_for_it(monkeypatch):
    monkeypatch.setenv("STRONGROOM_DEBUG", "1")

    async def fail(_request):
        raise ValueError(SECRET)

    with routes(fail) as role, pytest.raises(ValueError, match=SECRET):
        role.get("/x")


def test_an_answer_that_breaks_off_says_nothing_either(caplog):
    async def stream(_request):
        def pieces():
            yield b"begun"
            raise ValueError(SECRET)

        return StreamingResponse(pieces())

    with routes(stream) as role:
        answer = role.get("/x")
    assert answer.content == b"begun"
    assert SECRET not in caplog.text


@pytest.mark.parametrize("size", [100, 101, 100_000])
def test_a_body_is_bounded(size):
    async def echo(request):
        return Response(await body(request, 100))

    with routes(echo) as role:
        answer = role.post("/x", content=b"x" * size)
    assert answer.status_code == (200 if size == 100 else 413)


# --- listening ------------------------------------------------------------------------------------------------------


def test_a_taken_address_is_a_conflict_with_a_hint():
    with listen("127.0.0.1", 0) as sock:
        sock.listen()
        with pytest.raises(Conflict, match="is taken") as raised:
            listen("127.0.0.1", sock.getsockname()[1])
    assert "port" in raised.value.hint


def test_an_address_of_either_kind_is_written_as_a_browser_takes_it():
    with listen("127.0.0.1", 0) as sock:
        assert url_of(sock) == f"http://127.0.0.1:{sock.getsockname()[1]}"
    try:
        six = listen("::1", 0)
    except (Conflict, OSError):
        return  # no IPv6 here
    with six:
        assert url_of(six) == f"http://[::1]:{six.getsockname()[1]}"


def test_a_role_says_where_it_answers_once_it_does(monkeypatch):
    said = []

    async def fine(_request):
        return json_answer({"fine": True})

    def announce(url):
        said.append(url)

        def ask():
            asked = Client(url)
            said.append(asked.get("/x"))
            asked.close()
            http.os.kill(http.os.getpid(), http.signal.SIGTERM)

        threading.Thread(target=ask).start()

    with listen("127.0.0.1", 0) as sock:
        before = http.signal.signal(http.signal.SIGTERM, lambda *_: None)
        try:
            serve(application([Route("/x", fine)]), sock, announce=announce)
        finally:
            http.signal.signal(http.signal.SIGTERM, before)
    assert said[1] == b'{"fine":true}'
