"""inspect_ai as this program uses it: a model behind its interface, one evaluation, and what is taken of it by name.

Its own logs, which would hold every question, are turned off and kept in memory: no file, no socket, no second process.
What is taken of each question is in :class:`Result`, and nothing else leaves this module.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from anyio import to_thread
from inspect_ai import Task as InspectTask
from inspect_ai import eval as evaluate
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    GenerateConfig,
    Model,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    StopReason,
    get_model,
    modelapi,
)
from inspect_ai.scorer import (
    Score,
    Scorer,
    Target,
    accuracy,
    choice,
    exact,
    f1,
    includes,
    match,
    model_graded_fact,
    model_graded_qa,
    scorer,
    stderr,
    value_to_float,
)
from inspect_ai.scorer import answer as _answer
from inspect_ai.scorer import pattern as _pattern
from inspect_ai.solver import Solver, TaskState, chain_of_thought, generate, multiple_choice, prompt_template, system_message
from inspect_ai.tool import ToolChoice, ToolInfo

from strongroom.errors import EngineError, EngineFailed, ProgramCrashed, QuestionsUnreadable, RequestError

from .questions import Question, Task, Used

Answer = Callable[[str, Mapping[str, Any]], "Answered"]
"""Asks a model: the route, and members of a request. Raises EngineError, RequestError. Called from several threads."""

_SOLVERS: Final[Mapping[str, Callable[..., Solver]]] = {
    "chain_of_thought": chain_of_thought,
    "generate": generate,
    "multiple_choice": multiple_choice,
    "prompt_template": prompt_template,
    "system_message": system_message,
}
_SCORERS: Final[Mapping[str, Callable[..., Scorer]]] = {
    "answer": _answer,
    "choice": choice,
    "exact": exact,
    "f1": f1,
    "includes": includes,
    "match": match,
    "model_graded_fact": model_graded_fact,
    "model_graded_qa": model_graded_qa,
    "pattern": _pattern,
}
_MESSAGES: Final = {"assistant": ChatMessageAssistant, "system": ChatMessageSystem, "user": ChatMessageUser}
_FINISHES: Final[Mapping[str, StopReason]] = {"content_filter": "content_filter", "length": "max_tokens", "stop": "stop"}
_API: Final = "strongroom"
_CODE_FILE: Final = "<the owner's scorer>"


@dataclass(frozen=True, slots=True)
class Answered:
    """What a model said.

    Attributes:
        finish: as OpenAI names it.
        prompt_tokens, completion_tokens: what it took.
    """

    text: str
    finish: str
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Result:
    """What is taken of one question.

    Attributes:
        question: its number, from 0.
        score: from 0 to 1.
        outcome: ``answered``; ``truncated`` at the longest answer; ``too_long`` for the context; ``refused`` by the engine.
        answer: what the model said.
        completion_tokens: how long that was.
    """

    question: int
    score: float
    outcome: str
    answer: str
    completion_tokens: int


class _Answers(ModelAPI):
    """A model that this process runs, by its name in ``_models``."""

    def max_connections(self) -> int:
        return _models[self.model_name].parallel

    async def generate(
        self,
        input: list[ChatMessage],  # noqa: A002 - inspect_ai names it so
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """What the model answers. A question that cannot be put is an answer without text; a broken engine ends the run."""
        del tools, tool_choice
        asked = _models[self.model_name]
        request: dict[str, Any] = dict(asked.options)
        if config.max_tokens is not None:
            request["max_tokens"] = min(request["max_tokens"], config.max_tokens)
        texts = [{"content": message.text, "role": message.role} for message in input]
        if asked.route == "chat":
            request["messages"] = texts
        else:
            request["prompt"] = "\n\n".join(text["content"] for text in texts)
        try:
            said = await to_thread.run_sync(lambda: asked.answer(asked.route, request))
        except EngineFailed:
            raise
        except (EngineError, RequestError) as error:
            too_long = error.code == "engine.prompt_too_long"
            return ModelOutput.from_content(self.model_name, "", stop_reason="model_length" if too_long else "unknown")
        output = ModelOutput.from_content(self.model_name, said.text, stop_reason=_FINISHES.get(said.finish, "stop"))
        output.usage = ModelUsage(
            input_tokens=said.prompt_tokens,
            output_tokens=said.completion_tokens,
            total_tokens=said.prompt_tokens + said.completion_tokens,
        )
        return output


@dataclass(frozen=True, slots=True)
class Asked:
    """A model that is asked.

    Attributes:
        answer: asks it.
        route: how.
        options: members of each request.
        parallel: how many questions it is asked at once.
    """

    answer: Answer
    route: str
    options: Mapping[str, Any]
    parallel: int


_models: dict[str, Asked] = {}


@modelapi(name=_API)
def _api() -> type[ModelAPI]:
    return _Answers


def _model(name: str, asked: Asked) -> Model:
    _models[name] = asked
    return get_model(f"{_API}/{name}", memoize=False)


def _scorer(task: Task, grader: Model | None) -> Scorer:
    used = task.scorer
    if used.name == "code":
        return _own(task.code, used)
    if used.name.startswith("model_graded"):
        return _SCORERS[used.name](**used.arguments, model=grader)
    return _SCORERS[used.name](**used.arguments)


def _own(code: str, used: Used) -> Scorer:
    """The owner's scorer: a function of this name that gives an inspect_ai scorer."""
    namespace: dict[str, Any] = {"__name__": "scorer"}
    exec(compile(code, _CODE_FILE, "exec", dont_inherit=True), namespace)  # noqa: S102 - both parties agreed to its digest
    function = namespace.get(used.arguments["function"])
    if not callable(function):
        raise QuestionsUnreadable("the task's code has no function of this name", step="read questions")
    found: Scorer = function()
    return found


_number = value_to_float()


def _value(score: Score | None) -> float:
    """From 0 to 1. What a scorer could not judge is 0."""
    if score is None or isinstance(score.value, dict | list):
        return 0.0
    found = _number(score.value)
    return min(1.0, max(0.0, found)) if math.isfinite(found) else 0.0


def _outcome(state: TaskState) -> str:
    if not state.output.choices:
        return "refused"
    finish = state.output.stop_reason
    return {"max_tokens": "truncated", "model_length": "too_long", "unknown": "refused"}.get(finish, "answered")


def _sample(number: int, question: Question) -> Sample:
    messages = [_MESSAGES[role](content=text) for role, text in question.messages]
    one = messages[0]
    return Sample(
        id=number,
        input=one.text if len(messages) == 1 and one.role == "user" else messages,
        target=question.target[0] if len(question.target) == 1 else list(question.target),
        choices=list(question.choices) or None,
        metadata=dict(question.metadata),
    )


def ask(task: Task, model: Asked, grader: Asked | None, told: Callable[[int], None]) -> list[Result]:
    """Evaluate. Once in a process.

    Args:
        task: what is asked and how it is judged.
        model: whom.
        grader: who judges, where the task's scorer needs somebody; it may be the same.
        told: called with how many questions are judged.

    Returns:
        a result for each question, in their order.

    Raises:
        EngineFailed, ProgramCrashed: it could not be done.
        QuestionsUnreadable: the owner's scorer is none.
    """
    asked = _model("model", model)
    judge = None if grader is None else _model("grader", grader)
    inner = _scorer(task, judge)
    found: dict[int, Result] = {}

    @scorer(metrics=[accuracy(), stderr()])
    def kept() -> Scorer:
        async def score(state: TaskState, target: Target) -> Score:
            given = await inner(state, target)
            number = int(state.sample_id)
            usage = state.output.usage
            found[number] = Result(
                question=number,
                score=_value(given),
                outcome=_outcome(state),
                answer=state.output.completion,
                completion_tokens=usage.output_tokens if usage else 0,
            )
            told(len(found))
            return Score(value=found[number].score)

        return score

    logs = evaluate(
        InspectTask(
            name="task",  # its real name is the owner's
            dataset=MemoryDataset([_sample(n, question) for n, question in enumerate(task.questions)]),
            solver=[_SOLVERS[used.name](**used.arguments) for used in task.solver],
            scorer=kept(),
        ),
        model=asked,
        acp_server=False,
        ctl_server=False,
        display="none",
        fail_on_error=True,
        log_dir="memory://logs",
        log_format="json",
        log_images=False,
        log_level="critical",
        log_level_transcript="critical",
        log_model_api=False,
        log_realtime=False,
        log_samples=False,
        max_samples=model.parallel,
        score_display=False,
    )
    if len(logs) != 1 or logs[0].status != "success" or len(found) != len(task.questions):
        raise ProgramCrashed("the evaluation did not come to its end", step="ask")
    return [found[number] for number in sorted(found)]


def rehearse() -> None:
    """One evaluation of nothing: what inspect_ai imports when it is first used takes longer than what it imports at once."""
    question = Question((("user", "?"),), ("!",), (), {})
    task = Task("", "chat", (Used("generate", {}),), Used("match", {}), "", None, (), (question,))
    ask(
        task, Asked(lambda _route, _request: Answered("!", "stop", 1, 1), "chat", {"max_tokens": 1}, 1), None, lambda _: None
    )
