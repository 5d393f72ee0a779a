"""What people see: results here, errors there, one object for machines, and nothing obeyed that came from elsewhere."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.app.cli import screen as module
from strongroom.app.cli.runs import Steps, report
from strongroom.app.cli.screen import Screen, printable
from strongroom.errors import NotFound
from strongroom.transcript import Check, Status, Transcript
from strongroom.transcript import Steps as Declared

EVIL = "a\x1b[2Jb\rc\u202ed\u200be\u2028f\x9bg"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def err() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def screen(out, err) -> Screen:
    return Screen(out=out, err=err)


@given(st.text())
def test_what_a_terminal_would_obey_or_hide_is_shown(text):
    assert printable(text).isprintable()
    assert len(printable(text)) == len(text)


def test_nothing_that_came_from_elsewhere_is_obeyed(screen, out, err):
    screen.line(EVIL)
    screen.heading(EVIL)
    screen.said(EVIL, EVIL)
    screen.check(Check("V1", EVIL, Status.FAILED, EVIL))
    screen.check(Check("V2", EVIL, Status.PASSED, EVIL * 40))
    screen.table([EVIL], [[EVIL]])
    screen.note(EVIL)
    screen.error(NotFound(EVIL, hint=EVIL))
    for line in (out.getvalue() + err.getvalue()).split("\n"):
        assert line.isprintable(), line


def test_results_go_out_and_errors_go_aside(screen, out, err):
    screen.said("a", "b")
    screen.result({"for": "machines"})
    screen.note("by the way")
    screen.error(NotFound("no such thing", hint="look elsewhere"))
    assert out.getvalue() == "  a                       b\n"
    assert err.getvalue() == "by the way\nstrongroom: app.not_found: no such thing\n  look elsewhere\n"


def test_machines_get_one_object_and_nothing_else(out, err):
    screen = Screen(as_json=True, out=out, err=err)
    screen.line("x")
    screen.heading("x")
    screen.said("x", "y")
    screen.check(Check("V1", "x", Status.FAILED))
    screen.table(["x"], [["y"]])
    screen.note("x")
    with screen.progress("x", 1) as progress:
        progress(1)
    screen.result({"b": "ü", "a": 1})
    assert json.loads(out.getvalue()) == {"a": 1, "b": "ü"}
    assert err.getvalue() == ""


def test_an_error_is_one_object_too_with_what_else_there_is_to_say(out, err):
    Screen(as_json=True, out=out, err=err).error(NotFound("why", hint="how"), receipt="r")
    assert json.loads(out.getvalue()) == {
        "error": {"code": "app.not_found", "message": "why", "hint": "how"},
        "receipt": "r",
    }
    assert err.getvalue() == ""


def test_checks_have_a_mark_and_those_that_did_not_pass_say_so_in_words(screen, out):
    found = Transcript(Declared("T", ["one", "two", "three"]))
    found.record("T1", True, "seen")
    found.record("T2", False, "altered")
    screen.transcript(found)
    assert out.getvalue().splitlines() == [
        "  ✓ T1  one",
        "         seen",
        "  ✗ T2  two (failed)",
        "         altered",
        "  ? T3  three (not established)",
        "         not reached",
    ]


def test_only_a_passed_check_is_cut_short(screen, out):
    screen.check(Check("V1", "x", Status.PASSED, "y" * 400))
    screen.check(Check("V2", "x", Status.FAILED, "z" * 400))
    assert "y" * 400 not in out.getvalue()
    assert "z" * 400 in out.getvalue()


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", ""), ("TERM", "dumb")])
def test_colour_is_for_terminals_that_want_it(monkeypatch, variable, value, out):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    Screen(out=terminal, err=Terminal()).line("x", "bold")
    assert terminal.getvalue() == "\x1b[1mx\x1b[0m\n"
    Screen(out=out).line("x", "bold")
    assert out.getvalue() == "x\n"
    monkeypatch.setenv(variable, value)
    quiet = Terminal()
    Screen(out=quiet, err=quiet).line("x", "bold")
    Screen(out=quiet, err=quiet).error(NotFound("y"))
    assert "\x1b" not in quiet.getvalue()


def test_an_error_is_red_on_a_terminal(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    Screen(out=terminal, err=terminal).error(NotFound("y"))
    assert terminal.getvalue().startswith("\x1b[31mstrongroom: app.not_found: y\x1b[0m\n")


def test_long_words_and_lines_are_wrapped_under_themselves(screen, out, monkeypatch):
    monkeypatch.setattr(module, "_columns", lambda: 70)
    screen.said("about", "word " * 30 + "sha256:" + "0" * 64)
    first, *more = out.getvalue().splitlines()
    assert first.startswith("  about ")
    assert more
    assert all(line.startswith(" " * 26) for line in more)
    assert "sha256:" + "0" * 64 in out.getvalue()  # a digest is never broken


def test_the_width_is_the_terminals(monkeypatch):
    monkeypatch.setenv("COLUMNS", "77")
    assert module._columns() == 77


def test_progress_is_said_only_of_what_takes_long(screen, err, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with screen.progress("sealing x", 400_000_000) as progress:
        for at in (0.5, 1.0, 1.9):
            now[0] = at
            progress(100)
        assert err.getvalue() == ""
        now[0] = 2.1
        progress(200_000_000)
        now[0] = 2.2
        progress(210_000_000)
    assert err.getvalue() == "sealing x: 200,000,000 of 400,000,000 (50 %) bytes, 95 MB/s\n"


def test_progress_of_an_unknown_length(screen, err, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with screen.progress("x", None) as progress:
        now[0] = 4.0
        progress(8_000_000)
    assert err.getvalue() == "x: 8,000,000 bytes, 2 MB/s\n"


def test_progress_on_a_terminal_leaves_nothing_behind():
    terminal = Terminal()
    with Screen(out=io.StringIO(), err=terminal).progress("x", 10) as progress:
        progress(10)


def test_steps_of_a_run_are_shown_as_they_begin_and_a_program_now_and_then(screen, out, monkeypatch):
    from strongroom.app.cli import runs

    now = [0.0]
    monkeypatch.setattr(runs.time, "monotonic", lambda: now[0])
    steps = Steps(screen)
    for at, step, detail in ((0, "open", ""), (0, "program", "0 %"), (1, "program", "10 %"), (2.5, "program", "20 %")):
        now[0] = at
        steps(step, detail)
    assert [line.split() for line in out.getvalue().splitlines()] == [
        ["open"],
        ["program", "0", "%"],
        ["program", "20", "%"],
    ]


def test_a_report_is_a_table(screen, out):
    value = {
        "records": 1234,
        "metrics": {"accuracy": 0.5, "confusion": [[1, 2], [3, 4]], "roc_auc": None, "n": 3},
        "tables": [
            {
                "name": "size",
                "by": "radius",
                "groups": [
                    {"group": "small", "suppressed": True},
                    {"group": "large", "records": 20, "values": {"accuracy": 0.25}},
                ],
            }
        ],
    }
    report(value, screen)
    assert out.getvalue().splitlines() == [
        "",
        "  records                 1,234",
        "  accuracy                0.5",
        "  confusion               1 2 | 3 4",
        "  roc_auc                 -",
        "  n                       3",
        "",
        "  size (by radius)",
        "  group  records     accuracy",
        "  small  suppressed",
        "  large  20          0.25",
    ]
