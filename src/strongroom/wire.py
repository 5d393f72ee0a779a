"""Canonical JSON, digests, strict parsing and signed envelopes.

Canonical bytes are RFC 8785 (JCS), from the ``rfc8785`` library, narrowed: no floats, integers within 2^53-1, bounded depth
and size, no duplicate members, and ``encode(decode(b)) == b`` or the bytes are refused. Envelopes are DSSE v1 with Ed25519.

See ``spec/wire.md``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import rfc8785

from .errors import BadEnvelope, BadField, NotCanonical, NotJson, TooLarge

JSON: TypeAlias = bool | int | str | list["JSON"] | dict[str, "JSON"] | None

MAX_INT = 2**53 - 1
MAX_DEPTH = 32
MAX_BYTES = 4 << 20  # a document; sealed files and outputs are streams and have their own limits

MAX_VALUES = 1 << 15  # in a document; reading one takes as long as it has values, not bytes
MAX_NUMBER_CHARS = 40  # of foreign JSON: integers of 128 bits, and any float that means something

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_HEX = re.compile(r"[0-9a-f]*\Z")
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?\Z")
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,62}/[a-z0-9][a-z0-9.+-]{0,126}\Z")


def _check(value: object, depth: int) -> None:  # noqa: C901 - one branch per JSON type
    if depth > MAX_DEPTH:
        raise NotCanonical(f"nested deeper than {MAX_DEPTH} levels")
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, int):
        if not -MAX_INT <= value <= MAX_INT:
            raise NotCanonical("an integer is outside ±(2^53-1)")
    elif isinstance(value, str):
        if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
            raise NotCanonical("a string holds a lone surrogate")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise NotCanonical("a member's name is not a string")
            _check(key, depth)
            _check(item, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _check(item, depth + 1)
    else:
        raise NotCanonical(f"a {type(value).__name__} cannot stand in a signed document")


def encode(value: object) -> bytes:
    """The canonical bytes of a JSON value (RFC 8785).

    Args:
        value: ``None``, booleans, integers within 2^53-1, strings, lists, tuples and dicts of those. No floats.

    Raises:
        NotCanonical: the value holds anything else or is nested deeper than 32 levels.
    """
    _check(value, 0)
    text = _spelled_in_order(value)
    return text.encode("ascii") if text.isascii() else rfc8785.dumps(value)  # type: ignore[arg-type]


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise NotCanonical("an object has the same member twice")
    return found


def _utf16(name: str) -> bytes:
    return name.encode("utf-16-be", "surrogatepass")


def _in_order(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = _pairs(pairs)
    if list(found) != sorted(found, key=None if "".join(found).isascii() else _utf16):  # ASCII sorts alike, and sooner
        raise NotCanonical("an object's members are not in order")
    return found


def _require_shallow(value: object) -> None:
    """As ``_check`` counts: what stands in a list or an object is one level deeper than that."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        inside = (one.values() if isinstance(one, dict) else one for one in level)
        level = [item for items in inside for item in items if isinstance(item, dict | list)]
    if any(level):
        raise NotCanonical(f"nested deeper than {MAX_DEPTH} levels")


# JCS's own spelling of values whose members are in order, several times sooner: tests hold it to the library's. Names in
# ASCII have one order, by whatever they are counted; what holds any other character is left to the library.
_spelled = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":")).encode
_spelled_in_order = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":"), sort_keys=True).encode


def _no_number(_text: str) -> NoReturn:
    raise NotCanonical("a number is not an integer")


def _finite(text: str) -> float:
    value = float(text) if len(text) <= MAX_NUMBER_CHARS else math.inf
    if not math.isfinite(value):
        raise NotCanonical("a number is too large")
    return value


def _integer(text: str) -> int:
    if len(text) > 17 or not -MAX_INT <= (value := int(text)) <= MAX_INT:
        raise NotCanonical("an integer is outside ±(2^53-1)")
    return value


def _any_integer(text: str) -> int:
    if len(text) > MAX_NUMBER_CHARS:
        raise NotCanonical("a number is too large")
    return int(text)


def _require_few(data: bytes, most: int) -> None:
    """Every value but the first stands after one of these characters. In strings they count too: that is soon told."""
    if data.count(b",") + data.count(b"[") + data.count(b"{") > most:
        raise TooLarge(f"more than {most} values")


def _most(max_bytes: int, max_values: int | None) -> int:
    return max(MAX_VALUES, max_bytes // 128) if max_values is None else max_values


def decode(data: bytes, *, max_bytes: int = MAX_BYTES, max_values: int | None = None) -> JSON:
    """Parse canonical JSON, refusing every other spelling of it.

    Args:
        data: the bytes of one document.
        max_bytes: the largest size accepted, in bytes.
        max_values: how many values are accepted; unsaid, 32,768, or one for each 128 of these bytes.

    Raises:
        TooLarge: more than ``max_bytes``, or more values.
        NotJson: not JSON in UTF-8.
        NotCanonical: JSON, but not its one canonical spelling.
    """
    if len(data) > max_bytes:
        raise TooLarge(f"{len(data)} bytes where at most {max_bytes} are allowed")
    _require_few(data, _most(max_bytes, max_values))
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_in_order,
            parse_float=_no_number,
            parse_constant=_no_number,
            parse_int=_integer,
        )
        _require_shallow(value)
    except RecursionError as error:
        raise NotCanonical(f"nested deeper than {MAX_DEPTH} levels") from error
    except ValueError as error:  # of which a UnicodeDecodeError is one
        raise NotJson("the bytes are not JSON in UTF-8") from error
    if _spelled(value).encode("utf-8", "surrogatepass") != data:  # the bytes are UTF-8: they hold no lone surrogate
        raise NotCanonical("the bytes are JSON, but not in canonical form (RFC 8785)")
    return value  # type: ignore[no-any-return]


def loads(data: bytes, *, max_bytes: int = MAX_BYTES, max_values: int | None = None) -> Any:
    """Parse foreign JSON: any spelling, floats allowed, duplicate members and non-numbers refused. Bounds as in ``decode``.

    Raises:
        TooLarge: more than ``max_bytes``, or more than ``max_values`` of the characters ``,``, ``[`` and ``{``.
        NotJson: not JSON, a member twice, or a number of more than 40 characters.
    """
    if len(data) > max_bytes:
        raise TooLarge(f"{len(data)} bytes where at most {max_bytes} are allowed")
    _require_few(data, _most(max_bytes, max_values))
    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_pairs,
            parse_float=_finite,
            parse_constant=_no_number,
            parse_int=_any_integer,
        )
    except (UnicodeDecodeError, ValueError, RecursionError, NotCanonical) as error:
        raise NotJson("the bytes are not JSON in UTF-8, hold a member twice or a number that is too long") from error


def digest(data: bytes) -> str:
    """``sha256:`` and the lowercase hex SHA-256 of the bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def b64(data: bytes) -> str:
    """Standard base64 with padding (RFC 4648 section 4)."""
    return base64.b64encode(data).decode("ascii")


def unb64(text: str) -> bytes:
    """Decode standard base64, refusing every spelling but the canonical one.

    Raises:
        BadField: another alphabet, missing padding, white space, or non-zero trailing bits.
    """
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadField("not base64") from error
    if b64(data) != text:
        raise BadField("not canonical base64")
    return data


class Fields:
    """Reads the members of one JSON object, each exactly once, and refuses what is left over.

    Args:
        value: the decoded object.
        where: what it is, for messages (``"proposal"``).

    Raises:
        BadField: from every method, when a member is missing, unknown or of another type.
    """

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise BadField(f"{where} is not an object")
        self._left: dict[str, Any] = dict(value)
        self._where = where

    def _fail(self, name: str, why: str) -> NoReturn:
        raise BadField(f"{self._where}.{name} {why}")

    def any(self, name: str) -> Any:
        if name not in self._left:
            self._fail(name, "is missing")
        return self._left.pop(name)

    def has(self, name: str) -> bool:
        return name in self._left

    def text(self, name: str, *, max_chars: int = 1024, choices: Iterable[str] | None = None) -> str:
        value = self.any(name)
        if not isinstance(value, str) or len(value) > max_chars:
            self._fail(name, f"is not a string of at most {max_chars} characters")
        if choices is not None and value not in choices:
            self._fail(name, f"is not one of {', '.join(choices)}")
        return value

    def literal(self, name: str, expected: str) -> None:
        if self.any(name) != expected:
            self._fail(name, f"is not {expected!r}")

    def name(self, name: str) -> str:
        """A lower-case identifier: ``[a-z0-9._-]``, 1 to 64 characters, beginning and ending with a letter or digit."""
        value = self.text(name)
        if not _NAME.match(value):
            self._fail(name, "is not a name (a-z, 0-9, '.', '_', '-')")
        return value

    def media_type(self, name: str) -> str:
        value = self.text(name)
        if not _MEDIA_TYPE.match(value):
            self._fail(name, "is not a media type")
        return value

    def digest(self, name: str) -> str:
        value = self.text(name)
        if not _DIGEST.match(value):
            self._fail(name, "is not sha256: and 64 lowercase hex digits")
        return value

    def integer(self, name: str, *, low: int = 0, high: int = MAX_INT) -> int:
        value = self.any(name)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self._fail(name, f"is not an integer from {low} to {high}")
        return value

    def boolean(self, name: str) -> bool:
        value = self.any(name)
        if not isinstance(value, bool):
            self._fail(name, "is not true or false")
        return value

    def hex(self, name: str, *, size: int) -> bytes:
        """Lowercase hex of exactly ``size`` bytes."""
        value = self.text(name, max_chars=2 * size)
        if len(value) != 2 * size or not _HEX.match(value):
            self._fail(name, f"is not {2 * size} lowercase hex digits")
        return bytes.fromhex(value)

    def base64(self, name: str, *, max_bytes: int = MAX_BYTES) -> bytes:
        value = self.text(name, max_chars=max_bytes * 4 // 3 + 4)
        try:
            data = unb64(value)
        except BadField as error:
            self._fail(name, f"is {error}")
        if len(data) > max_bytes:
            self._fail(name, f"is longer than {max_bytes} bytes")
        return data

    def items(self, name: str, parse: Callable[[Any], Any], *, low: int = 0, high: int = 1024) -> tuple[Any, ...]:
        value = self.any(name)
        if not isinstance(value, list) or not low <= len(value) <= high:
            self._fail(name, f"is not a list of {low} to {high} items")
        return tuple(parse(item) for item in value)

    def names(self, name: str, *, low: int = 0, high: int = 1024) -> tuple[str, ...]:
        """A sorted list of distinct names."""
        value: tuple[str, ...] = self.items(
            name, lambda item: Fields({"item": item}, f"{self._where}.{name}").name("item"), low=low, high=high
        )
        if list(value) != sorted(set(value)):
            self._fail(name, "is not sorted and distinct")
        return value

    def optional(self, name: str, parse: Callable[[Any], Any]) -> Any:
        """``parse`` of the member, or ``None`` where it is ``null``; the member must be there."""
        value = self.any(name)
        return None if value is None else parse(value)

    def end(self) -> None:
        """Refuse members that nobody read."""
        if self._left:
            raise BadField(f"{self._where} has an unknown member {min(self._left)[:40]!r}")


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE v1 pre-authentication encoding: the bytes that are signed (DSSE protocol.md, "Signature Definition")."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature of an envelope.

    Attributes:
        keyid: the signer's key id, ``sha256:`` of its raw public key.
        sig: the raw signature, 64 bytes.
    """

    keyid: str
    sig: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """A DSSE envelope. **Untrusted**: nothing in it is checked until a key's ``verify`` has seen it.

    Attributes:
        payload_type: the media type of the payload.
        payload: the exact bytes that were signed.
        signatures: in the order found.
    """

    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...]

    def to_json(self) -> dict[str, JSON]:
        return {
            "payload": b64(self.payload),
            "payloadType": self.payload_type,
            "signatures": [{"keyid": s.keyid, "sig": b64(s.sig)} for s in self.signatures],
        }

    def encode(self) -> bytes:
        return encode(self.to_json())

    @classmethod
    def from_json(cls, value: object) -> Envelope:
        """Raises BadEnvelope, BadField."""
        f = Fields(value, "envelope")
        payload = f.base64("payload")
        payload_type = f.text("payloadType", max_chars=128)

        def signature(item: object) -> Signature:
            g = Fields(item, "signature")
            found = Signature(g.digest("keyid"), g.base64("sig", max_bytes=64))
            g.end()
            if len(found.sig) != 64:
                raise BadEnvelope("a signature is not 64 bytes long")
            return found

        signatures = f.items("signatures", signature, high=64)
        f.end()
        return cls(payload_type, payload, signatures)

    @classmethod
    def parse(cls, data: bytes, *, max_bytes: int = 2 * MAX_BYTES) -> Envelope:
        """Raises WireError and its leaves."""
        return cls.from_json(decode(data, max_bytes=max_bytes))

    @property
    def digest(self) -> str:
        """The payload's digest: a document's identity, whoever signed it."""
        return digest(self.payload)

    def expect(self, payload_type: str) -> bytes:
        """The payload, if the envelope is of this type. Raises BadEnvelope."""
        if self.payload_type != payload_type:
            raise BadEnvelope(f"the envelope holds {self.payload_type[:80]!r}, not {payload_type!r}")
        return self.payload


def media_type(noun: str) -> str:
    """The payload type of one of our documents: ``application/vnd.strongroom.<noun>.v1+json``."""
    return f"application/vnd.strongroom.{noun}.v1+json"
