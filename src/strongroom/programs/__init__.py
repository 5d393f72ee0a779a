"""The standard programs, and the one protocol that they follow.

A program is a module in this package. It is read by two sides: the proposer's client calls ``check`` (and must not pay for
heavy libraries to do so), the sandboxed child calls ``load`` ahead of the run and then ``run``. It sees its inputs by range,
writes each output once, and says at which step it is. It knows nothing of keys, contracts or the enclave around it.

A program that is *served* has ``serve`` in place of ``run``: its child stays, and answers questions as they come
(``programs/serving.py``).

Imports nothing but ``strongroom.errors``, ``strongroom.lm`` and, when used, third-party libraries. See ``spec/programs.md``
and ``spec/sandbox.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, BinaryIO, Final, Protocol, TypeAlias, cast

from strongroom.errors import (
    BadParameters,
    ModelShape,
    ModelUnreadable,
    OutOfMemory,
    ProgramCrashed,
    ProgramError,
    QuestionsUnreadable,
    TableColumns,
    TableEmpty,
    TableLabels,
    TableNotNumeric,
    TableUnreadable,
)

STEPS: Final = (
    "start",
    "check parameters",
    "load model",
    "read table",
    "predict",
    "measure",
    "draw",
    "read questions",
    "ask",
    "write",
    "program",
)
"""Where a program can be, in a closed list: of a run that failed, the step is all that leaves beside the code."""

CLAIMS: Final[Mapping[str, type[ProgramError]]] = {
    leaf.code: leaf
    for leaf in (
        BadParameters,
        ModelShape,
        ModelUnreadable,
        OutOfMemory,
        ProgramCrashed,
        QuestionsUnreadable,
        TableColumns,
        TableEmpty,
        TableLabels,
        TableNotNumeric,
        TableUnreadable,
    )
}
"""The failures that a program may claim. Those of time, size and protocol are for the parent alone to find."""

_RETRIEVES: Final = (
    *("beside", "datastore", "disk", "document", "gates", "generation", "head", "influence", "leavings", "locks", "nearest"),
    *("packed", "parts", "readout", "retrieval", "retriever", "sentences", "source", "tokenizer", "weights"),
)
_SOURCES: Final[Mapping[str, tuple[str, ...]]] = {
    "code": (
        *(
            f"programs/{file}.py"
            for file in ("code", "analysis", "footer", "handed", "loaded", "returned", "scanned", "texts")
        ),
        *(f"programs/{file}.py" for file in ("joined", "keyed", "keys", "lines", "rows")),  # for the code itself to call
    ),
    "evaluate": tuple(
        f"programs/{file}"
        for file in ("evaluate.py", "evaluation.py", "graph.py", "measure.py", "model.py", "picture.py", "table.py")
    ),
    "evaluate-llm": (
        *(f"programs/{file}" for file in ("evaluate_llm.py", "asked.py", "inspected.py", "questions.py")),
        *(f"lm/{file}" for file in ("__init__.py", "engine.py", "gguf.py", "llama.py", "request.py", "seated.py")),
    ),
    "intersection-size": tuple(
        f"programs/{file}.py"
        for file in ("intersection_size", "keyed", "keys", "lines", "private_answers", "private_query", "rows", "units")
    ),
    "joint-histogram": tuple(
        f"programs/{file}.py"
        for file in (
            *("joint_histogram", "intersection_size", "joint_counts", "keyed", "keys", "lines"),
            *("private_answers", "private_query", "rows", "units"),
        )
    ),
    "match-report": tuple(f"programs/{file}.py" for file in ("match_report", "keyed", "keys", "lines", "rows")),
    "private-query": tuple(f"programs/{file}.py" for file in ("private_query", "private_answers", "lines", "rows", "units")),
    "serve-llm": (
        "programs/serve_llm.py",
        "programs/serving.py",
        *(
            f"lm/{file}.py"
            for file in ("__init__", "engine", "folder", "gguf", "llama", "request", "seated", "transformers")
        ),
        *(f"lm/{file}.py" for file in _RETRIEVES),
    ),
}
_FRAME: Final = (
    "errors.py",
    *(f"programs/{file}" for file in ("__init__.py", "boot.py", "frames.py", "parameters.py", "runner.py", "window.py")),
)

NAMES: Final = tuple(sorted(_SOURCES))
"""The standard programs."""

Step: TypeAlias = Callable[[str, int], None]
"""Says which of ``STEPS`` a program is at, and how many thousandths of the whole it has done."""

Write: TypeAlias = Callable[[str, bytes], None]
"""Writes one output, whole. Each is written once."""


@dataclass(frozen=True, slots=True)
class Input:
    """What a program gets in one of its roles.

    Attributes:
        media_type: as the asset's manifest says.
        size: in bytes.
        opener: what ``open`` calls.
        path: of the whole of it, a file in memory that cannot be written, where the program has the role in ``IN_MEMORY``.
    """

    media_type: str
    size: int
    opener: Callable[[], BinaryIO]
    path: str | None = None

    def open(self) -> BinaryIO:
        """A seekable file that reads only the ranges asked for."""
        return self.opener()


@dataclass(frozen=True, slots=True)
class OutputKind:
    """What a program can write under one name: a kind of the policy's closed list, and a media type."""

    kind: str
    media_type: str


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """An output that the contract wants, and as much of its rule as the program can honour itself.

    Attributes:
        kind: one of the policy's output kinds.
        max_bytes: the largest size.
        min_group: groups of fewer records than this must not be told apart.
        decimals: the most decimal places that will be kept.
    """

    kind: str
    max_bytes: int
    min_group: int
    decimals: int


class Program(Protocol):
    """What a standard program's module holds."""

    NAME: str
    ROLES: frozenset[str]
    OUTPUTS: Mapping[str, OutputKind]
    DEFAULTS: Mapping[str, Any]  # parameters that a person need not say; a proposal says all of them
    LIBRARIES: tuple[str, ...]

    def check(self, parameters: Mapping[str, Any]) -> None:
        """Refuse parameters that no run could use, without heavy imports. Raises BadParameters."""

    def load(self, outputs: Collection[str]) -> None:
        """Import what it takes to write these outputs, before there is anything to read."""

    def run(
        self,
        inputs: Mapping[str, Input],
        parameters: Mapping[str, Any],
        outputs: Mapping[str, OutputSpec],
        write: Write,
        step: Step,
    ) -> None:
        """Do it. Raises ProgramError with one of ``CLAIMS``."""


def load(name: str) -> Program:
    """A standard program by its name.

    Raises:
        BadParameters: there is none of this name.
    """
    return cast("Program", import_module(modules(name)[0]))


def roles(name: str, parameters: Mapping[str, Any]) -> frozenset[str]:
    """The roles of a program's inputs, under these parameters: one that is served has a role for each model.

    Raises:
        BadParameters: there is none of this name, or it cannot use its parameters.
    """
    program = load(name)
    program.check(parameters)
    named = getattr(program, "roles", None)
    return program.ROLES if named is None else cast("frozenset[str]", named(parameters))


def outputs(name: str, parameters: Mapping[str, Any]) -> Mapping[str, OutputKind]:
    """What a program can write, under these parameters: one that runs submitted code writes what they say.

    Raises:
        BadParameters: there is none of this name, or it cannot use its parameters.
    """
    program = load(name)
    program.check(parameters)
    named = getattr(program, "outputs", None)
    return program.OUTPUTS if named is None else cast("Mapping[str, OutputKind]", named(parameters))


def use(name: str) -> str:
    """The use of data that a program makes: the one that it is named for, where it does not say another.

    Raises:
        BadParameters: there is none of this name.
    """
    program = load(name)
    return str(getattr(program, "USE", program.NAME))


def charges(name: str, parameters: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What a run of a program would spend of the budgets of its inputs: role -> events in JSON (``spec/budget.md``).

    A program whose answers are differentially private has a function ``charges(parameters)``; of any other nothing can be
    said.

    Returns:
        ``None`` where the program has no such function.

    Raises:
        BadParameters: there is none of this name, or it cannot use its parameters.
    """
    program = load(name)
    program.check(parameters)
    said = getattr(program, "charges", None)
    return None if said is None else cast("Mapping[str, Any]", said(parameters))


def schemas(name: str, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the outputs of a program hold under these parameters, where it says so: name -> schema in JSON.

    Raises:
        BadParameters: there is none of this name, or it cannot use its parameters.
    """
    program = load(name)
    program.check(parameters)
    said = getattr(program, "schemas", None)
    return {} if said is None else cast("Mapping[str, Any]", said(parameters))


def modules(name: str) -> tuple[str, ...]:
    """The modules that a standard program alone is made of; the first is the one to load. Raises BadParameters."""
    dotted = (file.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for file in _known(name))
    return tuple(f"{__name__.partition('.')[0]}.{module}" for module in dotted)


def sources(name: str) -> tuple[str, ...]:
    """The files that a standard program is made of, relative to the package, sorted: what its digest covers, and all of
    Strongroom that enters its sandbox.

    Raises:
        BadParameters: there is none of this name.
    """
    return tuple(sorted([*_FRAME, *_known(name)]))


def _known(name: str) -> tuple[str, ...]:
    if name not in _SOURCES:
        raise BadParameters(f"there is no standard program {name[:64]!r}; there are: {', '.join(NAMES)}", step="start")
    return _SOURCES[name]
