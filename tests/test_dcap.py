"""Intel's quotes as bytes: what is one, what is none, and that nothing about them is malleable but what is said to be."""

from __future__ import annotations

import struct
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pki_intel as pki
from evidence_case import flips
from pki_intel import World
from real import cases, read, real
from strongroom.attest import dcap
from strongroom.attest.dcap import INTEL_QE_VENDOR, MAX_PADDING_BYTES, MAX_QE_AUTH_BYTES, MAX_QUOTE_BYTES, Quote, Tee
from strongroom.attest.evidence import Roots
from strongroom.attest.intel_pck import PCK_EXTENSION, PckExtension
from strongroom.attest.roots import ROOTS
from strongroom.attest.x509 import from_pem, require_path
from strongroom.errors import AttestationError, BadEvidence, EvidenceForged, StrongroomError

WORLDS = {
    "sgx-3": World(tee="SGX", version=3),
    "tdx-4": World(),
    "tdx-5-td-1.0": World(version=5, body_type=2),
    "tdx-5-td-1.5": World(version=5),
    "tdx-4-padded": World(trailing=bytes(70)),
}
GOOD = {name: world.quote() for name, world in WORLDS.items()}
REAL = [case for case in cases("cases_dcap.json") if "parse_error" not in case]
SMUGGLED = "tdx/google_spr_e4_v4.quote"  # the one sample with bytes after it that are not zero


@pytest.mark.parametrize("name", GOOD)
def test_a_quote_is_what_its_bytes_say(name):
    quote = dcap.parse(GOOD[name])
    world = WORLDS[name]
    assert quote.encode() == GOOD[name]
    assert (quote.tee.name, quote.version) == (world.tee, world.version)
    assert quote.qe_vendor == INTEL_QE_VENDOR
    assert quote.padding == len(world.trailing)
    assert quote.signed == world.signed()
    assert quote.qe.mrsigner == pki.QE_SIGNER
    assert quote.qe.isv_svn == 8
    quote.require_signed()
    quote.require_bound()
    if quote.tee is Tee.SGX:
        assert quote.enclave.report_data == pki.REPORT_DATA
        assert quote.enclave.mrenclave == b"\xe1" * 32
        assert not quote.enclave.debug
    else:
        assert quote.td.report_data == pki.REPORT_DATA
        assert quote.td.rtmrs == tuple(bytes([0x20 + n]) * 48 for n in range(4))
        assert (quote.td.mrservicetd is None) == (name != "tdx-5-td-1.5")
        assert not quote.td.debug


@pytest.mark.parametrize("bit", range(8))
def test_each_bit_of_the_first_attribute_byte_makes_a_td_untrusted(bit):
    attributes = (1 << 28 | 1 << bit).to_bytes(8, "little")
    assert dcap.parse(replace(World(), td={"attributes": attributes}).quote()).td.debug


def test_debug_of_an_enclave_is_its_second_attribute():
    quote = World(tee="SGX", version=3, enclave={"attributes": bytes.fromhex("0700000000000000e700000000000000")}).quote()
    assert dcap.parse(quote).enclave.debug


def _lengths(data: bytes, at: int, size: int, change: int) -> bytes:
    """A length field of the quote, changed."""
    value = int.from_bytes(data[at : at + size], "little") + change
    return data[:at] + value.to_bytes(size, "little") + data[at + size :]


@pytest.mark.parametrize("change", [-1, 1, 0x1000, 0x10000])
@pytest.mark.parametrize(
    ("name", "at", "size"), [("tdx-4", 632, 4), ("tdx-4", 766, 4), ("sgx-3", 432, 4), ("tdx-4", 1218, 2)]
)
def test_no_length_can_be_another(name, at, size, change):
    data = GOOD[name]
    if not 0 <= int.from_bytes(data[at : at + size], "little") + change < 1 << 8 * size:
        change = 7
    with pytest.raises(BadEvidence):
        dcap.parse(_lengths(data, at, size, change))


@pytest.mark.parametrize("size", [0, 1, MAX_PADDING_BYTES])
def test_zero_bytes_may_follow(size):
    quote = dcap.parse(GOOD["tdx-4"] + bytes(size))
    assert quote.padding == size
    assert len(quote.encode()) == len(GOOD["tdx-4"]) + size


@pytest.mark.parametrize("tail", [b"\x01", bytes(100) + b"\x80", bytes(MAX_PADDING_BYTES + 1)])
def test_nothing_else_may_follow(tail):
    with pytest.raises(BadEvidence, match="follow it"):
        dcap.parse(GOOD["tdx-4"] + tail)


def test_a_quote_has_a_largest_size():
    chain = b"-" * (MAX_QUOTE_BYTES - 1000)
    quote = dcap.parse(GOOD["tdx-4"])
    with pytest.raises(BadEvidence, match="longer than"):
        dcap.parse(replace(quote, certification_data=chain).encode())
    with pytest.raises(BadEvidence, match="longer than"):
        dcap.parse(bytes(MAX_QUOTE_BYTES + MAX_PADDING_BYTES + 1))


def test_what_the_quoting_enclave_adds_has_a_largest_size():
    assert dcap.parse(replace(World(), qe_auth=bytes(MAX_QE_AUTH_BYTES)).quote()).qe_auth == bytes(MAX_QE_AUTH_BYTES)
    with pytest.raises(BadEvidence, match="QE's data is longer"):
        dcap.parse(replace(World(), qe_auth=bytes(MAX_QE_AUTH_BYTES + 1)).quote())


@pytest.mark.parametrize(
    ("header", "why"),
    [
        ({"version": b"\x02\x00"}, "version is 2"),
        ({"version": b"\x03\x00"}, "version 3 is not for TDX"),
        ({"key_type": b"\x03\x00"}, "attestation key is of type 3"),
        ({"tee": b"\x01\x00\x00\x00"}, "type of environment is 0x1"),
    ],
)
def test_a_header_that_is_not_known_is_refused(header, why):
    with pytest.raises(BadEvidence, match=why):
        dcap.parse(replace(World(), header=header).quote())


@pytest.mark.parametrize("kind", [0, 1, 4, 0xFFFF])
def test_a_report_of_another_type_is_refused(kind):
    data = GOOD["tdx-5-td-1.5"]
    with pytest.raises(BadEvidence, match=f"report is of type {kind}"):
        dcap.parse(data[:48] + struct.pack("<H", kind) + data[50:])


def test_a_raw_tdreport_is_no_quote():
    with pytest.raises(BadEvidence, match="raw TDREPORT"):
        dcap.parse(b"\x81" + bytes(1023))


UNPADDED = sorted(data for name, data in GOOD.items() if "padded" not in name)  # padding can be cut short


@given(
    st.binary(max_size=600) | st.sampled_from(UNPADDED).flatmap(lambda d: st.integers(0, len(d) - 1).map(lambda n: d[:n]))
)
def test_other_bytes_are_no_quote(data):
    with pytest.raises(BadEvidence):
        dcap.parse(data)


@given(st.sampled_from(sorted(GOOD.values())), st.data())
def test_any_bytes_are_no_quote_or_encode_to_themselves(data, draw):
    place = draw.draw(st.integers(0, len(data) - 1))
    new = draw.draw(st.binary(min_size=1, max_size=8))
    changed = data[:place] + new + data[place + len(new) :]
    try:
        quote = dcap.parse(changed)
    except BadEvidence:
        return
    assert quote.encode() == changed


def test_nonsense_is_refused_quickly():
    for data in (b"\x04\x00\x02\x00\x81" + bytes(36000), b"\xff" * 36000, GOOD["tdx-4"][:636] + b"\xff" * 30000):
        began = time.process_time()
        with pytest.raises(StrongroomError):
            dcap.parse(data)
        assert time.process_time() - began < 5  # milliseconds; what it stops takes for ever


# --- the two signatures -------------------------------------------------------------------------------------------------


def test_every_signed_bit_counts():
    quote = dcap.parse(GOOD["tdx-4"])
    for _, header in flips(quote.header, sample=20):
        with pytest.raises(EvidenceForged):
            replace(quote, header=header).require_signed()
    for _, body in flips(quote.body, sample=40):
        with pytest.raises(EvidenceForged):
            replace(quote, body=body).require_signed()


def test_a_signature_of_zero_and_a_key_that_is_no_point_are_refused():
    quote = dcap.parse(GOOD["tdx-4"])
    for changed in (replace(quote, signature=bytes(64)), replace(quote, attestation_key=bytes(64))):
        with pytest.raises(EvidenceForged):
            changed.require_signed()


def test_the_attestation_key_is_bound_with_what_the_qe_adds():
    quote = dcap.parse(GOOD["tdx-4"])
    other = pki.point("attacker")
    for changed in (replace(quote, attestation_key=other), replace(quote, qe_auth=b""), replace(quote, qe_auth=bytes(32))):
        with pytest.raises(EvidenceForged):
            changed.require_bound()


# --- what others' hardware signed ---------------------------------------------------------------------------------------


def _holds(check) -> bool:
    try:
        check()
    except AttestationError:
        return False
    return True


@real
def test_there_are_real_quotes():
    assert len(REAL) == 21


@real
@pytest.mark.parametrize("case", REAL, ids=lambda case: case["file"])
def test_a_real_quote_says_what_its_case_says(case):
    data = read(case["file"])
    if case["file"] == SMUGGLED:
        with pytest.raises(BadEvidence, match="39 bytes follow it"):
            dcap.parse(data)
        data = data[:-39]
    quote = dcap.parse(data)
    assert quote.encode() == data
    assert (quote.version, quote.tee.name, quote.body_type) == (case["version"], case["tee"], case["body_type"])
    assert quote.padding == (0 if case["file"] == SMUGGLED else case["trailing_bytes"])
    assert quote.certification_type == (5 if case["cert_type"] in {5, 6} else case["cert_type"])
    report = quote.td if quote.tee is Tee.TDX else quote.enclave
    assert report.report_data.hex() == case["report_data"]
    assert report.debug is case["debug"]
    if quote.tee is Tee.TDX:
        assert quote.td.mrtd.hex() == case["mrtd"]
        assert quote.td.attributes.hex() == case["td_attributes"]
        assert [one.hex() for one in quote.td.rtmrs] == case["rtmr"]
    else:
        assert (quote.enclave.mrenclave.hex(), quote.enclave.mrsigner.hex()) == (case["mrenclave"], case["mrsigner"])
    assert _holds(quote.require_signed) is case["quote_sig"]
    assert _holds(quote.require_bound) is case["qe_binding"]
    _certificates(quote, case)


def _certificates(quote: Quote, case) -> None:
    if case["qe_report_sig"] is None:  # type 3: no certificates
        assert case["fmspc"] is None
        return
    path = from_pem(quote.certification_data)
    key = path[0].public_key

    def signed() -> None:
        dcap.require_signature(key, quote.qe_signature, quote.qe_report, "forged")

    def led() -> None:
        require_path(path, roots=Roots(certificates=tuple(ROOTS["tdx"].values())).certificates, at=path[0].not_before)

    assert _holds(signed) is case["qe_report_sig"]
    assert _holds(led) is case["pck_chain"] is case["intel_root"]
    extension = path[0].extension(PCK_EXTENSION)
    assert extension is not None
    assert PckExtension.parse(extension).fmspc.hex() == case["fmspc"]


@real
def test_other_things_of_intel_are_no_quotes():
    for name in ("tdx/google_report.tdreport", "tdx/gcp_cos113.nonce.bin", "tpm/keylime.quote"):
        with pytest.raises(BadEvidence):
            dcap.parse(read(name))
