"""Everything that an enclave process needs in order to answer requests, put together.

What it keeps on its host's disk is what ``metering`` does: hashes of API keys, and receipts under a key of the process. See
``docs/operators.md``.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from strongroom.app.enclave.server import HttpBroker, HttpHolder, PatientExchange
from strongroom.app.http import Client
from strongroom.attest.evidence import Evidence, Platform
from strongroom.contract import Contract
from strongroom.enclave import obtain, sandbox
from strongroom.enclave.obtain import BrokerLine
from strongroom.enclave.shares import Holders, Memory
from strongroom.party import Party
from strongroom.programs import guards, serve_llm
from strongroom.serving import OBSERVABILITY
from strongroom.threshold import Holder

from . import starting
from .arguments import Options
from .asking import Around
from .discreet import Discreet, be_discreet
from .lifecycle import Lifecycle
from .listening import Tls
from .metering import Metering
from .rooms import Progress, Rooms
from .server import App, Service


class Hosting:
    """The serving half of one enclave process.

    Args:
        chosen: what the operator decided.
        platform: signs evidence.
        exchange: where contracts and sealed files are, and the log.
        devices: evidence of the devices beside the processor; ``None`` where there are none.
        discreet: makes the process say no more than its contracts allow; ``None`` where tests look at what it says.
        now: Unix seconds.
    """

    def __init__(
        self,
        chosen: Options,
        platform: Platform,
        exchange: Client,
        devices: Callable[[bytes], tuple[Evidence, ...]] | None = None,
        *,
        discreet: Callable[[str], Discreet] | None = be_discreet,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._options, self._platform, self._devices, self._now = chosen, platform, devices, now
        self._exchange = PatientExchange(exchange)
        self._lines: dict[tuple[str, str], HttpBroker] = {}
        self._silent = Memory()
        # before the process is discreet: then it may not look at its own open files, and a key is one
        self.tls = Tls.make(chosen.tls, now()) if chosen.tls is not None else None
        self.metering = Metering(
            chosen.home,
            self._exchange,
            anonymous=chosen.anonymous,
            outside=chosen.outside,
            bare=chosen.bare,
            texts=chosen.log,
            discreet=discreet(OBSERVABILITY[0]) if discreet else None,
            now=now,
        )
        self.rooms = Rooms(
            around=self._around,
            contract=self._contract,
            program_digest=lambda: sandbox.program_digest(serve_llm.NAME),
            start=starting.starter(chosen.sidecars),
            guards=guards.load,
            observer=self.metering.observer,
            tls=(self.tls.key,) if self.tls else (),
            opened=self.metering.opened,
            contracts=chosen.contracts,
        )

    def service(self, behind: App | None) -> Service:
        """The application.

        Args:
            behind: answers everything that is not a room's.
        """
        chosen = self._options
        around = Around(
            rooms=self.rooms,
            gate=self.metering.gate,
            receipts=self.metering.receipts,
            strangers={},
            now=self._now,
            plain=self.tls is not None or chosen.loopback,
            here=self.tls is None,
        )
        return Service(
            around,
            behind=self._page(behind),
            anonymous=chosen.anonymous is not None,
            origins=chosen.origins,
            metrics=self.metering.metrics,
            lifecycle=Lifecycle(self.rooms, self._now),
            served=self.metering.served,
        )

    def _page(self, behind: App | None) -> App | None:
        if not self._options.page:
            return behind
        from strongroom.app.web import ChatPage

        return ChatPage(served_by="host", behind=behind)

    def close(self) -> None:
        """Log what waits, and let go of everything; the rooms are closed by then."""
        self.metering.close()
        for line in self._lines.values():
            line.close()

    # --- what rooms are given ---

    def _around(self, progress: Progress) -> obtain.Around:
        return obtain.Around(
            platform=self._platform,
            exchange=self._exchange,
            broker=self._broker,
            now=lambda: int(self._now()),
            entropy=secrets.token_bytes,
            progress=progress,
            devices=self._devices,
            holders=Holders(self._exchange.enrolment, self._holder, self._silent),
        )

    def _broker(self, party: Party) -> BrokerLine:
        """The way to a broker, kept for as long as the process: leases are renewed."""
        found = self._lines.get((party.name, party.broker_url))
        if found is None:
            found = self._lines[party.name, party.broker_url] = HttpBroker(party)
        return found

    def _holder(self, holder: Holder) -> HttpBroker:
        """The way to a broker that holds a share, kept as those to owners' brokers."""
        place = f"holder {holder.name}", holder.address
        found = self._lines.get(place)
        if found is None:
            found = self._lines[place] = HttpHolder(holder)
        return found

    def _contract(self, digest: str) -> Contract:
        return Contract.verify(self._exchange.proposal(digest).envelope)
