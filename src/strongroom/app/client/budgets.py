"""An owner's budgets: put in force, looked at, and held against what a proposal would spend.

Everything is read from and written to the party's own broker's book; no exchange is asked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation

from strongroom.asset import Manifest
from strongroom.broker import Charged
from strongroom.budget.account import Line, account, unit_of
from strongroom.budget.composition import canonical
from strongroom.budget.document import Budget, CountLimits, Privacy
from strongroom.contract import Proposal
from strongroom.errors import BadBudget, MissingExtra, NotCharged, NotFound, Usage

from . import sharing
from .home import PartyHome
from .prose import Clause


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody wants a budget to be; ``None`` leaves a thing as it is, or unlimited where there was no budget.

    Attributes:
        epsilon, delta: decimal numbers in any spelling.
        runs, queries, rows, bytes_out: the most of each.
        unit: the column of ids of those whom the epsilon protects.
        shares_with: another asset, whose budget this one is to share from now on.
    """

    epsilon: str | None = None
    delta: str | None = None
    runs: int | None = None
    queries: int | None = None
    rows: int | None = None
    bytes_out: int | None = None
    shares_with: str | None = None
    unit: str | None = None


@dataclass(frozen=True, slots=True)
class Spending:
    """What a proposal would spend of one budget of this party's.

    Attributes:
        role: of the asset.
        manifest: its digest.
        charged: whether the proposal states a charge for the role.
        lines: what is limited, used, and would be used by one run; empty where nothing is charged.
        noisy: whether the budget asks for events and the charge names none.
        others: whether the budget says whom its epsilon protects, and the program protects others.
    """

    role: str
    manifest: str
    charged: bool
    lines: tuple[Line, ...]
    noisy: bool
    others: bool = False

    @property
    def fits(self) -> bool:
        """Whether the broker would let one run of it pass now."""
        return self.charged and not self.noisy and not self.others and all(line.fits for line in self.lines)


def find(home: PartyHome, reference: str) -> Manifest:
    """An own asset by its name (the newest), ``OWNER/NAME``, or digest. Raises NotFound."""
    name = reference.removeprefix(f"{home.name}/")
    for manifest in reversed(own(home)):
        if reference == manifest.digest or manifest.name == name:
            return manifest
    raise NotFound(
        f"your broker holds no asset {reference!r}",
        hint="Only an asset's owner can say that of it. What pinned owners offer: strongroom assets",
    )


def own(home: PartyHome) -> list[Manifest]:
    """The assets whose keys this party's broker holds, in the order in which they came."""
    return [Manifest.parse(envelope.payload) for envelope in home.book.assets()]


def in_force(home: PartyHome, manifest: str) -> Budget | None:
    """The budget in force for an own asset, verified. Raises BadSignature and as ``Budget.verify``."""
    envelope = home.book.budget(manifest)
    return None if envelope is None else Budget.verify(envelope, home.name, home.keys.signing.public)


def put(home: PartyHome, asset: Manifest, wanted: Wanted, at: int) -> Budget:
    """Put a budget in force for an asset, for all of its name, and for all that share it.

    Raises:
        Usage: a number that is none, or an epsilon without its delta. NotFound: the asset to share with is not here.
        BadBudget, BadCharge, StaleBudget: as their makers.
    """
    named = [asset] if wanted.shares_with is None else [find(home, wanted.shares_with), asset]
    names = {manifest.name for manifest in named}
    # also what was sealed before: else an older seal of the same data would be a way around
    assets = {m.digest for m in own(home) if m.name in names}
    found = [budget for digest in sorted(assets) if (budget := in_force(home, digest)) is not None]
    base = next((budget for m in named if (budget := in_force(home, m.digest)) is not None), None)
    if any(sharing.read(home, digest) for digest in assets):
        raise BadBudget("the asset's key is shared, and brokers that each count alone would not hold a budget")
    new = Budget(
        owner=home.name,
        version=1 + max((b.version for b in found), default=0),
        at=at,
        assets=tuple(sorted(assets.union(*(b.assets for b in found)))),
        dp=_privacy(wanted, base),
        counts=_limits(wanted, base),
    )
    home.book.set_budget(new, new.sign(home.keys.signing))
    return new


def _limits(wanted: Wanted, base: Budget | None) -> CountLimits:
    before = base.counts if base else CountLimits()
    said = {"runs": wanted.runs, "queries": wanted.queries, "rows": wanted.rows, "bytes_out": wanted.bytes_out}
    return replace(before, **{name: value for name, value in said.items() if value is not None})


def _privacy(wanted: Wanted, base: Budget | None) -> Privacy | None:
    before = base.dp if base else None
    if wanted.epsilon is None and wanted.delta is None and wanted.unit is None:
        return before
    epsilon = before.epsilon if wanted.epsilon is None and before else wanted.epsilon
    delta = before.delta if wanted.delta is None and before else wanted.delta
    if epsilon is None or delta is None:
        raise Usage("an epsilon goes with its delta", hint="Say both, such as: --epsilon 3 --delta 1e-6")
    unit = wanted.unit if wanted.unit is not None else before.unit if before else ""
    return Privacy(_decimal(epsilon), _decimal(delta), unit)


def _decimal(text: str) -> str:
    """A number as people write it, in its one spelling. Raises Usage."""
    try:
        value = Decimal(text)
    except InvalidOperation as error:
        raise Usage(f"{text!r} is no number") from error
    if not value.is_finite() or value < 0 or not -30 <= value.adjusted() <= 30 or len(text) > 40:
        raise Usage(f"{text!r} is no number that a budget can hold")
    return canonical(value)


def adopt(home: PartyHome, sealed: Manifest, at: int) -> Budget | None:
    """Let an asset that is sealed again share the budget of the one of its name: a new seal must not begin a new budget.

    Called before its key is with the broker.

    Returns:
        the budget, or ``None`` where no asset of that name has one.
    """
    for earlier in reversed(own(home)):
        budget = in_force(home, earlier.digest) if earlier.name == sealed.name else None
        if budget is not None and sealed.digest not in budget.assets:
            assets = tuple(sorted({*budget.assets, sealed.digest}))
            new = replace(budget, version=budget.version + 1, at=at, assets=assets)
            home.book.set_budget(new, new.sign(home.keys.signing))
            return new
    return None


def charges(home: PartyHome, budget: Budget) -> list[Charged]:
    """Every charge against a budget's assets, oldest first."""
    return sorted(home.book.charges(budget.assets), key=lambda c: c.at)


def look(home: PartyHome, budget: Budget) -> list[Line]:
    """What is used and left of a budget. Raises MissingExtra."""
    return account(budget, [c.stands for c in charges(home, budget)])


def spending(home: PartyHome, proposal: Proposal) -> list[Spending]:
    """What one run of a proposal would spend of this party's own budgets. Raises MissingExtra."""
    found = []
    for ref in proposal.assets:
        budget = in_force(home, ref.manifest) if ref.owner == home.name else None
        if budget is None:
            continue
        charge = proposal.charge(ref.role)
        before = [c.stands for c in charges(home, budget)]
        noisy = budget.dp is not None and charge is not None and not charge.events
        lines = () if charge is None else tuple(account(budget, before, charge))
        said = budget.dp.unit if budget.dp else ""
        others = bool(said) and said != unit_of(proposal.program.parameters)
        found.append(Spending(ref.role, ref.manifest, charge is not None, lines, noisy, others))
    return found


# --- in words -----------------------------------------------------------------------------------------------------------


def costs(home: PartyHome, proposal: Proposal) -> list[Clause]:
    """What one run of a proposal would spend of this party's own budgets, in words; or why that cannot be said here."""
    try:
        return words(spending(home, proposal), proposal.limits.runs, standing=proposal.standing)
    except MissingExtra as error:
        return [Clause("your budget", f"cannot be composed here: {error.message} ({error.hint})")]


def require_runs(home: PartyHome, proposal: Proposal) -> None:
    """Refuse to sign that a room answers requests about an asset that has a budget: what answers tell is charged to none.

    Raises:
        NotCharged: one of this party's own assets in it has a budget.
    """
    if not proposal.standing:
        return
    for ref in proposal.assets:
        if ref.owner == home.name and in_force(home, ref.manifest) is not None:
            raise NotCharged(
                f"the asset in role {ref.role!r} has a budget, and what a room answers is charged to none",
                hint="Let it be asked in runs, which are charged; or offer what may be served as an asset without a budget.",
            )


def words(found: Iterable[Spending], runs: int, *, standing: bool = False) -> list[Clause]:
    """The same, of what was found.

    Args:
        found: as :func:`spending` gives it.
        runs: how many the proposal allows.
        standing: whether it keeps a room open for requests.
    """
    said = []
    for s in found:
        about = f"your budget, {s.role}"
        if not s.charged:
            nothing = "nothing is charged to it, so that your broker will refuse; counter it with --charge"
            if standing:
                nothing = "what a room answers is charged to no budget, so that your broker will refuse"
            said.append(Clause(about, nothing))
        elif s.noisy:
            said.append(Clause(about, "it limits epsilon, and the program adds no noise: your broker will refuse"))
        elif s.others:
            said.append(Clause(about, "its epsilon protects others than the program does: your broker will refuse"))
        said += [Clause(about, _would(line, runs)) for line in s.lines if not (s.noisy and line.name == "epsilon")]
    return said


def _would(line: Line, runs: int) -> str:
    name = line.name.replace("_", " ")
    if line.used is None or line.would is None:
        return f"{name}: a run would spend more than is left, by far"
    step, left = line.would - line.used, f"{line.left.normalize():,f} is left of {line.limit.normalize():,f}"
    text = f"{name}: a run would spend {step.normalize():,f}, and {left}"
    if not line.fits:
        return f"{text}: more than is left"
    if runs == 1 or not step:
        return text
    enough = int(line.left // step) if line.name != "epsilon" else runs
    return f"{text}: enough for {enough} of its {runs} runs" if enough < runs else f"{text}; it may run {runs} times"


__all__ = [
    "Spending",
    "Wanted",
    "adopt",
    "charges",
    "costs",
    "find",
    "in_force",
    "look",
    "own",
    "put",
    "spending",
    "words",
]
