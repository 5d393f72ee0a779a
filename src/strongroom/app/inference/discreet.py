"""A process that says nothing of what it is asked: no core, no traceback with values, no log line of another's library.

What a library logs, and what Python prints of an error that nobody caught, may hold a prompt. Here it all goes through one
place, which lets through what this project wrote about the machine, and of everything else nothing; where failures may be
seen, the shape of what failed (``observed.shape``).

See ``docs/operators.md``.
"""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import logging
import resource
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any, Final, TextIO

from strongroom.inference.events import Observability

from .observed import shape

OPERATOR: Final = ("strongroom.operator", "strongroom.enclave", "strongroom.inference")
"""Loggers that tell of the machine, in words of this project and codes alone."""

FAILURES: Final = "strongroom.failures"
"""Where an :class:`~.observed.Observer` writes, which has asked the contract."""

PR_SET_DUMPABLE: Final = 4

_ERROR: Final = "strongroom_error"


def _ours(name: str) -> bool:
    return name == FAILURES or name in OPERATOR or name.startswith(tuple(f"{known}." for known in OPERATOR))


def no_core() -> None:
    """No core file, and no other process of this user reads the memory (``prctl(2)``)."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


class Discreet(logging.Handler):
    """Writes what may be seen, one line each.

    Args:
        out: where to.

    Attributes:
        failures: whether the shape of errors that belong to no request may be seen: where every contract that is served here
            lets it.
    """

    def __init__(self, out: TextIO, *, failures: bool = False) -> None:
        super().__init__()
        self._out, self.failures = out, failures

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record of ours, without its traceback; of another's its error's shape, if anything."""
        if _ours(record.name):
            kind = "failure" if record.name == FAILURES else record.levelname.lower()
            self._say(f"{kind}: {record.getMessage()}")
        elif isinstance(error := getattr(record, _ERROR, None), BaseException):
            self.failed(error)

    def failed(self, error: BaseException) -> None:
        """An error that nobody caught."""
        if self.failures:
            self._say(f"failure: {shape(error)}")

    def _say(self, line: str) -> None:
        self._out.write("".join(c if c.isprintable() else " " for c in line) + "\n")
        self._out.flush()


def be_discreet(level: Observability | str, out: TextIO | None = None) -> Discreet:
    """Make this process say no more than the level allows, whatever its libraries do. Before anything is served.

    Args:
        level: the narrowest of what is served here.
        out: where log lines go; standard error.

    Returns:
        what writes them.
    """
    no_core()
    found = Discreet(out or sys.stderr, failures=Observability(level) in (Observability.FAILURES, Observability.FULL))
    root = logging.getLogger()
    for name in [None, *logging.root.manager.loggerDict]:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
    root.addHandler(found)
    logging.setLogRecordFactory(_emptied(logging.LogRecord))
    root.setLevel(logging.INFO)
    logging.raiseExceptions = False  # else logging prints the record that it could not write
    logging.lastResort = None
    faulthandler.disable()
    warnings.showwarning = _nothing  # a warning's text may quote a value

    def caught(kind: type[BaseException], error: BaseException, _trace: Any) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            found.failed(error)

    sys.excepthook = caught
    threading.excepthook = lambda args: found.failed(args.exc_value) if args.exc_value is not None else None
    sys.unraisablehook = lambda args: found.failed(args.exc_value) if args.exc_value is not None else None
    return found


def _emptied(make: Callable[..., logging.LogRecord]) -> Callable[..., logging.LogRecord]:
    """Records of others are empty before any handler has them: a library may bring one of its own."""

    def made(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        if not _ours(record.name):
            setattr(record, _ERROR, record.exc_info[1] if record.exc_info else None)
            record.msg, record.args = "", ()
        record.exc_info = record.exc_text = record.stack_info = None
        return record

    return made


def _nothing(*_: object, **__: object) -> None:
    return


def discreet_loop(loop: asyncio.AbstractEventLoop, handler: Discreet) -> None:
    """Have an event loop tell of errors in tasks that nobody waited for in the same way."""

    def told(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, BaseException):
            handler.failed(error)

    loop.set_exception_handler(told)
