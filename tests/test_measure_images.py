"""What images of one's own will measure: against published answers, reckonings of our own, and real evidence."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import sys
import uuid
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_der_x509_certificate
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sevsnpmeasure.gctx import GCTX
from sevsnpmeasure.vmm_types import VMMType

import pki_dstack
import pki_nitro
from evidence_files import machine
from real import read, real
from stage import Said, call
from strongroom.app.images import dstack, expected, nitro, snp
from strongroom.attest import dstack_log, tdx
from strongroom.attest.appraisal_policy import AppraisalPolicy
from strongroom.attest.evidence import Measurement
from strongroom.enclave.sandbox import program_digest
from strongroom.errors import NotMeasurable, leaves
from strongroom.programs import NAMES

PAGE = 4096
# What OVMF asks for (edk2, OvmfPkg): pages to be zeroed, secrets, CPUID, zeroed again; and where further processors start.
SECTIONS = ((0x800000, 0x9000, 1), (0x80A000, 0x3000, 1), (0x80D000, PAGE, 2), (0x80E000, PAGE, 3), (0x80F000, 0x11000, 1))
RESET = 0x80B004
DIRECT_BOOT = (*SECTIONS[:4], (0x810000, PAGE, 0x10), (0x811000, 0xF000, 1))
TABLE = 0x810C00
FOOTER, HASHES, RESET_BLOCK, METADATA = (
    "96b582de-1fb2-45f7-baea-a366c55a082d",
    "7255371f-3a3b-4b04-927b-1da6efa8d454",
    "00f771de-1a7e-4fcb-890e-68c77e2fb44e",
    "dc886566-984a-4798-a75e-5585a7bf67cc",
)


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "140")
    for name in ("STRONGROOM_HOME", "STRONGROOM_PARTY", "STRONGROOM_DEBUG"):
        monkeypatch.delenv(name, raising=False)


def put(name: str, data: bytes) -> Path:
    Path(name).write_bytes(data)
    return Path(name)


def error(said: Said) -> tuple[str, str]:
    """The code and the message of an error: a line, and a hint under it."""
    assert said.status in {1, 2}
    *_, first, hint = said.err.splitlines()
    assert hint.strip()
    code, _, message = first.removeprefix("strongroom: ").partition(": ")
    assert code in leaves()
    return code, message


# --- SEV-SNP --------------------------------------------------------------------------------------------------------


def firmware(
    sections: Sequence[tuple[int, int, int]] = SECTIONS,
    *,
    reset: int | None = RESET,
    table: int | None = None,
    pages: int = 4,
    signature: bytes = b"ASEV",
    version: int = 1,
    footer: str = FOOTER,
    named: int | None = None,
) -> bytes:
    """The end of an OVMF image: its metadata, the table of GUIDs that leads there, and the reset vector."""
    metadata = struct.pack("<4sIII", signature, 16 + 12 * len(sections), version, len(sections) if named is None else named)
    metadata += b"".join(struct.pack("<III", *section) for section in sections)
    start = pages * PAGE - 1024
    entries = [(METADATA, struct.pack("<I", 1024))]
    if reset is not None:
        entries.append((RESET_BLOCK, struct.pack("<I", reset)))
    if table is not None:
        entries.append((HASHES, struct.pack("<II", table, 0x400)))
    listed = b"".join(data + struct.pack("<H", len(data) + 18) + uuid.UUID(name).bytes_le for name, data in entries)
    listed += struct.pack("<H", len(listed) + 18) + uuid.UUID(footer).bytes_le
    image = bytearray(hashlib.shake_256(b"firmware").digest(pages * PAGE))
    image[start : start + len(metadata)] = metadata
    image[-32 - len(listed) : -32] = listed
    return bytes(image)


def page_info(digest: bytes, contents: bytes, kind: int, address: int) -> bytes:
    """PAGE_INFO of AMD's ABI (56860, table 67), hashed."""
    return hashlib.sha384(digest + contents + struct.pack("<HBBIQ", 0x70, kind, 0, 0, address)).digest()


def first_state(start: int, signature: int, features: int) -> bytes:
    """A processor's save area as KVM and QEMU begin it, by its offsets in AMD's manual (APM volume 2, table B-4)."""
    page = bytearray(PAGE)
    segments = {0: (0, 0x93), 0x10: (0xF000, 0x9B), 0x20: (0, 0x93), 0x30: (0, 0x93), 0x40: (0, 0x93), 0x50: (0, 0x93)}
    for at, (selector, attributes) in segments.items():
        struct.pack_into("<HHIQ", page, at, selector, attributes, 0xFFFF, 0 if at != 0x10 else start & 0xFFFF0000)
    for at, attributes in {0x60: 0, 0x70: 0x82, 0x80: 0, 0x90: 0x8B}.items():
        struct.pack_into("<HHIQ", page, at, 0, attributes, 0xFFFF, 0)
    words = {
        0xD0: 0x1000, 0x148: 0x40, 0x158: 0x10, 0x160: 0x400, 0x168: 0xFFFF0FF0, 0x170: 2, 0x178: start & 0xFFFF,
        0x268: 0x7040600070406, 0x310: signature, 0x3B0: features, 0x3E8: 1,
    }  # fmt: skip
    for at, value in words.items():
        struct.pack_into("<Q", page, at, value)
    struct.pack_into("<I", page, 0x408, 0x1F80)
    struct.pack_into("<H", page, 0x410, 0x37F)
    return bytes(page)


def reckoned(image: bytes, sections: Sequence[tuple[int, int, int]], table: bytes | None, vcpus: int, signature: int) -> str:
    """The launch digest on QEMU, reckoned without the library."""
    digest, base = bytes(48), (1 << 32) - len(image)
    for at in range(0, len(image), PAGE):
        digest = page_info(digest, hashlib.sha384(image[at : at + PAGE]).digest(), 1, base + at)
    for address, size, kind in sections:
        if kind == 0x10 and table is not None:
            digest = page_info(digest, hashlib.sha384(table).digest(), 1, address)
        elif kind in {2, 3}:
            digest = page_info(digest, bytes(48), {2: 5, 3: 6}[kind], address)
        else:
            for at in range(address, address + size, PAGE):
                digest = page_info(digest, bytes(48), 3, at)
    for number in range(vcpus):
        state = first_state(RESET if number else 0xFFFFFFF0, signature, 1)
        digest = page_info(digest, hashlib.sha384(state).digest(), 2, 0xFFFFFFFFF000)
    return f"sha384:{digest.hex()}"


def kernel_table(kernel: bytes, initrd: bytes, cmdline: str) -> bytes:
    """QEMU's table of digests (target/i386/sev.c), in its page."""

    def entry(name: str, content: bytes) -> bytes:
        return uuid.UUID(name).bytes_le + struct.pack("<H", 50) + hashlib.sha256(content).digest()

    entries = entry("97d02dd8-bd20-4c94-aa78-e7714d36ab2a", cmdline.encode() + b"\0")
    entries += entry("44baf731-3a2f-4bd7-9af1-41e29169781d", initrd)
    entries += entry("4de79437-abd2-427f-b835-d5b172d2045b", kernel)
    table = uuid.UUID("9438d606-4f22-4cc9-b479-a793d411fd21").bytes_le + struct.pack("<H", 18 + len(entries)) + entries
    return (bytes(TABLE % PAGE) + table).ljust(PAGE, b"\0")


class _StateOf2023(snp.VMSA):  # type: ignore[misc]
    """EC2 began processors with zero in RDX then; now with 0x600, as the library has it since."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.bsp_save_area.rdx = self.ap_save_area.rdx = 0


def test_a_published_launch_digest_comes_out(monkeypatch: pytest.MonkeyPatch):
    """The firmware's own digest, its metadata, and the digest with two processors on EC2, of the tests of
    ``sev-snp-measure-go``: another implementation."""
    monkeypatch.setattr(snp, "VMSA", _StateOf2023)
    seed = "a58211791a556a630a4319dc9e2ea96cc0e9784dd9f20a4fadf81b26c98d163fcdcb6703884bbbb80d7b1de45b3d84d0"
    answer = "4c6e33087d08fa770259484dddbef367086a15c3e2cf10038dc97229d39c942671c2e22b300178f8de594a3f2fa59303"
    image = snp._read(put("OVMF.fd", firmware()), processors=2)
    context = GCTX(seed=bytes.fromhex(seed))
    assert snp._launched(context, image, None, vmm=VMMType.ec2, vcpus=2, signature=0, features=1).hex() == answer


@pytest.mark.parametrize(("name", "signature"), [("EPYC-v4", 0x800F12), ("EPYC-Milan", 0xA00F11), ("EPYC-Genoa", 0xA10F10)])
@pytest.mark.parametrize("vcpus", [1, 3])
def test_a_launch_digest_is_as_reckoned_from_the_manuals(name: str, signature: int, vcpus: int):
    image = firmware()
    found = snp.expected(put("OVMF.fd", image), vcpus=vcpus, vcpu_type=name)
    assert found.registers["measurement"] == reckoned(image, SECTIONS, None, vcpus, signature)


@pytest.mark.parametrize(("initrd", "cmdline"), [(None, ""), (b"a disk", "console=ttyS0 quiet")])
def test_a_measured_kernel_is_in_the_digest(initrd: bytes | None, cmdline: str):
    image = firmware(DIRECT_BOOT, table=TABLE)
    disk = None if initrd is None else put("initrd", initrd)
    found = snp.expected(
        put("OVMF.fd", image), vcpus=2, vcpu_type="EPYC-v4", kernel=put("vmlinuz", b"a kernel"), initrd=disk, cmdline=cmdline
    )
    table = kernel_table(b"a kernel", initrd or b"", cmdline)
    assert found.registers["measurement"] == reckoned(image, DIRECT_BOOT, table, 2, 0x800F12)
    assert hashlib.sha256(b"a kernel").hexdigest() in found.build
    assert len(found.build) <= 512


def test_the_registers_are_those_of_a_report():
    found = snp.expected(put("OVMF.fd", firmware()), vcpus=1, vmm="gce", host_data=b"\x07" * 32)
    assert set(found.registers) == set(machine("sev_snp").measurement.registers)
    assert found.registers["host_data"] == "sha256:" + "07" * 32
    assert found.registers["id_key_digest"] == found.registers["author_key_digest"] == "sha384:" + "00" * 48


def test_every_part_of_the_machine_is_in_the_digest():
    path = put("OVMF.fd", firmware())
    made = [
        snp.expected(path, vcpus=1, vcpu_type="EPYC-v4"),
        snp.expected(path, vcpus=2, vcpu_type="EPYC-v4"),
        snp.expected(path, vcpus=1, vcpu_type="EPYC-Milan"),
        snp.expected(path, vcpus=1, vcpu_type="EPYC-v4", features=0x21),
        snp.expected(path, vcpus=1, vmm="ec2"),
        snp.expected(path, vcpus=1, vmm="gce"),
        snp.expected(put("other.fd", firmware(reset=RESET + 0x10000)), vcpus=2, vcpu_type="EPYC-v4"),
    ]
    assert len({found.registers["measurement"] for found in made}) == len({found.build for found in made}) == len(made)


BAD_FIRMWARE: Mapping[str, bytes] = {
    "text": b"not a firmware " * 1000,
    "no whole pages": firmware()[1:],
    "zeros": bytes(4 * PAGE),
    "one page of zeros": bytes(PAGE),
    "without metadata": firmware(footer="00000000-0000-0000-0000-000000000000"),
    "metadata of another kind": firmware(signature=b"ESAV"),
    "metadata of another version": firmware(version=2),
    "fewer sections than it says": firmware(named=0x10000000),
    "no section": firmware(()),
    "no secrets": firmware(SECTIONS[:2] + SECTIONS[3:]),
    "no CPUID": firmware(SECTIONS[:3]),
    "an unknown section": firmware((*SECTIONS, (0x900000, PAGE, 9))),
    "half a page": firmware((*SECTIONS, (0x900000, 100, 1))),
    "an empty section": firmware((*SECTIONS, (0x900000, 0, 1))),
    "an address within a page": firmware((*SECTIONS, (0x900010, PAGE, 1))),
    "secrets of two pages": firmware((*SECTIONS, (0x900000, 2 * PAGE, 2))),
    "four gigabytes of zeros": firmware((*SECTIONS, (0, 0xFFFFF000, 1))),
    "too many sections": firmware((SECTIONS[0],) * 60 + SECTIONS),
    "no start of further processors": firmware(reset=None),
    "further processors start nowhere": firmware(reset=0),
}


@pytest.mark.parametrize("data", BAD_FIRMWARE.values(), ids=BAD_FIRMWARE)
def test_what_is_no_firmware_gets_no_digest(data: bytes):
    with pytest.raises(NotMeasurable, match=r"OVMF\.fd"):
        snp.expected(put("OVMF.fd", data), vcpus=2, vcpu_type="EPYC-v4")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 1023), value=st.integers(0, 255))
def test_a_damaged_firmware_has_another_digest_or_none(at: int, value: int):
    image = bytearray(firmware())
    before = snp.expected(put("OVMF.fd", bytes(image)), vcpus=2, vcpu_type="EPYC-v4").registers
    changed = image[-1 - at] != value
    image[-1 - at] = value
    try:
        found = snp.expected(put("OVMF.fd", bytes(image)), vcpus=2, vcpu_type="EPYC-v4").registers
    except NotMeasurable:
        return
    assert (found != before) is changed


@pytest.mark.parametrize(
    ("sections", "table"),
    [(SECTIONS, TABLE), (DIRECT_BOOT, None), (DIRECT_BOOT, 0), (DIRECT_BOOT, 0x820000), (DIRECT_BOOT, 0x810FF0)],
    ids=["no page", "no table", "a table nowhere", "a table elsewhere", "a table over the edge"],
)
def test_a_kernel_that_nothing_measures_is_refused(sections: Sequence[tuple[int, int, int]], table: int | None):
    with pytest.raises(NotMeasurable, match="digests of a kernel"):
        snp.expected(put("OVMF.fd", firmware(sections, table=table)), vcpus=1, vcpu_type="EPYC-v4", kernel=put("k", b"k"))


@pytest.mark.parametrize(
    "changes", [{"vcpus": 0}, {"vcpus": 4097}, {"features": -1}, {"features": 1 << 64}, {"cmdline": "a" * 70_000}]
)
def test_a_machine_that_cannot_be_is_refused(changes: dict[str, Any]):
    with pytest.raises(NotMeasurable):
        snp.expected(put("OVMF.fd", firmware()), **{"vcpus": 1, "vcpu_type": "EPYC-v4", **changes})


def test_an_unknown_processor_is_refused_with_the_list():
    with pytest.raises(NotMeasurable) as found:
        snp.expected(put("OVMF.fd", firmware()), vcpus=1, vcpu_type="i486")
    assert "EPYC-Milan" in found.value.hint


def test_files_are_regular_and_of_a_bearable_size(monkeypatch: pytest.MonkeyPatch):
    with put("big.fd", b"").open("r+b") as file:
        file.truncate(snp.MAX_FIRMWARE_BYTES + PAGE)
    os.mkfifo("pipe")
    for name, why in {"big.fd": "more than", "pipe": "regular", "nowhere": "cannot read", ".": "regular"}.items():
        with pytest.raises(NotMeasurable, match=why):
            snp.expected(Path(name), vcpus=1, vcpu_type="EPYC-v4")
    with pytest.raises(NotMeasurable, match="is empty"):
        expected.sha256_of(put("empty", b""))
    monkeypatch.setattr(expected, "MAX_PART_BYTES", 8)
    with pytest.raises(NotMeasurable), expected.opened(put("nine", b"9" * 9), max_bytes=8):
        pass


# --- Nitro ----------------------------------------------------------------------------------------------------------

CODES = {"kernel": 1, "cmdline": 2, "ramdisk": 3, "signature": 4, "metadata": 5}
PARTS = (
    ("kernel", b"bzImage"),
    ("cmdline", b"reboot=k panic=30"),
    ("metadata", b'{"ImageName":"app"}'),
    ("ramdisk", b"init"),
    ("ramdisk", b"the app" * 300_000),
)


def eif(
    parts: Sequence[tuple[str | int, bytes]] = PARTS, *, magic: bytes = b".eif", version: int = 4, **changes: Any
) -> bytes:
    """An image as AWS's builder writes it."""
    at, offsets, sizes, body = 548, [], [], b""
    for kind, data in parts:
        offsets.append(at)
        sizes.append(len(data))
        body += struct.pack(">HHQ", CODES.get(kind, kind), 0, len(data)) + data
        at += 12 + len(data)
    offsets, sizes = changes.get("offsets", offsets), changes.get("sizes", sizes)
    head = struct.pack(">4sHHQQHH", magic, version, 0, 1 << 30, 2, 0, changes.get("count", len(parts)))
    head += struct.pack(">64Q", *[*offsets, *[0] * 32][:32], *[*sizes, *[0] * 32][:32]) + bytes(4)
    return head + struct.pack(">I", changes.get("crc", zlib.crc32(head + body))) + body + changes.get("more", b"")


def extended(*parts: bytes) -> str:
    return "sha384:" + hashlib.sha384(bytes(48) + hashlib.sha384(b"".join(parts)).digest()).hexdigest()


def signature(certificate: bytes, *, numbers: bool = True) -> bytes:
    """What stands beside an image's signature: a list of one map, whose bytes are lists of numbers."""
    spelled = list(certificate) if numbers else certificate
    return cbor2.dumps([{"signing_certificate": spelled, "signature": [1, 2, 3]}])


def test_an_image_has_the_registers_of_its_parts():
    found = nitro.expected(put("app.eif", eif()))
    kernel, cmdline, _, init, app = (data for _, data in PARTS)
    assert found.registers == {
        "pcr0": extended(kernel, cmdline, init, app),
        "pcr1": extended(kernel, cmdline, init),
        "pcr2": extended(app),
        "pcr8": "sha384:" + "00" * 48,
    }
    assert set(found.registers) == set(machine("nitro").measurement.registers)


def test_without_a_second_disk_the_register_of_programs_is_the_published_one():
    """Everybody's PCR2 of an image that has its programs in the first disk (as many published enclaves show it)."""
    found = nitro.expected(put("app.eif", eif(PARTS[:4])))
    assert found.registers["pcr2"] == (
        "sha384:21b9efbc184807662e966d34f390821309eeac6802309798826296bf3e8bec7c10edb30948c90ba67310f7b964fc500a"
    )
    assert found.registers["pcr0"] == found.registers["pcr1"]


@pytest.mark.parametrize("numbers", [True, False])
def test_a_signed_image_has_its_certificates_register(numbers: bool):
    certificate = load_der_x509_certificate(pki_nitro.root().der)
    signed = (*PARTS, ("signature", signature(certificate.public_bytes(Encoding.PEM), numbers=numbers)))
    found = nitro.expected(put("app.eif", eif(signed)))
    assert found.registers["pcr8"] == extended(pki_nitro.root().der)
    assert found.registers["pcr0"] == nitro.expected(put("app.eif", eif())).registers["pcr0"]


def test_what_no_register_covers_changes_none():
    other = [(kind, b"{}" if kind == "metadata" else data) for kind, data in PARTS]
    one, two = nitro.expected(put("one.eif", eif())), nitro.expected(put("two.eif", eif(other)))
    assert one.registers == two.registers
    assert one.build != two.build


BAD_IMAGES: Mapping[str, bytes] = {
    "text": b"not an image " * 100,
    "short": b".eif",
    "another magic": eif(magic=b".elf"),
    "version 1": eif(version=1),
    "version 5": eif(version=5),
    "no section": eif(()),
    "no disk": eif(PARTS[:3]),
    "no kernel": eif(PARTS[1:]),
    "two kernels": eif((*PARTS, PARTS[0])),
    "two command lines": eif((*PARTS, PARTS[1])),
    "two of metadata": eif((*PARTS, PARTS[2])),
    "command line first": eif((PARTS[1], PARTS[0], *PARTS[2:])),
    "an unknown section": eif((*PARTS, (6, b"x"))),
    "thirty-three sections": eif(count=33),
    "fewer sections than there are": eif(count=4),
    "more sections than there are": eif(count=6),
    "another size in the header": eif(sizes=[7, 17, 19, 4, 5]),
    "another offset in the header": eif(offsets=[560, 567, 596, 627, 643]),
    "a size beyond the end": eif(sizes=[1 << 62]),
    "bytes after the end": eif(more=b"x"),
    "another sum": eif(crc=7),
    "cut short": eif()[:-1],
    "a signature that is no CBOR": eif((*PARTS, ("signature", b"\xff\xff"))),
    "a signature of many floors": eif((*PARTS, ("signature", b"\x81" * 65_000))),
    "a text in place of a certificate": eif((*PARTS, ("signature", cbor2.dumps([{"signing_certificate": "x"}])))),
    "an empty signature": eif((*PARTS, ("signature", b""))),
    "a signature without a certificate": eif((*PARTS, ("signature", cbor2.dumps([{}])))),
    "a signature of another kind": eif((*PARTS, ("signature", cbor2.dumps(7)))),
    "a certificate of bytes too large": eif((*PARTS, ("signature", cbor2.dumps([{"signing_certificate": [256]}])))),
    "a certificate of a terabyte": eif((*PARTS, ("signature", cbor2.dumps([{"signing_certificate": 1 << 40}])))),
    "a certificate that is none": eif((*PARTS, ("signature", signature(b"-----BEGIN")))),
    "a signature of a megabyte": eif((*PARTS, ("signature", bytes(1 << 20)))),
}


@pytest.mark.parametrize("data", BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_what_is_no_image_gets_no_registers(data: bytes):
    with pytest.raises(NotMeasurable, match=r"app\.eif"):
        nitro.expected(put("app.eif", data))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 650), bit=st.integers(0, 7))
def test_a_flipped_bit_of_an_image_is_noticed(at: int, bit: int):
    image = bytearray(eif(PARTS[:4]))
    image[at % len(image)] ^= 1 << bit
    with pytest.raises(NotMeasurable):
        nitro.expected(put("app.eif", bytes(image)))


# --- dstack ---------------------------------------------------------------------------------------------------------

COMPOSE = pki_dstack.COMPOSE
SYSTEM = {f"rtmr{n}": "sha384:" + f"{n}a" * 48 for n in range(3)} | {"mrtd": "sha384:" + "0f" * 48}


@real
def test_the_registers_of_a_real_app_are_as_computed():
    """dstack 0.6 on real hardware: MRCONFIGID, the app's id and its events follow from the composition's hash as here."""
    sample = json.loads(read("dstack/tdx_lite_getquote.json"))
    app = dstack_log.app(dstack_log.parse(sample["event_log"].encode()))
    quoted = tdx.parse(bytes.fromhex(sample["quote"])).measurement.registers
    assert quoted["mrconfigid"] == f"sha384:{dstack.mr_config_v1(app.compose_hash).hex()}"
    assert quoted["mrowner"] == quoted["mrownerconfig"] == "sha384:" + "00" * 48
    assert app.app_id == dstack.app_id(app.compose_hash)
    provider = next(e.payload for e in dstack_log.parse(sample["event_log"].encode()) if e.name == "key-provider")
    found = dstack.expected(COMPOSE, provider="kms", provider_id=json.loads(provider)["id"], storage_fs="zfs")
    assert found.registers["key_provider"] == app.registers["key_provider"]
    assert found.registers["storage_fs"] == app.registers["storage_fs"]


def test_a_composition_has_the_registers_that_follow_from_it():
    found = dstack.expected(COMPOSE)
    digest = hashlib.sha256(COMPOSE).digest()
    assert found.registers == {
        "compose_hash": f"sha256:{digest.hex()}",
        "key_provider": "sha256:" + hashlib.sha256(b'{"name":"none","id":""}').hexdigest(),
        "mrconfigid": f"sha384:01{digest.hex()}" + "00" * 15,
        "mrowner": "sha384:" + "00" * 48,
        "mrownerconfig": "sha384:" + "00" * 48,
    }
    assert set(found.missing) == {"mrtd", "rtmr0", "rtmr1", "rtmr2"}
    assert set(found.to_json()) == {"build", "computed", "missing", "platform"}


def test_with_the_systems_own_registers_it_is_whole():
    found = dstack.expected(COMPOSE, given=SYSTEM)
    assert not found.missing
    assert SYSTEM.items() <= found.to_json()["registers"].items()


@pytest.mark.parametrize(
    ("said", "name", "missing"),
    [
        ({}, "none", False),
        ({"kms_enabled": True, "local_key_provider_enabled": True}, "kms", True),
        ({"kms_enabled": False, "local_key_provider_enabled": True}, "local-sgx", True),
        ({"kms_enabled": True, "key_provider": "none"}, "none", False),
        ({"key_provider": None, "kms_enabled": False}, "none", False),
        ({"key_provider": "tpm"}, "tpm", True),
        ({"key_provider": "kms", "key_provider_id": "ABCD"}, "kms", False),
    ],
)
def test_the_composition_says_who_holds_its_keys(said: dict[str, Any], name: str, missing: bool):
    compose = json.dumps({"manifest_version": 2, **said}).encode()
    found = dstack.expected(compose)
    assert ("key_provider" in found.missing) is missing
    assert ("mrconfigid" in found.registers) is ("key_provider_id" not in said)  # then a whole configuration is committed to
    key = "abcd" if "key_provider_id" in said or missing else ""
    event = f'{{"name":"{name}","id":"{key}"}}'
    complete = dstack.expected(compose, provider_id=key)
    assert complete.registers["key_provider"] == "sha256:" + hashlib.sha256(event.encode()).hexdigest()


def evidence(**registers: str) -> Measurement:
    return Measurement("dstack", {**machine("dstack").measurement.registers, **registers})


def test_evidence_of_a_first_start_fills_the_rest():
    found = dstack.expected(
        COMPOSE, provider="kms", provider_id="5e" * 33, configuration="none", storage_fs="zfs", evidence=evidence()
    )
    assert Measurement.from_json({k: v for k, v in found.to_json().items() if k != "build"}) == machine("dstack").measurement


def test_evidence_on_sev_snp_has_other_registers_of_its_host():
    seen = {**machine("sev_snp").measurement.registers}
    del seen["host_data"]
    app = dstack_log.configuration(
        json.dumps(
            {
                "version": 3,
                "app_id": "aa" * 20,
                "instance_id": "",
                "compose_hash": hashlib.sha256(COMPOSE).hexdigest(),
                "key_provider": "none",
                "key_provider_id": "",
            }
        ).encode()
    )
    measured = Measurement("dstack", {**seen, **app.registers})
    assert dstack.expected(COMPOSE, evidence=measured).registers == measured.registers


def test_evidence_of_another_composition_fills_nothing():
    with pytest.raises(NotMeasurable, match="register compose_hash was measured as"):
        dstack.expected(COMPOSE + b" ", provider="kms", provider_id="5e" * 33, configuration="none", evidence=evidence())


def test_evidence_without_a_register_that_was_computed_fills_nothing():
    registers = {k: v for k, v in machine("dstack").measurement.registers.items() if k != "mrconfigid"}
    with pytest.raises(NotMeasurable, match="no register mrconfigid"):
        dstack.expected(COMPOSE, provider="kms", provider_id="5e" * 33, evidence=Measurement("dstack", registers))


def test_a_register_given_against_what_is_computed_is_refused():
    with pytest.raises(NotMeasurable, match="register mrowner is given as"):
        dstack.expected(COMPOSE, given={"mrowner": "sha384:" + "01" * 48})


@pytest.mark.parametrize(
    "data",
    [
        b"services: {}",
        b"[]",
        b"{}",
        b'{"manifest_version":2,"manifest_version":2}',
        b'{"manifest_version":2,"key_provider":"x"}',
        b'{"manifest_version":2,"key_provider":[]}',
        b'{"manifest_version":2,"key_provider_id":"xyz"}',
        b'{"manifest_version":2,"key_provider_id":7}',
        b'{"manifest_version":2,"kms_enabled":"yes"}',
        b"\xff",
    ],
)
def test_what_is_no_composition_gets_no_registers(data: bytes):
    with pytest.raises(NotMeasurable, match=r"app-compose\.json"):
        dstack.expected(data)


# --- on the command line --------------------------------------------------------------------------------------------


def test_the_installation_is_measured_with_its_programs():
    said = call("measure", "--json")
    assert said.status == 0
    assert set(said.json) == {"platform", "programs", "registers"}
    assert said.json["programs"] == {name: program_digest(name) for name in NAMES}
    shown = call("measure")
    for value in (*said.json["registers"].values(), *said.json["programs"].values()):
        assert value in shown.out
    assert "a contract names one by this digest" in shown.out
    put("image.json", said.out.encode())
    policy = call("attest", "policy", "simulated", "--reference", "image.json", "--name", "mine")
    (reference,) = AppraisalPolicy.from_json(json.loads(policy.out)).references
    assert (reference.measurement.registers, reference.name) == (said.json["registers"], "mine")


def test_a_measurement_with_something_beside_it_is_no_reference_value():
    value = {**nitro.expected(put("app.eif", eif())).to_json(), "debug": False}
    put("image.json", json.dumps(value).encode())
    assert error(call("attest", "policy", "nitro", "--reference", "image.json"))[0] == "wire.bad_field"


def snp_words(*more: object) -> list[object]:
    image = put("OVMF.fd", firmware(DIRECT_BOOT, table=TABLE))
    return ["measure", "--platform", "sev_snp", "--firmware", image, *more]


def test_a_guest_on_sev_snp_becomes_a_reference_value():
    words = snp_words("--vcpus", 4, "--vcpu-type", "EPYC-Milan", "--kernel", put("vmlinuz", b"k"), "--cmdline", "a=b")
    said = call(*words, "--guest-features", "0x1", "--host-data", "ab" * 32, "--json")
    assert (said.status, said.err) == (0, "")
    assert set(said.json) == {"build", "platform", "registers"}
    put("image.json", said.out.encode())
    (reference,) = AppraisalPolicy.from_json(
        json.loads(call("attest", "policy", "sev_snp", "--reference", "image.json", "--name", "guest").out)
    ).references
    assert (reference.build, reference.name) == (said.json["build"], "guest")
    assert reference.measurement.registers == said.json["registers"]
    shown = call(*words)
    assert said.json["registers"]["measurement"] in shown.out


def test_the_same_files_give_the_same_answer():
    words = snp_words("--vcpus", 1, "--vmm", "ec2", "--json")
    assert call(*words).out == call(*words).out


def test_an_enclave_image_becomes_a_reference_value():
    said = call("measure", "--platform", "nitro", "--eif", put("app.eif", eif()), "--json")
    assert said.json["registers"] == nitro.expected(Path("app.eif")).registers
    put("image.json", said.out.encode())
    assert call("attest", "policy", "nitro", "--reference", "image.json").err == ""


def test_a_part_of_a_measurement_is_no_reference_value():
    words = ["measure", "--platform", "dstack", "--compose", put("app-compose.json", COMPOSE)]
    shown = call(*words)
    assert shown.status == 0
    assert "not computed here" in shown.out
    assert "Not a whole reference value" in shown.err
    put("part.json", call(*words, "--json").out.encode())
    assert error(call("attest", "policy", "dstack", "--reference", "part.json"))[0] == "wire.bad_field"


def test_an_app_on_dstack_is_completed_by_a_verified_first_start():
    given = {"submods": {"dstack": {"strongroom.measurement": machine("dstack").measurement.to_json()}}}
    put("verified.json", json.dumps(given).encode())
    words = ["measure", "--platform", "dstack", "--compose", put("app-compose.json", COMPOSE), "--mr-config", "none"]
    words += ["--key-provider", "kms", "--key-provider-id", "5E" * 33, "--from-evidence", "verified.json", "--json"]
    assert call(*words).json["registers"] == machine("dstack").measurement.to_json()["registers"]
    for name in ("mrtd", "rtmr0", "rtmr1", "rtmr2"):
        words += ["--register", f"{name}={machine('dstack').measurement.registers[name]}"]
    assert call(*words).status == 0


@pytest.mark.parametrize("said", [b"{}", b"[]", b'{"submods":7}', b'{"submods":{"dstack":{"strongroom.measurement":null}}}'])
def test_evidence_that_was_not_verified_fills_nothing(said: bytes):
    put("verified.json", said)
    words = ["measure", "--platform", "dstack", "--compose", put("c.json", COMPOSE), "--from-evidence", "verified.json"]
    code, message = error(call(*words))
    assert code == "wire.bad_field"
    assert "verified.json" in message


@pytest.mark.parametrize(
    "words",
    [
        ("--eif", "x"),
        ("--platform", "nitro"),
        ("--platform", "nitro", "--eif", "x", "--vcpus", 1),
        ("--platform", "sev_snp"),
        ("--platform", "sev_snp", "--firmware", "x"),
        ("--platform", "sev_snp", "--firmware", "x", "--vcpus", 1),
        ("--platform", "sev_snp", "--firmware", "x", "--vcpus", "one", "--vcpu-type", "EPYC"),
        ("--platform", "sev_snp", "--firmware", "x", "--vcpus", 1, "--vcpu-type", "EPYC", "--cmdline", "a"),
        ("--platform", "sev_snp", "--firmware", "x", "--vcpus", 1, "--vmm", "ec2", "--initrd", "a"),
        ("--platform", "sev_snp", "--firmware", "x", "--vcpus", 1, "--vmm", "xen"),
        ("--platform", "sev_snp", "--firmware", "x", "--vcpus", 1, "--vmm", "ec2", "--host-data", "00"),
        ("--platform", "sev_snp", "--firmware", "x", "--vcpus", 1, "--vmm", "ec2", "--host-data", "zz"),
        ("--platform", "dstack"),
        ("--platform", "dstack", "--compose", "x", "--register", "mrtd=7"),
        ("--platform", "tdx"),
    ],
)
def test_wrong_words_are_refused_with_what_to_say(words: tuple[object, ...]):
    assert error(call("measure", *words))[0] == "app.usage"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--platform", "nitro", "--eif", "nowhere"), "enclave.not_measurable"),
        (("--platform", "sev_snp", "--firmware", "nowhere", "--vcpus", 1, "--vmm", "ec2"), "enclave.not_measurable"),
        (("--platform", "dstack", "--compose", "nowhere"), "app.not_found"),
    ],
)
def test_a_file_that_is_not_there_is_one_line(words: tuple[object, ...], code: str):
    said = call("measure", *words)
    assert (said.status, error(said)[0]) == (1, code)


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "sevsnpmeasure", None)
    monkeypatch.delitem(sys.modules, "strongroom.app.images.snp")
    monkeypatch.delattr("strongroom.app.images.snp")
    said = call(*snp_words("--vcpus", 1, "--vmm", "ec2"))
    assert error(said) == ("enclave.not_measurable", "sev-snp-measure is not installed")
    assert "strongroom[measure]" in said.err


def test_the_library_is_loaded_by_who_asks_for_it():
    code = "import sys, strongroom.app.cli.measure as m; print('sevsnpmeasure' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
