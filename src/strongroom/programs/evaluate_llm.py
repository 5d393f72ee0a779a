"""``evaluate-llm``: a sealed language model asked sealed questions.

Inputs: ``questions`` (a tar or zip: a task and its dataset), ``model`` (GGUF), and where another model judges the answers
``grader`` (GGUF). Outputs: ``report`` (aggregates) and ``records`` (a row per question). The evaluation is
``inspect_ai``'s, in the same child as the engine. Parameters, inputs and outputs are written down in ``spec/programs.md``.

This module is read by clients too: what is heavy is imported by ``load``, and by ``run``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from strongroom.errors import BadParameters

from . import Input, OutputKind, OutputSpec, Step, Write

NAME: Final = "evaluate-llm"
MODEL, QUESTIONS, GRADER = "model", "questions", "grader"
ROLES: Final = frozenset({MODEL, QUESTIONS})
"""Without a grader of its own; ``roles`` says whether there is one."""

OUTPUTS: Final[Mapping[str, OutputKind]] = {
    "report": OutputKind("report", "application/json"),
    "records": OutputKind("records", "text/csv"),
    "log": OutputKind("log", "text/plain"),
}
DEFAULTS: Final[Mapping[str, Any]] = {
    "answer_tokens": 256,
    "answers": False,
    "context_tokens": 4096,
    "grader": None,
    "groups": [],
    "parallel": 4,
    "progress": 0,
    "scorer_code": None,
    "seed": 1,
    "temperature": 0,
    "threads": 1,
}
LIBRARIES: Final = ("inspect_ai", "xllamacpp")
IN_MEMORY: Final = frozenset({MODEL, GRADER})
ENVIRONMENT: Final[Mapping[str, str]] = {
    # inspect_ai would write what it traces, and where its last log is, below the home folder.
    "HOME": "/tmp",  # noqa: S108 - in the sandbox it is memory, and the child's own
    "INSPECT_TRACE_FILE": "/tmp/trace.log",  # noqa: S108
    "INSPECT_TRACE_LEVEL": "CRITICAL",
    "XDG_CACHE_HOME": "/tmp",  # noqa: S108
    "XDG_DATA_HOME": "/tmp",  # noqa: S108
}

MAX_QUESTIONS: Final = 1_000_000
MAX_TELLS: Final = 100
"""How often progress may be told in one run: each time says a little of how long the answers are."""

_MAX_GROUPS, _MAX_VALUES, _MAX_TEXT, _MAX_VALUE = 16, 256, 128, 64
_MAX_CONTEXT, _MAX_PARALLEL, _MAX_THREADS = 1 << 20, 32, 256
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True)
class Grouping:
    """How questions are divided for one table of the report.

    Attributes:
        name: of the table.
        key: of the questions' metadata.
        values: that have a group each, agreed on; or ``None`` for a group per distinct value.
    """

    name: str
    key: str
    values: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a contract says of one evaluation.

    Attributes:
        questions: how many there are: all are asked.
        answer_tokens: the longest answer.
        answers: whether records show what was answered.
        context_tokens: the longest question and answer together; less where the model was made for less.
        grader: which role's model judges answers, or ``None``.
        groups: how questions are divided.
        parallel: how many questions are asked at once.
        progress: after how many questions each time the parties hear how far it is; 0 for never.
        scorer_code: the digest of the owner's scorer, where the task brings one.
        seed: of the sampling.
        temperature: of the sampling, hundredths.
        threads: that each model computes with.
    """

    questions: int
    answer_tokens: int
    answers: bool
    context_tokens: int
    grader: str | None
    groups: tuple[Grouping, ...]
    parallel: int
    progress: int
    scorer_code: str | None
    seed: int
    temperature: int
    threads: int


def bad(why: str) -> NoReturn:
    """Raises BadParameters."""
    raise BadParameters(f"{NAME}: {why}", step="check parameters")


def _text(value: object, what: str, most: int = _MAX_TEXT) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= most or not value.isprintable():
        bad(f"{what} is not a text of 1 to {most} printable characters")
    return value


def _members(value: object, names: set[str], what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or set(value) != names:
        bad(f"{what} does not have exactly the members {', '.join(sorted(names))}")
    return value


def _list(value: object, what: str, low: int, high: int) -> list[Any]:
    if not isinstance(value, list | tuple) or not low <= len(value) <= high:
        bad(f"{what} is not a list of {low} to {high} items")
    return list(value)


def _whole(value: object, what: str, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        bad(f"{what} is not a whole number from {low:,} to {high:,}")
    return value


def _distinct(values: Collection[str], what: str) -> None:
    if len(set(values)) != len(values):
        bad(f"{what} name something twice")


def _grouping(value: object) -> Grouping:
    given = _members(value, {"name", "key", "values"}, "a group")
    values = None
    if given["values"] is not None:
        values = tuple(_text(one, "a value", _MAX_VALUE) for one in _list(given["values"], "values", 1, _MAX_VALUES))
        _distinct(values, "values")
        if any(one.startswith("(") for one in values):
            bad("a value begins with a bracket, as the names of other groups do")
    return Grouping(_text(given["name"], "a group's name"), _text(given["key"], "a group's key"), values)


def read(parameters: Mapping[str, Any]) -> Parameters:
    """The parameters of a contract.

    Raises:
        BadParameters: see ``spec/programs.md`` for what they must be.
    """
    given = _members(parameters, {"questions", *DEFAULTS}, "the parameters")
    if not isinstance(given["answers"], bool):
        bad("answers is neither true nor false")
    if given["grader"] not in (None, MODEL, GRADER):
        bad(f"grader is neither null, {MODEL} nor {GRADER}")
    code = given["scorer_code"]
    if code is not None and (not isinstance(code, str) or not _DIGEST.match(code)):
        bad("scorer_code is neither null nor a digest")
    groups = tuple(_grouping(group) for group in _list(given["groups"], "groups", 0, _MAX_GROUPS))
    _distinct([group.name for group in groups], "groups")
    _distinct([group.key for group in groups], "the groups' keys")
    questions = _whole(given["questions"], "questions", 1, MAX_QUESTIONS)
    progress = _whole(given["progress"], "progress", 0, MAX_QUESTIONS)
    if progress and questions > progress * MAX_TELLS:
        bad(f"progress would be told more than {MAX_TELLS} times")
    context = _whole(given["context_tokens"], "context_tokens", 16, _MAX_CONTEXT)
    return Parameters(
        questions=questions,
        answer_tokens=_whole(given["answer_tokens"], "answer_tokens", 1, context),
        answers=given["answers"],
        context_tokens=context,
        grader=given["grader"],
        groups=groups,
        parallel=_whole(given["parallel"], "parallel", 1, _MAX_PARALLEL),
        progress=progress,
        scorer_code=code,
        seed=_whole(given["seed"], "seed", 0, 2**31 - 1),
        temperature=_whole(given["temperature"], "temperature", 0, 200),
        threads=_whole(given["threads"], "threads", 1, _MAX_THREADS),
    )


def check(parameters: Mapping[str, Any]) -> None:
    """Raises BadParameters."""
    read(parameters)


def roles(parameters: Mapping[str, Any]) -> frozenset[str]:
    """The roles of the inputs. Raises BadParameters."""
    return ROLES | ({GRADER} if read(parameters).grader == GRADER else frozenset())


def load(outputs: Collection[str]) -> None:
    """Import what it takes."""
    del outputs
    import xllamacpp  # noqa: F401, PLC0415 - heavy, and not for clients

    from . import asked, inspected  # noqa: F401, PLC0415 - heavy, and not for clients

    inspected.rehearse()


def run(
    inputs: Mapping[str, Input],
    parameters: Mapping[str, Any],
    outputs: Mapping[str, OutputSpec],
    write: Write,
    step: Step,
) -> None:
    """Ask, have the answers judged, and write the outputs that are wanted.

    Raises:
        BadParameters: as ``check``, or parameters that do not fit the questions or the outputs' rules.
        QuestionsUnreadable: the task is not of its form.
        ModelUnreadable, ModelShape: no model, or none that can be asked so.
    """
    from .asked import Asked  # noqa: PLC0415 - heavy, and not for clients

    found = read(parameters)
    smallest = max([spec.min_group for spec in outputs.values()], default=1)
    if smallest > 1 and len(found.groups) > 1:
        bad("a report whose small groups are suppressed has one table at most")
    if 0 < found.progress < smallest:
        bad("progress tells of fewer questions than the smallest group")
    asked = Asked(inputs, found, step)
    step("write", 1000)
    written = {}
    if "report" in outputs:
        written["report"] = asked.report()
    if "records" in outputs:
        written["records"] = asked.records(outputs["records"])
    for name, data in written.items():
        write(name, data)
