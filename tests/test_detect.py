"""What kind of evidence some bytes are: every kind is recognised, however it is written down, and nothing else escapes."""

from __future__ import annotations

import base64
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

import pki_dstack
import pki_intel
import pki_nvidia
import pki_tpm
from evidence_case import flips
from evidence_files import EAR, FILES, NONCE, file, gpus, machine
from real import FOLDER, real
from strongroom import wire
from strongroom.app.cli.shown import plain
from strongroom.app.endorsements.bundle import foreign
from strongroom.attest import detect as module
from strongroom.attest import nvidia_device, registry, tpm
from strongroom.attest.detect import MAX_BYTES, Found, detect, unb64_loose, with_certificates
from strongroom.attest.evidence import Evidence
from strongroom.errors import BadEndorsement, BadEvidence, StrongroomError

PEM = pki_tpm.World().key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def refused(data: bytes) -> BadEvidence:
    with pytest.raises(BadEvidence) as caught:
        detect(data)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value


# --- every kind ---------------------------------------------------------------------------------------------------------


def lines(data: bytes, width: int = 76) -> bytes:
    return b"\n".join(data[i : i + width] for i in range(0, len(data), width)) + b"\n"


WRITTEN = {
    "raw": lambda d: d,
    "hex": lambda d: d.hex().encode(),
    "HEX": lambda d: d.hex().upper().encode(),
    "0x": lambda d: b"0x" + d.hex().encode() + b"\n",
    "hex in lines": lambda d: b"\n" + lines(d.hex().encode()),
    "base64": base64.b64encode,
    "base64 in lines": lambda d: b"\r\n " + lines(base64.b64encode(d)),
    "base64url, bare": lambda d: base64.urlsafe_b64encode(d).rstrip(b"="),
}


def looks_like(name: str, found: Found) -> None:
    expected = file(name)
    assert found.kind.startswith(expected.kind), name
    assert (found.evidence.platform if found.evidence else "") == expected.platform
    assert tuple(device.platform for device in found.devices) == expected.devices
    assert len(found.endorsements.documents) == expected.came


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("name", FILES)
def test_every_kind_is_recognised(name: str, written: str):
    found = detect(WRITTEN[written](file(name).data))
    looks_like(name, found)
    assert found.claims
    json.dumps(plain([claims for _, claims in found.claims]))  # people are shown every field
    if not file(name).platform:
        with pytest.raises(BadEvidence):
            found.require_evidence()
    else:
        assert found.require_evidence() is found.evidence


def test_every_platform_has_a_file():
    found = {file(name).platform for name in FILES} | {kind for name in FILES for kind in file(name).devices}
    assert found - {""} == (registry.PLATFORMS | registry.DEVICES) - {"simulated"}


def test_evidence_of_the_simulated_platform():
    from world import NOW, SimulatedPlatform

    platform = SimulatedPlatform(lambda: NOW)
    value = platform.produce(bytes(64)).to_json()
    found = detect(json.dumps(value).encode())
    assert found.kind == "evidence of simulated"
    assert dict(found.claims)["simulated: what it says"].report_data == bytes(64)


def test_the_evidence_found_is_the_evidence_that_was_made():
    for name in ("tdx", "tdx-v5", "sgx", "sev_snp", "nitro", "tpm", "azure_snp", "azure_tdx", "dstack", "report-with-gpus"):
        assert detect(machine(name).data).evidence == machine(name).evidence


def test_a_report_of_ours_brings_its_keyset():
    found = detect(machine("report-with-gpus").data)
    assert found.report is not None
    assert found.report.evidence == found.evidence
    assert [title for title, _ in found.claims] == [
        "keyset",
        "tdx: what it says",
        "device 0: what it says",
        "device 1: what it says",
    ]
    assert found.devices == ()  # they are the evidence's own, and bound to it


def test_the_gpus_of_a_service_are_whole_evidence():
    """A service hands out reports and certificates apart; each report goes with its own device's certificates."""
    found = detect(file("service with an address").data)
    assert found.devices == tuple(gpu.evidence for gpu in gpus(2, pki_dstack.NONCE))
    assert found.service is not None


def test_a_device_that_cannot_be_read_hides_nothing_of_the_rest():
    found = detect(json.dumps(pki_dstack.address_report()).encode())  # its GPUs are nonsense
    titles = [title for title, _ in found.claims]
    assert titles[-2:] == ["device 0: cannot be read", "device 1: cannot be read"]
    assert "dstack: what it says" in titles


def test_a_log_that_cannot_be_read_hides_nothing_of_the_rest():
    evidence = machine("tdx").evidence
    found = detect(json.dumps(Evidence("tdx", evidence.data, event_log=b"nonsense").to_json()).encode())
    assert [title for title, _ in found.claims] == ["tdx: what it says", "event log: cannot be read"]


def test_a_bare_report_of_a_gpu_wants_its_certificates():
    found = detect(file("GPU's report").data)
    assert found.report_bytes == file("GPU's report").data
    with pytest.raises(BadEvidence) as caught:
        found.require_evidence()
    assert "--certificates" in caught.value.hint
    whole = with_certificates(found, pki_nvidia.World().device.pem)
    assert whole.devices == (pki_nvidia.World().evidence,)
    for certificates in (b"", b"nonsense", gpus(1, NONCE)[0].device.pem[:900]):
        with pytest.raises(BadEvidence):
            with_certificates(found, certificates)
    with pytest.raises(BadEvidence, match="does not want certificates"):
        with_certificates(detect(machine("tdx").data), pki_nvidia.World().device.pem)


def test_what_is_no_evidence_says_what_to_do_with_it():
    for name, told in (
        ("guest's log", "--event-log"),
        ("TPM's log", "attest show"),
        ("dstack's log", "--event-log"),
        ("EAR", "never verified"),
        ("EAR as a token", "never verified"),
        ("paravisor on TDX", "quote"),
    ):
        with pytest.raises(BadEvidence, match="no evidence on its own") as caught:
            detect(file(name).data).require_evidence()
        assert told in caught.value.hint, name


def test_a_raw_report_of_a_trust_domain_is_told_from_a_quote():
    """Only the machine that made it can check it: who holds one has not yet asked for a quote."""
    said = refused(b"\x81" + bytes(1023))
    assert "raw TDREPORT" in said.message
    assert "quote" in said.hint
    assert "raw TDREPORT" not in refused(b"\x81" + bytes(1022)).message


def test_a_hosts_table_of_certificates_goes_beside_evidence():
    table = unb64_loose(json.loads(file("configfs-tsm, SNP").data)["auxblob"])
    assert "--endorsements" in refused(table).hint
    assert "beside evidence" in refused(table).message
    assert "beside" not in refused(bytes(600)).message  # an empty one is nothing
    assert "beside" not in refused(table[:-1]).message
    (found,) = foreign(table)
    assert found.endorsement == detect(file("configfs-tsm, SNP").data).endorsements.documents[0]
    for other in (table[:-1], bytes(600)):
        with pytest.raises(BadEndorsement):
            foreign(other)


def test_the_key_of_tpm2_quotes_files_may_be_pem_and_then_nothing_describes_it():
    said = json.loads(file("TPM by tpm2-tools").data)["tpm2_quote"]
    with_key = {name: said[name] for name in ("message", "signature", "pcrs")} | {"key_pem": PEM.decode()}
    found = detect(json.dumps({"tpm2_quote": with_key}).encode())
    assert found.evidence is not None
    assert tpm.parse(found.evidence.data).described is None
    described = detect(file("TPM by tpm2-tools").data).evidence
    assert described == pki_tpm.World().evidence
    for changes in ({"public": said["public"]}, {"key_pem": "x" * 2049}, {"key_pem": "\ud800"}, {"key_pem": None}):
        refused(json.dumps({"tpm2_quote": {**with_key, **changes}}).encode())


def test_which_verifier_is_asked_is_all_that_it_says():
    """A TDX quote that calls itself SGX's is parsed as that, and refused."""
    quote = bytearray(machine("tdx").data)
    quote[4:8] = bytes(4)
    refused(bytes(quote))


# --- what it is not -----------------------------------------------------------------------------------------------------


def test_what_goes_beside_evidence_is_told_from_it():
    world = pki_intel.World()
    beside = [document.data for document in world.endorsements().documents]
    beside += [gpu.data for gpu in pki_nvidia.World().endorsements.documents]
    beside += [machine("tdx").bundle, pki_nvidia.TokenWorld().endorsements.documents[0].data, pki_nvidia.World().device.pem]
    for data in beside:
        said = refused(data)
        assert "beside evidence" in said.message
        assert "--endorsements" in said.hint
    said = refused(json.dumps(dict.fromkeys(("tcb_info", "qe_identity"), "{}")).encode())  # as dcap-qvl keeps it
    assert "--endorsements" in said.hint


NONE_OF_THEM = {
    "nothing": b"",
    "a space": b" ",
    "a newline": b"\n",
    "a word": b"quote",
    "zeros": bytes(1184),
    "text": b"Dear verifier, please find my machine trustworthy.\n" * 20,
    "hex of nothing": b"00" * 600,
    "base64 of nothing": base64.b64encode(bytes(600)),
    "an empty object": b"{}",
    "an empty list": b"[]",
    "a list of nothing": b"[null]",
    "a number": b"7",
    "text in JSON": b'"quote"',
    "half of JSON": b'{"quote": "',
    "a member twice": b'{"tdx": {}, "tdx": {}}',
    "not a number": b'{"iat": NaN}',
    "deep": b"[" * 100_000,
    "deep and closed": b"[" * 900 + b"]" * 900,
    "a great number": b'{"a": 1' + b"0" * 5000 + b"}",
    "not UTF-8": b'{"a": "\xff"}',
    "a report without evidence": b'{"api_version": "aci/1", "attestation": {"evidence": {"data": "", "endorsements": []}}}',
    "a report of nothing": b'{"api_version": "aci/1", "attestation": null}',
    "an unknown platform": json.dumps(Evidence("abacus", b"beads").to_json()).encode(),
    "no base64": b'{"platform": "tdx", "data": "\\u0000"}',
    "no provider": b'{"provider": null, "outblob": null}',
    "another provider": b'{"provider": "arm_cca_guest", "outblob": "AAAA"}',
    "no blob": b'{"provider": "tdx_guest", "outblob": 7}',
    "a wrong blob": b'{"provider": "sev_guest", "outblob": "***"}',
    "no table": lambda: json.dumps(
        {"provider": "sev_guest", "outblob": base64.b64encode(machine("sev_snp").data).decode(), "auxblob": "AAAA"}
    ).encode(),
    "no quote": b'{"tdx": null}',
    "a quote of nothing": b'{"tdx": {"quote": "AAAA"}}',
    "no devices": b'[{"arch": "HOPPER", "evidence": "", "certificate": ""}]',
    "no tokens": b'[["JWT"], {}]',
    "no log": b'[{"imr": 0, "event_type": 1}]',
    "no paravisor": b"HCLA" + bytes(2596),
    "no document": b"\xd2\x84\x44\xa1\x01\x38\x22\xa0",
    "a short quote": lambda: machine("tdx").data[:436],
    "half a quote": lambda: machine("tdx").data[:600],
    "a quote and more": lambda: machine("tdx").data + b"\1",
    "a quote and too many zeros": lambda: machine("tdx").data + bytes(5000),
    "a long report": lambda: machine("sev_snp").data + b"\0",
    "a log of nothing": bytes(40) + b"Spec ID Event03",
    "no message": b"\x0a\xff\xff\xff",
    "a token of nothing": b"eyJhbGciOiJIUzI1NiJ9.e30.",
    "a token of no JSON": b"eyJhbGciOiJIUzI1NiJ9.AAAA.AAAA",
    "a token of no base64": b"eyJhbGciOiJIUzI1NiJ9.\xff\xff.AAAA",
    "a device's number alone": b"\x11\xe0\x01\xff",
    "tpm2_quote's files without a key": b'{"tpm2_quote": {"message": "", "signature": "", "pcrs": ""}}',
    "tpm2_quote's files, not in base64": b'{"tpm2_quote": {"message": "*", "signature": "", "pcrs": "", "key_pem": ""}}',
    "tpm2_quote's files and more": lambda: json.dumps({**json.loads(file("TPM by tpm2-tools").data), "more": 1}).encode(),
}  # fmt: skip


@pytest.mark.parametrize("name", NONE_OF_THEM)
def test_what_is_none_of_them_is_bad_evidence(name: str):
    data = NONE_OF_THEM[name]
    refused(data() if callable(data) else data)


def test_an_ear_that_nests_deeply_is_shown_all_the_same():
    deep: object = "bottom"
    for _ in range(200):
        deep = {"a": [deep]}
    found = detect(json.dumps({**EAR, "submods": deep}).encode())
    assert "…" in json.dumps(plain(found.claims[0][1]), ensure_ascii=False)


def test_four_mebibytes_are_the_most():
    refused(bytes(MAX_BYTES))
    assert "longer than" in refused(bytes(MAX_BYTES + 1)).message


@pytest.mark.parametrize(
    "start",
    [
        *(f.data[:40] for f in map(file, ("TDX quote 4", "Nitro document", "guest's log", "TPM by Google", "GPU's report"))),
        b"HCLA",
        b"0" * 64,
        b"QUFB" * 16,
        b'{"intel_quote":"',
        b"[" * 64,
        b'[{"arch":"","evidence":"","certificate":""},',
        b"\n" * 64,
        b"eyJ",
        b"eyJ.",
        b"-----BEGIN CERTIFICATE-----\n",
    ],
)
def test_four_mebibytes_of_nonsense_are_refused(start: bytes):
    """How long it takes is measured in ``bench/bounds.py``."""
    for filler in (b"0", b"A", b"\0", b"[", b" ", b".", b"\xff", b'{"', b"\x84"):
        data = (start + filler * MAX_BYTES)[:MAX_BYTES]
        refused(data)


# --- whatever the bytes -------------------------------------------------------------------------------------------------


def harmless(data: bytes) -> None:
    """Nothing but BadEvidence escapes, and what is found can be shown."""
    try:
        found = detect(data)
    except BadEvidence:
        return
    json.dumps(plain([claims for _, claims in found.claims]))


@given(st.binary(max_size=4096))
def test_no_bytes_make_anything_else_escape(data: bytes):
    harmless(data)


@given(
    st.sampled_from(
        [b"\x04\0\2\0\x81\0\0\0", b"\xd2\x84\x44", b"\x84\x44\xa1\x01\x38\x22", b"\x11\xe0", b"\x0a", b"HCLA", b"eyJ"]
    ),
    st.binary(min_size=500, max_size=3000),
)
def test_nothing_escapes_behind_a_known_beginning(start: bytes, rest: bytes):
    harmless(start + rest)


MEMBERS = [
    "api_version", "attestation", "platform", "data", "provider", "outblob", "auxblob", "hcl_report", "vcek",
    "td_quote", "ak_public", "tpm_quote", "tdx", "quote", "eat_profile", "submods", "arch", "evidence", "certificate",
    "imr", "event_type", "intel_quote", "event_log", "signing_address", "nvidia_payload", "gateway_attestation", "info",
    "devices", "device_binding", "endorsements", "tee_type", "workload_keyset", "version",
]  # fmt: skip

JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(MEMBERS) | st.text(max_size=5), inner, max_size=6)
    ),
    max_leaves=12,
)


@given(JSONS)
def test_no_json_makes_anything_else_escape(value: object):
    harmless(json.dumps(value).encode())


@given(st.data())
def test_no_change_of_a_file_makes_anything_else_escape(data: st.DataObject):
    name = data.draw(st.sampled_from(sorted(FILES)))
    original = file(name).data
    place = data.draw(st.integers(0, len(original) - 1))
    put = data.draw(st.binary(max_size=4))
    harmless(original[:place] + put + original[place + data.draw(st.integers(0, 8)) :])
    harmless(original[:place])


@pytest.mark.parametrize("name", FILES)
def test_no_flipped_bit_makes_anything_else_escape(name: str):
    for _, flipped in flips(file(name).data, sample=60):
        harmless(flipped)


def leaves_of(value: object, path: tuple = ()) -> Iterator[tuple]:
    """The places in a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from leaves_of(item, (*path, key))


@pytest.mark.parametrize("name", FILES)
def test_no_member_of_another_type_makes_anything_else_escape(name: str):
    if file(name).data[:1] not in {b"{", b"["}:
        return
    chance = random.Random(name)
    places = list(leaves_of(json.loads(file(name).data)))
    for path in chance.sample(places, min(40, len(places))):
        for other in (None, 7, "", "x", [], {}, [None], {"a": 1}, True, 1.5):
            value = json.loads(file(name).data)
            if not path:
                continue
            inner = value
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = other
            harmless(json.dumps(value).encode())


@given(st.binary(max_size=200))
def test_base64_is_read_in_either_alphabet(data: bytes):
    for text in (base64.b64encode(data), base64.urlsafe_b64encode(data), base64.urlsafe_b64encode(data).rstrip(b"=")):
        assert unb64_loose(text.decode()) == data


def test_what_is_no_base64():
    for text in ("A", "****", None, 7, b"AAAA"):
        with pytest.raises(BadEvidence):
            unb64_loose(text)


def test_an_error_of_ours_becomes_bad_evidence(monkeypatch):
    def raises(_data: bytes) -> Found:
        raise StrongroomError("something of ours")

    monkeypatch.setattr(module, "_detect", raises)
    assert refused(b"x").message == "something of ours"
    assert nvidia_device.PLATFORM in registry.DEVICES
    assert wire.MAX_BYTES >= MAX_BYTES


# --- real files ---------------------------------------------------------------------------------------------------------

TDX4, TDX5, SGX3 = "an Intel TDX quote, version 4", "an Intel TDX quote, version 5", "an Intel SGX quote, version 3"
LOG, NITRO, BESIDE = "an event log", "an attestation document of AWS Nitro", "a certificate, or another document"
BARE_GPU, UNKNOWN = "an NVIDIA device's report without its certificates", "of no kind that is known"
# A pattern of a file's name, the first that fits, to how what is said of it begins; ``!`` before what is refused.
REAL = {
    r"azure_vtpm/.*_genoa_hcl\.bin|azure_vtpm/snp_hcl_report\.bin": "a paravisor's report on AMD SEV-SNP",
    r"azure_vtpm/openpcc_tdx_hcl\.bin": "a paravisor's report on Intel TDX",
    r"azure_vtpm/openpcc_tdx\.quote": TDX4,
    r"azure_vtpm/snp_v1\.json": "Azure's virtual TPM on AMD SEV-SNP",
    r"azure_vtpm/tdx_v1_septve\.json": "Azure's virtual TPM on Intel TDX",
    r"configfs_tsm/genoa\.outblob\.bin|configfs_tsm/.*\.json": "an AMD SEV-SNP report, version 3",
    r"dstack/ccel_sample\.bin": LOG,
    r"dstack/gpu_.*": "!not a service's report",
    r"dstack/sev_snp_attestation\.json": "a report of a dstack service (dstack attestation)",
    r"dstack/.*\.json": "a report of a dstack service (dstack GetQuote)",
    r"ear/.*\.json": "the claims of an EAR, unsigned",
    r"ear/.*\.jwt": "the claims of an EAR, whose signature",
    r"eventlog/.*|tdx/.*\.ccel\.bin": LOG,
    r"nitro/.*\.cose": NITRO,
    r"nras/h200_quote\.quote": TDX4,
    r"nras/h200_tokens\.json|nvidia/nras_hopper.*": "tokens of NVIDIA's attestation service (1)",
    r"nvidia/.*\.report": BARE_GPU,
    r"nvidia/sdk_.*": "reports of NVIDIA devices (1)",
    r"sgx/.*\.quote": SGX3,
    r"snp/.*_v(\d)_.*\.report": "an AMD SEV-SNP report, version {}",
    r"snp/ms_.*\.report": "an AMD SEV-SNP report, version 3",
    r"snp/azure_aci_uvm_reference_info\.cose": "!the protected header does not say ES384",  # another kind of COSE document
    r"tdx/google_spr_e4_v4\.quote": "!not a quote of Intel's: 39 bytes follow it",  # its only fault
    r"tdx/.*v5.*\.quote": TDX5,
    r"tdx/.*\.quote|tdx/teekit_gcp_v4_nonce\.json": TDX4,
    r"tpm/gce_cos85_nononce\.pb": "a TPM quote as Google's tools keep it",
    r"tpm/trustee_generic\.json": "a TPM quote",
    r"collateral/NEG_.*": "!not a service's report",  # TCB information without what Intel signs it with
    r"collateral/.*\.json|nras/.*|.*collateral\.json": "!" + BESIDE,
    r".*\.(pem|der|crt|cer|xml)|.*auxblob\.bin|.*certs\.txt|tdx/.*\.yaml": "!" + BESIDE,
    r".*": "!" + UNKNOWN,
}


def expected_of(name: str) -> str:
    for pattern, said in REAL.items():
        found = re.fullmatch(pattern, name)
        if found:
            return said.format(*found.groups())
    raise AssertionError(name)


@real
def test_every_real_file_ends_as_it_must():
    paths = sorted(path for path in FOLDER.rglob("*") if path.is_file())
    assert len(paths) > 200
    wrong, used = [], set()
    for path in paths:
        name = path.relative_to(FOLDER).as_posix()
        used.add(next(pattern for pattern in REAL if re.fullmatch(pattern, name)))
        try:
            said = detect(path.read_bytes()).kind
        except BadEvidence as error:
            said = f"!{error.message}"
        if not said.startswith(expected_of(name)):
            wrong.append((name, said))
    assert wrong == []
    assert used == set(REAL)  # no line of the table is of nothing


@real
def test_real_files_can_be_shown_and_changed_without_harm():
    for path in sorted(FOLDER.rglob("*")):
        if path.is_file() and not expected_of(path.relative_to(FOLDER).as_posix()).startswith("!"):
            data = path.read_bytes()
            harmless(data)
            for _, flipped in flips(data, sample=4):
                harmless(flipped)


@real
def test_the_triple_of_a_real_guest_brings_its_certificates():
    found = detect((FOLDER / "configfs_tsm" / "genoa_tsm_report.json").read_bytes())
    assert len(found.endorsements.documents) == 3


def test_the_real_files_are_no_part_of_the_project():
    assert Path(__file__).parents[1] not in FOLDER.parents
