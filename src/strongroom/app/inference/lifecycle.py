"""What goes on beside requests: leases are renewed in time, what is not renewed is erased, a full keyset is replaced.

See ``spec/inference.md``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from strongroom.contract import Contract
from strongroom.errors import ReleaseRefused, RoomClosed, StrongroomError
from strongroom.wire import Envelope

from . import openai
from .asking import Receive, Send
from .rooms import Keeper, Rooms

_LOG = logging.getLogger("strongroom.inference")

TICK_SECONDS: Final = 1.0
BACKOFF_SECONDS: Final = (1.0, 2.0, 5.0, 15.0, 60.0)  # between two tries to renew, where nobody answers
PATIENCE_SECONDS: Final = 2.0  # between two lines while a room is opened


class Lifecycle:
    """Keeps rooms open for as long as their owners allow, and no longer.

    Args:
        rooms: the enclave's.
        now: Unix seconds.
        tick: seconds between two looks.
    """

    def __init__(self, rooms: Rooms, now: Callable[[], float], *, tick: float = TICK_SECONDS) -> None:
        self._rooms, self._now, self._tick = rooms, now, tick
        self._failed: dict[tuple[str, str], tuple[int, float]] = {}  # by keyset and role: how often, and when to try again
        self._opening: set[asyncio.Task[None]] = set()
        self.ending = False
        self.rotating: asyncio.Task[bool] | None = None  # opening takes as long as weights are large; renewals do not wait

    # --- the server's own life ---

    async def run(self, receive: Receive, send: Send) -> None:
        """The lifespan protocol of ASGI."""
        await receive()
        watching = asyncio.get_running_loop().create_task(self._watch())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.ending = True
        watching.cancel()
        for task in [*self._opening, *([self.rotating] if self.rotating else [])]:
            task.cancel()
        await self._rooms.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._tick)
            try:
                await self.step()
            except Exception as error:  # noqa: BLE001 - whatever it is, leases are renewed; nothing of it is logged
                _LOG.error("rooms could not be looked at: %s", openai.expected(error).code)

    async def step(self) -> None:
        """Look at every room once."""
        for keeper in [*self._rooms.draining, *([self._rooms.current] if self._rooms.current else [])]:
            try:
                await self._look(keeper)
            except Exception as error:  # noqa: BLE001 - the next look comes; neither message nor traceback is logged
                _LOG.error("a room could not be looked at: %s", openai.expected(error).code)
        if self.rotating is None or self.rotating.done():
            self.rotating = asyncio.get_running_loop().create_task(self._rotate())

    async def _rotate(self) -> bool:
        try:
            return await self._rooms.rotate()
        except Exception as error:  # noqa: BLE001 - the next look comes; neither message nor traceback is logged
            _LOG.error("the keyset could not be rotated: %s", openai.expected(error).code)
            return False

    async def _look(self, keeper: Keeper) -> None:
        room, at = keeper.room, int(self._now())
        if not keeper.closed.is_set():
            roles = frozenset(role for role in room.due(at) if self._may_try(keeper, role))
            if roles:
                await self._renew(keeper, roles)
        room.lapse(int(self._now()))
        self._rooms.draw(keeper)  # also where somebody else who looked let a key lapse
        try:
            keeper.require_open(int(self._now()))
        except RoomClosed:
            if not keeper.closed.is_set():
                _LOG.warning("a room is closed: no owner's lease is in force")
            self._failed = {place: tried for place, tried in self._failed.items() if place[0] != keeper.digest}
            await self._rooms.close_room(keeper)

    def _may_try(self, keeper: Keeper, role: str) -> bool:
        return self._now() >= self._failed.get((keeper.digest, role), (0, 0.0))[1]

    async def _renew(self, keeper: Keeper, roles: frozenset[str]) -> None:
        try:
            await asyncio.to_thread(keeper.room.renew, roles)
            self._rooms.draw(keeper)
            await asyncio.to_thread(self._rooms.opened, keeper.room)
        except ReleaseRefused as error:
            _LOG.warning("an owner does not renew: %s", error.reason)
        except StrongroomError as error:  # what is held is held until its lease ends
            _LOG.warning("a lease was not renewed: %s; it is tried again", error.code)
        finally:
            self._note(keeper, roles)

    def _note(self, keeper: Keeper, roles: frozenset[str]) -> None:
        """Wait longer and longer for whose lease is as short as before it was asked for; each role for itself."""
        late = keeper.room.due(int(self._now()))
        for role in roles:
            place = keeper.digest, role
            if role in late:
                tries = self._failed.get(place, (0, 0.0))[0]
                pause = BACKOFF_SECONDS[min(tries, len(BACKOFF_SECONDS) - 1)]
                self._failed[place] = (tries + 1, self._now() + pause)
            else:
                self._failed.pop(place, None)

    # --- opening ---

    async def opening(self, contract: Contract, envelope: Envelope) -> AsyncIterator[dict[str, Any]]:
        """Open a room, and tell of it. It is opened also where nobody listens any more.

        Yields:
            ``{"step", "detail"}`` as things happen, and last ``{"room"}`` or ``{"error"}``.
        """
        loop, events = asyncio.get_running_loop(), asyncio.Queue[dict[str, Any]]()

        def progress(step: str, detail: str) -> None:  # from any thread
            loop.call_soon_threadsafe(events.put_nowait, {"detail": detail, "step": step})

        async def work() -> None:
            try:
                keeper = await self._rooms.open(contract, envelope, progress)
            except StrongroomError as error:
                events.put_nowait({"error": error.to_json()})
            except Exception as error:  # noqa: BLE001 - neither message nor traceback is logged
                events.put_nowait({"error": openai.expected(error).to_json()})
            else:
                found = {"contract": contract.digest, "keyset": keeper.digest, "until": keeper.room.until}
                events.put_nowait({"room": found})

        task = loop.create_task(work())
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)
        last = ""
        while True:
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    event = await events.get()
            except TimeoutError:
                event = {"detail": "", "step": last}
            yield event
            if "step" not in event:
                return
            last = event["step"]
