"""Writes vectors/receipt: one file per case, the expected outcome in the file.

    python vectors/make_receipt.py

The world that the cases come from is that of the tests (tests/world.py), with its fixed keys, times and "random" bytes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from strongroom import wire  # noqa: E402 - the world is found first
from strongroom.asset import sign_manifest  # noqa: E402
from strongroom.attest.keyset import SourceProvenance  # noqa: E402
from strongroom.checkpoint import LogKey  # noqa: E402
from strongroom.contract import RUN_TYPE, EnclaveTerms  # noqa: E402
from strongroom.ledger import MemoryNodes, Tree  # noqa: E402
from strongroom.party import SigningKey  # noqa: E402
from strongroom.policy import Policy  # noqa: E402
from strongroom.receipt import STATEMENT_TYPE, Bundle, Failure  # noqa: E402
from strongroom.release import run_subject  # noqa: E402
from strongroom.trust import Root, Trust  # noqa: E402
from world import (  # noqa: E402
    DAY,
    EDITED,
    HOUR,
    MEASUREMENT,
    NOW,
    TERMS,
    Asker,
    Clock,
    Forger,
    SimulatedPlatform,
    World,
    broker_key,
    card,
    keys_of,
    seed,
    sign_all,
)

OTHER_RUN = seed("another run", 16).hex()
OTHER = wire.digest(b"another")

Case = dict[str, Any]
Cases = dict[str, Case]

WORLD = World()
PROPOSAL = WORLD.proposal()
CONTRACT = sign_all(PROPOSAL)
LAB, HOSPITAL, STRANGER = (keys_of(name) for name in ("lab", "hospital", "stranger"))


# --- receipts ---------------------------------------------------------------------------------------------------------


def _receipt(
    description: str,
    expect: str,
    number: str,
    change: Callable[[Forger], None] | None = None,
    *,
    after: Callable[[Bundle], Bundle] | None = None,
    trust: Trust | None = None,
    world: World | None = None,
    **changes: Any,
) -> Case:
    """A bundle and a trust file; ``change`` twists a piece before it is signed, ``after`` the bundle itself."""
    world = world or World()
    forger = Forger.at_work(world, world.agree(**changes))
    if change:
        change(forger)
    bundle = forger.bundle()
    return {
        "bundle": (after(bundle) if after else bundle).to_json(),
        "description": description,
        "expect": expect,
        "number": number,
        "trust": (World.trust() if trust is None else trust).to_json(),
    }


def _say(**changes: Any) -> Callable[[Forger], None]:
    def change(forger: Forger) -> None:
        forger.statement = replace(forger.statement, **changes)

    return change


def _release(role: str = "data", **changes: Any) -> Callable[[Forger], None]:
    def change(forger: Forger) -> None:
        forger.releases[role] = replace(forger.releases[role], **changes)

    return change


def _of_data(make: Callable[[Forger, bytes], Any]) -> Callable[[Forger], None]:
    def change(forger: Forger) -> None:
        forger.reports["data"] = make(forger, seed("nonce for data"))

    return change


def _sign_with(signer: SigningKey) -> Callable[[Forger], None]:
    def change(forger: Forger) -> None:
        forger.signer = signer

    return change


def _on(platform: SimulatedPlatform) -> Callable[[Forger], None]:
    return _of_data(lambda forger, nonce: forger.enclave.report(nonce, platform))


def _drop(what: str) -> Callable[[Forger], None]:
    return lambda forger: getattr(forger, what).pop("model")


def _released_by(key: SigningKey) -> Callable[[Forger], None]:
    return lambda forger: forger.brokers.update(data=key)


def _of_another(forger: Forger) -> None:
    other = Asker(forger.enclave.world, forger.enclave.contract, "another")
    forger.reports["model"] = other.report(seed("nonce for model"))


def _passed_on(forger: Forger) -> None:
    """Everything fits, but the keyset was made for another run."""
    relay = forger.enclave
    relay.keyset = replace(relay.keyset, subject=run_subject(relay.contract.digest, OTHER_RUN))
    _say(keyset_digest=relay.keyset.digest)(forger)
    for role, release in forger.releases.items():
        forger.releases[role] = replace(release, keyset_digest=relay.keyset.digest)
        forger.reports[role] = relay.report(bytes.fromhex(release.nonce))


def _one_nonce(forger: Forger) -> None:
    forger.releases["model"] = replace(forger.releases["model"], nonce=forger.releases["data"].nonce)


def _wider(forger: Forger) -> None:
    (delivered,) = forger.statement.outputs
    rule = replace(delivered.output.rule, min_group=1)
    _say(outputs=(replace(delivered, output=replace(delivered.output, rule=rule)),))(forger)


def _manifest_forged(forger: Forger) -> None:
    forger.manifests["data"] = sign_manifest(forger.enclave.world.assets["data"][0], LAB.signing)


def _own_head(bundle: Bundle) -> Bundle:
    tree, own = Tree(MemoryNodes()), LogKey("log.example", SigningKey(seed("my own log")))
    tree.append(bundle.entry)
    assert bundle.proof is not None
    return replace(bundle, proof=replace(bundle.proof, checkpoint=tree.checkpoint(own)))


def _another_proof(bundle: Bundle) -> Bundle:
    world = World()
    other = Forger.at_work(world, world.agree(), ended_at=NOW + 2).bundle()
    return replace(bundle, proof=other.proof)


def receipt_cases() -> Cases:
    bad, trust = "receipt.bad_receipt", World.trust()
    crashed = Failure("predict", "program.crashed")
    edited = World()
    edited.platform.measurement = EDITED
    narrow = World(terms={"data": Policy(frozenset({"train"}), TERMS.outputs)})
    process = EnclaveTerms(("simulated",), (MEASUREMENT,), "process")
    other_hospital = replace(card("hospital"), broker_key=broker_key("stranger").public)
    return {
        "ok": _receipt("a run that completed", "ok", ""),
        "ok-failed": _receipt("a run that failed", "ok", "", _say(failure=crashed, outputs=(), owed=())),
        "ok-process": _receipt(
            "a run in an ordinary process, as agreed", "ok", "", _say(sandbox="process"), enclave=process
        ),
        "v1-missing": _receipt(
            "a party did not sign the contract", "contract.signature_missing", "V1",
            after=lambda b: replace(b, contract=replace(b.contract, signatures=b.contract.signatures[:1])),
        ),
        "v1-other-bytes": _receipt(
            "other terms under the same signatures", "contract.signature_invalid", "V1",
            after=lambda b: replace(b, contract=replace(b.contract, payload=WORLD.proposal(payments=()).encode())),
        ),
        "v2-empty-trust": _receipt("nothing is trusted", "party.not_pinned", "V2", trust=Trust()),
        "v2-not-pinned": _receipt("a party is not pinned", "party.not_pinned", "V2", trust=trust.unpin("lab")),
        "v2-other-keys": _receipt(
            "a party's keys are others than those pinned", "party.pin_mismatch", "V2",
            trust=replace(trust, parties=(other_hospital, card("lab"))),
        ),
        "v3-other-key": _receipt("signed by another key", "wire.bad_signature", "V3", _sign_with(LAB.signing)),
        "v3-altered": _receipt(
            "altered after it was signed", "wire.bad_signature", "V3",
            after=lambda b: replace(
                b, receipt=replace(b.receipt, payload=b.receipt.payload.replace(b'"amount":25000', b'"amount":25001'))
            ),
        ),
        "v3-another-type": _receipt(
            "signed as another document", "wire.bad_envelope", "V3",
            after=lambda b: replace(b, receipt=Asker(World(), CONTRACT).receipt_key.sign(RUN_TYPE, b.receipt.payload)),
        ),
        "v3-other-keyset": _receipt("it names another keyset", bad, "V3", _say(keyset_digest=OTHER)),
        "v3-no-evidence": _receipt("without evidence", bad, "V3", after=lambda b: replace(b, reports=())),
        "v3-two-keysets": _receipt(
            "evidence of two enclaves", bad, "V3", _of_another
        ),
        "v3-subject": _receipt(
            "its subjects are not its outputs", bad, "V3",
            after=lambda b: replace(
                b,
                receipt=Asker(World(), CONTRACT).receipt_key.sign(
                    STATEMENT_TYPE, wire.encode({**json.loads(b.receipt.payload), "subject": []})
                ),
            ),
        ),
        "v4-other-contract": _receipt("of another contract", bad, "V4", _say(contract=OTHER)),
        "v4-other-program": _receipt("of another program", bad, "V4", _say(program=OTHER)),
        "v4-keyset-of-another-run": _receipt("by a keyset that was made for another run", bad, "V4", _passed_on),
        "v4-process": _receipt("in an ordinary process, which was not agreed", bad, "V4", _say(sandbox="process")),
        "v5-other-input": _receipt(
            "of another input", bad, "V5", lambda f: _say(inputs=f.statement.inputs[:1])(f)
        ),
        "v5-manifest-missing": _receipt(
            "a manifest is missing", bad, "V5", after=lambda b: replace(b, manifests=b.manifests[:1])
        ),
        "v5-manifest-forged": _receipt(
            "a manifest that its owner did not sign", "wire.bad_signature", "V5", _manifest_forged
        ),
        "v6-terms": _receipt("an asset's terms allow another use", "policy.not_permitted", "V6", world=narrow),
        "v7-other-run": _receipt("a release for another run", bad, "V7", _release(run_id=OTHER_RUN)),
        "v7-other-keyset": _receipt("a release for another enclave", bad, "V7", _release(keyset_digest=OTHER)),
        "v7-other-asset": _receipt("a release of another asset", bad, "V7", _release(manifest=OTHER)),
        "v7-other-contract": _receipt("a release under another contract", bad, "V7", _release(contract=OTHER)),
        "v7-other-broker": _receipt(
            "a release by another broker", "wire.bad_signature", "V7", _released_by(broker_key("lab"))
        ),
        "v7-missing": _receipt("an input without a release", bad, "V7", _drop("releases")),
        "v7-no-report": _receipt("a release without evidence", bad, "V7", _drop("reports")),
        "v7-not-named": _receipt(
            "a release that the receipt does not name", bad, "V7",
            after=lambda b: replace(b, releases=b.releases[::-1]),
        ),
        "v7-one-nonce": _receipt("one nonce for two releases", bad, "V7", _one_nonce),
        "v8-expired": _receipt("a release after the contract's end", "contract.expired", "V8", _release(at=NOW + DAY)),
        "v8-too-early": _receipt(
            "a release before the contract's beginning", "contract.not_yet_valid", "V8", _release(at=NOW - DAY)
        ),
        "v9-edited": _receipt(
            "evidence of an edited program", "attest.measurement_not_accepted", "V9", _on(SimulatedPlatform(Clock(), EDITED))
        ),
        "v9-rogue-platform": _receipt(
            "evidence of a platform of one's own", "attest.unknown_root", "V9",
            _on(SimulatedPlatform(Clock(), key=SigningKey(seed("p")), root=SigningKey(seed("rogue")))),
        ),
        "v9-old": _receipt("evidence of another time", "attest.not_fresh", "V9", _on(SimulatedPlatform(Clock(NOW - HOUR)))),
        "v9-debug": _receipt(
            "an enclave under a debugger", "attest.debug", "V9", _on(SimulatedPlatform(Clock(), debug=True))
        ),
        "v9-other-nonce": _receipt(
            "evidence for another nonce than the release's", "attest.not_bound", "V9",
            _of_data(
                lambda f, nonce: replace(f.enclave.report(seed("b")), report_data=f.enclave.report(nonce).report_data)
            ),
        ),
        "v9-no-root": _receipt(
            "no platform root is trusted", "attest.platform_not_accepted", "V9", trust=replace(trust, roots=())
        ),
        "v9-no-measurement": _receipt(
            "no measurement is trusted", "attest.platform_not_accepted", "V9", trust=replace(trust, measurements=())
        ),
        "v9-root-of-another-platform": _receipt(
            "the root is trusted for another platform", "attest.platform_not_accepted", "V9",
            trust=replace(trust, roots=(Root("tdx", trust.roots[0].key),)),
        ),
        "v9-unbound-member": _receipt(
            "a report says something that no evidence binds", bad, "V9",
            _of_data(
                lambda f, nonce: replace(f.enclave.report(nonce), provenance=SourceProvenance("https://example.com"))
            ),
        ),
        "v10-not-named": _receipt(
            "an enclave that the verifier trusts and the contract does not name", "broker.enclave_not_named", "V10",
            world=edited, trust=trust.with_enclaves([], [EDITED]),
        ),
        "v11-missing": _receipt("an output is missing", bad, "V11", _say(outputs=())),
        "v11-wider": _receipt("an output under another rule", bad, "V11", _wider),
        "v11-failed": _receipt("a run that failed and delivered", bad, "V11", _say(failure=crashed)),
        "v12-other": _receipt(
            "another amount is owed", bad, "V12",
            lambda f: _say(owed=(replace(f.statement.owed[0], amount=1),))(f),
        ),
        "v12-failed": _receipt("a run that failed and costs", bad, "V12", _say(failure=crashed, outputs=())),
        "v13-no-proof": _receipt(
            "no proof: not established", "ledger.bad_proof", "V13", after=lambda b: replace(b, proof=None)
        ),
        "v13-no-log": _receipt(
            "no log is trusted: not established", "ledger.bad_proof", "V13", trust=replace(trust, logs=())
        ),
        "v13-own-head": _receipt("a head of one's own", "ledger.bad_checkpoint", "V13", after=_own_head),
        "v13-another-receipt": _receipt("the proof of another receipt", "ledger.bad_proof", "V13", after=_another_proof),
    }  # fmt: skip


def all_cases() -> dict[str, Cases]:
    """Folder to name to case."""
    return {"receipt": receipt_cases()}


def main() -> None:
    for folder, cases in all_cases().items():
        (HERE / folder).mkdir(exist_ok=True)
        for stale in (HERE / folder).glob("*.json"):
            stale.unlink()
        for name, case in cases.items():
            text = json.dumps(case, indent=2, sort_keys=True) + "\n"
            (HERE / folder / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
