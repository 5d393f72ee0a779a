"""What a verifier trusts, and nothing else: its own file, never the bundle that is being verified.

Pinned parties, platform roots (the simulated one too), expected measurements, and log keys. What is not in it is not
trusted: an empty list accepts nothing.

See ``spec/trust.md``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from . import wire
from .attest.appraisal_policy import AppraisalPolicy, Reference
from .attest.evidence import Measurement, Roots
from .errors import BadField, NotPinned, PinMismatch
from .ledger import LogVerifier
from .party import Party, VerifyKey
from .wire import JSON, Envelope, Fields

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
        appraisal: an appraisal policy that one of the pinned parties signed (the verifier's own party, or one whose
            judgement it takes over); ``None`` where roots and measurements are all that is accepted.
    """

    parties: tuple[Party, ...] = ()
    roots: tuple[Root, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    logs: tuple[str, ...] = ()
    appraisal: Envelope | None = None

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
        """The trust without this party. Raises NotPinned: it is not pinned, or it signed the appraisal policy in force."""
        self.party(name)
        found = replace(self, parties=tuple(p for p in self.parties if p.name != name))
        found.signed_policy()
        return found

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

    def with_policy(self, document: Envelope) -> Trust:
        """The trust with this appraisal policy in place of another. Raises what :meth:`signed_policy` does."""
        found = replace(self, appraisal=document)
        found.signed_policy()
        return found

    def signed_policy(self) -> AppraisalPolicy:
        """The signed policy, or the one that refuses everything. Raises NotPinned, BadSignature, BadAppraisalPolicy …"""
        if self.appraisal is None:
            return AppraisalPolicy()
        keyids = [signature.keyid for signature in self.appraisal.signatures]
        for party in self.parties:
            if keyids == [party.signing_key.keyid]:
                return AppraisalPolicy.verify(self.appraisal, party.signing_key)
        raise NotPinned("the appraisal policy is not signed by exactly one party, and that one pinned")

    def appraisal_policy(self) -> AppraisalPolicy:
        """What this verifier asks of evidence: the signed policy, and the platforms it has roots and measurements for.

        Raises NotPinned, BadSignature, BadAppraisalPolicy and the leaves of what cannot be parsed: the signed policy.
        """
        signed = self.signed_policy()
        own = frozenset(r.platform for r in self.roots) & frozenset(m.platform for m in self.measurements)
        unnamed = own - signed.platforms  # of these, what the signed policy holds counts for nothing: it accepts none
        roots = {name: found for name, found in signed.roots.items() if name not in unnamed}
        for platform in {r.platform for r in self.roots}:
            before = roots.get(platform, Roots())
            keys = (*before.keys, *(r.key for r in self.roots if r.platform == platform))
            roots[platform] = replace(before, keys=keys)
        kept = [r for r in signed.references if r.measurement.platform not in unnamed]
        named = {r.measurement for r in kept}
        references = (*kept, *(Reference(m) for m in self.measurements if m not in named))
        return replace(signed, platforms=signed.platforms | own, roots=roots, references=references)

    def to_json(self) -> dict[str, JSON]:
        return {
            "appraisal_policy": self.appraisal.to_json() if self.appraisal else None,
            "format": FORMAT,
            "logs": list(self.logs),
            "measurements": [m.to_json() for m in self.measurements],
            "parties": [p.to_json() for p in self.parties],
            "roots": [r.to_json() for r in self.roots],
        }

    @classmethod
    def from_json(cls, value: object) -> Trust:
        """Raises BadField, BadKey, BadMeasurement; NotPinned, BadSignature, BadAppraisalPolicy: of the signed policy."""
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
            appraisal=f.optional("appraisal_policy", Envelope.from_json),
        )
        found.signed_policy()
        f.end()
        return found
