"""Writes vectors/mark/: one file per case, the expected outcome in the file. Deterministic."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from strongroom import wire  # noqa: E402
from strongroom.mark import MARK_TYPE, Mark, Place, onward  # noqa: E402
from world import NOW, broker_key  # noqa: E402

FOLDER = HERE / "mark"
KEY, OTHER = broker_key("ada"), broker_key("ben")
FRESH = Place(0, wire.digest(b"a new book"))


def places(*changes: bytes) -> list[Place]:
    """The places of a book, from a new one."""
    found = [FRESH]
    for change in changes:
        found.append(onward(found[-1], change))
    return found


def mark(place: Place, after: str = "", key: Any = KEY) -> Any:
    return Mark(key.public, place.number, place.head, after, NOW).sign(key).to_json()


def mark_cases() -> dict[str, dict[str, Any]]:
    one = places(b"one")[-1]
    good = wire.decode(Mark(KEY.public, one.number, one.head, "", NOW).encode())
    assert isinstance(good, dict)

    def case(what: str, expect: str, found: Any) -> dict[str, Any]:
        return {"description": what, "expect": expect, "mark": found, "operation": "mark"}

    def changed(key: Any = KEY, **changes: Any) -> Any:
        return key.sign(MARK_TYPE, wire.encode({**good, **changes})).to_json()

    field = "wire.bad_field"
    return {
        "mark-ok": case("the first mark of a book", "ok", mark(one)),
        "mark-ok-after": case("one that follows another", "ok", mark(places(b"one", b"two")[-1], one.head)),
        "mark-another-signer": case("another broker signs (M1)", "wire.bad_signature", changed(OTHER)),
        "mark-number-0": case("of a book in which nothing was changed", field, changed(number=0)),
        "mark-other-purpose": case("for another purpose", field, changed(purpose="strongroom.word.v1")),
        "mark-unknown-member": case("a member of another version", field, changed(more=1)),
    }


def follows_cases() -> dict[str, dict[str, Any]]:
    book, other = places(b"one", b"two", b"three"), places(b"one", b"another", b"three")

    def case(what: str, follows: bool, old: Any, new: Any) -> dict[str, Any]:
        return {
            "description": what,
            "expect": "ok",
            "follows": follows,
            "new": new,
            "old": old,
            "operation": "follows",
        }

    one, two = mark(book[1]), mark(book[2], book[1].head)
    return {
        "follows-ok": case("the next (M2)", True, one, two),
        "follows-again": case("the same again (M2)", True, two, two),
        "follows-many": case("one mark for two changes (M2)", True, one, mark(book[3], book[1].head)),
        "follows-back": case("an older one (M2)", False, two, one),
        "follows-fork": case("another change of the same number (M2)", False, two, mark(other[2], book[1].head)),
        "follows-unseen": case(
            "a later one that knows nothing of the one that is there (M2)", False, two, mark(other[3], book[1].head)
        ),
    }


def known_cases() -> dict[str, dict[str, Any]]:
    book, other = places(b"one", b"two", b"three"), places(b"one", b"another")

    def case(what: str, expect: str, found: Any, heads: list[Place]) -> dict[str, Any]:
        said = [place.head for place in heads]
        return {"description": what, "expect": expect, "heads": said, "mark": found, "operation": "known"}

    restored = "broker.restored"
    two = mark(book[2])
    return {
        "known-ok": case("the book has come as far (M3)", "ok", two, book[:3]),
        "known-ok-further": case("the book has come further than was witnessed (M3)", "ok", two, book),
        "known-backup": case("the book is from before the mark (M3)", restored, two, book[:2]),
        "known-new": case("the book is new, and its broker is not (M3)", restored, two, places()),
        "known-fork": case("the book has another change of that number (M3)", restored, two, other),
    }


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    cases = mark_cases() | follows_cases() | known_cases()
    for path in FOLDER.glob("*.json"):
        if path.stem not in cases:
            path.unlink()
    for name, case in cases.items():
        (FOLDER / f"{name}.json").write_text(json.dumps(case, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
