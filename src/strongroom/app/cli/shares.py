"""broker enrol, share, tell, refresh, replace, status: keys that no single broker can open."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom.errors import NotFound, StrongroomError, Usage

from .place import party, room
from .screen import Screen

if TYPE_CHECKING:
    from strongroom.app.client.room import Room
    from strongroom.app.client.sharing import Sharing
    from strongroom.threshold import HolderCard

ACTIONS = ("enrol", "share", "tell", "refresh", "replace", "status")


def declare(parser: ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", choices=ACTIONS, help="without one: be the broker, until told to stop")
    parser.add_argument(
        "words", nargs="*", metavar="WORD", help="an own asset, how many brokers are needed, cards; a contract"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="of enrol: write this broker's card, for owners")
    parser.add_argument(
        "--need", type=int, metavar="T", help="of refresh and replace: how many brokers are needed from now on"
    )


def act(args: Namespace, screen: Screen) -> int:
    acts = {"enrol": _enrol, "share": _share, "tell": _tell, "refresh": _refresh, "replace": _replace, "status": _status}
    return acts[args.action](args, screen)


def _words(args: Namespace, usage: str, low: int, high: int = 99) -> list[str]:
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

    _words(args, "no words", 0, 0)
    here = party(args)
    found = sharing.card(here)
    out = args.out or Path(f"{here.name}.holder")
    write(out, found.encode())
    screen.said("card", f"{out}: give it to owners who may share keys over your broker, and read them its fingerprint")
    screen.said("fingerprint", found.fingerprint)
    screen.result({"card": str(out), "fingerprint": found.fingerprint, "name": found.name})
    return 0


def _say(found: Sharing, screen: Screen) -> None:
    e = found.enrolment
    screen.said("shared", f"any {e.threshold} of {', '.join(h.name for h in e.holders)} open it; epoch {e.epoch}")
    if found.waiting:
        screen.said(
            "waiting", f"{', '.join(found.waiting)} did not take a share yet; send it with: strongroom broker status"
        )
        return
    screen.said("", "Your own broker has forgotten the key. A backup from before has not.")


def _shown(found: Sharing) -> dict[str, object]:
    e = found.enrolment
    return {
        "epoch": e.epoch,
        "holders": [h.name for h in e.holders],
        "manifest": e.manifest,
        "need": e.threshold,
        "waiting": list(found.waiting),
    }


def _share(args: Namespace, screen: Screen) -> int:
    from strongroom.app.client import budgets, sharing

    asset, need, *cards = _words(args, "an asset, how many brokers are needed, and their cards", 3)
    if not need.isdecimal():
        raise Usage(f"{need!r} is no number of brokers", hint="See: strongroom broker --help")
    here = room(args)
    found = sharing.share(here.home, here.exchange, budgets.find(here.home, asset), int(need), _cards(cards))
    _say(found, screen)
    screen.result(_shown(found))
    return 0


def _tell(args: Namespace, screen: Screen) -> int:
    from strongroom.app.client import sharing

    (contract,) = _words(args, "a contract", 1, 1)
    here = room(args)
    missed = sharing.tell(here.home, here.exchange, here.find(contract), int(time.time()))
    screen.said("told", f"not all: {', '.join(missed)} did not answer" if missed else "every broker that holds a share")
    screen.result({"missed": missed})
    return 1 if missed else 0


def tell_holders(here: Room, digest: str, screen: Screen) -> list[str]:
    """Bring what this party has just said of a contract to the brokers that hold shares of its assets, if there are any."""
    from strongroom.app.client import sharing

    if not sharing.every(here.home):
        return []
    try:
        missed = sharing.tell(here.home, here.exchange, digest, int(time.time()))
    except StrongroomError:
        missed = ["the brokers that hold shares"]
    if missed:
        screen.said("not told", f"{', '.join(missed)}; again with: strongroom broker tell {digest[:19]}")
    return missed


def _refresh(args: Namespace, screen: Screen) -> int:
    asset, *cards = _words(args, "an asset, and all cards where there are to be other brokers", 1)
    return _renewed(args, screen, asset, _cards(cards))


def _replace(args: Namespace, screen: Screen) -> int:
    """One broker is lost, another takes its place."""
    from strongroom.app.client import budgets, sharing

    asset, lost, card = _words(args, "an asset, the lost broker's name, and the card of another", 3, 3)
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
    found, collected = sharing.renew(here.home, here.exchange, digest, threshold=args.need, cards=cards)
    _say(found, screen)
    for name, error in collected.bad.items():
        screen.said("false", f"{name}: {error}")
    screen.said("note", "shares of before still open what was sealed: whoever kept enough of them has the key")
    screen.said("next", "say to new brokers what you approved: strongroom broker tell CONTRACT")
    screen.result({**_shown(found), "bad": {name: error.code for name, error in collected.bad.items()}})
    return 0


def _status(args: Namespace, screen: Screen) -> int:
    from strongroom.app.client import sharing
    from strongroom.asset import Manifest

    _words(args, "no words", 0, 0)
    here = room(args)
    found = [sharing.send(here.home, here.exchange, s.enrolment.manifest) for s in sharing.every(here.home)]
    for one in found:
        screen.said("asset", Manifest.parse(one.manifest.payload).name)
        _say(one, screen)
    if not found:
        screen.said("shared", "none of your assets")
    mine = [share.owner for share in here.home.book.shares()]
    if mine:
        screen.said("holding", f"{len(mine)} shares, of {', '.join(sorted(set(mine)))}")
    screen.result({"holding": len(mine), "shared": [_shown(one) for one in found]})
    return 0
