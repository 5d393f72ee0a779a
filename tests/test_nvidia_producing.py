"""GPUs and the switches between them, as an enclave asks them: NVIDIA's libraries are stood in for."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

import pki_nvidia
from fake_devices import FakeNscq, FakeNvml, gpu, machine_of
from strongroom.app.enclave.platforms import Machine, devices, nscq
from strongroom.app.enclave.platforms.nscq import Switches, library
from strongroom.app.enclave.platforms.nvidia import Gpus
from strongroom.attest.binding import gpu_nonce
from strongroom.attest.nvidia_device import parse
from strongroom.attest.nvidia_terms import Terms
from strongroom.attest.registry import require_together, verifier
from strongroom.errors import MissingExtra, PlatformFailed
from strongroom.transcript import Transcript

DATA = bytes(range(64))
NONCE = gpu_nonce(DATA)
PROTECTED_PCIE, PROTECTED_LINKS = 1, 2
PAGE = Path(__file__).parents[1] / "docs" / "producing.md"


def nobody() -> None:
    raise AssertionError("nobody asked for the switches")


def of(fake: FakeNvml, switches: FakeNscq | None = None) -> Gpus:
    return Gpus(lambda: fake, nobody if switches is None else lambda: switches)


def switches(**changes: object) -> tuple[FakeNscq, Switches]:
    fake = FakeNscq(*machine_of()[1], **changes)
    return fake, Switches(lambda: fake)


# --- the mode ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("feature", "mode", "confidential"),
    [(True, None, True), (False, None, False), (True, 0, True), (False, 0, False), (True, 2, True), (False, 2, True)],
)
def test_the_mode_is_the_newer_librarys_word_or_the_older_ones(feature, mode, confidential):
    found = of(FakeNvml(gpu(), confidential=feature, mode=mode))
    assert found.confidential is confidential
    assert not found.protected_pcie


@pytest.mark.parametrize("feature", [True, False])
def test_gpus_in_protected_pcie_mode_are_in_confidential_mode_whatever_the_older_word_says(feature):
    found = of(FakeNvml(gpu(), confidential=feature, mode=PROTECTED_PCIE), FakeNscq())
    assert found.confidential
    assert found.protected_pcie


def test_a_driver_that_does_not_answer_about_modes_is_asked_in_the_older_way():
    found = of(FakeNvml(gpu(), confidential=True, mode=PROTECTED_PCIE, result=3))
    assert found.confidential
    assert not found.protected_pcie


# --- a machine --------------------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path) -> Machine:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidiactl").touch()
    return Machine(root=tmp_path)


def test_a_machine_in_protected_pcie_mode_gives_evidence_of_gpus_and_switches_that_is_accepted(place):
    gpus, beside = machine_of(8, 4)
    fake = FakeNscq(*beside)
    found, seen = devices(replace(place, nvml=lambda: FakeNvml(*gpus, mode=PROTECTED_PCIE), nscq=lambda: fake))
    assert seen == "8 NVIDIA GPU(s) and 4 switch(es) in protected PCIe mode"
    assert found is not None
    evidence = found.produce(DATA)
    assert [one.platform for one in evidence] == ["nvidia_cc"] * 8 + ["nvidia_switch"] * 4
    assert {parse(one.data).report.nonce for one in evidence} == {NONCE}
    assert fake.open == 0
    verified = []
    for one, device in zip(evidence, pki_nvidia.protected(8, 4), strict=True):
        world = pki_nvidia.World(device, terms=None if device.switch else Terms(protected_pcie=True))
        module = verifier(one.platform)
        assert module is not None
        transcript = Transcript(module.STEPS)
        verified.append(module.verify(one, world.endorsements, roots=world.roots, at=world.at, transcript=transcript))
    require_together([(one.platform, found) for one, found in zip(evidence, verified, strict=True)])
    assert all(one.binds(DATA) for one in verified)


def test_gpus_whose_switches_cannot_be_asked_are_no_devices_and_it_is_said(place):
    machine = replace(place, nvml=lambda: FakeNvml(gpu(), mode=PROTECTED_PCIE))

    def absent() -> None:
        raise MissingExtra("evidence of the switches needs libnvidia-nscq.so.2", hint="Install it")

    for load, why in (
        (absent, "needs libnvidia-nscq.so.2"),
        (lambda: FakeNscq(results={"create": -6}), "refused nscq_session_create: -6"),
        (object, "not as it is known here"),
    ):
        found, seen = devices(replace(machine, nscq=load))
        assert found is None
        assert why in seen
        assert "not in confidential mode" not in seen


def test_switches_are_not_looked_for_where_links_are_protected(place):
    found, seen = devices(replace(place, nvml=lambda: FakeNvml(gpu(), mode=PROTECTED_LINKS), nscq=nobody))
    assert found is not None
    assert seen == "1 NVIDIA GPU(s) in confidential mode"


def test_more_devices_than_evidence_can_carry_are_refused():
    gpus, beside = machine_of(13, 4)
    with pytest.raises(PlatformFailed, match="there are 17 GPUs and switches"):
        of(FakeNvml(*gpus, mode=PROTECTED_PCIE), FakeNscq(*beside)).produce(DATA)


# --- switches ---------------------------------------------------------------------------------------------------------


def test_every_switch_signs_the_nonce_in_the_order_of_their_labels():
    fake, found = switches()
    assert len(found) == 2
    names = [parse(evidence.data).pdi for evidence in found.produce(NONCE)]
    assert names == [pki_nvidia.pdi(name).hex() for name in ("switch0", "switch1")]
    assert fake.nonces[1:] == [NONCE, NONCE]
    assert fake.open == 0


@pytest.mark.parametrize("count", [0, 17])
def test_no_switch_and_more_than_evidence_can_carry_are_refused(count):
    fake = FakeNscq(*machine_of()[1][:1] * count)
    with pytest.raises(PlatformFailed, match=f"there are {count} switches"):
        Switches(lambda: fake).produce(NONCE)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"results": {"create": -6}}, "refused nscq_session_create: -6"),
        ({"results": {"create": 1}}, "refused nscq_session_create: 1"),
        ({"session": None}, "refused nscq_session_create"),
        ({"results": {"observe": -8}}, "refused nscq_session_path_observe: -8"),
        ({"results": {"set_input": -1}}, "refused nscq_session_set_input: -1"),
        ({"results": {"label": -2}}, "which switches there are"),
        ({"results": {"uuid": -7}}, "which switches there are"),
        ({"results": {"uuid": -2}}, "which switches there are"),
        ({"results": {"attestation_report": -7}}, r"did not answer once about /SWX-0/config/attestation_report: \[\(-7"),
        ({"results": {"certificate": 1}}, "did not answer once about /SWX-0/config/certificate"),
        ({"times": 0}, "did not answer once"),
        ({"times": 2}, "did not answer once"),
        ({"sizes": {"attestation_report": 0}}, "did not answer once"),
        ({"sizes": {"attestation_report": 0x2001}}, "did not answer once"),
        ({"sizes": {"certificate": 0x1401}}, "did not answer once"),
        ({"sizes": {"attestation_report": 100}}, "switch /SWX-0 gave no usable evidence"),
    ],
    ids=str,
)
def test_a_library_or_a_switch_that_gives_no_usable_answer_is_said_to(changes, why):
    fake, found = switches(**changes)
    with pytest.raises(PlatformFailed, match=why):
        found.produce(NONCE)
    assert fake.open == 0


def test_a_switch_that_answers_another_nonce_is_refused():
    fake = FakeNscq(lambda _nonce: machine_of()[1][0](bytes(32)))
    with pytest.raises(PlatformFailed, match="another nonce"):
        Switches(lambda: fake).produce(NONCE)


def test_a_machine_without_the_library_says_what_to_install(monkeypatch):
    monkeypatch.setattr(nscq, "LIBRARY", "libno-such-library.so.2")
    with pytest.raises(MissingExtra, match=r"libno-such-library.so.2") as caught:
        library()
    assert "libnvidia-nscq" in caught.value.hint


C = r"""
#include <stdint.h>
#include <string.h>
typedef struct { uint8_t bytes[16]; } uuid;
typedef struct { char data[64]; } label;
typedef struct { uint32_t size; uint8_t data[0x2000]; } report;
typedef struct { uint8_t data[0x1400]; uint32_t size; } chain;
typedef struct { int8_t rc; void *session; } session;
static uint8_t nonce[32];
session nscq_session_create(uint32_t flags) { session found = { flags == 1 ? 0 : -1, nonce }; return found; }
void nscq_session_destroy(void *it) { memset(it, 0, 32); }
int8_t nscq_session_set_input(void *it, uint32_t flags, void *data, uint32_t size) {
    if (it != nonce || flags || size != 32) return -4;
    memcpy(nonce, data, 32);
    return 0;
}
int8_t nscq_uuid_to_label(const uuid *it, label *to, uint32_t flags) {
    memset(to, 0, sizeof *to);
    memcpy(to->data, "SWX-", 4);
    memcpy(to->data + 4, it->bytes, 15);
    return flags ? -1 : 0;
}
int8_t nscq_session_path_observe(void *it, const char *path, void (*call)(void), void *data, uint32_t flags) {
    uuid one = { "FIRST" };
    report reported = { 40, { 0 } };
    chain chained = { "certificates", 12 };
    if (it != nonce || flags) return -1;
    memcpy(reported.data, "reported", 8);
    memcpy(reported.data + 8, nonce, 32);
    if (!strcmp(path, "/drv/nvswitch/{device}/uuid"))
        ((void (*)(const uuid *, int8_t, const uuid *, void *)) call)(&one, 0, &one, data);
    else if (!strcmp(path, "/SWX-FIRST/config/attestation_report"))
        ((void (*)(const uuid *, int8_t, const report, void *)) call)(&one, 0, reported, data);
    else if (!strcmp(path, "/SWX-FIRST/config/certificate"))
        ((void (*)(const uuid *, int8_t, const chain, void *)) call)(&one, 0, chained, data);
    else return -5;
    return 0;
}
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler is here")
def test_a_library_that_is_built_as_nvidias_header_says_is_understood(tmp_path, monkeypatch):
    """Structures by value, in a callback and as a result: what only a compiler can say."""
    source, made = tmp_path / "nscq.c", tmp_path / "libnscq.so"
    source.write_text(C)
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(made), str(source)], check=True)
    asked = []
    monkeypatch.setattr("strongroom.attest.nvidia.evidence", lambda *arguments: asked.append(arguments))
    found = Switches(lambda: ctypes.CDLL(str(made)))
    assert len(found) == 1
    found.produce(NONCE)
    assert asked == [(b"reported" + NONCE, b"certificates", NONCE)]


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_says_what_switches_need():
    text = PAGE.read_text(encoding="utf-8")
    for word in ("`nvidia_switch`", "`libnvidia-nscq`", "protected PCIe mode"):
        assert word in text
