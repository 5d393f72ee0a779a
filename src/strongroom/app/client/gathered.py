"""A researcher's own files, read for a bundle: one file, a folder, or a function in a notebook.

What is read is exactly what will run elsewhere. A folder may hold no links and nothing that is no text; hidden files and
bytecode are left out. A function must stand for itself: it is taken with the modules that it names, and is refused where it
needs a value that only this process has.
"""

from __future__ import annotations

import ast
import builtins
import dis
import inspect
import os
import stat
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from strongroom.code import MAX_BUNDLE_BYTES, MAX_FILES, module_of
from strongroom.errors import BadBundle, BadEntry, NotFound, NotSelfContained, TooLarge

Gathered = tuple[dict[str, bytes], str]
"""Files by name, and the entry that they suggest; ``""`` where they suggest none."""

MODULE = "analysis"  # that a function from a notebook is put into


def from_path(path: Path) -> Gathered:
    """One file, or everything in a folder.

    Raises:
        NotFound: there is nothing.
        BadBundle: a link, a device, or too many files. TooLarge: together more than a bundle may hold.
    """
    try:
        mode = path.lstat().st_mode
    except OSError as error:
        raise NotFound(f"cannot read {path}: {error.strerror}") from error
    if stat.S_ISLNK(mode):
        raise BadBundle(f"{path} is a link", hint="Name the file or folder that it leads to.")
    if not stat.S_ISDIR(mode):
        return {path.name: _read(path, MAX_BUNDLE_BYTES)}, module_of(path.name)
    found: dict[str, bytes] = {}
    left = MAX_BUNDLE_BYTES
    for name, file in _files(path, ""):
        if len(found) >= MAX_FILES:
            raise BadBundle(f"{path} holds more than {MAX_FILES} files")
        found[name] = _read(file, left)
        left -= len(found[name])
    if not found:
        raise BadBundle(f"{path} holds no file")
    modules = [module for module in map(module_of, found) if module and "." not in module]
    likely = [module for module in ("main", MODULE) if module in modules]
    return found, (likely or modules)[0] if likely or len(modules) == 1 else ""


def _files(folder: Path, inside: str) -> Iterator[tuple[str, Path]]:
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        if entry.name.startswith(".") or entry.name == "__pycache__":
            continue
        if entry.is_symlink():
            raise BadBundle(f"{inside}{entry.name} is a link", hint="Put a copy in its place.")
        if entry.is_dir():
            yield from _files(Path(entry.path), f"{inside}{entry.name}/")
        else:
            yield f"{inside}{entry.name}", Path(entry.path)


def _read(path: Path, most: int) -> bytes:
    """A regular file, whose size is looked at before it is read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | getattr(os, "O_NOFOLLOW", 0))
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise BadBundle(f"{path} is no ordinary file")
            if status.st_size > most:
                raise TooLarge(
                    f"{path} makes the bundle larger than {MAX_BUNDLE_BYTES} bytes",
                    hint="Data belong into assets, not into code.",
                )
            return file.read(most + 1)[:most]
    except OSError as error:
        raise NotFound(f"cannot read {path}: {error.strerror}") from error


def from_function(function: Callable[..., Any]) -> Gathered:
    """A function: its module where that is one file, else its own source with the imports that it needs.

    Raises:
        NotSelfContained: it needs what only this process has; by name.
        BadEntry: it is no plain function, or its source is not there.
    """
    name = getattr(function, "__name__", "")
    if not inspect.isfunction(function) or not name.isidentifier():
        raise BadEntry(
            "only a plain function with a name can be submitted", hint="Write it with def, at the outermost level."
        )
    if function.__code__.co_flags & (inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR):
        raise BadEntry(f"{name} is a generator or a coroutine; it is called once, and what it returns is taken")
    if function.__code__.co_freevars:
        raise _needs(name, function.__code__.co_freevars)
    module = inspect.getmodule(function)
    file = getattr(module, "__file__", None)
    if module is not None and module.__name__ != "__main__" and file and Path(file).suffix == ".py":
        if module.__package__:
            raise BadEntry(
                f"{name} is in a module of the package {module.__package__!r}",
                hint="Submit the folder that holds the package: --entry PACKAGE.MODULE:FUNCTION",
            )
        return {f"{module.__name__}.py": _read(Path(file), MAX_BUNDLE_BYTES)}, f"{module.__name__}:{name}"
    return {f"{MODULE}.py": _standing_alone(function).encode()}, f"{MODULE}:{name}"


def _needs(name: str, what: Any) -> NotSelfContained:
    return NotSelfContained(f"{name} needs {', '.join(sorted(what)[:8])} from outside of it")


def _standing_alone(function: Callable[..., Any]) -> str:
    try:
        source = textwrap.dedent(inspect.getsource(function))
        tree = ast.parse(source).body[0]
    except (OSError, TypeError, SyntaxError, IndexError) as error:
        raise BadEntry(f"the source of {function.__name__} is not there", hint="Submit it as a file.") from error
    if not isinstance(tree, ast.FunctionDef) or tree.decorator_list:
        raise BadEntry(f"{function.__name__} is decorated, or no plain def", hint="Submit it as a file.")
    outer = [tree.args, *([tree.returns] if tree.returns else [])]  # what is evaluated where the function is defined
    names = {n.id for part in outer for n in ast.walk(part) if isinstance(n, ast.Name)}
    names |= set(_globals_of(function.__code__)) - {function.__name__}
    around: dict[str, Any] = function.__globals__
    names = {name for name in names if name in around or not hasattr(builtins, name)}
    modules = {name: around[name].__name__ for name in names if isinstance(around.get(name), ModuleType)}
    others = names - set(modules)
    if others:
        raise _needs(function.__name__, others)
    imports = [f"import {module} as {name}" if name != module else f"import {module}" for name, module in modules.items()]
    return "\n".join([*sorted(imports), *(["", ""] if imports else []), source])


def _globals_of(code: CodeType) -> Iterator[str]:
    """The global names that a function reads, in the functions within it too."""
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield step.argval
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _globals_of(constant)
