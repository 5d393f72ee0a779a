"""``serve-llm``: language models that answer requests for as long as a contract stands.

Inputs: the weights of each model, in the role that the parameters give it, and the sealed sources that a retrieval model
draws from, in theirs. It writes no outputs: it is served, and not run.
One child for each model. Parameters are written down in ``spec/programs.md``.

This module is read by clients too: what is heavy is imported by ``load``, and by ``serve``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from . import Input, OutputKind, OutputSpec, Step, Write
from .parameters import Checks

if TYPE_CHECKING:
    from strongroom.lm.seated import Seated

NAME: Final = "serve-llm"
ROLES: Final = frozenset({"model"})
"""Of one model; others are named by the parameters, and ``roles`` says them."""

OUTPUTS: Final[Mapping[str, OutputKind]] = {}
DEFAULTS: Final[Mapping[str, Any]] = {
    "context_tokens": 4096,
    "guard": None,
    "max_tokens": 1024,
    "parallel": 8,
    "threads": 1,
}
LIBRARIES: Final = ()
"""None that every engine needs: see ``ENGINES``."""

ENGINES: Final[Mapping[str, tuple[str, ...]]] = {
    "llama.cpp": ("xllamacpp",),
    "retrieval": ("torch", "faiss", "tokenizers", "safetensors"),
    "transformers": ("torch", "transformers", "tokenizers", "jinja2"),
}
"""The engines that run in a child, and the libraries that each needs."""

RETRIEVAL: Final = "retrieval"
"""The engine that draws from sources."""

HEAVY: Final = frozenset({"strongroom.lm.beside", "strongroom.lm.gates", "strongroom.lm.readout"})
"""Modules of this program that cannot be read without an engine's library: no process is made ready with them without it."""

SIDECARS: Final = ("sidecar", "vllm")
"""Servers beside the enclave's process. What such a model's role holds is no weights but the sidecar's description."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}\Z")
_ROLE = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?\Z")
_CHECK: Final = Checks(NAME)
_SOURCE = re.compile(r"[a-z][a-z0-9._-]{0,63}\Z")
_UNIT = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}\Z")
_SOURCE_MEMBERS = frozenset({"name", "price", "role", "token", "total", "unit", "weights"})
MAX_MODELS, MAX_PARALLEL, MAX_THREADS, MAX_CONTEXT = 16, 64, 256, 1 << 20
MAX_SOURCES, MAX_DRAWN, MAX_PRICE = 16, 1024, 10**12
GRAIN, MAX_TOTAL = 1 << 20, 1 << 40


@dataclass(frozen=True, slots=True)
class Model:
    """A model that is served.

    Attributes:
        name: by which it is asked for.
        role: of its weights among the contract's assets.
        engine: one of ``ENGINES`` or ``SIDECARS``.
    """

    name: str
    role: str
    engine: str


@dataclass(frozen=True, slots=True)
class Source:
    """A sealed source that the retrieval model draws from, as it was agreed (``spec/drawing.md``).

    Attributes:
        name: in the store.
        role: among the contract's assets.
        weights: ``sha256:`` digest of the weights of the model that draws.
        price: whole units for a thousand tokens drawn.
        unit: their name.
        token, total: grains of one token, and of one answer, at most.
    """

    name: str
    role: str
    weights: str
    price: int
    unit: str
    token: int
    total: int


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a contract says of the models that it serves.

    Attributes:
        models: at least one, of distinct names.
        context_tokens: the longest prompt and answer together; less where a model was made for less.
        parallel: how many questions each model works on at once.
        threads: that each model computes with.
        max_tokens: the longest answer.
        guard: the role of the model that guards the others, or ``None``.
        guards: settings by guard (``spec/guards.md``); one that is not there has its defaults.
        sources: what the retrieval model draws from; none where there is no such model.
    """

    models: tuple[Model, ...]
    context_tokens: int
    parallel: int
    threads: int
    max_tokens: int
    guard: str | None
    guards: Mapping[str, Any] = field(default_factory=dict)
    sources: tuple[Source, ...] = ()


def _model(value: object) -> Model:
    given = _CHECK.members(value, {"name", "role", "engine"}, "a model")
    known = sorted([*ENGINES, *SIDECARS])
    if not isinstance(given["engine"], str) or given["engine"] not in known:
        _CHECK.bad(f"engine is not one of {', '.join(known)}")
    return Model(
        _CHECK.matching(given["name"], _NAME, "a model's name"),
        _CHECK.matching(given["role"], _ROLE, "a model's role"),
        given["engine"],
    )


def _source(value: object) -> Source:
    given = _CHECK.members(value, set(_SOURCE_MEMBERS), "a source")
    if _CHECK.digest(given["weights"], "a source's weights") is None:
        _CHECK.bad("a source does not say by which weights it is drawn from")
    return Source(
        _CHECK.matching(given["name"], _SOURCE, "a source's name"),
        _CHECK.matching(given["role"], _ROLE, "a source's role"),
        given["weights"],
        _CHECK.whole(given["price"], "a source's price", 0, MAX_PRICE),
        _CHECK.matching(given["unit"], _UNIT, "a source's unit"),
        _CHECK.whole(given["token"], "a source's token", 1, GRAIN),
        _CHECK.whole(given["total"], "a source's total", 1, MAX_TOTAL),
    )


def _sources(value: object, models: tuple[Model, ...], max_tokens: int) -> tuple[Source, ...]:
    """The sources; there are some exactly where one model retrieves, and answers are short enough for their receipts."""
    found = tuple(_source(source) for source in _CHECK.items(value, "sources", 0, MAX_SOURCES))
    retrieving = sum(model.engine == RETRIEVAL for model in models)
    if retrieving != bool(found):
        _CHECK.bad("sources are of one model with the engine retrieval, and of no other")
    _CHECK.distinct([source.name for source in found], "sources")
    _CHECK.distinct([*(s.role for s in found), *(model.role for model in models)], "the roles of models and sources")
    if found and max_tokens > MAX_DRAWN:
        _CHECK.bad(f"with sources max_tokens is at most {MAX_DRAWN:,}")
    return found


def read(parameters: Mapping[str, Any]) -> Parameters:
    """The parameters of a contract.

    Raises:
        BadParameters: see ``spec/programs.md`` for what they must be.
    """
    from .guards import check as check_guards  # noqa: PLC0415 - not for the child, where it is not

    whole = {"guards": {}, "sources": [], **parameters} if isinstance(parameters, Mapping) else parameters
    given = _CHECK.members(whole, {"guards", "models", "sources", *DEFAULTS}, "the parameters")
    check_guards(given["guards"])
    found = tuple(_model(model) for model in _CHECK.items(given["models"], "models", 1, MAX_MODELS))
    for what in ("name", "role"):
        if len({getattr(model, what) for model in found}) != len(found):
            _CHECK.bad(f"two models have one {what}")
    guard = given["guard"]
    if guard is not None and guard not in {model.role for model in found}:
        _CHECK.bad("guard is no model's role")
    if any(model.engine == RETRIEVAL for model in found if model.role == guard):
        _CHECK.bad("a model that draws from sources is asked by users, whose receipts say what it drew, and guards nothing")
    context = _CHECK.whole(given["context_tokens"], "context_tokens", 1, MAX_CONTEXT)
    most = _CHECK.whole(given["max_tokens"], "max_tokens", 1, context)
    return Parameters(
        models=found,
        context_tokens=context,
        parallel=_CHECK.whole(given["parallel"], "parallel", 1, MAX_PARALLEL),
        threads=_CHECK.whole(given["threads"], "threads", 1, MAX_THREADS),
        max_tokens=most,
        guard=guard,
        guards=given["guards"],
        sources=_sources(given["sources"], found, most),
    )


def check(parameters: Mapping[str, Any]) -> None:
    """Raises BadParameters."""
    read(parameters)


def roles(parameters: Mapping[str, Any]) -> frozenset[str]:
    """The roles of the models, and of the sources. Raises BadParameters."""
    found = read(parameters)
    return frozenset([*(model.role for model in found.models), *(source.role for source in found.sources)])


def load(outputs: Collection[str]) -> None:
    """Import what it takes to serve.

    Args:
        outputs: the names of engines, where other programs have outputs.
    """
    for engine in sorted(outputs):
        for library in ENGINES[engine]:
            import_module(library)
    import_module("strongroom.programs.serving")


def run(
    inputs: Mapping[str, Input],
    parameters: Mapping[str, Any],
    outputs: Mapping[str, OutputSpec],
    write: Write,
    step: Step,
) -> None:
    """Raises BadParameters: a room is opened for it, and no run."""
    del inputs, parameters, outputs, write, step
    _CHECK.bad("it is served under a standing contract, and not run")


def serve(channel: Any) -> None:
    """The child's whole life once it is ready: see ``programs/serving.py``.

    Args:
        channel: a socket, connected to the parent.
    """
    from . import serving  # noqa: PLC0415 - the child's alone

    serving.serve(channel, _open)


def _open(said: Mapping[str, Any], weights: str, place: Path) -> Seated:
    """Load a model in its engine. Raises ModelUnreadable."""
    names = ("context_tokens", "parallel", "threads", "max_tokens", "embeds")
    if said["engine"] == RETRIEVAL:
        from strongroom.lm.retrieval import Retrieval  # noqa: PLC0415 - the child's alone

        given = {name: said[name] for name in (*names, "files", "sources")}
        return Retrieval(weights, place, **given)
    opens: Callable[..., Seated]
    if said["engine"] == "transformers":
        from strongroom.lm.transformers import Transformers  # noqa: PLC0415 - the child's alone

        opens = Transformers
    else:
        from strongroom.lm.llama import Llama  # noqa: PLC0415 - the child's alone

        opens = Llama
    return opens(weights, place, **{name: said[name] for name in names})
