"""The program ``code``: inputs as they are wanted, outputs as they are said, and nothing of a failure but one code."""

from __future__ import annotations

import io
import json
import struct
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom import programs
from strongroom.code import CodeBundle
from strongroom.enclave import sandbox, sandbox_child
from strongroom.enclave.sandbox import Limits, Mounted, Sandbox
from strongroom.enclave.sandbox_child import BUBBLEWRAP, NAMESPACES, PROCESS, works
from strongroom.errors import (
    BadParameters,
    MissingExtra,
    OutOfMemory,
    OutOfTime,
    OutputMissing,
    ProgramCrashed,
    ProgramError,
    TableUnreadable,
    TooMuchOutput,
)
from strongroom.lock import Lock
from strongroom.programs import Input, OutputSpec, code, handed, loaded, returned
from wheel_files import wheel

LIMITS = Limits(60, 1 << 30, 8 << 20)
FRAME = pd.DataFrame({"age": range(100), "group": ["a", "b"] * 50, "wide": ["x" * 200] * 100})
DIGEST = "sha256:" + "0" * 64
PARQUET = "application/vnd.apache.parquet"


@dataclass
class Opened:
    media_type: str
    size: int
    file: BinaryIO


class Ranges(io.BytesIO):
    """A file that counts what is read of it."""

    read_bytes = 0

    def read(self, size: int | None = -1) -> bytes:
        found = super().read(size)
        self.read_bytes += len(found)
        return found


def written(kind: str) -> tuple[str, bytes]:
    """The table in one of the formats, and its media type."""
    sink, table = io.BytesIO(), pa.Table.from_pandas(FRAME)
    if kind == "parquet":
        pa.parquet.write_table(table, sink, row_group_size=10)
        return PARQUET, sink.getvalue()
    if kind == "csv":
        pa.csv.write_csv(table, sink)
        return "text/csv", sink.getvalue()
    if kind == "lines":
        return "application/jsonl", FRAME.to_json(orient="records", lines=True).encode()
    new = pa.ipc.new_file if kind == "arrow" else pa.ipc.new_stream
    with new(sink, table.schema) as writer:
        writer.write_table(table)
    return f"application/vnd.apache.arrow.{'file' if kind == 'arrow' else 'stream'}", sink.getvalue()


def opened(kind: str = "csv") -> Opened:
    media_type, data = written(kind)
    return Opened(media_type, len(data), Ranges(data))


def parameters(bundle: CodeBundle, **said: Any) -> dict[str, Any]:
    return {
        "arguments": {},
        "bundle": bundle.digest,
        "entry": "analysis:f",
        "environment": bundle.environment,
        "inputs": {"census": "file"},
        "outputs": {"out": "values"},
        **said,
    }


def bundled(text: str, **files: str) -> CodeBundle:
    return CodeBundle.make({"analysis.py": text.encode(), **{name: t.encode() for name, t in files.items()}})


def started(bundle: CodeBundle, said: dict[str, Any], kind: str = PROCESS, mounted: Mounted | None = None) -> Sandbox:
    found = sandbox.prepare("code", kind, outputs=code.parts(said), mounted=mounted)
    found.give(bundle.encode())
    return found


def ran(text: str, kind: str = PROCESS, limits: Limits = LIMITS, files: dict[str, str] | None = None, **said: Any) -> Any:
    """The outputs of a run, and of one of kind ``values`` what it says."""
    bundle = bundled(text, **(files or {}))
    given = parameters(bundle, **said)
    specs = {name: OutputSpec(k, 1 << 20, 1, 15) for name, k in given["outputs"].items()}
    with started(bundle, given, kind) as room:
        found = room.run(given, {role: opened() for role in given["inputs"]}, specs, limits)
    return {n: json.loads(data) if specs[n].kind == "values" else data for n, data in found.items()}


def fails(error: type[ProgramError], text: str, **said: Any) -> None:
    with pytest.raises(ProgramError) as caught:
        ran(text, **said)
    assert (type(caught.value), caught.value.step) == (error, "program")
    assert "SECRET" not in str(caught.value)


@pytest.fixture(params=[BUBBLEWRAP, NAMESPACES])
def isolated(request: pytest.FixtureRequest) -> str:
    if not works(request.param):
        pytest.skip(f"{request.param} cannot be had on this machine")
    return str(request.param)


# --- parameters -----------------------------------------------------------------------------------------------------

GOOD = {
    "arguments": {"smallest": 10, "names": ["a"]},
    "bundle": DIGEST,
    "entry": "study.main:f",
    "environment": None,
    "inputs": {"census": "polars"},
    "outputs": {"means": "table", "log": "log"},
}


def test_what_parameters_say() -> None:
    code.check(GOOD)
    assert code.roles(GOOD) == {"census"}
    assert {name: what.kind for name, what in code.outputs(GOOD).items()} == {"means": "table", "log": "log"}
    assert code.parts(GOOD) == ("log", "polars", "table")
    assert (programs.use("code"), programs.use("evaluate")) == ("analyse", "evaluate")
    assert programs.outputs("code", GOOD)["means"].media_type == "application/vnd.apache.arrow.file"
    assert "report" in programs.outputs("evaluate", {"task": "regression", "target": "x", "classes": None, "features": None,
                                                     "positive": None, "groups": []})  # fmt: skip
    assert code.read({**GOOD, "entry": "a"}).function is None
    assert "safetensors" in code.libraries(("tensors",))


@pytest.mark.parametrize(
    "wrong",
    [
        {"more": 1},
        {"bundle": "sha256:0"},
        {"bundle": None},
        {"environment": "x"},
        {"entry": "a:b:c"},
        {"entry": 7},
        {"inputs": {}},
        {"inputs": []},
        {"inputs": {"Census": "pandas"}},
        {"inputs": {"census": "pickle"}},
        {"inputs": {"census": ["pandas"]}},
        {"inputs": {"progress": "pandas"}},
        {"inputs": {f"r{n}": "file" for n in range(65)}},
        {"outputs": {}},
        {"outputs": {"a": "pickle"}},
        {"outputs": {"a": "report"}},  # free texts, and as many records as the code says there are
        {"outputs": {"a": "log", "b": "log"}},
        {"outputs": {"log": "values"}},
        {"outputs": {"A": "values"}},
        {"arguments": {"census": 1}},
        {"arguments": {"outputs": 1}},
        {"arguments": {"a-b": 1}},
        {"arguments": None},
    ],
)
def test_parameters_that_no_run_could_use(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadParameters):
        code.check({**GOOD, **wrong})


@given(st.dictionaries(st.sampled_from(sorted(GOOD)), st.sampled_from([None, "", "a:b", 7, [], {}, {"a": "b"}, {"": None}])))
def test_any_parameters_are_read_or_refused(changes: dict[str, Any]) -> None:
    with suppress(BadParameters):
        assert code.read({**GOOD, **changes}).bundle == {**GOOD, **changes}["bundle"]


# --- inputs ---------------------------------------------------------------------------------------------------------


def source(kind: str) -> tuple[Input, list[Ranges]]:
    """The table as an input, and every file that was opened of it."""
    media_type, data = written(kind)
    files: list[Ranges] = []

    def opener() -> BinaryIO:
        files.append(Ranges(data))
        return files[-1]

    return Input(media_type, len(data), opener), files


@pytest.mark.parametrize("kind", ["parquet", "csv", "lines", "arrow", "stream"])
def test_a_table_in_every_format_and_every_form(kind: str) -> None:
    given, _ = source(kind)
    frame = handed.hand(given, "pandas")
    assert isinstance(frame, pd.DataFrame)
    assert (len(frame), int(frame["age"].sum())) == (100, 4950)
    table = handed.hand(given, "arrow")
    assert isinstance(table, pa.Table)
    assert table["group"].to_pylist()[:2] == ["a", "b"]
    lazy = handed.hand(given, "polars")
    assert isinstance(lazy, pl.LazyFrame)
    means = lazy.group_by("group").agg(pl.col("age").mean()).sort("group")
    assert means.collect()["age"].to_list() == means.collect()["age"].to_list() == [49.0, 50.0]  # it can be read again


def test_a_lazy_frame_reads_what_it_needs_and_no_more() -> None:
    rows = 20_000
    table = pa.table({"n": range(rows), "wide": [f"{n:0200}" for n in range(rows)]})
    sink = io.BytesIO()
    pa.parquet.write_table(table, sink, row_group_size=1000, compression="none", use_dictionary=False)
    files: list[Ranges] = []

    def opener() -> BinaryIO:
        files.append(Ranges(sink.getvalue()))
        return files[-1]

    lazy = handed.hand(Input(PARQUET, len(sink.getvalue()), opener), "polars")
    assert lazy.select(pl.col("n").sum()).collect().item() == rows * (rows - 1) // 2
    assert sum(f.read_bytes for f in files) < len(sink.getvalue()) / 4  # the other column was not read
    files.clear()
    assert len(lazy.filter(pl.col("n") < 500).collect()) == 500
    assert sum(f.read_bytes for f in files) < len(sink.getvalue()) / 4  # nor the other row groups


@pytest.mark.parametrize("form", ["pandas", "arrow", "polars"])
@pytest.mark.parametrize("media_type", [PARQUET, "application/vnd.apache.arrow.file", "application/x-pickle"])
def test_what_is_no_table_is_said_without_its_bytes(form: str, media_type: str) -> None:
    with pytest.raises(TableUnreadable) as caught:
        handed.hand(Input(media_type, 6, lambda: io.BytesIO(b"SECRET")), form)
    assert "SECRET" not in str(caught.value)


# --- outputs --------------------------------------------------------------------------------------------------------


def test_values_of_every_kind_that_an_analysis_has() -> None:
    frame = pd.DataFrame({"a": [1, None]}, index=pd.Index(["x", "y"]))
    value = {
        "n": np.int64(3),
        "f": np.float32(0.5),
        "nan": float("nan"),
        "list": (1, True, None, "x"),
        "array": np.array([[1, 2]]),
        "frame": frame,
        "series": frame["a"],
        3: pd.Timestamp("2026-01-02"),
        ("b" if True else "c"): np.bool_(True),
    }
    assert json.loads(returned.encode("values", value)) == {
        "n": 3,
        "f": 0.5,
        "nan": None,
        "list": [1, True, None, "x"],
        "array": [[1, 2]],
        "frame": {"a": {"x": 1.0, "y": None}},
        "series": {"x": 1.0, "y": None},
        "3": "2026-01-02T00:00:00",
        "b": True,
    }


def deep() -> Any:
    value: Any = 1
    for _ in range(40):
        value = [value]
    return value


@pytest.mark.parametrize("value", [object(), float("inf"), {"a": b"bytes"}, lambda: 1, deep(), {(1, 2): 3}, 1 + 2j])
def test_what_is_no_value(value: Any) -> None:
    with pytest.raises(ProgramCrashed):
        returned.encode("values", value)


@pytest.mark.parametrize(
    "table",
    [
        pa.table({"a": [1, 2]}),
        pa.RecordBatch.from_pydict({"a": [1, 2]}),
        pl.DataFrame({"a": [1, 2]}),
        pl.LazyFrame({"a": [1, 2]}),
        pl.Series("a", [1, 2]),
        pd.DataFrame({"a": [1, 2]}),
        pd.DataFrame({"b": [0, 0]}, index=pd.Index([1, 2], name="a")),
        pd.Series([1, 2], name="a"),
        {"a": [1, 2]},
        [{"a": 1}, {"a": 2}],
    ],
    ids=lambda t: type(t).__name__,
)
def test_tables_of_every_library(table: Any) -> None:
    found = pa.ipc.open_file(returned.encode("table", table)).read_all()
    assert found["a"].to_pylist() == [1, 2]
    assert not found.schema.metadata  # where pandas writes down how it was made
    assert returned.encode("records", table).decode().replace('"', "").split("\n")[0] in ("a", "a,b", "index,a")


def test_what_is_no_table_and_no_picture_and_no_tensors() -> None:
    for kind, value in (("table", 3), ("picture", "x"), ("tensors", [1]), ("tensors", {"a": np.array(["x"], dtype=object)})):
        with pytest.raises(ProgramCrashed):
            returned.encode(kind, value)
    assert returned.encode("records", "a,b\n1,2\n") == b"a,b\n1,2\n"


def test_tensors_are_safetensors() -> None:
    data = returned.encode("tensors", {"w": np.ones((2, 2), dtype=np.float32).T})
    (size,) = struct.unpack("<Q", data[:8])
    assert json.loads(data[8 : 8 + size])["w"]["shape"] == [2, 2]


def test_a_figure_becomes_a_picture_without_metadata() -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.subplots()
    axes.plot([1, 2])
    for value in (figure, axes):
        data = returned.encode("picture", value)
        assert data.startswith(b"\x89PNG")
        assert b"Software" not in data
    assert returned.encode("picture", bytearray(data)) == data


# --- runs -----------------------------------------------------------------------------------------------------------


def test_a_function_over_named_inputs(isolated: str) -> None:
    text = """
    import helper.sums
    def f(census, smallest, progress):
        progress(0.5); progress(7)
        return {"out": helper.sums.total(len(census.read()), smallest, open("data/words.txt").read())}
    """.replace("\n    ", "\n")
    files = {"helper/sums.py": "def total(*things): return list(things)\n", "data/words.txt": "é\n"}
    size = opened().size
    assert ran(text, isolated, arguments={"smallest": 3}, files=files) == {"out": [size, 3, "é\n"]}


def test_a_script_finds_inputs_as_globals_and_fills_outputs(isolated: str) -> None:
    text = "if __name__ == '__main__':\n    print('hello')\n    outputs['out'] = {'n': len(census), 'm': smallest}\n"
    found = ran(
        text, isolated, entry="analysis", inputs={"census": "pandas"}, arguments={"smallest": 3},
        outputs={"out": "values", "log": "log"},
    )  # fmt: skip
    assert found == {"out": {"n": 100, "m": 3}, "log": b"hello\n"}


def test_every_form_and_every_kind_in_a_room(isolated: str) -> None:
    text = """
import matplotlib.pyplot as plt, numpy as np, polars as pl
def f(a, b, c):
    figure, axes = plt.subplots()
    axes.plot(a["age"])
    means = c.group_by("group").agg(pl.col("age").mean()).sort("group").collect()
    return {"values": b["age"].to_pylist()[:2], "picture": figure, "table": means, "tensors": {"w": np.ones(3)}}
"""
    kinds = ("values", "picture", "table", "tensors")
    found = ran(text, isolated, inputs={"a": "pandas", "b": "arrow", "c": "polars"}, outputs={kind: kind for kind in kinds})
    assert found["values"] == [0, 1]
    assert found["picture"].startswith(b"\x89PNG")
    assert pa.ipc.open_file(found["table"]).read_all()["age"].to_pylist() == [49.0, 50.0]


@pytest.mark.parametrize(
    "body",
    [
        "raise ValueError('SECRET')",
        "raise SystemExit(7)",
        "raise KeyboardInterrupt",
        "from strongroom.errors import TableLabels; raise TableLabels('SECRET', step='read table')",
        "return None",
        "return {'other': 1, 'out': 1}",
        "return {}",
        "return {'out': object()}",
        "import no_such_module",
        "import strongroom.party",
        "1 / 0",
    ],
)
def test_whatever_the_code_does_one_code_leaves(body: str) -> None:
    fails(ProgramCrashed, f"def f(census):\n    {body}\n")


@pytest.mark.parametrize(
    ("files", "entry"),
    [({}, "analysis:g"), ({}, "other:f"), ({"other.py": "raise ValueError('SECRET')\n"}, "other:f"), ({}, "other")],
)
def test_an_entry_that_is_not_there_or_cannot_be_imported(files: dict[str, str], entry: str) -> None:
    fails(ProgramCrashed, "def f(census):\n    pass\n", files=files, entry=entry)


def test_a_table_that_cannot_be_read_is_a_crash_too() -> None:
    """Code that runs in the same process could say the same of its own accord."""
    bundle = bundled("def f(census):\n    return {'out': 1}\n")
    given = parameters(bundle, inputs={"census": "arrow"})
    with started(bundle, given) as room, pytest.raises(ProgramCrashed) as caught:
        room.run(given, {"census": Opened(PARQUET, 3, io.BytesIO(b"abc"))}, {"out": OutputSpec("values", 9, 1, 1)}, LIMITS)
    assert caught.value.step == "program"


RAW = """
import json, os, socket, struct, sys
def f(census):
    way = socket.socket(fileno=os.dup(int(sys.argv[1])))
    way.sendall(BYTES)
    import time
    time.sleep(60)
"""


@pytest.mark.parametrize("said", ["program.table_labels", "program.model_shape"])
def test_a_code_that_the_code_says_past_the_runner_is_no_output(said: str) -> None:
    """It holds the channel as much as the runner does."""
    body = json.dumps({"code": said, "step": "draw"}, separators=(",", ":"))
    fails(ProgramCrashed, RAW.replace("BYTES", f"struct.pack('>cI', b'F', {len(body)}) + {body.encode()!r}"))


def test_limits_hold() -> None:
    fails(OutOfTime, "import time\ndef f(census):\n    time.sleep(60)\n", limits=Limits(0.5, 1 << 30, 1 << 20))
    fails(OutOfMemory, "def f(census):\n    return {'out': len(bytearray(3 << 30))}\n")
    fails(TooMuchOutput, "def f(census):\n    return {'out': 'x' * (2 << 20)}\n")


def test_an_output_is_missing_where_the_contract_asks_for_more_than_the_code_is_to_write() -> None:
    bundle = bundled("def f(census):\n    return {'out': 1}\n")
    given = parameters(bundle)
    with started(bundle, given) as room, pytest.raises((OutputMissing, ProgramCrashed, BadParameters)):
        room.run(given, {"census": opened()}, {n: OutputSpec("values", 9, 1, 1) for n in ("out", "more")}, LIMITS)


def test_modules_of_a_bundle_take_nobodys_place() -> None:
    """What the library that reads inputs has loaded already is not replaced by a file of that name."""
    fails(ProgramCrashed, "def f(census):\n    return {'out': 1}\n", files={"dateutil.py": ""}, inputs={"census": "pandas"})


def test_a_bundle_that_no_reader_takes_does_not_replace_a_module_either() -> None:
    """The child looks for itself: the parent may be asked to pass anything on."""
    data = json.dumps({"files": {"json.py": "", "analysis.py": "def f(census): return {'out': 1}"}}).encode()
    given = parameters(bundled("x = 1\n"))
    with sandbox.prepare("code", PROCESS, outputs=("file",)) as room:
        room.give(data)
        with pytest.raises(ProgramCrashed):
            room.run(given, {"census": opened()}, {"out": OutputSpec("values", 9, 1, 1)}, LIMITS)


def test_a_sandbox_takes_one_bundle() -> None:
    bundle = bundled("def f(census):\n    return {'out': 1}\n")
    with started(bundle, parameters(bundle)) as room:
        assert room.code_digest == bundle.digest
        with pytest.raises(ValueError, match="one bundle"):
            room.give(b"other")


def test_without_a_bundle_nothing_runs() -> None:
    bundle = bundled("def f(census):\n    return {'out': 1}\n")
    with sandbox.prepare("code", PROCESS, outputs=("file",)) as room, pytest.raises(ProgramCrashed):
        assert room.code_digest is None
        room.run(parameters(bundle), {"census": opened()}, {"out": OutputSpec("values", 9, 1, 1)}, LIMITS)


# --- packages -------------------------------------------------------------------------------------------------------


def packages(tmp_path: Path, **files: str) -> tuple[str, Mounted]:
    """An environment of one package, and its lock."""
    from strongroom.app.enclave.environments import Environments
    from strongroom.app.enclave.wheels import Place

    lock = wheel(tmp_path / "wheels", "alpha", {name.replace("__", "/"): text for name, text in files.items()})
    return lock, Environments(tmp_path / "environments", Place(tmp_path / "wheels")).get(Lock.parse(lock))


def with_packages(text: str, lock: str, mounted: Mounted, kind: str) -> Any:
    bundle = CodeBundle.make({"analysis.py": text.encode()}, lock)
    given = parameters(bundle)
    with started(bundle, given, kind, mounted) as room:
        assert room.environment == bundle.environment
        return json.loads(
            room.run(given, {"census": opened()}, {"out": OutputSpec("values", 1 << 20, 1, 15)}, LIMITS)["out"]
        )


def test_packages_of_a_lock_are_there_and_cannot_be_written(tmp_path: Path, isolated: str) -> None:
    lock, mounted = packages(tmp_path, **{"alpha.py": "X = 41\n"})
    text = """
import alpha, os, sys
def f(census):
    try:
        open(alpha.__file__, "a")
    except OSError as error:
        why = type(error).__name__
    beside = os.path.dirname(alpha.__file__)
    try:
        open(beside + "/more.py", "w")
    except OSError as error:
        more = type(error).__name__
    return {"out": [alpha.X, why, more, sorted(os.listdir(os.path.dirname(beside)))]}
"""
    number, why, more, beside = with_packages(text, lock, mounted, isolated)
    assert number == 41
    assert {why, more} <= {"OSError", "PermissionError"}
    assert beside == ["packages"]  # no manifest, no other lock's packages


def test_packages_of_a_lock_come_before_the_enclaves_own(tmp_path: Path) -> None:
    lock, mounted = packages(tmp_path, **{"sklearn.py": "X = 'of the lock'\n"})
    text = (
        "import sklearn, json\ndef f(census):\n    return {'out': [sklearn.X, json.__file__.endswith('json/__init__.py')]}\n"
    )
    assert with_packages(text, lock, mounted, PROCESS) == ["of the lock", True]


def test_what_an_environment_lacks_is_said_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, mounted = packages(tmp_path, **{"alpha.py": ""})
    seen = sandbox.view(mounted)
    assert seen.paths[0] == mounted.path
    monkeypatch.setattr(code, "FORMS", {**code.FORMS, "pandas": ("no_such_library",)})
    with pytest.raises(MissingExtra, match="no_such_library"):
        sandbox.prepare("code", PROCESS, outputs=("pandas",), mounted=mounted)
    sandbox.require_libraries("code", ("alpha",), mounted)
    assert sandbox_child.PROCESS == PROCESS


# --- the child's half, in this process --------------------------------------------------------------------------------


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What a child does to its process is undone afterwards."""
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    monkeypatch.setattr(sys, "modules", {**sys.modules})
    monkeypatch.setattr(loaded, "_held", {})
    monkeypatch.chdir(tmp_path)


class Said:
    """What a program said: steps, and outputs."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, int]] = []
        self.outputs: dict[str, bytes] = {}

    def step(self, name: str, permille: int) -> None:
        self.steps.append((name, permille))

    def write(self, name: str, data: bytes) -> None:
        self.outputs[name] = data


def here(text: str, files: dict[str, str] | None = None, **said: Any) -> Said:
    bundle = bundled(text, **(files or {}))
    given = parameters(bundle, **said)
    code.load(code.parts(given))
    code.take(bundle.encode())
    kinds = {name: OutputSpec(kind, 1 << 20, 1, 15) for name, kind in given["outputs"].items() if kind != "log"}
    found = Said()
    code.run({role: source("csv")[0] for role in given["inputs"]}, given, kinds, found.write, found.step)
    return found


def test_a_function_is_called_with_its_inputs_arguments_and_progress(
    inside: None, capsys: pytest.CaptureFixture[str]
) -> None:
    text = """
import pack.more
def f(census, lazy, table, smallest, progress):
    progress(0.5)
    progress(-1)
    return {"out": [len(census), lazy.collect().height, table.num_rows, pack.more.X + smallest], "log": "words"}
"""
    found = here(
        text,
        {"pack/more.py": "X = 1\n", "pack/sub/__init__.py": "", "words.txt": "a"},
        inputs={"census": "pandas", "lazy": "polars", "table": "arrow"},
        outputs={"out": "values", "log": "log"},
        arguments={"smallest": 2},
    )
    assert found.outputs == {"out": b"[100,100,100,3]"}
    assert capsys.readouterr().out == "words\n"
    assert found.steps == [
        ("read table", 0), ("program", 50), ("program", 500), ("program", 50), ("write", 950), ("write", 1000),
    ]  # fmt: skip


def test_a_script_has_its_files_beside_it(inside: None) -> None:
    text = "import pathlib\noutputs['out'] = [len(census.read()) > 9, pathlib.Path('data/words.txt').read_text(), __name__]"
    found = here(text, {"data/words.txt": "a"}, entry="analysis")
    assert found.outputs == {"out": b'[true,"a","__main__"]'}


@pytest.mark.parametrize(
    "text", ["raise SystemExit", "outputs = 3", "outputs['x'] = 1", "import pack.none", "import analysis.none"]
)
def test_a_script_that_fails_leaves_a_traceback_on_standard_error_alone(
    inside: None, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    with pytest.raises(ProgramCrashed) as caught:
        here(text, {"pack/more.py": ""}, entry="analysis")
    assert caught.value.step == "program"
    assert "Traceback" in capsys.readouterr().err


def test_memory_that_is_not_there_is_said_as_that(inside: None) -> None:
    with pytest.raises(MemoryError):
        here("raise MemoryError", entry="analysis")


def test_a_bundle_takes_no_place_that_is_taken(inside: None) -> None:
    for name in ("json.py", "strongroom/x.py", "pandas.py"):
        with pytest.raises(BadParameters):
            code.take(json.dumps({"files": {name: ""}}).encode())


def test_modules_of_a_bundle_have_their_source(inside: None) -> None:
    code.take(bundled("X = 1\n", **{"pack/more.py": "Y = 2\n"}).encode())
    finder = next(one for one in sys.meta_path if isinstance(one, loaded.Modules))
    import analysis as found

    assert (found.X, found.__file__) == (1, "code/analysis.py")
    assert finder.get_source("pack.more") == "Y = 2\n"
    assert finder.find_spec("json") is None
    with pytest.raises(ModuleNotFoundError):
        finder.get_source("pack")
    with pytest.raises(ModuleNotFoundError):
        finder.find_spec("pack.none")


def test_every_part_is_made_ready() -> None:
    code.load(("log", "picture", "table", "tensors", "values", "file", "arrow", "pandas", "polars"))
    assert {"matplotlib.pyplot", "safetensors.numpy", "pyarrow.csv"} <= sys.modules.keys()
