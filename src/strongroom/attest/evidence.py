"""What a platform says about an enclave, before anybody has checked it; and what a verified platform module hands on.

See ``spec/attestation.md``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

from strongroom import wire
from strongroom.errors import BadEndorsement, BadEvidence, BadField, BadMeasurement
from strongroom.party import VerifyKey
from strongroom.transcript import Steps, Transcript
from strongroom.wire import JSON, MAX_INT, Fields

from .vector import TrustVector

MAX_EVIDENCE_BYTES = 256 << 10
MAX_EVENT_LOG_BYTES = 1 << 20
MAX_DEVICES = 16
MAX_BINDING_BYTES = 64 << 10
MAX_ENDORSEMENT_BYTES = 1 << 20
MAX_ENDORSEMENTS = 64
REPORT_DATA_BYTES = 64
FOREVER = MAX_INT  # of what has no end

PLATFORM_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?\Z")  # a name, as in ``wire.Fields.name``
_REGISTER = re.compile(r"[a-z0-9][a-z0-9_]{0,31}\Z")
_ROOT = re.compile(r"sha256:[0-9a-f]{64}\Z")
_VALUE = re.compile(r"(?:sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96})\Z")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a platform signed. **Untrusted**, all of it: ``platform`` says only which verifier to ask.

    Args:
        platform: the platform's name (``tdx``, ``simulated``).
        data: the signed bytes in the platform's own format, at most 256 KiB.
        event_log: what was measured into the registers, in the platform's own format, at most 1 MiB; empty where there is
            none.
        devices: evidence of the devices beside the processor, at most 16; they have no devices of their own.
        device_binding: the enclave's signature over ``devices`` (``binding.py``), at most 64 KiB; there when they are.

    Raises:
        BadEvidence: not a platform's name, too many bytes, or devices and binding do not come together.
    """

    platform: str
    data: bytes
    event_log: bytes = b""
    devices: tuple[Evidence, ...] = ()
    device_binding: bytes = b""

    def __post_init__(self) -> None:
        if not PLATFORM_NAME.match(self.platform):
            raise BadEvidence("the evidence does not name a platform")
        if len(self.data) > MAX_EVIDENCE_BYTES:
            raise BadEvidence(f"the evidence is longer than {MAX_EVIDENCE_BYTES} bytes")
        if len(self.event_log) > MAX_EVENT_LOG_BYTES:
            raise BadEvidence(f"the event log is longer than {MAX_EVENT_LOG_BYTES} bytes")
        if len(self.devices) > MAX_DEVICES or any(d.devices or d.device_binding or d.event_log for d in self.devices):
            raise BadEvidence(f"more than {MAX_DEVICES} devices, or one with devices or an event log of its own")
        if bool(self.devices) != bool(self.device_binding) or len(self.device_binding) > MAX_BINDING_BYTES:
            raise BadEvidence("devices without what binds them, or the other way round")

    @property
    def digest(self) -> str:
        """The digest of the canonical form."""
        return wire.digest(wire.encode(self.to_json()))

    def members(self) -> dict[str, JSON]:
        """The JSON members but ``platform``; those that are empty are left out."""
        found: dict[str, JSON] = {"data": wire.b64(self.data)}
        if self.event_log:
            found["event_log"] = wire.b64(self.event_log)
        if self.devices:
            found["device_binding"] = wire.b64(self.device_binding)
            found["devices"] = [device.to_json() for device in self.devices]
        return found

    def to_json(self) -> dict[str, JSON]:
        return {"platform": self.platform, **self.members()}

    @classmethod
    def from_fields(cls, platform: str, f: Fields) -> Evidence:
        """Read the members that :meth:`members` writes. Raises BadField, BadEvidence."""
        return cls(
            platform,
            f.base64("data", max_bytes=MAX_EVIDENCE_BYTES),
            event_log=_present(f, "event_log", MAX_EVENT_LOG_BYTES),
            devices=f.items("devices", cls.from_json, low=1, high=MAX_DEVICES) if f.has("devices") else (),
            device_binding=_present(f, "device_binding", MAX_BINDING_BYTES),
        )

    @classmethod
    def from_json(cls, value: object) -> Evidence:
        """Raises BadField, BadEvidence."""
        f = Fields(value, "evidence")
        found = cls.from_fields(f.text("platform", max_chars=64), f)
        f.end()
        return found


def _present(f: Fields, name: str, most: int) -> bytes:
    """The bytes of a member that may be left out, but may not be empty. Raises BadField."""
    if not f.has(name):
        return b""
    found = f.base64(name, max_bytes=most)
    if not found:
        raise BadField(f"evidence.{name} is empty; it is left out instead")
    return found


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


@dataclass(frozen=True, slots=True)
class Roots:
    """What a verifier pins for one platform. Empty, it accepts nothing.

    Args:
        keys: raw Ed25519 root keys (``simulated``).
        certificates: ``sha256:`` digests of root certificates' SubjectPublicKeyInfo (every other platform).

    Raises:
        BadField: what is no such digest.
    """

    keys: tuple[VerifyKey, ...] = ()
    certificates: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not all(_ROOT.match(digest) for digest in self.certificates):
            raise BadField("a pinned root certificate is not the sha256: digest of its key")
        object.__setattr__(self, "keys", tuple(sorted(set(self.keys), key=lambda key: key.raw)))
        object.__setattr__(self, "certificates", tuple(sorted(set(self.certificates))))

    def to_json(self) -> list[JSON]:
        return [*(wire.b64(key.raw) for key in self.keys), *self.certificates]

    @classmethod
    def from_json(cls, value: object) -> Roots:
        """Raises BadField, BadKey."""
        texts = Fields({"roots": value}, "appraisal policy").items("roots", _text, high=64)
        digests = tuple(text for text in texts if text.startswith("sha256:"))
        raw = (Fields({"root": t}, "appraisal policy").base64("root", max_bytes=32) for t in texts if t not in digests)
        return cls(tuple(map(VerifyKey, raw)), digests)


def _text(value: object) -> str:
    return Fields({"root": value}, "appraisal policy").text("root", max_chars=128)


class Terms(Protocol):
    """What a policy asks of one platform beyond what makes evidence genuine. Each platform module has a ``Terms``, whose
    defaults are the strictest that a well-kept machine meets; the JSON form has every member."""

    def to_json(self) -> dict[str, JSON]: ...


class Verified(Protocol):
    """What a platform's verifier found signed, alike for every platform. Each has its own class, with one maker.

    Attributes:
        report_data: what the enclave chose, as it stands in the platform's slot, for people to see.
        measurement: what runs.
        debug: whether the enclave's memory may be read by its host.
        produced_at: when the evidence was made, unix seconds by the platform's clock; ``None`` where the platform has none.
        valid_until: the last second at which every endorsement used is valid, unix seconds.
        collateral: digests of the endorsements used.
        vector: what can be claimed of the platform itself; ``executables`` and ``configuration`` are for the appraisal.
        machine: which machine, as ``kind:lowercase hex`` (``ppid:…``, ``chip:…``, ``ueid:…``); ``None`` where it is not
            said.
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
    @property
    def machine(self) -> str | None: ...
    def binds(self, report_data: bytes) -> bool:
        """Whether these 64 bytes are what the enclave had signed: in the platform's slot, or hashed into a smaller one."""
        ...


class Verifier(Protocol):
    """What each platform module is: its label, its own numbered checks, ``verify`` (is it genuine?) and ``judge`` (does it
    meet this policy's terms?)."""

    @property
    def LABEL(self) -> str: ...  # noqa: N802 - a module constant
    @property
    def STEPS(self) -> Steps: ...  # noqa: N802 - a module constant
    @property
    def TERMS_STEPS(self) -> Steps | None: ...  # noqa: N802 - a module constant; None where a platform has no terms
    @property
    def Terms(self) -> Any: ...  # noqa: N802 - the module's class of terms: ``Terms()``, ``Terms.from_json(value)``

    def verify(
        self, evidence: Evidence, endorsements: Endorsements, *, roots: Roots, at: int, transcript: Transcript
    ) -> Any:
        """What the platform signed (a ``Verified``), every one of ``STEPS`` recorded as passed in ``transcript``.

        Raises:
            AttestationError: a leaf, for the first check that did not pass; that check is recorded (as failed; as not
                established, with the code, when an endorsement is missing), none after it is.
        """
        ...

    def judge(self, verified: Any, terms: Any, *, at: int, transcript: Transcript) -> TrustVector:
        """Record every one of ``TERMS_STEPS``, passed or failed with a code, and say what can be claimed. Never raises."""
        ...


def tolerated(by: Verifier, verified: Any, terms: Any) -> int:
    """The last second at which terms that were met tolerate what is not as it should be, unix.

    A platform whose terms tolerate something for a time says until when: its module has a ``tolerated_until``.
    """
    until = getattr(by, "tolerated_until", None)
    return FOREVER if until is None else int(until(verified, terms))
