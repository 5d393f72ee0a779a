"""The static report: what each rule finds and leaves alone, and that no bundle can hold it up, end it or be executed."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("bandit", reason="bandit is not installed: pip install 'strongroom[review]'")

from strongroom import wire
from strongroom.app.client.code import Code, Package, read_code
from strongroom.app.client.inspection import AID, RULES, Finding, Report, Severity, inspect
from strongroom.app.client.inspection.findings import MAX_EACH, MAX_FINDINGS
from strongroom.app.client.inspection.reading import report_on
from strongroom.code import FORMAT, MAX_BUNDLE_BYTES, CodeBundle
from strongroom.errors import BadBundle, BadField, BadLock, ManifestMismatch, MissingExtra, StrongroomError, TooLarge

PAGE = Path(__file__).parents[1] / "docs" / "reviewing.md"
HASH = "sha256:" + "ab" * 32
LOCK = f"""\
# written by a resolver
numpy==2.2.0 \\
    --hash={HASH} \\
    --hash=sha256:{"cd" * 32}
Scikit_Learn[extra]==1.7.0 ; python_version >= "3.11" \\
    --hash={HASH}
"""


def bundle(files: dict[str, str], lock: str | None = None, **changes: Any) -> tuple[bytes, Code]:
    data = wire.encode({"files": files, "format": "strongroom.code.v1", "lock": lock, **changes})
    return data, read_code(data, wire.digest(data))


def report(text: str, *, name: str = "analysis.py", lock: str | None = None, **more: str) -> Report:
    return report_on(bundle({name: textwrap.dedent(text), **more}, lock)[1])


def rules(text: str, **named: Any) -> set[str]:
    return {f.rule for f in report(text, **named).findings}


def ours(text: str, **named: Any) -> set[str]:
    return {rule for rule in rules(text, **named) if not rule.startswith("bandit.")}


# --- what the rules find ------------------------------------------------------------------------------------------------

FOUND = {
    "environment": [
        "import os\nx = os.environ['HOME']",
        "import os\nos.getenv('A')",
        "import platform",
        "import sys\nsys.argv",
    ],
    "exit": ["import sys\nsys.exit(3)", "import os\nos._exit(len('ab'))", "exit(1)"],
    "files.read": [
        "open('/etc/passwd')",
        "import pandas as pd\npd.read_csv('x')",
        "import glob",
        "import os\nos.listdir('/')",
    ],
    "files.write": [
        "open('x', 'w')",
        "open('x', mode='ab')",
        "m = 'r'\nopen('x', m)",
        "import shutil",
        "def f(p):\n    p.write_text('x')",
        "def f(d):\n    d.to_parquet('x')",
        "import numpy as np\nnp.save('x', 1)",
        "def f(p):\n    p.open('w')",
    ],
    "imports.star": ["from math import *"],
    "imports.unknown": ["import leftpad", "from left.pad import x"],
    "messages": ["print('x')"],
    "native": ["import ctypes", "from cffi import FFI", "import mmap"],
    "network": ["import socket", "from urllib.request import urlopen", "import http.client as h", "import asyncio"],
    "network.address": ["U = 'https://elsewhere.example/x'"],
    "output.extremes": ["def f(d):\n    return {'a': d.age.max()}"],
    "output.groups": ["def f(d):\n    g = d.groupby('city').age.mean()\n    return {'a': g}"],
    "output.names": [
        "def f(d):\n    return {f'{k}': 1 for k in d}",
        "def f(d):\n    out = {}\n    for k in d:\n        out[k] = 1\n    return out",
        "def f(d):\n    out = {}\n    out[f'a{d}'] = 1\n    return out",
        "def f(d):\n    return {**d}",
        "def f(d):\n    return dict(d)",
        "for k in census:\n    outputs[k] = 1",
        "outputs.update(d)",
        "outputs.setdefault(d, 1)",
        "outputs |= d",
        "def f(d):\n    return {d: 1}",
    ],
    "output.rows": [
        "def f(d):\n    return {'a': d.head()}",
        "def f(d):\n    return {'a': d.values.tolist()}",
        "def f(d):\n    x = d.iloc[0]\n    return {'a': x}",
        "outputs['a'] = d.to_dict()",
        "def f(d):\n    return {'a': list(d.age)}",
    ],
    "output.size": [
        "def f(d):\n    return {'a': [1 for _ in d]}",
        "import numpy as np\ndef f(d):\n    z = np.zeros(len(d))\n    return {'a': 1}",
        "def f(d):\n    x = 'x' * len(d)\n    return {'a': 1}",
    ],
    "output.text": ["def f(d):\n    return {'a': f'{d}'}", "outputs['a'] = str(d)"],
    "patch": ["import pandas as pd\npd.DataFrame.mean = len", "import json\njson.dumps = repr"],
    "pickle": [
        "import pickle",
        "import marshal",
        "import joblib",
        "import torch\ntorch.load('x')",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "def f(d):\n    d.to_pickle('x')",
    ],
    "process": ["import subprocess", "from os import system as s\ns('ls')", "import os as o\no.fork()", "import signal"],
    "randomness": [
        "import random\nrandom.random()",
        "import numpy as np\nnp.random.default_rng()",
        "import numpy as np\nnp.random.normal()",
        "import random\nrandom.seed(len('x'))",
        "import secrets",
        "import os\nos.urandom(4)",
    ],
    "reflection": [
        "eval('1')",
        "exec('1')",
        "compile('1', 'x', 'eval')",
        "__import__('os')",
        "import importlib",
        "def f(d, n):\n    return getattr(d, n)",
        "getattr(1, '__class__')",
        "().__class__.__bases__",
        "(lambda: 0).__globals__",
        "import sys\nsys._getframe()",
        "import sys\nsys.modules",
        "import inspect",
        "__builtins__",
        "class A:\n    def __del__(self):\n        pass",
    ],
    "rows": ["def f(d):\n    x = d.iloc[0]\n    return {'a': 1}"],
    "string.encoded": [
        f"X = '{'aGVsbG8gd29ybGQ4NTY3ODk1Njc4OTA5ODc2NTQzMmFzZGZnaGprbA' * 2}'",
        f"# {'0123456789abcdef' * 6}",
    ],
    "text.coding": ["# -*- coding: utf-7 -*-\n"],
    "text.far_right": [f"x = 1{' ' * 80}; import os", f"if 1:\n{' ' * 130}x = 1\ny = 2"],
    "text.homoglyph": ["p\u0430ge = 1", "\u0440\u0430\u0441\u0435 = 1", "\uff45val('1')", "# mean_\u0430ge\n"],
    "text.invisible": ["x = 1  # \u202e fine", "a\u200b = 1", "# \U000e0041\n", "x = '\u3164'"],
    "text.line_end": ["# a comment \x0c import os\n", "# a comment \rimport os\n", "# a \u2028 b\n"],
    "text.long_line": [f"x = ({'1, ' * 100})"],
    "text.name": ["gr\u00f6\u00dfe = 1"],
    "text.statements": ["x = 1; y = 2", "def f(): x = 1; return {}"],
    "threads": ["import threading", "from concurrent.futures import ThreadPoolExecutor", "import multiprocessing"],
    "time": ["import time", "import datetime\ndatetime.datetime.now()", "from datetime import date\ndate.today()"],
    "unread": ["def f(:\n", "x = " + "-" * 200_000 + "1", "x = 9" + "9" * 5000, "+".join(["1"] * 50_000)],
}


@pytest.mark.parametrize(("rule", "text"), [(rule, text) for rule, texts in FOUND.items() for text in texts])
def test_a_rule_finds_what_it_is_for(rule: str, text: str) -> None:
    found = [f for f in report(text).findings if f.rule == rule]
    assert found
    assert all(f.severity is RULES[rule].severity and f.ask == RULES[rule].ask for f in found)
    assert all(f.what.endswith(f": {RULES[rule].why}") for f in found)


def test_every_rule_finds_something_in_these_tests() -> None:
    assert set(FOUND) | {"imports.shadow", "unread.bandit"} == set(RULES)


PLAIN = """
    import math

    import numpy as np
    import pandas as pd
    from sklearn.linear_model import LinearRegression


    def summarise(census, decimals):
        rng = np.random.default_rng(7)
        adults = census[census["age"] >= 18]
        mean = adults["income"].mean()
        noise = rng.normal()
        model = LinearRegression().fit(adults[["age"]], adults["income"])
        if math.isnan(mean):
            raise ValueError("there are no adults")
        return {"mean": round(mean, decimals), "slope": model.coef_[0], "adults": len(adults)}
"""


def test_plain_analysis_is_left_alone() -> None:
    assert rules(PLAIN) == set()


@pytest.mark.parametrize(
    "text",
    [
        "import random\nrandom.seed(7)\nrandom.random()",
        "from os.path import join\njoin('a', 'b')",
        "def f(d):\n    out = {}\n    out['a'] = d.mean()\n    return out",
        "def f(d):\n    inner = {k: 1 for k in d}\n    return {'n': 3}",
        "def f(d):\n    d.age = 1",
        "getattr(1, 'real')",
        "# na\u00efve caf\u00e9, \u03c7\u00b2 and \u65e5\u672c\n",
        "x = {'a': 1}\nx.update({'b': 2})",
        "X = 'a sentence of many words that goes on and on, and says nothing that anybody would have to hide from a reader'",
    ],
)
def test_what_means_nothing_is_left_alone(text: str) -> None:
    assert ours(text) == set()


def test_imports_of_the_bundle_the_lock_and_the_enclave_are_known() -> None:
    text = "import helper\nimport numpy\nimport sklearn\nimport leftpad\n"
    unknown = {f.what.split(":")[0] for f in report(text, lock=LOCK, **{"helper/__init__.py": ""}).findings}
    assert unknown == {"imports leftpad"}
    with_none = {f.what.split(":")[0] for f in report(text).findings if f.rule == "imports.unknown"}
    assert with_none == {"imports helper", "imports leftpad"}
    alone = {f.what.split(":")[0] for f in report("import pandas", lock=LOCK).findings if f.rule == "imports.unknown"}
    assert alone == {"imports pandas"}  # a lock says all that there is


@pytest.mark.parametrize("name", ["pandas.py", "random.py", "json/__init__.py"])
def test_a_file_in_the_place_of_a_library_is_found(name: str) -> None:
    assert "imports.shadow" in rules("x = 1\n", name=name)


def test_bandit_looks_too_and_is_not_silenced_by_who_is_reviewed() -> None:
    found = report("import subprocess  # nosec\nsubprocess.call('ls', shell=True)  # nosec B602\n").findings
    assert any(f.rule == "bandit.B602" and f.line == 2 for f in found)


def test_files_that_are_no_python_are_read_as_text() -> None:
    found = report("x = 1\n", **{"notes.md": "a \u202e b\nimport socket\n"}).findings
    assert [(f.file, f.line, f.rule) for f in found] == [("notes.md", 1, "text.invisible")]


def test_a_finding_says_where() -> None:
    (found,) = [f for f in report("x = 1\n\n\nimport socket\n").findings if f.rule == "network"]
    assert (found.file, found.line, found.severity) == ("analysis.py", 4, Severity.HIGH)
    assert found.what == "imports socket: there is no network in a run; somebody wants one"


def test_no_finding_can_steer_a_screen() -> None:
    found = report("x = 'http://\\x1b[2J'\ny = 'https://\u202e'\n").findings
    assert found
    assert all((f.what + f.ask + f.rule).isprintable() for f in found)


# --- the report -----------------------------------------------------------------------------------------------------------


def test_one_bundle_gives_one_report_in_a_child_too() -> None:
    data, code = bundle({"b.py": "import socket\n", "a.py": "import pickle\nopen('x')\n"})
    first, second = inspect(data, code), report_on(code)
    assert first.encode() == second.encode()
    assert first.digest == wire.digest(second.encode())
    assert Report.parse(first.encode()) == first
    places = [f.place for f in first.findings]
    assert places == sorted(places)
    assert AID.encode() in first.encode()


def test_of_many_alike_the_first_are_listed_and_the_rest_counted() -> None:
    found = [f for f in report("import socket\n" * 1000).findings if f.rule == "network"]
    assert len(found) == MAX_EACH
    assert found[-1].what.startswith(f"{1000 - MAX_EACH + 1} more")
    exactly = [f for f in report("import socket\n" * MAX_EACH).findings if f.rule == "network"]
    assert [f.line for f in exactly] == list(range(1, MAX_EACH + 1))
    assert all(f.what.startswith("imports") for f in exactly)


def test_a_report_has_an_end_and_keeps_the_worst() -> None:
    lines = [Finding.of("messages", f"{n}.py", 1, "x") for n in range(MAX_FINDINGS)]
    made = Report.make("sha256:" + "0" * 64, "1", 1, [*lines, Finding.of("network", "z.py", 1, "x")])
    assert len(made.findings) == MAX_FINDINGS
    assert {"network", "unread"} <= {f.rule for f in made.findings}
    assert Report.parse(made.encode()) == made


@given(st.binary(max_size=200))
def test_no_other_bytes_are_a_report(data: bytes) -> None:
    with pytest.raises(StrongroomError):
        Report.parse(data)


def test_a_flood_of_small_findings_hides_nothing_unsaid() -> None:
    text = "x = 1; " * 6000 + "\nimport socket\n"
    assert "unread" in rules(text)


# --- hostile bundles ------------------------------------------------------------------------------------------------------


def test_nothing_of_a_bundle_is_executed_or_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "mark"
    evil = f"open({str(mark)!r}, 'w').write('x')\n"
    (tmp_path / "strongroom.py").write_text(evil)
    (tmp_path / "sitecustomize.py").write_text(evil)
    monkeypatch.chdir(tmp_path)
    inspect(*bundle({"analysis.py": evil, "sitecustomize.py": evil, "__init__.py": evil}))
    assert not mark.exists()


@pytest.mark.parametrize(
    "text",
    [
        "(" * 100_000,
        "not " * 300_000 + "1",
        "f" + "()" * 200_000,
        "a" + ".b" * 300_000,
        "lambda:" * 100_000 + "1",
        "if a: pass\n" + "elif a: pass\n" * 20_000,
        "x = 0x" + "f" * 1_000_000,
        "x = [" + "0," * 600_000 + "]",
        "\x00",
        "x = '\\N{NO SUCH NAME}'",
        "f'" + "{" * 1000,
    ],
    ids=range(11),
)
def test_what_is_nested_or_large_is_refused_and_no_crash(text: str) -> None:
    data, code = bundle({"analysis.py": text, "other.py": "import socket\n"})
    found = inspect(data, code)
    assert "network" in {f.rule for f in found.findings if f.file == "other.py"}
    if text.startswith("x = 0x"):
        assert "text.long_line" in {f.rule for f in found.findings}
    else:
        assert "unread" in {f.rule for f in found.findings if f.file == "analysis.py"}


def test_more_code_than_bandit_reads_is_said() -> None:
    assert "unread.bandit" in rules("x = 1\n" * 20_000)


def test_a_child_that_dies_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    from strongroom.app.client import inspection

    data, code = bundle({"analysis.py": "x = 1\n"})
    monkeypatch.setattr(inspection.sys, "executable", "/bin/false")
    (found,) = inspect(data, code).findings
    assert (found.rule, found.severity) == ("unread", Severity.HIGH)


def test_without_bandit_there_is_no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "bandit", None)
    with pytest.raises(MissingExtra):
        inspect(*bundle({"analysis.py": "x = 1\n"}))


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(["a.py", "b.py", "c.txt"]), st.text(max_size=300), min_size=1))
def test_any_text_has_a_report(files: dict[str, str]) -> None:
    found = report_on(bundle(files)[1])
    assert Report.parse(found.encode()) == found


# --- the bundle as a reviewer reads it ------------------------------------------------------------------------------------


def test_a_lock_is_read_as_packages_with_their_hashes() -> None:
    _, code = bundle({"a.py": ""}, LOCK)
    assert code.packages == (
        Package("numpy", "2.2.0", (HASH, "sha256:" + "cd" * 32)),
        Package("scikit-learn", '1.7.0 (python_version >= "3.11")', (HASH,)),
    )
    assert bundle({"a.py": ""})[1].packages == ()


def test_other_bytes_than_the_digest_says_are_no_bundle() -> None:
    data, _ = bundle({"a.py": ""})
    with pytest.raises(ManifestMismatch):
        read_code(data, wire.digest(b"another"))


@pytest.mark.parametrize(
    "value",
    [
        {"files": {}, "format": "strongroom.code.v1", "lock": None},
        {"files": {"a.py": 1}, "format": "strongroom.code.v1", "lock": None},
        {"files": ["a.py"], "format": "strongroom.code.v1", "lock": None},
        {"files": {"a.py": ""}, "format": "strongroom.code.v2", "lock": None},
        {"files": {"a.py": ""}, "format": "strongroom.code.v1", "lock": 1},
        {"files": {"a.py": ""}, "format": "strongroom.code.v1"},
        {"files": {"a.py": ""}, "format": "strongroom.code.v1", "lock": None, "more": 1},
    ],
)
def test_what_is_no_bundle_is_not_read(value: Any) -> None:
    data = wire.encode(value)
    with pytest.raises((BadField, BadBundle)):
        read_code(data, wire.digest(data))


def test_a_lock_without_a_hash_is_none_for_a_reviewer_either() -> None:
    data = wire.encode({"files": {"a.py": ""}, "format": FORMAT, "lock": "bare==1.0\n"})
    with pytest.raises(BadLock):
        read_code(data, wire.digest(data))


def test_what_no_enclave_would_take_is_still_shown_to_a_reviewer() -> None:
    data, code = bundle({"a.py": "x = 1  # \u202e\n"})
    assert "\u202e" in code.files["a.py"]
    with pytest.raises(BadBundle):
        CodeBundle.parse(data)


def test_a_bundle_has_one_size_for_everybody() -> None:
    data = wire.encode({"files": {"a.txt": "x" * MAX_BUNDLE_BYTES}, "format": FORMAT, "lock": None})
    with pytest.raises(TooLarge):
        read_code(data, wire.digest(data))


# --- the page --------------------------------------------------------------------------------------------------------------


def test_the_page_names_every_rule() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert not {rule for rule in RULES if f"`{rule}`" not in page}
