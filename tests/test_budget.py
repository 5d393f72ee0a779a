"""Budgets: what events come to, what an owner allows, what a charge may say, and what is given back."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom import wire
from strongroom.budget import composition
from strongroom.budget.account import account, require_left, unit_of
from strongroom.budget.charge import Charge, Counts, Event, Used, decimal, events_of, grouped, settled
from strongroom.budget.composition import canonical, spent
from strongroom.budget.document import Budget, CountLimits, Privacy, follows
from strongroom.errors import (
    BadBudget,
    BadCharge,
    BadField,
    BudgetExceeded,
    MissingExtra,
    NotCharged,
    NotComposable,
    StrongroomError,
)
from strongroom.party import VerifyKey
from strongroom.wire import Envelope
from world import NOW, charge

HOME = Path(__file__).parents[1]
VECTORS = sorted((HOME / "vectors" / "budget").glob("*.json"))
DELTA = "0.000001"


def gaussian(noise: str, count: int = 1) -> Event:
    return Event("gaussian", count, noise_multiplier=noise)


def laplace(noise: str, count: int = 1) -> Event:
    return Event("laplace", count, noise_multiplier=noise)


def lost(epsilon: str, delta: str = "0", count: int = 1) -> Event:
    return Event("epsilon-delta", count, epsilon=epsilon, delta=delta)


digits = st.integers(1, 99_999).map(lambda n: canonical(Decimal(n).scaleb(-3)))
events = st.one_of(
    st.builds(gaussian, st.integers(2000, 99_999).map(lambda n: canonical(Decimal(n).scaleb(-3))), st.integers(1, 50)),
    st.builds(laplace, st.integers(5000, 99_999).map(lambda n: canonical(Decimal(n).scaleb(-3))), st.integers(1, 20)),
    st.builds(lost, st.integers(1, 200).map(lambda n: canonical(Decimal(n).scaleb(-3))), st.just("0"), st.integers(1, 5)),
)


# --- what events come to ----------------------------------------------------------------------------------------------


def exact_delta(mu: float, epsilon: float) -> float:
    """Of a Gaussian mechanism (Balle and Wang, Theorem 8), where ``mu`` is one over its noise multiplier."""

    def phi(x: float) -> float:
        return math.erfc(-x / math.sqrt(2)) / 2

    return phi(mu / 2 - epsilon / mu) - math.exp(epsilon) * phi(-mu / 2 - epsilon / mu)


@pytest.mark.parametrize("noise", ["0.5", "1", "2.75", "12.5", "100"])
@pytest.mark.parametrize("count", [1, 7])
def test_gaussians_cost_what_their_closed_form_says_and_not_less(noise: str, count: int) -> None:
    found = float(spent([gaussian(noise, count)], DELTA))
    mu = math.sqrt(count) / float(noise)
    assert exact_delta(mu, found) <= 1e-6  # never less than it costs
    assert exact_delta(mu, 0.99 * found - 0.002) > 1e-6  # and hardly more


def test_gaussians_of_any_noise_are_one_gaussian() -> None:
    several = [gaussian("10"), gaussian("20", 4), gaussian("5")]  # 1/100 + 4/400 + 1/25 = 6/100
    mu = math.sqrt(0.06)
    assert exact_delta(mu, float(spent(several, DELTA))) <= 1e-6
    assert spent(several, DELTA) == spent([gaussian("10", 6)], DELTA)


def test_a_laplace_event_costs_what_its_closed_form_says() -> None:
    # one Laplace of scale b: delta = 1 - exp((epsilon - 1/b) / 2)
    found = float(spent([laplace("2")], "0.01"))
    assert 0.5 + 2 * math.log(1 - 0.01) <= found <= 0.5 + 2 * math.log(1 - 0.01) + 0.003


def test_pure_events_at_delta_0_are_summed_exactly() -> None:
    assert spent([laplace("3", 3)], "0") == 1
    assert spent([laplace("3"), laplace("3"), lost("0.000001")], "0") == Decimal("0.666668")  # rounded up
    assert spent([], "0") == 0
    assert spent([], DELTA) == 0


def test_composition_costs_less_than_the_sum_and_more_than_each() -> None:
    one, many = spent([laplace("100")], DELTA), spent([laplace("100", 1000)], DELTA)
    assert one < many < 2 < 1000 * one


def test_deltas_are_spent_too() -> None:
    assert spent([lost("0.1", "0.0000001", 5)], DELTA) <= Decimal("0.5")
    with pytest.raises(NotComposable):
        spent([lost("0.1", "0.0000001", 11)], DELTA)
    with pytest.raises(NotComposable):
        spent([lost("0.1", "0.0000001", 11), gaussian("100")], DELTA)


def test_at_delta_0_a_gaussian_says_nothing() -> None:
    with pytest.raises(NotComposable):
        spent([gaussian("1000")], "0")


@settings(max_examples=30, deadline=None)
@given(st.lists(events, max_size=6), st.randoms(use_true_random=False))
def test_the_order_and_the_lines_of_events_do_not_matter(found: list[Event], random: Any) -> None:
    split = [replace(e, count=1) for e in found for _ in range(e.count)]
    random.shuffle(split)
    assert spent(found, DELTA) == spent(split, DELTA)


@settings(max_examples=30, deadline=None)
@given(st.lists(events, max_size=5), events)
def test_one_event_more_never_costs_less(found: list[Event], more: Event) -> None:
    assert spent([*found, more], DELTA) >= spent(found, DELTA) - Decimal("0.002")  # the width of one step


def test_numbers_are_rounded_towards_more_spent() -> None:
    third = Fraction(1, 3)
    assert Fraction(composition.down(third)) < third < Fraction(composition.up(third))
    assert composition.down(Fraction(1, 2)) == composition.up(Fraction(1, 2)) == 0.5
    assert composition._digits("0.12345", 2, composition.ROUND_DOWN) == "0.12"
    assert composition._digits("0.12345", 2, composition.ROUND_CEILING) == "0.13"
    assert composition._above(third) == "0.333333333333333334"


# --- hostile values ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "found",
    [
        [gaussian("0.000000000000000001")],
        [gaussian("0.1")],
        [gaussian("1", 10**9)],
        [gaussian("100000"), laplace("0.000000000000000001", 10**9)],
        [lost("999999999999", "0.999999999999999999", 10**9)],
        [gaussian("0.001"), *(laplace(f"{n}.5") for n in range(1, 1000))],
    ],
)
def test_what_no_budget_allows_is_refused_and_not_composed(found: list[Event]) -> None:
    with pytest.raises(NotComposable):
        if spent(found, DELTA) > 50:
            raise NotComposable("more than any budget")


def test_an_event_very_often_is_its_plain_sum() -> None:
    assert spent([laplace("100000000000", 10**9)], DELTA) <= Decimal("0.01")
    assert spent([laplace("100000000000", 10**9), laplace("8")], DELTA) <= Decimal("0.136")


def test_a_long_history_of_different_events_is_rounded_and_never_down() -> None:
    many = [laplace(f"{1000 + n}.{n % 9 + 1}") for n in range(2000)]
    found = spent(many, DELTA)
    assert found >= spent([laplace("3001", 2000)], DELTA)
    assert found <= spent([laplace("1000", 2000)], DELTA)


def test_many_events_of_little_cost_beside_a_gaussian_are_summed_where_that_is_less() -> None:
    assert spent([gaussian("12.5", 20), lost("0.00001", "0", 10**5)], DELTA) < Decimal("2.6")


def test_too_many_kinds_of_events_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(composition, "MAX_DISTINCT", 3)
    many = [laplace(f"{n}000") for n in range(1, 10)]
    assert spent([*many, lost("0.001")], DELTA) >= spent([laplace("9000", 9)], DELTA)  # the plain sum stands in
    with pytest.raises(NotComposable):
        composition._fewer({laplace(f"{n}"): 1 for n in range(1, 10)})


def test_without_the_accountant_nothing_is_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dp_accounting.pld", None)
    composition._spent.cache_clear()
    with pytest.raises(MissingExtra, match="accountant"):
        spent([gaussian("7.25")], DELTA)
    assert spent([laplace("4")], "0") == Decimal("0.25")  # arithmetic needs none


def test_the_accountant_is_not_loaded_to_read_a_proposal() -> None:
    code = (
        "import sys, strongroom.contract, strongroom.broker; print('dp_accounting' in sys.modules, 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False False\n"


# --- charges ----------------------------------------------------------------------------------------------------------


@given(st.lists(events, max_size=8), st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_charge_reads_as_it_was_written(found: list[Event], queries: int, rows: int) -> None:
    one = Charge("data", Counts(1, queries, rows, 7), tuple(found))
    assert Charge.from_json(wire.decode(wire.encode(one.to_json()))) == one


scraps = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**10) | st.sampled_from(["0", "1", "gaussian", "0.5", "1e3", "data"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["count", "counts", "event", "events", "epsilon", "delta", "noise_multiplier", "role", "runs", "x"]),
        inner,
        max_size=5,
    ),
    max_leaves=12,
)  # fmt: skip


@given(scraps)
def test_what_is_no_charge_is_refused_in_one_of_our_errors(value: Any) -> None:
    for parse in (Charge.from_json, Event.from_json, Counts.from_json, Used.from_json, Privacy.from_json):
        try:
            found = parse(value)
        except StrongroomError:
            continue
        assert found.to_json() == value


@given(st.text(max_size=20) | st.decimals(allow_nan=False, allow_infinity=False, places=4).map(str))
def test_a_number_has_one_spelling(text: str) -> None:
    try:
        value = decimal(text, "it")
    except BadCharge:
        return
    assert canonical(Decimal(text)) == text
    assert value == Fraction(text)


@pytest.mark.parametrize("count", [0, -1, True, 10**9 + 1])
def test_an_event_happened_at_least_once_and_not_too_often(count: int) -> None:
    with pytest.raises(BadCharge):
        laplace("1", count)


def test_an_event_holds_nothing_of_another_kind() -> None:
    with pytest.raises(BadCharge):
        Event("laplace", 1, noise_multiplier="1", epsilon="1")
    with pytest.raises(BadCharge):
        Event("epsilon-delta", 1, noise_multiplier="1", epsilon="1", delta="0")


def test_a_charge_covers_the_same_events_as_many_times_and_nothing_else() -> None:
    stated = charge(gaussian("12.5", 3), laplace("8"), queries=4)
    assert stated.short_of([gaussian("12.5"), gaussian("12.5", 2)]) == ""
    assert stated.short_of([gaussian("12.5", 4)]) == "1 more gaussian"
    assert "1 more gaussian" in stated.short_of([gaussian("100")])  # it costs less, and was not agreed to
    assert stated.short_of([]) == ""
    assert charge(laplace("8", 5), queries=4).short_of([laplace("8", 5)]) == "1 more queries"


def test_what_a_program_says_must_be_a_list_of_events() -> None:
    assert events_of([laplace("8").to_json()]) == (laplace("8"),)
    for nonsense in ({"event": "laplace"}, "laplace", b"laplace", [3]):
        with pytest.raises(BadField):
            events_of(nonsense)  # type: ignore[arg-type]


def test_events_are_grouped_whatever_their_lines() -> None:
    assert grouped([laplace("8", 2), laplace("9"), laplace("8")]) == {laplace("8"): 3, laplace("9"): 1}


# --- settling ---------------------------------------------------------------------------------------------------------


@given(st.booleans(), st.integers(0, 2**50), st.integers(0, 2**50))
def test_nothing_ever_rises_by_settling(began: bool, rows: int, bytes_out: int) -> None:
    stated = charge(queries=12, rows=100)
    used = Used(began, rows if began else 0, bytes_out if began else 0)
    after = settled(stated, used)
    assert all(0 <= now <= before for now, before in zip(after.counts.values(), stated.counts.values(), strict=True))
    assert after.counts.runs == 1
    assert after.events == (stated.events if began else ())
    assert settled(after, used) == after


def test_without_the_enclaves_word_nothing_is_given_back() -> None:
    assert settled(charge(), None) == charge()


# --- accounts ---------------------------------------------------------------------------------------------------------

BUDGET = Budget("hospital", 1, NOW, (wire.digest(b"records"),), Privacy("1", "0"), CountLimits(3, None, 10, None))


def test_an_account_says_what_is_used_and_left_and_would_be() -> None:
    epsilon, runs, rows = account(BUDGET, [charge(), charge(rows=4)], charge(laplace("4"), rows=7))
    assert (epsilon.name, epsilon.used, epsilon.left, epsilon.would) == ("epsilon", 1, 0, Decimal("1.25"))
    assert (runs.used, runs.would, runs.fits) == (2, 3, True)
    assert (rows.left, rows.would, rows.fits) == (6, 11, False)
    assert str(rows) == "rows: 4 of 10 used"
    assert not epsilon.fits


def test_what_cannot_be_composed_is_said_to_be_too_much() -> None:
    (epsilon, *_) = account(BUDGET, [charge(gaussian("1"))])
    assert (epsilon.used, epsilon.would, epsilon.left, epsilon.fits) == (None, None, 0, False)
    assert "more than can be said" in str(epsilon)
    with pytest.raises(BudgetExceeded, match="more than any budget allows"):
        require_left(BUDGET, [], charge(gaussian("1")))


def test_the_owner_reads_which_limit_is_passed() -> None:
    with pytest.raises(BudgetExceeded, match=r"rows: 0 of 10 used, and 11 with this run"):
        require_left(BUDGET, [], charge(rows=11))
    assert require_left(BUDGET, [charge()], charge()) == "epsilon 1.000000 of 1; runs 2 of 3; rows 0 of 10"


def test_a_contract_that_says_it_asks_nothing_does_not_pass_a_budget_of_queries() -> None:
    """It is written by hand, by whoever proposes: no honest client says 0, or fewer than there are events."""
    budget = replace(BUDGET, dp=None, counts=CountLimits(queries=1))
    for further in (charge(queries=0), replace(charge(queries=0), events=()), charge(laplace("4", 2), queries=1)):
        for before in ([], [charge()]):
            with pytest.raises(NotCharged):
                require_left(budget, before, further)
    with pytest.raises(BudgetExceeded):
        require_left(budget, [charge()], charge())
    assert require_left(budget, [], charge()) == "queries 1 of 1"


def test_a_program_that_protects_rows_does_not_pass_a_budget_that_protects_people() -> None:
    budget = replace(BUDGET, dp=Privacy("1", "0", "person"))
    assert Budget.parse(budget.encode()) == budget
    for parameters in (
        {},
        {"unit": None},
        {"unit": "person"},
        {"unit": {"column": "visit", "rows": 1}},
        {"unit": {"column": 1}},
    ):
        with pytest.raises(NotCharged, match="protects others"):
            require_left(budget, [], charge(), unit_of(parameters))
    assert require_left(budget, [], charge(), unit_of({"unit": {"column": "person", "rows": 3}}))
    for wrong in ("", "a\nb", "x" * 129):
        with pytest.raises((BadBudget, BadField)):
            Budget.parse(wire.encode({**budget.to_json(), "dp": {"delta": "0", "epsilon": "1", "unit": wrong}}))


def test_a_number_that_only_looks_small_does_not_pass() -> None:
    with pytest.raises(BudgetExceeded):
        require_left(BUDGET, [], charge(laplace("0.999999999999999999")))


# --- vectors ----------------------------------------------------------------------------------------------------------


def _script() -> ModuleType:
    found = spec_from_file_location("make_budget", HOME / "vectors" / "make_budget.py")
    assert found
    assert found.loader
    module = sys.modules[found.name] = module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_the_vectors_are_those_that_their_script_writes() -> None:
    assert {p.stem: json.loads(p.read_bytes()) for p in VECTORS} == json.loads(json.dumps(_script().all_cases()))


def _do(case: dict[str, Any]) -> None:
    match case["operation"]:
        case "budget":
            key = VerifyKey(wire.unb64(case["signing_key"]))
            found = Budget.verify(Envelope.from_json(case["envelope"]), case["owner"], key)
            assert found.encode() == Envelope.from_json(case["envelope"]).payload
        case "follows":
            old, new = (Budget.parse(wire.encode(case[name])) for name in ("old", "new"))
            follows(new, old)
        case "charge":
            assert Charge.from_json(case["charge"]).to_json() == case["charge"]
        case "covers":
            further = None if case["further"] is None else Charge.from_json(case["further"])
            before = [Charge.from_json(c) for c in case["before"]]
            require_left(Budget.parse(wire.encode(case["budget"])), before, further)
        case "settle":
            used = None if case["used"] is None else Used.from_json(case["used"])
            assert settled(Charge.from_json(case["charge"]), used).to_json() == case["stands"]
        case other:
            raise AssertionError(other)


@pytest.mark.parametrize("path", VECTORS, ids=lambda p: p.stem)
def test_vector(path: Path) -> None:
    case = json.loads(path.read_bytes())
    if case["expect"] == "ok":
        _do(case)
        return
    with pytest.raises(StrongroomError) as caught:
        _do(case)
    assert caught.value.code == case["expect"]


def test_every_operation_has_vectors_of_both_outcomes() -> None:
    cases = [json.loads(path.read_bytes()) for path in VECTORS]
    for operation in ("budget", "follows", "charge", "covers", "settle"):
        assert {c["expect"] == "ok" for c in cases if c["operation"] == operation} == {True, False}
