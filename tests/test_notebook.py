"""The notebook in the docs: it was executed, it answers the same today, and nothing of the records stands in it."""

from __future__ import annotations

import json

import pytest

from notebook import CELLS, PLACE, executed, records, same, stand

KEPT = json.loads(PLACE.read_text(encoding="utf-8"))


def test_it_was_executed_and_shows_tables_and_no_reprs():
    code = [cell for cell in KEPT["cells"] if cell["cell_type"] == "code"]
    assert len(code) >= 5
    assert len(KEPT["cells"]) == len(CELLS)
    assert all(cell["execution_count"] and cell["outputs"] for cell in code)
    results = [o["data"] for cell in code for o in cell["outputs"] if "data" in o]
    assert results
    assert all("<table" in "".join(data["text/html"]) for data in results)
    assert " object at 0x" not in json.dumps(KEPT)


def test_it_has_the_form_of_a_notebook():
    assert (KEPT["nbformat"], KEPT["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in KEPT["cells"]}) == len(KEPT["cells"])
    for cell in KEPT["cells"]:
        wanted = {"cell_type", "id", "metadata", "source"}
        assert set(cell) == (wanted | {"execution_count", "outputs"} if cell["cell_type"] == "code" else wanted)


def test_it_goes_from_the_offer_to_verified_figures():
    outputs = [o for cell in KEPT["cells"] for o in cell.get("outputs", [])]
    said = "".join("".join(o["data"]["text/html"]) for o in outputs if "data" in o)
    assert "passed: everything that was asked for would leave" in said
    assert "by researcher, who claims the outcome sha256:" in said
    assert said.count("<td>passed: ") == 14  # and thirteen checks of the receipt
    figures = "".join(KEPT["cells"][-1]["outputs"][0]["data"]["text/html"])
    table = records().to_pandas().groupby("diagnosis")["mean radius"].mean().round(2)
    assert all(str(mean) in figures for mean in table)


@pytest.mark.usefixtures("tmp_path")
def test_it_answers_the_same_today(tmp_path):
    with stand(tmp_path):
        assert same(executed(tmp_path)) == same(KEPT)


def test_no_record_stands_in_it():
    said = json.dumps(KEPT)
    assert "P00000" not in said
    assert "patient" in said  # withheld, and named where that is said
    rows = records().to_pylist()
    assert len(rows) == 569
    assert not [row for row in rows if all(str(row[name]) in said for name in ("mean radius", "mean texture", "mean area"))]
