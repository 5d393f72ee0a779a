"""The packages that a researcher's code is locked to: requirement lines of pip, each one version and its wheels' hashes.

What pip and uv write with ``--generate-hashes`` is read, and nothing that could bring in anything else: no addresses, paths,
options, references or ranges. Installers never see the text: whoever builds an environment goes by the pins that were read
from it here (``app/enclave/environments.py``).

See ``spec/code.md``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from packaging.markers import Marker, UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from . import wire
from .errors import BadLock

MAX_LOCK_BYTES = 1 << 20
MAX_PINS = 512
MAX_LINES = 1 << 15
MAX_HASHES = 512  # of one pin: a large project has a wheel for every interpreter and machine
MAX_REQUIREMENT = 1000  # characters, hashes not counted
MAX_MARKER_WORDS = 64

_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})\Z")
_COMMENT = re.compile(r"(?:^|\s)#.*\Z")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_UNSHOWN = re.compile("[^\t\n\x20-\x7e]")  # requirements and comments of installers are ASCII
_OURS = "strongroom"


@dataclass(frozen=True, slots=True)
class Pin:
    """One package of a lock.

    Attributes:
        name: in its normal form (PEP 503).
        version: exact.
        hashes: SHA-256 of the files that it may come in, hex, sorted.
        marker: for which interpreters and machines it is (PEP 508), or ``None`` for all.
        line: where it stands, from 1.
    """

    name: str
    version: str
    hashes: tuple[str, ...]
    marker: str | None
    line: int

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock as it was written, and what it says.

    Attributes:
        text: as it was given; its digest is the environment's identity.
        pins: one for each requirement, in the text's order; never none.
    """

    text: str
    pins: tuple[Pin, ...]

    @classmethod
    def parse(cls, text: str) -> Lock:
        """Read the text of a lock.

        Raises:
            BadLock: too long, nothing in it, or a line that is no exact version with SHA-256 hashes; with its number.
        """
        if len(text) > MAX_LOCK_BYTES:
            raise BadLock(f"the lock is longer than {MAX_LOCK_BYTES} bytes")
        if text.count("\n") > MAX_LINES:
            raise BadLock(f"the lock has more than {MAX_LINES} lines")
        odd = _UNSHOWN.search(text)
        if odd:
            raise BadLock(
                f"line {text.count(chr(10), 0, odd.start()) + 1} of the lock holds a character that is not ASCII text"
            )
        pins: list[Pin] = []
        for number, line in _lines(text):
            pins.append(_pin(number, line))
            if len(pins) > MAX_PINS:
                raise BadLock(f"the lock has more than {MAX_PINS} packages")
        if not pins:
            raise BadLock(
                "the lock names no package", hint="Leave it out: the enclave's own libraries are there without one."
            )
        if len({(p.name, p.marker) for p in pins}) != len(pins):
            raise BadLock("the lock names a package twice for the same machines")
        return cls(text, tuple(pins))

    @property
    def digest(self) -> str:
        """The environment's identity: of the text, byte for byte."""
        return wire.digest(self.text.encode())

    def required(self, environment: Mapping[str, str]) -> tuple[Pin, ...]:
        """The pins that one interpreter on one machine needs.

        Args:
            environment: the values of PEP 508's markers there, as ``packaging.markers.default_environment()`` gives them.

        Raises:
            BadLock: two of them are of one package, or a marker cannot be evaluated there.
        """
        found: dict[str, Pin] = {}
        for pin in self.pins:
            try:
                wanted = pin.marker is None or Marker(pin.marker).evaluate(dict(environment))
            except (UndefinedComparison, UndefinedEnvironmentName) as error:
                raise BadLock(f"line {pin.line} of the lock: its marker cannot be evaluated") from error
            if not wanted:
                continue
            if pin.name in found:
                raise BadLock(f"lines {found[pin.name].line} and {pin.line} of the lock are both for {pin.name} here")
            found[pin.name] = pin
        return tuple(found[name] for name in sorted(found))


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with those that continue them, comments left out, each with the number of its first."""
    held, began = "", 0
    for number, raw in enumerate(text.split("\n"), 1):
        began = began or number
        comment = raw.lstrip().startswith("#")
        held += " " + ("" if comment else raw.removesuffix("\\") if raw.endswith("\\") else raw)
        if raw.endswith("\\") and not comment:
            continue
        line = _COMMENT.sub("", held).strip()
        if line:
            yield began, line
        held, began = "", 0
    if held.strip():
        raise BadLock(f"line {began} of the lock goes on where the lock ends")


def _pin(number: int, line: str) -> Pin:
    def bad(why: str) -> BadLock:
        return BadLock(f"line {number} of the lock {why}")

    head, *words = line.split(" --")
    if line.startswith("-"):
        raise bad("is an option; a lock holds packages alone")
    hashes = [_HASH.match("--" + word.strip()) for word in words]
    if not all(hashes):
        raise bad("has an option that is no --hash=sha256:")
    if not hashes:
        raise bad("has no --hash=sha256:")
    if len(hashes) > MAX_HASHES or len(head) > MAX_REQUIREMENT:
        raise bad("is too long")
    found = sorted(h.group(1) for h in hashes if h)
    if len(set(found)) != len(found):
        raise bad("has a hash twice")
    try:
        requirement = Requirement(head.strip())
    except (InvalidRequirement, RecursionError) as error:
        raise bad("is no requirement with a version: paths, addresses and references are not taken") from error
    name = canonicalize_name(requirement.name)
    if requirement.url is not None:
        raise bad("refers to an address; a lock goes by versions and hashes")
    if name == _OURS:
        raise bad(f"names {_OURS}, which code in a sandbox cannot see")
    return Pin(name, _version(requirement, bad), tuple(found), _marker(requirement.marker, bad), number)


def _version(requirement: Requirement, bad: Callable[[str], BadLock]) -> str:
    specifiers = list(requirement.specifier)
    if len(specifiers) != 1 or specifiers[0].operator != "==":
        raise bad("is not pinned by == to one version")
    try:
        return str(Version(specifiers[0].version))
    except InvalidVersion as error:  # ``==1.*`` among them
        raise bad("is not pinned by == to one version") from error


def _marker(marker: Marker | None, bad: Callable[[str], BadLock]) -> str | None:
    if marker is None:
        return None
    text = str(marker)
    words = _QUOTED.sub("''", text).replace("(", " ").replace(")", " ").split()
    if len(words) > MAX_MARKER_WORDS:
        raise bad("has a marker that is too long")
    if {"extra", "extras", "dependency_groups"} & set(words):
        raise bad("is for an extra; a lock says what is there")
    return text
