"""What a researcher does: code gathered from files and functions, tried here by the runner of an enclave."""

from __future__ import annotations

import functools
import io
import json
import os
import textwrap
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from strongroom.app.client import analysis, gathered
from strongroom.app.client.analysis import Tried, gather, try_
from strongroom.code import MAX_BUNDLE_BYTES
from strongroom.errors import BadBundle, BadEntry, BadLock, NotFound, NotPython, NotSelfContained, TooLarge, Usage
from strongroom.lock import Lock
from wheel_files import wheel

LIMIT = 3
SCRIPT = "outputs['n'] = len(census)\n"


def folder(tmp_path: Path, **files: str) -> Path:
    place = tmp_path / "study"
    for name, text in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return place


# --- from files -----------------------------------------------------------------------------------------------------


def test_one_file_is_a_script_where_nothing_else_is_said(tmp_path: Path) -> None:
    place = folder(tmp_path, **{"summary.py": SCRIPT})
    found = gather(place / "summary.py")
    assert (dict(found.bundle.files), str(found.entry)) == ({"summary.py": SCRIPT}, "summary")
    assert str(gather(str(place / "summary.py"), entry="summary:f").entry) == "summary:f"
    assert gather(found) is found


def test_a_folder_is_taken_without_what_is_hidden(tmp_path: Path) -> None:
    files = {"main.py": "import pkg.sub\n", "pkg/sub.py": "", "words.txt": "a\n", ".env": "x", "__pycache__/x.pyc": ""}
    place = folder(tmp_path, **files)
    (place / ".git").mkdir()
    (place / "__pycache__").mkdir(exist_ok=True)
    found = gather(place)
    assert sorted(found.bundle.files) == ["main.py", "pkg/sub.py", "words.txt"]
    assert str(found.entry) == "main"


def test_a_folder_of_several_modules_must_say_where_it_begins(tmp_path: Path) -> None:
    place = folder(tmp_path, **{"a.py": "", "b.py": ""})
    with pytest.raises(BadEntry, match="several modules"):
        gather(place)
    with pytest.raises(BadEntry, match="no module 'c'"):
        gather(place, entry="c")
    assert str(gather(place, entry="b").entry) == "b"


def test_a_link_is_refused(tmp_path: Path) -> None:
    place = folder(tmp_path, **{"main.py": ""})
    (place / "data.txt").symlink_to("/etc/passwd")
    with pytest.raises(BadBundle, match=r"data\.txt is a link"):
        gather(place)
    (tmp_path / "link.py").symlink_to(place / "main.py")
    with pytest.raises(BadBundle, match="is a link"):
        gather(tmp_path / "link.py")


def test_a_device_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    place = folder(tmp_path, **{"main.py": ""})
    os.mkfifo(place / "pipe.txt")
    with pytest.raises(BadBundle, match="no ordinary file"):
        gather(place)


def test_ten_gigabytes_are_refused_unread(tmp_path: Path) -> None:
    place = folder(tmp_path, **{"main.py": ""})
    with (place / "big.csv").open("wb") as file:
        file.truncate(10 << 30)  # a hole: it takes no room here
    with pytest.raises(TooLarge, match=r"big\.csv makes the bundle larger"):
        gather(place)
    with pytest.raises(TooLarge):
        gather(place / "big.csv", entry="main")


def test_many_small_files_are_refused_too(tmp_path: Path) -> None:
    place = folder(tmp_path, **{"main.py": "", **{f"f{n}.txt": "" for n in range(256)}})
    with pytest.raises(BadBundle, match="more than 256"):
        gather(place)
    half = "x" * (MAX_BUNDLE_BYTES // 2)
    with pytest.raises(TooLarge):
        gather(folder(tmp_path / "other", **{"main.py": "", "a.txt": half, "b.txt": half}))


def test_what_is_no_text_does_not_parse_or_is_not_there(tmp_path: Path) -> None:
    place = folder(tmp_path, **{"main.py": "def ("})
    with pytest.raises(NotPython, match=r"main\.py, line 1"):
        gather(place)
    (place / "main.py").write_bytes(b"\xff")
    with pytest.raises(BadBundle, match="no text in UTF-8"):
        gather(place)
    with pytest.raises(NotFound):
        gather(tmp_path / "nowhere.py")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadBundle, match="holds no file"):
        gather(tmp_path / "empty")
    odd = folder(tmp_path / "odd", **{"main.py": "", "my data.csv": ""})
    with pytest.raises(BadBundle, match="my data"):
        gather(odd)


def test_a_lock_comes_from_a_file(tmp_path: Path) -> None:
    place = folder(tmp_path, **{"main.py": ""})
    lock = tmp_path / "requirements.lock"
    with pytest.raises(NotFound):
        gather(place, lock=lock)
    lock.write_text("numpy\n")
    with pytest.raises(BadLock, match="line 1"):
        gather(place, lock=lock)
    lock.write_text("numpy==1 --hash=sha256:" + "0" * 64)
    assert gather(place, lock=lock).bundle.environment == Lock.parse(lock.read_text()).digest


# --- from functions -------------------------------------------------------------------------------------------------


def in_notebook(source: str, **around: Any) -> Any:
    """A function as a notebook has it: of a module without a file, whose source is known all the same."""
    import linecache

    text = textwrap.dedent(source)
    name = f"<cell {abs(hash(text))}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    names: dict[str, Any] = {"__name__": "__main__", **around}
    exec(compile(text, name, "exec"), names)
    return names["f"]


def test_a_function_in_a_notebook_is_taken_with_the_modules_that_it_names() -> None:
    source = """
    def f(census):
        def inner():
            return json.dumps(frames.DataFrame(census).to_dict())
        return {"out": inner()}
    """
    found = gather(in_notebook(source, json=json, frames=pd))
    text = found.bundle.files["analysis.py"]
    assert text.startswith("import json\nimport pandas as frames\n\n\ndef f(census):\n")
    assert str(found.entry) == "analysis:f"


@pytest.mark.parametrize(
    ("source", "needs"),
    [
        ("def f(census):\n    return LIMIT + helper(census)\n", "LIMIT, helper"),
        ("def f(census, n=LIMIT):\n    return n\n", "LIMIT"),
        ("def f(census: LIMIT):\n    return 1\n", "LIMIT"),
        ("def f(census):\n    return [LIMIT for _ in census]\n", "LIMIT"),
        ("def f(census):\n    return nowhere\n", "nowhere"),
        ("def f(census):\n    return len(census)\n", "len"),
    ],
)
def test_a_function_that_needs_what_only_this_process_has_is_refused_by_name(source: str, needs: str) -> None:
    around = {"LIMIT": 3, "helper": print, **({"len": 7} if needs == "len" else {})}
    with pytest.raises(NotSelfContained, match=f"f needs {needs} from outside"):
        gather(in_notebook(source, **around))


def test_a_function_that_closes_over_something_is_refused_by_name() -> None:
    limit = 3

    def f(census: Any) -> Any:
        return limit

    with pytest.raises(NotSelfContained, match="f needs limit"):
        gather(f)


def test_what_is_no_plain_function_is_refused() -> None:
    async def later(census: Any) -> None:
        pass

    def many(census: Any) -> Any:
        yield 1

    for wrong in (lambda census: 1, functools.partial(print), later, many, len, Tried, [].append):
        with pytest.raises(BadEntry):
            gather(wrong)
    with pytest.raises(BadEntry, match="decorated"):
        gather(in_notebook("def g(x): return x\n@g\ndef f(census):\n    return 1\n"))
    with pytest.raises(BadEntry, match="not there"):
        names: dict[str, Any] = {"__name__": "__main__"}
        exec("def f(census): return 1", names)
        gather(names["f"])


def test_a_function_in_a_file_is_taken_with_the_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "LIMIT = 3\n\ndef f(census):\n    return {'out': LIMIT}\n"
    place = folder(tmp_path, **{"study_of_mine.py": text, "package_of_mine/__init__.py": text})
    monkeypatch.syspath_prepend(str(place))
    import package_of_mine
    import study_of_mine

    found = gather(study_of_mine.f)
    assert (dict(found.bundle.files), str(found.entry)) == ({"study_of_mine.py": text}, "study_of_mine:f")
    with pytest.raises(BadEntry, match="in a module of the package"):
        gather(package_of_mine.f)


def test_names_of_globals_are_found_in_inner_functions_too() -> None:
    code = compile("def f():\n    def g():\n        return a\n    return b\n", "x", "exec")
    assert {"a", "b"} <= set(gathered._globals_of(code))


# --- a try ----------------------------------------------------------------------------------------------------------


def mean(census):
    return {"out": {"mean": census["age"].mean() / 3, "n": len(census)}}


TABLE = pd.DataFrame({"age": [1, 2, 3]})


def tried(text: str, tmp_path: Path, **said: Any) -> Tried:
    path = tmp_path / "analysis.py"
    path.write_text(textwrap.dedent(text))
    return try_(path, **{"inputs": {"census": TABLE}, "outputs": {"out": "values"}, "sandbox": "process", **said})


def test_a_function_on_a_table(tmp_path: Path) -> None:
    text = "def mean(census):\n    return {'out': {'mean': census['age'].mean() / 3, 'n': len(census)}}\n"
    found = tried(text, tmp_path, entry="analysis:mean", decimals=2)
    assert found.passed
    assert json.loads(found.outputs["out"]) == {"mean": 0.67, "n": 3}  # as its rule leaves it
    assert (found.failure, found.refused, found.sandbox) == (None, {}, "process")


def test_what_the_rule_would_refuse_is_said(tmp_path: Path) -> None:
    found = tried("outputs['out'] = 'x' * 100", tmp_path, min_group=5)
    assert not found.passed
    assert list(found.refused) == ["out"]
    assert "cannot be grouped by 5" in found.refused["out"]


def test_a_failure_is_shown_with_its_traceback_here_and_nowhere_else(tmp_path: Path) -> None:
    found = tried("def f(census):\n    raise ValueError('what went wrong')\n", tmp_path, entry="analysis:f")
    assert (found.failure, found.outputs) == ("program.crashed", {})
    assert "ValueError: what went wrong" in found.log
    assert "raise ValueError('what went wrong')" in found.log  # with the line
    assert not found.passed


def test_stand_ins_are_files_or_tables_and_are_handed_on_as_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "mock.csv"
    TABLE.to_csv(path, index=False)
    inputs = {"a": TABLE, "b": pa.table({"age": [1]}), "c": pl.DataFrame({"age": [1]}), "d": path, "e": f"{path}:file"}
    text = "outputs['out'] = [type(x).__name__ for x in (a, b, c, d, e)]"
    found = tried(text, tmp_path, inputs=inputs)
    assert json.loads(found.outputs["out"]) == ["DataFrame", "Table", "LazyFrame", "DataFrame", "BufferedReader"]


def test_what_a_try_cannot_use(tmp_path: Path) -> None:
    with pytest.raises(Usage, match="file's path"):
        tried("", tmp_path, inputs={"census": io.BytesIO()})
    with pytest.raises(NotFound):
        tried("", tmp_path, inputs={"census": "nowhere.csv"})
    with pytest.raises(Usage, match="'pickle'"):
        tried("", tmp_path, outputs={"out": "pickle:lab"})
    lock = tmp_path / "requirements.lock"
    lock.write_text("numpy==1 --hash=sha256:" + "0" * 64)
    with pytest.raises(Usage, match="in a room"):
        tried("", tmp_path, lock=lock)


def test_a_try_with_packages(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text(wheel(tmp_path / "wheels", "alpha", {"alpha.py": "X = 41\n"}))
    found = tried(
        "import alpha\noutputs['out'] = alpha.X", tmp_path, lock=lock, wheels=tmp_path / "wheels", keep=tmp_path / "e"
    )
    assert found.outputs["out"] == b"41"


def test_forms_and_recipients_are_read() -> None:
    assert analysis._form("hospital/census.csv") == ("hospital/census.csv", "pandas")
    assert analysis._form("sha256:00:polars") == ("sha256:00", "polars")
    assert analysis._form("sha256:00") == ("sha256:00", "pandas")
    assert analysis._wanted({"a": "values:lab,hospital", "b": "log"}) == {
        "a": ("values", ("lab", "hospital")),
        "b": ("log", ()),
    }
