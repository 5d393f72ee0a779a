"""What a verifier trusts, and nothing else: its own file, never the bundle that is being verified.

Pinned parties, platform roots (the simulated one too), expected measurements, and log keys. What is not in it is not
trusted: an empty list accepts nothing.

See ``spec/trust.md``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from . import wire
from .attest.appraisal import AppraisalPolicy
from .attest.evidence import Measurement
from .errors import BadField, NotPinned, PinMismatch
from .ledger import LogVerifier
from .party import Party, VerifyKey
from .wire import JSON, Fields

FORMAT = "strongroom.trust.v1"


@dataclass(frozen=True, slots=True)
class Root:
    """A key that vouches for a platform's keys: the platform's name and the raw key."""

    platform: str
    key: VerifyKey

    def to_json(self) -> dict[str, JSON]:
        return {"key": wire.b64(self.key.raw), "platform": self.platform}

    @classmethod
    def from_json(cls, value: object) -> Root:
        f = Fields(value, "root")
        found = cls(f.name("platform"), VerifyKey(f.base64("key")))
        f.end()
        return found


@dataclass(frozen=True, slots=True)
class Trust:
    """A verifier's trust file.

    Attributes:
        parties: pinned cards, one a name.
        roots: platform roots.
        measurements: measurements that this verifier expects of an enclave.
        logs: C2SP verifier keys (``name+hash+key``) of logs.
    """

    parties: tuple[Party, ...] = ()
    roots: tuple[Root, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    logs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [p.name for p in self.parties]
        if len(set(names)) != len(names):
            raise BadField("the trust file pins a name twice")

    def party(self, name: str) -> Party:
        """Raises NotPinned."""
        for party in self.parties:
            if party.name == name:
                return party
        raise NotPinned(f"{name!r} is not pinned")

    def check(self, parties: Iterable[Party]) -> None:
        """Require that each party's keys are those pinned under its name.

        Raises:
            NotPinned: nothing is pinned under a name, or there are no parties.
            PinMismatch: other keys are.
        """
        parties = tuple(parties)
        if not parties:
            raise NotPinned("there are no parties to check")
        for party in parties:
            if self.party(party.name).fingerprint != party.fingerprint:
                raise PinMismatch(f"the keys of {party.name!r} are not those pinned under that name")

    def pin(self, party: Party) -> Trust:
        """The trust with this card pinned. Raises PinMismatch when other keys are pinned under the name."""
        for known in self.parties:
            if known.name == party.name:
                if known.fingerprint != party.fingerprint:
                    raise PinMismatch(f"other keys are pinned under {party.name!r}")
                return replace(self, parties=tuple(party if p is known else p for p in self.parties))
        return replace(self, parties=tuple(sorted((*self.parties, party), key=lambda p: p.name)))

    def unpin(self, name: str) -> Trust:
        """The trust without this party. Raises NotPinned."""
        self.party(name)
        return replace(self, parties=tuple(p for p in self.parties if p.name != name))

    def with_enclaves(self, roots: Iterable[Root], measurements: Iterable[Measurement]) -> Trust:
        """The trust that also accepts these roots and measurements."""
        return replace(
            self,
            roots=(*self.roots, *(r for r in roots if r not in self.roots)),
            measurements=(*self.measurements, *(m for m in measurements if m not in self.measurements)),
        )

    def with_log(self, vkey: str) -> Trust:
        """The trust that also accepts this log's checkpoints. Raises BadKey for a malformed key."""
        LogVerifier.from_vkey(vkey)
        return self if vkey in self.logs else replace(self, logs=(*self.logs, vkey))

    def log_verifiers(self) -> tuple[LogVerifier, ...]:
        return tuple(LogVerifier.from_vkey(vkey) for vkey in self.logs)

    def appraisal_policy(self) -> AppraisalPolicy:
        """What this verifier asks of evidence: the platforms it has roots and measurements for."""
        return AppraisalPolicy(
            platforms=frozenset(r.platform for r in self.roots) & frozenset(m.platform for m in self.measurements),
            roots={p: tuple(r.key for r in self.roots if r.platform == p) for p in {r.platform for r in self.roots}},
            measurements=self.measurements,
        )

    def to_json(self) -> dict[str, JSON]:
        return {
            "format": FORMAT,
            "logs": list(self.logs),
            "measurements": [m.to_json() for m in self.measurements],
            "parties": [p.to_json() for p in self.parties],
            "roots": [r.to_json() for r in self.roots],
        }

    @classmethod
    def from_json(cls, value: object) -> Trust:
        """Raises BadField, BadKey, BadMeasurement."""
        f = Fields(value, "trust")
        f.literal("format", FORMAT)

        def vkey(item: object) -> str:
            g = Fields({"log": item}, "trust")
            text = g.text("log", max_chars=512)
            LogVerifier.from_vkey(text)
            return text

        found = cls(
            parties=f.items("parties", Party.from_json),
            roots=f.items("roots", Root.from_json),
            measurements=f.items("measurements", Measurement.from_json),
            logs=f.items("logs", vkey),
        )
        f.end()
        return found
