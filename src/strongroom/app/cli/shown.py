"""Every field of some evidence, for people who look at it. Nothing here is believed by anybody.

What stands in a platform's evidence is described by its own module (``fields_*.py``), loaded when it is met; anything else
is shown as its parser left it.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from importlib import import_module
from typing import Any

from strongroom import wire
from strongroom.attest.x509 import Certificate, from_pem
from strongroom.errors import AttestationError, StrongroomError

from .fields import YEAR_10000, Digests, Moment, Record, Spoken, Text, certificate
from .fields_report import sections
from .screen import Screen, printable

__all__ = ["lines", "plain", "sections"]

MAX_DEPTH = 32
MAX_CHARS = 4096  # of one value: any digest, signature or key is whole
MAX_NAME_CHARS = 128  # of a field in JSON of others
_WIDTH, _MAX_WIDTH = 34, 64  # of the column of names
_MAX_INDENT = 16
_SHORT = 40  # a list of items up to this long stands on one line
_PEM = b"-----BEGIN CERTIFICATE-----".hex()
_TIMES = {"exp", "iat", "nbf", "not_after", "not_before"}  # unix seconds
_WORDS = {None: "none", True: "true", False: "false"}
_HEX = re.compile(r"[0-9a-f]{129,}\Z")
_ALIKE = (("all zero", re.compile(r"(?:00){16,}\Z")), ("all ff", re.compile(r"(?:ff){16,}\Z")))
_HEX_LINE = 96
_CAPITALS = (
    "abi amd cpu cose e2ee fmspc gpu id isv kms mac mrconfigid mrenclave mrowner mrownerconfig mrseam mrservicetd mrsigner "
    "mrsignerseam mrtd pce pck pcr pdi ppid qe rtmr sdk seam sev sgx sku smt snp svn tcb td tdreport tdx tee tls tpm ueid "
    "url vbios vmpl xfam xfrm"
)
_CAPITAL = frozenset(_CAPITALS.split())
_NUMBERED = {"pcr": "PCR", "measurement": "measurement", "nvdec": "NVDEC", "pcie": "PCIe"}
# Which module describes the claims that are defined in which.
_DESCRIBED = {
    "strongroom.attest.azure_claims": "fields_tpm",
    "strongroom.attest.azure_foreign": "fields_tpm",
    "strongroom.attest.dstack": "fields_dstack",
    "strongroom.attest.eventlog": "fields_uefi",
    "strongroom.attest.nitro_document": "fields_nitro",
    "strongroom.attest.nras_token": "fields_nvidia",
    "strongroom.attest.nvidia_device": "fields_nvidia",
    "strongroom.attest.sgx": "fields_intel",
    "strongroom.attest.snp_report": "fields_amd",
    "strongroom.attest.spdm": "fields_nvidia",
    "strongroom.attest.tdx": "fields_intel",
    "strongroom.attest.tpm": "fields_tpm",
}


# --- as JSON ----------------------------------------------------------------------------------------------------------


def plain(value: Any, depth: int = 0) -> Any:  # noqa: C901, PLR0911 - one return per kind of value
    """Anything that a parser made, as JSON: bytes and great numbers in hex, dataclasses by their fields."""
    if depth > MAX_DEPTH:
        return "…"
    if isinstance(value, Spoken | Moment | Text):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, Record | Digests):
        return type(value)({key: plain(item, depth + 1) for key, item in value.items()})
    if is_dataclass(value) and not isinstance(value, type):
        described = _described(value)
        if described is not None:
            return plain(described, depth)
        return Record({f.name: plain(getattr(value, f.name), depth + 1) for f in fields(value) if f.repr})
    if isinstance(value, Mapping):
        return {_whole(str(key)): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(str(plain(item, depth + 1)) for item in value)
    if isinstance(value, int) and abs(value) > wire.MAX_INT:
        return f"{value:#x}"  # as a number, few readers of JSON would keep it
    return value if value is None or isinstance(value, bool | int) else _whole(str(value))


def _whole(text: str) -> str:
    """The same without halves of characters (lone surrogates), which JSON can spell and no output can write."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _described(value: Any) -> Record | Spoken | None:
    """What is described by a module of its own; ``None`` for the others, and where a field defies its description."""
    if isinstance(value, Certificate):
        return Record(certificate=certificate(value))
    name = _DESCRIBED.get(type(value).__module__)
    if name is None:
        return None
    describe = import_module(f".{name}", __package__).DESCRIBED.get(type(value))
    found: Record | Spoken | None = None
    with suppress(StrongroomError):
        found = describe(value) if describe else None
    return found


# --- for people -------------------------------------------------------------------------------------------------------


def lines(value: Any, screen: Screen, name: str = "", *, depth: int = 0, ours: bool = True, width: int = _WIDTH) -> None:
    """What ``plain`` made, a line a field; what holds others is a title with them under it.

    Args:
        value: from ``plain``.
        screen: where to.
        name: of the field.
        depth: how far to the right.
        ours: whether names are ours, and read as words; else they stand as they came.
        width: of the column of names.
    """
    label = _indent(depth) + (_label(name) if ours else _cut(name, MAX_NAME_CHARS))
    if isinstance(value, Spoken):
        _said(label, value.said, screen, width)
    elif isinstance(value, Digests):
        _digests(value, screen, label, depth if name else depth - 1)
    elif isinstance(value, dict) and value:
        _within([*value.items()], screen, label if name else "", depth, ours=isinstance(value, Record))
    elif isinstance(value, list) and any(isinstance(item, dict | list) or len(str(item)) > _SHORT for item in value):
        title = label if name else ""
        _within([(f"[{n}]", item) for n, item in enumerate(value)], screen, title, depth, ours=False)
    elif found := _certificates(value):
        for one in found:
            _said(label, certificate(one).said, screen, width)
    else:
        said = ", ".join(_text(item, name) for item in value) if isinstance(value, list) else _text(value, name)
        _said(label, value.said if isinstance(value, Text) else (said,), screen, width)


def _within(items: Sequence[tuple[str, Any]], screen: Screen, title: str, depth: int, *, ours: bool) -> None:
    """A title, where there is one, and what stands under it."""
    if title:
        _title(title, screen)
    depth += bool(title)
    flat = [len(_indent(depth)) + len(key) for key, item in items if not isinstance(item, dict | list)]
    width = min(max(flat, default=0) + 2, _MAX_WIDTH)
    for key, item in items:
        lines(item, screen, key, depth=depth, ours=ours, width=max(width, _WIDTH))


def _title(title: str, screen: Screen) -> None:
    """One line, whatever is in it: names in evidence are whoever's who made it."""
    screen.line(f"  {printable(title)}", "bold")


def _digests(value: Digests, screen: Screen, title: str, depth: int) -> None:
    """Registers one a line, and those that are zero together."""
    _title(title, screen)
    indent = _indent(depth + 1)
    left = dict(value)
    alike = {said: [name for name, digest in value.items() if form.match(digest)] for said, form in _ALIKE}
    for name in (name for names in alike.values() for name in names):
        del left[name]
    for name, digest in left.items():
        _said(indent + _label(name), (digest,), screen, _WIDTH)
    for said, names in alike.items():
        if names:
            _said(indent + said, (_ranges([int(name.lstrip(string.ascii_letters)) for name in names]),), screen, _WIDTH)


def _ranges(numbers: list[int]) -> str:
    runs: list[list[int]] = []
    for n in numbers:
        if runs and runs[-1][-1] == n - 1:
            runs[-1][1:] = [n]
        else:
            runs.append([n])
    return ", ".join("-".join(map(str, run)) for run in runs)


def _said(label: str, said: tuple[str, ...], screen: Screen, width: int) -> None:
    """What is said of one field: long hex in lines of one length, and what is longer than anybody reads cut."""
    first, *more = (line for line in said if line) if any(said) else ("none",)
    for about, line in ((label, first), *(("", line) for line in more)):
        text = _cut(line, MAX_CHARS)
        if _HEX.match(line):
            text = " ".join(text[at : at + _HEX_LINE] for at in range(0, len(text), _HEX_LINE))
        screen.said(about, text, width=width)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}… (the rest: --json)"


def _indent(depth: int) -> str:
    return " " * min(2 * depth, _MAX_INDENT)


def _label(name: str) -> str:
    """``tee_tcb_svn`` as people write it."""
    return " ".join(_spelled(word) for word in name.split("_"))


def _spelled(word: str) -> str:
    """``pcr7`` as PCR 7, ``svns`` as SVNs, ``rtmr0`` as RTMR0."""
    bare = word.rstrip(string.digits)
    if bare in _NUMBERED:
        return f"{_NUMBERED[bare]} {word[len(bare) :]}".strip()
    if bare.endswith("s") and bare[:-1] in _CAPITAL:
        return f"{bare[:-1].upper()}s"
    return word.upper() if bare in _CAPITAL else word


def _text(value: Any, name: str) -> str:
    """One value: a time as people write it, a number of many digits in hex too."""
    if isinstance(value, Moment):
        return value.said
    if value is None or isinstance(value, bool):
        return _WORDS[value]
    if isinstance(value, int) and name in _TIMES and 0 <= value < YEAR_10000:
        return Moment(value).said
    return f"{value} ({value:#x})" if isinstance(value, int) and value > 0xFFFF else str(value)


def _certificates(value: Any) -> tuple[Certificate, ...]:
    """Those that stand in hex, DER or PEM; none where it is something else."""
    with suppress(ValueError, AttestationError):
        if isinstance(value, str) and value.startswith("3082"):
            return (Certificate(bytes.fromhex(value)),)
        if isinstance(value, str) and value.startswith(_PEM):
            return from_pem(bytes.fromhex(value))
    return ()
