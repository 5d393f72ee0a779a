"""``code``: a researcher's own analysis over named inputs, from a bundle that every party approved by its digest.

The parameters say which bundle, where it begins, how each input is wanted, and what comes back in which form. They are
written down in ``spec/code.md``.

This module is read by clients too: what is heavy is imported by ``load``, and by ``run``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from strongroom.errors import BadParameters

from . import Input, OutputKind, OutputSpec, Step, Write

NAME: Final = "code"
USE: Final = "analyse"
ROLES: Final = frozenset[str]()  # as its parameters say
OUTPUTS: Final[Mapping[str, OutputKind]] = {}
DEFAULTS: Final[Mapping[str, Any]] = {"arguments": {}, "environment": None}
LIBRARIES: Final = ("numpy", "pyarrow")

MISSING: Final = "An enclave has pandas and Polars where it is started with them: strongroom enclave --with data"

# Read by libraries when they are imported: there is no home folder to look into, and no screen to draw on.
ENVIRONMENT: Final[Mapping[str, str]] = {
    "HOME": "/tmp",  # noqa: S108 - the sandbox's own
    "MPLBACKEND": "agg",
    "MPLCONFIGDIR": "/tmp",  # noqa: S108
    "POLARS_MAX_THREADS": "4",
    "TMPDIR": "/tmp",  # noqa: S108
}

WARM: Final = ("matplotlib.pyplot", "pandas", "polars", "safetensors.numpy")
"""What an enclave compiles ahead, where it has it."""

ARROW, FILE, PANDAS, POLARS = "arrow", "file", "pandas", "polars"
FORMS: Final[Mapping[str, tuple[str, ...]]] = {ARROW: (), FILE: (), PANDAS: ("pandas",), POLARS: ("polars",)}
"""How an input can be wanted, and the libraries that it takes beside ``LIBRARIES``."""

KINDS: Final[Mapping[str, OutputKind]] = {
    "log": OutputKind("log", "text/plain"),
    "picture": OutputKind("picture", "image/png"),
    "records": OutputKind("records", "text/csv"),
    "table": OutputKind("table", "application/vnd.apache.arrow.file"),
    "tensors": OutputKind("tensors", "application/vnd.safetensors"),
    "values": OutputKind("values", "application/json"),
}
"""What can come back, by the policy's word for it. No ``report``: its names and its numbers of records would be the code's
words, and nothing that the contract says bounds them. ``table`` and ``values`` have a schema."""

BEGINS: Final = 50
ENDS: Final = 950
"""Thousandths at which the code begins and ends: before and after are reading and writing."""

MAX_PROGRESS: Final = 100
"""How often progress may be told in one run: when it is, the code chooses, and so it is a way out for what it read."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_ENTRY = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,150}(?::[A-Za-z_][A-Za-z0-9_]{0,60})?\Z")
_WORD = re.compile(r"[a-z_][a-z0-9_]{0,63}\Z")
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?\Z")
_MAX = 64


@dataclass(frozen=True, slots=True)
class Progress:
    """Who hears how far the code says it is, and in how many parts of the whole."""

    parties: tuple[str, ...]
    steps: int


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a contract says of one analysis.

    Attributes:
        bundle: the digest of the code.
        module, function: where it begins; ``None`` for a script.
        environment: the digest of its lock, or ``None``.
        inputs: how each is wanted, by role.
        outputs: the kind of each, by name.
        arguments: further values, by name.
        progress: who hears how far it is; ``None`` for nobody.
    """

    bundle: str
    module: str
    function: str | None
    environment: str | None
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    arguments: Mapping[str, Any]
    progress: Progress | None = None


def _bad(why: str) -> NoReturn:
    raise BadParameters(f"code: {why}", step="check parameters")


def _named(value: object, what: str, names: re.Pattern[str], low: int = 0) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not low <= len(value) <= _MAX:
        _bad(f"{what} is not an object of {low} to {_MAX} members")
    if not all(isinstance(name, str) and names.match(name) for name in value):
        _bad(f"{what} has a member that cannot be a name there")
    return value


def read(parameters: Mapping[str, Any]) -> Parameters:
    """The parameters of a contract.

    Raises:
        BadParameters: see ``spec/code.md`` for what they must be.
    """
    wanted = {"arguments", "bundle", "entry", "environment", "inputs", "outputs"}
    if not isinstance(parameters, Mapping) or set(parameters) - {"progress"} != wanted:
        _bad(f"the parameters are not exactly {', '.join(sorted(wanted))}")
    given = parameters
    for name in ("bundle", "environment"):
        if (name == "bundle" or given[name] is not None) and not (
            isinstance(given[name], str) and _DIGEST.match(given[name])
        ):
            _bad(f"{name} is no digest")
    if not isinstance(given["entry"], str) or not _ENTRY.match(given["entry"]):
        _bad("entry is not a module, or a module and a function")
    inputs = _named(given["inputs"], "inputs", _WORD, 1)
    if not all(isinstance(form, str) and form in FORMS for form in inputs.values()):
        _bad(f"an input is wanted as something else than {', '.join(FORMS)}")
    outputs = _named(given["outputs"], "outputs", _NAME, 1)
    if not all(isinstance(kind, str) and kind in KINDS for kind in outputs.values()):
        _bad(f"an output is something else than {', '.join(KINDS)}")
    if list(outputs.values()).count("log") > 1 or outputs.get("log", "log") != "log":
        _bad("what the code prints is one output, and the name log is for that alone")
    arguments = _named(given["arguments"], "arguments", _WORD)
    if set(arguments) & {*inputs, "progress", "outputs"} or {"progress", "outputs"} & set(inputs):
        _bad("an argument or input has a name that is taken")
    module, _, function = given["entry"].partition(":")
    return Parameters(
        given["bundle"],
        module,
        function or None,
        given["environment"],
        dict(inputs),
        dict(outputs),
        dict(arguments),
        _progress(given["progress"]) if "progress" in given else None,
    )


def _progress(value: object) -> Progress:
    """Who hears how far it is, and in how many parts. Absent where nobody does."""
    if not isinstance(value, Mapping) or set(value) != {"parties", "steps"}:
        _bad("progress is not exactly parties and steps")
    parties, steps = value["parties"], value["steps"]
    if type(steps) is not int or not 2 <= steps <= MAX_PROGRESS:
        _bad(f"progress is not told in 2 to {MAX_PROGRESS} parts")
    if (
        not isinstance(parties, list | tuple)
        or not 1 <= len(parties) <= _MAX
        or not all(isinstance(party, str) and _NAME.match(party) for party in parties)
        or list(parties) != sorted(set(parties))
    ):
        _bad("progress is not told to parties, sorted and each once")
    return Progress(tuple(parties), steps)


def check(parameters: Mapping[str, Any]) -> None:
    """Raises BadParameters."""
    read(parameters)


def roles(parameters: Mapping[str, Any]) -> frozenset[str]:
    """A role for each input. Raises BadParameters."""
    return frozenset(read(parameters).inputs)


def outputs(parameters: Mapping[str, Any]) -> Mapping[str, OutputKind]:
    """What these parameters have it write. Raises BadParameters."""
    return {name: KINDS[kind] for name, kind in read(parameters).outputs.items()}


def parts(parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """What ``load`` is to make ready: forms of inputs and kinds of outputs. Raises BadParameters."""
    said = read(parameters)
    return tuple(sorted({*said.inputs.values(), *said.outputs.values()}))


def libraries(wanted: Collection[str]) -> tuple[str, ...]:
    """What these parts take, beside what the code itself imports."""
    more = {library for part in wanted for library in FORMS.get(part, ())}
    return (*LIBRARIES, *sorted(more | ({"safetensors"} if "tensors" in wanted else set())))


def load(outputs: Collection[str]) -> None:
    """Import what it takes for these parts."""
    from . import analysis  # noqa: PLC0415 - heavy, and not for clients

    analysis.prepare(outputs)


def take(code: bytes) -> None:
    """The bundle, ahead of the job: the very bytes whose digest the parent compared."""
    from . import loaded  # noqa: PLC0415 - not for clients

    loaded.take(code)


def run(
    inputs: Mapping[str, Input],
    parameters: Mapping[str, Any],
    outputs: Mapping[str, OutputSpec],
    write: Write,
    step: Step,
) -> None:
    """Run the code, and write what it gives back.

    Raises:
        ProgramCrashed: at step ``program``, whatever the code did.
        TableUnreadable: an input is not what its media type says.
    """
    from . import analysis  # noqa: PLC0415 - heavy, and not for clients

    analysis.run(inputs, read(parameters), outputs, write, step)
