"""What a reviewer compares: every line of both versions is there once, and no package hides behind another."""

from __future__ import annotations

from types import MappingProxyType

from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.app.client.changes import Mark, diff, packages
from strongroom.app.client.code import Code
from strongroom.lock import Lock

texts = st.lists(st.sampled_from(["a", "b", "", "c\x0bd", "x\u2028y"]), max_size=30).map(
    lambda lines: "".join(f"{x}\n" for x in lines)
)


def code(files: dict[str, str], lock: str | None = None) -> Code:
    return Code("sha256:" + "0" * 64, MappingProxyType(files), None if lock is None else Lock.parse(lock))


@settings(deadline=None)
@given(texts, texts)
def test_every_line_of_both_versions_is_there_once_and_in_order(old: str, new: str) -> None:
    (file,) = diff(code({"a.py": old}), code({"a.py": new}))
    before = [line.text for line in file.lines if line.mark in (Mark.GONE, Mark.SAME)]
    after = [line.text for line in file.lines if line.mark in (Mark.ADDED, Mark.SAME)]
    assert "".join(f"{line}\n" for line in before) == old
    assert "".join(f"{line}\n" for line in after) == new
    assert [line.new for line in file.lines if line.new] == list(range(1, len(after) + 1))
    assert [line.old for line in file.lines if line.old] == list(range(1, len(before) + 1))
    assert (file.status == "same") == (old == new)


@settings(deadline=None)
@given(texts, texts)
def test_what_changed_is_never_left_out(old: str, new: str) -> None:
    (file,) = diff(code({"a.py": old}), code({"a.py": new}))
    changed = [line for line in file.lines if line.mark in (Mark.ADDED, Mark.GONE)]
    assert [line for line in file.changed if line.mark in (Mark.ADDED, Mark.GONE)] == changed


def test_files_come_and_go() -> None:
    found = diff(code({"a.py": "1\n", "b.py": "1\n"}), code({"b.py": "1\n", "c.py": "2\n"}))
    assert [(file.path, file.status) for file in found] == [("a.py", "gone"), ("b.py", "same"), ("c.py", "new")]
    assert [file.status for file in diff(None, code({"a.py": ""}))] == ["new"]


def test_versions_that_share_nothing_and_are_long_are_shown_whole() -> None:
    old, new = ("".join(f"{word} {n % 7}\n" for n in range(30_000)) for word in ("old", "new"))
    (file,) = diff(code({"a.py": f"same\n{old}end\n"}), code({"a.py": f"same\n{new}end\n"}))
    assert [line.mark for line in (file.lines[0], file.lines[-1])] == [Mark.SAME, Mark.SAME]
    assert len(file.lines) == 60_002


def test_a_name_that_a_lock_has_twice_hides_neither() -> None:
    one, two = "--hash=sha256:" + "ab" * 32, "--hash=sha256:" + "cd" * 32
    (change,) = packages(None, code({}, f"a==1 ; os_name == 'posix' {one}\nA==2 {two}\n"))
    assert (change.status, change.package.version) == ("new", '1 (os_name == "posix"), 2')
    assert len(change.package.hashes) == 2
    (change,) = packages(code({}, f"a==1 {one}\n"), code({}, f"a==1 {two}\n"))
    assert (change.status, change.before) == ("changed", "1")
