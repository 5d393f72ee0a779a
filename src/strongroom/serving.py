"""The dimension of a policy that opens a room for many requests: which, for how long, and what its operator may see.

A contract whose policy has it is a *standing* contract. Each member is ordered from the narrowest upwards, as everything in
a policy is; ``meet`` is the greatest lower bound of two.

See ``spec/policy.md``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from .errors import BadField, UnknownDimension
from .wire import JSON, Fields

ROUTES: Final = ("chat", "completions", "embeddings")
"""The closed set of what may be asked of a room."""

OBSERVABILITY: Final = ("none", "aggregate", "failures", "full")
"""What the operator may see, from the narrowest: nothing; counts and latencies; the shape of failures; everything."""

GUARDS: Final = ("injection", "model", "pii")
"""The closed set of guards: markers of prompt injection, the guard model among the assets, personal data."""

MIN_LEASE_S: Final = 60
MAX_LEASE_S: Final = 604_800
MAX_RETENTION_S: Final = 31_622_400
MAX_PADDING: Final = 1 << 24
_LARGEST: Final = 1 << 20  # of one record, unless more padding is asked for
_PADDINGS: Final = (0, *(1 << n for n in range(8, 25)))
_MEMBERS: Final = (
    "input_guards",
    "lease_s",
    "observability",
    "output_guards",
    "padding",
    "plain_bodies",
    "retention_s",
    "routes",
)


def _known(values: Iterable[str], known: tuple[str, ...], what: str) -> frozenset[str]:
    if isinstance(values, str):
        raise BadField(f"serve: {what}s are not a set")
    found = frozenset(values)
    for stranger in sorted(map(str, found - set(known))):
        raise UnknownDimension(f"serve: {what} {stranger[:40]!r} is not one of {', '.join(known)}")
    return found


@dataclass(frozen=True, slots=True)
class Serving:
    """What may be asked of a room that stays open, and how it must answer.

    Attributes:
        routes: names in ``ROUTES``. Without one nothing is served.
        lease_s: for how long an owner's release counts before it must be renewed, seconds, 60 to 604,800. A withdrawal
            reaches a running enclave within this time.
        plain_bodies: whether a body may come unencrypted by EHBP, where TLS ends inside the enclave.
        padding: bodies are padded to a power of two of at least this many bytes; 0 for none, else 2^8 to 2^24.
        observability: a word in ``OBSERVABILITY``.
        retention_s: how long the receipts of requests are kept on a disk, seconds, 0 to 31,622,400. Who asked can fetch its
            own for a few minutes all the same, from memory.
        input_guards, output_guards: names in ``GUARDS`` that must look at every request, and at every answer.

    Raises:
        BadField: a value out of its range or of another type.
        UnknownDimension: a route, a level or a guard that this version does not know, and so could not keep to.
    """

    routes: frozenset[str]
    lease_s: int
    plain_bodies: bool = False
    padding: int = 0
    observability: str = "none"
    retention_s: int = 0
    input_guards: frozenset[str] = frozenset()
    output_guards: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        object.__setattr__(self, "routes", _known(self.routes, ROUTES, "route"))
        for side in ("input_guards", "output_guards"):
            object.__setattr__(self, side, _known(getattr(self, side), GUARDS, "guard"))
        if self.observability not in OBSERVABILITY:
            raise UnknownDimension(f"serve: observability is not one of {', '.join(OBSERVABILITY)}")
        if not isinstance(self.plain_bodies, bool):
            raise BadField("serve.plain_bodies is not true or false")
        whole = Fields({"lease_s": self.lease_s, "padding": self.padding, "retention_s": self.retention_s}, "serve")
        whole.integer("lease_s", low=MIN_LEASE_S, high=MAX_LEASE_S)
        whole.integer("retention_s", high=MAX_RETENTION_S)
        if whole.integer("padding", high=MAX_PADDING) not in _PADDINGS:
            raise BadField("serve.padding is neither 0 nor a power of two from 256")

    @property
    def padding_sizes(self) -> tuple[int, ...]:
        """The sizes to which what is sent encrypted is padded, bytes, ascending: powers of two; none where it is not."""
        if not self.padding:
            return ()
        high = max(self.padding, _LARGEST)
        return tuple(1 << n for n in range(25) if self.padding <= 1 << n <= high)

    def meet(self, other: Serving) -> Serving:
        """The widest that both permit; without a route where they have none in common."""
        return Serving(
            routes=self.routes & other.routes,
            lease_s=min(self.lease_s, other.lease_s),
            plain_bodies=self.plain_bodies and other.plain_bodies,
            padding=max(self.padding, other.padding),
            observability=min(self.observability, other.observability, key=OBSERVABILITY.index),
            retention_s=min(self.retention_s, other.retention_s),
            input_guards=self.input_guards | other.input_guards,
            output_guards=self.output_guards | other.output_guards,
        )

    def to_json(self) -> dict[str, JSON]:
        return {
            "input_guards": [*sorted(self.input_guards)],
            "lease_s": self.lease_s,
            "observability": self.observability,
            "output_guards": [*sorted(self.output_guards)],
            "padding": self.padding,
            "plain_bodies": self.plain_bodies,
            "retention_s": self.retention_s,
            "routes": [*sorted(self.routes)],
        }

    @classmethod
    def from_json(cls, value: object) -> Serving:
        """Read the one normal form. Raises BadField, UnknownDimension."""
        if isinstance(value, dict):
            for member in sorted(set(value) - set(_MEMBERS)):
                raise UnknownDimension(f"serve: the member {member[:40]!r} is not known")
        f = Fields(value, "serve")
        return cls(
            routes=frozenset(f.names("routes", low=1, high=len(ROUTES))),
            lease_s=f.integer("lease_s", low=MIN_LEASE_S, high=MAX_LEASE_S),
            plain_bodies=f.boolean("plain_bodies"),
            padding=f.integer("padding", high=MAX_PADDING),
            observability=f.text("observability", max_chars=16),
            retention_s=f.integer("retention_s", high=MAX_RETENTION_S),
            input_guards=frozenset(f.names("input_guards", high=len(GUARDS))),
            output_guards=frozenset(f.names("output_guards", high=len(GUARDS))),
        )


def explain(terms: Serving, asked: Serving) -> list[str]:
    """Where ``asked`` goes beyond ``terms``, in words for people, in a fixed order."""
    found = []
    if asked.routes - terms.routes:
        routes, permitted = ", ".join(sorted(asked.routes - terms.routes)), ", ".join(sorted(terms.routes))
        found.append(f"serve: {routes} may be asked; permitted: {permitted}")
    if asked.lease_s > terms.lease_s:
        found.append(f"serve: keys are renewed every {asked.lease_s:,} s; at most {terms.lease_s:,} are permitted")
    if asked.plain_bodies and not terms.plain_bodies:
        found.append("serve: bodies may come unencrypted by EHBP; that is not permitted")
    if asked.padding < terms.padding:
        found.append(f"serve: bodies are padded to {asked.padding:,} bytes; at least {terms.padding:,} are asked for")
    if OBSERVABILITY.index(asked.observability) > OBSERVABILITY.index(terms.observability):
        found.append(f"serve: the operator may see {asked.observability!r}; at most {terms.observability!r} is permitted")
    if asked.retention_s > terms.retention_s:
        found.append(f"serve: receipts are kept for {asked.retention_s:,} s; at most {terms.retention_s:,} are permitted")
    for side, wanted, there in (
        ("requests", terms.input_guards, asked.input_guards),
        ("answers", terms.output_guards, asked.output_guards),
    ):
        if wanted - there:
            found.append(f"serve: {', '.join(sorted(wanted - there))} must guard {side}")
    return found
