"""The first thing a child executes: it gets the program's source from the parent, and imports nothing else of Strongroom.

The parent passes this file's text as ``python -c``, and the sources in the first frame: the very bytes that it hashed. So
what runs is what was measured, with no file in between that could change, and no compiled file that could differ from its
source. Nothing here may import another module of Strongroom before the sources are in place. See ``spec/sandbox.md``.
"""

from __future__ import annotations

import json
import socket
import sys
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import Any


class Sources:
    """Finds and loads the modules of one package from memory; a module that is not there is nowhere.

    Args:
        package: the package's name.
        files: source text by path relative to the package. A folder needs no ``__init__.py``.
    """

    def __init__(self, package: str, files: dict[str, str]) -> None:
        self._package, self._files = package, files

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """The protocol of ``sys.meta_path``. Raises ModuleNotFoundError, so that no other finder is asked."""
        del path, target
        if name != self._package and not name.startswith(self._package + "."):
            return None
        stem = name[len(self._package) :].lstrip(".").replace(".", "/")
        inside = f"{stem}/" if stem else ""
        for file, is_package in ((f"{inside}__init__.py", True), (f"{stem}.py", False)):
            if file in self._files:
                return self._spec(name, f"{self._package}/{file}", is_package=is_package)
        if any(file.startswith(inside) for file in self._files):
            return self._spec(name, "", is_package=True)
        raise ModuleNotFoundError(f"{name} is no part of this program", name=name)

    def _spec(self, name: str, origin: str, *, is_package: bool) -> ModuleSpec:
        # Its class is a loader by its methods; the base class would have to be imported.
        return ModuleSpec(name, self, origin=origin, is_package=is_package)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """The protocol of loaders: the default module will do."""

    def exec_module(self, module: ModuleType) -> None:
        """The protocol of loaders."""
        spec = module.__spec__
        if spec is not None and spec.origin:
            exec(self.get_code(spec.name), module.__dict__)  # noqa: S102 - loading a module is executing it

    def get_source(self, name: str) -> str:
        """For tracebacks."""
        spec = self.find_spec(name)
        return self._files[spec.origin[len(self._package) + 1 :]] if spec and spec.origin else ""

    def get_code(self, name: str) -> CodeType:
        """Compiled afresh: there is no cache to mistrust."""
        spec = self.find_spec(name)
        return compile(self.get_source(name), spec.origin or name if spec else name, "exec", dont_inherit=True)


def hello(channel: socket.socket) -> dict[str, Any]:
    """The parent's first frame. It is ours, whatever comes later, so nothing but its length is looked at."""
    with channel.makefile("rb", buffering=0) as stream:
        size = int.from_bytes(_exactly(stream, 5)[1:], "big")
        found: dict[str, Any] = json.loads(_exactly(stream, size))
    return found


def _exactly(stream: Any, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = stream.read(size - len(data))
        if not piece:
            raise SystemExit(1)
        data += piece
    return data


def main(descriptor: int) -> None:
    """Put the sources in place and hand over to the runner among them.

    Args:
        descriptor: the inherited end of the channel.
    """
    channel = socket.socket(fileno=descriptor)
    said = hello(channel)
    sys.meta_path.insert(0, Sources("strongroom", said["sources"]))
    sys.path.extend(said["paths"])
    import_module("strongroom.programs.runner").main(channel, said)


if __name__ == "__main__":
    main(int(sys.argv[1]))
