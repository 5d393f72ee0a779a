"""What a running program may do with what it is given, as a lattice.

A policy has dimensions. Each is ordered from "allows nothing" upwards, the policy's order is the product of theirs, and
``&`` is the greatest lower bound: ``a.permits(b)`` says that whatever ``b`` allows, ``a`` allows too. Owners write terms,
contracts carry a policy, and a key is released only where the terms permit the policy.

What is absent allows nothing. What is unknown is refused, because it could not be enforced. Two policies that permit each
other are equal, because construction brings both to one normal form.

See ``spec/policy.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from . import observation, rule, serving
from .errors import BadField, EmptyPolicy, UnknownDimension
from .observation import EVERYTHING, Observed
from .rule import (
    ANY_PARTY,
    MAX_DECIMALS,
    MAX_NAMES,
    Airlock,
    AnyParty,
    OutputRule,
    Recipients,
    listed,
    names_of,
    refuse_unknown,
)
from .serving import Serving
from .wire import JSON, Fields

OUTPUT_KINDS: Final = ("log", "picture", "records", "report", "success", "table", "tensors", "values")
"""The closed set of output kinds: text, PNG, a table with a row per record, aggregates in JSON; that the run completed and
nothing else; and three whose rule holds a schema: an Arrow table, safetensors, JSON."""

_OF_A_SCHEMA: Final = ("table", "tensors", "values")

GUEST: Final = "guest"
"""The use of handing an asset's key to somebody else's measured guest (``spec/rcar.md``). What the guest does with it and
lets out is what its image does: no rule on outputs would be kept, so that none is asked for."""

DIMENSIONS: Final = ("egress", "observed", "outputs", "serve", "uses")


@dataclass(frozen=True, slots=True)
class Policy:
    """What a program may do. **In normal form**: rules that let nothing out are dropped.

    Attributes:
        uses: what the data may be used for, as named by programs (``"evaluate"``).
        outputs: a rule for each output kind that may leave; no other kind may.
        egress: the hosts that the program may reach. Only the empty set can be enforced, so any other is refused.
        serve: which requests may be answered, again and again; ``None`` for none. A contract under it is a standing one.
        observed: how coarsely the time and the failure of a run are told; ``None``: in seconds, with step and code; and
            where there is no use, so that nothing runs.

    Raises:
        BadField: a value of another type, or a rule whose schema is missing or of another kind.
        UnknownDimension: an output kind outside ``OUTPUT_KINDS``, or any egress.
    """

    uses: frozenset[str] = frozenset()
    outputs: Mapping[str, OutputRule] = field(default_factory=dict)
    egress: frozenset[str] = frozenset()
    serve: Serving | None = None
    observed: Observed | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "uses", names_of(self.uses, "policy.uses"))
        object.__setattr__(self, "egress", names_of(self.egress, "policy.egress"))
        if self.egress:
            raise UnknownDimension("egress to a host cannot be enforced by this version; only [] is accepted")
        if not isinstance(self.outputs, Mapping) or not all(isinstance(r, OutputRule) for r in self.outputs.values()):
            raise BadField("policy.outputs is not a map from output kinds to rules")
        refuse_unknown(self.outputs, OUTPUT_KINDS, "output kind")
        kept = {kind: self.outputs[kind] for kind in OUTPUT_KINDS if kind in self.outputs and self.outputs[kind].recipients}
        for kind, kept_rule in kept.items():
            _require_schema(kind, kept_rule)
        object.__setattr__(self, "outputs", MappingProxyType(kept))
        if self.serve is not None and not isinstance(self.serve, Serving):
            raise BadField("policy.serve is not what may be served")
        if self.serve is not None and not self.serve.routes:
            object.__setattr__(self, "serve", None)
        if self.observed is not None and not isinstance(self.observed, Observed):
            raise BadField("policy.observed is not what may be seen of a run")
        if self.observed == EVERYTHING or not self.uses:  # where nothing may run there is nothing to see
            object.__setattr__(self, "observed", None)

    def __hash__(self) -> int:
        return hash((self.uses, frozenset(self.outputs.items()), self.egress, self.serve, self.observed))

    @property
    def observation(self) -> Observed:
        """How coarsely the time and the failure of a run are told."""
        return self.observed or EVERYTHING

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
            observed=self.observation.meet(other.observation),
        )

    def __and__(self, other: Policy) -> Policy:
        return self.meet(other)

    def require(self) -> Policy:
        """The policy itself, if anything can be done under it.

        Raises:
            EmptyPolicy: no use, or neither an output nor anything to be asked, where the use is not ``GUEST``.
        """
        if not self.uses:
            raise EmptyPolicy("the policy allows no use of the data")
        if not self.outputs and self.serve is None and GUEST not in self.uses:
            raise EmptyPolicy("the policy lets no output leave")
        return self

    def to_json(self) -> dict[str, JSON]:
        return {
            "egress": [*sorted(self.egress)],
            **({} if self.observed is None else {"observed": self.observed.to_json()}),
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
            refuse_unknown(value, DIMENSIONS, "the policy's dimension")
        f = Fields(value, "policy")
        outputs = f.any("outputs")
        if not isinstance(outputs, dict):
            raise BadField("policy.outputs is not an object")
        refuse_unknown(outputs, OUTPUT_KINDS, "output kind")
        uses = frozenset(f.names("uses", high=MAX_NAMES))
        if f.has("observed") and not uses:
            raise BadField("policy.observed says what may be seen where nothing may run")
        return cls(
            uses=uses,
            outputs={kind: OutputRule.from_json(value) for kind, value in outputs.items()},
            egress=frozenset(_read_egress(f)),
            serve=Serving.from_json(f.any("serve")) if f.has("serve") else None,
            observed=Observed.from_json(f.any("observed")) if f.has("observed") else None,
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


def _require_schema(kind: str, found: OutputRule) -> None:
    """A rule for a kind of ``schema.KINDS`` says what it may hold, and no other does. Raises BadField."""
    if (found.schema is None) != (kind not in _OF_A_SCHEMA):
        raise BadField(f"a rule for {kind} {'has no' if kind not in _OF_A_SCHEMA else 'must have a'} schema")
    if found.schema is None:
        return
    from .schema import ANY_SCHEMA, KINDS  # noqa: PLC0415 - what most rules have nothing of

    if found.schema is not ANY_SCHEMA and not isinstance(found.schema, KINDS[kind]):
        raise BadField(f"the schema is not one of {kind}")


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
            found.append(f"{what}: {listed(wanted - granted)} is asked for; permitted: {listed(granted)}")
    for kind, wanted_rule in asked.outputs.items():
        if kind in terms.outputs:
            found.extend(rule.explain(kind, wanted_rule, terms.outputs[kind]))
        else:
            found.append(f"{kind}: may leave; permitted output kinds: {listed(terms.outputs)}")
    if asked.serve is not None:
        if terms.serve is None:
            found.append(f"serve: {listed(asked.serve.routes)} may be asked; nothing may be")
        else:
            found.extend(serving.explain(terms.serve, asked.serve))
    if asked.uses:
        found.extend(observation.explain(terms.observation, asked.observation))
    return tuple(found)


__all__ = [
    "ANY_PARTY",
    "DIMENSIONS",
    "GUEST",
    "MAX_DECIMALS",
    "MAX_NAMES",
    "OUTPUT_KINDS",
    "Airlock",
    "AnyParty",
    "Observed",
    "OutputRule",
    "Policy",
    "Recipients",
    "Serving",
    "explain",
]
