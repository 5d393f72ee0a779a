"""The attestation report of AMD SEV-SNP, versions 2 to 5: its layout, and the forms of a TCB version. None is believed here.

Layout and names are those of AMD's "SEV Secure Nested Paging Firmware ABI Specification" (document 56860, to revision 1.58:
ATTESTATION_REPORT, TCB_VERSION, GUEST_POLICY, PLATFORM_INFO, and the format of an ECDSA P-384 signature). Numbers are
little-endian. See ``spec/evidence-sev-snp.md``.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from strongroom.errors import BadEvidence
from strongroom.wire import JSON, Fields

REPORT_BYTES = 1184
SIGNED_BYTES = 0x2A0
VERSIONS = range(2, 6)
MAX_VMPL = 3
HOST_VMPL = 0xFFFFFFFF  # the host asked for the report, and no guest chose its report_data
NO_MIGRATION_AGENT = b"\xff" * 32
ECDSA_P384_SHA384 = 1
SIGNING_KEYS: Mapping[int, str] = MappingProxyType({0: "vcek", 1: "vlek", 7: "none"})

# What each bit of GUEST_POLICY (from bit 16; below is the least ABI) and of PLATFORM_INFO says.
POLICY_BITS: Mapping[str, int] = MappingProxyType(
    {
        "smt": 16,
        "migration_agent": 18,
        "debug": 19,
        "single_socket": 20,
        "cxl": 21,
        "aes_256_xts": 22,
        "rapl_disabled": 23,
        "ciphertext_hiding": 24,
        "page_swap_disabled": 25,
    }
)
_ALWAYS_ONE = 17  # a reserved bit of GUEST_POLICY
PLATFORM_BITS: Mapping[str, int] = MappingProxyType(
    {
        "smt": 0,
        "tsme": 1,
        "ecc": 2,
        "rapl_disabled": 3,
        "ciphertext_hiding": 4,
        "alias_check_complete": 5,  # no two addresses reach one cell of memory (BadRAM, CVE-2024-21944)
        "iommu_write_safe": 6,
        "tio": 7,
    }
)
_KNOWN_POLICY = 0xFFFF | 1 << _ALWAYS_ONE | sum(1 << bit for bit in POLICY_BITS.values())
_KNOWN_PLATFORM = sum(1 << bit for bit in PLATFORM_BITS.values())

# One code per field, in order; ``x`` is a reserved byte, which is zero.
_LAYOUT = struct.Struct("<II Q 16s16s II 8s Q I4x 64s48s32s 48s48s 32s32s 8s 3s21x 64s 8s BBBx BBBx 8s QQ 152x 72s72s368x")


@dataclass(frozen=True, slots=True)
class Tcb:
    """The security version numbers of what AMD's protection rests on, each 0 to 255.

    Args:
        bootloader: of the secure processor's boot loader.
        tee: of its operating system.
        snp: of the SNP firmware.
        microcode: the least microcode patch level of all cores.
        fmc: of the firmware module of Turin; ``None`` on Milan and Genoa, which have none.
    """

    bootloader: int
    tee: int
    snp: int
    microcode: int
    fmc: int | None = None

    @classmethod
    def decode(cls, raw: bytes, *, turin: bool) -> Tcb:
        """The 8 bytes of a TCB_VERSION in the order of the product line. Raises BadEvidence: a reserved byte is not zero."""
        if turin:
            found = cls(fmc=raw[0], bootloader=raw[1], tee=raw[2], snp=raw[3], microcode=raw[7])
        else:
            found = cls(bootloader=raw[0], tee=raw[1], snp=raw[6], microcode=raw[7])
        if found.encode() != raw:
            raise BadEvidence("a reserved byte of a TCB version is not zero")
        return found

    def encode(self) -> bytes:
        if self.fmc is None:
            return bytes((self.bootloader, self.tee, 0, 0, 0, 0, self.snp, self.microcode))
        return bytes((self.fmc, self.bootloader, self.tee, self.snp, 0, 0, 0, self.microcode))

    def at_least(self, floor: Tcb) -> bool:
        """Whether every component is at least the floor's; of another product line's form, none is."""
        mine, least = self._parts(), floor._parts()
        return mine.keys() == least.keys() and all(mine[name] >= least[name] for name in least)

    def _parts(self) -> dict[str, int]:
        found = {"bootloader": self.bootloader, "microcode": self.microcode, "snp": self.snp, "tee": self.tee}
        return found if self.fmc is None else {**found, "fmc": self.fmc}

    def to_json(self) -> dict[str, JSON]:
        return {**self._parts()}

    @classmethod
    def from_json(cls, value: object) -> Tcb:
        """Raises BadField."""
        f = Fields(value, "TCB")
        found = cls(
            bootloader=f.integer("bootloader", high=255),
            tee=f.integer("tee", high=255),
            snp=f.integer("snp", high=255),
            microcode=f.integer("microcode", high=255),
            fmc=f.integer("fmc", high=255) if f.has("fmc") else None,
        )
        f.end()
        return found

    def __str__(self) -> str:
        return " ".join(f"{name} {value}" for name, value in self._parts().items())


@dataclass(frozen=True, slots=True, order=True)
class Firmware:
    """A version of the SNP firmware, ``major.minor.build``, each 0 to 255."""

    major: int
    minor: int
    build: int

    def to_json(self) -> dict[str, JSON]:
        return {"build": self.build, "major": self.major, "minor": self.minor}

    @classmethod
    def from_json(cls, value: object) -> Firmware:
        """Raises BadField."""
        f = Fields(value, "firmware")
        found = cls(f.integer("major", high=255), f.integer("minor", high=255), f.integer("build", high=255))
        f.end()
        return found

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.build}"


@dataclass(frozen=True, slots=True)
class Processor:
    """A kind of processor, as far as it has microcode and thus a TCB of its own.

    Attributes:
        name: ``milan``, ``milan_x``, ``genoa``, ``genoa_x``, ``bergamo`` (and Siena), ``turin``, ``turin_dense``.
        line: the product line whose keys endorse it: ``milan``, ``genoa``, ``turin``.
    """

    name: str
    line: str


LINES = ("milan", "genoa", "turin")
PROCESSORS: Mapping[str, Processor] = MappingProxyType(
    {
        name: Processor(name, line)
        for name, line in (
            ("milan", "milan"),
            ("milan_x", "milan"),
            ("genoa", "genoa"),
            ("genoa_x", "genoa"),
            ("bergamo", "genoa"),
            ("turin", "turin"),
            ("turin_dense", "turin"),
        )
    }
)
_X3D = 2  # the stepping of Milan-X and Genoa-X


def processor_of(family: int, model: int, stepping: int) -> Processor | None:
    """The processor of a combined CPUID family, model and stepping; ``None`` for one that is not known here."""
    name = None
    if family == 0x19:
        known = {0x0: "milan", 0x1: "genoa", 0xA: "bergamo"}
        name = known.get(model >> 4)
        if stepping == _X3D and model in {0x01, 0x11}:
            name = f"{name}_x"
    elif family == 0x1A:
        name = {0x0: "turin", 0x1: "turin_dense"}.get(model >> 4)
    return PROCESSORS[name] if name else None


@dataclass(frozen=True, slots=True)
class Claims:
    """What an attestation report says. **Untrusted**: ``snp.verify`` says whether AMD's hardware signed it.

    Attributes:
        version: of the report, 2 to 5.
        guest_svn: the guest's security version number.
        policy: GUEST_POLICY, 64 bits.
        family_id, image_id: 16 bytes each, from the guest's ID block.
        vmpl: the privilege level that asked, 0 to 3; ``HOST_VMPL`` where the host did.
        signature_algorithm: 1 is ECDSA P-384 with SHA-384.
        current_tcb, reported_tcb, committed_tcb, launch_tcb: raw TCB_VERSION, 8 bytes each (:meth:`Tcb.decode`).
        platform_info: PLATFORM_INFO, 64 bits.
        key_info: AUTHOR_KEY_EN, MASK_CHIP_KEY and SIGNING_KEY.
        report_data: 64 bytes chosen by the guest.
        measurement: of the guest's first memory, 48 bytes.
        host_data: 32 bytes chosen by the host at launch.
        id_key_digest, author_key_digest: SHA-384 of the keys that signed the ID block, 48 bytes each; zero without.
        report_id, report_id_ma: the guest's and its migration agent's, 32 bytes each.
        cpuid: combined family, model and stepping, 3 bytes; zero in version 2, which does not say.
        chip_id: 64 bytes; zero where masked; on Turin the first 8 bytes.
        current, committed: firmware versions.
        launch_mitigations, current_mitigations: vectors of 64 bits; zero before version 4.
        r, s: the signature's numbers, as they stand there.
    """

    version: int
    guest_svn: int
    policy: int
    family_id: bytes
    image_id: bytes
    vmpl: int
    signature_algorithm: int
    current_tcb: bytes
    platform_info: int
    key_info: int
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    report_id_ma: bytes
    reported_tcb: bytes
    cpuid: bytes
    chip_id: bytes
    committed_tcb: bytes
    current: Firmware
    committed: Firmware
    launch_tcb: bytes
    launch_mitigations: int
    current_mitigations: int
    r: int
    s: int

    def encode(self) -> bytes:
        """The 1184 bytes of the report."""
        return _LAYOUT.pack(
            self.version,
            self.guest_svn,
            self.policy,
            self.family_id,
            self.image_id,
            self.vmpl,
            self.signature_algorithm,
            self.current_tcb,
            self.platform_info,
            self.key_info,
            self.report_data,
            self.measurement,
            self.host_data,
            self.id_key_digest,
            self.author_key_digest,
            self.report_id,
            self.report_id_ma,
            self.reported_tcb,
            self.cpuid,
            self.chip_id,
            self.committed_tcb,
            self.current.build,
            self.current.minor,
            self.current.major,
            self.committed.build,
            self.committed.minor,
            self.committed.major,
            self.launch_tcb,
            self.launch_mitigations,
            self.current_mitigations,
            self.r.to_bytes(72, "little"),
            self.s.to_bytes(72, "little"),
        )

    @property
    def debug(self) -> bool:
        """Whether the guest's policy lets the host read its memory."""
        return self.allows("debug")

    def allows(self, name: str) -> bool:
        """Whether a bit of GUEST_POLICY is set, by its name in ``POLICY_BITS``."""
        return bool(self.policy >> POLICY_BITS[name] & 1)

    def platform_has(self, name: str) -> bool:
        """Whether a bit of PLATFORM_INFO is set, by its name in ``PLATFORM_BITS``."""
        return bool(self.platform_info >> PLATFORM_BITS[name] & 1)

    @property
    def unknown_bits(self) -> tuple[int, int]:
        """The bits of GUEST_POLICY and of PLATFORM_INFO whose meaning is not known here."""
        return self.policy & ~_KNOWN_POLICY, self.platform_info & ~_KNOWN_PLATFORM

    @property
    def minimum_abi(self) -> tuple[int, int]:
        """The least ABI, major and minor, that the guest's policy asks of the firmware."""
        return self.policy >> 8 & 0xFF, self.policy & 0xFF

    @property
    def author_key_enabled(self) -> bool:
        return bool(self.key_info & 1)

    @property
    def unsigned(self) -> bool:
        """Whether the host had MASK_CHIP_KEY set: the firmware then signs nothing."""
        return bool(self.key_info & 2)

    @property
    def signing_key(self) -> str:
        """``vcek``, ``vlek`` or ``none``."""
        return SIGNING_KEYS[self.key_info >> 2]

    @property
    def processor(self) -> Processor | None:
        """The processor that CPUID names; ``None`` for an unknown one, and in version 2."""
        return processor_of(*self.cpuid)


def parse(data: bytes) -> Claims:
    """What a report of 1184 bytes says, believed by nobody yet.

    Raises:
        BadEvidence: another length or version, a reserved byte or bit that is not as it must be, or fields that contradict
            one another.
    """
    if len(data) != REPORT_BYTES:
        raise BadEvidence(f"an SEV-SNP report is {REPORT_BYTES} bytes long, not {len(data)}")
    found = _LAYOUT.unpack(data)
    values: tuple[Any, ...] = (
        *found[:21],
        Firmware(found[23], found[22], found[21]),
        Firmware(found[26], found[25], found[24]),
        *found[27:30],
        int.from_bytes(found[30], "little"),
        int.from_bytes(found[31], "little"),
    )
    claims = Claims(*values)
    if claims.version not in VERSIONS:
        raise BadEvidence(f"an SEV-SNP report of version {claims.version}, where 2 to 5 are known")
    if claims.encode() != data:
        raise BadEvidence("a reserved byte of the SEV-SNP report is not zero")
    _require_sense(claims)
    return claims


def _require_sense(claims: Claims) -> None:
    """Raises BadEvidence: a value that no firmware writes in a report of this version."""
    if claims.version < 3 and any(claims.cpuid):
        raise BadEvidence("an SEV-SNP report of version 2 names a processor")
    if claims.version < 4 and claims.launch_mitigations | claims.current_mitigations:
        raise BadEvidence(f"an SEV-SNP report of version {claims.version} lists mitigations")
    if not claims.policy >> _ALWAYS_ONE & 1:
        raise BadEvidence("bit 17 of the guest's policy is not set")
    if claims.vmpl > MAX_VMPL and claims.vmpl != HOST_VMPL:
        raise BadEvidence(f"no privilege level has the number {claims.vmpl}")
    if claims.key_info >> 2 not in SIGNING_KEYS:
        raise BadEvidence(f"no key is known by the field {claims.key_info:#x}")
    if claims.author_key_enabled != any(claims.author_key_digest):
        raise BadEvidence("an author's key is named and not enabled, or the other way round")
