"""An analysis: a researcher's code over named inputs, tried on stand-ins here and submitted to run where the data are.

room.try_("analysis.py", entry="analysis:mean", inputs={"census": "mock.csv"}, outputs={"mean": "values"})
room.try_("analysis.py", entry="analysis:mean", inputs={"census": room.assets["census"]}, outputs={"mean": "values"})
room.submit("analysis.py", entry="analysis:mean", inputs={"census": "hospital/census.csv"}, outputs={"mean": "values:lab"})

A try uses the runner, the sandbox and the output rules of the enclave; only the data and the keys are not there.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from strongroom.code import PROGRAM, CodeBundle, EntryPoint
from strongroom.errors import BadEntry, ManifestMismatch, NotFound, OutputError, ProgramError, Usage
from strongroom.policy import MAX_DECIMALS, OutputRule
from strongroom.schema import KINDS

from . import display, forms, gathered, trials
from .draft import MAX_BYTES, Draft, Wanted

if TYPE_CHECKING:
    from strongroom.contract import AssetRef, Proposal
    from strongroom.enclave.sandbox import Mounted

    from .assets import Asset
    from .room import Room

Source: TypeAlias = "Analysis | Path | str | Callable[..., Any]"
"""A file, a folder, a function, or what :func:`gather` made of one."""

DEFAULT_FORM = "pandas"
PIECE = 1 << 20  # bytes read at once
SUCCESS = "success"  # a kind that no program writes


@dataclass(frozen=True, slots=True)
class Analysis:
    """Code that is ready to be tried or submitted: a bundle, and where it begins."""

    bundle: CodeBundle
    entry: EntryPoint


def gather(analysis: Source, *, entry: str | None = None, lock: Path | str | None = None) -> Analysis:
    """Make a bundle.

    Args:
        analysis: a file, a folder or a function.
        entry: where it begins: a module (a script), or a module and a function. Of a function, itself; of one file, that.
        lock: a file of requirements with hashes; of none, the enclave's own libraries are there.

    Raises:
        CodeError: its leaves. TooLarge, NotFound.
    """
    if isinstance(analysis, Analysis):
        return analysis
    files, likely = gathered.from_function(analysis) if callable(analysis) else gathered.from_path(Path(analysis))
    if not (entry or likely):
        raise BadEntry("the folder has several modules", hint="Say where it begins: --entry MODULE:FUNCTION")
    text = None
    if lock is not None:
        try:
            text = Path(lock).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise NotFound(f"cannot read {lock} as text") from error
    found = Analysis(CodeBundle.make(files, text), EntryPoint.parse(entry or likely))
    found.bundle.require_entry(found.entry)
    return found


def _form(text: str) -> tuple[str, str]:
    """``THING[:FORM]``: what it is, and how it is wanted."""
    from strongroom.programs.code import FORMS

    thing, _, form = text.rpartition(":")
    return (thing, form) if thing and form in FORMS else (text, DEFAULT_FORM)


def _wanted(outputs: Mapping[str, str]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """``KIND[:PARTY,PARTY]`` by name: the kind, and who gets it."""
    found = {}
    for name, text in outputs.items():
        kind, _, who = text.partition(":")
        if kind not in MAX_BYTES:
            raise Usage(f"output {name!r} is no {kind!r}", hint=f"One of: {', '.join(MAX_BYTES)}")
        found[name] = kind, tuple(filter(None, who.split(",")))
    return found


def _heard(progress: str) -> dict[str, Any]:
    """``PARTS:PARTY[,PARTY]``: in how many parts it is told how far the code is, and to whom. Raises Usage."""
    steps, _, parties = progress.partition(":")
    if not (steps.isascii() and steps.isdigit() and parties):
        raise Usage(f"progress {progress[:40]!r} is not a number of parts and parties", hint="For one: --progress 10:lab")
    return {"progress": {"parties": sorted(set(parties.split(","))), "steps": int(steps[:9])}}


def _parameters(
    found: Analysis,
    forms: Mapping[str, str],
    kinds: Mapping[str, str],
    arguments: Mapping[str, Any] | None,
    progress: str | None = None,
) -> dict[str, Any]:
    return {
        **(_heard(progress) if progress else {}),
        "arguments": dict(arguments or {}),
        "bundle": found.bundle.digest,
        "entry": str(found.entry),
        "environment": found.bundle.environment,
        "inputs": dict(forms),
        "outputs": dict(kinds),
    }


def submit(
    room: Room,
    analysis: Source,
    *,
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
    entry: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    lock: Path | str | None = None,
    schemas: Mapping[str, Any] | None = None,
    title: str = "",
    progress: str | None = None,
    tried: Tried | Path | str | None = None,
    **limits: Any,
) -> Proposal:
    """Publish the code at the exchange under its digest, and propose to run it.

    Args:
        room: whose proposal it is.
        analysis: a file, a folder or a function.
        inputs: ``OWNER/NAME`` or a manifest's digest by role, with ``:FORM`` behind it where it is not wanted for pandas
            (``pandas``, ``arrow``, ``polars``, ``file``).
        outputs: ``KIND:PARTY[,PARTY]`` by name.
        entry, lock: as :func:`gather`.
        arguments: further values that the code is called with, as JSON has them, without fractions.
        schemas: what each output of kind ``values``, ``table`` or ``tensors`` may hold: a schema, its JSON, or a file of it.
            ``Tried.drafts`` of a try is a beginning.
        title: one line for people.
        progress: ``PARTS:PARTY[,PARTY]``: who hears how far the code says it is, and in how many parts; ``None``: nobody.
        tried: what ``try_`` answered for this code on these assets' mocks, or a file of it: reviewers see it as a claim.
        limits: further members of :class:`~strongroom.app.client.draft.Draft`, such as ``runs`` or ``min_group``.

    Raises:
        CodeError, BadParameters, Usage, NotFound, NotPermitted.
    """
    found = gather(analysis, entry=entry, lock=lock)
    assets = {role: _form(text) for role, text in inputs.items()}
    wanted = _wanted(outputs)
    held = forms.read(schemas or {}, {name: kind for name, (kind, _) in wanted.items()})
    kinds = {name: kind for name, (kind, _) in wanted.items()}
    parameters = _parameters(found, {role: form for role, (_, form) in assets.items()}, kinds, arguments, progress)
    offered = {role: room.asset(reference) for role, (reference, _) in assets.items()}
    trial = None if tried is None else trials.load(tried)
    if trial is not None:
        trials.require(trial, parameters, offered)
    draft = Draft(
        title=title or f"{found.entry} on {', '.join(sorted(assets))}",
        program=PROGRAM,
        assets=offered,
        outputs={name: Wanted(who, schema=held.get(name)) for name, (_, who) in wanted.items()},
        parameters=parameters,
        trial=None if trial is None else trial.digest,
        **limits,
    )
    room.exchange.put_code(found.bundle)
    if trial is not None:
        room.exchange.put_trial(trial)
    return room.propose(draft)


# --- a try ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tried:
    """What an analysis did on stand-ins.

    Attributes:
        outputs: as they would leave, by name: after their rules.
        refused: which would not leave, and why.
        failure: the code of the error by which it ended, or ``None``.
        log: what it printed, its traceback too. In a room nobody sees that, unless the contract names it as an output.
        seconds: how long it took, starting the sandbox left out.
        sandbox: the kind that it ran in.
        drafts: schemas in JSON, by output, for those that were given none: as what they wrote here would fit.
        parameters: what was run, and how: as a proposal would have it.
        inputs: digests of the stand-ins' bytes, by role.
        kinds: of the outputs that were asked for, by name.
    """

    outputs: Mapping[str, bytes]
    refused: Mapping[str, str] = field(default_factory=dict)
    failure: str | None = None
    log: str = ""
    seconds: float = 0.0
    sandbox: str = ""
    drafts: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether everything that was asked for would leave."""
        return self.failure is None and not self.refused

    def _repr_html_(self) -> str:
        return display.tried_html(self)


@dataclass
class _StandIn:
    """An input of a try (``enclave.sandbox.Opened``)."""

    media_type: str
    size: int
    file: BinaryIO


def try_(
    analysis: Source,
    *,
    inputs: Mapping[str, Any],
    outputs: Mapping[str, str],
    entry: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    lock: Path | str | None = None,
    schemas: Mapping[str, Any] | None = None,
    min_group: int = 1,
    decimals: int = MAX_DECIMALS,
    max_bytes: int | None = None,
    seconds: int = 300,
    memory_bytes: int = 2 << 30,
    sandbox: str = "isolated",
    wheels: Path | str | None = None,
    index: str | None = None,
    keep: Path | None = None,
    assets: Callable[[str], Asset] | None = None,
) -> Tried:
    """Run an analysis here, by the runner and in the sandbox of an enclave, and apply the rules that a contract would have.

    Args:
        analysis, entry, arguments, lock, schemas: as :func:`submit`.
        inputs: by role a stand-in: a file's path, with ``:FORM`` behind it where it is not wanted for pandas; a table of
            pandas, Arrow or Polars, which is handed on as what it is; an asset of ``room.assets``, of which the mock is
            taken, or in a room its name, where there is no such file.
        outputs: ``KIND`` by name; recipients may stand behind it, and are not looked at.
        min_group, decimals, max_bytes: the outputs' rules.
        seconds, memory_bytes: limits.
        sandbox: ``isolated`` or ``process``.
        wheels, index: where the packages of a lock come from.
        keep: where its environment is kept.
        assets: finds what is offered by its name.

    Raises:
        CodeError, BadParameters, NotFound, NoSandbox, MissingExtra, NoWheel, WheelRefused. ManifestMismatch: the exchange
        shows another mock than its owner signed.
    """
    found, wanted = gather(analysis, entry=entry, lock=lock), _wanted(outputs)
    with ExitStack() as opened:
        stand_ins = {role: _stand_in(what, opened, assets) for role, what in inputs.items()}
        kinds = {name: kind for name, (kind, _) in wanted.items()}
        parameters = _parameters(found, {role: form for role, (_, form) in stand_ins.items()}, kinds, arguments)
        held = {name: forms.one(value) for name, value in (schemas or {}).items()}
        you = frozenset({"you"})
        rules = {
            n: (k, OutputRule(you, max_bytes or MAX_BYTES[k], min_group, decimals, schema=held.get(n)))
            for n, k in kinds.items()
        }
        mounted = _mounted(found.bundle, keep, wheels, index)
        given = {role: stand_in for role, (stand_in, _) in stand_ins.items()}
        return _ran(found.bundle, parameters, given, rules, _Within(seconds, memory_bytes, sandbox, mounted))


def try_proposal(room: Room, proposal: Proposal, *, wheels: Path | str | None = None, index: str | None = None) -> Tried:
    """Run the code of somebody's proposal here, on the mocks of its assets, and apply the proposal's own output rules.

    It runs in the sandbox of an enclave, whatever the proposal says of sandboxes: the code is a stranger's.

    Args:
        room: who wants to see it.
        proposal: that runs a bundle.
        wheels, index: where the packages of its lock come from.

    Raises:
        NotFound: an asset has no mock. NotPermitted: it runs no bundle. ManifestMismatch: the exchange shows another mock,
        or the asset is another owner's than the proposal says. And as :meth:`Room.submitted` and :func:`try_`.
    """
    bundle = room.submitted(proposal)
    owned = {ref.role: _asset_of(room, ref) for ref in proposal.assets}
    rules = {output.name: (output.kind, output.rule) for output in proposal.outputs}
    with ExitStack() as opened:
        given = {role: _mock(asset, opened) for role, asset in owned.items()}
        mounted = _mounted(bundle, room.home.place("environments"), wheels, index)
        within = _Within(proposal.limits.seconds, proposal.limits.memory_bytes, "isolated", mounted)
        return _ran(bundle, proposal.program.parameters, given, rules, within)


def _asset_of(room: Room, ref: AssetRef) -> Asset:
    """An asset of a proposal, by its manifest, which its owner signed."""
    from strongroom.asset import verify_manifest

    from .assets import Asset

    held = room.home.book.held(ref.manifest) if ref.owner == room.name else None
    if held is not None:  # one's own: no exchange has to show it
        found = Asset(room, verify_manifest(held.manifest, room.home.keys.signing.public).manifest)
    else:
        found = room.assets[ref.manifest]
    if (found.manifest.owner, found.manifest.digest) != (ref.owner, ref.manifest):
        raise ManifestMismatch(f"the asset in role {ref.role!r} is not one of {ref.owner}'s")
    return found


@dataclass(frozen=True, slots=True)
class _Within:
    """What bounds a try: seconds, bytes, the kind of sandbox, and the packages that are there."""

    seconds: int
    memory_bytes: int
    sandbox: str
    mounted: Mounted | None


def _ran(
    bundle: CodeBundle,
    parameters: Mapping[str, Any],
    given: Mapping[str, _StandIn],
    rules: Mapping[str, tuple[str, OutputRule]],
    within: _Within,
) -> Tried:
    """Run a bundle as an enclave does."""
    from strongroom.enclave import sandbox as sandboxes
    from strongroom.programs import OutputSpec, code

    specs = {n: OutputSpec(k, r.max_bytes, r.min_group, r.decimals) for n, (k, r) in rules.items() if k != SUCCESS}
    limits = sandboxes.Limits(within.seconds, within.memory_bytes, sum(s.max_bytes for s in specs.values()))
    parts = code.parts(parameters)
    what = partial(
        Tried,
        parameters=parameters,
        inputs={role: _file_digest(stand_in.file) for role, stand_in in given.items()},
        kinds={name: kind for name, (kind, _) in rules.items()},
    )
    with ExitStack() as opened:
        child = opened.enter_context(sandboxes.prepare(PROGRAM, within.sandbox, outputs=parts, mounted=within.mounted))
        child.wait()
        child.give(bundle.encode())
        began = time.monotonic()
        try:
            written = child.run(parameters, given, specs, limits)
        except ProgramError as error:
            took = time.monotonic() - began
            return what({}, {}, error.code, child.log.decode("utf-8", "replace"), took, child.kind)
        took = time.monotonic() - began
        drafts = {
            name: form
            for name, (kind, rule) in rules.items()
            if kind in KINDS and rule.schema is None and (form := forms.drafted(kind, written[name])) is not None
        }
        rules = {n: (k, replace(r, schema=drafts[n]) if n in drafts else r) for n, (k, r) in rules.items()}
        passed, refused = _ruled(written, rules)
        said = {name: form.to_json() for name, form in drafts.items()}
        return what(passed, refused, None, child.log.decode("utf-8", "replace"), took, child.kind, said)


def _file_digest(file: BinaryIO) -> str:
    """Of a stand-in, which is left where it begins."""
    found = hashlib.sha256()
    while piece := file.read(PIECE):
        found.update(piece)
    file.seek(0)
    return f"sha256:{found.hexdigest()}"


def _ruled(
    written: Mapping[str, bytes], rules: Mapping[str, tuple[str, OutputRule]]
) -> tuple[dict[str, bytes], dict[str, str]]:
    """What would leave, and what would not, with the reason."""
    from strongroom.output import enforce

    passed, refused = {}, {}
    for name, (kind, rule) in rules.items():
        if kind in KINDS and rule.schema is None:
            refused[name] = f"no schema would let these {kind} through: say one, or write what has a form"
            continue
        try:
            passed[name] = enforce(kind, rule, b"" if kind == SUCCESS else written[name])
        except OutputError as error:
            refused[name] = error.message
    return passed, refused


def _mounted(bundle: CodeBundle, keep: Path | None, wheels: Path | str | None, index: str | None) -> Mounted | None:
    if bundle.lock is None:
        return None
    from strongroom.app.enclave.environments import Environments
    from strongroom.app.enclave.wheels import Place

    if keep is None:
        raise Usage(
            "code with a lock is tried in a room, which keeps its packages", hint="strongroom.connect(HOME).try_(...)"
        )
    return Environments(keep, Place(None if wheels is None else Path(wheels), index)).get(bundle.lock)


def _stand_in(what: Any, opened: ExitStack, assets: Callable[[str], Asset] | None) -> tuple[_StandIn, str]:
    """A stand-in, opened, and the form in which it is handed on."""
    from .assets import Asset

    if isinstance(what, Asset):
        return _mock(what, opened), DEFAULT_FORM
    if not isinstance(what, str | os.PathLike):
        return _of_table(what)
    from .room import MEDIA_TYPES

    text, form = _form(os.fspath(what))
    path = Path(text)
    if assets is not None and not path.exists():
        try:
            asset = assets(text)
        except NotFound as error:
            raise NotFound(f"there is no file {text}; and as an asset: {error.message}", hint=error.hint) from error
        return _mock(asset, opened), form
    media_type = MEDIA_TYPES.get(path.suffix.lower(), "application/octet-stream")
    try:
        file = opened.enter_context(path.open("rb"))
        return _StandIn(media_type, path.stat().st_size, file), form
    except OSError as error:
        raise NotFound(f"cannot read {path}: {error.strerror}") from error


def _mock(asset: Asset, opened: ExitStack) -> _StandIn:
    """The mock of an asset, opened. Raises as :attr:`Asset.mock_path`."""
    path, named = asset.mock_path, asset.manifest.mock
    assert named is not None  # or it would have no path
    return _StandIn(named.media_type, named.size, opened.enter_context(path.open("rb")))


def _of_table(what: Any) -> tuple[_StandIn, str]:
    import pyarrow as pa

    library = type(what).__module__.partition(".")[0]
    form = {"pandas": "pandas", "polars": "polars", "pyarrow": "arrow"}.get(library)
    if form is None:
        raise Usage("an input of a try is a file's path, an asset, or a table of pandas, Arrow or Polars")
    if form == "pandas":
        what = pa.Table.from_pandas(what, preserve_index=False)
    elif form == "polars":
        what = (what.collect() if hasattr(what, "collect") else what).to_arrow()
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, what.schema) as writer:
        writer.write_table(what)
    return _StandIn("application/vnd.apache.arrow.file", sink.tell(), io.BytesIO(sink.getvalue())), form
