"""What a policy asks of NVIDIA's devices beyond what makes their reports genuine. See ``spec/evidence-nvidia.md``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Self

from strongroom.errors import BadField
from strongroom.wire import JSON, Fields

from .nvidia_device import PLATFORM, SWITCH_PLATFORM, Architecture

ANY_VERSION = "any-version"
REQUIRED = "required"
WHERE_GIVEN = "where-given"
MAX_EXPIRED_DAYS = 3650
MAX_VERSIONS = 64

_DRIVER = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,6}){0,3}\Z")
_VBIOS = re.compile(r"[0-9A-F]{2}(?:\.[0-9A-F]{2}){0,4}\Z")


@dataclass(frozen=True, slots=True)
class Versions:
    """Which versions of something are accepted: from one on, or the ones named, or - said in words - any.

    Args:
        at_least: the oldest accepted, or the beginning of it (``580``); ``None`` where ``one_of`` counts.
        one_of: those accepted; empty, none is.
        any_version: whether every version is; the other two then say nothing.

    Raises:
        BadField: more than one of these, or too many versions.
    """

    at_least: str | None = None
    one_of: frozenset[str] = frozenset()
    any_version: bool = False

    def __post_init__(self) -> None:
        if (self.at_least is not None) + bool(self.one_of) + self.any_version > 1 or len(self.one_of) > MAX_VERSIONS:
            raise BadField("versions are accepted from one on, or those named, or any: one of these")

    def accept(self, version: str, base: int) -> bool:
        """Whether this version is accepted; its parts are numbers to this base."""
        if self.at_least is None:
            return self.any_version or version in self.one_of
        return _parts(version, base) >= _parts(self.at_least, base)

    def __str__(self) -> str:
        if self.any_version:
            return "any"
        return f"{self.at_least} or later" if self.at_least is not None else f"one of {len(self.one_of)}"

    def to_json(self) -> JSON:
        if self.any_version:
            return ANY_VERSION
        return {"one_of": [*sorted(self.one_of)]} if self.at_least is None else {"at_least": self.at_least}

    @classmethod
    def from_json(cls, value: object, form: re.Pattern[str]) -> Versions:
        """Raises BadField."""
        if value == ANY_VERSION:
            return ANY
        f = Fields(value, "versions")
        if f.has("at_least"):
            found = cls(at_least=_version(f.any("at_least"), form))
        else:
            named = f.items("one_of", lambda item: _version(item, form), high=MAX_VERSIONS)
            if list(named) != sorted(set(named)):
                raise BadField("versions.one_of is not sorted and distinct")
            found = cls(one_of=frozenset(named))
        f.end()
        return found


ANY = Versions(any_version=True)


def _parts(version: str, base: int) -> tuple[int, ...]:
    return tuple(int(part, base) for part in version.split("."))


def _version(value: object, form: re.Pattern[str]) -> str:
    if not isinstance(value, str) or not form.match(value):
        raise BadField("a version is not numbers between dots")
    return value


@dataclass(frozen=True, slots=True)
class Software:
    """What may run on devices of one architecture.

    Args:
        vbios: accepted versions of the VBIOS; parts are hexadecimal.
        driver: accepted versions of the driver; ``None`` for a switch, which has none.
    """

    vbios: Versions
    driver: Versions | None

    def to_json(self) -> dict[str, JSON]:
        driver = {} if self.driver is None else {"driver": self.driver.to_json()}
        return {**driver, "vbios": self.vbios.to_json()}


# R580 is the oldest branch of the driver that is still kept up. Of the VBIOS any version may do whose certificates stand:
# NVIDIA revokes those of firmware that it no longer vouches for.
_KEPT_UP = Software(ANY, Versions(at_least="580"))


def _strict() -> dict[Architecture, Software]:
    return {Architecture.BLACKWELL: _KEPT_UP, Architecture.HOPPER: _KEPT_UP}


def _strict_switches() -> dict[Architecture, Software]:
    return {Architecture.LS10: Software(ANY, None)}


@dataclass(frozen=True, slots=True)
class _DeviceTerms:
    """What a policy asks of NVIDIA's devices of either kind.

    Args:
        architectures: accepted architectures, and what may run on each; empty, none is.
        device_revocation: whether it must be said that each device certificate still stands (``required``), or is looked
            at only where somebody says so (``where-given``). One that is revoked is refused in either case.
        signer_revocation: likewise for the certificates of those who signed the manifests.
        signers_expired_days: how long ago a manifest's signers may have expired, in days, 0 to 3650; 0: not at all.

    Raises:
        BadField: outside these bounds; a device of the other kind is named; or a driver for a switch, or none for a GPU.
    """

    NAME: ClassVar[str]
    architectures: Mapping[Architecture, Software]
    device_revocation: str = REQUIRED
    signer_revocation: str = REQUIRED
    signers_expired_days: int = 0

    def __post_init__(self) -> None:
        if not {self.device_revocation, self.signer_revocation} <= {REQUIRED, WHERE_GIVEN}:
            raise BadField(f"revocation is neither {REQUIRED!r} nor {WHERE_GIVEN!r}")
        if not 0 <= self.signers_expired_days <= MAX_EXPIRED_DAYS:
            raise BadField(f"signers may not have expired more than {MAX_EXPIRED_DAYS} days ago")
        if any(a.platform != self.NAME for a in self.architectures):
            raise BadField(f"the terms of {self.NAME} name another kind of device")
        if any(a.is_switch is not (software.driver is None) for a, software in self.architectures.items()):
            raise BadField("a GPU has a driver, and a switch has none")
        object.__setattr__(self, "architectures", MappingProxyType(dict(sorted(self.architectures.items()))))

    def to_json(self) -> dict[str, JSON]:
        return {
            "architectures": {a.value: software.to_json() for a, software in self.architectures.items()},
            "device_revocation": self.device_revocation,
            "signer_revocation": self.signer_revocation,
            "signers_expired_days": self.signers_expired_days,
        }

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Raises BadField."""
        f = Fields(value, f"terms of {cls.NAME}")
        found = cls(**cls._members(f))
        f.end()
        return found

    @classmethod
    def _members(cls, f: Fields) -> dict[str, Any]:
        choices = (REQUIRED, WHERE_GIVEN)
        return {
            "architectures": _architectures(f),
            "device_revocation": f.text("device_revocation", choices=choices),
            "signer_revocation": f.text("signer_revocation", choices=choices),
            "signers_expired_days": f.integer("signers_expired_days", high=MAX_EXPIRED_DAYS),
        }


@dataclass(frozen=True, slots=True)
class SwitchTerms(_DeviceTerms):
    """What a policy asks of NVIDIA's switches. Without arguments: every generation that is known."""

    NAME: ClassVar[str] = SWITCH_PLATFORM
    architectures: Mapping[Architecture, Software] = field(default_factory=_strict_switches)


@dataclass(frozen=True, slots=True)
class Terms(_DeviceTerms):
    """What a policy asks of NVIDIA's GPUs. Without arguments: both generations, with a driver that is kept up.

    Args, beside those of every device:
        protected_pcie: whether a GPU may be in the mode that leaves the links between devices in the clear. It is then
            accepted only together with the switches that it is linked to.
    """

    NAME: ClassVar[str] = PLATFORM
    architectures: Mapping[Architecture, Software] = field(default_factory=_strict)
    protected_pcie: bool = False

    def to_json(self) -> dict[str, JSON]:
        return {**super(Terms, self).to_json(), "protected_pcie": self.protected_pcie}

    @classmethod
    def _members(cls, f: Fields) -> dict[str, Any]:
        return {**super(Terms, cls)._members(f), "protected_pcie": f.boolean("protected_pcie")}


def _architectures(f: Fields) -> dict[Architecture, Software]:
    named = f.any("architectures")
    if not isinstance(named, dict) or not set(named) <= set(Architecture):
        raise BadField("terms.architectures is not an object of known architectures")
    return {Architecture(name): _software(software) for name, software in named.items()}


def _software(value: object) -> Software:
    f = Fields(value, "software")
    driver = Versions.from_json(f.any("driver"), _DRIVER) if f.has("driver") else None
    found = Software(Versions.from_json(f.any("vbios"), _VBIOS), driver)
    f.end()
    return found


@dataclass(frozen=True, slots=True)
class TokenTerms:
    """What a policy asks of the tokens of NVIDIA's attestation service. Without arguments: as ``Terms`` does.

    Args:
        architectures: accepted architectures of GPUs, and what may run on each; empty, none is.
        revocation: whether the service must say that every certificate is valid and stands (``required``), or need not say
            anything (``where-given``: tokens of version 2 do not). What it says to the contrary is refused in either case.

    Raises:
        BadField: another word, or a switch.
    """

    architectures: Mapping[Architecture, Software] = field(default_factory=_strict)
    revocation: str = REQUIRED

    def __post_init__(self) -> None:
        if self.revocation not in {REQUIRED, WHERE_GIVEN}:
            raise BadField(f"revocation is neither {REQUIRED!r} nor {WHERE_GIVEN!r}")
        if any(a.is_switch or software.driver is None for a, software in self.architectures.items()):
            raise BadField("tokens are about GPUs, and a GPU has a driver")
        object.__setattr__(self, "architectures", MappingProxyType(dict(sorted(self.architectures.items()))))

    def to_json(self) -> dict[str, JSON]:
        named: dict[str, JSON] = {a.value: software.to_json() for a, software in self.architectures.items()}
        return {"architectures": named, "revocation": self.revocation}

    @classmethod
    def from_json(cls, value: object) -> TokenTerms:
        """Raises BadField."""
        f = Fields(value, "terms of nras")
        found = cls(_architectures(f), f.text("revocation", choices=(REQUIRED, WHERE_GIVEN)))
        f.end()
        return found
