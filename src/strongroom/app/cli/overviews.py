"""broker status: all brokers of an owner at once, and in what they differ."""

from __future__ import annotations

import time
from argparse import Namespace
from collections import Counter
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from strongroom import __version__
from strongroom.errors import StrongroomError, Unreachable

from .place import room
from .screen import Screen

if TYPE_CHECKING:
    from strongroom.app.client.overviews import AssetSeen, Looked
    from strongroom.app.client.room import Room
    from strongroom.app.client.sharing import Sharing
    from strongroom.app.http import Client

SHOWN = 8  # contracts, of each asset, on the screen


def status(args: Namespace, screen: Screen) -> int:
    """Ask all, side by side; bring shares to those that wait for one; compare."""
    from strongroom.app.client import overviews, sharing

    from .shares import words

    words(args, "no words", 0, 0)
    here = room(args)
    shared = sharing.every(here.home)
    looked = overviews.look(here.home, here.exchange, [c for s in shared for c in s.cards])
    shared = [_sent(here, s, looked) for s in shared]
    seen = [overviews.compare(here.home, here.exchange, s, looked) for s in shared]
    own = _own(here)
    _show_own(own, screen)
    _show_brokers(looked, screen)
    for one in seen:
        _show_asset(one, screen)
    if not shared:
        screen.said("shared", "none of your assets")
    mine = [share.owner for share in here.home.book.shares()]
    if mine:
        screen.said("holding", f"{len(mine)} shares, of {', '.join(sorted(set(mine)))}")
    screen.result(
        {
            "brokers": [_broker(one) for one in looked],
            "holding": len(mine),
            "own": own,
            "shared": [_asset(one) for one in seen],
        }
    )
    return 0


def _sent(here: Room, one: Sharing, looked: list[Looked]) -> Sharing:
    """Bring shares to brokers that wait for them and are there."""
    from strongroom.app.client import overviews, sharing

    alive = {found.card.address for found in looked if found.state not in ("dead", "late")}

    def via(address: str) -> Client:
        if address not in alive:
            raise Unreachable(f"{address} did not answer just now")
        return overviews.connect(address)

    if not one.waiting:
        return one
    try:
        return sharing.send(here.home, here.exchange, one.enrolment.manifest, via=via)
    except StrongroomError:  # the exchange is away: brokers are looked at all the same
        return sharing.read(here.home, one.enrolment.manifest) or one


# --- this party's own broker: its book, on this machine ---


def _own(here: Room) -> dict[str, Any]:
    from strongroom.app.broker.machine import Machine
    from strongroom.app.broker.witness import compare
    from strongroom.app.client import overviews
    from strongroom.app.http import Client

    home = here.home
    decisions = here.decisions()
    answers = True
    try:
        with closing(Client(home.broker.url, timeout=2)) as client:
            client.get("/v1/health", max_bytes=64 << 10, seconds=3.0)
    except StrongroomError:
        answers = False
    found = compare(home.book.marks, home.broker.key.public, here.exchange, Machine.here())
    refused = Counter(d.code for d in decisions if d.verdict == "refusal")
    return {
        "answers": answers,
        "contracts": [asdict(one) for one in overviews.own(home, here.exchange)],
        "exchange": found.reached,
        "number": home.book.marks.place().number,
        "refused": dict(sorted(refused.items())),
        "released": sum(1 for d in decisions if d.verdict == "release"),
        "restored": found.restored or None,
        "shown": found.shown,
        "to_guests": [{"at": at, "contract": c, "run_id": r} for c, r, at in overviews.to_guests(home)],
        "unreceipted": [{"at": at, "contract": c, "run_id": r} for c, r, at in here.unreceipted()],
        "version": __version__,
        "witnessed": found.there.number if found.there else None,
    }


def _show_own(own: dict[str, Any], screen: Screen) -> None:
    screen.heading("Your own broker (by its book, on this machine)")
    screen.said("answers", "yes" if own["answers"] else "no: it is stopped, or somewhere else")
    screen.said("version", f"{own['version']} (of this installation)")
    there = "the exchange does not answer" if not own["exchange"] else f"{own['witnessed'] or 'none'} known to the exchange"
    screen.said("changes", f"{own['number']}, {there}")
    if own["restored"]:
        screen.said("RESTORED", f"{own['restored']}; it gives nothing until: strongroom broker confirm")
    elif not own["shown"]:
        screen.said("NOT SHOWN", "that this book is the newest; it gives nothing until the exchange answers")
    screen.said("released", str(own["released"]))
    refused = ", ".join(f"{code} {count}" for code, count in own["refused"].items()) or "none"
    screen.said("refused", f"{refused}; each with its checks: strongroom log" if own["refused"] else refused)
    screen.said("without receipts", f"{len(own['unreceipted'])} runs; which: strongroom status")
    if own["to_guests"]:
        screen.said("to guests", f"{len(own['to_guests'])} runs, which write no receipts; which: strongroom status")
    for one in own["contracts"][-SHOWN:]:
        left = "limit not known" if one["left"] is None else f"{one['left']} left"
        screen.said("contract", f"{one['contract'][:19]}…  {one['title'] or 'title not known'}")
        screen.said("", f"{one['state']}; {one['given']} runs given, {left}" + ("; for guests" if one["guests"] else ""))


# --- others' brokers: what they signed ---


def _time(at: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at))


def _show_brokers(looked: list[Looked], screen: Screen) -> None:
    if not looked:
        return
    screen.heading("Brokers that hold your shares (each by its own signed word)")
    rows = []
    for one in looked:
        o = one.overview
        refused = sum(r.count for r in o.refused) if o else 0
        rows.append(
            [
                one.card.name,
                one.state.upper() if one.state != "answered" else one.state,
                o.software if o else "",
                str(o.place.number) if o else "",
                str(one.mark.number) if one.mark else "",
                str(refused) if o else "",
                f"{one.seconds:.1f} s",
            ]
        )
    screen.table(["broker", "state", "version", "changes", "witnessed", "refused", "took"], rows)
    for one in looked:
        if one.why:
            screen.said(one.card.name, one.why)
        if one.forgot:
            screen.said(one.card.name, "ITS BOOK HAS FORGOTTEN CHANGES that it had signed at the exchange: it was put back")
        if one.overview and one.overview.restored:
            said = (
                f"put back from a backup, and confirmed: contracts from before {_time(one.overview.restored)} are over there"
            )
            screen.said(one.card.name, said)
        for r in one.overview.refused if one.overview else ():
            screen.said(
                one.card.name, f"refused {r.count} times: {r.code}, contract {r.contract[:19]}…, last {_time(r.last)}"
            )


def _show_asset(one: AssetSeen, screen: Screen) -> None:
    from strongroom.asset import Manifest

    from .shares import say

    screen.heading(f"{Manifest.parse(one.sharing.manifest.payload).name}")
    say(one.sharing, screen)
    for spoken in one.contracts[-SHOWN:]:
        screen.said("contract", f"{spoken.contract[:19]}…  {spoken.title}")
        for row in spoken.rows:
            state = "ended" if row.ended else "approved" if row.approved else "not approved"
            withdrawn = f", withdrawn by {', '.join(row.withdrawn)}" if row.withdrawn else ""
            left = "limit not known" if row.left is None else f"{row.left} left"
            screen.said("", f"{row.holder}: {state}{withdrawn}; {row.given} slots given, {left}")
        if spoken.unreceipted:
            screen.said("", f"without a receipt: {', '.join(run[:8] + '…' for run in spoken.unreceipted)}")
    for line in one.differences:
        screen.said("DIFFERENT", line)
    for lie in one.lies:
        name = _named(one, lie.broker.keyid)
        screen.said("LIES", f"{name} {lie.what}: slot {lie.slot} of {lie.contract[:19]}…; both papers: --json")


def _named(one: AssetSeen, keyid: str) -> str:
    return next((c.name for c in one.sharing.cards if c.broker_key.keyid == keyid), keyid)


# --- for machines ---


def _broker(one: Looked) -> dict[str, Any]:
    o = one.overview
    return {
        "forgot": one.forgot,
        "name": one.card.name,
        "number": o.place.number if o else None,
        "refused": [r.to_json() for r in o.refused] if o else [],
        "restored": (o.restored or None) if o else None,
        "seconds": round(one.seconds, 3),
        "signed": o is not None,
        "state": one.state,
        "version": o.software if o else None,
        "why": one.why,
        "witnessed": one.mark.number if one.mark else None,
    }


def _asset(one: AssetSeen) -> dict[str, Any]:
    from .shares import shown

    return {
        **shown(one.sharing),
        "contracts": [
            {
                "brokers": [
                    {
                        "approved": r.approved,
                        "ended": r.ended,
                        "given": r.given,
                        "granted": r.granted,
                        "left": r.left,
                        "name": r.holder,
                        "withdrawn": list(r.withdrawn),
                    }
                    for r in c.rows
                ],
                "contract": c.contract,
                "title": c.title,
                "unreceipted": list(c.unreceipted),
            }
            for c in one.contracts
        ],
        "differences": list(one.differences),
        "lies": [
            {
                "broker": _named(one, lie.broker.keyid),
                "contract": lie.contract,
                "papers": [paper.to_json() for paper in lie.papers],
                "slot": lie.slot,
                "what": lie.what,
            }
            for lie in one.lies
        ],
    }
