"""Training against a store: neighbours come ahead of the step, and a training that was killed goes on where it was.

Everything that is drawn is a function of the plan's seed and the step, and a checkpoint holds the rest, so that a training
that went on has the loss of one that was never interrupted. Texts of owners are no targets: what is learned from is named
source by source, and is public text.

    run.json         what is trained, and on which version of the store
    checkpoint       safetensors: weights, the optimizer's state and the losses so far; replaced as a whole
    losses.jsonl     one line for each step that was said
    losses.png       the curve
    model.safetensors

Under ``torchrun`` each process takes its share of every batch, and gradients are averaged.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from strongroom.errors import BadTraining, MissingExtra, OtherTraining

from . import weights
from .batches import Ahead, Batch, Plan
from .datastore import Datastore
from .disk import roomy
from .influence import GRAIN, MOST

if TYPE_CHECKING:
    from .gates import Shape

_RUN, _CHECKPOINT, _LOSSES, _CURVE, MODEL = "run.json", "checkpoint", "losses.jsonl", "losses.png", "model.safetensors"
_READING: Final = ("context", "every", "neighbours")  # sizes that no weight depends on
_SLOT: Final = "a"  # while training a window has neighbours of one source


@dataclass(frozen=True, slots=True)
class Settings:
    """How to train.

    Attributes:
        steps: how many, one batch each.
        own: parts in a thousand of the language model's own loss that are added to that of the mixture.
        store: whether to train the gates too; False trains the language model alone, on the same windows.
        half: whether products are worked out in ``bfloat16``.
        workers: processes that make batches.
        save: steps between two checkpoints.
        compiled: whether torch compiles the decoder.
    """

    steps: int
    own: int = 500
    store: bool = True
    half: bool = True
    workers: int = 1
    save: int = 100
    compiled: bool = False

    def __post_init__(self) -> None:
        """Raises BadTraining."""
        if self.steps < 1 or self.save < 1 or self.workers < 0 or not 0 <= self.own <= 1000:
            raise BadTraining("a training has at least one step, and its shares are parts in a thousand")


@dataclass(frozen=True, slots=True)
class Said:
    """Where a training is.

    Attributes:
        step: steps that are done.
        loss, own: nats a token of the mixture and of the language model alone, since it was last said.
        gate: how much of a token sources got, likewise.
        speed: tokens a second of this process.
        waited: share of the time that was waited for batches.
    """

    step: int
    loss: float
    own: float
    gate: float
    speed: float
    waited: float


@dataclass(frozen=True, slots=True)
class Team:
    """The processes that train together, as ``torchrun`` started them."""

    rank: int = 0
    size: int = 1

    def mine(self, batch: Batch) -> slice:
        """The windows of a batch that this process learns from. Raises BadTraining: they cannot be shared out evenly."""
        windows = len(batch.tokens)
        if windows % self.size:
            raise BadTraining("the windows of a batch cannot be shared out evenly among the processes")
        return slice(self.rank * windows // self.size, (self.rank + 1) * windows // self.size)

    def average(self, model: Any) -> None:
        """Average the gradients over all processes."""
        if self.size > 1:
            torch = weights.library()
            given = [w.grad for w in model.parameters() if w.grad is not None]
            flat = torch.cat([grad.flatten() for grad in given])
            torch.distributed.all_reduce(flat)
            flat /= self.size
            for grad, part in zip(given, flat.split([grad.numel() for grad in given]), strict=True):
                grad.copy_(part.view_as(grad))

    def mean(self, values: list[float]) -> list[float]:
        """The mean of numbers over all processes."""
        if self.size == 1:
            return values
        torch = weights.library()
        found = torch.tensor(values, dtype=torch.float64)
        torch.distributed.all_reduce(found)
        return [float(value) / self.size for value in found]


def train(
    folder: Path,
    store: Path,
    shape: Shape,
    plan: Plan,
    settings: Settings,
    *,
    said: Callable[[Said], None] = lambda _said: None,
    often: int = 20,
    team: Team | None = None,
    kept: Path | None = None,
    begin: Path | None = None,
    read: int | None = None,
) -> Path:
    """Train a model, or go on with it.

    Args:
        folder: of this training.
        store: folder of the store.
        shape: sizes of the model; ``every``, ``neighbours`` and ``context`` must be the plan's.
        plan: which windows and neighbours.
        settings: how.
        said: told every ``often`` steps.
        team: which of several processes this is.
        kept: neighbours that were searched for beforehand (``batches.precompute``).
        begin: a model's file whose weights are begun with. It may have been trained with other neighbours.
        read: neighbours that the finished model reads with, None for as many as in training: more win more, and cost more.

    Returns:
        the model's file.

    Raises:
        OtherTraining: what is in the folder is of another training, or of another version of the store.
        OtherTokenizer: ``begin`` was trained on another tokenizer than the store has.
        BadTraining, BadModel, NoSource, MissingExtra, DiskFull, and as ``Datastore.open``.
    """
    torch = weights.library()
    if (shape.every, shape.neighbours) != (plan.every, plan.neighbours) or plan.window > shape.context:
        raise BadTraining("the model's sizes are not the plan's")
    team = team or Team()
    opened = Datastore.open(store)
    if shape.vocabulary < opened.tokenizer.size:
        raise BadTraining("the model's vocabulary is smaller than the tokenizer's")
    run = {"plan": asdict(plan), "settings": _lasting(settings), "shape": shape.as_dict(), "store": opened.version}
    if begin is not None:
        run["begin"] = f"sha256:{hashlib.sha256(begin.read_bytes()).hexdigest()}"
    _same(folder, run, team)
    course = _Course(folder, shape, plan, settings, team)
    if begin is not None:
        course.begin(begin, opened.tokenizer.digest)
    course.load()
    torch.manual_seed(plan.seed)
    ahead = Ahead(store, opened.version, plan, course.step, settings.steps, workers=settings.workers, kept=kept)
    with ahead as batches:
        began, before = time.monotonic(), course.step
        for batch in batches:
            course.learn(batch)
            if course.step % often == 0 or course.step == settings.steps:
                took = max(time.monotonic() - began, 1e-9)
                told = course.told(
                    (course.step - before) * plan.windows * plan.window / team.size / took, ahead.waited / took
                )
                if team.rank == 0:
                    _append(folder / _LOSSES, told)
                said(told)
                began, before, ahead.waited = time.monotonic(), course.step, 0.0
            if team.rank == 0 and (course.step % settings.save == 0 or course.step == settings.steps):
                course.save()
    path = folder / MODEL
    if team.rank == 0:
        about = weights.About({**shape.as_dict(), "neighbours": read or shape.neighbours}, opened.tokenizer.digest, 0)
        with roomy():
            weights.save(path, course.model, about, half=False)
    return path


def _lasting(settings: Settings) -> dict[str, Any]:
    """What of the settings a training may not change while it lasts."""
    return {name: value for name, value in asdict(settings).items() if name not in ("workers", "save", "compiled")}


class _Course:
    """A model that is being trained."""

    def __init__(self, folder: Path, shape: Shape, plan: Plan, settings: Settings, team: Team) -> None:
        from .gates import RetrievalModel  # noqa: PLC0415 - needs torch
        from .optimizer import Optimizer, Schedule  # noqa: PLC0415

        self.torch = weights.library()
        self.model = RetrievalModel(shape, plan.seed)
        self._read = self.model
        if settings.compiled:
            self.model.decoder.forward = self.torch.compile(self.model.decoder.forward, dynamic=False)  # type: ignore[method-assign]
        self.optimizer, self.schedule = Optimizer(self.model), Schedule(settings.steps)
        self.folder, self.settings, self.team = folder, settings, team
        self._dtype = self.torch.bfloat16 if settings.half else self.torch.float32
        self._most = MOST / GRAIN
        self._losses: list[list[float]] = []
        self.step = 0

    def begin(self, path: Path, tokenizer: str) -> None:
        """Take a model's weights. Raises BadModel, OtherTokenizer; BadTraining: it is of other sizes."""
        model, about = weights.load(path)
        about.fits(tokenizer)
        mine, theirs = self.model.shape.as_dict(), dict(about.shape)
        if any(theirs[name] != size for name, size in mine.items() if name not in _READING):
            raise BadTraining("the model that is begun with is of other sizes")
        self.model.load_state_dict(model.state_dict())

    def learn(self, batch: Batch) -> None:
        """One step."""
        from .gates import Found  # noqa: PLC0415

        torch, mine = self.torch, self.team.mine(batch)
        found: Mapping[str, Any] = {}
        if self.settings.store:
            near, scores = torch.from_numpy(batch.neighbours[mine]), torch.from_numpy(batch.scores[mine])
            found = {_SLOT: Found(near, scores)}
        reading = self._read(torch.from_numpy(batch.tokens[mine]), found, self._dtype)
        mixed, own = -reading.mixed(self._most).mean(), -reading.own.mean()
        loss = mixed + own * (self.settings.own / 1000) if self.settings.store else own
        loss.backward()
        self.team.average(self.model)
        self.optimizer.step(self.schedule.rate(self.step))
        gate = float(reading.gates[_SLOT].detach().mean()) if self.settings.store else 0.0
        self._losses.append(self.team.mean([float(mixed.detach()), float(own.detach()), gate]))
        self.step += 1

    def told(self, speed: float, waited: float) -> Said:
        loss, own, gate = np.mean(self._losses, axis=0)
        self._losses.clear()
        return Said(self.step, float(loss), float(own), float(gate), speed, waited)

    def save(self) -> None:
        """Keep all that is needed to go on; a process that is killed while it does leaves the checkpoint before."""
        from safetensors.torch import save as encode  # noqa: PLC0415

        kept = {f"weight.{name}": w.detach() for name, w in self.model.named_parameters()} | self.optimizer.state()
        losses = self.torch.tensor(self._losses, dtype=self.torch.float64).reshape(-1, 3)
        data = encode(kept | {"losses": losses}, {"step": str(self.step)})
        beside = self.folder / f"{_CHECKPOINT}.part"
        with roomy(), beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self.folder / _CHECKPOINT)

    def load(self) -> None:
        """Go on from a checkpoint, where there is one. Raises OtherTraining."""
        from safetensors import safe_open  # noqa: PLC0415

        path = self.folder / _CHECKPOINT
        if not path.exists():
            return
        try:
            with safe_open(path, "pt") as file:
                step = int((file.metadata() or {})["step"])
                kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            with self.torch.no_grad():
                for name, weight in self.model.named_parameters():
                    weight.copy_(kept[f"weight.{name}"])
            self.optimizer.load(kept, step)
            self._losses = kept["losses"].tolist()
        except Exception as error:  # the library raises nothing more precise
            raise OtherTraining("the checkpoint cannot be read") from error
        self.step = step
        if self.team.rank == 0:
            _shorten(self.folder / _LOSSES, step)


def _same(folder: Path, run: dict[str, Any], team: Team) -> None:
    """Begin a training, or see that it is the same. Raises OtherTraining."""
    said = json.dumps(run, sort_keys=True)
    path = folder / _RUN
    if path.exists():
        try:
            found = json.loads(path.read_text())
        except ValueError:
            raise OtherTraining("run.json cannot be read") from None
        if found != json.loads(said):
            raise OtherTraining("the folder has a training with other settings, or of another version of the store")
    elif team.rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
        beside = folder / f"{_RUN}.part"
        beside.write_text(said)
        beside.replace(path)


def _append(path: Path, told: Said) -> None:
    with path.open("a") as file:
        file.write(json.dumps(asdict(told)) + "\n")


def _shorten(path: Path, step: int) -> None:
    """Take away what was said of steps that are to be done again."""
    if path.exists():
        lines = [line for line in path.read_text().splitlines() if line.endswith("}") and json.loads(line)["step"] <= step]
        path.write_text("".join(f"{line}\n" for line in lines))


def curve(folder: Path) -> Path:
    """Draw the losses of a training. Raises MissingExtra; BadTraining: there are none."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        raise MissingExtra("a curve is drawn by the library matplotlib", hint="pip install matplotlib") from None
    path = folder / _LOSSES
    if not path.exists():
        raise BadTraining("nothing was trained in that folder yet")
    said = [json.loads(line) for line in path.read_text().splitlines()]
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    steps = [one["step"] for one in said]
    axes.plot(steps, [one["own"] for one in said], label="language model alone")
    axes.plot(steps, [one["loss"] for one in said], label="with its neighbours")
    axes.set(xlabel="step", ylabel="nats a token")
    axes.legend()
    figure.savefig(folder / _CURVE, dpi=120)
    return folder / _CURVE
