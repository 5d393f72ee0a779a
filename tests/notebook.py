"""The notebook in ``docs/notebook.ipynb``: executed from here, so that it shows what the code really answers.

``python tests/notebook.py`` executes it anew and writes its outputs; ``test_notebook.py`` executes it again and compares.
The cells run one after another in one namespace, in a folder with a room that was started for the purpose. It
needs no kernel.

What comes after the mock (trying code, submitting it, running it) is added to ``CELLS`` and, for the owner's side, to
``stand``; nothing else has to change.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from strongroom.app.cli import main as strongroom_main
from strongroom.app.cli.fleet import Fleet
from strongroom.app.cli.parties import make
from strongroom.app.client.home import Home

PLACE = Path(__file__).parents[1] / "docs" / "notebook.ipynb"

# (kind, text): a markdown cell, or a code cell
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
    --use evaluate --allow report --min-group 10
```
""",
    ),
    ("code", 'import strongroom\n\nroom = strongroom.connect("room", party="researcher")\nroom.assets'),
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
Now write the analysis, as a function of its inputs, and run it on the mock. Its figures mean nothing: values are drawn
evenly from each range, and columns have nothing to do with each other.
""",
    ),
    (
        "code",
        """def by_diagnosis(records):
    usable = records.dropna(subset=["diagnosis"])
    groups = usable.groupby("diagnosis", observed=True)["mean radius"]
    return groups.agg(["count", "mean", "max"]).round(2)


by_diagnosis(mock)""",
    ),
    (
        "markdown",
        """
Code that passes here fits the records: when the hospital offered them, the mock was held against them, column by column.
What runs on the records themselves is a contract that the hospital signs first.
""",
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
    researcher = place.party("researcher")
    researcher.save_trust(researcher.trust.pin(place.party("hospital").card))
    table, reveal = folder / "records.parquet", folder / "reveal.json"
    pq.write_table(records(), table)
    hospital = ["--home", str(place.folder), "--as", "hospital"]
    with Fleet(place) as fleet:
        fleet.start(enclave=False)
        typed("offer", str(table), "--suggest", str(reveal), *hospital)
        draft = json.loads(reveal.read_text())
        for column in draft["columns"]:
            column.pop("null")  # what the hospital took out when it read the draft
        reveal.write_text(json.dumps(draft))
        terms = ["--use", "evaluate", "--allow", "report", "--min-group", "10"]
        typed("offer", str(table), "--reveal", str(reveal), "--withhold", "patient", *terms, *hospital)
        yield


def typed(*words: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        assert strongroom_main(words) == 0


# --- executing --------------------------------------------------------------------------------------------------------


def executed(folder: Path) -> dict[str, Any]:
    """The notebook with what its cells answered, in a folder in which a room stands."""
    names: dict[str, Any] = {"__name__": "__main__"}
    cells, before = [], Path.cwd()
    os.chdir(folder)
    try:
        for place, (kind, text) in enumerate(CELLS):
            cell: dict[str, Any] = {"cell_type": kind, "id": f"cell-{place}", "metadata": {}, "source": lines(text.strip())}
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


def answered(source: str, names: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Run one cell; what it printed, and what its last expression is."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "<cell>", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)
    found: list[dict[str, Any]] = []
    if printed.getvalue():
        found.append({"name": "stdout", "output_type": "stream", "text": lines(printed.getvalue())})
    if value is not None:
        data = {"text/plain": lines(repr(value))}
        if hasattr(value, "_repr_html_"):
            data["text/html"] = lines(value._repr_html_())
        found.append({"data": data, "execution_count": count, "metadata": {}, "output_type": "execute_result"})
    return found


def lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def same(notebook: dict[str, Any]) -> list[Any]:
    """What a notebook says, without what differs each time: digests and times."""
    text = json.dumps([[c["cell_type"], c["source"], shown(c)] for c in notebook["cells"]])
    text = re.sub(r"sha256:[0-9a-f]{64}", "<digest>", text)
    return json.loads(re.sub(r"\d{1,2} [A-Z][a-z]+ \d{4}, \d\d:\d\d UTC", "<time>", text))


def shown(cell: dict[str, Any]) -> list[Any]:
    """A table's HTML is compared and not its text, which is cut at a terminal's width."""
    return [o.get("text") or o["data"].get("text/html") or o["data"]["text/plain"] for o in cell.get("outputs", [])]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary, stand(Path(temporary)):
        PLACE.write_text(json.dumps(executed(Path(temporary)), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
