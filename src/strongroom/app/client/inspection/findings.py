"""What a static report is made of: rules, findings, and the report with its digest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

from strongroom import wire
from strongroom.wire import JSON, Fields

FORMAT = "strongroom.inspection.v1"
VERSION = 1  # of the rules: two reports of one bundle with one version and one bandit are the same bytes
MAX_FINDINGS = 2000
MAX_EACH = 40  # of one rule in one file; of the rest it is said how many they are
MAX_WHAT = 160  # characters
MAX_REPORT_BYTES = 8 << 20

AID = (
    "This report is an aid to somebody who reads the code. It proves nothing: code can do all of this without a rule "
    "noticing, and a finding may be harmless. What holds is the sandbox, the output rules and the budget."
)


class Severity(IntEnum):
    """How much a finding should worry a reviewer."""

    LOW = 1
    MEDIUM = 2
    HIGH = 3


@dataclass(frozen=True, slots=True)
class Rule:
    """Something to look for: why it matters, and what to ask the proposer."""

    severity: Severity
    why: str
    ask: str


HIGH, MEDIUM, LOW = Severity.HIGH, Severity.MEDIUM, Severity.LOW

RULES: dict[str, Rule] = {
    "environment": Rule(MEDIUM, "what the machine says is no input", "What is it needed for?"),
    "exit": Rule(HIGH, "an exit status and an early end are outputs too", "Return instead."),
    "files.read": Rule(MEDIUM, "inputs are handed over; other files are none", "Which file, and why is it no input?"),
    "files.write": Rule(HIGH, "results leave as returned outputs and in no other way", "Return it as an output."),
    "imports.shadow": Rule(HIGH, "a file of the bundle takes the place of a library", "Rename the file."),
    "imports.star": Rule(MEDIUM, "it hides which names come from where", "Import by name."),
    "imports.unknown": Rule(
        HIGH,
        "it is not in Python, the bundle, the lock, nor known of the enclave",
        "Where does it come from? Add it to the lock.",
    ),
    "messages": Rule(LOW, "messages leave where the log is an output", "Is anything of a record printed?"),
    "native": Rule(HIGH, "it leaves Python: nothing here can be said about what it does", "Do it without native code."),
    "network": Rule(HIGH, "there is no network in a run; somebody wants one", "Remove it."),
    "network.address": Rule(MEDIUM, "there is no network in a run", "What is the address for?"),
    "output.extremes": Rule(LOW, "a smallest or largest value is one record's value", "Would a quantile do?"),
    "output.groups": Rule(
        LOW, "how many groups there are depends on the records", "Could the groups be listed in the code?"
    ),
    "output.names": Rule(HIGH, "names of outputs chosen by data carry data past the rules", "Write the names out."),
    "output.rows": Rule(HIGH, "single rows or values go into an output", "Why not an aggregate?"),
    "output.size": Rule(MEDIUM, "the size of an output depends on the records", "Give it a fixed shape."),
    "output.text": Rule(MEDIUM, "a text made of data can hold anything", "Return the number itself."),
    "patch": Rule(HIGH, "it changes what a library does for all code after it", "Call your own function instead."),
    "pickle": Rule(HIGH, "reading one executes what it says", "Use JSON, Arrow or safetensors."),
    "process": Rule(HIGH, "other programs are no part of what was reviewed", "Remove it."),
    "randomness": Rule(
        MEDIUM, "without a fixed seed nobody can make the result again", "Use a generator with a fixed seed."
    ),
    "reflection": Rule(HIGH, "what it calls is not written here", "Write out what is called."),
    "rows": Rule(LOW, "it looks at single rows", "Does anything of it reach an output?"),
    "string.encoded": Rule(HIGH, "a long text that nobody can read may hold data or code", "What is it, and what made it?"),
    "text.coding": Rule(HIGH, "the text is read in another way than it is shown", "Remove the declaration."),
    "text.far_right": Rule(HIGH, "code stands where nobody looks, far to the right", "Break the line."),
    "text.homoglyph": Rule(HIGH, "a name looks like another name and is none", "Write names in one alphabet."),
    "text.invisible": Rule(HIGH, "characters that are not shown, or turn the direction of writing", "Remove them."),
    "text.line_end": Rule(HIGH, "a hidden line end: what looks like a comment may be code", "Use plain line ends."),
    "text.long_line": Rule(MEDIUM, "too long to be read", "Break the line."),
    "text.name": Rule(LOW, "a name in other letters than ASCII", "Would ASCII do?"),
    "text.statements": Rule(LOW, "several statements on one line are read as one", "One statement a line."),
    "threads": Rule(MEDIUM, "what happens at once cannot be read in order", "Is it needed?"),
    "time": Rule(MEDIUM, "a result that depends on the clock cannot be made again, and can carry data", "Remove it."),
    "unread": Rule(HIGH, "this was not looked at", "Ask for code that can be read."),
    "unread.bandit": Rule(MEDIUM, "bandit did not look at it", "Ask for less code, or run bandit by hand."),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to look at.

    Attributes:
        file: a file of the bundle, by its path.
        line: from 1; 0 for the whole file.
        rule: its id: one of ``RULES``, or ``bandit.B…``.
        severity: how much it should worry.
        what: one line, what and why; text of the code is shortened and shown by its ``repr``.
        ask: one line, what to ask the proposer.
    """

    file: str
    line: int
    rule: str
    severity: Severity
    what: str
    ask: str

    @classmethod
    def of(cls, rule: str, file: str, line: int, what: str) -> Finding:
        """A finding of one of our own rules."""
        said = RULES[rule]
        return cls(file, line, rule, said.severity, f"{one_line(what)}: {said.why}", said.ask)

    @property
    def place(self) -> tuple[str, int, str, str]:
        return (self.file, self.line, self.rule, self.what)

    def to_json(self) -> dict[str, JSON]:
        return {
            "ask": self.ask,
            "file": self.file,
            "line": self.line,
            "rule": self.rule,
            "severity": self.severity.name.lower(),
            "what": self.what,
        }

    @classmethod
    def from_json(cls, value: object) -> Finding:
        f = Fields(value, "finding")
        severity = f.text("severity", choices=[s.name.lower() for s in Severity])
        found = cls(
            file=f.text("file"),
            line=f.integer("line"),
            rule=f.text("rule"),
            severity=Severity[severity.upper()],
            what=f.text("what"),
            ask=f.text("ask"),
        )
        f.end()
        return found


def one_line(text: str) -> str:
    """Text of a stranger's on one short line, with what cannot be shown spelled out."""
    shown = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
    return shown if len(shown) <= MAX_WHAT else shown[: MAX_WHAT - 1] + "…"


@dataclass(frozen=True)
class Report:
    """The static report on a bundle.

    Attributes:
        bundle: the bundle's digest.
        bandit: bandit's version.
        files: how many files were looked at.
        findings: sorted by file, line and rule; never more than ``MAX_FINDINGS``.
    """

    bundle: str
    bandit: str
    files: int
    findings: tuple[Finding, ...]

    @classmethod
    def make(cls, bundle: str, bandit: str, files: int, found: Iterable[Finding]) -> Report:
        """Sort, drop what is there twice, and bound: of many alike in one file the first ones are listed."""
        ordered = sorted(set(found), key=lambda f: f.place)
        counted = Counter((f.file, f.rule) for f in ordered)
        listed: list[Finding] = []
        so_far: Counter[tuple[str, str]] = Counter()
        for finding in ordered:
            key = (finding.file, finding.rule)
            so_far[key] += 1
            if so_far[key] < MAX_EACH or counted[key] == so_far[key] == MAX_EACH:
                listed.append(finding)
            elif so_far[key] == MAX_EACH:
                more = f"{counted[key] - MAX_EACH + 1} more like this in the file"
                listed.append(Finding(finding.file, finding.line, finding.rule, finding.severity, more, finding.ask))
        if len(listed) > MAX_FINDINGS:  # the worst are kept
            kept = sorted(listed, key=lambda f: (-f.severity, f.place))[: MAX_FINDINGS - 1]
            rest = Finding.of("unread", "", 0, f"{len(listed) - len(kept)} findings are not listed")
            listed = sorted([rest, *kept], key=lambda f: f.place)
        return cls(bundle, bandit, files, tuple(listed))

    def count(self, severity: Severity) -> int:
        return sum(f.severity is severity for f in self.findings)

    def to_json(self) -> dict[str, JSON]:
        return {
            "aid": AID,
            "bandit": self.bandit,
            "bundle": self.bundle,
            "files": self.files,
            "findings": [f.to_json() for f in self.findings],
            "format": FORMAT,
            "version": VERSION,
        }

    def encode(self) -> bytes:
        return wire.encode(self.to_json())

    @classmethod
    def parse(cls, data: bytes) -> Report:
        """Raises WireError and its leaves."""
        f = Fields(wire.decode(data, max_bytes=MAX_REPORT_BYTES), "inspection")
        f.literal("format", FORMAT)
        f.literal("aid", AID)
        f.integer("version", low=VERSION, high=VERSION)
        found = cls(
            f.digest("bundle"), f.text("bandit", max_chars=64), f.integer("files"),
            f.items("findings", Finding.from_json, high=MAX_FINDINGS),
        )  # fmt: skip
        f.end()
        return found

    @cached_property
    def digest(self) -> str:
        return wire.digest(self.encode())
