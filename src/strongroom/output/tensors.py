"""Tensors: a safetensors file of exactly the names, types and shapes that the rule's schema says, written anew.

No metadata, no gaps, names in order, finite numbers without negative noughts, rounded. See ``spec/output.md``, and for the
format https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import numpy as np

from strongroom import wire
from strongroom.policy import OutputRule
from strongroom.schema import DTYPES, Tensor, Tensors
from strongroom.wire import Fields

from .refusing import refuse, refuse_groups

MAX_HEADER: Final = 1 << 20
_FLOATS: Final[Mapping[str, str]] = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}
_EXACT: Final = 2.0**51  # up to here a number times a power of ten is rounded as it should be
_TRIES: Final = 8
_METADATA: Final = "__metadata__"

_Array: TypeAlias = "np.ndarray[Any, Any]"


def _header(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The entries by name, and the bytes after them. Raises OutputRefused, WireError."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or not 2 <= size <= min(MAX_HEADER, len(data) - 8) or data[8:9] != b"{":
        refuse("the tensors are no safetensors file")
    found = wire.loads(data[8 : 8 + size], max_bytes=MAX_HEADER)
    if not isinstance(found, dict):
        refuse("the tensors are no safetensors file")
    found.pop(_METADATA, None)
    return found, data[8 + size :]


def _parts(schema: Tensors, data: bytes) -> dict[str, bytes]:
    """Each tensor's bytes: all there, of the type and shape that was agreed, without gaps, none over another."""
    entries, body = _header(data)
    if entries.keys() != schema.tensors.keys():
        refuse("the tensors have other names than their schema", "schema")
    places = {}
    for name, entry in entries.items():
        f = Fields(entry, "tensor")
        said = Tensor(f.text("dtype", choices=DTYPES), f.items("shape", _axis, high=64))
        start, end = f.items("data_offsets", _offset, low=2, high=2)
        f.end()
        if said != schema.tensors[name]:
            refuse("a tensor has another type or shape than its schema", "schema")
        if end - start != said.size:
            refuse("a tensor's bytes are not those of its shape")
        places[name] = (start, end)
    edges = sorted(places.values())
    if [start for start, _ in edges] != [0, *(end for _, end in edges[:-1])] or edges[-1][1] != len(body):
        refuse("the tensors' bytes have a gap, or lie over each other")
    return {name: body[start:end] for name, (start, end) in places.items()}


def _axis(value: object) -> int:
    return Fields({"axis": value}, "tensor").integer("axis", low=1)


def _offset(value: object) -> int:
    return Fields({"offset": value}, "tensor").integer("offset")


def _once(numbers: _Array, decimals: int) -> _Array:
    """Rounded in 64 bits; what is too large for that by Python, which is exact."""
    power = 10.0**decimals
    with np.errstate(over="ignore"):
        scaled = numbers * power
    small = np.abs(scaled) < _EXACT
    found = np.where(small, np.rint(np.where(small, scaled, 0)) / power, numbers)
    large = np.flatnonzero(~small)
    found[large] = [round(float(value), decimals) for value in numbers[large]]
    return found + 0.0


def _floats(numbers: _Array, decimals: int, narrow: Callable[[_Array], _Array]) -> _Array:
    """Rounded, and rounded again to the type that it had, until that changes nothing more: so that twice is once."""
    for _ in range(_TRIES):
        before, numbers = numbers, narrow(_once(numbers, decimals))
        if np.array_equal(before, numbers):
            break
    else:
        refuse("the tensors hold a number that cannot be rounded in its type")
    return numbers


def _brain(numbers: _Array) -> _Array:
    """The nearest numbers that 16 bits of a 32-bit float can hold, ties to even."""
    bits = numbers.astype("<f4").view("<u4")
    near: _Array = ((bits + (((bits >> 16) & 1) + 0x7FFF)) >> 16).astype("<u2")
    return _from_brain(near)


def _from_brain(bits: _Array) -> _Array:
    wide: _Array = (bits.astype("<u4") << 16).view("<f4").astype("<f8")
    return wide


def _left(tensor: Tensor, data: bytes, decimals: int) -> bytes:
    """What leaves of one tensor."""
    if tensor.dtype == "BOOL":
        if any(byte not in b"\x00\x01" for byte in set(data)):
            refuse("the tensors hold yes and no in another form")
        return data
    if tensor.dtype != "BF16" and tensor.dtype not in _FLOATS:
        return data
    brain = tensor.dtype == "BF16"
    with np.errstate(invalid="ignore"):  # what is no number is found below
        numbers = (
            _from_brain(np.frombuffer(data, "<u2")) if brain else np.frombuffer(data, _FLOATS[tensor.dtype]).astype("<f8")
        )
    if not np.isfinite(numbers).all():
        refuse("the tensors hold a number that is none")
    if brain:
        found = (_floats(numbers, decimals, _brain).astype("<f4").view("<u4") >> 16).astype("<u2")
    else:
        kind = _FLOATS[tensor.dtype]
        found = _floats(numbers, decimals, lambda a: a.astype(kind).astype("<f8")).astype(kind)
    return found.tobytes()


def tensors(rule: OutputRule, data: bytes) -> bytes:
    """What leaves: a safetensors file."""
    refuse_groups("a tensor", rule.min_group)
    schema = rule.schema
    if not isinstance(schema, Tensors):
        refuse("the rule does not say what tensors may leave", "schema")
    parts = _parts(schema, data)
    body, header, at = [], {}, 0
    for name, tensor in schema.tensors.items():
        body.append(_left(tensor, parts[name], rule.decimals))
        header[name] = {"data_offsets": [at, at + tensor.size], "dtype": tensor.dtype, "shape": [*tensor.shape]}
        at += tensor.size
    written = wire.encode(header)
    written += b" " * (-len(written) % 8)
    return b"".join([len(written).to_bytes(8, "little"), written, *body])
