"""The retrieval model: its gates, its bound, and that a source that is left out leaves everything of the others as it
was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'strongroom[lm]'")
pytest.importorskip("faiss", reason="needs faiss: pip install 'strongroom[store]'")

import lm_case  # noqa: E402
from strongroom.errors import BadInfluence, BadModel, NoSource, OtherTokenizer, PromptBeyondContext  # noqa: E402
from strongroom.lm import weights  # noqa: E402
from strongroom.lm.datastore import Datastore  # noqa: E402
from strongroom.lm.gates import LEVELS, Found, RetrievalModel, Shape, hits, levels, record, stakes  # noqa: E402
from strongroom.lm.generation import Answer, RetrievalLM  # noqa: E402
from strongroom.lm.influence import GRAIN, MOST, Budget  # noqa: E402
from strongroom.lm.readout import read  # noqa: E402
from strongroom.lm.tokenizer import END  # noqa: E402

SMALL = Shape(vocabulary=400, width=16, heads=2, feed_forward=32, layers=2, context=96, key=8, every=32, neighbours=2)


def model(shape: Shape = SMALL) -> RetrievalModel:
    """A model that says something: no weight is 0."""
    made = RetrievalModel(shape, 1).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.2)
        made.gates.gate.bias.fill_(0.3)
    return made


def words(count: int, seed: int = 0) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(2, 400, count)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = lm_case.store(tmp_path_factory.mktemp("gates") / "store")
    for name in ("law", "cells", "public"):
        lm_case.source(found, name)
    return found


@pytest.fixture
def writer(place: Path) -> RetrievalLM:
    made = model()
    return RetrievalLM(made, weights.About(SMALL.as_dict(), Datastore.open(place).tokenizer.digest, -1_000_000))


def runs(before: list[int], neighbour: list[int], place: int) -> int:
    """How many tokens before a place are the last ones of a text, one by one."""
    count = 0
    while count < min(len(before), place + 1) and neighbour[place - count] == before[-1 - count] > 1:
        count += 1
    return count


def test_levels_are_the_equal_tokens_before_a_place() -> None:
    draw = np.random.default_rng(0)
    text, near = draw.integers(2, 5, 16 + 8), draw.integers(0, 5, (1, 2, 128))
    near[0, 0, 30:54] = text
    found = levels(torch.from_numpy(text)[None], torch.from_numpy(near))[0].numpy()
    assert found.max() == len(LEVELS)
    for time in range(8):
        for k in range(2):
            for at in range(127):
                run = runs(list(text[: 17 + time]), list(near[0, k]), at)
                assert found[time, k * 127 + at] == sum(run >= level for level in LEVELS)


def test_hits_are_the_places_of_the_token_asked_for() -> None:
    near = torch.zeros(1, 1, 128, dtype=torch.int64)
    near[0, 0, :4] = torch.tensor([7, 8, 7, 9])
    assert hits(torch.tensor([[7, 0]]), near)[0, 0].nonzero().flatten().tolist() == [1]
    assert not hits(torch.tensor([[0]]), near).any(), "what fills up is no text"


def test_the_readout_has_the_gradient_of_the_plain_one() -> None:
    hidden, table = torch.randn(2, 8, 4, dtype=torch.float64), torch.randn(20, 4, dtype=torch.float64)
    wanted, places = torch.randint(0, 20, (2, 8)), torch.randint(0, 20, (4, 6))
    own, top, (likely,) = read(hidden.float(), table.float(), wanted, [places], 4)
    plain = torch.log_softmax(hidden.float() @ table.float().T, -1)
    assert torch.allclose(own, plain.gather(-1, wanted[..., None]).squeeze(-1), atol=1e-5)
    assert torch.allclose(top, plain.amax(-1), atol=1e-5)
    assert torch.allclose(likely[1, 2], plain[0, 6][places[1]], atol=1e-5)
    weight = torch.rand(2, 8)
    grads = []
    for way in (0, 1):
        h, t = hidden.float().requires_grad_(), table.float().requires_grad_()
        if way:
            found = torch.log_softmax(h @ t.T, -1).gather(-1, wanted[..., None]).squeeze(-1)
        else:
            found = read(h, t, wanted, [places], 4)[0]
        (found * weight).sum().backward()
        grads.append((h.grad, t.grad))
    for one, other in zip(*grads, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_the_pointer_has_the_gradient_of_the_plain_one() -> None:
    gates = model().gates
    hidden, near = torch.randn(1, 4, 16), torch.randint(0, 30, (1, 2, 128))
    near[0, 1, 5:9] = torch.tensor([21, 22, 23, 24])
    text = torch.cat([torch.zeros(1, 16, dtype=torch.int64), torch.tensor([[21, 22, 23, 24, 25]])], 1)
    level, hit = levels(text[:, :-1], near), hits(text[:, 17:], near)
    open_, scores, likely = (near[..., 1:] > 1).flatten(-2), torch.tensor([[0.9, 0.4]]), torch.randn(1, 4, 254)
    grads = []
    for way in (0, 1):
        gates.zero_grad()
        keys = gates.keys(near, torch.float32)
        if way:
            pointer, _ = gates.point(hidden, keys, scores, likely, level, open_)
            copied = (pointer * hit).sum(-1)
        else:
            copied, _ = gates.copied(hidden, keys, scores, likely, level, open_, hit)
        (copied * torch.arange(1.0, 5.0)).sum().backward()
        grads.append([w.grad.clone() for n, w in gates.named_parameters() if w.grad is not None])
    assert len(grads[0]) == len(grads[1]) == 6
    for one, other in zip(*grads, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_the_record_of_a_source_knows_nothing_of_the_token_asked_for() -> None:
    worth = stakes(torch.rand(1, 10), -torch.rand(1, 10))
    changed = worth.clone()
    changed[0, 6] = 9.0
    assert torch.equal(record(worth)[0, :7], record(changed)[0, :7])
    assert not torch.equal(record(worth)[0, 7:], record(changed)[0, 7:])


def found(seed: int, stretches: int = 3) -> Found:
    draw = torch.Generator().manual_seed(seed)
    near = torch.randint(0, 400, (2, stretches, 2, 128), generator=draw, dtype=torch.int32)
    return Found(near, torch.rand(2, stretches, 2, generator=draw))


def test_leaving_out_a_source_leaves_the_others_bit_for_bit() -> None:
    made = model()
    tokens = torch.tensor([words(97), words(97, 1)], dtype=torch.int32)
    with torch.inference_mode():
        both = made(tokens, {"a": found(1), "b": found(2)})
        one = made(tokens, {"b": found(2)})
        none = made(tokens, {})
    assert torch.equal(both.own, none.own)
    assert torch.equal(both.gates["b"], one.gates["b"])
    assert torch.equal(both.copies["b"], one.copies["b"])
    assert torch.equal(none.mixed(0.9), none.own)


def test_what_is_read_before_a_token_is_all_that_its_gate_knows() -> None:
    made = model()
    tokens = torch.tensor([words(97), words(97, 1)], dtype=torch.int32)
    later = tokens.clone()
    later[:, 60:] = torch.tensor(words(37, 7), dtype=torch.int32)
    with torch.inference_mode():
        one, other = made(tokens, {"a": found(1)}), made(later, {"a": found(1)})
    assert torch.allclose(one.gates["a"][:, :60], other.gates["a"][:, :60], atol=1e-6)
    assert torch.allclose(one.own[:, :59], other.own[:, :59], atol=1e-5)


def same(one: Answer, other: Answer) -> None:
    assert one.tokens == other.tokens
    for mine, theirs in zip(one.tokens, other.tokens, strict=True):
        assert mine.logits is not None
        assert theirs.logits is not None
        assert np.array_equal(mine.logits, theirs.logits)


def test_a_dropped_source_is_gone_from_every_logit(place: Path, writer: RetrievalLM, tmp_path: Path) -> None:
    never = lm_case.store(tmp_path / "never")
    for name in ("cells", "public"):
        lm_case.source(never, name)
    full = Datastore.open(place)
    ask = {"prompt": "the Council shall in the section notice " * 3, "tokens": 40, "logits": True}
    with_law = writer.generate(store=full, **ask)
    assert with_law.drawn["law"] > 0
    dropped, without = writer.generate(store=full.without("law"), **ask), writer.generate(store=Datastore.open(never), **ask)
    same(dropped, without)
    assert "law" not in dropped.drawn
    assert any(
        not np.array_equal(one.logits, other.logits) for one, other in zip(with_law.tokens, dropped.tokens, strict=True)
    )


def test_what_is_metered_is_the_sum_of_the_weights_that_were_used(place: Path, writer: RetrievalLM) -> None:
    answer = writer.generate("the Council shall", store=Datastore.open(place), tokens=20, temperature=1.0, seed=3)
    for name, grains in answer.drawn.items():
        assert grains == sum(draw.weight for one in answer.tokens for draw in one.draws if draw.source == name)
    assert all(sum(draw.weight for draw in one.draws) <= MOST for one in answer.tokens)
    assert all(0 <= draw.share <= GRAIN for one in answer.tokens for draw in one.draws)
    assert answer.text == Datastore.open(place).tokenizer.decode([one.token for one in answer.tokens])


def test_a_budget_holds_for_each_token_and_in_all(place: Path, writer: RetrievalLM) -> None:
    store = Datastore.open(place).only(["law"])
    free = writer.generate("the Council shall", store=store, tokens=12)
    assert free.drawn["law"] > GRAIN // 2
    held = writer.generate("the Council shall", store=store, tokens=12, budgets={"law": Budget(1000, 5500)})
    weights_ = [draw.weight for one in held.tokens for draw in one.draws if draw.source == "law"]
    assert weights_ == [1000] * 5 + [500]
    assert held.drawn["law"] == 5500


def test_removing_a_source_moves_a_token_by_no_more_than_its_weight(place: Path, writer: RetrievalLM) -> None:
    store = Datastore.open(place)
    ask = {"prompt": "the Council shall permit the tax board", "tokens": 1, "logits": True}
    (whole,) = writer.generate(store=store, **ask).tokens
    assert len(whole.draws) == 3
    for draw in whole.draws:
        (left,) = writer.generate(store=store.without(draw.source), **ask).tokens
        assert whole.logits is not None
        assert left.logits is not None
        moved = np.abs(np.exp(whole.logits.astype(float)) - np.exp(left.logits.astype(float))).sum() / 2
        assert 0 < moved <= (draw.weight + 2) / GRAIN + 1e-6


@pytest.mark.parametrize("temperature", [0.05, 0.5, 1.0, 2.0])
def test_no_temperature_lifts_a_source_above_its_weight(place: Path, writer: RetrievalLM, temperature: float) -> None:
    """What tokens are drawn from, at any temperature, and not only what it was before."""
    store = Datastore.open(place)
    budgets = {name: Budget(token=GRAIN // 10) for name in store.names}
    ask = {"prompt": "the Council shall permit the tax board", "tokens": 1, "logits": True, "temperature": temperature}
    (whole,) = writer.generate(store=store, budgets=budgets, **ask).tokens
    assert len(whole.draws) == 3
    for draw in whole.draws:
        others = {name: budget for name, budget in budgets.items() if name != draw.source}
        (left,) = writer.generate(store=store.without(draw.source), budgets=others, **ask).tokens
        drawn_from = [np.exp(one.logits.astype(float)) for one in (whole, left) if one.logits is not None]
        assert [round(float(p.sum()), 5) for p in drawn_from] == [
            1,
            1,
        ]
        assert not any(p[: END + 1].any() for p in drawn_from)
        assert np.abs(drawn_from[0] - drawn_from[1]).sum() / 2 <= (draw.weight + 2) / GRAIN + 1e-6


@pytest.mark.parametrize("temperature", [1e-9, 1e-3])
def test_a_small_temperature_takes_the_likeliest_of_a_part(place: Path, writer: RetrievalLM, temperature: float) -> None:
    store = Datastore.open(place).only([])
    ask = {"prompt": "the Council shall", "tokens": 6}
    cold = writer.generate(store=store, temperature=temperature, **ask)
    assert [one.token for one in cold.tokens] == [one.token for one in writer.generate(store=store, **ask).tokens]


@pytest.mark.parametrize("temperature", [-1.0, float("nan"), float("inf")])
def test_what_is_no_temperature_is_refused(place: Path, writer: RetrievalLM, temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        writer.generate("the Council", store=Datastore.open(place), tokens=1, temperature=temperature)


def test_a_source_is_not_metered_where_there_is_nothing_to_point_at(writer: RetrievalLM) -> None:
    """Neighbours of one token each: the pointer would lie on what is never written."""
    from strongroom.lm.beside import Beside, Fixed

    found = Beside(Fixed(writer.model), [5, 6, 7])
    tokens = np.zeros((2, 128), np.uint16)
    tokens[:, 0] = 9
    found.look(tokens, np.array([0.9, 0.8], np.float32), np.array([0, 1]))
    assert not found._relevant


def test_a_source_that_is_not_relevant_gets_exactly_nothing(place: Path, writer: RetrievalLM) -> None:
    store = Datastore.open(place)
    strict = RetrievalLM(writer.model, weights.About(SMALL.as_dict(), store.tokenizer.digest, 1_000_001))
    ask = {"prompt": "the Council shall", "tokens": 8, "logits": True}
    empty = strict.generate(store=store.without("law").without("cells").without("public"), **ask)
    nothing = strict.generate(store=store, **ask)
    assert [one.draws for one in nothing.tokens] == [()] * 8
    same(nothing, empty)


def test_writing_says_what_reading_windows_says(place: Path, writer: RetrievalLM) -> None:
    """Token by token with a cache, and a window at once, are one function."""
    from strongroom.lm.generation import Allowance, Writer

    store = Datastore.open(place).only(["law"])
    prompt = [int(token) for token in store.source("law").document(0)[:97]]
    at = np.arange(32, 96, 32)
    rows = np.zeros((len(at), 64), np.int64)
    for number, end in enumerate(at):
        taken = prompt[max(0, end - 64) : end]
        rows[number, : len(taken)] = taken
    near = store.nearest(rows, 2)["law"]
    tokens = np.concatenate([np.zeros((1, 2, 128)), near.tokens]).astype(np.int32)
    scores = np.concatenate([np.full((1, 2), -1.0), near.scores]).astype(np.float32)
    with torch.inference_mode():
        reading = writer.model(
            torch.tensor([prompt], dtype=torch.int32),
            {"law": Found(torch.from_numpy(tokens)[None], torch.from_numpy(scores)[None])},
        )
        one = Writer(writer.model, store, Allowance(), -1.0)
        one._beside["law"].leave()  # it was asked, and there was nothing: so the first stretch of the windows has it
        one._forward(prompt[:32])
        one.look()
        one._forward(prompt[32:64])
        one.look()
        one._forward(prompt[64:96])
        one._ask()
        assert one._now is not None
        wanted, own = one._wanted["law"], float(one._now.logp[prompt[96]])
        share = one._beside["law"].lay(prompt[96])
    assert own == pytest.approx(float(reading.own[0, 95]), abs=1e-4)
    assert share == pytest.approx(float(reading.copies["law"][0, 95]), abs=1e-4)
    assert wanted / GRAIN == pytest.approx(float(reading.gates["law"][0, 95]), abs=2e-3)


def test_writing_goes_on_beyond_the_context(place: Path, writer: RetrievalLM) -> None:
    answer = writer.generate("the Council shall", store=Datastore.open(place), tokens=130)
    assert len(answer.tokens) == 130
    assert answer.tokens == writer.generate("the Council shall", store=Datastore.open(place), tokens=130).tokens


def test_a_model_is_what_was_saved(place: Path, writer: RetrievalLM, tmp_path: Path) -> None:
    weights.save(tmp_path / "m", writer.model, writer.about, half=False)
    again = RetrievalLM.load(tmp_path / "m")
    assert again.about == writer.about
    store = Datastore.open(place)
    same(again.generate("a", store=store, tokens=5, logits=True), writer.generate("a", store=store, tokens=5, logits=True))


@pytest.mark.parametrize("damage", ["cut", "empty", "other", "shape", "sizes"])
def test_a_file_that_is_no_model_is_refused(writer: RetrievalLM, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "m"
    about = writer.about
    if damage == "shape":
        about = weights.About({**about.shape, "layers": 0}, about.tokenizer, 0)
    if damage == "sizes":
        about = weights.About({**about.shape, "width": 32}, about.tokenizer, 0)
    weights.save(path, writer.model, about)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-10])
    if damage == "empty":
        path.write_bytes(b"")
    if damage == "other":
        from safetensors.torch import save_file

        save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(BadModel):
        RetrievalLM.load(path)


def test_weights_that_are_no_numbers_are_refused(writer: RetrievalLM, tmp_path: Path) -> None:
    with torch.no_grad():
        writer.model.gates.near.fill_(float("nan"))
    weights.save(tmp_path / "m", writer.model, writer.about)
    with pytest.raises(BadModel):
        RetrievalLM.load(tmp_path / "m")


def test_a_store_of_another_tokenizer_is_refused(place: Path, writer: RetrievalLM) -> None:
    other = RetrievalLM(writer.model, weights.About(SMALL.as_dict(), "sha256:" + "0" * 64, 0))
    with pytest.raises(OtherTokenizer):
        other.generate("a", store=Datastore.open(place))


def test_a_prompt_longer_than_the_context_is_refused(place: Path, writer: RetrievalLM) -> None:
    with pytest.raises(PromptBeyondContext):
        writer.generate("Council " * 200, store=Datastore.open(place))


def test_a_budget_of_zero_or_of_no_source_is_refused(place: Path, writer: RetrievalLM) -> None:
    for wrong in (0, -1, GRAIN + 1, True, 0.5):
        with pytest.raises(BadInfluence):
            Budget(wrong)  # type: ignore[arg-type]
    with pytest.raises(BadInfluence):
        Budget(total=0)
    with pytest.raises(NoSource):
        writer.generate("a", store=Datastore.open(place), budgets={"lwa": Budget()})


def test_a_gate_under_the_floor_is_shut(place: Path, writer: RetrievalLM) -> None:
    store = Datastore.open(place)
    about = weights.About(SMALL.as_dict(), store.tokenizer.digest, -1_000_000, floor=GRAIN)
    ask = {"prompt": "the Council shall", "tokens": 6, "logits": True}
    shut = RetrievalLM(writer.model, about).generate(store=store, **ask)
    assert [one.draws for one in shut.tokens] == [()] * 6
    same(shut, writer.generate(store=store.only([]), **ask))
