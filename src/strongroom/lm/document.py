"""Canonical JSON of this half: what a store says of itself, read strictly. See ``spec/datastore.md``."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Final, NoReturn

import rfc8785

from strongroom.errors import BadManifest, BadSourceName, StoreVersion

MAX_BYTES: Final = 16 << 20
_SAFE: Final = 2**53 - 1
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_NAME = re.compile(r"[a-z][a-z0-9._-]{0,63}\Z")
_MAX_TEXT: Final = 400


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def encode(value: Mapping[str, Any]) -> bytes:
    return rfc8785.dumps(dict(value))


def is_name(name: str) -> bool:
    """Whether a source can be called so."""
    return _NAME.match(name) is not None


def named(name: str) -> str:
    """A source's name, which is a folder's too. Raises BadSourceName."""
    if not is_name(name):
        raise BadSourceName("that is no name of a source")
    return name


def text(value: str) -> bool:
    """Whether it can stand in a manifest: a line of at most 400 characters, none of them a control character."""
    return 0 < len(value) <= _MAX_TEXT and value.isprintable()


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _no_float(_text: str) -> NoReturn:
    raise ValueError


def _decoded(data: bytes, what: str) -> Any:
    """Raises BadManifest."""
    try:
        found = data.decode("utf-8") if len(data) <= MAX_BYTES else ""
        value = json.loads(found, object_pairs_hook=_pairs, parse_float=_no_float, parse_constant=_no_float)
        canonical = isinstance(value, dict) and encode(value) == data
    except (ValueError, RecursionError, rfc8785.CanonicalizationError):
        canonical = False
    if not canonical:
        raise BadManifest(f"{what} is not canonical JSON")
    return value


class Members:
    """One object, read member by member. What is wrong is named.

    Args:
        value: decoded JSON.
        what: how messages call it.

    Raises (from every method):
        BadManifest.
    """

    __slots__ = ("_left", "what")

    def __init__(self, value: Any, what: str) -> None:
        if not isinstance(value, dict):
            raise BadManifest(f"{what} is no object")
        self._left, self.what = dict(value), what

    @classmethod
    def parse(cls, data: bytes, what: str, purpose: str) -> Members:
        """A document that is canonical JSON, byte for byte.

        Raises:
            BadManifest. StoreVersion: its ``purpose`` is of another version.
        """
        found = cls(_decoded(data, what), what)
        said = found.take("purpose", str)
        if said != purpose:
            if said.rpartition(".v")[0] == purpose.rpartition(".v")[0]:
                raise StoreVersion(f"{what} is of another version than {purpose.rpartition('.')[2]}")
            raise BadManifest(f"{what} is a document of another kind")
        return found

    def take(self, name: str, kind: type) -> Any:
        value = self._left.pop(name, None)
        if type(value) is not kind:
            raise BadManifest(f"{self.what}: {name} is missing or of another kind")
        return value

    def integer(self, name: str, least: int = 0, most: int = _SAFE) -> int:
        value: int = self.take(name, int)
        if not least <= value <= most:
            raise BadManifest(f"{self.what}: {name} is out of its range")
        return value

    def line(self, name: str) -> str:
        value: str = self.take(name, str)
        if not text(value):
            raise BadManifest(f"{self.what}: {name} is no line of text")
        return value

    def digest(self, name: str) -> str:
        value: str = self.take(name, str)
        if not _DIGEST.match(value):
            raise BadManifest(f"{self.what}: {name} is no digest")
        return value

    def object(self, name: str) -> Members:
        return Members(self.take(name, dict), f"{self.what}: {name}")

    def names(self) -> list[str]:
        return sorted(self._left)

    def end(self) -> None:
        if self._left:
            raise BadManifest(f"{self.what} has a member that nobody knows")
