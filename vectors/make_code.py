"""Writes vectors/code/: one file per case, the expected outcome in the file. Deterministic; run it from anywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from strongroom import wire
from strongroom.code import FORMAT, CodeBundle
from strongroom.errors import StrongroomError

FOLDER = Path(__file__).parent / "code"
ANALYSIS = "def mean(census):\n    return {'mean': census['age'].mean()}\n"
A, B = "a" * 64, "b" * 64
LOCK = f"""\
# packages of the analysis
pandas==3.1.1 \\
    --hash=sha256:{A} \\
    --hash=sha256:{B}
    # via -r requirements.in
numpy==2.3.5 ; python_version < "3.12" \\
    --hash=sha256:{A}
"""

cases: dict[str, dict[str, Any]] = {}


def add(name: str, description: str, expect: str, text: str) -> None:
    """A case: the bundle's bytes as text, what comes of reading them, and what they say."""
    found: dict[str, Any] = {"digest": None, "environment": None, "modules": None, "pins": None}
    outcome = "ok"
    try:
        read = CodeBundle.parse(text.encode())
    except StrongroomError as error:
        outcome = error.code
    else:
        assert read.encode() == text.encode()
        found["digest"], found["environment"], found["modules"] = read.digest, read.environment, sorted(read.modules)
        found["pins"] = [str(pin) for pin in read.lock.pins] if read.lock else []
    assert outcome == expect, (name, outcome)
    cases[name] = {"bundle": text, "description": description, "expect": expect, **found}


def bundle(files: dict[str, Any], lock: Any = None, **more: Any) -> str:
    """Canonical bytes as text, whatever is in them."""
    return wire.encode({"files": files, "format": FORMAT, "lock": lock, **more}).decode()


def good() -> None:
    add("ok", "one file, no lock", "ok", bundle({"analysis.py": ANALYSIS}))
    add("ok-lock", "a lock with a marker and comments", "ok", bundle({"analysis.py": ANALYSIS}, LOCK))
    files = {"main.py": "import study.model\n", "study/__init__.py": "", "study/model.py": "", "study/words.txt": "a\tb\n"}
    add("ok-folders", "a package, and a file that is no module", "ok", bundle(files))
    add("ok-not-parsed", "a file that does not parse: who reads a bundle compiles nothing", "ok", bundle({"a.py": "def ("}))
    add("ok-no-code", "files, none of them a module", "ok", bundle({"notes.txt": "é\n"}))


def names() -> None:
    for name, what in {
        "absolute": "/etc/passwd",
        "above": "../analysis.py",
        "above-within": "study/../analysis.py",
        "backslash": "study\\model.py",
        "dash": "my-analysis.py",
        "device": "C:analysis.py",
        "empty": "",
        "folder": "study/",
        "hidden": ".env",
        "hidden-folder": ".git/config",
        "keyword": "class.py",
        "line": "a\nb.txt",
        "number": "1st.py",
        "space": "my analysis.py",
        "twice-slash": "study//model.py",
        "unicode": "análisis.py",
    }.items():
        add(f"name-{name}", f"a file called {what!r}", "code.bad_bundle", bundle({what: ""}))
    for module in (
        "json.py",
        "os/__init__.py",
        "strongroom.py",
        "strongroom/wire.py",
        "numpy.py",
        "pandas/core.py",
        "__main__.py",
    ):
        name = module.replace("/", "-").replace(".py", "").strip("_").replace("__", "")
        add(
            f"shadows-{name}", f"a module that would take another's place: {module}", "code.bad_bundle", bundle({module: ""})
        )
    add("name-long", "a name of 201 characters", "code.bad_bundle", bundle({"a/" * 3 + "x" * 195: ""}))
    add("name-deep", "nine folders deep", "code.bad_bundle", bundle({"a/" * 8 + "x.txt": ""}))
    add("name-case", "two names that differ by case alone", "code.bad_bundle", bundle({"Model.py": "", "model.py": ""}))
    add("name-both", "a name that is a file and a folder", "code.bad_bundle", bundle({"a.txt": "", "a.txt/b.txt": ""}))
    add("module-twice", "one module in two files", "code.bad_bundle", bundle({"a.py": "", "a/__init__.py": ""}))
    add(
        "module-of-lock",
        "a module named as a package of the lock",
        "code.bad_bundle",
        bundle({"my_tools.py": ""}, f"my-tools==1 --hash=sha256:{A}"),
    )


def forms() -> None:
    add("files-none", "no file", "code.bad_bundle", bundle({}))
    add("files-many", "257 files", "code.bad_bundle", bundle({f"f{n:03}.txt": "" for n in range(257)}))
    add("files-lists", "a file that is no text", "code.bad_bundle", bundle({"a.py": ["x"]}))
    add("text-nul", "a NUL in a text", "code.bad_bundle", bundle({"a.py": "x\0"}))
    add("text-escape", "an escape sequence that a terminal would obey", "code.bad_bundle", bundle({"a.py": "# \x1b[2J\n"}))
    add(
        "text-turned",
        "a character that turns the direction of writing",
        "code.bad_bundle",
        bundle({"a.py": "x = 'a\u202eb'\n"}),
    )
    add("format-other", "another format", "wire.bad_field", bundle({"a.py": ""}).replace("v1", "v2"))
    add("member-unknown", "a member that nobody knows", "wire.bad_field", bundle({"a.py": ""}, entry="a"))
    add("member-missing", "no lock said", "wire.bad_field", wire.encode({"files": {"a.py": ""}, "format": FORMAT}).decode())
    add("lock-number", "a lock that is no text", "code.bad_bundle", bundle({"a.py": ""}, 1))
    add("spaced", "not canonical", "wire.not_canonical", bundle({"a.py": ""}).replace(":", ": "))
    add("twice", "a file twice", "wire.not_canonical", bundle({"a.py": ""}).replace('"a.py":""', '"a.py":"","a.py":""'))
    add("not-json", "a Python file and no bundle", "wire.not_json", ANALYSIS)


def locks() -> None:
    hashed = f" --hash=sha256:{A}"
    for name, (what, line) in {
        "address": ("an address", f"https://example.org/a-1-py3-none-any.whl{hashed}"),
        "bare": ("no hash", "numpy==2.3.5"),
        "constraint": ("an option", "-c other.txt"),
        "duplicate": ("a package twice", f"numpy==1{hashed}\nnumpy==2{hashed}"),
        "editable": ("an editable", f"-e .{hashed}"),
        "empty": ("nothing", "# nothing\n"),
        "extra": ("a marker of an extra", f"numpy==1 ; extra == 'x'{hashed}"),
        "hash-short": ("a hash that is short", f"numpy==1 --hash=sha256:{A[:-1]}"),
        "hash-twice": ("a hash twice", f"numpy==1{hashed}{hashed}"),
        "index": ("an index", f"--index-url https://example.org\nnumpy==1{hashed}"),
        "md5": ("a weak hash", "numpy==1 --hash=md5:" + "a" * 32),
        "option": ("another option", f"numpy==1 --no-binary numpy{hashed}"),
        "path": ("a path", f"./numpy-1-py3-none-any.whl{hashed}"),
        "range": ("a range", f"numpy>=1{hashed}"),
        "reference": ("a direct reference", f"numpy @ https://example.org/n.whl{hashed}"),
        "star": ("a version with a star", f"numpy==1.*{hashed}"),
        "strongroom": ("Strongroom itself", f"strongroom==0.1.0{hashed}"),
        "two-versions": ("two bounds", f"numpy==1,<2{hashed}"),
        "unended": ("a line that goes on where the lock ends", f"numpy==1{hashed} \\"),
        "unpinned": ("no version", f"numpy{hashed}"),
        "unicode": ("a character outside ASCII", f"# é\nnumpy==1{hashed}"),
        "arbitrary": ("arbitrary equality", f"numpy===1{hashed}"),
    }.items():
        add(f"lock-{name}", f"a lock with {what}", "code.bad_lock", bundle({"a.py": ""}, line))


def main() -> None:
    """Write every case, and remove those that there are no longer."""
    good()
    names()
    forms()
    locks()
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.json"):
        old.unlink()
    for name, case in cases.items():
        (FOLDER / f"{name}.json").write_text(json.dumps(case, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
