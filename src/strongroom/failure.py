"""How a run ended that did not complete: what everybody is told, and what the owners of its assets are told beside that.

Step and code are chosen by the program too. Where the policy withholds them everybody is told that the run failed, and each
owner can read the rest in a note that is encrypted to it and stands in the receipt. A note says which output broke which
rule, and never a value.

See ``spec/receipt.md``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from . import wire
from .errors import BadReceipt
from .observation import WITHHELD
from .party import DecryptionKey, EncryptionKey
from .wire import JSON, Fields

PURPOSE = "strongroom.failure-note.v1"
NOTE_BYTES = 512
"""Every note is as long, whatever it says."""

_FAILURE = re.compile(r"[a-z](?:[a-z0-9._ ]{0,62}[a-z0-9])?\Z")


@dataclass(frozen=True, slots=True)
class Failure:
    """How a run ended that did not complete: the step and the stable code, never data.

    Raises:
        BadReceipt: one of them is not a few lower-case words, as every step and code is.
    """

    step: str
    code: str

    def __post_init__(self) -> None:
        if not _FAILURE.match(self.step) or not _FAILURE.match(self.code):
            raise BadReceipt("a failure is not said by a step and a code")

    def to_json(self) -> dict[str, JSON]:
        return {"code": self.code, "step": self.step}

    @classmethod
    def from_json(cls, value: object) -> Failure:
        f = Fields(value, "failure")
        found = cls(f.text("step", max_chars=64), f.text("code", max_chars=64))
        f.end()
        return found


NOT_TOLD = Failure(WITHHELD, WITHHELD)
"""That a run failed, where the policy withholds how."""


@dataclass(frozen=True, slots=True)
class Note:
    """What an owner is told of a failure.

    Attributes:
        failure: the step and the code.
        output: the output that broke its rule, by its name in the contract; empty where none did.
        rule: which rule it broke (``output.RULES``); empty where none was broken.
    """

    failure: Failure
    output: str = ""
    rule: str = ""

    def seal(self, owners: Mapping[str, EncryptionKey], *, contract: str, run_id: str) -> dict[str, bytes]:
        """Encrypted to each owner, by name, for this run alone."""
        said = wire.encode({**self.failure.to_json(), "output": self.output, "rule": self.rule}).ljust(NOTE_BYTES)
        return {name: key.encrypt(said, info=_binding(contract, run_id, name)) for name, key in owners.items()}

    @classmethod
    def open(cls, sealed: bytes, key: DecryptionKey, *, contract: str, run_id: str, owner: str) -> Note:
        """Raises BadKey: for another owner or run. WireError, BadReceipt: it is no note."""
        said = key.decrypt(sealed, info=_binding(contract, run_id, owner))
        f = Fields(wire.decode(said.rstrip(b" ")), "note")
        failure = Failure(f.text("step", max_chars=64), f.text("code", max_chars=64))
        found = cls(failure, f.text("output", max_chars=64), f.text("rule", max_chars=16))
        f.end()
        return found


def _binding(contract: str, run_id: str, owner: str) -> bytes:
    return wire.encode({"contract": contract, "owner": owner, "purpose": PURPOSE, "run_id": run_id})
