"""Writes vectors/drawing/: what owners let be drawn, what was agreed, what was used and what it costs; one file per case.

Deterministic; run it from anywhere. Keys are those of the tests (tests/world.py).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from strongroom import wire  # noqa: E402 - the world is found first
from strongroom.drawing import GRAIN, REVISION_TYPE, Agreed, Drawing, Price, Revision  # noqa: E402
from strongroom.inference.events import SourceUsed  # noqa: E402
from world import NOW, keys_of  # noqa: E402

Cases = dict[str, dict[str, Any]]

MODEL, OTHER = sorted((wire.digest(b"a model"), wire.digest(b"another model")))
SOURCE = wire.digest(b"the manifest of a sealed source")
PRICE = Price(25_000_000, "EUR-nano")
TERMS = Drawing(frozenset({MODEL}), PRICE, GRAIN, 64 * GRAIN)
AGREED = Agreed("law", "law", MODEL, PRICE, GRAIN, 64 * GRAIN)
REVISION = Revision(SOURCE, 7, NOW, TERMS)
OWNER, LAB = keys_of("hospital").signing, keys_of("lab").signing


def changed(value: Any, **members: Any) -> Any:
    """A JSON object with members changed; ``...`` takes one away."""
    return {name: member for name, member in {**value, **members}.items() if member is not ...}


def terms() -> Cases:
    cases: Cases = {}

    def add(name: str, description: str, expect: str, value: Any) -> None:
        cases[f"terms-{name}"] = {"description": description, "expect": expect, "operation": "terms", "value": value}

    good, field, bad = TERMS.to_json(), "wire.bad_field", "policy.bad_drawing"
    add("ok", "one model, at a price, up to 64 tokens of an answer", "ok", good)
    add("ok-two", "two models", "ok", changed(good, models=[MODEL, OTHER]))
    add("ok-free", "for nothing", "ok", changed(good, price=0))
    add("no-models", "nobody may: that is no terms", field, changed(good, models=[]))
    add("model-twice", "a model twice", field, changed(good, models=[MODEL, MODEL]))
    add("unsorted", "models in another order", field, changed(good, models=[OTHER, MODEL]))
    add("no-digest", "a model that is no digest", field, changed(good, models=["lab/retrieval"]))
    add("price-negative", "a price below nothing", field, changed(good, price=-1))
    add("price-fraction", "half a unit", field, changed(good, price="0.5"))
    add("unit-spaces", "a unit with a space", bad, changed(good, unit="EUR nano"))
    add("unit-none", "no unit", field, changed(good, unit=...))
    add("token-none", "nothing of a token", field, changed(good, token=0))
    add("token-over", "more than a token", field, changed(good, token=GRAIN + 1))
    add("total-none", "nothing of an answer", field, changed(good, total=0))
    add("unknown", "a member that nobody knows", field, changed(good, until=NOW))
    return cases


def agreements() -> Cases:
    cases: Cases = {}

    def add(name: str, description: str, expect: str, value: Any, of: Drawing | None = TERMS) -> None:
        cases[f"agreed-{name}"] = {
            "description": description,
            "expect": expect,
            "operation": "agreed",
            "parameters": {"sources": value},
            "role": "law",
            "terms": None if of is None else of.to_json(),
        }

    good, no = AGREED.to_json(), "policy.not_permitted"
    add("ok", "exactly the terms", "ok", [good])
    add("ok-less", "less of a token, and more paid", "ok", [changed(good, price=30_000_000, token=1)])
    add("another-model", "drawn from by another model", no, [changed(good, weights=OTHER)])
    add("paid-less", "less is paid", no, [changed(good, price=24_999_999)])
    add("another-unit", "paid in another unit", no, [changed(good, unit="credit")])
    add("more-of-an-answer", "more of an answer", no, [changed(good, total=64 * GRAIN + 1)])
    add("not-named", "the contract does not say how it is drawn from", no, [])
    add("no-terms", "its owner lets nobody draw from it", no, [good], None)
    add("role-twice", "a role twice, of which a reader might see either", no, [good, changed(good, name="other")])
    add("unread", "a price that is no number", no, [changed(good, price="25000000")])
    return cases


def revisions() -> Cases:
    cases: Cases = {}

    def add(name: str, description: str, expect: str, value: Any, *, signer: Any = OWNER, kind: str = REVISION_TYPE) -> None:
        cases[f"revision-{name}"] = {
            "description": description,
            "envelope": signer.sign(kind, wire.encode(value)).to_json(),
            "expect": expect,
            "operation": "revision",
            "signing_key": wire.b64(OWNER.public.raw),
        }

    good = wire.decode(REVISION.encode())
    assert isinstance(good, dict)
    add("ok", "other terms", "ok", good)
    add("ok-out", "nobody may draw from it", "ok", changed(good, drawing=None))
    add("by-another", "signed by another party", "wire.bad_signature", good, signer=LAB)
    add("another-type", "under another type", "wire.bad_envelope", good, kind=wire.media_type("grant"))
    add("number-none", "the number of the manifest's own terms", "wire.bad_field", changed(good, number=0))
    add("silent", "it does not say what holds", "wire.bad_field", changed(good, drawing=...))
    add("no-asset", "of no asset", "wire.bad_field", changed(good, asset="law"))
    add("half-terms", "terms without a price", "wire.bad_field", changed(good, drawing=changed(good["drawing"], price=...)))
    return cases


def uses() -> Cases:
    cases: Cases = {}

    def add(name: str, description: str, expect: str, value: Any, price: Price = PRICE) -> None:
        cases[f"used-{name}"] = {
            "description": description,
            "expect": expect,
            "operation": "used",
            "price": price.amount,
            "unit": price.unit,
            "value": value,
        }

    def of(*gates: int, price: Price = PRICE) -> Any:
        return SourceUsed.of(SOURCE, gates, price).to_json()

    good, bad = of(0, GRAIN // 2, 1032192), "inference.bad_receipt"
    high = Price(10**12, "EUR-nano")
    add("ok", "three tokens, of which two drew", "ok", good)
    add("ok-one-grain", "one grain, which costs less than a unit", "ok", of(1))
    add(
        "ok-just-below",
        "one grain below a whole unit",
        "ok",
        of(*[GRAIN] * 39, GRAIN - 1, price=Price(25, "u")),
        Price(25, "u"),
    )
    add("ok-just-there", "a whole unit, to the grain", "ok", of(*[GRAIN] * 40, price=Price(25, "u")), Price(25, "u"))
    add("ok-high", "the highest price", "ok", of(GRAIN, price=high), high)
    add("weight-off", "a weight that is not the sum", bad, changed(good, weight=good["weight"] + 1))
    add("tokens-off", "another number of tokens", bad, changed(good, tokens=2))
    add("amount-off", "a unit too much", "inference.bad_usage", changed(good, amount=good["amount"] + 1))
    add("amount-up", "rounded up", "inference.bad_usage", changed(of(1), amount=1))
    add("another-unit", "in another unit", "inference.bad_usage", changed(good, unit="credit"))
    add("nothing", "nothing was drawn", bad, changed(of(1), gates=[0], weight=0))
    add("no-gates", "no token", bad, changed(good, gates=[], weight=0, tokens=0))
    add("gate-over", "more than a token", bad, changed(good, gates=[GRAIN + 1], weight=GRAIN + 1, tokens=1))
    add("gate-negative", "less than nothing", bad, changed(good, gates=[-1, 2], weight=1, tokens=2))
    add("unknown", "a member that nobody knows", bad, changed(good, prompt="who is mayor?"))
    return cases


def cases() -> Cases:
    return {**terms(), **agreements(), **revisions(), **uses()}


def main() -> None:
    folder = HERE / "drawing"
    folder.mkdir(exist_ok=True)
    found = cases()
    for old in folder.glob("*.json"):
        if old.stem not in found:
            old.unlink()
    for name, case in found.items():
        text = json.dumps(case, ensure_ascii=False, indent=1, sort_keys=True)
        (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
