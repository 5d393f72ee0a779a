"""propose, show, diff, counter, approve, withdraw, grant."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from strongroom import schema, wire
from strongroom.app.client import approvers
from strongroom.app.client.draft import Change, Draft, Wanted, models_of
from strongroom.app.client.home import loads
from strongroom.app.client.prose import Difference, clauses, differences
from strongroom.app.client.room import Room, View, is_whole
from strongroom.asset import Manifest
from strongroom.code import PROGRAM as CODE
from strongroom.contract import MAX_SECONDS, SANDBOXES, WALLS, Payment, Proposal, State
from strongroom.errors import Unreachable, Usage
from strongroom.policy import Airlock

from . import standing
from .assets import observed, size
from .budget import tell_spending
from .place import example, room
from .screen import Screen
from .shares import patient, say_untold

SAYING = "signing, and telling the exchange and the brokers"


def declare(verb: str, parser: ArgumentParser) -> None:
    {
        "propose": _declare_propose,
        "show": _declare_show,
        "diff": _declare_diff,
        "counter": _declare_counter,
        "approve": _declare_approve,
        "withdraw": _declare_withdraw,
        "grant": _declare_grant,
    }[verb](parser)


def _pair(text: str, what: str) -> tuple[str, str]:
    left, sign, right = text.partition("=")
    if not (left and sign and right):
        raise Usage(f"{text!r} is not {what}")
    return left, right


def _payment(text: str) -> Payment:
    """``PAYER:PAYEE:AMOUNT:CURRENCY``, the amount with two decimal places."""
    parts = text.split(":")
    whole, _, cents = (parts[2] if len(parts) == 4 else "").partition(".")
    if not (whole.isascii() and whole.isdigit() and len(cents) <= 2 and (cents.isdigit() or not cents)):
        raise Usage(f"{text!r} is not PAYER:PAYEE:AMOUNT:CURRENCY, such as lab:hospital:50.00:EUR")
    return Payment(parts[0], parts[1], int(whole) * 100 + int((cents + "00")[:2]), parts[3])


def _limits(parser: ArgumentParser, *, defaults: bool) -> None:
    def default(value: object) -> object:
        return value if defaults else None

    parser.add_argument("--title", help="one line for people")
    parser.add_argument(
        "--min-group", type=int, default=default(1), metavar="N", help="groups under N are suppressed in every output"
    )
    parser.add_argument(
        "--decimals", type=int, default=default(15), metavar="N", help="numbers keep at most N decimal places"
    )
    parser.add_argument("--max-bytes", type=size, metavar="SIZE", help="largest size of every output (by its kind)")
    parser.add_argument("--runs", type=int, help="how many runs, or openings of what is served (1; 100)")
    parser.add_argument("--seconds", type=int, help="longest time of a run, or that a room is open (300; a week)")
    parser.add_argument("--memory", type=size, default=default(2 << 30), metavar="SIZE", help="most memory of a run (2G)")
    parser.add_argument("--days", type=int, help="how long it stands (7; 30 of what is served)")
    parser.add_argument(
        "--review", action="append", default=[], metavar="NAME=PARTY[,PARTY]", help="who must read and pass an output first"
    )
    parser.add_argument("--reasons", action="store_true", help="recipients are told why a reviewer refused")
    parser.add_argument("--observed", metavar="SECONDS", help="the time of a run is told in multiples, or withheld")
    parser.add_argument("--sandbox", choices=SANDBOXES, default=default("isolated"), help="process protects nothing")
    if defaults:
        parser.add_argument(
            "--wall", action="append", choices=WALLS, default=[], help="what must stand around the program, or nothing runs"
        )
    parser.add_argument(
        "--charge",
        action="append",
        default=[],
        metavar="ROLE[=ROWS]",
        help="charge a run to the budget of this asset, and so many rows that may leave, headers too (0); "
        "what a program says is charged",
    )
    parser.add_argument(
        "--pay", action="append", default=None, metavar="PAYER:PAYEE:AMOUNT:CURRENCY", help="for each completed run"
    )


def _declare_propose(parser: ArgumentParser) -> None:
    example(
        parser,
        """
strongroom propose --as lab --title "Accuracy of our classifier on your records" \\
    --asset model=lab/model.onnx --asset data=hospital/records.csv \\
    --output report=lab,hospital --output calibration=hospital \\
    --parameter task=classification --parameter target=diagnosis --parameter 'classes=["B", "M"]'
strongroom propose --as lab --file draft.json
strongroom propose --as lab --title "Our model, served" --asset model=lab/model.gguf --serve chat,embeddings --among operator
""",
    )
    parser.add_argument("--program", help="a standard program (evaluate; serve-llm with --serve)")
    parser.add_argument(
        "--asset", action="append", default=[], metavar="ROLE=OWNER/NAME", help="or ROLE=DIGEST of a manifest"
    )
    parser.add_argument("--output", action="append", default=[], metavar="NAME=PARTY[,PARTY]", help="who gets which output")
    parser.add_argument(
        "--parameter", action="append", default=[], metavar="NAME=VALUE", help="VALUE is JSON, or a plain word"
    )
    parser.add_argument("--file", type=Path, help="title, asset, output and parameters as one JSON object; flags add to it")
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME=ROLE",
        help="what requests call the model in a role (OWNER/NAME)",
    )
    parser.add_argument("--among", action="append", default=[], metavar="PARTY", help="a party without another role")
    parser.add_argument(
        "--schema", action="append", default=[], metavar="NAME=FILE", help="what a table, values or tensors may hold"
    )
    _limits(parser, defaults=True)
    standing.declare(parser)
    parser.set_defaults(run=propose)


def value(text: str) -> Any:
    """A value on the command line: JSON, or a plain word."""
    if text[:1] in '[{"' or text in ("null", "true", "false") or text.lstrip("-").isdigit():
        return wire.loads(text.encode())
    return text


def _said(path: Path) -> tuple[str, dict[str, str], dict[str, list[str]], dict[str, Any]]:
    """Title, assets, outputs and parameters of a draft's file. Raises Usage."""
    said = loads(path)
    if not isinstance(said, dict) or set(said) - {"title", "asset", "output", "parameters"}:
        raise Usage(f"{path} may hold title, asset, output and parameters alone")
    title, asset, output = said.get("title", ""), said.get("asset", {}), said.get("output", {})
    parameters = said.get("parameters", {})
    if not isinstance(title, str) or not isinstance(parameters, dict):
        raise Usage(f"{path}: title is a text, and parameters an object")
    if not isinstance(asset, dict) or not all(isinstance(a, str) for a in asset.values()):
        raise Usage(f"{path}: asset is an object of ROLE: OWNER/NAME")
    lists = output.values() if isinstance(output, dict) else [None]
    if not all(isinstance(who, list) and all(isinstance(w, str) for w in who) for who in lists):
        raise Usage(f"{path}: output is an object of NAME: [PARTY, ...]")
    return title, asset, output, parameters


def _charged(flags: list[str]) -> dict[str, int]:
    found = {}
    for flag in flags:
        role, sign, rows = flag.partition("=")
        if not role or (sign and not (rows.isascii() and rows.isdigit())):
            raise Usage(f"{flag!r} is not ROLE or ROLE=ROWS")
        found[role] = int(rows or 0)
    return found


def _recipients(flags: list[str]) -> dict[str, list[str]]:
    return {name: who.split(",") for name, who in (_pair(o, "NAME=PARTY") for o in flags)}


def _draft(args: Namespace, here: Room) -> Draft:
    title, assets, outputs, parameters = _said(args.file) if args.file else ("", {}, {}, {})
    assets = {**assets, **dict(_pair(a, "ROLE=OWNER/NAME") for a in args.asset)}
    outputs = {**outputs, **_recipients(args.output)}
    parameters = {**parameters, **{n: value(v) for n, v in (_pair(p, "NAME=VALUE") for p in args.parameter)}}
    serve = standing.said(args)
    if not assets or not (outputs or serve):
        raise Usage("say at least one --asset and one --output", hint="To have a model served: --serve chat")
    program = args.program or (standing.USE if serve else "evaluate")
    found = {role: here.asset(reference) for role, reference in assets.items()}
    if args.model:
        parameters = {**parameters, "models": _models(args.model, found)}
    return Draft(
        title=args.title or title or f"{program} {' on '.join(sorted(assets))}",
        program=program,
        assets=found,
        outputs=_wanted(args, outputs),
        parameters=parameters,
        runs=_or(args.runs, 100 if serve else 1),
        seconds=_or(args.seconds, MAX_SECONDS if serve else 300),
        memory_bytes=args.memory,
        days=_or(args.days, 30 if serve else 7),
        min_group=args.min_group,
        decimals=args.decimals,
        max_bytes=args.max_bytes,
        sandbox=args.sandbox,
        walls=tuple(sorted(set(args.wall))),
        payments=tuple(_payment(p) for p in args.pay or ()),
        serve=serve,
        among=tuple(args.among),
        charges=_charged(args.charge),
        observed=observed(args.observed),
    )


def _wanted(args: Namespace, outputs: dict[str, list[str]]) -> dict[str, Wanted]:
    """Who gets which output, in which form, and who reads it first. Raises Usage, and as a schema."""
    forms = {name: schema.from_json(loads(Path(file))) for name, file in (_pair(s, "NAME=FILE") for s in args.schema)}
    locks = _locks(args)
    strangers = (forms.keys() | locks.keys()) - outputs.keys()
    if strangers:
        raise Usage(f"there is no --output {min(strangers)!r}")
    return {name: Wanted(tuple(who), schema=forms.get(name), release=locks.get(name)) for name, who in outputs.items()}


def _locks(args: Namespace) -> dict[str, Airlock]:
    return {name: Airlock(frozenset(who), args.reasons) for name, who in _recipients(args.review).items()}


def _or(said: int | None, usual: int) -> int:
    return usual if said is None else said


def _models(said: list[str], assets: dict[str, Manifest]) -> list[Any]:
    """The models by the names that were given to them, and the others by their assets'."""
    names = {role: name for name, role in (_pair(text, "NAME=ROLE") for text in said)}
    strangers = set(names) - set(assets)
    if strangers:
        raise Usage(f"there is no --asset in the role {min(strangers)!r}")
    found: list[Any] = models_of(assets)
    named = [{**model, "name": names.get(model["role"], model["name"])} for model in found]
    return sorted(named, key=lambda model: str(model["name"]))


def propose(args: Namespace, screen: Screen) -> int:
    here = room(args)
    draft = _draft(args, here)
    with patient(screen, SAYING):
        found = here.propose(draft)
    tell(found, screen)
    others = [p.name for p in found.parties if p.name != here.name]
    screen.line()
    screen.said("proposed", f"{found.digest}; you signed it")
    say_untold(here, found.digest, screen)
    screen.said("next", f"{', '.join(others) or 'nobody'}: strongroom show, then approve or counter")
    screen.result({"digest": found.digest, "proposal": found.to_json()})
    return 0


def tell(found: Proposal, screen: Screen) -> None:
    """Everything that a proposal says."""
    for clause in clauses(found):
        screen.said(clause.about, clause.text)


def _tell_code(here: Room, view: View, screen: Screen) -> None:
    """The files and packages of a proposal's code, where it names code: those of the digest, or it is refused."""
    if view.proposal.program.name == CODE:
        from .code import tell_code

        tell_code(here.submitted(view.proposal), screen)
        screen.said("code", f"read it: strongroom code show {view.proposal.digest[:19]} --as {here.name}")


def _declare_show(parser: ArgumentParser) -> None:
    example(
        parser, "strongroom show --as hospital              # the newest\nstrongroom show sha256:3f2a --as hospital --json"
    )
    parser.add_argument("proposal", nargs="?", help="its digest or the beginning of it; the newest where not given")
    parser.set_defaults(run=show)


def _standing(view: View) -> dict[str, Any]:
    h = view.history
    return {
        "approved_by": sorted(h.approved_by),
        "countered_by": h.countered_by,
        "digest": view.proposal.digest,
        "runs": sorted(h.runs),
        "state": view.state.value,
        "withdrawn_by": sorted(h.withdrawn_by),
    }


def show(args: Namespace, screen: Screen) -> int:
    here = room(args)
    view = here.view(here.find(args.proposal))
    tell(view.proposal, screen)
    _tell_code(here, view, screen)
    spending = tell_spending(here.home, view.proposal, screen)
    screen.line()
    _stands(view, screen)
    named = approvers.standing(here, view.proposal, view.history.approved_by)
    for clause in named:
        screen.said(clause.about, clause.text)
    must = [{"about": c.about, "text": c.text} for c in named]
    screen.result({**_standing(view), "budgets": spending, "must_approve": must, "proposal": view.proposal.to_json()})
    return 0


def _stands(view: View, screen: Screen) -> None:
    h = view.history
    waiting = sorted({p.name for p in view.proposal.parties} - h.approved_by)
    screen.said("state", view.state.value)
    screen.said("approved by", ", ".join(sorted(h.approved_by)) or "nobody")
    if waiting:
        screen.said("waits for", ", ".join(waiting))
    if h.countered_by:
        screen.said("countered by", h.countered_by)
    if h.withdrawn_by:
        screen.said("withdrawn by", ", ".join(sorted(h.withdrawn_by)))
    screen.said("runs used", f"{len(h.runs)} of {view.proposal.limits.runs + h.granted}")


def _declare_diff(parser: ArgumentParser) -> None:
    example(
        parser,
        """
strongroom diff --as lab                   # the newest against what it supersedes
strongroom diff sha256:3f2a sha256:91cc --as lab
""",
    )
    parser.add_argument("old", nargs="?")
    parser.add_argument("new", nargs="?")
    parser.set_defaults(run=diff)


def diff(args: Namespace, screen: Screen) -> int:
    here = room(args)
    new = here.view(here.find(args.new or args.old)).proposal
    if args.old and args.new:
        old = here.view(here.find(args.old)).proposal
    elif new.supersedes:
        old = here.view(new.supersedes).proposal
    else:
        raise Usage("that proposal supersedes none", hint="Name two: strongroom diff OLD NEW")
    found = differences(old, new)
    screen.said("from", f"{old.digest}, by {old.proposer}")
    screen.said("to", f"{new.digest}, by {new.proposer}")
    screen.line()
    _changes(found, screen)
    screen.result({"changes": _as_json(found), "new": new.digest, "old": old.digest})
    return 0


def _as_json(found: list[Difference]) -> list[dict[str, str | None]]:
    return [{"about": d.about, "new": d.new, "old": d.old} for d in found]


def _changes(found: list[Difference], screen: Screen) -> None:
    for d in found:
        if d.old is not None:
            screen.said(f"- {d.about}", d.old, width=28)
        if d.new is not None:
            screen.said(f"+ {d.about}", d.new, width=28)
    if not found:
        screen.line("  nothing that it says changes")


def _declare_counter(parser: ArgumentParser) -> None:
    example(parser, "strongroom counter --as hospital --min-group 10 --drop predictions")
    parser.add_argument("proposal", nargs="?", help="its digest or the beginning of it; the newest where not given")
    parser.add_argument("--drop", action="append", default=[], metavar="OUTPUT", help="leave an output out")
    parser.add_argument(
        "--output", action="append", default=[], metavar="NAME=PARTY[,PARTY]", help="change who gets an output"
    )
    _limits(parser, defaults=False)
    standing.declare(parser)
    parser.set_defaults(run=counter)


def counter(args: Namespace, screen: Screen) -> int:
    here = room(args)
    digest = here.find(args.proposal)
    old = here.view(digest).proposal
    change = Change(
        title=args.title,
        runs=args.runs,
        seconds=args.seconds,
        memory_bytes=args.memory,
        days=args.days,
        sandbox=args.sandbox,
        min_group=args.min_group,
        decimals=args.decimals,
        max_bytes=args.max_bytes,
        drop=tuple(args.drop),
        recipients={name: tuple(who) for name, who in _recipients(args.output).items()},
        payments=None if args.pay is None else tuple(_payment(p) for p in args.pay),
        serve=standing.said(args, old.policy.serve),
        charges=_charged(args.charge),
        release=_locks(args),
        observed=observed(args.observed),
    )
    with patient(screen, SAYING):
        new = here.counter(digest, change)
    found = differences(old, new)
    _changes(found, screen)
    screen.line()
    screen.said("countered", f"{new.digest}; you signed it, and your broker refuses the old one")
    say_untold(here, new.digest, screen)
    screen.result(
        {
            "changes": _as_json(found),
            "digest": new.digest,
            "supersedes": digest,
        }
    )
    return 0


def _declare_approve(parser: ArgumentParser) -> None:
    example(
        parser,
        """
strongroom approve --as lab                 # shows it and asks
strongroom approve sha256:3f2a…91cc --as lab --yes      # the whole digest of what you have read
""",
    )
    parser.add_argument("proposal", nargs="?", help="its digest or the beginning of it; the newest where not given")
    parser.add_argument("--yes", action="store_true", help="do not ask: you have read what has this whole digest")
    parser.set_defaults(run=approve)


def approve(args: Namespace, screen: Screen) -> int:
    if args.yes and not is_whole(args.proposal or ""):  # another proposal can be made to begin as one that was read
        raise Usage("--yes needs a digest, the whole of it", hint="Name exactly what you have read: strongroom show")
    here = room(args)
    digest = here.find(args.proposal)
    view = here.view(digest)
    if not args.yes:
        tell(view.proposal, screen)
        _tell_code(here, view, screen)
        tell_spending(here.home, view.proposal, screen)
        if view.proposal.supersedes:
            screen.heading("What changes")
            _changes(differences(here.view(view.proposal.supersedes).proposal, view.proposal), screen)
        if args.json or not sys.stdin.isatty():
            raise Usage("nothing was approved", hint=f"When you have read it: strongroom approve {digest} --yes")
        screen.line()
        if input("Sign exactly this? [y/N] ").strip().lower() not in ("y", "yes"):
            screen.line("nothing was signed")
            return 1
    with patient(screen, SAYING):
        found = here.approve(digest)
    screen.said("approved", digest)
    say_untold(here, digest, screen)
    _stands(found, screen)
    if found.state in (State.APPROVED, State.ACTIVE):
        verb = f"serve --contract {digest[:19]}" if found.proposal.standing else f"run {digest[:19]}"
        verb = f"guest expect {digest[:19]}" if found.proposal.for_guests else verb
        screen.said("next", f"strongroom {verb} --as {here.name}")
    screen.result(_standing(found))
    return 0


def _declare_withdraw(parser: ArgumentParser) -> None:
    example(parser, 'strongroom withdraw sha256:3f2a --as hospital --reason "the ethics board has not met"')
    parser.add_argument("proposal", help="its digest or the beginning of it")
    parser.add_argument("--reason", default="", help="one line, which every party can read")
    parser.set_defaults(run=withdraw)


def withdraw(args: Namespace, screen: Screen) -> int:
    here = room(args)
    try:
        digest = here.find(args.proposal)
    except Unreachable as error:
        raise Unreachable(error.message, hint="With the whole digest your own broker is told even so.") from error
    with patient(screen, SAYING):
        missed = here.withdraw(digest, args.reason)
    say_untold(here, digest, screen)
    screen.said("withdrawn", f"{digest}; your broker releases nothing more under it")
    for who in missed:
        screen.said("not reached", who)
    if missed:
        screen.said("", "A broker that was off asks the exchange when it is back. Withdraw again to tell the others.")
    screen.result({"digest": digest, "not_reached": missed})
    return 0


def _declare_grant(parser: ArgumentParser) -> None:
    example(parser, "strongroom grant sha256:3f2a --as hospital --runs 1   # a run died: let it be made again")
    parser.add_argument("proposal", help="its digest or the beginning of it")
    parser.add_argument("--runs", type=int, default=1)
    parser.set_defaults(run=grant)


def grant(args: Namespace, screen: Screen) -> int:
    here = room(args)
    digest = here.find(args.proposal)
    with patient(screen, SAYING):
        found = here.grant(digest, args.runs)
    say_untold(here, digest, screen)
    screen.said("granted", f"{found.runs} more by your broker alone; other owners grant their own")
    screen.result({"digest": digest, "runs": found.runs})
    return 0
