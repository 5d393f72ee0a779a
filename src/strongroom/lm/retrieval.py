"""``retrieval``: a model that retrieves (``lm.gates``), and the sources that it draws from, in a child.

The model comes as any weights do. The frozen parts of the store and each source come as memory files; every source is read
whole and checked before anything is drawn from it. Questions take turns, a token each. Sources can be taken away and given
back between two questions: an answer draws from those that were there when it began, and what each of its tokens drew is
said with it.

Everything that a source brings but its ``manifest.json``, which the parent reads to find its files, is looked at inside this
child alone. See ``docs/engines.md``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from strongroom.errors import BadModel, DatastoreError, ModelUnreadable, OtherTokenizer, PromptBeyondContext

from .engine import Counted, Route
from .influence import Budget
from .packed import NAMES, Folder
from .parts import FILES as PARTS
from .parts import Parts
from .seated import Metering, Say, Seat, refused, too_long
from .source import Source, check

if TYPE_CHECKING:
    from .datastore import Datastore
    from .generation import Written

NAME: Final = "retrieval"
ROUTES: Final[tuple[Route, ...]] = ("chat", "completions")

_HALF: Final = "\N{REPLACEMENT CHARACTER}"
_NOT_DONE: Final = (
    *("frequency_penalty", "logit_bias", "logprobs", "min_p", "presence_penalty", "response_format", "tool_choice", "tools"),
    *("top_k", "top_logprobs"),
)
_MOST_HELD: Final = 8  # tokens that are waited for, that a character may become whole


class Retrieval:
    """A retrieval model and its sources. The arguments are those of :class:`strongroom.lm.llama.Llama`, and:

    Args:
        files: paths of the four frozen parts, and then of the files of each source, in the order of ``packed.NAMES``.
        sources: what is agreed of each: ``name``, and ``token`` and ``total``, the budget in grains.

    Raises:
        ModelUnreadable: no retrieval model, one of another tokenizer, or a source that is not what it must be.
    """

    def __init__(
        self,
        path: str,
        socket: Path,
        *,
        context_tokens: int,
        parallel: int,
        threads: int,
        max_tokens: int,
        embeds: bool,
        files: Sequence[str],
        sources: Sequence[Mapping[str, Any]],
    ) -> None:
        del socket, embeds  # nothing listens, and it has no embeddings
        import torch  # noqa: PLC0415 - heavy, and not for clients

        from .generation import RetrievalLM  # noqa: PLC0415 - needs torch
        from .nearest import library  # noqa: PLC0415 - needs faiss

        torch.set_num_threads(threads)
        library().omp_set_num_threads(1)
        try:
            self._model = RetrievalLM.load(path)
            self._open_parts(files, sources)
            self._model.about.fits(self._parts.tokenizer.digest)
        except (BadModel, DatastoreError, OtherTokenizer, OSError) as error:
            raise ModelUnreadable(f"the model or a source of it cannot be used: {error}", step="load model") from error
        self._turn, self._chance = threading.Lock(), torch.Generator()
        self._most = max_tokens
        self._context = min(context_tokens, self._model.model.shape.context)
        self._budgets = {said["name"]: Budget(said["token"], said["total"]) for said in sources}
        self._store = self._stored(self._folders)
        self.about: Mapping[str, Any] = {
            "context_tokens": self._context,
            "embedding_size": 0,
            "engine": f"{NAME} torch {torch.__version__}",
            "parallel": parallel,
            "routes": sorted(ROUTES),
        }

    def _open_parts(self, files: Sequence[str], sources: Sequence[Mapping[str, Any]]) -> None:
        paths = iter(files)
        self._parts = Parts.load(cast("Path", Folder.of(PARTS, paths)))
        self._folders = {said["name"]: Folder.of(NAMES, paths) for said in sources}
        self._names = tuple(self._folders)
        for folder in self._folders.values():  # what comes from an owner may come from anybody
            check(cast("Path", folder), self._parts)

    def _stored(self, names: Collection[str]) -> Datastore:
        from .datastore import Datastore, Head  # noqa: PLC0415
        from .source import read_manifest  # noqa: PLC0415

        found: dict[str, Source] = {}
        for name in names:
            folder = cast("Path", self._folders[name])
            found[name] = Source(folder, read_manifest(folder), self._parts)
        head = Head(self._parts.digest, {name: source.manifest.digest for name, source in sorted(found.items())})
        return Datastore(self._parts, found, head)

    def draw(self, names: Collection[str], gone: Collection[str]) -> None:
        """As of :class:`strongroom.lm.seated.Drawing`. What is not drawn from is not mapped any more."""
        self._store = self._stored([name for name in names if name in self._folders and name not in gone])
        for name in gone:
            for path in self._folders.pop(name, ()):  # an answer that is under way has mapped what it reads
                os.close(int(path.rpartition("/")[2]))

    def answer(self, route: Route, normal: Mapping[str, Any], choice: int, seat: Seat, say: Say) -> Counted:
        """As of :class:`strongroom.lm.seated.Seated`."""
        del seat  # nothing is kept from question to question
        if route not in ROUTES:
            raise refused("route")
        if choice or normal.get("n", 1) != 1 or normal.get("top_p", 1) < 1 or any(name in normal for name in _NOT_DONE):
            raise refused("request")
        store = self._store
        prompt = prompt_of(route, normal)
        read = max(1, len(store.tokenizer.encode(prompt)))
        if read > self._context:
            raise too_long(read, self._context)
        most = min(self._most, normal.get("max_tokens", self._most))
        words = _Words(store.tokenizer, normal.get("stop", []), say)
        finish, made = "length", 0
        for written in self._written(prompt, normal, store, most):
            made += 1
            self._drew(written, cast("Metering", say))
            if words.add(written.token):
                finish = "stop"
                break
            if words.given_up:
                break
        if not words.given_up:
            words.end(finish)
            say.piece({"text": ""} if route == "completions" else {}, finish, None)
        return Counted(read, made)

    def _written(self, prompt: str, normal: Mapping[str, Any], store: Datastore, most: int) -> Iterator[Written]:
        budgets = {name: budget for name, budget in self._budgets.items() if name in store.names}
        seed = (normal["seed"] if "seed" in normal else self._chance.seed()) % 2**63
        warmth = normal.get("temperature", 1)
        with self._turn:
            try:
                stream = self._model.stream(prompt, store=store, budgets=budgets, tokens=most, temperature=warmth, seed=seed)
            except PromptBeyondContext:
                raise too_long(0, self._context) from None
        while True:
            with self._turn:
                written = next(stream, None)
            if written is None:
                return
            yield written

    def _drew(self, written: Written, say: Metering) -> None:
        drawn = {draw.source: draw.weight for draw in written.draws}
        say.drew([drawn.get(name, 0) for name in self._names])

    def embed(self, texts: Sequence[str], seat: Seat) -> tuple[Sequence[Sequence[float]], int]:
        """Never. Raises EngineRefused."""
        del texts, seat
        raise refused("route")


def prompt_of(route: Route, normal: Mapping[str, Any]) -> str:
    """What the model goes on from. It knows no conversation: the texts of one stand one after the other."""
    if route == "completions":
        return str(normal["prompt"])
    return "\n".join(str(message["content"]) for message in normal["messages"] if message.get("content"))


class _Words:
    """Turns tokens into text: whole characters, and nothing of a stop word or of what follows it."""

    def __init__(self, tokenizer: Any, stops: Sequence[str], say: Say) -> None:
        self._tokenizer, self._stops, self._say = tokenizer, stops, say
        self._tokens: list[int] = []
        self._held = ""
        self.given_up = False

    def add(self, token: int) -> bool:
        """Take a token; whether a stop word is complete."""
        self._tokens.append(token)
        text = self._tokenizer.decode(self._tokens)
        if text.endswith(_HALF) and len(self._tokens) < _MOST_HELD:
            self.given_up = self._say.working()
            return False
        self._tokens.clear()
        self._held += text
        at = min((self._held.find(stop) for stop in self._stops if stop in self._held), default=-1)
        if at >= 0:
            self._held = self._held[:at]
            return True
        keep = max((n for stop in self._stops for n in range(len(stop)) if n and self._held.endswith(stop[:n])), default=0)
        ready = self._held[: len(self._held) - keep]
        self._held = self._held[len(ready) :]
        self.given_up = self._say.text(ready) if ready else self._say.working()
        return False

    def end(self, finish: str) -> None:
        """Say what is held back."""
        if finish == "length":
            self._held += self._tokenizer.decode(self._tokens)
        if self._held:
            self._say.text(self._held)
