"""What a reviewer compares: the lines of two versions of the code, and the packages of two locks."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from .code import Code, Package

MAX_SQUARE = 4_000_000  # lines times lines, beyond which what differs is shown as a whole
CONTEXT = 3  # lines around a change


class Mark(StrEnum):
    """What became of a line."""

    ADDED = "+"
    GONE = "-"
    SAME = " "
    GAP = "…"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a diff: its text, and its number in the old and the new version, from 1."""

    mark: Mark
    old: int | None
    new: int | None
    text: str


@dataclass(frozen=True, slots=True)
class FileDiff:
    """One file of two versions, from its first line to its last.

    Attributes:
        path: where it is.
        status: ``new``, ``gone``, ``changed`` or ``same``.
        lines: all of them.
    """

    path: str
    status: str
    lines: tuple[Line, ...]

    @property
    def changed(self) -> tuple[Line, ...]:
        """The changed lines with a few around them; a gap stands for what is left out."""
        near: set[int] = set()
        for place, line in enumerate(self.lines):
            if line.mark is not Mark.SAME:
                near.update(range(place - CONTEXT, place + CONTEXT + 1))
        found: list[Line] = []
        for place, line in enumerate(self.lines):
            if place in near:
                found.append(line)
            elif not found or found[-1].mark is not Mark.GAP:
                found.append(Line(Mark.GAP, None, None, ""))
        return tuple(found)


def diff(old: Code | None, new: Code) -> tuple[FileDiff, ...]:
    """Every file of the new version beside the old one, sorted by path; those that are gone too."""
    before: Mapping[str, str] = old.files if old else {}
    found = []
    for path in sorted({*before, *new.files}):
        a, b = before.get(path), new.files.get(path)
        status = "new" if a is None else "gone" if b is None else "same" if a == b else "changed"
        found.append(FileDiff(path, status, tuple(_lines(_split(a), _split(b)))))
    return tuple(found)


def _split(text: str | None) -> list[str]:
    """Lines as Python counts them: nothing but a newline ends one, so that nothing is shown as a line that is none."""
    return [] if not text else text.removesuffix("\n").split("\n")


def _lines(old: Sequence[str], new: Sequence[str]) -> Iterator[Line]:
    for tag, a, a_end, b, b_end in _opcodes(old, new):
        if tag == "equal":
            for place in range(a_end - a):
                yield Line(Mark.SAME, a + place + 1, b + place + 1, new[b + place])
            continue
        for place in range(a, a_end):
            yield Line(Mark.GONE, place + 1, None, old[place])
        for place in range(b, b_end):
            yield Line(Mark.ADDED, None, place + 1, new[place])


def _opcodes(old: Sequence[str], new: Sequence[str]) -> Iterator[tuple[str, int, int, int, int]]:
    """As difflib's, in bounded time: what two versions begin and end with is set aside first."""
    head = 0
    while head < min(len(old), len(new)) and old[head] == new[head]:
        head += 1
    tail = 0
    while tail < min(len(old), len(new)) - head and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    a, b = old[head : len(old) - tail], new[head : len(new) - tail]
    if head:
        yield "equal", 0, head, 0, head
    if a and b and len(a) * len(b) <= MAX_SQUARE:
        for tag, i, i_end, j, j_end in difflib.SequenceMatcher(None, a, b).get_opcodes():
            yield tag, head + i, head + i_end, head + j, head + j_end
    elif a or b:
        yield "replace", head, head + len(a), head, head + len(b)
    if tail:
        yield "equal", len(old) - tail, len(old), len(new) - tail, len(new)


@dataclass(frozen=True, slots=True)
class PackageChange:
    """A package beside the last version: ``new``, ``gone``, ``changed`` (version or files) or ``same``."""

    status: str
    package: Package
    before: str | None


def packages(old: Code | None, new: Code) -> tuple[PackageChange, ...]:
    """The packages of the new lock beside those of the old one, sorted by name; those that are gone too."""
    before, after = _by_name(old), _by_name(new)
    found = []
    for name in sorted({*before, *after}):
        a, b = before.get(name), after.get(name)
        if b is None:
            assert a is not None
            found.append(PackageChange("gone", a, a.version))
        elif a is None:
            found.append(PackageChange("new", b, None))
        else:
            found.append(PackageChange("same" if a == b else "changed", b, a.version))
    return tuple(found)


def _by_name(code: Code | None) -> dict[str, Package]:
    """Of a name that a lock has twice, for two systems say, both versions in one."""
    found: dict[str, Package] = {}
    for package in code.packages if code else ():
        known = found.get(package.name)
        if known is not None:
            hashes = tuple(sorted({*known.hashes, *package.hashes}))
            package = Package(package.name, f"{known.version}, {package.version}", hashes)  # noqa: PLW2901
        found[package.name] = package
    return found
