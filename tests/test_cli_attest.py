"""``strongroom attest``: what people see of evidence, and what they say to accept. No test here reaches a network.

The evidence is of our own vendors (``evidence_files.py``), whose roots a policy names; the real vendors' are pinned where no
policy is given.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import pki_dstack
import pki_intel
import pki_nitro
import pki_nvidia
from evidence_files import FILES, MACHINES, NONCE, Machine, bundle, file, gpus, keyset, machine, with_gpus
from real import FOLDER, real
from stage import Rehearsal, Said, call
from strongroom.app.cli import appraised, shown
from strongroom.app.cli.attest import moment
from strongroom.app.client.home import Home, pretty
from strongroom.attest import nitro, nras, nvidia, registry, tdx
from strongroom.attest.appraisal_policy import POLICY_TYPE, AppraisalPolicy, Reference
from strongroom.attest.endorsements import OCSP_RESPONSE
from strongroom.attest.evidence import FOREVER, Endorsements, Measurement, Roots
from strongroom.attest.intel_collateral import TcbStatus
from strongroom.attest.keyset import AttestationReport, report_data
from strongroom.attest.roots import ROOTS
from strongroom.attest.vector import TrustVector
from strongroom.errors import BadSignature, NotPinned, leaves
from strongroom.party import SigningKey
from strongroom.transcript import Check, Status
from strongroom.trust import Trust
from world import MEASUREMENT

CURRENT = 1_750_800_000  # 2025-06-24, for real files


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty folder, with nothing kept from another day, and no way out."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "120")
    for name in ("STRONGROOM_HOME", "STRONGROOM_PARTY", "STRONGROOM_DEBUG"):
        monkeypatch.delenv(name, raising=False)

    def refuse(*_: object) -> None:
        raise AssertionError("something was asked of a network")

    monkeypatch.setattr("strongroom.app.endorsements.web.Web.ask", refuse)


def put(name: str, data: bytes | object) -> Path:
    path = Path(name)
    path.write_bytes(data if isinstance(data, bytes) else pretty(data))
    return path


def error(said: Said) -> tuple[str, str]:
    """The code and the message of the error, which is the last thing that was said, with a hint under it."""
    *_, first, hint = said.err.splitlines()
    assert first.startswith("strongroom: ")
    assert hint.startswith("  ")
    assert hint.strip()
    code, _, message = first.removeprefix("strongroom: ").partition(": ")
    assert code in leaves()
    return code, message


def words(name: str, **changes: Any) -> list[object]:
    """What is typed to verify a machine's evidence to the end; ``None`` leaves a flag out."""
    found = machine(name) if isinstance(name, str) else name
    given: dict[str, Any] = {
        "data": found.data,
        "bundle": found.bundle,
        "policy": None if "policy" in changes else found.policy,
        "nonce": found.nonce.hex(),
        "at": found.at,
        **changes,
    }
    typed: list[object] = ["attest", "verify", put("evidence", given["data"])]
    if given["bundle"] is not None:
        typed += ["--endorsements", put("bundle.json", given["bundle"])]
    if given["policy"] is not None:
        typed += ["--policy", put("policy.json", given["policy"].to_json())]
    for flag in ("nonce", "at"):
        if given[flag] is not None:
            typed += [f"--{flag}", given[flag]]
    return typed


def verify(name: str, *more: object, **changes: Any) -> Said:
    return call(*words(name, **changes), *more)


BARE = 3  # every check that needs no keyset passed, and there is none: no affirmation


def passes(found: Machine) -> int:
    """The exit status where nothing is wrong."""
    return 0 if found.whole else BARE


def checks(said: Said) -> dict[str, str]:
    """Number to status, of the processor's checks."""
    return {check["number"]: check["status"] for check in said.json["strongroom.checks"]}


# --- verify -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MACHINES)
def test_evidence_for_which_everything_holds_is_good(name: str):
    said = verify(name)
    assert (said.status, said.err) == (passes(machine(name)), "")
    assert said.out.isprintable() or "\n" in said.out
    assert "✗" not in said.out
    platform, whole = machine(name).platform, machine(name).whole
    assert f"platform: {platform}" in said.out
    assert f"yes: it passed every check of {platform}" in said.out
    assert ("verdict                 affirming: " in said.out) is whole
    assert (
        "Every check that needs no keyset passed" in said.out
    ) is not whole  # bare evidence is good to look at, and to nothing else


@pytest.mark.parametrize("name", MACHINES)
def test_for_machines_it_is_one_object(name: str):
    said = verify(name, "--json")
    assert (said.status, said.err) == (passes(machine(name)), "")
    found = said.json
    assert "error" not in found
    assert found["strongroom.affirming"] is machine(name).whole
    assert found["ear.status"] == ("affirming" if machine(name).whole else "none")
    assert found["iat"] == machine(name).at
    submod = found["submods"][machine(name).platform]
    assert submod["strongroom.measurement"] == machine(name).measurement.to_json()
    assert {n for n, status in checks(said).items() if status != "passed"} == (
        set() if machine(name).whole else {"A5", "A8", "A9"}
    )
    assert found["service"] == []


@pytest.mark.parametrize("name", [name for name in MACHINES if name != "nitro"])
def test_without_what_the_vendor_says_nothing_is_established(name: str):
    data = machine(name).data
    if machine(name).whole:
        report = json.loads(data)
        report["attestation"]["evidence"]["endorsements"] = []
        data = json.dumps(report).encode()
    said = verify(name, bundle=None, data=data)
    assert said.status == 1
    code, message = error(said)
    assert code == "attest.not_affirming"
    assert message.startswith("not established: ")
    assert "--endorsements FILE brings, or --fetch" in said.err
    assert "genuine                 not established" in said.out
    machine_said = verify(name, "--json", bundle=None, data=data)
    assert machine_said.status == 1
    assert machine_said.json["error"]["reason"] == "attest.endorsement_missing"
    assert machine_said.json["ear.status"] == "none"
    assert machine_said.json["submods"][machine(name).platform]["strongroom.measurement"] is None


@pytest.mark.parametrize("name", MACHINES)
def test_another_nonce_is_refused(name: str):
    other = bytes([7] * len(machine(name).nonce)).hex()
    said = verify(name, nonce=other)
    assert said.status == 1
    assert error(said)[1].startswith("A6 failed: ")
    found = verify(name, "--json", nonce=other)
    assert found.json["error"]["reason"] == "attest.not_bound"
    assert found.json["ear.status"] == "contraindicated"


@pytest.mark.parametrize("name", MACHINES)
def test_without_a_nonce_freshness_is_not_established(name: str):
    said = verify(name, nonce=None)
    assert said.status == 1
    assert "A6" in error(said)[1]
    assert "--nonce HEX" in said.err
    assert checks(verify(name, "--json", nonce=None))["A6"] == "not established"


@pytest.mark.parametrize("name", MACHINES)
def test_at_another_time_is_refused(name: str):
    """A time that is outside what the certificates, lists or the platform's clock allow."""
    for at in (machine(name).at - 20 * 365 * 86_400, machine(name).at + 20 * 365 * 86_400):
        said = verify(name, at=at)
        assert said.status == 1
        assert error(said)[0] == "attest.not_affirming"
        assert f"judged at               {appraised.when(at)}" in said.out


@pytest.mark.parametrize("name", MACHINES)
def test_a_policy_without_reference_values_accepts_no_image(name: str):
    said = verify(name, policy=replace(machine(name).policy, references=()))
    assert said.status == 1
    assert "A10" in error(said)[1]


def test_a_policy_for_another_image_refuses_this_one():
    other = Measurement("tdx", {**machine("tdx").measurement.registers, "mrtd": "sha384:" + "ab" * 48})
    said = verify("tdx", "--json", policy=replace(machine("tdx").policy, references=(Reference(other),)))
    assert said.status == 1
    assert said.json["error"]["reason"] == "attest.measurement_not_accepted"


@pytest.mark.parametrize("name", MACHINES)
def test_without_a_policy_the_vendors_own_roots_are_meant(name: str):
    """Our own vendors are none of them: what they vouch for is genuine to nobody else."""
    said = verify(name, policy=None)
    assert said.status == 1
    assert error(said)[0] == "attest.not_affirming"
    found = verify(name, "--json", policy=None)
    assert found.json["error"]["reason"] in {"attest.unknown_root", "attest.endorsement_missing"}
    assert "strongroom.measurement" in found.json["submods"][machine(name).platform]
    assert found.json["submods"][machine(name).platform]["strongroom.measurement"] is None


def test_terms_that_refuse_say_that_the_evidence_is_genuine():
    migratable = pki_intel.World(td={"attributes": bytes.fromhex("0000003000000000")})
    said = verify("tdx", data=migratable.quote())
    assert said.status == 1
    code, message = error(said)
    assert (code, message.split(" ")[0]) == ("attest.not_affirming", "T5")
    assert "It is genuine, and your policy's terms refuse it" in said.err
    assert "yes: it passed every check of tdx" in said.out


def test_a_forged_quote_is_not_genuine():
    said = verify("tdx", data=pki_intel.World(quote_signer="somebody").quote())
    assert error(said)[1].startswith("Q3 failed")
    assert "genuine                 no: Q3" in said.out


def test_endorsements_as_the_vendors_hand_them_out(tmp_path: Path):
    """One file a document, or a folder of them, each in the form in which Intel hands it out."""
    found = machine("tdx")
    folder = tmp_path / "intel"
    folder.mkdir()
    for number, document in enumerate(found.endorsements.documents):
        (folder / f"{number}").write_bytes(document.data)
    each = [word for path in sorted(folder.iterdir()) for word in ("--endorsements", path)]
    assert verify("tdx", *each, bundle=None).status == BARE
    assert verify("tdx", "--endorsements", folder, bundle=None).status == BARE


def test_what_could_not_be_had_is_said_where_it_was_missed():
    """A bundle with something in it, and not what is needed; nothing is said of it where nothing was missed."""
    documents = machine("tdx").endorsements.documents
    said = verify("tdx", bundle=bundle(Endorsements(documents[1:])))
    assert said.status == 1
    *notes, _, _ = said.err.splitlines()
    assert any("not at hand, and nothing is fetched" in note for note in notes)
    assert "\n".join(notes) not in verify("sev_snp").err


def test_what_was_carried_in_the_vendors_format_is_not_called_missing(tmp_path: Path):
    """Manifests and answers, each in a file: where the device is refused for something else, nothing was missed."""
    found = ALONE["SDK"]()
    folder = tmp_path / "nvidia"
    folder.mkdir()
    for number, document in enumerate(found.endorsements.documents):
        (folder / f"{number}").write_bytes(document.data)
    said = verify(found, "--endorsements", folder, bundle=None, policy=devices_policy(found))
    assert error(said)[1] == "the devices are genuine, and nothing says which machine uses them"
    assert len(said.err.splitlines()) == 2  # the error, and its hint
    refusing = replace(devices_policy(found), terms={"nvidia_cc": nvidia.Terms(architectures={})})
    said = verify(found, "--endorsements", folder, bundle=None, policy=refusing)
    assert error(said)[1].startswith("GT1 failed")
    assert len(said.err.splitlines()) == 2
    manifest = next(p for p in sorted(folder.iterdir()) if p.read_bytes().lstrip().startswith(b"<"))
    manifest.unlink()
    said = verify(found, "--endorsements", folder, bundle=None, policy=devices_policy(found))
    assert error(said)[1].startswith("G6 not established")
    assert said.err.startswith("nvidia-rim:/v1/rim/NV_GPU_")


def test_what_came_along_is_not_called_missing():
    """Our own report brings Intel's collateral; a bundle with one document more is no reason to miss the others."""
    other = replace(machine("report").policy, references=())
    said = verify("report", policy=other)
    assert error(said)[1].startswith("A10 failed")
    assert len(said.err.splitlines()) == 2


def test_a_policy_signed_or_not_is_read_the_same():
    found = machine("tdx")
    signed = found.policy.sign(SigningKey.from_seed(b"\x07" * 32))
    put("signed.json", signed.to_json())
    assert verify("tdx", "--policy", "signed.json", policy=None).status == BARE


def test_times_as_people_write_them():
    said = call(*words("tdx", at=None), "--at", "2025-10-09T08:53:20Z")
    assert said.status == BARE
    assert "2025-10-09 08:53:20 UTC" in said.out
    assert moment("2025-10-09") == moment("2025-10-09T00:00:00Z") == moment("2025-10-09T02:00:00+02:00") == 1_759_968_000
    assert moment("1000000000") == moment("2001-09-09T01:46:40Z") == 1_000_000_000
    for text in (
        "yesterday",
        "-1",
        "1e9",
        "0",
        "2025",
        "20251009",
        "999999999",
        "253402300800",
        "9" * 5000,
        "٣",
        "0000-01-01",
        "0001-01-01T00:00:00+23:59",
        "",
    ):
        said = call("attest", "verify", "evidence", "--at", text)
        assert (said.status, error(said)[0]) == (2, "app.usage")


def test_now_is_meant_where_no_time_is_said():
    said = verify("tdx", at=None)
    assert said.status == 1  # its collateral has expired since
    assert "Q" in error(said)[1]
    assert "--at TIME judges it at another time. As it stands, send it no secret." in said.err
    assert "--at TIME" not in verify("tdx", at=machine("tdx").at + 20 * 365 * 86_400).err  # a time was said


def test_evidence_that_is_old_says_its_own_time(monkeypatch: pytest.MonkeyPatch):
    """A document of Nitro's says when it was made: that is the time to judge it at."""
    monkeypatch.setattr("strongroom.app.cli.attest.time.time", lambda: machine("nitro").at + 86_400.5)
    said = verify("nitro", at=None)
    assert error(said)[1].startswith("A7 failed")
    made = appraised.when(pki_nitro.AT).replace(" UTC", "Z").replace(" ", "T")
    assert f"(--at {made}: when it was made)" in said.err
    assert verify("nitro", at=made).status == BARE


def test_old_devices_may_be_judged_at_their_own_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("strongroom.app.cli.attest.time.time", lambda: pki_nvidia.AT + 2000 * 86_400.0)
    found = ALONE["SDK"]()
    said = verify(found, policy=devices_policy(found), at=None)
    assert said.status == 1
    assert "--at TIME judges it at another time." in said.err


def test_what_the_terms_tolerate_is_a_warning_and_said():
    """An owner tolerates two advisories for an hour: the keyset is handed out, and nobody calls the machine current."""
    found, old = old_report()
    said = verify(found)
    assert (said.status, said.err) == (0, "")
    last = appraised.when(found.at + 3600)
    assert f"affirming, with a warning: hardware of tdx tolerated until {last}: " in " ".join(said.out.split())
    value = verify(found, "--json").json
    assert value["strongroom.affirming"] is True
    assert (value["ear.status"], value["submods"]["tdx"]["ear.status"]) == ("warning", "warning")
    assert value["submods"]["tdx"]["ear.trustworthiness-vector"]["hardware"] == 32
    assert value["strongroom.valid_until"] == found.at + 3600
    bare = verify(replace(found, data=old.quote()), nonce=report_data(keyset(found.at).digest, NONCE).hex())
    assert bare.status == BARE
    assert "not established, with a warning: hardware of tdx tolerated until" in " ".join(bare.out.split())


def old_report() -> tuple[Machine, pki_intel.World]:
    """An enclave's report from a machine with an old TCB, under terms that tolerate it for an hour."""
    whole = machine("report")
    at, keys = whole.at, keyset(whole.at)
    dates = {"issueDate": pki_intel.time(at - pki_intel.DAY), "nextUpdate": pki_intel.time(at + 29 * pki_intel.DAY)}
    current = {"before": at - pki_intel.DAY, "after": at + 29 * pki_intel.DAY}
    old = pki_intel.World(
        td={"report_data": report_data(keys.digest, NONCE), "tee_tcb_svn": pki_intel.OLD_SVN},
        info=dates,
        identity=dates,
        lists=dict.fromkeys((pki_intel.ROOT, pki_intel.PLATFORM_CA), current),
    )
    report = AttestationReport(keys, report_data(keys.digest, NONCE)[:32], old.evidence(), old.endorsements())
    terms = tdx.Terms(
        statuses=frozenset({TcbStatus.UP_TO_DATE, TcbStatus.OUT_OF_DATE}),
        advisories=dict.fromkeys(("INTEL-SA-01192", "INTEL-SA-01245"), at + 3600),
    )
    found = replace(
        whole, data=report.encode(), evidence=old.evidence(), endorsements=old.endorsements(), terms={"tdx": terms}
    )
    return found, old


def test_a_device_that_is_tolerated_is_a_warning_too():
    """Nobody asked whether its certificates stand: the terms take that, and the result is a warning."""
    found = with_gpus(1)
    terms = {**found.terms, "nvidia_cc": nvidia.Terms(device_revocation="where-given", signer_revocation="where-given")}
    unsaid = Endorsements(tuple(d for d in found.endorsements.documents if d.media_type != OCSP_RESPONSE))
    said = verify(replace(found, endorsements=unsaid, terms=terms))
    assert (said.status, said.err) == (0, "")
    whole = " ".join(said.out.split())
    assert "affirming, with a warning: hardware tolerated until" in whole
    assert "affirming, with a warning: hardware of nvidia_cc-0 tolerated until" in whole


def test_what_vouches_for_evidence_and_until_when_is_shown():
    said = verify("report-with-gpus")
    assert f"valid until             {appraised.when(keyset(machine('report').at).not_after)} (this result)" in said.out
    assert said.out.count("collateral") == 3  # the processor's, and each device's
    assert said.out.count("sha256:") > 12
    bare = verify("tdx").out
    assert "what vouches for it; this is no affirmation" in " ".join(bare.split())
    assert appraised.until(FOREVER, affirming=False).startswith("no end (")
    assert "valid until" not in verify("tdx", bundle=None).out


def test_a_report_with_its_keyset_and_no_nonce_is_judged_as_far_as_it_goes():
    """A8 and A9 are about the keyset, which is there; that it is bound, and new, nobody can tell without a nonce."""
    said = verify("report-with-gpus", "--json", nonce=None)
    assert said.status == 1
    found = {check["number"]: check for check in said.json["strongroom.checks"]}
    assert {n for n, check in found.items() if check["status"] != "passed"} == {"A5", "A6", "A15"}
    assert found["A5"]["detail"] == found["A6"]["detail"] == "no nonce was given"
    assert "no nonce was given" in found["A15"]["detail"]
    assert said.json["strongroom.keyset_digest"] == keyset(machine("report").at).digest
    assert "no keyset was given" not in said.out
    plain = verify("report", nonce=None)
    assert error(plain)[1].startswith("not established: A6")
    assert "--nonce HEX" in plain.err
    late = verify("report", "--json", nonce=None, at=keyset(machine("report").at).not_after + 1)
    assert checks(late)["A8"] == "failed"


def test_a_processor_whose_gpu_fails_keeps_its_own_status():
    found = with_gpus(2)
    strict = {**found.terms, "nvidia_cc": nvidia.Terms(architectures={})}
    said = verify(replace(found, terms=strict), "--json")
    assert said.status == 1
    assert said.json["ear.status"] == "contraindicated"
    status = {name: submod["ear.status"] for name, submod in said.json["submods"].items()}
    assert status == {"tdx": "affirming", "nvidia_cc-0": "contraindicated", "nvidia_cc-1": "contraindicated"}
    policies = {submod["ear.appraisal-policy-id"] for submod in said.json["submods"].values()}
    assert policies == {replace(found, terms=strict).policy.digest}


def test_the_help_says_what_each_exit_status_means():
    said = call("attest", "verify", "--help").out
    assert "exit status:" in said
    assert f"{BARE}  every check that needs no keyset passed" in said


# --- verify: event logs, services, devices ---------------------------------------------------------------------------------


def logged() -> tuple[Machine, bytes]:
    """A TD whose registers are those that its log leads to."""
    from strongroom.attest import tcg_log

    log = pki_dstack.guest_log()
    rtmrs = tcg_log.replay(log.events, "sha384", guest=True)
    td = {f"rtmr{register - 1}": value for register, value in rtmrs.items() if register}
    world = pki_intel.World(td=td)
    return replace(machine("tdx"), data=world.quote(), evidence=world.evidence()), log.encode()


def test_an_event_log_that_leads_to_the_registers():
    found, log = logged()
    said = verify(found, "--event-log", put("ccel", log))
    assert said.status == BARE
    assert "replay from" in said.out


def test_an_event_log_that_leads_elsewhere_is_refused():
    said = verify("tdx", "--event-log", put("ccel", pki_dstack.guest_log().encode()), "--json")
    assert said.status == 1
    assert said.json["error"]["reason"] == "attest.bad_event_log"
    assert checks(said)["A13"] == "failed"


def test_an_event_log_of_nonsense_is_refused():
    said = verify("tdx", "--event-log", put("ccel", b"nonsense"))
    assert error(said)[1].startswith("A13 failed")
    said = verify("tdx", "--event-log", put("ccel", bytes((1 << 20) + 1)))
    assert (said.status, error(said)[0]) == (1, "attest.bad_evidence")
    assert "ccel: " in said.err


def service(report: dict[str, Any]) -> Machine:
    return replace(machine("dstack"), data=json.dumps(report).encode(), nonce=pki_dstack.NONCE)


def of_guest(guest: pki_dstack.Guest, report: dict[str, Any]) -> Machine:
    return replace(service(report), evidence=guest.evidence(), endorsements=guest.endorsements())


KMS_ROOT = pki_dstack.KMS_ROOT.public_key.format().hex()


def test_a_service_of_dstacks_names_its_keys():
    guest = pki_dstack.aci_guest()
    found = of_guest(guest, pki_dstack.aci_report(guest))
    said = verify(found, "--kms-root", KMS_ROOT)
    assert (said.status, said.err) == (0, "")
    assert "The hardware vouches for the service's own keys (C2)" in said.out
    machine_said = verify(found, "--kms-root", KMS_ROOT, "--json")
    assert [check["status"] for check in machine_said.json["service"]] == ["passed"] * 5


def test_a_service_whose_keys_have_expired():
    """Its keyset counts for an hour; the hardware's collateral for a month."""
    guest = pki_dstack.aci_guest()
    found = of_guest(guest, pki_dstack.aci_report(guest))
    assert verify(found, "--kms-root", KMS_ROOT, at=pki_dstack.KEYSET.not_after).status == 0
    said = verify(found, "--kms-root", KMS_ROOT, at=pki_dstack.KEYSET.not_after + 1)
    assert said.status == 1
    assert error(said)[1].startswith("the service's keys counted until 2025-10-09 09:53:20 UTC")


@pytest.mark.parametrize("roots", [(), ("--kms-root", "02" + "00" * 32), ("--kms-root", "00")])
def test_a_service_whose_kms_nobody_trusts(roots: tuple[str, ...]):
    guest = pki_dstack.aci_guest()
    said = verify(of_guest(guest, pki_dstack.aci_report(guest)), *roots)
    assert said.status == 1
    assert error(said)[1].startswith("C4")


def test_a_service_that_answers_another_nonce():
    guest = pki_dstack.aci_guest()
    said = verify(of_guest(guest, pki_dstack.aci_report(guest)), "--kms-root", KMS_ROOT, nonce="07" * 32)
    assert said.status == 1
    assert error(said)[1].startswith("A6 failed")
    short = verify(of_guest(guest, pki_dstack.aci_report(guest)), nonce="07" * 31)
    assert (short.status, error(short)[0]) == (2, "app.usage")


def test_a_service_whose_hardware_is_not_established_has_no_checks_of_its_own():
    guest = pki_dstack.aci_guest()
    said = verify(of_guest(guest, pki_dstack.aci_report(guest)), "--json", bundle=None)
    assert said.status == 1
    assert said.json["service"] == []


def test_a_service_behind_an_address_brings_its_gpus():
    """Its devices are judged, and are bound by the nonce alone, which is public: that is said, and is never good."""
    found = detect_gpus()
    said = verify(found)
    assert said.status == 1
    assert "device                  0: nvidia_cc" in said.out
    assert "device                  1: nvidia_cc" in said.out
    assert "by the second half of the report data alone" in said.out
    found_json = verify(found, "--json").json
    assert set(found_json["submods"]) == {"dstack", "nvidia_cc-0", "nvidia_cc-1"}
    assert [found_json["submods"][f"nvidia_cc-{n}"]["ear.status"] for n in (0, 1)] == ["affirming"] * 2


def detect_gpus() -> Machine:
    at = pki_nvidia.AT
    dates = {"issueDate": pki_intel.time(at - pki_intel.DAY), "nextUpdate": pki_intel.time(at + 29 * pki_intel.DAY)}
    current = {"before": at - pki_intel.DAY, "after": at + 29 * pki_intel.DAY}
    lists = dict.fromkeys((pki_intel.ROOT, pki_intel.PLATFORM_CA), current)
    guest = replace(pki_dstack.address_guest(), intel={"info": dates, "identity": dates, "lists": lists})
    beside = gpus(2, pki_dstack.NONCE)
    payload = json.loads(json.loads(file("service with an address").data)["nvidia_payload"])
    own = tuple(dict.fromkeys(one for gpu in beside for one in gpu.endorsements.documents))
    return replace(
        of_guest(guest, pki_dstack.address_report(guest, nvidia_payload=json.dumps(payload))),
        endorsements=Endorsements((*guest.endorsements().documents, *own)),
        roots={"dstack": guest.roots(), "nvidia_cc": beside[0].roots},
        terms={**machine("dstack").terms, "nvidia_cc": nvidia.Terms()},
        devices={"nvidia_cc": 2},
        at=at,
    )


GPU = pki_nvidia.World()


def of_devices(world: Any, data: bytes, count: int = 1) -> Machine:
    (kind,) = {"nvidia_cc", "nras"} & {world.evidence.platform}
    return Machine(
        platform="tdx",
        data=data,
        evidence=machine("tdx").evidence,
        endorsements=world.endorsements,
        roots={**machine("tdx").roots, kind: world.roots},
        at=world.at,
        nonce=pki_nvidia.NONCE,
        terms={kind: world.terms},
        devices={kind: count},
    )


def devices_policy(found: Machine) -> AppraisalPolicy:
    return AppraisalPolicy(roots=found.roots, devices=found.devices, terms=found.terms)


ALONE: dict[str, Callable[[], Machine]] = {
    "SDK": lambda: of_devices(GPU, file("GPU by the SDK").data),
    "own form": lambda: of_devices(GPU, file("GPU in our form").data),
    "tokens": lambda: of_devices(pki_nvidia.TokenWorld(), pki_nvidia.TokenWorld().evidence.data),
}


@pytest.mark.parametrize("name", ALONE)
def test_devices_alone_are_never_good(name: str):
    """Every check of theirs holds, and the nonce; and nothing says which machine uses them."""
    found = ALONE[name]()
    said = verify(found, policy=devices_policy(found))
    assert said.status == 1
    code, message = error(said)
    assert code == "attest.not_affirming"
    assert message == "the devices are genuine, and nothing says which machine uses them"
    assert "✗" not in said.out
    assert "the one asked about" in said.out
    machine_said = verify(found, "--json", policy=devices_policy(found))
    assert machine_said.json["error"]["reason"] == "attest.device_not_bound"
    assert [submod["ear.status"] for submod in machine_said.json["submods"].values()] == ["affirming"]


def test_devices_that_failed_early_are_said_not_to_be_compared():
    """What a device says of its nonce counts when its own checks passed, and not before."""
    found = ALONE["SDK"]()
    for nonce, words_, word in ((found.nonce.hex(), True, "not compared"), (None, False, "not asked about")):
        said = verify(found, policy=devices_policy(found), bundle=None, nonce=nonce)
        assert ("NOT compared with the one asked about" in said.out) is words_
        value = verify(found, "--json", policy=devices_policy(found), bundle=None, nonce=nonce).json
        assert [submod["strongroom.nonce"] for submod in value["submods"].values()] == [word]


def test_devices_alone_that_answered_another_nonce():
    found = ALONE["SDK"]()
    said = verify(found, policy=devices_policy(found), nonce="07" * 32)
    assert "NOT the one asked about" in said.out
    assert error(said)[1] == "a device answered another nonce"
    without = verify(found, policy=devices_policy(found), nonce=None)
    assert "asked about" not in without.out
    assert without.status == 1


def test_devices_alone_say_whether_they_repeat_the_nonce():
    found = ALONE["SDK"]()
    for nonce, word in ((found.nonce.hex(), "repeated"), ("07" * 32, "another")):
        value = verify(found, "--json", policy=devices_policy(found), nonce=nonce).json
        assert [submod["strongroom.nonce"] for submod in value["submods"].values()] == [word]


def test_devices_that_the_policy_does_not_ask_for_are_not_called_genuine():
    said = verify(ALONE["SDK"](), policy=AppraisalPolicy())
    assert error(said)[1] == "the policy asks for 0 of these 1 devices"
    assert (
        verify(ALONE["SDK"](), "--json", policy=AppraisalPolicy()).json["error"]["reason"] == "attest.devices_not_accepted"
    )


def test_devices_alone_without_their_manifests():
    said = verify(ALONE["SDK"](), policy=devices_policy(ALONE["SDK"]()), bundle=None)
    assert error(said)[1].startswith("G6 not established")
    assert "--endorsements FILE brings, or --fetch" in said.err


def test_devices_alone_that_are_refused():
    stale = replace(GPU, device=pki_nvidia.Device(driver="470.10"))
    found = of_devices(stale, json.dumps([stale.device.entry]).encode())
    said = verify(found, policy=devices_policy(found))
    assert error(said)[1].startswith("GT2 failed")


def test_devices_have_no_event_log():
    said = verify(ALONE["SDK"](), "--event-log", put("ccel", b"x"), policy=None)
    assert (said.status, error(said)[0]) == (2, "app.usage")


def test_a_bare_report_of_a_gpu_and_its_certificates():
    found = of_devices(GPU, GPU.device.report)
    said = verify(found, policy=devices_policy(found))
    assert (said.status, error(said)[0]) == (1, "attest.bad_evidence")
    assert "--certificates FILE" in said.err
    said = verify(found, "--certificates", put("chain.pem", GPU.device.pem), policy=devices_policy(found))
    assert error(said)[1] == "the devices are genuine, and nothing says which machine uses them"
    said = verify(found, "--certificates", put("chain.pem", b"nonsense"), policy=devices_policy(found))
    assert (said.status, error(said)[0]) == (1, "attest.bad_evidence")
    assert "chain.pem: " in said.err
    said = verify("tdx", "--certificates", put("chain.pem", GPU.device.pem))
    assert "does not want certificates" in error(said)[1]


def test_one_gpu_in_place_of_two_is_refused():
    found = with_gpus(1)
    policy = replace(found.policy, devices={"nvidia_cc": 2})
    said = verify(found, policy=policy)
    assert error(said)[1].startswith("A14 failed")


# --- verify: wrong usage, wrong files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("nonce", ["xyz", "0", "0x00", "", "00", "07" * 7, "00" * 8, "00" * 32, "00" * 64])
def test_a_nonce_that_is_none(nonce: str):
    """Short ones can be guessed, and zeros stand in every slot that nobody filled."""
    for found in ("tdx", "report"):
        said = verify(found, nonce=nonce)
        assert (said.status, error(said)[0]) == (2, "app.usage")


def test_a_nonce_that_is_longer_than_the_slot():
    assert error(verify("tdx", nonce="07" * 65))[1].startswith("A6 failed")
    said = verify("report", nonce="07" * 64)
    assert (said.status, error(said)[0]) == (2, "app.usage")


def test_a_kms_root_that_is_none():
    guest = pki_dstack.aci_guest()
    said = verify(of_guest(guest, pki_dstack.aci_report(guest)), "--kms-root", "root")
    assert (said.status, error(said)[0]) == (2, "app.usage")


WRONG = {
    "missing": (None, "app.not_found"),
    "empty": (b"", "app.empty_file"),
    "too large": (bytes((4 << 20) + 1), "wire.too_large"),
    "nonsense": (b"nonsense", "attest.bad_evidence"),
    "zeros": (bytes(4096), "attest.bad_evidence"),
    "json": (b"{}", "attest.bad_evidence"),
    "half of json": (b'{"a"', "attest.bad_evidence"),
    "a certificate": (GPU.device.pem, "attest.bad_evidence"),
}


@pytest.mark.parametrize("verb", ["verify", "show"])
@pytest.mark.parametrize("what", WRONG)
def test_a_file_that_is_no_evidence(verb: str, what: str):
    data, code = WRONG[what]
    path = put("file", data) if data is not None else Path("nowhere")
    said = call("attest", verb, path)
    assert (said.status, said.out, said.code) == (1, "", code)
    assert str(path) in said.err
    found = call("attest", verb, path, "--json")
    assert (found.status, found.err) == (1, "")
    assert found.json["error"]["code"] == code


@pytest.mark.parametrize("verb", ["verify", "show", "adopt"])
def test_a_folder_is_no_evidence(verb: str, tmp_path: Path):
    said = call("attest", verb, tmp_path)
    assert said.status == 1
    assert said.code == ("party.no_keys" if verb == "adopt" else "app.not_found")


@pytest.mark.parametrize(
    "name", ["guest's log", "dstack's log", "EAR", "EAR as a token", "paravisor on TDX", "GPU's report"]
)
def test_what_only_goes_with_evidence_is_none(name: str):
    said = call("attest", "verify", put("file", file(name).data))
    assert (said.status, said.code) == (1, "attest.bad_evidence")
    assert "no evidence on its own" in said.err


@pytest.mark.parametrize(
    ("flag", "data", "code"),
    [
        ("--policy", b"", "app.empty_file"),
        ("--policy", b"{}", "wire.bad_field"),
        ("--policy", b"nonsense", "wire.not_json"),
        ("--policy", b'{"payload": 7}', "wire.bad_field"),
        ("--endorsements", b"nonsense", "attest.bad_endorsement"),
        ("--endorsements", b"", "app.empty_file"),
        ("--endorsements", b'{"documents":[],"format":"another"}', "wire.bad_field"),
        ("--event-log", b"", "app.empty_file"),
    ],
)
def test_a_file_beside_evidence_that_is_none(flag: str, data: bytes, code: str):
    said = call(
        "attest", "verify", put("evidence", machine("tdx").data), flag, put("beside", data), "--at", machine("tdx").at
    )
    assert (said.status, said.code) == (1, code)
    assert "beside" in said.err


@pytest.mark.parametrize(
    "typed", [(), ("look",), ("verify",), ("verify", "a", "b"), ("policy",), ("adopt",), ("show", "a", "--at", "1")]
)
def test_wrong_usage(typed: tuple[str, ...]):
    said = call("attest", *typed)
    assert (said.status, said.out, said.code) == (2, "", "app.usage")
    assert call("attest", *typed, "--json").json["error"]["code"] == "app.usage"


@pytest.mark.parametrize("verb", ["verify", "show", "policy", "adopt"])
def test_each_sub_verb_explains_itself(verb: str):
    said = call("attest", verb, "--help")
    assert (said.status, said.err) == (0, "")
    assert "--json" in said.out


def test_a_vendor_that_cannot_be_reached_is_not_established(monkeypatch, tmp_path: Path):
    """What is missing is asked for where that is said, at the address that a folder names; here nobody listens."""
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Path("room").mkdir()
    services = dict.fromkeys(("intel-pcs", "amd-kds", "nvidia-rim", "nvidia-ocsp", "nvidia-nras"), "http://127.0.0.1:9/")
    put("room/endorsements.json", {"format": "strongroom.endorsement-services.v1", "services": services, "timeout_s": 1})
    said = call(*words("tdx", bundle=None), "--fetch")
    assert said.status == 1
    code, message = error(said)
    assert code == "attest.not_affirming", said.err
    assert message.startswith("not established: Q8")
    assert "asking the vendors for what is missing" in said.err


# --- show ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_every_field_is_shown(name: str):
    path = put("file", file(name).data)
    said = call("attest", "show", path)
    assert (said.status, said.err) == (0, "")
    assert "Nothing here has been verified" in said.out
    assert all(line.isprintable() for line in said.out.splitlines())
    found = call("attest", "show", path, "--json")
    assert (found.status, found.err) == (0, "")
    assert set(found.json) == {"fields", "kind", "verified"}
    assert found.json["verified"] is False
    assert found.json["kind"].startswith(file(name).kind)
    assert found.json["fields"]


def test_what_a_field_holds():
    fields = call("attest", "show", put("file", machine("tdx").data), "--json").json["fields"]["tdx: what it says"]
    assert fields["td"]["mrtd"] == "11" * 48
    assert fields["td"]["report_data"] == pki_intel.REPORT_DATA.hex()
    out = call("attest", "show", put("file", machine("tdx").data)).out
    assert "CN=Intel SGX PCK Certificate" in out
    assert "CN=Intel SGX PCK Platform CA" in out
    assert "    RTMR3 " in out
    events = call("attest", "show", put("file", pki_dstack.guest_log().encode())).out
    assert "RTMR0 EV_EFI_VARIABLE_DRIVER_CONFIG, recomputed: of the event's data" in events


def test_numbers_and_nothing_in_the_form_of_json():
    class Odd:
        def __str__(self) -> str:
            return "odd"

    value = {"a": 1 << 60, "b": None, "c": {3, 1}, "d": (b"\1", True), 5: Odd(), "e": -(1 << 60)}
    assert shown.plain(value) == {
        "a": hex(1 << 60),
        "b": None,
        "c": ["1", "3"],
        "d": ["01", True],
        "5": "odd",
        "e": hex(-(1 << 60)),
    }


def test_a_field_that_looks_like_a_certificate_and_is_none():
    pem = "2d2d2d2d2d424547494e2043455254494649434154452d2d2d2d2d"
    said = {
        "eat_profile": "3082",
        "exp": 1,
        "submods": {"a": "3082ff", "b": "x" * 5000, "c": pem, "d": pem + "0", "e": ["3"]},
    }
    text = json.dumps(said).encode()
    out = call("attest", "show", put("file", text)).out
    assert "3082ff" in out
    assert "1970-01-01 00:00:01 UTC" in out
    assert "… (the rest: --json)" in " ".join(out.split())


# --- policy -------------------------------------------------------------------------------------------------------------


def measured(registers: dict[str, str] | None = None) -> dict[str, Any]:
    return registers or machine("tdx").measurement.to_json()


@pytest.mark.parametrize("platform", sorted(registry.PLATFORMS))
def test_a_draft_for_every_platform_is_strict_and_accepts_nothing(platform: str):
    said = call("attest", "policy", platform)
    assert said.status == 0
    assert "no reference value" in said.err
    found = AppraisalPolicy.from_json(json.loads(said.out))
    assert (found.platforms, found.references, found.devices) == (frozenset({platform}), (), {})
    if platform in ROOTS:
        assert set(found.roots[platform].certificates) == set(ROOTS[platform].values())
    module = registry.verifier(platform)
    assert module is not None
    if module.TERMS_STEPS is not None:
        assert found.terms[platform] == module.Terms()
    assert AppraisalPolicy.from_json(call("attest", "policy", platform, "--json").json) == found


def test_a_draft_with_devices():
    found = AppraisalPolicy.from_json(call("attest", "policy", "tdx", "nvidia_cc=8", "nras=8", "--json").json)
    assert found.devices == {"nvidia_cc": 8, "nras": 8}
    assert found.terms["nras"] == nras.Terms()


@pytest.mark.parametrize(
    ("typed", "status", "code"),
    [
        (("abacus",), 2, "app.usage"),
        (("tdx=1",), 2, "app.usage"),
        (("nvidia_cc",), 2, "app.usage"),
        (("nvidia_cc=",), 2, "app.usage"),
        (("nvidia_cc=many",), 2, "app.usage"),
        (("nvidia_cc=²",), 2, "app.usage"),
        (("nvidia_cc=-1",), 2, "app.usage"),
        (("nvidia_cc=0",), 1, "attest.bad_policy"),
        (("nvidia_cc=" + "9" * 5000,), 1, "attest.bad_policy"),
        (("tdx", "--machine", "my machine"), 1, "attest.bad_policy"),
        (("tdx", "--reference", "nowhere"), 1, "app.not_found"),
        (("tdx", "--out", "no/such/place"), 1, "app.not_found"),
    ],
)
def test_a_draft_that_cannot_be(typed: tuple[str, ...], status: int, code: str):
    said = call("attest", "policy", *typed)
    assert (said.status, error(said)[0]) == (status, code)
    assert call("attest", "policy", *typed, "--json").json["error"]["code"] == code


def test_reference_values_from_measure():
    """What ``strongroom measure --json`` prints."""
    path = put("image.json", MEASUREMENT.to_json())
    found = AppraisalPolicy.from_json(
        call("attest", "policy", "simulated", "--reference", path, "--name", "room", "--build", "a commit", "--json").json
    )
    assert found.references == (Reference(MEASUREMENT, "room", "a commit"),)


def test_reference_values_from_a_machine_that_was_verified():
    """Of a machine with GPUs: the processor's measurement, not a device's."""
    put("seen.json", json.loads(verify("report-with-gpus", "--json").out))
    found = AppraisalPolicy.from_json(call("attest", "policy", "tdx", "--reference", "seen.json", "--json").json)
    assert found.references == (Reference(machine("report-with-gpus").measurement),)


def test_no_reference_value_comes_from_a_machine_that_was_not_verified():
    put("seen.json", json.loads(verify("tdx", "--json", bundle=None).out))
    said = call("attest", "policy", "tdx", "--reference", "seen.json")
    assert (said.status, said.code) == (1, "wire.bad_field")
    assert "no measurement of tdx" in said.err


def test_reference_values_and_roots_from_a_trust_file(rehearsal: Rehearsal):
    trust = replace(rehearsal.lab.trust, parties=())
    path = put("reference.json", trust.to_json())
    found = AppraisalPolicy.from_json(call("attest", "policy", "simulated", "--reference", path, "--json").json)
    assert found.references == (Reference(MEASUREMENT),)
    assert found.roots == {"simulated": Roots(keys=(trust.roots[0].key,))}
    said = call("attest", "policy", "tdx", "--reference", path)
    assert "no measurement of tdx" in said.err
    put("reference.json", rehearsal.lab.trust.to_json())  # it pins parties, and so is no reference
    assert call("attest", "policy", "simulated", "--reference", path).code == "wire.bad_field"


def test_many_reference_values_in_one_file():
    other = Measurement("tdx", {**machine("tdx").measurement.registers, "rtmr0": "sha384:" + "00" * 48})
    path = put("images.json", {"measurements": [machine("tdx").measurement.to_json(), other.to_json()]})
    found = AppraisalPolicy.from_json(call("attest", "policy", "tdx", "--reference", path, "--json").json)
    assert len(found.references) == 2


@pytest.mark.parametrize(
    "value",
    [
        {"measurements": []},
        {"measurements": [{}]},
        {"measurements": 7},
        {"submods": 7},
        {"submods": {"tdx": 7}},
        {"submods": {"tdx": {"strongroom.measurement": 7}}},
        {"platform": "tdx", "registers": {}},
        {"format": "another"},
        [],
        7,
        "text",
    ],
)
def test_what_holds_no_reference_value(value: object):
    said = call("attest", "policy", "tdx", "--reference", put("image.json", json.dumps(value).encode()))
    assert said.status == 1
    assert said.code in {"wire.bad_field", "attest.bad_measurement"}
    assert "image.json: " in said.err


def test_a_draft_that_could_not_be_read_again_is_not_written():
    path = put("image.json", machine("tdx").measurement.to_json())
    said = call("attest", "policy", "tdx", "--reference", path, "--name", "x" * 129, "--out", "policy.json")
    assert (said.status, said.code) == (1, "wire.bad_field")
    assert not Path("policy.json").exists()


def test_a_draft_in_a_file_is_used_as_it_is():
    """From the draft to the verdict: with our own vendors' root in place of the real one's."""
    found = machine("tdx")
    put("image.json", found.measurement.to_json())
    said = call("attest", "policy", "tdx", "--reference", "image.json", "--name", "room", "--out", "policy.json")
    assert (said.status, said.err) == (0, "")
    assert "policy.json   sha256:" in said.out
    (ours,) = found.roots["tdx"].certificates
    (intels,) = ROOTS["tdx"].values()
    put("policy.json", Path("policy.json").read_text().replace(intels, ours).encode())
    said = call(*words("tdx", policy=None), "--policy", "policy.json")
    assert said.status == BARE
    assert "room" in said.out


def test_machines_by_name():
    ids = [f"ppid:{pki_intel.PPID.hex()}", "ppid:" + "ff" * 16]
    said = call("attest", "policy", "tdx", "--machine", ids[0], "--machine", ids[1], "--json")
    assert said.json["machines"] == sorted(ids)
    found = replace(machine("tdx").policy, machines=frozenset(ids))
    assert verify("tdx", policy=found).status == BARE
    assert error(verify("tdx", policy=replace(found, machines=frozenset(ids[1:]))))[1].startswith("A12 failed")


# --- adopt --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> Home:
    found = Home(tmp_path / "room")
    found.create("hospital", host="127.0.0.1", port=1)
    return found


def test_an_adopted_policy_is_what_the_broker_decides_by(home: Home):
    policy = machine("report-with-gpus").policy
    path = put("policy.json", policy.to_json())
    said = call("attest", "adopt", path, "--home", home.folder, "--as", "hospital")
    assert (said.status, said.err) == (0, "")
    assert f"{policy.digest}, signed by hospital" in " ".join(said.out.split())
    assert "tdx: 1 reference value" in said.out
    assert "nvidia_cc: exactly 2" in said.out
    assert "any" in said.out
    owner = home.party("hospital").owner()
    assert owner.policy.digest == policy.digest
    assert owner.trust.signed_policy() == policy
    machine_said = call("attest", "adopt", path, "--home", home.folder, "--as", "hospital", "--json")
    assert machine_said.json == {"adopted": policy.digest, "party": "hospital"}


def test_a_policy_takes_the_place_of_the_one_before(home: Home):
    for policy in (machine("tdx").policy, machine("nitro").policy, AppraisalPolicy()):
        assert call("attest", "adopt", put("policy.json", policy.to_json()), "--home", home.folder).status == 0
        assert home.party("hospital").owner().policy.digest == policy.digest
    empty = call("attest", "adopt", put("policy.json", AppraisalPolicy().to_json()), "--home", home.folder)
    assert empty.status == 0
    no_values = replace(machine("tdx").policy, references=(), machines=frozenset())
    said = call("attest", "adopt", put("policy.json", no_values.to_json()), "--home", home.folder)
    assert "so that nothing is accepted" in said.out
    assert "0 by name" in said.out


def test_a_policy_of_anothers_is_taken_over_under_ones_own_name(home: Home):
    signed = machine("tdx").policy.sign(SigningKey.from_seed(b"\x09" * 32))
    assert call("attest", "adopt", put("policy.json", signed.to_json()), "--home", home.folder).status == 0
    trust = home.party("hospital").trust
    assert trust.appraisal is not None
    own = home.party("hospital").keys.signing.public
    assert own.verify(trust.appraisal, POLICY_TYPE) == machine("tdx").policy.encode()


def tampered(home: Home, change: Callable[[dict[str, Any]], None]) -> Path:
    call("attest", "adopt", put("policy.json", machine("tdx").policy.to_json()), "--home", home.folder)
    path = home.folder / "parties" / "hospital" / "trust.json"
    value = json.loads(path.read_bytes())
    change(value)
    path.write_bytes(pretty(value))
    return path


def test_a_trust_file_in_which_the_policy_was_changed_is_refused(home: Home):
    def widen(value: dict[str, Any]) -> None:
        import base64

        policy = json.loads(base64.b64decode(value["appraisal_policy"]["payload"]))
        policy["machines"] = "any-machine"
        policy["max_age_s"] = 86_400
        text = json.dumps(policy, sort_keys=True, separators=(",", ":"))
        value["appraisal_policy"]["payload"] = base64.b64encode(text.encode()).decode()

    path = tampered(home, widen)
    with pytest.raises(BadSignature):
        home.party("hospital").owner()
    for words_ in (("adopt", "policy.json"), ("adopt", "policy.json", "--json")):
        said = call("attest", *words_, "--home", home.folder)
        assert said.status == 1
    assert str(path) in call("attest", "adopt", "policy.json", "--home", home.folder).err
    assert call("attest", "adopt", "policy.json", "--home", home.folder).code == "wire.bad_signature"


def test_a_trust_file_whose_policy_a_stranger_signed_is_refused(home: Home):
    def swap(value: dict[str, Any]) -> None:
        value["appraisal_policy"] = machine("tdx").policy.sign(SigningKey.from_seed(b"\x0a" * 32)).to_json()

    tampered(home, swap)
    with pytest.raises(NotPinned):
        home.party("hospital").owner()
    with pytest.raises(NotPinned):
        Trust.from_json(json.loads((home.folder / "parties" / "hospital" / "trust.json").read_bytes()))


def test_adopting_nothing_and_nobody(home: Home, tmp_path: Path):
    said = call("attest", "adopt", put("policy.json", b"{}"), "--home", home.folder)
    assert (said.status, said.code) == (1, "wire.bad_field")
    said = call("attest", "adopt", put("policy.json", machine("tdx").policy.to_json()), "--home", tmp_path / "none")
    assert (said.status, said.code) == (1, "party.no_keys")
    home.create("lab", host="127.0.0.1", port=1)
    said = call("attest", "adopt", "policy.json", "--home", home.folder)
    assert (said.status, said.code) == (2, "app.usage")


# --- receipts -----------------------------------------------------------------------------------------------------------


def test_a_receipts_evidence_is_shown_as_evidence_in_a_file_is(rehearsal: Rehearsal):
    bundle_of_run = rehearsal.run(rehearsal.agree())
    path = put("receipt.json", bundle_of_run.encode())
    who = ("--home", rehearsal.home, "--as", "lab")
    plain = call("verify", path, *who)
    assert (plain.status, plain.err) == (0, "")
    said = call("verify", path, "--evidence", *who)
    assert (said.status, said.err) == (0, "")
    assert said.out.endswith(plain.out.lstrip("\n"))
    releases = len(bundle_of_run.releases)
    assert releases == 2
    for number in range(1, releases + 1):
        assert f"evidence of release {number} of {releases}, at " in said.out
    assert said.out.count("✓ A15") == said.out.count("✓ P1") == releases
    assert said.out.count("verdict                 affirming: ") == releases
    assert "platform: simulated (no hardware protection)" in said.out
    found = call("verify", path, *who, "--json").json
    assert [result["ear.status"] for result in found["evidence"]] == ["affirming"] * releases
    assert found["verified"] is True
    assert call("verify", path, "--evidence", *who, "--json").json == found


def test_a_receipt_under_another_policy_says_which_check_of_the_evidence_failed(rehearsal: Rehearsal):
    path = put("receipt.json", rehearsal.run(rehearsal.agree()).encode())
    home = rehearsal.lab.home
    home.save_trust(replace(home.trust, measurements=()))
    who = ("--home", rehearsal.home, "--as", "lab")
    said = call("verify", path, "--evidence", *who)
    assert said.status == 1
    assert error(said)[0] == "receipt.not_verified"
    assert "✗ A1" in said.out
    found = call("verify", path, *who, "--json")
    assert found.status == 1
    assert found.json["verified"] is False
    assert [result["ear.status"] for result in found.json["evidence"]][:1] == ["contraindicated"]


# --- how it is shown ------------------------------------------------------------------------------------------------------


def test_a_run_of_checks_that_were_not_reached_is_one_line():
    said = verify("tdx", bundle=None)
    assert "? Q9 to Q20 12 checks that were not reached (not established)" in said.out
    assert said.out.count("not reached") == 2  # those of the quote, and those of the appraisal
    assert len(verify("tdx", "--json", bundle=None).json["strongroom.checks"]) == 35  # for machines, each


def test_times_in_details_are_peoples():
    said = verify("tdx").out
    assert "until 2026-11-13" in said
    assert not [line for line in said.splitlines() if " 17" in line and line.strip().startswith("until 17")]
    assert appraised.readable("valid from 1750328163 until 1752920163") == (
        "valid from 2025-06-19 10:16:03 UTC until 2025-07-19 10:16:03 UTC"
    )
    assert (
        appraised.readable("the evidence is 348518 s old; 300 s are allowed")
        == "the evidence is 4 days old; 300 s are allowed"
    )
    assert appraised.readable("expired at 1, 90000 s ago") == "expired at 1, 25 hours ago"
    assert appraised.readable("PCR0 of 12345678, 0x1750328163") == "PCR0 of 12345678, 0x1750328163"


def test_a_check_that_was_reached_and_is_open_is_not_hidden():
    passed, failed = Check("A1", "x", Status.PASSED), Check("A2", "x", Status.FAILED, code="attest.forged")
    asked, skipped = (
        Check("A3", "x", Status.NOT_ESTABLISHED, "none came", "attest.endorsement_missing"),
        Check("A4", "x", Status.NOT_ESTABLISHED, "not reached"),
    )
    assert [appraised.reached(check) for check in (passed, failed, asked, skipped)] == [True, True, True, False]


def test_a_trust_vector_in_words():
    assert appraised.vector(TrustVector()) == "nothing is claimed"
    found = appraised.vector(TrustVector(instance_identity=2, hardware=32, configuration=96))
    assert found == "instance-identity affirming (2), configuration contraindicated (96), hardware warning (32)"


# --- real files -----------------------------------------------------------------------------------------------------------


REAL = {
    "tdx": (("tdx/phala_v4.quote",), "tdx/phala_v4.collateral.json", "2025-06-25", "not established: A6, A10"),
    "snp": (("snp/ms_milan.report",), "snp/ms_milan.vcek.pem snp/kds_milan.crl.pem", "2026-03-01", "SP3 failed"),
    "nitro": (("nitro/evervault_beta.cose",), "", "1665651500", "not established: A6, A10"),
    "gpu": (
        ("nvidia/h100_570.report", "--certificates", "nvidia/h100_570.certs.pem"),
        "",
        "2026-01-01",
        "G6 not established",
    ),
    "sdk": (("nvidia/sdk_hopper_590.json",), "", "2026-01-01", "G6 not established"),
    "token": (("nras/h200_tokens.json",), "nras/jwks_2026-09-12.json", "2026-09-04T13:00:00Z", "R3 not established"),
}


@real
@pytest.mark.parametrize("name", REAL)
def test_a_real_file(name: str):
    files, beside, at, expected = REAL[name]
    given = [FOLDER / word if "/" in word else word for word in files]
    more = [word for path in beside.split() for word in ("--endorsements", FOLDER / path)]
    said = call("attest", "verify", *given, *more, "--at", at)
    assert said.status == 1
    assert error(said)[1].startswith(expected)
    if name in {"tdx", "snp", "nitro"}:
        assert "genuine                 yes" in said.out


@real
def test_nitros_own_nonce_is_found_in_a_real_document():
    """Its slot for nonces is the document's own, beside ``user_data``."""
    path = FOLDER / "nitro" / "evervault_beta.cose"
    nonce = nitro.parse(path.read_bytes()).nonce
    assert nonce
    said = call("attest", "verify", path, "--at", "2022-10-13T08:58:05Z", "--nonce", nonce.hex(), "--json")
    assert checks(said)["A6"] == "passed"
    detail = next(check["detail"] for check in said.json["strongroom.checks"] if check["number"] == "A6")
    assert detail == "the nonce stands in the platform's slot for nonces"
    other = call("attest", "verify", path, "--at", "2022-10-13T08:58:05Z", "--nonce", nonce.hex()[:-2] + "00", "--json")
    assert checks(other)["A6"] == "failed"


@real
def test_every_real_file_is_shown_or_refused_in_one_line():
    shown_files = 0
    for path in sorted(path for path in FOLDER.rglob("*") if path.is_file()):
        for verb in ("show", "verify"):
            said = call("attest", verb, path, *(("--at", CURRENT) if verb == "verify" else ()))
            assert said.status in {0, 1}, path
            assert "app.internal" not in said.err, path
            if said.status:
                assert error(said)[0] in {"attest.bad_evidence", "attest.not_affirming"}, path
            else:
                shown_files += 1
    assert shown_files > 50
