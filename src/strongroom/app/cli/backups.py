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
    from strongroom.app.client.home import PartyHome


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
    from strongroom.app.stores.marks import restore as put_back

    from .shares import words

    (file,) = words(args, "a backup", 1, 1)
    here = party(args)
    _require_stopped(here)
    book = here.folder / "broker" / "book.db"
    kept = _keep(here, book) if book.exists() else None
    try:
        put_back(Path(file), book)
    except StrongroomError:
        if kept is not None:
            kept.unlink()
        raise
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
    from strongroom.app.http import Client

    try:
        with closing(Client(here.broker.url, timeout=3)) as there:
            there.get("/v1/health", max_bytes=64 << 10)
    except StrongroomError:
        return
    raise Conflict("the broker is at work", hint="Stop it first: what it wrote meanwhile would be lost.")


def confirm(args: Namespace, screen: Screen) -> int:
    """End what a book that was put back does not know enough of, and go on."""
    from strongroom.app.exchange.client import ExchangeClient
    from strongroom.app.http import Client
    from strongroom.errors import BookRestored
    from strongroom.mark import require_known

    from .place import home
    from .shares import words

    words(args, "no words", 0, 0)
    here = party(args)
    with closing(Client(args.exchange_url or home(args).config.exchange, timeout=10)) as client:
        mark = ExchangeClient(client).mark(here.broker.key.public)
    marks = here.book.marks
    try:
        marks.require_confirmed()
        require_known(mark, marks.head_at)
    except BookRestored as error:
        screen.said("restored", error.message)
    else:
        screen.said("confirmed", "nothing was put back: this book is the newest")
        screen.result({"confirmed": False})
        return 0
    screen.said("", "What was given, withdrawn and charged since the backup is not known. So, when you confirm:")
    screen.said("", "  every contract that has begun is over at this broker, every approval void: propose and approve anew;")
    screen.said("", "  shares that it holds wait until their owners deal anew (strongroom broker refresh);")
    screen.said("", "  budgets must be set again, also one that was set since the backup and is not shown here.")
    if not args.yes and not _asked(screen):
        raise Usage("nothing was confirmed", hint="When you have looked: strongroom broker confirm --yes")
    found = marks.confirm(mark, int(time.time()))
    screen.said("confirmed", f"{len(found.contracts)} contracts are over, {len(found.shares)} shares wait for their owners")
    if found.lost:
        screen.said("forgotten", f"{found.lost} changes, as this broker itself had signed at the exchange")
    for manifest in found.budgets:
        screen.said("budget", f"{manifest}: set it again with what you allow from now on")
    screen.result(
        {
            "at": found.at,
            "budgets": list(found.budgets),
            "confirmed": True,
            "contracts": list(found.contracts),
            "forgotten": found.lost,
            "shares": list(found.shares),
        }
    )
    return 0


def _asked(screen: Screen) -> bool:
    if screen.as_json or not sys.stdin.isatty():
        return False
    return input("Confirm? [y/N] ").strip().lower() in ("y", "yes")
