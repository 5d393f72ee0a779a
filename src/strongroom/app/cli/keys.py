"""keys, usage: who may ask an enclave that serves, for its operator; what was used, for a model's owner."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strongroom.drawing import GRAIN
from strongroom.errors import BadUsage, Conflict, Usage

from .place import example, home, party, room
from .screen import Screen

if TYPE_CHECKING:
    from strongroom.app.client.served import Due, Recounted
    from strongroom.app.inference.credentials import Key, Keys

SHOWN = 10  # receipts that are not counted, each with its reason


def declare(verb: str, parser: ArgumentParser) -> None:
    {"keys": _declare_keys, "usage": _declare_usage}[verb](parser)


# --- keys -------------------------------------------------------------------------------------------------------------


def _declare_keys(parser: ArgumentParser) -> None:
    example(
        parser,
        """
strongroom keys add ada --requests-per-minute 60 --tokens-per-day 1000000
strongroom keys list
strongroom keys revoke ada
""",
    )
    parser.add_argument("verb", choices=("add", "list", "revoke"))
    parser.add_argument("name", nargs="?", help="your own word for the key's holder; of revoke also the key's id")
    parser.add_argument("--requests-per-minute", type=int, metavar="N")
    parser.add_argument("--tokens-per-minute", type=int, metavar="N", help="of prompts and answers together")
    parser.add_argument("--tokens-per-day", type=int, metavar="N", help="a day of UTC")
    parser.add_argument(
        "--model", action="append", metavar="NAME", help="a model that it may ask; every one where not given"
    )
    parser.set_defaults(run=keys)


def keys(args: Namespace, screen: Screen) -> int:
    from strongroom.app.inference.credentials import PLACE, Keys

    if (args.name is None) is not (args.verb == "list"):
        raise Usage("say whose key" if args.name is None else "list takes no name", hint="See: strongroom keys --help")
    found = Keys(home(args).folder / PLACE)
    args.opened.callback(found.close)
    return {"add": _add, "list": _list, "revoke": _revoke}[args.verb](found, args, screen)


def _add(found: Keys, args: Namespace, screen: Screen) -> int:
    from strongroom.app.inference.credentials import Limits

    limits = Limits(
        args.requests_per_minute,
        args.tokens_per_minute,
        args.tokens_per_day,
        None if args.model is None else frozenset(args.model),
    )
    token = found.add(args.name, limits, at=int(time.time()))
    screen.said("key", token)
    screen.said("", "Give it to its holder. It is shown this once: what is kept here is its hash.")
    screen.said("limits", _limits(limits.to_json()))
    screen.result({"key": token, "limits": limits.to_json(), "name": args.name})
    return 0


def _limits(limits: dict[str, Any]) -> str:
    numbers = [
        f"{limits[name]:,} {name.replace('_per_', ' a ')}" for name in sorted(limits) if isinstance(limits[name], int)
    ]
    models = [f"only {', '.join(limits['models'])}"] if limits["models"] else []
    return "; ".join(numbers + models) or "none"


def _list(found: Keys, _args: Namespace, screen: Screen) -> int:
    from strongroom.app.inference.credentials import DAY

    today = int(time.time()) // DAY

    def row(key: Key) -> list[str]:
        used = found.used(key.hash, today)
        state = "in force" if key.revoked_at is None else "revoked"
        return [key.name, key.id, state, f"{used.requests:,}", f"{used.tokens:,}", _limits(key.limits.to_json())]

    everyone = found.list()
    screen.table(["name", "id", "state", "requests today", "tokens today", "limits"], [row(key) for key in everyone])
    screen.result({"keys": [_json(key) for key in everyone]})
    return 0


def _json(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "limits": key.limits.to_json(),
        "made_at": key.made_at,
        "name": key.name,
        "revoked_at": key.revoked_at,
    }


def _revoke(found: Keys, args: Namespace, screen: Screen) -> int:
    key = found.revoke(args.name, at=int(time.time()))
    screen.said("revoked", f"{key.name}, id {key.id}: its next request is refused")
    screen.result({"revoked": _json(key)})
    return 0


# --- usage ------------------------------------------------------------------------------------------------------------


def _declare_usage(parser: ArgumentParser) -> None:
    example(
        parser,
        """
strongroom usage --fetch sha256:3f2a --out receipts.jsonl --as lab    # from the enclave that serves now
strongroom usage receipts.jsonl --prices prices.json --as lab
strongroom usage may-1.jsonl may-2.jsonl --offline --as lab
""",
    )
    parser.add_argument("files", nargs="*", type=Path, help="files of receipts under one contract")
    parser.add_argument("--fetch", metavar="CONTRACT", help="ask the enclave for the receipts under this contract")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write what was fetched")
    parser.add_argument("--prices", type=Path, metavar="FILE", help="what a million tokens cost (spec/usage.md)")
    parser.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="MODEL=SHA256",
        help="the digest of a model's weights, where its manifest does not show it",
    )
    parser.add_argument("--offline", action="store_true", help="do not read the log for receipts that are missing")
    parser.set_defaults(run=usage)


def usage(args: Namespace, screen: Screen) -> int:
    if args.fetch is not None:
        return _fetch(args, screen)
    if not args.files:
        raise Usage("say which files of receipts", hint="Get one with: strongroom usage --fetch CONTRACT --out FILE")
    from strongroom.app.client.served import prices_of, recount

    here = None if args.offline else room(args)
    trust = here.trust if here is not None else party(args).trust
    prices = None if args.prices is None else prices_of(args.prices)
    found = recount(args.files, trust, weights=_weights(args.weights), at=int(time.time()), room=here)
    value = _shown(found, screen)
    if prices is not None:
        from strongroom.usage import price

        priced = price(found.totals, prices)
        owed: dict[str, int] = {}
        for line in priced:
            owed[line.currency] = owed.get(line.currency, 0) + line.amount
        for currency, amount in sorted(owed.items()):
            screen.said("owed", f"{amount // 100:,}.{amount % 100:02} {currency}")
        value["owed"] = owed
        value["priced"] = [
            {"amount": p.amount, "contract": p.line.contract, "currency": p.currency, "model": p.line.model} for p in priced
        ]
    if found.refused or found.missing:
        screen.error(BadUsage("receipts are not counted, or missing", hint="Ask whoever serves for them."), **value)
        return 1
    screen.result(value)
    return 0


def _weights(said: list[str]) -> dict[str, str]:
    pairs = [one.rpartition("=") for one in said]
    if not all(name and digest for name, _, digest in pairs):
        raise Usage("weights are said as MODEL=sha256:…")
    return {name: digest for name, _, digest in pairs}


def _fetch(args: Namespace, screen: Screen) -> int:
    from strongroom.app.client.served import fetch

    if args.out is None or args.files:
        raise Usage("say where to write what is fetched", hint="strongroom usage --fetch CONTRACT --out FILE")
    if args.out.exists():
        raise Conflict(f"{args.out} is already there", hint="Move it away, or choose another place with --out.")
    here = room(args)
    url = args.enclave_url or home(args).config.enclave
    contract = here.find(args.fetch)
    try:
        count = fetch(here, contract, url, args.out)
    except BaseException:
        args.out.unlink(missing_ok=True)
        raise
    screen.said("written", f"{args.out}: {count:,} receipts")
    screen.said("next", f"strongroom usage {args.out} --as {here.name}")
    screen.result({"contract": contract, "file": str(args.out), "receipts": count})
    return 0


def _drawn(one: Due) -> list[str]:
    whole = f"{one.drawn.weight / GRAIN:,.2f} of {one.drawn.tokens:,}"
    return [one.agreed.name, one.owner, f"{one.drawn.requests:,}", whole, f"{one.amount:,} {one.drawn.unit}"]


def _shown(found: Recounted, screen: Screen) -> dict[str, Any]:
    screen.said("contract", found.contract)
    screen.said("", found.label)
    screen.said("receipts", f"{found.counted:,} verified, {len(found.refused):,} not")
    for one in found.refused[:SHOWN]:
        screen.said("  not counted", f"{one.receipt_id}: {one.why.message}")
    if found.missing is None:
        screen.said("missing", "not looked for: the log was not read")
    else:
        screen.said("missing", f"{len(found.missing):,} that the log holds and nobody handed over")
    header = ["model", "requests", "prompt", "completion", "embedding"]
    rows = [
        [line.model, *(f"{n:,}" for n in (line.requests, line.usage.prompt, line.usage.completion, line.usage.embedding))]
        for line in found.totals.lines
    ]
    screen.table(header, rows)
    if found.drawn:
        columns = ["source", "owner", "answers", "tokens drawn", "owed"]
        screen.table(columns, [_drawn(one) for one in found.drawn])
    return {
        "contract": found.contract,
        "missing": None if found.missing is None else list(found.missing),
        "drawn": [one.to_json() for one in found.drawn],
        "not_counted": [{"error": one.why.to_json(), "receipt_id": one.receipt_id} for one in found.refused],
        "platform": found.label,
        "totals": found.totals.to_json(),
        "verified": found.counted,
    }
