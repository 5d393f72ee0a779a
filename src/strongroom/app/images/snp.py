"""The launch digest of an SEV-SNP guest: firmware, the pages its metadata asks for, and each processor's first state.

The digest is the one of AMD's "SEV Secure Nested Paging Firmware ABI", section 8.17.2: each page that the hypervisor adds is
hashed into it, in order. Which pages, and in which state a processor starts, is a matter of the hypervisor. Both are in the
library ``sev-snp-measure`` (``strongroom[measure]``); here its input is judged first, because it takes a firmware without
metadata for one that asks for nothing, and says a digest that no machine ever has.

Checked against that library's own published answers and a reckoning of our own in the tests; not on a machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sevsnpmeasure import guest
from sevsnpmeasure.gctx import GCTX
from sevsnpmeasure.ovmf import OVMF, SectionType
from sevsnpmeasure.sev_hashes import SevHashes
from sevsnpmeasure.sev_mode import SevMode
from sevsnpmeasure.vcpu_types import CPU_SIGS
from sevsnpmeasure.vmm_types import VMMType
from sevsnpmeasure.vmsa import VMSA

from .expected import Expected, opened, sha256_of, unfit

MAX_FIRMWARE_BYTES = 16 << 20  # what QEMU takes at most
MAX_SECTIONS = 64
MAX_SECTION_BYTES = 64 << 20  # all sections together
MAX_PROCESSORS = 4096
MAX_CMDLINE_BYTES = 64 << 10
PAGE = 4096
VMMS: Mapping[str, VMMType] = MappingProxyType({"ec2": VMMType.ec2, "gce": VMMType.gce, "qemu": VMMType.QEMU})
VCPU_TYPES: tuple[str, ...] = tuple(sorted(CPU_SIGS))
GUEST_FEATURES = 1  # SEV_FEATURES: SNP active, and nothing else

_ONE_PAGE = (SectionType.SNP_SECRETS, SectionType.CPUID, SectionType.SNP_KERNEL_HASHES)


class _Hashes(SevHashes):  # type: ignore[misc]  # the library has no types
    """What QEMU tells the firmware of kernel, initial disk and command line, of files read as streams."""

    def __init__(self, kernel: Path, initrd: Path | None, cmdline: str) -> None:
        self.kernel_hash = sha256_of(kernel)
        self.initrd_hash = hashlib.sha256(b"").digest() if initrd is None else sha256_of(initrd)
        self.cmdline_hash = hashlib.sha256(cmdline.encode() + b"\0").digest()


def expected(
    firmware: Path,
    *,
    vcpus: int,
    vmm: str = "qemu",
    vcpu_type: str | None = None,
    features: int = GUEST_FEATURES,
    kernel: Path | None = None,
    initrd: Path | None = None,
    cmdline: str = "",
    host_data: bytes = bytes(32),
    id_key_digest: bytes = bytes(48),
    author_key_digest: bytes = bytes(48),
) -> Expected:
    """The four registers of ``sev_snp``.

    Args:
        firmware: an OVMF image with SEV metadata, at most 16 MiB.
        vcpus: how many virtual processors the guest starts with, 1 to 4096.
        vmm: whose way of starting it: ``qemu``, ``ec2`` or ``gce``.
        vcpu_type: QEMU's name of the processor (``EPYC-Milan``); only QEMU puts it into the first state.
        features: the guest's SEV_FEATURES, 64 bits.
        kernel: measured by the firmware at a direct boot; with an initial disk and a command line (without its final zero).
        host_data: 32 bytes that the host sets.
        id_key_digest, author_key_digest: 48 bytes each, of an ID block; zeros without one.

    Raises:
        NotMeasurable: a file cannot be read or is too large, it is no such firmware, or has no place for a kernel's digest.
    """
    if vmm == "qemu" and vcpu_type not in CPU_SIGS:
        raise unfit(f"QEMU has no processor {vcpu_type!r}", f"One of: {', '.join(VCPU_TYPES)}.")
    if not 1 <= vcpus <= MAX_PROCESSORS or not 0 <= features < 1 << 64 or len(cmdline.encode()) > MAX_CMDLINE_BYTES:
        raise unfit(f"not 1 to {MAX_PROCESSORS} processors, 64 bits of features and a short command line", "Say another.")
    with opened(firmware, max_bytes=MAX_FIRMWARE_BYTES) as (file, size):
        if size % PAGE:
            raise unfit(f"{firmware} is no whole number of pages of {PAGE} bytes")
        named = [f"firmware sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"]
    image = _read(firmware, processors=vcpus)
    hashes = None
    if kernel is not None:
        hashes = _Hashes(kernel, initrd, cmdline)
        _require_place(firmware, image, len(hashes.construct_table()))
        parts = {"kernel": hashes.kernel_hash, "initrd": hashes.initrd_hash, "cmdline": hashes.cmdline_hash}
        named += [f"{name} sha256:{found.hex()}" for name, found in parts.items()]
    context = GCTX()
    context.update_normal_pages(image.gpa(), image.data())
    signature = CPU_SIGS.get(vcpu_type, 0)
    digest = _launched(context, image, hashes, vmm=VMMS[vmm], vcpus=vcpus, signature=signature, features=features)
    machine = f"{vcpus} x {vcpu_type} on qemu" if vmm == "qemu" else f"{vcpus} processors on {vmm}"
    registers = {
        "author_key_digest": f"sha384:{author_key_digest.hex()}",
        "host_data": f"sha256:{host_data.hex()}",
        "id_key_digest": f"sha384:{id_key_digest.hex()}",
        "measurement": f"sha384:{digest.hex()}",
    }
    return Expected(
        platform="sev_snp", registers=registers, build=f"{'; '.join(named)}; {machine}, SEV_FEATURES {features:#x}"
    )


def _launched(context: Any, image: Any, hashes: Any, *, vmm: VMMType, vcpus: int, signature: int, features: int) -> bytes:
    """The digest when the metadata's pages and the processors' states have followed the firmware's pages."""
    guest.snp_update_metadata_pages(context, image, hashes, vmm)
    state = VMSA(SevMode.SEV_SNP, image.sev_es_reset_eip(), signature, features, vmm)
    for page in state.pages(vcpus):
        context.update_vmsa_page(page)
    digest: bytes = context.ld()
    return digest


def _read(path: Path, *, processors: int) -> Any:
    """The firmware, its tables judged. Raises NotMeasurable."""
    try:
        image = OVMF(str(path))
        sections = list(image.metadata_items())
        kinds = [section.section_type() for section in sections]
        start = image.sev_es_reset_eip()
    except (RuntimeError, ValueError) as error:
        raise unfit(f"{path} is no firmware for SEV-SNP: {error}") from error
    if not {SectionType.SNP_SECRETS, SectionType.CPUID} <= set(kinds):
        raise unfit(f"{path} is no firmware for SEV-SNP: its metadata asks for no page of secrets, or none of CPUID")
    if not start and processors > 1:
        raise unfit(f"{path} does not say where further processors start")
    if len(sections) > MAX_SECTIONS or sum(section.size for section in sections) > MAX_SECTION_BYTES:
        raise unfit(f"{path} asks for more than {MAX_SECTIONS} sections or {MAX_SECTION_BYTES} bytes")
    for section, kind in zip(sections, kinds, strict=True):
        if section.gpa % PAGE or section.size % PAGE or not section.size or (kind in _ONE_PAGE and section.size != PAGE):
            raise unfit(f"{path} asks for a section of {section.size} bytes at {section.gpa:#x}: no whole pages, or not one")
    return image


def _require_place(path: Path, image: Any, table_bytes: int) -> None:
    """A kernel's digest needs a table in a page that is measured. Raises NotMeasurable."""
    pages = [s.gpa for s in image.metadata_items() if s.section_type() is SectionType.SNP_KERNEL_HASHES]
    if not pages or not image.is_sev_hashes_table_supported():
        raise unfit(f"{path} has no place for the digests of a kernel", "Use a firmware built for direct boot (AmdSev).")
    table = image.sev_hashes_table_gpa()
    if pages != [table // PAGE * PAGE] or table % PAGE + table_bytes > PAGE:
        raise unfit(f"{path} puts the digests of a kernel outside of the page that is measured")
