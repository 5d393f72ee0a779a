"""Writes vectors/airlock/: one file per case, the expected outcome in the file.

The world that the cases come from is that of the tests (tests/world.py). Deterministic but for HPKE, whose ciphertexts are
made once and kept in make_airlock.kept.json.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from strongroom import wire  # noqa: E402
from strongroom.airlock import Box, Verdict  # noqa: E402
from strongroom.asset import AssetKey  # noqa: E402
from strongroom.contract import Output  # noqa: E402
from strongroom.delivery import Delivery  # noqa: E402
from strongroom.party import EncryptionKey  # noqa: E402
from strongroom.policy import Airlock, Policy  # noqa: E402
from world import NOW, RULE, RUN, Entropy, World, card, keys_of, seed  # noqa: E402

FOLDER, KEPT = HERE / "airlock", HERE / "make_airlock.kept.json"
KNOWN: dict[str, str] = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
USED: dict[str, str] = {}


@dataclass(frozen=True)
class Kept:
    """A key whose ciphertexts were made once."""

    key: EncryptionKey

    def encrypt(self, plaintext: bytes, *, info: bytes) -> bytes:
        name = hashlib.sha256(self.key.raw + plaintext + info).hexdigest()
        USED[name] = USED.get(name) or KNOWN.get(name) or wire.b64(self.key.encrypt(plaintext, info=info))
        return wire.unb64(USED[name])


def kept(*names: str) -> Any:
    return {name: Kept(card(name).encryption_key) for name in names}


WORLD = World()
LOCKED = replace(RULE, recipients=frozenset({"lab"}), release=Airlock(frozenset({"hospital", "lab"}), reasons=True))
QUIET = replace(LOCKED, release=Airlock(frozenset({"hospital", "lab"})))
OUTPUTS = (Output("other", "report", QUIET), Output("report", "report", LOCKED))
PROPOSAL = WORLD.proposal(
    outputs=OUTPUTS,
    policy=Policy(frozenset({"evaluate"}), {"report": LOCKED}),
)
_, _, SEALED, KEY = WORLD.assets["data"]
MANIFEST = WORLD.assets["data"][0]


def box(output: str = "report", run_id: str = RUN, key: AssetKey = KEY, name: str = "box") -> Box:
    found = {"contract": PROPOSAL.digest, "run_id": run_id, "output": output, "sealed": wire.digest(SEALED)}
    delivery = Delivery.make(**found, manifest=MANIFEST, key=key, recipients=kept("lab"))
    return Box.make(delivery, key=key, reviewers=kept("hospital", "lab"), entropy=Entropy(name))


def share(found: Box, name: str) -> bytes:
    return found.read(name, keys_of(name).decryption).share


def value(found: Box, **changes: Any) -> dict[str, Any]:
    return {**json.loads(found.encode()), **changes}


def read_cases() -> dict[str, dict[str, Any]]:
    good = box()
    cases: dict[str, dict[str, Any]] = {}

    def add(name: str, what: str, expect: str, found: Any, *, who: str = "hospital", opens: str = "hospital") -> None:
        cases[f"read-{name}"] = {
            "box": found,
            "description": what,
            "expect": expect,
            "key": KEY.raw.hex(),
            "operation": "read",
            "reviewer": who,
            "seed": keys_of(opens).decryption.seed.hex(),
            "share": share(good, who).hex() if who in good.shares else None,
        }

    add("ok", "a reviewer reads its copy", "ok", value(good))
    add("another-key", "with another party's private key", "party.bad_key", value(good), opens="lab")
    add("nobody", "by somebody who does not review it", "contract.not_a_party", value(good), who="press", opens="press")
    copies = value(good)["copies"]
    swapped = {"hospital": copies["lab"], "lab": copies["hospital"]}
    add("copies-swapped", "the reviewers' copies are swapped", "party.bad_key", value(good, copies=swapped))
    add("other-run", "moved to another run", "party.bad_key", value(good, run_id=seed("another", 16).hex()))
    add("other-output", "moved to another output", "party.bad_key", value(good, output="other"))
    add("other-sealed", "with another sealed file", "party.bad_key", value(good, sealed=wire.digest(b"another")))
    shares = {**value(good)["shares"], "hospital": wire.digest(b"another")}
    add("other-share", "it names another share than it holds", "receipt.bad_receipt", value(good, shares=shares))
    add("no-reviewer", "for nobody to review", "receipt.bad_receipt", value(good, copies={}, shares={}))
    add("copy-without-share", "a copy without a share", "receipt.bad_receipt", value(good, shares={"lab": shares["lab"]}))
    add("unknown-member", "a member of another version", "wire.bad_field", value(good, more=1))
    add("other-purpose", "for another purpose", "wire.bad_field", value(good, purpose="strongroom.delivery.v1"))
    return cases


def open_cases() -> dict[str, dict[str, Any]]:
    good = box()
    both = {name: share(good, name).hex() for name in ("hospital", "lab")}
    delivery = good.open({name: bytes.fromhex(s) for name, s in both.items()})
    another = box(key=AssetKey(seed("another key")), name="another box")
    cases: dict[str, dict[str, Any]] = {}

    def add(name: str, what: str, expect: str, found: Any, shares: dict[str, str]) -> None:
        cases[f"open-{name}"] = {
            "box": found,
            "delivery": wire.digest(delivery.encode()),
            "description": what,
            "expect": expect,
            "operation": "open",
            "shares": shares,
        }

    add("ok", "with every reviewer's share", "ok", value(good), both)
    add("too-early", "before one reviewer passed it", "output.held", value(good), {"lab": both["lab"]})
    add("nobody-passed", "before anybody passed it", "output.held", value(good), {})
    add("wrong-share", "with a share that is not the box's", "receipt.bad_receipt", value(good), {**both, "lab": "00" * 32})
    swapped = value(good, locked=wire.b64(another.locked))
    add("swapped", "a reviewer put something else into it", "receipt.bad_receipt", swapped, both)
    moved = box(run_id=seed("another", 16).hex(), name="box")
    inside = value(good, locked=wire.b64(moved.locked))
    add("other-run-inside", "what lies in it is of another run", "receipt.bad_receipt", inside, both)
    return cases


def verdict_cases() -> dict[str, dict[str, Any]]:
    good, other = box(), box(output="other", name="other box")
    passed = Verdict(PROPOSAL.digest, RUN, "report", good.digest, "hospital", NOW, share(good, "hospital"))
    refused = replace(passed, share=None, reason="a village of four")
    quiet = replace(passed, output="other", box=other.digest, share=None)
    cases: dict[str, dict[str, Any]] = {}

    def add(name: str, what: str, expect: str, said: Verdict, *, by: str = "hospital", on: Box = good) -> None:
        cases[f"verdict-{name}"] = {
            "box": value(on),
            "description": what,
            "expect": expect,
            "operation": "verdict",
            "passed": said.passed,
            "proposal": PROPOSAL.to_json(),
            "verdict": said.sign(keys_of(by).signing).to_json(),
        }

    add("passed", "a reviewer passes it", "ok", passed)
    add("refused", "a reviewer refuses it and says why", "ok", refused)
    add("refused-silently", "a reviewer refuses it, and nobody is to know why", "ok", quiet, on=other)
    add("reason-told", "why, where nobody is to know", "wire.bad_field", replace(quiet, reason="because"), on=other)
    add("reason-with-a-pass", "a pass has no reason", "wire.bad_field", replace(passed, reason="fine"))
    add("by-another", "signed by another reviewer", "wire.bad_signature", passed, by="lab")
    add("by-nobody", "by somebody who does not review it", "contract.not_a_party", replace(passed, reviewer="press"))
    add("other-box", "a pass of another box of this run", "wire.bad_field", replace(passed, box=wire.digest(b"another")))
    add("replayed", "a pass of another run", "wire.bad_field", replace(passed, run_id=seed("another", 16).hex()))
    add("other-output", "a pass of another output", "wire.bad_field", quiet)
    add("other-share", "a pass without the share", "wire.bad_field", replace(passed, share=bytes(32)))
    return cases


def cases() -> dict[str, dict[str, Any]]:
    return {**read_cases(), **open_cases(), **verdict_cases()}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for stale in FOLDER.glob("*.json"):
        stale.unlink()
    for name, case in cases().items():
        (FOLDER / f"{name}.json").write_text(json.dumps(case, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    KEPT.write_text(json.dumps(USED, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
