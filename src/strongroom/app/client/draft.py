"""From what a person says to a proposal: defaults, names instead of digests, and the smallest policy that allows it.

A draft says only what somebody would say aloud. What it does not say is filled in here, once, and stands in the proposal for
everybody to read; nothing is implied later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from strongroom.asset import Manifest, Scheme
from strongroom.attest.evidence import Measurement
from strongroom.budget.charge import Charge, Counts, Event, events_of
from strongroom.code import PROGRAM as CODE
from strongroom.contract import AssetRef, EnclaveTerms, Limits, Output, Payment, ProgramRef, Proposal, parameters_of
from strongroom.drawing import Agreed, lacking
from strongroom.errors import BadParameters, NotPermitted, Usage
from strongroom.observation import Observed
from strongroom.party import Party
from strongroom.policy import MAX_DECIMALS, Airlock, AnyParty, OutputRule, Policy, Recipients
from strongroom.schema import ANY_SCHEMA, Allowed
from strongroom.schema import from_json as schema_of
from strongroom.serving import Serving
from strongroom.wire import JSON

from .approvers import joined, require

MAX_BYTES: Mapping[str, int] = {
    "log": 1 << 20,
    "picture": 4 << 20,
    "records": 64 << 20,
    "report": 1 << 20,
    "success": 64,
    "table": 4 << 20,
    "tensors": 64 << 20,
    "values": 1 << 20,
}
OBSERVED: Final = Observed(1, "withheld")
"""What is told of a run of somebody's own code, unless the draft says otherwise: whole seconds, and of a failure only that
it was one. Coarser times make every run wait."""
DAY = 24 * 3600
GGUF = "application/vnd.gguf"

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Wanted:
    """An output as somebody asks for it.

    Attributes:
        recipients: party names.
        min_group, decimals, max_bytes: the rule; ``None`` takes the draft's.
        schema: what it may hold, of the kinds that need to say it.
        release: who reads it first and must pass it.
    """

    recipients: tuple[str, ...]
    min_group: int | None = None
    decimals: int | None = None
    max_bytes: int | None = None
    schema: Allowed | None = None
    release: Airlock | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """What somebody wants to propose.

    Attributes:
        title: one line.
        program: a standard program's name.
        assets: role -> manifest, as its owner signed it.
        outputs: name -> who gets it and under which rule.
        parameters: the program's.
        runs, seconds, memory_bytes: limits.
        days: how long it stands.
        min_group, decimals, max_bytes: for outputs that do not say their own; ``None``: as large as is usual for the kind.
        sandbox: ``isolated`` or ``process``.
        walls: those of ``contract.WALLS`` without which nothing may run.
        payments: what a completed run costs.
        serve: what may be asked, of a contract that keeps a room open for requests; it has no outputs then.
        among: parties who have no other role, and sign too. Whom an asset's terms name without a choice is there anyway.
        charges: role -> rows that may leave, of assets whose budgets a run is charged to although the program does not say
            what it spends.
        observed: how finely time and failure are told; ``None``: as is usual for the program.
        trial: what the code did on the mocks, by its digest.
    """

    title: str
    program: str
    assets: Mapping[str, Manifest]
    outputs: Mapping[str, Wanted]
    parameters: Mapping[str, JSON] = field(default_factory=dict)
    runs: int = 1
    seconds: int = 300
    memory_bytes: int = 2 << 30
    days: int = 7
    min_group: int = 1
    decimals: int = MAX_DECIMALS
    max_bytes: int | None = None
    sandbox: str = "isolated"
    walls: tuple[str, ...] = ()
    payments: tuple[Payment, ...] = ()
    serve: Serving | None = None
    among: tuple[str, ...] = ()
    charges: Mapping[str, int] = field(default_factory=dict)
    observed: Observed | None = None
    trial: str | None = None


def least_policy(
    uses: Iterable[str], outputs: Iterable[Output], serve: Serving | None = None, observed: Observed | None = None
) -> Policy:
    """The smallest policy that allows these uses, outputs and requests: what the asset owners are asked to permit, and no
    more."""
    rules: dict[str, OutputRule] = {}
    for output in outputs:
        rules[output.kind] = _join(rules[output.kind], output.rule) if output.kind in rules else output.rule
    return Policy(uses=frozenset(uses), outputs=rules, serve=serve, observed=observed)


def _join(one: OutputRule, other: OutputRule) -> OutputRule:
    everyone = [r for r in (one.recipients, other.recipients) if isinstance(r, AnyParty)]
    recipients: Recipients = everyone[0] if everyone else one.recipients | other.recipients  # type: ignore[operator]
    by = one.reviewers & other.reviewers
    if not isinstance(recipients, AnyParty):  # who reviews one of them reads it
        recipients |= (one.reviewers | other.reviewers) - by
    reasons = any(rule.release is None or rule.release.reasons for rule in (one, other))
    return OutputRule(
        recipients=recipients,
        max_bytes=max(one.max_bytes, other.max_bytes),
        min_group=min(one.min_group, other.min_group),
        decimals=max(one.decimals, other.decimals),
        schema=one.schema if one.schema == other.schema else ANY_SCHEMA,
        release=Airlock(by, reasons) if by else None,
    )


def _changed(old: _T, new: _T | None) -> _T:
    return old if new is None else new


def _outputs(draft: Draft, parameters: Mapping[str, JSON]) -> tuple[Output, ...]:
    from strongroom.programs import OutputKind, outputs, schemas

    written, found = outputs(draft.program, parameters), []
    said = {name: schema_of(form) for name, form in schemas(draft.program, parameters).items()}
    success = OutputKind("success", "text/plain")  # no program writes it
    for name, wanted in sorted(draft.outputs.items()):
        spec = success if name == success.kind else written.get(name)
        if spec is None:
            raise BadParameters(f"{draft.program} writes no output {name!r}", hint=f"It writes: {', '.join(written)}")
        rule = OutputRule(
            recipients=frozenset(wanted.recipients),
            max_bytes=_changed(_changed(MAX_BYTES[spec.kind], draft.max_bytes), wanted.max_bytes),
            min_group=_changed(draft.min_group, wanted.min_group),
            decimals=_changed(draft.decimals, wanted.decimals),
            schema=said.get(name) if wanted.schema is None else wanted.schema,
            release=wanted.release,
        )
        found.append(_possible(Output(name, spec.kind, rule)))
    return tuple(found)


def _possible(output: Output) -> Output:
    """Refuse here, and not when the run is over, a rule that no such output can keep to."""
    if output.kind in ("log", "records", "tensors", "values") and output.rule.min_group > 1:
        raise Usage(
            f"output {output.name!r} has no groups, so that none can be suppressed",
            hint="Leave it out, or let its min_group be 1.",
        )
    return output


def models_of(assets: Mapping[str, Manifest]) -> list[JSON]:
    """The models that assets are, each called by its owner and name, with the engine that its media type needs.

    Beside sources, what is no GGUF file is the model that retrieves from them.
    """
    found: list[tuple[str, str, str]] = []
    other = "retrieval" if any(manifest.drawing for manifest in assets.values()) else "transformers"
    for role, manifest in assets.items():
        if manifest.drawing is not None:
            continue
        engine = "llama.cpp" if manifest.media_type == GGUF else other
        found.append((f"{manifest.owner}/{manifest.name}", role, engine))
    return [{"engine": engine, "name": name, "role": role} for name, role, engine in sorted(found)]


def sources_of(assets: Mapping[str, Manifest], models: Iterable[JSON]) -> list[JSON]:
    """The sources that assets are, each under its owner's own terms, for the model that retrieves.

    Raises:
        Usage: there are sources, and no model that shows the digest of its weights retrieves from them.
    """
    roles = [model["role"] for model in models if isinstance(model, dict) and model["engine"] == "retrieval"]
    shown = [assets[role].content for role in roles if isinstance(role, str) and role in assets]
    digests = [f"sha256:{content.value.hex()}" for content in shown if content.scheme is Scheme.SHA256]
    found: list[JSON] = []
    for role, manifest in sorted(assets.items()):
        if manifest.drawing is None:
            continue
        if len(digests) != 1:
            raise Usage(
                "sources are drawn from by one model, whose weights their owners name",
                hint="Its owner seals it with --reveal-digest; or say sources among the parameters (spec/drawing.md).",
            )
        terms = manifest.drawing
        found.append(Agreed(role, manifest.name, digests[0], terms.price, terms.token, terms.total).to_json())
    return found


def _charges(
    program: str, parameters: Mapping[str, JSON], rows: Mapping[str, int], outputs: Iterable[Output]
) -> tuple[Charge, ...]:
    """What a run spends of each asset: the events that the program says, as many bytes as may leave, and the rows as said.

    Raises:
        BadParameters: the program cannot use its parameters. Usage: rows may leave, and nobody said how many.
    """
    from strongroom.programs import charges

    said = {role: events_of(events) for role, events in (charges(program, parameters) or {}).items()}
    roles = {role for role, events in said.items() if events} | set(rows)
    outputs = tuple(outputs)
    most = sum(output.rule.max_bytes for output in outputs)
    if any(rows.get(role, 0) == 0 for role in roles) and any(o.kind == "records" for o in outputs):
        raise Usage(
            "rows of records may leave: say how many are charged",
            hint="For one role: --charge ROLE=ROWS; a header is a row.",
        )
    return tuple(_charge(role, said.get(role, ()), rows.get(role, 0), most) for role in sorted(roles))


def _charge(role: str, events: tuple[Event, ...], rows: int, most: int) -> Charge:
    return Charge(role, Counts(1, max(1, sum(e.count for e in events)), rows, most), events)


def _in_normal_form(found: Proposal) -> Proposal:
    """The proposal as others will read it: what they would refuse is found before anybody signs it."""
    return Proposal.parse(found.encode())


def _sorted(payments: Iterable[Payment]) -> tuple[Payment, ...]:
    return tuple(sorted(payments, key=lambda p: (p.payer, p.payee, p.currency)))


def proposal(
    draft: Draft,
    *,
    proposer: str,
    parties: Mapping[str, Party],
    measurements: Iterable[Measurement],
    program_digest: str,
    nonce: bytes,
    at: int,
    supersedes: str | None = None,
) -> Proposal:
    """The proposal that a draft means.

    Args:
        draft: what somebody wants.
        proposer: who.
        parties: pinned cards by name; those who have a role are named.
        measurements: expected measurements, from the proposer's trust file.
        program_digest: of the program.
        nonce: 16 fresh bytes.
        at: now, Unix seconds.
        supersedes: the digest of the proposal that this one counters.

    Raises:
        BadParameters: the program does not take these parameters, roles or outputs.
        ApproverMissing: the terms of an asset leave a choice of who must approve, and nobody made it.
        Usage: somebody has a role and is not pinned, there is no expected measurement, or no output could keep to its rule.
        WireError, ContractError, PolicyError: as :meth:`Proposal.parse`.
    """
    from strongroom.programs import load, roles, use

    program = load(draft.program)
    parameters = {**program.DEFAULTS, **draft.parameters}  # what was left unsaid stands in the proposal for all to read
    if draft.serve is not None and "models" not in parameters:
        parameters["models"] = models_of(draft.assets)
    if "sources" not in parameters and any(manifest.drawing for manifest in draft.assets.values()):
        models = parameters.get("models")
        parameters["sources"] = sources_of(draft.assets, models if isinstance(models, list) else [])
    program.check(parameters)
    needed = roles(draft.program, parameters)
    if set(draft.assets) != needed:
        raise BadParameters(f"{draft.program} needs an asset for each of: {', '.join(sorted(needed))}")
    outputs, observed = _outputs(draft, parameters), draft.observed or (OBSERVED if draft.program == CODE else None)
    measurements = tuple(sorted(set(measurements), key=Measurement.encode))
    if not measurements:
        raise Usage(
            "no expected measurement is trusted here",
            hint="Pin one first: strongroom party trust --reference reference.json",
        )
    names = {proposer, *draft.among} | {m.owner for m in draft.assets.values()} | {r for o in outputs for r in o.recipients}
    names |= {name for p in draft.payments for name in (p.payer, p.payee)} | {r for o in outputs for r in o.rule.reviewers}
    names |= joined(draft.assets, names, proposer)
    strangers = names - set(parties)
    if strangers:
        raise Usage(f"{min(strangers)!r} is not pinned", hint="Pin its card first: strongroom party trust CARD")
    found = Proposal(
        title=draft.title,
        nonce=nonce.hex(),
        proposer=proposer,
        supersedes=supersedes,
        created_at=at,
        not_before=at,
        not_after=at + draft.days * DAY,
        parties=tuple(parties[n] for n in sorted(names)),
        program=ProgramRef(draft.program, program_digest, use(draft.program), parameters_of(parameters)),
        assets=tuple(AssetRef(role, m.owner, m.digest) for role, m in sorted(draft.assets.items())),
        outputs=outputs,
        enclave=EnclaveTerms(tuple(sorted({m.platform for m in measurements})), measurements, draft.sandbox, draft.walls),
        policy=least_policy({use(draft.program)}, outputs, draft.serve, observed),
        limits=Limits(draft.runs, draft.seconds, draft.memory_bytes),
        payments=_sorted(draft.payments),
        charges=_charges(draft.program, parameters, draft.charges, outputs),
        trial=draft.trial,
    )
    require(found, draft.assets)
    for role, manifest in sorted(draft.assets.items()):
        undrawn = lacking(manifest.drawing, role, found.program.parameters)
        if undrawn:
            raise NotPermitted(f"{manifest.owner}/{manifest.name} cannot be a source of it: {undrawn[0]}")
    return _in_normal_form(found)


def _recharged(old: Proposal, change: Change, outputs: Iterable[Output]) -> tuple[Charge, ...]:
    """The charges of a proposal, and further ones: as before, but for the bytes that may leave now."""
    rows = {**{c.role: c.counts.rows for c in old.charges}, **change.charges}
    return _charges(old.program.name, old.program.parameters, rows, outputs) if rows else ()


@dataclass(frozen=True, slots=True)
class Change:
    """What a counter-proposal changes; ``None`` leaves a thing as it is.

    Attributes:
        title, runs, seconds, memory_bytes, days, sandbox: as in a draft.
        min_group, decimals, max_bytes: for every output.
        drop: outputs to leave out.
        recipients: output -> its recipients.
        serve: what may be asked.
        charges: role -> rows that may leave, of assets whose budgets are to be charged.
        release: output -> who reads it first and must pass it.
        observed: how finely time and failure are told.
    """

    title: str | None = None
    runs: int | None = None
    seconds: int | None = None
    memory_bytes: int | None = None
    days: int | None = None
    sandbox: str | None = None
    min_group: int | None = None
    decimals: int | None = None
    max_bytes: int | None = None
    drop: tuple[str, ...] = ()
    recipients: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    payments: tuple[Payment, ...] | None = None
    serve: Serving | None = None
    charges: Mapping[str, int] = field(default_factory=dict)
    release: Mapping[str, Airlock] = field(default_factory=dict)
    observed: Observed | None = None


def countered(old: Proposal, change: Change, *, proposer: str, nonce: bytes, at: int) -> Proposal:
    """A counter-proposal.

    Raises:
        Usage: it changes nothing, names an output that is not there, or asks of one what it cannot keep to.
        WireError, ContractError, PolicyError: as :meth:`Proposal.parse`.
    """
    unknown = (set(change.drop) | set(change.recipients) | set(change.release)) - {o.name for o in old.outputs}
    if unknown:
        raise Usage(f"the proposal has no output {min(unknown)!r}", hint="See it with: strongroom show")
    outputs = []
    for output in old.outputs:
        if output.name in change.drop:
            continue
        rule = output.rule
        rule = replace(
            rule,
            max_bytes=_changed(rule.max_bytes, change.max_bytes),
            min_group=_changed(rule.min_group, change.min_group),
            decimals=_changed(rule.decimals, change.decimals),
        )
        if output.name in change.recipients:
            rule = replace(rule, recipients=frozenset(change.recipients[output.name]))
        if output.name in change.release:
            rule = replace(rule, release=change.release[output.name])
        outputs.append(_possible(Output(output.name, output.kind, rule)))
    limits = Limits(
        _changed(old.limits.runs, change.runs),
        _changed(old.limits.seconds, change.seconds),
        _changed(old.limits.memory_bytes, change.memory_bytes),
    )
    new = replace(
        old,
        title=_changed(old.title, change.title),
        outputs=tuple(outputs),
        policy=least_policy(
            old.policy.uses,
            outputs,
            _changed(old.policy.serve, change.serve),
            _changed(old.policy.observed, change.observed),
        ),
        limits=limits,
        enclave=replace(old.enclave, sandbox=_changed(old.enclave.sandbox, change.sandbox)),
        not_after=at + change.days * DAY if change.days is not None else old.not_after,
        payments=_sorted(_changed(old.payments, change.payments)),
        charges=_recharged(old, change, outputs),
        trial=None,  # nobody tried it under these terms
    )
    if replace(new, trial=old.trial) == old:
        raise Usage("the counter-proposal changes nothing", hint="Approve the proposal, or say what to change.")
    return _in_normal_form(replace(new, supersedes=old.digest, proposer=proposer, nonce=nonce.hex(), created_at=at))
