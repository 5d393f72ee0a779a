"""notify: be told that something waits, by webhook or e-mail."""

from __future__ import annotations

import secrets
import threading
from argparse import ArgumentParser, Namespace
from contextlib import closing
from pathlib import Path

from strongroom.app import notify
from strongroom.app.client.home import PartyHome, read
from strongroom.app.client.inbox import Inbox
from strongroom.errors import StrongroomError, Usage

from .place import example, party, room
from .screen import Screen

EVERY = 60  # seconds between two looks


def declare(_verb: str, parser: ArgumentParser) -> None:
    example(
        parser,
        """
strongroom notify add --webhook https://hooks.example/strongroom --as hospital
strongroom notify add --smtp mail.example:587 --from strongroom@hospital.example --to reviewer@hospital.example --as hospital
strongroom notify test --as hospital
strongroom notify run --as hospital            # looks every minute, and sends what is new; --once for one look
strongroom notify list --as hospital
""",
    )
    parser.add_argument("action", choices=["add", "list", "remove", "test", "run"], help="what to do")
    parser.add_argument("name", nargs="?", help="remove: which channel")
    added = parser.add_argument_group("add")
    added.add_argument("--webhook", metavar="URL", help="https address that takes signed notices")
    added.add_argument("--smtp", metavar="HOST:PORT", help="mail server")
    added.add_argument("--from", dest="sender", metavar="ADDRESS", help="who the mail is from")
    added.add_argument("--to", metavar="ADDRESS", help="who gets the mail")
    added.add_argument("--tls", choices=notify.TLS, default="starttls", help="none: on this machine alone (starttls)")
    added.add_argument("--user", help="at the mail server")
    added.add_argument("--password-file", type=Path, metavar="FILE", help="holds the password on its first line")
    added.add_argument("--ca", type=Path, metavar="FILE", help="certificates to trust in place of the machine's")
    added.add_argument("--name", dest="channel", metavar="NAME", help="what to call it (webhook, mail)")
    going = parser.add_argument_group("run")
    going.add_argument("--once", action="store_true", help="look once and end")
    going.add_argument("--every", type=int, default=EVERY, metavar="SECONDS", help=f"between two looks ({EVERY})")
    parser.set_defaults(run=run)


def run(args: Namespace, screen: Screen) -> int:
    if args.action == "run":
        return _run(args, screen)
    home = party(args)
    return {"add": _add, "list": _list, "remove": _remove, "test": _test}[args.action](args, home, screen)


def _add(args: Namespace, home: PartyHome, screen: Screen) -> int:
    if (args.webhook is None) == (args.smtp is None):
        raise Usage("say --webhook or --smtp", hint="See: strongroom notify --help")
    ca = str(args.ca.resolve()) if args.ca else None
    channel = notify.Webhook(args.channel or "webhook", args.webhook, ca) if args.webhook else _mail(args, ca)
    notify.add(home, channel)
    screen.said("added", f"{channel.name}: {channel.shown()}")
    screen.said("next", f"strongroom notify test --as {home.name}, then: strongroom notify run --as {home.name}")
    screen.result({"name": channel.name, "to": channel.shown()})
    return 0


def _mail(args: Namespace, ca: str | None) -> notify.Mail:
    host, sign, port = args.smtp.rpartition(":")
    if not (host and sign and port.isascii() and port.isdigit() and len(port) < 6 and args.to and args.sender):
        raise Usage("mail needs --smtp HOST:PORT, --from and --to")
    password = read(args.password_file).decode("utf-8", "replace").split("\n")[0] if args.password_file else None
    return notify.Mail(
        name=args.channel or "mail",
        host=host,
        port=int(port),
        sender=args.sender,
        to=args.to,
        tls=args.tls,
        user=args.user,
        password=password,
        ca=ca,
    )


def _list(_args: Namespace, home: PartyHome, screen: Screen) -> int:
    from strongroom.app.stores.inbox import InboxStore

    those = notify.channels(home)
    with closing(InboxStore(home.folder / "inbox.db")) as store:
        waiting = store.waiting()
    for channel in those:
        mine = [row for row in waiting if row[0] == channel.name]
        stuck = [error for _, tries, _, error in mine if tries]
        more = f", {len(mine)} not sent yet" if mine else ""
        screen.said(channel.name, f"{channel.shown()}{more}{': ' + stuck[-1] if stuck else ''}")
    if not those:
        screen.said("none", "nobody is told of anything: strongroom notify add")
    told = [{"name": one.name, "to": one.shown(), "waiting": sum(row[0] == one.name for row in waiting)} for one in those]
    screen.result({"channels": told})
    return 0


def _remove(args: Namespace, home: PartyHome, screen: Screen) -> int:
    from strongroom.app.stores.inbox import InboxStore

    if not args.name:
        raise Usage("say which channel to remove", hint="See: strongroom notify list")
    notify.remove(home, args.name)
    with closing(InboxStore(home.folder / "inbox.db")) as store:
        store.forget(args.name)
    screen.said("removed", args.name)
    screen.result({"removed": args.name})
    return 0


def _test(_args: Namespace, home: PartyHome, screen: Screen) -> int:
    import time

    those = notify.channels(home)
    if not those:
        raise Usage("there is no channel to test", hint="Add one: strongroom notify add --help")
    signed = notify.Notice("test", None, "", home.name, int(time.time()), secrets.token_hex(16)).sign(home.keys.signing)
    failed = 0
    told = []
    for channel in those:
        error: StrongroomError | None = None
        try:
            channel.send(signed)
        except StrongroomError as caught:
            error, failed = caught, failed + 1
        screen.said(channel.name, f"{error.code}: {error.message}" if error else "taken")
        told.append({"error": error.to_json() if error else None, "name": channel.name})
    screen.result({"channels": told})
    return 1 if failed else 0


def _run(args: Namespace, screen: Screen) -> int:
    if args.every < 1:
        raise Usage("--every is at least one second")
    sent = 0

    def said(channel: str, error: StrongroomError | None) -> None:
        screen.note(f"{channel}: {f'{error.code}: {error.message}; again later' if error else 'sent'}")

    with closing(Inbox(room(args))) as inbox:
        while True:
            try:
                inbox.refresh()
            except StrongroomError as error:  # what lies here already is sent all the same
                if args.once:
                    raise
                screen.note(f"{error.code}: {error.message}")
            sent += notify.send_due(inbox.store, notify.channels(inbox.room.home), inbox.now(), said)
            if args.once:
                break
            threading.Event().wait(args.every)
    screen.result({"sent": sent})
    return 0
