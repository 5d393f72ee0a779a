"""The vectors as a whole: no folder is empty, and every numbered check of an appraisal has one in which it fails first."""

from __future__ import annotations

import importlib.util
import json
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from strongroom.attest.appraisal import appraise
from strongroom.attest.appraisal_policy import AppraisalPolicy
from strongroom.attest.evidence import Endorsements, Evidence
from strongroom.attest.keyset import Keyset
from strongroom.transcript import Status, Steps

ROOT = Path(__file__).parents[1]
VECTORS = ROOT / "vectors"
ATTEST = ROOT / "src" / "strongroom" / "attest"
# Where the cases of a module's checks are.
FOLDERS = {
    "aci_report": ("dstack",),
    "appraisal": ("appraisal", "composite"),
    "azure": ("azure_vtpm",),
    "dstack": ("dstack",),
    "intel": ("tdx", "sgx"),
    "nitro": ("nitro",),
    "nras": ("nras",),
    "nvidia": ("nvidia_cc",),
    "nvidia_switch": ("nvidia_switch", "nvidia_cc"),
    "sgx": ("sgx", "tdx"),
    "simulated": ("appraisal",),
    "snp": ("sev_snp",),
    "snp_judge": ("sev_snp",),
    "tdx": ("tdx", "sgx"),
    "tpm": ("tpm",),
}
# Checks that fail first in no case, and why.
NOT_FIRST = {
    "A3": "sums up the platform's own checks, of which one has failed before it",
    "A11": "sums up the terms' checks, likewise; that of a platform without terms cannot fail",
    "Q20": "needs that another library, which is optional, disagrees about a quote",
}


def steps() -> dict[tuple[str, str], Steps]:
    """Every list of numbered checks, by its module and name."""
    found = {}
    for path in sorted(ATTEST.glob("*.py")):
        module = import_module(f"strongroom.attest.{path.stem}")
        for name in ("STEPS", "TERMS_STEPS"):
            if isinstance(getattr(module, name, None), Steps):
                found[path.stem, name] = getattr(module, name)
    return found


def failing(folder: str) -> set[str]:
    """The numbers of the checks that fail first in the cases of a folder."""
    found = {json.loads(path.read_bytes())["fails"] for path in (VECTORS / folder).glob("*.json")}
    return found - {""}


def test_every_module_with_checks_is_known_here():
    assert {module for module, _ in steps()} == set(FOLDERS)


@pytest.mark.parametrize(("module", "name"), steps())
def test_every_numbered_check_fails_first_in_some_vector(module: str, name: str):
    numbers = {number for number, _ in steps()[module, name]}
    failed = set().union(*map(failing, FOLDERS[module]))
    assert numbers - failed == numbers & set(NOT_FIRST)


def test_nothing_is_excused_that_some_vector_shows():
    every = {number for found in steps().values() for number, _ in found}
    assert set(NOT_FIRST) <= every


def test_no_folder_is_empty_and_each_has_cases_of_both_outcomes():
    folders = [path for path in VECTORS.iterdir() if path.is_dir() and not path.name.startswith(("_", "."))]
    assert len(folders) > 25
    for folder in folders:
        cases = [json.loads(path.read_bytes()) for path in folder.glob("*.json")]
        assert cases, folder.name
        assert all(case["description"] and case["expect"] for case in cases), folder.name
        assert {case["expect"] == "ok" for case in cases} == {True, False}, folder.name


def test_the_failing_check_is_called_the_same_everywhere():
    """One word for one thing: who runs these against another implementation reads one member."""
    for path in VECTORS.glob("*/*.json"):
        case = json.loads(path.read_bytes())
        assert "check" not in case, path
        if "fails" in case:
            assert (case["fails"] == "") == (case["expect"] == "ok"), path


# --- a processor with devices beside it, through the whole appraisal ----------------------------------------------------


def _maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_composite", VECTORS / "make_composite.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


COMPOSITE = sorted((VECTORS / "composite").glob("*.json"))


def test_the_composite_vectors_are_those_that_their_script_writes():
    found = {f"composite/{path.name}": path.read_text(encoding="utf-8") for path in COMPOSITE}
    parts = (VECTORS / "composite_parts.json").read_text(encoding="utf-8")
    assert {**found, "composite_parts.json": parts} == _maker().written()


@pytest.mark.parametrize("path", COMPOSITE, ids=lambda path: path.stem)
def test_composite_vector(path: Path):
    case: dict[str, Any] = json.loads(path.read_bytes())
    parts = json.loads((VECTORS / "composite_parts.json").read_bytes())
    keyset = Keyset.from_json(case["keyset"])
    result = appraise(
        Evidence.from_json(case["evidence"]),
        policy=AppraisalPolicy.from_json(case["policy"]),
        endorsements=Endorsements.from_json(parts[case["endorsements_part"]]),
        nonce=bytes.fromhex(case["nonce"]),
        at=case["at"],
        keyset=keyset,
    )
    problem = result.problem
    if case["expect"] == "ok":
        assert problem is None
        assert result.require() == keyset
        return
    assert problem is not None
    assert (problem.number, problem.code, problem.status) == (case["fails"], case["expect"], Status.FAILED)
    assert not result.affirming
    assert result.keyset is None
