"""GPUs and switches beside one processor: how many of each there must be, and that they are linked to each other alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

import pki_nvidia
from pki_nvidia import Device, protected
from stage import call
from strongroom.app.endorsements import shipped
from strongroom.app.endorsements.provider import EndorsementProvider
from strongroom.attest import binding, nvidia, nvidia_switch
from strongroom.attest.appraisal import appraise
from strongroom.attest.appraisal_policy import AppraisalPolicy
from strongroom.attest.evidence import Endorsements
from strongroom.attest.keyset import report_data
from strongroom.attest.result import AttestationResult
from test_composite import BINDING_KEY, NONCE, POLICY, Td, ends, keyset
from world import NOW

KEYSET = keyset()
BOUND = report_data(KEYSET.digest, NONCE)
ROOTS = pki_nvidia.World().roots


def policy(devices: dict[str, int], *, allowed: bool = True) -> AppraisalPolicy:
    return replace(
        POLICY,
        devices=devices,
        roots={**POLICY.roots, "nvidia_cc": ROOTS, "nvidia_switch": ROOTS},
        terms={
            **POLICY.terms,
            "nvidia_cc": nvidia.Terms(protected_pcie=allowed),
            "nvidia_switch": nvidia_switch.Terms(),
        },
    )


def beside(devices: Iterable[Device], asked: AppraisalPolicy) -> AttestationResult:
    """The appraisal of a processor with these devices, which are bound as they should be."""
    nonce = binding.gpu_nonce(BOUND)
    worlds = [pki_nvidia.World(replace(device, nonce=nonce)) for device in devices]
    documents = Endorsements(tuple(dict.fromkeys(d for world in worlds for d in world.endorsements.documents)))
    evidence = tuple(world.evidence for world in worlds)
    return appraise(
        replace(Td().produce(BOUND), devices=evidence, device_binding=binding.make(BINDING_KEY, BOUND, evidence)),
        policy=asked,
        endorsements=Td(beside=documents).endorsements(),
        nonce=NONCE,
        at=NOW,
        keyset=KEYSET,
    )


def refused(devices: Iterable[Device], asked: AppraisalPolicy, why: str) -> None:
    result = beside(devices, asked)
    assert not result.affirming
    assert ends(result) == ("A14", "attest.devices_not_accepted")
    assert result.problem is not None
    assert why in result.problem.detail


def test_a_policy_asks_for_gpus_and_for_switches():
    result = beside(protected(2, 2), policy({"nvidia_cc": 2, "nvidia_switch": 2}))
    assert result.affirming, ends(result)
    assert set(result.to_json()["submods"]) == {"tdx", "nvidia_cc-0", "nvidia_cc-1", "nvidia_switch-2", "nvidia_switch-3"}


@pytest.mark.parametrize(
    ("devices", "asked"),
    [
        (protected(0, 4), {"nvidia_cc": 2, "nvidia_switch": 2}),
        (protected(2, 2), {"nvidia_cc": 2, "nvidia_switch": 4}),
        (protected(2, 1), {"nvidia_cc": 2, "nvidia_switch": 2}),
    ],
    ids=["switches for gpus", "two short", "one short"],
)
def test_switches_do_not_pass_for_gpus_and_neither_may_be_missing(devices, asked):
    refused(devices, policy(asked), "the policy asks for")


def test_switches_that_nobody_asked_for_are_refused():
    refused(protected(2, 2), policy({"nvidia_cc": 2}), "does not ask for a device of kind 'nvidia_switch'")


def test_a_gpu_in_protected_pcie_mode_is_refused_without_its_switches():
    refused(protected(2, 2)[:2], policy({"nvidia_cc": 2}), "without its switches")


def test_a_gpu_in_protected_pcie_mode_is_refused_with_the_switches_of_another_machine():
    mine, others = protected(1, 1), protected(1, 1, switch0={"opaque": {22: pki_nvidia.pdi("elsewhere")}})
    refused((mine[0], others[1]), policy({"nvidia_cc": 1, "nvidia_switch": 1}), "is linked to")


def test_a_gpu_in_protected_pcie_mode_is_refused_where_the_terms_do_not_allow_it():
    result = beside(protected(1, 1), policy({"nvidia_cc": 1, "nvidia_switch": 1}, allowed=False))
    assert ends(result) == ("A14", "attest.terms_not_met")


# --- what else knows a kind of device by its name ------------------------------------------------------------------------


def test_a_policy_is_drafted_for_eight_gpus_and_four_switches():
    drafted = AppraisalPolicy.from_json(call("attest", "policy", "tdx", "nvidia_cc=8", "nvidia_switch=4", "--json").json)
    assert drafted.devices == {"nvidia_cc": 8, "nvidia_switch": 4}
    assert drafted.terms["nvidia_switch"] == nvidia_switch.Terms()
    assert drafted.roots["nvidia_switch"] == drafted.roots["nvidia_cc"]
    assert drafted.roots["nvidia_switch"].certificates
    assert call("attest", "policy", "tdx", "nvidia_switch", "--json").status == 2


def test_a_switchs_manifest_and_standing_are_asked_for():
    (switch,) = protected(0, 1)
    found = EndorsementProvider(cache=None, web=None, clock=lambda: NOW).collect(switch.evidence, NOW)
    assert [problem.about for problem in found.problems if "BIOS" in problem.about] == [switch_manifest(switch)]
    assert len(found.problems) == 1 + 3  # the manifest, and three certificates of the device
    assert shipped.endorsements("nvidia_switch") == shipped.endorsements("nvidia_cc") != ()


def switch_manifest(switch: Device) -> str:
    (name,) = nvidia.parse(switch.evidence.data).manifest_names
    return f"nvidia-rim:/v1/rim/{name}"
