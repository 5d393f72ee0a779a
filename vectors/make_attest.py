"""Writes ``vectors/keyset`` and ``vectors/appraisal``. Deterministic: fixed seeds, fixed times.

    python vectors/make_attest.py

One file a case. Every case holds its whole input and ``expect``: ``ok``, or the stable code of the check that fails first.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from strongroom import wire
from strongroom.attest.appraisal_policy import AppraisalPolicy, Reference
from strongroom.attest.evidence import Endorsement, Endorsements, Evidence, Measurement, Roots
from strongroom.attest.keyset import RELEASE_ALGO, RUN_RECEIPT_ALGO, KeyEntry, Keyset, TlsKey, report_data, statement
from strongroom.attest.simulated import ENDORSEMENT_TYPE, EVIDENCE_TYPE, PLATFORM, Claims, PlatformEndorsement
from strongroom.party import DecryptionKey, SigningKey
from strongroom.wire import Envelope, Signature

HERE = Path(__file__).parent
AT = 1_790_000_000
NONCE = bytes(range(32))
ROOT, PLATFORM_KEY, OTHER = (SigningKey.from_seed(bytes([n]) * 32) for n in (0x11, 0x12, 0x13))
RECEIPT_KEY = SigningKey.from_seed(b"\x14" * 32)
RELEASE_KEY = DecryptionKey.from_seed(b"\x15" * 96)
RUN_RECEIPT = KeyEntry("run-receipt-1", RUN_RECEIPT_ALGO, RECEIPT_KEY.public.raw.hex())
RELEASE = KeyEntry("release-1", RELEASE_ALGO, RELEASE_KEY.public.raw.hex())
KEYSET = Keyset(
    AT + 3600, receipt_signing_keys=(RUN_RECEIPT,), e2ee_public_keys=(RELEASE,), subject="strongroom-run://example"
)
MEASUREMENT = Measurement(
    PLATFORM, {n: wire.digest(n.encode()) for n in ("dependencies", "interpreter", "launch", "package")}
)
EDITED = replace(MEASUREMENT, registers={**MEASUREMENT.registers, "package": wire.digest(b"one line was edited")})
ENDORSEMENT = PlatformEndorsement(PLATFORM_KEY.public, AT - 3600, AT + 3600, b"\x16" * 16)
REFERENCE = Reference(MEASUREMENT, "example", "strongroom 0.1.0")
POLICY = AppraisalPolicy(frozenset({PLATFORM}), {PLATFORM: Roots((ROOT.public,))}, (REFERENCE,))
SMALL_ORDER = (b"\x01" + bytes(31)).hex()


@dataclass(frozen=True)
class World:
    """A verifier and an enclave between whom everything is right; each case changes one thing."""

    claims: Claims = field(default_factory=lambda: Claims(report_data(KEYSET.digest, NONCE), MEASUREMENT, False, AT - 2))
    endorsement: PlatformEndorsement = ENDORSEMENT
    signer: SigningKey = PLATFORM_KEY
    endorser: SigningKey = ROOT
    keyset: Keyset = KEYSET
    nonce: bytes = NONCE
    at: int = AT
    policy: AppraisalPolicy = POLICY
    evidence_bytes: bytes | None = None
    platform: str = PLATFORM
    documents: tuple[Endorsement, ...] | None = None
    event_log: bytes = b""
    devices: tuple[Evidence, ...] = ()
    device_binding: bytes = b""

    @property
    def envelope(self) -> Envelope:
        return self.signer.sign(EVIDENCE_TYPE, self.claims.encode())

    @property
    def evidence(self) -> Evidence:
        data = self.envelope.encode() if self.evidence_bytes is None else self.evidence_bytes
        return Evidence(self.platform, data, self.event_log, self.devices, self.device_binding)

    @property
    def endorsements(self) -> Endorsements:
        return Endorsements((self.endorsement.sign(self.endorser),) if self.documents is None else self.documents)

    def question(self) -> dict[str, Any]:
        """The arguments of ``appraise``."""
        return {
            "evidence": self.evidence,
            "policy": self.policy,
            "endorsements": self.endorsements,
            "nonce": self.nonce,
            "at": self.at,
            "keyset": self.keyset,
        }

    def to_json(self) -> dict[str, Any]:
        return {
            "at": self.at,
            "endorsements": self.endorsements.to_json(),
            "evidence": self.evidence.to_json(),
            "keyset": self.keyset.to_json(),
            "nonce": self.nonce.hex(),
            "policy": self.policy.to_json(),
        }


GOOD = World()


def _claims(**changes: Any) -> World:
    return replace(GOOD, claims=replace(GOOD.claims, **changes))


def _payload(change: Callable[[dict[str, Any]], Any]) -> World:
    payload = json.loads(GOOD.claims.encode())
    change(payload)
    return replace(GOOD, evidence_bytes=PLATFORM_KEY.sign(EVIDENCE_TYPE, wire.encode(payload)).encode())


def _envelope(**changes: Any) -> World:
    return replace(GOOD, evidence_bytes=replace(GOOD.envelope, **changes).encode())


def _endorsed(endorsement: PlatformEndorsement, *signers: SigningKey) -> Endorsement:
    envelope = Envelope(ENDORSEMENT_TYPE, endorsement.encode(), ())
    signatures = tuple(s.signature(ENDORSEMENT_TYPE, endorsement.encode()) for s in signers)
    return Endorsement(ENDORSEMENT_TYPE, replace(envelope, signatures=signatures).encode())


def _bound(keyset: Keyset, **changes: Any) -> World:
    """A keyset that is rightly bound, so that only what is wrong with itself fails."""
    return replace(_claims(report_data=report_data(keyset.digest, NONCE)), keyset=keyset, **changes)


def _forged_endorsement() -> Endorsement:
    good = ROOT.sign(ENDORSEMENT_TYPE, replace(GOOD.endorsement, platform_key=OTHER.public).encode())
    forged = Signature(ROOT.public.keyid, OTHER.sign_bytes(wire.pae(ENDORSEMENT_TYPE, good.payload)))
    return Endorsement(ENDORSEMENT_TYPE, replace(good, signatures=(forged,)).encode())


def _forged_signature() -> World:
    forged = OTHER.signature(EVIDENCE_TYPE, GOOD.claims.encode())
    return _envelope(signatures=(Signature(PLATFORM_KEY.public.keyid, forged.sig),))


def appraisal_cases() -> dict[str, tuple[str, str, str, World]]:
    """Name to description, expected code, the check that fails first, and the world."""
    other_endorsed = replace(GOOD.endorsement, platform_key=OTHER.public)
    endorsement, policy = GOOD.endorsement, GOOD.policy
    doubled = (endorsement.sign(ROOT), replace(endorsement, serial=b"\x17" * 16).sign(ROOT))
    junk = Endorsement(ENDORSEMENT_TYPE, b"{}")
    wrong_kind = Endorsement(ENDORSEMENT_TYPE, GOOD.envelope.encode())
    not_one = Endorsement(ENDORSEMENT_TYPE, ROOT.sign(ENDORSEMENT_TYPE, b"{}").encode())
    root_as_platform = replace(endorsement, platform_key=ROOT.public)
    tail = report_data(KEYSET.digest, NONCE)[:32] + b"\x01" * 32
    no_release = replace(KEYSET, e2ee_public_keys=())
    weak = replace(KEYSET, receipt_signing_keys=(replace(RUN_RECEIPT, public_key=SMALL_ORDER),))
    fewer = replace(MEASUREMENT, registers={k: v for k, v in MEASUREMENT.registers.items() if k != "launch"})
    altered = GOOD.claims.encode().replace(b'"debug":false', b'"debug":true')
    bad, missing = "attest.bad_evidence", "attest.endorsement_missing"
    return {
        "intact": ("everything is as it must be", "ok", "", GOOD),
        "last-second": (
            "at the last second of the endorsement and the keyset, with evidence of the greatest age allowed",
            "ok",
            "",
            replace(_claims(produced_at=AT + 3300), at=AT + 3600),
        ),
        "platform-not-named": (
            "the verifier's policy does not name the simulated platform",
            "attest.platform_not_accepted",
            "A1",
            replace(GOOD, policy=replace(policy, platforms=frozenset({"tdx"}))),
        ),
        "empty-policy": (
            "a policy that lists nothing accepts nothing",
            "attest.platform_not_accepted",
            "A1",
            replace(GOOD, policy=AppraisalPolicy()),
        ),
        "unknown-platform": (
            "evidence of a platform that this version cannot verify, though the policy names it",
            "attest.unknown_platform",
            "A2",
            replace(GOOD, platform="abacus", policy=replace(policy, platforms=frozenset({"abacus"}))),
        ),
        "evidence-empty": ("no bytes at all", bad, "P1", replace(GOOD, evidence_bytes=b"")),
        "evidence-truncated": (
            "the evidence lacks its last byte",
            bad,
            "P1",
            replace(GOOD, evidence_bytes=GOOD.envelope.encode()[:-1]),
        ),
        "evidence-trailing": (
            "a line break after the evidence",
            bad,
            "P1",
            replace(GOOD, evidence_bytes=GOOD.envelope.encode() + b"\n"),
        ),
        "evidence-reformatted": (
            "the same JSON, not canonical",
            bad,
            "P1",
            replace(GOOD, evidence_bytes=json.dumps(GOOD.envelope.to_json()).encode()),
        ),
        "evidence-of-another-type": (
            "an endorsement handed in as evidence: signed by the right key, under another payload type",
            bad,
            "P1",
            replace(GOOD, evidence_bytes=PLATFORM_KEY.sign(ENDORSEMENT_TYPE, GOOD.claims.encode()).encode()),
        ),
        "evidence-unknown-member": (
            "a member that no check reads",
            bad,
            "P1",
            _payload(lambda p: p.update(note="trust me")),
        ),
        "evidence-short-report-data": (
            "report data of 32 bytes",
            bad,
            "P1",
            _payload(lambda p: p.update(report_data="00" * 32)),
        ),
        "evidence-measurement-of-another-platform": (
            "simulated evidence that carries a measurement named tdx",
            bad,
            "P1",
            _payload(lambda p: p["measurement"].update(platform="tdx")),
        ),
        "evidence-unsigned": ("no signature", bad, "P1", _envelope(signatures=())),
        "evidence-signed-twice": (
            "a second signature beside the right one",
            bad,
            "P1",
            _envelope(signatures=(*GOOD.envelope.signatures, OTHER.signature(EVIDENCE_TYPE, GOOD.claims.encode()))),
        ),
        "endorsement-missing": ("nothing vouches for the platform's key", missing, "P2", replace(GOOD, documents=())),
        "endorsement-of-another-key": (
            "the root vouches, for another platform's key",
            missing,
            "P2",
            replace(GOOD, endorsement=other_endorsed),
        ),
        "endorsement-doubled": ("two endorsements of the same key", missing, "P2", replace(GOOD, documents=doubled)),
        "endorsement-junk": (
            "a document that is no endorsement beside the right one",
            "attest.bad_endorsement",
            "P2",
            replace(GOOD, documents=(endorsement.sign(ROOT), junk)),
        ),
        "endorsement-not-an-endorsement": (
            "evidence handed in as an endorsement",
            "attest.bad_endorsement",
            "P2",
            replace(GOOD, documents=(wrong_kind,)),
        ),
        "endorsement-empty": (
            "signed by the root, with nothing in it",
            "attest.bad_endorsement",
            "P2",
            replace(GOOD, documents=(not_one,)),
        ),
        "endorsement-of-another-media-type": (
            "a document of a kind that this platform does not have",
            "attest.bad_endorsement",
            "P2",
            replace(GOOD, documents=(Endorsement("application/pkix-crl", b""), endorsement.sign(ROOT))),
        ),
        "unknown-root": (
            "a chain that is whole, under a root that the verifier did not pin",
            "attest.unknown_root",
            "P3",
            replace(GOOD, endorser=OTHER),
        ),
        "no-roots": (
            "a policy that pins no root",
            "attest.unknown_root",
            "P3",
            replace(GOOD, policy=replace(policy, roots={})),
        ),
        "root-of-another-platform": (
            "the right root, pinned for another platform",
            "attest.unknown_root",
            "P3",
            replace(GOOD, policy=replace(policy, roots={"tdx": Roots((ROOT.public,))})),
        ),
        "endorsement-self-signed": (
            "the platform key vouches for itself",
            "attest.unknown_root",
            "P3",
            replace(GOOD, endorser=PLATFORM_KEY),
        ),
        "endorsement-signed-twice": (
            "signed by the pinned root and by a stranger",
            "attest.unknown_root",
            "P3",
            replace(GOOD, documents=(_endorsed(endorsement, ROOT, OTHER),)),
        ),
        "endorsement-forged": (
            "names the pinned root, is signed by another key",
            "attest.bad_endorsement",
            "P3",
            replace(GOOD, signer=OTHER, documents=(_forged_endorsement(),)),
        ),
        "root-as-platform-key": (
            "the root signs evidence itself: one key in two roles",
            "attest.bad_endorsement",
            "P3",
            replace(GOOD, signer=ROOT, endorsement=root_as_platform),
        ),
        "endorsement-expired": (
            "the endorsement ended the second before",
            "attest.endorsement_expired",
            "P4",
            replace(GOOD, endorsement=replace(endorsement, not_after=AT - 1)),
        ),
        "endorsement-not-yet-valid": (
            "the endorsement begins the second after",
            "attest.endorsement_not_yet_valid",
            "P4",
            replace(GOOD, endorsement=replace(endorsement, not_before=AT + 1)),
        ),
        "evidence-altered": (
            "the payload was changed after it was signed",
            "attest.forged",
            "P5",
            _envelope(payload=altered),
        ),
        "evidence-forged": ("names the endorsed key, is signed by another", "attest.forged", "P5", _forged_signature()),
        "debug": ("an enclave that its host can look into", "attest.debug", "A4", _claims(debug=True)),
        "nonce-absent": (
            "no nonce, and evidence for the cacheable statement without one",
            "attest.bad_nonce",
            "A5",
            replace(_claims(report_data=report_data(KEYSET.digest, None)), nonce=b""),
        ),
        "nonce-short": ("a nonce of 16 bytes", "attest.bad_nonce", "A5", replace(GOOD, nonce=NONCE[:16])),
        "nonce-replayed": (
            "evidence for an earlier question",
            "attest.not_bound",
            "A6",
            _claims(report_data=report_data(KEYSET.digest, b"\x18" * 32)),
        ),
        "nonce-null": (
            "evidence for the statement without a nonce, where one was given",
            "attest.not_bound",
            "A6",
            _claims(report_data=report_data(KEYSET.digest, None)),
        ),
        "keyset-swapped": (
            "somebody else's keyset beside evidence for ours",
            "attest.not_bound",
            "A6",
            replace(GOOD, keyset=replace(KEYSET, subject="strongroom-run://swapped")),
        ),
        "report-data-tail": (
            "the right 32 bytes, then others than zeros",
            "attest.not_bound",
            "A6",
            _claims(report_data=tail),
        ),
        "stale": ("evidence one second older than allowed", "attest.not_fresh", "A7", _claims(produced_at=AT - 301)),
        "from-the-future": (
            "evidence that was made further ahead than clocks differ",
            "attest.not_fresh",
            "A7",
            _claims(produced_at=AT + 301),
        ),
        "keyset-expired": (
            "the keyset ended the second before",
            "attest.keyset_expired",
            "A8",
            _bound(replace(KEYSET, not_after=AT - 1)),
        ),
        "keyset-for-ever": (
            "a keyset that expires more than a year from now",
            "attest.bad_keyset",
            "A8",
            _bound(replace(KEYSET, not_after=AT + 366 * 86_400 + 1)),
        ),
        "keyset-without-release-key": ("a role without a key", "attest.bad_keyset", "A9", _bound(no_release)),
        "keyset-with-weak-key": ("a receipt key of small order", "attest.bad_keyset", "A9", _bound(weak)),
        "edited-program": (
            "one line of the package was edited",
            "attest.measurement_not_accepted",
            "A10",
            _claims(measurement=EDITED),
        ),
        "register-missing": (
            "every register but one",
            "attest.measurement_not_accepted",
            "A10",
            _claims(measurement=fewer),
        ),
        "no-measurements": (
            "a policy without reference values accepts no measurement",
            "attest.measurement_not_accepted",
            "A10",
            replace(GOOD, policy=replace(policy, references=())),
        ),
        "machine-not-named": (
            "a policy that names machines, and a platform that does not say which it is",
            "attest.machine_not_accepted",
            "A12",
            replace(GOOD, policy=replace(policy, machines=frozenset({"chip:" + "00" * 64}))),
        ),
        "no-machines": (
            "a policy whose list of machines is empty accepts none",
            "attest.machine_not_accepted",
            "A12",
            replace(GOOD, policy=replace(policy, machines=frozenset())),
        ),
        "event-log-of-no-platform": (
            "an event log beside evidence of a platform that has none",
            "attest.bad_event_log",
            "A13",
            replace(GOOD, event_log=b"[]"),
        ),
        "device-not-asked-for": (
            "a device that the policy does not name, beside good evidence",
            "attest.devices_not_accepted",
            "A14",
            replace(GOOD, devices=(Evidence("nvidia_cc", b"{}"),), device_binding=b"{}"),
        ),
        "device-missing": (
            "the policy asks for a GPU, and there is none",
            "attest.devices_not_accepted",
            "A14",
            replace(GOOD, policy=replace(policy, devices={"nvidia_cc": 1})),
        ),
        "a-second-processor-as-a-device": (
            "the evidence of a processor in a device's place",
            "attest.devices_not_accepted",
            "A14",
            replace(GOOD, devices=(GOOD.evidence,), device_binding=b"{}"),
        ),
    }


def _keyset(**changes: Any) -> str:
    return wire.encode({**KEYSET.to_json(), **changes}).decode()


def keyset_cases() -> dict[str, dict[str, Any]]:
    """Name to case. ``keyset`` is the text whose UTF-8 bytes are parsed; then the key of each role is asked for."""
    tls = TlsKey(b"\xc0" * 32, "api.example.com")
    full = replace(KEYSET, tls_public_keys=(tls, TlsKey(b"\xc1" * 32)), subject=None)
    receipt, release = RUN_RECEIPT.to_json(), RELEASE.to_json()
    x25519 = {"algo": "x25519-aes-256-gcm-hkdf-sha256", "key_id": "e2ee-1", "public_key": RELEASE.raw[-32:].hex()}
    aci = {"algo": "ed25519", "key_id": "receipt-1", "public_key": OTHER.public.raw.hex()}
    spki = wire.digest(bytes.fromhex("302a300506032b6570032100") + RECEIPT_KEY.public.raw).removeprefix("sha256:")
    with_aci = _keyset(receipt_signing_keys=[aci, receipt])
    bad = "attest.bad_keyset"

    def good(description: str, text: str) -> dict[str, Any]:
        digest = Keyset.parse(text.encode()).digest
        statements = [
            {
                "nonce": nonce.hex() if nonce else None,
                "report_data": report_data(digest, nonce).hex(),
                "statement": statement(digest, nonce).decode(),
            }
            for nonce in (NONCE, None)
        ]
        return {"description": description, "expect": "ok", "keyset": text, "digest": digest, "statements": statements}

    def refused(description: str, expect: str, text: str) -> dict[str, Any]:
        return {"description": description, "expect": expect, "keyset": text}

    return {
        "one-key-per-role": good("a run's keyset", _keyset()),
        "with-tls-keys": good("TLS keys with and without a domain, and no subject", full.encode().decode()),
        "with-an-aci-receipt-key": good("a key of another role stands beside ours and is not used for ours", with_aci),
        "not-canonical": refused("members in another order", "wire.not_canonical", json.dumps(KEYSET.to_json())),
        "unknown-member": refused("a member that nobody reads", "wire.bad_field", _keyset(note="")),
        "expiry-missing": refused("a keyset for ever", "wire.bad_field", _keyset(not_after=None)),
        "upper-case-hex": refused(
            "a key in upper case", bad, _keyset(receipt_signing_keys=[{**aci, "public_key": "AB" * 32}])
        ),
        "key-id-doubled": refused(
            "one id for two keys", bad, _keyset(e2ee_public_keys=[{**release, "key_id": RUN_RECEIPT.key_id}])
        ),
        "key-in-two-roles": refused(
            "the run-receipt key signs ACI receipts too",
            bad,
            _keyset(receipt_signing_keys=[receipt, {**aci, "public_key": receipt["public_key"]}]),
        ),
        "part-of-a-hybrid-key-in-two-roles": refused(
            "the X25519 half of the release key serves another role", bad, _keyset(e2ee_public_keys=[release, x25519])
        ),
        "tls-key-in-two-roles": refused(
            "the run-receipt key ends TLS too", bad, _keyset(tls_public_keys=[{"spki_sha256": spki}])
        ),
        "role-in-the-wrong-list": refused(
            "the release role among signing keys", bad, _keyset(receipt_signing_keys=[receipt, release], e2ee_public_keys=[])
        ),
        "two-keys-for-a-role": refused(
            "two run-receipt keys",
            bad,
            _keyset(receipt_signing_keys=[receipt, {**aci, "algo": RUN_RECEIPT_ALGO}]),
        ),
        "no-key-for-a-role": refused("no release key", bad, _keyset(e2ee_public_keys=[])),
        "weak-receipt-key": refused(
            "a point of small order", bad, _keyset(receipt_signing_keys=[{**receipt, "public_key": SMALL_ORDER}])
        ),
        "short-release-key": refused(
            "a release key of 32 bytes", bad, _keyset(e2ee_public_keys=[{**release, "public_key": "ab" * 32}])
        ),
    }


def _write(folder: str, cases: dict[str, dict[str, Any]]) -> None:
    for old in (HERE / folder).glob("*.json"):
        old.unlink()
    for name, case in cases.items():
        text = json.dumps(case, indent=1, sort_keys=True, ensure_ascii=False)
        (HERE / folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def all_cases() -> dict[str, dict[str, dict[str, Any]]]:
    """Folder to name to the case as it stands in the file."""
    appraisal = {
        name: {"description": description, "expect": expect, "fails": number, **world.to_json()}
        for name, (description, expect, number, world) in appraisal_cases().items()
    }
    return {"keyset": keyset_cases(), "appraisal": appraisal}


if __name__ == "__main__":
    for folder, cases in all_cases().items():
        (HERE / folder).mkdir(exist_ok=True)
        _write(folder, cases)
