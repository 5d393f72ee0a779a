"""broker backup, restore, confirm: a broker's book put back without giving anything twice."""

from __future__ import annotations

import shutil
import sys
import time
from argparse import Namespace
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom.errors import Conflict, NotFound, StrongroomError, Usage

from .place import party
from .screen import Screen

if TYPE_CHECKING:
    from strongroom.app.broker.witness import Witness
    from strongroom.app.client.home import PartyHome

MARK_SECONDS = 2.0  # that a release waits for an exchange that does not answer, once


def backup(args: Namespace, screen: Screen) -> int:
    """Write a copy of the book, while the broker is at work or not."""
    from .shares import words

    (out,) = words(args, "a file to write", 1, 1)
    here = party(args)
    size = here.book.marks.backup(Path(out))
    screen.said("backup", f"{out} ({size:,} bytes), for you alone: it holds the keys of your assets")
    screen.said("", "The keys of the broker and of its shares are not in it: broker/key.json, shares.json, keys.json.")
    screen.said("", "A broker that is put back from it gives nothing until you confirm: see strongroom broker confirm")
    screen.result({"backup": out, "bytes": size, "number": here.book.marks.place().number})
    return 0


def restore(args: Namespace, screen: Screen) -> int:
    """Put a backup in the place of the book of a broker that is stopped."""
    from strongroom.app.stores.claim import claimed
    from strongroom.app.stores.marks import restore as put_back

    from .shares import words

    (file,) = words(args, "a backup", 1, 1)
    here = party(args)
    _require_stopped(here)
    book = here.folder / "broker" / "book.db"
    with claimed(book, alone=True):
        kept = _keep(here, book) if book.exists() else None
        try:
            put_back(Path(file), book)
        except StrongroomError:
            if kept is not None:
                kept.unlink()
            raise
        _forget_shared(here, screen)
    screen.said("put back", f"{file}; the book that was here is kept as {kept}" if kept else file)
    screen.said("next", "start the broker, and when you know why it lost its book: strongroom broker confirm")
    screen.result({"kept": str(kept) if kept else None, "restored": file})
    return 0


def _keep(here: PartyHome, book: Path) -> Path:
    """The book that is here, beside it, under a name of its own."""
    kept = book.with_name(f"book.before-{time.time_ns()}.db")
    try:
        here.book.marks.backup(kept)
    except NotFound:  # it is broken, which is why another is put in its place
        shutil.copyfile(book, kept)
        kept.chmod(0o600)
    finally:
        here.close()
    return kept


def _require_stopped(here: PartyHome) -> None:
    """As far as it says so itself, wherever it runs; on this machine its claim on the book says so, whatever it answers."""
    from strongroom.app.http import Client

    try:
        with closing(Client(here.broker.url, timeout=3)) as there:
            there.get("/v1/health", max_bytes=64 << 10)
    except StrongroomError:
        return
    raise Conflict("the broker is at work", hint="Stop it first: what it wrote meanwhile would be lost.")


def witness_of(args: Namespace, here: PartyHome, exchange: str) -> Witness:
    """Who keeps the marks of a broker that starts."""
    from strongroom.app.broker.machine import Machine
    from strongroom.app.broker.witness import Witness
    from strongroom.app.exchange.client import ExchangeClient
    from strongroom.app.http import Client

    machine, there = Machine.here(), ExchangeClient(Client(exchange, timeout=MARK_SECONDS))
    return Witness(here.book.marks, lambda: here.broker.key, there, machine, strict=args.strict_marks)


def confirm(args: Namespace, screen: Screen) -> int:
    """End what a book that was put back does not know enough of, and go on."""
    from strongroom.app.broker.machine import Machine
    from strongroom.app.broker.witness import compare
    from strongroom.app.exchange.client import ExchangeClient
    from strongroom.app.http import Client
    from strongroom.mark import Mark

    from .place import home
    from .shares import words

    words(args, "no words", 0, 0)
    here, machine, now = party(args), Machine.here(), int(time.time())
    marks, key = here.book.marks, here.broker.key
    with closing(Client(args.exchange_url or home(args).config.exchange, timeout=10)) as client:
        found = compare(marks, key.public, ExchangeClient(client), machine)
    if not found.reached:
        screen.said(
            "exchange", "does not answer: what it knows of this book is compared when it does, and may stop it again"
        )
    if found.restored:
        screen.said("restored", found.restored)
    elif not found.shown:
        screen.said(
            "not shown", "nobody can say whether this book is the newest; the exchange can, when it is back: wait for it"
        )
    else:
        screen.said("confirmed", "nothing was put back: this book is the newest, as far as anybody knows")
        screen.result({"confirmed": False})
        return 0
    screen.said("", "What was given, withdrawn and charged since the backup is not known. So, when you confirm:")
    screen.said("", "  every contract that has begun is over at this broker, every approval void: propose and approve anew;")
    screen.said("", "  shares that it holds wait until their owners deal anew (strongroom broker refresh);")
    screen.said("", "  budgets must be set again, also one that was set since the backup and is not shown here.")
    if not found.reached:
        clock = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
        screen.said("clock", f"{clock}: what began later by it goes on; if it was put back, set it first")
    if not args.yes and not _asked(screen):
        raise Usage("nothing was confirmed", hint="When you have looked: strongroom broker confirm --yes")
    _forget_shared(here, screen)
    ended = marks.confirm(found.there, now, found.near)
    if machine is not None:
        machine.replace(Mark.of(key.public, marks.place(), None, now), key)
    screen.said("confirmed", f"{len(ended.contracts)} contracts are over, {len(ended.shares)} shares wait for their owners")
    if ended.lost:
        screen.said("forgotten", f"{ended.lost} changes, as this broker itself had signed")
    for manifest in ended.budgets:
        screen.said("budget", f"{manifest}: set it again with what you allow from now on")
    screen.result(
        {
            "at": ended.at,
            "budgets": list(ended.budgets),
            "confirmed": True,
            "contracts": list(ended.contracts),
            "forgotten": ended.lost,
            "shares": list(ended.shares),
        }
    )
    return 0


def _forget_shared(here: PartyHome, screen: Screen) -> None:
    from strongroom.app.client.sharing import forget_shared

    for manifest in forget_shared(here):
        screen.said("forgot again", f"the key of {manifest}, which is shared over other brokers since this book was copied")


def _asked(screen: Screen) -> bool:
    if screen.as_json or not sys.stdin.isatty():
        return False
    return input("Confirm? [y/N] ").strip().lower() in ("y", "yes")
