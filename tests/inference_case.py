"""The exchange that ``vectors/make_inference_receipt.py`` writes down, for the tests of inference receipts."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from strongroom.inference.verification import Verification, examine


def _maker() -> ModuleType:
    path = Path(__file__).parents[1] / "vectors" / "make_inference_receipt.py"
    spec = importlib.util.spec_from_file_location("make_inference_receipt", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


M = _maker()
APPRAISED = M.appraised(M.evidence())
GOOD = M.sign()


def look(data: bytes | None = None, **changes: Any) -> Verification:
    """As the client of an exchange where everything is right, but for the changes."""
    told = {"appraisal": APPRAISED, "expected": M.KNOWN, "at": M.AT + 62, **changes}
    return examine(GOOD.encode() if data is None else data, **told)
