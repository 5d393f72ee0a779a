"""``evaluate-llm``: sealed questions put to a sealed model by inspect_ai, in the sandbox; figures out, and nothing else."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import importlib
import io
import json
import logging
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom import programs
from strongroom.app.enclave.server import counted
from strongroom.enclave import sandbox, sandbox_job
from strongroom.errors import (
    BadParameters,
    EngineFailed,
    ModelShape,
    ModelUnreadable,
    NoSandbox,
    OutOfMemory,
    PromptTooLong,
    QuestionsUnreadable,
    Truncated,
)
from strongroom.output import enforce
from strongroom.policy import ANY_PARTY, OutputRule, Policy
from strongroom.programs import Input, OutputSpec, evaluate_llm, questions

TASK: dict[str, Any] = {
    "dataset": "questions.jsonl",
    "format": "strongroom.task.v1",
    "name": "a task",
    "route": "chat",
    "scorer": {"use": "match"},
    "solver": [{"use": "generate"}],
    "stop": [],
}
QUESTION: dict[str, Any] = {"input": "What is two and two?", "metadata": {"kind": "sum"}, "target": "4"}
MARKER = "xylograph-7781"
GIVEN: dict[str, Any] = {**evaluate_llm.DEFAULTS, "questions": 1}
REPORT = OutputSpec("report", 1 << 20, 1, 15)
RECORDS = OutputSpec("records", 1 << 20, 1, 4)


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """inspect_ai takes the logging of its process over. In a run that is the child's; here it is every other test's."""
    loggers = [logging.root, *(one for one in logging.root.manager.loggerDict.values() if isinstance(one, logging.Logger))]
    before = [(one, one.level, one.handlers[:], one.propagate, one.disabled) for one in loggers]
    disabled = logging.root.manager.disable
    yield
    logging.disable(disabled)
    for one, level, handlers, propagate, off in before:
        one.setLevel(level)
        one.handlers[:], one.propagate, one.disabled = handlers, propagate, off


def tar(files: Any) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items() if isinstance(files, Mapping) else files:
            about = tarfile.TarInfo(name)
            about.size = len(data)
            archive.addfile(about, io.BytesIO(data))
    return out.getvalue()


def zipped(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def lines(*found: Any) -> bytes:
    return "\n".join(json.dumps(one) for one in found).encode()


def packed(
    task: Any = None, asked: bytes | None = None, pack: Callable[[Mapping[str, bytes]], bytes] = tar, **more: bytes
) -> bytes:
    said = json.dumps(TASK if task is None else task).encode()
    data = lines(QUESTION) if asked is None else asked
    return pack({"task.json": said, "questions.jsonl": data, **{name.replace("__", "."): d for name, d in more.items()}})


def source(data: bytes) -> Input:
    return Input("application/x-tar", len(data), lambda: io.BytesIO(data))


def read(data: bytes) -> questions.Task:
    return questions.read(source(data))


# --- parameters -----------------------------------------------------------------------------------------------------


def group(**more: Any) -> dict[str, Any]:
    return {"key": "kind", "name": "kinds", "values": None, **more}


@pytest.mark.parametrize(
    "change",
    [
        {"questions": 0},
        {"questions": True},
        {"questions": 1_000_001},
        {"answer_tokens": 0},
        {"answer_tokens": 5000},
        {"answers": 1},
        {"context_tokens": 15},
        {"grader": "questions"},
        {"grader": ""},
        {"groups": {}},
        {"groups": [group(), group(key="other")]},
        {"groups": [group(), group(name="other")]},
        {"groups": [group(values=[])]},
        {"groups": [group(values=["a", "a"])]},
        {"groups": [group(values=["(others)"])]},
        {"groups": [group(values=["\n"])]},
        {"groups": [group(values=["x" * 65])]},
        {"groups": [{"name": "kinds"}]},
        {"groups": [group(name="")] * 17},
        {"parallel": 33},
        {"progress": -1},
        {"progress": 1, "questions": 101},
        {"scorer_code": "abc"},
        {"scorer_code": "sha256:" + "A" * 64},
        {"seed": -1},
        {"temperature": 0.5},
        {"temperature": 201},
        {"threads": 0},
        {"shots": 3},
    ],
    ids=str,
)
def test_parameters_that_no_run_could_use_are_refused(change: dict[str, Any]):
    with pytest.raises(BadParameters) as found:
        evaluate_llm.check({**GIVEN, **change})
    assert found.value.step == "check parameters"


def test_parameters_are_read_and_none_may_be_left_out():
    evaluate_llm.check({**GIVEN, "groups": [group(values=["a"])], "progress": 1, "scorer_code": "sha256:" + "0" * 64})
    for name in GIVEN:
        with pytest.raises(BadParameters):
            evaluate_llm.check({key: value for key, value in GIVEN.items() if key != name})


def test_only_a_grader_of_its_own_is_one_more_input():
    assert programs.roles("evaluate-llm", GIVEN) == {"model", "questions"}
    assert programs.roles("evaluate-llm", {**GIVEN, "grader": "model"}) == {"model", "questions"}
    assert programs.roles("evaluate-llm", {**GIVEN, "grader": "grader"}) == {"model", "questions", "grader"}


def test_a_rule_that_small_groups_are_hidden_by_is_kept_by_tables_and_progress():
    smallest = {"report": replace(REPORT, min_group=10)}
    nothing = (lambda _name, _data: None), (lambda _step, _permille: None)
    for change in ({"groups": [group(), group(key="b", name="b")]}, {"progress": 5, "questions": 50}):
        with pytest.raises(BadParameters):
            evaluate_llm.run({}, {**GIVEN, **change}, smallest, *nothing)


# --- questions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", [tar, zipped])
def test_a_task_is_read_from_a_tar_or_a_zip(pack: Any):
    second = {
        "choices": ["a", "b"],
        "input": [{"content": "x", "role": "system"}],
        "metadata": {"n": 3, "no": None},
        "target": ["A"],
    }
    found = read(packed(asked=lines(QUESTION, second) + b"\n", pack=pack))
    assert (found.name, found.route, found.scorer.name, found.code_digest) == ("a task", "chat", "match", None)
    assert found.questions[0].messages == (("user", "What is two and two?"),)
    assert found.questions[0].metadata == {"kind": "sum"}
    assert found.questions[1] == questions.Question((("system", "x"),), ("A",), ("a", "b"), {"n": "3"})


def test_the_example_of_the_specification_is_a_task():
    page = (Path(__file__).parents[1] / "spec" / "programs.md").read_text(encoding="utf-8")
    (said,) = [block for block in page.split("```json\n")[1:] if questions.FORMAT in block.split("```")[0]]
    assert read(packed(json.loads(said.split("```")[0]))).name == "sums"
    (said,) = [block for block in page.split("```json\n")[1:] if "answer_tokens" in block.split("```")[0]]
    evaluate_llm.check(json.loads(said.split("```")[0]))
    for name in (*questions.SOLVERS, *questions.SCORERS, *GIVEN):
        assert f"`{name}`" in page


BAD_TASKS: dict[str, Any] = {
    "another format": {**TASK, "format": "strongroom.task.v2"},
    "a member too many": {**TASK, "sandbox": "docker"},
    "a member too few": {name: value for name, value in TASK.items() if name != "stop"},
    "no object": [],
    "a solver that runs tools": {**TASK, "solver": [{"use": "basic_agent"}]},
    "no solver": {**TASK, "solver": []},
    "nothing that generates": {**TASK, "solver": [{"template": "x", "use": "system_message"}]},
    "a solver's argument that is not offered": {**TASK, "solver": [{"tool_calls": "loop", "use": "generate"}]},
    "a template without its place": {**TASK, "solver": [{"template": "x", "use": "prompt_template"}, {"use": "generate"}]},
    "a template that is missing": {**TASK, "solver": [{"use": "prompt_template"}, {"use": "generate"}]},
    "a scorer of nobody's": {**TASK, "scorer": {"use": "perplexity"}},
    "a scorer's argument of another type": {**TASK, "scorer": {"numeric": "yes", "use": "match"}},
    "a scorer's argument that is none of its words": {**TASK, "scorer": {"location": "middle", "use": "match"}},
    "a pattern that is none": {**TASK, "scorer": {"pattern": "(", "use": "pattern"}},
    "a route of nobody's": {**TASK, "route": "embeddings"},
    "five stops": {**TASK, "stop": ["a"] * 5},
    "an empty stop": {**TASK, "stop": [""]},
    "a dataset that is not there": {**TASK, "dataset": "other.jsonl"},
    "code that no scorer uses": {**TASK, "code": "scorer.py"},
    "a scorer whose code is missing": {**TASK, "code": "scorer.py", "scorer": {"function": "f", "use": "code"}},
    "a function's name that is none": {
        **TASK,
        "code": "questions.jsonl",
        "scorer": {"function": "os.system", "use": "code"},
    },
    "choices that are missing": {**TASK, "solver": [{"use": "multiple_choice"}]},
}


@pytest.mark.parametrize("name", BAD_TASKS)
def test_a_task_that_is_not_of_its_form_is_refused(name: str):
    with pytest.raises(QuestionsUnreadable) as found:
        read(packed(BAD_TASKS[name]))
    assert found.value.step == "read questions"


@pytest.mark.parametrize(
    "question",
    [
        {**QUESTION, "input": ""},
        {**QUESTION, "input": [{"content": "x", "role": "tool"}]},
        {**QUESTION, "input": [{"content": [{"type": "image"}], "role": "user"}]},
        {**QUESTION, "input": [{"content": "x", "role": "user", "tool_calls": []}]},
        {**QUESTION, "input": []},
        {**QUESTION, "target": []},
        {**QUESTION, "target": [1]},
        {**QUESTION, "target": None},
        {**QUESTION, "choices": ["x"] * 27},
        {**QUESTION, "metadata": {"a": 1.5}},
        {**QUESTION, "metadata": {"a": True}},
        {**QUESTION, "metadata": []},
        {**QUESTION, "files": {"/etc/passwd": "x"}},
        {**QUESTION, "sandbox": "docker"},
        {"input": "x"},
        "x",
    ],
    ids=str,
)
def test_a_question_that_is_not_of_its_form_is_refused(question: Any):
    with pytest.raises(QuestionsUnreadable):
        read(packed(asked=lines(question)))


def test_a_completion_is_asked_one_text():
    two = {**QUESTION, "input": [{"content": "a", "role": "user"}, {"content": "b", "role": "user"}]}
    assert len(read(packed(asked=lines(two))).questions[0].messages) == 2
    with pytest.raises(QuestionsUnreadable):
        read(packed({**TASK, "route": "completions"}, lines(two)))


def linked() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        about = tarfile.TarInfo("task.json")
        about.type, about.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(about)
    return out.getvalue()


ARCHIVES = {
    "nothing": b"",
    "no archive": b"questions",
    "half a zip": zipped({"task.json": b"{}"})[:40],
    "a link out of the archive": linked(),
    "a path out of the archive": tar({"../task.json": b"{}"}),
    "a folder": tar({"a/task.json": b"{}"}),
    "a file that nobody asked for": packed(more__py=b"x"),
    "too many files": tar({f"f{n}": b"" for n in range(17)}),
    "no task": tar({"questions.jsonl": b""}),
    "a task twice in one archive": tar([("task.json", b"{}"), ("task.json", b"{}")]),
    "a member twice": packed(pack=lambda files: tar({**files, "task.json": b'{"a":1,"a":1}'})),
    "a dataset that is not JSON": packed(asked=b"{"),
    "a dataset that is not UTF-8": packed(asked=b'{"input":"\xff"}'),
    "a dataset nested too deeply": packed(asked=b"[" * 100_000),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_that_is_not_of_its_form_is_refused(name: str):
    with pytest.raises(QuestionsUnreadable):
        read(ARCHIVES[name])


def test_a_zip_that_grows_beyond_all_bounds_is_refused(monkeypatch):
    monkeypatch.setattr(questions, "MAX_BYTES", 1 << 16)
    bomb = zipped({"task.json": b"0" * (1 << 20)})
    assert len(bomb) < 1 << 14
    with pytest.raises(QuestionsUnreadable):
        read(bomb)
    with pytest.raises(QuestionsUnreadable):
        read(tar({"task.json": b"0" * (1 << 17)}))


@given(st.binary(max_size=2000))
@settings(max_examples=80, deadline=None)
def test_any_bytes_are_refused_by_their_error(data: bytes):
    with pytest.raises(QuestionsUnreadable):
        read(data)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_an_altered_archive_is_read_or_refused(data: st.DataObject):
    good = bytearray(packed(pack=data.draw(st.sampled_from([tar, zipped]))))
    good[data.draw(st.integers(0, min(len(good), 2048) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with contextlib.suppress(QuestionsUnreadable):
        read(bytes(good))


# --- weights in memory ----------------------------------------------------------------------------------------------


@dataclass
class Opened:
    media_type: str
    size: int
    file: BinaryIO


def opened(data: bytes) -> Opened:
    return Opened("application/octet-stream", len(data), io.BytesIO(data))


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no memory files on this system")
def test_an_input_in_memory_cannot_be_changed_by_whoever_has_it():
    data = os.urandom(3 << 20)
    found = sandbox_job.memory_file(opened(data))
    try:
        assert os.pread(found, 4 << 20, 0) == data
        for attack in (lambda: os.write(found, b"x"), lambda: os.ftruncate(found, 1), lambda: os.ftruncate(found, 1 << 23)):
            with pytest.raises(PermissionError):
                attack()
    finally:
        os.close(found)


def test_an_input_that_ends_too_soon_leaves_no_memory_behind():
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(Truncated):
        sandbox_job.memory_file(Opened("x", 10, io.BytesIO(b"abc")))
    assert len(os.listdir("/proc/self/fd")) == before


def test_without_memory_files_there_is_no_run(monkeypatch):
    monkeypatch.delattr(os, "memfd_create", raising=False)
    with pytest.raises(NoSandbox):
        sandbox_job.memory_file(opened(b"x"))


# --- progress -------------------------------------------------------------------------------------------------------


def contract(**parameters: Any) -> Any:
    program = SimpleNamespace(name="evaluate-llm", parameters={**GIVEN, **parameters})
    return SimpleNamespace(proposal=SimpleNamespace(program=program, policy=Policy()))


def test_progress_is_told_as_agreed_whatever_the_program_says():
    told: list[str] = []
    on_progress = counted(contract(questions=300, progress=50), told.append)
    assert on_progress is not None
    for permille in range(1001):
        on_progress("ask", permille)
        on_progress("write", permille)
        on_progress("ask", 1)
    assert told == [f"{n} of 300 questions" for n in (50, 100, 150, 200, 250)]


@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_every_count_that_was_agreed_is_reached_exactly(total: int, every: int):
    if total > every * evaluate_llm.MAX_TELLS:
        return
    told: list[str] = []
    on_progress = counted(contract(questions=total, progress=every), told.append)
    assert on_progress is not None
    for done in range(every, total, every):
        on_progress("ask", -(-done * 1000 // total))
    assert told == [f"{done:,} of {total:,} questions" for done in range(every, total, every)]


def test_without_an_agreement_nothing_is_told():
    assert counted(contract(), lambda _count: None) is None
    program = SimpleNamespace(name="evaluate", parameters={})
    other = SimpleNamespace(proposal=SimpleNamespace(program=program, policy=Policy()))
    assert counted(other, lambda _count: None) is None


# --- in this process, with an engine that says what it is told to ------------------------------------------------------


@pytest.fixture
def inspect_home(inspect_place):
    """What inspect_ai leaves open is collected before the next test, which would be blamed for it."""
    yield inspect_place
    gc.collect()


@pytest.fixture(scope="module")
def inspect_place(tmp_path_factory):
    """inspect_ai, which takes seconds to import, with a home of its own."""
    pytest.importorskip("inspect_ai", reason="strongroom[evals] is not installed")
    pytest.importorskip("xllamacpp", reason="strongroom[evals] is not installed")
    place = tmp_path_factory.mktemp("inspect")
    names = {name: value.replace("/tmp", str(place)) for name, value in evaluate_llm.ENVIRONMENT.items()}
    patch = pytest.MonkeyPatch()
    for name, value in names.items():
        patch.setenv(name, value)
    importlib.import_module("inspect_ai")
    gc.collect()
    gc.freeze()  # all that was imported is not looked through again after each test
    yield place
    gc.unfreeze()
    patch.undo()


# inspect_ai leaves streams open and uses what is deprecated; in the sandbox nobody minds.
inspects = pytest.mark.filterwarnings("ignore")

SAYS = {"two and two": " 4.\n", "capital": "I'm sorry, but I can't say.", "empty": " "}


class FakeEngine:
    """Answers by what is in the question."""

    routes = frozenset({"chat"})
    asked: list[dict[str, Any]] = []

    def __init__(self, weights: Input, parameters: evaluate_llm.Parameters) -> None:
        self.grades = weights.media_type == "grader"

    def ask(self, route: str, members: Mapping[str, Any]) -> Any:
        from strongroom.programs.inspected import Answered

        self.asked.append(dict(members))
        text = members["messages"][-1]["content"]
        if "too long" in text:
            raise PromptTooLong("x")
        if "broken" in text:
            raise EngineFailed("x")
        if self.grades or "GRADE" in text:
            return Answered("GRADE: C" if "4" in text else "GRADE: I", "stop", 5, 3)
        answer = next((said for part, said in SAYS.items() if part in text), "ANSWER: B")
        return Answered(answer, "length" if "empty" in text else "stop", 7, 2)


def asked(monkeypatch, data: bytes, steps: list[Any] | None = None, **parameters: Any) -> Any:
    from strongroom.programs import asked as module

    monkeypatch.setattr(module, "_Engine", FakeEngine)
    FakeEngine.asked = []
    given = evaluate_llm.read({**GIVEN, **parameters})
    inputs = {"model": replace(source(b""), media_type="model"), "questions": source(data)}
    if given.grader == "grader":
        inputs["grader"] = replace(source(b""), media_type="grader")
    return module.Asked(inputs, given, lambda *step: (steps if steps is not None else []).append(step))


KINDS = lines(
    QUESTION,
    {"input": "What is the capital?", "metadata": {"kind": "place"}, "target": "Rome"},
    {"input": "This is empty.", "metadata": {"kind": "place"}, "target": "x"},
    {"input": "This is too long.", "target": "x"},
)


@inspects
def test_figures_groups_and_counts(monkeypatch, inspect_home):
    steps: list[Any] = []
    found = asked(monkeypatch, packed(asked=KINDS), steps, questions=4, groups=[group()], progress=1)
    report = json.loads(found.report())
    assert report["records"] == 4
    assert report["metrics"] == {
        "accuracy": 0.25, "empty": 2, "errors": 1, "refusals": 1, "stderr": 0.25, "truncated": 1,
    }  # fmt: skip
    (table,) = report["tables"]
    assert [(g["group"], g["records"], g["values"]) for g in table["groups"]] == [
        ("(missing)", 1, {"accuracy": 0.0}),
        ("place", 2, {"accuracy": 0.0, "stderr": 0.0}),
        ("sum", 1, {"accuracy": 1.0}),
    ]
    assert table["public"] is False
    rule = OutputRule(ANY_PARTY, 1 << 20, 1, 4)
    assert json.loads(enforce("report", rule, found.report()))["metrics"]["accuracy"] == 0.25
    assert [step for step in steps if step[0] == "ask"] == [("ask", 0), ("ask", 250), ("ask", 500), ("ask", 750)]
    assert found.records(RECORDS).decode().splitlines() == [
        "question,score,outcome,tokens", "0,1.0,answered,2", "1,0.0,answered,2", "2,0.0,truncated,2", "3,0.0,too_long,0",
    ]  # fmt: skip
    enforce("records", rule, found.records(RECORDS))
    assert {"max_tokens": 256, "seed": 1, "temperature": 0.0}.items() <= FakeEngine.asked[0].items()


@inspects
def test_inspects_own_figures_are_the_same(monkeypatch, inspect_home):
    from strongroom.programs import inspected

    logs: list[Any] = []
    real = inspected.evaluate
    monkeypatch.setattr(inspected, "evaluate", lambda *a, **k: logs.extend(real(*a, **k)) or logs)
    report = json.loads(asked(monkeypatch, packed(asked=KINDS), questions=4).report())
    (score,) = logs[0].results.scores
    assert {name: metric.value for name, metric in score.metrics.items()} == {
        name: pytest.approx(report["metrics"][name]) for name in ("accuracy", "stderr")
    }
    assert logs[0].samples is None


@inspects
def test_agreed_values_have_a_group_each_and_the_rest_one(monkeypatch, inspect_home):
    found = asked(monkeypatch, packed(asked=KINDS), questions=4, groups=[group(values=["place", "law"])])
    (table,) = json.loads(found.report())["tables"]
    assert [(g["group"], g["records"]) for g in table["groups"]] == [
        ("(missing)", 1),
        ("(others)", 1),
        ("law", 0),
        ("place", 2),
    ]
    assert table["public"] is True


@inspects
def test_too_many_distinct_values_are_refused(monkeypatch, inspect_home):
    many = lines(*({**QUESTION, "metadata": {"kind": n}} for n in range(257)))
    with pytest.raises(BadParameters):
        asked(monkeypatch, packed(asked=many), questions=257, groups=[group()])


@inspects
def test_an_answer_that_is_shown_is_no_formula(monkeypatch, inspect_home):
    monkeypatch.setitem(SAYS, "two and two", '=HYPERLINK("x")\t' + "y" * 300)
    found = asked(monkeypatch, packed(), answers=True).records(RECORDS)
    assert b"HYPERLINK" in found
    enforce("records", OutputRule(ANY_PARTY, 1 << 20, 1, 4), found)


@inspects
def test_multiple_choice(monkeypatch, inspect_home):
    task = {**TASK, "scorer": {"use": "choice"}, "solver": [{"use": "multiple_choice"}]}
    data = lines(
        {"choices": ["red", "blue"], "input": "Which?", "target": "B"},
        {"choices": ["a", "b"], "input": "And?", "target": "A"},
    )
    report = json.loads(asked(monkeypatch, packed(task, data), questions=2).report())
    assert report["metrics"]["accuracy"] == 0.5


@pytest.mark.parametrize("grader", ["model", "grader"])
@inspects
def test_another_model_or_the_same_judges(monkeypatch, inspect_home, grader: str):
    task = {**TASK, "scorer": {"use": "model_graded_qa"}}
    report = json.loads(asked(monkeypatch, packed(task, KINDS), questions=4, grader=grader).report())
    assert 0 < report["metrics"]["accuracy"] <= 0.5


OWN = b"""
from inspect_ai.scorer import Score, accuracy, scorer

@scorer(metrics=[accuracy()])
def halves():
    async def score(state, target):
        return Score(value=0.5 if "4" in state.output.completion else float("nan"))
    return score
"""


@inspects
def test_the_owners_scorer_is_the_one_that_was_agreed_to(monkeypatch, inspect_home):
    task = {**TASK, "code": "scorer.py", "scorer": {"function": "halves", "use": "code"}}
    data = packed(task, KINDS, scorer__py=OWN)
    digest = "sha256:" + hashlib.sha256(OWN).hexdigest()
    report = json.loads(asked(monkeypatch, data, questions=4, scorer_code=digest).report())
    assert report["metrics"]["accuracy"] == 0.125
    for other in (None, "sha256:" + "0" * 64):
        with pytest.raises(BadParameters):
            asked(monkeypatch, data, questions=4, scorer_code=other)
    with pytest.raises(BadParameters):
        asked(monkeypatch, packed(asked=KINDS), questions=4, scorer_code=digest)
    missing = {**task, "scorer": {"function": "thirds", "use": "code"}}
    with pytest.raises(QuestionsUnreadable):
        asked(monkeypatch, packed(missing, KINDS, scorer__py=OWN), questions=4, scorer_code=digest)


@inspects
def test_what_the_parameters_say_of_the_questions_must_be_so(monkeypatch, inspect_home):
    with pytest.raises(BadParameters):  # a question more than was agreed on, perhaps about one record
        asked(monkeypatch, packed(asked=KINDS), questions=3)
    with pytest.raises(BadParameters):
        asked(monkeypatch, packed(), grader="model")
    with pytest.raises(BadParameters):
        asked(monkeypatch, packed({**TASK, "scorer": {"use": "model_graded_fact"}}))
    with pytest.raises(ModelShape):
        asked(monkeypatch, packed({**TASK, "route": "completions"}))


@inspects
def test_an_engine_that_breaks_ends_the_run(monkeypatch, inspect_home):
    with pytest.raises(Exception) as found:
        asked(monkeypatch, packed(asked=lines({"input": "broken", "target": "x"})))
    assert not isinstance(found.value, QuestionsUnreadable)


# --- in this process, with llama.cpp ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gguf(tmp_path_factory) -> Path:
    pytest.importorskip("gguf", reason="the gguf package is not installed")
    import llama_files

    return llama_files.write(tmp_path_factory.mktemp("model") / "tiny.gguf")


@inspects
@pytest.mark.parametrize("route", ["chat", "completions"])
def test_a_real_engine_is_asked_by_either_route(inspect_home, gguf, route: str):
    evaluate_llm.load(())
    data = lines({"input": "the of and", "target": "x"}, {"input": "the of and " * 400, "target": "x"})
    given = {**GIVEN, "answer_tokens": 4, "context_tokens": 128, "parallel": 2, "questions": 2}
    inputs = {
        "model": replace(source(b""), path=str(gguf)),
        "questions": source(packed({**TASK, "route": route, "stop": ["zzzz"]}, data)),
    }
    written: dict[str, bytes] = {}
    outputs = {"records": RECORDS, "report": REPORT}
    evaluate_llm.run(inputs, given, outputs, written.__setitem__, lambda _step, _permille: None)
    assert json.loads(written["report"])["metrics"]["errors"] == 1
    first, second = written["records"].decode().splitlines()[1:]
    assert first.split(",")[2] in ("answered", "truncated")
    assert second == "1,0.0,too_long,0"


# --- in the sandbox, with llama.cpp -----------------------------------------------------------------------------------

SPY = b'''
import os, socket
from inspect_ai.scorer import Score, accuracy, scorer

def found():
    """What a scorer that means ill finds: 1 if there is anything."""
    for family, address in ((socket.AF_INET, ("192.0.2.1", 80)), (socket.AF_INET6, ("2001:db8::1", 80))):
        try:
            socket.socket(family).connect(address)
            return "network"
        except OSError:
            pass
    if set(os.environ) - {"HOME", "INSPECT_TRACE_FILE", "INSPECT_TRACE_LEVEL", "XDG_CACHE_HOME", "XDG_DATA_HOME"}:
        return "environment"
    for place in ("/etc/passwd", "/etc/hosts", "/sys/kernel", "/var/log"):
        if os.path.exists(place):
            return "files"
    for folder, _, names in os.walk("/tmp"):
        for name in names:
            try:
                data = open(os.path.join(folder, name), "rb").read()
            except OSError:
                continue
            if b"xylograph" in data:
                return "questions on disk"
    for number in os.listdir("/proc/self/fd"):
        try:
            os.write(int(number), b"") if os.readlink("/proc/self/fd/" + number).startswith("/memfd") else None
            if os.readlink("/proc/self/fd/" + number).startswith("/memfd"):
                os.ftruncate(int(number), 0)
                return "weights"
        except OSError:
            pass
    return ""

@scorer(metrics=[accuracy()])
def spy():
    async def score(state, target):
        what = found()
        if what:
            print("FOUND", what)
        return Score(value=1.0 if what else 0.0)
    return score
'''


@pytest.fixture(scope="module")
def isolated() -> str:
    pytest.importorskip("inspect_ai", reason="strongroom[evals] is not installed")
    pytest.importorskip("xllamacpp", reason="strongroom[evals] is not installed")
    from strongroom.enclave.sandbox_child import choose

    try:
        return choose("isolated")
    except NoSandbox:
        pytest.skip("no sandbox can be made on this machine")


def in_sandbox(model: bytes, data: bytes, steps: list[Any] | None = None, memory: int = 2 << 30, **parameters: Any) -> Any:
    given = {**GIVEN, "answer_tokens": 8, "context_tokens": 256, **parameters}
    with sandbox.prepare("evaluate-llm", outputs=("report", "records")) as prepared:
        found = prepared.run(
            given,
            {"model": opened(model), "questions": opened(data)},
            {"log": OutputSpec("log", 1 << 20, 1, 4), "records": RECORDS, "report": REPORT},
            sandbox.Limits(120, memory, 4 << 20),
            lambda *step: (steps if steps is not None else []).append(step),
        )
        assert prepared.program_digest == sandbox.program_digest("evaluate-llm")
    return found


@pytest.mark.slow
def test_a_scorer_that_means_ill_finds_nothing_in_the_sandbox(isolated, gguf):
    task = {**TASK, "code": "scorer.py", "scorer": {"function": "spy", "use": "code"}}
    asked = lines(*({"input": f"{MARKER} {n}: the one", "metadata": {"kind": n % 2}, "target": "x"} for n in range(12)))
    steps: list[Any] = []
    digest = "sha256:" + hashlib.sha256(SPY).hexdigest()
    found = in_sandbox(
        gguf.read_bytes(),
        packed(task, asked, scorer__py=SPY),
        steps,
        questions=12,
        scorer_code=digest,
        groups=[group()],
        progress=4,
    )
    report = json.loads(found["report"])
    assert (report["records"], report["metrics"]["accuracy"]) == (12, 0.0), found["log"]
    assert report["metrics"]["errors"] == 0
    assert b"FOUND" not in found["log"]
    assert MARKER.encode() not in found["log"] + found["report"] + found["records"]
    assert [step for step in steps if step[0] == "ask"] == [("ask", 0), ("ask", 334), ("ask", 667)]
    assert len(found["records"].splitlines()) == 13


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "memory", "error"),
    [(b"no model at all" * 100, 2 << 30, ModelUnreadable), (b"GGUF" + b"\0" * 5000, 1000, OutOfMemory)],
)
def test_weights_that_are_none_or_too_many_end_the_run(isolated, model: bytes, memory: int, error: type[Exception]):
    with pytest.raises(error):
        in_sandbox(model, packed(), memory=memory)
