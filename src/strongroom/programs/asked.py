"""One evaluation of a language model: the engines, the questions put to them, and what can be said of the answers."""

from __future__ import annotations

import csv
import io
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

from strongroom.errors import BadParameters, ModelShape
from strongroom.lm.engine import Route
from strongroom.lm.llama import Llama
from strongroom.lm.request import read as read_request
from strongroom.lm.seated import Seat

from . import Input, OutputSpec, Step, inspected
from .evaluate_llm import GRADER, MODEL, NAME, QUESTIONS, Grouping, Parameters
from .inspected import Answered, Result
from .questions import Task
from .questions import read as read_task

REPORT_FORMAT: Final = "strongroom.report.v1"
MISSING, OTHERS = "(missing)", "(others)"
MAX_DISTINCT, MAX_NAME, MAX_ANSWER = 256, 64, 200

REFUSALS: Final = (
    "i cannot", "i can't", "i can not", "i am unable", "i'm unable", "i am not able", "i'm not able", "i won't",
    "i will not",
    "i must decline", "i'm sorry, but i can", "i am sorry, but i can", "sorry, i can", "i apologize, but i", "as an ai",
)  # fmt: skip
"""How answers begin that are counted as refusals: in English, and by their first words alone."""


class _Heard:
    """Takes what an engine says of one answer (``lm.seated.Say``)."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.finish = "stop"

    def text(self, text: str) -> bool:
        self.texts.append(text)
        return False

    def piece(self, delta: dict[str, Any], finish: str | None, logprobs: dict[str, Any] | None) -> bool:
        del logprobs
        self.texts.append(delta.get("content") or delta.get("text") or "")
        self.finish = finish or self.finish
        return False

    def working(self) -> bool:
        return False


class _Engine:
    """A model in llama.cpp, asked by as many threads as it has seats.

    Args:
        source: its weights, which lie in memory as a file.
        parameters: the contract's.

    Raises:
        ModelUnreadable: no GGUF file, or one that llama.cpp cannot use.
    """

    def __init__(self, source: Input, parameters: Parameters) -> None:
        assert source.path is not None
        with tempfile.TemporaryDirectory() as place:
            self._llama = Llama(
                source.path,
                Path(place, "engine.sock"),
                context_tokens=parameters.context_tokens,
                parallel=parameters.parallel,
                threads=parameters.threads,
                max_tokens=parameters.answer_tokens,
                embeds=False,
            )
        self._seats: SimpleQueue[int] = SimpleQueue()
        for number in range(parameters.parallel):
            self._seats.put(number)
        self.routes = frozenset(self._llama.about["routes"])

    def ask(self, route: Route, members: Mapping[str, Any]) -> Answered:
        """Raises EngineError, RequestError."""
        normal = read_request(route, json.dumps({"model": NAME, **members}).encode()).normal
        heard, seat = _Heard(), self._seats.get()
        try:
            took = self._llama.answer(route, normal, 0, Seat(seat, kept=False), heard)
        finally:
            self._seats.put(seat)
        return Answered("".join(heard.texts), heard.finish, took.prompt_tokens, took.completion_tokens)


def _members(grouping: Grouping, task: Task) -> dict[str, list[int]]:
    """Which questions are in each group, by the group's name. Every question is in exactly one.

    Raises:
        BadParameters: more distinct values than a report can hold.
    """
    found: dict[str, list[int]] = {value: [] for value in grouping.values or ()}
    for number, question in enumerate(task.questions):
        value = question.metadata.get(grouping.key)
        if value is None:
            name = MISSING
        elif grouping.values is not None:
            name = value if value in grouping.values else OTHERS
        else:
            name = "".join(c if c.isprintable() else " " for c in value)[:MAX_NAME] or MISSING
        found.setdefault(name, []).append(number)
    if len(found) > MAX_DISTINCT:
        raise BadParameters("the questions have too many distinct values to group by; agree on values", step="write")
    return dict(sorted(found.items()))


def measured(scores: Sequence[float]) -> dict[str, float]:
    """The mean of some scores, and its standard error where there are two of them."""
    if not scores:
        return {}
    mean = math.fsum(scores) / len(scores)
    found = {"accuracy": mean}
    if len(scores) > 1:
        variance = math.fsum((score - mean) ** 2 for score in scores) / (len(scores) - 1)
        found["stderr"] = math.sqrt(variance / len(scores))
    return found


class Asked:
    """What a model answered, and how that was judged.

    Args:
        inputs: by role.
        parameters: the contract's, read.
        step: told as the work goes on, if the contract says so.

    Raises:
        ProgramError: its leaves for models and questions that do not fit.
    """

    def __init__(self, inputs: Mapping[str, Input], parameters: Parameters, step: Step) -> None:
        self._parameters = parameters
        step("read questions", 0)
        self._task = task = read_task(inputs[QUESTIONS])
        self._require(task)
        self._groups = [(grouping, _members(grouping, task)) for grouping in parameters.groups]
        step("load model", 0)
        engines = {role: _Engine(inputs[role], parameters) for role in (MODEL, GRADER) if role in inputs}
        step("ask", 0)
        model = self._asked(engines[MODEL], task.route, task.stop)
        grader = None if parameters.grader is None else self._asked(engines[parameters.grader], "chat", ())

        def told(done: int) -> None:
            # All are not told before the outputs are written.
            if parameters.progress and done % parameters.progress == 0 and done < len(task.questions):
                step("ask", -(-done * 1000 // len(task.questions)))  # so that the count is found again from it

        self._results = inspected.ask(task, model, grader, told)

    def _require(self, task: Task) -> None:
        """Compare what the contract says of the questions with what they are. Raises BadParameters."""
        p = self._parameters
        wrong = ""
        if len(task.questions) != p.questions:
            wrong = "there are more or fewer questions than the parameters say"
        elif task.code_digest != p.scorer_code:
            wrong = "the task's own scorer is not the one that the parameters name"
        elif task.scorer.name.startswith("model_graded") != (p.grader is not None):
            wrong = "the task's answers are judged by a model and the parameters name none, or the other way round"
        if wrong:
            raise BadParameters(wrong, step="read questions")

    def _asked(self, engine: _Engine, route: str, stop: Sequence[str]) -> inspected.Asked:
        """An engine as it is to be asked. Raises ModelShape."""
        if route not in engine.routes:
            raise ModelShape("the model cannot be asked as the questions are meant", step="load model")
        p = self._parameters
        options: dict[str, Any] = {"max_tokens": p.answer_tokens, "seed": p.seed, "temperature": p.temperature / 100}
        if stop:
            options["stop"] = list(stop)
        return inspected.Asked(engine.ask, route, options, p.parallel)  # type: ignore[arg-type] # a route is one of two

    def report(self) -> bytes:
        """The report (``spec/output.md``), as JSON with every group and every decimal place: its rule is applied later."""
        results = self._results
        counts = {
            "empty": sum(not result.answer.strip() for result in results),
            "errors": sum(result.outcome in ("refused", "too_long") for result in results),
            "refusals": sum(_refuses(result.answer) for result in results),
            "truncated": sum(result.outcome == "truncated" for result in results),
        }
        report = {
            "classes": [],
            "format": REPORT_FORMAT,
            "matrices": {},
            "metrics": {**measured([result.score for result in results]), **counts},
            "positive": None,
            "records": len(results),
            "tables": [
                {
                    "by": grouping.key,
                    "groups": [
                        {"group": name, "records": len(chosen), "values": measured([results[n].score for n in chosen])}
                        for name, chosen in members.items()
                    ],
                    "name": grouping.name,
                    "public": grouping.values is not None,
                }
                for grouping, members in self._groups
            ],
            "task": NAME,
        }
        return json.dumps(report, allow_nan=False, ensure_ascii=False).encode()

    def records(self, spec: OutputSpec) -> bytes:
        """A CSV with a row for each question, in the dataset's order: its number from nought, the score, what became of it,
        how many tokens the answer has, and the answer's beginning where the contract says so."""
        out = io.StringIO()
        rows = csv.writer(out, lineterminator="\n")
        shown = self._parameters.answers
        rows.writerow(["question", "score", "outcome", "tokens", *(["answer"] if shown else [])])
        for result in self._results:
            score = round(result.score, spec.decimals) + 0.0
            said = [_shown(result)] if shown else []
            rows.writerow([result.question, score, result.outcome, result.completion_tokens, *said])
        return out.getvalue().encode()


def _refuses(answer: str) -> bool:
    return answer.strip().lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").startswith(REFUSALS)


def _shown(result: Result) -> str:
    """An answer's beginning, as a JSON string: no cell begins with what a spreadsheet takes for a formula."""
    clean = "".join(c if c.isprintable() else " " for c in result.answer)
    return json.dumps(clean[:MAX_ANSWER], ensure_ascii=False)[: MAX_ANSWER + 50]
