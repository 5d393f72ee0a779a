"""What a broker's book says to one owner of its assets, and of nobody else's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom import __version__
from strongroom.holding import Taken, Withdrawn
from strongroom.overview import (
    MAX_CODES,
    MAX_CONTRACTS,
    MAX_RELEASES,
    MAX_SHARES,
    MAX_SLOTS,
    ContractKnown,
    Inquiry,
    Overview,
    Refused,
    ShareHeld,
)
from strongroom.threshold import ENROLMENT_TYPE, Enrolment
from strongroom.wire import Envelope

from .sqlite import blob, integer, text

if TYPE_CHECKING:
    from .book import SqliteBook
    from .sqlite import Database


@dataclass(frozen=True, slots=True)
class Telling:
    """Reads a book for one owner.

    Args:
        book: the broker's.
        db: its database.
        owner: whose assets it is about.
    """

    book: SqliteBook
    db: Database
    owner: str

    def tell(self, asked: Inquiry, at: int) -> Overview:
        """The answer. ``at``: the broker's clock, Unix seconds."""
        shares = self._shares()
        return Overview(
            owner=self.owner,
            nonce=asked.nonce,
            at=at,
            software=__version__,
            place=self.book.marks.place(),
            restored=self.book.marks.restored(),
            shares=shares,
            contracts=self._contracts(),
            withdrawn=self._withdrawn([s.manifest for s in shares]),
            taken=self._taken(),
            refused=self._refused(),
            releases=self._releases(),
        )

    def _shares(self) -> tuple[ShareHeld, ...]:
        found = []
        for held in self.book.shares():
            if held.owner == self.owner:
                enrolment = Enrolment.parse(held.deal.enrolment.expect(ENROLMENT_TYPE))
                said = (enrolment.manifest, enrolment.digest, enrolment.epoch, held.deal.index, held.recalled)
                found.append(ShareHeld(*said))
        return tuple(found[-MAX_SHARES:])

    def _contracts(self) -> tuple[ContractKnown, ...]:
        rows = self.db.rows(
            "SELECT contract, max(says = 'approved'), max(says = 'ended'), (SELECT coalesce(sum(runs), 0) FROM granted g"
            " WHERE g.contract = w.contract AND g.owner = w.owner) FROM words w WHERE owner = ? GROUP BY contract"
            " ORDER BY max(rowid) DESC LIMIT ?",
            self.owner,
            MAX_CONTRACTS,
        )
        return tuple(ContractKnown(text(c), a == 1, e == 1, integer(granted)) for c, a, e, granted in rows)

    def _withdrawn(self, manifests: list[str]) -> tuple[Withdrawn, ...]:
        with self.book.transaction() as page:
            found = {w for manifest in manifests for w in page.withdrawn(manifest, self.owner)}
        return tuple(sorted(found)[-MAX_CONTRACTS:])

    def _taken(self) -> tuple[tuple[str, Taken], ...]:
        rows = self.db.rows(
            "SELECT manifest, contract, slot, keyset FROM slots WHERE manifest IN (SELECT manifest FROM shares"
            " WHERE owner = ?) ORDER BY rowid DESC LIMIT ?",
            self.owner,
            MAX_SLOTS,
        )
        return tuple((text(m), Taken(text(c), integer(s), None if k is None else text(k))) for m, c, s, k in rows)

    def _refused(self) -> tuple[Refused, ...]:
        rows = self.db.rows(
            "SELECT contract, code, count(*), max(at) FROM decisions WHERE verdict = 'refusal' AND manifest IN"
            " (SELECT manifest FROM shares WHERE owner = ?) GROUP BY contract, code ORDER BY max(at) DESC LIMIT ?",
            self.owner,
            MAX_CODES,
        )
        return tuple(Refused(text(c), text(code), integer(count), integer(last)) for c, code, count, last in rows)

    def _releases(self) -> tuple[Envelope, ...]:
        rows = self.db.rows(
            "SELECT envelope FROM given WHERE manifest IN (SELECT manifest FROM shares WHERE owner = ?)"
            " ORDER BY rowid DESC LIMIT ?",
            self.owner,
            MAX_RELEASES,
        )
        return tuple(Envelope.parse(blob(r[0])) for r in rows)
