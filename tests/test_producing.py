"""The platform that an enclave finds: what is looked for, what is chosen, what never is by itself, and what starts on it."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import re
import socket
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import pki_amd
from fake_azure import REPORT, FakeAzure
from fake_devices import FakeNvml, gpu
from fake_dstack import Agent
from fake_tsm import FakeTsm, Faults, snp
from stage import call
from strongroom import wire
from strongroom.app.cli import roles
from strongroom.app.cli.fleet import Fleet
from strongroom.app.client.home import Home
from strongroom.app.enclave import platforms, server
from strongroom.app.enclave.hardware import Hardware
from strongroom.app.enclave.platforms import Machine, azure, choose, devices, found, look, nvidia, open_platform, tsm
from strongroom.attest import binding
from strongroom.attest.endorsements import CERTIFICATE
from strongroom.attest.evidence import Endorsement, Endorsements, Evidence
from strongroom.attest.keyset import DEVICE_BINDING_ALGO, report_data
from strongroom.errors import (
    BadKeyset,
    DeviceNotBound,
    MissingExtra,
    NoPlatform,
    PlatformFailed,
    ReleaseRefused,
    Unreachable,
)
from strongroom.release import ReleaseRequest
from world import World

DATA = bytes(range(64))
TAG = "sys/class/dmi/id/chassis_asset_tag"
TSM = "sys/kernel/config/tsm/report"
DOCS = Path(__file__).parents[1] / "docs" / "producing.md"


def no_tools(command, _data):
    raise PlatformFailed(f"{command[0]} is not installed")


def no_library():
    raise MissingExtra("evidence of a GPU needs nvidia-ml-py", hint="Install it.")


class Place:
    """A machine in a folder, with nothing on it until a test puts it there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.machine = Machine(root, FakeTsm(), no_tools, no_library)
        self.devices: set[Path] = set()

    def file(self, name: str, text: str = "") -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def device(self, name: str) -> None:
        """What looks like a device file; making a real one takes root."""
        self.file(name)
        self.devices.add(self.root / name)

    def kernel(self, files: Any) -> None:
        (self.root / TSM).mkdir(parents=True)
        self.machine = replace(self.machine, files=files)

    def azure(self, fake: FakeAzure | None, tag: str = platforms._AZURE_TAG) -> None:
        self.file(TAG, f"{tag}\n")
        if fake is not None:
            self.machine = replace(self.machine, run=fake.run)

    def socket(self) -> socket.socket:
        path = self.root / "var/run/dstack.sock"
        path.parent.mkdir(parents=True)
        made = socket.socket(socket.AF_UNIX)
        made.bind(str(path))
        return made


@pytest.fixture
def place(tmp_path, monkeypatch) -> Place:
    made = Place(tmp_path / "m")
    real = platforms._is

    def is_(path: Path, kind: Any) -> bool:
        return path in made.devices if kind is stat.S_ISCHR else real(path, kind)

    monkeypatch.setattr(platforms, "_is", is_)
    return made


def names(machine: Machine) -> list[str]:
    return [sight.name for sight in found(machine)]


# --- what is found ----------------------------------------------------------------------------------------------------


def test_on_a_machine_without_hardware_nothing_is_found_and_it_is_said_what_was_looked_for(place):
    assert found(place.machine) == ()
    with pytest.raises(NoPlatform) as caught:
        choose(place.machine)
    assert str(caught.value).startswith("no confidential hardware is here. Looked for: dstack: ")
    for what in ("dstack.sock", "Azure", "/dev/nsm", "/dev/sev-guest", TSM):
        assert what in caught.value.message
    assert "--platform simulated" in caught.value.hint
    assert "protects nothing" in caught.value.hint
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(("provider", "platform"), [("tdx_guest", "tdx"), ("sev_guest", "sev_snp")])
def test_the_kernels_provider_says_which_processor_it_is(place, provider, platform):
    kernel = FakeTsm(provider)
    place.kernel(kernel)
    assert names(place.machine) == [platform]
    assert choose(place.machine).seen.endswith(f"with the provider {provider}")
    assert kernel.items == {}


@pytest.mark.parametrize(
    ("kernel", "why"),
    [
        (FakeTsm("arm_cca_guest"), "a provider that is not known here: 'arm_cca_guest'"),
        (FakeTsm(None), os.strerror(errno.ENXIO)),
        (FakeTsm(before=Faults(*[("mkdir", "", errno.EACCES)] * 9)), os.strerror(errno.EACCES)),
        (FakeTsm("\x00"), "not a line of text"),
    ],
)
def test_a_kernel_that_names_no_known_provider_is_no_platform_and_it_is_said_why(place, kernel, why):
    place.kernel(kernel)
    with pytest.raises(NoPlatform, match=re.escape(why)):
        choose(place.machine)


def test_amds_own_device_is_taken_only_where_the_kernel_has_no_common_way(place):
    place.device("dev/sev-guest")
    assert names(place.machine) == ["sev_snp"]
    place.kernel(FakeTsm("sev_guest"))
    assert names(place.machine) == ["sev_snp"]
    assert TSM in choose(place.machine).seen


def test_intels_device_alone_is_no_way_to_a_quote_and_it_is_said_what_to_do(place):
    place.device("dev/tdx_guest")
    with pytest.raises(NoPlatform, match=r"mount configfs, or take a kernel of 6\.7 or newer"):
        choose(place.machine)


def test_a_nitro_enclave_has_its_module(place):
    place.file("dev/nsm")
    assert names(place.machine) == []  # a plain file is no device
    place.device("dev/nsm")
    assert names(place.machine) == ["nitro"]


@pytest.mark.parametrize("platform", ["azure_snp", "azure_tdx"])
def test_a_machine_of_azures_has_a_paravisors_report(place, platform):
    place.azure(FakeAzure(platform))
    assert names(place.machine) == [platform]


def test_a_paravisors_report_on_a_machine_that_is_none_of_azures_is_not_looked_for(place):
    place.azure(FakeAzure(), tag="something else")
    assert names(place.machine) == []


def test_a_machine_of_azures_without_a_paravisor_or_tools_is_no_platform_and_it_is_said_why(place):
    place.azure(None)
    with pytest.raises(NoPlatform, match="a machine of Azure's, but tpm2_nvreadpublic is not installed"):
        choose(place.machine)
    fake = FakeAzure()
    del fake.indices[REPORT]
    place.azure(fake)
    with pytest.raises(NoPlatform, match="without a paravisor's report"):
        choose(place.machine)


def test_an_agent_or_a_paravisor_answers_for_the_processor_behind_it(place):
    place.kernel(FakeTsm("tdx_guest"))
    with place.socket():
        assert names(place.machine) == ["dstack"]
    (place.root / "var/run/dstack.sock").unlink()
    place.file("var/run/dstack.sock")
    assert names(place.machine) == ["tdx"]  # a file that is no socket is no agent
    place.azure(FakeAzure("azure_tdx"))
    assert names(place.machine) == ["azure_tdx"]


# --- what is chosen ---------------------------------------------------------------------------------------------------


def test_two_platforms_at_once_are_refused_with_what_was_found_unless_one_is_named(place):
    place.azure(FakeAzure())
    place.device("dev/nsm")
    with pytest.raises(NoPlatform) as caught:
        choose(place.machine)
    assert caught.value.message.startswith("more than one platform is here: azure_snp: ")
    assert "nitro: " in caught.value.message
    assert caught.value.hint == "Say which: --platform azure_snp or nitro"
    assert choose(place.machine, "nitro").name == "nitro"


def test_what_lies_behind_an_agent_can_be_named(place):
    place.kernel(FakeTsm("tdx_guest"))
    with place.socket():
        assert choose(place.machine, "tdx").name == "tdx"


@pytest.mark.parametrize("name", [*platforms.NAMES, "simulated", "", "azure_snp, azure_tdx"])
def test_a_platform_that_is_named_and_not_there_is_refused(place, name):
    with pytest.raises(NoPlatform, match=r"is not here\. Looked for"):
        choose(place.machine, name)


def test_simulated_is_never_found(place):
    assert "simulated" not in platforms.NAMES
    assert all(sight.name != "simulated" for sight in look(place.machine))
    with pytest.raises(PlatformFailed, match="is no platform"):
        open_platform(place.machine, "simulated")


# --- the way to it ----------------------------------------------------------------------------------------------------


def test_each_platform_that_is_chosen_can_be_asked(place, monkeypatch):
    place.kernel(FakeTsm("sev_guest", snp))
    chosen = choose(place.machine).name
    assert open_platform(place.machine, chosen).produce(DATA).data == snp(DATA, 0)
    assert open_platform(place.machine, chosen, privlevel=2).produce(DATA).data == snp(DATA, 2)
    fake = FakeAzure()
    place.azure(fake)
    monkeypatch.setattr(azure, "LocalHttp", lambda *_: fake.imds())
    assert open_platform(place.machine, choose(place.machine).name).produce(DATA).platform == "azure_snp"
    (place.root / TAG).unlink()
    (place.root / "var/run").mkdir(parents=True)
    with Agent(place.root / "var/run/dstack.sock"):
        assert open_platform(place.machine, choose(place.machine).name).produce(DATA).platform == "dstack"


def test_devices_are_opened_under_the_machines_root(place):
    for name in ("nitro", "sev_snp"):
        with pytest.raises(PlatformFailed, match=f"{place.root}/dev/.* cannot be opened"):
            open_platform(place.machine, name).produce(DATA)


def test_this_machine_is_looked_at_without_harm():
    machine = Machine()
    assert machine.path(tsm.ROOT) == tsm.ROOT
    assert {sight.found for sight in look(machine)} <= {True, False}
    assert devices(machine)[1]


# --- devices ----------------------------------------------------------------------------------------------------------


def test_gpus_are_devices_where_they_are_in_confidential_mode(place):
    assert devices(place.machine) == (None, "no NVIDIA GPU is here")
    place.file("dev/nvidiactl")
    assert devices(place.machine)[0] is None
    assert "needs nvidia-ml-py" in devices(place.machine)[1]
    for fake, expected in (
        (FakeNvml(gpu(), gpu("b")), "2 NVIDIA GPU(s) in confidential mode"),
        (FakeNvml(gpu(), confidential=False), "not in confidential mode"),
        (FakeNvml(gpu(), refuse="nvmlInit"), "refused nvmlInit"),
        (FakeNvml(gpu(), refuse="nvmlSystemGetConfComputeState"), "refused nvmlSystemGetConfComputeState"),
    ):
        gpus, seen = devices(replace(place.machine, nvml=lambda fake=fake: fake))
        assert expected in seen
        assert (gpus is not None) is seen.startswith("2 ")


GPUS = nvidia.Gpus(lambda: FakeNvml(gpu(), gpu("b")))
SNP = Machine(files=FakeTsm("sev_guest", snp))


def hardware(**named: Any) -> Hardware:
    return Hardware(tsm.Tsm("sev_snp", files=FakeTsm("sev_guest", snp)), **named)


class Broker:
    """A broker's line that keeps what it is asked, and refuses."""

    def __init__(self, asked: list[ReleaseRequest], nonce: bytes, first: bool) -> None:
        self.asked, self._nonce, self._lost = asked, nonce, first

    def nonce(self) -> bytes:
        return self._nonce

    def release(self, request: bytes) -> bytes:
        self.asked.append(ReleaseRequest.parse(request))
        if self._lost:
            raise Unreachable("lost")
        raise ReleaseRefused("no", reason="attest.not_fresh")

    def receipt(self, _bundle: object) -> None: ...


def asked_of(**around: Any) -> list[ReleaseRequest]:
    """What an enclave asks a broker: twice, because the first answer is lost."""
    world, asked = World(), list[ReleaseRequest]()
    nonces = iter([b"\x01" * 32, b"\x02" * 32])
    firsts = iter([True, False])
    with pytest.raises(ReleaseRefused):
        world.run(world.agree(), broker=lambda _party: Broker(asked, next(nonces), next(firsts)), **around)
    assert len(asked) == 2
    return asked


def test_devices_are_bound_by_a_key_of_the_attested_keyset_for_each_nonce_anew():
    platform = hardware(devices=GPUS)
    one, two = asked_of(platform=platform, devices=platform.devices)
    for request in (one, two):
        keyset, evidence = request.report.keyset, request.report.evidence
        bound = report_data(keyset.digest, request.nonce)
        assert bound in evidence.data
        assert [device.platform for device in evidence.devices] == ["nvidia_cc", "nvidia_cc"]
        assert all(binding.gpu_nonce(bound) in wire.unb64(json.loads(device.data)["report"]) for device in evidence.devices)
        binding.check(keyset, bound, evidence.devices, evidence.device_binding)
    with pytest.raises(DeviceNotBound):
        binding.check(
            two.report.keyset,
            report_data(two.report.keyset.digest, two.nonce),
            one.report.evidence.devices,
            one.report.evidence.device_binding,
        )


def test_an_enclave_without_devices_has_no_key_for_them():
    platform = hardware()
    assert platform.devices is None
    for request in asked_of(platform=platform, devices=platform.devices):
        assert request.report.evidence.devices == ()
        assert all(entry.algo != DEVICE_BINDING_ALGO for entry in request.report.keyset.receipt_signing_keys)
        with pytest.raises(BadKeyset):
            _ = request.report.keyset.device_binding_key


@pytest.mark.parametrize(
    ("made", "error"),
    [(lambda _data: (), DeviceNotBound), (nvidia.Gpus(FakeNvml).produce, PlatformFailed)],
    ids=["none-answers", "gone"],
)
def test_devices_that_are_gone_end_the_run_instead_of_being_left_out(made, error):
    world, asked = World(), list[ReleaseRequest]()
    with pytest.raises(error):
        world.run(world.agree(), broker=lambda _party: Broker(asked, bytes(32), False), devices=made)
    assert asked == []


# --- endorsements -----------------------------------------------------------------------------------------------------

MORE = Endorsement(CERTIFICATE, pki_amd.ark("genoa"))


def test_without_a_provider_the_platforms_own_documents_are_handed_out():
    platform = hardware()
    assert platform.endorsements() == Endorsements()
    platform.produce(DATA)
    assert platform.endorsements() == Endorsements()


def test_a_provider_is_asked_for_the_processor_and_for_each_device_and_nothing_comes_twice():
    asked: list[tuple[str, int, Endorsements]] = []

    def gather(evidence: Evidence, at: int, own: Endorsements) -> Endorsements:
        asked.append((evidence.platform, at, own))
        return Endorsements((MORE, Endorsement(CERTIFICATE, evidence.data[:8])))

    platform = hardware(devices=GPUS, gather=gather, clock=lambda: 7.9)
    platform.produce(DATA)
    assert platform.devices is not None
    platform.devices(DATA)
    documents = platform.endorsements().documents
    assert [(name, at) for name, at, _ in asked] == [("sev_snp", 7), ("nvidia_cc", 7), ("nvidia_cc", 7)]
    assert len(documents) == len(set(documents)) == 3
    platform.produce(DATA)
    platform.endorsements()
    assert len(asked) == 4  # of a new question, nothing of the old


def test_what_a_thread_asked_for_is_endorsed_for_that_thread():
    seen: list[Evidence] = []
    platform = hardware(gather=lambda evidence, _at, own: seen.append(evidence) or own)
    mine = platform.produce(DATA)
    other = threading.Thread(target=lambda: (platform.produce(bytes(64)), platform.endorsements()))
    other.start()
    other.join()
    platform.endorsements()
    assert seen[1] == mine != seen[0]


def test_endorsements_that_cannot_be_had_are_left_out_and_the_rest_handed_out(caplog):
    def gather(evidence: Evidence, _at: int, _own: Endorsements) -> Endorsements:
        if evidence.platform == "sev_snp":
            raise Unreachable("nobody answers")
        return Endorsements((MORE,))

    platform = hardware(devices=GPUS, gather=gather)
    platform.produce(DATA)
    platform.devices(DATA)
    assert platform.endorsements() == Endorsements((MORE,))
    assert "app.unreachable: nobody answers" in caplog.text


def test_no_more_endorsements_than_a_report_can_carry_are_handed_out():
    def gather(evidence: Evidence, _at: int, _own: Endorsements) -> Endorsements:
        return Endorsements(tuple(Endorsement(CERTIFICATE, evidence.data[-8:] + bytes([n])) for n in range(40)))

    platform = hardware(devices=GPUS, gather=gather)
    platform.produce(DATA)
    platform.devices(DATA)
    assert len(platform.endorsements().documents) == 64


# --- the process ------------------------------------------------------------------------------------------------------


class Served:
    """What the enclave's process would serve, in place of a server."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, machine: Machine) -> None:
        self.runner: Any = None
        self.until_eof: bool | None = None
        monkeypatch.setattr(platforms, "Machine", lambda: machine)
        monkeypatch.setattr(server, "enclave", self._enclave)
        monkeypatch.setattr(server, "serve", self._serve)
        monkeypatch.setattr(server, "listen", lambda *_: None)
        monkeypatch.setattr(server.Standby, "prepare", lambda _self: None)

    def _enclave(self, runner: Any) -> None:
        self.runner = runner

    def _serve(self, *_: Any, until_eof: bool, **__: Any) -> None:
        self.until_eof = until_eof

    def __call__(self, *words: str) -> Served:
        arguments = ["enclave", "--exchange", "http://127.0.0.1:1", "--host", "127.0.0.1", "--port", "0", *words]
        before, sys.argv = sys.argv, arguments
        try:
            server.main()
        finally:
            sys.argv = before
        return self


def test_an_enclave_on_hardware_asks_its_platform_itself(place, monkeypatch, tmp_path):
    place.kernel(FakeTsm("sev_guest", snp))
    place.file("dev/nvidiactl")
    machine = replace(place.machine, nvml=lambda: FakeNvml(gpu()))
    served = Served(monkeypatch, machine)("--platform", "sev_snp", "--cache", str(tmp_path / "cache"), "--offline")
    runner = served.runner
    assert runner._platform.produce(DATA).data == snp(DATA, 0)
    assert [device.platform for device in runner._devices(DATA)] == ["nvidia_cc"]
    assert any(b"AMD" in d.data or d.media_type == CERTIFICATE for d in runner._platform.endorsements().documents)
    assert served.until_eof is False
    again = Served(monkeypatch, place.machine)
    again("--platform", "sev_snp", "--vmpl", "1", "--cache", str(tmp_path / "cache"), "--offline", "--until-eof")
    assert again.runner._platform.produce(DATA).data == snp(DATA, 1)
    assert again.runner._devices is None
    assert again.until_eof is True


def test_what_cannot_be_had_offline_is_said_in_the_log(place, monkeypatch, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    place.kernel(FakeTsm("sev_guest", snp))
    Served(monkeypatch, place.machine)("--platform", "sev_snp", "--cache", str(tmp_path / "cache"), "--offline")
    assert "endorsements: " in caplog.text


def test_a_bundle_of_endorsements_is_handed_out(place, monkeypatch, tmp_path):
    place.kernel(FakeTsm("sev_guest", snp))
    path = tmp_path / "ark.der"
    path.write_bytes(pki_amd.ark("genoa"))
    words = ["--platform", "sev_snp", "--cache", str(tmp_path / "cache"), "--offline", "--endorsements", str(path)]
    runner = Served(monkeypatch, place.machine)(*words).runner
    runner._platform.produce(DATA)
    assert pki_amd.ark("genoa") in [d.data for d in runner._platform.endorsements().documents]


def test_an_enclave_whose_platform_gives_no_evidence_does_not_start(place, monkeypatch, tmp_path):
    words = ["--cache", str(tmp_path / "cache"), "--offline"]
    with pytest.raises(SystemExit, match=r"^enclave.platform_failed: .*cannot be opened"):
        Served(monkeypatch, place.machine)("--platform", "sev_snp", *words)
    place.kernel(FakeTsm("tdx_guest"))
    with pytest.raises(SystemExit, match="not that of sev_snp"):
        Served(monkeypatch, place.machine)("--platform", "sev_snp", *words)
    place.file("dev/nvidiactl")
    broken = FakeNvml(gpu(), refuse="nvmlDeviceGetConfComputeGpuCertificate")
    with pytest.raises(SystemExit, match="NVIDIA's library refused"):
        Served(monkeypatch, replace(place.machine, nvml=lambda: broken))("--platform", "tdx", *words)


@pytest.mark.parametrize(
    "words", [[], ["--platform", "simulated"], ["--platform", "sev_snp", "--platform-fd", "3"], ["--platform", "nope"]]
)
def test_an_enclaves_process_is_told_its_platform_and_simulated_is_none_that_it_can_ask(place, monkeypatch, words, capsys):
    with pytest.raises(SystemExit) as caught:
        Served(monkeypatch, place.machine)(*words)
    assert caught.value.code == 2
    assert "usage" in capsys.readouterr().err


BECOME = """
import json, sys
from dataclasses import replace
from pathlib import Path
from strongroom.app.enclave import hardware
from strongroom.app.enclave.measure import Installation
package, images = map(Path, sys.argv[1:])
here = Installation.here()
wanted = {"cryptography", "cffi", "pycparser", "rfc8785", "typing-extensions"}
small = replace(here, package=package, distributions=tuple(d for d in here.distributions if d.name in wanted))
arguments = ["--platform", "tdx", "--port", "0"]
hardware.serve(arguments, images=images, warm=["strongroom.wire"], beside=["rfc8785"], installation=small)
"""

BECAME = """
import json, os, sys
import rfc8785
print(json.dumps({
    "argv": sys.argv, "environment": sorted(os.environ), "flags": [sys.flags.isolated, sys.flags.no_site],
    "path": sys.path, "pid": os.getpid(), "stdin": sys.stdin.read(), "fds": sorted(os.listdir("/proc/self/fd"), key=int),
}), flush=True)
"""


@pytest.fixture
def package(tmp_path) -> Path:
    """A copy of the package whose enclave says how it was started."""
    import shutil

    import strongroom

    made = tmp_path / "installed/strongroom"
    shutil.copytree(Path(strongroom.__file__).parent, made, ignore=shutil.ignore_patterns("__pycache__"))
    (made / "app/enclave/server.py").write_text(BECAME)
    return made


def test_on_hardware_the_process_becomes_the_enclave_with_nothing_else_in_it(package, tmp_path):
    images = tmp_path / "images"
    command = [sys.executable, "-c", BECOME, str(package), str(images)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    said = json.loads(process.communicate("from outside")[0])
    assert process.returncode == 0
    (image,) = images.glob("[!.]*")
    assert said["argv"][1:] == ["--platform", "tdx", "--port", "0"]
    assert said["pid"] == process.pid
    assert said["flags"] == [1, 1]
    assert set(said["environment"]) <= {"LANG", "PATH", "LC_CTYPE"}
    assert said["path"][-1] == str(image / "packages")
    assert said["stdin"] == "from outside"
    assert (image / "warm").exists()


def test_an_image_is_marked_as_in_use_by_what_the_process_became(package, tmp_path):
    (package / "app/enclave/server.py").write_text("import sys\nprint('up', flush=True)\nsys.stdin.read()\n")
    images = tmp_path / "images"
    command = [sys.executable, "-c", BECOME, str(package), str(images)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    (image,) = images.glob("[!.]*")
    descriptor = os.open(image, os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    process.communicate("")
    assert process.returncode == 0
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def bare(place, monkeypatch) -> Place:
    """This machine, as far as the command looks, is the test's."""
    monkeypatch.setattr(platforms, "Machine", lambda: place.machine)
    return place


def test_the_command_refuses_to_fall_back_to_simulated(bare, tmp_path):
    said = call("enclave", "--home", str(tmp_path), "--exchange-url", "http://127.0.0.1:1")
    assert said.status == 1
    assert "enclave.no_platform" in said.err
    assert "protects nothing" in said.err
    assert not (tmp_path / "enclave").exists()


def test_the_command_refuses_a_platform_that_is_not_here_and_one_that_is_none(bare, tmp_path):
    words = ["enclave", "--home", str(tmp_path), "--exchange-url", "http://127.0.0.1:1", "--platform"]
    assert "tdx is not here" in call(*words, "tdx").err
    nope = call(*words, "nope")
    assert "app.usage: no platform is called 'nope'" in nope.err
    assert "simulated, azure_snp" in nope.err


@pytest.mark.parametrize("words", [["--vmpl", "0"], ["--endorsements", "x"], ["--offline"]])
def test_what_is_for_hardware_is_not_silently_ignored_on_the_simulated_platform(bare, tmp_path, words):
    said = call(
        "enclave", "--home", str(tmp_path), "--exchange-url", "http://127.0.0.1:1", "--platform", "simulated", *words
    )
    assert "app.usage" in said.err
    assert not (tmp_path / "enclave").exists()


class Became(Exception):
    pass


def test_the_command_becomes_an_enclave_on_what_it_finds(bare, tmp_path, monkeypatch, capsys):
    from strongroom.app.enclave import hardware as module

    bare.kernel(FakeTsm("sev_guest", snp))
    bare.file("dev/nvidiactl")
    bare.machine = replace(bare.machine, nvml=lambda: FakeNvml(gpu()))
    became: list[tuple[list[str], dict[str, Any]]] = []

    def serve(arguments: list[str], **named: Any) -> None:
        became.append((arguments, named))
        raise Became

    monkeypatch.setattr(module, "serve", serve)
    bundle = tmp_path / "bundle.json"
    words = ["--offline", "--vmpl", "1", "--endorsements", str(bundle), "--announce", "--port", "8471"]
    with pytest.raises(Became):
        _call("enclave", "--home", str(tmp_path), "--exchange-url", "http://127.0.0.1:1", *words)
    arguments, named = became[0]
    assert arguments == [
        *("--exchange", "http://127.0.0.1:1", "--host", "127.0.0.1", "--port", "8471"),
        *("--serve", str(tmp_path), "--anonymous-here"),  # on loopback, where nobody needs a key
        *("--environments", str(tmp_path / "enclave/environments"), "--wheels", str(tmp_path / "enclave/wheels")),
        *("--platform", "sev_snp"),
        *("--cache", str(tmp_path / "enclave/endorsements"), "--offline", "--endorsements", str(bundle)),
        *("--vmpl", "1", "--until-eof"),
    ]
    assert named["beside"] == ["nvidia-ml-py"]
    assert "strongroom.programs.evaluate" in named["warm"]
    err = capsys.readouterr().err
    assert "platform: sev_snp" in err
    assert "1 NVIDIA GPU(s) in confidential mode" in err


def _call(*words: str) -> None:
    from strongroom.app.cli import parser_of
    from strongroom.app.cli.screen import Screen

    args = parser_of(words[0]).parse_args(words[1:])
    roles.serve_enclave(args, Screen())


def test_whoever_starts_everything_on_one_machine_names_the_simulated_platform(tmp_path, monkeypatch):
    fleet = Fleet(Home(tmp_path))
    spawned: list[list[str]] = []
    monkeypatch.setattr(fleet, "_spawn", lambda _name, arguments: spawned.append(list(arguments)))
    fleet.start_enclave()
    assert spawned[0][:3] == ["enclave", "--platform", "simulated"]


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_names_every_platform_and_what_is_looked_for():
    text = DOCS.read_text()
    for name in (*platforms.NAMES, "nvidia_cc", "simulated"):
        assert f"`{name}`" in text
    for path in ("/var/run/dstack.sock", "/dev/nsm", "/dev/sev-guest", f"/{TSM}", "0x01400001", "--platform simulated"):
        assert path in text
