"""What a store costs a model: tokens a second while training and writing, with and without. Times of the processor, one
thread.

What a store is worth to it, in bits a byte, needs corpora and an hour: ``training/retrieval.py`` measures that, and
``retrieval_quality.json`` beside this file keeps what it found.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from strongroom.lm import weights
from strongroom.lm.batches import Plan, Supply
from strongroom.lm.build import build
from strongroom.lm.datastore import Datastore
from strongroom.lm.gates import Found, RetrievalModel, Shape
from strongroom.lm.generation import RetrievalLM
from strongroom.lm.optimizer import Optimizer
from strongroom.lm.parts import Parts
from strongroom.lm.source import About
from strongroom.lm.texts import Texts

SLOW = True
ROUNDS = 5
NAMES = ("one", "two", "three", "four", "five")


def place(folder: Path) -> Path:
    """A store of five sources of made-up text."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnoprstuvw", k=draw.randint(2, 9))) for _ in range(6000)]
    weights = [1 / (rank + 5) for rank in range(len(words))]

    def text() -> str:
        return " ".join(draw.choices(words, weights, k=1500)) + ".\n"

    Datastore.create(folder / "store", Parts.train([text() for _ in range(150)], lists=64))
    for name in NAMES:
        lines = "".join(json.dumps({"id": str(i), "text": text()}) + "\n" for i in range(60))
        (folder / f"{name}.jsonl").write_text(lines)
        build(folder / "store", About(name, "nobody", "CC0-1.0"), Texts.of([folder / f"{name}.jsonl"]))
    return folder / "store"


def seconds(what: Callable[[], object], rounds: int = ROUNDS) -> float:
    """The median of the processor's time for it, after one round that is not counted."""
    what()
    times = []
    for _ in range(rounds):
        began = time.process_time()
        what()
        times.append(time.process_time() - began)
    return statistics.median(times)


def training(store: Path, width: int, layers: int) -> tuple[float, float, int]:
    """Tokens a second without and with the store, and parameters; batches are there already, as processes ahead make
    them."""
    batch = Supply(Datastore.open(store), Plan(NAMES)).batch(0)
    shape = Shape(width=width, heads=width // 64, feed_forward=width * 8 // 3, layers=layers)
    model = RetrievalModel(shape)
    optimizer = Optimizer(model)
    tokens = torch.from_numpy(batch.tokens)
    found = {"a": Found(torch.from_numpy(batch.neighbours), torch.from_numpy(batch.scores))}

    def step(given: dict[str, Found]) -> None:
        reading = model(tokens, given, torch.bfloat16)
        (-reading.mixed(0.98).mean() - reading.own.mean()).backward()
        optimizer.step(0.5)

    speeds = [tokens[:, 1:].numel() / seconds(partial(step, given)) for given in ({}, found)]
    return speeds[0], speeds[1], sum(weight.numel() for weight in model.parameters())


def writing(store: Path) -> tuple[float, float, float]:
    """Tokens a second without and with five sources, and by how many milliseconds the first token comes later."""
    full = Datastore.open(store)
    shape = Shape()
    model = RetrievalLM(RetrievalModel(shape).eval(), weights.About(shape.as_dict(), full.tokenizer.digest, -1_000_000))
    prompt = full.tokenizer.decode(np.asarray(full.source("one").document(0)[:64]))
    firsts, rest = [], []
    for some in (full.only([]), full):
        first = seconds(partial(model.generate, prompt, store=some, tokens=1))
        whole = seconds(partial(model.generate, prompt, store=some, tokens=129))
        firsts.append(first)
        rest.append(128 / (whole - first))
    return rest[0], rest[1], 1000 * (firsts[1] - firsts[0])


def figures() -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        store = place(Path(folder))
        for width, layers in ((192, 3), (256, 4)):
            alone, with_store, parameters = training(store, width, layers)
            figure = {"name": f"retrieval: training with a store, {parameters / 1e6:.1f}M parameters, as a share of without"}
            compared = f"{with_store:,.0f} and {alone:,.0f} tokens a second"
            figure |= {"value": round(with_store / alone, 3), "unit": "", "goal": 0.8, "better": "higher"}
            found.append({**figure, "compared_with": compared})
        alone, with_store, later = writing(store)
        figure = {
            "name": "retrieval: writing with five sources, as a share of without",
            "value": round(with_store / alone, 3),
        }
        compared = f"{with_store:,.0f} and {alone:,.0f} tokens a second"
        found.append({**figure, "unit": "", "goal": 0.6, "better": "higher", "compared_with": compared})
        figure = {"name": "retrieval: the first token with five sources, later by", "value": round(later, 1), "unit": "ms"}
        found.append({**figure, "goal": 30.0, "better": "lower", "compared_with": "no source, after a prompt of 64 tokens"})
    return found


if __name__ == "__main__":
    for figure in figures():
        print(figure)
