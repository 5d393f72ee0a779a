"""Bits per byte of text that training never read, of the model as it ships and of what knows only how frequent words are."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from run import Tokens

if TYPE_CHECKING:
    from model import Loss, Model


def spans(tokens: int, context: int) -> Iterator[tuple[int, int, int]]:
    """How a document is scored: (start, end, first) says that tokens `start` to `end` - 1 are read, and that what those from
    `first` on predict is scored. Each token but the document's first is scored once, with at least half of `context` before
    it wherever the document has so many."""
    first = start = 0
    while first < tokens - 1:
        end = min(start + context, tokens - 1)
        yield start, end, first
        first, start = end, end - context // 2


def passages(tokens: Tokens, length: int = 12) -> npt.NDArray[np.uint64]:
    """A 64-bit hash of each passage of so many tokens, in turn."""
    found = np.zeros(max(0, len(tokens) - length + 1), np.uint64)
    for i in range(length):
        found = found * np.uint64(0x9E3779B97F4A7C15) + tokens[i : i + len(found)].astype(np.uint64) + np.uint64(1)
    return found ^ (found >> np.uint64(29))


def shared(tokens: Tokens, read: npt.NDArray[np.uint64]) -> float:
    """The share of a document's passages that are among the sorted `passages` of what was read."""
    mine = passages(tokens)
    if not len(mine) or not len(read):
        return 0.0
    at = np.minimum(np.searchsorted(read, mine), len(read) - 1)
    return float(np.mean(read[at] == mine))


def unigram_bits(read: Tokens, tokens: Tokens, vocabulary: int) -> float:
    """The bits in which the frequencies of the tokens in `read` (and one more of each) write a document's tokens after the
    first: what any model has to be better than."""
    counts = np.bincount(read, minlength=vocabulary) + 1
    return float(-np.log2(counts / counts.sum())[tokens[1:]].sum())


def exported(work: Path) -> tuple["Model", dict[str, Any]]:
    """The exported weights, rounded as they ship, in the model that training uses."""
    from model import Model, Shape, from_llama
    from safetensors.torch import load_file

    facts = json.loads((work / "export" / "facts.json").read_text(encoding="utf-8"))
    model = Model(Shape(**facts["shape"]))
    model.load_state_dict(from_llama(load_file(work / "export" / "hf" / "model.safetensors"), model.shape))
    return model, facts


def document_bits(loss: "Loss", tokens: np.ndarray, context: int, batch: int = 8) -> float:
    """The bits in which a model writes a document's tokens after the first, in float32."""
    import torch

    total = 0.0
    pieces = list(spans(len(tokens), context))
    for group in (pieces[i : i + batch] for i in range(0, len(pieces), batch)):
        rows = np.zeros((len(group), context + 1), np.int64)
        scored = np.zeros((len(group), context), bool)
        for i, (start, end, first) in enumerate(group):
            rows[i, : end - start + 1] = tokens[start : end + 1]
            scored[i, first - start : end - start] = True
        rows_ = torch.from_numpy(rows)
        nats = loss.surprise(rows_[:, :-1].contiguous(), rows_[:, 1:].contiguous(), torch.float32)
        total += nats[torch.from_numpy(scored)].double().sum().item()
    return total / math.log(2)
