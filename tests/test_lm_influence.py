"""Weights of sources: whole numbers, held to their budgets, and a source that is left out makes no other smaller."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from strongroom.lm.influence import GRAIN, MOST, Allowance, Budget

names = st.sampled_from(["a", "b", "c", "d", "e"])
wanted = st.dictionaries(names, st.integers(0, GRAIN), max_size=5)
budgets = st.dictionaries(names, st.builds(Budget, st.integers(1, GRAIN), st.none() | st.integers(1, 3 * GRAIN)))


@given(st.lists(wanted, max_size=8), budgets)
def test_no_budget_is_ever_passed(tokens: list[dict[str, int]], limits: dict[str, Budget]) -> None:
    allowance = Allowance(limits)
    sums = dict.fromkeys("abcde", 0)
    for token in tokens:
        found = allowance.weigh(token)
        assert sum(found.values()) <= MOST
        for name, grains in found.items():
            assert 0 < grains <= min(token[name], limits.get(name, Budget()).token)
            sums[name] += grains
    assert {name: grains for name, grains in sums.items() if grains} == allowance.used
    for name, limit in limits.items():
        assert limit.total is None or sums[name] <= limit.total


@given(wanted, budgets, names)
def test_leaving_out_a_source_moves_a_token_by_no_more_than_its_weight(
    token: dict[str, int], limits: dict[str, Budget], name: str
) -> None:
    """Theorem 2 of docs/influence.md, on the weights of a mixture whose parts have nothing in common."""
    whole = Allowance(limits).weigh(token)
    left = Allowance(limits).weigh({other: grains for other, grains in token.items() if other != name})
    assert all(left[other] >= grains for other, grains in whole.items() if other != name)
    own, after = GRAIN - sum(whole.values()), GRAIN - sum(left.values())
    parts = [after - own, *(left.get(n, 0) - whole.get(n, 0) for n in "abcde")]
    moved = sum(abs(part) for part in parts) / 2
    spare = max(0, len(token) - 1) if sum(whole.values()) > MOST - len(token) else 0
    assert moved <= whole.get(name, 0) + spare


@given(wanted)
def test_where_there_is_room_a_source_gets_what_it_wants_and_its_mass_goes_back(token: dict[str, int]) -> None:
    small = {name: grains // 8 for name, grains in token.items()}
    whole = Allowance().weigh(small)
    assert whole == {name: small[name] for name in sorted(small) if small[name]}
    for name in whole:
        left = Allowance().weigh({other: grains for other, grains in small.items() if other != name})
        assert left == {other: grains for other, grains in whole.items() if other != name}
