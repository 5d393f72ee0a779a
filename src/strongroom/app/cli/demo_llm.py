"""demo llm-eval: a lab's secret language model is asked an institute's secret questions, told step by step.

The questions are real: sentences of novels broken off before a word, and sums (``training/questions.py`` makes them).
The model is the embedded one, or any GGUF file. Every step goes the way that it would go between strangers.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
import threading
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from strongroom.app.client.draft import MAX_BYTES, Change, Draft, Wanted
from strongroom.app.client.home import Home, read
from strongroom.app.client.prose import differences
from strongroom.app.client.room import Opened, Room
from strongroom.app.enclave.client import going
from strongroom.app.enclave.going import GoingRequest
from strongroom.app.http import Client
from strongroom.attest.simulated import LABEL
from strongroom.contract import Proposal
from strongroom.errors import MissingExtra, NotPermitted, StrongroomError
from strongroom.policy import ANY_PARTY, OutputRule, Policy
from strongroom.programs.evaluate_llm import NAME
from strongroom.wire import JSON

from .demo import Clock, check, enclave_runs, end, fresh, pin, start
from .fleet import Fleet
from .operator import look
from .parties import make
from .runs import report
from .screen import Screen
from .serving import model_file

TITLE = "How the lab's model continues the institute's sentences"
TASK: JSON = {
    "dataset": "questions.jsonl",
    "format": "strongroom.task.v1",
    "name": "continue",
    "route": "completions",
    # the first word that comes, whatever stands before and after it
    "scorer": {"pattern": r"^[^\w]*([\w'-]+)", "use": "pattern"},
    "solver": [{"use": "generate"}],
    "stop": ["\n"],
}
SMALLEST, EVERY, TOKENS = 20, 20, 6
_LOOK_SECONDS = 0.1
_COUNT = re.compile(r"[\d,]+ of [\d,]+ questions\Z")


def run(args: Namespace, screen: Screen) -> int:
    model = model_file(args.model)
    if find_spec("inspect_ai") is None:
        raise MissingExtra("inspect_ai, which puts the questions, is not installed", hint="pip install 'strongroom[evals]'")
    folder = fresh(args.folder)
    clock = Clock()
    screen.line("A lab has a language model that nobody may copy. An institute has questions that nobody may see:", "bold")
    screen.line("whoever trains on them makes them worthless. The world wants to know how good the model is.")
    screen.line(f"{LABEL}: this demo shows the path, not the protection.", "yellow")
    screen.heading("1  Each side prepares what it holds")
    count = prepare(folder, model, screen)
    if args.only_files:
        (folder / "draft.json").write_text(json.dumps(_said(count), indent=2))
        screen.result({"folder": str(folder)})
        return 0
    home = Home(folder)
    for name in ("lab", "institute"):
        make(home, name)
    with Fleet(home, extras=("evals",)) as fleet:
        start(fleet, clock, screen)
        lab, institute = (
            Room(home.party(n), exchange=fleet.config.exchange, enclave=fleet.config.enclave) for n in ("lab", "institute")
        )
        pin(lab, institute, fleet, screen)
        with clock("seal and upload"):
            _seal(lab, institute, folder, model, screen)
        contract = _agree(lab, institute, count, clock, screen)
        with _listening(institute, fleet.config.enclave, contract) as heard:
            bundle = enclave_runs(lab, contract, clock, screen)
        screen.said("institute", f"heard while it ran: {', '.join(heard) or 'nothing yet'} of {count} questions")
        opened = _outputs(lab, institute, contract, clock, screen)
        path = check(lab, bundle, clock, screen)
        screen.heading("9  What the operator of the exchange can see")
        look(folder / "exchange", screen, brief=True)
    end(folder, path, opened, clock, screen)
    return 0


def prepare(folder: Path, model: Path, screen: Screen) -> int:
    """Write the institute's questions, as it would seal them; how many there are."""
    data = files(__package__).joinpath("demo_llm.jsonl").read_bytes()
    asked = [json.loads(line) for line in data.splitlines()]
    kinds = Counter(question["metadata"]["kind"] for question in asked)
    with tarfile.open(folder / "questions.tar", "w") as archive:
        for name, content in (("task.json", json.dumps(TASK, indent=1).encode()), ("questions.jsonl", data)):
            about = tarfile.TarInfo(name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    screen.said("lab", f"{model.name}, a GGUF file of {model.stat().st_size:,} bytes")
    what = ", ".join(f"{number} of kind {kind}" for kind, number in sorted(kinds.items()))
    screen.said("institute", f"{len(asked)} questions with their answers: {what}; such as")
    one = next(question for question in asked if question["metadata"]["kind"] == "phrase")
    screen.said("", f"…{one['input'][-70:]} ___ ({one['target']})")
    return len(asked)


def _seal(lab: Room, institute: Room, folder: Path, path: Path, screen: Screen) -> None:
    screen.heading("4  Each side seals its asset; the key stays with its own broker")

    def rule(kind: str, group: int, decimals: int) -> OutputRule:
        return OutputRule(ANY_PARTY, MAX_BYTES[kind], group, decimals)

    uses = frozenset({NAME})
    terms = Policy(uses, {kind: rule(kind, 1, 15) for kind in ("records", "report")})
    model = lab.seal(path, terms=terms, name="model", reveal_digest=True, out=folder / f"{path.stem}.sealed")
    questions = institute.seal(
        folder / "questions.tar",
        terms=Policy(uses, {"report": rule("report", SMALLEST, 3)}),
        name="questions",
        kind="questions",
        media_type="application/x-tar",
    )
    screen.said("lab", f"lab/{model.name}: may be evaluated; manifest {model.digest[:30]}…")
    screen.said(
        "institute", f"institute/{questions.name}: figures over {SMALLEST} questions and more, no answer ever leaves"
    )
    screen.said("exchange", "holds both sealed files; it has no key, and never will")


def _parameters(count: int) -> dict[str, JSON]:
    return {
        "answer_tokens": TOKENS,
        "context_tokens": 512,
        "groups": [{"key": "kind", "name": "kind of question", "values": ["name", "phrase", "sum"]}],
        "parallel": 4,
        "progress": EVERY,
        "questions": count,
    }


def _said(count: int) -> dict[str, JSON]:
    return {
        "asset": {"model": "lab/model.gguf", "questions": "institute/questions.tar"},
        "output": {"records": ["lab"], "report": ["institute", "lab"]},
        "parameters": _parameters(count),
        "title": TITLE,
    }


def _agree(lab: Room, institute: Room, count: int, clock: Clock, screen: Screen) -> str:
    screen.heading("5  The lab proposes")
    with clock("propose, counter, approve"):
        first = _propose(lab, count)
    for output in first.outputs:
        screen.said(output.name, f"to {' and '.join(output.recipients)}")
    screen.said("progress", f"both hear it after every {EVERY} questions, as a count and nothing else")
    screen.heading("6  The institute counters: which question was answered how would tell of the questions")
    try:
        with clock("propose, counter, approve"):
            institute.approve(first.digest)
    except NotPermitted as refused:
        screen.said("institute", f"approve: {refused.code}: {refused}")
    with clock("propose, counter, approve"):
        second = institute.counter(first.digest, Change(min_group=SMALLEST, decimals=3, drop=("records",)))
    for change in differences(first, second):
        if not change.about.startswith("policy"):
            gone = change.new is None
            screen.said(f"{'-' if gone else '~'} {change.about}", change.old or "" if gone else change.new or "", width=28)
    with clock("propose, counter, approve"):
        lab.approve(second.digest)
    screen.said("lab", "reads the difference and approves: both have signed exactly these bytes")
    screen.said("contract", second.digest)
    return second.digest


def _propose(lab: Room, count: int) -> Proposal:
    return lab.propose(
        Draft(
            title=TITLE,
            program=NAME,
            assets={"model": lab.asset("lab/model"), "questions": lab.asset("institute/questions")},
            outputs={"records": Wanted(("lab",)), "report": Wanted(("institute", "lab"))},
            parameters=_parameters(count),
            seconds=1800,
            memory_bytes=3 << 30,
        )
    )


@contextmanager
def _listening(room: Room, enclave: str, contract: str) -> Iterator[list[str]]:
    """What the institute hears of a run that the lab asked for: each count, once."""
    heard: list[str] = []
    done = threading.Event()

    def listen() -> None:
        with closing(Client(enclave, timeout=10)) as client:
            while not done.wait(_LOOK_SECONDS):
                try:
                    asked = GoingRequest(contract, room.name, int(time.time())).sign(room.home.keys.signing)
                    counts = [detail.partition(" ")[0] for _, detail in going(client, asked) if _COUNT.match(detail)]
                except StrongroomError:
                    continue
                heard.extend(count for count in counts if count not in heard)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield heard
    finally:
        done.set()
        listener.join()


def _outputs(lab: Room, institute: Room, contract: str, clock: Clock, screen: Screen) -> dict[str, list[Opened]]:
    screen.heading("8  Each side opens what was delivered to it: the same report")
    with clock("open the outputs"):
        found = {room.name: room.outputs(contract) for room in (lab, institute)}
    path = next(o.path for o in found["institute"] if o.name == "report")
    report(json.loads(read(path)), screen)
    screen.said("", LABEL)
    screen.said("lab saw", "no question and no answer; the institute saw no weight; the exchange saw neither")
    return found
