"""Writes vectors/overview/: one file per case, the expected outcome in the file. Deterministic."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from strongroom import wire  # noqa: E402
from strongroom.holding import Taken, Withdrawn  # noqa: E402
from strongroom.mark import Place  # noqa: E402
from strongroom.overview import OVERVIEW_TYPE, ContractKnown, Inquiry, Overview, Refused, ShareHeld  # noqa: E402
from world import NOW, broker_key, keys_of, seed  # noqa: E402

FOLDER = HERE / "overview"
OWNER, ADA = keys_of("hospital").signing, broker_key("ada")
ASKED = Inquiry("hospital", ADA.public.keyid, seed("asked"), NOW)
MANIFEST, CONTRACT = wire.digest(b"a manifest"), wire.digest(b"a contract")
GOOD = Overview(
    owner="hospital",
    nonce=ASKED.nonce,
    at=NOW,
    software="0.1.0",
    place=Place(3, wire.digest(b"a head")),
    restored=0,
    shares=(ShareHeld(MANIFEST, wire.digest(b"an enrolment"), 1, 1, False),),
    contracts=(ContractKnown(CONTRACT, True, False, 2),),
    withdrawn=(Withdrawn(wire.digest(b"another contract"), "lab"),),
    taken=((MANIFEST, Taken(CONTRACT, 1, wire.digest(b"a keyset"))), (MANIFEST, Taken(CONTRACT, 2, None))),
    refused=(Refused(CONTRACT, "broker.slot_taken", 2, NOW - 60),),
)


def inquiry_cases() -> dict[str, dict[str, Any]]:
    def case(what: str, expect: str, asked: Inquiry, *, signer: Any = OWNER, at: int = NOW) -> dict[str, Any]:
        envelope = asked.sign(signer).to_json()
        return {"at": at, "description": what, "expect": expect, "inquiry": envelope, "operation": "inquiry"}

    other = Inquiry("hospital", broker_key("ben").public.keyid, ASKED.nonce, NOW)
    return {
        "inquiry-another-broker": case("of another broker", "wire.bad_field", other),
        "inquiry-another-signer": case("another party asks", "wire.bad_signature", ASKED, signer=keys_of("lab").signing),
        "inquiry-ok": case("an owner asks", "ok", ASKED),
        "inquiry-old": case("asked long ago", "wire.bad_field", ASKED, at=NOW + 301),
    }


def overview_cases() -> dict[str, dict[str, Any]]:
    good = wire.decode(GOOD.encode())
    assert isinstance(good, dict)

    def case(what: str, expect: str, *, signer: Any = ADA, **changes: Any) -> dict[str, Any]:
        overview = signer.sign(OVERVIEW_TYPE, wire.encode({**good, **changes})).to_json()
        return {
            "description": what,
            "expect": expect,
            "inquiry": ASKED.sign(OWNER).to_json(),
            "operation": "overview",
            "overview": overview,
        }

    field = "wire.bad_field"
    return {
        "overview-another-broker": case("another broker signs", "wire.bad_signature", signer=broker_key("ben")),
        "overview-another-owner": case("for another owner", field, owner="lab"),
        "overview-another-question": case("the answer to another question", field, nonce=seed("other").hex()),
        "overview-ok": case("a broker tells an owner", "ok"),
        "overview-ok-restored": case("its book was put back", "ok", restored=NOW - 3600),
        "overview-unknown-member": case("a member of another version", field, more=1),
    }


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    cases = inquiry_cases() | overview_cases()
    for path in FOLDER.glob("*.json"):
        if path.stem not in cases:
            path.unlink()
    for name, case in cases.items():
        (FOLDER / f"{name}.json").write_text(json.dumps(case, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
