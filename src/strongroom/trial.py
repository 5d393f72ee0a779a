"""Trials: what the proposer of some code says that it did on the mocks, as a document that the proposal names by its digest.

A trial is a claim. Whoever reads it can run the same code on the same mocks and compare: outputs are named by the digests of
what would have left. Nothing that decides looks at it.

See ``spec/trial.md``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from . import wire
from .errors import BadField
from .wire import JSON, Fields

FORMAT = "strongroom.trial.v1"
MAX_TRIAL_BYTES = 1 << 20
MAX_CONTENT_BYTES = 512 << 10  # of all outputs together; the others are named by their digests alone
MAX_LOG = 16_384  # characters
MAX_WHY = 400  # characters
MAX_NAMED = 64

_T = TypeVar("_T")
_CODE = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)*\Z")


def _content(value: object) -> bytes:
    return Fields({"content": value}, "trial.output").base64("content", max_bytes=MAX_CONTENT_BYTES)


@dataclass(frozen=True, slots=True)
class Shown:
    """An output that would have left.

    Attributes:
        kind: one of the policy's output kinds.
        size: its length, in bytes.
        digest: ``sha256:…`` of it.
        content: the bytes themselves; ``None`` where they are too many to travel.

    Raises:
        BadField: the bytes are not those of the digest and length.
    """

    kind: str
    size: int
    digest: str
    content: bytes | None

    def __post_init__(self) -> None:
        if self.content is not None and (len(self.content), wire.digest(self.content)) != (self.size, self.digest):
            raise BadField("trial.content is not of the digest and length that stand beside it")

    def to_json(self) -> dict[str, JSON]:
        content = None if self.content is None else wire.b64(self.content)
        return {"bytes": self.size, "content": content, "digest": self.digest, "kind": self.kind}

    @classmethod
    def from_json(cls, value: object) -> Shown:
        """Raises BadField."""
        f = Fields(value, "trial.output")
        found = cls(
            kind=f.name("kind"),
            size=f.integer("bytes"),
            digest=f.digest("digest"),
            content=f.optional("content", _content),
        )
        f.end()
        return found


@dataclass(frozen=True, slots=True)
class Trial:
    """What somebody says that some code did on stand-ins for its inputs. **A claim**, by whoever proposes the code.

    Attributes:
        bundle: digest of the code.
        parameters: digest of the program's parameters, canonical JSON, as the proposal has them.
        inputs: digest of each stand-in's bytes, by role.
        outputs: what would have left, by name.
        refused: which output would not have left, and why, in a line for people.
        failure: the code of the error by which it ended, or ``None``.
        log: the end of what it printed.

    Raises:
        BadField: an output both left and refused, or a text that is too long.
    """

    bundle: str
    parameters: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, Shown]
    refused: Mapping[str, str]
    failure: str | None
    log: str

    def __post_init__(self) -> None:
        if set(self.outputs) & set(self.refused):
            raise BadField("trial: an output left and was refused")
        if self.failure is not None and self.outputs:
            raise BadField("trial: it failed, and something left")
        if len(self.log) > MAX_LOG or any(len(why) > MAX_WHY for why in self.refused.values()):
            raise BadField(f"trial: a log has at most {MAX_LOG} characters, and a reason {MAX_WHY}")

    def to_json(self) -> dict[str, JSON]:
        return {
            "bundle": self.bundle,
            "failure": self.failure,
            "format": FORMAT,
            "inputs": dict(self.inputs),
            "log": self.log,
            "outputs": {name: shown.to_json() for name, shown in self.outputs.items()},
            "parameters": self.parameters,
            "refused": dict(self.refused),
        }

    @classmethod
    def from_json(cls, value: object) -> Trial:
        """Raises BadField."""
        f = Fields(value, "trial")
        f.literal("format", FORMAT)
        found = cls(
            bundle=f.digest("bundle"),
            parameters=f.digest("parameters"),
            inputs=_map(f, "inputs", Fields.digest),
            outputs=_map(f, "outputs", lambda values, name: Shown.from_json(values.any(name))),
            refused=_map(f, "refused", lambda values, name: values.text(name, max_chars=MAX_WHY)),
            failure=f.optional("failure", lambda v: Fields({"failure": v}, "trial").text("failure", max_chars=64)),
            log=f.text("log", max_chars=MAX_LOG),
        )
        f.end()
        if found.failure is not None and not _CODE.match(found.failure):
            raise BadField("trial.failure is no code of an error")
        return found

    def encode(self) -> bytes:
        return wire.encode(self.to_json())

    @classmethod
    def parse(cls, data: bytes) -> Trial:
        """Parse the exact bytes; ``parse(b).encode() == b``. Raises WireError and its leaves."""
        return cls.from_json(wire.decode(data, max_bytes=MAX_TRIAL_BYTES))

    @property
    def digest(self) -> str:
        """What a proposal names."""
        return wire.digest(self.encode())


def fitting(outputs: Mapping[str, tuple[str, bytes]]) -> dict[str, Shown]:
    """Outputs as a trial shows them: the bytes of as many as may travel, the smallest first.

    Args:
        outputs: kind and bytes, by name.
    """
    left, found = MAX_CONTENT_BYTES, {}
    for name, (kind, data) in sorted(outputs.items(), key=lambda item: (len(item[1][1]), item[0])):
        kept = data if len(data) <= left else None
        left -= len(data) if kept is not None else 0
        found[name] = Shown(kind, len(data), wire.digest(data), kept)
    return found


def _map(f: Fields, member: str, read: Callable[[Fields, str], _T]) -> dict[str, _T]:
    """An object whose members have names that are somebody's choice."""
    value, where = f.any(member), f"trial.{member}"
    if not isinstance(value, dict) or len(value) > MAX_NAMED:
        raise BadField(f"{where} is not an object of at most {MAX_NAMED} members")
    names = [Fields({"name": name}, where).name("name") for name in value]
    return {name: read(Fields(value, where), name) for name in names}


__all__ = ["FORMAT", "MAX_CONTENT_BYTES", "MAX_LOG", "MAX_TRIAL_BYTES", "MAX_WHY", "Shown", "Trial", "fitting"]
