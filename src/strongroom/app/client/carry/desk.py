"""Where a site keeps what it lets cross, and its record of what did. One desk a site: numbers are counted here."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from strongroom.app.client.home import Home, loads, pretty, reading, write
from strongroom.app.stores.carry import CarryRecord
from strongroom.carry import Peer, Site
from strongroom.errors import BadField, NoCarryPolicy


class Desk:
    """A machine's carrying desk.

    Args:
        home: the machine's folder.
    """

    def __init__(self, home: Home) -> None:
        self.folder = home.folder
        self._policy = home.folder / "carry.json"

    @property
    def site(self) -> Site:
        """What this site lets cross, read anew each time. Raises NoCarryPolicy, BadField."""
        if not self._policy.exists():
            raise NoCarryPolicy("nobody has said what may cross at this site")
        with reading(self._policy):
            return Site.from_json(loads(self._policy))

    def allow(self, peer: Peer, here: str | None) -> Site:
        """Deal with another site so, and no longer as before.

        Args:
            peer: the other site.
            here: this site's name; may be left out once it is known.

        Raises:
            NoCarryPolicy: this site has no name yet. BadField: it has another.
        """
        if self._policy.exists():
            site = self.site
            if here not in (None, site.name):
                raise BadField(f"this site is {site.name!r}, and others count by that name", hint="Leave --here out.")
        elif here is None:
            raise NoCarryPolicy("this site has no name yet", hint="Say it once: --here NAME")
        else:
            site = Site.from_json(Site(here).to_json())  # a name that is one
        found = Site.from_json(site.with_peer(peer).to_json())
        self.folder.mkdir(parents=True, exist_ok=True)
        write(self._policy, pretty(found.to_json()))
        return found

    @cached_property
    def record(self) -> CarryRecord:
        """Raises NotFound."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return CarryRecord(self.folder / "carry.db")

    def arrived(self, site: str, number: int) -> Path:
        """The folder for what came in a bundle and no exchange takes."""
        found = self.folder / "carried" / site / str(number)
        found.mkdir(parents=True, exist_ok=True)
        return found

    def close(self) -> None:
        """Close the record, where it was opened."""
        if "record" in self.__dict__:
            self.record.close()
            del self.record
