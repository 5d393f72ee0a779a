"""A proposal in words, and what a counter-proposal changes in words: for the people who sign.

Everything that a proposal says is in the prose, and the prose says nothing else; a test holds each member of the format
against it. Clauses have names, so that a change can be shown clause by clause.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from strongroom import wire
from strongroom.attest.simulated import LABEL
from strongroom.budget.charge import Charge, Event
from strongroom.code import CodeBundle
from strongroom.contract import Output, Proposal
from strongroom.drawing import GRAIN, MAX_TOTAL, Price, agreed
from strongroom.errors import StrongroomError
from strongroom.observation import EVERYTHING, Observed
from strongroom.policy import GUEST, MAX_DECIMALS, AnyParty, OutputRule, Policy, Serving
from strongroom.schema import ANY_SCHEMA, Array, Boolean, Null, Numeric, Object, OrNull, Table, Tensors, Text


@dataclass(frozen=True, slots=True)
class Clause:
    """One thing that a proposal says: what it is about, and the sentence."""

    about: str
    text: str


def _spelled(text: str) -> str:
    """What cannot be printed is spelled out as in JSON: a screen would obey it instead of showing it."""
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def _shown(text: str) -> str:
    """Text that somebody wrote, on one line; two different texts are never shown alike."""
    return _spelled(text.replace("\\", "\\\\"))


def _time(at: int) -> str:
    try:
        when = datetime.fromtimestamp(at, UTC)
    except (OverflowError, ValueError, OSError):
        return f"second {at}"
    return f"{when.day} {when:%B %Y, %H:%M:%S} UTC"


def _bytes(count: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size and count % size == 0:
            return f"{count // size:,} {unit}"
    return f"{count:,} bytes"


def _duration(seconds: int) -> str:
    return f"{seconds // 60} minutes" if seconds % 60 == 0 and seconds >= 120 else f"{seconds} seconds"


def _people(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


WHAT = {
    "log": "the program's messages",
    "picture": "a picture",
    "records": "a table with one row per record",
    "report": "aggregate figures",
    "success": "that the run completed",
    "table": "a table",
    "tensors": "arrays of numbers",
    "values": "figures",
}


def _output(output: Output) -> str:
    rule = output.rule
    group = f"groups under {rule.min_group} are suppressed" if rule.min_group > 1 else "small groups are shown"
    places = f"numbers keep {rule.decimals} decimal places" if rule.decimals < MAX_DECIMALS else "numbers are not rounded"
    who = f"readable by {_people(output.recipients)} alone"
    held = f"; {_form(rule)}" if rule.schema is not None else ""
    return f"{WHAT[output.kind]} of at most {_bytes(rule.max_bytes)}, {who}; {group}; {places}{held}{_review(rule)}"


def _review(rule: OutputRule) -> str:
    if rule.release is None:
        return ""
    by = _people(tuple(sorted(rule.reviewers)))
    each = "each of them passes" if len(rule.reviewers) > 1 else "that party passes"
    why = "and the recipients are told why, where one refuses" if rule.release.reasons else "and nobody is told why not"
    return f"; {by} read it first: it leaves when {each} it, {why}"


def _form(rule: OutputRule) -> str:
    return "of the form that the contract says" if rule.schema is ANY_SCHEMA else f"of the form: {_schema(rule.schema)}"


def _schema(schema: object) -> str:  # noqa: PLR0911 - one form of schema, one line
    """A schema in words; two different ones are never shown alike."""
    match schema:
        case OrNull():
            return f"{_schema(schema.inner)} or nothing"
        case Null():
            return "nothing"
        case Boolean():
            return "yes or no"
        case Numeric():
            return f"a {'whole ' if schema.whole else ''}number from {schema.low:,} to {schema.high:,}"
        case Text():
            return f"one of {_texts(schema.options)}"
        case Array():
            return f"at most {schema.most:,} times ({_schema(schema.items)})"
        case Object():
            return f"[{_members(schema.properties)}]"
        case Table():
            count = "" if schema.count is None else f", {_texts([schema.count])} counts the records of a row"
            key = f"a row for each {_texts(schema.key)}{count}"
            return f"at most {schema.rows:,} rows of [{_members(schema.columns)}], {key}"
        case Tensors():
            tensors = ((name, f"{t.dtype} {[*t.shape]}") for name, t in schema.tensors.items())
            return f"[{'; '.join(f'{_texts([name])}: {what}' for name, what in tensors)}]"
    raise AssertionError(schema)


def _texts(texts: Iterable[str]) -> str:
    return ", ".join(_spelled(json.dumps(text, ensure_ascii=False)) for text in sorted(texts))


def _members(members: Mapping[str, object]) -> str:
    return "; ".join(f"{_texts([name])}: {_schema(item)}" for name, item in members.items())


def policy_clauses(policy: Policy) -> Iterator[Clause]:
    """Everything that a policy says, in a fixed order: a contract's, or an owner's terms."""
    yield Clause("policy: uses of the data", ", ".join(sorted(policy.uses)))
    network = "none" if not policy.egress else ", ".join(sorted(policy.egress))
    yield Clause("policy: network", f"{network}; in a guest, what its image uses" if GUEST in policy.uses else network)
    for kind, rule in policy.outputs.items():
        who = "any party" if isinstance(rule.recipients, AnyParty) else _people(tuple(sorted(rule.recipients)))
        yield Clause(
            f"policy: {kind} output",
            f"at most {_bytes(rule.max_bytes)} to {who}, groups from {rule.min_group}, {rule.decimals} decimal places"
            + (f"; {_form(rule)}" if rule.schema is not None else "")
            + _review(rule),
        )
    if policy.serve is None:
        yield from _observed(policy.observation)
    if policy.serve is not None:
        yield from _served(policy.serve)


def _observed(told: Observed) -> Iterator[Clause]:
    if told == EVERYTHING:
        return
    if told.duration_s is None:
        yield Clause("policy: time of a run", "is told to nobody: every run takes its longest time")
    elif told.duration_s > 1:
        yield Clause("policy: time of a run", f"is told in multiples of {_duration(told.duration_s)}")
    how = "step and code" if told.failure == "step" else "that it failed; how, to the owners of its assets alone"
    yield Clause("policy: a failure is told by", how)


# Where receipts are that are kept for no time: without them no client could verify its answer.
ON_NO_DISK = "on no disk: in memory, for some minutes"

# What the operator of a served model sees, by the policy's word.
SEEN = {
    "none": "nothing",
    "aggregate": "counts and latencies",
    "failures": "counts, latencies and the shape of failures, without values",
    "full": "everything: prompts and answers too",
}


def _served(serve: Serving) -> Iterator[Clause]:
    yield Clause("policy: may be asked", _people(tuple(sorted(serve.routes))))
    yield Clause("policy: keys are renewed", f"at least every {_duration(serve.lease_s)}")
    yield Clause(
        "policy: bodies", "may come in the clear over TLS" if serve.plain_bodies else "are encrypted to the enclave"
    )
    padding = f"to powers of two from {serve.padding:,} bytes" if serve.padding else "none: lengths can be seen"
    yield Clause("policy: padding", padding)
    yield Clause("policy: the operator sees", SEEN[serve.observability])
    yield Clause("policy: receipts are kept", _duration(serve.retention_s) if serve.retention_s else ON_NO_DISK)
    yield Clause("policy: guards of requests", ", ".join(sorted(serve.input_guards)) or "none")
    yield Clause("policy: guards of answers", ", ".join(sorted(serve.output_guards)) or "none")


def clauses(proposal: Proposal) -> list[Clause]:
    """Everything that a proposal says, in a fixed order. No two clauses have one name, whatever a proposer calls things."""
    return [
        *_who(proposal),
        *_what(proposal),
        *policy_clauses(proposal.policy),
        *_limits(proposal),
        *_enclave(proposal),
        *_when(proposal),
    ]


def _who(p: Proposal) -> Iterator[Clause]:
    yield Clause("title", _shown(p.title))
    yield Clause("proposed by", p.proposer)
    yield Clause("identity", p.digest)
    if p.supersedes:
        yield Clause("takes the place of", p.supersedes)
    for party in p.parties:
        yield Clause(
            f"party {party.name}", f"keys {party.fingerprint}, broker at {_shown(party.broker_url) or 'no address'}"
        )


def _sources(p: Proposal) -> Iterator[Clause]:
    """What a model may draw from each source, and for what."""
    try:
        found = agreed(p.program.parameters)
    except StrongroomError:  # no key is released for what cannot be read
        return
    for role, one in sorted(found.items()):
        yield Clause(f"drawn from {_shown(role)}", f"by {one.weights}: {drawn(one.price, one.token, one.total)}")


def drawn(price: Price, token: int, total: int) -> str:
    """A price and a budget, in words."""
    limit = "any length" if total == MAX_TOTAL else f"{total / GRAIN:,.2f} tokens"
    share = f"at most {100 * token / GRAIN:.2f} % of a token and {limit} of an answer"
    return f"{price.amount:,} {price.unit} for a thousand tokens drawn; {share}"


def _what(p: Proposal) -> Iterator[Clause]:
    yield Clause("program", f"{p.program.name}, which makes the use {p.program.use!r}, digest {p.program.digest}")
    if isinstance(progress := p.program.parameters.get("progress"), Mapping):  # of submitted code
        yield Clause("how far it is", _heard(progress))
    for name, value in sorted(p.program.parameters.items()):
        yield Clause(f"parameter {_shown(name)}", _spelled(json.dumps(value, ensure_ascii=False, sort_keys=True)))
    for asset in p.assets:
        yield Clause(f"asset {asset.role}", f"of {asset.owner}, manifest {asset.manifest}")
    yield from _sources(p)
    for output in p.outputs:
        yield Clause(f"output {output.name}", _output(output))
    if p.for_guests:
        yield Clause(
            "leaves", "whatever the guest's image lets leave: no rule of ours holds in a guest, and no receipt comes"
        )
        return
    if p.standing:
        yield Clause("leaves", "answers to those who ask, and nothing else")
        return
    yield Clause(
        "nothing else leaves", "no other output, no messages, no network" if _no_log(p) else "but the outputs above"
    )


def _heard(progress: Mapping[str, object]) -> str:
    said = json.dumps([progress.get("parties"), progress.get("steps")], ensure_ascii=False)
    return _shown(f"is told to parties, in parts: {said}; when it is, the code chooses by what it reads")


def _limits(p: Proposal) -> Iterator[Clause]:
    yield Clause("runs", f"at most {p.limits.runs}")
    held = ", which nothing holds a guest to" if p.for_guests else ""
    about = "time that a room is open" if p.standing else "time for a run"
    yield Clause(about, f"at most {_duration(p.limits.seconds)}{held}")
    yield Clause("memory for a run", f"at most {_bytes(p.limits.memory_bytes)}{held}")
    for number, payment in enumerate(p.payments, 1):
        amount = f"{payment.amount // 100:,}.{payment.amount % 100:02} {payment.currency}"
        yield Clause(f"payment {number}", f"{payment.payer} owes {payment.payee} {amount} for each completed run")
    if p.trial:
        yield Clause("tried on mocks", f"by {p.proposer}, who claims the outcome {p.trial}")
    for charge in p.charges:
        yield Clause(f"budget of {charge.role}", f"each run spends {_charge(charge)}")


def _charge(charge: Charge) -> str:
    counts = charge.counts
    queries = "1 query" if counts.queries == 1 else f"{counts.queries:,} queries"
    said = [queries, f"at most {counts.rows:,} rows", f"at most {_bytes(counts.bytes_out)}"]
    events = [_event(e) for e in charge.events] or ["no differential privacy"]
    return "; ".join(["1 run", *said, *events])


def _event(event: Event) -> str:
    times = f"{event.count:,} times " if event.count > 1 else ""
    if event.epsilon:
        return f"{times}epsilon {event.epsilon} with delta {event.delta}"
    return f"{times}{event.kind} noise of {event.noise_multiplier} times the sensitivity"


def _enclave(p: Proposal) -> Iterator[Clause]:
    yield Clause("platforms", " or ".join(LABEL if n == "simulated" else f"platform: {n}" for n in p.enclave.platforms))
    for number, measurement in enumerate(p.enclave.measurements, 1):
        registers = ", ".join(f"{name} {value}" for name, value in measurement.registers.items())
        yield Clause(f"measurement {number}", f"on {measurement.platform}: {measurement.digest} ({registers})")
    isolated = "isolated from the machine" if p.enclave.sandbox == "isolated" else "as an ordinary process (not isolated)"
    yield Clause("the program runs", "in a guest that is not ours, under no sandbox of ours" if p.for_guests else isolated)
    if p.enclave.walls:
        yield Clause("only behind", ", ".join(p.enclave.walls))


def _when(p: Proposal) -> Iterator[Clause]:
    yield Clause("written", _time(p.created_at))
    yield Clause("in force", f"from {_time(p.not_before)} until {_time(p.not_after)}")
    yield Clause("serial", p.nonce)


def _no_log(proposal: Proposal) -> bool:
    return all(output.kind != "log" for output in proposal.outputs)


@dataclass(frozen=True, slots=True)
class Difference:
    """A clause that two proposals do not share: ``None`` where one has no such clause."""

    about: str
    old: str | None
    new: str | None

    def __str__(self) -> str:
        if self.old is None:
            return f"+ {self.about}: {self.new}"
        if self.new is None:
            return f"- {self.about}: {self.old}"
        return f"~ {self.about}: {self.old}  ->  {self.new}"


def code_clauses(bundle: CodeBundle) -> list[Clause]:
    """What submitted code is, below the proposal that names it: its files and packages. Reviewers read the text itself."""
    found = [Clause("code", f"{bundle.digest}, {_count(len(bundle.files), 'file')}")]
    for name, text in bundle.files.items():
        found.append(Clause(f"code file {name}", f"{_count(len(text.splitlines()), 'line')}, {wire.digest(text.encode())}"))
    if bundle.lock is None:
        return [*found, Clause("packages", "the enclave's own, and no others")]
    for pin in bundle.lock.pins:
        where = f", where {pin.marker}" if pin.marker else ""
        found.append(Clause(f"package {pin.name}", f"{pin.version}, {_count(len(pin.hashes), 'file')} by hash{where}"))
    return found


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


_FORM = frozenset({"identity", "serial", "written"})


def differences(old: Proposal, new: Proposal) -> list[Difference]:
    """What changes from one proposal to another, clause by clause; what no two proposals share is left out."""
    before = {c.about: c.text for c in clauses(old)}
    after = {c.about: c.text for c in clauses(new)}
    order = [*before, *(a for a in after if a not in before)]
    return [
        Difference(about, before.get(about), after.get(about))
        for about in order
        if about not in _FORM and before.get(about) != after.get(about)
    ]
