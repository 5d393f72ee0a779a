"""Reads as much of an ONNX file as it takes to refuse what must not be loaded, before onnxruntime sees it.

Refused: tensors whose data lie in another file (such a reference can name any path, and in some runtimes any address),
operators from libraries that would have to be loaded, and what is no ONNX model. Found on the way: the class labels that
classifiers carry. No ``onnx`` library is needed: the wire format of protocol buffers is five lines, and field numbers are
fixed.

Source: protobuf.dev, "Encoding"; onnx/onnx.proto, IR version 10 and earlier.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from strongroom.errors import ModelUnreadable

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Operators that onnxruntime has built in."""

MAX_DEPTH = 16

_MODEL_GRAPH, _MODEL_OPSET, _MODEL_TRAINING, _MODEL_FUNCTION = 7, 8, 20, 25
_FUNCTION_NODE, _FUNCTION_DOMAIN, _FUNCTION_ATTRIBUTE = 7, 10, 11
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE = 1, 5, 15
_NODE_ATTRIBUTE, _NODE_DOMAIN = 5, 7
_ATTRIBUTE_NAME, _ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_INTS, _ATTRIBUTE_STRINGS = 1, 5, 6, 8, 9
_ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS, _ATTRIBUTE_SPARSE, _ATTRIBUTE_SPARSES = 10, 11, 22, 23
_TENSOR_EXTERNAL, _TENSOR_LOCATION = 13, 14

Value: TypeAlias = int | memoryview


@dataclass(slots=True)
class Graph:
    """What was found.

    Attributes:
        labels: each list of class labels that some operator carries, as text, in the order of its scores.
    """

    labels: list[tuple[str, ...]] = field(default_factory=list)


def _bad(why: str) -> ModelUnreadable:
    return ModelUnreadable(why, step="load model")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise _bad("the model ends within a number")


def _fields(data: memoryview) -> Iterator[tuple[int, Value]]:
    """Each field's number and value, in the order they stand in."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        # Some parsers keep 32 bits of a key: what is 13 to them would be another field to us.
        if not 0 < key >> 3 < 1 << 29:
            raise _bad("the model has a field that there is not")
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if kind == 2:
            size, at = _varint(data, at)
        elif kind in {1, 5}:
            size = 8 if kind == 1 else 4
        else:
            raise _bad("the model has a field of unknown form")
        if at + size > len(data):
            raise _bad("the model ends within a field")
        yield key >> 3, data[at : at + size]
        at += size


def _block(value: Value) -> memoryview:
    if isinstance(value, int):
        raise _bad("the model has a number where a message must be")
    return value


def _text(value: Value) -> str:
    try:
        return bytes(_block(value)).decode("utf-8")
    except UnicodeDecodeError:
        raise _bad("the model holds text that is not UTF-8") from None


class _Scan:
    def __init__(self) -> None:
        self.found = Graph()
        self.domains: set[str] = set()
        self.own_domains: set[str] = set()

    def model(self, data: memoryview) -> None:
        graphs = 0
        for number, value in _fields(data):
            if number == _MODEL_GRAPH:
                graphs += 1
                self.graph(_block(value), 0)
            elif number == _MODEL_OPSET:
                self.domains |= {_text(item) for inner, item in _fields(_block(value)) if inner == 1}
            elif number == _MODEL_FUNCTION:
                self.function(_block(value))
            elif number == _MODEL_TRAINING:
                raise _bad("the model carries a graph for training")
        if graphs != 1:
            raise _bad("the file holds no graph: it is no ONNX model")

    def function(self, data: memoryview) -> None:
        for number, value in _fields(data):
            if number == _FUNCTION_NODE:
                self.node(_block(value), 0)
            elif number == _FUNCTION_ATTRIBUTE:
                self.attribute(_block(value), 0)
            elif number == _FUNCTION_DOMAIN:
                self.own_domains.add(_text(value))

    def graph(self, data: memoryview, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise _bad(f"the model's graphs are nested deeper than {MAX_DEPTH}")
        for number, value in _fields(data):
            if number == _GRAPH_NODE:
                self.node(_block(value), depth)
            elif number == _GRAPH_INITIALIZER:
                self.tensor(_block(value))
            elif number == _GRAPH_SPARSE:
                self.sparse(_block(value))

    def node(self, data: memoryview, depth: int) -> None:
        for number, value in _fields(data):
            if number == _NODE_ATTRIBUTE:
                self.attribute(_block(value), depth)
            elif number == _NODE_DOMAIN:
                self.domains.add(_text(value))

    def attribute(self, data: memoryview, depth: int) -> None:
        name, numbers, texts = "", list[str](), list[str]()
        for number, value in _fields(data):
            if number == _ATTRIBUTE_NAME:
                name = _text(value)
            elif number in {_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS}:
                self.tensor(_block(value))
            elif number in {_ATTRIBUTE_SPARSE, _ATTRIBUTE_SPARSES}:
                self.sparse(_block(value))
            elif number in {_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS}:
                self.graph(_block(value), depth + 1)
            elif number == _ATTRIBUTE_INTS:
                numbers.extend(str(_signed(item)) for item in _packed(value))
            elif number == _ATTRIBUTE_STRINGS:
                texts.append(bytes(_block(value)).decode("utf-8", "replace"))
        if name.startswith("classlabels_") and (numbers or texts):
            self.found.labels.append(tuple(numbers or texts))

    def sparse(self, data: memoryview) -> None:
        for number, value in _fields(data):
            if number in {1, 2}:
                self.tensor(_block(value))

    def tensor(self, data: memoryview) -> None:
        for number, value in _fields(data):
            if number == _TENSOR_EXTERNAL or (number == _TENSOR_LOCATION and value != 0):
                raise _bad("the model's weights lie in another file; save it as one file")


def _packed(value: Value) -> list[int]:
    """A repeated integer: one value, or all of them in one block."""
    if isinstance(value, int):
        return [value]
    found, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        found.append(number)
    return found


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def scan(data: bytes) -> Graph:
    """Look through a model that is still untrusted.

    Args:
        data: the whole file.

    Raises:
        ModelUnreadable: not ONNX, weights in another file, operators that are not built in, or a graph for training.
    """
    scan_ = _Scan()
    scan_.model(memoryview(data))
    strange = scan_.domains - DOMAINS - scan_.own_domains
    if strange:
        raise _bad("the model needs operators from a library that is not built in")
    return scan_.found
