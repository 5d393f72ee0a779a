"""The whole path on hardware evidence: a run whose enclave's platform is a TD, and a processor with devices beside it.

The evidence is the project's own (``pki_intel``, ``pki_nvidia``): of the vendors' layout, under roots that these tests pin.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

import pki_intel
import pki_nvidia
from pki_intel import DAY, PLATFORM_CA, ROOT
from strongroom.attest import binding, nvidia, nvidia_switch, tdx
from strongroom.attest.appraisal import Bare, appraise, look, look_at_devices
from strongroom.attest.appraisal_policy import AppraisalPolicy, Reference
from strongroom.attest.endorsements import OCSP_RESPONSE
from strongroom.attest.evidence import Endorsements, Evidence, Measurement
from strongroom.attest.intel_collateral import TcbStatus
from strongroom.attest.keyset import DEVICE_BINDING_ALGO, KeyEntry, Keyset, report_data
from strongroom.attest.result import AttestationResult
from strongroom.attest.vector import Tier
from strongroom.contract import Contract, EnclaveTerms
from strongroom.errors import NotVerified, ReleaseRefused
from strongroom.party import SigningKey
from strongroom.receipt import Bundle, examine, verify
from strongroom.transcript import Status
from strongroom.trust import Trust
from world import NOW, Asker, World, keys_of

DATES = {"issueDate": pki_intel.time(NOW - DAY), "nextUpdate": pki_intel.time(NOW + 29 * DAY)}
CURRENT = {issuer: {"before": NOW - DAY, "after": NOW + 29 * DAY} for issuer in (ROOT, PLATFORM_CA)}
MACHINE = pki_intel.World(info=DATES, identity=DATES, lists=CURRENT)
MEASUREMENT = Measurement(
    "tdx",
    {
        "mrconfigid": "sha384:" + "00" * 48,
        "mrowner": "sha384:" + "00" * 48,
        "mrownerconfig": "sha384:" + "00" * 48,
        "mrtd": "sha384:" + "11" * 48,
        **{f"rtmr{n}": "sha384:" + f"2{n}" * 48 for n in range(4)},
    },
)
POLICY = AppraisalPolicy(
    platforms=frozenset({"tdx"}),
    roots={"tdx": MACHINE.roots()},
    references=(Reference(MEASUREMENT, "evaluation room", "a test"),),
    terms={"tdx": tdx.Terms()},
)


@dataclass
class Td:
    """A trust domain as an enclave's platform (``attest.evidence.Platform``)."""

    machine: pki_intel.World = MACHINE
    beside: Endorsements = field(default_factory=Endorsements)

    def produce(self, report_data: bytes) -> Evidence:
        td = {**self.machine.td, "report_data": report_data}
        return replace(self.machine, td=td).evidence()

    def endorsements(self) -> Endorsements:
        return Endorsements((*self.machine.endorsements().documents, *self.beside.documents))


def trusting(policy: AppraisalPolicy, name: str = "hospital") -> Trust:
    """The world's trust file with a signed policy and nothing loose: no platform but those of the policy."""
    bare = replace(World.trust(), roots=(), measurements=())
    return bare.with_policy(policy.sign(keys_of(name).signing))


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    made.platform = Td()  # type: ignore[assignment]
    for name, broker in made.brokers.items():
        trust = trusting(POLICY, name)
        broker.owner = replace(broker.owner, trust=trust, policy=trust.appraisal_policy())
    return made


def contract(world: World) -> Contract:
    return world.agree(enclave=EnclaveTerms(("tdx",), (MEASUREMENT,), "isolated"))


def test_a_run_on_a_trust_domain_ends_in_a_receipt_that_verifies(world: World):
    bundle = world.run(contract(world))
    receipt = verify(bundle, trust=trusting(POLICY, "lab"))
    assert receipt.label == "platform: tdx (Intel TDX)"
    result = receipt.evidence[0]
    assert result.status is Tier.AFFIRMING
    assert result.build == "evaluation room a test"
    assert {check.status for check in result.checks} == {Status.PASSED}
    assert Bundle.parse(bundle.encode()) == bundle


def test_a_trust_file_without_the_platform_does_not_verify_its_receipt(world: World):
    bundle = world.run(contract(world))
    found = examine(bundle, trust=World.trust())
    assert found.receipt is None
    problem = found.transcript.first_problem
    assert problem is not None
    assert (problem.number, problem.code) == ("V9", "attest.platform_not_accepted")
    with pytest.raises(NotVerified):
        verify(bundle, trust=World.trust())


OLD = replace(MACHINE, td={"tee_tcb_svn": b"\x05\x01" + bytes(14)})
REFUSED = {
    "out-of-date firmware": (OLD, "attest.tcb_not_accepted"),
    "a debugged domain": (replace(MACHINE, td={"attributes": bytes.fromhex("0100001000000000")}), "attest.debug"),
    "a migratable domain": (replace(MACHINE, td={"attributes": bytes.fromhex("0000003000000000")}), "attest.terms_not_met"),
    "another image": (replace(MACHINE, td={"mrtd": b"\x12" * 48}), "attest.measurement_not_accepted"),
    "a revoked machine": (
        replace(MACHINE, lists={**CURRENT, PLATFORM_CA: {**CURRENT[PLATFORM_CA], "revoked": (pki_intel.PCK,)}}),
        "attest.revoked",
    ),
    "no revocation list": (replace(MACHINE, without=frozenset({"pck crl"})), "attest.endorsement_missing"),
    "stale collateral": (
        replace(MACHINE, info={"issueDate": pki_intel.time(NOW - 60 * DAY), "nextUpdate": pki_intel.time(NOW - 30 * DAY)}),
        "attest.endorsement_expired",
    ),
    "another's signature": (replace(MACHINE, quote_signer="somebody"), "attest.forged"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_no_key_goes_to(world: World, why: str):
    machine, code = REFUSED[why]
    world.platform = Td(machine)  # type: ignore[assignment]
    with pytest.raises(ReleaseRefused) as caught:
        world.run(contract(world))
    assert caught.value.to_json()["reason"] == code


def test_a_tolerated_advisory_is_tolerated_until_its_date(world: World):
    """An owner accepts an old TCB for a while, by name and until a time; the day after, its broker refuses."""
    world.platform = Td(OLD)  # type: ignore[assignment]
    agreed = contract(world)
    until = dict.fromkeys(("INTEL-SA-00960", "INTEL-SA-01192", "INTEL-SA-01245"), NOW + 10)
    terms = replace(tdx.Terms(), statuses=frozenset({TcbStatus.UP_TO_DATE, TcbStatus.OUT_OF_DATE}), advisories=until)
    for name, broker in world.brokers.items():
        trust = trusting(replace(POLICY, terms={"tdx": terms}), name)
        broker.owner = replace(broker.owner, trust=trust, policy=trust.appraisal_policy())
    world.run(agreed)
    world.clock.now = NOW + 11
    other = world.agree(enclave=EnclaveTerms(("tdx",), (MEASUREMENT,), "isolated"), nonce="ab" * 16)
    with pytest.raises(ReleaseRefused):
        world.run(other)


def test_a_bare_look_is_never_affirming(world: World):
    evidence = Td().produce(b"\x07" * 64)
    result = look(evidence, policy=POLICY, endorsements=Td().endorsements(), bare=Bare(b"\x07" * 64), at=NOW)
    assert result.status is Tier.NONE
    assert {c.number for c in result.checks if c.status is Status.NOT_ESTABLISHED} == {"A5", "A8", "A9"}
    assert result.keyset is None
    other = look(evidence, policy=POLICY, endorsements=Td().endorsements(), bare=Bare(b"\x08" * 64), at=NOW)
    assert other.status is Tier.CONTRAINDICATED
    assert other.problem is not None
    assert other.problem.number == "A6"


# --- devices beside the processor ---------------------------------------------------------------------------------------

GPUS = tuple(
    pki_nvidia.World(device=pki_nvidia.Device(name=name, certificates={1: {"serial": number}}))
    for number, name in enumerate(("one", "two"), 0x51)
)
WITH_GPUS = replace(
    POLICY,
    devices={"nvidia_cc": 2},
    roots={**POLICY.roots, "nvidia_cc": GPUS[0].roots},
    terms={**POLICY.terms, "nvidia_cc": nvidia.Terms()},
)
DOCUMENTS = Endorsements(tuple(dict.fromkeys(d for gpu in GPUS for d in gpu.endorsements.documents)))


def asked(report_data: bytes) -> tuple[Evidence, ...]:
    """What the two GPUs answer to the nonce that follows from the processor's report data."""
    nonce = binding.gpu_nonce(report_data)
    return tuple(replace(gpu, device=replace(gpu.device, nonce=nonce)).evidence for gpu in GPUS)


def elsewhere(_: bytes) -> tuple[Evidence, ...]:
    """GPUs that answer another nonce."""
    return asked(bytes(64))


def with_gpus(world: World) -> World:
    world.platform = Td(beside=DOCUMENTS)  # type: ignore[assignment]
    for name, broker in world.brokers.items():
        trust = trusting(WITH_GPUS, name)
        broker.owner = replace(broker.owner, trust=trust, policy=trust.appraisal_policy())
    return world


def test_a_run_beside_two_gpus_ends_in_a_receipt_that_names_both(world: World):
    bundle = with_gpus(world).run(contract(world), devices=asked)
    receipt = verify(Bundle.parse(bundle.encode()), trust=trusting(WITH_GPUS, "lab"))
    for result in receipt.evidence:
        assert result.status is Tier.AFFIRMING
        assert [device.status for device in result.devices] == [Tier.AFFIRMING] * 2
        bound = next(check for check in result.checks if check.number == "A15")
        assert "rests on what was measured" in bound.detail
        submods = result.to_json()["submods"]
        assert set(submods) == {"tdx", "nvidia_cc-0", "nvidia_cc-1"}


def refused_at(world: World, number: str, code: str, **changes) -> None:
    """A run is refused, and the broker's log says at which check of the appraisal."""
    with pytest.raises(ReleaseRefused) as caught:
        world.run(contract(world), **changes)
    assert caught.value.to_json()["reason"] == code


def test_gpus_elsewhere_that_answer_another_nonce_are_refused(world: World):
    refused_at(with_gpus(world), "A15", "attest.device_not_bound", devices=elsewhere)


def test_one_gpu_in_place_of_two_is_refused(world: World):
    refused_at(with_gpus(world), "A14", "attest.devices_not_accepted", devices=lambda bound: asked(bound)[:1])


def test_no_gpu_where_two_are_asked_for_is_refused(world: World):
    refused_at(with_gpus(world), "A14", "attest.devices_not_accepted")


def test_gpus_that_nobody_asked_for_are_refused(world: World):
    world.platform = Td(beside=DOCUMENTS)  # type: ignore[assignment]
    refused_at(world, "A14", "attest.devices_not_accepted", devices=asked)


def test_one_gpu_that_answers_twice_is_refused(world: World):
    def twice(bound: bytes) -> tuple[Evidence, ...]:
        nonce = binding.gpu_nonce(bound)
        first = replace(GPUS[0].device, nonce=nonce)
        again = replace(first, opaque={4: b"\x01" + bytes(7)})  # other bytes, the same device
        return first.evidence, again.evidence

    refused_at(with_gpus(world), "A14", "attest.devices_not_accepted", devices=twice)


def test_no_manifest_for_a_gpu_is_not_established(world: World):
    with_gpus(world)
    world.platform = Td(beside=Endorsements())  # type: ignore[assignment]
    refused_at(world, "A14", "attest.endorsement_missing", devices=asked)


def composite(report_data: bytes, keyset: Keyset, key: SigningKey, **changes) -> AttestationResult:
    """The appraisal of a processor with two GPUs, whose binding somebody signed with ``key``."""
    evidence = Td().produce(report_data)
    devices = changes.pop("devices", asked)(report_data)
    signed = changes.pop("signed", None) or binding.make(key, report_data, changes.pop("bound", devices))
    return appraise(
        replace(evidence, devices=devices, device_binding=signed),
        policy=WITH_GPUS,
        endorsements=Td(beside=DOCUMENTS).endorsements(),
        nonce=NONCE,
        at=NOW,
        keyset=keyset,
    )


NONCE = b"\x0c" * 32
BINDING_KEY, STRANGER = (SigningKey.from_seed(bytes([n]) * 32) for n in (0x31, 0x32))


def keyset(*, key: SigningKey | None = BINDING_KEY) -> Keyset:
    """A run's keyset, with the key that binds devices or without."""
    agreed = World()
    asker = Asker(agreed, agreed.agree())
    entries = asker.keyset.receipt_signing_keys
    if key is not None:
        entries = (*entries, KeyEntry("device-binding", DEVICE_BINDING_ALGO, key.public.raw.hex()))
    return replace(asker.keyset, receipt_signing_keys=entries)


def ends(result: AttestationResult) -> tuple[str, str]:
    problem = result.problem
    assert problem is not None
    return problem.number, problem.code


def test_devices_bound_by_the_keysets_own_key_are_affirmed():
    found = keyset()
    result = composite(report_data(found.digest, NONCE), found, BINDING_KEY)
    assert result.affirming, ends(result)
    assert result.valid_until == found.not_after


def test_a_result_is_valid_no_longer_than_an_advisory_is_tolerated():
    found, last = keyset(), NOW + 60
    machine = replace(MACHINE, td={"tee_tcb_svn": pki_intel.OLD_SVN})
    terms = tdx.Terms(
        statuses=frozenset({TcbStatus.UP_TO_DATE, TcbStatus.OUT_OF_DATE}),
        advisories={"INTEL-SA-01192": last + 30, "INTEL-SA-01245": last},
    )
    result = appraise(
        Td(machine).produce(report_data(found.digest, NONCE)),
        policy=replace(POLICY, terms={"tdx": terms}),
        endorsements=Td(machine).endorsements(),
        nonce=NONCE,
        at=NOW,
        keyset=found,
    )
    assert result.affirming, ends(result)
    assert result.valid_until == last < found.not_after
    # What an EAR says is no better than the worst claim; what a release is decided by is whether every check passed.
    assert result.require() == found
    assert (result.status, result.processor_status, result.ear_status) == (Tier.AFFIRMING, Tier.WARNING, Tier.WARNING)
    assert result.tolerated == (("tdx", "hardware", last),)
    value = result.to_json()
    assert (value["ear.status"], value["strongroom.affirming"]) == ("warning", True)


def test_terms_that_are_not_met_tolerate_nothing():
    found = keyset()
    machine = replace(MACHINE, td={"tee_tcb_svn": pki_intel.OLD_SVN})
    result = appraise(
        Td(machine).produce(report_data(found.digest, NONCE)),
        policy=POLICY,
        endorsements=Td(machine).endorsements(),
        nonce=NONCE,
        at=NOW,
        keyset=found,
    )
    assert ends(result)[1] == "attest.tcb_not_accepted"
    assert (result.tolerated, result.tolerated_until) == ((), None)
    assert result.ear_status is Tier.CONTRAINDICATED
    assert result.to_json()["strongroom.affirming"] is False


def test_devices_bound_by_a_strangers_key_are_refused():
    found = keyset()
    assert ends(composite(report_data(found.digest, NONCE), found, STRANGER)) == ("A15", "attest.device_not_bound")


def test_devices_swapped_after_they_were_bound_are_refused():
    found = keyset()
    bound = report_data(found.digest, NONCE)
    assert ends(composite(bound, found, BINDING_KEY, bound=asked(bound)[::-1])) == ("A15", "attest.device_not_bound")


def test_a_keyset_without_a_key_for_devices_binds_none():
    found = keyset(key=None)
    assert ends(composite(report_data(found.digest, NONCE), found, BINDING_KEY)) == ("A15", "attest.bad_keyset")


def test_a_binding_for_another_processors_report_is_refused():
    found = keyset()
    bound = report_data(found.digest, NONCE)
    other = binding.make(BINDING_KEY, bytes(64), asked(bound))
    assert ends(composite(bound, found, BINDING_KEY, signed=other)) == ("A15", "attest.device_not_bound")


@pytest.mark.parametrize(
    ("slot", "said"), [("strongroom", "by the nonce alone"), ("wild", "second half"), ("", "by nothing")]
)
def test_a_bare_look_says_by_what_devices_hang_together_with_the_processor(slot: str, said: str):
    bound = b"\x0d" * 32 + NONCE
    nonce = {"strongroom": binding.gpu_nonce(bound), "wild": NONCE, "": bytes(32)}[slot]
    devices = tuple(replace(gpu, device=replace(gpu.device, nonce=nonce)).evidence for gpu in GPUS)
    evidence = replace(Td().produce(bound), devices=devices, device_binding=b"{}")
    result = look(evidence, policy=WITH_GPUS, endorsements=Td(beside=DOCUMENTS).endorsements(), bare=Bare(bound), at=NOW)
    last = result.checks[-1]
    assert (last.number, last.status) == ("A15", Status.NOT_ESTABLISHED)
    assert said in last.detail


def test_a_gpu_that_fails_leaves_the_processor_its_own_status():
    """A14 and A15 are about the devices: the processor's submodule does not answer for them, and the whole does."""
    found = keyset()
    bound = report_data(found.digest, NONCE)
    refusing = replace(WITH_GPUS, terms={**POLICY.terms, "nvidia_cc": nvidia.Terms(architectures={})})
    evidence = replace(
        Td().produce(bound), devices=asked(bound), device_binding=binding.make(BINDING_KEY, bound, asked(bound))
    )
    result = appraise(
        evidence, policy=refusing, endorsements=Td(beside=DOCUMENTS).endorsements(), nonce=NONCE, at=NOW, keyset=found
    )
    assert ends(result)[0] == "A14"
    assert (result.processor_status, result.ear_status) == (Tier.AFFIRMING, Tier.CONTRAINDICATED)
    assert [device.ear_status for device in result.devices] == [Tier.CONTRAINDICATED] * 2
    value = result.to_json()
    assert value["ear.status"] == "contraindicated"
    assert {submod["ear.appraisal-policy-id"] for submod in value["submods"].values()} == {refusing.digest}
    stranger = composite(bound, found, STRANGER)
    assert ends(stranger)[0] == "A15"
    assert (stranger.processor_status, stranger.ear_status) == (Tier.AFFIRMING, Tier.CONTRAINDICATED)


def test_a_gpu_that_is_tolerated_makes_the_whole_a_warning():
    found = keyset()
    bound = report_data(found.digest, NONCE)
    terms = nvidia.Terms(device_revocation="where-given", signer_revocation="where-given")
    silent = Endorsements(tuple(d for d in DOCUMENTS.documents if d.media_type != OCSP_RESPONSE))
    evidence = replace(
        Td().produce(bound), devices=asked(bound), device_binding=binding.make(BINDING_KEY, bound, asked(bound))
    )
    result = appraise(
        evidence,
        policy=replace(WITH_GPUS, terms={**POLICY.terms, "nvidia_cc": terms}),
        endorsements=Td(beside=silent).endorsements(),
        nonce=NONCE,
        at=NOW,
        keyset=found,
    )
    assert result.affirming, ends(result)
    assert (result.processor_status, result.ear_status) == (Tier.AFFIRMING, Tier.WARNING)
    assert [(name, claim) for name, claim, _ in result.tolerated] == [(f"nvidia_cc-{n}", "hardware") for n in (0, 1)]


def linked(devices: tuple[pki_nvidia.Device, ...]) -> AttestationResult:
    """The appraisal of a processor with devices in protected PCIe mode, as many as the policy asks for."""
    found = keyset()
    bound = report_data(found.digest, NONCE)
    worlds = [pki_nvidia.World(device=replace(one, nonce=binding.gpu_nonce(bound))) for one in devices]
    beside = tuple(world.evidence for world in worlds)
    kinds = [one.platform for one in beside]
    documents = Endorsements(tuple(dict.fromkeys(d for world in worlds for d in world.endorsements.documents)))
    policy = replace(
        POLICY,
        devices={kind: kinds.count(kind) for kind in kinds},
        roots={**POLICY.roots, **dict.fromkeys(kinds, worlds[0].roots)},
        terms={
            **POLICY.terms,
            "nvidia_cc": nvidia.Terms(protected_pcie=True),
            "nvidia_switch": nvidia_switch.Terms(),
        },
    )
    return appraise(
        replace(Td().produce(bound), devices=beside, device_binding=binding.make(BINDING_KEY, bound, beside)),
        policy=policy,
        endorsements=Td(beside=documents).endorsements(),
        nonce=NONCE,
        at=NOW,
        keyset=found,
    )


def test_gpus_whose_links_are_open_and_whose_switches_are_there_are_affirmed():
    result = linked(pki_nvidia.protected(2, 1))
    assert result.affirming, ends(result)
    assert result.ear_status is Tier.WARNING  # links in the clear are tolerated, and no more


def test_gpus_whose_links_are_open_and_lead_elsewhere_are_refused():
    """Each is genuine and as many as the policy asks for: a switch that nobody verified reads what they send."""
    result = linked(pki_nvidia.protected(2, 1)[:2])
    assert ends(result) == ("A14", "attest.devices_not_accepted")
    assert "without its switches" in result.problem.detail


@pytest.mark.parametrize(
    ("attributes", "configuration"), [("0100001000000000", 96), ("0000001000000000", 2), ("0000003000000000", 96)]
)
def test_a_look_does_not_lose_that_the_enclave_can_be_debugged(attributes: str, configuration: int):
    """A4 failed, and the terms, judged after it, are met: the worse of the two stays."""
    machine = Td(replace(MACHINE, td={"attributes": bytes.fromhex(attributes)}))
    bound = b"\x0d" * 64
    policy = replace(POLICY, terms={"tdx": tdx.Terms()})
    result = look(machine.produce(bound), policy=policy, endorsements=machine.endorsements(), bare=Bare(bound), at=NOW)
    assert result.vector.configuration == configuration
    assert result.processor_status is (Tier.CONTRAINDICATED if configuration == 96 else Tier.NONE)


def test_zeros_are_no_nonce_that_a_slot_could_repeat():
    """A slot that nobody filled holds zeros; so does the second half of our own report data, and the nonce of a lazy GPU."""
    zeros = bytes(64)
    for nonce in (bytes(1), bytes(32), zeros):
        result = look(Td().produce(zeros), policy=POLICY, endorsements=Td().endorsements(), bare=Bare(nonce), at=NOW)
        assert ends(result) == ("A6", "attest.not_bound")
    bound = report_data(keyset().digest, NONCE)
    devices = tuple(replace(gpu, device=replace(gpu.device, nonce=bytes(32))).evidence for gpu in GPUS)
    evidence = replace(Td().produce(bound), devices=devices, device_binding=b"{}")
    beside = Td(beside=DOCUMENTS).endorsements()
    result = look(evidence, policy=WITH_GPUS, endorsements=beside, bare=Bare(bound), at=NOW)
    assert result.checks[-1].detail == "by nothing"


def test_a_bare_nonce_may_stand_in_the_second_half_of_the_slot():
    result = look(Td().produce(bytes(32) + NONCE), policy=POLICY, endorsements=Td().endorsements(), bare=Bare(NONCE), at=NOW)
    assert next(c.detail for c in result.checks if c.number == "A6").endswith("in the second half of the platform's slot")


def test_a_gpu_that_the_policy_does_not_name_is_refused():
    """Where the policy names machines, it names each device too."""
    found = keyset()
    bound = report_data(found.digest, NONCE)
    devices = asked(bound)
    evidence = replace(Td().produce(bound), devices=devices, device_binding=binding.make(BINDING_KEY, bound, devices))
    whole = composite(bound, found, BINDING_KEY)
    machines = {m for m in (whole.verified.machine, *(device.verified.machine for device in whole.devices)) if m}
    for left_out, number in ((whole.devices[1].verified.machine, "A14"), (whole.verified.machine, "A12"), ("", "")):
        policy = replace(WITH_GPUS, machines=frozenset(machines - {left_out}))
        result = appraise(
            evidence, policy=policy, endorsements=Td(beside=DOCUMENTS).endorsements(), nonce=NONCE, at=NOW, keyset=found
        )
        assert (ends(result)[0] if result.problem else "") == number


def test_a_look_with_a_keyset_judges_it_and_says_that_no_nonce_was_given():
    found = keyset()
    bound = report_data(found.digest, NONCE)
    asking = {"policy": POLICY, "endorsements": Td().endorsements(), "bare": Bare(keyset=found)}
    result = look(Td().produce(bound), at=NOW, **asking)
    left = {check.number: check.detail for check in result.checks if check.status is not Status.PASSED}
    assert left == {"A5": "no nonce was given", "A6": "no nonce was given"}
    assert (result.status, result.keyset, result.valid_until) == (Tier.NONE, None, None)
    assert result.keyset_digest == found.digest
    late = look(Td().produce(bound), at=found.not_after + 1, **asking)
    assert ends(late) == ("A8", "attest.keyset_expired")
    two = replace(found, receipt_signing_keys=())
    assert ends(look(Td().produce(bound), at=NOW, **{**asking, "bare": Bare(keyset=two)}))[0] == "A9"
    unknown = look(Td().produce(bound), at=NOW, **{**asking, "policy": AppraisalPolicy()})
    assert (unknown.keyset_digest, unknown.status) == (found.digest, Tier.CONTRAINDICATED)
    with pytest.raises(ValueError, match="is appraised"):
        Bare(NONCE, found)


def test_devices_alone_are_looked_at_and_bound_to_nothing():
    found = look_at_devices(asked(bytes(64)), policy=WITH_GPUS, endorsements=DOCUMENTS, at=NOW)
    assert [device.status for device in found] == [Tier.AFFIRMING] * 2
    assert look_at_devices(asked(bytes(64)), policy=POLICY, endorsements=DOCUMENTS, at=NOW) == ()
