"""Readers of neighbours are one interface: each gives windows a probability, and none looks ahead."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'strongroom[lm]'")

from strongroom.lm.gates import Found, RetrievalModel, Shape  # noqa: E402
from strongroom.lm.readers import Alone, Gates, Reader  # noqa: E402
from strongroom.lm.readers.context import Context  # noqa: E402
from strongroom.lm.readers.cross import Cross  # noqa: E402
from strongroom.lm.readers.nearest import Nearest  # noqa: E402

SHAPE = Shape(vocabulary=300, width=16, heads=2, feed_forward=32, layers=1, context=256, key=8, every=32, neighbours=2)
MODEL = RetrievalModel(SHAPE, 1).eval()
READERS = [Gates(MODEL), Alone(MODEL), Nearest(MODEL), Context(MODEL), Cross(MODEL)]


def tokens() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(2, 300, (2, 65)).astype(np.int32))


def copied() -> dict[str, Found]:
    """Neighbours that are what is asked for."""
    near = torch.zeros(2, 2, 2, 128, dtype=torch.int32)
    near[:, 0, 0, :65] = tokens()
    near[:, 1, 1, :65] = tokens()
    return {"a": Found(near, torch.tensor([[[0.9, 0.1], [0.1, 0.9]]]).expand(2, 2, 2))}


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: type(reader).__name__)
def test_it_gives_every_token_a_probability_and_does_not_look_ahead(reader: Reader) -> None:
    with torch.inference_mode():
        whole = reader.logp(tokens(), copied())
        other = tokens()
        other[:, 50:] = 7
        changed = reader.logp(other, copied())
    assert whole.shape == (2, 64)
    assert bool((whole <= 1e-5).all())
    assert torch.allclose(whole[:, :49], changed[:, :49], atol=1e-5)


@pytest.mark.parametrize("reader", [Gates(MODEL), Nearest(MODEL)], ids=lambda reader: type(reader).__name__)
def test_a_passage_that_is_there_is_found_without_training(reader: Reader) -> None:
    with torch.inference_mode():
        gain = reader.logp(tokens(), copied()) - Alone(MODEL).logp(tokens(), {})
    assert float(gain.mean()) > 0.3


def test_cross_attention_learns() -> None:
    reader = Cross(RetrievalModel(SHAPE, 2))
    optimizer = torch.optim.Adam(reader.parameters(), 1e-2)
    losses = []
    for _ in range(12):
        loss = -reader.logp(tokens(), copied()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.3


def test_without_neighbours_all_are_the_language_model() -> None:
    with torch.inference_mode():
        alone = Alone(MODEL).logp(tokens(), {})
        for reader in READERS:
            assert torch.allclose(reader.logp(tokens(), {}), alone, atol=1e-4)
