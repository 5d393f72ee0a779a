"""lm train, eval and generate: models that retrieve from a store (docs/retrieval.md)."""

from __future__ import annotations

import json
import os
import time
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strongroom.errors import BadTraining, Usage

from .place import example
from .screen import QUIET_SECONDS, Screen

if TYPE_CHECKING:
    from collections.abc import Callable

    from strongroom.lm.datastore import Datastore
    from strongroom.lm.evaluation import Measured
    from strongroom.lm.generation import Answer
    from strongroom.lm.influence import Budget
    from strongroom.lm.training import Said, Team


NEIGHBOURS, READ = 4, 16


def declare(verb: str, parser: ArgumentParser) -> None:
    {"lm train": _train, "lm eval": _eval, "lm generate": _generate}[verb](parser)


def _train(parser: ArgumentParser) -> None:
    example(
        parser,
        """
strongroom lm train books encyclopedia --store store --out run --steps 1000
""",
    )
    parser.add_argument("source", nargs="+", help="sources of the store that are public text, and are learned from")
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="of this training; goes on with what is there"
    )
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--windows", type=int, default=8, help="of a batch (8)")
    parser.add_argument("--window", type=int, default=512, help="tokens of one (512)")
    parser.add_argument("--width", type=int, default=192, help="of the model (192); a head has 64")
    parser.add_argument("--layers", type=int, default=3, help="of the model (3)")
    parser.add_argument("--neighbours", type=int, default=NEIGHBOURS, help=f"of each source ({NEIGHBOURS})")
    parser.add_argument(
        "--read",
        type=int,
        default=READ,
        metavar="N",
        help=f"neighbours of each source that the finished model reads ({READ})",
    )
    parser.add_argument("--every", type=int, default=32, help="tokens after which neighbours are looked for again (32)")
    parser.add_argument("--begin", type=Path, metavar="MODEL", help="begin with its weights; a new training alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--alike", type=int, default=1000, metavar="N", help="leave out neighbours of which more than N in 1000 is copied"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes that search ahead (1)")
    parser.add_argument("--no-store", action="store_true", help="the language model alone, on the same windows")
    parser.add_argument("--full", action="store_true", help="products in 32 bits")
    parser.set_defaults(run=train)


def _eval(parser: ArgumentParser) -> None:
    example(parser, "strongroom lm eval held-out.jsonl --model run/model.safetensors --store store")
    parser.add_argument("text", nargs="+", type=Path, help="text that is in no source of the store")
    _model(parser)
    parser.add_argument("--windows", type=int, default=100, help="to measure on, at most (100)")
    parser.add_argument(
        "--shares", default="1,10", metavar="PERCENT", help='also with so much of the store alone (1,10); "" for none'
    )
    parser.add_argument("--seed", type=int, default=0, help="of windows, of random passages and of shares (0)")
    parser.set_defaults(run=evaluate)


def _generate(parser: ArgumentParser) -> None:
    example(
        parser,
        """
strongroom lm generate "The Mayor shall" --model model.safetensors --store store --show-sources
strongroom lm generate "The Mayor shall" --model model.safetensors --store store --budget law=20 --without books
strongroom lm generate "The Mayor shall" --model model.safetensors --store store --page answer.html
""",
    )
    parser.add_argument("prompt")
    _model(parser)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--temperature", type=float, default=0.0, help="0 takes the likeliest token each time (0)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show-sources", action="store_true", help="of each token, what it was drawn from")
    parser.add_argument(
        "--budget", action="append", default=[], metavar="NAME=TOKENS", help="as many whole tokens of a source at most"
    )
    parser.add_argument("--without", action="append", default=[], metavar="NAME", help="a source that is left out")
    parser.add_argument("--page", type=Path, metavar="FILE", help="also write a page, each token in its source's colour")
    parser.set_defaults(run=generate)


def _model(parser: ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, help="a model's file; else the one that ships, with a store of its parts")
    parser.add_argument("--store", type=Path, required=True)


def _every_while(screen: Screen, what: str, unit: str) -> Callable[[int, int], None]:
    """Says every two seconds how far something is."""
    last = time.monotonic()

    def said(done: int, of: int) -> None:
        nonlocal last
        if (now := time.monotonic()) - last >= QUIET_SECONDS:
            last = now
            screen.note(f"{what}: {done:,} of {of:,} {unit}")

    return said


# --- train ----------------------------------------------------------------------------------------------------------


def train(args: Namespace, screen: Screen) -> int:
    from strongroom.lm import training, weights
    from strongroom.lm.batches import Plan

    weights.library()
    from strongroom.lm.gates import Shape

    if args.width % 64 or args.width < 64 or args.read < 1:
        raise Usage("the width of a model is a multiple of 64, and it reads at least one neighbour")
    from strongroom.lm.datastore import Datastore

    store = Datastore.open(args.store)
    plan = Plan(
        tuple(args.source),
        seed=args.seed,
        windows=args.windows,
        window=args.window,
        every=args.every,
        neighbours=args.neighbours,
        alike=args.alike,
    )
    settings = training.Settings(args.steps, store=not args.no_store, half=not args.full, workers=args.workers)
    shape = Shape(
        vocabulary=store.tokenizer.size,
        width=args.width,
        heads=args.width // 64,
        feed_forward=args.width * 8 // 3,
        layers=args.layers,
        context=args.window,
        every=args.every,
        neighbours=args.neighbours,
    )
    team = _team()
    last: list[Said] = []

    def said(now: Said) -> None:
        last[:] = [now]
        if team.rank == 0:
            screen.note(
                f"step {now.step:,} of {args.steps:,}: {now.loss:.3f} nats a token, {now.own:.3f} without neighbours; "
                f"{now.speed:,.0f} tokens a second, {now.waited:.1%} of the time waiting"
            )

    began = time.monotonic()
    path = training.train(
        args.out, args.store, shape, plan, settings, said=said, team=team, begin=args.begin, read=args.read
    )
    if team.rank == 0:
        curve = training.curve(args.out)
        screen.said("model", str(path))
        screen.said("losses", str(curve))
        now = {} if not last else {**asdict(last[0]), "speed": round(last[0].speed, 1), "waited": round(last[0].waited, 4)}
        found = {"model": str(path), "curve": str(curve), "steps": args.steps, "last": now or None}
        screen.result({**found, "seconds": round(time.monotonic() - began, 1)})
    return 0


def _team() -> Team:
    """The processes that ``torchrun`` started, where it did."""
    from strongroom.lm.training import Team

    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Team()
    import torch

    torch.distributed.init_process_group("gloo")
    return Team(torch.distributed.get_rank(), size)


# --- eval -----------------------------------------------------------------------------------------------------------


def evaluate(args: Namespace, screen: Screen) -> int:
    from strongroom.lm import weights
    from strongroom.lm.datastore import Datastore
    from strongroom.lm.evaluation import measure
    from strongroom.lm.thinned import Thinned

    model, about = weights.load(args.model or weights.shipped())
    store = Datastore.open(args.store)
    about.fits(store.tokenizer.digest)
    if args.windows < 1:
        raise Usage("there is at least one window to measure on")
    shares = _shares(args.shares)
    text = _tokens(args.text, store)

    def measured(what: str, part: Datastore | Thinned) -> Measured:
        return measure(
            model,
            part,
            text,
            relevance=about.relevance / 1e6,
            floor=about.floor,
            most=args.windows,
            seed=args.seed,
            said=_every_while(screen, what, "windows"),
        )

    shown = measured("measuring", store).to_json()
    _table(shown["ways"], screen)
    parts = {}
    for share in shares:
        thinned = Thinned.of(store, share, args.seed)
        parts[f"{share / 10:g}"] = measured(f"measuring with {share / 10:g} % of the store", thinned).to_json()
    if parts:
        screen.line("")
        _table({f"{share} % of the store": part["ways"]["on"] for share, part in parts.items()}, screen)
    screen.line("")
    rows = [
        [name, f"{weight:.1%}", "" if shown["agreement"][name] is None else f"{shown['agreement'][name]:+.2f}"]
        for name, weight in shown["gates"].items()
    ]
    screen.table(["source", "of a token", "credit goes with what leaving it out costs"], rows)
    screen.said("low overlap", f"{shown['low_overlap_share']:.1%} of {shown['tokens']:,} tokens")
    screen.result({"store": store.version, **shown, "shares": parts})
    return 0


def _shares(said: str) -> list[int]:
    """Parts in a thousand. Raises Usage."""
    words = [word for word in said.split(",") if word]
    try:
        found = [round(10 * float(word)) for word in words]
    except (ValueError, OverflowError):
        found = [0]
    if any(not 0 < share <= 1000 for share in found):
        raise Usage("a share of a store is a number of percent, 0.1 to 100", hint="For example: --shares 1,10")
    return found


def _table(ways: dict[str, Any], screen: Screen) -> None:
    rows = []
    for way, one in ways.items():
        low = "" if one["bits_low"] is None else f"{one['bits_low']:.3f}"
        rows.append([way, f"{one['bits']:.3f}", _interval(one["gain"]), low, _interval(one["gain_low"])])
    screen.table(["sources", "bits a byte", "better than off by", "low overlap", "better than off by"], rows)


def _interval(gain: list[float] | None) -> str:
    return "" if gain is None else f"{gain[0]:+.3f} ({gain[1]:+.3f} to {gain[2]:+.3f})"


def _tokens(paths: list[Path], store: Datastore) -> Any:
    import numpy as np

    from strongroom.lm.texts import Passed, Texts

    found = []
    for one in Texts.of(paths).read():
        if isinstance(one, Passed):
            raise one.error
        found.append(store.tokenizer.encode(one.text))
    if not found:
        raise BadTraining("there is no text to measure on")
    return np.concatenate(found)


# --- generate -------------------------------------------------------------------------------------------------------


def generate(args: Namespace, screen: Screen) -> int:
    from strongroom.lm import weights
    from strongroom.lm.datastore import Datastore
    from strongroom.lm.generation import RetrievalLM

    if args.tokens < 1 or not 0 <= args.temperature < 100 or args.seed < 0:
        raise Usage("an answer has at least one token; temperature and seed are not below zero")
    model = RetrievalLM.load(args.model or weights.shipped())
    store = Datastore.open(args.store)
    for name in args.without:
        store = store.without(name)
    began = time.monotonic()
    answer = model.generate(
        args.prompt,
        store=store,
        budgets=dict(map(_budget, args.budget)),
        tokens=args.tokens,
        temperature=args.temperature,
        seed=args.seed,
        said=_every_while(screen, "writing", "tokens"),
    )
    took = time.monotonic() - began
    screen.line(args.prompt + answer.text)
    if args.show_sources:
        _show(answer, store, screen)
    if args.page is not None:
        from .drawn_page import page

        owners = {name: source.manifest.about.owner for name, source in store.sources.items()}
        args.page.write_bytes(page(args.prompt, answer, store.names, store.tokenizer.decode, owners))
        screen.said("page", str(args.page))
    for name, grains in answer.drawn.items():
        screen.said(name, f"{grains / (1 << 20):.2f} tokens drawn")
    screen.said("written", f"{len(answer.tokens):,} tokens, {len(answer.tokens) / max(took, 1e-9):,.0f} a second")
    screen.result({"text": answer.text, **shown(answer), "seconds": round(took, 3)})
    return 0


def _budget(word: str) -> tuple[str, Budget]:
    from strongroom.lm.influence import GRAIN, Budget

    name, sign, tokens = word.partition("=")
    if not sign or not tokens.isdecimal():
        raise Usage(f"{word!r} is no budget", hint="Say how many whole tokens: --budget law=20")
    return name, Budget(total=int(tokens) * GRAIN)


def _show(answer: Answer, store: Datastore, screen: Screen) -> None:
    rows = []
    for one in answer.tokens:
        said = json.dumps(store.tokenizer.decode([one.token]), ensure_ascii=False)
        drawn = ", ".join(f"{draw.source} {draw.weight / (1 << 20):.1%} of passage {draw.passage:,}" for draw in one.draws)
        rows.append([said, drawn])
    screen.table(["token", "drawn from"], rows)


def shown(answer: Answer) -> dict[str, Any]:
    """An answer without its text: whole numbers alone."""
    return {
        "grains": 1 << 20,
        "version": answer.version,
        "drawn": dict(answer.drawn),
        "tokens": [
            {
                "token": one.token,
                "own": one.own,
                "draws": [
                    {"source": draw.source, "weight": draw.weight, "passage": draw.passage, "share": draw.share}
                    for draw in one.draws
                ],
            }
            for one in answer.tokens
        ],
    }
