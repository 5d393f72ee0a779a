"""Notices: nothing of a proposal is in them, they are signed, and they arrive, through failures and restarts."""

from __future__ import annotations

import http.server
import json
import socketserver
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from inbox_case import Desk, bundle
from stage import call
from strongroom import wire
from strongroom.app import notify
from strongroom.app.client.inbox import Inbox
from strongroom.app.notify import EVENTS, MAX_TRIES, Mail, Notice, Webhook
from strongroom.errors import BadField, Conflict, NotFound, StrongroomError, Unreachable, Usage
from strongroom.party import VerifyKey
from strongroom.review import Kind
from strongroom.wire import Envelope
from tls_between import Authority
from world import keys_of

HOME = Path(__file__).parents[1]
VECTORS = sorted((HOME / "vectors" / "notice").glob("*.json"))
TITLE = "A title that must be nowhere"
COMMENT = "A comment that must be nowhere"
HOSPITAL = keys_of("hospital").signing


def _script() -> ModuleType:
    found = spec_from_file_location("make_review", HOME / "vectors" / "make_review.py")
    assert found
    assert found.loader
    module = sys.modules[found.name] = module_from_spec(found)
    found.loader.exec_module(module)
    return module


MADE = _script()


# --- the format -----------------------------------------------------------------------------------------------


@given(
    st.builds(
        Notice,
        event=st.sampled_from([event for event in EVENTS if event != "test"]),
        proposal=st.binary(max_size=8).map(wire.digest),
        by=st.sampled_from(["", "lab"]),
        party=st.just("hospital"),
        at=st.integers(0, 2**53 - 1),
        id=st.binary(min_size=16, max_size=16).map(bytes.hex),
    )
)
def test_a_notice_reads_as_it_was_written(notice: Notice) -> None:
    assert Notice.parse(notice.encode()) == notice
    assert Notice.verify(notice.sign(HOSPITAL), HOSPITAL.public) == notice


@given(st.binary(max_size=100))
def test_no_other_bytes_are_a_notice(data: bytes) -> None:
    with pytest.raises(StrongroomError):
        Notice.parse(data)


def test_the_vectors_are_those_that_their_script_writes() -> None:
    assert {path.stem: json.loads(path.read_bytes()) for path in VECTORS} == MADE.notice_cases()


@pytest.mark.parametrize("path", VECTORS, ids=lambda p: p.stem)
def test_vector(path: Path) -> None:
    case = json.loads(path.read_bytes())
    envelope, key = Envelope.from_json(case["envelope"]), VerifyKey(wire.unb64(case["key"]))
    if case["expect"] == "ok":
        assert Notice.verify(envelope, key).encode() == envelope.payload
        return
    with pytest.raises(StrongroomError) as caught:
        Notice.verify(envelope, key)
    assert caught.value.code == case["expect"]


def test_the_page_shows_a_notice_that_is_one_and_names_every_member_and_event() -> None:
    page = (HOME / "spec" / "notice.md").read_text(encoding="utf-8")
    (shown,) = [json.loads(block.split("```")[0]) for block in page.split("```json\n")[1:]]
    assert wire.encode(shown) == MADE.NOTICE.encode()
    assert not {name for name in (*shown, *EVENTS) if f"`{name}`" not in page}


# --- servers of others ----------------------------------------------------------------------------------------


@dataclass
class Taken:
    """What a server was given, and what it answers."""

    bodies: list[bytes] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    status: int = 204
    login: list[str] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)
    url: str = ""
    port: int = 0


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def ca(authority: Authority, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    path.write_bytes(authority._certificate.public_bytes(Encoding.PEM))
    return path


@pytest.fixture
def hook(authority: Authority) -> Iterator[Taken]:
    """A real HTTPS server."""
    taken = Taken()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.bodies.append(self.rfile.read(int(self.headers["content-length"])))
            taken.paths.append(self.path)
            self.send_response(taken.status)
            if taken.status in (301, 307):
                self.send_header("location", f"{taken.url}/elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = authority.server().wrap_socket(server.socket, server_side=True)
        taken.url = f"https://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield taken
        server.shutdown()
        thread.join()


def smtp(authority: Authority, taken: Taken, *, offers: bool = True, implicit: bool = False) -> socketserver.TCPServer:
    """A real SMTP server (RFC 5321, RFC 3207), as small as a test needs."""

    class Handler(socketserver.StreamRequestHandler):
        def setup(self) -> None:
            if implicit:
                self.request = authority.server().wrap_socket(self.request, server_side=True)
            super().setup()

        def finish(self) -> None:
            with suppress(OSError):
                super().finish()
            self.rfile.close()
            self.connection.close()

        def say(self, line: str) -> None:
            self.wfile.write(line.encode() + b"\r\n")

        def handle(self) -> None:
            secure = implicit
            self.say("220 mail.example")
            while line := self.rfile.readline():
                word = line.decode("ascii", "replace").strip()
                verb = word.split(" ")[0].upper()
                if verb == "EHLO":
                    assert word == "ehlo [127.0.0.1]"
                    more = ["AUTH PLAIN"] if secure else ["STARTTLS"] if offers else []
                    lines = ["mail.example", *more, "SIZE 100000"]
                    for place, item in enumerate(lines, 1):
                        self.say(f"250{' ' if place == len(lines) else '-'}{item}")
                elif verb == "STARTTLS":
                    self.say("220 go on")
                    self.connection = authority.server().wrap_socket(self.connection, server_side=True)
                    self.rfile.close()
                    self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", buffering=0)
                    secure = True
                elif verb == "AUTH":
                    taken.login.append(word)
                    self.say("235 welcome")
                elif verb == "DATA":
                    self.say("354 go on")
                    body = b""
                    while not body.endswith(b"\r\n.\r\n"):
                        body += self.rfile.readline()
                    taken.bodies.append(body)
                    taken.encrypted.append(secure)
                    self.say("250 taken" if taken.status < 300 else "451 not now")
                elif verb == "QUIT":
                    self.say("221 bye")
                    return
                else:
                    self.say("250 ok")

    return socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)


@pytest.fixture
def post(authority: Authority) -> Iterator[Any]:
    """Starts mail servers."""
    started = []

    def start(**how: Any) -> Taken:
        taken = Taken()
        server = smtp(authority, taken, **how)
        taken.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        started.append((server, thread))
        return taken

    yield start
    for server, thread in started:
        server.shutdown()
        thread.join()
        server.server_close()


def mail(port: int, ca: Path | None, **changes: Any) -> Mail:
    said: dict[str, Any] = {"sender": "strongroom@hospital.example", "to": "reviewer@hospital.example"}
    return Mail("mail", "127.0.0.1", port, ca=str(ca) if ca else None, **{**said, **changes})


SIGNED = MADE.NOTICE.sign(HOSPITAL)


# --- webhooks ---------------------------------------------------------------------------------------------------


def test_a_webhook_gets_a_signed_notice(hook: Taken, ca: Path) -> None:
    Webhook("w", f"{hook.url}/in", str(ca)).send(SIGNED)
    (body,) = hook.bodies
    assert Notice.verify(Envelope.parse(body), HOSPITAL.public) == MADE.NOTICE
    assert hook.paths == ["/in"]


def test_a_webhook_whose_certificate_nobody_here_trusts_gets_nothing(hook: Taken) -> None:
    with pytest.raises(Unreachable):
        Webhook("w", hook.url).send(SIGNED)
    assert hook.bodies == []


@pytest.mark.parametrize("status", [301, 307, 400, 500])
def test_what_is_not_taken_is_not_taken_and_nobody_is_followed(hook: Taken, ca: Path, status: int) -> None:
    hook.status = status
    with pytest.raises(Unreachable):
        Webhook("w", hook.url, str(ca)).send(SIGNED)
    assert len(hook.bodies) == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example/x",
        "ftp://127.0.0.1/",
        "https://",
        "hooks.example",
        "https://a\x1b[2J",
        "file:///etc/passwd",
        "https://h:x/",
    ],
)
def test_an_address_that_is_no_safe_webhook_is_refused(url: str) -> None:
    with pytest.raises(Usage):
        Webhook("w", url)


def test_the_path_of_a_webhook_is_not_shown() -> None:
    assert "s3cret" not in Webhook("w", "https://hooks.example/s3cret").shown()


# --- mail -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_mail_goes_over_tls_with_a_login(post: Any, ca: Path, tls: str) -> None:
    taken = post(implicit=tls == "implicit")
    mail(taken.port, ca, tls=tls, user="us", password="s3cret").send(SIGNED)
    (body,) = taken.bodies
    assert taken.encrypted == [True]
    assert len(taken.login) == 1
    text = body.decode()
    assert "Subject: Strongroom: a proposal waits for your decision" in text
    assert MADE.NOTICE.proposal is not None
    assert MADE.NOTICE.proposal in text
    assert "Auto-Submitted: auto-generated" in text


def test_mail_is_not_sent_in_the_clear_where_a_server_offers_no_tls(post: Any, ca: Path) -> None:
    taken = post(offers=False)
    with pytest.raises(Unreachable):
        mail(taken.port, ca, user="us", password="s3cret").send(SIGNED)
    assert taken.bodies == taken.login == []


def test_mail_is_not_sent_to_a_server_whose_certificate_nobody_trusts(post: Any) -> None:
    taken = post()
    with pytest.raises(Unreachable):
        mail(taken.port, None, user="us", password="s3cret").send(SIGNED)
    assert taken.bodies == taken.login == []


def test_mail_without_tls_is_for_this_machine_and_without_a_password(post: Any) -> None:
    taken = post(offers=False)
    mail(taken.port, None, tls="none").send(SIGNED)
    assert taken.encrypted == [False]
    with pytest.raises(Usage):
        mail(taken.port, None, tls="none", password="s3cret")
    with pytest.raises(Usage):
        Mail("m", "mail.example", 25, "a@b.example", "c@d.example", tls="none")


@pytest.mark.parametrize("address", ["", "a", "@b", "a@", "a@b\r\nBcc: x@y", "a@b, c@d", "<a@b>", "a b@c", "ä@b", "a@b\x00"])
def test_an_address_cannot_add_a_line_to_a_mail(address: str) -> None:
    for changes in ({"to": address}, {"sender": address}):
        with pytest.raises(Usage):
            mail(25, None, **changes)


def test_what_a_mail_server_does_not_take_is_said(post: Any, ca: Path) -> None:
    taken = post()
    taken.status = 451
    with pytest.raises(Unreachable):
        mail(taken.port, ca).send(SIGNED)
    with pytest.raises(Unreachable):
        mail(1, ca).send(SIGNED)


# --- a party's channels -------------------------------------------------------------------------------------------


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    found = Desk(tmp_path / "desk")
    yield found
    found.close()


@pytest.fixture
def here(desk: Desk) -> Iterator[Inbox]:
    with closing(Inbox(desk.hospital)) as found:
        yield found


def test_channels_are_kept_secret_and_read_again(desk: Desk) -> None:
    home = desk.hospital.home
    both = [mail(587, None, user="us", password="s3cret"), Webhook("w", "https://hooks.example/s3cret")]
    for channel in both:
        notify.add(home, channel)
    assert notify.channels(home) == both
    assert stat.S_IMODE((home.folder / "notify.json").stat().st_mode) == 0o600
    with pytest.raises(Conflict):
        notify.add(home, both[0])
    notify.remove(home, "mail")
    assert notify.channels(home) == both[1:]
    with pytest.raises(NotFound):
        notify.remove(home, "mail")


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"channels": [{"kind": "pigeon"}]}', '{"channels": [{"kind": "webhook", "name": "w"}]}']
)
def test_a_file_that_is_none_is_refused(desk: Desk, text: str) -> None:
    (desk.hospital.home.folder / "notify.json").write_text(text)
    with pytest.raises(BadField):
        notify.channels(desk.hospital.home)


class Flaky:
    """A channel that fails as often as it is told."""

    def __init__(self, name: str, fails: int = 0) -> None:
        self.name, self.fails = name, fails
        self.taken: list[Notice] = []
        self.tries = 0

    def to_json(self) -> dict[str, Any]:
        return Webhook(self.name, "https://hooks.example/").to_json()

    def shown(self) -> str:
        return self.name

    def send(self, envelope: Envelope) -> None:
        self.tries += 1
        if self.tries <= self.fails:
            raise Unreachable("not now")
        self.taken.append(Notice.parse(envelope.payload))


def test_what_happens_is_sent_once_to_each_channel_and_says_nothing_of_it(desk: Desk, here: Inbox) -> None:
    for name in ("a", "b"):
        notify.add(desk.hospital.home, Webhook(name, "https://hooks.example/"))
    made = desk.propose(bundle(), title=TITLE)
    here.refresh()
    with closing(Inbox(desk.lab)) as lab:
        lab.say(made.digest, Kind.COMMENT, COMMENT)
    here.refresh()
    here.refresh()
    those = [Flaky("a"), Flaky("b")]
    assert notify.send_due(here.store, those, here.now()) == 4
    for channel in those:
        assert [(n.event, n.by, n.proposal) for n in channel.taken] == [
            ("proposed", "lab", made.digest), ("comment", "lab", made.digest),
        ]  # fmt: skip
        for notice in channel.taken:
            text = notice.encode() + mail(25, None).message(notice.sign(HOSPITAL)).as_bytes()
            assert TITLE.encode() not in text
            assert COMMENT.encode() not in text
            assert b"analysis" not in text
    assert here.store.waiting() == []
    assert notify.send_due(here.store, those, here.now()) == 0


def test_what_fails_is_tried_later_and_later_and_through_restarts(desk: Desk, here: Inbox) -> None:
    notify.add(desk.hospital.home, Webhook("a", "https://hooks.example/"))
    desk.propose()
    here.refresh()
    channel, at, waits = Flaky("a", fails=4), here.now(), []
    for _ in range(4):
        assert notify.send_due(here.store, [channel], at) == 0
        ((_, tries, due, error),) = here.store.waiting()
        assert "app.unreachable" in error
        assert notify.send_due(here.store, [channel], due - 1) == 0
        waits.append(due - at)
        at = due
        here.store.close()  # a restart
        here.store = type(here.store)(desk.hospital.home.folder / "inbox.db")
    assert waits == [60, 120, 240, 480]
    assert channel.tries == tries
    assert notify.send_due(here.store, [channel], at) == 1
    assert len(channel.taken) == 1
    assert here.store.waiting() == []


def test_after_many_tries_it_is_kept_and_not_sent_any_more(desk: Desk, here: Inbox) -> None:
    notify.add(desk.hospital.home, Webhook("a", "https://hooks.example/"))
    desk.propose()
    here.refresh()
    channel, at = Flaky("a", fails=10**6), here.now()
    for _ in range(2 * MAX_TRIES):
        notify.send_due(here.store, [channel], at)
        at += 7 * 3600
    assert channel.tries == MAX_TRIES
    assert len(here.store.waiting()) == 1


def test_a_notice_that_is_being_sent_is_nobody_elses(desk: Desk, here: Inbox) -> None:
    notify.add(desk.hospital.home, Webhook("a", "https://hooks.example/"))
    desk.propose()
    here.refresh()
    at = here.now()
    assert len(here.store.claim(at, at + 300)) == 1  # and then this process dies
    assert here.store.claim(at, at + 300) == []
    assert len(here.store.claim(at + 300, at + 600)) == 1


def test_a_channel_that_was_removed_gets_nothing(desk: Desk, here: Inbox) -> None:
    notify.add(desk.hospital.home, Webhook("a", "https://hooks.example/"))
    desk.propose()
    here.refresh()
    assert notify.send_due(here.store, [], here.now()) == 0
    assert here.store.waiting() == []


def test_who_looks_before_the_next_round_takes_no_notice_from_others(desk: Desk, here: Inbox) -> None:
    notify.add(desk.hospital.home, Webhook("a", "https://hooks.example/"))
    desk.propose()
    with closing(Inbox(desk.hospital)) as another:  # `strongroom inbox`, or the page, while nobody sends
        another.refresh()
    here.refresh()
    channel = Flaky("a")
    assert notify.send_due(here.store, [channel], here.now()) == 1


def test_many_notices_are_all_sent(desk: Desk, here: Inbox) -> None:
    notify.add(desk.hospital.home, Webhook("a", "https://hooks.example/"))
    for number in range(12):
        desk.propose(title=str(number))
    here.refresh()
    channel = Flaky("a")
    assert notify.send_due(here.store, [channel], here.now()) == 12
    assert len({notice.id for notice in channel.taken}) == 12


# --- the verb -------------------------------------------------------------------------------------------------------


def test_the_verb_adds_tests_lists_and_removes(desk: Desk, hook: Taken, post: Any, ca: Path, tmp_path: Path) -> None:
    taken = post()
    secret = tmp_path / "password"
    secret.write_text("s3cret\n")
    common = ("--home", desk.home, "--as", "hospital", "--json")
    assert call("notify", "test", *common).status == 2
    assert call("notify", "add", "--webhook", f"{hook.url}/s3cret", "--ca", ca, *common).status == 0
    told = call(
        "notify", "add", "--smtp", f"127.0.0.1:{taken.port}", "--from", "a@b.example", "--to", "c@d.example",
        "--user", "us", "--password-file", secret, "--ca", ca, *common,
    )  # fmt: skip
    assert told.status == 0
    listed = call("notify", "list", *common)
    assert [one["name"] for one in listed.json["channels"]] == ["mail", "webhook"]
    assert "s3cret" not in listed.out + told.out
    assert call("notify", "test", *common).status == 0
    assert len(hook.bodies) == len(taken.bodies) == 1
    hook.status = 500
    assert call("notify", "test", *common).status == 1
    for name in ("mail", "webhook"):
        assert call("notify", "remove", name, *common).status == 0
    assert call("notify", "list", *common).json == {"channels": []}


@pytest.mark.parametrize(
    "words",
    [
        ("add",),
        ("add", "--webhook", "https://a.example", "--smtp", "b:1"),
        ("add", "--smtp", "b"),
        ("remove",),
        ("run", "--every", "0"),
    ],
)
def test_what_the_verb_does_not_understand_is_said(desk: Desk, words: tuple[str, ...]) -> None:
    said = call(
        "notify",
        *words,
        "--home",
        desk.home,
        "--as",
        "hospital",
        "--exchange-url",
        "http://127.0.0.1:1",
        "--enclave-url",
        "x",
    )
    assert said.status == 2
