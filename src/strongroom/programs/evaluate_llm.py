"""``evaluate-llm``: a sealed language model asked sealed questions.

Inputs: ``questions`` (a tar or zip: a task and its dataset), ``model`` (GGUF), and where another model judges the answers
``grader`` (GGUF). Outputs: ``report`` (aggregates) and ``records`` (a row per question). The evaluation is
``inspect_ai``'s, in the same child as the engine. Parameters, inputs and outputs are written down in ``spec/programs.md``.

This module is read by clients too: what is heavy is imported by ``load``, and by ``run``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from . import Input, OutputKind, OutputSpec, Step, Write
from .parameters import Checks

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
SOCKETS: Final = True  # the engine has its server behind one, in /tmp
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

_MAX_GROUPS, _MAX_VALUES, _MAX_VALUE = 16, 256, 64
_MAX_CONTEXT, _MAX_PARALLEL, _MAX_THREADS = 1 << 20, 32, 256
_CHECK: Final = Checks(NAME)


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


def _grouping(value: object) -> Grouping:
    given = _CHECK.members(value, {"name", "key", "values"}, "a group")
    values = None
    if given["values"] is not None:
        values = tuple(
            _CHECK.text(one, "a value", _MAX_VALUE) for one in _CHECK.items(given["values"], "values", 1, _MAX_VALUES)
        )
        _CHECK.distinct(values, "values")
        if any(one.startswith("(") for one in values):
            _CHECK.bad("a value begins with a bracket, as the names of other groups do")
    return Grouping(_CHECK.text(given["name"], "a group's name"), _CHECK.text(given["key"], "a group's key"), values)


def read(parameters: Mapping[str, Any]) -> Parameters:
    """The parameters of a contract.

    Raises:
        BadParameters: see ``spec/programs.md`` for what they must be.
    """
    given = _CHECK.members(parameters, {"questions", *DEFAULTS}, "the parameters")
    answers = _CHECK.flag(given["answers"], "answers")
    if given["grader"] not in (None, MODEL, GRADER):
        _CHECK.bad(f"grader is neither null, {MODEL} nor {GRADER}")
    code = _CHECK.digest(given["scorer_code"], "scorer_code")
    groups = tuple(_grouping(group) for group in _CHECK.items(given["groups"], "groups", 0, _MAX_GROUPS))
    _CHECK.distinct([group.name for group in groups], "groups")
    _CHECK.distinct([group.key for group in groups], "the groups' keys")
    questions = _CHECK.whole(given["questions"], "questions", 1, MAX_QUESTIONS)
    progress = _CHECK.whole(given["progress"], "progress", 0, MAX_QUESTIONS)
    if progress and questions > progress * MAX_TELLS:
        _CHECK.bad(f"progress would be told more than {MAX_TELLS} times")
    context = _CHECK.whole(given["context_tokens"], "context_tokens", 16, _MAX_CONTEXT)
    return Parameters(
        questions=questions,
        answer_tokens=_CHECK.whole(given["answer_tokens"], "answer_tokens", 1, context),
        answers=answers,
        context_tokens=context,
        grader=given["grader"],
        groups=groups,
        parallel=_CHECK.whole(given["parallel"], "parallel", 1, _MAX_PARALLEL),
        progress=progress,
        scorer_code=code,
        seed=_CHECK.whole(given["seed"], "seed", 0, 2**31 - 1),
        temperature=_CHECK.whole(given["temperature"], "temperature", 0, 200),
        threads=_CHECK.whole(given["threads"], "threads", 1, _MAX_THREADS),
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
        _CHECK.bad("a report whose small groups are suppressed has one table at most")
    if 0 < found.progress < smallest:
        _CHECK.bad("progress tells of fewer questions than the smallest group")
    asked = Asked(inputs, found, step)
    step("write", 1000)
    written = {}
    if "report" in outputs:
        written["report"] = asked.report()
    if "records" in outputs:
        written["records"] = asked.records(outputs["records"])
    for name, data in written.items():
        write(name, data)
