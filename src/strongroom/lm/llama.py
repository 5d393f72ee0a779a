"""llama.cpp, by ``xllamacpp``: any GGUF file, as it stands in memory.

The library's server answers by calls and callbacks here; its HTTP face, which it cannot do without, listens on a UNIX socket
that nobody can reach (``docs/engines.md``). Prompts are not logged, nothing is fetched, and no memory is guessed: what the
contract says is what is used.
"""

from __future__ import annotations

import base64
import json
import re
import sys
from array import array
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from strongroom.errors import EngineError, EngineFailed, ModelUnreadable

from . import gguf
from .engine import Counted, Route
from .seated import Say, Seat, refused, too_long

NAME: Final = "llama.cpp"
LIBRARIES: Final = ("xllamacpp",)

_EMBEDDERS: Final = 4  # texts embedded at once
_BATCH: Final = 512  # tokens of prompts worked out between two tokens of everybody else's answer
_NUMBER = re.compile(r"\((\d+) tokens\)")
_SEEDS: Final = 2**32 - 1  # the last number of 32 bits means "any"
_PASSED: Final = (
    "frequency_penalty",
    "messages",
    "min_p",
    "parallel_tool_calls",
    "presence_penalty",
    "prompt",
    "response_format",
    "stop",
    "temperature",
    "tool_choice",
    "tools",
    "top_k",
    "top_p",
)
"""Members of a request that mean the same to llama.cpp."""


class Llama:
    """A model in llama.cpp.

    Args:
        path: of the GGUF file.
        socket: where its HTTP face may put its socket; it is removed before this returns.
        context_tokens: the longest prompt and answer together.
        parallel: seats.
        threads: that it computes with.
        max_tokens: the longest answer.
        embeds: whether it is asked for embeddings too.

    Raises:
        ModelUnreadable: no GGUF file, or one that llama.cpp cannot use.
    """

    def __init__(
        self, path: str, socket: Path, *, context_tokens: int, parallel: int, threads: int, max_tokens: int, embeds: bool
    ) -> None:
        with Path(path).open("rb") as file:
            head = gguf.head(file)
        kind = str(head.get("general.architecture", ""))
        trained = head.get(f"{kind}.context_length")
        if isinstance(trained, int) and trained > 0:
            context_tokens = min(context_tokens, trained)
        pools = bool(head.get(f"{kind}.pooling_type"))  # made for embeddings, and for nothing else
        self._context, self._most = context_tokens, max_tokens
        self._server = self._embedder = None
        if not pools:
            self._server = _serve(path, socket, _writes, context=context_tokens, parallel=parallel, threads=threads)
        if embeds or pools:
            mean = _pools if pools else _pools_mean
            least = min(parallel, _EMBEDDERS)
            self._embedder = _serve(path, socket, mean, context=context_tokens, parallel=least, threads=threads)
        routes: list[Route] = [] if pools else ["completions"]
        if "tokenizer.chat_template" in head and not pools:
            routes.append("chat")
        size = 0
        if self._embedder is not None:
            routes.append("embeddings")
            size = len(self.embed(["a"], Seat(0, kept=False))[0][0])
        import xllamacpp  # noqa: PLC0415 - heavy, and not for clients

        self.about: Mapping[str, Any] = {
            "context_tokens": context_tokens,
            "embedding_size": size,
            "engine": f"{NAME} (xllamacpp {xllamacpp.__version__})",
            "parallel": parallel,
            "routes": sorted(routes),
        }
        self._routes = frozenset(routes)

    def answer(self, route: Route, normal: Mapping[str, Any], choice: int, seat: Seat, say: Say) -> Counted:
        """As of :class:`strongroom.lm.seated.Seated`."""
        if route not in self._routes:
            raise refused("route")
        asked = {name: normal[name] for name in _PASSED if name in normal} | {
            "cache_prompt": seat.kept,
            "id_slot": seat.number,
            "max_tokens": min(self._most, normal.get("max_tokens", self._most)),
            "return_progress": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if "seed" in normal:
            asked["seed"] = (normal["seed"] + choice) % _SEEDS
        if "logit_bias" in normal:
            asked["logit_bias"] = [[int(token), bias] for token, bias in normal["logit_bias"].items()]
        heard: _Heard
        assert self._server is not None
        if route == "chat":
            if normal.get("logprobs"):
                asked |= {"logprobs": True, "top_logprobs": normal.get("top_logprobs", 0)}
            heard, handle = _Heard(say), self._server.handle_chat_completions
        else:
            if "logprobs" in normal:
                asked["logprobs"] = max(1, normal["logprobs"])
            heard, handle = _HeardText(say, normal.get("logprobs")), self._server.handle_completions
        _call(handle, asked, heard.take)
        if heard.failed is not None:
            raise heard.failed
        return heard.counted()

    def embed(self, texts: Sequence[str], seat: Seat) -> tuple[Sequence[Sequence[float]], int]:
        """As of :class:`strongroom.lm.seated.Seated`."""
        del seat  # texts have a context of their own, and nothing of them is used again
        if self._embedder is None:
            raise refused("route")
        said = json.loads(_call(self._embedder.handle_embeddings, {"input": list(texts), "encoding_format": "base64"}))
        if "error" in said:
            raise _error(said["error"], self._context)
        vectors: list[Sequence[float]] = [()] * len(texts)
        for item in said["data"]:
            numbers = array("f", base64.b64decode(item["embedding"]))
            if sys.byteorder != "little":
                numbers.byteswap()
            vectors[item["index"]] = numbers
        return vectors, int(said["usage"]["prompt_tokens"])


def _serve(path: str, socket: Path, tune: Callable[[Any, int], None], *, context: int, parallel: int, threads: int) -> Any:
    """The library's server, with the model loaded. Raises ModelUnreadable."""
    import xllamacpp as x  # noqa: PLC0415 - heavy, and not for clients

    p = x.CommonParams()
    p.model.path = path
    p.hostnames, p.port, p.n_threads_http = [str(socket)], 0, 1
    p.offline, p.fit_params, p.warmup, p.verbosity = True, False, True, -1
    p.ui, p.endpoint_slots, p.endpoint_props, p.endpoint_metrics = False, False, False, False
    p.n_ctx, p.n_parallel, p.cont_batching, p.ctx_shift = context * parallel, parallel, True, False
    p.cpuparams.n_threads = p.cpuparams_batch.n_threads = threads
    # The weights are used where they lie: repacked ones would stand in memory twice.
    p.load_mode, p.no_extra_bufts = x.llama_load_mode.LLAMA_LOAD_MODE_MMAP, True
    # What was worked out for one question is never kept for a question on another seat.
    p.cache_ram_mib, p.cache_idle_slots, p.n_ctx_checkpoints, p.slot_prompt_similarity = 0, False, 0, 0.0
    tune(p, context)
    socket.unlink(missing_ok=True)
    try:
        return x.Server(p)
    except (RuntimeError, ValueError) as error:
        raise ModelUnreadable("llama.cpp cannot load the model", step="load model") from error
    finally:
        socket.unlink(missing_ok=True)


def _writes(p: Any, _context: int) -> None:
    """A context for each seat: a pool for all would let one question's length end another's."""
    p.kv_unified, p.n_batch, p.n_ubatch = False, _BATCH, _BATCH


def _pools(p: Any, context: int) -> None:
    """A text is worked out in one piece, and only a pool keeps it in one: what is pooled elsewhere is pooled wrongly as soon
    as two texts of different lengths meet (llama.cpp of October 2026; ``tests/test_engine.py`` looks)."""
    p.embedding, p.kv_unified = True, True
    p.n_batch = p.n_ubatch = max(_BATCH, context)


def _pools_mean(p: Any, context: int) -> None:
    """The same of a model that does not say how: the mean over its tokens."""
    import xllamacpp as x  # noqa: PLC0415 - heavy, and not for clients

    _pools(p, context)
    p.pooling_type = x.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN


def _call(handle: Callable[..., Any], asked: Mapping[str, Any], *take: Callable[[bytes], bool]) -> bytes:
    """Ask the library's server. Raises EngineRefused, EngineFailed."""
    body = json.dumps(asked, separators=(",", ":")).encode()
    try:
        found = handle(body, *take)
    except (ValueError, RuntimeError) as error:
        raise _reason(str(error)) from None  # the cause may quote the prompt
    return found if isinstance(found, bytes) else b""


def _reason(text: str) -> EngineError:
    lower = text.lower()
    if "schema" in lower or "grammar" in lower:
        return refused("grammar")
    return refused("template" if "template" in lower or "jinja" in lower else "request")


def _error(said: Mapping[str, Any], context: int) -> EngineError:
    """The error that llama.cpp answered with."""
    kind, text = said.get("type"), str(said.get("message", ""))
    if kind == "exceed_context_size_error":
        return too_long(int(said.get("n_prompt_tokens", 0)), int(said.get("n_ctx", context)))
    if "too large to process" in text:
        tokens = _NUMBER.search(text)
        return too_long(int(tokens[1]) if tokens else 0, context)
    if kind in ("invalid_request_error", "not_supported_error"):
        return _reason(text)
    return EngineFailed("llama.cpp failed")


class _Heard:
    """Takes the chunks of an answer to a chat. What it raises would be lost in the library, so it is kept."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self.failed: BaseException | None = None
        self._prompt, self._cached, self._tokens, self._exact = 0, 0, 0, -1

    def counted(self) -> Counted:
        return Counted(self._prompt, self._exact if self._exact >= 0 else self._tokens, self._cached)

    def take(self, data: bytes) -> bool:
        """Take a chunk; whether to stop."""
        try:
            return self._take(json.loads(data))
        except BaseException as error:  # noqa: BLE001 - see the class
            self.failed = error
            return True

    def _take(self, said: dict[str, Any]) -> bool:
        if "error" in said:
            raise _error(said["error"], 0)
        if "prompt_progress" in said:
            progress = said["prompt_progress"]
            self._prompt, self._cached = progress["total"], progress["cache"]
            return self._say.working()
        usage = said.get("usage")
        if usage:
            self._prompt, self._exact = usage["prompt_tokens"], usage["completion_tokens"]
            self._cached = usage["prompt_tokens_details"]["cached_tokens"]
        stop = False
        for choice in said["choices"]:
            stop = self._choice(choice) or stop
        return stop

    def _choice(self, choice: dict[str, Any]) -> bool:
        delta, logprobs = choice["delta"], _logprobs(choice.get("logprobs"))
        finish = choice["finish_reason"]
        delta.pop("role", None)
        if delta.get("content", "") is None:
            del delta["content"]
        if logprobs is None and finish is None and len(delta) == 1 and "content" in delta:
            self._tokens += 1
            return self._say.text(delta["content"])
        if not delta and finish is None and logprobs is None:
            return self._say.working()
        self._tokens += bool(delta)
        return self._say.piece(delta, finish, logprobs)


class _HeardText(_Heard):
    """The same of a completion.

    Args:
        say: takes the answer.
        likely: how many likely tokens were asked for beside each, or ``None``.
    """

    def __init__(self, say: Say, likely: int | None) -> None:
        super().__init__(say)
        self._likely, self._offset = likely, 0

    def _choice(self, choice: dict[str, Any]) -> bool:
        text, finish, logprobs = choice["text"], choice["finish_reason"], choice.get("logprobs")
        self._tokens += finish is None
        if logprobs is None and finish is None:
            return self._say.text(text) if text else self._say.working()
        found = self._old(logprobs) if logprobs is not None else None
        return self._say.piece({"text": text}, finish, found)

    def _old(self, logprobs: dict[str, Any]) -> dict[str, Any]:
        """As completions have them: four lists side by side."""
        found: dict[str, Any] = {"text_offset": [], "token_logprobs": [], "tokens": [], "top_logprobs": []}
        for one in logprobs["content"]:
            found["text_offset"].append(self._offset)
            found["token_logprobs"].append(one["logprob"])
            found["tokens"].append(one["token"])
            likely = one["top_logprobs"] if self._likely else []
            found["top_logprobs"].append({other["token"]: other["logprob"] for other in likely})
            self._offset += len(one["token"])
        return found


def _logprobs(said: dict[str, Any] | None) -> dict[str, Any] | None:
    """Without llama.cpp's own members."""
    if said is None:
        return None
    keep = ("token", "logprob", "bytes")
    content = [
        {name: one[name] for name in keep} | {"top_logprobs": [{n: other[n] for n in keep} for other in one["top_logprobs"]]}
        for one in said["content"]
    ]
    return {"content": content}
