"""An enclave on confidential hardware: the process asks its platform itself, from inside the guest that is measured.

It is started as on the simulated platform (``launch.py``), from an image of links and without anything that an installed
Python would run beside it; but nobody stands outside and signs for it. What is signed is the guest: its firmware, its
kernel, and by them the file system that this package lies in.

See ``docs/producing.md``.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn, Protocol, TypeAlias

from strongroom.attest.evidence import MAX_ENDORSEMENTS, Endorsements, Evidence, Platform
from strongroom.errors import StrongroomError

from . import launch
from .measure import Distribution, FileDigests, Installation

_LOG = logging.getLogger("strongroom.enclave")

# Some evidence, the time (unix seconds) and what the platform itself handed out: further endorsements for it.
Gather: TypeAlias = Callable[[Evidence, int, Endorsements], Endorsements]


class Devices(Protocol):
    """Devices beside a processor."""

    def produce(self, report_data: bytes) -> tuple[Evidence, ...]:
        """Evidence of each, for the 64 bytes that the processor signs. Raises PlatformFailed."""
        ...


class _Seen(threading.local):
    """What this thread was last given: its endorsements are asked for next."""

    evidence: tuple[Evidence, ...] = ()


class Hardware:
    """A processor's platform with the devices beside it, and where further endorsements come from.

    Implements ``attest.evidence.Platform``; several threads may ask at once.

    Args:
        processor: asks the processor.
        devices: asks the devices; ``None`` where there are none.
        gather: finds what the vendors say of some evidence; nothing beyond what the platform hands out by default.
        clock: unix seconds.
    """

    def __init__(
        self,
        processor: Platform,
        devices: Devices | None = None,
        *,
        gather: Gather | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._processor, self._devices, self._gather, self._clock = processor, devices, gather, clock
        self._seen = _Seen()

    def produce(self, report_data: bytes) -> Evidence:
        """The processor's evidence for 64 bytes."""
        evidence = self._processor.produce(report_data)
        self._seen.evidence = (evidence,)
        return evidence

    @property
    def devices(self) -> Callable[[bytes], tuple[Evidence, ...]] | None:
        """The devices' evidence for the 64 bytes that the processor signs; ``None`` where there are none."""
        return None if self._devices is None else self._ask_devices

    def _ask_devices(self, report_data: bytes) -> tuple[Evidence, ...]:
        assert self._devices is not None
        found = self._devices.produce(report_data)
        self._seen.evidence += found
        return found

    def endorsements(self) -> Endorsements:
        """What vouches for the evidence that this thread was last given, as far as it can be had.

        What cannot be had is left out: who verifies may have it, and refuses what it cannot establish.
        """
        own = self._processor.endorsements()
        found = dict.fromkeys(own.documents)
        for evidence in self._seen.evidence if self._gather else ():
            assert self._gather is not None
            try:
                found.update(dict.fromkeys(self._gather(evidence, int(self._clock()), own).documents))
            except StrongroomError as error:
                _LOG.warning("endorsements of %s are left out: %s: %s", evidence.platform, error.code, error)
        return Endorsements(tuple(found)[:MAX_ENDORSEMENTS])


def serve(
    arguments: Sequence[str],
    *,
    images: Path,
    warm: Sequence[str] = (),
    beside: Sequence[str] = (),
    installation: Installation | None = None,
) -> NoReturn:
    """Become an enclave that asks its platform itself; this process is its own no more.

    Args:
        arguments: the enclave's (``server.main``).
        images: where images are kept.
        warm: modules whose bytecode is compiled the first time.
        beside: further distributions that the enclave may import: the library of its devices.
        installation: what to start; the one that this process runs from by default.

    Raises:
        NotMeasurable: the installation is incomplete or cannot be read.
        PlatformFailed: what it needs cannot be imported.
    """
    place = installation or Installation.here()
    place = replace(place, distributions=(*place.distributions, *map(Distribution.find, beside)))
    name = place.measure(FileDigests()).digest  # nobody signs it; it tells one image, and its bytecode, from another
    image = launch.build(images, name, place.links, place.interpreter, place.library)
    launch.warm(image, warm)
    launch.become(image, place.module, *arguments)
