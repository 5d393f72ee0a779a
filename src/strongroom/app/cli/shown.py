"""Every field of some evidence, for people who look at it. Nothing here is believed by anybody."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from typing import Any

from strongroom import wire
from strongroom.attest.eventlog import Shown
from strongroom.attest.x509 import Certificate, from_pem
from strongroom.errors import AttestationError

from .appraised import when
from .screen import Screen

MAX_DEPTH = 32
MAX_CHARS = 240
_WIDTH = 34
_EVENT = {field.name for field in fields(Shown)}
_PEM = b"-----BEGIN CERTIFICATE-----".hex()
_CN = re.compile(r"(?:^|,)CN=((?:\\.|[^,\\])*)")
_TIMES = {"exp", "iat", "nbf", "not_after", "not_before"}  # unix seconds
_YEAR_10000 = 253_402_300_800
_WORDS = {None: "none", True: "true", False: "false"}


def plain(value: Any, depth: int = 0) -> Any:  # noqa: PLR0911 - one return per kind of value
    """Anything that a parser made, as JSON: bytes and great numbers in hex, dataclasses by their fields."""
    if depth > MAX_DEPTH:
        return "…"
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name), depth + 1) for f in fields(value) if f.repr}
    if isinstance(value, Mapping):
        return {str(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(str(plain(item, depth + 1)) for item in value)
    if isinstance(value, int) and abs(value) > wire.MAX_INT:
        return f"{value:#x}"  # as a number, few readers of JSON would keep it
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def lines(value: Any, screen: Screen, name: str = "") -> None:
    """What ``plain`` made, a line a field."""
    if isinstance(value, dict) and value.keys() == _EVENT:
        screen.said(name, f"{value['register']} {value['type']}, {value['found']}: {value['of']}", width=_WIDTH)
        for line in (value["digest"], value["text"]):
            if line:
                screen.said("", line, width=_WIDTH)
    elif isinstance(value, dict):
        for key, item in value.items():
            lines(item, screen, f"{name}.{key}" if name else key)
    elif isinstance(value, list) and any(isinstance(item, dict | list) or len(str(item)) > 40 for item in value):
        for number, item in enumerate(value):
            lines(item, screen, f"{name}[{number}]")
    elif certificates := _certificates(value):
        for number, found in enumerate(certificates):
            spoken = f"certificate of {_common(found.subject)}, by {_common(found.issuer)}, "
            spoken += f"{when(found.not_before)[:10]} to {when(found.not_after)[:10]}"
            screen.said(f"{name}[{number}]" if len(certificates) > 1 else name, spoken, width=_WIDTH)
    else:
        last = name.rpartition(".")[2]
        text = ", ".join(_text(item, last) for item in value) if isinstance(value, list) else _text(value, last)
        screen.said(name, text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]}… (the rest: --json)", width=_WIDTH)


def _text(value: Any, name: str) -> str:
    """One value: a time as people write it, a number of many digits in hex too."""
    if value is None or isinstance(value, bool):
        return _WORDS[value]
    if isinstance(value, int) and name in _TIMES and 0 <= value < _YEAR_10000:
        return when(value)
    return f"{value} ({value:#x})" if isinstance(value, int) and value > 0xFFFF else str(value)


def _certificates(value: Any) -> tuple[Certificate, ...]:
    """Those that stand in hex, DER or PEM; none where it is something else."""
    with suppress(ValueError, AttestationError):
        if isinstance(value, str) and value.startswith("3082"):
            return (Certificate(bytes.fromhex(value)),)
        if isinstance(value, str) and value.startswith(_PEM):
            return from_pem(bytes.fromhex(value))
    return ()


def _common(name: str) -> str:
    """The common name in a name, or all of it."""
    found = _CN.search(name)
    return found[1] if found else name
