"""Writes vectors/rcar: one file per case, the expected outcome in the file.

    python vectors/make_rcar.py

Guests, parties and platforms are those of the tests (tests/world.py, tests/rcar_case.py), with their fixed keys and times.
What is random in an answer to a guest is in no vector: a decision that gives the key says how to open it.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

import pki_amd  # noqa: E402 - the world is found first
from rcar_case import ENVELOPE, KEY, MANIFEST, TERMS  # noqa: E402
from rcar_guest import b64url  # noqa: E402
from rcar_reports import sev_json  # noqa: E402
from strongroom import wire  # noqa: E402
from strongroom.asset import sign_manifest  # noqa: E402
from strongroom.attest.guest import RuntimeData  # noqa: E402
from strongroom.attest.tee_key import TeeKey  # noqa: E402
from strongroom.budget.document import Budget, CountLimits  # noqa: E402
from strongroom.contract import (  # noqa: E402
    AssetRef,
    Contract,
    EnclaveTerms,
    Limits,
    Proposal,
    RunRequest,
    guest_program,
)
from strongroom.guest import Attested  # noqa: E402
from strongroom.policy import Policy  # noqa: E402
from strongroom.rcar import ear  # noqa: E402
from strongroom.rcar.message import TEES, Request, Session  # noqa: E402
from strongroom.wire import Envelope  # noqa: E402
from world import (  # noqa: E402
    DAY,
    EDITED,
    HOUR,
    MEASUREMENT,
    NOW,
    SimulatedPlatform,
    World,
    broker_key,
    card,
    keys_of,
    seed,
    sign_all,
)

Case = dict[str, Any]
Cases = dict[str, Case]

WORLD = World()
NONCE, RUN, OTHER = seed("a guest's nonce"), seed("a guest's run", 16).hex(), wire.digest(b"another")
BEGAN, UNTIL = NOW - 10, NOW + 290


def tee_key(name: str, curve: ec.EllipticCurve | None = None) -> tuple[ec.EllipticCurvePrivateKey, dict[str, str]]:
    """A guest's key, the same in every run."""
    curve = curve or ec.SECP256R1()
    private = ec.derive_private_key(int.from_bytes(seed(name, 16), "big"), curve)
    numbers, size = private.public_key().public_numbers(), (curve.key_size + 7) // 8
    x, y = (b64url(n.to_bytes(size, "big")) for n in (numbers.x, numbers.y))
    crv = {256: "P-256", 384: "P-384", 521: "P-521"}[curve.key_size]
    return private, {"alg": "ECDH-ES+A256KW", "crv": crv, "kty": "EC", "x": x, "y": y}


PRIVATE, JWK = tee_key("a guest")
RUNTIME = RuntimeData(wire.b64(NONCE), TeeKey.from_json(JWK), "")


# --- decisions --------------------------------------------------------------------------------------------------------


def proposal(**changes: Any) -> Proposal:
    measurements = changes.pop("measurements", (MEASUREMENT,))
    said: dict[str, Any] = {
        "title": "Keys for measured guests",
        "nonce": seed("a contract for guests", 16).hex(),
        "proposer": "lab",
        "supersedes": None,
        "created_at": NOW - HOUR,
        "not_before": NOW - HOUR,
        "not_after": NOW + DAY,
        "parties": (card("hospital"), card("lab")),
        "program": guest_program(measurements),
        "assets": (AssetRef("data", "hospital", MANIFEST.digest),),
        "outputs": (),
        "enclave": EnclaveTerms(("simulated",), measurements, "isolated"),
        "policy": Policy(frozenset({"guest"})),
        "limits": Limits(1, 60, 1 << 20),
    }
    return Proposal(**{**said, **changes})


def session(platform: SimulatedPlatform | None = None, runtime: RuntimeData = RUNTIME, **changes: Any) -> Attested:
    platform = platform or SimulatedPlatform(lambda: NOW - 10)  # type: ignore[arg-type]
    found = Attested(NONCE, runtime, platform.produce(RUNTIME.report_data), platform.endorsements(), BEGAN, UNTIL)
    return replace(found, **changes)


def decide(
    description: str,
    expect: str,
    number: str,
    *,
    contract: Contract | Envelope | None = None,
    run: Envelope | None = None,
    asked: Attested | None = None,
    manifest: str = MANIFEST.digest,
    at: int = NOW,
    name: str = "hospital",
    trust: Any = None,
    held: bool = True,
    book: dict[str, Any] | None = None,
    standing: dict[str, Any] | None = None,
) -> Case:
    found, asked = contract or sign_all(proposal()), asked or session()
    envelope = found.envelope if isinstance(found, Contract) else found
    run = run or RunRequest(envelope.digest, "lab", RUN, NOW - 60).sign(keys_of("lab").signing)
    trust = trust or World.trust()
    held_now = [{"key": KEY.raw.hex(), "manifest": ENVELOPE.to_json()}] if held else []
    runtime = {"nonce": asked.runtime.nonce, "tee-pubkey": asked.runtime.key.to_json()}
    if asked.runtime.additional is not None:
        runtime["additional-evidence"] = asked.runtime.additional
    state = {"approved": True, "ended_by": None, "runs": {}, "withdrawn_by": [], **(standing or {})}
    return {
        "at": at,
        "book": {"assets": held_now, "budgets": {}, "other_runs": [], "shared": [], "standing": state, **(book or {})},
        "contract": envelope.to_json(),
        "description": description,
        "expect": expect,
        "manifest": manifest,
        "number": number,
        "operation": "decide",
        "owner": {
            "broker_seed": broker_key(name).seed.hex(),
            "name": name,
            "policy": trust.appraisal_policy().to_json(),
            "trust": trust.to_json(),
        },
        "private": f"{PRIVATE.private_numbers().private_value:064x}",
        "run": run.to_json(),
        "session": {
            "began": asked.began,
            "endorsements": asked.endorsements.to_json(),
            "evidence": asked.evidence.to_json(),
            "nonce": asked.nonce.hex(),
            "runtime_data": runtime,
            "until": asked.until,
        },
    }


def _budget() -> dict[str, Any]:
    budget = Budget("hospital", 1, NOW, (MANIFEST.digest,), None, CountLimits(runs=9))
    return {"budgets": {MANIFEST.digest: budget.sign(keys_of("hospital").signing).to_json()}}


def decide_cases() -> Cases:
    guest, plain = RUNTIME.key.digest, sign_all(proposal())
    signed_by_one = proposal().envelope([proposal().sign(keys_of("lab"))])
    native = World(terms={"data": TERMS}).agree()
    narrow = sign_manifest(replace(MANIFEST, terms=World().assets["data"][0].terms), keys_of("hospital").signing)
    narrowed = sign_all(proposal(assets=(AssetRef("data", "hospital", narrow.digest),)))
    thief = RuntimeData(RUNTIME.nonce, TeeKey.from_json(tee_key("another guest")[1]), "")
    clock: Callable[[], int] = lambda: NOW - 10  # noqa: E731
    edited = SimulatedPlatform(clock, measurement=EDITED)  # type: ignore[arg-type]
    both = replace(World.trust(), measurements=tuple(sorted((MEASUREMENT, EDITED), key=lambda m: m.encode())))
    return {
        "ok": decide("a guest gets the key", "ok", ""),
        "ok-again": decide("the same guest asks again", "ok", "", standing={"runs": {RUN: guest}}),
        "d1-over": decide("the session is over", "broker.no_session", "D1", at=UNTIL),
        "d1-not-begun": decide("the session has not begun", "broker.no_session", "D1", at=BEGAN - 1),
        "d2-one-signature": decide("the owner did not sign", "contract.signature_missing", "D2", contract=signed_by_one),
        "d3-unpinned": decide("the lab is pinned no more", "party.not_pinned", "D3", trust=World.trust().unpin("lab")),
        "d4-other-broker": decide("another party's broker", "broker.not_mine", "D4", name="stranger"),
        "d5-expired": decide(
            "the contract is over", "contract.expired", "D5", asked=session(until=NOW + 2 * DAY), at=NOW + DAY
        ),
        "d6-not-named": decide("an asset that the contract does not name", "broker.unknown_asset", "D6", manifest=OTHER),
        "d6-not-held": decide("a key that the broker does not hold", "broker.unknown_asset", "D6", held=False),
        "d6-shared": decide(
            "a key that is shared over several brokers", "broker.key_shared", "D6", held=False,
            book={"shared": [ENVELOPE.to_json()]},
        ),
        "d7-terms": decide(
            "an asset whose owner never thought of guests", "policy.not_permitted", "D7", contract=narrowed,
            manifest=narrow.digest, book={"assets": [{"key": KEY.raw.hex(), "manifest": narrow.to_json()}]},
        ),
        "d8-stranger": decide(
            "a stranger asked for the run", "contract.not_a_party", "D8",
            run=RunRequest(plain.digest, "stranger", RUN, NOW).sign(keys_of("stranger").signing),
        ),
        "d8-forged": decide(
            "a stranger asked in a party's name", "wire.bad_signature", "D8",
            run=RunRequest(plain.digest, "lab", RUN, NOW).sign(keys_of("stranger").signing),
        ),
        "d8-other-contract": decide(
            "a party asked for a run of another contract", "wire.bad_field", "D8",
            run=RunRequest(OTHER, "lab", RUN, NOW).sign(keys_of("lab").signing),
        ),
        "d8-over": decide(
            "a party asked for a time that is over", "wire.bad_field", "D8",
            run=RunRequest(plain.digest, "lab", RUN, NOW - HOUR, NOW - 1).sign(keys_of("lab").signing),
        ),
        "d9-other-key": decide("evidence for another guest's key", "attest.not_bound", "D9", asked=session(runtime=thief)),
        "d9-other-nonce": decide(
            "evidence for another session's nonce", "attest.bad_nonce", "D9", asked=session(nonce=seed("another nonce"))
        ),
        "d9-without-additional": decide(
            "evidence over runtime data without a member", "attest.not_bound", "D9",
            asked=session(runtime=replace(RUNTIME, additional=None)),
        ),
        "d9-devices": decide(
            "devices beside the guest", "attest.not_bound", "D9",
            asked=session(runtime=replace(RUNTIME, additional='{"a":1}')),
        ),
        "d9-debug": decide(
            "a guest under a debugger", "attest.debug", "D9",
            asked=session(SimulatedPlatform(clock, debug=True)),  # type: ignore[arg-type]
        ),
        "d9-edited": decide(
            "a guest that is measured otherwise", "attest.measurement_not_accepted", "D9", asked=session(edited)
        ),
        "d10-native": decide(
            "a contract for enclaves of ours", "broker.not_for_guests", "D10", contract=native,
            run=RunRequest(native.digest, "lab", RUN, NOW).sign(keys_of("lab").signing),
        ),
        "d10-elsewhere": decide(
            "a guest whose key has a run of another contract", "broker.guest_elsewhere", "D10",
            book={"other_runs": [{"contract": OTHER, "run_id": RUN}]},
        ),
        "d11-not-named": decide(
            "a guest that the owner accepts and the contract does not name", "broker.enclave_not_named", "D11",
            asked=session(edited), trust=both,
        ),
        "d12-not-approved": decide(
            "the owner did not approve it", "broker.not_approved", "D12", standing={"approved": False}
        ),
        "d13-countered": decide("the owner countered it", "contract.superseded", "D13", standing={"ended_by": OTHER}),
        "d14-withdrawn": decide("a party withdrew", "contract.withdrawn", "D14", standing={"withdrawn_by": ["lab"]}),
        "d15-taken": decide("the run is another guest's", "broker.run_taken", "D15", standing={"runs": {RUN: OTHER}}),
        "d16-spent": decide(
            "no run is left", "broker.no_run_left", "D16", standing={"runs": {seed("another run", 16).hex(): OTHER}}
        ),
        "d17-budget": decide("the asset has a budget", "budget.bad_budget", "D17", book=_budget()),
    }  # fmt: skip


# --- messages, keys, reports ------------------------------------------------------------------------------------------


def attestation(description: str, expect: str, said: Any, *, minor: int = 4, tee: str = "sample", **hashed: Any) -> Case:
    digest = hashlib.sha384(wire.encode(hashed)).hexdigest() if hashed else ""
    return {
        "description": description,
        "expect": expect,
        "hash": digest,
        "message": said if isinstance(said, str) else json.dumps(said),
        "minor": minor,
        "nonce": NONCE.hex(),
        "operation": "attestation",
        "tee": tee,
    }


def attestation_cases() -> Cases:
    nonce, evidence = wire.b64(NONCE), {"svn": "1", "report_data": ""}
    runtime = {"nonce": nonce, "tee-pubkey": JWK}
    both = {"primary_evidence": evidence, "additional_evidence": ""}
    hashed = {"nonce": nonce, "tee-pubkey": JWK}
    composite = {**hashed, "additional-evidence": ""}
    good = {"init-data": None, "runtime-data": runtime, "tee-evidence": both}
    toml = {"format": "toml", "body": "x = 1"}
    other = {**runtime, "nonce": wire.b64(seed("another nonce"))}
    field = "wire.bad_field"
    return {
        "ok-0.1.0": attestation(
            "evidence in a string", "ok", {"tee-pubkey": JWK, "tee-evidence": json.dumps(evidence)}, minor=1, **hashed
        ),
        "ok-0.2": attestation(
            "evidence as an object", "ok", {"tee-pubkey": JWK, "tee-evidence": evidence}, minor=2, **hashed
        ),
        "ok-0.3": attestation("runtime data", "ok", {"runtime-data": runtime, "tee-evidence": evidence}, minor=3, **hashed),
        "ok-0.3-both": attestation(
            "0.3 with two kinds", "ok", {"runtime-data": runtime, "tee-evidence": both}, minor=3, **composite
        ),
        "ok-0.4": attestation("two kinds of evidence", "ok", good, **composite),
        "ok-init-data": attestation("with init-data", "ok", {**good, "init-data": toml}, **composite),
        "ok-more": attestation("a member that is not known", "ok", {**good, "later": 1}, **composite),
        "old-shape-in-0.4": attestation("0.2's shape in 0.4", field, {"tee-pubkey": JWK, "tee-evidence": evidence}),
        "bare-evidence-in-0.4": attestation(
            "0.3's evidence in 0.4", field, {"runtime-data": runtime, "tee-evidence": evidence}
        ),
        "runtime-more": attestation(
            "a member in the runtime data that is hashed by nobody", field, {**good, "runtime-data": {**runtime, "more": 1}}
        ),
        "other-nonce": attestation("another session's nonce", "broker.no_session", {**good, "runtime-data": other}),
        "null-nonce": attestation("no nonce", field, {**good, "runtime-data": {**runtime, "nonce": None}}),
        "evidence-missing": attestation("no evidence", field, {"runtime-data": runtime}),
        "devices-no-text": attestation(
            "devices as an object", field, {**good, "tee-evidence": {**both, "additional_evidence": {}}}
        ),
        "member-twice": attestation("a member twice", "wire.not_json", '{"tee-evidence":1,"tee-evidence":2}'),
        "not-json": attestation("no JSON", "wire.not_json", "{"),
        "init-data-odd": attestation("init-data of another form", field, {**good, "init-data": {"format": 1}}),
    }


def key_case(description: str, expect: str, jwk: Any, digest: str = "") -> Case:
    return {"description": description, "digest": digest, "expect": expect, "jwk": jwk, "operation": "tee_key"}


def key_cases() -> Cases:
    cases: Cases = {}
    for curve in (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()):
        jwk = tee_key("a guest", curve)[1]
        thumbprint = wire.digest(wire.encode({k: v for k, v in jwk.items() if k != "alg"}))
        cases[f"ok-{jwk['crv'].lower()}"] = key_case(f"a key on {jwk['crv']}", "ok", jwk, thumbprint)
    n = int.from_bytes(b"\xc0" + seed("a modulus", 255), "big") | 1
    rsa = {"alg": "RSA-OAEP-256", "e": "AQAB", "kty": "RSA", "n": b64url(n.to_bytes(256, "big"))}
    digest = wire.digest(wire.encode({k: v for k, v in rsa.items() if k != "alg"}))
    cases["ok-rsa"] = key_case("an RSA key of 2048 bits", "ok", rsa, digest)
    bad, field = "attest.bad_tee_key", "wire.bad_field"
    short = b64url(((1 << 1023) | 1).to_bytes(128, "big"))
    odd = {
        "alg-none": ("an algorithm that encrypts nothing", bad, {**JWK, "alg": "none"}),
        "alg-rsa1-5": ("PKCS#1 v1.5", bad, {**rsa, "alg": "RSA1_5"}),
        "alg-swapped": ("RSA's algorithm on a curve", bad, {**JWK, "alg": "RSA-OAEP-256"}),
        "curve": ("another curve", bad, {**JWK, "crv": "secp256k1"}),
        "off-the-curve": ("a point that is not on its curve", bad, {**JWK, "y": JWK["x"]}),
        "short": ("a coordinate of one byte", bad, {**JWK, "x": "AQ"}),
        "oct": ("a symmetric key", bad, {**JWK, "kty": "oct"}),
        "private": ("a private key", field, {**JWK, "d": JWK["x"]}),
        "kid": ("a member that is hashed by nobody", field, {**JWK, "kid": "1"}),
        "missing": ("no y", field, {k: v for k, v in JWK.items() if k != "y"}),
        "padded": ("padded base64url", field, {**JWK, "x": JWK["x"] + "="}),
        "rsa-1024": ("an RSA key of 1024 bits", bad, {**rsa, "n": short}),
        "rsa-e": ("an exponent of 3", bad, {**rsa, "e": "Aw"}),
        "rsa-even": ("an even modulus", bad, {**rsa, "n": b64url((n - 1).to_bytes(256, "big"))}),
        "rsa-zero": ("a modulus with a zero before it", bad, {**rsa, "n": b64url(b"\0" + n.to_bytes(256, "big"))}),
        "list": ("no object", field, [JWK]),
    }
    return {**cases, **{name: key_case(*said) for name, said in odd.items()}}


def session_cases() -> Cases:
    key, found = seed("the key of cookies"), Session(Request(4, "sample"), NONCE, UNTIL)
    cookie = found.seal(key)

    def case(description: str, expect: str, text: str, at: int = NOW) -> Case:
        said = {"minor": 4, "nonce": NONCE.hex(), "tee": "sample", "until": UNTIL}
        return {
            "at": at, "cookie": text, "description": description, "expect": expect, "key": key.hex(), "operation": "session",
            "session": said,
        }  # fmt: skip

    none = "broker.no_session"
    return {
        "ok": case("a cookie of this broker's", "ok", cookie),
        "over": case("over", none, cookie, UNTIL),
        "another-key": case("another broker's", none, found.seal(seed("another key"))),
        "another-tee": case(
            "of another kind of enclave", none, f"{cookie[:12]}{'B' if cookie[12] != 'B' else 'C'}{cookie[13:]}"
        ),
        "longer": case("with something after it", none, cookie + "AAAA"),
        "shorter": case("cut", none, cookie[:-4]),
        "empty": case("empty", none, ""),
        "not-base64url": case("no base64url", none, "!" * 78),
    }


def ear_cases() -> Cases:
    broker = broker_key("hospital")
    result = session().appraise(World().brokers["hospital"].owner, NOW)
    claims = ear.claims(result, key=RUNTIME.key, nonce=RUNTIME.nonce, jti=OTHER, issuer=broker.public.keyid, until=UNTIL)
    private = Ed25519PrivateKey.from_private_bytes(broker.seed)

    def case(description: str, expect: str, token: str, at: int = NOW) -> Case:
        return {
            "at": at, "broker": wire.b64(broker.public.raw), "description": description, "expect": expect,
            "key": RUNTIME.key.digest, "operation": "ear", "token": token,
        }  # fmt: skip

    def signed(alg: str = "EdDSA", key: Any = private, header: dict[str, Any] | None = None, **changes: Any) -> str:
        said = {k: v for k, v in {**claims, **changes}.items() if v is not ...}
        return jwt.encode(said, key, algorithm=alg, headers={"kid": broker.public.keyid, **(header or {})})

    good, bad = ear.sign(claims, broker), "attest.bad_ear"
    submod: dict[str, Any] = claims["submods"]["simulated"]  # type: ignore[index, call-overload]

    def about(**changes: Any) -> dict[str, Any]:
        return {"submods": {"simulated": {**submod, **changes}}}

    vector = submod["ear.trustworthiness-vector"]
    return {
        "ok": case("an affirming result", "ok", good),
        "alg-none": case("signed by nobody", bad, signed("none", None)),
        "alg-hs256": case("the public key as a shared secret", bad, signed("HS256", broker.public.raw)),
        "alg-said-none": case(
            "a good signature, called none", bad, good.replace(good.split(".", maxsplit=1)[0], b64url(b'{"alg":"none"}'))
        ),
        "jwk-in-header": case("a key in the header", bad, signed(header={"jwk": JWK})),
        "other-key": case("another broker's", bad, ear.sign(claims, broker_key("lab"))),
        "other-kid": case("under another name", bad, signed(header={"kid": broker_key("lab").public.keyid})),
        "other-issuer": case("says that another issued it", bad, signed(iss=broker_key("lab").public.keyid)),
        "over": case("over", bad, good, UNTIL),
        "not-yet": case("not yet", bad, good, NOW - 1),
        "no-end": case("without an end", bad, signed(exp=...)),
        "other-profile": case("of another profile", bad, signed(eat_profile="tag:psacertified.org,2023:psa#tfm")),
        "no-profile": case("of no profile", bad, signed(eat_profile=...)),
        "no-verifier": case("says not which verifier", bad, signed(**{"ear.verifier-id": ...})),
        "no-submods": case("about nothing", bad, signed(submods={})),
        "status-odd": case("a status that EAR does not know", bad, signed(**about(**{"ear.status": "fine"}))),
        "vector-odd": case(
            "a claim that AR4SI does not know", bad, signed(**about(**{"ear.trustworthiness-vector": {"luck": 2}}))
        ),
        "vector-wide": case(
            "a claim of 200", bad, signed(**about(**{"ear.trustworthiness-vector": {**vector, "hardware": 200}}))
        ),
        "two-keys": case("names two keys", bad, signed(cnf={"jkt": b64url(bytes(32))})),
        "cut": case("cut", bad, good[:-3]),
        "empty": case("empty", bad, ""),
    }


def report_cases() -> Cases:
    report = pki_amd.good().data
    good = sev_json(report)

    def case(description: str, expect: str, said: Any) -> Case:
        return {
            "description": description,
            "expect": expect,
            "json": said,
            "operation": "snp_report",
            "report": report.hex(),
        }

    newer = {k: v for k, v in good.items() if k not in ("_reserved_1", "_reserved_4", "_author_key_en")}
    newer |= {"cpuid_fam_id": report[392], "cpuid_mod_id": report[393], "cpuid_step": report[394], "key_info": 0}
    vectors = [int.from_bytes(report[504 + 8 * n : 512 + 8 * n], "little") for n in range(2)]
    newer |= {"launch_mit_vector": vectors[0], "current_mit_vector": vectors[1]}
    field = "wire.bad_field"
    return {
        "ok": case("a report as the older crate writes it", "ok", good),
        "ok-newer": case("a report as the newer crate names it", "ok", newer),
        "missing": case("no measurement", field, {k: v for k, v in good.items() if k != "measurement"}),
        "short": case("report data of 63 bytes", field, {**good, "report_data": good["report_data"][1:]}),
        "wide": case("a byte of 256", field, {**good, "host_data": [256, *good["host_data"][1:]]}),
        "negative": case("a negative number", field, {**good, "policy": -1}),
        "true": case("a number that is true", field, {**good, "vmpl": True}),
        "no-signature": case("no signature", field, {**good, "signature": []}),
        "tcb": case("a TCB without snp", field, {**good, "reported_tcb": {"bootloader": 1, "microcode": 1, "tee": 0}}),
    }


def all_cases() -> dict[str, Case]:
    found = {
        "attestation": attestation_cases(),
        "decide": decide_cases(),
        "ear": ear_cases(),
        "report": report_cases(),
        "session": session_cases(),
        "tee-key": key_cases(),
    }
    return {f"{kind}-{name}": case for kind, cases in found.items() for name, case in cases.items()}


def main() -> None:
    folder = HERE / "rcar"
    folder.mkdir(exist_ok=True)
    for stale in folder.glob("*.json"):
        stale.unlink()
    for name, case in all_cases().items():
        text = json.dumps(case, indent=2, sort_keys=True) + "\n"
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
    assert TEES == ("sample", "snp", "tdx")


if __name__ == "__main__":
    main()
