"""NVIDIA's devices: every check has its attack, on devices of our own maker and on those that NVIDIA made."""

from __future__ import annotations

import base64
import importlib.util
import json
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import FrozenInstanceError, replace
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence_case import Outcome, accepted_flips, flips, names_in_page, run, walk
from pki_certificates import ec_key
from pki_nvidia import (
    AT,
    DAY,
    DRIVER_INDICES,
    ENABLED,
    NONCE,
    REPORT_DATA,
    VBIOS_INDICES,
    Answer,
    Device,
    World,
    answers,
    driver_manifest,
    pdi,
    protected,
    signers,
    value,
    vbios_manifest,
)
from real import cases, read, real
from strongroom import wire
from strongroom.attest import nvidia, nvidia_device, nvidia_switch, ocsp, registry, rim, spdm
from strongroom.attest.endorsements import NVIDIA_RIM, documents
from strongroom.attest.evidence import Endorsement, Endorsements, Evidence, Roots
from strongroom.attest.nvidia_device import Claims, from_sdk, parse
from strongroom.attest.nvidia_links import require_together
from strongroom.attest.nvidia_terms import ANY, Architecture, Software, SwitchTerms, Terms, TokenTerms, Versions
from strongroom.attest.vector import AFFIRMED, APPROVED_AT_START, NO_CLAIM, UNACCEPTABLE
from strongroom.errors import BadEndorsement, BadEvidence, BadField, DevicesNotAccepted, StrongroomError
from strongroom.transcript import Status, Transcript

HOME = Path(__file__).parents[1]
PAGE = HOME / "spec" / "evidence-nvidia.md"
FOLDERS = {"nvidia_cc": nvidia, "nvidia_switch": nvidia_switch}
FILES = sorted(path for name in FOLDERS for path in (HOME / "vectors" / name).glob("*.json"))
PARTS = json.loads((HOME / "vectors" / "nvidia_parts.json").read_bytes())
NVIDIA = Roots(
    certificates=(
        "sha256:a90c4eb5acfd3e3d03a25db6a26b84f720ad0503196c627c21ddd48dd85b06a4",
        "sha256:dec1dc316477aa851eebdf51327ae9f864bc8d89254657ed1e7eb9168af1e1a3",
    )
)
REAL = [case for case in cases("cases_other.json") if case["kind"] == "nvidia"]
WORLD = World()
GOOD = WORLD.evidence.data


@cache
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_nvidia", HOME / "vectors" / "make_nvidia.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def made() -> tuple[dict, dict]:
    """What the script would write, once for both tests of it."""
    return maker().all_cases()


def of(world: World) -> Outcome:
    verifier = FOLDERS[world.device.platform]
    return walk(verifier, world.evidence, world.endorsements, world.roots, world.at, world.terms)


# --- vectors and page -------------------------------------------------------------------------------------------------


def test_the_vectors_are_those_that_their_script_writes():
    cases, shared = made()
    assert shared == PARTS
    for name in FOLDERS:
        files = {path.stem: json.loads(path.read_bytes()) for path in FILES if path.parent.name == name}
        assert files == cases[name] != {}


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_vector(path):
    case = maker().joined(json.loads(path.read_bytes()), PARTS)
    outcome = run(FOLDERS[path.parent.name], case)
    assert (outcome.code, outcome.number) == (case["expect"], case["fails"])
    if case["fails"] != "G1":
        assert parse(wire.unb64(case["evidence"])).encode() == wire.unb64(case["evidence"])


def test_every_numbered_check_is_failed_by_some_vector():
    failed = {json.loads(path.read_bytes())["fails"] for path in FILES if path.parent.name == "nvidia_cc"} - {""}
    assert failed == {number for number, _ in (*nvidia.STEPS, *nvidia.TERMS_STEPS)}


def test_the_page_numbers_the_checks_as_the_code_does():
    assert names_in_page(PAGE, "G") == dict(nvidia.STEPS)
    assert names_in_page(PAGE, "GT") == dict(nvidia.TERMS_STEPS)


def test_the_page_shows_the_terms_as_they_are_written():
    blocks = [block.split("```")[0] for block in PAGE.read_text(encoding="utf-8").split("```json\n")[1:]]
    shown = [json.loads(block) for block in blocks]
    assert Terms().to_json() in shown
    assert SwitchTerms().to_json() in shown
    assert TokenTerms().to_json() in shown
    assert json.loads(json.dumps(Terms.from_json(shown[0]).to_json())) == shown[0]


# --- what a good device says ------------------------------------------------------------------------------------------


def test_a_good_device_says_what_it_is_what_it_measured_and_for_whom():
    outcome = of(WORLD)
    verified = outcome.verified
    assert outcome.code == "ok"
    assert verified.nonce == verified.report_data == NONCE
    assert verified.binds(REPORT_DATA)
    assert not verified.binds(bytes(64))
    assert not verified.binds(REPORT_DATA[:32])
    assert verified.measurement.registers == {
        "driver_manifest": rim.parse(driver_manifest().data).digest,
        "vbios_manifest": rim.parse(vbios_manifest().data).digest,
    }
    assert verified.architecture is Architecture.HOPPER
    assert (verified.driver_version, verified.vbios_version) == ("580.95.05", "96.00.A5.00.01")
    assert verified.debug is False
    assert verified.produced_at is None
    assert verified.valid_until == AT + DAY
    assert verified.machine == f"serial:{WORLD.device.path[1].serial:x}"
    assert verified.ueid == str(WORLD.device.path[0].serial)
    assert (verified.unsaid_devices, verified.unsaid_signers) == ((), ())
    assert len(verified.collateral) == 4 + 2 + 6
    assert outcome.vector.instance_identity == outcome.vector.hardware == AFFIRMED
    assert outcome.vector.executables == APPROVED_AT_START
    assert outcome.vector.runtime_opaque == NO_CLAIM  # nothing in the report says that memory is encrypted
    assert verified.claims.hardware_model == "GH100 A01 GSP BROM"


def test_an_answer_about_the_leaf_is_left_alone():
    """Its issuer is the device itself: a stolen device could say anything of it, and NVIDIA nothing."""
    leaf, device = WORLD.device.path[:2]
    said = Answer(leaf, device, ec_key("forger"), status="revoked")
    assert of(World(answers=(*answers(WORLD.device, WORLD.held), said))).code == "ok"


def test_a_manifest_that_was_signed_anew_measures_the_same():
    path = signers(until=AT + 500 * DAY)
    manifests = (driver_manifest(path=path), vbios_manifest(path=path, whole=True))
    again = of(World(manifests=manifests))
    assert again.code == "ok"
    assert again.verified.measurement == of(WORLD).verified.measurement


def test_another_driver_measures_otherwise():
    device = Device(driver="580.95.06")
    outcome = of(World(device))
    assert outcome.code == "ok"
    assert outcome.verified.measurement != of(WORLD).verified.measurement


def test_other_firmware_does_not_make_it_another_device():
    other = of(World(Device(firmware=value(0), certificates={0: {"subject": "GH100 A02 GSP FMC LF"}}))).verified
    assert other.ueid != of(WORLD).verified.ueid
    assert other.machine == of(WORLD).verified.machine


def test_two_devices_are_two():
    other = of(World(Device(name="b", certificates={0: {"issuer": "GH100 B"}, 1: {"subject": "GH100 B"}}), answers=()))
    assert other.verified.machine != of(WORLD).verified.machine


@pytest.mark.parametrize(
    ("world", "hardware"),
    [
        (World(answers=()), UNACCEPTABLE),
        (World(answers=(), terms=Terms(device_revocation="where-given", signer_revocation="where-given")), 32),
        (World(terms=Terms({})), UNACCEPTABLE),
    ],
    ids=["nothing said", "tolerated", "refused"],
)
def test_what_is_tolerated_is_not_affirmed(world, hardware):
    assert of(world).vector.hardware == hardware


def test_what_nobody_said_is_not_established_and_not_failed():
    outcome = of(World(answers=()))
    assert outcome.check("GT5").status is outcome.check("GT6").status is Status.NOT_ESTABLISHED
    assert of(World(manifests=())).check("G6").status is Status.NOT_ESTABLISHED


def test_signers_that_expire_do_not_bound_what_was_accepted_after_they_did():
    path = signers(until=AT - DAY)
    manifests = (driver_manifest(path=path), vbios_manifest(path=path))
    verified = of(World(manifests=manifests, terms=Terms(signers_expired_days=1))).verified
    assert verified.signers_until == AT - DAY
    assert verified.valid_until == AT + DAY
    lasting = World(at=AT + 10 * DAY, answers=(), terms=Terms(device_revocation="where-given"))
    assert of(lasting).verified.valid_until == AT + 400 * DAY


def test_only_verify_makes_it():
    with pytest.raises(TypeError):
        nvidia.NvidiaVerified(
            claims=parse(GOOD),
            measurement=of(WORLD).verified.measurement,
            valid_until=AT,
            collateral=(),
            signers_until=AT,
            unsaid_devices=(),
            unsaid_signers=(),
            maker=object(),
        )
    with pytest.raises(FrozenInstanceError):
        of(WORLD).verified.valid_until = 0


# --- switches, and devices together -----------------------------------------------------------------------------------

SWITCH = World(Device(chip="LS_10", count=31, vbios="96.10.55.00.01"))


def proven(device: Device) -> nvidia.NvidiaVerified:
    return of(World(device, terms=None if device.switch else Terms(protected_pcie=True))).verified


def together(devices: Iterable[Device]) -> str:
    """Why these devices are not accepted together, or ``""``."""
    try:
        registry.require_together([(device.platform, proven(device)) for device in devices])
    except DevicesNotAccepted as error:
        return error.message
    return ""


def test_a_switch_is_a_kind_of_device_of_its_own():
    outcome = of(SWITCH)
    assert outcome.code == "ok"
    assert SWITCH.evidence.platform == outcome.verified.measurement.platform == nvidia_switch.PLATFORM == "nvidia_switch"
    assert registry.verifier("nvidia_switch") is nvidia_switch
    assert {"nvidia_cc", "nvidia_switch"} <= registry.DEVICES
    assert nvidia_switch.STEPS is nvidia.STEPS
    assert nvidia_switch.TERMS_STEPS is nvidia.TERMS_STEPS
    assert nvidia_switch.LABEL != nvidia.LABEL
    assert set(outcome.verified.measurement.registers) == {"vbios_manifest"}
    assert outcome.verified.claims.pdi == pdi("a").hex()
    assert proven(WORLD.device).claims.pdi is None
    assert nvidia_switch.tolerated_until(outcome.verified, SwitchTerms(signers_expired_days=1)) == AT + 401 * DAY


@pytest.mark.parametrize("world", [WORLD, SWITCH], ids=["gpu", "switch"])
def test_one_kind_of_device_does_not_pass_for_the_other(world):
    other = {"nvidia_cc": "nvidia_switch", "nvidia_switch": "nvidia_cc"}[world.evidence.platform]
    evidence = Evidence(other, world.evidence.data)
    outcome = walk(FOLDERS[other], evidence, world.endorsements, world.roots, world.at)
    assert (outcome.code, outcome.number) == ("attest.bad_evidence", "G1")
    assert f"stands where a {other} should" in outcome.check("G1").detail


def test_a_switch_that_says_its_mode_is_not_held_to_it():
    device = replace(SWITCH.device, opaque={21: ENABLED})
    assert of(World(device)).code == "ok"


def test_a_gpu_names_the_switches_that_its_links_lead_to():
    gpu, _, switch, _ = protected()
    names = {pdi("switch0").hex(), pdi("switch1").hex()}
    assert proven(gpu).claims.linked == names
    assert proven(switch).claims.pdi in names
    assert proven(switch).claims.linked == {pdi("gpu0").hex(), pdi("gpu1").hex()}
    assert proven(WORLD.device).claims.linked == frozenset()


@pytest.mark.parametrize(("gpus", "switches"), [(1, 1), (2, 2), (8, 4)])
def test_gpus_in_protected_pcie_mode_are_accepted_with_exactly_their_switches(gpus, switches):
    devices = protected(gpus, switches)
    assert together(devices) == ""
    assert together(reversed(devices)) == ""


def test_a_gpu_in_protected_pcie_mode_without_its_switches_is_refused():
    assert "without its switches" in together(protected(2, 2)[:2])


def test_a_switch_that_is_missing_or_another_is_refused():
    first, second, switch, other = protected()
    assert "is linked to" in together((first, second, switch))
    stranger = replace(other, opaque={**other.opaque, 22: pdi("elsewhere")})
    assert "is linked to" in together((first, second, switch, stranger))
    assert "is linked to" in together((*protected(), *protected(2, 3)[4:]))


def test_a_switch_that_names_itself_as_another_or_not_at_all_is_refused():
    first, second, switch, other = protected()
    for name in (pdi("switch0"), None):
        again = replace(other, opaque={**other.opaque, 22: name})
        assert "each once and with its name" in together((first, second, switch, again))


def test_a_gpu_on_the_links_that_nobody_verified_is_refused():
    first, second, switch, other = protected()
    assert "is linked to 2 GPUs or others, and there are 1" in together((first, switch, other))
    table = switch.opaque[26]
    elsewhere = replace(other, opaque={**other.opaque, 26: pdi("elsewhere") + table[8:]})
    assert "GPUs or others" in together((first, second, switch, elsewhere))
    silent = replace(other, opaque={**other.opaque, 26: None})
    assert "is linked to 0 GPUs" in together((first, second, switch, silent))


def test_a_gpu_that_names_no_switch_or_others_than_its_neighbour_is_refused():
    first, second, *switches = protected()
    for links in (None, bytes(16), pdi("switch0")[::-1], pdi("switch0") + pdi("switch1")):
        silent = replace(second, opaque={**second.opaque, 22: links})
        assert "is linked to" in together((first, silent, *switches))
    assert "is linked to nothing" in together((replace(second, opaque={**second.opaque, 22: None}), first, *switches))


def test_gpus_in_two_modes_are_refused_together():
    first, _, *switches = protected()
    assert "beside one that is not" in together((first, Device(name="gpu1"), *switches))


def test_gpus_whose_links_are_protected_stand_with_switches_or_without():
    assert together((WORLD.device, Device(name="b"))) == ""
    assert together((WORLD.device, SWITCH.device)) == ""
    assert together((SWITCH.device,)) == ""
    assert together(()) == ""


def test_devices_of_another_kind_are_not_held_against_nvidias():
    assert require_together([object()]) is None
    assert registry.require_together([("nras", object()), ("tdx", object()), ("nobody", object())]) is None


def test_a_check_of_devices_together_that_fails_is_not_passed(monkeypatch):
    def broken(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(nvidia, "require_together", broken)
    with pytest.raises(DevicesNotAccepted, match="ZeroDivisionError"):
        registry.require_together([("nvidia_cc", proven(WORLD.device))])


# --- bytes ------------------------------------------------------------------------------------------------------------


def test_evidence_over_its_limit_is_refused_unread():
    with pytest.raises(BadEvidence, match="bytes"):
        parse(GOOD + bytes(nvidia_device.MAX_EVIDENCE_BYTES))
    with pytest.raises(BadEvidence, match="longer than"):
        spdm.parse(bytes(spdm.MAX_REPORT_BYTES + 1))


@given(st.binary(max_size=400))
def test_any_bytes_are_refused_or_come_out_as_they_went_in(data):
    with suppress(BadEvidence):
        assert parse(data).encode() == data


_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(["arch", "certificates", "report", "x"]), _values)
def test_a_member_of_any_kind_is_refused(name, found):
    with pytest.raises(BadEvidence):
        parse(wire.encode({**WORLD.device.container, name: found}))


@given(st.integers(0, 3600), st.binary(min_size=1, max_size=4))
def test_a_report_of_any_bytes_is_refused_or_is_what_it_was_read_from(at, data):
    report = WORLD.device.report
    changed = report[:at] + data + report[at + len(data) :]
    with suppress(BadEvidence):
        found = spdm.parse(changed)
        assert found.data == changed
        assert found.signed + found.signature == changed
        blocks = b"".join(bytes([i, 1, 51, 0]) for i in found.measurements)
        assert len(blocks) == 4 * 64


@given(st.binary(min_size=175, max_size=400))
def test_a_report_of_random_bytes_is_refused(data):
    with pytest.raises(BadEvidence):
        spdm.parse(b"\x11\xe0\x01\xff" + data)


@given(st.integers(0, len(GOOD) - 1))
def test_evidence_cut_short_is_refused(size):
    with pytest.raises(BadEvidence):
        parse(GOOD[:size])


def accepts(data: bytes, world: World) -> bool:
    return walk(nvidia, Evidence("nvidia_cc", data), world.endorsements, world.roots, world.at, world.terms).code == "ok"


def all_flips(world: World = WORLD, *, sample: int | None = None) -> list[int]:
    """The bits of the evidence whose change nobody notices, for the soak: there are none."""
    return accepted_flips(world.evidence.data, lambda flipped: accepts(flipped, world), sample=sample)


def test_a_flipped_bit_is_noticed():
    assert all_flips(sample=200) == []


def report_flips(*, sample: int | None = None) -> list[int]:
    """Likewise of the report's own bytes."""

    def accepted(flipped: bytes) -> bool:
        return accepts(wire.encode({**WORLD.device.container, "report": wire.b64(flipped)}), WORLD)

    return accepted_flips(WORLD.device.report, accepted, sample=sample)


def test_a_flipped_bit_of_the_report_is_noticed():
    assert report_flips(sample=150) == []


def answer_flips(*, sample: int | None = None) -> list[int]:
    """Likewise of an OCSP response's: one that is altered is refused, or is about something else."""
    held = answers(WORLD.device, WORLD.held)
    rest = tuple(Endorsement("application/ocsp-response", a.data) for a in held[1:])
    manifests = tuple(Endorsement(NVIDIA_RIM, manifest.data) for manifest in WORLD.held)

    def accepted(flipped: bytes) -> bool:
        found = Endorsements((*manifests, *rest, Endorsement("application/ocsp-response", flipped)))
        return walk(nvidia, WORLD.evidence, found, WORLD.roots, AT).code == "ok"

    return accepted_flips(held[0].data, accepted, sample=sample)


def test_a_flipped_bit_of_an_ocsp_response_is_noticed():
    assert answer_flips(sample=120) == []


def test_verify_raises_typed_errors_alone():
    for bit, flipped in flips(GOOD, sample=200):
        try:
            nvidia.verify(
                Evidence("nvidia_cc", flipped),
                WORLD.endorsements,
                roots=WORLD.roots,
                at=AT,
                transcript=Transcript(nvidia.STEPS),
            )
        except StrongroomError:
            continue
        pytest.fail(f"bit {bit}")


# --- other forms of the same ------------------------------------------------------------------------------------------


def test_a_list_of_the_sdk_is_read():
    two = [WORLD.device.entry, Device(chip="LS_10", count=31, vbios="96.10.55.00.01").entry]
    found = from_sdk(json.dumps([{**two[0], "driver": "x"}, two[1]], indent=2).encode())
    assert found[0] == WORLD.evidence
    assert parse(found[1].data).architecture is Architecture.LS10
    assert [evidence.platform for evidence in found] == ["nvidia_cc", "nvidia_switch"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"[1]",
        json.dumps([{**WORLD.device.entry, "nonce": "00" * 32}]).encode(),
        json.dumps([{**WORLD.device.entry, "arch": "LS10"}]).encode(),
        json.dumps([{**WORLD.device.entry, "certificate": ""}]).encode(),
        json.dumps([{**WORLD.device.entry, "certificate": wire.b64(b"no PEM")}]).encode(),
        json.dumps([{**WORLD.device.entry, "evidence": "*"}]).encode(),
    ],
    ids=["nothing", "object", "none", "number", "nonce", "architecture", "no certificate", "certificate", "evidence"],
)
def test_another_list_is_refused(data):
    with pytest.raises(BadEvidence):
        from_sdk(data)


def test_a_list_of_the_sdk_over_its_limit_is_refused_unread():
    most = nvidia_device.MAX_SDK_BYTES
    assert from_sdk(json.dumps([WORLD.device.entry]).encode().ljust(most)) == (WORLD.evidence,)
    with pytest.raises(BadEvidence, match="bytes"):
        from_sdk(json.dumps([WORLD.device.entry]).encode().ljust(most + 1))
    assert "4,194,304 bytes" in PAGE.read_text(encoding="utf-8")


_ENTRY = SWITCH.device.entry
_anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.binary(max_size=8).map(wire.b64),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*_ENTRY, "more"]), inner, max_size=3),
    max_leaves=6,
)


@given(st.binary(max_size=300) | _anything.map(lambda value: json.dumps(value).encode()))
def test_any_list_of_the_sdk_is_refused_or_is_of_devices(data):
    with pytest.raises(BadEvidence):
        from_sdk(data)


@given(st.sampled_from(sorted(_ENTRY)), _anything)
def test_a_list_of_the_sdk_with_a_member_of_any_kind_is_refused_or_says_the_same(name, found):
    try:
        (evidence,) = from_sdk(json.dumps([{**_ENTRY, name: found}]).encode())
    except BadEvidence:
        return
    assert evidence == SWITCH.evidence


@given(st.integers(0, len(json.dumps([_ENTRY])) - 1), st.integers(0, 255))
def test_a_list_of_the_sdk_with_one_byte_changed_is_refused_or_is_of_a_device(at, byte):
    data = bytearray(json.dumps([_ENTRY]).encode())
    data[at] = byte
    try:
        found = from_sdk(bytes(data))
    except BadEvidence:
        return
    assert [parse(evidence.data).encode() for evidence in found] == [evidence.data for evidence in found]


def test_what_a_library_answers_becomes_evidence():
    device = WORLD.device
    assert nvidia.evidence(device.report, device.pem + bytes(100), NONCE) == WORLD.evidence
    assert nvidia.evidence(device.report, device.pem) == WORLD.evidence
    with pytest.raises(BadEvidence, match="another nonce"):
        nvidia.evidence(device.report, device.pem, bytes(32))
    with pytest.raises(BadEvidence, match="certificates"):
        nvidia.evidence(device.report, b"")
    with pytest.raises(BadEvidence, match="not known"):
        nvidia.evidence(device.report, Device(chip="XX100").pem)


def test_what_manifests_are_called():
    assert parse(GOOD).manifest_names == ("NV_GPU_DRIVER_GH100_580.95.05", "NV_GPU_VBIOS_G520_0200_885_9600A50001")
    blackwell = Device(chip="GB100", vbios="97.00.88.00.0F")
    assert parse(blackwell.evidence.data).manifest_names[0] == "NV_GPU_CC_DRIVER_GB100_580.95.05"
    named = replace(blackwell, chip="GB202", opaque={35: b"GB20X\0"})
    assert parse(named.evidence.data).manifest_names[0] == "NV_GPU_CC_DRIVER_GB20X_580.95.05"
    switch = Device(chip="LS_10", count=31, vbios="96.10.55.00.0A")
    assert parse(switch.evidence.data).manifest_names == ("NV_SWITCH_BIOS_5612_0002_890_961055000a",)
    with pytest.raises(BadEvidence, match="board"):
        _ = parse(Device(opaque={17: b"../..\0"}).evidence.data).manifest_names


def test_a_device_without_a_number_is_none():
    path = list(parse(GOOD).certificates)
    path[1] = replace(path[1])
    object.__setattr__(path[1], "serial", 0)
    with pytest.raises(BadEvidence, match="number"):
        Claims(Architecture.HOPPER, tuple(path), parse(GOOD).report)
    with pytest.raises(BadEvidence, match="certificates"):
        Claims(Architecture.HOPPER, tuple(path[:4]), parse(GOOD).report)


def test_a_leaf_need_not_name_firmware_where_the_report_does_not():
    device = Device(firmware=None)
    assert parse(device.evidence.data).certified_firmware_id is None
    assert of(World(device)).code == "ok"


# --- OCSP -------------------------------------------------------------------------------------------------------------


def test_an_issuer_with_an_rsa_key_is_asked_too():
    """Its key is hashed by another rule; a response about none of its certificates is about none."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    from pki_certificates import authority

    pem = (HOME / "tests" / "keys" / "tpm_rsa.pem").read_bytes()
    key = load_pem_private_key(pem, None)
    issuer = authority("rsa", "rsa", AT - DAY, AT + DAY, key=key, signer=key)
    path = WORLD.device.path
    found = ocsp.Response(Answer(path[1], path[2], ec_key(WORLD.device.names[2])).data)
    assert found.names(path[1], path[2])
    assert not found.names(path[1], issuer)
    assert ocsp._key_bits(issuer) == key.public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1)
    assert not found._signed_by(issuer)
    assert found.digest.startswith("sha256:")


def test_a_signature_of_another_length_is_none():
    held = answers(WORLD.device, WORLD.held)[0]
    longer = replace(held, signer=_Long())
    with pytest.raises(BadEndorsement, match="whole bytes"):
        ocsp.Response(longer.data)


class _Long:
    """A key whose signatures are longer than any on a curve."""

    def sign(self, data: bytes, algorithm: object) -> bytes:
        return bytes(200)


def test_the_same_answer_twice_is_one():
    held = answers(WORLD.device, WORLD.held)
    assert of(World(answers=(*held, *held))).code == "ok"


# --- terms ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"architectures": {"RUBIN": {"driver": "any-version", "vbios": "any-version"}}},
        {"architectures": []},
        {"architectures": {"HOPPER": {"driver": None, "vbios": "any-version"}}},
        {"architectures": {"HOPPER": {"vbios": "any-version"}}},
        {"architectures": {"LS10": {"driver": "any-version", "vbios": "any-version"}}},
        {"architectures": {"LS10": {"vbios": "any-version"}}},
        {"architectures": {"HOPPER": {"driver": "any", "vbios": "any-version"}}},
        {"architectures": {"HOPPER": {"driver": {"at_least": "new"}, "vbios": "any-version"}}},
        {"architectures": {"HOPPER": {"driver": {"at_least": 580}, "vbios": "any-version"}}},
        {"architectures": {"HOPPER": {"driver": {"at_least": "580", "one_of": []}, "vbios": "any-version"}}},
        {"architectures": {"HOPPER": {"driver": {"one_of": ["2.0", "1.0"]}, "vbios": "any-version"}}},
        {"architectures": {"HOPPER": {"driver": "any-version", "vbios": {"at_least": "96.0"}}}},
        {"architectures": {"HOPPER": {"driver": "any-version"}}},
        {"device_revocation": "no"},
        {"signer_revocation": ""},
        {"signers_expired_days": -1},
        {"signers_expired_days": 3651},
        {"protected_pcie": 1},
        {"more": 1},
    ],
    ids=str,
)
def test_terms_that_cannot_be_read_are_refused(change):
    with pytest.raises(BadField):
        Terms.from_json({**Terms().to_json(), **change})


@pytest.mark.parametrize(
    "change",
    [
        {"architectures": {"LS10": {"driver": "any-version", "vbios": "any-version"}}},
        {"architectures": {"LS10": {"driver": None, "vbios": "any-version"}}},
        {"architectures": {"HOPPER": {"driver": "any-version", "vbios": "any-version"}}},
        {"signers_expired_days": 3651},
        {"device_revocation": "no"},
        {"protected_pcie": True},
    ],
    ids=str,
)
def test_terms_of_switches_that_cannot_be_read_are_refused(change):
    with pytest.raises(BadField):
        SwitchTerms.from_json({**SwitchTerms().to_json(), **change})


def test_every_member_of_the_terms_must_be_there():
    for kind in (Terms, SwitchTerms, TokenTerms):
        for name in kind().to_json():
            left = {k: v for k, v in kind().to_json().items() if k != name}
            with pytest.raises(BadField):
                kind.from_json(left)
        assert kind.from_json(kind().to_json()) == kind()


def test_terms_without_sense_are_refused():
    for make in (
        lambda: Versions(at_least="1", any_version=True),
        lambda: Versions(at_least="1", one_of=frozenset({"1"})),
        lambda: Versions(one_of=frozenset(map(str, range(65)))),
        lambda: Terms(device_revocation="perhaps"),
        lambda: Terms(signers_expired_days=4000),
        lambda: Terms({Architecture.HOPPER: Software(ANY, None)}),
        lambda: SwitchTerms({Architecture.LS10: Software(ANY, ANY)}),
        lambda: TokenTerms(revocation="perhaps"),
        lambda: TokenTerms({Architecture.LS10: Software(ANY, None)}),
        lambda: TokenTerms.from_json(
            {"architectures": {"LS10": {"driver": None, "vbios": "any-version"}}, "revocation": "required"}
        ),
    ):
        with pytest.raises(BadField):
            make()


def test_versions_are_said_in_words():
    assert str(ANY) == "any"
    assert str(Versions(at_least="580")) == "580 or later"
    assert str(Versions(one_of=frozenset({"1", "2"}))) == "one of 2"


@given(st.lists(st.integers(0, 999), min_size=2, max_size=4), st.lists(st.integers(0, 999), min_size=1, max_size=4))
def test_a_floor_is_a_floor_of_numbers(version, floor):
    said = Versions(at_least=".".join(map(str, floor)))
    assert said.accept(".".join(map(str, version)), 10) is (tuple(version) >= tuple(floor))


_versions = st.one_of(
    st.just(ANY),
    st.just(Versions()),
    st.builds(Versions, at_least=st.sampled_from(["96", "97.00", "580.95"][:2])),
    st.builds(lambda s: Versions(one_of=s), st.frozensets(st.sampled_from(["96.00", "97.00.88"]), max_size=2)),
)


@given(
    st.dictionaries(
        st.sampled_from([Architecture.HOPPER, Architecture.BLACKWELL]), st.builds(Software, _versions, _versions)
    ),
    st.integers(0, 3650),
    st.booleans(),
)
def test_terms_come_out_as_they_went_in(architectures, days, pcie):
    try:
        terms = Terms(architectures, signers_expired_days=days, protected_pcie=pcie)
    except BadField:
        return
    assert Terms.from_json(json.loads(wire.encode(terms.to_json()))) == terms


@given(_versions, st.integers(0, 3650))
def test_terms_of_switches_come_out_as_they_went_in(versions, days):
    terms = SwitchTerms({Architecture.LS10: Software(versions, None)}, signers_expired_days=days)
    assert SwitchTerms.from_json(json.loads(wire.encode(terms.to_json()))) == terms


# --- what NVIDIA's devices said ---------------------------------------------------------------------------------------


def real_evidence(case: dict) -> Evidence:
    name = case["file"]
    if name.endswith(".json"):
        return from_sdk(read(name))[case["index"]]
    certificates = {"h100_badsig": "h100_535"}.get(Path(name).stem, Path(name).stem)
    return nvidia.evidence(read(name), read(f"nvidia/{certificates}.certs.pem"))


@real
@pytest.mark.parametrize("case", REAL, ids=lambda c: c["file"])
def test_what_nvidias_devices_said_comes_out_as_the_cases_say(case):
    evidence = real_evidence(case)
    claims = parse(evidence.data)
    assert claims.encode() == evidence.data
    assert claims.driver_version == case["driver"]
    assert claims.report.opaque[spdm.VBIOS_VERSION][::-1].hex() == case["vbios"]
    assert claims.certificates[0].subject == case["leaf"]
    assert claims.report.nonce.hex() == case["nonce"]
    assert case["trailing"] == 0
    outcome = walk(FOLDERS[evidence.platform], evidence, Endorsements(), NVIDIA, 1_750_000_000)
    assert (evidence.platform == "nvidia_switch") is ("switch" in case["file"])
    assert case["chain"] is case["nvidia_root"] is True
    assert outcome.check("G2").status is Status.PASSED
    if case["signature"] is not True:
        assert (outcome.code, outcome.number) == ("attest.forged", "G3")
        return
    assert outcome.check("G3").status is outcome.check("G4").status is Status.PASSED
    # Nobody kept the manifests of these devices, nor what was said of their certificates: that is not established.
    assert (outcome.code, outcome.number) == ("attest.endorsement_missing", "G6")
    assert "nothing is said" in outcome.check("G5").detail


@real
def test_what_real_devices_say_of_their_links_is_read():
    (gpu,) = from_sdk(read("nvidia/sdk_hopper_590.json"))
    claims = parse(gpu.data)
    assert claims.protected_pcie
    assert len(claims.linked) == 4  # the switches of a machine with eight GPUs
    with pytest.raises(DevicesNotAccepted, match="without its switches"):
        require_together([SimpleNamespace(claims=claims)])
    (switch,) = from_sdk(read("nvidia/sdk_switch_ls10.json"))
    claims = parse(switch.data)
    assert claims.pdi == "203eb31ad9ed0008"
    assert len(claims.linked) == 7  # two of the eight that it lists are one


@real
def test_there_are_cases():
    assert len(REAL) == 7


@real
def test_a_certificate_on_hold_is_known_by_ocsp_alone():
    """The sample's chain and signature are good; without an answer of NVIDIA's its standing is not established."""
    (evidence,) = from_sdk(read("nvidia/sdk_hopper_cert_hold.json"))
    outcome = walk(nvidia, evidence, Endorsements(), NVIDIA, 1_750_000_000)
    assert outcome.check("G5").detail == "0 stand; of 3 nothing is said"
    assert outcome.code != "ok"


@real
@pytest.mark.parametrize(
    ("manifest", "other"), [("rim_vbios_96005E0001.xml", []), ("rim_vbios_96005E0001_mismatch.xml", [9])]
)
def test_what_a_real_device_measured_is_what_its_manifest_defines(manifest, other):
    claims = parse(nvidia.evidence(read("nvidia/h100_535.report"), read("nvidia/h100_535.certs.pem")).data)
    found = rim.parse(read(f"nvidia/{manifest}"))
    assert found.version == claims.vbios_version
    assert found.product == claims.chip
    differ = [i for i, values in found.measurements.items() if claims.report.measurements[i + 1] not in values]
    assert len(found.measurements) == 12
    assert differ == other


@real
def test_a_manifest_that_was_tampered_with_ends_a_real_device():
    evidence = nvidia.evidence(read("nvidia/h100_535.report"), read("nvidia/h100_535.certs.pem"))
    held = documents(
        (NVIDIA_RIM, read(f"nvidia/{name}")) for name in ("rim_vbios_96005E0001.xml", "rim_driver_535_mismatch.xml")
    )
    outcome = walk(nvidia, evidence, held, NVIDIA, 1_750_000_000)
    assert (outcome.code, outcome.number) == ("attest.bad_endorsement", "G7")


@real
def test_a_real_report_does_not_lead_to_another_root():
    evidence = nvidia.evidence(read("nvidia/gb100_575.report"), read("nvidia/gb100_575.certs.pem"))
    assert walk(nvidia, evidence, Endorsements(), WORLD.roots, AT).code == "attest.unknown_root"


@real
def test_firmware_is_what_the_leaf_was_made_for_on_both_generations():
    for name in ("h100_570", "gb100_575"):
        claims = parse(nvidia.evidence(read(f"nvidia/{name}.report"), read(f"nvidia/{name}.certs.pem")).data)
        assert claims.firmware_id == claims.certified_firmware_id is not None


@real
def test_a_flipped_bit_of_a_real_report_is_noticed():
    """Up to the manifests, which nobody kept: a report that was changed does not get that far."""
    report, pem = read("nvidia/h100_570.report"), read("nvidia/h100_570.certs.pem")
    good = walk(nvidia, nvidia.evidence(report, pem), Endorsements(), NVIDIA, 1_750_000_000)
    assert good.number == "G6"

    def accepted(flipped: bytes) -> bool:
        try:
            evidence = nvidia.evidence(flipped, pem)
        except BadEvidence:
            return False
        return walk(nvidia, evidence, Endorsements(), NVIDIA, 1_750_000_000).number == "G6"

    assert accepted_flips(report, accepted, sample=60) == []


@real
def test_the_pinned_roots_are_nvidias():
    from strongroom.attest.x509 import from_pem

    files = ("nvidia/root_device_identity.pem", "nvidia/root_rim.pem")
    assert sorted(from_pem(read(name))[0].key_digest for name in files) == list(NVIDIA.certificates)
    assert all(digest in PAGE.read_text(encoding="utf-8") for digest in NVIDIA.certificates)


def test_the_lists_of_indices_are_those_of_real_manifests():
    assert not set(DRIVER_INDICES) & set(VBIOS_INDICES)
    assert base64.b64decode(WORLD.device.container["report"]) == WORLD.device.report
    with pytest.raises(BadEndorsement):
        ocsp.Response(b"")
