"""Small GGUF files with random weights and a real tokenizer: made by the tests that need them, in a second.

The tokenizer is byte-level BPE with merges of its own, so that a token can be a part of a character, and a chat template
with roles. Nothing that such a model says means anything; how it is said is what the tests look at.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message.role + '\\n' + (message.content or '') + '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
WORDS = "the of and to in is that it was for with as his on be at by had not are but from or have an they which one you were"


@dataclass(frozen=True)
class Shape:
    """A model's shape.

    Attributes:
        layers: how many.
        width: of the residual stream.
        heads: of attention, each of ``width / heads``.
        inner: width of the feed-forward layers.
        vocabulary: tokens; more than the tokenizer makes are filled up with tokens that no text has.
        context: tokens that it was made for.
    """

    layers: int = 2
    width: int = 64
    heads: int = 4
    inner: int = 128
    vocabulary: int = 512
    context: int = 512

    @property
    def parameters(self) -> int:
        return 2 * self.vocabulary * self.width + self.layers * (4 * self.width**2 + 3 * self.width * self.inner)


TINY = Shape()
MILLIONS_14 = Shape(layers=6, width=384, heads=6, inner=1024, vocabulary=8192, context=4096)
MILLIONS_50 = Shape(layers=10, width=576, heads=9, inner=1536, vocabulary=8192, context=4096)


@functools.cache
def _bytes_to_letters() -> dict[int, str]:
    """The letters that byte-level BPE writes bytes with: the printable ones as they are, the others from U+0100 on."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    return {b: chr(b) for b in plain} | {b: chr(256 + n) for n, b in enumerate(others)}


def tokenizer(size: int) -> tuple[list[str], list[int], list[str]]:
    """Tokens, their types and the merges of a tokenizer of ``size`` tokens."""
    letters = _bytes_to_letters()
    tokens = [*SPECIALS, *(letters[b] for b in range(256))]
    merges: list[str] = []
    known = set(tokens)
    for word in WORDS.split():
        left = letters[ord(" ")]
        for letter in word:
            if left + letter not in known:
                if len(tokens) >= size:
                    break
                merges.append(f"{left} {letter}")
                tokens.append(left + letter)
                known.add(left + letter)
            left += letter
    filled = [f"<unused{n}>" for n in range(size - len(tokens))]
    types = [gguf.TokenType.CONTROL] * len(SPECIALS) + [gguf.TokenType.NORMAL] * (len(tokens) - len(SPECIALS))
    return [*tokens, *filled], [int(t) for t in types] + [int(gguf.TokenType.UNUSED)] * len(filled), merges


def write(path: Path, shape: Shape = TINY, *, seed: int = 1, template: str | None = TEMPLATE, pooling: bool = False) -> Path:
    """Write a llama of this shape.

    Args:
        path: of the file.
        shape: how large.
        seed: of its weights.
        template: of chats; ``None`` for a model that has none.
        pooling: whether it says that its embeddings are the mean over tokens.
    """
    chance = np.random.default_rng(seed)
    out = gguf.GGUFWriter(path, "llama")
    out.add_name(f"random {shape.parameters}")
    out.add_context_length(shape.context)
    out.add_embedding_length(shape.width)
    out.add_block_count(shape.layers)
    out.add_feed_forward_length(shape.inner)
    out.add_head_count(shape.heads)
    out.add_head_count_kv(shape.heads)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_rope_dimension_count(shape.width // shape.heads)
    out.add_vocab_size(shape.vocabulary)
    out.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    tokens, types, merges = tokenizer(shape.vocabulary)
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("gpt-2")
    out.add_token_list(tokens)
    out.add_token_types(types)
    out.add_token_merges(merges)
    out.add_bos_token_id(0)
    out.add_eos_token_id(2)
    out.add_add_bos_token(False)
    if template is not None:
        out.add_chat_template(template)
    if pooling:
        out.add_pooling_type(gguf.PoolingType.MEAN)

    def matrix(rows: int, columns: int, scale: float = 0.02) -> np.ndarray:
        return (chance.standard_normal((rows, columns), dtype=np.float32) * scale).astype(np.float16)

    ones = np.ones(shape.width, dtype=np.float32)
    out.add_tensor("token_embd.weight", matrix(shape.vocabulary, shape.width, 1.0))
    for n in range(shape.layers):
        out.add_tensor(f"blk.{n}.attn_norm.weight", ones)
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            out.add_tensor(f"blk.{n}.{name}.weight", matrix(shape.width, shape.width, 0.1))
        out.add_tensor(f"blk.{n}.ffn_norm.weight", ones)
        for name in ("ffn_gate", "ffn_up"):
            out.add_tensor(f"blk.{n}.{name}.weight", matrix(shape.inner, shape.width, 0.1))
        out.add_tensor(f"blk.{n}.ffn_down.weight", matrix(shape.width, shape.inner, 0.1))
    out.add_tensor("output_norm.weight", ones)
    out.add_tensor("output.weight", matrix(shape.vocabulary, shape.width, 0.1))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path
