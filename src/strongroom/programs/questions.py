"""A sealed set of questions: a tar or zip with ``task.json``, the dataset as JSON lines, and perhaps the owner's scorer.

Everything in it is read strictly into plain values; solvers and scorers are named from closed lists. Nothing is unpacked to
files, and nothing in it is fetched.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, NoReturn

from strongroom.errors import QuestionsUnreadable

from . import Input

FORMAT: Final = "strongroom.task.v1"
TASK: Final = "task.json"
ROUTES: Final = ("chat", "completions")

MAX_MEMBERS, MAX_BYTES, MAX_CHARS = 16, 256 << 20, 1 << 20
_MAX_TASK, _MAX_CODE = 1 << 20, 1 << 20
_MAX_TEXT, _MAX_NAME, _MAX_STEPS, _MAX_TARGETS, _MAX_CHOICES, _MAX_STOPS, _MAX_METADATA = 65_536, 64, 8, 64, 26, 4, 64
_PATH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_FUNCTION = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")


# What Python's readers of archives raise of what is none.
_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    RuntimeError,  # NotImplementedError among them: a way of packing that is not known
    ValueError,
)


@dataclass(frozen=True, slots=True)
class Used:
    """A solver or scorer from its closed list, with its arguments."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """One question.

    Attributes:
        messages: role (``system``, ``user``, ``assistant``) and text of each; of a completion one alone.
        target: what the answer is compared with, one or more.
        choices: of a multiple choice; else empty.
        metadata: texts by key, for the groups.
    """

    messages: tuple[tuple[str, str], ...]
    target: tuple[str, ...]
    choices: tuple[str, ...]
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Task:
    """What is asked, and how it is judged.

    Attributes:
        name: of the task.
        route: ``chat``, or ``completions`` for a model without a chat template.
        solver: what is done with each question, in order.
        scorer: what judges the answer.
        code: the owner's scorer, source text; empty where there is none.
        code_digest: of its bytes, or ``None``.
        stop: texts that end an answer.
        questions: all of them.
    """

    name: str
    route: str
    solver: tuple[Used, ...]
    scorer: Used
    code: str
    code_digest: str | None
    stop: tuple[str, ...]
    questions: tuple[Question, ...]


def _refuse(why: str) -> NoReturn:
    raise QuestionsUnreadable(why, step="read questions")


# --- values ---------------------------------------------------------------------------------------------------------


def _text(value: object, what: str, most: int = _MAX_TEXT, least: int = 1) -> str:
    if not isinstance(value, str) or not least <= len(value) <= most:
        _refuse(f"{what} is not a text of {least} to {most} characters")
    return value


def _truth(value: object, what: str) -> bool:
    if not isinstance(value, bool):
        _refuse(f"{what} is neither true nor false")
    return value


def _one_of(*choices: str) -> Callable[[object, str], str]:
    def read(value: object, what: str) -> str:
        if value not in choices:
            _refuse(f"{what} is none of {', '.join(choices)}")
        return str(value)

    return read


def _pattern(value: object, what: str) -> str:
    found = _text(value, what, 4096)
    try:
        re.compile(found)
    except (re.error, RecursionError, OverflowError):
        _refuse(f"{what} is no regular expression")
    return found


def _with(placeholder: str) -> Callable[[object, str], str]:
    def read(value: object, what: str) -> str:
        found = _text(value, what)
        if placeholder not in found:
            _refuse(f"{what} has no place for {placeholder}")
        return found

    return read


def _function(value: object, what: str) -> str:
    found = _text(value, what, _MAX_NAME)
    if not _FUNCTION.match(found):
        _refuse(f"{what} is no function's name")
    return found


_Read = Callable[[object, str], Any]
_GRADED: Final[Mapping[str, _Read]] = {
    "template": _with("{answer}"),
    "instructions": _text,
    "grade_pattern": _pattern,
    "partial_credit": _truth,
}
SOLVERS: Final[Mapping[str, Mapping[str, _Read]]] = {
    "chain_of_thought": {"template": _with("{prompt}")},
    "generate": {},
    "multiple_choice": {"template": _with("{question}"), "cot": _truth, "multiple_correct": _truth},
    "prompt_template": {"template": _with("{prompt}")},
    "system_message": {"template": _text},
}
"""inspect_ai's solvers that a task may use, with the arguments that it may give."""

SCORERS: Final[Mapping[str, Mapping[str, _Read]]] = {
    "answer": {"pattern": _one_of("letter", "word", "line")},
    "choice": {},
    "code": {"function": _function},
    "exact": {},
    "f1": {},
    "includes": {"ignore_case": _truth},
    "match": {"location": _one_of("begin", "end", "any", "exact"), "ignore_case": _truth, "numeric": _truth},
    "model_graded_fact": _GRADED,
    "model_graded_qa": _GRADED,
    "pattern": {"pattern": _pattern, "ignore_case": _truth, "match_all": _truth},
}
"""inspect_ai's scorers, and ``code``: a function of the owner's own."""

_NEEDED: Final = {
    "answer": ("pattern",),
    "code": ("function",),
    "pattern": ("pattern",),
    "prompt_template": ("template",),
    "system_message": ("template",),
}


def _used(value: object, known: Mapping[str, Mapping[str, _Read]], what: str) -> Used:
    if not isinstance(value, dict) or value.get("use") not in known:
        _refuse(f"a {what} is none of {', '.join(sorted(known))}")
    name = value["use"]
    given = {key: item for key, item in value.items() if key != "use"}
    if not set(given) <= set(known[name]) or not set(_NEEDED.get(name, ())) <= set(given):
        _refuse(f"the {what} {name} has a member too many, or one too few")
    return Used(name, {key: known[name][key](item, f"{name}: {key}") for key, item in given.items()})


def _texts(value: object, what: str, most: int) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > most:
        _refuse(f"{what} is not a list of at most {most} texts")
    return tuple(_text(one, what) for one in value)


def _messages(value: object) -> tuple[tuple[str, str], ...]:
    if isinstance(value, str):
        return (("user", _text(value, "input", MAX_CHARS)),)
    if not isinstance(value, list) or not 1 <= len(value) <= 256:
        _refuse("an input is neither a text nor a list of messages")
    found = []
    for message in value:
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            _refuse("a message does not have exactly the members content, role")
        role = _one_of("system", "user", "assistant")(message["role"], "a role")
        found.append((role, _text(message["content"], "content", MAX_CHARS)))
    return tuple(found)


def _metadata(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > _MAX_METADATA:
        _refuse(f"metadata is not an object of at most {_MAX_METADATA} members")
    found = {}
    for key, item in value.items():
        if isinstance(item, bool | float) or not isinstance(item, str | int | None):
            _refuse("metadata holds something else than texts and whole numbers")
        if item is not None:
            found[key] = _text(str(item), "metadata", _MAX_TEXT, 0)
    return found


def _question(value: object, route: str) -> Question:
    if not isinstance(value, dict) or not {"input", "target"} <= set(value) <= {"choices", "input", "metadata", "target"}:
        _refuse("a question does not have the members input and target, or another than choices and metadata beside them")
    target = value["target"]
    choices = _texts(value.get("choices", []), "choices", _MAX_CHOICES)
    found = Question(
        messages=_messages(value["input"]),
        target=(_text(target, "target"),) if isinstance(target, str) else _texts(target, "target", _MAX_TARGETS),
        choices=choices,
        metadata=_metadata(value.get("metadata", {})),
    )
    if not found.target:
        _refuse("a question has no target")
    if route == "completions" and len(found.messages) > 1:
        _refuse("a question for a completion is one text")
    return found


# --- files ----------------------------------------------------------------------------------------------------------


def _from_tar(file: BinaryIO) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            if member.isdir():
                continue
            if not member.isreg() or member.size > MAX_BYTES:
                _refuse("the archive holds something else than files of its size")
            opened = archive.extractfile(member)
            yield member.name, opened.read() if opened else b""


def _from_zip(file: BinaryIO) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            if info.file_size > MAX_BYTES or info.flag_bits & 1:
                _refuse("the archive holds something else than files of its size")
            with archive.open(info) as opened:
                yield info.filename, opened.read(MAX_BYTES + 1)


def files(source: Input) -> dict[str, bytes]:
    """The files of a tar (not compressed) or a zip, by name. Raises QuestionsUnreadable."""
    found: dict[str, bytes] = {}
    left = MAX_BYTES
    try:
        with source.open() as file:
            head = file.read(4)
            file.seek(0)
            for path, data in (_from_zip if head[:2] == b"PK" else _from_tar)(file):
                name = path.removeprefix("./")
                left -= len(data)
                if not _PATH.match(name) or name in found or len(found) == MAX_MEMBERS or left < 0:
                    _refuse("the archive has a member of another folder or name, one twice, too many, or too much")
                found[name] = data
    except _BROKEN as error:
        raise QuestionsUnreadable("the questions are neither a tar nor a zip", step="read questions") from error
    return found


def _json(data: bytes, what: str) -> Any:
    def pairs(members: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(members)) != len(members):
            _refuse(f"{what} has a member twice")
        return dict(members)

    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=pairs)
    except (ValueError, RecursionError):
        _refuse(f"{what} is not JSON in UTF-8")


def read(source: Input) -> Task:
    """Read a task.

    Raises:
        QuestionsUnreadable: it is not of its form (``spec/programs.md``).
    """
    found = files(source)
    if len(found.get(TASK, b"")) > _MAX_TASK:
        _refuse("the task is too long")
    said = _json(found.pop(TASK, b""), "the task")
    members = {"dataset", "format", "name", "route", "scorer", "solver", "stop"}
    if not isinstance(said, dict) or set(said) - {"code"} != members or said["format"] != FORMAT:
        _refuse(f"the task does not have exactly the members {', '.join(sorted(members))}, and code where it brings some")
    route = _one_of(*ROUTES)(said["route"], "route")
    steps = said["solver"]
    if not isinstance(steps, list) or not 1 <= len(steps) <= _MAX_STEPS:
        _refuse(f"solver is not a list of 1 to {_MAX_STEPS} steps")
    solver = tuple(_used(step, SOLVERS, "solver") for step in steps)
    if solver[-1].name not in ("generate", "multiple_choice"):
        _refuse("the last solver is neither generate nor multiple_choice")
    scorer = _used(said["scorer"], SCORERS, "scorer")
    code = found.pop(str(said["code"]), None) if "code" in said else None
    if ("code" in said) != (scorer.name == "code") or ("code" in said and (code is None or len(code) > _MAX_CODE)):
        _refuse("the task's code is missing, too long, or not used")
    lines = found.pop(str(said["dataset"]), None)
    if lines is None or found:
        _refuse("the dataset is missing, or there is a file that the task does not name")
    questions = tuple(_question(_json(line, "a question"), route) for line in io.BytesIO(lines) if not line.isspace())
    if any(step.name == "multiple_choice" for step in solver) and not all(q.choices for q in questions):
        _refuse("a question has no choices")
    return Task(
        name=_text(said["name"], "name", _MAX_NAME),
        route=route,
        solver=solver,
        scorer=scorer,
        code=_decoded(code),
        code_digest=None if code is None else "sha256:" + hashlib.sha256(code).hexdigest(),
        stop=_texts(said["stop"], "stop", _MAX_STOPS),
        questions=questions,
    )


def _decoded(code: bytes | None) -> str:
    try:
        return (code or b"").decode("utf-8")
    except UnicodeDecodeError:
        _refuse("the task's code is not UTF-8")
