"""The budget: what an owner allows to be learned and spent of an asset in total, as a document that it signs.

See ``spec/budget.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from strongroom import wire
from strongroom.errors import BadBudget, BadField, StaleBudget
from strongroom.party import SigningKey, VerifyKey
from strongroom.wire import JSON, Envelope, Fields

from .charge import COUNTED, MAX_PLAIN, decimal

BUDGET_TYPE = wire.media_type("budget")
MAX_ASSETS, MAX_UNIT = 256, 128
MAX_EPSILON, MIN_DELTA = 50, Fraction(1, 10**9)


@dataclass(frozen=True, slots=True)
class Privacy:
    """A limit of differential privacy: at most ``epsilon`` at ``delta``, both canonical decimal strings.

    Attributes:
        unit: the column whose values are those whom the epsilon protects: a contract's program must protect the same ones.
            ``""``: whichever the program says; its owner reads that before approving.

    Raises:
        BadBudget: epsilon is not above 0 and at most 50, delta neither 0 nor from 10^-9 to below 1, or the unit no column.
        BadCharge: a number in another spelling.
    """

    epsilon: str
    delta: str
    unit: str = ""

    def __post_init__(self) -> None:
        epsilon, delta = decimal(self.epsilon, "dp.epsilon"), decimal(self.delta, "dp.delta")
        if not 0 < epsilon <= MAX_EPSILON:
            raise BadBudget(f"dp.epsilon is not above 0 and at most {MAX_EPSILON}")
        if delta != 0 and not MIN_DELTA <= delta < 1:
            raise BadBudget("dp.delta is neither 0 nor from 0.000000001 to below 1")
        if not self.unit.isprintable() or len(self.unit) > MAX_UNIT:
            raise BadBudget("dp.unit is no name of a column")

    def to_json(self) -> dict[str, JSON]:
        return {"delta": self.delta, "epsilon": self.epsilon, **({"unit": self.unit} if self.unit else {})}

    @classmethod
    def from_json(cls, value: object) -> Privacy:
        f = Fields(value, "dp")
        said = f.has("unit")
        unit = f.text("unit", max_chars=MAX_UNIT) if said else ""
        if said and not unit:
            raise BadBudget("dp.unit is no name of a column")
        found = cls(f.text("epsilon", max_chars=40), f.text("delta", max_chars=40), unit)
        f.end()
        return found


@dataclass(frozen=True, slots=True)
class CountLimits:
    """The most of each plain count; ``None``: this budget says nothing of it."""

    runs: int | None = None
    queries: int | None = None
    rows: int | None = None
    bytes_out: int | None = None

    def values(self) -> tuple[int | None, ...]:
        return self.runs, self.queries, self.rows, self.bytes_out

    def to_json(self) -> dict[str, JSON]:
        return {"bytes_out": self.bytes_out, "queries": self.queries, "rows": self.rows, "runs": self.runs}

    @classmethod
    def from_json(cls, value: object) -> CountLimits:
        f = Fields(value, "counts")

        def limit(name: str) -> int | None:
            def integer(item: object) -> int:
                return Fields({name: item}, "counts").integer(name, high=MAX_PLAIN)

            found: int | None = f.optional(name, integer)
            return found

        made = cls(**{name: limit(name) for name in COUNTED})
        f.end()
        return made


@dataclass(frozen=True, slots=True)
class Budget:
    """What an owner allows on an asset in total, under all contracts together and for everybody.

    Attributes:
        owner: the party's name.
        version: rises with every change.
        at: when it was signed, Unix seconds.
        assets: digests of manifests, sorted: an asset, and what was sealed from the same data. They share one budget.
        dp: the limit of differential privacy, or ``None``.
        counts: limits of plain counts.

    Raises:
        BadBudget: it names no asset, limits nothing, or its assets are not sorted and distinct.
    """

    owner: str
    version: int
    at: int
    assets: tuple[str, ...]
    dp: Privacy | None
    counts: CountLimits

    def __post_init__(self) -> None:
        if not self.assets or list(self.assets) != sorted(set(self.assets)):
            raise BadBudget("a budget names at least one asset, sorted and distinct")
        if self.dp is None and all(limit is None for limit in self.counts.values()):
            raise BadBudget("a budget that limits nothing is none")

    def to_json(self) -> dict[str, JSON]:
        return {
            "assets": list(self.assets),
            "at": self.at,
            "counts": self.counts.to_json(),
            "dp": self.dp.to_json() if self.dp else None,
            "owner": self.owner,
            "version": self.version,
        }

    def encode(self) -> bytes:
        return wire.encode(self.to_json())

    @classmethod
    def parse(cls, data: bytes) -> Budget:
        """Raises WireError and its leaves, BadBudget, BadCharge."""

        def digest(item: object) -> str:
            return Fields({"asset": item}, "budget").digest("asset")

        f = Fields(wire.decode(data, max_bytes=64 << 10), "budget")
        found = cls(
            owner=f.name("owner"),
            version=f.integer("version", low=1),
            at=f.integer("at"),
            assets=f.items("assets", digest, low=1, high=MAX_ASSETS),
            dp=f.optional("dp", Privacy.from_json),
            counts=CountLimits.from_json(f.any("counts")),
        )
        f.end()
        return found

    def sign(self, key: SigningKey) -> Envelope:
        return key.sign(BUDGET_TYPE, self.encode())

    @classmethod
    def verify(cls, envelope: Envelope, owner: str, key: VerifyKey) -> Budget:
        """What this owner signed. Raises BadSignature, BadEnvelope, WireError, BadBudget, BadField (of another owner)."""
        found = cls.parse(key.verify(envelope, BUDGET_TYPE))
        if found.owner != owner:
            raise BadField("budget.owner is another party")
        return found


def follows(new: Budget, earlier: Budget) -> None:
    """Require that ``new`` may take the place of ``earlier``, with which it shares an asset.

    Raises:
        StaleBudget: its version does not rise.
        BadBudget: it is another owner's, or leaves out an asset, whose charges would then be forgotten.
    """
    if new.owner != earlier.owner:
        raise BadBudget("the budget is of another owner")
    if new.version <= earlier.version:
        raise StaleBudget(f"version {new.version} does not rise above version {earlier.version}, which is in force")
    if set(earlier.assets) - set(new.assets):
        raise BadBudget("the budget leaves out an asset that shares it already, whose charges would be forgotten")
