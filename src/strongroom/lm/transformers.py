"""``transformers``: any causal language model in safetensors, as a model folder in one file (``lm/folder.py``).

Every question has a context of its own. Questions take turns, a token each: they are interleaved, and not batched, because a
batch of different lengths is a matter of each model's own code. Code that a model brings along is never run. For the speed
of a batch there are llama.cpp and vLLM.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from strongroom.errors import EngineError, ModelUnreadable

from .engine import Counted, Route
from .folder import DTYPES, Folder, unreadable
from .seated import Say, Seat, refused, too_long

NAME: Final = "transformers"
LIBRARIES: Final = ("torch", "transformers", "safetensors", "jinja2")

_BATCH: Final = 512  # tokens of a prompt worked out in one turn
_HALF: Final = "�"  # how a tokenizer shows a part of a character
_NOT_DONE: Final = ("logprobs", "response_format", "top_logprobs", "tool_choice")


class Transformers:
    """A model in transformers. The arguments are those of :class:`strongroom.lm.llama.Llama`.

    Raises:
        ModelUnreadable: no model folder, or one that transformers cannot use, or only with code of the model's own.
    """

    def __init__(
        self, path: str, socket: Path, *, context_tokens: int, parallel: int, threads: int, max_tokens: int, embeds: bool
    ) -> None:
        del socket  # nothing listens
        import torch  # noqa: PLC0415 - heavy, and not for clients
        import transformers  # noqa: PLC0415 - heavy, and not for clients

        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        transformers.logging.set_verbosity(transformers.logging.CRITICAL)
        self._torch = torch
        self._turn = threading.Lock()
        folder = Folder(path)
        try:
            self._model, self._tokenizer = _loaded(folder)
        except EngineError:
            raise
        except Exception as error:  # whatever a library makes of a hostile configuration
            if isinstance(error, ModelUnreadable):
                raise
            raise unreadable("transformers does not know it") from error
        trained = getattr(self._model.config, "max_position_embeddings", None)
        if isinstance(trained, int) and trained > 0:
            context_tokens = min(context_tokens, trained)
        self._context, self._most = context_tokens, max_tokens
        ends = self._model.generation_config.eos_token_id
        self._ends = frozenset([ends] if isinstance(ends, int) else ends or ())
        routes: list[Route] = ["completions"]
        if self._tokenizer.chat_template:
            routes.append("chat")
        if embeds:
            routes.append("embeddings")
        self._routes = frozenset(routes)
        self.about: Mapping[str, Any] = {
            "context_tokens": context_tokens,
            "embedding_size": int(self._model.config.hidden_size) if embeds else 0,
            "engine": f"{NAME} {transformers.__version__}",
            "parallel": parallel,
            "routes": sorted(self._routes),
        }

    def answer(self, route: Route, normal: Mapping[str, Any], choice: int, seat: Seat, say: Say) -> Counted:
        """As of :class:`strongroom.lm.seated.Seated`."""
        del seat  # nothing is kept from question to question
        if route not in self._routes:
            raise refused("route")
        if any(name in normal for name in _NOT_DONE):
            raise refused("grammar" if "response_format" in normal else "request")
        prompt = self._prompt(route, normal)
        if len(prompt) >= self._context:
            raise too_long(len(prompt), self._context)
        most = min(self._most, normal.get("max_tokens", self._most), self._context - len(prompt))
        draw = _Draw(self._torch, normal, choice)
        words = _Words(self._tokenizer, normal.get("stop", []), say)
        finish, made = "length", 0
        for token in self._tokens(prompt, draw, say):
            made += 1
            if token in self._ends or words.add(token):
                finish = "stop"
                break
            if words.given_up or made == most:
                break
        if not words.given_up:
            words.end(finish)
            say.piece({"text": ""} if route == "completions" else {}, finish, None)
        return Counted(len(prompt), made)

    def embed(self, texts: Sequence[str], seat: Seat) -> tuple[Sequence[Sequence[float]], int]:
        """As of :class:`strongroom.lm.seated.Seated`: the mean of what the last layer makes of a text's tokens."""
        del seat
        found, total = [], 0
        for text in texts:
            tokens = self._tokenizer.encode(text)
            if not 0 < len(tokens) <= self._context:
                raise too_long(len(tokens), self._context)
            with self._turn:
                said = self._model(self._torch.tensor([tokens]), output_hidden_states=True, use_cache=False)
            mean = said.hidden_states[-1][0].float().mean(0)
            found.append(array("f", self._torch.nn.functional.normalize(mean, dim=0).tolist()))
            total += len(tokens)
        return found, total

    def _prompt(self, route: Route, normal: Mapping[str, Any]) -> list[int]:
        if route == "completions":
            tokens: list[int] = self._tokenizer.encode(normal["prompt"])
            return tokens or [next(iter(self._ends), 0)]
        try:
            text = self._tokenizer.apply_chat_template(
                [dict(message) for message in normal["messages"]],
                tools=normal.get("tools"),
                tokenize=False,
                add_generation_prompt=True,
            )
        except Exception:  # noqa: BLE001 - a template is a program of the model's: what it raises may quote the prompt
            raise refused("template") from None
        found: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return found

    def _tokens(self, prompt: list[int], draw: _Draw, say: Say) -> Any:
        """The tokens of an answer, one turn each."""
        past, said, token = None, list(prompt), None
        for start in range(0, len(prompt), _BATCH):
            with self._turn:
                out = self._model(self._torch.tensor([prompt[start : start + _BATCH]]), past_key_values=past, use_cache=True)
            past = out.past_key_values
            if say.working():
                return
        while True:
            token = draw.next(out.logits[0, -1].float(), said[len(prompt) :])
            said.append(token)
            yield token
            with self._turn:
                out = self._model(self._torch.tensor([[token]]), past_key_values=past, use_cache=True)
            past = out.past_key_values


class _Draw:
    """Draws tokens as a request says.

    Args:
        torch: the library.
        normal: the request.
        choice: which of its choices.
    """

    def __init__(self, torch: Any, normal: Mapping[str, Any], choice: int) -> None:
        self._torch, self._normal = torch, normal
        self._chance = torch.Generator()
        if "seed" in normal:
            self._chance.manual_seed((normal["seed"] + choice) % 2**63)
        else:
            self._chance.seed()

    def next(self, scores: Any, said: list[int]) -> int:
        """The token that follows.

        Args:
            scores: one for each token of the vocabulary.
            said: the answer so far.
        """
        torch, normal = self._torch, self._normal
        for token, bias in normal.get("logit_bias", {}).items():
            if int(token) < len(scores):
                scores[int(token)] += bias
        frequency, presence = normal.get("frequency_penalty", 0), normal.get("presence_penalty", 0)
        if said and (frequency or presence):
            tokens, counts = torch.tensor(said).unique(return_counts=True)
            scores[tokens] -= frequency * counts + presence
        warmth = normal.get("temperature", 1)
        if warmth == 0:
            return int(scores.argmax())
        scores = scores / warmth
        most = normal.get("top_k", 0)
        if 0 < most < len(scores):
            scores[scores < scores.topk(most).values[-1]] = -torch.inf
        chances = scores.softmax(0)
        chances[chances < chances.max() * normal.get("min_p", 0)] = 0
        if normal.get("top_p", 1) < 1:
            ordered, order = chances.sort(descending=True)
            chances[order[(ordered.cumsum(0) - ordered) > normal["top_p"]]] = 0
        return int(chances.multinomial(1, generator=self._chance))


class _Words:
    """Turns tokens into text: whole characters, and nothing of a stop word or of what follows it."""

    def __init__(self, tokenizer: Any, stops: Sequence[str], say: Say) -> None:
        self._tokenizer, self._stops, self._say = tokenizer, stops, say
        self._tokens: list[int] = []
        self._read, self._held = "", ""
        self.given_up = False

    def add(self, token: int) -> bool:
        """Take a token; whether a stop word is complete."""
        self._tokens.append(token)
        text = self._tokenizer.decode(self._tokens, skip_special_tokens=True)
        if text.endswith(_HALF) and len(self._tokens) < 8:  # more of the character may follow
            self.given_up = self._say.working()
            return False
        self._held += text[len(self._read) :]
        # What a token looks like depends on the one before it, and on nothing further back.
        self._tokens = self._tokens[-1:]
        self._read = self._tokenizer.decode(self._tokens, skip_special_tokens=True)
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
            self._held += self._tokenizer.decode(self._tokens, skip_special_tokens=True)[len(self._read) :]
        if self._held:
            self._say.text(self._held)


def _loaded(folder: Folder) -> tuple[Any, Any]:
    """The model, with its parameters where the folder's file lies, and its tokenizer."""
    import torch  # noqa: PLC0415 - heavy
    import transformers  # noqa: PLC0415 - heavy
    from tokenizers import Tokenizer  # noqa: PLC0415 - heavy

    said = folder.json("config.json")
    if "auto_map" in said or "tokenizer.json" not in folder:
        raise unreadable("it needs code of its own, or has no tokenizer.json")
    kind = said.pop("model_type", None)
    if not isinstance(kind, str):
        raise unreadable("config.json does not say its model_type")
    config = transformers.AutoConfig.for_model(kind, **said)
    parameters = {tensor.name: _tensor(torch, folder, tensor) for tensor in folder.tensors()}
    if not parameters:
        raise unreadable("it has no weights")
    dtype = max((t.dtype for t in parameters.values() if t.is_floating_point()), key=lambda d: d.itemsize)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    left = model.load_state_dict(parameters, strict=False, assign=True)
    model.tie_weights()
    tied = {name for name, value in model.state_dict().items() if any(value is p for p in parameters.values())}
    missing = [name for name in left.missing_keys if name not in tied and not _shared(model, name, parameters)]
    if missing or left.unexpected_keys:
        raise unreadable("its weights are not those of its configuration")
    model.eval()
    if "generation_config.json" in folder:
        model.generation_config = transformers.GenerationConfig.from_dict(folder.json("generation_config.json"))
    return model, _tokenizer(transformers, Tokenizer.from_str(folder.text("tokenizer.json")), folder)


def _shared(model: Any, name: str, parameters: Mapping[str, Any]) -> bool:
    """Whether a parameter is one of those that were loaded, under another name."""
    mine = model.get_parameter(name).data_ptr()
    return any(mine == other.data_ptr() for other in parameters.values())


def _tokenizer(transformers: Any, inner: Any, folder: Folder) -> Any:
    given: dict[str, Any] = {}
    if "tokenizer_config.json" in folder:
        said = folder.json("tokenizer_config.json")
        if "auto_map" in said:
            raise unreadable("its tokenizer needs code of its own")
        for name in ("bos_token", "eos_token", "pad_token", "unk_token", "chat_template"):
            value = said.get(name)
            given[name] = value.get("content") if isinstance(value, dict) else value
    if "chat_template.jinja" in folder:
        given["chat_template"] = folder.text("chat_template.jinja")
    known: Callable[..., Any] = transformers.PreTrainedTokenizerFast
    return known(tokenizer_object=inner, **{name: value for name, value in given.items() if isinstance(value, str)})


def _tensor(torch: Any, folder: Folder, about: Any) -> Any:
    """A tensor where it lies."""
    name, size = DTYPES[about.dtype]
    kind = getattr(torch, name)
    if not about.count:
        return torch.empty(about.shape, dtype=kind)
    if about.offset % size:
        return torch.frombuffer(
            bytearray(folder.memory[about.offset : about.offset + size * about.count]), dtype=kind
        ).reshape(about.shape)
    return torch.frombuffer(folder.memory, dtype=kind, count=about.count, offset=about.offset).reshape(about.shape)
