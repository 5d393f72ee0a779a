"""Rules over the syntax tree of a file. Nothing is imported or executed; the tree is walked without recursion."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from packaging.utils import canonicalize_name

from .findings import Finding
from .named import (
    CALLS,
    DUNDERS,
    IMPORTED_AS,
    MODULES,
    READERS,
    ROWS,
    SHAPED,
    WRITERS,
)

_SCHEMES = ("http://", "https://", "ftp://", "s3://", "gs://", "ssh://", "file://", "tcp://", "ws://", "wss://")
_OPENS = frozenset({"open", "io.open", "codecs.open", "gzip.open", "bz2.open", "lzma.open"})  # path first, then the mode
_MAY_WRITE = frozenset({"to_csv", "to_json", "dump", "save"})  # they write where they are given a place
_WRITING = frozenset("wax+")
_SEEDED = ("numpy.random.default_rng", "numpy.random.RandomState", "numpy.random.Generator", "random.Random")


@dataclass
class Known:
    """What imports may name.

    Attributes:
        own: top-level modules of the bundle.
        packages: names of the lock's packages, normalised.
        enclave: modules that the enclave has.
    """

    own: frozenset[str]
    packages: frozenset[str]
    enclave: frozenset[str]

    def knows(self, module: str) -> bool:
        if module in self.own or module in sys.stdlib_module_names or module in self.enclave:
            return True
        return canonicalize_name(module) in self.packages or IMPORTED_AS.get(module, module) in self.packages


@dataclass
class Names:
    """Where the names of one file come from: what they were imported as."""

    aliases: dict[str, str] = field(default_factory=dict)

    def learn(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            if isinstance(node, ast.Import):
                self.aliases[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
            elif not node.level and node.module:
                self.aliases[alias.asname or alias.name] = f"{node.module}.{alias.name}"

    def whole(self, node: ast.expr) -> str:
        """The dotted name that an expression stands for; ``""`` where it is no name, ``?.attr`` of any other value."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if isinstance(node, ast.Name):
            parts.append(self.aliases.get(node.id, node.id))
        elif parts:
            parts.append("?")
        return ".".join(reversed(parts))


def of_tree(file: str, nodes: Sequence[ast.AST], known: Known) -> Iterator[Finding]:
    """What the rules find in one file, but for its outputs.

    Args:
        file: its path.
        nodes: of its tree, all of them.
        known: what it may import.
    """
    names = Names()
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names.learn(node)
    seeded = any(isinstance(n, ast.Call) and _is_seed(names.whole(n.func), n) for n in nodes)
    for node in nodes:
        if isinstance(node, ast.expr):
            yield from _expression(file, node, names, seeded=seeded)
        elif isinstance(node, ast.stmt | ast.Module):
            yield from _statement(file, node, names, known)
            yield from _side_by_side(file, node)


def _expression(file: str, node: ast.expr, names: Names, *, seeded: bool) -> Iterator[Finding]:
    match node:
        case ast.Call():
            yield from _call(file, node, names, seeded=seeded)
            yield from _arguments(file, node, names)
        case ast.Attribute():
            yield from _attribute(file, node, names)
        case ast.Name(id=name) if name in DUNDERS:
            yield Finding.of("reflection", file, node.lineno, name)
        case ast.Constant(value=str() as value) if value.lower().startswith(_SCHEMES):
            yield Finding.of("network.address", file, node.lineno, repr(value[:80]))
        case ast.BinOp(op=ast.Mult()) if _is_text(node.left) != _is_text(node.right):
            yield from _repeated(file, node)


def _statement(file: str, node: ast.AST, names: Names, known: Known) -> Iterator[Finding]:
    match node:
        case ast.Import() | ast.ImportFrom():
            yield from _imports(file, node, known)
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) if name in DUNDERS:
            yield Finding.of("reflection", file, node.lineno, f"defines {name}")
        case ast.Assign(targets=targets) | ast.Delete(targets=targets):
            yield from _assigned(file, targets, names)
        case ast.AugAssign(target=target):
            yield from _assigned(file, [target], names)


def _imports(file: str, node: ast.Import | ast.ImportFrom, known: Known) -> Iterator[Finding]:
    if isinstance(node, ast.ImportFrom):
        modules = [] if node.level or not node.module else [node.module]
        whole = [f"{node.module}.{alias.name}" for alias in node.names] if modules else []
        if any(alias.name == "*" for alias in node.names):
            yield Finding.of("imports.star", file, node.lineno, f"everything of {node.module or '.'}")
    else:
        modules = whole = [alias.name for alias in node.names]
    said = set()
    for module in (*modules, *whole):
        rule = _rule_of(module)
        if rule and rule not in said:
            said.add(rule)
            yield Finding.of(rule, file, node.lineno, f"imports {module}")
    for module in modules:
        if not known.knows(module.split(".")[0]):
            yield Finding.of("imports.unknown", file, node.lineno, f"imports {module}")


def _rule_of(module: str) -> str | None:
    """The rule of a module, or of the module that it is in."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        if rule := MODULES.get(".".join(parts[:length])):
            return rule
    return None


def _call(file: str, node: ast.Call, names: Names, *, seeded: bool) -> Iterator[Finding]:
    whole = names.whole(node.func)
    last = whole.rpartition(".")[2]
    if rule := CALLS.get(whole):
        yield Finding.of(rule, file, node.lineno, f"calls {whole}()")
    elif whole in ("getattr", "setattr", "delattr", "hasattr"):
        yield from _by_name(file, node, whole)
    elif last == "open":
        rule = "files.write" if _writes(node, 1 if whole in _OPENS else 0) else "files.read"
        yield Finding.of(rule, file, node.lineno, f"calls {whole.removeprefix('?.')}()")
    elif last == "to_pickle":
        yield Finding.of("pickle", file, node.lineno, "calls .to_pickle()")
    elif last in WRITERS or (last in _MAY_WRITE and "." in whole and node.args):
        yield Finding.of("files.write", file, node.lineno, f"calls .{last}()")
    elif last in READERS:
        yield Finding.of("files.read", file, node.lineno, f"calls .{last}()")
    elif whole.startswith(("random.", "numpy.random.", "torch.rand")):
        yield from _random(file, node, whole, seeded=seeded)


def _by_name(file: str, node: ast.Call, whole: str) -> Iterator[Finding]:
    name = node.args[1] if len(node.args) > 1 else None
    if not isinstance(name, ast.Constant):
        yield Finding.of("reflection", file, node.lineno, f"{whole}() of a name that is computed")
    elif name.value in DUNDERS:
        yield Finding.of("reflection", file, node.lineno, f"{whole}() of {name.value}")


def _arguments(file: str, node: ast.Call, names: Names) -> Iterator[Finding]:
    """What matters in any call: a flag that executes what is read, a size that is counted."""
    whole = names.whole(node.func)
    for keyword in node.keywords:
        value = keyword.value
        if keyword.arg == "allow_pickle" and not (isinstance(value, ast.Constant) and value.value is False):
            yield Finding.of("pickle", file, node.lineno, f"{whole}(allow_pickle=…)")
    if whole in SHAPED and any(_counts(arg) for arg in node.args):
        yield Finding.of("output.size", file, node.lineno, f"{whole}() of a size that is counted in the data")


def _counts(node: ast.expr) -> bool:
    """Whether a size is counted: ``len(x)``, ``x.shape``, ``x.size``, or something of these."""
    return any(
        (isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == "len")
        or (isinstance(n, ast.Attribute) and n.attr in ("shape", "size", "height"))
        for n in ast.walk(node)
    )


def _writes(node: ast.Call, place: int) -> bool:
    """Whether ``open`` opens for writing, as far as can be told; where it cannot, it does. ``place``: of the mode."""
    named = next((k.value for k in node.keywords if k.arg == "mode"), None)
    mode = node.args[place] if len(node.args) > place else named
    if mode is None:
        return False
    return not (isinstance(mode, ast.Constant) and isinstance(mode.value, str)) or bool(set(mode.value) & _WRITING)


def _is_seed(whole: str, node: ast.Call) -> bool:
    return whole in ("random.seed", "numpy.random.seed", "torch.manual_seed") and _is_fixed(node)


def _is_fixed(node: ast.Call) -> bool:
    given = [*node.args, *(k.value for k in node.keywords)]
    return bool(given) and all(isinstance(arg, ast.Constant) and arg.value is not None for arg in given[:1])


def _random(file: str, node: ast.Call, whole: str, *, seeded: bool) -> Iterator[Finding]:
    if whole.startswith(_SEEDED):
        if not _is_fixed(node):
            yield Finding.of("randomness", file, node.lineno, f"{whole}() without a fixed seed")
    elif whole.rpartition(".")[2] in ("seed", "manual_seed"):
        if not _is_fixed(node):
            yield Finding.of("randomness", file, node.lineno, f"{whole}() of a seed that is computed")
    elif not seeded:
        yield Finding.of("randomness", file, node.lineno, f"calls {whole}()")


def _attribute(file: str, node: ast.Attribute, names: Names) -> Iterator[Finding]:
    if node.attr in DUNDERS:
        yield Finding.of("reflection", file, node.lineno, f".{node.attr}")
        return
    whole = names.whole(node)
    if whole in ("os.environ", "os.environb", "sys.argv", "sys.path", "sys.flags", "sys.executable"):
        yield Finding.of("environment", file, node.lineno, whole)
    elif whole in ("sys.modules", "sys.meta_path", "sys.path_hooks"):
        yield Finding.of("reflection", file, node.lineno, whole)
    elif node.attr in ROWS and node.attr not in ("values", "items", "mode", "first", "last", "at", "row"):
        yield Finding.of("rows", file, node.lineno, f".{node.attr}")


def _assigned(file: str, targets: list[ast.expr], names: Names) -> Iterator[Finding]:
    """Assignments to something of a module."""
    modules = {name.split(".")[0] for name in names.aliases.values()}
    for target in targets:
        if isinstance(target, ast.Attribute) and (whole := names.whole(target)).split(".")[0] in modules:
            yield Finding.of("patch", file, target.lineno, f"assigns {whole}")


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)


def _repeated(file: str, node: ast.BinOp) -> Iterator[Finding]:
    times = node.right if _is_text(node.left) else node.left
    if not isinstance(times, ast.Constant):
        yield Finding.of("output.size", file, node.lineno, "a text that is repeated as often as something says")


def _side_by_side(file: str, node: ast.stmt | ast.Module) -> Iterator[Finding]:
    """Lines on which one statement of a block follows another."""
    for name in ("body", "orelse", "finalbody"):
        block = getattr(node, name, None) or ()
        for before, after in pairwise(block):
            if before.end_lineno == after.lineno:
                yield Finding.of("text.statements", file, after.lineno, "a second statement on the line")
