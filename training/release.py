"""The embedded model as files that others load: GGUF for llama.cpp, a folder for transformers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import text

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

KINDS = ("f32", "f16", "q8_0")
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + (message['role'] if message['role'] in ['user', 'assistant'] else 'system') + '|>' + "
    "message['content'] | trim + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def as_stored(weights: Mapping[str, "torch.Tensor"], kind: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Each weight as the file will hold it, and the numbers that this stands for; vectors stay in float32."""
    import gguf

    to = gguf.GGMLQuantizationType[kind.upper()]
    stored = {
        n: w.float().numpy() if w.dim() == 1 else gguf.quants.quantize(w.float().numpy(), to) for n, w in weights.items()
    }
    numbers = {n: s if weights[n].dim() == 1 else gguf.quants.dequantize(s, to) for n, s in stored.items()}
    return stored, numbers


def interleaved(rows: np.ndarray, heads: int) -> np.ndarray:
    """The rows of a head's first and second half in turn: llama.cpp rotates neighbours, transformers halves."""
    return rows.reshape(heads, 2, -1, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape)


_GGUF_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def gguf_name(name: str) -> str:
    """The name in a GGUF file of a weight of LlamaForCausalLM."""
    outer = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    if name in outer:
        return outer[name]
    layer, inner = name.removeprefix("model.layers.").removesuffix(".weight").split(".", 1)
    return f"blk.{layer}.{_GGUF_NAMES[inner]}.weight"


def write_gguf(
    path: Path, stored: Mapping[str, np.ndarray], shape: Mapping[str, Any], tokenizer: "Tokenizer", kind: str
) -> None:
    import gguf

    quantized = gguf.GGMLQuantizationType[kind.upper()]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("Strongroom embedded")
    writer.add_description(
        "A small language model that shows the system. It writes like old novels and knows nothing reliably."
    )
    writer.add_license("apache-2.0")
    writer.add_file_type(gguf.LlamaFileType["ALL_F32" if kind == "f32" else f"MOSTLY_{kind.upper()}"])
    writer.add_vocab_size(shape["vocabulary"])
    writer.add_context_length(shape["context"])
    writer.add_embedding_length(shape["width"])
    writer.add_block_count(shape["layers"])
    writer.add_feed_forward_length(shape["feed_forward"])
    writer.add_head_count(shape["heads"])
    writer.add_head_count_kv(shape["heads"])
    writer.add_rope_dimension_count(shape["width"] // shape["heads"])
    writer.add_rope_freq_base(shape["rope_base"])
    writer.add_layer_norm_rms_eps(shape["epsilon"])
    size = tokenizer.get_vocab_size()
    special = {tokenizer.token_to_id(name) for name in text.SPECIAL}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([tokenizer.id_to_token(i) for i in range(size)])
    writer.add_token_types([gguf.TokenType.CONTROL if i in special else gguf.TokenType.NORMAL for i in range(size)])
    writer.add_token_merges([" ".join(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]])
    writer.add_bos_token_id(tokenizer.token_to_id(text.BEGIN))
    writer.add_eos_token_id(tokenizer.token_to_id(text.END))
    writer.add_add_bos_token(True)
    writer.add_chat_template(TEMPLATE)
    for name, array in stored.items():
        turned = interleaved(array, shape["heads"]) if name.endswith(("q_proj.weight", "k_proj.weight")) else array
        writer.add_tensor(gguf_name(name), np.ascontiguousarray(turned), raw_dtype=quantized if array.ndim == 2 else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_folder(folder: Path, numbers: Mapping[str, np.ndarray], shape: Mapping[str, Any], tokenizer: "Tokenizer") -> None:
    """The folder that transformers loads, with the numbers that the GGUF file stands for."""
    import torch
    from tokenizers.processors import TemplateProcessing
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    begin, end = (tokenizer.token_to_id(name) for name in (text.BEGIN, text.END))
    config = LlamaConfig(
        vocab_size=shape["vocabulary"],
        hidden_size=shape["width"],
        intermediate_size=shape["feed_forward"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        num_key_value_heads=shape["heads"],
        max_position_embeddings=shape["context"],
        rms_norm_eps=shape["epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": shape["rope_base"]},
        tie_word_embeddings=True,
        bos_token_id=begin,
        eos_token_id=end,
        pad_token_id=end,
    )
    whole = LlamaForCausalLM(config)
    missing = whole.load_state_dict({name: torch.from_numpy(array) for name, array in numbers.items()}, strict=False)
    if missing.unexpected_keys or set(missing.missing_keys) - {"lm_head.weight"}:
        raise ValueError(f"not the weights of this architecture: {missing}")
    whole.tie_weights()
    whole.save_pretrained(folder)
    tokenizer.post_processor = TemplateProcessing(single=f"{text.BEGIN} $A", special_tokens=[(text.BEGIN, begin)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=text.BEGIN,
        eos_token=text.END,
        pad_token=text.END,
        additional_special_tokens=[text.SYSTEM, text.USER, text.ASSISTANT],
        model_max_length=shape["context"],
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
