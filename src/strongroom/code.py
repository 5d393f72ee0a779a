"""A code bundle: the files of a researcher's analysis, as text in one canonical document, and the lock of its packages.

There is no archive, so there is nothing in it that a reader could be made to unpack: no link, no absolute path, no bomb. Its
identity is the digest of its bytes; a contract names that, and the enclave compares it on the bytes that it gives to the
sandbox.

See ``spec/code.md``.
"""

from __future__ import annotations

import ast
import keyword
import re
import sys
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from . import wire
from .errors import BadBundle, BadEntry, NotPython, TooLarge
from .lock import Lock
from .wire import JSON, Fields

FORMAT: Final = "strongroom.code.v1"
PROGRAM: Final = "code"
"""The standard program that runs a bundle."""

MAX_BUNDLE_BYTES: Final = 4 << 20
MAX_FILES: Final = 256
MAX_DEPTH: Final = 8
MAX_NAME: Final = 200

LIBRARIES: Final = frozenset({"matplotlib", "numpy", "pandas", "polars", "pyarrow", "safetensors"})
"""What inputs and outputs are made with. No file takes their place."""

_SEGMENT = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9_-])?\Z")
_ENTRY = re.compile(r"([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)(?::([A-Za-z_][A-Za-z0-9_]*))?\Z")
_STRING = re.compile(rb'"[^"\\]*+(?:\\.?[^"\\]*+)*+(?:"|\Z)', re.DOTALL)
# What a screen obeys instead of showing: control characters, and those that turn the direction of writing, by which code can
# be made to read otherwise than it runs.
_UNSHOWN = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True, slots=True)
class EntryPoint:
    """Where a bundle begins: a module, and a function in it, or ``None`` for a script."""

    module: str
    function: str | None

    @classmethod
    def parse(cls, text: str) -> EntryPoint:
        """``analysis`` or ``analysis:summarise``. Raises BadEntry."""
        found = _ENTRY.match(text) if len(text) <= MAX_NAME else None
        if found is None or any(keyword.iskeyword(word) for word in re.split("[.:]", text)):
            raise BadEntry("an entry is a module, or a module and a function: analysis:summarise")
        return cls(found.group(1), found.group(2))

    def __str__(self) -> str:
        return self.module if self.function is None else f"{self.module}:{self.function}"


def _bad_name(name: str) -> str:
    """Why this name cannot be in a bundle, or ``""``."""
    parts = name.split("/")
    if not 0 < len(name) <= MAX_NAME or len(parts) > MAX_DEPTH:
        return "is too long, or too deep in folders"
    if not all(_SEGMENT.match(part) for part in parts) or "__pycache__" in parts:
        return "is not a plain relative name (letters, digits, '_', '-', '.' and '/'; nothing hidden)"
    if not name.endswith(".py"):
        return ""
    modules = [*parts[:-1], parts[-1].removesuffix(".py")]
    if not all(module.isidentifier() and not keyword.iskeyword(module) for module in modules):
        return "is no Python module by its name"
    if modules[0] in {"__main__", "__init__", "strongroom"} | LIBRARIES or modules[0] in sys.stdlib_module_names:
        return f"would take the place of the module {modules[0]!r}"
    return ""


def module_of(name: str) -> str:
    """The module that a file is, by its name in the bundle; ``""`` for a file that is none."""
    if not name.endswith(".py"):
        return ""
    return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@dataclass(frozen=True, slots=True)
class CodeBundle:
    """Files and the lock of their packages.

    Attributes:
        files: text by name, relative and with forward slashes, in order.
        lock: the packages; ``None`` where the enclave's own libraries are enough.

    Raises:
        BadBundle: no file, too many, a name or a text that cannot be in one.
    """

    files: Mapping[str, str]
    lock: Lock | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "files", MappingProxyType(dict(sorted(self.files.items()))))
        if not 0 < len(self.files) <= MAX_FILES:
            raise BadBundle(f"a bundle has 1 to {MAX_FILES} files")
        for name, text in self.files.items():
            why = _bad_name(name)
            if why:
                raise BadBundle(f"the name {name[:MAX_NAME]!r} {why}")
            odd = _UNSHOWN.search(text)
            if odd:
                raise BadBundle(f"{name} holds a character that is not shown as it is (U+{ord(odd[0]):04X})")
        self._check_together()

    def _check_together(self) -> None:
        names = {name.lower() for name in self.files}
        folders = {"/".join(name.split("/")[:n]).lower() for name in self.files for n in range(1, name.count("/") + 1)}
        if len(names) != len(self.files) or names & folders:
            raise BadBundle("two names differ by case alone, or one is a file and a folder")
        modules = [module for module in map(module_of, self.files) if module]
        if len(set(modules)) != len(modules):
            raise BadBundle("two files are one module: NAME.py and NAME/__init__.py")
        locked = {pin.name.replace("-", "_").replace(".", "_") for pin in self.lock.pins} if self.lock else set()
        both = {module.split(".")[0].lower() for module in modules} & locked
        if both:
            raise BadBundle(f"the module {min(both)!r} is named as a package of the lock")

    @classmethod
    def make(cls, files: Mapping[str, bytes], lock: str | None = None) -> CodeBundle:
        """A bundle of one's own files.

        Args:
            files: bytes by name.
            lock: the text of a lock.

        Raises:
            BadBundle, TooLarge: as the class, and where a file is no text in UTF-8. BadLock.
            NotPython: a file does not parse; with its line.
        """
        if sum(map(len, files.values())) > MAX_BUNDLE_BYTES:
            raise TooLarge(
                f"the files have more than {MAX_BUNDLE_BYTES} bytes", hint="Data belong into assets, not into code."
            )
        found = cls({name: _text(name, data) for name, data in files.items()}, None if lock is None else Lock.parse(lock))
        for name, text in found.files.items():
            if name.endswith(".py"):
                _require_python(name, text)
        found.encode()
        return found

    def to_json(self) -> dict[str, JSON]:
        return {"files": dict(self.files), "format": FORMAT, "lock": None if self.lock is None else self.lock.text}

    def encode(self) -> bytes:
        """The bytes whose digest is the bundle's identity. Raises TooLarge: more than 4 MiB."""
        found = wire.encode(self.to_json())
        if len(found) > MAX_BUNDLE_BYTES:
            raise TooLarge(
                f"the bundle has more than {MAX_BUNDLE_BYTES} bytes", hint="Data belong into assets, not into code."
            )
        return found

    @property
    def digest(self) -> str:
        return wire.digest(self.encode())

    @classmethod
    def parse(cls, data: bytes) -> CodeBundle:
        """Read a bundle that somebody else made; ``parse(b).encode() == b``. Nothing of it is compiled or executed.

        Raises:
            WireError: its leaves. BadBundle, BadLock.
        """
        return cls(*texts(data))

    def require_entry(self, entry: EntryPoint) -> None:
        """Raises BadEntry: the entry's module is none of the files."""
        if entry.module not in self.modules:
            raise BadEntry(f"the bundle has no module {entry.module!r}", hint=f"It has: {', '.join(sorted(self.modules))}")

    @property
    def modules(self) -> frozenset[str]:
        """The modules that its files are."""
        return frozenset(filter(None, map(module_of, self.files)))

    @property
    def environment(self) -> str | None:
        """The digest of its lock, which is what a contract calls the environment."""
        return None if self.lock is None else self.lock.digest


def texts(data: bytes) -> tuple[dict[str, str], Lock | None]:
    """What bytes of a bundle hold, before names and texts are judged: for who reads what no enclave would take.

    Args:
        data: untrusted.

    Raises:
        WireError: its leaves. BadBundle, BadLock.
    """
    if len(data) > MAX_BUNDLE_BYTES:
        raise TooLarge(f"{len(data)} bytes where at most {MAX_BUNDLE_BYTES} are allowed")
    _require_few(data)
    f = Fields(wire.decode(data, max_bytes=MAX_BUNDLE_BYTES, max_values=MAX_BUNDLE_BYTES), "bundle")
    f.literal("format", FORMAT)
    files = f.any("files")
    if not isinstance(files, dict) or not files:
        raise BadBundle("the bundle's files are not texts by name")
    found = {name: text for name, text in files.items() if isinstance(text, str)}
    if len(found) != len(files):
        raise BadBundle("the bundle's files are not texts by name")
    lock = f.optional("lock", _lock)
    f.end()
    return found, lock


def _require_few(data: bytes) -> None:
    """Count values where they are values, and not commas in code. Raises TooLarge: more than so many files make."""
    ended = values = 0
    for strings, found in enumerate(_STRING.finditer(data), 1):
        values += sum(data.count(sign, ended, found.start()) for sign in (b",", b"[", b"{"))
        ended = found.end()
        if strings > 2 * MAX_FILES + 8 or values > MAX_FILES + 8:
            raise TooLarge(f"more than {MAX_FILES} files")
    if sum(data.count(sign, ended) for sign in (b",", b"[", b"{")) > MAX_FILES + 8:
        raise TooLarge(f"more than {MAX_FILES} files")


def _lock(value: object) -> Lock:
    if not isinstance(value, str):
        raise BadBundle("the bundle's lock is no text")
    return Lock.parse(value)


def _text(name: str, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadBundle(
            f"{name[:MAX_NAME]!r} is no text in UTF-8", hint="Data belong into assets, not into code."
        ) from error


def _require_python(name: str, text: str) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of code that its author will see warned of when it runs
            ast.parse(text, name)
    except SyntaxError as error:
        raise NotPython(f"{name}, line {error.lineno or 1}: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise NotPython(f"{name} does not parse") from error


def difference(old: CodeBundle, new: CodeBundle) -> tuple[tuple[str, str | None, str | None], ...]:
    """What two bundles do not share.

    Returns:
        name, old text and new text of every file that differs; ``None`` where a bundle has no such file. The lock comes
        last, named ``lock``.
    """
    names: Iterable[str] = sorted({*old.files, *new.files})
    found = [(name, old.files.get(name), new.files.get(name)) for name in names]
    found.append(("lock", old.lock.text if old.lock else None, new.lock.text if new.lock else None))
    return tuple(one for one in found if one[1] != one[2])
