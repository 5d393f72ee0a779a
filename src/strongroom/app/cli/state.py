"""log, status: what was decided, and where things stand."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from datetime import UTC, datetime

from strongroom.app.client.room import Room
from strongroom.asset import Manifest

from .place import example, party, room
from .screen import Screen

SHOWN = 5  # refusals on the screen of `status`


def declare(verb: str, parser: ArgumentParser) -> None:
    {"log": _declare_log, "status": _declare_status}[verb](parser)


def _time(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _declare_log(parser: ArgumentParser) -> None:
    example(
        parser, "strongroom log --as hospital               # your broker's decisions\nstrongroom log --as hospital --ledger"
    )
    parser.add_argument("--ledger", action="store_true", help="the exchange's log instead, followed from the last head seen")
    parser.set_defaults(run=log)


def log(args: Namespace, screen: Screen) -> int:
    if args.ledger:
        return _ledger(room(args), screen)
    book = party(args).book
    decisions, assets = book.decisions(), {e.digest: Manifest.parse(e.payload).name for e in book.assets()}
    for d in decisions:
        what = f"{d.verdict}: {d.code}" if d.code else d.verdict
        asset = assets.get(d.manifest, f"an asset that is not here ({d.manifest[:19]}…)")
        screen.said(_time(d.at), f"{what}; {asset} for run {d.run_id[:8]}… of contract {d.contract[:19]}…", width=24)
        checks = d.checks if isinstance(d.checks, list) else []
        for check in checks:
            if isinstance(check, dict) and check["status"] != "passed" and check["detail"] != "not reached":
                screen.said("", f"{check['number']} {check['name']}: {check['status']}: {check['detail']}")
    if not decisions:
        screen.said("log", "your broker has decided nothing yet")
    screen.result({"decisions": [d.to_json() for d in decisions]})
    return 0


def _ledger(here: Room, screen: Screen) -> int:
    head, entries = here.ledger()
    for index, entry in enumerate(entries):
        screen.said(f"{index} {entry.kind}", f"{entry.digest} of contract {entry.contract[:19]}…")
    screen.line()
    screen.said("head", f"{head.origin}, {head.size} entries: those above, and consistent with the last head seen")
    screen.result({"entries": [e.to_json() for e in entries], "origin": head.origin, "size": head.size})
    return 0


def _declare_status(parser: ArgumentParser) -> None:
    example(parser, "strongroom status --as lab")
    parser.set_defaults(run=status)


def status(args: Namespace, screen: Screen) -> int:
    from strongroom.app.client.overviews import to_guests

    here = room(args)
    screen.heading("Assets of pinned parties")
    assets = here.manifests()
    screen.table(
        ["asset", "kind", "bytes", "manifest"],
        [[f"{m.owner}/{m.name}", m.kind, f"{m.plaintext_bytes:,}", m.digest] for m in assets],
    )
    screen.heading("Contracts")
    views, left_out = here.sift()
    rows = [
        [
            v.proposal.digest[:19] + "…",
            v.state.value,
            f"{len(v.history.runs)} of {v.proposal.limits.runs + v.history.granted}",
            v.proposal.title,
        ]
        for v in views
    ]
    screen.table(["contract", "state", "runs", "title"], rows)
    for left in left_out:
        screen.said("left out", f"{left.digest[:19]}… names you; {left.error.code}: {left.error}")
    refusals = [d for d in here.decisions() if d.verdict == "refusal"]
    screen.heading("Refused by your broker")
    for d in refusals[-SHOWN:]:
        screen.said(_time(d.at), f"contract {d.contract[:19]}… run {d.run_id[:8]}…: {d.code}")
    screen.line(f"  {len(refusals)} in all; each with its checks: strongroom log" if refusals else "  none")
    missing = here.unreceipted()
    screen.heading("Released without a receipt")
    for contract, run_id, at in missing:
        screen.said(_time(at), f"contract {contract[:19]}… run {run_id}: the keys went out and no valid receipt came back")
    if not missing:
        screen.line("  none")
    guests = to_guests(here.home)
    if guests:
        screen.heading("Released to guests, which write no receipts")
    for contract, run_id, at in guests:
        screen.said(_time(at), f"contract {contract[:19]}… run {run_id}: what it did with the keys nobody here can know")
    value = {
        "assets": [{"asset": f"{m.owner}/{m.name}", "manifest": m.digest} for m in assets],
        "contracts": [{"digest": v.proposal.digest, "state": v.state.value, "title": v.proposal.title} for v in views],
        "left_out": [{"digest": left.digest, "error": left.error.to_json()} for left in left_out],
        "refusals": [{"at": d.at, "code": d.code, "contract": d.contract, "run_id": d.run_id} for d in refusals],
        "to_guests": [{"at": at, "contract": c, "run_id": r} for c, r, at in guests],
        "unreceipted": [{"at": at, "contract": c, "run_id": r} for c, r, at in missing],
    }
    screen.result(value)
    return 0
