"""The report on one bundle, made in one process.

It is called in a child (``child.py``), so that nothing in a bundle can hold up, fill up or end the process of a reviewer.
"""

from __future__ import annotations

import ast
import re
import sys
import warnings
from collections.abc import Generator, Iterator
from itertools import islice

from strongroom.app.client.code import Code

from .findings import Finding, Report
from .named import KNOWN
from .outputs import of_outputs
from .syntax import Known, of_tree
from .text import of_text
from .with_bandit import MAX_CHARS, MAX_NODES, of_bandit, version

MAX_TOKENS = 1_000_000  # of a bundle's Python; a reader's own time is over long before
MAX_RAW = 5000  # findings of one kind of rules in one file, before they are sorted and bounded

_TOKEN = re.compile(r"\w+|[^\w\s]")


def report_on(code: Code) -> Report:
    """The report on a bundle. Nothing of it is imported or executed. Raises MissingExtra."""
    bandit = version()
    return Report.make(code.digest, bandit, len(code.files), _all(code))


def _few(path: str, found: Iterator[Finding]) -> Iterator[Finding]:
    """Not more than a report could hold: looking for more would only take time."""
    yield from islice(found, MAX_RAW)
    if next(found, None) is not None:
        yield Finding.of("unread", path, 0, f"after {MAX_RAW:,} findings the rest of the file")


def _all(code: Code) -> Iterator[Finding]:
    known = Known(
        own=frozenset(re.split(r"[/.]", path)[0] for path in code.files if path.endswith(".py")),
        packages=frozenset(package.name for package in code.packages),
        enclave=KNOWN if code.lock is None else frozenset(),
    )
    tokens = nodes = 0
    for path, text in sorted(code.files.items()):
        if not path.endswith((".py", ".pyi")):
            yield from _few(path, of_text(path, text))
            continue
        yield from _shadows(path)
        there = sum(1 for _ in _TOKEN.finditer(text))
        tree = None
        if tokens + there > MAX_TOKENS:
            yield Finding.of("unread", path, 0, "too much code")
        else:
            tokens += there
            tree = yield from _parsed(path, text)
        if tree is None:
            yield from _few(path, of_text(path, text))
            continue
        found = list(ast.walk(tree))
        nodes += len(found)
        names = _identifiers(found) if not text.isascii() else frozenset[str]()
        yield from _few(path, of_text(path, text, names))
        yield from _few(path, of_tree(path, found, known))
        yield from _few(path, of_outputs(path, tree))
        if nodes <= MAX_NODES and len(text) <= MAX_CHARS:
            yield from of_bandit(path, text)
        else:
            yield Finding.of("unread.bandit", path, 0, "more code than bandit reads in a few seconds")


def _parsed(path: str, text: str) -> Generator[Finding, None, ast.Module | None]:
    """The tree, once the findings are taken: what cannot be parsed is one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except SyntaxError as error:
        yield Finding.of("unread", path, min(error.lineno or 0, 1_000_000), f"it does not parse ({error.msg})")
    except (RecursionError, MemoryError):
        yield Finding.of("unread", path, 0, "it is nested too deep")
    except ValueError:
        yield Finding.of("unread", path, 0, "it holds what no Python text holds")
    return None


def _identifiers(nodes: list[ast.AST]) -> frozenset[str]:
    found: set[str] = set()
    for node in nodes:
        for name in ("id", "attr", "name", "arg", "asname"):
            value = getattr(node, name, None)
            if isinstance(value, str):
                found.add(value)
    return frozenset(found)


def _shadows(path: str) -> Iterator[Finding]:
    top = re.split(r"[/.]", path)[0]
    if top in sys.stdlib_module_names or top in KNOWN:
        yield Finding.of("imports.shadow", path, 0, f"{top} is a library's name")
