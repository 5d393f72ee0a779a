"""Who must approve a use of an asset beside its owner: named people's keys, and how many of each group.

The owner names them in the manifest, under signature. They approve as every party does, by signing the proposal's bytes, so
that their approval is one of everything that the proposal names by digest. This module only counts.

See ``spec/manifest.md``, "Approvers".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from strongroom.errors import BadField
from strongroom.wire import JSON, Fields

MAX_GROUPS = 8
MAX_NAMED = 32  # of one group


@dataclass(frozen=True, slots=True)
class Approver:
    """Somebody by name and key: a name alone could be said of another key by whoever pins carelessly.

    Attributes:
        name: the party's.
        keyid: of its signing key.
    """

    name: str
    keyid: str

    def to_json(self) -> dict[str, JSON]:
        return {"keyid": self.keyid, "name": self.name}

    @classmethod
    def from_json(cls, value: object) -> Approver:
        """Raises BadField."""
        f = Fields(value, "approver")
        found = cls(name=f.name("name"), keyid=f.digest("keyid"))
        f.end()
        return found


@dataclass(frozen=True, slots=True)
class Quorum:
    """So many of these must approve.

    Attributes:
        at_least: how many, 1 to all of them.
        of: who, sorted by name.

    Raises:
        BadField: nobody, somebody twice, or more than there are.
    """

    at_least: int
    of: tuple[Approver, ...]

    def __post_init__(self) -> None:
        names = [a.name for a in self.of]
        if not 1 <= len(names) <= MAX_NAMED or names != sorted(set(names)):
            raise BadField(f"approvers.of is not 1 to {MAX_NAMED} names, sorted and distinct")
        if not 1 <= self.at_least <= len(names):
            raise BadField("approvers.at_least is none of them, or more than there are")

    def __str__(self) -> str:
        names = ", ".join(a.name for a in self.of)
        return names if len(self.of) == 1 else f"{self.at_least} of {names}"

    def approved(self, approvals: Mapping[str, str]) -> tuple[str, ...]:
        """The names of those who approved, under the very keys that the terms name.

        Args:
            approvals: key ids of signing keys by the names of parties that validly signed; not the proposer's.
        """
        return tuple(a.name for a in self.of if approvals.get(a.name) == a.keyid)

    def to_json(self) -> dict[str, JSON]:
        return {"at_least": self.at_least, "of": [a.to_json() for a in self.of]}

    @classmethod
    def from_json(cls, value: object) -> Quorum:
        """Raises BadField."""
        f = Fields(value, "approvers")
        found = cls(f.integer("at_least", low=1), f.items("of", Approver.from_json, low=1, high=MAX_NAMED))
        f.end()
        return found


def require_sound(approvers: tuple[Quorum, ...], owner: str) -> None:
    """Require one order, and that nobody counts twice: under two names, by two keys or in two groups.

    Raises:
        BadField: or the owner is one of them, whose approval every contract needs anyway.
    """
    first = [quorum.of[0].name for quorum in approvers]
    named = [a for quorum in approvers for a in quorum.of]
    if len(approvers) > MAX_GROUPS or first != sorted(first):
        raise BadField(f"manifest.approvers is not at most {MAX_GROUPS} groups, sorted by their first names")
    if len({a.name for a in named}) != len(named) or len({a.keyid for a in named}) != len(named):
        raise BadField("manifest.approvers names somebody twice, by name or by key")
    if owner in {a.name for a in named}:
        raise BadField("manifest.approvers names the owner, who approves every contract anyway")


def lacking(approvers: Iterable[Quorum], approvals: Mapping[str, str]) -> tuple[str, ...]:
    """Which groups have not approved, in words; empty exactly where all have.

    Args:
        approvers: of an asset's manifest.
        approvals: as :meth:`Quorum.approved` takes them.
    """
    found = []
    for quorum in approvers:
        there = quorum.approved(approvals)
        if len(there) < quorum.at_least:
            found.append(f"{quorum} must approve; {_said(there)}")
    return tuple(found)


def _said(there: Collection[str]) -> str:
    return f"of them {', '.join(there)} did" if there else "nobody of them did"


__all__ = ["MAX_GROUPS", "MAX_NAMED", "Approver", "Quorum", "lacking", "require_sound"]
