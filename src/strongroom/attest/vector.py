"""The AR4SI trust vector: what an appraisal claims about each aspect of an attester, and the tier that follows.

Values and tiers are those of draft-ietf-rats-ar4si, sections 2.3.2 to 2.3.4; names are those of the EAR serialisation
(draft-ietf-rats-ear). A zero claims nothing: it stands where nothing is known, as of the hardware of a simulated platform.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum

from strongroom.wire import JSON

NO_CLAIM = 0
AFFIRMED = 2  # the best value of every claim
APPROVED_AT_START = 3  # executables: approved when they were loaded; later loads were not watched
UNRECOGNIZED_EXECUTABLES = 33
UNACCEPTABLE = 96
UNRECOGNIZED = 97
CRYPTO_FAILED = 99


class Tier(StrEnum):
    """What a relying party may conclude, from best to worst."""

    AFFIRMING = "affirming"
    NONE = "none"
    WARNING = "warning"
    CONTRAINDICATED = "contraindicated"


def tier(value: int) -> Tier:
    """The tier of one claim's value, -128 to 127 (draft-ietf-rats-ar4si, section 2.3.2)."""
    if -2 < value < 2:
        return Tier.NONE
    if -33 < value < 32:
        return Tier.AFFIRMING
    return Tier.WARNING if -97 < value < 96 else Tier.CONTRAINDICATED


def worst_tier(*tiers: Tier) -> Tier:
    """The worst of them, in the order of ``Tier``."""
    return max(tiers, key=list(Tier).index)


def worse(one: int, other: int) -> int:
    """The worse of two values of one claim; a value that claims nothing gives way to one that does."""
    order = [Tier.NONE, Tier.AFFIRMING, Tier.WARNING, Tier.CONTRAINDICATED]
    return max(one, other, key=lambda value: order.index(tier(value)))


@dataclass(frozen=True, slots=True)
class TrustVector:
    """Eight claims, each -128 to 127; zero claims nothing (draft-ietf-rats-ar4si, section 2.3.4)."""

    instance_identity: int = NO_CLAIM
    configuration: int = NO_CLAIM
    executables: int = NO_CLAIM
    file_system: int = NO_CLAIM
    hardware: int = NO_CLAIM
    runtime_opaque: int = NO_CLAIM
    storage_opaque: int = NO_CLAIM
    sourced_data: int = NO_CLAIM

    @property
    def worst(self) -> Tier:
        """The worst tier of the claims that are made; ``NONE`` when none is."""
        made = [tier(value) for value in self._claims().values() if tier(value) is not Tier.NONE]
        return worst_tier(*made) if made else Tier.NONE

    @property
    def warnings(self) -> tuple[str, ...]:
        """The claims that are made with a warning, by their names in an EAR."""
        return tuple(name.replace("_", "-") for name, value in self._claims().items() if tier(value) is Tier.WARNING)

    def _claims(self) -> dict[str, int]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def to_json(self) -> dict[str, JSON]:
        return {name.replace("_", "-"): value for name, value in self._claims().items()}
