"""The embedded model as it is trained, and its optimizer.

The function is that of Hugging Face's LlamaForCausalLM, with q, k and v in one matrix and gate and up in another, weights in
float32 and products in bfloat16.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - as everyone writes it

BF16 = torch.bfloat16
_NAMES = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "out": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
    "norm1": ("input_layernorm",),
    "norm2": ("post_attention_layernorm",),
}


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes as Hugging Face's LlamaConfig names them, shorter. `context` is the longest that training has seen."""

    vocabulary: int = 8192
    width: int = 384
    heads: int = 6
    feed_forward: int = 1024
    layers: int = 4
    context: int = 1024
    rope_base: float = 10_000.0
    epsilon: float = 1e-5

    @property
    def head(self) -> int:
        return self.width // self.heads

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def llama(weights: Mapping[str, Tensor], shape: Shape) -> dict[str, Tensor]:
    """The weights under the names of Hugging Face's LlamaForCausalLM, which holds q, k, v, gate and up by themselves."""
    named = {"model.embed_tokens.weight": weights["embedding.weight"], "model.norm.weight": weights["norm.weight"]}
    for i in range(shape.layers):
        mine, theirs = f"layers.{i}.", f"model.layers.{i}."
        for old, new in _NAMES.items():
            parts = weights[f"{mine}{old}.weight"].chunk(len(new))
            named |= {f"{theirs}{name}.weight": part.contiguous() for name, part in zip(new, parts, strict=True)}
    return named


def from_llama(named: Mapping[str, Tensor], shape: Shape) -> dict[str, Tensor]:
    """The inverse of `llama`."""
    weights = {"embedding.weight": named["model.embed_tokens.weight"], "norm.weight": named["model.norm.weight"]}
    for i in range(shape.layers):
        for old, new in _NAMES.items():
            weights[f"layers.{i}.{old}.weight"] = torch.cat([named[f"model.layers.{i}.{name}.weight"] for name in new])
    return weights


class Norm(nn.Module):
    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        y = x.float()
        return (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.epsilon) * self.weight).to(x.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding by halves, as transformers does it (llama.cpp pairs neighbours; `export` permutes)."""
    a, b = x.float().chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1).to(x.dtype)


class _Attention(torch.autograd.Function):
    """Causal attention of q, k and v (batch, heads, time, head): forward by torch's fused kernel, backward by five products,
    which on a CPU takes half the time of that kernel's own."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        out, logsumexp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, True)  # noqa: SLF001 - it gives the sums that the backward pass needs
        ctx.save_for_backward(q, k, v, out, logsumexp, bias)
        return out

    @staticmethod
    def backward(ctx: Any, by_out: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        batch, heads, time, head = by_out.shape
        *saved, bias = ctx.saved_tensors
        q, k, v, out, logsumexp, by_out = (x.reshape(batch * heads, time, -1) for x in (*saved, by_out))
        scale = head**-0.5
        p = torch.exp(torch.bmm(q, k.mT).float() * scale + bias - logsumexp).to(q.dtype)
        by_v = torch.bmm(p.mT, by_out)
        mean = (by_out.float() * out.float()).sum(-1, keepdim=True)
        by_score = (p.float() * (torch.bmm(by_out, v.mT).float() - mean)).to(q.dtype)
        by_q, by_k = torch.bmm(by_score, k) * scale, torch.bmm(by_score.mT, q) * scale
        return *(x.view(batch, heads, time, head) for x in (by_q, by_k, by_v)), None


class Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self.heads = shape.heads
        self.norm1, self.norm2 = Norm(width, shape.epsilon), Norm(width, shape.epsilon)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.gate_up = nn.Linear(width, 2 * shape.feed_forward, bias=False)
        self.down = nn.Linear(shape.feed_forward, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, bias: Tensor | None) -> Tensor:
        batch, time, width = x.shape
        qkv = F.linear(self.norm1(x), self.qkv.weight.to(x.dtype))
        q, k, v = qkv.view(batch, time, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True) if bias is None else _Attention.apply(q, k, v, bias)
        x = x + F.linear(y.transpose(1, 2).reshape(batch, time, width), self.out.weight.to(x.dtype))
        gate, up = F.linear(self.norm2(x), self.gate_up.weight.to(x.dtype)).chunk(2, -1)
        return x + F.linear(F.silu(gate) * up, self.down.weight.to(x.dtype))


class Model(nn.Module):
    def __init__(self, shape: Shape, seed: int = 0) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = Norm(shape.width, shape.epsilon)
        angles = torch.arange(shape.context)[:, None] * shape.rope_base ** (-torch.arange(0, shape.head, 2) / shape.head)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        self.register_buffer("bias", torch.full((shape.context, shape.context), -torch.inf).triu_(1), persistent=False)
        generator = torch.Generator().manual_seed(seed)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                std = (
                    0.02
                    if name.startswith("embedding")
                    else 0.0
                    if ".out." in name or ".down." in name
                    else weight.shape[1] ** -0.5
                )
                nn.init.normal_(weight, std=std, generator=generator)

    def hidden(self, tokens: Tensor, dtype: torch.dtype = BF16) -> Tensor:
        """Tokens (batch, time) to what the vocabulary is read from (batch, time, width)."""
        x = self.embedding(tokens).to(dtype)
        time = tokens.shape[1]
        cos, sin = self.cos[:time], self.sin[:time]
        bias = self.bias[:time, :time] if torch.is_grad_enabled() and tokens.device.type == "cpu" else None
        for layer in self.layers:
            x = layer(x, cos, sin, bias)
        return self.norm(x)

    def logits(self, tokens: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        return F.linear(self.hidden(tokens, dtype), self.embedding.weight.to(dtype))


def _surprise(hidden: Tensor, table: Tensor, targets: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """The sum of the targets' surprise in nats, and `scale` times its gradients by `hidden` and by `table`."""
    logits = (hidden @ table.T).float()
    total = torch.logsumexp(logits, -1, keepdim=True)
    loss = (total.squeeze(-1) - logits.gather(-1, targets[:, None]).squeeze(-1)).sum()
    one_hot = torch.arange(table.shape[0], device=targets.device)[None, :] == targets[:, None]
    by_logits = (((logits - total).exp() - one_hot.float()) * scale).to(hidden.dtype)
    return loss, by_logits @ table, by_logits.T @ hidden


class _Loss(torch.autograd.Function):
    """Cross-entropy over the vocabulary by blocks of positions, whose logits stay in the cache."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, how: tuple[int, Callable[..., Any]]) -> Tensor:
        block, surprise = how
        table, scale = weight.to(hidden.dtype), 1 / targets.numel()
        by_hidden, by_weight, loss = (
            torch.empty_like(hidden),
            torch.zeros_like(weight),
            torch.zeros((), device=hidden.device),
        )
        for i in range(0, targets.numel(), block):
            part, by_hidden[i : i + block], by_table = surprise(hidden[i : i + block], table, targets[i : i + block], scale)
            by_weight += by_table
            loss += part
        ctx.save_for_backward(by_hidden, by_weight)
        return loss * scale

    @staticmethod
    def backward(ctx: Any, by_loss: Tensor) -> tuple[Tensor, Tensor, None, None]:
        by_hidden, by_weight = ctx.saved_tensors
        return by_hidden * by_loss.to(by_hidden.dtype), by_weight * by_loss, None, None


class Loss:
    """What a model makes of tokens and their targets, compiled or not."""

    def __init__(self, model: Model, *, compiled: bool = True, block: int | None = None) -> None:
        self.model = model
        self.block = block or (512 if model.cos.device.type == "cpu" else 16_384)
        self._hidden = torch.compile(model.hidden, dynamic=False) if compiled else model.hidden
        self._surprise = torch.compile(_surprise, dynamic=False) if compiled else _surprise

    def __call__(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """The mean cross-entropy in nats a token; to train with. Both (batch, time)."""
        hidden = self._hidden(tokens).flatten(0, 1)
        return _Loss.apply(hidden, self.model.embedding.weight, targets.flatten(), (self.block, self._surprise))  # type: ignore[no-any-return]

    @torch.no_grad()
    def surprise(self, tokens: Tensor, targets: Tensor, dtype: torch.dtype = BF16) -> Tensor:
        """Nats by token (batch, time); to measure with."""
        hidden = self._hidden(tokens) if dtype == BF16 else self.model.hidden(tokens, dtype)
        logits = F.linear(hidden, self.model.embedding.weight.to(dtype)).float()
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)


# --- the optimizer -----------------------------------------------------------------------------------------------------


def orthogonal(x: Tensor, steps: int = 5) -> Tensor:
    """Newton-Schulz iterations towards the nearest orthogonal matrix, in bfloat16 (Jordan and others 2024, Muon)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = x.shape[0] > x.shape[1]
    x = (x.T if tall else x) / (x.norm() + 1e-7)
    x = x.to(BF16)
    for _ in range(steps):
        s = x @ x.T
        x = torch.addmm(x, torch.addmm(s, s, s, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


class Optimizer:
    """Muon for the layers' matrices (each of q, k, v, gate and up by itself) and AdamW for the embedding and the norms."""

    def __init__(self, model: Model, *, matrix_rate: float = 0.02, vector_rate: float = 0.004, decay: float = 0.1) -> None:
        self.matrix_rate, self.vector_rate, self.decay = matrix_rate, vector_rate, decay
        self.matrices = {n: p for n, p in model.named_parameters() if n.startswith("layers") and p.dim() == 2}
        self.vectors = {n: p for n, p in model.named_parameters() if n not in self.matrices}
        self.momentum = {n: torch.zeros_like(p) for n, p in self.matrices.items()}
        self.first = {n: torch.zeros_like(p) for n, p in self.vectors.items()}
        self.second = {n: torch.zeros_like(p) for n, p in self.vectors.items()}
        self.steps = 0

    def state(self) -> dict[str, Any]:
        return {"momentum": self.momentum, "first": self.first, "second": self.second, "steps": self.steps}

    def load(self, state: dict[str, Any]) -> None:
        for mine, theirs in (
            (self.momentum, state["momentum"]),
            (self.first, state["first"]),
            (self.second, state["second"]),
        ):
            for name, tensor in mine.items():
                tensor.copy_(theirs[name])
        self.steps = state["steps"]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One update at `rate` (0 to 1) times the peak learning rates; gradients are used up."""
        self.steps += 1
        for name, weight in self.matrices.items():
            momentum = self.momentum[name].lerp_(weight.grad, 0.05)
            update = weight.grad.lerp_(momentum, 0.95)
            weight.mul_(1 - rate * self.matrix_rate * self.decay)
            for piece, target in zip(_pieces(name, update), _pieces(name, weight), strict=True):
                size = max(1.0, piece.shape[0] / piece.shape[1]) ** 0.5
                target.add_(orthogonal(piece), alpha=-rate * self.matrix_rate * size)
            weight.grad = None
        b1, b2 = 0.9, 0.95
        for name, weight in self.vectors.items():
            first, second = (
                self.first[name].lerp_(weight.grad, 1 - b1),
                self.second[name].lerp_(weight.grad.square(), 1 - b2),
            )
            scale = (second / (1 - b2**self.steps)).sqrt_().add_(1e-10)
            weight.addcdiv_(first, scale, value=-rate * self.vector_rate / (1 - b1**self.steps))
            weight.grad = None


def _pieces(name: str, matrix: Tensor) -> Iterator[Tensor]:
    yield from matrix.chunk(3 if ".qkv." in name else 2 if ".gate_up." in name else 1)
