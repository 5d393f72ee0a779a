"""One run of a researcher's code: hand it its inputs, call it, take what it gives back.

Whatever it raises leaves as ``program.crashed`` at step ``program``: a code of its own choice would be an output that nobody
agreed to. Its traceback goes to standard error, which stays inside unless the contract names a log.
"""

from __future__ import annotations

import inspect
import io
import logging
import os
import tempfile
import traceback
from collections.abc import Collection, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from strongroom.errors import ProgramCrashed

from . import Input, OutputSpec, Step, Write, loaded, returned
from .code import BEGINS, ENDS, FILE, FORMS, PANDAS, POLARS, Parameters


def prepare(parts: Collection[str]) -> None:
    """Import what these forms and kinds take, and use it once: threads take address space, which is counted later.

    Args:
        parts: forms of inputs and kinds of outputs.
    """
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it would tell of the home folder that there is not
    for form in sorted({*parts} & {*FORMS} - {FILE}):
        _rehearse(form)
    if {"table", "records"} & {*parts}:
        import_module("pyarrow.csv")
    if "tensors" in parts:
        import_module("safetensors.numpy")
    if "picture" in parts and find_spec("matplotlib") is not None:
        import_module("matplotlib.backends.backend_agg")
        import_module("matplotlib.pyplot")


def _rehearse(form: str) -> None:
    """Read a small table in this form."""
    from . import handed  # noqa: PLC0415 - a third of a second, which code that wants a file does without

    data = _small(form)
    found = handed.hand(Input("application/vnd.apache.parquet", len(data), lambda: io.BytesIO(data)), form)
    if form == POLARS:
        found.sum().collect()
    if form == PANDAS:
        found.describe()


def _small(form: str) -> bytes:
    """A Parquet file. Who wants Polars has it from Polars: Arrow would look for pandas, which is 60 MB of memory."""
    small = io.BytesIO()
    if form == POLARS:
        import_module("polars").DataFrame({"a": [1]}).write_parquet(small)
    else:
        pa = import_module("pyarrow")
        import_module("pyarrow.parquet").write_table(pa.table({"a": [1]}), small)
    return small.getvalue()


def _handed(source: Input, form: str) -> Any:
    """One input, in the form in which it is wanted. Raises TableUnreadable."""
    if form == FILE:
        return source.open()
    from . import handed  # noqa: PLC0415 - loaded ahead, where a form takes it

    return handed.hand(source, form)


def run(inputs: Mapping[str, Input], said: Parameters, outputs: Mapping[str, OutputSpec], write: Write, step: Step) -> None:
    """Run it. Raises ProgramCrashed at step ``program``, TableUnreadable at ``read table``."""
    step("read table", 0)
    given = {role: _handed(inputs[role], form) for role, form in said.inputs.items()}
    step("program", BEGINS)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        loaded.lay_out(Path(place))
        os.chdir(place)
        try:
            written = _encoded(_called(said, given, _progress(step)), said, outputs)
        except MemoryError:
            raise
        except BaseException as error:  # whatever it raises, SystemExit too
            traceback.print_exc()
            raise ProgramCrashed("the code raised an error", step="program") from error
        finally:
            os.chdir("/")
    step("write", ENDS)
    for name, data in written.items():
        write(name, data)
    step("write", 1000)


def _progress(step: Step) -> Any:
    def progress(fraction: float) -> None:
        """How much of the whole is done, from 0 to 1."""
        step("program", BEGINS + int((ENDS - BEGINS) * min(1.0, max(0.0, float(fraction)))))

    return progress


def _called(said: Parameters, given: Mapping[str, Any], progress: Any) -> Mapping[str, Any]:
    """What the code gives back, by the outputs' names."""
    if said.function is None:
        names = {"__name__": "__main__", "outputs": {}, "progress": progress, **said.arguments, **given}
        found = loaded.script(said.module, names)["outputs"]
    else:
        called = loaded.function(said.module, said.function)
        wanted = inspect.signature(called).parameters
        more = {"progress": progress} if "progress" in wanted else {}
        found = called(**given, **said.arguments, **more)
    if not isinstance(found, Mapping):
        raise ProgramCrashed("the code gave back no outputs by name", step="program")
    return found


def _encoded(found: Mapping[str, Any], said: Parameters, outputs: Mapping[str, OutputSpec]) -> dict[str, bytes]:
    """The bytes of every output. One that the contract does not name is an error: it could not leave."""
    unknown = set(found) - set(said.outputs)
    if unknown:
        raise ProgramCrashed("the code gave back an output that the contract does not name", step="program")
    for name, kind in said.outputs.items():
        if kind == "log" and name in found:
            print(str(found[name]))  # noqa: T201 - standard output is what a log is made of
    return {name: returned.encode(spec.kind, found[name]) for name, spec in outputs.items()}
