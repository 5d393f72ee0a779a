"""Several parties and everything that they need on one machine, for one script: how the examples stand on their own.

The platform is the simulated one, and everything is gone when the script ends. Nothing here protects anybody: between
strangers each does its part on a machine of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from strongroom.app.client.home import Home, read, reference
from strongroom.app.client.room import Room

from .fleet import Fleet
from .parties import make


@contextmanager
def together(*names: str, extras: Sequence[str] = ("data",)) -> Iterator[dict[str, Room]]:
    """An exchange, an enclave and a broker for each party, as processes; parties who have pinned each other, by name.

    Args:
        names: of the parties.
        extras: what the enclave can import beside what ``strongroom[room]`` needs.

    Raises:
        Unreachable: a role did not start. EnclaveError: the installation cannot be measured.
    """
    with ExitStack() as held:
        home = Home(Path(held.enter_context(TemporaryDirectory(prefix="strongroom-", ignore_cleanup_errors=True))))
        for name in names:
            make(home, name)
        fleet = held.enter_context(Fleet(home, extras=extras))
        fleet.start()
        values, where = reference(read(fleet.reference())), fleet.config
        rooms = {n: held.enter_context(Room(home.party(n), exchange=where.exchange, enclave=where.enclave)) for n in names}
        for room in rooms.values():
            trust = room.trust.with_enclaves(values.roots, values.measurements).with_log(values.logs[0])
            for other in rooms.values():
                trust = trust if other is room else trust.pin(other.home.card)
            room.home.save_trust(trust)
        yield rooms
