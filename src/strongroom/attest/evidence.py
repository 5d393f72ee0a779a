"""What a platform says about an enclave, before anybody has checked it; and what a verified platform module hands on.

See ``spec/attestation.md``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from strongroom import wire
from strongroom.errors import BadEndorsement, BadEvidence, BadMeasurement
from strongroom.party import VerifyKey
from strongroom.transcript import Steps, Transcript
from strongroom.wire import JSON, Fields

from .vector import TrustVector

MAX_EVIDENCE_BYTES = 256 << 10
MAX_ENDORSEMENT_BYTES = 1 << 20
MAX_ENDORSEMENTS = 64
REPORT_DATA_BYTES = 64

PLATFORM_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?\Z")  # a name, as in ``wire.Fields.name``
_REGISTER = re.compile(r"[a-z0-9][a-z0-9_]{0,31}\Z")
_VALUE = re.compile(r"(?:sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96})\Z")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a platform signed. **Untrusted**, all of it: ``platform`` says only which verifier to ask.

    Args:
        platform: the platform's name (``simulated``).
        data: the signed bytes in the platform's own format, at most 256 KiB.

    Raises:
        BadEvidence: not a platform's name, or too many bytes.
    """

    platform: str
    data: bytes

    def __post_init__(self) -> None:
        if not PLATFORM_NAME.match(self.platform):
            raise BadEvidence("the evidence does not name a platform")
        if len(self.data) > MAX_EVIDENCE_BYTES:
            raise BadEvidence(f"the evidence is longer than {MAX_EVIDENCE_BYTES} bytes")


@dataclass(frozen=True, slots=True)
class Endorsement:
    """One document that vouches for a platform's key. **Untrusted** until a pinned root verifies it.

    Args:
        media_type: what it is.
        data: its bytes, at most 1 MiB.
    """

    media_type: str
    data: bytes

    def to_json(self) -> dict[str, JSON]:
        return {"data": wire.b64(self.data), "media_type": self.media_type}

    @classmethod
    def from_json(cls, value: object) -> Endorsement:
        """Raises BadField."""
        f = Fields(value, "endorsement")
        found = cls(media_type=f.media_type("media_type"), data=f.base64("data", max_bytes=MAX_ENDORSEMENT_BYTES))
        f.end()
        return found


@dataclass(frozen=True, slots=True)
class Endorsements:
    """The documents that came with some evidence. **Untrusted.**

    Args:
        documents: at most 64.

    Raises:
        BadEndorsement: more than that.
    """

    documents: tuple[Endorsement, ...] = ()

    def __post_init__(self) -> None:
        if len(self.documents) > MAX_ENDORSEMENTS:
            raise BadEndorsement(f"more than {MAX_ENDORSEMENTS} endorsements")

    def to_json(self) -> list[JSON]:
        return [document.to_json() for document in self.documents]

    @classmethod
    def from_json(cls, value: object) -> Endorsements:
        """Raises BadField."""
        f = Fields({"endorsements": value}, "evidence")
        return cls(f.items("endorsements", Endorsement.from_json, high=MAX_ENDORSEMENTS))


class Platform(Protocol):
    """What produces evidence, as an enclave sees it: a process, a device or an agent outside it."""

    def produce(self, report_data: bytes) -> Evidence:
        """Evidence that binds 64 bytes of the enclave's choosing to what runs. Raises PlatformFailed."""
        ...

    def endorsements(self) -> Endorsements:
        """The documents that the platform hands out beside its evidence. Raises PlatformFailed."""
        ...


@dataclass(frozen=True, slots=True)
class Measurement:
    """What runs, as digests. Two measurements are the same exactly when every register is.

    Args:
        platform: the platform's name.
        registers: register name to ``sha256:`` or ``sha384:`` digest; 1 to 32 of them.

    Raises:
        BadMeasurement: no register, too many, or one that is not a digest.
    """

    platform: str
    registers: Mapping[str, str]

    def __post_init__(self) -> None:
        if not PLATFORM_NAME.match(self.platform):
            raise BadMeasurement("a measurement does not name a platform")
        if not 1 <= len(self.registers) <= 32:
            raise BadMeasurement("a measurement does not have 1 to 32 registers")
        for name, value in self.registers.items():
            if not _REGISTER.match(name) or not _VALUE.match(value):
                raise BadMeasurement(f"register {name[:32]!r} of a measurement is not a digest")
        object.__setattr__(self, "registers", MappingProxyType(dict(sorted(self.registers.items()))))

    def __hash__(self) -> int:
        return hash((self.platform, tuple(self.registers.items())))

    @property
    def digest(self) -> str:
        """The digest of the canonical form."""
        return wire.digest(self.encode())

    def to_json(self) -> dict[str, JSON]:
        return {"platform": self.platform, "registers": dict(self.registers)}

    @classmethod
    def from_json(cls, value: object) -> Measurement:
        """Raises BadField, BadMeasurement."""
        f = Fields(value, "measurement")
        platform, registers = f.name("platform"), f.any("registers")
        f.end()
        if not isinstance(registers, dict) or not all(isinstance(v, str) for v in registers.values()):
            raise BadMeasurement("a measurement's registers are not an object of digests")
        return cls(platform, registers)

    def encode(self) -> bytes:
        return wire.encode(self.to_json())

    @classmethod
    def parse(cls, data: bytes) -> Measurement:
        """Raises WireError and its leaves, BadMeasurement."""
        return cls.from_json(wire.decode(data, max_bytes=16 << 10))


class Verified(Protocol):
    """What a platform's verifier found signed, alike for every platform. Each has its own class, with one maker.

    Attributes:
        report_data: the 64 bytes that the enclave chose.
        measurement: what runs.
        debug: whether the enclave's memory may be read by its host.
        produced_at: when the evidence was made, unix seconds by the platform's clock; ``None`` where the platform has none.
        valid_until: the last second at which every endorsement used is valid, unix seconds.
        collateral: digests of the endorsements used.
        vector: what can be claimed of the platform itself; ``executables`` and ``configuration`` are for the appraisal.
    """

    @property
    def report_data(self) -> bytes: ...
    @property
    def measurement(self) -> Measurement: ...
    @property
    def debug(self) -> bool: ...
    @property
    def produced_at(self) -> int | None: ...
    @property
    def valid_until(self) -> int: ...
    @property
    def collateral(self) -> tuple[str, ...]: ...
    @property
    def vector(self) -> TrustVector: ...


class Verifier(Protocol):
    """What each platform module is: its label, its own numbered checks, and ``verify``."""

    @property
    def LABEL(self) -> str: ...  # noqa: N802 - a module constant
    @property
    def STEPS(self) -> Steps: ...  # noqa: N802 - a module constant

    def verify(
        self,
        evidence: Evidence,
        endorsements: Endorsements,
        *,
        roots: tuple[VerifyKey, ...],
        at: int,
        transcript: Transcript,
    ) -> Verified:
        """What the platform signed, every one of ``STEPS`` recorded as passed in ``transcript``.

        Raises:
            AttestationError: a leaf, for the first check that failed; that check is recorded, none after it is.
        """
        ...
