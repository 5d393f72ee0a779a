"""Rules over what a function returns: names, sizes and rows that depend on the data.

A result is a dict that a function returns, or the dict ``outputs`` of a script. Each function is looked at by itself, and of
what goes into a result the expressions and the names that they use, once over: a helper's helper is not followed.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from .findings import Finding
from .named import EXTREMES, GROUPS, ROWS

SCRIPT = "outputs"

_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass
class _Function:
    """One scope: its nodes but those of functions in it, and what it does with names."""

    nodes: list[tuple[ast.AST, bool]] = field(default_factory=list)  # and whether it is in a loop
    assigned: dict[str, list[ast.expr]] = field(default_factory=lambda: defaultdict(list))


def of_outputs(file: str, tree: ast.Module) -> Iterator[Finding]:
    """What the results of one file's functions depend on."""
    for scope in _scopes(tree):
        results = {SCRIPT} | {
            node.value.id for node, _ in scope.nodes if isinstance(node, ast.Return) and isinstance(node.value, ast.Name)
        }
        values: list[ast.expr] = []
        for node, looped in scope.nodes:
            yield from _names(file, node, results, values, looped=looped)
        yield from _values(file, values, scope)


def _scopes(tree: ast.Module) -> Iterator[_Function]:
    scopes = [_Function()]
    todo: list[tuple[ast.AST, _Function, bool]] = [(tree, scopes[0], False)]
    while todo:
        node, scope, looped = todo.pop()
        scope.nodes.append((node, looped))
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    scope.assigned[target.id].append(node.value)
        inner, in_loop = scope, looped
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inner, in_loop = _Function(), False
            scopes.append(inner)
        elif isinstance(node, ast.For | ast.AsyncFor | ast.While):
            in_loop = True
        todo += [(child, inner, in_loop) for child in ast.iter_child_nodes(node) if not isinstance(child, ast.expr_context)]
    for scope in scopes:
        scope.nodes.reverse()
        yield scope


def _names(file: str, node: ast.AST, results: set[str], values: list[ast.expr], *, looped: bool) -> Iterator[Finding]:
    """The names of outputs, where one statement gives them; the values are collected on the way."""
    match node:
        case ast.Return(value=value) if value is not None:
            yield from _made(file, value, values)
        case ast.Assign(targets=targets, value=value):
            for target in targets:
                if _is_result(target, results):
                    yield from _made(file, value, values)
                yield from _entry(file, target, value, results, values, looped=looped)
        case ast.AugAssign(target=target, value=value, op=operator):
            if _is_result(target, results) and isinstance(operator, ast.BitOr):
                yield from _added(file, value, values)
            yield from _entry(file, target, value, results, values, looped=looped)
        case ast.Call(func=ast.Attribute(value=result, attr=method), args=[first, *_]) if _is_result(result, results):
            if method == "update":
                yield from _added(file, first, values)
            elif method == "setdefault" and not isinstance(first, ast.Constant):
                yield Finding.of("output.names", file, node.lineno, "setdefault() of a name that is computed")


def _is_result(target: ast.expr, results: set[str]) -> bool:
    return isinstance(target, ast.Name) and target.id in results


def _entry(
    file: str, target: ast.expr, value: ast.expr, results: set[str], values: list[ast.expr], *, looped: bool
) -> Iterator[Finding]:
    """One entry of a result, if that is what is assigned to."""
    if not isinstance(target, ast.Subscript) or not _is_result(target.value, results):
        return
    values.append(value)
    if not isinstance(target.slice, ast.Constant):
        where = "in a loop, " if looped else ""
        how = "by an f-string" if isinstance(target.slice, ast.JoinedStr) else "computed"
        yield Finding.of("output.names", file, target.lineno, f"{where}an output's name is {how}")


def _added(file: str, value: ast.expr, values: list[ast.expr]) -> Iterator[Finding]:
    """A dict that is added to a result: its names are written there, or they are another's."""
    if isinstance(value, ast.Dict | ast.DictComp):
        yield from _made(file, value, values)
    else:
        yield Finding.of("output.names", file, value.lineno, "the names of another dict")
        values.append(value)


def _made(file: str, value: ast.expr, values: list[ast.expr]) -> Iterator[Finding]:
    """A dict that becomes a result."""
    match value:
        case ast.Dict():
            for key, item in zip(value.keys, value.values, strict=True):
                if key is None:
                    yield Finding.of("output.names", file, item.lineno, "the names of another dict")
                elif not isinstance(key, ast.Constant):
                    how = "by an f-string" if isinstance(key, ast.JoinedStr) else "computed"
                    yield Finding.of("output.names", file, key.lineno, f"an output's name is {how}")
                values.append(item)
        case ast.DictComp():
            yield Finding.of("output.names", file, value.lineno, "the outputs' names come from a loop")
            values.append(value.value)
        case ast.Call(func=ast.Name(id="dict"), args=args, keywords=keywords):
            if args or any(k.arg is None for k in keywords):
                yield Finding.of("output.names", file, value.lineno, "the names of another dict")
            values += [*args, *(k.value for k in keywords)]
        case ast.Constant():
            return
        case _:
            values.append(value)


def _values(file: str, values: list[ast.expr], scope: _Function) -> Iterator[Finding]:
    """What goes into outputs: the expressions, and those of the names that they use."""
    used = {node.id for value in values for node in ast.walk(value) if isinstance(node, ast.Name)}
    more = [expression for name in sorted(used) for expression in scope.assigned.get(name, ())]
    seen: set[int] = set()
    for value in (*values, *more):
        for node in ast.walk(value):
            if id(node) in seen:
                continue
            seen.add(id(node))
            yield from _value(file, node)


def _value(file: str, node: ast.AST) -> Iterator[Finding]:
    if isinstance(node, ast.Attribute):
        for names, rule in ((ROWS, "output.rows"), (EXTREMES, "output.extremes"), (GROUPS, "output.groups")):
            if node.attr in names:
                yield Finding.of(rule, file, node.lineno, f".{node.attr}")
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id in ("list", "tuple", "sorted", "set"):
            yield Finding.of("output.rows", file, node.lineno, f"{node.func.id}() of values")
        elif node.func.id in ("min", "max"):
            yield Finding.of("output.extremes", file, node.lineno, f"{node.func.id}()")
        elif node.func.id in ("str", "repr", "format"):
            yield Finding.of("output.text", file, node.lineno, f"{node.func.id}()")
    elif isinstance(node, _COMPREHENSIONS):
        yield Finding.of("output.size", file, node.lineno, "as many values as something has")
    elif isinstance(node, ast.JoinedStr):
        yield Finding.of("output.text", file, node.lineno, "an f-string")
