"""What an inbox lists: a row for each proposal, what a filter lets through, and what is news.

Rows are this party's own index of what it verified (``app.stores.inbox``).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from strongroom import wire
from strongroom.contract import State
from strongroom.errors import Usage

OVER = frozenset({State.WITHDRAWN, State.COUNTERED, State.SPENT})


@dataclass(frozen=True, slots=True)
class Row:
    """One proposal in the list.

    Attributes:
        settled: where it stands, but for time; :meth:`state` knows of that too.
        waits: whether this party has still to decide.
        assets: words that an asset can be found by: roles, owners, names of this party's own, digests.
        asks: changes that were asked for.
    """

    digest: str
    title: str
    proposer: str
    created_at: int
    not_after: int
    settled: str
    waits: bool
    parties: tuple[str, ...]
    approved_by: tuple[str, ...]
    withdrawn_by: tuple[str, ...]
    countered_by: str | None
    supersedes: str | None
    program: str
    bundle: str | None
    assets: tuple[str, ...]
    notes: int
    asks: int

    def state(self, at: int) -> State:
        """Where it stands at a time, Unix seconds; as :func:`strongroom.contract.state` says."""
        settled = State(self.settled)
        return settled if settled in OVER or at < self.not_after else State.EXPIRED

    def waiting(self, at: int) -> bool:
        """Whether it waits for this party."""
        return self.waits and self.state(at) is State.PROPOSED

    def encode(self) -> bytes:
        """As the index keeps it: the values in their order, and nothing that is signed."""
        return json.dumps([getattr(self, f.name) for f in fields(self)]).encode()

    @classmethod
    def parse(cls, data: bytes) -> Row:
        """A row of our own index."""
        values: list[Any] = [tuple(item) if isinstance(item, list) else item for item in json.loads(data)]
        return cls(*values)

    def to_json(self, at: int) -> dict[str, wire.JSON]:
        found: Any = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("settled", "waits")}
        lists = {name: list(item) for name, item in found.items() if isinstance(item, tuple)}
        return {**found, **lists, "state": self.state(at).value, "waiting": self.waiting(at)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which proposals to list: all that is said must hold.

    Attributes:
        waiting: only what waits for this party.
        state: where it stands.
        proposer: who proposed it.
        asset: a role, an owner, the name of an own asset, or the beginning of a manifest's digest.
        text: in the title, the proposer's name or the digest; any case.
        since: Unix seconds, not proposed before.
    """

    waiting: bool = False
    state: State | None = None
    proposer: str | None = None
    asset: str | None = None
    text: str | None = None
    since: int | None = None

    def takes(self, row: Row, at: int) -> bool:
        return (
            (not self.waiting or row.waiting(at))
            and (self.state is None or row.state(at) is self.state)
            and (self.proposer is None or row.proposer == self.proposer)
            and (self.since is None or row.created_at >= self.since)
            and (self.asset is None or any(a == self.asset or _begins(a, self.asset) for a in row.assets))
            and (self.text is None or self.text.casefold() in f"{row.title} {row.proposer} {row.digest}".casefold())
        )


def _begins(digest: str, start: str) -> bool:
    return len(start) > len("sha256:") and digest.startswith("sha256:") and digest.startswith(start)


@dataclass(frozen=True, slots=True)
class News:
    """Something that happened since the index was last made: which event, to which proposal, by whom.

    Attributes:
        event: ``proposed``, ``approved``, ``agreed``, ``countered``, ``withdrawn``, ``comment``, ``ask`` or ``reviewed``.
        proposal: its digest.
        by: the party that did it.
        key: what makes it this event and no other.
    """

    event: str
    proposal: str
    by: str
    key: str


def day_of(text: str) -> int:
    """The first second of a day of UTC, Unix. Raises Usage."""
    try:
        return int(datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp())
    except ValueError as error:
        raise Usage(f"{text[:40]!r} is no day", hint="Write it as 2026-11-01.") from error


__all__ = ["Filter", "News", "Row", "day_of"]
