"""What a store costs a model: tokens a second while training and writing, with and without, in turns; and what a training
waits for its neighbours. Times of the processor, one thread, but for waiting, which is the clock's.

The model is the one that ships; text is that which lies beside the project, where it does, else made of drawn words.

What a store is worth to a model, in bits a byte, needs corpora and an hour: ``training/retrieval.py`` measures that, and
``retrieval_quality.json`` beside this file keeps what it found.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.update({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"})
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import torch
from datastore import texts

from strongroom.lm import training as course
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
ROUNDS = 7
STEPS = 12
TRAINED = 4  # neighbours while training, as `strongroom lm train` has it; the shipped model reads more
NAMES = ("law", "biology", "books", "encyclopedia", "drawn")  # of the last there is no corpus
PUBLIC = ("books", "encyclopedia")


def place(folder: Path) -> Path:
    """A store of five sources with the parts that ship."""
    store = folder / "store"
    Datastore.create(store, Parts.load(weights.shipped().parent / "parts"))
    for name in NAMES:
        lines = "".join(json.dumps({"id": str(i), "text": text}) + "\n" for i, text in enumerate(texts(name, 2_000_000)))
        (folder / f"{name}.jsonl").write_text(lines)
        build(store, About(name, "nobody", "CC0-1.0"), Texts.of([folder / f"{name}.jsonl"]))
    return store


def seconds(ways: list[Callable[[], object]], rounds: int = ROUNDS) -> list[float]:
    """The median of the processor's time for each, in turns, after one round that is not counted."""
    times: list[list[float]] = [[] for _ in ways]
    for _ in range(rounds + 1):
        for number, what in enumerate(ways):
            began = time.process_time()
            what()
            times[number].append(time.process_time() - began)
    return [statistics.median(found[1:]) for found in times]


def training(store: Path, shape: Shape) -> tuple[float, float, int]:
    """Tokens a second without and with the store, and parameters; batches are there already, as processes ahead make
    them."""
    batch = Supply(Datastore.open(store), Plan(PUBLIC, every=shape.every, neighbours=shape.neighbours)).batch(0)
    tokens = torch.from_numpy(batch.tokens)
    found = {"a": Found(torch.from_numpy(batch.neighbours), torch.from_numpy(batch.scores))}
    models = [RetrievalModel(shape) for _ in range(2)]
    optimizers = [Optimizer(model) for model in models]

    def step(number: int, given: dict[str, Found]) -> None:
        reading = models[number](tokens, given, torch.bfloat16)
        loss = -reading.own.mean()
        (loss - reading.mixed(0.98).mean() if given else loss).backward()
        optimizers[number].step(0.5)

    took = seconds([partial(step, 0, {}), partial(step, 1, found)])
    speeds = [tokens[:, 1:].numel() / one for one in took]
    return speeds[0], speeds[1], sum(weight.numel() for weight in models[0].parameters())


def waiting(store: Path, shape: Shape) -> float:
    """The share of its time that a training waits for batches, once it is under way: one process trains, one searches."""
    said: list[course.Said] = []
    plan = Plan(PUBLIC, every=shape.every, neighbours=shape.neighbours)
    with tempfile.TemporaryDirectory() as folder:
        course.train(Path(folder), store, shape, plan, course.Settings(STEPS), said=said.append, often=STEPS // 2)
    return said[-1].waited


def writing(store: Path) -> tuple[float, float, float]:
    """Tokens a second without and with five sources, and by how many milliseconds the first token comes later."""
    full = Datastore.open(store)
    model = RetrievalLM.load(weights.shipped())
    prompt = full.tokenizer.decode(np.asarray(full.source("law").document(0)[:64]))
    some = (full.only([]), full)
    first = seconds([partial(model.generate, prompt, store=one, tokens=1) for one in some])
    whole = seconds([partial(model.generate, prompt, store=one, tokens=129) for one in some])
    alone, beside = (128 / (all_ - one) for all_, one in zip(whole, first, strict=True))
    return alone, beside, 1000 * (first[1] - first[0])


def figures() -> list[dict[str, Any]]:
    def figure(name: str, value: float, unit: str, goal: float, better: str, beside: str) -> dict[str, Any]:
        return {"name": name, "value": value, "unit": unit, "goal": goal, "better": better, "compared_with": beside}

    torch.set_num_threads(1)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        store = place(Path(folder))
        small = Shape(neighbours=TRAINED)
        for shape in (small, Shape(width=256, heads=4, feed_forward=683, layers=4, neighbours=TRAINED)):
            alone, with_store, parameters = training(store, shape)
            name = f"training with a store, {parameters / 1e6:.1f}M parameters, as a share of without"
            said = f"{with_store:,.0f} and {alone:,.0f} tokens a second, {shape.neighbours} neighbours, in turns"
            found.append(figure(name, round(with_store / alone, 3), "", 0.8, "higher", said))
        said = "of a training's time; one process searches ahead"
        found.append(
            figure("training, waiting for neighbours", round(100 * waiting(store, small), 2), "%", 2, "lower", said)
        )
        alone, with_store, later = writing(store)
        said = f"{with_store:,.0f} and {alone:,.0f} tokens a second, in turns"
        share = round(with_store / alone, 3)
        found.append(figure("writing with five sources, as a share of without", share, "", 0.6, "higher", said))
        said = "no source, after a prompt of 64 tokens, in turns"
        found.append(figure("the first token with five sources, later by", round(later, 1), "ms", 30, "lower", said))
    return found


if __name__ == "__main__":
    for one in figures():
        print(json.dumps(one))
