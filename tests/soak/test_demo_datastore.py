"""The whole of ``strongroom demo datastore``, as somebody would run it: about a minute and a half."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="models that retrieve need strongroom[lm]")
pytest.importorskip("faiss", reason="stores need strongroom[lm]")

from strongroom.drawing import Price


def test_the_model_writes_law_while_it_may_and_the_receipt_says_what_it_owes(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "strongroom", "demo", "datastore", "--folder", str(tmp_path / "demo"), "--json"]
    ran = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["same"] is True
    assert found["before"] == found["after"] != found["within"]
    law = found["drawn"]["law"]
    assert law["weight"] == sum(law["gates"])
    assert found["owed"] == law["amount"] == Price(25_000_000, "EUR-nano").of(law["weight"]) > 0
