"""``strongroom attest show``: every field of every kind of evidence, for people and as JSON, and no harm to a screen."""

from __future__ import annotations

import io
import json
import struct
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pki_amd
import pki_azure
import pki_dstack
import pki_intel
import pki_nitro
import pki_nvidia
import pki_tpm
from evidence_files import EAR, FILES, file, machine, pem
from real import FOLDER, read, real
from strongroom.app.cli import fields, fields_amd, fields_intel, fields_report, fields_tpm, fields_uefi, shown
from strongroom.app.cli.fields import Digests, Moment, Record, Spoken
from strongroom.app.cli.screen import Screen
from strongroom.attest import azure_claims, detect, intel_pck, nvidia_device, sgx, snp_report, spdm, tdx, tpm2
from strongroom.attest.endorsements import CERTIFICATE, CRL, JWK_SET, PEM_CHAIN
from strongroom.attest.evidence import Endorsement
from strongroom.attest.x509 import Certificate
from strongroom.errors import BadEvidence

SLOW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def screened(value: Any) -> str:
    out = io.StringIO()
    shown.lines(shown.plain(value), Screen(out=out))
    return out.getvalue()


def show(data: bytes) -> tuple[str, dict[str, Any]]:
    """What people see of a file, and what machines do."""
    found = detect.detect(data)
    sections = {title: shown.plain(claims) for title, claims in shown.sections(found)}
    out = io.StringIO()
    screen = Screen(out=out)
    for title, value in sections.items():
        screen.heading(title)
        shown.lines(value, screen)
    text = out.getvalue()
    assert all(line.isprintable() for line in text.split("\n"))
    return text, json.loads(json.dumps(sections).encode())


def squeezed(text: str) -> str:
    """With single spaces, however it was laid out."""
    return " ".join(text.split())


def hidden(value: Any) -> set[str]:
    """Every digest or other long hex that stands in JSON."""
    if isinstance(value, dict) and {"register", "digests", "data"} <= value.keys():  # of an event people see the strongest
        return {value["digest"]}
    if isinstance(value, dict):
        return set().union(*map(hidden, value.values()))
    if isinstance(value, list):
        return set().union(*map(hidden, value))
    return {value} if isinstance(value, str) and len(value) >= 64 and not set(value) - set("0123456789abcdef") else set()


@pytest.mark.parametrize("name", FILES)
def test_people_see_every_digest_that_machines_do(name: str):
    text, value = show(file(name).data)
    bare = "".join(text.split())
    alike = {digest for digest in hidden(value) if digest.strip("0") and digest.strip("f")}
    assert {digest for digest in alike if digest not in bare} == set()
    assert "(the rest" not in text


def test_every_module_that_describes_claims_describes_them():
    from importlib import import_module

    for module, name in shown._DESCRIBED.items():
        described = import_module(f"strongroom.app.cli.{name}").DESCRIBED
        assert any(kind.__module__ == module for kind in described), module


# --- Intel --------------------------------------------------------------------------------------------------------------


def of_tdx(**world: Any) -> tuple[str, dict[str, Any]]:
    text, value = show(pki_intel.World(**world).quote())
    return squeezed(text), value["tdx: what it says"]


def test_a_quote_of_a_td():
    text, value = of_tdx()
    assert value["header"]["tee"] == {"name": "TDX", "value": 0x81}
    assert "TEE TDX (0x81)" in text
    assert "attributes sept_ve_disable (0x10000000)" in text
    assert value["td"]["attributes"] == {"set": ["sept_ve_disable"], "unknown_bits": [], "value": 0x10000000}
    assert "avx512_zmm_hi256, avx512_hi16_zmm, pkru, amx_tilecfg, amx_tiledata (0x602e7)" in text
    assert "TDX module version 1, SVN 11; late microcode SVN 5; the other 13: 0 each" in text
    assert value["td"]["tee_tcb_svn"]["components"] == [11, 1, 5] + [0] * 13
    assert "mrservicetd" not in value["td"]
    assert "QE vendor 939a7233f79c4ca9940a0db3957f0607 (Intel's)" in text
    assert value["trailing_bytes"] == {"zeros": 0}


def test_what_a_pck_says_of_its_processor():
    text, value = of_tdx()
    processor = value["certification"]["processor"]
    assert processor["fmspc"] == pki_intel.FMSPC.hex()
    assert processor["ppid"] == pki_intel.PPID.hex()
    assert processor["pce_svn"] == pki_intel.PCE_SVN
    assert processor["component_svns"]["components"] == list(pki_intel.SVNS)
    for said in ("FMSPC 50c06f000000", "PCE SVN 13", "component SVNs 4, 4, 2, 2, 4, 1, 0, 5", "PCE ID 0000"):
        assert said in text
    assert "CN=Intel SGX PCK Platform CA" in text
    first = value["certification"]["certificates"][0]
    assert f"valid from {Moment(first['not_before']).said} to {Moment(first['not_after']).said}" in text


def test_unknown_bits_of_attributes_are_shown():
    text, value = of_tdx(td={"attributes": bytes.fromhex("4100003000000080"), "seam_attributes": b"\1" + bytes(7)})
    assert "debug, pmt_prof, sept_ve_disable, migratable, perfmon (0x8000000030000041)" in text
    assert value["td"]["attributes"]["set"] == ["debug", "pmt_prof", "sept_ve_disable", "migratable", "perfmon"]
    text, value = of_tdx(td={"attributes": bytes.fromhex("0000021000000000"), "xfam": b"\3" + bytes(6) + b"\x40"})
    assert "sept_ve_disable, bit 17 (not known here) (0x10020000)" in text
    assert "x87, sse, bit 62 (not known here)" in text
    assert value["td"]["xfam"]["unknown_bits"] == [62]
    assert value["td"]["xfam"]["value"] == "0x4000000000000003"  # more than a reader of JSON would keep


def test_a_report_1_5_has_two_fields_more():
    text, value = of_tdx(version=5, td={"tee_tcb_svn2": bytes([13, 1, 5]) + bytes(13), "mrservicetd": b"\x77" * 48})
    assert value["td"]["mrservicetd"] == "77" * 48
    assert "TEE TCB SVN2" in text
    assert "body report of a TD, 1.5 (0x3)" in text


def test_components_that_have_no_name_yet():
    assert (
        "the other 13: 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1"
        in of_tdx(td={"tee_tcb_svn": bytes([11, 1, 5, 9] + [0] * 11 + [1])})[0]
    )


def test_trailing_bytes_are_counted():
    text, value = show(file("TDX quote, padded").data)
    assert "70 zero bytes follow the quote" in text
    assert value["tdx: what it says"]["trailing_bytes"]["zeros"] == 70


def test_a_quoting_enclave_that_is_not_intels():
    assert f"QE vendor {'ab' * 16} (not Intel)" in of_tdx(header={"vendor": b"\xab" * 16})[0]


def test_a_quote_of_an_enclave():
    enclave = {
        "attributes": bytes.fromhex("b700000000000080e702060000000000"),
        "misc_select": b"\5\0\0\0",
        "isv_svn": b"\7\0",
        "report_data": b"a service, built by us".ljust(64, b"\0"),
        "reserved": b"\1" + bytes(27),
    }
    text, value = show(pki_intel.World(tee="SGX", version=3, enclave=enclave, header={"reserved": b"\x08\0\x0d\0"}).quote())
    text, value = squeezed(text), value["sgx: what it says"]
    assert value["enclave"]["attributes"]["set"] == ["init", "debug", "mode64", "provision_key", "einittoken_key", "kss"]
    assert value["enclave"]["attributes"]["unknown_bits"] == [63]
    assert "misc select exinfo, bit 2 (not known here) (0x5)" in text
    assert value["enclave"]["isv_svn"] == 7
    assert "which reads as 'a service, built by us'" in text
    assert value["enclave"]["report_data"].startswith("6120736572")
    assert value["qe_report"]["isv_svn"] == 8
    assert "PPID" in text
    assert value["enclave"]["reserved"]["hex"].startswith("01")
    assert "QE SVN" in text


def certified(kind: int, data: bytes) -> Record:
    quote = replace(sgx.parse(machine("sgx").data).quote, certification_type=kind, certification_data=data)
    return fields_intel.of_sgx(sgx.Claims(quote, quote.enclave))["certification"]


@pytest.mark.parametrize(("kind", "name", "size"), [(1, "ppid", 16), (2, "encrypted_ppid", 256), (3, "encrypted_ppid", 384)])
def test_certification_data_without_a_certificate(kind: int, name: str, size: int):
    found = certified(kind, b"\x9a" * 384 + bytes(range(16)) + struct.pack("<H", 13) + b"\0\1")
    assert found[name] == b"\x9a" * size
    assert (found["cpu_svn"], found["pce_svn"], found["pce_id"]) == (bytes(range(16)), 13, b"\0\1")
    assert "PPID" in screened(found)


@pytest.mark.parametrize(("kind", "data"), [(3, b"short"), (7, b"a manifest"), (99, b""), (5, b"no PEM text")])
def test_certification_data_of_another_form_is_shown_whole(kind: int, data: bytes):
    found = certified(kind, data)
    assert found["data"] == data
    text = squeezed(screened(found))
    assert "not known here (0x63)" in text or kind != 99
    assert "cannot be read: " in text or kind != 5


def test_a_pck_chain_whose_first_certificate_is_none():
    text, value = of_tdx(chain=(pki_intel.ROOT,))
    assert "processor" not in value["certification"]
    assert "CN=Intel SGX Root CA" in text
    text, value = of_tdx(extension={"fmspc": b"\0"})
    assert "processor cannot be read: the SGX extension" in text


def test_what_no_check_reads_of_a_pck():
    member, der, number = pki_intel.member, pki_intel.der, pki_intel.number

    def extension(cpu_svn: bytes, configuration: bytes | None, instance: bytes = b"") -> bytes:
        svns = b"".join(member(b"\2" + bytes([n]), number(n)) for n in range(1, 18))
        tcb = der(0x30, svns + member(b"\2\x12", der(4, cpu_svn)))
        found = member(b"\2", tcb) + (member(b"\6", der(4, instance)) if instance else b"")
        return der(0x30, found + (member(b"\7", der(0x30, configuration)) if configuration is not None else b""))

    flags = member(b"\7\1", der(1, b"\xff")) + member(b"\7\2", der(1, b"\0"))
    found = intel_pck.Platform.parse(extension(b"\x11" * 16, flags, b"\x22" * 16))
    assert found == intel_pck.Platform(b"\x11" * 16, b"\x22" * 16, dynamic=True, cached_keys=False)
    strange = member(b"\7\1", der(4, b"\xff"))
    assert intel_pck.Platform.parse(extension(b"short", strange)) == intel_pck.Platform(None, None, None, None)
    assert intel_pck.Platform.parse(extension(b"", None)) == intel_pck.Platform(None, None, None, None)


# --- AMD ----------------------------------------------------------------------------------------------------------------


def of_snp(line: str = "genoa", kind: str = "vcek", **changes: Any) -> tuple[str, dict[str, Any]]:
    found = fields_amd.of_report(pki_amd.claims(line, kind, **changes))
    return squeezed(screened(found)), shown.plain(found)


def test_the_order_of_a_tcb_is_the_product_lines():
    text, value = of_snp("turin")
    expected = {"bootloader": 1, "fmc": 3, "hex": "0301020400000051", "microcode": 81, "snp": 4, "tee": 2}
    assert value["platform"]["reported_tcb"] == expected
    assert "reported TCB bootloader 1 microcode 81 snp 4 tee 2 fmc 3 (0301020400000051)" in text
    assert "processor turin (family 0x1a" in text
    assert f"chip ID {pki_amd.CHIP['turin'].hex()} VMPL" in text  # 8 bytes, and not what is zero behind them
    text, value = of_snp("milan")
    assert value["platform"]["reported_tcb"]["microcode"] == 222
    assert "fmc" not in value["platform"]["reported_tcb"]


def test_the_order_of_a_tcb_is_not_guessed():
    text, value = of_snp(cpuid=bytes((0x1B, 0, 0)))
    assert value["processor"]["name"] is None
    assert "not known here (family 0x1b" in text
    assert "(its order is of a processor that is not known here)" in text
    text, value = of_snp(reported_tcb=bytes.fromhex("0a00000100001754"))
    assert value["platform"]["reported_tcb"] == {"hex": "0a00000100001754"}
    assert "in no order that is known of genoa" in text
    text, _ = of_snp("milan", version=2, cpuid=bytes(3), launch_mitigations=0, current_mitigations=0)
    assert "TCBs are read in the order of Milan and Genoa" in text


def test_policy_and_platform_by_name():
    policy = pki_amd.policy("smt", "debug") | 1 << 40 | 0x011F
    text, value = of_snp(policy=policy, platform_info=0x25 | 1 << 60, key_info=3, author_key_digest=b"\1" * 48)
    assert "policy smt, bit 17 (always set), debug, bit 40 (not known here); ABI 1.31 or later" in text
    assert value["guest"]["policy"]["unknown_bits"] == [40]
    assert value["guest"]["policy"]["minimum_abi"] == "1.31"
    assert "platform info smt, ecc, alias_check_complete, bit 60 (not known here)" in text
    assert "key info author_key_enabled, chip_key_masked (0x3)" in text
    assert "signing key VCEK (0x0)" in text


def test_who_asked_for_a_report_and_what_the_host_masked():
    text, value = of_snp(vmpl=snp_report.HOST_VMPL, chip_id=bytes(64), report_id_ma=b"\x5a" * 32)
    assert "chip ID zero: masked by the host" in text
    assert "VMPL none: the host asked" in text
    assert value["vmpl"] == {"value": 0xFFFFFFFF}
    assert f"migration agent {'5a' * 32}" in text
    assert "launch mitigations bit 0 (not known here), bit 1" in text


@pytest.mark.parametrize("line", ["milan", "genoa", "turin"])
def test_what_amd_certified_is_shown_beside_the_report(line: str):
    found = fields_report._document(Endorsement(CERTIFICATE, pki_amd.leaf(line)))
    text, value = squeezed(screened(found)), shown.plain(found)
    (one,) = value["certificates"]
    assert one["amd_extensions"]["chip_id"] == pki_amd.CHIP[line].hex()
    assert one["amd_extensions"]["tcb"] == pki_amd.TCB[line].to_json()
    assert f"AMD extensions kind VCEK product line {line} TCB bootloader" in text
    assert one["certificate"]["serial_number"] == "0x0"


def test_a_vlek_names_its_cloud_provider():
    found = fields_report._document(Endorsement(CERTIFICATE, pki_amd.leaf("genoa", "vlek")))
    assert f"cloud provider {pki_amd.PROVIDER}" in squeezed(screened(found))


def test_documents_that_came_along():
    def document(media_type: str, data: bytes) -> str:
        return squeezed(screened(fields_report._document(Endorsement(media_type, data))))

    assert "cannot be read: not a certificate" in document(CERTIFICATE, b"none")
    chain = document(PEM_CHAIN, pem(pki_amd.ark("genoa")) + pem(pki_amd.issuer("genoa")))
    assert "[1] CN=SEV-Genoa" in chain
    crl = document(CRL, pki_amd.crl("genoa"))
    assert "revocation list issuer CN=ARK-Genoa" in crl
    assert "next update 20" in crl
    assert "cannot be read" in document(CRL, b"none")
    assert f"media type {JWK_SET} bytes 2 digest sha256:" in document(JWK_SET, b"{}")
    pck = pki_intel.World().certificate(pki_intel.PCK)
    assert "PCK extension PPID 000102" in document(CERTIFICATE, pck)


# --- TPM and Azure ------------------------------------------------------------------------------------------------------


def of_tpm(**world: Any) -> tuple[str, dict[str, Any]]:
    text, value = show(json.dumps(pki_tpm.World(**world).evidence.to_json()).encode())
    return squeezed(text), value["tpm: what it says"]


def test_a_quote_of_a_tpm():
    text, value = of_tpm(extra_data=b"challenge", resets=7, restarts=3, clock=123_456_789, safe=0)
    quote = value["quote"]
    assert (quote["nonce"], quote["reset_count"], quote["restart_count"]) == (b"challenge".hex(), 7, 3)
    assert "which reads as 'challenge'" in text
    assert quote["clock"] == {"milliseconds": 123_456_789}
    assert "clock 1 days 10:17:36 of power (123456789 ms)" in text
    assert quote["clock_safe"] is False
    assert quote["firmware_version"] == "2019102300000001"
    assert quote["pcr_selection"] == {"banks": [{"bank": "sha256", "pcrs": list(range(16))}]}
    assert "PCR selection sha256: 0, 1, 2" in text
    assert value["registers"]["pcrs"]["pcr7"] == pki_tpm.register(7).hex()
    assert f"PCR 7 {pki_tpm.register(7).hex()}" in text
    assert "scheme ecdsa (0x18)" in text
    assert "type quote (0x8018)" in text


def test_the_key_of_a_tpm():
    text, value = of_tpm()
    key = value["attestation_key"]
    assert {"fixedTPM", "fixedParent", "sensitiveDataOrigin", "restricted", "sign"} <= set(key["attributes"]["set"])
    assert "attributes fixedTPM, " in text
    assert "key elliptic curve secp256r1" in text
    assert "parent endorsement (0x4000000b)" in text
    assert key["scheme_digest"] == {"name": "sha256", "value": 0x0B}
    assert "authorization policy none" in text
    named = of_tpm(parent=b"\0\x0b" + bytes(range(32)))[0]
    assert f"parent sha256:{bytes(range(32)).hex()}" in named


def test_a_key_that_no_tpm_describes():
    text, value = of_tpm(bare=True)
    assert "attributes" not in value["attestation_key"]
    assert "described by nobody but its certificate" in text


def test_what_a_tpm_did_not_make_and_what_is_no_quote():
    message = pki_tpm.World(magic=0x41414141, kind=0x8017).message
    text = squeezed(screened(fields_tpm.attest(tpm2.Attest.parse(message))))
    assert "magic not made by a TPM (0x41414141)" in text
    assert "type certify (0x8017)" in text
    assert "PCR selection" not in text
    other = replace(tpm2.Attest.parse(message), kind=tpm2.ATTEST_QUOTE, selections=(tpm2.Selection(0x7777, (3,)),))
    assert "PCR selection 0x7777: 3" in squeezed(screened(fields_tpm.attest(replace(other, qualified_signer=b"\0"))))
    assert "PCR selection none" in squeezed(screened(fields_tpm.attest(replace(other, selections=()))))


@pytest.mark.parametrize("platform", ["azure_snp", "azure_tdx"])
def test_azures_hardware_and_runtime_data_are_taken_apart(platform: str):
    text, value = show(machine(platform).data)
    value = value[f"{platform}: what it says"]
    assert value["runtime_data"]["vm-configuration"]["secure-boot"] is True
    assert "    vm-configuration" in text
    digest = value["runtime_data_digest"]["report_data"]
    if platform == "azure_snp":
        assert value["sev_snp_report"]["guest"]["report_data"] == digest
        assert "SEV SNP report" in text
    else:
        assert value["tdx_quote"]["td"]["report_data"] == digest
        assert "TDX quote" in text
    assert value["quote"]["pcr_digest"]


def test_hardware_that_cannot_be_read_is_no_end():
    claims = azure_claims.parse(pki_azure.World().evidence.data)
    for hardware in (b"", b"junk", bytes(snp_report.REPORT_BYTES)):
        text = squeezed(screened(replace(claims, hardware=hardware)))
        assert "cannot be read: " in text
        assert "key digest sha256:" in text


def test_a_paravisors_report_is_taken_apart():
    report = bytearray(1024)
    report[0] = 0x81
    report[128:192] = b"what the paravisor chose".ljust(64, b"\0")
    report[512:520] = bytes.fromhex("0000001000000000")
    report[720:768] = b"\x20" * 48
    text, value = show(pki_azure.hcl(4, bytes(report) + bytes(160), pki_azure.runtime_data()))
    value = value["paravisor's report"]
    assert value["tdreport"]["rtmr0"] == "20" * 48
    assert value["tdreport"]["report_type"]["type"] == 0x81
    assert "'what the paravisor chose'" in text
    assert "hardware                          Intel TDX (0x4)" in text
    with pytest.raises(ValueError, match="1024"):
        fields_intel.tdreport(bytes(100))
    text, value = show(file("paravisor on SNP").data)
    assert value["paravisor's report"]["sev_snp_report"] == value["sev_snp: what it says"]


def test_runtime_data_that_is_no_json():
    text = squeezed(screened(Record(a=fields_tpm._runtime(b"{"), b=fields_tpm._runtime(b"\0\0"))))
    assert "a cannot be read: " in text


# --- Nitro --------------------------------------------------------------------------------------------------------------


def of_nitro(**members: Any) -> tuple[str, dict[str, Any]]:
    text, value = show(pki_nitro.World(members=members).data)
    return squeezed(text), value["nitro: what it says"]


def test_a_document_of_nitro():
    text, value = of_nitro(user_data=b"hello, verifier", nonce=b"\1\2\3", public_key=None)
    assert value["timestamp"] == {"milliseconds": pki_nitro.AT * 1000 + 5, "unix": pki_nitro.AT}
    assert f"timestamp {Moment(pki_nitro.AT).said}, 5 ms" in text
    assert value["user_data"] == b"hello, verifier".hex()
    assert "which reads as 'hello, verifier'" in text
    assert "nonce 010203 user data" in text
    assert value["public_key"] is None
    assert "public key none" in text
    assert f"module ID {pki_nitro.MODULE}" in text
    assert "PCR 0 " in text
    assert "started for debugging no" in text
    assert len(value["certificates"]) == 1 + len(pki_nitro.bundle())
    assert value["certificates"][0]["issuer"] == value["certificates"][1]["subject"]
    assert value["certificates"][-1]["issuer"] == value["certificates"][-1]["subject"]


def test_registers_of_a_debugged_enclave():
    text, value = of_nitro(pcrs={n: bytes(48) for n in range(16)} | {3: b"\3" * 48, 15: b"\xff" * 48})
    assert "started for debugging yes: a register of the image is zero" in text
    assert f"PCR 3 {'03' * 48} all zero 0-2, 4-14 all ff 15" in text
    assert value["registers"]["pcrs"]["pcr0"] == "00" * 48


def test_a_time_that_is_no_date_and_a_certificate_that_is_none():
    text, value = of_nitro(timestamp=2**53 - 1, certificate=b"none", nonce=b"")
    assert "which is no date" in text
    assert value["timestamp"]["milliseconds"] == 2**53 - 1
    assert "[0] cannot be read: not a certificate" in text
    assert "nonce empty" in text


def test_a_public_key_in_a_document():
    key = pki_tpm.key_info(pki_tpm.World().key.public_key())
    text, value = of_nitro(public_key=key)
    assert value["public_key"] == key.hex()
    assert "which is a key, elliptic curve secp256r1" in text


# --- event logs ---------------------------------------------------------------------------------------------------------

X509, SHA256 = (bytes.fromhex(h) for h in ("a159c0a5e494a74a87b5ab155c2bf072", "2616c4c14c509240aca941f936934328"))


def signatures(kind: bytes, *data: bytes, header: bytes = b"") -> bytes:
    """An EFI_SIGNATURE_LIST of entries of one size."""
    each = 16 + len(data[0])
    body = header + b"".join(bytes(16) + one for one in data)
    return kind + struct.pack("<III", 28 + len(body), len(header), each) + body


def of_variable(name: str, value: bytes, kind: int = 0x80000001) -> tuple[str, dict[str, Any]]:
    made = replace(pki_dstack.guest_log(), events=(pki_dstack.event(1, kind, pki_dstack.uefi_variable(name, value)),))
    text, found = show(made.encode())
    return squeezed(text), found["events"][0]


def test_an_event_is_whole_for_machines():
    text, found = of_variable("SecureBoot", b"\1")
    assert "SecureBoot 01" in text
    assert found["data"].endswith("01")
    assert found["digests"]["sha384"] in text
    assert (found["register"], found["type"]) == ("RTMR0", "EV_EFI_VARIABLE_DRIVER_CONFIG")
    assert "variable" not in found
    assert "SecureBoot (empty)" in of_variable("SecureBoot", b"")[0]


def test_what_secure_boot_trusts_is_read():
    ark, issuer = pki_amd.ark("genoa"), pki_amd.issuer("genoa")
    db = signatures(X509, ark) + signatures(X509, issuer, header=b"head") + signatures(SHA256, b"\1" * 32, b"\2" * 32)
    text, found = of_variable("db", db)
    assert "db: certificates: 2, digests: 2 CN=ARK-Genoa" in text
    assert "valid from 20" in text
    assert found["variable"]["digests"] == 2
    assert found["variable"]["certificates"][1]["subject"].startswith("CN=SEV-Genoa")
    assert "dbx: no entry" in of_variable("dbx", b"")[0]
    strange = signatures(X509, b"none") + signatures(bytes(16), b"\3" * 8)
    assert "KEK: not read here: 2" in of_variable("KEK", strange)[0]
    assert "db: certificates: 1 CN=ARK-Genoa" in of_variable("db", bytes(16) + ark, 0x800000E0)[0]


@pytest.mark.parametrize(
    "data",
    [X509 + struct.pack("<III", 27, 0, 48), X509 + struct.pack("<III", 100, 0, 48), X509 + struct.pack("<III", 28, 1, 48),
     X509 + struct.pack("<III", 60, 0, 16) + bytes(32), X509 + struct.pack("<III", 28, 0, 48), b"short"],
)  # fmt: skip
def test_signature_lists_that_contradict_themselves_end(data: bytes):
    assert list(fields_uefi.entries(data)) == []


def test_signature_lists_have_an_end():
    many = signatures(SHA256, *(n.to_bytes(32, "big") for n in range(fields_uefi.MAX_ENTRIES + 1)))
    assert len(list(fields_uefi.entries(many))) == fields_uefi.MAX_ENTRIES


@SLOW
@given(st.binary(max_size=512), st.integers(0, 3))
def test_no_variable_makes_show_crash(data: bytes, lists: int):
    of_variable("db", signatures(X509, data or b"\0") * lists + data)
    of_variable("PK", data, 0x800000E0)


# --- NVIDIA -------------------------------------------------------------------------------------------------------------


def opaque(**fields_: bytes) -> str:
    found = {int(name[1:]): data for name, data in fields_.items()}
    report = replace(spdm.parse(pki_nvidia.Device().report), opaque=found)
    return squeezed(screened(report))


def test_the_fields_of_a_device_have_names():
    text, value = show(file("GPU by the SDK").data)
    value, text = value["device 0: what it says"], squeezed(text)
    assert value["driver_version"] == pki_nvidia.DRIVER
    assert value["report"]["fields"]["vbios_version"]["version"] == pki_nvidia.VBIOS
    assert "NVDEC 0 status disabled (0x55)" in text
    assert "project G520 (4735323000)" in text
    assert value["report"]["measurements"]["measurement1"] == pki_nvidia.value(0).hex()
    assert "measurement 64 " in text
    assert len(value["certificates"]) == 5
    assert value["report"]["nonce"] == pki_nvidia.NONCE.hex()


def test_fields_of_a_device_that_are_strange_are_shown_as_they_are():
    assert "field 77 (not known here) abcd" in opaque(f77=b"\xab\xcd")
    assert "protected PCIe status not known here (0x11)" in opaque(f21=b"\x11")
    assert "feature flag protected PCIe (0x2)" in opaque(f36=b"\2\0")
    assert "feature flag not known here (0x9)" in opaque(f36=b"\x09\0")
    assert "board ID 1079 (0x437)" in opaque(f14=b"\x37\4\0\0")
    assert "measurement counts 1, 2" in opaque(f12=b"\1\0\0\0\2\0\0\0")
    assert "measurement counts 010203" in opaque(f12=b"\1\2\3")
    assert "measurement counts none" in opaque(f12=b"")
    assert "switch PDIs 0101010101010101, 0202020202020202" in opaque(f22=b"\1" * 8 + b"\2" * 8)
    assert f"{'ab' * 8} ports: {'cd' * 8}" in opaque(f26=b"\xab" * 64 + b"\xcd" * 8)
    assert "GPU PDIs 010203" in opaque(f26=b"\1\2\3")
    assert "GPU PDIs empty" in opaque(f26=b"")
    assert "VBIOS version 39362e31 which reads as '96.1'" in opaque(f6=b"96.1")
    assert "VBIOS version 96.00.A5.00.01 (00a5009601000000)" in opaque(f6=bytes.fromhex("00a5009601000000"))
    assert f"VBIOS version {'ff' * 8}" in opaque(f6=b"\xff" * 8)


def test_a_leaf_whose_firmware_id_cannot_be_read_hides_nothing():
    broken = {0: {"others": (pki_nvidia.composite_device_id(b"\1"),)}}
    claims = nvidia_device.parse(pki_nvidia.Device(certificates=broken).evidence.data)
    text = squeezed(screened(claims))
    assert "certified firmware ID cannot be read: " in text
    assert "measurement 64 " in text


def test_tokens_of_nvidias_service():
    text, value = show(file("NVIDIA's tokens").data)
    value, text = value["device 0: what it says"], squeezed(text)
    assert value["overall_token"]["header"]["alg"] == "ES384"
    claims = value["device_token"]["claims"]
    assert isinstance(claims["exp"], int)
    assert f"exp {Moment(claims['exp']).said}" in text
    assert len(value["device_token"]["signature"]) == 192
    unsigned = pki_nvidia.TokenWorld(unsigned=True).evidence.data
    text = squeezed(show(unsigned)[0])
    assert "signature none: the token is not signed" in text


# --- reports ------------------------------------------------------------------------------------------------------------


def test_our_own_report_says_what_binds_the_devices():
    text, value = show(file("our report with GPUs").data)
    assert value["what binds the devices"]["payload"]
    assert "key ID" in text
    assert value["report"]["devices"] == 2
    assert any(one.get("revocation_list", {}).get("entries") is not None for one in value["what came along with it"])
    assert squeezed(text).count("not after 20") >= 1  # of the keyset, as a date
    assert isinstance(value["keyset"]["not_after"], int)


def test_a_binding_that_cannot_be_read_hides_nothing():
    found = detect.detect(file("our report with GPUs").data)
    broken = replace(found, evidence=replace(found.evidence, device_binding=b"{}"))
    sections = dict(shown.sections(broken))
    assert "cannot be read: " in screened(sections["what binds the devices"])
    assert "tdx: what it says" in sections


def test_what_a_service_says_of_its_keys():
    text, value = show(file("service with an address").data)
    service = value["service"]
    assert service["signing_address"]["kind"] == "Ethereum address"
    assert service["app_compose"]["name"] == "an app"
    assert "device 1: what it says" in value
    assert "tdx_quote" in value["dstack: what it says"]
    report = detect.detect(file("service with an address").data).service
    strange = replace(report, signing_address=b"\1" * 32, tls_key=b"\2" * 32, app_compose=b"no JSON at all")
    text = squeezed(screened(fields_report._service(strange)))
    assert "Ed25519 key" in text
    assert f"TLS key digest {'02' * 32}" in text
    assert "which reads as 'no JSON at all'" in text
    custody = show(file("dstack's service").data)[1]["service"]["custody"]
    assert custody[0]["role"] == "receipt"


# --- how it is kept -----------------------------------------------------------------------------------------------------


def test_flags_and_numbers_that_stand_for_something():
    assert fields.bits(0, {}).said == ("none is set (0x0)",)
    assert fields.bits(1 << 70, {"a": 0})["unknown_bits"] == [70]
    assert fields.bits(3, {"a": 0}, ones={1: "one"})["set"] == ["a", "one"]
    assert fields.named(2, {2: "two"}) == {"name": "two", "value": 2}
    assert fields.named(1 << 60, {})["value"] == hex(1 << 60)
    assert fields.named(9, {}).said == ("not known here (0x9)",)


@pytest.mark.parametrize("data", [b"", b"abc", b"\xff\xfe\xfd\xfc", b"\1\2\3\4", b"ab\x1b[31m", "\u202eabcd".encode()])
def test_bytes_that_do_not_read_as_text(data: bytes):
    found = fields.text(data)
    assert found == data.hex()
    assert found.said == (data.hex() or "empty",)


def test_keys_of_every_kind():
    from cryptography.hazmat.primitives.asymmetric import ed25519

    assert fields.key(ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()) == "of another kind"
    assert fields.certificate(Certificate(pki_amd.ark("genoa")))["key"] == "RSA-4096"


def test_a_certificate_of_a_key_that_is_not_read_here(monkeypatch: pytest.MonkeyPatch):
    from strongroom.errors import BadCertificate

    def refuse(_self: Certificate) -> None:
        raise BadCertificate("no")

    one = Certificate(pki_amd.ark("genoa"))
    monkeypatch.setattr(Certificate, "public_key", property(refuse))
    assert fields.certificate(one)["key"] == "of a kind that is not read here"


def test_a_parser_that_fails_is_one_line():
    def wrong() -> None:
        raise ValueError

    assert fields.of_parse(wrong).said == ("cannot be read: malformed",)

    def refused() -> None:
        raise BadEvidence("too short")

    assert fields.of_parse(refused) == {"cannot_be_read": "too short"}


def test_a_field_that_defies_its_description_is_shown_as_its_parser_left_it(monkeypatch: pytest.MonkeyPatch):
    def refuse(_claims: object) -> None:
        raise BadEvidence("no")

    monkeypatch.setattr(fields_intel, "DESCRIBED", {tdx.Claims: refuse})
    assert "quote" in shown.plain(tdx.parse(machine("tdx").data))
    monkeypatch.setattr(fields_intel, "DESCRIBED", {})
    assert "quote" in shown.plain(tdx.parse(machine("tdx").data))


def test_a_certificate_by_itself_and_values_of_every_kind():
    one = Certificate(pki_amd.ark("genoa"))
    assert "CN=ARK-Genoa" in screened(one)
    assert screened("one value").split() == ["one", "value"]
    assert shown.plain(Spoken({"a": 1}, "said")) == {"a": 1}
    assert "  a " in screened({"a": [], "b": {}, "c": Record()})
    assert "0, 1" in screened({"a": [0, 1]})
    assert "PCR 1" in screened(Digests(pcr1=b"\1" * 32))
    assert "70000 (0x11170)" in screened({"a": 70000})
    assert shown.plain({"a": {3, 1}}) == {"a": ["1", "3"]}
    deep: Any = 0
    for _ in range(shown.MAX_DEPTH + 2):
        deep = [deep]
    assert "…" in screened(deep)
    assert "CN=ARK-Genoa" in screened({"a": pki_amd.ark("genoa").hex()})
    assert "CN=ARK-Genoa" in screened({"a": pem(pki_amd.ark("genoa"))})
    assert "3082" in screened({"a": "3082"})
    assert screened([{"a": 1}, {"b": [[1, 2]]}]).split() == ["[0]", "a", "1", "[1]", "b", "[0]", "1,", "2"]


# --- nothing harms a screen ---------------------------------------------------------------------------------------------

EVIL = "\x1b[2J\x1b]0;title\x07\r\nverdict                 affirming\u202e\u200b\ud800"


def test_names_and_values_of_others_never_reach_a_terminal_as_they_are():
    ear = {**EAR, EVIL: EVIL, "submods": {EVIL: {EVIL: [EVIL, {EVIL: 1}]}, "x": [[EVIL] * 2]}}
    text, _ = show(json.dumps(ear).encode())
    assert not any(line.strip().startswith("verdict") for line in text.splitlines())
    assert "\x1b" not in text
    assert "\u202e" not in text
    sections = {title: shown.plain(claims) for title, claims in shown.sections(detect.detect(json.dumps(ear).encode()))}
    json.dumps(sections, ensure_ascii=False).encode("utf-8")  # half a character would be refused here


def test_names_and_values_without_end_are_cut():
    text, _ = show(json.dumps({**EAR, "n" * 10_000: "v" * 10_000, "t" * 10_000: {"a": 1}}).encode())
    assert max(map(len, text.splitlines())) < 5000
    assert "… (the rest: --json)" in text


@pytest.mark.parametrize(
    "like",
    [{"said": 1}, {"hex": [], "text": {}}, {"register": 1, "type": {}, "found": [], "of": 0, "digest": {"a": 1}, "text": 2}],
)
def test_json_that_looks_like_fields_of_ours_is_json(like: dict[str, Any]):
    _, value = show(json.dumps({**EAR, "submods": {"a": like}}).encode())
    assert value["claims"]["submods"]["a"] == like


def harmless(data: bytes) -> None:
    try:
        show(data)
    except BadEvidence:
        return


@SLOW
@given(
    st.sampled_from(sorted(FILES)), st.lists(st.tuples(st.floats(0, 0.9999), st.integers(0, 255)), min_size=1, max_size=8)
)
def test_no_changed_byte_makes_show_crash(name: str, changes: list[tuple[float, int]]):
    data = bytearray(file(name).data)
    for place, byte in changes:
        data[int(place * len(data))] = byte
    harmless(bytes(data))


BINARY = ["TDX quote 4", "TDX quote 5", "SGX quote", "SNP report", "Nitro document", "paravisor on TDX", "GPU's report"]


@SLOW
@given(st.sampled_from(BINARY), st.floats(0, 0.9999), st.binary(min_size=1, max_size=64))
def test_no_bytes_put_over_a_field_make_show_crash(name: str, place: float, over: bytes):
    data = file(name).data
    at = int(place * len(data))
    harmless((data[:at] + over + data[at + len(over) :])[: len(data)])


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64) | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(), max_size=12), inner, max_size=4),
    max_leaves=20,
)


@SLOW
@given(JSONS)
def test_no_claims_of_others_make_show_crash(claims: Any):
    harmless(json.dumps({**EAR, "submods": {"a": claims}, "exp": claims, "iat": claims}).encode())


@SLOW
@given(st.binary(max_size=2048))
def test_a_raw_field_of_any_bytes_is_shown(data: bytes):
    screened(Record(a=fields.text(data), b=data, c=certified(5, data), d=certified(3, data), e=fields_tpm._runtime(data)))
    screened(fields_report._document(Endorsement(CERTIFICATE, data)))
    screened(replace(spdm.parse(pki_nvidia.Device().report), opaque=dict.fromkeys(range(40), data)))


# --- real evidence ------------------------------------------------------------------------------------------------------


@real
def test_real_evidence_is_shown_field_by_field():
    said = {
        "tdx/google_v5_tdx15.quote": ["FMSPC 90c06f000000", "smt", "TEE TCB SVN2", "sept_ve_disable (0x10000000)"],
        "tdx/trustee_v4_debug.quote": ["debug, "],
        "sgx/oasis_v3_eppid_certtype3.quote": ["PPID encrypted for Intel (RSA-3072)", "PCE SVN 12"],
        "snp/virtee_v2_milan.report": ["microcode 115 snp 8", "current firmware 1.52.4"],
        "snp/gce_v4_milan_novcek.report": ["processor milan"],
        "configfs_tsm/genoa_tsm_report.json": ["product line genoa", "CN=ARK-Genoa", "MIDBNH28iioisjPy"],
        "azure_vtpm/snp_v1.json": ["which reads as 'challenge'", "secure-boot true", "guest SVN 10", "kind VCEK"],
        "azure_vtpm/openpcc_tdx_hcl.bin": ["TDREPORT", "filtered-vpci-devices-allowed false"],
        "nitro/evervault_beta.cose": ["2022-10-13 08:58:02 UTC", "CN=aws.nitro-enclaves", "all zero 5-7, 9-15"],
        "tpm/gce_cos85_nononce.pb": ["restricted, sign", "firmware version 2016051100162800", "reset count 10"],
        "nvidia/sdk_hopper_590.json": ["driver version 590.12", "feature flag protected PCIe"],
        "nras/h200_tokens.json": ["2026-09-04 13:31:05 UTC", "alg ES384"],
    }
    for name, expected in said.items():
        text = squeezed(show(read(name))[0]).replace("SMT", "smt")
        for one in expected:
            assert one in text, (name, one)


@real
def test_of_real_evidence_people_see_every_digest():
    for path in sorted(FOLDER.rglob("*")):
        if path.is_file():
            try:
                text, value = show(path.read_bytes())
            except BadEvidence:
                continue
            bare = "".join(text.split())
            assert {d for d in hidden(value) if d.strip("0") and d.strip("f") and d not in bare} == set(), path.name
