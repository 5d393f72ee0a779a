"""Writes ``vectors/dstack``. Deterministic: the stand-ins for Intel, AMD and dstack in ``tests``, with fixed keys and times.

    python vectors/make_dstack.py

One file a case: evidence, endorsements, roots and time; ``terms`` where they are judged; a service's ``report`` with
``nonce`` and ``kms_roots`` where that is examined. ``expect``: ``ok``, or the stable code of the first check that fails or
is not established; ``fails`` is its number.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

import pki_amd  # noqa: E402 - from the tests
import pki_dstack as pki  # noqa: E402
from strongroom.attest import aci_report, dstack, snp  # noqa: E402
from strongroom.attest.evidence import Endorsements, Evidence, Roots  # noqa: E402

SMALL = (pki.BOOT[6], pki.BOOT[8])  # two firmware events, so that a vector stays small
GUEST = pki.Guest(entries=(*SMALL, *pki.APP))


@dataclass(frozen=True, kw_only=True)
class Case:
    """One vector; ``report`` is a service's, whose evidence is then the case's."""

    name: str
    description: str
    expect: str = "ok"
    fails: str = ""
    evidence: Evidence
    endorsements: Endorsements
    roots: Roots
    at: int = pki.AT
    terms: dict[str, Any] | None = None
    report: dict[str, Any] | None = None
    nonce: bytes | None = None
    kms_roots: tuple[bytes, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "at": self.at,
            "fails": self.fails,
            "description": self.description,
            "endorsements": self.endorsements.to_json(),
            "evidence": self.evidence.to_json(),
            "expect": self.expect,
            "platform": "dstack",
            "roots": self.roots.to_json(),
        }
        if self.terms is not None:
            found["terms"] = self.terms
        if self.report is not None:
            found |= {"report": self.report, "nonce": self.nonce.hex() if self.nonce else None}
            found["kms_roots"] = [root.hex() for root in self.kms_roots]
        return found


def of(guest: pki.Guest, name: str, description: str, **more: Any) -> Case:
    found = {"evidence": guest.evidence(), "endorsements": guest.endorsements(), "roots": guest.roots(), **more}
    return Case(name=name, description=description, **found)


def of_report(guest: pki.Guest, name: str, description: str, report: dict[str, Any], **more: Any) -> Case:
    """A case whose evidence is that of the report, read as it stands in the file."""
    read = aci_report.parse(json.dumps(report, sort_keys=True).encode()).evidence
    return of(guest, name, description, evidence=read, report=report, nonce=pki.NONCE, **more)


def told(*entries: pki.Entry) -> pki.Guest:
    """The guest with another log than what was measured."""
    return replace(GUEST, told=tuple(entries))


def measured(*entries: pki.Entry) -> pki.Guest:
    """A guest that measured something else, and says so."""
    return replace(GUEST, entries=tuple(entries))


def evidence_cases() -> Iterator[Case]:
    """K1 to K5."""
    log = "attest.bad_event_log"
    app = pki.APP
    yield of(GUEST, "tdx", "a dstack guest on TDX")
    two = tuple(pki.runtime(e.name, e.payload, 2) for e in app)
    yield of(measured(*SMALL, *two), "tdx-version-2", "runtime events hashed as canonical JSON")
    bare = tuple(replace(e, digest=b"") for e in app)
    yield of(told(*SMALL, *bare), "tdx-left-out", "RTMR3 is computed where the log leaves its digests out")
    third = replace(GUEST, mrconfigid=b"\3" + hashlib.sha256(b"a configuration").digest() + bytes(15))
    yield of(third, "tdx-mrconfigid-3", "an MRCONFIGID that names the machine's instance is in no measurement")
    yield snp_case("snp", "a dstack guest on SEV-SNP", pki.CONFIGURATION)

    sgx = Evidence("dstack", b"\3\0\2\0" + bytes(500), event_log=GUEST.log)
    yield of(
        GUEST,
        "not-a-quote",
        "neither a TDX quote nor an SEV-SNP report",
        expect="attest.bad_evidence",
        fails="K1",
        evidence=sgx,
    )
    bare_quote = Evidence("dstack", GUEST.evidence().data)
    yield of(GUEST, "no-log", "a quote without its log", expect=log, fails="K1", evidence=bare_quote)
    revoked = replace(GUEST, intel={"lists": {"Intel SGX PCK Platform CA": {"revoked": ("Intel SGX PCK Certificate",)}}})
    yield of(revoked, "revoked", "a processor whose certificate is revoked", expect="attest.revoked", fails="K2")
    none = Endorsements()
    yield of(GUEST, "no-endorsements", "no collateral", expect="attest.endorsement_missing", fails="K2", endorsements=none)
    yield of(GUEST, "no-roots", "no root is pinned", expect="attest.unknown_root", fails="K2", roots=Roots())
    other = pki.changed(app, "compose-hash", payload=hashlib.sha256(b"another app").digest())
    yield of(told(*SMALL, *other), "other-app", "the log names another app than was measured", expect=log, fails="K3")
    yield of(told(*SMALL, *app[:-2], app[-1]), "event-dropped", "the log leaves an event out", expect=log, fails="K3")
    swapped = (*app[:1], app[2], app[1], *app[3:])
    yield of(told(*SMALL, *swapped), "reordered", "the log has two events in the other order", expect=log, fails="K3")
    lying = pki.changed(app, "compose-hash", digest=bytes(48))
    yield of(
        told(*SMALL, *lying), "digest-not-of-payload", "a digest that is not of name and payload", expect=log, fails="K3"
    )
    boot = (replace(SMALL[0], digest=hashlib.sha384(b"other").digest(), payload=b"other"), SMALL[1])
    yield of(told(*boot, *app), "boot-other", "another firmware event than was measured", expect=log, fails="K4")
    text = (replace(SMALL[0], payload=b"other"), SMALL[1])
    yield of(told(*text, *app), "boot-lie", "a firmware event's text that is not what was hashed", expect=log, fails="K4")
    again = (*app, pki.runtime("compose-hash", bytes(32)))
    yield of(measured(*SMALL, *again), "redefined", "the app names itself another app, once it runs", expect=log, fails="K5")
    twice = (*app[:3], pki.runtime("compose-hash", bytes(32)), *app[3:])
    yield of(measured(*SMALL, *twice), "named-twice", "the app is named twice", expect=log, fails="K5")
    yield of(measured(*SMALL, *app[:-1]), "not-ready", "the system was never ready", expect=log, fails="K5")
    no_app = pki.without(app, "compose-hash")
    yield of(measured(*SMALL, *no_app), "no-app", "no app is named", expect=log, fails="K5")
    shadow = (*app[:-1], pki.runtime("mrowner", b"x"), app[-1])
    yield of(
        measured(*SMALL, *shadow),
        "shadows-hardware",
        "an event has the name of the hardware's register",
        expect=log,
        fails="K5",
    )
    changed = pki.CONFIGURATION.replace(pki.COMPOSE_HASH.hex().encode(), b"ab" * 32)
    yield replace(
        snp_case("snp-other-app", "HOST_DATA commits to another configuration", pki.CONFIGURATION, told=changed),
        expect=log,
        fails="K3",
    )


def snp_case(name: str, description: str, configuration: bytes, *, told: bytes | None = None, **more: Any) -> Case:
    case = pki.snp_case(configuration)
    return Case(
        name=name,
        description=description,
        evidence=Evidence("dstack", case.data, event_log=configuration if told is None else told),
        endorsements=case.endorsements,
        roots=pki.snp_roots(),
        at=case.at,
        **more,
    )


def terms_cases() -> Iterator[Case]:
    """KT1 to KT4."""
    not_met = "attest.terms_not_met"

    def terms(**changes: Any) -> dict[str, Any]:
        return dstack.Terms().to_json() | changes

    yield of(GUEST, "terms", "the strict terms", terms=terms())
    yield of(GUEST, "terms-app", "the app is named", terms=terms(app_ids=[pki.APP_ID.hex()]))
    event = measured(*SMALL, *pki.APP, pki.runtime("MY_EVENT", b"x"))
    yield of(event, "terms-event", "what the app measured is named", terms=terms(events=["MY_EVENT"]))
    left_out = told(*SMALL, *(replace(e, digest=b"") for e in pki.APP))
    yield of(left_out, "terms-left-out", "the policy lets a log leave something out", terms=terms(whole_log=False))
    amd = snp.Terms(minimum_tcb={"milan": pki_amd.TCB["milan"]}).to_json()
    yield snp_case("terms-snp", "the policy accepts SEV-SNP", pki.CONFIGURATION, terms=terms(sev_snp=amd))

    yield snp_case(
        "terms-snp-not-named", "nothing is said of SEV-SNP", pki.CONFIGURATION, terms=terms(), expect=not_met, fails="KT1"
    )
    migratable = replace(GUEST, td={"attributes": bytes.fromhex("0000003000000000")})
    yield of(migratable, "terms-tdx", "a TD that can be migrated", terms=terms(), expect=not_met, fails="KT1")
    yield of(GUEST, "terms-no-app", "an empty list names no app", terms=terms(app_ids=[]), expect=not_met, fails="KT2")
    yield of(GUEST, "terms-other-app", "another app is named", terms=terms(app_ids=["00" * 20]), expect=not_met, fails="KT2")
    yield of(event, "terms-no-event", "what the app measured is not named", terms=terms(), expect=not_met, fails="KT3")
    yield of(left_out, "terms-whole", "the log leaves something out", terms=terms(), expect=not_met, fails="KT4")


def service_cases() -> Iterator[Case]:
    """C1 to C5, for services' reports."""
    root = (pki.KMS_ROOT.public_key.format(),)
    guest = replace(pki.aci_guest(), entries=GUEST.entries)
    report = pki.aci_report(guest)

    def aci(name: str, description: str, of_guest: pki.Guest = guest, **more: Any) -> Case:
        found = {"report": report, "nonce": pki.NONCE, "kms_roots": root, **more}
        return of(of_guest, f"service-{name}", description, **found)

    yield aci("aci", "ACI's report of a dstack service")
    bound, forged, unknown = "attest.not_bound", "attest.forged", "attest.unknown_root"
    yield aci("other-evidence", "evidence of another service was verified", GUEST, expect=bound, fails="C1")
    yield aci("replayed", "the report answers another nonce", nonce=bytes(32), expect=bound, fails="C2")
    compose = pki.aci_report(guest, app_compose="{}")
    yield aci("other-composition", "another composition than was measured", report=compose, expect=forged, fails="C3")
    yield aci("no-kms-root", "no root of a KMS is pinned", kms_roots=(), expect=unknown, fails="C4")
    stranger = pki.aci_report(guest, key_custody=pki.key_custody(b"\xab" * 20))
    yield aci("other-apps-key", "the key was issued to another app", report=stranger, expect=unknown, fails="C4")
    for_other = pki.key_custody()
    for_other["keys"][0]["public_key"] = "ab" * 32
    for_other = pki.aci_report(guest, key_custody=for_other)
    yield aci(
        "other-key", "the custody is of a key that the service does not have", report=for_other, expect=forged, fails="C4"
    )

    for tls in (None, pki.TLS_KEY):
        signing = replace(pki.address_guest(tls=tls), entries=GUEST.entries)
        said = pki.address_report(signing, tls_cert_fingerprint=tls.hex() if tls else None)
        name = "service-address-tls" if tls else "service-address"
        text = "the report of a model behind a signing address: nothing says where its key comes from"
        yield of_report(signing, name, text, said, expect="attest.endorsement_missing", fails="C4")
    signing = replace(pki.address_guest(), entries=GUEST.entries)
    swapped = pki.address_report(signing, signing_address="0x" + "ee" * 20)
    yield of_report(signing, "service-address-swapped", "another signing address", swapped, expect=bound, fails="C2")
    stale = pki.address_report(signing, nvidia_payload=json.dumps({"evidence_list": [pki.gpu(bytes(32))]}))
    yield of_report(signing, "service-gpu-replayed", "a GPU's report for another nonce", stale, expect=bound, fails="C5")


def cases() -> Iterator[Case]:
    """Every case."""
    yield from evidence_cases()
    yield from terms_cases()
    yield from service_cases()


def main() -> None:
    folder = HERE / "dstack"
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.json"):
        path.unlink()
    for case in cases():
        text = json.dumps(case.to_json(), indent=1, sort_keys=True)
        (folder / f"{case.name}.json").write_bytes(text.encode() + b"\n")


if __name__ == "__main__":
    main()
