"""Everything of this half that lets in, counts, keeps and tells, put together: what a serving process makes once.

    with Metering(home, exchange) as metering:
        rooms = Rooms(..., observer=metering.observer, opened=metering.opened)
        around = Around(rooms=rooms, gate=metering.gate, receipts=metering.receipts, ...)
        service = Service(around, metrics=metering.metrics)

See ``docs/operators.md``.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Self

from strongroom.contract import Contract
from strongroom.enclave.room import Room
from strongroom.errors import NotFound
from strongroom.inference.events import Observability
from strongroom.inference.receipt import InferenceReceipt
from strongroom.programs import serve_llm
from strongroom.served import MAX_REPORTS, Head, Kept, Proven, ServedRequest, pages
from strongroom.wire import Envelope

from .credentials import PLACE, Gate, Keys, Limits
from .discreet import Discreet
from .observed import Observer, Observers
from .receipts import KEY_BYTES, LOG_SECONDS, Authority, Log, Logger, ReceiptStore


class Metering:
    """Keys, limits, receipts and counts of one serving process.

    Args:
        home: the operator's folder: API keys lie in it under ``credentials.PLACE``, receipts beside them, encrypted under a
            key of this process alone.
        log: the way to the log; ``None`` where somebody else brings receipts there.
        anonymous: what all who bring no key of the operator's may use together; ``None`` where a key is required.
        outside: whether that holds also for requests that another machine passed on.
        bare: whether a request without any credential is let in.
        texts: the file for texts under contracts of the level ``full``; ``None``: nowhere.
        discreet: what writes this process's log lines, if anything does (``discreet.be_discreet``).
        every: seconds between two batches for the log.
        now: Unix seconds.
    """

    def __init__(
        self,
        home: Path,
        log: Log | None,
        *,
        anonymous: Limits | None = None,
        outside: bool = True,
        bare: bool = False,
        texts: Path | None = None,
        discreet: Discreet | None = None,
        every: float = LOG_SECONDS,
        now: Callable[[], float] = time.time,
    ) -> None:
        place = home / PLACE
        self.keys = Keys(place)
        self.gate = Gate(self.keys, anonymous=anonymous, outside=outside, bare=bare, on_disk=False)
        self.receipts = ReceiptStore(place.with_name("receipts.db"), secrets.token_bytes(KEY_BYTES), now=now)
        self.observers = Observers(log=texts, now=now)
        self._logger = None if log is None else Logger(self.receipts, log, every=every)
        self._discreet, self._now = discreet, now
        self._rooms: dict[str, Room] = {}  # the newest first; what proves a keyset is left of one that is closed
        self._levels: dict[str, Observability] = {}
        self._shown = False
        if self._logger is not None:
            self._logger.start()

    def close(self) -> None:
        """Bring to the log what waits, write everything down, and end."""
        if self._logger is not None:
            self._logger.close()
        self.receipts.close()
        self.gate.close()
        self.keys.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def observer(self, contract: Contract) -> Observer:
        """Who observes requests under a contract: no more than its policy lets the operator see."""
        serve = contract.proposal.policy.serve
        assert serve is not None  # a standing contract
        level = Observability(serve.observability)
        if level is not Observability.NONE and not self._shown:
            self._shown, waiting = True, "Receipts that no log has taken yet"
            self.observers.gauge("strongroom_receipts_unlogged", waiting, self._unlogged)
        self._levels[contract.digest] = level
        self._narrow()
        models = serve_llm.read(contract.proposal.program.parameters).models
        return self.observers.of(level, [model.name for model in models])

    def _unlogged(self) -> float:
        """Of contracts under which counts may be seen, and of no other."""
        return self.receipts.waiting_under([name for name, level in self._levels.items() if level is not Observability.NONE])

    def _narrow(self) -> None:
        """Days are counted on the disk, and failures that belong to no request are shown, where every contract allows it.

        Every one that was ever served here: one of them may still be draining.
        """
        levels = set(self._levels.values())
        self.gate.on_disk = Observability.NONE not in levels
        if self._discreet is not None:
            self._discreet.failures = not levels & {Observability.NONE, Observability.AGGREGATE}

    def opened(self, room: Room) -> None:
        """A room was opened, or its leases renewed: on their authority its receipts are logged."""
        self._rooms = {room.keys.keyset.digest: room, **dict(islice(self._rooms.items(), MAX_REPORTS))}
        if self._logger is not None:
            self._logger.authorise(Authority.of(room))

    def served(self, data: bytes) -> Iterator[bytes]:
        """What a party of a contract asks for: every receipt under it that is kept here, and what proves each keyset.

        Args:
            data: the envelope of a ``served.ServedRequest``, untrusted.

        Returns:
            the answer in pieces, encrypted to the party.

        Raises:
            WireError, NotAParty, BadSignature: it is no party's, or not of now. NotFound: no room of the contract was here.
        """
        envelope = Envelope.parse(data, max_bytes=64 << 10)
        asked, at = ServedRequest.peek(envelope), int(self._now())
        rooms = [room for room in self._rooms.values() if room.contract.digest == asked.contract][:MAX_REPORTS]
        if not rooms:
            raise NotFound("no room of this contract was open here")
        proposal = rooms[0].contract.proposal
        asked = ServedRequest.verify(envelope, proposal, at)
        nonce = bytes.fromhex(asked.nonce)
        proven = tuple(Proven(nonce, at, room.report(nonce)) for room in rooms)
        head = Head(rooms[0].contract.envelope, rooms[0].manifests, proven)

        def lines() -> Iterator[bytes]:
            yield head.encode()
            for receipt in self.receipts.each(asked.contract):
                yield Kept(InferenceReceipt.parse(receipt)).encode()

        return pages(asked, proposal, lines())

    def metrics(self) -> bytes:
        """What ``GET /metrics`` answers. Raises NotFound: no policy here lets anybody count."""
        found = self.observers.text()
        if found is None:
            raise NotFound("the policy lets nobody count here")
        return found
