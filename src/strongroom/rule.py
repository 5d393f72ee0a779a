"""What one kind of output must keep to, so that it may leave the enclave: a rule, ordered as everything in a policy is.

See ``spec/policy.md``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Final, TypeAlias

from .errors import BadField, UnknownDimension
from .wire import JSON, Fields

if TYPE_CHECKING:
    from .schema import Allowed

MAX_DECIMALS: Final = 15
MAX_NAMES: Final = 256
MAX_REVIEWERS: Final = 8
_MEMBERS: Final = ("decimals", "max_bytes", "min_group", "recipients", "release", "schema")


class AnyParty(Enum):
    """The top of the recipients' order: every party that the contract names."""

    ANY_PARTY = "any-party"


ANY_PARTY: Final = AnyParty.ANY_PARTY
Recipients: TypeAlias = AnyParty | frozenset[str]


def _name(value: object, where: str) -> str:
    return Fields({"name": value}, where).name("name")


def names_of(values: object, where: str) -> frozenset[str]:
    """A set of names. Raises BadField."""
    # A string is an iterable of names too: of its characters.
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise BadField(f"{where} is not a set of names")
    found = frozenset(_name(value, where) for value in values)
    if len(found) > MAX_NAMES:
        raise BadField(f"{where} holds more than {MAX_NAMES} names")
    return found


def refuse_unknown(members: Iterable[str], known: Iterable[str], what: str) -> None:
    """Raises UnknownDimension."""
    for member in sorted(set(members) - set(known)):
        raise UnknownDimension(f"{what} {member[:40]!r} is not one of {', '.join(known)}")


def listed(names: Iterable[str]) -> str:
    """Names for people."""
    return ", ".join(sorted(names)) or "none"


@dataclass(frozen=True, slots=True)
class Airlock:
    """People read the output before its recipients can: each of them must pass it.

    Attributes:
        by: the reviewers' names, 1 to 8. They read it, so that a rule counts them among its readers.
        reasons: whether the recipients are told why a reviewer refused; else they are told that it was.

    Raises:
        BadField: no reviewer or too many, or a value of another type.
    """

    by: frozenset[str]
    reasons: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "by", names_of(self.by, "rule.release.by"))
        if not 0 < len(self.by) <= MAX_REVIEWERS or ANY_PARTY.value in self.by:
            raise BadField(f"rule.release.by does not hold 1 to {MAX_REVIEWERS} names of parties")
        if not isinstance(self.reasons, bool):
            raise BadField("rule.release.reasons is not true or false")

    def to_json(self) -> dict[str, JSON]:
        return {"by": [*sorted(self.by)], "reasons": self.reasons}

    @classmethod
    def from_json(cls, value: object) -> Airlock:
        """Raises BadField, UnknownDimension."""
        if isinstance(value, dict):
            refuse_unknown(value, ("by", "reasons"), "the release's member")
        f = Fields(value, "rule.release")
        return cls(frozenset(f.names("by", low=1, high=MAX_REVIEWERS)), f.boolean("reasons"))


@dataclass(frozen=True, slots=True)
class OutputRule:
    """What one kind of output must keep to, so that it may leave the enclave.

    Attributes:
        recipients: ``ANY_PARTY``, or the names of those who may get it. Nobody else can open it. A rule without recipients
            lets nothing out.
        max_bytes: the largest size of one such output, in bytes, at least 1.
        min_group: groups of fewer records than this are suppressed, at least 1.
        decimals: the most decimal places that a number keeps, 0 to 15.
        schema: what it may hold, of the kinds in ``schema.KINDS``; ``None`` for the others.
        release: who must read it and pass it first; ``None`` where nobody need.

    Raises:
        BadField: a value out of its range or of another type.
    """

    recipients: Recipients
    max_bytes: int
    min_group: int
    decimals: int
    schema: Allowed | None = None
    release: Airlock | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.recipients, AnyParty):
            found = names_of(self.recipients, "rule.recipients")
            if ANY_PARTY.value in found:
                raise BadField(f"rule.recipients names a party {ANY_PARTY.value!r}, which is a reserved word")
            object.__setattr__(self, "recipients", found)
        limits = Fields({"decimals": self.decimals, "max_bytes": self.max_bytes, "min_group": self.min_group}, "rule")
        limits.integer("decimals", high=MAX_DECIMALS)
        limits.integer("max_bytes", low=1)
        limits.integer("min_group", low=1)
        if self.release is not None and not isinstance(self.release, Airlock):
            raise BadField("rule.release does not say who reviews")

    @property
    def reviewers(self) -> frozenset[str]:
        """Who must pass it before its recipients can open it."""
        return frozenset() if self.release is None else self.release.by

    def delivers_to(self, party: str) -> bool:
        """Whether ``party``, which the contract must name, may get the output."""
        return isinstance(self.recipients, AnyParty) or party in self.recipients

    def shown_to(self, party: str) -> bool:
        """Whether ``party`` may read the output, as a recipient or as a reviewer."""
        return self.delivers_to(party) or party in self.reviewers

    def meet(self, other: OutputRule) -> OutputRule:
        """The widest rule that both permit; one without recipients where they permit none in common."""
        reviewers = self.reviewers | other.reviewers
        if len(reviewers) > MAX_REVIEWERS:
            return replace(self, recipients=frozenset())
        found = OutputRule(
            recipients=_meet_recipients(self.recipients, other.recipients),
            max_bytes=min(self.max_bytes, other.max_bytes),
            min_group=max(self.min_group, other.min_group),
            decimals=min(self.decimals, other.decimals),
            schema=self.schema,
            release=Airlock(reviewers, _tells(self) and _tells(other)) if reviewers else None,
        )
        if self.schema is not None and other.schema is not None:
            from . import schema as schemas  # noqa: PLC0415 - what most rules have nothing of

            found = replace(found, schema=schemas.meet(self.schema, other.schema))
        # One rule's reviewer reads what the other may show to nobody but its own recipients and reviewers.
        shown = all(self.shown_to(name) and other.shown_to(name) for name in reviewers)
        same = (self.schema is None) == (other.schema is None) == (found.schema is None)
        return found if shown and same else replace(found, recipients=frozenset())

    @property
    def any_schema(self) -> bool:
        """Whether it leaves the schema to the contract: ``schema.ANY_SCHEMA``, the only one that is no description."""
        return isinstance(self.schema, Enum)

    def to_json(self) -> dict[str, JSON]:
        recipients: JSON = self.recipients.value if isinstance(self.recipients, AnyParty) else [*sorted(self.recipients)]
        return {
            "decimals": self.decimals,
            "max_bytes": self.max_bytes,
            "min_group": self.min_group,
            "recipients": recipients,
            **({} if self.release is None else {"release": self.release.to_json()}),
            **({} if self.schema is None else {"schema": _written(self.schema)}),
        }

    @classmethod
    def from_json(cls, value: object) -> OutputRule:
        """Raises BadField, UnknownDimension."""
        if isinstance(value, dict):
            refuse_unknown(value, _MEMBERS, "the rule's member")
        f = Fields(value, "rule")
        return cls(
            recipients=_read_recipients(f),
            max_bytes=f.integer("max_bytes", low=1),
            min_group=f.integer("min_group", low=1),
            decimals=f.integer("decimals", high=MAX_DECIMALS),
            schema=_read(f.any("schema")) if f.has("schema") else None,
            release=Airlock.from_json(f.any("release")) if f.has("release") else None,
        )


def _meet_recipients(one: Recipients, other: Recipients) -> Recipients:
    if isinstance(one, AnyParty):
        return other
    return one if isinstance(other, AnyParty) else one & other


def _tells(rule: OutputRule) -> bool:
    """Whether recipients may be told why a reviewer refused; where nobody reviews there is nothing to tell."""
    return rule.release is None or rule.release.reasons


def _read_recipients(f: Fields) -> Recipients:
    value = f.any("recipients")
    if value == ANY_PARTY.value:
        return ANY_PARTY
    return frozenset(Fields({"recipients": value}, "rule").names("recipients", low=1, high=MAX_NAMES))


def explain(kind: str, wide: OutputRule, narrow: OutputRule) -> list[str]:
    """Where ``wide``, which is asked for, goes beyond ``narrow``, which is granted, in words for people."""
    found = []
    if not isinstance(narrow.recipients, AnyParty):
        if isinstance(wide.recipients, AnyParty):
            found.append(f"{kind}: may go to any party; permitted recipients: {listed(narrow.recipients)}")
        elif wide.recipients - narrow.recipients:
            strangers = listed(wide.recipients - narrow.recipients)
            found.append(f"{kind}: may go to {strangers}; permitted recipients: {listed(narrow.recipients)}")
    if wide.max_bytes > narrow.max_bytes:
        found.append(f"{kind}: may be up to {wide.max_bytes:,} bytes long; at most {narrow.max_bytes:,} are permitted")
    if wide.min_group < narrow.min_group:
        found.append(f"{kind}: may show groups of {wide.min_group:,}; groups under {narrow.min_group:,} must be suppressed")
    if wide.decimals > narrow.decimals:
        found.append(f"{kind}: may show {wide.decimals} decimal places; at most {narrow.decimals} are permitted")
    if not _within(wide.schema, narrow.schema):
        found.append(f"{kind}: may hold what the permitted schema does not allow")
    return [*found, *_explain_release(kind, wide, narrow)]


def _written(allowed: Allowed) -> JSON:
    from . import schema as schemas  # noqa: PLC0415 - what most rules have nothing of

    return schemas.to_json(allowed)


def _read(value: object) -> Allowed:
    from . import schema as schemas  # noqa: PLC0415 - what most rules have nothing of

    return schemas.from_json(value)


def _within(wide: Allowed | None, narrow: Allowed | None) -> bool:
    if wide is None or narrow is None:
        return wide is narrow
    from . import schema as schemas  # noqa: PLC0415 - what most rules have nothing of

    return schemas.permits(narrow, wide)


def _explain_release(kind: str, wide: OutputRule, narrow: OutputRule) -> list[str]:
    found = []
    if narrow.reviewers - wide.reviewers:
        found.append(f"{kind}: leaves before {listed(narrow.reviewers - wide.reviewers)} passed it")
    others = [name for name in wide.reviewers if not narrow.shown_to(name)]
    if others:
        found.append(f"{kind}: is read by {listed(others)} in review; permitted reviewers: {listed(narrow.reviewers)}")
    if wide.release and wide.release.reasons and not _tells(narrow):
        found.append(f"{kind}: recipients are told why a reviewer refused; that is not permitted")
    return found
