"""Text to tokens: byte-level BPE (the ``tokenizers`` library), trained on public text alone, and frozen.

Every text has tokens, and the tokens give the text again, byte for byte. Nothing in a text is ever a special token: the two
that there are (``PAD``, ``END``) come from no text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from strongroom.errors import BadManifest, MissingExtra

Tokens: TypeAlias = NDArray[np.uint16]

SIZE: Final = 4096
PAD: Final = 0
"""Fills up what is shorter than its row; in no text."""
END: Final = 1
"""Between two documents; in no text, and in no store."""
MAX_SIZE: Final = 1 << 16  # a token is 16 bits

_SPECIAL: Final = ("<pad>", "<end>")
_CACHE: Final = 1 << 18  # words whose tokens are remembered


def library() -> Any:
    """The ``tokenizers`` library. Raises MissingExtra."""
    try:
        import tokenizers  # noqa: PLC0415 - loaded when it is used
    except ImportError:
        raise MissingExtra("a tokenizer needs the library tokenizers", hint="pip install 'strongroom[lm]'") from None
    return tokenizers


def _plain(value: Any) -> bool:
    """Whether it does nothing but cut a text into words of bytes, and merge those."""
    try:
        return _as_trained(value)
    except (AttributeError, KeyError, TypeError):
        return False


def _as_trained(value: Any) -> bool:
    added = [(one["id"], one["content"], one["normalized"]) for one in value["added_tokens"]]
    steps = ("normalizer", "post_processor", "truncation", "padding")
    cut, back, model = value["pre_tokenizer"] or {}, value["decoder"] or {}, value["model"]
    return (
        added == [(number, name, False) for number, name in enumerate(_SPECIAL)]
        and all(value[step] is None for step in steps)
        and (cut.get("type"), cut.get("add_prefix_space"), cut.get("use_regex")) == ("ByteLevel", False, True)
        and back.get("type") == "ByteLevel"
        and model["type"] == "BPE"
        and not any(model[name] for name in ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"))
        and all(model["vocab"].get(name) == number for number, name in enumerate(_SPECIAL))
    )


class Tokenizer:
    """A frozen byte-level BPE.

    Args:
        data: its file, as :meth:`train` made it: JSON of the ``tokenizers`` library.

    Raises:
        BadManifest: no tokenizer, or none of this kind. MissingExtra.
    """

    def __init__(self, data: bytes) -> None:
        lib = library()
        try:
            self._inner = lib.Tokenizer.from_str(data.decode("utf-8"))
        except Exception as error:  # the library raises nothing more precise
            raise BadManifest("the tokenizer cannot be read") from error
        self.size: int = self._inner.get_vocab_size()
        if not _plain(json.loads(data)) or self.size > MAX_SIZE:
            raise BadManifest("the tokenizer is no plain byte-level BPE with tokens for padding and for an end")
        self._inner.encode_special_tokens = True  # what a text says is text
        self._inner.model._resize_cache(_CACHE)  # noqa: SLF001 - the library's own name for it
        self.data = data
        self.digest = f"sha256:{hashlib.sha256(data).hexdigest()}"

    @classmethod
    def train(cls, texts: Iterable[str], size: int = SIZE) -> Tokenizer:
        """Learn a vocabulary.

        Args:
            texts: public text alone; what stands in a vocabulary can be read in it.
            size: of the vocabulary, 258 to 65,536: the two special tokens, the 256 bytes, and what is merged of them.
        """
        lib = library()
        if not 258 <= size <= MAX_SIZE:
            raise ValueError("a vocabulary has 258 to 65,536 tokens")
        inner = lib.Tokenizer(lib.models.BPE())
        inner.pre_tokenizer = lib.pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = lib.decoders.ByteLevel()
        alphabet = lib.pre_tokenizers.ByteLevel.alphabet()
        trainer = lib.trainers.BpeTrainer(
            vocab_size=size, special_tokens=list(_SPECIAL), initial_alphabet=sorted(alphabet), show_progress=False
        )
        inner.train_from_iterator(texts, trainer)
        return cls(inner.to_str().encode("utf-8"))

    @classmethod
    def load(cls, path: Path | str) -> Tokenizer:
        """Raises BadManifest, MissingExtra; OSError where it cannot be read."""
        return cls(Path(path).read_bytes())

    def save(self, path: Path | str) -> None:
        Path(path).write_bytes(self.data)

    def encode(self, text: str) -> Tokens:
        """The tokens of a text; ``uint16[tokens]``."""
        return self.encode_many([text])[0]

    def encode_many(self, texts: Sequence[str]) -> list[Tokens]:
        """The tokens of each text."""
        return [np.asarray(found.ids, np.uint16) for found in self._inner.encode_batch_fast(texts, add_special_tokens=False)]

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of some tokens; half a character at either end is shown as U+FFFD. Special tokens give nothing."""
        return str(self._inner.decode([int(token) for token in tokens if token > END], skip_special_tokens=True))

    @cached_property
    def byte_lengths(self) -> NDArray[np.int64]:
        """How many bytes of UTF-8 each token stands for; ``int64[size]``, 0 for special ones."""
        # The library writes each byte as one character.
        lengths = [len(self._inner.id_to_token(token)) for token in range(self.size)]
        return np.asarray([0, 0, *lengths[2:]], np.int64)
