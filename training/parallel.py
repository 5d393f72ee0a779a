"""Gradients by several processes of one thread each.

On a machine whose cores have other work to do, two threads of one process wait for each other at every product; two
processes wait for each other once a step. The result is a function of the batch and of the number of processes.
"""

import signal
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

import torch
from model import Loss, Model, Shape
from torch import Tensor, multiprocessing

MICRO_TOKENS = {"cpu": 4096, "cuda": 65_536}  # at once through the model; a share of a batch adds up several


def add_gradient(loss: Loss, rows: Tensor, whole: int) -> float:
    """Adds to the weights' gradients what `rows` (n, time + 1) contribute to the mean loss of a batch of `whole` rows, and
    gives their part of that mean."""
    total = 0.0
    for micro in rows.split(max(1, MICRO_TOKENS[rows.device.type] // (rows.shape[1] - 1))):
        part = loss(micro[:, :-1].contiguous(), micro[:, 1:].contiguous()) * (len(micro) / whole)
        part.backward()
        total += part.item()
    return total


def _work(
    pipe: Connection,
    shape: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor],
    compiled: bool,
) -> None:
    """One worker: a share of a batch in, its part of the loss out, until the other end is closed."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # whoever stops the training waits for the step to end
    torch.set_num_threads(1)
    model = Model(Shape(**shape))
    for name, weight in model.named_parameters():
        weight.data, weight.grad = weights[name], gradients[name]
    loss = Loss(model, compiled=compiled)
    while True:
        try:
            rows, whole = pipe.recv()
        except EOFError:
            return
        for gradient in gradients.values():
            gradient.zero_()
        pipe.send(add_gradient(loss, torch.from_numpy(rows), whole))


class Workers:
    """This process and `others` more, which share the weights of `model` in memory."""

    def __init__(self, model: Model, loss: Loss, others: int, *, compiled: bool) -> None:
        self.model, self.loss = model, loss
        self._others: list[tuple[Any, Connection, dict[str, Tensor]]] = []
        spawn = multiprocessing.get_context("spawn")
        if others:
            model.share_memory()
        for _ in range(others):
            mine, theirs = spawn.Pipe()
            gradients = {n: torch.zeros_like(w).share_memory_() for n, w in model.named_parameters()}
            weights = {n: w.detach() for n, w in model.named_parameters()}
            process = spawn.Process(
                target=_work, args=(theirs, model.shape.as_dict(), weights, gradients, compiled), daemon=True
            )
            process.start()
            theirs.close()
            self._others.append((process, mine, gradients))

    def gradient(self, batch: Tensor) -> float:
        """The mean loss of a batch (rows, time + 1), its gradient left with the weights.

        Raises:
            RuntimeError: a worker has died.
        """
        shares = _shares(batch, 1 + len(self._others))
        try:
            for (_, pipe, _), share in zip(self._others, shares[1:], strict=True):
                pipe.send((share.numpy(), len(batch)))
            total = add_gradient(self.loss, shares[0], len(batch))
            for _, pipe, gradients in self._others:
                total += pipe.recv()
                for name, weight in self.model.named_parameters():
                    weight.grad.add_(gradients[name])
        except (EOFError, OSError) as error:
            raise RuntimeError("a worker has died; the last checkpoint stands") from error
        return total

    def close(self) -> None:
        for process, pipe, _ in self._others:
            pipe.close()
            process.join()
        self._others = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _shares(batch: Tensor, parts: int) -> Sequence[Tensor]:
    """The rows of a batch in equal shares. ValueError where there are none such: each share is compiled for once."""
    if len(batch) % parts:
        raise ValueError(f"{len(batch)} windows are not shared equally by {parts} processes")
    return batch.chunk(parts)
