"""Notices: that there is something to look at, by webhook or e-mail, and never what it is.

A notice names an event, a proposal by its digest and a party. It holds no title, no text and no code: who reads it on the
way, or on a chat server, learns that somebody decides about something. A webhook's body is a signed document
(``spec/notice.md``). What is to be sent lies in the party's index until it was taken, through restarts, and is tried again
later and later.
"""

from __future__ import annotations

import secrets
import smtplib
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from strongroom import wire
from strongroom.app.client.home import PartyHome, loads, pretty, reading, write
from strongroom.errors import BadField, Conflict, NotFound, StrongroomError, Unreachable, Usage
from strongroom.party import SigningKey, VerifyKey
from strongroom.wire import JSON, Envelope, Fields

if TYPE_CHECKING:
    from strongroom.app.client.listed import News
    from strongroom.app.stores.inbox import InboxStore

NOTICE_TYPE = wire.media_type("notice")
EVENTS = ("agreed", "approved", "ask", "comment", "countered", "proposed", "reviewed", "test", "withdrawn")
MAX_NOTICE_BYTES = 4096
MAX_CHANNELS = 16
PATIENCE = 20.0  # seconds for one delivery
FIRST_WAIT, LONGEST_WAIT = 60, 6 * 3600  # seconds until the second try, and between later ones at most
MAX_TRIES = 24  # four days; then it is kept, shown and not sent any more
NEVER = 2**53 - 1
LEASE = 300  # seconds for which a notice that is being sent is nobody else's
MAX_ANSWER = 4096
SAID = {
    "agreed": "every party has approved a proposal: it is a contract",
    "approved": "a party has approved a proposal",
    "ask": "a party asks for a change",
    "comment": "a party has commented on a proposal",
    "countered": "a proposal was answered with another",
    "proposed": "a proposal waits for your decision",
    "reviewed": "a party has read a proposal",
    "test": "this is a test",
    "withdrawn": "a party has withdrawn from a proposal",
}


@dataclass(frozen=True, slots=True)
class Notice:
    """That something happened.

    Attributes:
        event: one of ``EVENTS``.
        proposal: a proposal's digest; ``None`` in a test.
        by: the party that did it, ``""`` where nobody is named.
        party: whose notice it is.
        at: Unix seconds, when it was noticed.
        id: 16 bytes in hex; the same notice sent twice has the same.
    """

    event: str
    proposal: str | None
    by: str
    party: str
    at: int
    id: str

    def encode(self) -> bytes:
        value: dict[str, JSON] = {name: getattr(self, name) for name in self.__slots__}
        return wire.encode(value)

    @classmethod
    def parse(cls, data: bytes) -> Notice:
        """Parse the exact bytes; ``parse(b).encode() == b``. Raises WireError and its leaves."""
        f = Fields(wire.decode(data, max_bytes=MAX_NOTICE_BYTES), "notice")
        found = cls(
            event=f.text("event", choices=EVENTS),
            proposal=f.optional("proposal", lambda v: Fields({"proposal": v}, "notice").digest("proposal")),
            by=_name_or_none(f),
            party=f.name("party"),
            at=f.integer("at"),
            id=f.hex("id", size=16).hex(),
        )
        f.end()
        if (found.proposal is None) != (found.event == "test"):
            raise BadField("notice.proposal is missing, or is there in a test")
        return found

    def sign(self, key: SigningKey) -> Envelope:
        return key.sign(NOTICE_TYPE, self.encode())

    @classmethod
    def verify(cls, envelope: Envelope, key: VerifyKey) -> Notice:
        """A party's own notice, with that party's signing key. Raises BadSignature, WireError."""
        key.verify(envelope, NOTICE_TYPE)
        return cls.parse(envelope.expect(NOTICE_TYPE))


def _name_or_none(f: Fields) -> str:
    found = f.text("by", max_chars=64)
    return found and Fields({"by": found}, "notice").name("by")


# --- where to -------------------------------------------------------------------------------------------------------


class Channel(Protocol):
    """A way to somebody."""

    @property
    def name(self) -> str: ...

    def to_json(self) -> dict[str, JSON]: ...

    def shown(self) -> str:
        """Where it leads, without any secret."""
        ...

    def send(self, envelope: Envelope) -> None:
        """Raises Unreachable: it was not taken."""
        ...


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _context(ca: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise NotFound(f"cannot read the certificates in {ca}") from error


@dataclass(frozen=True, slots=True)
class Webhook:
    """An address that takes a signed notice by HTTPS POST. Redirects are not followed; HTTP is for this machine alone."""

    name: str
    url: str
    ca: str | None = None

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            host, _ = parts.hostname or "", parts.port
        except ValueError as error:
            raise Usage("that is no address of a webhook") from error
        if not self.url.isascii() or not self.url.isprintable() or not host:
            raise Usage("that is no address of a webhook")
        if parts.scheme != "https" and not (parts.scheme == "http" and _is_here(host)):
            raise Usage("a webhook's address begins with https://")

    def to_json(self) -> dict[str, JSON]:
        return {"ca": self.ca, "kind": "webhook", "name": self.name, "url": self.url}

    def shown(self) -> str:
        return f"https webhook at {urlsplit(self.url).hostname}"  # paths of webhooks are often secrets

    def send(self, envelope: Envelope) -> None:
        import httpx

        headers = {"content-type": NOTICE_TYPE, "user-agent": "strongroom"}
        began = time.monotonic()
        try:
            with (
                httpx.Client(timeout=PATIENCE, verify=_context(self.ca), trust_env=False, follow_redirects=False) as client,
                client.stream("POST", self.url, content=envelope.encode(), headers=headers) as answer,
            ):
                status, size = answer.status_code, 0
                for piece in answer.iter_raw():
                    size += len(piece)
                    if size > MAX_ANSWER or time.monotonic() - began > PATIENCE:
                        break
        except httpx.HTTPError as error:
            raise Unreachable(f"the webhook does not answer: {error.__class__.__name__}") from error
        if not 200 <= status < 300:
            raise Unreachable(f"the webhook answered HTTP {status}")


TLS = ("starttls", "implicit", "none")


@dataclass(frozen=True, slots=True)
class Mail:
    """A mailbox, by SMTP over TLS. Without TLS is for this machine alone, and then without a password."""

    name: str
    host: str
    port: int
    sender: str
    to: str
    tls: str = "starttls"
    user: str | None = None
    password: str | None = None
    ca: str | None = None

    def __post_init__(self) -> None:
        if self.tls not in TLS or not 1 <= self.port <= 65535 or not self.host or not self.host.isprintable():
            raise Usage("that is no SMTP server", hint="Write it as mail.example:587.")
        if self.tls == "none" and (not _is_here(self.host) or self.password):
            raise Usage("mail goes without TLS to this machine alone, and without a password")
        for address in (self.sender, self.to):
            local, sign, domain = address.rpartition("@")
            if not (local and sign and domain and address.isascii() and address.isprintable()) or set(address) & set(
                " ,<>\"'"
            ):
                raise Usage("that is no plain e-mail address", hint="Write it as reviewer@hospital.example.")

    def to_json(self) -> dict[str, JSON]:
        return {"kind": "mail", **{name: getattr(self, name) for name in self.__slots__}}

    def shown(self) -> str:
        return f"mail to {self.to} by {self.host}:{self.port}"

    def message(self, envelope: Envelope) -> EmailMessage:
        """The mail: the event in plain words, the digest, and how to look."""
        notice = Notice.parse(envelope.expect(NOTICE_TYPE))
        mail = EmailMessage()
        mail["From"], mail["To"] = self.sender, self.to
        mail["Subject"] = f"Strongroom: {SAID[notice.event]}"
        mail["Date"] = formatdate(notice.at)
        mail["Message-ID"] = f"<{notice.id}@strongroom.invalid>"
        mail["Auto-Submitted"] = "auto-generated"
        lines = [f"To {notice.party}: {SAID[notice.event]}."]
        if notice.by:
            lines.append(f"By: {notice.by}")
        if notice.proposal:
            lines += [f"Proposal: {notice.proposal}", "", "Look at it with:"]
            lines.append(f"strongroom inbox show {notice.proposal} --as {notice.party}")
        lines += ["", "This mail says nothing of the proposal, and nothing is decided by answering it."]
        mail.set_content("\n".join(lines) + "\n", cte="7bit")
        return mail

    def send(self, envelope: Envelope) -> None:
        mail = self.message(envelope)
        try:
            with self._connected() as server:
                if self.tls == "starttls":
                    server.starttls(context=_context(self.ca))
                if self.user is not None:
                    server.login(self.user, self.password or "")
                server.send_message(mail)
        except (smtplib.SMTPException, OSError, ValueError) as error:
            raise Unreachable(f"the mail server did not take it: {error.__class__.__name__}") from error

    def _connected(self) -> smtplib.SMTP:
        here = "[127.0.0.1]"  # not this machine's name, which is nobody's business
        if self.tls == "implicit":
            return smtplib.SMTP_SSL(self.host, self.port, local_hostname=here, timeout=PATIENCE, context=_context(self.ca))
        return smtplib.SMTP(self.host, self.port, local_hostname=here, timeout=PATIENCE)


# --- a party's channels -----------------------------------------------------------------------------------------------


def _channel(value: object) -> Channel:
    f = Fields(value, "channel")

    def text(name: str) -> str | None:
        found: str | None = f.optional(name, lambda v: Fields({name: v}, "channel").text(name))
        return found

    made: Channel
    if f.text("kind", choices=("webhook", "mail")) == "webhook":
        made = Webhook(f.name("name"), f.text("url", max_chars=2048), text("ca"))
    else:
        made = Mail(
            name=f.name("name"),
            host=f.text("host", max_chars=255),
            port=f.integer("port", low=1, high=65535),
            sender=f.text("sender", max_chars=320),
            to=f.text("to", max_chars=320),
            tls=f.text("tls", choices=TLS),
            user=text("user"),
            password=text("password"),
            ca=text("ca"),
        )
    f.end()
    return made


def _path(home: PartyHome) -> Path:
    return home.folder / "notify.json"


def channels(home: PartyHome) -> list[Channel]:
    """A party's channels, by name. The file is a secret: it holds passwords, and addresses that are as good as one."""
    path = _path(home)
    if not path.exists():
        return []
    with reading(path):
        f = Fields(loads(path), "notify")
        found: tuple[Channel, ...] = f.items("channels", _channel, high=MAX_CHANNELS)
        f.end()
        return sorted(found, key=lambda channel: channel.name)


def add(home: PartyHome, channel: Channel) -> None:
    """Raises Conflict: there is one of that name, or there are too many."""
    there = channels(home)
    if any(one.name == channel.name for one in there) or len(there) >= MAX_CHANNELS:
        raise Conflict(f"there is a channel {channel.name!r} already, or there are {MAX_CHANNELS}")
    _save(home, [*there, channel])


def remove(home: PartyHome, name: str) -> None:
    """Raises NotFound."""
    there = channels(home)
    left = [one for one in there if one.name != name]
    if len(left) == len(there):
        raise NotFound(f"there is no channel {name!r}", hint="See: strongroom notify list")
    _save(home, left)


def _save(home: PartyHome, those: list[Channel]) -> None:
    write(_path(home), pretty({"channels": [one.to_json() for one in those]}), secret=True)


# --- sending ----------------------------------------------------------------------------------------------------------


def herald_of(home: PartyHome, now: Callable[[], int]) -> tuple[list[str], Callable[[News], bytes]]:
    """A party's channels by name, and the signed notice of some news for them."""

    def notice(news: News) -> bytes:
        made = Notice(news.event, news.proposal, news.by, home.name, now(), secrets.token_hex(16))
        return made.sign(home.keys.signing).encode()

    return [channel.name for channel in channels(home)], notice


def send_due(
    store: InboxStore, those: list[Channel], at: int, said: Callable[[str, StrongroomError | None], None] | None = None
) -> int:
    """Send what is due; how much was taken.

    Args:
        store: where it lies.
        those: the party's channels.
        at: Unix seconds.
        said: called with the channel and what went wrong, of each.
    """
    by_name, taken = {channel.name: channel for channel in those}, 0
    while claimed := store.claim(at, at + LEASE):
        for number, name, data, tries in claimed:
            channel = by_name.get(name)
            if channel is None:
                store.sent(number)  # its owner wants no more of it
                continue
            error = _sent(channel, data)
            if error is None:
                store.sent(number)
                taken += 1
            else:
                later = NEVER if tries + 1 >= MAX_TRIES else at + min(FIRST_WAIT * 2**tries, LONGEST_WAIT)
                store.failed(number, due=later, error=f"{error.code}: {error.message}"[:200])
            if said:
                said(name, error)
    return taken


def _sent(channel: Channel, data: bytes) -> StrongroomError | None:
    """What went wrong, or ``None``."""
    try:
        channel.send(Envelope.parse(data))
    except StrongroomError as error:
        return error
    return None
