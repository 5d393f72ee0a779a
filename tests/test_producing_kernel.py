"""Evidence of the kernel's: configfs-tsm, /dev/sev-guest, /dev/nsm. What others write meanwhile, what is busy, or lies."""

from __future__ import annotations

import base64
import errno
import json
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pki_amd
import pki_intel
import pki_nitro
from fake_devices import FakeNsm, FakeSevGuest
from fake_tsm import DiskTsm, FakeTsm, Faults, snp, tdx
from real import read, real
from strongroom.app.enclave.platforms import device, nitro, sev_guest, tsm
from strongroom.app.enclave.platforms.nitro import Nsm
from strongroom.app.enclave.platforms.sev_guest import SevGuest
from strongroom.app.enclave.platforms.tsm import Kernel, Tsm
from strongroom.attest.endorsements import CERTIFICATE, CRL, certificates
from strongroom.attest.evidence import Endorsement, Endorsements, Roots
from strongroom.attest.registry import verifier
from strongroom.attest.snp_report import parse
from strongroom.errors import PlatformFailed
from strongroom.transcript import Transcript

DATA = bytes(range(64))
ROOT = Path("/sys/kernel/config/tsm/report")
BUSY, AGAIN, INTERRUPTED, LATE = errno.EBUSY, errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT


def verified(evidence, endorsements, roots, at):
    """What the platform's own verifier finds: the fakes sign under roots of the tests' own."""
    module = verifier(evidence.platform)
    return module.verify(evidence, endorsements, roots=roots, at=at, transcript=Transcript(module.STEPS))


def table(*documents: Endorsement) -> bytes:
    """AMD's table of certificates (document 56421, MSG_REPORT_REQ): VCEK, ASK, ARK."""
    names = ("63da758de6644564adc5f4b93be8accd", "4ab7b379bbac4fe4a02f05aef327c782", "c0b406a4a803495297433fb6014cd0ae")
    ders = [d.data for d in documents if d.media_type == CERTIFICATE]
    at, head, body = 24 * (len(ders) + 1), b"", b""
    for name, der in zip(names, ders, strict=False):
        head += bytes.fromhex(name) + (at + len(body)).to_bytes(4, "little") + len(der).to_bytes(4, "little")
        body += der
    return head + bytes(24) + body


TABLE = table(*pki_amd.documents())


class Asked(list):
    """Pauses that were made, none of them waited for."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def ask(kernel: FakeTsm, platform: str = "tdx", **named) -> Tsm:
    return Tsm(platform, files=kernel, pause=named.pop("pause", Asked()), **named)


# --- configfs-tsm -----------------------------------------------------------------------------------------------------


def test_a_tdx_quote_of_these_bytes_verifies():
    kernel = FakeTsm()
    platform = ask(kernel)
    evidence = platform.produce(DATA)
    world = pki_intel.World()
    assert verified(evidence, world.endorsements(), world.roots(), pki_intel.AT).binds(DATA)
    assert platform.endorsements() == Endorsements()
    assert kernel.items == {}
    assert [path.parent for path in kernel.made] == [ROOT]


def test_an_snp_report_of_these_bytes_verifies_with_the_certificates_that_came_with_it():
    platform = ask(FakeTsm("sev_guest", snp, TABLE), "sev_snp")
    assert platform.endorsements() == Endorsements()
    evidence = platform.produce(DATA)
    crl = next(d for d in pki_amd.documents() if d.media_type == CRL)
    found = Endorsements((*platform.endorsements().documents, crl))
    assert verified(evidence, found, pki_amd.ROOTS, pki_amd.AT).binds(DATA)


@pytest.mark.parametrize("level", [0, 1, 3])
def test_the_privilege_level_is_asked_for_and_counted(level):
    kernel = FakeTsm("sev_guest", snp)
    assert parse(ask(kernel, "sev_snp", privlevel=level).produce(DATA).data).vmpl == level


@pytest.mark.parametrize("level", [-1, 4])
def test_a_privilege_level_that_there_is_not_is_refused(level):
    with pytest.raises(PlatformFailed, match="privilege level"):
        Tsm("sev_snp", privlevel=level)
    with pytest.raises(PlatformFailed, match="privilege level"):
        SevGuest(privlevel=level)


@pytest.mark.parametrize("size", [0, 32, 63, 65])
@pytest.mark.parametrize(
    "make", [lambda: ask(FakeTsm()), lambda: SevGuest(ioctl=FakeSevGuest()), lambda: Nsm(ioctl=FakeNsm())]
)
def test_64_bytes_are_signed_and_nothing_else(make, size):
    with pytest.raises(PlatformFailed, match="64 bytes"):
        make().produce(bytes(size))


@pytest.mark.parametrize("number", [BUSY, AGAIN, INTERRUPTED, LATE])
@pytest.mark.parametrize(
    ("operation", "name"),
    [
        ("mkdir", ""),
        ("read", "provider"),
        ("read", "generation"),
        ("write", "inblob"),
        ("read", "outblob"),
        ("read", "auxblob"),
    ],
)
def test_a_kernel_that_is_busy_is_asked_again_in_another_folder(operation, name, number):
    kernel = FakeTsm("sev_guest", snp, TABLE, before=Faults((operation, name, number)))
    pause = Asked()
    assert ask(kernel, "sev_snp", pause=pause).produce(DATA).platform == "sev_snp"
    assert len(pause) == 1
    assert len(set(kernel.made)) == len(kernel.made)
    assert kernel.items == {}


def test_a_kernel_that_stays_busy_is_given_up_and_told_of():
    kernel = FakeTsm(before=Faults(*[("read", "outblob", BUSY)] * 99))
    pause = Asked()
    with pytest.raises(PlatformFailed, match=f"in {tsm.TRIES} tries: {os.strerror(BUSY)}"):
        ask(kernel, pause=pause).produce(DATA)
    assert pause == [*tsm.PAUSES_S]
    assert kernel.items == {}


def test_a_folder_that_is_there_already_is_left_alone_and_another_is_made():
    kernel = FakeTsm()
    taken = ROOT / f"strongroom-{bytes(16).hex()}"
    kernel.mkdir(taken)
    names = iter([bytes(16), bytes(16), b"\x01" * 16])
    ask(kernel, entropy=lambda _n: next(names)).produce(DATA)
    assert list(kernel.items) == [taken]


def swap(times: int, name: str = "inblob", data: bytes = bytes(64)):
    """Somebody else writes into the folder between our write and our read, some times."""
    left = [times]

    def before(operation, of, kernel, folder):
        if operation == "read" and of == "outblob" and left[0]:
            left[0] -= 1
            kernel.take(folder, name, data)

    return before


@pytest.mark.parametrize(("name", "data"), [("inblob", bytes(64)), ("inblob", DATA), ("privlevel", b"0")])
def test_a_question_swapped_between_write_and_read_is_noticed_by_the_generation(name, data):
    kernel = FakeTsm(before=swap(2, name, data))
    pause = Asked()
    world = pki_intel.World()
    evidence = ask(kernel, pause=pause).produce(DATA)
    assert verified(evidence, world.endorsements(), world.roots(), pki_intel.AT).binds(DATA)
    assert len(pause) == 2
    with pytest.raises(PlatformFailed, match="2 writes were counted where 1 were made"):
        ask(FakeTsm(before=swap(99, name, data))).produce(DATA)


def test_a_write_that_the_kernel_dropped_is_noticed_by_the_generation():
    kernel = FakeTsm()
    kernel.write = lambda path, data: None  # and the folder holds the question of another
    kernel.mkdir = lambda path: (FakeTsm.mkdir(kernel, path), setattr(kernel.items[path], "inblob", bytes(64)))
    with pytest.raises(PlatformFailed, match="0 writes were counted where 1 were made"):
        ask(kernel).produce(DATA)


def test_a_question_that_the_kernel_answers_with_another_is_refused():
    with pytest.raises(PlatformFailed, match="not of the bytes that were to be signed"):
        ask(FakeTsm(sign=lambda _data, level: tdx(bytes(64), level))).produce(DATA)


@pytest.mark.parametrize(
    ("provider", "expected"),
    [("sev_guest", "tdx"), ("tdx_guest", "sev_snp"), ("arm_cca_guest", "tdx"), ("tdx_guest2", "tdx"), ("TDX_GUEST", "tdx")],
)
def test_another_provider_is_refused_before_anything_is_asked(provider, expected):
    kernel = FakeTsm(provider)
    with pytest.raises(PlatformFailed, match=f"'{provider}', which is not that of {expected}"):
        ask(kernel, expected).produce(DATA)
    assert kernel.items == {}


@pytest.mark.parametrize("provider", ["", "x" * 64, "two\nlines", "\x00"])
def test_a_provider_that_is_no_line_of_text_is_refused(provider):
    with pytest.raises(PlatformFailed, match="not a line of text"):
        ask(FakeTsm(provider)).produce(DATA)


@pytest.mark.parametrize("text", [b"", b"-1\n", b"one\n", b"1.5\n", "\u0661\n".encode(), b"9" * 65])
def test_a_generation_that_is_no_number_is_refused(text):
    kernel = FakeTsm()
    kernel.read = lambda path, most: text if path.name == "generation" else FakeTsm.read(kernel, path, most)
    with pytest.raises(PlatformFailed, match=r"generation is not a (number|line)"):
        ask(kernel).produce(DATA)


@pytest.mark.parametrize(
    ("provider", "platform", "size"),
    [
        ("sev_guest", "sev_snp", 64),
        ("sev_guest", "sev_snp", 1183),
        ("sev_guest", "sev_snp", 1185),
        ("sev_guest", "sev_snp", 4000),
    ]
    + [("tdx_guest", "tdx", size) for size in (64, 1023, (32 << 10) + 1, 1 << 20)],
)
def test_an_answer_that_is_too_short_or_too_long_is_refused(provider, platform, size):
    kernel = FakeTsm(provider, lambda data, _level: data.ljust(size, b"\0"))
    with pytest.raises(PlatformFailed, match="bytes long"):
        ask(kernel, platform).produce(DATA)
    assert kernel.items == {}


def test_no_answer_at_all_is_refused():
    with pytest.raises(PlatformFailed, match="bytes long"):
        ask(FakeTsm(sign=lambda *_: b"")).produce(DATA)


@pytest.mark.parametrize("number", [errno.ENXIO, errno.ENOENT, errno.EIO, errno.EINVAL, errno.EACCES])
@pytest.mark.parametrize(
    ("operation", "name"), [("mkdir", ""), ("write", "inblob"), ("read", "outblob"), ("read", "generation")]
)
def test_what_the_kernel_will_not_do_is_said_at_once(operation, name, number):
    kernel = FakeTsm(before=Faults((operation, name, number)))
    pause = Asked()
    with pytest.raises(PlatformFailed, match=os.strerror(number)) as caught:
        ask(kernel, pause=pause).produce(DATA)
    assert pause == []
    assert kernel.items == {}
    assert ("root" in caught.value.hint) is (number == errno.EACCES)


@pytest.mark.parametrize("auxblob", [None, b"", b"\x01" * 24, bytes(24) + b"junk", bytes((64 << 10) + 1)])
def test_certificates_that_cannot_be_read_are_left_out_and_the_evidence_stands(auxblob):
    platform = ask(FakeTsm("sev_guest", snp, auxblob), "sev_snp")
    assert platform.produce(DATA).platform == "sev_snp"
    assert platform.endorsements() == Endorsements()


def test_a_folder_that_will_not_go_away_is_told_of_and_the_evidence_stands(caplog):
    kernel = FakeTsm(before=Faults(("rmdir", "", errno.EPERM)))
    ask(kernel).produce(DATA)
    assert len(kernel.items) == 1
    assert "could not be removed" in caplog.text


def test_a_folder_that_is_busy_is_removed_later():
    kernel = FakeTsm(before=Faults(*[("rmdir", "", BUSY)] * 3))
    ask(kernel).produce(DATA)
    assert kernel.items == {}


def test_a_folder_that_stays_busy_is_told_of(caplog):
    kernel = FakeTsm(before=Faults(*[("rmdir", "", BUSY)] * 99))
    ask(kernel).produce(DATA)
    assert "could not be removed" in caplog.text


@pytest.mark.parametrize("provider", [None, "sev_guest"])
def test_the_provider_is_named_by_the_kernel_and_its_folder_removed(provider):
    kernel = FakeTsm(provider)
    if provider is None:
        with pytest.raises(OSError, match=os.strerror(errno.ENXIO)):
            tsm.provider_of(files=kernel)
    else:
        assert tsm.provider_of(files=kernel) == "sev_guest"
    assert kernel.items == {}


def everybody(platform) -> None:
    """Several threads ask at once, again and again: each is answered for its own bytes."""
    barrier = threading.Barrier(6)

    def one(n: int) -> None:
        barrier.wait(10)
        for again in range(4):
            data = bytes([n, again]).ljust(64, b"\x05")
            evidence = platform.produce(data)
            assert data in evidence.data

    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(one, n) for n in range(6)]:
            done.result()


def test_several_at_once_get_each_their_own():
    kernel = FakeTsm()
    everybody(ask(kernel))
    assert len(kernel.made) == len(set(kernel.made)) == 24
    assert kernel.items == {}


# --- the kernel's files, on disk --------------------------------------------------------------------------------------


@pytest.fixture
def disk():
    kernels: list[DiskTsm] = []

    def make(*arguments) -> DiskTsm:
        kernels.append(DiskTsm(*arguments))
        return kernels[-1]

    yield make
    for kernel in kernels:
        kernel.end()


def test_the_same_through_real_files_that_a_thread_answers(disk, tmp_path):
    platform = Tsm("sev_snp", root=tmp_path, files=disk("sev_guest", snp, TABLE))
    evidence = platform.produce(DATA)
    assert evidence.data == snp(DATA, 0)
    assert len(platform.endorsements().documents) == 3
    assert list(tmp_path.iterdir()) == []


def test_several_at_once_through_real_files_get_each_their_own(disk, tmp_path):
    everybody(Tsm("tdx", root=tmp_path, files=disk("tdx_guest", lambda data, _level: data.ljust(1024, b"\0"))))
    assert list(tmp_path.iterdir()) == []


def test_files_are_read_no_further_than_they_may_be_long(tmp_path):
    (tmp_path / "long").write_bytes(bytes(100_000))
    (tmp_path / "short").write_bytes(b"12")
    assert len(Kernel().read(tmp_path / "long", 1000)) == 1001
    assert Kernel().read(tmp_path / "short", 1000) == b"12"
    Kernel().mkdir(tmp_path / "made")
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) & 0o077 == 0
    Kernel().rmdir(tmp_path / "made")
    with pytest.raises(FileNotFoundError):
        Kernel().write(tmp_path / "nothing", b"x")


def test_a_value_that_the_kernel_takes_a_part_of_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "inblob").touch()
    monkeypatch.setattr(tsm.os, "write", lambda _descriptor, data: len(data) - 1)
    with pytest.raises(OSError, match="only a part"):
        Kernel().write(tmp_path / "inblob", DATA)


@real
def test_the_real_genoa_machine_is_replayed(disk, tmp_path):
    said = json.loads(read("configfs_tsm/genoa_tsm_report.json"))
    outblob, auxblob = (base64.urlsafe_b64decode(said[name] + "==") for name in ("outblob", "auxblob"))
    data = outblob[0x50:0x90]  # what was asked on the day
    assert said["provider"] == "sev_guest\n"
    in_memory = ask(FakeTsm("sev_guest", lambda *_: outblob, auxblob), "sev_snp")
    on_disk = Tsm("sev_snp", root=tmp_path, files=disk("sev_guest", lambda *_: outblob, auxblob))
    crl = Endorsement(CRL, _der_of(read("snp/kds_genoa.crl.pem")))
    for platform in (in_memory, on_disk):
        evidence = platform.produce(data)
        found = platform.endorsements()
        assert {c.common_name for c in certificates(found)} == {"ARK-Genoa", "SEV-Genoa", "SEV-VCEK"}
        ark = next(c for c in certificates(found) if c.common_name == "ARK-Genoa")
        at = (
            max(certificate.not_before for certificate in certificates(found)) + 60
        )  # the list of that day still counts then
        roots = Roots(certificates=(ark.key_digest,))
        result = verified(evidence, Endorsements((*found.documents, crl)), roots, at)
        assert result.binds(data)
        with pytest.raises(PlatformFailed, match="not of the bytes"):
            platform.produce(DATA)


def _der_of(pem: bytes) -> bytes:
    return base64.b64decode(b"".join(line for line in pem.splitlines() if b"-" not in line))


# --- /dev/sev-guest ---------------------------------------------------------------------------------------------------


@pytest.fixture
def node(tmp_path) -> Path:
    path = tmp_path / "device"
    path.touch()
    return path


def sev(node: Path, fake: FakeSevGuest, **named) -> SevGuest:
    return SevGuest(node, ioctl=fake, pause=Asked(), **named)


def test_the_requests_are_numbered_and_laid_out_as_the_kernels():
    assert (sev_guest.GET_REPORT, sev_guest.GET_EXT_REPORT, nitro.REQUEST) == (0xC0205300, 0xC0205302, 0xC0200A00)
    sizes = {
        sev_guest.Message: 32,
        sev_guest.ReportRequest: 96,
        sev_guest.ExtendedRequest: 112,
        sev_guest.ReportAnswer: 4000,
    }
    assert {of: device.ctypes.sizeof(of) for of in sizes} == sizes


@pytest.mark.parametrize("level", [0, 2])
def test_the_older_device_gives_a_report_that_verifies_with_its_certificates(node, level):
    platform = sev(node, FakeSevGuest(TABLE), privlevel=level)
    evidence = platform.produce(DATA)
    crl = next(d for d in pki_amd.documents() if d.media_type == CRL)
    result = verified(evidence, Endorsements((*platform.endorsements().documents, crl)), pki_amd.ROOTS, pki_amd.AT)
    assert result.binds(DATA)
    assert parse(evidence.data).vmpl == level


@pytest.mark.parametrize(
    "fake", [FakeSevGuest(bytes(20 << 10)), FakeSevGuest(errors=[(sev_guest.GET_EXT_REPORT, errno.ENOTTY)])]
)
def test_a_host_without_certificates_or_with_too_many_is_asked_for_the_report_alone(node, fake):
    platform = sev(node, fake)
    assert platform.produce(DATA).data == snp(DATA, 0)
    assert platform.endorsements() == Endorsements()
    assert fake.asked == [sev_guest.GET_EXT_REPORT, sev_guest.GET_REPORT]


def test_a_host_with_an_empty_table_is_not_asked_twice(node):
    fake = FakeSevGuest()
    platform = sev(node, fake)
    platform.produce(DATA)
    assert platform.endorsements() == Endorsements()
    assert fake.asked == [sev_guest.GET_EXT_REPORT]


@pytest.mark.parametrize("number", [BUSY, AGAIN, INTERRUPTED])
def test_a_busy_device_is_asked_again(node, number):
    fake = FakeSevGuest(TABLE, errors=[(sev_guest.GET_EXT_REPORT, number)] * 3)
    assert sev(node, fake).produce(DATA).data == snp(DATA, 0)
    assert fake.asked == [sev_guest.GET_EXT_REPORT] * 4


@pytest.mark.parametrize(
    ("fake", "why"),
    [
        (FakeSevGuest(status=0x16), "refused the report with status 0x16"),
        (FakeSevGuest(size=1183), "1183 bytes, not 1184"),
        (FakeSevGuest(size=0), "0 bytes"),
        (FakeSevGuest(size=4096), "4096 bytes"),
        (FakeSevGuest(sign=lambda _data, vmpl: snp(bytes(64), vmpl)), "not of the bytes"),
        (
            FakeSevGuest(errors=[(sev_guest.GET_EXT_REPORT, errno.EIO), (sev_guest.GET_REPORT, errno.EIO)]),
            os.strerror(errno.EIO),
        ),
        (
            FakeSevGuest(errors=[(r, BUSY) for r in (sev_guest.GET_EXT_REPORT, sev_guest.GET_REPORT) for _ in range(8)]),
            "busy",
        ),
    ],
)
def test_a_device_that_gives_no_usable_report_is_refused(node, fake, why):
    with pytest.raises(PlatformFailed, match=f"(?i){why}"):
        sev(node, fake).produce(DATA)


def test_a_device_that_is_not_there_is_refused(tmp_path):
    for platform in (SevGuest(tmp_path / "no", ioctl=FakeSevGuest()), Nsm(tmp_path / "no", ioctl=FakeNsm())):
        with pytest.raises(PlatformFailed, match="cannot be opened"):
            platform.produce(DATA)


def test_a_file_that_is_no_device_is_refused_by_the_real_kernel(node):
    for platform in (SevGuest(node), Nsm(node)):
        with pytest.raises(PlatformFailed, match="gives no evidence"):
            platform.produce(DATA)


# --- /dev/nsm ---------------------------------------------------------------------------------------------------------


def nsm(node: Path, fake: FakeNsm) -> Nsm:
    return Nsm(node, ioctl=fake, pause=Asked())


def test_a_nitro_document_of_these_bytes_verifies(node):
    fake = FakeNsm()
    platform = nsm(node, fake)
    evidence = platform.produce(DATA)
    assert verified(evidence, platform.endorsements(), pki_nitro.World().roots, pki_nitro.AT + 2).binds(DATA)
    assert fake.asked == [{"Attestation": {"nonce": None, "public_key": None, "user_data": DATA}}]


def test_a_busy_module_is_asked_again(node):
    assert nsm(node, FakeNsm(errors=[BUSY, INTERRUPTED])).produce(DATA).platform == "nitro"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (cbor2.dumps({"Error": "InputTooLarge"}), "refused: 'InputTooLarge'"),
        (cbor2.dumps({"Error": "x" * 5000}), "refused: 'x{64}'$"),
        (cbor2.dumps({"Error": 5}), "no attestation"),
        (cbor2.dumps("GetRandom"), "no attestation"),
        (cbor2.dumps([]), "no attestation"),
        (cbor2.dumps({"Attestation": {}}), "no attestation"),
        (cbor2.dumps({"Attestation": {"document": b""}}), "no attestation"),
        (cbor2.dumps({"Attestation": {"document": "text"}}), "no attestation"),
        (cbor2.dumps({"Attestation": {"document": DATA}, "more": 1}), "no attestation"),
        (cbor2.dumps({"Attestation": {"document": DATA}}) + b"\0", "no attestation"),
        (cbor2.dumps({"Attestation": {"document": bytes(64)}}), "not of the bytes"),
        (b"\xff", "not CBOR"),
        (b"\xa1", "not CBOR"),
        (b"\x81" * 5000, "not CBOR"),
    ],
)
def test_an_answer_of_the_module_that_is_none_is_refused(node, answer, why):
    with pytest.raises(PlatformFailed, match=why):
        nsm(node, FakeNsm(answer)).produce(DATA)


@given(st.binary(min_size=1, max_size=200))
def test_whatever_the_module_answers_nothing_else_escapes(tmp_path_factory, answer):
    path = tmp_path_factory.getbasetemp() / "nsm"
    path.touch()
    with pytest.raises(PlatformFailed):
        nsm(path, FakeNsm(answer)).produce(DATA)


@pytest.mark.parametrize("length", [0, 0x3001, 1 << 40])
def test_an_answer_of_an_impossible_length_is_refused(node, length):
    with pytest.raises(PlatformFailed, match="answered"):
        nsm(node, FakeNsm(length=length)).produce(DATA)
