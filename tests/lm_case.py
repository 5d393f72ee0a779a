"""Small stores for tests: text made of a few words, frozen parts that are learned of it once a session, sources."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from strongroom.lm.build import build
from strongroom.lm.datastore import Datastore
from strongroom.lm.parts import Parts
from strongroom.lm.source import About, Manifest, Price
from strongroom.lm.texts import Texts

WORDS = {
    "public": "the a of to and in on house river walks holds small old stone bright under over garden letter said came went",
    "law": "the a of to and in shall Council mayor section permit tax board hearing within days notice property subsection",
    "cells": "the a of to and in cell membrane protein gene plant water light energy molecule tissue enzyme divides carries",
}


def texts(kind: str, documents: int, *, words: int = 200, seed: int = 0) -> list[str]:
    """Documents of one kind, each of as many words."""
    draw = random.Random(f"{kind} {seed}")
    some = WORDS[kind].split()
    return [" ".join(draw.choices(some, k=words)) + "." for _ in range(documents)]


@cache
def parts() -> Parts:
    """Frozen parts, learned of public text alone."""
    return Parts.train(texts("public", 60), size=400, lists=8, probes=3)


def lines(path: Path, documents: Sequence[str], *, name: str = "d") -> Path:
    """A file of JSON lines."""
    path.write_text("".join(json.dumps({"id": f"{name}{i}", "text": t}) + "\n" for i, t in enumerate(documents)))
    return path


def about(name: str, **more: object) -> About:
    return About(name, f"owner of {name}", "CC-BY-4.0", Price(25, "EUR-micro"), **more)  # type: ignore[arg-type]


def store(path: Path) -> Path:
    """An empty store."""
    Datastore.create(path, parts())
    return path


def source(place: Path, name: str, *, documents: int = 12, seed: int = 0, run: int = 64) -> Manifest:
    """Build a source of a kind into a store."""
    file = place.parent / f"{name}-{seed}.jsonl"
    lines(file, texts(name if name in WORDS else "public", documents, seed=seed), name=name)
    return build(place, about(name), Texts.of([file]), run=run)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, with its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
