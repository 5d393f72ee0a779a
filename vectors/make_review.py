"""Writes ``vectors/review`` and ``vectors/notice``: notes and notices that are heard, and those that are not.

Every key follows from its name, so that the files are the same each time: ``python vectors/make_review.py``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from strongroom import wire  # noqa: E402 - the world is found first
from strongroom.app.notify import NOTICE_TYPE, Notice  # noqa: E402
from strongroom.contract import ProgramRef, Proposal, Withdrawal  # noqa: E402
from strongroom.party import SigningKey  # noqa: E402
from strongroom.review import MAX_TEXT, NOTE_TYPE, Kind, Note  # noqa: E402
from strongroom.wire import Envelope  # noqa: E402
from world import NOW, World, broker_key, keys_of, seed  # noqa: E402

LAB, HOSPITAL, STRANGER = keys_of("lab"), keys_of("hospital"), keys_of("stranger")
BUNDLE, OTHER_BUNDLE, REPORT = (wire.digest(what) for what in (b"the code", b"other code", b"the report"))
WORLD = World()
PLAIN = WORLD.proposal()


def running(bundle: str, **changes: Any) -> Proposal:
    """A proposal that runs a code bundle, as far as a note looks at it."""
    parameters = {
        "arguments": {},
        "bundle": bundle,
        "entry": "analysis:summarise",
        "environment": None,
        "inputs": {"data": "pandas"},
        "outputs": {"report": "values"},
    }
    return replace(PLAIN, program=ProgramRef("code", PLAIN.program.digest, PLAIN.program.use, parameters), **changes)


CODE = running(BUNDLE)
COMMENT = Note(CODE.digest, BUNDLE, Kind.COMMENT, "hospital", NOW, "Why the fifth decimal?", file="analysis.py", line=12)
ASK = Note(CODE.digest, BUNDLE, Kind.ASK, "hospital", NOW, "Please bin ages by ten years,\nand say what you do with none.")
REVIEWED = Note(CODE.digest, BUNDLE, Kind.REVIEWED, "hospital", NOW, "", report=REPORT)
ABOUT_PLAIN = Note(PLAIN.digest, None, Kind.COMMENT, "lab", NOW, "No code here, and still a word.")

Cases = dict[str, dict[str, Any]]


def _altered(note: Note = COMMENT, key: SigningKey = HOSPITAL.signing, **members: Any) -> Envelope:
    """A note with other members, signed all the same."""
    return key.sign(NOTE_TYPE, wire.encode({**note.to_json(), **members}))


def _who(say: Callable[..., None]) -> None:
    good = COMMENT.sign(HOSPITAL.signing)
    say("by-another-party", "signed by another party", "wire.bad_signature", COMMENT.sign(LAB.signing))
    say("by-its-broker", "signed by the party's broker", "wire.bad_signature", COMMENT.sign(broker_key("hospital")))
    stranger = replace(COMMENT, party="stranger").sign(STRANGER.signing)
    say("by-a-stranger", "of somebody who is no party", "contract.not_a_party", stranger)
    say("unsigned", "not signed", "wire.bad_signature", replace(good, signatures=()))
    both = (*good.signatures, LAB.signing.signature(NOTE_TYPE, good.payload))
    say("by-two", "signed by two", "wire.bad_signature", replace(good, signatures=both))
    later = replace(COMMENT, text="Approved.").encode()
    say("text-altered", "its text was changed after it was signed", "wire.bad_signature", replace(good, payload=later))
    as_withdrawal = HOSPITAL.signing.sign(Withdrawal(CODE.digest, "hospital", NOW, "").sign(LAB.signing).payload_type, b"{}")
    say("as-another-type", "under the type of another document", "wire.bad_envelope", as_withdrawal)


def _about(say: Callable[..., None]) -> None:
    good = COMMENT.sign(HOSPITAL.signing)
    bad = "wire.bad_field"
    say("of-another-proposal", "about another proposal", bad, good, running(BUNDLE, nonce=seed("another", 16).hex()))
    moved = replace(COMMENT, bundle=OTHER_BUNDLE).sign(HOSPITAL.signing)
    say("of-other-code", "about other code than the proposal runs", bad, moved)
    say("of-no-code", "about no code, where the proposal runs some", bad, _altered(ASK, bundle=None))
    coded = replace(ABOUT_PLAIN, bundle=BUNDLE).sign(LAB.signing)
    say("code-of-none", "about code, where the proposal runs none", bad, coded, PLAIN)
    say("file-of-none", "about a file, where there is no code", bad, _altered(bundle=None))


def _form(say: Callable[..., None]) -> None:
    bad = "wire.bad_field"
    say("no-line", "a file without a line", bad, _altered(line=None))
    say("no-file", "a line without a file", bad, _altered(file=None))
    say("line-0", "a line before the first", bad, _altered(line=0))
    say("no-text", "a comment that says nothing", bad, _altered(text=" \n"))
    say("long-text", "a character too many", bad, _altered(text="x" * (MAX_TEXT + 1)))
    say("escape", "a text that a terminal would obey", bad, _altered(text="fine\x1b[2J"))
    say("turned", "a text that turns the direction of writing", bad, _altered(text="a \u202e b"))
    say("file-escape", "a file's name that a terminal would obey", bad, _altered(file="a\x1b.py"))
    say("report-in-comment", "a report, in a comment", bad, _altered(report=REPORT))
    say("line-in-reviewed", "a line, in what was shown", bad, _altered(REVIEWED, file="analysis.py", line=1))
    say("another-kind", "a kind that nobody knows", bad, _altered(kind="approve"))
    say("unknown-member", "a member of another version", bad, _altered(more=1))
    short = {name: value for name, value in COMMENT.to_json().items() if name != "report"}
    say("missing-member", "a member that is not there", bad, HOSPITAL.signing.sign(NOTE_TYPE, wire.encode(short)))
    spaced = json.dumps(COMMENT.to_json(), sort_keys=True).encode()
    say("spaced", "another spelling of the same", "wire.not_canonical", HOSPITAL.signing.sign(NOTE_TYPE, spaced))
    say("large", "more bytes than a note has", "wire.too_large", _altered(text="x" * (16 << 10)))


def all_cases() -> Cases:
    """Name to case."""
    cases: Cases = {}

    def say(name: str, description: str, expect: str, envelope: Envelope, of: Proposal = CODE) -> None:
        cases[name] = {
            "description": description,
            "envelope": envelope.to_json(),
            "expect": expect,
            "operation": "verify",
            "proposal": of.to_json(),
        }

    say("comment", "a comment on a line", "ok", COMMENT.sign(HOSPITAL.signing))
    say("ask", "a change that is asked for, on two lines", "ok", ASK.sign(HOSPITAL.signing))
    say("reviewed", "what was shown, without a word", "ok", REVIEWED.sign(HOSPITAL.signing))
    say("no-code", "a comment on a proposal that runs no code", "ok", ABOUT_PLAIN.sign(LAB.signing), PLAIN)
    _who(say)
    _about(say)
    _form(say)
    return cases


NOTICE = Notice("proposed", CODE.digest, "lab", "hospital", NOW, seed("a notice", 16).hex())
TEST = Notice("test", None, "", "hospital", NOW, seed("a test", 16).hex())


def notice_cases() -> Cases:
    """Name to case."""
    cases: Cases = {}

    def say(name: str, description: str, expect: str, envelope: Envelope) -> None:
        key = wire.b64(HOSPITAL.signing.public.raw)
        case = {"description": description, "envelope": envelope.to_json(), "expect": expect, "key": key}
        cases[name] = {**case, "operation": "verify"}

    def altered(**members: Any) -> Envelope:
        value = {**json.loads(NOTICE.encode()), **members}
        return HOSPITAL.signing.sign(NOTICE_TYPE, wire.encode(value))

    bad, good = "wire.bad_field", NOTICE.sign(HOSPITAL.signing)
    say("proposed", "a proposal waits", "ok", good)
    say("test", "a test", "ok", TEST.sign(HOSPITAL.signing))
    say("by-another", "signed by another party", "wire.bad_signature", NOTICE.sign(LAB.signing))
    say("unsigned", "not signed", "wire.bad_signature", replace(good, signatures=()))
    later = replace(NOTICE, by="stranger").encode()
    say("altered", "changed after it was signed", "wire.bad_signature", replace(good, payload=later))
    say("as-a-note", "under the type of another document", "wire.bad_envelope", COMMENT.sign(HOSPITAL.signing))
    say("another-event", "an event that nobody knows", bad, altered(event="paid"))
    say("no-proposal", "about nothing", bad, altered(proposal=None))
    say("test-of-something", "a test that names a proposal", bad, altered(event="test"))
    say("short-id", "an id cut short", bad, altered(id="ab"))
    say("by-a-sentence", "a party's name that is none", bad, altered(by="the lab <lab@example>"))
    say("with-a-title", "a title, which no notice has", bad, altered(title="Bias of recommendations"))
    return cases


def main() -> None:
    for name, cases in (("review", all_cases()), ("notice", notice_cases())):
        folder = HERE / name
        folder.mkdir(exist_ok=True)
        for stale in folder.glob("*.json"):
            stale.unlink()
        for case, said in cases.items():
            (folder / f"{case}.json").write_text(json.dumps(said, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
