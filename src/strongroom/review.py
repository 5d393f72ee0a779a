"""Notes of a review: what a party said about a proposal before it decided, signed and logged.

A note decides nothing. To approve is to sign the proposal, and to refuse is to withdraw (``contract.py``); a note adds
the way there: a comment on a line of the code, a change that is asked for, and what a party had been shown when it signed.

See ``spec/review.md``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from . import wire
from .contract import Proposal
from .errors import BadField
from .party import SigningKey
from .wire import JSON, Envelope, Fields

NOTE_TYPE = wire.media_type("review")
CODE_PROGRAM = "code"
MAX_TEXT = 2000  # characters
MAX_FILE = 255  # characters
MAX_LINE = 1_000_000
MAX_NOTE_BYTES = 16 << 10
MAX_NOTES = 200  # of one party about one proposal, at an exchange

# What a screen obeys instead of showing, as in a proposal's title; line ends and tabs are meant here.
_UNSHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


class Kind(StrEnum):
    """What a note is."""

    ASK = "ask"
    COMMENT = "comment"
    REVIEWED = "reviewed"


def bundle_of(proposal: Proposal) -> str | None:
    """The digest of the code bundle that a proposal runs; ``None`` where it runs a program of the measured image.

    Raises:
        BadField: it runs code, and does not say which.
    """
    if proposal.program.name != CODE_PROGRAM:
        return None
    return Fields(dict(proposal.program.parameters), "program.parameters").digest("bundle")


@dataclass(frozen=True, slots=True)
class Note:
    """What one party says about a proposal.

    Attributes:
        proposal: the proposal's digest.
        bundle: the digest of the code bundle that the proposal runs; ``None`` where it runs none.
        kind: a comment, a change asked for, or what had been shown when the party signed.
        party: who says it.
        at: Unix seconds, as the party says.
        text: for people, at most 2,000 characters; empty in ``reviewed`` alone.
        file: the file of the bundle that it is about, or ``None``.
        line: the line in it, from 1, or ``None`` where there is no file.
        report: in ``reviewed``, the digest of the static report that was shown, or ``None`` where there was none.

    Raises:
        BadField: a rule of ``spec/review.md`` is broken.
    """

    proposal: str
    bundle: str | None
    kind: Kind
    party: str
    at: int
    text: str
    file: str | None = None
    line: int | None = None
    report: str | None = None

    def __post_init__(self) -> None:
        if (self.file is None) != (self.line is None):
            raise BadField("review.file and review.line stand together or not at all")
        if self.file is not None and self.bundle is None:
            raise BadField("review.file is a file of no bundle")
        if self.kind is Kind.REVIEWED:
            if self.file is not None:
                raise BadField("review.file: what was shown is no line")
        elif self.report is not None:
            raise BadField("review.report stands in a note of what was shown alone")
        elif not self.text.strip():
            raise BadField("review.text is empty", hint="Say what you think of it, or what is to change.")
        if len(self.text) > MAX_TEXT or _UNSHOWN.search(self.text):
            raise BadField(
                f"review.text is not at most {MAX_TEXT} characters that are shown as they are",
                hint="Leave out control characters and those that are invisible or turn the direction of writing.",
            )
        if self.file is not None and (not 1 <= len(self.file) <= MAX_FILE or not self.file.isprintable()):
            raise BadField(f"review.file is not 1 to {MAX_FILE} printable characters")

    def to_json(self) -> dict[str, JSON]:
        return {
            "at": self.at,
            "bundle": self.bundle,
            "file": self.file,
            "kind": self.kind.value,
            "line": self.line,
            "party": self.party,
            "proposal": self.proposal,
            "report": self.report,
            "text": self.text,
        }

    @classmethod
    def from_json(cls, value: object) -> Note:
        """Raises BadField."""
        f = Fields(value, "review")

        def digest(name: str) -> str | None:
            found: str | None = f.optional(name, lambda v: Fields({name: v}, "review").digest(name))
            return found

        found = cls(
            proposal=f.digest("proposal"),
            bundle=digest("bundle"),
            kind=Kind(f.text("kind", choices=list(Kind))),
            party=f.name("party"),
            at=f.integer("at"),
            text=f.text("text", max_chars=MAX_TEXT),
            file=f.optional("file", lambda v: Fields({"file": v}, "review").text("file", max_chars=MAX_FILE)),
            line=f.optional("line", lambda v: Fields({"line": v}, "review").integer("line", low=1, high=MAX_LINE)),
            report=digest("report"),
        )
        f.end()
        return found

    def encode(self) -> bytes:
        return wire.encode(self.to_json())

    @classmethod
    def parse(cls, data: bytes) -> Note:
        """Parse the exact bytes; ``parse(b).encode() == b``. Raises WireError and its leaves."""
        return cls.from_json(wire.decode(data, max_bytes=MAX_NOTE_BYTES))

    def sign(self, key: SigningKey) -> Envelope:
        return key.sign(NOTE_TYPE, self.encode())

    @classmethod
    def verify(cls, envelope: Envelope, proposal: Proposal) -> Note:
        """A party's note about this proposal.

        Args:
            envelope: untrusted.
            proposal: whose parties' keys the caller relies on.

        Raises:
            NotAParty, BadSignature, WireError. BadField: it is about another proposal, or about other code.
        """
        found = cls.parse(envelope.expect(NOTE_TYPE))
        proposal.party(found.party).signing_key.verify(envelope, NOTE_TYPE)
        if found.proposal != proposal.digest:
            raise BadField("review.proposal is another proposal")
        if found.bundle != bundle_of(proposal):
            raise BadField("review.bundle is not the code that this proposal runs")
        return found
