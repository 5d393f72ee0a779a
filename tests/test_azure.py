"""Azure's virtual TPM: every check has its attack, on a machine of our own and on what Azure's signed."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import re
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pki_amd
from evidence_case import accepted_flips, flips, names_in_page, run, walk
from pki_azure import MACHINE, World, b64url, hcl, runtime_data
from pki_tpm import REPORT_DATA, register
from real import read, real
from strongroom import wire
from strongroom.attest import azure, azure_foreign, snp, tdx, tpm_foreign
from strongroom.attest import endorsements as documents
from strongroom.attest.azure import AZURE_SNP, AZURE_TDX, AzureVerified, Claims, SnpTerms, TdxTerms, parse
from strongroom.attest.azure_foreign import SNP, TDX, HclReport
from strongroom.attest.endorsements import CERTIFICATE, CRL, INTEL_QE_IDENTITY, INTEL_TCB_INFO, PEM_CHAIN
from strongroom.attest.evidence import Endorsements, Evidence, Roots
from strongroom.attest.intel_collateral import TcbStatus
from strongroom.attest.registry import verifier
from strongroom.attest.tpm_quote import Quote
from strongroom.attest.vector import AFFIRMED, UNACCEPTABLE
from strongroom.attest.x509 import RevocationList, from_pem
from strongroom.errors import BadEvidence, BadField, EvidenceForged, StrongroomError
from strongroom.transcript import Status, Steps, Transcript

HOME = Path(__file__).parents[1]
PAGE = HOME / "spec" / "evidence-azure-vtpm.md"
FILES = sorted((HOME / "vectors" / "azure_vtpm").glob("*.json"))
GOOD = World()
DATA = GOOD.evidence.data
INTEL = Roots(certificates=("sha256:a0af031289f5d5d4132f9186068a7fc13628633ba235777472e29b6b6c67a49e",))
AMD = Roots(certificates=("sha256:9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9",))


def _maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_azure_vtpm", HOME / "vectors" / "make_azure_vtpm.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def of(world: World):
    return walk(world.verifier, world.evidence, world.endorsements, world.roots, world.at, world.accepted)


# --- vectors and page -------------------------------------------------------------------------------------------------


def test_the_vectors_are_those_that_their_script_writes():
    assert FILES
    assert {path.stem: json.loads(path.read_bytes()) for path in FILES} == _maker().all_cases()


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_vector(path):
    case = json.loads(path.read_bytes())
    platform = verifier(case["platform"])
    outcome = run(platform, case)
    assert (outcome.code, outcome.number) == (case["expect"], case["fails"])
    if case["fails"] != "Z1":
        data = wire.unb64(case["evidence"])
        assert platform.parse(data).encode() == data


def test_every_numbered_check_is_failed_by_some_vector():
    failed = {json.loads(path.read_bytes())["fails"] for path in FILES} - {""}
    assert failed == {number for number, _ in (*azure.STEPS, *azure.TERMS_STEPS)}


def test_the_page_numbers_the_checks_as_the_code_does():
    assert names_in_page(PAGE, "Z") == dict(azure.STEPS)
    assert names_in_page(PAGE, "ZT") == dict(azure.TERMS_STEPS)


def test_the_page_shows_evidence_and_terms_as_they_are_written():
    evidence, terms = (block.split("```")[0] for block in PAGE.read_text(encoding="utf-8").split("```json\n")[1:])
    shown = json.loads(evidence)
    few = World(pcrs={0: register(0)})
    assert shown == {**json.loads(few.evidence.data), "hardware": shown["hardware"]}
    assert few.evidence.data.decode().split('"hardware":"')[1].startswith(shown["hardware"].rstrip("…"))
    assert json.loads(terms) == TdxTerms().to_json()
    assert TdxTerms.from_json(json.loads(terms)) == TdxTerms()


# --- what good evidence says ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("platform", ["azure_snp", "azure_tdx"])
def test_a_good_quote_says_what_was_booted_on_which_hardware(platform):
    world = World(platform=platform)
    outcome = of(world)
    verified = outcome.verified
    assert outcome.code == "ok"
    registers = verified.measurement.registers
    assert verified.measurement.platform == platform
    assert {name for name in registers if name.startswith("pcr")} == {f"pcr{n}" for n in range(16)}
    assert set(registers) > set(verified.hardware.measurement.registers)
    assert verified.report_data == hashlib.sha256(REPORT_DATA).digest()
    assert verified.binds(REPORT_DATA)
    assert not verified.binds(bytes(64))
    assert verified.produced_at is None
    assert verified.debug is False
    assert verified.machine == verified.hardware.machine is not None
    assert verified.valid_until == verified.hardware.valid_until
    assert verified.collateral == verified.hardware.collateral != ()
    assert verified.checks[-1].status is Status.PASSED
    assert outcome.vector.hardware == outcome.vector.runtime_opaque == AFFIRMED
    assert MACHINE in outcome.check("Z1").detail


def test_debugging_is_the_hardwares():
    assert of(World(hardware={"policy": pki_amd.policy("debug")})).verified.debug is True


def test_what_fails_the_terms_is_contraindicated():
    assert of(replace(GOOD, safe=0)).vector.hardware == UNACCEPTABLE
    assert of(replace(GOOD, terms=SnpTerms())).vector.hardware == UNACCEPTABLE  # by the platform beneath
    # Every term is judged, whatever became of the others.
    failed = of(replace(GOOD, safe=0, restarts=1, terms=SnpTerms()))
    assert [c.number for c in failed.checks if c.code] == ["ZT1", "ZT4"]


def test_only_verify_makes_it():
    verified = of(GOOD).verified
    with pytest.raises(TypeError):
        AzureVerified("azure_snp", verified.claims, verified.hardware, (), maker=object())


def test_no_root_verifies_nothing():
    assert walk(AZURE_SNP, GOOD.evidence, GOOD.endorsements, Roots(), GOOD.at).code == "attest.unknown_root"


def test_a_platform_beneath_that_forgets_a_check_is_refused(monkeypatch):
    beneath = SimpleNamespace(STEPS=Steps("S", ["one", "two"]), verify=lambda *_, **__: None)
    monkeypatch.setattr(azure, "verifier", lambda _: beneath)
    with pytest.raises(BadEvidence, match="was not made"):
        AZURE_SNP.verify(GOOD.evidence, Endorsements(), roots=Roots(), at=0, transcript=Transcript(azure.STEPS))


def test_a_platform_beneath_that_records_nothing_is_named(monkeypatch):
    def refuse(*_, **__):
        raise EvidenceForged("no")

    monkeypatch.setattr(azure, "verifier", lambda _: SimpleNamespace(STEPS=Steps("S", ["one"]), verify=refuse))
    with pytest.raises(EvidenceForged, match="sev_snp: no"):
        AZURE_SNP.verify(GOOD.evidence, Endorsements(), roots=Roots(), at=0, transcript=Transcript(azure.STEPS))


def test_a_platform_beneath_without_terms(monkeypatch):
    verified = of(GOOD).verified
    monkeypatch.setattr(azure, "verifier", lambda _: SimpleNamespace(TERMS_STEPS=None))
    transcript = Transcript(azure.TERMS_STEPS)
    AZURE_SNP.judge(verified, SnpTerms(pki_amd.TERMS), at=0, transcript=transcript)
    assert transcript.checks[0].detail == "the hardware has no terms"


# --- terms ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("terms", [SnpTerms, TdxTerms])
def test_terms_come_out_as_they_went_in(terms):
    assert terms.from_json(terms().to_json()) == terms()
    for name in terms().to_json():
        with pytest.raises(BadField):
            terms.from_json({k: v for k, v in terms().to_json().items() if k != name})
    for change in ({"secure_boot": 1}, {"console": "any"}, {"quote": {}}, {"hardware": {}}, {"more": 1}):
        with pytest.raises(BadField):
            terms.from_json({**terms().to_json(), **change})


def test_terms_of_one_platform_are_not_anothers():
    with pytest.raises(BadField):
        SnpTerms.from_json(TdxTerms().to_json())
    assert isinstance(AZURE_SNP.Terms().hardware, snp.Terms)
    assert isinstance(AZURE_TDX.Terms().hardware, tdx.Terms)


# --- bytes ------------------------------------------------------------------------------------------------------------


def test_evidence_over_its_limit_is_refused_unread():
    with pytest.raises(BadEvidence, match="at most"):
        parse(DATA + b" " * azure.MAX_AZURE_BYTES)
    with pytest.raises(BadEvidence):
        Claims(parse(DATA).quote, bytes(azure.MAX_HARDWARE_BYTES + 1), runtime_data())


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data):
    for reader in (parse, HclReport.parse, azure_foreign.from_trustee_snp, azure_foreign.from_trustee_tdx):
        with pytest.raises(BadEvidence):
            reader(data)


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(["digest", "hardware", "runtime_data", "pcrs", "quote", "signature"]), _values)
def test_a_member_of_any_kind_is_refused_or_comes_out_as_it_went_in(name, value):
    with suppress(StrongroomError):
        encoded = wire.encode({**json.loads(DATA), name: value})
        assert parse(encoded).encode() == encoded


@given(st.sampled_from(["keys", "vm-configuration"]), _values)
def test_runtime_data_of_any_kind_are_refused(name, value):
    with pytest.raises(BadEvidence):
        azure.RuntimeData.parse(runtime_data(**{"keys": None, "vm-configuration": {}, name: value}))


@given(st.integers(0, 3000), st.binary(min_size=1, max_size=4))
def test_changed_runtime_data_are_refused_or_read(place, others):
    data = runtime_data()
    place %= len(data)
    with suppress(BadEvidence):
        azure.RuntimeData.parse(data[:place] + others + data[place + len(others) :])


@given(st.integers(0, len(DATA) - 1))
def test_evidence_cut_short_is_refused(size):
    with pytest.raises(BadEvidence):
        parse(DATA[:size])


def meant(data: bytes) -> Claims:
    """What evidence says, without what is harmless: in a TDX quote, all of the certificates' PEM but the certificates."""
    claims = parse(data)
    signed, begin, pem = claims.hardware.partition(b"-----BEGIN")
    certificates = from_pem(begin + pem) if begin else ()
    return replace(claims, hardware=signed + b"".join(certificate.der for certificate in certificates))


def all_flips(world: World = GOOD, *, sample: int | None = None) -> list[int]:
    """The bits of good evidence, harmless ones aside, whose change nobody notices, for the soak: there are none."""
    endorsements, roots, terms, good = world.endorsements, world.roots, world.accepted, world.evidence.data

    def taken(data: bytes) -> bool:
        outcome = walk(world.verifier, Evidence(world.platform, data), endorsements, roots, world.at, terms)
        return outcome.code == "ok" and meant(data) != meant(good)

    return accepted_flips(good, taken, sample=sample)


def test_what_is_harmless_is_what_surrounds_certificates():
    claims = parse(World(platform="azure_tdx").evidence.data)
    place = claims.hardware.index(b"-----BEGIN")
    pem = claims.hardware[place:]
    spaced = replace(claims, hardware=claims.hardware[:place] + pem.replace(b"\n", b" "))
    other = replace(claims, hardware=claims.hardware[: place - 1] + b"\7" + pem)
    assert meant(spaced.encode()) == meant(claims.encode()) != meant(other.encode())


@pytest.mark.parametrize("platform", ["azure_snp", "azure_tdx"])
def test_a_flipped_bit_is_noticed(platform):
    assert all_flips(World(platform=platform), sample=120) == []


def test_verify_raises_typed_errors_alone():
    for bit, flipped in flips(DATA, sample=120):
        try:
            AZURE_SNP.verify(
                Evidence("azure_snp", flipped), GOOD.endorsements, roots=GOOD.roots, at=GOOD.at,
                transcript=Transcript(azure.STEPS),
            )  # fmt: skip
        except StrongroomError:
            continue
        pytest.fail(f"bit {bit}")


# --- the forms of others ----------------------------------------------------------------------------------------------


def test_a_paravisors_own_report_is_read():
    found = HclReport.parse(hcl(SNP, GOOD.report, runtime_data(), digest=2))
    assert found == HclReport(SNP, GOOD.report, "sha384", runtime_data())
    assert HclReport.parse(hcl(TDX, bytes(1024), b"{}")).kind == TDX


@pytest.mark.parametrize(
    "data",
    [
        b"",
        hcl(SNP, GOOD.report, runtime_data())[:-1] + b"\1",  # something behind the runtime data
        hcl(SNP, GOOD.report, runtime_data(), size=9000),
        hcl(SNP, GOOD.report, runtime_data()).replace(b"HCLA", b"HCLB"),
        hcl(SNP, GOOD.report, bytes(2000))[:2600],  # runtime data beyond the end
        hcl(3, GOOD.report, runtime_data()),
        hcl(SNP, GOOD.report, runtime_data(), digest=4),
        hcl(SNP, GOOD.report, runtime_data(), digest=0),
        hcl(SNP, GOOD.report, runtime_data(), front=hcl(SNP, b"", b"")[:32]),  # another length in front
    ],
    ids=["nothing", "behind", "long", "magic", "short", "kind", "digest-4", "digest-0", "length"],
)
def test_what_no_paravisor_writes_is_refused(data):
    with pytest.raises(BadEvidence):
        HclReport.parse(data)


@given(st.integers(0, 2599), st.binary(min_size=1, max_size=4))
def test_a_changed_report_is_refused_or_read(place, others):
    data = hcl(SNP, GOOD.report, runtime_data())
    with suppress(BadEvidence):
        HclReport.parse((data[:place] + others + data[place + len(others) :])[:2600])


def trustee(kind: int = SNP, *, padded: bool = True, **changes) -> bytes:
    """As the confidential-containers verifier takes it."""
    world = GOOD if kind == SNP else World(platform="azure_tdx")

    def text(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).decode() if padded else b64url(data)

    found = {
        "version": 1,
        "hcl_report": text(hcl(kind, world.report if kind == SNP else bytes(1024), runtime_data())),
        "tpm_quote": {
            "message": world.message.hex(),
            "pcrs": [register(n).hex() for n in range(24)],
            "signature": world.signed[6:].hex(),
        },
        **({"vcek": text(pki_amd.leaf("genoa"))} if kind == SNP else {"td_quote": text(world.report)}),
        **changes,
    }
    return json.dumps({k: v for k, v in found.items() if v is not None}).encode()


@pytest.mark.parametrize("padded", [True, False])
def test_what_the_confidential_containers_verifier_takes_is_read(padded):
    claims, vcek = azure_foreign.from_trustee_snp(trustee(padded=padded))
    assert claims.encode() == DATA
    assert claims.evidence("azure_snp") == GOOD.evidence
    assert vcek.der == pki_amd.leaf("genoa")
    world = World(platform="azure_tdx")
    assert azure_foreign.from_trustee_tdx(trustee(TDX, padded=padded)).evidence("azure_tdx") == world.evidence


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"more": 1},
        {"hcl_report": None},
        {"hcl_report": "SENMQQ="},
        {"hcl_report": "é"},
        {"hcl_report": "A"},
        {"tpm_quote": None},
        {"tpm_quote": {"message": "0", "signature": "", "pcrs": []}},
        {"vcek": None},
        {"td_quote": "AA"},
    ],
    ids=str,
)
def test_what_it_does_not_take_is_refused(changes):
    with pytest.raises(BadEvidence):
        azure_foreign.from_trustee_snp(trustee(**changes))
    if "vcek" not in changes and "td_quote" not in changes:
        with pytest.raises(BadEvidence):
            azure_foreign.from_trustee_tdx(trustee(TDX, **changes))


def test_hardware_of_one_kind_is_not_anothers():
    with pytest.raises(BadEvidence, match="other hardware"):
        azure_foreign.from_trustee_snp(trustee(hcl_report=b64url(hcl(TDX, bytes(1024), runtime_data()))))


# --- what Azure's machines signed -------------------------------------------------------------------------------------


def _milan(*, key: bytes) -> tuple[Endorsements, int]:
    crl = RevocationList.from_pem(read("snp/kds_milan.crl.pem"))
    chain = [c.der for c in from_pem(read("snp/ca_milan_ask_ark_asvk.pem"))]
    found = documents.documents([*((CERTIFICATE, der) for der in (key, *chain)), (CRL, crl.der)])
    return found, crl.this_update + 60


@real
def test_a_real_machine_on_snp_leads_from_its_quote_to_amds_root():
    claims, vcek = azure_foreign.from_trustee_snp(read("azure_vtpm/snp_v1.json"))
    endorsements, at = _milan(key=vcek.der)
    outcome = walk(AZURE_SNP, claims.evidence("azure_snp"), endorsements, AMD, at)
    verified = outcome.verified
    assert verified is not None
    assert verified.hardware.claims.vmpl == 0  # the paravisor's level
    assert verified.report_data == b"challenge"
    assert not verified.binds(REPORT_DATA)
    assert outcome.number == "ZT1"  # the strict terms accept no TCB unless a policy says which
    assert [c.number for c in outcome.checks if c.code] == ["ZT1"]


@real
def test_a_flipped_bit_of_a_real_machines_evidence_is_noticed():
    claims, vcek = azure_foreign.from_trustee_snp(read("azure_vtpm/snp_v1.json"))
    endorsements, at = _milan(key=vcek.der)

    def taken(data: bytes) -> bool:
        return walk(AZURE_SNP, Evidence("azure_snp", data), endorsements, AMD, at).verified is not None

    assert taken(claims.encode())
    assert accepted_flips(claims.encode(), taken, sample=80) == []


@real
def test_a_quote_by_another_machines_key_is_forged():
    report = HclReport.parse(read("azure_vtpm/snp_hcl_report.bin"))
    runtime = azure.RuntimeData.parse(report.runtime_data)
    message = read("azure_vtpm/snp_other_ak_tpm_quote.msg")
    signature = tpm_foreign.rsassa_sha256(read("azure_vtpm/snp_other_ak_tpm_quote.sig"))
    quote = Quote(message, signature, "sha256", {n: bytes(32) for n in range(24)})
    quote.require_made_by_tpm()
    with pytest.raises(EvidenceForged):
        quote.require_signed_by(runtime.key)
    assert Claims(quote, report.hardware, report.runtime_data, report.digest).slot == report.hardware[0x50:0x90]


def _walk_tdx(claims: Claims, at: int, collateral: Endorsements, terms: TdxTerms | None = None):
    return walk(AZURE_TDX, claims.evidence("azure_tdx"), collateral, INTEL, at, terms)


def _collateral(info: str, identity: str, pck_crl: str) -> Endorsements:
    signing = read("collateral/intel_tcb_signing_2025-2032.pem") + read("collateral/intel_sgx_root_ca.pem")
    return documents.documents(
        [
            (INTEL_TCB_INFO, read(f"collateral/{info}")),
            (INTEL_QE_IDENTITY, read(f"collateral/{identity}")),
            (PEM_CHAIN, signing),
            (CRL, read(f"collateral/{pck_crl}")),
            (CRL, read("collateral/crl_root_ca_2025-03-20_ad6f.der")),
        ]
    )


@real
def test_a_real_machine_of_the_preview_lacks_sept_ve_disable():
    claims = azure_foreign.from_trustee_tdx(read("azure_vtpm/tdx_v1_septve.json"))
    collateral = _collateral(
        "tcbinfo_tdx_00806f050000_2025-10-19_ev17_57da.json",
        "qeid_td_qe_2025-10-13_ev17_2abc.json",
        "crl_pck_platform_ca_2025-10-13_466d.der",
    )
    outcome = _walk_tdx(claims, 1_760_896_200, collateral)
    assert outcome.verified is not None  # the binding holds, from Intel's root to the quote
    assert outcome.verified.report_data == b"challenge"
    assert outcome.number == "ZT1"
    assert "T4: not set" in outcome.check("ZT1").detail
    tolerant = replace(tdx.Terms(), statuses=frozenset(TcbStatus) - {TcbStatus.REVOKED}, sept_ve_disable=False)
    still = _walk_tdx(claims, 1_760_896_200, collateral, TdxTerms(tolerant))
    assert "T4" not in still.check("ZT1").detail


def _flashbots() -> tuple[Claims, bytes]:
    """The evidence in the YAML, by its block scalars and lists; and the NV index of the key's certificate."""
    text = read("azure_vtpm/tdx_flashbots_2025.yaml").decode()

    def scalar(name: str) -> str:
        lines = text.split(f"{name}: |-\n")[1].splitlines()
        indent = len(lines[0]) - len(lines[0].lstrip())
        block = []
        for line in lines:
            if line.strip() and len(line) - len(line.lstrip()) < indent:
                break
            block.append(line.strip())
        return "".join(block)

    def listed(part: str) -> bytes:
        return bytes(int(n) for n in re.findall(r"\d+", part))

    signature = listed(text.split("signature: [")[1].split("]")[0])
    message = listed(text.split("message: [")[1].split("]")[0])
    rows = re.findall(r"- \[([\d, ]+)\]", text.split("pcrs:")[1])
    quote = Quote(message, tpm_foreign.rsassa_sha256(signature), "sha256", dict(enumerate(map(listed, rows))))
    report = HclReport.parse(azure.unb64url(scalar("hcl_report_base64").rstrip("=")))
    td_quote = azure.unb64url(scalar("tdx_quote_base64").rstrip("="))
    pem = scalar("ak_certificate_pem").replace("-----BEGIN CERTIFICATE-----", "").replace("-----END CERTIFICATE-----", "")
    return Claims(quote, td_quote, report.runtime_data, report.digest), base64.b64decode(pem)


@real
def test_a_real_machine_on_tdx_hangs_together():
    claims, index = _flashbots()
    td = tdx.parse(claims.hardware).td
    assert td.report_data == claims.slot
    claims.quote.require_made_by_tpm()
    claims.quote.require_signed_by(claims.runtime.key)
    claims.quote.require_selected()
    claims.quote.require_digest()
    assert claims.quote.attest.extra_data == bytes(32)
    # Microsoft's certificate, with what else the index holds behind it, is of the same key.
    certificate = tpm_foreign.certificate_of_nv_index(index)
    assert certificate.public_key.public_numbers() == claims.runtime.key.public_numbers()
    assert len(index) > len(certificate.der)


@real
def test_a_real_machine_on_tdx_leads_from_its_quote_to_intels_root():
    claims, _ = _flashbots()
    collateral = _collateral(
        "tcbinfo_tdx_90c06f000000_2026-02-18_ev18_4552.json",
        "qeid_td_qe_2026-01-26_ev18_a1c1.json",
        "crl_pck_platform_ca_2026-01-26_66c9.der",
    )
    outcome = _walk_tdx(claims, 1_771_412_400, collateral)
    verified = outcome.verified
    assert outcome.check("ZT1").status is Status.PASSED  # its TCB is current
    assert [check.number for check in outcome.checks if check.code] == ["ZT8"]  # its owner turned secure boot off
    assert _walk_tdx(claims, 1_771_412_400, collateral, TdxTerms(secure_boot=False)).code == "ok"
    assert verified.machine.startswith("ppid:")
    assert len(verified.measurement.registers) == 24
    good = claims.encode()

    def taken(data: bytes) -> bool:
        found = walk(AZURE_TDX, Evidence("azure_tdx", data), collateral, INTEL, 1_771_412_400)
        return found.verified is not None and meant(data) != meant(good)

    assert accepted_flips(good, taken, sample=60) == []


@real
@pytest.mark.parametrize("name", ["openpcc_genoa_hcl.bin", "openpcc_tdx_hcl.bin", "snp_hcl_report.bin"])
def test_a_real_paravisors_report_holds_the_digest_of_its_runtime_data(name):
    report = HclReport.parse(read(f"azure_vtpm/{name}"))
    runtime = azure.RuntimeData.parse(report.runtime_data)
    assert runtime.secure_boot
    assert runtime.console  # Azure's machines come with one
    digest = hashlib.new(report.digest, report.runtime_data).digest().ljust(64, b"\0")
    if report.kind == SNP:
        assert snp.parse(report.hardware).report_data == digest
    else:
        assert tdx.parse(read("azure_vtpm/openpcc_tdx.quote")).td.report_data == digest
