"""How the chat page is served: its rules for a browser, its caching, and what is refused."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from strongroom.app.web import RAW_HEADERS, STATIC, ChatPage, policy
from strongroom.errors import NotBuilt

DIGEST = "sha384-" + "A" * 64
INDEX = f"""<!doctype html>
<script type="module" src="/assets/index-1.js" integrity="{DIGEST}"></script>
<link rel="stylesheet" href="/assets/index-1.css" integrity="{DIGEST}">"""


@pytest.fixture
def static(tmp_path: Path) -> Path:
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text(INDEX)
    (tmp_path / "assets" / "index-1.js").write_text("let page")
    (tmp_path / "assets" / "index-1.css").write_text("body {}")
    return tmp_path


class Answer:
    """What was sent."""

    def __init__(self, messages: list[dict[str, Any]]) -> None:
        self.status: int = messages[0]["status"]
        self.headers = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
        self.body = b"".join(message.get("body", b"") for message in messages[1:])


def get(page: Any, path: str, method: str = "GET", **headers: str) -> Answer:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": given}
    asyncio.run(page(scope, receive, send))
    return Answer(sent)


def test_a_browser_runs_the_pages_own_scripts_and_nothing_else(static: Path) -> None:
    rules = get(ChatPage(served_by="host", static=static), "/").headers["content-security-policy"]
    found = dict(rule.split(" ", 1) for rule in rules.split("; "))
    assert found["script-src"] == f"'{DIGEST}'"
    assert found["default-src"] == "'none'"
    assert found["require-trusted-types-for"] == "'script'"
    assert found["frame-ancestors"] == found["base-uri"] == found["form-action"] == "'none'"
    assert "unsafe" not in rules
    assert "://" not in rules
    assert "data:" not in rules
    assert "*" not in rules


@pytest.mark.parametrize(
    "html",
    [
        "",
        "<script>alert(1)</script>",
        '<script src="/assets/a.js"></script>',
        INDEX + "<script src='/assets/b.js'></script>",
        f'<script integrity="{DIGEST[:-1]}">',
    ],
)
def test_a_page_with_a_script_that_is_not_named_by_its_digest_is_not_served(html: str) -> None:
    with pytest.raises(NotBuilt):
        policy(html)


def test_every_answer_carries_the_rules(static: Path) -> None:
    page = ChatPage(served_by="proxy", base="/raw", trust=lambda: b"{}", static=static)
    for path in ("/", "/config.json", "/trust.json", "/assets/index-1.js", "/elsewhere"):
        headers = get(page, path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert headers["content-security-policy"].startswith("default-src 'none'")


def test_what_is_named_by_its_content_is_kept_for_ever_and_the_rest_is_asked_for(static: Path) -> None:
    page = ChatPage(served_by="host", trust=lambda: b"{}", static=static)
    assert get(page, "/assets/index-1.js").headers["cache-control"] == "public, max-age=31536000, immutable"
    assert get(page, "/").headers["cache-control"] == "no-cache"
    assert get(page, "/config.json").headers["cache-control"] == "no-store"
    assert get(page, "/trust.json").headers["cache-control"] == "no-store"
    first = get(page, "/")
    again = get(page, "/", if_none_match=first.headers["etag"])
    assert (again.status, again.body) == (304, b"")
    assert get(page, "/", if_none_match='"another"').status == 200


def test_it_is_told_who_serves_it_and_where_the_room_is(static: Path) -> None:
    page = ChatPage(served_by="proxy", base="/raw", contract="sha256:00", room="https://room.example", static=static)
    assert get(page, "/config.json").body == (
        b'{"base": "/raw", "contract": "sha256:00", "room": "https://room.example", "served_by": "proxy", "trust": false}'
    )
    assert get(page, "/trust.json").status == 404


def test_a_trust_document_is_read_anew_each_time(static: Path) -> None:
    documents = iter([b"1", b"2"])
    page = ChatPage(served_by="proxy", trust=lambda: next(documents), static=static)
    assert [get(page, "/trust.json").body for _ in range(2)] == [b"1", b"2"]


def test_nothing_is_written_to_it(static: Path) -> None:
    page = ChatPage(served_by="host", static=static)
    assert get(page, "/", "POST").status == 405
    head = get(page, "/", "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert int(head.headers["content-length"]) == len(INDEX)


@pytest.mark.parametrize(
    "path", ["/../pyproject.toml", "/assets/../index.html", "/assets/", "/index.html", "//", "/assets/%2e%2e"]
)
def test_a_path_out_of_the_folder_is_nothing(static: Path, path: str) -> None:
    assert get(ChatPage(served_by="host", static=static), path).status == 404


def test_everything_else_goes_to_the_application_behind(static: Path) -> None:
    async def behind(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 299, "headers": []})
        await send({"type": "http.response.body", "body": scope["path"].encode()})

    page = ChatPage(served_by="host", static=static, behind=behind)
    assert get(page, "/v1/models").body == b"/v1/models"
    assert get(page, "/").status == 200


def test_half_a_page_is_not_served(static: Path) -> None:
    (static / "assets" / "index-1.js").unlink()
    with pytest.raises(NotBuilt):
        ChatPage(served_by="host", static=static)
    with pytest.raises(NotBuilt):
        ChatPage(served_by="host", static=static / "assets")


def test_a_strange_file_in_the_built_form_is_not_served(static: Path) -> None:
    (static / "assets" / "notes.txt").write_text("x")
    with pytest.raises(NotBuilt):
        ChatPage(served_by="host", static=static)


def test_what_a_host_says_is_no_page_of_ours() -> None:
    found = dict(RAW_HEADERS)
    assert b"sandbox" in found[b"content-security-policy"]
    assert found[b"x-content-type-options"] == b"nosniff"


@pytest.mark.skipif(not (STATIC / "index.html").is_file(), reason="the page is not built: make web")
def test_the_built_page_names_nothing_on_another_host() -> None:
    page = ChatPage(served_by="host")
    assert get(page, "/").status == 200
    html = (STATIC / "index.html").read_text()
    assert "://" not in html
    assert not re.search(r"\son\w+=|style=|javascript:", html)
    for path in (STATIC / "assets").glob("*.css"):
        assert "://" not in path.read_text()
        assert "@import" not in path.read_text()
