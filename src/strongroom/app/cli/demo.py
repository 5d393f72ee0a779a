"""demo: a lab's secret model is evaluated on a hospital's secret records, told step by step.

Two parties, an exchange, two brokers and an enclave, each role a process of its own on this machine. The model is trained
and the records are real (Breast Cancer Wisconsin, as scikit-learn carries them); every step goes the way that it would go
between strangers.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from strongroom.app.client.draft import MAX_BYTES, Change, Draft, Wanted
from strongroom.app.client.home import Home, read, reference
from strongroom.app.client.prose import differences
from strongroom.app.client.room import Opened, Room
from strongroom.attest.simulated import LABEL
from strongroom.contract import Proposal
from strongroom.errors import Conflict, MissingExtra, NotPermitted, RunFailed, Usage
from strongroom.policy import ANY_PARTY, OutputRule, Policy
from strongroom.receipt import Bundle, Statement, examine
from strongroom.wire import JSON

from .fleet import Fleet
from .operator import look
from .parties import make
from .place import example
from .runs import Steps, report
from .screen import Screen
from .verify import show

LLM_EVAL, DATASTORE = "llm-eval", "datastore"
MARK = "this folder was made by `strongroom demo`, which replaces it"
BAND = "mean radius"
TITLE = "Accuracy of the lab's classifier on the hospital's records, by tumour size"
EDGES = ["9", "12", "15", "18", "22"]


def declare(_verb: str, parser: ArgumentParser) -> None:
    example(
        parser,
        """
strongroom demo                            # about ten seconds; needs strongroom[demo]
strongroom demo --brokers 2-of-3           # the key over other people's brokers, one of which is killed
strongroom demo llm-eval --model m.gguf    # a secret model on secret questions; needs strongroom[evals]
strongroom demo datastore                  # a model that looks things up in others' texts, and pays; needs strongroom[lm]
""",
    )
    parser.add_argument(
        "story", nargs="?", choices=("records", LLM_EVAL, DATASTORE), default="records", help="which story is told (records)"
    )
    parser.add_argument("--model", type=Path, metavar="FILE", help=f"of {LLM_EVAL}: the lab's GGUF file (the embedded one)")
    parser.add_argument("--folder", type=Path, default=Path("demo"), help="where to put everything (demo)")
    parser.add_argument(
        "--brokers", metavar="T-of-N", help="of records: share the hospital's key over N brokers of other people"
    )
    parser.add_argument("--only-files", action="store_true", help="write the model and the records there, and stop")
    parser.set_defaults(run=run)


@dataclass
class Clock:
    """Where the time goes: seconds by name, in the order of the story."""

    spent: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.spent[name] = self.spent.get(name, 0.0) + time.perf_counter() - began


def run(args: Namespace, screen: Screen) -> int:
    if args.brokers is not None and (args.story != "records" or args.only_files):
        raise Usage("--brokers is of the story of the records, which it tells to its end")
    if args.story == LLM_EVAL:
        from . import demo_llm

        return demo_llm.run(args, screen)
    if args.story == DATASTORE:
        from . import demo_datastore

        if args.model is not None or args.only_files:
            raise Usage("datastore is told with the model that ships, and to its end")
        return demo_datastore.run(args, screen)
    if args.model is not None:
        raise Usage(f"--model is of {LLM_EVAL}; the model of the records is trained here")
    if args.brokers is not None:
        from . import demo_shared

        return demo_shared.run(args, screen)
    folder = fresh(args.folder)
    if args.only_files:
        prepare(folder, screen)
        draft = {
            "asset": {"data": "hospital/records.csv", "model": "lab/model.onnx"},
            "output": {"calibration": ["hospital"], "predictions": ["lab"], "report": ["hospital", "lab"]},
            "parameters": parameters(folder),
            "title": TITLE,
        }
        (folder / "draft.json").write_text(json.dumps(draft, indent=2))
        screen.result({"folder": str(folder)})
        return 0
    clock = Clock()
    screen.line("A lab has a model that nobody may copy. A hospital has records that nobody may see.", "bold")
    screen.line("Neither trusts the other, nor this machine's owner, nor the server between them.")
    screen.line(f"{LABEL}: this demo shows the path, not the protection.", "yellow")
    screen.heading("1  Each side prepares what it holds")
    with clock("train the model"):
        prepare(folder, screen)
    home = Home(folder)
    for name in ("lab", "hospital"):
        make(home, name)
    with Fleet(home) as fleet:
        start(fleet, clock, screen)
        lab, hospital = (
            Room(home.party(n), exchange=fleet.config.exchange, enclave=fleet.config.enclave) for n in ("lab", "hospital")
        )
        pin(lab, hospital, fleet, screen)
        with clock("seal and upload"):
            _seal(lab, hospital, folder, screen)
        contract = _agree(lab, hospital, folder, clock, screen)
        bundle = enclave_runs(lab, contract, clock, screen)
        opened = _outputs(lab, hospital, contract, clock, screen)
        path = check(lab, bundle, clock, screen)
        screen.heading("9  What the operator of the exchange can see")
        look(folder / "exchange", screen, brief=True)
    end(folder, path, opened, clock, screen)
    return 0


def fresh(folder: Path) -> Path:
    """An empty folder for the demo, in place of an earlier demo's. Raises Conflict: it is something else."""
    if folder.exists():
        if not (folder / "README").is_file() or (folder / "README").read_text() != MARK:
            raise Conflict(
                f"{folder} is there and is no demo's", hint="Choose another place: strongroom demo --folder PLACE"
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / "README").write_text(MARK)
    return folder


def prepare(folder: Path, screen: Screen) -> None:
    """Train and convert the lab's model; write the hospital's held-out records. Raises MissingExtra."""
    try:
        from skl2onnx import to_onnx
        from sklearn.datasets import load_breast_cancer
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import train_test_split
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise MissingExtra(
            "the demo trains a model, which needs more libraries", hint="pip install 'strongroom[demo]'"
        ) from error
    data = load_breast_cancer()
    train, held, train_y, held_y = train_test_split(
        data.data, data.target, test_size=0.5, random_state=7, stratify=data.target
    )
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(train, train_y)
    onnx = to_onnx(model, train[:1].astype("float32"), options={"zipmap": False}).SerializeToString()
    (folder / "model.onnx").write_bytes(onnx)
    names = [str(n) for n in data.feature_names]
    (folder / "features.json").write_text(json.dumps(names))  # the model's inputs, in its order: no secret
    with (folder / "records.csv").open("w", newline="") as sink:
        writer = csv.writer(sink)
        writer.writerow([*names, "benign"])
        writer.writerows([*(repr(float(v)) for v in row), int(y)] for row, y in zip(held, held_y, strict=True))
    with (folder / "mock.csv").open("w", newline="") as sink:
        writer = csv.writer(sink)
        writer.writerow([*names, "benign"])
        writer.writerows([*(f"{i}.0" for i in range(1, len(names) + 1)), i % 2] for i in range(4))
    screen.said("lab", f"a classifier trained on its {len(train)} records, as ONNX ({len(onnx):,} bytes)")
    screen.said("hospital", f"{len(held)} other records with {len(names)} measurements each, and a mock of the same shape")


def start(fleet: Fleet, clock: Clock, screen: Screen) -> None:
    """Start every role, told as the story's second step."""
    screen.heading("2  Six processes start: an exchange, two brokers, a platform, an enclave, a sandbox")
    with clock("start the processes"):
        fleet.start(
            on_ready=lambda role: screen.said(role.name, f"{role.url}   process {role.process.pid}, {role.seconds:.1f} s"),
            on_wait=lambda names: screen.said("", f"waiting for the {names} (the first start compiles what it measured)"),
        )


def pin(one: Room, another: Room, fleet: Fleet, screen: Screen) -> None:
    """Have two parties pin each other and this machine's enclave and log, told as the story's third step."""
    screen.heading("3  Each side pins what it trusts: the other's keys, the enclave's measurement, the log's key")
    values = reference(read(fleet.reference()))
    for me, other in ((one, another), (another, one)):
        trust = me.trust.pin(other.home.card).with_enclaves(values.roots, values.measurements)
        for vkey in values.logs:
            trust = trust.with_log(vkey)
        me.home.save_trust(trust)
        screen.said(me.name, f"pins {other.name}, whose fingerprint is {other.home.card.fingerprint[:30]}…")
    screen.said("both", f"expect the measurement {values.measurements[0].digest[:30]}… (strongroom measure prints it)")


def _seal(lab: Room, hospital: Room, folder: Path, screen: Screen) -> None:
    screen.heading("4  Each side seals its asset; the key stays with its own broker")

    def rule(kind: str, group: int, decimals: int) -> OutputRule:
        return OutputRule(ANY_PARTY, MAX_BYTES[kind], group, decimals)

    uses = frozenset({"evaluate"})
    kinds = ("picture", "records", "report")
    model = lab.seal(
        folder / "model.onnx", terms=Policy(uses, {k: rule(k, 1, 15) for k in kinds}), name="classifier", reveal_digest=True
    )
    records = hospital.seal(
        folder / "records.csv",
        terms=Policy(uses, {k: rule(k, 10, 4) for k in ("picture", "report")}),
        name="held-out",
        mock=folder / "mock.csv",
    )
    screen.said("lab", f"lab/{model.name}: may be evaluated; manifest {model.digest[:30]}…")
    screen.said("hospital", f"hospital/{records.name}: may be evaluated, groups under 10 suppressed, no row ever leaves")
    screen.said("exchange", "holds both sealed files; it has no key, and never will")


def _agree(lab: Room, hospital: Room, folder: Path, clock: Clock, screen: Screen) -> str:
    screen.heading("5  The lab proposes")
    with clock("propose, counter, approve"):
        first = _propose(lab, folder)
    for output in first.outputs:
        screen.said(output.name, f"to {' and '.join(output.recipients)}")
    screen.heading("6  The hospital counters: it may not let rows leave, nor small groups show")
    try:
        with clock("propose, counter, approve"):
            hospital.approve(first.digest)
    except NotPermitted as refused:
        screen.said("hospital", f"approve: {refused.code}: {refused}")
    with clock("propose, counter, approve"):
        second = hospital.counter(first.digest, Change(min_group=10, decimals=4, drop=("predictions",)))
    for change in differences(first, second):
        if not change.about.startswith("policy"):
            screen.said(
                *(("- " + change.about, change.old or "") if change.new is None else ("~ " + change.about, change.new)),
                width=28,
            )
    with clock("propose, counter, approve"):
        lab.approve(second.digest)
    screen.said("lab", "reads the difference and approves: both have signed exactly these bytes")
    screen.said("contract", second.digest)
    return second.digest


def _propose(lab: Room, folder: Path) -> Proposal:
    draft = Draft(
        title=TITLE,
        program="evaluate",
        assets={"data": lab.asset("hospital/held-out"), "model": lab.asset("lab/classifier")},
        outputs={
            "calibration": Wanted(("hospital",)),
            "predictions": Wanted(("lab",)),
            "report": Wanted(("hospital", "lab")),
        },
        parameters=parameters(folder),
    )
    return lab.propose(draft)


def parameters(folder: Path) -> dict[str, JSON]:
    """What the story asks of the program."""
    return {
        "classes": ["0", "1"],
        "features": json.loads(read(folder / "features.json")),
        "groups": [{"column": BAND, "edges": [*EDGES], "name": "tumour size"}],
        "positive": None,
        "target": "benign",
        "task": "classification",
    }


def enclave_runs(lab: Room, contract: str, clock: Clock, screen: Screen) -> Bundle:
    """Have the contract run, told as the story's seventh step. Raises RunFailed."""
    screen.heading("7  The enclave proves what it is; each broker checks for itself and releases its key; the program runs")
    marks: list[tuple[str, float]] = []
    shown = Steps(screen)

    def step(name: str, detail: str) -> None:
        marks.append((name, time.perf_counter()))
        shown(name, detail)

    bundle = lab.run(contract, step)
    marks.append(("", time.perf_counter()))
    failure = Statement.parse(bundle.receipt.payload).failure
    if failure is not None:
        raise RunFailed(f"the program stopped at {failure.step!r}: {failure.code}")
    for (name, began), (_, ended) in pairwise(marks):
        clock.spent[f"run: {name}"] = clock.spent.get(f"run: {name}", 0.0) + ended - began
    return bundle


def _outputs(lab: Room, hospital: Room, contract: str, clock: Clock, screen: Screen) -> dict[str, list[Opened]]:
    screen.heading("8  Each side opens what was delivered to it, and to it alone")
    with clock("open the outputs"):
        found = {room.name: room.outputs(contract) for room in (lab, hospital)}
    for name, opened in found.items():
        got = {o.name for o in opened}
        screen.said(
            name, f"{', '.join(sorted(got))}; cannot open: {', '.join(sorted({'report', 'calibration'} - got)) or 'nothing'}"
        )
    path = next(o.path for o in found["lab"] if o.name == "report")
    report(json.loads(read(path)), screen)
    screen.said("", LABEL)
    screen.said("lab saw", "no record and no row; hospital saw no weight; the exchange saw neither")
    return found


def check(lab: Room, bundle: Bundle, clock: Clock, screen: Screen) -> Path:
    """Check the receipt as the lab, told; where it lies."""
    screen.heading("   The receipt, checked from the lab's own trust file")
    with clock("verify the receipt"):
        found = examine(bundle, trust=lab.trust)
    show(found, screen)
    return lab.home.place("receipts") / f"{bundle.receipt.digest.removeprefix('sha256:')}.json"


def commands() -> tuple[str, str]:
    """How to call this program and this Python from here: by name where they are on the path."""
    here = Path(sys.executable).parent
    near = here.relative_to(Path.cwd()) if here.is_relative_to(Path.cwd()) else here
    if Path(shutil.which("strongroom") or "").parent == here:
        return "strongroom", "python"
    return str(near / "strongroom"), str(near / "python")


def end(folder: Path, path: Path, opened: dict[str, list[Opened]], clock: Clock, screen: Screen, **more: JSON) -> None:
    """Where everything is, where the time went, and what to try. ``more``: for machines, beside it."""
    screen.heading("Where everything is")
    for name, outputs in opened.items():
        for output in outputs:
            screen.said(f"{name}: {output.name}", str(output.path))
    screen.said("receipt", str(path))
    screen.heading("Where the time went")
    for name, seconds in clock.spent.items():
        screen.said(name, f"{seconds:6.3f} s")
    screen.heading("Try")
    ours, python = commands()
    base, tampered = f"--home {folder} --as lab", folder / "tampered.json"
    screen.line(f"  {ours} verify {path} {base}")
    screen.line(f"  {python} examples/tamper.py {path} {tampered}; {ours} verify {tampered} {base}")
    screen.line(f"  {ours} inspect {folder / 'exchange'}")
    screen.result(
        {
            **more,
            "folder": str(folder),
            "outputs": {n: [str(o.path) for o in found] for n, found in opened.items()},
            "platform": LABEL,
            "receipt": str(path),
            "seconds": {n: round(s, 3) for n, s in clock.spent.items()},
        }
    )
