"""What a verifier asks of evidence, as a document that its owner signs. An empty list in it accepts nothing.

See ``spec/appraisal.md``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from strongroom import wire
from strongroom.errors import BadAppraisalPolicy, BadField, StrongroomError
from strongroom.party import SigningKey, VerifyKey
from strongroom.wire import JSON, Envelope, Fields

from .evidence import MAX_DEVICES, PLATFORM_NAME, Measurement, Roots, Terms
from .registry import DEVICES, verifier

DEFAULT_MAX_AGE_S = 300
MAX_REFERENCES = 1024
MAX_MACHINES = 4096
MAX_POLICY_BYTES = 1 << 20
POLICY_TYPE = wire.media_type("appraisal-policy")
ANY_MACHINE = "any-machine"  # said in words: an empty list of machines accepts none

_MACHINE = re.compile(r"[a-z]{1,16}:[0-9a-f]{2,256}\Z")


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference value: what may run, what people call it, and the build that it comes from.

    Args:
        measurement: the registers, each compared for equality.
        name: for people, at most 128 characters.
        build: where the measured image comes from (a commit, a digest, an address), at most 512 characters.
    """

    measurement: Measurement
    name: str = ""
    build: str = ""

    def to_json(self) -> dict[str, JSON]:
        return {"build": self.build, "measurement": self.measurement.to_json(), "name": self.name}

    def encode(self) -> bytes:
        return wire.encode(self.to_json())

    @classmethod
    def from_json(cls, value: object) -> Reference:
        """Raises BadField, BadMeasurement."""
        f = Fields(value, "reference")
        measurement = Measurement.from_json(f.any("measurement"))
        found = cls(measurement, f.text("name", max_chars=128), f.text("build", max_chars=512))
        f.end()
        return found


@dataclass(frozen=True, slots=True)
class AppraisalPolicy:
    """What a verifier asks of evidence. The policy without arguments refuses everything.

    Args:
        platforms: names of accepted platforms of processors.
        roots: platform or device to what may vouch for its keys.
        references: accepted reference values.
        max_age_s: how old evidence may be, in seconds, by its platform's clock; 1 second to a day.
        machines: identities of accepted machines (``chip:…``), or ``None`` for the word ``any-machine``.
        devices: kind of device to how many there must be, exactly; what is not named may not be there.
        terms: platform or device to its terms; the platform's own, strict ones where nothing is said.

    Raises:
        BadAppraisalPolicy: outside these bounds.
    """

    platforms: frozenset[str] = frozenset()
    roots: Mapping[str, Roots] = field(default_factory=dict)
    references: tuple[Reference, ...] = ()
    max_age_s: int = DEFAULT_MAX_AGE_S
    machines: frozenset[str] | None = None
    devices: Mapping[str, int] = field(default_factory=dict)
    terms: Mapping[str, Terms] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1 <= self.max_age_s <= 86_400:
            raise BadAppraisalPolicy("the greatest age of evidence is not 1 second to a day")
        if not all(PLATFORM_NAME.match(name) for name in (*self.platforms, *self.roots, *self.devices, *self.terms)):
            raise BadAppraisalPolicy("the policy names something that is no platform's name")
        if self.platforms & DEVICES or not DEVICES.issuperset(self.devices):
            raise BadAppraisalPolicy("the policy takes a device for a processor, or the other way round")
        if not all(1 <= count <= MAX_DEVICES for count in self.devices.values()):
            raise BadAppraisalPolicy(f"the policy does not ask for 1 to {MAX_DEVICES} devices of a kind")
        if not all(_MACHINE.match(machine) for machine in self.machines or ()) or len(self.machines or ()) > MAX_MACHINES:
            raise BadAppraisalPolicy(f"more than {MAX_MACHINES} machines, or one that is no machine's identity")
        references = sorted(set(self.references), key=Reference.encode)
        if len(references) > MAX_REFERENCES:
            raise BadAppraisalPolicy(f"more than {MAX_REFERENCES} reference values")
        object.__setattr__(self, "platforms", frozenset(self.platforms))
        object.__setattr__(self, "references", tuple(references))
        object.__setattr__(self, "machines", None if self.machines is None else frozenset(self.machines))
        for name in ("roots", "devices", "terms"):
            object.__setattr__(self, name, MappingProxyType(dict(sorted(getattr(self, name).items()))))

    def __hash__(self) -> int:
        return hash(self.digest)

    def accepts(self, measurement: Measurement) -> Reference | None:
        """The first reference value whose every register is equal, or ``None``."""
        return next((r for r in self.references if r.measurement == measurement), None)

    def terms_of(self, name: str) -> Any:
        """The terms for a platform or device that this version can verify: the policy's, or the platform's strict ones."""
        found = self.terms.get(name)
        if found is None:
            known = verifier(name)
            assert known is not None
            return known.Terms()
        return found

    @property
    def digest(self) -> str:
        """The digest of the canonical form, which results name."""
        return wire.digest(self.encode())

    def to_json(self) -> dict[str, JSON]:
        return {
            "devices": dict(self.devices),
            "machines": ANY_MACHINE if self.machines is None else [*sorted(self.machines)],
            "max_age_s": self.max_age_s,
            "platforms": [*sorted(self.platforms)],
            "references": [reference.to_json() for reference in self.references],
            "roots": {name: roots.to_json() for name, roots in self.roots.items()},
            "terms": {name: terms.to_json() for name, terms in self.terms.items()},
        }

    @classmethod
    def from_json(cls, value: object) -> AppraisalPolicy:
        """Raises BadField, BadKey, BadMeasurement, BadAppraisalPolicy."""
        f = Fields(value, "appraisal policy")
        found = cls(
            platforms=frozenset(f.names("platforms", high=32)),
            roots={name: Roots.from_json(roots) for name, roots in _object(f, "roots").items()},
            references=f.items("references", Reference.from_json, high=MAX_REFERENCES),
            max_age_s=f.integer("max_age_s"),
            machines=_machines(f),
            devices={
                name: Fields({"n": n}, "appraisal policy.devices").integer("n") for name, n in _object(f, "devices").items()
            },
            terms={name: _terms(name, terms) for name, terms in _object(f, "terms").items()},
        )
        f.end()
        if found.to_json() != value:
            raise BadAppraisalPolicy("machines, reference values or roots are not sorted and distinct")
        return found

    def encode(self) -> bytes:
        return wire.encode(self.to_json())

    @classmethod
    def parse(cls, data: bytes) -> AppraisalPolicy:
        """Raises WireError and its leaves, BadKey, BadMeasurement, BadAppraisalPolicy."""
        return cls.from_json(wire.decode(data, max_bytes=MAX_POLICY_BYTES))

    def sign(self, owner: SigningKey) -> Envelope:
        """The policy as a document of its owner's."""
        return owner.sign(POLICY_TYPE, self.encode())

    @classmethod
    def verify(cls, document: Envelope, owner: VerifyKey) -> AppraisalPolicy:
        """The policy that an owner signed. Raises BadSignature, and what :meth:`parse` raises."""
        return cls.parse(owner.verify(document, POLICY_TYPE))


def _object(f: Fields, name: str) -> dict[str, Any]:
    found = f.any(name)
    if not isinstance(found, dict):
        raise BadField(f"appraisal policy.{name} is not an object")
    return found


def _machines(f: Fields) -> frozenset[str] | None:
    value = f.any("machines")
    if value == ANY_MACHINE:
        return None
    g = Fields({"machines": value}, "appraisal policy")
    return frozenset(g.items("machines", lambda m: Fields({"machine": m}, "machines").text("machine"), high=MAX_MACHINES))


def _terms(name: str, value: object) -> Terms:
    """The terms of one platform. Raises BadAppraisalPolicy."""
    known = verifier(name)
    if known is None:
        raise BadAppraisalPolicy(f"the policy has terms for {name[:64]!r}, which this version does not know")
    try:
        found: Terms = known.Terms.from_json(value)
    except StrongroomError as error:
        raise BadAppraisalPolicy(f"the policy's terms for {name}: {error.message}") from error
    return found
