"""Submitted code on its way into a sandbox: fetched by its digest, checked, and given to a child that stands ready for it.

Everything here happens before any key is asked for. What is compared last, and decides, are the bytes that the sandbox holds
(``enclave.run``).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from strongroom import wire
from strongroom.code import PROGRAM, CodeBundle, EntryPoint
from strongroom.contract import Contract
from strongroom.enclave import sandbox
from strongroom.errors import CodeMismatch, EnvironmentMismatch, ProgramError, StrongroomError
from strongroom.programs import code

from .environments import Environments

_LOG = logging.getLogger("strongroom.enclave")
KEPT = 2  # children that stand ready, each for what ran here lately: about 200 MB each with every library


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a child must be ready for; the code itself comes later."""

    kind: str
    parts: tuple[str, ...]
    mounted: sandbox.Mounted | None

    def prepare(self) -> sandbox.Sandbox:
        """Raises NoSandbox, MissingExtra."""
        return sandbox.prepare(PROGRAM, self.kind, outputs=self.parts, mounted=self.mounted)


class Submitted:
    """Confines contracts that run submitted code.

    Args:
        fetch: a bundle's bytes by its digest, from whoever stores it: untrusted.
        environments: the packages that code is locked to.
    """

    def __init__(self, fetch: Callable[[str], bytes], environments: Environments) -> None:
        self._fetch, self._environments = fetch, environments
        self._ready: dict[_Wanted, sandbox.Sandbox | None] = {}  # the latest last; None: to be started again
        self._lock = threading.Lock()

    def take(self, contract: Contract) -> sandbox.Sandbox:
        """A sandbox with the contract's code, and with the packages that it is locked to in sight.

        Raises:
            CodeMismatch, EnvironmentMismatch: what was fetched is not what was approved.
            BadBundle, BadLock, BadEntry, BadParameters: what was approved cannot be run.
            NoWheel, WheelRefused, EnvironmentAltered, NoSandbox, MissingExtra: not here.
        """
        said = code.read(contract.proposal.program.parameters)
        data = self._fetch(said.bundle)
        if wire.digest(data) != said.bundle:
            raise CodeMismatch(f"the contract names the code {said.bundle}, and the exchange served other bytes")
        bundle = CodeBundle.parse(data)
        if bundle.environment != said.environment:
            raise EnvironmentMismatch("the lock in the bundle is not the one that the contract names")
        bundle.require_entry(EntryPoint(said.module, said.function))
        mounted = None if bundle.lock is None else self._environments.get(bundle.lock)
        wanted = _Wanted(contract.proposal.enclave.sandbox, code.parts(contract.proposal.program.parameters), mounted)
        found = self._taken(wanted)
        found.give(data)
        return found

    def _taken(self, wanted: _Wanted) -> sandbox.Sandbox:
        with self._lock:
            found = self._ready.pop(wanted, None)
            self._ready[wanted] = None
            too_many = [self._ready.pop(one) for one in list(self._ready)[:-KEPT]]
        for old in too_many:
            if old is not None:
                old.close()
        if found is not None:
            try:
                found.wait()
            except ProgramError:  # it ended while it stood by; that must cost nobody a run
                found.close()
            else:
                return found
        return wanted.prepare()

    def prepare(self) -> None:
        """Start a child for each of what ran here lately, where there is none. What cannot be is said when it is needed."""
        with self._lock:
            for wanted, found in self._ready.items():
                if found is None:
                    try:
                        self._ready[wanted] = wanted.prepare()
                    except StrongroomError as error:
                        _LOG.warning("no sandbox stands ready for code: %s: %s", error.code, error)

    def close(self) -> None:
        with self._lock:
            for found in self._ready.values():
                if found is not None:
                    found.close()
            self._ready.clear()
