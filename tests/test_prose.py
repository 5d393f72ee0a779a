"""A proposal in words: every member of the format stands in them, and no change goes unseen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom import wire
from strongroom.app.client.prose import ON_NO_DISK, Difference, clauses, differences
from strongroom.attest.evidence import Measurement
from strongroom.budget.charge import Event
from strongroom.contract import AssetRef, EnclaveTerms, Limits, Output, Payment, ProgramRef, Proposal
from strongroom.errors import StrongroomError
from strongroom.observation import Observed
from strongroom.policy import ANY_PARTY, MAX_DECIMALS, OUTPUT_KINDS, Airlock, OutputRule, Policy
from strongroom.schema import ANY_SCHEMA, from_json
from strongroom.serving import Serving
from world import DAY, EDITED, HOUR, MEASUREMENT, NOW, RULE, World, broker_key, card, charge, keys_of, seed

WORLD = World()
PLAIN = WORLD.proposal()
WIDE = OutputRule(ANY_PARTY, 1 << 30, 1, MAX_DECIMALS)
NAMES = {
    "log": "log",
    "picture": "calibration",
    "records": "predictions",
    "report": "report",
    "success": "success",
    "table": "table",
    "tensors": "tensors",
    "values": "values",
}
NUMBER = {"maximum": 9, "minimum": 1, "type": "number"}
COUNT = {"maximum": 9, "minimum": 1, "type": "integer"}
AREA = {"enum": ["b", "x"], "type": "string"}
SCHEMAS: dict[str, Any] = {
    "table": {"columns": {"k": AREA, "n": COUNT, "x": NUMBER}, "count": "n", "key": ["k"], "maxRows": 5, "type": "table"},
    "tensors": {"tensors": {"w": {"dtype": "F32", "shape": [2, 3]}}, "type": "tensors"},
    "values": {
        "properties": {
            "a": {"items": {**NUMBER, "nullable": True}, "maxItems": 3, "type": "array"},
            "b": {"type": "boolean"},
            "n": {"type": "null"},
            "t": AREA,
        },
        "type": "object",
    },
}


def wide(kind: str) -> OutputRule:
    return replace(WIDE, schema=ANY_SCHEMA) if kind in SCHEMAS else WIDE


def ruled(kind: str) -> OutputRule:
    form = from_json(SCHEMAS[kind]) if kind in SCHEMAS else None
    lock = Airlock(frozenset({"hospital", "notary"}), reasons=True) if kind == "picture" else None
    return OutputRule(frozenset({"hospital", "lab"}), 1 << 20, 10, 4, schema=form, release=lock)


POLICY_RULES = {kind: wide(kind) for kind in OUTPUT_KINDS}

# Everything that a proposal can say is said here, and there is room to change it.
RICH = WORLD.proposal(
    supersedes=wire.digest(b"the first proposal"),
    parties=tuple(card(name) for name in ("auditor", "hospital", "lab", "notary")),
    program=ProgramRef(
        "evaluate", wire.digest(b"the program"), "evaluate", {"edges": ["2", "5"], "positive": None, "target": "benign"}
    ),
    outputs=tuple(Output(name, kind, ruled(kind)) for kind, name in sorted(NAMES.items(), key=lambda item: item[1])),
    enclave=EnclaveTerms(("simulated",), tuple(sorted((MEASUREMENT, EDITED), key=Measurement.encode)), "isolated"),
    policy=Policy(
        frozenset({"audit", "evaluate", "train"}), {kind: wide(kind) for kind in OUTPUT_KINDS}, observed=Observed(60, "step")
    ),
    limits=Limits(3, 300, 1 << 30),
    payments=(Payment("lab", "hospital", 25_000, "CHF"), Payment("lab", "hospital", 30_000, "EUR")),
)
# Beside charged events there is no log.
CHARGED = replace(
    RICH,
    outputs=tuple(o for o in RICH.outputs if o.kind != "log"),
    charges=(
        charge(
            Event("gaussian", 2, noise_multiplier="12.5"),
            Event("laplace", 3, noise_multiplier="8"),
            Event("epsilon-delta", 1, epsilon="0.5", delta="0.001"),
            queries=6,
            rows=40,
            bytes_out=7 << 20,
        ),
    ),
)


def leaves(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every value inside a JSON value that holds no other, and the way to it."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if members is None:
        yield at, value
        return
    for key, inner in members:
        yield from leaves(inner, (*at, key))


def others(path: tuple[Any, ...], value: Any) -> list[Any]:
    """What else could stand there."""
    name = path[-1]
    if name in {"signing_key", "broker_key"}:
        return [wire.b64(broker_key("stranger").public.raw)]
    if name == "encryption_key":
        return [wire.b64(keys_of("stranger").decryption.public.raw)]
    if isinstance(value, bool):
        return [not value]
    if name == "schema":
        return [*SCHEMAS.values()]
    if path[0] == "outputs" and name == "name":
        return ["a", f"{value}x"]
    if isinstance(value, int):
        return [value + 1, value - 1]
    if isinstance(value, str) and value.startswith("sha256:"):
        return [wire.digest(value.encode()), "sha256:" + "0" * 64, "sha256:" + "f" * 64]
    # names, words, and lists of them; what does not fit is refused in parsing
    words = [
        "a",
        "audit",
        "auditor",
        "hospital",
        "lab",
        "notary",
        "process",
        "records",
        "report",
        "zz",
        "AAA",
        "ZZZ",
        "model",
        "gaussian",
        "laplace",
        "0.25",
        "ab" * 16,
        "https://elsewhere.example",
        "F64",
        "boolean",
        "integer",
        "null",
        "number",
        "withheld",
        "x",
    ]
    return [*words, None, ["auditor"], ["hospital", "lab"]]


def changed(path: tuple[Any, ...], other: Any, of: Proposal = RICH) -> Proposal | None:
    """The proposal with one value changed; ``None`` where that is none."""
    value = json.loads(of.encode())
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = other
    try:
        return Proposal.parse(wire.encode(value))
    except StrongroomError:
        return None


LEAVES = dict(leaves(json.loads(RICH.encode())))
# These cannot change alone: a party's name stands elsewhere too, and a platform beside its measurements.
COUPLED = {("enclave", "platforms", 0)} | {p for p in LEAVES if p[0] == "parties" and p[-1] == "name"}
COUPLED |= {p for p in LEAVES if p[0] == "enclave" and p[-1] == "platform"}
COUPLED |= {("policy", "uses", 1)}  # the program's own use
# What a schema is made of changes with what it says; a kind with its schema, a reviewer's recipients with the reviewer.
COUPLED |= {p for p in LEAVES if "schema" in p and p[-1] == "type" and p[-2] not in ("x", "items", "b", "n")}
COUPLED |= {
    p for p in LEAVES if "schema" in p and ({"count", "key", "nullable"} & {*p[-2:]} or p[-3:] == ("columns", "n", "type"))
}
COUPLED |= {p for p in LEAVES if p[0] == "outputs" and p[-1] == "kind" and RICH.outputs[p[1]].kind in SCHEMAS}
COUPLED |= {("policy", "outputs", "picture", "recipients")}
# What no two proposals share, and what is not news: its serial number, and when it was written.
FORM = {("nonce",), ("created_at",)}


@pytest.mark.parametrize("path", [p for p in LEAVES if p not in COUPLED | FORM], ids=lambda p: ".".join(map(str, p)))
def test_a_change_of_any_member_is_shown(path: tuple[Any, ...]) -> None:
    made = 0
    for other in others(path, LEAVES[path]):
        new = changed(path, other) if other != LEAVES[path] else None
        if new is not None:
            made += 1
            assert differences(RICH, new), f"{path} became {other!r}, and nobody was told"
            assert differences(new, RICH)
    assert made, "the test knows no other value that could stand there"


CHARGES = {path: value for path, value in leaves(json.loads(CHARGED.encode())) if path[0] == "charges"}
# A charge is of one run, and an event of another kind has other members.
FIXED = {("charges", 0, "counts", "runs"), ("charges", 0, "events", 2, "event")}


@pytest.mark.parametrize("path", [p for p in CHARGES if p not in FIXED], ids=lambda p: ".".join(map(str, p)))
def test_a_change_of_any_charge_is_shown(path: tuple[Any, ...]) -> None:
    found = [changed(path, other, CHARGED) for other in others(path, CHARGES[path]) if other != CHARGES[path]]
    made = [new for new in found if new is not None]
    assert made
    assert all(differences(CHARGED, new) for new in made)


@pytest.mark.parametrize("path", sorted(FORM))
def test_what_no_two_proposals_share_is_in_the_words_but_no_difference(path: tuple[str]) -> None:
    new = changed(path, {"nonce": "ab" * 16, "created_at": NOW}[path[0]])
    assert new is not None
    assert clauses(new) != clauses(RICH)
    assert differences(RICH, new) == []


def test_changes_that_come_together_are_shown() -> None:
    tdx = Measurement("tdx", MEASUREMENT.registers)
    assert differences(PLAIN, replace(PLAIN, enclave=EnclaveTerms(("tdx",), (tdx,), "isolated")))
    trained = Policy(frozenset({"train"}), {"report": RULE})
    assert differences(PLAIN, replace(PLAIN, policy=trained, program=replace(PLAIN.program, use="train")))
    renamed = WORLD.proposal(parties=(card("hospital"), card("lab"), replace(card("auditor"), name="overseer")))
    assert differences(WORLD.proposal(parties=(card("auditor"), card("hospital"), card("lab"))), renamed)


SERVING = Serving(frozenset({"chat", "embeddings"}), 3600, input_guards=frozenset({"pii"}))
STANDING = WORLD.proposal(policy=Policy(frozenset({"evaluate"}), serve=SERVING), outputs=())
SERVED: list[tuple[dict[str, Any], str]] = [
    ({"routes": frozenset({"chat"})}, "chat"),
    ({"lease_s": 3601}, "at least every 3601 seconds"),
    ({"plain_bodies": True}, "may come in the clear over TLS"),
    ({"padding": 1024}, "to powers of two from 1,024 bytes"),
    ({"observability": "aggregate"}, "counts and latencies"),
    ({"observability": "failures"}, "counts, latencies and the shape of failures, without values"),
    ({"observability": "full"}, "everything: prompts and answers too"),
    ({"retention_s": 60}, "60 seconds"),
    ({"input_guards": frozenset()}, "none"),
    ({"output_guards": frozenset({"injection", "pii"})}, "injection, pii"),
]


@pytest.mark.parametrize(("change", "said"), SERVED, ids=[said for _, said in SERVED])
def test_a_change_of_what_may_be_asked_is_shown(change: dict[str, Any], said: str) -> None:
    new = replace(STANDING, policy=replace(STANDING.policy, serve=replace(SERVING, **change)))
    assert [d.new for d in differences(STANDING, new)] == [said]
    assert [d.old for d in differences(new, STANDING)] == [said]


def test_a_standing_contract_says_what_leaves_and_how_long_it_stands_open() -> None:
    said = {c.about: c.text for c in clauses(STANDING)}
    assert said["leaves"] == "answers to those who ask, and nothing else"
    assert said["time that a room is open"] == "at most 5 minutes"
    assert said["policy: the operator sees"] == "nothing"
    assert "nothing else leaves" not in said
    assert differences(PLAIN, STANDING)


def test_receipts_that_are_kept_on_no_disk_are_not_said_to_be_nowhere() -> None:
    short = replace(STANDING, policy=replace(STANDING.policy, serve=replace(SERVING, retention_s=0)))
    assert {c.about: c.text for c in clauses(short)}["policy: receipts are kept"] == ON_NO_DISK
    assert "memory" in ON_NO_DISK


NARROW = replace(WIDE, recipients=frozenset({"hospital", "lab"}))


def reformed(kind: str, changes: dict[str, Any]) -> tuple[Output, ...]:
    """The outputs, with members of one's schema changed, or taken away where they are ``None``."""
    form = {name: value for name, value in {**SCHEMAS[kind], **changes}.items() if value is not None}
    return tuple(replace(o, rule=replace(o.rule, schema=from_json(form))) if o.kind == kind else o for o in RICH.outputs)


REMOVED: dict[str, Any] = {
    "a party": {"parties": RICH.parties[1:]},
    "an output": {"outputs": RICH.outputs[1:]},
    "a measurement": {"enclave": replace(RICH.enclave, measurements=RICH.enclave.measurements[1:])},
    "a payment": {"payments": RICH.payments[1:]},
    "the other payment": {"payments": RICH.payments[:1]},
    "every payment": {"payments": ()},
    "a use": {"policy": replace(RICH.policy, uses=frozenset({"evaluate"}))},
    "a rule's recipients": {"policy": replace(RICH.policy, outputs={**RICH.policy.outputs, "log": NARROW})},
    "a parameter": {"program": replace(RICH.program, parameters={"target": "benign"})},
    "what it supersedes": {"supersedes": None},
    "a review": {"outputs": (replace(RICH.outputs[0], rule=replace(RICH.outputs[0].rule, release=None)), *RICH.outputs[1:])},
    "what is told of time": {"policy": replace(RICH.policy, observed=None)},
    **{f"a {what} of a schema": {"outputs": reformed(kind, change)} for what, kind, change in (
        ("count", "table", {"count": None}),
        ("key", "table", {"key": ["k", "n"], "count": None}),
        ("kind of a column", "table", {"columns": {**SCHEMAS["table"]["columns"], "x": {"type": "boolean"}}}),
        ("null", "values", {"properties": {**SCHEMAS["values"]["properties"], "a": {"type": "null"}}}),
    )},
}  # fmt: skip


@pytest.mark.parametrize("what", REMOVED)
def test_what_is_taken_away_or_added_is_shown(what: str) -> None:
    fewer = replace(RICH, **REMOVED[what])
    assert differences(RICH, fewer)
    assert differences(fewer, RICH)


# --- no clause hides another ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("proposal", [PLAIN, RICH], ids=["plain", "rich"])
def test_no_two_clauses_are_about_the_same(proposal: Proposal) -> None:
    abouts = [c.about for c in clauses(proposal)]
    assert len(set(abouts)) == len(abouts)


@pytest.mark.parametrize(
    "name", ["title", "identity", "serial", "written", "program", "runs", "platforms", "policy", "payment", "in", "party"]
)
def test_no_role_output_or_parameter_can_be_named_to_hide(name: str) -> None:
    # a role called "serial" would otherwise be left out of every difference
    asset = AssetRef(name, "lab", wire.digest(b"an asset"))
    proposal = WORLD.proposal(
        assets=(asset,),
        outputs=(Output(name, "report", RULE),),
        program=replace(PLAIN.program, parameters={name: 1}),
    )
    abouts = [c.about for c in clauses(proposal)]
    assert len(set(abouts)) == len(abouts)
    for change in (
        {"assets": (replace(asset, manifest=wire.digest(b"another")),)},
        {"outputs": (Output(name, "report", replace(RULE, decimals=3)),)},
        {"program": replace(PLAIN.program, parameters={name: 2})},
    ):
        assert differences(proposal, replace(proposal, **change))


def test_a_measurement_slipped_in_before_the_known_one_is_shown() -> None:
    known = replace(PLAIN, enclave=EnclaveTerms(("simulated",), (RICH.enclave.measurements[1],), "isolated"))
    more = replace(PLAIN, enclave=RICH.enclave)
    assert RICH.enclave.measurements[0].digest in " ".join(map(str, differences(known, more)))


def test_a_price_is_shown_to_the_last_cent() -> None:
    dear = replace(PLAIN, payments=(Payment("lab", "hospital", 2**53 - 1, "EUR"),))
    dearer = replace(PLAIN, payments=(Payment("lab", "hospital", 2**53 - 2, "EUR"),))
    assert "90,071,992,547,409.91 EUR" in str(clauses(dear))
    assert differences(dear, dearer)


@pytest.mark.parametrize("member", ["not_before", "not_after"])
def test_a_second_more_is_shown(member: str) -> None:
    assert differences(PLAIN, replace(PLAIN, **{member: getattr(PLAIN, member) + 1}))


@given(st.text(max_size=12), st.text(max_size=12))
def test_two_texts_are_never_shown_alike_and_all_on_one_line(one: str, other: str) -> None:
    first, second = (
        replace(
            PLAIN,
            parties=(card("hospital"), replace(card("lab"), broker_url=text)),
            program=replace(PLAIN.program, parameters={"target": text, text: 1}),
        )
        for text in (one, other)
    )
    try:
        first.encode(), second.encode()
    except StrongroomError:  # lone surrogates
        return
    assert bool(differences(first, second)) is (one != other)
    for clause in clauses(first):
        assert clause.about.isprintable()
        assert clause.text.isprintable()


@pytest.mark.parametrize("text", ["\x1b[2J", "\n  title", "\u202ecod", "\u2028", "\u200b"])
def test_what_a_screen_would_obey_is_spelled_out(text: str) -> None:
    proposal = replace(PLAIN, parties=(card("hospital"), replace(card("lab"), broker_url=f"http://{text}")))
    said = next(c.text for c in clauses(proposal) if c.about == "party lab")
    assert text not in said
    assert "\\" in said


# --- how it reads -----------------------------------------------------------------------------------------------------


def test_a_proposal_reads_as_a_person_would_say_it() -> None:
    said = {c.about: c.text for c in clauses(PLAIN)}
    assert said["title"] == "Accuracy of the lab's model on the hospital's records"
    assert said["proposed by"] == "lab"
    assert said["party hospital"] == f"keys {card('hospital').fingerprint}, broker at https://broker.hospital.example"
    assert said["output report"] == (
        "aggregate figures of at most 1 MiB, readable by hospital and lab alone; groups under 10 are suppressed; "
        "numbers keep 4 decimal places"
    )
    assert said["nothing else leaves"] == "no other output, no messages, no network"
    assert said["policy: network"] == "none"
    assert said["runs"] == "at most 1"
    assert said["time for a run"] == "at most 5 minutes"
    assert said["memory for a run"] == "at most 1 GiB"
    assert said["payment 1"] == "lab owes hospital 250.00 EUR for each completed run"
    assert said["platforms"] == "platform: simulated (no hardware protection)"
    assert said["the program runs"] == "isolated from the machine"
    assert said["in force"] == "from 21 September 2026, 13:13:20 UTC until 22 September 2026, 14:13:20 UTC"


def test_what_protects_nothing_is_said_so() -> None:
    said = {c.about: c.text for c in clauses(replace(PLAIN, enclave=replace(PLAIN.enclave, sandbox="process")))}
    assert said["the program runs"] == "as an ordinary process (not isolated)"
    assert "log" in {c.about.split()[-1] for c in clauses(RICH)}
    assert next(c.text for c in clauses(RICH) if c.about == "nothing else leaves") == "but the outputs above"


def test_sizes_and_times_are_said_in_whole_units_or_exactly() -> None:
    for memory, said in ((1 << 20, "1 MiB"), ((1 << 20) + 1024, "1,025 KiB"), ((1 << 20) + 1, "1,048,577 bytes")):
        found = clauses(replace(PLAIN, limits=Limits(1, 61, memory)))
        assert f"at most {said}" in [c.text for c in found]
        assert "at most 61 seconds" in [c.text for c in found]
    endless = replace(PLAIN, not_after=wire.MAX_INT)
    assert "until second 9007199254740991" in str(clauses(endless))


def test_a_counter_reads_as_what_changes() -> None:
    counter = replace(
        PLAIN,
        proposer="hospital",
        supersedes=PLAIN.digest,
        nonce=seed("counter", 16).hex(),
        created_at=NOW,
        not_after=NOW + DAY - HOUR,
        outputs=(Output("report", "report", replace(RULE, min_group=20)),),
        payments=(),
    )
    report = (
        "aggregate figures of at most 1 MiB, readable by hospital and lab alone; groups under {} are suppressed; "
        "numbers keep 4 decimal places"
    )
    force = "from 21 September 2026, 13:13:20 UTC until 22 September 2026, {}:13:20 UTC"
    assert [str(d) for d in differences(PLAIN, counter)] == [
        "~ proposed by: lab  ->  hospital",
        f"~ output report: {report.format(10)}  ->  {report.format(20)}",
        "- payment 1: lab owes hospital 250.00 EUR for each completed run",
        f"~ in force: {force.format(14)}  ->  {force.format(13)}",
        f"+ takes the place of: {PLAIN.digest}",
    ]
    assert differences(PLAIN, PLAIN) == []
    assert str(Difference("x", "a", None)) == "- x: a"
