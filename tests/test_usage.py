"""Usage: what is counted from receipts, once each, and what it costs, to the hundredth."""

from __future__ import annotations

import json
import random
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_case import APPRAISED, M
from strongroom import usage, wire
from strongroom.errors import BadField, BadUsage, ReceiptDoubled, StrongroomError
from strongroom.inference.events import Usage
from strongroom.inference.expected import Expected
from strongroom.inference.receipt import InferenceReceipt
from strongroom.inference.verification import Reader, VerifiedReceipt, examine
from strongroom.ledger import Entry
from strongroom.usage import Line, Price, Totals, missing, price, total

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "vectors" / "usage"
PAGE = (ROOT / "spec" / "usage.md").read_text(encoding="utf-8")
CASES = sorted(FOLDER.glob("*.json"))
AGREED = {M.CONTRACT: M.AGREED}
AGREED[M.OTHER_CONTRACT] = M.replace(
    M.AGREED, contract=M.OTHER_CONTRACT, model=M.TINY.name, weights=M.TINY.weights, asset=M.TINY.asset
)


def verify(receipt: InferenceReceipt) -> VerifiedReceipt:
    """As the owner of the model, whose log holds it."""
    weights = receipt.one(M.ModelWeights)
    contract = weights.contract if weights else M.CONTRACT
    found = examine(
        receipt.encode(),
        appraisal=APPRAISED,
        expected=Expected(agreed=AGREED[contract]),
        at=M.AT + 62,
        proof=M.prove(receipt, contract=contract),
        logs=[M.LOG.verifier],
    )
    return found.require(Reader.OWNER)


def prices(found: list[list[Any]]) -> dict[tuple[str, str], Price]:
    return {(contract, model): Price(**known) for contract, model, known in found}


# --- vectors --------------------------------------------------------------------------------------------------------


def test_there_are_vectors_and_they_are_those_that_their_script_writes() -> None:
    assert len(CASES) >= 9
    assert {path.name: path.read_text(encoding="utf-8") for path in CASES} == M.written()["usage"]


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_vector(path: Path) -> None:
    case = json.loads(path.read_bytes())
    receipts = [verify(InferenceReceipt.parse(text.encode())) for text in case["receipts"]]
    found = "ok"
    try:
        totals = total(receipts)
        assert totals == Totals.parse(wire.encode(case["totals"]))
        assert [priced.amount for priced in price(totals, prices(case["prices"]))] == case["amounts"]
    except StrongroomError as error:
        found = error.code
    assert found == case["expect"], case["description"]


# --- counting -------------------------------------------------------------------------------------------------------

counts = st.integers(0, 10**6)
used = st.lists(st.builds(Usage, counts, counts), min_size=1, max_size=8)
MANY = [verify(M.served(n, Usage(prompt=n, completion=2 * n), M.TINY if n % 3 == 0 else M.WEIGHTS)) for n in range(12)]


@given(st.lists(st.sampled_from(MANY), max_size=40))
def test_each_receipt_is_counted_once_in_whatever_order_and_however_often(found: list[VerifiedReceipt]) -> None:
    distinct = {verified.receipt.receipt_id: verified for verified in found}
    totals = total(found)
    assert totals == total(distinct.values())
    assert totals == total(sorted(found, key=lambda verified: verified.receipt.digest))
    assert sum(line.requests for line in totals.lines) == len(distinct)
    prompts = sum(v.receipt.one(M.UsageMetered).usage.prompt for v in distinct.values())
    assert sum(line.usage.prompt for line in totals.lines) == prompts


def test_totals_of_parts_are_the_parts_of_the_total() -> None:
    whole = {line.key: line.usage for line in total(MANY).lines}
    half, rest = total(MANY[:5]), total(MANY[5:])
    for key, known in whole.items():
        parts = [line.usage for part in (half, rest) for line in part.lines if line.key == key]
        assert sum(parts, Usage()) == known


def test_two_receipts_under_one_id_are_nobodys_bill() -> None:
    with pytest.raises(ReceiptDoubled):
        total([MANY[1], verify(M.served(1, Usage(prompt=1)))])


def test_a_clients_receipts_count_as_an_owners_do() -> None:
    as_client = examine(M.sign().encode(), appraisal=APPRAISED, expected=M.KNOWN, at=M.AT + 62).require(Reader.CLIENT)
    assert total([as_client]).lines == (Line(M.CONTRACT, M.WEIGHTS.name, 1, M.USAGE),)
    assert total([as_client, verify(M.sign())]) == total([as_client])


def test_what_was_logged_and_not_handed_over_is_found() -> None:
    entries = [
        Entry("receipt", line.contract, verified.receipt.digest) for verified in MANY for line in total([verified]).lines
    ]
    here = [v for v, entry in zip(MANY, entries, strict=True) if entry.contract == M.CONTRACT]
    unrelated = Entry("release", M.CONTRACT, M.of("a release"))
    assert missing([*entries, unrelated], here, contract=M.CONTRACT) == ()
    assert missing(entries, here[1:], contract=M.CONTRACT) == (here[0].receipt.digest,)
    assert len(missing(entries, [], contract=M.OTHER_CONTRACT)) == len(MANY) - len(here)


# --- the document ---------------------------------------------------------------------------------------------------


def test_totals_are_read_as_they_were_written() -> None:
    totals = total(MANY)
    assert len(totals.lines) == 2
    assert Totals.parse(totals.encode()) == totals
    assert Totals.parse(totals.encode()).encode() == totals.encode()


@given(st.data())
def test_mutated_totals_are_refused_or_are_others(data: st.DataObject) -> None:
    encoded = bytearray(total(MANY).encode())
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] = data.draw(st.integers(0, 255))
    try:
        found = Totals.parse(bytes(encoded))
    except StrongroomError:
        return
    assert found.encode() == bytes(encoded)


def test_lines_are_sorted_and_distinct_and_say_something() -> None:
    one, two = total(MANY).lines
    for lines in ((two, one), (one, one)):
        with pytest.raises(BadUsage):
            Totals(lines)
    for changes in ({"requests": 0}, {"model": ""}, {"contract": "none"}):
        with pytest.raises(BadField):
            M.replace(one, **changes)
    many = tuple(Line(M.of("a"), f"m{n:04}", 1, Usage()) for n in range(usage.MAX_LINES + 1))
    with pytest.raises(BadUsage):
        Totals(many)


def test_more_tokens_than_a_document_holds_are_refused() -> None:
    with pytest.raises(BadField):
        Usage(prompt=wire.MAX_INT) + Usage(prompt=1)


# --- money ----------------------------------------------------------------------------------------------------------


@given(used, st.integers(0, 10**9), st.integers(0, 10**9))
def test_a_line_costs_what_it_comes_to_exactly_rounded_down_once(found: list[Usage], prompt: int, completion: int) -> None:
    known = Price(prompt, completion, 0, "EUR")
    whole = sum(found, Usage())
    exact = Fraction(sum(one.prompt * prompt + one.completion * completion for one in found), usage.PRICED_TOKENS)
    assert known.of(whole) <= exact < known.of(whole) + 1
    shuffled = random.Random(1).sample(found, len(found))
    assert known.of(sum(shuffled, Usage())) == known.of(whole)
    assert sum(map(known.of, found)) <= known.of(whole)  # requests are not rounded one by one


def test_every_kind_of_token_has_its_price() -> None:
    known = Price(1_000_000, 2_000_000, 3_000_000, "JPY")
    assert [known.of(one) for one in (Usage(1), Usage(0, 1), Usage(0, 0, 1))] == [1, 2, 3]
    assert known.of(Usage(10**9, 10**9, 10**9)) == 6 * 10**9


def test_nothing_is_free_by_being_left_out() -> None:
    with pytest.raises(BadUsage, match="no price"):
        price(total(MANY), {})


@pytest.mark.parametrize("currency", ["", "eur", "EURO", "E U"])
def test_a_currency_is_three_letters(currency: str) -> None:
    with pytest.raises(BadUsage):
        Price(1, 1, 1, currency)


def test_a_price_is_whole_and_not_negative() -> None:
    for wrong in (-1, 1.5, True, 2**53):
        with pytest.raises(BadField):
            Price(wrong, 0, 0, "EUR")  # type: ignore[arg-type]


# --- the page -------------------------------------------------------------------------------------------------------


def test_the_page_says_what_is_written() -> None:
    case = json.loads((FOLDER / "ok-two-models.json").read_bytes())
    assert json.dumps(case["totals"], indent=2) in PAGE
    for code in (BadUsage.code, ReceiptDoubled.code, BadField.code):
        assert f"`{code}`" in PAGE
    assert f"`{usage.FORMAT}`" in PAGE
    assert "vectors/usage/" in PAGE
