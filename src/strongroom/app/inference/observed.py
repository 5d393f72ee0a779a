"""What the operator of the machine may see of requests, at the level that the policy names, and nothing beyond it.

``none``: nothing. ``aggregate``: counts and latencies, as Prometheus reads them. ``failures``: also the shape of what
failed, which is classes, modules, functions and lines, never a value. ``full``: also the texts, in a file that the operator
named.

Labels come from closed sets. What a client chooses (a model's name, a code in an answer) is counted as ``other`` unless it
is known here.

See ``docs/operators.md``.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final

from strongroom.errors import MissingExtra, leaves
from strongroom.inference.events import Observability
from strongroom.serving import ROUTES

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

OK: Final = "ok"
OTHER: Final = "other"
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
REFRESH_S: Final = 10.0
MAX_FRAMES: Final = 40
MAX_CAUSES: Final = 5
SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
FIRST: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

_FAILURES = logging.getLogger("strongroom.failures")


def _plain(name: str) -> str:
    """A name as code has them; what was made up while the program ran may hold anything."""
    return name if len(name) <= 80 and name.replace(".", "").replace("_", "").replace("<locals>", "").isalnum() else "?"


def _frames(trace: TracebackType | None) -> Iterator[str]:
    while trace is not None:
        code, module = trace.tb_frame.f_code, trace.tb_frame.f_globals.get("__name__")
        loaded = isinstance(module, str) and module in sys.modules  # a template's or a notebook's is not
        yield f"{_plain(str(module))}:{_plain(code.co_qualname)}:{trace.tb_lineno}" if loaded else "?"
        trace = trace.tb_next


def shape(error: BaseException) -> str:
    """What failed and where, without a value: no message, no argument, no local variable, no line of source.

    Args:
        error: with its traceback and causes.

    Returns:
        one line: the class, ``at`` its frames, outermost first, ``from`` its cause.
    """
    found: list[str] = []
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen and len(found) < MAX_CAUSES:
        seen.add(id(cause))
        kind = type(cause)
        frames = [*_frames(cause.__traceback__)][-MAX_FRAMES:]
        loaded = kind.__module__ in sys.modules
        name = f"{_plain(kind.__module__)}.{_plain(kind.__qualname__)}" if loaded else "?"
        found.append(f"{name} at {' > '.join(frames) or '?'}")
        cause = cause.__cause__ or cause.__context__
    return " from ".join(found)


class _Metrics:
    """Counts and latencies, in a registry of their own: nothing of the process or its platform is in it."""

    def __init__(self) -> None:
        try:
            from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
        except ImportError as error:
            raise MissingExtra("what counts is not installed", hint="pip install 'strongroom[chat]'") from error

        disable_created_metrics()  # type: ignore[no-untyped-call] # when the first of a kind was is about one request
        self.registry: CollectorRegistry = CollectorRegistry(auto_describe=True)
        self.models: set[str] = set()
        self._codes = frozenset(leaves())
        here = self.registry
        self.ended = Counter("strongroom_requests", "Requests that ended", ["route", "model", "outcome"], registry=here)
        self.going = Gauge("strongroom_requests_in_flight", "Requests that are being answered", ["route"], registry=here)
        self.tokens = Counter("strongroom_tokens", "Tokens that were metered", ["model", "kind"], registry=here)
        self.failures = Counter("strongroom_failures", "Faults that nobody expected", ["route"], registry=here)
        whole, first = "From a request's first byte to its answer's last", "From a request's first byte to the first token"
        self.seconds = Histogram("strongroom_request_seconds", whole, ["route"], buckets=SECONDS, registry=here)
        self.first = Histogram("strongroom_first_token_seconds", first, ["route"], buckets=FIRST, registry=here)

    def gauge(self, name: str, what: str, read: Callable[[], float]) -> None:
        from prometheus_client import Gauge

        Gauge(name, what, registry=self.registry).set_function(read)

    def model(self, name: str | None) -> str:
        return name if name is not None and name in self.models else OTHER

    def outcome(self, code: str) -> str:
        return code if code == OK or code in self._codes else OTHER

    def text(self) -> bytes:
        from prometheus_client import generate_latest

        return generate_latest(self.registry)


class Seen:
    """One request, as far as the operator may see it. Made by :meth:`Observer.begun`; :meth:`ended` ends it, once."""

    __slots__ = ("_began", "_model", "_observer", "_open", "_request", "_response", "_route", "_texts")

    def __init__(self, observer: Observer, route: str) -> None:
        self._observer, self._route = observer, route
        self._began = observer.clock()
        self._model: str | None = None
        self._open = True
        self._texts = observer.keeps_texts
        self._request: list[bytes] = []
        self._response: list[bytes] = []

    def model(self, name: str) -> None:
        """The model of the contract that answers."""
        self._model = name

    def first_token(self) -> None:
        """The first token is there."""
        metrics = self._observer.metrics
        if metrics is not None:
            metrics.first.labels(self._route).observe(self._observer.clock() - self._began)

    def asked(self, text: bytes) -> None:
        """The next bytes of the request in the clear; dropped unless everything may be seen."""
        if self._texts:
            self._request.append(text)

    def answered(self, text: bytes) -> None:
        """The next bytes of the answer in the clear; dropped unless everything may be seen."""
        if self._texts:
            self._response.append(text)

    def failed(self, error: BaseException) -> None:
        """A fault that nobody expected."""
        self._observer.failed(error, self._route)

    def ended(self, outcome: str, prompt_tokens: int = 0, completion_tokens: int = 0, embedding_tokens: int = 0) -> None:
        """The last byte is out, or nobody is there to take it.

        Args:
            outcome: ``ok``, or the stable code of what it was refused with.
            prompt_tokens, completion_tokens, embedding_tokens: what was metered.
        """
        if not self._open:
            return
        self._open = False
        metrics = self._observer.metrics
        if metrics is not None:
            model = metrics.model(self._model)
            metrics.going.labels(self._route).dec()
            metrics.ended.labels(self._route, model, metrics.outcome(outcome)).inc()
            metrics.seconds.labels(self._route).observe(self._observer.clock() - self._began)
            counts = {"prompt": prompt_tokens, "completion": completion_tokens, "embedding": embedding_tokens}
            for kind, count in counts.items():
                if count:
                    metrics.tokens.labels(model, kind).inc(count)
        if self._texts:
            self._observer.keep(
                {
                    "model": self._model,
                    "outcome": outcome,
                    "request": b"".join(self._request).decode("utf-8", "replace"),
                    "response": b"".join(self._response).decode("utf-8", "replace"),
                    "route": self._route,
                }
            )


class Observer:
    """Tells the operator of requests under one contract what its policy allows.

    Args:
        level: the policy's ``observability``.
        metrics: where is counted; ``None`` where nothing may be.
        log: where texts are written, if anywhere.
        clock: seconds; only differences count.
        now: Unix seconds.
    """

    def __init__(
        self,
        level: Observability,
        metrics: _Metrics | None,
        log: Path | None,
        *,
        clock: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self.level, self.clock, self._now = level, clock, now
        self.metrics = None if level is Observability.NONE else metrics
        self._log = log if level is Observability.FULL else None
        self._lock = threading.Lock()

    @property
    def keeps_texts(self) -> bool:
        """Whether texts of requests and answers are written down."""
        return self._log is not None

    def begun(self, route: str) -> Seen:
        """A request has come. ``route``: one of ``serving.ROUTES``; everything else is ``other``."""
        known = route if route in ROUTES else OTHER
        if self.metrics is not None:
            self.metrics.going.labels(known).inc()
        return Seen(self, known)

    def failed(self, error: BaseException, route: str = OTHER) -> None:
        """A fault that nobody expected: it is counted, and its shape logged where failures may be seen."""
        if self.metrics is not None:
            self.metrics.failures.labels(route if route in ROUTES else OTHER).inc()
        if self.level in (Observability.FAILURES, Observability.FULL):
            _FAILURES.error("%s", shape(error))

    def keep(self, what: dict[str, str | None]) -> None:
        """Write down a request and its answer, where everything may be seen."""
        if self._log is None:
            return
        line = json.dumps({**what, "at": int(self._now())}, ensure_ascii=False, sort_keys=True).encode() + b"\n"
        with self._lock:
            place = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(place, "wb", buffering=0) as sink:
                sink.write(line)


class Observers:
    """What the operator of one process sees, of every contract that is served there.

    Args:
        log: where texts are written under contracts of the level ``full``, one JSON object a request; nowhere where it is
            ``None``, and never at another level. The file is made with mode 0600.
        refresh: seconds for which :meth:`text` answers the same, so that no request is told from its neighbours by asking
            often.
        clock: seconds; only differences count.
        now: Unix seconds.
    """

    def __init__(
        self,
        *,
        log: Path | None = None,
        refresh: float = REFRESH_S,
        clock: Callable[[], float] = time.perf_counter,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._log, self._refresh, self._clock, self._now = log, refresh, clock, now
        self._metrics: _Metrics | None = None
        self._lock = threading.Lock()
        self._said: tuple[float, bytes] | None = None

    def of(self, level: Observability | str, models: Iterable[str] = ()) -> Observer:
        """Who observes requests under a contract.

        Args:
            level: of the contract's policy.
            models: the contract's own names of its models: the only ones that are told apart.
        """
        level = Observability(level)
        if level is not Observability.NONE:
            with self._lock:
                self._metrics = self._metrics or _Metrics()
            self._metrics.models.update(models)
        return Observer(level, self._metrics, self._log, clock=self._clock, now=self._now)

    def gauge(self, name: str, what: str, read: Callable[[], float]) -> None:
        """Show a figure of the machine beside those of requests, such as how many receipts no log has taken.

        Args:
            name: as Prometheus has it.
            what: one line.
            read: called for every answer; figures of the machine alone, never of a request.
        """
        with self._lock:
            self._metrics = self._metrics or _Metrics()
        self._metrics.gauge(name, what, read)

    def text(self) -> bytes | None:
        """What ``/metrics`` answers, of the type ``CONTENT_TYPE``; ``None`` where nothing may be seen."""
        if self._metrics is None:
            return None
        with self._lock:
            at = self._clock()
            if self._said is None or at - self._said[0] >= self._refresh:
                self._said = at, self._metrics.text()
            return self._said[1]
