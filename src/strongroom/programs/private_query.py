"""``private-query``: aggregates of a table under differential privacy, where nobody chooses noise by hand.

Input: ``data`` (Parquet, Arrow or CSV; only the columns that are asked about are read). Output: ``answers``, JSON with an
accuracy beside every figure. Who asks says how much of the run's epsilon a query gets, or how accurate it must be; the noise
follows. Parameters, input and output are written down in ``spec/programs.md``.

Everything here follows from the parameters alone: the charges that a contract states are what the program then spends. What
is heavy is in ``private_answers``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import Any, Final

from . import Input, OutputKind, OutputSpec, Step, Write
from .parameters import Checks

NAME: Final = "private-query"
ROLES: Final = frozenset({"data"})
OUTPUTS: Final[Mapping[str, OutputKind]] = {
    "answers": OutputKind("values", "application/json")
}  # and no log: it has no noise
DEFAULTS: Final[Mapping[str, Any]] = {"epsilon": None, "unit": None}
LIBRARIES: Final = ("numpy", "opendp", "pyarrow")

ASKS: Final = ("count", "histogram", "mean", "quantile", "sum")
CONFIDENCE: Final = "0.95"
LN_20: Final = Fraction(299573227356, 10**11)  # rounded up: noise is beyond scale * ln 20 once in twenty times
GRID: Final = 1024  # candidates of a quantile, and one
STEPS_OF_A_RANGE: Final = 10_000  # at least as many whole steps lie between the bounds of a sum
FORMAT: Final = "strongroom.answers.v1"
MAX_FIGURE: Final = 2**53 - 1  # of an answer: what a number in JSON can be
MAX_STEPS: Final = 2**40  # and no bound is further from nought: sums of millions of rows stay exact

_MAX_QUERIES, _MAX_EDGES, _MAX_CATEGORIES, _MAX_ROWS, _MAX_SHARE = 64, 256, 1024, 1_000_000, 1_000_000
_MAX_EPSILON = 50
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,11})(?:\.[0-9]{1,9})?\Z")
_PLACES = 9  # of an epsilon


@dataclass(frozen=True, slots=True)
class Query:
    """One question, with its noise settled.

    Attributes:
        name: of its answer.
        ask: one of ``ASKS``.
        column: that it is about; ``""`` for a count.
        lower, upper: bounds: values outside are taken for the nearer one.
        at: of a quantile, from 0 to 1.
        edges: of a histogram, rising.
        by: the column that divides the answer; ``""`` where none does.
        categories: of ``by``, as somebody knows them from elsewhere; none of them is read from the table.
        epsilon: what the answer may spend.
    """

    name: str
    ask: str
    column: str
    lower: Fraction
    upper: Fraction
    at: Fraction
    edges: tuple[Fraction, ...]
    by: str
    categories: tuple[str, ...]
    epsilon: Fraction

    @property
    def step(self) -> Fraction:
        """Sums are made in whole steps of this size: a power of ten."""
        found = Fraction(1)
        while (self.upper - self.lower) / found < STEPS_OF_A_RANGE:
            found /= 10
        while (self.upper - self.lower) / found >= 10 * STEPS_OF_A_RANGE:
            found *= 10
        return found

    @property
    def span(self) -> tuple[int, int]:
        """The bounds in whole steps, rounded outwards."""
        return self.lower // self.step, -(-self.upper // self.step)


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a contract asks.

    Attributes:
        queries: in the order of the answers.
        unit: the column of ids of whom the noise protects; ``""`` where each row is somebody of its own.
        rows: how many rows of one unit are taken, the first that come.
    """

    queries: tuple[Query, ...]
    unit: str
    rows: int

    @property
    def epsilon(self) -> Fraction:
        """Of all answers together, by plain sum."""
        return sum((query.epsilon for query in self.queries), Fraction(0))


_CHECKS: Final = Checks(NAME)
_bad, _text = _CHECKS.bad, _CHECKS.text


def _number(value: object, what: str) -> Fraction:
    if not isinstance(value, str) or not _NUMBER.match(value):
        _bad(f'{what} is not a decimal number such as "12.5"')
    return Fraction(value)


def _members(value: object, needed: Collection[str], allowed: Collection[str], what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not set(needed) <= set(value) <= {*needed, *allowed}:
        _bad(f"{what} does not have exactly the members that it must")
    return value


def _of(ask: str) -> tuple[str, ...]:
    """The members that a query has beside ``ask`` and ``name``."""
    bounded = ("column", "lower", "upper")
    return {"count": (), "histogram": ("column", "edges"), "quantile": (*bounded, "at")}.get(ask, bounded)


def _query(value: object, rows: int) -> tuple[Query, int]:
    """A query with the epsilon that its accuracy asks for, or 0 and its share."""
    ask = value.get("ask") if isinstance(value, Mapping) else None
    if ask not in ASKS:
        _bad(f"a query asks for none of {', '.join(ASKS)}")
    divided = ("by",) if ask in ("count", "mean", "sum") else ()
    f = _members(value, ("ask", "name", *_of(ask)), ("share", "within", *divided), f"a query for a {ask}")
    if not _NAME.match(_text(f["name"], "a query's name")):
        _bad("a query's name is not a word of a-z, 0-9 and _")
    lower, upper = (_number(f.get(end, default), end) for end, default in (("lower", "0"), ("upper", "1")))
    edges = tuple(_number(edge, "an edge") for edge in _CHECKS.items(f.get("edges", ["0"]), "edges", 1, _MAX_EDGES))
    at = _number(f.get("at", "0"), "at")
    if lower >= upper or any(low >= high for low, high in pairwise(edges)):
        _bad("bounds and edges rise")
    if not 0 <= at <= 1 or at.denominator > 1000:
        _bad('at is not from 0 to 1 with at most three places, such as "0.5"')
    by, categories = _divided(f.get("by"))
    column = _text(f["column"], "a column") if "column" in f else ""
    found = Query(f["name"], ask, column, lower, upper, at, edges, by, categories, Fraction(0))
    if ask in ("sum", "mean") and max(map(abs, found.span)) > MAX_STEPS:
        _bad("the bounds are too far from nought for their distance from each other")
    if ("share" in f) == ("within" in f):
        _bad("a query has either a share or an accuracy (within)")
    if "share" in f:
        return found, _CHECKS.whole(f["share"], "a share", 1, _MAX_SHARE)
    return _with(found, _wanted(found, _number(f["within"], "within"), rows)), 0


def _divided(value: object) -> tuple[str, tuple[str, ...]]:
    if value is None:
        return "", ()
    f = _members(value, ("column", "categories"), (), "by")
    categories = tuple(_text(c, "a category") for c in _CHECKS.items(f["categories"], "categories", 1, _MAX_CATEGORIES))
    _CHECKS.distinct(categories, "categories")
    return _text(f["column"], "a column"), categories


def sensitivity(query: Query, rows: int) -> int:
    """How much one unit more or less changes the sum or the counts, in whole steps, over all cells together."""
    if query.ask == "sum":
        return rows * max(map(abs, query.span))
    return rows


def _wanted(query: Query, within: Fraction, rows: int) -> Fraction:
    """The epsilon with which noise is within so much, 95 times in a hundred."""
    if query.ask not in ("count", "histogram", "sum"):
        _bad(f"the accuracy of a {query.ask} depends on the data: give it a share")
    steps = within / (query.step if query.ask == "sum" else 1)
    if steps < 1:
        _bad("no answer is more accurate than one step")
    return sensitivity(query, rows) * LN_20 / (steps // 1)


def _with(query: Query, epsilon: Fraction) -> Query:
    """Raises BadParameters: epsilon is too little, or too much."""
    rounded = Fraction(-(-epsilon.numerator * 10**_PLACES // epsilon.denominator), 10**_PLACES)  # upwards
    if not 0 < rounded <= _MAX_EPSILON:
        _bad(f"a query would spend an epsilon that is not above 0 and at most {_MAX_EPSILON}")
    return replace(query, epsilon=rounded)


def _shared(epsilon: Fraction, share: int, of: int) -> Fraction:
    """A share, rounded down: together they are never more than the whole."""
    return Fraction(epsilon * share * 10**_PLACES // of, 10**_PLACES)


def read(parameters: Mapping[str, Any]) -> Parameters:
    """The parameters of a contract.

    Raises:
        BadParameters: see ``spec/programs.md`` for what they must be.
    """
    f = _members(parameters, ("epsilon", "queries", "unit"), (), "the parameters")
    unit, rows = "", 1
    if f["unit"] is not None:
        said = _members(f["unit"], ("column", "rows"), (), "unit")
        unit, rows = _text(said["column"], "a column"), _CHECKS.whole(said["rows"], "unit.rows", 1, _MAX_ROWS)
    found = [_query(query, rows) for query in _CHECKS.items(f["queries"], "queries", 1, _MAX_QUERIES)]
    shares = sum(share for _, share in found)
    if (f["epsilon"] is None) != (shares == 0):
        _bad("epsilon is what queries share: say both, or neither")
    whole = Fraction(0) if f["epsilon"] is None else _number(f["epsilon"], "epsilon")
    queries = tuple(_with(query, _shared(whole, share, shares)) if share else query for query, share in found)
    _CHECKS.distinct([query.name for query in queries], "queries")
    return Parameters(queries, unit, rows)


def decimal(value: Fraction) -> str:
    """A number of at most nine places, in the one spelling of ``spec/budget.md``."""
    whole, places = divmod(value.numerator * 10**_PLACES // value.denominator, 10**_PLACES)
    return f"{whole}.{places:0{_PLACES}}".rstrip("0").rstrip(".")


def charges(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a run spends: one event for each query. Raises BadParameters.

    The noise is on whole numbers, and no continuous mechanism: all that is said of it is its epsilon.
    """
    return {
        "data": [
            {"count": 1, "delta": "0", "epsilon": decimal(query.epsilon), "event": "epsilon-delta"}
            for query in read(parameters).queries
        ]
    }


def check(parameters: Mapping[str, Any]) -> None:
    """Raises BadParameters."""
    read(parameters)


def bands(query: Query) -> list[str]:
    """The names of a histogram's bands."""
    edges = [f"{float(edge):.12g}" for edge in query.edges]
    between = [f"{low} to {high}" for low, high in pairwise(edges)]
    return [f"below {edges[0]}", *between, f"{edges[-1]} and above"]


def _object(**members: Any) -> dict[str, Any]:
    return {"properties": members, "type": "object"}


def _one_of(*texts: str) -> dict[str, Any]:
    return {"enum": sorted(set(texts)), "type": "string"}


def _list(item: dict[str, Any], most: int) -> dict[str, Any]:
    return {"items": item, "maxItems": most, "type": "array"}


def _schema(query: Query) -> dict[str, Any]:
    """What the answer to one query holds."""
    whole = query.ask in ("count", "histogram")
    figure = {"maximum": MAX_FIGURE, "minimum": -MAX_FIGURE, "type": "integer" if whole else "number"}
    beside = {"ask": _one_of(query.ask), "epsilon": _one_of(decimal(query.epsilon))}
    if query.ask == "quantile":
        rows = {"maximum": MAX_FIGURE, "minimum": 0, "type": "integer"}
        return _object(**beside, grid=figure, value=figure, within_rows=rows)
    cell = {"value": figure, "within": figure}
    if query.ask == "histogram":
        names = bands(query)
        return _object(**beside, bands=_list(_object(band=_one_of(*names), **cell), len(names)))
    if query.by:
        groups = _list(_object(group=_one_of(*query.categories), **cell), len(query.categories))
        return _object(**beside, groups=groups)
    return _object(**beside, **cell)


def schemas(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the answers hold: every name and text of them follows from the parameters. Raises BadParameters."""
    said = read(parameters)
    unit: dict[str, Any] = {"type": "null"}
    if said.unit:
        unit = _object(column=_one_of(said.unit), rows={"maximum": said.rows, "minimum": said.rows, "type": "integer"})
    answers = _object(**{query.name: _schema(query) for query in said.queries})
    beside = {"confidence": _one_of(CONFIDENCE), "epsilon": _one_of(decimal(said.epsilon)), "format": _one_of(FORMAT)}
    return {"answers": _object(**beside, answers=answers, unit=unit)}


def load(_outputs: Collection[str]) -> None:
    """Import what it takes to answer."""
    from . import private_answers  # noqa: PLC0415 - heavy, and not for clients

    private_answers.rehearse()


def run(
    inputs: Mapping[str, Input],
    parameters: Mapping[str, Any],
    outputs: Mapping[str, OutputSpec],
    write: Write,
    step: Step,
) -> None:
    """Answer every query.

    Raises:
        BadParameters: as ``check``. TableColumns, TableUnreadable: the table has not the form that its mock shows. What
            stands in its rows ends no run.
    """
    from . import private_answers  # noqa: PLC0415 - heavy, and not for clients

    found = private_answers.answer(inputs["data"], read(parameters), step)
    step("write", 980)
    if "answers" in outputs:
        write("answers", found)
    step("write", 1000)
