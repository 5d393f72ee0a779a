"""Retrievers beside each other: how much of what comes next stands in the neighbours that they find, and how fast.

A question is a passage of an owner's source; asked for are passages of other documents of that source. Counted is the share
of the runs of four tokens in the *next* passage that stand in one of the four neighbours or in what follows them. The
retrievers have seen public text alone (the sentence model: whatever it was trained on). Speed is in the processor's
seconds, one thread.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.update({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"})
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from datastore import texts

from strongroom.errors import MissingExtra
from strongroom.lm.bm25 import Bm25
from strongroom.lm.retriever import TfIdf, chunked
from strongroom.lm.sentences import Sentences
from strongroom.lm.tokenizer import PAD, Tokenizer

SLOW = True
LIMIT_SECONDS = 1800
PASSAGES, QUESTIONS, NEIGHBOURS, RUN = 6000, 400, 4, 4


def runs(tokens: Any) -> set[tuple[int, ...]]:
    found = [int(token) for token in tokens if token != PAD]
    return {tuple(found[at : at + RUN]) for at in range(len(found) - RUN + 1)}


class Case:
    """Passages of a source, and questions to them."""

    def __init__(self, tokenizer: Tokenizer, documents: list[str]) -> None:
        chunks, owners = [], []
        for number, tokens in enumerate(tokenizer.encode_many(documents)):
            rows = chunked([tokens], 64)
            chunks.append(rows)
            owners += [number] * len(rows)
        self.chunks = np.concatenate(chunks)[:PASSAGES]
        self.owners = np.asarray(owners)[:PASSAGES]
        follows = np.flatnonzero(self.owners[1:] == self.owners[:-1])
        self.asked = follows[np.linspace(0, len(follows) - 1, QUESTIONS).astype(int)]

    def share(self, nearest: Any) -> float:
        """Of what comes next, how much stands in the neighbours, in percent."""
        shares = []
        for question, row in zip(self.asked, nearest, strict=True):
            wanted = runs(self.chunks[question + 1])
            found: set[tuple[int, ...]] = set()
            others = [p for p in row if self.owners[p] != self.owners[question]][:NEIGHBOURS]
            for passage in others:
                after = min(passage + 1, len(self.chunks) - 1)
                after = after if self.owners[after] == self.owners[passage] else passage
                found |= runs(np.concatenate([self.chunks[passage], self.chunks[after]]))
            shares.append(len(wanted & found) / max(1, len(wanted)))
        return 100 * float(np.mean(shares))

    def by_vectors(self, embed: Callable[[Any], Any]) -> tuple[float, float]:
        began = time.process_time()
        vectors = embed(self.chunks)
        took = time.process_time() - began
        order = np.argsort(-(vectors[self.asked] @ vectors.T), axis=1, kind="stable")
        return self.share(order[:, :400]), len(self.chunks) * 64 / took

    def by_words(self, size: int) -> tuple[float, float]:
        began = time.process_time()
        bm25 = Bm25(self.chunks, size)
        took = time.process_time() - began
        return self.share(bm25.nearest(self.chunks[self.asked], 400).passages), len(self.chunks) * 64 / took


def figures() -> list[dict[str, Any]]:
    public = texts("encyclopedia", 4_000_000)
    tokenizer = Tokenizer.train(public)
    seen = chunked(tokenizer.encode_many(public), 64)
    alone, pairs = TfIdf.train(seen, tokenizer.size, features=0), TfIdf.train(seen, tokenizer.size)
    ways: dict[str, Callable[[Case], tuple[float, float]]] = {
        "TF-IDF of tokens, 128": lambda case: case.by_vectors(alone.embed),
        "TF-IDF of tokens and pairs, 128 (default)": lambda case: case.by_vectors(pairs.embed),
        "BM25": lambda case: case.by_words(tokenizer.size),
    }
    try:
        sentences = Sentences.beside(tokenizer)
        ways["sentence embeddings, 384"] = lambda case: case.by_vectors(sentences.embed)
    except MissingExtra as error:  # the others are measured
        print(error, file=sys.stderr)
    found = []
    for name in ("law", "biology"):
        case = Case(tokenizer, texts(name, 1_500_000))
        drawn = np.random.default_rng(0).integers(0, len(case.chunks), (len(case.asked), 50))
        by_chance = case.share(drawn)
        beside = (
            f"runs of {RUN} tokens of the next passage that stand in {NEIGHBOURS} neighbours; in drawn ones {by_chance:.1f}"
        )
        for way, ask in ways.items():
            share, speed = ask(case)
            found.append(_figure(f"retrievers: {name}, {way}", round(share, 2), "%", beside))
            if name == "law":
                beside_speed = "made findable, of the processor's seconds"
                found.append(_figure(f"retrievers: {way}", round(speed, -2), "tokens a second", beside_speed))
    return found


def _figure(name: str, value: float, unit: str, beside: str) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": unit, "goal": None, "better": "higher", "compared_with": beside}


if __name__ == "__main__":
    for one in figures():
        print(json.dumps(one))
