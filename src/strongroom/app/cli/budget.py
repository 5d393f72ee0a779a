"""budget: what an owner allows to be learned and spent of an asset, what was, and what a proposal would."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strongroom.errors import MissingExtra, NotFound, Usage

from .assets import size
from .place import example, party
from .screen import Screen

if TYPE_CHECKING:
    from strongroom.app.client.home import PartyHome
    from strongroom.broker import Charged
    from strongroom.budget.account import Line
    from strongroom.budget.document import Budget
    from strongroom.contract import Proposal

BAR = 24  # characters of a bar


def declare(_verb: str, parser: ArgumentParser) -> None:
    example(
        parser,
        """
strongroom budget set census.parquet --epsilon 3 --delta 1e-6 --runs 50 --as office
strongroom budget set census-2.parquet --shares-budget-with census.parquet --as office
strongroom budget show --as office
strongroom budget history census.parquet --as office
""",
    )
    parser.add_argument("verb", choices=("set", "show", "history"))
    parser.add_argument("asset", nargs="?", help="your own asset, by its name or digest; of show: every one where not given")
    parser.add_argument("--epsilon", metavar="NUMBER", help="the most that may be spent of differential privacy, in total")
    parser.add_argument("--delta", metavar="NUMBER", help="at this delta, such as 1e-6")
    parser.add_argument(
        "--unit", metavar="COLUMN", help="whom the epsilon protects: who has one id in this column; else whom a program says"
    )
    parser.add_argument("--runs", type=int, metavar="N")
    parser.add_argument("--queries", type=int, metavar="N")
    parser.add_argument("--rows", type=int, metavar="N", help="rows that leave as rows")
    parser.add_argument("--bytes-out", type=size, metavar="SIZE")
    parser.add_argument(
        "--shares-budget-with", metavar="ASSET", help="an asset sealed from the same data: what was spent of it counts here"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="of show: write the signed budget, for auditors")
    parser.set_defaults(run=budget)


def budget(args: Namespace, screen: Screen) -> int:
    here = party(args)
    if args.asset is None and args.verb != "show":
        raise Usage("say which asset", hint="See: strongroom budget --help")
    return {"set": _set, "show": _show, "history": _history}[args.verb](args, here, screen)


def _set(args: Namespace, here: PartyHome, screen: Screen) -> int:
    from strongroom.app.client import budgets

    asset = budgets.find(here, args.asset)
    wanted = budgets.Wanted(
        epsilon=args.epsilon,
        delta=args.delta,
        runs=args.runs,
        queries=args.queries,
        rows=args.rows,
        bytes_out=args.bytes_out,
        shares_with=args.shares_budget_with,
        unit=args.unit,
    )
    found = budgets.put(here, asset, wanted, int(time.time()))
    screen.said("in force", f"version {found.version}, which you signed; your broker holds to it from now on")
    value = _tell(here, found, screen)
    screen.result(value)
    return 0


def _show(args: Namespace, here: PartyHome, screen: Screen) -> int:
    from strongroom.app.client import budgets

    wanted = [budgets.find(here, args.asset)] if args.asset else budgets.own(here)
    found = {b.encode(): b for m in wanted if (b := budgets.in_force(here, m.digest)) is not None}
    if args.asset and not found:
        raise NotFound(f"{args.asset} has no budget", hint="Set one: strongroom budget set ASSET --epsilon 3 --delta 1e-6")
    if args.out is not None:
        _write(args, here, next(iter(found.values()), None), screen)
    values = [_tell(here, b, screen) for b in found.values()]
    if not found:
        screen.said("budgets", "none of your assets has one")
    screen.result({"budgets": values})
    return 0


def _write(args: Namespace, here: PartyHome, found: Budget | None, screen: Screen) -> None:
    from strongroom.app.client.home import write

    envelope = here.book.budget(found.assets[0]) if found is not None and args.asset else None
    if envelope is None:
        raise Usage("say of which asset the budget is to be written")
    write(args.out, envelope.encode())
    screen.said("written", str(args.out))


def _names(here: PartyHome, found: Budget) -> list[str]:
    from strongroom.app.client import budgets

    known = {m.digest: m.name for m in budgets.own(here)}
    return [known.get(digest, digest) for digest in found.assets]


def _tell(here: PartyHome, found: Budget, screen: Screen) -> dict[str, Any]:
    from strongroom.app.client import budgets

    names, uncharged = _names(here, found), here.book.uncharged(found.assets)
    screen.said("budget of", ", ".join(sorted(set(names))))
    for name, digest in sorted(zip(names, found.assets, strict=True)):
        screen.said("", f"{name}, manifest {digest}")
    screen.said("version", f"{found.version}, signed {_time(found.at)}")
    lines = budgets.look(here, found)
    for line in lines:
        screen.said(_word(line), _bar(line))
    for name, limit in zip(("runs", "queries", "rows", "bytes out"), found.counts.values(), strict=True):
        if limit is None:
            screen.said(name, "not limited")
    if found.dp is not None:
        screen.said("protects", f"each {found.dp.unit!r}" if found.dp.unit else "a row, or whom each program says")
    if found.dp is None:
        screen.said("epsilon", "not limited: programs that add no noise are let at it")
    if uncharged:
        screen.said("not counted", f"{uncharged} runs that had its key and charged nothing, most before there was a budget")
    return {
        "budget": found.to_json(),
        "lines": [_line(line) for line in lines],
        "names": names,
        "uncharged_runs": uncharged,
    }


def _word(line: Line) -> str:
    return line.name.replace("_", " ")


def _bar(line: Line) -> str:
    share = 1.0 if line.used is None else min(1.0, float(line.used / line.limit) if line.limit else 1.0)
    full = round(share * BAR)
    used = "more than can be said" if line.used is None else f"{line.used.normalize():,f}"
    over = "; more was spent than it allows" if line.used is None or line.used > line.limit else ""
    left = f"{line.left.normalize():,f} left"
    return f"[{'#' * full}{'.' * (BAR - full)}] {used} of {line.limit.normalize():,f}, {left}{over}"


def _line(line: Line) -> dict[str, Any]:
    def shown(value: object) -> str | None:
        return None if value is None else str(value)

    return {
        "left": shown(line.left),
        "limit": shown(line.limit),
        "name": line.name,
        "used": shown(line.used),
        "would": shown(line.would),
    }


def _history(args: Namespace, here: PartyHome, screen: Screen) -> int:
    from strongroom.app.client import budgets

    asset = budgets.find(here, args.asset)
    found = budgets.in_force(here, asset.digest)
    charges = budgets.charges(here, found) if found else sorted(here.book.charges([asset.digest]), key=lambda c: c.at)
    for c in charges:
        _charged(c, screen)
    if not charges:
        screen.said("history", f"nothing was charged for {asset.name} yet")
    screen.result({"asset": asset.digest, "charges": [_charge(c) for c in charges]})
    return 0


def _charged(c: Charged, screen: Screen) -> None:
    n = c.stands.counts
    counts = f"{n.runs} run, queries {n.queries:,}, rows {n.rows:,}, bytes out {n.bytes_out:,}"
    screen.said(_time(c.at), f"{c.party}, run {c.run_id[:8]}… of contract {c.contract[:19]}…: {counts}")
    for event in c.stands.events:
        what = f"epsilon {event.epsilon}, delta {event.delta}" if event.epsilon else f"noise {event.noise_multiplier}"
        screen.said("", f"{event.count:,} times {event.kind}, {what}")
    screen.said("", "not settled: no receipt has said what was used" if c.settled is None else _settled(c))


def _settled(c: Charged) -> str:
    if c.settled == c.charge:
        return "settled: all of it was used"
    before, now = c.charge.counts, c.stands.counts
    fell = [
        f"{name} from {old:,} to {new:,}"
        for name, old, new in (
            ("queries", before.queries, now.queries),
            ("rows", before.rows, now.rows),
            ("bytes out", before.bytes_out, now.bytes_out),
        )
        if new != old
    ]
    given = ["events given back"] if c.charge.events and not c.stands.events else []
    return f"settled: {', '.join([*given, *fell])}"


def _charge(c: Charged) -> dict[str, Any]:
    return {
        "at": c.at,
        "charge": c.charge.to_json(),
        "contract": c.contract,
        "manifest": c.manifest,
        "party": c.party,
        "run_id": c.run_id,
        "settled": c.settled.to_json() if c.settled else None,
    }


def _time(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def tell_spending(here: PartyHome, proposal: Proposal, screen: Screen) -> list[dict[str, Any]]:
    """What a proposal would spend of the reader's own budgets, in words; also for machines."""
    from strongroom.app.client import budgets

    try:
        found = budgets.spending(here, proposal)
    except MissingExtra as error:
        screen.said("your budget", f"cannot be composed here: {error.message} ({error.hint})")
        return [{"error": error.to_json()}]
    for clause in budgets.words(found, proposal.limits.runs, standing=proposal.standing):
        screen.said(clause.about, clause.text)
    return [
        {"charged": s.charged, "fits": s.fits, "lines": [_line(line) for line in s.lines], "role": s.role} for s in found
    ]
