"""A bundle's modules, loaded from memory under their own names, as the program's own are (``boot.py``).

They come before installed libraries, so that what was read is what runs, and never in the place of a module of the standard
library, of Strongroom, or one that was loaded already.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from strongroom.errors import BadParameters

_FOLDER = "code"
_held: dict[str, str] = {}


def take(code: bytes) -> None:
    """Keep a bundle's files, and find its modules from now on.

    Raises:
        BadParameters: a module of it would take another's place.
    """
    files: dict[str, str] = json.loads(code)["files"]
    finder = Modules(files)
    taken = finder.tops & ({"strongroom", "__main__", *sys.modules} | sys.stdlib_module_names)
    if taken:
        raise BadParameters("a module of the bundle has the name of another", step="start")
    _held.update(files)
    sys.meta_path.insert(1, finder)


def lay_out(folder: Path) -> None:
    """Write the files that are no modules into a folder, which becomes the working directory's content."""
    for name, text in _held.items():
        if not name.endswith(".py"):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="")


def script(module: str, names: Mapping[str, Any]) -> Mapping[str, Any]:
    """Execute a module as a script that finds ``names`` as its globals; its globals afterwards."""
    finder = next(found for found in sys.meta_path if isinstance(found, Modules))
    made = ModuleType("__main__")
    made.__dict__.update(names)
    made.__dict__["__loader__"] = finder
    exec(finder.get_code(module), made.__dict__)  # noqa: S102 - it is what was approved
    return made.__dict__


def function(module: str, name: str) -> Any:
    """A function of a module. Raises AttributeError, ImportError, and whatever the module raises."""
    return getattr(import_module(module), name)


class Modules:
    """Finds and loads a bundle's modules (``sys.meta_path``, and the protocol of loaders).

    Args:
        files: source text by path. A folder needs no ``__init__.py``.
    """

    def __init__(self, files: Mapping[str, str]) -> None:
        self._files = {name: text for name, text in files.items() if name.endswith(".py")}
        self.tops = {name.split("/")[0].removesuffix(".py") for name in self._files}

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Raises ModuleNotFoundError for what would be in one of its packages, and is not."""
        del path, target
        if name.partition(".")[0] not in self.tops:
            return None
        stem = name.replace(".", "/")
        for file, is_package in ((f"{stem}/__init__.py", True), (f"{stem}.py", False)):
            if file in self._files:
                return ModuleSpec(name, self, origin=f"{_FOLDER}/{file}", is_package=is_package)  # type: ignore[arg-type]
        if any(file.startswith(f"{stem}/") for file in self._files):
            return ModuleSpec(name, self, origin="", is_package=True)  # type: ignore[arg-type]
        raise ModuleNotFoundError(f"the bundle has no module {name}", name=name)

    def create_module(self, spec: ModuleSpec) -> None:
        """The default module will do."""

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        if spec is not None and spec.origin:
            module.__file__ = spec.origin
            exec(self.get_code(spec.name), module.__dict__)  # noqa: S102 - loading a module is executing it

    def get_source(self, name: str) -> str:
        """For tracebacks."""
        spec = self.find_spec(name)
        if spec is None or not spec.origin:
            raise ModuleNotFoundError(f"the bundle has no module {name}", name=name)
        return self._files[spec.origin.removeprefix(f"{_FOLDER}/")]

    def get_code(self, name: str) -> CodeType:
        """Compiled afresh: there is no cache to mistrust."""
        spec = self.find_spec(name)
        origin = spec.origin if spec and spec.origin else name
        return compile(self.get_source(name), origin, "exec", dont_inherit=True)
