"""What a running program may do with what it is given, as a lattice.

A policy has dimensions. Each is ordered from "allows nothing" upwards, the policy's order is the product of theirs, and
``&`` is the greatest lower bound: ``a.permits(b)`` says that whatever ``b`` allows, ``a`` allows too. Owners write terms,
contracts carry a policy, and a key is released only where the terms permit the policy.

What is absent allows nothing. What is unknown is refused, because it could not be enforced. Two policies that permit each
other are equal, because construction brings both to one normal form.

See ``spec/policy.md``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Final, TypeAlias

from . import serving
from .errors import BadField, EmptyPolicy, UnknownDimension
from .serving import Serving
from .wire import JSON, Fields

OUTPUT_KINDS: Final = ("log", "picture", "records", "report", "table", "tensors", "values")
"""The closed set of output kinds: text, PNG, a table with a row per record, aggregates in JSON; of submitted code also an
Arrow table, arrays as safetensors, and JSON of any shape."""

DIMENSIONS: Final = ("egress", "outputs", "serve", "uses")
MAX_DECIMALS: Final = 15
MAX_NAMES: Final = 256


class AnyParty(Enum):
    """The top of the recipients' order: every party that the contract names."""

    ANY_PARTY = "any-party"


ANY_PARTY: Final = AnyParty.ANY_PARTY
Recipients: TypeAlias = AnyParty | frozenset[str]


def _name(value: object, where: str) -> str:
    return Fields({"name": value}, where).name("name")


def _names(values: object, where: str) -> frozenset[str]:
    # A string is an iterable of names too: of its characters.
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise BadField(f"{where} is not a set of names")
    found = frozenset(_name(value, where) for value in values)
    if len(found) > MAX_NAMES:
        raise BadField(f"{where} holds more than {MAX_NAMES} names")
    return found


def _refuse_unknown(members: Iterable[str], known: tuple[str, ...], what: str) -> None:
    for member in sorted(set(members) - set(known)):
        raise UnknownDimension(f"{what} {member[:40]!r} is not one of {', '.join(known)}")


@dataclass(frozen=True, slots=True)
class OutputRule:
    """What one kind of output must keep to, so that it may leave the enclave.

    Attributes:
        recipients: ``ANY_PARTY``, or the names of those who may get it. Nobody else can open it. A rule without recipients
            lets nothing out.
        max_bytes: the largest size of one such output, in bytes, at least 1.
        min_group: groups of fewer records than this are suppressed, at least 1.
        decimals: the most decimal places that a number keeps, 0 to 15.

    Raises:
        BadField: a value out of its range or of another type.
    """

    recipients: Recipients
    max_bytes: int
    min_group: int
    decimals: int

    def __post_init__(self) -> None:
        if not isinstance(self.recipients, AnyParty):
            found = _names(self.recipients, "rule.recipients")
            if ANY_PARTY.value in found:
                raise BadField(f"rule.recipients names a party {ANY_PARTY.value!r}, which is a reserved word")
            object.__setattr__(self, "recipients", found)
        limits = Fields({"decimals": self.decimals, "max_bytes": self.max_bytes, "min_group": self.min_group}, "rule")
        limits.integer("decimals", high=MAX_DECIMALS)
        limits.integer("max_bytes", low=1)
        limits.integer("min_group", low=1)

    def delivers_to(self, party: str) -> bool:
        """Whether ``party``, which the contract must name, may get the output."""
        return isinstance(self.recipients, AnyParty) or party in self.recipients

    def meet(self, other: OutputRule) -> OutputRule:
        """The widest rule that both permit."""
        return OutputRule(
            recipients=_meet_recipients(self.recipients, other.recipients),
            max_bytes=min(self.max_bytes, other.max_bytes),
            min_group=max(self.min_group, other.min_group),
            decimals=min(self.decimals, other.decimals),
        )

    def to_json(self) -> dict[str, JSON]:
        recipients: JSON = self.recipients.value if isinstance(self.recipients, AnyParty) else [*sorted(self.recipients)]
        return {
            "decimals": self.decimals,
            "max_bytes": self.max_bytes,
            "min_group": self.min_group,
            "recipients": recipients,
        }

    @classmethod
    def from_json(cls, value: object) -> OutputRule:
        """Raises BadField, UnknownDimension."""
        if isinstance(value, dict):
            _refuse_unknown(value, ("decimals", "max_bytes", "min_group", "recipients"), "the rule's member")
        f = Fields(value, "rule")
        return cls(
            recipients=_read_recipients(f),
            max_bytes=f.integer("max_bytes", low=1),
            min_group=f.integer("min_group", low=1),
            decimals=f.integer("decimals", high=MAX_DECIMALS),
        )


def _meet_recipients(one: Recipients, other: Recipients) -> Recipients:
    if isinstance(one, AnyParty):
        return other
    return one if isinstance(other, AnyParty) else one & other


def _read_recipients(f: Fields) -> Recipients:
    value = f.any("recipients")
    if value == ANY_PARTY.value:
        return ANY_PARTY
    return frozenset(Fields({"recipients": value}, "rule").names("recipients", low=1, high=MAX_NAMES))


@dataclass(frozen=True, slots=True)
class Policy:
    """What a program may do. **In normal form**: rules that let nothing out are dropped.

    Attributes:
        uses: what the data may be used for, as named by programs (``"evaluate"``).
        outputs: a rule for each output kind that may leave; no other kind may.
        egress: the hosts that the program may reach. Only the empty set can be enforced, so any other is refused.
        serve: which requests may be answered, again and again; ``None`` for none. A contract under it is a standing one.

    Raises:
        BadField: a value of another type.
        UnknownDimension: an output kind outside ``OUTPUT_KINDS``, or any egress.
    """

    uses: frozenset[str] = frozenset()
    outputs: Mapping[str, OutputRule] = field(default_factory=dict)
    egress: frozenset[str] = frozenset()
    serve: Serving | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "uses", _names(self.uses, "policy.uses"))
        object.__setattr__(self, "egress", _names(self.egress, "policy.egress"))
        if self.egress:
            raise UnknownDimension("egress to a host cannot be enforced by this version; only [] is accepted")
        if not isinstance(self.outputs, Mapping) or not all(isinstance(r, OutputRule) for r in self.outputs.values()):
            raise BadField("policy.outputs is not a map from output kinds to rules")
        _refuse_unknown(self.outputs, OUTPUT_KINDS, "output kind")
        kept = {kind: self.outputs[kind] for kind in OUTPUT_KINDS if kind in self.outputs and self.outputs[kind].recipients}
        object.__setattr__(self, "outputs", MappingProxyType(kept))
        if self.serve is not None and not isinstance(self.serve, Serving):
            raise BadField("policy.serve is not what may be served")
        if self.serve is not None and not self.serve.routes:
            object.__setattr__(self, "serve", None)

    def __hash__(self) -> int:
        return hash((self.uses, frozenset(self.outputs.items()), self.egress, self.serve))

    def permits(self, other: Policy) -> bool:
        """Whether everything that ``other`` allows is allowed here too."""
        # Decision and explanation cannot disagree: there is only one of them.
        return not explain(self, other)

    def meet(self, other: Policy) -> Policy:
        """The greatest lower bound: the widest policy that both permit. It may be one that ``require`` refuses."""
        return Policy(
            uses=self.uses & other.uses,
            outputs={
                kind: self.outputs[kind].meet(other.outputs[kind]) for kind in self.outputs.keys() & other.outputs.keys()
            },
            egress=self.egress & other.egress,
            serve=self.serve.meet(other.serve) if self.serve and other.serve else None,
        )

    def __and__(self, other: Policy) -> Policy:
        return self.meet(other)

    def require(self) -> Policy:
        """The policy itself, if anything can be done under it.

        Raises:
            EmptyPolicy: no use, or neither an output nor anything to be asked.
        """
        if not self.uses:
            raise EmptyPolicy("the policy allows no use of the data")
        if not self.outputs and self.serve is None:
            raise EmptyPolicy("the policy lets no output leave")
        return self

    def to_json(self) -> dict[str, JSON]:
        return {
            "egress": [*sorted(self.egress)],
            "outputs": {kind: rule.to_json() for kind, rule in self.outputs.items()},
            **({} if self.serve is None else {"serve": self.serve.to_json()}),
            "uses": [*sorted(self.uses)],
        }

    @classmethod
    def from_json(cls, value: object) -> Policy:
        """Read the one normal form that stands in signed documents: ``from_json(v).to_json() == v``.

        Raises:
            BadField: a dimension missing, of another type, or not in normal form.
            UnknownDimension: a dimension, output kind or member of a rule that this version cannot enforce.
        """
        if isinstance(value, dict):
            _refuse_unknown(value, DIMENSIONS, "the policy's dimension")
        f = Fields(value, "policy")
        outputs = f.any("outputs")
        if not isinstance(outputs, dict):
            raise BadField("policy.outputs is not an object")
        _refuse_unknown(outputs, OUTPUT_KINDS, "output kind")
        return cls(
            uses=frozenset(f.names("uses", high=MAX_NAMES)),
            outputs={kind: OutputRule.from_json(rule) for kind, rule in outputs.items()},
            egress=frozenset(_read_egress(f)),
            serve=Serving.from_json(f.any("serve")) if f.has("serve") else None,
        )

    @classmethod
    def draft(cls, value: Mapping[str, object]) -> Policy:
        """Read a policy as people write one, before anybody signs it: a dimension left out allows nothing.

        Args:
            value: as ``from_json`` takes it, with any dimension left out.

        Raises:
            BadField, UnknownDimension: as ``from_json``.
        """
        if not isinstance(value, Mapping):
            raise BadField("policy is not an object")
        return cls.from_json({"egress": [], "outputs": {}, "uses": [], **value})


def _read_egress(f: Fields) -> tuple[str, ...]:
    value = f.any("egress")
    if value == []:
        return ()
    if isinstance(value, list):
        raise UnknownDimension("egress to a host cannot be enforced by this version; only [] is accepted")
    raise BadField("policy.egress is not a list")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _explain_rule(kind: str, wide: OutputRule, narrow: OutputRule) -> list[str]:
    """Where ``wide`` asks for more than ``narrow`` grants."""
    found = []
    if not isinstance(narrow.recipients, AnyParty):
        if isinstance(wide.recipients, AnyParty):
            found.append(f"{kind}: may go to any party; permitted recipients: {_listed(narrow.recipients)}")
        elif wide.recipients - narrow.recipients:
            strangers = _listed(wide.recipients - narrow.recipients)
            found.append(f"{kind}: may go to {strangers}; permitted recipients: {_listed(narrow.recipients)}")
    if wide.max_bytes > narrow.max_bytes:
        found.append(f"{kind}: may be up to {wide.max_bytes:,} bytes long; at most {narrow.max_bytes:,} are permitted")
    if wide.min_group < narrow.min_group:
        found.append(f"{kind}: may show groups of {wide.min_group:,}; groups under {narrow.min_group:,} must be suppressed")
    if wide.decimals > narrow.decimals:
        found.append(f"{kind}: may show {wide.decimals} decimal places; at most {narrow.decimals} are permitted")
    return found


def explain(terms: Policy, asked: Policy) -> tuple[str, ...]:
    """Where ``asked`` goes beyond ``terms``, in words for people; empty exactly where ``terms.permits(asked)``.

    Args:
        terms: what is granted.
        asked: what is wanted.

    Returns:
        one sentence for each point that is wider than the terms, in a fixed order.
    """
    found = []
    for dimension, what in (("uses", "use"), ("egress", "egress")):
        granted, wanted = getattr(terms, dimension), getattr(asked, dimension)
        if wanted - granted:
            found.append(f"{what}: {_listed(wanted - granted)} is asked for; permitted: {_listed(granted)}")
    for kind, rule in asked.outputs.items():
        if kind in terms.outputs:
            found.extend(_explain_rule(kind, rule, terms.outputs[kind]))
        else:
            found.append(f"{kind}: may leave; permitted output kinds: {_listed(terms.outputs)}")
    if asked.serve is not None:
        if terms.serve is None:
            found.append(f"serve: {_listed(asked.serve.routes)} may be asked; nothing may be")
        else:
            found.extend(serving.explain(terms.serve, asked.serve))
    return tuple(found)


__all__ = [
    "ANY_PARTY",
    "DIMENSIONS",
    "MAX_DECIMALS",
    "MAX_NAMES",
    "OUTPUT_KINDS",
    "AnyParty",
    "OutputRule",
    "Policy",
    "Recipients",
    "Serving",
    "explain",
]
