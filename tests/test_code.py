"""Code bundles: what can be in one, that nothing else can, and that its bytes are its identity."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom import code
from strongroom.code import CodeBundle, EntryPoint, difference
from strongroom.errors import BadBundle, BadEntry, BadLock, NotJson, NotPython, StrongroomError, TooLarge

VECTORS = sorted((Path(__file__).parents[1] / "vectors" / "code").glob("*.json"))
LOCK = "my-tools==1 --hash=sha256:" + "a" * 64

names = st.from_regex(r"[a-z]{1,6}(/[a-z_]{1,6}){0,2}\.(py|txt)", fullmatch=True)
texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cf")), max_size=30)


def case(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def test_there_are_vectors() -> None:
    assert len(VECTORS) > 60


@pytest.mark.parametrize("path", VECTORS, ids=lambda p: p.stem)
def test_vector(path: Path) -> None:
    said = case(path)
    data = said["bundle"].encode()
    if said["expect"] != "ok":
        with pytest.raises(StrongroomError) as caught:
            CodeBundle.parse(data)
        assert caught.value.code == said["expect"]
        return
    found = CodeBundle.parse(data)
    assert found.encode() == data
    assert (found.digest, found.environment, sorted(found.modules)) == (said["digest"], said["environment"], said["modules"])
    assert [str(pin) for pin in found.lock.pins] if found.lock else said["pins"] == []


@given(st.dictionaries(names, texts, min_size=1, max_size=5))
def test_what_can_be_made_is_read_as_it_was(files: dict[str, str]) -> None:
    try:
        found = CodeBundle(files)
    except BadBundle:
        return
    assert CodeBundle.parse(found.encode()) == found


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with suppress(StrongroomError):
        assert CodeBundle.parse(data).encode() == data


def test_one_byte_makes_another_bundle() -> None:
    assert CodeBundle({"a.py": "x = 1\n"}).digest != CodeBundle({"a.py": "x = 2\n"}).digest
    assert CodeBundle({"a.py": ""}).digest != CodeBundle({"a.py": ""}, CodeBundle.make({"a.py": b""}, LOCK).lock).digest


def test_files_that_do_not_parse_are_refused_when_a_bundle_is_made_with_their_line() -> None:
    with pytest.raises(NotPython, match=r"^b\.py, line 2: "):
        CodeBundle.make({"a.py": b"x = 1\n", "b.py": b"x = 1\ndef (\n"})
    with pytest.raises(NotPython, match="does not parse"):
        CodeBundle.make({"a.py": b"-" * 5000 + b"1"})
    assert CodeBundle.make({"a.txt": b"def (", "b.py": b"'\\d'\n"})  # what only warns is taken


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(BadBundle, match="no text in UTF-8"):
        CodeBundle.make({"a.csv": b"\xff\xfe"})
    with pytest.raises(BadBundle, match=r"U\+0000"):
        CodeBundle.make({"a.csv": b"\0"})


def test_a_lock_without_hashes_is_refused() -> None:
    with pytest.raises(BadLock, match="line 1 of the lock has no --hash"):
        CodeBundle.make({"a.py": b""}, "numpy==2")


def test_a_bundle_is_bounded() -> None:
    with pytest.raises(TooLarge):
        CodeBundle.make({"a.txt": bytes(code.MAX_BUNDLE_BYTES + 1)})
    with pytest.raises(TooLarge):
        CodeBundle({"a.txt": '"' * (code.MAX_BUNDLE_BYTES - 100)}).encode()  # each takes two bytes
    with pytest.raises(TooLarge):
        CodeBundle.parse(bytes(code.MAX_BUNDLE_BYTES + 1))
    with pytest.raises(BadBundle, match="1 to 256 files"):
        CodeBundle({f"f{n}.txt": "" for n in range(257)})
    with pytest.raises(BadBundle, match="1 to 256 files"):
        CodeBundle({})


def test_commas_in_code_are_no_values_and_values_are_bounded() -> None:
    found = CodeBundle({"a.py": "[1,2,{}," * 50_000})
    assert CodeBundle.parse(found.encode()) == found
    for many in (b'{"files":{"a":[' + b"[]," * 500 + b'[]]},"b":1}', b"[" * 500, b'"' * 5000, b'{"a' + b"," * 5000):
        with pytest.raises((TooLarge, NotJson)):
            CodeBundle.parse(many)
    with pytest.raises(TooLarge, match="more than 256 files"):
        CodeBundle.parse(b'{"files":{"a":[' + b"[]," * 500 + b'[]]},"b":1}')


def test_an_entry_is_a_module_or_a_function_in_one() -> None:
    assert EntryPoint.parse("study.main:run") == EntryPoint("study.main", "run")
    assert str(EntryPoint.parse("study.main:run")) == "study.main:run"
    assert (EntryPoint.parse("analysis").function, str(EntryPoint.parse("analysis"))) == (None, "analysis")
    for wrong in ("", "a:", ":f", "a:b:c", "a.", "a b", "a:f()", "1a", "class", "a:def", "a" * 201, "a\n"):
        with pytest.raises(BadEntry):
            EntryPoint.parse(wrong)


def test_an_entry_must_be_among_the_modules() -> None:
    bundle = CodeBundle({"study/__init__.py": "", "study/main.py": "", "notes.txt": ""})
    assert bundle.modules == {"study", "study.main"}
    bundle.require_entry(EntryPoint("study", None))
    with pytest.raises(BadEntry) as caught:
        bundle.require_entry(EntryPoint("notes", None))
    assert caught.value.hint == "It has: study, study.main"


def test_what_changes_between_two() -> None:
    old = CodeBundle.make({"a.py": b"1\n", "b.py": b"2\n"})
    new = CodeBundle.make({"a.py": b"1\n", "c.py": b"3\n"}, LOCK)
    assert difference(old, new) == (("b.py", "2\n", None), ("c.py", None, "3\n"), ("lock", None, LOCK))
    assert difference(new, new) == ()
