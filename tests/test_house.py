"""The house: imports run one way, only the edge touches the world, and every format has its page and its vectors."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import strongroom
from strongroom import errors

HOME = Path(__file__).parents[1]
SOURCE = HOME / "src" / "strongroom"

# A unit imports itself and what stands on a lower floor. Two units on one floor do not know each other.
FLOORS: list[set[str]] = [
    {"errors", "merkle"},
    {"wire"},
    {"lock"},
    {"code", "trial"},
    {"transcript", "party", "ehbp", "serving", "schema", "observation"},
    {"rule", "drawing"},
    {"policy", "checkpoint", "mark"},
    {"asset", "attest", "ledger", "budget"},
    {"threshold", "trust", "rcar"},
    {"contract", "holding"},
    {"dealing", "delivery", "overview", "output", "failure", "job", "release"},
    {"broker", "airlock", "parts", "proof"},
    {"holder", "guest", "receipt", "inference", "batch", "review"},
    {"settle", "enclave", "usage", "served", "carry"},
]
FLOOR = {"__version__": -1} | {unit: height for height, units in enumerate(FLOORS) for unit in units}
LEARNING = {"programs", "lm"}  # the half that knows errors and nothing else of ours
FRONT = {"__init__", "__main__"}  # the package's face: names what is behind it, loaded when it is used
# The half of a sandbox that starts its child, and the half that runs in it.
SANDBOX = {"programs.analysis", "programs.asked", "programs.boot", "programs.runner", "programs.serving"}
# A training says how fast it is, and has processes that search ahead of it.
TRAINING = {"lm.batches", "lm.training"}
# What inspect_ai calls is asynchronous; the child that it runs in has nothing else to do.
ASYNCHRONOUS = {"programs.inspected"}

WORLD = {
    "asyncio", "fcntl", "ftplib", "getpass", "glob", "http", "httpx", "locale", "multiprocessing", "platform", "pwd",
    "random", "requests", "secrets", "select", "selectors", "shutil", "signal", "smtplib", "socket", "socketserver",
    "sqlite3", "ssl", "starlette", "subprocess", "tempfile", "time", "urllib", "uuid", "uvicorn",
}  # fmt: skip
WORLD_ATTRIBUTES = {
    "os": {"environ", "environb", "getenv", "getenvb", "getrandom", "putenv", "urandom", "system", "popen", "fork", "execve",
           "posix_spawn", "getcwd", "getlogin", "times"},
    "sys": {"argv", "stdin", "stdout", "stderr"},
    "datetime": {"now", "today", "utcnow"},
    "date": {"today"},
    "Path": {"cwd", "home"},
}  # fmt: skip
# All that somebody needs who only verifies; `_typeshed` is there for the type checker alone.
CORE_THIRD_PARTY = {"cryptography", "rfc8785", "_typeshed"}
# What reads evidence in CBOR, XML and tokens, what a service's chain of keys needs, and what an enclave reads and writes
# outputs with: loaded by these modules alone.
OF_EVIDENCE = {
    "cbor2": {"attest.nitro_document"},
    "lxml": {"attest.rim"},
    "jwt": {"attest.nras", "attest.nras_token", "rcar.ear"},
    "coincurve": {"attest.dstack_kms"},
    "Crypto": {"attest.dstack_kms", "threshold"},
    "packaging": {"lock"},  # what installers mean by a requirement, read as they read it
    "dp_accounting": {"budget.composition"},  # of no evidence; a broker with budgets loads it when it composes
    "numpy": {"output.arrow", "output.tensors"},
    "PIL": {"output.picture"},
    "pyarrow": {"output.table"},
    "pyhpke": {"ehbp.exchange"},  # not evidence, but who only verifies receipts loads it as little
}
SURFACE = [
    "ANY_PARTY", "Bundle", "Change", "Draft", "OutputRule", "Policy", "Receipt", "Room", "Trust", "Wanted", "__version__",
    "connect", "verified_async_client", "verified_client", "verify",
]  # fmt: skip


@dataclass(frozen=True)
class Module:
    """A module of ours: its dotted name below ``strongroom``, and what it imports, ours and others'."""

    name: str
    tree: ast.Module
    package: bool

    @property
    def unit(self) -> str:
        return self.name.split(".")[0]

    def resolve(self, node: ast.ImportFrom) -> str:
        """The absolute name of what a relative import imports from."""
        if not node.level:
            return node.module or ""
        here = ["strongroom", *(self.name.split(".") if self.name != "__init__" else [])]
        above = node.level - (1 if self.package else 0)
        return ".".join([*here[: len(here) - above], *([node.module] if node.module else [])])

    def imports(self) -> Iterator[str]:
        """Every module imported, anywhere in the file, as an absolute dotted name."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                source = self.resolve(node)
                yield from (f"{source}.{alias.name}" if source == "strongroom" else source for alias in node.names)

    def ours(self) -> set[str]:
        return {name.removeprefix("strongroom.") for name in self.imports() if name.split(".")[0] == "strongroom"}

    def others(self) -> set[str]:
        return {name.split(".")[0] for name in self.imports()} - {"strongroom", "__future__"}

    def touches_the_world(self) -> set[str]:
        found = self.others() & WORLD
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                if node.attr in WORLD_ATTRIBUTES.get(node.value.id, ()):
                    found.add(f"{node.value.id}.{node.attr}")
            elif isinstance(node, ast.ImportFrom) and node.module in WORLD_ATTRIBUTES:
                names = {alias.name for alias in node.names} & WORLD_ATTRIBUTES[node.module]
                found |= {f"{node.module}.{name}" for name in names}
            elif (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr
                in {
                    "generate",
                    "generate_key",
                    "generate_private_key",
                }
            ):
                found.add(f".{node.func.attr}()")
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"input", "print"}:
                found.add(f"{node.func.id}()")
        return found


@cache
def modules() -> tuple[Module, ...]:
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if package and len(parts) > 1 else parts)
        found.append(Module(name, ast.parse(path.read_text(encoding="utf-8")), package))
    return tuple(found)


def names(of: str = "") -> list[str]:
    return [m.name for m in modules() if m.name not in FRONT and (not of or m.unit == of)]


def named(name: str) -> Module:
    return next(m for m in modules() if m.name == name)


def below_the_edge() -> list[str]:
    return [name for name in names() if named(name).unit != "app"]


def test_there_are_modules() -> None:
    assert len(below_the_edge()) > 20
    assert {"wire", "policy", "ledger"} <= set(names())


def test_imports_are_read_as_they_are() -> None:
    module = Module(
        "attest.appraisal", ast.parse("from . import simulated\nfrom .. import wire\nfrom ..party import Party\n"), False
    )
    assert module.ours() == {"attest", "wire", "party"}
    assert Module("attest", ast.parse("from .keyset import Keyset"), package=True).ours() == {"attest.keyset"}
    assert Module("__init__", ast.parse("from .policy import Policy"), package=True).ours() == {"policy"}
    assert Module("x", ast.parse("def f():\n import strongroom.app.cli"), package=False).ours() == {"app.cli"}
    assert Module("x", ast.parse("import os\nos.environ['A']"), package=False).touches_the_world() == {"os.environ"}
    assert Module("x", ast.parse("from os import urandom"), package=False).touches_the_world() == {"os.urandom"}
    assert Module("x", ast.parse("import time as t"), package=False).touches_the_world() == {"time"}
    assert Module("x", ast.parse("Key.generate()"), package=False).touches_the_world() == {".generate()"}


@pytest.mark.parametrize("name", below_the_edge())
def test_nothing_imports_app(name: str) -> None:
    assert not {other for other in named(name).ours() if other.split(".")[0] == "app"}


@pytest.mark.parametrize("name", [name for name in below_the_edge() if named(name).unit not in LEARNING])
def test_imports_run_one_way(name: str) -> None:
    module = named(name)
    assert module.unit in FLOOR, "a new unit: give it its floor in this test"
    for other in {other.split(".")[0] for other in module.ours()} - {module.unit}:
        if other in LEARNING:
            assert name.startswith("enclave.sandbox"), (
                f"{name} imports {other}: the two halves meet in the sandbox and in app"
            )
        else:
            assert FLOOR[other] < FLOOR[module.unit], f"{name} imports {other}, which does not stand below it"


@pytest.mark.parametrize("name", [name for name in below_the_edge() if named(name).unit in LEARNING])
def test_programs_and_models_know_nothing_of_the_security_half(name: str) -> None:
    module = named(name)
    allowed = {"errors", module.unit} | ({"lm"} if module.unit == "programs" else set())
    assert {other.split(".")[0] for other in module.ours()} <= allowed


@pytest.mark.parametrize("name", [n for n in below_the_edge() if not n.startswith("enclave.sandbox") and n not in SANDBOX])
def test_outside_the_edge_nothing_touches_the_world(name: str) -> None:
    assert named(name).touches_the_world() - ({"time", "multiprocessing"} if name in TRAINING else set()) == set()


@pytest.mark.parametrize("name", [name for name in below_the_edge() if named(name).unit not in LEARNING])
def test_who_only_verifies_installs_little(name: str) -> None:
    of_evidence = {library for library, where in OF_EVIDENCE.items() if name in where}
    assert named(name).others() - CORE_THIRD_PARTY - of_evidence <= sys.stdlib_module_names


@pytest.mark.parametrize("name", names())
def test_what_is_unsafe_lives_in_tests(name: str) -> None:
    for node in ast.walk(named(name).tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            assert not node.name.lower().startswith("unsafe")


@pytest.mark.parametrize("name", [name for name in below_the_edge() if name not in ASYNCHRONOUS])
def test_the_core_is_synchronous(name: str) -> None:
    assert not any(isinstance(node, ast.AsyncFunctionDef | ast.Await) for node in ast.walk(named(name).tree))


@pytest.mark.parametrize("name", names())
def test_the_tree_of_errors_is_closed(name: str) -> None:
    ours = {cls.__name__ for cls in errors.leaves().values() if cls.__module__ == errors.__name__}
    if name == "errors":
        return
    for node in ast.walk(named(name).tree):
        if isinstance(node, ast.ClassDef):
            bases = {base.id if isinstance(base, ast.Name) else getattr(base, "attr", "") for base in node.bases}
            assert not bases & ours, f"{name}.{node.name} is an error outside errors.py"


# --- the surface ----------------------------------------------------------------------------------------------------


def test_the_public_surface_is_as_listed() -> None:
    assert strongroom.__all__ == SURFACE


@pytest.mark.parametrize("name", SURFACE)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(strongroom, name) is not None


def test_no_other_name_is_there() -> None:
    with pytest.raises(AttributeError):
        strongroom.__getattr__("approve_everything")


def test_verifying_formats_loads_no_server_and_no_model() -> None:
    code = "import sys, strongroom.ledger, strongroom.policy; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(ran.stdout.split()) & {
        "httpx",
        "starlette",
        "uvicorn",
        "rich",
        "numpy",
        "onnxruntime",
        "sklearn",
        "asyncio",
    }


# --- pages and vectors ----------------------------------------------------------------------------------------------

FOLDERS = sorted(path for path in (HOME / "vectors").iterdir() if path.is_dir() and path.name != "__pycache__")


def test_there_are_vectors() -> None:
    assert {"policy", "ledger", "wire", "party"} <= {folder.name for folder in FOLDERS}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: p.name)
def test_every_folder_of_vectors_holds_good_and_bad_ones(folder: Path) -> None:
    known = {"ok", *errors.leaves()}
    outcomes = set()
    for path in folder.glob("*.json"):
        case = json.loads(path.read_bytes())
        assert case["description"], path
        assert case["expect"] in known, path
        outcomes.add(case["expect"] == "ok")
    assert outcomes == {True, False}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: p.name)
def test_every_folder_of_vectors_is_named_in_a_page(folder: Path) -> None:
    pages = [path.read_text(encoding="utf-8") for path in (HOME / "spec").glob("*.md")]
    assert any(f"vectors/{folder.name}" in page for page in pages)


@pytest.mark.parametrize("path", sorted((HOME / "spec").glob("*.md")), ids=lambda p: p.stem)
def test_every_code_that_a_page_names_exists(path: Path) -> None:
    known = set(errors.leaves())
    nouns = {code.split(".")[0] for code in known if "." in code}
    for word in path.read_text(encoding="utf-8").split("`")[1::2]:
        if word.count(".") == 1 and word.split(".")[0] in nouns and not word.endswith((".py", ".md", ".json")):
            assert word in known or not word.replace(".", "").replace("_", "").isalpha(), f"{path.name} names `{word}`"
