"""Devices bound to a processor: each way to pass a device elsewhere off as the enclave's own, as vectors and as laws."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom import wire
from strongroom.attest import binding
from strongroom.attest.evidence import MAX_BINDING_BYTES, Evidence
from strongroom.attest.keyset import DEVICE_BINDING_ALGO, RUN_RECEIPT_ALGO, KeyEntry, Keyset
from strongroom.errors import BadKeyset, DeviceNotBound, StrongroomError
from strongroom.party import SigningKey

ROOT = Path(__file__).parents[1]
VECTORS = ROOT / "vectors" / "binding"
SPEC = ROOT / "spec" / "device-binding.md"


def _maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_binding", ROOT / "vectors" / "make_binding.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKER = _maker()
CASES = sorted(VECTORS.glob("*.json"))
KEY, KEYSET, REPORT_DATA, BOTH = MAKER.KEY, MAKER.KEYSET, MAKER.REPORT_DATA, MAKER.BOTH


# --- vectors ----------------------------------------------------------------------------------------------------------


def test_there_are_vectors_and_they_are_those_that_their_script_writes():
    assert len(CASES) > 20
    assert {path.name: path.read_text() for path in CASES} == MAKER.written()


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_vector(path):
    case = json.loads(path.read_bytes())
    keyset = None if case["keyset"] is None else Keyset.from_json(case["keyset"])
    data = bytes.fromhex(case["report_data"])
    devices = tuple(Evidence.from_json(device) for device in case["devices"])
    if case["gpu_nonce"] is not None:
        assert binding.gpu_nonce(data).hex() == case["gpu_nonce"]
    found = "ok"
    try:
        binding.check(keyset, data, devices, wire.unb64(case["device_binding"]))
    except StrongroomError as error:
        found = error.code
    assert found == case["expect"], case["description"]


# --- laws -------------------------------------------------------------------------------------------------------------

devices = st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=4, unique=True).map(
    lambda found: tuple(Evidence("nvidia_cc", data) for data in found)
)
slots = st.binary(min_size=64, max_size=64)


@given(devices, slots)
def test_what_is_made_is_accepted_and_for_nothing_else(found, data):
    made = binding.make(KEY, data, found)
    assert binding.make(KEY, data, found) == made
    binding.check(KEYSET, data, found, made)
    for other in (found[1:], found[::-1] if len(found) > 1 else (), (*found, Evidence("nvidia_cc", bytes(30)))):
        with pytest.raises(DeviceNotBound):
            binding.check(KEYSET, data, other, made)
    with pytest.raises(DeviceNotBound):
        binding.check(KEYSET, bytes([data[0] ^ 1]) + data[1:], found, made)


@given(st.data())
def test_no_altered_byte_binds_anything(data):
    made = bytearray(binding.make(KEY, REPORT_DATA, BOTH))
    at = data.draw(st.integers(0, len(made) - 1))
    made[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(DeviceNotBound):
        binding.check(KEYSET, REPORT_DATA, BOTH, bytes(made))


@given(st.binary(max_size=300))
def test_bytes_of_anybody_bind_nothing(anything):
    with pytest.raises(DeviceNotBound):
        binding.check(KEYSET, REPORT_DATA, BOTH, anything)


def test_a_binding_longer_than_evidence_may_carry_is_not_read():
    long = KEY.sign(binding.BINDING_TYPE, bytes(MAX_BINDING_BYTES)).encode()
    with pytest.raises(DeviceNotBound, match="usable size"):
        binding.check(KEYSET, REPORT_DATA, BOTH, long)


# --- making -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("found", [(), (BOTH[0], BOTH[0]), tuple(Evidence("nvidia_cc", bytes([n])) for n in range(17))])
def test_no_device_the_same_twice_and_too_many_are_not_bound(found):
    with pytest.raises(DeviceNotBound):
        binding.make(KEY, REPORT_DATA, found)


@pytest.mark.parametrize("size", [0, 32, 63, 65])
def test_report_data_of_another_size_is_not_bound_and_makes_no_nonce(size):
    with pytest.raises(DeviceNotBound, match="64 bytes"):
        binding.make(KEY, bytes(size), BOTH)
    with pytest.raises(DeviceNotBound, match="64 bytes"):
        binding.gpu_nonce(bytes(size))


def test_the_nonce_follows_from_the_report_data():
    assert binding.gpu_nonce(REPORT_DATA) == hashlib.sha256(b"strongroom.gpu.v1" + REPORT_DATA).digest()


# --- the keyset's role --------------------------------------------------------------------------------------------------


def test_a_keyset_without_devices_has_no_such_key_and_is_whole():
    plain = replace(KEYSET, receipt_signing_keys=(MAKER.RECEIPT,))
    assert plain.run_receipt_key == MAKER.RECEIPT_KEY.public
    with pytest.raises(BadKeyset):
        _ = plain.device_binding_key


def test_the_role_has_its_own_key_and_its_own_list():
    assert KEYSET.device_binding_key == KEY.public
    with pytest.raises(BadKeyset, match="one key per role"):
        Keyset(0, (MAKER.RECEIPT, KeyEntry("b", DEVICE_BINDING_ALGO, MAKER.RECEIPT.public_key)))
    with pytest.raises(BadKeyset, match="not the key's own"):
        Keyset(0, e2ee_public_keys=(MAKER.BINDING,))
    with pytest.raises(BadKeyset, match="not the key's own"):
        Keyset(0, e2ee_public_keys=(KeyEntry("a", RUN_RECEIPT_ALGO, SigningKey.from_seed(b"\x01" * 32).public.raw.hex()),))


# --- the page -----------------------------------------------------------------------------------------------------------


def test_the_example_on_the_page_is_what_is_made():
    text = SPEC.read_text()
    payload = json.dumps(MAKER.PAYLOAD, indent=2, sort_keys=True)
    assert payload in text
    for said in (
        binding.BINDING_TYPE,
        DEVICE_BINDING_ALGO,
        binding.GPU_LABEL.decode(),
        binding.gpu_nonce(REPORT_DATA).hex(),
    ):
        assert said in text
    assert wire.encode(MAKER.PAYLOAD).decode() in text
    for code in (DeviceNotBound.code, BadKeyset.code):
        assert code in text
