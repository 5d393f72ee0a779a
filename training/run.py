"""A run of training: which tokens come when and at which learning rate, its checkpoints and its log.

All of it is a function of a few integers and the tensors of a checkpoint, so that a run that was stopped goes on exactly
where its last checkpoint was. torch is imported only by what computes with it.
"""

import fcntl
import json
import math
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from model import Model

Tokens = npt.NDArray[np.uint16]

AVERAGE = 0.999  # what a step leaves of the weights' running average
SAVE_SECONDS, LOG_SECONDS, WATCH_STEPS = 200, 30, 100
WATCHED = ("books", "encyclopedia", "chat")


@dataclass(frozen=True, slots=True)
class Schedule:
    """Warm-up, then the peak for as long as there is time, then (only where `decay` is set) linearly down to zero.

    Wen and others 2024, "Understanding warmup-stable-decay learning rates". Steps are counted from 0.
    """

    warmup: int
    decay_from: int | None = None
    decay_steps: int = 0

    def __post_init__(self) -> None:
        if self.warmup < 0 or self.decay_steps < 0 or (self.decay_from is not None) != (self.decay_steps > 0):
            raise ValueError("a decay needs its first step and a number of steps; neither is negative")

    def rate(self, step: int) -> float:
        """The learning rate of a step as a share of the peak."""
        rate = min(1.0, (step + 1) / (self.warmup + 1))
        if self.decay_from is not None and step >= self.decay_from:
            rate *= max(0.0, 1 - (step - self.decay_from + 1) / (self.decay_steps + 1))
        return rate

    def ended(self, step: int) -> bool:
        return self.decay_from is not None and step >= self.decay_from + self.decay_steps

    def decaying(self, step: int, steps: int) -> Self:
        return replace(self, decay_from=step, decay_steps=steps)


class Windows:
    """Windows of one token file: each epoch cuts it anew from another offset and shuffles."""

    def __init__(self, tokens: Tokens, length: int, seed: int) -> None:
        self.tokens, self.length, self.seed = tokens, length, seed
        self.per_epoch = (len(tokens) - 1) // length - 1
        if self.per_epoch < 1:
            raise ValueError(f"{len(tokens)} tokens are too few for windows of {length}")
        self._epoch = -1

    def at(self, number: int) -> Tokens:
        """Window `number`, counted through all epochs: `length` + 1 tokens, of which the last is only a target."""
        epoch, place = divmod(number, self.per_epoch)
        if epoch != self._epoch:
            rng = np.random.default_rng((self.seed, epoch))
            self._offset, self._order, self._epoch = int(rng.integers(self.length)), rng.permutation(self.per_epoch), epoch
        start = self._offset + int(self._order[place]) * self.length
        return self.tokens[start : start + self.length + 1]


@dataclass(slots=True)
class Feed:
    """Batches mixed from several token files. `taken` (windows so far, by file) is all that a checkpoint keeps of it."""

    windows: Mapping[str, Windows]
    mix: Mapping[str, float]
    seed: int
    taken: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.mix or set(self.mix) - set(self.windows) or min(self.mix.values()) <= 0:
            raise ValueError(
                f"the mix {dict(self.mix)} names other files than {sorted(self.windows)}, or a share of nothing"
            )
        self.taken = {name: self.taken.get(name, 0) for name in self.mix}

    def batch(self, step: int, size: int) -> Tokens:
        """The windows (size, length + 1) of a step. Steps are asked for in turn."""
        names = sorted(self.mix)
        shares = np.array([self.mix[name] for name in names])
        rows = []
        for which in np.random.default_rng((self.seed, step)).choice(len(names), size, p=shares / shares.sum()):
            name = names[which]
            rows.append(self.windows[name].at(self.taken[name]))
            self.taken[name] += 1
        return np.stack(rows)

    def epochs(self) -> dict[str, float]:
        """How often each file has been read through."""
        return {name: round(taken / self.windows[name].per_epoch, 3) for name, taken in self.taken.items()}


@dataclass(frozen=True, slots=True)
class Progress:
    """What a checkpoint says of the run beside its tensors. Two runs with equal Progress go on alike."""

    step: int
    tokens: int
    phase: int  # 0, and one more with each decay and length of window; it seeds the feed, so that each reads another order
    length: int
    batch: int
    mix: dict[str, float]
    taken: dict[str, int]
    warmup: int
    decay_from: int | None = None
    decay_steps: int = 0

    def __post_init__(self) -> None:
        if min(self.step, self.tokens, self.phase) < 0 or self.length < 1 or self.batch < 1:
            raise ValueError("a run has read no fewer than nothing")

    def schedule(self) -> Schedule:
        return Schedule(self.warmup, self.decay_from, self.decay_steps)

    def after(self, taken: Mapping[str, int]) -> Self:
        """One step later."""
        return replace(self, step=self.step + 1, tokens=self.tokens + self.batch * self.length, taken=dict(taken))

    def resized(self, length: int, batch: int) -> Self:
        """Windows of another length are other windows, so that they come in an order of their own."""
        other = {"phase": self.phase + 1, "taken": {}} if length != self.length else {}
        return replace(self, length=length, batch=batch, **other)

    def decaying(self, steps: int, *, length: int, batch: int, mix: Mapping[str, float]) -> Self:
        """The phase that makes a release: on its own feed, down to a learning rate of zero."""
        return replace(
            self,
            phase=self.phase + 1,
            length=length,
            batch=batch,
            mix=dict(mix),
            taken={},
            decay_from=self.step,
            decay_steps=steps,
        )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


# --- token files -------------------------------------------------------------------------------------------------------


def write_tokens(path: Path, tokens: Tokens, facts: Mapping[str, Any]) -> None:
    """Little-endian 16-bit tokens, and what is known of them (documents, bytes of text) in a JSON file beside."""
    new = path.with_suffix(".new")
    tokens.astype("<u2").tofile(new)
    new.replace(path)  # a process that has the old one open keeps it
    path.with_suffix(".json").write_text(json.dumps({"tokens": len(tokens), **facts}, indent=1) + "\n", encoding="utf-8")


def open_tokens(path: Path) -> tuple[Tokens, dict[str, Any]]:
    """The tokens, mapped and not read, and the facts. ValueError where the two disagree on their number."""
    facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    tokens = np.memmap(path, dtype="<u2", mode="r")
    if len(tokens) != facts["tokens"]:
        raise ValueError(f"{path.name} holds {len(tokens)} tokens and should hold {facts['tokens']}")
    return tokens, facts


# --- the run -----------------------------------------------------------------------------------------------------------


class Run:
    """A model, its optimizer, the average of its weights and its progress, in a folder of checkpoints."""

    def __init__(
        self, folder: Path, data: Path, model: "Model", progress: Progress, *, processes: int = 1, compiled: bool = True
    ) -> None:
        import torch
        from model import Loss, Optimizer
        from parallel import Workers

        self.folder, self.data, self.model, self.progress = folder, data, model, progress
        self.device = model.cos.device
        folder.mkdir(parents=True, exist_ok=True)
        self.average = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        self.optimizer = Optimizer(model)
        self.loss = Loss(model, compiled=compiled)
        self.workers = Workers(model, self.loss, processes - 1, compiled=compiled)
        self.token_bytes = torch.from_numpy(np.load(data / "token_bytes.npy")).float().to(self.device)
        self.open()

    def open(self) -> None:
        """The feed and the schedule that `progress` names."""
        p = self.progress
        seed = 1000 * p.phase + 17
        windows = {
            name: Windows(open_tokens(self.data / f"{name}-train.bin")[0], p.length, seed + i)
            for i, name in enumerate(sorted(p.mix))
        }
        self.feed, self.schedule = Feed(windows, p.mix, seed, dict(p.taken)), p.schedule()

    @property
    def ended(self) -> bool:
        return self.schedule.ended(self.progress.step)

    def resume(self, folder: Path | None = None) -> bool:
        """From the newest readable checkpoint of `folder` (its own where none is given); False where there is none."""
        found = load(folder or self.folder)
        if found:
            self.model.load_state_dict(found["model"])
            self.optimizer.load(found["optimizer"])
            self.average = {name: tensor.to(self.device) for name, tensor in found["average"].items()}
            self.progress = Progress(**found["progress"])
            self.open()
        return bool(found)

    def save(self) -> None:
        """Everything, written beside and moved into place; the two newest stay."""
        import torch

        path = self.folder / f"step-{self.progress.step:08}.pt"
        state = {
            "shape": self.model.shape.as_dict(),
            "progress": self.progress.as_dict(),
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state(),
        }
        new = path.with_suffix(".new")
        with new.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        for old in (*sorted(self.folder.glob("step-*.pt"))[:-2], *self.folder.glob("step-*.new")):
            old.unlink()  # a .new is what a killed process left

    def step(self) -> tuple[float, float]:
        """One step: the mean loss in nats a token, and bits per byte over the same tokens."""
        import torch

        p = self.progress
        batch = torch.from_numpy(self.feed.batch(p.step, p.batch).astype(np.int64)).to(self.device)
        total = self.workers.gradient(batch)
        if not math.isfinite(total):
            raise FloatingPointError(f"the loss of step {p.step} is {total}; the last checkpoint stands")
        self.optimizer.step(self.schedule.rate(p.step))
        with torch.no_grad():
            for name, weight in self.model.named_parameters():
                self.average[name].lerp_(weight, 1 - min(AVERAGE, (1 + p.step) / (10 + p.step)))
        self.progress = p.after(self.feed.taken)
        targets = batch[:, 1:]
        return total, total * targets.numel() / self.token_bytes[targets].sum().item() / math.log(2)

    def watch(self, windows: int = 32) -> dict[str, float]:
        """Bits per byte on a fixed piece of each watched part (the latter half of windows of the training length), with the
        weights and (marked ~) with their average."""
        import torch

        length, found = min(512, self.progress.length), {}
        own = {name: weight.detach().clone() for name, weight in self.model.named_parameters()}
        for mark, weights in (("", own), ("~", self.average)):
            self.model.load_state_dict(weights)
            for name in WATCHED:
                tokens, _ = open_tokens(self.data / f"{name}-watch.bin")
                starts = np.linspace(0, len(tokens) - length - 2, windows).astype(int)
                batch = torch.from_numpy(np.stack([tokens[s : s + length + 1] for s in starts]).astype(np.int64)).to(
                    self.device
                )
                nats = size = 0.0
                for micro in batch.split(8):
                    nats += self.loss.surprise(micro[:, :-1].contiguous(), micro[:, 1:])[:, length // 2 :].sum().item()
                    size += self.token_bytes[micro[:, 1 + length // 2 :]].sum().item()
                found[name + mark] = nats / size / math.log(2)
        self.model.load_state_dict(own)
        return found


def load(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint of a folder that can be read; one that was damaged is passed over with a word."""
    import torch

    for path in sorted(folder.glob("step-*.pt"), reverse=True):
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError) as error:
            print(f"{path.name} cannot be read ({error}); trying the one before", file=sys.stderr)
        else:
            return state
    return None


class Stop:
    """`asked` is true once SIGTERM or SIGINT has come."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True


def log(work: Path, line: str) -> None:
    line = f"{time.strftime('%F %T', time.gmtime())} {line}"
    print(line, flush=True)
    with (work / "log.txt").open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def go_behind(work: Path) -> None:
    """Goes on as a process of a session of its own, with the lowest priority and its output in `out.txt`; the caller's
    process ends. Where the kernel ranks sessions before processes (sched_autogroup), the session gets that priority too."""
    if os.fork():
        os._exit(0)
    os.setsid()
    os.nice(19)
    session = Path("/proc/self/autogroup")
    if session.exists():
        session.write_text("19", encoding="ascii")
    sys.stdout.flush()
    with (work / "out.txt").open("a", encoding="utf-8") as out, Path(os.devnull).open(encoding="utf-8") as nothing:
        for there, here in ((nothing, 0), (out, 1), (out, 2)):
            os.dup2(there.fileno(), here)


def stop(work: Path, seconds: float) -> str:
    """Asks the process that trains in `work` to save and end, and waits for it. What became of it, in words."""
    end = time.monotonic() + seconds
    while holder := _holder(work):
        if time.monotonic() > end:
            return f"process {holder} has been asked and is still at its step"
        os.kill(holder, signal.SIGTERM)
        os.kill(holder, signal.SIGCONT)  # one that was halted could not save
        time.sleep(0.2)
    return "nothing trains there"


def _holder(work: Path) -> int | None:
    """The process that has the file `pid` locked."""
    path = work / "pid"
    if not path.exists():
        return None
    with path.open("r", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(lock.read() or 0) or None
    return None


def go(run: Run, work: Path, minutes: float) -> None:
    """Steps until the schedule ends, a signal comes or the time is over; saved in any case."""
    stop, began = Stop(), time.monotonic()
    saved = logged = began
    losses: list[tuple[float, float]] = []
    while not run.ended and not stop.asked and time.monotonic() - began < 60 * minutes:
        losses.append(run.step())
        now, p = time.monotonic(), run.progress
        at = f"step {p.step} tokens {p.tokens / 1e6:.2f}M"
        if now - logged >= LOG_SECONDS:
            loss, bits = np.mean(losses, axis=0)
            speed, rate = len(losses) * p.batch * p.length / (now - logged), run.schedule.rate(p.step)
            log(work, f"{at} loss {loss:.4f} bpb {bits:.4f} tok/s {speed:.0f} lr {rate:.3f} epochs {run.feed.epochs()}")
            logged, losses = now, []
        if p.step % WATCH_STEPS == 0 or run.ended:
            log(work, f"{at} held out: " + " ".join(f"{name} {bits:.4f}" for name, bits in run.watch().items()))
            logged, losses = time.monotonic(), []
        if now - saved >= SAVE_SECONDS:
            run.save()
            saved = time.monotonic()
    run.save()
    run.workers.close()


def alone(work: Path) -> IO[str]:
    """The file `pid`, locked for as long as the caller keeps it, with this process's id in it.

    SystemExit where another process has it: two would overwrite each other's checkpoints.
    """
    lock = (work / "pid").open("a+", encoding="ascii")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with lock:
            lock.seek(0)
            sys.exit(f"process {lock.read().strip()} trains there already")
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock
