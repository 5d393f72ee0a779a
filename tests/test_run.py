"""One run inside an enclave: what must not start does not, what fails says where and no more, and nothing leaks."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from strongroom import wire
from strongroom.asset import About, AssetKey, BytesSource, SealedReader, seal, sign_manifest
from strongroom.broker import Held
from strongroom.contract import AssetRef, EnclaveTerms, Limits, Output, RunRequest, Withdrawal
from strongroom.enclave.run import MEDIA_TYPES, STEPS, OpenInput, run
from strongroom.errors import (
    BadReceipt,
    BadRelease,
    BadSignature,
    Expired,
    ManifestMismatch,
    NoSandbox,
    NotFound,
    NotPermitted,
    NotYetValid,
    OutOfMemory,
    OutOfTime,
    ProgramCrashed,
    ProgramNotApproved,
    ReleaseRefused,
    TooMuchOutput,
    Unreachable,
)
from strongroom.policy import OUTPUT_KINDS, Policy
from strongroom.receipt import Bundle, Failure, Statement, verify
from world import (
    CANARY,
    DAY,
    EDITED,
    HOUR,
    MEASUREMENT,
    NOW,
    PROGRAM,
    RULE,
    RUN,
    TERMS,
    AlteringSource,
    FakeConfinement,
    Fault,
    World,
    broker_key,
    evaluate,
    keys_of,
    report,
    seed,
)

TRUST = World.trust()
TWO_RUNS = Limits(2, 300, 1 << 30)
HOME = Path(__file__).parents[1]


@pytest.fixture
def world() -> World:
    return World()


def failed(world: World, bundle: Bundle, step: str, code: str) -> Statement:
    """That a run failed with this receipt, which verifies, and that nothing was delivered."""
    statement = verify(bundle, trust=TRUST).statement
    assert statement.failure == Failure(step, code)
    assert (statement.outputs, statement.owed) == ((), ())
    assert world.exchange.delivered == []
    nothing_leaked(world)
    return statement


def nothing_leaked(world: World) -> None:
    """That no plaintext and no key is in anything that the exchange, a broker or whoever watches got."""
    seen = [world.exchange.everything, json.dumps(world.steps).encode()]
    for broker in world.brokers.values():
        seen += broker.asked
        seen += [d.answer() for _, d in broker.decisions]
        seen += [json.dumps(d.transcript.to_json()).encode() for _, d in broker.decisions]
    secrets = [CANARY, b"accuracy", *(key.raw for _, _, _, key in world.assets.values())]
    for found in seen:
        for secret in secrets:
            for spelled in (secret, secret.hex().encode(), wire.b64(secret).encode().rstrip(b"=")):
                assert spelled not in found


# --- the whole --------------------------------------------------------------------------------------------------------


def test_a_run_delivers_its_outputs_to_their_recipients_alone(world: World) -> None:
    contract = world.agree()
    bundle = world.run(contract)
    assert verify(bundle, trust=TRUST).statement.run_id == RUN
    ((delivery, sealed),) = world.exchange.delivered
    for name in ("hospital", "lab"):
        key = delivery.open(name, keys_of(name).decryption)
        with SealedReader(BytesSource(sealed), delivery.manifest, key) as reader:
            found = json.loads(reader.read())
        assert found["metrics"] == {"accuracy": 0.9313}  # rounded to four places, as agreed
    assert set(delivery.keys) == {"hospital", "lab"}
    nothing_leaked(world)


def test_the_canary_would_be_found() -> None:
    # else the search for it shows nothing
    world = World()
    world.agree()
    _, envelope, _, _ = world.assets["data"]
    world.exchange.put(envelope, json.dumps({"deep": wire.b64(json.dumps([wire.b64(CANARY)]).encode())}).encode())
    with pytest.raises(AssertionError):
        nothing_leaked(world)


def test_the_steps_are_told_in_order(world: World) -> None:
    world.run(world.agree())
    told = list(dict.fromkeys(step for step, _ in world.steps))
    assert tuple(told) == STEPS


def test_the_steps_are_those_of_the_specification() -> None:
    page = (HOME / "spec" / "run.md").read_text(encoding="utf-8")
    for step in STEPS:
        assert f"| `{step}` |" in page


def test_the_sandbox_is_ended_whatever_happens(world: World) -> None:
    for program in (evaluate, lambda _: {}):
        confinement = FakeConfinement(program)
        world.run(world.agree(limits=TWO_RUNS), seed(str(program), 16).hex(), confinement)
        assert confinement.closed
    refused = FakeConfinement(program_digest=wire.digest(b"another"))
    with pytest.raises(ProgramNotApproved):
        world.run(world.agree(), confinement=refused)
    assert refused.closed


def test_each_run_has_keys_of_its_own(world: World) -> None:
    contract = world.agree(limits=TWO_RUNS)
    first, second = (world.run(contract, seed(n, 16).hex()) for n in ("one", "two"))
    assert first.reports[0].keyset.digest != second.reports[0].keyset.digest
    keys = [e.public_key for b in (first, second) for e in b.reports[0].keyset.receipt_signing_keys]
    keys += [e.public_key for b in (first, second) for e in b.reports[0].keyset.e2ee_public_keys]
    assert len(set(keys)) == 4
    assert len({d.manifest.sealed.salt for d, _ in world.exchange.delivered}) == 2


def test_every_output_kind_has_a_media_type() -> None:
    assert set(MEDIA_TYPES) == set(OUTPUT_KINDS)


def test_inputs_are_read_by_range_and_closed_with_the_run(world: World) -> None:
    kept: dict[str, OpenInput] = {}

    def read_a_little(inputs: Mapping[str, OpenInput]) -> Mapping[str, bytes]:
        kept.update(inputs)
        opened = inputs["data"].file
        opened.seek(4)
        assert opened.read(6) == b"benign"
        assert (inputs["data"].media_type, inputs["data"].size) == ("text/csv", len(_plain(world, "data")))
        return {"report": report()}

    verify(world.run(world.agree(), confinement=FakeConfinement(read_a_little)), trust=TRUST)
    for opened in kept.values():
        with pytest.raises(ValueError, match="closed"):
            opened.file.read()


def _plain(world: World, role: str) -> bytes:
    manifest, _, sealed, key = world.assets[role]
    with SealedReader(BytesSource(sealed), manifest, key) as reader:
        return reader.read()


# --- before any key is asked for --------------------------------------------------------------------------------------


def not_asked(world: World) -> None:
    for broker in world.brokers.values():
        assert broker.asked == []
    assert world.exchange.bundles == []


def test_another_program_than_was_approved_does_not_start(world: World) -> None:
    confinement = FakeConfinement(program_digest=wire.digest(b"one line was edited"))
    with pytest.raises(ProgramNotApproved):
        world.run(world.agree(), confinement=confinement)
    not_asked(world)


def test_a_sandbox_that_confines_nothing_is_not_used_where_one_was_agreed(world: World) -> None:
    with pytest.raises(NoSandbox):
        world.run(world.agree(), confinement=FakeConfinement(kind="process"))
    not_asked(world)


BEHIND = EnclaveTerms(("simulated",), (MEASUREMENT,), "isolated", ("cgroup-memory", "seccomp"))


def test_a_wall_that_was_agreed_and_does_not_stand_is_not_waived(world: World) -> None:
    with pytest.raises(NoSandbox, match="cgroup-memory"):
        world.run(world.agree(enclave=BEHIND), confinement=FakeConfinement(walls=("namespaces", "seccomp")))
    not_asked(world)


def test_the_receipt_says_which_walls_stood(world: World) -> None:
    stood = ("cgroup-memory", "namespaces", "seccomp")
    receipt = verify(world.run(world.agree(enclave=BEHIND), confinement=FakeConfinement(walls=stood)), trust=TRUST)
    assert receipt.statement.walls == stood


def test_a_contract_that_says_process_gets_one_and_the_receipt_says_so(world: World) -> None:
    contract = world.agree(enclave=EnclaveTerms(("simulated",), (MEASUREMENT,), "process"))
    receipt = verify(world.run(contract, confinement=FakeConfinement(kind="process")), trust=TRUST)
    assert receipt.statement.sandbox == "process"


@pytest.mark.parametrize(("at", "error"), [(NOW + DAY, Expired), (NOW - HOUR - 1, NotYetValid)])
def test_a_contract_that_is_not_in_force_does_not_start(world: World, at: int, error: type[Exception]) -> None:
    contract = world.agree()
    world.clock.now = at
    with pytest.raises(error):
        world.run(contract)
    not_asked(world)


def test_a_sandbox_that_cannot_be_had_is_said(world: World) -> None:
    def none(_: Any) -> Any:
        raise NoSandbox("neither bubblewrap nor namespaces")

    contract = world.agree()
    with pytest.raises(NoSandbox):
        run(contract, world.asked(contract), world.surroundings(confine=none))
    not_asked(world)


def test_an_exchange_that_serves_another_manifest_is_found_out(world: World) -> None:
    manifest, _, _, _ = world.assets["data"]
    wider = replace(manifest, terms=Policy(TERMS.uses | {"train"}, TERMS.outputs))
    world.exchange.manifests[manifest.digest] = sign_manifest(wider, keys_of("hospital").signing)
    with pytest.raises(ManifestMismatch):
        world.run(world.agree())
    not_asked(world)


def test_a_manifest_signed_by_another_is_found_out(world: World) -> None:
    manifest, _, _, _ = world.assets["data"]
    world.exchange.manifests[manifest.digest] = sign_manifest(manifest, keys_of("lab").signing)
    with pytest.raises(BadSignature):
        world.run(world.agree())
    not_asked(world)


def test_a_manifest_in_anothers_name_is_found_out(world: World) -> None:
    claimed = replace(world.assets["data"][0], owner="lab")
    world.exchange.manifests[claimed.digest] = sign_manifest(claimed, keys_of("hospital").signing)
    assets = world.proposal().assets
    with pytest.raises(ManifestMismatch):
        world.run(world.agree(assets=(replace(assets[0], manifest=claimed.digest), assets[1])))
    not_asked(world)


def test_a_manifest_that_is_not_there_is_said(world: World) -> None:
    world.exchange.manifests.clear()
    with pytest.raises(NotFound):
        world.run(world.agree())
    not_asked(world)


def test_terms_that_do_not_permit_the_policy_stop_the_run() -> None:
    world = World(terms={"model": Policy(frozenset({"train"}), TERMS.outputs)})
    with pytest.raises(NotPermitted, match="model"):
        world.run(world.agree())
    not_asked(world)


# --- brokers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hospital", "lab"])
def test_one_broker_that_refuses_stops_the_run(world: World, name: str) -> None:
    contract = world.agree()
    withdrawal = Withdrawal(contract.digest, name, NOW, "")
    world.brokers[name].book.withdraw(withdrawal, withdrawal.sign(keys_of(name).signing))
    with pytest.raises(ReleaseRefused) as caught:
        world.run(contract)
    assert caught.value.reason == "contract.withdrawn"
    assert (world.exchange.bundles, world.exchange.delivered) == ([], [])
    nothing_leaked(world)


def test_an_edited_enclave_gets_no_key(world: World) -> None:
    world.platform.measurement = EDITED
    with pytest.raises(ReleaseRefused) as caught:
        world.run(world.agree())
    assert caught.value.reason == "attest.measurement_not_accepted"
    assert world.brokers["lab"].asked == []


@pytest.mark.parametrize("fault", Fault)
@pytest.mark.parametrize("place", ["hospital.release", "hospital.book", "lab.nonce", "lab.release"])
def test_a_broker_that_does_not_answer_once_is_asked_again_and_counts_once(world: World, place: str, fault: Fault) -> None:
    contract = world.agree()
    world.faults.plan(place, fault)
    assert verify(world.run(contract), trust=TRUST)
    for broker in world.brokers.values():
        assert len(broker.book.standing(contract.digest).runs) == 1


@pytest.mark.parametrize("fault", Fault)
def test_a_broker_that_does_not_answer_at_all_ends_the_run(world: World, fault: Fault) -> None:
    contract = world.agree()
    world.faults.plan("hospital.release", fault, fault)
    with pytest.raises(Unreachable):
        world.run(contract)
    # the run counts exactly if the broker decided
    assert len(world.brokers["hospital"].book.standing(contract.digest).runs) == (fault is Fault.LOST)
    assert world.exchange.bundles == []


class Replaying:
    """A line to a broker on which somebody answers with a release of an earlier run."""

    def __init__(self, line: Any, answer: bytes) -> None:
        self._line, self._answer = line, answer

    def nonce(self) -> bytes:
        return self._line.nonce()

    def release(self, _request: bytes) -> bytes:
        return self._answer


def test_a_release_of_an_earlier_run_is_not_taken(world: World) -> None:
    contract = world.agree(limits=TWO_RUNS)
    world.run(contract)
    earlier = world.brokers["hospital"].decisions[0][1].answer()
    lines = {**world.brokers, "hospital": Replaying(world.brokers["hospital"], earlier)}
    with pytest.raises(BadRelease):
        world.run(contract, seed("second", 16).hex(), broker=lambda party: lines[party.name])


def test_a_broker_of_ones_own_in_the_way_is_found_out(world: World) -> None:
    world.brokers["hospital"].owner = replace(world.brokers["hospital"].owner, broker=broker_key("stranger"))
    contract = world.agree()
    with pytest.raises(ReleaseRefused):  # it does not even call itself the hospital's
        world.run(contract)


# --- inputs -----------------------------------------------------------------------------------------------------------


def test_a_key_that_does_not_fit_its_manifest_fails_the_run(world: World) -> None:
    manifest, envelope, _, _ = world.assets["data"]
    world.brokers["hospital"].book._state.assets[manifest.digest] = Held(envelope, AssetKey(seed("another key")))
    failed(world, world.run(world.agree()), "open", "asset.wrong_key")


def test_a_sealed_file_of_another_asset_fails_the_run(world: World) -> None:
    data, model = (world.assets[r][0].digest for r in ("data", "model"))
    world.exchange.files[data] = world.exchange.files[model]
    failed(world, world.run(world.agree()), "open", "asset.manifest_mismatch")


def test_a_sealed_file_that_was_cut_fails_the_run(world: World) -> None:
    manifest, _, sealed, _ = world.assets["data"]
    world.exchange.files[manifest.digest] = BytesSource(sealed[:-1])
    failed(world, world.run(world.agree()), "open", "asset.truncated")


def test_a_chunk_altered_while_the_program_reads_fails_the_run(world: World) -> None:
    manifest, _, sealed, _ = world.assets["data"]
    world.exchange.files[manifest.digest] = AlteringSource(sealed, reads=4)  # opened well, then changed
    read: list[bytes] = []

    def program(inputs: Mapping[str, OpenInput]) -> Mapping[str, bytes]:
        while piece := inputs["data"].file.read(1024):
            read.append(piece)
        return {"report": report()}

    statement = failed(world, world.run(world.agree(), confinement=FakeConfinement(program)), "open", "asset.chunk_altered")
    assert read  # it had begun
    assert statement.sandbox == "bubblewrap"


def test_an_exchange_that_stops_answering_fails_the_run(world: World) -> None:
    world.faults.plan("exchange.sealed", None, Fault.NOT_DONE)
    failed(world, world.run(world.agree()), "open", "app.unreachable")


def test_a_content_digest_that_is_not_true_fails_the_run(world: World) -> None:
    # the owner shows a digest by which others know the model, and seals something else
    sink, key = io.BytesIO(), AssetKey(seed("liar"))
    about = About(
        name="model",
        kind="model",
        media_type="application/vnd.onnx",
        owner="lab",
        created_at=NOW,
        terms=TERMS,
        reveal_digest=True,
    )
    honest = seal(io.BytesIO(b"other weights " + CANARY), sink, key=key, salt=seed("liar's salt"), about=about)
    liar = replace(honest, content=replace(honest.content, value=seed("well-known weights")))
    envelope = sign_manifest(liar, keys_of("lab").signing)
    world.exchange.put(envelope, sink.getvalue())
    world.brokers["lab"].book.hold(envelope, key)
    assets = (world.proposal().assets[0], AssetRef("model", "lab", liar.digest))
    failed(world, world.run(world.agree(assets=assets)), "open", "asset.content_mismatch")


# --- programs and outputs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [OutOfTime, OutOfMemory, TooMuchOutput, ProgramCrashed])
def test_a_program_that_fails_gets_a_receipt_that_says_where(world: World, error: type[Any]) -> None:
    def program(_: Any) -> Any:
        raise error("a message with " + CANARY.decode(), step="predict")

    failed(world, world.run(world.agree(), confinement=FakeConfinement(program)), "predict", error.code)


def test_a_failed_run_counts(world: World) -> None:
    contract = world.agree()
    world.run(contract, confinement=FakeConfinement(lambda _: {}))
    with pytest.raises(ReleaseRefused) as caught:
        world.run(contract, seed("second", 16).hex())
    assert caught.value.reason == "broker.no_run_left"


def test_a_program_that_writes_less_than_agreed_fails(world: World) -> None:
    failed(world, world.run(world.agree(), confinement=FakeConfinement(lambda _: {})), "program", "program.output_missing")


def test_what_the_contract_does_not_name_does_not_leave(world: World) -> None:
    more = {"report": report(), "log": CANARY, "../secrets": CANARY}
    bundle = world.run(world.agree(), confinement=FakeConfinement(lambda _: more))
    assert [d.output.name for d in verify(bundle, trust=TRUST).statement.outputs] == ["report"]
    assert len(world.exchange.delivered) == 1
    nothing_leaked(world)


BROKEN = {
    "not a report": CANARY,
    "too large": report(metrics={}) + b" " * (1 << 20),
    "on too few records": report(records=9),
    "with a text": report(task=CANARY.decode() * 20),
    "with an unknown member": report(rows=[CANARY.decode()]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_output_that_breaks_its_rule_is_not_delivered(world: World, name: str) -> None:
    confinement = FakeConfinement(lambda _: {"report": BROKEN[name]})
    failed(world, world.run(world.agree(), confinement=confinement), "output", "output.refused")


def test_one_output_that_breaks_its_rule_keeps_back_all(world: World) -> None:
    log = replace(RULE, min_group=1)
    wide = Policy(frozenset({"evaluate"}), {"log": log, "report": RULE})
    world = World(terms={"data": wide, "model": wide})
    outputs = (Output("log", "log", log), Output("report", "report", RULE))
    contract = world.agree(outputs=outputs, policy=wide)
    written = {"log": b"fine", "report": b"not a report"}
    failed(world, world.run(contract, confinement=FakeConfinement(lambda _: written)), "output", "output.refused")


def test_a_failure_that_would_tell_more_than_a_step_makes_no_receipt(world: World) -> None:
    def program(_: Any) -> Any:
        raise ProgramCrashed("", step=CANARY.decode())

    with pytest.raises(BadReceipt):
        world.run(world.agree(), confinement=FakeConfinement(program))
    assert world.exchange.bundles == []
    nothing_leaked(world)


@pytest.mark.parametrize("fault", Fault)
@pytest.mark.parametrize("place", ["hospital.receipt", "lab.receipt"])
def test_an_owner_that_does_not_answer_once_is_handed_its_receipt_again(world: World, place: str, fault: Fault) -> None:
    world.faults.plan(place, fault)
    bundle = world.run(world.agree())
    assert all(bundle in broker.receipts for broker in world.brokers.values())
    assert len(world.exchange.delivered) == 1


@pytest.mark.parametrize("fault", Fault)
@pytest.mark.parametrize("place", ["exchange.put_output", "exchange.record", "hospital.receipt", "lab.receipt"])
def test_without_a_receipt_in_the_log_and_with_every_owner_nobody_gets_a_result(
    world: World, place: str, fault: Fault
) -> None:
    contract = world.agree()
    world.faults.plan(place, fault, fault)
    with pytest.raises(Unreachable):
        world.run(contract)
    assert world.exchange.delivered == []
    nothing_leaked(world)
    # the owner sees that its keys went out
    assert [(c, r) for c, r, _, _ in world.brokers["hospital"].book.releases()] == [(contract.digest, RUN)]


def test_every_owner_has_the_receipt_before_anybody_has_a_key_of_an_output(world: World) -> None:
    bundle = world.run(world.agree())
    assert [b.receipts for b in world.brokers.values()] == [[bundle], [bundle]]


def test_a_stranger_cannot_have_a_contract_run(world: World) -> None:
    contract = world.agree()
    asked = RunRequest(contract.digest, "lab", RUN, NOW).sign(keys_of("stranger").signing)
    with pytest.raises(BadSignature):
        run(contract, asked, world.surroundings())
    not_asked(world)


def test_a_program_that_makes_another_use_than_it_is_named_for_is_refused(world: World) -> None:
    program = replace(world.proposal().program, use="train")
    contract = world.agree(program=program, policy=Policy(frozenset({"train"}), {"report": RULE}))
    with pytest.raises(NotPermitted):
        world.run(contract)
    not_asked(world)


def test_the_receipt_names_what_was_used_and_made(world: World) -> None:
    contract = world.agree()
    world.clock.now = NOW + 5
    statement = verify(world.run(contract), trust=TRUST).statement
    ((delivery, sealed),) = world.exchange.delivered
    (delivered,) = statement.outputs
    assert (statement.contract, statement.program) == (contract.digest, PROGRAM)
    assert (delivered.sealed, delivered.manifest) == (wire.digest(sealed), delivery.manifest.digest)
    assert (statement.started_at, statement.ended_at) == (NOW + 5, NOW + 5)
    assert statement.owed == contract.proposal.payments


def test_the_page_shows_the_steps_of_this_run(world: World) -> None:
    page = (HOME / "spec" / "run.md").read_text(encoding="utf-8")
    world.run(world.agree())
    assert "\n".join(f"{step:<9} {detail}" for step, detail in world.steps) in page
