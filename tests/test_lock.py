"""The lock of a bundle: exact versions by hash, and nothing that could bring in anything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.markers import default_environment

from strongroom import lock
from strongroom.errors import BadLock
from strongroom.lock import Lock

A, B = "a" * 64, "b" * 64
HERE = {name: str(value) for name, value in default_environment().items()}


def test_what_installers_write_is_read() -> None:
    text = f"""# made by an installer
Zope.Interface==6.0 \\
    --hash=sha256:{B} \\
    --hash=sha256:{A}
    # via something

numpy[extra]==2.0.0+cpu ; python_version >= "3" and (os_name == "posix" or os_name == "nt") --hash=sha256:{A}  # a word
"""
    first, second = Lock.parse(text).pins
    assert (str(first), first.hashes, first.marker, first.line) == ("zope-interface==6.0", (A, B), None, 2)
    assert (str(second), second.line) == ("numpy==2.0.0+cpu", 7)
    assert second.marker == 'python_version >= "3" and (os_name == "posix" or os_name == "nt")'


def test_the_identity_is_of_the_text() -> None:
    one, other = Lock.parse(f"a==1 --hash=sha256:{A}"), Lock.parse(f"a==1 --hash=sha256:{A} ")
    assert one.pins == other.pins
    assert one.digest != other.digest


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("a==1", "has no --hash"),
        ("-r other.txt", "is an option"),
        (f"a==1 --hash=sha512:{A}{A}", "no --hash=sha256"),
        (f"a>1 --hash=sha256:{A}", "not pinned"),
        (f"a==1.* --hash=sha256:{A}", "not pinned"),
        (f"a @ file:///a.whl --hash=sha256:{A}", "refers to an address"),
        (f"/a.whl --hash=sha256:{A}", "no requirement"),
        (f"a==1 ; extra=='x' --hash=sha256:{A}", "for an extra"),
        (f"a==1 ; nonsense=='x' --hash=sha256:{A}", "no requirement"),
        (f"a==1 --hash=sha256:{A} --hash=sha256:{A}", "a hash twice"),
        (f"{'a' * 1001}==1 --hash=sha256:{A}", "too long"),
        ("a==1" + "".join(f" --hash=sha256:{n:064x}" for n in range(513)), "too long"),
        ("a==1 ; " + " or ".join(["os_name=='a'"] * 40) + f" --hash=sha256:{A}", "a marker that is too long"),
        (f"Strong_Room==1 --hash=sha256:{A}".replace("_", ""), "cannot see"),
    ],
)
def test_a_line_that_could_bring_in_something_else_is_refused_by_its_number(line: str, why: str) -> None:
    with pytest.raises(BadLock, match=rf"line 3 of the lock .*{why}"):
        Lock.parse(f"# one\n\n{line}\n")


def test_a_lock_is_bounded() -> None:
    with pytest.raises(BadLock, match="longer than"):
        Lock.parse(" " * (lock.MAX_LOCK_BYTES + 1))
    with pytest.raises(BadLock, match="more than 32768 lines"):
        Lock.parse("\n" * (lock.MAX_LINES + 1))
    with pytest.raises(BadLock, match="more than 512"):
        Lock.parse("".join(f"p{n}==1 --hash=sha256:{A}\n" for n in range(513)))
    with pytest.raises(BadLock, match="names no package"):
        Lock.parse("\n# nothing\n")
    with pytest.raises(BadLock, match=r"line 1 .* not ASCII"):
        Lock.parse(f"a==1 --hash=sha256:{A}\r\n")
    with pytest.raises(BadLock, match=r"line 2 .* goes on"):
        Lock.parse(f"a==1 --hash=sha256:{A}\nb==1 \\")
    with pytest.raises(BadLock, match="twice"):
        Lock.parse(f"a==1 --hash=sha256:{A}\nA==2 --hash=sha256:{A}")


def test_markers_choose_what_one_machine_needs() -> None:
    first, second = (f"a=={n} ; os_name {sign} 'nowhere' --hash=sha256:{A}\n" for n, sign in ((1, "=="), (2, "!=")))
    text = f"{first}{second}b==1 --hash=sha256:{B}"
    assert [str(pin) for pin in Lock.parse(text).required(HERE)] == ["a==2", "b==1"]
    assert [str(pin) for pin in Lock.parse(text).required({**HERE, "os_name": "nowhere"})] == ["a==1", "b==1"]


def test_two_versions_for_one_machine_are_refused() -> None:
    text = f"a==1 ; os_name == 'x' --hash=sha256:{A}\na==2 --hash=sha256:{A}"
    assert len(Lock.parse(text).required(HERE)) == 1
    with pytest.raises(BadLock, match="lines 1 and 2"):
        Lock.parse(text).required({**HERE, "os_name": "x"})


def test_a_marker_that_cannot_be_evaluated_is_refused() -> None:
    found = Lock.parse(f"a==1 ; platform_release ~= 'x' --hash=sha256:{A}")
    with pytest.raises(BadLock, match="cannot be evaluated"):
        found.required(HERE)


@given(st.text(st.characters(codec="utf-8"), max_size=80) | st.text("a=1 -#\\\n;'<>@[]()hsx:." + "\t", max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = Lock.parse(text)
    except BadLock:
        return
    assert found.text == text
    assert all(pin.hashes for pin in found.pins)
