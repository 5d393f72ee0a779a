"""Writes vectors/contract, vectors/withdrawal and vectors/trust: one file per case, the expected outcome in the file.

    python vectors/make_contract.py

The world that the cases come from is that of the tests (tests/world.py), with its fixed keys, times and "random" bytes.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from strongroom import wire  # noqa: E402 - the world is found first
from strongroom.attest.evidence import Measurement  # noqa: E402
from strongroom.contract import (  # noqa: E402
    GRANT_TYPE,
    MAX_QUEUED_SECONDS,
    PROPOSAL_TYPE,
    RUN_REQUEST_SECONDS,
    RUN_TYPE,
    WITHDRAWAL_TYPE,
    EnclaveTerms,
    Grant,
    Limits,
    Proposal,
    RunRequest,
    Withdrawal,
)
from strongroom.party import SigningKey  # noqa: E402
from strongroom.policy import Policy  # noqa: E402
from strongroom.serving import Serving  # noqa: E402
from strongroom.trust import Trust  # noqa: E402
from strongroom.wire import Envelope, Signature  # noqa: E402
from world import (  # noqa: E402
    DAY,
    EDITED,
    HOUR,
    MEASUREMENT,
    NOW,
    RULE,
    RUN,
    World,
    broker_key,
    card,
    charge,
    keys_of,
    seed,
    sign_all,
)

OTHER_RUN = seed("another run", 16).hex()
OTHER = wire.digest(b"another")

Case = dict[str, Any]
Cases = dict[str, Case]


def put(value: Any, path: str, new: Any) -> Any:
    """A JSON value with one member changed; ``path`` as in ``program.digest`` or ``assets.0.role``."""
    value = json.loads(json.dumps(value))
    *way, last = (int(p) if p.isdigit() else p for p in path.split("."))
    inner = value
    for step in way:
        inner = inner[step]
    inner[last] = new
    return value


# --- contracts --------------------------------------------------------------------------------------------------------

WORLD = World()
PROPOSAL = WORLD.proposal()
SERVING = Serving(frozenset({"chat"}), 3600)
CONTRACT = sign_all(PROPOSAL)
LAB, HOSPITAL, STRANGER = (keys_of(name) for name in ("lab", "hospital", "stranger"))


def signed_by(payload: bytes, *signers: SigningKey, kind: str = PROPOSAL_TYPE) -> Envelope:
    signatures = (s.signature(kind, payload) for s in signers)
    return Envelope(kind, payload, tuple(sorted(signatures, key=lambda s: s.keyid)))


def signed_by_all(**changes: Any) -> Envelope:
    """A proposal in which members were changed after it was made, and everybody's good signature under it."""
    value = PROPOSAL.to_json()
    for path, new in changes.items():
        value = put(value, path.replace("__", "."), new)
    return signed_by(wire.encode(value), HOSPITAL.signing, LAB.signing)


def _tdx() -> dict[str, Any]:
    return {"platform": "tdx", "registers": {"mrtd": "sha384:" + "0" * 96}}


def rules() -> dict[str, tuple[str, str, Envelope]]:
    """What a proposal must hold: each case breaks one rule, and everybody signed it."""
    bad, refused, field = "contract.bad_proposal", "policy.not_permitted", "wire.bad_field"
    value = PROPOSAL.to_json()
    data, model = value["assets"]  # type: ignore[misc]
    (paid,), (output,) = value["payments"], value["outputs"]  # type: ignore[misc]
    hospital, lab = value["parties"]  # type: ignore[misc]
    measurement = MEASUREMENT.to_json()
    first, second = (m.to_json() for m in sorted((MEASUREMENT, EDITED), key=Measurement.encode))
    spent = charge().to_json()
    policy = {"egress": [], "outputs": {"report": RULE.to_json()}, "uses": ["evaluate"]}

    def a(**changes: Any) -> Envelope:
        return signed_by_all(**changes)

    return {
        "rule-parties-unsorted": ("the parties are out of order", bad, a(parties=[lab, hospital])),
        "rule-party-twice": ("a party stands twice", bad, a(parties=[hospital, hospital, lab])),
        "rule-no-parties": ("nobody is a party", field, a(parties=[])),
        "rule-shared-signing-key": (
            "two parties share a signing key, so that one signature would count twice",
            bad,
            a(parties=[hospital, {**lab, "signing_key": hospital["signing_key"]}]),  # type: ignore[call-overload, index, dict-item]
        ),
        "rule-shared-encryption-key": (
            "two parties share an encryption key, so that one would read what is the other's",
            bad,
            a(parties=[hospital, {**lab, "encryption_key": hospital["encryption_key"]}]),  # type: ignore[call-overload, index, dict-item]
        ),
        "rule-broker-key-signs-for-another": (
            "a party signs with another party's broker key",
            bad,
            a(parties=[hospital, {**lab, "signing_key": hospital["broker_key"]}]),  # type: ignore[call-overload, index, dict-item]
        ),
        "rule-proposer-no-party": ("the proposer is no party", bad, a(proposer="stranger")),
        "rule-owner-no-party": ("an asset's owner is no party", bad, a(assets__0__owner="stranger")),
        "rule-recipient-no-party": ("a recipient is no party", bad, a(outputs__0__rule__recipients=["stranger"])),
        "rule-payee-no-party": ("a payee is no party", bad, a(payments__0__payee="stranger")),
        "rule-payment-to-oneself": ("a payment to the payer", bad, a(payments__0__payee="lab")),
        "rule-payment-twice": (
            "two payments of one payer to one payee in one currency",
            bad,
            a(payments=[paid, {**paid, "amount": 1}]),
        ),
        "rule-currency": ("a currency that is none", bad, a(payments__0__currency="EU1")),
        "rule-no-assets": ("no asset", field, a(assets=[])),
        "rule-assets-unsorted": ("the roles are out of order", bad, a(assets=[model, data])),
        "rule-asset-in-two-roles": ("an asset in two roles", bad, a(assets=[data, {**data, "role": "model"}])),
        "rule-no-outputs": ("no output", bad, a(outputs=[])),
        "rule-served-and-an-output": (
            "what is served leaves as answers, and not as an output",
            bad,
            a(policy={**policy, "serve": SERVING.to_json()}),
        ),
        "rule-output-twice": ("an output stands twice", bad, a(outputs=[output, output])),
        "rule-output-for-nobody": ("an output without recipients", field, a(outputs__0__rule__recipients=[])),
        "rule-output-for-any-party": (
            "an output whose recipients are not named",
            bad,
            a(outputs__0__rule__recipients="any-party"),
        ),
        "rule-output-kind": ("an output of an unknown kind", "policy.unknown_dimension", a(outputs__0__kind="video")),
        "rule-no-platforms": ("no platform", field, a(enclave__platforms=[])),
        "rule-no-measurements": ("no measurement", field, a(enclave__measurements=[])),
        "rule-measurements-unsorted": (
            "the measurements are out of order",
            bad,
            a(enclave__measurements=[second, first]),
        ),
        "rule-measurement-of-another-platform": (
            "a measurement of a platform that is not named",
            bad,
            a(enclave__measurements=[measurement, _tdx()]),
        ),
        "rule-process-on-hardware": (
            "an ordinary process for a sandbox, on a platform that is not simulated",
            bad,
            a(enclave={"measurements": [_tdx()], "platforms": ["tdx"], "sandbox": "process"}),
        ),
        "rule-policy-empty": (
            "a policy that allows nothing",
            "policy.empty",
            a(policy={"egress": [], "outputs": {}, "uses": []}),
        ),
        "rule-policy-egress": (
            "egress to a host",
            "policy.unknown_dimension",
            a(policy={**policy, "egress": ["example.com"]}),
        ),
        "rule-use-not-in-policy": ("a use that the policy does not allow", refused, a(program__use="train")),
        "rule-output-wider-than-policy": (
            "an output wider than the proposal's own policy",
            refused,
            a(outputs__0__rule__min_group=9),
        ),
        "rule-ends-before-it-begins": ("it ends in the second it begins", bad, a(not_after=NOW - HOUR)),
        "rule-no-runs": ("no runs", field, a(limits__runs=0)),
        "rule-charges-empty": ("charges, and none in them", field, a(charges=[])),
        "rule-charge-of-no-role": ("a charge of no asset's role", bad, a(charges=[{**spent, "role": "other"}])),
        "rule-charge-twice": ("an asset charged twice", bad, a(charges=[spent, spent])),
        "rule-charge-bytes": (
            "a charge of fewer bytes than the outputs may have",
            bad,
            a(charges=[put(spent, "counts.bytes_out", (1 << 20) - 1)]),
        ),
        "rule-charge-and-log": (
            "a log beside charged events",
            bad,
            a(
                charges=[put(spent, "counts.bytes_out", 1 << 30)],
                outputs=[{**output, "kind": "log", "name": "log"}],  # type: ignore[dict-item]
                policy={**policy, "outputs": {"log": RULE.to_json()}},
            ),
        ),
        "rule-charge-unknown-event": (
            "an event of an unknown kind: it is refused, and never guessed",
            "budget.bad_charge",
            a(charges=[put(spent, "events.0", {"count": 1, "event": "subsampled"})]),
        ),
        "rule-charge-no-noise": (
            "an event without noise",
            "budget.bad_charge",
            a(charges=[put(spent, "events.0", {"count": 1, "event": "laplace", "noise_multiplier": "0"})]),
        ),
        "rule-charges-on-standing": (
            "a standing contract that states charges",
            "contract.charges_on_standing",
            a(charges=[spent], outputs=[], policy={**policy, "outputs": {}, "serve": SERVING.to_json()}),
        ),
        "rule-trial-of-no-code": ("a trial, and no code that was tried", bad, a(trial=OTHER)),
        "rule-trial-null": ("a trial, and none in it", field, a(program__name="code", trial=None)),
        "rule-title-control": (
            "a title with a character that a screen obeys",
            bad,
            a(title="harmless\u202elive"),
        ),
        "rule-unknown-member": ("a member of another version", field, signed_by_all(more=1)),
        "rule-nonce-short": ("a nonce that is too short", field, a(nonce="00")),
    }


def contract_cases() -> Cases:
    cases: Cases = {}

    def verify(name: str, description: str, expect: str, envelope: Envelope, **more: Any) -> None:
        cases[name] = {
            "description": description,
            "envelope": envelope.to_json(),
            "expect": expect,
            "operation": "verify",
            **more,
        }

    payload = PROPOSAL.encode()
    other = WORLD.proposal(nonce=seed("another", 16).hex())
    by_lab, by_hospital = PROPOSAL.sign(LAB), PROPOSAL.sign(HOSPITAL)
    good = CONTRACT.envelope
    verify("signed-by-all", "one signature of each party", "ok", good, digest=CONTRACT.digest)
    every = WORLD.proposal(
        supersedes=PROPOSAL.digest,
        program=replace(PROPOSAL.program, parameters={}),
        enclave=EnclaveTerms(("simulated",), tuple(sorted((MEASUREMENT, EDITED), key=Measurement.encode)), "process"),
        payments=(),
    )
    verify(
        "signed-by-all-counter",
        "a counter-proposal: no payment, two measurements, an ordinary process",
        "ok",
        sign_all(every).envelope,
        digest=every.digest,
    )
    standing = WORLD.proposal(policy=Policy(frozenset({"evaluate"}), serve=SERVING), outputs=())
    verify(
        "standing",
        "a standing contract, whose room answers requests",
        "ok",
        sign_all(standing).envelope,
        digest=standing.digest,
    )
    charged = WORLD.proposal(charges=(charge(),))
    verify(
        "charged",
        "a run is charged to the budget of the data",
        "ok",
        sign_all(charged).envelope,
        digest=charged.digest,
    )
    tried = WORLD.proposal(program=replace(PROPOSAL.program, name="code"), trial=OTHER)
    verify(
        "tried",
        "code that was tried on mocks, with the digest of what it did there",
        "ok",
        sign_all(tried).envelope,
        digest=tried.digest,
    )
    missing, stranger = "contract.signature_missing", "contract.signature_from_stranger"
    doubled, invalid = "contract.signature_doubled", "contract.signature_invalid"
    verify("unsigned", "nobody's signature", missing, replace(good, signatures=()))
    verify("one-missing", "one party's signature is missing", missing, PROPOSAL.envelope([by_lab]))
    verify("one-twice", "one party's signature twice", doubled, PROPOSAL.envelope([by_lab, by_lab]))
    verify("all-and-one-twice", "all, and one of them twice", doubled, PROPOSAL.envelope([by_lab, by_hospital, by_lab]))
    verify("unsorted", "the signatures are out of order", doubled, replace(good, signatures=good.signatures[::-1]))
    verify(
        "and-a-stranger",
        "all, and a stranger's",
        stranger,
        signed_by(payload, LAB.signing, HOSPITAL.signing, STRANGER.signing),
    )
    verify(
        "by-the-broker",
        "a party's broker signed in its place",
        stranger,
        signed_by(payload, LAB.signing, broker_key("hospital")),
    )
    verify(
        "replayed",
        "an approval of another proposal",
        invalid,
        PROPOSAL.envelope([by_lab, other.sign(HOSPITAL)]),
    )
    verify(
        "other-bytes",
        "one number changed after all had signed",
        invalid,
        replace(good, payload=payload.replace(b'"amount":25000', b'"amount":25001')),
    )
    for name, forged in (
        ("as-a-withdrawal", HOSPITAL.signing.signature(WITHDRAWAL_TYPE, payload)),
        ("of-the-bare-bytes", Signature(by_hospital.keyid, HOSPITAL.signing.sign_bytes(payload))),
        ("in-anothers-name", Signature(by_hospital.keyid, STRANGER.signing.sign_bytes(wire.pae(PROPOSAL_TYPE, payload)))),
    ):
        verify(name, f"a signature {name.replace('-', ' ')}", invalid, PROPOSAL.envelope([by_lab, forged]))
    verify(
        "another-type",
        "the envelope is of another type",
        "wire.bad_envelope",
        replace(good, payload_type=WITHDRAWAL_TYPE),
    )
    spaced = json.dumps(PROPOSAL.to_json()).encode()
    verify("not-canonical", "the same JSON in another spelling, signed by all", "wire.not_canonical",
           signed_by(spaced, LAB.signing, HOSPITAL.signing))  # fmt: skip
    verify("not-json", "no JSON, signed by all", "wire.not_json", signed_by(b"x", LAB.signing, HOSPITAL.signing))
    for name, (description, expect, envelope) in rules().items():
        verify(name, description, expect, envelope)
    for name, at, expect in (
        ("first-second", NOW - HOUR, "ok"),
        ("last-second", NOW + DAY - 1, "ok"),
        ("too-early", NOW - HOUR - 1, "contract.not_yet_valid"),
        ("too-late", NOW + DAY, "contract.expired"),
    ):
        cases[f"in-force-{name}"] = {
            "at": at,
            "description": f"a contract in force from {NOW - HOUR} to before {NOW + DAY}, at {at}",
            "envelope": good.to_json(),
            "expect": expect,
            "operation": "in force",
        }
    three = replace(PROPOSAL, parties=(card("hospital"), card("lab"), card("stranger")))
    moved = replace(card("hospital"), broker_key=broker_key("stranger").public)
    for name, description, expect, new in (
        ("fewer-runs", "it changes a limit", "ok", replace(PROPOSAL, limits=Limits(1, 60, 1 << 30))),
        ("another-party", "it brings in a party", "contract.bad_proposal", three),
        (
            "another-key",
            "it changes a party's key",
            "contract.bad_proposal",
            replace(PROPOSAL, parties=(moved, card("lab"))),
        ),
        ("of-another", "it supersedes another proposal", "contract.bad_proposal", replace(PROPOSAL, supersedes=OTHER)),
        ("of-none", "it supersedes nothing", "contract.bad_proposal", PROPOSAL),
    ):
        counter = new if name in ("of-another", "of-none") else replace(new, supersedes=PROPOSAL.digest)
        cases[f"counter-{name}"] = {
            "description": description,
            "expect": expect,
            "new": counter.to_json(),
            "old": PROPOSAL.to_json(),
            "operation": "counter",
        }
    return cases


# --- withdrawals, grants, run requests --------------------------------------------------------------------------------


def withdrawal_cases() -> Cases:
    cases: Cases = {}
    other = WORLD.proposal(nonce=seed("another", 16).hex())
    digest = CONTRACT.digest
    said: dict[str, tuple[Any, str]] = {
        "withdrawal": (Withdrawal(digest, "hospital", NOW, "the patients said no"), WITHDRAWAL_TYPE),
        "grant": (Grant(digest, "hospital", 1, "ab" * 16), GRANT_TYPE),
        "run": (RunRequest(digest, "hospital", RUN, NOW), RUN_TYPE),
    }

    def add(
        kind: str, name: str, description: str, expect: str, envelope: Envelope, *, of: Proposal = PROPOSAL, at: int = NOW
    ) -> None:
        cases[f"{kind}-{name}"] = {
            "at": at,
            "description": description,
            "envelope": envelope.to_json(),
            "expect": expect,
            "operation": kind,
            "proposal": of.to_json(),
        }

    unsigned = "wire.bad_signature"
    for kind, (word, payload_type) in said.items():
        good = word.sign(HOSPITAL.signing)
        wrong_type = next(t for _, t in said.values() if t != payload_type)
        add(kind, "good", "a party's word of this contract", "ok", good)
        add(kind, "of-another", "a party's word of another contract", "wire.bad_field", good, of=other)
        add(kind, "by-another-party", "signed by another party", unsigned, word.sign(LAB.signing))
        add(kind, "by-its-broker", "signed by the party's broker", unsigned, word.sign(broker_key("hospital")))
        add(
            kind,
            "by-a-stranger",
            "a stranger's word",
            "contract.not_a_party",
            replace(word, party="stranger").sign(STRANGER.signing),
        )
        add(
            kind,
            "by-two",
            "signed by two",
            unsigned,
            signed_by(good.payload, HOSPITAL.signing, LAB.signing, kind=payload_type),
        )
        add(kind, "unsigned", "not signed", unsigned, replace(good, signatures=()))
        add(
            kind,
            "as-another-type",
            "under the type of another document",
            "wire.bad_envelope",
            HOSPITAL.signing.sign(wrong_type, word.encode()),
        )
        more = wire.encode({**json.loads(word.encode()), "more": 1})
        add(
            kind,
            "unknown-member",
            "a member of another version",
            "wire.bad_field",
            HOSPITAL.signing.sign(payload_type, more),
        )
    add(
        "grant",
        "no-runs",
        "a grant of nothing",
        "wire.bad_field",
        replace(said["grant"][0], runs=0).sign(HOSPITAL.signing),
    )
    run = said["run"][0].sign(HOSPITAL.signing)
    for name, at, expect in (
        ("just-now", NOW + RUN_REQUEST_SECONDS, "ok"),
        ("long-ago", NOW + RUN_REQUEST_SECONDS + 1, "wire.bad_field"),
        ("in-the-future", NOW - RUN_REQUEST_SECONDS - 1, "wire.bad_field"),
    ):
        add("run", name, f"asked for at {NOW}, heard at {at}", expect, run, at=at)
    queued, until = said["run"][0], NOW + MAX_QUEUED_SECONDS
    for name, last, at, expect in (
        ("queued", until, until, "ok"),
        ("queued-too-late", until, until + 1, "wire.bad_field"),
        ("queued-too-early", until, NOW - RUN_REQUEST_SECONDS - 1, "wire.bad_field"),
        ("queued-too-long", until + 1, NOW, "wire.bad_field"),
        ("queued-for-no-time", NOW - 1, NOW - 1, "wire.bad_field"),
        ("queued-shortly", NOW + 1, NOW + 2, "wire.bad_field"),
    ):
        envelope = replace(queued, until=last).sign(HOSPITAL.signing)
        add("run", name, f"asked for at {NOW} until {last}, heard at {at}", expect, envelope, at=at)
    return cases


# --- trust files ------------------------------------------------------------------------------------------------------


def trust_cases() -> Cases:
    cases: Cases = {}
    trust = World.trust()
    value = trust.to_json()

    def parse(name: str, description: str, expect: str, found: Any) -> None:
        cases[f"parse-{name}"] = {"description": description, "expect": expect, "operation": "parse", "trust": found}

    def check(name: str, description: str, expect: str, *parties: Any, trust: Trust = trust) -> None:
        cases[f"check-{name}"] = {
            "description": description,
            "expect": expect,
            "operation": "check",
            "parties": [p.to_json() for p in parties],
            "trust": trust.to_json(),
        }

    parse("full", "parties, a root, a measurement and a log", "ok", value)
    parse("empty", "trusts nothing", "ok", Trust().to_json())
    parse("another-format", "of another version", "wire.bad_field", {**value, "format": "strongroom.trust.v2"})
    parse("unknown-member", "a member of another version", "wire.bad_field", {**value, "everybody": True})
    parse(
        "missing-member",
        "a missing list is not an empty one",
        "wire.bad_field",
        {k: v for k, v in value.items() if k != "logs"},
    )
    parse("name-twice", "a name pinned twice", "wire.bad_field", {**value, "parties": [card("lab").to_json()] * 2})
    weak = {**card("lab").to_json(), "signing_key": wire.b64(b"\x01" + bytes(31))}
    parse("weak-key", "a signing key of small order", "party.bad_key", {**value, "parties": [weak]})
    parse(
        "weak-root",
        "a root of small order",
        "party.bad_key",
        {**value, "roots": [{"key": wire.b64(bytes(32)), "platform": "simulated"}]},
    )
    parse(
        "no-register",
        "a measurement without a register",
        "attest.bad_measurement",
        {**value, "measurements": [{"platform": "simulated", "registers": {}}]},
    )
    policy = replace(trust.appraisal_policy(), max_age_s=60)
    signed = policy.sign(keys_of("lab").signing)
    parse(
        "signed-policy",
        "an appraisal policy that a pinned party signed",
        "ok",
        {**value, "appraisal_policy": signed.to_json()},
    )
    parse(
        "policy-of-a-stranger",
        "an appraisal policy that nobody pinned signed",
        "party.not_pinned",
        {**value, "appraisal_policy": policy.sign(keys_of("stranger").signing).to_json()},
    )
    two = replace(
        signed,
        signatures=tuple(
            sorted(
                (*signed.signatures, keys_of("hospital").signing.signature(signed.payload_type, signed.payload)),
                key=lambda s: s.keyid,
            )
        ),
    )
    parse(
        "policy-of-two",
        "an appraisal policy with two signatures",
        "party.not_pinned",
        {**value, "appraisal_policy": two.to_json()},
    )
    altered = replace(signed, payload=replace(policy, max_age_s=86_400).encode())
    parse(
        "policy-altered",
        "an appraisal policy that was widened after it was signed",
        "wire.bad_signature",
        {**value, "appraisal_policy": altered.to_json()},
    )
    parse("log-star", "a log key that is none", "party.bad_key", {**value, "logs": ["*"]})
    check("pinned", "all parties are pinned", "ok", card("hospital"), card("lab"))
    check("moved", "a party whose broker moved", "ok", replace(card("lab"), broker_url="https://elsewhere.example"))
    check("nobody", "no party at all is not all parties", "party.not_pinned")
    check("empty-trust", "nothing is pinned", "party.not_pinned", card("lab"), trust=Trust())
    check("one-stranger", "one party is not pinned", "party.not_pinned", card("hospital"), card("lab"), card("stranger"))
    stranger = card("stranger")
    for member in ("signing_key", "encryption_key", "broker_key"):
        imposter = replace(card("lab"), **{member: getattr(stranger, member)})
        check(f"other-{member.replace('_', '-')}", f"another {member} under a pinned name", "party.pin_mismatch", imposter)
    check("other-name", "pinned keys under another name", "party.not_pinned", replace(card("lab"), name="laboratory"))
    return cases


def all_cases() -> dict[str, Cases]:
    """Folder to name to case."""
    return {"contract": contract_cases(), "trust": trust_cases(), "withdrawal": withdrawal_cases()}


def main() -> None:
    for folder, cases in all_cases().items():
        (HERE / folder).mkdir(exist_ok=True)
        for stale in (HERE / folder).glob("*.json"):
            stale.unlink()
        for name, case in cases.items():
            text = json.dumps(case, indent=2, sort_keys=True) + "\n"
            (HERE / folder / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
