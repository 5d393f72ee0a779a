"""Where real evidence lies that others' hardware signed. It is not part of the project: without it, these tests are left out
and say so; what they test is tested beside them on evidence of the project's own (tests/pki_*.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "shared" / "vectors" / "evidence"
real = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="left out: the real hardware evidence (shared/vectors/evidence) is not here"
)


def read(name: str) -> bytes:
    """The bytes of one file, by its name under the folder."""
    return (FOLDER / name).read_bytes()


def cases(name: str) -> list[dict[str, Any]]:
    """The cases of ``cases_dcap.json`` or ``cases_other.json``; none where the folder is absent."""
    path = FOLDER / name
    return json.loads(path.read_bytes()) if path.is_file() else []
