"""run, progress, outputs, receipt: have a contract run, hear where it is, and read what came of it."""

from __future__ import annotations

import json
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from strongroom.app.client.airlock import boxes
from strongroom.app.client.home import read
from strongroom.app.client.room import Room
from strongroom.errors import NotFound, RunFailed
from strongroom.receipt import Bundle, Receipt, examine

from .place import example, room
from .screen import QUIET_SECONDS, Screen
from .verify import conclude
from .verify import show as show_verification


def declare(verb: str, parser: ArgumentParser) -> None:
    {
        "run": _declare_run,
        "progress": _declare_progress,
        "outputs": _declare_outputs,
        "receipt": _declare_receipt,
    }[verb](parser)


class Steps:
    """Shows each step as it begins, how far one is no more often than every two seconds, and that it is done."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._last = ("", time.monotonic())

    def __call__(self, step: str, detail: str) -> None:
        name, at = self._last
        now = time.monotonic()
        goes_on = step == name and step in ("program", "weights") and not detail.endswith(" 100 %")
        if goes_on and now - at < QUIET_SECONDS:
            return
        self._last = (step, now)
        self._screen.said(step, detail)


def _declare_run(parser: ArgumentParser) -> None:
    example(parser, "strongroom run sha256:3f2a --as lab")
    parser.add_argument("contract", nargs="?", help="its digest or the beginning of it; the newest where not given")
    parser.set_defaults(run=run)


def run(args: Namespace, screen: Screen) -> int:
    here = room(args)
    digest = here.find(args.contract)
    bundle = here.run(digest, Steps(screen))
    screen.line()
    receipt = here.keep(bundle)
    kept = here.home.place("receipts") / f"{bundle.receipt.digest.removeprefix('sha256:')}.json"
    screen.said("receipt", f"{kept}   verified")
    screen.said("", receipt.label)
    failure = receipt.statement.failure
    value: dict[str, Any] = {"receipt": str(kept), "statement": receipt.statement.to_json()}
    if failure is not None:
        told = _told(here, receipt, screen)
        value = {**value, **({"note": told} if told else {})}
        stopped = RunFailed(f"the program stopped at {failure.step!r}: {failure.code}", hint=_hint(failure.code))
        screen.error(stopped, **value)
        return 1
    screen.result(value)
    screen.said("next", f"strongroom outputs {digest[:15]} --as {here.name}")
    return 0


def _told(here: Room, receipt: Receipt, screen: Screen) -> dict[str, str]:
    """Show an owner what it alone is told of a failure."""
    note = here.note(receipt)
    if note is None:
        return {}
    screen.said("told to you alone", f"it stopped at {note.failure.step!r}: {note.failure.code}")
    if note.rule:
        screen.said("", f"output {note.output!r} broke its rule: {note.rule}")
    return {"code": note.failure.code, "output": note.output, "rule": note.rule, "step": note.failure.step}


def _hint(code: str) -> str:
    from strongroom.errors import leaves

    known = leaves().get(code)
    return known.hint if known else RunFailed.hint


def _declare_progress(parser: ArgumentParser) -> None:
    example(
        parser,
        """
strongroom progress sha256:3f2a --as institute            # where the runs of a contract are now
strongroom progress sha256:3f2a --as institute --follow   # and each change, until none goes on
""",
    )
    parser.add_argument("contract", nargs="?", help="its digest or the beginning of it; the newest where not given")
    parser.add_argument("--follow", action="store_true", help="go on until no run of it goes on")
    parser.set_defaults(run=progress)


def progress(args: Namespace, screen: Screen) -> int:
    """Of a run that another party asked for: its steps, and counts where the contract agreed that they leave."""
    here = room(args)
    digest = here.find(args.contract)
    last: list[tuple[str, str]] = []
    heard: list[list[tuple[str, str]]] = []
    while True:
        found = here.going(digest)
        if found != last or not heard:
            heard.append(found)
            for step, detail in found:
                screen.said(step, detail)
        if not (args.follow and found):
            break
        last = found
        time.sleep(QUIET_SECONDS)
    if not found:
        screen.said("progress", "no run of this contract goes on now")
        screen.said("next", f"strongroom receipt {digest[:19]} --as {here.name}")
    screen.result({"contract": digest, "heard": [[{"detail": d, "step": s} for s, d in runs] for runs in heard]})
    return 0


def _declare_outputs(parser: ArgumentParser) -> None:
    example(parser, "strongroom outputs sha256:3f2a --as hospital --out results/")
    parser.add_argument("contract", nargs="?", help="its digest or the beginning of it; the newest where not given")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to write them (the party's own folder)")
    parser.set_defaults(run=outputs)


def outputs(args: Namespace, screen: Screen) -> int:
    here = room(args)
    digest = here.find(args.contract)
    opened = here.outputs(digest, out=args.out)
    for found in opened:
        screen.said(found.name, str(found.path))
        screen.said("", found.receipt.label)
        if found.kind == "report":
            report(json.loads(read(found.path, max_bytes=None)), screen)
    held = [h for h in boxes(here, digest) if here.name in h.output.recipients and h.state != "passed"]
    for waits in held:
        screen.said(waits.output.name, waits.state)
    if not opened and not held:
        screen.said("outputs", "none was delivered to you")
    listed = [{"name": f.name, "path": str(f.path), "platform": f.receipt.label} for f in opened]
    value: dict[str, Any] = {"outputs": listed}
    screen.result(value | ({"held": [{"name": h.output.name, "state": h.state} for h in held]} if held else {}))
    return 0


def report(value: Any, screen: Screen) -> None:
    """A report as a table."""
    screen.line()
    screen.said("records", f"{value['records']:,}")
    for name, figure in value["metrics"].items():
        screen.said(name, _figure(figure))
    for table in value.get("tables", []):
        screen.line()
        screen.line(f"  {table['name']} (by {table['by']})", "bold")
        names = sorted({n for g in table["groups"] for n in g.get("values", {})})
        rows = []
        for group in table["groups"]:
            if group.get("suppressed"):
                rows.append([group["group"], "suppressed", *("" for _ in names)])
            else:
                rows.append([group["group"], str(group["records"]), *(_figure(group["values"].get(n)) for n in names)])
        screen.table(["group", "records", *names], rows)


def _figure(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return " | ".join(" ".join(str(c) for c in row) if isinstance(row, list) else str(row) for row in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _declare_receipt(parser: ArgumentParser) -> None:
    example(parser, "strongroom receipt sha256:3f2a --as lab --out receipt.json && strongroom verify receipt.json --as lab")
    parser.add_argument("contract", nargs="?", help="its digest or the beginning of it; the newest where not given")
    parser.add_argument("--run", dest="run_id", help="the run, where there are several")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the bundle there")
    parser.set_defaults(run=receipt)


def receipt(args: Namespace, screen: Screen) -> int:
    here = room(args)
    bundles = here.receipts(here.find(args.contract))
    chosen = [b for b in bundles if args.run_id is None or _run_of(b, here) == args.run_id]
    if not chosen:
        raise NotFound("there is no such receipt on the exchange")
    bundle = chosen[-1]
    found = examine(bundle, trust=here.trust)
    show_verification(found, screen)
    if found.receipt:
        _told(here, found.receipt, screen)
        here.keep(bundle)
    if args.out:
        from strongroom.app.client.home import write

        write(args.out, bundle.encode())
        screen.said("written", str(args.out))
    return conclude(found, screen, digest=bundle.receipt.digest)


def _run_of(bundle: Bundle, here: Room) -> str:
    statement = examine(bundle, trust=here.trust).statement
    return statement.run_id if statement else ""
