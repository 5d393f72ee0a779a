"""Whose turn it is: fair between the parties that ask, in order within each, and nobody waits for ever.

The next party is the one with the fewest jobs running; of several the one whose last turn is longest ago; of several the one
that has waited longest. Of its jobs the oldest goes. Where that job does not fit into what is left of the memory, nothing
passes it: a stream of small jobs would keep a large one out for ever.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ready:
    """A job that could begin now.

    Attributes:
        place: its place among all that were ever asked for; the lowest is the oldest.
        party: who asked, by the digest of the signing key: names are not one's own.
        memory_bytes: what the run may use, as its contract says.
    """

    place: int
    party: str
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Room:
    """What there is to run in.

    Attributes:
        runs: at once.
        memory_bytes: of all of them together.
    """

    runs: int
    memory_bytes: int


def choose(ready: Iterable[Ready], running: Iterable[Ready], turns: Mapping[str, int], room: Room) -> Ready | None:
    """The job that begins next, or ``None``: there is none, or no room for it.

    Args:
        ready: jobs that could begin now.
        running: jobs that go on.
        turns: party -> the number of its last turn; of those that never had one, nothing.
        room: what there is to run in.
    """
    going = list(running)
    if len(going) >= room.runs:
        return None
    many = Counter(job.party for job in going)
    first: dict[str, Ready] = {}
    for job in ready:
        if job.party not in first or job.place < first[job.party].place:
            first[job.party] = job
    if not first:
        return None
    found = min(first.values(), key=lambda job: (many[job.party], turns.get(job.party, 0), job.place))
    left = room.memory_bytes - sum(job.memory_bytes for job in going)
    return found if found.memory_bytes <= left else None
