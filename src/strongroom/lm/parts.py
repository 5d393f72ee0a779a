"""What is frozen before the first source comes: tokenizer, retriever and quantizer, from public text alone.

All sources of a store share them, and none of them changes them. That is why what a source brings, and what goes with it
when it is dropped, lies in its own folder and nowhere else.

    parts.json                 digests of the three, and how they are used
    tokenizer.json             lm.tokenizer
    retriever.safetensors      lm.retriever
    quantizer.safetensors      centres: float32[lists, dimensions]
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np

from strongroom.errors import BadManifest, DigestMismatch, EmptySource, NotAStore, StoreTruncated

from . import document
from .disk import small
from .document import Members
from .nearest import Quantizer
from .retriever import Retriever, TfIdf, chunked
from .sentences import Sentences
from .tokenizer import SIZE, Tokenizer

PURPOSE: Final = "strongroom.parts.v1"
CHUNK: Final = 64
"""Tokens of a chunk."""
NEIGHBOUR: Final = 128
"""Tokens of a neighbour at most: a chunk, and what follows it in its document."""
LISTS: Final = 1024
PROBES: Final = 16

FILES: Final = ("parts.json", "tokenizer.json", "retriever.safetensors", "quantizer.safetensors")
_RETRIEVERS: Final = {TfIdf.kind: TfIdf, Sentences.kind: Sentences}
_BATCH: Final = 16  # texts tokenized at once
_MAX_FILE: Final = 2 << 30
_CHUNKS_A_LIST: Final = 39  # fewer than that of public text for a list, and there are fewer lists


@dataclass(frozen=True)
class Parts:
    """The frozen parts of a store.

    Attributes:
        tokenizer, retriever, quantizer: as named.
        probes: how many of the quantizer's lists are searched for a query.
    """

    tokenizer: Tokenizer
    retriever: Retriever
    quantizer: Quantizer
    probes: int = PROBES

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        *,
        size: int = SIZE,
        lists: int = LISTS,
        probes: int = PROBES,
        retriever: str = TfIdf.kind,
        tokenizer: Tokenizer | None = None,
    ) -> Parts:
        """Learn them from public text.

        Args:
            texts: public text alone, iterated over more than once and held in memory: a sample is enough (10 to 100 MB).
            size: of the vocabulary, tokens.
            lists: of the quantizer; fewer where there is little text.
            probes: lists that are searched for a query, at most all.
            retriever: ``tfidf-svd``, or ``sentences``.
            tokenizer: one that is there already.

        Raises:
            EmptySource: there is none.
        """
        texts = [text for text in texts if text]
        if not texts:
            raise EmptySource("there is no public text to learn from")
        tokenizer = tokenizer or Tokenizer.train(texts, size)
        batches = (texts[at : at + _BATCH] for at in range(0, len(texts), _BATCH))  # the library's answers are large
        chunks = np.concatenate([chunked(tokenizer.encode_many(batch), CHUNK) for batch in batches])
        found: Retriever = TfIdf.train(chunks, tokenizer.size) if retriever == TfIdf.kind else Sentences.beside(tokenizer)
        few = max(1, min(lists, len(chunks) // _CHUNKS_A_LIST))
        sample = chunks[np.linspace(0, len(chunks) - 1, min(len(chunks), 64 * few)).astype(np.int64)]
        return cls(tokenizer, found, Quantizer.train(found.embed(sample), few), min(probes, few))

    @cached_property
    def encoded(self) -> bytes:
        return document.encode(
            {
                "chunk": CHUNK,
                "neighbour": NEIGHBOUR,
                "probes": self.probes,
                "purpose": PURPOSE,
                "quantizer": {"digest": self.quantizer.digest, "lists": self.quantizer.lists},
                "retriever": {
                    "digest": self.retriever.digest,
                    "dimensions": self.retriever.dimensions,
                    "kind": self.retriever.kind,
                },
                "tokenizer": {"digest": self.tokenizer.digest, "tokens": self.tokenizer.size},
            }
        )

    @cached_property
    def digest(self) -> str:
        """What manifests of sources name."""
        return document.digest(self.encoded)

    def save(self, folder: Path) -> None:
        """Write them into a folder that is made for them."""
        folder.mkdir(parents=True, exist_ok=True)
        contents = (self.encoded, self.tokenizer.data, self.retriever.encode(), self.quantizer.encode())
        for name, data in reversed(list(zip(FILES, contents, strict=True))):
            with (folder / name).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())

    @classmethod
    def load(cls, folder: Path) -> Parts:
        """Raises NotAStore, StoreTruncated, BadManifest, StoreVersion, DigestMismatch, MissingExtra."""
        try:
            head, *data = [_read(folder / name) for name in FILES]
        except FileNotFoundError as error:
            if error.filename and str(error.filename).endswith(FILES[0]):
                raise NotAStore("there are no frozen parts of a store") from None
            raise StoreTruncated("a frozen part of the store is not there") from None
        about = Members.parse(head, "parts.json", PURPOSE)
        if about.integer("chunk") != CHUNK or about.integer("neighbour") != NEIGHBOUR:
            raise BadManifest("parts.json: chunks are of another length than here")
        probes = about.integer("probes", 1)
        parts = [about.object(name) for name in ("tokenizer", "retriever", "quantizer")]
        about.end()
        kind = parts[1].take("kind", str)
        if kind not in _RETRIEVERS:
            raise BadManifest("parts.json: no retriever of that kind is known")
        for name, part, content in zip(FILES[1:], parts, data, strict=True):
            if part.digest("digest") != document.digest(content):
                raise DigestMismatch(f"{name} is not what parts.json promises")
        tokenizer = Tokenizer(data[0])
        retriever: Retriever = Sentences(data[1], tokenizer) if kind == Sentences.kind else TfIdf(data[1])
        found = cls(tokenizer, retriever, Quantizer(data[2]), probes)
        if found.encoded != head or found.quantizer.dimensions != retriever.dimensions or probes > found.quantizer.lists:
            raise BadManifest("parts.json does not fit what it describes")
        return found


def _read(path: Path) -> bytes:
    return small(path, document.MAX_BYTES if path.name == FILES[0] else _MAX_FILE)
