"""The notebook in ``docs/notebook.ipynb``: executed from here, so that it shows what the code really answers.

``python tests/notebook.py`` executes it anew and writes its outputs; ``test_notebook.py`` executes it again and compares.
The cells run one after another in one namespace, in a folder with a room that was started for the purpose. It
needs no kernel.

A cell of kind ``owner`` is text in the notebook; the commands in it are typed for the hospital when it is reached.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import linecache
import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from strongroom.app.cli import main as strongroom_main
from strongroom.app.cli.fleet import Fleet
from strongroom.app.cli.parties import make
from strongroom.app.client import display
from strongroom.app.client.home import Home, reference

PLACE = Path(__file__).parents[1] / "docs" / "notebook.ipynb"

# (kind, text): a markdown cell, a code cell, or what the owner types in between
CELLS: list[tuple[str, str]] = [
    (
        "markdown",
        """
# Code against data that nobody may see

A hospital offers records of tumours. You may not see them; you may see a *mock*: a table with the same columns and types,
made from what the hospital agreed to reveal and from nothing else. You write your code against the mock.

This notebook was executed from top to bottom as it stands. The hospital had typed

```sh
strongroom offer records.parquet --suggest reveal.json     # then it read the draft, and edited it
strongroom offer records.parquet --reveal reveal.json --withhold patient --as hospital \\
    --use analyse --allow values --decimals 2 --max-bytes 10000
```
""",
    ),
    ("code", 'import strongroom\n\nroom = strongroom.connect("room", party="researcher")\nroom'),
    ("markdown", "That is you, and whom you pinned. What they offer:"),
    ("code", "room.assets"),
    (
        "markdown",
        "Only what owners offer whose keys you pinned is listed. An asset shows its card and the first rows of its mock:",
    ),
    ("code", 'records = room.assets["records"]\nrecords'),
    (
        "markdown",
        """
The mock came from the exchange, which nobody has to trust: its bytes are those that the hospital signed. It is an ordinary
pandas table. It holds nulls, the ends of each range and a rare category on purpose, so that your code meets them here first.
""",
    ),
    ("code", "mock = records.mock\nmock.describe()"),
    ("code", "records.schema"),
    ("markdown", "What the hospital lets anybody do with the records themselves, in words:"),
    ("code", "records.terms"),
    (
        "markdown",
        """
Now write the analysis, as a function of its inputs that returns its outputs by name, and run it on the mock. Its figures
mean nothing: values are drawn evenly from each range, and columns have nothing to do with each other.
""",
    ),
    (
        "code",
        """def by_diagnosis(records):
    usable = records.dropna(subset=["diagnosis"])
    groups = usable.groupby("diagnosis", observed=True)["mean radius"]
    return {"summary": groups.agg(["count", "mean", "std"])}


by_diagnosis(mock)["summary"]""",
    ),
    (
        "markdown",
        """
Code that passes here fits the records: when the hospital offered them, the mock was held against them, column by column.

`try_` runs it as the room will: in the same sandbox, by the same runner, under the same rules. The rules say what may leave:
numbers under these names, with two decimals, and nothing else.
""",
    ),
    (
        "code",
        """outputs = {"summary": "values:researcher"}
number = {"maximum": 1000, "minimum": 0, "type": "number"}
groups = {"properties": {"benign": number, "malignant": number}, "type": "object"}
summary = {"properties": {"count": groups, "mean": groups, "std": groups}, "type": "object"}
rules = {"decimals": 2, "max_bytes": 10_000, "schemas": {"summary": summary}}
tried = room.try_(by_diagnosis, inputs={"records": records}, outputs=outputs, **rules)
tried""",
    ),
    (
        "markdown",
        """
What runs on the records themselves is a contract that the hospital signs first. Submitting publishes the code under its
digest, and proposes to run exactly that. With `tried=tried` reviewers see what it did on the mock, as your claim:
""",
    ),
    (
        "code",
        """from strongroom.observation import Observed

told = Observed(5, "withheld")  # when it ends, in multiples of five seconds; that it failed, and not how
inputs = {"records": records.name}
proposal = room.submit(by_diagnosis, inputs=inputs, outputs=outputs, observed=told, tried=tried, **rules)
room.view(proposal.digest)""",
    ),
    ("markdown", "The bundle holds the function, and nothing else of this notebook:"),
    (
        "code",
        """for name, text in room.submitted(proposal).files.items():
    print(name, text, sep="\\n\\n")""",
    ),
    (
        "owner",
        """
Until the hospital agrees, nothing can run. It looks at the code and the static report, runs the code on the mock itself, and
approves by two digests: of the proposal, and of the code that it was shown.

```sh
strongroom inbox show PROPOSAL --run-mock --as hospital
strongroom inbox approve PROPOSAL --bundle CODE --as hospital
```
""",
    ),
    (
        "markdown",
        """
Now both have signed, and the enclave can be asked to run it. It proves to the hospital's broker what it is, gets the key to
the records, runs the code with no way out, lets through what the rules allow, and signs a receipt. `run` verifies that.
""",
    ),
    (
        "code",
        """bundle = room.run(proposal.digest)
receipt = strongroom.verify(bundle, trust=room.trust)
receipt""",
    ),
    ("markdown", "The output was encrypted to the researcher alone. These figures are of the records, with two decimals:"),
    (
        "code",
        "room.outputs(proposal.digest)",
    ),
]


# --- the room ---------------------------------------------------------------------------------------------------------


def records() -> pa.Table:
    """Real records (Breast Cancer Wisconsin, as scikit-learn carries them), with a made-up number for each patient."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    diagnosis = ["benign" if target else "malignant" for target in data.target]
    return pa.table(
        {
            "patient": [f"P{number:05d}" for number in range(len(diagnosis))],
            "diagnosis": diagnosis,
            **{str(name): data.data[:, place] for place, name in enumerate(data.feature_names[:4])},
        }
    )


@contextlib.contextmanager
def stand(folder: Path) -> Iterator[None]:
    """A room in ``folder/room`` where a hospital offers its records, and a researcher who pinned it."""
    place = Home(folder / "room")
    for name in ("hospital", "researcher"):
        make(place, name)
    table, reveal = folder / "records.parquet", folder / "reveal.json"
    pq.write_table(records(), table)
    hospital = ["--home", str(place.folder), "--as", "hospital"]
    with Fleet(place, extras=("data",)) as fleet:
        fleet.start()
        values = reference(fleet.reference().read_bytes())
        for name, other in (("researcher", "hospital"), ("hospital", "researcher")):
            party = place.party(name)
            trust = party.trust.pin(place.party(other).card).with_enclaves(values.roots, values.measurements)
            party.save_trust(trust.with_log(values.logs[0]))
        typed("offer", str(table), "--suggest", str(reveal), *hospital)
        draft = json.loads(reveal.read_text())
        for column in draft["columns"]:
            column.pop("null")  # what the hospital took out when it read the draft
        reveal.write_text(json.dumps(draft))
        terms = ["--use", "analyse", "--allow", "values", "--decimals", "2", "--max-bytes", "10000"]
        typed("offer", str(table), "--reveal", str(reveal), "--withhold", "patient", *terms, *hospital)
        yield


def typed(*words: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of libraries that are imported here for the first time
        assert strongroom_main(words) == 0


# --- executing --------------------------------------------------------------------------------------------------------


def executed(folder: Path) -> dict[str, Any]:
    """The notebook with what its cells answered, in a folder in which a room stands."""
    names: dict[str, Any] = {"__name__": "__main__"}
    cells, before = [], Path.cwd()
    os.chdir(folder)
    try:
        for place, (kind, text) in enumerate(CELLS):
            shown_as = "markdown" if kind == "owner" else kind
            cell: dict[str, Any] = {
                "cell_type": shown_as,
                "id": f"cell-{place}",
                "metadata": {},
                "source": lines(text.strip()),
            }
            if kind == "owner":
                owner(text, names, folder)
            if kind == "code":
                cell["execution_count"] = sum(k == "code" for k, _ in CELLS[: place + 1])
                cell["outputs"] = answered(text, names, cell["execution_count"])
            cells.append(cell)
    finally:
        if "room" in names:
            names["room"].close()
        os.chdir(before)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def owner(text: str, names: dict[str, Any], folder: Path) -> None:
    """Type what the owner types: the commands of a cell, with the digests of the proposal that the researcher made."""
    proposal = names["proposal"]
    digests = {"PROPOSAL": proposal.digest, "CODE": proposal.program.parameters["bundle"]}
    for line in text.splitlines():
        if line.startswith("strongroom "):
            typed(*(digests.get(word, word) for word in line.split()[1:]), "--home", str(folder / "room"))


def answered(source: str, names: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Run one cell; what it printed, and what its last expression is."""
    cell = f"<cell-{count}>"
    linecache.cache[cell] = (len(source), None, source.splitlines(keepends=True), cell)  # as a notebook does
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, cell, "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), cell, "eval"), names)
    found: list[dict[str, Any]] = []
    if printed.getvalue():
        found.append({"name": "stdout", "output_type": "stream", "text": lines(printed.getvalue())})
    if value is not None:
        data, shown_as = {"text/plain": lines(display.text_of(value))}, display.html_of(value)
        if shown_as is not None:
            data["text/html"] = lines(shown_as)
        found.append({"data": data, "execution_count": count, "metadata": {}, "output_type": "execute_result"})
    return found


def lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def same(notebook: dict[str, Any]) -> list[Any]:
    """What a notebook says, without what differs each time: digests and times."""
    text = json.dumps([[c["cell_type"], c["source"], shown(c)] for c in notebook["cells"]])
    text = re.sub(r"sha256:[0-9a-f]{64}", "<digest>", text)
    text = re.sub(r"(?:bubblewrap|namespaces), \d+\.\d\d s", "<sandbox>", text)
    text = re.sub(r"http://127\.0\.0\.1:\d+", "<address>", text)
    text = re.sub(r"[\w.-]+/ledger-[0-9a-f]{8}", "<log>", text)
    text = re.sub(r"<td>(?:[0-9a-f]{4}[ -]?){4,16}</td>", "<td><fingerprint></td>", text)
    text = re.sub(r"[^>]*/outputs/[0-9a-f]{32}/", "outputs/<run>/", text)
    return json.loads(re.sub(r"\d{1,2} [A-Z][a-z]+ \d{4}, \d\d:\d\d UTC", "<time>", text))


def shown(cell: dict[str, Any]) -> list[Any]:
    """A table's HTML is compared and not its text, which is cut at a terminal's width."""
    return [o.get("text") or o["data"].get("text/html") or o["data"]["text/plain"] for o in cell.get("outputs", [])]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary, stand(Path(temporary)):
        PLACE.write_text(json.dumps(executed(Path(temporary)), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
