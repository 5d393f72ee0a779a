"""broker enrol, share, tell, refresh, replace, check, seal --brokers: keys that no single broker can open; and its book."""

from __future__ import annotations

import re
import threading
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom.errors import NotFound, StrongroomError, TooFewShares, Usage

from .place import party, room
from .screen import QUIET_SECONDS, Screen

if TYPE_CHECKING:
    from strongroom.app.client.room import Room
    from strongroom.app.client.sharing import Sharing
    from strongroom.asset import AssetKey, Manifest
    from strongroom.threshold import HolderCard
    from strongroom.wire import Envelope

ACTIONS = ("enrol", "share", "tell", "refresh", "replace", "status", "check", "backup", "restore", "confirm")


def declare(parser: ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", choices=ACTIONS, help="without one: be the broker, until told to stop")
    parser.add_argument(
        "words", nargs="*", metavar="WORD", help="an own asset, how many brokers are needed, cards; a contract; a backup"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="of enrol: write this broker's card, for owners")
    parser.add_argument(
        "--need", type=int, metavar="T", help="of refresh and replace: how many brokers are needed from now on"
    )
    parser.add_argument("--yes", action="store_true", help="of confirm: do not ask")
    parser.add_argument(
        "--strict-marks",
        action="store_true",
        help="give nothing that the exchange has no mark of, and so nothing while it is away (docs/backups.md)",
    )


def act(args: Namespace, screen: Screen) -> int:
    from .backups import backup, confirm, restore
    from .overviews import status

    acts = {
        "backup": backup,
        "check": _check,
        "confirm": confirm,
        "enrol": _enrol,
        "refresh": _refresh,
        "replace": _replace,
        "restore": restore,
        "share": _share,
        "status": status,
        "tell": _tell,
    }
    return acts[args.action](args, screen)


def words(args: Namespace, usage: str, low: int, high: int = 99) -> list[str]:
    found: list[str] = args.words
    if not low <= len(found) <= high:
        raise Usage(f"broker {args.action} takes {usage}", hint="See: strongroom broker --help")
    return found


def _cards(paths: list[str]) -> list[HolderCard]:
    from strongroom.app.client.home import read, reading
    from strongroom.threshold import HolderCard

    found = []
    for path in map(Path, paths):
        with reading(path):
            found.append(HolderCard.parse(read(path)))
    return found


def _enrol(args: Namespace, screen: Screen) -> int:
    from strongroom.app.client import sharing
    from strongroom.app.client.home import write

    words(args, "no words", 0, 0)
    here = party(args)
    found = sharing.card(here)
    out = args.out or Path(f"{here.name}.holder")
    write(out, found.encode())
    screen.said("card", f"{out}: give it to owners who may share keys over your broker, and read them its fingerprint")
    screen.said("fingerprint", found.fingerprint)
    screen.result({"card": str(out), "fingerprint": found.fingerprint, "name": found.name})
    return 0


def say(found: Sharing, screen: Screen, *, was_here: bool = True) -> None:
    e = found.enrolment
    screen.said("shared", f"any {e.threshold} of {', '.join(h.name for h in e.holders)} open it; epoch {e.epoch}")
    for name in found.waiting:
        why = f": {found.problems[name]}" if name in found.problems else ""
        screen.said("waiting", f"{name} did not take a share yet{why}; send it with: strongroom broker status")
    if found.recalled:
        screen.said("broken off", "its shares were called in, and no new ones dealt: strongroom broker refresh goes on")
    if not found.waiting and was_here:
        screen.said("", "Your own broker has forgotten the key. A backup from before has not.")


# --- seal --brokers -----------------------------------------------------------------------------------------------------


def counted(text: str) -> tuple[int, int]:
    """``2-of-3``. Raises Usage."""
    found = re.fullmatch(r"([0-9]{1,2})-of-([0-9]{1,2})", text)
    if not found:
        raise Usage(f"{text!r} is not how many brokers of how many", hint="For two of three: 2-of-3")
    return int(found[1]), int(found[2])


def said(args: Namespace) -> tuple[int, list[HolderCard]]:
    """What ``--brokers`` says: how many are needed, and their cards. Raises Usage, NotFound, WireError leaves."""
    if args.no_upload or args.only_upload:
        raise Usage("a key is shared when its asset is sealed and uploaded", hint="Later: strongroom broker share")
    count, *cards = args.brokers
    threshold, many = counted(count)
    if len(cards) != many:
        raise Usage(f"{count} takes {many} cards, and here are {len(cards)}", hint="Cards: strongroom broker enrol")
    return threshold, _cards(cards)


def ready(here: Room, over: tuple[int, list[HolderCard]], screen: Screen) -> Callable[[Envelope, AssetKey], None]:
    """What keeps the key as shares; before anything is sealed every broker answered.

    Raises:
        BadEnrolment. Unreachable: a broker is away, or is another; nothing was sealed.
    """
    from strongroom.app.client import sharing

    keep = sharing.keeper(here.home, *over)
    try:
        with patient(screen, "asking the brokers"):
            sharing.probe(over[1])
    except StrongroomError as error:
        error.message += "; nothing was sealed"
        raise
    return keep


def bring(here: Room, manifest: Manifest, screen: Screen) -> dict[str, object]:
    """Bring the brokers what was dealt when an asset was sealed.

    Raises:
        TooFewShares: too few took theirs for anybody to open it yet. All of them are kept, and sent again.
    """
    from strongroom.app.client import sharing

    with patient(screen, "bringing the brokers their shares"):
        found = sharing.send(here.home, here.exchange, manifest.digest)
    e, took = found.enrolment, len(found.cards) - len(found.waiting)
    if took < e.threshold:
        why = "; ".join(f"{name}: {error}" for name, error in found.problems.items())
        raise TooFewShares(
            f"{manifest.name} is sealed, and {took} of the {e.threshold} brokers that it takes have their shares: {why}",
            hint="Keep the file that you sealed. The shares are kept too, and sent again by: strongroom broker status",
        )
    screen.said("key", "in shares alone: your own broker never had it")
    say(found, screen, was_here=False)
    return shown(found)


@contextmanager
def patient(screen: Screen, what: str) -> Iterator[None]:
    """Say that something goes on, every two seconds that it takes."""
    over, began = threading.Event(), time.monotonic()

    def tell() -> None:
        while not over.wait(QUIET_SECONDS):
            screen.note(f"{what}: {time.monotonic() - began:.0f} s …")

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def shown(found: Sharing) -> dict[str, object]:
    e = found.enrolment
    return {
        "epoch": e.epoch,
        "holders": [h.name for h in e.holders],
        "manifest": e.manifest,
        "need": e.threshold,
        "recalled": found.recalled,
        "waiting": {name: found.problems[name].code if name in found.problems else None for name in found.waiting},
    }


def _share(args: Namespace, screen: Screen) -> int:
    from strongroom.app.client import budgets, sharing

    asset, need, *cards = words(args, "an asset, how many brokers are needed, and their cards", 3)
    if not need.isdecimal():
        raise Usage(f"{need!r} is no number of brokers", hint="See: strongroom broker --help")
    here, given = room(args), _cards(cards)
    with patient(screen, "asking the brokers"):
        found = sharing.share(here.home, here.exchange, budgets.find(here.home, asset), int(need), given)
    say(found, screen)
    screen.result(shown(found))
    return 0


def _tell(args: Namespace, screen: Screen) -> int:
    from strongroom.app.client import sharing

    (contract,) = words(args, "a contract", 1, 1)
    here = room(args)
    digest = here.find(contract)
    with patient(screen, "telling the brokers"):
        missed = sharing.tell(here.home, here.exchange, digest, int(time.time()))
    screen.said("told", f"not all: {', '.join(missed)} did not answer" if missed else "every broker that holds a share")
    screen.result({"missed": missed})
    return 1 if missed else 0


def say_untold(here: Room, digest: str, screen: Screen) -> None:
    """Say which brokers that hold shares do not know yet what this party has just said."""
    if here.untold:
        screen.said("not told", f"{', '.join(here.untold)}; again with: strongroom broker tell {digest[:19]}")


def _refresh(args: Namespace, screen: Screen) -> int:
    asset, *cards = words(args, "an asset, and all cards where there are to be other brokers", 1)
    return _renewed(args, screen, asset, _cards(cards))


def _replace(args: Namespace, screen: Screen) -> int:
    """One broker is lost, another takes its place."""
    from strongroom.app.client import budgets, sharing

    asset, lost, card = words(args, "an asset, the lost broker's name, and the card of another", 3, 3)
    here = party(args)
    found = sharing.read(here, budgets.find(here, asset).digest)
    if found is None or lost not in {c.name for c in found.cards}:
        raise NotFound(f"{lost!r} holds no share of {asset}", hint="See who does: strongroom broker status")
    (other,) = _cards([card])
    return _renewed(args, screen, asset, [other if c.name == lost else c for c in found.cards])


def _renewed(args: Namespace, screen: Screen, asset: str, cards: list[HolderCard]) -> int:
    from strongroom.app.client import budgets, sharing

    here = room(args)
    digest = budgets.find(here.home, asset).digest
    with patient(screen, "asking the brokers"):
        found, collected = sharing.renew(here.home, here.exchange, digest, threshold=args.need, cards=cards)
    say(found, screen)
    for name, error in collected.bad.items():
        screen.said("false", f"{name}: {error}")
    if collected.restored:
        screen.said("restored", f"{', '.join(collected.restored)} lost count of what they gave, and count anew from here")
    if collected.over:
        screen.said("over", "too few of the others know all that was given: no run is left of old contracts, propose anew")
    screen.said("note", "shares of before still open what was sealed: whoever kept enough of them has the key")
    screen.said("next", "say to new brokers what you approved: strongroom broker tell CONTRACT")
    bad = {name: error.code for name, error in collected.bad.items()}
    screen.result({**shown(found), "bad": bad, "over": collected.over or None, "restored": sorted(collected.restored)})
    return 0


def _check(args: Namespace, screen: Screen) -> int:
    """Whether the receipts of a contract prove that a broker gave one slot twice."""
    from strongroom.app.client import lies
    from strongroom.receipt import examine

    (contract,) = words(args, "a contract", 1, 1)
    here = room(args)
    with patient(screen, "reading the receipts"):
        every = here.receipts(here.find(contract))
        receipts = [bundle for bundle in every if examine(bundle, trust=here.trust).receipt is not None]
        found = lies.found(receipts)
    for lie in found:
        screen.said("gave twice", f"the broker of {lie.name} gave slot {lie.slot} to two enclaves, and signed both")
        screen.said("", f"in receipts {lie.receipts[0]} and {lie.receipts[1]}")
        screen.said("", f"its key is {lie.broker.keyid}: replace it, and share the asset under a new key")
    if len(receipts) < len(every):
        screen.said("left out", f"{len(every) - len(receipts)} receipts that do not verify")
    if not found:
        screen.said("checked", f"{len(receipts)} receipts: no broker gave a slot to two enclaves that wrote them")
    screen.result({"lies": [lie.to_json() for lie in found], "receipts": len(receipts)})
    return 1 if found else 0
