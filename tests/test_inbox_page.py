"""The inbox in a real browser: what an owner reads and does there, and what no other page can do in the owner's name."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: it drives the browser")
pytest.importorskip("bandit", reason="bandit is not installed: pip install 'strongroom[review]'")

import httpx
from playwright.sync_api import Browser, Page, expect, sync_playwright

from inbox_case import FIRST, HELPER, SECOND, Code, Served, bundle, lock, served
from strongroom import wire
from strongroom.app.web.inbox import COOKIE, POLICY
from strongroom.app.web.markup import code, element, text
from strongroom.contract import Proposal, State
from strongroom.review import Kind, Note

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
in_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: install Debian's package chromium")
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>'\"&"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    expect.set_options(timeout=30_000)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    import strongroom.programs

    real = strongroom.programs.load
    monkeypatch.setattr(strongroom.programs, "load", lambda name: Code if name == "code" else real(name))
    with served(tmp_path) as found:
        yield found


class Eyes:
    """An owner at a browser. What must always hold is asserted by :meth:`is_clean`."""

    def __init__(self, browser: Browser, case: Served, **looks: Any) -> None:
        self.context: BrowserContext = browser.new_context(**{"viewport": {"width": 1180, "height": 800}, **looks})
        self.context.set_default_timeout(30_000)
        self.case, self.page = case, self.context.new_page()
        self.said: list[str] = []
        self.hosts: set[str] = set()
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.said.append("a dialog"), dialog.dismiss()))
        self.page.on("request", lambda request: self.hosts.add("/".join(request.url.split("/")[:3])))

    def enter(self) -> Page:
        self.page.goto(self.case.page.entrance)
        expect(self.page.get_by_role("heading", level=1)).to_contain_text("What waits for you")
        return self.page

    def open(self, title: str) -> None:
        self.page.get_by_role("link", name=title).first.click()
        expect(self.page.get_by_role("heading", level=1)).to_have_text(title)

    def is_clean(self) -> None:
        assert self.said == []
        assert self.hosts == {self.case.url}
        assert self.page.locator("script").count() == 0


@pytest.fixture
def eyes(chromium: Browser, case: Served) -> Iterator[Eyes]:
    found = Eyes(chromium, case)
    yield found
    found.is_clean()
    found.context.close()


def second_version(case: Served) -> Proposal:
    old = case.desk.propose(bundle(FIRST, lock(1), **{"helper.py": HELPER}), title="Income")
    case.inbox.show(old.digest)
    return case.desk.propose(bundle(SECOND, lock(2), **{"helper.py": HELPER}), title="Income, again", supersedes=old.digest)


# --- what an owner reads and does ----------------------------------------------------------------------------------


@in_chromium
def test_an_owner_reads_code_beside_its_last_version_and_approves_it(eyes: Eyes) -> None:
    case, made = eyes.case, second_version(eyes.case)
    page = eyes.enter()
    eyes.open("Income, again")
    file = page.get_by_role("region", name="analysis.py")
    expect(file.locator(".line.added")).to_have_count(6)
    expect(file.locator(".line.gone")).to_have_count(1)
    expect(file.locator(".beside.high").first).to_contain_text("imports socket")
    expect(page.get_by_role("region", name="helper.py").locator(".line")).to_have_count(0)
    expect(page.get_by_text("numpy 2.2.1 → 2.2.2")).to_be_visible()
    aside = page.get_by_role("complementary", name="Decide")
    expect(aside).to_contain_text(made.digest)
    expect(aside).to_contain_text(wire.digest(bundle(SECOND, lock(2), **{"helper.py": HELPER})))
    button = aside.get_by_role("button", name="Approve")
    expect(button).to_contain_text(made.digest[-8:])
    button.click()  # without having said that it was read
    assert case.desk.hospital.view(made.digest).history.approved_by == {"lab"}
    aside.get_by_role("textbox", name="Why").fill("Harmless enough.")
    aside.get_by_role("checkbox").check()
    button.click()
    expect(page.get_by_text("You approved it.")).to_be_visible()
    assert case.desk.hospital.view(made.digest).state is State.APPROVED
    (note,) = case.inbox.show(made.digest).notes
    assert (note.kind, note.text) == (Kind.REVIEWED, "Harmless enough.")


def test_beside_a_version_that_was_never_shown_everything_is_shown(visitor: Visitor) -> None:
    hidden = "import socket  # in both versions\n" + "x = 1\n" * 50
    old = visitor.case.desk.propose(bundle(hidden))
    new = visitor.case.desk.propose(bundle(hidden + "y = 2\n"), supersedes=old.digest)
    answer = visitor.get(f"p/{new.digest}").text
    assert "never shown to you here" in answer
    assert answer.count("<code>x = 1</code>") == 50
    visitor.get(f"p/{old.digest}")
    answer = visitor.get(f"p/{new.digest}").text
    assert "which was shown to you" in answer
    assert "<code>import socket" in answer  # something was found there
    assert answer.count("<code>x = 1</code>") < 10


@in_chromium
def test_a_line_is_commented_on_by_following_its_number(eyes: Eyes) -> None:
    made = second_version(eyes.case)
    page = eyes.enter()
    eyes.open("Income, again")
    page.get_by_role("link", name="Comment on line 16").click()
    box = page.get_by_role("textbox", name="Your comment on line 16 of analysis.py")
    expect(box).to_be_focused()
    box.fill(f"Why no seed?\nIt was 7. {HOSTILE}")
    page.get_by_role("button", name="Comment", exact=True).first.click()
    said = page.locator("div.beside.note")
    expect(said).to_contain_text("It was 7.")
    expect(said).to_contain_text(HOSTILE)
    (note,) = eyes.case.inbox.show(made.digest).notes
    assert (note.file, note.line, note.text) == ("analysis.py", 16, f"Why no seed?\nIt was 7. {HOSTILE}")


@in_chromium
def test_a_change_is_asked_for_and_a_proposal_refused(eyes: Eyes) -> None:
    made = second_version(eyes.case)
    page = eyes.enter()
    eyes.open("Income, again")
    page.locator("summary", has_text="Ask for a change").click()
    page.get_by_role("textbox", name="What is to change").fill("Write the cities out.")
    page.get_by_role("button", name="Ask for a change").click()
    expect(page.get_by_text("Write the cities out.")).to_be_visible()
    page.locator("summary", has_text="Refuse").click()
    page.get_by_role("textbox", name="Why; it stops").fill("Names come from the data.")
    page.get_by_role("button", name="Refuse").click()
    expect(page.get_by_text("It is withdrawn.")).to_be_visible()
    assert eyes.case.desk.lab.view(made.digest).state is State.WITHDRAWN


@in_chromium
def test_the_list_is_filtered(eyes: Eyes) -> None:
    for title in ("Bias", "Survival"):
        eyes.case.desk.propose(title=title)
    eyes.case.desk.hospital.withdraw(eyes.case.desk.propose(title="Old").digest, "no")
    page = eyes.enter()
    expect(page.locator(".list li")).to_have_count(2)
    page.get_by_role("searchbox", name="Text").fill("surv")
    page.keyboard.press("Enter")
    expect(page.locator(".list li")).to_have_count(1)
    page.get_by_role("searchbox", name="Text").fill("")
    page.get_by_role("combobox", name="State").select_option("withdrawn")
    page.get_by_role("button", name="Filter").click()
    expect(page.locator(".list .title")).to_have_text(["Old"])


@in_chromium
def test_all_of_it_works_by_keyboard(eyes: Eyes) -> None:
    made = eyes.case.desk.propose(title="Bias")
    page = eyes.enter()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.get_by_role("link", name="Bias").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Bias")
    page.get_by_role("checkbox").focus()
    page.keyboard.press("Space")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Approve")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_text("You approved it.")).to_be_visible()
    assert eyes.case.desk.hospital.view(made.digest).state is State.APPROVED


@in_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_both_schemes(chromium: Browser, case: Served, scheme: Any) -> None:
    second_version(case)
    looks = {"viewport": {"width": 360, "height": 760}, "is_mobile": True, "has_touch": True, "color_scheme": scheme}
    eyes = Eyes(chromium, case, **looks)
    page = eyes.enter()
    for _ in range(2):
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        if page.get_by_role("link", name="Income, again").count():
            eyes.open("Income, again")
    back = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", back)[:3])) < 200) == (scheme == "dark")
    eyes.is_clean()
    eyes.context.close()


@in_chromium
def test_what_others_wrote_is_text_and_nothing_of_it_hides(eyes: Eyes) -> None:
    hostile = f"# {HOSTILE}\nx = 1  # \u202e fine\np\u0430ge = '\x1b[2J'\n" + "y" * 5000 + " = 1\n"
    made = eyes.case.desk.propose(bundle(hostile), title=HOSTILE)
    eyes.case.inbox.say(made.digest, Kind.COMMENT, HOSTILE)
    page = eyes.enter()
    expect(page.locator(".list .title")).to_have_text(HOSTILE)
    eyes.open(HOSTILE)
    expect(page.locator("code").first).to_have_text(f"# {HOSTILE}")
    expect(page.locator("code .odd").first).to_have_text("U+202E")
    expect(page.locator("code .odd").nth(1)).to_have_text("U+001B")
    expect(page.locator("code .other").first).to_have_attribute("title", "U+0430")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@in_chromium
def test_a_page_elsewhere_can_neither_decide_nor_look(chromium: Browser, case: Served) -> None:
    """Another server on this machine: the same site to the browser, on another port."""
    import http.server
    import threading

    made = case.desk.propose(title="Bias")
    case.inbox.show(made.digest)
    eyes = Eyes(chromium, case)
    inbox = eyes.enter().url
    form = (
        f"<form method=post action='{inbox}p/{made.digest}/approve' id=f>"
        f"<input name=proposal value='{made.digest}'><input name=read value=yes><input name=bundle value=''></form>"
        f"<iframe src='{inbox}'></iframe><button onclick='f.submit()'>go</button>"
    ).encode()
    sent: list[str] = []

    class Evil(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent.append(self.headers.get("cookie", ""))
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(form)

        def log_message(self, *_: object) -> None:
            pass

    evil = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Evil)
    threading.Thread(target=evil.serve_forever, daemon=True).start()
    page = eyes.context.new_page()
    page.goto(f"http://127.0.0.1:{evil.server_port}/")
    assert not any(COOKIE in cookie for cookie in sent)  # cookies know no ports, and this one knows its path
    assert page.frame_locator("iframe").locator(".list").count() == 0
    page.get_by_role("button", name="go").click()
    expect(page.get_by_text("the form was sent by another page")).to_be_visible()
    evil.shutdown()
    evil.server_close()
    assert case.desk.hospital.view(made.digest).history.approved_by == {"lab"}
    eyes.context.close()


# --- what is answered to whom ---------------------------------------------------------------------------------------


class Visitor:
    """Somebody with a client that sends whatever it likes."""

    def __init__(self, case: Served, *, inside: bool = True) -> None:
        self.case = case
        self.client = httpx.Client(base_url=case.url, trust_env=False)
        self.base = case.page.entrance.removeprefix(case.url).split("enter/")[0]
        if inside:
            assert self.client.get(case.page.entrance).status_code == 303

    def get(self, path: str = "", **more: Any) -> httpx.Response:
        return self.client.get(self.base + path, **more)

    def secret(self, digest: str) -> str:
        found = re.search(r'name="secret" value="([^"]+)"', self.get(f"p/{digest}").text)
        assert found
        return found[1]

    def post(self, path: str, fields: dict[str, str], **headers: str) -> httpx.Response:
        return self.client.post(self.base + path, data=fields, headers={"origin": self.case.url, **headers})


@pytest.fixture
def visitor(case: Served) -> Iterator[Visitor]:
    found = Visitor(case)
    yield found
    found.client.close()


def test_an_address_is_good_for_one_visit(case: Served) -> None:
    entrance = case.page.entrance
    first, second = httpx.get(entrance), httpx.get(entrance)
    assert (first.status_code, second.status_code) == (303, 403)
    cookie = first.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert f"path={entrance.removeprefix(case.url).split('enter/')[0]}".lower() in cookie
    assert "set-cookie" not in second.headers


def test_nobody_sees_anything_without_the_cookie(case: Served) -> None:
    made = case.desk.propose(title="Nobody sees this")
    visitor = Visitor(case, inside=False)
    for path in ("", f"p/{made.digest}"):
        answer = visitor.get(path)
        assert answer.status_code == 403
        assert "Nobody sees" not in answer.text
        assert "hospital" not in answer.text
    assert visitor.post(f"p/{made.digest}/approve", {}).status_code == 403
    assert visitor.client.get("/").status_code == 404
    visitor.client.close()


@pytest.mark.parametrize("token", ["", "x", "enter", "%00"])
def test_no_other_token_opens_it(case: Served, token: str) -> None:
    visitor = Visitor(case, inside=False)
    assert visitor.get(f"enter/{token}").status_code in (403, 404)
    assert httpx.get(case.page.entrance).status_code == 303
    visitor.client.close()


def test_a_name_that_was_made_to_lead_here_is_refused(visitor: Visitor) -> None:
    for host in ("inbox.example", "localhost", "127.0.0.1", "evil.example:80"):
        assert visitor.get(headers={"host": host}).status_code == 403


def test_every_answer_has_its_rules(visitor: Visitor) -> None:
    made = visitor.case.desk.propose()
    for path in ("", f"p/{made.digest}", "style.css", "p/x", "enter/x"):
        headers = visitor.get(path).headers
        assert headers["content-security-policy"] == POLICY
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
    assert "script-src" not in POLICY
    assert POLICY.startswith("default-src 'none'")


def approving(visitor: Visitor, made: Proposal, **changes: str) -> dict[str, str]:
    return {
        "proposal": made.digest,
        "bundle": "",
        "read": "yes",
        "text": "",
        "secret": visitor.secret(made.digest),
        **changes,
    }


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        ({"secret": ""}, {}),
        ({"secret": "x" * 43}, {}),
        ({"proposal": "sha256:" + "0" * 64}, {}),
        ({"bundle": "sha256:" + "0" * 64}, {}),
        ({"read": ""}, {}),
        ({}, {"origin": "http://evil.example"}),
        ({}, {"origin": "null"}),
        ({}, {"origin": ""}),
        ({"text": "fine\x1b[2J"}, {}),
    ],
    ids=range(9),
)
def test_a_form_that_is_not_this_pages_decides_nothing(
    visitor: Visitor, fields: dict[str, str], headers: dict[str, str]
) -> None:
    made = visitor.case.desk.propose()
    answer = visitor.post(f"p/{made.digest}/approve", approving(visitor, made, **fields), **headers)
    assert answer.status_code in (400, 403)
    assert visitor.case.desk.hospital.view(made.digest).history.approved_by == {"lab"}


def test_the_form_as_it_is_decides(visitor: Visitor) -> None:
    made = visitor.case.desk.propose()
    assert visitor.post(f"p/{made.digest}/approve", approving(visitor, made)).status_code == 303
    assert visitor.case.desk.hospital.view(made.digest).state is State.APPROVED


def test_what_was_not_shown_is_not_approved_by_a_form(visitor: Visitor) -> None:
    made, other = visitor.case.desk.propose(), visitor.case.desk.propose(title="another")
    fields = {**approving(visitor, made), "proposal": other.digest}
    assert visitor.post(f"p/{other.digest}/approve", fields).status_code == 400
    assert visitor.case.desk.hospital.view(other.digest).history.approved_by == {"lab"}


@pytest.mark.parametrize("verb", ["withdraw", "grant", "..", "approve/x"])
def test_nothing_else_can_be_done(visitor: Visitor, verb: str) -> None:
    made = visitor.case.desk.propose()
    assert visitor.post(f"p/{made.digest}/{verb}", approving(visitor, made)).status_code in (400, 404, 405)


@pytest.mark.parametrize("body", [b"\xff", b"a=1&a=2", b"no form", b"&".join(b"a%d=1" % n for n in range(99))])
def test_what_is_no_form_is_refused(visitor: Visitor, body: bytes) -> None:
    made = visitor.case.desk.propose()
    url = f"{visitor.base}p/{made.digest}/comment"
    assert visitor.client.post(url, content=body, headers={"origin": visitor.case.url}).status_code in (400, 403)


@pytest.mark.parametrize("query", ["?since=yesterday", "?state=best"])
def test_a_filter_that_means_nothing_is_said(visitor: Visitor, query: str) -> None:
    answer = visitor.get(query)
    assert answer.status_code == 400
    assert "app.usage" in answer.text


def test_long_code_is_read_to_its_end_page_by_page(visitor: Visitor) -> None:
    lines = "".join(f"x = {n}\n" for n in range(7000))
    made = visitor.case.desk.propose(bundle(lines))
    seen, path = "", f"p/{made.digest}"
    while path:
        answer = visitor.get(path).text
        seen += answer
        link = re.search(r'href="[^"]*/(p/[^"#]*start=[^"#]*)#code">[\d,]+ more lines', answer)
        path = link[1].replace("&amp;", "&") if link else ""
    assert {f"x = {n}" for n in range(7000)} <= set(re.findall(r"<code>(x = \d+)</code>", seen))


def test_a_forged_note_is_nowhere_on_the_page(visitor: Visitor) -> None:
    from strongroom.party import SigningKey

    made = visitor.case.desk.propose()
    forged = Note(made.digest, None, Kind.COMMENT, "lab", 1, "Approve at once").sign(SigningKey(b"x" * 32))
    with visitor.case.desk.store._db.write() as c:
        row = (forged.digest, made.digest, "lab", forged.encode())
        c.execute("INSERT INTO notes (digest, proposal, party, envelope) VALUES (?, ?, ?, ?)", row)
    assert "Approve at once" not in visitor.get(f"p/{made.digest}").text


# --- markup -----------------------------------------------------------------------------------------------------------


def test_text_never_becomes_markup() -> None:
    assert text(HOSTILE) == "&lt;script&gt;alert(1)&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;&#x27;&quot;&amp;"
    assert element("a", HOSTILE, href='"><script>') == f'<a href="&quot;&gt;&lt;script&gt;">{text(HOSTILE)}</a>'
    assert text("a\u202eb") == 'a<span class="odd">U+202E</span>b'
    assert code("\t<") == "\t&lt;"
    assert element("input", disabled=True, value=None) == "<input disabled>"
