"""A room that stays open: the keys of a standing contract's assets, held on leases, for one keyset.

Each owner's broker releases its key until a time. Before that the enclave proves itself again, with a fresh nonce, and gets
a new lease or a refusal: so a withdrawal reaches a running enclave. What is not renewed in time is erased.

Nothing here waits or asks what time it is by itself: whoever serves calls :meth:`Room.renew` when :meth:`Room.due` says so,
and :meth:`Room.require_open` before each request. The clock is the host's, which may stretch a lease by stopping it.

See ``spec/release.md``.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from types import MappingProxyType

from strongroom.asset import RangeSource, Scheme, SealedReader, check_content
from strongroom.attest.keyset import AttestationReport, TlsKey, report_data
from strongroom.contract import AssetRef, Contract, RunRequest
from strongroom.errors import BookRestored, NotPermitted, ReleaseRefused, RoomClosed, StrongroomError, WrongEpoch, WrongKey
from strongroom.release import run_subject
from strongroom.wire import Envelope

from .obtain import Around, Keys, Obtainer, Released, ServingKeys, require_program, require_use
from .run import KEYSET_SECONDS


class Room:
    """A standing contract in force. It begins closed; :meth:`open` asks every owner for its key.

    Args:
        contract: completely signed, and a standing one.
        request: a party's signed request to open it; the brokers check it too.
        program_digest: of the program that stands ready to serve.
        around: what the enclave is given.
        tls: the keys of TLS that ends inside the enclave, which the keyset names.
        droppable: roles that the room does without, where their owners refuse. Of no other may one be missing.

    Raises:
        ContractError, NotPermitted, ProgramNotApproved: before any key is asked for.
    """

    def __init__(
        self,
        contract: Contract,
        request: Envelope,
        program_digest: str,
        around: Around,
        *,
        tls: tuple[TlsKey, ...] = (),
        droppable: Collection[str] = (),
    ) -> None:
        at = around.now()
        contract.require_in_force(at)
        RunRequest.verify(request, contract.proposal, at)
        if not contract.proposal.standing:
            raise NotPermitted("a contract for runs is run, and not served")
        require_use(contract)
        require_program(contract, program_digest)
        self.contract, self.around = contract, around
        self.run_id = RunRequest.peek(request).run_id
        until = at + contract.proposal.limits.seconds + KEYSET_SECONDS
        subject = run_subject(contract.digest, self.run_id)
        serving = ServingKeys.make(around.entropy)
        self._serving: ServingKeys | None = serving
        devices = around.devices is not None
        self.keys = Keys(around.entropy, subject, until, devices=devices, serving=serving, tls=tls)
        self._keyring = Obtainer(contract, request, self.keys, around)
        self._manifests = self._keyring.manifests()
        self._held: dict[str, Released] = {}
        self._droppable = frozenset(droppable)
        self._closed = False  # for good
        self._lock = threading.Lock()  # of ``_held`` and ``_closed``
        self._asking = threading.Lock()

    @property
    def serving(self) -> ServingKeys:
        """The keys for requests. Raises RoomClosed: they were erased."""
        if self._serving is None:
            raise RoomClosed("the keys for requests were erased")
        return self._serving

    @property
    def manifests(self) -> tuple[Envelope, ...]:
        """The assets' manifests as their owners signed them, which say with the contract what is served."""
        return tuple(envelope for envelope, _ in self._manifests.values())

    def open(self) -> None:
        """Ask every owner for its key.

        Raises:
            ReleaseRefused, BadRelease: a broker refused, or answered something else.
            Unreachable: a broker did not answer.
            BookRestored: a broker's book was put back, and gives nothing until its owner looked.
        """
        self.renew()

    def renew(self, roles: Collection[str] | None = None) -> None:
        """Prove the enclave to owners again, with fresh nonces, and hold each key for another lease.

        Those are asked first that the room cannot do without. Once the room is open, each key counts from when it came:
        what another owner says, or does not, takes nothing from it.

        Args:
            roles: whose owners are asked; ``None``: all of them.

        Raises:
            ReleaseRefused: an owner does not renew. Every key is erased, unless its owner is dealing shares anew; where the
                role is one that can be dropped, that key alone is, and nothing is raised.
            RoomClosed: it was closed, be it while the owners were asked: nothing is held.
            StrongroomError: a broker does not answer, or not as one. What is held is held until its lease ends. Of a role
                that can be dropped nothing of this is raised, once the room is open.
        """
        with self._asking:
            self._require_not_closed()
            with self._lock:
                opening = not self._held
            asked = [ref for ref in self.contract.proposal.assets if roles is None or ref.role in roles]
            asked.sort(key=lambda ref: ref.role in self._droppable)
            found: dict[str, Released | None] = {}
            failed: StrongroomError | None = None
            for ref in asked:
                try:
                    found[ref.role] = self._obtained(ref, opening=opening)
                except StrongroomError as error:
                    needed = ref.role not in self._droppable
                    if needed and isinstance(error, ReleaseRefused) and error.reason != WrongEpoch.code:
                        self.close()  # its owner says no to the contract, and does not merely deal shares anew
                        raise
                    if opening:  # everybody is there then
                        raise
                    failed = failed or (error if needed else None)
                if not opening:
                    self._hold(found)
                    found.clear()
            self._hold(found)
        self._require_not_closed()
        if failed is not None:
            raise failed

    def _obtained(self, ref: AssetRef, *, opening: bool) -> Released | None:
        """One key, for another lease; ``None`` where the room does without it. Raises as :meth:`renew`."""
        try:
            released = self._keyring.obtain(ref, *self._manifests[ref.role])
        except ReleaseRefused as error:
            cannot = error.reason == WrongEpoch.code or (error.reason == BookRestored.code and not opening)
            if ref.role not in self._droppable or cannot:
                raise
            self.around.progress("refused", f"{ref.role}: the room does without it")
            return None
        manifest = released.manifest
        if released.key.commitment(manifest.sealed.salt) != manifest.key_commitment:
            # what another room opened may be shared with this one, which then opens nothing that would show it
            raise WrongKey(f"the key of {ref.role!r} is not the one that the manifest commits to")
        return released

    def _hold(self, found: Mapping[str, Released | None]) -> None:
        """Hold what was obtained, and no longer what was refused."""
        with self._lock:
            if not self._closed:
                self._held |= {role: released for role, released in found.items() if released is not None}
                for role in [role for role, released in found.items() if released is None]:
                    self._held.pop(role, None)

    def lapse(self, at: int) -> bool:
        """Erase the keys of what can be dropped whose lease has ended; whether there was one."""
        with self._lock:
            over = [role for role in self._droppable & set(self._held) if (self._held[role].until or 0) < at]
            for role in over:
                del self._held[role]
        return bool(over)

    def _require_not_closed(self) -> None:
        with self._lock:
            if self._closed:
                raise RoomClosed("the room is closed, and is not opened again")

    @property
    def until(self) -> int:
        """The last second at which every key may be held that the room cannot do without, Unix; 0 where none is."""
        with self._lock:
            return min((held.until or 0 for role, held in self._held.items() if role not in self._droppable), default=0)

    def due(self, at: int) -> frozenset[str]:
        """The roles whose owners it is time to ask again: of one of them a third of the lease is left, or less.

        With it go those of whose lease half is left, or less; all of them, where nothing is held. What was dropped is not
        asked for again.
        """
        serve = self.contract.proposal.policy.serve
        if serve is None:
            return frozenset()
        with self._lock:
            left = {role: (held.until or 0) - at for role, held in self._held.items()}
        if not left:
            return frozenset(ref.role for ref in self.contract.proposal.assets)
        share = 2 if min(left.values()) <= serve.lease_s // 3 else 0
        return frozenset(role for role, seconds in left.items() if share and seconds <= serve.lease_s // share)

    def require_open(self, at: int) -> None:
        """Require that every key may be held now; erase them where one may not. Raises RoomClosed."""
        if at > self.until:
            if self.until:  # one that was never opened may be yet
                self.close()
            raise RoomClosed("no owner's lease is in force")

    def released(self) -> MappingProxyType[str, Released]:
        """What is held, by role. Raises RoomClosed."""
        self.require_open(self.around.now())
        self.lapse(self.around.now())
        with self._lock:
            return MappingProxyType(dict(self._held))

    def reader(self, role: str) -> SealedReader:
        """An asset, opened, read by range. Where its plain SHA-256 is public, all of it is compared first.

        Raises:
            RoomClosed: no lease is in force.
            AssetError: the sealed file is not what the manifest says.
        """
        held = self.released()[role]
        source = self.around.exchange.sealed(held.manifest.digest)
        if held.manifest.content.scheme is Scheme.SHA256:
            check_content(source, held.manifest, held.key)
        return SealedReader(source, held.manifest, held.key)

    def sealed(self, role: str) -> tuple[RangeSource, Released]:
        """An asset's sealed file, and what opens it: for who reads all of it once, and compares its SHA-256 by that.

        Raises:
            RoomClosed: no lease is in force.
        """
        held = self.released()[role]
        return self.around.exchange.sealed(held.manifest.digest), held

    def report(self, nonce: bytes | None, *, e2ee_versions: tuple[str, ...] = ()) -> AttestationReport:
        """Evidence of this room's keyset for whoever asks.

        Args:
            nonce: 32 bytes from the asker; ``None`` for the form that proves no freshness.
            e2ee_versions: how requests may be encrypted.

        Raises:
            BadNonce: another length.
            PlatformFailed, NotMeasurable: the platform gives no evidence now.
        """
        bound = report_data(self.keys.keyset.digest, nonce)
        evidence, endorsements = self._keyring.prove(bound), self.around.platform.endorsements()
        return AttestationReport(self.keys.keyset, bound[:32], evidence, endorsements, e2ee_versions=e2ee_versions)

    def close(self) -> None:
        """Erase every asset's key, for good: nothing here refers to one any more. Python cannot promise more than that."""
        with self._lock:
            self._closed, self._held = True, {}

    def erase(self) -> None:
        """Close, and erase the keys for requests, their receipts and releases too: nothing is answered any more.

        What is left is what proves that this keyset was here: :meth:`report`.
        """
        self.close()
        self._serving = None
        self.keys.erase()
