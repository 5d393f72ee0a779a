"""Steps of a training: matrices of the decoder's layers by orthogonal steps (Muon), everything else by Adam's.

Sources: Jordan and others 2024, "Muon"; Loshchilov and Hutter 2019 (arXiv:1711.05101); learning rates that rise, stay and
fall, Wen and others 2024 (arXiv:2410.05192).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

_RATES: Final = {"matrix": 0.02, "vector": 0.004, "gates": 0.002}
_DECAY: Final = 0.1
_FIRST, _SECOND = 0.9, 0.95


@dataclass(frozen=True, slots=True)
class Schedule:
    """The learning rate of a step as a share of its peak: up in ``warm`` steps, and down to zero in the last ``down`` of
    them.

    Attributes:
        steps: all of them.
        warm: steps.
        down: parts in a thousand of all steps.
    """

    steps: int
    warm: int = 100
    down: int = 400

    def rate(self, step: int) -> float:
        falling = max(1, self.steps * self.down // 1000)
        return min(1.0, (step + 1) / (min(self.warm, self.steps // 4) + 1)) * min(1.0, (self.steps - step) / falling)


def orthogonal(x: Tensor, steps: int = 5) -> Tensor:
    """Newton-Schulz iterations towards the nearest orthogonal matrix, in ``bfloat16``."""
    tall = x.shape[0] > x.shape[1]
    x = (x.T if tall else x) / (x.norm() + 1e-7)
    x = x.bfloat16()
    for _ in range(steps):
        s = x @ x.T
        x = 3.4445 * x + (-4.7750 * s + 2.0315 * (s @ s)) @ x
    return x.T if tall else x


class Optimizer:
    """Changes a ``RetrievalModel`` by its gradients.

    Args:
        model: the model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._weights = dict(model.named_parameters())
        self._first = {name: torch.zeros_like(weight) for name, weight in self._weights.items()}
        self._second = {name: torch.zeros_like(w) for name, w in self._weights.items() if not _by_matrix(name, w)}
        self.steps = 0

    def state(self) -> dict[str, Tensor]:
        """All that has to be kept to go on."""
        kept = {f"first.{name}": value for name, value in self._first.items()}
        return kept | {f"second.{name}": value for name, value in self._second.items()}

    def load(self, state: dict[str, Tensor], steps: int) -> None:
        for name, value in self.state().items():
            value.copy_(state[name])
        self.steps = steps

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One step at ``rate`` (0 to 1) times the peak learning rates; the gradients are used up."""
        self.steps += 1
        own = [
            weight.grad for name, weight in self._weights.items() if name.startswith("gates.") and weight.grad is not None
        ]
        if own:
            nn.utils.clip_grads_with_norm_(self._of_gates(), 1.0, nn.utils.get_total_norm(own))
        for name, weight in self._weights.items():
            if weight.grad is None:
                continue
            if _by_matrix(name, weight):
                self._matrix(name, weight, weight.grad, rate * _RATES["matrix"])
            else:
                kind = "gates" if name.startswith("gates.") else "vector"
                self._vector(name, weight, weight.grad, rate * _RATES[kind])
            weight.grad = None

    def _of_gates(self) -> list[Tensor]:
        return [weight for name, weight in self._weights.items() if name.startswith("gates.")]

    def _matrix(self, name: str, weight: Tensor, grad: Tensor, rate: float) -> None:
        momentum = self._first[name].lerp_(grad, 0.05)
        update = grad.lerp(momentum, 0.95)
        weight.mul_(1 - rate * _DECAY)
        pieces = 3 if name.endswith("qkv.weight") else 2 if name.endswith("gate_up.weight") else 1
        for piece, target in zip(update.chunk(pieces), weight.chunk(pieces), strict=True):
            target.add_(orthogonal(piece), alpha=-rate * max(1.0, piece.shape[0] / piece.shape[1]) ** 0.5)

    def _vector(self, name: str, weight: Tensor, grad: Tensor, rate: float) -> None:
        first = self._first[name].lerp_(grad, 1 - _FIRST)
        second = self._second[name].lerp_(grad.square(), 1 - _SECOND)
        scale = (second / (1 - _SECOND**self.steps)).sqrt_().add_(1e-10)
        weight.addcdiv_(first, scale, value=-rate / (1 - _FIRST**self.steps))


def _by_matrix(name: str, weight: Tensor) -> bool:
    return name.startswith("decoder.layers.") and weight.dim() == 2
