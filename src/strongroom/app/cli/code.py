"""submit, try, code: a researcher's own code, and what reviewers see of it."""

from __future__ import annotations

import difflib
import json
from argparse import SUPPRESS, ArgumentParser, Namespace
from contextlib import suppress
from pathlib import Path
from typing import Any

from strongroom import wire
from strongroom.app.client import trials
from strongroom.app.client.analysis import Tried, try_
from strongroom.app.client.prose import code_clauses
from strongroom.app.client.room import Room, is_whole
from strongroom.code import CodeBundle, difference
from strongroom.contract import SANDBOXES
from strongroom.errors import Usage

from .assets import size
from .place import example, party, room
from .screen import Screen


def declare(verb: str, parser: ArgumentParser) -> None:
    {"submit": _declare_submit, "try": _declare_try, "code": _declare_code}[verb](parser)


def _pairs(flags: list[str], what: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for flag in flags:
        name, sign, value = flag.partition("=")
        if not (name and sign and value) or name in found:
            raise Usage(f"{flag!r} is not {what}, or says something twice")
        found[name] = value
    return found


def _analysis(parser: ArgumentParser, inputs: str, outputs: str) -> None:
    parser.add_argument("analysis", type=Path, metavar="FILE|FOLDER", help="the code")
    parser.add_argument("--entry", metavar="MODULE[:FUNCTION]", help="where it begins (the file, as a script)")
    parser.add_argument("--input", action="append", default=[], metavar=inputs, help="FORM: pandas, arrow, polars or file")
    parser.add_argument("--output", action="append", default=[], metavar=outputs, help="KIND: values, table, picture, …")
    parser.add_argument(
        "--argument", action="append", default=[], metavar="NAME=VALUE", help="VALUE is JSON, or a plain word"
    )
    parser.add_argument("--lock", type=Path, metavar="FILE", help="its packages, by version and hash")
    parser.add_argument(
        "--schema", action="append", default=[], metavar="NAME=FILE", help="what values, a table or tensors may hold"
    )
    parser.add_argument("--min-group", type=int, default=1, metavar="N", help="groups under N are suppressed")
    parser.add_argument("--decimals", type=int, default=15, metavar="N", help="numbers keep at most N decimal places")
    parser.add_argument("--max-bytes", type=size, metavar="SIZE", help="largest size of every output (by its kind)")
    parser.add_argument("--seconds", type=int, default=300, help="longest time of a run (300)")
    parser.add_argument("--memory", type=size, default=2 << 30, metavar="SIZE", help="most memory of a run (2G)")
    parser.add_argument("--sandbox", choices=SANDBOXES, default="isolated", help="process protects nothing")


def _said(args: Namespace) -> dict[str, Any]:
    from .contracts import value

    if not args.input or not args.output:
        raise Usage("say at least one --input and one --output")
    return {
        "entry": args.entry,
        "inputs": _pairs(args.input, "NAME=THING:FORM"),
        "outputs": _pairs(args.output, "NAME=KIND:PARTY"),
        "arguments": {name: value(text) for name, text in _pairs(args.argument, "NAME=VALUE").items()},
        "lock": args.lock,
        "schemas": _pairs(args.schema, "NAME=FILE"),
        "min_group": args.min_group,
        "decimals": args.decimals,
        "max_bytes": args.max_bytes,
        "seconds": args.seconds,
        "memory_bytes": args.memory,
        "sandbox": args.sandbox,
    }


# --- submit ---


def _declare_submit(parser: ArgumentParser) -> None:
    example(
        parser,
        """
strongroom submit analysis.py --entry analysis:summarise --as lab \\
    --input census=hospital/census.csv:pandas --output summary=values:lab --schema summary=summary.schema.json \\
    --output plot=picture:lab,hospital
strongroom submit study/ --entry main --input census=hospital/census.parquet:polars --output means=table:lab \\
    --schema means=means.schema.json --lock requirements.lock --as lab
""",
    )
    _analysis(parser, "ROLE=OWNER/NAME[:FORM]", "NAME=KIND:PARTY[,PARTY]")
    parser.add_argument("--title", default="", help="one line for people")
    parser.add_argument(
        "--progress", metavar="PARTS:PARTY[,PARTY]", help="who hears how far the code is, in so many parts (nobody)"
    )
    parser.add_argument("--runs", type=int, default=1, help="how many runs (1)")
    parser.add_argument("--days", type=int, default=7, help="how long it stands (7)")
    parser.add_argument("--among", action="append", default=[], metavar="PARTY", help="a party without another role")
    parser.add_argument("--tried", type=Path, metavar="FILE", help="what it did on the mocks, as `try --keep FILE` wrote it")
    parser.set_defaults(run=submit)


def submit(args: Namespace, screen: Screen) -> int:
    from .contracts import tell

    here = room(args)
    more = {"title": args.title, "progress": args.progress, "runs": args.runs, "days": args.days}
    more |= {"among": tuple(args.among), "tried": args.tried}
    found = here.submit(args.analysis, **_said(args), **more)
    bundle = here.submitted(found)
    tell(found, screen)
    tell_code(bundle, screen)
    others = [p.name for p in found.parties if p.name != here.name]
    screen.line()
    screen.said("proposed", f"{found.digest}; you signed it")
    screen.said(
        "next", f"{', '.join(others) or 'nobody'}: strongroom code show {found.digest[:19]}, then approve or counter"
    )
    screen.result({"code": bundle.digest, "digest": found.digest, "proposal": found.to_json()})
    return 0


def tell_code(bundle: CodeBundle, screen: Screen) -> None:
    """What a proposal's code is, below what the proposal says."""
    for clause in code_clauses(bundle):
        screen.said(clause.about, clause.text)


# --- try ---


def _declare_try(parser: ArgumentParser) -> None:
    example(
        parser,
        """
strongroom try analysis.py --entry analysis:summarise --input census=mock.csv:pandas --output summary=values
strongroom try analysis.py --entry analysis:summarise --input census=office/census --output summary=values --as lab
""",
    )
    _analysis(parser, "ROLE=FILE|ASSET[:FORM]", "NAME=KIND")
    parser.add_argument("--wheels", type=Path, metavar="FOLDER", help="wheels of the lock's packages")
    parser.add_argument("--index", metavar="URL", help="a package index to take them from (none)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write the outputs there")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="write down what it did, for `submit --tried FILE`")
    parser.set_defaults(run=tried)


def tried(args: Namespace, screen: Screen) -> int:
    keep = party(args).place("environments") if args.lock else None
    more: dict[str, Any] = {"wheels": args.wheels, "index": args.index, "assets": lambda name: room(args).assets[name]}
    found = try_(args.analysis, **_said(args), **more, keep=keep)
    if args.out:
        _write(found, args)
    if args.keep:
        trials.keep(found, args.keep)
    if found.log:
        screen.heading("What it printed (in a room nobody sees it, unless the contract names an output of kind log)")
        screen.line(found.log.rstrip("\n"))
    screen.line()
    screen.said("ran in", f"{found.sandbox}, {found.seconds:.2f} s")
    for name, data in found.outputs.items():
        screen.said(f"output {name}", f"would leave: {len(data):,} bytes")
    for name, why in found.refused.items():
        screen.said(f"output {name}", f"would not leave: {why}")
    for name in found.drafts:
        where = f"{args.out / name}.schema.json: tighten it" if args.out else "written with --out"
        screen.said(f"schema {name}", f"none was said; a draft that this fits is {where}, for submit --schema")
    if found.failure:
        screen.said("ended with", f"{found.failure}; in a room that is all that anybody would learn")
    if args.keep:
        screen.said("kept", f"{args.keep}: reviewers see it with the proposal, if you submit with --tried {args.keep}")
    screen.result(
        {
            "drafts": dict(found.drafts),
            "failure": found.failure,
            "log": found.log,
            "outputs": {name: len(data) for name, data in found.outputs.items()},
            "refused": dict(found.refused),
            "sandbox": found.sandbox,
        }
    )
    return 0 if found.passed else 1


def _write(found: Tried, args: Namespace) -> None:
    from strongroom.app.client.room import SUFFIXES

    kinds = {name: text.partition(":")[0] for name, text in _pairs(args.output, "NAME=KIND").items()}
    args.out.mkdir(parents=True, exist_ok=True)
    for name, data in found.outputs.items():
        (args.out / (name + SUFFIXES[kinds[name]])).write_bytes(data)
    for name, draft in found.drafts.items():
        (args.out / f"{name}.schema.json").write_text(json.dumps(draft, indent=1) + "\n", encoding="utf-8")


# --- code ---


def _declare_code(parser: ArgumentParser) -> None:
    example(
        parser,
        """
strongroom code show sha256:3f2a --as hospital           # of a proposal, or of a bundle by its whole digest
strongroom code diff sha256:3f2a sha256:91cc --as hospital
""",
    )
    verbs = parser.add_subparsers(dest="what", required=True, metavar="show|diff")
    shown = verbs.add_parser("show", help="every file, as it would run")
    shown.add_argument("digest", nargs="?", help="of a bundle, whole; or of a proposal (the newest)")
    compared = verbs.add_parser("diff", help="what changes between the code of two proposals, or two bundles")
    compared.add_argument("old")
    compared.add_argument("new")
    for sub in (shown, compared):
        for flag, dest in (("--home", "home"), ("--as", "party"), ("--exchange-url", "exchange_url")):
            sub.add_argument(flag, dest=dest, default=SUPPRESS)
        sub.add_argument("--json", action="store_true", default=SUPPRESS)
    parser.set_defaults(run=code)


def code(args: Namespace, screen: Screen) -> int:
    here = room(args)
    if args.what == "show":
        _show(_bundle(here, args.digest), screen)
    else:
        _diff(_bundle(here, args.old), _bundle(here, args.new), screen)
    return 0


def _bundle(here: Room, reference: str | None) -> CodeBundle:
    """By a bundle's digest, or by a proposal's or the beginning of one."""
    if reference is not None and is_whole(reference):
        from strongroom.errors import NotFound

        with suppress(NotFound):  # then it is a proposal's
            return here.code(reference)
    return here.submitted(here.view(here.find(reference)).proposal)


def _show(bundle: CodeBundle, screen: Screen) -> None:
    tell_code(bundle, screen)
    texts = {**bundle.files, **({"lock": bundle.lock.text} if bundle.lock else {})}
    for name, text in texts.items():
        screen.heading(name)
        lines = text.split("\n")
        width = len(str(len(lines)))
        for number, line in enumerate(lines[:-1] if text.endswith("\n") else lines, 1):
            screen.line(f"  {number:>{width}}  {line}".replace("\t", "    "))
    screen.result({"digest": bundle.digest, **bundle.to_json()})


def _diff(old: CodeBundle, new: CodeBundle, screen: Screen) -> None:
    screen.said("from", old.digest)
    screen.said("to", new.digest)
    changes: list[dict[str, Any]] = []
    for name, before, after in difference(old, new):
        lines = difflib.unified_diff(
            (before or "").splitlines(), (after or "").splitlines(), "" if before is None else name, name, lineterm=""
        )
        found = list(lines)
        changes.append({"diff": found, "file": name, "new": _digest(after), "old": _digest(before)})
        screen.heading(f"{name}: {'new' if before is None else 'left out' if after is None else 'changed'}")
        for line in found[2:]:
            screen.line(f"  {line}", *({"+": ("green",), "-": ("red",)}.get(line[:1], ())))
    if not changes:
        screen.line("  nothing changes")
    screen.result({"changes": changes, "new": new.digest, "old": old.digest})


def _digest(text: str | None) -> str | None:
    return None if text is None else wire.digest(text.encode())
