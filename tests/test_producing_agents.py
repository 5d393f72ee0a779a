"""Evidence of what stands before the processor, or beside it: dstack's agent, Azure's virtual TPM, NVIDIA's GPUs."""

from __future__ import annotations

import contextlib
import gzip
import json
import shutil
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fake_azure
import fake_dstack
import pki_amd
import pki_azure
import pki_nvidia
from fake_azure import REPORT, USER_DATA, FakeAzure
from fake_devices import FakeNvml, gpu
from fake_dstack import Agent
from real import cases, read, real
from strongroom.app.enclave.platforms import local_http
from strongroom.app.enclave.platforms.azure import ATTESTATION_KEY, TRIES, Azure, platform_of
from strongroom.app.enclave.platforms.dstack import Dstack
from strongroom.app.enclave.platforms.local_http import LocalHttp
from strongroom.app.enclave.platforms.nvidia import Gpus, library
from strongroom.app.enclave.platforms.tpm import Tpm, tools
from strongroom.attest.azure import parse as parse_azure
from strongroom.attest.binding import gpu_nonce
from strongroom.attest.endorsements import CRL
from strongroom.attest.evidence import Endorsements
from strongroom.attest.nvidia_device import parse as parse_gpu
from strongroom.attest.registry import verifier
from strongroom.errors import MissingExtra, PlatformFailed
from strongroom.transcript import Transcript

DATA = bytes(range(64))


def verified(evidence, endorsements, roots, at):
    module = verifier(evidence.platform)
    return module.verify(evidence, endorsements, roots=roots, at=at, transcript=Transcript(module.STEPS))


def never(_seconds: float) -> None:
    """Waits for nothing."""


# --- dstack -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path) -> Path:
    return tmp_path / "dstack.sock"


def test_a_dstack_quote_of_these_bytes_verifies_with_its_log(place):
    with Agent(place) as agent:
        platform = Dstack(place)
        evidence = platform.produce(DATA)
        assert platform.endorsements() == Endorsements()
    guest = fake_dstack.GUEST
    assert verified(evidence, guest.endorsements(), guest.roots(), fake_dstack.pki_dstack.AT).binds(DATA)
    assert agent.asked == [("/GetQuote", {"report_data": DATA.hex()})]


def test_the_agent_says_which_app_it_is_of(place):
    with Agent(place):
        found = Dstack(place).info()
    assert found.app_id == fake_dstack.pki_dstack.APP_ID.hex()
    assert found.compose_hash == fake_dstack.pki_dstack.COMPOSE_HASH.hex()
    assert (found.app_name, found.instance_id) == ("an app", fake_dstack.pki_dstack.INSTANCE_ID.hex())
    with Agent(place.with_name("other"), {"/Info": lambda _: {}}):
        assert Dstack(place.with_name("other")).info().app_id == ""


def test_several_at_once_get_each_their_own(place):
    with Agent(place), ThreadPoolExecutor(4) as pool:
        platform = Dstack(place)
        wanted = [bytes([n]) * 64 for n in range(8)]
        for data, evidence in zip(wanted, pool.map(platform.produce, wanted), strict=True):
            assert data in evidence.data


def without(name):
    return {"/GetQuote": lambda asked: {k: v for k, v in fake_dstack.quote(asked).items() if k != name}}


def said(**changes):
    return {"/GetQuote": lambda asked: {**fake_dstack.quote(asked), **changes}}


@pytest.mark.parametrize("size", [0, 32, 65])
def test_64_bytes_are_signed_and_nothing_else(place, size):
    with pytest.raises(PlatformFailed, match="64 bytes"):
        Dstack(place).produce(bytes(size))


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        (said(report_data="00" * 64), "for other report data"),
        (said(report_data=DATA.hex()[:64]), "for other report data"),
        (said(report_data=None), "not a string"),
        (said(quote=fake_dstack.quote({"report_data": "00" * 64})["quote"]), "not of the bytes"),
        (said(quote=""), "not of the bytes"),
        (said(quote="0"), "not lowercase hex"),
        (said(quote=DATA.hex().upper()), "not lowercase hex"),
        (said(quote="0x" + DATA.hex()), "not lowercase hex"),
        (said(quote="00" * ((64 << 10) + 1)), "not a string of at most"),
        (said(quote=[]), "not a string"),
        (said(event_log=[]), "not a string"),
        (said(event_log="x" * ((1 << 20) + 1)), "not a string of at most"),
        (said(vm_config={}), "not a string"),
        (
            {"/GetQuote": lambda asked: {k: v for k, v in fake_dstack.quote(asked).items() if k != "event_log"}},
            "not a string",
        ),
        ({"/GetQuote": b""}, "not JSON"),
        ({"/GetQuote": b"{"}, "not JSON"),
        ({"/GetQuote": b'{"quote":"","quote":""}'}, "not JSON"),
        ({"/GetQuote": b"[]"}, "not an object"),
        ({"/GetQuote": b" " * (local_http.MAX_ANSWER_BYTES + 1)}, "more than"),
    ],
)
def test_an_agent_that_answers_something_else_is_refused(place, answers, why):
    with Agent(place, answers), pytest.raises(PlatformFailed, match=why):
        Dstack(place).produce(DATA)


def test_members_that_an_agent_of_tomorrow_has_and_one_of_yesterday_has_not_are_no_matter(place):
    with Agent(place, said(more={"a": 1})):
        assert Dstack(place).produce(DATA).platform == "dstack"
    with Agent(place.with_name("old"), without("vm_config")):
        assert Dstack(place.with_name("old")).quote(DATA).vm_config == b""


def test_an_agent_that_refuses_is_said_to(place):
    with Agent(place, status=400), pytest.raises(PlatformFailed, match="HTTP 400"):
        Dstack(place).produce(DATA)


def test_an_agent_that_drips_is_given_up(place):
    now = [0.0]

    def drip() -> None:
        now[0] += 4.0

    with Agent(place, drip=drip), pytest.raises(PlatformFailed, match="longer than 10 s"):
        Dstack(place, seconds=10, clock=lambda: now[0]).produce(DATA)


def test_an_agent_that_never_answers_is_given_up(place):
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(place))
        silent.listen()
        with pytest.raises(PlatformFailed, match="does not answer"):
            Dstack(place, seconds=0.2).produce(DATA)


def test_an_agent_that_is_not_there_is_refused(place):
    with pytest.raises(PlatformFailed, match="there is no dstack agent"):
        Dstack(place).produce(DATA)


def test_an_answer_in_an_encoding_that_nobody_asked_for_is_refused():
    answer = httpx.Response(200, content=gzip.compress(b" " * 10_000_000), headers={"content-encoding": "gzip"})
    local = LocalHttp("it", "http://it", 5, lambda: httpx.MockTransport(lambda _: answer))
    with pytest.raises(PlatformFailed, match="encoding"):
        local.ask("GET", "/")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8), lambda s: st.lists(s, max_size=3)))
def test_whatever_the_agent_says_nothing_else_escapes(value):
    for name in ("quote", "event_log", "report_data"):
        body = {"event_log": "", "quote": DATA.hex(), "report_data": DATA.hex(), name: value}
        platform = Dstack(Path("unused"))
        answer = httpx.Response(200, content=json.dumps(body).encode())
        platform._agent = replace(platform._agent, transport=lambda answer=answer: httpx.MockTransport(lambda _: answer))
        with contextlib.suppress(PlatformFailed):
            assert platform.produce(DATA).platform == "dstack"


def test_no_proxy_of_the_environment_is_asked(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            line, _ = server.accept()
            with line:
                line.recv(4096)
                line.sendall(b'HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n{"a":1}')

        thread = threading.Thread(target=answer)
        thread.start()
        assert LocalHttp("it", f"http://127.0.0.1:{server.getsockname()[1]}", 5).ask("GET", "/") == {"a": 1}
        thread.join()


# --- Azure ------------------------------------------------------------------------------------------------------------


def azure(fake: FakeAzure, **named) -> Azure:
    return Azure(fake.platform, tpm=Tpm(fake.run), imds=fake.imds(), pause=named.pop("pause", never), **named)


@pytest.mark.parametrize("platform", ["azure_snp", "azure_tdx"])
def test_azures_evidence_of_these_bytes_verifies_and_its_hardware_report_is_fresh(platform):
    fake = FakeAzure(platform)
    evidence = azure(fake).produce(DATA)
    assert evidence.platform == platform
    world = fake.world(DATA)
    assert verified(evidence, world.endorsements, world.roots, world.at).binds(DATA)
    assert json.loads(parse_azure(evidence.data).runtime_data)["user-data"] == DATA.hex().upper()
    assert fake.quotes == [sha256(DATA).digest()]
    assert platform_of(Tpm(fake.run)) == platform


def test_amds_certificates_come_from_the_metadata_service():
    fake = FakeAzure()
    platform = azure(fake)
    evidence = platform.produce(DATA)
    world = fake.world(DATA)
    crl = next(d for d in world.endorsements.documents if d.media_type == CRL)
    found = Endorsements((*platform.endorsements().documents, crl))
    assert verified(evidence, found, world.roots, world.at).binds(DATA)
    assert azure(FakeAzure("azure_tdx")).endorsements() == Endorsements()


@pytest.mark.parametrize("answer", [None, {}, {"vcekCert": "x"}, {"vcekCert": "", "certificateChain": "x"}, {"vcekCert": 1}])
def test_certificates_that_the_metadata_service_has_not_are_left_out(answer):
    fake = FakeAzure(metadata={"/metadata/THIM/amd/certification": answer})
    platform = azure(fake)
    assert platform.produce(DATA).platform == "azure_snp"
    assert platform.endorsements() == Endorsements()


def test_the_index_for_user_data_is_defined_once():
    fake = FakeAzure()
    platform = azure(fake)
    platform.produce(DATA)
    platform.produce(bytes(64))
    assert [command[0] for command in fake.commands].count("tpm2_nvdefine") == 1
    assert fake.indices[USER_DATA] == bytes(64)


def test_a_paravisor_that_takes_its_time_is_waited_for_and_one_that_never_does_given_up():
    pauses: list[float] = []
    assert azure(FakeAzure(late=3), pause=pauses.append).produce(DATA).platform == "azure_snp"
    assert len(pauses) == 3
    with pytest.raises(PlatformFailed, match="did not take the user data up"):
        azure(FakeAzure(late=TRIES)).produce(DATA)


def test_a_paravisor_too_old_for_user_data_is_bound_by_the_quote_alone():
    fake = FakeAzure(knows_user_data=False)
    evidence = azure(fake).produce(DATA)
    world = fake.world(DATA)
    assert verified(evidence, world.endorsements, world.roots, world.at).binds(DATA)


def test_one_asks_after_the_other_so_that_nobody_reads_anothers_user_data():
    fake = FakeAzure()
    platform = azure(fake)
    wanted = [bytes([n]) * 64 for n in range(6)]
    with ThreadPoolExecutor(6) as pool:
        for data, evidence in zip(wanted, pool.map(platform.produce, wanted), strict=True):
            world = fake.world(data)
            assert verified(evidence, world.endorsements, world.roots, world.at).binds(data)
            assert json.loads(parse_azure(evidence.data).runtime_data)["user-data"] == data.hex().upper()


def test_only_some_registers_can_be_quoted():
    evidence = azure(FakeAzure(), pcrs=(0, 7)).produce(DATA)
    assert list(parse_azure(evidence.data).quote.pcrs) == [0, 7]


@pytest.mark.parametrize(
    ("fake", "why"),
    [
        (FakeAzure(refuse=frozenset({"tpm2_nvread"})), "the TPM says no"),
        (FakeAzure(refuse=frozenset({"tpm2_quote"})), "the TPM says no"),
        (FakeAzure(refuse=frozenset({"tpm2_nvwrite"})), "the TPM says no"),
        (FakeAzure(pcrs_written=23), "23 registers, not 24"),
        (FakeAzure("azure_tdx", metadata={"/acc/tdquote": None}), "HTTP 404"),
        (FakeAzure("azure_tdx", metadata={"/acc/tdquote": {}}), "quote is not text"),
        (FakeAzure("azure_tdx", metadata={"/acc/tdquote": {"quote": "!"}}), "not base64url"),
        (FakeAzure("azure_tdx", metadata={"/acc/tdquote": {"quote": "A" * 100_000}}), "do not fit"),
    ],
)
def test_a_machine_that_gives_no_usable_evidence_is_refused(fake, why):
    with pytest.raises(PlatformFailed, match=why):
        azure(fake).produce(DATA)


@pytest.mark.parametrize("report", [b"", b"HCLA", bytes(2600)])
def test_an_index_that_holds_no_report_is_refused(report):
    fake = FakeAzure()
    fake.run = lambda command, data, run=fake.run: report if command[0] == "tpm2_nvread" else run(command, data)
    with pytest.raises(PlatformFailed, match="unusable"):
        azure(fake).produce(DATA)
    with pytest.raises(PlatformFailed, match="unusable"):
        platform_of(Tpm(fake.run))


@pytest.mark.parametrize("runtime", [b"{", b"[]", b'{"user-data":"no hex"}', b'{"user-data":1}'])
def test_runtime_data_that_say_nothing_usable_are_refused(runtime):
    fake = FakeAzure()
    fake.runtime = lambda _user_data: runtime
    fake.indices[REPORT] = pki_azure.hcl(2, pki_amd.signed(pki_amd.claims()), runtime)
    fake.report = lambda _user_data: fake.indices[REPORT]
    with pytest.raises(PlatformFailed, match=r"not JSON|did not take|do not fit"):
        azure(fake).produce(DATA)


def test_a_report_of_other_hardware_is_refused():
    fake = FakeAzure("azure_tdx")
    with pytest.raises(PlatformFailed, match="of azure_tdx, not of azure_snp"):
        Azure("azure_snp", tpm=Tpm(fake.run), imds=fake.imds(), pause=never).produce(DATA)


def test_a_virtual_tpm_without_a_paravisors_report_is_none_of_azures():
    fake = FakeAzure()
    del fake.indices[REPORT]
    assert platform_of(Tpm(fake.run)) is None


def test_64_bytes_are_signed_on_azure_and_nothing_else():
    with pytest.raises(PlatformFailed, match="64 bytes"):
        azure(FakeAzure()).produce(bytes(32))


@real
@pytest.mark.parametrize("name", ["snp_hcl_report.bin", "openpcc_genoa_hcl.bin", "openpcc_tdx_hcl.bin"])
def test_a_real_paravisors_report_says_which_platform_it_is_of(name):
    report = read(f"azure_vtpm/{name}")

    def run(command, _data):
        return b"0x1400001:\n  size: 2600\n" if command[0] == "tpm2_nvreadpublic" else report

    assert platform_of(Tpm(run)) == ("azure_tdx" if "tdx" in name else "azure_snp")


# --- tpm2-tools -------------------------------------------------------------------------------------------------------


def test_a_tool_that_is_not_there_or_fails_or_takes_too_long_or_prints_too_much_is_refused():
    run = tools()
    for command, why in (
        (["no-such-tool"], "is not installed"),
        (["false"], "false failed: 1"),
        (["sh", "-c", "echo first >&2; echo last >&2; exit 3"], "failed: last$"),
        (["head", "-c", "65537", "/dev/zero"], "more than"),
    ):
        with pytest.raises(PlatformFailed, match=why):
            run(command, b"")
    with pytest.raises(PlatformFailed, match="TimeoutExpired"):
        tools(seconds=0.05)(["sleep", "5"], b"")


def test_a_tool_gets_an_environment_of_its_own(monkeypatch):
    monkeypatch.setenv("TPM2TOOLS_TCTI", "somebody's")
    monkeypatch.setenv("LD_PRELOAD_NOT", "x")
    assert {line.split("=")[0] for line in tools()(["env"], b"").decode().splitlines()} <= {
        "LANG",
        "PATH",
        "PWD",
        "SHLVL",
        "_",
    }
    assert b"TPM2TOOLS_TCTI=device:/dev/tpm0" in tools("device:/dev/tpm0")(["env"], b"")


def test_what_the_tools_wrote_must_be_a_quote_for_what_was_asked():
    def write(*names: str):
        def run(command, _data):
            for name in names:
                Path(command[command.index(name) + 1]).write_bytes(bytes(24 * 32))
            return b""

        return Tpm(run)

    for made, why in (
        (write(), "wrote nothing"),
        (write("-m", "-s"), "wrote nothing"),
        (write("-m", "-s", "-o"), "no quote"),
    ):
        with pytest.raises(PlatformFailed, match=why):
            made.quote(ATTESTATION_KEY, bytes(32))
    other = fake_azure.FakeAzure()
    replayed = Tpm(lambda command, data: other.run([*command[:6], bytes(32).hex(), *command[7:]], data))
    with pytest.raises(PlatformFailed, match="not for what it was asked for"):
        replayed.quote(ATTESTATION_KEY, b"\x01" * 32)


def test_a_file_that_is_too_long_is_not_read():
    def run(command, _data):
        for name in ("-m", "-s", "-o"):
            Path(command[command.index(name) + 1]).write_bytes(bytes(100_000))
        return b""

    with pytest.raises(PlatformFailed, match="longer than"):
        Tpm(run).quote(ATTESTATION_KEY, bytes(32))


@pytest.fixture(scope="module")
def swtpm(tmp_path_factory):
    """A TPM 2.0 in software, with an attestation key where Azure has one."""
    if not (shutil.which("swtpm") and shutil.which("tpm2_quote")):
        pytest.skip("left out: swtpm and tpm2-tools are not installed (apt-get install swtpm tpm2-tools)")
    folder = tmp_path_factory.mktemp("t")
    path = folder / "s"
    command = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={folder}", "--flags", "not-need-init,startup-clear"]
    command += ["--server", f"type=unixio,path={path}", "--ctrl", f"type=unixio,path={path}.ctrl"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while not path.exists():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
        run = tools(f"swtpm:path={path}")
        attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign"
        made = [str(folder / name) for name in ("parent", "public", "private", "key")]
        run(["tpm2_createprimary", "-Q", "-C", "o", "-c", made[0]], b"")
        create = ["tpm2_create", "-Q", "-C", made[0], "-G", "rsa2048:rsassa-sha256:null", "-a", attributes]
        run([*create, "-u", made[1], "-r", made[2]], b"")
        run(["tpm2_flushcontext", "-t"], b"")
        run(["tpm2_load", "-Q", "-C", made[0], "-u", made[1], "-r", made[2], "-c", made[3]], b"")
        run(["tpm2_flushcontext", "-t"], b"")
        run(["tpm2_evictcontrol", "-Q", "-C", "o", "-c", made[3], f"{ATTESTATION_KEY:#x}"], b"")
        run(["tpm2_flushcontext", "-t"], b"")
        run(["tpm2_readpublic", "-Q", "-c", f"{ATTESTATION_KEY:#x}", "-f", "der", "-o", str(folder / "key.der")], b"")
        yield run, (folder / "key.der").read_bytes()
    finally:
        process.terminate()
        process.wait(10)


def test_a_real_tpm_quotes_what_verifies(swtpm):
    run, der = swtpm
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    tpm = Tpm(run)
    run(["tpm2_pcrextend", f"16:sha256={sha256(b'event').hexdigest()}"], b"")
    quote = tpm.quote(ATTESTATION_KEY, sha256(DATA).digest())
    quote.require_made_by_tpm()
    quote.require_signed_by(load_der_public_key(der))
    quote.require_selected()
    quote.require_digest()
    assert quote.binds(DATA)
    assert quote.pcrs[16] == sha256(bytes(32) + sha256(b"event").digest()).digest()
    some = tpm.quote(ATTESTATION_KEY, bytes(32), (0, 1, 16))
    some.require_digest()
    assert list(some.pcrs) == [0, 1, 16]


def test_a_real_tpm_keeps_user_data(swtpm):
    tpm = Tpm(swtpm[0])
    assert USER_DATA not in tpm.nv_sizes()
    tpm.nv_define(USER_DATA, 64)
    tpm.nv_write(USER_DATA, DATA)
    assert tpm.nv_sizes()[USER_DATA] == 64
    assert tpm.nv_read(USER_DATA) == DATA
    with pytest.raises(PlatformFailed, match="tpm2_nvread failed"):
        tpm.nv_read(REPORT)
    with pytest.raises(PlatformFailed, match="tpm2_quote failed"):
        tpm.quote(0x81000004, bytes(32))


# --- NVIDIA -----------------------------------------------------------------------------------------------------------


def gpus(fake: FakeNvml) -> Gpus:
    return Gpus(lambda: fake)


def test_every_gpu_signs_the_nonce_that_follows_from_the_report_data():
    fake = FakeNvml(gpu("a"), gpu("b"))
    found = gpus(fake).produce(DATA)
    nonce = gpu_nonce(DATA)
    assert fake.nonces == [nonce, nonce]
    assert [parse_gpu(evidence.data).report.nonce for evidence in found] == [nonce, nonce]
    assert len({parse_gpu(evidence.data).certificates[0].der for evidence in found}) == 2
    for name, evidence in zip("ab", found, strict=True):
        world = pki_nvidia.World(pki_nvidia.Device(name=name, nonce=nonce))
        assert verified(evidence, world.endorsements, world.roots, world.at).binds(DATA)


def test_whether_gpus_are_confidential_is_the_librarys_word():
    assert gpus(FakeNvml(gpu())).confidential
    assert not gpus(FakeNvml(gpu(), confidential=False)).confidential
    assert len(gpus(FakeNvml(gpu(), gpu("b")))) == 2


@pytest.mark.parametrize(
    "name",
    [
        "nvmlDeviceGetCount",
        "nvmlDeviceGetHandleByIndex",
        "nvmlDeviceGetConfComputeGpuAttestationReport",
        "nvmlDeviceGetConfComputeGpuCertificate",
    ],
)
def test_a_library_that_refuses_is_said_to(name):
    with pytest.raises(PlatformFailed, match=f"{name}: Not Supported"):
        gpus(FakeNvml(gpu(), refuse=name)).produce(DATA)


def test_a_library_without_a_driver_or_too_old_is_said_to_be():
    with pytest.raises(PlatformFailed, match="nvmlInit"):
        gpus(FakeNvml(gpu(), refuse="nvmlInit"))

    class Old:
        NVMLError = FakeNvml.NVMLError

        def nvmlInit(self) -> None: ...

    with pytest.raises(PlatformFailed, match="nvmlSystemGetConfComputeState"):
        _ = Gpus(Old).confidential


def test_a_machine_without_the_library_says_what_to_install(monkeypatch):
    import builtins

    real_import = builtins.__import__

    def no(name, *arguments, **named):
        if name == "pynvml":
            raise ImportError(name)
        return real_import(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", no)
    with pytest.raises(MissingExtra, match="nvidia-ml-py") as caught:
        library()
    assert "strongroom[nvidia]" in caught.value.hint


@pytest.mark.parametrize("count", [0, 17])
def test_no_gpu_and_more_than_evidence_can_carry_are_refused(count):
    with pytest.raises(PlatformFailed, match=f"there are {count} GPUs"):
        gpus(FakeNvml(*[gpu()] * count)).produce(DATA)


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (lambda nonce: gpu()(bytes(32)), "another nonce"),
        (lambda nonce: (b"\x11", gpu()(nonce)[1]), "no usable evidence"),
        (lambda nonce: (gpu()(nonce)[0], b"-----BEGIN"), "no usable evidence"),
        (lambda nonce: (b"", gpu()(nonce)[1]), "report of GPU 0 is 0 bytes"),
        (lambda nonce: (gpu()(nonce)[0], b""), "certificate chain of GPU 0 is 0 bytes"),
    ],
)
def test_a_gpu_that_gives_no_usable_evidence_is_refused(made, why):
    with pytest.raises(PlatformFailed, match=why):
        gpus(FakeNvml(made)).produce(DATA)


@pytest.mark.parametrize("name", ["report_size", "chain_size"])
@pytest.mark.parametrize("size", [-1, 0x2001, 1 << 31])
def test_a_size_that_the_librarys_memory_does_not_have_is_refused(name, size):
    fake = FakeNvml(gpu())
    setattr(fake, name, size)
    with pytest.raises(PlatformFailed, match="bytes long, where"):
        gpus(fake).produce(DATA)


@real
def test_real_gpus_answers_are_taken_as_the_library_gives_them(monkeypatch):
    from strongroom.app.enclave.platforms import nvidia

    names = [("h100_570", None), ("gb100_575", None)]
    known = {case["file"]: bytes.fromhex(case["nonce"]) for case in cases("cases_other.json") if case["kind"] == "nvidia"}
    for name, _ in names:
        report, chain = read(f"nvidia/{name}.report"), read(f"nvidia/{name}.certs.pem")
        nonce = known.get(f"nvidia/{name}.report", report[4:36])
        monkeypatch.setattr(nvidia, "gpu_nonce", lambda _data, nonce=nonce: nonce)
        (found,) = gpus(FakeNvml(lambda _nonce, both=(report, chain): both)).produce(DATA)
        assert parse_gpu(found.data).report.data == report
        assert parse_gpu(found.data).report.nonce == nonce
