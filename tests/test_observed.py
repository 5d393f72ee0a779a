"""What an operator sees at each level, and that a client chooses none of it."""

from __future__ import annotations

import asyncio
import faulthandler
import io
import json
import logging
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

pytest.importorskip("prometheus_client", reason="counts need strongroom[serve]")

from strongroom.app.inference.discreet import Discreet, discreet_loop
from strongroom.app.inference.observed import MAX_CAUSES, Observers, shape
from strongroom.errors import EngineFailed, leaves

LEVELS = ("none", "aggregate", "failures", "full")
MARK = "kumquat-4711"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def caught(text: str = MARK) -> BaseException:
    """An error with a value in its message, its locals, its notes and its cause."""

    def inner(secret: str) -> None:
        try:
            {}[secret]
        except KeyError as error:
            error.add_note(secret)
            raise EngineFailed(f"it said {secret}") from error

    try:
        inner(text)
    except EngineFailed as error:
        return error
    raise AssertionError


def asked(observers: Observers, level: str, **changes) -> None:
    """One request, with a mark wherever a client or a model can put one."""
    observer = observers.of(level, models=["example/small"])
    seen = observer.begun(changes.get("route", "chat"))
    seen.model(changes.get("model", "example/small"))
    seen.asked(f"tell me of {MARK}".encode())
    seen.first_token()
    seen.answered(f"{MARK} is".encode())
    seen.answered(b" a fruit")
    if "error" in changes:
        seen.failed(changes["error"])
    seen.ended(changes.get("outcome", "ok"), prompt_tokens=5, completion_tokens=7)
    seen.ended("engine.failed")  # only the first end counts


# --- shapes -----------------------------------------------------------------------------------------------------------


def test_the_shape_of_a_failure_says_where_and_never_what():
    said = shape(caught())
    assert "strongroom.errors.EngineFailed at " in said
    assert " from builtins.KeyError at " in said
    assert "inner" in said
    assert MARK not in said
    assert "secret" not in said
    assert "\n" not in said


def test_a_class_a_function_or_a_module_that_was_made_up_while_running_shows_no_name():
    made_up = type(MARK, (Exception,), {"__module__": MARK})
    scope = {"__name__": MARK, "made_up": made_up}
    exec(compile("def f(): raise made_up('x')", f"<{MARK}>", "exec"), scope)
    named = {}
    exec(f"def _{MARK.replace('-', '_')}(f): f()", {"__name__": "nowhere"}, named)
    try:
        next(iter(named.values()))(scope["f"])
    except made_up as error:
        said = shape(error)
    assert "kumquat" not in said
    assert "?" in said


def test_errors_that_cause_each_other_in_a_circle_have_a_shape():
    one, other = ValueError(MARK), TypeError(MARK)
    one.__cause__, other.__cause__ = other, one
    assert shape(one) == "builtins.ValueError at ? from builtins.TypeError at ?"
    last: BaseException = ValueError(MARK)
    for _ in range(50):
        following = ValueError(MARK)
        following.__cause__ = last
        last = following
    assert shape(last).count("ValueError") == MAX_CAUSES


# --- levels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
def test_each_level_shows_what_it_says_and_no_more(level, tmp_path, caplog):
    log = tmp_path / "texts.jsonl"
    observers = Observers(log=log, refresh=0)
    asked(observers, level, error=caught())
    text = observers.text()
    assert (text is None) == (level == "none")
    assert ("EngineFailed" in caplog.text) == (level in ("failures", "full"))
    assert log.exists() == (level == "full")
    assert MARK not in caplog.text + (text or b"").decode()
    if level == "full":
        (line,) = log.read_text().splitlines()
        kept = json.loads(line)
        assert (kept["request"], kept["response"]) == (f"tell me of {MARK}", f"{MARK} is a fruit")
        assert log.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("level", LEVELS)
def test_where_the_operator_named_no_file_no_text_is_kept(level, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked(Observers(), level)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_kept_in_memory_of_texts_that_may_not_be_seen():
    seen = Observers(log=None).of("full").begun("chat")
    seen.asked(b"x" * 1000)
    assert seen._request == []


def test_counts_and_latencies_are_what_prometheus_reads():
    from prometheus_client.parser import text_string_to_metric_families

    clock = Clock()
    observers = Observers(refresh=0, clock=clock)
    observers.gauge("strongroom_receipts_unlogged", "Receipts that no log has taken", lambda: 3)
    observer = observers.of("aggregate", ["example/small"])
    seen = observer.begun("chat")
    seen.model("example/small")
    clock.now = 0.03
    seen.first_token()
    clock.now = 2.0
    going = observers.text().decode()
    seen.ended("ok", prompt_tokens=5, completion_tokens=7)
    observer.begun("embeddings").ended("app.limit_reached", embedding_tokens=2)
    found = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(observers.text().decode())
        for sample in family.samples
    }
    assert 'strongroom_requests_in_flight{route="chat"} 1.0' in going
    model = ("model", "example/small")
    assert found["strongroom_requests_total", (model, ("outcome", "ok"), ("route", "chat"))] == 1
    assert found["strongroom_tokens_total", (("kind", "completion"), model)] == 7
    assert found["strongroom_tokens_total", (("kind", "embedding"), ("model", "other"))] == 2
    refused = (("model", "other"), ("outcome", "app.limit_reached"), ("route", "embeddings"))
    assert found["strongroom_requests_total", refused] == 1
    assert found["strongroom_first_token_seconds_bucket", (("le", "0.05"), ("route", "chat"))] == 1
    assert found["strongroom_first_token_seconds_bucket", (("le", "0.025"), ("route", "chat"))] == 0
    assert found["strongroom_request_seconds_sum", (("route", "chat"),)] == 2
    assert found["strongroom_requests_in_flight", (("route", "chat"),)] == 0
    assert found["strongroom_receipts_unlogged", ()] == 3
    assert not any(name.endswith("_created") or name.startswith(("python_", "process_")) for name, _ in found)


def test_a_client_makes_no_labels():
    observers = Observers(refresh=0)
    for n in range(100):
        asked(observers, "aggregate", route=f"{MARK}{n}", model=f"{MARK}{n}", outcome=f"{MARK}.{n}")
    text = observers.text().decode()
    assert MARK not in text
    assert 'outcome="other"' in text
    assert text.count("strongroom_requests_total{") == 1
    assert set(leaves()) >= {"app.limit_reached"}


def test_who_asks_often_sees_no_single_request():
    clock = Clock()
    observers = Observers(clock=clock, refresh=10)
    asked(observers, "aggregate")
    before = observers.text()
    asked(observers, "aggregate")
    clock.now = 9.9
    assert observers.text() == before
    clock.now = 10
    assert observers.text() != before


def test_contracts_of_several_levels_are_kept_apart(tmp_path):
    log = tmp_path / "texts.jsonl"
    observers = Observers(log=log, refresh=0)
    asked(observers, "none")
    assert observers.text() is None
    asked(observers, "full")
    asked(observers, "none")
    assert observers.text().decode().count('outcome="ok",route="chat"} 1.0') == 1
    assert len(log.read_text().splitlines()) == 1


def test_a_level_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="everything"):
        Observers().of("everything")


# --- a discreet process -----------------------------------------------------------------------------------------------


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


@pytest.mark.parametrize("failures", [False, True])
def test_what_another_library_logs_is_not_written(out, failures):
    handler = Discreet(out, failures=failures)
    record = logging.LogRecord("uvicorn.error", logging.ERROR, "p", 1, f"failed on {MARK}", (), None)
    record.strongroom_error = caught()
    handler.emit(record)
    handler.emit(logging.LogRecord("asyncio", logging.ERROR, "p", 1, MARK, (), None))
    assert MARK not in out.getvalue()
    assert ("EngineFailed" in out.getvalue()) == failures


def test_what_this_project_says_of_the_machine_is_written_in_one_line(out):
    handler = Discreet(out)
    handler.emit(
        logging.LogRecord("strongroom.operator", logging.WARNING, "p", 1, "%s:\n\x1b[2J", ("app.unreachable",), None)
    )
    assert out.getvalue() == "warning: app.unreachable:  [2J\n"


def test_errors_of_tasks_that_nobody_waits_for_have_a_shape(out):
    loop = asyncio.new_event_loop()
    discreet_loop(loop, Discreet(out, failures=True))
    loop.call_exception_handler({"message": MARK, "exception": caught(), "task": MARK})
    loop.call_exception_handler({"message": MARK})
    loop.close()
    assert MARK not in out.getvalue()
    assert out.getvalue().count("EngineFailed") == 1


SAYS = """
    import asyncio, faulthandler, gc, logging, os, resource, sys, threading, warnings
    from strongroom.app.inference.discreet import be_discreet, discreet_loop
    noisy = logging.getLogger("noisy")
    noisy.addHandler(logging.StreamHandler(sys.stdout))
    faulthandler.enable()
    be_discreet({level!r}).failures = {failures!r}
    late = logging.getLogger("late")  # a library that is loaded later, and brings a handler
    late.addHandler(logging.StreamHandler(sys.stdout))
    mark = os.environ["MARK"]
    for logger in (noisy, late, logging.getLogger()):
        logger.error("%s", mark)
        try:
            raise ValueError(mark)
        except ValueError:
            logger.exception(mark, stack_info=True)
    warnings.warn(mark)
    logging.getLogger("strongroom.operator").error("the disk is full")
    thread = threading.Thread(target=lambda: {{}}[mark])
    thread.start(); thread.join()
    class Unraisable:
        def __del__(self): raise ValueError(mark)
    Unraisable(); gc.collect()
    loop = asyncio.new_event_loop()
    async def lost(): raise ValueError(mark)
    async def main():
        task = loop.create_task(lost())
        await asyncio.sleep(0.01)
        del task; gc.collect()
    from strongroom.app.inference.discreet import Discreet
    loop.run_until_complete(main())
    assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
    assert not faulthandler.is_enabled()
    raise ValueError(mark)
"""


@pytest.mark.parametrize(("level", "failures"), [("none", False), ("aggregate", False), ("failures", True), ("full", True)])
def test_a_discreet_process_says_nothing_of_a_value_whatever_fails(tmp_path, level, failures):
    code = textwrap.dedent(SAYS.format(level=level, failures=failures))
    path = tmp_path / "says.py"
    path.write_text(code)
    ran = subprocess.run(
        [sys.executable, str(path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "MARK": MARK, "PYTHONUNBUFFERED": "1"},
        timeout=60,
    )
    said = ran.stdout + ran.stderr
    assert ran.returncode == 1
    assert MARK not in said
    assert "error: the disk is full" in said
    assert (said.count("ValueError") + said.count("KeyError") >= 4) == failures
    assert ("ValueError" in said) == failures


def test_without_discretion_the_same_process_says_it(tmp_path):
    """The double that shows that the test above can fail."""
    code = textwrap.dedent(SAYS.format(level="none", failures=False)).replace('be_discreet("none")', "object()")
    code = code.replace("be_discreet('none').failures = False", "pass").replace("assert ", "_ = ")
    path = tmp_path / "says.py"
    path.write_text(code)
    env = {**os.environ, "MARK": MARK}
    ran = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=False, cwd=tmp_path, env=env)
    assert (ran.stdout + ran.stderr).count(MARK) > 5


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_no_other_process_reads_the_memory():
    code = (
        "import ctypes; from strongroom.app.inference.discreet import no_core; no_core();"
        "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "0"  # PR_GET_DUMPABLE


def test_this_test_changed_nothing_of_its_own_process():
    assert threading.excepthook is not None
    assert logging.getLogRecordFactory() is logging.LogRecord
    assert isinstance(faulthandler.is_enabled(), bool)
    assert Path.cwd().is_dir()
